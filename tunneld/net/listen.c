/* Accepting, with a reserve descriptor for the time when there are no others, and unix sockets without races. */
#include "tunneld/net/listen.h"

#include "lib/alloc.h"
#include "tunneld/base/fd.h"
#include "tunneld/base/group.h"
#include "tunneld/base/log.h"
#include "tunneld/net/activation.h"
#include "tunneld/net/tcp_hop.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* When thousands come at once a turn is long, and who finds the kernel's queue full comes again seconds later. */
#define ACCEPTS_PER_TURN 512
#define EMFILE_PAUSE TD_SEC

struct td_listener {
	struct td_loop *l;
	int fd;	     /* -1: freed */
	int reserve; /* given up at EMFILE, so that the waiting peer can be told at once */
	ev_io io;
	struct td_timer resume;
	struct td_addr addr;
	td_accept_fn *fn;
	void *ctx;
	bool paused, starved, use_spare;
	uint64_t warned_at; /* when the lack of descriptors was last logged */
	dev_t dev;	    /* of the unix socket that this listener made */
	ino_t ino;
};

static void update_watcher(struct td_listener *s)
{
	if (s->paused || s->starved)
		ev_io_stop(s->l->ev, &s->io);
	else
		ev_io_start(s->l->ev, &s->io);
}

static void on_resume(void *arg)
{
	struct td_listener *s = arg;
	if (s->reserve < 0)
		s->reserve = open("/dev/null", O_RDONLY | O_CLOEXEC);
	s->starved = false;
	update_watcher(s);
}

static void pause_for_descriptors(struct td_listener *s, int err)
{
	char name[TD_ADDR_STR];
	if (s->warned_at == 0 || s->l->now - s->warned_at > 60 * TD_SEC) {
		td_error("net", NULL,
			 "cannot accept: %s; raise the limit of open files, waiting peers are turned away listen=%s",
			 strerror(err), td_addr_str(&s->addr, name));
		s->warned_at = s->l->now;
	}
	if (s->reserve >= 0 && (err == EMFILE || err == ENFILE)) {
		close(s->reserve);
		int fd = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0)
			td_fd_rst_close(fd);
		s->reserve = open("/dev/null", O_RDONLY | O_CLOEXEC);
	}
	s->starved = true;
	update_watcher(s);
	td_timer_in(&s->resume, EMFILE_PAUSE);
}

static void on_accept(struct ev_loop *ev, ev_io *w, int events)
{
	struct td_listener *s = w->data;
	for (int i = 0; i < ACCEPTS_PER_TURN && !s->paused && s->fd >= 0; i++) {
		struct td_addr peer = {.len = sizeof(peer.ss)};
		int fd = accept4(s->fd, &peer.sa, &peer.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0) {
			int err = errno;
			if (err == EMFILE || err == ENFILE || err == ENOMEM || err == ENOBUFS)
				pause_for_descriptors(s, err);
			else if (err != EAGAIN && err != EWOULDBLOCK)
				continue; /* ECONNABORTED and kin concern that one peer */
			return;
		}
		if (!s->use_spare && td_fd_is_spare(fd)) {
			td_fd_rst_close(fd);
			pause_for_descriptors(s, EMFILE);
			return;
		}
		if (s->addr.sa.sa_family == AF_UNIX)
			peer = s->addr; /* the peer's end has no name */
		else
			td_fd_nodelay(fd);
		if (!td_addr_is_loopback(&s->addr))
			td_tcp_hop_local(fd, &peer);
		s->fn(s->ctx, fd, &peer);
	}
}

/* Is somebody behind this unix socket? Only a refusal says that it is stale. */
static bool unix_stale(const struct td_addr *a)
{
	struct stat st;
	if (lstat(a->un.sun_path, &st) != 0 || !S_ISSOCK(st.st_mode))
		return false;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return false;
	bool stale = connect(fd, &a->sa, a->len) != 0 && errno == ECONNREFUSED;
	close(fd);
	return stale;
}

static int bind_unix(int fd, const struct td_addr *a)
{
	mode_t old = umask(0177);
	int r = bind(fd, &a->sa, a->len);
	if (r != 0 && errno == EADDRINUSE && unix_stale(a)) {
		unlink(a->un.sun_path);
		r = bind(fd, &a->sa, a->len);
	}
	int err = errno;
	umask(old);
	errno = err;
	return r;
}

static int open_socket(const struct td_addr *a)
{
	if (td_addr_given(a))
		return td_activation_open(a->un.sun_path, td_addr_given(a));
	int on = 1, fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (a->sa.sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	int r = a->sa.sa_family == AF_UNIX ? bind_unix(fd, a) : bind(fd, &a->sa, a->len);
	if (r == 0 && listen(fd, SOMAXCONN) == 0)
		return fd;
	int err = errno;
	close(fd);
	errno = err;
	return -1;
}

int td_listen_socket(const struct td_addr *a, char *why, size_t cap)
{
	char name[TD_ADDR_STR];
	int fd = open_socket(a), err = errno;
	if (fd >= 0)
		return fd;
	const char *hint = td_addr_given(a) ? " (sockets are given by systemd: FileDescriptorName= in a .socket unit)"
			   : err == EADDRINUSE ? " (another program listens there)"
			   : err == EACCES
			       ? " (not permitted: ports below 1024 need privileges, sockets a writable directory)"
			       : "";
	snprintf(why, cap, "cannot listen on %s: %s%s", td_addr_str(a, name), strerror(err), hint);
	return -1;
}

static void start_listener(struct td_listener *s, struct td_loop *l, td_accept_fn *fn, void *ctx)
{
	s->l = l;
	s->fn = fn;
	s->ctx = ctx;
	s->reserve = open("/dev/null", O_RDONLY | O_CLOEXEC);
	td_tcp_hop_local(s->fd, &s->addr); /* what is accepted inherits it */
	td_timer_init(&s->resume, l, on_resume, s);
	ev_io_init(&s->io, on_accept, s->fd, EV_READ);
	s->io.data = s;
	update_watcher(s);
}

struct td_listener *td_listen(struct td_loop *l, const struct td_addr *a, td_accept_fn *fn, void *ctx, char *why,
			      size_t cap)
{
	struct stat st;
	struct td_listener *s = tnl_calloc(1, sizeof(*s));
	if (!s) {
		snprintf(why, cap, "out of memory");
		return NULL;
	}
	s->fd = td_listen_socket(a, why, cap);
	if (s->fd < 0) {
		tnl_free(s);
		return NULL;
	}
	s->addr = *a;
	if (a->sa.sa_family == AF_UNIX) {
		if (lstat(a->un.sun_path, &st) == 0) {
			s->dev = st.st_dev;
			s->ino = st.st_ino;
		}
	} else {
		s->addr.len = sizeof(s->addr.ss);
		getsockname(s->fd, &s->addr.sa, &s->addr.len);
	}
	start_listener(s, l, fn, ctx);
	return s;
}

struct td_listener *td_listen_on(struct td_loop *l, int fd, td_accept_fn *fn, void *ctx, char *why, size_t cap)
{
	int listens = 0;
	socklen_t len = sizeof(listens);
	struct td_listener *s = tnl_calloc(1, sizeof(*s));
	if (s && getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) == 0 && listens) {
		td_fd_nonblock(fd);
		s->fd = fd;
		s->addr.len = sizeof(s->addr.ss);
		getsockname(fd, &s->addr.sa, &s->addr.len);
		start_listener(s, l, fn, ctx);
		return s;
	}
	snprintf(why, cap, s ? "that is no socket that listens" : "out of memory");
	tnl_free(s);
	return NULL;
}

/* The very file that was made, whoever else may write into its folder.  0, or errno. */
static int permit_file(const struct td_listener *s, unsigned mode, gid_t gid)
{
	char name[64];
	struct stat st;
	int fd = open(s->addr.un.sun_path, O_PATH | O_NOFOLLOW | O_CLOEXEC), err = 0;
	if (fd < 0)
		return errno;
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	if (fstat(fd, &st) != 0 || st.st_ino != s->ino || st.st_dev != s->dev)
		err = ESTALE;
	else if ((gid != (gid_t)-1 && chown(name, (uid_t)-1, gid) != 0) || chmod(name, mode) != 0)
		err = errno;
	close(fd);
	return err;
}

int td_listener_permit(struct td_listener *s, unsigned mode, const char *group, char *why, size_t cap)
{
	char name[TD_ADDR_STR];
	gid_t gid = (gid_t)-1;
	if (s->addr.sa.sa_family != AF_UNIX)
		return 0;
	int err = group ? td_group_find(group, &gid) : 0;
	if (err) {
		snprintf(why, cap, err == ENOENT ? "there is no group %s" : "group %s cannot be looked up", group);
		return -1;
	}
	err = permit_file(s, mode, gid);
	if (err)
		snprintf(why, cap, "cannot set mode %04o%s%s of %s: %s%s", mode, group ? " and group " : "",
			 group ? group : "", td_addr_str(&s->addr, name), strerror(err),
			 err == EPERM && group ? "; only who belongs to a group can give it a socket" : "");
	return err ? -1 : 0;
}

void td_listener_addr(const struct td_listener *s, struct td_addr *out)
{
	*out = s->addr;
}

void td_listener_use_spare(struct td_listener *s)
{
	s->use_spare = true;
}

void td_listener_pause(struct td_listener *s, bool paused)
{
	s->paused = paused;
	update_watcher(s);
}

void td_listener_free(struct td_listener *s)
{
	struct stat st;
	if (!s)
		return;
	ev_io_stop(s->l->ev, &s->io);
	td_timer_stop(&s->resume);
	if (s->addr.sa.sa_family == AF_UNIX && s->ino && lstat(s->addr.un.sun_path, &st) == 0 && st.st_dev == s->dev &&
	    st.st_ino == s->ino)
		unlink(s->addr.un.sun_path);
	close(s->fd);
	s->fd = -1;
	if (s->reserve >= 0)
		close(s->reserve);
	td_loop_free_later(s->l, s);
}
