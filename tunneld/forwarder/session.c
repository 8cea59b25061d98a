/* Sessions of the forwarder: a td_client each, which belongs to a group, from its start to its end. */
#include "tunneld/forwarder/internal.h"

#include "lib/alloc.h"
#include "tunneld/base/fd.h"
#include "tunneld/base/log.h"

#include <stdio.h>
#include <string.h>

#define LOOK_EVERY (1 * TD_SEC)
#define NO_DIAL_NS (600 * TD_SEC) /* then a proxy asks the agent again: it may be another one */

static const char *session_id(const struct fwd_session *s)
{
	return td_client_session_id(s->client);
}

/* --- its end -------------------------------------------------------------------------------- */

/* NULL: none, or it has been placed. */
static struct fwd_conn *take_reserved(struct fwd_session *s)
{
	struct fwd_conn *c = s->reserved;
	s->reserved = NULL;
	if (c)
		c->session = NULL;
	return c;
}

uint64_t fwd_session_resent(const struct fwd_session *s)
{
	struct td_pump *p = td_client_pump(s->client);
	struct tnl_channel_stats st = {0};
	if (p)
		tnl_channel_stats(tnl_session_channel(td_pump_session(p)), &st);
	return st.resent;
}

void fwd_session_free(struct fwd_session *s)
{
	s->group->n.resent += fwd_session_resent(s);
	fwd_reverse_forget(s);
	fwd_guests_lost(s, TNL_ECLOSED, "the session ended");
	take_reserved(s);
	td_timer_stop(&s->idle);
	td_soon_cancel(&s->unneeded);
	td_client_free(s->client);
	tnl_list_remove(&s->node);
	tnl_free(s);
}

static void tell_api(struct fwd_session *s)
{
	if (session_id(s))
		fwd_ending_start(s->group->f, s->group->aws, session_id(s));
}

void fwd_session_end(struct fwd_session *s, const char *why)
{
	if (s->ending)
		return;
	s->ending = true;
	td_info(FWD_MOD, session_id(s), "session ends tunnel=%s reason=\"%s\" in=%llu out=%llu resumes=%u",
		s->group->cfg->name, why, (unsigned long long)s->bytes_in, (unsigned long long)s->bytes_out,
		td_client_resumes(s->client));
	td_timer_stop(&s->idle);
	tell_api(s);
	td_client_end(s->client);
}

static void end_unneeded(void *arg)
{
	fwd_session_end(arg, "no connection is waiting for it any more");
}

static void on_idle(void *arg)
{
	struct fwd_session *s = arg;
	if (fwd_session_load(s) == 0)
		fwd_session_end(s, "idle");
}

/* --- off the configuration, and no way to the gateway --------------------------------------- */

static bool is_forsaken(const struct fwd_session *s)
{
	const struct fwd_group *g = s->group;
	return s->away_since && g->f->loop->now - s->away_since >= g->cfg->connect_timeout_ns &&
	       !td_pump_has_local_end(td_client_pump(s->client));
}

/* Its connections go; with the last of them the session does. */
static void give_up(struct fwd_session *s)
{
	td_warn(FWD_MOD, session_id(s),
		"given up: its tunnel is off the configuration, no local program is left and the gateway is away "
		"tunnel=%s connections=%zu",
		s->group->cfg->name, fwd_session_load(s));
	s->away_since = 0; /* once */
	tnl_list_foreach(it, &s->group->f->tunnels) {
		struct fwd_tunnel *t = tnl_container_of(it, struct fwd_tunnel, node);
		tnl_list_foreach(jt, &t->conns) {
			struct fwd_conn *c = tnl_container_of(jt, struct fwd_conn, node);
			if (c->session == s)
				td_pipe_abort(c->pipe, TNL_RESET_SESSION);
		}
	}
	td_pump_kick(td_client_pump(s->client));
}

static void look_forsaken(void *arg)
{
	struct fwd_group *g = arg;
	bool away = false;
	if (!fwd_group_off_config(g))
		return;
	tnl_list_foreach(it, &g->sessions) {
		struct fwd_session *s = tnl_container_of(it, struct fwd_session, node);
		if (is_forsaken(s))
			give_up(s);
		away = away || s->away_since;
	}
	if (away)
		td_timer_in(&g->forsaken, LOOK_EVERY);
}

void fwd_session_watch_forsaken(struct fwd_group *g)
{
	g->forsaken.fn = look_forsaken;
	td_timer_in(&g->forsaken, 0);
}

/* --- what the client reports ---------------------------------------------------------------- */

static void on_granted(void *ctx, const char *id)
{
	struct fwd_session *s = ctx;
	td_ledger_add(s->group->f->ledger, id, s->group->cfg->name);
	if (s->ending) /* the end came first */
		tell_api(s);
}

/* A proxy's own session cannot be had: each destination gets one, for a while. */
static void lack_dial(struct fwd_group *g, const char *why)
{
	if (!g->proxy->no_dial_until)
		td_info(FWD_MOD, NULL, "one session for each destination tunnel=%s reason=\"%s\"", g->cfg->name, why);
	g->proxy->no_dial_until = g->f->loop->now + NO_DIAL_NS;
	if (g->f->started) /* the way to the target is there */
		g->f->started(g->f->started_ctx, 0, "", "");
	td_soon_do(&g->proxy->settle);
}

/* The user may not start such a session, but perhaps others. */
static bool is_right_lacking(const struct fwd_group *g, const char *type)
{
	return g->proxy && !fwd_group_is_dest(g) &&
	       (strcmp(type, "AccessDeniedException") == 0 || strcmp(type, "InvalidDocument") == 0);
}

static void on_ready(void *ctx, const struct tnl_session_info *info)
{
	struct fwd_session *s = ctx;
	struct fwd_group *g = s->group;
	if (s->ending)
		return;
	tnl_histogram_add(&g->n.start, g->f->loop->now - td_client_started_at(s->client));
	if (!info->dial && g->proxy && !fwd_group_is_dest(g)) {
		lack_dial(g, "the agent takes no destinations in a session, or the gateway limits those of this user");
		fwd_session_end(s, "its streams cannot say where they go");
		return;
	}
	if (fwd_group_is_dest(g))
		td_timer_in(&s->idle, g->cfg->idle_timeout_ns);
	g->lost_at = 0; /* the way there and the target are back: a refusal from now on is one */
	g->needs_login = false;
	g->last_error[0] = '\0';
	g->failed_at = 0;
	if (g->asked)
		g->used_at = g->f->loop->now;
	g->asked = false;
	if (g->cfg->type == TD_TUNNEL_REVERSE) {
		if (!fwd_reverse_ready(s, info))
			fwd_session_end(s, "the agent does not listen for it");
		return;
	}
	if (g->f->started)
		g->f->started(g->f->started_ctx, 0, "", "");
	fwd_guests_up(g);
	fwd_group_serve(g);
}

static void count_outage(struct fwd_group *g)
{
	if (g->n.out_since)
		g->n.outage_ns += g->f->loop->now - g->n.out_since;
	g->n.out_since = 0;
}

static void on_changed(void *ctx, enum td_client_state st)
{
	struct fwd_session *s = ctx;
	struct fwd_group *g = s->group;
	if (s->ending || !td_client_was_ready(s->client))
		return;
	/* Also from its return on: the target's control channel may come back later than this session. */
	if (st == TD_CLIENT_RESUMING || st == TD_CLIENT_UP)
		g->lost_at = g->f->loop->now;
	if (st == TD_CLIENT_UP && s->away_since)
		g->n.resumes++;
	s->away_since = st == TD_CLIENT_RESUMING ? (s->away_since ? s->away_since : g->f->loop->now) : 0;
	if (st == TD_CLIENT_RESUMING) {
		g->n.out_since = g->n.out_since ? g->n.out_since : g->f->loop->now;
		fwd_session_watch_forsaken(g);
	}
	if (st == TD_CLIENT_UP) {
		count_outage(g);
		fwd_guests_up(g);
		td_soon_do(&g->serve);
	}
}

/* What was lost comes back piece by piece: the gateway, then the target's channel to it. */
static bool on_unreachable(void *ctx, int err, const char *type)
{
	struct fwd_session *s = ctx;
	bool network = type[0] == '\0';
	if (s->ending || !(network ? fwd_group_recovering(s->group) : fwd_target_recovering(s->group)))
		return false;
	return s->one_shot ? s->reserved != NULL : fwd_group_needs_retry(s->group);
}

static void on_delayed(void *ctx, const char *why)
{
	struct fwd_session *s = ctx;
	if (!s->ending)
		fwd_guests_delayed(s->group, why);
}

/* It could not be started, and somebody needs it.  Connections that wait for it are reset each with a line of its own
 * that says why: this one is for when there are none. */
static void report_failure(struct fwd_session *s, int err, const char *type, const char *why)
{
	struct fwd_group *g = s->group;
	bool told = s->reserved || !tnl_list_empty(&g->waiting);
	bool news = !told && strncmp(g->last_error, why, sizeof(g->last_error) - 1) != 0;

	td_log(news ? TNL_LOG_ERROR : TNL_LOG_DEBUG, FWD_MOD, session_id(s), "cannot open tunnel=%s target=%s: %s",
	       g->cfg->name, g->cfg->target, why);
	snprintf(g->last_error, sizeof(g->last_error), "%s", why);
	if (!g->failed_at)
		g->failed_at = g->f->loop->now;
	g->asked = false;
	g->needs_login = err == TNL_EAUTH && td_credentials_last(g->aws, NULL) == TD_CREDENTIALS_NEEDS_LOGIN;
	if (g->f->started)
		g->f->started(g->f->started_ctx, err, type, why);
	fwd_guests_failed(g, err, type, why);
}

/* Whoever waits is reset, the rest is forgotten. */
static void on_failed(void *ctx, int err, const char *type, const char *why)
{
	struct fwd_session *s = ctx;
	struct fwd_group *g = s->group;
	bool needed = !s->ending, one_shot = s->one_shot;

	if (needed && is_right_lacking(g, type)) {
		lack_dial(g, why);
		needed = false;
	}
	if (needed) {
		report_failure(s, err, type, why);
		tell_api(s);
	}
	struct fwd_conn *c = take_reserved(s);
	fwd_session_free(s);
	g->refusal.err = err;
	snprintf(g->refusal.type, sizeof(g->refusal.type), "%s", type);
	if (c)
		fwd_conn_fail(c, FWD_F_SESSION, why);
	if (needed && !one_shot)
		fwd_group_fail(g, why);
	g->refusal.err = 0;
	g->refusal.type[0] = '\0';
	fwd_group_settle(g);
}

static void on_over(void *ctx, int err, const char *text)
{
	struct fwd_session *s = ctx;
	struct fwd_group *g = s->group;
	struct fwd_conn *c = take_reserved(s);

	if (err == TNL_ECLOSED)
		td_ledger_del(g->f->ledger, session_id(s));
	else
		tell_api(s);
	/* The far side may end the session of one connection with it: that is no loss. */
	if (!s->ending && !(s->one_shot && err == TNL_ECLOSED))
		g->lost_at = g->f->loop->now;
	td_backoff_up(&g->backoff, g->f->loop->now - td_client_started_at(s->client));
	fwd_guests_lost(s, err, text);
	fwd_session_free(s);
	if (c)
		fwd_conn_fail(c, FWD_F_SESSION, "the session ended");
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
	fwd_session_free(s);
	fwd_group_serve(g);
	fwd_group_settle(g);
}

static void log_connection_end(const struct fwd_session *s, const struct fwd_conn *c, uint32_t reason, uint64_t in,
			       uint64_t out)
{
	char text[300];
	const struct td_tunnel_config *t = c->tunnel->cfg;
	const char *host = c->to ? c->to->name : td_tunnel_host(t);
	unsigned port = c->to ? c->to->port : t->port;
	bool done = reason == UINT32_MAX, refused = tnl_reset_is_refusal(reason);

	enum tnl_log_level usual =
	    c->flow ? TNL_LOG_DEBUG : td_log_of_connection(); /* a flow is perhaps one question */
	td_log(refused ? TNL_LOG_WARN : usual, FWD_MOD, session_id(s),
	       "connection %s tunnel=%s target=%s host=%s port=%u peer=%s reason=\"%s\" in=%llu out=%llu",
	       done ? "closed" : "reset", t->name, t->target, host, port, c->peer,
	       td_pipe_end_text(c->pipe, reason, text, sizeof(text)), (unsigned long long)in, (unsigned long long)out);
}

static bool is_only_one(const struct fwd_session *s)
{
	return s->node.next == s->node.prev;
}

/* A probe alone keeps no session for longer than idle_timeout, nor one that nobody had before it. */
static bool only_probed(const struct fwd_group *g)
{
	return g->cfg->session != TD_SESSION_PER_CONNECTION && !fwd_group_opens_by_itself(g) &&
	       tnl_list_empty(&g->waiting) && (!g->used_at || g->f->loop->now - g->used_at >= g->cfg->idle_timeout_ns);
}

/* Its last connection has gone. */
static void on_unused(struct fwd_session *s, bool probe)
{
	const struct fwd_group *g = s->group;
	if (g->proxy && fwd_group_is_dest(g)) /* another destination may want its place */
		td_soon_do(&g->proxy->settle);
	if (s->one_shot)
		fwd_session_end(s, "its connection has ended");
	else if (!fwd_group_wanted(g))
		fwd_session_end(s, "no longer needed");
	else if (probe && only_probed(g))
		fwd_session_end(s, "only probes use it");
	else if (fwd_group_is_dest(g) || (g->cfg->session == TD_SESSION_POOL && !is_only_one(s)))
		td_timer_in(&s->idle, g->cfg->idle_timeout_ns);
}

static void count_connection_end(struct fwd_session *s, const struct fwd_conn *c, uint32_t reason, uint64_t in,
				 uint64_t out)
{
	s->bytes_in += in;
	s->bytes_out += out;
	if (reason == TNL_RESET_DENIED)
		c->tunnel->failures[FWD_F_DENIED]++;
	else if (tnl_reset_is_refusal(reason) || reason == TNL_RESET_TIMEOUT)
		c->tunnel->failures[FWD_F_REFUSED]++;
	log_connection_end(s, c, reason, in, out);
}

static void on_pipe_closed(void *ctx, struct td_pipe *p, void *user, uint32_t reason, uint64_t in, uint64_t out)
{
	struct fwd_session *s = ctx;
	struct fwd_group *g = s->group;
	const struct fwd_conn *c = user;
	const struct fwd_conn_watch *w = c->watch;
	void *watcher = c->watcher;
	char text[300];

	if (!w)
		count_connection_end(s, c, reason, in, out);
	if (c->guest)
		fwd_guest_conn_over(c->guest, s, p, reason);
	fwd_conn_closed(user, in, out);
	if (w)
		w->closed(watcher, reason, td_pipe_end_text(p, reason, text, sizeof(text)));
	if (s->ending)
		return;
	if (fwd_session_load(s) <= 1) /* this pipe still counts while we are called */
		on_unused(s, w != NULL);
	if (!tnl_list_empty(&g->waiting))
		td_soon_do(&g->serve); /* one that takes a single connection may be free now */
}

static void on_connected(void *ctx, struct td_pipe *p, void *user)
{
	struct fwd_conn *c = user;
	if (c->watch)
		c->watch->connected(c->watcher);
}

static void on_open(void *ctx, struct tnl_stream *st)
{
	fwd_reverse_open(ctx, st);
}

static void on_cancelled(void *ctx, struct tnl_stream *st)
{
	fwd_reverse_cancelled(ctx, st);
}

static void on_reverse(void *ctx, const struct tnl_reverse *word)
{
	struct fwd_session *s = ctx;
	if (!fwd_reverse_word(s, word) && fwd_session_load(s) == 0)
		fwd_session_end(s, "another session of this client has its listener");
}

static void on_drained(void *ctx, struct td_pipe *p, void *user)
{
	if (td_pipe_stream(p) && tnl_stream_holding(td_pipe_stream(p)))
		fwd_conn_hold(user);
}

static const struct td_client_cb client_cb = {
    .granted = on_granted,
    .delayed = on_delayed,
    .unreachable = on_unreachable,
    .ready = on_ready,
    .changed = on_changed,
    .failed = on_failed,
    .over = on_over,
    .ended = on_ended,
    .pipe_closed = on_pipe_closed,
    .drained = on_drained,
    .connected = on_connected,
    .open = on_open,
    .cancelled = on_cancelled,
    .reverse = on_reverse,
};

/* --- its start ------------------------------------------------------------------------------ */

/* What StartSession is told as localPortNumber: the first TCP port of a tunnel of the group. */
static uint16_t local_port(const struct fwd_group *g)
{
	tnl_list_foreach(it, &g->f->tunnels) {
		const struct fwd_tunnel *t = tnl_container_of(it, struct fwd_tunnel, node);
		for (int i = 0; fwd_group_is_for(g, t) && i < t->nlisteners; i++)
			if (td_addr_port(&t->bound[i]))
				return td_addr_port(&t->bound[i]);
	}
	return 0;
}

static struct fwd_session *session_start(struct fwd_group *g)
{
	const struct td_tunnel_config *t = g->cfg;
	char label[160];
	struct fwd_session *s = tnl_calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	bool dials = t->path || (t->type == TD_TUNNEL_PROXY && !fwd_group_is_dest(g));
	snprintf(label, sizeof(label), "tunnel=%s", t->name);
	s->group = g;
	td_timer_init(&s->idle, g->f->loop, on_idle, s);
	td_soon_init(&s->unneeded, g->f->loop, end_unneeded, s);
	struct td_client_config cc = {
	    .aws = g->aws,
	    .label = label,
	    .target = t->target,
	    .select = t->select,
	    .document = t->document,
	    .host = dials ? "localhost" : t->host, /* its streams say where they go */
	    .reason = t->reason,
	    .port = dials ? 1 : t->port,
	    .local_port = local_port(g),
	    .reconnect_min_ns = t->reconnect_min_ns,
	    .reconnect_max_ns = t->reconnect_max_ns,
	    .ping_ns = t->ping_interval_ns,
	    .pong_ns = t->pong_timeout_ns,
	    .links_auto = t->links == 0,
	};
	td_tunnel_session(t, td_aws_is_amazon(g->aws), &cc.session);
	cc.session.reverse = t->type == TD_TUNNEL_REVERSE;
	cc.session.dial = dials ? TNL_DIAL_VERSION : 0;
	cc.session.expected_type = "Port";
	s->client = td_client_new(g->f->loop, &cc, &client_cb, s);
	if (!s->client) {
		tnl_free(s);
		return NULL;
	}
	tnl_list_push_back(&g->sessions, &s->node);
	return s;
}

static void start_for_each_connection(struct fwd_group *g)
{
	tnl_list_foreach_safe(it, &g->waiting) {
		struct fwd_conn *c = tnl_container_of(it, struct fwd_conn, node);
		if (c->session)
			continue;
		if (td_fd_short()) { /* its link would need one more */
			fwd_conn_fail(c, FWD_F_SESSION, "few descriptors are left");
			continue;
		}
		c->session = session_start(g);
		if (!c->session) {
			fwd_conn_fail(c, FWD_F_SESSION, "out of memory");
			continue;
		}
		c->session->one_shot = true;
		c->session->reserved = c;
	}
}

void fwd_session_adjust(void *arg)
{
	struct fwd_group *g = arg;

	tnl_list_foreach_safe(it, &g->sessions) {
		struct fwd_session *s = tnl_container_of(it, struct fwd_session, node);
		if (!fwd_group_wanted(g) && fwd_session_load(s) == 0)
			fwd_session_end(s, "no longer needed");
	}
	if (g->cfg->session == TD_SESSION_PER_CONNECTION)
		start_for_each_connection(g);
	else if (fwd_group_needs_session(g) && !session_start(g))
		fwd_group_fail(g, "out of memory");
}
