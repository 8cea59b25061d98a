/* The end of a gateway: calls and frames in hand are finished, then its links are closed; sessions outlive it.
 *
 *   FINISHING ─► SENDING (one of several nodes: its links go to the others one by one, with jitter, so that these do
 * not get them all at once) ─► CLOSING (all that are left) ─► DONE
 *
 * Both links of a session go together: they are to meet again at another node. */
#include "tunneld/gateway/peer_internal.h"
#include "lib/crypto.h"
#include "lib/num.h"

#define FINISH_NS TD_SEC     /* at most, for what is in hand */
#define CLOSE_NS TD_SEC	     /* for answers to close frames; kept of the drain's time */
#define GAP_NS (250 * TD_MS) /* between two, on the average, when there is time for more */
#define TICK_NS (20 * TD_MS)

static void set_drain(struct td_gateway *g, enum gw_drain state)
{
	static const char *const names[] = {[GW_D_NONE] = "NONE",
					    [GW_D_FINISHING] = "FINISHING",
					    [GW_D_SENDING] = "SENDING",
					    [GW_D_CLOSING] = "CLOSING",
					    [GW_D_DONE] = "DONE"};
	td_debug("gateway", NULL, "drain state=%s before=%s", names[state], names[g->drain]);
	g->drain = state;
}

static bool end_has_work(const struct gw_end *e)
{
	gw_worker_hold(e->s->worker);
	return (e->link && td_wslink_queued(e->link->w)) || (gw_relay_links(e) && gw_relay_waiting(e));
}

static bool has_work(const struct td_gateway *g)
{
	tnl_list_foreach(it, &g->calls)
		if (!tnl_container_of(it, struct gw_call, node)->patient)
			return true;
	tnl_list_foreach(it, &g->active) {
		const struct gw_session *s = tnl_container_of(it, struct gw_session, by_age);
		if (end_has_work(&s->ends[GW_CLIENT]) || end_has_work(&s->ends[GW_AGENT]))
			return true;
	}
	return false;
}

static void finish_drain(struct td_gateway *g)
{
	td_timer_stop(&g->drain_timer);
	if (g->drain == GW_D_DONE)
		return;
	set_drain(g, GW_D_DONE);
	if (g->drained)
		g->drained(g->drained_ctx);
}

/* --- one by one -------------------------------------------------------------------- */
static void send_end_away(struct gw_end *e)
{
	for (unsigned i = 1; e->lane && i < GW_LINKS; i++)
		if (e->lane[i].link)
			gw_link_close(e->lane[i].link, 1001, GW_GOING_TEXT);
	if (e->link)
		gw_link_close(e->link, 1001, GW_GOING_TEXT);
}

/* The next link, and all others of its session; false: there is none. */
static bool send_next_away(struct td_gateway *g)
{
	tnl_list_foreach(it, &g->links) {
		struct gw_link *l = tnl_container_of(it, struct gw_link, node);
		if (l->phase == GW_L_CLOSING)
			continue;
		struct gw_session *s = l->end ? l->end->s : NULL;
		if (!s) {
			gw_link_close(l, 1001, GW_GOING_TEXT);
			return true;
		}
		send_end_away(&s->ends[GW_CLIENT]);
		send_end_away(&s->ends[GW_AGENT]);
		return true;
	}
	return g->peers && gw_ferries_dismiss(g->peers);
}

static size_t count_going(const struct td_gateway *g)
{
	size_t n = 0, untold = 0;
	tnl_list_foreach(it, &g->links)
		n += tnl_container_of(it, struct gw_link, node)->phase != GW_L_CLOSING;
	if (g->peers)
		gw_ferries_away(g->peers, &untold);
	return n + untold;
}

/* When the next is to go: the links that are there spread over the time that is left, half of it to half as much again.
 */
static uint64_t next_gap(const struct td_gateway *g, uint64_t now)
{
	uint16_t r;
	uint64_t left = g->drain_until > now ? g->drain_until - now : 0;
	uint64_t gap = TNL_MIN(left / (count_going(g) + 1), (uint64_t)GAP_NS);
	tnl_random(&r, sizeof(r));
	return gap / 2 + gap * r / UINT16_MAX;
}

/* true: all are on their way. */
static bool send_away(struct td_gateway *g)
{
	uint64_t now = g->l->now;
	while (g->drain_next <= now) {
		if (!send_next_away(g))
			return true;
		g->drain_next += next_gap(g, now);
	}
	return now >= g->drain_until;
}

/* --- all ----------------------------------------------------------------------------- */
static void close_links(struct td_gateway *g)
{
	set_drain(g, GW_D_CLOSING);
	g->drain_until = g->l->now + CLOSE_NS;
	tnl_list_foreach_safe(it, &g->links)
		gw_link_close(tnl_container_of(it, struct gw_link, node), 1001, GW_GOING_TEXT);
	while (g->peers && gw_ferries_dismiss(g->peers))
		;
}

static bool all_closed(const struct td_gateway *g)
{
	size_t untold;
	return tnl_list_empty(&g->links) && (!g->peers || gw_ferries_away(g->peers, &untold) == 0);
}

void gw_drain_at_once(struct td_gateway *g)
{
	if (g->drain)
		return;
	td_http_server_stop_listening(g->httpd);
	close_links(g);
}

static void begin_sending(struct td_gateway *g)
{
	uint64_t now = g->l->now;
	set_drain(g, GW_D_SENDING);
	g->drain_until = TNL_MAX(g->drain_end, now + CLOSE_NS) - CLOSE_NS;
	g->drain_next = now;
}

void gw_drain_step(void *arg)
{
	struct td_gateway *g = arg;
	uint64_t now = g->l->now;
	if (g->drain == GW_D_FINISHING && (now >= g->drain_until || !has_work(g))) {
		if (g->node[0])
			begin_sending(g);
		else
			close_links(g);
	}
	if (g->drain == GW_D_SENDING && send_away(g))
		close_links(g);
	if (g->drain == GW_D_CLOSING && (now >= g->drain_until || all_closed(g)))
		finish_drain(g);
	else
		td_timer_at(&g->drain_timer, now + TICK_NS);
}

void td_gateway_drain(struct td_gateway *g, uint64_t timeout_ns, void (*done)(void *), void *ctx)
{
	if (g->drain) {
		finish_drain(g);
		return;
	}
	set_drain(g, GW_D_FINISHING);
	g->drained = done;
	g->drained_ctx = ctx;
	g->drain_end = g->l->now + timeout_ns;
	g->drain_until = g->l->now + TNL_MIN(timeout_ns, (uint64_t)FINISH_NS);
	td_http_server_stop_listening(g->httpd);
	if (g->shared)
		td_store_leaving(g->store);
	gw_arrival_recheck(g); /* to hear that no session starts any more */
	td_timer_in(&g->drain_timer, 0);
}
