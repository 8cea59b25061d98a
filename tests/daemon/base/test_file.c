/* Reading and writing whole files. */
#include "tests/daemon/base/td_test.h"
#include "tunneld/base/file.h"

#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>

static char dir[] = "/tmp/td-file-XXXXXX";

static const char *in_dir(const char *name)
{
	static char path[128];
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static int entries(void)
{
	DIR *d = opendir(dir);
	int n = 0;
	assert_non_null(d);
	for (struct dirent *e; (e = readdir(d)) != NULL;)
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

static void what_is_written_is_read(void **state)
{
	const char *path = in_dir("both");
	struct stat st;
	size_t n = 77;
	assert_int_equal(td_file_write(path, "a\0b", 3, 0), 0);
	char *p = td_file_read(path, 3, 0, &n, &st);
	assert_non_null(p);
	assert_int_equal(n, 3);
	assert_memory_equal(p, "a\0b", 4);
	assert_int_equal(st.st_mode & 07777, 0600);
	tnl_free(p);
	assert_int_equal(td_file_write(path, "other", 5, TD_FILE_SYNC), 0);
	p = td_file_read(path, 100, 0, &n, NULL);
	assert_string_equal(p, "other");
	tnl_free(p);
	assert_int_equal(td_file_write(path, "", 0, 0), 0);
	p = td_file_read(path, 0, 0, &n, NULL);
	assert_string_equal(p, "");
	assert_int_equal(n, 0);
	tnl_free(p);
	assert_int_equal(entries(), 1); /* nothing is left beside it */
	unlink(path);
}

static void what_is_no_file(void **state)
{
	struct stat st;
	size_t n = 77;
	assert_null(td_file_read(in_dir("none"), 10, 0, &n, &st));
	assert_int_equal(errno, ENOENT);
	assert_int_equal(n, 0);
	assert_null(td_file_read(dir, 10, 0, &n, &st));
	assert_int_equal(errno, EISDIR);
	assert_null(td_file_read("/dev/null", 10, 0, &n, &st));
	assert_int_equal(errno, ENOTSUP);
	assert_int_equal(mkfifo(in_dir("fifo"), 0600), 0);
	assert_null(td_file_read(in_dir("fifo"), 10, 0, &n, &st)); /* and does not wait for a writer */
	assert_int_equal(errno, ENOTSUP);
	unlink(in_dir("fifo"));
}

static void the_bound(void **state)
{
	const char *path = in_dir("large");
	size_t n;
	assert_int_equal(td_file_write(path, "0123456789", 10, 0), 0);
	assert_null(td_file_read(path, 9, 0, &n, NULL));
	assert_int_equal(errno, EFBIG);
	char *p = td_file_read(path, 10, 0, &n, NULL);
	assert_string_equal(p, "0123456789");
	tnl_free(p);
	unlink(path);
	/* no size is known before it is read */
	p = td_file_read("/proc/self/stat", 65536, 0, &n, NULL);
	assert_non_null(p);
	assert_true(n > 0);
	tnl_free(p);
	assert_null(td_file_read("/proc/self/stat", 3, 0, &n, NULL));
	assert_int_equal(errno, EFBIG);
}

static char *through_a_pipe(const char *text, size_t max, size_t *n)
{
	char path[64];
	int fds[2];
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(write(fds[1], text, strlen(text)), strlen(text));
	close(fds[1]);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fds[0]);
	char *p = td_file_read(path, max, TD_FILE_PIPE, n, NULL);
	int saved = errno;
	close(fds[0]);
	errno = saved;
	return p;
}

static void a_pipe(void **state)
{
	size_t n;
	char *p = through_a_pipe("from a pipe", 11, &n);
	assert_string_equal(p, "from a pipe");
	assert_int_equal(n, 11);
	tnl_free(p);
	assert_null(through_a_pipe("from a pipe", 10, &n));
	assert_int_equal(errno, EFBIG);
}

static void what_cannot_be_written(void **state)
{
	size_t n;
	assert_int_equal(td_file_write(in_dir("none/x"), "a", 1, 0), TNL_EIO);
	assert_int_equal(errno, ENOENT);
	const char *path = in_dir("kept");
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(td_file_write(path, "a", 1, 0), TNL_EIO);
	assert_int_equal(errno, EISDIR);
	assert_int_equal(entries(), 1);
	assert_int_equal(rmdir(path), 0);
	/* no memory: the old one stays */
	assert_int_equal(td_file_write(path, "old", 3, 0), 0);
	tnl_alloc_fail_after(0, 1);
	int err = td_file_write(path, "new", 3, 0);
	char *p = td_file_read(path, 10, 0, &n, NULL);
	int saved = errno;
	tnl_alloc_fail_after(-1, 0);
	assert_int_equal(err, TNL_ENOMEM);
	assert_null(p);
	assert_int_equal(saved, ENOMEM);
	p = td_file_read(path, 10, 0, &n, NULL);
	assert_string_equal(p, "old");
	tnl_free(p);
	unlink(path);
}

static int setup(void **state)
{
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(what_is_written_is_read),
	    cmocka_unit_test(what_is_no_file),
	    cmocka_unit_test(the_bound),
	    cmocka_unit_test(a_pipe),
	    cmocka_unit_test(what_cannot_be_written),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
