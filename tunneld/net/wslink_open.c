/* The client's way to an open link: connect, GET upgrade (signed or not), check the answer. */
#include "tunneld/net/wslink_internal.h"

#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/enc.h"
#include "lib/num.h"
#include "tunneld/net/http_sign.h"

#include <stdio.h>
#include <string.h>

#define OPEN_TIMEOUT (15 * TD_SEC)
#define REFUSAL_MAX (16u * 1024)
#define REFUSAL_TEXT ((size_t)1024) /* of a refusal's body, in the text */
#define REASON_SHOWN ((size_t)60)
#define READ_STEP ((size_t)4096)
#define REFUSAL_WAIT (2 * TD_SEC)

struct wslink_upgrade {
	struct tnl_buf req, raw, body;
	struct tnl_http_head head;
	struct tnl_http_wait wait;
	struct tnl_http_body dec;
	struct wslink_limits lim;
	char key[25], name[300];
	bool refused;
	/* A connection that was kept may prove to be closed: then another one is dialed. */
	bool reused;
	struct td_http_kept *returns_to; /* offered */
	uint64_t began;
	size_t sent; /* of req */
	char host[256];
	struct td_proxy proxy;
	struct td_conn_opts to;
};

void td_wslink_upgrade_free(struct td_wslink *w)
{
	struct wslink_upgrade *u = w->up;
	if (!u)
		return;
	w->up = NULL;
	tnl_buf_fini_wiped(&u->req);
	tnl_buf_fini(&u->raw);
	tnl_buf_fini(&u->body);
	tnl_free_wiped(u, sizeof(*u)); /* a proxy's password is in it */
}

static void end_refused(struct td_wslink *w)
{
	struct wslink_upgrade *u = w->up;
	size_t n = TNL_MIN(tnl_buf_len(&u->body), REFUSAL_TEXT);
	td_wslink_end(w, TNL_EREFUSED, 1006, u->head.status, "%s refused the WebSocket: %d %.*s: %.*s", u->name,
		      u->head.status, (int)TNL_MIN(u->head.reason_len, REASON_SHOWN), u->head.reason, (int)n,
		      (const char *)tnl_buf_data(&u->body));
}

void td_wslink_upgrade_timeout(struct td_wslink *w)
{
	if (w->up->refused)
		end_refused(w);
	else
		td_wslink_end(w, TNL_ETIMEOUT, 1006, 0, "%s did not answer the WebSocket upgrade in time", w->up->name);
}

static void send_request(void *ctx)
{
	struct td_wslink *w = ctx;
	if (!w->up)
		return;
	struct wslink_upgrade *u = w->up;
	u->sent += td_conn_write(w->conn, tnl_buf_data(&u->req) + u->sent, tnl_buf_len(&u->req) - u->sent);
	td_conn_flush(w->conn);
}

/* What is wrong with a 101, or NULL. */
static const char *check_101(const struct wslink_upgrade *u)
{
	char want[29];
	size_t n;
	const char *got = tnl_http_get(&u->head, "sec-websocket-accept", &n);
	tnl_ws_accept_key(u->key, strlen(u->key), want);
	if (!tnl_http_has_token(&u->head, "upgrade", "websocket"))
		return "no Upgrade: websocket";
	if (!tnl_http_has_token(&u->head, "connection", "upgrade"))
		return "no Connection: Upgrade";
	if (!got || n != strlen(want) || memcmp(got, want, n) != 0)
		return "Sec-WebSocket-Accept does not belong to the key";
	if (tnl_http_get(&u->head, "sec-websocket-extensions", NULL) ||
	    tnl_http_get(&u->head, "sec-websocket-protocol", NULL))
		return "an extension or protocol that was not asked for";
	return NULL;
}

static void feed_refusal(struct td_wslink *w, const uint8_t *p, size_t n)
{
	struct wslink_upgrade *u = w->up;
	int r = u->dec.done ? 0 : tnl_http_body_feed(&u->dec, p, n, &u->body);
	if (r < 0 || u->dec.done)
		end_refused(w);
}

static void lease_connection(struct td_wslink *w)
{
	const struct wslink_upgrade *u = w->up;
	char place[TD_HTTP_PLACE];
	td_http_kept_place(place, !u->to.plain, u->host, u->to.port, u->to.proxy);
	td_wslink_lease(w, u->returns_to, place);
}

static void handle_answer(struct td_wslink *w, size_t head)
{
	struct wslink_upgrade *u = w->up;
	const uint8_t *rest = tnl_buf_data(&u->raw) + head;
	size_t n = tnl_buf_len(&u->raw) - head;
	if (u->head.status != 101) {
		u->refused = true;
		td_timer_in(&w->timer, REFUSAL_WAIT);
		tnl_http_body_init(&u->dec, &u->head, false);
		feed_refusal(w, rest, n);
		return;
	}
	const char *fault = check_101(u);
	if (fault) {
		td_wslink_end(w, TNL_EPROTO, 1006, 101, "%s: answer to the WebSocket upgrade: %s", u->name, fault);
		return;
	}
	int r = td_wslink_begin(w, false, &u->lim, rest, n);
	if (u->returns_to && tnl_http_get(&u->head, WSLINK_RETURN_HEADER, NULL))
		lease_connection(w);
	td_wslink_upgrade_free(w);
	if (r)
		td_wslink_end(w, r, 1006, 0, "out of memory");
	else if (w->cb.open)
		w->cb.open(w->ctx);
}

static void on_readable(void *ctx)
{
	struct td_wslink *w = ctx;
	while (w->state == WSL_UPGRADE) {
		struct wslink_upgrade *u = w->up;
		if (u->refused) {
			uint8_t chunk[2048];
			ssize_t k = td_conn_read(w->conn, chunk, sizeof(chunk));
			if (k <= 0)
				return;
			feed_refusal(w, chunk, (size_t)k);
			continue;
		}
		size_t want = TNL_MIN(tnl_buf_room(&u->raw), READ_STEP);
		uint8_t *p = want ? tnl_buf_reserve(&u->raw, want) : NULL;
		if (!p) {
			td_wslink_end(w, TNL_ETOOBIG, 1006, 0, "%s: answer to the WebSocket upgrade is too long",
				      u->name);
			return;
		}
		ssize_t k = td_conn_read(w->conn, p, want);
		if (k <= 0)
			return;
		tnl_buf_commit(&u->raw, (size_t)k);
		if (!tnl_http_worth_parsing(&u->wait, tnl_buf_data(&u->raw), tnl_buf_len(&u->raw)))
			continue;
		int n = tnl_http_parse(false, tnl_buf_data(&u->raw), tnl_buf_len(&u->raw), &u->head);
		if (n > 0)
			handle_answer(w, (size_t)n);
		else if (n != TNL_EAGAIN)
			td_wslink_end(w, n, 1006, 0, "%s: answer to the WebSocket upgrade is not proper HTTP: %s",
				      u->name, u->head.fault ? u->head.fault : tnl_err_text(n));
	}
}

static int dial(struct td_wslink *w);

static void on_closed(void *ctx, int err, const char *why)
{
	struct td_wslink *w = ctx;
	if (w->up && w->up->reused && w->l->now - w->up->began < TD_SEC && !tnl_buf_len(&w->up->raw)) {
		td_conn_free(w->conn);
		w->up->sent = 0;
		if (dial(w) == 0)
			return;
	}
	if (w->up && w->up->refused)
		end_refused(w);
	else if (err == TNL_EEOF)
		td_wslink_end(w, TNL_ETRUNC, 1006, 0, "%s closed the connection during the WebSocket upgrade",
			      w->up ? w->up->name : "the peer");
	else
		td_wslink_end(w, err, 1006, 0, "%s", why);
}

static const struct td_conn_cb upgrade_cb = {
    .ready = send_request,
    .readable = on_readable,
    .writable = send_request,
    .closed = on_closed,
};

static int dial(struct td_wslink *w)
{
	w->up->reused = false;
	w->up->returns_to = NULL;
	w->conn = td_conn_dial(w->l, &w->up->to, &upgrade_cb, w);
	return w->conn ? 0 : TNL_ENOMEM;
}

/* The head's last lines: of a connection that is there already it can be offered that it comes back. */
static int end_request(struct td_wslink *w, struct td_http_kept *returns_to)
{
	struct wslink_upgrade *u = w->up;
	char proof[WSLINK_PROOF];
	if (w->conn && returns_to && td_wslink_return_proof(w->conn, proof)) {
		tnl_buf_printf(&u->req, WSLINK_RETURN_HEADER ": %s\r\n", proof);
		u->returns_to = returns_to;
	}
	tnl_buf_puts(&u->req, "\r\n");
	return u->req.failed ? TNL_ELIMIT : 0;
}

static int take_kept_or_dial(struct td_wslink *w, const struct td_wslink_opts *o)
{
	struct wslink_upgrade *u = w->up;
	char place[TD_HTTP_PLACE];
	td_http_kept_place(place, !u->to.plain, u->host, u->to.port, u->to.proxy);
	w->conn = o->kept ? td_http_kept_take(o->kept, place) : NULL;
	int r = end_request(w, o->returns ? o->kept : NULL);
	if (r)
		return r;
	if (!w->conn)
		return dial(w);
	u->reused = true;
	u->began = w->l->now;
	td_conn_set_cb(w->conn, &upgrade_cb, w);
	send_request(w);
	return 0;
}

/* --- making the request ---------------------------------------------------- */

static int build_request(struct td_wslink *w, const struct tnl_url *url, const struct td_wslink_opts *o)
{
	struct wslink_upgrade *u = w->up;
	struct tnl_buf *b = &u->req;
	uint8_t rnd[16];
	char host[300];
	tnl_random(rnd, sizeof(rnd));
	tnl_b64(rnd, sizeof(rnd), u->key);
	tnl_url_authority(url, host, sizeof(host));
	tnl_buf_printf(b,
		       "GET %.*s%s%.*s HTTP/1.1\r\nHost: %s\r\nUser-Agent: tunneld/%s\r\nUpgrade: websocket\r\n"
		       "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n",
		       (int)url->path_len, url->path, url->query_len ? "?" : "", (int)url->query_len, url->query, host,
		       TUNNELD_VERSION, u->key);
	if (o->keys) {
		struct td_http_signature s;
		int r = td_http_sign(&s, "GET", url, NULL, 0, NULL, 0, o->keys, o->region,
				     o->service ? o->service : "ssmmessages", w->l->wall_ms / 1000);
		if (r == 0) {
			tnl_buf_printf(b, "X-Amz-Date: %s\r\n", s.date);
			if (o->keys->session_token && o->keys->session_token[0])
				tnl_buf_printf(b, "X-Amz-Security-Token: %s\r\n", o->keys->session_token);
			tnl_buf_printf(b, "Authorization: %s\r\n", tnl_buf_str(&s.authorization));
		}
		td_http_signature_fini(&s);
		if (r)
			return r;
	}
	return b->failed ? TNL_ELIMIT : 0;
}

static int begin_upgrade(struct td_wslink *w, const char *url, const struct td_wslink_opts *o)
{
	struct wslink_upgrade *u = w->up;
	struct tnl_url p;
	const char *fault = NULL;
	int r = tnl_url_parse(url, &p, &fault);
	bool tls = r == 0 && strcmp(p.scheme, "wss") == 0;
	if (r || (!tls && strcmp(p.scheme, "ws") != 0)) {
		td_wslink_end(w, TNL_EINVAL, 1006, 0, "not a ws or wss URL: %s", r && fault ? fault : "scheme");
		return 0;
	}
	tnl_url_authority(&p, u->name, sizeof(u->name));
	if (tls && !o->tls) {
		td_wslink_end(w, TNL_EINVAL, 1006, 0, "no TLS settings for %s", u->name);
		return 0;
	}
	r = build_request(w, &p, o);
	if (r)
		return r;
	uint64_t timeout = o->timeout_ns ? o->timeout_ns : OPEN_TIMEOUT;
	td_timer_in(&w->timer, timeout);
	snprintf(u->host, sizeof(u->host), "%s", p.host);
	u->to =
	    (struct td_conn_opts){.host = u->host, .port = p.port, .tls = o->tls, .plain = !tls, .timeout_ns = timeout};
	if (o->proxy) {
		u->proxy = *o->proxy;
		u->to.proxy = &u->proxy;
	}
	return take_kept_or_dial(w, o);
}

struct td_wslink *td_wslink_dial(struct td_loop *l, const char *url, const struct td_wslink_opts *o,
				 const struct td_wslink_cb *cb, void *ctx)
{
	struct td_wslink *w = td_wslink_new(l, cb, ctx);
	if (!w)
		return NULL;
	w->up = tnl_calloc(1, sizeof(*w->up));
	if (!w->up) {
		td_wslink_free(w);
		return NULL;
	}
	tnl_buf_init(&w->up->req, TNL_HTTP_HEAD_MAX);
	tnl_buf_init(&w->up->raw, TNL_HTTP_HEAD_MAX + 4096);
	tnl_buf_init(&w->up->body, REFUSAL_MAX);
	w->up->lim =
	    (struct wslink_limits){.ping_ns = o->ping_ns, .pong_ns = o->pong_ns, .max_message = o->max_message};
	int r = begin_upgrade(w, url, o);
	if (r)
		td_wslink_end(w, r, 1006, 0, "%s", tnl_err_text(r));
	return w;
}
