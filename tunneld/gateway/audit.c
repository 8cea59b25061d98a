/* What the gateway writes into its audit log: each call that is refused, each session that starts, is resumed and ends,
 * each link and control channel that opens and ends, with who, what, when and how it ended.
 *
 * Who has no key could write the log as fast as he can ask, and so could who has one: of the refusals of all who have
 * none, and of those of each key, a second has so many, the others are counted ("event":"refused-more"). */
#include "tunneld/gateway/internal.h"
#include "lib/alloc.h"
#include "lib/num.h"
#include <stdio.h>
#include <string.h>

#define REFUSALS_A_SECOND 20u

static void put_principal(struct td_audit_line *l, const struct gw_principal *p, const char *key)
{
	td_audit_str(l, "user", p && p->user ? p->user->name : NULL);
	td_audit_str(l, "instance", p && p->instance ? p->instance->id : NULL);
	td_audit_str(l, "key", p ? p->key_id : key);
}

/* --- refusals ------------------------------------------------------------------------------- */

/* p NULL: of who has no key. */
static void tell_more(struct td_gateway *g, struct gw_lines *of, const struct gw_principal *p)
{
	struct td_audit_line l;
	if (of->more && td_audit_begin(g->audit, &l, "refused-more")) {
		put_principal(&l, p, NULL);
		td_audit_num(&l, "calls", of->more);
		td_audit_end(&l);
	}
	of->more = 0;
}

void gw_audit_more(struct td_gateway *g)
{
	size_t it = 0;
	tell_more(g, &g->strangers, NULL);
	for (struct gw_principal *p; g->keys && (p = tnl_map_next(g->keys, &it, NULL, NULL)) != NULL;)
		tell_more(g, p->refused, p);
}

static bool admit_line(struct td_gateway *g, struct gw_lines *of, const struct gw_principal *p)
{
	uint64_t second = g->l->now / TD_SEC;
	if (second != of->second) {
		tell_more(g, of, p);
		of->second = second;
		of->n = 0;
	}
	if (of->n < REFUSALS_A_SECOND) {
		of->n++;
		return true;
	}
	of->more++;
	return false;
}

void gw_audit_refused(struct td_gateway *g, const struct gw_denial *d)
{
	struct td_audit_line l;
	const struct gw_principal *p = d->proven ? d->who : NULL; /* else it may be anybody */
	if (!g->audit || !admit_line(g, p ? p->refused : &g->strangers, p) || !td_audit_begin(g->audit, &l, "refused"))
		return;
	td_audit_str(&l, "op", d->op);
	put_principal(&l, d->who, d->key);
	td_audit_str(&l, "peer", d->peer);
	td_audit_str(&l, "target", d->target);
	td_audit_str(&l, "document", d->document);
	td_audit_str(&l, "reason", d->reason);
	td_audit_str(&l, "text", d->text);
	td_audit_end(&l);
}

/* --- sessions ------------------------------------------------------------------------------- */

static void put_session(struct td_audit_line *l, const struct gw_session *s)
{
	struct tnl_json *j = tnl_json_parse(s->parameters, strlen(s->parameters));
	td_audit_str(l, "session", s->id);
	td_audit_str(l, "user", s->owner);
	td_audit_str(l, "target", s->target);
	td_audit_str(l, "document", s->document);
	td_audit_str(l, "host", tnl_json_get_str(j, "host"));
	td_audit_str(l, "port", tnl_json_get_str(j, "portNumber"));
	td_audit_str(l, "command", tnl_json_get_str(j, "command"));
	tnl_json_free(j);
}

/* Will the agent be told that it may listen for the client? */
static bool may_reverse(struct td_gateway *g, const struct gw_session *s)
{
	const struct td_user_config *u = gw_keys_user(g, s->owner);
	const struct gw_doc *d = gw_doc_find(s->document);
	return u && u->reverse && d && gw_doc_is_port(d);
}

void gw_audit_session(struct td_gateway *g, const char *event, const struct gw_session *s, const struct gw_call *c)
{
	struct td_audit_line l;
	const struct gw_principal *p = g->audit ? gw_keys_by_mark(g, c->mark) : NULL;
	if (!td_audit_begin(g->audit, &l, event))
		return;
	put_session(&l, s);
	td_audit_str(&l, "reverse", may_reverse(g, s) ? "allowed" : NULL);
	td_audit_str(&l, "reason", s->reason);
	td_audit_str(&l, "key", p ? p->key_id : NULL);
	td_audit_str(&l, "peer", c->r ? td_request_peer(c->r) : NULL);
	td_audit_end(&l);
}

void gw_audit_session_end(const struct gw_session *s)
{
	struct td_audit_line l;
	if (!td_audit_begin(s->g->audit, &l, "session-end"))
		return;
	put_session(&l, s);
	td_audit_str(&l, "status", s->status);
	td_audit_str(&l, "text", s->output);
	td_audit_num(&l, "seconds", (s->ended_ms - TNL_MIN(s->started_ms, s->ended_ms)) / 1000);
	td_audit_num(&l, "bytes_to_target", s->ends[GW_AGENT].bytes);
	td_audit_num(&l, "bytes_to_client", s->ends[GW_CLIENT].bytes);
	if (s->ends[GW_CLIENT].direct.received || s->ends[GW_AGENT].direct.received) { /* as the ends say */
		td_audit_num(&l, "direct_to_target", s->ends[GW_AGENT].direct.received);
		td_audit_num(&l, "direct_to_client", s->ends[GW_CLIENT].direct.received);
	}
	td_audit_end(&l);
}

/* --- links ---------------------------------------------------------------------------------- */

void gw_audit_link(struct gw_link *l, const char *event)
{
	struct td_audit_line line;
	const struct gw_session *s = l->end ? l->end->s : NULL;
	const struct gw_principal *p = NULL;
	struct td_gateway *g = l->g;
	if (!g->audit)
		return;
	if (l->keys.n) /* gone with a reload: the key id is known still */
		p = gw_keys_by_mark(g, l->keys.v[l->keys.n - 1]);
	if (!td_audit_begin(g->audit, &line, event))
		return;
	td_audit_str(&line, "channel", l->inst ? "control" : "data");
	td_audit_str(&line, "session", s ? s->id : NULL);
	if (p) {
		put_principal(&line, p, NULL);
	} else {
		td_audit_str(&line, "user", s && l->role == GW_CLIENT ? s->owner : l->user);
		td_audit_str(&line, "instance", l->instance);
		td_audit_str(&line, "key", l->key_id);
	}
	td_audit_str(&line, "peer", td_wslink_peer(l->w));
	td_audit_str(&line, "text", l->how);
	if (l->how)
		td_audit_num(&line, "seconds", (g->l->now - l->opened) / TD_SEC);
	if (l->how && l->end)
		td_audit_num(&line, "bytes_sent", l->bytes);
	td_audit_end(&line);
}
