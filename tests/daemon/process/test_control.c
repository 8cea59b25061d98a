/* The control socket and those who ask it. */
#include "tests/daemon/base/td_test.h"

#include "tunneld/process/control.h"
#include <errno.h>
#include <fcntl.h>
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
	static char endless[2100];
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

static int crowd[33];

static void close_crowd(void)
{
	td_control_free(C); /* with clients in it */
	for (int i = 0; i < 33; i++)
		close(crowd[i]);
}

/* Thirty-two at a time: of those that have not asked, or only begun to, the oldest makes way, and nobody else. */
static void test_crowd(void **state)
{
	begin(dir);
	for (int i = 0; i < 32; i++)
		crowd[i] = dial();
	put(crowd[0], "sta");
	for (int i = 0; i < 32; i++)
		assert_answer(crowd[i], "", false);
	crowd[32] = dial();
	assert_answer(crowd[0], "", true);
	for (int i = 1; i < 33; i++)
		assert_answer(crowd[i], "", false);
	put(crowd[32], "status\n");
	assert_answer(crowd[32], "{\"a\":1}\n", true);
	close(crowd[0]);
	crowd[0] = dial(); /* the place that has become free */
	for (int i = 0; i < 32; i++)
		assert_answer(crowd[i], "", false);
	close_crowd();
}

/* A request that has come and was not read yet is none that its sender keeps to himself. */
static void test_crowd_that_asks(void **state)
{
	begin(dir);
	for (int i = 0; i < 32; i++)
		crowd[i] = dial();
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	snprintf(a.sun_path, sizeof(a.sun_path), "%s/control.sock", dir);
	crowd[32] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	for (int i = 0; i < 31; i++)
		assert_int_equal(send(crowd[i], "status\n", 7, MSG_NOSIGNAL), 7);
	assert_int_equal(connect(crowd[32], (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(send(crowd[32], "status\n", 7, MSG_NOSIGNAL), 7);
	t_turns(8);
	for (int i = 0; i < 33; i++) {
		if (i != 31)
			assert_answer(crowd[i], "{\"a\":1}\n", true);
	}
	close_crowd();
}

/* Takes all that is there: is that the end? */
static bool is_cut(int fd)
{
	static char some[65536];
	ssize_t n;
	while ((n = read(fd, some, sizeof(some))) > 0)
		;
	return n == 0;
}

/* Nor do those who ask and do not take the answer keep others out. */
static void test_crowd_that_does_not_read(void **state)
{
	const int never = 0;
	begin(dir);
	long_answer = 200000;
	for (int i = 0; i < 32; i++) {
		crowd[i] = dial();
		put(crowd[i], "status\n");
	}
	long_answer = 0;
	t_until(&never, 1100);
	crowd[32] = dial();
	put(crowd[32], "status\n");
	assert_answer(crowd[32], "{\"a\":1}\n", true);
	assert_true(is_cut(crowd[0])); /* the oldest went, with a part of its answer, and nobody else */
	assert_false(is_cut(crowd[1]));
	close_crowd();
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

/* --- descriptors ---------------------------------------------------------------------- */

static int taken_fd, taken[3], ntaken;

static bool take(void *ctx, const char *request, int fd, const int *fds, int nfds, struct tnl_buf *json)
{
	if (strcmp(request, "refuse") == 0)
		tnl_buf_puts(json, "{\"error\":\"no\"}");
	if (strcmp(request, "take") != 0)
		return false;
	taken_fd = fd;
	ntaken = nfds;
	memcpy(taken, fds, (size_t)nfds * sizeof(int));
	return true;
}

static size_t open_descriptors(void)
{
	size_t n = 0;
	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void test_descriptors(void **state)
{
	char byte;
	int pair[2], pipes[2][2];
	bool closed;
	begin(dir);
	td_control_on_take(C, take);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pipe(pipes[i]), 0);
	size_t before = open_descriptors();
	pair[0] = td_control_send(dir, "take", (const int[]){pipes[0][0], pipes[1][1]}, 2);
	assert_true(pair[0] >= 0);
	t_turns(6);
	assert_int_equal(ntaken, 2);
	assert_int_equal(fcntl(taken[0], F_GETFD), FD_CLOEXEC);
	assert_int_equal(write(taken[1], "x", 1), 1);
	assert_int_equal(read(pipes[1][0], &byte, 1), 1);
	/* The connection is whose that is now: no answer, no time limit, and there is room for others. */
	assert_int_equal(write(taken_fd, "hello\n", 6), 6);
	fcntl(pair[0], F_SETFL, O_NONBLOCK);
	assert_string_equal(got(pair[0], &closed), "hello\n");
	assert_false(closed);
	close(taken_fd);
	close(taken[0]);
	close(taken[1]);
	close(pair[0]);
	assert_int_equal(open_descriptors(), before);
	/* What nobody takes is closed. */
	static const char *const words[] = {"refuse", "status"}, *const answers[] = {"{\"error\":\"no\"}\n",
										     "{\"a\":1}\n"};
	for (int i = 0; i < 2; i++) {
		pair[0] = td_control_send(dir, words[i], (const int[]){pipes[0][0], pipes[1][1]}, 2);
		t_turns(6);
		fcntl(pair[0], F_SETFL, O_NONBLOCK);
		assert_string_equal(got(pair[0], &closed), answers[i]);
		close(pair[0]);
	}
	assert_int_equal(open_descriptors(), before);
	td_control_free(C);
	for (int i = 0; i < 4; i++)
		close(pipes[i / 2][i % 2]);
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

/* Who asks for the end of the process has the answer before it. */
static void test_answer_at_once(void **state)
{
	begin(dir);
	int fd = dial();
	assert_int_equal(send(fd, "drain\n", 6, MSG_NOSIGNAL), 6);
	t_turns(1);
	td_control_free(C);
	assert_answer(fd, "{\"heard\":5}\n", true);
	close(fd);
}

static void *hang_up(void *listener)
{
	char line[64];
	int fd = accept(*(int *)listener, NULL, NULL);
	(void)!read(fd, line, sizeof(line));
	close(fd);
	return NULL;
}

/* One that ends before it answers: that is no answer of no bytes. */
static void test_no_answer(void **state)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	pthread_t t;
	snprintf(a.sun_path, sizeof(a.sun_path), "%s/control.sock", dir);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(pthread_create(&t, NULL, hang_up, &fd), 0);
	assert_null(td_control_ask(dir, "status", 2000));
	assert_int_equal(errno, ECONNRESET);
	pthread_join(t, NULL);
	close(fd);
	unlink(a.sun_path);
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
	    TEST(test_status),
	    TEST(test_what_is_no_request),
	    TEST(test_crowd),
	    TEST(test_places),
	    TEST(test_ask),
	    TEST(test_nobody_answers),
	    TEST(test_no_answer),
	    TEST(test_answer_at_once),
	    TEST(test_descriptors),
	    TEST(test_crowd_that_asks),
	    TEST(test_crowd_that_does_not_read),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
