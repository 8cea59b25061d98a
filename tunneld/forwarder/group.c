/* Groups: which connection goes to which session, who waits, and whether one more session is needed.  Starting and
 * ending them is asked for with `adjust`. */
#include "tunneld/forwarder/internal.h"

#include "lib/alloc.h"
#include "lib/num.h"

#include <stdio.h>
#include <string.h>

static bool str_same(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static bool group_fits(const struct fwd_group *g, const struct td_tunnel_config *t)
{
	struct td_tunnel_config a = *g->cfg, b = *t;
	if (g->proxy || t->type == TD_TUNNEL_PROXY) /* whose groups are its own */
		return false;
	if (!str_same(a.target, b.target) || a.select != b.select || !str_same(a.host, b.host) || a.port != b.port)
		return false;
	/* What is each tunnel's own affair does not separate sessions. */
	a.name = b.name;
	a.range = b.range;
	a.line = b.line;
	a.listen = b.listen;
	a.addrs = b.addrs;
	a.naddrs = b.naddrs;
	a.max_connections = b.max_connections;
	a.open_at_start = b.open_at_start;
	a.probe_ns = b.probe_ns;
	a.aws = *g->aws_cfg;
	a.required = b.required;
	a.one_shot = b.one_shot;
	a.groups = b.groups;
	a.send_proxy = b.send_proxy;
	a.bandwidth = b.bandwidth;
	a.udp_idle_ns = b.udp_idle_ns;
	a.max_flows = b.max_flows;
	a.udp_queue = b.udp_queue;
	a.socket_mode = b.socket_mode;
	a.socket_group = b.socket_group;
	/* A reverse tunnel's session has its listener, which goes with it. */
	return a.session == TD_SESSION_SHARED && a.type != TD_TUNNEL_REVERSE && td_tunnel_same(&a, &b);
}

bool fwd_group_fits_aws(const struct fwd_group *g, const struct td_aws_config *conf)
{
	return td_aws_config_same(g->aws_cfg, conf);
}

bool fwd_group_off_config(const struct fwd_group *g)
{
	tnl_list_foreach(it, &g->f->tunnels) {
		const struct fwd_tunnel *t = tnl_container_of(it, struct fwd_tunnel, node);
		if (fwd_group_is_for(g, t) && !t->closing)
			return false;
	}
	return true;
}

static void serve_now(void *arg)
{
	fwd_group_serve(arg);
}

static struct fwd_group *group_new(struct td_forwarder *f, const struct td_tunnel_config *t,
				   void (*adjust)(void *group), char *why, size_t cap)
{
	struct fwd_group *g = tnl_calloc(1, sizeof(*g));

	if (!g)
		return NULL;
	g->f = f;
	g->adjust_fn = adjust;
	tnl_list_init(&g->dest);
	g->cfg = t;
	g->aws_cfg = &t->aws;
	g->idle_at = f->loop->now;
	g->aws = td_aws_new(f->loop, &t->aws, why, cap);
	if (!g->aws) {
		tnl_free(g);
		return NULL;
	}
	tnl_list_init(&g->sessions);
	tnl_list_init(&g->waiting);
	td_soon_init(&g->serve, f->loop, serve_now, g);
	td_soon_init(&g->adjust, f->loop, adjust, g);
	td_timer_init(&g->restart, f->loop, serve_now, g);
	td_timer_init(&g->forsaken, f->loop, NULL, g);
	td_backoff_init(&g->backoff, t->reconnect_min_ns, t->reconnect_max_ns);
	tnl_list_push_back(&f->groups, &g->node);
	return g;
}

struct fwd_group *fwd_group_get(struct td_forwarder *f, const struct td_config *owner, const struct td_tunnel_config *t,
				void (*adjust)(void *group), char *why, size_t cap)
{
	struct fwd_group *g;
	tnl_list_foreach(it, &f->groups) {
		g = tnl_container_of(it, struct fwd_group, node);
		if (group_fits(g, t)) {
			g->refs++;
			return g;
		}
	}
	g = group_new(f, t, adjust, why, cap);
	if (g) {
		g->owner = td_config_ref(owner);
		g->aws_owner = td_config_ref(owner);
		g->refs = 1;
	}
	return g;
}

struct fwd_group *fwd_group_new_dest(struct fwd_proxy *p, const char *host, uint16_t port, char *why, size_t cap)
{
	const struct fwd_group *own = p->t->group;
	struct td_tunnel_config *tc = tnl_malloc(sizeof(*tc));
	struct fwd_group *g = NULL;

	snprintf(why, cap, "out of memory");
	if (!tc)
		return NULL;
	*tc = *p->t->cfg; /* what it points to is the owner's, but the host */
	tc->port = port;
	tc->host = tnl_strdup(host);
	if (tc->host)
		g = group_new(own->f, tc, own->adjust_fn, why, cap);
	if (!g) {
		tnl_free(tc->host);
		tnl_free(tc);
		return NULL;
	}
	g->own_cfg = tc;
	g->owner = td_config_ref(p->t->owner);
	g->aws_owner = td_config_ref(p->t->owner);
	g->refs = 1;
	g->proxy = p;
	tnl_list_push_back(&p->dests, &g->dest);
	p->ndests++;
	return g;
}

/* Its memory: a callback from its td_aws may be on its way back. */
static void group_free(void *arg)
{
	struct fwd_group *g = arg;
	td_aws_free(g->aws);
	if (g->own_cfg)
		tnl_free(g->own_cfg->host);
	tnl_free(g->own_cfg);
	td_config_free((struct td_config *)(uintptr_t)g->owner);
	td_config_free((struct td_config *)(uintptr_t)g->aws_owner);
	tnl_free(g);
}

/* A destination is let go when nobody uses it. */
static void leave_proxy(struct fwd_group *g)
{
	struct fwd_proxy *p = g->proxy;
	if (!p || !fwd_group_is_dest(g) || !tnl_list_empty(&g->sessions) || !tnl_list_empty(&g->waiting))
		return;
	tnl_list_remove(&g->dest);
	g->proxy = NULL;
	g->refs = 0;
	p->ndests--;
	td_soon_do(&p->settle);
}

void fwd_group_settle(struct fwd_group *g)
{
	td_soon_do(&g->f->settle);
	if (tnl_list_empty(&g->sessions))
		g->idle_at = g->f->loop->now;
	leave_proxy(g);
	if (g->refs > 0 || !tnl_list_empty(&g->sessions) || !tnl_list_empty(&g->waiting))
		return;
	td_soon_cancel(&g->serve);
	td_soon_cancel(&g->adjust);
	td_timer_stop(&g->restart);
	td_timer_stop(&g->forsaken);
	tnl_list_remove(&g->node);
	td_loop_defer(g->f->loop, group_free, g);
}

void fwd_group_renew(struct fwd_group *g, struct td_aws *aws, const struct td_aws_config *conf,
		     const struct td_config *owner)
{
	const struct td_config *old_owner = g->aws_owner;
	struct td_aws *old = g->aws;
	g->aws = td_aws_ref(aws);
	g->aws_cfg = conf;
	g->aws_owner = td_config_ref(owner);
	tnl_list_foreach(it, &g->sessions)
		td_client_renew(tnl_container_of(it, struct fwd_session, node)->client, aws);
	g->needs_login = false;
	td_backoff_init(&g->backoff, g->cfg->reconnect_min_ns, g->cfg->reconnect_max_ns);
	td_soon_do(&g->serve);
	td_aws_free(old);
	td_config_free((struct td_config *)(uintptr_t)old_owner);
}

void fwd_group_put(struct fwd_group *g)
{
	g->refs--;
	td_soon_do(&g->adjust);
	fwd_group_settle(g);
}

/* --- what there is -------------------------------------------------------------------------- */

static unsigned session_limit(const struct fwd_group *g)
{
	return g->cfg->session == TD_SESSION_POOL ? TNL_MAX(g->cfg->pool, 1u) : 1;
}

static unsigned count_sessions(const struct fwd_group *g)
{
	unsigned n = 0;
	tnl_list_foreach(it, &g->sessions)
		n += !tnl_container_of(it, struct fwd_session, node)->ending;
	return n;
}

static bool any_starting(const struct fwd_group *g)
{
	tnl_list_foreach(it, &g->sessions) {
		const struct fwd_session *s = tnl_container_of(it, struct fwd_session, node);
		if (!s->ending && !td_client_was_ready(s->client))
			return true;
	}
	return false;
}

/* One that is resuming will take streams again. */
static bool any_resuming(const struct fwd_group *g)
{
	tnl_list_foreach(it, &g->sessions) {
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
	return str_same(a->cfg->target, b->cfg->target) && str_same(a->aws_cfg->region, b->aws_cfg->region) &&
	       str_same(a->aws_cfg->ssm_endpoint, b->aws_cfg->ssm_endpoint);
}

bool fwd_target_recovering(const struct fwd_group *g)
{
	tnl_list_foreach(it, &g->f->groups) {
		const struct fwd_group *other = tnl_container_of(it, struct fwd_group, node);
		if (same_target(g, other) && recovering(other, g->cfg->connect_timeout_ns))
			return true;
	}
	return false;
}

const struct fwd_session *fwd_group_speaker(const struct fwd_group *g)
{
	const struct fwd_session *any = NULL;

	tnl_list_foreach(it, &g->sessions) {
		const struct fwd_session *s = tnl_container_of(it, struct fwd_session, node);
		if (fwd_session_up(s))
			return s;
		if (!s->ending)
			any = s;
	}
	return any;
}

/* The session with the fewest streams that is up now. */
static struct fwd_session *least_loaded(const struct fwd_group *g)
{
	struct fwd_session *best = NULL;
	tnl_list_foreach(it, &g->sessions) {
		struct fwd_session *s = tnl_container_of(it, struct fwd_session, node);
		if (fwd_session_up(s) && !s->ending && !s->one_shot &&
		    (!best || fwd_session_busy(s) < fwd_session_busy(best)))
			best = s;
	}
	return best;
}

/* --- placing -------------------------------------------------------------------------------- */

/* What the stream says of where it goes; NULL: its session says it. */
static const struct tnl_head *destination(const struct fwd_session *s, const struct fwd_conn *c, struct tnl_head *path)
{
	const struct tnl_session_info *info = tnl_session_info(td_pump_session(td_client_pump(s->client)));
	const char *socket = s->group->cfg->path;
	if (!info->dial)
		return NULL;
	if (c->to)
		return c->to;
	return socket && tnl_head_set(path, TNL_HEAD_UNIX, socket, 0) == 0 ? path : NULL;
}

static bool place_on(struct fwd_session *s, struct fwd_conn *c)
{
	int err = 0;
	struct td_pump *pump = td_client_pump(s->client);
	const struct fwd_guest *guest = c->guest;
	struct tnl_head path;
	const struct tnl_head *to = destination(s, c, &path);
	if (c->to && !to && !fwd_group_is_dest(s->group))
		return false;
	struct td_pipe *p = c->flow ? td_pipe_flow(pump, c->flow, c, &err)
			    : guest ? td_pipe_fds_to(pump, guest->fds[0], guest->fds[1], to, c, &err)
				    : td_pipe_client_to(pump, c->fd, to, c->answer, c, &err);
	if (!p)
		return false;
	if (guest)
		td_pipe_end_sink(p, guest->flags[1]);
	td_timer_stop(&s->idle);
	c->group = s->group;
	td_pipe_pace(p, c->tunnel->share->pace);
	if (c->head_len && td_pipe_lead(p, c->head, c->head_len) < 0)
		td_pipe_abort(p, TNL_RESET_LIMIT);
	fwd_conn_placed(c, s, p);
	return true;
}

static bool try_place(struct fwd_group *g, struct fwd_conn *c, bool may_grow)
{
	struct fwd_session *s = least_loaded(g);
	if (!s)
		return false;
	/* A pool grows while all of it is busy: the connection waits for the new session, which no other can stall.
	 * For a probe it does not. */
	if (may_grow && !c->watch && fwd_session_busy(s) > 0 && count_sessions(g) < session_limit(g))
		return false;
	return place_on(s, c);
}

/* Each has a session that was started for it. */
static void serve_reserved(struct fwd_group *g)
{
	tnl_list_foreach_safe(it, &g->waiting) {
		struct fwd_conn *c = tnl_container_of(it, struct fwd_conn, node);
		struct fwd_session *s = c->session;
		if (!s || s->ending || !fwd_session_up(s))
			continue;
		if (place_on(s, c))
			s->reserved = NULL;
		else
			fwd_conn_fail(c, FWD_F_SESSION, "the session takes no stream");
	}
}

static void serve_waiting(struct fwd_group *g, bool may_grow)
{
	tnl_list_foreach_safe(it, &g->waiting)
		try_place(g, tnl_container_of(it, struct fwd_conn, node), may_grow);
}

bool fwd_group_opens_by_itself(const struct fwd_group *g)
{
	tnl_list_foreach(it, &g->f->tunnels) {
		const struct fwd_tunnel *t = tnl_container_of(it, struct fwd_tunnel, node);
		if (t->group == g && t->cfg->open_at_start && !t->closing && !t->closed && !t->reverse.resting)
			return true;
	}
	return false;
}

bool fwd_group_wanted(const struct fwd_group *g)
{
	if (!tnl_list_empty(&g->waiting))
		return true;
	tnl_list_foreach(it, &g->f->tunnels) {
		const struct fwd_tunnel *t = tnl_container_of(it, struct fwd_tunnel, node);
		if (fwd_group_is_for(g, t) && !t->closing && !t->closed)
			return true;
	}
	return false;
}

bool fwd_group_needs_session(const struct fwd_group *g)
{
	unsigned n = count_sessions(g);
	bool asked = g->asked && fwd_group_wanted(g); /* what was asked for by hand goes with its tunnels */
	if (g->proxy && !fwd_group_is_dest(g) && g->proxy->no_dial_until > g->f->loop->now)
		return false; /* it would be of no use */
	if (tnl_list_empty(&g->waiting) && !((asked || fwd_group_opens_by_itself(g)) && n == 0))
		return false;
	/* When none is up because the way there is broken, one more would not come up either. */
	if (n > 0 && !least_loaded(g))
		return false;
	return n < session_limit(g) && !any_starting(g) && g->f->state == FWD_RUNNING;
}

void fwd_group_serve(struct fwd_group *g)
{
	if (g->cfg->session == TD_SESSION_PER_CONNECTION)
		serve_reserved(g);
	else
		serve_waiting(g, true);
	td_soon_do(&g->adjust);
}

const char *fwd_group_trouble(const struct fwd_group *g)
{
	tnl_list_foreach(it, &g->sessions) {
		const struct fwd_session *s = tnl_container_of(it, struct fwd_session, node);
		if (!s->ending && td_client_last_error(s->client)[0])
			return td_client_last_error(s->client);
	}
	return g->last_error;
}

static void give_up(void *arg)
{
	struct fwd_conn *c = arg;
	const char *trouble = fwd_group_trouble(c->group);
	char why[400];
	snprintf(why, sizeof(why), "no session within connect_timeout%s%s", trouble[0] ? "; last error: " : "",
		 trouble);
	fwd_conn_fail(c, FWD_F_TIMEOUT, why);
}

void fwd_group_place(struct fwd_group *g, struct fwd_conn *c)
{
	if (g->cfg->session != TD_SESSION_PER_CONNECTION && tnl_list_empty(&g->waiting) && try_place(g, c, true))
		return;
	c->group = g;
	tnl_list_push_back(&g->waiting, &c->node);
	c->patience.fn = give_up;
	td_timer_in(&c->patience, g->cfg->connect_timeout_ns);
	fwd_group_serve(g);
}

/* Of one destination of a proxy: the gateway's rules are rules, as the agent's are. */
static enum fwd_failure kind_of_refusal(const struct fwd_group *g)
{
	bool denied = fwd_group_is_dest(g) && strcmp(g->refusal.type, "AccessDeniedException") == 0;
	return denied ? FWD_F_DENIED : FWD_F_SESSION;
}

void fwd_group_fail(struct fwd_group *g, const char *why)
{
	serve_waiting(g, false); /* a pool that cannot grow still has what it has */
	/* Those who are left may wait for one that is resuming, up to connect_timeout. */
	bool resuming = any_resuming(g);
	tnl_list_foreach_safe(it, &g->waiting) {
		if (!resuming)
			fwd_conn_fail(tnl_container_of(it, struct fwd_conn, node), kind_of_refusal(g), why);
	}
	if (fwd_group_opens_by_itself(g) && g->f->state == FWD_RUNNING && count_sessions(g) == 0)
		td_timer_in(&g->restart, td_backoff_next(&g->backoff));
}

bool fwd_group_needs_retry(struct fwd_group *g)
{
	serve_waiting(g, false);
	return !tnl_list_empty(&g->waiting) || fwd_group_opens_by_itself(g);
}
