/* RESP within its bounds, and the URL of a store. */
#include "lib/redis.h"
#include "lib/alloc.h"
#include "lib/err.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct tnl_redis_reader *rd;

static int setup(void **state)
{
	rd = tnl_redis_reader_new();
	return rd ? 0 : -1;
}

static int teardown(void **state)
{
	tnl_redis_reader_free(rd);
	return 0;
}

static int feed(const char *s)
{
	return tnl_redis_reader_feed(rd, s, strlen(s));
}

static void test_every_type_at_every_split(void **state)
{
	static const char all[] = "*6\r\n$5\r\na\0b\r\n\r\n:-7\r\n$-1\r\n+OK\r\n-ERR no\r\n*2\r\n$0\r\n\r\n*-1\r\n";
	for (size_t cut = 0; cut < sizeof(all) - 1; cut++) {
		struct tnl_redis_reply *r;
		assert_int_equal(tnl_redis_reader_feed(rd, all, cut), 0);
		assert_int_equal(tnl_redis_reader_next(rd, &r), TNL_EAGAIN);
		assert_int_equal(tnl_redis_reader_feed(rd, all + cut, sizeof(all) - 1 - cut), 0);
		assert_int_equal(tnl_redis_reader_next(rd, &r), 0);
		assert_int_equal(r->type, TNL_REDIS_ARRAY);
		assert_int_equal(r->n, 6);
		assert_int_equal(r->element[0]->len, 5);
		assert_memory_equal(r->element[0]->str, "a\0b\r\n", 6);
		assert_int_equal(tnl_redis_int_at(r, 1, 0), -7);
		assert_int_equal(r->element[2]->type, TNL_REDIS_NIL);
		assert_int_equal(r->element[3]->type, TNL_REDIS_STATUS);
		assert_string_equal(tnl_redis_str_at(r, 3), "OK");
		assert_int_equal(r->element[4]->type, TNL_REDIS_ERROR);
		assert_string_equal(tnl_redis_str_at(r, 4), "ERR no");
		assert_string_equal(tnl_redis_str_at(tnl_redis_at(r, 5), 0), "");
		assert_int_equal(tnl_redis_at(tnl_redis_at(r, 5), 1)->type, TNL_REDIS_NIL);
		assert_null(tnl_redis_at(r, 6));
		assert_int_equal(tnl_redis_int_at(r, 3, 9), 9);
		tnl_redis_reply_free(r);
	}
}

static void test_an_array_too_large_costs_nothing(void **state)
{
	struct tnl_redis_reply *r;
	size_t before = tnl_alloc_bytes();
	assert_int_equal(feed("*65537\r\n"), 0);
	assert_int_equal(tnl_redis_reader_next(rd, &r), TNL_ETOOBIG);
	assert_true(tnl_alloc_bytes() <= before);
}

static void test_arrays_in_arrays_share_one_bound(void **state)
{
	struct tnl_redis_reply *r;
	int rc = TNL_EAGAIN;
	size_t before = tnl_alloc_bytes();
	assert_int_equal(feed("*65000\r\n"), 0);
	for (int i = 0; i < 65000 && rc == TNL_EAGAIN; i++) {
		assert_int_equal(feed("*2\r\n:1\r\n:2\r\n"), 0);
		rc = tnl_redis_reader_next(rd, &r);
	}
	assert_int_equal(rc, TNL_ETOOBIG);
	assert_true(tnl_alloc_bytes() <= before);
}

static void test_a_string_too_large_is_not_waited_for(void **state)
{
	static char block[65536];
	struct tnl_redis_reply *r;
	int rc = feed("$1000000000000\r\n");
	memset(block, 'x', sizeof(block));
	size_t fed = 0;
	while (rc == 0 && fed < 2 * TNL_REDIS_BYTES) {
		rc = tnl_redis_reader_next(rd, &r);
		assert_int_equal(rc, TNL_EAGAIN);
		rc = tnl_redis_reader_feed(rd, block, sizeof(block));
		fed += sizeof(block);
	}
	assert_int_equal(rc, TNL_ETOOBIG);
	assert_true(fed <= TNL_REDIS_BYTES + sizeof(block));
}

/* What costs time is how often a line is looked through, not how long it is. */
static void test_a_line_too_long_is_not_waited_for(void **state)
{
	static char block[16384];
	struct tnl_redis_reply *r;
	for (int i = 0; i < 3; i++) {
		int rc = feed(i == 2 ? "*2\r\n:1\r\n-ERR " : "+");
		size_t fed = 0;
		memset(block, i == 1 ? '\r' : 'a', sizeof(block));
		while ((rc = tnl_redis_reader_next(rd, &r)) == TNL_EAGAIN && fed < TNL_REDIS_BYTES / 2) {
			assert_int_equal(tnl_redis_reader_feed(rd, block, sizeof(block)), 0);
			fed += sizeof(block);
		}
		assert_int_equal(rc, TNL_ETOOBIG);
		assert_true(fed <= TNL_REDIS_LINE + sizeof(block));
		tnl_redis_reader_free(rd);
		rd = tnl_redis_reader_new();
	}
}

static void test_a_string_over_its_own_bound(void **state)
{
	static char block[TNL_REDIS_BULK + 3];
	struct tnl_redis_reply *r;
	char head[32];
	memset(block, 'x', sizeof(block));
	memcpy(block + sizeof(block) - 2, "\r\n", 2);
	snprintf(head, sizeof(head), "$%u\r\n", TNL_REDIS_BULK + 1);
	assert_int_equal(feed(head), 0);
	assert_int_equal(tnl_redis_reader_feed(rd, block, sizeof(block)), 0);
	assert_int_equal(tnl_redis_reader_next(rd, &r), TNL_ETOOBIG);
}

static void test_what_is_no_reply(void **state)
{
	static const char *const bad[] = {
	    "hello\r\n", "$x\r\n",  "*9999999999999\r\n",
	    "$-2\r\n",	 "*-2\r\n", "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n"};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct tnl_redis_reader *x = tnl_redis_reader_new();
		struct tnl_redis_reply *r;
		assert_int_equal(tnl_redis_reader_feed(x, bad[i], strlen(bad[i])), 0);
		int rc = tnl_redis_reader_next(x, &r);
		if (rc != TNL_ESYNTAX && rc != TNL_ETOOBIG)
			fail_msg("%s: %d", bad[i], rc);
		tnl_redis_reader_free(x);
	}
}

static void test_commands_are_binary_safe(void **state)
{
	struct tnl_buf b;
	const struct tnl_redis_arg v[] = {{"SET", 3}, {"k\r\n", 3}, {"a\0b", 3}};
	tnl_buf_init(&b, 1024);
	assert_int_equal(tnl_redis_command(&b, v, 3), 0);
	assert_int_equal(tnl_buf_len(&b), 31);
	assert_memory_equal(tnl_buf_data(&b), "*3\r\n$3\r\nSET\r\n$3\r\nk\r\n\r\n$3\r\na\0b\r\n", 31);
	tnl_buf_fini(&b);
	tnl_buf_init(&b, 16);
	assert_int_not_equal(tnl_redis_command(&b, v, 3), 0);
	tnl_buf_fini(&b);
}

static void test_url(void **state)
{
	struct tnl_redis_url u;
	const char *fault;
	assert_int_equal(tnl_redis_url_parse("redis://al%40ce:p%3Aw@h1:7000,[::1],h-3/2", &u, &fault), 0);
	assert_string_equal(u.user, "al@ce");
	assert_string_equal(u.password, "p:w");
	assert_int_equal(u.nhosts, 3);
	assert_string_equal(u.hosts[0].host, "h1");
	assert_int_equal(u.hosts[0].port, 7000);
	assert_string_equal(u.hosts[1].host, "::1");
	assert_int_equal(u.hosts[1].port, 6379);
	assert_int_equal(u.db, 2);
	assert_false(u.tls);
	assert_int_equal(tnl_redis_url_parse("rediss://:secret@a,b:27000?sentinel=main", &u, &fault), 0);
	assert_true(u.tls);
	assert_string_equal(u.user, "");
	assert_string_equal(u.password, "secret");
	assert_string_equal(u.sentinel, "main");
	assert_int_equal(u.hosts[0].port, 26379);
	assert_int_equal(u.hosts[1].port, 27000);
	assert_int_equal(tnl_redis_url_parse("redis://h/", &u, &fault), 0);
	assert_int_equal(u.db, 0);
}

static void test_url_faults(void **state)
{
	static const char *const bad[] = {
	    "redis:h",
	    "redis://",
	    "redis://h:0",
	    "redis://h:65536",
	    "redis://h:x",
	    "redis://h,,i",
	    "redis://user@h",
	    "redis://u:@h",
	    "redis://h/x",
	    "redis://h/1/2",
	    "redis://h?x=1",
	    "redis://h?sentinel=",
	    "redis://[::1",
	    "redis://[::1]x",
	    "redis://u:%zz@h",
	    "redis://h h",
	    "redis://u:%00@h",
	    "redis://h/99999999",
	    "redis://h?sentinel=a&b=c",
	    "redis://1,2,3,4,5,6,7,8,9",
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct tnl_redis_url u;
		const char *fault = NULL;
		if (tnl_redis_url_parse(bad[i], &u, &fault) == 0)
			fail_msg("taken: %s", bad[i]);
		assert_non_null(fault);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_every_type_at_every_split, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_an_array_too_large_costs_nothing, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_arrays_in_arrays_share_one_bound, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_a_string_too_large_is_not_waited_for, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_a_line_too_long_is_not_waited_for, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_a_string_over_its_own_bound, setup, teardown),
	    cmocka_unit_test(test_what_is_no_reply),
	    cmocka_unit_test(test_commands_are_binary_safe),
	    cmocka_unit_test(test_url),
	    cmocka_unit_test(test_url_faults),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
