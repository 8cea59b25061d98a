/* Sessions as their users see them: links, resume, encryption, the end, what callbacks may do, bad input. */
#include "tests/unit/raw_util.h"
#include "lib/num.h"

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

static void raw_relink(struct raw *r)
{
	tnl_session_link_down(r->e.s, r->now);
	r->deaf = true; /* nobody is there yet */
	raw_advance(r, 100 * MS);
}

/* A gateway that restarts takes both links along and says so on the new one: in doubt is what was on its way on the old
 * one, not what was written since, which no agent can have taken. */
static void only_what_was_on_the_old_link_is_in_doubt(void **state)
{
	struct raw r;
	struct tnl_session_config c = client();
	(void)state;
	c.link_queue = true;
	raw_client(&r, &c, STOCK_REQUEST("3.3.0.0"));
	struct rec *before = raw_open(&r), *since = raw_open(&r), *after = raw_open(&r);
	rec_puts(since, "one");
	rec_puts(after, "one");
	raw_move(&r);
	r.deaf = true;
	rec_puts(before, "in flight");
	raw_move(&r);
	raw_relink(&r);
	rec_puts(since, "while it was away");
	raw_move(&r);
	tnl_session_link_up(r.e.s, r.now);
	raw_move(&r);
	raw_pause(&r);
	assert_true(before->reset);
	assert_false(since->reset || after->reset);
	r.deaf = false; /* the agent is back, and takes what waited */
	tnl_channel_link_up(r.ch, r.now);
	raw_advance(&r, 2 * SEC);
	rec_puts(after, "two");
	raw_move(&r);
	assert_false(since->reset || after->reset);
	r.deaf = true;
	rec_puts(after, "three");
	raw_move(&r);
	raw_pause(&r); /* seen on this link, and lost with it */
	assert_true(after->reset);
	assert_false(since->reset);
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

static int count_frames(struct end *e, int cmd)
{
	const uint8_t *b = tnl_buf_data(&e->tap);
	size_t n = tnl_buf_len(&e->tap);
	int count = 0;
	for (size_t i = 0; i < n;) {
		size_t len = tnl_get_be32(b + i);
		struct tnl_msg m;
		if (tnl_msg_decode_agreed(b + i + 4, len, TNL_DIGEST_CRC32C, &m, NULL) == 0 &&
		    m.ptype == TNL_PT_OUTPUT && m.plen == 8)
			count += m.payload[1] == cmd;
		i += 4 + len;
	}
	return count;
}

/* Where there are no frames a flag that every end ignores keeps the session from idling out. */
static void keepalive_without_frames(void **state)
{
	static const char *const types[] = {"Port", "Standard_Stream", "NonInteractiveCommands"};
	(void)state;
	for (size_t i = 0; i < TNL_COUNT(types); i++) {
		struct pair p;
		struct tnl_session_config cc = client(), ac = agent();
		cc.keepalive_ns = 100 * SEC;
		ac.session_type = types[i];
		ac.properties_json = "{\"portNumber\":\"22\"}";
		ready_pair(&p, &cc, &ac);
		struct rec *c = pair_open(&p);
		pair_run(&p);
		struct tnl_channel_stats a, b;
		tnl_channel_stats(tnl_session_channel(p.c.s), &a);
		pair_advance(&p, 1000 * SEC);
		tnl_channel_stats(tnl_session_channel(p.c.s), &b);
		assert_in_range(b.sent - a.sent, 9, 10);
		assert_int_equal(p.a.flag, 0); /* the agent's owner hears nothing of it */
		assert_int_equal(tnl_session_stats(p.a.s)->bad_payloads, 0);
		tnl_stream_free(c->st);
		c->st = NULL;
		pair_run(&p);
		pair_advance(&p, SEC);
		tnl_channel_stats(tnl_session_channel(p.c.s), &a);
		pair_advance(&p, 1000 * SEC);
		tnl_channel_stats(tnl_session_channel(p.c.s), &b);
		assert_int_equal(b.sent, a.sent);
		pair_fini(&p);
	}
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

/* Everything after the handshake carries the CRC; a payload that changed on its way is dropped, counted and sent again.
 */
static void digest_between_own_ends(void **state)
{
	struct pair p;
	struct tnl_session_config cc = client(), ac = agent();
	const uint8_t *m;
	size_t n, sums = 0;
	(void)state;
	ready_pair(&p, &cc, &ac);
	p.a.echo = true;
	struct rec *c = pair_open(&p);
	rec_puts(c, "attack at dawn");
	end_pump(&p.c);
	while (tnl_session_pull(p.c.s, p.now, &m, &n) == 1) {
		uint8_t copy[2048];
		assert_memory_equal(m + 80, "CRC32C\0\0", 8);
		memcpy(copy, m, n);
		copy[n - 1] ^= 0x10;
		assert_int_equal(tnl_session_feed(p.a.s, copy, n, p.now), 0);
		sums++;
	}
	assert_int_equal(tnl_session_stats(p.a.s)->bad_messages, sums);
	pair_advance(&p, 2 * SEC);
	rec_expect(c, "attack at dawn");
	assert_int_equal(tnl_session_stats(p.a.s)->bad_messages, sums);
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
		assert_int_equal(tnl_msg_decode_agreed(m, n, TNL_DIGEST_CRC32C, &msg, NULL), 0);
		if (msg.ptype != TNL_PT_OUTPUT)
			continue;
		memcpy(copy, m, n);
		copy[TNL_MSG_HDR + 15] ^= 1;
		msg.digest = TNL_DIGEST_CRC32C;
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

/* Acks that ask, and all acks; every other message without a number of its own has none. */
static int asking_acks(struct end *e, int *acks)
{
	const uint8_t *b = tnl_buf_data(&e->tap);
	int asking = 0;
	*acks = 0;
	for (size_t i = 0, n = tnl_buf_len(&e->tap); i < n; i += 4 + tnl_get_be32(b + i)) {
		struct tnl_msg m;
		assert_int_equal(tnl_msg_decode_agreed(b + i + 4, tnl_get_be32(b + i), TNL_DIGEST_CRC32C, &m, NULL), 0);
		if (m.type != TNL_MT_ACK)
			continue;
		++*acks;
		asking += m.seq == TNL_HOP_ASKED;
		assert_true(m.seq == TNL_HOP_ASKED || m.seq == 0);
	}
	return asking;
}

/* What stands before the next hop is asked only by ends that have both agreed to it, and only once they have. */
static void acks_ask_where_both_ends_agreed(void **state)
{
	static const struct {
		bool client, agent, own;
	} cases[] = {{true, true, true}, {true, false, true}, {false, true, true}, {true, true, false}};
	(void)state;
	for (size_t i = 0; i < TNL_COUNT(cases); i++) {
		struct pair p;
		struct tnl_session_config cc = client(), ac = agent();
		cc.link_queue = cases[i].client;
		ac.link_queue = cases[i].agent;
		cc.offer_capabilities = cases[i].own; /* else as a stock client */
		pair_init(&p, &cc, &ac);
		p.a.echo = true;
		pair_up(&p);
		p.now += 100 * MS; /* a stock client holds its first data back */
		rec_fill(pair_open(&p), 300000, 7);
		pair_run(&p);
		struct end *ends[2] = {&p.c, &p.a};
		for (int k = 0; k < 2; k++) {
			int acks, asking = asking_acks(ends[k], &acks);
			assert_true(acks > 2);
			if (cases[i].client && cases[i].agent && cases[i].own)
				assert_in_range(asking, 1, acks - 1); /* the handshake's do not */
			else
				assert_int_equal(asking, 0);
		}
		pair_fini(&p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(stock_agent_loses_its_link),
	    cmocka_unit_test(only_what_was_on_the_old_link_is_in_doubt),
	    cmocka_unit_test(keepalive_without_frames),
	    cmocka_unit_test(stock_agent_of_a_single_stream_loses_its_link),
	    cmocka_unit_test(own_agent_loses_its_link),
	    cmocka_unit_test(keepalive),
	    cmocka_unit_test(digest_between_own_ends),
	    cmocka_unit_test(resume),
	    cmocka_unit_test(encrypted_port),
	    cmocka_unit_test(tampered_payload),
	    cmocka_unit_test(session_end),
	    cmocka_unit_test(callbacks_may_free_and_abort),
	    cmocka_unit_test(bad_messages_are_dropped),
	    cmocka_unit_test(odd_payloads),
	    cmocka_unit_test(counters_have_names),
	    cmocka_unit_test(modes_have_names),
	    cmocka_unit_test(acks_ask_where_both_ends_agreed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
