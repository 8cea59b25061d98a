/* WebSocket input, cut into pieces at random: no crash, bounded output, and the same events
 * whether the bytes came whole or in pieces. */
#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/num.h"
#include "lib/ws.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

#define MAX 5000u

struct outcome {
	uint32_t hash;
	int rc, events;
};

static void mix(struct outcome *o, const void *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		o->hash = (o->hash ^ ((const uint8_t *)p)[i]) * 16777619u;
}

static void drain(struct tnl_ws *w, struct outcome *o)
{
	struct tnl_ws_event ev;
	const char *fault = NULL;

	while ((o->rc = tnl_ws_next(w, &ev, 0, &fault)) == 1) {
		uint8_t meta[4] = {(uint8_t)ev.op, (uint8_t)ev.close_code, (uint8_t)(ev.close_code >> 8), 0};

		if (ev.len > MAX)
			abort();
		mix(o, meta, sizeof(meta));
		mix(o, ev.data, ev.len);
		memset(ev.data, 0, ev.len); /* writable, as promised */
		o->events++;
	}
	if (o->rc != TNL_EAGAIN && !fault)
		abort();
}

static void run(bool server, const uint8_t *p, size_t n, size_t step, struct outcome *o)
{
	struct tnl_ws_config c = {.server = server, .max_message = MAX, .out_max = 4096};
	size_t at = 0, out, held = tnl_alloc_bytes();
	struct tnl_ws *w = tnl_ws_new(&c, 0);

	tnl_alloc_most();

	if (!w)
		abort();
	*o = (struct outcome){.hash = 2166136261u};
	while (at < n) {
		size_t cap, k = n - at;
		uint8_t *q = tnl_ws_in_reserve(w, &cap);

		if (!q || cap < 4096)
			abort();
		k = TNL_MIN(k, cap);
		k = TNL_MIN(k, step);
		memcpy(q, p + at, k);
		tnl_ws_in_commit(w, k, 0);
		at += k;
		drain(w, o);
	}
	tnl_ws_out_peek(w, &out);
	if (out > 4096 + 16384)
		abort();
	if (tnl_alloc_most() - held >
	    220000 + n) /* the buffers, however the bytes are cut (corpus/ws/small-fragments) */
		abort();
	tnl_ws_free(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct outcome whole, pieces;

	if (n < 2)
		return 0;
	run(p[0] & 1, p + 2, n - 2, SIZE_MAX, &whole);
	run(p[0] & 1, p + 2, n - 2, (size_t)p[1] + 1, &pieces);
	if (whole.hash != pieces.hash || whole.rc != pieces.rc || whole.events != pieces.events)
		abort();
	return 0;
}
