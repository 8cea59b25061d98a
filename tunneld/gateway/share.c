/* Shares: what one user, or the sessions to one instance, may take of the gateway, so that nobody can take all of it.
 *
 * Each session belongs to two shares, its user's and its instance's.  What waits for its ends is in both, and is
 * bounded by what is free (tunneld/base/memory.h): a user may keep as much as is left for others, an instance twice
 * that, since several users meet there.  When a share is used up, senders whose frames wait are not read any more;
 * sessions that flow go on, frame by frame. */
#include "tunneld/gateway/internal.h"
#include "lib/alloc.h"
#include <string.h>

#define WARN_EVERY (60 * TD_SEC)
#define SESSION_COST (8 * 1024) /* of one that is idle, with its links */

static const char *const kind_names[] = {[GW_SHARE_USER] = "user", [GW_SHARE_INSTANCE] = "instance"};
static const unsigned weights[] = {[GW_SHARE_USER] = 1, [GW_SHARE_INSTANCE] = 2};

const char *gw_share_kind(const struct gw_share *h)
{
	return kind_names[h->kind];
}

static void load_quota(struct gw_share *h)
{
	static const struct td_quota none;
	const struct td_user_config *u = h->kind == GW_SHARE_USER ? gw_keys_user(h->g, h->name) : NULL;
	const struct gw_instance *i = h->kind == GW_SHARE_INSTANCE ? gw_instance_get(h->g, h->name) : NULL;
	h->quota = u ? u->quota : i ? i->cfg->quota : none;
	h->bandwidth = h->quota.bandwidth;
	h->filled_at = h->g->l->now;
	h->credit = 0;
}

struct gw_share *gw_share_get(struct td_gateway *g, enum gw_share_kind kind, const char *name)
{
	struct gw_share *h = tnl_map_get_str(g->shares[kind], name);
	if (h)
		return h;
	h = tnl_calloc(1, sizeof(*h));
	if (!h)
		return NULL;
	h->g = g;
	h->kind = kind;
	h->name = tnl_strdup(name);
	load_quota(h);
	if (h->name && tnl_map_set_str(g->shares[kind], name, h) == 0)
		return h;
	tnl_free(h->name);
	tnl_free(h);
	return NULL;
}

bool gw_shares_init(struct td_gateway *g)
{
	for (int i = 0; i < GW_SHARES; i++)
		if (!(g->shares[i] = tnl_map_new()))
			return false;
	return true;
}

void gw_shares_load(struct td_gateway *g)
{
	size_t klen;
	const void *key;
	for (int i = 0; i < GW_SHARES; i++) {
		size_t it = 0;
		for (struct gw_share *h; (h = tnl_map_next(g->shares[i], &it, &key, &klen)) != NULL;)
			load_quota(h);
	}
}

static void free_all(struct tnl_map *m)
{
	size_t it = 0, klen;
	const void *key;
	for (struct gw_share *h; (h = tnl_map_next(m, &it, &key, &klen)) != NULL;) {
		td_timer_stop(&h->refill);
		tnl_free(h->name);
		tnl_free(h);
	}
	tnl_map_free(m);
}

void gw_shares_fini(struct td_gateway *g)
{
	for (int i = 0; i < GW_SHARES; i++)
		if (g->shares[i])
			free_all(g->shares[i]);
}

/* --- sessions come and go ------------------------------------------------------ */
void gw_shares_keep(struct gw_session *s, int64_t delta)
{
	for (int i = 0; i < GW_SHARES; i++)
		if (s->shares[i])
			__atomic_fetch_add(&s->shares[i]->kept, (uint64_t)delta, __ATOMIC_RELAXED);
}

bool gw_shares_join(struct gw_session *s)
{
	s->shares[GW_SHARE_USER] = gw_share_get(s->g, GW_SHARE_USER, s->owner);
	s->shares[GW_SHARE_INSTANCE] = gw_share_get(s->g, GW_SHARE_INSTANCE, s->target);
	if (!s->shares[GW_SHARE_USER] || !s->shares[GW_SHARE_INSTANCE]) {
		memset(s->shares, 0, sizeof(s->shares));
		return false;
	}
	for (int i = 0; i < GW_SHARES; i++)
		__atomic_fetch_add(&s->shares[i]->sessions, 1, __ATOMIC_RELAXED);
	s->counted = true;
	gw_shares_keep(s, SESSION_COST);
	return true;
}

void gw_shares_end(struct gw_session *s)
{
	if (!s->counted)
		return;
	s->counted = false;
	gw_shares_keep(s, -SESSION_COST);
	for (int i = 0; i < GW_SHARES; i++)
		__atomic_fetch_sub(&s->shares[i]->sessions, 1, __ATOMIC_RELAXED);
	if (s->g->shared && s->g->drain != GW_D_DONE)
		td_store_count(s->g->store, s->owner, s->target, -1);
}

/* --- memory ---------------------------------------------------------------------- */
bool gw_share_may_keep(const struct gw_share *h)
{
	return td_memory_may_keep(__atomic_load_n(&h->kept, __ATOMIC_RELAXED), weights[h->kind]);
}

struct gw_share *gw_shares_used_up(const struct gw_session *s)
{
	for (int i = 0; i < GW_SHARES; i++)
		if (s->shares[i] && !gw_share_may_keep(s->shares[i]))
			return s->shares[i];
	return NULL;
}

void gw_share_reached(struct gw_share *h, uint64_t now)
{
	struct td_gateway *g = h->g;
	gw_count(g, h->kind == GW_SHARE_USER ? GW_C_LIMIT_USER_MEMORY : GW_C_LIMIT_INSTANCE_MEMORY);
	uint64_t warned = __atomic_load_n(&h->warned_at, __ATOMIC_RELAXED);
	__atomic_fetch_add(&h->reached, 1, __ATOMIC_RELAXED);
	if ((warned && now < warned + WARN_EVERY) ||
	    !__atomic_compare_exchange_n(&h->warned_at, &warned, now, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		return; /* said, or another worker is about to */
	td_warn("gateway", NULL,
		"memory limit reached by %s %s: nothing more is read for ends that do not take it "
		"kept=%llu sessions=%u used=%llu memory_limit=%llu",
		gw_share_kind(h), h->name, (unsigned long long)__atomic_load_n(&h->kept, __ATOMIC_RELAXED),
		__atomic_load_n(&h->sessions, __ATOMIC_RELAXED), (unsigned long long)td_memory_used(),
		(unsigned long long)td_memory_max());
}
