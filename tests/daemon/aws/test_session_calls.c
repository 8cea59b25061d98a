/* Bodies and answers of the session calls. */
#include "tests/daemon/aws/aws_test.h"

static void test_start_session_body(void **state)
{
	static const char *const command[] = {"ls", "-l", NULL};
	struct tnl_buf b;

	tnl_buf_init(&b, 4096);
	assert_int_equal(td_start_session_body(&b, "i-1", NULL, NULL, 5432, 15432, NULL, NULL), 0);
	assert_string_equal(tnl_buf_str(&b),
			    "{\"Target\":\"i-1\",\"DocumentName\":\"AWS-StartPortForwardingSession\","
			    "\"Parameters\":{\"portNumber\":[\"5432\"],\"localPortNumber\":[\"15432\"]}}");
	tnl_buf_reset(&b);
	assert_int_equal(td_start_session_body(&b, "i-1", NULL, "db", 5432, 0, "why", NULL), 0);
	assert_non_null(strstr(tnl_buf_str(&b), "AWS-StartPortForwardingSessionToRemoteHost"));
	assert_non_null(strstr(tnl_buf_str(&b), "\"host\":[\"db\"]"));
	assert_non_null(strstr(tnl_buf_str(&b), "\"Reason\":\"why\""));
	tnl_buf_reset(&b);
	assert_int_equal(td_start_session_body(&b, "i-1", "AWS-StartSSHSession", NULL, 22, 0, NULL, NULL), 0);
	assert_null(strstr(tnl_buf_str(&b), "localPortNumber"));
	tnl_buf_reset(&b);
	assert_int_equal(td_start_session_body(&b, "i-1", "D", NULL, 0, 0, NULL, command), 0);
	assert_non_null(strstr(tnl_buf_str(&b), "\"command\":[\"ls\",\"-l\"]"));
	tnl_buf_fini(&b);
}

static void test_grant(void **state)
{
	static const char text[] = "{\"SessionId\":\"s\",\"TokenValue\":\"t\",\"StreamUrl\":\"wss://x\"}";
	struct tnl_json *j = tnl_json_parse(text, strlen(text));
	struct td_session_grant g;

	assert_int_equal(td_session_grant_parse(j, &g), 0);
	assert_string_equal(g.session_id, "s");
	assert_string_equal(g.token, "t");
	assert_string_equal(g.stream_url, "wss://x");
	td_session_grant_fini(&g);
	for (long n = 0; n < 3; n++) {
		tnl_alloc_fail_after(n, 0);
		assert_int_equal(td_session_grant_parse(j, &g), TNL_ENOMEM);
		tnl_alloc_fail_after(-1, 0);
	}
	tnl_json_free(j);
	static const char lower[] = "{\"sessionId\":\"s\",\"streamUrl\":\"wss://x\",\"tokenValue\":\"t\"}";
	j = tnl_json_parse(lower, strlen(lower));
	assert_int_equal(td_session_grant_parse(j, &g), 0);
	assert_string_equal(g.session_id, "s");
	assert_string_equal(g.token, "t");
	assert_string_equal(g.stream_url, "wss://x");
	td_session_grant_fini(&g);
	tnl_json_free(j);
	/* what no service says is not kept, nor shown */
	char *id = tnl_malloc(20000);
	memset(id, 'x', 19999);
	id[19999] = '\0';
	for (size_t n = 512; n < 20000; n += 19999 - 512) {
		struct tnl_buf b;
		tnl_buf_init(&b, 65536);
		tnl_buf_printf(&b, "{\"SessionId\":\"%.*s\",\"TokenValue\":\"%s\",\"StreamUrl\":\"%s\"}", (int)n, id,
			       id, id);
		j = tnl_json_parse(tnl_buf_data(&b), tnl_buf_len(&b));
		assert_int_equal(td_session_grant_parse(j, &g), n > 512 ? TNL_ESYNTAX : 0);
		assert_int_equal(g.session_id != NULL, n == 512);
		assert_null(g.token);
		assert_null(g.stream_url);
		td_session_grant_fini(&g);
		tnl_json_free(j);
		tnl_buf_fini(&b);
	}
	tnl_free(id);
	j = tnl_json_parse("{}", 2);
	assert_int_equal(td_session_grant_parse(j, &g), TNL_ESYNTAX);
	tnl_json_free(j);
}

/* Names that would be more than that where they are written. */
static void test_odd_ids(void **state)
{
	struct td_session_grant g;
	static const char *const odd[] = {"", " ", "a b", "a\\n+b", "a\\u001b[2J", "..", "a/b", "s\\\" x=\\\"y"};
	for (size_t i = 0; i < TNL_COUNT(odd); i++) {
		char all[200];
		snprintf(all, sizeof(all), "{\"SessionId\":\"%s\",\"TokenValue\":\"t\",\"StreamUrl\":\"wss://x\"}",
			 odd[i]);
		struct tnl_json *j = tnl_json_parse(all, strlen(all));
		assert_non_null(j);
		assert_int_equal(td_session_grant_parse(j, &g), TNL_ESYNTAX);
		assert_null(g.session_id);
		assert_null(g.token);
		tnl_json_free(j);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_start_session_body),
	    cmocka_unit_test(test_grant),
	    cmocka_unit_test(test_odd_ids),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
