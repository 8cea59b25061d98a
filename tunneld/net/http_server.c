/* Connections of the HTTP server: accepting, heads and bodies, the next request on the same connection.  Answers and
 * upgrades are in http_server_reply.c. */
#include "tunneld/net/http_server_internal.h"

#include "lib/alloc.h"
#include "lib/num.h"
#include "lib/proxyhead.h"
#include "tunneld/base/fd.h"
#include "tunneld/base/log.h"
#include "tunneld/net/listen.h"

#include <stdio.h>
#include <string.h>

#define HEAD_TIMEOUT (10 * TD_SEC)
#define BODY_TIMEOUT (30 * TD_SEC)
#define IDLE_TIMEOUT (75 * TD_SEC)
#define BODY_DEFAULT (64u * 1024)
#define PER_PEER 256u
#define READ_STEP ((size_t)4096)
#define AHEAD_MAX (16u * 1024) /* of the next requests, while one is worked on */

/* --- life of a connection ---------------------------------------------------- */

static void free_memory(void *arg)
{
	struct hconn *c = arg;
	tnl_buf_fini_wiped(&c->in);
	tnl_buf_fini_wiped(&c->ahead);
	tnl_buf_fini_wiped(&c->out);
	tnl_free(c);
}

void td_hconn_drop_request(struct hconn *c)
{
	td_loop_free_later(c->h->l, c->req);
	c->req = NULL;
}

void td_hconn_free(struct hconn *c)
{
	if (c->state == HC_GONE)
		return;
	c->state = HC_GONE;
	td_peers_leave(c->h->peers, &c->counted);
	c->h->count--;
	td_hconn_set_owed(c, 0);
	td_hconn_heard(c);
	tnl_list_remove(&c->node);
	td_timer_stop(&c->timer);
	td_soon_cancel(&c->process);
	td_conn_free(c->conn);
	td_hconn_drop_request(c);
	td_loop_defer(c->h->l, free_memory, c);
}

static void on_closed(void *ctx, int err, const char *why)
{
	struct hconn *c = ctx;
	struct td_request *r = c->state == HC_BUSY ? c->req : NULL;
	td_debug("httpd", NULL, "connection over: %s peer=%s", why, td_conn_peer(c->conn));
	if (err == TNL_EREFUSED && c->h->cfg.refused)
		c->h->cfg.refused(c->h->cfg.ctx, td_conn_peer(c->conn), 400, why);
	if (c->state == HC_GONE) /* the server may have been freed */
		return;
	if (r && c->h->cfg.gone)
		c->h->cfg.gone(c->h->cfg.ctx, r);
	td_hconn_free(c);
}

/* Refused before it became a request: answered, told once, closed. */
static void refuse_request(struct hconn *c, int status, const char *field)
{
	char body[160];
	struct td_http_server *h = c->h;
	int n = snprintf(body, sizeof(body), "{\"message\":\"%s\"}\n", field);
	if (h->cfg.refused)
		h->cfg.refused(h->cfg.ctx, td_conn_peer(c->conn), status, field);
	if (c->state == HC_GONE) /* the server may have been freed */
		return;
	c->close_after = true;
	td_hconn_heard(c);
	tnl_buf_reset(&c->in);
	static const char *const version[][2] = {{"Sec-WebSocket-Version", "13"}};
	td_hconn_drop_request(c);
	td_hconn_answer(c, status, "application/json", status == 426 ? version : NULL, status == 426 ? 1 : 0, body,
			(size_t)n, false);
}

static void on_timer(void *arg)
{
	struct hconn *c = arg;
	if (c->state == HC_HEAD && tnl_buf_len(&c->in) == 0) {
		c->state = HC_DRAIN;
		td_conn_shutdown(c->conn);
	} else if (c->state == HC_HEAD) {
		refuse_request(c, 408, "head: not complete in time");
	} else if (c->state == HC_BODY) {
		refuse_request(c, 408, "body: not complete in time");
	} else if (c->state == HC_REPLY || c->state == HC_DRAIN) {
		td_hconn_free(c); /* the peer does not take its answer */
	}
}

void td_hconn_next(struct hconn *c)
{
	if (c->close_after || c->h->stopping) {
		c->state = HC_DRAIN;
		td_timer_stop(&c->timer); /* the connection has a limit of its own for closing */
		td_conn_shutdown(c->conn);
		return;
	}
	c->state = HC_HEAD;
	c->head = (struct tnl_http_wait){0};
	c->served = true;
	c->continued = false;
	if (tnl_buf_len(&c->ahead))
		tnl_buf_put(&c->in, tnl_buf_data(&c->ahead),
			    tnl_buf_len(&c->ahead)); /* `in` has room for it above a body */
	tnl_buf_reset(&c->ahead);
	tnl_buf_trim(&c->ahead);
	td_timer_in(&c->timer, tnl_buf_len(&c->in) ? HEAD_TIMEOUT : IDLE_TIMEOUT);
	tnl_buf_trim(&c->in);
	tnl_buf_trim(&c->out);
	td_conn_pause(c->conn, false);
	if (tnl_buf_len(&c->in)) {
		td_hconn_silent(c);
		td_soon_do(&c->process);
	}
}

/* --- requests ---------------------------------------------------------------- */

static int head_status(int err, const struct td_request *r, const struct tnl_buf *in)
{
	if (err == TNL_EVERSION)
		return 505;
	if (err == TNL_ETOOBIG)
		return memchr(tnl_buf_data(in), '\n', tnl_buf_len(in)) ? 431 : 414;
	return r->head.fault && strcmp(r->head.fault, "Transfer-Encoding") == 0 ? 411 : 400;
}

static bool method_is(const struct td_request *r, const char *m)
{
	return r->head.method_len == strlen(m) && memcmp(r->head.method, m, r->head.method_len) == 0;
}

/* What the head alone rules out: a status and the field, or 0. */
static int check_head(struct hconn *c, const char **field)
{
	const struct td_request *r = c->req;
	const struct tnl_http_head *h = &r->head;
	size_t max = c->h->cfg.body_max ? c->h->cfg.body_max : BODY_DEFAULT;
	if (method_is(r, "CONNECT") || method_is(r, "TRACE")) {
		*field = "method: not for this server";
		return 405;
	}
	if (h->content_length < 0 && (method_is(r, "POST") || method_is(r, "PUT") || method_is(r, "PATCH"))) {
		*field = "Content-Length: missing";
		return 411;
	}
	if (h->content_length > 0 && (uint64_t)h->content_length > max) {
		*field = "body: too long";
		return 413;
	}
	if (tnl_http_get(h, "expect", NULL) && !tnl_http_has_token(h, "expect", "100-continue")) {
		*field = "Expect: only 100-continue";
		return 417;
	}
	if (tnl_http_has_token(h, "upgrade", "websocket") && !td_request_is_upgrade(r)) {
		*field = "WebSocket upgrade: version 13, a key and Connection: Upgrade are required";
		return method_is(r, "GET") && tnl_http_get(h, "sec-websocket-version", NULL) ? 426 : 400;
	}
	return 0;
}

static void parse_head(struct hconn *c)
{
	struct tnl_buf *in = &c->in;
	const char *field = NULL;
	if (!c->req) {
		c->req = tnl_calloc(1, sizeof(*c->req));
		if (!c->req) {
			td_hconn_free(c);
			return;
		}
		c->req->hc = c;
	}
	if (!tnl_http_worth_parsing(&c->head, tnl_buf_data(in), tnl_buf_len(in)))
		return;
	int n = tnl_http_parse(true, tnl_buf_data(in), tnl_buf_len(in), &c->req->head);
	if (n == TNL_EAGAIN)
		return;
	if (n < 0 && !c->h->cfg.tls && tnl_proxyhead_looks(tnl_buf_data(in), tnl_buf_len(in))) {
		refuse_request(c, 400, TD_CONN_STRAY_HEADER);
		return;
	}
	if (n < 0) {
		char text[120];
		snprintf(text, sizeof(text), "head: %s", c->req->head.fault ? c->req->head.fault : tnl_err_text(n));
		refuse_request(c, head_status(n, c->req, in), text);
		return;
	}
	c->req->head_len = (size_t)n;
	int status = check_head(c, &field);
	if (status) {
		refuse_request(c, status, field);
		return;
	}
	c->req->body_len = c->req->head.content_length > 0 ? (size_t)c->req->head.content_length : 0;
	c->close_after = !c->req->head.keep_alive || c->handed; /* the next one nobody has looked at */
	c->asks_keep = tnl_http_has_token(&c->req->head, "connection", "keep-alive");
	c->state = HC_BODY;
	td_timer_in(&c->timer, BODY_TIMEOUT);
}

static void take_body(struct hconn *c)
{
	struct td_request *r = c->req;
	if (tnl_buf_len(&c->in) < r->head_len + r->body_len) {
		if (!c->continued && tnl_http_get(&r->head, "expect", NULL) && r->head.minor) {
			static const char go[] = "HTTP/1.1 100 Continue\r\n\r\n";
			td_conn_write(c->conn, go, sizeof(go) - 1);
		}
		c->continued = true;
		return;
	}
	/* Growing the buffer for the body may have moved the head. */
	int n = tnl_http_parse(true, tnl_buf_data(&c->in), r->head_len, &r->head);
	if (n < 0) {
		td_hconn_free(c);
		return;
	}
	c->state = HC_BUSY;
	td_hconn_heard(c);
	td_timer_stop(&c->timer);
	c->h->cfg.request(c->h->cfg.ctx, r);
}

static void process_input(void *arg)
{
	struct hconn *c = arg;
	if (c->state == HC_HEAD && tnl_buf_len(&c->in))
		parse_head(c);
	if (c->state == HC_BODY)
		take_body(c);
}

/* While the role works on a request its slices must stay where they are: what comes meanwhile goes to a buffer of its
 * own. Reading goes on so that the peer's leaving is noticed. */
static void on_readable(void *ctx)
{
	struct hconn *c = ctx;
	while (c->state < HC_REPLY) {
		struct tnl_buf *b = c->state == HC_BUSY ? &c->ahead : &c->in;
		bool first = c->state == HC_HEAD && tnl_buf_len(b) == 0;
		size_t want = TNL_MIN(tnl_buf_room(b), READ_STEP);
		if (want == 0) {
			td_conn_pause(c->conn, true); /* until the answer is out */
			return;
		}
		uint8_t *p = tnl_buf_reserve(b, want);
		ssize_t k = p ? td_conn_read(c->conn, p, want) : TNL_ENOMEM;
		if (k == TNL_ENOMEM)
			td_hconn_free(c);
		if (k <= 0)
			return;
		tnl_buf_commit(b, (size_t)k);
		if (first && c->served) {
			td_timer_in(&c->timer, c->h->cfg.head_timeout_ns ? c->h->cfg.head_timeout_ns : HEAD_TIMEOUT);
			td_hconn_silent(c);
		}
		td_hconn_grown(c);
		if (c->state == HC_GONE)
			return;
		process_input(c);
	}
}

static void on_writable(void *ctx)
{
	struct hconn *c = ctx;
	if (c->state == HC_REPLY || c->state == HC_DRAIN)
		td_hconn_send(c);
}

/* --- listening ---------------------------------------------------------------- */

static void pause_all(struct td_http_server *h, bool paused)
{
	for (int i = 0; i < h->nlisteners; i++)
		td_listener_pause(h->listeners[i], paused);
}

static void on_room(void *arg)
{
	struct td_http_server *h = arg;
	if (h->full_told)
		td_warn("httpd", NULL, "there is room again, accepting goes on");
	h->full_told = false;
	pause_all(h, false);
}

static void pause_for_memory(struct td_http_server *h)
{
	if (!h->full_at || h->l->now - h->full_at > 60 * TD_SEC) {
		h->full_at = h->l->now;
		h->full_told = true;
		td_error("httpd", NULL,
			 "memory is full, accepting stops until there is room used=%llu memory_limit=%llu",
			 (unsigned long long)td_memory_used(), (unsigned long long)td_memory_max());
	}
	pause_all(h, true);
}

static bool count_peer(struct td_http_server *h, const struct td_addr *peer, struct td_peer *counted)
{
	unsigned max = h->cfg.per_peer_max ? h->cfg.per_peer_max : PER_PEER;
	if (td_peers_enter(h->peers, peer, max, counted))
		return true;
	struct td_peer who = td_peer_of(peer);
	return (td_http_server_drop_silent(&h->silent, &who) || td_http_server_drop_silent(&h->silent_handed, &who)) &&
	       td_peers_enter(h->peers, peer, max, counted);
}

static void refuse_crowd(struct td_http_server *h, const struct td_addr *peer)
{
	char name[TD_ADDR_STR];
	if (h->cfg.refused)
		h->cfg.refused(h->cfg.ctx, td_addr_str(peer, name), 503, "connections: too many from this peer");
}

/* Whom a balancer comes for, who counts from here on. */
static void on_named(void *ctx, const struct td_addr *peer)
{
	struct hconn *c = ctx;
	c->peer = *peer;
	if (count_peer(c->h, peer, &c->counted))
		return;
	refuse_crowd(c->h, peer);
	if (c->state != HC_GONE)
		td_hconn_free(c);
}

static const struct td_conn_cb conn_cb = {.readable = on_readable,
					  .writable = on_writable,
					  .closed = on_closed,
					  .named = on_named};

static uint64_t head_timeout(const struct td_http_server *h)
{
	return h->cfg.head_timeout_ns ? h->cfg.head_timeout_ns : HEAD_TIMEOUT;
}

static void init_hconn(struct hconn *c, struct td_http_server *h)
{
	c->h = h;
	h->count++;
	tnl_buf_init(&c->in, TNL_HTTP_HEAD_MAX + (h->cfg.body_max ? h->cfg.body_max : BODY_DEFAULT) + 2 * AHEAD_MAX);
	tnl_buf_init(&c->ahead, AHEAD_MAX);
	tnl_buf_init(&c->out, 16u * 1024 * 1024);
	tnl_list_init(&c->silent);
	td_timer_init(&c->timer, h->l, on_timer, c);
	td_soon_init(&c->process, h->l, process_input, c);
	tnl_list_push_back(&h->conns, &c->node);
}

/* Takes fd; NULL: no memory. */
static struct hconn *add_hconn(struct td_http_server *h, int fd, bool behind, struct tnl_tls_ctx *tls)
{
	struct hconn *c = tnl_calloc(1, sizeof(*c));
	if (!c) {
		td_fd_rst_close(fd);
		return NULL;
	}
	c->conn = behind ? td_conn_accepted_behind(h->l, fd, tls, head_timeout(h), &conn_cb, c)
			 : td_conn_accepted(h->l, fd, tls, head_timeout(h), &conn_cb, c);
	if (!c->conn) {
		tnl_free(c);
		return NULL;
	}
	init_hconn(c, h);
	td_timer_in(&c->timer, head_timeout(h));
	return c;
}

void td_http_server_take(struct td_http_server *h, struct td_conn *conn, const struct td_addr *peer,
			 const struct tnl_buf *early)
{
	struct td_peer counted = {.len = 0};
	struct hconn *c = h->stopping || td_memory_full() ? NULL : tnl_calloc(1, sizeof(*c));
	if (!c || !count_peer(h, peer, &counted)) {
		td_conn_free(conn);
		tnl_free(c);
		return;
	}
	init_hconn(c, h);
	c->conn = conn;
	c->peer = *peer;
	c->counted = counted;
	tnl_buf_put(&c->in, tnl_buf_data(early), tnl_buf_len(early));
	td_conn_set_cb(conn, &conn_cb, c);
	td_conn_pause(conn, true); /* what was read already causes no event */
	td_hconn_next(c);
}

static void on_accept(void *ctx, int fd, const struct td_addr *peer)
{
	struct td_http_server *h = ctx;
	bool behind = h->cfg.behind && h->cfg.behind(h->cfg.ctx, peer);
	if (td_memory_full() && h->cfg.crowded)
		h->cfg.crowded(h->cfg.ctx);
	if (td_memory_full())
		pause_for_memory(h);
	struct td_peer counted = {.len = 0};
	td_http_server_make_way(h);
	if (!behind && !count_peer(h, peer, &counted)) {
		refuse_crowd(h, peer);
		td_fd_rst_close(fd);
		return;
	}
	struct hconn *c = add_hconn(h, fd, behind, h->cfg.tls);
	if (!c) {
		td_peers_leave(h->peers, &counted);
		return;
	}
	c->peer = *peer;
	c->counted = counted;
	td_hconn_silent(c);
}

void td_http_server_hand(struct td_http_server *h, int fd, uint64_t number)
{
	td_http_server_make_way_handed(h);
	struct hconn *c = add_hconn(h, fd, true, NULL);
	if (!c)
		return;
	c->handed = number;
	td_hconn_silent(c);
	td_conn_vouched(c->conn);
}

struct td_http_server *td_http_server_new(struct td_loop *l, const struct td_http_server_config *cfg, char *why,
					  size_t cap)
{
	struct td_http_server *h = tnl_calloc(1, sizeof(*h));
	if (h) {
		h->l = l;
		h->cfg = *cfg;
		h->cfg.addrs = NULL;
		if (cfg->tls)
			tnl_tls_ctx_ref(cfg->tls);
		tnl_list_init(&h->conns);
		tnl_list_init(&h->silent.list);
		tnl_list_init(&h->silent_handed.list);
		h->peers = td_peers_new();
		h->listeners = tnl_calloc((size_t)cfg->naddrs + 1, sizeof(*h->listeners));
	}
	if (!h || !h->peers || !h->listeners) {
		snprintf(why, cap, "out of memory");
		goto fail;
	}
	for (int i = 0; i < cfg->naddrs; i++) {
		h->listeners[i] = td_listen(l, &cfg->addrs[i], on_accept, h, why, cap);
		if (!h->listeners[i])
			goto fail;
		td_listener_use_spare(h->listeners[i]);
		h->nlisteners++;
	}
	td_memory_on_room(&h->room, l, on_room, h);
	return h;
fail:
	td_http_server_free(h);
	return NULL;
}

void td_http_server_stop_listening(struct td_http_server *h)
{
	for (int i = 0; i < h->nlisteners; i++)
		td_listener_free(h->listeners[i]);
	h->nlisteners = 0;
	h->stopping = true;
	tnl_list_foreach_safe(it, &h->conns) {
		struct hconn *c = tnl_container_of(it, struct hconn, node);
		if (c->state == HC_HEAD && tnl_buf_len(&c->in) == 0)
			td_hconn_next(c); /* idle: nothing to wait for */
	}
}

void td_http_server_free(struct td_http_server *h)
{
	if (!h)
		return;
	td_memory_off_room(&h->room);
	for (int i = 0; i < h->nlisteners; i++)
		td_listener_free(h->listeners[i]);
	h->nlisteners = 0;
	while (!tnl_list_empty(&h->conns))
		td_hconn_free(tnl_container_of(h->conns.next, struct hconn, node));
	tnl_tls_ctx_free(h->cfg.tls);
	td_peers_free(h->peers);
	tnl_free(h->listeners);
	td_loop_free_later(h->l, h);
}

void td_http_server_set_tls(struct td_http_server *h, struct tnl_tls_ctx *tls)
{
	tnl_tls_ctx_ref(tls);
	tnl_tls_ctx_free(h->cfg.tls);
	h->cfg.tls = tls;
}

int td_http_server_addr(const struct td_http_server *h, int i, struct td_addr *out)
{
	if (i < 0 || i >= h->nlisteners)
		return -1;
	td_listener_addr(h->listeners[i], out);
	return 0;
}

size_t td_http_server_connections(const struct td_http_server *h)
{
	return h->count;
}
