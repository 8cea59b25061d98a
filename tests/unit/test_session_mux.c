/* smux on the wire: what is accepted, dropped or fatal, ids, windows, whose turn it is. */
#include "tests/unit/raw_util.h"
#include "lib/channel_internal.h"
#include "lib/num.h"

/* §7: a frame may span messages and a message may hold many frames. */
static void every_split(void **state)
{
	uint8_t b[256];
	size_t n = 0;
	(void)state;
	n += raw_frame(b + n, 1, TNL_SMUX_SYN, 3, NULL, 0);
	n += raw_frame(b + n, 1, TNL_SMUX_PSH, 3, "hello", 5);
	n += raw_frame(b + n, 1, TNL_SMUX_NOP, 0, NULL, 0);
	n += raw_frame(b + n, 1, TNL_SMUX_PSH, 3, "\n", 1);
	n += raw_frame(b + n, 1, TNL_SMUX_SYN, 5, NULL, 0);
	n += raw_frame(b + n, 1, TNL_SMUX_PSH, 5, "", 0);
	n += raw_frame(b + n, 1, TNL_SMUX_PSH, 5, "world", 5);
	n += raw_frame(b + n, 1, TNL_SMUX_FIN, 3, NULL, 0);
	for (size_t cut = 1; cut <= n; cut++) {
		struct raw r;
		struct tnl_session_config c = agent();
		raw_agent(&r, &c, STOCK_RESPONSE("1.2.707.0"));
		raw_send(&r, TNL_PT_OUTPUT, b, cut);
		if (cut < n)
			raw_send(&r, TNL_PT_OUTPUT, b + cut, n - cut);
		assert_int_equal(r.e.nrec, 2);
		rec_expect(&r.e.rec[0], "hello\n");
		rec_expect(&r.e.rec[1], "world");
		assert_true(r.e.rec[0].eof && !r.e.rec[0].half);
		raw_expect_frame(&r, 1, TNL_SMUX_FIN, 3, NULL, 0); /* a stock FIN closes both ways */
		raw_expect_quiet(&r);
		raw_fini(&r);
	}
}

static void one_byte_messages(void **state)
{
	struct raw r;
	struct tnl_session_config c = agent();
	uint8_t b[64];
	size_t n = 0;
	(void)state;
	raw_agent(&r, &c, OWN_RESPONSE);
	n += raw_frame(b + n, 2, TNL_SMUX_SYN, 3, NULL, 0);
	n += raw_frame(b + n, 2, TNL_SMUX_PSH, 3, "abc", 3);
	n += raw_frame(b + n, 2, TNL_SMUX_RST, 3, "\1\0\0\0", 4);
	for (size_t i = 0; i < n; i++)
		raw_send(&r, TNL_PT_OUTPUT, b + i, 1);
	rec_expect(&r.e.rec[0], "abc");
	assert_true(r.e.rec[0].reset);
	assert_int_equal(r.e.rec[0].reason, TNL_RESET_PEER);
	raw_fini(&r);
}

struct bad_case {
	const char *name;
	bool own;
	uint8_t head[24];
	size_t n;
};

/* Each ends the session with TNL_EPROTO: a stream of frames cannot be found again. */
static void fatal_frames(void **state)
{
	static const struct bad_case cases[] = {
	    {"version 0", false, {0, 3, 0, 0, 0, 0, 0, 0}, 8},
	    {"version 2 in a version 1 session", false, {2, 3, 0, 0, 0, 0, 0, 0}, 8},
	    {"version 1 in a version 2 session", true, {1, 3, 0, 0, 0, 0, 0, 0}, 8},
	    {"cmd 6", true, {2, 6, 0, 0, 0, 0, 0, 0}, 8},
	    {"cmd 255", false, {1, 255, 0, 0, 0, 0, 0, 0}, 8},
	    {"UPD in version 1", false, {1, 4, 8, 0, 3, 0, 0, 0}, 8},
	    {"RST not agreed", false, {1, 5, 4, 0, 3, 0, 0, 0}, 8},
	    {"RST length", true, {2, 5, 5, 0, 3, 0, 0, 0}, 8},
	    {"UPD length", true, {2, 4, 4, 0, 3, 0, 0, 0}, 8},
	    {"NOP with payload", false, {1, 3, 1, 0, 0, 0, 0, 0}, 8},
	    {"SYN with payload", false, {1, 0, 1, 0, 3, 0, 0, 0}, 8},
	    {"FIN with payload", false, {1, 1, 0, 1, 3, 0, 0, 0}, 8},
	    {"UPD of more than was sent",
	     true,
	     {2, 0, 0, 0, 3, 0, 0, 0, 2, 4, 8, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0},
	     24},
	};
	(void)state;
	for (size_t i = 0; i < TNL_COUNT(cases); i++) {
		struct raw r;
		struct tnl_session_config c = agent();
		raw_agent(&r, &c, cases[i].own ? OWN_RESPONSE : STOCK_RESPONSE("1.2.707.0"));
		raw_send(&r, TNL_PT_OUTPUT, cases[i].head, cases[i].n);
		if (!r.e.closed || r.e.err != TNL_EPROTO)
			fail_msg("not refused: %s", cases[i].name);
		raw_fini(&r);
	}
}

static void window_overrun_is_fatal(void **state)
{
	struct raw r;
	struct tnl_session_config c = agent();
	uint8_t *big = calloc(1, 65535);
	(void)state;
	c.stream_window = 65536;
	raw_agent(&r, &c, OWN_RESPONSE);
	raw_smux(&r, 2, TNL_SMUX_SYN, 3, NULL, 0);
	r.e.rec[0].take = 0;
	raw_smux(&r, 2, TNL_SMUX_PSH, 3, big, 65535);
	raw_smux(&r, 2, TNL_SMUX_PSH, 3, big, 1);
	assert_int_equal(r.e.closed, 0);
	raw_smux(&r, 2, TNL_SMUX_PSH, 3, big, 1);
	assert_int_equal(r.e.err, TNL_EPROTO);
	free(big);
	raw_fini(&r);
}

static void harmless_oddities(void **state)
{
	struct raw r;
	struct tnl_session_config c = agent();
	(void)state;
	raw_agent(&r, &c, STOCK_RESPONSE("1.2.707.0"));
	raw_smux(&r, 1, TNL_SMUX_PSH, 9, "lost", 4); /* unknown id */
	raw_smux(&r, 1, TNL_SMUX_FIN, 9, NULL, 0);
	raw_smux(&r, 1, TNL_SMUX_SYN, 0, NULL, 0); /* the session's own id */
	raw_smux(&r, 1, TNL_SMUX_SYN, 4, NULL, 0); /* even ids are fine */
	raw_smux(&r, 1, TNL_SMUX_PSH, 4, "a", 1);
	raw_smux(&r, 1, TNL_SMUX_SYN, 4, NULL, 0); /* known id: ignored */
	raw_smux(&r, 1, TNL_SMUX_PSH, 4, "b", 1);
	raw_smux(&r, 1, TNL_SMUX_FIN, 4, NULL, 0);
	raw_smux(&r, 1, TNL_SMUX_PSH, 4, "late", 4); /* after FIN */
	raw_smux(&r, 1, TNL_SMUX_FIN, 4, NULL, 0);
	assert_int_equal(r.e.closed, 0);
	assert_int_equal(r.e.nrec, 1);
	rec_expect(&r.e.rec[0], "ab");
	assert_true(tnl_session_stats(r.e.s)->unknown_frames >= 4);
	raw_fini(&r);
}

/* Frames up to 65,535 bytes, over many messages. */
static void long_frame(void **state)
{
	struct raw r;
	struct tnl_session_config c = agent();
	uint8_t *b = malloc(TNL_SMUX_HDR + 65535);
	struct rec want;
	(void)state;
	memset(&want, 0, sizeof(want));
	tnl_buf_init(&want.out, 65535);
	rec_fill(&want, 65535, 3);
	raw_agent(&r, &c, STOCK_RESPONSE("1.2.707.0"));
	raw_smux(&r, 1, TNL_SMUX_SYN, 3, NULL, 0);
	size_t n = raw_frame(b, 1, TNL_SMUX_PSH, 3, tnl_buf_data(&want.out), 65535);
	for (size_t i = 0; i < n; i += 1000)
		raw_send(&r, TNL_PT_OUTPUT, b + i, TNL_MIN(n - i, 1000u));
	rec_expect_fill(&r.e.rec[0], 65535, 3);
	tnl_buf_fini(&want.out);
	free(b);
	raw_fini(&r);
}

/* §7: client ids 3, 5, 7 …; SYN before data; payloads at most 1,024 bytes towards a stock end. */
static void client_frames(void **state)
{
	struct raw r;
	struct tnl_session_config c = client();
	struct tnl_smux_frame f;
	const uint8_t *d = NULL;
	(void)state;
	raw_client(&r, &c, STOCK_REQUEST("3.3.0.0"));
	struct rec *a = raw_open(&r), *b = raw_open(&r);
	rec_puts(a, "echo\nhello\n");
	raw_move(&r);
	raw_expect_frame(&r, 1, TNL_SMUX_SYN, 3, NULL, 0);
	raw_expect_frame(&r, 1, TNL_SMUX_SYN, 5, NULL, 0);
	raw_expect_frame(&r, 1, TNL_SMUX_PSH, 3, "echo\nhello\n", 11);
	rec_fill(b, 5000, 1);
	raw_move(&r);
	size_t total = 0;
	while (raw_next_frame(&r, &f, &d)) {
		assert_int_equal(f.id, 5);
		total += f.len;
	}
	assert_int_equal(total, 5000);
	for (int i = 0; i < r.n; i++)
		assert_true(r.got[i].len <= 1024);
	struct rec *x = raw_open(&r);
	raw_move(&r);
	raw_expect_frame(&r, 1, TNL_SMUX_SYN, 7, NULL, 0);
	assert_int_equal(tnl_stream_id(x->st), 7);
	raw_smux(&r, 1, TNL_SMUX_SYN, 8, NULL, 0); /* nobody opens streams towards a client */
	assert_int_equal(r.e.closed, 0);
	assert_int_equal(tnl_session_streams(r.e.s), 3);
	raw_fini(&r);
}

/* Version 2: a first UPD promptly, one at the first read, then after each quarter of the window. */
static void window_updates(void **state)
{
	struct raw r;
	struct tnl_session_config c = agent();
	struct tnl_smux_frame f;
	const uint8_t *d = NULL;
	uint8_t *chunk = calloc(1, 30000);
	(void)state;
	c.stream_window = 131072;
	raw_agent(&r, &c, OWN_RESPONSE);
	raw_smux(&r, 2, TNL_SMUX_SYN, 3, NULL, 0);
	assert_true(raw_next_frame(&r, &f, &d));
	assert_int_equal(f.cmd, TNL_SMUX_UPD);
	assert_int_equal(tnl_get_le32(d), 0);
	assert_int_equal(tnl_get_le32(d + 4), 131072);
	raw_smux(&r, 2, TNL_SMUX_PSH, 3, chunk, 1000);
	assert_true(raw_next_frame(&r, &f, &d));
	assert_int_equal(tnl_get_le32(d), 1000);
	raw_smux(&r, 2, TNL_SMUX_PSH, 3, chunk, 30000);
	raw_expect_quiet(&r);
	raw_smux(&r, 2, TNL_SMUX_PSH, 3, chunk, 30000); /* 61,000: more than a quarter of the window since the last */
	assert_true(raw_next_frame(&r, &f, &d));
	assert_int_equal(f.cmd, TNL_SMUX_UPD);
	assert_int_equal(tnl_get_le32(d), 61000);
	raw_expect_quiet(&r);
	free(chunk);
	raw_fini(&r);
}

static uint32_t window_beside(unsigned rank, uint64_t rtt)
{
	struct raw r;
	struct tnl_session_config c = agent();
	struct tnl_smux_frame f;
	const uint8_t *d = NULL;
	c.stream_window = 131072;
	c.memory_max = 32u << 20;
	raw_agent(&r, &c, OWN_RESPONSE);
	raw_smux(&r, 2, TNL_SMUX_SYN, 3, NULL, 0);
	assert_true(raw_next_frame(&r, &f, &d));
	assert_int_equal(tnl_get_le32(d + 4), 131072);
	assert_int_equal(tnl_session_link_add(r.e.s, 1, rank, r.now), 0);
	for (unsigned i = 0; i < 2; i++)
		tnl_session_channel(r.e.s)->link[i]->cc.base.rtt = rtt;
	raw_smux(&r, 2, TNL_SMUX_PSH, 3, "x", 1);
	assert_true(raw_next_frame(&r, &f, &d));
	assert_int_equal(f.cmd, TNL_SMUX_UPD);
	uint32_t window = tnl_get_le32(d + 4);
	raw_fini(&r);
	return window;
}

/* What comes on one waits while another repairs a loss: several links that carry, on a path where that takes time. */
static void windows_are_wider_over_several_links(void **state)
{
	(void)state;
	assert_int_equal(window_beside(0, 50 * MS), 4 * 131072);
	assert_int_equal(window_beside(0, MS), 131072);
	assert_int_equal(window_beside(1, 50 * MS), 131072); /* it is there for when the first one goes */
}

/* Windows of streams that have gone are there for the next ones. */
static void windows_are_given_back(void **state)
{
	struct raw r;
	struct tnl_session_config c = agent();
	struct tnl_smux_frame f;
	const uint8_t *d = NULL;
	(void)state;
	raw_agent(&r, &c, OWN_RESPONSE);
	for (uint32_t id = 3; id < 3 + 2 * 50; id += 2) {
		raw_smux(&r, 2, TNL_SMUX_SYN, id, NULL, 0);
		assert_true(raw_next_frame(&r, &f, &d));
		assert_int_equal(f.cmd, TNL_SMUX_UPD);
		if (id == 3 || id == 101)
			assert_true(tnl_get_le32(d + 4) > 200000);
		struct rec *x = &r.e.rec[r.e.nrec - 1];
		if (id % 4 == 3) {
			raw_smux(&r, 2, TNL_SMUX_RST, id, "\0\0\0\0", 4);
		} else {
			raw_smux(&r, 2, TNL_SMUX_FIN, id, NULL, 0);
			tnl_stream_shutdown(x->st, r.now);
			raw_move(&r);
			raw_expect_frame(&r, 2, TNL_SMUX_FIN, id, NULL, 0);
		}
		tnl_stream_free(x->st);
		x->st = NULL;
	}
	raw_fini(&r);
}

/* The window that a stream is told of first, when there are so many others and nothing has come to them for a second.
 */
static uint32_t window_after(unsigned others, bool read)
{
	struct raw r;
	struct tnl_session_config c = agent();
	struct tnl_smux_frame f;
	const uint8_t *d = NULL;
	uint32_t window = 0;
	c.memory_max = 32u << 20;
	raw_agent(&r, &c, OWN_RESPONSE);
	for (uint32_t id = 3; id <= 3 + 2 * others; id += 2) {
		if (id == 3 + 2 * others)
			r.now += 1100 * MS;
		raw_smux(&r, 2, TNL_SMUX_SYN, id, NULL, 0);
		window = raw_next_frame(&r, &f, &d) ? tnl_get_le32(d + 4) : 16384;
		r.e.rec[r.e.nrec - 1].take = read ? SIZE_MAX : 0;
		if (id < 3 + 2 * others)
			raw_smux(&r, 2, TNL_SMUX_PSH, id, "x", 1);
		while (raw_next_frame(&r, &f, &d))
			assert_int_equal(f.cmd, TNL_SMUX_UPD);
	}
	raw_fini(&r);
	return window;
}

/* A pool of connections that wait leaves the one that works its window; readers that do not read keep theirs. */
static void idle_streams_claim_no_windows(void **state)
{
	(void)state;
	uint32_t alone = window_after(0, true);
	assert_true(alone >= 1u << 20);
	assert_int_equal(window_after(60, true), alone);
	assert_true(window_after(60, false) < alone / 8);
}

/* Between own ends the sender counts on 16 KiB until it is told; a window that shrank below what is out: wait. */
static void sender_keeps_the_window(void **state)
{
	struct raw r;
	struct tnl_session_config c = client();
	struct tnl_smux_frame f;
	const uint8_t *d = NULL;
	size_t total = 0;
	uint8_t upd[8];
	(void)state;
	raw_client(&r, &c, OWN_REQUEST);
	struct rec *a = raw_open(&r);
	rec_fill(a, 300000, 5);
	raw_move(&r);
	raw_expect_frame(&r, 2, TNL_SMUX_SYN, 3, NULL, 0);
	while (raw_next_frame(&r, &f, &d))
		total += f.cmd == TNL_SMUX_PSH ? f.len : 0;
	assert_int_equal(total, 16384);
	tnl_put_le32(upd, 1000);
	tnl_put_le32(upd + 4, 10000); /* 15,384 are out: the result is negative */
	raw_smux(&r, 2, TNL_SMUX_UPD, 3, upd, 8);
	raw_expect_quiet(&r);
	tnl_put_le32(upd, 16384);
	tnl_put_le32(upd + 4, 100000);
	raw_smux(&r, 2, TNL_SMUX_UPD, 3, upd, 8);
	total = 0;
	while (raw_next_frame(&r, &f, &d))
		total += f.len;
	assert_int_equal(total, 100000);
	raw_fini(&r);
}

/* Sequence counters are modulo 2^32: covered by their types; here that 5 MiB pass through a small window. */
static void window_moves(void **state)
{
	struct pair p;
	struct tnl_session_config cc = client(), ac = agent();
	(void)state;
	ac.stream_window = 65536;
	pair_init(&p, &cc, &ac);
	pair_up(&p);
	struct rec *a = pair_open(&p);
	pair_run(&p);
	rec_fill(a, 5u << 20, 11);
	p.a.rec[0].take = 5000;
	pair_advance(&p, 10 * SEC);
	rec_expect_fill(&p.a.rec[0], 5u << 20, 11);
	pair_fini(&p);
}

/* A ping does not wait behind bulk: it is the very next data that leaves. */
static void small_ones_first(void **state)
{
	struct raw r;
	struct tnl_session_config c = client();
	struct tnl_smux_frame f;
	const uint8_t *d = NULL;
	uint8_t upd[8];
	(void)state;
	raw_client(&r, &c, OWN_REQUEST);
	struct rec *ping = raw_open(&r), *bulk = raw_open(&r);
	raw_move(&r);
	tnl_put_le32(upd, 0);
	tnl_put_le32(upd + 4, 8u << 20);
	raw_smux(&r, 2, TNL_SMUX_UPD, 3, upd, 8);
	raw_smux(&r, 2, TNL_SMUX_UPD, 5, upd, 8);
	tnl_buf_reset(&r.out);
	rec_fill(bulk, 600000, 1);
	/* Nothing is taken from the session: it fills its window, past its first quantum, and stops. */
	end_pump(&r.e);
	size_t queued = 600000 - tnl_buf_len(&bulk->out), before = 0, after = 0;
	assert_true(queued > 20000 && queued < 100000);
	rec_puts(ping, "ping");
	raw_move(&r);
	bool seen = false;
	while (raw_next_frame(&r, &f, &d)) {
		seen = seen || f.id == 3;
		if (f.id == 5)
			*(seen ? &after : &before) += f.len;
	}
	assert_true(seen);
	if (before > queued)
		fail_msg("%zu bytes went before it, %zu were under way", before, queued);
	assert_int_equal(before + after, 600000);
	raw_fini(&r);
}

/* Streams share by bytes, whatever their write sizes. */
static void shares_by_bytes(void **state)
{
	struct raw r;
	struct tnl_session_config c = client();
	size_t sent[2] = {0, 0};
	uint8_t upd[8];
	(void)state;
	raw_client(&r, &c, OWN_REQUEST);
	struct rec *s[2] = {raw_open(&r), raw_open(&r)};
	raw_move(&r);
	tnl_put_le32(upd, 0);
	tnl_put_le32(upd + 4, 64u << 20);
	raw_smux(&r, 2, TNL_SMUX_UPD, 3, upd, 8);
	raw_smux(&r, 2, TNL_SMUX_UPD, 5, upd, 8);
	for (int i = 0; i < 2; i++)
		tnl_stream_want_send(s[i]->st, true);
	for (int k = 0; k < 4000; k++) {
		struct tnl_stream *st = tnl_session_next(r.e.s, r.now);
		if (!st) {
			raw_move(&r);
			for (int i = 0; i < 2; i++)
				tnl_stream_want_send(s[i]->st, true);
			continue;
		}
		size_t cap, i = st == s[1]->st;
		uint8_t *p = tnl_stream_reserve(st, &cap, r.now);
		if (!p)
			continue;
		size_t n = i ? 300 : cap; /* one writes little at a time, one all it can */
		n = TNL_MIN(n, cap);
		memset(p, 0, n);
		assert_int_equal(tnl_stream_commit(st, n, TNL_PT_OUTPUT, r.now), 0);
		sent[i] += n;
	}
	assert_true(sent[0] > 100000 && sent[1] > 100000);
	double ratio = (double)sent[0] / (double)sent[1];
	assert_true(ratio > 0.7 && ratio < 1.4);
	raw_fini(&r);
}

/* A SYN flood: refused beyond the limit, one by one, and the session lives. */
static void too_many_streams(void **state)
{
	struct raw r;
	struct tnl_session_config c = agent();
	static const struct tnl_session_cb none;
	uint8_t b[8 * 128];
	(void)state;
	raw_agent(&r, &c, OWN_RESPONSE);
	tnl_session_free(r.e.s);
	c.cb = &none;
	r.e.s = tnl_session_new(&c, r.now);
	tnl_channel_free(r.ch);
	struct tnl_channel_config cc = {.send_type = TNL_MT_INPUT,
					.recv_type = TNL_MT_OUTPUT,
					.memory_max = 16u << 20,
					.deliver = raw_deliver,
					.ctx = &r};
	r.ch = tnl_channel_new(&cc, r.now);
	tnl_channel_link_up(r.ch, r.now);
	tnl_session_link_up(r.e.s, r.now);
	raw_move(&r);
	raw_text(&r, TNL_PT_HANDSHAKE_RESPONSE, OWN_RESPONSE);
	assert_int_equal(tnl_session_state(r.e.s), TNL_SS_READY);
	for (uint32_t id = 3; id < 2 * 17000; id += 2 * 128) {
		for (uint32_t k = 0; k < 128; k++)
			raw_frame(b + 8 * k, 2, TNL_SMUX_SYN, id + 2 * k, NULL, 0);
		raw_send(&r, TNL_PT_OUTPUT, b, sizeof(b));
		for (int i = 0; i < r.n; i++)
			free(r.got[i].p);
		r.n = 0;
	}
	assert_int_equal(tnl_session_streams(r.e.s), 16384);
	assert_int_equal(tnl_session_state(r.e.s), TNL_SS_READY);
	raw_fini(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_split),
	    cmocka_unit_test(one_byte_messages),
	    cmocka_unit_test(fatal_frames),
	    cmocka_unit_test(window_overrun_is_fatal),
	    cmocka_unit_test(harmless_oddities),
	    cmocka_unit_test(long_frame),
	    cmocka_unit_test(client_frames),
	    cmocka_unit_test(window_updates),
	    cmocka_unit_test(idle_streams_claim_no_windows),
	    cmocka_unit_test(sender_keeps_the_window),
	    cmocka_unit_test(window_moves),
	    cmocka_unit_test(small_ones_first),
	    cmocka_unit_test(shares_by_bytes),
	    cmocka_unit_test(too_many_streams),
	    cmocka_unit_test(windows_are_given_back),
	    cmocka_unit_test(windows_are_wider_over_several_links),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
