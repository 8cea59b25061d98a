/* Tunnels of type proxy: what their users say first (lib/greeting.h), whether they may, and who carries them.
 *
 *   accept → greeting → password, allow → the tunnel's own group      its session's streams say where they go
 *                                       → a group for the destination  where the far end does not agree on that
 *
 * Greetings are not among max_connections: of these there are FWD_GREETINGS_MAX, and when one more comes the oldest one
 * gives way, of the same address if that has many of them.  Who has said where to keeps its place and waits, should
 * max_connections be there.
 *
 * Of destinations there are at most max_destinations: the one that nobody has used for longest gives way, else who
 * comes waits. Names are not resolved here. */
#include "tunneld/forwarder/internal.h"

#include "lib/alloc.h"
#include "lib/greeting.h"
#include "lib/num.h"
#include "tunneld/base/log.h"
#include "tunneld/net/peers.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define GREETING_NS (10 * TD_SEC)
#define MANY (FWD_GREETINGS_MAX / 4) /* of one address */

struct fwd_greet {
	struct fwd_conn *c;
	struct tnl_greeting g;
	struct td_addr peer;
	bool counted; /* among the greetings */
	ev_io io;
};

/* --- the answer ------------------------------------------------------------------------------ */

static enum tnl_greeting_result result_of(uint32_t reason)
{
	switch (reason) {
	case TD_PIPE_ORDERLY:
		return TNL_GREETING_OK;
	case TNL_RESET_DENIED:
		return TNL_GREETING_DENIED;
	case TNL_RESET_NET:
		return TNL_GREETING_NET;
	case TNL_RESET_NAME:
	case TNL_RESET_HOST:
		return TNL_GREETING_HOST;
	case TNL_RESET_CONNECT:
		return TNL_GREETING_REFUSED;
	case TNL_RESET_TIMEOUT:
		return TNL_GREETING_TIMEOUT;
	case TNL_RESET_SESSION:
	case TNL_RESET_SHUTDOWN:
		return TNL_GREETING_NO_WAY;
	default:
		return TNL_GREETING_FAILED;
	}
}

static size_t answer(void *conn, uint32_t reason, const char *words, uint8_t *out, size_t cap)
{
	struct fwd_conn *c = conn;
	return cap < TNL_GREETING_OUT ? 0 : tnl_greeting_answer(&c->greet->g, result_of(reason), words, out);
}

static void count_greeting(struct fwd_conn *c, bool yes)
{
	struct fwd_proxy *p = &c->tunnel->proxy;
	if (c->greet->counted == yes)
		return;
	c->greet->counted = yes;
	p->ngreeting += yes ? 1u : -1u;
	td_soon_do(&c->tunnel->settle);
}

static void drop_greet(struct fwd_conn *c)
{
	count_greeting(c, false);
	ev_io_stop(c->tunnel->f->loop->ev, &c->greet->io);
	tnl_greeting_fini(&c->greet->g);
	tnl_free(c->greet);
	c->greet = NULL;
}

/* --- where to -------------------------------------------------------------------------------- */

static struct fwd_group *find_dest(const struct fwd_proxy *p, const struct tnl_head *to)
{
	tnl_list_foreach(it, &p->dests) {
		struct fwd_group *g = tnl_container_of(it, struct fwd_group, dest);
		if (g->cfg->port == to->port && strcmp(g->cfg->host, to->name) == 0)
			return g;
	}
	return NULL;
}

static bool is_idle(const struct fwd_group *g)
{
	if (!tnl_list_empty(&g->waiting))
		return false;
	tnl_list_foreach(it, &g->sessions) {
		const struct fwd_session *s = tnl_container_of(it, struct fwd_session, node);
		if (s->ending || fwd_session_load(s))
			return false;
	}
	return true;
}

/* The one that has been idle for longest goes; whoever waits for its place hears when it has gone. */
static void end_idlest(struct fwd_proxy *p)
{
	struct fwd_group *idlest = NULL;
	tnl_list_foreach(it, &p->dests) {
		struct fwd_group *g = tnl_container_of(it, struct fwd_group, dest);
		if (is_idle(g) && (!idlest || g->used_at < idlest->used_at))
			idlest = g;
	}
	if (!idlest)
		return;
	tnl_list_foreach_safe(it, &idlest->sessions)
		fwd_session_end(tnl_container_of(it, struct fwd_session, node), "another destination takes its place");
}

static void no_room(void *arg)
{
	fwd_conn_fail(arg, FWD_F_TIMEOUT, "as many destinations as max_destinations allows are in use");
}

/* false: there is no room for one more. */
static bool place_dest(struct fwd_proxy *p, struct fwd_conn *c)
{
	char why[300];
	struct fwd_group *g = find_dest(p, c->to);
	if (!g && p->ndests >= p->t->cfg->max_destinations)
		return false;
	tnl_list_remove(&c->node);
	if (!g)
		g = fwd_group_new_dest(p, c->to->name, c->to->port, why, sizeof(why));
	if (g)
		fwd_group_place(g, c);
	else
		fwd_conn_fail(c, FWD_F_SESSION, why);
	return true;
}

static void place_or_wait(struct fwd_proxy *p, struct fwd_conn *c)
{
	if (tnl_list_empty(&p->waiting) && place_dest(p, c))
		return;
	tnl_list_remove(&c->node);
	tnl_list_push_back(&p->waiting, &c->node);
	c->patience.fn = no_room;
	td_timer_in(&c->patience, p->t->cfg->connect_timeout_ns);
	end_idlest(p);
}

static bool lacks_dial(const struct fwd_proxy *p)
{
	return p->no_dial_until > p->t->f->loop->now;
}

static void settle_proxy(void *arg)
{
	struct fwd_proxy *p = arg;
	struct fwd_group *own = p->t->group;

	while (lacks_dial(p) && !tnl_list_empty(&own->waiting))
		place_or_wait(p, tnl_container_of(own->waiting.next, struct fwd_conn, node));
	while (!tnl_list_empty(&p->waiting) && place_dest(p, tnl_container_of(p->waiting.next, struct fwd_conn, node)))
		;
	if (!tnl_list_empty(&p->waiting))
		end_idlest(p);
}

static void route(struct fwd_conn *c)
{
	struct fwd_tunnel *t = c->tunnel;
	const struct tnl_greeting *g = &c->greet->g;

	count_greeting(c, false);
	c->to = tnl_malloc(sizeof(*c->to));
	if (!c->to || tnl_head_set(c->to, TNL_HEAD_TCP, g->host, g->port) != 0) {
		fwd_conn_fail(c, FWD_F_SESSION, "out of memory");
		return;
	}
	if (t->cfg->allow.set && !td_rules_have(&t->cfg->allow, g->host, g->port)) {
		char why[400];
		snprintf(why, sizeof(why), "%s port %u is not in the proxy's allow list", g->host, g->port);
		fwd_conn_fail(c, FWD_F_DENIED, why);
		return;
	}
	td_timer_stop(&c->patience);
	if (lacks_dial(&t->proxy))
		place_or_wait(&t->proxy, c);
	else
		fwd_group_place(t->group, c);
}

/* --- how many ----------------------------------------------------------------------------------- */

static void no_place(void *arg)
{
	fwd_conn_fail(arg, FWD_F_TIMEOUT, "as many connections as max_connections allows are open");
}

static bool is_full(const struct fwd_proxy *p)
{
	return fwd_share_connections(p->t->share) >= p->t->cfg->max_connections;
}

static void route_or_wait(struct fwd_conn *c)
{
	struct fwd_proxy *p = &c->tunnel->proxy;
	if (tnl_list_empty(&p->ready) && !is_full(p)) {
		route(c);
		return;
	}
	tnl_list_push_back(&p->ready, &c->node);
	c->patience.fn = no_place;
	td_timer_in(&c->patience, p->t->cfg->connect_timeout_ns);
}

void fwd_proxy_admit(struct fwd_proxy *p)
{
	while (!tnl_list_empty(&p->ready) && !is_full(p)) {
		struct fwd_conn *c = tnl_container_of(p->ready.next, struct fwd_conn, node);
		tnl_list_remove(&c->node);
		route(c);
	}
}

static bool same_peer(const struct td_addr *a, const struct td_addr *b)
{
	struct td_peer x = td_peer_of(a), y = td_peer_of(b);
	return x.len == y.len && memcmp(x.key, y.key, x.len) == 0;
}

/* Room for one more greeting, from there; false: each that is there has said where to. */
static bool make_room(struct fwd_proxy *p, const struct td_addr *peer)
{
	struct fwd_conn *first = NULL;
	unsigned n = 0;
	if (p->ngreeting < FWD_GREETINGS_MAX)
		return true;
	if (tnl_list_empty(&p->greeting))
		return false;
	tnl_list_foreach(it, &p->greeting) {
		struct fwd_conn *c = tnl_container_of(it, struct fwd_conn, node);
		if (!same_peer(&c->greet->peer, peer))
			continue;
		first = first ? first : c;
		n++;
	}
	p->displaced++;
	fwd_conn_fail(n >= MANY ? first : tnl_container_of(p->greeting.next, struct fwd_conn, node), FWD_F_TIMEOUT,
		      "it had not said where to when too many others came");
	return true;
}

/* --- the greeting ----------------------------------------------------------------------------- */

/* What is due goes out; false: it does not, and the connection is over. */
static bool send_due(struct fwd_conn *c)
{
	const uint8_t *p;
	size_t n = tnl_greeting_take(&c->greet->g, &p);
	if (!n || send(c->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)n)
		return true;
	fwd_conn_fail(c, FWD_F_DENIED, "its program does not read");
	return false;
}

static enum tnl_greeting_event check_password(struct fwd_conn *c)
{
	struct fwd_tunnel *t = c->tunnel;
	struct tnl_greeting *g = &c->greet->g;
	enum fwd_password got = fwd_password_check(&t->proxy.passwords, &t->cfg->users.lines, g->user, g->password,
						   &c->greet->peer, t->f->loop->now);
	if (got == FWD_PASSWORD_UNCHECKED)
		td_warn(FWD_MOD, NULL, "password not looked at: there were too many wrong ones tunnel=%s peer=%s",
			t->cfg->name, c->peer);
	return tnl_greeting_admit(g, got == FWD_PASSWORD_OK);
}

/* true: it goes on with what comes next; false: it is routed, or gone. */
static bool take_event(struct fwd_conn *c, enum tnl_greeting_event e)
{
	if (e == TNL_GREETING_PASSWORD)
		e = check_password(c);
	if (!send_due(c))
		return false;
	if (e == TNL_GREETING_MORE)
		return true;
	ev_io_stop(c->tunnel->f->loop->ev, &c->greet->io);
	tnl_list_remove(&c->node);
	if (e == TNL_GREETING_READY)
		route_or_wait(c);
	else
		fwd_conn_fail(c, FWD_F_DENIED, c->greet->g.fault);
	return false;
}

/* Looks at what is there, and takes no more of it than is the greeting: the rest is the destination's. */
static void on_readable(EV_P_ ev_io *w, int revents)
{
	struct fwd_conn *c = ((struct fwd_greet *)w->data)->c;
	uint8_t b[4096];
	size_t used;

	for (;;) {
		ssize_t n = recv(c->fd, b, sizeof(b), MSG_PEEK | MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) {
			fwd_conn_fail(c, FWD_F_DENIED, "it was closed before it said where to");
			return;
		}
		enum tnl_greeting_event e = tnl_greeting_feed(&c->greet->g, b, (size_t)n, &used);
		(void)!recv(c->fd, b, used, MSG_DONTWAIT);
		if (!take_event(c, e))
			return;
	}
}

static void too_late(void *arg)
{
	fwd_conn_fail(arg, FWD_F_TIMEOUT, "it did not say in time where to");
}

void fwd_proxy_greet(struct fwd_conn *c, const struct td_addr *peer)
{
	struct fwd_tunnel *t = c->tunnel;
	struct fwd_greet *x = tnl_calloc(1, sizeof(*x));

	if (!x || !make_room(&t->proxy, peer)) {
		tnl_free(x);
		fwd_conn_fail(c, FWD_F_SESSION, x ? "too many wait for max_connections" : "out of memory");
		return;
	}
	x->c = c;
	x->peer = *peer;
	c->greet = x;
	count_greeting(c, true);
	c->drop_greet = drop_greet;
	c->answer = answer;
	tnl_greeting_init(&x->g, t->cfg->users.lines.n > 0);
	ev_io_init(&x->io, on_readable, c->fd, EV_READ);
	x->io.data = x;
	ev_io_start(t->f->loop->ev, &x->io);
	tnl_list_push_back(&t->proxy.greeting, &c->node);
	c->patience.fn = too_late;
	td_timer_in(&c->patience, GREETING_NS);
}

/* --- the proxy --------------------------------------------------------------------------------- */

void fwd_proxy_init(struct fwd_proxy *p, struct fwd_tunnel *t)
{
	p->t = t;
	tnl_list_init(&p->greeting);
	tnl_list_init(&p->ready);
	tnl_list_init(&p->waiting);
	tnl_list_init(&p->dests);
	td_soon_init(&p->settle, t->f->loop, settle_proxy, p);
	fwd_passwords_init(&p->passwords);
}

void fwd_proxy_cut(struct fwd_proxy *p, const char *why)
{
	struct tnl_list *const lists[] = {&p->greeting, &p->ready, &p->waiting};
	for (size_t i = 0; i < TNL_COUNT(lists); i++)
		tnl_list_foreach_safe(it, lists[i])
			fwd_conn_fail(tnl_container_of(it, struct fwd_conn, node), FWD_F_SHUTDOWN, why);
}

void fwd_proxy_adjust(struct fwd_proxy *p)
{
	tnl_list_foreach(it, &p->dests)
		td_soon_do(&tnl_container_of(it, struct fwd_group, dest)->adjust);
}

void fwd_proxy_fini(struct fwd_proxy *p)
{
	td_soon_cancel(&p->settle);
	fwd_passwords_fini(&p->passwords);
	tnl_list_foreach_safe(it, &p->dests) {
		struct fwd_group *g = tnl_container_of(it, struct fwd_group, dest);
		tnl_list_remove(&g->dest);
		g->proxy = NULL;
		fwd_group_put(g);
	}
	p->ndests = 0;
}
