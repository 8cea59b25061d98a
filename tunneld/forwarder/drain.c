/* The end in order: no new connections, the running ones finish or are cut, then the sessions end. */
#include "tunneld/forwarder/internal.h"

#include "tunneld/base/log.h"

/* How long the API may take to hear of the ends. */
#define TERMINATE_NS (1500 * TD_MS)

void fwd_set_state(struct td_forwarder *f, enum fwd_state st)
{
	static const char *const names[] = {"running", "draining", "ending", "over"};

	if (f->state == st)
		return;
	td_debug(FWD_MOD, NULL, "forwarder old=%s new=%s", names[f->state], names[st]);
	f->state = st;
}

static unsigned open_connections(const struct td_forwarder *f)
{
	unsigned n = 0;
	tnl_list_foreach(it, &f->tunnels)
		n += tnl_container_of(it, struct fwd_tunnel, node)->connections;
	return n;
}

static bool probes_left(const struct td_forwarder *f)
{
	tnl_list_foreach(it, &f->tunnels) {
		if (tnl_container_of(it, struct fwd_tunnel, node)->probe.conn)
			return true;
	}
	return false;
}

static bool sessions_left(const struct td_forwarder *f)
{
	tnl_list_foreach(it, &f->groups) {
		const struct fwd_group *g = tnl_container_of(it, struct fwd_group, node);
		if (!tnl_list_empty(&g->sessions))
			return true;
	}
	return false;
}

static void end_sessions(struct td_forwarder *f)
{
	tnl_list_foreach_safe(it, &f->groups) {
		struct fwd_group *g = tnl_container_of(it, struct fwd_group, node);
		tnl_list_foreach_safe(jt, &g->sessions)
			fwd_session_end(tnl_container_of(jt, struct fwd_session, node), "shutting down");
	}
}

static void finish_drain(void *arg)
{
	struct td_forwarder *f = arg;

	fwd_set_state(f, FWD_OVER);
	td_timer_stop(&f->drain_timer);
	f->done(f->done_ctx);
}

void fwd_drain_settle(void *arg)
{
	struct td_forwarder *f = arg;

	if (f->state == FWD_DRAINING && open_connections(f) == 0 && !probes_left(f)) {
		fwd_set_state(f, FWD_ENDING);
		end_sessions(f);
		f->drain_timer.fn = finish_drain;
		td_timer_in(&f->drain_timer, TERMINATE_NS);
	}
	if (f->state == FWD_ENDING && tnl_list_empty(&f->endings) && !sessions_left(f))
		finish_drain(f);
}

/* Whoever is still there is reset. */
static void cut_connections(void *arg)
{
	struct td_forwarder *f = arg;
	unsigned n = open_connections(f);

	if (n)
		td_warn(FWD_MOD, NULL, "drain_timeout is over, connections are cut connections=%u", n);
	tnl_list_foreach(it, &f->groups) {
		struct fwd_group *g = tnl_container_of(it, struct fwd_group, node);
		tnl_list_foreach_safe(jt, &g->waiting)
			fwd_conn_fail(tnl_container_of(jt, struct fwd_conn, node), FWD_F_SHUTDOWN, "shutting down");
	}
	tnl_list_foreach(it, &f->tunnels) {
		struct fwd_tunnel *t = tnl_container_of(it, struct fwd_tunnel, node);
		fwd_proxy_cut(&t->proxy, "shutting down");
		tnl_list_foreach(jt, &t->conns)
			td_pipe_abort(tnl_container_of(jt, struct fwd_conn, node)->pipe, TNL_RESET_SHUTDOWN);
	}
}

void td_forwarder_drain(struct td_forwarder *f, uint64_t timeout_ns, void (*done)(void *), void *ctx)
{
	if (f->state != FWD_RUNNING) {
		cut_connections(f);
		return;
	}
	fwd_set_state(f, FWD_DRAINING);
	f->done = done;
	f->done_ctx = ctx;
	tnl_list_foreach(it, &f->tunnels) {
		fwd_tunnel_stop_listening(tnl_container_of(it, struct fwd_tunnel, node));
		fwd_probe_stop(&tnl_container_of(it, struct fwd_tunnel, node)->probe);
	}
	td_info(FWD_MOD, NULL, "draining connections=%u", open_connections(f));
	f->drain_timer.fn = cut_connections;
	td_timer_in(&f->drain_timer, timeout_ns);
	td_soon_do(&f->settle);
}
