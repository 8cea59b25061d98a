/* Encryption within a session: the challenges of the handshake and the payloads after it.
 *
 * Between our own ends (capability Seal) the challenges carry a hash of the handshake so far, so that whoever changes a
 * word of it on the way, to make the two agree on less, is found out by whichever challenge comes next.  One who takes
 * the capabilities out altogether leaves two ends that each take the other for a stock one; so our agent puts a mark
 * under its challenge, which a stock client sends back unseen and which ours looks for. */
#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/session_internal.h"
#include <stdio.h>
#include <string.h>

#define MARKED (TNL_HS_CHALLENGE - TNL_SEAL_MARK)

static int refuse_because(struct tnl_session *s, int err, const char *why)
{
	snprintf(s->why, sizeof(s->why), "%s", why);
	return err;
}

void tnl_session_hs_heard(struct tnl_session *s, bool response, const void *p, size_t n)
{
	tnl_sha256(p, n, s->hs_hash[response]);
}

int tnl_session_seal_start(struct tnl_session *s, const uint8_t key64[64])
{
	s->seal = tnl_seal_new(key64, s->cfg.agent);
	if (!s->seal)
		return TNL_ENOMEM;
	/* A stock client draws its nonces at random, and a stock agent's may come out of order. */
	if (s->caps.present)
		tnl_seal_expect_order(s->seal);
	if (s->caps.seal >= TNL_CAPS_SEAL)
		tnl_seal_bind(s->seal);
	return 0;
}

void tnl_session_seal_challenge(struct tnl_session *s, uint8_t plain[TNL_HS_CHALLENGE])
{
	tnl_random(plain, TNL_HS_CHALLENGE);
	if (s->cfg.offer_capabilities)
		tnl_seal_mark(s->seal, plain, MARKED, plain + MARKED);
}

bool tnl_session_seal_stripped(const struct tnl_session *s, const uint8_t plain[TNL_HS_CHALLENGE])
{
	uint8_t mark[TNL_SEAL_MARK];
	if (!s->cfg.offer_capabilities || tnl_seal_is_bound(s->seal))
		return false;
	tnl_seal_mark(s->seal, plain, MARKED, mark);
	return tnl_ct_eq(mark, plain + MARKED, sizeof(mark));
}

static struct tnl_seal_about about_challenge(const struct tnl_session *s, uint32_t ptype, uint8_t hash[32])
{
	tnl_sha256(s->hs_hash, sizeof(s->hs_hash), hash);
	return (struct tnl_seal_about){.ptype = ptype, .hash = hash};
}

int tnl_session_send_challenge(struct tnl_session *s, const uint8_t plain[TNL_HS_CHALLENGE], uint32_t ptype,
			       bool wait_ack)
{
	uint8_t sealed[TNL_HS_CHALLENGE + TNL_SEAL_OVERHEAD], hash[32];
	struct tnl_seal_about about = about_challenge(s, ptype, hash);
	struct tnl_buf b;
	memcpy(sealed + TNL_SEAL_NONCE, plain, TNL_HS_CHALLENGE);
	int rc = tnl_seal_seal(s->seal, &about, sealed, TNL_HS_CHALLENGE);
	tnl_buf_init(&b, TNL_HS_MAX_JSON);
	if (rc == 0)
		rc = tnl_hs_challenge_write(&b, sealed, sizeof(sealed));
	if (rc == 0)
		rc = tnl_session_out_buf(s, ptype, &b, wait_ack);
	tnl_buf_fini(&b);
	return rc;
}

int tnl_session_open_challenge(struct tnl_session *s, const struct tnl_msg *m, uint8_t plain[TNL_HS_CHALLENGE])
{
	uint8_t sealed[TNL_HS_CHALLENGE + TNL_SEAL_OVERHEAD + 4], hash[32]; /* room for what base64 rounds up */
	struct tnl_seal_about about = about_challenge(s, m->ptype, hash);
	int n = tnl_hs_challenge_parse(m->payload, m->plen, sealed, sizeof(sealed));
	if (n != (int)(TNL_HS_CHALLENGE + TNL_SEAL_OVERHEAD))
		return refuse_because(s, TNL_ESYNTAX, "bad encryption challenge");
	if (tnl_seal_open(s->seal, &about, sealed, (size_t)n, plain) == 0)
		return 0;
	return refuse_because(
	    s, TNL_ECRYPTO,
	    tnl_seal_is_bound(s->seal)
		? "the encryption challenge does not verify: the two ends have different keys, or the "
		  "handshake was changed on its way"
		: "the encryption challenge does not verify: the two ends have different keys");
}

int tnl_session_open_payload(struct tnl_session *s, const struct tnl_msg *m, const uint8_t **p, size_t *n)
{
	const struct tnl_seal_about about = {.seq = m->seq, .ptype = m->ptype};
	int rc = *n < TNL_SEAL_OVERHEAD ? TNL_ECRYPTO : 0;
	if (rc == 0 && s->scratch_cap < *n) {
		uint8_t *b = tnl_malloc(*n);
		if (!b)
			return TNL_ENOMEM;
		tnl_free_wiped(s->scratch, s->scratch_cap);
		s->scratch = b;
		s->scratch_cap = *n;
	}
	if (rc == 0)
		rc = tnl_seal_open(s->seal, &about, *p, *n, s->scratch);
	if (rc == TNL_EPROTO)
		return refuse_because(s, TNL_ECRYPTO,
				      "an encrypted payload is not the next one: it was repeated, left out or moved");
	if (rc)
		return refuse_because(s, rc, "an encrypted payload does not verify");
	*p = s->scratch;
	*n -= TNL_SEAL_OVERHEAD;
	return 0;
}
