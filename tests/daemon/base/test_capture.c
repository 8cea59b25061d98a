/* Gathering what a command prints: its bound, its time, its end. */
#include "tests/daemon/base/td_test.h"
#include "tunneld/base/capture.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

static struct {
	int done;
	bool late;
	int status;
	size_t n;
	char text[1024];
} G;

static void on_captured(void *ctx, const struct td_captured *r)
{
	assert_ptr_equal(ctx, &G);
	G.done++;
	G.late = r->late;
	G.status = r->status;
	G.n = r->n;
	assert_true(r->n < sizeof(G.text));
	if (r->n)
		memcpy(G.text, r->out, r->n);
}

static struct td_capture *start(const char *command, uint64_t limit)
{
	memset(&G, 0, sizeof(G));
	return td_capture_start(T, command, 100, limit, on_captured, &G);
}

static void run(const char *command)
{
	int fds = t_open_fds();
	assert_non_null(start(command, 5 * TD_SEC));
	assert_true(t_until(&G.done, 5000));
	t_turns(3);
	assert_int_equal(G.done, 1);
	t_until_fds(fds);
}

static void what_it_prints(void **state)
{
	run("echo one; echo hidden >&2; sleep 0.05; printf two");
	assert_string_equal(G.text, "one\ntwo");
	assert_int_equal(G.status, 0);
	assert_false(G.late);
	run("cat; exit 3"); /* nothing to read */
	assert_int_equal(G.n, 0);
	assert_int_equal(WEXITSTATUS(G.status), 3);
	run("kill -9 $$");
	assert_int_equal(WTERMSIG(G.status), SIGKILL);
	run("exec >&-; sleep 0.05; exit 4"); /* the output ends before the process */
	assert_int_equal(WEXITSTATUS(G.status), 4);
	run("(sleep 0.05; echo later) & exit 5"); /* and the other way round */
	assert_int_equal(WEXITSTATUS(G.status), 5);
	assert_string_equal(G.text, "later\n");
}

static void too_much(void **state)
{
	run("exec yes");
	assert_int_equal(G.n, 100);
	assert_int_equal(WTERMSIG(G.status), SIGPIPE);
	assert_false(G.late);
}

static void too_long(void **state)
{
	assert_non_null(start("echo begun; sleep 1000", 100 * TD_MS));
	assert_true(t_until(&G.done, 5000));
	assert_true(G.late);
	assert_string_equal(G.text, "begun\n");
	/* a process of its own group in the background keeps the output open */
	assert_non_null(start("setsid sleep 2 & exit 0", 100 * TD_MS));
	assert_true(t_until(&G.done, 1500));
	assert_true(G.late);
}

static void cancelled(void **state)
{
	int never = 0, fds = t_open_fds();
	struct td_capture *c = start("echo x; sleep 1000", 50 * TD_MS);
	assert_non_null(c);
	t_until(&never, 20);
	td_capture_cancel(c);
	t_until(&never, 150);
	assert_int_equal(G.done, 0);
	t_until_fds(fds);
	td_capture_cancel(NULL);
}

static void cannot_start(void **state)
{
	int fds = t_open_fds();
	for (int i = 0; i < 2; i++) { /* itself, the child */
		tnl_alloc_fail_after(i, 1);
		struct td_capture *c = start("true", TD_SEC);
		int err = errno;
		tnl_alloc_fail_after(-1, 0);
		assert_null(c);
		assert_int_equal(err, ENOMEM);
	}
	t_until_fds(fds);
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
	    CASE(what_it_prints), CASE(too_much), CASE(too_long), CASE(cancelled), CASE(cannot_start),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
