/* A program in the foreground.
 *
 * It stays in our process group: the terminal's foreground, its Ctrl-C and the shell's job control then hold for both
 * of us without anything being done.  So that nothing reaches it twice, signals are read with their origin (signalfd):
 * those of the kernel, which are the terminal's, went to the whole group.  We stop when the program has stopped, never
 * before it, or the shell would be back while the program still reads from the terminal; one that stops itself alone
 * takes us along, or the shell would not see it. */
#include "tunneld/command/program.h"

#include "lib/alloc.h"
#include "lib/num.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

static const int passed_on[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGTSTP, SIGTTIN, SIGTTOU};

static struct {
	bool ignored[TNL_COUNT(passed_on)], pipe_ignored;
	struct rlimit core;
	sigset_t mask;
} given;

struct td_program {
	struct td_loop *loop;
	pid_t pid; /* 0: it has exited */
	int signals, terminal;
	bool foreground; /* we were in the terminal's when it started */
	ev_io io;
	const struct td_program_cb *cb;
	void *ctx;
};

static bool is_ignored(int sig)
{
	struct sigaction sa;
	return sigaction(sig, NULL, &sa) == 0 && sa.sa_handler == SIG_IGN;
}

void td_program_remember(void)
{
	for (size_t i = 0; i < TNL_COUNT(passed_on); i++)
		given.ignored[i] = is_ignored(passed_on[i]);
	given.pipe_ignored = is_ignored(SIGPIPE);
	sigprocmask(SIG_SETMASK, NULL, &given.mask);
	if (getrlimit(RLIMIT_CORE, &given.core) != 0)
		given.core = (struct rlimit){RLIM_INFINITY, RLIM_INFINITY};
}

/* --- the terminal ----------------------------------------------------------------- */

static void find_terminal(struct td_program *p)
{
	p->terminal = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
	p->foreground = p->terminal >= 0 && tcgetpgrp(p->terminal) == getpgrp();
}

/* A shell as the program may have put groups of its own into the foreground. */
static void take_terminal_back(const struct td_program *p)
{
	sigset_t out, old;
	if (!p->foreground || tcgetpgrp(p->terminal) == getpgrp())
		return;
	sigemptyset(&out);
	sigaddset(&out, SIGTTOU);
	sigprocmask(SIG_BLOCK, &out, &old);
	(void)!tcsetpgrp(p->terminal, getpgrp());
	sigprocmask(SIG_SETMASK, &old, NULL);
}

/* --- signals ---------------------------------------------------------------------- */

static bool is_stop(int sig)
{
	return sig == SIGTSTP || sig == SIGTTIN || sig == SIGTTOU;
}

static void stop_with_it(const struct td_program *p, int sig)
{
	if (!p->foreground && !is_stop(sig))
		return;
	raise(SIGSTOP);
	/* Who went on with the whole group is not told twice: by now it may have been stopped once more. */
	siginfo_t s = {0};
	if (waitid(P_PID, (id_t)p->pid, &s, WEXITED | WSTOPPED | WCONTINUED | WNOHANG | WNOWAIT) == 0 && !s.si_pid)
		kill(p->pid, SIGCONT);
}

static void look_at_child(struct td_program *p)
{
	int status;
	pid_t pid = p->pid ? waitpid(p->pid, &status, WNOHANG | WUNTRACED) : 0;
	if (pid <= 0)
		return;
	if (WIFSTOPPED(status)) {
		stop_with_it(p, WSTOPSIG(status));
		return;
	}
	p->pid = 0;
	take_terminal_back(p);
	p->cb->exited(p->ctx, WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
}

static void on_signals(struct ev_loop *ev, ev_io *w, int events)
{
	struct td_program *p = w->data;
	struct signalfd_siginfo s;
	while (read(p->signals, &s, sizeof(s)) == (ssize_t)sizeof(s)) {
		int sig = (int)s.ssi_signo;
		if (sig == SIGCHLD)
			look_at_child(p);
		else if (!p->pid && is_stop(sig))
			raise(SIGSTOP);
		else if (!p->pid)
			p->cb->signalled(p->ctx, sig);
		else if (s.ssi_code != SI_KERNEL)
			kill(p->pid, sig);
	}
}

static int open_signals(struct td_program *p)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	for (size_t i = 0; i < TNL_COUNT(passed_on); i++) {
		sigaddset(&set, passed_on[i]);
		if (given.ignored[i]) /* nohup, and jobs in the background of a script */
			signal(passed_on[i], SIG_IGN);
	}
	if (sigprocmask(SIG_BLOCK, &set, NULL) != 0)
		return -1;
	p->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return p->signals < 0 ? -1 : 0;
}

/* --- start and end ------------------------------------------------------------------ */

/* What we changed for ourselves is not its affair. */
static int spawn(struct td_program *p, char *const *argv)
{
	posix_spawnattr_t attr;
	sigset_t defaults;
	struct rlimit ours;
	int err = posix_spawnattr_init(&attr);
	if (err)
		return err;
	sigemptyset(&defaults);
	if (!given.pipe_ignored)
		sigaddset(&defaults, SIGPIPE);
	posix_spawnattr_setsigdefault(&attr, &defaults);
	posix_spawnattr_setsigmask(&attr, &given.mask);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
	bool core = getrlimit(RLIMIT_CORE, &ours) == 0 && setrlimit(RLIMIT_CORE, &given.core) == 0;
	err = posix_spawnp(&p->pid, argv[0], NULL, &attr, argv, environ);
	if (core)
		setrlimit(RLIMIT_CORE, &ours);
	posix_spawnattr_destroy(&attr);
	return err;
}

struct td_program *td_program_start(struct td_loop *l, char *const *argv, const struct td_program_cb *cb, void *ctx)
{
	struct td_program *p = tnl_calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	*p = (struct td_program){.loop = l, .signals = -1, .cb = cb, .ctx = ctx};
	find_terminal(p);
	int err = open_signals(p) == 0 ? spawn(p, argv) : errno;
	if (err) {
		p->pid = 0;
		td_program_free(p);
		errno = err;
		return NULL;
	}
	ev_io_init(&p->io, on_signals, p->signals, EV_READ);
	p->io.data = p;
	ev_io_start(l->ev, &p->io);
	return p;
}

void td_program_free(struct td_program *p)
{
	if (!p)
		return;
	ev_io_stop(p->loop->ev, &p->io);
	if (p->signals >= 0)
		close(p->signals);
	if (p->terminal >= 0)
		close(p->terminal);
	tnl_free(p);
}
