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
	for (uint64_t last = T.l->now; T.l->now < last + 400 * TD_MS; turn())
		for (int i = 0; i < n; i++)
			while (s[i].client.w &&
			       send_msg(&s[i].client, TNL_MT_INPUT, TNL_PT_OUTPUT, 0, block, sizeof(block)) == 0)
				last = T.l->now;
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
	td_memory_limit(96 * MB);
	for (int i = 0; i < N; i++)
		up(&bad[i], &OPS, &I1, "i-1");
	fill(bad, N);
	assert_true(status_of("counters/limit_user_memory") > 0);
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
	td_memory_limit(td_memory_used() / 7 * 8 + 60 * MB);
	fill(bad, N);
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

#define T3(name) cmocka_unit_test_setup_teardown(name, begin_two, end_two)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T3(test_unread_sessions_of_one_user),
	    T3(test_least_shares_add_up),
	};
	return cmocka_run_group_tests_name("gateway shares", tests, NULL, NULL);
}
