/* What TCP_INFO says of a path, and what is made of it. */
#include "tests/daemon/base/td_test.h"
#include "tunneld/net/tcp_hop.h"

#include "lib/num.h"

#include <linux/tcp.h>

/* Round trips are in us: as they were seen at the sender of one transfer, and where the rule turns. */
static void a_queue_stands_on_the_path(void **state)
{
	static const struct {
		const char *what;
		unsigned rtt, least, on_the_way;
		bool stands;
	} cases[] = {
	    {"50 ms and 100 Mbit/s, at the end of the start", 88000, 50000, 700, true},
	    {"50 ms and 100 Mbit/s, the window kept small", 53000, 50000, 440, false},
	    {"50 ms, and the socket's buffer is what limits", 52600, 50100, 1800, false},
	    {"a tail of few segments, acknowledged late", 90000, 50000, 8, false},
	    {"nothing on its way", 90000, 50000, 0, false},
	    {"no sample that is more than the least", 50000, 50000, 700, false},
	    {"a least that came later", 49000, 50000, 700, false},
	    {"not yet measured", 0, UINT32_MAX, 20, false},
	    {"a quarter above the least", 62500, 50000, 700, false},
	    {"and 1 ms", 63500, 50000, 700, false},
	    {"a little more", 63501, 50000, 700, true},
	    {"a short path has a queue, too", 5000, 2000, 100, true},
	};
	for (size_t i = 0; i < TNL_COUNT(cases); i++) {
		struct tcp_info t = {.tcpi_rtt = cases[i].rtt,
				     .tcpi_min_rtt = cases[i].least,
				     .tcpi_unacked = cases[i].on_the_way};
		if (td_tcp_hop_stands(&t) != cases[i].stands)
			fail_msg("%s", cases[i].what);
	}
}

/* There is no path, or none that is long enough for it to matter. */
static void what_is_no_long_path_is_not_full(void **state)
{
	struct td_tcp_hop h = {0};
	int fds[2];
	assert_int_equal(pipe(fds), 0);
	const struct tnl_hop *hop = td_tcp_hop_ask(&h, fds[1], 1u << 20, TD_SEC);
	assert_false(hop->full || hop->repairs);
	assert_int_equal(hop->queue, 0);
	close(fds[0]);
	close(fds[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_queue_stands_on_the_path),
	    cmocka_unit_test(what_is_no_long_path_is_not_full),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
