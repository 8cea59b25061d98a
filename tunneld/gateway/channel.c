/* Channels: the signed POSTs that give a token, the upgrades, the first frame
 * that spends the token. */
#include "tunneld/gateway/internal.h"
#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/enc.h"
#include "lib/wire.h"
#include <stdio.h>
#include <string.h>

static void on_message(void *ctx, enum tnl_ws_op op, uint8_t *p, size_t n);
static void on_writable(void *ctx);
static void on_closed(void *ctx, int err, uint16_t code, int http_status, const char *why);
static const struct td_wslink_cb link_cb = {.message = on_message, .writable = on_writable, .closed = on_closed};

/* --- POST: a token for an agent's channel ----------------------------------- */
static void refuse_post(struct td_gateway *g, struct td_request *r, int status, const char *type, const char *text,
			const char *field)
{
	struct gw_refusal why = {.status = status, .type = type};
	snprintf(why.text, sizeof(why.text), "%s", text);
	td_warn("gateway", NULL, "channel refused peer=%s reason=%s field=\"%s\"", td_request_peer(r), type, field);
	gw_reply_refusal(g, r, &why, true);
}

static void answer_token(struct td_gateway *g, struct td_request *r, const char *root, const char *token)
{
	struct tnl_buf b;
	tnl_buf_init(&b, 4096);
	if (tnl_create_reply_write(&b, root, token) == 0)
		td_request_reply(r, 201, "application/xml", NULL, 0, tnl_buf_data(&b), tnl_buf_len(&b));
	else
		td_request_reply(r, 500, "application/xml", NULL, 0, "", 0);
	tnl_buf_fini_wiped(&b);
}

static void create_control(struct td_gateway *g, struct td_request *r, struct gw_instance *i)
{
	char token[GW_TOKEN_STR + 1];
	gw_token_new(g, &i->tokens, NULL, token);
	answer_token(g, r, "CreateControlChannelOutput", token);
	tnl_wipe(token, sizeof(token));
}

/* Sessions that are over, unknown or another's: the same words, which end a stock agent's attempts. */
static void create_data(struct td_gateway *g, struct td_request *r, const char *instance, const char *id)
{
	size_t n;
	const uint8_t *body = td_request_body(r, &n);
	struct gw_session *s = gw_session_get(g, id);
	if (!s || s->state == GW_S_ENDED || strcmp(s->target, instance) != 0) {
		refuse_post(g, r, 400, "ValidationException", "Session is already terminated", "session");
		return;
	}
	struct tnl_json *j = tnl_json_parse(body, n);
	const char *client_id = tnl_json_get_str(j, "ClientId"); /* a stock agent's is empty */
	if (!tnl_json_is_obj(j) || (client_id && strlen(client_id) >= TD_STORE_CLIENT_ID)) {
		refuse_post(g, r, 400, "ValidationException", "The body is not a channel request", "body");
	} else {
		char token[GW_TOKEN_STR + 1];
		gw_token_new(g, &s->ends[GW_AGENT].tokens, client_id ? client_id : "", token);
		gw_session_save(s, NULL, NULL);
		answer_token(g, r, "CreateDataChannelOutput", token);
		tnl_wipe(token, sizeof(token));
	}
	tnl_json_free(j);
}

void gw_channel_create(struct td_gateway *g, struct td_request *r, enum gw_role kind, const char *id)
{
	const struct gw_principal *who;
	struct gw_refusal why;
	if (gw_auth_check(g, r, "ssmmessages", false, &who, &why) != 0) {
		why.status = 403;
		gw_reply_refusal(g, r, &why, true);
		return;
	}
	struct gw_instance *i = who->instance ? gw_instance_get(g, who->instance->id) : NULL;
	if (!i || (kind == GW_CONTROL && strcmp(i->id, id) != 0)) {
		gw_count(g, GW_C_AUTH_DENIED);
		refuse_post(g, r, 403, "AccessDeniedException", "Not authorized to open this channel", "path");
		return;
	}
	if (kind == GW_CONTROL)
		create_control(g, r, i);
	else
		create_data(g, r, i->id, id);
}

/* --- links that nobody has vouched for yet: bounded for each peer ------------------ */
static bool pending_add(struct gw_link *l, const struct td_addr *a)
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

/* --- upgrade --------------------------------------------------------------------- */
static bool is_stock(const struct tnl_http_head *h)
{
	size_t n;
	const char *ua = tnl_http_get(h, "User-Agent", &n);
	return !ua || n < 8 || memcmp(ua, "tunneld/", 8) != 0;
}

static void on_token_late(void *arg)
{
	struct gw_link *l = arg;
	gw_link_complain(l, "no token frame in time", "token frame");
	gw_link_close(l, 1008, "token frame expected");
}

void gw_channel_upgrade(struct td_gateway *g, struct td_request *r, enum gw_role kind, const char *id)
{
	const struct gw_principal *who;
	struct gw_refusal why;
	if (gw_auth_check(g, r, "ssmmessages", kind != GW_CONTROL, &who, &why) != 0) {
		why.status = 403;
		gw_reply_refusal(g, r, &why, true);
		return;
	}
	if (kind == GW_CONTROL && (!who->instance || strcmp(who->instance->id, id) != 0)) {
		gw_count(g, GW_C_AUTH_DENIED);
		refuse_post(g, r, 403, "AccessDeniedException", "Not authorized to open this channel", "path");
		return;
	}
	struct gw_link *l = tnl_calloc(1, sizeof(*l));
	if (!l) {
		td_request_reply(r, 503, "text/plain", NULL, 0, "", 0);
		return;
	}
	l->g = g;
	if (!pending_add(l, td_request_peer_addr(r))) {
		tnl_free(l);
		refuse_post(g, r, 429, "ThrottlingException", "Rate exceeded", "connections of this peer");
		return;
	}
	tnl_list_init(&l->node);
	l->role = kind;
	l->stock = is_stock(td_request_head(r));
	l->id = tnl_strdup(id);
	if (who && who->user)
		l->user = tnl_strdup(who->user->name);
	if (who && who->instance)
		l->instance = tnl_strdup(who->instance->id);
	td_timer_init(&l->timer, g->l, on_token_late, l);
	const struct td_wslink_opts o = {.ping_ns = g->cfg->gw.ping_interval_ns,
					 .pong_ns = g->cfg->gw.pong_timeout_ns,
					 .max_message = TNL_WS_MAX_MESSAGE};
	tnl_list_push_back(&g->links, &l->node);
	bool whole = l->id && (!who || l->user || l->instance);
	if (!whole)
		td_request_reply(r, 503, "text/plain", NULL, 0, "", 0);
	else
		l->w = td_request_upgrade(r, &o, &link_cb, l);
	if (!l->w) {
		gw_link_free(l);
		return;
	}
	gw_count(g, GW_C_LINKS_OPENED);
	td_timer_in(&l->timer, GW_TOKEN_FRAME_NS);
}

/* --- links ------------------------------------------------------------------------ */
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

/* --- the token frame ----------------------------------------------------------------- */
void gw_link_refuse_token(struct gw_link *l, const char *field)
{
	struct td_gateway *g = l->g;
	gw_count(g, GW_C_TOKENS_REFUSED);
	td_warn("gateway", NULL, "channel refused peer=%s channel=%s field=\"%s\"", td_wslink_peer(l->w), l->id, field);
	l->complained = true;
	gw_link_close(l, 1008, "token refused");
}

/* Whose end of the session this link can be: 0, or *field. */
static int open_data_check(const struct gw_link *l, const struct gw_session *s, const struct tnl_open *o,
			   const char **field)
{
	*field = "session";
	if (!s || (s->state == GW_S_ENDED && l->role == GW_AGENT))
		return TNL_ENOTFOUND;
	*field = "instance";
	if (l->role == GW_AGENT && strcmp(l->instance, s->target) != 0)
		return TNL_EAUTH;
	if (l->role == GW_AGENT && o->client_instance_id && *o->client_instance_id &&
	    strcmp(o->client_instance_id, s->target) != 0)
		return TNL_EAUTH;
	*field = "owner";
	if (l->user && strcmp(l->user, s->owner) != 0)
		return TNL_EAUTH;
	*field = "ClientId";
	if (o->client_id && strlen(o->client_id) >= TD_STORE_CLIENT_ID)
		return TNL_ESYNTAX;
	return 0;
}

static void open_data(struct gw_link *l, const struct tnl_open *o)
{
	struct td_gateway *g = l->g;
	struct gw_session *s = gw_session_get(g, l->id);
	const char *field, *client_id = o->client_id ? o->client_id : "";
	l->role = l->instance ? GW_AGENT : GW_CLIENT;
	if (open_data_check(l, s, o, &field) != 0) {
		gw_link_refuse_token(l, field);
		return;
	}
	struct gw_end *e = &s->ends[l->role];
	unsigned tokens = e->tokens.n;
	if (gw_token_use(g, &e->tokens, o->token, client_id, &field) != 0) {
		if (e->tokens.n != tokens) /* spent by this attempt */
			gw_session_save(s, NULL, NULL);
		gw_link_refuse_token(l, field);
		return;
	}
	if (l->role == GW_CLIENT && !e->client_id_set) { /* from here on no other client can have this session */
		snprintf(e->client_id, sizeof(e->client_id), "%s", client_id);
		e->client_id_set = true;
		for (unsigned k = 0; k < e->tokens.n; k++) {
			e->tokens.v[k].bound = true;
			memcpy(e->tokens.v[k].client_id, e->client_id, sizeof(e->client_id));
		}
	}
	struct gw_link *old = e->link;
	if (old) {
		gw_count(g, GW_C_LINKS_REPLACED);
		if (l->role == GW_AGENT) /* lost before we noticed */
			s->agent_lost = s->tell_lost = true;
		e->link = NULL;
		old->end = NULL;
		gw_link_free(old);
	}
	if (s->state == GW_S_ENDED)
		gw_relay_drop(e); /* the end is all that it is told */
	td_debug("gateway", s->id, "%s attached peer=%s", l->role == GW_CLIENT ? "client" : "agent",
		 td_wslink_peer(l->w));
	gw_link_vouched(l);
	gw_relay_attach(e, l);
	if (s->state == GW_S_ENDED)
		gw_session_farewell(s);
	gw_session_seen(s);
	gw_session_save(s, NULL, NULL);
	gw_session_rearm(s);
}

static void first_frame(struct gw_link *l, enum tnl_ws_op op, const uint8_t *p, size_t n)
{
	struct tnl_open o = {0};
	const char *fault = "token frame";
	if (op != TNL_WS_TEXT) {
		gw_link_complain(l, "first frame is not the token frame", "opcode");
		gw_link_close(l, 1008, "token frame expected");
		return;
	}
	int rc = tnl_open_parse(p, n, &o, &fault);
	if (rc != 0 || !o.token) {
		gw_link_complain(l, "malformed token frame", rc != 0 && fault ? fault : "TokenValue");
		gw_link_close(l, 1008, "malformed token frame");
	} else {
		td_timer_stop(&l->timer);
		if (l->role == GW_CONTROL)
			gw_control_open(l, &o);
		else
			open_data(l, &o);
	}
	tnl_open_fini(&o);
}

/* --- messages ------------------------------------------------------------------ */
static void on_message(void *ctx, enum tnl_ws_op op, uint8_t *p, size_t n)
{
	struct gw_link *l = ctx;
	if (l->phase == GW_L_CLOSING)
		return;
	if (l->phase == GW_L_TOKEN) {
		first_frame(l, op, p, n);
	} else if (op != TNL_WS_BINARY) {
		gw_link_complain(l, "text frame after the token frame", "opcode");
		gw_link_close(l, 1003, "binary frames only");
	} else if (l->role == GW_CONTROL) {
		gw_control_message(l, p, n);
	} else if (l->end) {
		gw_relay_message(l, p, n);
	}
}
