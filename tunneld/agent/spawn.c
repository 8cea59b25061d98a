#include "tunneld/agent/spawn.h"

#include "lib/alloc.h"
#include "tunneld/base/fd.h"
#include "tunneld/net/addr.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pty.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
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
	void (*exited)(void *, int);
	void *ctx;
	bool orphan, reaped;
};

struct identity {
	uid_t uid;
	gid_t gid;
	char name[64], home[256], shell[256];
	bool change; /* we are root and are to become somebody */
};

static bool find_user(const char *user, struct identity *id, char *why, size_t cap)
{
	struct passwd *p;

	errno = 0;
	p = user ? getpwnam(user) : getpwuid(geteuid());
	if (!p) {
		snprintf(why, cap, "there is no user %s here (shell_user)", user ? user : "for this process");
		return false;
	}
	if (p->pw_uid != geteuid() && geteuid() != 0) {
		snprintf(why, cap, "the agent does not run as root and cannot start shells as %s", p->pw_name);
		return false;
	}
	id->uid = p->pw_uid;
	id->gid = p->pw_gid;
	id->change = geteuid() == 0;
	snprintf(id->name, sizeof(id->name), "%s", p->pw_name);
	snprintf(id->home, sizeof(id->home), "%s", p->pw_dir && *p->pw_dir ? p->pw_dir : "/");
	snprintf(id->shell, sizeof(id->shell), "%s", p->pw_shell && *p->pw_shell ? p->pw_shell : "/bin/sh");
	return true;
}

static void child_environment(const struct identity *id, bool terminal)
{
	const char *lang = getenv("LANG");
	char *kept = lang ? strdup(lang) : NULL;

	clearenv();
	setenv("HOME", id->home, 1);
	setenv("USER", id->name, 1);
	setenv("LOGNAME", id->name, 1);
	setenv("SHELL", id->shell, 1);
	setenv("PATH",
	       id->uid == 0 ? "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
			    : "/usr/local/bin:/usr/bin:/bin",
	       1);
	if (terminal)
		setenv("TERM", "xterm-256color", 1);
	if (kept)
		setenv("LANG", kept, 1);
}

static void child_signals(void)
{
	sigset_t none;
	for (int i = 1; i < NSIG; i++)
		signal(i, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static _Noreturn void child_main(const struct td_spawn *s, const struct identity *id)
{
	char argv0[300];
	const char *base = strrchr(id->shell, '/');

	child_signals();
	closefrom(3);
	if (id->change && (initgroups(id->name, id->gid) != 0 || setgid(id->gid) != 0 || setuid(id->uid) != 0))
		_exit(126);
	prctl(PR_SET_PDEATHSIG, SIGHUP); /* the agent may be killed; after the change of user, which clears it */
	umask(022);
	child_environment(id, s->terminal);
	if (chdir(id->home) != 0 && chdir("/") != 0)
		_exit(126);
	snprintf(argv0, sizeof(argv0), "-%s", base ? base + 1 : id->shell); /* a leading dash: a login shell */
	if (s->command)
		execl("/bin/sh", "sh", "-c", s->command, (char *)NULL);
	else
		execl(id->shell, argv0, (char *)NULL);
	fprintf(stderr, "cannot run %s: %s\n", s->command ? "/bin/sh" : id->shell, strerror(errno));
	_exit(127);
}

static pid_t fork_on_pty(const struct td_spawn *s, const struct identity *id, struct td_child_fds *fds)
{
	struct winsize w = {.ws_col = (unsigned short)(s->cols ? s->cols : 80),
			    .ws_row = (unsigned short)(s->rows ? s->rows : 24)};
	pid_t pid = forkpty(&fds->out, NULL, NULL, &w);
	if (pid == 0)
		child_main(s, id);
	return pid;
}

static pid_t fork_on_pipes(const struct td_spawn *s, const struct identity *id, struct td_child_fds *fds)
{
	int out[2] = {-1, -1}, err[2] = {-1, -1};

	if (pipe2(out, O_CLOEXEC) != 0 || (!s->join_errors && pipe2(err, O_CLOEXEC) != 0))
		goto fail;
	pid_t pid = fork();
	if (pid < 0)
		goto fail;
	if (pid == 0) {
		int null = open("/dev/null", O_RDONLY);
		setsid();
		dup2(null, 0);
		dup2(out[1], 1);
		dup2(s->join_errors ? out[1] : err[1], 2);
		child_main(s, id);
	}
	close(out[1]);
	fds->out = out[0];
	if (err[1] >= 0)
		close(err[1]);
	fds->err = err[0];
	return pid;
fail:
	for (int i = 0; i < 2; i++) {
		if (out[i] >= 0)
			close(out[i]);
		if (err[i] >= 0)
			close(err[i]);
	}
	return -1;
}

static void child_gone(void *arg)
{
	struct td_child *c = arg;
	tnl_free(c);
}

static void on_exit_event(EV_P_ ev_io *w, int revents)
{
	struct td_child *c = w->data;
	int status = 0, code;

	if (waitpid(c->pid, &status, WNOHANG) != c->pid)
		return;
	c->reaped = true;
	ev_io_stop(c->l->ev, &c->exit);
	td_timer_stop(&c->kill_timer);
	close(c->pidfd);
	code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	if (c->orphan)
		td_loop_defer(c->l, child_gone, c);
	else
		c->exited(c->ctx, code);
}

static void on_kill(void *arg)
{
	struct td_child *c = arg;
	kill(-c->pid, SIGKILL);
	kill(c->pid, SIGKILL);
}

struct td_child *td_spawn(struct td_loop *l, const struct td_spawn *s, struct td_child_fds *fds,
			  void (*exited)(void *ctx, int code), void *ctx, char *why, size_t cap)
{
	struct identity id;
	struct td_child *c;

	fds->out = fds->err = -1;
	if (!find_user(s->user, &id, why, cap))
		return NULL;
	c = tnl_calloc(1, sizeof(*c));
	if (!c) {
		snprintf(why, cap, "the agent is out of memory");
		return NULL;
	}
	c->pid = s->terminal ? fork_on_pty(s, &id, fds) : fork_on_pipes(s, &id, fds);
	c->pidfd = c->pid > 0 ? (int)syscall(SYS_pidfd_open, c->pid, 0) : -1;
	if (c->pidfd < 0) {
		snprintf(why, cap, "cannot start a process: %s", strerror(errno));
		if (c->pid > 0) {
			kill(c->pid, SIGKILL);
			waitpid(c->pid, NULL, 0);
		}
		if (fds->out >= 0)
			close(fds->out);
		if (fds->err >= 0)
			close(fds->err);
		tnl_free(c);
		return NULL;
	}
	td_fd_nonblock(fds->out);
	fcntl(fds->out, F_SETFD, FD_CLOEXEC);
	if (fds->err >= 0)
		td_fd_nonblock(fds->err);
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
	if (c->reaped) {
		td_loop_defer(c->l, child_gone, c);
		return;
	}
	c->orphan = true;
	kill(-c->pid, SIGHUP);
	td_timer_in(&c->kill_timer, KILL_NS);
}

pid_t td_child_pid(const struct td_child *c)
{
	return c->pid;
}
