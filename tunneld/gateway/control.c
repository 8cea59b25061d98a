/* The control channel of an instance: sessions are offered on it, the agent says there how one ended. */
#include "tunneld/gateway/rate_internal.h"
#include "tunneld/gateway/shared_internal.h"
#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/enc.h"
#include "lib/wire.h"
#include <stdio.h>
#include <string.h>

#define TWINS_WITHIN (60 * TD_SEC)
#define START_MAX (128u * 1024)

/* What tells the agent of the session; false: there is no memory or no such document. */
static bool write_start(struct gw_session *s, struct tnl_buf *msg)
{
	const struct td_gateway *g = s->g;
	const struct gw_doc *d = gw_doc_find(s->document);
	if (!d)
		return false;
	bool encrypt = gw_doc_is_port(d) ? g->cfg->gw.encrypt_ports : g->cfg->gw.encrypt_shells;
	const struct gw_doc_prefs prefs = {.kms_key_id = encrypt ? g->kms_arn : ""};
	const struct td_user_config *u = gw_keys_user(g, s->owner);
	struct tnl_start_grants grants = {0};
	if (u)
		grants = gw_rights_grants(u, s->document);
	grants.dial = grants.dial && s->dial; /* what its record does not say would be forgotten with us */
	grants.reverse = grants.reverse && s->reverse;
	char owner[256];
	struct tnl_buf content;
	tnl_buf_init(&content, 32 * 1024);
	snprintf(owner, sizeof(owner), "arn:aws:iam::000000000000:user/%s", s->owner);
	int rc = gw_doc_content(d, &prefs, &content);
	const char *text = rc == 0 ? tnl_buf_str(&content) : NULL;
	bool ok = text && tnl_start_write(msg, s->id, s->document, text, s->parameters, owner, "", &grants) == 0;
	tnl_buf_fini(&content);
	return ok;
}

void gw_control_start(struct gw_session *s)
{
	struct gw_instance *i = s->inst;
	struct tnl_buf msg;
	if (!i || !i->link || s->shell_sent == i->generation)
		return;
	tnl_buf_init(&msg, START_MAX);
	if (write_start(s, &msg)) {
		s->shell_sent = i->generation;
		gw_instance_send(i, TNL_MT_INTERACTIVE_SHELL, tnl_buf_data(&msg), tnl_buf_len(&msg));
	}
	tnl_buf_fini(&msg);
}

void gw_control_start_at(struct gw_session *s, const char *node, gw_words_fn *fn, void *ctx)
{
	struct gw_words w;
	struct tnl_buf msg;
	tnl_buf_init(&msg, START_MAX);
	bool ok = write_start(s, &msg);
	gw_words_begin(s->g, &w, "start");
	tnl_jw_kv(&w.w, "instance", s->target);
	tnl_jw_key(&w.w, "text");
	tnl_jw_strn(&w.w, ok ? (const char *)tnl_buf_data(&msg) : "", tnl_buf_len(&msg));
	tnl_buf_fini(&msg);
	gw_words_ask(s->g, node, &w, fn, ctx);
}

void gw_control_arrived(struct gw_instance *i, const char *node)
{
	gw_instance_at(i, node);
	td_soon_do(&i->g->arrival.soon);
	tnl_list_foreach_safe(it, &i->sessions) {
		struct gw_session *s = tnl_container_of(it, struct gw_session, by_instance);
		if (!s->ends[GW_AGENT].seen)
			gw_control_start_at(s, node, NULL, NULL);
		gw_session_rearm(s);
	}
}

bool gw_control_completed(struct td_gateway *g, const char *id, const char *instance, bool success, const char *output)
{
	struct gw_session *s = gw_session_get(g, id);
	if (!s)
		return false;
	if (s->state != GW_S_ENDED && strcmp(s->target, instance) == 0) {
		s->complete = true;
		gw_session_end(s, success ? "Terminated" : "Failed", output);
	}
	return true;
}

static void acknowledge(struct gw_instance *i, const char *id, const char *task)
{
	struct tnl_buf b;
	tnl_buf_init(&b, 4096);
	if (tnl_task_ack_write(&b, id, task, "agent_task_complete") == 0)
		gw_instance_send(i, TNL_MT_TASK_ACK, tnl_buf_data(&b), tnl_buf_len(&b));
	tnl_buf_fini(&b);
}

/* Of a session that is not here: its node is told, and the agent when that, or the store, knows.  Until then the agent
 * says it again. */
struct completion {
	struct td_gateway *g;
	char message[TNL_UUID_STR];
	char *instance, *session, *output;
	bool success;
};

static void end_completion(struct completion *k, bool known)
{
	struct gw_instance *i = known ? gw_instance_get(k->g, k->instance) : NULL;
	if (i && i->link)
		acknowledge(i, k->message, k->session);
	tnl_free(k->instance);
	tnl_free(k->session);
	tnl_free(k->output);
	tnl_free(k);
}

static void on_completion_heard(void *ctx, int err, bool ok)
{
	end_completion(ctx, err == 0 && ok);
}

static void on_completion_found(void *ctx, int err, const struct td_store_found *f)
{
	struct completion *k = ctx;
	struct gw_words w;
	struct gw_instance *i = gw_instance_get(k->g, k->instance);
	bool own = err == 0 && f->where != TD_STORE_NONE && f->where != TD_STORE_ENDED &&
		   strcmp(f->r->target, k->instance) == 0;
	if (err == 0 && !own && i && i->cfg)
		gw_rate_looked(k->g, &(struct gw_principal){.instance = i->cfg});
	if (err == 0 && f->where == TD_STORE_OURS && gw_session_adopt(k->g, f->r))
		gw_control_completed(k->g, k->session, k->instance, k->success, k->output);
	if (err != 0 || f->where != TD_STORE_OTHER) {
		end_completion(k, err == 0);
		return;
	}
	gw_words_begin(k->g, &w, "completed");
	tnl_jw_kv(&w.w, "session", k->session);
	tnl_jw_kv(&w.w, "instance", k->instance);
	tnl_jw_key(&w.w, "success");
	tnl_jw_bool(&w.w, k->success);
	tnl_jw_kv(&w.w, "output", k->output);
	gw_words_ask(k->g, f->node, &w, on_completion_heard, k);
}

static void complete_elsewhere(struct gw_instance *i, const char *id, const struct tnl_task *t, bool success)
{
	if (!i->cfg || !gw_rate_may_look(i->g, &(struct gw_principal){.instance = i->cfg}))
		return;
	struct completion *k = tnl_calloc(1, sizeof(*k));
	if (!k)
		return;
	k->g = i->g;
	snprintf(k->message, sizeof(k->message), "%s", id);
	k->instance = tnl_strdup(i->id);
	k->session = tnl_strdup(t->task_id);
	k->output = tnl_strdup(t->output ? t->output : "");
	k->success = success;
	if (k->instance && k->session && k->output)
		td_store_find(i->g->store, k->session, TD_STORE_TAKE, on_completion_found, k);
	else
		end_completion(k, false);
}

/* Acted upon once, acknowledged each time: the agent repeats it until it hears. */
static void take_task_complete(struct gw_link *l, const struct tnl_msg *m)
{
	struct gw_instance *i = l->inst;
	struct tnl_task t;
	if (tnl_task_parse(m->payload, m->plen, &t) != 0) {
		gw_link_complain(l, "malformed agent_task_complete", "payload");
		return;
	}
	char id[TNL_UUID_STR];
	tnl_uuid_str(m->id, id);
	bool ok = t.final_status && strcmp(t.final_status, "Success") == 0;
	if (i->g->shared && t.task_id && !gw_session_get(i->g, t.task_id)) {
		complete_elsewhere(i, id, &t, ok);
	} else {
		acknowledge(i, id, t.task_id);
		if (t.task_id)
			gw_control_completed(i->g, t.task_id, i->id, ok, t.output);
	}
	tnl_task_fini(&t);
}

static void on_control_message(struct gw_link *l, uint8_t *p, size_t n)
{
	struct tnl_msg m;
	struct tnl_msg_fault fault = {NULL};
	int rc = tnl_msg_decode(p, n, &m, &fault);
	if (rc != 0 && rc != TNL_ETYPE) {
		gw_link_complain(l, "malformed control message", fault.field ? fault.field : "length");
		return;
	}
	l->inst->ping_ms = l->g->l->wall_ms;
	if (rc == 0 && m.type == TNL_MT_TASK_COMPLETE)
		take_task_complete(l, &m);
	else
		gw_count(l->g, GW_C_FRAMES_IGNORED); /* telemetry, job replies, what is newer than we are */
}

static void on_control_writable(struct gw_link *l)
{
	gw_instance_flush(l->inst);
}

static void on_control_gone(struct gw_link *l)
{
	gw_instance_detach(l->inst);
}

static const struct gw_link_cb control_link = {.message = on_control_message,
					       .writable = on_control_writable,
					       .gone = on_control_gone};

/* --- it opens, the agent says that it has started ------------------------------ */
static void replace_control_link(struct gw_instance *i, const struct gw_link *l)
{
	struct gw_link *old = i->link;
	if (!old)
		return;
	i->replaced = i->g->l->now - i->up_since < TWINS_WITHIN ? i->replaced + 1 : 0;
	if (i->replaced % 100 == 3) /* one agent that comes back does not do that */
		td_warn("gateway", NULL,
			"instance connects again and again: has another agent the same instance_id? "
			"instance=%s peer=%s replaces=%s",
			i->id, td_wslink_peer(l->w), td_wslink_peer(old->w));
	i->link = NULL;
	gw_count(i->g, GW_C_LINKS_REPLACED);
	gw_link_replace(old, "another agent connected with this instance_id");
}

void gw_control_open(struct gw_link *l, const struct tnl_open *o)
{
	struct td_gateway *g = l->g;
	struct gw_instance *i = gw_instance_get(g, l->id);
	const char *field = "instance";
	struct gw_marks owner = {.n = 0};
	uint8_t mark[GW_MARK];
	if (i && i->cfg)
		gw_keys_marks(g, i->cfg->keys, &owner);
	if (!i || gw_token_use(g, &i->tokens, &owner, o->token, "", mark, &field) != 0) {
		gw_link_refuse_token(l, field);
		return;
	}
	if (!gw_link_add_key(l, mark, &field)) {
		gw_link_refuse_token(l, field);
		return;
	}
	replace_control_link(i, l);
	gw_link_open(l, &control_link);
	gw_instance_attach(i, l);
	gw_audit_link(l, "link-open");
	if (o->agent_version && !i->agent_version)
		i->agent_version = tnl_strdup(o->agent_version);
	if (o->platform_type && !i->platform_type)
		i->platform_type = tnl_strdup(o->platform_type);
	td_soon_do(&g->arrival.soon);
	td_info("gateway", NULL, "instance connected instance=%s peer=%s version=%s", i->id, td_wslink_peer(l->w),
		o->agent_version ? o->agent_version : "?");
	tnl_list_foreach_safe(it, &i->sessions) {
		struct gw_session *s = tnl_container_of(it, struct gw_session, by_instance);
		if (!s->ends[GW_AGENT].seen)
			gw_control_start(s);
		gw_session_rearm(s);
	}
}

void gw_control_restarted(struct gw_instance *i)
{
	i->restarted = i->g->l->now;
	tnl_list_foreach_safe(it, &i->sessions)
		gw_session_rearm(tnl_container_of(it, struct gw_session, by_instance));
}
