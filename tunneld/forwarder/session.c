/* A session of the forwarder: a td_client that belongs to a group. */
#include "tunneld/forwarder/internal.h"

#include "lib/alloc.h"
#include "tunneld/base/log.h"

#include <stdio.h>
#include <string.h>

#define MOD "forwarder"

const char *fwd_session_name(const struct fwd_session *s)
{
	return s->client ? td_client_session_id(s->client) : NULL;
}

size_t fwd_session_load(const struct fwd_session *s)
{
	struct td_pump *p = td_client_pump(s->client);
	return p ? td_pump_pipes(p) : 0;
}

bool fwd_session_up(const struct fwd_session *s)
{
	return td_client_state(s->client) == TD_CLIENT_UP;
}

static void session_free(void *arg)
{
	tnl_free(arg);
}

void fwd_session_destroy(struct fwd_session *s)
{
	td_timer_stop(&s->idle);
	td_client_free(s->client);
	tnl_list_remove(&s->node);
	td_loop_defer(s->group->f->loop, session_free, s);
}

static void tell_api(struct fwd_session *s)
{
	if (fwd_session_name(s))
		fwd_terminate(s->group->f, s->group->aws, fwd_session_name(s));
}

void fwd_session_end(struct fwd_session *s, const char *why)
{
	if (s->ending)
		return;
	s->ending = true;
	td_info(MOD, fwd_session_name(s), "session ends tunnel=%s reason=\"%s\" in=%llu out=%llu resumes=%u",
		s->group->cfg->name, why, (unsigned long long)s->bytes_in, (unsigned long long)s->bytes_out,
		td_client_resumes(s->client));
	td_timer_stop(&s->idle);
	tell_api(s);
	td_client_end(s->client);
}

static void on_granted(void *ctx, const char *session_id)
{
	struct fwd_session *s = ctx;
	td_ledger_add(s->group->f->ledger, session_id, s->group->cfg->name);
	if (s->ending) /* the end came first */
		tell_api(s);
}

static void on_ready(void *ctx, const struct tnl_session_info *info)
{
	struct fwd_session *s = ctx;
	struct fwd_group *g = s->group;
	if (s->ending)
		return;
	g->lost_at = 0; /* the way there and the target are back: a refusal from now on is one */
	g->needs_login = false;
	g->last_error[0] = '\0';
	fwd_group_serve(g);
}

static void on_changed(void *ctx, enum td_client_state st)
{
	struct fwd_session *s = ctx;
	if (s->ending || !td_client_was_ready(s->client))
		return;
	/* Also from its return on: the target's control channel may come back later than this session. */
	if (st == TD_CLIENT_RESUMING || st == TD_CLIENT_UP)
		s->group->lost_at = s->group->f->loop->now;
	if (st == TD_CLIENT_UP)
		td_timer_in(&s->group->restart, 0); /* serve who waits, from the loop */
}

/* What was lost comes back piece by piece: the gateway, then the target's channel to it. */
static bool on_unreachable(void *ctx, int err, const char *type)
{
	struct fwd_session *s = ctx;
	bool network = type[0] == '\0';
	if (s->ending || !(network ? fwd_group_recovering(s->group) : fwd_target_recovering(s->group)))
		return false;
	return s->one_shot ? s->reserved != NULL : fwd_group_wants_retry(s->group);
}

/* Nothing could be started: whoever waits is told, the rest is forgotten. */
static void on_failed(void *ctx, int err, const char *type, const char *why)
{
	struct fwd_session *s = ctx;
	struct fwd_group *g = s->group;
	struct fwd_conn *c = s->reserved;
	bool wanted = !s->ending;

	s->reserved = NULL;
	if (wanted) {
		bool news =
		    c || !tnl_list_empty(&g->waiting) || strncmp(g->last_error, why, sizeof(g->last_error) - 1) != 0;
		td_log(news ? TNL_LOG_ERROR : TNL_LOG_DEBUG, MOD, fwd_session_name(s),
		       "cannot open tunnel=%s target=%s: %s", g->cfg->name, g->cfg->target, why);
		snprintf(g->last_error, sizeof(g->last_error), "%s", why);
		g->needs_login = err == TNL_EAUTH && td_credentials_last(g->aws, NULL) == TD_CREDENTIALS_NEEDS_LOGIN;
		tell_api(s);
	}
	fwd_session_destroy(s);
	if (c)
		fwd_conn_failed(c, why);
	if (wanted && !s->one_shot)
		fwd_group_fail(g, why);
	fwd_group_settle(g);
}

static void on_over(void *ctx, int err, const char *text)
{
	struct fwd_session *s = ctx;
	struct fwd_group *g = s->group;

	if (err == TNL_ECLOSED)
		td_ledger_del(g->f->ledger, fwd_session_name(s));
	else
		tell_api(s);
	/* The far side may end the session of one connection with it: that is no loss. */
	if (!s->ending && !(s->one_shot && err == TNL_ECLOSED))
		g->lost_at = g->f->loop->now;
	td_backoff_up(&g->backoff, g->f->loop->now - td_client_started_at(s->client));
	if (s->reserved) {
		struct fwd_conn *c = s->reserved;
		s->reserved = NULL;
		fwd_conn_failed(c, "the session ended");
	}
	fwd_session_destroy(s);
	if (!tnl_list_empty(&g->waiting))
		fwd_group_serve(g);
	else /* a session that ends as soon as it is there must not be asked for without a pause */
		td_timer_in(&g->restart, td_backoff_next(&g->backoff));
	fwd_group_settle(g);
}

static void on_ended(void *ctx)
{
	struct fwd_session *s = ctx;
	struct fwd_group *g = s->group;
	fwd_session_destroy(s);
	fwd_group_serve(g);
	fwd_group_settle(g);
}

static void idle_over(void *arg)
{
	struct fwd_session *s = arg;
	if (fwd_session_load(s) == 0)
		fwd_session_end(s, "idle");
}

static void on_pipe_closed(void *ctx, struct td_pipe *p, void *user, uint32_t reason, uint64_t in, uint64_t out)
{
	struct fwd_session *s = ctx;
	struct fwd_group *g = s->group;
	struct fwd_conn *c = user;

	s->bytes_in += in;
	s->bytes_out += out;
	const struct td_tunnel_config *t = c->tunnel->cfg;
	bool refused = reason == TNL_RESET_CONNECT || reason == TNL_RESET_DENIED;
	td_log(refused ? TNL_LOG_WARN : TNL_LOG_INFO, MOD, fwd_session_name(s),
	       "connection %s tunnel=%s target=%s host=%s port=%u peer=%s reason=\"%s%s\" in=%llu out=%llu",
	       reason == UINT32_MAX ? "closed" : "reset", t->name, t->target, t->host ? t->host : "-", t->port, c->peer,
	       reason == UINT32_MAX ? "done" : tnl_reset_text(reason), refused ? "; the agent's log says why" : "",
	       (unsigned long long)in, (unsigned long long)out);
	fwd_conn_closed(c, in, out);
	if (s->ending)
		return;
	if (fwd_session_load(s) <= 1) { /* this pipe still counts while we are called */
		if (s->one_shot) {
			fwd_session_end(s, "its connection has ended");
		} else if (g->refs == 0) {
			fwd_session_end(s, "no longer wanted");
		} else if (g->cfg->session == TD_SESSION_POOL && g->sessions.next->next != &g->sessions) {
			td_timer_in(&s->idle, g->cfg->idle_timeout_ns);
		}
	}
	if (!tnl_list_empty(&g->waiting))
		td_timer_in(&g->restart, 0); /* one that takes a single connection may be free now */
}

static const struct td_client_cb client_cb = {
    .granted = on_granted,
    .unreachable = on_unreachable,
    .ready = on_ready,
    .changed = on_changed,
    .failed = on_failed,
    .over = on_over,
    .ended = on_ended,
    .pipe_closed = on_pipe_closed,
};

static void settings(const struct fwd_group *g, struct tnl_session_config *sc)
{
	const struct td_tunnel_config *t = g->cfg;
	sc->memory_max = (size_t)t->session_memory;
	sc->stream_window = (size_t)t->stream_window;
	sc->max_payload = t->max_payload;
	sc->message_rate = t->message_rate_set ? t->message_rate : td_aws_is_amazon(g->aws) ? 900 : 0;
	sc->half_close_timeout_ns = t->half_close_timeout_ns;
	sc->fin_quiet_ns = 2 * TD_SEC;
	sc->keepalive_ns = t->keepalive ? t->idle_timeout_ns / 3 : 0;
	sc->offer_capabilities = true;
	sc->require_encryption = t->require_encryption;
	sc->expected_type = "Port";
	sc->resend_max = 3000;
}

struct fwd_session *fwd_session_start(struct fwd_group *g, uint16_t local_port)
{
	const struct td_tunnel_config *t = g->cfg;
	char label[160];
	struct fwd_session *s = tnl_calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	snprintf(label, sizeof(label), "tunnel=%s", t->name);
	s->group = g;
	td_timer_init(&s->idle, g->f->loop, idle_over, s);
	struct td_client_config cc = {
	    .aws = g->aws,
	    .label = label,
	    .target = t->target,
	    .document = t->document,
	    .host = t->host,
	    .reason = t->reason,
	    .port = t->port,
	    .local_port = local_port,
	    .reconnect_min_ns = t->reconnect_min_ns,
	    .reconnect_max_ns = t->reconnect_max_ns,
	    .ping_ns = t->ping_interval_ns,
	    .pong_ns = t->pong_timeout_ns,
	};
	settings(g, &cc.session);
	s->client = td_client_new(g->f->loop, &cc, &client_cb, s);
	if (!s->client) {
		tnl_free(s);
		return NULL;
	}
	tnl_list_push_back(&g->sessions, &s->node);
	return s;
}
