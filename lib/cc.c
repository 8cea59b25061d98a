/* The window: rate estimate, base round trip and bunching say how much the path
 * holds; startup, steady and probe are the three ways to find the rest out.  Each
 * estimator is a struct of its own in cc.h, its formula stands at its function. */
#include "lib/cc.h"
#include "lib/num.h"
#include <limits.h>
#include <string.h>

#define MS 1000000u
#define SEC 1000000000u
#define RATE_WINDOW (500u * MS) /* a rate is remembered this long, or ten round trips */
#define EXTRA_MAX (12u * MS)	/* most of bunching that is allowed for, or half a round trip */
#define EXTRA_FREE (2u * MS)	/* bunching that counts as smooth */
#define LATE_ACKS 8u		/* so many late acks in a row end the startup */
#define GROW_STARTUP 4u		/* so many steps without a queue start it again */
#define REPAIR_QUEUE 8u		/* round trips of queue up to which the startup grows while TCP repairs losses, */
#define REPAIR_GROWTH 4u	/* and bytes more for each that arrives */
#define REPAIR_TRIPS 4u		/* round trips that a repair may take: what is sent again can be lost again */
#define REPAIR_LIFE (SEC / 2)	/* and two round trips: what a repair held back may still be late */
#define STUCK_ROUNDS 8u		/* so many rounds of delay in spite of cuts: is it ours? */
#define PACE_RTT (2u * MS)	/* shorter paths are not paced: timers are coarser than they are */
#define PACE_SLACK (2u * MS)	/* so much may go at once */
#define BULK (16u * 1024)	/* so much in one round trip is more than an exchange of small messages */
#define MESSAGE 1200u		/* a smallest full message */

static uint64_t bytes_in(uint64_t rate, uint64_t ns)
{
	return (uint64_t)((double)rate * (double)ns / 1e9);
}

static void max_add(struct tnl_cc_max *m, uint64_t v, uint64_t width, uint64_t now)
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
			m->best = TNL_MAX(m->best, m->slot[i]);
	}
	m->slot[m->cur] = TNL_MAX(m->slot[m->cur], v);
	m->best = TNL_MAX(m->best, v);
}

void tnl_cc_init(struct tnl_cc *c, size_t window_max, uint64_t now)
{
	memset(c, 0, sizeof(*c));
	c->window_max = TNL_MAX(window_max, TNL_CC_MIN);
	c->window = TNL_MIN(TNL_CC_INITIAL, c->window_max);
	c->base.rtt = c->round.min_rtt = c->round.queue = c->told.far_at = UINT64_MAX;
	c->arrived.at = c->arrived.first_sent = c->round.at = c->bunch.at = now;
	c->arrived.app_limited = 1; /* until the source has shown that it has enough */
	c->rate.recent.start = c->bunch.extra.start = c->base.at = c->probe.last = now;
}

/* base = least round trip + what was found not to be our queue. */
static uint64_t base_rtt(const struct tnl_cc *c)
{
	return c->base.rtt == UINT64_MAX ? 100 * MS : c->base.rtt + c->base.allow;
}

/* On shorter paths what schedulers do is greater than what queues are. */
bool tnl_cc_is_long(const struct tnl_cc *c)
{
	return c->base.rtt != UINT64_MAX && c->base.rtt >= PACE_RTT;
}

/* Somebody says how much stands on the way. On short paths that is not worth listening to. */
static bool is_told(const struct tnl_cc *c, uint64_t now)
{
	return c->told.far_at != UINT64_MAX && tnl_cc_is_long(c) && now < c->told.far_at + SEC + 2 * c->base.rtt;
}

/* Then round trips say nothing about the queue, what is told does. */
bool tnl_cc_repairs(const struct tnl_cc *c, uint64_t now)
{
	return is_told(c, now) && c->told.repaired_at && now < c->told.repaired_at + REPAIR_LIFE + 2 * c->base.rtt;
}

bool tnl_cc_is_full(const struct tnl_cc *c, uint64_t now)
{
	return c->told.near.full || (is_told(c, now) && c->told.far.full);
}

/* Told, and no repair: then the least round trip of a round is the queue. */
static bool trusts_trips(const struct tnl_cc *c, uint64_t now)
{
	return is_told(c, now) && !tnl_cc_repairs(c, now);
}

/* Meaningless unless told. */
static uint64_t queue_of_now(const struct tnl_cc *c)
{
	return c->told.near.queue + c->told.far.queue;
}

void tnl_cc_near(struct tnl_cc *c, const struct tnl_hop *h, uint64_t now)
{
	c->told.near = *h;
	if (h->repairs)
		c->told.repaired_at = now;
}

void tnl_cc_far(struct tnl_cc *c, const struct tnl_hop *h, uint64_t now)
{
	c->told.far = *h;
	c->told.far_at = now;
	if (h->repairs)
		c->told.repaired_at = now;
	c->round.queue = TNL_MIN(c->round.queue, queue_of_now(c));
}

uint64_t tnl_cc_least(const struct tnl_cc *c)
{
	return c->base.rtt == UINT64_MAX ? 0 : c->base.rtt - c->base.rtt / 16;
}

uint64_t tnl_cc_patience(const struct tnl_cc *c, uint64_t now)
{
	if (!is_told(c, now))
		return 0;
	return TNL_MIN(queue_of_now(c) + (tnl_cc_repairs(c, now) ? REPAIR_TRIPS * c->base.rtt : 0), SEC);
}

/* Faster than the path, so that the window stays what limits, but not by bursts: startup 2 × window / base,
 * then max(5/4 × rate, window / (base + 3 ms)); 5/4 × rate where bunches would hide a queue from round trips. */
static double pace_rate(const struct tnl_cc *c, uint64_t now)
{
	if (c->state == TNL_CC_STARTUP)
		return 2e9 * (double)c->window / (double)base_rtt(c);
	double r = 1.25 * (double)tnl_cc_rate(c), w = 1e9 * (double)c->window / (double)(base_rtt(c) + TNL_CC_QUEUE);
	return trusts_trips(c, now) ? r : TNL_MAX(r, w);
}

static bool is_paced(const struct tnl_cc *c)
{
	return c->rate.known && tnl_cc_is_long(c);
}

/* 2 ms, and as long as the bunches last that acks come in, unless it is only us who make them. */
static uint64_t pace_slack(const struct tnl_cc *c, uint64_t now)
{
	if (!tnl_cc_rate(c) || trusts_trips(c, now))
		return PACE_SLACK;
	return PACE_SLACK + (uint64_t)((double)c->bunch.extra.best * 1e9 / (double)tnl_cc_rate(c));
}

/* A round trip at most: after a silence the measured rate can be next to nothing, and with nothing on its way no ack
 * would ever put it right. The window holds back what is too much. */
static uint64_t pace_time(const struct tnl_cc *c, size_t bytes, uint64_t now)
{
	double ns = bytes ? (double)bytes * 1e9 / pace_rate(c, now) : 0, most = (double)base_rtt(c);
	return (uint64_t)(ns < most ? ns : most);
}

uint64_t tnl_cc_pace(const struct tnl_cc *c, size_t queued, uint64_t now)
{
	if (!is_paced(c))
		return 0;
	uint64_t at = TNL_MAX(c->pace_at, now) + pace_time(c, queued, now), most = pace_slack(c, now);
	return at <= now + most ? 0 : at - most + MS / 2;
}

void tnl_cc_sent(struct tnl_cc *c, struct tnl_cc_snap *s, size_t len, size_t inflight, uint64_t now)
{
	if (is_paced(c))
		c->pace_at = TNL_MAX(c->pace_at, now) + pace_time(c, len, now);
	c->round.flight = TNL_MAX(c->round.flight, inflight + len);
	if (inflight == 0)
		c->arrived.first_sent = c->arrived.at = now;
	s->delivered = c->arrived.bytes;
	s->delivered_at = c->arrived.at;
	s->first_sent = c->arrived.first_sent;
	s->app_limited = c->arrived.app_limited != 0;
}

void tnl_cc_idle(struct tnl_cc *c, size_t inflight)
{
	c->arrived.app_limited = c->arrived.bytes + inflight;
	if (c->arrived.app_limited == 0)
		c->arrived.app_limited = 1;
}

size_t tnl_cc_size(const struct tnl_cc *c)
{
	return c->rate.known ? (size_t)bytes_in(tnl_cc_rate(c), 3 * MS / 2) : 0;
}

/* The queue that is allowed: 3 ms, at low rates two messages at least. */
static uint64_t queue_goal(const struct tnl_cc *c)
{
	uint64_t two = tnl_cc_rate(c) ? 2 * MESSAGE * (uint64_t)SEC / tnl_cc_rate(c) : 0;
	return TNL_MAX(two, TNL_CC_QUEUE);
}

/* The window that the best recent rate can fill, whatever single round trips
 * say: keeps a loopback pipe going while the scheduler makes acks late.  On a
 * long path it lies below the working point, so that over-estimated rates do
 * no harm.  rate × (7/8 base + queue) + bunching. */
static size_t rate_floor(const struct tnl_cc *c, uint64_t now)
{
	uint64_t rtt = base_rtt(c);
	uint64_t bunch = is_told(c, now) ? 0 : c->bunch.extra.best;
	return (size_t)(bytes_in(tnl_cc_rate(c), rtt - rtt / 8 + queue_goal(c)) + bunch);
}

static void set_window(struct tnl_cc *c, size_t w, uint64_t now)
{
	size_t low = c->rate.known ? rate_floor(c, now) : 0;
	w = TNL_MAX(w, TNL_MAX(low, TNL_CC_MIN));
	c->window = TNL_MIN(w, c->window_max);
}

static void enter_startup(struct tnl_cc *c)
{
	c->state = TNL_CC_STARTUP;
	c->startup.slow_rounds = c->startup.late_acks = 0;
	c->startup.rate = 0;
}

bool tnl_cc_is_free(const struct tnl_cc *c, uint64_t now)
{
	return trusts_trips(c, now) && queue_of_now(c) <= queue_goal(c);
}

uint64_t tnl_cc_told_base(const struct tnl_cc *c, uint64_t now)
{
	return is_told(c, now) ? base_rtt(c) : 0;
}

void tnl_cc_hurry(struct tnl_cc *c, uint64_t now)
{
	if (c->state != TNL_CC_STEADY || now < c->hurry_at || !tnl_cc_is_free(c, now))
		return;
	c->hurry_at = now + SEC;
	enter_startup(c);
}

/* At most half of what is really on its way. */
static void cut_window(struct tnl_cc *c, uint64_t less, uint64_t now)
{
	size_t used = is_told(c, now) ? TNL_MIN(c->window, TNL_MAX(c->round.flight, TNL_CC_MIN)) : c->window;
	set_window(c, used - TNL_MIN(less, used / 2), now);
}

/* Of this round, beyond `allow`: by what is told while TCP repairs losses, else by the least round trip. */
static uint64_t round_queue(const struct tnl_cc *c, uint64_t allow, uint64_t now)
{
	if (tnl_cc_repairs(c, now) && c->round.queue != UINT64_MAX)
		return c->round.queue;
	if (c->round.min_rtt == UINT64_MAX)
		return 0;
	uint64_t base = c->base.rtt + allow;
	return c->round.min_rtt > base ? c->round.min_rtt - base : 0;
}

/* A round in the startup, while its source is told: what either way shows. */
static uint64_t startup_queue(const struct tnl_cc *c, uint64_t now)
{
	uint64_t q = round_queue(c, 0, now), told = c->round.queue;
	return told != UINT64_MAX && told > q ? told : q;
}

/* Where TCP repairs losses it must not run dry: half a round trip more. */
static uint64_t most_queue(const struct tnl_cc *c, uint64_t now)
{
	return queue_goal(c) + (tnl_cc_repairs(c, now) ? base_rtt(c) / 2 : 0);
}

static void leave_startup(struct tnl_cc *c, uint64_t now)
{
	c->state = TNL_CC_STEADY;
	c->steady.hold = 1;
	c->steady.grow = 0;
	memset(c->bunch.extra.slot, 0, sizeof(c->bunch.extra.slot));
	c->bunch.extra.best = 0;
	if (is_told(c, now)) { /* all but the queue is needed */
		uint64_t q = startup_queue(c, now), most = most_queue(c, now) * 3 / 4;
		cut_window(c, bytes_in(tnl_cc_rate(c), q > most ? q - most : 0), now);
	} else if (c->rate.known) {
		set_window(c, (size_t)bytes_in(tnl_cc_rate(c), base_rtt(c) + queue_goal(c)), now);
	}
}

/* Later than the allowed queue and a sixteenth of the path explain; where the queue is told, only if there is one. */
static bool is_late(const struct tnl_cc *c, uint64_t rtt, uint64_t now)
{
	uint64_t base = base_rtt(c);
	if (is_told(c, now) && queue_of_now(c) <= queue_goal(c))
		return false;
	return rtt > base && rtt - base > queue_goal(c) + base / 16;
}

/* rate = bytes that arrived between this message's sending and its ack, over
 * the longer of the times in which they were sent and in which they arrived.
 *
 * A source that has less to send than the path would carry says nothing about
 * the path, unless it nevertheless made a queue: then the path was full (a
 * stream's window, say, can be what limits the sender, and still be too much). */
static void rate_sample(struct tnl_cc *c, const struct tnl_cc_snap *s, uint64_t sent_at, uint64_t rtt, uint64_t now)
{
	uint64_t send_el = sent_at - s->first_sent, ack_el = now - s->delivered_at;
	uint64_t el = TNL_MAX(send_el, ack_el), amount = c->arrived.bytes - s->delivered;
	el = TNL_MAX(el, 1000u);
	uint64_t rate = (uint64_t)((double)amount * 1e9 / (double)el);
	bool full = !s->app_limited || (amount >= BULK && is_late(c, rtt, now));
	if (!full && rate < tnl_cc_rate(c))
		return;
	uint64_t ten = c->base.rtt == UINT64_MAX ? 0 : 10 * c->base.rtt, span = TNL_MAX(ten, RATE_WINDOW);
	max_add(&c->rate.recent, rate, span / TNL_CC_SLOTS, now);
	if (full)
		c->rate.known = true;
}

/* What arrives beyond the steady rate since the acks last fell behind it: how
 * bunched acks are.  Bunches come from schedulers, not from queues.
 * extra = bytes − rate × time − rate × 2 ms, at most rate × max(base / 2, 12 ms). */
static void note_bunch(struct tnl_cc *c, size_t len, uint64_t now)
{
	uint64_t expect = bytes_in(tnl_cc_rate(c), now - c->bunch.at);
	if (c->bunch.bytes <= expect) {
		c->bunch.at = now;
		c->bunch.bytes = expect = 0;
	}
	c->bunch.bytes += len;
	uint64_t extra = c->bunch.bytes - expect, smooth = bytes_in(tnl_cc_rate(c), EXTRA_FREE);
	extra = extra > smooth ? extra - smooth : 0;
	/* TCP that repairs a loss holds back what is behind it for a round trip: half of that is allowed for. */
	uint64_t longest = TNL_MAX(base_rtt(c) / 2, EXTRA_MAX);
	uint64_t most = bytes_in(tnl_cc_rate(c), longest);
	max_add(&c->bunch.extra, TNL_MIN(extra, most), RATE_WINDOW / TNL_CC_SLOTS, now);
}

/* The window of half a round trip: what stands in the queue drains meanwhile. */
static void start_probe(struct tnl_cc *c, uint64_t now)
{
	c->state = TNL_CC_PROBE;
	c->probe.window_before = c->window;
	c->probe.mark = UINT64_MAX;
	c->probe.min_rtt = UINT64_MAX;
	c->probe.at = c->probe.last = now;
	c->steady.stuck = 0;
	size_t w = (size_t)bytes_in(tnl_cc_rate(c), base_rtt(c) / 2);
	c->window = TNL_MIN(TNL_MAX(w, TNL_CC_MIN), c->probe.window_before);
}

/* The window is kept small until the queue has drained and a few messages that
 * met none have come back. */
static void probe_sample(struct tnl_cc *c, const struct tnl_cc_snap *s, uint64_t rtt, size_t inflight, uint64_t now)
{
	if (c->probe.mark == UINT64_MAX && inflight <= c->window)
		c->probe.mark = c->arrived.bytes;
	bool fresh = c->probe.mark != UINT64_MAX && s->delivered >= c->probe.mark;
	if (fresh && rtt && rtt < c->probe.min_rtt)
		c->probe.min_rtt = rtt;
	bool late = now - c->probe.at > 2 * (uint64_t)SEC;
	if (!late && !(fresh && s->delivered > c->probe.mark + c->window / 2))
		return;
	bool old = now - c->base.at > TNL_CC_MIN_RTT_LIFE;
	if (c->probe.min_rtt != UINT64_MAX) {
		c->base.allow = old ? 0 : c->probe.min_rtt - c->base.rtt;
		if (old)
			c->base.rtt = c->probe.min_rtt;
	}
	if (old)
		c->base.at = now;
	c->state = TNL_CC_STEADY;
	c->steady.hold = 2;
	c->window = 0;
	set_window(c, c->probe.window_before, now);
}

/* The least, kept alive by whatever comes within a sixteenth and 50 µs of it. */
static void rtt_sample(struct tnl_cc *c, uint64_t rtt, uint64_t now)
{
	if (rtt < c->base.rtt) {
		c->base.rtt = rtt;
		c->base.at = now;
	} else if (rtt <= c->base.rtt + c->base.rtt / 16 + MS / 20) {
		c->base.at = now;
	} else if (now - c->base.at > TNL_CC_MIN_RTT_LIFE && c->arrived.app_limited) {
		c->base.rtt = rtt; /* no queue of ours: the path has become longer */
		c->base.at = now;
	}
	c->round.min_rtt = TNL_MIN(c->round.min_rtt, rtt);
}

/* Three rounds without a quarter more: the path is full. Where the queue is told, two that show one are enough, and
 * none are without one. */
static void startup_round(struct tnl_cc *c, uint64_t round_rate, uint64_t now)
{
	bool told = is_told(c, now);
	uint64_t rate = told ? round_rate : tnl_cc_rate(c); /* the best of long ago hides what grows now */
	if (!c->rate.known || !(c->round.limited || (told && c->arrived.bytes - c->round.from >= BULK)))
		return;
	bool grows = rate > c->startup.rate + c->startup.rate / 4;
	if (grows)
		c->startup.rate = rate;
	if (grows || (told && startup_queue(c, now) <= most_queue(c, now)))
		c->startup.slow_rounds = c->startup.late_acks = 0;
	else if (++c->startup.slow_rounds >= (told ? 2u : 3u))
		leave_startup(c, now);
}

/* What was allowed for and does not show any more is taken back by and by. */
static void shrink_allowance(struct tnl_cc *c, uint64_t now)
{
	uint64_t delay = c->round.min_rtt > c->base.rtt ? c->round.min_rtt - c->base.rtt : 0;
	if (tnl_cc_repairs(c, now))
		c->base.allow = 0;
	else if (delay < c->base.allow)
		c->base.allow -= (c->base.allow - delay) / 16;
}

/* The path may carry more: ask in growing steps. Where losses are repaired a round takes long, and each asks for more.
 */
static void grow_window(struct tnl_cc *c, size_t step, uint64_t now)
{
	bool hurry = tnl_cc_repairs(c, now);
	step <<= c->steady.grow;
	if (hurry && c->steady.grow)
		step = TNL_MAX(step, c->window / 8);
	set_window(c, c->window + TNL_MIN(step, c->window / (hurry ? 4 : 8)), now);
	if (++c->steady.grow > (hurry ? GROW_STARTUP / 2 : GROW_STARTUP))
		enter_startup(c);
}

/* Once in two rounds, since a change shows one round later: less when the
 * least round trip shows more queue than allowed, more when it shows hardly any. */
static void steady_round(struct tnl_cc *c, uint64_t round_rate, uint64_t now)
{
	if (c->round.min_rtt == UINT64_MAX || (!c->round.limited && c->arrived.bytes - c->round.from < BULK))
		return;
	shrink_allowance(c, now);
	uint64_t q = round_queue(c, c->base.allow, now), goal = most_queue(c, now);
	c->steady.stuck = q > goal ? c->steady.stuck + 1 : c->steady.stuck / 2;
	bool old = now - c->base.at > TNL_CC_MIN_RTT_LIFE;
	if ((old || c->steady.stuck >= STUCK_ROUNDS) && now - c->probe.last > SEC + 20 * base_rtt(c)) {
		start_probe(c, now);
		return;
	}
	if (c->steady.hold) {
		c->steady.hold--;
		return;
	}
	c->steady.hold = 1;
	uint64_t rate = TNL_MIN(round_rate, tnl_cc_rate(c));
	if (q > goal) {
		cut_window(c, bytes_in(rate, q - goal * 3 / 4), now);
		c->steady.grow = 0;
	} else if (q < goal / 2 && c->round.limited) { /* no queue although the window was full */
		grow_window(c, (size_t)bytes_in(rate, goal * 3 / 4 - q), now);
	} else {
		c->steady.grow = 0;
		set_window(c, c->window, now);
	}
}

/* One byte more for each that arrives: doubled each round trip. Where TCP repairs losses a round takes several round
 * trips, and TCP has to be kept from running dry while it finds its own rate: more. None where a queue already grows.
 */
static size_t startup_step(const struct tnl_cc *c, size_t len, uint64_t now)
{
	uint64_t base = base_rtt(c), queue = queue_of_now(c);
	if (!is_told(c, now))
		return len;
	if (tnl_cc_repairs(c, now))
		return queue <= REPAIR_QUEUE * base ? REPAIR_GROWTH * len : 0;
	return queue > queue_goal(c) + base / 4 ? 0 : len;
}

static void startup_ack(struct tnl_cc *c, const struct tnl_cc_snap *s, size_t len, uint64_t rtt, uint64_t now)
{
	if (c->round.limited && c->window < c->window_max && c->window / 2 <= c->round.flight)
		c->window = TNL_MIN(c->window + startup_step(c, len, now), c->window_max);
	/* The first messages go out as one burst and queue behind themselves, and TCP below starts slowly too:
	 * as long as the rate still grows, late acks are no sign of a full path. */
	bool late = !is_told(c, now) && s->delivered > 0 && is_late(c, rtt, now);
	c->startup.late_acks = late ? c->startup.late_acks + 1 : 0;
	if (c->startup.late_acks >= LATE_ACKS && c->rate.known &&
	    tnl_cc_rate(c) <= c->startup.rate + c->startup.rate / 4)
		leave_startup(c, now);
}

static void end_round(struct tnl_cc *c, size_t inflight, uint64_t now)
{
	uint64_t bytes = c->arrived.bytes - c->round.from, el = now - c->round.at;
	uint64_t rate = el ? (uint64_t)((double)bytes * 1e9 / (double)el) : tnl_cc_rate(c);
	if (c->state == TNL_CC_STARTUP)
		startup_round(c, rate, now);
	else if (c->state == TNL_CC_STEADY)
		steady_round(c, rate, now);
	c->round = (struct tnl_cc_round){.end = c->arrived.bytes,
					 .from = c->arrived.bytes,
					 .at = now,
					 .min_rtt = UINT64_MAX,
					 .queue = UINT64_MAX,
					 .flight = inflight};
}

void tnl_cc_acked(struct tnl_cc *c, const struct tnl_cc_snap *s, uint64_t sent_at, size_t len, uint64_t rtt,
		  size_t inflight, uint64_t now)
{
	c->arrived.bytes += len;
	if (c->arrived.app_limited && c->arrived.bytes > c->arrived.app_limited)
		c->arrived.app_limited = 0;
	rate_sample(c, s, sent_at, rtt, now);
	c->arrived.at = now;
	c->arrived.first_sent = sent_at;
	if (rtt)
		rtt_sample(c, rtt, now);
	if (c->state == TNL_CC_PROBE)
		probe_sample(c, s, rtt, inflight, now);
	else if (c->state == TNL_CC_STARTUP)
		startup_ack(c, s, len, rtt, now);
	else
		note_bunch(c, len, now);
	if (s->delivered >= c->round.end)
		end_round(c, inflight, now);
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
	uint64_t tat = TNL_MAX(b->tat, now);
	return (unsigned)((now + b->tolerance - tat) / b->interval + 1);
}

void tnl_bucket_take(struct tnl_bucket *b, uint64_t now)
{
	if (b->interval)
		b->tat = TNL_MAX(b->tat, now) + b->interval;
}
