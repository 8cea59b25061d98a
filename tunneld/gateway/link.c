/* A WebSocket to an agent or a client. */
#include "tunneld/gateway/internal.h"
#include "lib/alloc.h"
#include "lib/crypto.h"
#include <string.h>

/* --- links that nobody has vouched for yet: bounded for each peer ------------------ */
bool gw_link_pending(struct gw_link *l, const struct td_addr *a)
{
	struct td_gateway *g = l->g;
	uint8_t len = 0;
	if (a->sa.sa_family == AF_INET)
		memcpy(l->peer, &a->in.sin_addr, len = 4);
	else if (a->sa.sa_family == AF_INET6)
		memcpy(l->peer, &a->in6.sin6_addr, len = IN6_IS_ADDR_LOOPBACK(&a->in6.sin6_addr) ? 16 : 8);
	if (!len)
		return true;
	uintptr_t n = (uintptr_t)tnl_map_get(g->pending, l->peer, len);
	if (n >= g->cfg->gw.per_peer_connections || tnl_map_set(g->pending, l->peer, len, (void *)(n + 1)) != 0)
		return false;
	l->peer_len = len;
	return true;
}

void gw_link_vouched(struct gw_link *l)
{
	struct tnl_map *m = l->g->pending;
	uintptr_t n = l->peer_len ? (uintptr_t)tnl_map_get(m, l->peer, l->peer_len) : 0;
	if (n <= 1)
		tnl_map_del(m, l->peer, l->peer_len);
	else if (tnl_map_set(m, l->peer, l->peer_len, (void *)(n - 1)) != 0)
		td_error("gateway", NULL, "out of memory");
	l->peer_len = 0;
}

void gw_link_complain(struct gw_link *l, const char *what, const char *field)
{
	gw_count(l->g, GW_C_FRAMES_REFUSED);
	if (l->complained)
		return;
	l->complained = true;
	td_warn("gateway", l->end ? l->end->s->id : NULL, "%s peer=%s channel=%s field=\"%s\"", what,
		td_wslink_peer(l->w), l->id, field);
}

static void detach(struct gw_link *l)
{
	struct gw_end *e = l->end;
	struct gw_instance *i = l->inst;
	if (e && e->link == l) {
		gw_relay_detach(e);
		gw_session_rearm(e->s);
	}
	l->end = NULL;
	if (i && i->link == l) {
		i->link = NULL;
		i->down_since = l->g->l->now;
		i->ping_ms = l->g->l->wall_ms;
		gw_queue_clear(&i->q);
		td_info("gateway", NULL, "instance disconnected instance=%s", i->id);
	}
	l->inst = NULL;
}

void gw_link_close(struct gw_link *l, uint16_t code, const char *reason)
{
	if (l->phase == GW_L_CLOSING)
		return;
	l->phase = GW_L_CLOSING;
	td_timer_stop(&l->timer);
	detach(l);
	td_wslink_pause(l->w, false); /* its answer to the close frame must be read */
	td_wslink_close(l->w, code, reason);
}

void gw_link_free(struct gw_link *l)
{
	td_timer_stop(&l->timer);
	gw_link_vouched(l);
	detach(l);
	tnl_list_remove(&l->node);
	if (l->w)
		td_wslink_free(l->w);
	tnl_free(l->id);
	tnl_free(l->user);
	tnl_free(l->instance);
	tnl_free(l);
}

static void on_closed(void *ctx, int err, uint16_t code, int http_status, const char *why)
{
	struct gw_link *l = ctx;
	struct td_gateway *g = l->g;
	const char *session = l->end ? l->end->s->id : NULL;
	bool peers_fault = err == TNL_EPROTO || err == TNL_ETOOBIG || err == TNL_ESYNTAX;
	if (peers_fault) {
		gw_count(g, GW_C_FRAMES_REFUSED);
		td_warn("gateway", session, "link refused peer=%s channel=%s code=%u field=\"%s\"",
			td_wslink_peer(l->w), l->id, code, why ? why : "");
	} else {
		td_debug("gateway", session, "link closed peer=%s channel=%s code=%u err=%s", td_wslink_peer(l->w),
			 l->id, code, tnl_err_name(err));
	}
	if (l->phase == GW_L_OPEN)
		gw_count(g, GW_C_LINKS_BROKEN);
	gw_link_free(l);
}

static void on_writable(void *ctx)
{
	struct gw_link *l = ctx;
	if (l->phase != GW_L_OPEN)
		return;
	if (l->end) {
		gw_relay_flush(l->end);
		return;
	}
	struct gw_instance *i = l->inst;
	size_t n;
	const uint8_t *p;
	while (i && (p = gw_queue_peek(&i->q, &n)) != NULL && td_wslink_send(l->w, TNL_WS_BINARY, p, n) == 0)
		gw_queue_pop(&i->q);
}

void gw_link_refuse_token(struct gw_link *l, const char *field)
{
	struct td_gateway *g = l->g;
	gw_count(g, GW_C_TOKENS_REFUSED);
	td_warn("gateway", NULL, "channel refused peer=%s channel=%s field=\"%s\"", td_wslink_peer(l->w), l->id, field);
	l->complained = true;
	gw_link_close(l, 1008, "token refused");
}

/* --- messages ------------------------------------------------------------------ */
static void on_message(void *ctx, enum tnl_ws_op op, uint8_t *p, size_t n)
{
	struct gw_link *l = ctx;
	if (l->phase == GW_L_CLOSING)
		return;
	if (l->phase == GW_L_TOKEN) {
		gw_channel_first_frame(l, op, p, n);
	} else if (op != TNL_WS_BINARY) {
		gw_link_complain(l, "text frame after the token frame", "opcode");
		gw_link_close(l, 1003, "binary frames only");
	} else if (l->role == GW_CONTROL) {
		gw_control_message(l, p, n);
	} else if (l->end) {
		gw_relay_message(l, p, n);
	}
}

const struct td_wslink_cb gw_link_cb = {.message = on_message, .writable = on_writable, .closed = on_closed};
