/* The forwarder role as a whole: set up, the end without a word. */
#include "tunneld/forwarder/internal.h"

#include "lib/alloc.h"
#include "tunneld/base/log.h"

#include <stdio.h>
#include <string.h>

static void on_wake(void *arg)
{
	struct td_forwarder *f = arg;
	tnl_list_foreach(it, &f->groups) {
		struct fwd_group *g = tnl_container_of(it, struct fwd_group, node);
		tnl_list_foreach(jt, &g->sessions)
			td_client_ping(tnl_container_of(jt, struct fwd_session, node)->client);
	}
}

static void close_all_tunnels(struct td_forwarder *f)
{
	tnl_list_foreach_safe(it, &f->tunnels)
		fwd_tunnel_close(tnl_container_of(it, struct fwd_tunnel, node));
}

struct td_forwarder *td_forwarder_new(struct td_loop *l, const struct td_config *cfg, char *why, size_t cap)
{
	struct td_forwarder *f = tnl_calloc(1, sizeof(*f));

	if (!f) {
		snprintf(why, cap, "out of memory");
		return NULL;
	}
	f->loop = l;
	tnl_list_init(&f->guests);
	tnl_list_init(&f->endings);
	tnl_list_init(&f->tunnels);
	tnl_list_init(&f->groups);
	td_soon_init(&f->settle, l, fwd_drain_settle, f);
	td_timer_init(&f->drain_timer, l, NULL, f);
	for (int i = 0; i < cfg->fwd.ntunnels; i++) {
		if (!fwd_tunnel_new(f, cfg, &cfg->fwd.tunnels[i], cfg->fwd.tunnels[i].required, why, cap)) {
			close_all_tunnels(f);
			td_soon_cancel(&f->settle);
			tnl_free(f);
			return NULL;
		}
	}
	f->cfg = td_config_ref(cfg);
	td_loop_on_wake(l, on_wake, f);
	fwd_ledger_open(f, cfg->state_dir);
	tnl_list_foreach(it, &f->tunnels)
		fwd_tunnel_begin(tnl_container_of(it, struct fwd_tunnel, node));
	return f;
}

void td_forwarder_on_started(struct td_forwarder *f, td_forwarder_started_fn *fn, void *ctx)
{
	f->started = fn;
	f->started_ctx = ctx;
}

int td_forwarder_addr(struct td_forwarder *f, int tunnel, int i, struct td_addr *out)
{
	tnl_list_foreach(it, &f->tunnels) {
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

/* --- the end without a word ----------------------------------------------------------------- */

static void free_group_sessions(struct fwd_group *g)
{
	tnl_list_foreach_safe(it, &g->waiting)
		fwd_conn_fail(tnl_container_of(it, struct fwd_conn, node), FWD_F_SHUTDOWN, "shutting down");
	tnl_list_foreach_safe(it, &g->sessions)
		fwd_session_free(tnl_container_of(it, struct fwd_session, node));
	fwd_group_settle(g); /* no tunnel may be left to do that */
}

void td_forwarder_free(struct td_forwarder *f)
{
	if (!f)
		return;
	fwd_set_state(f, FWD_OVER);
	td_timer_stop(&f->drain_timer);
	td_loop_off_wake(f->loop, on_wake, f);
	tnl_list_foreach(it, &f->tunnels)
		fwd_probe_stop(&tnl_container_of(it, struct fwd_tunnel, node)->probe);
	tnl_list_foreach_safe(it, &f->groups)
		free_group_sessions(tnl_container_of(it, struct fwd_group, node));
	tnl_list_foreach(it, &f->tunnels) {
		struct fwd_tunnel *t = tnl_container_of(it, struct fwd_tunnel, node);
		fwd_proxy_cut(&t->proxy, "shutting down");
		while (!tnl_list_empty(&t->conns)) /* their pipes went with the pumps */
			fwd_conn_closed(tnl_container_of(t->conns.next, struct fwd_conn, node), 0, 0);
		fwd_probe_forget(&t->probe);
	}
	tnl_list_foreach_safe(it, &f->guests)
		fwd_guest_free(tnl_container_of(it, struct fwd_guest, node));
	close_all_tunnels(f);
	td_config_free((struct td_config *)(uintptr_t)f->cfg);
	fwd_endings_cancel(f);
	td_ledger_free(f->ledger);
	td_soon_cancel(&f->settle);
	td_loop_free_later(f->loop, f); /* `done` may be on its way back to us */
}
