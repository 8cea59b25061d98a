/* Shares of the gateway: what one user's or one instance's sessions take is bounded, and others are served meanwhile.
 */
#include "tests/daemon/gateway/gw_channel.h"

#define MB (1u << 20)

static struct end control2;

static int begin_two(void **state)
{
	begin(state);
	memset(&control2, 0, sizeof(control2));
	open_control(&control2, &I2, "i-2");
	return 0;
}

static int end_two(void **state)
{
	td_memory_limit(96 * MB);
	end_reset(&control2);
	return end(state);
}

static void up(struct ses *s, const struct tnl_sigv4_keys *user, const struct tnl_sigv4_keys *agent, const char *target)
{
	char body[200];
	snprintf(body, sizeof(body), "{\"Target\":\"%s\"}", target);
	memset(s, 0, sizeof(*s));
	ssm(user, "StartSession", body);
	grant(s);
	open_client(&s->client, s->id, s->token, "client-1");
	char path[200], token[64];
	snprintf(path, sizeof(path), "/v1/data-channel/%s", s->id);
	assert_int_equal(post_channel(agent, path, create_body, token), 201);
	snprintf(path, sizeof(path), "/v1/data-channel/%s?role=publish_subscribe", s->id);
	dial(&s->agent, agent, path);
	const struct tnl_open o = {.request_id = RID, .token = token, .client_id = (char *)""};
	send_open(&s->agent, &o);
	wait_for(s->client.n == 1 && s->agent.n == 1);
}

/* The clients send, the agents read nothing, until nothing more is taken of any. */
static void fill(struct ses *s, int n)
{
	static uint8_t block[30000];
	for (int i = 0; i < n; i++)
		td_wslink_pause(s[i].agent.w, true);
	uint64_t sent = 0;
	for (uint64_t last = T.l->now; T.l->now < last + TD_SEC; turn())
		for (int i = 0; i < n; i++)
			while (s[i].client.w &&
			       send_msg(&s[i].client, TNL_MT_INPUT, TNL_PT_OUTPUT, 0, block, sizeof(block)) == 0) {
				last = T.l->now;
				sent += sizeof(block);
				assert_true(sent < 2048ull * MB); /* sockets and all */
			}
}

static void passes(struct ses *s, size_t total)
{
	static uint8_t block[30000];
	uint64_t want = s->agent.bytes + total;
	for (size_t sent = 0; sent < total;) {
		size_t n = TNL_MIN(total - sent, sizeof(block));
		if (send_msg(&s->client, TNL_MT_INPUT, TNL_PT_OUTPUT, 0, block, n) == 0)
			sent += n;
		else
			turn();
	}
	wait_for(s->agent.bytes >= want);
}

static void test_unread_sessions_of_one_user(void **state)
{
	enum { N = 22 };
	static struct ses bad[N];
	struct ses good;
	td_memory_limit(88 * MB);
	for (int i = 0; i < N; i++)
		up(&bad[i], &OPS, &I1, "i-1");
	fill(bad, N);
	assert_true(status_of("counters/limit_user_memory") > 0);
	td_memory_limit(80 * MB); /* beyond doubt */
	assert_true(status_of("user_shares/0/memory_limit_reached"));
	assert_in_range(status_of("user_shares/0/kept"), 12 * MB, 40 * MB);
	assert_int_equal(status_of("user_shares/0/sessions"), N);
	assert_false(td_memory_spent()); /* as much as it has is left */
	refused_as(&OPS, "StartSession", "{\"Target\":\"i-1\"}", "ThrottlingException");
	up(&good, &DEV, &I2, "i-2"); /* the door is open, calls are answered, and it flows */
	passes(&good, 8 * MB);
	session_done(&good);
	up(&good, &DEV, &I2, "i-2");
	session_done(&good);
	assert_int_equal(status_of("counters/sessions_ended_for_memory"), 0);
	for (int i = 0; i < N; i++) /* nothing was lost of what was taken */
		td_wslink_pause(bad[i].agent.w, false);
	wait_for(!status_of("user_shares/0/memory_limit_reached"));
	wait_for(status_of("user_shares/0/kept") < 1 * MB);
	passes(&bad[0], 2 * MB);
	for (int i = 0; i < N; i++)
		session_done(&bad[i]);
}

/* So many that the least that each keeps is more than there is. */
static void test_least_shares_add_up(void **state)
{
	enum { N = 48 };
	static struct ses bad[N];
	struct ses good;
	for (int i = 0; i < N; i++)
		up(&bad[i], &OPS, &I1, "i-1");
	up(&good, &DEV, &I2, "i-2");
	td_memory_limit(td_memory_used() / 7 * 8 + 20 * MB);
	fill(bad, N);
	td_memory_limit((td_memory_used() - 8 * MB) / 7 * 8); /* beyond doubt, whatever buffers go meanwhile */
	assert_true(td_memory_spent());
	assert_int_equal(status_of("counters/sessions_ended_for_memory"), 0); /* not yet: it may be read */
	tnl_list_foreach(it, &T.g->active) {
		struct gw_session *s = tnl_container_of(it, struct gw_session, by_age);
		s->ends[GW_AGENT].waits_since -= 10 * TD_SEC;
	}
	td_soon_do(&T.g->make_room);
	wait_for(status_of("counters/sessions_ended_for_memory") > 0);
	wait_for(!td_memory_spent());
	assert_true(status_of("sessions_active") > N / 2); /* no more than needed */
	passes(&good, 2 * MB);
	session_done(&good);
	int told = 0; /* the ends that read are told why */
	for (int i = 0; i < N; i++)
		for (int k = 0; k < bad[i].client.n; k++)
			told += bad[i].client.f[k].type == TNL_MT_CHANNEL_CLOSED &&
				strstr(bad[i].client.f[k].text, "short of memory");
	assert_int_equal(told, status_of("counters/sessions_ended_for_memory"));
	for (int i = 0; i < N; i++)
		session_done(&bad[i]);
}

/* --- quotas ---------------------------------------------------------------------------- */
static void reload(const char *ops, const char *i2)
{
	char text[1200], why[200];
	snprintf(text, sizeof(text),
		 "[user ops]\naccess_key_id = AKIDOPS\nsecret_access_key = ops-secret\ntargets = i-*\n%s\n"
		 "[user dev]\naccess_key_id = AKIDDEV\nsecret_access_key = dev-secret\ntargets = i-2*\n"
		 "[instance i-1]\naccess_key_id = AKIDI1\nsecret_access_key = i1-secret\n"
		 "[instance i-2]\naccess_key_id = AKIDI2\nsecret_access_key = i2-secret\n%s\n",
		 ops, i2);
	struct td_config *c = config(text);
	assert_int_equal(td_gateway_reload(T.g, c, why, sizeof(why)), 0);
	td_config_free(T.cfg);
	T.cfg = c;
}

static void starts(const struct tnl_sigv4_keys *user, const char *target, char id[150])
{
	char body[100];
	snprintf(body, sizeof(body), "{\"Target\":\"%s\"}", target);
	assert_int_equal(ssm(user, "StartSession", body), 200);
	if (id)
		snprintf(id, 150, "%s", tnl_json_get_str(R.json, "SessionId"));
}

#define throttled(user, target, reason)                                                                                \
	do {                                                                                                           \
		refused_as(user, "StartSession", "{\"Target\":\"" target "\"}", "ThrottlingException");                \
		assert_non_null(strstr(R.body, reason));                                                               \
	} while (0)

static void test_max_sessions(void **state)
{
	struct ses s = {0};
	reload("max_sessions = 2", "max_sessions = 1");
	starts(&OPS, "i-1", s.id);
	starts(&OPS, "i-1", NULL);
	throttled(&OPS, "i-1", "user ops is at its limit of 2 sessions");
	starts(&DEV, "i-2", NULL); /* not the others' limit */
	throttled(&DEV, "i-2", "instance i-2 is at its limit of 1 sessions");
	terminate(&s);
	starts(&OPS, "i-1", NULL); /* one that has ended counts no more */
	throttled(&OPS, "i-1", "limit of 2");
	assert_int_equal(status_of("counters/limit_user_sessions"), 2);
	assert_int_equal(status_of("counters/limit_instance_sessions"), 1);
	assert_int_equal(status_of("refused/ThrottlingException"), 3); /* by kind */
	reload("max_sessions = 3", ""); /* a reload takes on the numbers, and what there is still counts */
	starts(&OPS, "i-1", NULL);
	throttled(&OPS, "i-1", "limit of 3");
	starts(&DEV, "i-2", NULL);
}

static void test_sessions_per_minute(void **state)
{
	reload("sessions_per_minute = 3", "sessions_per_minute = 1");
	for (int i = 0; i < 3; i++)
		starts(&OPS, "i-1", NULL);
	throttled(&OPS, "i-1", "user ops is at its limit of 3 sessions per minute");
	starts(&DEV, "i-2", NULL);
	throttled(&DEV, "i-2", "instance i-2 is at its limit of 1 sessions per minute");
	assert_int_equal(status_of("counters/limit_user_rate"), 1);
	assert_int_equal(status_of("counters/limit_instance_rate"), 1);
	gw_share_get(T.g, GW_SHARE_USER, "ops")->rate_at -= 20 * TD_SEC; /* as if that had gone by */
	starts(&OPS, "i-1", NULL);
	throttled(&OPS, "i-1", "per minute");
}

static int begin_eight(void **state)
{
	begin_with("max_sessions = 8");
	memset(&control2, 0, sizeof(control2));
	open_control(&control2, &I2, "i-2");
	return 0;
}

/* Nobody set a number: one user still cannot take all places. */
static void test_fair_share(void **state)
{
	for (int i = 0; i < 6; i++)
		starts(&OPS, "i-1", NULL);
	throttled(&OPS, "i-1", "few sessions are left");
	starts(&DEV, "i-2", NULL);
	throttled(&DEV, "i-2", "few sessions are left");
	assert_int_equal(status_of("counters/limit_fair_share"), 2);
	reload("max_sessions = 8", "");
	starts(&OPS, "i-1", NULL); /* an own number is one */
	throttled(&OPS, "i-1", "the gateway is at its limit of 8 sessions");
	assert_int_equal(status_of("counters/limit_sessions"), 1);
}

static void test_bandwidth(void **state)
{
	struct ses slow, slow2, good;
	reload("bandwidth = 1M", "");
	up(&slow, &OPS, &I1, "i-1");
	up(&slow2, &OPS, &I1, "i-1");
	up(&good, &DEV, &I2, "i-2");
	uint64_t began = T.l->now;
	passes(&slow, MB / 2);
	passes(&slow2, MB);
	uint64_t took = T.l->now - began;
	assert_true(took > 1200 * TD_MS); /* both together: 1.5 MB less what may come at once */
	assert_true(status_of("counters/limit_user_bandwidth") > 0);
	assert_int_equal(status_of("counters/limit_instance_bandwidth"), 0);
	passes(&slow, 100000); /* in debt again */
	passes(&good, 8 * MB);
	assert_int_equal(slow.client.closed || slow2.client.closed, 0);
	reload("", "");
	passes(&slow, 8 * MB);
	session_done(&slow);
	session_done(&slow2);
	session_done(&good);
}

#define T3(name) cmocka_unit_test_setup_teardown(name, begin_two, end_two)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T3(test_unread_sessions_of_one_user),
	    T3(test_least_shares_add_up),
	    T3(test_max_sessions),
	    T3(test_sessions_per_minute),
	    T3(test_bandwidth),
	    cmocka_unit_test_setup_teardown(test_fair_share, begin_eight, end_two),
	};
	return cmocka_run_group_tests_name("gateway shares", tests, NULL, NULL);
}
