/* The end in order: no new connections, the running ones finish, sessions are ended. */
#include "tunneld/forwarder/internal.h"

#include "lib/alloc.h"
#include "tunneld/base/log.h"

#define MOD "forwarder"
#define TERMINATE_NS (1500 * TD_MS)

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
	tnl_list_foreach(it, &f->tunnels) fwd_tunnel_stop_listening(tnl_container_of(it, struct fwd_tunnel, node));
	td_info(MOD, NULL, "draining connections=%u", open_connections(f));
	f->drain_timer.fn = cut;
	td_timer_in(&f->drain_timer, timeout_ns);
	fwd_check_drained(f);
}
