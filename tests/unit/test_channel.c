/* The rules of the channel, one test each (docs/reliability.md). */
#include "tests/unit/chan_util.h"

static struct tnl_channel_stats stats(struct end *e)
{
	struct tnl_channel_stats st;
	tnl_channel_stats(e->ch, &st);
	return st;
}

/* The agent end: sends output, receives input. */
static void open_agent(struct end *e)
{
	cu_open(e, true, 0, 0, 0, false);
	tnl_channel_link_up(e->ch, 0);
}

static void done(struct end *e)
{
	tnl_channel_free(e->ch);
	assert_int_equal(tnl_alloc_live(), e->live);
}

/* Pulls one stream message and says its number; -1: nothing to pull. */
static int64_t pull_seq(struct end *e, uint64_t now)
{
	struct tnl_msg m;
	if (!cu_pull(e, now, &m))
		return -1;
	assert_int_equal(m.type, TNL_MT_OUTPUT);
	return m.seq;
}

/* Pulls one ack and says what it acknowledges; -1: nothing. */
static int64_t pull_ack(struct end *e, uint64_t now)
{
	struct tnl_msg m;
	struct tnl_ack a;
	if (!cu_pull(e, now, &m))
		return -1;
	assert_int_equal(m.type, TNL_MT_ACK);
	assert_int_equal(m.seq, 0);
	assert_int_equal(m.flags, 3);
	assert_int_equal(m.ptype, 0);
	assert_int_equal(tnl_ack_parse(m.payload, m.plen, &a), 0);
	assert_int_equal(a.type, TNL_MT_INPUT);
	return a.seq;
}

static void send_small(struct end *e, unsigned n, uint64_t now)
{
	for (unsigned i = 0; i < n; i++)
		cu_send(e, NULL, 100, now);
}

/* Sends n messages and pulls them all. */
static void fly(struct end *e, unsigned n, uint64_t now)
{
	send_small(e, n, now);
	for (unsigned i = 0; i < n; i++)
		assert_true(pull_seq(e, now) >= 0);
}

static int ack(struct end *e, int64_t seq, uint64_t now)
{
	return cu_ack_type(e, seq, TNL_MT_OUTPUT, now);
}

/* A round trip of 100 ms, well known. */
static uint64_t settle(struct end *e, unsigned rounds)
{
	uint64_t now = 0;
	for (unsigned i = 0; i < rounds; i++) {
		fly(e, 1, now);
		now += 100 * MS;
		ack(e, (int64_t)i, now);
	}
	return now;
}

/* --- sending ------------------------------------------------------------------ */

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

/* --- timer and holes ----------------------------------------------------------------- */

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

/* --- receiving --------------------------------------------------------------------------- */

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
	    cmocka_unit_test(unnumbered_then_acks_then_resends_then_new),
	    cmocka_unit_test(the_message_rate_counts_acks_and_sends_them_first),
	    cmocka_unit_test(a_pause_stops_sending_but_not_acks),
	    cmocka_unit_test(start_publication_a_message_an_ack_or_a_link_end_a_pause),
	    cmocka_unit_test(time_in_a_pause_or_without_a_link_does_not_count),
	    cmocka_unit_test(a_new_link_resends_everything_in_order_but_paced),
	    cmocka_unit_test(acks_survive_the_link),
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
