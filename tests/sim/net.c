/* Event queue and the network between the two nodes. */
#include "tests/sim/sim.h"
#include "lib/message.h"
#include <stdlib.h>
#include <string.h>

static bool before(const struct event *a, const struct event *b)
{
	return a->at != b->at ? a->at < b->at : a->order < b->order;
}

void net_push(struct world *w, const struct event *e)
{
	if (w->nheap == w->cap_heap) {
		w->cap_heap = w->cap_heap ? 2 * w->cap_heap : 256;
		w->heap = realloc(w->heap, w->cap_heap * sizeof(*w->heap));
		if (!w->heap)
			abort();
	}
	size_t i = w->nheap++;
	struct event x = *e;
	x.order = w->order++;
	while (i && before(&x, &w->heap[(i - 1) / 2])) {
		w->heap[i] = w->heap[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	w->heap[i] = x;
}

bool net_pop(struct world *w, struct event *e)
{
	if (!w->nheap)
		return false;
	*e = w->heap[0];
	struct event x = w->heap[--w->nheap];
	size_t i = 0;
	for (;;) {
		size_t c = 2 * i + 1;
		if (c >= w->nheap)
			break;
		if (c + 1 < w->nheap && before(&w->heap[c + 1], &w->heap[c]))
			c++;
		if (!before(&w->heap[c], &x))
			break;
		w->heap[i] = w->heap[c];
		i = c;
	}
	if (w->nheap)
		w->heap[i] = x;
	return true;
}

uint64_t net_next(const struct world *w)
{
	return w->nheap ? w->heap[0].at : NEVER;
}

void net_fini(struct world *w)
{
	for (size_t i = 0; i < w->nheap; i++)
		free(w->heap[i].data);
	free(w->heap);
	w->heap = NULL;
	w->nheap = w->cap_heap = 0;
}

/* A link takes some 50 ms of what it can send, as a socket's buffer does. */
bool net_room(const struct world *w, int from, unsigned link)
{
	const struct node *n = &w->node[from];
	return n->up & 1u << link && (w->plan.link[link].rate == 0 || n->link_free[link] <= w->now + 50 * MS);
}

/* The gateway: a link's messages go on by the other end's link of that number, or by any while that is away. */
static bool route(const struct world *w, int to, unsigned *link)
{
	unsigned up = w->node[to].up;
	if (!(up & 1u << *link) && up)
		*link = (unsigned)__builtin_ctz(up);
	return up != 0;
}

/* When something that would arrive then arrives on a link that stands still now and then. */
static uint64_t after_stalls(const struct world *w, unsigned link, uint64_t at)
{
	const struct link_plan *l = &w->plan.link[link];
	for (int i = 0; i < l->nstalls; i++)
		if (at >= l->stall[i].from && at < l->stall[i].to)
			at = l->stall[i].to;
	return at;
}

static void deliver_later(struct world *w, int to, unsigned link, uint64_t at, const uint8_t *p, size_t n, bool corrupt)
{
	struct event e = {.at = after_stalls(w, link, at),
			  .kind = EV_MESSAGE,
			  .to = to,
			  .link = link,
			  .epoch = w->node[to].epoch[link],
			  .n = n,
			  .data = malloc(n)};
	if (!e.data)
		abort();
	memcpy(e.data, p, n);
	/* What the digest covers: a flip in the header is TLS's to find. */
	if (corrupt && n > TNL_MSG_HDR)
		e.data[TNL_MSG_HDR + rng_below(&w->rng, n - TNL_MSG_HDR)] ^= (uint8_t)(1 + rng_below(&w->rng, 255));
	net_push(w, &e);
}

void net_send(struct world *w, int from, unsigned link, const uint8_t *p, size_t n)
{
	struct plan *pl = &w->plan;
	const struct link_plan *l = &pl->link[link];
	struct node *f = &w->node[from];
	uint64_t at = w->now;
	bool faults = w->now < pl->busy_until;
	w->messages++;
	w->striped += link != 0;
	if (l->rate) {
		if (f->link_free[link] < w->now)
			f->link_free[link] = w->now;
		f->link_free[link] += n * SEC / l->rate;
		at = f->link_free[link];
		struct event wake = {.at = at, .kind = EV_WAKE};
		net_push(w, &wake);
	}
	at += l->delay + (pl->jitter ? rng_below(&w->rng, pl->jitter) : 0);
	bool lossy = faults && l->lossy && rng_chance(&w->links, l->lossy);
	if (!route(w, !from, &link) || (faults && rng_chance(&w->rng, pl->drop)) || lossy) {
		w->lost++;
		return;
	}
	if (faults && rng_chance(&w->rng, pl->reorder))
		at += rng_below(&w->rng, 5 * l->delay + MS);
	if (faults && rng_chance(&w->rng, pl->corrupt))
		deliver_later(w, !from, link, at, p, n, true);
	else
		deliver_later(w, !from, link, at, p, n, false);
	if (faults && rng_chance(&w->rng, pl->dup))
		deliver_later(w, !from, link, at + rng_below(&w->rng, 3 * l->delay + MS), p, n, false);
}
