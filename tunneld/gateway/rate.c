/* How often calls may come, so that nobody who has a key can keep the gateway, its store, its audit log or an agent
 * busy.
 *
 * What concerns a session is counted at that session and end: a user whose sessions all come back at once, after a
 * restart or when the network was away, is refused none of them, however many there are.  A session on another node is
 * counted here as well.  What concerns none is counted at who asks; a listing by the things that it looks at, and what
 * asks for one thing as the least listing. */
#include "tunneld/gateway/rate_internal.h"
#include "lib/alloc.h"
#include "lib/num.h"
#include "lib/steps.h"
#include <stdio.h>
#include <string.h>

#define MINUTE (60 * TD_SEC)
#define SESSION_CALLS 300u   /* ResumeSession, a data channel: of one end, in a minute and at once */
#define SESSION_LINKS 240u   /* the same for further links, of which an end has up to seven */
#define PRINCIPAL_CALLS 240u /* about no session */
#define LOOKS (60u * 1000 * 1000)
#define LOOKS_LEAST 10000u /* what a listing costs that finds nothing */
#define AFAR_LEAST 1024u   /* sessions elsewhere, before those that are at rest are forgotten */

struct afar {
	struct gw_rate calls, links;
};

bool gw_rate_take(struct gw_rate *r, uint64_t now, uint64_t a_minute, uint64_t cost)
{
	uint64_t full = TNL_MAX(r->full, now), takes = TNL_MIN(cost, 4 * a_minute) * MINUTE / a_minute;
	if (full > now + MINUTE - TNL_MIN(takes, MINUTE))
		return false;
	r->full = full + takes;
	return true;
}

static void count_limit(struct td_gateway *g, bool user)
{
	gw_count(g, user ? GW_C_LIMIT_USER_CALLS : GW_C_LIMIT_INSTANCE_CALLS);
}

static bool take_session(struct gw_rate *calls, struct gw_rate *links, uint64_t now, bool further)
{
	return further ? gw_rate_take(links, now, SESSION_LINKS, 1) : gw_rate_take(calls, now, SESSION_CALLS, 1);
}

bool gw_rate_session(struct gw_end *e, bool further)
{
	struct td_gateway *g = e->s->g;
	if (take_session(&e->calls, &e->link_calls, g->l->now, further))
		return true;
	count_limit(g, e->role == GW_CLIENT);
	return false;
}

/* --- sessions of other nodes -------------------------------------------------------- */
static bool is_at_rest(const struct afar *a, uint64_t now)
{
	return a->calls.full <= now && a->links.full <= now;
}

/* Whoever is not at rest has been asked for within a minute or so. */
static void forget_afar(struct td_gateway *g)
{
	struct tnl_map *kept = tnl_map_new();
	const void *key;
	size_t it = 0, klen;
	if (!kept)
		return;
	for (struct afar *a; (a = tnl_map_next(g->afar, &it, &key, &klen)) != NULL;) {
		tnl_step();
		if (is_at_rest(a, g->l->now) || tnl_map_set(kept, key, klen, a) != 0)
			tnl_free(a);
	}
	tnl_map_free(g->afar);
	g->afar = kept;
	g->afar_next = TNL_MAX(2 * tnl_map_count(kept), (size_t)AFAR_LEAST);
}

static struct afar *get_afar(struct td_gateway *g, enum gw_role role, const char *id)
{
	char key[GW_SESSION_ID_MAX + 8];
	snprintf(key, sizeof(key), "%d %s", (int)role, id);
	struct afar *a = tnl_map_get_str(g->afar, key);
	if (a)
		return a;
	if (tnl_map_count(g->afar) >= g->afar_next)
		forget_afar(g);
	a = tnl_calloc(1, sizeof(*a));
	if (a && tnl_map_set_str(g->afar, key, a) == 0)
		return a;
	tnl_free(a);
	return NULL;
}

bool gw_rate_afar(struct td_gateway *g, enum gw_role role, const char *id, bool further)
{
	struct afar *a = get_afar(g, role, id);
	if (a && take_session(&a->calls, &a->links, g->l->now, further))
		return true;
	count_limit(g, role == GW_CLIENT);
	return false;
}

bool gw_rates_init(struct td_gateway *g)
{
	g->afar_next = AFAR_LEAST;
	return (g->afar = tnl_map_new()) != NULL;
}

void gw_rates_fini(struct td_gateway *g)
{
	size_t it = 0, klen;
	const void *key;
	if (!g->afar)
		return;
	for (struct afar *a; (a = tnl_map_next(g->afar, &it, &key, &klen)) != NULL;)
		tnl_free(a);
	tnl_map_free(g->afar);
}

/* --- calls about no session ----------------------------------------------------------- */
static struct gw_share *share_of(struct td_gateway *g, const struct gw_principal *p)
{
	return gw_share_get(g, p->user ? GW_SHARE_USER : GW_SHARE_INSTANCE, gw_keys_name(p));
}

bool gw_rate_principal(struct td_gateway *g, const struct gw_principal *p)
{
	struct gw_share *h = share_of(g, p);
	if (h && gw_rate_take(&h->calls, g->l->now, PRINCIPAL_CALLS, 1))
		return true;
	count_limit(g, p->user != NULL);
	return false;
}

bool gw_rate_listing(struct gw_call *c, uint64_t looks)
{
	struct gw_share *h = share_of(c->g, c->who);
	if (h && gw_rate_take(&h->looks, c->g->l->now, LOOKS, TNL_MAX(looks, (uint64_t)LOOKS_LEAST)))
		return true;
	count_limit(c->g, c->who->user != NULL);
	gw_call_throttle(c);
	return false;
}

bool gw_rate_look(struct td_gateway *g, const struct gw_principal *p)
{
	struct gw_share *h = share_of(g, p);
	if (h && gw_rate_take(&h->looks, g->l->now, LOOKS, LOOKS_LEAST))
		return true;
	count_limit(g, p->user != NULL);
	return false;
}

bool gw_rate_may_look(struct td_gateway *g, const struct gw_principal *p)
{
	const struct gw_share *h = share_of(g, p);
	if (h && h->looks.full <= g->l->now + MINUTE - MINUTE / (LOOKS / LOOKS_LEAST))
		return true;
	count_limit(g, p->user != NULL);
	return false;
}

/* Many may have been asked for at the same time: that makes debts, for half a minute at most. */
void gw_rate_looked(struct td_gateway *g, const struct gw_principal *p)
{
	struct gw_share *h = share_of(g, p);
	uint64_t now = g->l->now;
	if (h)
		h->looks.full =
		    TNL_MIN(TNL_MAX(h->looks.full, now) + MINUTE / (LOOKS / LOOKS_LEAST), now + MINUTE + MINUTE / 2);
}

void gw_call_throttle(struct gw_call *c)
{
	gw_call_fail(c, 400, "ThrottlingException", "Rate exceeded: %s comes too often", c->op);
}
