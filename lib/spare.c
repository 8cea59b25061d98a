#include "lib/spare.h"
#include "lib/alloc.h"
#include "lib/num.h"

#define LIMIT ((size_t)12 * 1024 * 1024) /* an event takes some four blocks; links with something to send hold more */
#define BLOCKS 128

static struct {
	size_t limit, room;
	unsigned threads;
} all = {.limit = LIMIT};

static _Thread_local struct {
	struct {
		void *p;
		size_t cap;
	} block[BLOCKS]; /* the first n */
	unsigned n;
	size_t bytes;
	bool keeps;
} spare;

/* This thread's part, or more of them while the whole process takes little. */
static bool may_keep(size_t bytes)
{
	unsigned threads = __atomic_load_n(&all.threads, __ATOMIC_RELAXED);
	size_t part = __atomic_load_n(&all.limit, __ATOMIC_RELAXED) / TNL_MAX(threads, 1u);
	return bytes <= part || tnl_alloc_bytes() <= __atomic_load_n(&all.room, __ATOMIC_RELAXED);
}

static void *take_out(unsigned i)
{
	void *p = spare.block[i].p;
	spare.bytes -= spare.block[i].cap;
	spare.block[i] = spare.block[--spare.n];
	tnl_alloc_resting(-1);
	return p;
}

void *tnl_spare_take(size_t least, size_t *cap)
{
	unsigned best = spare.n;
	for (unsigned i = spare.n; i-- > 0;) /* of two alike the one that was used last */
		if (spare.block[i].cap >= least && spare.block[i].cap <= 4 * least &&
		    (best == spare.n || spare.block[i].cap < spare.block[best].cap))
			best = i;
	if (best == spare.n)
		return NULL;
	*cap = spare.block[best].cap;
	return take_out(best);
}

/* The smallest makes way for a larger one. */
static bool find_room(size_t cap)
{
	while (spare.n && (spare.n == BLOCKS || !may_keep(spare.bytes + cap))) {
		unsigned least = 0;
		for (unsigned i = 1; i < spare.n; i++)
			if (spare.block[i].cap < spare.block[least].cap)
				least = i;
		if (spare.block[least].cap >= cap)
			return false;
		tnl_free(take_out(least));
	}
	return may_keep(spare.bytes + cap);
}

void tnl_spare_put(void *p, size_t cap)
{
	if (!spare.keeps || cap < TNL_SPARE_LEAST || !find_room(cap)) {
		tnl_free(p);
		return;
	}
	spare.block[spare.n].p = p;
	spare.block[spare.n++].cap = cap;
	spare.bytes += cap;
	tnl_alloc_resting(1);
}

void tnl_spare_limit(size_t bytes, size_t room)
{
	__atomic_store_n(&all.limit, bytes, __ATOMIC_RELAXED);
	__atomic_store_n(&all.room, room, __ATOMIC_RELAXED);
}

void tnl_spare_keep(bool keep)
{
	__atomic_fetch_add(&all.threads, (unsigned)keep - (unsigned)spare.keeps, __ATOMIC_RELAXED);
	spare.keeps = keep;
	if (!keep)
		tnl_spare_drop();
}

void tnl_spare_drop(void)
{
	while (spare.n)
		tnl_free(take_out(spare.n - 1));
}
