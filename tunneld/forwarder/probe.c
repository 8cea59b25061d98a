/* Probes: from time to time (probe = 60s) a connection that is no local program's goes the whole way of its tunnel, a
 * session, the agent, its dial of host:port, and is closed again as soon as it stands.  It is an fwd_conn like any
 * other, on one end of a socket pair whose other end is ours, so that it waits, is placed and fails as they do; but it
 * counts in none of their numbers and not in max_connections.
 *
 *   resting ── timer → going ── placed, the far end says that it stands → closing ── closed → resting
 *                        └───── refused, too late, no session ────────────────────────────────┘
 *
 * In a tunnel of datagrams it is a flow that sends none, since nobody knows what a service would make of one: the agent
 * says that it may send there and has a socket for it, and nobody says whether anything listens.
 *
 * An agent of ours says when it has connected.  A stock agent says only when it has not: there it counts that no
 * refusal came within QUIET, or that the service sent something, and the result says which (certain). */
#include "tunneld/forwarder/internal.h"

#include "lib/crypto.h"
#include "lib/num.h"
#include "tunneld/base/fd.h"
#include "tunneld/base/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define QUIET (5 * TD_SEC)
#define CLOSE_WITHIN (5 * TD_SEC)

const char *const fwd_probe_results[FWD_P_COUNT + 1] = {"none", "ok", "session", "timeout", "refused", "denied", NULL};

static const struct td_tunnel_config *cfg_of(const struct fwd_probe *p)
{
	return p->t->cfg;
}

static uint64_t now_of(const struct fwd_probe *p)
{
	return p->t->f->loop->now;
}

/* --- results --------------------------------------------------------------------------------- */

static void log_result(const struct fwd_probe *p, bool news)
{
	const struct td_tunnel_config *t = cfg_of(p);
	bool ok = p->result == FWD_P_OK;
	td_log(!news ? TNL_LOG_DEBUG
	       : ok  ? TNL_LOG_INFO
		     : TNL_LOG_WARN,
	       FWD_MOD, NULL, "probe %s tunnel=%s target=%s host=%s port=%u ms=%llu%s%s", ok ? "succeeded" : "failed",
	       t->name, t->target, td_tunnel_host(t), t->port, (unsigned long long)(p->took_ns / TD_MS), ok ? "" : ": ",
	       p->why);
}

/* The first result of a probe counts; news are logged, what stays as it was is not. */
static void note_result(struct fwd_probe *p, enum fwd_probe_result result, const char *why)
{
	bool news = p->result != result || strncmp(p->why, why, sizeof(p->why) - 1) != 0;
	p->state = FWD_PROBE_CLOSING;
	p->result = result;
	snprintf(p->why, sizeof(p->why), "%s", why);
	p->at = now_of(p);
	p->took_ns = p->at - p->began;
	p->runs[result]++;
	if (result == FWD_P_OK)
		p->success_ms = p->t->f->loop->wall_ms;
	log_result(p, news);
}

/* --- our end ---------------------------------------------------------------------------------- */

static void drop_end(struct fwd_probe *p)
{
	ev_io_stop(p->t->f->loop->ev, &p->io);
	if (p->fd >= 0)
		close(p->fd);
	p->fd = -1;
}

static void succeed(struct fwd_probe *p, bool certain)
{
	if (p->state != FWD_PROBE_GOING)
		return;
	p->certain = certain;
	note_result(p, FWD_P_OK, "");
	if (p->conn->flow)
		td_pipe_end_flow(p->conn->pipe);
	else
		shutdown(p->fd, SHUT_WR); /* an end in order: services log a reset */
	td_timer_in(&p->timer, CLOSE_WITHIN);
}

/* What the service says proves that it is there, and is thrown away. */
static void on_readable(EV_P_ ev_io *w, int revents)
{
	struct fwd_probe *p = w->data;
	char b[4096];
	ssize_t n = read(p->fd, b, sizeof(b));
	if (n > 0)
		succeed(p, true);
	else if (n == 0 || errno != EAGAIN)
		ev_io_stop(EV_A_ w); /* closed() comes */
}

/* --- what the connection tells --------------------------------------------------------------- */

static void rest(struct fwd_probe *p)
{
	uint64_t every = cfg_of(p)->probe_ns, r;
	drop_end(p);
	p->conn = NULL;
	p->state = FWD_PROBE_RESTING;
	tnl_random(&r, sizeof(r));
	if (p->stopped)
		td_timer_stop(&p->timer);
	else /* a tenth either way: those of many tunnels, and machines, spread */
		td_timer_in(&p->timer, every - every / 10 + r % (every / 5 + 1));
}

static void on_placed(void *ctx)
{
	struct fwd_probe *p = ctx;
	p->told = p->conn->flow || td_pipe_ask(p->conn->pipe, TNL_KIND_TOLD);
	td_timer_in(&p->timer, p->told ? cfg_of(p)->connect_timeout_ns : TNL_MIN(cfg_of(p)->connect_timeout_ns, QUIET));
}

static void on_connected(void *ctx)
{
	struct fwd_probe *p = ctx;
	succeed(p, !p->conn->flow);
}

static void on_failed(void *ctx, enum fwd_failure kind, const char *why)
{
	struct fwd_probe *p = ctx;
	if (p->state == FWD_PROBE_GOING && kind != FWD_F_SHUTDOWN)
		note_result(p, kind == FWD_F_TIMEOUT ? FWD_P_TIMEOUT : FWD_P_SESSION, why);
	rest(p);
}

static enum fwd_probe_result result_of(uint32_t reason)
{
	return reason == TNL_RESET_CONNECT   ? FWD_P_REFUSED
	       : reason == TNL_RESET_DENIED  ? FWD_P_DENIED
	       : reason == TNL_RESET_TIMEOUT ? FWD_P_TIMEOUT
					     : FWD_P_SESSION;
}

static void on_closed(void *ctx, uint32_t reason, const char *text)
{
	struct fwd_probe *p = ctx;
	if (p->state == FWD_PROBE_GOING && reason == UINT32_MAX)
		succeed(p, true); /* the service closed at once */
	else if (p->state == FWD_PROBE_GOING)
		note_result(p, result_of(reason), text);
	rest(p);
}

static const struct fwd_conn_watch watch = {.placed = on_placed,
					    .connected = on_connected,
					    .failed = on_failed,
					    .closed = on_closed};

/* --- its start and its end --------------------------------------------------------------------- */

/* A session that carries one connection at a time and has it is in use: there is nothing to find out. */
static bool only_stream_taken(const struct fwd_group *g)
{
	const struct fwd_session *s = fwd_group_speaker(g);
	return s && g->cfg->session != TD_SESSION_PER_CONNECTION && fwd_session_up(s) && fwd_session_load(s) > 0 &&
	       tnl_session_info(td_pump_session(td_client_pump(s->client)))->mode != TNL_MODE_MUX;
}

static bool may_begin(const struct fwd_probe *p)
{
	return p->t->f->state == FWD_RUNNING && !td_fd_short() && !td_memory_full() && !only_stream_taken(p->t->group);
}

/* Whatever the service sends there by itself. */
static void on_datagram(void *user, const uint8_t *b, size_t n)
{
	struct fwd_probe *p = user;
	p->certain = true;
}

static void on_gone(struct fwd_conn *c)
{
	if (!c->pipe)
		td_flow_free(c->flow);
}

static struct fwd_conn *make_flow(struct fwd_probe *p)
{
	struct td_flow *flow = td_flow_new((size_t)cfg_of(p)->udp_queue, on_datagram, p);
	struct fwd_conn *c = flow ? fwd_conn_new_watched(p->t, -1, &watch, p) : NULL;
	if (!c) {
		td_flow_free(flow);
		return NULL;
	}
	c->flow = flow;
	c->gone = on_gone;
	return c;
}

/* On one end of a socket pair; the other one is ours. */
static struct fwd_conn *make_conn(struct fwd_probe *p)
{
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0)
		return NULL;
	struct fwd_conn *c = fwd_conn_new_watched(p->t, pair[0], &watch, p);
	if (!c) {
		close(pair[1]);
		return NULL;
	}
	p->fd = pair[1];
	ev_io_init(&p->io, on_readable, p->fd, EV_READ);
	p->io.data = p;
	ev_io_start(p->t->f->loop->ev, &p->io);
	return c;
}

static void begin(struct fwd_probe *p)
{
	p->conn = !may_begin(p) ? NULL : p->t->udp ? make_flow(p) : make_conn(p);
	if (!p->conn) {
		rest(p);
		return;
	}
	p->state = FWD_PROBE_GOING;
	p->began = now_of(p);
	fwd_group_place(p->t->group, p->conn);
}

static void on_timer(void *arg)
{
	struct fwd_probe *p = arg;
	if (p->state == FWD_PROBE_RESTING) {
		begin(p);
	} else if (p->state == FWD_PROBE_GOING && !p->told) {
		succeed(p, false);
	} else {
		if (p->state == FWD_PROBE_GOING)
			note_result(p, FWD_P_TIMEOUT, "the agent has not connected within connect_timeout");
		td_pipe_abort(p->conn->pipe, TNL_RESET_SHUTDOWN);
	}
}

void fwd_probe_init(struct fwd_probe *p, struct fwd_tunnel *t)
{
	p->t = t;
	p->fd = -1;
	p->stopped = true;
	td_timer_init(&p->timer, t->f->loop, on_timer, p);
}

void fwd_probe_start(struct fwd_probe *p)
{
	uint64_t r;
	if (!cfg_of(p)->probe_ns || !p->stopped)
		return;
	p->stopped = false;
	tnl_random(&r, sizeof(r));
	if (p->state == FWD_PROBE_RESTING)
		td_timer_in(&p->timer, r % (cfg_of(p)->probe_ns / 10 + 1));
}

void fwd_probe_stop(struct fwd_probe *p)
{
	p->stopped = true;
	if (p->state == FWD_PROBE_RESTING) {
		td_timer_stop(&p->timer);
		return;
	}
	p->state = FWD_PROBE_CLOSING; /* what comes of it says nothing about the tunnel */
	if (p->conn->pipe)
		td_pipe_abort(p->conn->pipe, TNL_RESET_SHUTDOWN);
	else
		fwd_conn_fail(p->conn, FWD_F_SHUTDOWN, "closed");
}

void fwd_probe_forget(struct fwd_probe *p)
{
	p->stopped = true;
	rest(p);
}

const char *fwd_probe_trouble(const struct fwd_probe *p)
{
	return cfg_of(p)->probe_ns && p->result > FWD_P_OK ? p->why : "";
}
