/* A ping beside bulk: over a link of 50 ms its round trip stays within a few ms of the idle one, fast link or slow. */
#include "tests/unit/sess_util.h"
#include "lib/num.h"

#define DELAY (25 * MS)
#define RATE 1e7 /* bytes/s, where a test says nothing else */
#define QMAX 8192

struct wire {
	struct {
		uint64_t at;
		size_t n;
		uint8_t *p;
	} q[QMAX];
	unsigned head, tail;
	uint64_t free_at;
};
struct link {
	struct pair p;
	double rate;
	struct wire w[2]; /* to the client, to the agent */
};

static void send_all(struct link *l, struct end *from, struct wire *w)
{
	const uint8_t *m;
	size_t n;
	end_pump(from);
	/* What a socket's buffer takes: 5 ms of the link. */
	while (w->free_at <= l->p.now + 5 * MS && tnl_session_pull(from->s, l->p.now, &m, &n) == 1) {
		if (w->free_at < l->p.now)
			w->free_at = l->p.now;
		w->free_at += (uint64_t)((double)n * 1e9 / l->rate);
		assert_true(w->tail - w->head < QMAX);
		w->q[w->tail % QMAX].at = w->free_at + DELAY;
		w->q[w->tail % QMAX].n = n;
		w->q[w->tail % QMAX].p = malloc(n);
		memcpy(w->q[w->tail++ % QMAX].p, m, n);
		end_pump(from);
	}
}

static void arrive(struct link *l, struct end *to, struct wire *w)
{
	while (w->head < w->tail && w->q[w->head % QMAX].at <= l->p.now) {
		(void)!tnl_session_feed(to->s, w->q[w->head % QMAX].p, w->q[w->head % QMAX].n, l->p.now);
		free(w->q[w->head++ % QMAX].p);
	}
}

static uint64_t next_event(const struct link *l)
{
	uint64_t t = tnl_session_deadline(l->p.c.s), a = tnl_session_deadline(l->p.a.s);
	t = TNL_MIN(t, a);
	for (int i = 0; i < 2; i++) {
		const struct wire *w = &l->w[i];
		if (w->head < w->tail && w->q[w->head % QMAX].at < t)
			t = w->q[w->head % QMAX].at;
		uint64_t room = w->free_at > 5 * MS ? w->free_at - 5 * MS : 0;
		if (room > l->p.now && room < t)
			t = room;
	}
	return t;
}

/* Runs until `until`, or until x has n bytes. */
static void run(struct link *l, uint64_t until, const struct rec *x, size_t n)
{
	for (;;) {
		arrive(l, &l->p.c, &l->w[0]);
		arrive(l, &l->p.a, &l->w[1]);
		send_all(l, &l->p.c, &l->w[1]);
		send_all(l, &l->p.a, &l->w[0]);
		if (x && tnl_buf_len(&x->in) >= n)
			return;
		uint64_t t = next_event(l);
		if (t > until) {
			l->p.now = until;
			return;
		}
		l->p.now = TNL_MAX(l->p.now, t);
		tnl_session_expire(l->p.c.s, l->p.now);
		tnl_session_expire(l->p.a.s, l->p.now);
	}
}

struct pings {
	double worst, average; /* ms */
};

static struct pings ping(struct link *l, struct rec *x, int times)
{
	struct pings r = {0};
	for (int i = 0; i < times; i++) {
		size_t want = tnl_buf_len(&x->in) + 64;
		uint64_t began = l->p.now;
		rec_fill(x, 64, (uint32_t)i);
		run(l, l->p.now + 5 * SEC, x, want);
		assert_int_equal(tnl_buf_len(&x->in), want);
		double ms = (double)(l->p.now - began) / 1e6;
		r.worst = TNL_MAX(r.worst, ms);
		r.average += ms / times;
		run(l, l->p.now + 37 * MS, NULL, 0);
	}
	return r;
}

static size_t echo_only_first(void *ctx, struct tnl_stream *st, uint32_t ptype, const uint8_t *p, size_t n)
{
	struct end *e = ctx;
	struct rec *r = tnl_stream_user(st);
	(void)ptype;
	if (r == &e->rec[0]) {
		tnl_buf_put(&r->out, p, n);
		tnl_stream_want_send(st, true);
	}
	tnl_buf_put(&r->in, p, n);
	return n;
}

static void link_open(struct link *l, double rate, const struct tnl_session_cb *agent_cb)
{
	struct tnl_session_config cc = pair_config(false), ac = pair_config(true);
	memset(l, 0, sizeof(*l));
	l->rate = rate;
	if (agent_cb)
		ac.cb = agent_cb;
	cc.memory_max = ac.memory_max = 16u << 20;
	pair_init(&l->p, &cc, &ac);
	tnl_session_link_up(l->p.c.s, l->p.now);
	tnl_session_link_up(l->p.a.s, l->p.now);
}

static void link_close(struct link *l)
{
	for (int i = 0; i < 2; i++)
		while (l->w[i].head < l->w[i].tail)
			free(l->w[i].q[l->w[i].head++ % QMAX].p);
	pair_fini(&l->p);
}

struct beside {
	struct pings idle, busy;
	double rate;	    /* of all bulk streams, bytes/s */
	double least_share; /* of the bulk stream that got least, of what would be its share; 1: all got the same */
};

/* Pings on one stream that the agent answers, first alone, then beside n bulk streams that have found their rate. */
static struct beside ping_beside(double rate, int n, uint64_t warm, int times)
{
	static struct link l;
	struct tnl_session_cb cb = end_cb;
	struct beside r;
	size_t before[8], all = 0, least = SIZE_MAX;
	cb.on_data = echo_only_first;
	link_open(&l, rate, &cb);
	struct rec *p = pair_open(&l.p);
	run(&l, l.p.now + SEC, NULL, 0);
	r.idle = ping(&l, p, 40);
	for (int i = 0; i < n; i++)
		rec_fill(pair_open(&l.p), (60u << 20) / (size_t)n, 1);
	run(&l, l.p.now + warm, NULL, 0);
	for (int i = 0; i < n; i++)
		before[i] = tnl_buf_len(&l.p.a.rec[1 + i].in);
	uint64_t began = l.p.now;
	r.busy = ping(&l, p, times);
	for (int i = 0; i < n; i++) {
		size_t moved = tnl_buf_len(&l.p.a.rec[1 + i].in) - before[i];
		assert_true(tnl_buf_len(&l.p.c.rec[1 + i].out) > 0); /* it was going on all the time */
		all += moved;
		least = TNL_MIN(least, moved);
	}
	r.rate = (double)all / ((double)(l.p.now - began) / 1e9);
	r.least_share = (double)least * n / (double)all;
	print_message("%.1f MB/s, bulk streams %d: %d pings idle %.1f ms, busy %.1f, worst %.1f ms; bulk %.2f MB/s, "
		      "least share %.2f\n",
		      rate / 1e6, n, times, r.idle.average, r.busy.average, r.busy.worst, r.rate / 1e6, r.least_share);
	link_close(&l);
	return r;
}

static void ping_beside_bulk(void **state)
{
	(void)state;
	struct beside r = ping_beside(RATE, 1, SEC, 40);
	assert_true(r.idle.worst < 51);
	assert_true(r.busy.worst < r.idle.worst + 15);
	assert_true(r.rate > 0.9 * RATE);
}

/* Where a message is small a turn is short: 16 KiB would take 40 ms here, and each bulk stream as much again. */
static void ping_beside_bulk_streams_on_a_slow_link(void **state)
{
	(void)state;
	struct beside r = ping_beside(4e5, 3, 10 * SEC, 200);
	assert_true(r.busy.average < r.idle.average + 12);
	assert_true(r.busy.worst < r.idle.worst + 60);
	assert_true(r.rate > 0.85 * 4e5);
	assert_true(r.least_share > 0.97);
}

/* A small message need not wait until the window of bulk opens. */
static void pings_pass_the_window_of_bulk(void **state)
{
	(void)state;
	struct beside r = ping_beside(1.25e6, 3, 5 * SEC, 200);
	assert_true(r.busy.average < r.idle.average + 3);
	assert_true(r.busy.worst < r.idle.worst + 4);
	assert_true(r.rate > 0.9 * 1.25e6);
	assert_true(r.least_share > 0.97);
}

/* Bulk in both directions at once: neither starves the other, acks and all. */
static void both_ways(void **state)
{
	static struct link l;
	(void)state;
	link_open(&l, RATE, NULL);
	struct rec *c = pair_open(&l.p);
	run(&l, l.p.now + SEC, NULL, 0);
	struct rec *a = &l.p.a.rec[0];
	rec_fill(c, 60u << 20, 1);
	rec_fill(a, 60u << 20, 2);
	uint64_t began = l.p.now;
	run(&l, l.p.now + 4 * SEC, NULL, 0);
	double s = (double)(l.p.now - began) / 1e9;
	double up = (double)tnl_buf_len(&a->in) / s, down = (double)tnl_buf_len(&c->in) / s;
	print_message("both ways: %.2f MB/s up, %.2f MB/s down of 10\n", up / 1e6, down / 1e6);
	assert_true(up > 0.7 * RATE && down > 0.7 * RATE);
	link_close(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(ping_beside_bulk),
	    cmocka_unit_test(ping_beside_bulk_streams_on_a_slow_link),
	    cmocka_unit_test(pings_pass_the_window_of_bulk),
	    cmocka_unit_test(both_ways),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
