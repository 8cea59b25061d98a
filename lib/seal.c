#include "lib/seal.h"
#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/enc.h"
#include <string.h>

struct tnl_seal {
	struct tnl_gcm *out, *in;
	uint8_t nonce[TNL_SEAL_NONCE]; /* of the next message: a little-endian counter */
	uint64_t sealed;
};

struct tnl_seal *tnl_seal_new(const uint8_t key64[64], bool agent)
{
	struct tnl_seal *s = tnl_calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	s->out = tnl_gcm_new(agent ? key64 : key64 + 32);
	s->in = tnl_gcm_new(agent ? key64 + 32 : key64);
	if (!s->out || !s->in) {
		tnl_seal_free(s);
		return NULL;
	}
	tnl_random(s->nonce, sizeof(s->nonce));
	return s;
}

void tnl_seal_free(struct tnl_seal *s)
{
	if (!s)
		return;
	tnl_gcm_free(s->out);
	tnl_gcm_free(s->in);
	tnl_free_wiped(s, sizeof(*s));
}

int tnl_seal_seal(struct tnl_seal *s, uint8_t *p, size_t n)
{
	/* NIST SP 800-38D wants a rekey long before the counter could wrap. */
	if (s->sealed >= UINT64_C(1) << 48)
		return TNL_ECRYPTO;
	memcpy(p, s->nonce, TNL_SEAL_NONCE);
	int rc = tnl_gcm_seal(s->out, p, p + TNL_SEAL_NONCE, n, NULL, 0, p + TNL_SEAL_NONCE);
	/* Used up even when sealing failed: a nonce is never tried twice. */
	for (size_t i = 0; i < TNL_SEAL_NONCE && ++s->nonce[i] == 0; i++)
		;
	s->sealed++;
	return rc;
}

int tnl_seal_open(struct tnl_seal *s, const uint8_t *p, size_t n, uint8_t *out)
{
	if (n < TNL_SEAL_OVERHEAD)
		return TNL_ECRYPTO;
	return tnl_gcm_open(s->in, p, p + TNL_SEAL_NONCE, n - TNL_SEAL_NONCE, NULL, 0, out);
}
