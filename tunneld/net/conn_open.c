/* From a name to an open connection: resolve, connect, CONNECT through a proxy, TLS.  Of an accepted one: the PROXY
 * header of the balancer before us, TLS. */
#include "tunneld/net/conn_internal.h"

#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/http.h"
#include "lib/num.h"
#include "lib/proxyhead.h"
#include "tunneld/base/fd.h"
#include "tunneld/base/log.h"
#include "tunneld/net/dial.h"
#include "tunneld/net/resolve.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define OPEN_TIMEOUT (15 * TD_SEC)
#define READ_STEP ((size_t)2048)
#define REASON_SHOWN ((size_t)60)

void td_conn_opening_free(struct td_conn *c)
{
	struct conn_opening *op = c->op;
	if (!op)
		return;
	c->op = NULL;
	td_resolve_cancel(op->resolve);
	td_dial_cancel(op->dial);
	tnl_buf_fini(&op->head);
	tnl_free_wiped(op, sizeof(*op));
}

static void tell_ready(struct td_conn *c)
{
	if (c->cb.ready)
		c->cb.ready(c->ctx);
	/* From now on readable() may be called; bytes may have come with the handshake. */
	if (c->state != CONN_OPEN || c->paused)
		return;
	c->paused = true;
	td_conn_pause(c, false);
}

/* "gateway:443" or "gateway:443 through proxy:3128", for texts. */
static const char *target_text(const struct td_conn *c, char out[600])
{
	const struct conn_opening *op = c->op;
	if (!op)
		snprintf(out, 600, "%s", c->peer);
	else if (op->has_proxy)
		snprintf(out, 600, "%s:%u through proxy %s:%u", op->host, op->port, op->proxy.host, op->proxy.port);
	else
		snprintf(out, 600, "%s:%u", op->host, op->port);
	return out;
}

static void open_now(struct td_conn *c)
{
	td_conn_set_state(c, CONN_OPEN);
	td_timer_stop(&c->timer);
	td_conn_opening_free(c);
	ev_io_stop(c->l->ev, &c->rd); /* until ready() was told */
	td_soon_do(&c->step);
}

/* --- TLS ------------------------------------------------------------------ */

static bool tls_begin(struct td_conn *c, struct tnl_tls **t, const char *host)
{
	*t = tnl_tls_new(c->tls_ctx, host);
	if (!*t)
		td_conn_end(c, TNL_ENOMEM, "cannot start TLS: out of memory");
	return *t != NULL;
}

/* The first bytes of an accepted connection: what is wrong when they are no TLS, so that somebody sees what to set. */
static bool refuse_stray_header(struct td_conn *c, const uint8_t *p, size_t n)
{
	bool stray = !c->heard && !c->op && tnl_proxyhead_looks(p, n);
	c->heard = true;
	if (stray)
		td_conn_end(c, TNL_EREFUSED, TD_CONN_STRAY_HEADER);
	return stray;
}

/* 0: done; TNL_EAGAIN: waits for the socket; else it failed. */
static int drive_handshake(struct td_conn *c, struct tnl_tls *t)
{
	bool eof = false;
	for (;;) {
		int r = tnl_tls_handshake(t);
		td_conn_flush(c);
		if (c->state == CONN_END)
			return TNL_EIO; /* the flush ended it and said why */
		if (r != TNL_EAGAIN || eof)
			return r == TNL_EAGAIN ? TNL_ETRUNC : r;
		size_t cap;
		uint8_t *in = tnl_tls_in_reserve(t, &cap);
		if (!in || cap == 0)
			return TNL_ENOMEM;
		ssize_t k = t == c->outer ? td_conn_fd_read(c, in, cap) : td_conn_low_read(c, in, cap);
		if (k > 0 && refuse_stray_header(c, in, (size_t)k)) {
			return TNL_EREFUSED;
		} else if (k > 0) {
			tnl_tls_in_commit(t, (size_t)k);
		} else if (k == 0 || k == TNL_EEOF) {
			tnl_tls_in_eof(t);
			eof = true;
		} else {
			return (int)k;
		}
	}
}

static void tls_failed(struct td_conn *c, struct tnl_tls *t, int err)
{
	char at[600];
	if (err == TNL_EIO)
		td_conn_end(c, err, "TLS with %.200s: %s", target_text(c, at), strerror(errno));
	else if (err == TNL_ETRUNC)
		td_conn_end(c, err, "TLS with %.200s: the peer dropped the connection", target_text(c, at));
	else
		td_conn_end(c, err, "TLS with %.200s: %s%s", target_text(c, at), tnl_tls_why(t),
			    strstr(tnl_tls_why(t), "authority") ? "; ca_file names those that are" : "");
}

/* --- proxy ---------------------------------------------------------------- */

static void proxy_ask(struct td_conn *c)
{
	struct conn_opening *op = c->op;
	char cred[400], b64[TNL_B64_LEN(sizeof(cred)) + 1];
	bool v6 = strchr(op->host, ':') != NULL;
	char authority[300];
	snprintf(authority, sizeof(authority), v6 ? "[%s]:%u" : "%s:%u", op->host, op->port);
	tnl_buf_printf(&c->stage, "CONNECT %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: tunneld/%s\r\n", authority, authority,
		       TUNNELD_VERSION);
	if (op->proxy.user[0]) {
		int n = snprintf(cred, sizeof(cred), "%s:%s", op->proxy.user, op->proxy.password);
		tnl_b64((const uint8_t *)cred, (size_t)n, b64);
		tnl_buf_printf(&c->stage, "Proxy-Authorization: Basic %s\r\n", b64);
		tnl_wipe(cred, sizeof(cred));
		tnl_wipe(b64, sizeof(b64));
	}
	tnl_buf_puts(&c->stage, "\r\n");
	td_conn_set_state(c, CONN_PROXY);
	td_conn_flush(c);
}

static void proxy_refused(struct td_conn *c, const struct tnl_http_head *h)
{
	const struct conn_opening *op = c->op;
	const char *hint = h->status == 407 ? op->proxy.user[0] ? " (user or password of the proxy is wrong)"
								: " (set user and password of the proxy)"
					    : "";
	td_conn_end(c, TNL_EREFUSED, "proxy %.100s:%u refused %.100s:%u: %d %.*s%s", op->proxy.host, op->proxy.port,
		    op->host, op->port, h->status, (int)TNL_MIN(h->reason_len, REASON_SHOWN), h->reason, hint);
}

/* True when the tunnel through the proxy stands. */
static bool proxy_answer(struct td_conn *c)
{
	struct conn_opening *op = c->op;
	struct tnl_http_head h;
	for (;;) {
		size_t want = TNL_MIN(tnl_buf_room(&op->head), READ_STEP);
		uint8_t *p = want ? tnl_buf_reserve(&op->head, want) : NULL;
		if (!p) {
			td_conn_end(c, TNL_ETOOBIG, "proxy %.100s:%u: its answer is too long", op->proxy.host,
				    op->proxy.port);
			return false;
		}
		ssize_t k = td_conn_low_read(c, p, want);
		if (k == TNL_EAGAIN)
			return false;
		if (k <= 0) {
			td_conn_end(c, TNL_EUNREACH, "proxy %.100s:%u: it closed the connection", op->proxy.host,
				    op->proxy.port);
			return false;
		}
		tnl_buf_commit(&op->head, (size_t)k);
		if (!tnl_http_worth_parsing(&op->head_wait, tnl_buf_data(&op->head), tnl_buf_len(&op->head)))
			continue;
		int n = tnl_http_parse(false, tnl_buf_data(&op->head), tnl_buf_len(&op->head), &h);
		if (n == TNL_EAGAIN)
			continue;
		if (n < 0) {
			td_conn_end(c, TNL_ESYNTAX, "proxy %.100s:%u: its answer is not HTTP: %s", op->proxy.host,
				    op->proxy.port, h.fault ? h.fault : tnl_err_text(n));
			return false;
		}
		if (h.status < 200 || h.status > 299) {
			proxy_refused(c, &h);
			return false;
		}
		size_t rest = tnl_buf_len(&op->head) - (size_t)n;
		tnl_buf_put(&c->early, tnl_buf_data(&op->head) + n, rest);
		return true;
	}
}

/* --- behind a balancer ---------------------------------------------------- */

static void take_name(struct td_conn *c, const struct tnl_proxyhead *h)
{
	struct td_addr a = {.len = sizeof(a.ss)};
	if (h->family == TNL_PROXYHEAD_INET) {
		a.len = sizeof(a.in);
		a.in.sin_family = AF_INET;
		memcpy(&a.in.sin_addr, h->source.ip, sizeof(a.in.sin_addr));
		a.in.sin_port = htons(h->source.port);
	} else if (h->family == TNL_PROXYHEAD_INET6) {
		a.len = sizeof(a.in6);
		a.in6.sin6_family = AF_INET6;
		memcpy(&a.in6.sin6_addr, h->source.ip, sizeof(a.in6.sin6_addr));
		a.in6.sin6_port = htons(h->source.port);
	} else if (getpeername(c->fd, &a.sa, &a.len) != 0) { /* the balancer comes for itself */
		td_conn_end(c, TNL_EIO, "connection broke: %s", strerror(errno));
		return;
	}
	td_addr_unmap(&a);
	td_addr_str(&a, c->peer);
	c->cb.named(c->ctx, &a);
}

/* True when the header is there; what is behind it stays in `early`. */
static bool take_header(struct td_conn *c)
{
	struct tnl_proxyhead h;
	for (;;) {
		int n = tnl_proxyhead_parse(tnl_buf_data(&c->early), tnl_buf_len(&c->early), &h);
		if (n > 0) {
			if (c->vouched)
				tnl_buf_put(&c->vouch, tnl_buf_data(&c->early), (size_t)n);
			tnl_buf_consume(&c->early, (size_t)n);
			take_name(c, &h);
			return c->state == CONN_BEHIND;
		}
		if (n != TNL_EAGAIN) {
			td_conn_end(c, TNL_EREFUSED, "PROXY header: %s, from an address that is in proxy_protocol",
				    tnl_proxyhead_looks(tnl_buf_data(&c->early), tnl_buf_len(&c->early)) ? "malformed"
													 : "missing");
			return false;
		}
		uint8_t *p = tnl_buf_reserve(&c->early, READ_STEP);
		ssize_t k = p ? td_conn_fd_read(c, p, READ_STEP) : TNL_ENOMEM;
		if (k > 0)
			tnl_buf_commit(&c->early, (size_t)k);
		else if (k != TNL_EAGAIN) {
			td_conn_end(c, k ? (int)k : TNL_EEOF, "the peer closed the connection");
			return false;
		} else
			return false;
	}
}

/* --- steps ---------------------------------------------------------------- */

static void begin_end_to_end(struct td_conn *c)
{
	tnl_buf_fini_wiped(&c->stage); /* held the proxy's password */
	if (!c->tls_ctx || (c->op && !c->op->tls_name[0])) {
		open_now(c);
		return;
	}
	td_conn_set_state(c, CONN_TLS);
	ev_io_start(c->l->ev, &c->rd);
	tls_begin(c, &c->tls, c->op ? c->op->tls_name : NULL);
}

static void take_steps(struct td_conn *c)
{
	while (c->state != CONN_END) {
		struct tnl_tls *t = c->state == CONN_PROXY_TLS ? c->outer : c->tls;
		int r;
		switch (c->state) {
		case CONN_PROXY_TLS:
		case CONN_TLS:
			r = drive_handshake(c, t);
			if (r == TNL_EAGAIN)
				return;
			if (r != 0) {
				tls_failed(c, t, r);
				return;
			}
			td_debug("conn", NULL, "TLS is up peer=%s version=%s cipher=%s resumed=%d", c->peer,
				 tnl_tls_version(t), tnl_tls_cipher(t), tnl_tls_resumed(t));
			if (c->state == CONN_PROXY_TLS)
				proxy_ask(c);
			else
				open_now(c);
			break;
		case CONN_PROXY:
			if (!proxy_answer(c))
				return;
			begin_end_to_end(c);
			break;
		case CONN_BEHIND:
			if (!take_header(c))
				return;
			begin_end_to_end(c);
			break;
		default:
			return;
		}
	}
}

/* Whoever says nothing costs no buffer to read into. */
void td_conn_opening_step(struct td_conn *c)
{
	take_steps(c);
	td_conn_settle(c);
}

static void on_dialed(void *ctx, int fd, const struct td_addr *peer, int err, const char *why)
{
	struct td_conn *c = ctx;
	char at[600];
	c->op->dial = NULL;
	if (fd < 0) {
		td_conn_end(c, err, "cannot connect to %.200s: %s", target_text(c, at), why);
		return;
	}
	td_conn_set_fd(c, fd, peer);
	if (c->op->has_proxy && c->op->proxy.tls) {
		td_conn_set_state(c, CONN_PROXY_TLS);
		if (!tls_begin(c, &c->outer, c->op->proxy.host))
			return;
	} else if (c->op->has_proxy) {
		proxy_ask(c);
	} else {
		begin_end_to_end(c);
	}
	td_conn_opening_step(c);
}

static void on_resolved(void *ctx, int err, const struct td_addr *addrs, int n, const char *why)
{
	struct td_conn *c = ctx;
	char at[600];
	c->op->resolve = NULL;
	if (err) {
		td_conn_end(c, err == TNL_ENOTFOUND ? TNL_EUNREACH : err, "cannot connect to %.200s: %s",
			    target_text(c, at), why);
		return;
	}
	td_conn_set_state(c, CONN_CONNECT);
	uint64_t left = c->op->deadline > c->l->now ? c->op->deadline - c->l->now : 0;
	c->op->dial = td_dial_start(c->l, addrs, n, left, on_dialed, c);
	if (!c->op->dial)
		td_conn_end(c, TNL_ENOMEM, "out of memory");
}

struct td_conn *td_conn_dial(struct td_loop *l, const struct td_conn_opts *o, const struct td_conn_cb *cb, void *ctx)
{
	struct td_conn *c = td_conn_new(l, cb, ctx);
	struct conn_opening *op = c ? tnl_calloc(1, sizeof(*op)) : NULL;
	if (!op) {
		tnl_free(c);
		return NULL;
	}
	uint64_t timeout = o->timeout_ns ? o->timeout_ns : OPEN_TIMEOUT;
	c->op = op;
	tnl_buf_init(&op->head, TNL_HTTP_HEAD_MAX);
	snprintf(op->host, sizeof(op->host), "%s", o->host);
	op->port = o->port;
	snprintf(c->peer, sizeof(c->peer), "%.100s:%u", op->host, op->port);
	if (o->proxy) {
		op->has_proxy = true;
		op->proxy = *o->proxy;
	}
	if (o->tls && !o->plain)
		snprintf(op->tls_name, sizeof(op->tls_name), "%s", o->tls_name ? o->tls_name : o->host);
	if (o->tls)
		c->tls_ctx = tnl_tls_ctx_ref(o->tls);
	if (op->has_proxy && op->proxy.tls && !o->tls) {
		td_conn_end(c, TNL_ECONF, "proxy %.100s:%u requires TLS, and no trust is configured to verify it with",
			    op->proxy.host, op->proxy.port);
		return c;
	}
	op->deadline = l->now + timeout;
	td_timer_at(&c->timer, op->deadline);
	op->resolve = td_resolve_start(l, o->proxy ? o->proxy->host : o->host, o->proxy ? o->proxy->port : o->port,
				       on_resolved, c);
	if (!op->resolve)
		td_conn_end(c, TNL_ENOMEM, "out of memory");
	return c;
}

void td_conn_step(void *arg)
{
	struct td_conn *c = arg;
	if (c->state == CONN_END)
		c->cb.closed(c->ctx, c->end, c->why);
	else if (c->state == CONN_OPEN)
		tell_ready(c);
	else if (c->state < CONN_OPEN) {
		if (c->state == CONN_BEHIND)
			ev_io_start(c->l->ev, &c->rd);
		else
			begin_end_to_end(c);
		td_conn_opening_step(c); /* a client has the first word */
	}
}

struct tnl_tls *td_conn_tls(struct td_conn *c)
{
	return c->tls;
}

struct td_conn *td_conn_connected(struct td_loop *l, int fd, struct tnl_tls_ctx *tls, const char *tls_name,
				  uint64_t timeout_ns, const struct td_conn_cb *cb, void *ctx)
{
	struct conn_opening *op = tnl_calloc(1, sizeof(*op));
	struct td_conn *c = op ? td_conn_accepted(l, fd, tls, timeout_ns, cb, ctx) : NULL;
	if (!op)
		td_fd_rst_close(fd);
	if (!c) {
		tnl_free(op);
		return NULL;
	}
	struct td_addr peer = {.len = sizeof(peer.ss)};
	if (getpeername(fd, &peer.sa, &peer.len) == 0)
		op->port = td_addr_port(&peer);
	snprintf(op->host, sizeof(op->host), "%s", c->peer);
	char *colon = strrchr(op->host, ':');
	if (colon)
		*colon = 0;
	snprintf(op->tls_name, sizeof(op->tls_name), "%s", tls_name);
	tnl_buf_init(&op->head, TNL_HTTP_HEAD_MAX);
	c->op = op;
	return c;
}

struct td_conn *td_conn_accepted(struct td_loop *l, int fd, struct tnl_tls_ctx *tls, uint64_t timeout_ns,
				 const struct td_conn_cb *cb, void *ctx)
{
	struct td_addr peer = {.len = sizeof(peer.ss)};
	struct td_conn *c = td_conn_new(l, cb, ctx);
	if (!c) {
		td_fd_rst_close(fd);
		return NULL;
	}
	if (getpeername(fd, &peer.sa, &peer.len) != 0)
		peer.len = 0; /* gone already: the first read will say so */
	td_addr_unmap(&peer);
	c->state = CONN_TLS;
	if (tls)
		c->tls_ctx = tnl_tls_ctx_ref(tls);
	td_conn_set_fd(c, fd, &peer);
	td_timer_in(&c->timer, timeout_ns ? timeout_ns : OPEN_TIMEOUT);
	/* The caller has no pointer yet: nothing may end before it returns. */
	ev_io_stop(l->ev, &c->rd);
	td_soon_do(&c->step);
	return c;
}

struct td_conn *td_conn_accepted_behind(struct td_loop *l, int fd, struct tnl_tls_ctx *tls, uint64_t timeout_ns,
					const struct td_conn_cb *cb, void *ctx)
{
	struct td_conn *c = td_conn_accepted(l, fd, tls, timeout_ns, cb, ctx);
	if (c)
		c->state = CONN_BEHIND;
	return c;
}

void td_conn_vouched(struct td_conn *c)
{
	c->vouched = true;
	tnl_buf_init(&c->vouch, TNL_PROXYHEAD_MAX);
}

static bool is_vouched(const struct td_conn *c, const char *name)
{
	size_t at = 0, n, want = strlen(name);
	const uint8_t *p;
	uint8_t type;

	while (tnl_proxyhead_next(tnl_buf_data(&c->vouch), tnl_buf_len(&c->vouch), &at, &type, &p, &n)) {
		bool exact = type == TD_CONN_FIELD_EXACT, fits = n == want && (exact || type == TD_CONN_FIELD_NAME);
		if (fits && (exact ? memcmp(p, name, n) : strncasecmp((const char *)p, name, n)) == 0)
			return true;
	}
	return false;
}

bool td_conn_cert_named(const struct td_conn *c, const char *name)
{
	return *name && ((c->tls && tnl_tls_peer_named(c->tls, name)) || (c->vouched && is_vouched(c, name)));
}
