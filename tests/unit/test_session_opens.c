/* What one message of a peer may set in motion: opens, ends and resets of thousands of streams, counted in steps. */
#include "tests/unit/raw_util.h"
#include "lib/session_internal.h"
#include "lib/steps.h"

static struct {
	int opens, resets, eofs;
	struct tnl_stream *st[TNL_STREAMS_MAX];
} seen;

static void on_open(void *ctx, struct tnl_stream *st)
{
	struct end *e = ctx;
	seen.st[seen.opens++] = st;
	tnl_stream_connected(st, *e->now);
}

static void on_reset(void *ctx, struct tnl_stream *st, uint32_t reason)
{
	seen.resets++;
	tnl_stream_free(st);
}

static void on_eof(void *ctx, struct tnl_stream *st, bool half)
{
	seen.eofs++;
}

static const struct tnl_session_cb counting = {.on_open = on_open, .on_reset = on_reset, .on_eof = on_eof};

/* An agent that is ready, and a peer of our own kind. */
static void opens_agent(struct raw *r, size_t limit)
{
	struct tnl_session_config c = agent();
	memset(&seen, 0, sizeof(seen));
	c.cb = &counting;
	raw_init(r, &c);
	raw_move(r);
	raw_text(r, TNL_PT_HANDSHAKE_RESPONSE, OWN_RESPONSE);
	assert_int_equal(tnl_session_state(r->e.s), TNL_SS_READY);
	tnl_session_limit_streams(r->e.s, limit);
	tnl_buf_reset(&r->out);
}

/* One message with n frames of a kind, for the streams 3, 5, … */
static uint64_t send_frames(struct raw *r, int cmd, uint32_t first, uint32_t n, const void *data, size_t len)
{
	uint8_t *b = malloc(n * (TNL_SMUX_HDR + len));
	size_t at = 0;
	for (uint32_t i = 0; i < n; i++)
		at += raw_frame(b + at, 2, cmd, first + 2 * i, data, len);
	uint64_t before = tnl_steps_made;
	raw_send(r, TNL_PT_OUTPUT, b, at);
	free(b);
	return tnl_steps_made - before;
}

static int frames_of(struct raw *r, int cmd)
{
	struct tnl_smux_frame f;
	const uint8_t *d;
	int n = 0;
	while (raw_next_frame(r, &f, &d))
		n += f.cmd == cmd;
	return n;
}

static void one_beyond_the_limit_is_refused_alone(void **state)
{
	struct raw r;
	opens_agent(&r, 1000);
	send_frames(&r, TNL_SMUX_SYN, 3, 1001, NULL, 0);
	assert_int_equal(seen.opens, 1000);
	assert_int_equal(frames_of(&r, TNL_SMUX_RST), 1);
	assert_int_equal(tnl_session_streams(r.e.s), 1000);
	tnl_stream_free(seen.st[0]); /* one place is free again */
	send_frames(&r, TNL_SMUX_SYN, 9001, 2, NULL, 0);
	assert_int_equal(seen.opens, 1001);
	raw_fini(&r);
}

static void refusals_cost_steps_in_proportion(void **state)
{
	struct raw r;
	const uint32_t n = 5000;
	opens_agent(&r, 10);
	uint64_t steps = send_frames(&r, TNL_SMUX_SYN, 3, n, NULL, 0);
	assert_int_equal(seen.opens, 10);
	assert_int_equal(frames_of(&r, TNL_SMUX_RST), n - 10);
	assert_in_range(steps, n, 25 * n); /* the frame, and a few slots of the map for each look-up */
	assert_int_equal(r.e.s->mux.nzombies, 0);
	/* the same again, with as many that live: what is there makes nothing dearer */
	tnl_session_limit_streams(r.e.s, TNL_STREAMS_MAX);
	for (uint32_t k = 0; k < 4; k++)
		send_frames(&r, TNL_SMUX_SYN, 100003 + 8000 * k, 4000, NULL, 0);
	assert_int_equal(seen.opens, 16010);
	tnl_session_limit_streams(r.e.s, 10);
	assert_in_range(send_frames(&r, TNL_SMUX_SYN, 200003, n, NULL, 0), n, 25 * n);
	assert_int_equal(tnl_session_state(r.e.s), TNL_SS_READY);
	raw_fini(&r);
}

static void ends_and_timers_of_many(void **state)
{
	struct raw r;
	const uint32_t n = 8000;
	opens_agent(&r, TNL_STREAMS_MAX);
	send_frames(&r, TNL_SMUX_SYN, 3, n, NULL, 0);
	/* half of them end on the far side, whose time runs out at one moment */
	send_frames(&r, TNL_SMUX_FIN, 3 + n, n / 2, NULL, 0);
	assert_int_equal(seen.eofs, n / 2);
	uint64_t steps = tnl_steps_made;
	raw_advance(&r, 700 * SEC);
	assert_int_equal(seen.resets, n / 2);
	assert_in_range(tnl_steps_made - steps, 1, 100 * n);
	assert_in_range(send_frames(&r, TNL_SMUX_RST, 3, n / 2, "\0\0\0\0", 4), 1, 30 * n);
	assert_int_equal(seen.resets, n);
	assert_int_equal(tnl_session_streams(r.e.s), 0);
	raw_fini(&r);
}

/* Refusals that the peer does not acknowledge are kept: a bounded number, then it has to listen first. */
static void a_peer_that_does_not_listen(void **state)
{
	struct raw r;
	size_t held = tnl_alloc_bytes();
	opens_agent(&r, 10);
	for (int i = 0; i < 200; i++)
		send_frames(&r, TNL_SMUX_SYN, 3 + 4000u * (uint32_t)i, 2000, NULL, 0);
	assert_int_equal(frames_of(&r, TNL_SMUX_RST), 200 * 2000 - 10); /* as long as it listens */
	r.deaf = true;
	uint64_t seq = 0;
	for (; seq < 200; seq++) {
		uint8_t b[16384];
		size_t at = 0;
		for (uint32_t k = 0; k < 2000; k++)
			at += raw_frame(b + at, 2, TNL_SMUX_SYN, 0x40000003 + 4000 * (uint32_t)seq + 2 * k, NULL, 0);
		struct tnl_msg m = {.type = TNL_MT_INPUT,
				    .schema = 1,
				    .created_ms = 1,
				    .seq = tnl_channel_next(r.ch) + (int64_t)seq,
				    .ptype = TNL_PT_OUTPUT,
				    .payload = b,
				    .plen = (uint32_t)at};
		static uint8_t wire[TNL_MSG_HDR + sizeof(b)];
		size_t n = tnl_msg_encode(wire, &m);
		assert_int_equal(tnl_session_feed(r.e.s, wire, n, r.now), 0);
		const uint8_t *p;
		while (tnl_session_pull(r.e.s, r.now, &p, &n) == 1)
			;
	}
	assert_in_range(r.e.s->mux.nzombies, 1, 2 * TNL_OPENS_REFUSED_MAX);
	assert_in_range(tnl_alloc_bytes() - held, 1, 24u << 20); /* with the 16 MiB of the session itself */
	raw_fini(&r);
}

static void more_than_any_client_opens(void **state)
{
	struct raw r;
	opens_agent(&r, 10);
	uint64_t steps = send_frames(&r, TNL_SMUX_SYN, 3, 16000, NULL, 0);
	assert_int_equal(tnl_session_state(r.e.s), TNL_SS_CLOSED);
	assert_in_range(steps, 1, 16000 * 25);
	raw_fini(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(one_beyond_the_limit_is_refused_alone),
	    cmocka_unit_test(refusals_cost_steps_in_proportion),
	    cmocka_unit_test(ends_and_timers_of_many),
	    cmocka_unit_test(a_peer_that_does_not_listen),
	    cmocka_unit_test(more_than_any_client_opens),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
