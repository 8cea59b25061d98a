/* TLS contexts: certificates, trust, preferences, and the cache of client sessions. */
#include "lib/tls_internal.h"
#include "lib/num.h"
#include "lib/alloc.h"
#include <openssl/aead.h>
#include <stdio.h>
#include <string.h>

/* --- clock ----------------------------------------------------------------- */

static _Thread_local uint64_t clock_now;

uint64_t tnl_tls_clock(struct tnl_tls_ctx *c)
{
	clock_now = c->unix_time(c->time_ctx);
	return clock_now;
}

static void current_time(const SSL *ssl, struct timeval *out)
{
	out->tv_sec = (time_t)clock_now;
	out->tv_usec = 0;
}

/* --- sessions for resumption ------------------------------------------------ */

static void saved_drop(struct tnl_tls_saved *s)
{
	tnl_free(s->host);
	SSL_SESSION_free(s->session);
	memset(s, 0, sizeof(*s));
}

/* A free place; else the host's oldest when it has its share; else the oldest of all. */
static struct tnl_tls_saved *saved_place(struct tnl_tls_ctx *c, const char *host)
{
	struct tnl_tls_saved *unused = NULL, *oldest = &c->saved[0], *own = NULL;
	int count = 0;

	for (int i = 0; i < TNL_TLS_CACHE; i++) {
		struct tnl_tls_saved *s = &c->saved[i];

		if (!s->session) {
			unused = s;
			continue;
		}
		if (s->used < oldest->used)
			oldest = s;
		if (strcmp(s->host, host) == 0) {
			count++;
			if (!own || s->used < own->used)
				own = s;
		}
	}
	if (count >= TNL_TLS_CACHE_PER_HOST)
		return own;
	return unused ? unused : oldest;
}

static int new_session(SSL *ssl, SSL_SESSION *session)
{
	const struct tnl_tls *t = SSL_get_app_data(ssl);
	struct tnl_tls_ctx *c = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
	const char *host = tnl_tls_host(t);
	char *copy = host ? tnl_strdup(host) : NULL;
	struct tnl_tls_saved *s;

	if (!copy)
		return 0;
	s = saved_place(c, host);
	saved_drop(s);
	*s = (struct tnl_tls_saved){.host = copy, .session = session, .used = ++c->saved_seq};
	return 1; /* the reference is ours now */
}

SSL_SESSION *tnl_tls_session_take(struct tnl_tls_ctx *c, const char *host)
{
	struct tnl_tls_saved *best = NULL;
	SSL_SESSION *session;

	for (int i = 0; i < TNL_TLS_CACHE; i++) {
		struct tnl_tls_saved *s = &c->saved[i];

		if (s->session && strcmp(s->host, host) == 0 && (!best || s->used > best->used))
			best = s;
	}
	if (!best)
		return NULL;
	session = best->session;
	SSL_SESSION_up_ref(session);
	if (SSL_SESSION_should_be_single_use(session))
		saved_drop(best);
	return session;
}

/* --- PEM -------------------------------------------------------------------- */

/* A key with a passphrase is an error: nobody is asked. */
static int no_passphrase(char *buf, int size, int rwflag, void *u)
{
	return -1;
}

/* BoringSSL's own way to say "no more blocks" is an error of its own. */
static bool pem_ended(void)
{
	uint32_t e = ERR_peek_last_error();

	return ERR_GET_LIB(e) == ERR_LIB_PEM && ERR_GET_REASON(e) == PEM_R_NO_START_LINE;
}

static const char *reason(void)
{
	const char *r = ERR_reason_error_string(ERR_peek_error());

	return r ? r : "unknown reason";
}

static BIO *pem_open(const char *pem, size_t n)
{
	ERR_clear_error();
	return n && n <= INT32_MAX ? BIO_new_mem_buf(pem, (int)n) : NULL;
}

static int load_chain(SSL_CTX *ssl, const char *pem, size_t n, char *err, size_t cap)
{
	BIO *b = pem_open(pem, n);
	X509 *x;
	int count = 0, rc = TNL_ECONF;

	while (b && (x = PEM_read_bio_X509(b, NULL, no_passphrase, NULL)) != NULL) {
		int ok = count ? SSL_CTX_add1_chain_cert(ssl, x) : SSL_CTX_use_certificate(ssl, x);

		X509_free(x);
		if (!ok) {
			snprintf(err, cap, "certificate number %d cannot be used: %s", count + 1, reason());
			goto out;
		}
		count++;
	}
	if (b && !pem_ended())
		snprintf(err, cap, "certificate number %d is damaged: %s", count + 1, reason());
	else if (!count)
		snprintf(err, cap, "there is no certificate in it (PEM is required)");
	else
		rc = 0;
out:
	BIO_free(b);
	ERR_clear_error();
	return rc;
}

static int load_key(SSL_CTX *ssl, const char *pem, size_t n, char *err, size_t cap)
{
	BIO *b = pem_open(pem, n);
	EVP_PKEY *k = b ? PEM_read_bio_PrivateKey(b, NULL, no_passphrase, NULL) : NULL;
	int rc = TNL_ECONF;

	if (!k)
		snprintf(err, cap, "the private key cannot be read (PEM without a passphrase is required): %s",
			 reason());
	else if (!SSL_CTX_use_PrivateKey(ssl, k) || !SSL_CTX_check_private_key(ssl))
		snprintf(err, cap, "the private key does not belong to the certificate");
	else
		rc = 0;
	EVP_PKEY_free(k);
	BIO_free(b);
	ERR_clear_error();
	return rc;
}

/* System bundles now and then hold a certificate that one library or another does
 * not take: those are passed over as long as one is good. */
static int load_ca(SSL_CTX *ssl, const char *pem, size_t n, bool names, char *err, size_t cap)
{
	X509_STORE *store = SSL_CTX_get_cert_store(ssl);
	BIO *b = pem_open(pem, n);
	int count = 0;

	while (b) {
		X509 *x = PEM_read_bio_X509_AUX(b, NULL, no_passphrase, NULL);

		if (!x) {
			if (pem_ended() || BIO_eof(b))
				break;
			ERR_clear_error();
			continue;
		}
		if (X509_STORE_add_cert(store, x))
			count++;
		if (names)
			SSL_CTX_add_client_CA(ssl, x);
		X509_free(x);
	}
	BIO_free(b);
	ERR_clear_error();
	if (!count) {
		snprintf(err, cap, "there is no CA certificate in it (PEM is required)");
		return TNL_ECONF;
	}
	/* What the file names is trusted, also when it is not a root. */
	X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN);
	return 0;
}

/* --- context ---------------------------------------------------------------- */

static int set_preferences(SSL_CTX *ssl, bool server)
{
	static const uint16_t verify[] = {
	    SSL_SIGN_ECDSA_SECP256R1_SHA256, SSL_SIGN_ED25519,
	    SSL_SIGN_RSA_PSS_RSAE_SHA256,    SSL_SIGN_RSA_PKCS1_SHA256,
	    SSL_SIGN_ECDSA_SECP384R1_SHA384, SSL_SIGN_RSA_PSS_RSAE_SHA384,
	    SSL_SIGN_RSA_PKCS1_SHA384,	     SSL_SIGN_RSA_PSS_RSAE_SHA512,
	    SSL_SIGN_RSA_PKCS1_SHA512,
	};
	/* With AES in hardware the 128-bit GCM is the fastest of them all; without, ChaCha. TLS 1.3
	 * chooses by the same rule inside the library. */
	const char *ciphers = EVP_has_aes_hardware() ? "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
						       "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
						       "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
						     : "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"
						       "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
						       "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384";

	if (!SSL_CTX_set_min_proto_version(ssl, TLS1_2_VERSION) ||
	    !SSL_CTX_set_max_proto_version(ssl, TLS1_3_VERSION) || !SSL_CTX_set_strict_cipher_list(ssl, ciphers) ||
	    !SSL_CTX_set_verify_algorithm_prefs(ssl, verify, TNL_COUNT(verify)))
		return TNL_ETLS;
	SSL_CTX_set_mode(ssl,
			 SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_NO_AUTO_CHAIN);
	if (server)
		SSL_CTX_set_options(ssl, SSL_OP_CIPHER_SERVER_PREFERENCE);
	SSL_CTX_set_current_time_cb(ssl, current_time);
	return 0;
}

static int set_trust(struct tnl_tls_ctx *c, const struct tnl_tls_config *conf, char *err, size_t cap)
{
	static const uint8_t sid[] = "tunneld";

	if (conf->pin || conf->admit) {
		if (tnl_tls_ctx_set_direct(c, conf))
			return 0;
		snprintf(err, cap, "TLS settings of a direct link were refused: %s", reason());
		return TNL_ETLS;
	}
	if (conf->ca_pem && load_ca(c->ssl, conf->ca_pem, conf->ca_pem_len, c->server, err, cap) != 0)
		return TNL_ECONF;
	c->peer = conf->peer;
	if (c->peer) { /* the certificate of a server, also of who dials */
		SSL_CTX_set_options(c->ssl, SSL_OP_NO_TICKET);
		X509_VERIFY_PARAM_set_purpose(SSL_CTX_get0_param(c->ssl), X509_PURPOSE_SSL_SERVER);
	}
	if (!c->server) {
		if (!conf->ca_pem) {
			snprintf(err, cap, "no CA certificates were given, so no server could be trusted");
			return TNL_ECONF;
		}
		SSL_CTX_set_verify(c->ssl, SSL_VERIFY_PEER, NULL);
		if (c->peer)
			return 0;
		SSL_CTX_set_session_cache_mode(c->ssl, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
		SSL_CTX_sess_set_new_cb(c->ssl, new_session);
		return 0;
	}
	if (conf->require_client_cert && !conf->ca_pem) {
		snprintf(err, cap, "client certificates are required but no CA for them was given");
		return TNL_ECONF;
	}
	if (conf->ca_pem)
		SSL_CTX_set_verify(c->ssl,
				   SSL_VERIFY_PEER | (conf->require_client_cert ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0),
				   NULL);
	SSL_CTX_set_session_id_context(c->ssl, sid, sizeof(sid) - 1);
	/* Resumed by tickets, which the client keeps: a cache of ours would grow with each TLS 1.2 handshake. */
	SSL_CTX_set_session_cache_mode(c->ssl, SSL_SESS_CACHE_OFF);
	return 0;
}

struct tnl_tls_ctx *tnl_tls_ctx_new(const struct tnl_tls_config *conf, char *err, size_t cap)
{
	struct tnl_tls_ctx *c = tnl_calloc(1, sizeof(*c));

	snprintf(err, cap, "out of memory");
	if (!c)
		return NULL;
	c->refs = 1;
	c->server = conf->server;
	c->unix_time = conf->unix_time;
	c->time_ctx = conf->time_ctx;
	if (!c->unix_time) {
		snprintf(err, cap, "no clock was given");
		goto fail;
	}
	tnl_tls_clock(c);
	ERR_clear_error();
	c->ssl = SSL_CTX_new(TLS_method());
	c->bio = tnl_tls_bio_method();
	if (!c->ssl || !c->bio)
		goto fail;
	SSL_CTX_set_app_data(c->ssl, c);
	if (set_preferences(c->ssl, c->server) != 0) {
		snprintf(err, cap, "TLS preferences were refused: %s", reason());
		goto fail;
	}
	if (c->server && (!conf->cert_pem || !conf->key_pem)) {
		snprintf(err, cap, "a server needs a certificate and its private key");
		goto fail;
	}
	if ((conf->cert_pem != NULL) != (conf->key_pem != NULL)) {
		snprintf(err, cap, "a certificate and its private key belong together: one of them is missing");
		goto fail;
	}
	if (conf->cert_pem && (load_chain(c->ssl, conf->cert_pem, conf->cert_pem_len, err, cap) != 0 ||
			       load_key(c->ssl, conf->key_pem, conf->key_pem_len, err, cap) != 0))
		goto fail;
	if (set_trust(c, conf, err, cap) != 0)
		goto fail;
	if (cap)
		err[0] = 0;
	return c;
fail:
	ERR_clear_error();
	tnl_tls_ctx_free(c);
	return NULL;
}

struct tnl_tls_ctx *tnl_tls_ctx_ref(struct tnl_tls_ctx *c)
{
	__atomic_fetch_add(&c->refs, 1, __ATOMIC_RELAXED);
	return c;
}

void tnl_tls_ctx_free(struct tnl_tls_ctx *c)
{
	if (!c || __atomic_sub_fetch(&c->refs, 1, __ATOMIC_ACQ_REL))
		return;
	for (int i = 0; i < TNL_TLS_CACHE; i++)
		saved_drop(&c->saved[i]);
	SSL_CTX_free(c->ssl);
	BIO_meth_free(c->bio);
	tnl_free(c);
}
