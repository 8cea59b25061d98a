/* One session of the agent: its data channel, resumed for ever, what the pump reports to what serves it, and its end.
 *
 * The end comes from four sides (the plugin, the client's flag or the pump, the control channel, a drain) and goes one
 * way: begin_end notes it, the timer waits for the client's acks while there is a link to bring them, finish_session
 * leaves an ag_task behind. */
#include "tunneld/agent/internal.h"

#include "lib/alloc.h"
#include "lib/num.h"
#include "lib/stock.h"
#include "tunneld/base/fd.h"
#include "tunneld/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define ACK_WAIT (2 * TD_SEC)
#define ACK_POLL (10 * TD_MS)
#define WARN_EVERY (60 * TD_SEC)
/* A clear no (403, unknown session) for so long without a break means that the gateway has forgotten it. */
#define REFUSED_FOR (300 * TD_SEC)

static const char *const state_names[] = {"waiting", "opening", "up", "ending"};

const char *ag_session_state_name(const struct ag_session *s)
{
	return state_names[s->state];
}

static void set_state(struct ag_session *s, enum ag_session_state st)
{
	if (s->state == st)
		return;
	td_debug(AG_MOD, s->start.session_id, "session old=%s new=%s", state_names[s->state], state_names[st]);
	s->state = st;
}

struct ag_session *ag_session_find(const struct td_agent *a, const char *id)
{
	tnl_list_foreach(it, &a->sessions) {
		struct ag_session *s = tnl_container_of(it, struct ag_session, node);
		if (strcmp(s->start.session_id, id) == 0)
			return s;
	}
	return NULL;
}

/* --- the end -------------------------------------------------------------------------------- */

void ag_session_free(struct ag_session *s)
{
	td_timer_stop(&s->retry);
	td_timer_stop(&s->end_timer);
	ag_channel_cancel(&s->channel);
	ag_links_cancel(s);
	ag_reverse_fini(s);
	if (s->kms)
		td_aws_call_cancel(s->kms);
	if (s->type->plugin->fini)
		s->type->plugin->fini(s);
	td_pump_free(s->pump);
	tnl_list_remove(&s->node);
	s->a->nsessions--;
	tnl_start_fini(&s->start);
	tnl_wipe(&s->ticket, sizeof(s->ticket));
	tnl_free(s->target);
	td_loop_free_later(s->a->loop, s); /* a callback that ended it may still look at it */
}

static void finish_session(struct ag_session *s)
{
	struct td_agent *a = s->a;
	struct tnl_channel_stats st = {0};

	if (s->pump)
		tnl_channel_stats(tnl_session_channel(td_pump_session(s->pump)), &st);
	td_log(strcmp(s->status, AG_SUCCESS) ? TNL_LOG_WARN : TNL_LOG_INFO, AG_MOD, s->start.session_id,
	       "session ended status=%s output=\"%s\" received=%llu sent=%llu resumes=%u seconds=%llu", s->status,
	       s->output, (unsigned long long)st.payload_received, (unsigned long long)st.payload_sent, s->resumes,
	       (unsigned long long)((a->loop->now - s->started_at) / TD_SEC));
	if (strcmp(s->status, AG_SUCCESS) != 0)
		a->n.sessions_failed++;
	ag_audit_end(s, st.payload_received, st.payload_sent);
	ag_tasks_add(&a->tasks, s->start.session_id, s->status, s->output);
	ag_session_free(s);
	td_soon_do(&a->settle);
}

/* Not acknowledged, or not even in the kernel. */
static bool words_on_their_way(const struct ag_session *s)
{
	struct tnl_session *ses = s->pump ? td_pump_session(s->pump) : NULL;
	bool queued = false;

	if (!s->pump || !td_pump_links(s->pump) || tnl_session_state(ses) == TNL_SS_CLOSED)
		return false;
	for (unsigned i = 0; i < TD_PUMP_LINKS; i++) {
		struct td_wslink *w = td_pump_link_at(s->pump, i);
		queued = queued || (w && td_wslink_queued(w) > 0);
	}
	return queued || !tnl_session_drained(ses);
}

/* Wait for the acks of what was sent, while there is a link to bring them. */
static void poll_end(void *arg)
{
	struct ag_session *s = arg;

	if (words_on_their_way(s) && s->a->loop->now < s->end_by) {
		td_timer_in(&s->end_timer, ACK_POLL);
		return;
	}
	finish_session(s);
}

static void begin_end(struct ag_session *s, const char *status, const char *output, uint64_t wait)
{
	if (s->state == AG_S_ENDING)
		return;
	set_state(s, AG_S_ENDING);
	s->status = status;
	snprintf(s->output, sizeof(s->output), "%s", output);
	s->end_by = s->a->loop->now + wait;
	td_timer_stop(&s->retry);
	ag_channel_cancel(&s->channel);
	ag_links_cancel(s);
	ag_reverse_stop(s);
	td_timer_in(&s->end_timer, 0);
}

void ag_session_end(struct ag_session *s, const char *status, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	begin_end(s, status, text, ACK_WAIT);
}

void ag_session_closed_by_gateway(struct ag_session *s, const char *output)
{
	begin_end(s, AG_SUCCESS, output, 0);
}

/* --- the data channel ----------------------------------------------------------------------- */

static void connect_later(struct ag_session *s)
{
	set_state(s, AG_S_WAITING);
	td_timer_in(&s->retry, td_backoff_next(&s->backoff));
}

static void handle_failed_open(struct ag_session *s, const struct ag_channel_result *r)
{
	struct td_loop *l = s->a->loop;

	if (r->over) {
		begin_end(s, AG_SUCCESS, "the gateway has ended the session", 0);
		return;
	}
	if (!r->refused)
		s->refused_since = 0;
	else if (!s->refused_since)
		s->refused_since = l->now;
	else if (l->now - s->refused_since > REFUSED_FOR) {
		ag_session_end(s, AG_FAILED, "data channel refused: %s", r->why);
		return;
	}
	if (!s->warned_at || l->now - s->warned_at > WARN_EVERY) {
		s->warned_at = l->now;
		td_warn(AG_MOD, s->start.session_id, "data channel could not be opened, trying again error=\"%s\"",
			r->why);
	}
	connect_later(s);
}

/* One that comes back had a descriptor, which is free; a new one leaves the last to the control channel. */
static void connect_now(void *arg)
{
	struct ag_session *s = arg;

	if (!s->link_up_at && td_fd_short()) {
		s->a->n.short_of_descriptors++;
		handle_failed_open(s, &(struct ag_channel_result){.why = "the agent has few descriptors left"});
		return;
	}
	set_state(s, AG_S_OPENING);
	ag_channel_open(&s->channel);
}

static void on_opened(void *ctx, const struct ag_channel_result *r)
{
	struct ag_session *s = ctx;

	if (!r->w) {
		handle_failed_open(s, r);
		return;
	}
	if (s->link_up_at && td_pump_links(s->pump)) {
		td_info(AG_MOD, s->start.session_id, "main link is back links=%u", td_pump_links(s->pump) + 1);
	} else if (s->link_up_at) {
		s->resumes++;
		s->a->n.resumes++;
		td_info(AG_MOD, s->start.session_id, "data channel is back resumes=%u", s->resumes);
	}
	s->link_up_at = s->a->loop->now;
	s->progress = td_pump_progress(s->pump);
	s->refused_since = s->warned_at = 0;
	set_state(s, AG_S_UP);
	if (td_aws_is_amazon(s->a->aws)) /* it need not say that the client is there; our gateway does */
		s->reverse.client_away = false;
	td_pump_attach(s->pump, r->w);
	ag_reverse_look(s);
}

static void pump_lost(void *ctx, int err, uint16_t code, const char *why)
{
	struct ag_session *s = ctx;

	ag_reverse_look(s);
	if (s->state == AG_S_ENDING) {
		td_timer_in(&s->end_timer, 0);
		return;
	}
	td_log(code == 1000 ? TNL_LOG_INFO : TNL_LOG_WARN, AG_MOD, s->start.session_id,
	       "data channel lost, opening it again code=%u error=\"%s\" reason=\"%s\" streams=%zu", code,
	       tnl_err_text(err), why ? why : "", td_pump_pipes(s->pump));
	td_backoff_up(&s->backoff, s->a->loop->now - s->link_up_at);
	if (td_pump_progress(s->pump) != s->progress)
		td_backoff_forget(&s->backoff);
	connect_later(s);
}

/* --- what the pump reports --------------------------------------------------------------------- */

static void pump_ready(void *ctx, const struct tnl_session_info *info)
{
	struct ag_session *s = ctx;

	s->mode = info->mode;
	td_info(
	    AG_MOD, s->start.session_id,
	    "session ready mode=%s client_version=%s program=%s own_peer=%d smux=%d max_payload=%zu half_close=%d encrypted=%d ms=%llu",
	    tnl_session_mode_name(info->mode), info->peer_version, info->peer_program[0] ? info->peer_program : "-",
	    info->own_peer, info->smux_version, info->max_payload, info->half_close, info->encrypted,
	    (unsigned long long)((s->a->loop->now - s->started_at) / TD_MS));
}

static void pump_open(void *ctx, struct tnl_stream *st)
{
	struct ag_session *s = ctx;
	if (s->state != AG_S_ENDING && s->type->plugin->open) {
		s->type->plugin->open(s, st);
		return;
	}
	td_pump_refuse(s->pump, st, TNL_RESET_SHUTDOWN, "");
}

static void pump_cancelled(void *ctx, struct tnl_stream *st)
{
	struct ag_session *s = ctx;
	if (s->type->plugin->cancelled)
		s->type->plugin->cancelled(s, st);
}

static void pump_flag(void *ctx, uint32_t flag)
{
	struct ag_session *s = ctx;

	if ((flag & ~0xffu) == TNL_FLAG_LINKS)
		ag_links_want(s, flag & 0xff);
	/* Shells ignore it, as stock agents do: their end is the shell's exit or channel_closed. */
	if (flag == TNL_FLAG_TERMINATE && s->mode != TNL_MODE_SHELL && s->mode != TNL_MODE_COMMAND)
		ag_session_end(s, AG_SUCCESS, "%s", "");
}

static void pump_bulk(void *ctx, enum td_bulk kind)
{
	ag_links_bulk(ctx, kind);
}

static void pump_link_lost(void *ctx, unsigned index)
{
	ag_links_lost(ctx, index);
	ag_reverse_look(ctx);
}

static void pump_publication(void *ctx, bool started)
{
	ag_reverse_publication(ctx, started);
}

static void pump_reverse(void *ctx, const struct tnl_reverse *word)
{
	ag_reverse_word(ctx, word);
}

static void pump_size(void *ctx, unsigned cols, unsigned rows)
{
	struct ag_session *s = ctx;
	if (s->type->plugin->size)
		s->type->plugin->size(s, cols, rows);
}

static void pump_kms(void *ctx, const struct tnl_kms_request *r)
{
	ag_kms_request(ctx, r);
}

static void pump_closed(void *ctx, int err, const char *text)
{
	struct ag_session *s = ctx;

	if (s->state == AG_S_ENDING)
		td_timer_in(&s->end_timer, 0);
	else if (err == TNL_ECLOSED)
		begin_end(s, AG_SUCCESS, text ? text : "", 0);
	else
		begin_end(s, AG_FAILED, text && *text ? text : tnl_err_text(err), 0);
}

static void pump_drained(void *ctx, struct td_pipe *p, void *user)
{
	struct ag_session *s = ctx;
	if (s->type->plugin->drained)
		s->type->plugin->drained(s, p);
}

static void pump_pipe_closed(void *ctx, struct td_pipe *p, void *user, uint32_t reason, uint64_t in, uint64_t out)
{
	struct ag_session *s = ctx;

	if (!ag_reverse_pipe_closed(s, p, user, reason, in, out) && s->type->plugin->pipe_closed)
		s->type->plugin->pipe_closed(s, p, user, reason, in, out);
	td_soon_do(&s->a->settle);
}

static void pump_direct_word(void *ctx, const struct tnl_direct *d)
{
	ag_direct_word(ctx, d);
}

static void pump_direct_lost(void *ctx, int err, const char *why)
{
	struct ag_session *s = ctx;
	ag_reverse_look(s);
	td_info(AG_MOD, s->start.session_id, "direct link is gone error=\"%s\" reason=\"%s\"", tnl_err_text(err), why);
}

static const struct td_pump_cb pump_cb = {
    .direct_word = pump_direct_word,
    .direct_lost = pump_direct_lost,
    .ready = pump_ready,
    .open = pump_open,
    .cancelled = pump_cancelled,
    .flag = pump_flag,
    .bulk = pump_bulk,
    .link_lost = pump_link_lost,
    .publication = pump_publication,
    .reverse = pump_reverse,
    .size = pump_size,
    .kms = pump_kms,
    .closed = pump_closed,
    .drained = pump_drained,
    .pipe_closed = pump_pipe_closed,
    .lost = pump_lost,
};

/* --- the beginning -------------------------------------------------------------------------------- */

void ag_session_limit(struct ag_session *s)
{
	tnl_session_limit_streams(td_pump_session(s->pump), ag_cfg(s->a)->max_streams);
}

/* May its streams say where they go?  A gateway of ours says so.  AWS says nothing: there it is so with the document
 * that has any host and port for its parameters, so that nobody gets further than its documents let him. */
static bool may_dial(const struct ag_session *s)
{
	const char *document = s->start.document_name;
	if (!td_aws_is_amazon(s->a->aws))
		return s->start.grants.dial;
	return document && strcmp(document, TNL_DOCUMENT_ANYWHERE) == 0;
}

static bool make_pump(struct ag_session *s)
{
	struct tnl_session_config sc;

	td_agent_session(ag_cfg(s->a), td_aws_is_amazon(s->a->aws), &sc);
	sc.session_id = s->start.session_id;
	sc.dial = may_dial(s) ? TNL_DIAL_VERSION : 0;
	/* Our gateway says whom it allows that; where AWS's is, the agent's own list decides. */
	sc.reverse = sc.reverse && (s->start.grants.reverse || td_aws_is_amazon(s->a->aws));
	sc.session_type = s->type->name;
	sc.properties_json = s->type->properties ? s->start.properties_json : NULL;
	sc.kms_key_id = s->start.kms_key_id;
	sc.skip_handshake = s->type->terminal && !s->start.kms_key_id;
	if (s->start.kms_key_id)
		sc.customer_message = "This session is encrypted using AWS KMS.";
	s->pump = td_pump_new(s->a->loop, &sc, &pump_cb, s);
	if (s->pump)
		ag_session_limit(s);
	return s->pump != NULL;
}

static struct ag_session *session_new(struct td_agent *a, const struct ag_type *type, struct tnl_start *start)
{
	const struct td_agent_config *c = ag_cfg(a);
	struct ag_session *s = tnl_calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->a = a;
	s->type = type;
	s->start = *start;
	memset(start, 0, sizeof(*start));
	s->target = tnl_strdup(a->instance_id);
	s->started_at = a->loop->now;
	tnl_list_push_back(&a->sessions, &s->node);
	a->nsessions++;
	ag_channel_init(&s->channel, a, s->start.session_id, on_opened, s);
	ag_links_init(s);
	td_timer_init(&s->retry, a->loop, connect_now, s);
	td_timer_init(&s->end_timer, a->loop, poll_end, s);
	td_backoff_init(&s->backoff, c->reconnect_min_ns, c->reconnect_max_ns);
	ag_reverse_init(s);
	return s;
}

static void refuse_session(struct td_agent *a, const struct tnl_start *start, const char *why)
{
	a->n.refused++;
	td_warn(AG_MOD, start->session_id, "session refused type=%s document=%s owner=%s reason=\"%s\"",
		start->session_type, start->document_name ? start->document_name : "",
		start->session_owner ? start->session_owner : "", why);
	ag_audit_start(a, start, why);
	td_ledger_add(a->ledger, start->session_id, "");
	ag_tasks_add(&a->tasks, start->session_id, AG_FAILED, why);
}

/* NULL: refused, *why. */
static const struct ag_type *type_for(const struct td_agent *a, const char *name, char *why, size_t cap)
{
	const struct ag_type *t = a->types;

	while (t->name && strcmp(t->name, name) != 0)
		t++;
	const char *off = t->name && t->plugin->off ? t->plugin->off(a) : NULL;
	if (!t->name)
		snprintf(why, cap, "sessions of type %s are not served by this agent", name);
	else if (off)
		snprintf(why, cap, "%s", off);
	else
		return t;
	return NULL;
}

static unsigned sessions_of(const struct td_agent *a, const char *owner)
{
	unsigned n = 0;
	tnl_list_foreach(it, &a->sessions) {
		const char *o = tnl_container_of(it, struct ag_session, node)->start.session_owner;
		n += strcmp(o ? o : "", owner ? owner : "") == 0;
	}
	return n;
}

/* The last quarter of the places is for users who have less than an eighth of all, so that nobody takes them all. */
static bool is_fair(const struct td_agent *a, const char *owner)
{
	unsigned max = ag_cfg(a)->max_sessions;
	return a->nsessions < max - max / 4 || sessions_of(a, owner) < TNL_MAX(max / 8, 1u);
}

static const struct ag_type *admit_session(struct td_agent *a, const struct tnl_start *start)
{
	const struct ag_type *type = NULL;
	char why[256];

	if (a->state != AG_RUNNING)
		snprintf(why, sizeof(why), "the agent is stopping");
	else if (a->nsessions >= ag_cfg(a)->max_sessions)
		snprintf(why, sizeof(why), "the agent has as many sessions as max_sessions allows");
	else if (ag_cfg(a)->kms_key_id && start->kms_key_id && strcmp(start->kms_key_id, ag_cfg(a)->kms_key_id) != 0)
		snprintf(why, sizeof(why),
			 "the session is to be encrypted with the key %.80s, not with this agent's kms_key_id",
			 start->kms_key_id);
	else if (!is_fair(a, start->session_owner))
		snprintf(why, sizeof(why), "the agent has few sessions left, and this user has a fair share of them");
	else if (td_fd_short())
		snprintf(why, sizeof(why), "the agent has few descriptors left");
	else
		type = type_for(a, start->session_type, why, sizeof(why));
	if (!type)
		refuse_session(a, start, why);
	return type;
}

static void begin_session(struct ag_session *s)
{
	char why[256];

	s->a->n.sessions++;
	td_ledger_add(s->a->ledger, s->start.session_id, "");
	td_info(AG_MOD, s->start.session_id, "session starts type=%s document=%s owner=%s", s->start.session_type,
		s->start.document_name ? s->start.document_name : "",
		s->start.session_owner ? s->start.session_owner : "");
	ag_audit_start(s->a, &s->start, NULL);
	if (s->type->plugin->init && !s->type->plugin->init(s, why, sizeof(why)))
		ag_session_end(s, AG_FAILED, "%s", why);
	else if (!make_pump(s))
		ag_session_end(s, AG_FAILED, "the agent is out of memory");
	else
		connect_now(s);
}

void ag_session_start(struct td_agent *a, struct tnl_start *start)
{
	if (ag_session_find(a, start->session_id)) {
		td_debug(AG_MOD, start->session_id, "session runs already, start ignored");
		return;
	}
	if (ag_tasks_pending(&a->tasks, start->session_id)) {
		td_debug(AG_MOD, start->session_id, "session has ended already, start ignored");
		return;
	}
	const struct ag_type *type = admit_session(a, start);
	if (!type)
		return;
	struct ag_session *s = session_new(a, type, start);
	if (s && s->target && s->reverse.incoming) {
		begin_session(s);
		return;
	}
	td_error(AG_MOD, NULL, "out of memory, session not started");
	if (s)
		ag_session_free(s);
}

void ag_session_wake(struct ag_session *s)
{
	if (s->state == AG_S_WAITING)
		td_timer_in(&s->retry, 0);
	else if (s->state == AG_S_UP)
		td_pump_ping(s->pump);
}

void ag_session_retry(struct ag_session *s)
{
	const struct td_agent_config *c = ag_cfg(s->a);
	if (s->state != AG_S_WAITING)
		return;
	s->refused_since = s->warned_at = 0;
	td_backoff_init(&s->backoff, c->reconnect_min_ns, c->reconnect_max_ns);
	td_timer_in(&s->retry, 0);
}

static bool is_busy(const struct ag_session *s)
{
	return s->type->plugin->busy && s->type->plugin->busy(s) > 0;
}

void ag_sessions_drain(struct td_agent *a, bool all)
{
	tnl_list_foreach_safe(it, &a->sessions) {
		struct ag_session *s = tnl_container_of(it, struct ag_session, node);
		if (all || !is_busy(s))
			ag_session_end(s, AG_FAILED, "the agent was stopped");
		else
			ag_reverse_stop(s);
	}
}
