/* The window where both ends are told what stands on the way, over a model of TCP: its slow start, which grows only
 * while there is enough to send, and its repairs of losses, which hold back everything behind a hole for a round trip
 * or more. The start counts: every measurement begins with the first byte. */
#include "tests/unit/cc_util.h"
#include "lib/channel_internal.h"
#include <stdio.h>

static const char *const places[] = {"", "before the gateway", "behind it", "both"};

/* Bytes that one TCP over the whole path brings to the other end. */
static double tcp_alone(const struct world *of, uint64_t ns)
{
	static const uint8_t data[10 * SEGMENT];
	struct world w = {.up = {.rate = of->up.rate, .delay = of->up.delay, .lose = of->up.lose, .tcp = true}};
	double bytes = 0;
	if (of->told == BOTH) {
		w.up.delay *= 2;
		w.up.lose *= 2;
	}
	for (; w.now < ns; w.now += MS) {
		while (w.up.free_at < w.now + 2 * w.up.delay)
			pipe_put(&w.up, data, sizeof(data), w.now);
		while (pipe_next(&w.up) <= w.now)
			bytes += (double)pipe_drop(&w.up);
	}
	pipe_close(&w.up);
	return bytes;
}

static struct result transfer(struct world *w, double rate, unsigned rtt, int told, unsigned lose, double *of_tcp)
{
	world_open(w, rate, rtt * MS / 2);
	world_tcp(w, told, lose);
	w->bulk = false; /* a session has shaken hands, and was quiet */
	w->ping_ms = 100;
	measure(w, 3 * SEC);
	w->bulk = true;
	uint64_t before = w->b.bytes;
	struct result r = measure(w, 4 * SEC);
	*of_tcp = (double)(w->b.bytes - before) / tcp_alone(w, 4 * SEC);
	return r;
}

static void a_path_is_filled_like_by_one_tcp(void **state)
{
	(void)state;
	static const struct {
		unsigned rtt, lose;
		double rate, least;
	} cases[] = {
	    {50, 0, 1.25e7, 0.95},  {50, 0, 5e7, 0.95},	  {200, 0, 1e7, 0.95},
	    {50, 100, 2e7, 0.9},    {50, 100, 5e6, 0.9},  {50, 500, 1.5e7, 0.7},
	    {50, 500, 1.25e6, 0.7}, {200, 100, 5e6, 0.6}, {200, 500, 5e6, 0.7},
	};
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		for (int told = NEAR; told <= BOTH; told++) {
			struct world w;
			double of_tcp;
			struct result r = transfer(&w, cases[i].rate, cases[i].rtt, told, cases[i].lose, &of_tcp);
			print_message("%4.1f MB/s, %3u ms, loss %u %%, %s: %.2f of TCP, %llu resent\n",
				      cases[i].rate / 1e6, cases[i].rtt, cases[i].lose / 100, places[told], of_tcp,
				      (unsigned long long)r.st.resent);
			if (!getenv("TNL_CC_TRACE"))
				above(of_tcp, cases[i].least);
			world_close(&w);
		}
	}
}

/* A gateway that lies costs its own users time, or makes them a queue: nothing is lost, memory stays within its
 * bound, and the transfer goes on. */
static void a_gateway_that_lies_costs_time_and_nothing_else(void **state)
{
	(void)state;
	static const struct tnl_hop lies[] = {{0, false, false},
					      {0, true, true},
					      {UINT32_MAX * UINT64_C(1000), false, true},
					      {UINT32_MAX * UINT64_C(1000), true, false}};
	for (unsigned i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		struct world w;
		world_open(&w, 1.25e7, 25 * MS);
		world_tcp(&w, FAR, 0);
		w.lie = &lies[i];
		measure(&w, 2 * SEC);
		struct result r = measure(&w, 8 * SEC);
		print_message("told %llu ms, repairs %d: %.3f of the link, window %zu, memory %zu, %llu resent\n",
			      (unsigned long long)(lies[i].queue / MS), lies[i].repairs, r.util, r.st.cwnd, r.st.memory,
			      (unsigned long long)r.st.resent);
		above(r.util, 0.02);
		assert_true(r.st.memory <= 16u << 20);
		world_close(&w);
	}
}

/* What was measured over a silence is next to nothing: the next message goes a round trip later all the same, and its
 * ack tells better. */
static void a_rate_of_next_to_nothing_holds_no_message_back(void **state)
{
	(void)state;
	static const uint64_t rates[] = {0, 1, 500};
	struct world w;
	world_open(&w, 1.25e7, 25 * MS);
	world_tcp(&w, BOTH, 0);
	measure(&w, 2 * SEC);
	for (unsigned i = 0; i < 3; i++) {
		struct tnl_cc c = w.a.ch->first.cc;
		struct tnl_cc_snap s;
		assert_int_equal(c.state, TNL_CC_STEADY);
		c.rate.recent.best = rates[i];
		c.pace_at = 0;
		for (unsigned k = 0; k < 3; k++) {
			uint64_t at = tnl_cc_pace(&c, 0, w.now);
			assert_true(at <= w.now + 3 * 110 * MS);
			assert_true(tnl_cc_pace(&c, 32768, w.now) <= w.now + 4 * 110 * MS);
			tnl_cc_sent(&c, &s, 32768, 0, w.now);
		}
	}
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_path_is_filled_like_by_one_tcp),
	    cmocka_unit_test(a_gateway_that_lies_costs_time_and_nothing_else),
	    cmocka_unit_test(a_rate_of_next_to_nothing_holds_no_message_back),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
