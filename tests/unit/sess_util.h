/* Two sessions joined in memory, under a virtual clock, for tests. */
#ifndef SESS_UTIL_H
#define SESS_UTIL_H
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "lib/alloc.h"
#include "lib/num.h"
#include "lib/buf.h"
#include "lib/session.h"

#define MS UINT64_C(1000000)
#define SEC UINT64_C(1000000000)

struct rec { /* one stream as its user sees it */
	struct tnl_stream *st;
	uint32_t id;
	struct tnl_buf in, out;
	size_t take; /* what on_data takes at most, in one call */
	bool eof, half, reset, shut_after;
	uint32_t reason, last_ptype;
};

struct end {
	struct tnl_session *s;
	struct rec rec[64];
	int nrec;
	bool accept; /* agent: connect at once */
	bool echo;   /* agent: send back what comes */
	size_t default_take;
	int ready, closed, err, exit_code;
	char text[256];
	uint32_t flag;
	unsigned cols, rows;
	enum tnl_session_mode mode;
	uint64_t *now;
	bool no_kms_answer;
	int kms_calls, events_after_close;
	char kms_challenge[64];
	struct tnl_buf tap; /* every message that was sent, with its length in front */
};

struct pair {
	struct end c, a;
	uint64_t now;
	bool up;
	uint64_t step;
};

static const uint8_t pair_key[64] = "0123456789abcdef0123456789abcdefFEDCBA9876543210FEDCBA987654321";

static inline void end_event(struct end *e)
{
	if (e->closed)
		e->events_after_close++;
}
static inline void u_ready(void *ctx, const struct tnl_session_info *i)
{
	struct end *e = ctx;
	end_event(e);
	e->ready++;
	e->mode = i->mode;
}
static inline struct rec *end_rec(struct end *e, struct tnl_stream *st)
{
	assert_true(e->nrec < 64);
	struct rec *r = &e->rec[e->nrec++];
	memset(r, 0, sizeof(*r));
	r->st = st;
	r->take = e->default_take;
	tnl_buf_init(&r->in, 64u << 20);
	tnl_buf_init(&r->out, 64u << 20);
	return r;
}
static inline void u_open(void *ctx, struct tnl_stream *st)
{
	struct end *e = ctx;
	end_event(e);
	struct rec *r = end_rec(e, st);
	tnl_stream_set_user(st, r);
	r->id = tnl_stream_id(st);
	if (e->accept)
		tnl_stream_connected(st, *e->now);
}
static inline size_t u_data(void *ctx, struct tnl_stream *st, uint32_t ptype, const uint8_t *p, size_t n)
{
	struct end *e = ctx;
	struct rec *r = tnl_stream_user(st);
	end_event(e);
	assert_non_null(r);
	size_t took = TNL_MIN(n, r->take);
	tnl_buf_put(&r->in, p, took);
	if (e->echo)
		tnl_buf_put(&r->out, p, took);
	r->last_ptype = ptype;
	return took;
}
static inline void u_eof(void *ctx, struct tnl_stream *st, bool half)
{
	struct rec *r = tnl_stream_user(st);
	end_event(ctx);
	if (!r)
		return;
	assert_false(r->eof);
	r->eof = true;
	r->half = half;
}
static inline void u_reset(void *ctx, struct tnl_stream *st, uint32_t reason)
{
	struct rec *r = tnl_stream_user(st);
	end_event(ctx);
	if (!r)
		return;
	assert_false(r->reset);
	r->reset = true;
	r->reason = reason;
}
static inline void u_size(void *ctx, unsigned c, unsigned w)
{
	struct end *e = ctx;
	e->cols = c;
	e->rows = w;
}
static inline void u_exit(void *ctx, int code)
{
	struct end *e = ctx;
	e->exit_code = code;
}
static inline void u_flag(void *ctx, uint32_t f)
{
	struct end *e = ctx;
	e->flag = f;
}
static inline void u_kms(void *ctx, const struct tnl_kms_request *k)
{
	struct end *e = ctx;
	e->kms_calls++;
	snprintf(e->kms_challenge, sizeof(e->kms_challenge), "%s", k->challenge ? k->challenge : "");
	if (e->no_kms_answer)
		return;
	if (k->generate) {
		tnl_session_kms_result(e->s, 0, pair_key, 64, (const uint8_t *)"sealed-key", 10, NULL, *e->now);
	} else {
		assert_int_equal(k->ciphertext_len, 10);
		assert_memory_equal(k->ciphertext, "sealed-key", 10);
		tnl_session_kms_result(e->s, 0, pair_key, 64, NULL, 0, NULL, *e->now);
	}
}
static inline void u_closed(void *ctx, int err, const char *text)
{
	struct end *e = ctx;
	end_event(e);
	assert_int_equal(e->closed, 0);
	e->closed++;
	e->err = err;
	snprintf(e->text, sizeof(e->text), "%s", text);
}
static inline uint64_t u_wall(void *ctx)
{
	struct end *e = ctx;
	return 1764000000000u + *e->now / 1000000;
}

static const struct tnl_session_cb end_cb = {
    .on_ready = u_ready,
    .on_open = u_open,
    .on_data = u_data,
    .on_eof = u_eof,
    .on_reset = u_reset,
    .on_size = u_size,
    .on_exit_code = u_exit,
    .on_flag = u_flag,
    .on_kms = u_kms,
    .on_closed = u_closed,
};

static inline struct tnl_session_config pair_config(bool agent)
{
	struct tnl_session_config c = {
	    .agent = agent,
	    .session_id = "s-1",
	    .memory_max = 4u << 20,
	    .stream_window = 1u << 20,
	    .max_payload = 32768,
	    .half_close_timeout_ns = 600 * SEC,
	    .fin_quiet_ns = 2 * SEC,
	    .offer_capabilities = true,
	    .session_type = "Port",
	    .properties_json = "{\"portNumber\":\"22\",\"type\":\"LocalPortForwarding\"}",
	    .wall_ms = u_wall,
	    .cb = &end_cb,
	};
	return c;
}

static inline void pair_init(struct pair *p, struct tnl_session_config *cc, struct tnl_session_config *ac)
{
	memset(p, 0, sizeof(*p));
	p->now = 1000 * SEC;
	p->step = 20000;
	struct end *ends[2] = {&p->c, &p->a};
	struct tnl_session_config *cfg[2] = {cc, ac};
	for (int i = 0; i < 2; i++) {
		ends[i]->now = &p->now;
		ends[i]->accept = true;
		ends[i]->default_take = SIZE_MAX;
		ends[i]->exit_code = -1;
		tnl_buf_init(&ends[i]->tap, 256u << 20);
		cfg[i]->ctx = ends[i];
		ends[i]->s = tnl_session_new(cfg[i], p->now);
		assert_non_null(ends[i]->s);
	}
}

static inline void pair_fini(struct pair *p)
{
	struct end *ends[2] = {&p->c, &p->a};
	for (int i = 0; i < 2; i++) {
		assert_int_equal(ends[i]->events_after_close, 0);
		tnl_session_free(ends[i]->s);
		for (int k = 0; k < ends[i]->nrec; k++) {
			tnl_buf_fini(&ends[i]->rec[k].in);
			tnl_buf_fini(&ends[i]->rec[k].out);
		}
		tnl_buf_fini(&ends[i]->tap);
	}
}

/* Local data into the session as far as it goes; what readers were given room for out of it. */
static inline void end_pump(struct end *e)
{
	struct tnl_stream *st;
	for (int i = 0; i < e->nrec; i++) {
		struct rec *r = &e->rec[i];
		if (!r->st || r->reset)
			continue;
		const uint8_t *p;
		size_t n;
		while (r->take && (n = tnl_stream_peek(r->st, &p)) > 0) {
			n = TNL_MIN(n, r->take);
			tnl_buf_put(&r->in, p, n);
			if (e->echo)
				tnl_buf_put(&r->out, p, n);
			tnl_stream_consume(r->st, n, *e->now);
		}
		if (tnl_buf_len(&r->out))
			tnl_stream_want_send(r->st, true);
	}
	while ((st = tnl_session_next(e->s, *e->now))) {
		struct rec *r = tnl_stream_user(st);
		size_t cap, n = tnl_buf_len(&r->out);
		if (n == 0) {
			tnl_stream_want_send(st, false);
			continue;
		}
		uint8_t *p = tnl_stream_reserve(st, &cap, *e->now);
		if (!p)
			break;
		n = TNL_MIN(n, cap);
		memcpy(p, tnl_buf_data(&r->out), n);
		tnl_buf_consume(&r->out, n);
		assert_int_equal(tnl_stream_commit(st, n, TNL_PT_OUTPUT, *e->now), 0);
	}
	for (int i = 0; i < e->nrec; i++) {
		struct rec *r = &e->rec[i];
		if (r->st && r->shut_after && tnl_buf_len(&r->out) == 0) {
			r->shut_after = false;
			tnl_stream_shutdown(r->st, *e->now);
		}
	}
}

static inline int pair_move(struct pair *p, struct end *from, struct end *to)
{
	const uint8_t *m;
	size_t n;
	int moved = 0;
	end_pump(from);
	if (!p->up)
		return 0;
	while (tnl_session_pull(from->s, p->now, &m, &n) == 1) {
		uint8_t len[4] = {(uint8_t)(n >> 24), (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n};
		tnl_buf_put(&from->tap, len, 4);
		tnl_buf_put(&from->tap, m, n);
		(void)!tnl_session_feed(to->s, m, n, p->now);
		moved++;
		end_pump(from);
	}
	return moved;
}

static inline void pair_run(struct pair *p)
{
	do
		p->now += p->step;
	while (pair_move(p, &p->c, &p->a) + pair_move(p, &p->a, &p->c));
}

static inline void pair_up(struct pair *p)
{
	p->up = true;
	tnl_session_link_up(p->c.s, p->now);
	tnl_session_link_up(p->a.s, p->now);
	pair_run(p);
}

static inline void pair_down(struct pair *p)
{
	p->up = false;
	tnl_session_link_down(p->c.s, p->now);
	tnl_session_link_down(p->a.s, p->now);
}

/* Lets virtual time pass, timers included. */
static inline void pair_advance(struct pair *p, uint64_t ns)
{
	uint64_t until = p->now + ns;
	for (;;) {
		pair_run(p);
		uint64_t a = tnl_session_deadline(p->c.s), b = tnl_session_deadline(p->a.s), t = TNL_MIN(a, b);
		if (p->now >= until)
			break;
		if (t > until) {
			p->now = until;
			pair_run(p);
			break;
		}
		p->now = TNL_MAX(p->now, t);
		tnl_session_expire(p->c.s, p->now);
		tnl_session_expire(p->a.s, p->now);
	}
}

static inline struct rec *pair_open(struct pair *p)
{
	int err = -1;
	struct rec *r = end_rec(&p->c, NULL);
	r->st = tnl_stream_open(p->c.s, r, p->now, &err);
	assert_int_equal(err, 0);
	assert_non_null(r->st);
	return r;
}

static inline void rec_put(struct rec *r, const void *p, size_t n)
{
	assert_int_equal(tnl_buf_put(&r->out, p, n), 0);
}
static inline void rec_puts(struct rec *r, const char *s)
{
	rec_put(r, s, strlen(s));
}
static inline void rec_fill(struct rec *r, size_t n, uint32_t seed)
{
	for (size_t i = 0; i < n; i++) {
		seed = seed * 1664525 + 1013904223;
		uint8_t b = (uint8_t)(seed >> 24);
		rec_put(r, &b, 1);
	}
}
static inline void rec_expect_fill(struct rec *r, size_t n, uint32_t seed)
{
	assert_int_equal(tnl_buf_len(&r->in), n);
	for (size_t i = 0; i < n; i++) {
		seed = seed * 1664525 + 1013904223;
		assert_int_equal(tnl_buf_data(&r->in)[i], (uint8_t)(seed >> 24));
	}
}
static inline void rec_expect(struct rec *r, const char *s)
{
	assert_int_equal(tnl_buf_len(&r->in), strlen(s));
	assert_memory_equal(tnl_buf_data(&r->in), s, strlen(s));
}

static inline struct tnl_session_config agent(void)
{
	return pair_config(true);
}

static inline struct tnl_session_config client(void)
{
	return pair_config(false);
}

static inline void ready_pair(struct pair *p, struct tnl_session_config *cc, struct tnl_session_config *ac)
{
	pair_init(p, cc, ac);
	pair_up(p);
	assert_int_equal(p->c.ready, 1);
	assert_int_equal(p->a.ready, 1);
	pair_advance(p, 60 * MS); /* holds towards stock ends are over */
}

#endif
