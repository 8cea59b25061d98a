/* The account is one for the process, whatever loops it has; each waiter is called on its own. */
#include "tunneld/base/memory.h"
#include "lib/alloc.h"
#include "lib/num.h"

static struct {
	uint64_t limit;
	int64_t used;
	bool was_full;	   /* since the waiters last heard of room */
	uint64_t short_at; /* the most that was used when an owner was refused more since then; 0: none was */
	struct tnl_list waiters;
} mem = {.limit = 96u << 20, .waiters = {&mem.waiters, &mem.waiters}};

void td_memory_limit(uint64_t bytes)
{
	mem.limit = bytes;
	td_memory_change(0);
}

/* What owners may keep between them. */
static uint64_t for_owners(void)
{
	return mem.limit - mem.limit / 8;
}

static bool has_room(void)
{
	return td_memory_used() <= for_owners();
}

static bool has_fallen(void)
{
	return mem.short_at && td_memory_used() + mem.limit / 32 < mem.short_at;
}

static void tell_waiter(void *arg)
{
	struct td_memory_waiter *w = arg;
	if (has_room())
		w->fn(w->arg);
	else
		mem.was_full = true; /* those before it took what there was: once more when there is room again */
}

static void tell_waiters(void)
{
	if (td_memory_full() || !(mem.was_full || has_fallen()) || !has_room())
		return;
	mem.was_full = false;
	mem.short_at = 0;
	tnl_list_foreach(it, &mem.waiters)
		td_soon_do(&tnl_container_of(it, struct td_memory_waiter, node)->soon);
}

void td_memory_change(int64_t delta)
{
	mem.used += delta;
	tell_waiters();
}

/* Most of what frees memory does not report it. */
static void look(struct ev_loop *ev, ev_prepare *w, int events)
{
	struct td_memory_waiter *m = w->data;
	tell_waiters();
	if (m->soon.pending) /* what is to be done soon in this turn has been done */
		ev_feed_event(ev, &m->soon.l->prepare, EV_PREPARE);
}

uint64_t td_memory_told(void)
{
	return mem.used > 0 ? (uint64_t)mem.used : 0;
}

uint64_t td_memory_used(void)
{
	return TNL_MAX(td_memory_told(), (uint64_t)tnl_alloc_bytes());
}

uint64_t td_memory_max(void)
{
	return mem.limit;
}

bool td_memory_full(void)
{
	bool full = td_memory_used() > mem.limit;
	mem.was_full |= full;
	return full;
}

bool td_memory_spent(void)
{
	return td_memory_used() >= for_owners();
}

uint64_t td_memory_lacking(void)
{
	return td_memory_spent() ? td_memory_used() - for_owners() + mem.limit / 32 : 0;
}

bool td_memory_may_keep(uint64_t kept, unsigned weight)
{
	uint64_t used = td_memory_used(), all = for_owners();
	if (used < all && kept <= weight * (all - used))
		return true;
	mem.short_at = TNL_MAX(mem.short_at, used);
	return false;
}

void td_memory_on_room(struct td_memory_waiter *w, struct td_loop *l, void (*fn)(void *), void *arg)
{
	if (w->fn)
		return;
	w->fn = fn;
	w->arg = arg;
	td_soon_init(&w->soon, l, tell_waiter, w);
	tnl_list_push_front(&mem.waiters, &w->node);
	ev_prepare_init(&w->look, look);
	ev_set_priority(&w->look, EV_MINPRI);
	w->look.data = w;
	ev_prepare_start(l->ev, &w->look);
	ev_unref(l->ev);
}

void td_memory_off_room(struct td_memory_waiter *w)
{
	if (!w->fn)
		return;
	ev_ref(w->soon.l->ev);
	ev_prepare_stop(w->soon.l->ev, &w->look);
	td_soon_cancel(&w->soon);
	tnl_list_remove(&w->node);
	w->fn = NULL;
}
