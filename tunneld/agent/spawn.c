/* The processes of shell sessions: whom they run as, what they find around them, and the descriptors between them and
 * us.  All of it is made where the process is started, in the spawner if there is one; what comes back are our ends.
 * How a process is started and waited for is in base/. */
#include "tunneld/agent/spawn.h"

#include "lib/alloc.h"
#include "tunneld/base/caps.h"
#include "tunneld/base/fd.h"
#include "tunneld/base/spawner.h"
#include "tunneld/base/warden.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pty.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

struct identity {
	uid_t uid;
	gid_t gid;
	char name[64], home[256], shell[256];
	bool change; /* we may become somebody, and do */
};

/* Those that /etc/shells lists, and a few where there is no such file. */
static bool is_login_shell(const char *shell)
{
	const char *line;
	bool found = false;
	setusershell();
	while (!found && (line = getusershell()))
		found = strcmp(line, shell) == 0;
	endusershell();
	return found;
}

/* An account whose shell is made to let nobody in. */
static bool is_closed(const char *shell)
{
	const char *slash = strrchr(shell, '/'), *base = slash ? slash + 1 : shell;
	return strcmp(base, "nologin") == 0 || strcmp(base, "false") == 0;
}

/* `sh -c` would let commands run on an account that has no shell to run them. */
static bool may_log_in(const struct identity *id, bool command, char *why, size_t cap)
{
	if (!is_closed(id->shell) && (!command || is_login_shell(id->shell)))
		return true;
	snprintf(why, cap, "the account of %s runs no %s: its shell is %.60s", id->name,
		 command ? "commands" : "shells", id->shell);
	return false;
}

static bool find_user(const char *user, struct identity *id, char *why, size_t cap)
{
	struct passwd *p;

	errno = 0;
	p = *user ? getpwnam(user) : getpwuid(geteuid());
	if (!p) {
		snprintf(why, cap, "there is no user %s here (shell_user)", *user ? user : "for this process");
		return false;
	}
	id->change = td_caps_have(TD_CAP(CAP_SETUID) | TD_CAP(CAP_SETGID));
	if (p->pw_uid != geteuid() && !id->change) {
		snprintf(why, cap, "the agent may not become other users and cannot start shells as %s", p->pw_name);
		return false;
	}
	id->uid = p->pw_uid;
	id->gid = p->pw_gid;
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
	/* What the unit gave the spawner is not the user's. */
	if (id->uid != 0 && td_caps_keep(0) != 0)
		return false;
	prctl(PR_SET_PDEATHSIG, SIGHUP); /* the agent may be killed; after the change of user, which clears it */
	umask(022);
	return chdir(id->home) == 0 || chdir("/") == 0;
}

/* --- where it is started ---------------------------------------------------------- */

/* What is asked for, with the command behind it. */
struct order {
	unsigned short cols, rows;
	bool terminal, join_errors, command;
};

/* The ends of the agent (0: output, 1: errors or -1) and those of the child. */
struct ends {
	int ours[2], child[3];
};

/* The terminal belongs to the user, who may open it again by its name. */
static bool open_pty(const struct order *o, const struct identity *id, struct ends *e)
{
	struct winsize w = {.ws_col = o->cols ? o->cols : 80, .ws_row = o->rows ? o->rows : 24};
	int slave;

	setfsuid(id->uid);
	bool ok = openpty(&e->ours[0], &slave, NULL, NULL, &w) == 0;
	setfsuid(geteuid());
	for (int i = 0; ok && i < 3; i++)
		e->child[i] = slave;
	return ok;
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

static bool open_pipes(const struct order *o, struct ends *e)
{
	if (!open_pipe(&e->ours[0], &e->child[1]))
		return false;
	e->child[2] = e->child[1];
	return o->join_errors || open_pipe(&e->ours[1], &e->child[2]);
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

static pid_t start_process(const struct order *o, const char *command, const struct identity *id, const struct ends *e,
			   int channel)
{
	struct environment env;
	char login[300];
	const char *base = strrchr(id->shell, '/');
	const char *const sh[] = {"sh", "-c", command, NULL}, *const shell[] = {login, NULL};
	struct td_child_spec spec = {.path = o->command ? "/bin/sh" : id->shell,
				     .argv = o->command ? sh : shell,
				     .env = env.v,
				     .fds = {e->child[0], e->child[1], e->child[2]},
				     .session = true,
				     .enter = become_user,
				     .arg = id};

	make_environment(&env, id, o->terminal);
	snprintf(login, sizeof(login), "-%s", base ? base + 1 : id->shell); /* a leading dash: a login shell */
	return td_warden_fork(&spec, channel, e->ours, e->ours[1] >= 0 ? 2 : 1);
}

static pid_t serve_order(const void *user, const struct td_spawner_job *j)
{
	struct ends e = {{-1, -1}, {-1, -1, -1}};
	struct order o = {0};
	struct identity id;
	char why[200] = "";
	pid_t pid = -1;

	errno = EINVAL;
	if (j->n >= sizeof(o)) {
		memcpy(&o, j->message, sizeof(o));
		if (find_user(user, &id, why, sizeof(why)) && may_log_in(&id, o.command, why, sizeof(why)) &&
		    (o.terminal ? open_pty(&o, &id, &e) : open_pipes(&o, &e)))
			pid = start_process(&o, j->message + sizeof(o), &id, &e, j->channel);
	}
	if (pid < 0)
		td_warden_refuse(j->channel, errno, why);
	close_each(e.child, 3);
	close_each(e.ours, 2);
	return pid > 0 ? pid : 0;
}

/* --- where it is asked for -------------------------------------------------------- */

static struct {
	struct td_spawner *spawner; /* NULL: started right here */
	char *user;		    /* the spawner's */
	bool prepared;
	bool confined; /* no new one can be made */
} M;

static int make_spawner(const char *user, char *why, size_t cap)
{
	char *copy = tnl_strdup(user);
	struct td_spawner *s = copy ? td_spawner_new(serve_order, copy, NULL) : NULL;
	if (!s) {
		snprintf(why, cap, "cannot make the process that starts shells: %s", strerror(errno));
		tnl_free(copy);
		return -1;
	}
	td_spawner_free(M.spawner);
	tnl_free(M.user);
	M.spawner = s;
	M.user = copy;
	return 0;
}

int ag_spawn_prepare(const struct td_config *cfg, char *why, size_t cap)
{
	M.prepared = true;
	M.confined = cfg->user || cfg->seccomp;
	return cfg->agent.shell_user ? make_spawner(cfg->agent.shell_user, why, cap) : 0;
}

int ag_spawn_reload(const struct td_config *cfg, char *why, size_t cap)
{
	const char *user = cfg->agent.shell_user;
	if (!M.prepared || !user || (M.user && strcmp(user, M.user) == 0))
		return 0;
	if (!M.confined)
		return make_spawner(user, why, cap);
	snprintf(why, cap, "shell_user = %s requires a restart: the agent has given up what it takes to become %s",
		 user, user);
	return -1;
}

static struct td_child *send_order(struct td_loop *l, const struct ag_spawn *s, int give[2], td_child_fn *exited,
				   void *ctx, char *why, size_t cap)
{
	struct order head = {.cols = (unsigned short)s->cols,
			     .rows = (unsigned short)s->rows,
			     .terminal = s->terminal,
			     .join_errors = s->join_errors,
			     .command = s->command};
	size_t n = s->command ? strlen(s->command) : 0;
	struct td_spawner_order o = {.fn = serve_order, .arg = s->user ? s->user : "", .n = sizeof(head) + n};
	char *message = tnl_malloc(o.n + 1);
	struct td_child *c = NULL;

	errno = ENOMEM;
	if (message) {
		memcpy(message, &head, sizeof(head));
		memcpy(message + sizeof(head), s->command ? s->command : "", n + 1);
		o.message = message;
		c = td_spawner_start(M.spawner, l, &o, give, exited, ctx, why, cap);
	}
	int err = errno;
	tnl_free(message);
	errno = err;
	return c;
}

struct td_child *ag_spawn(struct td_loop *l, const struct ag_spawn *s, struct ag_spawn_fds *fds, td_child_fn *exited,
			  void *ctx, char *why, size_t cap)
{
	int give[2] = {-1, -1};
	struct td_child *c = NULL;

	why[0] = '\0';
	if (M.spawner && (!s->user || strcmp(s->user, M.user) != 0))
		snprintf(why, cap, "shells as %s require a restart of the agent", s->user ? s->user : "(own)");
	else
		c = send_order(l, s, give, exited, ctx, why, cap);
	if (!c && !why[0])
		snprintf(why, cap, "cannot start a process: %s", strerror(errno));
	for (int i = 0; i < 2; i++)
		if (give[i] >= 0)
			td_fd_nonblock(give[i]);
	*fds = (struct ag_spawn_fds){.out = give[0], .err = give[1]};
	return c;
}
