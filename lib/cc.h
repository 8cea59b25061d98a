/* Congestion window and message rate (docs/reliability.md "How much is in flight").
 * Below us is TCP, which neither loses nor reorders: what this controls is the
 * queue that a bulk transfer builds in front of everything else.  Times in ns. */
#ifndef TNL_CC_H
#define TNL_CC_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TNL_CC_QUEUE 3000000u /* queueing delay that a bulk transfer may cause: 3 ms */
#define TNL_CC_INITIAL (32u * 1024)
#define TNL_CC_MIN (4u * 1024)
#define TNL_CC_MIN_RTT_LIFE 10000000000u /* after 10 s without a sample near it the minimum is measured anew */

/* State at the time of sending, kept with each message. */
struct tnl_cc_snap {
	uint64_t delivered, delivered_at, first_sent;
	bool app_limited;
};

#define TNL_CC_SLOTS 8u
struct tnl_cc_max {
	uint64_t slot[TNL_CC_SLOTS], start, best;
	unsigned cur;
}; /* maximum over a sliding time */

enum tnl_cc_state { TNL_CC_STARTUP, TNL_CC_STEADY, TNL_CC_PROBE };

struct tnl_cc {
	enum tnl_cc_state state;
	size_t cwnd, cwnd_max;
	bool limited; /* the window stopped the sender in this round */
	uint64_t delivered, delivered_at, first_sent;
	uint64_t app_limited;	      /* samples are app-limited until `delivered` passes this; 0: no */
	uint64_t min_rtt, min_rtt_at; /* min_rtt UINT64_MAX: not known */
	uint64_t allow;		      /* delay under load that is not our queue: a probe showed that it stays */
	struct tnl_cc_max rate, extra;
	uint64_t max_rate, max_extra;			 /* cached maxima; max_rate 0: not known */
	bool rate_known;				 /* max_rate comes from a sender that had enough to send */
	uint64_t round, round_end, round_at, round_from; /* number; delivered mark; its start: time, delivered */
	uint64_t round_min_rtt;
	unsigned slow_rounds, late_acks, grow, hold, stuck;
	uint64_t full_rate;		/* startup: best rate so far */
	uint64_t epoch_at, epoch_bytes; /* acks that come in bunches */
	uint64_t probe_mark, probe_at, probe_min, last_probe;
	size_t saved_cwnd;
	uint64_t pace_at; /* when what was sent will have left at the pace */
};

void tnl_cc_init(struct tnl_cc *c, size_t cwnd_max, uint64_t now);
void tnl_cc_sent(struct tnl_cc *c, struct tnl_cc_snap *s, size_t len, size_t inflight,
		 uint64_t now); /* inflight before it */
/* rtt 0: no valid sample (resent, paused meanwhile). inflight: after it. */
void tnl_cc_acked(struct tnl_cc *c, const struct tnl_cc_snap *s, uint64_t sent_at, size_t len, uint64_t rtt,
		  size_t inflight, uint64_t now);
void tnl_cc_idle(struct tnl_cc *c, size_t inflight); /* nothing to send although the window is open */
static inline void tnl_cc_limited(struct tnl_cc *c)
{
	c->limited = true;
}
/* When one more message may go behind `queued` bytes: 0 for now. On paths of 2 ms and more, bursts are spread out. */
uint64_t tnl_cc_pace(const struct tnl_cc *c, size_t queued, uint64_t now);
size_t tnl_cc_size(const struct tnl_cc *c); /* bytes that take some 1.5 ms; 0: not known */

/* At most `rate` messages in any second: a bucket of a twentieth, refilled at 19/20 of the rate. */
struct tnl_bucket {
	uint64_t interval, tolerance, tat;
}; /* interval 0: no limit */
void tnl_bucket_init(struct tnl_bucket *b, unsigned rate);
unsigned tnl_bucket_left(const struct tnl_bucket *b, uint64_t now); /* messages that may go now; UINT_MAX: no limit */
void tnl_bucket_take(struct tnl_bucket *b, uint64_t now);
static inline uint64_t tnl_bucket_at(const struct tnl_bucket *b) /* when the next may go */
{
	return b->tat > b->tolerance ? b->tat - b->tolerance : 0;
}

#endif
