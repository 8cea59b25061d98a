/* Sessions in a process that has used up its memory. */
#include "tests/daemon/pump/pump_util.h"
#include "lib/alloc.h"
#include "lib/num.h"

static void at_the_memory_limit_reading_stops_and_goes_on(void **state)
{
	enum { N = 24 };
	struct flow f[N];
	int target[N];
	uint64_t sum = 0, last = 1;

	W.tiny = true;
	W.memory = 16 << 20;
	pumps_up();
	for (int i = 0; i < N; i++) {
		f[i] = (struct flow){open_stream(), -1, 400000, 0, 0, 0};
		target[i] = W.target;
	}
	W.target = -1;
	td_memory_limit(tnl_alloc_bytes() + 400000);
	for (int still = 0; still < 200; still = sum == last ? still + 1 : 0) {
		last = sum;
		step(f, N);
		sum = 0;
		for (int i = 0; i < N; i++)
			sum += f[i].sent;
		/* One session may be at the limit, the other still has its least share; and a message each. */
		assert_true(td_memory_told() < 400000 + 262144 + 4 * 65536);
	}
	assert_true(sum < N * 400000);
	for (int i = 0; i < N; i++)
		f[i].to = target[i];
	flow_all(f, N); /* the limit stays: readers that read again are all it takes */
	for (int i = 0; i < N; i++) {
		close(f[i].from);
		close(target[i]);
	}
}

/* One of so many that none has a least share to speak of, in a process that is full: it sends a little at a time, and
 * keeps little for a reader that does not read; with one that does everything arrives. */
static void beyond_its_share_a_session_goes_on_in_small_portions(void **state)
{
	enum { MANY = 100000, TOTAL = 300000 };
	size_t most = 0;

	W.tiny = true;
	pumps_up();
	int fd = open_stream(), target = W.target;
	struct flow f = {fd, -1, TOTAL, 0, 0, 0};
	W.target = -1;
	td_memory_limit(tnl_alloc_bytes() / 2);
	td_memory_count_owner(MANY);
	for (int i = 0; i < 300; i++) {
		struct tnl_channel_stats c;
		step(&f, 1);
		tnl_channel_stats(tnl_session_channel(td_pump_session(W.c.pump)), &c);
		most = TNL_MAX(most, c.inflight_bytes);
	}
	assert_in_range(most, 4096, 16 * 1024);
	assert_true(f.sent < 64 * 1024); /* what is not read holds it up */
	assert_true(tnl_session_memory(td_pump_session(W.c.pump)) < 32 * 1024);
	assert_true(tnl_session_memory(td_pump_session(W.a.pump)) < 32 * 1024);
	f.to = target;
	flow_all(&f, 1);
	td_memory_count_owner(-MANY);
	close(fd);
	close(target);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(at_the_memory_limit_reading_stops_and_goes_on),
	    TEST(beyond_its_share_a_session_goes_on_in_small_portions),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
