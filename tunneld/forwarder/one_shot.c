/* One-shot commands (connect, exec, forward) on this daemon's sessions.
 *
 *   {"v":1,"kind":"connect","name":"web","target":"i-…","host":null,"port":22,"flags":[0,1],"env":"…"}  + two
 * descriptors joined to a stream, as an accepted socket is {…"kind":"listen"…}  + a socket that listens its connections
 * are ours, as those of a tunnel that lives as long as the command does {…"kind":"use"…} nothing but an open tunnel of
 * the configuration is asked for
 *
 * The command reads its own configuration and environment: what it means must be what we would do, else it is told no
 * and does all of it by itself.  An alias has no tunnel here: it gets a hidden one, which keeps its session for the
 * next command, up to idle_timeout. */
#include "tunneld/forwarder/internal.h"

#include "lib/json.h"
#include "tunneld/base/fd.h"
#include "tunneld/base/log.h"

#include <string.h>

enum { VERSION = 1, GUESTS_MAX = 1000 };

struct wish {
	const char *kind, *name, *target, *host, *env;
	uint16_t port;
	int flags[2];
};

static bool read_wish(const struct tnl_json *j, struct wish *w)
{
	int64_t version = 0, port = 0, flags[2] = {-1, -1};
	tnl_json_int(tnl_json_get(j, "v"), &version);
	tnl_json_int(tnl_json_get(j, "port"), &port);
	for (int i = 0; i < 2; i++)
		tnl_json_int(tnl_json_at(tnl_json_get(j, "flags"), i), &flags[i]);
	*w = (struct wish){.kind = tnl_json_get_str(j, "kind"),
			   .name = tnl_json_get_str(j, "name"),
			   .target = tnl_json_get_str(j, "target"),
			   .host = tnl_json_get_str(j, "host"),
			   .env = tnl_json_get_str(j, "env"),
			   .port = (uint16_t)port,
			   .flags = {(int)flags[0], (int)flags[1]}};
	return version == VERSION && w->kind && w->name && w->target && w->env && port > 0 && port <= 65535;
}

static bool same_text(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static const struct td_tunnel_config *find_section(const struct td_config *c, const char *name)
{
	for (int i = 0; i < c->fwd.ntunnels; i++)
		if (strcmp(c->fwd.tunnels[i].name, name) == 0)
			return &c->fwd.tunnels[i];
	for (int i = 0; i < c->fwd.naliases; i++)
		if (strcmp(c->fwd.aliases[i].name, name) == 0)
			return &c->fwd.aliases[i];
	return NULL;
}

/* Do its keys come from where ours do? */
static bool same_account(const struct td_tunnel_config *t, const char *env)
{
	char ours[65];
	if (t->aws.region && (t->aws.profile || t->aws.access_key_id))
		return true;
	td_aws_environment_digest(ours);
	return strcmp(ours, env) == 0;
}

static bool leads_there(const struct td_tunnel_config *t, const struct wish *w)
{
	bool elsewhere = strcmp(w->kind, "listen") == 0; /* forward names host and port itself */
	return same_text(t->target, w->target) && (elsewhere || (same_text(t->host, w->host) && t->port == w->port));
}

/* NULL: *why. */
static const struct td_tunnel_config *permitted(const struct td_forwarder *f, const struct wish *w, const char **why)
{
	const struct td_tunnel_config *t = find_section(f->cfg, w->name);
	*why = f->state != FWD_RUNNING		   ? "the daemon is draining"
	       : !t				   ? "the daemon's configuration has no such tunnel or alias"
	       : !t->one_shot			   ? "one_shot = no"
	       : t->type != TD_TUNNEL_TCP	   ? "it is no tunnel of that kind"
	       : !leads_there(t, w)		   ? "in the daemon's configuration it leads elsewhere"
	       : !same_account(t, w->env)	   ? "AWS_… variables differ from the daemon's"
	       : td_memory_full() || td_fd_short() ? "the daemon is short of memory or descriptors"
	       : f->nguests >= GUESTS_MAX	   ? "the daemon serves too many commands"
						   : NULL;
	return *why ? NULL : t;
}

/* A configuration for what is asked: nowhere it listens, and nothing it does by itself. */
static struct td_config *single(const struct td_forwarder *f, const struct td_tunnel_config *section, const char *host,
				uint16_t port)
{
	struct td_config *c = td_config_single(f->cfg, section, NULL, 0);
	struct td_tunnel_config *t = &c->fwd.tunnels[0];
	td_config_name_host(t, host, port);
	t->open_at_start = false;
	t->probe_ns = 0;
	return c;
}

/* --- hidden tunnels -------------------------------------------------------------------- */

static bool has_guest(const struct fwd_tunnel *t)
{
	tnl_list_foreach(it, &t->f->tunnels) {
		const struct fwd_tunnel *other = tnl_container_of(it, struct fwd_tunnel, node);
		if (other->group == t->group && other->guest)
			return true;
	}
	return false;
}

static void linger_over(void *arg)
{
	struct fwd_tunnel *t = arg;
	if (t->connections || has_guest(t))
		td_timer_in(&t->linger, t->cfg->idle_timeout_ns);
	else
		fwd_tunnel_close(t);
}

static struct fwd_tunnel *find_hidden(const struct td_forwarder *f, const struct td_tunnel_config *like)
{
	tnl_list_foreach(it, &f->tunnels) {
		struct fwd_tunnel *t = tnl_container_of(it, struct fwd_tunnel, node);
		if (t->hidden && !t->guest && !t->closing && td_tunnel_same(t->cfg, like))
			return t;
	}
	return NULL;
}

/* A tunnel of its own, which listens nowhere yet. */
static struct fwd_tunnel *make_hidden(struct td_forwarder *f, const struct td_config *cfg, char *why, size_t cap)
{
	struct fwd_tunnel *t = fwd_tunnel_new(f, cfg, &cfg->fwd.tunnels[0], true, why, cap);
	if (t)
		t->hidden = true;
	return t;
}

/* What is left of a command for the next one: the session. */
static struct fwd_tunnel *get_hidden(struct td_forwarder *f, const struct td_config *cfg, char *why, size_t cap)
{
	struct fwd_tunnel *t = find_hidden(f, &cfg->fwd.tunnels[0]);
	if (!t && (t = make_hidden(f, cfg, why, cap)) != NULL)
		td_timer_init(&t->linger, f->loop, linger_over, t);
	if (t)
		td_timer_in(&t->linger, t->cfg->idle_timeout_ns);
	return t;
}

void fwd_one_shots_reload(struct td_forwarder *f)
{
	tnl_list_foreach_safe(it, &f->tunnels) {
		struct fwd_tunnel *t = tnl_container_of(it, struct fwd_tunnel, node);
		if (!t->hidden || t->guest || t->closing)
			continue;
		const struct td_tunnel_config *now = find_section(f->cfg, t->cfg->name);
		struct td_config *next = now ? single(f, now, t->cfg->host, t->cfg->port) : NULL;
		if (!next || !td_tunnel_same(&next->fwd.tunnels[0], t->cfg))
			fwd_tunnel_close(t);
		td_config_free(next);
	}
}

/* --- how it goes on ---------------------------------------------------------------------- */

static void cut_connections(struct fwd_tunnel *t)
{
	tnl_list_foreach_safe(it, &t->group->waiting) {
		struct fwd_conn *c = tnl_container_of(it, struct fwd_conn, node);
		if (c->tunnel == t)
			fwd_conn_fail(c, FWD_F_SHUTDOWN, "the command has ended");
	}
	tnl_list_foreach(it, &t->conns)
		td_pipe_abort(tnl_container_of(it, struct fwd_conn, node)->pipe, TNL_RESET_SHUTDOWN);
}

static void settle_connect(struct fwd_guest *g)
{
	if (!g->gone && g->fd >= 0)
		return;
	if (g->conn && g->conn->pipe)
		td_pipe_abort(g->conn->pipe, TNL_RESET_PEER);
	else if (g->conn)
		fwd_conn_fail(g->conn, FWD_F_SHUTDOWN, "the command has ended");
	if (!g->conn)
		fwd_guest_free(g);
}

static void settle_listen(struct fwd_guest *g)
{
	struct fwd_tunnel *t = g->tunnel;
	if (t && g->leaving)
		fwd_tunnel_stop_listening(t);
	if (t && g->leaving && t->connections == 0)
		fwd_guest_end(g, "ok", 0, "", "");
	if (!g->gone && g->fd >= 0)
		return;
	g->tunnel = NULL;
	if (t) {
		t->guest = NULL;
		cut_connections(t);
		fwd_tunnel_close(t);
	}
	fwd_guest_free(g);
}

static void settle(void *arg)
{
	struct fwd_guest *g = arg;
	if (g->kind == FWD_GUEST_CONNECT)
		settle_connect(g);
	else if (g->kind == FWD_GUEST_LISTEN)
		settle_listen(g);
	else if (g->gone || g->leaving || g->fd < 0)
		fwd_guest_free(g);
}

/* --- how it begins ------------------------------------------------------------------------- */

struct asked {
	struct td_forwarder *f;
	const struct wish *w;
	const struct td_tunnel_config *section;
	int fd, nfds;
	const int *fds;
};

/* A tunnel of the configuration that is open. */
static struct fwd_tunnel *find_tunnel(const struct td_forwarder *f, const char *name)
{
	tnl_list_foreach(it, &f->tunnels) {
		struct fwd_tunnel *t = tnl_container_of(it, struct fwd_tunnel, node);
		if (!t->hidden && !t->closing && !t->closed && strcmp(t->cfg->name, name) == 0)
			return t;
	}
	return NULL;
}

/* It is not served: what came with it is its own again. */
static void give_back(struct fwd_guest *g)
{
	g->fd = g->fds[0] = g->fds[1] = -1;
	fwd_guest_free(g);
}

static bool serve_connect(const struct asked *a, char *why, size_t cap)
{
	struct fwd_tunnel *t = find_tunnel(a->f, a->w->name);
	if (!t && !a->section->naddrs) {
		struct td_config *c = single(a->f, a->section, a->w->host, a->w->port);
		t = get_hidden(a->f, c, why, cap);
		td_config_free(c);
	}
	if (!t || fwd_tunnel_full(t)) {
		snprintf(why, cap, "%s", !t ? "the tunnel is closed" : "the tunnel has max_connections");
		return false;
	}
	struct fwd_guest *g = fwd_guest_new(a->f, FWD_GUEST_CONNECT, a->fd, a->fds, a->nfds, settle);
	if (!g)
		return false;
	memcpy(g->flags, a->w->flags, sizeof(g->flags));
	struct fwd_conn *c = fwd_conn_new_guest(t, g);
	if (!c) {
		give_back(g);
		return false;
	}
	fwd_guest_taken(g, NULL, 0);
	t->accepted++;
	fwd_group_place(t->group, c);
	return true;
}

/* It is told that it is up, now or when it is. */
static void want_session(struct fwd_guest *g)
{
	struct fwd_group *group = g->tunnel->group;
	const struct fwd_session *s = fwd_group_speaker(group);
	if (group->cfg->session == TD_SESSION_PER_CONNECTION || (s && fwd_session_up(s))) {
		fwd_guest_up(g);
		return;
	}
	group->asked = true;
	fwd_group_serve(group);
}

static struct fwd_tunnel *listen_for(const struct asked *a, char *why, size_t cap)
{
	struct td_config *c = single(a->f, a->section, a->w->host, a->w->port);
	struct fwd_tunnel *kept = NULL, *t;
	if (c->fwd.tunnels[0].session == TD_SESSION_SHARED)
		kept = get_hidden(a->f, c, why, cap);
	t = make_hidden(a->f, c, why, cap);
	td_config_free(c);
	if (t && fwd_tunnel_listen_on(t, a->fds[0], why, cap) == 0)
		return t;
	if (t)
		fwd_tunnel_close(t);
	if (kept && !kept->connections)
		td_timer_in(&kept->linger, 0);
	return NULL;
}

static bool serve_listen(const struct asked *a, char *why, size_t cap)
{
	struct fwd_guest *g = fwd_guest_new(a->f, FWD_GUEST_LISTEN, a->fd, NULL, 0, settle);
	struct fwd_tunnel *t = g ? listen_for(a, why, cap) : NULL;
	if (!t && g)
		give_back(g);
	if (!t)
		return false;
	t->guest = g;
	g->tunnel = t;
	fwd_guest_taken(g, t->bound, t->nlisteners);
	fwd_tunnel_begin(t);
	want_session(g);
	return true;
}

static bool serve_use(const struct asked *a, char *why, size_t cap)
{
	struct fwd_tunnel *t = find_tunnel(a->f, a->w->name);
	if (!t || !t->nlisteners) {
		snprintf(why, cap, "the tunnel does not listen");
		return false;
	}
	struct fwd_guest *g = fwd_guest_new(a->f, FWD_GUEST_USE, a->fd, NULL, 0, settle);
	if (!g)
		return false;
	g->tunnel = t;
	fwd_guest_taken(g, t->bound, t->nlisteners);
	want_session(g);
	return true;
}

/* As many descriptors as the kind takes, and none that the loop could not wait for. */
static bool has_descriptors(const struct wish *w, const int *fds, int nfds)
{
	int wants = strcmp(w->kind, "connect") == 0 ? 2 : strcmp(w->kind, "listen") == 0;
	for (int i = 0; i < nfds; i++)
		if (!td_fd_is_stream(fds[i]))
			return false;
	return nfds == wants;
}

bool td_forwarder_one_shot(struct td_forwarder *f, const char *words, int fd, const int *fds, int nfds, char *why,
			   size_t cap)
{
	struct tnl_json *j = tnl_json_parse(words, strlen(words));
	struct wish w;
	const char *fault = "the request is of another version";
	bool taken = false;
	snprintf(why, cap, "out of memory");
	struct asked a = {.f = f, .w = &w, .fd = fd, .fds = fds, .nfds = nfds};
	bool readable = read_wish(j, &w);
	if (readable && !has_descriptors(&w, fds, nfds))
		fault = "the descriptors that came with it are not those that it takes";
	else if (readable && (a.section = permitted(f, &w, &fault)) != NULL) {
		fault = NULL;
		taken = strcmp(w.kind, "connect") == 0	? serve_connect(&a, why, cap)
			: strcmp(w.kind, "listen") == 0 ? serve_listen(&a, why, cap)
			: strcmp(w.kind, "use") == 0	? serve_use(&a, why, cap)
							: false;
	}
	if (fault)
		snprintf(why, cap, "%s", fault);
	if (taken)
		td_info(FWD_MOD, NULL, "serves %s tunnel=%s target=%s", w.kind, w.name, w.target);
	tnl_json_free(j);
	return taken;
}
