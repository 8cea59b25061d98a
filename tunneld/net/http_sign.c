#include "tunneld/net/http_sign.h"

#include <string.h>

#define MAX_SIGNED 32

static struct tnl_sigv4_header make_header(const char *name, const char *value)
{
	return (struct tnl_sigv4_header){.name = name, .value = value, .nlen = strlen(name), .vlen = strlen(value)};
}

int td_http_sign(struct td_http_signature *out, const char *method, const struct tnl_url *u,
		 const char *const (*headers)[2], size_t n, const void *body, size_t len,
		 const struct tnl_sigv4_keys *k, const char *region, const char *service, uint64_t unix_s)
{
	struct tnl_sigv4_header h[MAX_SIGNED];
	char host[300];
	size_t nh = 0;
	tnl_buf_init(&out->authorization, 8192);
	if (n > MAX_SIGNED - 3)
		return TNL_ELIMIT;
	tnl_url_authority(u, host, sizeof(host));
	tnl_amz_date(unix_s, out->date);
	h[nh++] = make_header("host", host);
	h[nh++] = make_header("x-amz-date", out->date);
	if (k->session_token && k->session_token[0])
		h[nh++] = make_header("x-amz-security-token", k->session_token);
	for (size_t i = 0; i < n; i++)
		h[nh++] = make_header(headers[i][0], headers[i][1]);
	struct tnl_sigv4_request r = {
	    .method = method,
	    .path = u->path,
	    .path_len = u->path_len,
	    .query = u->query,
	    .query_len = u->query_len,
	    .headers = h,
	    .nheaders = nh,
	    .body = body,
	    .body_len = len,
	    .double_encode_path = true,
	};
	int rc = tnl_sigv4_sign(&r, k, region, service, unix_s, &out->authorization);
	return rc ? rc : tnl_buf_str(&out->authorization) ? 0 : TNL_ENOMEM;
}

void td_http_signature_fini(struct td_http_signature *s)
{
	tnl_buf_fini_wiped(&s->authorization);
}
