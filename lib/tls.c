/* The state of one connection: BoringSSL over a memory BIO of our own, whose two
 * buffers the caller fills and empties.  Contexts are in tls_ctx.c. */
#include "lib/tls.h"
#include "lib/num.h"
#include "lib/alloc.h"
#include "lib/buf.h"
#include "lib/tls_internal.h"
#include <stdio.h>
#include <string.h>

#define IN_MAX (128u * 1024)		 /* ciphertext that waits to be read */
#define IN_STEP (16u * 1024)		 /* less room than this is given out only when there is no more */
#define OUT_HIGH (256u * 1024)		 /* above it writes are refused */
#define OUT_MAX (OUT_HIGH + 128u * 1024) /* a record, a handshake flight and alerts still fit */
#define RECORD (16u * 1024)

struct tnl_tls {
	SSL *ssl;
	struct tnl_tls_ctx *ctx;
	char *host;
	struct tnl_buf in, out;
	bool in_eof, failed, trimmed;
	int final; /* what every later call answers */
	char why[192];
};

/* --- the BIO --------------------------------------------------------------- */

static int bio_read(BIO *b, char *p, int n)
{
	struct tnl_tls *t = BIO_get_data(b);
	size_t len = tnl_buf_len(&t->in);

	BIO_clear_retry_flags(b);
	if (n <= 0)
		return 0;
	if (!len) {
		if (t->in_eof)
			return 0;
		BIO_set_retry_read(b);
		return -1;
	}
	len = TNL_MIN(len, (size_t)n);
	memcpy(p, tnl_buf_data(&t->in), len);
	tnl_buf_consume(&t->in, len);
	return (int)len;
}

static int bio_write(BIO *b, const char *p, int n)
{
	struct tnl_tls *t = BIO_get_data(b);

	BIO_clear_retry_flags(b);
	if (n <= 0)
		return 0;
	if (tnl_buf_put(&t->out, p, (size_t)n) != 0) {
		t->out.failed = false;
		BIO_set_retry_write(b);
		return -1;
	}
	return n;
}

static long bio_ctrl(BIO *b, int cmd, long num, void *ptr)
{
	return cmd == BIO_CTRL_FLUSH ? 1 : 0;
}

BIO_METHOD *tnl_tls_bio_method(void)
{
	BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "tunneld");

	if (m && BIO_meth_set_read(m, bio_read) && BIO_meth_set_write(m, bio_write) && BIO_meth_set_ctrl(m, bio_ctrl))
		return m;
	BIO_meth_free(m);
	return NULL;
}

/* --- making and freeing ---------------------------------------------------- */

/* The name that the certificate must carry: an IP literal goes to the address
 * check, a name to the host check and into SNI.  Never neither. */
static int expect_host(struct tnl_tls *t, const char *host)
{
	X509_VERIFY_PARAM *p = SSL_get0_param(t->ssl);
	size_t n = strlen(host);

	if (n >= 2 && host[0] == '[' && host[n - 1] == ']') {
		host++;
		n -= 2;
	} else if (n && host[n - 1] == '.') {
		n--;
	}
	if (!n || n > 255)
		return TNL_EINVAL;
	t->host = tnl_strndup(host, n);
	if (!t->host)
		return TNL_ENOMEM;
	for (char *c = t->host; *c; c++)
		if (*c >= 'A' && *c <= 'Z')
			*c = (char)(*c - 'A' + 'a');
	if (t->ctx->pinned || t->ctx->peer)
		return SSL_set_tlsext_host_name(t->ssl, t->host) ? 0 : TNL_EINVAL;
	X509_VERIFY_PARAM_set_hostflags(p, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
	if (X509_VERIFY_PARAM_set1_ip_asc(p, t->host))
		return 0;
	ERR_clear_error();
	if (!X509_VERIFY_PARAM_set1_host(p, t->host, n) || !SSL_set_tlsext_host_name(t->ssl, t->host))
		return TNL_EINVAL;
	return 0;
}

struct tnl_tls *tnl_tls_new(struct tnl_tls_ctx *c, const char *host)
{
	struct tnl_tls *t = tnl_calloc(1, sizeof(*t));
	BIO *b = NULL;

	if (!t)
		return NULL;
	tnl_buf_init(&t->in, IN_MAX);
	tnl_buf_init(&t->out, OUT_MAX);
	t->ctx = tnl_tls_ctx_ref(c);
	ERR_clear_error();
	t->ssl = SSL_new(c->ssl);
	if (!t->ssl)
		goto fail;
	X509_VERIFY_PARAM_set_time(SSL_get0_param(t->ssl), (time_t)tnl_tls_clock(c));
	b = BIO_new(c->bio);
	if (!b)
		goto fail;
	BIO_set_data(b, t);
	BIO_set_init(b, 1);
	SSL_set_bio(t->ssl, b, b);
	SSL_set_app_data(t->ssl, t);
	if (c->server) {
		SSL_set_accept_state(t->ssl);
		return t;
	}
	if (!host || expect_host(t, host) != 0)
		goto fail;
	SSL_set_connect_state(t->ssl);
	SSL_SESSION *s = tnl_tls_session_take(c, t->host);
	if (s) {
		SSL_set_session(t->ssl, s);
		SSL_SESSION_free(s);
	}
	return t;
fail:
	ERR_clear_error();
	tnl_tls_free(t);
	return NULL;
}

void tnl_tls_free(struct tnl_tls *t)
{
	if (!t)
		return;
	if (t->ssl)
		SSL_free(t->ssl);
	tnl_tls_ctx_free(t->ctx);
	tnl_buf_fini(&t->in);
	tnl_buf_fini(&t->out);
	tnl_free(t->host);
	tnl_free(t);
}

SSL *tnl_tls_ssl(const struct tnl_tls *t)
{
	return t->ssl;
}

const char *tnl_tls_host(const struct tnl_tls *t)
{
	return t->host;
}

/* --- ciphertext ------------------------------------------------------------ */

uint8_t *tnl_tls_in_reserve(struct tnl_tls *t, size_t *cap)
{
	size_t room = tnl_buf_room(&t->in);
	uint8_t *p;

	if (room > IN_STEP && !tnl_buf_len(&t->in))
		room = IN_MAX;
	p = room ? tnl_buf_reserve(&t->in, room) : NULL;
	t->in.failed = false;
	*cap = p ? room : 0;
	return p;
}

void tnl_tls_in_commit(struct tnl_tls *t, size_t n)
{
	tnl_buf_commit(&t->in, n);
}

void tnl_tls_in_eof(struct tnl_tls *t)
{
	t->in_eof = true;
}

const uint8_t *tnl_tls_out_peek(struct tnl_tls *t, size_t *n)
{
	*n = tnl_buf_len(&t->out);
	return tnl_buf_data(&t->out);
}

void tnl_tls_out_consume(struct tnl_tls *t, size_t n)
{
	tnl_buf_consume(&t->out, n);
}

size_t tnl_tls_out_len(const struct tnl_tls *t)
{
	return tnl_buf_len(&t->out);
}

void tnl_tls_settle(struct tnl_tls *t)
{
	tnl_buf_settle(&t->in);
	tnl_buf_settle(&t->out);
}

/* --- errors ---------------------------------------------------------------- */

static int fail_with(struct tnl_tls *t, int err, const char *text)
{
	snprintf(t->why, sizeof(t->why), "%s", text);
	t->final = err;
	return err;
}

static int fail_cert(struct tnl_tls *t)
{
	long v = SSL_get_verify_result(t->ssl);

	if (t->ctx->pinned)
		snprintf(t->why, sizeof(t->why), "the other end has not the key that was agreed");
	else if (v == X509_V_ERR_HOSTNAME_MISMATCH || v == X509_V_ERR_IP_ADDRESS_MISMATCH)
		snprintf(t->why, sizeof(t->why), "certificate does not name %.120s in its subjectAltName",
			 t->host ? t->host : "this peer");
	else if (v == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY || v == X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN ||
		 v == X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT)
		snprintf(t->why, sizeof(t->why), "certificate of an authority that is not trusted here (%s)",
			 X509_verify_cert_error_string(v));
	else if (v == X509_V_ERR_CERT_NOT_YET_VALID || v == X509_V_ERR_CERT_HAS_EXPIRED)
		snprintf(t->why, sizeof(t->why), "%s, or this machine's clock is wrong",
			 X509_verify_cert_error_string(v));
	else
		snprintf(t->why, sizeof(t->why), "%s", X509_verify_cert_error_string(v));
	t->final = TNL_ECERT;
	return TNL_ECERT;
}

/* Turns BoringSSL's verdict on the last call into one of ours. */
static int classify_error(struct tnl_tls *t, int rc)
{
	uint32_t e;
	const char *text;

	switch (SSL_get_error(t->ssl, rc)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		/* A BIO at its end of file is reported as "more needed" by some paths. */
		if (t->in_eof && !tnl_buf_len(&t->in) && !tnl_buf_len(&t->out))
			return fail_with(t, TNL_ETRUNC, "connection ended without a TLS close");
		return TNL_EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return fail_with(t, TNL_EEOF, "closed by the peer");
	case SSL_ERROR_SYSCALL:
		return fail_with(t, TNL_ETRUNC,
				 SSL_in_init(t->ssl) ? "connection ended during the TLS handshake"
						     : "connection ended without a TLS close");
	default:
		break;
	}
	e = ERR_peek_error();
	if (ERR_GET_LIB(e) == ERR_LIB_SSL && ERR_GET_REASON(e) == SSL_R_CERTIFICATE_VERIFY_FAILED)
		return fail_cert(t);
	text = ERR_reason_error_string(e);
	if (ERR_GET_LIB(e) == ERR_LIB_SSL && ERR_GET_REASON(e) > SSL_AD_REASON_OFFSET)
		snprintf(t->why, sizeof(t->why), "the peer sent the alert %s",
			 SSL_alert_desc_string_long(ERR_GET_REASON(e) - SSL_AD_REASON_OFFSET));
	else if (ERR_GET_LIB(e) == ERR_LIB_SSL &&
		 (ERR_GET_REASON(e) == SSL_R_HTTP_REQUEST || ERR_GET_REASON(e) == SSL_R_WRONG_VERSION_NUMBER))
		snprintf(t->why, sizeof(t->why), "the peer does not speak TLS here (%s)", text ? text : "");
	else
		snprintf(t->why, sizeof(t->why), "%s", text ? text : "TLS failure");
	t->final = TNL_ETLS;
	return TNL_ETLS;
}

/* Before each call: errors of other connections must not be taken for ours, and
 * the library asks for the time through a callback without an argument. */
static void enter_library(struct tnl_tls *t)
{
	ERR_clear_error();
	tnl_tls_clock(t->ctx);
}

static int leave_library(int rc)
{
	ERR_clear_error();
	return rc;
}

/* --- driving --------------------------------------------------------------- */

int tnl_tls_handshake(struct tnl_tls *t)
{
	int rc;

	if (!SSL_in_init(t->ssl))
		return 0;
	if (t->final)
		return t->final;
	enter_library(t);
	rc = SSL_do_handshake(t->ssl);
	return leave_library(rc == 1 ? 0 : classify_error(t, rc));
}

int tnl_tls_read(struct tnl_tls *t, void *p, size_t n)
{
	int rc;

	if (t->final)
		return t->final;
	n = TNL_MIN(n, (size_t)INT32_MAX);
	enter_library(t);
	rc = SSL_read(t->ssl, p, (int)n);
	return leave_library(rc > 0 ? rc : classify_error(t, rc));
}

int tnl_tls_write(struct tnl_tls *t, const void *p, size_t n)
{
	const uint8_t *from = p;
	size_t done = 0;
	int rc = 0;

	if (t->final && t->final != TNL_EEOF)
		return t->final; /* after the peer's close_notify writing goes on */
	enter_library(t);
	while (done < n && tnl_buf_len(&t->out) <= OUT_HIGH) {
		size_t k = TNL_MIN(n - done, RECORD);

		rc = SSL_write(t->ssl, from + done, (int)k);
		if (rc <= 0)
			break;
		done += (size_t)rc;
	}
	if (done)
		return leave_library((int)done);
	if (rc == 0)
		return leave_library(TNL_EAGAIN);
	return leave_library(classify_error(t, rc));
}

void tnl_tls_shutdown(struct tnl_tls *t)
{
	if (SSL_in_init(t->ssl) || (t->final && t->final != TNL_EEOF))
		return;
	enter_library(t);
	SSL_shutdown(t->ssl);
	ERR_clear_error();
}

bool tnl_tls_pending(const struct tnl_tls *t)
{
	return !t->final && (tnl_buf_len(&t->in) > 0 || SSL_pending(t->ssl) > 0);
}

bool tnl_tls_resumed(const struct tnl_tls *t)
{
	return SSL_session_reused(t->ssl);
}

static bool common_name_is(X509 *x, const char *name)
{
	char cn[256];
	int n = X509_NAME_get_text_by_NID(X509_get_subject_name(x), NID_commonName, cn, sizeof(cn));
	return n > 0 && (size_t)n == strlen(name) && memcmp(cn, name, (size_t)n) == 0;
}

X509 *tnl_tls_shown(const struct tnl_tls *t)
{
	return SSL_in_init(t->ssl) ? NULL : SSL_get_peer_certificate(t->ssl);
}

X509 *tnl_tls_verified(const struct tnl_tls *t)
{
	return SSL_get_verify_result(t->ssl) == X509_V_OK ? tnl_tls_shown(t) : NULL;
}

bool tnl_tls_peer_named(const struct tnl_tls *t, const char *name)
{
	X509 *x = tnl_tls_verified(t);
	const unsigned flags = X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_WILDCARDS;
	bool named = x && *name &&
		     (common_name_is(x, name) || X509_check_host(x, name, strlen(name), flags, NULL) == 1 ||
		      X509_check_email(x, name, strlen(name), X509_CHECK_FLAG_NEVER_CHECK_SUBJECT) == 1);

	X509_free(x);
	ERR_clear_error();
	return named;
}

const char *tnl_tls_version(const struct tnl_tls *t)
{
	return SSL_get_version(t->ssl);
}

const char *tnl_tls_cipher(const struct tnl_tls *t)
{
	const SSL_CIPHER *c = SSL_get_current_cipher(t->ssl);

	return c ? SSL_CIPHER_standard_name(c) : "none";
}

const char *tnl_tls_why(const struct tnl_tls *t)
{
	return t->why;
}
