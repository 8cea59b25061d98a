/* One local descriptor pair joined to one stream.
 *
 * Each direction ends on its own:
 *   local EOF  → tnl_stream_shutdown          peer EOF → (kept bytes written) → shutdown(SHUT_WR)
 *   local RST  → tnl_stream_reset             peer RST → close with RST
 * A peer without half-close ends both directions at once: then what the local program
 * still sends is read and thrown away for a while, since closing with unread bytes
 * would send a RST that can destroy the reply on its way to the program. */
#include "tunneld/pump/internal.h"

#include "lib/alloc.h"
#include "lib/num.h"
#include "tunneld/base/fd.h"
#include "tunneld/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINGER_NS (5 * TD_SEC)
#define ANSWER_MAX 512
#define BLOCKING_CHUNK ((size_t)1024) /* written at once to what may block: a writable pipe takes as much */

void td_pipe_unsettle(struct td_pipe *p)
{
	if (tnl_list_empty(&p->unsettled))
		tnl_list_push_back(&p->pump->unsettled, &p->unsettled);
	td_pump_kick(p->pump);
}

void td_pipe_abort(struct td_pipe *p, uint32_t reason)
{
	if (p->dying)
		return;
	p->dying = true;
	p->reason = reason;
	td_pipe_unsettle(p);
}

void td_pipe_peer_reset(struct td_pipe *p, uint32_t reason, const char *words)
{
	if (p->dying)
		return;
	p->by_peer = true;
	p->words = words[0] ? tnl_strdup(words) : NULL;
	td_pipe_abort(p, reason);
}

const char *td_pipe_end_text(const struct td_pipe *p, uint32_t reason, char *buf, size_t cap)
{
	if (reason == TD_PIPE_ORDERLY)
		return "done";
	if (reason == TNL_RESET_PEER && !p->by_peer)
		return "connection reset at this end";
	snprintf(buf, cap, p->words ? "%s: %s" : "%s", tnl_reset_text(reason), p->words);
	return buf;
}

/* ---- the answer --------------------------------------------------------------- */

/* A few bytes, before all others: there is room for them. */
static void give_answer(struct td_pipe *p, uint32_t reason)
{
	uint8_t b[ANSWER_MAX];
	td_pipe_answer_fn *answer = p->answer;
	if (!answer)
		return;
	p->answer = NULL;
	size_t n = answer(p->user, reason, p->words ? p->words : "", b, sizeof(b));
	if (n && write(p->out_fd, b, n) != (ssize_t)n)
		td_pipe_abort(p, TNL_RESET_PEER);
}

/* ---- inward: stream → local --------------------------------------------------- */

static int sink_of(const struct td_pipe *p, uint32_t ptype)
{
	return ptype == TNL_PT_STDERR && p->err_fd >= 0 ? p->err_fd : p->out_fd;
}

/* write(2) that never blocks: a descriptor of somebody else may be without O_NONBLOCK. */
static ssize_t sink_write(const struct td_pipe *p, int fd, const uint8_t *b, size_t n)
{
	struct pollfd pfd = {fd, POLLOUT, 0};

	if (p->own_fds || (fcntl(fd, F_GETFL) & O_NONBLOCK))
		return write(fd, b, n);
	if (poll(&pfd, 1, 0) != 1) {
		errno = EAGAIN;
		return -1;
	}
	return write(fd, b, TNL_MIN(n, BLOCKING_CHUNK));
}

static void watch_sink(struct td_pipe *p, int fd)
{
	struct ev_loop *ev = p->pump->loop->ev;
	if (p->wr.fd != fd) {
		ev_io_stop(ev, &p->wr);
		ev_io_set(&p->wr, fd, EV_WRITE);
	}
	ev_io_start(ev, &p->wr);
}

/* Writes what goes; the rest waits for the watcher. Gives how many were taken (all of them when the sink is broken).
 * Not before the owner has heard of a size that came before: what is typed after a resize finds the new one. */
static size_t sink_put(struct td_pipe *p, int fd, const uint8_t *b, size_t n)
{
	size_t done = 0;
	if (td_pump_size_untold(p->pump)) {
		watch_sink(p, fd);
		return 0;
	}
	while (done < n) {
		size_t may = TNL_MIN(n - done, td_pipe_may(p, TD_PACE_IN));
		if (!may)
			return done;
		ssize_t w = sink_write(p, fd, b + done, may);
		if (w > 0) {
			done += (size_t)w;
			p->out += (uint64_t)w;
			td_pipe_moved(p, TD_PACE_IN, (size_t)w);
			continue;
		}
		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
			watch_sink(p, fd);
			return done;
		}
		if (!p->sink_errno && (fd == p->out_fd || errno != EPIPE))
			p->sink_errno = errno;
		if (fd == p->out_fd) /* nobody to hear of errors is no reason to stop */
			td_pipe_abort(p, TNL_RESET_PEER);
		return n;
	}
	return n;
}

size_t td_pipe_deliver(struct td_pipe *p, uint32_t ptype, const uint8_t *b, size_t n)
{
	if (p->dying || p->lingering || p->wr_shut)
		return n; /* nobody wants it any more */
	if (p->flow)
		return td_flow_deliver(p, b, n);
	if (ev_is_active(&p->wr) || td_pipe_waits(p, TD_PACE_IN))
		return 0;
	size_t took = sink_put(p, sink_of(p, ptype), b, n);
	if (took == n)
		td_pipe_rests(p, TD_PACE_IN);
	return took;
}

void td_pipe_peer_eof(struct td_pipe *p, bool half_closed)
{
	if (p->answer) /* it ended before it was connected */
		td_pipe_abort(p, TNL_RESET_UNSPEC);
	p->peer_eof = true;
	p->peer_full = !half_closed;
	td_pipe_unsettle(p);
}

void td_pipe_peer_connected(struct td_pipe *p)
{
	p->connected = true;
	if (!p->dying)
		give_answer(p, TD_PIPE_ORDERLY);
	td_pipe_unsettle(p);
}

bool td_pipe_ask(struct td_pipe *p, enum tnl_stream_kind kind)
{
	if (!tnl_stream_ask(p->st, kind))
		return false;
	p->kind = kind;
	return true;
}

static void drain_kept(struct td_pipe *p)
{
	const uint8_t *b;
	size_t n;

	ev_io_stop(p->pump->loop->ev, &p->wr);
	while (p->st && !p->dying && (n = tnl_stream_peek(p->st, &b)) > 0) {
		if (p->flow) {
			tnl_stream_consume(p->st, td_flow_deliver(p, b, n), p->pump->loop->now);
			continue;
		}
		tnl_stream_consume(p->st, sink_put(p, sink_of(p, tnl_stream_kept_ptype(p->st)), b, n),
				   p->pump->loop->now);
		if (ev_is_active(&p->wr) || td_pipe_waits(p, TD_PACE_IN))
			return;
	}
	td_pipe_rests(p, TD_PACE_IN);
	if (p->st && !p->dying && !p->peer_eof && tnl_stream_eof(p->st)) { /* it came before there was a pipe */
		const struct tnl_session_info *info = tnl_session_info(p->pump->session);
		td_pipe_peer_eof(p, info && info->half_close);
	}
}

void td_pipe_drain(struct td_pipe *p)
{
	drain_kept(p);
	if (p->peer_eof)
		td_pipe_unsettle(p);
	td_pump_kick(p->pump);
}

static void on_writable(EV_P_ ev_io *w, int revents)
{
	td_pipe_drain(w->data);
}

/* ---- the end ------------------------------------------------------------------------ */

static void stop_watchers(struct td_pipe *p)
{
	td_pipe_source_stop(&p->src[0]);
	td_pipe_source_stop(&p->src[1]);
	ev_io_stop(p->pump->loop->ev, &p->wr);
	td_timer_stop(&p->linger);
	td_timer_stop(&p->lead_again);
	td_pipe_rests(p, TD_PACE_OUT);
	td_pipe_rests(p, TD_PACE_IN);
}

void td_pipe_destroy(struct td_pipe *p, bool rst)
{
	stop_watchers(p);
	tnl_list_remove(&p->unsettled);
	tnl_list_remove(&p->node);
	p->pump->npipes--;
	int in_fd = p->src[0].fd;
	if (p->own_fds) {
		if (rst && p->socket && !p->refused)
			td_fd_rst_close(in_fd);
		else
			close(in_fd);
		if (p->out_fd != in_fd)
			close(p->out_fd);
	}
	if (p->src[1].fd >= 0)
		close(p->src[1].fd);
	if (p->st)
		tnl_stream_free(p->st);
	td_flow_free(p->flow);
	tnl_free(p->words);
	tnl_free(p->lead);
	tnl_free(p);
}

static void finish_pipe(struct td_pipe *p, uint32_t reason)
{
	struct td_pump *pump = p->pump;
	void (*cb)(void *, struct td_pipe *, void *, uint32_t, uint64_t, uint64_t) = pump->cb->pipe_closed;
	if (p->st) {
		tnl_stream_free(p->st);
		p->st = NULL;
	}
	if (cb)
		cb(pump->ctx, p, p->user, reason, p->in, p->out);
	if (!pump->dead) /* else td_pump_free has destroyed it */
		td_pipe_destroy(p, reason != TD_PIPE_ORDERLY);
}

static void linger_over(void *arg)
{
	struct td_pipe *p = arg;
	p->src[0].eof = true;
	td_pipe_unsettle(p);
}

/* Both directions are over for the peer, but the local program may still be sending. */
static void start_linger(struct td_pipe *p)
{
	if (p->st) {
		tnl_stream_free(p->st);
		p->st = NULL;
	}
	p->lingering = true;
	td_pipe_source_watch(&p->src[0]);
	td_timer_in(&p->linger, LINGER_NS);
}

/* true: it is on its way; false: no room yet, settled again later. */
static bool send_at_eof(struct td_pipe *p)
{
	size_t cap, n = strlen(p->at_eof);
	uint8_t *b = tnl_stream_reserve(p->st, &cap, p->pump->loop->now);
	if (!b || cap < n) {
		if (b)
			(void)!tnl_stream_commit(p->st, 0, TNL_PT_OUTPUT, p->pump->loop->now);
		td_timer_in(&p->linger, 10 * TD_MS);
		return false;
	}
	memcpy(b, p->at_eof, n);
	if (tnl_stream_commit(p->st, n, TNL_PT_OUTPUT, p->pump->loop->now) < 0)
		td_pipe_abort(p, TNL_RESET_LIMIT);
	p->at_eof = NULL;
	return true;
}

void td_pipe_at_eof(struct td_pipe *p, const char *bytes)
{
	p->at_eof = bytes;
}

static void end_sink(struct td_pipe *p)
{
	if (p->socket)
		shutdown(p->out_fd, SHUT_WR);
	if (!p->end_sink || shutdown(p->out_fd, SHUT_WR) == 0)
		return;
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	if (null >= 0 && p->sink_flags >= 0)
		fcntl(p->out_fd, F_SETFL, p->sink_flags);
	if (null < 0 || dup2(null, p->out_fd) < 0)
		td_warn("pump", tnl_session_id(p->pump->session), "the end of the stream does not show locally: %s",
			strerror(errno));
	if (null >= 0)
		close(null);
}

void td_pipe_end_sink(struct td_pipe *p, int flags)
{
	p->end_sink = true;
	p->sink_flags = flags;
}

/* It is told why, and reads that before its socket goes. */
static void refuse_local(struct td_pipe *p)
{
	give_answer(p, p->reason);
	p->dying = false;
	p->refused = true;
	ev_io_stop(p->pump->loop->ev, &p->wr);
	shutdown(p->out_fd, SHUT_WR);
	start_linger(p);
}

static void end_dying(struct td_pipe *p)
{
	if (p->st && !tnl_stream_done(p->st))
		tnl_stream_reset(p->st, p->reason, p->pump->loop->now);
	if (p->answer)
		refuse_local(p);
	else
		finish_pipe(p, p->reason);
}

/* The local program has ended its direction. false: there is no more to do now. */
static bool settle_sources(struct td_pipe *p)
{
	if (!td_pipe_sources_over(p) || !p->st)
		return true;
	if (p->at_eof && !send_at_eof(p))
		return false;
	tnl_stream_shutdown(p->st, p->pump->loop->now);
	if (p->drained_told || !p->pump->cb->drained)
		return true;
	p->drained_told = true;
	p->pump->cb->drained(p->pump->ctx, p, p->user);
	return !p->pump->dead;
}

/* The peer has ended its direction: so does the sink, when it has all of it. */
static void settle_sink(struct td_pipe *p)
{
	if (!p->peer_eof || p->wr_shut || !p->st)
		return;
	if (tnl_stream_kept(p->st) == 0) {
		p->wr_shut = true;
		end_sink(p);
	} else if (!ev_is_active(&p->wr) && !td_pipe_waits(p, TD_PACE_IN)) {
		watch_sink(p, sink_of(p, tnl_stream_kept_ptype(p->st)));
	}
}

/* false: the owner has freed the pump. */
static bool tell_connected(struct td_pipe *p)
{
	struct td_pump *pump = p->pump;
	bool due = p->connected && !p->dying && pump->cb->connected;
	p->connected = false;
	if (due)
		pump->cb->connected(pump->ctx, p, p->user);
	return !pump->dead;
}

void td_pipe_settle(struct td_pipe *p)
{
	if (!tell_connected(p))
		return;
	if (p->dying) {
		end_dying(p);
		return;
	}
	if (p->lingering) {
		if (p->src[0].eof)
			finish_pipe(p, p->refused ? p->reason : TD_PIPE_ORDERLY);
		return;
	}
	if (p->flow && p->peer_eof)
		p->src[0].eof = true; /* neither direction is of use alone */
	if (!settle_sources(p))
		return;
	settle_sink(p);
	bool over = p->wr_shut && p->peer_full;
	if (over && !p->src[0].eof && p->socket)
		start_linger(p);
	else if (over || (p->st && tnl_stream_done(p->st)))
		finish_pipe(p, TD_PIPE_ORDERLY);
}

/* ---- making ---------------------------------------------------------------------------- */

static struct td_pipe *pipe_new(struct td_pump *pump, int in_fd, int out_fd, int err_fd, bool own, void *user)
{
	struct td_pipe *p = tnl_calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	int type;
	socklen_t len = sizeof(type);
	p->pump = pump;
	td_pipe_source_init(&p->src[0], p, in_fd, TNL_PT_OUTPUT);
	td_pipe_source_init(&p->src[1], p, -1, TNL_PT_STDERR);
	p->out_fd = out_fd;
	p->err_fd = err_fd;
	p->own_fds = own;
	p->socket = own && getsockopt(in_fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0;
	p->blocking = !own && !(fcntl(in_fd, F_GETFL) & O_NONBLOCK);
	p->user = user;
	tnl_list_init(&p->unsettled);
	ev_io_init(&p->wr, on_writable, out_fd, EV_WRITE);
	p->wr.data = p;
	td_timer_init(&p->linger, pump->loop, linger_over, p);
	td_timer_init(&p->lead_again, pump->loop, td_pipe_lead_again, p);
	tnl_list_init(&p->node);
	return p;
}

static void pipe_join(struct td_pipe *p, struct tnl_stream *st)
{
	p->st = st;
	p->kind = tnl_stream_asked(st);
	tnl_stream_set_user(st, p);
	tnl_list_push_back(&p->pump->pipes, &p->node);
	p->pump->npipes++;
	if (p->flow)
		td_flow_join(p->flow, p);
	else
		td_pipe_source_watch(&p->src[0]);
	td_pump_kick(p->pump);
}

static struct td_pipe *pipe_opened(struct td_pipe *p, struct tnl_stream *st)
{
	if (!st) {
		tnl_free(p);
		return NULL;
	}
	pipe_join(p, st);
	return p;
}

static struct td_pipe *pipe_client(struct td_pipe *p, const struct tnl_head *to, int *err)
{
	*err = TNL_ENOMEM;
	return p ? pipe_opened(p, tnl_stream_open_to(p->pump->session, to, p, p->pump->loop->now, err)) : NULL;
}

struct td_pipe *td_pipe_client_to(struct td_pump *pump, int fd, const struct tnl_head *to, td_pipe_answer_fn *answer,
				  void *user, int *err)
{
	struct td_pipe *p = pipe_client(pipe_new(pump, fd, fd, -1, true, user), to, err);
	if (!p)
		return NULL;
	p->answer = answer;
	if (!to)
		give_answer(p, TD_PIPE_ORDERLY);
	return p;
}

struct td_pipe *td_pipe_client(struct td_pump *pump, int fd, void *user, int *err)
{
	return td_pipe_client_to(pump, fd, NULL, NULL, user, err);
}

struct td_pipe *td_pipe_reverse(struct td_pump *pump, int fd, uint16_t listener, const char *from, void *user, int *err)
{
	struct td_pipe *p = pipe_new(pump, fd, fd, -1, true, user);
	*err = TNL_ENOMEM;
	return p ? pipe_opened(p, tnl_stream_open_reverse(pump->session, p, listener, from, pump->loop->now, err))
		 : NULL;
}

struct td_pipe *td_pipe_fds(struct td_pump *pump, int in_fd, int out_fd, int err_fd, void *user, int *err)
{
	return pipe_client(pipe_new(pump, in_fd, out_fd, err_fd, false, user), NULL, err);
}

struct td_pipe *td_pipe_fds_to(struct td_pump *pump, int in_fd, int out_fd, const struct tnl_head *to, void *user,
			       int *err)
{
	return pipe_client(pipe_new(pump, in_fd, out_fd, -1, false, user), to, err);
}

struct td_pipe *td_pipe_agent(struct td_pump *pump, struct tnl_stream *st, int fd, void *user)
{
	return td_pipe_agent_pair(pump, st, fd, fd, user);
}

static void agent_join(struct td_pipe *p, struct tnl_stream *st)
{
	pipe_join(p, st);
	if (td_pump_forget(p->pump, st)) { /* it was cancelled, and this was on its way to the owner */
		td_pipe_abort(p, TNL_RESET_PEER);
		return;
	}
	tnl_stream_connected(st, p->pump->loop->now);
	drain_kept(p);
}

struct td_pipe *td_pipe_agent_pair(struct td_pump *pump, struct tnl_stream *st, int in_fd, int out_fd, void *user)
{
	struct td_pipe *p = pipe_new(pump, in_fd, out_fd, -1, true, user);
	if (!p)
		return NULL;
	agent_join(p, st);
	return p;
}

struct td_pipe *td_pipe_flow(struct td_pump *pump, struct td_flow *f, void *user, int *err)
{
	struct td_pipe *p = pipe_new(pump, -1, -1, -1, false, user);
	struct tnl_stream *st = p ? tnl_stream_open(pump->session, p, pump->loop->now, err) : NULL;
	if (!p)
		*err = TNL_ENOMEM;
	if (st && !tnl_stream_ask(st, TNL_KIND_UDP)) {
		tnl_stream_free(st);
		st = NULL;
		*err = TNL_EREFUSED;
	}
	if (!st) {
		tnl_free(p);
		return NULL;
	}
	p->flow = f;
	pipe_join(p, st);
	return p;
}

struct td_pipe *td_pipe_agent_flow(struct td_pump *pump, struct tnl_stream *st, struct td_flow *f, void *user)
{
	struct td_pipe *p = pipe_new(pump, -1, -1, -1, false, user);
	if (!p)
		return NULL;
	p->flow = f;
	agent_join(p, st);
	return p;
}

void td_pipe_end_flow(struct td_pipe *p)
{
	p->src[0].eof = true;
	td_pipe_unsettle(p);
}

void td_pipe_add_stderr(struct td_pipe *p, int fd)
{
	td_pipe_source_init(&p->src[1], p, fd, TNL_PT_STDERR);
	td_pipe_source_watch(&p->src[1]);
}

enum tnl_stream_kind td_pipe_kind(const struct td_pipe *p)
{
	return p->kind;
}

int td_pipe_sink_errno(const struct td_pipe *p)
{
	return p->sink_errno;
}

void td_pipe_bytes(const struct td_pipe *p, uint64_t *in, uint64_t *out)
{
	*in = p->in;
	*out = p->out;
}

struct tnl_stream *td_pipe_stream(struct td_pipe *p)
{
	return p->st;
}
