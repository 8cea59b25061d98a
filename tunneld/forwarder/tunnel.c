/* Tunnels: they listen, accept for their group, and stop accepting at max_connections and while memory is short.  One
 * that is off the configuration stays until its connections have finished. */
#include "tunneld/forwarder/internal.h"

#include "lib/alloc.h"
#include "lib/num.h"
#include "tunneld/base/log.h"
#include "tunneld/net/listen.h"

#include <stdio.h>

#define RELISTEN_MIN TD_SEC
#define RELISTEN_MAX (10 * TD_SEC)
#define REVERSE_MAX (60 * TD_SEC)

static void on_memory_room(void *arg);

static void set_pause(struct fwd_tunnel *t)
{
	if (t->udp)
		return; /* it drops what it cannot take */
	bool pause = fwd_tunnel_full(t) || td_memory_full();
	if (td_memory_full()) /* whatever else it is paused for */
		td_memory_on_room(&t->room, t->f->loop, on_memory_room, t);
	if (pause == t->paused)
		return;
	t->paused = pause;
	if (pause)
		td_info(FWD_MOD, NULL, "listener paused tunnel=%s connections=%u", t->cfg->name, fwd_tunnel_open(t));
	for (int i = 0; i < t->nlisteners; i++)
		td_listener_pause(t->listeners[i], pause);
}

/* It, and the others of its range when that is full now or not any more. */
static void update_pause(struct fwd_tunnel *t)
{
	bool full = fwd_tunnel_full(t), changed = full != t->share->full;
	set_pause(t);
	t->share->full = full;
	if (changed)
		tnl_list_foreach(it, &t->share->tunnels)
			set_pause(tnl_container_of(it, struct fwd_tunnel, by_share));
}

static void on_memory_room(void *arg)
{
	struct fwd_tunnel *t = arg;
	td_memory_off_room(&t->room);
	update_pause(t);
}

/* --- listening ------------------------------------------------------------------------------ */

static void on_accept(void *ctx, int fd, const struct td_addr *peer)
{
	struct fwd_tunnel *t = ctx;
	struct fwd_conn *c = fwd_conn_new(t, fd, peer);

	if (!c)
		return;
	t->accepted++;
	if (t->cfg->type == TD_TUNNEL_PROXY) {
		fwd_proxy_greet(c, peer);
		update_pause(t);
		return;
	}
	update_pause(t);
	fwd_group_place(t->group, c);
}

bool fwd_tunnel_full(const struct fwd_tunnel *t)
{
	return fwd_share_connections(t->share) >= t->cfg->max_connections;
}

void fwd_tunnel_stop_listening(struct fwd_tunnel *t)
{
	td_timer_stop(&t->relisten);
	if (fwd_tunnel_is_reverse(t))
		fwd_reverse_stop(t);
	for (int i = 0; i < t->nlisteners; i++) {
		td_listener_free(t->listeners[i]);
		t->listeners[i] = NULL;
	}
	t->nlisteners = 0;
	fwd_udp_close(t->udp);
}

static int listen_on(struct fwd_tunnel *t, const struct td_addr *a, char *why, size_t cap)
{
	int i = t->nlisteners;
	if (t->udp)
		return fwd_udp_listen(t->udp, a, &t->bound[i], why, cap);
	t->listeners[i] = td_listen(t->f->loop, a, on_accept, t, why, cap);
	if (!t->listeners[i])
		return -1;
	if (td_listener_permit(t->listeners[i], t->cfg->socket_mode, t->cfg->socket_group, why, cap) < 0) {
		td_listener_free(t->listeners[i]);
		return -1;
	}
	td_listener_addr(t->listeners[i], &t->bound[i]);
	td_listener_pause(t->listeners[i], t->paused);
	return 0;
}

int fwd_tunnel_listen(struct fwd_tunnel *t, char *why, size_t cap)
{
	t->listen_error[0] = '\0';
	td_timer_stop(&t->relisten);
	if (fwd_tunnel_is_reverse(t))
		fwd_reverse_start(t);
	for (int i = 0; i < t->cfg->naddrs && i < FWD_MAX_LISTEN; i++) {
		char text[160];
		if (listen_on(t, &t->cfg->addrs[i], text, sizeof(text)) < 0) {
			snprintf(why, cap, "tunnel %s: %s", t->cfg->name, text);
			fwd_tunnel_stop_listening(t);
			return -1;
		}
		t->nlisteners++;
	}
	return 0;
}

int fwd_tunnel_listen_on(struct fwd_tunnel *t, int fd, char *why, size_t cap)
{
	struct td_listener *l = td_listen_on(t->f->loop, fd, on_accept, t, why, cap);
	if (!l)
		return -1;
	t->listeners[t->nlisteners] = l;
	td_listener_addr(l, &t->bound[t->nlisteners++]);
	return 0;
}

void td_forwarder_announce(const struct td_tunnel_config *t, const char *target, const struct td_addr *a)
{
	char s[TD_ADDR_STR];
	td_addr_str(a, s);
	if (t->type == TD_TUNNEL_PROXY)
		td_info(FWD_MOD, NULL, "listening tunnel=%s address=%s target=%s type=proxy", t->name, s, target);
	else
		td_info(FWD_MOD, NULL, "listening tunnel=%s address=%s target=%s host=%s port=%u", t->name, s, target,
			td_tunnel_host(t), t->port);
}

static void announce(const struct fwd_tunnel *t)
{
	if (fwd_tunnel_is_reverse(t))
		td_info(FWD_MOD, NULL, "reverse tunnel=%s target=%s bind=%s connect=%s", t->cfg->name, t->cfg->target,
			t->cfg->bind, t->cfg->connect);
	for (int i = 0; i < t->nlisteners; i++)
		td_forwarder_announce(t->cfg, t->cfg->target, &t->bound[i]);
}

static void listen_again(void *arg)
{
	struct fwd_tunnel *t = arg;
	char why[256];
	if (fwd_tunnel_is_reverse(t))
		fwd_reverse_again(t);
	else if (fwd_tunnel_listen(t, why, sizeof(why)) == 0)
		announce(t);
	else
		fwd_tunnel_listen_later(t, why);
}

void fwd_tunnel_listen_later(struct fwd_tunnel *t, const char *why)
{
	snprintf(t->listen_error, sizeof(t->listen_error), "%s", why);
	td_timer_in(&t->relisten, td_backoff_next(&t->backoff));
}

/* --- the tunnel ----------------------------------------------------------------------------- */

/* What only some have; false: no memory. */
static bool has_parts(struct fwd_tunnel *t)
{
	if (t->cfg->type == TD_TUNNEL_UDP)
		t->udp = fwd_udp_new(t);
	return fwd_share_join(t) && (t->cfg->type != TD_TUNNEL_UDP || t->udp);
}

static void free_parts(struct fwd_tunnel *t)
{
	fwd_udp_free(t->udp);
	fwd_share_leave(t);
	tnl_free(t);
}

static void tunnel_free(struct fwd_tunnel *t)
{
	td_soon_cancel(&t->settle);
	td_timer_stop(&t->probe.timer);
	td_timer_stop(&t->relisten);
	td_timer_stop(&t->linger);
	td_memory_off_room(&t->room);
	fwd_reverse_drop(t);
	tnl_list_remove(&t->node);
	fwd_guests_forget(t);
	if (t->group->proxy == &t->proxy)
		t->group->proxy = NULL;
	fwd_proxy_fini(&t->proxy);
	fwd_group_put(t->group);
	td_config_free((struct td_config *)(uintptr_t)t->owner);
	free_parts(t);
}

static bool has_finished(const struct fwd_tunnel *t)
{
	return t->closing && t->connections == 0 && !t->probe.conn;
}

static void settle_tunnel(void *arg)
{
	struct fwd_tunnel *t = arg;

	td_soon_do(&t->f->settle);
	if (t->guest)
		td_soon_do(&t->guest->settle);
	fwd_proxy_admit(&t->proxy);
	update_pause(t);
	if (has_finished(t))
		tunnel_free(t);
}

struct fwd_tunnel *fwd_tunnel_new(struct td_forwarder *f, const struct td_config *cfg,
				  const struct td_tunnel_config *tc, bool must, char *why, size_t cap)
{
	struct fwd_tunnel *t = tnl_calloc(1, sizeof(*t));
	char text[300] = "out of memory";

	if (!t) {
		snprintf(why, cap, "out of memory");
		return NULL;
	}
	t->f = f;
	t->cfg = tc;
	tnl_list_init(&t->node);
	tnl_list_init(&t->by_share);
	tnl_list_init(&t->conns);
	tnl_list_init(&t->reverse.dialing);
	td_soon_init(&t->settle, f->loop, settle_tunnel, t);
	td_timer_init(&t->linger, f->loop, NULL, t);
	td_timer_init(&t->relisten, f->loop, listen_again, t);
	td_backoff_init(&t->backoff, RELISTEN_MIN, fwd_tunnel_is_reverse(t) ? REVERSE_MAX : RELISTEN_MAX);
	fwd_probe_init(&t->probe, t);
	fwd_proxy_init(&t->proxy, t);
	if (has_parts(t))
		t->group = fwd_group_get(f, cfg, tc, fwd_session_adjust, text, sizeof(text));
	if (!t->group) {
		snprintf(why, cap, "tunnel %s: %s", tc->name, text);
		free_parts(t);
		return NULL;
	}
	if (fwd_tunnel_listen(t, why, cap) < 0) {
		if (must) {
			fwd_group_put(t->group);
			free_parts(t);
			return NULL;
		}
		td_error(FWD_MOD, NULL, "%s; it stays down and is tried again", why);
		fwd_tunnel_listen_later(t, why);
	}
	if (tc->type == TD_TUNNEL_PROXY)
		t->group->proxy = &t->proxy;
	t->owner = td_config_ref(cfg);
	tnl_list_push_back(&f->tunnels, &t->node);
	return t;
}

const struct fwd_tunnel *fwd_tunnel_owner(const struct fwd_tunnel *t)
{
	tnl_list_foreach(it, &t->f->tunnels) {
		const struct fwd_tunnel *other = tnl_container_of(it, struct fwd_tunnel, node);
		if (other->group == t->group)
			return other;
	}
	return t;
}

void fwd_tunnel_take_config(struct fwd_tunnel *t, const struct td_config *cfg, const struct td_tunnel_config *tc)
{
	const struct td_config *old_owner = t->owner;
	struct fwd_group *old = t->group, *g;
	char why[300] = "out of memory";
	t->owner = td_config_ref(cfg);
	t->cfg = tc;
	td_config_free((struct td_config *)(uintptr_t)old_owner);
	if (fwd_group_fits_aws(old, &tc->aws))
		return;
	g = fwd_group_get(t->f, cfg, tc, fwd_session_adjust, why, sizeof(why));
	if (!g) {
		td_error(FWD_MOD, NULL, "tunnel %s goes on as it was: %s", tc->name, why);
		return;
	}
	t->group = g;
	g->proxy = old->proxy;
	fwd_proxy_fini(&t->proxy); /* destinations get groups anew */
	old->proxy = NULL;
	td_soon_do(&t->proxy.settle);
	fwd_group_put(old); /* connections that are there stay with its sessions */
	fwd_group_serve(g);
}

void fwd_tunnel_begin(struct fwd_tunnel *t)
{
	const struct fwd_tunnel *owner = fwd_tunnel_owner(t);
	announce(t);
	if (owner != t)
		td_info(FWD_MOD, NULL, "sessions are shared tunnel=%s with=%s", t->cfg->name, owner->cfg->name);
	fwd_group_serve(t->group);
	fwd_probe_start(&t->probe);
}

void fwd_tunnel_close(struct fwd_tunnel *t)
{
	td_info(FWD_MOD, NULL, "tunnel closed tunnel=%s connections=%u", t->cfg->name, t->connections);
	fwd_tunnel_stop_listening(t);
	t->closing = true;
	fwd_probe_stop(&t->probe);
	fwd_session_watch_forsaken(t->group);
	if (has_finished(t))
		tunnel_free(t);
}

/* --- what it is like ------------------------------------------------------------------------- */

const char *const fwd_tunnel_states[] = {"idle",   "starting",	  "connecting", "handshake", "up",	"resuming",
					 "ending", "needs-login", "failed",	"closed",    "closing", NULL};

static bool needs_login(const struct fwd_group *g)
{
	/* It looks again by itself: the group hears of it only with the next connection. */
	return g->needs_login && td_credentials_last(g->aws, NULL) == TD_CREDENTIALS_NEEDS_LOGIN;
}

/* Up is a reverse tunnel when the agent listens. */
static const char *session_state(const struct fwd_tunnel *t, const struct fwd_session *s)
{
	bool asked = fwd_tunnel_is_reverse(t) && fwd_session_up(s) && !t->reverse.bound[0];
	return asked ? "handshake" : td_client_state_name(s->client);
}

const struct fwd_group *fwd_tunnel_speaker(const struct fwd_tunnel *t)
{
	const struct fwd_group *best = t->group;
	if (t->cfg->type != TD_TUNNEL_PROXY || fwd_group_speaker(best))
		return best;
	tnl_list_foreach(it, &t->proxy.dests) {
		const struct fwd_group *g = tnl_container_of(it, struct fwd_group, dest);
		const struct fwd_session *s = fwd_group_speaker(g);
		if (s && !fwd_session_up(s))
			return g;
		best = s ? g : best;
	}
	return best;
}

const char *fwd_tunnel_state(const struct fwd_tunnel *t)
{
	const struct fwd_group *g = fwd_tunnel_speaker(t);
	const struct fwd_session *s = fwd_group_speaker(g);
	bool failed = fwd_group_opens_by_itself(g) && g->last_error[0];

	if (t->closing)
		return "closing";
	if (t->closed)
		return "closed";
	if (t->listen_error[0])
		return "failed";
	/* While it fails, the next try has not succeeded yet. */
	if (s && (!failed || td_client_was_ready(s->client)))
		return session_state(t, s);
	return needs_login(g) ? "needs-login" : failed ? "failed" : "idle";
}

void fwd_tunnel_bytes(const struct fwd_tunnel *t, uint64_t *all_in, uint64_t *all_out)
{
	uint64_t in, out;

	*all_in = t->bytes_in;
	*all_out = t->bytes_out;
	tnl_list_foreach(it, &t->conns) {
		const struct fwd_conn *c = tnl_container_of(it, struct fwd_conn, node);
		td_pipe_bytes(c->pipe, &in, &out);
		*all_in += c->watch ? 0 : in;
		*all_out += c->watch ? 0 : out;
	}
}
