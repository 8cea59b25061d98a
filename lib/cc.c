#include "lib/cc.h"
#include <limits.h>
#include <string.h>

#define MS 1000000u
#define SEC 1000000000u
#define RATE_WINDOW (500u * MS) /* a rate is remembered this long, or ten round trips */
#define EXTRA_MAX (12u * MS)	/* most of bunching that is allowed for, or half a round trip */
#define EXTRA_FREE (2u * MS)	/* bunching that counts as smooth */
#define LATE_ACKS 8u		/* so many late acks in a row end the startup */
#define GROW_STARTUP 4u		/* so many steps without a queue start it again */
#define STUCK_ROUNDS 8u		/* so many rounds of delay in spite of cuts: is it ours? */
#define PACE_RTT (2u * MS)	/* shorter paths are not paced: timers are coarser than they are */
#define PACE_SLACK (2u * MS)	/* so much may go at once */
#define BULK (16u * 1024)	/* so much in one round trip is more than an exchange of small messages */
#define MESSAGE 1200u		/* a smallest full message */

static uint64_t bytes_in(uint64_t rate, uint64_t ns)
{
	return (uint64_t)((double)rate * (double)ns / 1e9);
}

static uint64_t max_add(struct tnl_cc_max *m, uint64_t v, uint64_t width, uint64_t now)
{
	if (now - m->start >= width) {
		uint64_t steps = (now - m->start) / width;
		m->start += steps * width;
		for (uint64_t i = 0; i < steps && i < TNL_CC_SLOTS; i++) {
			m->cur = (m->cur + 1) % TNL_CC_SLOTS;
			m->slot[m->cur] = 0;
		}
		m->best = 0;
		for (unsigned i = 0; i < TNL_CC_SLOTS; i++)
			m->best = m->slot[i] > m->best ? m->slot[i] : m->best;
	}
	if (v > m->slot[m->cur])
		m->slot[m->cur] = v;
	if (v > m->best)
		m->best = v;
	return m->best;
}

void tnl_cc_init(struct tnl_cc *c, size_t cwnd_max, uint64_t now)
{
	memset(c, 0, sizeof(*c));
	c->cwnd_max = cwnd_max > TNL_CC_MIN ? cwnd_max : TNL_CC_MIN;
	c->cwnd = TNL_CC_INITIAL < c->cwnd_max ? TNL_CC_INITIAL : c->cwnd_max;
	c->min_rtt = c->round_min_rtt = UINT64_MAX;
	c->delivered_at = c->first_sent = c->round_at = c->epoch_at = now;
	c->app_limited = 1; /* until the source has shown that it has enough */
	c->rate.start = c->extra.start = c->min_rtt_at = c->last_probe = now;
}

static uint64_t base_rtt(const struct tnl_cc *c)
{
	return c->min_rtt == UINT64_MAX ? 100 * MS : c->min_rtt + c->allow;
}

/* Faster than the path, so that the window stays what limits, but not by bursts. */
static double pace_rate(const struct tnl_cc *c)
{
	if (c->state == TNL_CC_STARTUP)
		return 2e9 * (double)c->cwnd / (double)base_rtt(c);
	double r = 1.25 * (double)c->max_rate, w = 1e9 * (double)c->cwnd / (double)(base_rtt(c) + TNL_CC_QUEUE);
	return r > w ? r : w;
}

static bool paced(const struct tnl_cc *c)
{
	return c->rate_known && c->min_rtt != UINT64_MAX && c->min_rtt >= PACE_RTT;
}

static uint64_t slack(const struct tnl_cc *c)
{
	return PACE_SLACK + (c->max_rate ? (uint64_t)((double)c->max_extra * 1e9 / (double)c->max_rate) : 0);
}

uint64_t tnl_cc_pace(const struct tnl_cc *c, size_t queued, uint64_t now)
{
	if (!paced(c))
		return 0;
	uint64_t at = c->pace_at > now ? c->pace_at : now, most = slack(c);
	if (queued)
		at += (uint64_t)((double)queued * 1e9 / pace_rate(c));
	return at <= now + most ? 0 : at - most + MS / 2;
}

void tnl_cc_sent(struct tnl_cc *c, struct tnl_cc_snap *s, size_t len, size_t inflight, uint64_t now)
{
	if (paced(c))
		c->pace_at = (c->pace_at > now ? c->pace_at : now) + (uint64_t)((double)len * 1e9 / pace_rate(c));
	if (inflight == 0)
		c->first_sent = c->delivered_at = now;
	s->delivered = c->delivered;
	s->delivered_at = c->delivered_at;
	s->first_sent = c->first_sent;
	s->app_limited = c->app_limited != 0;
}

void tnl_cc_idle(struct tnl_cc *c, size_t inflight)
{
	c->app_limited = c->delivered + inflight;
	if (c->app_limited == 0)
		c->app_limited = 1;
}

size_t tnl_cc_size(const struct tnl_cc *c)
{
	return c->rate_known ? (size_t)bytes_in(c->max_rate, 3 * MS / 2) : 0;
}

/* The queue that is allowed: at low rates two messages at least. */
static uint64_t queue_goal(const struct tnl_cc *c)
{
	uint64_t two = c->max_rate ? 2 * MESSAGE * (uint64_t)SEC / c->max_rate : 0;
	return two > TNL_CC_QUEUE ? two : TNL_CC_QUEUE;
}

/* The window that the best recent rate can fill, whatever single round trips
 * say: keeps a loopback pipe going while the scheduler makes acks late.  On a
 * long path it lies below the working point, so that over-estimated rates do
 * no harm. */
static size_t rate_floor(const struct tnl_cc *c)
{
	uint64_t rtt = base_rtt(c);
	return (size_t)(bytes_in(c->max_rate, rtt - rtt / 8 + queue_goal(c)) + c->max_extra);
}

static void set_cwnd(struct tnl_cc *c, size_t w)
{
	size_t low = c->rate_known ? rate_floor(c) : 0;
	w = w > low ? w : low;
	w = w > TNL_CC_MIN ? w : TNL_CC_MIN;
	c->cwnd = w < c->cwnd_max ? w : c->cwnd_max;
}

static void enter_startup(struct tnl_cc *c)
{
	c->state = TNL_CC_STARTUP;
	c->slow_rounds = c->late_acks = 0;
	c->full_rate = 0;
}

static void leave_startup(struct tnl_cc *c)
{
	c->state = TNL_CC_STEADY;
	c->hold = 1;
	c->grow = 0;
	c->max_extra = 0;
	memset(c->extra.slot, 0, sizeof(c->extra.slot));
	c->extra.best = 0;
	if (c->rate_known)
		set_cwnd(c, (size_t)bytes_in(c->max_rate, base_rtt(c) + queue_goal(c)));
}

static bool is_late(const struct tnl_cc *c, uint64_t rtt)
{
	uint64_t base = base_rtt(c);
	return rtt > base && rtt - base > queue_goal(c) + base / 16;
}

/* A source that has less to send than the path would carry says nothing about
 * the path, unless it nevertheless made a queue: then the path was full (a
 * stream's window, say, can be what limits the sender, and still be too much). */
static void rate_sample(struct tnl_cc *c, const struct tnl_cc_snap *s, uint64_t sent_at, uint64_t rtt, uint64_t now)
{
	uint64_t send_el = sent_at - s->first_sent, ack_el = now - s->delivered_at;
	uint64_t el = send_el > ack_el ? send_el : ack_el, amount = c->delivered - s->delivered;
	if (el < 1000)
		el = 1000;
	uint64_t rate = (uint64_t)((double)amount * 1e9 / (double)el);
	bool full = !s->app_limited || (amount >= BULK && is_late(c, rtt));
	if (!full && rate < c->max_rate)
		return;
	uint64_t window = c->min_rtt == UINT64_MAX || 10 * c->min_rtt < RATE_WINDOW ? RATE_WINDOW : 10 * c->min_rtt;
	c->max_rate = max_add(&c->rate, rate, window / TNL_CC_SLOTS, now);
	if (full)
		c->rate_known = true;
}

/* What arrives beyond the steady rate since the acks last fell behind it: how
 * bunched acks are.  Bunches come from schedulers, not from queues. */
static void note_bunch(struct tnl_cc *c, size_t len, uint64_t now)
{
	uint64_t expect = bytes_in(c->max_rate, now - c->epoch_at);
	if (c->epoch_bytes <= expect) {
		c->epoch_at = now;
		c->epoch_bytes = expect = 0;
	}
	c->epoch_bytes += len;
	uint64_t extra = c->epoch_bytes - expect, smooth = bytes_in(c->max_rate, EXTRA_FREE);
	extra = extra > smooth ? extra - smooth : 0;
	/* TCP that repairs a loss holds back what is behind it for a round trip: half of that is allowed for. */
	uint64_t longest = base_rtt(c) / 2 > EXTRA_MAX ? base_rtt(c) / 2 : EXTRA_MAX;
	uint64_t most = bytes_in(c->max_rate, longest);
	c->max_extra = max_add(&c->extra, extra < most ? extra : most, RATE_WINDOW / TNL_CC_SLOTS, now);
}

static void start_probe(struct tnl_cc *c, uint64_t now)
{
	c->state = TNL_CC_PROBE;
	c->saved_cwnd = c->cwnd;
	c->probe_mark = UINT64_MAX;
	c->probe_min = UINT64_MAX;
	c->probe_at = c->last_probe = now;
	c->stuck = 0;
	size_t w = (size_t)bytes_in(c->max_rate, base_rtt(c) / 2);
	c->cwnd = w > TNL_CC_MIN ? w : TNL_CC_MIN;
	if (c->cwnd > c->saved_cwnd)
		c->cwnd = c->saved_cwnd;
}

/* The window is kept small until the queue has drained and a few messages that
 * met none have come back. */
static void probing(struct tnl_cc *c, const struct tnl_cc_snap *s, uint64_t rtt, size_t inflight, uint64_t now)
{
	if (c->probe_mark == UINT64_MAX && inflight <= c->cwnd)
		c->probe_mark = c->delivered;
	bool fresh = c->probe_mark != UINT64_MAX && s->delivered >= c->probe_mark;
	if (fresh && rtt && rtt < c->probe_min)
		c->probe_min = rtt;
	bool late = now - c->probe_at > 2 * (uint64_t)SEC;
	if (!late && !(fresh && s->delivered > c->probe_mark + c->cwnd / 2))
		return;
	bool old = now - c->min_rtt_at > TNL_CC_MIN_RTT_LIFE;
	if (c->probe_min != UINT64_MAX) {
		c->allow = old ? 0 : c->probe_min - c->min_rtt;
		if (old)
			c->min_rtt = c->probe_min;
	}
	if (old)
		c->min_rtt_at = now;
	c->state = TNL_CC_STEADY;
	c->hold = 2;
	c->cwnd = 0;
	set_cwnd(c, c->saved_cwnd);
}

static void rtt_sample(struct tnl_cc *c, uint64_t rtt, uint64_t now)
{
	if (rtt < c->min_rtt) {
		c->min_rtt = rtt;
		c->min_rtt_at = now;
	} else if (rtt <= c->min_rtt + c->min_rtt / 16 + MS / 20) {
		c->min_rtt_at = now;
	} else if (now - c->min_rtt_at > TNL_CC_MIN_RTT_LIFE && c->app_limited) {
		c->min_rtt = rtt; /* no queue of ours: the path has become longer */
		c->min_rtt_at = now;
	}
	if (rtt < c->round_min_rtt)
		c->round_min_rtt = rtt;
}

static void startup_round(struct tnl_cc *c)
{
	if (!c->limited || !c->rate_known)
		return;
	if (c->max_rate > c->full_rate + c->full_rate / 4) {
		c->full_rate = c->max_rate;
		c->slow_rounds = c->late_acks = 0;
	} else if (++c->slow_rounds >= 3) {
		leave_startup(c);
	}
}

/* Once in two rounds, since a change shows one round later: less when the
 * least round trip shows more queue than allowed, more when it shows hardly any. */
static void steady_round(struct tnl_cc *c, uint64_t round_rate, uint64_t now)
{
	if (c->round_min_rtt == UINT64_MAX || (!c->limited && c->delivered - c->round_from < BULK))
		return;
	uint64_t delay = c->round_min_rtt > c->min_rtt ? c->round_min_rtt - c->min_rtt : 0;
	if (delay < c->allow)
		c->allow -= (c->allow - delay) / 16;
	uint64_t q = delay - (delay < c->allow ? delay : c->allow);
	c->stuck = q > queue_goal(c) ? c->stuck + 1 : c->stuck / 2;
	bool old = now - c->min_rtt_at > TNL_CC_MIN_RTT_LIFE;
	if ((old || c->stuck >= STUCK_ROUNDS) && now - c->last_probe > SEC + 20 * base_rtt(c)) {
		start_probe(c, now);
		return;
	}
	if (c->hold) {
		c->hold--;
		return;
	}
	c->hold = 1;
	uint64_t rate = round_rate < c->max_rate ? round_rate : c->max_rate, goal = queue_goal(c);
	if (q > goal) {
		size_t cut = (size_t)bytes_in(rate, q - goal * 3 / 4);
		set_cwnd(c, c->cwnd - (cut < c->cwnd / 2 ? cut : c->cwnd / 2));
		c->grow = 0;
	} else if (q < goal / 2 && c->limited) {
		/* No queue although the window was full: the path may carry more. Ask in growing steps. */
		size_t step = (size_t)bytes_in(rate, goal * 3 / 4 - q) << c->grow;
		set_cwnd(c, c->cwnd + (step < c->cwnd / 8 ? step : c->cwnd / 8));
		if (++c->grow > GROW_STARTUP)
			enter_startup(c);
	} else {
		c->grow = 0;
		set_cwnd(c, c->cwnd);
	}
}

void tnl_cc_acked(struct tnl_cc *c, const struct tnl_cc_snap *s, uint64_t sent_at, size_t len, uint64_t rtt,
		  size_t inflight, uint64_t now)
{
	c->delivered += len;
	if (c->app_limited && c->delivered > c->app_limited)
		c->app_limited = 0;
	rate_sample(c, s, sent_at, rtt, now);
	c->delivered_at = now;
	c->first_sent = sent_at;
	if (rtt)
		rtt_sample(c, rtt, now);
	if (c->state == TNL_CC_PROBE) {
		probing(c, s, rtt, inflight, now);
	} else if (c->state == TNL_CC_STARTUP) {
		if (c->limited && c->cwnd < c->cwnd_max)
			c->cwnd = c->cwnd + len < c->cwnd_max ? c->cwnd + len : c->cwnd_max;
		/* The first messages go out as one burst and queue behind themselves, and TCP below starts slowly too:
		 * as long as the rate still grows, late acks are no sign of a full path. */
		c->late_acks = s->delivered > 0 && is_late(c, rtt) ? c->late_acks + 1 : 0;
		if (c->late_acks >= LATE_ACKS && c->rate_known && c->max_rate <= c->full_rate + c->full_rate / 4)
			leave_startup(c);
	} else {
		note_bunch(c, len, now);
	}
	if (s->delivered < c->round_end)
		return;
	uint64_t el = now - c->round_at;
	uint64_t round_rate = el ? (uint64_t)((double)(c->delivered - c->round_from) * 1e9 / (double)el) : c->max_rate;
	if (c->state == TNL_CC_STARTUP)
		startup_round(c);
	else if (c->state == TNL_CC_STEADY)
		steady_round(c, round_rate, now);
	c->round++;
	c->round_end = c->round_from = c->delivered;
	c->round_at = now;
	c->round_min_rtt = UINT64_MAX;
	c->limited = false;
}

void tnl_bucket_init(struct tnl_bucket *b, unsigned rate)
{
	memset(b, 0, sizeof(*b));
	if (!rate)
		return;
	unsigned burst = rate / 20;
	b->interval = burst ? (uint64_t)SEC / (rate - burst) + 1 : SEC / rate + 1;
	b->tolerance = burst ? (burst - 1) * b->interval : 0;
}

unsigned tnl_bucket_left(const struct tnl_bucket *b, uint64_t now)
{
	if (!b->interval)
		return UINT_MAX;
	uint64_t at = tnl_bucket_at(b);
	if (now < at)
		return 0;
	uint64_t tat = b->tat > now ? b->tat : now;
	return (unsigned)((now + b->tolerance - tat) / b->interval + 1);
}

void tnl_bucket_take(struct tnl_bucket *b, uint64_t now)
{
	if (b->interval)
		b->tat = (b->tat > now ? b->tat : now) + b->interval;
}
