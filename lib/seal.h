/* Payload encryption of a session (docs/protocol.md "Encryption"): AES-256-GCM,
 * 12-byte nonce in front, tag behind. Nonces count up from a random start.
 *
 * Between our own ends more holds: a nonce that is not the next one is refused (tnl_seal_expect_order), and what a
 * message is (direction, number, payload type) is authenticated with it (tnl_seal_bind), so that who carries the
 * messages can neither repeat nor leave out nor swap one nor pass it off as another. */
#ifndef TNL_SEAL_H
#define TNL_SEAL_H
#include "lib/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TNL_SEAL_NONCE 12u
#define TNL_SEAL_TAG 16u
#define TNL_SEAL_OVERHEAD (TNL_SEAL_NONCE + TNL_SEAL_TAG)
#define TNL_SEAL_MARK 16u

/* The message that carries the payload. */
struct tnl_seal_about {
	int64_t seq;
	uint32_t ptype;
	const uint8_t *hash; /* 32 bytes more that both ends know; NULL: none */
};

struct tnl_seal;
/* key64: first half agent → client, second half client → agent. Copied; caller wipes its own. */
struct tnl_seal *tnl_seal_new(const uint8_t key64[64], bool agent);
void tnl_seal_free(struct tnl_seal *s);
void tnl_seal_expect_order(struct tnl_seal *s);
void tnl_seal_bind(struct tnl_seal *s);
bool tnl_seal_is_bound(const struct tnl_seal *s);
/* In place: plaintext stands at p + TNL_SEAL_NONCE (n bytes), p has room for n + TNL_SEAL_OVERHEAD. */
int tnl_seal_seal(struct tnl_seal *s, const struct tnl_seal_about *a, uint8_t *p, size_t n) TNL_MUST_USE;
/* out: n - TNL_SEAL_OVERHEAD bytes, may not overlap. TNL_ECRYPTO; TNL_EPROTO: the nonce is not the next. */
int tnl_seal_open(struct tnl_seal *s, const struct tnl_seal_about *a, const uint8_t *p, size_t n,
		  uint8_t *out) TNL_MUST_USE;
/* What only an end with the key can write under n bytes. */
void tnl_seal_mark(const struct tnl_seal *s, const uint8_t *p, size_t n, uint8_t mark[TNL_SEAL_MARK]);

#endif
