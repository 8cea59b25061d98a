/* The datagrams of a stranger's stream: in one piece and byte by byte they are the same.  The first byte says into how
 * long pieces the other way is cut. */
#include "lib/dgram.h"
#include "lib/num.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

/* How many there are before the end or a fault, and what all of their bytes come to. */
static int sum_up(const uint8_t *p, size_t n, size_t piece, size_t *count, uint64_t *sum)
{
	struct tnl_dgram_reader r = {.have = 0};
	int rc = 0;

	*count = 0;
	*sum = 0;
	for (size_t at = 0, used; at < n && rc >= 0; at += used) {
		const uint8_t *d;
		size_t dn;
		rc = tnl_dgram_read(&r, p + at, TNL_MIN(piece, n - at), &used, &d, &dn);
		if (rc >= 0 && used == 0)
			abort();
		for (size_t i = 0; rc == 1 && i < dn; i++)
			*sum = *sum * 31 + d[i];
		*count += rc == 1;
	}
	tnl_dgram_reader_fini(&r);
	return rc < 0 ? rc : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	size_t one, two;
	uint64_t a, b;

	if (n == 0)
		return 0;
	int r = sum_up(p + 1, n - 1, SIZE_MAX, &one, &a), s = sum_up(p + 1, n - 1, (size_t)p[0] + 1, &two, &b);
	if (r != s || one != two || a != b)
		abort();
	return 0;
}
