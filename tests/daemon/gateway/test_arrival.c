/* StartSession while the gateway has just started and does not know yet who is connected. */
#include "tests/daemon/gateway/gw_util.h"

static struct end control;
static struct reply first, second;

static int begin_with(const char *extra)
{
	memset(&control, 0, sizeof(control));
	test_begin(extra);
	T.young = true;
	gateway_stop();
	gateway_start();
	return 0;
}

static int begin(void **state)
{
	return begin_with("");
}

static int end(void **state)
{
	end_reset(&control);
	reply_clear(&first);
	reply_clear(&second);
	return test_end(state);
}

static void start_begin(struct reply *r, const struct tnl_sigv4_keys *k, const char *target)
{
	char body[200];
	snprintf(body, sizeof(body), "{\"Target\":\"%s\"}", target);
	call_begin(r, k, "ssm", "AmazonSSM.StartSession", body);
}

static struct gw_call *waiting_call(int k)
{
	tnl_list_foreach(it, &T.g->calls) {
		struct gw_call *c = tnl_container_of(it, struct gw_call, node);
		if (c->again && k-- == 0)
			return c;
	}
	return NULL;
}

static int waiting(void)
{
	int n = 0;
	while (waiting_call(n))
		n++;
	return n;
}

static void refused(struct reply *r, int status, const char *type)
{
	wait_for(r->done);
	assert_int_equal(r->err, 0);
	assert_int_equal(r->status, status);
	assert_string_equal(r->type, type);
}

/* Calls that wait still are cut off with the gateway. */
static void stop_and_cut(struct reply *r)
{
	gateway_stop();
	wait_for(r->done);
	assert_int_not_equal(r->err, 0);
}

/* How long the only call that waits may go on. */
static uint64_t time_left(void)
{
	struct gw_call *c = waiting_call(0);
	assert_non_null(c);
	return c->until > T.l->now ? c->until - T.l->now : 0;
}

static void test_goes_on_when_it_comes(void **state)
{
	start_begin(&first, &OPS, "i-1");
	wait_for(waiting() == 1);
	assert_in_range(time_left(), 1, 3 * TD_SEC);
	open_control(&control, &I1, "i-1");
	wait_for(first.done);
	assert_int_equal(first.status, 200);
	assert_non_null(tnl_json_get_str(first.json, "TokenValue"));
	wait_for(control.n == 1);
	assert_int_equal(control.f[0].type, TNL_MT_INTERACTIVE_SHELL);
	assert_int_equal(status_of("sessions_active"), 1);
	assert_int_equal(waiting(), 0);
}

static void test_another_instance_comes(void **state)
{
	start_begin(&first, &OPS, "i-2");
	wait_for(waiting() == 1);
	open_control(&control, &I1, "i-1");
	wait_for(!T.g->arrival.soon.pending);
	assert_int_equal(waiting(), 1);
	assert_false(first.done);
	assert_int_equal(ssm(&OPS, "StartSession", "{\"Target\":\"i-1\"}"), 200); /* the others are not held up */
	assert_int_equal(waiting(), 1);
	stop_and_cut(&first);
}

/* One that a record names was here before: it is waited for longer, and for a longer time. */
static void test_known_before(void **state)
{
	struct ses s;
	open_control(&control, &I1, "i-1");
	session_start(&s, "i-1");
	char body[200];
	snprintf(body, sizeof(body), "{\"SessionId\":\"%s\"}", s.id);
	for (int over = 0; over < 2; over++) {
		gateway_stop();
		wait_for(control.closed);
		gateway_start();
		T.g->arrival.unknown_until = 0;
		start_begin(&first, &OPS, "i-1");
		start_begin(&second, &OPS, "i-2"); /* no record: for that the time is over */
		refused(&second, 400, "TargetNotConnected");
		wait_for(waiting() == 1);
		assert_in_range(time_left(), 4 * TD_SEC, 10 * TD_SEC);
		open_control(&control, &I1, "i-1");
		wait_for(first.done);
		assert_int_equal(first.status, 200);
		if (!over) /* the record of an ended session says it as well */
			assert_int_equal(ssm(&OPS, "TerminateSession", body), 200);
	}
	session_done(&s);
}

static void test_bound(void **state)
{
	T.g->arrival.unknown_wait = 60 * TD_MS;
	td_loop_update(T.l);
	uint64_t start = T.l->now;
	start_begin(&first, &OPS, "i-1");
	start_begin(&second, &OPS, "i-999"); /* in no section: the same answer, after the same time */
	refused(&first, 400, "TargetNotConnected");
	assert_true(T.l->now - start >= 60 * TD_MS);
	refused(&second, 400, "TargetNotConnected");
	assert_true(T.l->now - start >= 60 * TD_MS);
	assert_int_equal(waiting(), 0);
	assert_true(tnl_list_empty(&T.g->calls));
}

static void test_not_for_ever(void **state)
{
	const uint64_t hour = 3600 * TD_SEC;
	T.g->arrival.unknown_wait = T.g->arrival.known_wait = hour;
	start_begin(&first, &OPS, "i-1");
	wait_for(waiting() == 1);
	assert_in_range(time_left(), 1, 15 * TD_SEC); /* no longer than the time after the start */
	T.g->arrival.unknown_until = T.l->now;
	refused_as(&OPS, "StartSession", "{\"Target\":\"i-2\"}", "TargetNotConnected");
	assert_int_equal(waiting(), 1);
	T.g->arrival.unknown_until = T.l->now + hour;
	open_control(&control, &I2, "i-2"); /* who came and went is away */
	end_reset(&control);
	wait_for(!status_of("instances/0/connected") && !status_of("instances/1/connected"));
	refused_as(&OPS, "StartSession", "{\"Target\":\"i-2\"}", "TargetNotConnected");
	assert_int_equal(waiting(), 1);
	stop_and_cut(&first);
}

/* What would be refused anyway is refused at once. */
static void test_refused_at_once(void **state)
{
	T.g->arrival.unknown_wait = 3600 * TD_SEC;
	refused_as(&DEV, "StartSession", "{\"Target\":\"i-1\"}", "AccessDeniedException");
	refused_as(&OPS, "StartSession", "{\"Target\":\"mi-1\"}", "AccessDeniedException");
	refused_as(&OPS, "StartSession", "{}", "ValidationException");
	refused_as(&OPS, "TerminateSession", "{\"SessionId\":\"ops-nosuch\"}", "DoesNotExistException");
	assert_int_equal(waiting(), 0);
}

/* And what is wrong with it comes out as ever, late or not. */
static void test_refused_later(void **state)
{
	call_begin(&first, &OPS, "ssm", "AmazonSSM.StartSession",
		   "{\"Target\":\"i-1\",\"DocumentName\":\"AWS-RunShellScript\"}");
	wait_for(waiting() == 1);
	open_control(&control, &I1, "i-1");
	refused(&first, 400, "InvalidDocument");
	assert_int_equal(status_of("sessions_active"), 0);
	assert_true(tnl_list_empty(&T.g->calls));
}

static void test_caller_goes(void **state)
{
	const char *const h[][2] = {{"X-Amz-Target", "AmazonSSM.StartSession"}};
	const struct td_http_client_opts o = {.tls = T.tls};
	char url[80];
	snprintf(url, sizeof(url), "%s/", T.base);
	struct td_http_client *c = td_http_client_signed(T.l, "POST", url, h, 1, "{\"Target\":\"i-1\"}", 16, &OPS,
							 "eu-west-1", "ssm", &o, on_reply, &first);
	wait_for(waiting() == 1);
	td_http_client_cancel(c);
	wait_for(waiting() == 0);
	assert_true(tnl_list_empty(&T.g->calls));
	open_control(&control, &I1, "i-1");
	wait_for(!T.g->arrival.soon.pending);
	assert_int_equal(status_of("counters/sessions_started"), 0);
	assert_false(first.done);
}

static void reload(const char *sections)
{
	char why[300];
	struct td_config *c = config(sections);
	assert_int_equal(td_gateway_reload(T.g, c, why, sizeof(why)), 0);
	td_config_free(T.cfg);
	T.cfg = c;
}

#define I1_SECTION "[instance i-1]\naccess_key_id = AKIDI1\nsecret_access_key = i1-secret\n"
#define USER(name, key, targets)                                                                                       \
	"[user " name "]\naccess_key_id = " key "\nsecret_access_key = " name "-secret\ntargets = " targets "\n"

static void test_reload(void **state)
{
	T.g->arrival.unknown_wait = 3600 * TD_SEC;
	start_begin(&first, &OPS, "i-1");
	start_begin(&second, &DEV, "i-2");
	wait_for(waiting() == 2);
	reload(USER("ops", "AKIDOPS", "i-*") I1_SECTION); /* dev is gone */
	refused(&second, 400, "AccessDeniedException");
	assert_int_equal(waiting(), 1);
	start_begin(&second, &OPS, "i-2"); /* no longer configured, as if it had never been */
	wait_for(waiting() == 2);
	reload(USER("ops", "AKIDOPS", "i-2") I1_SECTION); /* may not reach i-1 any more */
	refused(&first, 400, "AccessDeniedException");
	assert_int_equal(waiting(), 1);
	waiting_call(0)->until = T.l->now;
	gw_arrival_recheck(T.g);
	refused(&second, 400, "TargetNotConnected");
	start_begin(&second, &OPS, "i-2");
	wait_for(waiting() == 1);
	reload(USER("ops", "AKIDNEW", "i-2") I1_SECTION); /* the key that it was signed with has gone */
	refused(&second, 400, "UnrecognizedClientException");
	assert_true(tnl_list_empty(&T.g->calls));
}

/* Neither user nor instance are touched: the call goes on with the new configuration. */
static void test_reload_keeps(void **state)
{
	start_begin(&first, &OPS, "i-1");
	wait_for(waiting() == 1);
	uint64_t until = waiting_call(0)->until;
	reload(NULL);
	assert_int_equal(waiting(), 1);
	assert_int_equal(waiting_call(0)->until, until);
	open_control(&control, &I1, "i-1");
	wait_for(first.done);
	assert_int_equal(first.status, 200);
}

static bool drained;
static void on_drained(void *ctx)
{
	drained = true;
}

static void test_drain(void **state)
{
	start_begin(&first, &OPS, "i-1");
	wait_for(waiting() == 1);
	drained = false;
	td_gateway_drain(T.g, 10 * TD_SEC, on_drained, NULL);
	assert_int_equal(waiting(), 0);
	refused(&first, 503, "ServiceUnavailableException");
	wait_for(drained);
}

static void test_freed(void **state)
{
	start_begin(&first, &OPS, "i-1");
	start_begin(&second, &OPS, "i-999");
	wait_for(waiting() == 2);
	stop_and_cut(&first);
	wait_for(second.done);
	assert_int_not_equal(second.err, 0);
}

static void test_many(void **state)
{
	static struct reply r[GW_ARRIVAL_CALLS];
	T.g->arrival.unknown_wait = 3600 * TD_SEC;
	for (unsigned i = 0; i < GW_ARRIVAL_CALLS; i++)
		start_begin(&r[i], &OPS, i & 1 ? "i-1" : "i-999");
	wait_for(waiting() == (int)GW_ARRIVAL_CALLS);
	refused_as(&OPS, "StartSession", "{\"Target\":\"i-1\"}", "TargetNotConnected");
	start_begin(&second, &DEV, "i-2"); /* another user's is not in the way */
	wait_for(waiting() == (int)GW_ARRIVAL_CALLS + 1);
	open_control(&control, &I1, "i-1");
	for (unsigned i = 1; i < GW_ARRIVAL_CALLS; i += 2) {
		wait_for(r[i].done);
		assert_int_equal(r[i].status, 200);
	}
	assert_int_equal(status_of("sessions_active"), GW_ARRIVAL_CALLS / 2);
	assert_int_equal(waiting(), GW_ARRIVAL_CALLS / 2 + 1);
	gateway_stop();
	for (unsigned i = 0; i < GW_ARRIVAL_CALLS; i++) {
		wait_for(r[i].done);
		reply_clear(&r[i]);
	}
	wait_for(second.done);
}

int main(void)
{
#define T2(name) cmocka_unit_test_setup_teardown(name, begin, end)
	const struct CMUnitTest tests[] = {
	    T2(test_goes_on_when_it_comes),
	    T2(test_another_instance_comes),
	    T2(test_known_before),
	    T2(test_bound),
	    T2(test_not_for_ever),
	    T2(test_refused_at_once),
	    T2(test_refused_later),
	    T2(test_caller_goes),
	    T2(test_reload),
	    T2(test_reload_keeps),
	    T2(test_drain),
	    T2(test_freed),
	    T2(test_many),
	};
	return cmocka_run_group_tests_name("gateway arrivals", tests, NULL, NULL);
}
