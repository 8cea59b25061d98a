/* The direct links of sessions: the gateway says whether there may be one, passes the words of the two ends about it
 * on, and hears how much goes over it (lib/direct.h).  It carries none of the bytes, so what it knows is what the ends
 * say; that a session is over they hear as ever, and without the gateway a direct link lasts no longer than
 * direct_grace. */
#include "tunneld/gateway/internal.h"
#include "lib/alloc.h"
#include "lib/direct.h"

#define WORDS_AT_ONCE 16u
#define WORD_EVERY (1 * TD_SEC)

/* Bytes that the gateway is to count have to pass it. */
static bool is_metered(const struct td_user_config *u, const struct td_instance_config *i)
{
	return u->quota.bandwidth || i->quota.bandwidth;
}

/* An end whose key has gone is about to lose its link here; it shall not go on without. */
static bool has_keys(const struct gw_session *s)
{
	for (int i = 0; i < 2; i++)
		if (s->ends[i].link && !gw_link_has_keys(s->ends[i].link))
			return false;
	return true;
}

bool gw_direct_allowed(const struct gw_session *s)
{
	const struct td_user_config *u = gw_keys_user(s->g, s->owner);
	const struct td_instance_config *i = s->inst ? s->inst->cfg : NULL;
	return s->state != GW_S_ENDED && s->g->cfg->gw.direct && u && u->direct && i && i->direct &&
	       !is_metered(u, i) && has_keys(s);
}

void gw_direct_tell(struct gw_end *e)
{
	struct tnl_direct d = {.kind = TNL_DIRECT_POLICY,
			       .allow = gw_direct_allowed(e->s),
			       .grace_ms = e->s->g->cfg->gw.direct_grace_ns / TD_MS};
	uint8_t out[TNL_MSG_HDR + TNL_DIRECT_JSON];
	struct tnl_buf b;
	if (!e->link || e->link->stock)
		return;
	gw_worker_hold(e->s->worker);
	tnl_buf_init(&b, TNL_DIRECT_JSON);
	if (tnl_direct_write(&b, &d) == 0) {
		size_t n = gw_message_encode(e->s->g, out, TNL_MT_DIRECT, tnl_buf_data(&b), tnl_buf_len(&b));
		/* Full of what waited for it: then it hears with the next link, and meanwhile as before. */
		if (td_wslink_send(e->link->w, TNL_WS_BINARY, out, n) != 0)
			gw_count(e->s->g, GW_C_FRAMES_IGNORED);
	}
	tnl_buf_fini(&b);
}

static const char *role_name(const struct gw_end *e)
{
	return e->role == GW_CLIENT ? "client" : "agent";
}

static void log_change(const struct gw_end *e)
{
	const struct gw_session *s = e->s;
	td_info("gateway", s->id, "direct link %s end=%s owner=%s target=%s peer=%s sent=%llu received=%llu",
		e->direct.up ? "up" : "down", role_name(e), s->owner, s->target, td_wslink_peer(e->link->w),
		(unsigned long long)e->direct.sent, (unsigned long long)e->direct.received);
}

static void take_report(struct gw_end *e, const struct tnl_direct *d)
{
	bool change = d->up != e->direct.up;
	if (d->sent != e->direct.sent || d->received != e->direct.received)
		e->s->last_stream = e->s->g->l->now;
	e->direct.up = d->up;
	e->direct.sent = d->sent;
	e->direct.received = d->received;
	if (!change)
		return;
	if (d->up)
		gw_count(e->s->g, GW_C_DIRECT_LINKS);
	log_change(e);
}

/* So many words at once and one a second: they are few, and nobody shall make the other end busy with them. */
static bool in_time(struct gw_end *e)
{
	uint64_t now = e->s->g->l->now, *paid = &e->direct.paid;
	if (*paid > now + WORDS_AT_ONCE * WORD_EVERY)
		return false;
	*paid = (*paid > now ? *paid : now) + WORD_EVERY;
	return true;
}

bool gw_direct_message(struct gw_end *from, const struct tnl_msg *m)
{
	struct tnl_direct d;
	bool forward = false;
	if (!in_time(from) || tnl_direct_parse(m->payload, m->plen, &d) != 0) {
		gw_count(from->s->g, GW_C_FRAMES_IGNORED);
		return false;
	}
	if (d.kind == TNL_DIRECT_REPORT)
		take_report(from, &d);
	else
		forward = d.kind == (from->role == GW_CLIENT ? TNL_DIRECT_WANT : TNL_DIRECT_TICKET) &&
			  gw_direct_allowed(from->s);
	tnl_wipe(&d, sizeof(d));
	return forward;
}
