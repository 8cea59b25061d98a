/* The warden of a child. It is forked from processes that may have threads, so that nothing here allocates memory: what
 * it needs is on its stack.
 *
 * That it is a subreaper is all the bookkeeping: a process whose parent has gone becomes the warden's own child, also
 * after a double fork into a session of its own. So it kills its children, which makes theirs its own, until wait()
 * says that there are none.  What forks faster than that needs a control group, where there is one to be had. */
#include "tunneld/base/warden.h"

#include "tunneld/base/cgroup.h"
#include "tunneld/base/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUND_MS 20    /* between two rounds of SIGKILL */
#define TRIES_MS 1000  /* the same, for what may not be killed */
#define TABLE_MAX 4096 /* bytes of the list of children that are looked at in one round */

struct warden {
	int channel, signals;
	pid_t child; /* 0: it has exited */
	bool ending, none_left, told;
	int64_t kill_at;
	struct td_cgroup group;
};

/* --- the child ------------------------------------------------------------------ */

static void reset_signals(void)
{
	sigset_t none;
	for (int i = 1; i < NSIG; i++)
		signal(i, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static void take_descriptors(const int fds[3])
{
	for (int i = 0; i < 3; i++) {
		int fd = fds[i] >= 0 ? fds[i] : open("/dev/null", i == 0 ? O_RDONLY : O_WRONLY);
		if (fd < 0 || dup2(fd, i) < 0)
			_exit(126);
	}
	closefrom(3);
}

static _Noreturn void child_main(const struct td_child_spec *s, const struct td_cgroup *group)
{
	td_cgroup_enter(group);
	reset_signals();
	if (s->session)
		setsid();
	else
		setpgid(0, 0);
	take_descriptors(s->fds);
	if (s->session)
		ioctl(0, TIOCSCTTY, 0); /* no terminal: no matter */
	if (s->enter && !s->enter(s->arg))
		_exit(126);
	execve(s->path, (char *const *)(uintptr_t)s->argv, s->env ? (char *const *)(uintptr_t)s->env : environ);
	dprintf(2, "cannot run %s: %s\n", s->path, strerror(errno));
	_exit(127);
}

/* --- words ------------------------------------------------------------------------ */

static void say(int channel, const struct td_warden_word *word, const int *give, int ngive)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int) * TD_WARDEN_GIVE_MAX)];
	} c;
	struct iovec io = {.iov_base = (void *)(uintptr_t)word, .iov_len = sizeof(*word)};
	struct msghdr m = {.msg_iov = &io, .msg_iovlen = 1};

	if (ngive) {
		memset(&c, 0, sizeof(c));
		m.msg_control = c.room;
		m.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)ngive);
		c.head.cmsg_level = SOL_SOCKET;
		c.head.cmsg_type = SCM_RIGHTS;
		c.head.cmsg_len = CMSG_LEN(sizeof(int) * (size_t)ngive);
		memcpy(CMSG_DATA(&c.head), give, sizeof(int) * (size_t)ngive);
	}
	while (sendmsg(channel, &m, MSG_NOSIGNAL) < 0 && errno == EINTR)
		;
}

void td_warden_refuse(int channel, int err, const char *text)
{
	struct td_warden_word w = {.kind = TD_WARDEN_REFUSED, .value = err};
	snprintf(w.text, sizeof(w.text), "%s", text);
	say(channel, &w, NULL, 0);
}

/* Once: a process that another user owns now stays so. */
static void tell_left(struct warden *w, pid_t pid, int err)
{
	struct td_warden_word word = {.kind = TD_WARDEN_LEFT, .value = pid, .error = err};
	if (!w->told)
		say(w->channel, &word, NULL, 0);
	w->told = true;
}

/* --- what is below it ------------------------------------------------------------- */

static int64_t now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void signal_one(struct warden *w, pid_t pid, int sig)
{
	if (kill(pid, sig) != 0 && errno != ESRCH)
		tell_left(w, pid, errno);
}

/* Its own children, the adopted ones among them. */
static void signal_children(struct warden *w, int sig)
{
	char text[TABLE_MAX + 1], *end;
	long pid;
	int fd = open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, text, TABLE_MAX) : -1;
	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	if (n < 0 && w->child)
		signal_one(w, w->child, sig);
	if (n < 0)
		tell_left(w, 0, errno);
	/* A number is whole with the space behind it; what is cut off comes in the next round. */
	for (char *p = text; (pid = strtol(p, &end, 10)) > 0 && *end == ' '; p = end)
		signal_one(w, (pid_t)pid, sig);
}

static void signal_group(struct warden *w, int sig)
{
	if (!w->child)
		return;
	/* It may not have come to make the group yet. */
	if (kill(-w->child, sig) != 0 || sig == SIGKILL)
		signal_one(w, w->child, sig);
}

static void reap(struct warden *w)
{
	int status;
	pid_t pid;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		struct td_warden_word word = {.kind = TD_WARDEN_EXITED, .value = status};
		if (pid != w->child)
			continue;
		w->child = 0;
		say(w->channel, &word, NULL, 0);
	}
	w->none_left = pid < 0;
}

static void begin_end(struct warden *w)
{
	w->ending = true;
	w->kill_at = now_ms() + TD_WARDEN_KILL_MS;
	signal_group(w, SIGHUP);
	signal_children(w, SIGHUP);
	signal_children(w, SIGCONT); /* what is stopped hears it only then */
}

static void listen_to_us(struct warden *w)
{
	struct td_warden_word word;
	ssize_t n = recv(w->channel, &word, sizeof(word), MSG_DONTWAIT);
	if (n == sizeof(word) && word.kind == TD_WARDEN_SIGNAL)
		signal_group(w, word.value);
	else if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		begin_end(w);
}

static int patience(struct warden *w)
{
	if (!w->ending)
		return -1;
	int64_t left = w->kill_at - now_ms();
	if (left > 0)
		return (int)left;
	w->told = w->told && left > -TRIES_MS;
	td_cgroup_kill(&w->group);
	signal_children(w, SIGKILL);
	return w->told ? TRIES_MS : ROUND_MS;
}

static _Noreturn void watch(struct warden *w)
{
	for (;;) {
		struct pollfd p[2] = {{w->signals, POLLIN, 0}, {w->ending ? -1 : w->channel, POLLIN, 0}};
		struct signalfd_siginfo told;

		reap(w);
		if (w->ending && w->none_left) {
			td_cgroup_remove(&w->group);
			_exit(0);
		}
		if (poll(p, 2, patience(w)) < 0)
			continue;
		while (read(w->signals, &told, sizeof(told)) > 0)
			;
		if (p[1].revents)
			listen_to_us(w);
	}
}

/* --- its start -------------------------------------------------------------------- */

/* The channel and nothing else; no working directory that it would keep busy. */
static void keep_channel(struct warden *w)
{
	int null = open("/dev/null", O_RDWR);
	for (int i = 0; i < 3; i++)
		if (null < 0 || dup2(null, i) < 0)
			_exit(126);
	w->channel = dup2(w->channel, 3);
	closefrom(4);
	if (w->channel < 0 || chdir("/") != 0)
		_exit(126);
}

static _Noreturn void warden_main(const struct td_child_spec *s, int channel, const int *give, int ngive)
{
	struct warden w = {.channel = channel};
	struct td_warden_word word = {.kind = TD_WARDEN_STARTED};
	sigset_t every;

	reset_signals();
	sigfillset(&every);
	sigprocmask(SIG_SETMASK, &every, NULL);
	setpgid(0, 0);
	prctl(PR_SET_NAME, "tunneld-warden");
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	td_cgroup_make(&w.group);
	word.value = w.child = fork();
	if (w.child == 0)
		child_main(s, &w.group);
	if (w.child < 0) {
		td_cgroup_remove(&w.group);
		td_warden_refuse(channel, errno, "");
		_exit(1);
	}
	say(channel, &word, give, ngive);
	keep_channel(&w);
	w.signals = signalfd(-1, &every, SFD_NONBLOCK | SFD_CLOEXEC);
	watch(&w);
}

/* Signals wait until it has let go of our handlers. */
pid_t td_warden_fork(const struct td_child_spec *s, int channel, const int *give, int ngive)
{
	sigset_t every, before;
	sigfillset(&every);
	pthread_sigmask(SIG_SETMASK, &every, &before);
	pid_t pid = fork();
	if (pid == 0)
		warden_main(s, channel, give, ngive);
	int err = errno;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	errno = err;
	return pid;
}
