/* Two sessions back to back in memory: what mux, session and channel cost together, digests included.
 *   bench_session [payload bytes] [megabytes] [encrypted 0|1] */
#include "lib/crypto.h"
#include "lib/session.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t now;
static struct tnl_session *ends[2];
static uint64_t got;

static uint64_t clock_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t wall(void *ctx)
{
	(void)ctx;
	return 1700000000000u;
}

static void on_open(void *ctx, struct tnl_stream *st)
{
	(void)ctx;
	tnl_stream_connected(st, now);
}

static size_t on_data(void *ctx, struct tnl_stream *st, uint32_t ptype, const uint8_t *p, size_t n)
{
	(void)ctx;
	(void)st;
	(void)ptype;
	(void)p;
	got += n;
	return n;
}

static void on_kms(void *ctx, const struct tnl_kms_request *k)
{
	static const uint8_t key[64] = "bench";
	tnl_session_kms_result(ctx, 0, key, 64, (const uint8_t *)"c", k->generate ? 1 : 0, NULL, now);
}

static void on_kms_client(void *ctx, const struct tnl_kms_request *k)
{
	(void)ctx;
	on_kms(ends[0], k);
}
static void on_kms_agent(void *ctx, const struct tnl_kms_request *k)
{
	(void)ctx;
	on_kms(ends[1], k);
}

static unsigned move(int from, unsigned most)
{
	const uint8_t *p;
	size_t n;
	unsigned k = 0;
	while (k < most && tnl_session_pull(ends[from], now, &p, &n) == 1) {
		if (tnl_session_feed(ends[!from], p, n, now)) {
			fprintf(stderr, "bench_session: a session ended\n");
			exit(1);
		}
		k++;
	}
	return k;
}

int main(int argc, char **argv)
{
	size_t payload = argc > 1 ? strtoul(argv[1], NULL, 10) : 32768, cap;
	uint64_t total = (argc > 2 ? strtoull(argv[2], NULL, 10) : 512) << 20, sent = 0, messages = 0;
	bool encrypted = argc > 3 && argv[3][0] == '1';
	struct tnl_session_cb cb[2] = {{.on_data = on_data, .on_kms = on_kms_client},
				       {.on_open = on_open, .on_data = on_data, .on_kms = on_kms_agent}};
	for (int i = 0; i < 2; i++) {
		struct tnl_session_config c = {.agent = i == 1,
					       .session_id = "bench",
					       .memory_max = 16u << 20,
					       .stream_window = 1u << 20,
					       .max_payload = payload,
					       .offer_capabilities = true,
					       .session_type = "Port",
					       .properties_json = "{\"type\":\"LocalPortForwarding\"}",
					       .kms_key_id = encrypted && i ? "key" : NULL,
					       .wall_ms = wall,
					       .cb = &cb[i]};
		ends[i] = tnl_session_new(&c, now);
	}
	now = 1000000000;
	struct tnl_stream *st = tnl_stream_open(ends[0], NULL, now, NULL);
	tnl_session_link_up(ends[0], now);
	tnl_session_link_up(ends[1], now);
	while (move(0, 100) + move(1, 100))
		now += 1000;
	uint64_t began = clock_ns();
	while (got < total) {
		now += 20000;
		tnl_stream_want_send(st, true);
		struct tnl_stream *x;
		while (sent < total && (x = tnl_session_next(ends[0], now))) {
			uint8_t *p = tnl_stream_reserve(x, &cap, now);
			if (!p)
				break;
			p[0] = (uint8_t)sent; /* as read(2) would write it all */
			if (tnl_stream_commit(x, cap, TNL_PT_OUTPUT, now))
				return 1;
			sent += cap;
			messages++;
		}
		if (move(0, 64) + move(1, 64) == 0) {
			tnl_session_expire(ends[0], now);
			tnl_session_expire(ends[1], now);
		}
	}
	double s = (double)(clock_ns() - began) / 1e9;
	printf("%zu bytes%s: %.0f MB/s, %.0f ns a message, %.0f bytes a message\n", payload,
	       encrypted ? ", encrypted" : "", (double)got / 1e6 / s, s * 1e9 / (double)messages,
	       (double)got / (double)messages);
	tnl_session_free(ends[0]);
	tnl_session_free(ends[1]);
	return 0;
}
