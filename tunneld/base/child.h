/* Child processes.  A child has nothing of ours but what it is given: no descriptors, no signal settings, a process
 * group of its own.  Between it and us stands a warden (warden.h), which answers for whatever it leaves running. */
#ifndef TD_BASE_CHILD_H
#define TD_BASE_CHILD_H
#include "tunneld/base/loop.h"

#include <sys/types.h>

struct td_child;
struct td_child_spec {
	const char *path;
	const char *const *argv; /* with a NULL behind the last */
	const char *const *env;	 /* the same; NULL: our own */
	int fds[3];		 /* its input, output and errors, above 2; -1: /dev/null. Stay yours to close */
	bool session;		 /* in a session of its own, whose terminal is fds[0] if that is one */
	/* In the child, right before the program: to become another user, to change directory. false: exit code 126. */
	bool (*enter)(const void *arg);
	const void *arg;
};
typedef void td_child_fn(void *ctx, int status);
/* exited(ctx, status) comes from the loop, once: the status of waitpid(). A program that cannot be run says so on its
 * fds[2] and has the exit code 127.  NULL and errno: there is no child. */
struct td_child *td_child_start(struct td_loop *l, const struct td_child_spec *s, td_child_fn *exited, void *ctx);
/* The same, with the channel to a warden that somebody starts or has started; taken in any case, as is `warden`: its
 * number when it is our own child, else 0.  give: the descriptors that come along, -1 for those that do not; yours.
 * NULL: there is no child, *why (or "") and errno. */
struct td_child *td_child_adopt(struct td_loop *l, int channel, pid_t warden, int give[2], td_child_fn *exited,
				void *ctx, char *why, size_t cap);
/* From now on td_child_start is this, for a process that may not fork any more; NULL: it starts them itself. */
void td_child_start_by(struct td_child *(*fn)(struct td_loop *l, const struct td_child_spec *s, td_child_fn *exited,
					      void *ctx));
/* Not interested any more: all of it that still runs, in whatever session or group, gets SIGHUP, 4 s later SIGKILL;
 * what cannot be killed is logged.  It is reaped in any case, also when we end before. NULL is fine. */
void td_child_free(struct td_child *c);
void td_child_signal(struct td_child *c, int sig); /* its process group; nothing once it has exited */
pid_t td_child_pid(const struct td_child *c);
int td_child_code(int status); /* as a shell has it: 0–255, 128 + signal when killed */

#endif
