/* One set of keys: how services write it, and that nothing stays of it. */
#include "tests/daemon/base/td_test.h"
#include "lib/alloc.h"
#include "lib/json.h"
#include "lib/num.h"
#include "tunneld/aws/internal.h"

static int parse(struct td_keys *k, const char *end)
{
	char text[300];
	struct tnl_json *j;
	int rc;

	snprintf(text, sizeof(text), "{\"accessKeyId\":\"A\",\"SecretAccessKey\":\"s\",\"Token\":\"t\"%s%s}",
		 *end ? ",\"Expiration\":" : "", end);
	j = tnl_json_parse(text, strlen(text));
	assert_non_null(j);
	rc = td_keys_parse(k, j, "token");
	tnl_json_free(j);
	return rc;
}

static void test_ends(void **state)
{
	static const struct {
		const char *text;
		uint64_t s;
	} good[] = {{"", 0},
		    {"null", 0},
		    {"1700000000", 1700000000},
		    {"1700000000123", 1700000000},
		    {"\"2023-11-14T22:13:20Z\"", 1700000000},
		    {"\"2023-11-14T22:13:20UTC\"", 1700000000},
		    {"\"2023-11-14 22:13:20 UTC\"", 1700000000},
		    {"\"20231114T221320Z\"", 1700000000},
		    {"\"20231114T231320+0100\"", 1700000000}};
	static const char *const bad[] = {"\"\"", "\"soon\"", "\"20231114\"", "\"2023-11-14T22:13:20CET\"",
					  "0",	  "-1",	      "true",	      "{}"};
	struct td_keys k = {0};
	long before = tnl_alloc_live();

	for (size_t i = 0; i < TNL_COUNT(good); i++) {
		assert_int_equal(parse(&k, good[i].text), 0);
		assert_int_equal(k.expires_s, good[i].s);
		assert_string_equal(k.id, "A");
		assert_string_equal(k.secret, "s");
		assert_string_equal(k.token, "t");
	}
	/* what is refused leaves what was there */
	for (size_t i = 0; i < TNL_COUNT(bad); i++)
		if (parse(&k, bad[i]) != TNL_ESYNTAX)
			fail_msg("taken: %s", bad[i]);
	assert_string_equal(k.id, "A");
	td_keys_fini(&k);
	td_keys_fini(&k);
	assert_null(k.id);
	assert_int_equal(tnl_alloc_live(), before);
}

static void test_lacking(void **state)
{
	static const char *const bad[] = {"{}",
					  "[]",
					  "{\"AccessKeyId\":\"A\"}",
					  "{\"SecretAccessKey\":\"s\"}",
					  "{\"AccessKeyId\":\"\",\"SecretAccessKey\":\"s\"}",
					  "{\"AccessKeyId\":\"A\",\"SecretAccessKey\":1}"};
	struct td_keys k = {0};

	for (size_t i = 0; i < TNL_COUNT(bad); i++) {
		struct tnl_json *j = tnl_json_parse(bad[i], strlen(bad[i]));

		assert_int_equal(td_keys_parse(&k, j, "Token"), TNL_ESYNTAX);
		tnl_json_free(j);
	}
	assert_int_equal(td_keys_parse(&k, NULL, "Token"), TNL_ESYNTAX);
	assert_null(k.id);
	/* an empty token is none */
	assert_int_equal(td_keys_set(&k, "A", "s", "", 5), 0);
	assert_null(k.token);
	td_keys_fini(&k);
}

static void test_no_memory(void **state)
{
	struct td_keys k = {0};
	long before = tnl_alloc_live();

	assert_int_equal(td_keys_set(&k, "A", "s", "t", 0), 0);
	for (long n = 0; n < 3; n++) {
		tnl_alloc_fail_after(n, 0);
		assert_int_equal(td_keys_set(&k, "B", "s", "t", 0), TNL_ENOMEM);
		tnl_alloc_fail_after(-1, 0);
		assert_string_equal(k.id, "A");
	}
	td_keys_fini(&k);
	assert_int_equal(tnl_alloc_live(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_ends),
	    cmocka_unit_test(test_lacking),
	    cmocka_unit_test(test_no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
