/* probe: the whole way is tested without a local program, counts nowhere, and keeps no session alive. */
#include "tests/daemon/forwarder/fwd_util.h"

#define PROBED ONE "probe = 1s\n"

static void result_of(int tunnel, char out[32], bool *certain)
{
	struct tnl_json *j = forwarder_status();
	const struct tnl_json *p = tnl_json_get(tunnel_of(j, tunnel), "probe");
	const char *r = tnl_json_get_str(p, "result");
	snprintf(out, 32, "%s", r ? r : "");
	*certain = tnl_json_bool(tnl_json_get(p, "certain"), false);
	tnl_json_free(j);
}

static bool result_is(int tunnel, const char *word)
{
	char now[32];
	bool certain;
	result_of(tunnel, now, &certain);
	return strcmp(now, word) == 0;
}

static double metric(const char *line)
{
	struct tnl_metrics m;
	struct tnl_buf b;
	double v = -1;
	tnl_buf_init(&b, 1 << 20);
	tnl_metrics_init(&m, &b, false);
	td_forwarder_metrics(W.f, &m);
	tnl_metrics_end(&m);
	const char *at = strstr(tnl_buf_str(&b), line);
	if (at)
		v = strtod(at + strlen(line), NULL);
	tnl_buf_fini(&b);
	return v;
}

static int ready(const char *word)
{
	char why[512] = "";
	int r = td_forwarder_ready(W.f, "one", why, sizeof(why));
	if (word && !strstr(why, word))
		fail_msg("%s", why);
	return r;
}

static double runs(const char *result)
{
	char line[120];
	snprintf(line, sizeof(line), "tunneld_tunnel_probe_runs_total{tunnel=\"one\",result=\"%s\"} ", result);
	return metric(line);
}

static void close_targets(void)
{
	for (int i = 0; i < W.targets; i++) {
		if (W.target[i] >= 0)
			close(W.target[i]);
		W.target[i] = -1;
	}
	W.targets = 0;
}

static void a_service_that_is_there_is_found_and_nothing_counts(void **state)
{
	char r[32];
	bool certain;
	forwarder_up(PROBED "max_connections = 1\n");
	assert_true(result_is(0, "none"));
	assert_int_equal(ready(NULL), 1);
	until_(result_is(0, "ok"));
	result_of(0, r, &certain);
	assert_true(certain);
	assert_int_equal(W.targets, 1);
	close_targets();
	assert_int_equal(ready(NULL), 1);
	assert_int_equal(of_tunnel(0, "accepted"), 0);
	assert_int_equal(of_tunnel(0, "connections"), 0);
	assert_int_equal(of_tunnel(0, "bytes_in"), 0);
	assert_true(metric("tunneld_tunnel_probe_up{tunnel=\"one\"} ") == 1);
	assert_true(metric("tunneld_tunnel_connect_seconds_count{tunnel=\"one\"} ") == 0);
	assert_true(metric("tunneld_tunnel_last_success_timestamp_seconds{tunnel=\"one\"} ") == 0);
	assert_true(metric("tunneld_tunnel_probe_last_success_timestamp_seconds{tunnel=\"one\"} ") > 1e9);
	/* The session was for the probe alone. */
	until_(gateway_sessions() == 0 && tunnel_is(0, "idle"));
	until_(runs("ok") >= 2);
	close_targets();
}

static void a_service_that_is_away_makes_the_tunnel_unready(void **state)
{
	struct td_addr a;
	char why[128];
	td_listener_addr(W.l, &a);
	td_listener_free(W.l);
	forwarder_up(PROBED "open = start\n");
	until_(result_is(0, "refused"));
	assert_true(tunnel_is(0, "up")); /* the session is fine */
	assert_int_equal(ready("the probe failed: could not connect"), 0);
	assert_true(runs("refused") >= 1);
	assert_true(metric("tunneld_tunnel_connections_failed_total{tunnel=\"one\",reason=\"refused\"} ") == 0);
	assert_int_equal(of_tunnel(0, "failed"), 0);
	W.l = td_listen(T, &a, on_target, NULL, why, sizeof(why));
	until_(result_is(0, "ok"));
	assert_int_equal(ready(NULL), 1);
	close_targets();
	until_(runs("ok") >= 2);
	assert_int_equal(gateway_sessions(), 1); /* open = start keeps it */
	close_targets();
}

static void no_way_to_the_target_is_a_result_as_well(void **state)
{
	td_agent_free(W.a);
	W.a = NULL;
	until_(!instance_there());
	forwarder_up(PROBED);
	until_(result_is(0, "session"));
	assert_int_equal(ready("TargetNotConnected"), 0);
	assert_true(runs("session") >= 1);
}

static void a_session_in_use_serves_probes_and_stays(void **state)
{
	forwarder_up(PROBED "idle_timeout = 2s\n");
	int fd = served(0);
	until_(runs("ok") >= 2);
	assert_int_equal(gateway_sessions(), 1); /* on the session that is there, which stays */
	talk(fd, 0);
	close(fd);
	close_targets();
	for_ms(600);
	assert_int_equal(gateway_sessions(), 1); /* it was in use lately */
	double before = runs("ok");
	until_(gateway_sessions() == 0);
	assert_true(runs("ok") > before);
	close_targets();
}

static void what_ends_takes_the_probe_along(void **state)
{
	char why[300];
	/* In the middle of one: the service accepts, but the agent's answer is not awaited. */
	forwarder_up(PROBED);
	until_(W.targets == 1);
	assert_int_equal(td_forwarder_close(W.f, "one", why, sizeof(why)), 0);
	until_(gateway_sessions() == 0);
	double before = runs("ok");
	for_ms(1500);
	assert_true(runs("ok") == before);
	assert_int_equal(td_forwarder_open(W.f, "one", why, sizeof(why)), 0);
	until_(runs("ok") > before);
	assert_int_equal(reload(ONE), 0); /* without probe */
	for_ms(50);
	assert_int_equal(reload(PROBED), 0);
	close_targets();
	until_(W.targets == 1);
	td_forwarder_drain(W.f, 5 * TD_SEC, is_done, NULL);
	until_(W.done == 1);
	forwarder_gone();
	close_targets();
	forwarder_up(PROBED);
	until_(W.targets == 1);
	forwarder_gone(); /* at once */
}

/* One at a time for each tunnel, however long it takes. */
static void a_slow_one_is_the_only_one(void **state)
{
	forwarder_up(PROBED);
	td_listener_pause(W.l, true); /* accepted by the kernel: it stands, and nobody closes it */
	until_(result_is(0, "ok"));
	for_ms(2500); /* it waits for the service's end, for 5 s */
	assert_true(runs("ok") == 1);
	td_listener_pause(W.l, false);
	until_(W.targets == 1);
	close_targets();
	until_(runs("ok") == 2);
	close_targets();
}

static void one_for_each_connection_and_pools(void **state)
{
	forwarder_up("[tunnel one]\nlisten = 127.0.0.1:0\nprobe = 1s\nsession = per-connection\n"
		     "[tunnel two]\nlisten = 127.0.0.1:0\nprobe = 1s\nsession = pool 3\n");
	until_(result_is(0, "ok") && result_is(1, "ok"));
	close_targets();
	until_(gateway_sessions() == 0);
	int fd = connect_to(port_of(1));
	for_ms(2500);
	assert_null(strchr(loads(1), ' ')); /* a probe is no reason for one session more */
	close(fd);
	close_targets();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(a_service_that_is_there_is_found_and_nothing_counts),
	    TEST(a_service_that_is_away_makes_the_tunnel_unready),
	    TEST(no_way_to_the_target_is_a_result_as_well),
	    TEST(a_session_in_use_serves_probes_and_stays),
	    TEST(what_ends_takes_the_probe_along),
	    TEST(a_slow_one_is_the_only_one),
	    TEST(one_for_each_connection_and_pools),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
