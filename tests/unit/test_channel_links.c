/* One channel over several links (lib/channel.h "Links", docs/reliability.md "Several links"): what goes where, what a
 * link leaves behind when it goes or stalls, and how it comes back. */
#include "tests/unit/links_util.h"

/* One window is full, the other carries on; a new message is refused when both are. */
static void each_link_has_its_window(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	add(&e, 1, 0, 0);
	size_t n;
	unsigned carried[2] = {0, 0};
	while ((n = tnl_channel_can_send(e.ch, 0))) {
		cu_send(&e, NULL, n, 0);
		unsigned link = pull_on(&e, 0, 0) >= 0 ? 0 : 1;
		assert_true(link == 0 || pull_on(&e, 1, 0) >= 0);
		carried[link]++;
	}
	assert_true(carried[0] > 0);
	assert_int_equal(carried[0], carried[1]);
	assert_int_equal(link_of(&e, 0).sent, carried[0]);
	assert_int_equal(link_of(&e, 1).sent, carried[1]);
	assert_int_equal(stats(&e).inflight_bytes, link_of(&e, 0).inflight_bytes + link_of(&e, 1).inflight_bytes);
	done(&e);
}

static void what_was_on_a_link_that_goes_is_sent_on_the_others_at_once(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	add(&e, 1, 0, 0);
	send_small(&e, 6, 0);
	for (int i = 0; i < 6; i++)
		assert_int_equal(pull_on(&e, i & 1, 0), i);
	tnl_channel_link_gone(e.ch, 1, MS);
	for (int i = 1; i < 6; i += 2)
		assert_int_equal(pull_on(&e, 0, MS), i);
	assert_int_equal(pull_on(&e, 0, MS), -1); /* not what is on the one that stayed */
	for (int i = 0; i < 6; i++)
		ack_from(&e, 0, i, 100 * MS);
	assert_true(tnl_channel_idle(e.ch));
	done(&e);
}

static void only_the_last_link_that_goes_takes_the_channel_down(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	add(&e, 3, 0, 0);
	send_small(&e, 2, 0);
	assert_int_equal(pull_on(&e, 0, 0), 0);
	assert_int_equal(pull_on(&e, 3, 0), 1);
	cu_control(&e, TNL_MT_PAUSE_PUBLICATION, 0);
	tnl_channel_link_gone(e.ch, 0, 0);
	add(&e, 0, 0, 0);
	assert_true(e.ch->paused); /* a further link says nothing about the other end */
	tnl_channel_link_gone(e.ch, 0, 0);
	tnl_channel_link_gone(e.ch, 3, 0);
	assert_int_equal(tnl_channel_can_send(e.ch, 0), 0);
	assert_int_equal(pull_on(&e, 3, 0), -1);
	add(&e, 2, 0, SEC);
	assert_false(e.ch->paused);
	assert_int_equal(pull_on(&e, 2, SEC), 0);
	assert_int_equal(pull_on(&e, 2, SEC), 1);
	done(&e);
}

/* Link 1 is silent while link 0 brings acks: its messages move after one timeout. */
static uint64_t stall_link_1(struct end *e)
{
	uint64_t now = 0;
	open_agent(e);
	add(e, 1, 0, 0);
	send_small(e, 6, 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pull_on(e, 1, 0), i);
	for (int i = 3; i < 6; i++)
		assert_int_equal(pull_on(e, 0, 0), i);
	for (int i = 3; i < 6; i++)
		ack_from(e, 0, i, now = 100 * MS);
	assert_int_equal(tnl_channel_expire(e->ch, now = 199 * MS), 0);
	assert_int_equal(pull_on(e, 0, now), -1);
	assert_int_equal(tnl_channel_expire(e->ch, now = 200 * MS), 0);
	assert_true(link_of(e, 1).stalled);
	assert_false(link_of(e, 0).stalled);
	return now;
}

static void a_stalled_link_does_not_hold_the_others(void **state)
{
	(void)state;
	struct end e;
	uint64_t now = stall_link_1(&e);
	assert_int_equal(pull_on(&e, 1, now), -1);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pull_on(&e, 0, now), i);
	send_small(&e, 1, now);
	assert_int_equal(pull_on(&e, 1, now), -1);
	assert_int_equal(pull_on(&e, 0, now), 6);
	done(&e);
}

static void a_stalled_link_has_to_answer_to_a_copy(void **state)
{
	(void)state;
	struct end e;
	uint64_t now = stall_link_1(&e);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pull_on(&e, 0, now), i);
	uint64_t at = now + 200 * MS;
	for (int k = 0; k < 3; k++) { /* with growing distance, at most a second */
		assert_int_equal(pull_on(&e, 1, at - 1), -1);
		assert_int_equal(tnl_channel_expire(e.ch, at), 0);
		while (pull_on(&e, 0, at) >= 0)
			;
		assert_int_equal(pull_on(&e, 1, at), 0);
		assert_int_equal(pull_on(&e, 1, at), -1);
		at += k == 0 ? 800 * MS : SEC;
	}
	assert_true(link_of(&e, 1).stalled);
	for (int i = 0; i < 3; i++)
		ack_from(&e, 0, i, at);
	assert_true(link_of(&e, 1).stalled); /* those came over the other one */
	ack_from(&e, 1, 0, at);
	assert_false(link_of(&e, 1).stalled);
	assert_int_equal(link_of(&e, 1).stalls, 1);
	send_small(&e, 1, at);
	assert_int_equal(pull_on(&e, 1, at), 6);
	done(&e);
}

/* Round trips of more than a second: the answer to a copy comes when the next one, of another message, is under way. */
static void an_answer_to_an_earlier_copy_counts(void **state)
{
	(void)state;
	struct end e;
	uint64_t now = stall_link_1(&e) + 200 * MS;
	while (pull_on(&e, 0, now) >= 0)
		;
	int64_t copy[3];
	for (int i = 0; i < 3; i++, now += SEC) {
		assert_int_equal(tnl_channel_expire(e.ch, now), 0);
		copy[i] = pull_on(&e, 1, now);
		assert_int_equal(copy[i], i);
		ack_from(&e, 0, i, now);
		send_small(&e, 1, now);
		assert_int_equal(pull_on(&e, 0, now), 6 + i);
		if (i == 1)
			for (int k = 3; k < 6; k++)
				ack_from(&e, 0, k, now);
	}
	assert_true(link_of(&e, 1).stalled);
	ack_from(&e, 1, copy[0], now);
	assert_false(link_of(&e, 1).stalled);
	done(&e);
}

/* Nothing answers: then it is not the links, and nothing is doubled but the oldest. */
static void when_all_are_silent_none_has_stalled(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	add(&e, 1, 0, 0);
	send_small(&e, 6, 0);
	for (int i = 0; i < 6; i++)
		assert_int_equal(pull_on(&e, i & 1, 0), i);
	assert_int_equal(tnl_channel_expire(e.ch, 200 * MS), 0);
	assert_false(link_of(&e, 0).stalled);
	assert_false(link_of(&e, 1).stalled);
	unsigned again = 0;
	for (unsigned l = 0; l < 2; l++)
		while (pull_on(&e, l, 200 * MS) >= 0)
			again++;
	assert_true(again <= 2);
	done(&e);
}

/* Both come into doubt, then one answers: the other one is asked as well, or that one would carry everything for good.
 */
static void who_is_in_doubt_is_asked_once_another_answers(void **state)
{
	(void)state;
	struct end e;
	uint64_t now = 0;
	open_agent(&e);
	add(&e, 1, 0, 0);
	send_small(&e, 1, 0);
	assert_int_equal(pull_on(&e, 1, now), 0);
	assert_int_equal(tnl_channel_expire(e.ch, now = 200 * MS), 0);
	assert_int_equal(pull_on(&e, 0, now), 0);
	assert_int_equal(tnl_channel_expire(e.ch, now = 400 * MS), 0);
	assert_int_equal(e.ch->link[0]->rto.backoff, 1);
	assert_int_equal(pull_on(&e, 1, now), 0); /* the copy for which link 1 is asked, */
	assert_int_equal(pull_on(&e, 1, now), 0); /* and what the timer of link 0 sends again */
	ack_from(&e, 1, 0, now += MS);
	assert_true(tnl_channel_link_carries(e.ch, 1));
	assert_false(tnl_channel_link_carries(e.ch, 0));
	send_small(&e, 1, now);
	assert_int_equal(pull_on(&e, 1, now), 1);
	assert_int_equal(tnl_channel_deadline(e.ch), now);
	assert_int_equal(tnl_channel_expire(e.ch, now), 0);
	assert_int_equal(pull_on(&e, 0, now), 1);
	ack_from(&e, 0, 1, now += MS);
	assert_true(tnl_channel_link_carries(e.ch, 0));
	done(&e);
}

/* All are in doubt: an ack on the link of its message says that this one lives, whichever copy it is for. */
static void who_answers_to_any_copy_is_in_doubt_no_more(void **state)
{
	(void)state;
	struct end e;
	uint64_t now = 0;
	open_agent(&e);
	add(&e, 1, 0, 0);
	send_small(&e, 1, 0);
	assert_int_equal(pull_on(&e, 0, now), 0);
	e.ch->link[0]->rto.backoff = e.ch->link[1]->rto.backoff = 1;
	tnl_sendq_lost(&e.ch->sendq, tnl_sendq_find(&e.ch->sendq, 0));
	assert_int_equal(pull_on(&e, 0, now), 0);
	ack_from(&e, 0, 0, now += MS);
	assert_true(tnl_channel_link_carries(e.ch, 0));
	assert_false(tnl_channel_link_carries(e.ch, 1));
	tnl_channel_link_gone(e.ch, 1, now); /* the only one keeps its distance */
	send_small(&e, 1, now);
	assert_int_equal(pull_on(&e, 0, now), 1);
	e.ch->link[0]->rto.backoff = 1;
	tnl_sendq_lost(&e.ch->sendq, tnl_sendq_find(&e.ch->sendq, 1));
	assert_int_equal(pull_on(&e, 0, now), 1);
	ack_from(&e, 0, 1, now);
	assert_int_equal(e.ch->link[0]->rto.backoff, 1);
	done(&e);
}

/* Eight messages went out on link 0, the last seven of them wait to be sent again, the newest first, and the window is
 * shut but for what the timer lets pass. */
static void open_with_losses(struct end *e)
{
	open_agent(e);
	e->ch->first.cc.window = 1024 * 1024;
	for (int i = 0; i < 8; i++) {
		cu_send(e, NULL, 12 * 1024, 0);
		assert_int_equal(pull_on(e, 0, 0), i);
	}
	for (int i = 7; i > 0; i--)
		tnl_sendq_lost(&e->ch->sendq, tnl_sendq_find(&e->ch->sendq, i));
	e->ch->first.cc.window = 1;
}

/* A peer whose reorder buffer is full drops all but the oldest: the others must not keep that one waiting. */
static void the_oldest_goes_before_what_waits_to_be_sent_again(void **state)
{
	(void)state;
	struct end e;
	uint64_t now = 0;
	open_with_losses(&e);
	for (unsigned k = 1; k < 5; k++) { /* with growing distance */
		assert_int_equal(tnl_channel_expire(e.ch, now += SEC), 0);
		assert_int_equal(pull_on(&e, 0, now), 0);
		assert_int_equal(pull_on(&e, 0, now), -1);
		assert_int_equal(e.ch->first.rto.backoff, k);
	}
	for (int i = 1; i < 8; i++) { /* then each in turn, though they wait in another order */
		ack_from(&e, 0, i - 1, now);
		e.ch->first.cc.window = 1;
		assert_int_equal(pull_on(&e, 0, now), i);
		assert_int_equal(pull_on(&e, 0, now), -1);
	}
	ack_from(&e, 0, 7, now);
	assert_true(tnl_channel_idle(e.ch));
	done(&e);
}

/* The same on whichever link is the best. */
static void the_oldest_goes_again_on_the_best_link(void **state)
{
	(void)state;
	struct end e;
	uint64_t now = 0;
	unsigned oldest = 0, all = 0;
	open_with_losses(&e);
	add(&e, 1, 1, 0);
	e.ch->link[1]->cc.window = 1;
	for (int k = 0; k < 5; k++) {
		int64_t seq;
		assert_int_equal(tnl_channel_expire(e.ch, now += SEC), 0);
		for (unsigned l = 0; l < 2; l++)
			while ((seq = pull_on(&e, l, now)) >= 0) {
				oldest += seq == 0;
				all++;
			}
	}
	assert_true(oldest >= 4);
	assert_true(all <= 10); /* one for each expiry of either */
	done(&e);
}

/* What was dropped often as one that came too early does not wait out its distance once it is the oldest. */
static void the_next_oldest_does_not_wait_out_its_distance(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	for (int i = 0; i < 3; i++)
		cu_send(&e, NULL, 12 * 1024, 0);
	e.ch->first.cc.window = 1024 * 1024;
	assert_int_equal(pull_on(&e, 0, 0), 0);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(pull_on(&e, 0, 0), 1);
		tnl_sendq_lost(&e.ch->sendq, tnl_sendq_find(&e.ch->sendq, 1));
	}
	assert_int_equal(pull_on(&e, 0, 0), 1);
	tnl_sendq_lost(&e.ch->sendq, tnl_sendq_find(&e.ch->sendq, 0));
	assert_int_equal(pull_on(&e, 0, 0), 0);
	assert_int_equal(pull_on(&e, 0, 50 * MS), 2);
	ack_from(&e, 0, 0, 100 * MS);
	e.ch->first.cc.window = 1;
	assert_int_equal(tnl_channel_expire(e.ch, 113 * MS), 0);
	assert_int_equal(pull_on(&e, 0, 113 * MS), -1);
	assert_int_equal(tnl_channel_expire(e.ch, 114 * MS), 0);
	assert_int_equal(pull_on(&e, 0, 114 * MS), 1);
	assert_int_equal(tnl_channel_expire(e.ch, 290 * MS), 0); /* but as the oldest it has had its turn */
	assert_int_equal(pull_on(&e, 0, 290 * MS), -1);
	done(&e);
}

static void acks_go_back_on_the_link_of_their_message(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	add(&e, 1, 0, 0);
	take_on(&e, 1, 0, 0);
	assert_false(ack_on(&e, 0, 0));
	assert_true(ack_on(&e, 1, 0));
	assert_false(ack_on(&e, 1, 0));
	/* but not for longer than a moment, when that link takes nothing */
	take_on(&e, 1, 1, 0);
	assert_int_equal(tnl_channel_deadline(e.ch), 10 * MS);
	assert_int_equal(tnl_channel_expire(e.ch, 10 * MS), 0);
	assert_true(ack_on(&e, 0, 10 * MS));
	/* and not when it has gone */
	take_on(&e, 1, 2, 10 * MS);
	tnl_channel_link_gone(e.ch, 1, 10 * MS);
	assert_true(ack_on(&e, 0, 10 * MS));
	assert_true(tnl_channel_idle(e.ch));
	done(&e);
}

static void links_of_a_higher_rank_are_quiet(void **state)
{
	(void)state;
	struct end e;
	cu_open(&e, true, 0, 0, 0, false);
	add(&e, 0, 1, 0);
	send_small(&e, 1, 0);
	assert_int_equal(pull_on(&e, 0, 0), 0); /* alone it carries all */
	add(&e, 1, 0, 0);
	send_small(&e, 2, 0);
	assert_int_equal(pull_on(&e, 0, 0), -1);
	assert_int_equal(pull_on(&e, 1, 0), 1);
	take_on(&e, 0, 0, 0);
	assert_true(ack_on(&e, 0, 0));
	tnl_channel_link_gone(e.ch, 1, 0);
	assert_int_equal(pull_on(&e, 0, 0), 1);
	assert_int_equal(pull_on(&e, 0, 0), 2);
	done(&e);
}

/* By what the hops of its first link say, as long as they say it: further ones may have come into a full path. */
static void a_channel_knows_that_its_path_is_lossy(void **state)
{
	(void)state;
	struct end e;
	struct tnl_hop calm = {0}, lossy = {.repairs = true};
	open_agent(&e);
	add(&e, 1, 0, 0);
	for (unsigned i = 0; i < 2; i++) {
		tnl_channel_near_on(e.ch, i, &lossy, MS);
		tnl_cc_far(&e.ch->link[i]->cc, &calm, MS);
	}
	e.ch->link[1]->cc.base.rtt = 50 * MS;
	assert_false(tnl_channel_repairs(e.ch, 2 * MS)); /* the first one's path may be short */
	e.ch->link[0]->cc.base.rtt = 50 * MS;
	assert_true(tnl_channel_repairs(e.ch, 2 * MS));
	assert_false(tnl_channel_repairs(e.ch, 2 * SEC));
	done(&e);
}

/* An ack that came on link 0, as our gateway passes it on. */
static void feed_told(struct end *e, int64_t of, struct tnl_hop hop)
{
	char text[TNL_ACK_MAX];
	uint8_t raw[TNL_MSG_HDR + TNL_ACK_MAX];
	struct tnl_ack a = {.type = TNL_MT_OUTPUT, .seq = of};
	struct tnl_msg m = {.type = TNL_MT_ACK,
			    .schema = 1,
			    .created_ms = 1,
			    .seq = TNL_HOP_ASKED,
			    .flags = TNL_MF_SYN | TNL_MF_FIN,
			    .payload = (const uint8_t *)text,
			    .plen = (uint32_t)tnl_ack_write(text, &a)};
	size_t n = tnl_msg_encode(raw, &m);
	assert_true(tnl_ack_tell_hop(raw, &hop));
	assert_int_equal(tnl_msg_decode(raw, n, &m, NULL), 0);
	assert_int_equal(tnl_channel_feed_on(e->ch, 0, &m, MS), 0);
}

/* Any of its hops: the near one of any link, the far one as long as its acks say so and the path is long. */
static void a_channel_knows_that_its_path_is_full(void **state)
{
	(void)state;
	struct end e;
	struct tnl_hop calm = {0}, full = {.full = true};
	open_agent(&e);
	add(&e, 1, 0, 0);
	cu_send(&e, "x", 1, 0);
	assert_int_equal(pull_on(&e, 0, 0), 0);
	assert_false(tnl_channel_is_full(e.ch, MS));
	tnl_channel_near_on(e.ch, 1, &full, MS);
	assert_true(tnl_channel_is_full(e.ch, MS));
	tnl_channel_near_on(e.ch, 1, &calm, MS);
	assert_false(tnl_channel_is_full(e.ch, MS));
	feed_told(&e, 0, full);
	e.ch->link[0]->cc.base.rtt = MS;
	assert_false(tnl_channel_is_full(e.ch, 2 * MS)); /* what schedulers do is greater there */
	e.ch->link[0]->cc.base.rtt = 50 * MS;
	assert_true(tnl_channel_is_full(e.ch, 2 * MS));
	assert_false(tnl_channel_is_full(e.ch, 2 * SEC));
	feed_told(&e, 0, calm);
	assert_false(tnl_channel_is_full(e.ch, 2 * MS));
	done(&e);
}

static void they_are_asked_in_the_order_of_what_arrives_first(void **state)
{
	(void)state;
	struct end e;
	uint8_t order[TNL_LINKS_MAX];
	uint64_t now = 0;
	open_agent(&e);
	add(&e, 1, 0, 0);
	for (int i = 0; i < 40; i += 2) { /* link 0: 60 ms, link 1: 20 ms */
		send_small(&e, 2, now);
		assert_int_equal(pull_on(&e, 0, now), i);
		assert_int_equal(pull_on(&e, 1, now), i + 1);
		ack_from(&e, 1, i + 1, now + 20 * MS);
		ack_from(&e, 0, i, now += 60 * MS);
	}
	assert_int_equal(tnl_channel_link_order(e.ch, ALL, 0, order), 2);
	assert_int_equal(order[0], 1);
	assert_int_equal(order[1], 0);
	assert_true(link_of(&e, 1).srtt_ns < 30 * MS && link_of(&e, 0).srtt_ns > 50 * MS);
	done(&e);
}

/* However short its round trips were before: it has not answered so often since. */
static void who_has_missed_more_answers_is_asked_later(void **state)
{
	(void)state;
	struct end e;
	uint8_t order[TNL_LINKS_MAX];
	open_agent(&e);
	add(&e, 1, 0, 0);
	e.ch->link[0]->rto.srtt = MS;
	e.ch->link[0]->rto.backoff = 3;
	e.ch->link[1]->rto.srtt = 500 * MS;
	e.ch->link[1]->rto.backoff = 1;
	assert_true(tnl_channel_link_carries(e.ch, 0) && tnl_channel_link_carries(e.ch, 1));
	assert_int_equal(tnl_channel_link_order(e.ch, ALL, 0, order), 2);
	assert_int_equal(order[0], 1);
	assert_int_equal(order[1], 0);
	done(&e);
}

static void wrong_numbers_and_no_memory_are_refused(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	assert_int_equal(tnl_channel_link_add(e.ch, TNL_LINKS_MAX, 0, 0), TNL_EINVAL);
	assert_int_equal(pull_on(&e, TNL_LINKS_MAX, 0), -1);
	tnl_channel_link_gone(e.ch, TNL_LINKS_MAX, 0);
	tnl_alloc_fail_after(0, 0);
	assert_int_equal(tnl_channel_link_add(e.ch, 1, 0, 0), TNL_ENOMEM);
	tnl_alloc_fail_after(-1, 0);
	assert_int_equal(tnl_channel_links(e.ch), 1);
	done(&e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(each_link_has_its_window),
	    cmocka_unit_test(what_was_on_a_link_that_goes_is_sent_on_the_others_at_once),
	    cmocka_unit_test(only_the_last_link_that_goes_takes_the_channel_down),
	    cmocka_unit_test(a_stalled_link_does_not_hold_the_others),
	    cmocka_unit_test(a_stalled_link_has_to_answer_to_a_copy),
	    cmocka_unit_test(an_answer_to_an_earlier_copy_counts),
	    cmocka_unit_test(when_all_are_silent_none_has_stalled),
	    cmocka_unit_test(who_is_in_doubt_is_asked_once_another_answers),
	    cmocka_unit_test(who_answers_to_any_copy_is_in_doubt_no_more),
	    cmocka_unit_test(the_oldest_goes_before_what_waits_to_be_sent_again),
	    cmocka_unit_test(the_oldest_goes_again_on_the_best_link),
	    cmocka_unit_test(the_next_oldest_does_not_wait_out_its_distance),
	    cmocka_unit_test(acks_go_back_on_the_link_of_their_message),
	    cmocka_unit_test(links_of_a_higher_rank_are_quiet),
	    cmocka_unit_test(a_channel_knows_that_its_path_is_lossy),
	    cmocka_unit_test(a_channel_knows_that_its_path_is_full),
	    cmocka_unit_test(they_are_asked_in_the_order_of_what_arrives_first),
	    cmocka_unit_test(who_has_missed_more_answers_is_asked_later),
	    cmocka_unit_test(wrong_numbers_and_no_memory_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
