#include "lib/seal.h"
#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/enc.h"
#include <string.h>

#define ABOUT_MAX (1 + 8 + 4 + 32)

struct tnl_seal {
	struct tnl_gcm *out, *in;
	uint8_t nonce[TNL_SEAL_NONCE];	  /* of the next message: a little-endian counter */
	uint8_t expected[TNL_SEAL_NONCE]; /* of the peer's next, once there was one */
	uint8_t mark_key[32];
	uint64_t sealed;
	bool agent, in_order, opened, bound;
};

struct tnl_seal *tnl_seal_new(const uint8_t key64[64], bool agent)
{
	static const char label[] = "tunneld mark";
	struct tnl_seal *s = tnl_calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	s->agent = agent;
	s->out = tnl_gcm_new(agent ? key64 : key64 + 32);
	s->in = tnl_gcm_new(agent ? key64 + 32 : key64);
	if (!s->out || !s->in) {
		tnl_seal_free(s);
		return NULL;
	}
	tnl_hmac_sha256(key64, 64, label, sizeof(label) - 1, s->mark_key);
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

void tnl_seal_expect_order(struct tnl_seal *s)
{
	s->in_order = true;
}

void tnl_seal_bind(struct tnl_seal *s)
{
	s->bound = true;
}

bool tnl_seal_is_bound(const struct tnl_seal *s)
{
	return s->bound;
}

/* The associated data; how many bytes. */
static size_t write_about(const struct tnl_seal *s, const struct tnl_seal_about *a, bool from_agent, uint8_t *out)
{
	if (!s->bound)
		return 0;
	out[0] = from_agent ? 'a' : 'c';
	tnl_put_be64(out + 1, (uint64_t)a->seq);
	tnl_put_be32(out + 9, a->ptype);
	if (!a->hash)
		return 13;
	memcpy(out + 13, a->hash, 32);
	return ABOUT_MAX;
}

static void count_up(uint8_t nonce[TNL_SEAL_NONCE])
{
	for (size_t i = 0; i < TNL_SEAL_NONCE && ++nonce[i] == 0; i++)
		;
}

int tnl_seal_seal(struct tnl_seal *s, const struct tnl_seal_about *a, uint8_t *p, size_t n)
{
	uint8_t about[ABOUT_MAX];
	/* NIST SP 800-38D wants a rekey long before the counter could wrap. */
	if (s->sealed >= UINT64_C(1) << 48)
		return TNL_ECRYPTO;
	size_t len = write_about(s, a, s->agent, about);
	memcpy(p, s->nonce, TNL_SEAL_NONCE);
	int rc = tnl_gcm_seal(s->out, p, p + TNL_SEAL_NONCE, n, about, len, p + TNL_SEAL_NONCE);
	/* Used up even when sealing failed: a nonce is never tried twice. */
	count_up(s->nonce);
	s->sealed++;
	return rc;
}

int tnl_seal_open(struct tnl_seal *s, const struct tnl_seal_about *a, const uint8_t *p, size_t n, uint8_t *out)
{
	uint8_t about[ABOUT_MAX];
	if (n < TNL_SEAL_OVERHEAD)
		return TNL_ECRYPTO;
	if (s->in_order && s->opened && memcmp(p, s->expected, TNL_SEAL_NONCE) != 0)
		return TNL_EPROTO;
	size_t len = write_about(s, a, !s->agent, about);
	int rc = tnl_gcm_open(s->in, p, p + TNL_SEAL_NONCE, n - TNL_SEAL_NONCE, about, len, out);
	if (rc == 0) {
		memcpy(s->expected, p, TNL_SEAL_NONCE);
		count_up(s->expected);
		s->opened = true;
	}
	return rc;
}

void tnl_seal_mark(const struct tnl_seal *s, const uint8_t *p, size_t n, uint8_t mark[TNL_SEAL_MARK])
{
	uint8_t mac[32];
	tnl_hmac_sha256(s->mark_key, sizeof(s->mark_key), p, n, mac);
	memcpy(mark, mac, TNL_SEAL_MARK);
}
