/* Two channels back to back in memory: what the reliable layer costs a message,
 * hashing included (the digest of every payload on both sides), in CPU time.
 *   bench_channel [payload bytes] [megabytes] [messages on their way at once] */
#include "lib/channel.h"
#include "lib/crypto.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t clock_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* CPU time: what a busy machine does not change much. */
static uint64_t cpu_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t wall(void *ctx)
{
	(void)ctx;
	return 1700000000000u;
}

static int deliver(void *ctx, const struct tnl_msg *m, uint64_t now)
{
	(void)now;
	*(uint64_t *)ctx += m->plen;
	return 0;
}

static void fail(const char *what)
{
	fprintf(stderr, "bench_channel: %s\n", what);
	exit(1);
}

/* Moves what `from` has to `to`; at most `most` messages. Returns how many. */
static unsigned move(struct tnl_channel *from, struct tnl_channel *to, unsigned most, uint64_t now)
{
	const uint8_t *p;
	size_t n;
	unsigned k = 0;
	struct tnl_msg m;
	while (k < most && tnl_channel_pull(from, now, &p, &n) == 1) {
		if (tnl_msg_decode(p, n, &m, NULL) || tnl_channel_feed(to, &m, now))
			fail("a message was refused");
		k++;
	}
	return k;
}

static void run(size_t payload, uint64_t total, unsigned batch)
{
	uint64_t got = 0, back = 0, sent = 0, start = cpu_ns(), now = clock_ns();
	struct tnl_channel_config a = {
	    .send_type = TNL_MT_OUTPUT, .recv_type = TNL_MT_INPUT, .wall_ms = wall, .deliver = deliver, .ctx = &back};
	struct tnl_channel_config b = {
	    .send_type = TNL_MT_INPUT, .recv_type = TNL_MT_OUTPUT, .wall_ms = wall, .deliver = deliver, .ctx = &got};
	struct tnl_channel *ca = tnl_channel_new(&a, now), *cb = tnl_channel_new(&b, now);
	if (!ca || !cb)
		fail("no memory");
	tnl_channel_set_max_payload(ca, payload);
	tnl_channel_link_up(ca, now);
	tnl_channel_link_up(cb, now);
	while (got < total) {
		unsigned k = 0;
		now = clock_ns();
		while (sent < total && k < batch && tnl_channel_can_send(ca, now)) {
			uint8_t *p = tnl_channel_reserve(ca, payload);
			if (!p)
				break;
			p[0] = (uint8_t)k;
			if (tnl_channel_commit(ca, TNL_PT_OUTPUT, payload, 0, now))
				fail("commit");
			sent += payload;
			k++;
		}
		move(ca, cb, batch, now);
		now = clock_ns();
		move(cb, ca, batch, now);
		if (tnl_channel_expire(ca, now))
			fail("expire");
	}
	double s = (double)(cpu_ns() - start) / 1e9;
	struct tnl_channel_stats st;
	tnl_channel_stats(ca, &st);
	printf("payload %6zu  batch %4u  %7.0f MB/s  %7.0f ns/message  resent %llu  cwnd %zu KiB  memory %zu KiB\n",
	       payload, batch, (double)got / 1e6 / s, s * 1e9 / (double)st.sent, (unsigned long long)st.resent,
	       st.cwnd >> 10, st.memory >> 10);
	tnl_channel_free(ca);
	tnl_channel_free(cb);
}

/* What the two hashes of such a payload take, for comparison. */
static void hashes(size_t payload)
{
	uint8_t *p = calloc(1, payload), d[32];
	unsigned n = (unsigned)(20000000 / payload) + 1;
	uint64_t start = cpu_ns();
	for (unsigned i = 0; i < 2 * n; i++)
		tnl_sha256(p, payload, d);
	printf("payload %6zu  two hashes alone: %7.0f ns\n", payload, (double)(cpu_ns() - start) / n);
	free(p);
}

int main(int argc, char **argv)
{
	if (argc > 1) {
		size_t payload = (size_t)strtoul(argv[1], NULL, 10);
		uint64_t mb = argc > 2 ? strtoull(argv[2], NULL, 10) : 500;
		run(payload, mb * 1000000u, argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 64);
		return 0;
	}
	static const size_t sizes[] = {64, 1024, 16384, 32768};
	for (unsigned i = 0; i < 4; i++) {
		hashes(sizes[i]);
		run(sizes[i], sizes[i] < 1024 ? 20000000 : 400000000, 64);
	}
	return 0;
}
