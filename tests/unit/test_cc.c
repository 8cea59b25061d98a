/* The congestion window against a model of a link: rate, delay, an endless
 * queue in front of it, and processes that the scheduler wakes late.  Virtual
 * time, no chance: the same numbers in every run. */
#include "tests/unit/cc_util.h"

static void a_ping_beside_a_bulk_transfer_stays_fast(void **state)
{
	(void)state;
	static const double rates[] = {1.25e5, 1.25e6, 1.25e7, 6e7};
	for (unsigned i = 0; i < 4; i++) {
		struct world w;
		world_open(&w, rates[i], 25 * MS);
		w.ping_ms = 20;
		measure(&w, 2 * SEC);
		struct result r = measure(&w, 5 * SEC);
		/* At 1 Mbit/s one message alone takes 9 ms. */
		above(r.util, i ? 0.92 : 0.85);
		below(r.ping_avg, i ? 4.5 : 15);
		below(r.ping_worst, i ? 8 : 20);
		assert_int_equal(r.st.resent, 0);
		world_close(&w);
	}
}

static void the_start_is_quick_and_without_a_flood(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, 1.25e7, 25 * MS);
	w.ping_ms = 20;
	struct result r = measure(&w, SEC);
	above(r.util, 0.6);
	below(r.ping_worst, 60);
	world_close(&w);
	world_open(&w, 1.25e7, 100 * MS);
	measure(&w, 2 * SEC);
	r = measure(&w, 2 * SEC);
	above(r.util, 0.7);
	world_close(&w);
}

/* The window of a stream, not the channel's, is what limits the source: it says of itself that it
 * has run dry, and still fills the queue. */
static void a_source_with_a_window_of_its_own_makes_no_queue_either(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, 5e6, 25 * MS);
	w.ping_ms = 20;
	w.source_window = 1u << 20;
	w.per_turn = 1;
	w.bulk = false;
	measure(&w, SEC);
	w.bulk = true;
	measure(&w, 2 * SEC);
	struct result r = measure(&w, 4 * SEC);
	above(r.util, 0.92);
	below(r.ping_avg, 6);
	world_close(&w);
}

static void loopback_is_not_held_back(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, 3e8, 20000);
	measure(&w, SEC / 5);
	above(measure(&w, SEC / 2).util, 0.98);
	world_close(&w);
}

static void late_wakeups_do_not_collapse_the_window(void **state)
{
	(void)state;
	static const struct {
		unsigned pct;
		uint64_t most;
	} noise[] = {{20, 6 * MS}, {100, 8 * MS}, {10, 30 * MS}};
	for (unsigned i = 0; i < 3; i++) {
		struct world w;
		world_open(&w, 3e8, 20000);
		w.noise_pct = noise[i].pct;
		w.noise_max = noise[i].most;
		measure(&w, SEC);
		above(measure(&w, SEC).util, 0.9);
		world_close(&w);
	}
}

static void noise_on_a_long_path_costs_little(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, 1.25e7, 25 * MS);
	w.noise_pct = 30;
	w.noise_max = 3 * MS;
	w.ping_ms = 20;
	measure(&w, SEC);
	struct result r = measure(&w, 4 * SEC);
	above(r.util, 0.93);
	below(r.ping_avg, 7);
	world_close(&w);
}

/* A busy machine: every wakeup late, so that no round trip under load is as short as the shortest.
 * That is no queue: a smaller window would only cost throughput. */
static void delay_that_is_no_queue_is_told_from_one_that_is(void **state)
{
	(void)state;
	static const double rates[] = {1.25e6, 1.25e7};
	for (unsigned i = 0; i < 2; i++) {
		struct world w;
		world_open(&w, rates[i], 25 * MS);
		w.ping_ms = 50;
		measure(&w, SEC);
		w.noise_pct = 100;
		w.noise_max = 12 * MS;
		measure(&w, 5 * SEC);
		struct result r = measure(&w, 5 * SEC);
		above(r.util, 0.85);
		below(r.ping_avg, 25);
		w.noise_pct = 0; /* and when the machine is quiet again, so is the link */
		measure(&w, 5 * SEC);
		r = measure(&w, 5 * SEC);
		above(r.util, 0.92);
		below(r.ping_avg, 5);
		world_close(&w);
	}
}

/* A hole in the TCP below holds back what came behind it for a round trip. That is late, and no queue. */
static void loss_in_the_link_below_costs_little(void **state)
{
	(void)state;
	static const struct {
		double rate, util;
		unsigned lose;
	} cases[] = {{5e6, 0.85, 10}, {5e6, 0.7, 100}, {1.25e6, 0.7, 100}, {1.25e6, 0.5, 500}, {2e7, 0.42, 100}};
	for (unsigned i = 0; i < 5; i++) {
		struct world w;
		world_open(&w, cases[i].rate, 25 * MS);
		w.up.lose = cases[i].lose;
		w.ping_ms = 20;
		measure(&w, 2 * SEC);
		struct result r = measure(&w, 10 * SEC);
		above(r.util, cases[i].util);
		world_close(&w);
	}
}

static void a_changed_rate_is_followed(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, 5e6, 25 * MS);
	w.ping_ms = 20;
	measure(&w, 2 * SEC);
	w.up.rate = 2e6;
	measure(&w, 3 * SEC / 2);
	struct result r = measure(&w, 3 * SEC);
	above(r.util, 0.92);
	below(r.ping_avg, 5);
	w.up.rate = 2e7;
	measure(&w, 2 * SEC);
	r = measure(&w, 3 * SEC);
	above(r.util, 0.92);
	below(r.ping_avg, 6);
	world_close(&w);
}

static void a_longer_path_is_noticed(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, 5e6, 15 * MS);
	measure(&w, 2 * SEC);
	w.up.delay = w.down.delay = 60 * MS;
	measure(&w, 4 * SEC);
	struct result r = measure(&w, 4 * SEC);
	above(r.util, 0.9);
	r = measure(&w, 12 * SEC);
	above(r.util, 0.92);
	above((double)r.st.min_rtt_ns, 100e6);
	world_close(&w);
}

static void the_minimum_is_measured_again_without_much_loss(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, 2e6, 25 * MS);
	w.ping_ms = 20;
	measure(&w, 2 * SEC);
	struct result r = measure(&w, 60 * SEC);
	above(r.util, 0.92);
	below(r.ping_avg, 5);
	world_close(&w);
}

static void a_new_burst_after_a_quiet_time_is_spread_out(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, 1.25e7, 25 * MS);
	w.ping_ms = 7;
	measure(&w, 2 * SEC);
	for (int i = 0; i < 5; i++) {
		w.bulk = false;
		measure(&w, SEC);
		w.bulk = true;
		below(measure(&w, SEC / 2).ping_worst, 16);
	}
	world_close(&w);
}

static void a_source_that_runs_dry_does_not_shrink_the_rate(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, 1.25e7, 25 * MS);
	measure(&w, 2 * SEC);
	w.bulk = false;
	w.ping_ms = 20;
	struct result r = measure(&w, 20 * SEC);
	above((double)r.st.delivery_rate, 1.2e7);
	above((double)r.st.cwnd, 500e3);
	world_close(&w);
}

static void no_second_has_more_messages_than_the_limit(void **state)
{
	(void)state;
	static const unsigned rates[] = {1, 7, 19, 20, 900, 50000};
	for (unsigned i = 0; i < 6; i++) {
		struct tnl_bucket b;
		tnl_bucket_init(&b, rates[i]);
		uint64_t *sent = calloc(5 * rates[i] + 8, sizeof(*sent)), n = 0;
		for (uint64_t now = 5 * SEC; now < 9 * SEC;) {
			unsigned left = tnl_bucket_left(&b, now);
			assert_true(left != UINT_MAX);
			for (; left; left--) {
				tnl_bucket_take(&b, now);
				sent[n++] = now;
			}
			uint64_t at = tnl_bucket_at(&b);
			assert_true(at > now);
			now = at;
		}
		above((double)n, 3.5 * rates[i]);
		for (uint64_t k = rates[i]; k < n; k++)
			assert_true(sent[k] - sent[k - rates[i]] >= SEC);
		free(sent);
	}
	struct tnl_bucket none;
	tnl_bucket_init(&none, 0);
	assert_int_equal(tnl_bucket_left(&none, 1), UINT_MAX);
}

static void message_sizes_follow_the_rate(void **state)
{
	(void)state;
	struct world w;
	world_open(&w, 1.25e5, 25 * MS);
	measure(&w, 3 * SEC);
	w.bulk = false;
	measure(&w, SEC);
	assert_int_equal(tnl_channel_can_send(w.a.ch, w.now), 1024);
	tnl_channel_alone(w.a.ch, true); /* nobody waits behind it */
	assert_in_range(tnl_channel_can_send(w.a.ch, w.now), 1200, 1600);
	world_close(&w);
	world_open(&w, 6e6, 25 * MS);
	measure(&w, 3 * SEC);
	w.bulk = false;
	measure(&w, SEC);
	size_t n = tnl_channel_can_send(w.a.ch, w.now);
	assert_in_range(n, 6000, 12000);
	tnl_channel_alone(w.a.ch, true);
	assert_in_range(tnl_channel_can_send(w.a.ch, w.now), 20000, 32768);
	tnl_channel_alone(w.a.ch, false);
	assert_int_equal(tnl_channel_can_send(w.a.ch, w.now), n);
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_ping_beside_a_bulk_transfer_stays_fast),
	    cmocka_unit_test(the_start_is_quick_and_without_a_flood),
	    cmocka_unit_test(a_source_with_a_window_of_its_own_makes_no_queue_either),
	    cmocka_unit_test(loopback_is_not_held_back),
	    cmocka_unit_test(late_wakeups_do_not_collapse_the_window),
	    cmocka_unit_test(noise_on_a_long_path_costs_little),
	    cmocka_unit_test(delay_that_is_no_queue_is_told_from_one_that_is),
	    cmocka_unit_test(loss_in_the_link_below_costs_little),
	    cmocka_unit_test(a_changed_rate_is_followed),
	    cmocka_unit_test(a_longer_path_is_noticed),
	    cmocka_unit_test(the_minimum_is_measured_again_without_much_loss),
	    cmocka_unit_test(a_new_burst_after_a_quiet_time_is_spread_out),
	    cmocka_unit_test(a_source_that_runs_dry_does_not_shrink_the_rate),
	    cmocka_unit_test(no_second_has_more_messages_than_the_limit),
	    cmocka_unit_test(message_sizes_follow_the_rate),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
