/* Two TLS ends in memory, with certificates of a test authority, under a clock of ours. */
#ifndef TLS_UTIL_H
#define TLS_UTIL_H
#include "tests/unit/check.h"
#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/num.h"
#include "lib/tls.h"

#define NOW 1800000000ull

static uint64_t now_s;

static char *ca_cert, *ca_key, *cert, *key, *other_ca, *other_key;

static inline uint64_t clock_cb(void *ctx)
{
	return now_s;
}

static inline struct tnl_tls_ctx *make_ctx(bool server, const char *c, const char *k, const char *ca, bool require)
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

static inline int group_setup(void **state)
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

static inline int group_teardown(void **state)
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
static inline size_t move(struct tnl_tls *a, struct tnl_tls *b, size_t step)
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

static inline void handshake(struct pair *p, size_t step)
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

static inline void pair_open(struct pair *p, struct tnl_tls_ctx *c, struct tnl_tls_ctx *s, const char *host,
			     size_t step)
{
	p->c = tnl_tls_new(c, host);
	p->s = tnl_tls_new(s, NULL);
	assert_non_null(p->c);
	assert_non_null(p->s);
	handshake(p, step);
}

static inline void pair_close(struct pair *p)
{
	tnl_tls_free(p->c);
	tnl_tls_free(p->s);
}

/* The client's verdict on a server certificate. */
static inline void expect_cert(const char *crt, const char *k, const char *trust, const char *host, int want,
			       const char *why)
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

#endif
