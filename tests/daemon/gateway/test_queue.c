/* Frames that wait: their order over chunks of any size, and what they take of the process's memory. */
#include "lib/num.h"
#include "tunneld/gateway/internal.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static uint8_t frame[200000];

static size_t frame_size(unsigned k)
{
	static const size_t sizes[] = {0, 1, 120, 1144, 61435, 61436, 61437, 65531, 65532, 65533, 200000, 7};
	return sizes[k % TNL_COUNT(sizes)];
}

static void put(struct gw_queue *q, unsigned k)
{
	memset(frame, (int)k, frame_size(k));
	assert_int_equal(gw_queue_put(q, frame, frame_size(k)), 0);
}

static void take(struct gw_queue *q, unsigned k)
{
	size_t n = 1;
	const uint8_t *p = gw_queue_peek(q, &n);
	assert_non_null(p);
	assert_int_equal(n, frame_size(k));
	for (size_t i = 0; i < n; i++)
		assert_true(p[i] == (uint8_t)k);
	gw_queue_pop(q);
}

static void test_order(void **state)
{
	struct gw_queue q = {0};
	size_t n;
	unsigned in = 0, out = 0;
	assert_null(gw_queue_peek(&q, &n));
	while (in < 90) { /* three come, two go */
		for (int i = 0; i < 3; i++)
			put(&q, in++);
		for (int i = 0; i < 2; i++)
			take(&q, out++);
		assert_int_equal(q.frames, in - out);
		assert_int_equal(td_memory_told(), q.held);
		assert_true(q.held >= q.bytes);
	}
	while (out < in)
		take(&q, out++);
	assert_null(gw_queue_peek(&q, &n));
	assert_int_equal(q.bytes, 0);
	assert_int_equal(q.held, 0);
	assert_int_equal(td_memory_told(), 0);
}

/* Sessions whose other end is away are many, and what waits in each is little. */
static void test_little(void **state)
{
	struct gw_queue q = {0};
	memset(frame, 0, 600);
	for (int i = 0; i < 5; i++)
		assert_int_equal(gw_queue_put(&q, frame, 600), 0);
	assert_true(q.held <= 4096);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(gw_queue_put(&q, frame, 600), 0);
	assert_true(q.held < q.bytes + 100000);
	gw_queue_clear(&q);
	assert_int_equal(td_memory_told(), 0);
}

static void test_clear(void **state)
{
	struct gw_queue q = {0};
	size_t n;
	for (unsigned k = 0; k < 20; k++)
		put(&q, k);
	take(&q, 0);
	gw_queue_clear(&q);
	assert_null(gw_queue_peek(&q, &n));
	assert_int_equal(td_memory_told(), 0);
	gw_queue_clear(&q);
	put(&q, 3); /* and it can be used again */
	take(&q, 3);
	assert_int_equal(td_memory_told(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_order),
	    cmocka_unit_test(test_little),
	    cmocka_unit_test(test_clear),
	};
	return cmocka_run_group_tests_name("gateway queue", tests, NULL, NULL);
}
