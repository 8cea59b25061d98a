/* The control socket, both ends: the daemon's, which never blocks and serves a few at a time for ten seconds each, and
 * the one that asks (`tunneld status`, `tunneld reload` and their kin), which waits.  When all places are taken, the
 * oldest of those that say nothing makes way for the next.  Who may enter the state directory may ask; descriptors are
 * taken from our own user and from root only. */
#include "tunneld/process/control.h"
#include "lib/alloc.h"
#include "tunneld/base/fd.h"
#include "tunneld/base/log.h"
#include "tunneld/net/listen.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { CLIENTS_MAX = 32, REPLY_MAX = 64 << 20, REQUEST_MAX = 2048, FDS_MAX = 2 };
#define CLIENT_TIMEOUT (10 * TD_SEC)
#define STALLED (1 * TD_SEC) /* an answer of which nothing is taken */

struct client {
	struct td_control *c;
	int fd; /* -1: this place is free */
	ev_io in, out;
	struct td_timer timer;
	uint64_t number; /* the how-manieth it is */
	uint64_t moved;	 /* monotonic; something of its answer was taken */
	char request[REQUEST_MAX];
	size_t got;
	int fds[FDS_MAX], nfds; /* that came with it */
	struct tnl_buf reply;
};

struct td_control {
	struct td_loop *l;
	struct td_listener *listener;
	int dir_fd; /* keeps /proc/self/fd/N valid when the path is too long for a socket address */
	td_control_fn *fn;
	td_control_take_fn *take;
	void *ctx;
	uint64_t accepted;
	struct client clients[CLIENTS_MAX];
};

/* DIR/control.sock, through /proc/self/fd when that is longer than sockaddr_un takes. */
static int socket_addr(const char *dir, int dir_fd, struct td_addr *a)
{
	char path[512];
	const char *fault;
	int n = snprintf(path, sizeof(path), "unix:%s/control.sock", dir);
	if (n < 0 || n > 100)
		snprintf(path, sizeof(path), "unix:/proc/self/fd/%d/control.sock", dir_fd);
	return td_addr_parse(path, a, 1, &fault) == 1 ? 0 : -1;
}

/* Its place is free; the connection and what came with it are somebody else's. */
static void leave(struct client *k)
{
	ev_io_stop(k->c->l->ev, &k->in);
	ev_io_stop(k->c->l->ev, &k->out);
	td_timer_stop(&k->timer);
	k->fd = -1;
	k->nfds = 0;
	tnl_buf_fini(&k->reply);
}

static void close_all(const int *fds, int n)
{
	for (int i = 0; i < n; i++)
		close(fds[i]);
}

static void drop(struct client *k)
{
	if (k->fd < 0)
		return;
	close(k->fd);
	close_all(k->fds, k->nfds);
	leave(k);
}

static void on_timer(void *arg)
{
	drop(arg);
}

static void on_out(struct ev_loop *ev, ev_io *w, int events)
{
	struct client *k = w->data;
	while (tnl_buf_len(&k->reply)) {
		ssize_t n = write(k->fd, tnl_buf_data(&k->reply), tnl_buf_len(&k->reply));
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n < 0)
			break;
		tnl_buf_consume(&k->reply, (size_t)n);
		k->moved = k->c->l->now;
	}
	drop(k);
}

/* Root, or who we are ourselves. */
static bool is_trusted(int fd)
{
	struct ucred who;
	socklen_t len = sizeof(who);
	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) == 0 && (who.uid == 0 || who.uid == geteuid());
}

static void answer(struct client *k)
{
	struct td_control *c = k->c;
	ev_io_stop(c->l->ev, &k->in);
	if (c->take && is_trusted(k->fd) && c->take(c->ctx, k->request, k->fd, k->fds, k->nfds, &k->reply)) {
		leave(k);
		return;
	}
	if (!tnl_buf_len(&k->reply))
		c->fn(c->ctx, k->request, &k->reply);
	tnl_buf_putc(&k->reply, '\n');
	if (k->reply.failed) {
		tnl_buf_reset(&k->reply);
		tnl_buf_puts(&k->reply, "{\"error\":\"the answer is too long\"}\n");
	}
	ev_io_start(c->l->ev, &k->out);
	k->moved = c->l->now;
	on_out(c->l->ev, &k->out, EV_WRITE); /* at once: what was asked may be the end of this process */
}

static void take_descriptors(struct client *k, struct msghdr *m)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		int n = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int)), fd;
		for (int i = 0; c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && i < n; i++) {
			memcpy(&fd, CMSG_DATA(c) + (size_t)i * sizeof(fd), sizeof(fd));
			if (k->nfds < FDS_MAX)
				k->fds[k->nfds++] = fd;
			else
				close(fd);
		}
	}
}

static ssize_t receive(struct client *k)
{
	union {
		char space[CMSG_SPACE(FDS_MAX * sizeof(int))];
		struct cmsghdr aligned;
	} control;
	struct iovec v = {k->request + k->got, REQUEST_MAX - 1 - k->got};
	struct msghdr m = {.msg_iov = &v,
			   .msg_iovlen = 1,
			   .msg_control = control.space,
			   .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(k->fd, &m, MSG_CMSG_CLOEXEC);
	if (n >= 0)
		take_descriptors(k, &m);
	return n;
}

static void on_in(struct ev_loop *ev, ev_io *w, int events)
{
	struct client *k = w->data;
	ssize_t n = receive(k);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		k->got += (size_t)n;
	k->request[k->got] = '\0';
	char *nl = strchr(k->request, '\n');
	if (nl) {
		*nl = '\0';
		answer(k);
	} else if (n <= 0 || k->got == REQUEST_MAX - 1) {
		drop(k);
	}
}

/* It has not asked, nor is a request on its way; or it does not take the answer. */
static bool is_silent(const struct client *k)
{
	struct pollfd p = {.fd = k->fd, .events = POLLIN};
	if (ev_is_active(&k->in))
		return poll(&p, 1, 0) == 0;
	return k->c->l->now - k->moved >= STALLED;
}

/* A free one, if need be that of the oldest who is silent; NULL: all are busy. */
static struct client *find_place(struct td_control *c)
{
	struct client *oldest = NULL;
	for (int i = 0; i < CLIENTS_MAX; i++) {
		struct client *k = &c->clients[i];
		if (k->fd < 0)
			return k;
		if ((!oldest || k->number < oldest->number) && is_silent(k))
			oldest = k;
	}
	if (oldest)
		drop(oldest);
	return oldest;
}

static void on_accept(void *ctx, int fd, const struct td_addr *peer)
{
	struct td_control *c = ctx;
	struct client *k = find_place(c);
	if (!k) { /* whoever asks that much may ask again */
		close(fd);
		return;
	}
	k->fd = fd;
	k->number = ++c->accepted;
	k->got = 0;
	k->nfds = 0;
	td_fd_nonblock(fd);
	tnl_buf_init(&k->reply, REPLY_MAX);
	ev_io_init(&k->in, on_in, fd, EV_READ);
	ev_io_init(&k->out, on_out, fd, EV_WRITE);
	k->in.data = k->out.data = k;
	ev_io_start(c->l->ev, &k->in);
	td_timer_in(&k->timer, CLIENT_TIMEOUT);
}

struct td_control *td_control_new(struct td_loop *l, const char *dir, td_control_fn *fn, void *ctx, char *why,
				  size_t cap)
{
	struct td_addr a;
	struct td_control *c = tnl_calloc(1, sizeof(*c));
	if (!c) {
		snprintf(why, cap, "out of memory");
		return NULL;
	}
	c->l = l;
	c->fn = fn;
	c->ctx = ctx;
	for (int i = 0; i < CLIENTS_MAX; i++) {
		c->clients[i].fd = -1;
		c->clients[i].c = c;
		td_timer_init(&c->clients[i].timer, l, on_timer, &c->clients[i]);
	}
	c->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (c->dir_fd < 0 || socket_addr(dir, c->dir_fd, &a)) {
		snprintf(why, cap, "cannot open %s: %s", dir, strerror(errno));
		td_control_free(c);
		return NULL;
	}
	/* Who holds the lock of the directory owns the socket: one that is left over is stale. */
	unlinkat(c->dir_fd, "control.sock", 0);
	c->listener = td_listen(l, &a, on_accept, c, why, cap);
	if (!c->listener) {
		td_control_free(c);
		return NULL;
	}
	td_listener_use_spare(c->listener);
	return c;
}

void td_control_on_take(struct td_control *c, td_control_take_fn *fn)
{
	c->take = fn;
}

void td_control_free(struct td_control *c)
{
	if (!c)
		return;
	for (int i = 0; i < CLIENTS_MAX; i++)
		drop(&c->clients[i]);
	if (c->listener)
		td_listener_free(c->listener);
	if (c->dir_fd >= 0)
		close(c->dir_fd);
	tnl_free(c);
}

/* --- asking ------------------------------------------------------------------- */

static char *read_all(int fd, int timeout_ms)
{
	struct tnl_buf b;
	tnl_buf_init(&b, REPLY_MAX);
	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int r = poll(&p, 1, timeout_ms);
		uint8_t *at = r > 0 ? tnl_buf_reserve(&b, 65536) : NULL;
		if (!at) {
			errno = r == 0 ? ETIMEDOUT : r > 0 ? EMSGSIZE : errno;
			tnl_buf_fini(&b);
			return NULL;
		}
		ssize_t n = read(fd, at, 65536);
		if (n <= 0) {
			char *text = n == 0 && tnl_buf_len(&b) ? tnl_buf_steal_str(&b) : NULL;
			if (n == 0 && !text)
				errno = ECONNRESET;
			tnl_buf_fini(&b);
			return text;
		}
		tnl_buf_commit(&b, (size_t)n);
	}
}

static bool send_all(int fd, const char *text, size_t n, const int *fds, int nfds)
{
	union {
		char space[CMSG_SPACE(FDS_MAX * sizeof(int))];
		struct cmsghdr aligned;
	} control = {.space = {0}};
	struct iovec v = {(void *)(uintptr_t)text, n};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
	if (nfds) {
		size_t bytes = (size_t)nfds * sizeof(int);
		m.msg_control = control.space;
		m.msg_controllen = CMSG_SPACE(bytes);
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		*c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(bytes)};
		memcpy(CMSG_DATA(c), fds, bytes);
	}
	return sendmsg(fd, &m, MSG_NOSIGNAL) == (ssize_t)n;
}

int td_control_send(const char *dir, const char *request, const int *fds, int nfds)
{
	struct td_addr a;
	char line[REQUEST_MAX];
	int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), fd = -1;
	int n = snprintf(line, sizeof(line), "%s\n", request);
	if (n < 0 || (size_t)n >= sizeof(line))
		errno = EMSGSIZE;
	else if (dir_fd >= 0 && !socket_addr(dir, dir_fd, &a))
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool sent = fd >= 0 && !connect(fd, &a.sa, a.len) && send_all(fd, line, (size_t)n, fds, nfds);
	int saved = errno;
	if (fd >= 0 && !sent)
		close(fd);
	if (dir_fd >= 0)
		close(dir_fd);
	errno = saved;
	return sent ? fd : -1;
}

char *td_control_ask(const char *dir, const char *request, int timeout_ms)
{
	int fd = td_control_send(dir, request, NULL, 0);
	char *reply = fd >= 0 ? read_all(fd, timeout_ms) : NULL;
	int saved = errno;
	if (fd >= 0)
		close(fd);
	errno = saved;
	return reply;
}
