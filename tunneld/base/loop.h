/* The event loop: libev underneath, one `now` per turn, cheap timers, "later, once".  No state beside the loop's own:
 * several roles share one loop in `tunneld local`, and a process may have several loops. */
#ifndef TD_BASE_LOOP_H
#define TD_BASE_LOOP_H
#include "lib/list.h"

#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TD_MS 1000000ull
#define TD_SEC 1000000000ull

struct td_dns;
struct td_loop;
struct td_wake;
struct td_timer { /* below */
	ev_timer w;
	struct td_loop *l;
	void (*fn)(void *);
	void *arg;
	uint64_t at;
};
struct td_loop {
	struct ev_loop *ev;
	uint64_t now;	    /* CLOCK_MONOTONIC ns, sampled once per turn */
	uint64_t wall_ms;   /* CLOCK_REALTIME ms, sampled with it; other threads may look (atomic) */
	struct td_dns *dns; /* c-ares resolver, made on first use */
	/* private below */
	struct tnl_list soon; /* what td_soon_do asked for, in order */
	struct tnl_list at_free;
	struct tnl_list sleepers;
	struct tnl_list children; /* of child.c */
	bool children_at_free;
	struct td_wake *wake;
	struct td_timer give_back;
	uint64_t give_back_by;
	ev_check check;
	ev_prepare prepare;
	ev_idle idle;
};
struct td_loop *td_loop_new(void);    /* also sets SIGPIPE to ignored */
void td_loop_free(struct td_loop *l); /* runs what is deferred first */
void td_loop_run(struct td_loop *l);  /* until td_loop_stop */
void td_loop_stop(struct td_loop *l);
void td_loop_update(struct td_loop *l); /* sample the clocks now */

/* Later, once: fn(arg) runs after the current callbacks have returned, before the loop sleeps, in the order of the
 * calls; asked for again before it ran, it still runs once.  A member of the object that it works on, which cancels it
 * when it goes; inside fn it is no longer pending and may be asked for again.  This is how a lower object calls one
 * above it, and how nothing is freed inside a callback that may return into it. */
struct td_soon {
	struct tnl_list node;
	struct td_loop *l; /* NULL: never initialised, cancel is fine */
	void (*fn)(void *);
	void *arg;
	bool pending;
};
void td_soon_init(struct td_soon *s, struct td_loop *l, void (*fn)(void *), void *arg);
void td_soon_do(struct td_soon *s);
void td_soon_cancel(struct td_soon *s);
void td_soon_move(struct td_soon *s,
		  struct td_loop *l); /* it is done on that loop, also when it was asked for before */
/* The same once, without a member to hold it, so that it cannot be cancelled: fn must find its arg alive. */
void td_loop_defer(struct td_loop *l, void (*fn)(void *), void *arg);
/* tnl_free(p) behind everything that was asked for before; p may be in use until the current callbacks return. */
void td_loop_free_later(struct td_loop *l, void *p);
/* Free memory goes back to the system: to be called when something was freed because it is quiet.  A second after the
 * last call, ten after the first: who is busy would only take its pages anew. */
void td_loop_give_back(struct td_loop *l);
/* fn(arg) runs in td_loop_free, the last that was asked for first, before the descriptors of the loop are closed. */
void td_loop_at_free(struct td_loop *l, void (*fn)(void *), void *arg);
/* before(arg) and after(arg), each unless it is NULL: around each wait for sockets, the last thing of a turn and the
 * first of the next. */
struct td_sleeper {
	struct tnl_list node;
	void (*before)(void *arg), (*after)(void *arg);
	void *arg;
};
void td_loop_around_sleep(struct td_loop *l, struct td_sleeper *s);
void td_sleeper_stop(struct td_sleeper *s);
/* Called (once per resume) when CLOCK_BOOTTIME ran ahead of CLOCK_MONOTONIC by more than 2 s: the machine slept. */
void td_loop_on_wake(struct td_loop *l, void (*fn)(void *), void *arg);
void td_loop_off_wake(struct td_loop *l, void (*fn)(void *), void *arg);
void td_loop_clocks(struct td_loop *l, uint64_t mono_ns, uint64_t boot_ns); /* for tests: what the wake check sees */

/* One-shot timer at an absolute monotonic time; re-arming replaces. UINT64_MAX stops it.
 * Never fires before l->now >= at. */
void td_timer_init(struct td_timer *t, struct td_loop *l, void (*fn)(void *), void *arg);
void td_timer_at(struct td_timer *t, uint64_t at);
void td_timer_in(struct td_timer *t, uint64_t ns);
void td_timer_stop(struct td_timer *t);
void td_timer_move(struct td_timer *t, struct td_loop *l); /* goes on there */

/* Back-off: full jitter between `first` and a bound that starts at 2 * first and doubles up to `max`.
 * reset only after the thing was up for 10 s. */
struct td_backoff {
	uint64_t first, max, cur;
};
void td_backoff_init(struct td_backoff *b, uint64_t first_ns, uint64_t max_ns);
uint64_t td_backoff_next(struct td_backoff *b);
void td_backoff_forget(struct td_backoff *b); /* what was tried has been of use */
void td_backoff_up(struct td_backoff *b, uint64_t up_for_ns);

#endif
