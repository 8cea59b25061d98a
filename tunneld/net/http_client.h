/* HTTP client: one request, one response, signed or not; a connection for each, unless it may take one that was kept.
 */
#ifndef TD_NET_HTTP_CLIENT_H
#define TD_NET_HTTP_CLIENT_H
#include "lib/http.h"
#include "lib/sigv4.h"
#include "tunneld/net/http_kept.h"

struct td_http_client_opts {
	struct tnl_tls_ctx *tls; /* for https */
	const struct td_proxy *proxy;
	uint64_t timeout_ns;   /* whole exchange; 0: 30 s */
	size_t body_max;       /* 0: 1 MiB */
	const char *unix_path; /* not NULL: over this unix socket instead (plain) */
	/* Not NULL: connections may be taken from here, and are left here; all of one trust. Outlives the request. */
	struct td_http_kept *kept;
};
struct td_http_client_response {
	int err; /* 0: there is a status; else TNL_E… and why */
	const char *why;
	const struct tnl_http_head *head; /* NULL on err */
	int status;
	const uint8_t *body;
	size_t body_len;
};
struct td_http_client;
typedef void td_http_client_fn(void *ctx, const struct td_http_client_response *r); /* exactly once, unless cancelled */
/* headers: name, value pairs, n of them; Host, Content-Length, User-Agent ("tunneld/VERSION") and Connection are added.
 */
struct td_http_client *td_http_client_request(struct td_loop *l, const char *method, const char *url,
					      const char *const (*headers)[2], size_t n, const void *body, size_t len,
					      const struct td_http_client_opts *o, td_http_client_fn *fn, void *ctx);
void td_http_client_cancel(struct td_http_client *h);

/* The same, signed with SigV4 (X-Amz-Date, X-Amz-Security-Token and Authorization added). */
struct td_http_client *td_http_client_signed(struct td_loop *l, const char *method, const char *url,
					     const char *const (*headers)[2], size_t n, const void *body, size_t len,
					     const struct tnl_sigv4_keys *k, const char *region, const char *service,
					     const struct td_http_client_opts *o, td_http_client_fn *fn, void *ctx);

#endif
