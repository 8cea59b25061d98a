/* The loop over libev: the clocks of a turn, what runs later and once (before the loop looks at sockets again), waking
 * after the machine slept, timers and back-off. */
#include "tunneld/base/loop.h"

#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/num.h"
#include "lib/spare.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define SLEEP_SLACK (2 * TD_SEC)
/* What runs soon may ask for more (a write asks for a flush): that much is done before looking at sockets again. */
#define SOON_ROUNDS 8
#define GIVE_BACK_IN TD_SEC
#define GIVE_BACK_BY (10 * TD_SEC)

struct call { /* of td_loop_defer and td_loop_at_free */
	struct td_soon soon;
	struct tnl_list node;
	void (*fn)(void *);
	void *arg;
};
struct waker {
	void (*fn)(void *);
	void *arg;
};
struct td_wake {
	struct waker *v;
	size_t n, cap;
	int fd; /* becomes readable when the clock jumps, as at the end of a suspend */
	ev_io io;
	uint64_t ahead; /* CLOCK_BOOTTIME - CLOCK_MONOTONIC when last looked at */
	bool known;
	struct td_soon tell;
};

static _Noreturn void no_memory(void)
{
	static const char text[] = "tunneld: out of memory in the event loop\n";
	ssize_t r = write(STDERR_FILENO, text, sizeof(text) - 1);
	(void)r;
	abort();
}

static uint64_t clock_ns(clockid_t id)
{
	struct timespec ts;
	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * TD_SEC + (uint64_t)ts.tv_nsec;
}

static void tell_wake(void *arg)
{
	struct td_wake *w = arg;
	/* A callback may take itself off: downwards, by index. */
	for (size_t i = w->n; i-- > 0;) {
		if (i < w->n)
			w->v[i].fn(w->v[i].arg);
	}
}

void td_loop_clocks(struct td_loop *l, uint64_t mono_ns, uint64_t boot_ns)
{
	struct td_wake *w = l->wake;
	if (!w)
		return;
	uint64_t ahead = boot_ns > mono_ns ? boot_ns - mono_ns : 0;
	bool slept = w->known && ahead > w->ahead + SLEEP_SLACK;
	w->ahead = ahead;
	w->known = true;
	if (slept)
		td_soon_do(&w->tell);
}

static void sample_clocks(struct td_loop *l)
{
	l->now = clock_ns(CLOCK_MONOTONIC);
	__atomic_store_n(&l->wall_ms, clock_ns(CLOCK_REALTIME) / TD_MS, __ATOMIC_RELAXED);
	if (l->wake)
		td_loop_clocks(l, l->now, clock_ns(CLOCK_BOOTTIME));
}

void td_loop_update(struct td_loop *l)
{
	ev_now_update(l->ev);
	sample_clocks(l);
}

static void on_check(struct ev_loop *ev, ev_check *w, int events)
{
	sample_clocks(w->data);
}

/* --- later, once ------------------------------------------------------------ */

void td_soon_init(struct td_soon *s, struct td_loop *l, void (*fn)(void *), void *arg)
{
	*s = (struct td_soon){.l = l, .fn = fn, .arg = arg};
	tnl_list_init(&s->node);
}

void td_soon_do(struct td_soon *s)
{
	if (s->pending)
		return;
	s->pending = true;
	tnl_list_push_back(&s->l->soon, &s->node);
}

void td_soon_cancel(struct td_soon *s)
{
	if (!s->pending)
		return;
	s->pending = false;
	tnl_list_remove(&s->node);
}

void td_soon_move(struct td_soon *s, struct td_loop *l)
{
	bool pending = s->pending;
	td_soon_cancel(s);
	s->l = l;
	if (pending)
		td_soon_do(s);
}

/* One round: what was asked for up to now.  What that asks for in turn waits for the next. */
static bool run_soon(struct td_loop *l)
{
	struct tnl_list round;
	if (tnl_list_empty(&l->soon))
		return false;
	tnl_list_init(&round);
	tnl_list_splice_back(&round, &l->soon);
	while (!tnl_list_empty(&round)) {
		struct td_soon *s = tnl_container_of(round.next, struct td_soon, node);
		td_soon_cancel(s);
		s->fn(s->arg);
	}
	return true;
}

static struct call *call_new(void (*fn)(void *), void *arg)
{
	struct call *c = tnl_calloc(1, sizeof(*c));
	if (!c)
		no_memory();
	c->fn = fn;
	c->arg = arg;
	return c;
}

static void run_call(void *arg)
{
	struct call c = *(struct call *)arg;
	tnl_free(arg);
	c.fn(c.arg);
}

void td_loop_defer(struct td_loop *l, void (*fn)(void *), void *arg)
{
	struct call *c = call_new(fn, arg);
	td_soon_init(&c->soon, l, run_call, c);
	td_soon_do(&c->soon);
}

void td_loop_free_later(struct td_loop *l, void *p)
{
	if (p)
		td_loop_defer(l, tnl_free, p);
}

void td_loop_at_free(struct td_loop *l, void (*fn)(void *), void *arg)
{
	tnl_list_push_front(&l->at_free, &call_new(fn, arg)->node);
}

static void run_at_free(struct td_loop *l)
{
	while (!tnl_list_empty(&l->at_free)) {
		struct call *c = tnl_container_of(l->at_free.next, struct call, node);
		tnl_list_remove(&c->node);
		run_call(c);
		while (run_soon(l))
			;
	}
}

/* --- around sleep ----------------------------------------------------------- */
static void before_sleep(struct ev_loop *ev) EV_NOEXCEPT
{
	struct td_loop *l = ev_userdata(ev);
	tnl_list_foreach_safe(it, &l->sleepers) {
		struct td_sleeper *s = tnl_container_of(it, struct td_sleeper, node);
		if (s->before)
			s->before(s->arg);
	}
}

static void after_sleep(struct ev_loop *ev) EV_NOEXCEPT
{
	struct td_loop *l = ev_userdata(ev);
	tnl_list_foreach_safe(it, &l->sleepers) {
		struct td_sleeper *s = tnl_container_of(it, struct td_sleeper, node);
		if (s->after)
			s->after(s->arg);
	}
}

void td_loop_around_sleep(struct td_loop *l, struct td_sleeper *s)
{
	if (tnl_list_empty(&l->sleepers))
		ev_set_loop_release_cb(l->ev, before_sleep, after_sleep);
	tnl_list_push_back(&l->sleepers, &s->node);
}

void td_sleeper_stop(struct td_sleeper *s)
{
	tnl_list_remove(&s->node);
}

static void on_prepare(struct ev_loop *ev, ev_prepare *w, int events)
{
	struct td_loop *l = w->data;
	for (int i = 0; i < SOON_ROUNDS && run_soon(l); i++)
		;
	/* An active idle watcher keeps the loop from sleeping while work is left. */
	if (tnl_list_empty(&l->soon))
		ev_idle_stop(ev, &l->idle);
	else
		ev_idle_start(ev, &l->idle);
}

static void on_idle(struct ev_loop *ev, ev_idle *w, int events) {}

/* --- memory that is free ------------------------------------------------------ */

/* Whole pages of it, whatever lies around them on the heap. */
static void give_back_now(void *arg)
{
	tnl_spare_drop();
	malloc_trim(0);
}

void td_loop_give_back(struct td_loop *l)
{
	if (l->give_back.at == UINT64_MAX)
		l->give_back_by = l->now + GIVE_BACK_BY;
	td_timer_at(&l->give_back, TNL_MIN(l->now + GIVE_BACK_IN, l->give_back_by));
}

/* --- making and freeing ------------------------------------------------------- */

struct td_loop *td_loop_new(void)
{
	struct td_loop *l = tnl_calloc(1, sizeof(*l));
	struct ev_loop *ev = ev_loop_new(EVFLAG_AUTO);
	if (!l || !ev) {
		if (ev)
			ev_loop_destroy(ev);
		tnl_free(l);
		return NULL;
	}
	signal(SIGPIPE, SIG_IGN);
	tnl_spare_keep(true);
	/* Buffers of connections that went quiet go back to the system at once, smaller ones with td_loop_give_back. */
	mallopt(M_MMAP_THRESHOLD, 64 * 1024);
	l->ev = ev;
	tnl_list_init(&l->soon);
	tnl_list_init(&l->at_free);
	tnl_list_init(&l->sleepers);
	ev_set_userdata(ev, l);
	tnl_list_init(&l->children);
	ev_check_init(&l->check, on_check);
	ev_set_priority(&l->check, EV_MAXPRI); /* the clock first, then the sockets */
	l->check.data = l;
	ev_check_start(ev, &l->check);
	ev_prepare_init(&l->prepare, on_prepare);
	l->prepare.data = l;
	ev_prepare_start(ev, &l->prepare);
	ev_idle_init(&l->idle, on_idle);
	ev_set_priority(&l->idle, EV_MINPRI);
	td_loop_update(l);
	td_timer_init(&l->give_back, l, give_back_now, l);
	return l;
}

void td_loop_free(struct td_loop *l)
{
	if (!l)
		return;
	while (run_soon(l))
		;
	run_at_free(l);
	if (l->wake) {
		if (l->wake->fd >= 0) {
			ev_io_stop(l->ev, &l->wake->io);
			close(l->wake->fd);
		}
		tnl_free(l->wake->v);
		tnl_free(l->wake);
	}
	td_timer_stop(&l->give_back);
	ev_check_stop(l->ev, &l->check);
	ev_prepare_stop(l->ev, &l->prepare);
	ev_idle_stop(l->ev, &l->idle);
	ev_loop_destroy(l->ev);
	tnl_free(l);
	tnl_spare_drop();
}

void td_loop_run(struct td_loop *l)
{
	td_loop_update(l);
	ev_run(l->ev, 0);
}

void td_loop_stop(struct td_loop *l)
{
	ev_break(l->ev, EVBREAK_ALL);
}

/* --- waking from a suspend ------------------------------------------------ */

/* A wall-clock timer far away that is cancelled when the clock is set: the kernel sets it after every suspend, so a
 * loop that sleeps in epoll is woken at once instead of at its next timer. */
static void wake_arm(struct td_wake *w)
{
	struct itimerspec far = {.it_value = {.tv_sec = (time_t)4102444800}};
	if (timerfd_settime(w->fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &far, NULL) != 0 && errno == ECANCELED)
		timerfd_settime(w->fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &far, NULL);
}

static void on_clock_set(struct ev_loop *ev, ev_io *io, int events)
{
	struct td_wake *w = io->data;
	uint64_t n;
	ssize_t r = read(w->fd, &n, sizeof(n));
	if (r < 0 && errno == ECANCELED)
		wake_arm(w);
}

void td_loop_on_wake(struct td_loop *l, void (*fn)(void *), void *arg)
{
	if (!l->wake) {
		l->wake = tnl_calloc(1, sizeof(*l->wake));
		if (!l->wake)
			no_memory();
		td_soon_init(&l->wake->tell, l, tell_wake, l->wake);
		l->wake->fd = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC);
		if (l->wake->fd >= 0) {
			wake_arm(l->wake);
			ev_io_init(&l->wake->io, on_clock_set, l->wake->fd, EV_READ);
			l->wake->io.data = l->wake;
			ev_io_start(l->ev, &l->wake->io);
		}
		td_loop_clocks(l, clock_ns(CLOCK_MONOTONIC), clock_ns(CLOCK_BOOTTIME));
	}
	struct td_wake *w = l->wake;
	if (w->n == w->cap) {
		size_t want = w->cap ? w->cap * 2 : 8;
		struct waker *p = tnl_realloc(w->v, want * sizeof(*p));
		if (!p)
			no_memory();
		w->v = p;
		w->cap = want;
	}
	w->v[w->n++] = (struct waker){fn, arg};
}

void td_loop_off_wake(struct td_loop *l, void (*fn)(void *), void *arg)
{
	struct td_wake *w = l->wake;
	for (size_t i = 0; w && i < w->n; i++) {
		if (w->v[i].fn == fn && w->v[i].arg == arg) {
			memmove(&w->v[i], &w->v[i + 1], (w->n - i - 1) * sizeof(w->v[0]));
			w->n--;
			return;
		}
	}
}

/* --- timers --------------------------------------------------------------- */

static void timer_arm(struct td_timer *t)
{
	uint64_t in = t->at > t->l->now ? t->at - t->l->now : 0;
	/* A repeat of 0 would stop the watcher. */
	t->w.repeat = in ? (double)in / 1e9 : 1e-9;
	ev_timer_again(t->l->ev, &t->w);
}

static void on_timer(struct ev_loop *ev, ev_timer *w, int events)
{
	struct td_timer *t = w->data;
	if (t->l->now < t->at)
		td_loop_update(t->l);
	if (t->l->now < t->at) { /* libev's clock is a double and was read a little earlier */
		timer_arm(t);
		return;
	}
	td_timer_stop(t);
	t->fn(t->arg);
}

void td_timer_init(struct td_timer *t, struct td_loop *l, void (*fn)(void *), void *arg)
{
	memset(t, 0, sizeof(*t));
	ev_init(&t->w, on_timer);
	t->w.data = t;
	t->l = l;
	t->fn = fn;
	t->arg = arg;
	t->at = UINT64_MAX;
}

void td_timer_at(struct td_timer *t, uint64_t at)
{
	if (at == t->at)
		return;
	t->at = at;
	if (at == UINT64_MAX)
		ev_timer_stop(t->l->ev, &t->w);
	else
		timer_arm(t);
}

void td_timer_in(struct td_timer *t, uint64_t ns)
{
	td_timer_at(t, ns > UINT64_MAX - t->l->now ? UINT64_MAX : t->l->now + ns);
}

void td_timer_stop(struct td_timer *t)
{
	if (!t->l)
		return;
	ev_timer_stop(t->l->ev, &t->w);
	t->at = UINT64_MAX;
}

void td_timer_move(struct td_timer *t, struct td_loop *l)
{
	uint64_t at = t->at;
	td_timer_stop(t);
	t->l = l;
	td_timer_at(t, at);
}

/* --- back-off ------------------------------------------------------------- */

void td_backoff_init(struct td_backoff *b, uint64_t first_ns, uint64_t max_ns)
{
	b->first = first_ns;
	b->max = TNL_MAX(first_ns, max_ns);
	b->cur = first_ns;
}

uint64_t td_backoff_next(struct td_backoff *b)
{
	uint64_t r, hi = b->cur > b->max / 2 ? b->max : 2 * b->cur;
	tnl_random(&r, sizeof(r));
	b->cur = hi;
	return b->first + r % (hi - b->first + 1);
}

void td_backoff_forget(struct td_backoff *b)
{
	b->cur = b->first;
}

void td_backoff_up(struct td_backoff *b, uint64_t up_for_ns)
{
	if (up_for_ns >= 10 * TD_SEC)
		b->cur = b->first;
}
