/* Which of several links takes a message (lib/channel_link.c): where it will be acknowledged first, also when that one
 * has to wait for its pace, and none has less for good because it had less before. */
#include "tests/unit/links_util.h"

/* Two links of 50 ms, 4 MiB of window and these rates in bytes/s, on which nothing stands, as the far end tells. */
static void open_told(struct end *e, uint64_t first, uint64_t second, uint64_t now)
{
	open_agent(e);
	add(e, 1, 0, 0);
	for (unsigned i = 0; i < 2; i++) {
		struct tnl_cc *c = &e->ch->link[i]->cc;
		struct tnl_hop none = {0};
		c->base.rtt = e->ch->link[i]->rto.srtt = 50 * MS;
		c->base.at = c->rate.recent.start = now;
		c->state = TNL_CC_STEADY;
		c->window = c->window_max = 4 << 20;
		c->rate.recent.slot[c->rate.recent.cur] = c->rate.recent.best = i ? second : first;
		c->rate.known = true;
		tnl_cc_near(c, &none, now);
		tnl_cc_far(c, &none, now);
	}
}

static unsigned first_of(struct end *e, unsigned room, uint64_t now)
{
	uint8_t order[TNL_LINKS_MAX];
	assert_true(tnl_channel_link_order(e->ch, room, now, order) > 0);
	return order[0];
}

/* It was given little, so its rate is small: that is no reason to give it little. */
static void a_link_on_which_nothing_stands_counts_as_fast_as_the_best(void **state)
{
	(void)state;
	struct end e;
	uint64_t now = SEC;
	open_told(&e, 50000000, 1000000, now);
	e.ch->link[0]->way.flight_bytes = 1 << 20;
	e.ch->link[1]->way.flight_bytes = 1 << 17;
	assert_int_equal(first_of(&e, ALL, now), 1);
	/* where something stands on it, its own rate says how long that takes */
	struct tnl_hop queue = {.queue = 40 * MS};
	tnl_cc_far(&e.ch->link[1]->cc, &queue, now);
	assert_int_equal(first_of(&e, ALL, now), 0);
	e.ch->link[0]->way.flight_bytes = e.ch->link[1]->way.flight_bytes = 0;
	done(&e);
}

static void only_links_with_room_are_named(void **state)
{
	(void)state;
	struct end e;
	uint8_t order[TNL_LINKS_MAX];
	open_told(&e, 1000000, 1000000, SEC);
	assert_int_equal(tnl_channel_link_order(e.ch, 2, SEC, order), 1);
	assert_int_equal(order[0], 1);
	assert_int_equal(tnl_channel_link_order(e.ch, 0, SEC, order), 0);
	done(&e);
}

/* Link 0 may send again in some milliseconds; on link 1 a message would take 100 ms longer. */
static void what_a_paced_link_would_bring_sooner_waits_for_it(void **state)
{
	(void)state;
	struct end e;
	uint64_t now = SEC;
	open_told(&e, 20000000, 20000000, now);
	struct tnl_chlink *late = e.ch->link[1];
	late->way.flight_bytes = 2 << 20;
	e.ch->link[0]->cc.pace_at = now + 10 * MS;
	cu_send(&e, NULL, 8192, now);
	assert_int_equal(first_of(&e, ALL, now), 0);
	assert_int_equal(pull_on(&e, 0, now), -1);
	assert_int_equal(pull_on(&e, 1, now), -1);
	assert_int_equal(tnl_channel_can_send(e.ch, now), 0);
	assert_true(tnl_channel_deadline(e.ch) > now && tnl_channel_deadline(e.ch) <= now + 10 * MS);
	now += 10 * MS;
	assert_int_equal(first_of(&e, ALL, now), 0);
	assert_int_equal(pull_on(&e, 0, now), 0);
	/* one that has no room now holds up nobody */
	e.ch->link[0]->cc.pace_at = now + 10 * MS;
	cu_send(&e, NULL, 8192, now);
	assert_int_equal(first_of(&e, 2, now), 1);
	assert_int_equal(pull_on(&e, 1, now), 1);
	/* nor one that went */
	cu_send(&e, NULL, 8192, now);
	assert_int_equal(first_of(&e, ALL, now), 0);
	assert_true(late->behind);
	tnl_channel_link_gone(e.ch, 0, now);
	assert_true(pull_on(&e, 1, now) >= 0);
	late->way.flight_bytes -= 2 << 20;
	done(&e);
}

static void a_full_window_is_not_waited_for(void **state)
{
	(void)state;
	struct end e;
	uint64_t now = SEC;
	open_told(&e, 20000000, 20000000, now);
	e.ch->link[0]->cc.window = 1 << 16;
	e.ch->link[0]->way.flight_bytes = 1 << 16;
	e.ch->link[1]->way.flight_bytes = 2 << 20;
	cu_send(&e, NULL, 8192, now);
	assert_int_equal(first_of(&e, ALL, now), 0);
	assert_int_equal(pull_on(&e, 0, now), -1);
	assert_int_equal(pull_on(&e, 1, now), 0);
	e.ch->link[0]->way.flight_bytes = 0;
	e.ch->link[1]->way.flight_bytes -= 2 << 20;
	done(&e);
}

/* The second link carries a message, and it is acknowledged. */
static void carry_one(struct end *e, int64_t seq, uint64_t now)
{
	send_small(e, 1, now);
	assert_int_equal(pull_on(e, 1, now), seq);
	ack_from(e, 1, seq, now + 50 * MS);
}

/* Its start ended early, while the other end's link was not there yet: it would have next to nothing for seconds. */
static void who_has_much_less_than_the_best_starts_again(void **state)
{
	(void)state;
	static const uint64_t rates[] = {1000000, 30000000};
	for (size_t i = 0; i < 2; i++) {
		struct end e;
		uint64_t now = SEC;
		open_told(&e, 50000000, rates[i], now);
		carry_one(&e, 0, now);
		assert_int_equal(e.ch->link[1]->cc.state, i ? TNL_CC_STEADY : TNL_CC_STARTUP);
		assert_int_equal(e.ch->link[0]->cc.state, TNL_CC_STEADY);
		for (unsigned again = 1; !i && again <= 2; again++) { /* once a second */
			struct tnl_cc *c = &e.ch->link[1]->cc;
			c->state = TNL_CC_STEADY;
			tnl_cc_far(c, &(struct tnl_hop){0}, now += again * SEC / 2);
			carry_one(&e, again, now);
			assert_int_equal(c->state, again == 1 ? TNL_CC_STEADY : TNL_CC_STARTUP);
		}
		done(&e);
	}
}

/* One that has stopped answering keeps its rate, and is no measure of the others. */
static void who_does_not_answer_is_no_measure(void **state)
{
	(void)state;
	struct end e;
	uint64_t now = SEC;
	open_told(&e, 50000000, 1000000, now);
	e.ch->link[0]->stalled = true;
	carry_one(&e, 0, now);
	assert_int_equal(e.ch->link[1]->cc.state, TNL_CC_STEADY);
	done(&e);
}

/* In the first's window there is room for the bytes of a message, and none for its header: nobody waits for that. */
static void a_window_without_room_for_a_header_is_full(void **state)
{
	(void)state;
	struct end e;
	uint64_t now = SEC;
	open_told(&e, 20000000, 20000000, now);
	struct tnl_chlink *first = e.ch->link[0], *late = e.ch->link[1];
	first->way.flight_bytes = first->cc.window - e.ch->max_payload - 10;
	late->way.flight_bytes = first->cc.window - (1 << 17);
	late->cc.base.rtt = 500 * MS;
	assert_int_equal(first_of(&e, ALL, now), 0);
	assert_false(late->behind);
	/* and who is full itself was held by its window, not for want of bytes */
	first->way.flight_bytes = 0;
	late->way.flight_bytes = late->cc.window;
	late->cc.arrived.app_limited = 0;
	assert_int_equal(first_of(&e, ALL, now), 0);
	assert_true(late->behind);
	assert_true(tnl_channel_can_send(e.ch, now) > 0);
	assert_int_equal(late->cc.arrived.app_limited, 0);
	assert_true(late->cc.round.limited);
	late->way.flight_bytes = 0;
	done(&e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_link_on_which_nothing_stands_counts_as_fast_as_the_best),
	    cmocka_unit_test(only_links_with_room_are_named),
	    cmocka_unit_test(what_a_paced_link_would_bring_sooner_waits_for_it),
	    cmocka_unit_test(a_full_window_is_not_waited_for),
	    cmocka_unit_test(who_has_much_less_than_the_best_starts_again),
	    cmocka_unit_test(who_does_not_answer_is_no_measure),
	    cmocka_unit_test(a_window_without_room_for_a_header_is_full),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
