/* How many links a session is to have when others have bulk, too. */
#include "tunneld/client/crowd.h"

#include "tests/daemon/base/td_test.h"
#include "tunneld/base/loop.h"

enum { MANY = 200 };
static struct td_crowd_member m[MANY];
static const char path, other;

static int begin(void **state)
{
	for (size_t i = 0; i < MANY; i++)
		td_crowd_init(&m[i]);
	return 0;
}

static int end(void **state)
{
	for (size_t i = 0; i < MANY; i++)
		td_crowd_leave(&m[i]);
	return 0;
}

static void few_have_what_they_want(void **state)
{
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(td_crowd_links(&m[i], &path, 8, TD_SEC), 8);
	assert_int_equal(td_crowd_links(&m[0], &path, 4, TD_SEC), 4); /* it is one, however often it tells */
}

static void more_share(void **state)
{
	for (size_t i = 0; i < 8; i++)
		td_crowd_links(&m[i], &path, 4, TD_SEC);
	assert_int_equal(td_crowd_links(&m[0], &path, 4, TD_SEC), 2);
	assert_int_equal(td_crowd_links(&m[1], &path, 8, TD_SEC), 4);
}

static void many_have_one(void **state)
{
	unsigned in_all = 0;
	for (size_t i = 0; i < MANY; i++)
		in_all += td_crowd_links(&m[i], &path, 4, TD_SEC) - 1;
	for (size_t i = 0; i < MANY; i++)
		assert_int_equal(td_crowd_links(&m[i], &path, 8, TD_SEC), 1);
	assert_true(in_all < 32); /* further ones, of those that were the first to tell */
}

static void other_paths_do_not_count(void **state)
{
	for (size_t i = 1; i < MANY; i++)
		td_crowd_links(&m[i], &other, 4, TD_SEC);
	assert_int_equal(td_crowd_links(&m[0], &path, 4, TD_SEC), 4);
}

static void quiet_ones_do_not_count(void **state)
{
	for (size_t i = 1; i < MANY; i++)
		td_crowd_links(&m[i], &path, 4, TD_SEC);
	assert_int_equal(td_crowd_links(&m[0], &path, 4, TD_SEC + TD_SEC / 2), 1);
	assert_int_equal(td_crowd_links(&m[0], &path, 4, 2 * TD_SEC), 4);
}

/* One after the other, so that never two have bulk within a second: what they keep is counted all the same. */
static void those_that_keep_links_count(void **state)
{
	uint64_t now = TD_SEC;
	unsigned in_all = 0;
	for (size_t i = 0; i < MANY; i++, now += 2 * TD_SEC) {
		unsigned n = td_crowd_links(&m[i], &path, 8, now);
		td_crowd_keep(&m[i], n > 1);
		in_all += n - 1;
	}
	assert_in_range(in_all, 4 * 7, 56);
	assert_int_equal(td_crowd_links(&m[0], &other, 8, now), 8);
	now += 2 * TD_SEC;
	for (size_t i = 0; i < MANY; i++)
		td_crowd_keep(&m[i], false);
	assert_int_equal(td_crowd_links(&m[MANY - 1], &path, 8, now), 8);
}

static void those_that_left_do_not_count(void **state)
{
	for (size_t i = 1; i < MANY; i++)
		td_crowd_links(&m[i], &path, 4, TD_SEC);
	for (size_t i = 1; i < MANY; i++)
		td_crowd_leave(&m[i]);
	td_crowd_leave(&m[1]);
	assert_int_equal(td_crowd_links(&m[0], &path, 4, TD_SEC), 4);
}

#define CROWD_TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    CROWD_TEST(few_have_what_they_want),
	    CROWD_TEST(more_share),
	    CROWD_TEST(many_have_one),
	    CROWD_TEST(other_paths_do_not_count),
	    CROWD_TEST(quiet_ones_do_not_count),
	    CROWD_TEST(those_that_keep_links_count),
	    CROWD_TEST(those_that_left_do_not_count),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
