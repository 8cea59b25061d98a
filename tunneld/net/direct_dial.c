/* The client's way to a direct link:  resolve all → dial → TLS → our proof → theirs → the link.
 * An address behind which somebody else is drops out, and the rest is dialed again: the ticket is still good, since
 * only the agent that made it can use it up. */
#include "tunneld/net/direct_dial.h"

#include "lib/alloc.h"
#include "lib/num.h"
#include "tunneld/net/dial.h"
#include "tunneld/net/direct_proof.h"
#include "tunneld/net/resolve.h"

#include <stdio.h>
#include <string.h>

#define ADDRS_MAX 16

struct lookup {
	struct td_direct_dial *d;
	struct td_resolve *r;
};

struct td_direct_dial {
	struct td_loop *l;
	struct tnl_direct_ticket ticket;
	char name[TNL_DIRECT_NAME + 1];
	uint64_t timeout;
	struct td_wslink_opts opts;
	td_direct_dial_fn *fn;
	void *ctx;
	struct lookup lookups[TNL_DIRECT_ADDRESSES];
	int resolving;
	struct td_addr addrs[ADDRS_MAX], now; /* now: whom we are connected to */
	int naddrs;
	struct td_dial *dial;
	struct tnl_tls_ctx *tls;
	struct td_conn *conn;
	struct td_direct_proof proof;
	struct td_timer timer;
	struct td_soon begin;
	char why[300];
};

void td_direct_dial_cancel(struct td_direct_dial *d)
{
	if (!d)
		return;
	for (int i = 0; i < TNL_DIRECT_ADDRESSES; i++)
		td_resolve_cancel(d->lookups[i].r);
	td_timer_stop(&d->timer);
	td_soon_cancel(&d->begin);
	td_dial_cancel(d->dial);
	td_conn_free(d->conn);
	tnl_tls_ctx_free(d->tls);
	tnl_wipe(&d->ticket, sizeof(d->ticket));
	td_loop_free_later(d->l, d);
}

static void finish(struct td_direct_dial *d, struct td_wslink *w, int err)
{
	td_direct_dial_fn *fn = d->fn;
	void *ctx = d->ctx;

	td_direct_dial_cancel(d); /* its memory stays until the turn is over */
	fn(ctx, w, err, d->why);
}

static void fail(struct td_direct_dial *d, int err, const char *why)
{
	snprintf(d->why, sizeof(d->why), "%s", why);
	finish(d, NULL, err);
}

/* --- connected ------------------------------------------------------------------------ */

static void dial_rest(struct td_direct_dial *d);

/* Not the one of the ticket, or it does not want us. */
static void drop_address(struct td_direct_dial *d, int err, const char *why)
{
	td_conn_free(d->conn);
	d->conn = NULL;
	td_timer_stop(&d->timer);
	for (int i = 0; i < d->naddrs; i++)
		if (d->addrs[i].len == d->now.len && memcmp(&d->addrs[i].ss, &d->now.ss, d->now.len) == 0)
			d->addrs[i--] = d->addrs[--d->naddrs];
	if (d->naddrs)
		dial_rest(d);
	else
		fail(d, err, why);
}

static void on_ready(void *ctx)
{
	struct td_direct_dial *d = ctx;
	int rc = td_direct_prove(d->conn, d->ticket.secret, true);

	if (rc)
		drop_address(d, rc, tnl_err_text(rc));
}

static void on_readable(void *ctx)
{
	static const struct td_wslink_cb none;
	struct td_direct_dial *d = ctx;
	int rc = td_direct_check(&d->proof, d->conn, d->ticket.secret, false);

	if (rc == TNL_EAGAIN)
		return;
	if (rc) {
		drop_address(d, rc, "the other end's proof is wrong");
		return;
	}
	struct td_conn *conn = d->conn;
	d->conn = NULL;
	struct td_wslink *w = td_wslink_adopt(d->l, conn, NULL, 0, &d->opts, &none, NULL);
	snprintf(d->why, sizeof(d->why), "%s", w ? "" : "out of memory");
	finish(d, w, w ? 0 : TNL_ENOMEM);
}

static void on_closed(void *ctx, int err, const char *why)
{
	drop_address(ctx, err, why);
}

static const struct td_conn_cb conn_cb = {.ready = on_ready, .readable = on_readable, .closed = on_closed};

static void on_dialed(void *ctx, int fd, const struct td_addr *peer, int err, const char *why)
{
	struct td_direct_dial *d = ctx;

	d->dial = NULL;
	if (fd < 0) {
		fail(d, err, why);
		return;
	}
	d->now = *peer;
	memset(&d->proof, 0, sizeof(d->proof));
	d->conn = td_conn_connected(d->l, fd, d->tls, d->name, d->timeout, &conn_cb, d);
	if (d->conn)
		td_timer_in(&d->timer, d->timeout);
	else
		fail(d, TNL_ENOMEM, "out of memory");
}

static void dial_rest(struct td_direct_dial *d)
{
	d->dial = td_dial_start(d->l, d->addrs, d->naddrs, d->timeout, on_dialed, d);
	if (!d->dial)
		fail(d, TNL_ENOMEM, "out of memory");
}

/* --- addresses ------------------------------------------------------------------------- */

static void dial_all(struct td_direct_dial *d)
{
	td_timer_stop(&d->timer);
	for (int i = 0; i < TNL_DIRECT_ADDRESSES; i++) {
		td_resolve_cancel(d->lookups[i].r);
		d->lookups[i].r = NULL;
	}
	if (d->naddrs)
		dial_rest(d);
	else
		fail(d, TNL_EUNREACH, d->why[0] ? d->why : "the ticket names no address that is somebody's");
}

static void on_resolved(void *ctx, int err, const struct td_addr *addrs, int n, const char *why)
{
	struct lookup *lk = ctx;
	struct td_direct_dial *d = lk->d;

	lk->r = NULL;
	if (err)
		snprintf(d->why, sizeof(d->why), "%s", why);
	for (int i = 0; !err && i < n && d->naddrs < ADDRS_MAX; i++)
		if (!td_addr_is_nobody(&addrs[i]))
			d->addrs[d->naddrs++] = addrs[i];
	if (--d->resolving == 0)
		dial_all(d);
}

/* A name server that does not answer holds up neither those that are known nor the end. */
static void on_timer(void *arg)
{
	struct td_direct_dial *d = arg;

	if (d->conn)
		drop_address(d, TNL_ETIMEOUT, "the other end did not prove itself in time");
	else
		dial_all(d);
}

static uint64_t unix_time(void *ctx)
{
	return ((const struct td_loop *)ctx)->wall_ms / 1000;
}

static void begin(void *arg)
{
	struct td_direct_dial *d = arg;
	struct tnl_tls_config c = {.pin = d->ticket.key, .unix_time = unix_time, .time_ctx = d->l};
	char host[TNL_DIRECT_ADDRESS];
	uint16_t port;

	d->tls = tnl_tls_ctx_new(&c, d->why, sizeof(d->why));
	if (!d->tls) {
		finish(d, NULL, TNL_ETLS);
		return;
	}
	for (int i = 0; i < d->ticket.naddresses; i++) {
		struct lookup *lk = &d->lookups[i];

		if (!tnl_direct_address_split(d->ticket.addresses[i], host, &port))
			continue;
		lk->d = d;
		lk->r = td_resolve_start(d->l, host, port, on_resolved, lk);
		d->resolving += lk->r != NULL;
	}
	/* Those that are slow to resolve come too late when another is there. */
	td_timer_in(&d->timer, d->resolving ? d->timeout / 2 : 0);
}

struct td_direct_dial *td_direct_dial_start(struct td_loop *l, const struct tnl_direct_ticket *t, uint64_t timeout_ns,
					    const struct td_wslink_opts *o, td_direct_dial_fn *fn, void *ctx)
{
	struct td_direct_dial *d = tnl_calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->l = l;
	d->ticket = *t;
	tnl_direct_name(t->secret, d->name);
	d->timeout = timeout_ns;
	d->opts = *o;
	d->opts.client = true;
	d->fn = fn;
	d->ctx = ctx;
	td_timer_init(&d->timer, l, on_timer, d);
	td_soon_init(&d->begin, l, begin, d);
	td_soon_do(&d->begin);
	return d;
}
