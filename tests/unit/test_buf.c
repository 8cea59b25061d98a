#include "tests/unit/check.h"
#include "lib/alloc.h"
#include "lib/buf.h"
#include "lib/err.h"
#include "lib/log.h"

static void bytes_come_out_in_order(void **state)
{
	struct tnl_buf b;
	uint8_t in = 0, out = 0;

	/* A seeded walk of unequal appends and takes, checked against counters. */
	tnl_buf_init(&b, 1000);
	uint32_t r = 1;
	for (int i = 0; i < 20000; i++) {
		r = r * 1664525 + 1013904223;
		size_t n = r >> 24;
		if (n <= tnl_buf_room(&b)) {
			uint8_t *p = tnl_buf_reserve(&b, n);
			assert_non_null(p);
			for (size_t k = 0; k < n; k++)
				p[k] = in++;
			tnl_buf_commit(&b, n);
		} else {
			assert_null(tnl_buf_reserve(&b, n));
		}
		size_t take = (r >> 8 & 255) < tnl_buf_len(&b) ? (r >> 8 & 255) : tnl_buf_len(&b);
		for (size_t k = 0; k < take; k++)
			assert_int_equal(tnl_buf_data(&b)[k], out++);
		tnl_buf_consume(&b, take);
		assert_true(tnl_buf_len(&b) <= 1000);
	}
	assert_true(b.cap <= 4096);
	tnl_buf_fini(&b);
}

static void maximum_is_hard(void **state)
{
	struct tnl_buf b;

	tnl_buf_init(&b, 4);
	assert_int_equal(tnl_buf_put(&b, "abc", 3), 0);
	assert_false(b.failed);
	assert_int_equal(tnl_buf_put(&b, "de", 2), TNL_ELIMIT);
	assert_true(b.failed);
	assert_int_equal(tnl_buf_len(&b), 3);
	assert_int_equal(tnl_buf_putc(&b, 'd'), 0);
	assert_string_equal(tnl_buf_str(&b), "abcd"); /* the terminator does not count */
	assert_null(tnl_buf_reserve(&b, 1));
	tnl_buf_reset(&b);
	assert_false(b.failed);
	assert_int_equal(tnl_buf_printf(&b, "%d", 12345), TNL_ELIMIT);
	assert_true(b.failed);
	assert_int_equal(tnl_buf_len(&b), 0);
	tnl_buf_fini(&b);
}

static void printf_of_any_length(void **state)
{
	struct tnl_buf b;
	char want[2000];

	tnl_buf_init(&b, 5000);
	for (size_t n = 250; n < 262; n++) { /* around the size of the internal array */
		memset(want, 'x', n);
		want[n] = '\0';
		tnl_buf_reset(&b);
		assert_int_equal(tnl_buf_printf(&b, "%s", want), 0);
		assert_string_equal(tnl_buf_str(&b), want);
	}
	memset(want, 'y', 1999);
	want[1999] = '\0';
	tnl_buf_reset(&b);
	assert_int_equal(tnl_buf_printf(&b, "<%s>", want), 0);
	assert_int_equal(tnl_buf_len(&b), 2001);
	tnl_buf_fini(&b);
}

static void memory_failure_changes_nothing(void **state)
{
	struct tnl_buf b;
	long live = tnl_alloc_live();

	tnl_buf_init(&b, 10000);
	assert_int_equal(tnl_buf_puts(&b, "kept"), 0);
	tnl_alloc_fail_after(0, 1);
	char big[1000] = {0};
	assert_int_equal(tnl_buf_put(&b, big, sizeof(big)), TNL_ENOMEM);
	assert_null(tnl_buf_reserve(&b, 5000));
	assert_null(tnl_buf_steal_str(&b));
	tnl_alloc_fail_after(-1, 0);
	assert_true(b.failed);
	assert_string_equal(tnl_buf_str(&b), "kept");
	char *s = tnl_buf_steal_str(&b);
	assert_string_equal(s, "kept");
	tnl_free(s);
	tnl_buf_consume(&b, 4);
	tnl_buf_trim(&b);
	assert_int_equal(b.cap, 0);
	assert_int_equal(tnl_alloc_live(), live);
	tnl_buf_fini(&b);
}

static void failing_allocator_counts_down(void **state)
{
	tnl_alloc_fail_after(2, 0);
	void *a = tnl_malloc(1), *b = tnl_calloc(1, 1), *c = tnl_malloc(1), *d = tnl_malloc(1);
	assert_non_null(a);
	assert_non_null(b);
	assert_null(c);
	assert_non_null(d); /* not sticky: one failure only */
	tnl_alloc_fail_after(0, 1);
	assert_null(tnl_realloc(a, 100));
	assert_null(tnl_strdup("x"));
	tnl_alloc_fail_after(-1, 0);
	tnl_free(a);
	tnl_free(b);
	tnl_free(d);
	tnl_free(NULL);
}

static void every_error_has_a_name(void **state)
{
	for (int e = 0; e > TNL_ERR_END; e--) {
		assert_memory_equal(tnl_err_name(e), "TNL_", 4);
		assert_true(strlen(tnl_err_text(e)) > 3);
		assert_string_not_equal(tnl_err_name(e), "TNL_E?");
	}
	assert_string_equal(tnl_err_name(TNL_EDIGEST), "TNL_EDIGEST");
	assert_string_equal(tnl_err_name(TNL_EBUSY), "TNL_EBUSY");
	assert_string_equal(tnl_err_name(1), "TNL_E?");
	assert_string_equal(tnl_err_name(TNL_ERR_END), "TNL_E?");
}

static char logged[64];

static void sink(void *ctx, enum tnl_log_level level, const char *module, const char *text)
{
	snprintf(logged, sizeof(logged), "%d %s %s", level, module, text);
	++*(int *)ctx;
}

static void log_goes_through_the_callback(void **state)
{
	int calls = 0;

	tnl_log(TNL_LOG_ERROR, "m", "nobody listens");
	tnl_log_set(sink, &calls, TNL_LOG_INFO);
	tnl_log(TNL_LOG_DEBUG, "m", "too fine");
	assert_int_equal(calls, 0);
	tnl_log(TNL_LOG_INFO, "m", "n=%d", 7);
	assert_int_equal(calls, 1);
	assert_string_equal(logged, "2 m "
				    "\x1f"
				    "n=7"); /* the mark of a pair whose value is a number */
	tnl_log_unmark(logged);
	assert_string_equal(logged, "2 m n=7");
	tnl_log_set(NULL, NULL, TNL_LOG_WARN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(bytes_come_out_in_order),	     cmocka_unit_test(maximum_is_hard),
	    cmocka_unit_test(printf_of_any_length),	     cmocka_unit_test(memory_failure_changes_nothing),
	    cmocka_unit_test(failing_allocator_counts_down), cmocka_unit_test(every_error_has_a_name),
	    cmocka_unit_test(log_goes_through_the_callback),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
