/* Running child processes: our end of the channel to the warden of each. */
#include "tunneld/base/child.h"

#include "lib/alloc.h"
#include "tunneld/base/log.h"
#include "tunneld/base/warden.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOD "child"
#define FIRST_WORD_MS 10000 /* a fork takes less than one */

struct td_child {
	struct tnl_list node; /* loop->children */
	struct td_loop *l;
	pid_t pid, warden; /* warden: 0 when it is not our own child */
	int channel;
	ev_io io;
	td_child_fn *exited; /* NULL: nobody is interested any more */
	void *ctx;
	bool over;  /* it has exited, and that was told */
	bool freed; /* by its owner; it goes when its warden does */
};

static struct td_child *(*start_by)(struct td_loop *, const struct td_child_spec *, td_child_fn *, void *);

void td_child_start_by(struct td_child *(*fn)(struct td_loop *, const struct td_child_spec *, td_child_fn *, void *))
{
	start_by = fn;
}

/* --- the channel ------------------------------------------------------------------ */

static void take_descriptors(struct msghdr *m, int give[2])
{
	give[0] = give[1] = -1;
	for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR(m, h))
		if (h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS)
			memcpy(give, CMSG_DATA(h), h->cmsg_len - CMSG_LEN(0));
}

static bool first_word(int channel, struct td_warden_word *word, int give[2])
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int) * TD_WARDEN_GIVE_MAX)];
	} c;
	struct iovec io = {.iov_base = word, .iov_len = sizeof(*word)};
	struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = c.room, .msg_controllen = sizeof(c.room)};
	struct pollfd p = {channel, POLLIN, 0};
	ssize_t n;

	while (poll(&p, 1, FIRST_WORD_MS) < 0 && errno == EINTR)
		;
	while ((n = recvmsg(channel, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR)
		;
	if (n < 0 && errno == EAGAIN)
		errno = ETIMEDOUT;
	if (n < 0)
		return false;
	take_descriptors(&m, give);
	errno = EPIPE;
	return n == sizeof(*word);
}

/* The warden closes its end when it exits, so that it is there to be waited for. */
static void drop_channel(struct td_child *c)
{
	if (c->channel < 0)
		return;
	ev_io_stop(c->l->ev, &c->io);
	close(c->channel);
	c->channel = -1;
	if (c->warden)
		waitpid(c->warden, NULL, 0);
}

static void release(struct td_child *c)
{
	tnl_list_remove(&c->node);
	td_loop_free_later(c->l, c);
}

static void tell_exit(struct td_child *c, int status)
{
	if (c->over)
		return;
	c->over = true;
	if (c->exited)
		c->exited(c->ctx, status);
}

static void on_word(struct ev_loop *ev, ev_io *w, int events)
{
	struct td_child *c = w->data;
	struct td_warden_word word;
	ssize_t n = recv(c->channel, &word, sizeof(word), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n != sizeof(word)) { /* it has ended; if it had no time to say more, somebody killed it */
		drop_channel(c);
		tell_exit(c, SIGKILL);
		if (c->freed)
			release(c);
	} else if (word.kind == TD_WARDEN_EXITED) {
		tell_exit(c, word.value);
	} else if (word.kind == TD_WARDEN_LEFT) {
		td_error(MOD, NULL, "cannot end a process child=%d process=%d: %s", (int)c->pid, word.value,
			 strerror(word.error));
	}
}

/* --- start ------------------------------------------------------------------------ */

/* The loop ends before they do: their wardens go on alone. */
static void forget_all(void *arg)
{
	struct td_loop *l = arg;
	while (!tnl_list_empty(&l->children)) {
		struct td_child *c = tnl_container_of(l->children.next, struct td_child, node);
		ev_io_stop(l->ev, &c->io);
		if (c->channel >= 0)
			close(c->channel);
		tnl_list_remove(&c->node);
		tnl_free(c);
	}
}

static struct td_child *make(struct td_loop *l, int channel, pid_t warden, td_child_fn *exited, void *ctx)
{
	struct td_child *c = tnl_calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	if (!l->children_at_free)
		td_loop_at_free(l, forget_all, l);
	l->children_at_free = true;
	*c = (struct td_child){.l = l, .channel = channel, .warden = warden, .exited = exited, .ctx = ctx};
	ev_io_init(&c->io, on_word, channel, EV_READ);
	c->io.data = c;
	tnl_list_push_back(&l->children, &c->node);
	return c;
}

static void close_given(int give[2])
{
	for (int i = 0; i < 2; i++) {
		if (give[i] >= 0)
			close(give[i]);
		give[i] = -1;
	}
}

struct td_child *td_child_adopt(struct td_loop *l, int channel, pid_t warden, int give[2], td_child_fn *exited,
				void *ctx, char *why, size_t cap)
{
	struct td_warden_word word = {0};
	bool said = first_word(channel, &word, give);
	int err = said ? word.value : errno;
	struct td_child *c = NULL;

	snprintf(why, cap, "%.*s", (int)sizeof(word.text) - 1, said ? word.text : "");
	if (said && word.kind == TD_WARDEN_STARTED) {
		c = make(l, channel, warden, exited, ctx);
		err = ENOMEM;
	}
	if (!c) {
		close_given(give);
		close(channel);
		if (warden)
			waitpid(warden, NULL, word.kind == TD_WARDEN_REFUSED ? 0 : WNOHANG);
		errno = err;
		return NULL;
	}
	c->pid = word.value;
	ev_io_start(l->ev, &c->io);
	return c;
}

struct td_child *td_child_start(struct td_loop *l, const struct td_child_spec *s, td_child_fn *exited, void *ctx)
{
	int ends[2], give[2] = {-1, -1};
	char why[1];

	if (start_by)
		return start_by(l, s, exited, ctx);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
		return NULL;
	pid_t warden = td_warden_fork(s, ends[1], NULL, 0);
	int err = errno;
	close(ends[1]);
	if (warden < 0) {
		close(ends[0]);
		errno = err;
		return NULL;
	}
	return td_child_adopt(l, ends[0], warden, give, exited, ctx, why, sizeof(why));
}

/* --- afterwards ------------------------------------------------------------------- */

void td_child_free(struct td_child *c)
{
	if (!c)
		return;
	c->exited = NULL;
	c->freed = true;
	if (c->channel < 0)
		release(c);
	else
		shutdown(c->channel, SHUT_WR);
}

void td_child_signal(struct td_child *c, int sig)
{
	struct td_warden_word word = {.kind = TD_WARDEN_SIGNAL, .value = sig};
	if (!c->over && c->channel >= 0 && send(c->channel, &word, sizeof(word), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		td_error(MOD, NULL, "cannot send a signal child=%d signal=%d: %s", (int)c->pid, sig, strerror(errno));
}

pid_t td_child_pid(const struct td_child *c)
{
	return c->pid;
}

int td_child_code(int status)
{
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
