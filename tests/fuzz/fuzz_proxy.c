/* Greetings of local programs: byte 0 says whether a password is wanted and how the bytes are cut. */
#include "lib/alloc.h"
#include "lib/greeting.h"
#include "lib/head.h"
#include "lib/num.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct tnl_greeting g;
	struct tnl_head h;
	uint8_t out[TNL_GREETING_OUT];
	const uint8_t *p;
	enum tnl_greeting_event e = TNL_GREETING_MORE;
	if (size < 1)
		return 0;
	size_t chunk = (data[0] >> 1) + 1u, at = 1, used;
	tnl_greeting_init(&g, data[0] & 1);
	while (at < size && e == TNL_GREETING_MORE) {
		size_t n = TNL_MIN(chunk, size - at);
		e = tnl_greeting_feed(&g, data + at, n, &used);
		if (used > n)
			abort();
		at += used;
		if (e == TNL_GREETING_PASSWORD)
			e = tnl_greeting_admit(&g, strlen(g.password) % 2 == 0);
		if (tnl_greeting_take(&g, &p) > TNL_GREETING_OUT)
			abort();
	}
	if (e == TNL_GREETING_READY && tnl_head_set(&h, TNL_HEAD_TCP, g.host, g.port) != 0)
		abort(); /* each destination has a head */
	size_t n = tnl_greeting_answer(&g, (enum tnl_greeting_result)(data[0] % TNL_GREETING_RESULTS),
				       (const char[]){(char)data[0], '\n', 0}, out);
	if ((e == TNL_GREETING_READY) != (n > 0) || n > sizeof(out))
		abort();
	tnl_greeting_fini(&g);
	if (tnl_alloc_live() != 0)
		abort();
	return 0;
}
