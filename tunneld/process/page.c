#include "tunneld/process/page.h"
#include "lib/crypto.h"
#include "lib/enc.h"

#include <stdio.h>
#include <string.h>

__asm__(".section .rodata\n"
	"page_begin: .incbin \"tunneld/process/page.html\"\n"
	"page_end: .byte 0\n"
	".previous\n");
extern const char page_begin[], page_end[];

const char *td_page(size_t *n)
{
	*n = (size_t)(page_end - page_begin);
	return page_begin;
}

/* Base64 of the SHA-256 of what stands between the tags. */
static void hash_between(const char *open, const char *close, char out[static 48])
{
	const char *from = strstr(page_begin, open), *to = from ? strstr(from, close) : NULL;
	uint8_t sum[32];
	out[0] = '\0';
	if (!to)
		return;
	from += strlen(open);
	tnl_sha256(from, (size_t)(to - from), sum);
	tnl_b64(sum, sizeof(sum), out);
}

const char *td_page_policy(void)
{
	static char policy[400];
	char style[48], script[48];
	if (policy[0])
		return policy;
	hash_between("<style>", "</style>", style);
	hash_between("<script>", "</script>", script);
	snprintf(
	    policy, sizeof(policy),
	    "default-src 'none'; script-src 'sha256-%s'; style-src 'sha256-%s'; img-src data:; connect-src 'self'; "
	    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
	    script, style);
	return policy;
}
