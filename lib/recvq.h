/* Receiving half of a channel: the next number expected, what came early, and
 * the acks that wait to be sent. */
#ifndef TNL_RECVQ_H
#define TNL_RECVQ_H
#include "lib/mbuf.h"

struct tnl_recvq {
	struct tnl_mbuf **ring; /* early ones by number */
	uint32_t ring_size;	/* power of two, or 0 */
	uint32_t count;
	int64_t expected;
	size_t mem; /* what the kept ones count */
};

void tnl_recvq_init(struct tnl_recvq *q);
void tnl_recvq_fini(struct tnl_recvq *q, struct tnl_mpool *pool);
void tnl_recvq_shrink(struct tnl_recvq *q); /* when empty: gives the ring back */
static inline size_t tnl_recvq_heap(const struct tnl_recvq *q)
{
	return q->ring_size * sizeof(*q->ring);
}
struct tnl_mbuf *tnl_recvq_find(const struct tnl_recvq *q, int64_t seq);
/* Copies and keeps a message (expected ≤ seq < expected + cap, not kept yet): 0, TNL_ELIMIT, TNL_ENOMEM. */
int tnl_recvq_keep(struct tnl_recvq *q, struct tnl_mpool *pool, const struct tnl_msg *m, unsigned link,
		   bool owed) TNL_MUST_USE;
void tnl_recvq_drop(struct tnl_recvq *q, struct tnl_mpool *pool, struct tnl_mbuf *b);

/* Acks to be sent, in order. */
struct tnl_ackq_entry {
	uint8_t id[16];
	int64_t seq;
};
struct tnl_ackq {
	struct tnl_ackq_entry *ring;
	uint32_t size, head, count;
};
#define TNL_ACKQ_MAX 16384u

void tnl_ackq_init(struct tnl_ackq *q);
void tnl_ackq_fini(struct tnl_ackq *q);
static inline size_t tnl_ackq_heap(const struct tnl_ackq *q)
{
	return q->size * sizeof(*q->ring);
}
/* False when it is full or memory is short: the message must then not count as acknowledged. */
bool tnl_ackq_push(struct tnl_ackq *q, const uint8_t id[16], int64_t seq);
bool tnl_ackq_room(struct tnl_ackq *q, uint32_t n);
bool tnl_ackq_pop(struct tnl_ackq *q, struct tnl_ackq_entry *e);

#endif
