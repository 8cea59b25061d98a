/* Two channels over a model of a link: a bottleneck with a queue, in virtual time, without chance. */
#ifndef CC_UTIL_H
#define CC_UTIL_H
#include "tests/unit/chan_util.h"
#include "lib/cc.h"
#include "lib/num.h"

struct packet {
	uint64_t at;
	size_t len;
	uint8_t *data;
};
struct pipe_model {
	double rate; /* bytes/s */
	uint64_t delay, free_at;
	unsigned lose;	    /* of 10,000 packets of 1,460 bytes; what is behind one waits for its repeat */
	uint64_t held, rnd; /* nothing arrives before */
	bool tcp;	    /* a repeat takes its share of the rate and is lost as well, and the start is slow: */
	double cwnd;	    /* goes in a round trip, and doubles after one in which more was to be sent */
	uint64_t trip, lost_at;
	bool more;
	struct packet *q;
	size_t head, count, size;
};

struct world {
	struct end a, b;
	struct pipe_model up, down, up2; /* up2: behind up, when it has a rate */
	enum {
		NOT_TOLD,
		NEAR,
		FAR,
		BOTH
	} told;			   /* where the lossy hop is, as A is told: before the gateway, behind it */
	const struct tnl_hop *lie; /* what the gateway says instead; NULL: the truth */
	uint64_t now, a_at, b_at;  /* when each process runs next; UINT64_MAX: asleep */
	uint32_t rnd;
	unsigned noise_pct; /* wakeups that come late */
	uint64_t noise_max;
	bool bulk;
	unsigned per_turn;	      /* messages that the source gives each time it runs; 0: all it may */
	uint64_t source_window, sent; /* the source has at most so much on its way; 0: no limit */
	unsigned ping_ms;
	uint64_t next_ping, pings, ping_sum, ping_worst, ping_sent;
	bool ping_out;
};

static inline uint32_t roll(struct world *w)
{
	w->rnd = w->rnd * 1664525u + 1013904223u;
	return w->rnd >> 8;
}

static inline uint64_t wake_delay(struct world *w)
{
	if (w->noise_pct && roll(w) % 100 < w->noise_pct)
		return roll(w) % w->noise_max;
	return 10000;
}

#define SEGMENT 1460u
static inline bool pipe_loses(struct pipe_model *p)
{
	p->rnd = p->rnd * 6364136223846793005u + 1442695040888963407u;
	return (p->rnd >> 33) % 10000 < p->lose;
}

static inline double tcp_rate(struct pipe_model *p, uint64_t now)
{
	uint64_t rtt = 2 * p->delay;
	double most = 4 * p->rate * (double)rtt / 1e9;
	if (!p->tcp)
		return p->rate;
	if (!p->cwnd)
		p->cwnd = 10 * SEGMENT;
	p->more |= p->free_at > now;
	if (now - p->trip >= rtt) {
		p->cwnd = p->more ? TNL_MIN(2 * p->cwnd, most) : p->cwnd;
		p->trip = now;
		p->more = false;
	}
	return TNL_MIN(p->rate, p->cwnd * 1e9 / (double)rtt);
}

/* Everything behind the hole arrives with its repeat. */
static inline void pipe_hole(struct pipe_model *p, uint64_t at)
{
	do {
		at += 2 * p->delay;
		if (p->tcp)
			p->free_at += (uint64_t)(SEGMENT / p->rate * 1e9);
	} while (p->tcp && pipe_loses(p));
	p->held = TNL_MAX(p->held, at);
}

static inline struct tnl_hop pipe_hop(const struct pipe_model *p, uint64_t now)
{
	return (struct tnl_hop){.queue = p->free_at > now ? p->free_at - now : 0,
				.repairs = p->lost_at && now - p->lost_at < SEC / 2};
}

static inline void pipe_put(struct pipe_model *p, const uint8_t *d, size_t n, uint64_t now)
{
	if (p->count == p->size) {
		size_t size = p->size ? 2 * p->size : 1024;
		struct packet *q = malloc(size * sizeof(*q));
		for (size_t i = 0; i < p->count; i++)
			q[i] = p->q[(p->head + i) % p->size];
		free(p->q);
		p->q = q;
		p->size = size;
		p->head = 0;
	}
	uint64_t start = TNL_MAX(now, p->free_at);
	p->free_at = start + (uint64_t)((double)n / tcp_rate(p, now) * 1e9);
	struct packet *k = &p->q[(p->head + p->count++) % p->size];
	k->at = p->free_at + p->delay;
	for (size_t i = 0; p->lose && i < n; i += SEGMENT)
		if (pipe_loses(p)) {
			p->lost_at = now;
			pipe_hole(p, k->at);
		}
	k->at = TNL_MAX(k->at, p->held);
	k->len = n;
	k->data = malloc(n);
	memcpy(k->data, d, n);
}

static inline uint64_t pipe_next(const struct pipe_model *p)
{
	return p->count ? p->q[p->head].at : UINT64_MAX;
}

/* Takes out the first; its length. */
static inline size_t pipe_drop(struct pipe_model *p)
{
	struct packet *k = &p->q[p->head];
	p->head = (p->head + 1) % p->size;
	p->count--;
	free(k->data);
	return k->len;
}

static inline void pipe_close(struct pipe_model *p)
{
	while (p->count)
		pipe_drop(p);
	free(p->q);
}

static inline void ping_seen(struct end *e, const struct tnl_msg *m, uint64_t now)
{
	struct world *w = e->user;
	if (m->plen != 64)
		return;
	uint64_t d = now - w->ping_sent;
	w->ping_out = false;
	w->pings++;
	w->ping_sum += d;
	w->ping_worst = TNL_MAX(w->ping_worst, d);
}

/* On the way of an ack: what stands before the hop to B. */
static inline void gateway_tells(struct world *w, uint8_t *ack)
{
	static const struct tnl_hop none;
	struct tnl_hop far = w->told == FAR    ? pipe_hop(&w->up, w->now)
			     : w->told == BOTH ? pipe_hop(&w->up2, w->now)
					       : none;
	tnl_ack_tell_hop(ack, w->lie ? w->lie : &far);
}

/* From the first hop into the second. */
static inline void gateway_relays(struct world *w)
{
	struct pipe_model *p = &w->up;
	while (p->count && p->q[p->head].at <= w->now) {
		pipe_put(&w->up2, p->q[p->head].data, p->q[p->head].len, w->now);
		pipe_drop(p);
	}
}

static inline void receive(struct world *w, struct end *e, struct pipe_model *p)
{
	while (p->count && p->q[p->head].at <= w->now) {
		struct packet k = p->q[p->head];
		struct tnl_msg m;
		if (e == &w->a && w->told)
			gateway_tells(w, k.data);
		assert_int_equal(tnl_msg_peek(k.data, k.len, &m, NULL), 0);
		assert_int_equal(tnl_channel_feed(e->ch, &m, w->now), 0);
		pipe_drop(p);
	}
}

static inline void transmit(struct world *w, struct end *e, struct pipe_model *p)
{
	const uint8_t *d;
	size_t n;
	assert_int_equal(tnl_channel_expire(e->ch, w->now), 0);
	if (e == &w->a && w->told) {
		struct tnl_hop near = w->told == FAR ? (struct tnl_hop){0} : pipe_hop(&w->up, w->now);
		tnl_channel_near(e->ch, &near, w->now);
	}
	if (e == &w->a) {
		/* As a session asks for a stream that is new in its turn. */
		if (w->ping_ms && !w->ping_out && w->now >= w->next_ping &&
		    (tnl_channel_can_send(e->ch, w->now) || tnl_channel_can_send_small(e->ch, w->now))) {
			cu_send(e, NULL, 64, w->now);
			w->ping_out = true;
			w->ping_sent = w->now;
			w->next_ping = w->now + w->ping_ms * MS + roll(w) % MS;
		}
		for (unsigned k = 0; w->bulk && (!w->source_window || w->sent < w->b.bytes + w->source_window) &&
				     (n = tnl_channel_can_send(e->ch, w->now));
		     k++) {
			if (w->per_turn && k == w->per_turn) {
				w->a_at = w->now + 50000;
				break;
			}
			if (w->per_turn && n > 3000)
				n = 3000; /* what one read(2) gave */
			cu_send(e, NULL, n == 64 ? 65 : n, w->now);
			w->sent += n;
		}
	}
	while (tnl_channel_pull(e->ch, w->now, &d, &n) == 1)
		pipe_put(p, d, n, w->now);
}

static inline void world_open(struct world *w, double rate, uint64_t one_way)
{
	memset(w, 0, sizeof(*w));
	cu_open(&w->a, true, 0, 0, 0, false);
	cu_open(&w->b, false, 0, 0, 0, false);
	w->b.tap = ping_seen;
	w->b.user = w;
	w->up.rate = w->down.rate = rate;
	w->up.delay = w->down.delay = one_way;
	w->rnd = 1;
	w->bulk = true;
	tnl_channel_link_up(w->a.ch, 0);
	tnl_channel_link_up(w->b.ch, 0);
	const uint8_t *none;
	size_t n;
	assert_int_equal(tnl_channel_pull(w->a.ch, 0, &none, &n), TNL_EAGAIN); /* as a pump does before it reads */
	w->b_at = UINT64_MAX;
}

/* Each end runs when something arrived for it, when its timer is due, and A when a ping is. */
static inline void run_until(struct world *w, uint64_t end)
{
	while (w->now < end) {
		uint64_t a_evt = TNL_MIN(pipe_next(&w->down), tnl_channel_deadline(w->a.ch));
		if (w->ping_ms && !w->ping_out)
			a_evt = TNL_MIN(a_evt, w->next_ping);
		struct pipe_model *last = w->told == BOTH ? &w->up2 : &w->up;
		uint64_t b_evt = TNL_MIN(pipe_next(last), tnl_channel_deadline(w->b.ch));
		uint64_t g_evt = w->told == BOTH ? pipe_next(&w->up) : UINT64_MAX;
		uint64_t t = TNL_MIN(TNL_MIN(w->a_at, w->b_at), TNL_MIN(w->a_at == UINT64_MAX ? a_evt : UINT64_MAX,
									w->b_at == UINT64_MAX ? b_evt : UINT64_MAX));
		w->now = TNL_MAX(w->now, TNL_MIN(t, g_evt));
		if (g_evt <= w->now)
			gateway_relays(w);
		if (w->a_at == UINT64_MAX && a_evt <= w->now)
			w->a_at = w->now + wake_delay(w);
		if (w->b_at == UINT64_MAX && b_evt <= w->now)
			w->b_at = w->now + wake_delay(w);
		if (w->a_at <= w->now) {
			w->a_at = UINT64_MAX;
			receive(w, &w->a, &w->down);
			transmit(w, &w->a, &w->up);
		}
		if (w->b_at <= w->now) {
			w->b_at = UINT64_MAX;
			receive(w, &w->b, last);
			transmit(w, &w->b, &w->down);
		}
	}
}

/* A hop as TCP makes one, and both ends agreed that they are told of it. */
static inline void world_tcp(struct world *w, int told, unsigned lose)
{
	w->told = told;
	w->up.tcp = true;
	w->up.lose = lose;
	if (w->told == BOTH) {
		w->up2 = w->up;
		w->down.delay *= 2;
	}
	tnl_channel_ask_hop(w->b.ch);
}

static inline void world_close(struct world *w)
{
	pipe_close(&w->up);
	pipe_close(&w->up2);
	pipe_close(&w->down);
	tnl_channel_free(w->a.ch);
	tnl_channel_free(w->b.ch);
}

struct result {
	double util, ping_avg, ping_worst;
	struct tnl_channel_stats st;
}; /* pings: ms beyond the path's own time */

static inline struct result measure(struct world *w, uint64_t ns)
{
	uint64_t from = w->now, bytes = w->b.bytes;
	w->ping_sum = w->pings = w->ping_worst = 0;
	run_until(w, from + ns);
	double idle = (double)(w->up.delay + w->up2.delay) / 1e6;
	struct result r = {.util = (double)(w->b.bytes - bytes) / (w->up.rate * (double)(w->now - from) / 1e9),
			   .ping_avg = w->pings ? (double)w->ping_sum / (double)w->pings / 1e6 - idle : 0,
			   .ping_worst = w->pings ? (double)w->ping_worst / 1e6 - idle : 0};
	tnl_channel_stats(w->a.ch, &r.st);
	if (getenv("TNL_CC_TRACE"))
		print_message(
		    "%.2f s: rate %.3g util %.3f ping +%.2f worst +%.2f ms; cwnd %zu, measured %.3g, min rtt %.2f ms\n",
		    (double)w->now / 1e9, w->up.rate, r.util, r.ping_avg, r.ping_worst, r.st.cwnd,
		    (double)r.st.delivery_rate, (double)r.st.min_rtt_ns / 1e6);
	return r;
}

static inline void above(double value, double least)
{
	if (value < least)
		fail_msg("%.3f is less than %.3f", value, least);
}

static inline void below(double value, double most)
{
	if (value > most)
		fail_msg("%.3f is more than %.3f", value, most);
}

#endif
