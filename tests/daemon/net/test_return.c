/* Connections that go back to HTTP when the WebSocket on them is over: when, and when not.  A server over TLS that
 * answers POSTs and echoes on WebSockets. */
#include "tests/daemon/net/tls_test.h"
#include "tunneld/net/http_client.h"
#include "tunneld/net/http_server.h"

static struct {
	struct td_http_kept kept;
	struct td_http_server *h;
	char http[160], ws[160];
	bool agrees, offered;
	char peer[TD_ADDR_STR]; /* of the last request */
	struct td_addr from;
	struct td_wslink *w; /* the server's end */
	int closed, returned;
	struct td_wslink *c; /* the client's */
	int opened, answers, ended;
} W;

/* --- the server ------------------------------------------------------------------- */

static void server_message(void *ctx, enum tnl_ws_op op, uint8_t *p, size_t n)
{
	assert_int_equal(td_wslink_send(W.w, op, p, n), 0);
}

static void server_closed(void *ctx, int err, uint16_t code, int http_status, const char *why)
{
	struct tnl_buf bytes;
	tnl_buf_init(&bytes, 4096);
	struct td_conn *c = td_wslink_return(W.w, &bytes);
	W.closed++;
	W.returned += c != NULL;
	td_wslink_free(W.w);
	W.w = NULL;
	if (c)
		td_http_server_take(W.h, c, &W.from, &bytes);
	tnl_buf_fini(&bytes);
}

static const struct td_wslink_cb server_cb = {.message = server_message, .closed = server_closed};

static void on_request(void *ctx, struct td_request *r)
{
	size_t n;
	const uint8_t *body = td_request_body(r, &n);
	snprintf(W.peer, sizeof(W.peer), "%s", td_request_peer(r));
	W.offered = td_request_offers_return(r);
	if (!td_request_is_upgrade(r)) {
		td_request_reply(r, 200, "text/plain", NULL, 0, body, n);
		return;
	}
	const struct td_wslink_opts o = {.returns = W.agrees && W.offered};
	W.from = *td_request_peer_addr(r);
	td_wslink_free(W.w);
	W.w = td_request_upgrade(r, &o, &server_cb, NULL);
}

static void serve(bool tls)
{
	struct td_addr a = t_addr("127.0.0.1:0");
	struct td_http_server_config c = {.addrs = &a,
					  .naddrs = 1,
					  .request = on_request,
					  .tls = tls ? server_tls : NULL};
	char why[256], name[TD_ADDR_STR];
	W.h = td_http_server_new(T, &c, why, sizeof(why));
	assert_non_null(W.h);
	assert_int_equal(td_http_server_addr(W.h, 0, &a), 0);
	snprintf(W.http, sizeof(W.http), "http%s://%s/x", tls ? "s" : "", td_addr_str(&a, name));
	snprintf(W.ws, sizeof(W.ws), "ws%s://%s/x", tls ? "s" : "", name);
}

static int set_up(void **state)
{
	t_open();
	memset(&W, 0, sizeof(W));
	W.agrees = true;
	td_http_kept_init(&W.kept, T);
	serve(true);
	return 0;
}

static int tear_down(void **state)
{
	td_wslink_free(W.w);
	td_wslink_free(W.c);
	td_http_kept_fini(&W.kept);
	td_http_server_free(W.h);
	t_turns(5);
	t_close();
	return 0;
}

/* --- the client ------------------------------------------------------------------- */

static void on_answer(void *ctx, const struct td_http_client_response *r)
{
	assert_int_equal(r->err, 0);
	assert_int_equal(r->status, 200);
	(*(int *)ctx)++;
}

static void ask(int *done, const char *proof)
{
	const char *const header[][2] = {{"Tunneld-Return", proof ? proof : ""}};
	struct td_http_client_opts o = {.timeout_ns = 5 * TD_SEC, .kept = &W.kept, .tls = client_tls};
	*done = 0;
	assert_non_null(
	    td_http_client_request(T, "POST", W.http, header, proof != NULL, "body", 4, &o, on_answer, done));
}

static void call(void)
{
	int done;
	ask(&done, NULL);
	assert_true(t_until(&done, 5000));
}

static void on_open(void *ctx)
{
	W.opened++;
	assert_int_equal(td_wslink_send(W.c, TNL_WS_BINARY, "hello", 5), 0);
}

static void on_message(void *ctx, enum tnl_ws_op op, uint8_t *p, size_t n)
{
	assert_int_equal(n, 5);
	W.answers++;
}

static void on_ended(void *ctx, int err, uint16_t code, int http_status, const char *why)
{
	W.ended++;
}

/* Until its first message was echoed. */
static void open_websocket(void)
{
	static const struct td_wslink_cb cb = {.open = on_open, .message = on_message, .closed = on_ended};
	const struct td_wslink_opts o = {.timeout_ns = 5 * TD_SEC, .kept = &W.kept, .tls = client_tls, .returns = true};
	W.opened = W.answers = W.closed = W.ended = W.returned = 0;
	W.c = td_wslink_dial(T, W.ws, &o, &cb, NULL);
	assert_non_null(W.c);
	assert_true(t_until(&W.answers, 5000));
}

static void retire(void)
{
	td_wslink_retire(W.c);
	W.c = NULL;
}

static void until_kept(unsigned n)
{
	for (int i = 0; W.kept.count != n && i < 5000; i++)
		t_turns(1);
	assert_int_equal(W.kept.count, n);
}

/* --- tests ------------------------------------------------------------------------ */

/* Call, WebSocket, call, WebSocket …: one connection for all of them. */
static void one_connection_for_all(void **state)
{
	char first[TD_ADDR_STR];
	call();
	memcpy(first, W.peer, sizeof(first));
	for (int i = 0; i < 5; i++) {
		open_websocket();
		assert_string_equal(W.peer, first);
		assert_int_equal(W.kept.count, 0);
		retire();
		until_kept(1);
		assert_true(W.closed || t_until(&W.closed, 5000));
		assert_int_equal(W.returned, 1);
		assert_int_equal(td_http_server_connections(W.h), 1);
		call();
		assert_string_equal(W.peer, first);
	}
	assert_int_equal(W.ended, 0);
}

/* The server says goodbye first, or both at once; the next request comes right behind the client's close frame. */
static void whoever_closes_first(void **state)
{
	char first[TD_ADDR_STR];
	int done;
	call();
	memcpy(first, W.peer, sizeof(first));
	for (int turns = 0; turns < 5; turns++) {
		open_websocket();
		td_wslink_close(W.w, 1000, "over");
		if (turns == 4) /* its owner hears of it first */
			assert_true(t_until(&W.ended, 5000));
		else
			t_turns(turns);
		retire();
		until_kept(1);
		ask(&done, NULL);
		assert_true(t_until(&done, 5000));
		assert_string_equal(W.peer, first);
		assert_true(W.closed || t_until(&W.closed, 5000));
		assert_int_equal(W.returned, 1);
	}
}

static void only_when_both_want_it(void **state)
{
	W.agrees = false;
	call();
	open_websocket();
	assert_true(W.offered);
	retire();
	assert_true(t_until(&W.closed, 5000));
	assert_int_equal(W.kept.count + (unsigned)W.returned, 0);
	/* a connection of its own: there was none to offer it for */
	W.agrees = true;
	open_websocket();
	assert_false(W.offered);
	retire();
	assert_true(t_until(&W.closed, 5000));
	assert_int_equal(W.kept.count + (unsigned)W.returned, 0);
}

/* Without TLS there is nothing that shows who is at the other end. */
static void not_without_tls(void **state)
{
	td_http_server_free(W.h);
	serve(false);
	call();
	open_websocket();
	assert_false(W.offered);
	retire();
	assert_true(t_until(&W.closed, 5000));
	assert_int_equal(W.kept.count, 0);
}

/* Who ends TLS in between passes on what the client says of its own connection. */
static void not_through_somebody_else(void **state)
{
	char other[65];
	int done;
	memset(other, 'a', 64);
	other[64] = '\0';
	ask(&done, other);
	assert_true(t_until(&done, 5000));
	assert_false(W.offered);
	ask(&done, "yes");
	assert_true(t_until(&done, 5000));
	assert_false(W.offered);
}

/* One that breaks, or whose other end does not answer the close frame, does not come back. */
static void not_when_it_broke(void **state)
{
	call();
	open_websocket();
	td_wslink_free(W.w);
	W.w = NULL;
	retire();
	t_turns(50);
	assert_int_equal(W.kept.count, 0);
	call();
	open_websocket();
	td_wslink_pause(W.w, true);
	retire();
	t_turns(50);
	assert_int_equal(W.kept.count + (unsigned)W.closed, 0);
	td_wslink_pause(W.w, false);
	until_kept(1);
}

/* Where they would come back to goes first: with the others, or while they say goodbye. */
static void nowhere_to_go(void **state)
{
	call();
	open_websocket();
	td_http_kept_fini(&W.kept);
	assert_int_equal(td_wslink_send(W.c, TNL_WS_BINARY, "still", 5), 0);
	W.answers = 0;
	assert_true(t_until(&W.answers, 5000));
	retire();
	assert_true(t_until(&W.closed, 5000));
	assert_int_equal(W.returned, 0);
	td_http_kept_init(&W.kept, T);
	call();
	open_websocket();
	retire();
	td_http_kept_fini(&W.kept);
	assert_true(t_until(&W.closed, 5000));
	assert_int_equal(W.kept.count, 0);
}

static void not_to_a_server_that_stops(void **state)
{
	call();
	open_websocket();
	td_http_server_stop_listening(W.h);
	retire();
	assert_true(t_until(&W.closed, 5000));
	t_turns(50);
	assert_int_equal(td_http_server_connections(W.h), 0);
	assert_int_equal(W.kept.count, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(one_connection_for_all),    TEST(whoever_closes_first),       TEST(only_when_both_want_it),
	    TEST(not_without_tls),	     TEST(not_when_it_broke),	       TEST(nowhere_to_go),
	    TEST(not_through_somebody_else), TEST(not_to_a_server_that_stops),
	};
	return cmocka_run_group_tests(tests, tls_setup, tls_teardown);
}
