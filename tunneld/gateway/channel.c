/* Channels: the signed POSTs that give a token, the upgrades, the first frame
 * that spends the token. */
#include "tunneld/gateway/internal.h"
#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/enc.h"
#include "lib/wire.h"
#include <stdio.h>
#include <string.h>

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
	if (!gw_link_pending(l, td_request_peer_addr(r))) {
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
		l->w = td_request_upgrade(r, &o, &gw_link_cb, l);
	if (!l->w) {
		gw_link_free(l);
		return;
	}
	gw_count(g, GW_C_LINKS_OPENED);
	td_timer_in(&l->timer, GW_TOKEN_FRAME_NS);
}

/* --- the token frame ----------------------------------------------------------------- */
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

void gw_channel_first_frame(struct gw_link *l, enum tnl_ws_op op, const uint8_t *p, size_t n)
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
