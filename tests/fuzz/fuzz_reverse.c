/* Words about listeners, and what stands in the SYN of a connection to one; the first byte chooses the reader. */
#include "lib/alloc.h"
#include "lib/reverse.h"
#include "lib/smux.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

/* What was taken is written and taken again as the same. */
static void word(const uint8_t *p, size_t n)
{
	struct tnl_reverse r, again;
	struct tnl_buf b;

	if (tnl_reverse_parse(p, n, &r))
		return;
	if (!r.id || memchr(r.bind, ' ', strlen(r.bind)))
		abort();
	tnl_buf_init(&b, 4 * TNL_REVERSE_JSON);
	if (tnl_reverse_write(&b, &r))
		abort();
	if (r.kind != TNL_REVERSE_REFUSED) /* whose text may have been cut in a character */
		if (tnl_reverse_parse(tnl_buf_data(&b), tnl_buf_len(&b), &again) || again.kind != r.kind ||
		    again.id != r.id || again.most != r.most || strcmp(again.bind, r.bind) != 0 ||
		    strcmp(again.client, r.client) != 0)
			abort();
	tnl_buf_fini(&b);
}

static void head(const uint8_t *p, size_t n)
{
	char from[TNL_SMUX_WORDS];
	uint8_t out[TNL_SMUX_WORDS];
	uint16_t id;

	if (!tnl_reverse_head_parse(p, n, &id, from))
		return;
	if (!id || strlen(from) != n - 2 || tnl_reverse_head_write(out, id, from) != n || memcmp(out, p, n) != 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	if (!n)
		return 0;
	if (p[0] & 1)
		head(p + 1, n - 1);
	else
		word(p + 1, n - 1);
	if (tnl_alloc_live() != 0)
		abort();
	return 0;
}
