/* StartSession, ResumeSession, TerminateSession: the calls that give a client's end of a session its token.  The answer
 * of the first two waits until the record is in the store, so that a granted session outlives the process; that of
 * StartSession may wait before that for an instance that is still on its way (arrival.c). */
#include "tunneld/gateway/api_internal.h"
#include "tunneld/gateway/shared_internal.h"
#include "lib/alloc.h"
#include "lib/enc.h"
#include <stdio.h>
#include <string.h>

/* A token for the client's end; false: answered. */
static bool grant_token(struct gw_call *c, struct gw_session *s)
{
	struct gw_end *e = &s->ends[GW_CLIENT];
	char token[GW_TOKEN_STR + 1];
	gw_token_new(c->g, &e->tokens, c->mark, e->client_id_set ? e->client_id : NULL, token);
	c->s = s;
	c->token = tnl_strdup(token);
	tnl_wipe(token, sizeof(token));
	c->who = NULL;
	if (!c->token) {
		gw_call_fail(c, 500, "InternalServerError", "out of memory");
		return false;
	}
	if (c->g->shared)
		gw_token_share(c->g, &e->tokens, GW_CLIENT, s->id, NULL, NULL);
	return true;
}

/* It was here when the call came. */
static void gone_elsewhere(struct gw_call *c)
{
	gw_call_fail(c, 503, "ServiceUnavailableException", "The session has gone to another node; try again");
}

static bool check_still_there(struct gw_call *c)
{
	if (c->s && c->s->state != GW_S_ENDED)
		return true;
	if (!c->s)
		gone_elsewhere(c);
	else
		gw_call_fail(c, 400, "TargetNotConnected", "The session ended before it began");
	return false;
}

/* --- StartSession ------------------------------------------------------------- */
/* Another node has told the agent, or could not. */
static void on_told(void *ctx, int err, bool ok)
{
	struct gw_call *c = ctx;
	if (!check_still_there(c))
		return;
	if (err == 0 && ok && c->r) {
		gw_answer_grant(c, c->s->id);
		return;
	}
	gw_session_end(c->s, "Failed", "The node that the agent is connected to did not answer.");
	if (!c->r)
		gw_call_free(c);
	else if (err == 0 || err == TNL_ENOTFOUND)
		gw_call_fail(c, 400, "TargetNotConnected", "%.100s is not connected.", c->s->target);
	else
		gw_call_unavailable(c);
}

static void on_start_stored(void *ctx, int err)
{
	struct gw_call *c = ctx;
	if (!check_still_there(c))
		return;
	if (!c->r || (err != 0 && c->g->shared)) { /* nobody will ever know its id */
		gw_session_end(c->s, "Terminated", "");
		if (c->r)
			gw_call_unavailable(c);
		else
			gw_call_free(c);
	} else if (c->at && !c->s->inst->link) {
		gw_control_start_at(c->s, c->at, on_told, c);
	} else {
		gw_control_start(c->s);
		gw_answer_grant(c, c->s->id);
	}
}

/* Document and parameters; false: answered. */
static bool read_document(struct gw_call *c, const struct gw_doc **d, struct tnl_buf *params)
{
	bool ok;
	char why[200];
	const char *name = gw_call_str(c, "DocumentName", 256, false, &ok);
	if (!ok)
		return false;
	*d = gw_doc_find(name);
	if (!*d) {
		gw_call_fail(c, 400, "InvalidDocument", "Document with name %.100s does not exist.", name);
		return false;
	}
	if (gw_doc_parameters(*d, tnl_json_get(c->in, "Parameters"), params, why, sizeof(why)) != 0) {
		gw_call_fail(c, 400, "InvalidParameters", "%s", why);
		return false;
	}
	return true;
}

static void deny_start(struct gw_call *c, const char *user, const char *target)
{
	gw_count(c->g, GW_C_AUTH_DENIED);
	gw_call_fail(c, 400, "AccessDeniedException",
		     "User: arn:aws:iam::000000000000:user/%s is not authorized to perform: "
		     "ssm:StartSession on resource: %.100s",
		     user, target);
}

static bool check_rights(struct gw_call *c, const struct td_user_config *u, const char *target, const struct gw_doc *d,
			 const char *parameters)
{
	const char *what = gw_rights_session(u, gw_doc_name(d), parameters);
	if (!what)
		return true;
	gw_count(c->g, GW_C_AUTH_DENIED);
	gw_call_fail(c, 400, "AccessDeniedException",
		     "User: arn:aws:iam::000000000000:user/%s is not authorized to perform: ssm:StartSession on "
		     "resource: %.100s with document %s: its %s is not among those allowed",
		     u->name, target, gw_doc_name(d), what);
	return false;
}

static void start_again(struct gw_call *c);

/* Is there a place for one session more? false: answered. */
static bool admit_session(struct gw_call *c, const struct td_user_config *u, const struct gw_instance *i)
{
	char why[200];
	if (gw_quota_admit(c->g, u->name, i->id, why, sizeof(why)))
		return true;
	gw_call_fail(c, 400, "ThrottlingException", "Rate exceeded: %s", why);
	return false;
}

static void wait_for_target(struct gw_call *c, const char *user, const char *target)
{
	bool first = !c->again;
	if (!gw_arrival_wait(c, user, target, start_again))
		gw_call_fail(c, 400, "TargetNotConnected", "%.100s is not connected.", target);
	else if (first)
		td_info("gateway", NULL, "session waits for its instance, which has not come yet target=%s peer=%s",
			target, td_request_peer(c->r));
}

/* Of all nodes together; node NULL: the instance is at none. */
static void on_placed(struct gw_call *c, const char *node)
{
	const char *target = tnl_json_get_str(c->in, "Target");
	const struct gw_principal *p = gw_keys_by_mark(c->g, c->mark);
	const char *user = p && p->user ? p->user->name : c->user ? c->user : "";
	if (!node) {
		wait_for_target(c, user, target);
		return;
	}
	tnl_free(c->at);
	c->at = tnl_strdup(node);
	if (!c->user)
		c->user = tnl_strdup(user);
	if (c->at && c->user)
		start_again(c);
	else
		gw_call_fail(c, 500, "InternalServerError", "out of memory");
}

/* The instance, reachable now; NULL: the call waits or is answered. An unknown one answers like one that is away. */
static struct gw_instance *find_target(struct gw_call *c, const struct td_user_config *u, const char *target)
{
	struct td_gateway *g = c->g;
	if (!gw_rights_target(u, target)) {
		deny_start(c, u->name, target);
		return NULL;
	}
	if (g->drain) {
		gw_call_fail(c, 503, "ServiceUnavailableException", "The gateway is shutting down");
		return NULL;
	}
	struct gw_instance *i = gw_instance_get(g, target);
	if (i && g->shared) /* where it is, the store says */
		return c->admitted || admit_session(c, u, i) ? i : NULL;
	if (!i || !i->link) {
		wait_for_target(c, u->name, target);
		return NULL;
	}
	return admit_session(c, u, i) ? i : NULL;
}

static void log_start(struct gw_call *c, const struct gw_session *s)
{
	struct tnl_json *j = tnl_json_parse(s->parameters, strlen(s->parameters));
	const char *host = tnl_json_get_str(j, "host"), *port = tnl_json_get_str(j, "portNumber");
	const struct gw_principal *p = gw_keys_by_mark(c->g, c->mark);
	td_info("gateway", s->id,
		"session started owner=%s key=%s target=%s document=%s host=%s port=%s reason=\"%s\" peer=%s", s->owner,
		p ? p->key_id : "-", s->target, s->document, host ? host : "-", port ? port : "-", s->reason,
		td_request_peer(c->r));
	tnl_json_free(j);
}

static void start_session(struct gw_call *c, const struct td_user_config *u)
{
	bool ok;
	const struct gw_doc *d;
	struct tnl_buf params;
	const char *target = gw_call_str(c, "Target", GW_ID_MAX, true, &ok), *reason;
	if (!ok)
		return;
	reason = gw_call_str(c, "Reason", 256, false, &ok);
	if (!ok)
		return;
	tnl_buf_init(&params, 16 * 1024);
	struct gw_instance *i = find_target(c, u, target);
	if (!i || !read_document(c, &d, &params))
		goto out;
	const char *text = tnl_buf_str(&params);
	if (text && !check_rights(c, u, target, d, text))
		goto out;
	if (text && c->g->shared && !c->admitted) {
		gw_arrival_done(c);
		gw_place_ask(c, u, i, on_placed);
		goto out;
	}
	struct gw_session *s = text ? gw_session_new(c->g, u, i, gw_doc_name(d), text, reason) : NULL;
	if (!s) {
		gw_call_fail(c, 500, "InternalServerError", "out of memory");
		goto out;
	}
	c->admitted = false; /* the session is what counts now */
	log_start(c, s);
	gw_audit_session(c->g, "session-start", s, c);
	gw_arrival_done(c);
	if (grant_token(c, s))
		gw_record_save(s, on_start_stored, c);
out:
	tnl_buf_fini(&params);
}

/* The configuration may have changed meanwhile. */
static void start_again(struct gw_call *c)
{
	const struct td_user_config *u = gw_keys_user(c->g, c->user);
	if (u && !gw_keys_by_mark(c->g, c->mark))
		gw_call_fail(c, 400, "UnrecognizedClientException",
			     "The security token included in the request is invalid.");
	else if (u)
		start_session(c, u);
	else
		deny_start(c, c->user, tnl_json_get_str(c->in, "Target"));
}

void gw_op_start_session(struct gw_call *c)
{
	start_session(c, c->who->user);
}

/* --- the others ------------------------------------------------------------------ */
/* The caller's own session; NULL: answered, or it is not here and the call goes on in api_elsewhere.c. Unknown and
 * another's answer alike. */
static struct gw_session *find_own_session(struct gw_call *c)
{
	bool ok;
	const char *id = gw_call_str(c, "SessionId", GW_SESSION_ID_MAX, true, &ok);
	if (!ok)
		return NULL;
	struct gw_session *s = gw_session_get(c->g, id);
	if (s && strcmp(s->owner, c->who->user->name) == 0)
		return s;
	if (!s && c->g->shared) {
		gw_elsewhere(c, id);
		return NULL;
	}
	if (!gw_rate_look(c->g, c->who)) {
		gw_call_throttle(c);
		return NULL;
	}
	if (s)
		gw_count(c->g, GW_C_AUTH_DENIED);
	gw_call_fail(c, 400, "DoesNotExistException", "Session %.150s does not exist", id);
	return NULL;
}

static void on_resume_stored(void *ctx, int err)
{
	struct gw_call *c = ctx;
	if (!c->r)
		gw_call_free(c);
	else if (!c->s)
		gone_elsewhere(c);
	else if (c->s->state == GW_S_ENDED)
		gw_call_fail(c, 400, "DoesNotExistException", "The session has ended");
	else
		gw_answer_grant(c, c->s->id);
}

void gw_op_resume_session(struct gw_call *c)
{
	struct gw_session *s = find_own_session(c);
	if (!s)
		return;
	if (s->state == GW_S_ENDED) { /* no token: that is how a client learns it */
		gw_answer_id(c, s->id);
		return;
	}
	if (!gw_rate_session(&s->ends[GW_CLIENT], false)) {
		gw_call_throttle(c);
		return;
	}
	gw_count(c->g, GW_C_SESSIONS_RESUMED);
	gw_worker_hold(s->worker);
	s->last_stream = c->g->l->now;
	td_debug("gateway", s->id, "resume granted peer=%s", td_request_peer(c->r));
	gw_audit_session(c->g, "session-resume", s, c);
	if (!grant_token(c, s))
		return;
	if (td_store_is_up(c->g->store))
		gw_record_save(s, on_resume_stored, c);
	else
		on_resume_stored(c, 0); /* what runs goes on: the token is good here */
}

/* A token for one more link of the client's end: only between ends of our own, which know of this call. Of those tokens
 * none outlives the process: a client asks again. */
void gw_op_open_session_link(struct gw_call *c)
{
	int64_t link;
	char token[GW_TOKEN_STR + 1];
	struct gw_session *s = find_own_session(c);
	if (!s || !gw_call_int(c, "Link", 1, GW_LINKS - 1, 1, &link))
		return;
	struct gw_end *e = &s->ends[GW_CLIENT];
	if (s->state != GW_S_CONNECTED || !e->client_id_set) {
		gw_call_fail(c, 400, "DoesNotExistException", "Session %.150s is not connected", s->id);
		return;
	}
	if (!gw_rate_session(e, true)) {
		gw_call_throttle(c);
		return;
	}
	gw_token_new_link(c->g, &e->link_tokens, c->mark, e->client_id, (unsigned)link, token);
	c->s = s;
	c->token = tnl_strdup(token);
	tnl_wipe(token, sizeof(token));
	if (!c->token)
		gw_call_fail(c, 500, "InternalServerError", "out of memory");
	else if (c->g->shared && td_store_is_up(c->g->store))
		gw_token_share(c->g, &e->link_tokens, GW_CLIENT, s->id, on_resume_stored, c);
	else
		gw_answer_grant(c, s->id);
}

void gw_op_terminate_session(struct gw_call *c)
{
	struct gw_session *s = find_own_session(c);
	if (!s)
		return;
	if (s->state != GW_S_ENDED)
		gw_audit_session(c->g, "session-terminate", s, c);
	gw_session_end(s, "Terminated", "");
	gw_answer_id(c, s->id);
}
