/* Send queue of a channel: every message from its commit to its ack, found by
 * number; who was sent when; which ones the acks show to be lost. */
#ifndef TNL_SENDQ_H
#define TNL_SENDQ_H
#include "lib/mbuf.h"
#include "lib/num.h"

struct tnl_sendq {
	struct tnl_mbuf **ring;	       /* by number; NULL where acknowledged */
	uint32_t ring_size;	       /* power of two, or 0 */
	int64_t base, next;	       /* lowest number without ack; next number */
	struct tnl_list fresh, resend; /* not sent yet; to be sent again */
	uint32_t fresh_msgs, flight_msgs, resend_msgs;
	size_t fresh_bytes, flight_bytes, resend_bytes; /* flight: on all links together */
};

/* What went out on one link, which keeps its order: so the evidence of what is lost is the link's own. */
struct tnl_sendq_way {
	struct tnl_list flight; /* by time of sending */
	uint32_t flight_msgs;
	size_t flight_bytes;
	uint64_t order; /* transmissions so far */
	/* Evidence: the latest transmission that is known to have arrived. */
	uint64_t seen_order, seen_at;
	/* The same from an ack that could belong to an earlier copy: believed when nothing contradicts until then. */
	uint64_t maybe_order, maybe_sent, maybe_at; /* maybe_at UINT64_MAX: none */
	uint64_t check_at;			    /* when the oldest doubtful one is late enough; UINT64_MAX: none */
	unsigned threshold;			    /* later transmissions that prove a hole; grows when it was wrong */
};

void tnl_sendq_init(struct tnl_sendq *q);
void tnl_sendq_way_init(struct tnl_sendq_way *w);
void tnl_sendq_fini(struct tnl_sendq *q, struct tnl_mpool *pool);
void tnl_sendq_shrink(struct tnl_sendq *q);		     /* when empty: gives the ring back */
size_t tnl_sendq_heap(const struct tnl_sendq *q);	     /* bytes of the ring */
int tnl_sendq_make_room(struct tnl_sendq *q) TNL_MUST_USE;   /* for one more: 0, TNL_ELIMIT, TNL_ENOMEM */
void tnl_sendq_add(struct tnl_sendq *q, struct tnl_mbuf *m); /* after make_room; gives it the next number */
struct tnl_mbuf *tnl_sendq_head(const struct tnl_sendq *q);  /* what to send next, or NULL */
void tnl_sendq_sent(struct tnl_sendq *q, struct tnl_sendq_way *w, struct tnl_mbuf *m, uint64_t now);
struct tnl_mbuf *tnl_sendq_find(const struct tnl_sendq *q, int64_t seq); /* NULL: not in the queue (any more) */
/* Takes an acknowledged one out; the caller returns it to the pool. */
void tnl_sendq_remove(struct tnl_sendq *q, struct tnl_mbuf *m);
void tnl_sendq_lost(struct tnl_sendq *q, struct tnl_mbuf *m); /* flight → resend */
/* All that was sent, in order of number; no way is under it any more. */
void tnl_sendq_all_lost(struct tnl_sendq *q);
/* What is in flight on one link joins what is to be sent again, in order of number; does not count as a resend. */
void tnl_sendq_way_lost(struct tnl_sendq *q, struct tnl_sendq_way *w);
void tnl_sendq_way_gone(struct tnl_sendq *q, struct tnl_sendq_way *w); /* the same, and nothing refers to w any more */

/* Evidence from the ack of m (still in the queue, last sent on w): call before remove, then detect. */
struct tnl_sendq_times {
	uint64_t srtt;
	uint64_t least;	   /* no ack can come sooner after a message was sent; 0: not known */
	uint64_t patience; /* so much later than usual is no sign of a loss */
};
void tnl_sendq_evidence(struct tnl_sendq_way *w, const struct tnl_mbuf *m, const struct tnl_sendq_times *t,
			uint64_t now);
/* Moves what must be lost to the resend list; returns how many. rto: for repeats. */
unsigned tnl_sendq_detect(struct tnl_sendq *q, struct tnl_sendq_way *w, uint64_t srtt, uint64_t rto, uint64_t now);
static inline uint64_t tnl_sendq_deadline(const struct tnl_sendq_way *w)
{
	return TNL_MIN(w->maybe_at, w->check_at);
}

#endif
