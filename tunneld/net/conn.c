/* A connection that is open: reading, writing, the end.  (How it comes to be open: conn_open.c.)
 *
 *   in:   read(2) → [TLS to the proxy] → what came behind the proxy's head → [TLS] → td_conn_read
 *   out:  td_conn_write → stage, or records of 16 KiB → [TLS to the proxy] → write(2), at the end of the turn or when
 *         there is enough
 *
 * TLS may hold bytes of which no socket event will tell: then the reader is called again from the loop.  A turn reads
 * so much and no more, so that one busy peer does not keep the others waiting. */
#include "tunneld/net/conn_internal.h"

#include "lib/alloc.h"
#include "lib/num.h"
#include "tunneld/base/fd.h"
#include "tunneld/base/log.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define QUEUE_MAX (256u * 1024) /* plaintext and ciphertext that wait for the kernel */
#define QUEUE_LOW (QUEUE_MAX / 2)
#define WRITE_NOW (128u * 1024) /* enough for a system call before the turn ends */
#define RECORD (16u * 1024)
#define READ_MAX (128u * 1024)
#define READ_BUDGET (256 * 1024)
#define TRIM_AFTER TD_SEC
#define NOTSENT_LOWAT (128 * 1024)
#define CLOSE_WAIT (2 * TD_SEC)
#define DISCARD_MAX (4u * 1024 * 1024)

/* --- making and ending ---------------------------------------------------- */

static const char *state_name(enum conn_state s)
{
	static const char *const names[] = {"resolve", "connect", "proxy-tls", "proxy", "behind",
					    "tls",     "open",	  "closing",   "end"};
	return names[s];
}

void td_conn_set_state(struct td_conn *c, enum conn_state s)
{
	if (c->state != s)
		td_debug("conn", NULL, "state %s -> %s peer=%s", state_name(c->state), state_name(s), c->peer);
	c->state = s;
}

static void on_readable(struct ev_loop *ev, ev_io *w, int events);
static void on_writable(struct ev_loop *ev, ev_io *w, int events);
static void flush_now(void *arg);
static void pump_now(void *arg);

/* Bytes that no socket event will tell of. */
static bool holds_bytes(const struct td_conn *c)
{
	return (c->tls && tnl_tls_pending(c->tls)) || (c->outer && tnl_tls_pending(c->outer)) || tnl_buf_len(&c->early);
}

/* Thousands of connections must not hold buffers between events: the next one takes the same blocks (lib/spare.h). */
void td_conn_settle(struct td_conn *c)
{
	if (c->tls)
		tnl_tls_settle(c->tls);
	if (c->outer)
		tnl_tls_settle(c->outer);
	if (!tnl_buf_len(&c->early))
		tnl_buf_fini_wiped(&c->early);
	if (!c->tls)
		tnl_buf_settle(&c->stage);
	else if (!tnl_buf_len(&c->stage))
		tnl_buf_fini_wiped(&c->stage);
}

static void trim_later(struct td_conn *c)
{
	if (c->state == CONN_OPEN && c->timer.at == UINT64_MAX)
		td_timer_in(&c->timer, TRIM_AFTER);
}

static void trim_now(struct td_conn *c)
{
	td_conn_settle(c);
	if (td_conn_queued(c) || holds_bytes(c))
		trim_later(c);
	if (c->cb.idle)
		c->cb.idle(c->ctx);
	td_loop_give_back(c->l);
}

static void on_timer(void *arg)
{
	struct td_conn *c = arg;
	if (c->state == CONN_OPEN)
		trim_now(c);
	else if (c->state == CONN_CLOSING)
		td_conn_end(c, c->half_closed ? TNL_EEOF : TNL_ETIMEOUT, "the peer did not take the rest in time");
	else if (c->state == CONN_BEHIND)
		td_conn_end(c, TNL_EREFUSED, "PROXY header: none in time");
	else if (c->state == CONN_TLS)
		td_conn_end(c, TNL_ETIMEOUT, "TLS with %s: no answer in time", c->peer);
	else
		td_conn_end(c, TNL_ETIMEOUT, "cannot connect to %s: no answer in time", c->peer);
}

struct td_conn *td_conn_new(struct td_loop *l, const struct td_conn_cb *cb, void *ctx)
{
	struct td_conn *c = tnl_calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	c->l = l;
	c->cb = *cb;
	c->ctx = ctx;
	c->fd = -1;
	td_timer_init(&c->timer, l, on_timer, c);
	td_soon_init(&c->flush, l, flush_now, c);
	td_soon_init(&c->pump, l, pump_now, c);
	td_soon_init(&c->step, l, td_conn_step, c);
	ev_init(&c->rd, on_readable);
	ev_init(&c->wr, on_writable);
	c->rd.data = c->wr.data = c;
	tnl_buf_init(&c->early, CONN_EARLY_MAX);
	tnl_buf_init(&c->stage, QUEUE_MAX);
	return c;
}

void td_conn_set_fd(struct td_conn *c, int fd, const struct td_addr *peer)
{
	int on = 1, lowat = NOTSENT_LOWAT;
	c->fd = fd;
	td_fd_nonblock(fd);
	td_addr_str(peer, c->peer);
	if (peer->sa.sa_family != AF_UNIX) {
		td_fd_nodelay(fd);
		setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, sizeof(lowat));
		setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	}
	ev_io_set(&c->rd, fd, EV_READ);
	ev_io_set(&c->wr, fd, EV_WRITE);
	ev_io_start(c->l->ev, &c->rd);
}

static void close_fd(struct td_conn *c)
{
	if (c->fd < 0)
		return;
	ev_io_stop(c->l->ev, &c->rd);
	ev_io_stop(c->l->ev, &c->wr);
	close(c->fd);
	c->fd = -1;
}

static void stop_conn(struct td_conn *c)
{
	td_conn_set_state(c, CONN_END);
	td_timer_stop(&c->timer);
	td_soon_cancel(&c->flush);
	td_soon_cancel(&c->pump);
	td_soon_cancel(&c->step);
	td_conn_opening_free(c);
	close_fd(c);
}

void td_conn_end(struct td_conn *c, int err, const char *fmt, ...)
{
	if (c->state == CONN_END)
		return;
	c->end = err;
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(c->why, sizeof(c->why), fmt, ap);
	va_end(ap);
	stop_conn(c);
	td_soon_do(&c->step);
}

static void free_memory(void *arg)
{
	struct td_conn *c = arg;
	tnl_tls_free(c->tls);
	tnl_tls_free(c->outer);
	tnl_tls_ctx_free(c->tls_ctx);
	tnl_buf_fini_wiped(&c->early);
	tnl_buf_fini_wiped(&c->stage);
	tnl_buf_fini(&c->vouch);
	tnl_free(c);
}

void td_conn_free(struct td_conn *c)
{
	if (!c)
		return;
	stop_conn(c);
	td_loop_defer(c->l, free_memory, c);
}

static void move_watcher(ev_io *w, int fd, int events, struct ev_loop *from, struct ev_loop *to)
{
	bool active = ev_is_active(w);
	ev_io_stop(from, w);
	/* Set anew: else libev takes it for the descriptor that had this number on that loop a moment ago. */
	ev_io_set(w, fd, events);
	if (active)
		ev_io_start(to, w);
}

/* Bytes of which no socket event will tell have their td_soon, which goes along. */
void td_conn_move(struct td_conn *c, struct td_loop *l)
{
	if (c->l == l)
		return;
	move_watcher(&c->rd, c->fd, EV_READ, c->l->ev, l->ev);
	move_watcher(&c->wr, c->fd, EV_WRITE, c->l->ev, l->ev);
	td_timer_move(&c->timer, l);
	td_soon_move(&c->flush, l);
	td_soon_move(&c->pump, l);
	td_soon_move(&c->step, l);
	c->l = l;
}

void td_conn_set_cb(struct td_conn *c, const struct td_conn_cb *cb, void *ctx)
{
	c->cb = *cb;
	c->ctx = ctx;
}

const char *td_conn_peer(const struct td_conn *c)
{
	return c->peer;
}

/* --- reading -------------------------------------------------------------- */

ssize_t td_conn_fd_read(struct td_conn *c, void *p, size_t n)
{
	if (!c->sock_more || c->budget <= 0 || c->fd < 0)
		return TNL_EAGAIN;
	n = TNL_MIN(n, (size_t)READ_MAX);
	ssize_t r;
	do {
		r = read(c->fd, p, n);
	} while (r < 0 && errno == EINTR);
	if (r > 0) {
		c->budget -= r;
		if ((size_t)r < n)
			c->sock_more = false; /* drained; the watcher tells of more */
		return r;
	}
	if (r == 0)
		return 0;
	if (errno != EAGAIN && errno != EWOULDBLOCK)
		return TNL_EIO;
	c->sock_more = false;
	return TNL_EAGAIN;
}

/* One read of plaintext from `t`, whose ciphertext comes from `below`. */
static ssize_t tls_read(struct td_conn *c, struct tnl_tls *t, ssize_t (*below)(struct td_conn *, void *, size_t),
			void *p, size_t n)
{
	int want = (int)TNL_MIN(n, (size_t)INT32_MAX);
	for (;;) {
		int r = tnl_tls_read(t, p, (size_t)want);
		if (r != TNL_EAGAIN)
			return r;
		size_t cap;
		uint8_t *in = tnl_tls_in_reserve(t, &cap);
		if (!in || cap == 0)
			return TNL_ENOMEM;
		ssize_t k = below(c, in, cap);
		if (k > 0)
			tnl_tls_in_commit(t, (size_t)k);
		else if (k == 0 || k == TNL_EEOF)
			tnl_tls_in_eof(t);
		else
			return k;
	}
}

ssize_t td_conn_low_read(struct td_conn *c, void *p, size_t n)
{
	size_t have = tnl_buf_len(&c->early);
	if (have) {
		n = TNL_MIN(n, have);
		memcpy(p, tnl_buf_data(&c->early), n);
		tnl_buf_consume(&c->early, n);
		return (ssize_t)n;
	}
	return c->outer ? tls_read(c, c->outer, td_conn_fd_read, p, n) : td_conn_fd_read(c, p, n);
}

ssize_t td_conn_read(struct td_conn *c, void *p, size_t n)
{
	if (c->state != CONN_OPEN || c->paused || n == 0)
		return TNL_EAGAIN;
	ssize_t r = c->tls ? tls_read(c, c->tls, td_conn_low_read, p, n) : td_conn_low_read(c, p, n);
	if (c->tls && tnl_tls_out_len(c->tls))
		td_soon_do(&c->flush); /* an answer of TLS itself, such as to a key update */
	if (r > 0) {
		c->progress = true;
		return r;
	}
	if (r == TNL_EAGAIN) {
		c->drained = true;
		return r;
	}
	if (r == 0 || r == TNL_EEOF)
		td_conn_end(c, TNL_EEOF, "the peer closed the connection");
	else if (r == TNL_EIO)
		td_conn_end(c, TNL_EIO, "connection broke: %s", strerror(errno));
	else if (r == TNL_ETRUNC)
		td_conn_end(c, TNL_ETRUNC, "the peer dropped the connection");
	else
		td_conn_end(c, (int)r, "TLS failed: %s", c->tls ? tnl_tls_why(c->tls) : tnl_err_text((int)r));
	return TNL_EAGAIN;
}

/* After td_conn_shutdown: the peer may still be sending; a close with unread bytes would reset what it has not read. */
static void discard_input(struct td_conn *c)
{
	uint8_t junk[16384];
	ssize_t r;
	while ((r = td_conn_fd_read(c, junk, sizeof(junk))) > 0) {
		c->discarded += (size_t)r;
		if (c->discarded > DISCARD_MAX)
			break;
	}
	if (r == TNL_EAGAIN)
		return;
	c->eof = true;
	if (r == 0 && !c->half_closed)
		ev_io_stop(c->l->ev, &c->rd); /* what waits is still sent */
	else
		td_conn_end(c, TNL_EEOF, "closed");
}

static void run_readable(struct td_conn *c)
{
	if (c->state < CONN_OPEN) {
		td_conn_opening_step(c);
	} else if (c->state == CONN_CLOSING) {
		discard_input(c);
	} else if (c->state == CONN_OPEN && !c->paused) {
		c->progress = c->drained = false;
		c->cb.readable(c->ctx);
		if (c->state != CONN_OPEN)
			return;
		if (!c->paused && c->progress && !c->drained && holds_bytes(c))
			td_soon_do(&c->pump); /* the reader stopped early */
		trim_later(c);
	}
}

static void on_readable(struct ev_loop *ev, ev_io *w, int events)
{
	struct td_conn *c = w->data;
	c->sock_more = true;
	c->budget = READ_BUDGET;
	run_readable(c);
	td_conn_settle(c);
}

static void pump_now(void *arg)
{
	struct td_conn *c = arg;
	c->sock_more = true;
	c->budget = READ_BUDGET;
	run_readable(c);
	td_conn_settle(c);
}

void td_conn_pause(struct td_conn *c, bool paused)
{
	if (c->paused == paused)
		return;
	c->paused = paused;
	if (c->state != CONN_OPEN)
		return;
	if (paused) {
		ev_io_stop(c->l->ev, &c->rd);
	} else {
		ev_io_start(c->l->ev, &c->rd);
		if (holds_bytes(c))
			td_soon_do(&c->pump);
	}
}

/* --- writing -------------------------------------------------------------- */

size_t td_conn_queued(const struct td_conn *c)
{
	return tnl_buf_len(&c->stage) + (c->tls ? tnl_tls_out_len(c->tls) : 0) +
	       (c->outer ? tnl_tls_out_len(c->outer) : 0);
}

size_t td_conn_room(const struct td_conn *c)
{
	size_t q = td_conn_queued(c);
	return c->state == CONN_OPEN && !c->write_failed && q < QUEUE_MAX ? QUEUE_MAX - q : 0;
}

const struct tnl_hop *td_conn_hop(struct td_conn *c, size_t ahead)
{
	return c->state == CONN_OPEN ? td_tcp_hop_ask(&c->hop, c->fd, ahead + td_conn_queued(c), c->l->now)
				     : &c->hop.hop;
}

static const uint8_t *top_peek(struct td_conn *c, size_t *n)
{
	if (c->tls)
		return tnl_tls_out_peek(c->tls, n);
	*n = tnl_buf_len(&c->stage);
	return tnl_buf_data(&c->stage);
}

static void top_consume(struct td_conn *c, size_t n)
{
	if (c->tls)
		tnl_tls_out_consume(c->tls, n);
	else
		tnl_buf_consume(&c->stage, n);
}

/* How much of it TLS takes now. When it never takes more, that is the end: nobody else would say so. */
static size_t seal_bytes(struct td_conn *c, struct tnl_tls *t, const void *p, size_t n)
{
	int r = n ? tnl_tls_write(t, p, n) : 0;
	if (r == TNL_ETLS)
		td_conn_end(c, r, "TLS failed: %s", tnl_tls_why(t));
	return r > 0 ? (size_t)r : 0;
}

/* Staged plaintext into records, as far as TLS takes it. */
static void seal_stage(struct td_conn *c)
{
	size_t n = 1;
	while (c->tls && n && tnl_buf_len(&c->stage)) {
		n = seal_bytes(c, c->tls, tnl_buf_data(&c->stage), tnl_buf_len(&c->stage));
		tnl_buf_consume(&c->stage, n);
	}
	if (tnl_buf_len(&c->stage) == 0) {
		if (c->state == CONN_CLOSING && c->tls && !c->notified) {
			c->notified = true;
			tnl_tls_shutdown(c->tls);
		}
	}
}

static void write_fault(struct td_conn *c)
{
	int err = errno;
	c->write_failed = true;
	ev_io_stop(c->l->ev, &c->wr);
	/* What the peer sent before it went is still read; its end then says that it is over. */
	if (c->state == CONN_CLOSING || c->paused)
		td_conn_end(c, TNL_EIO, "connection broke: %s", strerror(err));
}

static void write_out(struct td_conn *c)
{
	while (!c->blocked && !c->write_failed && c->fd >= 0) {
		size_t n;
		seal_stage(c);
		const uint8_t *p = top_peek(c, &n);
		if (c->outer) {
			top_consume(c, seal_bytes(c, c->outer, p, n));
			p = tnl_tls_out_peek(c->outer, &n);
		}
		if (n == 0 || c->fd < 0)
			break;
		ssize_t k = write(c->fd, p, n);
		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
			c->blocked = true;
			ev_io_start(c->l->ev, &c->wr);
			return;
		}
		if (k < 0) {
			write_fault(c);
			return;
		}
		if (c->outer)
			tnl_tls_out_consume(c->outer, (size_t)k);
		else
			top_consume(c, (size_t)k);
		if ((size_t)k < n) { /* another call would only say so once more */
			c->blocked = true;
			ev_io_start(c->l->ev, &c->wr);
		}
	}
}

void td_conn_flush(struct td_conn *c)
{
	if (c->fd < 0)
		return;
	write_out(c);
	if (c->state == CONN_CLOSING && !c->half_closed && td_conn_queued(c) == 0 && !c->write_failed) {
		c->half_closed = true;
		shutdown(c->fd, SHUT_WR);
		if (c->eof)
			td_conn_end(c, TNL_EEOF, "closed");
		else
			ev_io_start(c->l->ev, &c->rd);
	}
}

static void tell_room(struct td_conn *c)
{
	if (c->state != CONN_OPEN || !c->high || td_conn_queued(c) > (c->emptying ? 0 : QUEUE_LOW))
		return;
	c->high = c->emptying = false;
	if (c->cb.writable)
		c->cb.writable(c->ctx);
}

static void flush_now(void *arg)
{
	struct td_conn *c = arg;
	td_conn_flush(c);
	td_conn_settle(c);
	tell_room(c);
}

static void on_writable(struct ev_loop *ev, ev_io *w, int events)
{
	struct td_conn *c = w->data;
	c->blocked = false;
	td_conn_flush(c);
	if (!c->blocked)
		ev_io_stop(ev, &c->wr);
	if (c->state < CONN_OPEN)
		td_conn_opening_step(c);
	td_conn_settle(c);
	tell_room(c);
}

size_t td_conn_write(struct td_conn *c, const void *p, size_t n)
{
	const uint8_t *s = p;
	size_t take = TNL_MIN(n, td_conn_room(c)), done = 0;
	while (done < take) {
		size_t left = take - done, staged = tnl_buf_len(&c->stage);
		if (c->tls && staged == 0 && left >= RECORD) {
			size_t k = seal_bytes(c, c->tls, s + done, left - left % RECORD);
			if (k == 0)
				break;
			done += k;
		} else {
			size_t k = c->tls ? TNL_MIN(left, RECORD - staged) : left;
			if (k == 0 || tnl_buf_put(&c->stage, s + done, k) != 0)
				break;
			done += k;
			if (c->tls && tnl_buf_len(&c->stage) >= RECORD)
				seal_stage(c);
		}
	}
	if (done < n || td_conn_queued(c) > QUEUE_LOW)
		c->high = true;
	if (!c->blocked && td_conn_queued(c) >= WRITE_NOW)
		write_out(c);
	if (c->state == CONN_OPEN) {
		td_soon_do(&c->flush);
		trim_later(c);
	}
	return done;
}

void td_conn_tell_empty(struct td_conn *c)
{
	c->high = c->emptying = true;
}

void td_conn_shutdown(struct td_conn *c)
{
	if (c->state >= CONN_CLOSING)
		return;
	if (c->state < CONN_OPEN || c->write_failed) {
		td_conn_end(c, TNL_EEOF, "closed");
		return;
	}
	td_conn_set_state(c, CONN_CLOSING);
	td_timer_in(&c->timer, CLOSE_WAIT);
	td_soon_do(&c->flush);
}
