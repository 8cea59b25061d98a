/* HTTP heads of both directions, the body behind a response's head, and URLs.
 * The first byte chooses. */
#include "lib/http.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static void check_slices(const struct tnl_http_head *h, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < h->nheaders; i++) {
		const uint8_t *v = (const uint8_t *)h->headers[i].value;
		if (v < p || v + h->headers[i].vlen > p + n || memchr(v, '\n', h->headers[i].vlen))
			abort();
	}
}

/* In one piece and byte by byte must give the same. */
static void body(const struct tnl_http_head *h, const uint8_t *p, size_t n)
{
	struct tnl_http_body a, b;
	struct tnl_buf x, y;
	int rc = 0;

	tnl_buf_init(&x, 4096);
	tnl_buf_init(&y, 4096);
	tnl_http_body_init(&a, h, false);
	tnl_http_body_init(&b, h, false);
	int used = tnl_http_body_feed(&a, p, n, &x);
	size_t i = 0;
	while (i < n && !b.done && rc >= 0) {
		rc = tnl_http_body_feed(&b, p + i, 1, &y);
		i += rc > 0;
	}
	if ((used < 0) != (rc < 0) || (used >= 0 && ((size_t)used != i || tnl_buf_len(&x) != tnl_buf_len(&y) ||
						     memcmp(tnl_buf_data(&x), tnl_buf_data(&y), tnl_buf_len(&x)) != 0)))
		abort();
	(void)tnl_http_body_eof(&a);
	tnl_buf_fini(&x);
	tnl_buf_fini(&y);
}

static void url(const uint8_t *p, size_t n)
{
	char *s = malloc(n + 1), authority[300];
	struct tnl_url u;
	const char *fault;

	memcpy(s, p, n);
	s[n] = '\0';
	if (!tnl_url_parse(s, &u, &fault)) {
		if (!u.host[0] || !u.port || u.path[0] != '/')
			abort();
		tnl_url_authority(&u, authority, sizeof(authority));
	}
	free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static struct tnl_http_head h, again;

	if (!n)
		return 0;
	int mode = *p++ % 3;
	n--;
	if (mode == 2) {
		url(p, n);
		return 0;
	}
	int rc = tnl_http_parse(mode == 0, p, n, &h);
	if (rc < 0 && rc != TNL_EAGAIN && !h.fault)
		abort();
	if (rc <= 0)
		return 0;
	check_slices(&h, p, (size_t)rc);
	/* A shorter prefix is never whole and never wrong. */
	for (int k = rc - 1; k >= 0; k -= 1 + rc / 64)
		if (tnl_http_parse(mode == 0, p, (size_t)k, &again) != TNL_EAGAIN)
			abort();
	if (mode == 1)
		body(&h, p + rc, n - (size_t)rc);
	return 0;
}
