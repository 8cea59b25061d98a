/* A request head, its claim, and verification.  Without the secret nothing may pass; and what
 * is signed here with the same headers must pass. */
#include "lib/alloc.h"
#include "lib/http.h"
#include "lib/sigv4.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

#define NOW 1440938160ull
static const struct tnl_sigv4_keys keys = {"AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", NULL};

static bool is(const struct tnl_http_header *h, const char *name)
{
	return h->nlen == strlen(name) && strncasecmp(h->name, name, h->nlen) == 0;
}

static bool has(const char *p, size_t n, const char *what)
{
	return memmem(p, n, what, strlen(what)) != NULL;
}

static void sign_and_verify(const struct tnl_http_head *h, const uint8_t *body, size_t body_len)
{
	struct tnl_http_head mine = *h;
	struct tnl_sigv4_header headers[TNL_HTTP_MAX_HEADERS + 1];
	const char *mark = memchr(h->target, '?', h->target_len);
	char method[32];
	struct tnl_sigv4_request r = {.method = method,
				      .headers = headers,
				      .body = body,
				      .body_len = body_len,
				      .double_encode_path = true,
				      .normalize_path = true};
	struct tnl_sigv4_claim c;
	struct tnl_buf auth;
	const char *fault;
	size_t names = 0, host = 0;

	if (h->method_len >= sizeof(method) || has(h->target, h->target_len, "%") ||
	    has(h->target, h->target_len, "X-Amz"))
		return; /* a query that is pre-signed already, in some spelling */
	memcpy(method, h->method, h->method_len);
	method[h->method_len] = 0;
	r.path = h->target;
	r.path_len = mark ? (size_t)(mark - h->target) : h->target_len;
	r.query = mark ? mark + 1 : "";
	r.query_len = mark ? h->target_len - r.path_len - 1 : 0;
	mine.nheaders = 0;
	for (size_t i = 0; i < h->nheaders; i++) {
		const struct tnl_http_header *x = &h->headers[i];

		if (is(x, "authorization") || is(x, "x-amz-date") || is(x, "x-amz-content-sha256"))
			continue;
		if (memchr(x->name, ';', x->nlen))
			return;
		host += is(x, "host");
		names += x->nlen + 1;
		mine.headers[mine.nheaders++] = *x;
	}
	if (!host || mine.nheaders + 2 > TNL_HTTP_MAX_HEADERS || names > 1900)
		return;
	mine.headers[mine.nheaders++] =
	    (struct tnl_http_header){.name = "X-Amz-Date", .nlen = 10, .value = "20150830T123600Z", .vlen = 16};
	for (size_t i = 0; i < mine.nheaders; i++)
		headers[r.nheaders++] = (struct tnl_sigv4_header){.name = mine.headers[i].name,
								  .nlen = mine.headers[i].nlen,
								  .value = mine.headers[i].value,
								  .vlen = mine.headers[i].vlen};
	tnl_buf_init(&auth, 65536);
	if (tnl_sigv4_sign(&r, &keys, "eu-west-1", "ssm", NOW, &auth) == 0) {
		mine.headers[mine.nheaders++] = (struct tnl_http_header){.name = "Authorization",
									 .nlen = 13,
									 .value = (const char *)tnl_buf_data(&auth),
									 .vlen = tnl_buf_len(&auth)};
		if (tnl_sigv4_claim_parse(&mine, &c, &fault) != 0 ||
		    tnl_sigv4_verify(&mine, body, body_len, &c, keys.secret_access_key, "eu-west-1", "ssm", NOW,
				     &fault) != 0)
			abort();
	}
	tnl_buf_fini(&auth);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct tnl_http_head h;
	struct tnl_sigv4_claim c;
	const char *fault = NULL;
	int used = tnl_http_parse(true, p, n, &h), rc;

	if (used <= 0)
		return 0;
	p += used;
	n -= (size_t)used;
	rc = tnl_sigv4_claim_parse(&h, &c, &fault);
	if (rc == 0) {
		if (tnl_sigv4_verify(&h, p, n, &c, NULL, NULL, c.service, c.unix_s, &fault) == 0 || !fault)
			abort();
		(void)!tnl_sigv4_verify(&h, p, n, &c, keys.secret_access_key, NULL, c.service, c.unix_s, &fault);
	} else if (rc != TNL_ENOTFOUND && !fault) {
		abort();
	}
	sign_and_verify(&h, p, n);
	if (tnl_alloc_live() != 0)
		abort();
	return 0;
}
