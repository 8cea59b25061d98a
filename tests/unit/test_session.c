/* Sessions as their users see them: modes, half-close, reset, back-pressure, limits. */
#include "tests/unit/sess_util.h"

static void mux_echo(void **state)
{
	struct pair p;
	struct tnl_session_config cc = pair_config(false), ac = pair_config(true);
	(void)state;
	pair_init(&p, &cc, &ac);
	p.a.echo = true;
	struct rec *early = pair_open(&p); /* before READY: queued */
	rec_puts(early, "early");
	pair_up(&p);
	assert_int_equal(p.c.ready, 1);
	assert_int_equal(p.a.ready, 1);
	const struct tnl_session_info *i = tnl_session_info(p.c.s);
	assert_int_equal(i->mode, TNL_MODE_MUX);
	assert_true(i->own_peer && i->half_close);
	assert_int_equal(i->smux_version, 2);
	assert_int_equal(i->max_payload, 32768);
	rec_expect(early, "early");
	struct rec *r = pair_open(&p);
	rec_fill(r, 3000000, 7);
	pair_run(&p);
	rec_expect_fill(r, 3000000, 7);
	rec_expect_fill(&p.a.rec[1], 3000000, 7);
	assert_int_equal(tnl_stream_id(early->st), 3);
	assert_int_equal(tnl_stream_id(r->st), 5);
	pair_fini(&p);
	assert_int_equal(tnl_alloc_live(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(mux_echo),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
