/* Private to lib/tls*.c: the only headers of libssl in the project. */
#ifndef TNL_TLS_INTERNAL_H
#define TNL_TLS_INTERNAL_H
#include "lib/tls.h"
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#ifndef OPENSSL_IS_BORINGSSL
#error "these are OpenSSL's headers: tunneld needs BoringSSL's (android-libboringssl-dev, or BORINGSSL_PREFIX=)"
#endif

#define TNL_TLS_CACHE 128	  /* sessions kept for resumption, per context */
#define TNL_TLS_CACHE_PER_HOST 32 /* TLS 1.3 tickets are good for one connection each, and may be wanted at once */

struct tnl_tls_saved {
	char *host;
	SSL_SESSION *session;
	uint64_t used;
};

struct tnl_tls_ctx {
	SSL_CTX *ssl;
	BIO_METHOD *bio;
	unsigned refs;
	bool server;
	uint64_t (*unix_time)(void *ctx);
	void *time_ctx;
	bool (*admit)(void *ctx, const char *name);
	void *admit_ctx;
	bool pinned;
	bool peer;
	uint8_t pin[32];
	struct tnl_tls_saved saved[TNL_TLS_CACHE];
	uint64_t saved_seq;
};

BIO_METHOD *tnl_tls_bio_method(void);
SSL *tnl_tls_ssl(const struct tnl_tls *t);
const char *tnl_tls_host(const struct tnl_tls *t);
bool tnl_tls_key_hash(const X509 *x, uint8_t out[32]);
/* What makes a context one of direct links. */
bool tnl_tls_ctx_set_direct(struct tnl_tls_ctx *c, const struct tnl_tls_config *conf);
/* Samples the context's clock into what the library's time callback answers. */
uint64_t tnl_tls_clock(struct tnl_tls_ctx *c);
/* A session for the host, or NULL; the caller frees its reference. */
SSL_SESSION *tnl_tls_session_take(struct tnl_tls_ctx *c, const char *host);

/* What the peer has shown, for X509_free; NULL: nothing, or not yet. */
X509 *tnl_tls_shown(const struct tnl_tls *t);
X509 *tnl_tls_verified(const struct tnl_tls *t); /* the same, when it was found to be good */

#endif
