/* Channels: the signed POSTs that give a token, the upgrades, the first frame that spends the token.  A verified token
 * makes a link the control channel of an instance (control.c) or an end of a session. */
#include "tunneld/gateway/rate_internal.h"
#include "tunneld/gateway/shared_internal.h"
#include "lib/alloc.h"
#include "lib/wire.h"
#include "tunneld/base/fd.h"
#include <stdio.h>
#include <string.h>

/* --- POST: a token for an agent's channel ----------------------------------- */
static void refuse_channel(struct td_gateway *g, struct td_request *r, const struct gw_principal *who, int status,
			   const char *type, const char *text, const char *field)
{
	struct gw_refusal why = {.status = status, .type = type};
	snprintf(why.text, sizeof(why.text), "%s", text);
	td_warn("gateway", NULL, "channel refused peer=%s key=%s %s=%s reason=%s field=\"%s\"", td_request_peer(r),
		who ? who->key_id : "-", who && who->user ? "user" : "instance", who ? gw_keys_name(who) : "-", type,
		field);
	const struct gw_denial d = {.op = "channel",
				    .peer = td_request_peer(r),
				    .who = who,
				    .proven = who != NULL,
				    .reason = type,
				    .text = text};
	gw_audit_refused(g, &d);
	gw_refusal_reply(g, r, &why, true);
}

/* Whose key it is, is no secret to who has it: both ends say it. */
static void refuse_as_foreign(struct td_gateway *g, struct td_request *r, const struct gw_principal *who,
			      const char *id)
{
	char text[300];
	gw_count(g, GW_C_AUTH_DENIED);
	snprintf(text, sizeof(text),
		 "Not authorized to open this channel: the key is that of %s %.100s, not of instance %.100s",
		 who->user ? "user" : "instance", gw_keys_name(who), id);
	refuse_channel(g, r, who, 403, "AccessDeniedException", text, "path");
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

/* In a shared store, so that any node takes it: then the answer goes. */
static void on_token_shared(void *ctx, int err)
{
	struct gw_call *c = ctx;
	struct td_request *r = c->r;
	if (r && err == 0) {
		td_request_set_user(r, NULL);
		answer_token(c->g, r, c->op, c->token);
	} else if (r) {
		struct gw_refusal why = {.status = 503, .type = "ServiceUnavailableException"};
		snprintf(why.text, sizeof(why.text), "The store of session records does not answer");
		gw_refusal_reply(c->g, r, &why, true);
	}
	c->r = NULL;
	gw_call_free(c);
}

static struct gw_call *wait_for_store(struct td_gateway *g, struct td_request *r, const char *root,
				      const struct gw_principal *who)
{
	struct gw_call *c = gw_call_new(g, r, root, who, NULL);
	if (!c)
		td_request_reply(r, 503, "application/xml", NULL, 0, "", 0);
	else
		c->who = NULL;
	return c;
}

/* The store may be away: then it is good here. */
static void on_token_here(void *ctx, int err)
{
	on_token_shared(ctx, 0);
}

static void hand_out(struct td_gateway *g, struct td_request *r, const struct gw_principal *who,
		     const struct gw_tokens *t, enum gw_role role, const char *id, const char *root, const char *token)
{
	struct gw_call *c;
	if (!g->shared || !td_store_is_up(g->store)) {
		answer_token(g, r, root, token);
	} else if ((c = wait_for_store(g, r, root, who)) != NULL) {
		c->token = tnl_strdup(token);
		gw_token_share(g, t, role, id, on_token_here, c);
	}
}

static void create_control(struct td_gateway *g, struct td_request *r, struct gw_instance *i,
			   const struct gw_principal *who)
{
	char token[GW_TOKEN_STR + 1];
	gw_token_new(g, &i->tokens, who->mark, NULL, token);
	hand_out(g, r, who, &i->tokens, GW_CONTROL, i->id, "CreateControlChannelOutput", token);
	tnl_wipe(token, sizeof(token));
}

/* What an agent says of the link that it wants: 0, or it is no such thing. */
struct data_wish {
	char client_id[TD_STORE_CLIENT_ID]; /* a stock agent's is empty */
	unsigned link;
};

static int read_wish(struct td_request *r, struct data_wish *out)
{
	size_t n;
	const uint8_t *body = td_request_body(r, &n);
	struct tnl_json *j = tnl_json_parse(body, n);
	const char *client_id = tnl_json_get_str(j, "ClientId");
	const struct tnl_json *number = tnl_json_get(j, "Link");
	int64_t link = 0;
	bool bad_link = number && (!tnl_json_int(number, &link) || link < 1 || link >= GW_LINKS);
	int rc = 0;
	if (!tnl_json_is_obj(j) || bad_link || (client_id && strlen(client_id) >= TD_STORE_CLIENT_ID))
		rc = TNL_ESYNTAX;
	else
		snprintf(out->client_id, sizeof(out->client_id), "%s", client_id ? client_id : "");
	out->link = (unsigned)link;
	tnl_json_free(j);
	return rc;
}

static void refuse_rate(struct td_gateway *g, struct td_request *r, const struct gw_principal *who)
{
	refuse_channel(g, r, who, 429, "ThrottlingException", "Rate exceeded: channels are asked for too often",
		       "rate");
}

static void refuse_terminated(struct td_gateway *g, struct td_request *r, const struct gw_principal *who)
{
	refuse_channel(g, r, who, 400, "ValidationException", "Session is already terminated", "session");
}

/* The session is not here: any node may grant the token. */
static void on_data_found(void *ctx, int err, const struct td_store_found *f)
{
	struct gw_call *c = ctx;
	const struct gw_principal *p = gw_keys_by_mark(c->g, c->mark);
	struct data_wish wish;
	bool known = err == 0 && f->where != TD_STORE_NONE && f->where != TD_STORE_ENDED;
	if (err == 0 && p && (!known || strcmp(f->r->target, gw_keys_name(p)) != 0))
		gw_rate_looked(c->g, p);
	if (c->r && err == 0 &&
	    (!known || !p || !p->instance || strcmp(f->r->target, p->instance->id) != 0 ||
	     read_wish(c->r, &wish) != 0)) {
		td_request_set_user(c->r, NULL);
		refuse_terminated(c->g, c->r, p);
		c->r = NULL;
	}
	if (c->r && err == 0 && !gw_rate_afar(c->g, GW_AGENT, f->r->id, wish.link != 0)) {
		td_request_set_user(c->r, NULL);
		gw_rate_looked(c->g, p);
		refuse_rate(c->g, c->r, p);
		c->r = NULL;
	}
	if (!c->r)
		gw_call_free(c);
	else if (err != 0)
		on_token_shared(c, err);
	else
		gw_grant_elsewhere(c, GW_AGENT, f->r->id, wish.client_id, wish.link, on_token_shared);
}

/* Sessions that are over, unknown or another's: the same words, which end a stock agent's attempts. */
static void create_data(struct td_gateway *g, struct td_request *r, const struct gw_principal *who, const char *id)
{
	struct data_wish wish;
	struct gw_session *s = gw_session_get(g, id);
	struct gw_call *c = NULL;
	bool own = s && strcmp(s->target, who->instance->id) == 0;
	if (!own && !(g->shared && !s ? gw_rate_may_look(g, who) : gw_rate_look(g, who))) {
		refuse_rate(g, r, who);
		return;
	}
	if (!s && g->shared) {
		if ((c = wait_for_store(g, r, "CreateDataChannelOutput", who)) != NULL)
			td_store_find(g->store, id, TD_STORE_LOOK, on_data_found, c);
		return;
	}
	if (!own || s->state == GW_S_ENDED) {
		refuse_terminated(g, r, who);
		return;
	}
	if (read_wish(r, &wish) != 0) {
		refuse_channel(g, r, who, 400, "ValidationException", "The body is not a channel request", "body");
	} else if (!gw_rate_session(&s->ends[GW_AGENT], wish.link != 0)) {
		refuse_rate(g, r, who);
	} else {
		char token[GW_TOKEN_STR + 1];
		struct gw_end *e = &s->ends[GW_AGENT];
		struct gw_tokens *t = wish.link ? &e->link_tokens : &e->tokens;
		gw_token_new_link(g, t, who->mark, wish.client_id, wish.link, token);
		if (!wish.link && !g->shared)
			gw_record_save(s, NULL, NULL);
		hand_out(g, r, who, t, GW_AGENT, s->id, "CreateDataChannelOutput", token);
		tnl_wipe(token, sizeof(token));
	}
}

void gw_channel_create(struct td_gateway *g, struct td_request *r, enum gw_role kind, const char *id)
{
	const struct gw_principal *who;
	struct gw_refusal why;
	if (gw_auth_check(g, r, "ssmmessages", false, &who, &why) != 0) {
		why.status = 403;
		gw_refusal_reply(g, r, &why, true);
		return;
	}
	struct gw_instance *i = who->instance ? gw_instance_get(g, who->instance->id) : NULL;
	if (!i || (kind == GW_CONTROL && strcmp(i->id, id) != 0)) {
		refuse_as_foreign(g, r, who, id);
		return;
	}
	if (kind == GW_CONTROL && !gw_rate_principal(g, who))
		refuse_rate(g, r, who);
	else if (kind == GW_CONTROL)
		create_control(g, r, i, who);
	else
		create_data(g, r, who, id);
}

/* --- a data channel whose token was verified ------------------------------------- */
static void on_data_message(struct gw_link *l, uint8_t *p, size_t n)
{
	gw_relay_message(l, p, n);
}

static void on_data_writable(struct gw_link *l)
{
	gw_relay_writable(l);
}

static void on_data_gone(struct gw_link *l)
{
	struct gw_end *e = l->end;
	if (!e) /* it could not be attached */
		return;
	if (l->index) {
		gw_relay_detach_lane(e, l->index);
		return;
	}
	gw_relay_detach(e);
	gw_session_rearm(e->s);
	if (e->s->g->shared && e->s->state != GW_S_ENDED) /* others list it */
		gw_record_save(e->s, NULL, NULL);
}

static const struct gw_link_cb data_link = {.message = on_data_message,
					    .writable = on_data_writable,
					    .gone = on_data_gone};

/* Whose end of the session this link can be: 0, or *field. */
static int check_data_claim(const struct gw_link *l, const struct gw_session *s, const struct tnl_open *o,
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

/* The keys that its end's tokens can have been granted to. */
static void marks_of_end(const struct gw_end *e, struct gw_marks *out)
{
	const struct td_gateway *g = e->s->g;
	const struct td_user_config *u = e->role == GW_CLIENT ? gw_keys_user(g, e->s->owner) : NULL;
	const struct gw_instance *i = e->s->inst;
	out->n = 0;
	if (u)
		gw_keys_marks(g, u->keys, out);
	else if (e->role == GW_AGENT && i && i->cfg)
		gw_keys_marks(g, i->cfg->keys, out);
}

/* The end of the session whose token this is, which is used up by it; NULL: refused. */
static struct gw_end *claim_end(struct gw_link *l, const struct tnl_open *o)
{
	struct gw_session *s = gw_session_get(l->g, l->id);
	const char *field;
	l->role = l->instance ? GW_AGENT : GW_CLIENT;
	if (check_data_claim(l, s, o, &field) != 0) {
		gw_link_refuse_token(l, field);
		return NULL;
	}
	struct gw_end *e = &s->ends[l->role];
	unsigned tokens = e->tokens.n;
	struct gw_marks owner;
	uint8_t mark[GW_MARK];
	const char *client_id = o->client_id ? o->client_id : "";
	struct gw_tokens *all = &e->tokens;
	marks_of_end(e, &owner);
	int rc = gw_token_use(l->g, all, &owner, o->token, client_id, mark, &field);
	if (rc == TNL_EAUTH && e->tokens.n == tokens) { /* it is none of those */
		all = &e->link_tokens;
		rc = gw_token_use(l->g, all, &owner, o->token, client_id, mark, &field);
	}
	if (rc == 0 && gw_link_add_key(l, mark, &field)) {
		l->index = all->used;
		return e;
	}
	if (e->tokens.n != tokens) /* spent by this attempt */
		gw_record_save(s, NULL, NULL);
	gw_link_refuse_token(l, field);
	return NULL;
}

static void replace_data_link(struct gw_end *e)
{
	struct gw_link *old = e->link;
	if (!old)
		return;
	gw_count(e->s->g, GW_C_LINKS_REPLACED);
	if (e->role == GW_AGENT) /* lost before we noticed */
		e->s->agent_lost = e->s->tell_lost = true;
	gw_worker_hold(e->s->worker);
	e->link = NULL;
	old->how = "another link took its place";
	gw_link_drop(old);
}

static void open_lane(struct gw_link *l, struct gw_end *e)
{
	td_debug("gateway", e->s->id, "further link attached index=%u peer=%s", l->index, td_wslink_peer(l->w));
	gw_link_open(l, &data_link);
	gw_session_place(e->s);
	gw_link_move(l, e->s->worker);
	if (gw_relay_attach_lane(e, l) != 0)
		gw_link_close(l, 1011, "out of memory");
	else
		gw_audit_link(l, "link-open");
}

static void open_data(struct gw_link *l, const struct tnl_open *o)
{
	struct gw_end *e = claim_end(l, o);
	if (!e)
		return;
	if (l->index) {
		open_lane(l, e);
		return;
	}
	struct gw_session *s = e->s;
	if (l->role == GW_CLIENT)
		gw_session_bind_client(s, o->client_id ? o->client_id : "");
	replace_data_link(e);
	if (s->state == GW_S_ENDED)
		gw_relay_drop(e); /* how it ended is all that it hears */
	td_debug("gateway", s->id, "%s attached peer=%s", l->role == GW_CLIENT ? "client" : "agent",
		 td_wslink_peer(l->w));
	gw_link_open(l, &data_link);
	gw_session_place(s);
	gw_link_move(l, s->worker);
	gw_relay_attach(e, l);
	gw_audit_link(l, "link-open");
	if (s->state == GW_S_ENDED)
		gw_session_send_farewell(s);
	gw_session_update_state(s);
	gw_record_save(s, NULL, NULL);
	gw_session_rearm(s);
}

/* --- upgrade, and the frame with the token ------------------------------------------- */
static bool read_token_frame(struct gw_link *l, const uint8_t *p, size_t n, struct tnl_open *o)
{
	const char *fault = "token frame";
	*o = (struct tnl_open){0};
	int rc = tnl_open_parse(p, n, o, &fault);
	if (rc == 0 && o->token)
		return true;
	gw_link_complain(l, "malformed token frame", rc != 0 && fault ? fault : "TokenValue");
	gw_link_close(l, 1008, "malformed token frame");
	tnl_open_fini(o);
	return false;
}

static void take_token_frame(struct gw_link *l, uint8_t *p, size_t n)
{
	struct tnl_open o;
	if (!read_token_frame(l, p, n, &o))
		return;
	if (l->role == GW_CONTROL)
		gw_control_open(l, &o);
	else
		open_data(l, &o);
	tnl_open_fini(&o);
}

static void on_token_frame(struct gw_link *l, uint8_t *p, size_t n)
{
	struct tnl_open o;
	if (!l->g->shared) {
		take_token_frame(l, p, n);
	} else if (read_token_frame(l, p, n, &o)) {
		gw_settle(l, p, n, o.token, take_token_frame);
		tnl_open_fini(&o);
	}
}

static const struct gw_link_cb token_link = {.message = on_token_frame};

void gw_channel_upgrade(struct td_gateway *g, struct td_request *r, enum gw_role kind, const char *id)
{
	const struct gw_principal *who;
	struct gw_refusal why;
	if (gw_auth_check(g, r, "ssmmessages", kind != GW_CONTROL, &who, &why) != 0) {
		why.status = 403;
		gw_refusal_reply(g, r, &why, true);
		return;
	}
	if (kind == GW_CONTROL && (!who->instance || strcmp(who->instance->id, id) != 0)) {
		refuse_as_foreign(g, r, who, id);
		return;
	}
	if (kind != GW_CONTROL && td_fd_short()) {
		gw_count(g, GW_C_LIMIT_DESCRIPTORS);
		refuse_channel(g, r, who, 503, "ServiceUnavailableException", "The gateway has few descriptors left",
			       "descriptors");
		return;
	}
	struct gw_link *l;
	int rc = gw_link_new(g, r, kind, id, who, &l);
	if (rc == 0)
		gw_link_upgrade(l, r, &token_link);
	else if (rc == TNL_ELIMIT)
		refuse_channel(g, r, who, 429, "ThrottlingException", "Rate exceeded", "connections of this peer");
	else
		td_request_reply(r, 503, "text/plain", NULL, 0, "", 0);
}
