/* Making room: least shares of very many sessions add up, too.  When owners have all of the memory that is for them,
 * the owner that keeps most gives way: what nobody has read for a while goes, with its session, and is said. */
#include "tunneld/gateway/peer_internal.h"
#include "lib/num.h"

#define UNREAD_FOR (5 * TD_SEC)
#define AGAIN_IN (100 * TD_MS)
#define AT_ONCE 64 /* sessions */

static bool is_unread(const struct gw_end *e)
{
	return gw_relay_waiting(e) && e->s->g->l->now - e->waits_since >= UNREAD_FOR;
}

static size_t unread_bytes(const struct gw_session *s)
{
	size_t n = 0;
	for (int i = 0; i < 2; i++)
		n += is_unread(&s->ends[i]) ? s->ends[i].kept : 0;
	return n;
}

static uint64_t kept_by_user(const struct gw_session *s)
{
	return __atomic_load_n(&s->shares[GW_SHARE_USER]->kept, __ATOMIC_RELAXED);
}

static bool goes_before(const struct gw_session *a, const struct gw_session *b)
{
	uint64_t ka = kept_by_user(a), kb = kept_by_user(b);
	return ka != kb ? ka > kb : unread_bytes(a) > unread_bytes(b);
}

static struct gw_session *find_worst(const struct tnl_list *sessions, struct gw_session *worst)
{
	tnl_list_foreach(it, sessions) {
		struct gw_session *s = tnl_container_of(it, struct gw_session, by_age);
		if (s->shares[0] && unread_bytes(s) && (!worst || goes_before(s, worst)))
			worst = s;
	}
	return worst;
}

/* Of those that have ended clients may still read. */
static struct gw_session *find_victim(struct td_gateway *g)
{
	return find_worst(&g->history, find_worst(&g->active, NULL));
}

/* It would not take its last words either. */
static void cut_end(struct gw_end *e)
{
	struct gw_link *l = e->link;
	gw_worker_hold(e->s->worker);
	e->link = NULL;
	if (l)
		gw_link_drop(l);
	gw_relay_drop(e);
	gw_relay_drop_lanes(e);
}

static void end_unread(struct gw_session *s)
{
	bool client = is_unread(&s->ends[GW_CLIENT]);
	gw_count(s->g, GW_C_MEMORY_ENDED);
	gw_share_reached(s->shares[GW_SHARE_USER], s->g->l->now);
	for (int i = 0; i < 2; i++)
		if (is_unread(&s->ends[i]))
			cut_end(&s->ends[i]);
	gw_session_end(s, "Terminated",
		       client ? "The gateway is short of memory, and the client did not read what waited for it."
			      : "The gateway is short of memory, and the agent did not read what waited for it.");
}

void gw_room_make(void *arg)
{
	struct td_gateway *g = arg;
	struct gw_session *s;
	uint64_t got = 0, want = td_memory_lacking();
	if (g->l->now < g->room_at || !want)
		return;
	for (int i = 0; i < AT_ONCE && got < want && (s = find_victim(g)) != NULL; i++) {
		got += unread_bytes(s); /* freed at the end of this turn */
		end_unread(s);
	}
	if (g->peers && got < want)
		gw_ferries_make_room(g->peers, want - got, UNREAD_FOR);
	g->room_at = g->l->now + AGAIN_IN;
}
