#include "tests/unit/check.h"
#include "lib/alloc.h"
#include "lib/num.h"
#include "lib/http.h"

#define REQ "GET /v1/data-channel/a@b.c?role=publish_subscribe HTTP/1.1\r\n"
#define HOST "Host: gw:8443\r\n"

static struct tnl_http_head head;

static int parse(bool request, const char *s, size_t n)
{
	uint8_t *p = exact_copy(s, n);
	int rc = tnl_http_parse(request, p, n, &head);
	free(p);
	return rc;
}

static const char *value(const char *name)
{
	static char out[256];
	size_t n;
	const char *v = tnl_http_get(&head, name, &n);

	if (!v)
		return "(none)";
	snprintf(out, sizeof(out), "%.*s", (int)n, v);
	return out;
}

static void a_request(void **state)
{
	static const char s[] = REQ HOST "X-Empty:\r\nCONNECTION: keep-alive,  Upgrade\r\nContent-Length:  12 \t\r\n"
					 "Multi: a\r\nmulti: b\r\n\r\nbody";
	assert_int_equal(tnl_http_parse(true, (const uint8_t *)s, sizeof(s) - 1, &head), sizeof(s) - 5);
	assert_true(head.request);
	assert_int_equal(head.method_len, 3);
	assert_memory_equal(head.target, "/v1/data-channel/a@b.c?role=publish_subscribe", head.target_len);
	assert_int_equal(head.content_length, 12);
	assert_int_equal(head.nheaders, 6);
	assert_string_equal(value("host"), "gw:8443");
	assert_string_equal(value("x-empty"), "");
	assert_string_equal(value("multi"), "a");
	assert_string_equal(value("hos"), "(none)");
	assert_true(tnl_http_has_token(&head, "Connection", "upgrade"));
	assert_false(tnl_http_has_token(&head, "Connection", "upgrad"));
	assert_true(tnl_http_has_token(&head, "MULTI", "b"));
	assert_true(head.keep_alive);
}

static void a_response(void **state)
{
	static const char s[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
	assert_int_equal(tnl_http_parse(false, (const uint8_t *)s, sizeof(s) - 1, &head), sizeof(s) - 1);
	assert_int_equal(head.status, 101);
	assert_int_equal(head.reason_len, 19);
	static const char *const ok[] = {"HTTP/1.1 200\r\n\r\n", "HTTP/1.0 200 \r\n\r\n"};
	for (size_t i = 0; i < 2; i++)
		assert_int_equal(parse(false, ok[i], strlen(ok[i])), strlen(ok[i]));
	assert_false(head.keep_alive);
	static const char chunked[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nConnection: close\r\n\r\n";
	assert_int_equal(parse(false, chunked, sizeof(chunked) - 1), sizeof(chunked) - 1);
	assert_true(head.chunked);
	assert_false(head.keep_alive);
}

/* Whatever has arrived so far: "not whole yet", never an error, never an early end. */
static void every_split_point(void **state)
{
	static const char req[] = REQ HOST "Authorization: AWS4-HMAC-SHA256 x\r\nX-Amz-Date: 1\r\n\r\n";
	static const char resp[] = "HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\n";

	for (size_t n = 0; n < sizeof(req) - 1; n++)
		assert_int_equal(parse(true, req, n), TNL_EAGAIN);
	assert_int_equal(parse(true, req, sizeof(req) - 1), sizeof(req) - 1);
	for (size_t n = 0; n < sizeof(resp) - 1; n++)
		assert_int_equal(parse(false, resp, n), TNL_EAGAIN);
	assert_int_equal(parse(false, resp, sizeof(resp) - 1), sizeof(resp) - 1);
}

struct refusal {
	const char *text, *fault;
	int rc;
};

static void refused_requests(void **state)
{
	static const struct refusal bad[] = {
	    {"\r\n\r\n", "method", TNL_ESYNTAX},
	    {" GET / HTTP/1.1\r\n", "method", TNL_ESYNTAX},
	    {"G(T / HTTP/1.1\r\n", "method", TNL_ESYNTAX},
	    {"GET\r\n", "method", TNL_ESYNTAX},
	    {"GET  / HTTP/1.1\r\n", "request target", TNL_ESYNTAX},
	    {"GET http://gw/ HTTP/1.1\r\n", "request target", TNL_ESYNTAX},
	    {"CONNECT gw:443 HTTP/1.1\r\n", "request target", TNL_ESYNTAX},
	    {"OPTIONS * HTTP/1.1\r\n", "request target", TNL_ESYNTAX},
	    {"GET /a#b HTTP/1.1\r\n", "request target", TNL_ESYNTAX},
	    {"GET /\xc3\xa4 HTTP/1.1\r\n", "request target", TNL_ESYNTAX},
	    {"GET /\r\n", "request target", TNL_ESYNTAX},
	    {"GET / HTTP/1.1 \r\n", "HTTP version", TNL_ESYNTAX},
	    {"GET / http/1.1\r\n", "HTTP version", TNL_ESYNTAX},
	    {"GET / HTTP/2.0\r\n", "HTTP version", TNL_EVERSION},
	    {"GET / HTTP/1.2\r\n", "HTTP version", TNL_EVERSION},
	    {"GET / HTTP/1.1\n", "LF without CR", TNL_ESYNTAX},
	    {"GET / HTTP/1.1\r\r\n", "CR without LF", TNL_ESYNTAX},
	    {"GET /\x01", "control character", TNL_ESYNTAX},
	    {REQ "\r\n", "missing Host", TNL_ESYNTAX},
	    {REQ HOST HOST, "duplicate header", TNL_ESYNTAX},
	    {REQ "Authorization: a\r\nauthorization: a\r\n", "duplicate header", TNL_ESYNTAX},
	    {REQ "X-Amz-Date: a\r\nx-amz-date: b\r\n", "duplicate header", TNL_ESYNTAX},
	    {REQ "Content-Length: 1\r\nContent-Length: 1\r\n", "duplicate header", TNL_ESYNTAX},
	    {REQ "Content-Length: 1, 1\r\n", "Content-Length", TNL_ESYNTAX},
	    {REQ "Content-Length: +1\r\n", "Content-Length", TNL_ESYNTAX},
	    {REQ "Content-Length: -1\r\n", "Content-Length", TNL_ESYNTAX},
	    {REQ "Content-Length:\r\n", "Content-Length", TNL_ESYNTAX},
	    {REQ "Content-Length: 9999999999999999999\r\n", "Content-Length", TNL_ESYNTAX},
	    {REQ "Transfer-Encoding: chunked\r\n", "Transfer-Encoding", TNL_ESYNTAX},
	    {REQ "A : b\r\n", "header name", TNL_ESYNTAX},
	    {REQ ": b\r\n", "header name", TNL_ESYNTAX},
	    {REQ "A b\r\n", "header name", TNL_ESYNTAX},
	    {REQ "A\xc3: b\r\n", "header name", TNL_ESYNTAX},
	    {REQ HOST " folded\r\n", "folded header", TNL_ESYNTAX},
	    {REQ HOST "\tfolded\r\n", "folded header", TNL_ESYNTAX},
	    {REQ "A: b\x7f", "control character", TNL_ESYNTAX},
	    {REQ "A: b\n", "LF without CR", TNL_ESYNTAX},
	    {REQ "A: b\rC: d\r\n", "CR without LF", TNL_ESYNTAX},
	};

	for (size_t i = 0; i < TNL_COUNT(bad); i++) {
		int rc = parse(true, bad[i].text, strlen(bad[i].text));
		if (rc != bad[i].rc || !head.fault || strcmp(head.fault, bad[i].fault) != 0)
			fail_msg("%s: %d %s", bad[i].text, rc, head.fault ? head.fault : "-");
	}
	static const char nul[] = REQ "A: b\0c\r\n\r\n";
	assert_int_equal(parse(true, nul, sizeof(nul) - 1), TNL_ESYNTAX);
}

static void refused_responses(void **state)
{
	static const char *const bad[] = {
	    "HTTP/1.1 20 OK\r\n\r\n",
	    "HTTP/1.1 2000\r\n\r\n",
	    "HTTP/1.1  200\r\n\r\n",
	    "HTTP/1.1 600 x\r\n\r\n",
	    "HTTP/1.1 099 x\r\n\r\n",
	    "HTTP/1.1\r\n\r\n",
	    "ICY 200 OK\r\n\r\n",
	    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
	    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
	    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
	    "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
	};
	for (size_t i = 0; i < TNL_COUNT(bad); i++)
		if (parse(false, bad[i], strlen(bad[i])) != TNL_ESYNTAX)
			fail_msg("accepted: %s", bad[i]);
}

static void limits(void **state)
{
	static char s[TNL_HTTP_HEAD_MAX + 100];
	size_t n = (size_t)sprintf(s, REQ HOST "A: ");

	memset(s + n, 'x', sizeof(s) - n);
	assert_int_equal(parse(true, s, TNL_HTTP_HEAD_MAX - 1), TNL_EAGAIN);
	assert_int_equal(parse(true, s, TNL_HTTP_HEAD_MAX), TNL_ETOOBIG);
	memcpy(s + TNL_HTTP_HEAD_MAX - 4, "\r\n\r\n", 4);
	assert_int_equal(parse(true, s, sizeof(s)), TNL_HTTP_HEAD_MAX);
	n = (size_t)sprintf(s, REQ HOST);
	for (int i = 1; i < TNL_HTTP_MAX_HEADERS; i++)
		n += (size_t)sprintf(s + n, "A: b\r\n");
	assert_int_equal(parse(true, s, n), TNL_EAGAIN);
	n += (size_t)sprintf(s + n, "A: b\r\n");
	assert_int_equal(parse(true, s, n), TNL_ETOOBIG);
}

static void body_case(const char *headers, const char *body, const char *want, int eof_rc)
{
	char text[256];
	snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\n%s\r\n", headers);
	assert_true(tnl_http_parse(false, (const uint8_t *)text, strlen(text), &head) > 0);
	size_t n = strlen(body);
	for (size_t cut = 0; cut <= n; cut++) {
		struct tnl_http_body b;
		struct tnl_buf out;
		tnl_buf_init(&out, 1000);
		tnl_http_body_init(&b, &head, false);
		int used = tnl_http_body_feed(&b, (const uint8_t *)body, cut, &out);
		assert_true(used >= 0);
		if ((size_t)used == cut)
			used += tnl_http_body_feed(&b, (const uint8_t *)body + cut, n - cut, &out);
		assert_int_equal(tnl_http_body_eof(&b), eof_rc);
		assert_string_equal(tnl_buf_str(&out), want);
		if (!eof_rc && strcmp(headers, "") != 0) /* nothing of the next message was taken */
			assert_int_equal((size_t)used, n - (strstr(body, "NEXT") ? 4 : 0));
		tnl_buf_fini(&out);
	}
}

static void bodies_at_every_split(void **state)
{
	body_case("Content-Length: 5\r\n", "helloNEXT", "hello", 0);
	body_case("Content-Length: 0\r\n", "NEXT", "", 0);
	body_case("Content-Length: 6\r\n", "hello", "hello", TNL_ETRUNC);
	body_case("", "until the end", "until the end", 0);
	body_case("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n1;x=\"y\"\r\n!\r\n00\r\nT: v\r\n\r\nNEXT", "hello!",
		  0);
	body_case("Transfer-Encoding: chunked\r\n", "A \r\n0123456789\r\n0\r\n\r\n", "0123456789", 0);
	body_case("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n", "hello", TNL_ETRUNC);
}

static void bad_bodies(void **state)
{
	static const char *const bad[] = {
	    "\r\n",    "x\r\n",	      "5\nhello", "5\r\nhelloX", "5\r\nhello\r5", "-1\r\n", "1111111111111111\r\n",
	    "0\r\n\n", "0\r\nT: v\n", "1;a\n"};
	struct tnl_http_body b;
	struct tnl_buf out;

	memset(&head, 0, sizeof(head));
	head.status = 200;
	head.chunked = true;
	tnl_buf_init(&out, 8);
	for (size_t i = 0; i < TNL_COUNT(bad); i++) {
		tnl_buf_reset(&out);
		tnl_http_body_init(&b, &head, false);
		if (tnl_http_body_feed(&b, (const uint8_t *)bad[i], strlen(bad[i]), &out) != TNL_ESYNTAX)
			fail_msg("accepted: %s", bad[i]);
	}
	/* what stands around the data is bounded by all of it, not by each chunk */
	char one[1100], fed = 0;
	memset(one, 'x', sizeof(one));
	memcpy(one, "1;", 2);
	memcpy(one + 1095, "\r\nA\r\n", 5);
	tnl_buf_reset(&out);
	tnl_http_body_init(&b, &head, false);
	while (fed < 6 && tnl_http_body_feed(&b, (const uint8_t *)one, sizeof(one), &out) > 0)
		fed++;
	assert_int_equal(fed, 3);
	tnl_buf_reset(&out);
	tnl_http_body_init(&b, &head, false);
	assert_int_equal(tnl_http_body_feed(&b, (const uint8_t *)"9\r\n123456789", 12, &out), TNL_ETOOBIG);
	tnl_buf_fini(&out);
	head.status = 204;
	tnl_http_body_init(&b, &head, false);
	assert_true(b.done);
	head.status = 200;
	tnl_http_body_init(&b, &head, true);
	assert_true(b.done);
}

static void urls(void **state)
{
	struct tnl_url u;
	char a[300];
	const char *fault = NULL;

	assert_int_equal(tnl_url_parse("WSS://Gw.Example:8443/v1/data-channel/s@x?role=a&b=%20", &u, &fault), 0);
	assert_string_equal(u.scheme, "wss");
	assert_string_equal(u.host, "gw.example");
	assert_int_equal(u.port, 8443);
	assert_true(u.port_given);
	assert_int_equal(u.path_len, 20);
	assert_memory_equal(u.path, "/v1/data-channel/s@x", 20);
	assert_string_equal(u.query, "role=a&b=%20");
	tnl_url_authority(&u, a, sizeof(a));
	assert_string_equal(a, "gw.example:8443");
	assert_int_equal(tnl_url_parse("https://[::1]", &u, &fault), 0);
	assert_true(u.ipv6);
	assert_string_equal(u.host, "::1");
	assert_int_equal(u.port, 443);
	assert_memory_equal(u.path, "/", 1);
	assert_int_equal(u.path_len, 1);
	tnl_url_authority(&u, a, sizeof(a));
	assert_string_equal(a, "[::1]");
	assert_int_equal(tnl_url_parse("http://user:p%40ss@proxy:3128?q", &u, &fault), 0);
	assert_string_equal(u.user, "user");
	assert_string_equal(u.password, "p@ss");
	assert_string_equal(u.host, "proxy");
	assert_memory_equal(u.path, "/", 1);
	assert_string_equal(u.query, "q");
}

static void bad_urls(void **state)
{
	static const char *const bad[] = {"",
					  "gw",
					  "ftp://gw/",
					  "https:/gw",
					  "https://",
					  "https:///x",
					  "https://gw:/",
					  "https://gw:0/",
					  "https://gw:65536/",
					  "https://gw:1x/",
					  "https://gw:-1",
					  "https://g w/",
					  "https://gw/a b",
					  "https://gw/#f",
					  "https://gw\\@evil/",
					  "https://[::1/",
					  "https://[::1]x/",
					  "https://[gw]/",
					  "https://g%77/",
					  "https://a\x01/",
					  "https://\xc3\xa4/",
					  "http://u%00@h/",
					  "http://u%zz@h/"};
	struct tnl_url u;
	const char *fault;

	for (size_t i = 0; i < TNL_COUNT(bad); i++) {
		fault = NULL;
		if (tnl_url_parse(bad[i], &u, &fault) != TNL_ESYNTAX || !fault)
			fail_msg("accepted: %s", bad[i]);
	}
	/* The host is what stands behind the last @, as every connecting program reads it. */
	assert_int_equal(tnl_url_parse("https://a@b@c/", &u, &fault), 0);
	assert_string_equal(u.host, "c");
}

/* RFC 6455 section 1.3 */
static void websocket_accept(void **state)
{
	char out[29];

	tnl_ws_accept_key("dGhlIHNhbXBsZSBub25jZQ==", 24, out);
	assert_string_equal(out, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_request),
	    cmocka_unit_test(a_response),
	    cmocka_unit_test(every_split_point),
	    cmocka_unit_test(refused_requests),
	    cmocka_unit_test(refused_responses),
	    cmocka_unit_test(limits),
	    cmocka_unit_test(bodies_at_every_split),
	    cmocka_unit_test(bad_bodies),
	    cmocka_unit_test(urls),
	    cmocka_unit_test(bad_urls),
	    cmocka_unit_test(websocket_accept),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
