/* TLS of direct links: a server that shows nothing before the ClientHello has named a ticket, a client that takes one
 * key and no other, and what binds both to one connection (lib/direct.h). */
#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/tls_internal.h"
#include <string.h>

bool tnl_tls_key_hash(const X509 *x, uint8_t out[32])
{
	uint8_t *der = NULL;
	int n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &der);

	if (n <= 0)
		return false;
	tnl_sha256(der, (size_t)n, out);
	OPENSSL_free(der);
	return true;
}

int tnl_x509_key_hash(const char *cert_pem, uint8_t out[32])
{
	BIO *b = BIO_new_mem_buf(cert_pem, (int)strlen(cert_pem));
	X509 *x = b ? PEM_read_bio_X509(b, NULL, NULL, NULL) : NULL;
	bool ok = x && tnl_tls_key_hash(x, out);

	X509_free(x);
	BIO_free(b);
	ERR_clear_error();
	return ok ? 0 : TNL_EINVAL;
}

/* Before all else, also before a HelloRetryRequest: what is refused here gets an alert and has seen nothing. */
static enum ssl_select_cert_result_t look_at_hello(const SSL_CLIENT_HELLO *hello)
{
	const struct tnl_tls_ctx *c = SSL_CTX_get_app_data(SSL_get_SSL_CTX(hello->ssl));
	const char *name = SSL_get_servername(hello->ssl, TLSEXT_NAMETYPE_host_name);

	return name && c->admit(c->admit_ctx, name) ? ssl_select_cert_success : ssl_select_cert_error;
}

static enum ssl_verify_result_t check_pin(SSL *ssl, uint8_t *alert)
{
	const struct tnl_tls_ctx *c = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
	X509 *x = SSL_get_peer_certificate(ssl);
	uint8_t hash[32];
	bool same = x && tnl_tls_key_hash(x, hash) && tnl_ct_eq(hash, c->pin, sizeof(hash));

	X509_free(x);
	*alert = SSL_AD_BAD_CERTIFICATE;
	return same ? ssl_verify_ok : ssl_verify_invalid;
}

bool tnl_tls_ctx_set_direct(struct tnl_tls_ctx *c, const struct tnl_tls_config *conf)
{
	if (!SSL_CTX_set_min_proto_version(c->ssl, TLS1_3_VERSION))
		return false;
	SSL_CTX_set_options(c->ssl, SSL_OP_NO_TICKET);
	SSL_CTX_set_session_cache_mode(c->ssl, SSL_SESS_CACHE_OFF);
	if (conf->admit) {
		c->admit = conf->admit;
		c->admit_ctx = conf->admit_ctx;
		SSL_CTX_set_select_certificate_cb(c->ssl, look_at_hello);
	}
	if (conf->pin) {
		c->pinned = true;
		memcpy(c->pin, conf->pin, sizeof(c->pin));
		SSL_CTX_set_custom_verify(c->ssl, SSL_VERIFY_PEER, check_pin);
	}
	return true;
}

int tnl_tls_export(struct tnl_tls *t, const char *label, uint8_t *out, size_t n)
{
	int ok = SSL_export_keying_material(tnl_tls_ssl(t), out, n, label, strlen(label), NULL, 0, 0);

	ERR_clear_error();
	return ok ? 0 : TNL_ETLS;
}

const char *tnl_tls_asked_name(const struct tnl_tls *t)
{
	return SSL_get_servername(tnl_tls_ssl(t), TLSEXT_NAMETYPE_host_name);
}
