/* credential_process: a command of the user's whose output is read without ever waiting for it. */
#include "lib/alloc.h"
#include "tunneld/aws/credentials_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define OUTPUT_MAX 65536
#define TIME_LIMIT (60 * TD_SEC)
#define REAP_EVERY (5 * TD_MS)

extern char **environ;

struct td_process {
	struct td_credentials_run *run; /* NULL: cancelled, only to be reaped */
	struct td_loop *loop;
	pid_t pid;
	int fd;
	ev_io io;
	struct td_timer limit, reap;
	struct tnl_buf out;
	bool late;
};

static void process_free(void *arg)
{
	struct td_process *p = arg;

	tnl_buf_fini_wiped(&p->out);
	tnl_free(p);
}

static void close_output(struct td_process *p)
{
	if (p->fd < 0)
		return;
	ev_io_stop(p->loop->ev, &p->io);
	close(p->fd);
	p->fd = -1;
}

static void judge(struct td_process *p, int status, bool known)
{
	struct td_credentials_run *r = p->run;
	struct tnl_json *j = NULL;
	int64_t version;

	r->process = NULL;
	if (p->late)
		td_credentials_run_fail(
		    r, TD_CREDENTIALS_ERROR,
		    "credential_process of profile %.80s took longer than 60 s: run it by hand to see why",
		    r->plan.profile);
	else if (known && status != 0)
		td_credentials_run_fail(r, TD_CREDENTIALS_ERROR,
					"credential_process of profile %.80s failed (%s %d): run it by hand to see why",
					r->plan.profile, WIFSIGNALED(status) ? "signal" : "exit code",
					WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	else if ((j = tnl_json_parse(tnl_buf_data(&p->out), tnl_buf_len(&p->out))) == NULL ||
		 !tnl_json_int(tnl_json_get(j, "Version"), &version) || version != 1 ||
		 td_credentials_run_keys(r, j, "SessionToken") != 0)
		td_credentials_run_fail(
		    r, TD_CREDENTIALS_ERROR,
		    "credential_process of profile %.80s printed no usable credentials: JSON with Version 1, AccessKeyId and "
		    "SecretAccessKey is wanted",
		    r->plan.profile);
	else if (r->cur.expires_s && r->cur.expires_s <= td_credentials_run_now(r))
		td_credentials_run_fail(r, TD_CREDENTIALS_ERROR,
					"credential_process of profile %.80s printed credentials that have expired",
					r->plan.profile);
	else
		td_credentials_run_have(r);
	tnl_json_free(j);
}

/* There is no SIGCHLD watcher outside libev's default loop: the end is near when the output has
 * ended, so a few looks are enough. */
static void reap(void *arg)
{
	struct td_process *p = arg;
	int status = 0;
	pid_t rc = waitpid(p->pid, &status, WNOHANG);

	if (rc == 0) {
		td_timer_in(&p->reap, REAP_EVERY);
		return;
	}
	td_timer_stop(&p->limit);
	if (p->run)
		judge(p, status, rc == p->pid);
	td_loop_defer(p->loop, process_free, p);
}

static void end(struct td_process *p)
{
	close_output(p);
	td_timer_in(&p->reap, 0);
}

static void too_late(void *arg)
{
	struct td_process *p = arg;

	p->late = true;
	kill(-p->pid, SIGKILL);
	end(p);
}

static void readable(struct ev_loop *ev, ev_io *w, int events)
{
	struct td_process *p = w->data;
	uint8_t *q = tnl_buf_reserve(&p->out, tnl_buf_room(&p->out) < 4096 ? tnl_buf_room(&p->out) : 4096);
	size_t room = tnl_buf_room(&p->out) < 4096 ? tnl_buf_room(&p->out) : 4096;
	ssize_t n = q && room ? read(p->fd, q, room) : 0;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0)
		tnl_buf_commit(&p->out, (size_t)n);
	else
		end(p); /* its end, or more than anybody's credentials: the parser will say */
}

static int spawn(struct td_process *p, const char *command)
{
	char *argv[] = {(char[]){"sh"}, (char[]){"-c"}, (char *)(uintptr_t)command, NULL};
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t attr;
	sigset_t none, dflt;
	int fds[2], rc;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return errno;
	sigemptyset(&none);
	sigemptyset(&dflt);
	sigaddset(&dflt, SIGPIPE);
	posix_spawn_file_actions_init(&fa);
	posix_spawnattr_init(&attr);
	posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&fa, fds[1], 1);
	posix_spawn_file_actions_addopen(&fa, 2, "/dev/null", O_WRONLY, 0); /* it may say secrets: not into our log */
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &dflt);
	rc = posix_spawn(&p->pid, "/bin/sh", &fa, &attr, argv, environ);
	posix_spawn_file_actions_destroy(&fa);
	posix_spawnattr_destroy(&attr);
	close(fds[1]);
	if (rc != 0) {
		close(fds[0]);
		return rc;
	}
	p->fd = fds[0];
	fcntl(p->fd, F_SETFL, fcntl(p->fd, F_GETFL) | O_NONBLOCK);
	return 0;
}

void td_credentials_process(struct td_credentials_run *r)
{
	struct td_process *p = tnl_calloc(1, sizeof(*p));
	int rc = p ? spawn(p, r->plan.command) : ENOMEM;

	if (rc != 0) {
		tnl_free(p);
		td_credentials_run_fail(r, TD_CREDENTIALS_ERROR,
					"credential_process of profile %.80s cannot be started: %s", r->plan.profile,
					strerror(rc));
		return;
	}
	p->run = r;
	p->loop = r->a->loop;
	r->process = p;
	tnl_buf_init(&p->out, OUTPUT_MAX);
	td_timer_init(&p->limit, p->loop, too_late, p);
	td_timer_init(&p->reap, p->loop, reap, p);
	td_timer_in(&p->limit, TIME_LIMIT);
	ev_io_init(&p->io, readable, p->fd, EV_READ);
	p->io.data = p;
	ev_io_start(p->loop->ev, &p->io);
}

void td_credentials_process_cancel(struct td_credentials_run *r)
{
	struct td_process *p = r->process;

	if (!p)
		return;
	r->process = NULL;
	p->run = NULL;
	td_timer_stop(&p->limit);
	kill(-p->pid, SIGKILL);
	end(p);
}
