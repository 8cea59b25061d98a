/* The forwarder role as a whole: set up, reload, the end without a word. */
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
	tnl_list_init(&f->endings);
	tnl_list_init(&f->tunnels);
	tnl_list_init(&f->groups);
	td_soon_init(&f->settle, l, fwd_drain_settle, f);
	td_timer_init(&f->drain_timer, l, NULL, f);
	for (int i = 0; i < cfg->fwd.ntunnels; i++) {
		if (!fwd_tunnel_new(f, cfg, &cfg->fwd.tunnels[i], why, cap)) {
			close_all_tunnels(f);
			td_soon_cancel(&f->settle);
			tnl_free(f);
			return NULL;
		}
	}
	td_loop_on_wake(l, on_wake, f);
	fwd_ledger_open(f, cfg->state_dir);
	tnl_list_foreach(it, &f->tunnels)
		fwd_tunnel_begin(tnl_container_of(it, struct fwd_tunnel, node));
	return f;
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

/* --- reload --------------------------------------------------------------------------------- */

/* What neither goes nor comes stays as it is.  One that changes does both. */
struct plan {
	struct fwd_tunnel **going, **fresh; /* fresh: those of coming that listen */
	const struct td_tunnel_config **coming;
	size_t ngoing, ncoming, nfresh;
};

static const struct td_tunnel_config *find_config(const struct td_config *cfg, const char *name)
{
	for (int i = 0; i < cfg->fwd.ntunnels; i++)
		if (strcmp(cfg->fwd.tunnels[i].name, name) == 0)
			return &cfg->fwd.tunnels[i];
	return NULL;
}

static bool stays(const struct fwd_tunnel *t, const struct td_config *cfg)
{
	const struct td_tunnel_config *next = find_config(cfg, t->cfg->name);
	return next && td_tunnel_same(t->cfg, next);
}

static bool is_there(const struct td_forwarder *f, const struct td_tunnel_config *tc)
{
	tnl_list_foreach(it, &f->tunnels) {
		const struct fwd_tunnel *t = tnl_container_of(it, struct fwd_tunnel, node);
		if (!t->closing && strcmp(t->cfg->name, tc->name) == 0 && td_tunnel_same(t->cfg, tc))
			return true;
	}
	return false;
}

static void plan_free(struct plan *p)
{
	tnl_free(p->going);
	tnl_free(p->coming);
	tnl_free(p->fresh);
}

/* false: no memory. */
static bool plan_make(struct plan *p, const struct td_forwarder *f, const struct td_config *cfg)
{
	size_t old = 0, new = (size_t)cfg->fwd.ntunnels;

	tnl_list_foreach(it, &f->tunnels)
		old++;
	*p = (struct plan){.going = tnl_calloc(old + 1, sizeof(struct fwd_tunnel *)),
			   .coming = tnl_calloc(new + 1, sizeof(struct td_tunnel_config *)),
			   .fresh = tnl_calloc(new + 1, sizeof(struct fwd_tunnel *))};
	if (!p->going || !p->coming || !p->fresh)
		return false;
	tnl_list_foreach(it, &f->tunnels) {
		struct fwd_tunnel *t = tnl_container_of(it, struct fwd_tunnel, node);
		if (!t->closing && !stays(t, cfg))
			p->going[p->ngoing++] = t;
	}
	for (size_t i = 0; i < new; i++)
		if (!is_there(f, &cfg->fwd.tunnels[i]))
			p->coming[p->ncoming++] = &cfg->fwd.tunnels[i];
	return true;
}

/* Back to what was. */
static void plan_undo(struct plan *p)
{
	char why[200];

	for (size_t i = 0; i < p->nfresh; i++)
		fwd_tunnel_close(p->fresh[i]);
	for (size_t i = 0; i < p->ngoing; i++)
		if (fwd_tunnel_listen(p->going[i], why, sizeof(why)) < 0)
			td_error(FWD_MOD, NULL, "%s", why);
}

static int plan_apply(struct plan *p, struct td_forwarder *f, const struct td_config *cfg, char *why, size_t cap)
{
	/* The addresses of those that go may be needed by those that come. */
	for (size_t i = 0; i < p->ngoing; i++)
		fwd_tunnel_stop_listening(p->going[i]);
	for (size_t i = 0; i < p->ncoming; i++) {
		struct fwd_tunnel *t = fwd_tunnel_new(f, cfg, p->coming[i], why, cap);
		if (!t) {
			plan_undo(p);
			return -1;
		}
		p->fresh[p->nfresh++] = t;
	}
	for (size_t i = 0; i < p->ngoing; i++)
		fwd_tunnel_close(p->going[i]);
	for (size_t i = 0; i < p->nfresh; i++)
		fwd_tunnel_begin(p->fresh[i]);
	return 0;
}

int td_forwarder_reload(struct td_forwarder *f, const struct td_config *cfg, char *why, size_t cap)
{
	struct plan p;
	int r = -1;

	if (plan_make(&p, f, cfg))
		r = plan_apply(&p, f, cfg, why, cap);
	else
		snprintf(why, cap, "out of memory");
	plan_free(&p);
	return r;
}

/* --- the end without a word ----------------------------------------------------------------- */

static void free_group_sessions(struct fwd_group *g)
{
	tnl_list_foreach_safe(it, &g->waiting)
		fwd_conn_fail(tnl_container_of(it, struct fwd_conn, node), "shutting down");
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
	tnl_list_foreach_safe(it, &f->groups)
		free_group_sessions(tnl_container_of(it, struct fwd_group, node));
	tnl_list_foreach(it, &f->tunnels) {
		struct fwd_tunnel *t = tnl_container_of(it, struct fwd_tunnel, node);
		while (!tnl_list_empty(&t->conns)) /* their pipes went with the pumps */
			fwd_conn_closed(tnl_container_of(t->conns.next, struct fwd_conn, node), 0, 0);
	}
	close_all_tunnels(f);
	fwd_endings_cancel(f);
	td_ledger_free(f->ledger);
	td_soon_cancel(&f->settle);
	td_loop_free_later(f->loop, f); /* `done` may be on its way back to us */
}
