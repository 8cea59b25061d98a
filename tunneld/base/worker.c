/* One thread, one loop, one lock.  The lock is taken whenever the loop runs callbacks and given back around its wait
 * for sockets (td_sleeper).  A mutex alone would be taken again at once by whichever of the two threads is busy, and
 * the other would starve: so when both want it they have it in turns. */
#include "tunneld/base/worker.h"

#include "lib/alloc.h"
#include "lib/num.h"
#include "lib/spare.h"
#include "tunneld/base/memory.h"
#include "tunneld/base/thread.h"

#include <sched.h>
#include <stdio.h>
#include <time.h>

struct td_worker {
	struct td_loop *home, *l;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t change; /* of the next three */
	bool waiting;	       /* the worker, for its turn */
	bool due;	       /* and its turn is next */
	bool wanted;	       /* by the main thread (atomic) */
	bool held;	       /* by the main thread, which alone looks */
	bool running;	       /* the same */
	bool stop;
	ev_async poke;	 /* on l: there may be something to do, or it is to stop */
	ev_async posted; /* on home */
	struct td_sleeper own, homes;
	void (*mail)(void *ctx);
	void *ctx;
	char name[16];
};

static _Thread_local bool here;

bool td_worker_here(void)
{
	return here;
}

struct td_loop *td_worker_loop(const struct td_worker *w)
{
	return w->l;
}

unsigned td_worker_cores(void)
{
	cpu_set_t set;
	int n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
	return TNL_MIN((unsigned)TNL_MAX(n, 1), TD_WORKERS_MAX);
}

/* --- the worker's side ------------------------------------------------------------- */
static void give_up(void *arg)
{
	struct td_worker *w = arg;
	if (td_memory_owes()) /* its waiters are the main thread's */
		td_worker_post(w);
	pthread_mutex_unlock(&w->lock);
}

static void take_again(void *arg)
{
	struct td_worker *w = arg;
	pthread_mutex_lock(&w->lock);
	w->waiting = true;
	while (__atomic_load_n(&w->wanted, __ATOMIC_RELAXED) && !w->due)
		pthread_cond_wait(&w->change, &w->lock);
	w->waiting = w->due = false;
	pthread_cond_signal(&w->change);
}

static void on_poke(struct ev_loop *ev, ev_async *a, int events)
{
	struct td_worker *w = a->data;
	if (w->stop)
		td_loop_stop(w->l);
}

static void *run_worker(void *arg)
{
	struct td_worker *w = arg;
	here = true;
	td_memory_aside();
	tnl_spare_keep(true);
	pthread_setname_np(pthread_self(), w->name);
	take_again(w);
	td_loop_run(w->l);
	pthread_mutex_unlock(&w->lock);
	tnl_spare_keep(false);
	return NULL;
}

void td_worker_post(struct td_worker *w)
{
	ev_async_send(w->home->ev, &w->posted);
}

/* --- the main thread's ----------------------------------------------------------------- */
void td_worker_hold(struct td_worker *w)
{
	if (!w || here)
		return;
	if (w->running && !w->held) {
		__atomic_store_n(&w->wanted, true, __ATOMIC_RELAXED);
		pthread_mutex_lock(&w->lock);
		while (w->due)
			pthread_cond_wait(&w->change, &w->lock);
		w->held = true;
		td_loop_update(w->home);
		td_loop_update(w->l);
	} else if (w->l->now < w->home->now) {
		td_loop_update(w->l);
	}
}

/* What was done meanwhile may have left something to do. */
static void let_go(void *arg)
{
	struct td_worker *w = arg;
	if (!w->held)
		return;
	w->held = false;
	w->due = w->waiting;
	__atomic_store_n(&w->wanted, false, __ATOMIC_RELAXED);
	pthread_cond_signal(&w->change);
	pthread_mutex_unlock(&w->lock);
	ev_async_send(w->l->ev, &w->poke);
}

static void on_posted(struct ev_loop *ev, ev_async *a, int events)
{
	struct td_worker *w = a->data;
	td_worker_hold(w);
	w->mail(w->ctx);
}

uint64_t td_worker_cpu_here(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * TD_SEC + (uint64_t)ts.tv_nsec;
}

uint64_t td_worker_cpu(const struct td_worker *w)
{
	clockid_t clock;
	struct timespec ts;
	if (!w->running || pthread_getcpuclockid(w->thread, &clock) != 0 || clock_gettime(clock, &ts) != 0)
		return 0;
	return (uint64_t)ts.tv_sec * TD_SEC + (uint64_t)ts.tv_nsec;
}

struct td_worker *td_worker_new(struct td_loop *home, const char *name, void (*mail)(void *ctx), void *ctx)
{
	struct td_worker *w = tnl_calloc(1, sizeof(*w));
	if (!w || !(w->l = td_loop_new())) {
		tnl_free(w);
		return NULL;
	}
	w->home = home;
	w->mail = mail;
	w->ctx = ctx;
	snprintf(w->name, sizeof(w->name), "%s", name);
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->change, NULL);
	ev_async_init(&w->poke, on_poke);
	ev_async_init(&w->posted, on_posted);
	w->poke.data = w->posted.data = w;
	ev_async_start(w->l->ev, &w->poke);
	ev_async_start(home->ev, &w->posted);
	ev_unref(home->ev);
	w->own = (struct td_sleeper){.before = give_up, .after = take_again, .arg = w};
	w->homes = (struct td_sleeper){.before = let_go, .arg = w};
	td_loop_around_sleep(w->l, &w->own);
	td_loop_around_sleep(home, &w->homes);
	if ((w->running = td_thread_start(&w->thread, run_worker, w) == 0))
		return w;
	td_worker_free(w);
	return NULL;
}

void td_worker_stop(struct td_worker *w)
{
	if (!w || !w->running)
		return;
	td_worker_hold(w);
	w->stop = true;
	let_go(w);
	pthread_join(w->thread, NULL);
	w->running = false;
}

void td_worker_free(struct td_worker *w)
{
	if (!w)
		return;
	td_worker_stop(w);
	td_sleeper_stop(&w->homes);
	td_sleeper_stop(&w->own);
	ev_ref(w->home->ev);
	ev_async_stop(w->home->ev, &w->posted);
	ev_async_stop(w->l->ev, &w->poke);
	td_loop_free(w->l);
	pthread_cond_destroy(&w->change);
	pthread_mutex_destroy(&w->lock);
	tnl_free(w);
}
