/* Calls about sessions that are not here, where several nodes share a store: any node answers them.  A token is granted
 * into the store, from where the node that the link comes to takes it; what concerns the session itself is said to the
 * node that owns it, or done here when that node is gone. */
#include "tunneld/gateway/rate_internal.h"
#include "tunneld/gateway/shared_internal.h"
#include "lib/alloc.h"
#include <string.h>

static const char *id_of(const struct gw_call *c)
{
	return tnl_json_get_str(c->in, "SessionId");
}

static void on_granted(void *ctx, int err)
{
	struct gw_call *c = ctx;
	if (!c->r)
		gw_call_free(c);
	else if (err != 0 || !c->token)
		gw_call_unavailable(c);
	else
		gw_answer_grant(c, id_of(c));
}

/* --- the audit log has what is known of it ------------------------------------------------ */
static void audit(const struct gw_call *c, const char *event, const struct td_store_session *r)
{
	const struct gw_session s = {
	    .g = c->g,
	    .id = (char *)(uintptr_t)r->id,
	    .owner = (char *)(uintptr_t)r->owner,
	    .target = (char *)(uintptr_t)r->target,
	    .document = (char *)(uintptr_t)r->document,
	    .parameters = (char *)(uintptr_t)r->parameters,
	    .reason = (char *)(uintptr_t)r->reason,
	};
	gw_audit_session(c->g, event, &s, c);
}

/* --- the calls ------------------------------------------------------------------------------ */
/* The store was asked in vain. */
static void refuse_haste(struct gw_call *c)
{
	const struct gw_principal *p = gw_keys_by_mark(c->g, c->mark);
	if (p)
		gw_rate_looked(c->g, p);
	gw_call_throttle(c);
}

static void resume(struct gw_call *c, const struct td_store_found *f)
{
	struct gw_words w;
	if (f->where == TD_STORE_ENDED) {
		gw_answer_id(c, f->r->id);
		return;
	}
	if (!gw_rate_afar(c->g, GW_CLIENT, f->r->id, false)) {
		refuse_haste(c);
		return;
	}
	gw_count(c->g, GW_C_SESSIONS_RESUMED);
	audit(c, "session-resume", f->r);
	if (f->where == TD_STORE_OTHER) {
		gw_words_begin(c->g, &w, "touch");
		tnl_jw_kv(&w.w, "session", f->r->id);
		gw_words_say(c->g, f->node, &w);
	}
	gw_grant_elsewhere(c, GW_CLIENT, f->r->id, f->r->client_id[0] ? f->r->client_id : NULL, 0, on_granted);
}

static void open_link(struct gw_call *c, const struct td_store_found *f)
{
	int64_t link;
	if (!gw_call_int(c, "Link", 1, GW_LINKS - 1, 1, &link))
		return;
	if (f->where != TD_STORE_OTHER || !f->r->client_id[0] || strcmp(f->r->status, "Connecting") == 0)
		gw_call_fail(c, 400, "DoesNotExistException", "Session %.150s is not connected", f->r->id);
	else if (!gw_rate_afar(c->g, GW_CLIENT, f->r->id, true))
		refuse_haste(c);
	else
		gw_grant_elsewhere(c, GW_CLIENT, f->r->id, f->r->client_id, (unsigned)link, on_granted);
}

static void on_terminated(void *ctx, int err, bool ok)
{
	struct gw_call *c = ctx;
	if (!c->r)
		gw_call_free(c);
	else if (err != 0 || !ok)
		gw_call_unavailable(c);
	else
		gw_answer_id(c, id_of(c));
}

/* Its node was gone, so it is ours now. */
static void on_taken(void *ctx, int err, const struct td_store_found *f)
{
	struct gw_call *c = ctx;
	struct gw_session *s = NULL;
	if (err == 0 && f->where == TD_STORE_OURS)
		s = gw_session_adopt(c->g, f->r);
	if (s)
		gw_session_end(s, "Terminated", "");
	on_terminated(c, err, s || (err == 0 && f->where == TD_STORE_ENDED));
}

static void terminate(struct gw_call *c, const struct td_store_found *f)
{
	struct gw_words w;
	if (f->where == TD_STORE_ENDED) {
		gw_answer_id(c, f->r->id);
		return;
	}
	if (!gw_rate_afar(c->g, GW_CLIENT, f->r->id, false)) {
		refuse_haste(c);
		return;
	}
	audit(c, "session-terminate", f->r);
	if (f->where != TD_STORE_OTHER) {
		td_store_find(c->g->store, f->r->id, TD_STORE_TAKE, on_taken, c);
		return;
	}
	gw_words_begin(c->g, &w, "terminate");
	tnl_jw_kv(&w.w, "session", f->r->id);
	gw_words_ask(c->g, f->node, &w, on_terminated, c);
}

static void on_found(void *ctx, int err, const struct td_store_found *f)
{
	struct gw_call *c = ctx;
	const struct gw_principal *p = gw_keys_by_mark(c->g, c->mark);
	bool own = err == 0 && p && p->user && f->where != TD_STORE_NONE && strcmp(f->r->owner, p->user->name) == 0;
	if (err == 0 && p && (!own || f->where == TD_STORE_ENDED)) /* else the session counts it */
		gw_rate_looked(c->g, p);
	if (!c->r) {
		gw_call_free(c);
	} else if (err != 0) {
		gw_call_unavailable(c);
	} else if (!p || !p->user || f->where == TD_STORE_NONE || strcmp(f->r->owner, p->user->name) != 0) {
		if (f->where != TD_STORE_NONE)
			gw_count(c->g, GW_C_AUTH_DENIED);
		gw_call_fail(c, 400, "DoesNotExistException", "Session %.150s does not exist", id_of(c));
	} else if (strcmp(c->op, "ResumeSession") == 0) {
		resume(c, f);
	} else if (strcmp(c->op, "OpenSessionLink") == 0) {
		open_link(c, f);
	} else {
		terminate(c, f);
	}
}

void gw_elsewhere(struct gw_call *c, const char *id)
{
	if (!gw_rate_may_look(c->g, c->who)) {
		gw_call_throttle(c);
		return;
	}
	c->who = NULL;
	td_store_find(c->g->store, id, TD_STORE_LOOK, on_found, c);
}
