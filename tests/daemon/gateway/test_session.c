/* How sessions end, and what of them survives a restart of the gateway. */
#include "tests/daemon/gateway/gw_channel.h"
#include <sqlite3.h>

/* --- ends of sessions ----------------------------------------------------------------------- */
static void test_terminate(void **state)
{
	struct ses s;
	session_up(&s);
	int told = control.n;
	terminate(&s);
	wait_for(s.client.n == 1 && s.agent.n == 1);
	assert_int_equal(s.client.f[0].type, TNL_MT_CHANNEL_CLOSED);
	assert_int_equal(s.agent.f[0].type, TNL_MT_CHANNEL_CLOSED);
	struct tnl_channel_closed c;
	assert_int_equal(tnl_channel_closed_parse(s.client.f[0].text, s.client.f[0].n, &c), 0);
	assert_string_equal(c.session_id, s.id);
	tnl_channel_closed_fini(&c);
	wait_for(s.client.closed && s.agent.closed); /* whoever stays is closed politely */
	assert_int_equal(s.client.code, 1000);
	assert_int_equal(control.n, told); /* the data channel was told, the control channel need not be */
	assert_int_equal(status_of("sessions_active"), 0);
	session_done(&s);
}

static void test_task_complete(void **state)
{
	struct ses s;
	session_up(&s);
	end_reset(&s.agent);
	wait_for(s.client.n == 1);
	int told = control.n;
	complete(s.id, "Failed", "connection refused by 127.0.0.1:5432", 1);
	wait_for(control.n == told + 1);
	assert_int_equal(control.f[told].type, TNL_MT_TASK_ACK);
	struct tnl_task t;
	assert_int_equal(tnl_task_parse(control.f[told].text, control.f[told].n, &t), 0);
	assert_string_equal(t.task_id, s.id);
	assert_int_equal(strlen(t.message_id), 36);
	tnl_task_fini(&t);
	wait_for(s.client.n == 2);
	assert_int_equal(s.client.f[1].type, TNL_MT_CHANNEL_CLOSED);
	assert_non_null(strstr(s.client.f[1].text, "connection refused by 127.0.0.1:5432"));
	complete(s.id, "Failed", "connection refused by 127.0.0.1:5432", 2); /* acknowledged again, acted on once */
	wait_for(control.n == told + 2);
	assert_int_equal(status_of("counters/sessions_ended"), 1);
	complete("ops-nosuch", "Success", "", 1);
	wait_for(control.n == told + 3);
	wait_for(s.client.closed);
	assert_int_equal(s.client.n, 2);
	assert_int_equal(ssm(&OPS, "DescribeSessions", "{\"State\":\"History\"}"), 200);
	assert_string_equal(tnl_json_get_str(tnl_json_at(tnl_json_get(R.json, "Sessions"), 0), "Status"), "Failed");
	session_done(&s);
}

#define WHY "shells are off at this agent"

/* The only thing that a client hears that comes after the end. */
static void told_why(struct ses *s)
{
	struct tnl_channel_closed c;
	open_client(&s->client, s->id, s->token, "client-1");
	wait_for(s->client.closed);
	assert_int_equal(s->client.code, 1000);
	assert_int_equal(s->client.n, 1);
	assert_int_equal(s->client.f[0].type, TNL_MT_CHANNEL_CLOSED);
	assert_int_equal(tnl_channel_closed_parse(s->client.f[0].text, s->client.f[0].n, &c), 0);
	assert_string_equal(c.session_id, s->id);
	assert_string_equal(c.output, WHY);
	tnl_channel_closed_fini(&c);
}

/* A session that is refused before its client came: its token still buys the reason, once. */
static void test_end_before_the_client(void **state)
{
	struct ses s, later;
	struct end e = {0};
	char path[200], body[200], agent_token[64];
	session_start(&s, "i-1");
	session_start(&later, "i-1");
	snprintf(path, sizeof(path), "/v1/data-channel/%s", s.id);
	assert_int_equal(post_channel(&I1, path, create_body, agent_token), 201);
	complete(s.id, "Failed", WHY, 1);
	complete(later.id, "Failed", WHY, 1);
	wait_for(status_of("counters/sessions_ended") == 2);
	snprintf(body, sizeof(body), "{\"SessionId\":\"%s\"}", s.id);
	assert_int_equal(ssm(&OPS, "ResumeSession", body), 200);
	assert_null(tnl_json_get(R.json, "TokenValue"));
	open_agent_token(&e, &I1, s.id, agent_token, "");
	token_refused(&e, "session");
	told_why(&s);
	open_client(&e, s.id, s.token, "client-1");
	token_refused(&e, "token");
	assert_int_equal(status_of("sessions_active"), 0);
	end_reset(&e);
	gateway_stop();
	gateway_start();
	told_why(&later); /* the reason outlives the process as the token does */
	open_client(&e, later.id, later.token, "client-1");
	token_refused(&e, "token");
	end_reset(&e);
	session_done(&s);
	session_done(&later);
}

/* The same for a client that is away when the session ends and has its new token already. */
static void test_end_while_resuming(void **state)
{
	struct ses s;
	session_up(&s);
	end_reset(&s.client);
	wait_for(s.agent.n == 1);
	send_msg(&s.agent, TNL_MT_OUTPUT, TNL_PT_OUTPUT, 0, "waits", 5);
	wait_for(status_of("sessions/0/client/waiting_frames") == 1);
	session_resume(&s);
	complete(s.id, "Success", WHY, 1);
	wait_for(status_of("counters/sessions_ended") == 1);
	told_why(&s);
	session_done(&s);
}

static int stored_tokens(void)
{
	char path[200];
	sqlite3 *db = NULL;
	sqlite3_stmt *st = NULL;
	snprintf(path, sizeof(path), "%s/sessions.db", T.dir);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(db, "SELECT count(*) FROM token", -1, &st, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(st), SQLITE_ROW);
	int n = sqlite3_column_int(st, 0);
	sqlite3_finalize(st);
	sqlite3_close(db);
	return n;
}

/* Nothing of that stays behind, also when nobody comes. */
static void test_end_token_expires(void **state)
{
	struct ses s, kept;
	session_start(&s, "i-1");
	session_start(&kept, "i-1");
	complete(s.id, "Failed", WHY, 1);
	complete(kept.id, "Failed", WHY, 1);
	wait_for(status_of("counters/sessions_ended") == 2);
	gateway_stop();
	assert_int_equal(stored_tokens(), 2);
	gateway_start();
	turns_for(350 * TD_MS);
	open_client(&s.client, s.id, s.token, "client-1");
	token_refused(&s.client, "token");
	gateway_stop();
	assert_int_equal(stored_tokens(), 0);
	gateway_start();
	session_done(&s);
	session_done(&kept);
}

/* An instance cannot end another's session. */
static void test_foreign_task_complete(void **state)
{
	struct ses s;
	struct end c2 = {0};
	session_up(&s);
	open_control(&c2, &I2, "i-2");
	struct tnl_buf b;
	tnl_buf_init(&b, 4096);
	assert_int_equal(tnl_task_complete_write(&b, s.id, "i-1", "Success", "", 1), 0);
	send_msg(&c2, TNL_MT_TASK_COMPLETE, 0, 0, tnl_buf_data(&b), tnl_buf_len(&b));
	tnl_buf_fini(&b);
	wait_for(c2.n == 1);
	assert_int_equal(status_of("sessions_active"), 1);
	end_reset(&c2);
	session_done(&s);
}

/* Of the output of an end so much is kept as the client and its owner can be told. */
static void test_long_output(void **state)
{
	enum { LONG = 250000 };
	struct ses s;
	char *text = tnl_malloc(LONG + 1);
	session_up(&s);
	end_reset(&s.agent);
	wait_for(s.client.n == 1);
	memset(text, 'x', LONG);
	text[LONG] = 0;
	struct tnl_buf b;
	tnl_buf_init(&b, 2 * LONG);
	assert_int_equal(tnl_task_complete_write(&b, s.id, "i-1", "Failed", text, 1), 0);
	send_msg(&control, TNL_MT_TASK_COMPLETE, 0, 0, tnl_buf_data(&b), tnl_buf_len(&b));
	tnl_buf_fini(&b);
	wait_for(s.client.n == 2);
	assert_int_equal(s.client.f[1].type, TNL_MT_CHANNEL_CLOSED);
	assert_in_range(s.client.f[1].n, TNL_TEXT_MAX, TNL_TEXT_MAX + 500);
	const struct gw_session *kept = gw_session_get(T.g, s.id);
	assert_int_equal(strlen(kept->output), TNL_TEXT_MAX);
	assert_int_equal(ssm(&OPS, "DescribeSessions", "{\"State\":\"History\"}"), 200);
	const char *details = tnl_json_get_str(tnl_json_at(tnl_json_get(R.json, "Sessions"), 0), "Details");
	assert_int_equal(strlen(details), TNL_TEXT_MAX);
	tnl_free(text);
	wait_for(s.client.closed);
	session_done(&s);
}

static int begin_idle(void **state)
{
	return begin_with("idle_timeout = 600ms");
}
static void test_idle(void **state)
{
	struct ses s;
	session_up(&s);
	uint64_t start = T.l->now;
	for (int i = 0; i < 5; i++) { /* stream messages of either side keep it */
		turns_for(200 * TD_MS);
		send_msg(i & 1 ? &s.agent : &s.client, i & 1 ? TNL_MT_OUTPUT : TNL_MT_INPUT, TNL_PT_OUTPUT, i, "x", 1);
	}
	uint64_t last = T.l->now;
	assert_true(last - start > 900 * TD_MS);
	assert_int_equal(status_of("sessions_active"), 1);
	int n = s.client.n;
	while (status_of("sessions_active")) { /* acks and pings do not */
		send_msg(&s.client, TNL_MT_ACK, 0, 0, "{}", 2);
		td_wslink_ping(s.client.w);
		turns_for(50 * TD_MS);
		assert_true(T.l->now - last < 5 * TD_SEC);
	}
	assert_true(T.l->now - last >= 550 * TD_MS);
	wait_for(s.client.n > n && s.client.f[s.client.n - 1].type == TNL_MT_CHANNEL_CLOSED);
	assert_non_null(strstr(s.client.f[s.client.n - 1].text,
			       "Your session timed out due to inactivity and has been terminated."));
	assert_int_equal(status_of("counters/idle_timeouts"), 1);
	session_done(&s);
}

static int begin_max(void **state)
{
	return begin_with("max_session = 500ms");
}
static void test_max_duration(void **state)
{
	struct ses s;
	session_up(&s);
	uint64_t start = T.l->now;
	int64_t seq = 0;
	while (status_of("sessions_active")) {
		send_msg(&s.client, TNL_MT_INPUT, TNL_PT_OUTPUT, seq++, "x", 1);
		turns_for(50 * TD_MS);
		assert_true(T.l->now - start < 5 * TD_SEC);
	}
	wait_for(s.client.n == 1);
	assert_non_null(strstr(s.client.f[0].text, "maximum duration"));
	assert_int_equal(status_of("counters/max_durations"), 1);
	session_done(&s);
}

/* An agent that says that it has just started does not know the sessions that have lost their data channel. */
static void test_agent_restart(void **state)
{
	struct ses s, kept;
	session_up(&s);
	session_up(&kept);
	end_reset(&s.agent);
	end_reset(&control);
	wait_for(s.client.n == 1);
	assert_int_equal(ssm(&I1, "UpdateInstanceInformation", "{\"InstanceId\":\"i-1\",\"AgentVersion\":\"3.3.0.0\"}"),
			 200);
	open_control(&control, &I1, "i-1");
	wait_for(s.client.n == 2);
	assert_int_equal(s.client.f[1].type, TNL_MT_CHANNEL_CLOSED);
	assert_int_equal(kept.client.n, 0); /* that one's agent is there */
	assert_int_equal(status_of("sessions_active"), 1);
	session_done(&s);
	session_done(&kept);
}

/* --- restart of the gateway ------------------------------------------------------------------- */
static void test_restart(void **state)
{
	struct ses s, fresh, over;
	char token[64];
	session_up(&s);
	session_start(&fresh, "i-1"); /* its token is not used yet */
	snprintf(token, sizeof(token), "%s", s.token);
	session_start(&over, "i-1");
	terminate(&over);
	gateway_stop();
	wait_for(s.client.closed && s.agent.closed && control.closed);
	gateway_start(); /* the same port, at once */
	assert_int_equal(status_of("counters/sessions_restored"), 2);
	assert_int_equal(status_of("sessions_history"), 1);
	struct end e = {0};
	open_client(&e, s.id, token, "client-1"); /* used before the restart: still used */
	token_refused(&e, "token");
	open_client(&fresh.client, fresh.id, fresh.token, "client-9");
	wait_for(status_of("counters/tokens_used") == 1);
	session_resume(&s);
	open_client(&e, s.id, s.token, "client-2"); /* the binding survived as well */
	token_refused(&e, "ClientId");
	session_resume(&s);
	open_client(&s.client, s.id, s.token, "client-1");
	open_agent(&s.agent, &I1, s.id); /* without any control channel */
	wait_for(s.client.n == 1 && s.agent.n == 1);
	send_msg(&s.client, TNL_MT_INPUT, TNL_PT_OUTPUT, 17, "goes on", 7);
	wait_for(s.agent.n == 2);
	assert_string_equal(s.agent.f[1].text, "goes on");
	open_control(&control, &I1, "i-1");
	wait_for(control.n == 1); /* the agent may never have heard of the fresh one: told again */
	assert_int_equal(control.f[0].type, TNL_MT_INTERACTIVE_SHELL);
	assert_non_null(strstr(control.f[0].text, fresh.id));
	end_reset(&e);
	session_done(&s);
	session_done(&fresh);
}

/* --- drain --------------------------------------------------------------------------------------- */
static bool drained;
static void on_drained(void *ctx)
{
	drained = true;
}

static void test_drain(void **state)
{
	struct ses s;
	session_up(&s);
	drained = false;
	uint64_t start = T.l->now;
	td_gateway_drain(T.g, 10 * TD_SEC, on_drained, NULL);
	wait_for(drained);
	assert_true(T.l->now - start < 2 * TD_SEC);
	wait_for(s.client.closed && s.agent.closed && control.closed);
	assert_int_equal(s.client.code, 1001);
	assert_int_equal(s.client.n, 0); /* the session is not over: no channel_closed */
	gateway_stop();
	gateway_start();
	assert_int_equal(status_of("counters/sessions_restored"), 1);
	session_done(&s);
}

/* A node among several: its sessions go to the others one by one, both links of one together, in the time that it has.
 */
static void test_drain_node(void **state)
{
	struct ses s[4];
	bool partly = false;
	for (int i = 0; i < 4; i++)
		session_up(&s[i]);
	drained = false;
	uint64_t start = T.l->now;
	td_gateway_drain(T.g, 3 * TD_SEC, on_drained, NULL);
	while (!drained) {
		int gone = 0, halves = 0;
		turn();
		for (int i = 0; i < 4; i++) {
			gone += s[i].client.closed && s[i].agent.closed;
			halves += s[i].client.closed != s[i].agent.closed;
		}
		partly = partly || (gone > 0 && gone < 3 && halves <= 1);
		assert_true(T.l->now - start < 3 * TD_SEC);
	}
	assert_true(partly);
	assert_true(T.l->now - start > 300 * TD_MS); /* five at 250 ms, half of that at the least */
	for (int i = 0; i < 4; i++) {
		wait_for(s[i].client.closed && s[i].agent.closed);
		assert_int_equal(s[i].client.code, 1001);
		assert_int_equal(s[i].agent.code, 1001);
		assert_int_equal(s[i].client.n, 0);
		session_done(&s[i]);
	}
}

/* --- ids ------------------------------------------------------------------------------------- */
static int begin_node(void **state)
{
	return begin_with("node = eu_2");
}

static void test_node_in_id(void **state)
{
	struct ses s;
	char node[TD_NODE_MAX + 1];
	session_up(&s);
	assert_int_equal(strlen(s.id), strlen("ops-eu_2-") + 17);
	assert_memory_equal(s.id, "ops-eu_2-", 9);
	assert_true(gw_session_id_node(s.id, node));
	assert_string_equal(node, "eu_2");
	session_done(&s);
	static const char *const none[] = {
	    "ops-0123456789abcdef0",	 "ops--0123456789abcdef0",
	    "-n1-0123456789abcdef",	 "ops-n1-0123456789abcdeg0",
	    "0123456789abcdef0",	 "",
	    "ops-n1-0123456789abcdef00", "a-123456789012345678901234567890123-0123456789abcdef0"};
	for (size_t i = 0; i < TNL_COUNT(none); i++)
		assert_false(gw_session_id_node(none[i], node));
	assert_true(gw_session_id_node("a-b.c@d-n1-0123456789abcdef0", node));
	assert_string_equal(node, "n1");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T2(test_terminate, begin),
	    T2(test_task_complete, begin),
	    T2(test_long_output, begin),
	    T2(test_end_before_the_client, begin),
	    T2(test_end_while_resuming, begin),
	    T2(test_end_token_expires, begin_short_tokens),
	    T2(test_foreign_task_complete, begin),
	    T2(test_idle, begin_idle),
	    T2(test_max_duration, begin_max),
	    T2(test_agent_restart, begin),
	    T2(test_restart, begin),
	    T2(test_drain, begin),
	    T2(test_node_in_id, begin_node),
	    T2(test_drain_node, begin_node),
	};
	return cmocka_run_group_tests_name("gateway sessions", tests, NULL, NULL);
}
