/* Days of virtual time: a link that breaks every hour, pings and now and then a
 * lump of data, connections that come and go. Memory must stay where it was. */
#include "tests/sim/sim.h"
#include "lib/alloc.h"
#include "lib/num.h"
#include "lib/crypto.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOUR (3600 * SEC)
#define DELAY (20 * MS)

struct soak_stream {
	struct tnl_stream *st;
	uint64_t sent, received;
	uint32_t salt;
	bool eof;
};

struct soak_end {
	struct soak *k;
	struct tnl_session *s;
	int which;
	struct soak_stream one[2]; /* [0] stays for the whole time, [1] comes and goes */
	bool closed;
};

struct packet {
	uint64_t at;
	size_t n;
	uint8_t *p;
};

struct soak {
	uint64_t now, hours, streams, bytes;
	struct soak_end end[2];
	struct packet *q[2]; /* to [i], in order */
	size_t head[2], tail[2], cap[2];
	struct rng rng;
	bool up;
	char fail[160];
	size_t most;
};

static uint8_t soak_byte(const struct soak_stream *x, int dir, uint64_t off)
{
	return (uint8_t)((off * 2654435761u) >> 7 ^ x->salt ^ (uint32_t)dir * 97);
}

static size_t on_data(void *ctx, struct tnl_stream *st, uint32_t ptype, const uint8_t *p, size_t n)
{
	struct soak_end *e = ctx;
	struct soak_stream *x = tnl_stream_user(st);
	(void)ptype;
	for (size_t i = 0; i < n; i++)
		if (p[i] != soak_byte(x, !e->which, x->received + i))
			snprintf(e->k->fail, sizeof(e->k->fail), "wrong byte at node %d", e->which);
	x->received += n;
	e->k->bytes += n;
	return n;
}

static void on_open(void *ctx, struct tnl_stream *st)
{
	struct soak_end *e = ctx;
	struct soak_stream *x = &e->one[tnl_stream_id(st) == 3 ? 0 : 1];
	memset(x, 0, sizeof(*x));
	x->st = st;
	x->salt = tnl_stream_id(st);
	tnl_stream_set_user(st, x);
	tnl_stream_connected(st, e->k->now);
}

static void on_eof(void *ctx, struct tnl_stream *st, bool half)
{
	struct soak_stream *x = tnl_stream_user(st);
	(void)ctx;
	(void)half;
	x->eof = true;
}

static void on_reset(void *ctx, struct tnl_stream *st, uint32_t reason)
{
	struct soak_end *e = ctx;
	(void)st;
	snprintf(e->k->fail, sizeof(e->k->fail), "reset at node %d: %s", e->which, tnl_reset_text(reason));
}

static void on_closed(void *ctx, int err, const char *text)
{
	struct soak_end *e = ctx;
	e->closed = true;
	snprintf(e->k->fail, sizeof(e->k->fail), "node %d closed: %s %.80s", e->which, tnl_err_name(err), text);
}

static uint64_t wall(void *ctx)
{
	return UINT64_C(1764000000000) + ((struct soak_end *)ctx)->k->now / MS;
}

static const struct tnl_session_cb soak_cb = {
    .on_open = on_open, .on_data = on_data, .on_eof = on_eof, .on_reset = on_reset, .on_closed = on_closed};

static void make_end(struct soak *k, int which)
{
	struct soak_end *e = &k->end[which];
	struct tnl_session_config c = {.agent = which == 1,
				       .session_id = "soak",
				       .memory_max = 4u << 20,
				       .stream_window = 1u << 20,
				       .max_payload = 32768,
				       .half_close_timeout_ns = 600 * SEC,
				       .fin_quiet_ns = 2 * SEC,
				       .keepalive_ns = 400 * SEC,
				       .offer_capabilities = true,
				       .session_type = "Port",
				       .properties_json = "{\"type\":\"LocalPortForwarding\"}",
				       .wall_ms = wall,
				       .cb = &soak_cb,
				       .ctx = e};
	e->k = k;
	e->which = which;
	e->s = tnl_session_new(&c, k->now);
}

static void carry(struct soak *k, int from)
{
	struct soak_end *e = &k->end[from];
	const uint8_t *p;
	size_t n;
	while (k->up && tnl_session_pull(e->s, k->now, &p, &n) == 1) {
		int to = !from;
		if (k->tail[to] == k->cap[to]) {
			if (k->head[to])
				memmove(k->q[to], k->q[to] + k->head[to], (k->tail[to] - k->head[to]) * sizeof(**k->q));
			k->tail[to] -= k->head[to];
			k->head[to] = 0;
			if (k->tail[to] * 2 >= k->cap[to]) {
				k->cap[to] = k->cap[to] ? 2 * k->cap[to] : 64;
				k->q[to] = realloc(k->q[to], k->cap[to] * sizeof(**k->q));
			}
		}
		uint8_t *copy = malloc(n);
		if (!copy || !k->q[to])
			abort();
		memcpy(copy, p, n);
		k->q[to][k->tail[to]++] = (struct packet){k->now + DELAY, n, copy};
	}
}

static uint64_t next_packet(const struct soak *k)
{
	uint64_t t = NEVER;
	for (int i = 0; i < 2; i++)
		if (k->head[i] < k->tail[i] && k->q[i][k->head[i]].at < t)
			t = k->q[i][k->head[i]].at;
	return t;
}

static void arrive(struct soak *k)
{
	for (int i = 0; i < 2; i++) {
		while (k->head[i] < k->tail[i] && k->q[i][k->head[i]].at <= k->now) {
			struct packet *m = &k->q[i][k->head[i]++];
			if (k->up)
				(void)!tnl_session_feed(k->end[i].s, m->p, m->n, k->now);
			free(m->p);
		}
	}
}

/* Lets time pass until `until`, timers and messages in their order. */
static void pass(struct soak *k, uint64_t until)
{
	while (!k->fail[0]) {
		carry(k, 0);
		carry(k, 1);
		uint64_t t = next_packet(k);
		for (int i = 0; i < 2; i++) {
			uint64_t d = tnl_session_deadline(k->end[i].s);
			t = TNL_MIN(t, d);
		}
		if (t > until)
			break;
		k->now = TNL_MAX(k->now, t);
		arrive(k);
		for (int i = 0; i < 2; i++)
			if (tnl_session_deadline(k->end[i].s) <= k->now)
				tnl_session_expire(k->end[i].s, k->now);
	}
	k->now = TNL_MAX(k->now, until);
	for (int i = 0; i < 2; i++) {
		size_t m = tnl_session_memory(k->end[i].s);
		k->most = TNL_MAX(k->most, m);
	}
}

static void put(struct soak *k, int from, struct soak_stream *x, size_t n)
{
	struct soak_end *e = &k->end[from];
	while (n && !k->fail[0]) {
		size_t cap = 0;
		uint8_t *p = tnl_stream_reserve(x->st, &cap, k->now);
		if (!p) {
			pass(k, k->now + 10 * MS);
			continue;
		}
		cap = TNL_MIN(cap, n);
		for (size_t i = 0; i < cap; i++)
			p[i] = soak_byte(x, from, x->sent + i);
		x->sent += cap;
		n -= cap;
		if (tnl_stream_commit(x->st, cap, TNL_PT_OUTPUT, k->now))
			snprintf(k->fail, sizeof(k->fail), "commit failed at node %d", e->which);
	}
}

static void link_break(struct soak *k)
{
	k->up = false;
	tnl_session_link_down(k->end[0].s, k->now);
	tnl_session_link_down(k->end[1].s, k->now);
	for (int i = 0; i < 2; i++)
		while (k->head[i] < k->tail[i])
			free(k->q[i][k->head[i]++].p);
	pass(k, k->now + rng_log(&k->rng, 100, 5000) * MS);
	k->up = true;
	tnl_session_link_up(k->end[0].s, k->now);
	tnl_session_link_up(k->end[1].s, k->now);
}

static struct soak_stream *opened(struct soak *k, int i)
{
	struct soak_stream *x = &k->end[0].one[i];
	int err = 0;
	memset(x, 0, sizeof(*x));
	x->st = tnl_stream_open(k->end[0].s, x, k->now, &err);
	if (!x->st) {
		snprintf(k->fail, sizeof(k->fail), "open: %s", tnl_err_name(err));
		return x;
	}
	k->streams++;
	pass(k, k->now + SEC);
	x->salt = tnl_stream_id(x->st);
	return x;
}

static void same(struct soak *k, int i)
{
	struct soak_stream *a = &k->end[0].one[i], *b = &k->end[1].one[i];
	if (!k->fail[0] && (a->sent != b->received || b->sent != a->received))
		snprintf(k->fail, sizeof(k->fail), "stream %d: %llu of %llu and %llu of %llu bytes arrived", i,
			 (unsigned long long)b->received, (unsigned long long)a->sent, (unsigned long long)a->received,
			 (unsigned long long)b->sent);
}

/* One hour: some pings, one connection with a lump each way around a broken link. */
static void hour(struct soak *k)
{
	uint64_t end = k->now + HOUR;
	for (int i = 0; i < 10; i++) {
		pass(k, k->now + rng_below(&k->rng, 120) * SEC);
		put(k, 0, &k->end[0].one[0], 64);
		put(k, 1, &k->end[1].one[0], 64);
	}
	struct soak_stream *x = opened(k, 1);
	if (k->fail[0])
		return;
	put(k, 0, x, rng_log(&k->rng, 1, 200000));
	put(k, 1, &k->end[1].one[1], rng_log(&k->rng, 1, 200000));
	link_break(k);
	put(k, 0, x, 1000);
	tnl_stream_shutdown(x->st, k->now);
	tnl_stream_shutdown(k->end[1].one[1].st, k->now);
	pass(k, k->now + 60 * SEC);
	same(k, 0);
	same(k, 1);
	for (int i = 0; i < 2 && !k->fail[0]; i++) {
		if (!tnl_stream_done(k->end[i].one[1].st))
			snprintf(k->fail, sizeof(k->fail), "stream not done at node %d", i);
		tnl_stream_free(k->end[i].one[1].st);
	}
	if (end > k->now)
		pass(k, end);
	k->hours++;
}

static void seeded(void *ctx, uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)rng_next(ctx);
}

bool soak_run(uint64_t seed, uint64_t ns, int verbose)
{
	struct soak *k = calloc(1, sizeof(*k));
	struct rng r = {.x = seed + 99};
	if (!k)
		abort();
	k->rng.x = seed;
	k->now = 1000 * SEC;
	tnl_random_source(seeded, &r);
	make_end(k, 0);
	make_end(k, 1);
	k->up = true;
	tnl_session_link_up(k->end[0].s, k->now);
	tnl_session_link_up(k->end[1].s, k->now);
	uint64_t until = k->now + ns;
	(void)opened(k, 0);
	pass(k, k->now + SEC);
	long after_first = 0;
	while (k->now < until && !k->fail[0]) {
		hour(k);
		if (k->hours == 2)
			after_first = tnl_alloc_live();
		if (k->hours > 2 && tnl_alloc_live() > after_first + 8)
			snprintf(k->fail, sizeof(k->fail), "%ld blocks live after hour %llu, %ld after the second",
				 tnl_alloc_live(), (unsigned long long)k->hours, after_first);
		if (verbose)
			printf("hour %llu: %llu bytes, %ld blocks, memory %zu and %zu\n", (unsigned long long)k->hours,
			       (unsigned long long)k->bytes, tnl_alloc_live(), tnl_session_memory(k->end[0].s),
			       tnl_session_memory(k->end[1].s));
	}
	bool ok = !k->fail[0];
	printf(
	    "soak of %llu virtual hours, seed %llu: %llu streams, %llu bytes, most memory %zu%s%s; %d passed, %d failed\n",
	    (unsigned long long)k->hours, (unsigned long long)seed, (unsigned long long)k->streams,
	    (unsigned long long)k->bytes, k->most, ok ? "" : ": ", k->fail, ok, !ok);
	tnl_session_free(k->end[0].s);
	tnl_session_free(k->end[1].s);
	for (int i = 0; i < 2; i++) {
		while (k->head[i] < k->tail[i])
			free(k->q[i][k->head[i]++].p);
		free(k->q[i]);
	}
	tnl_random_source(NULL, NULL);
	free(k);
	return ok;
}
