/* Both ends of a spawner: the process that takes orders, one datagram each, and the one that gives them. */
#include "tunneld/base/spawner.h"

#include "lib/alloc.h"
#include "lib/buf.h"
#include "tunneld/base/warden.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

struct td_spawner {
	int fd;
	pid_t pid;
};

#define FDS_MAX (TD_SPAWNER_FDS_MAX + 1) /* and the channel, the first */

union control {
	struct cmsghdr head;
	char room[CMSG_SPACE(sizeof(int) * FDS_MAX)];
};

/* --- the spawner ------------------------------------------------------------------ */

static int take_descriptors(struct msghdr *m, int *fds)
{
	int n = 0;
	for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR(m, h)) {
		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		size_t len = h->cmsg_len - CMSG_LEN(0);
		memcpy(fds, CMSG_DATA(h), len);
		n = (int)(len / sizeof(int));
	}
	return n;
}

/* One order; false: there will be no more. */
static bool serve_one(int fd, td_spawner_fn *fn, const void *arg)
{
	static char text[TD_SPAWNER_MESSAGE_MAX + 1];
	union control c;
	int fds[FDS_MAX] = {-1};
	struct iovec io = {.iov_base = text, .iov_len = TD_SPAWNER_MESSAGE_MAX};
	struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = c.room, .msg_controllen = sizeof(c.room)};
	ssize_t n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);
	int nfds = n > 0 ? take_descriptors(&m, fds) : 0;

	if (n < 0)
		return errno == EINTR;
	if (n > 0 && nfds > 0 && !(m.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
		struct td_spawner_job j = {.message = text, .n = (size_t)n, .channel = fds[0], .nfds = nfds - 1};
		memcpy(j.fds, fds + 1, sizeof(int) * (size_t)j.nfds);
		text[n] = '\0';
		fn(arg, &j);
	}
	for (int i = 0; i < nfds; i++)
		close(fds[i]);
	return n > 0;
}

static _Noreturn void spawner_main(int fd, td_spawner_fn *fn, const void *arg, bool (*enter)(void))
{
	sigset_t every;
	int null = open("/dev/null", O_RDWR);

	sigfillset(&every);
	sigprocmask(SIG_SETMASK, &every, NULL);
	signal(SIGCHLD, SIG_IGN); /* wardens need nobody to wait for them */
	setpgid(0, 0);
	prctl(PR_SET_NAME, "tunneld-spawner");
	for (int i = 0; i < 3; i++)
		if (null < 0 || dup2(null, i) < 0)
			_exit(1);
	fd = dup2(fd, 3);
	closefrom(4);
	if (fd < 0 || (enter && !enter()))
		_exit(1);
	while (serve_one(fd, fn, arg))
		;
	_exit(0);
}

struct td_spawner *td_spawner_new(td_spawner_fn *fn, const void *arg, bool (*enter)(void))
{
	struct td_spawner *s = tnl_calloc(1, sizeof(*s));
	int ends[2], room = 2 * TD_SPAWNER_MESSAGE_MAX;
	pid_t pid = -1;

	if (s && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0) {
		setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
		pid = fork();
		if (pid == 0)
			spawner_main(ends[1], fn, arg, enter);
		int err = errno;
		close(ends[1]);
		if (pid < 0)
			close(ends[0]);
		errno = err;
	}
	if (pid < 0) {
		tnl_free(s);
		return NULL;
	}
	s->fd = ends[0];
	s->pid = pid;
	return s;
}

void td_spawner_free(struct td_spawner *s)
{
	if (!s)
		return;
	close(s->fd); /* it sees that and ends */
	waitpid(s->pid, NULL, 0);
	tnl_free(s);
}

/* --- orders ----------------------------------------------------------------------- */

static int send_order(const struct td_spawner *s, const struct td_spawner_order *o, int channel)
{
	union control c;
	size_t nfds = (size_t)o->nfds + 1;
	struct iovec io = {.iov_base = (void *)(uintptr_t)o->message, .iov_len = o->n};
	struct msghdr m = {.msg_iov = &io,
			   .msg_iovlen = 1,
			   .msg_control = c.room,
			   .msg_controllen = CMSG_SPACE(sizeof(int) * nfds)};
	ssize_t n;

	memset(&c, 0, sizeof(c));
	c.head.cmsg_level = SOL_SOCKET;
	c.head.cmsg_type = SCM_RIGHTS;
	c.head.cmsg_len = CMSG_LEN(sizeof(int) * nfds);
	memcpy(CMSG_DATA(&c.head), &channel, sizeof(int));
	if (o->nfds)
		memcpy(CMSG_DATA(&c.head) + sizeof(int), o->fds, sizeof(int) * (size_t)o->nfds);
	while ((n = sendmsg(s->fd, &m, MSG_NOSIGNAL)) < 0 && errno == EINTR)
		;
	return n < 0 ? -1 : 0;
}

static pid_t start_here(const struct td_spawner_order *o, int channel)
{
	struct td_spawner_job j = {.message = o->message, .n = o->n, .nfds = o->nfds, .channel = channel};
	if (o->nfds)
		memcpy(j.fds, o->fds, sizeof(int) * (size_t)o->nfds);
	return o->fn(o->arg, &j);
}

struct td_child *td_spawner_start(struct td_spawner *s, struct td_loop *l, const struct td_spawner_order *o,
				  int give[2], td_child_fn *exited, void *ctx, char *why, size_t cap)
{
	int ends[2], failed = 0;
	pid_t warden = 0;

	give[0] = give[1] = -1;
	why[0] = '\0';
	if (o->n == 0 || o->n > TD_SPAWNER_MESSAGE_MAX || o->nfds > TD_SPAWNER_FDS_MAX) {
		errno = E2BIG;
		return NULL;
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
		return NULL;
	if (s)
		failed = send_order(s, o, ends[1]);
	else
		warden = start_here(o, ends[1]);
	int err = errno;
	close(ends[1]);
	if (failed) {
		close(ends[0]);
		errno = err;
		return NULL;
	}
	return td_child_adopt(l, ends[0], warden, give, exited, ctx, why, cap);
}

/* --- programs of any kind --------------------------------------------------------- */

static struct td_spawner *programs;

enum { ARGS_MAX = 64 };

/* PATH 0 ARGUMENT 0 … ; which of the three descriptors are there is the first character, a digit of three bits. */
static pid_t start_program(const void *arg, const struct td_spawner_job *j)
{
	const char *argv[ARGS_MAX + 1] = {NULL}, *path = j->message + 1, *p = path, *end = j->message + j->n;
	struct td_child_spec s = {.path = path, .argv = argv, .fds = {-1, -1, -1}};
	int next = 0, n = 0;

	for (int i = 0; i < 3; i++)
		if ((j->message[0] - '0') >> i & 1 && next < j->nfds)
			s.fds[i] = j->fds[next++];
	for (p += strlen(p) + 1; p < end && n < ARGS_MAX; p += strlen(p) + 1)
		argv[n++] = p;
	pid_t pid = n ? td_warden_fork(&s, j->channel, NULL, 0) : 0;
	if (pid <= 0)
		td_warden_refuse(j->channel, n ? errno : EINVAL, "");
	return pid > 0 ? pid : 0;
}

static struct td_child *order_program(struct td_loop *l, const struct td_child_spec *s, td_child_fn *exited, void *ctx)
{
	struct td_spawner_order o = {.fn = start_program};
	int fds[3], give[2], mask = 0;
	struct td_child *c = NULL;
	struct tnl_buf b;
	char why[1];

	if (s->enter || s->session || s->env) {
		errno = EINVAL;
		return NULL;
	}
	o.fds = fds;
	for (int i = 0; i < 3; i++) {
		if (s->fds[i] < 0)
			continue;
		mask |= 1 << i;
		fds[o.nfds++] = s->fds[i];
	}
	tnl_buf_init(&b, TD_SPAWNER_MESSAGE_MAX + 1);
	tnl_buf_putc(&b, '0' + mask);
	tnl_buf_put(&b, s->path, strlen(s->path) + 1);
	for (int i = 0; s->argv[i]; i++)
		tnl_buf_put(&b, s->argv[i], strlen(s->argv[i]) + 1);
	o.message = (const char *)tnl_buf_data(&b);
	o.n = tnl_buf_len(&b);
	errno = E2BIG;
	if (!b.failed)
		c = td_spawner_start(programs, l, &o, give, exited, ctx, why, sizeof(why));
	tnl_buf_fini_wiped(&b);
	return c;
}

int td_spawner_programs(bool (*enter)(void))
{
	programs = td_spawner_new(start_program, NULL, enter);
	if (programs)
		td_child_start_by(order_program);
	return programs ? 0 : -1;
}

void td_spawner_programs_end(void)
{
	td_child_start_by(NULL);
	td_spawner_free(programs);
	programs = NULL;
}
