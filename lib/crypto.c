/* Hashes, random bytes, UUIDs and AES-GCM on top of libcrypto, which no other file but the TLS ones sees. */
#include "lib/crypto.h"
#include "lib/alloc.h"
#include "lib/enc.h"
#include <openssl/aead.h>
#include <openssl/err.h>
#include <openssl/hmac.h>
#include <openssl/mem.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <string.h>

#ifndef OPENSSL_IS_BORINGSSL
#error "these are OpenSSL's headers: tunneld needs BoringSSL's (android-libboringssl-dev, or BORINGSSL_PREFIX=)"
#endif

void tnl_sha256(const void *p, size_t n, uint8_t out[32])
{
	SHA256(p, n, out);
}

/* HMAC written over the hash: the library's HMAC() allocates, and so could fail. */
void tnl_hmac_sha256(const void *key, size_t klen, const void *p, size_t n, uint8_t out[32])
{
	uint8_t block[64] = {0}, pad[64];
	SHA256_CTX c;

	if (klen > sizeof(block))
		SHA256(key, klen, block);
	else if (klen)
		memcpy(block, key, klen);
	for (size_t i = 0; i < sizeof(pad); i++)
		pad[i] = block[i] ^ 0x36;
	SHA256_Init(&c);
	SHA256_Update(&c, pad, sizeof(pad));
	SHA256_Update(&c, p, n);
	SHA256_Final(out, &c);
	for (size_t i = 0; i < sizeof(pad); i++)
		pad[i] = block[i] ^ 0x5c;
	SHA256_Init(&c);
	SHA256_Update(&c, pad, sizeof(pad));
	SHA256_Update(&c, out, 32);
	SHA256_Final(out, &c);
	OPENSSL_cleanse(block, sizeof(block));
	OPENSSL_cleanse(pad, sizeof(pad));
	OPENSSL_cleanse(&c, sizeof(c));
}

void tnl_sha1(const void *p, size_t n, uint8_t out[20])
{
	SHA1(p, n, out);
}

bool tnl_ct_eq(const void *a, const void *b, size_t n)
{
	return CRYPTO_memcmp(a, b, n) == 0;
}

/* --- random bytes --------------------------------------------------------- */

/* Per thread, so that no lock is needed and no two threads draw the same bytes. */
static _Thread_local struct {
	uint8_t bytes[4096];
	size_t left;
} pool;
static void (*source)(void *ctx, uint8_t *p, size_t n);
static void *source_ctx;

static void forget_pool(void)
{
	OPENSSL_cleanse(pool.bytes, sizeof(pool.bytes));
	pool.left = 0;
}

void tnl_random_source(void (*fn)(void *ctx, uint8_t *p, size_t n), void *ctx)
{
	source = fn;
	source_ctx = ctx;
	forget_pool();
}

static void fill_bytes(uint8_t *p, size_t n)
{
	if (source)
		source(source_ctx, p, n);
	else
		RAND_bytes(p, n); /* BoringSSL aborts rather than fail */
}

void tnl_random(void *p, size_t n)
{
	uint8_t *out = p;

	if (n > sizeof(pool.bytes) / 4) {
		fill_bytes(out, n);
		return;
	}
	if (pool.left < n) {
		fill_bytes(pool.bytes, sizeof(pool.bytes));
		pool.left = sizeof(pool.bytes);
	}
	uint8_t *from = pool.bytes + sizeof(pool.bytes) - pool.left;
	memcpy(out, from, n);
	OPENSSL_cleanse(from, n);
	pool.left -= n;
}

void tnl_uuid_new(uint8_t u[16])
{
	uint8_t rnd[16];

	tnl_random(rnd, sizeof(rnd));
	tnl_uuid_v4(u, rnd);
}

/* --- AES-256-GCM ---------------------------------------------------------- */

struct tnl_gcm {
	EVP_AEAD_CTX ctx;
};

struct tnl_gcm *tnl_gcm_new(const uint8_t key[32])
{
	struct tnl_gcm *g = tnl_calloc(1, sizeof(*g));

	if (!g)
		return NULL;
	if (!EVP_AEAD_CTX_init(&g->ctx, EVP_aead_aes_256_gcm(), key, 32, 16, NULL)) {
		ERR_clear_error();
		tnl_free(g);
		return NULL;
	}
	return g;
}

void tnl_gcm_free(struct tnl_gcm *g)
{
	if (!g)
		return;
	EVP_AEAD_CTX_cleanup(&g->ctx);
	tnl_free_wiped(g, sizeof(*g));
}

int tnl_gcm_seal(struct tnl_gcm *g, const uint8_t nonce[12], const uint8_t *in, size_t n, const uint8_t *aad,
		 size_t aad_len, uint8_t *out)
{
	size_t len = 0;

	if (!EVP_AEAD_CTX_seal(&g->ctx, out, &len, n + 16, nonce, 12, in, n, aad, aad_len)) {
		ERR_clear_error();
		return TNL_ECRYPTO;
	}
	return 0;
}

int tnl_gcm_open(struct tnl_gcm *g, const uint8_t nonce[12], const uint8_t *in, size_t n, const uint8_t *aad,
		 size_t aad_len, uint8_t *out)
{
	size_t len = 0;

	if (n < 16)
		return TNL_ECRYPTO;
	/* On failure it clears as much as it was allowed to write. */
	if (!EVP_AEAD_CTX_open(&g->ctx, out, &len, n - 16, nonce, 12, in, n, aad, aad_len)) {
		ERR_clear_error();
		return TNL_ECRYPTO;
	}
	return 0;
}
