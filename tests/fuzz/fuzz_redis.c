/* Replies of a Redis server, in one piece and byte by byte: the same replies, and never more memory than the bounds
 * allow.  The first byte 'r' chooses the URL of a store instead. */
#include "lib/alloc.h"
#include "lib/err.h"
#include "lib/redis.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static size_t walk(const struct tnl_redis_reply *r)
{
	size_t sum = 1 + r->len + (uint64_t)r->integer % 7;
	if (r->str && r->str[r->len] != 0)
		abort();
	for (size_t i = 0; i < r->n; i++)
		sum = sum * 31 + walk(r->element[i]);
	return sum;
}

/* What came of it: every reply, then how it ended. */
static size_t drain(struct tnl_redis_reader *rd, int *rc)
{
	struct tnl_redis_reply *r;
	size_t sum = 0;
	while ((*rc = tnl_redis_reader_next(rd, &r)) == 0) {
		sum = sum * 131 + walk(r);
		tnl_redis_reply_free(r);
	}
	return sum;
}

static void replies(const uint8_t *p, size_t n)
{
	struct tnl_redis_reader *a = tnl_redis_reader_new(), *b = tnl_redis_reader_new();
	int ra = 0, rb = TNL_EAGAIN;
	if (!a || !b || tnl_redis_reader_feed(a, p, n) != 0)
		abort();
	size_t x = drain(a, &ra), y = 0;
	struct tnl_redis_reply *r;
	for (size_t i = 0; i < n && rb == TNL_EAGAIN; i++) {
		if (tnl_redis_reader_feed(b, p + i, 1) != 0)
			abort();
		while ((rb = tnl_redis_reader_next(b, &r)) == 0) {
			y = y * 131 + walk(r);
			tnl_redis_reply_free(r);
		}
	}
	if (x != y || (ra == TNL_EAGAIN) != (rb == TNL_EAGAIN))
		abort();
	tnl_redis_reader_free(a);
	tnl_redis_reader_free(b);
}

static void url(const uint8_t *p, size_t n)
{
	static const char begin[] = "redis://";
	char text[2048];
	struct tnl_redis_url u;
	const char *fault = NULL;
	if (n + sizeof(begin) >= sizeof(text))
		return;
	memcpy(text, begin, sizeof(begin) - 1);
	memcpy(text + sizeof(begin) - 1, p, n);
	text[n + sizeof(begin) - 1] = 0;
	if (tnl_redis_url_parse(text, &u, &fault) == 0 ? u.nhosts == 0 : fault == NULL)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	if (n && p[0] == 'r')
		url(p + 1, n - 1);
	else if (n < 65536)
		replies(p, n);
	return 0;
}
