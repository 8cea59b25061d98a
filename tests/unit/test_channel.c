#include "tests/unit/chan_util.h"

static void bytes_cross_in_order(void **state)
{
	(void)state;
	struct end a, b;
	cu_open(&a, true, 0, 0, 0, false);
	cu_open(&b, false, 0, 0, 0, false);
	tnl_channel_link_up(a.ch, 0);
	tnl_channel_link_up(b.ch, 0);
	uint64_t now = 0;
	size_t sent = 0, n;
	for (int i = 0; i < 60; i++) {
		now += MS / 10;
		while ((n = tnl_channel_can_send(a.ch, now))) {
			cu_send(&a, NULL, n, now);
			sent += n;
		}
		const uint8_t *p;
		struct tnl_msg m;
		while (tnl_channel_pull(a.ch, now, &p, &n) == 1) {
			assert_int_equal(tnl_msg_decode(p, n, &m, NULL), 0);
			assert_int_equal(tnl_channel_feed(b.ch, &m, now), 0);
		}
		now += MS / 10;
		while (tnl_channel_pull(b.ch, now, &p, &n) == 1) {
			assert_int_equal(tnl_msg_decode(p, n, &m, NULL), 0);
			assert_int_equal(tnl_channel_feed(a.ch, &m, now), 0);
		}
		assert_int_equal(tnl_channel_expire(a.ch, now), 0);
	}
	assert_int_equal(b.bytes, sent);
	struct tnl_channel_stats st;
	tnl_channel_stats(a.ch, &st);
	assert_true(tnl_channel_idle(a.ch));
	tnl_channel_free(a.ch);
	tnl_channel_free(b.ch);
	assert_int_equal(tnl_alloc_live(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(bytes_cross_in_order) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
