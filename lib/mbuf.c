#include "lib/mbuf.h"
#include "lib/num.h"
#include "lib/alloc.h"

/* A little more than a power of two: 1,024 and 32,768 bytes of payload and the header fit tightly. */
static const uint32_t class_room[TNL_MBUF_CLASSES] = {256,	   512 + 128,	 1024 + 128,  2048 + 128,
						      4096 + 256,  8192 + 256,	 16384 + 256, 32768 + 256,
						      65536 + 256, 131072 + 256, 262144};

/* A class or the one above it follows from the highest bit; at most two steps from there. */
static unsigned class_of(size_t len)
{
	if (len <= class_room[0])
		return 0;
	unsigned bit = 63u - (unsigned)__builtin_clzll(len), c = bit < 10 ? 1 : bit - 9;
	if (c > 1 && class_room[c - 1] >= len)
		return c - 1;
	while (c < TNL_MBUF_CLASSES && class_room[c] < len)
		c++;
	return c;
}

size_t tnl_mbuf_cost(size_t len)
{
	unsigned c = class_of(len);
	return c < TNL_MBUF_CLASSES ? sizeof(struct tnl_mbuf) + class_room[c] : SIZE_MAX / 2;
}

size_t tnl_mbuf_room(const struct tnl_mbuf *m)
{
	return class_room[m->cls];
}

size_t tnl_mbuf_size(const struct tnl_mbuf *m)
{
	return sizeof(*m) + class_room[m->cls];
}

void tnl_mpool_init(struct tnl_mpool *p, size_t kept_max)
{
	for (unsigned i = 0; i < TNL_MBUF_CLASSES; i++)
		tnl_list_init(&p->spare[i]);
	p->used = p->kept = p->kept_low = 0;
	p->kept_max = kept_max;
}

void tnl_mpool_fini(struct tnl_mpool *p)
{
	tnl_mpool_trim(p, 0);
}

struct tnl_mbuf *tnl_mpool_get(struct tnl_mpool *p, size_t len)
{
	unsigned c = class_of(len);
	if (c >= TNL_MBUF_CLASSES)
		return NULL;
	struct tnl_mbuf *m;
	if (!tnl_list_empty(&p->spare[c])) {
		m = tnl_container_of(p->spare[c].next, struct tnl_mbuf, link);
		tnl_list_remove(&m->link);
		p->kept -= tnl_mbuf_size(m);
		if (p->kept < p->kept_low)
			p->kept_low = p->kept;
	} else {
		m = tnl_malloc(sizeof(*m) + class_room[c]);
		if (!m)
			return NULL;
		m->cls = (uint8_t)c;
		tnl_list_init(&m->link);
	}
	m->at = TNL_AT_NONE;
	m->ambiguous = m->owed = m->probe = m->led = false;
	m->resends = 0;
	m->on = NULL;
	p->used += tnl_mbuf_size(m);
	return m;
}

void tnl_mpool_put(struct tnl_mpool *p, struct tnl_mbuf *m)
{
	if (!m)
		return;
	size_t size = tnl_mbuf_size(m);
	p->used -= size;
	if (p->kept + size > p->kept_max) {
		tnl_free(m);
		return;
	}
	p->kept += size;
	tnl_list_push_front(&p->spare[m->cls], &m->link);
}

void tnl_mpool_trim(struct tnl_mpool *p, size_t keep)
{
	for (unsigned c = TNL_MBUF_CLASSES; c-- > 0;) {
		while (p->kept > keep && !tnl_list_empty(&p->spare[c])) {
			struct tnl_mbuf *m = tnl_container_of(p->spare[c].prev, struct tnl_mbuf, link);
			tnl_list_remove(&m->link);
			p->kept -= tnl_mbuf_size(m);
			tnl_free(m);
		}
	}
}

bool tnl_mpool_tick(struct tnl_mpool *p)
{
	tnl_mpool_trim(p, p->kept - TNL_MIN(p->kept_low, p->kept));
	p->kept_low = p->kept;
	return p->kept > 0;
}
