#include "tests/unit/check.h"
#include "lib/alloc.h"
#include "lib/buf.h"
#include "lib/err.h"
#include "lib/log.h"
#include "lib/num.h"
#include "lib/spare.h"

#include <pthread.h>

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

static void put_bytes(struct tnl_buf *b, size_t n)
{
	uint8_t *p = tnl_buf_reserve(b, n);
	assert_non_null(p);
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(i * 7);
	tnl_buf_commit(b, n);
}

/* After an event a buffer keeps nothing, and whichever is next takes the same block. */
static void settled_buffers_share_their_blocks(void **state)
{
	struct tnl_buf a, b;
	long live = tnl_alloc_live();
	size_t held = tnl_alloc_bytes();

	tnl_buf_init(&a, 1 << 20);
	tnl_buf_init(&b, 1 << 20);
	put_bytes(&a, 100000);
	uint8_t *block = a.base;
	tnl_buf_consume(&a, 90000);
	tnl_buf_settle(&a); /* much is left: nothing moves */
	assert_ptr_equal(a.base, block);
	tnl_buf_consume(&a, 9900);
	tnl_buf_settle(&a); /* 100 bytes do not hold a large one */
	assert_ptr_not_equal(a.base, block);
	assert_in_range(a.cap, 100, 4096);
	for (size_t i = 0; i < 100; i++)
		assert_int_equal(tnl_buf_data(&a)[i], (uint8_t)((99900 + i) * 7));
	tnl_buf_consume(&a, 100);
	tnl_buf_settle(&a);
	assert_int_equal(a.cap, 0);
	assert_int_equal(tnl_alloc_live(), live);		   /* what rests is nobody's … */
	assert_in_range(tnl_alloc_bytes() - held, 100000, 200000); /* … and is in the account */
	put_bytes(&b, 100);					   /* a little does not take it */
	assert_ptr_not_equal(b.base, block);
	tnl_buf_consume(&b, 100);
	put_bytes(&b, 90000);
	assert_ptr_equal(b.base, block);
	put_bytes(&a, 20000); /* none is there now, and its own size is enough */
	assert_in_range(a.cap, 20000, 40000);
	tnl_buf_consume(&a, 20000);
	tnl_buf_consume(&b, 90000);
	tnl_buf_settle(&a);
	tnl_buf_settle(&b);
	put_bytes(&a, 20000); /* it grew to more before, and does not grow again */
	assert_ptr_equal(a.base, block);
	tnl_buf_fini(&a);
	tnl_buf_fini(&b);
	tnl_spare_drop();
	assert_int_equal(tnl_alloc_bytes(), held);
	assert_int_equal(tnl_alloc_live(), live);
}

/* A little may wait for long, and so may what is not much: neither holds a block that is far too large. */
static void blocks_are_for_what_needs_them(void **state)
{
	static const struct {
		size_t rests, need, most;
	} t[] = {{16384, 4000, 8192}, {131072, 9000, 16384}, {131072, 40000, 131072}};

	for (size_t i = 0; i < TNL_COUNT(t); i++) {
		struct tnl_buf b;
		tnl_buf_init(&b, 1 << 20);
		tnl_spare_put(tnl_malloc(t[i].rests), t[i].rests);
		put_bytes(&b, t[i].need);
		assert_in_range(b.cap, t[i].need, t[i].most);
		tnl_buf_fini(&b);
		tnl_spare_drop();
	}
}

/* Few of them rest, whatever is given back, and large ones rather than small ones. */
static void what_rests_is_bounded(void **state)
{
	enum { N = 40, LIMIT = 1600000 };
	struct tnl_buf b[N];
	size_t held = tnl_alloc_bytes();

	tnl_spare_limit(LIMIT, 0);
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < N; i++) {
			tnl_buf_init(&b[i], 1 << 20);
			put_bytes(&b[i], round ? 400000 : 15000);
		}
		for (int i = 0; i < N; i++) {
			tnl_buf_consume(&b[i], tnl_buf_len(&b[i]));
			tnl_buf_settle(&b[i]);
			tnl_buf_fini(&b[i]);
		}
		assert_in_range(tnl_alloc_bytes() - held, round ? 1000000 : 360000, LIMIT);
	}
	tnl_spare_drop();
	assert_int_equal(tnl_alloc_bytes(), held);
}

/* In a process that has taken little more may rest; when it has taken more, what rests beyond the limit makes way. */
static void more_rests_while_there_is_room(void **state)
{
	enum { N = 40, SIZE = 100000, LIMIT = 5 * SIZE };
	size_t held = tnl_alloc_bytes();
	void *block[N], *much;

	tnl_spare_limit(LIMIT, held + (N - 10) * SIZE);
	for (int i = 0; i < N; i++)
		block[i] = tnl_malloc(SIZE);
	for (int i = 0; i < N; i++)
		tnl_spare_put(block[i], SIZE);
	assert_in_range(tnl_alloc_bytes() - held, (N - 12) * SIZE, (N - 10) * SIZE);
	much = tnl_malloc((N - 10) * SIZE);
	tnl_spare_put(tnl_malloc(8 * SIZE), 8 * SIZE); /* neither this, nor much of what rested */
	assert_in_range(tnl_alloc_bytes() - held - (N - 10) * SIZE, 0, LIMIT + SIZE);
	tnl_free(much);
	tnl_spare_drop();
	tnl_spare_limit(2 * LIMIT, 0);
	assert_int_equal(tnl_alloc_bytes(), held);
}

static void *keep_some(void *done)
{
	tnl_spare_keep(true);
	pthread_barrier_wait(done);
	for (int i = 0; i < 20; i++)
		tnl_spare_put(tnl_malloc(100000), 100000);
	pthread_barrier_wait(done);
	pthread_barrier_wait(done);
	tnl_spare_keep(false);
	return NULL;
}

/* The more threads there are, the less each keeps. */
static void threads_share_what_rests(void **state)
{
	enum { N = 4, LIMIT = 1000000 };
	pthread_t t[N];
	pthread_barrier_t done;
	size_t held = tnl_alloc_bytes();

	tnl_spare_limit(LIMIT, 0);
	assert_int_equal(pthread_barrier_init(&done, NULL, N + 1), 0);
	for (int i = 0; i < N; i++)
		assert_int_equal(pthread_create(&t[i], NULL, keep_some, &done), 0);
	pthread_barrier_wait(&done);
	pthread_barrier_wait(&done);
	assert_in_range(tnl_alloc_bytes() - held, N * 200000,
			N * 201000); /* a fifth each: this thread keeps some, too */
	pthread_barrier_wait(&done);
	for (int i = 0; i < N; i++)
		pthread_join(t[i], NULL);
	pthread_barrier_destroy(&done);
	assert_int_equal(tnl_alloc_bytes(), held);
}

/* A thread that does not say so leaves none behind at its end. */
static void who_does_not_keep_gives_back(void **state)
{
	size_t held = tnl_alloc_bytes();
	tnl_spare_put(tnl_malloc(100000), 100000);
	assert_true(tnl_alloc_bytes() > held);
	tnl_spare_keep(false);
	assert_int_equal(tnl_alloc_bytes(), held);
	tnl_spare_put(tnl_malloc(100000), 100000);
	assert_int_equal(tnl_alloc_bytes(), held);
	tnl_spare_keep(true);
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
	tnl_spare_keep(true);
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(bytes_come_out_in_order),	      cmocka_unit_test(maximum_is_hard),
	    cmocka_unit_test(printf_of_any_length),	      cmocka_unit_test(memory_failure_changes_nothing),
	    cmocka_unit_test(failing_allocator_counts_down),  cmocka_unit_test(every_error_has_a_name),
	    cmocka_unit_test(log_goes_through_the_callback),  cmocka_unit_test(settled_buffers_share_their_blocks),
	    cmocka_unit_test(what_rests_is_bounded),	      cmocka_unit_test(more_rests_while_there_is_room),
	    cmocka_unit_test(blocks_are_for_what_needs_them), cmocka_unit_test(who_does_not_keep_gives_back),
	    cmocka_unit_test(threads_share_what_rests),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
