/* Greetings of SOCKS5, SOCKS4a and HTTP CONNECT: cut anywhere, refused in their own words, and never a byte too many.
 */
#include "tests/unit/check.h"
#include "lib/alloc.h"
#include "lib/greeting.h"
#include "lib/num.h"

/* What is said, byte strings with their length. */
struct bytes {
	const char *p;
	size_t n;
};
#define B(s)                                                                                                           \
	{                                                                                                              \
		s, sizeof(s) - 1                                                                                       \
	}

struct story {
	struct tnl_greeting g;
	uint8_t out[2048];
	size_t out_len;
	enum tnl_greeting_event last;
};

static void take_out(struct story *s)
{
	const uint8_t *p;
	size_t n = tnl_greeting_take(&s->g, &p);
	memcpy(s->out + s->out_len, p, n);
	s->out_len += n;
}

/* Passwords are "secret". Gives how many bytes were taken. */
static size_t feed(struct story *s, const char *p, size_t n)
{
	size_t all = 0, used;
	while (all < n && (s->last == TNL_GREETING_MORE || s->last == TNL_GREETING_PASSWORD)) {
		s->last = tnl_greeting_feed(&s->g, (const uint8_t *)p + all, n - all, &used);
		all += used;
		if (s->last == TNL_GREETING_PASSWORD) {
			bool ok = strcmp(s->g.user, "ops") == 0 && strcmp(s->g.password, "secret") == 0;
			s->last = tnl_greeting_admit(&s->g, ok);
			assert_string_equal(s->g.password, "");
		}
		take_out(s);
	}
	return all;
}

static const struct {
	bool want_password;
	struct bytes in;
	enum tnl_greeting_event end;
	const char *host;
	uint16_t port;
	struct bytes out;
} cases[] = {
    /* SOCKS5 */
    {false, B("\5\1\0\5\1\0\1\12\0\0\1\0\120"), TNL_GREETING_READY, "10.0.0.1", 80, B("\5\0")},
    {false, B("\5\2\2\0\5\1\0\3\13db.internal\25\70"), TNL_GREETING_READY, "db.internal", 5432, B("\5\0")},
    {false, B("\5\1\0\5\1\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\1\273"), TNL_GREETING_READY, "::1", 443, B("\5\0")},
    {false, B("\5\1\2"), TNL_GREETING_OVER, "", 0, B("\5\377")},
    {false, B("\5\0"), TNL_GREETING_OVER, "", 0, B("\5\377")},
    {false, B("\5\1\0\5\2\0\1\12\0\0\1\0\120"), TNL_GREETING_OVER, "", 0, B("\5\0\5\7\0\1\0\0\0\0\0\0")}, /* BIND */
    {false, B("\5\1\0\5\3\0\1\0\0\0\0\0\0"), TNL_GREETING_OVER, "", 0, B("\5\0\5\7\0\1\0\0\0\0\0\0")},	  /* UDP */
    {false, B("\5\1\0\5\1\0\2\12\0"), TNL_GREETING_OVER, "", 0, B("\5\0\5\10\0\1\0\0\0\0\0\0")},
    {false, B("\5\1\0\5\1\0\3\0\0\120"), TNL_GREETING_OVER, "", 0, B("\5\0\5\10\0\1\0\0\0\0\0\0")},
    {false, B("\5\1\0\5\1\0\3\3a b\0\120"), TNL_GREETING_OVER, "", 0, B("\5\0\5\10\0\1\0\0\0\0\0\0")},
    {false, B("\5\1\0\5\1\0\3\3a\"b\0\120"), TNL_GREETING_OVER, "", 0, B("\5\0\5\10\0\1\0\0\0\0\0\0")},
    {false, B("\5\1\0\5\1\0\3\3a\\b\0\120"), TNL_GREETING_OVER, "", 0, B("\5\0\5\10\0\1\0\0\0\0\0\0")},
    {false, B("\5\1\0\5\1\0\3\1h\0\0"), TNL_GREETING_OVER, "", 0, B("\5\0\5\10\0\1\0\0\0\0\0\0")},
    {false, B("\5\1\0\4"), TNL_GREETING_OVER, "", 0, B("\5\0\5\10\0\1\0\0\0\0\0\0")},
    {true, B("\5\2\0\2\1\3ops\6secret\5\1\0\3\1h\0\120"), TNL_GREETING_READY, "h", 80, B("\5\2\1\0")},
    {true, B("\5\1\2\1\3ops\5wrong"), TNL_GREETING_OVER, "", 0, B("\5\2\1\1")},
    {true, B("\5\1\2\1\3ops\10secret\0x"), TNL_GREETING_OVER, "", 0, B("\5\2\1\1")}, /* more than the string */
    {true, B("\5\1\2\1\0\0"), TNL_GREETING_OVER, "", 0, B("\5\2\1\1")},
    {true, B("\5\1\2\5"), TNL_GREETING_OVER, "", 0, B("\5\2")},
    {true, B("\5\1\0"), TNL_GREETING_OVER, "", 0, B("\5\377")},
    /* SOCKS4, 4a */
    {false, B("\4\1\0\120\12\0\0\1me\0"), TNL_GREETING_READY, "10.0.0.1", 80, B("")},
    {false, B("\4\1\0\120\0\0\0\1me\0db.internal\0"), TNL_GREETING_READY, "db.internal", 80, B("")},
    {false, B("\4\2\0\120\12\0\0\1\0"), TNL_GREETING_OVER, "", 0, B("\0\133\0\0\0\0\0\0")},
    {false, B("\4\1\0\120\0\0\0\1\0\0"), TNL_GREETING_OVER, "", 0, B("\0\133\0\0\0\0\0\0")},
    {false, B("\4\1\0\0\12\0\0\1\0"), TNL_GREETING_OVER, "", 0, B("\0\133\0\0\0\0\0\0")},
    {true, B("\4\1\0\120\12\0\0\1ops\0"), TNL_GREETING_OVER, "", 0, B("\0\135\0\0\0\0\0\0")},
    /* HTTP */
    {false, B("CONNECT db.internal:5432 HTTP/1.1\r\nHost: db.internal:5432\r\n\r\n"), TNL_GREETING_READY, "db.internal",
     5432, B("")},
    {false, B("CONNECT [::1]:443 HTTP/1.0\r\n\r\n"), TNL_GREETING_READY, "::1", 443, B("")},
    {false, B("CONNECT h:80 HTTP/1.1\nHost: h:80\n\n"), TNL_GREETING_READY, "h", 80, B("")},
    {false, B("CONNECT h:80 HTTP/1.1\r\nHost: h:80\n\r\n"), TNL_GREETING_READY, "h", 80, B("")},
    {false, B("CONNECT h:80 HTTP/1.1\nHost: h:80\r\n\n"), TNL_GREETING_READY, "h", 80, B("")},
    {true, B("CONNECT h:80 HTTP/1.1\nProxy-Authorization: Basic b3BzOnNlY3JldA==\n\n"), TNL_GREETING_READY, "h", 80,
     B("")},
    {false, B("CONNECT h:80 HTTP/1.1\nA: b\rc\n\n"), TNL_GREETING_OVER, "", 0, B("HTTP/1.1 400 ")},
    {false, B("CONNECT h:80 HTTP/1.1\r\r\n\r\n"), TNL_GREETING_OVER, "", 0, B("HTTP/1.1 400 ")},
    {false, B("C\n\n"), TNL_GREETING_OVER, "", 0, B("HTTP/1.1 400 ")},
    {false, B("CONNECT h\"x:80 HTTP/1.1\r\n\r\n"), TNL_GREETING_OVER, "", 0, B("HTTP/1.1 400 ")},
    {true, B("CONNECT h:80 HTTP/1.1\r\nproxy-authorization:  basic b3BzOnNlY3JldA== \r\n\r\n"), TNL_GREETING_READY, "h",
     80, B("")},
    {false, B("GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n"), TNL_GREETING_OVER, "", 0, B("HTTP/1.1 405 ")},
    {false, B("CONNECT h HTTP/1.1\r\n\r\n"), TNL_GREETING_OVER, "", 0, B("HTTP/1.1 400 ")},
    {false, B("CONNECT h:0 HTTP/1.1\r\n\r\n"), TNL_GREETING_OVER, "", 0, B("HTTP/1.1 400 ")},
    {false, B("CONNECT h:65536 HTTP/1.1\r\n\r\n"), TNL_GREETING_OVER, "", 0, B("HTTP/1.1 400 ")},
    {false, B("CONNECT ::1:80 HTTP/1.1\r\n\r\n"), TNL_GREETING_OVER, "", 0, B("HTTP/1.1 400 ")},
    {false, B("CONNECT a b:80 HTTP/1.1\r\n\r\n"), TNL_GREETING_OVER, "", 0, B("HTTP/1.1 400 ")},
    {false, B("CONNECT h:80 HTTP/2.0\r\n\r\n"), TNL_GREETING_OVER, "", 0, B("HTTP/1.1 400 ")},
    {false, B("CONNECT h:80\r\n\r\n"), TNL_GREETING_OVER, "", 0, B("HTTP/1.1 400 ")},
    {false, B("CONNECT h:80 HTTP/1.1\r\nno field\r\n\r\n"), TNL_GREETING_OVER, "", 0, B("HTTP/1.1 400 ")},
    {false, B("CONNECT h:80 HTTP/1.1\r\nA: b\r\n c\r\n\r\n"), TNL_GREETING_OVER, "", 0, B("HTTP/1.1 400 ")},
    {true, B("CONNECT h:80 HTTP/1.1\r\n\r\n"), TNL_GREETING_OVER, "", 0, B("HTTP/1.1 407 ")},
    {true, B("CONNECT h:80 HTTP/1.1\r\nProxy-Authorization: Basic b3BzOndyb25n\r\n\r\n"), TNL_GREETING_OVER, "", 0,
     B("HTTP/1.1 407 ")},
    {true, B("CONNECT h:80 HTTP/1.1\r\nProxy-Authorization: Bearer x\r\n\r\n"), TNL_GREETING_OVER, "", 0,
     B("HTTP/1.1 407 ")},
    /* none */
    {false, B("\26\3\1\2"), TNL_GREETING_OVER, "", 0, B("")},
    {false, B("\0"), TNL_GREETING_OVER, "", 0, B("")},
};

static void expect_case(size_t i, const struct story *s)
{
	if (s->last != cases[i].end)
		fail_msg("case %zu ended with %d: %s", i, s->last, s->g.fault ? s->g.fault : "");
	if (cases[i].end == TNL_GREETING_READY) {
		assert_string_equal(s->g.host, cases[i].host);
		assert_int_equal(s->g.port, cases[i].port);
	} else {
		assert_non_null(s->g.fault);
	}
	bool http = s->g.kind == TNL_GREETING_HTTP && cases[i].out.n;
	if (http ? s->out_len < cases[i].out.n : s->out_len != cases[i].out.n)
		fail_msg("case %zu: %zu bytes were answered", i, s->out_len);
	assert_memory_equal(s->out, cases[i].out.p, cases[i].out.n);
}

static void greetings_cut_anywhere(void **state)
{
	char text[600];
	for (size_t i = 0; i < TNL_COUNT(cases); i++) {
		size_t n = cases[i].in.n;
		memcpy(text, cases[i].in.p, n);
		memcpy(text + n, "EARLY", 5);
		for (size_t cut = 0; cut <= n; cut++) {
			struct story s = {.last = TNL_GREETING_MORE};
			tnl_greeting_init(&s.g, cases[i].want_password);
			size_t used = feed(&s, text, cut);
			used += feed(&s, text + used, n + 5 - used);
			expect_case(i, &s);
			if (cases[i].end == TNL_GREETING_READY)
				assert_int_equal(used, n); /* what is behind it is the destination's */
			tnl_greeting_fini(&s.g);
		}
		struct story s = {.last = TNL_GREETING_MORE};
		tnl_greeting_init(&s.g, cases[i].want_password);
		for (size_t k = 0; k < n; k++)
			feed(&s, text + k, 1);
		expect_case(i, &s);
		tnl_greeting_fini(&s.g);
	}
	assert_int_equal(tnl_alloc_live(), 0);
}

/* The first of the cases that begins with these bytes and is answered with yes. */
static size_t case_of(const char *begin)
{
	size_t i = 0;
	while (cases[i].end != TNL_GREETING_READY || cases[i].want_password ||
	       strncmp(cases[i].in.p, begin, strlen(begin)) != 0)
		i++;
	return i;
}

static void answers(void **state)
{
	static const struct {
		const char *greeting; /* how it begins */
		enum tnl_greeting_result r;
		struct bytes out;
	} want[] = {
	    {"\5", TNL_GREETING_OK, B("\5\0\0\1\0\0\0\0\0\0")},
	    {"\5", TNL_GREETING_DENIED, B("\5\2\0\1\0\0\0\0\0\0")},
	    {"\5", TNL_GREETING_NO_WAY, B("\5\3\0\1\0\0\0\0\0\0")},
	    {"\5", TNL_GREETING_TIMEOUT, B("\5\4\0\1\0\0\0\0\0\0")},
	    {"\5", TNL_GREETING_REFUSED, B("\5\5\0\1\0\0\0\0\0\0")},
	    {"\5", TNL_GREETING_FAILED, B("\5\1\0\1\0\0\0\0\0\0")},
	    {"\5", TNL_GREETING_NET, B("\5\3\0\1\0\0\0\0\0\0")},
	    {"\5", TNL_GREETING_HOST, B("\5\4\0\1\0\0\0\0\0\0")},
	    {"\4", TNL_GREETING_OK, B("\0\132\0\0\0\0\0\0")},
	    {"\4", TNL_GREETING_REFUSED, B("\0\133\0\0\0\0\0\0")},
	    {"CONNECT", TNL_GREETING_OK, B("HTTP/1.1 200 Connection established\r\n\r\n")},
	    {"CONNECT", TNL_GREETING_DENIED, B("HTTP/1.1 403 ")},
	    {"CONNECT", TNL_GREETING_NO_WAY, B("HTTP/1.1 503 ")},
	    {"CONNECT", TNL_GREETING_TIMEOUT, B("HTTP/1.1 504 ")},
	    {"CONNECT", TNL_GREETING_REFUSED, B("HTTP/1.1 502 ")},
	    {"CONNECT", TNL_GREETING_NET, B("HTTP/1.1 502 ")},
	    {"CONNECT", TNL_GREETING_HOST, B("HTTP/1.1 502 ")},
	    {"CONNECT", TNL_GREETING_FAILED, B("HTTP/1.1 502 ")},
	};
	for (size_t i = 0; i < TNL_COUNT(want); i++) {
		uint8_t out[TNL_GREETING_OUT];
		struct story s = {.last = TNL_GREETING_MORE};
		tnl_greeting_init(&s.g, false);
		assert_int_equal(tnl_greeting_answer(&s.g, TNL_GREETING_OK, "", out), 0); /* to what? */
		size_t k = case_of(want[i].greeting);
		feed(&s, cases[k].in.p, cases[k].in.n);
		assert_int_equal(s.last, TNL_GREETING_READY);
		assert_true(tnl_greeting_answer(&s.g, want[i].r, "", out) >= want[i].out.n);
		assert_memory_equal(out, want[i].out.p, want[i].out.n);
		assert_int_equal(tnl_greeting_answer(&s.g, want[i].r, "", out), 0); /* once */
		tnl_greeting_fini(&s.g);
	}
}

/* The words of others: one line, nothing that a terminal would take for its own, and no more than fits. */
static void words_of_an_answer(void **state)
{
	char much[4000];
	memset(much, 'w', sizeof(much));
	much[sizeof(much) - 1] = '\0';
	static const char *const want[] = {"\r\n\r\nthis destination is not allowed: no\n",
					   "\r\n\r\nthis destination is not allowed: a??Set-Cookie: b?[31m??\n",
					   "www\n"};
	const char *const words[] = {"no", "a\r\nSet-Cookie: b\033[31m\303\244", much};
	for (size_t i = 0; i < TNL_COUNT(words); i++) {
		uint8_t out[TNL_GREETING_OUT];
		struct story s = {.last = TNL_GREETING_MORE};
		unsigned len = 0;
		tnl_greeting_init(&s.g, false);
		feed(&s, "CONNECT h:80 HTTP/1.1\r\n\r\n", 27);
		size_t n = tnl_greeting_answer(&s.g, TNL_GREETING_DENIED, words[i], out);
		assert_in_range(n, strlen(want[i]), sizeof(out) - 1);
		assert_memory_equal(out + n - strlen(want[i]), want[i], strlen(want[i]));
		out[n] = '\0';
		const char *length = strstr((char *)out, "Content-Length: "),
			   *body = strstr((char *)out, "\r\n\r\n") + 4;
		assert_int_equal(sscanf(length, "Content-Length: %u", &len), 1);
		assert_int_equal(len, strlen(body));
		assert_ptr_equal(strchr(body, '\n'), body + len - 1);
		tnl_greeting_fini(&s.g);
	}
}

/* As long as the protocols allow it. */
static void the_longest(void **state)
{
	static char in[800];
	char user[256], host[256];
	memset(user, 'u', 255);
	memset(host, 'h', 255);
	user[255] = host[255] = '\0';
	size_t n = (size_t)snprintf(in, sizeof(in), "\5\1\2\1\377%s\377%s\5\1x\3\377%s\1\273", user, user, host);
	in[3 + 2 + 255 + 1 + 255 + 2] = 0;
	for (size_t chunk = 1; chunk < 800; chunk += 257) {
		struct tnl_greeting g;
		enum tnl_greeting_event e = TNL_GREETING_MORE;
		const uint8_t *out;
		tnl_greeting_init(&g, true);
		for (size_t at = 0, used; at < n && (e == TNL_GREETING_MORE || e == TNL_GREETING_PASSWORD);
		     at += used) {
			e = tnl_greeting_feed(&g, (const uint8_t *)in + at, TNL_MIN(chunk, n - at), &used);
			if (e == TNL_GREETING_PASSWORD) {
				assert_string_equal(g.user, user);
				assert_string_equal(g.password, user);
				e = tnl_greeting_admit(&g, true);
			}
			tnl_greeting_take(&g, &out);
		}
		assert_int_equal(e, TNL_GREETING_READY);
		assert_string_equal(g.host, host);
		assert_int_equal(g.port, 443);
		tnl_greeting_fini(&g);
	}
}

static void what_does_not_end(void **state)
{
	static const char *const begin[] = {"CONNECT h:80 HTTP/1.1\r\nA: ", "\4\1\1\1\1\1\1\1"};
	static const char *const said[] = {"HTTP/1.1 431 ", ""};
	for (size_t i = 0; i < TNL_COUNT(begin); i++) {
		struct story s = {.last = TNL_GREETING_MORE};
		tnl_greeting_init(&s.g, false);
		feed(&s, begin[i], strlen(begin[i]));
		for (size_t n = 0; n < TNL_GREETING_MAX + 1; n++)
			feed(&s, "x", 1);
		assert_int_equal(s.last, TNL_GREETING_OVER);
		assert_memory_equal(s.out, said[i], strlen(said[i]));
		tnl_greeting_fini(&s.g);
	}
	assert_int_equal(tnl_alloc_live(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(greetings_cut_anywhere), cmocka_unit_test(answers),
	    cmocka_unit_test(words_of_an_answer),     cmocka_unit_test(the_longest),
	    cmocka_unit_test(what_does_not_end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
