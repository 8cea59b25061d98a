#include "lib/recvq.h"
#include "lib/alloc.h"
#include <string.h>

#define RING_FIRST 64u
#define ACKS_FIRST 64u

void tnl_recvq_init(struct tnl_recvq *q)
{
	memset(q, 0, sizeof(*q));
}

void tnl_recvq_fini(struct tnl_recvq *q, struct tnl_mpool *pool)
{
	for (uint32_t i = 0; i < q->ring_size; i++)
		tnl_mpool_put(pool, q->ring[i]);
	tnl_free(q->ring);
	tnl_recvq_init(q);
}

void tnl_recvq_shrink(struct tnl_recvq *q)
{
	tnl_free(q->ring);
	q->ring = NULL;
	q->ring_size = 0;
}

struct tnl_mbuf *tnl_recvq_find(const struct tnl_recvq *q, int64_t seq)
{
	if (!q->count || seq < q->expected || (uint64_t)(seq - q->expected) >= q->ring_size)
		return NULL;
	return q->ring[seq & (q->ring_size - 1)];
}

static int grow_ring(struct tnl_recvq *q, uint64_t span)
{
	uint32_t size = q->ring_size ? q->ring_size : RING_FIRST;
	while (size <= span)
		size *= 2;
	if (size == q->ring_size)
		return 0;
	struct tnl_mbuf **ring = tnl_calloc(size, sizeof(*ring));
	if (!ring)
		return TNL_ENOMEM;
	for (uint32_t i = 0; i < q->ring_size; i++)
		if (q->ring[i])
			ring[q->ring[i]->seq & (size - 1)] = q->ring[i];
	tnl_free(q->ring);
	q->ring = ring;
	q->ring_size = size;
	return 0;
}

int tnl_recvq_keep(struct tnl_recvq *q, struct tnl_mpool *pool, const struct tnl_msg *m, unsigned link, bool owed)
{
	uint64_t span = (uint64_t)(m->seq - q->expected);
	if (span >= TNL_CHANNEL_CAP)
		return TNL_ELIMIT;
	int err = grow_ring(q, span);
	if (err)
		return err;
	struct tnl_mbuf *b = tnl_mpool_get(pool, TNL_MSG_HDR + m->plen);
	if (!b)
		return TNL_ENOMEM;
	if (m->plen)
		memcpy(b->data, m->payload, m->plen);
	b->len = m->plen;
	b->seq = m->seq;
	b->owed = owed;
	b->came_on = (uint8_t)link;
	b->msg = *m;
	b->msg.payload = b->data;
	q->ring[m->seq & (q->ring_size - 1)] = b;
	q->count++;
	q->mem += tnl_mbuf_size(b);
	return 0;
}

void tnl_recvq_drop(struct tnl_recvq *q, struct tnl_mpool *pool, struct tnl_mbuf *b)
{
	q->ring[b->seq & (q->ring_size - 1)] = NULL;
	q->count--;
	q->mem -= tnl_mbuf_size(b);
	tnl_mpool_put(pool, b);
}

void tnl_ackq_init(struct tnl_ackq *q)
{
	memset(q, 0, sizeof(*q));
}

void tnl_ackq_fini(struct tnl_ackq *q)
{
	tnl_free(q->ring);
	tnl_ackq_init(q);
}

bool tnl_ackq_room(struct tnl_ackq *q, uint32_t n)
{
	if (q->count + n <= q->size)
		return true;
	uint32_t size = q->size ? q->size : ACKS_FIRST;
	while (size < q->count + n)
		size *= 2;
	if (size > TNL_ACKQ_MAX)
		return false;
	struct tnl_ackq_entry *ring = tnl_malloc(size * sizeof(*ring));
	if (!ring)
		return false;
	for (uint32_t i = 0; i < q->count; i++)
		ring[i] = q->ring[(q->head + i) & (q->size - 1)];
	tnl_free(q->ring);
	q->ring = ring;
	q->size = size;
	q->head = 0;
	return true;
}

bool tnl_ackq_push(struct tnl_ackq *q, const uint8_t id[16], int64_t seq)
{
	if (!tnl_ackq_room(q, 1))
		return false;
	struct tnl_ackq_entry *e = &q->ring[(q->head + q->count++) & (q->size - 1)];
	memcpy(e->id, id, 16);
	e->seq = seq;
	return true;
}

bool tnl_ackq_pop(struct tnl_ackq *q, struct tnl_ackq_entry *e)
{
	if (!q->count)
		return false;
	*e = q->ring[q->head];
	q->head = (q->head + 1) & (q->size - 1);
	q->count--;
	return true;
}
