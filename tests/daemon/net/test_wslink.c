/* WebSocket links: echo over TLS, back-pressure, close codes, dead peers, refused upgrades, frees inside callbacks. */
#include "tests/daemon/net/tls_test.h"
#include "lib/num.h"
#include "tunneld/net/http_server.h"
#include "tunneld/net/wslink.h"
#include "tunneld/net/listen.h"

#include <sys/socket.h>

enum server_mode { ECHO, SINK_PAUSED, REFUSE, SILENT };

struct server {
	struct td_http_server *h;
	struct td_wslink *w;
	enum server_mode mode;
	char url[100], target[256], agent[64];
	bool authorized;
	size_t got;
	int closed, err, code, messages, batches, free_in_message;
	struct td_wslink_opts opts;
};

static void s_message(void *ctx, enum tnl_ws_op op, uint8_t *p, size_t n)
{
	struct server *s = ctx;
	s->messages++;
	s->got += n;
	if (s->free_in_message) {
		td_wslink_free(s->w);
		s->w = NULL;
		return;
	}
	if (s->mode == ECHO && s->w)
		assert_int_equal(td_wslink_send(s->w, op, p, n), 0);
	if (s->mode == SINK_PAUSED)
		td_wslink_pause(s->w, true);
}

static void s_batch(void *ctx)
{
	struct server *s = ctx;
	s->batches++;
}

static void s_closed(void *ctx, int err, uint16_t code, int http, const char *why)
{
	struct server *s = ctx;
	s->closed++;
	s->err = err;
	s->code = code;
	td_wslink_free(s->w);
	s->w = NULL;
}

static const struct td_wslink_cb s_cb = {.message = s_message, .batch_end = s_batch, .closed = s_closed};

static void on_request(void *ctx, struct td_request *r)
{
	struct server *s = ctx;
	const struct tnl_http_head *h = td_request_head(r);
	size_t n;
	const char *v = tnl_http_get(h, "user-agent", &n);
	snprintf(s->target, sizeof(s->target), "%.*s", (int)h->target_len, h->target);
	snprintf(s->agent, sizeof(s->agent), "%.*s", v ? (int)n : 0, v ? v : "");
	s->authorized = tnl_http_get(h, "authorization", NULL) && tnl_http_get(h, "x-amz-date", NULL);
	if (s->mode == REFUSE) {
		static const char text[] = "{\"message\":\"no such session\"}";
		td_request_reply(r, 403, "application/json", NULL, 0, text, sizeof(text) - 1);
		return;
	}
	assert_true(td_request_is_upgrade(r));
	s->w = td_request_upgrade(r, &s->opts, &s_cb, s);
	assert_non_null(s->w);
}

static void serve(struct server *s, enum server_mode mode, bool tls)
{
	struct td_addr a = t_addr("127.0.0.1:0");
	char why[256] = "", name[TD_ADDR_STR];
	struct td_http_server_config c = {
	    .addrs = &a, .naddrs = 1, .tls = tls ? server_tls : NULL, .request = on_request, .ctx = s};
	memset(s, 0, sizeof(*s));
	s->mode = mode;
	s->h = td_http_server_new(T, &c, why, sizeof(why));
	if (!s->h)
		fail_msg("%s", why);
	td_http_server_addr(s->h, 0, &a);
	snprintf(s->url, sizeof(s->url), "%s://%s/v1/data-channel/u@x.y-0?role=publish_subscribe", tls ? "wss" : "ws",
		 td_addr_str(&a, name));
}

struct client {
	struct td_wslink *w;
	int open, closed, err, code, http, writable, done;
	char why[2100];
	size_t got, sent, total, chunk;
	uint32_t sum, want;
	int stop; /* messages after which the link pauses itself */
};

static void c_send(struct client *c)
{
	static uint8_t buf[70000];
	while (c->w && c->sent < c->total && td_wslink_room(c->w) >= c->chunk) {
		for (size_t i = 0; i < c->chunk; i++)
			buf[i] = (uint8_t)(c->sent + i * 7);
		for (size_t i = 0; i < c->chunk; i += 61)
			c->want = c->want * 31 + buf[i];
		assert_int_equal(td_wslink_send(c->w, TNL_WS_BINARY, buf, c->chunk), 0);
		c->sent += c->chunk;
	}
}

static void c_open(void *ctx)
{
	struct client *c = ctx;
	c->open++;
	c_send(c);
}

static void c_message(void *ctx, enum tnl_ws_op op, uint8_t *p, size_t n)
{
	struct client *c = ctx;
	for (size_t i = 0; i < n; i += 61)
		c->sum = c->sum * 31 + p[i];
	c->got += n;
	if (c->total && c->got >= c->total)
		c->done = 1;
	if (c->stop && --c->stop == 0)
		td_wslink_pause(c->w, true);
}

static void c_writable(void *ctx)
{
	struct client *c = ctx;
	c->writable++;
	c_send(c);
}

static void c_closed(void *ctx, int err, uint16_t code, int http, const char *why)
{
	struct client *c = ctx;
	c->closed++;
	c->err = err;
	c->code = code;
	c->http = http;
	snprintf(c->why, sizeof(c->why), "%s", why);
	td_wslink_free(c->w);
	c->w = NULL;
}

static const struct td_wslink_cb c_cb = {.open = c_open,
					 .message = c_message,
					 .writable = c_writable,
					 .closed = c_closed};

static void dial(struct client *c, const char *url, struct td_wslink_opts *o)
{
	struct td_wslink_opts none = {.tls = client_tls};
	c->w = td_wslink_dial(T, url, o ? o : &none, &c_cb, c);
	assert_non_null(c->w);
	assert_int_equal(c->open + c->closed, 0);
}

static void finish(struct server *s, struct client *c)
{
	td_wslink_free(c->w);
	td_wslink_free(s->w);
	td_http_server_free(s->h);
	t_close();
}

static void echo(void **state)
{
	static const size_t sizes[] = {1, 1143, 16384, 65536};
	for (int tls = 0; tls < 2; tls++) {
		for (size_t i = 0; i < 4; i++) {
			struct server s;
			struct client c = {.chunk = sizes[i], .total = sizes[i] * (sizes[i] < 2000 ? 3000 : 200)};
			t_open();
			serve(&s, ECHO, tls);
			struct tnl_sigv4_keys k = {.access_key_id = "AKID", .secret_access_key = "s"};
			struct td_wslink_opts o = {.tls = client_tls,
						   .keys = tls ? &k : NULL,
						   .region = "r",
						   .service = "ssmmessages"};
			/* the echo answers inside message(): it must never find the link full */
			if (c.total > 200 * 1024)
				c.total = 200 * 1024 / c.chunk * c.chunk;
			dial(&c, s.url, &o);
			assert_true(t_until(&c.done, 20000));
			assert_int_equal(c.got, c.total);
			assert_int_equal(c.sum, c.want);
			assert_string_equal(s.agent, "tunneld/" TUNNELD_VERSION);
			assert_string_equal(s.target, "/v1/data-channel/u@x.y-0?role=publish_subscribe");
			assert_int_equal(s.authorized, tls);
			assert_in_range(s.batches, 1, s.messages);
			finish(&s, &c);
		}
	}
}

static void back_pressure(void **state)
{
	struct server s;
	struct client c = {.chunk = 32768, .total = 64u << 20};
	t_open();
	serve(&s, SINK_PAUSED, true); /* reads one message, then nothing */
	dial(&c, s.url, NULL);
	assert_true(t_until(&c.open, 5000));
	t_turns(200);
	size_t stuck = c.sent;
	assert_true(stuck < 16u << 20);
	assert_int_equal(s.messages, 1);
	t_turns(200);
	assert_int_equal(c.sent, stuck); /* the sender waits, the receiver got no second message */
	assert_int_equal(s.messages, 1);
	assert_true(td_wslink_queued(c.w) <= 512 * 1024);
	int before = s.messages;
	for (int i = 0; i < 100000 && s.got < c.total; i++) {
		td_wslink_pause(s.w, false);
		t_turns(1);
		assert_in_range(s.messages - before, 0, 2); /* each pause bites before the next message */
		before = s.messages;
	}
	assert_int_equal(s.got, c.total);
	assert_true(c.writable > 0);
	finish(&s, &c);
}

static void close_codes(void **state)
{
	struct server s;
	struct client c = {0};
	t_open();
	serve(&s, ECHO, true);
	dial(&c, s.url, NULL);
	assert_true(t_until(&c.open, 5000));
	td_wslink_close(s.w, 1000, "Bye"); /* as AWS does every hour */
	assert_true(t_until(&c.closed, 5000));
	assert_int_equal(c.err, TNL_EEOF);
	assert_int_equal(c.code, 1000);
	assert_non_null(strstr(c.why, "Bye"));
	assert_true(t_until(&s.closed, 5000));
	assert_int_equal(s.err, TNL_EEOF);
	/* the other way round */
	memset(&c, 0, sizeof(c));
	s.closed = 0;
	dial(&c, s.url, NULL);
	assert_true(t_until(&c.open, 5000));
	td_wslink_close(c.w, 1001, "away");
	assert_int_equal(td_wslink_send(c.w, TNL_WS_TEXT, "x", 1), TNL_ECLOSED);
	assert_true(t_until(&s.closed, 5000));
	assert_int_equal(s.code, 1001);
	assert_true(t_until(&c.closed, 5000));
	/* dropped without a word */
	memset(&c, 0, sizeof(c));
	dial(&c, s.url, NULL);
	assert_true(t_until(&c.open, 5000));
	td_wslink_free(s.w);
	s.w = NULL;
	assert_true(t_until(&c.closed, 5000));
	assert_int_equal(c.code, 1006);
	assert_true(c.err == TNL_ETRUNC || c.err == TNL_EIO);
	finish(&s, &c);
}

static void too_big(void **state)
{
	struct server s;
	struct client c = {.chunk = 5000, .total = 5000};
	t_open();
	serve(&s, ECHO, true);
	s.opts.max_message = 4096;
	dial(&c, s.url, NULL);
	assert_true(t_until(&c.closed, 5000));
	assert_int_equal(c.code, 1009);
	assert_true(t_until(&s.closed, 5000));
	assert_int_equal(s.err, TNL_ETOOBIG);
	finish(&s, &c);
}

static void refused(void **state)
{
	struct server s;
	struct client c = {0};
	t_open();
	serve(&s, REFUSE, true);
	dial(&c, s.url, NULL);
	assert_true(t_until(&c.closed, 5000));
	assert_int_equal(c.err, TNL_EREFUSED);
	assert_int_equal(c.http, 403);
	assert_non_null(strstr(c.why, "no such session"));
	memset(&c, 0, sizeof(c));
	dial(&c, "http://127.0.0.1/", NULL);
	assert_true(t_until(&c.closed, 5000));
	assert_int_equal(c.err, TNL_EINVAL);
	finish(&s, &c);
}

/* A peer that says 101 and then nothing, or something wrong. */
struct fake {
	struct td_listener *l;
	struct td_addr addr;
	int fd;
	const char *answer;
	ev_io io;
};

static void fake_read(struct ev_loop *ev, ev_io *w, int events)
{
	struct fake *f = w->data;
	char buf[4096];
	ssize_t n = read(f->fd, buf, sizeof(buf) - 1);
	if (n <= 0) {
		ev_io_stop(ev, w);
		return;
	}
	buf[n] = '\0';
	char *key = strstr(buf, "Sec-WebSocket-Key: ");
	if (!key)
		return;
	char accept[29], out[400];
	const char *at = strstr(f->answer, "%s"); /* where the accept key goes */
	tnl_ws_accept_key(key + 19, 24, accept);
	int len = snprintf(out, sizeof(out), "%.*s%s%s", at ? (int)(at - f->answer) : 0, f->answer, at ? accept : "",
			   at ? at + 2 : f->answer);
	assert_int_equal(write(f->fd, out, (size_t)len), len);
}

static void fake_accept(void *ctx, int fd, const struct td_addr *peer)
{
	struct fake *f = ctx;
	f->fd = fd;
	ev_io_init(&f->io, fake_read, fd, EV_READ);
	f->io.data = f;
	ev_io_start(T->ev, &f->io);
}

static void fake_serve(struct fake *f, char url[100], const char *answer)
{
	struct td_addr a = t_addr("127.0.0.1:0");
	char why[200], name[TD_ADDR_STR];
	f->answer = answer;
	f->l = td_listen(T, &a, fake_accept, f, why, sizeof(why));
	td_listener_addr(f->l, &f->addr);
	snprintf(url, 100, "ws://%s/", td_addr_str(&f->addr, name));
}

static void fake_close(struct fake *f)
{
	ev_io_stop(T->ev, &f->io);
	close(f->fd);
	td_listener_free(f->l);
}

#define HEAD_101 "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"

static void dead_peer(void **state)
{
	struct fake f = {.fd = -1};
	struct client c = {0};
	char url[100];
	t_open();
	fake_serve(&f, url, HEAD_101 "Sec-WebSocket-Accept: %s\r\n\r\n");
	struct td_wslink_opts o = {.ping_ns = 50 * TD_MS, .pong_ns = 100 * TD_MS};
	dial(&c, url, &o);
	assert_true(t_until(&c.open, 5000));
	uint64_t from = T->now;
	assert_true(t_until(&c.closed, 5000));
	assert_int_equal(c.err, TNL_ETIMEOUT);
	assert_in_range(T->now - from, 140 * TD_MS, 1000 * TD_MS);
	fake_close(&f);
	/* while paused no pong is missed: it may lie unread */
	memset(&c, 0, sizeof(c));
	fake_serve(&f, url, HEAD_101 "Sec-WebSocket-Accept: %s\r\n\r\n");
	dial(&c, url, &o);
	assert_true(t_until(&c.open, 5000));
	td_wslink_pause(c.w, true);
	assert_false(t_until(&c.closed, 400));
	td_wslink_pause(c.w, false);
	assert_true(t_until(&c.closed, 5000));
	fake_close(&f);
	/* a ping out of turn (after a sleep) finds out at once */
	memset(&c, 0, sizeof(c));
	o.ping_ns = 3600 * TD_SEC;
	fake_serve(&f, url, HEAD_101 "Sec-WebSocket-Accept: %s\r\n\r\n");
	dial(&c, url, &o);
	assert_true(t_until(&c.open, 5000));
	td_wslink_ping(c.w);
	assert_true(t_until(&c.closed, 1000));
	assert_int_equal(c.err, TNL_ETIMEOUT);
	fake_close(&f);
	t_close();
}

static void bad_answers(void **state)
{
	static const struct {
		const char *answer;
		int err;
	} cases[] = {
	    {HEAD_101 "Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\nX: %s\r\n\r\n", TNL_EPROTO},
	    {HEAD_101 "X: %s\r\n\r\n", TNL_EPROTO},
	    {"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", TNL_EPROTO},
	    {"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n", TNL_EPROTO},
	    {HEAD_101 "Sec-WebSocket-Accept: %s\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n", TNL_EPROTO},
	    {"SSH-2.0-OpenSSH\r\n\r\n", TNL_ESYNTAX},
	    {"HTTP/1.1 503 Busy\r\nContent-Length: 5\r\nX: %s\r\n\r\nlater", TNL_EREFUSED},
	    /* a text frame with reserved bits right behind the head */
	    {HEAD_101 "Sec-WebSocket-Accept: %s\r\n\r\n\xf1\x01x", TNL_EPROTO},
	};
	for (size_t i = 0; i < TNL_COUNT(cases); i++) {
		struct fake f = {.fd = -1};
		struct client c = {0};
		char url[100];
		t_open();
		fake_serve(&f, url, cases[i].answer);
		dial(&c, url, NULL);
		if (!t_until(&c.closed, 5000) || c.err != cases[i].err)
			fail_msg("case %zu: %d %s", i, c.err, c.why);
		fake_close(&f);
		t_close();
	}
}

static void early_frames(void **state)
{
	struct fake f = {.fd = -1};
	struct client c = {.total = 3, .sent = 3};
	char url[100];
	t_open();
	fake_serve(&f, url,
		   HEAD_101 "Sec-WebSocket-Accept: %s\r\n\r\n\x82\x03"
			    "abc"); /* a frame in the same segment as the head */
	dial(&c, url, NULL);
	assert_true(t_until(&c.done, 5000));
	assert_int_equal(c.open, 1);
	td_wslink_free(c.w);
	fake_close(&f);
	t_close();
}

static void upgrade_timeout(void **state)
{
	struct fake f = {.fd = -1};
	struct client c = {0};
	char url[100];
	t_open();
	fake_serve(&f, url, "HTTP/1.1 101 S\r\nX: %s\r\n"); /* never complete */
	struct td_wslink_opts o = {.timeout_ns = 100 * TD_MS};
	dial(&c, url, &o);
	assert_true(t_until(&c.closed, 5000));
	assert_int_equal(c.err, TNL_ETIMEOUT);
	fake_close(&f);
	t_close();
}

static void free_inside(void **state)
{
	struct server s;
	struct client c = {.chunk = 100, .total = 1000};
	t_open();
	int fds = t_open_fds();
	serve(&s, ECHO, true);
	s.free_in_message = 1;
	dial(&c, s.url, NULL);
	assert_true(t_until(&c.closed, 5000));
	assert_int_equal(s.messages, 1); /* nothing is delivered after the free */
	assert_int_equal(s.closed, 0);	 /* nor is closed() called */
	td_http_server_free(s.h);
	t_turns(5);
	assert_int_equal(t_open_fds(), fds);
	t_close();
}

static void pause_keeps_messages(void **state)
{
	struct server s;
	struct client c = {.chunk = 1000, .total = 100 * 1000, .stop = 5};
	t_open();
	serve(&s, ECHO, true);
	dial(&c, s.url, NULL);
	assert_false(t_until(&c.done, 100));
	assert_int_equal(c.got, 5000);
	td_wslink_pause(c.w, false); /* what lies in our own buffers causes no event, and must come all the same */
	assert_true(t_until(&c.done, 5000));
	assert_int_equal(c.sum, c.want);
	finish(&s, &c);
	/* all of it in one record, so that only the framing layer holds the rest; and no pong is missed meanwhile */
	memset(&c, 0, sizeof(c));
	c.chunk = 100;
	c.total = 2000;
	c.stop = 5;
	t_open();
	serve(&s, ECHO, true);
	struct td_wslink_opts o = {.tls = client_tls, .ping_ns = 20 * TD_MS, .pong_ns = 30 * TD_MS};
	dial(&c, s.url, &o);
	assert_false(t_until(&c.closed, 300));
	assert_int_equal(c.got, 500);
	td_wslink_pause(c.w, false);
	t_turns(1); /* at once: not with the next event, which may be a pong */
	assert_int_equal(c.done, 1);
	assert_int_equal(c.sum, c.want);
	finish(&s, &c);
}

/* What lingers goes with the next send, with a ping, or when its time is over; without any of these it stays. */
static void linger(void **state)
{
	struct server s;
	struct client c = {0};
	t_open();
	serve(&s, ECHO, true);
	dial(&c, s.url, NULL);
	assert_true(t_until(&c.open, 5000));
	assert_int_equal(td_wslink_send(c.w, TNL_WS_BINARY, "a", 1), 0);
	td_wslink_linger(c.w, 30 * TD_SEC);
	assert_false(t_until(&s.messages, 50));
	assert_int_equal(td_wslink_send(c.w, TNL_WS_BINARY, "b", 1), 0);
	assert_true(t_until(&s.messages, 5000));
	assert_int_equal(s.got, 2);
	s.messages = 0;
	assert_int_equal(td_wslink_send(c.w, TNL_WS_BINARY, "c", 1), 0);
	td_wslink_linger(c.w, 20 * TD_MS);
	assert_true(t_until(&s.messages, 5000));
	s.messages = 0;
	assert_int_equal(td_wslink_send(c.w, TNL_WS_BINARY, "d", 1), 0);
	td_wslink_linger(c.w, 30 * TD_SEC);
	td_wslink_ping(c.w);
	assert_true(t_until(&s.messages, 5000));
	/* Nothing was queued: there is nothing that could wait. */
	td_wslink_linger(c.w, 30 * TD_SEC);
	s.messages = 0;
	assert_int_equal(td_wslink_send(c.w, TNL_WS_BINARY, "e", 1), 0);
	assert_true(t_until(&s.messages, 5000));
	assert_int_equal(s.got, 5);
	finish(&s, &c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(echo),
	    cmocka_unit_test(back_pressure),
	    cmocka_unit_test(close_codes),
	    cmocka_unit_test(too_big),
	    cmocka_unit_test(refused),
	    cmocka_unit_test(dead_peer),
	    cmocka_unit_test(bad_answers),
	    cmocka_unit_test(early_frames),
	    cmocka_unit_test(upgrade_timeout),
	    cmocka_unit_test(free_inside),
	    cmocka_unit_test(pause_keeps_messages),
	    cmocka_unit_test(linger),
	};
	return cmocka_run_group_tests(tests, tls_setup, tls_teardown);
}
