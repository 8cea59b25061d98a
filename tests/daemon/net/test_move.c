/* A link that goes from the main loop to a worker's: nothing that was read, written or waited for before is lost. */
#include "tests/daemon/net/tls_test.h"
#include "lib/num.h"
#include "tunneld/base/worker.h"
#include "tunneld/net/http_server.h"
#include "tunneld/net/wslink.h"

#include <sys/socket.h>

/* The server's end moves; all of it is the worker's from then on. */
struct server {
	struct td_http_server *h;
	struct td_worker *k;
	struct td_wslink *w;
	char url[100];
	int pause_at, move_at; /* message */
	bool moved;
	int messages, there; /* of these on the worker */
	size_t got;
	uint32_t sum;
	int over, code;
	/* the main thread's */
	int opened, want, done, ended;
};

static void move_link(struct server *s)
{
	td_worker_hold(s->k);
	s->moved = true;
	td_wslink_move(s->w, td_worker_loop(s->k));
}

static void s_message(void *ctx, enum tnl_ws_op op, uint8_t *p, size_t n)
{
	struct server *s = ctx;
	s->messages++;
	s->there += td_worker_here();
	s->got += n;
	for (size_t i = 0; i < n; i++)
		s->sum = s->sum * 31 + p[i];
	if (s->messages == s->pause_at)
		td_wslink_pause(s->w, true);
	if (s->messages == s->move_at)
		move_link(s);
	if (td_worker_here())
		td_worker_post(s->k);
	else
		s->done = s->messages >= s->want;
}

static void s_closed(void *ctx, int err, uint16_t code, int http, const char *why)
{
	struct server *s = ctx;
	s->over++;
	s->code = code;
	if (td_worker_here())
		td_worker_post(s->k);
}

static const struct td_wslink_cb s_cb = {.message = s_message, .closed = s_closed};

static void on_mail(void *ctx)
{
	struct server *s = ctx;
	s->done = s->messages >= s->want;
	s->ended = s->over;
}

static void on_request(void *ctx, struct td_request *r)
{
	struct server *s = ctx;
	static const struct td_wslink_opts o = {.ping_ns = TD_SEC};
	s->w = td_request_upgrade(r, &o, &s_cb, s);
	assert_non_null(s->w);
	s->opened = 1;
}

static void serve(struct server *s, bool tls)
{
	struct td_addr a = t_addr("127.0.0.1:0");
	char why[256] = "", name[TD_ADDR_STR];
	struct td_http_server_config c = {
	    .addrs = &a, .naddrs = 1, .tls = tls ? server_tls : NULL, .request = on_request, .ctx = s};
	t_open();
	memset(s, 0, sizeof(*s));
	s->h = td_http_server_new(T, &c, why, sizeof(why));
	assert_non_null(s->h);
	s->k = td_worker_new(T, "mover", on_mail, s);
	assert_non_null(s->k);
	td_http_server_addr(s->h, 0, &a);
	snprintf(s->url, sizeof(s->url), "%s://%s/", tls ? "wss" : "ws", td_addr_str(&a, name));
}

struct client {
	struct td_wslink *w;
	int open, closed, code, messages, done;
	size_t got, want;
	uint32_t sum, sent_sum;
};

static void c_open(void *ctx)
{
	((struct client *)ctx)->open++;
}

static void c_message(void *ctx, enum tnl_ws_op op, uint8_t *p, size_t n)
{
	struct client *c = ctx;
	c->messages++;
	c->got += n;
	for (size_t i = 0; i < n; i++)
		c->sum = c->sum * 31 + p[i];
	c->done = c->want && c->got >= c->want;
}

static void c_closed(void *ctx, int err, uint16_t code, int http, const char *why)
{
	struct client *c = ctx;
	c->closed++;
	c->code = code;
}

static void dial(struct client *c, struct server *s)
{
	static const struct td_wslink_cb cb = {.open = c_open, .message = c_message, .closed = c_closed};
	struct td_wslink_opts o = {.tls = client_tls};
	memset(c, 0, sizeof(*c));
	c->w = td_wslink_dial(T, s->url, &o, &cb, c);
	assert_non_null(c->w);
	assert_true(t_until(&c->open, 10000));
	assert_true(t_until(&s->opened, 10000));
}

/* All in one turn, so that they come in one record. */
static void send_some(struct client *c, int n, size_t size)
{
	uint8_t b[2000];
	for (int i = 0; i < n; i++) {
		for (size_t k = 0; k < size; k++) {
			b[k] = (uint8_t)((size_t)i * 7 + k);
			c->sent_sum = c->sent_sum * 31 + b[k];
		}
		assert_int_equal(td_wslink_send(c->w, TNL_WS_BINARY, b, size), 0);
	}
}

static void finish(struct server *s, struct client *c)
{
	td_worker_stop(s->k);
	td_wslink_free(s->w);
	td_wslink_free(c->w);
	td_http_server_free(s->h);
	td_worker_free(s->k);
	t_close();
}

/* Moved with messages in the framing layer, paused: they come when it is read again, in the other thread. */
static void paused(void **state)
{
	for (int tls = 0; tls < 2; tls++) {
		struct server s;
		struct client c;
		int never = 0;
		serve(&s, tls);
		s.pause_at = 5;
		s.want = 5;
		dial(&c, &s);
		send_some(&c, 40, 1000);
		assert_true(t_until(&s.done, 10000));
		move_link(&s);
		t_until(&never, 50);
		td_worker_hold(s.k);
		assert_int_equal(s.messages, 5);
		s.want = 40;
		s.done = 0;
		td_wslink_pause(s.w, false);
		assert_true(t_until(&s.done, 10000));
		td_worker_hold(s.k);
		assert_int_equal(s.sum, c.sent_sum);
		assert_int_equal(s.there, 35);
		finish(&s, &c);
	}
}

/* Moved inside of message(), with more behind it. */
static void inside(void **state)
{
	for (int tls = 0; tls < 2; tls++) {
		struct server s;
		struct client c;
		serve(&s, tls);
		s.move_at = 3;
		s.want = 30;
		dial(&c, &s);
		send_some(&c, 30, 1000);
		assert_true(t_until(&s.done, 10000));
		send_some(&c, 30, 1000);
		s.done = 0;
		td_worker_hold(s.k);
		s.want = 60;
		assert_true(t_until(&s.done, 10000));
		td_worker_hold(s.k);
		assert_int_equal(s.sum, c.sent_sum);
		assert_in_range(s.there, 30, 57);
		finish(&s, &c);
	}
}

/* Moved between a send and the end of its turn, and while the kernel takes no more. */
static void unsent(void **state)
{
	for (int tls = 0; tls < 2; tls++) {
		struct server s;
		struct client c;
		static uint8_t b[60000];
		int never = 0, full = 0;
		serve(&s, tls);
		dial(&c, &s);
		td_wslink_pause(c.w, true);
		uint32_t want = 0;
		for (int i = 0; full < 3; i++) {
			memset(b, i, sizeof(b));
			if (td_wslink_send(s.w, TNL_WS_BINARY, b, sizeof(b)) != 0) {
				full++;
				t_until(&never, 20);
				continue;
			}
			full = 0;
			c.want += sizeof(b);
			for (size_t k = 0; k < sizeof(b); k++)
				want = want * 31 + b[k];
		}
		move_link(&s);
		t_turns(3);
		td_wslink_pause(c.w, false);
		assert_true(t_until(&c.done, 10000));
		assert_int_equal(c.sum, want);
		finish(&s, &c);
	}
}

/* Moved, and closed in the same turn by one side or the other. */
static void closing(void **state)
{
	for (int side = 0; side < 3; side++) {
		struct server s;
		struct client c;
		serve(&s, side != 1);
		dial(&c, &s);
		move_link(&s);
		if (side == 0)
			td_wslink_close(s.w, 1001, "bye");
		else if (side == 1)
			td_wslink_close(c.w, 1001, "bye");
		else
			td_wslink_free(c.w), c.w = NULL;
		assert_true(side == 2 || t_until(&c.closed, 10000));
		assert_true(t_until(&s.ended, 10000));
		assert_true(side == 2 || c.code == 1001);
		td_worker_hold(s.k);
		assert_int_equal(s.code, side == 2 ? 1006 : 1001);
		assert_int_equal(s.over, 1);
		finish(&s, &c);
	}
}

/* The end has been told, and nobody frees the link for a while: it is quiet, and what still comes wakes nobody. */
static void unfreed(void **state)
{
	struct server s;
	struct client c;
	int never = 0;
	serve(&s, true);
	dial(&c, &s);
	move_link(&s);
	send_some(&c, 3, 1000);
	s.want = 3;
	assert_true(t_until(&s.done, 10000));
	td_wslink_close(c.w, 1000, "");
	assert_true(t_until(&s.ended, 10000));
	td_wslink_free(c.w); /* the kernel says so at once, and goes on saying it */
	c.w = NULL;
	uint64_t before = td_worker_cpu(s.k);
	t_until(&never, 300);
	assert_true(td_worker_cpu(s.k) - before < 100 * TD_MS);
	finish(&s, &c);
}

/* --- a descriptor's number, used again ------------------------------------------------ */
struct reader {
	struct td_worker *k;
	struct td_conn *c;
	size_t got;
	int seen;
};

static void r_readable(void *ctx)
{
	struct reader *r = ctx;
	uint8_t b[100];
	ssize_t n;
	while ((n = td_conn_read(r->c, b, sizeof(b))) > 0)
		r->got += (size_t)n;
	td_worker_post(r->k);
}

static void r_closed(void *ctx, int err, const char *why) {}

static void r_mail(void *ctx)
{
	struct reader *r = ctx;
	r->seen = r->got > 0;
}

static const struct td_conn_cb r_cb = {.readable = r_readable, .closed = r_closed};

static int open_reader(struct reader *r)
{
	int fds[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	td_worker_hold(r->k);
	r->got = 0;
	r->seen = 0;
	r->c = td_conn_accepted(T, fds[0], NULL, 0, &r_cb, r);
	assert_non_null(r->c);
	td_conn_move(r->c, td_worker_loop(r->k));
	return fds[1];
}

/* One connection goes and another comes to the worker under the same number, in one turn. */
static void number_again(void **state)
{
	struct reader r = {0};
	t_open();
	r.k = td_worker_new(T, "reader", r_mail, &r);
	assert_non_null(r.k);
	int far = open_reader(&r);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(write(far, "x", 1), 1);
		assert_true(t_until(&r.seen, 10000));
		td_worker_hold(r.k);
		td_conn_free(r.c);
		int was = far;
		far = open_reader(&r);
		close(was);
	}
	td_worker_stop(r.k);
	td_conn_free(r.c);
	close(far);
	td_worker_free(r.k);
	t_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(paused),  cmocka_unit_test(inside),  cmocka_unit_test(unsent),
	    cmocka_unit_test(closing), cmocka_unit_test(unfreed), cmocka_unit_test(number_again),
	};
	return cmocka_run_group_tests(tests, tls_setup, tls_teardown);
}
