#include "lib/kept.h"
#include "lib/num.h"
#include "lib/alloc.h"
#include <string.h>

struct tnl_chunk {
	struct tnl_chunk *next;
	size_t head, tail, cap;
	uint8_t data[];
};

#define CHUNK_MIN 256u
#define CHUNK_MAX 16384u

int tnl_kept_put(struct tnl_kept *k, const uint8_t *p, size_t n)
{
	if (n == 0)
		return 0;
	size_t room = k->last ? k->last->cap - k->last->tail : 0;
	size_t first = TNL_MIN(n, room);
	struct tnl_chunk *c = NULL;
	if (n > first) {
		/* Small at first, larger as the backlog grows: many idle streams stay cheap. */
		size_t cap = TNL_MIN(TNL_MAX(k->len, CHUNK_MIN), CHUNK_MAX);
		if (cap < n - first)
			cap = n - first;
		c = tnl_malloc(sizeof(*c) + cap);
		if (!c)
			return TNL_ENOMEM;
		c->next = NULL;
		c->head = c->tail = 0;
		c->cap = cap;
	}
	if (first) {
		memcpy(k->last->data + k->last->tail, p, first);
		k->last->tail += first;
	}
	if (c) {
		memcpy(c->data, p + first, n - first);
		c->tail = n - first;
		if (k->last)
			k->last->next = c;
		else
			k->first = c;
		k->last = c;
		k->memory += sizeof(*c) + c->cap;
	}
	k->len += n;
	return 0;
}

size_t tnl_kept_peek(const struct tnl_kept *k, const uint8_t **p)
{
	if (!k->first)
		return 0;
	*p = k->first->data + k->first->head;
	return k->first->tail - k->first->head;
}

static void drop_first(struct tnl_kept *k)
{
	struct tnl_chunk *c = k->first;
	k->first = c->next;
	if (!k->first)
		k->last = NULL;
	k->memory -= sizeof(*c) + c->cap;
	tnl_free(c);
}

void tnl_kept_consume(struct tnl_kept *k, size_t n)
{
	k->len -= n;
	while (n) {
		struct tnl_chunk *c = k->first;
		size_t have = c->tail - c->head;
		if (n < have) {
			c->head += n;
			return;
		}
		n -= have;
		drop_first(k);
	}
}

void tnl_kept_clear(struct tnl_kept *k)
{
	while (k->first)
		drop_first(k);
	k->len = 0;
}
