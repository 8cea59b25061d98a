/* The rules of the channel, one test each (docs/reliability.md): sending, pauses, links. */
#include "tests/unit/chan_util.h"

static void numbers_count_from_0_and_the_header_is_right(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	uint8_t *p = tnl_channel_reserve(e.ch, 5);
	memcpy(p, "hello", 5);
	assert_int_equal(tnl_channel_commit(e.ch, TNL_PT_HANDSHAKE_REQUEST, 5, TNL_MF_SYN, 0), 0);
	cu_send(&e, "x", 1, 0);
	struct tnl_msg m;
	assert_true(cu_pull(&e, 0, &m));
	assert_int_equal(m.seq, 0);
	assert_int_equal(m.flags, 1);
	assert_int_equal(m.ptype, TNL_PT_HANDSHAKE_REQUEST);
	assert_int_equal(m.created_ms, cu_wall(NULL));
	assert_int_equal(m.schema, 1);
	assert_memory_equal(m.payload, "hello", 5);
	assert_true(cu_pull(&e, 0, &m));
	assert_int_equal(m.seq, 1);
	assert_false(cu_pull(&e, 0, &m));
	assert_int_equal(stats(&e).inflight_msgs, 2);
	done(&e);
}

static void acks_are_selective_and_matched_by_number_alone(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	fly(&e, 3, 0);
	assert_int_equal(cu_ack_type(&e, 2, TNL_MT_INPUT, MS), 0); /* the type does not matter */
	assert_int_equal(stats(&e).inflight_msgs, 2);
	assert_int_equal(ack(&e, 2, MS), 0); /* again: nothing */
	assert_int_equal(stats(&e).inflight_msgs, 2);
	assert_int_equal(stats(&e).bad, 0);
	ack(&e, 0, MS);
	assert_false(tnl_channel_idle(e.ch));
	ack(&e, 1, MS);
	assert_true(tnl_channel_idle(e.ch));
	done(&e);
}

static void acks_for_numbers_never_sent_are_ignored_and_counted(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	fly(&e, 2, 0);
	send_small(&e, 1, 0); /* number 2: committed, not sent */
	static const int64_t wild[] = {2, 3, 10000, -1, INT64_MAX, INT64_MIN};
	for (unsigned i = 0; i < 6; i++) {
		assert_int_equal(ack(&e, wild[i], MS), 0);
		assert_int_equal(stats(&e).bad, i + 1);
	}
	assert_int_equal(stats(&e).inflight_msgs, 2);
	assert_int_equal(pull_seq(&e, MS), 2);
	struct tnl_msg junk = {.type = TNL_MT_ACK, .payload = (const uint8_t *)"{}", .plen = 2};
	assert_int_equal(tnl_channel_feed(e.ch, &junk, MS), 0);
	assert_int_equal(stats(&e).bad, 7);
	done(&e);
}

static void a_resend_is_the_same_bytes(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	cu_send(&e, NULL, 500, 0);
	const uint8_t *p;
	size_t n;
	uint8_t first[620];
	assert_int_equal(tnl_channel_pull(e.ch, 0, &p, &n), 1);
	assert_int_equal(n, sizeof(first));
	memcpy(first, p, n);
	assert_int_equal(tnl_channel_expire(e.ch, 200 * MS), 0);
	assert_int_equal(tnl_channel_pull(e.ch, 200 * MS, &p, &n), 1);
	assert_int_equal(n, sizeof(first));
	assert_memory_equal(p, first, n);
	assert_int_equal(stats(&e).resent, 1);
	done(&e);
}

static void no_more_than_10000_messages_wait_for_acks(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	send_small(&e, TNL_CHANNEL_CAP, 0);
	assert_null(tnl_channel_reserve(e.ch, 10));
	assert_int_equal(tnl_channel_can_send(e.ch, 0), 0);
	uint64_t now = MS;
	int64_t s;
	while ((s = pull_seq(&e, now)) >= 0 && s < 200)
		if (s > 0)
			ack(&e, s, now += MS / 100);
	/* 200 acknowledged, but number 0 is missing: the peer could not keep what lies beyond. */
	assert_null(tnl_channel_reserve(e.ch, 10));
	ack(&e, 0, now);
	assert_non_null(tnl_channel_reserve(e.ch, 10));
	done(&e);
}

static void memory_is_a_hard_cap_and_counted_exactly(void **state)
{
	(void)state;
	struct end e;
	cu_open(&e, true, 1u << 20, 0, 0, false);
	tnl_channel_link_up(e.ch, 0);
	size_t empty = tnl_channel_memory(e.ch);
	unsigned n = 0;
	while (tnl_channel_reserve(e.ch, 1000)) {
		assert_int_equal(tnl_channel_commit(e.ch, 1, 1000, 0, 0), 0);
		n++;
	}
	/* Three quarters at most, the rest belongs to the other direction. */
	assert_in_range(n, 550, 700);
	assert_true(tnl_channel_memory(e.ch) <= (3u << 18) + empty + 1024 * sizeof(void *));
	assert_true(tnl_channel_memory(e.ch) > n * 1120);
	assert_int_equal(stats(&e).memory, tnl_channel_memory(e.ch));
	assert_int_equal(tnl_channel_can_send(e.ch, 0), 0);
	/* What the window lets out comes back, and room with it. */
	uint64_t now = 0;
	int64_t s;
	for (unsigned i = 0; i < n; i++) {
		s = pull_seq(&e, now);
		assert_int_equal(s, i);
		ack(&e, s, now += MS);
	}
	assert_true(tnl_channel_idle(e.ch));
	assert_int_equal(tnl_channel_expire(e.ch, now += SEC), 0);
	assert_int_equal(tnl_channel_expire(e.ch, now += SEC), 0);
	assert_int_equal(tnl_channel_expire(e.ch, now += SEC), 0);
	assert_int_equal(tnl_channel_memory(e.ch), empty);
	assert_int_equal(tnl_channel_deadline(e.ch), UINT64_MAX);
	done(&e);
}

static void a_short_read_does_not_hold_a_large_buffer(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	for (unsigned i = 0; i < 1000; i++) {
		uint8_t *p = tnl_channel_reserve(e.ch, 32768);
		assert_non_null(p);
		memset(p, (int)i, 10);
		assert_int_equal(tnl_channel_commit(e.ch, 1, 10, 0, 0), 0);
	}
	assert_true(tnl_channel_memory(e.ch) < 600000);
	struct tnl_msg m;
	assert_true(cu_pull(&e, 0, &m));
	assert_true(cu_pull(&e, 0, &m));
	assert_int_equal(m.plen, 10);
	assert_int_equal(m.payload[9], 1);
	done(&e);
}

static void reserve_and_commit_refuse_what_is_wrong(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	assert_int_equal(tnl_channel_commit(e.ch, 1, 1, 0, 0), TNL_EINVAL);
	assert_null(tnl_channel_reserve(e.ch, TNL_MSG_MAX_PAYLOAD + 1));
	assert_non_null(tnl_channel_reserve(e.ch, TNL_MSG_MAX_PAYLOAD));
	assert_null(tnl_channel_reserve(e.ch, 1)); /* one at a time */
	assert_int_equal(tnl_channel_commit(e.ch, 1, 0, 0, 0), TNL_EINVAL);
	assert_int_equal(tnl_channel_commit(e.ch, 1, TNL_MSG_MAX_PAYLOAD + 1, 0, 0), TNL_EINVAL);
	tnl_channel_abandon(e.ch);
	tnl_channel_abandon(e.ch);
	cu_send(&e, NULL, 1, 0);
	assert_int_equal(pull_seq(&e, 0), 0); /* an abandoned one takes no number */
	done(&e);
}

static void payload_sizes_start_at_1024_towards_stock_ends(void **state)
{
	(void)state;
	struct end e;
	cu_open(&e, true, 0, 0, 0, true);
	assert_int_equal(tnl_channel_can_send(e.ch, 0), 0); /* no link */
	tnl_channel_link_up(e.ch, 0);
	assert_int_equal(tnl_channel_can_send(e.ch, 0), 1024);
	tnl_channel_set_max_payload(e.ch, 16384);
	assert_true(tnl_channel_can_send(e.ch, 0) > 4096);
	assert_true(tnl_channel_can_send(e.ch, 0) <= 16384);
	tnl_channel_set_max_payload(e.ch, 1);
	assert_int_equal(tnl_channel_max_payload(e.ch), 1024);
	tnl_channel_set_max_payload(e.ch, SIZE_MAX);
	assert_int_equal(tnl_channel_max_payload(e.ch), TNL_MSG_MAX_PAYLOAD);
	done(&e);
}

static void small_urgent_messages_overdraw_the_window(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	size_t n;
	while ((n = tnl_channel_can_send(e.ch, 0)))
		cu_send(&e, NULL, n, 0);
	while (pull_seq(&e, 0) >= 0)
		;
	assert_int_equal(tnl_channel_can_send(e.ch, 0), 0);
	unsigned k = 0;
	while ((n = tnl_channel_can_send_small(e.ch, 0))) {
		assert_int_equal(n, 1024);
		cu_send(&e, NULL, n, 0);
		assert_true(pull_seq(&e, 0) >= 0);
		k++;
	}
	assert_in_range(k, 5, 20);
	done(&e);
}

/* Short of memory: small messages, few on their way, but always one, and nothing spare. */
static void a_narrow_channel_sends_little_and_goes_on(void **state)
{
	(void)state;
	struct end e;
	size_t n, out = 0;
	int64_t next = 0;
	open_agent(&e);
	assert_true(tnl_channel_can_send(e.ch, 0) > 4096);
	for (int i = 0; i < 4; i++)
		cu_send(&e, NULL, 4000, 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pull_seq(&e, 0), i);
	for (int i = 0; i < 4; i++)
		assert_int_equal(ack(&e, next++, MS), 0);
	assert_true(e.ch->pool.kept > 0);
	size_t before = tnl_channel_memory(e.ch);
	tnl_channel_narrow(e.ch, true);
	assert_int_equal(e.ch->pool.kept, 0);
	assert_true(tnl_channel_memory(e.ch) + 8000 < before);
	while ((n = tnl_channel_can_send(e.ch, MS)) && out < 1u << 20) {
		assert_true(n <= 4096);
		cu_send(&e, NULL, n, MS);
		out += n;
	}
	assert_in_range(out, 8192, 16384);
	while ((n = tnl_channel_can_send_small(e.ch, MS)) && out < 1u << 20) {
		cu_send(&e, NULL, n, MS);
		out += n;
	}
	assert_in_range(out, 12288, 16384);
	while (pull_seq(&e, MS) >= 0)
		;
	assert_int_equal(tnl_channel_can_send(e.ch, MS), 0); /* what is in flight counts as what waits does */
	assert_int_equal(ack(&e, next++, 2 * MS), 0);
	assert_int_equal(e.ch->pool.kept, 0);
	assert_true(tnl_channel_can_send(e.ch, 2 * MS) > 0);
	tnl_channel_narrow(e.ch, false);
	assert_true(tnl_channel_can_send(e.ch, 2 * MS) > 4096);
	done(&e);
}

/* However large what went before is: it is one message that is on its way. */
static void a_narrow_channel_waits_for_what_went_before(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	cu_send(&e, NULL, 30000, 0);
	tnl_channel_narrow(e.ch, true);
	assert_int_equal(tnl_channel_can_send(e.ch, 0), 0);
	assert_int_equal(pull_seq(&e, 0), 0);
	assert_int_equal(tnl_channel_can_send(e.ch, 0), 0);
	assert_int_equal(ack(&e, 0, MS), 0);
	assert_int_equal(tnl_channel_can_send(e.ch, MS), 4096);
	assert_int_equal(e.ch->pool.used, 0);
	assert_non_null(tnl_channel_reserve(e.ch, 4096)); /* a short read holds no more than it needs */
	assert_int_equal(tnl_channel_commit(e.ch, TNL_PT_OUTPUT, 1100, 0, MS), 0);
	assert_in_range(e.ch->pool.used, 1100, 3000);
	done(&e);
}

static void unnumbered_then_acks_then_resends_then_new(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	uint64_t now = settle(&e, 8);
	fly(&e, 6, now); /* 8 … 13 */
	send_small(&e, 1, now);
	now += 100 * MS;
	ack(&e, 12, now); /* 8 and 9 are holes: three later ones are known to be sent; */
	cu_stream(&e, 0, "in", now);
	assert_int_equal(tnl_channel_send_unnumbered(e.ch, TNL_MT_SESSION_STATE, "{}", 2, now), 0);
	struct tnl_msg m;
	assert_true(cu_pull(&e, now, &m));
	assert_int_equal(m.type, TNL_MT_SESSION_STATE);
	assert_int_equal(m.flags, 3);
	assert_int_equal(m.seq, 0);
	assert_int_equal(pull_ack(&e, now), 0);
	assert_int_equal(pull_seq(&e, now), 8);
	assert_int_equal(pull_seq(&e, now), 9);
	assert_int_equal(pull_seq(&e, now), 14);
	assert_int_equal(pull_seq(&e, now), -1);
	done(&e);
}

static void the_message_rate_counts_acks_and_sends_them_first(void **state)
{
	(void)state;
	struct end e;
	cu_open(&e, true, 0, 900, 0, true);
	tnl_channel_link_up(e.ch, 0);
	send_small(&e, 2000, 0);
	int64_t in = 0;
	uint64_t times[4000];
	unsigned n = 0, acks = 0;
	for (uint64_t now = 0; now < 3 * SEC; now += MS) {
		if (now % (2 * MS) == 0)
			cu_stream(&e, in++, "in", now);
		struct tnl_msg m;
		bool stream = false;
		while (cu_pull(&e, now, &m)) {
			times[n++] = now;
			if (m.type == TNL_MT_ACK) {
				assert_false(stream);
				acks++;
			} else {
				stream = true;
				ack(&e, m.seq, now);
			}
		}
		assert_int_equal(tnl_channel_expire(e.ch, now), 0);
		assert_true(tnl_channel_deadline(e.ch) > now);
	}
	assert_in_range(n, 2400, 2700);
	assert_in_range(acks, 1400, 1500);
	for (unsigned i = 900; i < n; i++)
		assert_true(times[i] - times[i - 900] >= SEC - MS);
	done(&e);
}

/* --- pause and links ------------------------------------------------------------- */

static void a_pause_stops_sending_but_not_acks(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	fly(&e, 1, 0);
	send_small(&e, 1, 0);
	cu_control(&e, TNL_MT_PAUSE_PUBLICATION, MS);
	assert_true(e.ch->paused);
	assert_int_equal(tnl_channel_can_send(e.ch, MS), 0);
	assert_int_equal(tnl_channel_can_send_small(e.ch, MS), 0);
	send_small(&e, 1, MS); /* still kept, up to the caps */
	assert_int_equal(pull_seq(&e, MS), -1);
	assert_int_equal(tnl_channel_expire(e.ch, 3600 * SEC), 0);
	assert_int_equal(pull_seq(&e, 3600 * SEC), -1);
	assert_int_equal(stats(&e).resent, 0);
	/* An ack that was queued before the pause still goes out. */
	cu_control(&e, TNL_MT_START_PUBLICATION, 3600 * SEC);
	cu_stream(&e, 0, "in", 3600 * SEC);
	cu_control(&e, TNL_MT_PAUSE_PUBLICATION, 3600 * SEC);
	assert_int_equal(pull_ack(&e, 3600 * SEC), 0);
	assert_int_equal(pull_seq(&e, 3600 * SEC), -1);
	done(&e);
}

static void start_publication_a_message_an_ack_or_a_link_end_a_pause(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	fly(&e, 1, 0);
	for (int how = 0; how < 4; how++) {
		cu_control(&e, TNL_MT_PAUSE_PUBLICATION, MS);
		assert_true(e.ch->paused);
		if (how == 0)
			cu_control(&e, TNL_MT_START_PUBLICATION, MS);
		else if (how == 1)
			cu_stream(&e, 0, "in", MS);
		else if (how == 2)
			ack(&e, 0, MS);
		else
			tnl_channel_link_up(e.ch, MS);
		assert_false(e.ch->paused);
		assert_true(tnl_channel_can_send(e.ch, MS) > 0);
	}
	/* What is nothing of the other end's does not end it. */
	cu_control(&e, TNL_MT_PAUSE_PUBLICATION, MS);
	struct tnl_msg junk = {.type = TNL_MT_ACK, .payload = (const uint8_t *)"?", .plen = 1};
	assert_int_equal(tnl_channel_feed(e.ch, &junk, MS), 0);
	cu_control(&e, TNL_MT_SESSION_STATE, MS);
	assert_true(e.ch->paused);
	done(&e);
}

static void time_in_a_pause_or_without_a_link_does_not_count(void **state)
{
	(void)state;
	struct end e;
	cu_open(&e, true, 0, 0, 2, false);
	tnl_channel_link_up(e.ch, 0);
	fly(&e, 1, 0);
	uint64_t now = 150 * MS, rtt = stats(&e).srtt_ns;
	for (int i = 0; i < 10; i++) {
		cu_control(&e, TNL_MT_PAUSE_PUBLICATION, now);
		now += 500 * MS;
		assert_int_equal(tnl_channel_expire(e.ch, now), 0);
		cu_control(&e, TNL_MT_START_PUBLICATION, now);
		now += 150 * MS;
		assert_int_equal(tnl_channel_expire(e.ch, now), 0);
		assert_int_equal(pull_seq(&e, now), -1);
	}
	assert_int_equal(stats(&e).resent, 0);
	/* Its round trip spans the pauses: no sample. */
	ack(&e, 0, now);
	assert_int_equal(stats(&e).srtt_ns, rtt);
	fly(&e, 1, now);
	for (int i = 0; i < 10; i++) {
		tnl_channel_link_down(e.ch, now);
		now += 3600 * SEC;
		assert_int_equal(tnl_channel_expire(e.ch, now), 0);
		assert_int_equal(pull_seq(&e, now), -1);
		tnl_channel_link_up(e.ch, now);
		assert_int_equal(pull_seq(&e, now), 1); /* resends of a new link do not count either */
		assert_int_equal(pull_seq(&e, now), -1);
	}
	done(&e);
}

static void a_new_link_resends_everything_in_order_but_paced(void **state)
{
	(void)state;
	struct end a, b;
	open_agent(&a);
	cu_open(&b, false, 0, 0, 0, false);
	tnl_channel_link_up(b.ch, 0);
	tnl_channel_set_max_payload(a.ch, 4096);
	for (unsigned i = 0; i < 2000; i++)
		cu_send(&a, NULL, 4096, 0);
	/* Let the window grow, then lose all. */
	uint64_t now = 0;
	int64_t s;
	while (stats(&a).inflight_msgs < 500) {
		while ((s = pull_seq(&a, now)) >= 0)
			;
		now += MS;
		for (int64_t k = 0; k < 800; k++)
			ack(&a, k, now);
	}
	size_t flight = stats(&a).inflight_bytes;
	tnl_channel_link_down(a.ch, now);
	tnl_channel_link_up(a.ch, now += SEC);
	assert_int_equal(stats(&a).inflight_bytes, 0);
	int64_t want = 800;
	size_t burst = 0;
	while ((s = pull_seq(&a, now)) >= 0) {
		assert_int_equal(s, want++);
		burst++;
	}
	assert_true(burst * 4216 < flight / 4);
	/* The rest follows the acks. */
	for (int64_t k = 800; k < 2000; k++) {
		ack(&a, k, now += MS);
		while ((s = pull_seq(&a, now)) >= 0)
			assert_int_equal(s, want++);
	}
	assert_int_equal(want, 2000);
	assert_true(tnl_channel_idle(a.ch));
	tnl_channel_free(b.ch);
	done(&a);
}

static void acks_survive_the_link(void **state)
{
	(void)state;
	struct end e;
	open_agent(&e);
	cu_stream(&e, 0, "in", 0);
	tnl_channel_link_down(e.ch, 0);
	assert_int_equal(pull_ack(&e, 0), -1);
	tnl_channel_link_up(e.ch, SEC);
	assert_int_equal(pull_ack(&e, SEC), 0);
	done(&e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(numbers_count_from_0_and_the_header_is_right),
	    cmocka_unit_test(acks_are_selective_and_matched_by_number_alone),
	    cmocka_unit_test(acks_for_numbers_never_sent_are_ignored_and_counted),
	    cmocka_unit_test(a_resend_is_the_same_bytes),
	    cmocka_unit_test(no_more_than_10000_messages_wait_for_acks),
	    cmocka_unit_test(memory_is_a_hard_cap_and_counted_exactly),
	    cmocka_unit_test(a_short_read_does_not_hold_a_large_buffer),
	    cmocka_unit_test(reserve_and_commit_refuse_what_is_wrong),
	    cmocka_unit_test(payload_sizes_start_at_1024_towards_stock_ends),
	    cmocka_unit_test(small_urgent_messages_overdraw_the_window),
	    cmocka_unit_test(a_narrow_channel_sends_little_and_goes_on),
	    cmocka_unit_test(a_narrow_channel_waits_for_what_went_before),
	    cmocka_unit_test(unnumbered_then_acks_then_resends_then_new),
	    cmocka_unit_test(the_message_rate_counts_acks_and_sends_them_first),
	    cmocka_unit_test(a_pause_stops_sending_but_not_acks),
	    cmocka_unit_test(start_publication_a_message_an_ack_or_a_link_end_a_pause),
	    cmocka_unit_test(time_in_a_pause_or_without_a_link_does_not_count),
	    cmocka_unit_test(a_new_link_resends_everything_in_order_but_paced),
	    cmocka_unit_test(acks_survive_the_link),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
