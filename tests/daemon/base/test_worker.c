/* Workers: the main thread and a worker never run at the same time on what one of them holds, the main thread gets its
 * turn also while the worker is busy, and what either asks of the other is done. */
#include "tests/daemon/base/td_test.h"
#include "tunneld/base/memory.h"
#include "tunneld/base/worker.h"

#include <pthread.h>

struct rig {
	struct td_worker *w;
	struct td_soon again; /* on the worker: keeps it busy */
	struct td_timer timer;
	pthread_t thread; /* that ran the last callback of the worker's loop */
	uint64_t count, seen, target;
	int mails, fired, reached;
	bool busy;
};

static void on_mail(void *ctx)
{
	struct rig *r = ctx;
	assert_false(td_worker_here());
	r->mails++;
	r->seen = r->count; /* the worker is held */
	r->reached = r->seen >= r->target;
}

static void on_again(void *arg)
{
	struct rig *r = arg;
	r->thread = pthread_self();
	r->count++;
	if (r->busy)
		td_soon_do(&r->again);
	if (r->count >= r->target)
		td_worker_post(r->w);
}

static void open_rig(struct rig *r)
{
	t_open();
	memset(r, 0, sizeof(*r));
	r->target = UINT64_MAX;
	r->w = td_worker_new(T, "tester", on_mail, r);
	assert_non_null(r->w);
	td_soon_init(&r->again, td_worker_loop(r->w), on_again, r);
}

static void close_rig(struct rig *r)
{
	td_worker_stop(r->w);
	td_soon_cancel(&r->again);
	td_timer_stop(&r->timer);
	td_worker_free(r->w);
	t_close();
}

/* What is asked for while the worker sleeps is done, there, and told. */
static void asked(void **state)
{
	struct rig r;
	open_rig(&r);
	for (uint64_t i = 1; i <= 20; i++) {
		td_worker_hold(r.w);
		r.target = i;
		r.reached = 0;
		td_soon_do(&r.again);
		assert_true(t_until(&r.reached, 20000));
		assert_int_equal(r.seen, i);
	}
	td_worker_hold(r.w);
	assert_false(pthread_equal(r.thread, pthread_self()));
	close_rig(&r);
}

/* Both add to one number that is no atomic: nothing of it is lost, and the main thread gets its turn every time.  So
 * does the worker, as soon as the machine has a processor for it. */
static void both_busy(void **state)
{
	struct rig r;
	uint64_t mine = 0, before = 0;
	open_rig(&r);
	td_worker_hold(r.w);
	r.busy = true;
	td_soon_do(&r.again);
	for (int i = 0; i < 2000 || (r.count == mine && i < 2000000); i++) {
		t_turns(1); /* gives it back */
		td_worker_hold(r.w);
		assert_true(r.count >= before);
		for (int k = 0; k < 1000; k++)
			*(volatile uint64_t *)&r.count += 1;
		mine += 1000;
		before = r.count;
	}
	assert_true(r.count > mine); /* the worker had turns as well */
	close_rig(&r);
}

static void on_fired(void *arg)
{
	struct rig *r = arg;
	r->thread = pthread_self();
	r->count++;
	td_worker_post(r->w);
}

/* A timer and a td_soon go on after they were moved, in the other thread. */
static void moved(void **state)
{
	struct rig r;
	open_rig(&r);
	td_timer_init(&r.timer, T, on_fired, &r);
	td_timer_in(&r.timer, 30 * TD_MS);
	td_worker_hold(r.w);
	r.target = 1;
	td_timer_move(&r.timer, td_worker_loop(r.w));
	assert_true(t_until(&r.reached, 20000));
	td_worker_hold(r.w);
	assert_false(pthread_equal(r.thread, pthread_self()));
	r.reached = 0;
	r.target = 2;
	td_soon_move(&r.again, T);
	td_soon_do(&r.again);
	td_soon_move(&r.again, td_worker_loop(r.w));
	assert_true(t_until(&r.reached, 20000));
	close_rig(&r);
}

/* Neither clock is behind what the other thread has written down. */
static void clocks(void **state)
{
	struct rig r;
	open_rig(&r);
	int never = 0;
	for (int i = 0; i < 20; i++) {
		t_until(&never, 1);
		uint64_t before = T->now;
		td_worker_hold(r.w);
		assert_true(td_worker_loop(r.w)->now >= before);
		assert_true(T->now >= before);
		td_loop_update(T);
		td_worker_hold(r.w);
		assert_true(td_worker_loop(r.w)->now >= T->now);
	}
	close_rig(&r);
}

/* It is told at the end of a turn, when the loop is about to sleep. */
static void on_room(void *arg)
{
	++*(int *)arg;
	ev_break(T->ev, EVBREAK_ONE);
}

static void fill_memory(void *arg)
{
	struct rig *r = arg;
	td_memory_change(r->fired ? -(128 << 20) : 128 << 20);
	r->count++;
	if (!r->fired++)
		td_worker_post(r->w);
}

/* Whoever waits for room on the main loop hears of what a worker gives back, while the main loop sleeps. */
static void room(void **state)
{
	struct rig r;
	int heard = 0;
	struct td_memory_waiter waiter = {0};
	open_rig(&r);
	td_memory_limit(64 << 20);
	td_memory_on_room(&waiter, T, on_room, &heard);
	td_soon_init(&r.again, td_worker_loop(r.w), fill_memory, &r);
	td_worker_hold(r.w);
	r.target = 1;
	td_soon_do(&r.again);
	assert_true(t_until(&r.reached, 20000));
	assert_true(td_memory_full());
	assert_int_equal(heard, 0);
	td_worker_hold(r.w);
	td_soon_do(&r.again);
	assert_true(t_until(&heard, 20000));
	td_memory_off_room(&waiter);
	td_memory_limit(96u << 20);
	close_rig(&r);
}

static void stopped(void **state)
{
	for (int i = 0; i < 50; i++) { /* before, while and after it begins */
		struct rig r;
		open_rig(&r);
		if (i % 2) {
			td_worker_hold(r.w);
			r.busy = true;
			td_soon_do(&r.again);
		}
		t_turns(i % 5);
		td_worker_stop(r.w);
		td_worker_hold(r.w); /* nobody is there: nothing */
		assert_true(td_worker_cpu(r.w) == 0);
		close_rig(&r);
	}
	td_worker_free(NULL);
	td_worker_stop(NULL);
	td_worker_hold(NULL);
	assert_in_range(td_worker_cores(), 1, TD_WORKERS_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(asked),  cmocka_unit_test(both_busy), cmocka_unit_test(moved),
	    cmocka_unit_test(clocks), cmocka_unit_test(room),	   cmocka_unit_test(stopped),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
