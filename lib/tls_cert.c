/* What stands in a certificate file, for who has to warn of it. */
#include "lib/tls_internal.h"
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

static X509 *first_of(const char *pem, size_t len)
{
	BIO *b = BIO_new_mem_buf(pem, (int)len);
	X509 *x = b ? PEM_read_bio_X509(b, NULL, NULL, NULL) : NULL;

	BIO_free(b);
	ERR_clear_error();
	return x;
}

static uint64_t unix_of(const ASN1_TIME *t)
{
	ASN1_TIME *epoch = ASN1_TIME_set(NULL, 0);
	int days = 0, secs = 0;
	bool ok = epoch && ASN1_TIME_diff(&days, &secs, epoch, t) && days >= 0 && secs >= 0;

	ASN1_TIME_free(epoch);
	return ok ? (uint64_t)days * 86400 + (uint64_t)secs : 0;
}

int tnl_tls_cert_dates(const char *pem, size_t len, uint64_t *not_before, uint64_t *not_after)
{
	X509 *x = first_of(pem, len);

	if (!x)
		return TNL_ECERT;
	*not_before = unix_of(X509_get0_notBefore(x));
	*not_after = unix_of(X509_get0_notAfter(x));
	X509_free(x);
	return 0;
}

static bool is_for(X509 *x, const char *host)
{
	bool named = x && (X509_check_ip_asc(x, host, 0) == 1 ||
			   X509_check_host(x, host, strlen(host), X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, NULL) == 1);

	ERR_clear_error();
	return named;
}

bool tnl_tls_cert_names(const char *pem, size_t len, const char *host)
{
	X509 *x = first_of(pem, len);
	bool named = is_for(x, host);

	X509_free(x);
	return named;
}

bool tnl_tls_ctx_named(const struct tnl_tls_ctx *c, const char *host)
{
	return is_for(SSL_CTX_get0_certificate(c->ssl), host);
}

static void name_of(X509_NAME *n, char *out, size_t cap)
{
	if (X509_NAME_get_text_by_NID(n, NID_commonName, out, (int)cap) < 0)
		snprintf(out, cap, "?");
}

int tnl_tls_peer(const struct tnl_tls *t, struct tnl_tls_peer *p)
{
	X509 *x = tnl_tls_shown(t);

	if (!x)
		return TNL_ECERT;
	name_of(X509_get_subject_name(x), p->subject, sizeof(p->subject));
	name_of(X509_get_issuer_name(x), p->issuer, sizeof(p->issuer));
	p->ends = unix_of(X509_get0_notAfter(x));
	X509_free(x);
	ERR_clear_error();
	return 0;
}

static void each_alternative(X509 *x, void (*fn)(void *ctx, const char *name, size_t n, bool exact), void *ctx)
{
	GENERAL_NAMES *all = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);

	for (size_t i = 0; all && i < sk_GENERAL_NAME_num(all); i++) {
		const GENERAL_NAME *g = sk_GENERAL_NAME_value(all, i);
		if (g->type != GEN_DNS && g->type != GEN_EMAIL)
			continue;
		const ASN1_IA5STRING *s = g->type == GEN_DNS ? g->d.dNSName : g->d.rfc822Name;
		fn(ctx, (const char *)ASN1_STRING_get0_data(s), (size_t)ASN1_STRING_length(s), g->type != GEN_DNS);
	}
	GENERAL_NAMES_free(all);
}

void tnl_tls_peer_names(const struct tnl_tls *t, void (*fn)(void *ctx, const char *name, size_t n, bool exact),
			void *ctx)
{
	char cn[256];
	X509 *x = tnl_tls_verified(t);

	if (!x)
		return;
	int n = X509_NAME_get_text_by_NID(X509_get_subject_name(x), NID_commonName, cn, sizeof(cn));
	if (n > 0)
		fn(ctx, cn, (size_t)n, true);
	each_alternative(x, fn, ctx);
	X509_free(x);
	ERR_clear_error();
}

uint64_t tnl_tls_ctx_cert_ends(const struct tnl_tls_ctx *c)
{
	const X509 *x = SSL_CTX_get0_certificate(c->ssl);

	return x ? unix_of(X509_get0_notAfter(x)) : 0;
}
