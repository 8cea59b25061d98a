/* SOCKS5, SOCKS4a and HTTP CONNECT, read and answered.  Each message is collected byte by byte until it is whole; what
 * it says about its own length is looked at first, so that nothing behind it is taken. */
#include "lib/greeting.h"
#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/enc.h"
#include "lib/num.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { SOCKS5_METHODS, SOCKS5_PASSWORD, SOCKS5_REQUEST, DONE };
enum { METHOD_NONE = 0, METHOD_PASSWORD = 2, METHOD_REFUSED = 0xff };
enum { CMD_CONNECT = 1, ATYP_V4 = 1, ATYP_NAME = 3, ATYP_V6 = 4 };
enum { REP_COMMAND = 7, REP_ATYP = 8 };
enum { SOCKS4_GRANTED = 90, SOCKS4_REJECTED = 91, SOCKS4_USER = 93 };

void tnl_greeting_init(struct tnl_greeting *g, bool want_password)
{
	memset(g, 0, sizeof(*g));
	g->want_password = want_password;
	tnl_buf_init(&g->in, TNL_GREETING_MAX);
}

void tnl_greeting_fini(struct tnl_greeting *g)
{
	tnl_buf_fini_wiped(&g->in);
	tnl_wipe(g->password, sizeof(g->password));
}

size_t tnl_greeting_take(struct tnl_greeting *g, const uint8_t **p)
{
	size_t n = g->out_len;
	*p = g->out;
	g->out_len = 0;
	return n;
}

static void say(struct tnl_greeting *g, const void *p, size_t n)
{
	memcpy(g->out, p, n); /* one answer at a time */
	g->out_len = n;
}

static enum tnl_greeting_event over(struct tnl_greeting *g, const char *fault)
{
	g->step = DONE;
	g->answered = true;
	g->fault = fault;
	return TNL_GREETING_OVER;
}

static enum tnl_greeting_event ready(struct tnl_greeting *g)
{
	g->step = DONE;
	return TNL_GREETING_READY;
}

/* A name as a head takes it (lib/head.h); resolving it is the far end's. */
static bool take_host(struct tnl_greeting *g, const char *p, size_t n)
{
	if (n == 0 || n >= sizeof(g->host))
		return false;
	for (size_t i = 0; i < n; i++)
		if (p[i] <= ' ' || p[i] >= 0x7f || p[i] == '"' || p[i] == '\\')
			return false;
	memcpy(g->host, p, n);
	g->host[n] = '\0';
	return true;
}

/* --- SOCKS5 -------------------------------------------------------------------------- */

static enum tnl_greeting_event socks5_refuse(struct tnl_greeting *g, uint8_t rep, const char *fault)
{
	const uint8_t b[10] = {5, rep, 0, ATYP_V4};
	say(g, b, sizeof(b));
	return over(g, fault);
}

static enum tnl_greeting_event socks5_methods(struct tnl_greeting *g, const uint8_t *b)
{
	uint8_t want = g->want_password ? METHOD_PASSWORD : METHOD_NONE, b2[2] = {5, METHOD_REFUSED};
	if (memchr(b + 2, want, b[1]))
		b2[1] = want;
	say(g, b2, 2);
	if (b2[1] == METHOD_REFUSED)
		return over(g, g->want_password ? "it gives no password"
						: "it offers no method of authentication that is taken here");
	g->step = g->want_password ? SOCKS5_PASSWORD : SOCKS5_REQUEST;
	return TNL_GREETING_MORE;
}

static enum tnl_greeting_event socks5_password(struct tnl_greeting *g, const uint8_t *b)
{
	size_t user = b[1], password = b[2 + user];
	if (memchr(b + 2, 0, user) || memchr(b + 3 + user, 0, password)) /* strings they are not */
		user = password = 0;
	memcpy(g->user, b + 2, user);
	g->user[user] = '\0';
	memcpy(g->password, b + 3 + user, password);
	g->password[password] = '\0';
	return TNL_GREETING_PASSWORD;
}

static enum tnl_greeting_event socks5_request(struct tnl_greeting *g, const uint8_t *b)
{
	char text[INET6_ADDRSTRLEN];
	const uint8_t *port = b + 4 + (b[3] == ATYP_V4 ? 4 : b[3] == ATYP_V6 ? 16 : 1 + b[4]);
	bool ok;

	if (b[1] != CMD_CONNECT)
		return socks5_refuse(g, REP_COMMAND, "BIND and UDP ASSOCIATE are not served");
	if (b[3] == ATYP_NAME)
		ok = take_host(g, (const char *)b + 5, b[4]);
	else
		ok = inet_ntop(b[3] == ATYP_V4 ? AF_INET : AF_INET6, b + 4, text, sizeof(text)) &&
		     take_host(g, text, strlen(text));
	g->port = tnl_get_be16(port);
	if (!ok || !g->port)
		return socks5_refuse(g, REP_ATYP, "it names no host and port");
	return ready(g);
}

/* Bytes of the message, as far as those that are there say; 0: it is none. */
static size_t socks5_length(const struct tnl_greeting *g, const uint8_t *b, size_t n)
{
	if (g->step == SOCKS5_PASSWORD) {
		if (b[0] != 1)
			return 0;
		size_t user = n > 1 ? b[1] : 0;
		return n > 2 + user ? 3 + user + b[2 + user] : n + 1;
	}
	if (b[0] != 5)
		return 0;
	if (g->step == SOCKS5_METHODS)
		return n > 1 ? 2u + b[1] : 2;
	if (n < 5)
		return 5;
	switch (b[3]) {
	case ATYP_V4:
		return 10;
	case ATYP_V6:
		return 22;
	case ATYP_NAME:
		return 7u + b[4];
	default:
		return 0;
	}
}

static enum tnl_greeting_event socks5_message(struct tnl_greeting *g, const uint8_t *b)
{
	if (g->step == SOCKS5_METHODS)
		return socks5_methods(g, b);
	return g->step == SOCKS5_PASSWORD ? socks5_password(g, b) : socks5_request(g, b);
}

static enum tnl_greeting_event socks5_malformed(struct tnl_greeting *g)
{
	if (g->step == SOCKS5_REQUEST)
		return socks5_refuse(g, REP_ATYP, "a SOCKS5 request that is none");
	return over(g, "a SOCKS5 greeting that is none");
}

/* --- SOCKS4, 4a ------------------------------------------------------------------------ */

static size_t socks4_answer(uint8_t *out, uint8_t code)
{
	memset(out, 0, 8);
	out[1] = code;
	return 8;
}

static enum tnl_greeting_event socks4_refuse(struct tnl_greeting *g, uint8_t code, const char *fault)
{
	g->out_len = socks4_answer(g->out, code);
	return over(g, fault);
}

/* 0.0.0.x, x not 0: the name stands behind the user. */
static bool is_4a(const uint8_t *b)
{
	return !b[4] && !b[5] && !b[6] && b[7];
}

/* How many bytes it is, 0: that is not known yet. */
static size_t socks4_length(const uint8_t *b, size_t n)
{
	if (n < 9)
		return 0;
	const uint8_t *end = memchr(b + 8, 0, n - 8);
	if (end && is_4a(b))
		end = memchr(end + 1, 0, n - (size_t)(end + 1 - b));
	return end ? (size_t)(end + 1 - b) : 0;
}

static enum tnl_greeting_event socks4_request(struct tnl_greeting *g, const uint8_t *b)
{
	char text[INET_ADDRSTRLEN];
	const char *name = (const char *)b + 8 + strlen((const char *)b + 8) + 1;

	if (g->want_password)
		return socks4_refuse(g, SOCKS4_USER, "SOCKS4 has no password, which is required here");
	if (b[1] != CMD_CONNECT)
		return socks4_refuse(g, SOCKS4_REJECTED, "BIND is not served");
	if (!is_4a(b))
		name = inet_ntop(AF_INET, b + 4, text, sizeof(text));
	g->port = tnl_get_be16(b + 2);
	if (!name || !take_host(g, name, strlen(name)) || !g->port)
		return socks4_refuse(g, SOCKS4_REJECTED, "it names no host and port");
	return ready(g);
}

/* --- HTTP -------------------------------------------------------------------------------- */

static size_t http_answer(uint8_t *out, const char *status, const char *more, const char *text)
{
	int n = snprintf(
	    (char *)out, TNL_GREETING_OUT,
	    "HTTP/1.1 %s\r\n%sConnection: close\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n%s\n", status,
	    more, strlen(text) + 1, text);
	return TNL_MIN((size_t)n, (size_t)TNL_GREETING_OUT - 1);
}

static enum tnl_greeting_event http_refuse(struct tnl_greeting *g, const char *status, const char *more,
					   const char *text)
{
	g->out_len = http_answer(g->out, status, more, text);
	return over(g, text);
}

/* HOST:PORT or [IPV6]:PORT of n bytes. */
static bool take_authority(struct tnl_greeting *g, const char *s, size_t n)
{
	const char *colon = memrchr(s, ':', n);
	size_t host = colon ? (size_t)(colon - s) : 0;
	unsigned port = 0;
	bool brackets = host > 2 && s[0] == '[' && s[host - 1] == ']';

	if (!colon || n - host < 2 || n - host > 6 || (!brackets && memchr(s, ':', host)))
		return false;
	for (const char *p = colon + 1; p < s + n; p++) {
		if (*p < '0' || *p > '9')
			return false;
		port = port * 10 + (unsigned)(*p - '0');
	}
	g->port = (uint16_t)port;
	return port >= 1 && port <= 65535 && take_host(g, s + brackets, host - 2u * brackets);
}

/* "Basic BASE64", as in RFC 7617. */
static void take_basic(struct tnl_greeting *g, const char *value, size_t n)
{
	uint8_t text[512];
	if (n < 6 || strncasecmp(value, "Basic ", 6) != 0)
		return;
	int got = tnl_unb64(value + 6, n - 6, text, sizeof(text) - 1);
	const uint8_t *colon = got > 0 ? memchr(text, ':', (size_t)got) : NULL;
	size_t user = colon ? (size_t)(colon - text) : 0, password = colon ? (size_t)got - user - 1 : 0;
	if (colon && user < sizeof(g->user) && password < sizeof(g->password) && !memchr(text, 0, (size_t)got)) {
		memcpy(g->user, text, user);
		g->user[user] = '\0';
		memcpy(g->password, colon + 1, password);
		g->password[password] = '\0';
		g->admitted = true; /* what is left to be seen */
	}
	tnl_wipe(text, sizeof(text));
}

static bool is_name(const char *line, size_t n, const char *name)
{
	size_t len = strlen(name);
	return n > len && line[len] == ':' && strncasecmp(line, name, len) == 0;
}

/* One line of the head, without its end; false: it is none. */
static bool http_field(struct tnl_greeting *g, const char *line, size_t n)
{
	static const char name[] = "Proxy-Authorization";
	if (!memchr(line, ':', n) || line[0] == ' ' || line[0] == '\t' || memchr(line, '\r', n) || memchr(line, 0, n))
		return false;
	if (!is_name(line, n, name))
		return true;
	size_t skip = sizeof(name);
	while (skip < n && line[skip] == ' ')
		skip++;
	while (n > skip && line[n - 1] == ' ')
		n--;
	take_basic(g, line + skip, n - skip);
	return true;
}

/* The request line: CONNECT AUTHORITY HTTP/1.x */
static enum tnl_greeting_event http_request_line(struct tnl_greeting *g, const char *line, size_t n)
{
	const char *sp = memchr(line, ' ', n), *sp2 = memrchr(line, ' ', n);
	size_t tail = sp2 ? (size_t)(line + n - sp2) : 0;
	if (!sp || sp2 == sp || tail != 9 || memcmp(sp2, " HTTP/1.", 8) != 0)
		return http_refuse(g, "400 Bad Request", "", "this is no request of HTTP/1.1");
	if ((size_t)(sp - line) != 7 || memcmp(line, "CONNECT", 7) != 0)
		return http_refuse(g, "405 Method Not Allowed", "Allow: CONNECT\r\n",
				   "this proxy serves CONNECT only, no plain HTTP");
	if (!take_authority(g, sp + 1, (size_t)(sp2 - sp - 1)))
		return http_refuse(g, "400 Bad Request", "", "CONNECT names no host and port");
	return TNL_GREETING_MORE;
}

/* An empty line is its last. */
static bool http_ends(const uint8_t *b, size_t n)
{
	if (n < 3 || b[n - 1] != '\n')
		return false;
	return b[n - 2] == '\n' || (b[n - 2] == '\r' && b[n - 3] == '\n');
}

static enum tnl_greeting_event http_head(struct tnl_greeting *g, const char *b, size_t n)
{
	bool first = true;
	for (const char *end; n > 2; n -= (size_t)(end + 1 - b), b = end + 1, first = false) {
		end = memchr(b, '\n', n);
		size_t len = (size_t)(end - b);
		len -= len > 0 && b[len - 1] == '\r';
		enum tnl_greeting_event e = first ? http_request_line(g, b, len) : TNL_GREETING_MORE;
		if (e != TNL_GREETING_MORE)
			return e;
		if (!first && !http_field(g, b, len))
			return http_refuse(g, "400 Bad Request", "", "the head of the request is malformed");
	}
	if (g->want_password && !g->admitted)
		return http_refuse(g, "407 Proxy Authentication Required",
				   "Proxy-Authenticate: Basic realm=\"tunneld\"\r\n",
				   "a user and a password are required");
	return g->want_password ? TNL_GREETING_PASSWORD : ready(g);
}

/* --- all ------------------------------------------------------------------------------------ */

/* One byte more has come. */
static enum tnl_greeting_event look(struct tnl_greeting *g)
{
	const uint8_t *b = tnl_buf_data(&g->in);
	size_t n = tnl_buf_len(&g->in), all;
	enum tnl_greeting_event e = TNL_GREETING_MORE;

	switch (g->kind) {
	case TNL_GREETING_SOCKS5:
		all = socks5_length(g, b, n);
		if (!all)
			return socks5_malformed(g);
		if (n == all)
			e = socks5_message(g, b);
		break;
	case TNL_GREETING_SOCKS4:
		all = socks4_length(b, n);
		if (!all && n > 600)
			return socks4_refuse(g, SOCKS4_REJECTED, "a SOCKS4 request that does not end");
		if (all)
			e = socks4_request(g, b);
		break;
	default:
		all = http_ends(b, n) ? n : 0;
		if (all)
			e = http_head(g, (const char *)b, n);
	}
	if (all == n)
		tnl_buf_reset(&g->in);
	return e;
}

/* Methods are letters. */
static enum tnl_greeting_event set_kind(struct tnl_greeting *g, uint8_t first)
{
	g->kind = first == 5 ? TNL_GREETING_SOCKS5 : first == 4 ? TNL_GREETING_SOCKS4 : TNL_GREETING_HTTP;
	if (g->kind == TNL_GREETING_HTTP && (first < 'A' || first > 'Z'))
		return over(g, "neither SOCKS nor HTTP");
	return TNL_GREETING_MORE;
}

enum tnl_greeting_event tnl_greeting_feed(struct tnl_greeting *g, const uint8_t *p, size_t n, size_t *used)
{
	enum tnl_greeting_event e = g->step == DONE ? TNL_GREETING_OVER : TNL_GREETING_MORE;
	*used = 0;
	while (e == TNL_GREETING_MORE && *used < n && !g->out_len) {
		uint8_t c = p[(*used)++];
		if (!g->kind && (e = set_kind(g, c)) != TNL_GREETING_MORE)
			break;
		tnl_buf_put(&g->in, &c, 1);
		if (g->in.failed)
			return g->kind == TNL_GREETING_HTTP
				   ? http_refuse(g, "431 Request Header Fields Too Large", "", "the head is too long")
				   : over(g, "out of memory");
		e = look(g);
	}
	return e;
}

enum tnl_greeting_event tnl_greeting_admit(struct tnl_greeting *g, bool ok)
{
	tnl_wipe(g->password, sizeof(g->password));
	if (g->kind == TNL_GREETING_HTTP) {
		g->admitted = ok;
		return ok ? ready(g)
			  : http_refuse(g, "407 Proxy Authentication Required",
					"Proxy-Authenticate: Basic realm=\"tunneld\"\r\n", "wrong user or password");
	}
	const uint8_t b[2] = {1, !ok};
	say(g, b, 2);
	if (!ok)
		return over(g, "wrong user or password");
	g->admitted = true;
	g->step = SOCKS5_REQUEST;
	return TNL_GREETING_MORE;
}

/* ": WORDS", without what is none of a line of text. */
static void put_words(char *out, size_t cap, const char *words)
{
	int n = snprintf(out, cap, "%s%s", words[0] ? ": " : "", words);
	for (char *p = out; n > 0 && *p; p++)
		if (*p < ' ' || *p >= 0x7f)
			*p = '?';
}

static size_t http_failed(uint8_t *out, const char *status, const char *text, const char *words)
{
	char line[320];
	size_t n = (size_t)snprintf(line, sizeof(line), "%s", text);
	put_words(line + n, sizeof(line) - n, words);
	return http_answer(out, status, "", line);
}

size_t tnl_greeting_answer(struct tnl_greeting *g, enum tnl_greeting_result r, const char *words,
			   uint8_t out[TNL_GREETING_OUT])
{
	static const struct {
		uint8_t rep;
		const char *status, *text;
	} of[] = {
	    [TNL_GREETING_OK] = {0, NULL, NULL},
	    [TNL_GREETING_DENIED] = {2, "403 Forbidden", "this destination is not allowed"},
	    [TNL_GREETING_NO_WAY] = {3, "503 Service Unavailable", "there is no way to the target now"},
	    [TNL_GREETING_NET] = {3, "502 Bad Gateway", "the network of the destination cannot be reached"},
	    [TNL_GREETING_HOST] = {4, "502 Bad Gateway", "the destination cannot be reached"},
	    [TNL_GREETING_TIMEOUT] = {4, "504 Gateway Timeout", "the destination did not answer in time"},
	    [TNL_GREETING_REFUSED] = {5, "502 Bad Gateway", "could not connect to the destination"},
	    [TNL_GREETING_FAILED] = {1, "502 Bad Gateway", "the connection failed"},
	};
	static const char established[] = "HTTP/1.1 200 Connection established\r\n\r\n";
	const uint8_t socks5[10] = {5, of[r].rep, 0, ATYP_V4};

	if (g->answered || g->step != DONE)
		return 0;
	g->answered = true;
	if (g->kind == TNL_GREETING_SOCKS4)
		return socks4_answer(out, r == TNL_GREETING_OK ? SOCKS4_GRANTED : SOCKS4_REJECTED);
	if (g->kind == TNL_GREETING_SOCKS5) {
		memcpy(out, socks5, sizeof(socks5));
		return sizeof(socks5);
	}
	if (r != TNL_GREETING_OK)
		return http_failed(out, of[r].status, of[r].text, words);
	memcpy(out, established, sizeof(established) - 1);
	return sizeof(established) - 1;
}
