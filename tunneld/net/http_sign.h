/* SigV4 headers for one request of ours, shared by the HTTP client and the WebSocket upgrade. */
#ifndef TD_NET_HTTP_SIGN_H
#define TD_NET_HTTP_SIGN_H
#include "lib/buf.h"
#include "lib/enc.h"
#include "lib/http.h"
#include "lib/sigv4.h"

struct td_http_signature {
	char date[TNL_AMZDATE_STR];
	struct tnl_buf authorization; /* NUL-terminated after success */
};
/* Signs host, x-amz-date, x-amz-security-token (when the keys have one) and the given headers.
 * 0 or an error; td_http_signature_fini in both cases. */
int td_http_sign(struct td_http_signature *out, const char *method, const struct tnl_url *u,
		 const char *const (*headers)[2], size_t n, const void *body, size_t len,
		 const struct tnl_sigv4_keys *k, const char *region, const char *service, uint64_t unix_s) TNL_MUST_USE;
void td_http_signature_fini(struct td_http_signature *s);

#endif
