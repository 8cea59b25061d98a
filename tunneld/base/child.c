/* Running child processes: everything that allocates is done before the fork, since other threads may hold locks. */
#include "tunneld/base/child.h"

#include "lib/alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define KILL_NS (5 * TD_SEC)

struct td_child {
	struct td_loop *l;
	pid_t pid;
	int pidfd;
	ev_io exit;
	struct td_timer kill_timer;
	void (*exited)(void *, int); /* NULL: nobody is interested any more */
	void *ctx;
	bool reaped;
};

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

static _Noreturn void child_main(const struct td_child_spec *s)
{
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

/* Signals wait until the child has let go of our handlers. */
static pid_t fork_child(const struct td_child_spec *s)
{
	sigset_t every, before;
	sigfillset(&every);
	pthread_sigmask(SIG_SETMASK, &every, &before);
	pid_t pid = fork();
	if (pid == 0)
		child_main(s);
	int err = errno;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	errno = err;
	return pid;
}

static void kill_group(const struct td_child *c, int sig)
{
	/* It may not have come to make the group yet. */
	if (kill(-c->pid, sig) != 0 || sig == SIGKILL)
		kill(c->pid, sig);
}

static void on_exit_event(struct ev_loop *ev, ev_io *w, int events)
{
	struct td_child *c = w->data;
	int status = 0;
	pid_t pid = waitpid(c->pid, &status, WNOHANG);

	if (pid == 0)
		return;
	if (pid != c->pid)
		status = 0; /* where SIGCHLD is ignored the kernel keeps nothing */
	c->reaped = true;
	ev_io_stop(ev, w);
	td_timer_stop(&c->kill_timer);
	close(c->pidfd);
	if (c->exited)
		c->exited(c->ctx, status);
	else
		td_loop_free_later(c->l, c);
}

static void on_kill(void *arg)
{
	kill_group(arg, SIGKILL);
}

struct td_child *td_child_start(struct td_loop *l, const struct td_child_spec *s, void (*exited)(void *ctx, int status),
				void *ctx)
{
	struct td_child *c = tnl_calloc(1, sizeof(*c));
	if (!c) {
		errno = ENOMEM;
		return NULL;
	}
	c->pid = fork_child(s);
	c->pidfd = c->pid > 0 ? (int)syscall(SYS_pidfd_open, c->pid, 0) : -1;
	if (c->pidfd < 0) {
		int err = errno;
		if (c->pid > 0) {
			kill_group(c, SIGKILL);
			waitpid(c->pid, NULL, 0);
		}
		tnl_free(c);
		errno = err;
		return NULL;
	}
	c->l = l;
	c->exited = exited;
	c->ctx = ctx;
	td_timer_init(&c->kill_timer, l, on_kill, c);
	ev_io_init(&c->exit, on_exit_event, c->pidfd, EV_READ);
	c->exit.data = c;
	ev_io_start(l->ev, &c->exit);
	return c;
}

void td_child_free(struct td_child *c)
{
	if (!c)
		return;
	c->exited = NULL;
	if (c->reaped) {
		td_loop_free_later(c->l, c);
		return;
	}
	kill_group(c, SIGHUP);
	td_timer_in(&c->kill_timer, KILL_NS);
}

void td_child_signal(struct td_child *c, int sig)
{
	if (!c->reaped)
		kill_group(c, sig);
}

pid_t td_child_pid(const struct td_child *c)
{
	return c->pid;
}

int td_child_code(int status)
{
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
