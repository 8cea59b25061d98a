/* The head of a stream: made, cut anywhere, and what is none. */
#include "tests/unit/check.h"
#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/head.h"
#include "lib/num.h"

static struct tnl_head made(enum tnl_head_kind kind, const char *name, uint16_t port)
{
	struct tnl_head h;
	assert_int_equal(tnl_head_set(&h, kind, name, port), 0);
	return h;
}

static void assert_same(const struct tnl_head *a, const struct tnl_head *b)
{
	assert_int_equal(a->kind, b->kind);
	assert_int_equal(a->port, b->port);
	assert_string_equal(a->name, b->name);
	assert_int_equal(a->nfields, b->nfields);
	assert_memory_equal(a->fields, b->fields, a->nfields);
}

/* At each place, and byte by byte, with bytes of the stream behind it. */
static void comes_in_pieces(const struct tnl_head *h)
{
	uint8_t b[TNL_HEAD_MAX + 8];
	size_t n = tnl_head_write(h, b), used;
	struct tnl_head got;
	memcpy(b + n, "trailing", 8);
	for (size_t cut = 0; cut < n; cut++) {
		struct tnl_head_reader r = {0};
		assert_int_equal(tnl_head_feed(&r, b, cut, &used, &got), 0);
		assert_int_equal(used, cut);
		assert_int_equal(tnl_head_feed(&r, b + cut, n + 8 - cut, &used, &got), 1);
		assert_int_equal(used, n - cut);
		assert_same(&got, h);
	}
	struct tnl_head_reader r = {0};
	for (size_t i = 0; i < n; i++)
		assert_int_equal(tnl_head_feed(&r, b + i, 1, &used, &got), i == n - 1);
	assert_same(&got, h);
	assert_int_equal(tnl_alloc_live(), 0);
}

static void heads_cut_anywhere(void **state)
{
	char name[TNL_HEAD_NAME + 1];
	struct tnl_head h = made(TNL_HEAD_TCP, "db.internal", 5432);
	comes_in_pieces(&h);
	assert_int_equal(tnl_head_add(&h, 1, "10.0.0.1", 8), 0);
	assert_int_equal(tnl_head_add(&h, 9, "", 0), 0);
	comes_in_pieces(&h);
	h = made(TNL_HEAD_UNIX, "/run/docker.sock", 0);
	comes_in_pieces(&h);
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	h = made(TNL_HEAD_UDP, name, 65535);
	uint8_t value[TNL_HEAD_FIELDS - 3] = {7};
	assert_int_equal(tnl_head_add(&h, 2, value, sizeof(value)), 0);
	comes_in_pieces(&h); /* the longest */
}

static void fields_are_found(void **state)
{
	struct tnl_head h = made(TNL_HEAD_TCP, "h", 1);
	uint8_t much[TNL_HEAD_FIELDS] = {0};
	size_t n;
	assert_null(tnl_head_field(&h, 1, &n));
	assert_int_equal(tnl_head_add(&h, 1, "one", 3), 0);
	assert_int_equal(tnl_head_add(&h, 2, "", 0), 0);
	assert_int_equal(tnl_head_add(&h, 3, much, sizeof(much)), TNL_ELIMIT);
	assert_memory_equal(tnl_head_field(&h, 1, &n), "one", 3);
	assert_int_equal(n, 3);
	assert_non_null(tnl_head_field(&h, 2, &n));
	assert_int_equal(n, 0);
	assert_null(tnl_head_field(&h, 3, &n));
}

static void what_cannot_be_made(void **state)
{
	char path[TNL_HEAD_PATH + 2], name[TNL_HEAD_NAME + 2];
	struct tnl_head h;
	memset(path, '/', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	assert_int_equal(tnl_head_set(&h, TNL_HEAD_TCP, "", 80), TNL_EINVAL);
	assert_int_equal(tnl_head_set(&h, TNL_HEAD_TCP, "h", 0), TNL_EINVAL);
	assert_int_equal(tnl_head_set(&h, TNL_HEAD_TCP, "a b", 80), TNL_EINVAL);
	assert_int_equal(tnl_head_set(&h, TNL_HEAD_TCP, "a\nb", 80), TNL_EINVAL);
	assert_int_equal(tnl_head_set(&h, TNL_HEAD_TCP, name, 80), TNL_EINVAL);
	assert_int_equal(tnl_head_set(&h, TNL_HEAD_UNIX, "run/x", 0), TNL_EINVAL);
	assert_int_equal(tnl_head_set(&h, TNL_HEAD_UNIX, "/", 0), TNL_EINVAL);
	assert_int_equal(tnl_head_set(&h, TNL_HEAD_UNIX, "/run/x", 1), TNL_EINVAL);
	assert_int_equal(tnl_head_set(&h, TNL_HEAD_UNIX, path, 0), TNL_EINVAL);
	/* what would end a value in a line of a log */
	for (const char *c = " \n\"\\\033\177"; *c; c++) {
		snprintf(name, sizeof(name), "/run/x%cpeer=10.0.0.1", *c);
		assert_int_equal(tnl_head_set(&h, TNL_HEAD_UNIX, name, 0), TNL_EINVAL);
		assert_int_equal(tnl_head_set(&h, TNL_HEAD_TCP, name + 1, 80), TNL_EINVAL);
	}
	assert_int_equal(tnl_head_set(&h, TNL_HEAD_UNIX, "/run/\303\244", 0), 0);
}

static int parsed(const char *bytes, size_t n)
{
	struct tnl_head h;
	return tnl_head_parse((const uint8_t *)bytes, n, &h);
}
#define PARSED(s) parsed(s, sizeof(s) - 1)

static void what_is_none(void **state)
{
	assert_int_equal(PARSED("\0\5\1\0\120\1h"), 0);
	assert_int_equal(PARSED("\0\4\1\0\120\1h"), TNL_ESYNTAX); /* its length */
	assert_int_equal(PARSED("\0\5\0\0\120\1h"), TNL_ESYNTAX);
	assert_int_equal(PARSED("\0\5\4\0\120\1h"), TNL_ESYNTAX);	     /* its kind */
	assert_int_equal(PARSED("\0\5\1\0\0\1h"), TNL_ESYNTAX);		     /* its port */
	assert_int_equal(PARSED("\0\5\1\0\120\2h"), TNL_ESYNTAX);	     /* the name goes on */
	assert_int_equal(PARSED("\0\5\1\0\120\1\0"), TNL_ESYNTAX);	     /* NUL */
	assert_int_equal(PARSED("\0\5\1\0\120\1\200"), TNL_ESYNTAX);	     /* not ASCII */
	assert_int_equal(PARSED("\0\10\1\0\120\1h\1\0\0"), 0);		     /* a field */
	assert_int_equal(PARSED("\0\10\1\0\120\1h\1\0\1"), TNL_ESYNTAX);     /* that goes on */
	assert_int_equal(PARSED("\0\7\1\0\120\1h\1\0"), TNL_ESYNTAX);	     /* that is half */
	assert_int_equal(PARSED("\0\10\1\0\120\1h\200\0\0"), TNL_ESYNTAX);   /* that has to be understood */
	for (unsigned len = 0; len < 0x10000; len += len < 1024 ? 1 : 251) { /* lengths without a bound are none */
		uint8_t b[2];
		size_t used;
		struct tnl_head h;
		struct tnl_head_reader r = {0};
		tnl_put_be16(b, (uint16_t)len);
		assert_int_equal(tnl_head_feed(&r, b, 2, &used, &h),
				 len < 4 || len > TNL_HEAD_MAX - 2 ? TNL_ESYNTAX : 0);
		tnl_head_reader_fini(&r);
	}
	assert_int_equal(tnl_alloc_live(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(heads_cut_anywhere),
	    cmocka_unit_test(fields_are_found),
	    cmocka_unit_test(what_cannot_be_made),
	    cmocka_unit_test(what_is_none),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
