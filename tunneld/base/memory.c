#include "tunneld/base/memory.h"

#include "lib/alloc.h"
#include "tunneld/base/loop.h"

#include <stdlib.h>
#include <string.h>

static struct {
	uint64_t limit;
	int64_t used;
	bool was_full, queued;
	struct td_loop *l;
	struct waiter {
		void (*fn)(void *);
		void *arg;
	} * v;
	size_t n, cap;
} mem = {.limit = 96u << 20};

void td_memory_limit(uint64_t bytes)
{
	mem.limit = bytes;
	td_memory_change(0);
}

void td_memory_loop(struct td_loop *l)
{
	mem.l = l;
	mem.queued = false;
}

static bool low(void)
{
	return td_memory_used() <= mem.limit - mem.limit / 8;
}

static void tell(void *arg)
{
	mem.queued = false;
	if (!low())
		return;
	mem.was_full = false;
	/* A waiter may take itself or others off: go by index, downwards. */
	for (size_t i = mem.n; i-- > 0;) {
		if (i < mem.n)
			mem.v[i].fn(mem.v[i].arg);
	}
}

void td_memory_change(int64_t delta)
{
	mem.used += delta;
	if (td_memory_full()) {
		mem.was_full = true;
	} else if (mem.was_full && !mem.queued && mem.l && low()) {
		mem.queued = true;
		td_loop_defer(mem.l, tell, NULL);
	}
}

uint64_t td_memory_used(void)
{
	return mem.used > 0 ? (uint64_t)mem.used : 0;
}

uint64_t td_memory_max(void)
{
	return mem.limit;
}

bool td_memory_full(void)
{
	return td_memory_used() > mem.limit;
}

void td_memory_on_room(void (*fn)(void *), void *arg)
{
	if (mem.n == mem.cap) {
		size_t want = mem.cap ? 2 * mem.cap : 16;
		struct waiter *p = tnl_realloc(mem.v, want * sizeof(*p));
		if (!p)
			abort();
		mem.v = p;
		mem.cap = want;
	}
	mem.v[mem.n++] = (struct waiter){fn, arg};
}

void td_memory_off_room(void (*fn)(void *), void *arg)
{
	for (size_t i = 0; i < mem.n; i++) {
		if (mem.v[i].fn == fn && mem.v[i].arg == arg) {
			memmove(&mem.v[i], &mem.v[i + 1], (mem.n - i - 1) * sizeof(mem.v[0]));
			if (--mem.n == 0) {
				tnl_free(mem.v);
				mem.v = NULL;
				mem.cap = 0;
			}
			return;
		}
	}
}
