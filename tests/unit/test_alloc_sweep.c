/* Every allocation of a short exchange between two sessions fails once: nothing crashes or leaks, and the
 * sessions either get through or are closed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "lib/alloc.h"
#include "lib/num.h"
#include "lib/session.h"

#define SEC UINT64_C(1000000000)
#define BYTES 60000u
#define MAX_ST 4

struct xs { /* a stream at one end */
	struct tnl_stream *st;
	size_t sent, got;
	bool stall;
};

struct xe {
	struct tnl_session *s;
	struct xs x[MAX_ST];
	int n, ready, closed, resets, eofs;
	uint64_t *now;
};

struct variant {
	const char *name, *type, *props;
	bool own, kms, agent_first;
};

static const uint8_t sweep_key[64] = "allocation sweep";

static void on_ready(void *ctx, const struct tnl_session_info *i)
{
	struct xe *e = ctx;
	(void)i;
	e->ready++;
}

static void on_open(void *ctx, struct tnl_stream *st)
{
	struct xe *e = ctx;
	if (e->n == MAX_ST)
		return;
	struct xs *x = &e->x[e->n++];
	x->st = st;
	x->stall = e->n == 1;
	tnl_stream_set_user(st, x);
	tnl_stream_connected(st, *e->now);
}

static size_t on_data(void *ctx, struct tnl_stream *st, uint32_t ptype, const uint8_t *p, size_t n)
{
	struct xs *x = tnl_stream_user(st);
	(void)ctx;
	(void)ptype;
	if (!x || x->stall)
		return 0;
	for (size_t i = 0; i < n; i++)
		assert_int_equal(p[i], (uint8_t)((x->got + i) * 7));
	x->got += n;
	return n;
}

static void on_eof(void *ctx, struct tnl_stream *st, bool half)
{
	struct xe *e = ctx;
	(void)st;
	(void)half;
	e->eofs++;
}

static void on_reset(void *ctx, struct tnl_stream *st, uint32_t reason)
{
	struct xe *e = ctx;
	struct xs *x = tnl_stream_user(st);
	(void)reason;
	e->resets++;
	tnl_stream_free(st);
	if (x)
		x->st = NULL;
}

static void on_kms(void *ctx, const struct tnl_kms_request *k)
{
	struct xe *e = ctx;
	tnl_session_kms_result(e->s, 0, sweep_key, 64, (const uint8_t *)"c", k->generate ? 1 : 0, NULL, *e->now);
}

static void on_closed(void *ctx, int err, const char *text)
{
	struct xe *e = ctx;
	(void)err;
	(void)text;
	assert_int_equal(e->closed++, 0);
}

static const struct tnl_session_cb sweep_cb = {.on_ready = on_ready,
					       .on_open = on_open,
					       .on_data = on_data,
					       .on_eof = on_eof,
					       .on_reset = on_reset,
					       .on_kms = on_kms,
					       .on_closed = on_closed};

static void work(struct xe *e)
{
	for (int i = 0; i < e->n; i++) {
		struct xs *x = &e->x[i];
		const uint8_t *p;
		size_t n;
		if (!x->st)
			continue;
		while (!x->stall && (n = tnl_stream_peek(x->st, &p)) > 0) {
			for (size_t k = 0; k < n; k++)
				assert_int_equal(p[k], (uint8_t)((x->got + k) * 7));
			x->got += n;
			tnl_stream_consume(x->st, n, *e->now);
		}
		tnl_stream_want_send(x->st, x->sent < BYTES);
		if (x->sent == BYTES)
			tnl_stream_shutdown(x->st, *e->now);
		if (tnl_stream_done(x->st)) {
			tnl_stream_free(x->st);
			x->st = NULL;
		}
	}
}

static int move(struct xe *from, struct xe *to)
{
	const uint8_t *m;
	size_t n, cap;
	struct tnl_stream *st;
	int moved = 0;
	work(from);
	while (!from->closed && (st = tnl_session_next(from->s, *from->now))) {
		struct xs *x = tnl_stream_user(st);
		uint8_t *p = tnl_stream_reserve(st, &cap, *from->now);
		if (!p)
			break;
		cap = TNL_MIN(cap, BYTES - x->sent);
		for (size_t i = 0; i < cap; i++)
			p[i] = (uint8_t)((x->sent + i) * 7);
		if (tnl_stream_commit(st, cap, TNL_PT_OUTPUT, *from->now))
			break;
		x->sent += cap;
		if (cap == 0 || x->sent == BYTES)
			tnl_stream_want_send(st, false);
	}
	while (tnl_session_pull(from->s, *from->now, &m, &n) == 1) {
		if (!to->closed)
			(void)!tnl_session_feed(to->s, m, n, *from->now);
		moved++;
	}
	return moved;
}

static bool all_through(const struct xe *c, const struct xe *a, int n)
{
	for (int i = 0; i < n; i++)
		if (c->x[i].got != BYTES || a->x[i].got != BYTES)
			return false;
	return true;
}

static void exchange(struct xe *c, struct xe *a, uint64_t *now, const struct variant *v)
{
	int streams = strcmp(v->props, "{}") == 0 ? 1 : 3, err;
	for (int i = 0; i < streams; i++) {
		struct xs *x = &c->x[c->n];
		x->st = tnl_stream_open(c->s, x, *now, &err);
		if (!x->st) {
			assert_true(err == TNL_ENOMEM || err == TNL_ECLOSED);
			streams--;
			i--;
			continue;
		}
		c->n++;
	}
	tnl_session_link_up(c->s, *now);
	tnl_session_link_up(a->s, *now);
	for (int round = 0; round < 3000 && !c->closed && !a->closed; round++) {
		*now += 1000;
		if (round == 20) { /* a resume in the middle, and the stalled reader wakes */
			tnl_session_link_down(c->s, *now);
			tnl_session_link_up(c->s, *now);
			a->x[0].stall = false;
		}
		if (move(c, a) + move(a, c))
			continue;
		if (all_through(c, a, streams) && round > 20)
			return;
		uint64_t d = tnl_session_deadline(c->s), e = tnl_session_deadline(a->s);
		d = TNL_MIN(d, e);
		if (d == UINT64_MAX && round > 20)
			break;
		if (d > *now && d != UINT64_MAX)
			*now = d;
		tnl_session_expire(c->s, *now);
		tnl_session_expire(a->s, *now);
	}
	assert_true(c->closed || a->closed || c->resets || a->resets);
}

/* Returns the number of allocations made. */
static long run(const struct variant *v, long fail_at, int sticky)
{
	struct xe c = {0}, a = {0};
	uint64_t now = 1000 * SEC;
	struct tnl_session_config cc = {.session_id = "sweep",
					.memory_max = 1u << 20,
					.stream_window = 65536,
					.max_payload = 8192,
					.half_close_timeout_ns = 60 * SEC,
					.fin_quiet_ns = 2 * SEC,
					.keepalive_ns = 5 * SEC,
					.offer_capabilities = v->own,
					.expected_type = v->type,
					.cb = &sweep_cb,
					.ctx = &c};
	struct tnl_session_config ac = cc;
	ac.agent = true;
	ac.session_type = v->type;
	ac.properties_json = v->props;
	ac.kms_key_id = v->kms ? "key" : NULL;
	ac.ctx = &a;
	c.now = a.now = &now;
	long before = tnl_alloc_count();
	tnl_alloc_fail_after(fail_at, sticky);
	c.s = tnl_session_new(&cc, now);
	a.s = tnl_session_new(&ac, now);
	if (c.s && a.s && (fail_at < 0 || !sticky))
		exchange(&c, &a, &now, v);
	else if (c.s && a.s) {
		tnl_session_link_up(c.s, now);
		tnl_session_link_up(a.s, now);
		for (int i = 0; i < 50 && !c.closed && !a.closed; i++) {
			now += 10000000;
			(void)move(&c, &a);
			(void)move(&a, &c);
			tnl_session_expire(c.s, now);
			tnl_session_expire(a.s, now);
		}
	}
	tnl_alloc_fail_after(-1, 0);
	if (fail_at < 0) /* undisturbed, it gets through */
		assert_true(!c.closed && !a.closed && !c.resets && !a.resets && c.eofs == a.eofs && c.eofs > 0);
	long made = tnl_alloc_count() - before;
	tnl_session_free(c.s);
	tnl_session_free(a.s);
	if (tnl_alloc_live() != 0)
		fail_msg("%s: %ld blocks leaked with allocation %ld failing", v->name, tnl_alloc_live(), fail_at);
	return made;
}

static void sweep(const struct variant *v)
{
	long n = run(v, -1, 0), step = 1 + n / 4000;
	assert_true(n > 50);
	for (long i = 0; i < n; i += step)
		(void)run(v, i, 0);
	for (long i = 0; i < n; i += 1 + n / 500)
		(void)run(v, i, 1);
	print_message("%s: %ld allocations\n", v->name, n);
}

static void own_ends(void **state)
{
	static const struct variant v = {"own", "Port", "{\"type\":\"LocalPortForwarding\"}", true, false, false};
	(void)state;
	sweep(&v);
}

static void own_encrypted(void **state)
{
	static const struct variant v = {"encrypted", "Port", "{\"type\":\"LocalPortForwarding\"}", true, true, false};
	(void)state;
	sweep(&v);
}

static void stock_ends(void **state)
{
	static const struct variant v = {"stock", "Port", "{\"type\":\"LocalPortForwarding\"}", false, false, false};
	(void)state;
	sweep(&v);
}

static void single(void **state)
{
	static const struct variant v = {"single", "Port", "{}", true, true, false};
	(void)state;
	sweep(&v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(own_ends),
	    cmocka_unit_test(own_encrypted),
	    cmocka_unit_test(stock_ends),
	    cmocka_unit_test(single),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
