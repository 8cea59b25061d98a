/* The processes of shell sessions: whom they run as, what they find around them, and the descriptors between them and
 * us. How a process is started and waited for is in base/child.c. */
#include "tunneld/agent/spawn.h"

#include "tunneld/base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pty.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

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

/* HOME, USER, LOGNAME, SHELL, PATH, TERM, LANG and the end. */
#define ENV_MAX 8
struct environment {
	const char *v[ENV_MAX];
	char text[ENV_MAX][300];
	size_t n;
};

static void put_variable(struct environment *e, const char *name, const char *value)
{
	snprintf(e->text[e->n], sizeof(e->text[0]), "%s=%s", name, value);
	e->v[e->n] = e->text[e->n];
	e->n++;
}

static void make_environment(struct environment *e, const struct identity *id, bool terminal)
{
	const char *lang = getenv("LANG");

	*e = (struct environment){0};
	put_variable(e, "HOME", id->home);
	put_variable(e, "USER", id->name);
	put_variable(e, "LOGNAME", id->name);
	put_variable(e, "SHELL", id->shell);
	put_variable(e, "PATH",
		     id->uid == 0 ? "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
				  : "/usr/local/bin:/usr/bin:/bin");
	if (terminal)
		put_variable(e, "TERM", "xterm-256color");
	if (lang)
		put_variable(e, "LANG", lang);
}

/* In the child. */
static bool become_user(const void *arg)
{
	const struct identity *id = arg;

	if (id->change && (initgroups(id->name, id->gid) != 0 || setgid(id->gid) != 0 || setuid(id->uid) != 0))
		return false;
	prctl(PR_SET_PDEATHSIG, SIGHUP); /* the agent may be killed; after the change of user, which clears it */
	umask(022);
	return chdir(id->home) == 0 || chdir("/") == 0;
}

/* The ends of the agent (0: output, 1: errors or -1) and those of the child. */
struct ends {
	int ours[2], child[3];
};

static bool open_pty(const struct ag_spawn *s, struct ends *e)
{
	struct winsize w = {.ws_col = (unsigned short)(s->cols ? s->cols : 80),
			    .ws_row = (unsigned short)(s->rows ? s->rows : 24)};
	int slave;

	if (openpty(&e->ours[0], &slave, NULL, NULL, &w) != 0)
		return false;
	for (int i = 0; i < 3; i++)
		e->child[i] = slave;
	return true;
}

static bool open_pipe(int *ours, int *child)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) != 0)
		return false;
	*ours = fds[0];
	*child = fds[1];
	return true;
}

static bool open_pipes(const struct ag_spawn *s, struct ends *e)
{
	if (!open_pipe(&e->ours[0], &e->child[1]))
		return false;
	e->child[2] = e->child[1];
	return s->join_errors || open_pipe(&e->ours[1], &e->child[2]);
}

static void close_each(const int *fds, int n)
{
	for (int i = 0; i < n; i++) {
		bool again = false;
		for (int j = 0; j < i; j++)
			again |= fds[j] == fds[i];
		if (fds[i] >= 0 && !again)
			close(fds[i]);
	}
}

static struct td_child *start_process(struct td_loop *l, const struct ag_spawn *s, const struct identity *id,
				      struct ends *e, void (*exited)(void *ctx, int status), void *ctx)
{
	struct environment env;
	char login[300];
	const char *base = strrchr(id->shell, '/');
	const char *const sh[] = {"sh", "-c", s->command, NULL}, *const shell[] = {login, NULL};
	struct td_child_spec spec = {.path = s->command ? "/bin/sh" : id->shell,
				     .argv = s->command ? sh : shell,
				     .env = env.v,
				     .fds = {e->child[0], e->child[1], e->child[2]},
				     .session = true,
				     .enter = become_user,
				     .arg = id};

	make_environment(&env, id, s->terminal);
	snprintf(login, sizeof(login), "-%s", base ? base + 1 : id->shell); /* a leading dash: a login shell */
	return td_child_start(l, &spec, exited, ctx);
}

struct td_child *ag_spawn(struct td_loop *l, const struct ag_spawn *s, struct ag_spawn_fds *fds,
			  void (*exited)(void *ctx, int status), void *ctx, char *why, size_t cap)
{
	struct ends e = {{-1, -1}, {-1, -1, -1}};
	struct td_child *c = NULL;
	struct identity id;

	if (!find_user(s->user, &id, why, cap))
		return NULL;
	if (s->terminal ? open_pty(s, &e) : open_pipes(s, &e))
		c = start_process(l, s, &id, &e, exited, ctx);
	if (!c)
		snprintf(why, cap, "cannot start a process: %s", strerror(errno));
	close_each(e.child, 3);
	if (!c) {
		close_each(e.ours, 2);
		return NULL;
	}
	for (int i = 0; i < 2; i++)
		if (e.ours[i] >= 0)
			td_fd_nonblock(e.ours[i]);
	*fds = (struct ag_spawn_fds){.out = e.ours[0], .err = e.ours[1]};
	return c;
}
