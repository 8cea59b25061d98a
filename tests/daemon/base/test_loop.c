/* The loop: timers, deferred calls, waking from a suspend, back-off; and the memory account. */
#include "tests/daemon/base/td_test.h"
#include "lib/alloc.h"
#include "tunneld/base/memory.h"

struct order {
	char log[64];
	size_t n;
};
static struct order *O;
struct mark {
	char c;
	int again;
};

static void mark(void *arg)
{
	struct mark *m = arg;
	O->log[O->n++] = m->c;
	if (m->again-- > 0)
		td_loop_defer(T, mark, m);
}

static void deferred(void **state)
{
	struct order o = {0};
	struct mark a = {'a', 1}, b = {'b', 0}, c = {'c', 30};
	O = &o;
	t_open();
	td_loop_defer(T, mark, &a);
	td_loop_defer(T, mark, &b);
	assert_int_equal(o.n, 0); /* not inside the call */
	t_turns(1);
	assert_string_equal(o.log, "aba"); /* in their order, and what they defer after them */
	/* a chain longer than one turn does is finished without an event to wake the loop */
	memset(&o, 0, sizeof(o));
	td_loop_defer(T, mark, &c);
	int flag = 0;
	assert_false(t_until(&flag, 50));
	assert_int_equal(o.n, 31);
	/* the last ones run when the loop is freed */
	memset(&o, 0, sizeof(o));
	b.again = 2;
	td_loop_defer(T, mark, &b);
	t_close();
	assert_string_equal(o.log, "bbb");
}

static void log_c(void *arg)
{
	O->log[O->n++] = *(const char *)arg;
}

static struct td_soon *victim;

static void cancel_victim(void *arg)
{
	log_c(arg);
	td_soon_cancel(victim);
}

static void soon(void **state)
{
	struct order o = {0};
	struct td_soon a = {0}, b, c;
	O = &o;
	t_open();
	td_soon_cancel(&a); /* never initialised: fine */
	td_soon_init(&a, T, log_c, (char[]){"a"});
	td_soon_init(&b, T, log_c, (char[]){"b"});
	td_soon_init(&c, T, cancel_victim, (char[]){"c"});
	td_soon_do(&b);
	td_soon_do(&a);
	td_soon_do(&b); /* once, at its first place */
	assert_int_equal(o.n, 0);
	t_turns(1);
	assert_string_equal(o.log, "ba");
	/* cancelled, also by what runs before it in the same round */
	memset(&o, 0, sizeof(o));
	td_soon_do(&a);
	td_soon_cancel(&a);
	td_soon_do(&c);
	td_soon_do(&b);
	victim = &b;
	t_turns(2);
	assert_string_equal(o.log, "c");
	/* after a cancel it can be asked for again; together with td_loop_defer in the order of the calls */
	struct mark m = {'m', 0};
	memset(&o, 0, sizeof(o));
	td_soon_do(&b);
	td_loop_defer(T, mark, &m);
	td_soon_do(&a);
	t_turns(1);
	assert_string_equal(o.log, "bma");
	t_close();
}

static void at_free(void **state)
{
	struct order o = {0};
	O = &o;
	t_open();
	td_loop_at_free(T, log_c, (char[]){"1"});
	td_loop_at_free(T, log_c, (char[]){"2"});
	td_loop_free_later(T, NULL);
	char *p = tnl_strdup("x");
	td_loop_defer(T, log_c, p); /* still there: what was asked for before runs before */
	td_loop_free_later(T, p);
	t_close();
	assert_string_equal(o.log, "x21");
}

static int fired;
static uint64_t fired_at;

static void on_fire(void *arg)
{
	fired++;
	fired_at = T->now;
	if (arg)
		td_timer_in(arg, 1 * TD_MS);
}

static void timers(void **state)
{
	struct td_timer t, never;
	t_open();
	fired = 0;
	td_timer_init(&t, T, on_fire, NULL);
	td_timer_init(&never, T, on_fire, NULL);
	uint64_t at = T->now + 20 * TD_MS;
	td_timer_at(&t, at);
	td_timer_in(&never, UINT64_MAX);
	assert_int_equal(never.at, UINT64_MAX);
	assert_true(t_until(&fired, 5000));
	assert_true(fired_at >= at); /* never early */
	assert_int_equal(t.at, UINT64_MAX);
	for (int i = 0; i < 100; i++) { /* odd fractions of a millisecond */
		fired = 0;
		at = T->now + 300001 + 7919 * (uint64_t)i;
		td_timer_at(&t, at);
		assert_true(t_until(&fired, 5000));
		assert_true(fired_at >= at);
	}
	/* armed again: only the last time counts */
	fired = 0;
	td_timer_in(&t, 3600 * TD_SEC);
	td_timer_in(&t, 5 * TD_MS);
	assert_true(t_until(&fired, 5000));
	/* stopped */
	fired = 0;
	td_timer_in(&t, 5 * TD_MS);
	td_timer_at(&t, UINT64_MAX);
	assert_false(t_until(&fired, 30));
	/* in the past: in the next turn; armed from inside its own call */
	td_timer_init(&t, T, on_fire, &t);
	td_timer_at(&t, 1);
	assert_int_equal(fired, 0);
	for (int i = 0; i < 1000 && fired < 5; i++)
		ev_run(T->ev, EVRUN_ONCE);
	assert_int_equal(fired, 5);
	td_timer_stop(&t);
	td_timer_stop(&t);
	t_close();
}

static void stop_now(void *arg)
{
	fired++;
	td_loop_stop(T);
}

static void runs_until_stopped(void **state)
{
	struct td_timer t;
	t_open();
	fired = 0;
	td_timer_init(&t, T, stop_now, NULL);
	td_timer_in(&t, 5 * TD_MS);
	td_loop_run(T);
	assert_int_equal(fired, 1);
	td_loop_defer(T, stop_now, NULL); /* from a deferred call too */
	td_loop_run(T);
	assert_int_equal(fired, 2);
	t_close();
}

static int woken;

static void on_wake(void *arg)
{
	woken++;
	if (arg)
		td_loop_off_wake(T, on_wake, arg);
}

static void waking(void **state)
{
	t_open();
	woken = 0;
	td_loop_on_wake(T, on_wake, NULL);
	td_loop_on_wake(T, on_wake, &woken);
	uint64_t mono = 1000 * TD_SEC, ahead = 0;
	t_turns(3);
	assert_int_equal(woken, 0);
	td_loop_clocks(T, mono, mono + ahead);
	td_loop_clocks(T, mono + TD_SEC, mono + TD_SEC + 1900 * TD_MS); /* less than 2 s: no sleep */
	t_turns(1);
	assert_int_equal(woken, 0);
	td_loop_free(T);
	/* anew: the jump */
	T = td_loop_new();
	td_loop_on_wake(T, on_wake, NULL);
	td_loop_on_wake(T, on_wake, &woken);
	uint64_t far = 1ull << 60; /* far ahead of what the real clocks say */
	td_loop_clocks(T, mono, mono + far);
	ev_run(T->ev, EVRUN_NOWAIT);
	assert_int_equal(woken, 2); /* both, once */
	td_loop_clocks(T, mono, mono + far);
	td_loop_clocks(T, mono, mono + far + 3 * TD_SEC);
	ev_run(T->ev, EVRUN_NOWAIT);
	t_close();
	assert_in_range(woken, 3, 4); /* the second had taken itself off */
}

static void backoff(void **state)
{
	struct td_backoff b;
	uint64_t bound = 200 * TD_MS, lo = UINT64_MAX, hi = 0;
	td_backoff_init(&b, 100 * TD_MS, 5 * TD_SEC);
	for (int i = 0; i < 12; i++) {
		uint64_t d = td_backoff_next(&b);
		assert_in_range(d, 100 * TD_MS, bound);
		bound = bound * 2 > 5 * TD_SEC ? 5 * TD_SEC : bound * 2;
	}
	for (int i = 0; i < 1000; i++) { /* jitter over the whole range */
		uint64_t d = td_backoff_next(&b);
		lo = d < lo ? d : lo;
		hi = d > hi ? d : hi;
	}
	assert_true(lo < 500 * TD_MS && hi > 4500 * TD_MS);
	uint64_t grown = b.cur;
	td_backoff_up(&b, 9 * TD_SEC); /* not up for long enough */
	assert_int_equal(b.cur, grown);
	td_backoff_up(&b, 10 * TD_SEC);
	assert_in_range(td_backoff_next(&b), 100 * TD_MS, 200 * TD_MS);
	td_backoff_init(&b, 1, 0); /* nonsense does not divide by zero */
	assert_int_equal(td_backoff_next(&b), 1);
}

struct room {
	struct td_memory_waiter w;
	int told;
	int64_t takes;
};

static void on_room(void *arg)
{
	struct room *r = arg;
	r->told++;
	td_memory_change(r->takes);
}

static void memory(void **state)
{
	enum { MB = 1 << 20 };
	struct room a = {0}, b = {0};
	t_open();
	struct td_loop *other = td_loop_new();
	td_memory_limit(800 * MB);
	td_memory_off_room(&a.w); /* never on: fine */
	td_memory_on_room(&a.w, T, on_room, &a);
	td_memory_on_room(&b.w, other, on_room, &b);
	td_memory_change(800 * MB);
	assert_false(td_memory_full());
	td_memory_change(1);
	assert_true(td_memory_full());
	td_memory_change(-50 * MB); /* below the limit, not below 7/8 of it */
	t_turns(2);
	assert_int_equal(a.told, 0);
	td_memory_change(-60 * MB);
	assert_int_equal(a.told, 0); /* not inside the call */
	t_turns(2);
	assert_int_equal(a.told, 1);
	assert_int_equal(b.told, 0); /* each on its own loop */
	ev_run(other->ev, EVRUN_NOWAIT);
	assert_int_equal(b.told, 1);
	td_memory_change(-100 * MB); /* told once */
	t_turns(2);
	ev_run(other->ev, EVRUN_NOWAIT);
	assert_int_equal(a.told + b.told, 2);
	/* what the first takes the second does not find, and hears of it later */
	td_memory_off_room(&b.w);
	td_memory_on_room(&b.w, T, on_room, &b);
	td_memory_change(1000 * MB);
	b.takes = 750 * MB;
	td_memory_change(-(int64_t)td_memory_told());
	t_turns(2);
	assert_int_equal(b.told, 2);
	assert_int_equal(a.told, 1);
	b.takes = 0;
	td_memory_change(-700 * MB);
	t_turns(2);
	assert_int_equal(a.told, 2);
	/* taken off while it waits to be told */
	td_memory_change(1000 * MB);
	td_memory_change(-1000 * MB);
	td_memory_off_room(&b.w);
	t_turns(2);
	assert_int_equal(a.told, 3);
	assert_int_equal(b.told, 3);
	td_memory_off_room(&a.w);
	td_memory_off_room(&a.w);
	td_memory_change(-(int64_t)td_memory_told());
	td_memory_limit(96 * MB);
	td_loop_free(other);
	t_close();
}

/* Greedy owners get one part of n + 1 each, whoever comes next finds as much, and those who wait hear of room. */
static void memory_shares(void **state)
{
	enum { MB = 1 << 20 };
	uint64_t kept[4] = {0}, all, left = 0;
	struct room a = {0};
	t_open();
	td_memory_limit(tnl_alloc_bytes() / 7 * 8 + 64 * MB);
	td_memory_on_room(&a.w, T, on_room, &a);
	all = td_memory_max() - td_memory_max() / 8 - td_memory_used();
	for (int n = 1; n <= 3; n++) {
		for (bool more = true; more;) {
			more = false;
			for (int i = 0; i < n; i++) {
				if (!td_memory_may_keep(kept[i], 1))
					continue;
				kept[i] += MB / 4;
				td_memory_change(MB / 4);
				more = true;
			}
		}
		for (int i = 0; i < n && n == 1; i++)
			assert_in_range(kept[i], all / 2 - MB / 4, all / 2 + MB / 2);
		assert_true(td_memory_may_keep(0, 1)); /* the next one */
		assert_false(td_memory_spent());
		left = td_memory_max() - td_memory_max() / 8 - td_memory_used();
	}
	assert_true(kept[2] > 0 && left > 0);
	assert_true(td_memory_may_keep(kept[2], 4)); /* the same, with more weight */
	t_turns(3);
	assert_int_equal(a.told, 0);
	td_memory_change(-(int64_t)kept[0]); /* the account was never full */
	t_turns(3);
	assert_int_equal(a.told, 1);
	assert_true(td_memory_may_keep(kept[1], 1));
	td_memory_off_room(&a.w);
	td_memory_change(-(int64_t)td_memory_told());
	td_memory_limit(96 * MB);
	t_close();
}

/* Least shares of very many are no more than a quarter together. */
static void memory_least(void **state)
{
	enum { MB = 1 << 20 };
	t_open();
	td_memory_limit(64 * MB);
	assert_int_equal(td_memory_least(), 128 * 1024);
	td_memory_count_owner(56); /* 7/8 of 64 MiB, a quarter of that: 14 MiB */
	assert_int_equal(td_memory_least(), 128 * 1024);
	td_memory_count_owner(1000 - 56);
	assert_int_equal(td_memory_least(), 14 * MB / 1000);
	td_memory_count_owner(-1000);
	assert_int_equal(td_memory_least(), 128 * 1024);
	td_memory_change(31 * MB);
	assert_true(td_memory_half_free());
	td_memory_change(2 * MB);
	assert_false(td_memory_half_free());
	td_memory_change(-33 * MB);
	td_memory_limit(96 * MB);
	t_close();
}

/* What the heap takes and gives back without a word to the account. */
static void memory_unreported(void **state)
{
	struct room a = {0};
	t_open();
	td_memory_limit(tnl_alloc_bytes() + (8u << 20));
	td_memory_on_room(&a.w, T, on_room, &a);
	assert_false(td_memory_full());
	void *p = tnl_malloc(9u << 20);
	assert_non_null(p);
	assert_true(td_memory_full());
	assert_true(td_memory_used() > 9u << 20);
	t_turns(3);
	assert_int_equal(a.told, 0);
	td_loop_free_later(T, p); /* at the very end of a turn */
	t_turns(1);
	assert_int_equal(a.told, 1);
	assert_false(td_memory_full());
	td_memory_off_room(&a.w);
	td_memory_limit(96u << 20);
	t_close();
}

static size_t resident(void)
{
	unsigned long all = 0, now = 0;
	FILE *f = fopen("/proc/self/statm", "r");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%lu %lu", &all, &now), 2);
	fclose(f);
	return now * (size_t)sysconf(_SC_PAGESIZE);
}

/* Buffers that are free go back to the system although small things around them stay. */
static void memory_given_back(void **state)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	skip(); /* another heap */
#endif
	enum { BLOCKS = 256, BLOCK = 48 * 1024 };
	void *large[BLOCKS], *small[BLOCKS];
	size_t most;
	int never = 0;
	t_open();
	for (int i = 0; i < BLOCKS; i++) {
		large[i] = tnl_malloc(BLOCK);
		small[i] = tnl_malloc(2000);
		memset(large[i], 1, BLOCK);
	}
	for (int i = 0; i < BLOCKS; i++)
		tnl_free(large[i]);
	most = resident();
	uint64_t from = T->now;
	td_loop_give_back(T);
	assert_true(T->give_back.at == from + TD_SEC);
	for (T->now = from; T->now < from + 9 * TD_SEC; T->now += TD_SEC / 2) {
		td_loop_give_back(T);
		assert_true(T->give_back.at == T->now + TD_SEC);
	}
	T->now = from + 95 * TD_SEC / 10;
	td_loop_give_back(T);
	assert_true(T->give_back.at == from + 10 * TD_SEC);
	td_timer_stop(&T->give_back);
	T->now = from;
	td_loop_give_back(T);
	for (int i = 0; i < 200 && resident() + BLOCKS * BLOCK / 2 > most; i++)
		t_until(&never, 50);
	assert_true(resident() + BLOCKS * BLOCK / 2 <= most);
	for (int i = 0; i < BLOCKS; i++)
		tnl_free(small[i]);
	t_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(deferred),
	    cmocka_unit_test(soon),
	    cmocka_unit_test(at_free),
	    cmocka_unit_test(timers),
	    cmocka_unit_test(runs_until_stopped),
	    cmocka_unit_test(waking),
	    cmocka_unit_test(backoff),
	    cmocka_unit_test(memory),
	    cmocka_unit_test(memory_unreported),
	    cmocka_unit_test(memory_shares),
	    cmocka_unit_test(memory_least),
	    cmocka_unit_test(memory_given_back),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
