#include "lib/spare.h"
#include "lib/alloc.h"
#include "lib/num.h"

#define LIMIT ((size_t)12 * 1024 * 1024) /* an event takes some four blocks; links with something to send hold more */
#define CLASSES (8 * sizeof(size_t))

/* A block that rests says so in its first bytes. */
struct resting {
	struct resting *next;
	size_t cap;
};

static struct {
	size_t limit, room;
	unsigned threads;
} all = {.limit = LIMIT};

static _Thread_local struct {
	struct resting *of[CLASSES]; /* by the highest bit of the size; the latest first */
	size_t bytes;
	bool keeps;
} spare;

static unsigned class_of(size_t n)
{
	return (unsigned)(CLASSES - 1) - (unsigned)__builtin_clzl(n | 1);
}

/* This thread's part, or more of them while the whole process takes little. */
static bool may_keep(size_t bytes)
{
	unsigned threads = __atomic_load_n(&all.threads, __ATOMIC_RELAXED);
	size_t part = __atomic_load_n(&all.limit, __ATOMIC_RELAXED) / TNL_MAX(threads, 1u);
	return bytes <= part || tnl_alloc_bytes() <= __atomic_load_n(&all.room, __ATOMIC_RELAXED);
}

static void *take_out(unsigned c)
{
	struct resting *r = spare.of[c];
	spare.of[c] = r->next;
	spare.bytes -= r->cap;
	tnl_alloc_resting(-1);
	return r;
}

void *tnl_spare_take(size_t least, size_t *cap)
{
	for (unsigned c = class_of(least); c < CLASSES && c <= class_of(least) + 2; c++) {
		const struct resting *r = spare.of[c];
		if (r && r->cap >= least && r->cap <= 4 * least) {
			*cap = r->cap;
			return take_out(c);
		}
	}
	return NULL;
}

/* Smaller ones make way. */
static bool find_room(size_t cap)
{
	for (unsigned c = 0; c < class_of(cap) && !may_keep(spare.bytes + cap);)
		if (spare.of[c])
			tnl_free(take_out(c));
		else
			c++;
	return may_keep(spare.bytes + cap);
}

void tnl_spare_put(void *p, size_t cap)
{
	struct resting *r = p;
	if (!spare.keeps || cap < TNL_SPARE_LEAST || !find_room(cap)) {
		tnl_free(p);
		return;
	}
	*r = (struct resting){spare.of[class_of(cap)], cap};
	spare.of[class_of(cap)] = r;
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
	for (unsigned c = 0; c < CLASSES; c++)
		while (spare.of[c])
			tnl_free(take_out(c));
}
