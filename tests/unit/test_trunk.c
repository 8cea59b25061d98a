/* Two ends of a trunk: bytes arrive as they were sent whatever the pieces, nobody sends more than was granted, one
 * stream that stands still holds up no other, and what is against the rules ends the trunk. */
#include "lib/num.h"
#include "lib/trunk.h"
#include "tests/unit/check.h"

#define STREAMS 5u
#define TOTAL (700u * 1024)

struct far {
	struct tnl_trunk_stream *st;
	size_t came, kept; /* bytes; of them not taken yet */
	bool ended, reset, stuck, dismissed;
};

struct node {
	struct tnl_trunk *t;
	struct far far[STREAMS + 1];
	unsigned opened, credits;
	char peer[40];
	bool refuse;
};

static bool on_greeted(void *ctx, const char *name)
{
	struct node *n = ctx;
	snprintf(n->peer, sizeof(n->peer), "%s", name);
	return !n->refuse;
}

static void on_opened(void *ctx, struct tnl_trunk_stream *st)
{
	struct node *n = ctx;
	struct far *f = &n->far[n->opened++];
	assert_true(n->opened <= STREAMS + 1);
	f->st = st;
	tnl_trunk_set_user(st, f);
}

static uint8_t byte_at(size_t i)
{
	return (uint8_t)(i * 7 + i / 251);
}

static void on_data(void *ctx, struct tnl_trunk_stream *st, const uint8_t *p, size_t n)
{
	struct far *f = tnl_trunk_user(st);
	for (size_t i = 0; i < n; i++)
		if (p[i] != byte_at(f->came + i))
			fail_msg("byte %zu of a stream is another", f->came + i);
	f->came += n;
	f->kept += n;
	assert_true(f->kept <= TNL_TRUNK_WINDOW);
	if (f->stuck)
		return;
	tnl_trunk_taken(st, f->kept);
	f->kept = 0;
}

static void on_ended(void *ctx, struct tnl_trunk_stream *st, bool reset)
{
	struct far *f = tnl_trunk_user(st);
	f->ended = true;
	f->reset = reset;
}

static void on_dismissed(void *ctx, struct tnl_trunk_stream *st)
{
	struct far *f = tnl_trunk_user(st);
	f->dismissed = true;
}

static void on_credit(void *ctx, struct tnl_trunk_stream *st)
{
	((struct node *)ctx)->credits++;
}

static void node_init(struct node *n, const char *name, bool dialer)
{
	memset(n, 0, sizeof(*n));
	const struct tnl_trunk_config c = {.name = name,
					   .dialer = dialer,
					   .max_streams = STREAMS,
					   .greeted = on_greeted,
					   .opened = on_opened,
					   .data = on_data,
					   .ended = on_ended,
					   .dismissed = on_dismissed,
					   .credit = on_credit,
					   .ctx = n};
	n->t = tnl_trunk_new(&c);
	assert_non_null(n->t);
}

/* All that waits at a goes to b, in pieces of at most `piece`; what b made of it. */
static int carry(struct node *a, struct node *b, size_t piece)
{
	struct tnl_buf *out = tnl_trunk_out(a->t);
	int r = 0;
	while (r == 0 && tnl_buf_len(out)) {
		size_t n = TNL_MIN(piece, tnl_buf_len(out));
		uint8_t *copy = exact_copy(tnl_buf_data(out), n);
		tnl_buf_consume(out, n);
		r = tnl_trunk_feed(b->t, copy, n);
		free(copy);
	}
	return r;
}

static void meet(struct node *a, struct node *b, size_t piece)
{
	node_init(a, "n1", true);
	node_init(b, "n2", false);
	assert_int_equal(carry(a, b, piece), 0);
	assert_int_equal(carry(b, a, piece), 0);
	assert_string_equal(tnl_trunk_peer(a->t), "n2");
	assert_string_equal(tnl_trunk_peer(b->t), "n1");
}

static void part(struct node *a, struct node *b)
{
	tnl_trunk_free(a->t);
	tnl_trunk_free(b->t);
}

/* Sends as much of the streams of a as their turns give, up to TOTAL each; how much that was. */
static size_t send_some(struct node *a, struct tnl_trunk_stream **st, size_t *sent)
{
	size_t before = 0, after = 0;
	struct tnl_trunk_stream *next;
	for (unsigned i = 0; i < STREAMS; i++)
		before += sent[i];
	while ((next = tnl_trunk_next(a->t)) != NULL) {
		unsigned i = 0;
		while (st[i] != next)
			i++;
		size_t n = TOTAL - sent[i];
		uint8_t *p = tnl_trunk_reserve(next, &n);
		assert_non_null(p);
		for (size_t k = 0; k < n; k++)
			p[k] = byte_at(sent[i] + k);
		tnl_trunk_commit(next, n);
		sent[i] += n;
		if (sent[i] == TOTAL)
			tnl_trunk_shut(next);
	}
	for (unsigned i = 0; i < STREAMS; i++)
		after += sent[i];
	return after - before;
}

static void run_pieces(size_t piece)
{
	struct node a, b;
	struct tnl_trunk_stream *st[STREAMS];
	size_t sent[STREAMS] = {0};
	meet(&a, &b, piece);
	for (unsigned i = 0; i < STREAMS; i++) {
		st[i] = tnl_trunk_open(a.t, NULL);
		assert_non_null(st[i]);
		tnl_trunk_want(st[i]);
	}
	assert_null(tnl_trunk_open(a.t, NULL)); /* there are as many as may be */
	assert_int_equal(carry(&a, &b, piece), 0);
	b.far[1].stuck = true;
	while (send_some(&a, st, sent)) {
		assert_true(tnl_buf_len(tnl_trunk_out(a.t)) <= TNL_TRUNK_DATA + 32 * 1024);
		assert_int_equal(carry(&a, &b, piece), 0);
		assert_int_equal(carry(&b, &a, piece), 0);
	}
	for (unsigned i = 0; i < STREAMS; i++)
		assert_int_equal(b.far[i].came, i == 1 ? TNL_TRUNK_WINDOW : TOTAL);
	assert_true(b.far[0].ended && !b.far[0].reset && !b.far[1].ended);
	b.far[1].stuck = false;
	tnl_trunk_taken(b.far[1].st, b.far[1].kept);
	b.far[1].kept = 0;
	assert_int_equal(carry(&b, &a, piece), 0);
	assert_true(a.credits > 0);
	while (send_some(&a, st, sent)) {
		assert_int_equal(carry(&a, &b, piece), 0);
		assert_int_equal(carry(&b, &a, piece), 0);
	}
	assert_int_equal(b.far[1].came, TOTAL);
	part(&a, &b);
}

static void test_pieces(void **s)
{
	static const size_t sizes[] = {1, 7, 8, 9, 4096, 1 << 20};
	for (size_t i = 0; i < TNL_COUNT(sizes); i++)
		run_pieces(sizes[i]);
}

static void test_ends(void **s)
{
	struct node a, b;
	meet(&a, &b, 100);
	struct tnl_trunk_stream *x = tnl_trunk_open(a.t, &a.far[0]), *y = tnl_trunk_open(b.t, &b.far[2]);
	assert_int_equal(carry(&a, &b, 3), 0);
	assert_int_equal(carry(&b, &a, 3), 0);
	tnl_trunk_shut(x);
	tnl_trunk_shut(x);
	assert_int_equal(carry(&a, &b, 3), 0);
	assert_true(b.far[0].ended && !b.far[0].reset);
	tnl_trunk_close(b.far[0].st); /* before it has said its own end */
	assert_int_equal(carry(&b, &a, 3), 0);
	assert_true(a.far[0].ended && a.far[0].reset);
	tnl_trunk_close(x);
	assert_int_equal(tnl_buf_len(tnl_trunk_out(a.t)), 0); /* it knows */
	tnl_trunk_close(y);
	assert_int_equal(carry(&b, &a, 3), 0);
	assert_int_equal(tnl_trunk_streams(a.t), 1);
	assert_ptr_equal(tnl_trunk_first(a.t), a.far[0].st);
	part(&a, &b);
}

/* The other end hears of it, bytes go on both ways, and what was taken is told with it. */
static void test_dismissed(void **s)
{
	struct node a, b;
	struct tnl_trunk_stream *st[STREAMS] = {NULL};
	size_t sent[STREAMS] = {0, TOTAL, TOTAL, TOTAL, TOTAL};
	meet(&a, &b, 100);
	st[0] = tnl_trunk_open(a.t, &a.far[0]);
	assert_non_null(st[0]);
	tnl_trunk_want(st[0]);
	assert_int_equal(carry(&a, &b, 100), 0);
	tnl_trunk_dismiss(st[0]);
	assert_false(b.far[0].dismissed);
	assert_int_equal(carry(&a, &b, 3), 0);
	assert_true(b.far[0].dismissed && !b.far[0].ended);
	assert_int_equal(send_some(&a, st, sent), TNL_TRUNK_WINDOW);
	assert_int_equal(carry(&a, &b, 4096), 0);
	assert_int_equal(carry(&b, &a, 4096), 0);
	assert_int_equal(b.far[0].came, TNL_TRUNK_WINDOW);
	assert_false(a.far[0].dismissed); /* an update as any */
	uint32_t taken = (uint32_t)b.far[0].came;
	tnl_trunk_dismiss(b.far[0].st);
	const uint8_t *out = tnl_buf_data(tnl_trunk_out(b.t));
	assert_int_equal(tnl_get_le32(out + TNL_SMUX_HDR), taken);
	assert_int_equal(carry(&b, &a, 1), 0);
	assert_true(a.far[0].dismissed);
	tnl_trunk_close(b.far[0].st);
	assert_int_equal(carry(&b, &a, 1), 0);
	assert_true(a.far[0].ended && a.far[0].reset);
	tnl_trunk_dismiss(st[0]); /* it is over */
	assert_int_equal(tnl_buf_len(tnl_trunk_out(a.t)), 0);
	part(&a, &b);
}

/* The greeting of n2, then these frames: what becomes of them at n1, which has opened stream 1. */
static int judge(const uint8_t *frames, size_t n)
{
	struct node a;
	static const uint8_t hello[] = "TNLPEER1\x02n2";
	node_init(&a, "n1", true);
	assert_int_equal(tnl_trunk_feed(a.t, hello, sizeof(hello) - 1), 0);
	assert_non_null(tnl_trunk_open(a.t, &a.far[STREAMS]));
	uint8_t *copy = exact_copy(frames, n);
	int r = tnl_trunk_feed(a.t, copy, n);
	free(copy);
	tnl_trunk_free(a.t);
	return r;
}

#define FRAME(cmd, len, id) 2, cmd, (len)&0xff, (len) >> 8, id, 0, 0, 0
#define JUDGE(...)                                                                                                     \
	({                                                                                                             \
		static const uint8_t f[] = {__VA_ARGS__};                                                              \
		judge(f, sizeof(f));                                                                                   \
	})

static void test_faults(void **s)
{
	assert_int_equal(JUDGE(FRAME(TNL_SMUX_SYN, 0, 2), FRAME(TNL_SMUX_PSH, 1, 2), 0), 0);
	assert_int_equal(JUDGE(FRAME(TNL_SMUX_SYN, 0, 1)), TNL_EPROTO); /* ours */
	assert_int_equal(JUDGE(FRAME(TNL_SMUX_SYN, 0, 0)), TNL_EPROTO);
	assert_int_equal(JUDGE(FRAME(TNL_SMUX_SYN, 0, 4), FRAME(TNL_SMUX_SYN, 0, 2)), TNL_EPROTO); /* again */
	assert_int_equal(JUDGE(FRAME(TNL_SMUX_PSH, 1, 2), 0), TNL_EPROTO);			   /* never opened */
	assert_int_equal(JUDGE(FRAME(TNL_SMUX_FIN, 0, 3)), TNL_EPROTO);
	assert_int_equal(JUDGE(FRAME(TNL_SMUX_FIN, 0, 1), FRAME(TNL_SMUX_FIN, 0, 1)), TNL_EPROTO);
	assert_int_equal(JUDGE(FRAME(TNL_SMUX_FIN, 0, 1), FRAME(TNL_SMUX_PSH, 1, 1), 0), TNL_EPROTO);
	assert_int_equal(JUDGE(FRAME(TNL_SMUX_UPD, 8, 1), 1, 0, 0, 0, 0, 0, 2, 0), TNL_EPROTO); /* nothing was sent */
	assert_int_equal(JUDGE(1, 0, 0, 0, 2, 0, 0, 0), TNL_EPROTO);				/* version 1 */
	assert_int_equal(JUDGE(FRAME(9, 0, 2)), TNL_EPROTO);
}

static void test_window_is_kept(void **s)
{
	size_t n = 8 + 3 * (8 + 65535);
	uint8_t *f = calloc(1, n), *p = f;
	const struct tnl_smux_frame syn = {.version = 2, .cmd = TNL_SMUX_SYN, .id = 2},
				    psh = {.version = 2, .cmd = TNL_SMUX_PSH, .len = 65535, .id = 2};
	struct node a;
	static const uint8_t hello[] = "TNLPEER1\x02n2";
	tnl_smux_write(p, &syn);
	p += 8;
	for (int i = 0; i < 3; i++, p += 8 + 65535) {
		tnl_smux_write(p, &psh);
		for (size_t k = 0; k < 65535; k++)
			p[8 + k] = byte_at((size_t)i * 65535 + k);
	}
	node_init(&a, "n1", true);
	a.far[0].stuck = true;
	assert_int_equal(tnl_trunk_feed(a.t, hello, sizeof(hello) - 1), 0);
	assert_int_equal(tnl_trunk_feed(a.t, f, n), TNL_EPROTO);
	assert_true(a.far[0].came <= TNL_TRUNK_WINDOW);
	tnl_trunk_free(a.t);
	free(f);
}

static void test_greetings(void **s)
{
	static const char *const bad[] = {"TNLPEER2\x02n2", "GET / HTTP",
					  "TNLPEER1\x21"
					  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
	for (size_t i = 0; i < TNL_COUNT(bad); i++) {
		struct node a;
		node_init(&a, "n1", true);
		assert_int_equal(tnl_trunk_feed(a.t, (const uint8_t *)bad[i], strlen(bad[i])), TNL_EPROTO);
		tnl_trunk_free(a.t);
	}
	struct node a;
	node_init(&a, "n1", true);
	a.refuse = true;
	assert_null(tnl_trunk_open(a.t, NULL)); /* not before it is known who is there */
	assert_int_equal(tnl_trunk_feed(a.t, (const uint8_t *)"TNLPEER1\x02n9", 11), TNL_EAUTH);
	assert_string_equal(a.peer, "n9");
	tnl_trunk_free(a.t);
}

/* Who makes us answer without reading the answers is cut. */
static void test_flood(void **s)
{
	struct node a, b;
	int r = 0;
	meet(&a, &b, 100);
	struct tnl_trunk_stream *st = tnl_trunk_open(a.t, &a.far[0]);
	assert_non_null(st);
	assert_int_equal(carry(&a, &b, 100), 0);
	for (uint32_t id = 3; r == 0 && id < 1000000; id += 2) {
		uint8_t f[8];
		const struct tnl_smux_frame syn = {.version = 2, .cmd = TNL_SMUX_SYN, .id = id};
		tnl_smux_write(f, &syn);
		b.opened = 0; /* of the few that there may be */
		r = tnl_trunk_feed(b.t, f, sizeof(f));
	}
	assert_int_equal(r, TNL_ELIMIT);
	assert_true(tnl_buf_len(tnl_trunk_out(b.t)) <= TNL_TRUNK_DATA + TNL_TRUNK_CONTROL);
	part(&a, &b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_pieces), cmocka_unit_test(test_ends),		  cmocka_unit_test(test_dismissed),
	    cmocka_unit_test(test_faults), cmocka_unit_test(test_window_is_kept), cmocka_unit_test(test_greetings),
	    cmocka_unit_test(test_flood),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
