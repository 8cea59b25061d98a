/* Workers of a gateway: they are started, chosen for sessions, and what they mail is taken. */
#include "tunneld/gateway/internal.h"
#include "lib/alloc.h"
#include "lib/num.h"
#include <stdio.h>

/* --- counters ---------------------------------------------------------------------- */
static uint64_t load(const uint64_t *v)
{
	return __atomic_load_n(v, __ATOMIC_RELAXED);
}

void gw_count(struct td_gateway *g, enum gw_counter c)
{
	__atomic_fetch_add(&g->counters[c], 1, __ATOMIC_RELAXED);
}

uint64_t gw_counted(const struct td_gateway *g, enum gw_counter c)
{
	if (c != GW_C_FRAMES_RELAYED && c != GW_C_BYTES_RELAYED)
		return load(&g->counters[c]);
	bool frames = c == GW_C_FRAMES_RELAYED;
	uint64_t n = load(frames ? &g->here.frames : &g->here.bytes);
	for (unsigned i = 0; i < g->nworkers; i++)
		n += load(frames ? &g->workers[i].frames : &g->workers[i].bytes);
	return n;
}

uint64_t gw_relayed(const struct td_gateway *g, bool to_agents)
{
	uint64_t n = load(&g->here.to[to_agents]);
	for (unsigned i = 0; i < g->nworkers; i++)
		n += load(&g->workers[i].to[to_agents]);
	return n;
}

/* --- mail ------------------------------------------------------------------------------ */
static void take_mails(void *ctx)
{
	struct gw_worker *k = ctx;
	while (!tnl_list_empty(&k->mails)) {
		struct gw_mail *m = tnl_container_of(k->mails.next, struct gw_mail, node);
		gw_mail_cancel(m);
		m->take(m->arg);
	}
}

void gw_worker_mail(struct gw_worker *k, struct gw_mail *m, void (*take)(void *arg), void *arg)
{
	if (m->pending)
		return;
	m->pending = true;
	m->take = take;
	m->arg = arg;
	tnl_list_push_back(&k->mails, &m->node);
	td_worker_post(k->w);
}

void gw_mail_cancel(struct gw_mail *m)
{
	if (m->pending)
		tnl_list_remove(&m->node);
	m->pending = false;
}

static void make_room(void *arg)
{
	td_soon_do(&((struct td_gateway *)arg)->make_room);
}

void gw_worker_crowded(struct gw_worker *k)
{
	if (td_worker_here())
		gw_worker_mail(k, &k->crowded, make_room, k->g);
	else
		make_room(k->g);
}

/* --- the workers ------------------------------------------------------------------------ */
int gw_workers_start(struct td_gateway *g, unsigned n, char *why, size_t cap)
{
	char name[24];
	if (n < 2)
		return 0;
	g->workers = tnl_calloc(n, sizeof(*g->workers));
	for (unsigned i = 0; g->workers && i < n; i++) {
		struct gw_worker *k = &g->workers[i];
		snprintf(name, sizeof(name), "relay-%u", i + 1);
		tnl_list_init(&k->mails);
		k->g = g;
		k->w = td_worker_new(g->l, name, take_mails, k);
		if (!k->w)
			break;
		k->l = td_worker_loop(k->w);
		g->nworkers++;
	}
	if (g->nworkers == n)
		return 0;
	snprintf(why, cap, "workers: only %u of %u threads could be started", g->nworkers, n);
	return -1;
}

void gw_workers_stop(struct td_gateway *g)
{
	for (unsigned i = 0; i < g->nworkers; i++)
		td_worker_stop(g->workers[i].w);
}

void gw_workers_free(struct td_gateway *g)
{
	for (unsigned i = 0; i < g->nworkers; i++)
		td_worker_free(g->workers[i].w);
	tnl_free(g->workers);
}

void gw_workers_hold(struct td_gateway *g)
{
	for (unsigned i = 0; i < g->nworkers; i++)
		gw_worker_hold(&g->workers[i]);
}

/* The one with the fewest links; of several that have as few, in turns. */
struct gw_worker *gw_worker_choose(struct td_gateway *g)
{
	struct gw_worker *best = NULL;
	for (unsigned i = 0; i < g->nworkers; i++) {
		struct gw_worker *k = &g->workers[(g->next_worker + i) % g->nworkers];
		if (!best || k->links < best->links)
			best = k;
	}
	if (!best)
		return &g->here;
	g->next_worker = (unsigned)(best - g->workers) + 1;
	return best;
}
