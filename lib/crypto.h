/* Crypto: the only user of libcrypto (BoringSSL) outside lib/tls.c. */
#ifndef TNL_CRYPTO_H
#define TNL_CRYPTO_H
#include "lib/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void tnl_sha256(const void *p, size_t n, uint8_t out[32]);
void tnl_hmac_sha256(const void *key, size_t klen, const void *p, size_t n, uint8_t out[32]);
void tnl_sha1(const void *p, size_t n, uint8_t out[20]); /* WebSocket accept, SSO cache names */
bool tnl_ct_eq(const void *a, const void *b, size_t n);	 /* constant time */

/* Random bytes from a pool (a RAND_bytes call for each 4 KiB); wiped as used.
 * tnl_random_source replaces the source (tests); NULL puts the real one back. */
void tnl_random(void *p, size_t n);
void tnl_random_source(void (*fn)(void *ctx, uint8_t *p, size_t n), void *ctx);
void tnl_uuid_new(uint8_t u[16]); /* version 4 */

/* AES-256-GCM, 12-byte nonce, 16-byte tag, no AAD unless given. */
struct tnl_gcm;
struct tnl_gcm *tnl_gcm_new(const uint8_t key[32]); /* NULL: no memory */
void tnl_gcm_free(struct tnl_gcm *g);		    /* wipes */
/* In place allowed (out == in). out has n + 16 bytes. */
int tnl_gcm_seal(struct tnl_gcm *g, const uint8_t nonce[12], const uint8_t *in, size_t n, const uint8_t *aad,
		 size_t aad_len, uint8_t *out) TNL_MUST_USE;
/* n includes the tag; out has n - 16 bytes. TNL_ECRYPTO when the tag is wrong. */
int tnl_gcm_open(struct tnl_gcm *g, const uint8_t nonce[12], const uint8_t *in, size_t n, const uint8_t *aad,
		 size_t aad_len, uint8_t *out) TNL_MUST_USE;

#endif
