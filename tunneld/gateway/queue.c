/* Whole frames that wait for a link, in chunks; what the chunks take is in the process's memory account. */
#include "tunneld/gateway/internal.h"
#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/num.h"
#include <string.h>

#define CHUNK_LEAST (4u * 1024) /* an end that is not there yet has a few words waiting for it */
#define CHUNK_MOST (60u * 1024) /* less than what malloc maps (td_loop_new): they come and go all the time */

struct gw_chunk {
	struct gw_chunk *next;
	size_t rd, wr, cap;
	uint8_t data[]; /* 4-byte length, frame, … */
};

int gw_queue_put(struct gw_queue *q, const void *p, size_t n)
{
	struct gw_chunk *c = q->last;
	if (!c || c->cap - c->wr < n + 4) {
		size_t cap = TNL_MIN(TNL_MAX(q->held, (size_t)CHUNK_LEAST), (size_t)CHUNK_MOST);
		cap = TNL_MAX(n + 4, cap);
		c = tnl_malloc(sizeof(*c) + cap);
		if (!c)
			return TNL_ENOMEM;
		*c = (struct gw_chunk){.cap = cap};
		if (q->last)
			q->last->next = c;
		else
			q->first = c;
		q->last = c;
		q->held += cap;
		td_memory_change((int64_t)cap);
	}
	tnl_put_be32(c->data + c->wr, (uint32_t)n);
	memcpy(c->data + c->wr + 4, p, n);
	c->wr += n + 4;
	q->bytes += n;
	q->frames++;
	return 0;
}

const uint8_t *gw_queue_peek(struct gw_queue *q, size_t *n)
{
	if (!q->frames)
		return NULL;
	*n = tnl_get_be32(q->first->data + q->first->rd);
	return q->first->data + q->first->rd + 4;
}

static void drop_first_chunk(struct gw_queue *q)
{
	struct gw_chunk *c = q->first;
	q->first = c->next;
	if (!q->first)
		q->last = NULL;
	q->held -= c->cap;
	td_memory_change(-(int64_t)c->cap);
	tnl_free(c);
}

void gw_queue_pop(struct gw_queue *q)
{
	struct gw_chunk *c = q->first;
	size_t n = tnl_get_be32(c->data + c->rd);
	c->rd += n + 4;
	q->bytes -= n;
	q->frames--;
	if (c->rd == c->wr)
		drop_first_chunk(q);
}

void gw_queue_clear(struct gw_queue *q)
{
	while (q->first)
		drop_first_chunk(q);
	*q = (struct gw_queue){0};
}
