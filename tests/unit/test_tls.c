/* TLS over memory: our end against BoringSSL's own as the oracle, and against itself.  Every
 * refusal that the product promises (wrong host, expired, untrusted, cut off) is checked here. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include "lib/alloc.h"
#include "lib/num.h"
#include "lib/crypto.h"
#include "lib/tls.h"
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <string.h>

#define NOW 1800000000ull

static uint64_t now_s;
static char *ca_cert, *ca_key, *cert, *key, *other_ca, *other_key;

static uint64_t clock_cb(void *ctx)
{
	return now_s;
}

static struct tnl_tls_ctx *make_ctx(bool server, const char *c, const char *k, const char *ca, bool require)
{
	char err[200] = "";
	struct tnl_tls_config conf = {.server = server,
				      .cert_pem = c,
				      .cert_pem_len = c ? strlen(c) : 0,
				      .key_pem = k,
				      .key_pem_len = k ? strlen(k) : 0,
				      .ca_pem = ca,
				      .ca_pem_len = ca ? strlen(ca) : 0,
				      .require_client_cert = require,
				      .unix_time = clock_cb};
	struct tnl_tls_ctx *x = tnl_tls_ctx_new(&conf, err, sizeof(err));

	if (!x)
		fail_msg("context: %s", err);
	return x;
}

static int group_setup(void **state)
{
	now_s = NOW;
	assert_int_equal(tnl_x509_make("test CA", NULL, NULL, NULL, NOW - 100, NOW + 100000, &ca_cert, &ca_key), 0);
	assert_int_equal(tnl_x509_make("other CA", NULL, NULL, NULL, NOW - 100, NOW + 100000, &other_ca, &other_key),
			 0);
	assert_int_equal(tnl_x509_make("leaf", "gw.example.com, *.wild.example.com,127.0.0.1,::1", ca_cert, ca_key,
				       NOW - 100, NOW + 1000, &cert, &key),
			 0);
	return 0;
}

static int group_teardown(void **state)
{
	tnl_free(ca_cert);
	tnl_free(ca_key);
	tnl_free(other_ca);
	tnl_free(other_key);
	tnl_free(cert);
	tnl_free(key);
	return tnl_alloc_live() == 0 ? 0 : -1;
}

/* Moves what waits at `a` into `b`, at most `step` bytes at a time (0: all). */
static size_t move(struct tnl_tls *a, struct tnl_tls *b, size_t step)
{
	size_t n, cap, total = 0;
	const uint8_t *p;
	uint8_t *q;

	while (p = tnl_tls_out_peek(a, &n), n) {
		q = tnl_tls_in_reserve(b, &cap);
		if (!cap)
			break;
		n = TNL_MIN(n, cap);
		n = step ? TNL_MIN(step, n) : n;
		memcpy(q, p, n);
		tnl_tls_in_commit(b, n);
		tnl_tls_out_consume(a, n);
		total += n;
		if (step)
			break;
	}
	return total;
}

struct pair {
	struct tnl_tls *c, *s;
	int crc, src;
};

static void handshake(struct pair *p, size_t step)
{
	p->crc = p->src = TNL_EAGAIN;
	for (int i = 0; i < 100000; i++) {
		size_t moved = 0;

		if (p->crc == TNL_EAGAIN)
			p->crc = tnl_tls_handshake(p->c);
		moved += move(p->c, p->s, step);
		if (p->src == TNL_EAGAIN)
			p->src = tnl_tls_handshake(p->s);
		moved += move(p->s, p->c, step);
		if (!moved)
			break;
	}
}

static void pair_open(struct pair *p, struct tnl_tls_ctx *c, struct tnl_tls_ctx *s, const char *host, size_t step)
{
	p->c = tnl_tls_new(c, host);
	p->s = tnl_tls_new(s, NULL);
	assert_non_null(p->c);
	assert_non_null(p->s);
	handshake(p, step);
}

static void pair_close(struct pair *p)
{
	tnl_tls_free(p->c);
	tnl_tls_free(p->s);
}

static void echo(struct tnl_tls *a, struct tnl_tls *b, size_t total, size_t step)
{
	uint8_t *src = test_malloc(total), *dst = test_malloc(total);
	size_t sent = 0, got = 0;

	for (size_t i = 0; i < total; i++)
		src[i] = (uint8_t)(i * 31 + (i >> 8));
	for (int i = 0; got < total && i < 10000000; i++) {
		int n = sent < total ? tnl_tls_write(a, src + sent, total - sent) : TNL_EAGAIN;

		if (n > 0)
			sent += (size_t)n;
		else
			assert_int_equal(n, TNL_EAGAIN);
		move(a, b, step);
		while ((n = tnl_tls_read(b, dst + got, total - got ? total - got : 1)) > 0)
			got += (size_t)n;
		assert_int_equal(n, TNL_EAGAIN);
		assert_false(tnl_tls_pending(b));
	}
	assert_int_equal(got, total);
	assert_memory_equal(src, dst, total);
	test_free(src);
	test_free(dst);
}

static void test_bytes_both_ways(void **state)
{
	struct tnl_tls_ctx *c = make_ctx(false, NULL, NULL, ca_cert, false),
			   *s = make_ctx(true, cert, key, NULL, false);
	struct pair p;

	pair_open(&p, c, s, "gw.example.com", 0);
	assert_int_equal(p.crc, 0);
	assert_int_equal(p.src, 0);
	assert_string_equal(tnl_tls_version(p.c), "TLSv1.3");
	if (strstr(tnl_tls_cipher(p.c), "CHACHA") == NULL)
		assert_string_equal(tnl_tls_cipher(p.c), "TLS_AES_128_GCM_SHA256");
	echo(p.c, p.s, 3000000, 0);
	echo(p.s, p.c, 3000000, 0);
	tnl_tls_trim(p.c);
	tnl_tls_trim(p.s);
	echo(p.s, p.c, 5, 0);
	/* orderly end */
	uint8_t b[8];
	tnl_tls_shutdown(p.c);
	move(p.c, p.s, 0);
	tnl_tls_in_eof(p.s);
	assert_int_equal(tnl_tls_read(p.s, b, sizeof(b)), TNL_EEOF);
	assert_int_equal(tnl_tls_read(p.s, b, sizeof(b)), TNL_EEOF);
	/* the other direction is still open */
	assert_int_equal(tnl_tls_write(p.s, "late", 4), 4);
	move(p.s, p.c, 0);
	assert_int_equal(tnl_tls_read(p.c, b, sizeof(b)), 4);
	pair_close(&p);
	tnl_tls_ctx_free(c);
	tnl_tls_ctx_free(s);
}

static void test_one_byte_feeds(void **state)
{
	struct tnl_tls_ctx *c = make_ctx(false, NULL, NULL, ca_cert, false),
			   *s = make_ctx(true, cert, key, NULL, false);
	struct pair p;

	pair_open(&p, c, s, "GW.example.com.", 1);
	assert_int_equal(p.crc, 0);
	assert_int_equal(p.src, 0);
	echo(p.c, p.s, 20000, 1);
	echo(p.s, p.c, 20000, 1);
	pair_close(&p);
	tnl_tls_ctx_free(c);
	tnl_tls_ctx_free(s);
}

static void test_writes_stop_at_256k(void **state)
{
	struct tnl_tls_ctx *c = make_ctx(false, NULL, NULL, ca_cert, false),
			   *s = make_ctx(true, cert, key, NULL, false);
	struct pair p;
	uint8_t *big = test_calloc(1, 1 << 20);
	size_t n = 0;
	int rc;

	pair_open(&p, c, s, "127.0.0.1", 0);
	while ((rc = tnl_tls_write(p.c, big, 1 << 20)) > 0)
		n += (size_t)rc;
	assert_int_equal(rc, TNL_EAGAIN);
	assert_in_range(n, 256 * 1024, 300 * 1024);
	assert_in_range(tnl_tls_out_len(p.c), 256 * 1024, 300 * 1024);
	test_free(big);
	pair_close(&p);
	tnl_tls_ctx_free(c);
	tnl_tls_ctx_free(s);
}

/* The client's verdict on a server certificate. */
static void expect_cert(const char *crt, const char *k, const char *trust, const char *host, int want, const char *why)
{
	struct tnl_tls_ctx *c = make_ctx(false, NULL, NULL, trust, false), *s = make_ctx(true, crt, k, NULL, false);
	struct pair p;

	pair_open(&p, c, s, host, 0);
	if (p.crc != want)
		fail_msg("%s: got %s (%s)", host, tnl_err_name(p.crc), tnl_tls_why(p.c));
	if (why && !strstr(tnl_tls_why(p.c), why))
		fail_msg("%s: the text is \"%s\"", host, tnl_tls_why(p.c));
	if (want) {
		uint8_t b[1];

		assert_int_not_equal(p.src, 0);
		/* it stays refused */
		assert_int_equal(tnl_tls_handshake(p.c), want);
		assert_int_equal(tnl_tls_read(p.c, b, 1), want);
		assert_int_equal(tnl_tls_write(p.c, b, 1), want);
	}
	pair_close(&p);
	tnl_tls_ctx_free(c);
	tnl_tls_ctx_free(s);
}

static void test_host_checked(void **state)
{
	expect_cert(cert, key, ca_cert, "gw.example.com", 0, NULL);
	expect_cert(cert, key, ca_cert, "a.wild.example.com", 0, NULL);
	expect_cert(cert, key, ca_cert, "a.b.wild.example.com", TNL_ECERT, "does not name");
	expect_cert(cert, key, ca_cert, "evil.example.com", TNL_ECERT, "does not name evil.example.com");
	/* the common name is no name, also when there is no other */
	char *bare, *bare_key;
	assert_int_equal(tnl_x509_make("gw.example.com", NULL, ca_cert, ca_key, NOW - 100, NOW + 1000, &bare,
				       &bare_key),
			 0);
	expect_cert(bare, bare_key, ca_cert, "gw.example.com", TNL_ECERT,
		    "does not name gw.example.com in its subjectAltName");
	tnl_free(bare);
	tnl_free(bare_key);
}

static void test_ip_literals_checked(void **state)
{
	expect_cert(cert, key, ca_cert, "127.0.0.1", 0, NULL);
	expect_cert(cert, key, ca_cert, "::1", 0, NULL);
	expect_cert(cert, key, ca_cert, "[::1]", 0, NULL);
	expect_cert(cert, key, ca_cert, "0:0:0:0:0:0:0:1", 0, NULL);
	expect_cert(cert, key, ca_cert, "127.0.0.2", TNL_ECERT, "does not name 127.0.0.2");
	expect_cert(cert, key, ca_cert, "::2", TNL_ECERT, "does not name");
}

static void test_no_host_no_connection(void **state)
{
	struct tnl_tls_ctx *c = make_ctx(false, NULL, NULL, ca_cert, false);

	assert_null(tnl_tls_new(c, NULL));
	assert_null(tnl_tls_new(c, ""));
	assert_null(tnl_tls_new(c, "."));
	tnl_tls_ctx_free(c);
}

static void test_validity_by_given_clock(void **state)
{
	now_s = NOW + 2000;
	expect_cert(cert, key, ca_cert, "gw.example.com", TNL_ECERT, "expired");
	now_s = NOW - 200;
	expect_cert(cert, key, ca_cert, "gw.example.com", TNL_ECERT, "not yet valid, or this machine's clock is wrong");
	now_s = NOW;
}

static void test_untrusted(void **state)
{
	char *self, *self_key;

	expect_cert(cert, key, other_ca, "gw.example.com", TNL_ECERT, "authority that is not trusted here");
	assert_int_equal(tnl_x509_make("self", "gw.example.com", NULL, NULL, NOW - 1, NOW + 1, &self, &self_key), 0);
	expect_cert(self, self_key, ca_cert, "gw.example.com", TNL_ECERT, "self signed");
	tnl_free(self);
	tnl_free(self_key);
	/* a leaf that acts as a CA */
	char *bad, *bad_key;
	assert_int_equal(tnl_x509_make("bad", "gw.example.com", cert, key, NOW - 1, NOW + 1, &bad, &bad_key), 0);
	char *chain = test_malloc(strlen(bad) + strlen(cert) + 1);
	strcpy(chain, bad);
	strcat(chain, cert);
	expect_cert(chain, bad_key, ca_cert, "gw.example.com", TNL_ECERT, NULL);
	test_free(chain);
	tnl_free(bad);
	tnl_free(bad_key);
}

static void test_client_certificate(void **state)
{
	struct tnl_tls_ctx *s = make_ctx(true, cert, key, ca_cert, true);
	struct tnl_tls_ctx *with = make_ctx(false, cert, key, ca_cert, false);
	struct tnl_tls_ctx *without = make_ctx(false, NULL, NULL, ca_cert, false);
	struct tnl_tls_ctx *wrong = make_ctx(false, other_ca, other_key, ca_cert, false);
	struct pair p;
	uint8_t b[1];

	pair_open(&p, with, s, "gw.example.com", 0);
	assert_int_equal(p.crc, 0);
	assert_int_equal(p.src, 0);
	echo(p.c, p.s, 100, 0);
	pair_close(&p);
	pair_open(&p, without, s, "gw.example.com", 0);
	assert_int_equal(p.src, TNL_ETLS);
	assert_int_equal(tnl_tls_read(p.c, b, 1), TNL_ETLS);
	assert_non_null(strstr(tnl_tls_why(p.c), "certificate required"));
	pair_close(&p);
	pair_open(&p, wrong, s, "gw.example.com", 0);
	assert_int_equal(p.src, TNL_ECERT);
	pair_close(&p);
	tnl_tls_ctx_free(s);
	tnl_tls_ctx_free(with);
	tnl_tls_ctx_free(without);
	tnl_tls_ctx_free(wrong);
}

static void test_resumption(void **state)
{
	struct tnl_tls_ctx *c = make_ctx(false, NULL, NULL, ca_cert, false),
			   *s = make_ctx(true, cert, key, NULL, false);
	struct pair p;

	pair_open(&p, c, s, "gw.example.com", 0);
	assert_false(tnl_tls_resumed(p.c));
	echo(p.s, p.c, 10, 0); /* the tickets come with the first data */
	pair_close(&p);
	for (int i = 0; i < 5; i++) {
		pair_open(&p, c, s, "gw.example.com", 0);
		assert_int_equal(p.crc, 0);
		assert_true(tnl_tls_resumed(p.c));
		assert_true(tnl_tls_resumed(p.s));
		echo(p.s, p.c, 10, 0);
		pair_close(&p);
	}
	/* a session belongs to its host alone */
	pair_open(&p, c, s, "127.0.0.1", 0);
	assert_int_equal(p.crc, 0);
	assert_false(tnl_tls_resumed(p.c));
	pair_close(&p);
	/* and dies with its time */
	now_s = NOW + 800;
	pair_open(&p, c, s, "gw.example.com", 0);
	assert_true(tnl_tls_resumed(p.c));
	pair_close(&p);
	now_s = NOW + 3 * 86400;
	pair_open(&p, c, s, "gw.example.com", 0);
	assert_false(tnl_tls_resumed(p.c));
	assert_int_equal(p.crc, TNL_ECERT);
	pair_close(&p);
	now_s = NOW;
	/* many hosts do not grow the cache beyond its size (the teardown looks for leaks) */
	for (int i = 0; i < 100; i++) {
		char host[40];

		snprintf(host, sizeof(host), "h%d.wild.example.com", i);
		pair_open(&p, c, s, host, 0);
		echo(p.s, p.c, 1, 0);
		pair_close(&p);
	}
	tnl_tls_ctx_free(c);
	tnl_tls_ctx_free(s);
}

static void test_truncation(void **state)
{
	struct tnl_tls_ctx *c = make_ctx(false, NULL, NULL, ca_cert, false),
			   *s = make_ctx(true, cert, key, NULL, false);
	struct pair p;
	uint8_t b[64];

	pair_open(&p, c, s, "gw.example.com", 0);
	assert_int_equal(tnl_tls_write(p.s, "hello", 5), 5);
	move(p.s, p.c, 0);
	tnl_tls_in_eof(p.c);
	assert_int_equal(tnl_tls_read(p.c, b, sizeof(b)), 5);
	assert_int_equal(tnl_tls_read(p.c, b, sizeof(b)), TNL_ETRUNC);
	assert_int_equal(tnl_tls_read(p.c, b, sizeof(b)), TNL_ETRUNC);
	pair_close(&p);
	/* in the middle of a record */
	pair_open(&p, c, s, "gw.example.com", 0);
	assert_int_equal(tnl_tls_write(p.c, "hello", 5), 5);
	move(p.c, p.s, 10);
	tnl_tls_in_eof(p.s);
	assert_int_equal(tnl_tls_read(p.s, b, sizeof(b)), TNL_ETRUNC);
	pair_close(&p);
	/* in the handshake */
	p.c = tnl_tls_new(c, "gw.example.com");
	assert_int_equal(tnl_tls_handshake(p.c), TNL_EAGAIN);
	tnl_tls_in_eof(p.c);
	assert_int_equal(tnl_tls_handshake(p.c), TNL_ETRUNC);
	tnl_tls_free(p.c);
	tnl_tls_ctx_free(c);
	tnl_tls_ctx_free(s);
}

static void test_damage(void **state)
{
	struct tnl_tls_ctx *c = make_ctx(false, NULL, NULL, ca_cert, false),
			   *s = make_ctx(true, cert, key, NULL, false);
	struct pair p;
	size_t n, cap;
	uint8_t b[64], *q;

	pair_open(&p, c, s, "gw.example.com", 0);
	assert_int_equal(tnl_tls_write(p.c, "hello", 5), 5);
	const uint8_t *o = tnl_tls_out_peek(p.c, &n);
	q = tnl_tls_in_reserve(p.s, &cap);
	memcpy(q, o, n);
	q[n - 3] ^= 1;
	tnl_tls_in_commit(p.s, n);
	assert_int_equal(tnl_tls_read(p.s, b, sizeof(b)), TNL_ETLS);
	pair_close(&p);
	/* not TLS at all */
	p.s = tnl_tls_new(s, NULL);
	q = tnl_tls_in_reserve(p.s, &cap);
	memcpy(q, "GET / HTTP/1.1\r\n\r\n", 18);
	tnl_tls_in_commit(p.s, 18);
	assert_int_equal(tnl_tls_handshake(p.s), TNL_ETLS);
	assert_non_null(strstr(tnl_tls_why(p.s), "does not speak TLS"));
	tnl_tls_free(p.s);
	tnl_tls_ctx_free(c);
	tnl_tls_ctx_free(s);
}

/* --- against a plain BoringSSL end ----------------------------------------- */

struct raw {
	SSL_CTX *ctx;
	SSL *ssl;
	BIO *in, *out; /* borrowed by ssl */
};

static X509 *parse_cert(const char *pem)
{
	BIO *b = BIO_new_mem_buf(pem, -1);
	X509 *x = PEM_read_bio_X509(b, NULL, NULL, NULL);

	BIO_free(b);
	return x;
}

static void raw_new(struct raw *r, bool server, uint16_t min, uint16_t max)
{
	r->ctx = SSL_CTX_new(TLS_method());
	SSL_CTX_set_min_proto_version(r->ctx, min);
	SSL_CTX_set_max_proto_version(r->ctx, max);
	if (server) {
		X509 *x = parse_cert(cert);
		BIO *b = BIO_new_mem_buf(key, -1);
		EVP_PKEY *k = PEM_read_bio_PrivateKey(b, NULL, NULL, NULL);

		assert_int_equal(SSL_CTX_use_certificate(r->ctx, x), 1);
		assert_int_equal(SSL_CTX_use_PrivateKey(r->ctx, k), 1);
		X509_free(x);
		EVP_PKEY_free(k);
		BIO_free(b);
	}
	r->ssl = SSL_new(r->ctx);
	r->in = BIO_new(BIO_s_mem());
	r->out = BIO_new(BIO_s_mem());
	BIO_set_mem_eof_return(r->in, -1);
	SSL_set_bio(r->ssl, r->in, r->out);
	if (server)
		SSL_set_accept_state(r->ssl);
	else
		SSL_set_connect_state(r->ssl);
}

static void raw_free(struct raw *r)
{
	SSL_free(r->ssl);
	SSL_CTX_free(r->ctx);
}

static size_t raw_move(struct raw *r, struct tnl_tls *t)
{
	uint8_t b[4096];
	size_t n, cap, moved = 0;
	int k;
	const uint8_t *p = tnl_tls_out_peek(t, &n);

	if (n) {
		assert_int_equal(BIO_write(r->in, p, (int)n), (int)n);
		tnl_tls_out_consume(t, n);
		moved += n;
	}
	while ((k = BIO_read(r->out, b, sizeof(b))) > 0) {
		uint8_t *q = tnl_tls_in_reserve(t, &cap);

		assert_true(cap >= (size_t)k);
		memcpy(q, b, (size_t)k);
		tnl_tls_in_commit(t, (size_t)k);
		moved += (size_t)k;
	}
	return moved;
}

static int raw_handshake(struct raw *r, struct tnl_tls *t)
{
	int ours = TNL_EAGAIN;

	for (int i = 0; i < 20; i++) {
		if (ours == TNL_EAGAIN)
			ours = tnl_tls_handshake(t);
		raw_move(r, t);
		ERR_clear_error();
		SSL_do_handshake(r->ssl);
		raw_move(r, t);
	}
	ERR_clear_error();
	return ours;
}

static void test_versions(void **state)
{
	struct tnl_tls_ctx *c = make_ctx(false, NULL, NULL, ca_cert, false),
			   *s = make_ctx(true, cert, key, NULL, false);
	struct raw r;
	struct tnl_tls *t;
	char b[16];

	/* 1.2 both ways round */
	raw_new(&r, true, TLS1_2_VERSION, TLS1_2_VERSION);
	t = tnl_tls_new(c, "gw.example.com");
	assert_int_equal(raw_handshake(&r, t), 0);
	assert_string_equal(tnl_tls_version(t), "TLSv1.2");
	assert_int_equal(tnl_tls_write(t, "ping", 4), 4);
	raw_move(&r, t);
	assert_int_equal(SSL_read(r.ssl, b, sizeof(b)), 4);
	tnl_tls_free(t);
	raw_free(&r);
	raw_new(&r, false, TLS1_2_VERSION, TLS1_2_VERSION);
	t = tnl_tls_new(s, NULL);
	assert_int_equal(raw_handshake(&r, t), 0);
	assert_string_equal(tnl_tls_version(t), "TLSv1.2");
	if (strstr(tnl_tls_cipher(t), "CHACHA") == NULL)
		assert_string_equal(tnl_tls_cipher(t), "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256");
	tnl_tls_free(t);
	raw_free(&r);
	/* 1.1 and below are refused */
	raw_new(&r, true, TLS1_VERSION, TLS1_1_VERSION);
	t = tnl_tls_new(c, "gw.example.com");
	assert_int_equal(raw_handshake(&r, t), TNL_ETLS);
	tnl_tls_free(t);
	raw_free(&r);
	raw_new(&r, false, TLS1_VERSION, TLS1_1_VERSION);
	t = tnl_tls_new(s, NULL);
	assert_int_equal(raw_handshake(&r, t), TNL_ETLS);
	tnl_tls_free(t);
	raw_free(&r);
	tnl_tls_ctx_free(c);
	tnl_tls_ctx_free(s);
}

static void test_key_update(void **state)
{
	struct tnl_tls_ctx *c = make_ctx(false, NULL, NULL, ca_cert, false);
	struct raw r;
	struct tnl_tls *t = tnl_tls_new(c, "gw.example.com");
	char b[16];

	raw_new(&r, true, TLS1_3_VERSION, TLS1_3_VERSION);
	assert_int_equal(raw_handshake(&r, t), 0);
	for (int i = 0; i < 40; i++) {
		assert_int_equal(SSL_key_update(r.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
		assert_int_equal(SSL_write(r.ssl, "down", 4), 4);
		raw_move(&r, t);
		assert_int_equal(tnl_tls_read(t, b, sizeof(b)), 4);
		assert_int_equal(tnl_tls_write(t, "up", 2), 2);
		raw_move(&r, t);
		assert_int_equal(SSL_read(r.ssl, b, sizeof(b)), 2);
	}
	tnl_tls_free(t);
	raw_free(&r);
	tnl_tls_ctx_free(c);
}

/* An error left behind by somebody else must not be taken for ours. */
static void test_error_queue_is_cleared(void **state)
{
	struct tnl_tls_ctx *c = make_ctx(false, NULL, NULL, ca_cert, false),
			   *s = make_ctx(true, cert, key, NULL, false);
	struct pair p;
	uint8_t b[4];

	pair_open(&p, c, s, "gw.example.com", 0);
	OPENSSL_PUT_ERROR(SSL, SSL_R_BAD_DIGEST_LENGTH);
	assert_int_equal(tnl_tls_read(p.c, b, sizeof(b)), TNL_EAGAIN);
	assert_int_equal(ERR_peek_error(), 0);
	pair_close(&p);
	tnl_tls_ctx_free(c);
	tnl_tls_ctx_free(s);
}

static void expect_no_ctx(bool server, const char *c, const char *k, const char *ca, const char *why)
{
	char err[200] = "";
	struct tnl_tls_config conf = {.server = server, .unix_time = clock_cb};

	conf.cert_pem = c;
	conf.cert_pem_len = c ? strlen(c) : 0;
	conf.key_pem = k;
	conf.key_pem_len = k ? strlen(k) : 0;
	conf.ca_pem = ca;
	conf.ca_pem_len = ca ? strlen(ca) : 0;
	assert_null(tnl_tls_ctx_new(&conf, err, sizeof(err)));
	if (!strstr(err, why))
		fail_msg("the text is \"%s\"", err);
}

static void test_bad_files(void **state)
{
	char broken[300];

	snprintf(broken, sizeof(broken), "%.200s", cert);
	expect_no_ctx(false, NULL, NULL, NULL, "no CA");
	expect_no_ctx(false, NULL, NULL, "", "no CA certificate");
	expect_no_ctx(false, NULL, NULL, "nothing here\n", "no CA certificate");
	expect_no_ctx(false, NULL, NULL, broken, "no CA certificate");
	expect_no_ctx(true, NULL, NULL, NULL, "needs a certificate");
	expect_no_ctx(true, cert, NULL, NULL, "needs a certificate");
	expect_no_ctx(false, cert, NULL, ca_cert, "belong together");
	expect_no_ctx(true, cert, ca_key, NULL, "does not belong");
	expect_no_ctx(true, key, key, NULL, "no certificate");
	expect_no_ctx(true, broken, key, NULL, "damaged");
	expect_no_ctx(true, cert, cert, NULL, "private key cannot be read");
}

static void test_ed25519(void **state)
{
	/* an Ed25519 leaf, self-signed and trusted as it is */
	EVP_PKEY *k = NULL;
	EVP_PKEY_CTX *kc = EVP_PKEY_CTX_new_id(EVP_PKEY_ED25519, NULL);
	X509 *x = parse_cert(cert);
	BIO *cb = BIO_new(BIO_s_mem()), *kb = BIO_new(BIO_s_mem());
	char cpem[4096] = "", kpem[1024] = "";

	assert_true(EVP_PKEY_keygen_init(kc) && EVP_PKEY_keygen(kc, &k));
	assert_true(X509_set_pubkey(x, k) && X509_set_issuer_name(x, X509_get_subject_name(x)) &&
		    X509_sign(x, k, NULL));
	assert_true(PEM_write_bio_X509(cb, x) && PEM_write_bio_PKCS8PrivateKey(kb, k, NULL, NULL, 0, NULL, NULL));
	assert_true(BIO_read(cb, cpem, sizeof(cpem) - 1) > 0 && BIO_read(kb, kpem, sizeof(kpem) - 1) > 0);
	expect_cert(cpem, kpem, cpem, "gw.example.com", 0, NULL);
	expect_cert(cpem, kpem, cpem, "evil.example.com", TNL_ECERT, NULL);
	EVP_PKEY_free(k);
	EVP_PKEY_CTX_free(kc);
	X509_free(x);
	BIO_free(cb);
	BIO_free(kb);
}

/* Whatever allocation fails: no crash, no leak, and never a connection that was not checked. */
static void test_without_memory(void **state)
{
	long live = tnl_alloc_live();
	bool passed = false;

	for (long n = 0; n < 400 && !passed; n++) {
		char err[200];
		struct tnl_tls_config cc = {.ca_pem = ca_cert, .ca_pem_len = strlen(ca_cert), .unix_time = clock_cb};
		struct tnl_tls_config sc = {.server = true,
					    .cert_pem = cert,
					    .cert_pem_len = strlen(cert),
					    .key_pem = key,
					    .key_pem_len = strlen(key),
					    .unix_time = clock_cb};
		struct tnl_tls_ctx *c, *s;
		struct pair p = {NULL, NULL, TNL_ENOMEM, TNL_ENOMEM};

		tnl_alloc_fail_after(n, 1);
		c = tnl_tls_ctx_new(&cc, err, sizeof(err));
		s = tnl_tls_ctx_new(&sc, err, sizeof(err));
		p.c = c ? tnl_tls_new(c, "gw.example.com") : NULL;
		p.s = s ? tnl_tls_new(s, NULL) : NULL;
		if (p.c && p.s) {
			/* move() copies into reserved room, which may be missing: then nothing more happens */
			handshake(&p, 0);
			passed = p.crc == 0 && p.src == 0 && tnl_tls_write(p.c, "x", 1) == 1;
		}
		tnl_alloc_fail_after(-1, 0);
		tnl_tls_free(p.c);
		tnl_tls_free(p.s);
		tnl_tls_ctx_free(c);
		tnl_tls_ctx_free(s);
		assert_int_equal(tnl_alloc_live(), live);
	}
	assert_true(passed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_without_memory),
	    cmocka_unit_test(test_bytes_both_ways),
	    cmocka_unit_test(test_one_byte_feeds),
	    cmocka_unit_test(test_writes_stop_at_256k),
	    cmocka_unit_test(test_host_checked),
	    cmocka_unit_test(test_ip_literals_checked),
	    cmocka_unit_test(test_no_host_no_connection),
	    cmocka_unit_test(test_validity_by_given_clock),
	    cmocka_unit_test(test_untrusted),
	    cmocka_unit_test(test_client_certificate),
	    cmocka_unit_test(test_resumption),
	    cmocka_unit_test(test_truncation),
	    cmocka_unit_test(test_damage),
	    cmocka_unit_test(test_versions),
	    cmocka_unit_test(test_key_update),
	    cmocka_unit_test(test_error_queue_is_cleared),
	    cmocka_unit_test(test_bad_files),
	    cmocka_unit_test(test_ed25519),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
