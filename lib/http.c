/* HTTP/1.1 heads, bodies and URLs. One strict parser for both directions: whatever two
 * implementations could understand in two ways is refused. */
#include "lib/http.h"
#include "lib/steps.h"
#include "lib/num.h"
#include "lib/crypto.h"
#include "lib/enc.h"
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* --- heads ----------------------------------------------------------------- */

static bool is_token(uint8_t c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       (c && strchr("!#$%&'*+-.^_`|~", c));
}

static char lower_char(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

static bool ieq_n(const char *a, size_t n, const char *b)
{
	for (size_t i = 0; i < n; i++)
		if (!b[i] || lower_char(a[i]) != lower_char(b[i]))
			return false;
	return !b[n];
}

static int bad_head(struct tnl_http_head *h, const char *fault)
{
	h->fault = fault;
	return TNL_ESYNTAX;
}

/* "HTTP/1.x": 0, or the error.  Sets minor. */
static int parse_version(struct tnl_http_head *h, const char *s, size_t n)
{
	if (n != 8 || memcmp(s, "HTTP/", 5) != 0 || s[5] < '0' || s[5] > '9' || s[6] != '.' || s[7] < '0' || s[7] > '9')
		return bad_head(h, "HTTP version");
	if (s[5] != '1' || s[7] > '1') {
		h->fault = "HTTP version";
		return TNL_EVERSION;
	}
	h->minor = s[7] - '0';
	return 0;
}

static int request_line(struct tnl_http_head *h, const char *s, size_t n)
{
	const char *end = s + n, *p = s;

	while (p < end && is_token((uint8_t)*p))
		p++;
	h->method = s;
	h->method_len = (size_t)(p - s);
	if (!h->method_len || p == end || *p++ != ' ')
		return bad_head(h, "method");
	h->target = p;
	while (p < end && (uint8_t)*p > 0x20 && (uint8_t)*p < 0x7f && *p != '#')
		p++;
	h->target_len = (size_t)(p - h->target);
	/* Origin form only: no proxying here, and a host in two places is one too many. */
	if (!h->target_len || h->target[0] != '/' || p == end || *p++ != ' ')
		return bad_head(h, "request target");
	return parse_version(h, p, (size_t)(end - p));
}

static int status_line(struct tnl_http_head *h, const char *s, size_t n)
{
	if (n < 12)
		return bad_head(h, "status line");
	int rc = parse_version(h, s, 8);
	if (rc)
		return rc;
	for (int i = 9; i < 12; i++) {
		if (s[i] < '0' || s[i] > '9')
			return bad_head(h, "status");
		h->status = h->status * 10 + (s[i] - '0');
	}
	if (s[8] != ' ' || h->status < 100 || h->status > 599 || (n > 12 && s[12] != ' '))
		return bad_head(h, "status line");
	h->reason = n > 13 ? s + 13 : "";
	h->reason_len = n > 13 ? n - 13 : 0;
	return 0;
}

static bool is_single(const char *name, size_t n)
{
	return ieq_n(name, n, "content-length") || ieq_n(name, n, "host") || ieq_n(name, n, "authorization") ||
	       ieq_n(name, n, "transfer-encoding") || (n >= 6 && ieq_n(name, 6, "x-amz-"));
}

static int content_length(struct tnl_http_head *h, const char *s, size_t n)
{
	int64_t v = 0;

	if (!n || n > 18)
		return bad_head(h, "Content-Length");
	for (size_t i = 0; i < n; i++) {
		if (s[i] < '0' || s[i] > '9')
			return bad_head(h, "Content-Length");
		v = v * 10 + (s[i] - '0');
	}
	h->content_length = v;
	return 0;
}

static int header_line(struct tnl_http_head *h, const char *s, size_t n)
{
	const char *end = s + n, *p = s;

	if (*s == ' ' || *s == '\t')
		return bad_head(h, "folded header");
	while (p < end && is_token((uint8_t)*p))
		p++;
	size_t nlen = (size_t)(p - s);
	if (!nlen || p == end || *p++ != ':')
		return bad_head(h, "header name");
	while (p < end && (*p == ' ' || *p == '\t'))
		p++;
	while (end > p && (end[-1] == ' ' || end[-1] == '\t'))
		end--;
	if (is_single(s, nlen))
		for (size_t i = 0; i < h->nheaders; i++)
			if (h->headers[i].nlen == nlen && strncasecmp(h->headers[i].name, s, nlen) == 0)
				return bad_head(h, "duplicate header");
	if (h->nheaders == TNL_HTTP_MAX_HEADERS) {
		h->fault = "too many headers";
		return TNL_ETOOBIG;
	}
	h->headers[h->nheaders++] = (struct tnl_http_header){s, p, nlen, (size_t)(end - p)};
	if (ieq_n(s, nlen, "content-length"))
		return content_length(h, p, (size_t)(end - p));
	if (ieq_n(s, nlen, "transfer-encoding")) {
		if (h->request || !h->minor || !ieq_n(p, (size_t)(end - p), "chunked"))
			return bad_head(h, "Transfer-Encoding");
		h->chunked = true;
	}
	return 0;
}

/* What can only be judged with the whole head at hand. */
static int finish_head(struct tnl_http_head *h)
{
	if (h->chunked && h->content_length >= 0)
		return bad_head(h, "Transfer-Encoding with Content-Length");
	if (h->request && h->minor && !tnl_http_get(h, "host", NULL))
		return bad_head(h, "missing Host");
	h->keep_alive = h->minor ? !tnl_http_has_token(h, "connection", "close")
				 : tnl_http_has_token(h, "connection", "keep-alive");
	return 0;
}

/* End of the line at p (where CR stands), NULL when it is not whole yet; *rc on a forbidden byte. */
static const char *line_end(struct tnl_http_head *h, const char *p, const char *end, int *rc)
{
	for (; p < end; p++) {
		uint8_t c = (uint8_t)*p;
		if (c == '\r') {
			if (p + 1 == end)
				return NULL;
			if (p[1] == '\n')
				return p;
			*rc = bad_head(h, "CR without LF");
			return NULL;
		}
		if (c == '\n' || (c < 0x20 && c != '\t') || c == 0x7f) {
			*rc = bad_head(h, c == '\n' ? "LF without CR" : "control character");
			return NULL;
		}
	}
	return NULL;
}

int tnl_http_parse(bool request, const uint8_t *bytes, size_t n, struct tnl_http_head *h)
{
	const char *start = (const char *)bytes, *p = start;
	const char *end = start + TNL_MIN(n, TNL_HTTP_HEAD_MAX);
	int rc = 0;

	/* The header table is not cleared: nheaders says what of it counts. */
	memset(h, 0, offsetof(struct tnl_http_head, headers));
	h->request = request;
	h->content_length = -1;
	h->chunked = h->keep_alive = false;
	h->fault = NULL;
	for (;;) {
		const char *eol = line_end(h, p, end, &rc);
		if (!eol)
			break;
		size_t len = (size_t)(eol - p);
		if (p == start)
			rc = request ? request_line(h, p, len) : status_line(h, p, len);
		else if (len)
			rc = header_line(h, p, len);
		else
			rc = finish_head(h);
		if (rc)
			return rc;
		bool empty = !len;
		tnl_steps_made += len + 2;
		p = eol + 2;
		if (empty)
			return (int)(p - start);
	}
	if (!rc && n >= TNL_HTTP_HEAD_MAX) {
		h->fault = "head too long";
		return TNL_ETOOBIG;
	}
	return rc ? rc : TNL_EAGAIN;
}

/* Is the line that ends at p[i] empty? */
static bool ends_empty_line(const uint8_t *p, size_t i)
{
	if (i && p[i - 1] == '\r')
		i--;
	return i && p[i - 1] == '\n';
}

bool tnl_http_worth_parsing(struct tnl_http_wait *w, const uint8_t *p, size_t n)
{
	bool worth = n >= TNL_HTTP_HEAD_MAX;
	for (; w->seen < n; w->seen++) {
		tnl_step();
		uint8_t c = p[w->seen];
		if (c >= ' ' || c == '\r' || c == '\t')
			continue;
		worth |= c != '\n' || !w->line || ends_empty_line(p, w->seen);
		w->line |= c == '\n';
	}
	return worth;
}

const char *tnl_http_get(const struct tnl_http_head *h, const char *name, size_t *len)
{
	for (size_t i = 0; i < h->nheaders; i++)
		if (ieq_n(h->headers[i].name, h->headers[i].nlen, name)) {
			if (len)
				*len = h->headers[i].vlen;
			return h->headers[i].value;
		}
	if (len)
		*len = 0;
	return NULL;
}

static bool list_has(const char *p, size_t n, const char *token)
{
	const char *end = p + n;

	while (p < end) {
		const char *comma = memchr(p, ',', (size_t)(end - p)), *stop = comma ? comma : end, *next = stop;
		while (p < stop && (*p == ' ' || *p == '\t'))
			p++;
		while (stop > p && (stop[-1] == ' ' || stop[-1] == '\t'))
			stop--;
		if (ieq_n(p, (size_t)(stop - p), token))
			return true;
		p = next + 1;
	}
	return false;
}

bool tnl_http_has_token(const struct tnl_http_head *h, const char *name, const char *token)
{
	for (size_t i = 0; i < h->nheaders; i++)
		if (ieq_n(h->headers[i].name, h->headers[i].nlen, name) &&
		    list_has(h->headers[i].value, h->headers[i].vlen, token))
			return true;
	return false;
}

/* --- bodies ---------------------------------------------------------------- */

enum { BODY_NONE, BODY_LENGTH, BODY_CHUNKED, BODY_EOF };
enum { CH_SIZE, CH_EXT, CH_SIZE_LF, CH_DATA, CH_DATA_CR, CH_DATA_LF, CH_TRAILER, CH_TRAILER_LF };

#define TRAILER_MAX 4096u

void tnl_http_body_init(struct tnl_http_body *b, const struct tnl_http_head *h, bool head_request)
{
	memset(b, 0, sizeof(*b));
	b->mode = BODY_EOF;
	if (head_request || (!h->request && (h->status < 200 || h->status == 204 || h->status == 304)))
		b->mode = BODY_NONE;
	else if (h->chunked)
		b->mode = BODY_CHUNKED;
	else if (h->content_length >= 0)
		b->mode = BODY_LENGTH;
	else if (h->request)
		b->mode = BODY_NONE;
	if (b->mode == BODY_LENGTH)
		b->left = (uint64_t)h->content_length;
	b->done = b->mode == BODY_NONE || (b->mode == BODY_LENGTH && !b->left);
}

static int take_body(struct tnl_http_body *b, const uint8_t *p, size_t n, struct tnl_buf *out)
{
	size_t k = b->mode == BODY_EOF || n < b->left ? n : (size_t)b->left;

	if (tnl_buf_put(out, p, k))
		return k > tnl_buf_room(out) ? TNL_ETOOBIG : TNL_ENOMEM;
	if (b->mode != BODY_EOF)
		b->left -= k;
	return (int)k;
}

static int chunk_size_digit(struct tnl_http_body *b, uint8_t c)
{
	uint8_t v;
	char pair[2] = {'0', (char)c};

	if (c == '\r' || c == ';' || c == ' ' || c == '\t') {
		if (!b->line_len)
			return TNL_ESYNTAX;
		b->state = c == '\r' ? CH_SIZE_LF : CH_EXT;
		return 0;
	}
	if (tnl_unhex(pair, 2, &v) || ++b->line_len > 15)
		return TNL_ESYNTAX;
	b->left = b->left << 4 | v;
	return 0;
}

/* One byte of what stands around the data of chunks. */
static int chunk_byte(struct tnl_http_body *b, uint8_t c)
{
	if (c != '\r' && c != '\n' && c != '\t' && (c < 0x20 || c == 0x7f))
		return TNL_ESYNTAX;
	switch (b->state) {
	case CH_SIZE:
		return chunk_size_digit(b, c);
	case CH_EXT: /* extensions mean nothing to us */
		if (c == '\n' || ++b->extensions > TRAILER_MAX)
			return TNL_ESYNTAX;
		if (c == '\r')
			b->state = CH_SIZE_LF;
		return 0;
	case CH_SIZE_LF:
		b->state = b->left ? CH_DATA : CH_TRAILER;
		b->line_len = 0;
		return c == '\n' ? 0 : TNL_ESYNTAX;
	case CH_DATA_CR:
		b->state = CH_DATA_LF;
		return c == '\r' ? 0 : TNL_ESYNTAX;
	case CH_DATA_LF:
		b->state = CH_SIZE;
		return c == '\n' ? 0 : TNL_ESYNTAX;
	case CH_TRAILER: /* `left` counts all trailers, line_len the current line */
		if (c == '\r') {
			b->state = CH_TRAILER_LF;
			return 0;
		}
		b->line_len++;
		return c == '\n' || ++b->left > TRAILER_MAX ? TNL_ESYNTAX : 0;
	default: /* CH_TRAILER_LF */
		if (!b->line_len)
			b->done = true;
		b->line_len = 0;
		b->state = CH_TRAILER;
		return c == '\n' ? 0 : TNL_ESYNTAX;
	}
}

int tnl_http_body_feed(struct tnl_http_body *b, const uint8_t *p, size_t n, struct tnl_buf *out)
{
	size_t used = 0;

	n = TNL_MIN(n, (size_t)INT32_MAX);
	while (used < n && !b->done) {
		if (b->mode == BODY_CHUNKED && b->state != CH_DATA) {
			int rc = chunk_byte(b, p[used]);
			if (rc) {
				b->done = false;
				return rc;
			}
			used++;
			continue;
		}
		int k = take_body(b, p + used, n - used, out);
		if (k < 0)
			return k;
		used += (size_t)k;
		if (b->mode == BODY_CHUNKED && !b->left)
			b->state = CH_DATA_CR;
		else if (b->mode == BODY_LENGTH && !b->left)
			b->done = true;
	}
	return (int)used;
}

int tnl_http_body_eof(struct tnl_http_body *b)
{
	if (b->mode == BODY_EOF)
		b->done = true;
	return b->done ? 0 : TNL_ETRUNC;
}

/* --- URLs ------------------------------------------------------------------ */

static int url_bad(const char **fault, const char *what)
{
	if (fault)
		*fault = what;
	return TNL_ESYNTAX;
}

static int unescape_userinfo(const char *s, size_t n, char *out, size_t cap)
{
	struct tnl_buf b;

	tnl_buf_init(&b, cap - 1);
	int rc = tnl_uri_decode(&b, s, n);
	if (!rc && memchr(tnl_buf_data(&b), 0, tnl_buf_len(&b)))
		rc = TNL_ESYNTAX;
	if (!rc) {
		memcpy(out, tnl_buf_data(&b), tnl_buf_len(&b));
		out[tnl_buf_len(&b)] = '\0';
	}
	tnl_buf_fini_wiped(&b);
	return rc;
}

static int url_userinfo(const char *s, size_t n, struct tnl_url *u)
{
	const char *colon = memchr(s, ':', n);
	size_t ulen = colon ? (size_t)(colon - s) : n;

	if (unescape_userinfo(s, ulen, u->user, sizeof(u->user)))
		return TNL_ESYNTAX;
	return colon ? unescape_userinfo(colon + 1, n - ulen - 1, u->password, sizeof(u->password)) : 0;
}

static int url_host(const char **p, const char *end, struct tnl_url *u)
{
	const char *s = *p, *stop = s;

	u->ipv6 = s < end && *s == '[';
	if (u->ipv6) {
		s++;
		stop = memchr(s, ']', (size_t)(end - s));
		if (!stop)
			return TNL_ESYNTAX;
	} else {
		while (stop < end && *stop != ':')
			stop++;
	}
	size_t n = (size_t)(stop - s);
	if (!n || n >= sizeof(u->host))
		return TNL_ESYNTAX;
	for (size_t i = 0; i < n; i++) {
		char c = lower_char(s[i]);
		bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
		bool name = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
		if (u->ipv6 ? !hex && c != ':' && c != '.' : !name)
			return TNL_ESYNTAX;
		u->host[i] = c;
	}
	u->host[n] = '\0';
	*p = stop + u->ipv6;
	return 0;
}

static int url_port(const char *s, const char *end, struct tnl_url *u)
{
	uint32_t v = 0;

	u->port = strcmp(u->scheme, "https") == 0 || strcmp(u->scheme, "wss") == 0 ? 443 : 80;
	if (s == end)
		return 0;
	if (*s++ != ':' || s == end || end - s > 5)
		return TNL_ESYNTAX;
	for (; s < end; s++) {
		if (*s < '0' || *s > '9')
			return TNL_ESYNTAX;
		v = v * 10 + (uint32_t)(*s - '0');
	}
	if (!v || v > 65535)
		return TNL_ESYNTAX;
	u->port = (uint16_t)v;
	u->port_given = true;
	return 0;
}

int tnl_url_parse(const char *s, struct tnl_url *u, const char **fault)
{
	static const char *const schemes[] = {"http", "https", "ws", "wss"};
	const char *sep = strstr(s, "://");

	memset(u, 0, sizeof(*u));
	for (size_t i = 0; sep && i < 4; i++)
		if (ieq_n(s, (size_t)(sep - s), schemes[i]))
			strcpy(u->scheme, schemes[i]);
	if (!u->scheme[0])
		return url_bad(fault, "scheme: http, https, ws or wss is required");
	const char *p = sep + 3;
	for (const char *c = p; *c; c++)
		if ((uint8_t)*c <= 0x20 || (uint8_t)*c >= 0x7f || *c == '#' || *c == '\\')
			return url_bad(fault, "character that no URL may hold here");
	const char *end = p + strcspn(p, "/?");
	const char *at = NULL;
	for (const char *c = p; c < end; c++)
		if (*c == '@')
			at = c;
	if (at && url_userinfo(p, (size_t)(at - p), u))
		return url_bad(fault, "user information");
	p = at ? at + 1 : p;
	if (url_host(&p, end, u))
		return url_bad(fault, "host");
	if (url_port(p, end, u))
		return url_bad(fault, "port");
	size_t plen = strcspn(end, "?");
	u->path = *end == '/' ? end : "/";
	u->path_len = *end == '/' ? plen : 1;
	u->query = end[plen] == '?' ? end + plen + 1 : "";
	u->query_len = strlen(u->query);
	return 0;
}

void tnl_url_authority(const struct tnl_url *u, char *out, size_t cap)
{
	bool tls = strcmp(u->scheme, "https") == 0 || strcmp(u->scheme, "wss") == 0;
	const char *l = u->ipv6 ? "[" : "", *r = u->ipv6 ? "]" : "";

	if (u->port == (tls ? 443 : 80))
		snprintf(out, cap, "%s%s%s", l, u->host, r);
	else
		snprintf(out, cap, "%s%s%s:%u", l, u->host, r, u->port);
}

void tnl_ws_accept_key(const char *key, size_t n, char out[29])
{
	static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
	char text[128];
	uint8_t sum[20];

	out[0] = '\0';
	if (n > sizeof(text) - sizeof(guid))
		return;
	memcpy(text, key, n);
	memcpy(text + n, guid, sizeof(guid) - 1);
	tnl_sha1(text, n + sizeof(guid) - 1, sum);
	tnl_b64(sum, sizeof(sum), out);
}
