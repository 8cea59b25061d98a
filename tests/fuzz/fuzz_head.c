/* The head of a stream: byte 0 says how its bytes are cut; what is taken comes out again as it went in. */
#include "lib/alloc.h"
#include "lib/head.h"
#include "lib/num.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct tnl_head_reader r = {0};
	struct tnl_head h, again;
	uint8_t out[TNL_HEAD_MAX];
	if (size < 1)
		return 0;
	size_t chunk = data[0] + 1u, at = 1, used = 0;
	int rc = 0;
	for (; rc == 0 && at < size; at += used)
		rc = tnl_head_feed(&r, data + at, TNL_MIN(chunk, size - at), &used, &h);
	if (rc == 1) {
		size_t n = tnl_head_write(&h, out);
		if (n > at - 1 || memcmp(out, data + 1, n) != 0 || tnl_head_parse(out, n, &again) != 0)
			abort();
		for (unsigned type = 0; type < 256; type++) {
			size_t len = 0;
			const uint8_t *p = tnl_head_field(&h, (uint8_t)type, &len);
			if (p && p + len > h.fields + h.nfields)
				abort();
		}
	}
	tnl_head_reader_fini(&r);
	if (tnl_alloc_live() != 0)
		abort();
	return 0;
}
