/* Connections: bulk both ways at once with small kernel buffers, pausing, closing, proxies, failures on the way up. */
#include "tests/daemon/base/td_test.h"
#include "lib/num.h"
#include "tunneld/net/conn.h"
#include "tunneld/net/listen.h"
#include "tunneld/base/fd.h"

#include <errno.h>
#include <sys/socket.h>

static struct tnl_tls_ctx *server_tls, *client_tls;

struct end {
	struct td_conn *c;
	int ready, closed, done, err, reads, writables;
	char why[400];
	uint64_t sent, total, got, want;
	uint32_t sum_out, sum_in;
	int pause_every; /* reads */
	bool echo_end;	 /* shuts down when everything has come */
	size_t max_queued;
	struct td_timer resume;
	bool has_timer;
};

static void fill(uint8_t *p, size_t n, uint64_t at)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)((at + i) * 2654435761u >> 13);
}

static uint32_t sum(uint32_t s, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		s = (s << 1 | s >> 31) ^ p[i];
	return s;
}

static void produce(struct end *e)
{
	uint8_t buf[50000];
	while (e->c && e->sent < e->total) {
		static const size_t sizes[] = {1, 100, 17000, 50000, 1200};
		size_t n = sizes[e->sent % 5];
		if (n > e->total - e->sent)
			n = (size_t)(e->total - e->sent);
		fill(buf, n, e->sent);
		size_t k = td_conn_write(e->c, buf, n);
		e->sum_out = sum(e->sum_out, buf, k);
		e->sent += k;
		if (td_conn_queued(e->c) > e->max_queued)
			e->max_queued = td_conn_queued(e->c);
		if (k < n)
			return;
	}
}

static void on_ready(void *ctx)
{
	struct end *e = ctx;
	e->ready++;
	produce(e);
}

static void on_resume(void *arg)
{
	struct end *e = arg;
	td_conn_pause(e->c, false);
}

static void on_readable(void *ctx)
{
	struct end *e = ctx;
	uint8_t buf[20000];
	ssize_t n;
	while ((n = td_conn_read(e->c, buf, sizeof(buf))) > 0) {
		e->sum_in = sum(e->sum_in, buf, (size_t)n);
		e->got += (uint64_t)n;
		if (e->pause_every && ++e->reads % e->pause_every == 0) {
			td_conn_pause(e->c, true);
			td_timer_in(&e->resume, e->reads % 7 ? 1 : TD_MS);
			break;
		}
	}
	if (e->want && e->got >= e->want)
		e->done = 1;
}

static void on_writable(void *ctx)
{
	struct end *e = ctx;
	e->writables++;
	assert_true(td_conn_room(e->c) >= 128 * 1024);
	produce(e);
}

static void on_closed(void *ctx, int err, const char *why)
{
	struct end *e = ctx;
	e->closed++;
	e->err = err;
	snprintf(e->why, sizeof(e->why), "%s", why);
	td_conn_free(e->c);
	e->c = NULL;
}

static const struct td_conn_cb cb = {.ready = on_ready,
				     .readable = on_readable,
				     .writable = on_writable,
				     .closed = on_closed};

struct server {
	struct td_listener *l;
	struct td_addr addr;
	struct tnl_tls_ctx *tls;
	struct end e;
	int sndbuf, accepted;
	uint64_t timeout;
};

static void on_accept(void *ctx, int fd, const struct td_addr *peer)
{
	struct server *s = ctx;
	if (s->sndbuf)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &s->sndbuf, sizeof(s->sndbuf));
	s->accepted++;
	td_timer_init(&s->e.resume, T, on_resume, &s->e);
	s->e.c = td_conn_accepted(T, fd, s->tls, s->timeout, &cb, &s->e);
	assert_non_null(s->e.c);
}

static void serve(struct server *s, bool tls)
{
	struct td_addr a = t_addr("127.0.0.1:0");
	char why[200];
	memset(s, 0, sizeof(*s));
	s->tls = tls ? server_tls : NULL;
	s->l = td_listen(T, &a, on_accept, s, why, sizeof(why));
	assert_non_null(s->l);
	td_listener_addr(s->l, &s->addr);
}

static void dial(struct end *e, const struct server *s, bool tls, const struct td_proxy *proxy, uint64_t timeout)
{
	struct td_conn_opts o = {.host = "127.0.0.1",
				 .port = td_addr_port(&s->addr),
				 .tls = tls ? client_tls : NULL,
				 .proxy = proxy,
				 .timeout_ns = timeout};
	td_timer_init(&e->resume, T, on_resume, e);
	e->c = td_conn_dial(T, &o, &cb, e);
	assert_non_null(e->c);
	assert_int_equal(e->ready + e->closed, 0);
}

static void finish(struct server *s, struct end *e)
{
	td_timer_stop(&e->resume);
	td_timer_stop(&s->e.resume);
	td_conn_free(e->c);
	td_conn_free(s->e.c);
	td_listener_free(s->l);
	t_close();
}

/* Both directions at once; `pauses`: each side stops reading again and again. */
#define BULK (32u << 20)
static void bulk(bool tls, uint32_t total, int sndbuf, int pauses)
{
	struct server s;
	struct end e = {.total = total, .want = total, .pause_every = pauses};
	t_open();
	serve(&s, tls);
	s.sndbuf = sndbuf;
	s.e.total = s.e.want = total;
	s.e.pause_every = pauses ? pauses + 4 : 0;
	dial(&e, &s, tls, NULL, 0);
	assert_true(t_until(&e.done, 50000));
	assert_true(t_until(&s.e.done, 50000));
	assert_int_equal(e.got, total);
	assert_int_equal(e.sum_in, s.e.sum_out);
	assert_int_equal(s.e.sum_in, e.sum_out);
	assert_true(e.max_queued <= 280 * 1024); /* the queue is bounded, records included */
	assert_true(s.e.max_queued <= 280 * 1024);
	assert_true(total < BULK || e.writables > 0);
	/* an orderly end: everything is there, both sides hear of it */
	td_conn_pause(e.c, false);
	td_conn_pause(s.e.c, false);
	td_conn_shutdown(e.c);
	assert_true(t_until(&s.e.closed, 5000));
	assert_int_equal(s.e.err, TNL_EEOF);
	assert_true(t_until(&e.closed, 5000));
	assert_int_equal(e.err, TNL_EEOF);
	finish(&s, &e);
}

static void bulk_tls(void **state)
{
	bulk(true, BULK, 65536, 0);
	bulk(true, 1u << 20, 4096, 0);
}

static void bulk_plain(void **state)
{
	bulk(false, BULK, 65536, 0);
}

static void bulk_pauses(void **state)
{
	bulk(true, BULK, 0, 20);
}

static void last_bytes(void **state)
{
	/* What was written before a shutdown arrives, though nobody reads for a while and more comes the other way. */
	for (int tls = 0; tls < 2; tls++) {
		struct server s;
		struct end e = {.total = 200000};
		t_open();
		serve(&s, tls);
		s.e.total = 100000;
		dial(&e, &s, tls, NULL, 0);
		assert_true(t_until(&e.ready, 5000));
		td_conn_shutdown(e.c);
		assert_int_equal(td_conn_write(e.c, "x", 1), 0);
		assert_true(t_until(&s.e.closed, 5000));
		assert_int_equal(s.e.err, TNL_EEOF);
		assert_int_equal(s.e.got, 200000);
		assert_int_equal(s.e.sum_in, e.sum_out);
		finish(&s, &e);
	}
}

static void end_while_sending(void **state)
{
	/* The peer says that it will send no more while our last bytes are still queued: they are sent all the same. */
	struct end e = {.total = 250000};
	struct td_addr a = t_addr("127.0.0.1:0");
	struct server s = {0};
	char junk[65536];
	int small = 4096, l = socket(AF_INET, SOCK_STREAM, 0);
	t_open();
	setsockopt(l, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	assert_int_equal(bind(l, &a.sa, a.len), 0);
	assert_int_equal(listen(l, 1), 0);
	getsockname(l, &s.addr.sa, &(socklen_t){sizeof(s.addr.ss)});
	dial(&e, &s, false, NULL, 0);
	assert_true(t_until(&e.ready, 5000));
	int fd = accept(l, NULL, NULL);
	assert_int_equal(e.sent, 250000);
	td_conn_shutdown(e.c);
	t_turns(3);
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	t_turns(3);
	td_fd_nonblock(fd);
	uint64_t got = 0;
	for (int i = 0; i < 200000; i++) {
		ssize_t n = read(fd, junk, sizeof(junk));
		if (n == 0)
			break;
		got += n > 0 ? (uint64_t)n : 0;
		t_turns(1);
	}
	assert_int_equal(got, 250000);
	assert_true(t_until(&e.closed, 5000));
	assert_int_equal(e.err, TNL_EEOF);
	close(fd);
	close(l);
	td_timer_stop(&e.resume);
	t_close();
}

static void broken(void **state)
{
	for (int tls = 0; tls < 2; tls++) {
		struct server s;
		struct end e = {0};
		t_open();
		int fds = t_open_fds();
		serve(&s, tls);
		dial(&e, &s, tls, NULL, 0);
		assert_true(t_until(&e.ready, 5000));
		assert_true(t_until(&s.e.ready, 5000));
		td_conn_free(s.e.c); /* no close_notify: with TLS that is a broken link, not an end */
		s.e.c = NULL;
		assert_true(t_until(&e.closed, 5000));
		assert_true(tls ? e.err == TNL_ETRUNC || e.err == TNL_EIO : e.err == TNL_EEOF);
		t_turns(3);
		assert_int_equal(e.closed, 1);
		td_listener_free(s.l);
		s.l = NULL;
		t_turns(3);
		assert_int_equal(t_open_fds(), fds);
		finish(&s, &e);
	}
}

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

/* One connection's bulk must not keep another from its turn. */
static void fairness(void **state)
{
	struct server a, b;
	struct end ea = {.total = BULK}, eb = {.total = 100, .want = 0};
	t_open();
	serve(&a, true);
	serve(&b, true);
	dial(&ea, &a, true, NULL, 0);
	dial(&eb, &b, true, NULL, 0);
	assert_true(t_until(&ea.ready, 5000));
	b.e.want = 100;
	assert_true(t_until(&b.e.done, 10000));
	assert_true(a.e.got < BULK);
	td_conn_free(ea.c);
	td_conn_free(a.e.c);
	td_listener_free(a.l);
	finish(&b, &eb);
}

static int setup(void **state)
{
	t_tls(&server_tls, &client_tls);
	return 0;
}

static int teardown(void **state)
{
	tnl_tls_ctx_free(server_tls);
	tnl_tls_ctx_free(client_tls);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(bulk_tls),
	    cmocka_unit_test(bulk_plain),
	    cmocka_unit_test(bulk_pauses),
	    cmocka_unit_test(last_bytes),
	    cmocka_unit_test(broken),
	    cmocka_unit_test(not_reached),
	    cmocka_unit_test(handshake_failures),
	    cmocka_unit_test(through_proxy),
	    cmocka_unit_test(proxy_refusals),
	    cmocka_unit_test(fairness),
	    cmocka_unit_test(end_while_sending),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
