/* Connections that are kept between requests: which are, for how long, and what happens when the server closes one. */
#include "tests/daemon/base/td_test.h"
#include "tunneld/base/fd.h"
#include "tunneld/net/http_client.h"
#include "tunneld/net/http_server.h"

#include <sys/socket.h>

static struct {
	struct td_http_kept kept;
	struct td_http_server *h;
	char url[80];
	int requests, status;
	char peer[TD_ADDR_STR]; /* of the last request */
	struct td_wslink *ws;	/* the server's end */
	int opened, ended;
} W;

static void server_closed(void *ctx, int err, uint16_t code, int http_status, const char *why)
{
	td_wslink_free(W.ws);
	W.ws = NULL;
}

static const struct td_wslink_cb server_cb = {.closed = server_closed};

static void on_request(void *ctx, struct td_request *r)
{
	size_t n;
	const uint8_t *body = td_request_body(r, &n);
	W.requests++;
	snprintf(W.peer, sizeof(W.peer), "%s", td_request_peer(r));
	if (td_request_is_upgrade(r)) {
		const struct td_wslink_opts o = {0};
		W.ws = td_request_upgrade(r, &o, &server_cb, NULL);
		return;
	}
	td_request_reply(r, W.status, "text/plain", NULL, 0, body, n);
}

static void serve_at(const char *at)
{
	struct td_addr a = t_addr(at);
	struct td_http_server_config c = {.addrs = &a, .naddrs = 1, .request = on_request};
	char why[256], name[TD_ADDR_STR];
	W.h = td_http_server_new(T, &c, why, sizeof(why));
	assert_non_null(W.h);
	assert_int_equal(td_http_server_addr(W.h, 0, &a), 0);
	snprintf(W.url, sizeof(W.url), "http://%s/x", td_addr_str(&a, name));
}

static int set_up(void **state)
{
	t_open();
	memset(&W, 0, sizeof(W));
	W.status = 200;
	td_http_kept_init(&W.kept, T);
	serve_at("127.0.0.1:0");
	return 0;
}

static int tear_down(void **state)
{
	td_wslink_free(W.ws);
	td_http_kept_fini(&W.kept);
	td_http_server_free(W.h);
	t_turns(5);
	t_close();
	return 0;
}

struct answer {
	int done, err, status;
	size_t n;
};

static void on_answer(void *ctx, const struct td_http_client_response *r)
{
	struct answer *a = ctx;
	a->done++;
	a->err = r->err;
	a->status = r->status;
	a->n = r->body_len;
}

static struct td_http_client *ask(struct answer *a, bool keep)
{
	struct td_http_client_opts o = {.timeout_ns = 5 * TD_SEC, .kept = keep ? &W.kept : NULL};
	*a = (struct answer){0};
	return td_http_client_request(T, "POST", W.url, NULL, 0, "body", 4, &o, on_answer, a);
}

static void call(bool keep)
{
	struct answer a;
	assert_non_null(ask(&a, keep));
	assert_true(t_until(&a.done, 5000));
	assert_int_equal(a.err, 0);
	assert_int_equal(a.status, W.status);
	assert_int_equal(a.n, W.status == 204 ? 0 : 4);
}

static void one_connection_serves_many(void **state)
{
	char first[TD_ADDR_STR];
	call(true);
	memcpy(first, W.peer, sizeof(first));
	assert_int_equal(W.kept.count, 1);
	for (int i = 0; i < 20; i++) {
		W.status = i == 10 ? 204 : i == 11 ? 500 : 200;
		call(true);
		assert_string_equal(W.peer, first);
		assert_int_equal(W.kept.count, 1);
	}
	W.status = 200;
	call(false); /* who does not ask for it gets one of his own */
	assert_string_not_equal(W.peer, first);
	assert_int_equal(W.kept.count, 1);
	/* two at once: the second dials, and both are kept */
	struct answer a, b;
	assert_non_null(ask(&a, true));
	assert_non_null(ask(&b, true));
	assert_true(t_until(&a.done, 5000) && t_until(&b.done, 5000));
	assert_int_equal(W.kept.count, 2);
	/* one that is given up in the middle is not */
	td_http_client_cancel(ask(&a, true));
	t_turns(5);
	assert_int_equal(W.kept.count, 1);
}

/* A server that goes closes what is idle; the next request finds out, or finds none, and dials. */
static void a_server_that_was_restarted(void **state)
{
	char at[80];
	call(true);
	snprintf(at, sizeof(at), "%.*s", (int)(strlen(W.url) - strlen("http:///x")), W.url + strlen("http://"));
	td_http_server_free(W.h);
	serve_at(at);
	call(true); /* before the loop has seen the end of the old one */
	assert_int_equal(W.requests, 2);
	td_http_server_free(W.h);
	for (int i = 0; W.kept.count && i < 1000; i++)
		t_turns(1);
	assert_int_equal(W.kept.count, 0);
	serve_at(at);
	call(true);
	assert_int_equal(W.requests, 3);
}

/* Not longer than so; and not when the machine has slept meanwhile, which the timer does not see. */
static void not_for_long(void **state)
{
	char first[TD_ADDR_STR];
	call(true);
	memcpy(first, W.peer, sizeof(first));
	T->wall_ms += 60000; /* until the next turn reads the clock */
	call(true);
	assert_string_not_equal(W.peer, first);
}

static void so_many_and_no_more(void **state)
{
	enum { MANY = TD_HTTP_KEPT_MAX + 8 };
	static struct answer a[MANY];
	for (int i = 0; i < MANY; i++)
		assert_non_null(ask(&a[i], true));
	for (int i = 0; i < MANY; i++) {
		assert_true(t_until(&a[i].done, 5000));
		assert_int_equal(a[i].err, 0);
	}
	assert_int_equal(W.requests, MANY);
	assert_int_equal(W.kept.count, TD_HTTP_KEPT_MAX);
}

static void on_open(void *ctx)
{
	W.opened++;
}

static void on_ended(void *ctx, int err, uint16_t code, int http_status, const char *why)
{
	W.ended++;
}

static struct td_wslink *open_websocket(void)
{
	static const struct td_wslink_cb cb = {.open = on_open, .closed = on_ended};
	const struct td_wslink_opts o = {.timeout_ns = 5 * TD_SEC, .kept = &W.kept};
	char url[90];
	snprintf(url, sizeof(url), "ws%.75s", W.url + strlen("http"));
	W.opened = 0;
	struct td_wslink *w = td_wslink_dial(T, url, &o, &cb, NULL);
	assert_non_null(w);
	assert_true(t_until(&W.opened, 5000));
	assert_int_equal(W.ended, 0);
	return w;
}

/* A session is started by a call and goes on in a WebSocket: one connection serves both. */
static void a_websocket_takes_one(void **state)
{
	char first[TD_ADDR_STR], at[80];
	call(true);
	memcpy(first, W.peer, sizeof(first));
	struct td_wslink *w = open_websocket();
	assert_string_equal(W.peer, first);
	assert_int_equal(W.kept.count, 0);
	td_wslink_free(w);
	w = open_websocket(); /* there is none now */
	assert_string_not_equal(W.peer, first);
	td_wslink_free(w);
	/* one that the server has closed meanwhile */
	call(true);
	memcpy(first, W.peer, sizeof(first));
	snprintf(at, sizeof(at), "%.*s", (int)(strlen(W.url) - strlen("http:///x")), W.url + strlen("http://"));
	td_wslink_free(W.ws);
	W.ws = NULL;
	td_http_server_free(W.h);
	serve_at(at);
	w = open_websocket();
	assert_string_not_equal(W.peer, first);
	td_wslink_free(w);
}

/* --- servers that are not ours ------------------------------------------------ */

/* Answers each of two requests with `text` on connections that stay open, and they end with err; -> the connections
 * that were made */
static int raw_answers(const char *text, int err)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof(a);
	int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fds[2] = {-1, -1}, made = 0;
	assert_int_equal(bind(l, (struct sockaddr *)&a, n) | listen(l, 4) | getsockname(l, (struct sockaddr *)&a, &n),
			 0);
	td_fd_nonblock(l);
	snprintf(W.url, sizeof(W.url), "http://127.0.0.1:%u/x", ntohs(a.sin_port));
	for (int k = 0; k < 2; k++) {
		struct answer x;
		char b[1024];
		assert_non_null(ask(&x, true));
		for (int i = 0; i < 20000 && !x.done; i++) {
			int fd = made < 2 ? accept(l, NULL, NULL) : -1;
			if (fd >= 0) {
				td_fd_nonblock(fd);
				fds[made++] = fd;
			}
			if (made && read(fds[made - 1], b, sizeof(b)) > 0)
				assert_int_equal(write(fds[made - 1], text, strlen(text)), (ssize_t)strlen(text));
			t_turns(1);
		}
		assert_int_equal(x.done, 1);
		assert_int_equal(x.err, err);
		t_turns(5);
	}
	close(fds[0]);
	if (made > 1)
		close(fds[1]);
	close(l);
	return made;
}

static int raw_server(const char *text)
{
	return raw_answers(text, 0);
}

/* Who says for ever that an answer is coming. */
static void answers_that_never_begin(void **state)
{
	static const char interim[] = "HTTP/1.1 100 Continue\r\n\r\n",
			  ok[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
	char text[1000] = "";
	for (int i = 0; i < 16; i++)
		strcat(text, interim);
	strcat(text, ok);
	assert_int_equal(raw_server(text), 2);
	strcpy(text + 16 * strlen(interim), interim);
	strcat(text, ok);
	assert_int_equal(raw_answers(text, TNL_EPROTO), 2);
}

/* Only where the answer says so, and where it ends where it should. */
static void only_where_the_server_says_so(void **state)
{
	assert_int_equal(raw_server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok"), 1);
	assert_int_equal(raw_server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), 2);
	assert_int_equal(raw_server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"), 2);
	assert_int_equal(
	    raw_server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nokHTTP/1.1 200 OK\r\n"),
	    2);
	assert_int_equal(raw_server("HTTP/1.1 204 No\r\nConnection: keep-alive\r\n\r\nHTTP/1.1 403 No\r\n\r\n"), 2);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(one_connection_serves_many), TEST(a_server_that_was_restarted), TEST(not_for_long),
	    TEST(so_many_and_no_more),	      TEST(a_websocket_takes_one),	 TEST(only_where_the_server_says_so),
	    TEST(answers_that_never_begin),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
