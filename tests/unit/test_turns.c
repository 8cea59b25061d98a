/* Turns by bytes: who comes before whom, how much, and that nobody starves. */
#include "tests/unit/check.h"
#include "lib/turns.h"
#include "lib/num.h"

struct one {
	struct tnl_turn t;
	bool ready;
	size_t message, sent; /* bytes of each of its messages, and in all */
};

struct table {
	struct tnl_turns q;
	struct one a, b, c;
};

static bool one_ready(const struct tnl_turn *t)
{
	return tnl_container_of(t, struct one, t)->ready;
}

static void open_one(struct one *o, size_t message)
{
	tnl_turn_init(&o->t);
	o->ready = true;
	o->message = message;
	o->sent = 0;
}

static void open_table(struct table *w)
{
	tnl_turns_init(&w->q, one_ready);
	open_one(&w->a, 1000);
	open_one(&w->b, 1000);
	open_one(&w->c, 1000);
}

static struct one *send_next(struct table *w)
{
	struct tnl_turn *t = tnl_turns_next(&w->q);
	if (!t)
		return NULL;
	struct one *o = tnl_container_of(t, struct one, t);
	o->sent += o->message;
	tnl_turn_charge(t, o->message);
	return o;
}

static void nobody_there(void **state)
{
	struct table w;
	(void)state;
	open_table(&w);
	assert_null(tnl_turns_next(&w.q));
	tnl_turns_join(&w.q, &w.a.t);
	w.a.ready = false;
	assert_null(tnl_turns_next(&w.q));
	assert_int_equal(w.a.t.place, TNL_TURN_NONE);
	w.a.ready = true;
	assert_null(tnl_turns_next(&w.q)); /* it has to join again */
}

static void shares_are_equal_by_bytes(void **state)
{
	static const size_t messages[][2] = {{1000, 1000}, {100, 16000}, {32768, 700}, {60000, 64}};
	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		struct table w;
		open_table(&w);
		w.a.message = messages[i][0];
		w.b.message = messages[i][1];
		tnl_turns_join(&w.q, &w.a.t);
		tnl_turns_join(&w.q, &w.b.t);
		while (w.a.sent + w.b.sent < 10000000)
			assert_non_null(send_next(&w));
		size_t more = TNL_MAX(w.a.sent, w.b.sent) - TNL_MIN(w.a.sent, w.b.sent);
		assert_true(more <= 60000 + 2 * TNL_TURNS_QUANTUM);
	}
}

static void a_new_one_goes_first(void **state)
{
	struct table w;
	(void)state;
	open_table(&w);
	tnl_turns_join(&w.q, &w.a.t);
	tnl_turns_join(&w.q, &w.b.t);
	for (int i = 0; i < 100; i++)
		send_next(&w);
	tnl_turns_join(&w.q, &w.c.t);
	assert_ptr_equal(send_next(&w), &w.c);
	/* And has one whole turn before the others go on. */
	while (send_next(&w) == &w.c)
		;
	assert_int_equal(w.c.sent, 17000);
}

/* Short turns: one small message each, and large ones are paid off turn by turn. */
static void turns_are_as_long_as_is_said(void **state)
{
	struct table w;
	(void)state;
	open_table(&w);
	tnl_turns_set_quantum(&w.q, 1000);
	tnl_turns_join(&w.q, &w.a.t);
	tnl_turns_join(&w.q, &w.b.t);
	for (int i = 0; i < 10; i++) {
		struct one *o = send_next(&w);
		assert_ptr_equal(o, i % 2 ? &w.b : &w.a);
	}
	w.a.message = 5000;
	for (int i = 0; i < 12; i++)
		send_next(&w);
	assert_int_equal(w.a.sent - 5000, 2 * 5000);
	assert_int_equal(w.b.sent - 5000, 10 * 1000);
	tnl_turns_set_quantum(&w.q, SIZE_MAX);
	tnl_turns_join(&w.q, &w.c.t);
	assert_int_equal(w.c.t.left, TNL_TURNS_QUANTUM);
}

/* One that runs dry after each message and comes back at once must not be new each time. */
static void who_comes_back_as_new_starves_nobody(void **state)
{
	struct table w;
	(void)state;
	open_table(&w);
	tnl_turns_join(&w.q, &w.a.t);
	for (int i = 0; i < 100; i++)
		send_next(&w);
	size_t before = w.a.sent;
	w.c.message = 16000;
	for (int i = 0; i < 1000; i++) {
		w.c.ready = true;
		tnl_turns_join(&w.q, &w.c.t);
		send_next(&w);
		w.c.ready = false;
		assert_ptr_equal(tnl_turns_next(&w.q), &w.a.t); /* asked, and then nothing may be sent */
	}
	assert_in_range(w.a.sent - before, 800000, 1000000);
	assert_in_range(w.c.sent, 800000, 1000000);
}

static void newcomers(void **state)
{
	struct table w;
	(void)state;
	open_table(&w);
	assert_null(tnl_turns_newcomer(&w.q));
	tnl_turns_join(&w.q, &w.a.t);
	assert_null(tnl_turns_newcomer(&w.q)); /* nobody to pass by */
	for (int i = 0; i < 20; i++)
		send_next(&w);
	assert_null(tnl_turns_newcomer(&w.q));
	tnl_turns_join(&w.q, &w.b.t);
	tnl_turns_join(&w.q, &w.c.t);
	assert_ptr_equal(tnl_turns_newcomer(&w.q), &w.b.t);
	assert_ptr_equal(tnl_turns_newcomer(&w.q), &w.b.t);
	assert_ptr_equal(send_next(&w), &w.b);
	assert_null(tnl_turns_newcomer(&w.q)); /* has sent, and is still before c */
	w.b.ready = false;
	assert_ptr_equal(tnl_turns_newcomer(&w.q), &w.c.t);
	assert_int_equal(w.b.t.place, TNL_TURN_OLD);
	w.c.ready = false;
	assert_null(tnl_turns_newcomer(&w.q));
	assert_ptr_equal(send_next(&w), &w.a);
}

static void who_was_held_up_goes_behind_the_others(void **state)
{
	struct table w;
	(void)state;
	open_table(&w);
	tnl_turns_join(&w.q, &w.a.t);
	tnl_turns_join(&w.q, &w.b.t);
	w.a.message = TNL_TURNS_QUANTUM;
	w.b.message = TNL_TURNS_QUANTUM;
	send_next(&w);
	send_next(&w);
	w.b.ready = false; /* its window is full */
	for (int i = 0; i < 4; i++)
		assert_ptr_equal(send_next(&w), &w.a);
	assert_int_equal(w.b.t.place, TNL_TURN_NONE);
	w.b.ready = true;
	tnl_turns_join(&w.q, &w.c.t);
	tnl_turns_return(&w.q, &w.b.t);
	assert_int_equal(w.b.t.place, TNL_TURN_OLD);
	assert_ptr_equal(send_next(&w), &w.c);
	assert_true(w.b.t.left > 0);
}

/* What it owes from its last turn is not forgotten when it was held up, but is when it ran dry. */
static void debts(void **state)
{
	struct table w;
	(void)state;
	open_table(&w);
	w.a.message = 60000;
	tnl_turns_join(&w.q, &w.a.t);
	send_next(&w);
	assert_int_equal(w.a.t.left, TNL_TURNS_QUANTUM - 60000);
	tnl_turns_leave(&w.a.t);
	tnl_turns_return(&w.q, &w.a.t);
	assert_int_equal(w.a.t.left, 2 * TNL_TURNS_QUANTUM - 60000);
	tnl_turns_leave(&w.a.t);
	w.a.t.left = 100;
	tnl_turns_return(&w.q, &w.a.t);
	assert_int_equal(w.a.t.left, 100); /* nor does it get more than it had */
	tnl_turns_leave(&w.a.t);
	tnl_turns_join(&w.q, &w.a.t);
	assert_int_equal(w.a.t.left, TNL_TURNS_QUANTUM);
}

static void a_place_is_taken_once(void **state)
{
	struct table w;
	(void)state;
	open_table(&w);
	tnl_turns_join(&w.q, &w.a.t);
	send_next(&w);
	tnl_turns_join(&w.q, &w.a.t);
	tnl_turns_return(&w.q, &w.a.t);
	assert_int_equal(w.a.t.left, TNL_TURNS_QUANTUM - 1000);
	assert_int_equal(w.a.t.place, TNL_TURN_NEW);
	tnl_turns_leave(&w.a.t);
	tnl_turns_leave(&w.a.t);
	assert_null(tnl_turns_next(&w.q));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(nobody_there),
	    cmocka_unit_test(shares_are_equal_by_bytes),
	    cmocka_unit_test(a_new_one_goes_first),
	    cmocka_unit_test(turns_are_as_long_as_is_said),
	    cmocka_unit_test(who_comes_back_as_new_starves_nobody),
	    cmocka_unit_test(newcomers),
	    cmocka_unit_test(who_was_held_up_goes_behind_the_others),
	    cmocka_unit_test(debts),
	    cmocka_unit_test(a_place_is_taken_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
