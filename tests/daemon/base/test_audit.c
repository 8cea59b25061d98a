/* The audit log: whole lines whatever the disk does, nothing forged, the loop never waits. */
#include "tests/daemon/base/td_test.h"
#include "lib/json.h"
#include "lib/num.h"
#include "tunneld/base/audit.h"
#include <fcntl.h>
#include <semaphore.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/stat.h>

static char dir[64], path[sizeof(dir) + 16];

static int begin(void **state)
{
	t_open();
	strcpy(dir, "/tmp/tunneld-audit-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/audit", dir);
	return 0;
}

static int end(void **state)
{
	char cmd[100];
	t_close();
	snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
	return system(cmd);
}

static struct td_audit *open_log(void)
{
	char why[200];
	struct td_audit *a = td_audit_open(T, "test", path, why, sizeof(why));
	if (!a)
		fail_msg("%s", why);
	return a;
}

static void say(struct td_audit *a, const char *event, const char *text)
{
	struct td_audit_line l;
	assert_true(td_audit_begin(a, &l, event));
	td_audit_str(&l, "text", text);
	td_audit_str(&l, "nothing", NULL);
	td_audit_num(&l, "n", 7);
	td_audit_end(&l);
}

/* Every line is an object with the members that all have; how many there are, and in `lost` what "dropped" tells. */
static bool file_has(const char *name, const char *text)
{
	static char all[32768];
	FILE *f = fopen(name, "r");
	size_t n = f ? fread(all, 1, sizeof(all) - 1, f) : 0;
	if (f)
		fclose(f);
	all[n] = '\0';
	return strstr(all, text) != NULL;
}

static unsigned count_lines(const char *file, unsigned *lost)
{
	static char line[20000];
	FILE *f = fopen(file, "r");
	unsigned n = 0;
	*lost = 0;
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		assert_int_equal(line[strlen(line) - 1], '\n');
		struct tnl_json *j = tnl_json_parse(line, strlen(line) - 1);
		int64_t v = 0;
		if (!j || !tnl_json_get_str(j, "time") || !tnl_json_get_str(j, "event"))
			fail_msg("no line of an audit log: %s", line);
		assert_string_equal(tnl_json_get_str(j, "role"), "test");
		if (tnl_json_int(tnl_json_get(j, "lines"), &v))
			*lost += (unsigned)v;
		else
			n++;
		tnl_json_free(j);
	}
	fclose(f);
	return n;
}

static void test_lines(void **state)
{
	char big[20000];
	unsigned lost;
	struct stat st;
	struct td_audit *a = open_log();
	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = 0;
	say(a, "one", "\"}\n{\"event\":\"forged\"}\n\x1b[2J\xff");
	say(a, "two", big);
	td_audit_close(a);
	assert_int_equal(count_lines(path, &lost), 2);
	assert_int_equal(lost, 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_in_range(st.st_size, 8192, 9000); /* a value is cut at 8 KiB, and that it was is said */
	assert_true(file_has(path, "_bytes\":19999"));
	td_audit_close(open_log());
	assert_int_equal(count_lines(path, &lost), 2); /* what was there stays */
	struct td_audit_line l;
	assert_false(td_audit_begin(NULL, &l, "none"));
	td_audit_close(NULL);
}

static void test_rotation(void **state)
{
	char moved[sizeof(path) + 2], why[200];
	unsigned lost;
	struct td_audit *a = open_log(), *same = a;
	say(a, "one", "");
	snprintf(moved, sizeof(moved), "%s.1", path);
	td_audit_close(a);
	a = same = open_log();
	assert_int_equal(rename(path, moved), 0);
	assert_int_equal(td_audit_reload(&a, T, "test", path, why, sizeof(why)), 0);
	assert_ptr_equal(a, same);
	for (int i = 0; i < 500 && access(path, F_OK) != 0; i++)
		usleep(10000);
	say(a, "two", "");
	say(a, "three", "");
	td_audit_close(a);
	assert_int_equal(count_lines(moved, &lost), 1);
	assert_int_equal(count_lines(path, &lost), 2);
	/* another file, none, and one that cannot be */
	a = NULL;
	assert_int_equal(td_audit_reload(&a, T, "test", moved, why, sizeof(why)), 0);
	assert_non_null(a);
	same = a;
	assert_int_equal(td_audit_reload(&a, T, "test", "/nowhere/audit", why, sizeof(why)), -1);
	assert_non_null(strstr(why, "/nowhere/audit: No such file"));
	assert_ptr_equal(a, same);
	assert_int_equal(td_audit_reload(&a, T, "test", "/dev/null", why, sizeof(why)), -1);
	assert_non_null(strstr(why, "is not a file"));
	assert_int_equal(td_audit_reload(&a, T, "test", NULL, why, sizeof(why)), 0);
	assert_null(a);
}

/* The disk takes no more: the loop goes on, lines wait, then are counted; all of that is there when it takes some
 * again. */
static void test_full_disk(void **state)
{
	struct rlimit was, small;
	unsigned said = 3000, lost, n;
	char text[1000];
	memset(text, 'y', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	struct td_audit *a = open_log();
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
	small = was;
	small.rlim_cur = 100000;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0); /* EFBIG, as SIGXFSZ is blocked in the worker */
	for (unsigned i = 0; i < said; i++)
		say(a, "line", text);
	uint64_t dropped = td_audit_dropped(a);
	assert_in_range(dropped, 1000, said - 900); /* the ring has room for a thousand of them */
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
	struct stat st = {0};
	for (int i = 0; i < 1000 && (stat(path, &st) != 0 || st.st_size < 1000000); i++)
		usleep(10000);
	for (int i = 0; i < 5; i++)
		say(a, "after", "it");
	td_audit_close(a);
	n = count_lines(path, &lost);
	assert_true(lost >= dropped);
	assert_int_equal(n + lost, said + 5);
}

/* Puts a pipe that nobody reads in the place of the file that is open: a write there never comes back. */
static void stick(int pipe_end)
{
	char link[64], to[sizeof(path)];
	for (int fd = 3; fd < 256; fd++) {
		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		ssize_t n = readlink(link, to, sizeof(to) - 1);
		to[TNL_MAX(n, 0)] = 0;
		if (strcmp(to, path) == 0) {
			assert_int_equal(dup2(pipe_end, fd), fd);
			return;
		}
	}
	fail_msg("%s is not open", path);
}

/* A FIFO is refused; a worker that hangs in write(2) for ever stops neither a reload, to another file or to none, nor
 * the end, and what waited is written when the disk answers. */
static void test_stuck_disk(void **state)
{
	char fifo[sizeof(path) + 8], other[sizeof(path) + 8], why[200], text[1000];
	unsigned lost;
	int p[2];
	snprintf(fifo, sizeof(fifo), "%s.fifo", path);
	snprintf(other, sizeof(other), "%s.other", path);
	memset(text, 'z', sizeof(text) - 1);
	text[sizeof(text) - 1] = 0;
	assert_int_equal(mkfifo(fifo, 0600), 0);
	struct td_audit *a = open_log(), *same = a;
	assert_int_equal(td_audit_reload(&a, T, "test", fifo, why, sizeof(why)), -1);
	assert_ptr_equal(a, same);
	for (int to_none = 0; to_none < 2; to_none++) {
		size_t seen = 0;
		ssize_t k;
		assert_int_equal(pipe(p), 0);
		stick(p[1]);
		for (int i = 0; i < 500; i++) /* more than a pipe takes */
			say(a, "line", text);
		alarm(20);
		assert_int_equal(td_audit_reload(&a, T, "test", to_none ? NULL : other, why, sizeof(why)), 0);
		alarm(0);
		close(p[1]);
		if (!to_none) {
			say(a, "after", "it");
			td_audit_close(a);
			assert_int_equal(count_lines(other, &lost), 1);
			a = open_log();
		}
		while ((k = read(p[0], text, sizeof(text) - 1)) > 0) /* its end: the worker has closed it */
			for (ssize_t i = 0; i < k; i++)
				seen += text[i] == '\n';
		memset(text, 'z', sizeof(text) - 1); /* it begins anew */
		close(p[0]);
		assert_int_equal(seen, 500);
	}
	/* the end of the process does not wait for ever either */
	a = open_log();
	assert_int_equal(pipe(p), 0);
	stick(p[1]);
	for (int i = 0; i < 500; i++)
		say(a, "line", text);
	alarm(20);
	td_audit_close(a);
	alarm(0);
	close(p[1]);
	while (read(p[0], text, sizeof(text) - 1) > 0)
		;
	close(p[0]);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, begin, end)

/* open(2) of this path does not come back before the gate is opened. */
static const char *stuck_path;
static sem_t gate;

int open_or_stick(const char *name, int flags, ...) __asm__("open");
int open_or_stick(const char *name, int flags, ...)
{
	va_list ap;
	va_start(ap, flags);
	unsigned mode = flags & O_CREAT ? va_arg(ap, unsigned) : 0;
	va_end(ap);
	if (stuck_path && strcmp(name, stuck_path) == 0)
		sem_wait(&gate);
	return openat(AT_FDCWD, name, flags, mode);
}

/* A start fails, a reload goes on and its lines wait: in both only the worker hangs. */
static void test_stuck_open(void **state)
{
	char other[sizeof(path) + 8], why[200];
	unsigned lost;
	snprintf(other, sizeof(other), "%s.other", path);
	sem_init(&gate, 0, 0);
	struct td_audit *a = open_log();
	stuck_path = other;
	alarm(20);
	assert_null(td_audit_open(T, "test", other, why, sizeof(why)));
	assert_non_null(strstr(why, "does not answer"));
	assert_int_equal(td_audit_reload(&a, T, "test", other, why, sizeof(why)), 0);
	alarm(0);
	say(a, "late", "it");
	assert_int_equal(access(other, F_OK), -1);
	sem_post(&gate);
	sem_post(&gate);
	td_audit_close(a);
	assert_int_equal(count_lines(other, &lost), 1);
	stuck_path = NULL;
}

/* Whoever may write into it may forge lines. */
static void test_open_to_all(void **state)
{
	char why[200];
	td_audit_close(open_log());
	assert_int_equal(chmod(path, 0666), 0);
	assert_null(td_audit_open(T, "test", path, why, sizeof(why)));
	assert_non_null(strstr(why, "everybody may write it"));
	assert_int_equal(chmod(path, 0640), 0);
	td_audit_close(open_log());
}

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(test_lines),	  TEST(test_rotation),	 TEST(test_full_disk),
					   TEST(test_stuck_disk), TEST(test_stuck_open), TEST(test_open_to_all)};
	return cmocka_run_group_tests_name("audit log", tests, NULL, NULL);
}
