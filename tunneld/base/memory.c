/* The account is one for the process, whatever loops it has; each waiter is called on its own.  The numbers are atomic,
 * since any thread may change them; the list of waiters belongs to the main thread, and threads beside it leave it to
 * that one to tell them (td_memory_aside). */
#include "tunneld/base/memory.h"
#include "lib/alloc.h"
#include "lib/num.h"
#include "lib/spare.h"

#define LOAD(v) __atomic_load_n(&(v), __ATOMIC_RELAXED)
#define STORE(v, to) __atomic_store_n(&(v), to, __ATOMIC_RELAXED)

#define LEAST ((uint64_t)128 * 1024)

static _Thread_local bool aside;

static struct {
	uint64_t limit;
	int64_t used;
	bool was_full;	   /* since the waiters last heard of room */
	int64_t owners;	   /* with a least share */
	uint64_t short_at; /* the most that was used when an owner was refused more since then; 0: none was */
	struct tnl_list waiters;
} mem = {.limit = 96u << 20, .waiters = {&mem.waiters, &mem.waiters}};

void td_memory_limit(uint64_t bytes)
{
	STORE(mem.limit, bytes);
	tnl_spare_limit(bytes / 8, bytes / 2);
	td_memory_change(0);
}

/* What owners may keep between them. */
static uint64_t for_owners(void)
{
	uint64_t limit = LOAD(mem.limit);
	return limit - limit / 8;
}

static bool has_room(void)
{
	return td_memory_used() <= for_owners();
}

static bool has_fallen(void)
{
	uint64_t at = LOAD(mem.short_at);
	return at && td_memory_used() + LOAD(mem.limit) / 32 < at;
}

static void tell_waiter(void *arg)
{
	struct td_memory_waiter *w = arg;
	if (has_room())
		w->fn(w->arg);
	else
		STORE(mem.was_full, true); /* those before it took what there was: once more when there is room again */
}

bool td_memory_owes(void)
{
	return !td_memory_full() && (LOAD(mem.was_full) || has_fallen()) && has_room();
}

void td_memory_aside(void)
{
	aside = true;
}

static void tell_waiters(void)
{
	if (!td_memory_owes())
		return;
	STORE(mem.was_full, false);
	STORE(mem.short_at, 0);
	tnl_list_foreach(it, &mem.waiters)
		td_soon_do(&tnl_container_of(it, struct td_memory_waiter, node)->soon);
}

void td_memory_change(int64_t delta)
{
	__atomic_fetch_add(&mem.used, delta, __ATOMIC_RELAXED);
	if (!aside)
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
	int64_t used = LOAD(mem.used);
	return used > 0 ? (uint64_t)used : 0;
}

uint64_t td_memory_used(void)
{
	return TNL_MAX(td_memory_told(), (uint64_t)tnl_alloc_bytes());
}

uint64_t td_memory_max(void)
{
	return LOAD(mem.limit);
}

bool td_memory_full(void)
{
	bool full = td_memory_used() > LOAD(mem.limit);
	if (full)
		STORE(mem.was_full, true);
	return full;
}

bool td_memory_spent(void)
{
	return td_memory_used() >= for_owners();
}

uint64_t td_memory_lacking(void)
{
	return td_memory_spent() ? td_memory_used() - for_owners() + LOAD(mem.limit) / 32 : 0;
}

bool td_memory_may_keep(uint64_t kept, unsigned weight)
{
	uint64_t used = td_memory_used(), all = for_owners();
	if (used < all && kept <= weight * (all - used))
		return true;
	if (used > LOAD(mem.short_at)) /* two at once: one of the two numbers, which are about the same */
		STORE(mem.short_at, used);
	return false;
}

bool td_memory_half_free(void)
{
	return td_memory_used() <= LOAD(mem.limit) / 2;
}

void td_memory_count_owner(int more)
{
	__atomic_fetch_add(&mem.owners, more, __ATOMIC_RELAXED);
}

uint64_t td_memory_least(void)
{
	int64_t owners = LOAD(mem.owners);
	return owners > 0 ? TNL_MIN(LEAST, for_owners() / 4 / (uint64_t)owners) : LEAST;
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
