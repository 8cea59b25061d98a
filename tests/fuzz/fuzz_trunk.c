/* A trunk's other end says anything: what is kept stays in its bounds, and what is taken is granted again.  The first
 * byte chooses how the reader behaves, and whether it is greeted properly first. */
#include "lib/trunk.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

struct reader {
	uint8_t ways;
};

static bool on_greeted(void *ctx, const char *name)
{
	return *name != 'x';
}

static void on_opened(void *ctx, struct tnl_trunk_stream *st)
{
	struct reader *r = ctx;
	if (r->ways & 1)
		tnl_trunk_close(st);
	else
		tnl_trunk_want(st);
}

static void on_data(void *ctx, struct tnl_trunk_stream *st, const uint8_t *p, size_t n)
{
	struct reader *r = ctx;
	if (r->ways & 2)
		tnl_trunk_taken(st, n);
	else if ((r->ways & 4) && n && *p == 'c')
		tnl_trunk_close(st);
}

static void on_ended(void *ctx, struct tnl_trunk_stream *st, bool reset)
{
	struct reader *r = ctx;
	if (reset || (r->ways & 8))
		tnl_trunk_close(st);
	else
		tnl_trunk_shut(st);
}

static void on_dismissed(void *ctx, struct tnl_trunk_stream *st)
{
	struct reader *r = ctx;
	if (r->ways & 8)
		tnl_trunk_close(st);
	else
		tnl_trunk_dismiss(st);
}

static void on_credit(void *ctx, struct tnl_trunk_stream *st) {}

static void send_some(struct tnl_trunk *t)
{
	struct tnl_trunk_stream *st = tnl_trunk_next(t);
	size_t n = 5000;
	uint8_t *to = st ? tnl_trunk_reserve(st, &n) : NULL;
	if (!to)
		return;
	memset(to, 'd', n);
	tnl_trunk_commit(st, n);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static const uint8_t hello[] = "TNLPEER1\x02n2";
	struct reader r = {0};
	const struct tnl_trunk_config c = {.name = "n1",
					   .max_streams = 16,
					   .greeted = on_greeted,
					   .opened = on_opened,
					   .data = on_data,
					   .ended = on_ended,
					   .dismissed = on_dismissed,
					   .credit = on_credit,
					   .ctx = &r};
	struct tnl_trunk *t = tnl_trunk_new(&c);
	if (!t || n == 0) {
		tnl_trunk_free(t);
		return 0;
	}
	r.ways = *p++;
	n--;
	int rc = r.ways & 16 ? 0 : tnl_trunk_feed(t, hello, sizeof(hello) - 1);
	if (rc == 0 && (r.ways & 32))
		tnl_trunk_open(t, NULL);
	while (rc == 0 && n) {
		size_t k = r.ways & 64 ? 1 : n;
		rc = tnl_trunk_feed(t, p, k);
		p += k;
		n -= k;
		if (rc == 0)
			send_some(t);
	}
	if (tnl_trunk_streams(t) > 16 || tnl_buf_len(tnl_trunk_out(t)) > TNL_TRUNK_DATA + TNL_TRUNK_CONTROL)
		abort();
	tnl_trunk_free(t);
	return 0;
}
