#include "tunneld/command/new_keys.h"
#include "lib/crypto.h"
#include <string.h>

static void random_text(char *out, size_t n, const char *prefix, const char *alphabet)
{
	size_t k = strlen(prefix), m = strlen(alphabet);
	memcpy(out, prefix, k);
	while (k < n) {
		uint8_t r;
		tnl_random(&r, 1);
		if (r < 256 / m * m)
			out[k++] = alphabet[r % m];
	}
	out[n] = '\0';
}

void td_new_key_id(char out[TD_NEW_KEY_ID + 1])
{
	random_text(out, TD_NEW_KEY_ID, "AKID", "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567");
}

void td_new_secret(char out[TD_NEW_SECRET + 1])
{
	random_text(out, TD_NEW_SECRET, "", "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789");
}
