/* Ferries: a client's connection that came to the wrong node, as a stream of the trunk to the right one.
 *
 *   the client's side  reads its connection when the stream's turn comes, so that credit and turns are the trunk's
 *   the session's side has one end of a pair of sockets, the HTTP server the other: to that it is a connection as any
 *
 * What comes from the trunk goes into the connection at once, which has room for a window beyond the mark at which it
 * reports; above that mark no credit is given back until it does.
 *
 * When the client's side goes, it cannot end the link, whose frames it does not know: the session's side is asked to.
 */
#include "lib/alloc.h"
#include "lib/num.h"
#include "lib/proxyhead.h"
#include "tunneld/base/fd.h"
#include "tunneld/gateway/peer_internal.h"
#include <string.h>
#include <sys/socket.h>

#define CONN_MARK (128u * 1024) /* td_conn reports room below it */
#define HEAD_MAX (64u * 1024)	/* of a request that is handed on */
#define READ_AT_ONCE (16u * 1024)

struct gw_ferry {
	struct tnl_list node; /* in the peers' ferries, or in those that are away */
	struct gw_peers *peers;
	struct gw_trunk *k;	     /* as long as there is a stream */
	struct tnl_trunk_stream *st; /* NULL: over */
	struct td_conn *conn;
	bool open;		/* conn is */
	uint64_t number;	/* of the connection that the HTTP server has; 0: it went away from here */
	struct tnl_buf early;	/* came before it was */
	size_t kept;		/* that came, without credit given back */
	uint64_t kept_since;	/* monotonic */
	struct td_peer counted; /* the client, at the node that it came to */
};

static struct gw_ferry *new_ferry(struct gw_trunk *k)
{
	struct gw_ferry *f = tnl_calloc(1, sizeof(*f));
	if (!f)
		return NULL;
	f->k = k;
	f->peers = k->peers;
	tnl_list_push_back(&f->peers->ferries, &f->node);
	tnl_buf_init(&f->early, TNL_TRUNK_WINDOW);
	return f;
}

static void free_ferry(struct gw_ferry *f)
{
	tnl_list_remove(&f->node);
	td_peers_leave(f->peers->clients, &f->counted);
	td_conn_free(f->conn);
	tnl_buf_fini(&f->early);
	tnl_free(f);
}

static void drop_stream(struct gw_ferry *f)
{
	struct tnl_trunk_stream *st = f->st;
	f->st = NULL;
	if (!st)
		return;
	tnl_trunk_close(st);
	gw_trunk_pump(f->k);
}

/* --- the connection ----------------------------------------------------------------- */
static void on_readable(void *ctx)
{
	struct gw_ferry *f = ctx;
	td_conn_pause(f->conn, true); /* until its turn */
	if (!f->st)
		return;
	tnl_trunk_want(f->st);
	gw_trunk_pump(f->k);
}

static void give_credit(struct gw_ferry *f)
{
	size_t n = f->kept;
	if (!f->st || !n || td_conn_queued(f->conn) > CONN_MARK)
		return;
	f->kept = 0;
	tnl_trunk_taken(f->st, n);
	gw_trunk_pump(f->k);
}

static void on_writable(void *ctx)
{
	give_credit(ctx);
}

static void on_ready(void *ctx)
{
	struct gw_ferry *f = ctx;
	f->open = true;
	td_conn_write(f->conn, tnl_buf_data(&f->early), tnl_buf_len(&f->early));
	tnl_buf_fini(&f->early);
	give_credit(f);
}

static void on_closed(void *ctx, int err, const char *why)
{
	struct gw_ferry *f = ctx;
	drop_stream(f);
	free_ferry(f);
}

static const struct td_conn_cb conn_cb = {.ready = on_ready,
					  .readable = on_readable,
					  .writable = on_writable,
					  .closed = on_closed};

/* --- the stream ---------------------------------------------------------------------- */
void gw_ferry_data(struct tnl_trunk_stream *st, const uint8_t *p, size_t n)
{
	struct gw_ferry *f = tnl_trunk_user(st);
	if (!f->kept)
		f->kept_since = f->peers->g->l->now;
	f->kept += n;
	f->k->from += n;
	if (td_memory_spent())
		td_soon_do(&f->peers->g->make_room);
	if (!f->open)
		tnl_buf_put(&f->early, p, n);
	if (f->open ? td_conn_write(f->conn, p, n) < n : f->early.failed) { /* it has broken, or there is no memory */
		drop_stream(f);
		free_ferry(f);
		return;
	}
	if (f->open)
		give_credit(f);
}

/* The other side of it has gone: what came is still delivered. */
void gw_ferry_ended(struct tnl_trunk_stream *st)
{
	struct gw_ferry *f = tnl_trunk_user(st);
	f->st = NULL;
	tnl_trunk_close(st);
	if (f->open) {
		td_conn_pause(f->conn, false);
		td_conn_shutdown(f->conn);
	} else {
		free_ferry(f);
	}
}

void gw_ferry_fill(struct tnl_trunk_stream *st)
{
	struct gw_ferry *f = tnl_trunk_user(st);
	size_t n = READ_AT_ONCE;
	uint8_t *p = tnl_trunk_reserve(st, &n);
	if (!p) {
		tnl_trunk_commit(st, 0);
		return;
	}
	td_conn_pause(f->conn, false);
	ssize_t k = td_conn_read(f->conn, p, n);
	tnl_trunk_commit(st, k > 0 ? (size_t)k : 0);
	if (k <= 0)
		return; /* readable() tells of more */
	f->k->to += (uint64_t)k;
	td_conn_pause(f->conn, true);
}

void gw_ferry_abort(struct tnl_trunk_stream *st)
{
	struct gw_ferry *f = tnl_trunk_user(st);
	f->st = NULL;
	tnl_trunk_close(st);
	free_ferry(f);
}

/* --- the end --------------------------------------------------------------------------- */
/* Its close frame goes the way of all others. There is no link yet: its client hears that the connection is over. */
void gw_ferry_dismissed(struct tnl_trunk_stream *st)
{
	struct gw_ferry *f = tnl_trunk_user(st);
	struct gw_link *l = f->number ? tnl_map_get_u64(f->peers->g->handed, f->number) : NULL;
	if (l)
		gw_link_close(l, 1001, GW_GOING_TEXT);
	else if (f->number)
		td_conn_shutdown(f->conn);
}

size_t gw_ferries_away(const struct gw_peers *p, size_t *untold)
{
	size_t told = 0;
	*untold = 0;
	tnl_list_foreach(it, &p->away)
		(*untold)++;
	tnl_list_foreach(it, &p->ferries)
		told += tnl_container_of(it, struct gw_ferry, node)->number == 0;
	return *untold + told;
}

bool gw_ferries_dismiss(struct gw_peers *p)
{
	if (tnl_list_empty(&p->away))
		return false;
	struct gw_ferry *f = tnl_container_of(p->away.next, struct gw_ferry, node);
	tnl_list_remove(&f->node);
	tnl_list_push_back(&p->ferries, &f->node);
	if (f->st) { /* else it is over at the other node already */
		tnl_trunk_dismiss(f->st);
		gw_trunk_pump(f->k);
	}
	return true;
}

static uint64_t cut_unread(struct gw_peers *p, struct tnl_list *ferries, uint64_t want, uint64_t unread_ns, unsigned *n)
{
	uint64_t got = 0, now = p->g->l->now;
	tnl_list_foreach_safe(it, ferries) {
		struct gw_ferry *f = tnl_container_of(it, struct gw_ferry, node);
		if (!f->open || !f->kept || now - f->kept_since < unread_ns)
			continue;
		if (got >= want)
			break;
		got += td_conn_queued(f->conn); /* freed at the end of this turn */
		drop_stream(f);
		free_ferry(f);
		(*n)++;
	}
	return got;
}

uint64_t gw_ferries_make_room(struct gw_peers *p, uint64_t want, uint64_t unread_ns)
{
	unsigned n = 0;
	uint64_t got = cut_unread(p, &p->away, want, unread_ns, &n);
	if (got < want)
		got += cut_unread(p, &p->ferries, want - got, unread_ns, &n);
	if (n)
		td_warn("peer", NULL, "memory is short: links to other nodes that nobody reads are cut links=%u", n);
	return got;
}

static void cut_all(struct tnl_list *ferries)
{
	tnl_list_foreach_safe(it, ferries) {
		struct gw_ferry *f = tnl_container_of(it, struct gw_ferry, node);
		drop_stream(f);
		free_ferry(f);
	}
}

void gw_ferries_cut(struct gw_peers *p)
{
	cut_all(&p->ferries);
	cut_all(&p->away);
}

/* --- away -------------------------------------------------------------------------------- */
static size_t write_head(const struct td_addr *a, uint8_t out[TNL_PROXYHEAD_LONGEST])
{
	struct tnl_proxyhead h = {.version = 2, .local = true};
	if (a->len && a->sa.sa_family == AF_INET) {
		h.local = false;
		h.family = TNL_PROXYHEAD_INET;
		memcpy(h.source.ip, &a->in.sin_addr, 4);
	} else if (a->len && a->sa.sa_family == AF_INET6) {
		h.local = false;
		h.family = TNL_PROXYHEAD_INET6;
		memcpy(h.source.ip, &a->in6.sin6_addr, 16);
	}
	h.source.port = h.local ? 0 : td_addr_port(a);
	return tnl_proxyhead_write(&h, out);
}

struct head {
	uint8_t bytes[TNL_PROXYHEAD_MAX];
	size_t n;
};

/* What finds no room is not told, and not missed unless it is that which a key is bound to. */
static void add_name(void *ctx, const char *name, size_t n, bool exact)
{
	struct head *h = ctx;
	size_t longer = tnl_proxyhead_add(h->bytes, h->n, sizeof(h->bytes),
					  exact ? TD_CONN_FIELD_EXACT : TD_CONN_FIELD_NAME, name, n);
	h->n = longer ? longer : h->n;
}

/* More than a part of a turn, before anybody reads: it is less than a window. */
static bool put_bytes(struct tnl_trunk_stream *st, const uint8_t *p, size_t n)
{
	while (n) {
		size_t k = n;
		uint8_t *to = tnl_trunk_reserve(st, &k);
		if (!to || k == 0)
			return false;
		memcpy(to, p, k);
		tnl_trunk_commit(st, k);
		p += k;
		n -= k;
	}
	return true;
}

/* The request is not the caller's any more. */
static void send_from(struct gw_ferry *f, struct td_request *r)
{
	struct tnl_buf bytes;
	struct head head;
	head.n = write_head(td_request_peer_addr(r), head.bytes);
	if (td_request_tls(r))
		tnl_tls_peer_names(td_request_tls(r), add_name, &head);
	tnl_buf_init(&bytes, HEAD_MAX);
	f->conn = td_request_detach(r, &bytes);
	if (f->conn && put_bytes(f->st, head.bytes, head.n) &&
	    put_bytes(f->st, tnl_buf_data(&bytes), tnl_buf_len(&bytes))) {
		f->open = true;
		td_conn_set_cb(f->conn, &conn_cb, f);
		td_conn_pause(f->conn, false);
		gw_trunk_pump(f->k);
	} else {
		drop_stream(f);
		free_ferry(f);
	}
	tnl_buf_fini_wiped(&bytes);
}

bool gw_ferry_send(struct gw_peers *p, struct td_request *r, const char *node)
{
	struct gw_trunk *k = td_request_handed(r) ? NULL : gw_peers_link(p, node);
	unsigned max = p->g->cfg->gw.per_peer_connections * GW_FERRIES_PER_CLIENT;
	struct gw_ferry *f = k ? new_ferry(k) : NULL;
	if (!f)
		return false;
	bool counted = td_peers_enter(p->clients, td_request_peer_addr(r), max, &f->counted);
	if (counted)
		f->st = tnl_trunk_open(k->t, f);
	if (!f->st) {
		p->refused++;
		free_ferry(f);
		return false;
	}
	p->handed_on++;
	tnl_list_remove(&f->node);
	tnl_list_push_back(&p->away, &f->node);
	send_from(f, r);
	return true;
}

/* --- here ---------------------------------------------------------------------------------- */
void gw_ferry_opened(struct gw_trunk *k, struct tnl_trunk_stream *st)
{
	struct td_gateway *g = k->peers->g;
	int pair[2];
	bool room = !td_fd_short() && !td_memory_full() && !g->drain;
	struct gw_ferry *f = room ? new_ferry(k) : NULL;
	if (!f || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0) {
		k->peers->refused++;
		if (f)
			free_ferry(f);
		tnl_trunk_close(st);
		return;
	}
	f->st = st;
	f->number = ++k->peers->last_number;
	tnl_trunk_set_user(st, f);
	f->conn = td_conn_accepted(g->l, pair[0], NULL, 0, &conn_cb, f);
	td_http_server_hand(g->httpd, pair[1], f->number);
	if (f->conn) {
		k->peers->taken_in++;
		return;
	}
	drop_stream(f);
	free_ferry(f);
}
