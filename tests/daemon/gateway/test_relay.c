/* The relay both ways: what it lets pass, back-pressure, ends that come and go. */
#include "tests/daemon/gateway/gw_channel.h"
#include "tests/daemon/gateway/gw_raw.h"

/* --- what does not belong ----------------------------------------------------------- */
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
	for (size_t i = 0; i < TNL_COUNT(types); i++)
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

/* Said once, and at the hundredth it is enough. */
static void test_too_many_bad_messages(void **state)
{
	struct ses s;
	session_up(&s);
	for (int i = 0; i < 99; i++)
		send_msg(&s.client, TNL_MT_AGENT_JOB, 0, 0, "{}", 2);
	send_msg(&s.client, TNL_MT_INPUT, TNL_PT_OUTPUT, 0, "good", 4);
	wait_for(s.agent.n == 1);
	assert_int_equal(s.client.closed, 0);
	send_msg(&s.client, TNL_MT_AGENT_JOB, 0, 0, "{}", 2);
	send_msg(&s.client, TNL_MT_INPUT, TNL_PT_OUTPUT, 1, "too late", 8);
	wait_for(s.client.closed);
	assert_int_equal(s.client.code, 1008);
	assert_int_equal(status_of("counters/frames_refused"), 100);
	wait_for(s.agent.n == 2); /* the session is there, its client may come again */
	assert_int_equal(s.agent.f[1].type, TNL_MT_PAUSE_PUBLICATION);
	session_done(&s);
}

/* --- the relay ----------------------------------------------------------------------- */
/* Sends `total` bytes of numbered messages as room comes, and hashes them. */
static void pour(struct end *from, struct end *to, enum tnl_mtype t, size_t total, SHA256_CTX *sum, bool read_along)
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
			SHA256_Update(sum, block, n);
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

static void same_sum(struct end *e, SHA256_CTX *sum)
{
	uint8_t a[32], b[32];
	SHA256_Final(a, &e->sum);
	SHA256_Final(b, sum);
	assert_memory_equal(a, b, 32);
}

static void test_both_ways(void **state)
{
	struct ses s;
	SHA256_CTX in, out;
	SHA256_Init(&in);
	SHA256_Init(&out);
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

static int64_t relayed_number(struct end *from, struct end *to, enum tnl_mtype t, int64_t seq)
{
	int n = to->n;
	send_msg(from, t, TNL_PT_NONE, seq, "{}", 2);
	wait_for(to->n == n + 1);
	assert_int_equal(to->f[n].type, t);
	assert_string_equal(to->f[n].text, "{}");
	return to->f[n].seq;
}

/* Acks that ask are told of the link that the acknowledged data went over; everything else passes as it is. */
static void test_hop_is_told(void **state)
{
	struct ses s;
	struct tnl_hop h = {.queue = UINT64_MAX};
	session_up(&s);
	struct end *ends[2] = {&s.client, &s.agent};
	for (int i = 0; i < 2; i++) {
		struct end *from = ends[i], *to = ends[1 - i];
		struct tnl_msg ack = {.seq = relayed_number(from, to, TNL_MT_ACK, TNL_HOP_ASKED)};
		ack.flags = to->f[to->n - 1].flags;
		assert_true(tnl_ack_hop(&ack, &h));
		assert_true(h.queue < 60 * TD_SEC);
		assert_false(h.repairs);
		assert_false(h.full);
		assert_int_equal(relayed_number(from, to, TNL_MT_ACK, 0), 0);
		assert_int_equal(relayed_number(from, to, TNL_MT_ACK, 77), 77);
		enum tnl_mtype t = i ? TNL_MT_OUTPUT : TNL_MT_INPUT;
		assert_true(relayed_number(from, to, t, TNL_HOP_ASKED) == TNL_HOP_ASKED);
	}
	session_done(&s);
}

/* An end that does not read stops the other, within the limit, and nothing is lost. */
static void test_back_pressure(void **state)
{
	struct ses s;
	SHA256_CTX sum;
	SHA256_Init(&sum);
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
	SHA256_Update(&sum, "last", 4);
	uint8_t a[32], b[32];
	SHA256_Final(b, &sum);
	for (SHA256_CTX now;;) { /* until everything that was taken has come */
		now = s.agent.sum;
		SHA256_Final(a, &now);
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
	SHA256_CTX sum;
	SHA256_Init(&sum);
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
	SHA256_CTX sum;
	SHA256_Init(&sum);
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
	SHA256_CTX sum;
	SHA256_Init(&sum);
	session_start(&s, "i-1");
	open_client(&s.client, s.id, s.token, "client-1");
	pour(&s.client, &s.agent, TNL_MT_INPUT, 64u << 20, &sum, false);
	assert_true(status_of("sessions/0/client/paused"));
	assert_in_range(status_of("sessions/0/agent/waiting_bytes"), 512 * 1024, 812 * 1024);
	session_done(&s);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T2(test_bad_messages, begin),	 T2(test_too_many_bad_messages, begin),
	    T2(test_both_ways, begin),		 T2(test_hop_is_told, begin),
	    T2(test_back_pressure, begin_small), T2(test_process_memory, begin_small),
	    T2(test_absent_end, begin),		 T2(test_absent_end_is_bounded, begin_small),
	    T2(test_lost_agent_is_told, begin),	 T2(test_lost_agent_is_told_after_restart, begin),
	};
	return cmocka_run_group_tests_name("gateway relay", tests, NULL, NULL);
}
