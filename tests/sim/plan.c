/* What a seed stands for. */
#include "tests/sim/sim.h"
#include "lib/num.h"

uint64_t rng_next(struct rng *r)
{
	uint64_t z = r->x += UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

uint64_t rng_below(struct rng *r, uint64_t n)
{
	return n ? rng_next(r) % n : 0;
}
bool rng_chance(struct rng *r, unsigned permille)
{
	return rng_below(r, 1000) < permille;
}
uint64_t rng_between(struct rng *r, uint64_t a, uint64_t b)
{
	return a + rng_below(r, b - a + 1);
}

uint64_t rng_log(struct rng *r, uint64_t a, uint64_t b)
{
	uint64_t lo = a, hi = a;
	int steps = 0;
	while (hi < b) {
		hi *= 4;
		steps++;
	}
	for (uint64_t k = rng_below(r, (uint64_t)steps + 1); k; k--)
		lo *= 4;
	hi = TNL_MIN(lo * 4, b);
	return lo >= hi ? b : rng_between(r, lo, hi);
}

const char *mode_name(enum sim_mode m)
{
	static const char *const name[] = {"own", "stock", "single", "single-stock", "basic"};
	return name[m];
}

uint8_t pattern(const struct world *w, const struct flow *f, int dir, uint64_t off)
{
	uint64_t x =
	    off * 0x9e3779b1u + (off >> 8) * 0x85ebca6bu + (uint64_t)f->index * 77 + (uint64_t)dir * 131 + w->seed;
	return (uint8_t)(x >> 5 ^ x >> 13);
}

static void plan_side(struct world *w, struct side *s)
{
	struct rng *r = &w->rng;
	s->take_max = rng_chance(r, 700) ? SIZE_MAX : rng_log(r, 1, 20000);
	s->reset_at = NEVER;
	s->stalled = rng_chance(r, 100);
}

static void plan_way(struct world *w, struct way *v)
{
	struct rng *r = &w->rng;
	v->total = rng_chance(r, 50) ? 0 : rng_log(r, 1, rng_chance(r, 150) ? 1500000 : 120000);
	v->write_max = rng_chance(r, 600) ? SIZE_MAX : rng_log(r, 1, 30000);
	if (v->write_max < 64 && v->total > 4000)
		v->total = 4000;
	if (rng_chance(r, 200)) {
		v->pause_every = rng_log(r, 50, 20000);
		v->pause_ns = rng_log(r, 1, 400) * MS;
		if (v->total / v->pause_every > 50)
			v->total = v->pause_every * 50;
	}
}

static void plan_flow(struct world *w, struct flow *f)
{
	struct rng *r = &w->rng;
	struct plan *p = &w->plan;
	f->open_at = rng_chance(r, 300) ? 0 : rng_below(r, p->busy_until);
	f->dial_ns = rng_chance(r, 400) ? 0 : rng_log(r, 1, 200) * MS;
	for (int i = 0; i < 2; i++) {
		plan_side(w, &f->side[i]);
		plan_way(w, &f->way[i]);
	}
	bool mux = p->mode == SIM_OWN || p->mode == SIM_STOCK;
	if (mux && rng_chance(r, 80)) {
		f->broken = true;
		if (rng_chance(r, 500))
			f->side[1].dial_failed = true;
		else
			f->side[rng_below(r, 2)].reset_at = rng_below(r, 60000);
	}
	/* Without an end-of-data mark, and with a redial on data only, there has to be some. */
	if (p->mode == SIM_BASIC && f->way[0].total == 0)
		f->way[0].total = 1;
	if (p->mode == SIM_BASIC)
		f->open_at = 0;
}

void plan_make(struct world *w)
{
	struct rng *r = &w->rng;
	struct plan *p = &w->plan;
	bool calm = rng_chance(r, 100);
	p->mode = rng_chance(r, 550) ? SIM_OWN : (enum sim_mode)rng_below(r, SIM_MODES);
	p->encrypted = rng_chance(r, 300);
	p->memory_max = rng_log(r, 256 * 1024, 16u << 20);
	p->window = rng_log(r, 65536, 1u << 20);
	p->max_payload = rng_chance(r, 200) ? 1024 : rng_between(r, 1024, 65536);
	p->delay = rng_chance(r, 300) ? 100000 : rng_log(r, 1, 100) * MS;
	p->jitter = rng_chance(r, 500) ? 0 : rng_below(r, p->delay + 1);
	p->rate = rng_chance(r, 500) ? 0 : rng_log(r, 100000, 50000000);
	p->message_rate = rng_chance(r, 100) ? 900 : 0;
	p->busy_until = rng_between(r, 500, 6000) * MS;
	p->end_by_abort = rng_chance(r, 500);
	if (!calm) {
		p->drop = rng_chance(r, 500) ? 0 : (unsigned)rng_log(r, 1, 100);
		p->dup = rng_chance(r, 600) ? 0 : (unsigned)rng_log(r, 1, 100);
		p->reorder = rng_chance(r, 500) ? 0 : (unsigned)rng_log(r, 1, 300);
		p->corrupt = rng_chance(r, 800) ? 0 : (unsigned)rng_log(r, 1, 50);
		p->cuts = rng_chance(r, 400) ? 0 : (int)rng_between(r, 1, 6);
		p->pauses = rng_chance(r, 700) ? 0 : (int)rng_between(r, 1, 4);
	}
	p->nstreams = p->mode == SIM_SINGLE || p->mode == SIM_SINGLE_STOCK ? 1 : (int)rng_between(r, 1, 8);
	if (p->mode <= SIM_STOCK && rng_chance(r, 50))
		p->nstreams = MAX_STREAMS;
	for (int i = 0; i < p->nstreams; i++) {
		w->flow[i].index = i;
		plan_flow(w, &w->flow[i]);
	}
}

/* Own ends may agree on Reverse: then some of the streams come from the agent. */
void plan_reverse(struct world *w)
{
	struct rng *r = &w->reverse;
	struct plan *p = &w->plan;
	p->reverse = p->mode == SIM_OWN && rng_chance(r, 400);
	for (int i = 0; i < p->nstreams && p->reverse; i++) {
		struct flow *f = &w->flow[i];
		f->opener = rng_chance(r, 600) ? 1 : 0;
		if (!f->opener)
			continue;
		f->side[0].dial_failed = f->side[1].dial_failed;
		f->side[1].dial_failed = false;
	}
}

/* Own ends may have several links: each with a path of its own, which loses, stands still, or is much slower. */
void plan_links(struct world *w)
{
	struct rng *r = &w->links;
	struct plan *p = &w->plan;
	bool own = p->mode == SIM_OWN || p->mode == SIM_SINGLE;
	p->links = own && rng_chance(r, 600) ? (unsigned)rng_between(r, 2, MAX_LINKS) : 1;
	p->link[0] = (struct link_plan){.delay = p->delay, .rate = p->rate};
	if (p->links > 1 && rng_chance(r, 250))
		p->link[0].rank = 1; /* a spare one: quiet while others answer */
	for (unsigned i = 0; i < p->links && p->links > 1; i++) {
		struct link_plan *l = &p->link[i];
		l->delay = i && rng_chance(r, 500) ? rng_log(r, 1, 100) * MS : p->delay;
		l->rate = i && rng_chance(r, 500) ? rng_log(r, 100000, 50000000) : p->rate;
		l->lossy = rng_chance(r, 700) ? 0 : (unsigned)rng_log(r, 1, 200);
		l->nstalls = rng_chance(r, 600) ? 0 : (int)rng_between(r, 1, 3);
		for (int k = 0; k < l->nstalls; k++) {
			l->stall[k].from = w->now + rng_below(r, p->busy_until);
			l->stall[k].to = l->stall[k].from + rng_log(r, 5, 4000) * MS;
		}
	}
	p->only = p->links > 1 && rng_chance(r, 200);
	if (p->only)
		p->links = 2;
}
