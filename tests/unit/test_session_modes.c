/* Sessions that are not multiplexed: basic, single, shell, command; and how each comes to its end. */
#include "tests/unit/raw_util.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(basic),
	    cmocka_unit_test(single_own),
	    cmocka_unit_test(single_stock),
	    cmocka_unit_test(shell),
	    cmocka_unit_test(command),
	    cmocka_unit_test(closed_after_owed_data),
	    cmocka_unit_test(closed_after_dropped_data),
	    cmocka_unit_test(size_waits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
