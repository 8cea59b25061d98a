/* Payload encryption of a session (docs/protocol.md "Encryption"): AES-256-GCM,
 * 12-byte nonce in front, tag behind. Nonces count up from a random start. */
#ifndef TNL_SEAL_H
#define TNL_SEAL_H
#include "lib/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TNL_SEAL_NONCE 12u
#define TNL_SEAL_TAG 16u
#define TNL_SEAL_OVERHEAD (TNL_SEAL_NONCE + TNL_SEAL_TAG)

struct tnl_seal;
/* key64: first half agent → client, second half client → agent. Copied; caller wipes its own. */
struct tnl_seal *tnl_seal_new(const uint8_t key64[64], bool agent);
void tnl_seal_free(struct tnl_seal *s);
/* In place: plaintext stands at p + TNL_SEAL_NONCE (n bytes), p has room for n + TNL_SEAL_OVERHEAD. */
int tnl_seal_seal(struct tnl_seal *s, uint8_t *p, size_t n) TNL_MUST_USE;
/* out: n - TNL_SEAL_OVERHEAD bytes, may not overlap. TNL_ECRYPTO. */
int tnl_seal_open(struct tnl_seal *s, const uint8_t *p, size_t n, uint8_t *out) TNL_MUST_USE;

#endif
