/* AWS Signature Version 4: sign (headers) and verify (headers or query). */
#ifndef TNL_SIGV4_H
#define TNL_SIGV4_H
#include "lib/buf.h"
#include <stdbool.h>
#include <stdint.h>

struct tnl_sigv4_header {
	const char *name, *value;
	size_t nlen, vlen;
};

struct tnl_sigv4_request {
	const char *method; /* "POST" */
	const char *path;
	size_t path_len; /* as sent on the wire, already URI-encoded once */
	const char *query;
	size_t query_len; /* without '?', as sent */
	const struct tnl_sigv4_header *headers;
	size_t nheaders; /* those to sign; must hold Host */
	const void *body;
	size_t body_len;
	bool double_encode_path; /* true for every AWS service but S3: encode once more */
	bool normalize_path;	 /* resolve . and .. and // (the suite has both) */
};

struct tnl_sigv4_keys {
	const char *access_key_id, *secret_access_key, *session_token; /* token may be NULL */
};

/* Canonical request and string to sign, for the vectors. */
int tnl_sigv4_canonical(const struct tnl_sigv4_request *r, struct tnl_buf *out, struct tnl_buf *signed_headers);
/* Values for the Authorization header (and, from the same call, X-Amz-Date text).
 * X-Amz-Date (and X-Amz-Security-Token when there is one) must already stand
 * among r->headers. Appends "AWS4-HMAC-SHA256 Credential=…, SignedHeaders=…, Signature=…". */
int tnl_sigv4_sign(const struct tnl_sigv4_request *r, const struct tnl_sigv4_keys *k, const char *region,
		   const char *service, uint64_t unix_s, struct tnl_buf *authorization) TNL_MUST_USE;

/* --- verification -------------------------------------------------------- */
struct tnl_sigv4_claim { /* parsed from Authorization or the query, nothing verified yet */
	char access_key_id[129];
	char date[9]; /* scope date */
	char region[65], service[33];
	char signed_headers[2049];
	uint8_t signature[32];
	uint64_t unix_s;    /* X-Amz-Date (or Date) */
	unsigned expires_s; /* pre-signed only, else 0 */
	bool presigned;
};
struct tnl_http_head;
/* Finds the claim in a request head.  TNL_ENOTFOUND: unsigned. TNL_ESYNTAX: malformed, *fault says which part. */
int tnl_sigv4_claim_parse(const struct tnl_http_head *h, struct tnl_sigv4_claim *c, const char **fault) TNL_MUST_USE;
/* Checks the claim against the request with the key.  The signature must cover
 * host and every x-amz-* header present, and the hash of the real body; scope
 * date must equal the date of X-Amz-Date; skew at most 900 s (expiry instead when
 * pre-signed).  The Host header is taken as signed.  `secret` NULL (unknown key)
 * runs the same HMACs and fails.  Constant-time comparison.
 * 0, TNL_EAUTH (*fault: "signature", "signed headers", "service", "region", …), TNL_EEXPIRED ("clock"). */
int tnl_sigv4_verify(const struct tnl_http_head *h, const void *body, size_t body_len, const struct tnl_sigv4_claim *c,
		     const char *secret, const char *want_region /* NULL: any */, const char *want_service,
		     uint64_t now_unix_s, const char **fault) TNL_MUST_USE;

/* "Sun, 06 Nov 1994 08:49:37 GMT", as Date headers have it. */
int tnl_http_date_parse(const char *s, size_t n, uint64_t *unix_s) TNL_MUST_USE;

#endif
