/* The port of direct links.  What has not proved itself is a `struct caller`: few, for a short time, and each of its
 * failures counts against where it came from. */
#include "tunneld/net/direct_port.h"

#include "lib/alloc.h"
#include "lib/list.h"
#include "tunneld/base/fd.h"
#include "tunneld/base/log.h"
#include "tunneld/base/memory.h"
#include "tunneld/net/direct_proof.h"
#include "tunneld/net/listen.h"
#include "tunneld/net/throttle.h"

#include <stdio.h>
#include <string.h>

#define MOD "direct"
#define CALLERS_MAX 64u
#define CALLERS_OF_PEER 8u
#define FAIL_BURST 10u
#define FAIL_EACH (6 * TD_SEC)
#define CALL_TIME (5 * TD_SEC)
#define LISTENERS_MAX 4
#define DAY_S 86400ull
#define KEY_DAYS 3650ull /* nobody looks at it: the key is what counts */

struct caller {
	struct tnl_list node;
	struct td_direct_port *p;
	struct td_conn *conn;
	struct td_timer timer;
	struct td_addr addr;
	struct td_peer counted;
	struct td_direct_proof proof;
	char name[TNL_DIRECT_NAME + 1]; /* once TLS is up */
};

struct td_direct_port {
	struct td_loop *l;
	struct tnl_tls_ctx *tls;
	struct td_listener *listeners[LISTENERS_MAX];
	int nlisteners;
	struct td_wslink_opts opts;
	struct td_direct_port_cb cb;
	void *ctx;
	struct td_peers *peers;
	struct td_throttle *throttle;
	struct tnl_list callers;
	unsigned ncallers;
	uint8_t key[32];
	struct td_direct_port_stats st;
};

/* --- callers ----------------------------------------------------------------------- */

static void caller_free(struct caller *c)
{
	td_timer_stop(&c->timer);
	td_conn_free(c->conn);
	td_peers_leave(c->p->peers, &c->counted);
	tnl_list_remove(&c->node);
	c->p->ncallers--;
	td_loop_free_later(c->p->l, c);
}

static void caller_failed(struct caller *c, const char *why)
{
	struct td_direct_port *p = c->p;

	p->st.failed++;
	td_throttle_failed(p->throttle, &c->addr, p->l->now);
	td_info(MOD, NULL, "no direct link peer=%s reason=\"%s\"", td_conn_peer(c->conn), why);
	caller_free(c);
}

static void on_ready(void *ctx)
{
	struct caller *c = ctx;
	const char *name = tnl_tls_asked_name(td_conn_tls(c->conn));

	snprintf(c->name, sizeof(c->name), "%s", name ? name : "");
}

static void hand_over(struct caller *c)
{
	static const struct td_wslink_cb none;
	struct td_direct_port *p = c->p;
	struct td_conn *conn = c->conn;

	c->conn = NULL;
	p->st.opened++;
	struct td_wslink *w = td_wslink_adopt(p->l, conn, NULL, 0, &p->opts, &none, NULL);
	if (w)
		p->cb.opened(p->ctx, c->name, w);
	caller_free(c);
}

static void on_readable(void *ctx)
{
	struct caller *c = ctx;
	uint8_t secret[TNL_DIRECT_SECRET];

	if (!c->p->cb.secret(c->p->ctx, c->name, secret)) {
		caller_failed(c, "the ticket was withdrawn");
		return;
	}
	int rc = td_direct_check(&c->proof, c->conn, secret, true);
	if (rc == 0)
		rc = td_direct_prove(c->conn, secret, false);
	tnl_wipe(secret, sizeof(secret));
	if (rc == 0)
		hand_over(c);
	else if (rc != TNL_EAGAIN)
		caller_failed(c, rc == TNL_EAUTH ? "the proof is wrong" : tnl_err_text(rc));
}

static void on_closed(void *ctx, int err, const char *why)
{
	caller_failed(ctx, why);
}

static void on_late(void *arg)
{
	caller_failed(arg, "not proved in time");
}

static const struct td_conn_cb caller_cb = {.ready = on_ready, .readable = on_readable, .closed = on_closed};

static void caller_new(struct td_direct_port *p, int fd, const struct td_addr *from, const struct td_peer *counted)
{
	struct caller *c = tnl_calloc(1, sizeof(*c));

	if (!c) {
		td_fd_rst_close(fd);
		return;
	}
	c->p = p;
	c->addr = *from;
	c->counted = *counted;
	td_timer_init(&c->timer, p->l, on_late, c);
	tnl_list_push_back(&p->callers, &c->node);
	p->ncallers++;
	c->conn = td_conn_accepted(p->l, fd, p->tls, CALL_TIME, &caller_cb, c);
	if (c->conn)
		td_timer_in(&c->timer, CALL_TIME);
	else
		caller_free(c);
}

static void on_accept(void *ctx, int fd, const struct td_addr *from)
{
	struct td_direct_port *p = ctx;
	struct td_peer counted = {.len = 0};

	p->st.accepted++;
	if (p->ncallers < CALLERS_MAX && !td_memory_full() && td_throttle_allows(p->throttle, from, p->l->now) &&
	    td_peers_enter(p->peers, from, CALLERS_OF_PEER, &counted)) {
		caller_new(p, fd, from, &counted);
		return;
	}
	p->st.turned_away++;
	td_fd_rst_close(fd);
}

/* --- the port ------------------------------------------------------------------------ */

static uint64_t unix_time(void *ctx)
{
	return ((const struct td_loop *)ctx)->wall_ms / 1000;
}

static bool ask_owner(void *ctx, const char *name)
{
	struct td_direct_port *p = ctx;

	return strlen(name) == TNL_DIRECT_NAME && p->cb.admit(p->ctx, name);
}

static bool make_tls(struct td_direct_port *p, char *why, size_t cap)
{
	uint64_t now = p->l->wall_ms / 1000;
	char *cert = NULL, *key = NULL;

	snprintf(why, cap, "no key could be made");
	if (tnl_x509_make("direct", NULL, NULL, NULL, now - DAY_S, now + KEY_DAYS * DAY_S, &cert, &key) == 0 &&
	    tnl_x509_key_hash(cert, p->key) == 0) {
		struct tnl_tls_config c = {.server = true,
					   .cert_pem = cert,
					   .cert_pem_len = strlen(cert),
					   .key_pem = key,
					   .key_pem_len = strlen(key),
					   .admit = ask_owner,
					   .admit_ctx = p,
					   .unix_time = unix_time,
					   .time_ctx = p->l}; /* links outlive the port */
		p->tls = tnl_tls_ctx_new(&c, why, cap);
	}
	tnl_free(cert);
	if (key)
		tnl_free_wiped(key, strlen(key));
	return p->tls != NULL;
}

static bool listen_all(struct td_direct_port *p, const struct td_addr *addrs, int n, char *why, size_t cap)
{
	for (int i = 0; i < n && i < LISTENERS_MAX; i++) {
		p->listeners[i] = td_listen(p->l, &addrs[i], on_accept, p, why, cap);
		if (!p->listeners[i])
			return false;
		p->nlisteners++;
	}
	return true;
}

struct td_direct_port *td_direct_port_new(struct td_loop *l, const struct td_addr *addrs, int naddrs,
					  const struct td_wslink_opts *o, const struct td_direct_port_cb *cb, void *ctx,
					  char *why, size_t cap)
{
	struct td_direct_port *p = tnl_calloc(1, sizeof(*p));

	snprintf(why, cap, "out of memory");
	if (!p)
		return NULL;
	p->l = l;
	p->opts = *o;
	p->cb = *cb;
	p->ctx = ctx;
	tnl_list_init(&p->callers);
	p->peers = td_peers_new();
	p->throttle = td_throttle_new(FAIL_BURST, FAIL_EACH);
	if (p->peers && p->throttle && make_tls(p, why, cap) && listen_all(p, addrs, naddrs, why, cap))
		return p;
	td_direct_port_free(p);
	return NULL;
}

void td_direct_port_free(struct td_direct_port *p)
{
	if (!p)
		return;
	for (int i = 0; i < p->nlisteners; i++)
		td_listener_free(p->listeners[i]);
	while (!tnl_list_empty(&p->callers))
		caller_free(tnl_container_of(p->callers.next, struct caller, node));
	td_peers_free(p->peers);
	td_throttle_free(p->throttle);
	tnl_tls_ctx_free(p->tls);
	td_loop_free_later(p->l, p); /* connections that go with it may still ask for the time */
}

const uint8_t *td_direct_port_key(const struct td_direct_port *p)
{
	return p->key;
}

int td_direct_port_addr(const struct td_direct_port *p, int i, struct td_addr *out)
{
	if (i < 0 || i >= p->nlisteners)
		return -1;
	td_listener_addr(p->listeners[i], out);
	return 0;
}

const struct td_direct_port_stats *td_direct_port_stats(const struct td_direct_port *p)
{
	return &p->st;
}
