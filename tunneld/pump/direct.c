/* The direct link of a session: the gateway's policy, what it hears of the link, and how long that may last without it.
 * The owner asks for tickets, gives them out and makes the link. */
#include "tunneld/pump/internal.h"

#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/json.h"
#include "tunneld/base/log.h"

#include <stdio.h>
#include <string.h>

#define REPORT_EVERY (2 * TD_SEC)

bool td_pump_is_word(const uint8_t *b, size_t n)
{
	static const char type[] = "tunneld_direct ";
	return n > TNL_MSG_HDR && memcmp(b + 4, type, sizeof(type) - 1) == 0;
}

struct td_wslink *td_pump_direct(struct td_pump *p)
{
	return p->links[TD_PUMP_DIRECT].w;
}

bool td_pump_direct_allowed(const struct td_pump *p)
{
	return p->direct.allow;
}

void td_pump_direct_stats(const struct td_pump *p, struct td_pump_direct_stats *st)
{
	*st = p->direct.st;
}

void td_pump_put_direct(const struct td_pump *p, struct tnl_jw *w)
{
	struct td_pump_direct_stats st = {0};
	const struct td_wslink *link = p ? p->links[TD_PUMP_DIRECT].w : NULL;

	if (p)
		st = p->direct.st;
	tnl_jw_key(w, "direct");
	tnl_jw_bool(w, link != NULL);
	if (link)
		tnl_jw_kv(w, "direct_peer", td_wslink_peer(link));
	tnl_jw_kvi(w, "direct_links", (int64_t)st.links);
	tnl_jw_kvi(w, "direct_sent_bytes", (int64_t)st.sent);
	tnl_jw_kvi(w, "direct_received_bytes", (int64_t)st.received);
}

bool td_pump_tell_direct(struct td_pump *p, const struct tnl_direct *d)
{
	struct td_wslink *w = p->links[TD_PUMP_RELAY].w;
	uint8_t out[TNL_MSG_HDR + TNL_DIRECT_JSON];
	struct tnl_buf b;
	bool sent = false;

	tnl_buf_init(&b, TNL_DIRECT_JSON);
	if (w && tnl_direct_write(&b, d) == 0) {
		struct tnl_msg m = {.type = TNL_MT_DIRECT,
				    .schema = 1,
				    .created_ms = p->loop->wall_ms,
				    .payload = tnl_buf_data(&b),
				    .plen = (uint32_t)tnl_buf_len(&b)};
		tnl_uuid_new(m.id);
		size_t n = tnl_msg_encode(out, &m);
		sent = td_wslink_send(w, TNL_WS_BINARY, out, n) == 0;
		tnl_wipe(out, sizeof(out));
	}
	tnl_buf_fini_wiped(&b);
	return sent;
}

/* --- what the gateway hears ------------------------------------------------------- */

static void report_now(void *arg)
{
	struct td_pump *p = arg;
	struct td_pump_direct *x = &p->direct;
	struct tnl_direct d = {.kind = TNL_DIRECT_REPORT,
			       .up = p->links[TD_PUMP_DIRECT].w != NULL,
			       .sent = x->st.sent,
			       .received = x->st.received};

	if (d.up != x->told_up || d.sent != x->told_sent || d.received != x->told_received) {
		if (td_pump_tell_direct(p, &d)) {
			x->told_up = d.up;
			x->told_sent = d.sent;
			x->told_received = d.received;
		}
	}
	if (d.up)
		td_timer_in(&x->report, REPORT_EVERY);
}

static void out_of_grace(void *arg)
{
	td_pump_lose_direct(arg, TNL_ETIMEOUT, "the gateway is out of reach for longer than direct_grace");
}

void td_pump_relay_came(struct td_pump *p)
{
	td_timer_stop(&p->direct.grace);
	p->direct.told_up = false; /* this gateway may be a new one */
	p->direct.told_sent = p->direct.told_received = 0;
	if (p->direct.st.links)
		td_timer_in(&p->direct.report, 0);
}

void td_pump_relay_went(struct td_pump *p)
{
	if (p->links[TD_PUMP_DIRECT].w)
		td_timer_in(&p->direct.grace, p->direct.grace_ns);
}

/* --- it comes and goes ---------------------------------------------------------------- */

static void end_pause(struct td_pump *p)
{
	struct tnl_msg m = {.type = TNL_MT_START_PUBLICATION};
	(void)!tnl_channel_feed_on(tnl_session_channel(p->session), TD_PUMP_DIRECT, &m, p->loop->now);
}

static void tell_lost(struct td_pump *p, int err, const char *why)
{
	p->direct.lost.told_soon = true;
	p->direct.lost.err = err;
	snprintf(p->direct.lost.why, sizeof(p->direct.lost.why), "%s", why);
}

void td_pump_attach_direct(struct td_pump *p, struct td_wslink *w)
{
	const struct tnl_session_info *info = tnl_session_info(p->session);

	p->direct.lost.told_soon = false;
	if (!td_pump_link_set(p, TD_PUMP_DIRECT, w)) {
		tell_lost(p, TNL_ENOMEM, "out of memory");
		return;
	}
	p->direct.st.links++;
	if (info->direct == TNL_DIRECT_ONLY) {
		p->direct.held_over = true;
		tnl_session_link_gone(p->session, TD_PUMP_RELAY, p->loop->now);
		tnl_session_release(p->session);
	}
	end_pause(p); /* of the gateway's link */
	td_timer_in(&p->direct.report, 0);
	if (!p->links[TD_PUMP_RELAY].w)
		td_pump_relay_went(p);
}

void td_pump_detach_direct(struct td_pump *p)
{
	if (!p->links[TD_PUMP_DIRECT].w)
		return;
	td_timer_stop(&p->direct.grace);
	td_pump_link_drop(p, TD_PUMP_DIRECT);
	td_timer_in(&p->direct.report, 0);
}

void td_pump_lose_direct(struct td_pump *p, int err, const char *why)
{
	if (!p->links[TD_PUMP_DIRECT].w)
		return;
	td_pump_detach_direct(p);
	tell_lost(p, err, why);
}

/* --- words ----------------------------------------------------------------------------- */

static void take_policy(struct td_pump *p, const struct tnl_direct *d)
{
	p->direct.allow = d->allow;
	p->direct.grace_ns = d->grace_ms * TD_MS;
	if (!d->allow)
		td_pump_lose_direct(p, TNL_EREFUSED, "the gateway does not permit it");
}

void td_pump_take_word(struct td_pump *p, const uint8_t *b, size_t n)
{
	struct tnl_msg m;
	struct tnl_direct d;

	if (tnl_msg_decode(b, n, &m, NULL) != 0 || tnl_direct_parse(m.payload, m.plen, &d) != 0) {
		td_debug("pump", tnl_session_id(p->session), "word about a direct link ignored bytes=%zu", n);
		return;
	}
	if (d.kind == TNL_DIRECT_POLICY)
		take_policy(p, &d);
	td_pump_note_word(p, &d);
	tnl_wipe(&d, sizeof(d));
	td_pump_kick(p);
}

void td_pump_direct_init(struct td_pump *p)
{
	td_timer_init(&p->direct.grace, p->loop, out_of_grace, p);
	td_timer_init(&p->direct.report, p->loop, report_now, p);
}

void td_pump_direct_fini(struct td_pump *p)
{
	td_timer_stop(&p->direct.grace);
	td_timer_stop(&p->direct.report);
}
