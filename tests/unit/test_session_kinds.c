/* Streams that say what they are for: told when they are connected, echo; and peers that do not know of it. */
#include "tests/unit/raw_util.h"

static struct {
	int connected, asked;
	bool reset_at_once;
} seen;

static void on_connected(void *ctx, struct tnl_stream *st)
{
	seen.connected++;
	if (seen.reset_at_once)
		tnl_stream_reset(st, TNL_RESET_SHUTDOWN, 0);
}

static void on_open(void *ctx, struct tnl_stream *st)
{
	seen.asked = (int)tnl_stream_asked(st);
	u_open(ctx, st);
}

static struct tnl_session_cb cb;
static bool agent_carries; /* datagrams */

static void pair_of_kinds(struct pair *p, struct tnl_session_config *cc)
{
	struct tnl_session_config ac = agent();
	ac.udp = agent_carries;
	memset(&seen, 0, sizeof(seen));
	seen.asked = -1;
	cb = end_cb;
	cb.on_connected = on_connected;
	cb.on_open = on_open;
	cc->cb = ac.cb = &cb;
	pair_init(p, cc, &ac);
	pair_up(p);
	pair_advance(p, 60 * MS);
}

static void a_connection_that_stands_is_told(void **state)
{
	struct pair p;
	struct tnl_session_config cc = client();
	pair_of_kinds(&p, &cc);
	assert_true(tnl_session_info(p.c.s)->opens);
	p.a.accept = false;
	struct rec *r = pair_open(&p);
	assert_true(tnl_stream_ask(r->st, TNL_KIND_TOLD));
	pair_advance(&p, SEC);
	assert_int_equal(seen.asked, TNL_KIND_TOLD);
	assert_int_equal(seen.connected, 0);		    /* it is being dialed */
	assert_false(tnl_stream_ask(r->st, TNL_KIND_ECHO)); /* too late */
	tnl_stream_connected(p.a.rec[0].st, p.now);
	pair_advance(&p, SEC);
	assert_int_equal(seen.connected, 1);
	rec_puts(r, "to");
	rec_puts(&p.a.rec[0], "fro");
	pair_run(&p);
	rec_expect(r, "fro");
	rec_expect(&p.a.rec[0], "to");
	pair_fini(&p);
}

static void one_that_fails_is_not(void **state)
{
	struct pair p;
	struct tnl_session_config cc = client();
	pair_of_kinds(&p, &cc);
	p.a.accept = false;
	struct rec *r = pair_open(&p);
	assert_true(tnl_stream_ask(r->st, TNL_KIND_TOLD));
	pair_run(&p);
	tnl_stream_reset_because(p.a.rec[0].st, TNL_RESET_CONNECT, "no", p.now);
	p.a.rec[0].reset = true;
	pair_run(&p);
	assert_int_equal(seen.connected, 0);
	assert_true(r->reset);
	assert_int_equal(r->reason, TNL_RESET_CONNECT);
	pair_fini(&p);
}

static void plain_streams_are_as_before(void **state)
{
	struct pair p;
	struct tnl_session_config cc = client();
	pair_of_kinds(&p, &cc);
	pair_open(&p);
	pair_run(&p);
	assert_int_equal(seen.asked, TNL_KIND_PLAIN);
	assert_int_equal(seen.connected, 0);
	pair_fini(&p);
}

static void both_may_go_in_the_callback(void **state)
{
	struct pair p;
	struct tnl_session_config cc = client();
	pair_of_kinds(&p, &cc);
	seen.reset_at_once = true;
	struct rec *r = pair_open(&p);
	assert_true(tnl_stream_ask(r->st, TNL_KIND_ECHO));
	pair_run(&p);
	assert_int_equal(seen.asked, TNL_KIND_ECHO);
	assert_int_equal(seen.connected, 1);
	assert_true(p.a.rec[0].reset);
	pair_fini(&p);
}

static void who_does_not_know_of_it_is_not_asked(void **state)
{
	struct pair p;
	struct tnl_session_config cc = client();
	cc.offer_capabilities = false; /* as a stock end */
	pair_of_kinds(&p, &cc);
	assert_false(tnl_session_info(p.c.s)->opens);
	struct rec *r = pair_open(&p);
	assert_false(tnl_stream_ask(r->st, TNL_KIND_TOLD));
	pair_advance(&p, SEC);
	assert_int_equal(seen.asked, TNL_KIND_PLAIN);
	pair_fini(&p);
}

/* An end that never agreed, and one that agreed and says what there is not. */
static void frames_that_are_none(void **state)
{
	static const char own[] =
	    "{\"ClientVersion\":\"1.2.764.0\",\"ProcessedClientActions\":[{\"ActionType\":\"SessionType\",\"ActionStatus\":1,"
	    "\"ActionResult\":null,\"Error\":\"\"},{\"ActionType\":\"TunneldCapabilities\",\"ActionStatus\":1,\"ActionResult\":"
	    "{\"Version\":1,\"MaxPayload\":32768,\"Smux\":2,\"HalfClose\":true,\"Digest\":true,\"Encrypt\":true,\"Opens\":true},"
	    "\"Error\":\"\"}],\"Errors\":null}";
	uint8_t b[32];
	for (int i = 0; i < 4; i++) {
		struct raw r;
		struct tnl_session_config c = agent();
		raw_agent(&r, &c, i == 0 ? OWN_RESPONSE : own);
		raw_send(&r, TNL_PT_OUTPUT, b, raw_frame(b, 2, TNL_SMUX_OPEN, 3, i == 1 ? "\3\0\0\0" : "\1\0\0\0", 4));
		assert_int_equal(tnl_session_state(r.e.s), i < 2 ? TNL_SS_CLOSED : TNL_SS_READY);
		if (i == 3) { /* the same again is ignored, as a SYN is */
			raw_send(&r, TNL_PT_OUTPUT, b, raw_frame(b, 2, TNL_SMUX_OPEN, 3, "\1\0\0\0", 4));
			assert_int_equal(tnl_session_state(r.e.s), TNL_SS_READY);
			assert_int_equal(r.e.nrec, 1);
		}
		raw_fini(&r);
	}
}

static void datagrams_where_both_carry_them(void **state)
{
	for (int both = 0; both < 4; both++) {
		struct pair p;
		struct tnl_session_config cc = client();
		cc.udp = both & 1;
		agent_carries = both & 2;
		pair_of_kinds(&p, &cc);
		if (both == 1) { /* a client that wants them has no use for another agent */
			assert_int_equal(p.c.closed, 1);
			assert_non_null(strstr(p.c.text, "carries no datagrams"));
			pair_fini(&p);
			continue;
		}
		struct rec *r = pair_open(&p);
		assert_int_equal(tnl_session_info(p.c.s)->udp, both == 3);
		assert_int_equal(tnl_stream_ask(r->st, TNL_KIND_UDP), both == 3);
		pair_advance(&p, SEC);
		assert_int_equal(seen.asked, both == 3 ? TNL_KIND_UDP : TNL_KIND_PLAIN);
		assert_int_equal(seen.connected, both == 3);
		pair_fini(&p);
	}
	agent_carries = false;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(datagrams_where_both_carry_them),
	    cmocka_unit_test(a_connection_that_stands_is_told),
	    cmocka_unit_test(one_that_fails_is_not),
	    cmocka_unit_test(plain_streams_are_as_before),
	    cmocka_unit_test(both_may_go_in_the_callback),
	    cmocka_unit_test(who_does_not_know_of_it_is_not_asked),
	    cmocka_unit_test(frames_that_are_none),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
