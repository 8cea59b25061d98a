#include "tunneld/base/capture.h"

#include "lib/alloc.h"
#include "lib/buf.h"
#include "lib/num.h"
#include "tunneld/base/child.h"
#include "tunneld/base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

struct td_capture {
	struct td_loop *l;
	struct td_child *child;
	td_capture_fn *fn;
	void *ctx;
	int fd; /* -1: its output has ended */
	ev_io io;
	struct td_timer limit;
	struct tnl_buf out;
	bool late, exited;
	int status;
};

static void close_output(struct td_capture *c)
{
	if (c->fd < 0)
		return;
	ev_io_stop(c->l->ev, &c->io);
	close(c->fd);
	c->fd = -1;
}

static void free_capture(struct td_capture *c)
{
	close_output(c);
	td_timer_stop(&c->limit);
	td_child_free(c->child);
	tnl_buf_fini_wiped(&c->out);
	td_loop_free_later(c->l, c);
}

static void finish_if_over(struct td_capture *c)
{
	if (!c->exited || c->fd >= 0)
		return;
	struct td_captured r = {c->late, c->status, tnl_buf_data(&c->out), tnl_buf_len(&c->out)};
	c->fn(c->ctx, &r);
	free_capture(c);
}

static void on_exited(void *ctx, int status)
{
	struct td_capture *c = ctx;
	c->exited = true;
	c->status = status;
	finish_if_over(c);
}

static void on_limit(void *arg)
{
	struct td_capture *c = arg;
	c->late = true;
	td_child_signal(c->child, SIGKILL);
	close_output(c);
	finish_if_over(c);
}

static void on_output(struct ev_loop *ev, ev_io *w, int events)
{
	struct td_capture *c = w->data;
	size_t room = TNL_MIN(tnl_buf_room(&c->out), (size_t)4096);
	uint8_t *p = room ? tnl_buf_reserve(&c->out, room) : NULL;
	ssize_t n = p ? read(c->fd, p, room) : 0;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0) {
		tnl_buf_commit(&c->out, (size_t)n);
		return;
	}
	close_output(c);
	finish_if_over(c);
}

struct td_capture *td_capture_start(struct td_loop *l, const char *command, size_t max, uint64_t limit_ns,
				    td_capture_fn *fn, void *ctx)
{
	struct td_capture *c = tnl_calloc(1, sizeof(*c));
	const char *const argv[] = {"sh", "-c", command, NULL};
	int fds[2], err = ENOMEM;

	if (!c)
		goto fail;
	c->l = l;
	c->fn = fn;
	c->ctx = ctx;
	if (pipe2(fds, O_CLOEXEC) < 0) {
		err = errno;
		goto fail;
	}
	struct td_child_spec s = {.path = "/bin/sh", .argv = argv, .fds = {-1, fds[1], -1}};
	c->child = td_child_start(l, &s, on_exited, c);
	err = errno;
	close(fds[1]);
	if (!c->child) {
		close(fds[0]);
		goto fail;
	}
	c->fd = fds[0];
	td_fd_nonblock(c->fd);
	tnl_buf_init(&c->out, max);
	td_timer_init(&c->limit, l, on_limit, c);
	td_timer_in(&c->limit, limit_ns);
	ev_io_init(&c->io, on_output, c->fd, EV_READ);
	c->io.data = c;
	ev_io_start(l->ev, &c->io);
	return c;
fail:
	tnl_free(c);
	errno = err;
	return NULL;
}

void td_capture_cancel(struct td_capture *c)
{
	if (!c)
		return;
	td_child_signal(c->child, SIGKILL);
	free_capture(c);
}
