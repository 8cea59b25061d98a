/* bandwidth where nodes share a store: each gives as much of it as it has of the sessions, which it asks with each
 * heartbeat.  So sessions that come and go are off by some seconds, and a node without the store keeps its part. */
#include "tunneld/gateway/shared_internal.h"
#include "lib/alloc.h"
#include "lib/num.h"

struct asked {
	struct td_gateway *g;
	enum gw_share_kind kind;
	char *names[TD_STORE_ASK_MAX];
	unsigned n;
};

static void set_part(struct gw_share *h, unsigned everywhere)
{
	unsigned all = TNL_MAX(everywhere, TNL_MAX(h->sessions, 1u)), here = TNL_MAX(h->sessions, 1u);
	uint64_t q = h->quota.bandwidth, part = q / all * here + q % all * here / all;
	if (q)
		__atomic_store_n(&h->bandwidth, TNL_MAX(part, (uint64_t)1), __ATOMIC_RELAXED);
}

static void on_counts(void *ctx, int err, const unsigned *v, unsigned n)
{
	struct asked *k = ctx;
	for (unsigned i = 0; i < k->n; i++) {
		struct gw_share *h = err == 0 && i < n ? tnl_map_get_str(k->g->shares[k->kind], k->names[i]) : NULL;
		if (h)
			set_part(h, v[i]);
		tnl_free(k->names[i]);
	}
	tnl_free(k);
}

static void ask(struct asked *k)
{
	td_store_counts(k->g->store, k->kind == GW_SHARE_INSTANCE, (const char *const *)k->names, k->n, on_counts, k);
}

static struct asked *add_name(struct td_gateway *g, enum gw_share_kind kind, struct asked *k, const char *name)
{
	char *copy = tnl_strdup(name);
	if (!k && copy && (k = tnl_calloc(1, sizeof(*k))) != NULL) {
		k->g = g;
		k->kind = kind;
	}
	if (!k || !copy) { /* the part that it has stays */
		tnl_free(copy);
		return k;
	}
	k->names[k->n++] = copy;
	if (k->n < TD_STORE_ASK_MAX)
		return k;
	ask(k);
	return NULL;
}

void gw_split_bandwidth(struct td_gateway *g)
{
	for (int kind = 0; kind < GW_SHARES; kind++) {
		struct asked *k = NULL;
		size_t it = 0, klen;
		const void *key;
		for (struct gw_share *h; (h = tnl_map_next(g->shares[kind], &it, &key, &klen)) != NULL;)
			if (h->quota.bandwidth && h->sessions)
				k = add_name(g, (enum gw_share_kind)kind, k, h->name);
		if (k)
			ask(k);
	}
}
