/* The control channel, and the ends that it carries. */
#include "tests/daemon/agent/agent_util.h"

static void an_end_is_told_three_times(void **state)
{
	G.ack_tasks = false;
	agent_up("");
	start_session("s-2", "Nonsense", "{}");
	while (G.tasks < 3)
		for_ms(20);
	for_ms(1300);
	assert_int_equal(G.tasks, 3);
	for (int i = 0; i < 3; i++) {
		assert_memory_equal(G.task_message_id[i], G.task_message_id[0], 16);
		assert_string_equal(G.task_status[i], "Failed");
		assert_non_null(strstr(G.task_output[i], "Nonsense"));
	}
	assert_true(G.task_at[1] - G.task_at[0] > 900 * TD_MS && G.task_at[2] - G.task_at[1] > 900 * TD_MS);
	assert_int_equal(counter("tasks_unconfirmed"), 1);
}

static void channel_closed_on_the_control_channel(void **state)
{
	agent_up("");
	session_up(MUX);
	int fd = open_stream();
	echo_through(fd, "x");
	close_session("s-1", "Your session timed out");
	wait_task(1, "s-1", "Success");
	assert_string_equal(G.task_output[0], "Your session timed out");
	char c1[8];
	assert_true(read_some(S.fd, c1, sizeof(c1)) <= 0); /* the target's connection has gone with it */
	close(fd);
}

static void the_control_channel_comes_back(void **state)
{
	agent_up("");
	session_up(MUX);
	int fd = open_stream();
	echo_through(fd, "one");
	for (int i = 0; i < 3; i++) {
		G.control_up = 0;
		td_wslink_free(G.control);
		G.control = NULL;
		assert_true(t_until(&G.control_up, 5000));
	}
	echo_through(fd, "two");
	assert_int_equal(G.controls, 4);
	/* An end without a control channel waits for it. */
	G.control_up = 0;
	td_wslink_free(G.control);
	G.control = NULL;
	tnl_session_send_flag(td_pump_session(C.pump), TNL_FLAG_TERMINATE, T->now);
	td_pump_kick(C.pump);
	wait_task(1, "s-1", "Success");
	close(fd);
}

static void bad_messages_are_dropped(void **state)
{
	uint8_t junk[300];

	agent_up("");
	for (size_t i = 0; i < sizeof(junk); i++)
		junk[i] = (uint8_t)(i * 37);
	for (size_t n = 0; n < sizeof(junk); n += 23)
		td_wslink_send(G.control, TNL_WS_BINARY, junk, n);
	td_wslink_send(G.control, TNL_WS_TEXT, "text", 4);
	send_frame(G.control, TNL_MT_INTERACTIVE_SHELL, "{}", 2);
	send_frame(G.control, TNL_MT_INTERACTIVE_SHELL, "\xff", 1);
	send_frame(G.control, TNL_MT_CHANNEL_CLOSED, "[", 1);
	send_frame(G.control, TNL_MT_TASK_ACK, "{", 1);
	send_frame(G.control, TNL_MT_AGENT_JOB, "{}", 2);
	session_up(MUX);
	assert_int_equal(counter("bad_messages"), 14 + 4);
	assert_int_equal(counter("ignored_messages"), 2);
	assert_int_equal(G.control_lost, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(an_end_is_told_three_times),
	    TEST(channel_closed_on_the_control_channel),
	    TEST(the_control_channel_comes_back),
	    TEST(bad_messages_are_dropped),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
