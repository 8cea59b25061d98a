/* Datagrams on a stream: every size at every split, and a queue that drops its oldest and never more than it must. */
#include "tests/unit/check.h"
#include "lib/dgram.h"
#include "lib/num.h"

static const size_t sizes[] = {0, 1, 2, 700, 0, 0, 1472, 65507, 3, 65507, 0};

static uint8_t byte(size_t which, size_t at)
{
	return (uint8_t)(which * 31 + at * 7 + (at >> 8));
}

static void push(struct tnl_dgramq *q, size_t which, size_t n)
{
	uint8_t *b = malloc(n ? n : 1);
	for (size_t i = 0; i < n; i++)
		b[i] = byte(which, i);
	tnl_dgramq_push(q, b, n);
	free(b);
}

static void check(size_t which, const uint8_t *d, size_t n)
{
	assert_int_equal(n, sizes[which]);
	for (size_t i = 0; i < n; i++)
		if (d[i] != byte(which, i))
			fail_msg("datagram %zu differs at %zu", which, i);
}

/* Pulled in pieces of one size, read in those of another. */
static void across(size_t pull, size_t read)
{
	struct tnl_dgramq q;
	struct tnl_dgram_reader r = {.have = 0};
	size_t got = 0, n;
	uint8_t *piece = malloc(pull);

	tnl_dgramq_init(&q, 1 << 20);
	for (size_t i = 0; i < TNL_COUNT(sizes); i++)
		push(&q, i, sizes[i]);
	while ((n = tnl_dgramq_pull(&q, piece, pull))) {
		for (size_t at = 0; at < n;) {
			const uint8_t *d;
			size_t used, dn, most = TNL_MIN(read, n - at);
			uint8_t *part = exact_copy(piece + at, most);
			int rc = tnl_dgram_read(&r, part, most, &used, &d, &dn);
			assert_true(rc >= 0 && (used || rc == 1));
			if (rc)
				check(got++, d, dn);
			at += used;
			free(part);
		}
	}
	assert_int_equal(got, TNL_COUNT(sizes));
	assert_int_equal(q.bytes + q.count + q.dropped, 0);
	tnl_dgram_reader_fini(&r);
	free(piece);
}

static void whole_from_the_front(void **state)
{
	struct tnl_dgramq q;
	size_t n = 7;

	tnl_dgramq_init(&q, 1 << 20);
	assert_null(tnl_dgramq_first(&q, &n));
	for (size_t i = 0; i < TNL_COUNT(sizes); i++)
		push(&q, i, sizes[i]);
	for (size_t i = 0; i < TNL_COUNT(sizes); i++) {
		const uint8_t *d = tnl_dgramq_first(&q, &n);
		check(i, d, n);
		tnl_dgramq_pop(&q);
	}
	assert_null(tnl_dgramq_first(&q, &n));
	assert_int_equal(q.bytes + q.count + q.dropped, 0);
}

/* Who asks for room loses the oldest, but not the one that the stream has the beginning of. */
static void oldest_go(void **state)
{
	struct tnl_dgramq q;
	uint8_t b[3];

	tnl_dgramq_init(&q, 1 << 20);
	assert_false(tnl_dgramq_drop(&q));
	for (size_t i = 0; i < 3; i++)
		push(&q, 3, sizes[3]);
	assert_true(tnl_dgramq_drop(&q));
	assert_int_equal(tnl_dgramq_pull(&q, b, sizeof(b)), sizeof(b));
	assert_true(tnl_dgramq_drop(&q));
	assert_false(tnl_dgramq_drop(&q));
	assert_int_equal(q.count, 1);
	assert_int_equal(q.dropped, 2);
	tnl_dgramq_clear(&q);
}

static void every_split(void **state)
{
	static const size_t pieces[] = {1, 2, 3, 5, 1000, 16384, 65509, 300000};
	for (size_t i = 0; i < TNL_COUNT(pieces); i++)
		for (size_t j = 0; j < TNL_COUNT(pieces); j++)
			across(pieces[i], pieces[j]);
}

static void too_long(void **state)
{
	struct tnl_dgram_reader r = {.have = 0};
	const uint8_t *d;
	size_t used, dn;

	assert_int_equal(tnl_dgram_read(&r, (const uint8_t *)"\xff", 1, &used, &d, &dn), 0);
	assert_int_equal(tnl_dgram_read(&r, (const uint8_t *)"\xe4", 1, &used, &d, &dn), TNL_ESYNTAX); /* 65,508 */
	tnl_dgram_reader_fini(&r);
}

/* What has begun goes on; the next that comes in parts is skipped, the one in one piece is not. */
static void no_room_for_parts(void **state)
{
	static const char stream[] = "\0\3abc\0\4defg\0\2hi\0\3jkl";
	struct tnl_dgram_reader r = {.have = 0};
	char got[20] = "";

	for (size_t at = 0, used, end = 3, dn; at < sizeof(stream) - 1; at += used) {
		const uint8_t *d;
		int rc = tnl_dgram_read(&r, (const uint8_t *)stream + at, end - at, &used, &d, &dn);
		if (rc == 1)
			strncat(got, (const char *)d, dn);
		r.full = true;
		if (at + used == end)
			end = end == 3 ? 9 : sizeof(stream) - 1;
	}
	assert_string_equal(got, "abchijkl");
	assert_int_equal(r.skipped, 1);
	assert_int_equal(tnl_dgram_parts(&r), 0);
	tnl_dgram_reader_fini(&r);
}

static size_t pull_one(struct tnl_dgramq *q, uint8_t *b)
{
	assert_int_equal(tnl_dgramq_pull(q, b, 2), 2);
	size_t n = (size_t)b[0] << 8 | b[1];
	assert_int_equal(tnl_dgramq_pull(q, b, n), n);
	return n;
}

static void the_oldest_go(void **state)
{
	static uint8_t b[TNL_DGRAM_MAX + 1];
	struct tnl_dgramq q;

	tnl_dgramq_init(&q, 10 * (100 + TNL_DGRAM_COST));
	for (size_t i = 0; i < 25; i++) {
		memset(b, (int)i, 100);
		tnl_dgramq_push(&q, b, 100);
		assert_true(q.bytes <= q.limit);
	}
	assert_int_equal(q.dropped, 15);
	assert_int_equal(pull_one(&q, b), 100);
	assert_int_equal(b[0], 15);
	assert_int_equal(tnl_dgramq_pull(&q, b, 1), 1); /* a byte of 16 has gone: it has to stay, 17 goes */
	memset(b, 99, 200);
	tnl_dgramq_push(&q, b, 200);
	assert_int_equal(q.dropped, 16);
	assert_int_equal(tnl_dgramq_pull(&q, b, 101), 101);
	assert_int_equal(b[1], 16);
	pull_one(&q, b);
	assert_int_equal(b[0], 18);
	tnl_dgramq_push(&q, b, TNL_DGRAM_MAX); /* larger than the queue: it alone */
	assert_int_equal(q.count, 1);
	assert_int_equal(q.dropped, 16 + 7);
	tnl_dgramq_push(&q, b, TNL_DGRAM_MAX + 1);
	assert_int_equal(q.dropped, 16 + 8);
	assert_int_equal(q.count, 1);
	assert_int_equal(pull_one(&q, b), TNL_DGRAM_MAX);
	tnl_dgramq_push(&q, b, 5);
	tnl_dgramq_clear(&q);
	assert_int_equal(tnl_dgramq_pull(&q, b, 100), 0);
	assert_int_equal(q.bytes, 0);
}

/* Empty ones cost as well. */
static void a_flood_of_nothing_is_bounded(void **state)
{
	struct tnl_dgramq q;

	tnl_dgramq_init(&q, 65536);
	for (int i = 0; i < 100000; i++)
		tnl_dgramq_push(&q, "", 0);
	assert_int_equal(q.count, 65536 / TNL_DGRAM_COST);
	tnl_dgramq_clear(&q);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(whole_from_the_front),
	    cmocka_unit_test(oldest_go),
	    cmocka_unit_test(every_split),
	    cmocka_unit_test(too_long),
	    cmocka_unit_test(no_room_for_parts),
	    cmocka_unit_test(the_oldest_go),
	    cmocka_unit_test(a_flood_of_nothing_is_bounded),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
