/* Shells and commands: what runs, what of it reaches the client, and how it ends. */
#include "tests/daemon/agent/agent_util.h"
#include "lib/num.h"

#include <pwd.h>
#include <signal.h>
#include <sys/wait.h>

/* What the client shows and reads: the test's ends, and the client's, which stay the test's as well. */
static struct terminal {
	int io, err, client_io, client_err;
} P;

static void shells_up(void)
{
	char more[128];

	snprintf(more, sizeof(more), "shell = yes\nshell_user = %s\n", getpwuid(geteuid())->pw_name);
	agent_up(more);
}

/* Not until ready: a terminal without handshake says that with its first output. */
static void run(const char *type, const char *properties)
{
	int io[2], err[2], rc = 0;

	start_session("s-1", type, properties);
	assert_true(t_until(&G.data_up, 5000));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, io), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, err), 0);
	assert_non_null(td_pipe_fds(C.pump, io[0], io[0], err[0], NULL, &rc));
	P = (struct terminal){io[1], err[1], io[0], err[0]};
}

/* Reads on until `what` has come. */
static void expect_text(int fd, const char *what)
{
	char all[8192] = "";
	size_t n = 0;

	while (!strstr(all, what)) {
		ssize_t r = read_some(fd, all + n, sizeof(all) - 1 - n);
		if (r <= 0)
			fail_msg("\"%s\" did not come, but: %s", what, all);
		n += (size_t)r;
		all[n] = '\0';
	}
}

/* The number that the process prints as its first line. */
static pid_t process_id(void)
{
	char text[64] = "";

	assert_true(read_some(P.io, text, sizeof(text) - 1) > 1);
	assert_true(atoi(text) > 1);
	return atoi(text);
}

static void wait_gone(pid_t pid)
{
	for (int i = 0; i < 100 && kill(pid, 0) == 0; i++)
		for_ms(50);
	assert_int_equal(kill(pid, 0), -1);
}

static void are_off_unless_turned_on(void **state)
{
	agent_up("");
	start_session("s-2", "Standard_Stream", "{}");
	wait_task(1, "s-2", "Failed");
	assert_string_equal(G.task_output[0], "shells are off at this agent (shell = yes and shell_user turn them on)");
	assert_int_equal(counter("sessions_refused"), 1);
}

static void a_document_has_to_name_its_command(void **state)
{
	shells_up();
	start_session("s-2", "NonInteractiveCommands", "{\"linux\":{\"commands\":\"\"}}");
	wait_task(1, "s-2", "Failed");
	assert_string_equal(G.task_output[0], "the document has no command for linux");
	start_session("s-2", "InteractiveCommands", "{\"windows\":{\"commands\":\"dir\"}}");
	wait_task(2, "s-2", "Failed");
	assert_string_equal(G.task_output[1], "the document has no command for linux");
	assert_int_equal(G.creates, 0);
}

static void a_command_has_two_outputs_and_an_exit_code(void **state)
{
	shells_up();
	run("NonInteractiveCommands",
	    "{\"linux\":{\"commands\":\"echo out; echo err >&2; exit 7\",\"separateOutputStream\":true}}");
	expect_text(P.io, "out\n");
	expect_text(P.err, "err\n");
	assert_true(t_until(&C.exited, 5000));
	assert_int_equal(C.exit_code, 7);
	wait_task(1, "s-1", "Success");
}

static void a_command_has_one_output_unless_told_apart(void **state)
{
	shells_up();
	run("NonInteractiveCommands", "{\"linux\":{\"commands\":\"echo err >&2; echo out; kill -TERM $$\"}}");
	expect_text(P.io, "err\nout\n");
	assert_true(t_until(&C.exited, 5000));
	assert_int_equal(C.exit_code, 128 + SIGTERM);
	wait_task(1, "s-1", "Success");
}

static void a_terminal_has_a_size_and_ends_with_its_process(void **state)
{
	shells_up();
	run("InteractiveCommands", "{\"linux\":{\"commands\":\"stty size; read x; echo got-$x-on-$TERM; stty size\"}}");
	expect_text(P.io, "24 80");
	tnl_session_send_flag(td_pump_session(C.pump), TNL_FLAG_TERMINATE, T->now); /* ignored, as stock agents do */
	tnl_session_send_size(td_pump_session(C.pump), 132, 50, T->now);
	td_pump_kick(C.pump);
	for_ms(50);
	assert_int_equal(write(P.io, "line\n", 5), 5);
	expect_text(P.io, "50 132");
	wait_task(1, "s-1", "Success");
}

static void the_end_of_a_session_ends_its_process(void **state)
{
	shells_up();
	run("NonInteractiveCommands", "{\"linux\":{\"commands\":\"echo $$; exec sleep 1000\"}}");
	pid_t pid = process_id();
	assert_int_equal(kill(pid, 0), 0);
	close_session("s-1", "");
	wait_task(1, "s-1", "Success");
	wait_gone(pid);
}

/* It does not hear SIGHUP: five seconds later it has no choice. */
static void a_process_that_stays_is_killed(void **state)
{
	shells_up();
	run("NonInteractiveCommands",
	    "{\"linux\":{\"commands\":\"trap '' HUP; echo $$; while :; do sleep 0.1; done\"}}");
	pid_t pid = process_id();
	close_session("s-1", "");
	wait_task(1, "s-1", "Success");
	for_ms(1000);
	assert_int_equal(kill(pid, 0), 0);
	for_ms(2500);
	wait_gone(pid);
}

static void raise_done(void *ctx)
{
	++*(int *)ctx;
}

static void a_drain_waits_for_the_process(void **state)
{
	int done = 0;

	shells_up();
	run("NonInteractiveCommands", "{\"linux\":{\"commands\":\"echo $$; exec sleep 1000\"}}");
	pid_t pid = process_id();
	td_agent_drain(A, 20 * TD_SEC, raise_done, &done);
	for_ms(200);
	assert_int_equal(done, 0);
	assert_int_equal(G.tasks, 0);
	kill(pid, SIGKILL);
	assert_true(t_until(&done, 4000));
	wait_task(1, "s-1", "Success");
	assert_int_equal(C.exit_code, 128 + SIGKILL);
}

static int set_up_terminal(void **state)
{
	P = (struct terminal){-1, -1, -1, -1};
	return set_up(state);
}

static int tear_down_terminal(void **state)
{
	const int fds[] = {P.io, P.err, P.client_io, P.client_err};
	int rc = tear_down(state);

	for (size_t i = 0; i < TNL_COUNT(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	return rc;
}

#define SHELL(fn) cmocka_unit_test_setup_teardown(fn, set_up_terminal, tear_down_terminal)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    SHELL(are_off_unless_turned_on),
	    SHELL(a_document_has_to_name_its_command),
	    SHELL(a_command_has_two_outputs_and_an_exit_code),
	    SHELL(a_command_has_one_output_unless_told_apart),
	    SHELL(a_terminal_has_a_size_and_ends_with_its_process),
	    SHELL(the_end_of_a_session_ends_its_process),
	    SHELL(a_process_that_stays_is_killed),
	    SHELL(a_drain_waits_for_the_process),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
