/* TLS over memory: our end against BoringSSL's own as the oracle, and against itself.  Every
 * refusal that the product promises (wrong host, expired, untrusted, cut off) is checked here. */
#include "tests/unit/tls_util.h"

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
	tnl_tls_settle(p.c);
	tnl_tls_settle(p.s);
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
	assert_true(tnl_tls_peer_named(p.s, "gw.example.com"));
	assert_true(tnl_tls_peer_named(p.c, "gw.example.com")); /* the server's, which is the same */
	assert_false(tnl_tls_peer_named(p.s, "other.example.com"));
	assert_false(tnl_tls_peer_named(p.s, "example.com"));
	assert_false(tnl_tls_peer_named(p.s, ""));
	pair_close(&p);
	pair_open(&p, without, s, "gw.example.com", 0);
	assert_int_equal(p.src, TNL_ETLS);
	assert_int_equal(tnl_tls_read(p.c, b, 1), TNL_ETLS);
	assert_non_null(strstr(tnl_tls_why(p.c), "certificate required"));
	assert_false(tnl_tls_peer_named(p.s, "gw.example.com"));
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

int main(void)
{
	const struct CMUnitTest tests[] = {
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
	};
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
