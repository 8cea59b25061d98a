/* Outward: local descriptors → stream.  A source that has something asks for its turn and its watcher rests; the pump
 * calls td_pipe_feed_session when the session says whose turn it is. */
#include "tunneld/pump/internal.h"

#include "lib/alloc.h"
#include "lib/num.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#define LEAD_AGAIN (10 * TD_MS)

/* A pty's master gives EIO when the last process behind it has gone: that is its EOF. So is a standard input that was
 * closed before we began. */
static bool is_eof(const struct td_pipe *p, ssize_t n, int err)
{
	return n == 0 || (n < 0 && (err == EIO || (err == EBADF && !p->own_fds)));
}

static bool is_again(int err)
{
	return err == EAGAIN || err == EWOULDBLOCK || err == EINTR;
}

static bool has_something(const struct td_pipe_source *s)
{
	return s->ready && !s->eof;
}

/* Nothing there now: the watcher tells of more. */
static void set_empty(struct td_pipe_source *s)
{
	s->ready = false;
	td_pipe_rests(s->p, TD_PACE_OUT);
	td_pipe_source_watch(s);
}

static void set_ended(struct td_pipe_source *s)
{
	s->eof = true;
	td_pipe_rests(s->p, TD_PACE_OUT);
	td_pipe_unsettle(s->p);
}

/* Both directions are over: what the local program still sends is thrown away. */
static void discard_input(struct td_pipe_source *s)
{
	uint8_t waste[16384];
	ssize_t n = read(s->fd, waste, sizeof(waste));
	if (n > 0 || (n < 0 && is_again(errno)))
		td_pipe_source_watch(s);
	else
		set_ended(s);
}

static void on_readable(EV_P_ ev_io *w, int revents)
{
	struct td_pipe_source *s = w->data;
	struct td_pipe *p = s->p;
	td_pipe_source_stop(s);
	if (p->lingering) {
		discard_input(s);
		return;
	}
	s->ready = true;
	if (p->st)
		tnl_stream_want_send(p->st, true);
	td_pump_run(p->pump);
}

void td_pipe_source_init(struct td_pipe_source *s, struct td_pipe *p, int fd, uint32_t ptype)
{
	*s = (struct td_pipe_source){.p = p, .fd = fd, .ptype = ptype};
	ev_io_init(&s->io, on_readable, fd, EV_READ);
	s->io.data = s;
}

void td_pipe_source_watch(struct td_pipe_source *s)
{
	ev_io_start(s->p->pump->loop->ev, &s->io);
}

void td_pipe_source_stop(struct td_pipe_source *s)
{
	ev_io_stop(s->p->pump->loop->ev, &s->io);
}

bool td_pipe_local_end(const struct td_pipe *p)
{
	struct pollfd pfd = {p->src[0].fd, POLLRDHUP, 0};
	return !p->dying && !p->lingering && !p->src[0].eof && poll(&pfd, 1, 0) == 0;
}

bool td_pipe_sources_over(const struct td_pipe *p)
{
	return p->src[0].eof && (p->src[1].fd < 0 || p->src[1].eof);
}

static bool wants_turn(const struct td_pipe *p)
{
	return p->lead || has_something(&p->src[0]) || has_something(&p->src[1]);
}

/* read(2) that never blocks: a descriptor of somebody else may be without O_NONBLOCK. */
static ssize_t read_source(const struct td_pipe_source *s, uint8_t *b, size_t cap)
{
	struct pollfd pfd = {s->fd, POLLIN, 0};
	if (s->p->blocking && s == &s->p->src[0] && poll(&pfd, 1, 0) != 1) {
		errno = EAGAIN;
		return -1;
	}
	return read(s->fd, b, cap);
}

/* The one whose turn it is of those that have something, or NULL. */
static struct td_pipe_source *next_source(struct td_pipe *p)
{
	struct td_pipe_source *s = &p->src[p->turn];
	if (!has_something(s))
		s = &p->src[!p->turn];
	if (!has_something(s))
		return NULL;
	p->turn = s == &p->src[0];
	return s;
}

/* One read has given n bytes, or err. */
static void judge_read(struct td_pipe_source *s, ssize_t n, int err, size_t cap)
{
	struct td_pipe *p = s->p;
	if (n > 0) {
		p->in += (uint64_t)n;
		td_pipe_moved(p, TD_PACE_OUT, (size_t)n);
		if ((size_t)n < cap)
			set_empty(s);
	} else if (is_eof(p, n, err)) {
		set_ended(s);
	} else if (is_again(err)) {
		set_empty(s);
	} else if (s == &p->src[1]) {
		set_ended(s);
	} else {
		td_pipe_abort(p, TNL_RESET_PEER);
	}
}

int td_pipe_lead(struct td_pipe *p, const uint8_t *bytes, size_t n)
{
	p->lead = tnl_malloc(n);
	if (!p->lead)
		return TNL_ENOMEM;
	memcpy(p->lead, bytes, n);
	p->lead_len = n;
	td_pipe_lead_again(p);
	return 0;
}

void td_pipe_lead_again(void *pipe)
{
	struct td_pipe *p = pipe;
	if (p->st)
		tnl_stream_want_send(p->st, true);
	td_pump_kick(p->pump);
}

static void commit_lead(struct td_pipe *p, uint8_t *to, size_t cap, uint64_t now)
{
	size_t n = TNL_MIN(cap, p->lead_len - p->lead_at);
	memcpy(to, p->lead + p->lead_at, n);
	if (tnl_stream_commit(p->st, n, TNL_PT_OUTPUT, now) < 0) {
		td_pipe_abort(p, TNL_RESET_LIMIT);
		return;
	}
	p->lead_at += n;
	if (p->lead_at == p->lead_len) {
		tnl_free(p->lead);
		p->lead = NULL;
	}
}

/* true: a part of it has gone. */
static bool feed_lead(struct td_pipe *p, uint64_t now)
{
	size_t cap;
	uint8_t *b = p->dying || p->lingering ? NULL : tnl_stream_reserve(p->st, &cap, now);

	if (b)
		commit_lead(p, b, cap, now);
	else
		td_timer_in(&p->lead_again, LEAD_AGAIN);
	tnl_stream_want_send(p->st, b && !p->dying && wants_turn(p));
	return b;
}

bool td_pipe_feed_session(struct td_pipe *p)
{
	if (p->flow)
		return td_flow_feed(p);
	uint64_t now = p->pump->loop->now;
	struct td_pipe_source *s = p->dying || p->lingering ? NULL : next_source(p);
	size_t cap;

	if (p->lead)
		return feed_lead(p, now);

	size_t may = s ? td_pipe_may(p, TD_PACE_OUT) : 0;
	if (!may) {
		tnl_stream_want_send(p->st, false);
		return false;
	}
	uint8_t *b = tnl_stream_reserve(p->st, &cap, now);
	if (!b) {
		/* next() said yes: only memory can have run out. The level-triggered watcher tries again. */
		tnl_stream_want_send(p->st, false);
		set_empty(s);
		return false;
	}
	cap = TNL_MIN(cap, may);
	ssize_t n = read_source(s, b, cap);
	int err = errno;
	if (tnl_stream_commit(p->st, n > 0 ? (size_t)n : 0, s->ptype, now) < 0) {
		td_pipe_abort(p, TNL_RESET_LIMIT);
		return false;
	}
	judge_read(s, n, err, cap);
	tnl_stream_want_send(p->st, wants_turn(p));
	return n > 0;
}
