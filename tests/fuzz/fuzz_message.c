/* Whole binary messages: what decodes must encode to the same bytes (the type's padding apart). */
#include "lib/message.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct tnl_msg m, again;
	struct tnl_msg_fault fault;

	int peek = tnl_msg_peek(p, n, &m, &fault);
	if (peek && !fault.field)
		abort();
	if (peek && peek != TNL_ETYPE)
		return 0;
	/* A fuzzer never guesses a digest: seal what it made, then all the rest is reached. */
	uint8_t *out = malloc(TNL_MSG_HDR + m.plen);
	size_t len = tnl_msg_encode(out, &m);
	int rc = tnl_msg_decode(out, len, &again, &fault);
	int publication = m.type == TNL_MT_START_PUBLICATION || m.type == TNL_MT_PAUSE_PUBLICATION;
	if (!publication &&
	    (rc != peek || again.seq != m.seq || again.plen != m.plen || memcmp(again.id, m.id, 16) != 0))
		abort();
	if (!publication && !peek && memcmp(out + 36, p + 36, 44) != 0)
		abort();
	free(out);
	return 0;
}
