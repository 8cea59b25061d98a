/* The agent as a whole: its start, drain, reload, and what a crash left. */
#include "tests/daemon/agent/agent_util.h"

static void comes_up_without_information_service(void **state)
{
	struct tnl_open o;
	const char *fault;

	G.info_status = 400;
	agent_up("");
	assert_true(td_agent_connected(A));
	assert_int_equal(tnl_open_parse(G.token_frame, strlen(G.token_frame), &o, &fault), 0);
	assert_string_equal(o.token, "tok&en");
	assert_string_equal(o.agent_version, TNL_AGENT_VERSION);
	assert_string_equal(o.platform_type, "linux");
	assert_null(o.client_id);
	tnl_open_fini(&o);
	assert_int_equal(G.unsigned_calls, 0);
}

static void introduces_itself_in_short_then_in_full(void **state)
{
	agent_up("");
	while (G.infos < 2)
		for_ms(5);
	assert_int_equal(G.short_infos, 1);
}

static void is_done(void *ctx)
{
	++*(int *)ctx;
}

static void drain_with_nothing_to_do(void **state)
{
	int done = 0;

	agent_up("");
	session_up(MUX);
	uint64_t t0 = T->now;
	td_agent_drain(A, 10 * TD_SEC, is_done, &done);
	assert_true(t_until(&done, 3000));
	assert_true(T->now - t0 < 2 * TD_SEC);
	wait_task(1, "s-1", "Failed");
	assert_int_equal(done, 1);
}

static void drain_without_a_gateway(void **state)
{
	int done = 0;

	agent_up("");
	session_up(MUX);
	td_http_server_stop_listening(G.h);
	td_wslink_free(G.control);
	G.control = NULL;
	td_pump_detach(C.pump);
	G.data = NULL;
	for_ms(30);
	uint64_t t0 = T->now;
	td_agent_drain(A, 10 * TD_SEC, is_done, &done);
	assert_true(t_until(&done, 3000));
	assert_true(T->now - t0 < 2 * TD_SEC);
}

static void drain_waits_for_connections(void **state)
{
	int done = 0;

	agent_up("");
	session_up(MUX);
	int fd = open_stream();
	echo_through(fd, "one");
	td_agent_drain(A, 20 * TD_SEC, is_done, &done);
	for_ms(100);
	start_session("s-2", "Port", MUX);
	wait_task(1, "s-2", "Failed");
	assert_non_null(strstr(G.task_output[0], "stopping"));
	echo_through(fd, "two");
	assert_int_equal(done, 0);
	close(fd);
	close(S.fd);
	S.fd = -1;
	assert_true(t_until(&done, 4000));
	wait_task(2, "s-1", "Failed");
}

static void drain_is_cut_at_the_deadline_or_by_a_second_call(void **state)
{
	for (int twice = 0; twice < 2; twice++) {
		int done = 0;
		C.ready = S.accepted = 0;
		if (S.fd >= 0)
			close(S.fd);
		S.fd = -1;
		agent_up("");
		session_up(MUX);
		int fd = open_stream();
		echo_through(fd, "one");
		uint64_t t0 = T->now;
		td_agent_drain(A, twice ? 20 * TD_SEC : 300 * TD_MS, is_done, &done);
		if (twice)
			td_agent_drain(A, 0, is_done, &done);
		assert_true(t_until(&done, 4000));
		assert_true(T->now - t0 < (twice ? 200 * TD_MS : 3 * TD_SEC));
		agent_gone();
		t_turns(5);
		td_pump_free(C.pump);
		C.pump = NULL;
		G.data = NULL;
		close(fd);
		char path[128];
		snprintf(path, sizeof(path), "%s/agent-sessions", dir);
		unlink(path);
	}
}

static void sessions_of_a_crash_are_reported_by_the_next_start(void **state)
{
	agent_up("");
	session_up(MUX);
	agent_gone(); /* without a word, as a crash does */
	t_turns(5);
	int creates = G.creates;
	G.ack_tasks = false;
	agent_up("");
	wait_task(1, "s-1", "Failed");
	assert_string_equal(G.task_output[0], "the agent was restarted");
	start_session("s-1", "Port", MUX); /* a gateway that has not understood yet */
	for_ms(50);
	assert_int_equal(G.creates, creates);
	G.ack_tasks = true;
	wait_task(2, "s-1", "Failed");
	for_ms(20);
	agent_gone();
	G.tasks = 0;
	agent_up("");
	for_ms(50);
	assert_int_equal(G.tasks, 0); /* confirmed once is enough */
}

static void reload_changes_the_rules_and_keeps_the_session(void **state)
{
	char text[1024], why[256];

	agent_up("");
	session_up(MUX);
	int fd = open_stream();
	echo_through(fd, "one");
	snprintf(text, sizeof(text),
		 "[agent]\ninstance_id = " ID
		 "\nregion = eu-west-1\nssmmessages_endpoint = %s\naccess_key_id = AKIDTESTTESTTEST\n"
		 "secret_access_key = secret\nreconnect_min = 5ms\nreconnect_max = 40ms\nallow = 192.0.2.1:*\n",
		 G.url);
	struct td_config *next = td_config_parse(text, "test.ini", dir, TD_ROLE_AGENT, stderr);
	assert_non_null(next);
	next->state_dir = tnl_strdup(dir);
	assert_int_equal(td_agent_reload(A, next, why, sizeof(why)), 0);
	td_config_free(cfg);
	cfg = next;
	echo_through(fd, "two");
	int second = open_stream();
	assert_true(t_until(&C.pipes_closed, 5000));
	assert_int_equal(C.reason, TNL_RESET_DENIED);
	close(second);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(comes_up_without_information_service),
	    TEST(introduces_itself_in_short_then_in_full),
	    TEST(drain_with_nothing_to_do),
	    TEST(drain_without_a_gateway),
	    TEST(drain_waits_for_connections),
	    TEST(drain_is_cut_at_the_deadline_or_by_a_second_call),
	    TEST(sessions_of_a_crash_are_reported_by_the_next_start),
	    TEST(reload_changes_the_rules_and_keeps_the_session),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
