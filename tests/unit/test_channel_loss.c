/* The rules of the channel about what is lost (docs/reliability.md): the timer, and holes. */
#include "tests/unit/chan_util.h"

static void the_timer_resends_the_oldest_with_backoff(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	fly(&e, 20, 0);
	uint64_t now = 0;
	static const uint64_t wait[] = {200, 400, 800, 1000, 1000};
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(tnl_channel_deadline(e.ch) - now, i ? tnl_channel_deadline(e.ch) - now : 200 * MS);
		assert_int_equal(tnl_channel_expire(e.ch, now + wait[i] * MS - 1), 0);
		assert_int_equal(pull_seq(&e, now + wait[i] * MS - 1), -1);
		now += wait[i] * MS;
		assert_int_equal(tnl_channel_expire(e.ch, now), 0);
		assert_int_equal(pull_seq(&e, now), 0);
		assert_int_equal(pull_seq(&e, now), -1); /* one only */
	}
	done(&e);
}

static void the_timer_is_not_held_up_by_a_full_window(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	size_t n;
	while ((n = tnl_channel_can_send(e.ch, 0)))
		cu_send(&e, NULL, n, 0);
	while ((n = tnl_channel_can_send_small(e.ch, 0)))
		cu_send(&e, NULL, n, 0);
	while (pull_seq(&e, 0) >= 0)
		;
	assert_true(stats(&e).inflight_bytes > stats(&e).cwnd);
	assert_int_equal(tnl_channel_expire(e.ch, 200 * MS), 0);
	assert_int_equal(pull_seq(&e, 200 * MS), 0);
	done(&e);
}

/* A hole is known, but all that fills the window is lost as well: nothing would ever open it. */
static void a_hole_behind_a_shut_window_gets_through_by_the_timer(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	size_t n;
	while ((n = tnl_channel_can_send(e.ch, 0)))
		cu_send(&e, NULL, n, 0);
	while (pull_seq(&e, 0) >= 0)
		;
	while ((n = tnl_channel_can_send_small(e.ch, 0))) {
		cu_send(&e, NULL, n, 0);
		pull_seq(&e, 0);
	}
	uint64_t now = 100 * MS;
	ack(&e, 3, now); /* number 0 is a hole; small ones take its room in the window */
	while ((n = tnl_channel_can_send_small(e.ch, now)))
		cu_send(&e, NULL, n, now);
	for (int i = 0; i < 3; i++) {
		now += SEC;
		assert_int_equal(tnl_channel_expire(e.ch, now), 0);
		bool seen = false;
		for (int64_t s; (s = pull_seq(&e, now)) >= 0;)
			seen = true;
		assert_true(seen);
	}
	assert_true(stats(&e).resent >= 1);
	done(&e);
}

static void too_many_resends_of_one_message_end_the_session(void **state)
{
	(void)state;
	struct end e;
	cu_open(&e, true, 0, 0, 3, false);
	tnl_channel_link_up(e.ch, 0);
	fly(&e, 2, 0);
	uint64_t now = 0;
	for (int i = 0; i < 3; i++) {
		now += SEC;
		assert_int_equal(tnl_channel_expire(e.ch, now), 0);
		/* A link that takes nothing is not the peer's silence. */
		assert_int_equal(tnl_channel_expire(e.ch, now += 5 * SEC), 0);
		assert_int_equal(pull_seq(&e, now), 0);
	}
	assert_int_equal(tnl_channel_expire(e.ch, now + SEC), TNL_ETIMEOUT);
	done(&e);
}

static void a_hole_is_resent_at_once(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	uint64_t now = settle(&e, 10);
	fly(&e, 4, now); /* 10 … 13 */
	now += 100 * MS;
	ack(&e, 11, now);
	assert_int_equal(pull_seq(&e, now), -1);
	ack(&e, 12, now);
	assert_int_equal(pull_seq(&e, now), -1);
	ack(&e, 13, now);
	assert_int_equal(pull_seq(&e, now), 10);
	assert_int_equal(pull_seq(&e, now), -1);
	done(&e);
}

static void one_later_ack_and_nine_eighths_of_a_round_trip_are_a_hole_too(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	uint64_t now = settle(&e, 40);
	uint64_t sent = now, rtt = stats(&e).srtt_ns;
	fly(&e, 2, now);
	now += 100 * MS;
	ack(&e, 41, now);
	assert_int_equal(tnl_channel_expire(e.ch, now), 0);
	assert_int_equal(pull_seq(&e, now), -1);
	uint64_t at = tnl_channel_deadline(e.ch);
	assert_in_range(at, sent + rtt * 9 / 8 - MS, sent + rtt * 9 / 8 + MS);
	assert_int_equal(tnl_channel_expire(e.ch, at), 0);
	assert_int_equal(pull_seq(&e, at), 40);
	done(&e);
}

static void the_second_resend_of_a_hole_waits_for_a_round_trip(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	uint64_t now = settle(&e, 40);
	fly(&e, 4, now); /* 40 … 43 */
	now += 100 * MS;
	for (int64_t k = 41; k < 44; k++)
		ack(&e, k, now);
	assert_int_equal(pull_seq(&e, now), 40);
	uint64_t again = now;
	fly(&e, 4, now += 10 * MS);
	for (int64_t k = 44; k < 48; k++)
		ack(&e, k, now + MS); /* evidence, but too soon */
	assert_int_equal(pull_seq(&e, now + MS), -1);
	assert_int_equal(tnl_channel_expire(e.ch, now + MS), 0);
	assert_int_equal(pull_seq(&e, now + MS), -1);
	uint64_t at = tnl_channel_deadline(e.ch);
	assert_true(at > again + 50 * MS); /* the round trip that it believes in by now */
	assert_int_equal(tnl_channel_expire(e.ch, at), 0);
	assert_int_equal(pull_seq(&e, at), 40);
	done(&e);
}

static void a_stalled_peer_is_not_flooded_with_its_hole(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	uint64_t now = settle(&e, 20);
	unsigned resent = 0;
	/* Number 20 is never acknowledged while 1,000 later ones are, in a second. */
	fly(&e, 1, now);
	for (unsigned i = 0; i < 1000; i++) {
		send_small(&e, 1, now);
		now += MS;
		int64_t s;
		while ((s = pull_seq(&e, now)) >= 0) {
			if (s == 20)
				resent++;
			else
				ack(&e, s, now);
		}
		assert_int_equal(tnl_channel_expire(e.ch, now), 0);
	}
	assert_in_range(resent, 2, 8);
	done(&e);
}

static void a_lost_tail_costs_one_timeout(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	uint64_t now = settle(&e, 20);
	fly(&e, 50, now); /* 20 … 69, all lost */
	now = tnl_channel_deadline(e.ch);
	while (pull_seq(&e, now) < 0)
		assert_int_equal(tnl_channel_expire(e.ch, now = tnl_channel_deadline(e.ch)), 0);
	now += 100 * MS;
	ack(&e, 20, now); /* of the resend: those before it are gone */
	uint64_t at = tnl_channel_deadline(e.ch);
	assert_in_range(at, now, now + 30 * MS);
	assert_int_equal(tnl_channel_expire(e.ch, at), 0);
	for (int64_t want = 21; want < 70; want++)
		assert_int_equal(pull_seq(&e, at), want);
	done(&e);
}

static void late_is_not_lost(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	uint64_t now = settle(&e, 20);
	fly(&e, 50, now); /* 20 … 69: TCP stalls for 3 s, then delivers all */
	for (int i = 0; i < 6; i++) {
		assert_int_equal(tnl_channel_expire(e.ch, now += 500 * MS), 0);
		pull_seq(&e, now);
	}
	uint64_t resent = stats(&e).resent;
	assert_in_range(resent, 2, 6);
	for (int64_t k = 20; k < 70; k++) {
		ack(&e, k, now);
		now += 2 * MS;
		assert_int_equal(tnl_channel_expire(e.ch, now), 0);
		assert_int_equal(pull_seq(&e, now), -1);
	}
	assert_int_equal(stats(&e).resent, resent);
	assert_true(tnl_channel_idle(e.ch));
	done(&e);
}

static void resent_messages_give_no_sample(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	uint64_t now = settle(&e, 10), rtt = stats(&e).srtt_ns;
	fly(&e, 1, now);
	assert_int_equal(tnl_channel_expire(e.ch, now += SEC), 0);
	assert_int_equal(pull_seq(&e, now), 10);
	ack(&e, 10, now + MS);
	assert_int_equal(stats(&e).srtt_ns, rtt);
	assert_int_equal(stats(&e).min_rtt_ns, 100 * MS);
	done(&e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_timer_resends_the_oldest_with_backoff),
	    cmocka_unit_test(the_timer_is_not_held_up_by_a_full_window),
	    cmocka_unit_test(a_hole_behind_a_shut_window_gets_through_by_the_timer),
	    cmocka_unit_test(too_many_resends_of_one_message_end_the_session),
	    cmocka_unit_test(a_hole_is_resent_at_once),
	    cmocka_unit_test(one_later_ack_and_nine_eighths_of_a_round_trip_are_a_hole_too),
	    cmocka_unit_test(the_second_resend_of_a_hole_waits_for_a_round_trip),
	    cmocka_unit_test(a_stalled_peer_is_not_flooded_with_its_hole),
	    cmocka_unit_test(a_lost_tail_costs_one_timeout),
	    cmocka_unit_test(late_is_not_lost),
	    cmocka_unit_test(resent_messages_give_no_sample),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
