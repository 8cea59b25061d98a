/* store and node in [gateway]: what is taken, and that a password is never shown. */
#include "tests/daemon/base/td_test.h"
#include "tunneld/config/internal.h"

static const char *fault_of(const char *(*fault)(const char *, size_t *), const char *value)
{
	size_t n = strlen(value);
	return fault(value, &n);
}

static void test_store(void **state)
{
	static const char *const good[] = {"sqlite:s.db", "sqlite::memory:", "redis://h",
					   "rediss://u:p@h:1,i/2?sentinel=m"};
	static const char *const bad[] = {"",	     "sqlite:",	    "redis:h",	     "redis://",
					  "mysql:x", "redis://h:0", "redis://u@h/x", "rediss://h?db=1"};
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_null(fault_of(td_text_store_fault, good[i]));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (!fault_of(td_text_store_fault, bad[i]))
			fail_msg("taken: %s", bad[i]);
	const struct td_opt *o = td_opt_find(TD_SECTION_GATEWAY, "store");
	assert_non_null(o);
	assert_true(o->flags & TD_F_SECRET);
}

static void test_node(void **state)
{
	assert_null(fault_of(td_text_node_fault, "gw_1"));
	assert_non_null(fault_of(td_text_node_fault, "gw-1"));
	assert_non_null(fault_of(td_text_node_fault, "a23456789012345678901234567890123"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_store), cmocka_unit_test(test_node)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
