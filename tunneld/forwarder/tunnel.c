/* Tunnels: listeners, accepting, pausing. */
#include "tunneld/forwarder/internal.h"

#include "lib/alloc.h"
#include "tunneld/base/fd.h"
#include "tunneld/base/log.h"
#include "tunneld/net/listen.h"

#include <stdio.h>

#define MOD "forwarder"

static void memory_room(void *arg);

void fwd_tunnel_update_pause(struct fwd_tunnel *t)
{
	bool pause = t->connections >= t->cfg->max_connections || td_memory_full();
	if (td_memory_full()) /* whatever else it is paused for */
		td_memory_on_room(&t->room, t->f->loop, memory_room, t);
	if (pause == t->paused)
		return;
	t->paused = pause;
	if (pause)
		td_info(MOD, NULL, "listener paused tunnel=%s connections=%u", t->cfg->name, t->connections);
	for (int i = 0; i < t->nlisteners; i++)
		td_listener_pause(t->listeners[i], pause);
}

static void memory_room(void *arg)
{
	struct fwd_tunnel *t = arg;
	td_memory_off_room(&t->room);
	fwd_tunnel_update_pause(t);
}

static void tunnel_free(void *arg)
{
	struct fwd_tunnel *t = arg;
	td_config_free((struct td_config *)(uintptr_t)t->owner);
	tnl_free(t);
}

void fwd_tunnel_unref_if_over(struct fwd_tunnel *t)
{
	if (!t->closing || t->connections > 0)
		return;
	struct fwd_group *g = t->group;
	struct td_forwarder *f = t->f;
	td_memory_off_room(&t->room);
	tnl_list_remove(&t->node);
	if (g)
		fwd_group_put(g);
	td_loop_defer(f->loop, tunnel_free, t);
}

/* --- accepting --- */

static void patience_over(void *arg)
{
	fwd_conn_failed(arg, "no session within connect_timeout");
}

static void on_accept(void *ctx, int fd, const struct td_addr *peer)
{
	struct fwd_tunnel *t = ctx;
	struct fwd_conn *c = tnl_calloc(1, sizeof(*c));

	if (!c) {
		td_fd_rst_close(fd);
		return;
	}
	td_fd_nodelay(fd);
	c->tunnel = t;
	c->fd = fd;
	c->accepted_at = t->f->loop->now;
	td_addr_str(peer, c->peer);
	tnl_list_init(&c->node);
	td_timer_init(&c->patience, t->f->loop, patience_over, c);
	t->connections++;
	t->accepted++;
	fwd_tunnel_update_pause(t);
	fwd_group_place(t->group, c);
}

/* --- listening --- */

void fwd_tunnel_stop_listening(struct fwd_tunnel *t)
{
	for (int i = 0; i < t->nlisteners; i++)
		td_listener_free(t->listeners[i]);
	t->nlisteners = 0;
}

int fwd_tunnel_start_listening(struct fwd_tunnel *t, char *why, size_t cap)
{
	for (int i = 0; i < t->cfg->naddrs && i < FWD_MAX_LISTEN; i++) {
		char text[160];
		struct td_listener *l = td_listen(t->f->loop, &t->cfg->addrs[i], on_accept, t, text, sizeof(text));
		if (!l) {
			snprintf(why, cap, "tunnel %s: %s", t->cfg->name, text);
			fwd_tunnel_stop_listening(t);
			return -1;
		}
		t->listeners[t->nlisteners] = l;
		td_listener_addr(l, &t->bound[t->nlisteners]);
		td_listener_pause(l, t->paused);
		t->nlisteners++;
	}
	return 0;
}

void fwd_tunnel_announce(const struct fwd_tunnel *t)
{
	char s[TD_ADDR_STR];
	for (int i = 0; i < t->nlisteners; i++)
		td_info(MOD, NULL, "listening tunnel=%s address=%s target=%s host=%s port=%u", t->cfg->name,
			td_addr_str(&t->bound[i], s), t->cfg->target, t->cfg->host ? t->cfg->host : "-", t->cfg->port);
}

struct fwd_tunnel *fwd_tunnel_new(struct td_forwarder *f, const struct td_config *cfg,
				  const struct td_tunnel_config *tc, char *why, size_t cap)
{
	struct fwd_tunnel *t = tnl_calloc(1, sizeof(*t));
	char text[300] = "out of memory";

	if (!t) {
		snprintf(why, cap, "out of memory");
		return NULL;
	}
	t->f = f;
	t->cfg = tc;
	tnl_list_init(&t->node);
	tnl_list_init(&t->conns);
	t->group = fwd_group_get(f, cfg, tc, text, sizeof(text));
	if (!t->group) {
		snprintf(why, cap, "tunnel %s: %s", tc->name, text);
		tnl_free(t);
		return NULL;
	}
	if (fwd_tunnel_start_listening(t, why, cap) < 0) {
		fwd_group_put(t->group);
		tnl_free(t);
		return NULL;
	}
	t->owner = td_config_ref(cfg);
	tnl_list_push_back(&f->tunnels, &t->node);
	return t;
}

void fwd_tunnel_close(struct fwd_tunnel *t)
{
	td_info(MOD, NULL, "tunnel closed tunnel=%s connections=%u", t->cfg->name, t->connections);
	fwd_tunnel_stop_listening(t);
	t->closing = true;
	fwd_tunnel_unref_if_over(t);
}
