/* So many bytes a second for all: the rate holds over any time, nobody is left out, who moves little goes first. */
#include "tests/unit/check.h"
#include "lib/num.h"
#include "lib/pace.h"

#define MS UINT64_C(1000000)
#define SEC (1000 * MS)
enum { WHO = 8 };

static struct world {
	struct tnl_pace pace;
	struct tnl_pace_turn who[WHO];
	size_t want[WHO], moved[WHO]; /* still to move; has */
	uint64_t now;
	bool later; /* who is named moves only when all have been named */
} W;

static void begin(uint64_t rate)
{
	memset(&W, 0, sizeof(W));
	W.now = 77 * SEC;
	tnl_pace_init(&W.pace, rate, W.now);
	for (int i = 0; i < WHO; i++)
		tnl_pace_turn_init(&W.who[i]);
}

/* All that one may move now, in pieces of at most `piece`. */
static void move(int i, size_t piece)
{
	while (W.want[i]) {
		size_t may = tnl_pace_may(&W.pace, &W.who[i], W.now);
		if (!may)
			return;
		may = TNL_MIN(TNL_MIN(may, piece), W.want[i]);
		tnl_pace_use(&W.who[i], may);
		W.moved[i] += may;
		W.want[i] -= may;
	}
	tnl_pace_rest(&W.pace, &W.who[i]);
}

/* To the next time that one may move, `late` behind it; false: nobody waits. */
static bool turn(uint64_t late, size_t piece)
{
	struct tnl_pace_turn *t;
	uint64_t due = tnl_pace_due(&W.pace);

	if (due == UINT64_MAX)
		return false;
	W.now = TNL_MAX(W.now, due) + late;
	bool named[WHO] = {false};
	while ((t = tnl_pace_next(&W.pace, W.now))) {
		if (!W.later)
			move((int)(t - W.who), piece);
		named[t - W.who] = W.later;
	}
	for (int i = 0; i < WHO; i++)
		if (named[i])
			move(i, piece);
	return true;
}

static size_t total(void)
{
	size_t sum = 0;
	for (int i = 0; i < WHO; i++)
		sum += W.moved[i];
	return sum;
}

static void holds(uint64_t rate, size_t piece, uint64_t late)
{
	begin(rate);
	uint64_t from = W.now;
	for (int i = 0; i < WHO; i++)
		W.want[i] = SIZE_MAX / 2;
	for (int i = 0; i < WHO; i++)
		move(i, piece);
	while (W.now - from < 20 * SEC) {
		assert_true(turn(late, piece));
		uint64_t el = W.now - from, due = el / MS * rate / 1000;
		assert_true(total() <= due + rate / 1000 + rate / 10 + 2 * W.pace.slice);
		assert_true(total() + 2 * W.pace.slice + rate * (late + MS) / SEC >= due);
	}
	size_t least = SIZE_MAX, most = 0;
	for (int i = 0; i < WHO; i++) {
		least = TNL_MIN(least, W.moved[i]);
		most = TNL_MAX(most, W.moved[i]);
	}
	assert_true(most - least <= TNL_TURNS_QUANTUM + 2 * W.pace.slice + rate / 10);
}

static void the_rate_holds_and_is_shared(void **state)
{
	static const uint64_t rates[] = {1024, 50000, 2 << 20, 100 << 20, UINT64_C(10) << 30};
	for (size_t i = 0; i < TNL_COUNT(rates); i++) {
		holds(rates[i], SIZE_MAX, 0);
		if (rates[i] < 10 << 20)
			holds(rates[i], 700, 0);
		holds(rates[i], SIZE_MAX, 5 * MS); /* the timer is late */
	}
}

static void little_before_bulk(bool later)
{
	begin(1 << 20);
	W.later = later;
	for (int i = 1; i < WHO; i++)
		W.want[i] = SIZE_MAX / 2;
	for (int i = 1; i < WHO; i++)
		move(i, SIZE_MAX);
	for (int i = 0; i < 200; i++)
		turn(0, SIZE_MAX);
	uint64_t worst = 0;
	for (int i = 0; i < 50; i++) {
		uint64_t asked = W.now;
		W.want[0] = 100;
		move(0, SIZE_MAX);
		while (W.want[0])
			turn(0, SIZE_MAX);
		worst = TNL_MAX(worst, W.now - asked);
		turn(0, SIZE_MAX);
	}
	assert_true(worst <= 2 * W.pace.slice * SEC / W.pace.rate + MS);
}

static void who_has_a_little_goes_before_the_bulk(void **state)
{
	little_before_bulk(false);
	little_before_bulk(true);
}

static void what_is_not_used_is_not_lost(void **state)
{
	begin(100000);
	W.want[0] = 10;
	move(0, SIZE_MAX);
	assert_int_equal(W.pace.credit, 10000 - 10); /* all else was given back */
	W.want[1] = SIZE_MAX / 2;
	move(1, SIZE_MAX);
	W.want[2] = 5000;
	move(2, SIZE_MAX);
	tnl_pace_rest(&W.pace, &W.who[2]); /* it waited, and gives up */
	assert_int_equal(W.pace.waiting, 1);
	turn(0, SIZE_MAX);
	assert_int_equal(W.moved[2], 0);
	tnl_pace_rest(&W.pace, &W.who[1]);
	assert_false(turn(0, SIZE_MAX));
	W.now += 3600 * SEC;
	size_t before = total();
	W.want[3] = SIZE_MAX / 2;
	move(3, SIZE_MAX);
	assert_true(total() - before <= 10000 + W.pace.slice); /* an hour's silence is no hour's burst */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_rate_holds_and_is_shared),
	    cmocka_unit_test(who_has_a_little_goes_before_the_bulk),
	    cmocka_unit_test(what_is_not_used_is_not_lost),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
