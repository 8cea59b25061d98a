/* Children that another process starts for us: the same as our own, but for where they come from. */
#include "tests/daemon/base/td_test.h"
#include "tunneld/base/capture.h"
#include "tunneld/base/spawner.h"
#include "tunneld/base/warden.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

static int ended, status;
static char text[4096];

static void on_exited(void *ctx, int st)
{
	ended++;
	status = st;
}

/* Runs the script that the message is, as nobody of ours asked for; gives back the read end of its output. */
static pid_t serve(const void *arg, const struct td_spawner_job *j)
{
	const char *const sh[] = {"sh", "-c", j->message, NULL};
	int fds[2];
	if (strcmp(j->message, arg) == 0) {
		td_warden_refuse(j->channel, EACCES, "not that one");
		return 0;
	}
	if (pipe2(fds, O_CLOEXEC) != 0)
		return 0;
	struct td_child_spec s = {.path = "/bin/sh", .argv = sh, .fds = {j->nfds ? j->fds[0] : -1, fds[1], fds[1]}};
	pid_t pid = td_warden_fork(&s, j->channel, fds, 1);
	close(fds[0]);
	close(fds[1]);
	return pid > 0 ? pid : 0;
}

static struct td_child *order(struct td_spawner *s, const char *script, const int *fds, int nfds, int give[2],
			      char *why)
{
	struct td_spawner_order o = {
	    .fn = serve, .arg = "bad", .message = script, .n = strlen(script), .fds = fds, .nfds = nfds};
	ended = 0;
	return td_spawner_start(s, T, &o, give, on_exited, NULL, why, 200);
}

static void read_all(int fd)
{
	size_t n = 0;
	for (ssize_t k; n < sizeof(text) - 1 && (k = read(fd, text + n, sizeof(text) - 1 - n)) > 0;)
		n += (size_t)k;
	text[n] = '\0';
	close(fd);
}

static pid_t parent_of(pid_t pid)
{
	char path[64], line[512] = "";
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	FILE *f = fopen(path, "r");
	assert_non_null(f);
	assert_non_null(fgets(line, sizeof(line), f));
	fclose(f);
	int parent = 0;
	assert_int_equal(sscanf(strrchr(line, ')') + 1, " %*c %d", &parent), 1);
	return parent;
}

/* With one, and without: the same orders. */
static void orders_by(struct td_spawner *s)
{
	int give[2], in[2], before = t_open_fds();
	char why[200];

	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	struct td_child *c = order(s, "read x; echo got $x; ls /proc/$$/fd; exit 9", in, 1, give, why);
	assert_non_null(c);
	/* its parent is a warden, the warden's is the spawner or we */
	assert_int_equal(parent_of(parent_of(td_child_pid(c))) == getpid(), s == NULL);
	assert_int_equal(write(in[1], "this\n", 5), 5);
	close(in[0]);
	close(in[1]);
	assert_int_equal(give[1], -1);
	read_all(give[0]);
	assert_string_equal(text, "got this\n0\n1\n2\n");
	assert_true(t_until(&ended, 5000));
	assert_int_equal(WEXITSTATUS(status), 9);
	td_child_free(c);
	t_until_fds(before);

	assert_null(order(s, "bad", NULL, 0, give, why));
	assert_int_equal(errno, EACCES);
	assert_string_equal(why, "not that one");
	assert_null(order(s, "", NULL, 0, give, why));
	t_until_fds(before);
}

static void orders(void **state)
{
	struct td_spawner *s = td_spawner_new(serve, "bad", NULL);
	assert_non_null(s);
	orders_by(s);
	orders_by(NULL);
	td_spawner_free(s);
}

static void too_long(void **state)
{
	int give[2];
	char why[200], *big = tnl_calloc(1, TD_SPAWNER_MESSAGE_MAX + 2);
	struct td_spawner *s = td_spawner_new(serve, "bad", NULL);
	memset(big, ' ', TD_SPAWNER_MESSAGE_MAX + 1);
	assert_null(order(s, big, NULL, 0, give, why));
	assert_int_equal(errno, E2BIG);
	memcpy(big, "exit 4 #", 8);
	big[100000] = '\0';
	struct td_child *c = order(s, big, NULL, 0, give, why);
	assert_non_null(c);
	close(give[0]);
	assert_true(t_until(&ended, 5000));
	assert_int_equal(WEXITSTATUS(status), 4);
	td_child_free(c);
	td_spawner_free(s);
	tnl_free(big);
}

static bool refuse(void)
{
	return false;
}

static void one_that_is_gone(void **state)
{
	int give[2];
	char why[200];
	struct td_spawner *s = td_spawner_new(serve, "bad", refuse);
	assert_non_null(s);
	usleep(100000);
	assert_null(order(s, "true", NULL, 0, give, why));
	td_spawner_free(s);
}

/* A child outlives the spawner, and is still killed when its time has come. */
static void children_stay(void **state)
{
	int give[2];
	char why[200];
	struct td_spawner *s = td_spawner_new(serve, "bad", NULL);
	struct td_child *c = order(s, "exec sleep 1000", NULL, 0, give, why);
	pid_t pid = td_child_pid(c);
	td_spawner_free(s);
	assert_int_equal(kill(pid, 0), 0);
	td_child_signal(c, SIGTERM);
	assert_true(t_until(&ended, 5000));
	assert_int_equal(WTERMSIG(status), SIGTERM);
	close(give[0]);
	td_child_free(c);
}

static struct td_captured got;

static void on_captured(void *ctx, const struct td_captured *r)
{
	got = *r;
	snprintf(text, sizeof(text), "%.*s", (int)r->n, (const char *)r->out);
	ended++;
}

/* credential_process and the like: nothing changes for those who start them. */
static void programs(void **state)
{
	setenv("OURS", "and theirs", 1);
	assert_int_equal(td_spawner_programs(NULL), 0);
	ended = 0;
	assert_non_null(td_capture_start(T, "echo \"$OURS\"; ps -o comm= $(ps -o ppid= $(ps -o ppid= $$)); exit 6",
					 1000, 5 * TD_SEC, on_captured, NULL));
	assert_true(t_until(&ended, 5000));
	assert_int_equal(WEXITSTATUS(got.status), 6);
	assert_string_equal(text, "and theirs\ntunneld-spawner\n");
	const char *const argv[] = {"x", NULL};
	struct td_child_spec s = {.path = "/bin/sh", .argv = argv, .fds = {-1, -1, -1}, .session = true};
	assert_null(td_child_start(T, &s, on_exited, NULL));
	td_spawner_programs_end();
	unsetenv("OURS");
}

static int setup(void **state)
{
	t_open();
	return 0;
}

static int teardown(void **state)
{
	t_close();
	return 0;
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    CASE(orders), CASE(too_long), CASE(one_that_is_gone), CASE(children_stay), CASE(programs),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
