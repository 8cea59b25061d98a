/* An open WebSocket link: messages both ways, pings, the closing handshake.  (How a client's comes to be open:
 * wslink_open.c.)
 *
 *   out:  td_wslink_send → frames in lib/ws → td_conn_write, at the end of the turn, unless they linger for company
 *   in:   td_conn_read → lib/ws → message() for each, then batch_end() */
#include "tunneld/net/wslink_internal.h"

#include "lib/alloc.h"
#include "lib/num.h"
#include "tunneld/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define QUEUE_MAX (256u * 1024) /* framed bytes and what the connection holds */
#define QUEUE_LOW (QUEUE_MAX / 2)
#define FLUSH_AT (64u * 1024)
#define CLOSE_REASON_MAX ((size_t)123) /* RFC 6455: 125 bytes of a control frame, two are the code */
#define CLOSE_WAIT (2 * TD_SEC)
#define PONGS_MAX (4u * 1024) /* that wait; twice that where others wait before them */

/* --- ending --------------------------------------------------------------- */

static void free_memory(void *arg)
{
	struct td_wslink *w = arg;
	tnl_ws_free(w->ws);
	td_wslink_upgrade_free(w);
	tnl_free(w->why);
	tnl_free(w);
}

static void stop_link(struct td_wslink *w)
{
	w->state = WSL_END;
	td_timer_stop(&w->timer);
	td_timer_stop(&w->linger);
	td_soon_cancel(&w->flush);
	td_soon_cancel(&w->pump);
	td_soon_cancel(&w->tell_end);
}

void td_wslink_free(struct td_wslink *w)
{
	if (!w)
		return;
	stop_link(w);
	td_http_lease_end(&w->lease, NULL);
	td_conn_free(w->conn);
	td_loop_defer(w->l, free_memory, w);
}

static void tell_closed(void *arg)
{
	struct td_wslink *w = arg;
	w->cb.closed(w->ctx, w->err, w->code, w->http_status, w->why ? w->why : tnl_err_text(w->err));
}

void td_wslink_end(struct td_wslink *w, int err, uint16_t code, int http_status, const char *fmt, ...)
{
	char why[WSLINK_WHY];
	va_list ap;
	if (w->state == WSL_END)
		return;
	stop_link(w);
	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	w->err = err;
	w->code = code;
	w->http_status = http_status;
	w->why = tnl_strdup(why);
	if (w->conn)
		td_conn_pause(w->conn, true); /* nothing is read any more, however late its owner frees it */
	td_soon_do(&w->tell_end);
}

/* --- timer: pings while open, an end to waiting while closing -------------- */

void td_wslink_arm(struct td_wslink *w)
{
	if (w->state == WSL_OPEN)
		td_timer_at(&w->timer, w->paused ? UINT64_MAX : tnl_ws_deadline(w->ws));
}

static void on_timer(void *arg)
{
	struct td_wslink *w = arg;
	if (w->state == WSL_UPGRADE) {
		td_wslink_upgrade_timeout(w);
	} else if (w->state == WSL_CLOSING) {
		td_wslink_end(w, TNL_EEOF, w->close_code, 0, "closed");
	} else if (w->state == WSL_OPEN) {
		if (tnl_ws_expire(w->ws, w->l->now) == TNL_ETIMEOUT) {
			td_wslink_end(w, TNL_ETIMEOUT, 1006, 0, "no sign of life from %s", td_conn_peer(w->conn));
			return;
		}
		td_wslink_write_out(w);
		td_wslink_arm(w);
	}
}

/* --- sending -------------------------------------------------------------- */

static size_t ws_waiting(const struct td_wslink *w)
{
	size_t n;
	return tnl_ws_out_peek(w->ws, &n) ? n : 0;
}

size_t td_wslink_queued(const struct td_wslink *w)
{
	return w->ws && w->conn ? ws_waiting(w) + td_conn_queued(w->conn) : 0;
}

const struct tnl_hop *td_wslink_hop(struct td_wslink *w, size_t ahead)
{
	static const struct tnl_hop none;
	return w->ws && w->conn ? td_conn_hop(w->conn, ahead + ws_waiting(w)) : &none;
}

size_t td_wslink_room(const struct td_wslink *w)
{
	if (w->state != WSL_OPEN)
		return 0;
	/* A message of the greatest size always fits into an empty link. */
	size_t q = td_wslink_queued(w) + TNL_WS_MAX_OVERHEAD;
	return q < w->limit ? TNL_MIN(w->limit - q, tnl_ws_out_room(w->ws)) : 0;
}

void td_wslink_write_out(struct td_wslink *w)
{
	while (w->conn) {
		size_t n;
		const uint8_t *p = tnl_ws_out_peek(w->ws, &n);
		size_t k = n ? td_conn_write(w->conn, p, n) : 0;
		if (k == 0)
			break;
		tnl_ws_out_consume(w->ws, k);
		w->written += k;
	}
}

static void tell_room(struct td_wslink *w)
{
	if (w->state != WSL_OPEN || !w->high || td_wslink_queued(w) > QUEUE_LOW)
		return;
	w->high = false;
	if (w->cb.writable)
		w->cb.writable(w->ctx);
}

static bool is_lingering(const struct td_wslink *w)
{
	return w->linger.at != UINT64_MAX;
}

static void flush_now(void *arg)
{
	struct td_wslink *w = arg;
	if (is_lingering(w))
		return;
	td_wslink_write_out(w);
	td_conn_flush(w->conn);
	tnl_ws_settle(w->ws);
	tell_room(w);
}

static void flush_later(struct td_wslink *w)
{
	td_timer_stop(&w->linger);
	td_soon_do(&w->flush);
}

void td_wslink_linger(struct td_wslink *w, uint64_t ns)
{
	if (w->state == WSL_OPEN && w->flush.pending)
		td_timer_in(&w->linger, ns);
}

static int send_event(struct td_wslink *w, const struct tnl_ws_event *ev)
{
	if (w->state != WSL_OPEN)
		return TNL_ECLOSED;
	size_t room = td_wslink_room(w);
	if (room == 0 || ev->len > room) {
		w->high = true;
		flush_later(w);
		return TNL_EAGAIN;
	}
	int r = tnl_ws_send_on(w->ws, ev);
	if (r)
		return r;
	if (ws_waiting(w) >= FLUSH_AT)
		td_wslink_write_out(w);
	if (td_wslink_queued(w) > QUEUE_LOW)
		w->high = true;
	flush_later(w);
	return 0;
}

int td_wslink_send(struct td_wslink *w, enum tnl_ws_op op, const void *p, size_t n)
{
	const struct tnl_ws_event ev = {.op = op, .data = (uint8_t *)(uintptr_t)p, .len = n, .clear = n};
	return send_event(w, &ev);
}

int td_wslink_send_on(struct td_wslink *w, const struct td_wslink *from)
{
	return send_event(w, from->given);
}

void td_wslink_ping(struct td_wslink *w)
{
	if (w->state != WSL_OPEN)
		return;
	if (tnl_ws_ping(w->ws, w->l->now) == 0)
		flush_later(w);
	td_wslink_arm(w);
}

void td_wslink_close(struct td_wslink *w, uint16_t code, const char *reason)
{
	if (w->state == WSL_END || w->state == WSL_CLOSING)
		return;
	if (w->state == WSL_UPGRADE) {
		td_wslink_end(w, TNL_EEOF, code, 0, "closed");
		return;
	}
	tnl_ws_close(w->ws, code, reason);
	w->state = WSL_CLOSING;
	w->close_code = code;
	td_timer_in(&w->timer, CLOSE_WAIT);
	td_conn_pause(w->conn, false); /* the peer's close must be read */
	flush_later(w);
}

/* --- receiving ------------------------------------------------------------ */

/* What the protocol layer queued (pongs, a close frame with the fault's code) goes out as far as the kernel takes it
 * now. */
static void push_out(struct td_wslink *w)
{
	td_wslink_write_out(w);
	td_conn_flush(w->conn);
}

static void on_fault(struct td_wslink *w, int err, const char *fault)
{
	push_out(w);
	td_wslink_end(w, err, 1006, 0, "%s: WebSocket frame refused: %s", td_conn_peer(w->conn),
		      fault ? fault : tnl_err_text(err));
}

static void on_close_frame(struct td_wslink *w, const struct tnl_ws_event *ev)
{
	char reason[128];
	snprintf(reason, sizeof(reason), "%.*s", (int)TNL_MIN(ev->len, CLOSE_REASON_MAX),
		 ev->data ? (const char *)ev->data : "");
	push_out(w);
	td_wslink_end(w, TNL_EEOF, ev->close_code, 0, "closed by %s: %u %s", td_conn_peer(w->conn), ev->close_code,
		      reason);
}

static void forget_pongs(struct td_wslink *w)
{
	uint64_t gone = w->written - TNL_MIN(w->written, (uint64_t)td_conn_queued(w->conn));
	if (gone < w->pongs_until)
		return;
	w->pongs = 0;
	w->pongs_until = w->written + ws_waiting(w);
	tnl_ws_mute(w->ws, false);
}

/* Who pings and does not read has few pongs kept for him, whatever else may wait in the link. */
static void count_pong(struct td_wslink *w, size_t len)
{
	bool muted = w->pongs >= PONGS_MAX;
	w->pongs += TNL_WS_MAX_OVERHEAD + len;
	if (w->pongs < PONGS_MAX)
		return;
	push_out(w);
	tnl_ws_mute(w->ws, true);
	forget_pongs(w);
	if (!muted && w->pongs && w->cb.muted)
		w->cb.muted(w->ctx);
}

/* Hands over what is complete. True: go on reading. */
static bool deliver_messages(struct td_wslink *w)
{
	struct tnl_ws_event ev;
	const char *fault = NULL;
	for (;;) {
		if (w->state == WSL_END || (w->paused && w->state == WSL_OPEN))
			return false;
		int r = tnl_ws_next(w->ws, &ev, w->l->now, &fault);
		if (r == TNL_EAGAIN)
			return true;
		if (r != 1) {
			on_fault(w, r, fault);
			return false;
		}
		if (ev.op == TNL_WS_CLOSE) {
			on_close_frame(w, &ev);
			return false;
		}
		if (ev.op == TNL_WS_PING)
			count_pong(w, ev.len);
		if ((ev.op == TNL_WS_TEXT || ev.op == TNL_WS_BINARY) && w->state == WSL_OPEN) {
			w->delivered = true;
			w->given = &ev;
			w->cb.message(w->ctx, ev.op, ev.data, ev.len);
			w->given = NULL;
		}
	}
}

void td_wslink_pump(struct td_wslink *w)
{
	w->delivered = false;
	forget_pongs(w);
	while (deliver_messages(w)) {
		size_t cap;
		uint8_t *p = tnl_ws_in_reserve(w->ws, &cap);
		if (!p || cap == 0) {
			td_wslink_end(w, TNL_ENOMEM, 1006, 0, "out of memory");
			break;
		}
		ssize_t n = td_conn_read(w->conn, p, cap);
		if (n <= 0)
			break;
		tnl_ws_in_commit(w->ws, (size_t)n, w->l->now);
	}
	if (w->delivered && w->state == WSL_OPEN && w->cb.batch_end)
		w->cb.batch_end(w->ctx);
	if (w->state == WSL_END)
		return;
	if (ws_waiting(w) && !is_lingering(w))
		flush_later(w); /* pongs */
	tnl_ws_settle(w->ws);
	td_wslink_arm(w);
}

static void on_readable(void *ctx)
{
	struct td_wslink *w = ctx;
	if (w->state == WSL_OPEN || w->state == WSL_CLOSING)
		td_wslink_pump(w);
}

static void on_writable(void *ctx)
{
	struct td_wslink *w = ctx;
	td_wslink_write_out(w);
	tnl_ws_settle(w->ws);
	tell_room(w);
}

static void on_closed(void *ctx, int err, const char *why)
{
	struct td_wslink *w = ctx;
	if (w->state == WSL_CLOSING)
		td_wslink_end(w, TNL_EEOF, w->close_code, 0, "closed");
	else /* without a close frame: broken, however orderly the layer below went */
		td_wslink_end(w, err == TNL_EEOF ? TNL_ETRUNC : err, 1006, 0, "%s", why);
}

static void on_idle(void *ctx)
{
	struct td_wslink *w = ctx;
	if (w->ws)
		tnl_ws_settle(w->ws);
}

static const struct td_conn_cb open_cb = {.readable = on_readable,
					  .writable = on_writable,
					  .idle = on_idle,
					  .closed = on_closed};

static void pump_now(void *arg)
{
	struct td_wslink *w = arg;
	if (!w->paused)
		td_wslink_pump(w);
}

void td_wslink_pause(struct td_wslink *w, bool paused)
{
	if (w->paused == paused)
		return;
	w->paused = paused;
	if (w->state != WSL_OPEN)
		return;
	td_conn_pause(w->conn, paused);
	if (paused) {
		td_timer_stop(&w->timer); /* the pong that is waited for may lie unread */
	} else {
		tnl_ws_alive(w->ws, w->l->now);
		td_wslink_arm(w);
		td_soon_do(&w->pump); /* messages that are already here cause no event */
	}
}

/* --- making --------------------------------------------------------------- */

struct td_wslink *td_wslink_new(struct td_loop *l, const struct td_wslink_cb *cb, void *ctx)
{
	struct td_wslink *w = tnl_calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	w->l = l;
	w->cb = *cb;
	w->ctx = ctx;
	td_timer_init(&w->timer, l, on_timer, w);
	td_timer_init(&w->linger, l, flush_now, w);
	td_soon_init(&w->flush, l, flush_now, w);
	td_soon_init(&w->pump, l, pump_now, w);
	td_soon_init(&w->tell_end, l, tell_closed, w);
	return w;
}

/* The upgrade is done: `early` bytes follow the head. */
int td_wslink_begin(struct td_wslink *w, bool server, const struct wslink_limits *o, const void *early, size_t n)
{
	size_t max = o->max_message ? o->max_message : TNL_WS_MAX_MESSAGE;
	w->limit = TNL_MAX(max, (size_t)QUEUE_MAX) + TNL_WS_MAX_OVERHEAD;
	struct tnl_ws_config c = {.server = server,
				  .max_message = max,
				  .whole_only = o->whole_only,
				  .ping_ns = o->ping_ns,
				  .pong_ns = o->pong_ns,
				  .out_max = w->limit + TNL_WS_MAX_OVERHEAD};
	const uint8_t *s = early;
	w->ws = tnl_ws_new(&c, w->l->now);
	while (w->ws && n) {
		size_t cap;
		uint8_t *p = tnl_ws_in_reserve(w->ws, &cap);
		if (!p || cap == 0)
			return TNL_ENOMEM;
		cap = TNL_MIN(cap, n);
		memcpy(p, s, cap);
		tnl_ws_in_commit(w->ws, cap, w->l->now);
		s += cap;
		n -= cap;
	}
	if (!w->ws)
		return TNL_ENOMEM;
	w->state = WSL_OPEN;
	td_conn_set_cb(w->conn, &open_cb, w);
	td_timer_stop(&w->timer);
	td_wslink_arm(w);
	td_soon_do(&w->pump);
	return 0;
}

struct td_wslink *td_wslink_adopt(struct td_loop *l, struct td_conn *c, const void *early, size_t n,
				  const struct td_wslink_opts *o, const struct td_wslink_cb *cb, void *ctx)
{
	struct wslink_limits lim = {.ping_ns = o->ping_ns,
				    .pong_ns = o->pong_ns,
				    .max_message = o->max_message,
				    .whole_only = o->whole_only};
	struct td_wslink *w = td_wslink_new(l, cb, ctx);
	if (!w) {
		td_conn_free(c);
		return NULL;
	}
	w->conn = c;
	w->returns = o->returns;
	if (td_wslink_begin(w, !o->client, &lim, early, n) != 0) {
		td_wslink_free(w);
		return NULL;
	}
	return w;
}

void td_wslink_move(struct td_wslink *w, struct td_loop *l)
{
	if (w->l == l)
		return;
	td_conn_move(w->conn, l);
	td_timer_move(&w->timer, l);
	td_timer_move(&w->linger, l);
	td_soon_move(&w->flush, l);
	td_soon_move(&w->pump, l);
	td_soon_move(&w->tell_end, l);
	w->l = l;
}

void td_wslink_trust(struct td_wslink *w, size_t max_message)
{
	if (w->ws)
		tnl_ws_set_input(w->ws, max_message, false);
}

void td_wslink_set_clear(struct td_wslink *w, size_t n)
{
	if (w->ws)
		tnl_ws_set_clear(w->ws, n);
}

void td_wslink_unmask(struct td_wslink *w)
{
	if (w->given)
		tnl_ws_unmask(w->given);
}

void td_wslink_set_cb(struct td_wslink *w, const struct td_wslink_cb *cb, void *ctx)
{
	w->cb = *cb;
	w->ctx = ctx;
}

bool td_wslink_cert_named(const struct td_wslink *w, const char *name)
{
	return w->conn && td_conn_cert_named(w->conn, name);
}

const char *td_wslink_peer(const struct td_wslink *w)
{
	return w->conn ? td_conn_peer(w->conn) : "-";
}
