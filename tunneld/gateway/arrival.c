/* Calls that wait for an instance.  A gateway that has just started does not know who is connected: its agents are on
 * their way back, each after its own back-off.  For a while, then, a call to an instance that has not come yet waits a
 * little in place of being told that the instance is away; longer when a session record names the instance, since then
 * it was here before.  Once an instance has come, its absence is a fact.  An instance that no section of the
 * configuration names waits like one that has one, so that nobody learns from the time which ids are known.
 *
 * Where several nodes share a store, an instance that has just left one of them is most likely on its way to another:
 * for two seconds a call waits for that too.
 *
 * A waiting call is decided anew by again(c) when an instance has come, after a reload, when a drain begins and when
 * its time is over.  It asks gw_arrival_wait() again then, which says whether it may go on waiting. */
#include "tunneld/gateway/internal.h"
#include "lib/alloc.h"
#include "lib/num.h"
#include <string.h>

static void on_arrived(void *arg)
{
	gw_arrival_recheck(arg);
}

void gw_arrival_init(struct td_gateway *g)
{
	g->arrival = (struct gw_arrival){
	    .unknown_until = g->l->now + 15 * TD_SEC,
	    .unknown_wait = 3 * TD_SEC,
	    .known_until = g->l->now + 60 * TD_SEC,
	    .known_wait = 10 * TD_SEC,
	};
	td_soon_init(&g->arrival.soon, g->l, on_arrived, g);
}

static void on_wait_over(void *arg)
{
	struct gw_call *c = arg;
	c->again(c);
}

static unsigned waiting_of(struct td_gateway *g, const char *user)
{
	unsigned n = 0;
	tnl_list_foreach(it, &g->calls) {
		const struct gw_call *c = tnl_container_of(it, struct gw_call, node);
		if (c->again && strcmp(c->user, user) == 0)
			n++;
	}
	return n;
}

static uint64_t moving_until(const struct td_gateway *g, const struct gw_instance *i)
{
	return g->shared && i && i->left_at && !i->link && !i->remote[0] ? i->left_at + GW_WORDS_NS : 0;
}

/* Until when a call that comes now may wait for it; 0: not at all. */
static uint64_t wait_until(const struct td_gateway *g, const struct gw_instance *i)
{
	const struct gw_arrival *a = &g->arrival;
	uint64_t now = g->l->now;
	bool known = i && i->recorded;
	if (now < moving_until(g, i))
		return moving_until(g, i);
	uint64_t until = known ? a->known_until : a->unknown_until;
	return now < until ? TNL_MIN(until, now + (known ? a->known_wait : a->unknown_wait)) : 0;
}

bool gw_arrival_wait(struct gw_call *c, const char *user, const char *instance, void (*again)(struct gw_call *c))
{
	struct td_gateway *g = c->g;
	const struct gw_instance *i = gw_instance_get(g, instance);
	if (i && i->generation && g->l->now >= moving_until(g, i))
		return false;
	if (c->again)
		return g->l->now < c->until;
	uint64_t until = wait_until(g, i);
	if (!until || waiting_of(g, user) >= GW_ARRIVAL_CALLS || !(c->user = tnl_strdup(user)))
		return false;
	c->again = again;
	c->until = until;
	c->patient = true;
	c->who = NULL;
	td_timer_init(&c->timer, g->l, on_wait_over, c);
	td_timer_at(&c->timer, until);
	return true;
}

void gw_arrival_done(struct gw_call *c)
{
	td_timer_stop(&c->timer);
	c->again = NULL;
	c->patient = false;
}

void gw_arrival_recheck(struct td_gateway *g)
{
	tnl_list_foreach_safe(it, &g->calls) {
		struct gw_call *c = tnl_container_of(it, struct gw_call, node);
		if (c->again)
			c->again(c);
	}
}
