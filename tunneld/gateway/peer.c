/* Links between nodes.  Each node listens, and of two the one whose name comes first dials the other, as soon as the
 * store says that it is there; so there is one connection for each pair.
 *
 *   dialed or accepted ─► TLS, both certificates checked ─► greeting: the name that it says is in its certificate ─► in
 * use
 *
 * The certificate is that which the connection's key belongs to, not one further up in its chain. */
#include "lib/alloc.h"
#include "lib/json.h"
#include "lib/num.h"
#include "tunneld/base/fd.h"
#include "tunneld/base/file.h"
#include "tunneld/gateway/peer_internal.h"
#include "tunneld/net/listen.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define OPEN_NS (10 * TD_SEC) /* from the connection to the greeting */
#define LEARN_NS (500 * TD_MS)
#define LEARN_SOON_NS (20 * TD_MS) /* when the store was asked just now */
#define READ_STEP (16u * 1024)

/* --- the end of one ------------------------------------------------------------------ */
static void free_trunk(struct gw_trunk *k)
{
	struct gw_peer *p = k->peer;
	struct tnl_trunk_stream *st;
	if (p && p->link == k)
		p->link = NULL;
	if (p && p->dial == k)
		p->dial = NULL;
	if (!tnl_list_empty(&k->node))
		k->peers->nstrangers--;
	tnl_list_remove(&k->node);
	while (k->t && (st = tnl_trunk_first(k->t)) != NULL)
		gw_ferry_abort(st);
	td_timer_stop(&k->timer);
	td_soon_cancel(&k->pump);
	td_conn_free(k->conn);
	tnl_trunk_free(k->t);
	td_loop_free_later(k->peers->g->l, k);
}

static void dial_later(struct gw_peer *p)
{
	if (strcmp(p->peers->name, p->name) < 0 && p->port && !p->link && !p->dial)
		td_timer_in(&p->again, td_backoff_next(&p->backoff));
}

/* The same trouble is said once a minute, not with each attempt. `key`: what makes it the same. */
static bool is_news(struct gw_trouble *t, size_t n, const char *key, uint64_t now)
{
	struct gw_trouble *oldest = t;
	for (size_t i = 0; i < n; i++) {
		if (t[i].at && strcmp(t[i].key, key) == 0 && now - t[i].at < GW_PEER_SAY_NS)
			return false;
		oldest = t[i].at < oldest->at ? &t[i] : oldest;
	}
	snprintf(oldest->key, sizeof(oldest->key), "%s", key);
	oldest->at = now;
	return true;
}

/* Of a node that we dial it is the reason; of who has not said his name it is where he is. */
static void say_no_link(struct gw_trunk *k, const char *why)
{
	struct gw_peer *p = k->peer;
	uint64_t now = k->peers->g->l->now;
	const char *node = p		? p->name
			   : k->name[0] ? k->name
					: "-",
		   *peer = td_conn_peer(k->conn), *port = strrchr(peer, ':');
	char key[sizeof(p->trouble.key)];
	size_t n = p ? strlen(why) : port ? (size_t)(port - peer) : 0;
	n = TNL_MIN(n, sizeof(key) - 1);
	memcpy(key, p ? why : peer, n);
	key[n] = '\0';
	if (p ? is_news(&p->trouble, 1, key, now) : is_news(k->peers->trouble, GW_PEER_TROUBLES, key, now))
		td_warn("peer", NULL, "no link to node node=%s peer=%s error=\"%s\"", node, peer, why);
	else
		td_debug("peer", NULL, "no link to node, as before node=%s peer=%s error=\"%s\"", node, peer, why);
}

/* Said, and tried again by whoever dials. */
static void lose_trunk(struct gw_trunk *k, const char *why)
{
	struct gw_peer *p = k->peer;
	bool used = p && p->link == k;
	struct td_loop *l = k->peers->g->l;
	if (used) {
		td_warn("peer", NULL, "link to node lost node=%s peer=%s error=\"%s\"", p->name, td_conn_peer(k->conn),
			why);
		td_backoff_up(&p->backoff, l->now - p->up_since);
	} else {
		say_no_link(k, why);
	}
	free_trunk(k);
	if (p)
		dial_later(p);
}

/* --- bytes ------------------------------------------------------------------------------ */
static bool write_out(struct gw_trunk *k)
{
	struct tnl_buf *out = tnl_trunk_out(k->t);
	size_t n = td_conn_write(k->conn, tnl_buf_data(out), tnl_buf_len(out));
	tnl_buf_consume(out, n);
	return tnl_buf_len(out) == 0;
}

static void pump_now(void *arg)
{
	struct gw_trunk *k = arg;
	struct tnl_trunk_stream *st;
	while (k->t && write_out(k) && td_conn_room(k->conn) > READ_STEP && (st = tnl_trunk_next(k->t)) != NULL)
		gw_ferry_fill(st);
}

void gw_trunk_pump(struct gw_trunk *k)
{
	td_soon_do(&k->pump);
}

static void on_writable(void *ctx)
{
	pump_now(ctx);
}

static const char *feed_fault(int r)
{
	return r == TNL_EAUTH	 ? "its name is not in its certificate, or not one that may link here"
	       : r == TNL_EPROTO ? "it does not speak as a node does"
				 : tnl_err_text(r);
}

static void on_readable(void *ctx)
{
	struct gw_trunk *k = ctx;
	uint8_t buf[READ_STEP];
	ssize_t n;
	while (k->t && (n = td_conn_read(k->conn, buf, sizeof(buf))) > 0) {
		k->heard = k->peers->g->l->now;
		int r = tnl_trunk_feed(k->t, buf, (size_t)n);
		if (r == 0)
			continue;
		lose_trunk(k, feed_fault(r));
		return;
	}
	gw_trunk_pump(k);
}

static void on_closed(void *ctx, int err, const char *why)
{
	lose_trunk(ctx, why);
}

/* --- who it is ---------------------------------------------------------------------------- */
static struct gw_peer *find_peer(struct gw_peers *p, const char *name)
{
	for (unsigned i = 0; i < p->n; i++)
		if (strcmp(p->v[i]->name, name) == 0)
			return p->v[i];
	return NULL;
}

/* The one that was there is from before the other node came back. */
static void use_trunk(struct gw_trunk *k, struct gw_peer *p)
{
	struct gw_trunk *old = p->link;
	k->peer = p;
	p->dial = p->dial == k ? NULL : p->dial;
	p->link = k;
	p->up_since = k->peers->g->l->now;
	p->trouble.at = 0;
	if (!tnl_list_empty(&k->node))
		k->peers->nstrangers--;
	tnl_list_remove(&k->node);
	td_timer_stop(&p->again);
	td_timer_in(&k->timer, GW_PEER_NOP_NS);
	if (old)
		free_trunk(old);
	td_info("peer", NULL, "link to node up node=%s peer=%s", p->name, td_conn_peer(k->conn));
}

/* That authority may have given certificates to others than nodes: which names are nodes', the store says.  One that
 * has just started may be there for less than a heartbeat. */
static void wait_until_known(struct gw_trunk *k, const char *name)
{
	snprintf(k->name, sizeof(k->name), "%s", name);
	if (!k->peers->g->shared)
		return;
	td_store_look_again(k->peers->g->store);
	td_timer_in(&k->peers->learn, LEARN_SOON_NS);
}

static void use_known(struct gw_peers *p)
{
	tnl_list_foreach_safe(it, &p->strangers) {
		struct gw_trunk *k = tnl_container_of(it, struct gw_trunk, node);
		struct gw_peer *x = k->name[0] ? find_peer(p, k->name) : NULL;
		if (x)
			use_trunk(k, x);
	}
}

static bool on_greeted(void *ctx, const char *name)
{
	struct gw_trunk *k = ctx;
	const struct tnl_tls *tls = td_conn_tls(k->conn);
	int order = strcmp(name, k->peers->name);
	if (!tls || !tnl_tls_peer_named(tls, name))
		return false;
	if (k->dialed ? strcmp(name, k->peer->name) != 0 : order >= 0)
		return false;
	struct gw_peer *p = k->dialed ? k->peer : find_peer(k->peers, name);
	if (p)
		use_trunk(k, p);
	else
		wait_until_known(k, name);
	return true;
}

static void on_opened(void *ctx, struct tnl_trunk_stream *st)
{
	struct gw_trunk *k = ctx;
	if (k->peer && k->peer->link == k)
		gw_ferry_opened(k, st);
	else
		tnl_trunk_close(st);
}

static void on_data(void *ctx, struct tnl_trunk_stream *st, const uint8_t *p, size_t n)
{
	gw_ferry_data(st, p, n);
}

static void on_ended(void *ctx, struct tnl_trunk_stream *st, bool reset)
{
	gw_ferry_ended(st);
}

static void on_dismissed(void *ctx, struct tnl_trunk_stream *st)
{
	gw_ferry_dismissed(st);
}

static void on_credit(void *ctx, struct tnl_trunk_stream *st)
{
	gw_trunk_pump(ctx);
}

static void on_ready(void *ctx)
{
	struct gw_trunk *k = ctx;
	const struct tnl_tls *tls = td_conn_tls(k->conn);
	if (k->dialed && (!tls || !tnl_tls_peer_named(tls, k->peer->name))) { /* it hears nothing of us */
		lose_trunk(k, "its name is not in its certificate");
		return;
	}
	const struct tnl_trunk_config c = {.name = k->peers->name,
					   .dialer = k->dialed,
					   .max_streams = GW_FERRIES_MAX,
					   .greeted = on_greeted,
					   .opened = on_opened,
					   .data = on_data,
					   .ended = on_ended,
					   .dismissed = on_dismissed,
					   .credit = on_credit,
					   .ctx = k};
	k->t = tnl_trunk_new(&c);
	if (k->t)
		pump_now(k);
	else
		lose_trunk(k, "out of memory");
}

static void on_timer(void *arg)
{
	struct gw_trunk *k = arg;
	uint64_t now = k->peers->g->l->now;
	if (!k->peer || k->peer->link != k) {
		lose_trunk(k, k->name[0] ? "the store has no node of its name" : "it has not said who it is in time");
	} else if (now - k->heard > GW_PEER_LOST_NS) {
		lose_trunk(k, "nothing was heard of it for 30 s");
	} else {
		tnl_trunk_nop(k->t);
		gw_trunk_pump(k);
		td_timer_in(&k->timer, GW_PEER_NOP_NS);
	}
}

static const struct td_conn_cb conn_cb = {.ready = on_ready,
					  .readable = on_readable,
					  .writable = on_writable,
					  .closed = on_closed};

/* --- dialed and accepted ------------------------------------------------------------------- */
static struct gw_trunk *new_trunk(struct gw_peers *p)
{
	struct gw_trunk *k = tnl_calloc(1, sizeof(*k));
	if (!k)
		return NULL;
	k->peers = p;
	k->heard = p->g->l->now;
	tnl_list_init(&k->node);
	td_timer_init(&k->timer, p->g->l, on_timer, k);
	td_soon_init(&k->pump, p->g->l, pump_now, k);
	td_timer_in(&k->timer, OPEN_NS);
	return k;
}

static void dial_now(void *arg)
{
	struct gw_peer *p = arg;
	struct gw_trunk *k = new_trunk(p->peers);
	const struct td_conn_opts o = {
	    .host = p->host, .port = p->port, .tls = p->peers->client, .tls_name = p->name, .timeout_ns = OPEN_NS};
	if (k)
		k->conn = td_conn_dial(p->peers->g->l, &o, &conn_cb, k);
	if (!k || !k->conn) {
		if (k)
			free_trunk(k);
		dial_later(p);
		return;
	}
	k->dialed = true;
	k->peer = p;
	p->dial = k;
}

static void on_accept(void *ctx, int fd, const struct td_addr *addr)
{
	struct gw_peers *p = ctx;
	if (p->nstrangers >= GW_STRANGERS_MAX)
		lose_trunk(tnl_container_of(p->strangers.next, struct gw_trunk, node),
			   "others came before it said who it is");
	struct gw_trunk *k = new_trunk(p);
	if (k)
		k->conn = td_conn_accepted(p->g->l, fd, p->server, OPEN_NS, &conn_cb, k);
	else
		td_fd_rst_close(fd);
	if (k && !k->conn)
		free_trunk(k);
	if (!k || !k->conn)
		return;
	tnl_list_push_back(&p->strangers, &k->node);
	p->nstrangers++;
}

/* --- the other nodes ------------------------------------------------------------------------- */
static struct gw_peer *add_peer(struct gw_peers *p, const char *name)
{
	struct gw_peer *x = find_peer(p, name);
	if (x || p->n == GW_PEERS_MAX)
		return x;
	x = tnl_calloc(1, sizeof(*x));
	if (!x)
		return NULL;
	snprintf(x->name, sizeof(x->name), "%s", name);
	x->peers = p;
	td_backoff_init(&x->backoff, 200 * TD_MS, 5 * TD_SEC);
	td_timer_init(&x->again, p->g->l, dial_now, x);
	p->v[p->n++] = x;
	return x;
}

static void remove_peer(struct gw_peers *p, unsigned i)
{
	struct gw_peer *x = p->v[i];
	p->v[i] = p->v[--p->n];
	if (x->dial)
		free_trunk(x->dial);
	if (x->link)
		free_trunk(x->link);
	td_timer_stop(&x->again);
	td_loop_free_later(p->g->l, x);
}

void gw_peers_begin(struct gw_peers *p)
{
	for (unsigned i = 0; i < p->n; i++)
		p->v[i]->known = false;
}

static bool split_address(const char *address, char *host, size_t cap, uint16_t *port)
{
	struct td_addr a;
	const char *fault;
	char text[TD_ADDR_STR];
	if (td_addr_parse(address, &a, 1, &fault) != 1 || a.sa.sa_family == AF_UNIX || td_addr_given(&a))
		return false;
	td_addr_str(&a, text);
	*strrchr(text, ':') = '\0';
	size_t n = strlen(text);
	bool six = text[0] == '[';
	snprintf(host, cap, "%.*s", (int)(n - (six ? 2 : 0)), text + (six ? 1 : 0));
	*port = td_addr_port(&a);
	return true;
}

void gw_peers_add(struct gw_peers *p, const char *name, const char *address)
{
	char host[TD_ADDR_STR];
	uint16_t port;
	struct gw_peer *x = *address && strcmp(name, p->name) != 0 ? add_peer(p, name) : NULL;
	if (!x)
		return;
	x->known = true;
	if (!split_address(address, host, sizeof(host), &port)) /* it may dial us */
		return;
	bool moved = strcmp(x->host, host) != 0 || x->port != port;
	snprintf(x->host, sizeof(x->host), "%s", host);
	x->port = port;
	if (strcmp(p->name, name) < 0 && !x->link && !x->dial && (moved || x->again.at == UINT64_MAX))
		td_timer_in(&x->again, 0);
}

/* A link that stands outlives the list: the store may have forgotten. */
void gw_peers_end(struct gw_peers *p)
{
	for (unsigned i = p->n; i-- > 0;)
		if (!p->v[i]->known && !p->v[i]->link)
			remove_peer(p, i);
	use_known(p);
}

struct gw_trunk *gw_peers_link(struct gw_peers *p, const char *name)
{
	struct gw_peer *x = find_peer(p, name);
	return x ? x->link : NULL;
}

void gw_peers_status(const struct gw_peers *p, struct tnl_jw *w)
{
	for (unsigned i = 0; i < p->n; i++) {
		const struct gw_peer *x = p->v[i];
		char at[300] = "";
		if (x->port)
			snprintf(at, sizeof(at), strchr(x->host, ':') ? "[%s]:%u" : "%s:%u", x->host, x->port);
		tnl_jw_obj(w);
		tnl_jw_kv(w, "node", x->name);
		tnl_jw_kv(w, "address", at);
		tnl_jw_kv(w, "state", x->link ? "up" : "down");
		tnl_jw_kvi(w, "links", x->link ? (int64_t)tnl_trunk_streams(x->link->t) : 0);
		tnl_jw_kvi(w, "sent_bytes", x->link ? (int64_t)x->link->to : 0);
		tnl_jw_kvi(w, "received_bytes", x->link ? (int64_t)x->link->from : 0);
		tnl_jw_end_obj(w);
	}
}

/* --- all of it ---------------------------------------------------------------------------------- */
static uint64_t unix_time(void *ctx)
{
	return ((struct td_loop *)ctx)->wall_ms / 1000;
}

static char *read_pem(const char *path, const char *key, size_t *n, char *why, size_t cap)
{
	char *text = td_file_read(path, TD_FILE_SMALL, 0, n, NULL);
	if (!text)
		snprintf(why, cap, "%s %s: %s", key, path, td_file_trouble(errno));
	return text;
}

static struct tnl_tls_ctx *make_tls(const struct tnl_tls_config *of, bool server, char *why, size_t cap)
{
	struct tnl_tls_config t = *of;
	char text[200] = "";
	t.server = t.require_client_cert = server;
	struct tnl_tls_ctx *ctx = tnl_tls_ctx_new(&t, text, sizeof(text));
	if (!ctx)
		snprintf(why, cap, "certificate and peer_ca: %s", text);
	return ctx;
}

int gw_peers_reload(struct gw_peers *p, const struct td_gateway_config *c, char *why, size_t cap)
{
	struct tnl_tls_config t = {.peer = true, .unix_time = unix_time, .time_ctx = p->g->l};
	struct tnl_tls_ctx *server = NULL, *client = NULL;
	char *cert = read_pem(c->certificate, "certificate", &t.cert_pem_len, why, cap);
	char *key = cert ? read_pem(c->private_key, "private_key", &t.key_pem_len, why, cap) : NULL;
	char *ca = key ? read_pem(c->peer_ca, "peer_ca", &t.ca_pem_len, why, cap) : NULL;
	t.cert_pem = cert;
	t.key_pem = key;
	t.ca_pem = ca;
	if (ca && (server = make_tls(&t, true, why, cap)) != NULL)
		client = make_tls(&t, false, why, cap);
	if (key)
		tnl_free_wiped(key, t.key_pem_len);
	tnl_free(cert);
	tnl_free(ca);
	if (!client) {
		tnl_tls_ctx_free(server);
		return -1;
	}
	tnl_tls_ctx_free(p->server);
	tnl_tls_ctx_free(p->client);
	p->server = server;
	p->client = client;
	return 0;
}

static void learn_nodes(void *arg)
{
	struct gw_peers *p = arg;
	unsigned n;
	const struct td_store_node *v = td_store_nodes(p->g->store, &n);
	gw_peers_begin(p);
	for (unsigned i = 0; i < n; i++)
		gw_peers_add(p, v[i].name, v[i].peer);
	gw_peers_end(p);
	td_timer_in(&p->learn, LEARN_NS);
}

struct gw_peers *gw_peers_new(struct td_gateway *g, char *why, size_t cap)
{
	const struct td_gateway_config *c = &g->cfg->gw;
	struct td_addr a;
	const char *fault = "";
	why[0] = '\0';
	if (!c->peer_listen)
		return NULL;
	struct gw_peers *p = tnl_calloc(1, sizeof(*p));
	snprintf(why, cap, "out of memory");
	if (!p)
		return NULL;
	p->g = g;
	snprintf(p->name, sizeof(p->name), "%s", g->node);
	td_timer_init(&p->learn, g->l, learn_nodes, p);
	tnl_list_init(&p->strangers);
	tnl_list_init(&p->ferries);
	tnl_list_init(&p->away);
	p->clients = td_peers_new();
	if (p->clients && gw_peers_reload(p, c, why, cap) == 0 && td_addr_parse(c->peer_listen, &a, 1, &fault) == 1)
		p->listener = td_listen(g->l, &a, on_accept, p, why, cap);
	if (p->listener && g->shared)
		td_timer_in(&p->learn, 0);
	if (p->listener)
		return p;
	gw_peers_free(p);
	return NULL;
}

void gw_peers_free(struct gw_peers *p)
{
	if (!p)
		return;
	td_listener_free(p->listener);
	td_timer_stop(&p->learn);
	while (p->n)
		remove_peer(p, p->n - 1);
	while (!tnl_list_empty(&p->strangers))
		free_trunk(tnl_container_of(p->strangers.next, struct gw_trunk, node));
	gw_ferries_cut(p);
	tnl_tls_ctx_free(p->server);
	tnl_tls_ctx_free(p->client);
	td_peers_free(p->clients);
	td_loop_free_later(p->g->l, p);
}
