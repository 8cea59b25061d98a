/* Port sessions: a connection to the target for each stream.
 *
 *   open → resolve host → allow/deny on the addresses → dial exactly those → pipe
 *   open → allow/deny on the path of a Unix socket ────────┘
 *
 * Where it goes its stream says (lib/head.h), or the session's start does for all.
 *
 * Streams never wait for one another. In basic and single-stream mode there is one
 * at a time, and a dial that fails ends the session. */
#include "tunneld/agent/internal.h"

#include "lib/alloc.h"
#include "lib/num.h"
#include "tunneld/base/fd.h"
#include "tunneld/base/log.h"
#include "tunneld/net/dial.h"
#include "tunneld/net/resolve.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ADDRS_MAX 16

/* From its opening to its end. */
struct ag_stream {
	struct tnl_list node; /* session->connected, once it is */
	struct ag_session *s;
	struct tnl_stream *st; /* while it is being dialed; after that the pipe has the stream */
	struct td_resolve *resolve;
	struct td_dial *dial;
	struct ag_udp *udp; /* datagrams */
	uint64_t began;
	const struct tnl_head *to; /* where it says that it goes, `own`; else where the session does */
	struct tnl_head *own;
};

static bool port_init(struct ag_session *s, char *why, size_t cap)
{
	const char *props = s->start.properties_json;
	struct tnl_json *j = tnl_json_parse(props, strlen(props));
	const char *port = tnl_json_get_str(j, "portNumber"), *host = tnl_json_get_str(j, "host");
	char *end = NULL;
	unsigned long v = port && *port >= '0' && *port <= '9' ? strtoul(port, &end, 10) : 0;
	bool ok = v >= 1 && v <= 65535 && end && !*end;

	tnl_list_init(&s->connected);
	if (!ok)
		snprintf(why, cap, "portNumber is not a number from 1 to 65535");
	else if (tnl_head_set(&s->to, TNL_HEAD_TCP, host && *host ? host : "localhost", (uint16_t)v) != 0)
		snprintf(why, cap, "host is no name of a host");
	else
		s->dialing = tnl_map_new();
	if (ok && s->to.port && !s->dialing)
		snprintf(why, cap, "the agent is out of memory");
	tnl_json_free(j);
	return s->dialing != NULL;
}

static void stream_free(struct ag_stream *x)
{
	if (x->resolve)
		td_resolve_cancel(x->resolve);
	if (x->dial)
		td_dial_cancel(x->dial);
	ag_udp_free(x->udp);
	if (x->st)
		(void)tnl_map_del_u64(x->s->dialing, (uintptr_t)x->st);
	tnl_list_remove(&x->node);
	tnl_free(x->own);
	tnl_free(x);
}

static bool one_at_a_time(const struct ag_session *s)
{
	return s->mode == TNL_MODE_BASIC || s->mode == TNL_MODE_SINGLE;
}

static void refuse_stream(struct ag_session *s, struct tnl_stream *st, const struct tnl_head *to, uint32_t reason,
			  const char *why)
{
	td_warn(AG_MOD, s->start.session_id, "connection refused host=%s port=%u stream=%u reason=\"%s\"", to->name,
		to->port, tnl_stream_id(st), why);
	ag_audit_connection(s, to, tnl_stream_id(st), NULL, why);
	td_pump_refuse(s->pump, st, reason, why);
	if (one_at_a_time(s))
		ag_session_end(s, AG_FAILED, "cannot connect to %s port %u: %s", to->name, to->port, why);
	td_soon_do(&s->a->settle);
}

static void stream_failed(struct ag_stream *x, uint32_t reason, const char *why)
{
	refuse_stream(x->s, x->st, x->to, reason, why);
	stream_free(x);
}

/* Flows come and go with each question to a name server. */
static enum tnl_log_level noisy(const struct ag_stream *x)
{
	return x->udp ? TNL_LOG_DEBUG : td_log_of_connection();
}

static void join_dialed(struct ag_stream *x, const struct td_addr *peer)
{
	struct ag_session *s = x->s;
	char name[TD_ADDR_STR];

	s->a->n.connections++;
	td_log(noisy(x), AG_MOD, s->start.session_id, "connected peer=%s host=%s stream=%u ms=%llu",
	       td_addr_str(peer, name), x->to->name, tnl_stream_id(x->st),
	       (unsigned long long)((s->a->loop->now - x->began) / TD_MS));
	ag_audit_connection(s, x->to, tnl_stream_id(x->st), name, NULL);
	(void)tnl_map_del_u64(s->dialing, (uintptr_t)x->st);
	x->st = NULL;
	tnl_list_push_back(&s->connected, &x->node);
}

/* In full only to who has said where the stream goes: others know no reason but CONNECT. */
static uint32_t reason_of(const struct ag_stream *x, int err, int system_error)
{
	if (err == TNL_ETIMEOUT)
		return TNL_RESET_TIMEOUT;
	if (!tnl_stream_head(x->st))
		return TNL_RESET_CONNECT;
	switch (system_error) {
	case ENETUNREACH:
	case ENETDOWN:
		return TNL_RESET_NET;
	case EHOSTUNREACH:
	case EHOSTDOWN:
		return TNL_RESET_HOST;
	default:
		return err == TNL_ENOTFOUND ? TNL_RESET_NAME : TNL_RESET_CONNECT;
	}
}

static void on_dialed(void *ctx, int fd, const struct td_addr *peer, int err, const char *why)
{
	struct ag_stream *x = ctx;
	struct ag_session *s = x->s;

	int system_error = td_dial_errno(x->dial);
	x->dial = NULL;
	if (fd < 0) {
		s->a->n.dial_failures++;
		stream_failed(x, reason_of(x, err, system_error), why);
		return;
	}
	td_fd_nodelay(fd);
	td_fd_keepalive(fd, ag_cfg(s->a)->tcp_keepalive_ns);
	if (!td_pipe_agent(s->pump, x->st, fd, x)) {
		close(fd);
		stream_failed(x, TNL_RESET_LIMIT, "the agent is out of memory");
		return;
	}
	join_dialed(x, peer);
}

static void dial_addrs(struct ag_stream *x, const struct td_addr *addrs, int n)
{
	struct td_agent *a = x->s->a;

	x->dial = td_dial_start_many(a->loop, addrs, n, ag_cfg(a)->dial_timeout_ns, on_dialed, x);
	if (!x->dial)
		stream_failed(x, TNL_RESET_LIMIT, "the agent is out of memory");
}

/* Nothing is asked of the service: the first address that may be reached is it. */
static void open_udp(struct ag_stream *x, const struct td_addr *addrs, int n)
{
	struct ag_session *s = x->s;

	if (td_fd_short()) { /* since the name was asked for */
		s->a->n.short_of_descriptors++;
		stream_failed(x, TNL_RESET_LIMIT, "the agent has few descriptors left");
		return;
	}
	int i = 0;
	while (i < n && !(x->udp = ag_udp_open(s->a, s->start.session_id, &addrs[i])))
		i++;
	if (!x->udp) {
		s->a->n.dial_failures++;
		stream_failed(x, TNL_RESET_CONNECT, strerror(errno));
	} else if (!ag_udp_join(x->udp, s->pump, x->st, x)) {
		stream_failed(x, TNL_RESET_LIMIT, "the agent is out of memory");
	} else {
		join_dialed(x, &addrs[i]);
	}
}

static void on_resolved(void *ctx, int err, const struct td_addr *addrs, int n, const char *why)
{
	struct ag_stream *x = ctx;
	struct td_agent *a = x->s->a;
	struct td_addr fit[ADDRS_MAX];
	enum ag_access first;

	x->resolve = NULL;
	if (err == TNL_ELIMIT) {
		a->n.names_refused++;
		stream_failed(x, TNL_RESET_LIMIT, why);
		return;
	}
	if (err || n <= 0) {
		a->n.dial_failures++;
		stream_failed(x, reason_of(x, err == TNL_ETIMEOUT ? err : TNL_ENOTFOUND, 0),
			      why && *why ? why : "the name has no address");
		return;
	}
	n = TNL_MIN(n, ADDRS_MAX);
	memcpy(fit, addrs, (size_t)n * sizeof(*fit));
	bool udp = x->to->kind == TNL_HEAD_UDP;
	n = ag_access_filter(&ag_cfg(a)->allow, &ag_cfg(a)->deny, udp, x->to->name, fit, n, &first);
	if (!n) {
		a->n.denied++;
		stream_failed(x, TNL_RESET_DENIED,
			      first == AG_ACCESS_DENIED ? "the address is denied by this agent"
			      : udp			? "the address is in no udp: entry of this agent's allow list"
							: "the address is not in this agent's allow list");
		return;
	}
	if (udp)
		open_udp(x, fit, n);
	else
		dial_addrs(x, fit, n);
}

static void resolve_host(struct ag_stream *x)
{
	const char *owner = x->s->start.session_owner;
	x->resolve = td_resolve_start_for(x->s->a->loop, owner ? owner : "", x->to->name, x->to->port, on_resolved, x);
	if (!x->resolve)
		stream_failed(x, TNL_RESET_LIMIT, "the agent is out of memory");
}

/* Nothing is dialed: what the client writes into a pipe comes out of it. */
static void echo_open(struct ag_session *s, struct tnl_stream *st)
{
	int fd[2];
	struct td_pipe *p = NULL;
	bool made = pipe2(fd, O_CLOEXEC | O_NONBLOCK) == 0;
	if (made && !(p = td_pipe_agent_pair(s->pump, st, fd[0], fd[1], s))) {
		close(fd[0]);
		close(fd[1]);
	}
	if (!p) {
		td_pump_refuse(s->pump, st, TNL_RESET_LIMIT, made ? "the agent is out of memory" : strerror(errno));
		return;
	}
	td_pipe_end_sink(p, -1);
	td_debug(AG_MOD, s->start.session_id, "echo opened stream=%u", tnl_stream_id(st));
}

static void dial_path(struct ag_stream *x)
{
	struct td_agent *a = x->s->a;
	struct td_addr addr = {.len = sizeof(addr.un)};
	enum ag_access got = ag_access_path(&ag_cfg(a)->allow, &ag_cfg(a)->deny, x->to->name);

	if (got != AG_ACCESS_OK) {
		a->n.denied++;
		stream_failed(x, TNL_RESET_DENIED,
			      got == AG_ACCESS_DENIED ? "the path is denied by this agent"
						      : "the path is not in this agent's allow list (unix:PATH)");
		return;
	}
	addr.un.sun_family = AF_UNIX;
	memcpy(addr.un.sun_path, x->to->name, strlen(x->to->name)); /* TNL_HEAD_PATH at most */
	dial_addrs(x, &addr, 1);
}

static void port_open(struct ag_session *s, struct tnl_stream *st)
{
	const struct tnl_head *to = tnl_stream_head(st) ? tnl_stream_head(st) : &s->to;
	if (td_fd_short()) {
		s->a->n.short_of_descriptors++;
		refuse_stream(s, st, to, TNL_RESET_LIMIT, "the agent has few descriptors left");
		return;
	}
	if (tnl_stream_asked(st) == TNL_KIND_ECHO) {
		echo_open(s, st);
		return;
	}
	struct ag_stream *x = tnl_calloc(1, sizeof(*x));
	bool udp = tnl_stream_asked(st) == TNL_KIND_UDP;
	bool ok = x && ((to == &s->to && !udp) || (x->own = tnl_malloc(sizeof(*to))) != NULL);
	if (!ok || tnl_map_set_u64(s->dialing, (uintptr_t)st, x) != 0) {
		if (x)
			tnl_free(x->own);
		tnl_free(x);
		refuse_stream(s, st, to, TNL_RESET_LIMIT, "the agent is out of memory");
		return;
	}
	tnl_list_init(&x->node);
	x->s = s;
	x->st = st;
	x->began = s->a->loop->now;
	x->to = x->own ? x->own : to;
	if (x->own)
		*x->own = *to;
	if (udp && to->kind == TNL_HEAD_TCP)
		x->own->kind = TNL_HEAD_UDP; /* there is no head: the session says host and port */
	if (udp == (x->to->kind == TNL_HEAD_UDP) && x->to->kind != TNL_HEAD_UNIX)
		resolve_host(x);
	else if (to->kind == TNL_HEAD_UNIX)
		dial_path(x);
	else
		stream_failed(x, TNL_RESET_DENIED, "this agent does not know that kind of destination");
}

/* The client gave up while we were dialing; the pump frees the stream. */
static void port_cancelled(struct ag_session *s, struct tnl_stream *st)
{
	struct ag_stream *x = tnl_map_get_u64(s->dialing, (uintptr_t)st);
	if (x)
		stream_free(x);
	td_soon_do(&s->a->settle);
}

static void port_pipe_closed(struct ag_session *s, struct td_pipe *p, void *user, uint32_t reason, uint64_t in,
			     uint64_t out)
{
	bool orderly = reason == UINT32_MAX;
	struct ag_stream *x = user;

	if (td_pipe_kind(p) == TNL_KIND_ECHO) {
		td_debug(AG_MOD, s->start.session_id, "echo closed in=%llu out=%llu", (unsigned long long)in,
			 (unsigned long long)out);
		return;
	}
	char text[300];
	td_log(noisy(x), AG_MOD, s->start.session_id, "connection %s host=%s port=%u reason=\"%s\" in=%llu out=%llu",
	       orderly ? "closed" : "reset", x->to->name, x->to->port, td_pipe_end_text(p, reason, text, sizeof(text)),
	       (unsigned long long)in, (unsigned long long)out);
	ag_audit_connection_end(s, x->to, orderly ? "closed" : text, in, out);
	if (x->udp)
		ag_udp_note_dropped(x->udp);
	stream_free(x);
	/* The one connection was the session. */
	if (s->mode == TNL_MODE_SINGLE)
		ag_session_end(s, orderly ? AG_SUCCESS : AG_FAILED, "%s", orderly ? "" : tnl_reset_text(reason));
}

static size_t port_busy(const struct ag_session *s)
{
	return (s->pump ? td_pump_pipes(s->pump) : 0) + (s->dialing ? tnl_map_count(s->dialing) : 0);
}

static void port_fini(struct ag_session *s)
{
	struct ag_stream *x;

	for (size_t it = 0; s->dialing && (x = tnl_map_next(s->dialing, &it, NULL, NULL)) != NULL;)
		stream_free(x);
	tnl_map_free(s->dialing);
	s->dialing = NULL;
	while (s->connected.next && !tnl_list_empty(&s->connected))
		stream_free(tnl_container_of(s->connected.next, struct ag_stream, node));
}

const struct ag_plugin ag_port_plugin = {
    .init = port_init,
    .open = port_open,
    .cancelled = port_cancelled,
    .pipe_closed = port_pipe_closed,
    .busy = port_busy,
    .fini = port_fini,
};
