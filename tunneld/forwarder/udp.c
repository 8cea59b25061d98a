/* Tunnels of datagrams (type = udp): sockets, and a flow for each address that sends to one.  A flow is a connection
 * without a descriptor: it waits for a session, and is counted, as others are; its datagrams wait in a td_flow.
 *
 * A flow ends when nothing has come or gone for udp_idle, with the tunnel, or when there is one too many: then the one
 * that was silent longest goes, unless it was heard of just now; in that case the newcomer's datagram does. */
#include "tunneld/forwarder/internal.h"

#include "lib/alloc.h"
#include "lib/map.h"
#include "tunneld/base/log.h"
#include "tunneld/net/udp.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SILENT (1 * TD_SEC)   /* long enough to be ended for another */
#define HOLD_OFF (1 * TD_SEC) /* after a flow that found no session */

struct key {
	uint32_t sock, scope;
	uint16_t family, port;
	uint8_t ip[16];
};

struct flow {
	struct tnl_list recent; /* udp->recent, the one silent longest first; not in it: it ends */
	struct fwd_udp *u;
	struct fwd_conn *c;
	struct key key;
	struct td_addr peer;
	uint64_t last;
};

struct udp_sock {
	struct fwd_udp *u;
	int fd;
	ev_io io;
};

struct fwd_udp {
	struct fwd_tunnel *t;
	struct tnl_map *flows; /* those of recent, by key */
	struct tnl_list recent;
	struct td_timer idle;
	struct udp_sock socks[FWD_MAX_LISTEN];
	unsigned nsocks;
	uint64_t dropped; /* by sockets and by flows that are gone */
	uint64_t hold_off;
	bool full; /* it was said that there are too many flows; until there are half as many */
};

static uint64_t now_of(const struct fwd_udp *u)
{
	return u->t->f->loop->now;
}

static struct key key_of(unsigned sock, const struct td_addr *a)
{
	struct key k = {.sock = sock, .family = a->sa.sa_family, .port = td_addr_port(a)};
	if (a->sa.sa_family == AF_INET6) {
		memcpy(k.ip, &a->in6.sin6_addr, 16);
		k.scope = a->in6.sin6_scope_id;
	} else {
		memcpy(k.ip, &a->in.sin_addr, 4);
	}
	return k;
}

static struct flow *oldest(const struct fwd_udp *u)
{
	return tnl_container_of(u->recent.next, struct flow, recent);
}

/* --- the end of flows ------------------------------------------------------------------------- */

static bool is_known(const struct flow *x)
{
	return !tnl_list_empty(&x->recent);
}

/* What comes from there now is another flow's. */
static void forget(struct flow *x)
{
	if (!is_known(x))
		return;
	tnl_list_remove(&x->recent);
	(void)tnl_map_del(x->u->flows, &x->key, sizeof(x->key));
}

static void end_flow(struct flow *x, const char *why)
{
	forget(x);
	if (x->c->pipe)
		td_pipe_end_flow(x->c->pipe);
	else
		fwd_conn_fail(x->c, FWD_F_TIMEOUT, why);
}

/* Its connection goes; the flow is the pipe's when there was one. */
static void on_gone(struct fwd_conn *c)
{
	struct flow *x = c->owner;
	struct fwd_udp *u = x->u;

	forget(x);
	if (u->t->f->state != FWD_OVER || !c->pipe) /* else the pipe has gone before */
		u->dropped += td_flow_dropped(c->flow);
	if (!c->pipe) {
		u->hold_off = now_of(u) + HOLD_OFF;
		td_flow_free(c->flow);
	}
	tnl_free(x);
}

static void on_idle(void *arg)
{
	struct fwd_udp *u = arg;
	uint64_t idle = u->t->cfg->udp_idle_ns;

	while (!tnl_list_empty(&u->recent) && oldest(u)->last + idle <= now_of(u))
		end_flow(oldest(u), "no session within udp_idle");
	if (!tnl_list_empty(&u->recent))
		td_timer_at(&u->idle, oldest(u)->last + idle);
}

/* --- datagrams -------------------------------------------------------------------------------- */

static void touch(struct flow *x)
{
	if (!is_known(x))
		return;
	x->last = now_of(x->u);
	tnl_list_remove(&x->recent);
	tnl_list_push_back(&x->u->recent, &x->recent);
}

static void deliver(void *user, const uint8_t *p, size_t n)
{
	struct flow *x = user;
	int fd = x->u->socks[x->key.sock].fd;

	if (fd < 0 || !td_udp_send(fd, &x->peer, p, n, NULL))
		x->u->dropped++;
	touch(x);
}

static void say_full(struct fwd_udp *u)
{
	if (!u->full)
		td_warn(FWD_MOD, NULL, "max_flows is reached, datagrams of others are dropped tunnel=%s flows=%zu",
			u->t->cfg->name, tnl_map_count(u->flows));
	u->full = true;
}

/* May there be one more?  It may cost another its place. */
static bool has_room(struct fwd_udp *u)
{
	const struct fwd_tunnel *t = u->t;
	unsigned most = t->cfg->max_flows;

	if (t->closing || td_memory_full() || now_of(u) < u->hold_off)
		return false;
	if (tnl_map_count(u->flows) >= most && oldest(u)->last + SILENT <= now_of(u))
		end_flow(oldest(u), "max_flows is reached");
	if (tnl_map_count(u->flows) >= most || t->connections >= 2 * most) { /* those that end count as well */
		say_full(u);
		return false;
	}
	if (2 * tnl_map_count(u->flows) < most)
		u->full = false;
	return true;
}

static struct flow *flow_new(struct fwd_udp *u, const struct key *k, const struct td_addr *from)
{
	struct flow *x = tnl_calloc(1, sizeof(*x));
	struct td_flow *flow = x ? td_flow_new((size_t)u->t->cfg->udp_queue, deliver, x) : NULL;
	struct fwd_conn *c = flow ? fwd_conn_new(u->t, -1, from) : NULL;

	if (!c || tnl_map_set(u->flows, k, sizeof(*k), x) != 0) {
		if (c)
			fwd_conn_fail(c, FWD_F_SESSION, "out of memory");
		td_flow_free(flow);
		tnl_free(x);
		return NULL;
	}
	x->u = u;
	x->c = c;
	x->key = *k;
	x->peer = *from;
	c->flow = flow;
	c->gone = on_gone;
	c->owner = x;
	x->last = now_of(u);
	if (tnl_list_empty(&u->recent))
		td_timer_in(&u->idle, u->t->cfg->udp_idle_ns);
	tnl_list_init(&x->recent);
	tnl_list_push_back(&u->recent, &x->recent);
	u->t->accepted++;
	return x;
}

static void on_datagram(void *ctx, const struct td_addr *from, const uint8_t *p, size_t n)
{
	struct udp_sock *s = ctx;
	struct fwd_udp *u = s->u;
	struct key k = key_of((uint32_t)(s - u->socks), from);
	struct flow *x = tnl_map_get(u->flows, &k, sizeof(k));
	bool fresh = !x;

	if (fresh && has_room(u))
		x = flow_new(u, &k, from);
	if (!x) {
		u->dropped++;
		return;
	}
	touch(x);
	td_flow_send(x->c->flow, p, n);
	if (fresh)
		fwd_group_place(u->t->group, x->c);
}

static void on_readable(EV_P_ ev_io *w, int revents)
{
	struct udp_sock *s = w->data;
	(void)td_udp_read(s->fd, on_datagram, s);
}

/* --- sockets ---------------------------------------------------------------------------------- */

int fwd_udp_listen(struct fwd_udp *u, const struct td_addr *a, struct td_addr *bound, char *why, size_t cap)
{
	char name[TD_ADDR_STR];
	int fd = td_udp_bound(a);
	if (fd < 0) {
		snprintf(why, cap, "cannot listen on %s (UDP): %s", td_addr_str(a, name), strerror(errno));
		return -1;
	}
	*bound = (struct td_addr){.len = sizeof(bound->ss)};
	getsockname(fd, &bound->sa, &bound->len);
	struct udp_sock *s = &u->socks[u->nsocks++];
	s->u = u;
	s->fd = fd;
	ev_io_init(&s->io, on_readable, fd, EV_READ);
	s->io.data = s;
	ev_io_start(u->t->f->loop->ev, &s->io);
	return 0;
}

void fwd_udp_close(struct fwd_udp *u)
{
	if (!u)
		return;
	td_timer_stop(&u->idle);
	while (!tnl_list_empty(&u->recent))
		end_flow(oldest(u), "the tunnel is closed");
	for (unsigned i = 0; i < u->nsocks; i++) {
		if (u->socks[i].fd < 0)
			continue;
		ev_io_stop(u->t->f->loop->ev, &u->socks[i].io);
		close(u->socks[i].fd);
		u->socks[i].fd = -1;
	}
	u->nsocks = 0;
	u->hold_off = 0;
}

struct fwd_udp *fwd_udp_new(struct fwd_tunnel *t)
{
	struct fwd_udp *u = tnl_calloc(1, sizeof(*u));
	if (!u)
		return NULL;
	u->t = t;
	u->flows = tnl_map_new();
	if (!u->flows) {
		tnl_free(u);
		return NULL;
	}
	for (int i = 0; i < FWD_MAX_LISTEN; i++)
		u->socks[i].fd = -1;
	tnl_list_init(&u->recent);
	td_timer_init(&u->idle, t->f->loop, on_idle, u);
	return u;
}

void fwd_udp_free(struct fwd_udp *u)
{
	if (!u)
		return;
	fwd_udp_close(u);
	tnl_map_free(u->flows);
	tnl_free(u);
}

uint64_t fwd_udp_dropped(const struct fwd_udp *u)
{
	uint64_t n = u ? u->dropped : 0;
	for (const struct tnl_list *it = u ? u->recent.next : NULL; u && it != &u->recent; it = it->next)
		n += td_flow_dropped(tnl_container_of(it, const struct flow, recent)->c->flow);
	return n;
}
