/* HTTP client against HTTP server: exchanges, keep-alive, every refusal with its status, limits, time-outs. */
#include "lib/steps.h"
#include "tests/daemon/net/tls_test.h"
#include "lib/num.h"
#include "tunneld/net/http_client.h"
#include "tunneld/net/http_server.h"
#include "tunneld/base/memory.h"
#include "tunneld/base/fd.h"

#include <errno.h>
#include <sys/socket.h>

struct server {
	struct td_http_server *h;
	struct td_addr addr;
	char url[64];
	int requests, gone, refused, last_refused;
	char refused_field[128];
	struct td_request *held; /* path /hold */
	char seen[4096];
};

static void on_request(void *ctx, struct td_request *r)
{
	struct server *s = ctx;
	const struct tnl_http_head *h = td_request_head(r);
	size_t n;
	const uint8_t *body = td_request_body(r, &n);
	s->requests++;
	snprintf(s->seen, sizeof(s->seen), "%.*s %.*s", (int)h->method_len, h->method, (int)h->target_len, h->target);
	if (h->target_len == 5 && memcmp(h->target, "/hold", 5) == 0) {
		s->held = r;
		return;
	}
	if (h->target_len == 4 && memcmp(h->target, "/big", 4) == 0) {
		size_t big = 900 * 1024;
		char *p = malloc(big);
		memset(p, 'b', big);
		td_request_reply(r, 200, "text/plain", NULL, 0, p, big);
		free(p);
		return;
	}
	static const char *const extra[][2] = {{"X-Extra", "yes"}, {"X-Bad", "a\r\nb"}};
	td_request_reply(r, 200, "application/octet-stream", extra, 2, body, n);
}

static void on_gone(void *ctx, struct td_request *r)
{
	struct server *s = ctx;
	assert_ptr_equal(s->held, r);
	s->held = NULL;
	s->gone++;
}

static void on_refused(void *ctx, const char *peer, int status, const char *field)
{
	struct server *s = ctx;
	assert_true(strncmp(peer, "127.0.0.1:", 10) == 0 || strncmp(peer, "unix:", 5) == 0);
	s->refused++;
	s->last_refused = status;
	snprintf(s->refused_field, sizeof(s->refused_field), "%s", field);
}

static void serve_on(struct server *s, const char *at, struct tnl_tls_ctx *tls, unsigned per_peer,
		     uint64_t head_timeout)
{
	struct td_addr a = t_addr(at);
	char why[256] = "", name[TD_ADDR_STR];
	struct td_http_server_config c = {.addrs = &a,
					  .naddrs = 1,
					  .tls = tls,
					  .per_peer_max = per_peer,
					  .head_timeout_ns = head_timeout,
					  .request = on_request,
					  .gone = on_gone,
					  .refused = on_refused,
					  .ctx = s};
	memset(s, 0, sizeof(*s));
	s->h = td_http_server_new(T, &c, why, sizeof(why));
	if (!s->h)
		fail_msg("%s", why);
	assert_int_equal(td_http_server_addr(s->h, 0, &s->addr), 0);
	snprintf(s->url, sizeof(s->url), "%s://%s", tls ? "https" : "http", td_addr_str(&s->addr, name));
}

static void serve(struct server *s, bool tls, unsigned per_peer, uint64_t head_timeout)
{
	serve_on(s, "127.0.0.1:0", tls ? server_tls : NULL, per_peer, head_timeout);
}

struct result {
	int done, err, status;
	char why[512], *body;
	size_t len;
	char extra[32];
};

static void on_response(void *ctx, const struct td_http_client_response *r)
{
	struct result *x = ctx;
	x->done++;
	x->err = r->err;
	x->status = r->status;
	snprintf(x->why, sizeof(x->why), "%s", r->why);
	if (r->err)
		return;
	x->len = r->body_len;
	x->body = malloc(r->body_len + 1);
	memcpy(x->body, r->body, r->body_len);
	x->body[r->body_len] = '\0';
	size_t n;
	const char *v = tnl_http_get(r->head, "x-extra", &n);
	snprintf(x->extra, sizeof(x->extra), "%.*s", v ? (int)n : 0, v ? v : "");
	assert_null(tnl_http_get(r->head, "x-bad", NULL));
}

static struct result call(const char *method, const char *url, const void *body, size_t len,
			  const struct td_http_client_opts *o)
{
	struct result x = {0};
	static const char *const headers[][2] = {{"Content-Type", "text/plain"}};
	assert_non_null(td_http_client_request(T, method, url, headers, 1, body, len, o, on_response, &x));
	assert_int_equal(x.done, 0); /* never from inside the call */
	assert_true(t_until(&x.done, 20000));
	t_turns(3);
	assert_int_equal(x.done, 1);
	return x;
}

static void exchanges(void **state)
{
	struct server s;
	for (int tls = 0; tls < 2; tls++) {
		t_open();
		serve(&s, tls, 0, 0);
		struct td_http_client_opts o = {.tls = client_tls};
		char url[100], *big = malloc(60000);
		snprintf(url, sizeof(url), "%s/echo?a=b", s.url);
		struct result r = call("POST", url, "hello", 5, &o);
		assert_int_equal(r.err, 0);
		assert_int_equal(r.status, 200);
		assert_string_equal(r.body, "hello");
		assert_string_equal(r.extra, "yes");
		assert_string_equal(s.seen, "POST /echo?a=b");
		free(r.body);
		memset(big, 'x', 60000);
		r = call("POST", url, big, 60000, &o);
		assert_int_equal(r.len, 60000);
		free(r.body);
		free(big);
		snprintf(url, sizeof(url), "%s/big", s.url);
		r = call("GET", url, NULL, 0, &o);
		assert_int_equal(r.len, 900 * 1024);
		free(r.body);
		r = call("HEAD", url, NULL, 0, &o);
		assert_int_equal(r.status, 200);
		assert_int_equal(r.len, 0);
		free(r.body);
		/* a body over what the caller takes */
		o.body_max = 1000;
		r = call("GET", url, NULL, 0, &o);
		assert_int_equal(r.err, TNL_ETOOBIG);
		td_http_server_free(s.h);
		t_close();
	}
}

static void unix_socket(void **state)
{
	struct server s;
	char dir[] = "/tmp/td-http-XXXXXX", spec[64];
	t_open();
	assert_non_null(mkdtemp(dir));
	snprintf(spec, sizeof(spec), "unix:%s/s", dir);
	serve_on(&s, spec, NULL, 0, 0);
	struct td_http_client_opts o = {.unix_path = spec + 5};
	struct result r = call("POST", "http://localhost/status", "x", 1, &o);
	assert_int_equal(r.status, 200);
	free(r.body);
	td_http_server_free(s.h);
	r = call("GET", "http://localhost/status", NULL, 0, &o);
	assert_int_equal(r.err, TNL_EUNREACH); /* the socket went with its server */
	rmdir(dir);
	t_close();
}

static void client_failures(void **state)
{
	struct server s;
	t_open();
	serve(&s, false, 0, 0);
	char url[100] = "";
	struct td_http_client_opts o = {.timeout_ns = 100 * TD_MS};
	snprintf(url, sizeof(url), "%s/hold", s.url);
	struct result r = call("GET", url, NULL, 0, &o);
	assert_int_equal(r.err, TNL_ETIMEOUT);
	int n = 0;
	for (; s.gone == 0 && n < 100; n++)
		t_turns(1);
	assert_int_equal(s.gone, 1); /* the role was told that nobody waits for its answer */
	td_http_server_free(s.h);
	o.timeout_ns = 0;
	r = call("GET", url, NULL, 0, &o);
	assert_int_equal(r.err, TNL_EREFUSED);
	assert_non_null(strstr(r.why, "refused"));
	r = call("GET", "ftp://x/", NULL, 0, &o);
	assert_int_equal(r.err, TNL_EINVAL);
	r = call("GET", "https://127.0.0.1:1/", NULL, 0, &o);
	assert_int_equal(r.err, TNL_EINVAL); /* TLS without settings */
	/* plain HTTP where TLS is wanted */
	serve(&s, false, 0, 0);
	snprintf(url, sizeof(url), "https://127.0.0.1:%u/", td_addr_port(&s.addr));
	o.tls = client_tls;
	r = call("GET", url, NULL, 0, &o);
	assert_int_equal(r.err, TNL_ETLS);
	/* cancelled: no call */
	struct result x = {0};
	snprintf(url, sizeof(url), "%s/", s.url);
	td_http_client_cancel(td_http_client_request(T, "GET", url, NULL, 0, NULL, 0, &o, on_response, &x));
	t_turns(20);
	assert_int_equal(x.done, 0);
	/* a token as a file with CR LF has it */
	static const char *const broken[][2] = {{"X-Amz-Security-Token", "t\r"}};
	assert_non_null(td_http_client_request(T, "GET", url, broken, 1, NULL, 0, &o, on_response, &x));
	assert_true(t_until(&x.done, 20000));
	assert_int_equal(x.err, TNL_EINVAL);
	assert_non_null(strstr(x.why, "X-Amz-Security-Token would have a line break in it"));
	td_http_server_free(s.h);
	t_close();
}

static void wrong_name(void **state)
{
	struct server s;
	t_open();
	serve(&s, true, 0, 0);
	char url[100];
	struct td_http_client_opts o = {.tls = client_tls};
	snprintf(url, sizeof(url), "https://x.localhost:%u/", td_addr_port(&s.addr));
	struct result r = call("GET", url, NULL, 0, &o);
	assert_int_equal(r.err, TNL_ECERT);
	assert_int_equal(s.requests, 0);
	td_http_server_free(s.h);
	t_close();
}

/* --- raw bytes against the server ---------------------------------------------- */

struct raw {
	int fd, eof;
	char got[1 << 16];
	size_t n;
	ev_io io;
};

static void on_raw(struct ev_loop *ev, ev_io *w, int events)
{
	struct raw *r = w->data;
	ssize_t k = read(r->fd, r->got + r->n, sizeof(r->got) - 1 - r->n);
	if (k > 0) {
		r->n += (size_t)k;
		r->got[r->n] = '\0';
	} else if (k == 0 || errno != EAGAIN) {
		r->eof = 1;
		ev_io_stop(ev, w);
	}
}

static void raw_open(struct raw *r, const struct td_addr *a)
{
	memset(r, 0, sizeof(*r));
	r->fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(r->fd, &a->sa, a->len), 0);
	td_fd_nonblock(r->fd);
	ev_io_init(&r->io, on_raw, r->fd, EV_READ);
	r->io.data = r;
	ev_io_start(T->ev, &r->io);
}

static void raw_close(struct raw *r)
{
	ev_io_stop(T->ev, &r->io);
	close(r->fd);
}

static void raw_send(struct raw *r, const char *s, size_t n)
{
	while (n) {
		ssize_t k = write(r->fd, s, n);
		if (k < 0) {
			if (errno != EAGAIN)
				return; /* refused and closed meanwhile */
			t_turns(1);
			continue;
		}
		s += k;
		n -= (size_t)k;
	}
}

/* Runs until the text was received `times` times, or the end. */
static int raw_wait(struct raw *r, const char *text, int times)
{
	int seen = 0;
	for (int turns = 0; turns < 20000 && seen < times && !r->eof; turns++) {
		ev_run(T->ev, EVRUN_ONCE);
		seen = 0;
		for (const char *p = r->got; (p = strstr(p, text)) != NULL; p += strlen(text))
			seen++;
	}
	return seen;
}

static void keep_alive(void **state)
{
	struct server s;
	struct raw r;
	t_open();
	serve(&s, false, 0, 0);
	raw_open(&r, &s.addr);
	static const char two[] =
	    "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost: x\r\n\r\n";
	raw_send(&r, two, sizeof(two) - 1); /* in one write: answered in their order */
	assert_int_equal(raw_wait(&r, "HTTP/1.1 200 OK", 2), 2);
	assert_string_equal(s.seen, "GET /b");
	assert_null(strstr(r.got, "Connection: close"));
	static const char head[] = "HEAD /h HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nUnIqU";
	raw_send(&r, head, sizeof(head) - 1);
	assert_int_equal(raw_wait(&r, "HTTP/1.1 200 OK", 3), 3);
	assert_null(strstr(r.got, "UnIqU")); /* its length, without it */
	assert_non_null(strstr(r.got, "Content-Length: 5"));
	for (size_t i = 0; i < sizeof(two) - 1; i++) { /* byte by byte */
		raw_send(&r, two + i, 1);
		t_turns(2);
	}
	assert_int_equal(raw_wait(&r, "HTTP/1.1 200 OK", 5), 5);
	assert_int_equal(s.requests, 5);
	/* a request behind one that is not yet answered */
	static const char hold[] =
	    "GET /hold HTTP/1.1\r\nHost: x\r\n\r\nGET /after HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
	raw_send(&r, hold, sizeof(hold) - 1);
	for (int i = 0; i < 100 && !s.held; i++)
		t_turns(1);
	assert_non_null(s.held);
	t_turns(20);
	assert_int_equal(s.requests, 6);
	td_request_reply(s.held, 201, NULL, NULL, 0, NULL, 0);
	assert_int_equal(raw_wait(&r, "HTTP/1.1 200 OK", 6), 6);
	assert_non_null(strstr(r.got, "HTTP/1.1 201 Created"));
	assert_string_equal(s.seen, "GET /after");
	assert_true(t_until(&r.eof, 5000));
	assert_non_null(strstr(r.got, "Connection: close"));
	raw_close(&r);
	/* Expect: 100-continue */
	raw_open(&r, &s.addr);
	static const char expect[] = "POST /e HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
	raw_send(&r, expect, sizeof(expect) - 1);
	assert_int_equal(raw_wait(&r, "100 Continue", 1), 1);
	raw_send(&r, "ok", 2);
	assert_int_equal(raw_wait(&r, "200 OK", 1), 1);
	raw_close(&r);
	td_http_server_free(s.h);
	t_close();
}

static void refusals(void **state)
{
	static char long_line[20000], long_head[20000];
	memset(long_line, 'a', sizeof(long_line) - 1);
	memcpy(long_line, "GET /", 5);
	snprintf(long_head, sizeof(long_head), "GET / HTTP/1.1\r\nHost: x\r\nX: ");
	memset(long_head + strlen(long_head), 'b', sizeof(long_head) - 1 - strlen(long_head));
	static const struct {
		const char *in;
		int status;
	} cases[] = {
	    {"GET / HTTP/1.1\nHost: x\n\n", 400},
	    {"GET / HTTP/1.1\r\n\r\n", 400},
	    {"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400},
	    {"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", 400},
	    {"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400},
	    {"GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n", 400},
	    {"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", 400},
	    {"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", 405},
	    {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400},
	    {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n", 400},
	    {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 411},
	    {"POST / HTTP/1.1\r\nHost: x\r\n\r\n", 411},
	    {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n", 413},
	    {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: tea\r\n\r\n", 417},
	    {"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505},
	    {"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 8\r\n"
	     "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
	     426},
	    {"\x16\x03\x01\x02", 400},
	    {long_line, 414},
	    {long_head, 431},
	};
	struct server s;
	t_open();
	serve(&s, false, 0, 0);
	for (size_t i = 0; i < TNL_COUNT(cases); i++) {
		struct raw r;
		char want[40];
		int before = s.refused;
		raw_open(&r, &s.addr);
		raw_send(&r, cases[i].in, strlen(cases[i].in));
		if (!t_until(&r.eof, 5000))
			fail_msg("case %zu: no answer", i);
		snprintf(want, sizeof(want), "HTTP/1.1 %d ", cases[i].status);
		if (strncmp(r.got, want, strlen(want)) != 0)
			fail_msg("case %zu: wanted %s, got %.60s", i, want, r.got);
		assert_non_null(strstr(r.got, "Connection: close"));
		assert_true(cases[i].status != 426 || strstr(r.got, "Sec-WebSocket-Version: 13"));
		assert_int_equal(s.refused, before + 1); /* told once */
		assert_int_equal(s.last_refused, cases[i].status);
		raw_close(&r);
	}
	assert_int_equal(s.requests, 0);
	for (int i = 0; i < 100 && td_http_server_connections(s.h); i++)
		t_turns(1);
	assert_int_equal(td_http_server_connections(s.h), 0);
	td_http_server_free(s.h);
	t_close();
}

static void slow_heads(void **state)
{
	struct server s;
	struct raw r;
	t_open();
	serve(&s, false, 0, 100 * TD_MS);
	raw_open(&r, &s.addr);
	raw_send(&r, "GET / HT", 8);
	assert_true(t_until(&r.eof, 5000));
	assert_non_null(strstr(r.got, "408 "));
	assert_int_equal(s.last_refused, 408);
	raw_close(&r);
	raw_open(&r, &s.addr); /* says nothing at all: closed without a word */
	assert_true(t_until(&r.eof, 5000));
	assert_int_equal(r.n, 0);
	raw_close(&r);
	td_http_server_free(s.h);
	/* the same before TLS */
	serve(&s, true, 0, 100 * TD_MS);
	raw_open(&r, &s.addr);
	raw_send(&r, "\x16\x03", 2);
	assert_true(t_until(&r.eof, 5000));
	raw_close(&r);
	t_turns(5);
	assert_int_equal(td_http_server_connections(s.h), 0);
	td_http_server_free(s.h);
	t_close();
}

static void per_peer_limit(void **state)
{
	struct server s;
	struct raw r[4];
	t_open();
	static const char get[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
	serve(&s, false, 3, 0);
	for (int i = 0; i < 4; i++) {
		raw_open(&r[i], &s.addr);
		if (i < 3) { /* not for those that have asked something */
			raw_send(&r[i], get, sizeof(get) - 1);
			assert_int_equal(raw_wait(&r[i], "200 OK", 1), 1);
		}
		t_turns(5);
	}
	assert_int_equal(s.last_refused, 503);
	assert_int_equal(td_http_server_connections(s.h), 3);
	assert_true(t_until(&r[3].eof, 5000));
	raw_close(&r[0]); /* makes room for another */
	t_turns(5);
	raw_close(&r[3]);
	raw_open(&r[3], &s.addr);
	raw_send(&r[3], get, sizeof(get) - 1);
	assert_int_equal(raw_wait(&r[3], "200 OK", 1), 1);
	for (int i = 1; i < 4; i++)
		raw_close(&r[i]);
	td_http_server_free(s.h);
	t_close();
}

/* Many that say nothing do not keep one out that does. */
static void silent_ones_make_way(void **state)
{
	struct server s;
	struct raw silent[5], half, good;
	static const char get[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
	t_open();
	serve(&s, false, 4, 0);
	raw_open(&half, &s.addr);
	raw_send(&half, get, 20);
	for (int i = 0; i < 5; i++) {
		raw_open(&silent[i], &s.addr);
		t_turns(5);
	}
	raw_open(&good, &s.addr);
	raw_send(&good, get, sizeof(get) - 1);
	assert_int_equal(raw_wait(&good, "200 OK", 1), 1);
	assert_true(t_until(&half.eof, 5000) && t_until(&silent[0].eof, 5000)); /* the oldest first */
	assert_int_equal(td_http_server_connections(s.h), 4);
	assert_true(!silent[4].eof && !s.last_refused);
	raw_close(&half);
	raw_close(&good);
	for (int i = 0; i < 5; i++)
		raw_close(&silent[i]);
	td_http_server_free(s.h);
	t_close();
}

/* A head of 16 KiB byte by byte is looked at a few times, not once for each byte. */
static void head_in_pieces(void **state)
{
	struct server s;
	struct raw r;
	char head[16000];
	t_open();
	serve(&s, false, 0, 0);
	raw_open(&r, &s.addr);
	size_t n = (size_t)sprintf(head, "GET / HTTP/1.1\r\nHost: x\r\n");
	for (int i = 0; n < 15000; i++)
		n += (size_t)sprintf(head + n, "X-%d: %0170d\r\n", i, i);
	n += (size_t)sprintf(head + n, "\r\n");
	uint64_t steps = tnl_steps_made;
	for (size_t i = 0; i < n; i++, t_turns(2))
		raw_send(&r, head + i, 1);
	assert_int_equal(raw_wait(&r, "200 OK", 1), 1);
	assert_in_range(tnl_steps_made - steps, n, 5 * n);
	raw_close(&r);
	td_http_server_free(s.h);
	t_close();
}

static void full_memory(void **state)
{
	struct server s;
	struct raw r[2];
	static const char get[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
	t_open();
	serve(&s, false, 0, 0);
	td_memory_limit(64 << 20);
	td_memory_change(128 << 20);
	raw_open(&r[0], &s.addr);
	raw_open(&r[1], &s.addr);
	raw_send(&r[1], get, sizeof(get) - 1);
	t_turns(20);
	assert_in_range(td_http_server_connections(s.h), 0, 1); /* not accepted while memory is short … */
	td_memory_change(-(128 << 20));
	assert_int_equal(raw_wait(&r[1], "200 OK", 1), 1); /* … and not lost */
	td_memory_limit(96u << 20);
	raw_close(&r[0]);
	raw_close(&r[1]);
	td_http_server_free(s.h);
	t_close();
}

static void signed_call(void **state)
{
	struct server s;
	t_open();
	serve(&s, true, 0, 0);
	struct td_http_client_opts o = {.tls = client_tls};
	struct tnl_sigv4_keys k = {.access_key_id = "AKID", .secret_access_key = "secret", .session_token = "tok"};
	static const char *const headers[][2] = {{"Content-Type", "application/x-amz-json-1.1"},
						 {"X-Amz-Target", "AmazonSSM.X"}};
	struct result x = {0};
	char url[100];
	snprintf(url, sizeof(url), "%s/", s.url);
	assert_non_null(
	    td_http_client_signed(T, "POST", url, headers, 2, "{}", 2, &k, "eu-west-1", "ssm", &o, on_response, &x));
	assert_true(t_until(&x.done, 20000));
	assert_int_equal(x.err, 0);
	free(x.body);
	td_http_server_free(s.h);
	t_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(exchanges),      cmocka_unit_test(unix_socket),	cmocka_unit_test(client_failures),
	    cmocka_unit_test(wrong_name),     cmocka_unit_test(keep_alive),	cmocka_unit_test(refusals),
	    cmocka_unit_test(slow_heads),     cmocka_unit_test(per_peer_limit), cmocka_unit_test(silent_ones_make_way),
	    cmocka_unit_test(head_in_pieces), cmocka_unit_test(full_memory),	cmocka_unit_test(signed_call),
	};
	return cmocka_run_group_tests(tests, tls_setup, tls_teardown);
}
