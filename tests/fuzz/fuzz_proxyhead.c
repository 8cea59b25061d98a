/* The PROXY head of a stranger.  A shorter beginning of a good one is never whole and never wrong; what was read and
 * can be written reads the same again. */
#include "lib/proxyhead.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static bool same_end(const struct tnl_proxyhead_end *a, const struct tnl_proxyhead_end *b)
{
	return memcmp(a->ip, b->ip, sizeof(a->ip)) == 0 && a->port == b->port;
}

static void there_and_back(const struct tnl_proxyhead *h)
{
	uint8_t out[TNL_PROXYHEAD_LONGEST];
	struct tnl_proxyhead again;
	size_t n = tnl_proxyhead_write(h, out);

	if (tnl_proxyhead_parse(out, n, &again) != (int)n)
		abort();
	if (h->local || h->family == TNL_PROXYHEAD_NONE || h->family == TNL_PROXYHEAD_UNIX)
		return;
	if (again.family != h->family || !same_end(&again.source, &h->source) ||
	    !same_end(&again.destination, &h->destination))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct tnl_proxyhead h, shorter;
	int whole = tnl_proxyhead_parse(p, n, &h);

	if (whole == TNL_EAGAIN && n >= TNL_PROXYHEAD_MAX)
		abort();
	if (whole <= 0)
		return 0;
	if ((size_t)whole > n || (size_t)whole > TNL_PROXYHEAD_MAX)
		abort();
	for (int k = 0; k < whole; k += 1 + whole / 128)
		if (tnl_proxyhead_parse(p, (size_t)k, &shorter) != TNL_EAGAIN)
			abort();
	there_and_back(&h);
	return 0;
}
