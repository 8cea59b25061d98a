/* Retransmission timeout against a table that was worked out by hand from the
 * rule: RTT 100 ms and variation 0 at the start; RTTVAR = 3/4 RTTVAR + 1/4 |RTT - r|,
 * RTT = 7/8 RTT + 1/8 r, RTO = RTT + max(10 ms, 4 RTTVAR), at most 1 s. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "lib/rto.h"
#include "lib/num.h"

#define US 1000ull
#define MS 1000000ull

static void the_timeout_before_any_sample_is_200_ms(void **state)
{
	(void)state;
	struct tnl_rto r;
	tnl_rto_init(&r);
	assert_int_equal(tnl_rto_value(&r), 200 * MS);
	assert_int_equal(r.srtt, 100 * MS);
	assert_int_equal(r.rttvar, 0);
	assert_int_equal(r.shown, 0);
}

static void what_is_shown_begins_with_the_first_sample(void **state)
{
	(void)state;
	struct tnl_rto r;
	tnl_rto_init(&r);
	tnl_rto_sample(&r, 800 * US);
	assert_int_equal(r.shown, 800 * US);
	tnl_rto_sample(&r, 1600 * US);
	assert_int_equal(r.shown, 900 * US);
	assert_true(r.srtt > 70 * MS); /* the timer stays careful */
}

static void samples_follow_the_table(void **state)
{
	(void)state;
	/* sample, RTT, RTTVAR, RTO, all in microseconds */
	static const struct {
		uint64_t r, rtt, var, rto;
	} t[] = {
	    {100000, 100000, 0, 110000},   /* as assumed: the 10 ms floor */
	    {60000, 95000, 10000, 135000}, /* 1/4 of 40 ms */
	    {95000, 95000, 7500, 125000},      {15000, 85000, 25625, 187500},
	    {885000, 185000, 219218, 1000000}, /* capped: 185 + 876.875 ms */
	    {185000, 185000, 164414, 842656},
	};
	struct tnl_rto r;
	tnl_rto_init(&r);
	for (unsigned i = 0; i < TNL_COUNT(t); i++) {
		tnl_rto_sample(&r, t[i].r * US);
		assert_int_equal(r.srtt / US, t[i].rtt);
		assert_int_equal(r.rttvar / US, t[i].var);
		assert_int_equal(tnl_rto_value(&r) / US, t[i].rto);
	}
}

static void the_floor_is_10_ms_over_the_round_trip(void **state)
{
	(void)state;
	struct tnl_rto r;
	tnl_rto_init(&r);
	for (int i = 0; i < 500; i++)
		tnl_rto_sample(&r, 200 * US);
	assert_in_range(r.srtt, 200 * US - 10, 200 * US + 10);
	assert_in_range(tnl_rto_value(&r), 10200 * US - 100, 10200 * US + 100);
}

static void expiries_double_it_up_to_one_second_and_a_sample_ends_that(void **state)
{
	(void)state;
	struct tnl_rto r;
	tnl_rto_init(&r);
	static const uint64_t want[] = {400, 800, 1000, 1000};
	for (unsigned i = 0; i < 4; i++) {
		tnl_rto_expired(&r);
		assert_int_equal(tnl_rto_value(&r), want[i] * MS);
	}
	for (int i = 0; i < 5000; i++)
		tnl_rto_expired(&r);
	assert_int_equal(tnl_rto_value(&r), 1000 * MS);
	tnl_rto_sample(&r, 100 * MS);
	assert_int_equal(tnl_rto_value(&r), 110 * MS);
}

static void absurd_samples_do_no_lasting_harm(void **state)
{
	(void)state;
	struct tnl_rto r;
	tnl_rto_init(&r);
	tnl_rto_sample(&r, UINT64_MAX);
	assert_int_equal(tnl_rto_value(&r), 1000 * MS);
	for (int i = 0; i < 200; i++)
		tnl_rto_sample(&r, MS);
	assert_true(tnl_rto_value(&r) < 20 * MS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_timeout_before_any_sample_is_200_ms),
	    cmocka_unit_test(what_is_shown_begins_with_the_first_sample),
	    cmocka_unit_test(samples_follow_the_table),
	    cmocka_unit_test(the_floor_is_10_ms_over_the_round_trip),
	    cmocka_unit_test(expiries_double_it_up_to_one_second_and_a_sample_ends_that),
	    cmocka_unit_test(absurd_samples_do_no_lasting_harm),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
