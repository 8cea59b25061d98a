/* Reverse tunnels: the agent listens, and what connects there comes here as a stream (lib/reverse.h).
 *
 *   session ready → listen → listening, or refused → again, after a back-off
 *   stream from the agent → dial `connect` → pipe
 *
 * The session is the tunnel's own.  It is asked for as long as the tunnel is open, and kept from idling while the agent
 * listens.  Whoever takes the listener over is this client itself, started anew or twice: then it is left alone. */
#include "tunneld/forwarder/internal.h"

#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/direct.h"
#include "lib/enc.h"
#include "tunneld/base/fd.h"
#include "tunneld/base/file.h"
#include "tunneld/base/log.h"
#include "tunneld/net/dial.h"
#include "tunneld/net/resolve.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LISTENER 1u /* a session has one */
#define REFUSED_PAUSE (60 * TD_SEC)
#define ADDRS_MAX 8

struct fwd_incoming {	      /* while it is being dialed */
	struct tnl_list node; /* tunnel->reverse.dialing */
	struct fwd_tunnel *t;
	struct fwd_session *s;
	struct tnl_stream *st;
	struct td_resolve *resolve;
	struct td_dial *dial;
};

/* --- the words ------------------------------------------------------------------------------ */

/* The same for each run of this tunnel here: machine, user, configuration, name. */
static void client_name(const struct fwd_tunnel *t, char out[TNL_REVERSE_CLIENT + 1])
{
	char host[256] = "", all[2048];
	uint8_t h[32];
	size_t n;
	char *machine = td_file_read("/etc/machine-id", 256, 0, &n, NULL);

	if (gethostname(host, sizeof(host) - 1))
		host[0] = '\0';
	int len = snprintf(all, sizeof(all), "%s|%s|%u|%s|%s|%s|%s", machine ? machine : "", host, (unsigned)getuid(),
			   t->owner->path ? t->owner->path : "", t->cfg->name, t->cfg->target, t->cfg->bind);
	tnl_free(machine);
	tnl_sha256(all, len < (int)sizeof(all) ? (size_t)len : sizeof(all) - 1, h);
	tnl_hex(h, TNL_REVERSE_CLIENT / 2, out);
}

static struct fwd_session *session_of(const struct fwd_group *g)
{
	tnl_list_foreach(it, &g->sessions) {
		struct fwd_session *s = tnl_container_of(it, struct fwd_session, node);
		if (!s->ending && td_client_was_ready(s->client))
			return s;
	}
	return NULL;
}

static bool is_open(const struct fwd_tunnel *t)
{
	return !t->closing && !t->closed && t->f->state == FWD_RUNNING;
}

void fwd_reverse_start(struct fwd_tunnel *t)
{
	struct fwd_session *s = session_of(t->group);
	struct tnl_reverse word = {.kind = TNL_REVERSE_LISTEN, .id = LISTENER};

	t->reverse.resting = false;
	if (!s || !is_open(t))
		return;
	word.most = (uint16_t)t->cfg->max_connections;
	snprintf(word.bind, sizeof(word.bind), "%s", t->cfg->bind);
	client_name(t, word.client);
	tnl_session_keep(td_pump_session(td_client_pump(s->client)), true);
	td_pump_tell_reverse(td_client_pump(s->client), &word);
}

void fwd_reverse_stop(struct fwd_tunnel *t)
{
	struct fwd_session *s = session_of(t->group);
	const struct tnl_reverse word = {.kind = TNL_REVERSE_UNLISTEN, .id = LISTENER};

	t->reverse.bound[0] = '\0';
	t->reverse.resting = false;
	td_timer_stop(&t->relisten);
	if (!s)
		return;
	tnl_session_keep(td_pump_session(td_client_pump(s->client)), false);
	td_pump_tell_reverse(td_client_pump(s->client), &word);
}

static struct fwd_tunnel *tunnel_of(const struct fwd_group *g)
{
	tnl_list_foreach(it, &g->f->tunnels) {
		struct fwd_tunnel *t = tnl_container_of(it, struct fwd_tunnel, node);
		if (t->group == g)
			return t;
	}
	return NULL;
}

static void fail_tunnel(struct fwd_tunnel *t, int err, const char *type, const char *why)
{
	bool news = strncmp(t->listen_error, why, sizeof(t->listen_error) - 1) != 0;

	t->reverse.bound[0] = '\0';
	snprintf(t->listen_error, sizeof(t->listen_error), "%s", why);
	td_log(news ? TNL_LOG_ERROR : TNL_LOG_DEBUG, FWD_MOD, NULL, "cannot open tunnel=%s target=%s bind=%s: %s",
	       t->cfg->name, t->cfg->target, t->cfg->bind, why);
	if (t->f->started)
		t->f->started(t->f->started_ctx, err, type, why);
}

/* For a while, or until somebody opens it: it asks for no session. */
static void rest(struct fwd_tunnel *t, uint64_t ns)
{
	t->reverse.resting = true;
	td_timer_stop(&t->relisten);
	if (ns)
		td_timer_in(&t->relisten, ns);
}

bool fwd_reverse_ready(struct fwd_session *s, const struct tnl_session_info *info)
{
	struct fwd_tunnel *t = tunnel_of(s->group);
	char why[256];

	if (!t)
		return true;
	tnl_session_limit_streams(td_pump_session(td_client_pump(s->client)), t->cfg->max_connections);
	if (info->reverse) {
		fwd_reverse_start(t);
		return true;
	}
	if (info->own_peer)
		snprintf(why, sizeof(why),
			 "the agent does not take reverse tunnels: reverse of its [agent] section is not set, or the "
			 "gateway does not allow them to this user");
	else
		snprintf(why, sizeof(why), "the agent is not tunneld's (version %s), and only that listens for clients",
			 info->peer_version);
	fail_tunnel(t, TNL_EREFUSED, "", why);
	rest(t, REFUSED_PAUSE);
	return false;
}

static void on_listening(struct fwd_tunnel *t, const struct tnl_reverse *word)
{
	bool news = strcmp(t->reverse.bound, word->bind) != 0;

	snprintf(t->reverse.bound, sizeof(t->reverse.bound), "%s", word->bind);
	t->listen_error[0] = '\0';
	td_timer_stop(&t->relisten);
	td_backoff_forget(&t->backoff);
	if (news)
		td_info(FWD_MOD, NULL, "the agent listens tunnel=%s target=%s address=%s connect=%s", t->cfg->name,
			t->cfg->target, word->bind, t->cfg->connect);
	if (t->f->started)
		t->f->started(t->f->started_ctx, 0, "", "");
}

bool fwd_reverse_word(struct fwd_session *s, const struct tnl_reverse *word)
{
	struct fwd_tunnel *t = tunnel_of(s->group);

	if (!t || word->id != LISTENER || !is_open(t))
		return true;
	if (word->kind == TNL_REVERSE_LISTENING) {
		on_listening(t, word);
		return true;
	}
	fail_tunnel(t, TNL_EREFUSED, word->again ? "" : TD_FORWARDER_TAKEN_OVER, word->why);
	if (word->again) {
		td_timer_in(&t->relisten, td_backoff_next(&t->backoff));
		return true;
	}
	rest(t, 0);
	tnl_session_keep(td_pump_session(td_client_pump(s->client)), false);
	return false;
}

void fwd_reverse_again(struct fwd_tunnel *t)
{
	fwd_reverse_start(t);
	fwd_group_serve(t->group);
}

/* --- connections ---------------------------------------------------------------------------- */

static void incoming_free(struct fwd_incoming *c)
{
	if (c->resolve)
		td_resolve_cancel(c->resolve);
	if (c->dial)
		td_dial_cancel(c->dial);
	tnl_list_remove(&c->node);
	tnl_free(c);
}

static void refuse_stream(struct fwd_tunnel *t, struct fwd_session *s, struct tnl_stream *st, uint32_t reason,
			  const char *why)
{
	td_warn(FWD_MOD, td_client_session_id(s->client),
		"connection refused tunnel=%s connect=%s peer=%s stream=%u: %s", t->cfg->name, t->cfg->connect,
		tnl_stream_from(st), tnl_stream_id(st), why);
	t->failed++;
	t->failures[reason == TNL_RESET_TIMEOUT ? FWD_F_TIMEOUT : FWD_F_REFUSED]++;
	td_pump_refuse(td_client_pump(s->client), st, reason, why);
}

static void incoming_failed(struct fwd_incoming *c, uint32_t reason, const char *why)
{
	struct fwd_tunnel *t = c->t;
	struct fwd_session *s = c->s;
	struct tnl_stream *st = c->st;

	incoming_free(c);
	refuse_stream(t, s, st, reason, why);
}

static void on_dialed(void *ctx, int fd, const struct td_addr *peer, int err, const char *why)
{
	struct fwd_incoming *c = ctx;

	c->dial = NULL;
	if (fd < 0) {
		incoming_failed(c, err == TNL_ETIMEOUT ? TNL_RESET_TIMEOUT : TNL_RESET_CONNECT, why);
		return;
	}
	struct fwd_conn *conn = fwd_conn_new(c->t, fd, peer);
	if (!conn) { /* it has closed the socket */
		incoming_failed(c, TNL_RESET_LIMIT, "out of memory");
		return;
	}
	snprintf(conn->peer, sizeof(conn->peer), "%s", tnl_stream_from(c->st));
	struct td_pipe *p = td_pipe_agent(td_client_pump(c->s->client), c->st, fd, conn);
	if (!p) {
		fwd_conn_fail(conn, FWD_F_SESSION, "out of memory");
		incoming_failed(c, TNL_RESET_LIMIT, "out of memory");
		return;
	}
	fwd_conn_placed(conn, c->s, p);
	incoming_free(c);
}

static void dial(struct fwd_incoming *c, const struct td_addr *addrs, int n)
{
	c->dial = td_dial_start_many(c->t->f->loop, addrs, n, c->t->cfg->connect_timeout_ns, on_dialed, c);
	if (!c->dial)
		incoming_failed(c, TNL_RESET_LIMIT, "out of memory");
}

static void on_resolved(void *ctx, int err, const struct td_addr *addrs, int n, const char *why)
{
	struct fwd_incoming *c = ctx;

	c->resolve = NULL;
	if (err || n <= 0)
		incoming_failed(c,
				err == TNL_ETIMEOUT ? TNL_RESET_TIMEOUT
				: err == TNL_ELIMIT ? TNL_RESET_LIMIT
						    : TNL_RESET_CONNECT,
				why && *why ? why : "the name has no address");
	else
		dial(c, addrs, n);
}

static void begin_dial(struct fwd_incoming *c)
{
	const char *to = c->t->cfg->connect, *fault;
	char host[TNL_DIRECT_ADDRESS];
	struct td_addr addrs[ADDRS_MAX];
	uint16_t port;

	if (strncmp(to, "unix:", 5) == 0) {
		int n = td_addr_parse(to, addrs, ADDRS_MAX, &fault);
		dial(c, addrs, n > 0 ? n : 0);
		return;
	}
	if (tnl_direct_address_split(to, host, &port))
		c->resolve = td_resolve_start_for(c->t->f->loop, c->t->cfg->name, host, port, on_resolved, c);
	if (!c->resolve)
		incoming_failed(c, TNL_RESET_LIMIT, "out of memory");
}

void fwd_reverse_open(struct fwd_session *s, struct tnl_stream *st)
{
	struct fwd_tunnel *t = tunnel_of(s->group);

	if (!t || !t->cfg->connect || tnl_stream_listener(st) != LISTENER || !is_open(t)) {
		td_pump_refuse(td_client_pump(s->client), st, TNL_RESET_SHUTDOWN, "");
		return;
	}
	t->accepted++;
	struct fwd_incoming *c = td_fd_short() ? NULL : tnl_calloc(1, sizeof(*c));
	if (!c) {
		refuse_stream(t, s, st, TNL_RESET_LIMIT, "few descriptors or little memory is left");
		return;
	}
	c->t = t;
	c->s = s;
	c->st = st;
	tnl_list_push_back(&t->reverse.dialing, &c->node);
	begin_dial(c);
}

void fwd_reverse_cancelled(struct fwd_session *s, struct tnl_stream *st)
{
	struct fwd_tunnel *t = tunnel_of(s->group);

	if (!t)
		return;
	tnl_list_foreach_safe(it, &t->reverse.dialing) {
		struct fwd_incoming *c = tnl_container_of(it, struct fwd_incoming, node);
		if (c->st == st)
			incoming_free(c);
	}
}

void fwd_reverse_forget(struct fwd_session *s)
{
	tnl_list_foreach(it, &s->group->f->tunnels) {
		struct fwd_tunnel *t = tnl_container_of(it, struct fwd_tunnel, node);
		if (t->group != s->group)
			continue;
		t->reverse.bound[0] = '\0';
		tnl_list_foreach_safe(jt, &t->reverse.dialing) {
			struct fwd_incoming *c = tnl_container_of(jt, struct fwd_incoming, node);
			if (c->s == s)
				incoming_free(c);
		}
	}
}

void fwd_reverse_drop(struct fwd_tunnel *t)
{
	while (!tnl_list_empty(&t->reverse.dialing))
		incoming_failed(tnl_container_of(t->reverse.dialing.next, struct fwd_incoming, node),
				TNL_RESET_SHUTDOWN, "the tunnel is closed");
}
