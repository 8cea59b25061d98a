/* Listeners at this end for clients, and the connections that they accept (lib/reverse.h).
 *
 *   listen → may it be bound here? → bound, or taken over → accept → a stream from our side → pipe
 *
 * A listener lives as long as its session.  While the client cannot be reached it stays and does not accept, and
 * whoever connects waits in the kernel's queue.  A client that comes back with another session takes it over, also from
 * a session that looks alive: the address, the queue and what was chosen for port 0 stay. */
#include "tunneld/agent/internal.h"

#include "lib/alloc.h"
#include "lib/num.h"
#include "lib/steps.h"
#include "tunneld/base/fd.h"
#include "tunneld/base/log.h"
#include "tunneld/net/listen.h"

#include <stdio.h>
#include <string.h>

#define LISTENERS_MAX 256 /* of the agent */
#define BEGUN_A_SECOND 20 /* of a session: more than it may have at a time */
#define PORT_TRIES 200	  /* for port 0, where only some may be bound */
#define SEARCH_AGAIN (1 * TD_SEC)
#define ADDRS_MAX 4

struct ag_listener {
	struct tnl_list node; /* session->reverse.listeners */
	struct ag_session *s;
	uint16_t id;
	unsigned most, connections;
	struct td_listener *l;
	bool paused;
	uint64_t accepted;
	char asked[TNL_REVERSE_BIND], bind[TD_ADDR_STR];
	char client[TNL_REVERSE_CLIENT + 1];
};

struct ag_incoming {
	struct ag_session *s;
	struct ag_listener *from; /* NULL: it has gone */
	uint16_t listener;
	uint32_t stream;
	char bind[TD_ADDR_STR], peer[TD_ADDR_STR];
};

/* --- accepting ------------------------------------------------------------------------------ */

static bool client_is_there(const struct ag_session *s)
{
	if (s->state == AG_S_ENDING || !s->pump)
		return false;
	return td_pump_direct(s->pump) || (td_pump_links(s->pump) && !s->reverse.client_away);
}

static void on_memory_room(void *arg)
{
	struct ag_session *s = arg;
	td_memory_off_room(&s->reverse.room);
	ag_reverse_look(s);
}

static bool has_room(struct ag_listener *l)
{
	struct ag_session *s = l->s;
	if (td_memory_full()) {
		td_memory_on_room(&s->reverse.room, s->a->loop, on_memory_room, s);
		return false;
	}
	return l->connections < l->most && tnl_session_streams(td_pump_session(s->pump)) < ag_cfg(s->a)->max_streams;
}

void ag_reverse_look(struct ag_session *s)
{
	bool there = client_is_there(s);

	tnl_list_foreach(it, &s->reverse.listeners) {
		struct ag_listener *l = tnl_container_of(it, struct ag_listener, node);
		bool pause = !there || s->reverse.stopped || !has_room(l);
		if (pause == l->paused)
			continue;
		l->paused = pause;
		td_debug(AG_MOD, s->start.session_id, "listener %s listen=%s connections=%u",
			 pause ? "paused" : "accepts again", l->bind, l->connections);
		td_listener_pause(l->l, pause);
	}
}

void ag_reverse_publication(struct ag_session *s, bool started)
{
	s->reverse.client_away = !started;
	ag_reverse_look(s);
}

static void turn_away(struct ag_listener *l, const struct td_addr *peer, int fd, const char *why)
{
	char name[TD_ADDR_STR];
	l->s->a->n.reverse_failed++;
	td_warn(AG_MOD, l->s->start.session_id, "connection turned away listen=%s peer=%s reason=\"%s\"", l->bind,
		td_addr_str(peer, name), why);
	td_fd_rst_close(fd);
}

static void on_accept(void *ctx, int fd, const struct td_addr *peer)
{
	struct ag_listener *l = ctx;
	struct ag_session *s = l->s;
	struct ag_incoming *c = tnl_calloc(1, sizeof(*c));
	int err = TNL_ENOMEM;

	if (!c || tnl_map_set_u64(s->reverse.incoming, (uintptr_t)c, c) != 0) {
		tnl_free(c);
		turn_away(l, peer, fd, tnl_err_text(err));
		return;
	}
	td_addr_str(peer, c->peer);
	td_fd_keepalive(fd, ag_cfg(s->a)->tcp_keepalive_ns);
	struct td_pipe *p = td_pipe_reverse(s->pump, fd, l->id, c->peer, c, &err);
	if (!p) {
		(void)tnl_map_del_u64(s->reverse.incoming, (uintptr_t)c);
		tnl_free(c);
		turn_away(l, peer, fd, tnl_err_text(err));
		return;
	}
	c->s = s;
	c->from = l;
	c->listener = l->id;
	c->stream = tnl_stream_id(td_pipe_stream(p));
	snprintf(c->bind, sizeof(c->bind), "%s", l->bind);
	l->accepted++;
	l->connections++;
	s->a->n.reverse_connections++;
	td_log(td_log_of_connection(), AG_MOD, s->start.session_id, "connection accepted listen=%s peer=%s stream=%u",
	       l->bind, c->peer, c->stream);
	ag_audit_incoming(s, l->bind, c->peer, c->stream);
	ag_reverse_look(s);
}

bool ag_reverse_pipe_closed(struct ag_session *s, const struct td_pipe *p, void *user, uint32_t reason, uint64_t in,
			    uint64_t out)
{
	struct ag_incoming *c = s->reverse.incoming ? tnl_map_get_u64(s->reverse.incoming, (uintptr_t)user) : NULL;
	bool orderly = reason == UINT32_MAX;
	char text[300];

	if (!c)
		return false;
	td_pipe_end_text(p, reason, text, sizeof(text));
	td_log(td_log_of_connection(), AG_MOD, s->start.session_id,
	       "connection %s listen=%s peer=%s reason=\"%s\" in=%llu out=%llu", orderly ? "closed" : "reset", c->bind,
	       c->peer, text, (unsigned long long)in, (unsigned long long)out);
	ag_audit_incoming_end(s, c->bind, c->peer, orderly ? "closed" : text, in, out);
	if (c->from)
		c->from->connections--;
	(void)tnl_map_del_u64(s->reverse.incoming, (uintptr_t)c);
	tnl_free(c);
	ag_reverse_look(s);
	return true;
}

/* --- listeners come and go ------------------------------------------------------------------- */

static void forget_connections(struct ag_listener *l)
{
	struct ag_incoming *c;
	for (size_t it = 0; (c = tnl_map_next(l->s->reverse.incoming, &it, NULL, NULL)) != NULL;)
		if (c->from == l)
			c->from = NULL;
	l->connections = 0;
}

static void listener_free(struct ag_listener *l)
{
	forget_connections(l);
	td_listener_free(l->l);
	tnl_list_remove(&l->node);
	l->s->reverse.count--;
	l->s->a->nlisteners--;
	td_loop_free_later(l->s->a->loop, l); /* it may be accepting */
}

static void close_listener(struct ag_listener *l, const char *why)
{
	td_info(AG_MOD, l->s->start.session_id, "listener closed listen=%s connections=%u reason=\"%s\"", l->bind,
		l->connections, why);
	ag_audit_listen(l->s, "listen-end", l->bind, why);
	listener_free(l);
}

static void tell(struct ag_session *s, uint16_t id, enum tnl_reverse_kind kind, const char *bind)
{
	struct tnl_reverse word = {.kind = kind, .id = id};
	snprintf(word.bind, sizeof(word.bind), "%s", bind);
	td_pump_tell_reverse(s->pump, &word);
}

static void tell_refused(struct ag_session *s, uint16_t id, bool again, const char *why)
{
	struct tnl_reverse word = {.kind = TNL_REVERSE_REFUSED, .id = id, .again = again};
	snprintf(word.why, sizeof(word.why), "%s", why);
	td_pump_tell_reverse(s->pump, &word);
}

static void refuse(struct ag_session *s, const struct tnl_reverse *word, bool again, const char *why)
{
	s->a->n.reverse_refused++;
	td_warn(AG_MOD, s->start.session_id, "listener refused listen=%s reason=\"%s\"", word->bind, why);
	ag_audit_listen_refused(s, word->bind, why);
	tell_refused(s, word->id, again, why);
}

static struct ag_listener *listener_of(const struct ag_session *s, uint16_t id)
{
	tnl_list_foreach(it, &s->reverse.listeners) {
		struct ag_listener *l = tnl_container_of(it, struct ag_listener, node);
		if (l->id == id)
			return l;
	}
	return NULL;
}

static bool is_same_client(const struct ag_listener *l, const struct ag_session *s, const char *client)
{
	const char *a = l->s->start.session_owner, *b = s->start.session_owner;
	return client[0] && strcmp(l->client, client) == 0 && strcmp(a ? a : "", b ? b : "") == 0;
}

/* What was asked for with the same words before, which finds port 0 again, or what is bound to this address now. */
static struct ag_listener *holder_of(const struct ag_session *s, const struct tnl_reverse *word, const char *bind)
{
	tnl_list_foreach(it, &s->a->sessions) {
		struct ag_session *other = tnl_container_of(it, struct ag_session, node);
		tnl_list_foreach(jt, &other->reverse.listeners) {
			struct ag_listener *l = tnl_container_of(jt, struct ag_listener, node);
			bool same = strcmp(l->asked, word->bind) == 0 && is_same_client(l, s, word->client);
			if (other != s && (same || strcmp(l->bind, bind) == 0))
				return l;
		}
	}
	return NULL;
}

static void take_over(struct ag_listener *l, struct ag_session *s, const struct tnl_reverse *word)
{
	struct ag_session *old = l->s;

	td_info(AG_MOD, s->start.session_id, "listener taken over listen=%s from=%s connections=%u", l->bind,
		old->start.session_id, l->connections);
	ag_audit_listen(old, "listen-end", l->bind, "another session of the same client took it over");
	forget_connections(l);
	tell_refused(old, l->id, false, "another session of the same client has taken it over");
	tnl_list_remove(&l->node);
	old->reverse.count--;
	l->s = s;
	l->id = word->id;
	l->most = word->most;
	tnl_list_push_back(&s->reverse.listeners, &l->node);
	s->reverse.count++;
}

static struct td_listener *bind_some_port(struct ag_listener *l, struct td_addr *a, char *why, size_t cap)
{
	const struct td_rules *rules = &ag_cfg(l->s->a)->reverse;
	int tries = 0;

	snprintf(why, cap, "no port of this address may be bound at this agent");
	if (l->s->a->loop->now < l->s->reverse.search_at) {
		snprintf(why, cap, "none of the ports that may be bound was free just now");
		return NULL;
	}
	for (int i = 0; i < rules->n; i++) {
		const struct td_rule *r = &rules->v[i];
		for (unsigned port = r->port_lo; !r->path && port <= r->port_hi && tries < PORT_TRIES; port++) {
			td_addr_set_port(a, (uint16_t)port);
			if (!ag_access_rule_binds(r, a))
				break;
			tries++;
			tnl_step();
			struct td_listener *made = td_listen(l->s->a->loop, a, on_accept, l, why, cap);
			if (made)
				return made;
		}
	}
	l->s->reverse.search_at = l->s->a->loop->now + SEARCH_AGAIN;
	return NULL;
}

/* Any port of the kernel's choice where all may be bound, else the first that is free of those that may: a search that
 * found none is not made again at once, however often a client asks. */
static struct td_listener *bind_address(struct ag_listener *l, struct td_addr *a, char *why, size_t cap)
{
	const struct td_rules *rules = &ag_cfg(l->s->a)->reverse;
	struct td_addr low = *a, high = *a;

	if (a->sa.sa_family == AF_UNIX || td_addr_port(a))
		return td_listen(l->s->a->loop, a, on_accept, l, why, cap);
	td_addr_set_port(&low, 1);
	td_addr_set_port(&high, UINT16_MAX);
	for (int i = 0; i < rules->n; i++)
		if (ag_access_rule_binds(&rules->v[i], &low) && ag_access_rule_binds(&rules->v[i], &high))
			return td_listen(l->s->a->loop, a, on_accept, l, why, cap);
	return bind_some_port(l, a, why, cap);
}

static struct ag_listener *listener_new(struct ag_session *s, const struct tnl_reverse *word, struct td_addr *a,
					char *why, size_t cap)
{
	struct ag_listener *l = tnl_calloc(1, sizeof(*l));

	snprintf(why, cap, "the agent is out of memory");
	if (!l)
		return NULL;
	l->s = s;
	l->id = word->id;
	l->most = word->most;
	snprintf(l->asked, sizeof(l->asked), "%s", word->bind);
	snprintf(l->client, sizeof(l->client), "%s", word->client);
	l->l = bind_address(l, a, why, cap);
	if (!l->l) {
		tnl_free(l);
		return NULL;
	}
	td_listener_addr(l->l, a);
	td_addr_str(a, l->bind);
	tnl_list_push_back(&s->reverse.listeners, &l->node);
	s->reverse.count++;
	s->a->nlisteners++;
	td_info(AG_MOD, s->start.session_id, "listening listen=%s owner=%s connections_max=%u", l->bind,
		s->start.session_owner ? s->start.session_owner : "", l->most);
	return l;
}

/* The address that the word names; false: answered. */
static bool read_address(struct ag_session *s, const struct tnl_reverse *word, struct td_addr *a)
{
	struct td_addr all[ADDRS_MAX], probe;
	const char *fault = "no address";
	int n = td_addr_parse(word->bind, all, ADDRS_MAX, &fault);
	char why[200];

	for (int i = 0; i < n; i++) /* of a name's two the IPv4 one */
		if (i == 0 || all[i].sa.sa_family == AF_INET)
			*a = all[i];
	if (n < 1 || td_addr_given(a)) {
		snprintf(why, sizeof(why), "not an address that can be bound: %s", n < 1 ? fault : "a given socket");
		refuse(s, word, true, why);
		return false;
	}
	probe = *a;
	bool some = a->sa.sa_family != AF_UNIX && td_addr_port(a) == 0; /* which one is decided when it is bound */
	if (some || ag_access_may_bind(&ag_cfg(s->a)->reverse, &probe))
		return true;
	refuse(s, word, true, "this agent does not allow it: reverse of its [agent] section does not name the address");
	return false;
}

static bool has_place(struct ag_session *s, const struct tnl_reverse *word)
{
	if (s->reverse.count >= TNL_REVERSE_LISTENERS)
		refuse(s, word, true, "the session has as many listeners as it may");
	else if (s->a->nlisteners >= LISTENERS_MAX)
		refuse(s, word, true, "the agent has as many listeners as it may");
	else if (td_fd_short())
		refuse(s, word, true, "the agent has few descriptors left");
	else
		return true;
	return false;
}

static struct ag_listener *listen_anew(struct ag_session *s, const struct tnl_reverse *word)
{
	struct td_addr a = {.len = 0};
	char name[TD_ADDR_STR], why[256];

	if (!read_address(s, word, &a))
		return NULL;
	if (!ag_lines_admit(&s->reverse.begun, BEGUN_A_SECOND, s->a->loop->now)) {
		refuse(s, word, true, "the client asks for listeners too often");
		return NULL;
	}
	struct ag_listener *l = holder_of(s, word, td_addr_str(&a, name));
	if (l && is_same_client(l, s, word->client)) {
		take_over(l, s, word);
		return l;
	}
	if (l) {
		refuse(s, word, true, "another session listens there");
		return NULL;
	}
	if (!has_place(s, word))
		return NULL;
	l = listener_new(s, word, &a, why, sizeof(why));
	if (!l)
		refuse(s, word, true, why);
	return l;
}

static void start_listening(struct ag_session *s, const struct tnl_reverse *word)
{
	struct ag_listener *l = listener_of(s, word->id);

	if (s->a->state != AG_RUNNING) {
		refuse(s, word, true, "the agent is stopping");
		return;
	}
	if (l && strcmp(l->asked, word->bind) != 0) {
		close_listener(l, "the client asked for another address");
		l = NULL;
	}
	if (!l) {
		l = listen_anew(s, word);
		if (!l)
			return;
		ag_audit_listen(s, "listen", l->bind, NULL);
	}
	l->most = word->most;
	tell(s, l->id, TNL_REVERSE_LISTENING, l->bind);
	ag_reverse_look(s);
}

void ag_reverse_word(struct ag_session *s, const struct tnl_reverse *word)
{
	struct ag_listener *l = listener_of(s, word->id);

	if (s->state == AG_S_ENDING)
		return;
	if (word->kind == TNL_REVERSE_LISTEN)
		start_listening(s, word);
	else if (word->kind == TNL_REVERSE_UNLISTEN && l)
		close_listener(l, "the client wants no more connections");
}

/* --- the session and the agent --------------------------------------------------------------- */

void ag_reverse_init(struct ag_session *s)
{
	tnl_list_init(&s->reverse.listeners);
	s->reverse.incoming = tnl_map_new();
}

void ag_reverse_stop(struct ag_session *s)
{
	s->reverse.stopped = true;
	while (!tnl_list_empty(&s->reverse.listeners))
		close_listener(tnl_container_of(s->reverse.listeners.next, struct ag_listener, node),
			       "the session ends");
}

void ag_reverse_fini(struct ag_session *s)
{
	struct ag_incoming *c;

	while (!tnl_list_empty(&s->reverse.listeners))
		listener_free(tnl_container_of(s->reverse.listeners.next, struct ag_listener, node));
	td_memory_off_room(&s->reverse.room);
	for (size_t it = 0; s->reverse.incoming && (c = tnl_map_next(s->reverse.incoming, &it, NULL, NULL)) != NULL;)
		tnl_free(c);
	tnl_map_free(s->reverse.incoming);
	s->reverse.incoming = NULL;
}

static void recheck(struct ag_session *s)
{
	tnl_list_foreach_safe(it, &s->reverse.listeners) {
		struct ag_listener *l = tnl_container_of(it, struct ag_listener, node);
		struct td_addr a;
		td_listener_addr(l->l, &a);
		if (ag_access_may_bind(&ag_cfg(s->a)->reverse, &a))
			continue;
		tell_refused(s, l->id, true, "this agent does not allow it any more");
		close_listener(l, "the configuration does not allow it any more");
	}
	ag_reverse_look(s);
}

void ag_reverse_reload(struct td_agent *a)
{
	tnl_list_foreach(it, &a->sessions)
		recheck(tnl_container_of(it, struct ag_session, node));
}

void ag_reverse_put(const struct ag_session *s, struct tnl_jw *w)
{
	if (tnl_list_empty(&s->reverse.listeners))
		return;
	tnl_jw_key(w, "listeners");
	tnl_jw_arr(w);
	tnl_list_foreach(it, &s->reverse.listeners) {
		const struct ag_listener *l = tnl_container_of(it, struct ag_listener, node);
		tnl_jw_obj(w);
		tnl_jw_kv(w, "listen", l->bind);
		tnl_jw_kvi(w, "connections", l->connections);
		tnl_jw_kvi(w, "accepted", (int64_t)l->accepted);
		tnl_jw_key(w, "paused");
		tnl_jw_bool(w, l->paused);
		tnl_jw_end_obj(w);
	}
	tnl_jw_end_arr(w);
}
