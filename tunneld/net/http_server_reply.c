/* Answers and upgrades. */
#include "tunneld/net/http_server_internal.h"
#include "tunneld/net/wslink_internal.h"

#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/num.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define REFUSALS_MAX 32u
#define REPLY_TIMEOUT (30 * TD_SEC)
#define OWED_PARTS 16u /* of memory: what answers may take that their peers do not */

static const char *reason_text(int status)
{
	static const struct {
		int status;
		const char *text;
	} table[] = {
	    {101, "Switching Protocols"},
	    {200, "OK"},
	    {201, "Created"},
	    {204, "No Content"},
	    {400, "Bad Request"},
	    {401, "Unauthorized"},
	    {403, "Forbidden"},
	    {404, "Not Found"},
	    {405, "Method Not Allowed"},
	    {408, "Request Timeout"},
	    {409, "Conflict"},
	    {410, "Gone"},
	    {411, "Length Required"},
	    {413, "Content Too Large"},
	    {414, "URI Too Long"},
	    {415, "Unsupported Media Type"},
	    {417, "Expectation Failed"},
	    {426, "Upgrade Required"},
	    {429, "Too Many Requests"},
	    {431, "Request Header Fields Too Large"},
	    {500, "Internal Server Error"},
	    {501, "Not Implemented"},
	    {503, "Service Unavailable"},
	    {505, "HTTP Version Not Supported"},
	};
	for (size_t i = 0; i < TNL_COUNT(table); i++) {
		if (table[i].status == status)
			return table[i].text;
	}
	return status < 400 ? "OK" : status < 500 ? "Bad Request" : "Internal Server Error";
}

/* Clients measure their clock against ours with it. */
static void put_date(struct tnl_buf *b, uint64_t wall_ms)
{
	static const char days[] = "SunMonTueWedThuFriSat", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	time_t t = (time_t)(wall_ms / 1000);
	struct tm tm;
	gmtime_r(&t, &tm);
	tnl_buf_printf(b, "Date: %.3s, %02d %.3s %d %02d:%02d:%02d GMT\r\n", days + 3 * tm.tm_wday, tm.tm_mday,
		       months + 3 * tm.tm_mon, tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

void td_hconn_set_owed(struct hconn *c, size_t n)
{
	c->h->owed += n - c->owed;
	c->owed = n;
}

/* An answer is out once the kernel has it: what the connection keeps is owed as well, and the next request, of which
 * nothing is read until then, waits for it. */
void td_hconn_send(struct hconn *c)
{
	td_conn_pause(c->conn, true);
	size_t n = td_conn_write(c->conn, tnl_buf_data(&c->out), tnl_buf_len(&c->out));
	tnl_buf_consume(&c->out, n);
	td_conn_flush(c->conn);
	size_t left = tnl_buf_len(&c->out);
	td_hconn_set_owed(c, left ? c->owed : td_conn_queued(c->conn));
	if (!c->owed)
		td_hconn_next(c);
	else if (!left) {
		tnl_buf_trim(&c->out);
		td_conn_tell_empty(c->conn);
	}
}

/* Of the answers that go out beside this one: which has waited longest for its peer. */
static struct hconn *oldest_owed(const struct hconn *beside)
{
	struct hconn *oldest = NULL;
	tnl_list_foreach(it, &beside->h->conns) {
		struct hconn *c = tnl_container_of(it, struct hconn, node);
		if (c != beside && c->owed && (!oldest || c->timer.at < oldest->timer.at))
			oldest = c;
	}
	return oldest;
}

/* Memory is for others than those who ask and do not read. */
static void make_room(struct hconn *c)
{
	struct td_http_server *h = c->h;
	struct hconn *o;
	while (h->owed > td_memory_max() / OWED_PARTS && (o = oldest_owed(c)) != NULL) {
		if (h->cfg.refused)
			h->cfg.refused(h->cfg.ctx, td_conn_peer(o->conn), 503,
				       "answer: not taken, and others need its memory");
		td_hconn_free(o);
	}
}

void td_hconn_answer(struct hconn *c, int status, const char *content_type, const char *const (*headers)[2], size_t n,
		     const void *body, size_t len, bool head_only)
{
	struct tnl_buf *b = &c->out;
	tnl_buf_printf(b, "HTTP/1.1 %d %s\r\n", status, reason_text(status));
	put_date(b, c->h->l->wall_ms);
	if (content_type)
		tnl_buf_printf(b, "Content-Type: %s\r\n", content_type);
	for (size_t i = 0; i < n; i++) {
		if (!strpbrk(headers[i][0], "\r\n:") && !strpbrk(headers[i][1], "\r\n"))
			tnl_buf_printf(b, "%s: %s\r\n", headers[i][0], headers[i][1]);
	}
	if (status != 204)
		tnl_buf_printf(b, "Content-Length: %zu\r\n", len);
	if (c->close_after || c->h->stopping) {
		c->close_after = true;
		tnl_buf_puts(b, "Connection: close\r\n");
	} else if (c->asks_keep) {
		tnl_buf_puts(b, "Connection: keep-alive\r\n");
	}
	tnl_buf_puts(b, "\r\n");
	if (len && !head_only && status != 204)
		tnl_buf_put(b, body, len);
	if (b->failed) { /* no memory, or an answer beyond reason: half an answer must not look whole */
		td_hconn_free(c);
		return;
	}
	c->state = HC_REPLY;
	td_timer_in(&c->timer, REPLY_TIMEOUT);
	td_hconn_set_owed(c, tnl_buf_len(b));
	td_hconn_send(c);
	if (c->owed)
		make_room(c);
}

/* Who is refused again and again may come back with a new connection, at its price. */
static void count_refusals(struct hconn *c, int status)
{
	struct td_http_server *h = c->h;
	c->refusals = status >= 400 ? c->refusals + 1 : 0;
	if (c->refusals < REFUSALS_MAX)
		return;
	c->close_after = true;
	if (h->cfg.refused)
		h->cfg.refused(h->cfg.ctx, td_conn_peer(c->conn), status,
			       "connection closed: too many refused requests");
}

void td_request_reply(struct td_request *r, int status, const char *content_type, const char *const (*headers)[2],
		      size_t n, const void *body, size_t len)
{
	struct hconn *c = r->hc;
	count_refusals(c, status);
	bool head_only = r->head.method_len == 4 && memcmp(r->head.method, "HEAD", 4) == 0;
	tnl_buf_consume(&c->in, r->head_len + r->body_len);
	td_hconn_drop_request(c);
	td_hconn_answer(c, status, content_type, headers, n, body, len, head_only);
}

/* --- requests, as the roles see them ------------------------------------------ */

const struct tnl_http_head *td_request_head(const struct td_request *r)
{
	return &r->head;
}

const uint8_t *td_request_body(const struct td_request *r, size_t *n)
{
	*n = r->body_len;
	return tnl_buf_data(&r->hc->in) + r->head_len;
}

bool td_request_cert_named(const struct td_request *r, const char *name)
{
	return td_conn_cert_named(r->hc->conn, name);
}

struct tnl_tls *td_request_tls(const struct td_request *r)
{
	return td_conn_tls(r->hc->conn);
}

const char *td_request_peer(const struct td_request *r)
{
	return td_conn_peer(r->hc->conn);
}

const struct td_addr *td_request_peer_addr(const struct td_request *r)
{
	return &r->hc->peer;
}

uint64_t td_request_handed(const struct td_request *r)
{
	return r->hc->handed;
}

void td_request_set_user(struct td_request *r, void *u)
{
	r->user = u;
}

void *td_request_user(const struct td_request *r)
{
	return r->user;
}

/* --- upgrade -------------------------------------------------------------------- */

bool td_request_is_upgrade(const struct td_request *r)
{
	const struct tnl_http_head *h = &r->head;
	size_t n, vn;
	uint8_t raw[16 + 2];
	const char *key = tnl_http_get(h, "sec-websocket-key", &n);
	const char *version = tnl_http_get(h, "sec-websocket-version", &vn);
	return h->method_len == 3 && memcmp(h->method, "GET", 3) == 0 && h->minor == 1 && h->content_length <= 0 &&
	       tnl_http_has_token(h, "upgrade", "websocket") && tnl_http_has_token(h, "connection", "upgrade") && key &&
	       n == 24 && tnl_unb64(key, n, raw, sizeof(raw)) == 16 && version && vn == 2 &&
	       memcmp(version, "13", 2) == 0;
}

struct td_conn *td_request_detach(struct td_request *r, struct tnl_buf *bytes)
{
	struct hconn *c = r->hc;
	struct td_conn *conn = NULL;
	tnl_buf_put(bytes, tnl_buf_data(&c->in), tnl_buf_len(&c->in));
	tnl_buf_put(bytes, tnl_buf_data(&c->ahead), tnl_buf_len(&c->ahead));
	if (!bytes->failed) {
		conn = c->conn;
		c->conn = NULL;
	}
	td_hconn_free(c);
	return conn;
}

bool td_request_offers_return(const struct td_request *r)
{
	size_t n;
	char proof[WSLINK_PROOF];
	const char *said = tnl_http_get(&r->head, WSLINK_RETURN_HEADER, &n);
	return said && n == WSLINK_PROOF - 1 && td_wslink_return_proof(r->hc->conn, proof) &&
	       memcmp(said, proof, n) == 0;
}

struct td_wslink *td_request_upgrade(struct td_request *r, const struct td_wslink_opts *o,
				     const struct td_wslink_cb *cb, void *ctx)
{
	struct hconn *c = r->hc;
	struct td_conn *conn = c->conn;
	struct td_wslink *w = NULL;
	char accept[29], head[240];
	size_t klen;
	const char *key = tnl_http_get(&r->head, "sec-websocket-key", &klen);
	tnl_ws_accept_key(key ? key : "", key ? klen : 0, accept);
	int n = snprintf(head, sizeof(head),
			 "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
			 "Sec-WebSocket-Accept: %s\r\n%s\r\n",
			 accept, o->returns ? WSLINK_RETURN_HEADER ": yes\r\n" : "");
	tnl_buf_consume(&c->in, r->head_len + r->body_len);
	if (tnl_buf_len(&c->ahead))
		tnl_buf_put(&c->in, tnl_buf_data(&c->ahead), tnl_buf_len(&c->ahead));
	if (!c->in.failed && td_conn_write(conn, head, (size_t)n) == (size_t)n) {
		c->conn = NULL; /* adopt takes it, also when it fails */
		td_conn_pause(conn, false);
		w = td_wslink_adopt(c->h->l, conn, tnl_buf_data(&c->in), tnl_buf_len(&c->in), o, cb, ctx);
	}
	td_hconn_free(c);
	return w;
}
