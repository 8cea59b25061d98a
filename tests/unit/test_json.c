#include "tests/unit/check.h"
#include "lib/alloc.h"
#include "lib/num.h"
#include "lib/json.h"
#include "lib/steps.h"

static struct tnl_json *parse(const char *s)
{
	uint8_t *p = exact_copy(s, strlen(s));
	struct tnl_json *j = tnl_json_parse(p, strlen(s));
	free(p);
	return j;
}

static void looking_up(void **state)
{
	struct tnl_json *j = parse(" {\"a\":\"x\",\"Num\":-12,\"f\":1.5,\"t\":true,\"z\":null,\"l\":[1,\"two\",{}],"
				   "\"big\":9007199254740993,\"e\":1e3,\"A\":\"upper\"} ");
	int64_t v = 0;

	assert_non_null(j);
	assert_string_equal(tnl_json_get_str(j, "a"), "x");
	assert_string_equal(tnl_json_str(tnl_json_iget(j, "A")), "upper"); /* exact spelling first */
	assert_null(tnl_json_get(j, "num"));
	assert_true(tnl_json_int(tnl_json_iget(j, "num"), &v));
	assert_int_equal(v, -12);
	assert_true(tnl_json_int(tnl_json_get(j, "e"), &v));
	assert_int_equal(v, 1000);
	assert_false(tnl_json_int(tnl_json_get(j, "f"), &v));
	assert_false(tnl_json_int(tnl_json_get(j, "a"), &v));
	assert_false(tnl_json_int(NULL, &v));
	assert_true(tnl_json_bool(tnl_json_get(j, "t"), false));
	assert_true(tnl_json_bool(tnl_json_get(j, "a"), true));
	assert_true(tnl_json_is_null(tnl_json_get(j, "z")));
	assert_false(tnl_json_is_null(NULL));
	const struct tnl_json *l = tnl_json_get(j, "l");
	assert_true(tnl_json_is_arr(l));
	assert_int_equal(tnl_json_len(l), 3);
	assert_string_equal(tnl_json_str(tnl_json_at(l, 1)), "two");
	assert_true(tnl_json_is_obj(tnl_json_at(l, 2)));
	assert_null(tnl_json_at(l, 3));
	assert_null(tnl_json_at(l, -1));
	assert_int_equal(tnl_json_len(j), 9);
	assert_string_equal(tnl_json_key(tnl_json_at(j, 1)), "Num");
	assert_null(tnl_json_get(l, "a"));
	assert_null(tnl_json_get(NULL, "a"));
	assert_int_equal(tnl_json_len(NULL), 0);
	assert_null(tnl_json_str(NULL));
	tnl_json_free(j);
	tnl_json_free(NULL);
}

static const char *const bad_syntax[] = {
    "",
    " ",
    "{",
    "}",
    "{\"a\"}",
    "{\"a\":}",
    "{\"a\":1,}",
    "[1,]",
    "[1 2]",
    "{a:1}",
    "{'a':1}",
    "01",
    "1.",
    ".5",
    "-",
    "+1",
    "1e",
    "0x1",
    "NaN",
    "Infinity",
    "nul",
    "truex",
    "1 2",
    "{} x",
    "\"a",
    "\"\\x\"",
    "\"\\u12\"",
    "\"\\u0000\"",
    "\"a\tb\"",
    "\"a\nb\"",
    "\"\xff\"",
    "{\"a\":1,\"a\":2}",
    "{\"b\":{\"x\":1,\"x\":1}}",
    "[{\"k\":0},{\"k\":0,\"k\":1}]",
    "\xef\xbb\xbf{}",
    "\"\\ud800\"",
    "[1]/**/",
    "\x01{}",
    "1111111111111111111111111111111111111111111111111111111111111111111111",
};
static const char *const good_syntax[] = {"{}",
					  "[]",
					  "\"\"",
					  "0",
					  "-0.5e+10",
					  "null",
					  "\t[ ]\r\n",
					  "\"\\u00e4\\ud83d\\ude00\"",
					  "{\"a\":1,\"A\":2}",
					  "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""};

static void strict_syntax(void **state)
{
	long live = tnl_alloc_live();

	for (size_t i = 0; i < TNL_COUNT(bad_syntax); i++) {
		struct tnl_json *j = parse(bad_syntax[i]);
		if (j)
			fail_msg("accepted: %s", bad_syntax[i]);
	}
	assert_null(tnl_json_parse("{}\0", 3));
	for (size_t i = 0; i < TNL_COUNT(good_syntax); i++) {
		struct tnl_json *j = parse(good_syntax[i]);
		if (!j)
			fail_msg("refused: %s", good_syntax[i]);
		tnl_json_free(j);
	}
	assert_int_equal(tnl_alloc_live(), live);
}

/* What a value costs does not depend on what it holds: steps and bytes for each byte of input. */
static void cost_is_bounded_by_the_input(void **state)
{
	enum { N = 250000 };
	char *text = test_malloc(N + 16);
	size_t n = 0;

	/* many objects with as many keys as are allowed */
	text[n++] = '[';
	while (n < N - 20000) {
		if (n > 1)
			text[n++] = ',';
		text[n++] = '{';
		for (int i = 0; i < 1024; i++)
			n += (size_t)sprintf(text + n, "%s\"%d\":%d", i ? "," : "", i, i);
		text[n++] = '}';
	}
	text[n++] = ']';
	size_t held = tnl_alloc_bytes();
	uint64_t steps = tnl_steps_made;
	tnl_alloc_most();
	struct tnl_json *j = tnl_json_parse(text, n);
	assert_non_null(j);
	assert_in_range(tnl_steps_made - steps, 1, n * 2);
	steps = tnl_steps_made;
	size_t members = 0;
	tnl_json_each(o, j) {
		tnl_json_each(v, o)
			members++;
	}
	assert_in_range(tnl_steps_made - steps, members, 2 * members);
	tnl_json_free(j);
	assert_in_range(tnl_alloc_most() - held, n, n * 16);

	/* one key more */
	n = (size_t)sprintf(text, "{");
	for (int i = 0; i < 1025; i++)
		n += (size_t)sprintf(text + n, "%s\"%d\":%d", i ? "," : "", i, i);
	n += (size_t)sprintf(text + n, "}");
	assert_null(tnl_json_parse(text, n));

	/* values of two bytes: some, but not a tree of eighty times the input */
	for (size_t k = 4000; k < N / 2; k += 30000) {
		memset(text, '0', 2 * k + 1);
		for (size_t i = 0; i < k; i++)
			text[2 * i + 1] = ',';
		text[0] = '[';
		text[1] = '0';
		for (size_t i = 2; i < 2 * k; i++)
			text[i] = i % 2 ? '0' : ',';
		text[2 * k] = ']';
		j = tnl_json_parse(text, 2 * k + 1);
		assert_int_equal(j != NULL, k <= 4000);
		tnl_json_free(j);
	}
	test_free(text);
}

static void depth_and_duplicates_among_many(void **state)
{
	char text[4096];

	for (int depth = 63; depth <= 66; depth++) {
		memset(text, '[', (size_t)depth);
		memset(text + depth, ']', (size_t)depth);
		struct tnl_json *j = tnl_json_parse(text, (size_t)depth * 2);
		assert_int_equal(j != NULL, depth <= 64);
		tnl_json_free(j);
	}
	for (int dup = 0; dup < 2; dup++) {
		size_t n = (size_t)sprintf(text, "{\"k0\":0");
		for (int i = 1; i < 100; i++)
			n += (size_t)sprintf(text + n, ",\"k%d\":%d", dup && i == 99 ? 17 : i, i);
		text[n++] = '}';
		struct tnl_json *j = tnl_json_parse(text, n);
		assert_int_equal(j != NULL, !dup);
		tnl_json_free(j);
	}
}

static void writing(void **state)
{
	struct tnl_buf b;
	struct tnl_jw w;

	tnl_buf_init(&b, 4096);
	tnl_jw_init(&w, &b);
	tnl_jw_obj(&w);
	tnl_jw_kv(&w, "s", "a\"\\\n\x01\x7f/\xc3\xa4\xf0\x9f\x98\x80\xff\xc2\x9b\xe2\x80\xae");
	tnl_jw_kv(&w, "n", NULL);
	tnl_jw_kvi(&w, "i", INT64_MIN);
	tnl_jw_key(&w, "l");
	tnl_jw_arr(&w);
	tnl_jw_int(&w, 1);
	tnl_jw_bool(&w, true);
	tnl_jw_obj(&w);
	tnl_jw_end_obj(&w);
	tnl_jw_arr(&w);
	tnl_jw_end_arr(&w);
	tnl_jw_raw(&w, "{\"r\":1}");
	tnl_jw_end_arr(&w);
	tnl_jw_key(&w, "b");
	tnl_jw_bool(&w, false);
	tnl_jw_end_obj(&w);
	assert_false(b.failed);
	assert_string_equal(
	    tnl_buf_str(&b),
	    "{\"s\":\"a\\\"\\\\\\n\\u0001\\u007f/\xc3\xa4\xf0\x9f\x98\x80\xef\xbf\xbd\\u009b\\u202e\",\"n\":null,"
	    "\"i\":-9223372036854775808,\"l\":[1,true,{},[],{\"r\":1}],\"b\":false}");
	struct tnl_json *j = tnl_json_parse(tnl_buf_data(&b), tnl_buf_len(&b));
	assert_non_null(j);
	tnl_json_free(j);
	tnl_buf_fini(&b);

	tnl_buf_init(&b, 8);
	tnl_jw_init(&w, &b);
	tnl_jw_str(&w, "longer than eight");
	assert_true(b.failed);
	tnl_buf_fini(&b);
}

static void printing_a_tree(void **state)
{
	static const char text[] = "{\"a\":[1,\"x\\n\",null,true,{\"b\":{}}],\"c\":\"\xc3\xa4\"}";
	struct tnl_json *j = tnl_json_parse(text, sizeof(text) - 1);
	struct tnl_buf b;

	tnl_buf_init(&b, 1000);
	assert_int_equal(tnl_json_print(j, &b), 0);
	assert_string_equal(tnl_buf_str(&b), text);
	tnl_buf_fini(&b);
	tnl_json_free(j);
}

static void memory_failure(void **state)
{
	static const char text[] = "{\"a\":[1,\"x\",{\"b\":{}}],\"c\":\"d\"}";
	long live = tnl_alloc_live();

	for (long after = 0;; after++) {
		tnl_alloc_fail_after(after, 1);
		struct tnl_json *j = tnl_json_parse(text, sizeof(text) - 1);
		tnl_alloc_fail_after(-1, 0);
		int done = j != NULL;
		tnl_json_free(j);
		assert_int_equal(tnl_alloc_live(), live);
		if (done)
			break;
		assert_true(after < 100);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(looking_up),
	    cmocka_unit_test(strict_syntax),
	    cmocka_unit_test(cost_is_bounded_by_the_input),
	    cmocka_unit_test(depth_and_duplicates_among_many),
	    cmocka_unit_test(writing),
	    cmocka_unit_test(printing_a_tree),
	    cmocka_unit_test(memory_failure),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
