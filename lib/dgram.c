/* The queue is a list of datagrams with their lengths in front, as they go on the stream.  The reader hands a datagram
 * out where it lies when it came in one piece, and puts it together when it did not. */
#include "lib/dgram.h"

#include "lib/alloc.h"
#include "lib/num.h"

#include <string.h>

struct node {
	struct tnl_list node;
	size_t len; /* of b */
	uint8_t b[];
};

static struct node *first_of(const struct tnl_dgramq *q)
{
	return tnl_container_of(q->list.next, struct node, node);
}

static size_t cost(const struct node *d)
{
	return d->len - TNL_DGRAM_HDR + TNL_DGRAM_COST;
}

void tnl_dgramq_init(struct tnl_dgramq *q, size_t limit)
{
	*q = (struct tnl_dgramq){.limit = limit};
	tnl_list_init(&q->list);
}

static void remove_node(struct tnl_dgramq *q, struct node *d)
{
	q->count--;
	q->bytes -= cost(d);
	tnl_list_remove(&d->node);
	tnl_free(d);
}

bool tnl_dgramq_drop(struct tnl_dgramq *q)
{
	struct tnl_list *oldest = q->gone ? q->list.next->next : q->list.next;
	if (oldest == &q->list)
		return false;
	remove_node(q, tnl_container_of(oldest, struct node, node));
	q->dropped++;
	return true;
}

/* Room for n more, at the cost of the oldest. */
static void make_room(struct tnl_dgramq *q, size_t n)
{
	while (q->bytes + n > q->limit && tnl_dgramq_drop(q))
		;
}

void tnl_dgramq_push(struct tnl_dgramq *q, const void *p, size_t n)
{
	struct node *d = n <= TNL_DGRAM_MAX ? tnl_malloc(sizeof(*d) + TNL_DGRAM_HDR + n) : NULL;

	if (!d) {
		q->dropped++;
		return;
	}
	d->len = TNL_DGRAM_HDR + n;
	d->b[0] = (uint8_t)(n >> 8);
	d->b[1] = (uint8_t)n;
	if (n)
		memcpy(d->b + TNL_DGRAM_HDR, p, n);
	make_room(q, cost(d));
	q->count++;
	q->bytes += cost(d);
	tnl_list_push_back(&q->list, &d->node);
}

size_t tnl_dgramq_pull(struct tnl_dgramq *q, uint8_t *out, size_t cap)
{
	size_t done = 0;

	while (done < cap && q->count) {
		struct node *d = first_of(q);
		size_t n = TNL_MIN(cap - done, d->len - q->gone);
		memcpy(out + done, d->b + q->gone, n);
		done += n;
		q->gone += n;
		if (q->gone == d->len) {
			q->gone = 0;
			remove_node(q, d);
		}
	}
	return done;
}

const uint8_t *tnl_dgramq_first(const struct tnl_dgramq *q, size_t *n)
{
	if (!q->count)
		return NULL;
	*n = first_of(q)->len - TNL_DGRAM_HDR;
	return first_of(q)->b + TNL_DGRAM_HDR;
}

void tnl_dgramq_pop(struct tnl_dgramq *q)
{
	remove_node(q, first_of(q));
}

void tnl_dgramq_clear(struct tnl_dgramq *q)
{
	while (q->count)
		remove_node(q, first_of(q));
	q->gone = 0;
}

/* --- reading ------------------------------------------------------------------------------------ */

static size_t length_of(const uint8_t len[TNL_DGRAM_HDR])
{
	return (size_t)len[0] << 8 | len[1];
}

/* 1: the length is known. */
static int read_length(struct tnl_dgram_reader *r, const uint8_t *p, size_t n, size_t *used)
{
	while (r->have < TNL_DGRAM_HDR && *used < n)
		r->len[r->have++] = p[(*used)++];
	if (r->have < TNL_DGRAM_HDR)
		return 0;
	return length_of(r->len) > TNL_DGRAM_MAX ? TNL_ESYNTAX : 1;
}

/* Of one that comes in parts: what is there, or the rest of it. 1: it is whole. */
static int read_part(struct tnl_dgram_reader *r, const uint8_t *p, size_t n, size_t *used)
{
	size_t whole = TNL_DGRAM_HDR + length_of(r->len), take = TNL_MIN(n - *used, whole - r->have);

	if (r->have == TNL_DGRAM_HDR && take) {
		r->b = r->full ? NULL : tnl_malloc(length_of(r->len));
		r->skips = !r->b;
	}
	if (r->b)
		memcpy(r->b + r->have - TNL_DGRAM_HDR, p + *used, take);
	*used += take;
	r->have += take;
	if (r->have < whole)
		return 0;
	if (!r->skips)
		return 1;
	r->skipped++;
	r->have = 0;
	return 0;
}

void tnl_dgram_done(struct tnl_dgram_reader *r)
{
	if (!r->b || r->have < TNL_DGRAM_HDR + length_of(r->len))
		return;
	tnl_free(r->b);
	r->b = NULL;
	r->have = 0;
}

int tnl_dgram_read(struct tnl_dgram_reader *r, const uint8_t *p, size_t n, size_t *used, const uint8_t **d, size_t *dn)
{
	*used = 0;
	tnl_dgram_done(r);
	int rc = read_length(r, p, n, used);
	if (rc <= 0)
		return rc;
	*dn = length_of(r->len);
	if (r->have == TNL_DGRAM_HDR && n - *used >= *dn) { /* whole where it lies */
		*d = p + *used;
		*used += *dn;
		r->have = 0;
		return 1;
	}
	rc = read_part(r, p, n, used);
	*d = r->b;
	return rc;
}

size_t tnl_dgram_parts(const struct tnl_dgram_reader *r)
{
	return r->b ? length_of(r->len) : 0;
}

void tnl_dgram_reader_fini(struct tnl_dgram_reader *r)
{
	tnl_free(r->b);
	*r = (struct tnl_dgram_reader){.have = 0};
}
