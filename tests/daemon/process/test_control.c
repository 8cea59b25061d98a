/* The control socket and those who ask it. */
#include "tests/daemon/base/td_test.h"

#include "tunneld/process/control.h"
#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static char dir[64];
static struct td_control *C;
static size_t long_answer;

static void status(void *ctx, const char *request, struct tnl_buf *json)
{
	if (strcmp(request, "status") != 0) {
		tnl_buf_printf(json, "{\"heard\":%zu}", strlen(request));
		return;
	}
	assert_ptr_equal(ctx, dir);
	tnl_buf_puts(json, "{\"a\":1");
	for (size_t i = 0; i < long_answer; i++)
		tnl_buf_puts(json, ",\"b\":2");
	tnl_buf_putc(json, '}');
}

static int setup(void **state)
{
	t_open();
	strcpy(dir, "/tmp/tunneld-control-XXXXXX");
	long_answer = 0;
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	char command[160];
	t_close();
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

static void begin(const char *where)
{
	char why[256] = "";
	C = td_control_new(T, where, status, dir, why, sizeof(why));
	if (!C)
		fail_msg("%s", why);
}

/* The other end by hand: no line of it is asked for, nothing blocks. */
static int dial(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	snprintf(a.sun_path, sizeof(a.sun_path), "%s/control.sock", dir);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_true(fd >= 0 && !connect(fd, (struct sockaddr *)&a, sizeof(a)));
	t_turns(4);
	return fd;
}

static void put(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (int)strlen(text));
	t_turns(4);
}

/* What has come so far; closed: and then the end. */
static const char *got(int fd, bool *closed)
{
	static char text[256];
	size_t n = 0;
	ssize_t r;
	while ((r = read(fd, text + n, sizeof(text) - 1 - n)) > 0)
		n += (size_t)r;
	*closed = r == 0 || errno == ECONNRESET;
	text[n] = '\0';
	return text;
}

static void assert_answer(int fd, const char *text, bool closed)
{
	bool is_closed;
	assert_string_equal(got(fd, &is_closed), text);
	assert_int_equal(is_closed, closed);
}

static void test_status(void **state)
{
	struct stat st;
	char path[128];
	begin(dir);
	snprintf(path, sizeof(path), "%s/control.sock", dir);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	int fd = dial();
	put(fd, "sta");
	assert_answer(fd, "", false);
	put(fd, "tus\n");
	assert_answer(fd, "{\"a\":1}\n", true);
	close(fd);
	td_control_free(C);
	assert_int_equal(stat(path, &st), -1);
}

static void test_what_is_no_request(void **state)
{
	begin(dir);
	int fd = dial();
	put(fd, "shutdown\n");
	assert_answer(fd, "{\"heard\":8}\n", true); /* what it means is the daemon's affair */
	close(fd);
	fd = dial();
	char endless[600];
	memset(endless, 'x', sizeof(endless) - 1);
	endless[sizeof(endless) - 1] = '\0';
	put(fd, endless);
	assert_answer(fd, "", true);
	close(fd);
	fd = dial();
	put(fd, "status");
	shutdown(fd, SHUT_WR);
	t_turns(4);
	assert_answer(fd, "", true);
	close(fd);
	td_control_free(C);
}

/* Eight at a time: the ninth is closed at once, and there is room again when one has gone. */
static void test_crowd(void **state)
{
	int fd[9];
	begin(dir);
	for (int i = 0; i < 9; i++)
		fd[i] = dial();
	assert_answer(fd[8], "", true);
	assert_answer(fd[7], "", false);
	close(fd[0]);
	t_turns(4);
	close(fd[8]);
	fd[8] = dial();
	put(fd[8], "status\n");
	assert_answer(fd[8], "{\"a\":1}\n", true);
	td_control_free(C); /* with clients in it */
	for (int i = 1; i < 9; i++)
		close(fd[i]);
}

/* A socket that is left over from a process that was killed, and a path that no socket address takes. */
static void test_places(void **state)
{
	char deep[256], why[256];
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	snprintf(a.sun_path, sizeof(a.sun_path), "%s/control.sock", dir);
	int left = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(left, (struct sockaddr *)&a, sizeof(a)), 0);
	close(left);
	begin(dir);
	int fd = dial();
	put(fd, "status\n");
	assert_answer(fd, "{\"a\":1}\n", true);
	close(fd);
	td_control_free(C);

	snprintf(deep, sizeof(deep), "%s/%0100d", dir, 7);
	assert_null(td_control_new(T, deep, status, dir, why, sizeof(why)));
	assert_non_null(strstr(why, "No such file or directory"));
	assert_int_equal(mkdir(deep, 0700), 0);
	begin(deep);
	td_control_free(C);
}

/* --- td_control_ask ------------------------------------------------------------------ */

static char *answer;
static int answer_errno;
static int answered;

static void *ask(void *where)
{
	errno = 0;
	answer = td_control_ask(where, "status", 2000);
	answer_errno = errno;
	__atomic_store_n(&answered, 1, __ATOMIC_RELEASE);
	return NULL;
}

static void ask_while_it_runs(char *where)
{
	pthread_t t;
	answered = 0;
	assert_int_equal(pthread_create(&t, NULL, ask, where), 0);
	while (!__atomic_load_n(&answered, __ATOMIC_ACQUIRE)) {
		t_turns(1);
		usleep(1000);
	}
	pthread_join(t, NULL);
}

static void test_ask(void **state)
{
	char deep[256];
	snprintf(deep, sizeof(deep), "%s/%0100d", dir, 7);
	assert_int_equal(mkdir(deep, 0700), 0);
	for (int i = 0; i < 2; i++) {
		char *where = i ? deep : dir;
		assert_null(td_control_ask(where, "status", 100));
		assert_int_equal(errno, ENOENT);
		begin(where);
		long_answer = 100000; /* more than a socket takes at once */
		ask_while_it_runs(where);
		assert_non_null(answer);
		assert_int_equal(strlen(answer), strlen("{\"a\":1}\n") + 6 * long_answer);
		tnl_free(answer);
		td_control_free(C);
	}
	assert_null(td_control_ask("/nonexistent", "status", 100));
	assert_int_equal(errno, ENOENT);
}

static void test_nobody_answers(void **state)
{
	begin(dir);
	assert_null(td_control_ask(dir, "status", 50)); /* the loop does not run */
	assert_int_equal(errno, ETIMEDOUT);
	td_control_free(C);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    TEST(test_status), TEST(test_what_is_no_request), TEST(test_crowd), TEST(test_places),
	    TEST(test_ask),    TEST(test_nobody_answers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
