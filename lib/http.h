/* HTTP/1.1 heads (RFC 9112), both directions: one strict parser, one writer.
 * Refused: obs-fold, bare LF, NUL and controls, white space before the colon,
 * absolute-form and authority-form targets, duplicate Content-Length, Host,
 * Authorization or X-Amz-*; in requests Transfer-Encoding.  Heads over 16 KiB. */
#ifndef TNL_HTTP_H
#define TNL_HTTP_H
#include "lib/buf.h"
#include <stdbool.h>
#include <stdint.h>

#define TNL_HTTP_HEAD_MAX (16u * 1024)
#define TNL_HTTP_MAX_HEADERS 96

struct tnl_http_header {
	const char *name, *value;
	size_t nlen, vlen;
};

struct tnl_http_head {
	bool request;
	const char *method; /* request */
	size_t method_len;
	const char *target; /* request: origin-form, "/path?query" */
	size_t target_len;
	int status; /* response */
	const char *reason;
	size_t reason_len;
	int minor; /* HTTP/1.minor */
	size_t nheaders;
	struct tnl_http_header headers[TNL_HTTP_MAX_HEADERS];
	int64_t content_length; /* -1: none */
	bool chunked;		/* response with Transfer-Encoding: chunked */
	bool keep_alive;
	const char *fault; /* on error: what is wrong, static text */
};
/* Parses one head at the start of p.  >0: bytes of the head (incl. the empty
 * line); TNL_EAGAIN: not whole yet; TNL_ESYNTAX, TNL_ETOOBIG, TNL_EVERSION.
 * Slices borrow from p. */
int tnl_http_parse(bool request, const uint8_t *p, size_t n, struct tnl_http_head *h) TNL_MUST_USE;
/* A head that comes in pieces is worth parsing when its first line is whole, when its end is there, when it is too long
 * and when something is in it that no head has: not with each piece.  All zero at its beginning; p is all of it that
 * has come. */
struct tnl_http_wait {
	size_t seen;
	bool line;
};
bool tnl_http_worth_parsing(struct tnl_http_wait *w, const uint8_t *p, size_t n);
/* Value of a header (name without regard to case) or NULL; *len may be NULL.
 * Values are slices, not NUL-terminated. */
const char *tnl_http_get(const struct tnl_http_head *h, const char *name, size_t *len);
/* Does a comma-separated header hold the token (case ignored)? */
bool tnl_http_has_token(const struct tnl_http_head *h, const char *name, const char *token);

/* Incremental body of a response: by length, chunked or until close. */
struct tnl_http_body {
	int mode;
	uint64_t left;
	int state;
	size_t line_len, extensions; /* of chunks, all together */
	bool done;
};
void tnl_http_body_init(struct tnl_http_body *b, const struct tnl_http_head *h, bool head_request);
/* Consumes input, appends decoded bytes to out (its max is the limit: TNL_ETOOBIG).
 * Returns bytes consumed or an error; b->done when complete. */
int tnl_http_body_feed(struct tnl_http_body *b, const uint8_t *p, size_t n, struct tnl_buf *out);
int tnl_http_body_eof(struct tnl_http_body *b); /* TNL_ETRUNC unless complete */

/* URL: scheme://host[:port]/path?query; userinfo only for proxies. */
struct tnl_url {
	char scheme[8];
	char host[256]; /* without brackets */
	uint16_t port;	/* filled in by scheme */
	bool port_given;
	bool ipv6;
	const char *path; /* slices of the input; "/" when empty */
	size_t path_len;
	const char *query;
	size_t query_len;
	char user[128], password[256];
};
int tnl_url_parse(const char *s, struct tnl_url *u, const char **fault) TNL_MUST_USE; /* TNL_ESYNTAX */
/* "host" or "host:port" as the Host header has it (brackets, default port left out). */
void tnl_url_authority(const struct tnl_url *u, char *out, size_t cap);

/* Sec-WebSocket-Accept for a key (RFC 6455 §4.2.2). */
void tnl_ws_accept_key(const char *key, size_t n, char out[29]);

#endif
