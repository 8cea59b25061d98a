#include "lib/spare.h"
#include "lib/alloc.h"
#include "lib/num.h"

#define BLOCKS 24 /* an event takes some four; links with something to send at a time hold more */
#define BYTES ((size_t)6 * 1024 * 1024)

static struct {
	size_t limit;
	unsigned threads;
} all = {.limit = 2 * BYTES};

static _Thread_local struct {
	struct {
		void *p;
		size_t cap;
	} block[BLOCKS];
	size_t bytes;
	bool keeps;
} spare;

static size_t most_bytes(void)
{
	unsigned threads = __atomic_load_n(&all.threads, __ATOMIC_RELAXED);
	return TNL_MIN(BYTES, __atomic_load_n(&all.limit, __ATOMIC_RELAXED) / TNL_MAX(threads, 1u));
}

static void *take_out(int i)
{
	void *p = spare.block[i].p;
	spare.bytes -= spare.block[i].cap;
	spare.block[i].p = NULL;
	tnl_alloc_resting(-1);
	return p;
}

void *tnl_spare_take(size_t least, size_t *cap)
{
	int best = -1;
	for (int i = 0; i < BLOCKS; i++)
		if (spare.block[i].p && spare.block[i].cap >= least && spare.block[i].cap <= 4 * least &&
		    (best < 0 || spare.block[i].cap < spare.block[best].cap))
			best = i;
	if (best < 0)
		return NULL;
	*cap = spare.block[best].cap;
	return take_out(best);
}

/* The smallest makes way. */
static int find_place(size_t cap)
{
	int at = 0;
	for (int i = 0; i < BLOCKS; i++) {
		if (!spare.block[i].p)
			return i;
		if (spare.block[i].cap < spare.block[at].cap)
			at = i;
	}
	return spare.block[at].cap < cap ? at : -1;
}

void tnl_spare_put(void *p, size_t cap)
{
	int at = !spare.keeps || cap < TNL_SPARE_LEAST || spare.bytes + cap > most_bytes() ? -1 : find_place(cap);
	if (at < 0) {
		tnl_free(p);
		return;
	}
	if (spare.block[at].p)
		tnl_free(take_out(at));
	spare.block[at].p = p;
	spare.block[at].cap = cap;
	spare.bytes += cap;
	tnl_alloc_resting(1);
}

void tnl_spare_limit(size_t bytes)
{
	__atomic_store_n(&all.limit, bytes, __ATOMIC_RELAXED);
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
	for (int i = 0; i < BLOCKS; i++)
		if (spare.block[i].p)
			tnl_free(take_out(i));
}
