/* Connections on their way up: failures, handshakes, proxies. */
#include "tests/daemon/net/conn_test.h"
#include "lib/num.h"

static void not_reached(void **state)
{
	struct server s;
	struct end e = {0};
	t_open();
	serve(&s, false);
	td_listener_free(s.l);
	s.l = NULL;
	dial(&e, &s, true, NULL, 0);
	assert_true(t_until(&e.closed, 5000));
	assert_int_equal(e.err, TNL_EREFUSED);
	assert_non_null(strstr(e.why, "cannot connect to 127.0.0.1:"));
	finish(&s, &e);
}

static void handshake_failures(void **state)
{
	struct server s;
	struct end e = {0};
	/* a peer that says nothing */
	t_open();
	serve(&s, false);
	dial(&e, &s, true, NULL, 150 * TD_MS);
	assert_true(t_until(&e.closed, 5000));
	assert_int_equal(e.err, TNL_ETIMEOUT);
	finish(&s, &e);
	/* an accepted peer that says nothing */
	memset(&e, 0, sizeof(e));
	t_open();
	serve(&s, true);
	s.timeout = 150 * TD_MS;
	dial(&e, &s, false, NULL, 0);
	assert_true(t_until(&s.e.closed, 5000));
	assert_int_equal(s.e.err, TNL_ETIMEOUT);
	finish(&s, &e);
	/* another name than the certificate's */
	memset(&e, 0, sizeof(e));
	t_open();
	serve(&s, true);
	struct td_conn_opts o = {.host = "127.0.0.1",
				 .port = td_addr_port(&s.addr),
				 .tls = client_tls,
				 .tls_name = "aws.example"};
	e.c = td_conn_dial(T, &o, &cb, &e);
	assert_true(t_until(&e.closed, 5000));
	assert_int_equal(e.err, TNL_ECERT);
	assert_non_null(strstr(e.why, "certificate"));
	assert_true(t_until(&s.e.closed, 5000));
	assert_int_equal(s.e.ready, 0);
	finish(&s, &e);
	/* given up while it connects */
	memset(&e, 0, sizeof(e));
	t_open();
	int fds = t_open_fds();
	serve(&s, true);
	dial(&e, &s, true, NULL, 0);
	td_conn_free(e.c);
	e.c = NULL;
	dial(&e, &s, true, NULL, 0);
	for (int i = 0; i < 100 && !s.accepted; i++)
		t_turns(1);
	td_conn_free(e.c);
	e.c = NULL;
	assert_true(t_until(&s.e.closed, 5000));
	assert_int_equal(e.ready + e.closed, 0);
	td_listener_free(s.l);
	s.l = NULL;
	t_turns(3);
	assert_int_equal(t_open_fds(), fds);
	finish(&s, &e);
}

/* --- an HTTP CONNECT proxy ----------------------------------------------------- */

struct proxy {
	struct td_listener *l;
	struct td_addr addr;
	struct tnl_tls_ctx *tls;
	struct td_conn *in, *out; /* from the client, to the server */
	char head[4096];
	size_t n;
	const char *answer; /* NULL: 200 with the right password */
	bool connected;
	int gone;
};

static void relay(struct td_conn *from, struct td_conn *to)
{
	uint8_t buf[16384];
	while (from && to && td_conn_room(to) >= sizeof(buf)) {
		ssize_t n = td_conn_read(from, buf, sizeof(buf));
		if (n <= 0)
			return;
		assert_int_equal(td_conn_write(to, buf, (size_t)n), n);
	}
	if (from && to)
		td_conn_pause(from, true);
}

static void out_ready(void *ctx)
{
	struct proxy *p = ctx;
	static const char ok[] = "HTTP/1.1 200 Connection established\r\nX-Proxy: test\r\n\r\n";
	p->connected = true;
	td_conn_write(p->in, ok, sizeof(ok) - 1);
}

static void out_readable(void *ctx)
{
	struct proxy *p = ctx;
	relay(p->out, p->in);
}

static void in_writable(void *ctx)
{
	struct proxy *p = ctx;
	if (p->out)
		td_conn_pause(p->out, false);
}

static void out_writable(void *ctx)
{
	struct proxy *p = ctx;
	if (p->in)
		td_conn_pause(p->in, false);
}

static void proxy_gone(void *ctx, int err, const char *why)
{
	struct proxy *p = ctx;
	p->gone++;
	td_conn_free(p->in);
	td_conn_free(p->out);
	p->in = p->out = NULL;
}

static const struct td_conn_cb out_cb = {.ready = out_ready,
					 .readable = out_readable,
					 .writable = out_writable,
					 .closed = proxy_gone};

static void in_readable(void *ctx)
{
	struct proxy *p = ctx;
	if (p->connected) {
		relay(p->in, p->out);
		return;
	}
	ssize_t k;
	while ((k = td_conn_read(p->in, p->head + p->n, sizeof(p->head) - 1 - p->n)) > 0)
		p->n += (size_t)k;
	p->head[p->n] = '\0';
	if (p->out || !strstr(p->head, "\r\n\r\n"))
		return;
	const char *answer = p->answer;
	if (!answer && !strstr(p->head, "Proxy-Authorization: Basic dXNlcjpwYTpzcw==\r\n")) /* user:pa:ss */
		answer = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: "
			 "0\r\n\r\n";
	if (answer) {
		td_conn_write(p->in, answer, strlen(answer));
		return;
	}
	unsigned port = 0;
	assert_int_equal(sscanf(p->head, "CONNECT 127.0.0.1:%u HTTP/1.1\r\n", &port), 1);
	struct td_conn_opts o = {.host = "127.0.0.1", .port = (uint16_t)port};
	p->out = td_conn_dial(T, &o, &out_cb, p);
}

static const struct td_conn_cb in_cb = {.readable = in_readable, .writable = in_writable, .closed = proxy_gone};

static void proxy_accept(void *ctx, int fd, const struct td_addr *peer)
{
	struct proxy *p = ctx;
	p->in = td_conn_accepted(T, fd, p->tls, 0, &in_cb, p);
}

static void proxy_serve(struct proxy *p, struct td_proxy *spec, bool tls)
{
	struct td_addr a = t_addr("127.0.0.1:0");
	char why[200];
	memset(p, 0, sizeof(*p));
	p->tls = tls ? server_tls : NULL;
	p->l = td_listen(T, &a, proxy_accept, p, why, sizeof(why));
	td_listener_addr(p->l, &p->addr);
	memset(spec, 0, sizeof(*spec));
	snprintf(spec->host, sizeof(spec->host), "127.0.0.1");
	spec->port = td_addr_port(&p->addr);
	spec->tls = tls;
	snprintf(spec->user, sizeof(spec->user), "user");
	snprintf(spec->password, sizeof(spec->password), "pa:ss");
}

static void proxy_free(struct proxy *p)
{
	td_conn_free(p->in);
	td_conn_free(p->out);
	td_listener_free(p->l);
}

static void through_proxy(void **state)
{
	/* plain and TLS to the proxy; inside it plain and TLS end to end */
	for (int i = 0; i < 4; i++) {
		bool outer = i & 1, inner = i & 2;
		struct server s;
		struct proxy p;
		struct td_proxy spec;
		struct end e = {.total = 3u << 20, .want = 3u << 20, .pause_every = 50};
		t_open();
		serve(&s, inner);
		s.e.total = s.e.want = 3u << 20;
		proxy_serve(&p, &spec, outer);
		struct td_conn_opts o = {.host = "127.0.0.1",
					 .port = td_addr_port(&s.addr),
					 .tls = inner || outer ? client_tls : NULL,
					 .proxy = &spec,
					 .plain = !inner};
		td_timer_init(&e.resume, T, on_resume, &e);
		e.c = td_conn_dial(T, &o, &cb, &e);
		if (!t_until(&e.done, 20000) || !t_until(&s.e.done, 20000))
			fail_msg("case %d: %s", i, e.why);
		assert_int_equal(e.sum_in, s.e.sum_out);
		assert_int_equal(s.e.sum_in, e.sum_out);
		proxy_free(&p);
		finish(&s, &e);
	}
}

static void proxy_refusals(void **state)
{
	static const struct {
		const char *answer, *text;
		int err;
	} cases[] = {
	    {NULL, "407", TNL_EREFUSED},
	    {"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "403 Forbidden", TNL_EREFUSED},
	    {"HTTP/1.1 502 Bad Gateway\r\n\r\n", "502", TNL_EREFUSED},
	    {"no proxy at all\r\n\r\n", "not HTTP", TNL_ESYNTAX},
	};
	for (size_t i = 0; i < TNL_COUNT(cases); i++) {
		struct server s;
		struct proxy p;
		struct td_proxy spec;
		struct end e = {0};
		t_open();
		serve(&s, true);
		proxy_serve(&p, &spec, false);
		p.answer = cases[i].answer;
		snprintf(spec.password, sizeof(spec.password), "wrong");
		dial(&e, &s, true, &spec, 0);
		assert_true(t_until(&e.closed, 5000));
		if (e.err != cases[i].err || !strstr(e.why, cases[i].text))
			fail_msg("case %zu: %d %s", i, e.err, e.why);
		assert_null(strstr(e.why, "wrong\"")); /* the password is nobody's business */
		assert_int_equal(s.accepted, 0);
		proxy_free(&p);
		finish(&s, &e);
	}
	/* a proxy that hangs up */
	struct server s;
	struct proxy p;
	struct td_proxy spec;
	struct end e = {0};
	t_open();
	serve(&s, true);
	proxy_serve(&p, &spec, false);
	td_listener_free(p.l);
	p.l = NULL;
	dial(&e, &s, true, &spec, 0);
	assert_true(t_until(&e.closed, 5000));
	assert_int_equal(e.err, TNL_EREFUSED);
	assert_non_null(strstr(e.why, "through proxy"));
	proxy_free(&p);
	finish(&s, &e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(not_reached),
	    cmocka_unit_test(handshake_failures),
	    cmocka_unit_test(through_proxy),
	    cmocka_unit_test(proxy_refusals),
	};
	return cmocka_run_group_tests(tests, tls_setup, tls_teardown);
}
