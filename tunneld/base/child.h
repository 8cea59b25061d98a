/* Child processes.  A child has nothing of ours but what it is given: no descriptors, no signal settings, a process
 * group of its own.  It is waited for through a pidfd. */
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
/* exited(ctx, status) comes from the loop, once: the status of waitpid(), 0 when nobody can know it. A program that
 * cannot be run says so on its fds[2] and has the exit code 127.  NULL and errno: there is no child. */
struct td_child *td_child_start(struct td_loop *l, const struct td_child_spec *s, void (*exited)(void *ctx, int status),
				void *ctx);
/* Not interested any more: a child that still runs gets SIGHUP (its whole process group), 5 s later SIGKILL.
 * It is reaped in any case, by the loop. NULL is fine. */
void td_child_free(struct td_child *c);
void td_child_signal(struct td_child *c, int sig); /* its process group; nothing once it has exited */
pid_t td_child_pid(const struct td_child *c);
int td_child_code(int status); /* as a shell has it: 0–255, 128 + signal when killed */

#endif
