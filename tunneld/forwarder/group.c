/* Which connection goes to which session, and when a session is started. */
#include "tunneld/forwarder/internal.h"

#include "lib/alloc.h"
#include "tunneld/base/log.h"

#include <string.h>

#define MOD "forwarder"

static bool str_same(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static bool group_fits(const struct fwd_group *g, const struct td_tunnel_config *t)
{
	struct td_tunnel_config a = *g->cfg, b = *t;
	if (!str_same(a.target, b.target) || !str_same(a.host, b.host) || a.port != b.port || g->stopping)
		return false;
	/* What is each tunnel's own affair does not separate sessions. */
	a.name = b.name;
	a.line = b.line;
	a.listen = b.listen;
	a.addrs = b.addrs;
	a.naddrs = b.naddrs;
	a.max_connections = b.max_connections;
	a.open_at_start = b.open_at_start;
	return a.session == TD_SESSION_SHARED && td_tunnel_same(&a, &b);
}

static void restart_cb(void *arg)
{
	fwd_group_serve(arg);
}

struct fwd_group *fwd_group_get(struct td_forwarder *f, const struct td_config *owner, const struct td_tunnel_config *t,
				char *why, size_t cap)
{
	tnl_list_foreach(it, &f->groups)
	{
		struct fwd_group *g = tnl_container_of(it, struct fwd_group, node);
		if (group_fits(g, t)) {
			g->refs++;
			return g;
		}
	}
	struct fwd_group *g = tnl_calloc(1, sizeof(*g));
	if (!g)
		return NULL;
	g->f = f;
	g->cfg = t;
	g->refs = 1;
	g->aws = td_aws_new(f->loop, &t->aws, why, cap);
	if (!g->aws) {
		tnl_free(g);
		return NULL;
	}
	g->owner = td_config_ref(owner);
	tnl_list_init(&g->sessions);
	tnl_list_init(&g->waiting);
	td_timer_init(&g->restart, f->loop, restart_cb, g);
	td_backoff_init(&g->backoff, t->reconnect_min_ns, t->reconnect_max_ns);
	tnl_list_push_back(&f->groups, &g->node);
	return g;
}

static void group_free(void *arg)
{
	struct fwd_group *g = arg;
	td_aws_free(g->aws);
	td_config_free((struct td_config *)(uintptr_t)g->owner);
	tnl_free(g);
}

static void free_if_unused(struct fwd_group *g)
{
	if (g->refs > 0 || !tnl_list_empty(&g->sessions) || !tnl_list_empty(&g->waiting) || g->stopping)
		return;
	g->stopping = true;
	td_timer_stop(&g->restart);
	tnl_list_remove(&g->node);
	td_loop_defer(g->f->loop, group_free, g);
}

void fwd_group_put(struct fwd_group *g)
{
	g->refs--;
	if (g->refs == 0)
		fwd_group_drop_idle(g);
	free_if_unused(g);
}

/* What StartSession is told as localPortNumber: the first TCP port of a tunnel of the group. */
static uint16_t local_port(const struct fwd_group *g)
{
	tnl_list_foreach(it, &g->f->tunnels)
	{
		const struct fwd_tunnel *t = tnl_container_of(it, struct fwd_tunnel, node);
		for (int i = 0; t->group == g && i < t->nlisteners; i++) {
			if (t->bound[i].sa.sa_family == AF_INET)
				return ntohs(t->bound[i].in.sin_port);
			if (t->bound[i].sa.sa_family == AF_INET6)
				return ntohs(t->bound[i].in6.sin6_port);
		}
	}
	return 0;
}

static unsigned session_limit(const struct fwd_group *g)
{
	switch (g->cfg->session) {
	case TD_SESSION_SHARED:
		return 1;
	case TD_SESSION_POOL:
		return g->cfg->pool ? g->cfg->pool : 1;
	default:
		return UINT32_MAX;
	}
}

static unsigned count_sessions(const struct fwd_group *g, bool *starting)
{
	unsigned n = 0;
	*starting = false;
	tnl_list_foreach(it, &g->sessions)
	{
		const struct fwd_session *s = tnl_container_of(it, struct fwd_session, node);
		if (s->ending)
			continue;
		n++;
		if (!td_client_was_ready(s->client))
			*starting = true;
	}
	return n;
}

/* One that is resuming will take streams again. */
static bool any_resuming(const struct fwd_group *g)
{
	tnl_list_foreach(it, &g->sessions)
	{
		const struct fwd_session *s = tnl_container_of(it, struct fwd_session, node);
		if (!s->ending && td_client_was_ready(s->client) && !fwd_session_up(s))
			return true;
	}
	return false;
}

static bool recovering(const struct fwd_group *g, uint64_t within_ns)
{
	return any_resuming(g) || (g->lost_at && g->f->loop->now - g->lost_at < within_ns);
}

bool fwd_group_recovering(const struct fwd_group *g)
{
	return recovering(g, g->cfg->connect_timeout_ns);
}

static bool same_target(const struct fwd_group *a, const struct fwd_group *b)
{
	return str_same(a->cfg->target, b->cfg->target) && str_same(a->cfg->aws.region, b->cfg->aws.region) &&
	       str_same(a->cfg->aws.ssm_endpoint, b->cfg->aws.ssm_endpoint);
}

bool fwd_target_recovering(const struct fwd_group *g)
{
	tnl_list_foreach(it, &g->f->groups)
	{
		const struct fwd_group *other = tnl_container_of(it, struct fwd_group, node);
		if (same_target(g, other) && recovering(other, g->cfg->connect_timeout_ns))
			return true;
	}
	return false;
}

/* The session with the fewest streams that is up now. */
static struct fwd_session *least_loaded(struct fwd_group *g)
{
	struct fwd_session *best = NULL;
	tnl_list_foreach(it, &g->sessions)
	{
		struct fwd_session *s = tnl_container_of(it, struct fwd_session, node);
		if (fwd_session_up(s) && !s->ending && !s->one_shot &&
		    (!best || fwd_session_load(s) < fwd_session_load(best)))
			best = s;
	}
	return best;
}

static bool give(struct fwd_conn *c, struct fwd_session *s)
{
	int err = 0;
	struct td_pipe *p = td_pipe_client(td_client_pump(s->client), c->fd, c, &err);
	if (!p)
		return false;
	td_timer_stop(&s->idle);
	fwd_conn_placed(c, s, p);
	return true;
}

static bool try_place(struct fwd_group *g, struct fwd_conn *c, bool may_start)
{
	struct fwd_session *s = least_loaded(g);
	bool starting;
	if (!s)
		return false;
	/* A pool grows while all of it is busy: the connection waits for the new session, which no other can stall. */
	if (g->cfg->session == TD_SESSION_POOL && fwd_session_load(s) > 0 && may_start &&
	    count_sessions(g, &starting) < session_limit(g))
		return false;
	return give(c, s);
}

static void serve_reserved(struct fwd_group *g)
{
	tnl_list_foreach_safe(it, &g->sessions)
	{
		struct fwd_session *s = tnl_container_of(it, struct fwd_session, node);
		if (s->one_shot && s->reserved && !s->ending && fwd_session_up(s)) {
			struct fwd_conn *c = s->reserved;
			s->reserved = NULL;
			if (!give(c, s))
				fwd_conn_failed(c, "the session takes no stream");
		}
	}
}

void fwd_group_serve(struct fwd_group *g)
{
	bool starting;

	if (g->cfg->session == TD_SESSION_PER_CONNECTION) {
		serve_reserved(g);
		return;
	}
	tnl_list_foreach_safe(it, &g->waiting) try_place(g, tnl_container_of(it, struct fwd_conn, node), true);
	unsigned n = count_sessions(g, &starting);
	bool wanted = !tnl_list_empty(&g->waiting) || (g->cfg->open_at_start && n == 0 && g->refs > 0);
	/* When none is up because the way there is broken, one more would not come up either. */
	if (n > 0 && !least_loaded(g))
		return;
	if (wanted && !starting && n < session_limit(g) && !g->f->draining && !fwd_session_start(g, local_port(g)))
		fwd_group_fail(g, "out of memory");
}

void fwd_group_place(struct fwd_group *g, struct fwd_conn *c)
{
	if (g->cfg->session != TD_SESSION_PER_CONNECTION && tnl_list_empty(&g->waiting) && try_place(g, c, true))
		return;
	tnl_list_push_back(&g->waiting, &c->node);
	td_timer_in(&c->patience, g->cfg->connect_timeout_ns);
	if (g->cfg->session == TD_SESSION_PER_CONNECTION) {
		struct fwd_session *s = fwd_session_start(g, local_port(g));
		if (!s) {
			fwd_conn_failed(c, "out of memory");
			return;
		}
		s->one_shot = true;
		s->reserved = c;
		return;
	}
	fwd_group_serve(g);
}

void fwd_group_fail(struct fwd_group *g, const char *why)
{
	bool starting;
	bool resuming = any_resuming(g); /* those who wait may wait for that one, up to connect_timeout */
	/* A pool that cannot grow still has what it has. */
	tnl_list_foreach_safe(it, &g->waiting)
	{
		struct fwd_conn *c = tnl_container_of(it, struct fwd_conn, node);
		if (!try_place(g, c, false) && !resuming)
			fwd_conn_failed(c, why);
	}
	if (g->cfg->open_at_start && g->refs > 0 && !g->f->draining && count_sessions(g, &starting) == 0)
		td_timer_in(&g->restart, td_backoff_next(&g->backoff));
}

bool fwd_group_wants_retry(struct fwd_group *g)
{
	tnl_list_foreach_safe(it, &g->waiting) try_place(g, tnl_container_of(it, struct fwd_conn, node), false);
	return !tnl_list_empty(&g->waiting) || (g->cfg->open_at_start && g->refs > 0);
}

void fwd_group_settle(struct fwd_group *g)
{
	struct td_forwarder *f = g->f;
	free_if_unused(g);
	fwd_check_drained(f);
}

void fwd_group_drop_idle(struct fwd_group *g)
{
	tnl_list_foreach_safe(it, &g->sessions)
	{
		struct fwd_session *s = tnl_container_of(it, struct fwd_session, node);
		if (fwd_session_load(s) == 0)
			fwd_session_end(s, "no longer wanted");
	}
	free_if_unused(g);
}

void fwd_group_kill(struct fwd_group *g)
{
	g->refs++;
	tnl_list_foreach_safe(it, &g->sessions) fwd_session_destroy(tnl_container_of(it, struct fwd_session, node));
	g->refs--;
	free_if_unused(g); /* no tunnel may be left to do that */
}
