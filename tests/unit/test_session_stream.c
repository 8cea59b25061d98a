/* Streams of a multiplexed session as their users see them: bytes, ends, resets, back-pressure. */
#include "tests/unit/raw_util.h"
#include "lib/num.h"
#include "lib/session_internal.h"
#include "lib/channel_internal.h"

static void mux_echo(void **state)
{
	struct pair p;
	struct tnl_session_config cc = client(), ac = agent();
	(void)state;
	pair_init(&p, &cc, &ac);
	p.a.echo = true;
	struct rec *early = pair_open(&p); /* before READY: queued */
	rec_puts(early, "early");
	pair_up(&p);
	assert_int_equal(p.c.ready, 1);
	assert_int_equal(p.a.ready, 1);
	const struct tnl_session_info *i = tnl_session_info(p.c.s);
	assert_int_equal(i->mode, TNL_MODE_MUX);
	assert_true(i->own_peer && i->half_close);
	assert_int_equal(i->smux_version, 2);
	assert_int_equal(i->max_payload, 32768);
	assert_string_equal(i->peer_version, TNL_AGENT_VERSION);
	assert_string_equal(tnl_session_info(p.a.s)->peer_version, TNL_CLIENT_VERSION);
	rec_expect(early, "early");
	struct rec *r = pair_open(&p);
	rec_fill(r, 3000000, 7);
	pair_run(&p);
	rec_expect_fill(r, 3000000, 7);
	rec_expect_fill(&p.a.rec[1], 3000000, 7);
	assert_int_equal(tnl_stream_id(early->st), 3);
	assert_int_equal(tnl_stream_id(r->st), 5);
	pair_fini(&p);
	assert_int_equal(tnl_alloc_live(), 0);
}

/* shutdown(SHUT_WR) crosses as what it is, in both directions. */
static void half_close(void **state)
{
	struct pair p;
	struct tnl_session_config cc = client(), ac = agent();
	(void)state;
	for (int first = 0; first < 2; first++) {
		ready_pair(&p, &cc, &ac);
		struct rec *c = pair_open(&p);
		pair_run(&p);
		struct rec *a = &p.a.rec[0], *x = first ? a : c, *y = first ? c : a;
		rec_puts(x, "request");
		x->shut_after = true;
		pair_run(&p);
		rec_expect(y, "request");
		assert_true(y->eof && y->half && !x->eof);
		assert_false(tnl_stream_done(x->st));
		rec_fill(y, 100000, 4);
		pair_run(&p);
		rec_expect_fill(x, 100000, 4);
		y->shut_after = true;
		pair_run(&p);
		assert_true(x->eof);
		assert_true(tnl_stream_done(x->st) && tnl_stream_done(y->st));
		tnl_stream_free(x->st);
		tnl_stream_free(y->st);
		assert_int_equal(tnl_session_streams(p.c.s), 0);
		pair_fini(&p);
	}
	assert_int_equal(tnl_alloc_live(), 0);
}

/* Each message may take longer on the way where no other stream waits for it; a datagram waits for none. */
static void alone_is_who_has_the_session_to_itself(void **state)
{
	struct pair p;
	struct tnl_session_config cc = client(), ac = agent();
	size_t cap;
	(void)state;
	ready_pair(&p, &cc, &ac);
	for (int others = 0; others < 3; others++) {
		struct rec *c = others < 2 ? pair_open(&p) : &p.c.rec[0];
		if (others == 2) {
			tnl_stream_free(p.c.rec[1].st);
			p.c.rec[1].st = NULL;
		}
		pair_run(&p);
		assert_non_null(tnl_stream_reserve(c->st, &cap, p.now));
		assert_int_equal(tnl_session_channel(p.c.s)->alone, others != 1);
		assert_int_equal(tnl_stream_commit(c->st, 0, TNL_PT_OUTPUT, p.now), 0);
	}
	p.c.rec[0].st->asked = TNL_KIND_UDP;
	assert_non_null(tnl_stream_reserve(p.c.rec[0].st, &cap, p.now));
	assert_false(tnl_session_channel(p.c.s)->alone);
	assert_int_equal(tnl_stream_commit(p.c.rec[0].st, 0, TNL_PT_OUTPUT, p.now), 0);
	p.c.rec[0].st->asked = TNL_KIND_PLAIN;
	pair_fini(&p);
	assert_int_equal(tnl_alloc_live(), 0);
}

static void reset_with_reason(void **state)
{
	struct pair p;
	struct tnl_session_config cc = client(), ac = agent();
	(void)state;
	ready_pair(&p, &cc, &ac);
	struct rec *c = pair_open(&p), *d = pair_open(&p);
	pair_run(&p);
	rec_puts(c, "some");
	pair_run(&p);
	tnl_stream_reset(c->st, TNL_RESET_PEER, p.now);
	assert_true(tnl_stream_done(c->st));
	tnl_stream_free(c->st);
	c->st = NULL;
	pair_run(&p);
	assert_true(p.a.rec[0].reset);
	assert_int_equal(p.a.rec[0].reason, TNL_RESET_PEER);
	assert_false(c->reset); /* no on_reset for one's own */
	tnl_stream_reset(p.a.rec[1].st, TNL_RESET_DENIED, p.now);
	pair_run(&p);
	assert_true(d->reset);
	assert_int_equal(d->reason, TNL_RESET_DENIED);
	pair_fini(&p);
	assert_int_equal(tnl_alloc_live(), 0);
}

/* Why a connection could not be made reaches the other end, cut; many at once share messages. */
static void reset_because(void **state)
{
	char much[400];
	struct pair p;
	struct tnl_session_config cc = client(), ac = agent();
	(void)state;
	memset(much, 'm', sizeof(much) - 1);
	much[sizeof(much) - 1] = '\0';
	ready_pair(&p, &cc, &ac);
	assert_string_equal(tnl_session_info(p.c.s)->peer_program, TUNNELD_VERSION);
	assert_string_equal(tnl_session_info(p.a.s)->peer_program, TUNNELD_VERSION);
	struct rec *c[20];
	for (size_t i = 0; i < TNL_COUNT(c); i++)
		c[i] = pair_open(&p);
	pair_run(&p);
	for (size_t i = 0; i < TNL_COUNT(c); i++) {
		static const char *const why[] = {"127.0.0.1:1: Connection refused", ""};
		tnl_stream_reset_because(p.a.rec[i].st, TNL_RESET_CONNECT, i % 3 == 2 ? much : why[i % 3], p.now);
		tnl_stream_free(p.a.rec[i].st);
		p.a.rec[i].st = NULL;
	}
	pair_run(&p);
	for (size_t i = 0; i < TNL_COUNT(c); i++) {
		assert_true(c[i]->reset);
		assert_int_equal(c[i]->reason, TNL_RESET_CONNECT);
		const char *words = tnl_stream_reset_words(c[i]->st);
		if (i % 3 == 2)
			assert_true(strlen(words) == TNL_SMUX_WORDS && words[0] == 'm');
		else
			assert_string_equal(words, i % 3 ? "" : "127.0.0.1:1: Connection refused");
	}
	pair_fini(&p);
	assert_int_equal(tnl_alloc_live(), 0);
}

/* Freed without a word: the other side learns that it was cut off. */
static void free_is_reset(void **state)
{
	struct pair p;
	struct tnl_session_config cc = client(), ac = agent();
	(void)state;
	ready_pair(&p, &cc, &ac);
	struct rec *c = pair_open(&p);
	pair_run(&p);
	tnl_stream_free(c->st);
	c->st = NULL;
	assert_int_equal(tnl_session_streams(p.c.s), 0);
	assert_null(tnl_mux_find(&p.c.s->mux, 3));
	pair_run(&p);
	assert_true(p.a.rec[0].reset);
	pair_fini(&p);
	assert_int_equal(tnl_alloc_live(), 0);
}

/* A payload that is exactly one 0x0A stays one 0x0A, in every mode. */
static void lone_newline(void **state)
{
	static const char *const props[] = {"{\"type\":\"LocalPortForwarding\"}", "{}"};
	(void)state;
	for (int mode = 0; mode < 4; mode++) {
		struct pair p;
		struct tnl_session_config cc = client(), ac = agent();
		ac.properties_json = props[mode & 1];
		cc.offer_capabilities = ac.offer_capabilities = mode < 2;
		ready_pair(&p, &cc, &ac);
		p.a.echo = true;
		struct rec *c = pair_open(&p);
		for (int i = 1; i <= 5; i++) {
			rec_puts(c, "\n");
			pair_run(&p);
			assert_int_equal(tnl_buf_len(&c->in), i);
			assert_int_equal(tnl_buf_data(&c->in)[i - 1], 0x0a);
			assert_int_equal(tnl_buf_data(&p.a.rec[0].in)[i - 1], 0x0a);
		}
		pair_fini(&p);
	}
}

/* Version 2: who does not read stops nobody but himself, and holds no more than his window. */
static void stalled_reader_v2(void **state)
{
	struct pair p;
	struct tnl_session_config cc = client(), ac = agent();
	(void)state;
	ac.stream_window = 200000;
	ready_pair(&p, &cc, &ac);
	struct rec *stalled = pair_open(&p), *free_one = pair_open(&p);
	pair_run(&p);
	p.a.rec[0].take = 0;
	rec_fill(stalled, 2000000, 1);
	rec_fill(free_one, 2000000, 2);
	pair_advance(&p, 5 * SEC);
	rec_expect_fill(&p.a.rec[1], 2000000, 2);
	assert_int_equal(tnl_buf_len(&p.a.rec[0].in), 0);
	assert_int_equal(tnl_stream_kept(p.a.rec[0].st), 200000);
	p.a.rec[0].take = SIZE_MAX;
	pair_advance(&p, 5 * SEC);
	rec_expect_fill(&p.a.rec[0], 2000000, 1);
	pair_fini(&p);
}

/* Version 1: all wait, memory stays under its maximum, nothing is lost. */
static void stalled_reader_v1(void **state)
{
	struct pair p;
	struct tnl_session_config cc = client(), ac = agent();
	(void)state;
	cc.offer_capabilities = false;
	cc.memory_max = ac.memory_max = 512 * 1024;
	ready_pair(&p, &cc, &ac);
	struct rec *stalled = pair_open(&p), *other = pair_open(&p);
	pair_run(&p);
	p.a.rec[0].take = 0;
	rec_fill(stalled, 1000000, 1);
	for (int i = 0; i < 50; i++) {
		pair_advance(&p, 100 * MS);
		assert_true(tnl_session_memory(p.a.s) <= 512 * 1024);
		assert_true(tnl_session_memory(p.c.s) <= 512 * 1024);
	}
	assert_true(tnl_buf_len(&stalled->out) > 0); /* the writer was stopped */
	rec_fill(other, 1000, 2);
	pair_advance(&p, SEC);
	assert_int_equal(tnl_buf_len(&p.a.rec[1].in), 0);
	p.a.rec[0].take = 1000;
	pair_advance(&p, 20 * SEC);
	rec_expect_fill(&p.a.rec[0], 1000000, 1);
	rec_expect_fill(&p.a.rec[1], 1000, 2);
	assert_int_equal(p.a.closed, 0);
	pair_fini(&p);
}

/* More stalled streams than memory has room for: the session waits, and goes on. */
static void windows_share_memory(void **state)
{
	struct pair p;
	struct tnl_session_config cc = client(), ac = agent();
	struct rec *c[20];
	(void)state;
	ac.memory_max = 1u << 20;
	ready_pair(&p, &cc, &ac);
	for (int i = 0; i < 20; i++)
		c[i] = pair_open(&p);
	pair_run(&p);
	for (int i = 0; i < 20; i++) {
		p.a.rec[i].take = 0;
		rec_fill(c[i], 150000, (uint32_t)i);
	}
	for (int i = 0; i < 30; i++) {
		pair_advance(&p, 100 * MS);
		assert_true(tnl_session_memory(p.a.s) <= 1u << 20);
	}
	for (int i = 0; i < 20; i++)
		p.a.rec[i].take = SIZE_MAX;
	pair_advance(&p, 20 * SEC);
	for (int i = 0; i < 20; i++)
		rec_expect_fill(&p.a.rec[i], 150000, (uint32_t)i);
	pair_fini(&p);
}

/* Towards a stock agent the client's FIN waits until the answer has been quiet for 2 s. */
/* Sends n bytes of x if it is x's turn and they are allowed; what reserve allowed. */
static size_t send_turn(struct pair *p, struct rec *x, size_t n)
{
	size_t cap = 0;
	uint8_t *b = tnl_session_next(p->c.s, p->now) == x->st ? tnl_stream_reserve(x->st, &cap, p->now) : NULL;
	if (!b)
		return 0;
	n = TNL_MIN(n, cap);
	memset(b, 'x', n);
	assert_int_equal(tnl_stream_commit(x->st, n, TNL_PT_OUTPUT, p->now), 0);
	return cap;
}

/* A stream that is new may send one small message when bulk has filled the window; nobody else may send anything. */
static void a_small_message_passes_a_full_window(void **state)
{
	struct pair p;
	struct tnl_session_config cc = client(), ac = agent();
	struct rec *quiet[40];
	unsigned passed = 0;
	(void)state;
	ready_pair(&p, &cc, &ac);
	struct rec *bulk = pair_open(&p), *key = pair_open(&p);
	for (unsigned i = 0; i < TNL_COUNT(quiet); i++)
		quiet[i] = pair_open(&p);
	pair_run(&p);
	tnl_stream_want_send(key->st, true);
	while (send_turn(&p, key, 60000)) /* alone: it may fill the window, and pass nobody */
		;
	assert_null(tnl_session_next(p.c.s, p.now));
	pair_run(&p);
	tnl_stream_want_send(key->st, false);
	assert_null(tnl_session_next(p.c.s, p.now));
	tnl_stream_want_send(bulk->st, true);
	while (send_turn(&p, bulk, 60000) || send_turn(&p, bulk, 60000))
		;
	tnl_stream_want_send(key->st, true);
	assert_ptr_equal(tnl_session_next(p.c.s, p.now), key->st);
	size_t cap;
	assert_null(tnl_stream_reserve(bulk->st, &cap, p.now)); /* not its turn */
	assert_in_range(send_turn(&p, key, 100), 900, 1024);
	assert_null(tnl_session_next(p.c.s, p.now)); /* one */
	tnl_stream_want_send(key->st, false);
	for (unsigned i = 0; i < TNL_COUNT(quiet); i++) {
		tnl_stream_want_send(quiet[i]->st, true);
		passed += send_turn(&p, quiet[i], 1000) > 0;
		tnl_stream_want_send(quiet[i]->st, false);
	}
	assert_in_range(passed, 4, 18); /* what the window has left and 8 KiB, all of them together */
	pair_run(&p);
	for (unsigned i = 0; i < TNL_COUNT(quiet); i++)
		assert_int_equal(tnl_buf_len(&p.a.rec[2 + i].in), i < passed ? 1000 : 0);
	pair_fini(&p);
}

static void fin_held_back(void **state)
{
	struct raw r;
	struct tnl_session_config c = client();
	(void)state;
	raw_client(&r, &c, STOCK_REQUEST("3.3.0.0"));
	struct rec *x = raw_open(&r);
	rec_puts(x, "GET /");
	x->shut_after = true;
	raw_move(&r);
	raw_expect_frame(&r, 1, TNL_SMUX_SYN, 3, NULL, 0);
	raw_expect_frame(&r, 1, TNL_SMUX_PSH, 3, "GET /", 5);
	raw_expect_quiet(&r);
	raw_advance(&r, 1900 * MS);
	raw_expect_quiet(&r);
	raw_smux(&r, 1, TNL_SMUX_PSH, 3, "reply", 5);
	raw_advance(&r, 1900 * MS);
	raw_expect_quiet(&r);
	raw_advance(&r, 200 * MS);
	raw_expect_frame(&r, 1, TNL_SMUX_FIN, 3, NULL, 0);
	raw_smux(&r, 1, TNL_SMUX_PSH, 3, " rest", 5); /* still on its way */
	raw_smux(&r, 1, TNL_SMUX_FIN, 3, NULL, 0);
	rec_expect(x, "reply rest");
	assert_true(x->eof && !x->half);
	assert_true(tnl_stream_done(x->st));
	raw_fini(&r);
}

/* A stock FIN ends both directions, after the bytes that are kept. */
static void stock_fin_after_kept_bytes(void **state)
{
	struct raw r;
	struct tnl_session_config c = client();
	const uint8_t *p;
	(void)state;
	raw_client(&r, &c, STOCK_REQUEST("3.3.0.0"));
	struct rec *x = raw_open(&r);
	raw_move(&r);
	tnl_buf_reset(&r.out);
	x->take = 0;
	raw_smux(&r, 1, TNL_SMUX_PSH, 3, "last words", 10);
	raw_smux(&r, 1, TNL_SMUX_FIN, 3, NULL, 0);
	assert_true(x->eof && !x->half);
	raw_expect_frame(&r, 1, TNL_SMUX_FIN, 3, NULL, 0); /* answered at once */
	assert_false(tnl_stream_eof(x->st));
	assert_false(tnl_stream_done(x->st));
	tnl_stream_want_send(x->st, true);
	assert_null(tnl_session_next(r.e.s, r.now)); /* nobody would read it */
	assert_int_equal(tnl_stream_peek(x->st, &p), 10);
	assert_memory_equal(p, "last words", 10);
	tnl_stream_consume(x->st, 10, r.now);
	assert_true(tnl_stream_eof(x->st) && tnl_stream_done(x->st));
	raw_fini(&r);
}

/* The agent towards a stock client: a target that ends is passed on at once when the client has been quiet. */
static void agent_fin_to_stock(void **state)
{
	struct raw r;
	struct tnl_session_config c = agent();
	(void)state;
	raw_agent(&r, &c, STOCK_RESPONSE("1.2.707.0"));
	raw_smux(&r, 1, TNL_SMUX_SYN, 3, NULL, 0);
	raw_smux(&r, 1, TNL_SMUX_PSH, 3, "x", 1);
	raw_advance(&r, 3 * SEC);
	tnl_stream_shutdown(r.e.rec[0].st, r.now);
	raw_advance(&r, 1 * MS);
	raw_expect_frame(&r, 1, TNL_SMUX_FIN, 3, NULL, 0);
	raw_fini(&r);
}

static void dial_failed(void **state)
{
	struct raw r;
	struct tnl_session_config c = agent();
	(void)state;
	/* Stock client: ConnectToPortError, then that stream's FIN. */
	raw_agent(&r, &c, STOCK_RESPONSE("1.2.707.0"));
	r.e.accept = false;
	raw_smux(&r, 1, TNL_SMUX_SYN, 3, NULL, 0);
	raw_smux(&r, 1, TNL_SMUX_SYN, 5, NULL, 0);
	int before = r.n;
	tnl_stream_reset(r.e.rec[0].st, TNL_RESET_CONNECT, r.now);
	tnl_stream_reset(r.e.rec[1].st, TNL_RESET_CONNECT, r.now);
	tnl_stream_free(r.e.rec[0].st);
	tnl_stream_free(r.e.rec[1].st);
	r.e.rec[0].st = r.e.rec[1].st = NULL;
	raw_move(&r);
	assert_int_equal(r.n, before + 4);
	assert_int_equal(r.got[before].ptype, TNL_PT_FLAG);
	assert_memory_equal(r.got[before].p, "\0\0\0\3", 4);
	assert_int_equal(r.got[before + 1].ptype, TNL_PT_OUTPUT);
	assert_int_equal(r.got[before + 2].ptype, TNL_PT_FLAG);
	raw_expect_frame(&r, 1, TNL_SMUX_FIN, 3, NULL, 0);
	raw_expect_frame(&r, 1, TNL_SMUX_FIN, 5, NULL, 0);
	raw_fini(&r);
	/* Our client: RST with the reason. */
	c = agent();
	raw_agent(&r, &c, OWN_RESPONSE);
	r.e.accept = false;
	raw_smux(&r, 2, TNL_SMUX_SYN, 3, NULL, 0);
	tnl_buf_reset(&r.out);
	tnl_stream_reset(r.e.rec[0].st, TNL_RESET_CONNECT, r.now);
	raw_move(&r);
	raw_expect_frame(&r, 2, TNL_SMUX_RST, 3, "\2\0\0\0", 4);
	raw_fini(&r);
}

/* ConnectToPortError has no stream id: it belongs to the stream whose FIN follows. */
static void connect_error_at_client(void **state)
{
	struct raw r;
	struct tnl_session_config c = client();
	(void)state;
	raw_client(&r, &c, STOCK_REQUEST("3.3.0.0"));
	struct rec *a = raw_open(&r), *b = raw_open(&r), *d = raw_open(&r);
	raw_move(&r);
	raw_smux(&r, 1, TNL_SMUX_PSH, 3, "served", 6);
	raw_send(&r, TNL_PT_FLAG, "\0\0\0\3", 4);
	assert_int_equal(r.e.flag, TNL_FLAG_CONNECT_ERROR);
	raw_smux(&r, 1, TNL_SMUX_FIN, 3, NULL, 0); /* had data: ended, not refused */
	raw_smux(&r, 1, TNL_SMUX_FIN, 5, NULL, 0);
	raw_smux(&r, 1, TNL_SMUX_FIN, 7, NULL, 0);
	assert_true(a->eof && !a->reset);
	assert_true(b->reset && !b->eof);
	assert_int_equal(b->reason, TNL_RESET_CONNECT);
	assert_true(d->eof && !d->reset);
	raw_fini(&r);
}

/* That stream may be gone here meanwhile: the error is not kept for one that ends in order. */
static void connect_error_of_a_stream_that_is_gone(void **state)
{
	struct raw r;
	struct tnl_session_config c = client();
	(void)state;
	raw_client(&r, &c, STOCK_REQUEST("3.3.0.0"));
	struct rec *a = raw_open(&r), *b = raw_open(&r);
	raw_move(&r);
	tnl_stream_reset(a->st, TNL_RESET_PEER, r.now);
	tnl_stream_free(a->st);
	a->st = NULL;
	raw_move(&r);
	raw_send(&r, TNL_PT_FLAG, "\0\0\0\3", 4);
	raw_smux(&r, 1, TNL_SMUX_FIN, 3, NULL, 0);
	raw_smux(&r, 1, TNL_SMUX_FIN, 5, NULL, 0);
	assert_true(b->eof && !b->reset);
	raw_fini(&r);
}

/* Bytes and an end that come while the agent still dials wait for the connection. */
static void data_before_connected(void **state)
{
	struct pair p;
	struct tnl_session_config cc = client(), ac = agent();
	(void)state;
	ready_pair(&p, &cc, &ac);
	p.a.accept = false;
	p.a.default_take = 0;
	struct rec *c = pair_open(&p);
	rec_puts(c, "waiting");
	c->shut_after = true;
	pair_run(&p);
	struct rec *a = &p.a.rec[0];
	assert_int_equal(tnl_buf_len(&a->in), 0);
	assert_false(a->eof);
	tnl_stream_want_send(a->st, true);
	assert_null(tnl_session_next(p.a.s, p.now));
	tnl_stream_connected(a->st, p.now);
	assert_int_equal(tnl_session_deadline(p.a.s), 0); /* something is due */
	a->take = SIZE_MAX;
	const uint8_t *m;
	size_t n;
	while (tnl_session_pull(p.a.s, p.now, &m, &n) == 1)
		(void)!tnl_session_feed(p.c.s, m, n, p.now);
	rec_expect(a, "waiting");
	assert_true(a->eof && a->half);
	pair_fini(&p);
}

static void half_close_timeout(void **state)
{
	struct pair p;
	struct tnl_session_config cc = client(), ac = agent();
	(void)state;
	ac.half_close_timeout_ns = 60 * SEC;
	ready_pair(&p, &cc, &ac);
	struct rec *c = pair_open(&p);
	c->shut_after = true;
	pair_advance(&p, 50 * SEC);
	rec_puts(&p.a.rec[0], "slow");
	pair_advance(&p, 50 * SEC); /* data moves the end */
	assert_false(p.a.rec[0].reset);
	pair_advance(&p, 11 * SEC);
	assert_true(p.a.rec[0].reset && c->reset);
	assert_int_equal(p.a.rec[0].reason, TNL_RESET_TIMEOUT);
	assert_int_equal(c->reason, TNL_RESET_TIMEOUT);
	pair_fini(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(mux_echo),
	    cmocka_unit_test(half_close),
	    cmocka_unit_test(alone_is_who_has_the_session_to_itself),
	    cmocka_unit_test(reset_with_reason),
	    cmocka_unit_test(reset_because),
	    cmocka_unit_test(free_is_reset),
	    cmocka_unit_test(lone_newline),
	    cmocka_unit_test(stalled_reader_v2),
	    cmocka_unit_test(stalled_reader_v1),
	    cmocka_unit_test(windows_share_memory),
	    cmocka_unit_test(a_small_message_passes_a_full_window),
	    cmocka_unit_test(fin_held_back),
	    cmocka_unit_test(stock_fin_after_kept_bytes),
	    cmocka_unit_test(agent_fin_to_stock),
	    cmocka_unit_test(dial_failed),
	    cmocka_unit_test(connect_error_at_client),
	    cmocka_unit_test(connect_error_of_a_stream_that_is_gone),
	    cmocka_unit_test(data_before_connected),
	    cmocka_unit_test(half_close_timeout),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
