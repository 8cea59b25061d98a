/* A reload.  What neither goes nor comes stays as it is; a tunnel of which another key than those of [aws] changes does
 * both.  Where only [aws] changes the tunnel stays, its listeners and connections too:
 *
 *   the same service (region, endpoints)   its group, with all sessions, calls with the new keys from now on
 *   another service                        the tunnel goes to another group; connections that are there finish in the
 * old
 *
 * Groups that are off the configuration and only wait for their connections get new keys as well, so that they can
 * resume until then: those of the tunnel of their name, or of [aws] when they had them from there.
 *
 * Everything that can fail is tried before the first tunnel closes, and undone when it fails. */
#include "tunneld/forwarder/internal.h"

#include "lib/alloc.h"
#include "tunneld/base/log.h"

#include <stdio.h>
#include <string.h>

struct kept {
	struct fwd_tunnel *tunnel;
	const struct td_tunnel_config *next;
	struct td_aws *aws; /* of next */
};
/* A group that calls with other keys, and how it was before. */
struct renewed {
	struct fwd_group *group;
	struct td_aws *old_aws;
	const struct td_aws_config *old_cfg;
	const struct td_config *old_owner;
};
struct plan {
	struct td_forwarder *f;
	const struct td_config *cfg;
	struct fwd_tunnel **going, **fresh; /* fresh: those of coming that listen */
	const struct td_tunnel_config **coming;
	struct kept *kept;
	struct renewed *renewed;
	size_t ngoing, ncoming, nfresh, nkept, nrenewed;
};

static const struct td_tunnel_config *find_config(const struct td_config *cfg, const char *name)
{
	for (int i = 0; i < cfg->fwd.ntunnels; i++)
		if (strcmp(cfg->fwd.tunnels[i].name, name) == 0)
			return &cfg->fwd.tunnels[i];
	return NULL;
}

/* All but the keys of [aws]. */
static bool same_tunnel(const struct td_tunnel_config *a, const struct td_tunnel_config *b)
{
	struct td_tunnel_config copy = *a;
	copy.aws = b->aws;
	return td_tunnel_same(&copy, b);
}

/* --- what is to be done --------------------------------------------------------------------- */

static bool plan_alloc(struct plan *p)
{
	size_t old = 0, groups = 0, new = (size_t)p->cfg->fwd.ntunnels;
	tnl_list_foreach(it, &p->f->tunnels)
		old++;
	tnl_list_foreach(it, &p->f->groups)
		groups++;
	p->going = tnl_calloc(old + 1, sizeof(struct fwd_tunnel *));
	p->kept = tnl_calloc(old + 1, sizeof(struct kept));
	p->coming = tnl_calloc(new + 1, sizeof(struct td_tunnel_config *));
	p->fresh = tnl_calloc(new + 1, sizeof(struct fwd_tunnel *));
	p->renewed = tnl_calloc(groups + 1, sizeof(struct renewed));
	return p->going && p->kept && p->coming && p->fresh && p->renewed;
}

static void plan_free(struct plan *p)
{
	for (size_t i = 0; p->kept && i < p->nkept; i++)
		td_aws_free(p->kept[i].aws);
	for (size_t i = 0; p->renewed && i < p->nrenewed; i++) {
		td_aws_free(p->renewed[i].old_aws);
		td_config_free((struct td_config *)(uintptr_t)p->renewed[i].old_owner);
	}
	tnl_free(p->going);
	tnl_free(p->kept);
	tnl_free(p->coming);
	tnl_free(p->fresh);
	tnl_free(p->renewed);
}

/* It stays, with the block that the new configuration gives it; false: that cannot be made. */
static bool plan_keep(struct plan *p, struct fwd_tunnel *t, const struct td_tunnel_config *next, char *why, size_t cap)
{
	char text[300] = "";
	struct td_aws *aws = td_aws_new(p->f->loop, &next->aws, text, sizeof(text));
	if (!aws) {
		snprintf(why, cap, "tunnel %s: %s", next->name, text);
		return false;
	}
	p->kept[p->nkept++] = (struct kept){t, next, aws};
	return true;
}

static bool is_kept(const struct plan *p, const struct td_tunnel_config *tc)
{
	for (size_t i = 0; i < p->nkept; i++)
		if (p->kept[i].next == tc)
			return true;
	return false;
}

static bool plan_make(struct plan *p, char *why, size_t cap)
{
	snprintf(why, cap, "out of memory");
	if (!plan_alloc(p))
		return false;
	tnl_list_foreach(it, &p->f->tunnels) {
		struct fwd_tunnel *t = tnl_container_of(it, struct fwd_tunnel, node);
		const struct td_tunnel_config *next = find_config(p->cfg, t->cfg->name);
		if (t->closing || t->hidden)
			continue;
		if (!next || !same_tunnel(t->cfg, next))
			p->going[p->ngoing++] = t;
		else if (!plan_keep(p, t, next, why, cap))
			return false;
	}
	for (int i = 0; i < p->cfg->fwd.ntunnels; i++)
		if (!is_kept(p, &p->cfg->fwd.tunnels[i]))
			p->coming[p->ncoming++] = &p->cfg->fwd.tunnels[i];
	return true;
}

/* --- keys ----------------------------------------------------------------------------------- */

/* The block that the group's tunnels have in the new configuration; NULL: they have none any more. */
static const struct td_aws_config *next_aws(const struct plan *p, const struct fwd_group *g)
{
	for (size_t i = 0; i < p->nkept; i++)
		if (p->kept[i].tunnel->group == g)
			return &p->kept[i].next->aws;
	const struct td_tunnel_config *tc = find_config(p->cfg, g->cfg->name);
	if (tc)
		return &tc->aws;
	return td_aws_config_same(g->aws_cfg, &g->aws_owner->aws) ? &p->cfg->aws : NULL;
}

static void renew_group(struct plan *p, struct fwd_group *g)
{
	char why[300];
	const struct td_aws_config *conf = next_aws(p, g);
	struct td_aws *aws = conf ? td_aws_new(p->f->loop, conf, why, sizeof(why)) : NULL;
	if (aws && td_aws_same_service(aws, g->aws)) {
		p->renewed[p->nrenewed++] = (struct renewed){.group = g,
							     .old_aws = td_aws_ref(g->aws),
							     .old_cfg = g->aws_cfg,
							     .old_owner = td_config_ref(g->aws_owner)};
		fwd_group_renew(g, aws, conf, p->cfg);
	}
	td_aws_free(aws);
}

/* --- doing it ------------------------------------------------------------------------------- */

/* Back to what was. */
static void plan_undo(struct plan *p)
{
	char why[256];

	for (size_t i = 0; i < p->nfresh; i++)
		fwd_tunnel_close(p->fresh[i]);
	for (size_t i = 0; i < p->ngoing; i++)
		if (!p->going[i]->closed && fwd_tunnel_listen(p->going[i], why, sizeof(why)) < 0) {
			td_error(FWD_MOD, NULL, "%s; it stays down and is tried again", why);
			fwd_tunnel_listen_later(p->going[i], why);
		}
	for (size_t i = 0; i < p->nrenewed; i++) {
		const struct renewed *r = &p->renewed[i];
		fwd_group_renew(r->group, r->old_aws, r->old_cfg, r->old_owner);
	}
}

static void take_config(struct td_forwarder *f, const struct td_config *cfg)
{
	const struct td_config *old = f->cfg;
	f->cfg = td_config_ref(cfg);
	fwd_one_shots_reload(f);
	td_config_free((struct td_config *)(uintptr_t)old);
}

static int plan_apply(struct plan *p, char *why, size_t cap)
{
	/* The addresses of those that go may be needed by those that come. */
	for (size_t i = 0; i < p->ngoing; i++)
		fwd_tunnel_stop_listening(p->going[i]);
	tnl_list_foreach(it, &p->f->groups)
		renew_group(p, tnl_container_of(it, struct fwd_group, node));
	for (size_t i = 0; i < p->ncoming; i++) {
		struct fwd_tunnel *t = fwd_tunnel_new(p->f, p->cfg, p->coming[i], true, why, cap);
		if (!t) {
			plan_undo(p);
			return -1;
		}
		p->fresh[p->nfresh++] = t;
	}
	for (size_t i = 0; i < p->nkept; i++)
		fwd_tunnel_take_config(p->kept[i].tunnel, p->cfg, p->kept[i].next);
	for (size_t i = 0; i < p->ngoing; i++)
		fwd_tunnel_close(p->going[i]);
	for (size_t i = 0; i < p->nfresh; i++)
		fwd_tunnel_begin(p->fresh[i]);
	take_config(p->f, p->cfg);
	return 0;
}

int td_forwarder_reload(struct td_forwarder *f, const struct td_config *cfg, char *why, size_t cap)
{
	struct plan p = {.f = f, .cfg = cfg};
	int r = -1;

	td_aws_reload(f->loop); /* files of keys may have changed as well */
	if (plan_make(&p, why, cap))
		r = plan_apply(&p, why, cap);
	plan_free(&p);
	return r;
}
