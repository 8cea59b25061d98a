/* Congestion window and message rate (docs/reliability.md "How much is in flight").
 * Below us is TCP, which neither loses nor reorders: what this controls is the
 * queue that a bulk transfer builds in front of everything else.  Times in ns. */
#ifndef TNL_CC_H
#define TNL_CC_H
#include "lib/message.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TNL_CC_QUEUE 3000000u /* queueing delay that a bulk transfer may cause: 3 ms */
#define TNL_CC_INITIAL (32u * 1024)
#define TNL_CC_MIN (4u * 1024)
#define TNL_CC_MIN_RTT_LIFE 10000000000u /* after 10 s without a sample near it the minimum is measured anew */

/* What had arrived at the time of sending, kept with each message. */
struct tnl_cc_snap {
	uint64_t delivered, delivered_at, first_sent;
	bool app_limited;
};

#define TNL_CC_SLOTS 8u
struct tnl_cc_max { /* maximum over a sliding time, in steps of an eighth of it */
	uint64_t slot[TNL_CC_SLOTS], start, best;
	unsigned cur;
};

/* What has arrived, and when: a rate is taken over the spans between two such states. */
struct tnl_cc_arrival {
	uint64_t bytes, at;   /* in all; when the last did */
	uint64_t first_sent;  /* when that last one was sent */
	uint64_t app_limited; /* samples say nothing about the path until `bytes` passes this; 0: they do */
};

/* Rate of the path: the best of half a second or ten round trips, in bytes/s; 0: not known. */
struct tnl_cc_rate {
	struct tnl_cc_max recent;
	bool known; /* it comes from a sender that had enough to send */
};

/* Round trip of the path without a queue of ours. */
struct tnl_cc_base {
	uint64_t rtt;	/* least that was seen; UINT64_MAX: none */
	uint64_t at;	/* when something came near it */
	uint64_t allow; /* delay under load that is not our queue: a probe showed that it stays */
};

/* Bunching: bytes that arrive beyond the steady rate after a silence, as schedulers cause it. */
struct tnl_cc_bunch {
	struct tnl_cc_max extra;
	uint64_t at, bytes; /* since acks last fell behind the rate */
};

/* The hops on the way as those say who have them in front of them. */
struct tnl_cc_told {
	struct tnl_hop near, far; /* our own link; the one behind the gateway */
	uint64_t far_at;	  /* UINT64_MAX: never told */
	uint64_t repaired_at;	  /* when one of them repaired a loss; 0: never */
};

/* One round: from a message's sending to its ack. Its least round trip shows the queue, its bytes the rate of now. */
struct tnl_cc_round {
	uint64_t end;	   /* it is over when a message sent after so many bytes had arrived is acknowledged */
	uint64_t at, from; /* its start: time, and bytes that had arrived */
	uint64_t min_rtt;  /* UINT64_MAX: no sample */
	uint64_t queue;	   /* least that was told; UINT64_MAX: not told */
	size_t flight;	   /* most that was on its way */
	bool limited;	   /* the window stopped the sender */
};

/* Startup: has the rate stopped growing? */
struct tnl_cc_startup {
	uint64_t rate; /* best so far */
	unsigned slow_rounds, late_acks;
};

/* Steady: where the window goes next. */
struct tnl_cc_steady {
	unsigned grow;	/* steps up in a row: each is twice the one before */
	unsigned hold;	/* rounds to wait for the effect of the last change */
	unsigned stuck; /* rounds of delay in spite of cuts */
};

/* Probe: the window is made small to see what delay is left without a queue of ours. */
struct tnl_cc_probe {
	uint64_t at, last; /* start of this one and of the latest */
	uint64_t mark;	   /* bytes that had arrived when the queue was empty; UINT64_MAX: it is not yet */
	uint64_t min_rtt;  /* least since then; UINT64_MAX: none */
	size_t window_before;
};

enum tnl_cc_state { TNL_CC_STARTUP, TNL_CC_STEADY, TNL_CC_PROBE };

struct tnl_cc {
	enum tnl_cc_state state;
	size_t window, window_max; /* bytes in flight */
	uint64_t pace_at;	   /* when what was sent will have left at the pace */
	struct tnl_cc_arrival arrived;
	struct tnl_cc_rate rate;
	struct tnl_cc_base base;
	struct tnl_cc_bunch bunch;
	struct tnl_cc_told told;
	struct tnl_cc_round round;
	struct tnl_cc_startup startup;
	struct tnl_cc_steady steady;
	struct tnl_cc_probe probe;
	uint64_t hurry_at; /* not before */
};

void tnl_cc_init(struct tnl_cc *c, size_t window_max, uint64_t now);
/* inflight: before it. */
void tnl_cc_sent(struct tnl_cc *c, struct tnl_cc_snap *s, size_t len, size_t inflight, uint64_t now);
/* bytes/s; 0: not known */
static inline uint64_t tnl_cc_rate(const struct tnl_cc *c)
{
	return c->rate.recent.best;
}
/* rtt 0: no valid sample (resent, paused meanwhile). inflight: after it. */
void tnl_cc_acked(struct tnl_cc *c, const struct tnl_cc_snap *s, uint64_t sent_at, size_t len, uint64_t rtt,
		  size_t inflight, uint64_t now);
/* What stands before our own link; and before the next one, from an ack that says so. Where both are known they take
 * the place of what round trips make one guess: data that waits for TCP's repair of a loss is late, and no queue. */
void tnl_cc_near(struct tnl_cc *c, const struct tnl_hop *h, uint64_t now);
void tnl_cc_far(struct tnl_cc *c, const struct tnl_hop *h, uint64_t now);
/* No ack comes sooner; 0: not known. */
uint64_t tnl_cc_least(const struct tnl_cc *c);
/* So much later than usual, in ns, may be no loss but a queue or a repair by TCP, as we are told. */
uint64_t tnl_cc_patience(const struct tnl_cc *c, uint64_t now);
bool tnl_cc_is_long(const struct tnl_cc *c);			 /* 2 ms there and back at least */
bool tnl_cc_repairs(const struct tnl_cc *c, uint64_t now);	 /* TCP on the way repairs losses, as we are told */
uint64_t tnl_cc_told_base(const struct tnl_cc *c, uint64_t now); /* the least round trip; 0: queues are not told */
bool tnl_cc_is_free(const struct tnl_cc *c, uint64_t now);	 /* nothing stands on its way, as we are told */
/* Others beside it carry much more: when nothing stands on its way it starts again, once a second. */
void tnl_cc_hurry(struct tnl_cc *c, uint64_t now);
bool tnl_cc_is_full(const struct tnl_cc *c,
		    uint64_t now);		     /* a queue stands on one of the hops itself, as we are told */
void tnl_cc_idle(struct tnl_cc *c, size_t inflight); /* nothing to send although the window is open */
static inline void tnl_cc_limited(struct tnl_cc *c)
{
	c->round.limited = true;
}
/* When one more message may go behind `queued` bytes: 0 for now. On paths of 2 ms and more, bursts are spread out. */
uint64_t tnl_cc_pace(const struct tnl_cc *c, size_t queued, uint64_t now);
size_t tnl_cc_size(const struct tnl_cc *c); /* bytes that take some 1.5 ms; 0: not known */

/* At most `rate` messages in any second: a bucket of a twentieth, refilled at 19/20 of the rate. */
struct tnl_bucket {
	uint64_t interval, tolerance, tat; /* interval 0: no limit; tat: when the bucket will be full again */
};
void tnl_bucket_init(struct tnl_bucket *b, unsigned rate);
unsigned tnl_bucket_left(const struct tnl_bucket *b, uint64_t now); /* messages that may go now; UINT_MAX: no limit */
void tnl_bucket_take(struct tnl_bucket *b, uint64_t now);
/* When the next may go. */
static inline uint64_t tnl_bucket_at(const struct tnl_bucket *b)
{
	return b->tat > b->tolerance ? b->tat - b->tolerance : 0;
}

#endif
