/* How often calls may come: whoever has a key cannot make tokens, records, lines of the audit log and words to agents
 * at any rate, and whose sessions all come back at once is refused none of them. */
#include "tests/daemon/gateway/gw_channel.h"
#include "tunneld/gateway/rate_internal.h"

static uint64_t records(void)
{
	struct td_store_stats st;
	td_store_stats(T.g->store, &st);
	return st.queued + st.written;
}

static void about(const char *op, const char *id, const char *more)
{
	char body[300];
	snprintf(body, sizeof(body), "{\"SessionId\":\"%s\"%s}", id, more);
	ssm(&OPS, op, body);
}

static void made_nothing(const char *op, const char *id, const char *more)
{
	uint64_t written = records();
	long tokens = status_of("counters/tokens_issued"), resumed = status_of("counters/sessions_resumed"),
	     limited = status_of("counters/limit_user_calls");
	for (int i = 0; i < 10; i++) {
		about(op, id, more);
		assert_string_equal(R.type, "ThrottlingException");
		assert_int_equal(R.status, 400);
	}
	assert_int_equal(records(), written);
	assert_int_equal(status_of("counters/tokens_issued"), tokens);
	assert_int_equal(status_of("counters/sessions_resumed"), resumed);
	assert_int_equal(status_of("counters/limit_user_calls"), limited + 10);
}

static struct gw_end *end_of(const struct ses *s, enum gw_role role)
{
	return &gw_session_get(T.g, s->id)->ends[role];
}

/* As if everything until a moment ago had been asked for. */
static void exhaust(struct gw_rate *r)
{
	td_loop_update(T.l);
	r->full = T.l->now + 60 * TD_SEC + 30 * TD_SEC;
}

static void test_bucket(void **state)
{
	struct gw_rate r = {0};
	uint64_t now = 1000 * TD_SEC;
	for (int i = 0; i < 60; i++)
		assert_true(gw_rate_take(&r, now, 60, 1));
	assert_false(gw_rate_take(&r, now, 60, 1));
	assert_false(gw_rate_take(&r, now + TD_SEC / 2, 60, 1));
	assert_true(gw_rate_take(&r, now + TD_SEC, 60, 1));
	assert_false(gw_rate_take(&r, now + TD_SEC, 60, 1));
	r = (struct gw_rate){0};
	assert_true(gw_rate_take(&r, now, 60, 100)); /* more than all: when it is full, and then for longer */
	assert_false(gw_rate_take(&r, now + 99 * TD_SEC, 60, 60));
	assert_true(gw_rate_take(&r, now + 100 * TD_SEC, 60, 60));
	r = (struct gw_rate){0};
	assert_true(gw_rate_take(&r, now, 60000000, UINT64_MAX));
	assert_in_range(r.full, now + 60 * TD_SEC, now + 300 * TD_SEC);
}

static void test_resume(void **state)
{
	struct ses s, other;
	session_up(&s);
	session_up(&other);
	for (int i = 0; i < 300; i++) {
		about("ResumeSession", s.id, "");
		assert_int_equal(R.status, 200);
	}
	exhaust(&end_of(&s, GW_CLIENT)->calls); /* however long that took */
	made_nothing("ResumeSession", s.id, "");
	about("ResumeSession", other.id, ""); /* each has its own */
	assert_int_equal(R.status, 200);
	assert_true(!s.client.closed && !s.agent.closed); /* nothing ends for it */
	about("TerminateSession", s.id, "");		  /* and it can be ended */
	assert_int_equal(R.status, 200);
	wait_for(s.client.closed);
	session_done(&s);
	session_done(&other);
}

/* The network was away: whatever the number of his sessions, all of a user's come back at once. */
static void test_all_resume(void **state)
{
	enum { N = 100 };
	static char ids[N][150];
	for (int i = 0; i < N; i++) {
		assert_int_equal(ssm(&OPS, "StartSession", "{\"Target\":\"i-1\"}"), 200);
		snprintf(ids[i], sizeof(ids[i]), "%s", tnl_json_get_str(R.json, "SessionId"));
	}
	for (int round = 0; round < 3; round++)
		for (int i = 0; i < N; i++) {
			about("ResumeSession", ids[i], "");
			assert_int_equal(R.status, 200);
		}
	assert_int_equal(status_of("counters/limit_user_calls"), 0);
}

static void test_links(void **state)
{
	struct ses s;
	session_up(&s);
	about("OpenSessionLink", s.id, ",\"Link\":1");
	assert_int_equal(R.status, 200);
	assert_true(end_of(&s, GW_CLIENT)->link_calls.full > T.l->now);
	for (int i = 0; i < 7; i++) { /* all of them, a few times */
		about("OpenSessionLink", s.id, ",\"Link\":7");
		assert_int_equal(R.status, 200);
	}
	exhaust(&end_of(&s, GW_CLIENT)->link_calls);
	made_nothing("OpenSessionLink", s.id, ",\"Link\":1");
	about("ResumeSession", s.id, ""); /* the main link is not theirs */
	assert_int_equal(R.status, 200);
	session_done(&s);
}

static void test_channels(void **state)
{
	struct ses s;
	char path[200], token[64];
	session_up(&s);
	snprintf(path, sizeof(path), "/v1/data-channel/%s", s.id);
	assert_int_equal(post_channel(&I1, path, create_body, token), 201);
	exhaust(&end_of(&s, GW_AGENT)->calls);
	uint64_t written = records();
	assert_int_equal(post_channel(&I1, path, create_body, token), 429); /* an agent tries again for that one */
	assert_non_null(strstr(R.body, "<ThrottlingException>"));
	assert_int_equal(records(), written);
	assert_int_equal(status_of("counters/limit_instance_calls"), 1);
	struct gw_share *h = gw_share_get(T.g, GW_SHARE_INSTANCE, "i-1");
	assert_int_equal(post_channel(&I1, "/v1/control-channel/i-1", create_body, token), 201);
	exhaust(&h->calls);
	assert_int_equal(post_channel(&I1, "/v1/control-channel/i-1", create_body, token), 429);
	assert_int_equal(post_channel(&I2, "/v1/control-channel/i-2", create_body, token), 201);
	refused_as(&I1, "UpdateInstanceInformation", "{\"InstanceId\":\"i-1\"}", "ThrottlingException");
	assert_int_equal(ssm(&I2, "UpdateInstanceInformation", "{\"InstanceId\":\"i-2\"}"), 200);
	assert_true(!s.agent.closed);
	session_done(&s);
}

/* A listing costs what it looks at. */
static void test_listings(void **state)
{
	static char body[16384];
	struct gw_share *h = gw_share_get(T.g, GW_SHARE_USER, "ops");
	assert_int_equal(ssm(&OPS, "DescribeInstanceInformation", "{}"), 200);
	assert_in_range(h->looks.full, T.l->now, T.l->now + 10 * TD_MS); /* 10,000 of 60,000,000 a minute */
	h->looks.full = 0;
	size_t n = (size_t)snprintf(body, sizeof(body), "{\"Filters\":[");
	for (int f = 0; f < 10; f++) {
		n += (size_t)snprintf(body + n, sizeof(body) - n, "%s{\"Key\":\"PingStatus\",\"Values\":[",
				      f ? "," : "");
		for (int v = 0; v < 100; v++)
			n += (size_t)snprintf(body + n, sizeof(body) - n, "%s\"x%d\"", v ? "," : "", v);
		n += (size_t)snprintf(body + n, sizeof(body) - n, "]}");
	}
	snprintf(body + n, sizeof(body) - n, "]}");
	for (int i = 0; i < 998; i++) { /* a thousand instances by a thousand values: a sixtieth of a minute's */
		char id[16];
		static struct gw_instance many[998];
		snprintf(id, sizeof(id), "x-%d", i);
		assert_int_equal(tnl_map_set_str(T.g->instances, id, &many[i]), 0);
	}
	assert_int_equal(ssm(&OPS, "DescribeInstanceInformation", body), 200);
	assert_in_range(h->looks.full, T.l->now + TD_SEC / 2, T.l->now + 2 * TD_SEC);
	for (int i = 0; i < 998; i++) {
		char id[16];
		snprintf(id, sizeof(id), "x-%d", i);
		tnl_map_del_str(T.g->instances, id);
	}
	exhaust(&h->looks);
	refused_as(&OPS, "DescribeInstanceInformation", "{}", "ThrottlingException");
	refused_as(&OPS, "DescribeSessions", "{\"State\":\"Active\"}", "ThrottlingException");
	assert_int_equal(ssm(&DEV, "DescribeSessions", "{\"State\":\"Active\"}"), 200);
	assert_int_equal(ssm(&OPS, "StartSession", "{\"Target\":\"i-1\"}"), 200);
}

/* What is about no session of the caller's. */
static void test_vain(void **state)
{
	static const char *const ops[] = {"ResumeSession", "OpenSessionLink", "TerminateSession"};
	struct gw_share *user = gw_share_get(T.g, GW_SHARE_USER, "ops"),
			*agent = gw_share_get(T.g, GW_SHARE_INSTANCE, "i-1");
	struct ses s;
	char path[200], token[64];
	int looks = 0;
	session_up(&s);
	snprintf(path, sizeof(path), "/v1/data-channel/%s", s.id);
	for (int i = 0; i < 3; i++) {
		about(ops[i], "nobody", "");
		assert_string_equal(R.type, "DoesNotExistException");
	}
	assert_int_equal(post_channel(&I1, "/v1/data-channel/nobody", create_body, token), 400);
	exhaust(&user->looks);
	exhaust(&agent->looks);
	for (int i = 0; i < 3; i++)
		made_nothing(ops[i], "nobody", "");
	refused_as(&OPS, "GetConnectionStatus", "{\"Target\":\"i-1\"}", "ThrottlingException");
	assert_int_equal(call(&OPS, "kms", "TrentService.GenerateDataKey", "{\"KeyId\":\"abc\"}"), 400);
	assert_string_equal(R.type, "ThrottlingException");
	assert_int_equal(call(&I1, "kms", "TrentService.Decrypt", "{}"), 400);
	assert_string_equal(R.type, "ThrottlingException");
	assert_int_equal(post_channel(&I1, "/v1/data-channel/nobody", create_body, token), 429);
	assert_int_equal(ssm(&DEV, "GetConnectionStatus", "{\"Target\":\"i-2\"}"), 200);
	about("ResumeSession", s.id, ""); /* what is its own costs none of that */
	assert_int_equal(R.status, 200);
	assert_int_equal(post_channel(&I1, path, create_body, token), 201);
	user->looks.full = 0;
	const struct gw_principal p = {.user = gw_keys_user(T.g, "ops")};
	while (gw_rate_look(T.g, &p)) /* while no time goes by */
		looks++;
	assert_int_equal(looks, 6000);
	user->looks.full = 0;
	for (int i = 0; i < 20000; i++) /* the store was asked for all of them at the same time */
		gw_rate_looked(T.g, &p);
	assert_false(gw_rate_may_look(T.g, &p));
	user->looks.full -= 29 * TD_SEC;
	assert_false(gw_rate_may_look(T.g, &p));
	user->looks.full -= 2 * TD_SEC;
	assert_true(gw_rate_may_look(T.g, &p));
	session_done(&s);
}

/* --- the audit log --------------------------------------------------------------------- */
static int count_in(const char *name, const char *what)
{
	static char text[1 << 20];
	char path[128];
	int n = 0;
	snprintf(path, sizeof(path), "%s/%s", T.dir, name);
	FILE *f = fopen(path, "r");
	size_t len = f ? fread(text, 1, sizeof(text) - 1, f) : 0;
	text[len] = 0;
	if (f)
		fclose(f);
	for (const char *p = text; (p = strstr(p, what)) != NULL; p++)
		n++;
	return n;
}

static int begin_keys(void **state)
{
	char path[] = "/tmp/tunneld-rate-XXXXXX", extra[200];
	int fd = mkstemp(path);
	assert_true(fd >= 0 && write(fd, "0123456789abcdef0123456789abcdef", 32) == 32);
	close(fd);
	snprintf(extra, sizeof(extra), "idle_timeout = 1h\nkms_key_id = abc\nkms_key_file = %s", path);
	int rc = begin_with(extra);
	unlink(path);
	return rc;
}

static int begin_audited(void **state)
{
	return begin_with("idle_timeout = 1h\naudit_log = audit.log");
}

static void test_audit_lines(void **state)
{
	td_loop_update(T.l);
	uint64_t first = T.l->now / TD_SEC;
	for (int i = 0; i < 150; i++)
		refused_as(&OPS, "StartSession", "{\"Target\":\"mi-5\"}", "AccessDeniedException");
	int seconds = (int)(T.l->now / TD_SEC - first) + 1;
	refused_as(&DEV, "StartSession", "{\"Target\":\"mi-6\"}", "AccessDeniedException"); /* has lines of its own */
	gw_audit_more(T.g);
	assert_true(seconds < 7); /* else nothing was shown: 150 are 20 in each of more than 7 */
	wait_for(count_in("audit.log", "\"mi-6\"") == 1);
	assert_in_range(count_in("audit.log", "\"mi-5\""), 20, 20 * seconds);
	wait_for(count_in("audit.log", "\"refused-more\",\"user\":\"ops\"") > 0);
}

#define T4(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_bucket),
	    T4(test_resume),
	    T4(test_all_resume),
	    T4(test_links),
	    T4(test_channels),
	    T4(test_listings),
	    cmocka_unit_test_setup_teardown(test_vain, begin_keys, end),
	    cmocka_unit_test_setup_teardown(test_audit_lines, begin_audited, end),
	};
	return cmocka_run_group_tests_name("gateway rates", tests, NULL, NULL);
}
