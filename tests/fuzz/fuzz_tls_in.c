/* Bytes from a stranger into both ends of TLS: no crash, no plaintext, no handshake that succeeds. */
#include "lib/alloc.h"
#include "lib/num.h"
#include "lib/tls.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static struct tnl_tls_ctx *server, *client;

static uint64_t now_s(void *ctx)
{
	return 1800000000;
}

static void init(void)
{
	char *ca, *ca_key, *cert, *key, err[200];

	if (tnl_x509_make("ca", NULL, NULL, NULL, 1799999999, 1800009999, &ca, &ca_key) ||
	    tnl_x509_make("leaf", "localhost", ca, ca_key, 1799999999, 1800009999, &cert, &key))
		abort();
	struct tnl_tls_config s = {.server = true,
				   .cert_pem = cert,
				   .cert_pem_len = strlen(cert),
				   .key_pem = key,
				   .key_pem_len = strlen(key),
				   .unix_time = now_s};
	struct tnl_tls_config c = {.ca_pem = ca, .ca_pem_len = strlen(ca), .unix_time = now_s};
	server = tnl_tls_ctx_new(&s, err, sizeof(err));
	client = tnl_tls_ctx_new(&c, err, sizeof(err));
	if (!server || !client)
		abort();
	tnl_free(ca);
	tnl_free(ca_key);
	tnl_free(cert);
	tnl_free(key);
}

static void run(struct tnl_tls *t, const uint8_t *p, size_t n)
{
	uint8_t out[100];
	int rc = tnl_tls_handshake(t);

	while (n && rc == TNL_EAGAIN) {
		size_t cap, k = n;
		uint8_t *q = tnl_tls_in_reserve(t, &cap);

		if (!cap)
			abort();
		k = TNL_MIN(k, cap);
		memcpy(q, p, k);
		tnl_tls_in_commit(t, k);
		p += k;
		n -= k;
		rc = tnl_tls_handshake(t);
	}
	if (rc == 0)
		abort();
	tnl_tls_in_eof(t);
	if (tnl_tls_handshake(t) == TNL_EAGAIN || tnl_tls_read(t, out, sizeof(out)) >= 0)
		abort();
	tnl_tls_free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	if (!server)
		init();
	run(tnl_tls_new(server, NULL), p, n);
	run(tnl_tls_new(client, "localhost"), p, n);
	return 0;
}
