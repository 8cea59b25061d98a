/* The forwarder role: tunnels and their listeners, reload, drain, status. */
#include "tunneld/forwarder/internal.h"

#include "lib/alloc.h"
#include "lib/json.h"
#include "tunneld/base/fd.h"
#include "tunneld/base/log.h"
#include "tunneld/net/listen.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MOD "forwarder"
#define TERMINATE_NS (1500 * TD_MS)

/* ---- connections ------------------------------------------------------------- */

static void memory_room(void *arg);

static void update_pause(struct fwd_tunnel *t)
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
	update_pause(t);
}

static void tunnel_free(void *arg)
{
	struct fwd_tunnel *t = arg;
	td_config_free((struct td_config *)(uintptr_t)t->owner);
	tnl_free(t);
}

static void tunnel_unref_if_over(struct fwd_tunnel *t)
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

static void conn_free(struct fwd_conn *c)
{
	struct fwd_tunnel *t = c->tunnel;
	td_timer_stop(&c->patience);
	tnl_list_remove(&c->node);
	t->connections--;
	tnl_free(c);
	update_pause(t);
	struct td_forwarder *f = t->f;
	tunnel_unref_if_over(t);
	fwd_check_drained(f);
}

void fwd_conn_placed(struct fwd_conn *c, struct fwd_session *s, struct td_pipe *p)
{
	td_timer_stop(&c->patience);
	c->fd = -1;
	c->pipe = p;
	c->session = s;
	tnl_list_remove(&c->node);
	tnl_list_push_back(&c->tunnel->conns, &c->node);
	td_debug(MOD, fwd_session_name(s), "connection opened tunnel=%s peer=%s stream=%u", c->tunnel->cfg->name,
		 c->peer, tnl_stream_id(td_pipe_stream(p)));
}

void fwd_conn_failed(struct fwd_conn *c, const char *why)
{
	td_warn(MOD, NULL, "connection reset tunnel=%s target=%s peer=%s: %s", c->tunnel->cfg->name,
		c->tunnel->cfg->target, c->peer, why);
	c->tunnel->failed++;
	td_fd_rst_close(c->fd);
	/* A session that was being started for it alone has lost its purpose. */
	tnl_list_foreach_safe(it, &c->tunnel->group->sessions)
	{
		struct fwd_session *s = tnl_container_of(it, struct fwd_session, node);
		if (s->reserved == c) {
			s->reserved = NULL;
			fwd_session_end(s, "nobody waits for it any more");
		}
	}
	conn_free(c);
}

void fwd_conn_closed(struct fwd_conn *c, uint64_t in, uint64_t out)
{
	c->tunnel->bytes_in += in;
	c->tunnel->bytes_out += out;
	conn_free(c);
}

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
	update_pause(t);
	fwd_group_place(t->group, c);
}

/* ---- tunnels -------------------------------------------------------------------- */

static void stop_listening(struct fwd_tunnel *t)
{
	for (int i = 0; i < t->nlisteners; i++)
		td_listener_free(t->listeners[i]);
	t->nlisteners = 0;
}

static int start_listening(struct fwd_tunnel *t, char *why, size_t cap)
{
	for (int i = 0; i < t->cfg->naddrs && i < FWD_MAX_LISTEN; i++) {
		char text[160];
		struct td_listener *l = td_listen(t->f->loop, &t->cfg->addrs[i], on_accept, t, text, sizeof(text));
		if (!l) {
			snprintf(why, cap, "tunnel %s: %s", t->cfg->name, text);
			stop_listening(t);
			return -1;
		}
		t->listeners[t->nlisteners] = l;
		td_listener_addr(l, &t->bound[t->nlisteners]);
		td_listener_pause(l, t->paused);
		t->nlisteners++;
	}
	return 0;
}

static void announce(const struct fwd_tunnel *t)
{
	char s[TD_ADDR_STR];
	for (int i = 0; i < t->nlisteners; i++)
		td_info(MOD, NULL, "listening tunnel=%s address=%s target=%s host=%s port=%u", t->cfg->name,
			td_addr_str(&t->bound[i], s), t->cfg->target, t->cfg->host ? t->cfg->host : "-", t->cfg->port);
}

static struct fwd_tunnel *tunnel_new(struct td_forwarder *f, const struct td_config *cfg,
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
	if (start_listening(t, why, cap) < 0) {
		fwd_group_put(t->group);
		tnl_free(t);
		return NULL;
	}
	t->owner = td_config_ref(cfg);
	tnl_list_push_back(&f->tunnels, &t->node);
	return t;
}

/* Off the configuration: no new connections, the running ones finish. */
static void tunnel_close(struct fwd_tunnel *t)
{
	td_info(MOD, NULL, "tunnel closed tunnel=%s connections=%u", t->cfg->name, t->connections);
	stop_listening(t);
	t->closing = true;
	tunnel_unref_if_over(t);
}

static void on_wake(void *arg)
{
	struct td_forwarder *f = arg;
	tnl_list_foreach(it, &f->groups)
	{
		struct fwd_group *g = tnl_container_of(it, struct fwd_group, node);
		tnl_list_foreach(jt, &g->sessions)
		{
			struct fwd_session *s = tnl_container_of(jt, struct fwd_session, node);
			td_client_ping(s->client);
		}
	}
}

static void drop_all_tunnels(struct td_forwarder *f)
{
	tnl_list_foreach_safe(it, &f->tunnels) tunnel_close(tnl_container_of(it, struct fwd_tunnel, node));
}

struct td_forwarder *td_forwarder_new(struct td_loop *l, const struct td_config *cfg, char *why, size_t cap)
{
	struct td_forwarder *f = tnl_calloc(1, sizeof(*f));

	if (!f) {
		snprintf(why, cap, "out of memory");
		return NULL;
	}
	f->loop = l;
	tnl_list_init(&f->terminating);
	tnl_list_init(&f->tunnels);
	tnl_list_init(&f->groups);
	td_timer_init(&f->drain_timer, l, NULL, f);
	td_timer_init(&f->terminate_timer, l, NULL, f);
	for (int i = 0; i < cfg->fwd.ntunnels; i++) {
		if (!tunnel_new(f, cfg, &cfg->fwd.tunnels[i], why, cap)) {
			drop_all_tunnels(f);
			td_loop_free_later(l, f);
			return NULL;
		}
	}
	td_loop_on_wake(l, on_wake, f);
	fwd_ledger_open(f, cfg->state_dir);
	tnl_list_foreach(it, &f->tunnels)
	{
		struct fwd_tunnel *t = tnl_container_of(it, struct fwd_tunnel, node);
		announce(t);
		fwd_group_serve(t->group);
	}
	return f;
}

static struct fwd_tunnel *find_tunnel(struct td_forwarder *f, const char *name)
{
	tnl_list_foreach(it, &f->tunnels)
	{
		struct fwd_tunnel *t = tnl_container_of(it, struct fwd_tunnel, node);
		if (!t->closing && strcmp(t->cfg->name, name) == 0)
			return t;
	}
	return NULL;
}

int td_forwarder_reload(struct td_forwarder *f, const struct td_config *cfg, char *why, size_t cap)
{
	int r = 0;

	/* What changes or goes stops listening first: its addresses may be wanted by what comes. */
	tnl_list_foreach(it, &f->tunnels)
	{
		struct fwd_tunnel *t = tnl_container_of(it, struct fwd_tunnel, node);
		t->keep = t->closing;
		t->fresh = false;
		for (int i = 0; i < cfg->fwd.ntunnels && !t->keep; i++)
			t->keep = strcmp(t->cfg->name, cfg->fwd.tunnels[i].name) == 0 &&
				  td_tunnel_same(t->cfg, &cfg->fwd.tunnels[i]);
		if (!t->keep)
			stop_listening(t);
	}
	for (int i = 0; i < cfg->fwd.ntunnels && r == 0; i++) {
		struct fwd_tunnel *old = find_tunnel(f, cfg->fwd.tunnels[i].name);
		if (old && old->keep)
			continue;
		struct fwd_tunnel *t = tunnel_new(f, cfg, &cfg->fwd.tunnels[i], why, cap);
		if (t)
			t->keep = t->fresh = true;
		else
			r = -1;
	}
	if (r < 0) { /* back to what was */
		tnl_list_foreach_safe(it, &f->tunnels)
		{
			struct fwd_tunnel *t = tnl_container_of(it, struct fwd_tunnel, node);
			if (t->fresh)
				tunnel_close(t);
		}
		tnl_list_foreach(it, &f->tunnels)
		{
			struct fwd_tunnel *t = tnl_container_of(it, struct fwd_tunnel, node);
			char text[200];
			if (!t->keep && !t->closing && start_listening(t, text, sizeof(text)) < 0)
				td_error(MOD, NULL, "%s", text);
			t->keep = true;
		}
		return -1;
	}
	tnl_list_foreach_safe(it, &f->tunnels)
	{
		struct fwd_tunnel *t = tnl_container_of(it, struct fwd_tunnel, node);
		if (!t->keep)
			tunnel_close(t);
	}
	tnl_list_foreach(it, &f->tunnels)
	{
		struct fwd_tunnel *t = tnl_container_of(it, struct fwd_tunnel, node);
		if (t->fresh) {
			announce(t);
			fwd_group_serve(t->group);
		}
	}
	return 0;
}

int td_forwarder_addr(struct td_forwarder *f, int tunnel, int i, struct td_addr *out)
{
	tnl_list_foreach(it, &f->tunnels)
	{
		struct fwd_tunnel *t = tnl_container_of(it, struct fwd_tunnel, node);
		if (tunnel-- > 0)
			continue;
		if (i >= t->nlisteners)
			return -1;
		*out = t->bound[i];
		return 0;
	}
	return -1;
}

/* ---- the end --------------------------------------------------------------------------- */

struct ending {
	struct tnl_list node; /* forwarder->terminating */
	struct td_forwarder *f;
	struct td_terminate *call;
};

static void ending_free(struct ending *e)
{
	tnl_list_remove(&e->node);
	tnl_free(e);
}

static void on_terminated(void *ctx, const char *session_id, bool ok)
{
	struct ending *e = ctx;
	struct td_forwarder *f = e->f;

	ending_free(e);
	if (ok)
		td_ledger_del(f->ledger, session_id);
	fwd_check_drained(f);
}

void fwd_terminate(struct td_forwarder *f, struct td_aws *aws, const char *session_id)
{
	struct ending *e = tnl_calloc(1, sizeof(*e));

	if (!e)
		return;
	e->f = f;
	tnl_list_push_back(&f->terminating, &e->node);
	e->call = td_terminate_start(aws, session_id, on_terminated, e);
	if (!e->call)
		ending_free(e);
}

static unsigned open_connections(const struct td_forwarder *f)
{
	unsigned n = 0;
	tnl_list_foreach(it, &f->tunnels) n += tnl_container_of(it, struct fwd_tunnel, node)->connections;
	return n;
}

static bool sessions_left(const struct td_forwarder *f)
{
	tnl_list_foreach(it, &f->groups) if (!tnl_list_empty(
						 &tnl_container_of(it, struct fwd_group, node)->sessions)) return true;
	return false;
}

static void finish_drain(void *arg)
{
	struct td_forwarder *f = arg;
	if (f->done_told)
		return;
	f->done_told = true;
	td_timer_stop(&f->drain_timer);
	td_timer_stop(&f->terminate_timer);
	f->done(f->done_ctx);
}

static void end_sessions(struct td_forwarder *f)
{
	tnl_list_foreach_safe(it, &f->groups)
	{
		struct fwd_group *g = tnl_container_of(it, struct fwd_group, node);
		tnl_list_foreach_safe(jt, &g->sessions)
		    fwd_session_end(tnl_container_of(jt, struct fwd_session, node), "shutting down");
	}
}

/* No connection is left: sessions are ended, and the API gets a little time to hear of it. */
void fwd_check_drained(struct td_forwarder *f)
{
	if (!f->draining || open_connections(f) > 0 || f->done_told)
		return;
	if (!f->ended) {
		f->ended = true;
		end_sessions(f);
		f->terminate_timer.fn = finish_drain;
		td_timer_in(&f->terminate_timer, TERMINATE_NS);
	}
	if (tnl_list_empty(&f->terminating) && !sessions_left(f))
		td_loop_defer(f->loop, finish_drain, f);
}

/* Whoever is still there is reset. */
static void cut(void *arg)
{
	struct td_forwarder *f = arg;
	unsigned n = open_connections(f);
	if (n)
		td_warn(MOD, NULL, "drain_timeout is over, connections are cut connections=%u", n);
	tnl_list_foreach_safe(it, &f->groups)
	{
		struct fwd_group *g = tnl_container_of(it, struct fwd_group, node);
		tnl_list_foreach_safe(jt, &g->waiting)
		    fwd_conn_failed(tnl_container_of(jt, struct fwd_conn, node), "shutting down");
	}
	tnl_list_foreach(it, &f->tunnels)
	{
		struct fwd_tunnel *t = tnl_container_of(it, struct fwd_tunnel, node);
		tnl_list_foreach(jt, &t->conns)
		    td_pipe_abort(tnl_container_of(jt, struct fwd_conn, node)->pipe, TNL_RESET_SHUTDOWN);
	}
	fwd_check_drained(f);
}

void td_forwarder_drain(struct td_forwarder *f, uint64_t timeout_ns, void (*done)(void *), void *ctx)
{
	if (f->draining) {
		cut(f);
		return;
	}
	f->draining = true;
	f->done = done;
	f->done_ctx = ctx;
	tnl_list_foreach(it, &f->tunnels) stop_listening(tnl_container_of(it, struct fwd_tunnel, node));
	td_info(MOD, NULL, "draining connections=%u", open_connections(f));
	f->drain_timer.fn = cut;
	td_timer_in(&f->drain_timer, timeout_ns);
	fwd_check_drained(f);
}

void td_forwarder_free(struct td_forwarder *f)
{
	if (!f)
		return;
	td_timer_stop(&f->drain_timer);
	td_timer_stop(&f->terminate_timer);
	f->draining = f->done_told = true;
	tnl_list_foreach_safe(it, &f->groups)
	{
		struct fwd_group *g = tnl_container_of(it, struct fwd_group, node);
		tnl_list_foreach_safe(jt, &g->waiting)
		    fwd_conn_failed(tnl_container_of(jt, struct fwd_conn, node), "shutting down");
		fwd_group_kill(g);
	}
	tnl_list_foreach(it, &f->tunnels)
	{
		struct fwd_tunnel *t = tnl_container_of(it, struct fwd_tunnel, node);
		while (!tnl_list_empty(&t->conns)) { /* their pipes went with the pumps */
			struct fwd_conn *c = tnl_container_of(t->conns.next, struct fwd_conn, node);
			tnl_list_remove(&c->node);
			t->connections--;
			tnl_free(c);
		}
	}
	drop_all_tunnels(f);
	while (!tnl_list_empty(&f->terminating)) { /* unanswered: the ledger keeps them for the next start */
		struct ending *e = tnl_container_of(f->terminating.next, struct ending, node);
		td_terminate_cancel(e->call);
		ending_free(e);
	}
	td_ledger_free(f->ledger);
	td_loop_off_wake(f->loop, on_wake, f);
	td_loop_free_later(f->loop, f);
}
