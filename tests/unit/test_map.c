#include "tests/unit/check.h"
#include "lib/alloc.h"
#include "lib/map.h"

/* 30,000 seeded changes against a plain array. */
static void agrees_with_a_model(void **state)
{
	enum { KEYS = 500 };
	static char values[KEYS];
	void *model[KEYS] = {0};
	struct tnl_map *m = tnl_map_new();
	size_t count = 0;
	uint32_t r = 7;

	tnl_map_seed((const uint64_t[]){42, 43});
	for (int i = 0; i < 30000; i++) {
		r = r * 1664525 + 1013904223;
		uint32_t k = r >> 8 & 0xffff;
		k %= KEYS;
		if (r >> 30) {
			void *v = &values[(r >> 12) % KEYS];
			assert_int_equal(tnl_map_set_u64(m, k, v), 0);
			count += !model[k];
			model[k] = v;
		} else {
			assert_ptr_equal(tnl_map_del_u64(m, k), model[k]);
			count -= model[k] != NULL;
			model[k] = NULL;
		}
		assert_ptr_equal(tnl_map_get_u64(m, k), model[k]);
		assert_int_equal(tnl_map_count(m), count);
	}
	for (uint32_t k = 0; k < KEYS; k++)
		assert_ptr_equal(tnl_map_get_u64(m, k), model[k]);
	tnl_map_free(m);
}

static void keys_are_copied_and_bytes_count(void **state)
{
	struct tnl_map *m = tnl_map_new();
	char key[] = "name", v1, v2, v3;

	assert_int_equal(tnl_map_set_str(m, key, &v1), 0);
	key[0] = 'X';
	assert_ptr_equal(tnl_map_get_str(m, "name"), &v1);
	assert_null(tnl_map_get_str(m, "Xame"));
	assert_int_equal(tnl_map_set(m, "na\0me", 5, &v2), 0);
	assert_int_equal(tnl_map_set(m, "", 0, &v3), 0);
	assert_ptr_equal(tnl_map_get(m, "na\0me", 5), &v2);
	assert_null(tnl_map_get(m, "na\0mf", 5));
	assert_ptr_equal(tnl_map_get(m, "", 0), &v3);
	assert_int_equal(tnl_map_set_str(m, "name", &v2), 0);
	assert_int_equal(tnl_map_count(m), 3);
	assert_ptr_equal(tnl_map_del_str(m, "name"), &v2);
	assert_null(tnl_map_del_str(m, "name"));
	tnl_map_free(m);
	tnl_map_free(NULL);
}

static void iteration_with_deletion(void **state)
{
	struct tnl_map *m = tnl_map_new();
	static char values[100];
	int seen[100] = {0};
	size_t it = 0, klen;
	const void *key;
	char *v;

	assert_null(tnl_map_next(m, &it, NULL, NULL));
	for (uint64_t i = 0; i < 100; i++)
		assert_int_equal(tnl_map_set_u64(m, i, &values[i]), 0);
	it = 0;
	while ((v = tnl_map_next(m, &it, &key, &klen))) {
		uint64_t k;
		assert_int_equal(klen, sizeof(k));
		memcpy(&k, key, sizeof(k));
		assert_ptr_equal(v, &values[k]);
		seen[k]++;
		if (k % 2)
			assert_ptr_equal(tnl_map_del(m, key, klen), v);
	}
	for (int i = 0; i < 100; i++)
		assert_int_equal(seen[i], 1);
	assert_int_equal(tnl_map_count(m), 50);
	tnl_map_free(m);
}

static void memory_failure_leaves_the_map_whole(void **state)
{
	struct tnl_map *m = tnl_map_new();
	char v;

	for (uint64_t i = 0; i < 200; i++)
		for (long after = 0;; after++) {
			tnl_alloc_fail_after(after, 1);
			int rc = tnl_map_set_u64(m, i, &v);
			tnl_alloc_fail_after(-1, 0);
			if (!rc)
				break;
			assert_int_equal(rc, TNL_ENOMEM);
			assert_int_equal(tnl_map_count(m), i);
			assert_null(tnl_map_get_u64(m, i));
			if (i)
				assert_ptr_equal(tnl_map_get_u64(m, i - 1), &v);
		}
	tnl_map_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(agrees_with_a_model),
	    cmocka_unit_test(keys_are_copied_and_bytes_count),
	    cmocka_unit_test(iteration_with_deletion),
	    cmocka_unit_test(memory_failure_leaves_the_map_whole),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
