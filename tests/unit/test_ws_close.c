/* Close frames: their codes and reasons, and what comes behind them. */
#include "tests/unit/ws_util.h"
#include "lib/num.h"

/* All codes that are registered, those of later years too, reach the caller with their reason and are answered in kind.
 */
static void test_close_codes(void **state)
{
	static const struct {
		uint16_t code;
		bool good;
	} t[] = {{0, false},	{999, false}, {1000, true}, {1003, true},  {1004, false}, {1005, false}, {1006, false},
		 {1007, true},	{1011, true}, {1012, true}, {1013, true},  {1014, true},  {1015, false}, {1016, false},
		 {2999, false}, {3000, true}, {4999, true}, {5000, false}, {65535, false}};
	uint8_t b[64], in[8] = {0, 0, 'w', 'h', 0, 'y'};
	struct tnl_ws_event ev;
	const uint8_t *rest;
	size_t n;

	for (int server = 0; server < 2; server++) {
		for (size_t i = 0; i < TNL_COUNT(t); i++) {
			tnl_put_be16(in, t[i].code);
			n = frame(b, 0x88, server, in, 6, 0);
			if (!t[i].good) {
				expect_refused(server, b, n, TNL_EPROTO, 1002, "close code");
				continue;
			}
			struct tnl_ws *w = ws_new(server);
			feed(w, b, n);
			assert_int_equal(tnl_ws_next(w, &ev, 0, NULL), 1);
			assert_int_equal(ev.op, TNL_WS_CLOSE);
			assert_int_equal(ev.close_code, t[i].code);
			assert_int_equal(ev.len, 4);
			assert_memory_equal(ev.data, in + 2, 4);
			assert_int_equal(tnl_ws_next(w, &ev, 0, NULL), TNL_EAGAIN);
			assert_int_equal(queued_close(w), t[i].code);
			tnl_ws_out_peek(w, &n);
			tnl_ws_out_consume(w, n);
			assert_true(tnl_ws_is_over(w, &rest, &n));
			tnl_ws_free(w);
		}
		struct tnl_ws *w = ws_new(server); /* without one */
		n = frame(b, 0x88, server, "", 0, 0);
		feed(w, b, n);
		assert_int_equal(tnl_ws_next(w, &ev, 0, NULL), 1);
		assert_int_equal(ev.close_code, 1005);
		assert_int_equal(ev.len, 0);
		assert_int_equal(*tnl_ws_out_peek(w, &n), 0x88);
		assert_int_equal(n, server ? 2 : 6);
		tnl_ws_free(w);
	}
}

/* What comes behind the close frame is not of the WebSocket. */
static void test_rest_behind_close(void **state)
{
	for (int server = 0; server < 2; server++) {
		for (int ours_first = 0; ours_first < 2; ours_first++) {
			struct tnl_ws_config c = {.server = server};
			struct tnl_ws *w = tnl_ws_new(&c, 0);
			static const uint8_t key[4] = {1, 2, 3, 4};
			uint8_t in[40] = {0x88, server ? 0x82 : 2}, *p = in + 2;
			const uint8_t *rest;
			struct tnl_ws_event ev;
			size_t n;
			if (server) {
				memcpy(p, key, 4);
				p += 4;
			}
			p[0] = 0x03 ^ (server ? key[0] : 0);
			p[1] = 0xe8 ^ (server ? key[1] : 0);
			memcpy(p + 2, "GET /", 5);
			if (ours_first)
				assert_int_equal(tnl_ws_close(w, 1000, NULL), 0);
			assert_false(tnl_ws_is_over(w, &rest, &n));
			memcpy(tnl_ws_in_reserve(w, &n), in, sizeof(in));
			tnl_ws_in_commit(w, (size_t)(p + 7 - in), 0);
			assert_int_equal(tnl_ws_next(w, &ev, 0, NULL), 1);
			assert_int_equal(ev.op, TNL_WS_CLOSE);
			assert_false(tnl_ws_is_over(w, &rest, &n)); /* ours is not out yet */
			assert_non_null(tnl_ws_out_peek(w, &n));
			assert_true(n > 0);
			tnl_ws_out_consume(w, n);
			assert_true(tnl_ws_is_over(w, &rest, &n));
			assert_int_equal(n, 5);
			assert_memory_equal(rest, "GET /", 5);
			tnl_ws_free(w);
		}
	}
}

static void test_long_close_reason(void **state)
{
	struct tnl_ws *w = ws_new(true);
	char reason[200];
	size_t n;

	memset(reason, 'a', sizeof(reason));
	memcpy(reason + 122, "\xc3\xbc", 2); /* the cut would fall into the middle of it */
	reason[199] = 0;
	assert_int_equal(tnl_ws_close(w, 1000, reason), 0);
	const uint8_t *p = tnl_ws_out_peek(w, &n);
	assert_int_equal(n, 2 + 2 + 122);
	assert_int_equal(p[1], 124);
	tnl_ws_free(w);
}

static int no_leaks(void **state)
{
	return tnl_alloc_live() == 0 ? 0 : -1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_close_codes),
	    cmocka_unit_test(test_rest_behind_close),
	    cmocka_unit_test(test_long_close_reason),
	};
	return cmocka_run_group_tests(tests, NULL, no_leaks);
}
