/* The captured handshake of an encrypted shell, as text. */
#ifndef HS_UTIL_H
#define HS_UTIL_H
#include "tests/unit/check.h"
#include "lib/enc.h"
#include "lib/num.h"
#include "tests/vectors/kms_shell.h"

#define KMS_KEY "arn:aws:kms:us-east-1:000000000000:key/11111111-2222-3333-4444-555555555555"

static const char *kms_text(unsigned ptype)
{
	static char text[2048];
	for (size_t i = 0; i < TNL_COUNT(kms_messages); i++) {
		if (kms_messages[i].ptype != ptype)
			continue;
		size_t n = strlen(kms_messages[i].hex);
		assert_true(n / 2 < sizeof(text));
		assert_int_equal(tnl_unhex(kms_messages[i].hex, n, (uint8_t *)text), 0);
		text[n / 2] = '\0';
		return text;
	}
	fail();
	return "";
}

#endif
