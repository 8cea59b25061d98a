/* The gateway's channels: tokens, the relay both ways, back-pressure, ends that
 * come and go, how sessions end, and what survives a restart. */
#include "tests/daemon/gateway/gw_util.h"
#include "tests/daemon/gateway/gw_raw.h"
#include <sqlite3.h>

static struct end control;

static int begin_with(const char *extra)
{
	test_begin(extra);
	memset(&control, 0, sizeof(control));
	open_control(&control, &I1, "i-1");
	return 0;
}

static int begin(void **state)
{
	return begin_with("idle_timeout = 1h");
}

static int end(void **state)
{
	end_reset(&control);
	turns_for(0);
	return test_end(state);
}

/* --- tokens ------------------------------------------------------------------- */
static void token_refused(struct end *e, const char *why)
{
	wait_for(e->closed);
	assert_int_equal(e->code, 1008);
	assert_true(e->n == 0);
}

static void test_tokens(void **state)
{
	struct ses s, other;
	struct end e = {0}, again = {0};
	session_start(&s, "i-1");
	session_start(&other, "i-1");
	open_client(&e, s.id, other.token, "client-1"); /* another session's */
	token_refused(&e, "token");
	open_client(&e, s.id, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "client-1");
	token_refused(&e, "token");
	open_client(&e, "ops-nosuchsession", s.token, "client-1");
	token_refused(&e, "session");
	open_client(&e, s.id, s.token, "client-1");
	wait_for(status_of("counters/tokens_used") == 2); /* with the control channel's */
	open_client(&again, s.id, s.token, "client-1");	  /* used */
	token_refused(&again, "token");
	assert_false(e.closed); /* and the link that is there is not touched */
	session_resume(&s);
	open_client(&again, s.id, s.token, "client-2"); /* bound to the ClientId of the first */
	token_refused(&again, "ClientId");
	open_client(&again, s.id, s.token, "client-1"); /* and spent by that attempt */
	token_refused(&again, "token");
	assert_false(e.closed);
	session_resume(&s);
	open_client(&again, s.id, s.token, "client-1");
	wait_for(e.closed); /* a verified one takes its place */
	assert_false(again.closed);
	assert_int_equal(status_of("counters/tokens_refused"), 6);
	end_reset(&e);
	end_reset(&again);
}

static void test_agent_tokens(void **state)
{
	struct ses s;
	struct end e = {0};
	char path[200], token[64], client_token[64];
	session_start(&s, "i-1");
	snprintf(client_token, sizeof(client_token), "%s", s.token);
	snprintf(path, sizeof(path), "/v1/data-channel/%s", s.id);
	assert_int_equal(post_channel(&I2, path, create_body, token), 400); /* another instance's: as if it were over */
	assert_non_null(strstr(R.body, "Session is already terminated"));
	assert_int_equal(post_channel(&I2, "/v1/data-channel/nosuch", create_body, token), 400);
	assert_non_null(strstr(R.body, "Session is already terminated"));
	assert_int_equal(post_channel(NULL, path, create_body, token), 403);
	assert_non_null(strstr(R.body, "<MissingAuthenticationTokenException>"));
	assert_int_equal(post_channel(&OPS, path, create_body, token), 403);
	assert_non_null(strstr(R.body, "<AccessDeniedException>"));
	assert_int_equal(post_channel(&I2, "/v1/control-channel/i-1", create_body, token), 403);
	assert_int_equal(post_channel(&I1, path, "nonsense", token), 400);
	assert_int_equal(post_channel(&I1, path, create_body, token), 201);
	open_client(&e, s.id, token, ""); /* an agent's token at the client's door */
	token_refused(&e, "token");
	open_agent_token(&e, &I1, s.id, client_token, ""); /* and the other way round */
	token_refused(&e, "token");
	open_agent_token(&e, &I2, s.id, token, "");
	token_refused(&e, "instance");
	open_agent_token(&e, &I1, s.id, token, "");
	wait_for(status_of("sessions/0/agent/attached"));
	assert_false(e.closed);
	end_reset(&e);
	dial(&e, &I2, "/v1/control-channel/i-1");
	assert_int_equal(e.http_status, 403);
	dial(&e, NULL, "/v1/control-channel/i-1");
	assert_int_equal(e.http_status, 403);
	const struct tnl_sigv4_keys wrong = {"AKIDOPS", "wrong", NULL};
	snprintf(path, sizeof(path), "/v1/data-channel/%s", s.id);
	dial(&e, &wrong, path); /* a signature that is there must verify */
	assert_int_equal(e.http_status, 403);
	dial(&e, &DEV, path); /* rightly signed, but not the owner */
	assert_true(e.open);
	const struct tnl_open o = {.request_id = RID, .token = client_token, .client_id = (char *)"client-1"};
	send_open(&e, &o);
	token_refused(&e, "owner");
	end_reset(&e);
}

static int begin_short_tokens(void **state)
{
	return begin_with("token_ttl = 300ms");
}
static void test_token_expiry(void **state)
{
	struct ses s;
	struct end e = {0};
	session_start(&s, "i-1");
	turns_for(350 * TD_MS);
	open_client(&e, s.id, s.token, "client-1");
	token_refused(&e, "token expiry");
	session_resume(&s);
	open_client(&e, s.id, s.token, "client-1");
	wait_for(status_of("sessions/0/client/attached"));
	end_reset(&e);
}

/* --- what does not belong ----------------------------------------------------------- */
static void test_bad_first_frames(void **state)
{
	struct ses s;
	struct end e = {0};
	char path[200];
	session_start(&s, "i-1");
	snprintf(path, sizeof(path), "/v1/data-channel/%s", s.id);
	dial(&e, NULL, path);
	send_msg(&e, TNL_MT_INPUT, TNL_PT_OUTPUT, 0, "x", 1);
	wait_for(e.closed);
	assert_int_equal(e.code, 1008);
	static const char *const bad[] = {"{", "{}", "[]", "{\"TokenValue\":7}", "{\"MessageSchemaVersion\":\"1.0\"}"};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		dial(&e, NULL, path);
		td_wslink_send(e.w, TNL_WS_TEXT, bad[i], strlen(bad[i]));
		wait_for(e.closed);
		assert_int_equal(e.code, 1008);
	}
	assert_int_equal(status_of("counters/frames_refused"), 6);
	assert_int_equal(status_of("sessions_active"), 1);
	end_reset(&e);
}

static void test_bad_messages(void **state)
{
	struct ses s;
	session_up(&s);
	uint8_t frame[TNL_MSG_HDR + 4] = {0};
	td_wslink_send(s.client.w, TNL_WS_BINARY, frame, 10);
	td_wslink_send(s.client.w, TNL_WS_BINARY, frame, sizeof(frame));
	struct tnl_msg m = {.type = TNL_MT_INPUT,
			    .schema = 1,
			    .created_ms = 1,
			    .ptype = 1,
			    .payload = (const uint8_t *)"abcd",
			    .plen = 4};
	tnl_msg_encode(frame, &m);
	frame[3] = 117; /* a stock agent's reader dies of a wild HeaderLength */
	td_wslink_send(s.client.w, TNL_WS_BINARY, frame, sizeof(frame));
	/* types that a client has no business with, above all one that would start a session on the agent */
	static const enum tnl_mtype types[] = {TNL_MT_INTERACTIVE_SHELL, TNL_MT_OUTPUT,	       TNL_MT_CHANNEL_CLOSED,
					       TNL_MT_PAUSE_PUBLICATION, TNL_MT_TASK_COMPLETE, TNL_MT_SESSION_STATE,
					       TNL_MT_AGENT_JOB};
	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		send_msg(&s.client, types[i], 0, 0, "{}", 2);
	send_msg(&s.client, TNL_MT_INPUT, TNL_PT_OUTPUT, 0, "good", 4);
	wait_for(s.agent.n >= 1);
	assert_int_equal(s.agent.n, 1);
	assert_string_equal(s.agent.f[0].text, "good");
	assert_int_equal(status_of("counters/frames_refused"), 10);
	send_msg(&s.agent, TNL_MT_INPUT, TNL_PT_OUTPUT, 0, "x", 1);
	send_msg(&s.agent, TNL_MT_SESSION_STATE, 0, 0, "{\"SessionState\":\"Connected\"}", 28); /* for the gateway */
	send_msg(&s.agent, TNL_MT_OUTPUT, TNL_PT_OUTPUT, 0, "out", 3);
	wait_for(s.client.n >= 1);
	assert_string_equal(s.client.f[0].text, "out");
	assert_int_equal(status_of("counters/frames_refused"), 11);
	td_wslink_send(s.client.w, TNL_WS_TEXT, "{}", 2);
	wait_for(s.client.closed);
	assert_int_equal(s.client.code, 1003);
	wait_for(s.agent.n == 2);
	assert_int_equal(s.agent.f[1].type, TNL_MT_PAUSE_PUBLICATION);
	session_done(&s);
}

/* --- the relay ----------------------------------------------------------------------- */
/* Sends `total` bytes of numbered messages as room comes, and hashes them. */
static void pour(struct end *from, struct end *to, enum tnl_mtype t, size_t total, struct tnl_sha256 *sum,
		 bool read_along)
{
	static uint8_t block[30000];
	int64_t seq = 0;
	uint64_t last = T.l->now;
	for (size_t sent = 0; sent < total;) {
		size_t n = 1 + (size_t)(seq * 7919 % (int64_t)sizeof(block));
		if (n > total - sent)
			n = total - sent;
		for (size_t i = 0; i < n; i++)
			block[i] = (uint8_t)((size_t)seq * 31 + i * 7);
		if (send_msg(from, t, TNL_PT_OUTPUT, seq, block, n) == 0) {
			tnl_sha256_update(sum, block, n);
			sent += n;
			seq++;
			last = T.l->now;
			continue;
		}
		turn();
		if (!read_along && T.l->now > last + 400 * TD_MS)
			return; /* it is not read any more */
	}
}

static void same_sum(struct end *e, struct tnl_sha256 *sum)
{
	uint8_t a[32], b[32];
	tnl_sha256_final(&e->sum, a);
	tnl_sha256_final(sum, b);
	assert_memory_equal(a, b, 32);
}

static void test_both_ways(void **state)
{
	struct ses s;
	struct tnl_sha256 in, out;
	tnl_sha256_init(&in);
	tnl_sha256_init(&out);
	session_up(&s);
	pour(&s.client, &s.agent, TNL_MT_INPUT, 8u << 20, &in, true);
	pour(&s.agent, &s.client, TNL_MT_OUTPUT, 8u << 20, &out, true);
	wait_for(s.agent.bytes == 8u << 20 && s.client.bytes == 8u << 20);
	same_sum(&s.agent, &in);
	same_sum(&s.client, &out);
	send_msg(&s.client, TNL_MT_ACK, 0, 0, "{}", 2);
	int n = s.agent.n;
	wait_for(s.agent.n == n + 1);
	assert_int_equal(status_of("sessions/0/client/relayed_bytes") > 8 << 20, 1);
	session_done(&s);
}

static int begin_small(void **state)
{
	return begin_with("relay_memory = 512K\nidle_timeout = 1h");
}

/* An end that does not read stops the other, within the limit, and nothing is lost. */
static void test_back_pressure(void **state)
{
	struct ses s;
	struct tnl_sha256 sum;
	tnl_sha256_init(&sum);
	session_up(&s);
	td_wslink_pause(s.agent.w, true);
	size_t total = 64u << 20, before = 0;
	pour(&s.client, &s.agent, TNL_MT_INPUT, total, &sum, false);
	assert_true(status_of("sessions/0/client/paused"));
	before = (size_t)status_of("sessions/0/agent/waiting_bytes");
	assert_in_range(before, 512 * 1024, 512 * 1024 + 300 * 1024);
	assert_in_range(td_memory_used(), 1, 4u << 20);
	turns_for(100 * TD_MS);
	assert_int_equal(status_of("sessions/0/agent/waiting_bytes"), before);
	td_wslink_pause(s.agent.w, false);
	wait_for(!status_of("sessions/0/client/paused"));
	wait_for(status_of("sessions/0/agent/waiting_bytes") == 0 && td_wslink_queued(s.client.w) == 0);
	send_msg(&s.client, TNL_MT_INPUT, TNL_PT_OUTPUT, 0, "last", 4);
	tnl_sha256_update(&sum, "last", 4);
	uint8_t a[32], b[32];
	tnl_sha256_final(&sum, b);
	for (struct tnl_sha256 now;;) { /* until everything that was taken has come */
		now = s.agent.sum;
		tnl_sha256_final(&now, a);
		if (memcmp(a, b, 32) == 0)
			break;
		turn();
	}
	session_done(&s);
}

/* The process limit pauses as well, and lets go again. */
static void test_process_memory(void **state)
{
	struct ses s;
	struct tnl_sha256 sum;
	tnl_sha256_init(&sum);
	session_up(&s);
	td_memory_limit(td_memory_used() + 200 * 1024);
	td_wslink_pause(s.agent.w, true);
	pour(&s.client, &s.agent, TNL_MT_INPUT, 64u << 20, &sum, false);
	assert_true(status_of("sessions/0/client/paused"));
	assert_in_range(status_of("sessions/0/agent/waiting_bytes"), 1, 480 * 1024);
	td_wslink_pause(s.agent.w, false);
	wait_for(!status_of("sessions/0/client/paused"));
	td_memory_limit(96u << 20);
	session_done(&s);
}

/* --- ends that come and go ---------------------------------------------------------------- */
static void test_absent_end(void **state)
{
	struct ses s;
	struct tnl_sha256 sum;
	tnl_sha256_init(&sum);
	session_start(&s, "i-1");
	open_client(&s.client, s.id, s.token, "client-1");
	send_msg(&s.client, TNL_MT_INPUT, TNL_PT_OUTPUT, 0, "early", 5);
	wait_for(status_of("sessions/0/agent/waiting_frames") == 1);
	open_agent(&s.agent, &I1, s.id);
	wait_for(s.agent.n == 2);
	assert_string_equal(s.agent.f[0].text, "early");
	assert_int_equal(s.agent.f[1].type, TNL_MT_START_PUBLICATION);
	wait_for(s.client.n == 1);
	assert_int_equal(s.client.f[0].type, TNL_MT_START_PUBLICATION);
	end_reset(&s.agent); /* gone without a word */
	wait_for(s.client.n == 2);
	assert_int_equal(s.client.f[1].type, TNL_MT_PAUSE_PUBLICATION);
	send_msg(&s.client, TNL_MT_INPUT, TNL_PT_OUTPUT, 1, "while away", 10);
	wait_for(status_of("sessions/0/agent/waiting_frames") == 1);
	open_agent(&s.agent, &I1, s.id);
	wait_for(s.agent.n == 2 && s.client.n == 3);
	assert_string_equal(s.agent.f[0].text, "while away");
	assert_int_equal(s.client.f[2].type, TNL_MT_START_PUBLICATION);
	assert_int_equal(status_of("counters/sessions_ended"), 0);
	end_reset(&s.client);
	wait_for(s.agent.n == 3);
	assert_int_equal(s.agent.f[2].type, TNL_MT_PAUSE_PUBLICATION);
	session_resume(&s);
	open_client(&s.client, s.id, s.token, "client-1");
	wait_for(s.agent.n == 4);
	assert_int_equal(s.agent.f[3].type, TNL_MT_START_PUBLICATION);
	session_done(&s);
}

static void test_absent_end_is_bounded(void **state)
{
	struct ses s;
	struct tnl_sha256 sum;
	tnl_sha256_init(&sum);
	session_start(&s, "i-1");
	open_client(&s.client, s.id, s.token, "client-1");
	pour(&s.client, &s.agent, TNL_MT_INPUT, 64u << 20, &sum, false);
	assert_true(status_of("sessions/0/client/paused"));
	assert_in_range(status_of("sessions/0/agent/waiting_bytes"), 512 * 1024, 812 * 1024);
	session_done(&s);
}

/* --- ends of sessions ----------------------------------------------------------------------- */
static void terminate(struct ses *s)
{
	char body[200];
	snprintf(body, sizeof(body), "{\"SessionId\":\"%s\"}", s->id);
	assert_int_equal(ssm(&OPS, "TerminateSession", body), 200);
}

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

static void complete(const char *id, const char *status, const char *output, int retry)
{
	struct tnl_buf b;
	tnl_buf_init(&b, 4096);
	assert_int_equal(tnl_task_complete_write(&b, id, "i-1", status, output, retry), 0);
	send_msg(&control, TNL_MT_TASK_COMPLETE, 0, 0, tnl_buf_data(&b), tnl_buf_len(&b));
	tnl_buf_fini(&b);
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

/* --- a stock agent that comes back -------------------------------------------------------------- */
static void stock_agent(struct raw *r, const struct ses *s)
{
	char path[200], token[64], frame[400];
	snprintf(path, sizeof(path), "/v1/data-channel/%s", s->id);
	assert_int_equal(post_channel(&I1, path, create_body, token), 201);
	strcat(path, "?role=publish_subscribe");
	raw_upgrade(r, &I1, path, "Go-http-client/1.1");
	int n = snprintf(frame, sizeof(frame),
			 "{\"MessageSchemaVersion\":\"1.0\",\"RequestId\":\"%s\",\"TokenValue\":\"%s\","
			 "\"ClientInstanceId\":\"i-1\",\"ClientId\":\"\"}",
			 RID, token);
	long used = status_of("counters/tokens_used");
	raw_frame(r, 1, frame, (size_t)n);
	wait_for(status_of("counters/tokens_used") == used + 1);
}

static void client_back(struct ses *s)
{
	session_resume(s);
	open_client(&s->client, s->id, s->token, "client-1");
}

static void hears(struct ses *s, int from, bool lost)
{
	struct end *e = &s->client;
	wait_for(e->n > from && e->f[e->n - 1].type == TNL_MT_START_PUBLICATION);
	turns_for(50 * TD_MS);
	assert_int_equal(e->n, from + (lost ? 2 : 1));
	assert_int_equal(e->f[from].type, lost ? TNL_MT_PAUSE_PUBLICATION : TNL_MT_START_PUBLICATION);
	assert_int_equal(e->f[e->n - 1].type, TNL_MT_START_PUBLICATION);
}

/* It may take what is sent to it again for new, so its client must hear that its link broke. */
static void test_lost_agent_is_told(void **state)
{
	struct ses s;
	struct raw agent;
	session_start(&s, "i-1");
	open_client(&s.client, s.id, s.token, "client-1");
	stock_agent(&agent, &s);
	hears(&s, 0, false);
	end_reset(&s.client);
	wait_for(!status_of("sessions/0/client/attached"));
	client_back(&s);
	hears(&s, 0, false); /* the client's link alone */
	end_reset(&s.client);
	wait_for(!status_of("sessions/0/client/attached"));
	raw_free(&agent);
	wait_for(!status_of("sessions/0/agent/attached"));
	stock_agent(&agent, &s);
	client_back(&s);
	hears(&s, 0, true); /* both, and the agent was back first */
	client_back(&s);
	hears(&s, 0, false); /* told once for one loss */
	struct raw fresh;    /* a new link before the end of the old one was noticed */
	stock_agent(&fresh, &s);
	hears(&s, 1, true);
	raw_free(&agent);
	raw_free(&fresh);
	session_done(&s);
}

static void test_lost_agent_is_told_after_restart(void **state)
{
	for (int client_first = 0; client_first < 2; client_first++) {
		struct ses s;
		struct raw agent;
		session_start(&s, "i-1");
		open_client(&s.client, s.id, s.token, "client-1");
		stock_agent(&agent, &s);
		hears(&s, 0, false);
		gateway_stop();
		wait_for(s.client.closed);
		raw_free(&agent);
		gateway_start();
		if (client_first)
			client_back(&s);
		stock_agent(&agent, &s);
		if (!client_first)
			client_back(&s);
		hears(&s, 0, true);
		terminate(&s);
		raw_free(&agent);
		session_done(&s);
		open_control(&control, &I1, "i-1");
	}
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

int main(void)
{
#define T2(name, setup) cmocka_unit_test_setup_teardown(name, setup, end)
	const struct CMUnitTest tests[] = {
	    T2(test_tokens, begin),
	    T2(test_agent_tokens, begin),
	    T2(test_token_expiry, begin_short_tokens),
	    T2(test_bad_first_frames, begin),
	    T2(test_bad_messages, begin),
	    T2(test_both_ways, begin),
	    T2(test_back_pressure, begin_small),
	    T2(test_process_memory, begin_small),
	    T2(test_absent_end, begin),
	    T2(test_absent_end_is_bounded, begin_small),
	    T2(test_terminate, begin),
	    T2(test_task_complete, begin),
	    T2(test_foreign_task_complete, begin),
	    T2(test_idle, begin_idle),
	    T2(test_max_duration, begin_max),
	    T2(test_agent_restart, begin),
	    T2(test_restart, begin),
	    T2(test_drain, begin),
	    T2(test_end_before_the_client, begin),
	    T2(test_end_while_resuming, begin),
	    T2(test_end_token_expires, begin_short_tokens),
	    T2(test_lost_agent_is_told, begin),
	    T2(test_lost_agent_is_told_after_restart, begin),
	};
	return cmocka_run_group_tests_name("gateway channels", tests, NULL, NULL);
}
