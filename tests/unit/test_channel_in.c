/* The rules of the channel about receiving (docs/reliability.md), and memory that runs out. */
#include "tests/unit/chan_util.h"

static void in_order_messages_are_delivered_and_acknowledged(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	for (int64_t i = 0; i < 3; i++)
		assert_int_equal(cu_stream(&e, i, "abc", 0), 0);
	assert_int_equal(e.got, 3);
	assert_int_equal(e.last, 2);
	for (int64_t i = 0; i < 3; i++)
		assert_int_equal(pull_ack(&e, 0), i);
	assert_int_equal(pull_ack(&e, 0), -1);
	assert_int_equal(stats(&e).acks_sent, 3);
	assert_int_equal(stats(&e).payload_received, 9);
	done(&e);
}

static void every_old_number_is_acknowledged_again_each_time(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	for (int64_t i = 0; i < 3; i++)
		cu_stream(&e, i, "abc", 0);
	while (pull_ack(&e, 0) >= 0)
		;
	for (int round = 0; round < 4; round++) {
		for (int64_t i = 0; i < 3; i++) {
			assert_int_equal(cu_stream(&e, i, "abc", 0), 0);
			assert_int_equal(pull_ack(&e, 0), i);
		}
	}
	assert_int_equal(e.got, 3);
	assert_int_equal(stats(&e).duplicates, 12);
	done(&e);
}

static void early_messages_are_acknowledged_at_once_and_delivered_in_order(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	static const int64_t order[] = {3, 1, 4, 2, 3};
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(cu_stream(&e, order[i], "abc", 0), 0);
		assert_int_equal(pull_ack(&e, 0), order[i]);
	}
	assert_int_equal(e.got, 0);
	assert_int_equal(stats(&e).reorder_msgs, 4);
	assert_int_equal(cu_stream(&e, 0, "abc", 0), 0);
	assert_int_equal(e.got, 5);
	assert_int_equal(e.last, 4);
	assert_int_equal(pull_ack(&e, 0), 0);
	assert_int_equal(pull_ack(&e, 0), -1);
	assert_int_equal(stats(&e).reorder_msgs, 0);
	done(&e);
}

static void the_reorder_buffer_ends_10000_messages_ahead(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	static const int64_t far[] = {TNL_CHANNEL_CAP, TNL_CHANNEL_CAP + 1, 1ll << 40, INT64_MAX};
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(cu_stream(&e, far[i], "abc", 0), 0);
		assert_int_equal(pull_ack(&e, 0), -1);
		assert_int_equal(stats(&e).dropped_full, i + 1);
	}
	assert_int_equal(cu_stream(&e, TNL_CHANNEL_CAP - 1, "abc", 0), 0);
	assert_int_equal(pull_ack(&e, 0), TNL_CHANNEL_CAP - 1);
	for (int64_t i = TNL_CHANNEL_CAP - 2; i >= 0; i--)
		assert_int_equal(cu_stream(&e, i, "abc", 0), 0);
	assert_int_equal(e.got, TNL_CHANNEL_CAP);
	done(&e);
}

static void the_reorder_buffer_is_capped_in_bytes_too(void **state)
{
	(void)state;
	struct end e;
	cu_open(&e, true, 1u << 20, 0, 0, false);
	tnl_channel_link_up(e.ch, 0);
	char big[1025];
	memset(big, 'x', 1024);
	big[1024] = 0;
	int64_t i = 1;
	while (!stats(&e).dropped_full) {
		assert_int_equal(cu_stream(&e, i++, big, 0), 0);
		assert_true(tnl_channel_memory(e.ch) < (1u << 20) + 65536);
	}
	int64_t kept = i - 2;
	assert_in_range(kept, 500, 750);
	for (int64_t k = 1; k <= kept; k++)
		assert_int_equal(pull_ack(&e, 0), k);
	assert_int_equal(pull_ack(&e, 0), -1); /* the dropped one is not acknowledged */
	/* The hole can still be closed, and nothing is missing. */
	assert_int_equal(cu_stream(&e, 0, big, 0), 0);
	assert_int_equal(e.got, kept + 1);
	done(&e);
}

static void a_full_send_queue_leaves_room_to_close_holes(void **state)
{
	(void)state;
	struct end e;
	cu_open(&e, true, 1u << 20, 0, 0, false);
	tnl_channel_link_up(e.ch, 0);
	while (tnl_channel_reserve(e.ch, 1000))
		assert_int_equal(tnl_channel_commit(e.ch, 1, 1000, 0, 0), 0);
	for (int64_t i = 1; i < 100; i++)
		assert_int_equal(cu_stream(&e, i, "abc", 0), 0);
	assert_int_equal(stats(&e).dropped_full, 0);
	assert_true(tnl_channel_memory(e.ch) < (1u << 20) + 65536);
	done(&e);
}

static void not_ready_is_neither_acknowledged_nor_passed(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	e.verdict = TNL_EAGAIN;
	assert_int_equal(cu_stream(&e, 0, "abc", 0), 0);
	assert_int_equal(pull_ack(&e, 0), -1);
	assert_int_equal(cu_stream(&e, 0, "abc", 0), 0); /* the peer resends: still nothing */
	assert_int_equal(pull_ack(&e, 0), -1);
	assert_int_equal(cu_stream(&e, 1, "abc", 0), 0); /* a later one is early: acknowledged, owed */
	assert_int_equal(pull_ack(&e, 0), 1);
	assert_int_equal(tnl_channel_ready(e.ch, 0), 0);
	assert_int_equal(e.got, 0);
	e.verdict = 0;
	assert_int_equal(tnl_channel_ready(e.ch, 0), 0);
	assert_int_equal(e.got, 2);
	assert_int_equal(pull_ack(&e, 0), 0);
	assert_int_equal(pull_ack(&e, 0), -1);
	assert_int_equal(cu_stream(&e, 2, "abc", 0), 0);
	assert_int_equal(e.got, 3);
	done(&e);
}

static void what_was_acknowledged_early_is_owed_when_the_consumer_is_not_ready(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	for (int64_t i = 1; i < 5; i++) {
		cu_stream(&e, i, "abc", 0);
		assert_int_equal(pull_ack(&e, 0), i);
	}
	e.room = 2;
	assert_int_equal(cu_stream(&e, 0, "abc", 0), 0);
	assert_int_equal(e.got, 2);
	assert_int_equal(pull_ack(&e, 0), 0);
	tnl_channel_link_down(e.ch, 0); /* not even a new link loses it */
	tnl_channel_link_up(e.ch, 0);
	e.room = 1;
	assert_int_equal(tnl_channel_ready(e.ch, 0), 0);
	assert_int_equal(e.got, 3);
	e.room = UINT_MAX;
	assert_int_equal(tnl_channel_ready(e.ch, 0), 0);
	assert_int_equal(e.got, 5);
	assert_int_equal(e.last, 4);
	assert_int_equal(pull_ack(&e, 0), -1); /* once is enough */
	done(&e);
}

static void a_resend_makes_the_consumer_try_again(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	e.verdict = TNL_EAGAIN;
	cu_stream(&e, 0, "abc", 0);
	e.verdict = 0;
	cu_stream(&e, 0, "abc", 0);
	assert_int_equal(e.got, 1);
	assert_int_equal(pull_ack(&e, 0), 0);
	assert_int_equal(pull_ack(&e, 0), -1);
	done(&e);
}

static void a_protocol_error_of_the_consumer_ends_the_session(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	e.verdict = TNL_EPROTO;
	assert_int_equal(cu_stream(&e, 0, "abc", 0), TNL_EPROTO);
	assert_int_equal(pull_ack(&e, 0), -1);
	done(&e);
}

static void foreign_and_hostile_messages_are_ignored(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	struct tnl_msg m = {.type = TNL_MT_OUTPUT, .payload = (const uint8_t *)"x", .plen = 1};
	assert_int_equal(tnl_channel_feed(e.ch, &m, 0), 0); /* our own direction */
	assert_int_equal(stats(&e).bad, 1);
	assert_int_equal(cu_stream(&e, -1, "abc", 0), 0);
	assert_int_equal(cu_stream(&e, INT64_MIN, "abc", 0), 0);
	assert_int_equal(stats(&e).bad, 3);
	for (int t = TNL_MT_UNKNOWN; t < TNL_MT_COUNT; t++) {
		if (t == TNL_MT_INPUT || t == TNL_MT_OUTPUT || t == TNL_MT_ACK)
			continue;
		m.type = (enum tnl_mtype)t;
		assert_int_equal(tnl_channel_feed(e.ch, &m, 0), 0);
	}
	assert_int_equal(e.got, 0);
	assert_int_equal(pull_ack(&e, 0), -1);
	done(&e);
}

static void a_peer_that_never_reads_its_acks_fills_nothing(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	for (unsigned i = 0; i < 100000; i++)
		assert_int_equal(cu_stream(&e, i % 50 ? 0 : i / 50, "abc", 0), 0);
	assert_true(tnl_channel_memory(e.ch) < 1u << 20);
	assert_int_equal(e.got, 2000);
	done(&e);
}

static void echo(struct end *e, const struct tnl_msg *m, uint64_t now)
{
	uint8_t *p = tnl_channel_reserve(e->ch, m->plen);
	assert_non_null(p);
	memcpy(p, m->payload, m->plen);
	assert_int_equal(tnl_channel_commit(e->ch, 1, m->plen, 0, now), 0);
}

static void the_consumer_may_answer_from_inside(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	e.tap = echo;
	cu_stream(&e, 1, "two", 0);
	cu_stream(&e, 0, "one", 0);
	assert_int_equal(pull_ack(&e, 0), 1);
	assert_int_equal(pull_ack(&e, 0), 0);
	struct tnl_msg m;
	assert_true(cu_pull(&e, 0, &m));
	assert_memory_equal(m.payload, "one", 3);
	assert_true(cu_pull(&e, 0, &m));
	assert_memory_equal(m.payload, "two", 3);
	done(&e);
}

/* --- memory that runs out ------------------------------------------------------------------ */

/* Each allocation in turn fails, once and for good: nothing is lost, nothing leaks. */
static void failing_allocations_lose_nothing(void **state)
{
	(void)state;
	for (int sticky = 0; sticky < 2; sticky++) {
		for (long n = 0; n < 200; n++) {
			struct end a, b;
			cu_open(&a, true, 0, 0, 0, false);
			cu_open(&b, false, 0, 0, 0, false);
			tnl_channel_link_up(a.ch, 0);
			tnl_channel_link_up(b.ch, 0);
			uint64_t now = 0;
			tnl_alloc_fail_after(n, sticky);
			unsigned sent = 0;
			for (unsigned i = 0; i < 150 || !tnl_channel_idle(a.ch); i++) {
				if (i == 150)
					tnl_alloc_fail_after(-1, 0);
				uint8_t *p = i < 150 ? tnl_channel_reserve(a.ch, 1 + i * 37 % 3000) : NULL;
				if (p) {
					memset(p, (int)sent, 1 + i * 37 % 3000);
					if (tnl_channel_commit(a.ch, 1, 1 + i * 37 % 3000, 0, now) == 0)
						sent++;
				}
				struct tnl_msg m;
				unsigned k = 0;
				while (cu_pull(&a, now, &m))
					if (k++ % 5 != 1) /* some are lost: the reorder buffer is used */
						assert_int_equal(tnl_channel_feed(b.ch, &m, now), 0);
				now += 10 * MS;
				while (cu_pull(&b, now, &m))
					assert_int_equal(tnl_channel_feed(a.ch, &m, now), 0);
				assert_int_equal(tnl_channel_expire(a.ch, now), 0);
				assert_true(i < 20000);
			}
			tnl_alloc_fail_after(-1, 0);
			assert_int_equal(b.got, sent);
			assert_int_equal(b.last, (int64_t)sent - 1);
			tnl_channel_free(b.ch);
			done(&a);
		}
	}
	tnl_alloc_fail_after(0, 1);
	struct tnl_channel_config c = {.send_type = TNL_MT_OUTPUT, .recv_type = TNL_MT_INPUT};
	assert_null(tnl_channel_new(&c, 0));
	tnl_alloc_fail_after(-1, 0);
	tnl_channel_free(NULL);
}

/* A bulk transfer recycles its buffers: no allocation for each message. */
static void a_bulk_transfer_does_not_allocate(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	uint64_t now = 0;
	long before = 0;
	for (unsigned i = 0; i < 2000; i++) {
		if (i == 1000)
			before = tnl_alloc_count();
		for (int k = 0; k < 5; k++)
			cu_send(&e, NULL, 4000, now);
		int64_t s;
		now += MS / 10;
		while ((s = pull_seq(&e, now)) >= 0)
			ack(&e, s, now);
	}
	assert_in_range(tnl_alloc_count() - before, 0, 20);
	done(&e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(in_order_messages_are_delivered_and_acknowledged),
	    cmocka_unit_test(every_old_number_is_acknowledged_again_each_time),
	    cmocka_unit_test(early_messages_are_acknowledged_at_once_and_delivered_in_order),
	    cmocka_unit_test(the_reorder_buffer_ends_10000_messages_ahead),
	    cmocka_unit_test(the_reorder_buffer_is_capped_in_bytes_too),
	    cmocka_unit_test(a_full_send_queue_leaves_room_to_close_holes),
	    cmocka_unit_test(not_ready_is_neither_acknowledged_nor_passed),
	    cmocka_unit_test(what_was_acknowledged_early_is_owed_when_the_consumer_is_not_ready),
	    cmocka_unit_test(a_resend_makes_the_consumer_try_again),
	    cmocka_unit_test(a_protocol_error_of_the_consumer_ends_the_session),
	    cmocka_unit_test(foreign_and_hostile_messages_are_ignored),
	    cmocka_unit_test(a_peer_that_never_reads_its_acks_fills_nothing),
	    cmocka_unit_test(the_consumer_may_answer_from_inside),
	    cmocka_unit_test(failing_allocations_lose_nothing),
	    cmocka_unit_test(a_bulk_transfer_does_not_allocate),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
