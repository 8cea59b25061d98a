/* The event loop: libev underneath, one `now` per turn, cheap timers, deferred
 * calls.  No global state: several roles share one loop in `tunneld local`. */
#ifndef TD_BASE_LOOP_H
#define TD_BASE_LOOP_H
#include <ev.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TD_MS 1000000ull
#define TD_SEC 1000000000ull

struct td_dns;
struct td_deferred;
struct td_wake;
struct td_loop {
	struct ev_loop *ev;
	uint64_t now;	    /* CLOCK_MONOTONIC ns, sampled once per turn */
	uint64_t wall_ms;   /* CLOCK_REALTIME ms, sampled with it */
	struct td_dns *dns; /* c-ares resolver, made on first use */
	/* private below */
	struct td_deferred *deferred;
	struct td_wake *wake;
	ev_check check;
	ev_prepare prepare;
	ev_idle idle;
};
struct td_loop *td_loop_new(void);    /* also sets SIGPIPE to ignored */
void td_loop_free(struct td_loop *l); /* runs what is deferred first */
void td_loop_run(struct td_loop *l);  /* until td_loop_stop */
void td_loop_stop(struct td_loop *l);
void td_loop_update(struct td_loop *l); /* sample the clocks now */
/* fn(arg) runs after the current callbacks have returned (before the loop sleeps), in
 * the order of the calls: what was deferred before a deferred free runs before it. */
void td_loop_defer(struct td_loop *l, void (*fn)(void *), void *arg);
/* Called (once per resume) when CLOCK_BOOTTIME ran ahead of CLOCK_MONOTONIC by more than 2 s: the machine slept. */
void td_loop_on_wake(struct td_loop *l, void (*fn)(void *), void *arg);
void td_loop_off_wake(struct td_loop *l, void (*fn)(void *), void *arg);
void td_loop_clocks(struct td_loop *l, uint64_t mono_ns, uint64_t boot_ns); /* for tests: what the wake check sees */

/* One-shot timer at an absolute monotonic time; re-arming replaces. UINT64_MAX stops it.
 * Never fires before l->now >= at. */
struct td_timer {
	ev_timer w;
	struct td_loop *l;
	void (*fn)(void *);
	void *arg;
	uint64_t at;
};
void td_timer_init(struct td_timer *t, struct td_loop *l, void (*fn)(void *), void *arg);
void td_timer_at(struct td_timer *t, uint64_t at);
void td_timer_in(struct td_timer *t, uint64_t ns);
void td_timer_stop(struct td_timer *t);

/* Back-off: full jitter between `first` and a bound that starts at 2 * first and doubles up to `max`.
 * reset only after the thing was up for 10 s. */
struct td_backoff {
	uint64_t first, max, cur;
};
void td_backoff_init(struct td_backoff *b, uint64_t first_ns, uint64_t max_ns);
uint64_t td_backoff_next(struct td_backoff *b);
void td_backoff_up(struct td_backoff *b, uint64_t up_for_ns);

#endif
