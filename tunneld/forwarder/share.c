#include "tunneld/forwarder/internal.h"

#include "lib/alloc.h"
#include "lib/num.h"

#include <string.h>

/* The limits are those of the section, so that ports with others (a reload has changed them) are another range. */
static bool is_shared(const struct td_tunnel_config *a, const struct td_tunnel_config *b)
{
	return a->range && a->range == b->range && memcmp(a->name, b->name, a->range) == 0 &&
	       a->bandwidth == b->bandwidth && a->max_connections == b->max_connections;
}

static struct fwd_share *find_share(const struct fwd_tunnel *t)
{
	tnl_list_foreach(it, &t->f->tunnels) {
		const struct fwd_tunnel *other = tnl_container_of(it, struct fwd_tunnel, node);
		if (!other->closing && is_shared(other->cfg, t->cfg))
			return other->share;
	}
	return NULL;
}

static struct fwd_share *share_new(const struct fwd_tunnel *t)
{
	struct fwd_share *s = tnl_calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	tnl_list_init(&s->tunnels);
	if (!t->cfg->bandwidth || (s->pace = td_pace_new(t->f->loop, t->cfg->bandwidth)) != NULL)
		return s;
	tnl_free(s);
	return NULL;
}

bool fwd_share_join(struct fwd_tunnel *t)
{
	t->share = find_share(t);
	if (!t->share)
		t->share = share_new(t);
	if (t->share)
		tnl_list_push_back(&t->share->tunnels, &t->by_share);
	return t->share != NULL;
}

void fwd_share_leave(struct fwd_tunnel *t)
{
	struct fwd_share *s = t->share;
	if (!s)
		return;
	tnl_list_remove(&t->by_share);
	t->share = NULL;
	if (!tnl_list_empty(&s->tunnels))
		return;
	td_pace_free(s->pace);
	tnl_free(s);
}

unsigned fwd_share_connections(const struct fwd_share *s)
{
	unsigned all = 0, holding = 0;
	tnl_list_foreach(it, &s->tunnels) {
		const struct fwd_tunnel *t = tnl_container_of(it, struct fwd_tunnel, by_share);
		all += fwd_tunnel_open(t);
		holding += t->holding;
	}
	/* Those whose FIN waits cost a descriptor each, so they count again when there are very many. */
	return all - TNL_MIN(holding, FWD_HOLDING_MAX);
}
