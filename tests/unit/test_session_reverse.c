/* Streams that the agent opens for listeners of the client's, and the words about those. */
#include "tests/unit/raw_util.h"

struct heard {
	struct tnl_reverse last;
	int n;
};
static struct heard heard[2]; /* by client, by agent */

static void client_heard(void *ctx, const struct tnl_reverse *r)
{
	(void)ctx;
	heard[0].last = *r;
	heard[0].n++;
}

/* Answers with the address it was asked for. */
static void agent_heard(void *ctx, const struct tnl_reverse *r)
{
	struct end *e = ctx;
	struct tnl_reverse answer = *r;
	heard[1].last = *r;
	heard[1].n++;
	answer.kind = TNL_REVERSE_LISTENING;
	tnl_session_send_reverse(e->s, &answer, *e->now);
}

static struct tnl_session_cb client_cb, agent_cb;

static void reverse_configs(struct tnl_session_config *cc, struct tnl_session_config *ac)
{
	memset(heard, 0, sizeof(heard));
	client_cb = agent_cb = end_cb;
	client_cb.on_reverse = client_heard;
	agent_cb.on_reverse = agent_heard;
	*cc = client();
	*ac = agent();
	cc->reverse = ac->reverse = true;
	cc->cb = &client_cb;
	ac->cb = &agent_cb;
}

static void reverse_pair(struct pair *p, bool encrypted)
{
	struct tnl_session_config cc, ac;
	reverse_configs(&cc, &ac);
	ac.kms_key_id = encrypted ? "key" : NULL;
	ready_pair(p, &cc, &ac);
	assert_true(tnl_session_info(p->c.s)->reverse && tnl_session_info(p->a.s)->reverse);
}

static struct rec *agent_open(struct pair *p, uint16_t listener, const char *from)
{
	int err = -1;
	struct rec *r = end_rec(&p->a, NULL);
	r->st = tnl_stream_open_reverse(p->a.s, r, listener, from, p->now, &err);
	assert_int_equal(err, 0);
	r->id = tnl_stream_id(r->st);
	return r;
}

static const struct tnl_reverse ask = {.id = 9, .bind = "127.0.0.1:9222", .most = 3, .client = "00ff"};

static void words_go_both_ways(void **state)
{
	(void)state;
	for (int encrypted = 0; encrypted <= 1; encrypted++) {
		struct pair p;
		reverse_pair(&p, encrypted);
		tnl_session_send_reverse(p.c.s, &ask, p.now);
		pair_run(&p);
		assert_int_equal(heard[1].n, 1);
		assert_string_equal(heard[1].last.bind, ask.bind);
		assert_string_equal(heard[1].last.client, ask.client);
		assert_int_equal(heard[0].n, 1);
		assert_int_equal(heard[0].last.kind, TNL_REVERSE_LISTENING);
		const char *tap = (const char *)tnl_buf_data(&p.c.tap);
		bool clear = memmem(tap, tnl_buf_len(&p.c.tap), ask.bind, strlen(ask.bind)) != NULL;
		assert_int_equal(clear, !encrypted);
		pair_fini(&p);
	}
}

/* Each end hears only what the other one may say. */
static void only_the_right_words(void **state)
{
	struct pair p;
	struct tnl_reverse odd = {.kind = TNL_REVERSE_REFUSED, .id = 1};
	(void)state;
	reverse_pair(&p, false);
	tnl_session_send_reverse(p.c.s, &odd, p.now);
	tnl_session_send_reverse(p.a.s, &ask, p.now);
	pair_run(&p);
	assert_int_equal(heard[0].n + heard[1].n, 0);
	pair_fini(&p);
}

static void bytes_both_ways(void **state)
{
	(void)state;
	for (int encrypted = 0; encrypted <= 1; encrypted++) {
		struct pair p;
		reverse_pair(&p, encrypted);
		struct rec *own = pair_open(&p), *a = agent_open(&p, 7, "192.0.2.7:50000"), *b = agent_open(&p, 8, "");
		assert_int_equal(a->id, 2);
		assert_int_equal(b->id, 4);
		rec_fill(a, 700000, 5);
		rec_puts(b, "second");
		rec_puts(own, "from the client");
		pair_advance(&p, SEC);
		assert_int_equal(p.c.nrec, 3);
		struct rec *ca = &p.c.rec[1], *cb = &p.c.rec[2];
		assert_int_equal(ca->id, 2);
		assert_int_equal(tnl_stream_listener(ca->st), 7);
		assert_string_equal(tnl_stream_from(ca->st), "192.0.2.7:50000");
		assert_int_equal(tnl_stream_listener(cb->st), 8);
		assert_string_equal(tnl_stream_from(cb->st), "");
		assert_int_equal(tnl_stream_listener(own->st), 0);
		rec_expect_fill(ca, 700000, 5);
		rec_expect(cb, "second");
		rec_expect(&p.a.rec[2], "from the client");
		rec_fill(ca, 300000, 6);
		a->shut_after = true;
		pair_advance(&p, SEC);
		rec_expect_fill(a, 300000, 6);
		assert_true(ca->eof && ca->half && !a->eof);
		rec_puts(ca, "more"); /* one direction is over, the other goes on */
		ca->shut_after = true;
		pair_advance(&p, SEC);
		assert_true(a->eof && tnl_stream_done(a->st) && tnl_stream_done(ca->st));
		pair_fini(&p);
	}
}

/* What comes before the dial at the client is done waits; a dial that fails says why. */
static void the_client_dials(void **state)
{
	struct pair p;
	(void)state;
	reverse_pair(&p, false);
	p.c.accept = false;
	p.c.default_take = 0;
	struct rec *a = agent_open(&p, 1, "x:1"), *b = agent_open(&p, 1, "x:2");
	rec_puts(a, "early");
	pair_run(&p);
	assert_int_equal(tnl_buf_len(&p.c.rec[0].in), 0);
	p.c.rec[0].take = SIZE_MAX;
	tnl_stream_connected(p.c.rec[0].st, p.now);
	tnl_stream_reset_because(p.c.rec[1].st, TNL_RESET_CONNECT, "127.0.0.1:1: refused", p.now);
	tnl_stream_free(p.c.rec[1].st);
	p.c.rec[1].st = NULL;
	pair_advance(&p, 100 * MS);
	rec_expect(&p.c.rec[0], "early");
	assert_true(b->reset && !a->reset);
	assert_int_equal(b->reason, TNL_RESET_CONNECT);
	assert_string_equal(tnl_stream_reset_words(b->st), "127.0.0.1:1: refused");
	pair_fini(&p);
}

static void a_cut_loses_nothing(void **state)
{
	struct pair p;
	(void)state;
	reverse_pair(&p, false);
	struct rec *a = agent_open(&p, 1, "x:1");
	rec_fill(a, 400000, 9);
	pair_down(&p);
	struct rec *b = agent_open(&p, 1, "x:2"); /* while nobody is there */
	rec_puts(b, "waited");
	pair_advance(&p, SEC);
	pair_up(&p);
	pair_advance(&p, 5 * SEC);
	assert_int_equal(p.c.nrec, 2);
	rec_expect_fill(&p.c.rec[0], 400000, 9);
	rec_expect(&p.c.rec[1], "waited");
	assert_string_equal(tnl_stream_from(p.c.rec[1].st), "x:2");
	pair_fini(&p);
}

/* One end alone, or a stock one: nobody opens, and words go nowhere. */
static void not_agreed(void **state)
{
	(void)state;
	for (int which = 0; which < 4; which++) {
		struct pair p;
		struct tnl_session_config cc, ac;
		int err = 0;
		reverse_configs(&cc, &ac);
		cc.reverse = which != 0;
		ac.reverse = which != 1;
		cc.offer_capabilities = which != 2;
		ac.offer_capabilities = which != 3;
		ready_pair(&p, &cc, &ac);
		assert_false(tnl_session_info(p.c.s)->reverse || tnl_session_info(p.a.s)->reverse);
		assert_null(tnl_stream_open_reverse(p.a.s, NULL, 1, "x:1", p.now, &err));
		assert_int_equal(err, TNL_EINVAL);
		tnl_session_send_reverse(p.c.s, &ask, p.now);
		pair_run(&p);
		assert_int_equal(heard[1].n, 0);
		pair_fini(&p);
	}
}

static void the_client_cannot(void **state)
{
	struct pair p;
	int err = 0;
	(void)state;
	reverse_pair(&p, false);
	assert_null(tnl_stream_open_reverse(p.c.s, NULL, 1, "x:1", p.now, &err));
	assert_int_equal(err, TNL_EINVAL);
	assert_null(tnl_stream_open_reverse(p.a.s, NULL, 0, "x:1", p.now, &err));
	assert_int_equal(err, TNL_EINVAL);
	pair_fini(&p);
}

static void as_many_as_allowed(void **state)
{
	struct pair p;
	int err = 0;
	(void)state;
	reverse_pair(&p, false);
	tnl_session_limit_streams(p.c.s, 1);
	struct rec *a = agent_open(&p, 1, "x:1"), *b = agent_open(&p, 1, "x:2");
	pair_run(&p);
	assert_true(!a->reset && b->reset);
	assert_int_equal(b->reason, TNL_RESET_LIMIT);
	tnl_session_limit_streams(p.a.s, 2);
	assert_null(tnl_stream_open_reverse(p.a.s, NULL, 1, "x:3", p.now, &err));
	assert_int_equal(err, TNL_ELIMIT);
	pair_fini(&p);
}

#define REVERSE_REQUEST                                                                                                \
	"{\"AgentVersion\":\"3.3.987.0\",\"RequestedClientActions\":[{\"ActionType\":\"SessionType\","                 \
	"\"ActionParameters\":{\"SessionType\":\"Port\",\"Properties\":{\"type\":\"LocalPortForwarding\"}}},"          \
	"{\"ActionType\":\"TunneldCapabilities\",\"ActionParameters\":{\"Version\":1,\"MaxPayload\":32768,\"Smux\":2," \
	"\"HalfClose\":true,\"Digest\":true,\"Encrypt\":true,\"Reverse\":true}}]}"
#define REVERSE_RESPONSE                                                                                                     \
	"{\"ClientVersion\":\"1.2.764.0\",\"ProcessedClientActions\":[{\"ActionType\":\"SessionType\",\"ActionStatus\":1,"   \
	"\"ActionResult\":null,\"Error\":\"\"},{\"ActionType\":\"TunneldCapabilities\",\"ActionStatus\":1,\"ActionResult\":" \
	"{\"Version\":1,\"MaxPayload\":32768,\"Smux\":2,\"HalfClose\":true,\"Digest\":true,\"Encrypt\":true,"                \
	"\"Reverse\":true},\"Error\":\"\"}],\"Errors\":null}"

/* An id says who opened: those of the other end, and 0, are ignored; a SYN without a head ends the session. */
static void a_hostile_agent(void **state)
{
	struct tnl_session_config cc, ac;
	struct raw r;
	(void)state;
	reverse_configs(&cc, &ac);
	raw_client(&r, &cc, REVERSE_REQUEST);
	raw_smux(&r, 2, TNL_SMUX_SYN, 3, "\1\0x:1", 5);
	raw_smux(&r, 2, TNL_SMUX_SYN, 0, "\1\0x:1", 5);
	assert_int_equal(r.e.nrec, 0);
	raw_smux(&r, 2, TNL_SMUX_SYN, 2, "\1\0x:1", 5);
	raw_smux(&r, 2, TNL_SMUX_SYN, 2, "\1\0x:2", 5);
	assert_int_equal(r.e.nrec, 1);
	assert_string_equal(tnl_stream_from(r.e.rec[0].st), "x:1");
	assert_int_equal(r.e.closed, 0);
	raw_smux(&r, 2, TNL_SMUX_SYN, 4, "", 0);
	assert_int_equal(r.e.closed, 1);
	assert_int_equal(r.e.err, TNL_EPROTO);
	raw_fini(&r);
}

/* Not agreed on: nobody opens streams towards a client. */
static void an_agent_that_opens_all_the_same(void **state)
{
	struct tnl_session_config cc, ac;
	struct raw r;
	(void)state;
	reverse_configs(&cc, &ac);
	raw_client(&r, &cc, OWN_REQUEST);
	raw_smux(&r, 2, TNL_SMUX_SYN, 2, NULL, 0);
	raw_smux(&r, 2, TNL_SMUX_SYN, 3, NULL, 0);
	raw_send(&r, TNL_PT_REVERSE, "{}", 2);
	assert_int_equal(r.e.nrec, 0);
	assert_int_equal(r.e.closed, 0);
	assert_int_equal(tnl_session_stats(r.e.s)->unknown_frames, 2);
	assert_int_equal(tnl_session_stats(r.e.s)->unknown_payloads, 1);
	raw_fini(&r);
}

static void ask_unread(struct raw *r, struct tnl_buf *word)
{
	const uint8_t *p;
	size_t n;
	uint8_t *out = tnl_channel_reserve(r->ch, tnl_buf_len(word));
	assert_non_null(out);
	memcpy(out, tnl_buf_data(word), tnl_buf_len(word));
	assert_int_equal(tnl_channel_commit(r->ch, TNL_PT_REVERSE, tnl_buf_len(word), 0, r->now), 0);
	while (tnl_channel_pull(r->ch, r->now, &p, &n) == 1)
		(void)!tnl_session_feed(r->e.s, p, n, r->now);
}

static void a_hostile_client(void **state)
{
	struct tnl_session_config cc, ac;
	struct raw r;
	char text[TNL_REVERSE_JSON];
	struct tnl_buf b;
	(void)state;
	reverse_configs(&cc, &ac);
	raw_agent(&r, &ac, REVERSE_RESPONSE);
	raw_smux(&r, 2, TNL_SMUX_SYN, 2, NULL, 0); /* the agent's half of the ids */
	assert_int_equal(r.e.nrec, 0);
	raw_smux(&r, 2, TNL_SMUX_SYN, 3, NULL, 0);
	assert_int_equal(r.e.nrec, 1);
	raw_send(&r, TNL_PT_REVERSE, "{}", 2);
	assert_int_equal(tnl_session_stats(r.e.s)->bad_payloads, 1);
	/* Asks and asks, and takes no answer. */
	tnl_buf_init(&b, sizeof(text));
	assert_int_equal(tnl_reverse_write(&b, &ask), 0);
	for (int i = 0; i < 1000 && !r.e.closed; i++)
		ask_unread(&r, &b);
	assert_int_equal(r.e.closed, 1);
	assert_int_equal(r.e.err, TNL_EPROTO);
	assert_true(tnl_session_memory(r.e.s) <= ac.memory_max);
	tnl_buf_fini(&b);
	raw_fini(&r);
}

/* A listener without connections does not let the session idle away. */
static void keepalives_without_streams(void **state)
{
	struct pair p;
	struct tnl_session_config cc, ac;
	(void)state;
	reverse_configs(&cc, &ac);
	cc.keepalive_ns = 10 * SEC;
	ready_pair(&p, &cc, &ac);
	struct tnl_channel_stats before, after;
	tnl_channel_stats(tnl_session_channel(p.a.s), &before);
	pair_advance(&p, 60 * SEC);
	tnl_channel_stats(tnl_session_channel(p.a.s), &after);
	assert_int_equal(after.received, before.received);
	tnl_session_keep(p.c.s, true);
	pair_advance(&p, 60 * SEC);
	tnl_channel_stats(tnl_session_channel(p.a.s), &after);
	assert_in_range(after.received - before.received, 5, 7);
	tnl_session_keep(p.c.s, false);
	before = after;
	pair_advance(&p, 60 * SEC);
	tnl_channel_stats(tnl_session_channel(p.a.s), &after);
	assert_int_equal(after.received, before.received);
	pair_fini(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(words_go_both_ways),
	    cmocka_unit_test(only_the_right_words),
	    cmocka_unit_test(bytes_both_ways),
	    cmocka_unit_test(the_client_dials),
	    cmocka_unit_test(a_cut_loses_nothing),
	    cmocka_unit_test(not_agreed),
	    cmocka_unit_test(the_client_cannot),
	    cmocka_unit_test(as_many_as_allowed),
	    cmocka_unit_test(a_hostile_agent),
	    cmocka_unit_test(a_hostile_client),
	    cmocka_unit_test(keepalives_without_streams),
	    cmocka_unit_test(an_agent_that_opens_all_the_same),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
