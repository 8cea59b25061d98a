/* Inside of a channel, shared by its parts: channel.c (producing, to the links),
 * channel_in.c (from the links, time) and channel_link.c (links come, go, stall). */
#ifndef TNL_CHANNEL_INTERNAL_H
#define TNL_CHANNEL_INTERNAL_H
#include "lib/channel.h"
#include "lib/recvq.h"
#include "lib/rto.h"
#include "lib/sendq.h"

#define TNL_PROOFS 4u		     /* a copy a second at most: round trips of so many seconds are known again */
#define TNL_CHANNEL_TICK 1000000000u /* spare memory that was not used for so long is given back */

/* One of the links: a path of its own, with its window, its timer and its evidence. */
struct tnl_chlink {
	struct tnl_sendq_way way; /* what is in flight on it */
	unsigned index, rank;
	struct tnl_rto rto; /* backoff: it has not answered so often in a row */
	struct tnl_cc cc;
	bool stalled;	      /* what was on it has gone to others: it has to prove that it lives */
	bool behind;	      /* another would bring a message sooner, though it has to wait for its pace */
	uint64_t rto_start;   /* the timer runs from here while anything is in flight */
	uint64_t progress_at; /* of the latest ack of what it carried */
	uint64_t proof_at;    /* when to ask it for a proof of life; UINT64_MAX: not now */
	bool proof_due;
	int64_t proof[TNL_PROOFS]; /* numbers of the latest copies that were sent for that; -1: none */
	uint64_t sent, stalls;
};

struct tnl_channel {
	struct tnl_channel_config cfg;
	struct tnl_mpool pool;
	struct tnl_sendq sendq;
	struct tnl_recvq recvq;
	struct tnl_chlink first;		/* link 0, there from the beginning */
	struct tnl_chlink *link[TNL_LINKS_MAX]; /* NULL: has not come, but the first */
	unsigned up;				/* bit mask of those that are up */
	struct tnl_ackq ackq[TNL_LINKS_MAX];	/* acks go back on the link on which their message came, */
	unsigned acks;				/* all together */
	uint64_t acks_since[TNL_LINKS_MAX];	/* but those that wait since then for longer than a moment */
	unsigned acks_free;			/* on any (bit mask) */
	struct tnl_list unnumbered;
	struct tnl_mbuf *reserved, *pulled;
	struct tnl_bucket bucket;
	size_t max_payload;
	size_t send_mem; /* what reserved and unacknowledged messages count */
	bool paused, narrow, alone;
	enum tnl_digest digest;
	bool ask_hop;		    /* our acks ask what stands before the hop to us */
	uint64_t sample_from;	    /* what was sent earlier gives no round-trip sample */
	uint64_t token_at, tick_at; /* UINT64_MAX: not armed */
	struct tnl_channel_stats st;
	uint8_t ack[TNL_MSG_HDR + TNL_ACK_MAX];
};

/* Room under the memory maximum for one more received message of `len` bytes. */
bool tnl_channel_recv_fits(const struct tnl_channel *ch, size_t len);
void tnl_channel_make_way(struct tnl_channel *ch, size_t len); /* spare buffers give way to one of `len` bytes */
/* Bytes for one direction when the other holds so many. */
size_t tnl_channel_share(const struct tnl_channel *ch, size_t other);

/* Runs over the links that are up. */
#define TNL_EACH_LINK(ch, l)                                                                                           \
	for (unsigned l##_m = (ch)->up; l##_m && ((l) = (ch)->link[__builtin_ctz(l##_m)], true); l##_m &= l##_m - 1)

/* --- channel_link.c --- */
void tnl_chlink_init(struct tnl_channel *ch, struct tnl_chlink *l, unsigned index, unsigned rank, uint64_t now);
uint64_t tnl_chlink_best_rate(const struct tnl_channel *ch); /* of all that carry numbered messages, bytes/s */
/* May it carry numbered messages? Not while a better one is there: one that answers, or of a lower rank. */
bool tnl_chlink_carries(const struct tnl_channel *ch, const struct tnl_chlink *l);
/* Is this the number of a copy that it got as a question? */
bool tnl_chlink_asked(const struct tnl_chlink *l, int64_t seq);
/* An ack came for what it carried: it lives. */
void tnl_chlink_answered(struct tnl_channel *ch, struct tnl_chlink *l, uint64_t now);
/* This one is good now, or new: those in doubt are to prove that they live. */
void tnl_chlink_ask_others(struct tnl_channel *ch, const struct tnl_chlink *good, uint64_t now);
uint64_t tnl_chlink_rto_at(const struct tnl_chlink *l);
uint64_t tnl_chlink_deadline(const struct tnl_channel *ch, const struct tnl_chlink *l);
/* Its timer ran out while others go: it carries nothing more until it answers. false: it is not the link. */
bool tnl_chlink_stall(struct tnl_channel *ch, struct tnl_chlink *l, uint64_t since, uint64_t now);
/* A copy of the oldest message for a link that has to prove that it lives; NULL: none is due. */
struct tnl_mbuf *tnl_chlink_proof(struct tnl_channel *ch, struct tnl_chlink *l, uint64_t now);
/* Acks: queued for the link on which the message came; the next for this one. */
bool tnl_channel_ack_push(struct tnl_channel *ch, unsigned link, const uint8_t id[16], int64_t seq, uint64_t now);
bool tnl_channel_ack_pop(struct tnl_channel *ch, unsigned link, struct tnl_ackq_entry *e);
bool tnl_channel_ack_waits(const struct tnl_channel *ch, unsigned link);
void tnl_channel_acks_expire(struct tnl_channel *ch, uint64_t now);
uint64_t tnl_channel_acks_deadline(const struct tnl_channel *ch);
size_t tnl_channel_acks_heap(const struct tnl_channel *ch);

static inline void tnl_channel_arm_tick(struct tnl_channel *ch, uint64_t now)
{
	if (ch->tick_at == UINT64_MAX)
		ch->tick_at = now + TNL_CHANNEL_TICK;
}

#endif
