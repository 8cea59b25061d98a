/* TLS against a plain BoringSSL end: versions, key updates; files that are no good; memory that runs out. */
#include "tests/unit/tls_util.h"
#include "lib/tls_internal.h"
#include <openssl/err.h>
#include <openssl/ssl.h>

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

/* What a TLS 1.2 client without tickets would like to resume is not kept for it. */
static void test_no_session_is_kept(void **state)
{
	struct tnl_tls_ctx *s = make_ctx(true, cert, key, NULL, false);
	for (int i = 0; i < 5; i++) {
		struct raw r;
		raw_new(&r, false, TLS1_2_VERSION, TLS1_2_VERSION);
		SSL_set_options(r.ssl, SSL_OP_NO_TICKET);
		struct tnl_tls *t = tnl_tls_new(s, NULL);
		assert_int_equal(raw_handshake(&r, t), 0);
		tnl_tls_free(t);
		raw_free(&r);
	}
	assert_int_equal(SSL_CTX_sess_number(s->ssl), 0);
	tnl_tls_ctx_free(s);
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

static void test_what_a_certificate_says(void **state)
{
	uint64_t from, to;
	struct tnl_tls_ctx *c = make_ctx(true, cert, key, NULL, false);

	assert_int_equal(tnl_tls_cert_dates(cert, strlen(cert), &from, &to), 0);
	assert_true(from == NOW - 100 && to == NOW + 1000);
	assert_true(tnl_tls_ctx_cert_ends(c) == NOW + 1000);
	tnl_tls_ctx_free(c);
	c = make_ctx(false, NULL, NULL, ca_cert, false);
	assert_true(tnl_tls_ctx_cert_ends(c) == 0);
	tnl_tls_ctx_free(c);
	assert_int_equal(tnl_tls_cert_dates("no certificate", 14, &from, &to), TNL_ECERT);
	static const char *const yes[] = {"gw.example.com", "GW.example.com", "a.wild.example.com", "127.0.0.1", "::1"};
	static const char *const no[] = {"example.com", "leaf", "a.b.wild.example.com", "127.0.0.2", "::2", ""};
	for (size_t i = 0; i < TNL_COUNT(yes); i++)
		assert_true(tnl_tls_cert_names(cert, strlen(cert), yes[i]));
	for (size_t i = 0; i < TNL_COUNT(no); i++)
		assert_false(tnl_tls_cert_names(cert, strlen(cert), no[i]));
	assert_false(tnl_tls_cert_names("x", 1, "gw.example.com"));
}

/* What connections, keys and certificates take is in the account, and is gone with them. */
static void test_library_is_counted(void **state)
{
	void *first = OPENSSL_malloc(1); /* whatever the library makes once */
	struct raw r;

	raw_new(&r, true, TLS1_2_VERSION, TLS1_3_VERSION);
	raw_free(&r);
	size_t held = tnl_alloc_bytes();
	long live = tnl_alloc_live();
	uint8_t *p = OPENSSL_malloc(100000);
	assert_in_range(tnl_alloc_bytes() - held, 100000, 110000);
	memset(p, 'k', 100000);
	p = OPENSSL_realloc(p, 200000);
	assert_in_range(tnl_alloc_bytes() - held, 200000, 210000);
	for (int i = 0; i < 100000; i++)
		assert_int_equal(p[i], 'k');
	OPENSSL_free(p);
	assert_int_equal(tnl_alloc_bytes(), held);
	raw_new(&r, true, TLS1_2_VERSION, TLS1_3_VERSION);
	assert_true(tnl_alloc_bytes() > held + 4096);
	raw_free(&r);
	assert_int_equal(tnl_alloc_bytes(), held);
	assert_int_equal(tnl_alloc_live(), live); /* the sweep does not know of it */
	OPENSSL_free(first);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_without_memory),	    cmocka_unit_test(test_versions),
	    cmocka_unit_test(test_no_session_is_kept),	    cmocka_unit_test(test_key_update),
	    cmocka_unit_test(test_error_queue_is_cleared),  cmocka_unit_test(test_bad_files),
	    cmocka_unit_test(test_what_a_certificate_says), cmocka_unit_test(test_ed25519),
	    cmocka_unit_test(test_library_is_counted),
	};
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
