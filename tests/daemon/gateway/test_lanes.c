/* Further links of a session's ends: their tokens, which link what takes, and what the other end hears when one goes.
 */
#include "tests/daemon/gateway/gw_channel.h"

static int ask(const struct tnl_sigv4_keys *who, const char *session, int link, char token[64])
{
	char body[240];
	snprintf(body, sizeof(body), "{\"SessionId\":\"%s\",\"Link\":%d}", session, link);
	int status = ssm(who, "OpenSessionLink", body);
	token[0] = 0;
	if (status == 200)
		snprintf(token, 64, "%s", tnl_json_get_str(R.json, "TokenValue"));
	return status;
}

static void more_client(struct end *e, const struct ses *s, int link)
{
	char token[64];
	long links = status_of("sessions/0/client/links");
	assert_int_equal(ask(&OPS, s->id, link, token), 200);
	open_client(e, s->id, token, "client-1");
	wait_for(status_of("sessions/0/client/links") == links + 1);
}

static void more_agent(struct end *e, const struct ses *s, int link)
{
	char path[200], body[200], token[64];
	long links = status_of("sessions/0/agent/links");
	snprintf(path, sizeof(path), "/v1/data-channel/%s", s->id);
	snprintf(body, sizeof(body),
		 "{\"MessageSchemaVersion\":\"1.0\",\"RequestId\":\"%s\",\"ClientId\":\"\",\"Link\":%d}", RID, link);
	assert_int_equal(post_channel(&I1, path, body, token), 201);
	open_agent_token(e, &I1, s->id, token, "");
	wait_for(status_of("sessions/0/agent/links") == links + 1);
}

static void arrives(struct end *from, struct end *to, int64_t seq, const char *text)
{
	int had = to->n;
	send_msg(from, TNL_MT_INPUT, TNL_PT_OUTPUT, seq, text, strlen(text));
	wait_for(to->n == had + 1);
	assert_string_equal(to->f[had].text, text);
}

static void test_tokens(void **state)
{
	struct ses s;
	struct end e = {0}, again = {0};
	char token[64], path[200];
	session_up(&s);
	assert_int_equal(ask(&DEV, s.id, 1, token), 400); /* another's, as if it were not there */
	assert_non_null(strstr(R.body, "DoesNotExistException"));
	assert_int_equal(ask(&OPS, s.id, 0, token), 400);
	assert_int_equal(ask(&OPS, s.id, 8, token), 400);
	assert_int_equal(ask(&OPS, s.id, 7, token), 200);
	open_client(&e, s.id, token, "client-2"); /* bound to the ClientId of the session */
	token_refused(&e, "ClientId");
	more_client(&e, &s, 7);
	open_client(&again, s.id, token, "client-1"); /* spent */
	token_refused(&again, "token");
	assert_false(e.closed);
	snprintf(path, sizeof(path), "/v1/data-channel/%s", s.id);
	assert_int_equal(post_channel(&I1, path, "{\"ClientId\":\"\",\"Link\":8}", token), 400);
	assert_int_equal(post_channel(&I1, path, "{\"ClientId\":\"\",\"Link\":0}", token), 400);
	assert_int_equal(ask(&OPS, s.id, 7, token), 200);
	open_client(&again, s.id, token, "client-1"); /* the newer one of a number takes the older one's place */
	wait_for(e.closed);
	assert_int_equal(status_of("sessions/0/client/links"), 2);
	assert_int_equal(s.agent.n, 0); /* nobody hears of further links */
	end_reset(&e);
	end_reset(&again);
	session_done(&s);
}

/* An end is a while ahead of us: it has asked for all of its links before we have read a token of theirs. */
static void test_all_at_once(void **state)
{
	struct ses s;
	struct end c[7] = {{0}}, a[7] = {{0}};
	char ct[7][64], at[7][64], path[200], body[200];
	session_up(&s);
	snprintf(path, sizeof(path), "/v1/data-channel/%s", s.id);
	for (int i = 0; i < 7; i++) {
		snprintf(body, sizeof(body),
			 "{\"MessageSchemaVersion\":\"1.0\",\"RequestId\":\"%s\",\"ClientId\":\"\",\"Link\":%d}", RID,
			 i + 1);
		assert_int_equal(post_channel(&I1, path, body, at[i]), 201);
		assert_int_equal(ask(&OPS, s.id, i + 1, ct[i]), 200);
	}
	for (int i = 7; i-- > 0;) { /* whichever comes first */
		open_client(&c[i], s.id, ct[i], "client-1");
		open_agent_token(&a[i], &I1, s.id, at[i], "");
	}
	wait_for(status_of("sessions/0/client/links") == 8 && status_of("sessions/0/agent/links") == 8);
	for (int i = 0; i < 7; i++) {
		assert_false(c[i].closed || a[i].closed);
		end_reset(&c[i]);
		end_reset(&a[i]);
	}
	session_done(&s);
}

/* One that was asked for again, since its link did not come about, takes no other's place. */
static void test_asked_for_again(void **state)
{
	struct ses s;
	struct end first = {0}, again = {0};
	char one[64], two[64], newer[64];
	session_up(&s);
	assert_int_equal(ask(&OPS, s.id, 1, one), 200);
	assert_int_equal(ask(&OPS, s.id, 2, two), 200);
	for (int i = 0; i < 10; i++)
		assert_int_equal(ask(&OPS, s.id, 2, newer), 200);
	open_client(&again, s.id, two, "client-1");
	token_refused(&again, "token");
	open_client(&first, s.id, one, "client-1");
	wait_for(status_of("sessions/0/client/links") == 2);
	open_client(&again, s.id, newer, "client-1");
	wait_for(status_of("sessions/0/client/links") == 3);
	end_reset(&first);
	end_reset(&again);
	session_done(&s);
}

static void test_ways(void **state)
{
	struct ses s;
	struct end c2 = {0}, a2 = {0};
	session_up(&s);
	more_client(&c2, &s, 2);
	arrives(&c2, &s.agent, 0, "no such link there: the main one");
	more_agent(&a2, &s, 2);
	arrives(&c2, &a2, 1, "the link of that number");
	arrives(&s.client, &s.agent, 2, "the main one");
	end_reset(&s.agent); /* the main one alone */
	wait_for(!status_of("sessions/0/agent/attached"));
	arrives(&s.client, &a2, 3, "the one that is there");
	turns_for(20 * TD_MS);
	assert_int_equal(s.client.n, 0); /* not told: the end is still there */
	end_reset(&a2);
	wait_for(s.client.n == 1);
	assert_int_equal(s.client.f[0].type, TNL_MT_PAUSE_PUBLICATION);
	send_msg(&c2, TNL_MT_INPUT, TNL_PT_OUTPUT, 4, "while away", 10);
	wait_for(status_of("sessions/0/agent/waiting_frames") == 1);
	open_agent(&s.agent, &I1, s.id);
	wait_for(s.agent.n == 2);
	assert_string_equal(s.agent.f[0].text, "while away");
	end_reset(&c2);
	session_done(&s);
}

/* What waits for a link that goes takes another, and only the link that it came on was held back for it. */
static void test_what_waits_moves(void **state)
{
	static uint8_t big[30000];
	struct ses s;
	struct end c1 = {0}, a1 = {0};
	session_up(&s);
	more_client(&c1, &s, 1);
	more_agent(&a1, &s, 1);
	td_wslink_pause(a1.w, true);
	int64_t seq = 0;
	while (seq < 2000) {
		if (send_msg(&c1, TNL_MT_INPUT, TNL_PT_OUTPUT, seq, big, sizeof(big)) == 0)
			seq++;
		else
			turns_for(5 * TD_MS);
		if (seq % 20 == 0 && status_of("sessions/0/agent/waiting_frames"))
			break;
	}
	assert_true(status_of("sessions/0/agent/waiting_frames") > 0);
	assert_int_equal(s.agent.n, 0);
	arrives(&s.client, &s.agent, seq, "not held up");
	long waiting = status_of("sessions/0/agent/waiting_frames");
	end_reset(&a1);
	wait_for(s.agent.n > waiting);
	wait_for(!status_of("sessions/0/agent/waiting_frames"));
	end_reset(&c1);
	session_done(&s);
}

static void test_the_end_closes_all(void **state)
{
	struct ses s;
	struct end c1 = {0}, a1 = {0};
	char body[200], token[64];
	session_up(&s);
	more_client(&c1, &s, 1);
	more_agent(&a1, &s, 1);
	assert_int_equal(ask(&OPS, s.id, 2, token), 200);
	snprintf(body, sizeof(body), "{\"SessionId\":\"%s\"}", s.id);
	assert_int_equal(ssm(&OPS, "TerminateSession", body), 200);
	wait_for(c1.closed && a1.closed);
	struct end late = {0};
	open_client(&late, s.id, token, "client-1");
	token_refused(&late, "token");
	assert_int_equal(ask(&OPS, s.id, 2, token), 400);
	end_reset(&c1);
	end_reset(&a1);
	session_done(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T2(test_tokens, begin),
	    T2(test_all_at_once, begin),
	    T2(test_asked_for_again, begin),
	    T2(test_ways, begin),
	    T2(test_what_waits_moves, begin_small),
	    T2(test_the_end_closes_all, begin),
	};
	return cmocka_run_group_tests_name("gateway further links", tests, NULL, NULL);
}
