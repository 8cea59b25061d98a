/* Who gets onto a channel: tokens of both ends, and first frames that are none. */
#include "tests/daemon/gateway/gw_channel.h"

/* --- tokens ------------------------------------------------------------------- */
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
	for (size_t i = 0; i < TNL_COUNT(bad); i++) {
		dial(&e, NULL, path);
		td_wslink_send(e.w, TNL_WS_TEXT, bad[i], strlen(bad[i]));
		wait_for(e.closed);
		assert_int_equal(e.code, 1008);
	}
	assert_int_equal(status_of("counters/frames_refused"), 6);
	assert_int_equal(status_of("sessions_active"), 1);
	end_reset(&e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T2(test_tokens, begin),
	    T2(test_agent_tokens, begin),
	    T2(test_token_expiry, begin_short_tokens),
	    T2(test_bad_first_frames, begin),
	};
	return cmocka_run_group_tests_name("gateway channels", tests, NULL, NULL);
}
