/* Payloads of acknowledge: the fast reader and the JSON one, and the writer behind them. */
#include "lib/message.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct tnl_ack a, b;
	char text[TNL_ACK_MAX];

	if (tnl_ack_parse(p, n, &a) || a.type == TNL_MT_UNKNOWN)
		return 0;
	size_t len = tnl_ack_write(text, &a);
	if (len > sizeof(text) || tnl_ack_parse((uint8_t *)text, len, &b))
		abort();
	if (a.type != b.type || a.seq != b.seq || memcmp(a.id, b.id, 16) != 0)
		abort();
	return 0;
}
