/* Sessions as their users see them: modes, half-close, reset, back-pressure, the end. */
#include "tests/unit/raw_util.h"
#include "lib/num.h"
#include "lib/session_internal.h"
#include "lib/wire.h"

static struct tnl_session_config agent(void)
{
	return pair_config(true);
}
static struct tnl_session_config client(void)
{
	return pair_config(false);
}

static void ready_pair(struct pair *p, struct tnl_session_config *cc, struct tnl_session_config *ac)
{
	pair_init(p, cc, ac);
	pair_up(p);
	assert_int_equal(p->c.ready, 1);
	assert_int_equal(p->a.ready, 1);
	pair_advance(p, 60 * MS); /* holds towards stock ends are over */
}

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

static void raw_pause(struct raw *r)
{
	uint8_t b[TNL_MSG_HDR];
	struct tnl_msg m = {.type = TNL_MT_PAUSE_PUBLICATION, .schema = 1, .created_ms = 1};
	size_t n = tnl_msg_encode(b, &m);
	(void)!tnl_session_feed(r->e.s, b, n, r->now);
	raw_move(r);
}

/* A stock agent whose link broke may take a message again that it could not acknowledge: streams with bytes under way
 * are reset, the others go on. */
static void stock_agent_loses_its_link(void **state)
{
	struct raw r;
	struct tnl_session_config c = client();
	(void)state;
	raw_client(&r, &c, STOCK_REQUEST("3.3.0.0"));
	struct rec *quiet = raw_open(&r), *busy = raw_open(&r);
	rec_puts(quiet, "one");
	rec_puts(busy, "two");
	raw_move(&r);
	raw_pause(&r);
	assert_false(quiet->reset || busy->reset); /* all is acknowledged */
	raw_smux(&r, 1, TNL_SMUX_NOP, 0, NULL, 0); /* any stream message ends the pause */
	r.deaf = true;
	rec_puts(busy, "three");
	raw_move(&r);
	raw_pause(&r);
	assert_true(busy->reset);
	assert_int_equal(busy->reason, TNL_RESET_DOUBT);
	assert_false(quiet->reset);
	r.deaf = false;
	raw_smux(&r, 1, TNL_SMUX_PSH, tnl_stream_id(quiet->st), "still here", 10);
	rec_expect(quiet, "still here");
	raw_fini(&r);
}

/* Without streams it is the session that is given up: nothing marks where one connection ends. */
static void stock_agent_of_a_single_stream_loses_its_link(void **state)
{
	struct raw r;
	struct tnl_session_config c = client();
	(void)state;
	raw_client(&r, &c,
		   "{\"AgentVersion\":\"3.3.0.0\",\"RequestedClientActions\":[{\"ActionType\":\"SessionType\","
		   "\"ActionParameters\":{\"SessionType\":\"Port\",\"Properties\":{\"portNumber\":\"22\"}}}]}");
	struct rec *x = raw_open(&r);
	rec_puts(x, "SSH-2.0");
	raw_move(&r);
	raw_pause(&r);
	assert_int_equal(r.e.closed, 0);
	raw_send(&r, TNL_PT_OUTPUT, "ends the pause", 14);
	r.deaf = true;
	rec_puts(x, "more");
	raw_move(&r);
	raw_pause(&r);
	assert_int_equal(r.e.closed, 1);
	assert_int_equal(r.e.err, TNL_ETRUNC);
	assert_non_null(strstr(r.e.text, "lost its link"));
	raw_fini(&r);
}

/* Between our own ends every byte is where it belongs, whatever breaks: nothing is given up. */
static void own_agent_loses_its_link(void **state)
{
	struct raw r;
	struct tnl_session_config c = client();
	(void)state;
	raw_client(&r, &c, OWN_REQUEST);
	struct rec *busy = raw_open(&r);
	r.deaf = true;
	rec_puts(busy, "one");
	raw_move(&r);
	raw_pause(&r);
	assert_false(busy->reset);
	r.deaf = false;
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

static int count_frames(struct end *e, int cmd)
{
	const uint8_t *b = tnl_buf_data(&e->tap);
	size_t n = tnl_buf_len(&e->tap);
	int count = 0;
	for (size_t i = 0; i < n;) {
		size_t len = tnl_get_be32(b + i);
		struct tnl_msg m;
		if (tnl_msg_decode(b + i + 4, len, &m, NULL) == 0 && m.ptype == TNL_PT_OUTPUT && m.plen == 8)
			count += m.payload[1] == cmd;
		i += 4 + len;
	}
	return count;
}

static void keepalive(void **state)
{
	struct pair p;
	struct tnl_session_config cc = client(), ac = agent();
	(void)state;
	cc.keepalive_ns = 100 * SEC;
	ready_pair(&p, &cc, &ac);
	pair_advance(&p, 1000 * SEC);
	assert_int_equal(count_frames(&p.c, TNL_SMUX_NOP), 0); /* no stream open: the session may idle out */
	struct rec *c = pair_open(&p);
	pair_advance(&p, 1000 * SEC);
	int n = count_frames(&p.c, TNL_SMUX_NOP);
	assert_in_range(n, 9, 10);
	for (int i = 0; i < 20; i++) {
		rec_puts(c, "busy");
		pair_advance(&p, 50 * SEC);
	}
	assert_in_range(count_frames(&p.c, TNL_SMUX_NOP), n, n + 1); /* data does the same */
	pair_fini(&p);
}

/* Links come and go in mid-transfer; local streams only wait. */
static void resume(void **state)
{
	struct pair p;
	struct tnl_session_config cc = client(), ac = agent();
	(void)state;
	ready_pair(&p, &cc, &ac);
	p.a.echo = true;
	struct rec *c = pair_open(&p);
	rec_fill(c, 1000000, 9);
	for (int i = 0; i < 20; i++) {
		end_pump(&p.c);
		const uint8_t *m;
		size_t n;
		for (int k = 0; k < 7 && tnl_session_pull(p.c.s, p.now, &m, &n) == 1; k++)
			if (k & 1)
				(void)!tnl_session_feed(p.a.s, m, n, p.now); /* every other one is lost */
		end_pump(&p.a);
		while (tnl_session_pull(p.a.s, p.now, &m, &n) == 1)
			; /* all acks and echoes lost */
		pair_down(&p);
		pair_advance(&p, 300 * MS);
		pair_up(&p);
		end_pump(&p.c);
	}
	pair_advance(&p, 5 * SEC);
	rec_expect_fill(c, 1000000, 9);
	assert_int_equal(p.a.nrec, 1);
	pair_fini(&p);
}

static void old_versions(struct tnl_session_config *cc, struct tnl_session_config *ac)
{
	cc->version = "1.1.0.0";
	ac->version = "2.3.800.0";
}

/* Basic: one connection at a time, DisconnectToPort between them. */
static void basic(void **state)
{
	struct pair p;
	struct tnl_session_config cc = client(), ac = agent();
	int err;
	(void)state;
	old_versions(&cc, &ac);
	cc.offer_capabilities = false;
	ready_pair(&p, &cc, &ac);
	assert_int_equal(p.c.mode, TNL_MODE_BASIC);
	assert_int_equal(p.a.mode, TNL_MODE_BASIC);
	assert_int_equal(p.a.nrec, 1); /* the agent dials at the start */
	p.a.echo = true;
	struct rec *c = pair_open(&p);
	assert_null(tnl_stream_open(p.c.s, NULL, p.now, &err));
	assert_int_equal(err, TNL_EBUSY);
	rec_puts(c, "one");
	pair_run(&p);
	rec_expect(c, "one");
	tnl_stream_shutdown(c->st, p.now);
	pair_advance(&p, 1900 * MS);
	assert_false(c->eof);
	pair_advance(&p, 200 * MS);
	assert_true(c->eof && tnl_stream_done(c->st));
	assert_true(p.a.rec[0].eof && tnl_stream_done(p.a.rec[0].st));
	tnl_stream_free(c->st);
	tnl_stream_free(p.a.rec[0].st);
	c->st = p.a.rec[0].st = NULL;
	struct rec *d = pair_open(&p);
	pair_run(&p);
	assert_int_equal(p.a.nrec, 1); /* the next data makes it dial again */
	rec_puts(d, "two");
	pair_run(&p);
	assert_int_equal(p.a.nrec, 2);
	rec_expect(d, "two");
	tnl_stream_reset(d->st, TNL_RESET_PEER, p.now); /* a local reset is a DisconnectToPort at once */
	pair_run(&p);
	assert_true(p.a.rec[1].eof);
	pair_fini(&p);
}

static void single_own(void **state)
{
	struct pair p;
	struct tnl_session_config cc = client(), ac = agent();
	int err;
	(void)state;
	ac.properties_json = "{\"portNumber\":\"22\"}";
	pair_init(&p, &cc, &ac);
	pair_up(&p);
	assert_int_equal(p.c.mode, TNL_MODE_SINGLE);
	rec_puts(&p.a.rec[0], "SSH-2.0-banner\r\n"); /* the target speaks before the client has opened */
	p.a.rec[0].shut_after = true;
	pair_run(&p);
	struct rec *c = pair_open(&p);
	pair_run(&p);
	rec_expect(c, "SSH-2.0-banner\r\n");
	assert_true(c->eof && c->half);
	assert_null(tnl_stream_open(p.c.s, NULL, p.now, &err));
	assert_int_equal(err, TNL_EBUSY);
	rec_fill(c, 500000, 3);
	c->shut_after = true;
	pair_run(&p);
	rec_expect_fill(&p.a.rec[0], 500000, 3);
	assert_true(p.a.rec[0].eof);
	assert_true(tnl_stream_done(c->st) && tnl_stream_done(p.a.rec[0].st));
	pair_fini(&p);
	/* Reset. */
	cc = client();
	ac = agent();
	ac.properties_json = "{}";
	ready_pair(&p, &cc, &ac);
	c = pair_open(&p);
	rec_puts(c, "x");
	pair_run(&p);
	tnl_stream_reset(p.a.rec[0].st, TNL_RESET_PEER, p.now);
	pair_run(&p);
	assert_true(c->reset);
	assert_int_equal(c->reason, TNL_RESET_PEER);
	pair_fini(&p);
}

static void channel_closed(struct pair *p, struct end *e, const char *output)
{
	uint8_t buf[1024];
	struct tnl_buf b;
	struct tnl_channel_closed cc = {.message_id = (char[]){"m"},
					.session_id = (char[]){"s"},
					.destination_id = (char[]){"d"}};
	cc.output = (char *)(uintptr_t)output;
	tnl_buf_init(&b, 800);
	assert_int_equal(tnl_channel_closed_write(&b, &cc), 0);
	struct tnl_msg m = {.type = TNL_MT_CHANNEL_CLOSED,
			    .schema = 1,
			    .created_ms = 1,
			    .payload = tnl_buf_data(&b),
			    .plen = (uint32_t)tnl_buf_len(&b)};
	size_t n = tnl_msg_encode(buf, &m);
	(void)!tnl_session_feed(e->s, buf, n, p->now);
	tnl_buf_fini(&b);
}

/* A stock single stream has no end but the session's; what is kept is still to be had. */
static void single_stock(void **state)
{
	struct pair p;
	struct tnl_session_config cc = client(), ac = agent();
	const uint8_t *d;
	(void)state;
	cc.offer_capabilities = false;
	ac.properties_json = "{}";
	ready_pair(&p, &cc, &ac);
	struct rec *c = pair_open(&p);
	c->take = 0;
	rec_puts(&p.a.rec[0], "last line");
	pair_run(&p);
	channel_closed(&p, &p.c, "Session ended");
	assert_int_equal(p.c.closed, 1);
	assert_int_equal(p.c.err, TNL_ECLOSED);
	assert_string_equal(p.c.text, "Session ended");
	assert_true(c->eof && !c->reset);
	assert_int_equal(tnl_stream_peek(c->st, &d), 9);
	tnl_stream_consume(c->st, 9, p.now);
	assert_true(tnl_stream_done(c->st));
	tnl_stream_free(c->st);
	pair_fini(&p);
	/* stdin's end: after the quiet time the stream is over, so that ProxyCommand can leave. */
	cc = client();
	ac = agent();
	cc.offer_capabilities = false;
	ac.properties_json = "{}";
	ready_pair(&p, &cc, &ac);
	c = pair_open(&p);
	tnl_stream_shutdown(c->st, p.now);
	pair_advance(&p, 1 * SEC);
	rec_puts(&p.a.rec[0], "reply");
	pair_advance(&p, 1900 * MS);
	assert_false(c->eof);
	pair_advance(&p, 200 * MS);
	rec_expect(c, "reply");
	assert_true(c->eof && tnl_stream_done(c->st));
	pair_fini(&p);
}

static void shell(void **state)
{
	struct pair p;
	struct tnl_session_config cc = client(), ac = agent();
	(void)state;
	ac.session_type = "Standard_Stream";
	ac.properties_json = NULL;
	ac.skip_handshake = true;
	pair_init(&p, &cc, &ac);
	struct rec *c = pair_open(&p);
	tnl_session_send_size(p.c.s, 100, 40, p.now);
	tnl_session_send_size(p.c.s, 80, 24, p.now);
	pair_up(&p);
	assert_int_equal(p.a.ready, 1);
	assert_int_equal(p.c.ready, 0); /* it learns what it has from the first Output */
	rec_puts(&p.a.rec[0], "$ ");
	pair_run(&p);
	assert_int_equal(p.c.ready, 1);
	assert_int_equal(p.c.mode, TNL_MODE_SHELL);
	rec_expect(c, "$ ");
	pair_run(&p);
	assert_int_equal(p.a.cols, 80);
	assert_int_equal(p.a.rows, 24);
	rec_puts(c, "exit\n");
	pair_run(&p);
	rec_expect(&p.a.rec[0], "exit\n");
	channel_closed(&p, &p.c, "");
	assert_true(c->eof && !c->reset);
	assert_int_equal(p.c.err, TNL_ECLOSED);
	pair_fini(&p);
}

/* A size waits for HandshakeComplete (a stock agent drops what comes earlier), and only the last one is sent. */
static void size_waits(void **state)
{
	struct raw r;
	struct tnl_session_config c = client();
	int sizes = 0;
	(void)state;
	raw_init(&r, &c);
	tnl_session_send_size(r.e.s, 1, 1, r.now);
	tnl_session_send_size(r.e.s, 132, 50, r.now);
	raw_text(
	    &r, TNL_PT_HANDSHAKE_REQUEST,
	    "{\"AgentVersion\":\"3.3.0.0\",\"RequestedClientActions\":[{\"ActionType\":\"SessionType\",\"ActionParameters\":"
	    "{\"SessionType\":\"InteractiveCommands\",\"Properties\":null}}]}");
	raw_advance(&r, 100 * MS);
	assert_int_equal(r.n, 1); /* the response alone */
	raw_text(&r, TNL_PT_HANDSHAKE_COMPLETE, STOCK_COMPLETE);
	raw_advance(&r, 10 * MS);
	for (int i = 0; i < r.n; i++)
		sizes += r.got[i].ptype == TNL_PT_SIZE;
	assert_int_equal(sizes, 1);
	assert_string_equal(r.got[r.n - 1].p, "{\"cols\":132,\"rows\":50}");
	raw_fini(&r);
}

static void commit_as(struct pair *p, struct rec *r, uint32_t ptype, const char *s)
{
	size_t cap;
	uint8_t *b = tnl_stream_reserve(r->st, &cap, p->now);
	assert_non_null(b);
	memcpy(b, s, strlen(s));
	assert_int_equal(tnl_stream_commit(r->st, strlen(s), ptype, p->now), 0);
}

static void command(void **state)
{
	struct pair p;
	struct tnl_session_config cc = client(), ac = agent();
	const uint8_t *d;
	(void)state;
	ac.session_type = cc.expected_type = "NonInteractiveCommands";
	ac.properties_json = "{\"separateOutputStream\":\"true\"}";
	ready_pair(&p, &cc, &ac);
	assert_int_equal(p.c.mode, TNL_MODE_COMMAND);
	struct rec *c = pair_open(&p);
	c->take = 0;
	commit_as(&p, &p.a.rec[0], TNL_PT_OUTPUT, "out");
	commit_as(&p, &p.a.rec[0], TNL_PT_STDERR, "err");
	commit_as(&p, &p.a.rec[0], TNL_PT_OUTPUT, "more");
	tnl_session_send_exit_code(p.a.s, 42, p.now);
	pair_run(&p);
	/* The two kinds stay in their order, and the code behind them. */
	assert_int_equal(tnl_stream_peek(c->st, &d), 3);
	assert_int_equal(tnl_stream_kept_ptype(c->st), TNL_PT_OUTPUT);
	assert_int_equal(p.c.exit_code, -1);
	tnl_stream_consume(c->st, 3, p.now);
	pair_run(&p);
	assert_int_equal(tnl_stream_peek(c->st, &d), 3);
	assert_int_equal(tnl_stream_kept_ptype(c->st), TNL_PT_STDERR);
	assert_memory_equal(d, "err", 3);
	c->take = SIZE_MAX;
	tnl_stream_consume(c->st, 3, p.now);
	pair_run(&p);
	rec_expect(c, "more");
	assert_int_equal(p.c.exit_code, 42);
	pair_fini(&p);
}

/* channel_closed comes while data is still owed to a reader that was not ready: first the data. */
static void closed_after_owed_data(void **state)
{
	struct pair p;
	struct tnl_session_config cc = client(), ac = agent();
	(void)state;
	ac.session_type = "NonInteractiveCommands";
	ready_pair(&p, &cc, &ac);
	struct rec *c = pair_open(&p);
	c->take = 0;
	commit_as(&p, &p.a.rec[0], TNL_PT_OUTPUT, "out");
	commit_as(&p, &p.a.rec[0], TNL_PT_STDERR, "err");
	pair_run(&p);
	channel_closed(&p, &p.c, "");
	assert_int_equal(p.c.closed, 0);
	c->take = SIZE_MAX;
	pair_run(&p);
	rec_expect(c, "outerr");
	assert_int_equal(p.c.closed, 1);
	assert_true(c->eof);
	pair_fini(&p);
}

/* The same when what was not ready could not be kept either: it will not come again. */
static void closed_after_dropped_data(void **state)
{
	struct pair p;
	struct tnl_session_config cc = client(), ac = agent();
	struct tnl_channel_stats st;
	(void)state;
	ac.properties_json = "{}";
	cc.offer_capabilities = false;
	cc.memory_max = 256 * 1024;
	ready_pair(&p, &cc, &ac);
	struct rec *c = pair_open(&p);
	c->take = 0;
	rec_fill(&p.a.rec[0], 1000000, 6);
	pair_advance(&p, 2 * SEC);
	tnl_channel_stats(tnl_session_channel(p.c.s), &st);
	assert_true(st.dropped_full > 0);
	pair_down(&p);
	channel_closed(&p, &p.c, "");
	assert_int_equal(p.c.closed, 0);
	c->take = SIZE_MAX;
	pair_advance(&p, SEC);
	assert_int_equal(p.c.closed, 1);
	assert_true(c->eof && tnl_buf_len(&c->in) > 90000);
	pair_fini(&p);
}

static bool tap_has(struct end *e, const char *s)
{
	return memmem(tnl_buf_data(&e->tap), tnl_buf_len(&e->tap), s, strlen(s)) != NULL;
}

/* Between own ends a Port session is encrypted, each message under a nonce of its own. */
static void encrypted_port(void **state)
{
	struct pair p;
	struct tnl_session_config cc = client(), ac = agent();
	(void)state;
	for (int mode = 0; mode < 2; mode++) {
		ac.kms_key_id = "arn:key";
		ac.properties_json = mode ? "{}" : "{\"type\":\"LocalPortForwarding\"}";
		cc.require_encryption = ac.require_encryption = true;
		ready_pair(&p, &cc, &ac);
		assert_true(tnl_session_info(p.c.s)->encrypted && tnl_session_info(p.a.s)->encrypted);
		assert_int_equal(p.c.kms_calls, 1);
		assert_int_equal(p.a.kms_calls, 1);
		assert_string_equal(p.c.kms_challenge, p.a.kms_challenge);
		assert_int_equal(strlen(p.c.kms_challenge), 24);
		p.a.echo = true;
		struct rec *c = pair_open(&p);
		rec_puts(c, "attack at dawn");
		pair_run(&p);
		rec_expect(c, "attack at dawn");
		assert_false(tap_has(&p.c, "attack") || tap_has(&p.a, "attack"));
		rec_fill(c, 300000, 8);
		pair_run(&p);
		assert_int_equal(tnl_buf_len(&c->in), 300014);
		pair_fini(&p);
	}
}

/* A changed ciphertext ends the session: digest and sequence are right, the tag is not. */
static void tampered_payload(void **state)
{
	struct pair p;
	struct tnl_session_config cc = client(), ac = agent();
	const uint8_t *m;
	size_t n;
	(void)state;
	ac.kms_key_id = "arn:key";
	ready_pair(&p, &cc, &ac);
	(void)pair_open(&p);
	while (tnl_session_pull(p.c.s, p.now, &m, &n) == 1) {
		struct tnl_msg msg;
		uint8_t copy[2048];
		assert_int_equal(tnl_msg_decode(m, n, &msg, NULL), 0);
		if (msg.ptype != TNL_PT_OUTPUT)
			continue;
		memcpy(copy, m, n);
		copy[TNL_MSG_HDR + 15] ^= 1;
		tnl_msg_seal(copy, &msg);
		assert_int_equal(tnl_session_feed(p.a.s, copy, n, p.now), TNL_ECRYPTO);
	}
	assert_int_equal(p.a.err, TNL_ECRYPTO);
	pair_fini(&p);
}

/* The end of a session: every open stream is told, then the session, nothing afterwards. */
static void session_end(void **state)
{
	struct pair p;
	struct tnl_session_config cc = client(), ac = agent();
	(void)state;
	ready_pair(&p, &cc, &ac);
	struct rec *a = pair_open(&p), *b = pair_open(&p), *c = pair_open(&p);
	rec_puts(a, "x");
	pair_run(&p);
	/* b is over in both directions, its last bytes not read yet. */
	b->take = 0;
	rec_puts(&p.a.rec[1], "kept");
	p.a.rec[1].shut_after = b->shut_after = true;
	/* c got the peer's end but has not ended itself. */
	p.a.rec[2].shut_after = true;
	pair_run(&p);
	assert_true(b->eof && c->eof);
	channel_closed(&p, &p.c, "timed out");
	assert_true(a->reset && c->reset && !b->reset);
	assert_int_equal(a->reason, TNL_RESET_SESSION);
	assert_int_equal(tnl_stream_kept(b->st), 4);
	assert_int_equal(tnl_session_state(p.c.s), TNL_SS_CLOSED);
	const uint8_t *m;
	size_t n;
	int err = 0;
	assert_int_equal(tnl_session_pull(p.c.s, p.now, &m, &n), TNL_EAGAIN);
	assert_int_equal(tnl_session_deadline(p.c.s), UINT64_MAX);
	tnl_session_expire(p.c.s, p.now + 1000 * SEC);
	tnl_session_abort(p.c.s, TNL_EPROTO, "again", p.now);
	assert_null(tnl_stream_open(p.c.s, NULL, p.now, &err));
	assert_int_equal(err, TNL_ECLOSED);
	size_t cap;
	assert_null(tnl_stream_reserve(b->st, &cap, p.now));
	tnl_stream_free(b->st);
	tnl_session_abort(p.a.s, TNL_ETIMEOUT, "local reason", p.now);
	assert_int_equal(p.a.err, TNL_ETIMEOUT);
	assert_string_equal(p.a.text, "local reason");
	pair_fini(&p);
	assert_int_equal(tnl_alloc_live(), 0);
}

/* --- what callbacks may do -------------------------------------------------------- */

static void hostile_open(void *ctx, struct tnl_stream *st)
{
	struct end *e = ctx;
	u_open(ctx, st);
	struct rec *r = tnl_stream_user(st);
	if (e->nrec == 1) { /* refuse and free inside the callback */
		tnl_stream_reset(st, TNL_RESET_DENIED, *e->now);
		tnl_stream_free(st);
		r->st = NULL;
	} else if (e->nrec == 2) {
		tnl_session_abort(e->s, TNL_EREFUSED, "from a callback", *e->now);
		assert_int_equal(e->closed, 0); /* when the outer call ends */
	}
}

static void hostile_reset(void *ctx, struct tnl_stream *st, uint32_t reason)
{
	struct rec *r = tnl_stream_user(st);
	u_reset(ctx, st, reason);
	tnl_stream_free(st);
	r->st = NULL;
}

static void callbacks_may_free_and_abort(void **state)
{
	struct pair p;
	struct tnl_session_config cc = client(), ac = agent();
	struct tnl_session_cb acb = end_cb, ccb = end_cb;
	(void)state;
	acb.on_open = hostile_open;
	ccb.on_reset = hostile_reset;
	ac.cb = &acb;
	cc.cb = &ccb;
	ready_pair(&p, &cc, &ac);
	struct rec *c = pair_open(&p);
	rec_puts(c, "data for nobody");
	pair_run(&p);
	assert_true(c->reset);
	assert_int_equal(c->reason, TNL_RESET_DENIED);
	assert_int_equal(tnl_session_streams(p.a.s), 0);
	assert_int_equal(tnl_session_streams(p.c.s), 0);
	(void)pair_open(&p);
	pair_run(&p);
	assert_int_equal(p.a.closed, 1);
	assert_string_equal(p.a.text, "from a callback");
	pair_fini(&p);
	assert_int_equal(tnl_alloc_live(), 0);
}

/* --- bad input ---------------------------------------------------------------------- */

static void bad_messages_are_dropped(void **state)
{
	struct pair p;
	struct tnl_session_config cc = client(), ac = agent();
	uint8_t m[400];
	struct tnl_msg msg = {.type = TNL_MT_INPUT,
			      .schema = 1,
			      .created_ms = 1,
			      .seq = 999999,
			      .ptype = TNL_PT_OUTPUT,
			      .payload = (const uint8_t *)"abc",
			      .plen = 3};
	(void)state;
	ready_pair(&p, &cc, &ac);
	size_t n = tnl_msg_encode(m, &msg);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(tnl_session_feed(p.a.s, m, i, p.now), 0); /* cut short */
	for (size_t i = 0; i < n; i++) {
		m[i] ^= 0x40;
		assert_int_equal(tnl_session_feed(p.a.s, m, n, p.now), 0);
		m[i] ^= 0x40;
	}
	assert_true(tnl_session_stats(p.a.s)->bad_messages > n);
	assert_int_equal(p.a.closed, 0);
	p.a.echo = true;
	struct rec *c = pair_open(&p);
	rec_puts(c, "still here");
	pair_run(&p);
	rec_expect(c, "still here");
	pair_fini(&p);
}

static void odd_payloads(void **state)
{
	struct raw r;
	struct tnl_session_config c = agent();
	(void)state;
	raw_agent(&r, &c, OWN_RESPONSE);
	raw_text(&r, TNL_PT_SIZE, "{\"cols\":-1,\"rows\":24}");
	raw_text(&r, TNL_PT_SIZE, "nonsense");
	raw_text(&r, TNL_PT_FLAG, "12");
	raw_text(&r, TNL_PT_EXIT_CODE, "EXIT_CODE: 3");
	raw_text(&r, TNL_PT_STDERR, "x");
	raw_text(&r, 77, "x");
	raw_text(&r, TNL_PT_HANDSHAKE_RESPONSE, OWN_RESPONSE); /* a second time */
	raw_text(&r, TNL_PT_HANDSHAKE_REQUEST, OWN_REQUEST);
	assert_int_equal(r.e.closed, 0);
	assert_int_equal(r.e.cols, 0);
	assert_int_equal(r.e.exit_code, -1);
	assert_true(tnl_session_stats(r.e.s)->bad_payloads >= 5);
	raw_send(&r, TNL_PT_FLAG, "\0\0\0\2", 4);
	assert_int_equal(r.e.flag, TNL_FLAG_TERMINATE);
	raw_fini(&r);
}

struct counted {
	const char *name[32];
	uint64_t sum;
	unsigned n;
};

static void count_one(void *ctx, const char *name, uint64_t value)
{
	struct counted *c = ctx;
	for (unsigned i = 0; i < c->n; i++)
		assert_string_not_equal(name, c->name[i]);
	assert_true(c->n < TNL_COUNT(c->name));
	c->name[c->n++] = name;
	c->sum += value << (8 * c->n - 8);
}

/* Each counter once and in its place: a new one that is forgotten in the list makes the number of them wrong. */
static void counters_have_names(void **state)
{
	struct counted c = {.n = 0};
	struct tnl_session_stats st = {.bad_messages = 1,
				       .unknown_messages = 2,
				       .bad_payloads = 3,
				       .unknown_payloads = 4,
				       .unknown_frames = 5,
				       .early_data = 6};
	(void)state;
	tnl_session_stats_each(&st, count_one, &c);
	assert_int_equal(c.n, sizeof(st) / sizeof(uint64_t));
	assert_int_equal(c.sum, 0x060504030201);
	assert_string_equal(c.name[4], "unknown_frames");
}

static void modes_have_names(void **state)
{
	(void)state;
	assert_string_equal(tnl_session_mode_name(TNL_MODE_UNKNOWN), "unknown");
	assert_string_equal(tnl_session_mode_name(TNL_MODE_MUX), "mux");
	assert_string_equal(tnl_session_mode_name(TNL_MODE_BASIC), "basic");
	assert_string_equal(tnl_session_mode_name(TNL_MODE_SINGLE), "single");
	assert_string_equal(tnl_session_mode_name(TNL_MODE_SHELL), "shell");
	assert_string_equal(tnl_session_mode_name(TNL_MODE_COMMAND), "command");
	assert_string_equal(tnl_session_mode_name((enum tnl_session_mode)(TNL_MODE_COMMAND + 1)), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(mux_echo),
	    cmocka_unit_test(half_close),
	    cmocka_unit_test(reset_with_reason),
	    cmocka_unit_test(free_is_reset),
	    cmocka_unit_test(lone_newline),
	    cmocka_unit_test(stalled_reader_v2),
	    cmocka_unit_test(stalled_reader_v1),
	    cmocka_unit_test(windows_share_memory),
	    cmocka_unit_test(a_small_message_passes_a_full_window),
	    cmocka_unit_test(fin_held_back),
	    cmocka_unit_test(stock_agent_loses_its_link),
	    cmocka_unit_test(stock_agent_of_a_single_stream_loses_its_link),
	    cmocka_unit_test(own_agent_loses_its_link),
	    cmocka_unit_test(stock_fin_after_kept_bytes),
	    cmocka_unit_test(agent_fin_to_stock),
	    cmocka_unit_test(dial_failed),
	    cmocka_unit_test(connect_error_at_client),
	    cmocka_unit_test(data_before_connected),
	    cmocka_unit_test(half_close_timeout),
	    cmocka_unit_test(keepalive),
	    cmocka_unit_test(resume),
	    cmocka_unit_test(basic),
	    cmocka_unit_test(single_own),
	    cmocka_unit_test(single_stock),
	    cmocka_unit_test(shell),
	    cmocka_unit_test(command),
	    cmocka_unit_test(closed_after_owed_data),
	    cmocka_unit_test(closed_after_dropped_data),
	    cmocka_unit_test(size_waits),
	    cmocka_unit_test(encrypted_port),
	    cmocka_unit_test(tampered_payload),
	    cmocka_unit_test(session_end),
	    cmocka_unit_test(callbacks_may_free_and_abort),
	    cmocka_unit_test(bad_messages_are_dropped),
	    cmocka_unit_test(odd_payloads),
	    cmocka_unit_test(counters_have_names),
	    cmocka_unit_test(modes_have_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
