/* Child processes of shell sessions: on a terminal of their own, or with pipes.
 * The child has nothing of ours: no descriptors, signals, environment or groups. */
#ifndef TD_AGENT_SPAWN_H
#define TD_AGENT_SPAWN_H
#include "tunneld/base/loop.h"
#include <sys/types.h>

struct td_child;
struct td_spawn {
	const char *user;    /* whom it runs as */
	const char *command; /* for the shell's -c; NULL: a login shell */
	bool terminal;	     /* pty; else /dev/null, and a pipe each for output and errors */
	bool join_errors;    /* without a terminal: errors go into the output */
	unsigned cols, rows;
};
struct td_child_fds {
	int out; /* pty master (both ways), or the read end of its output; yours */
	int err; /* read end of its errors, or -1; yours */
};
/* exited(ctx, code) comes from the loop, once: 0–255, 128 + signal when killed. NULL: failed, *why. */
struct td_child *td_spawn(struct td_loop *l, const struct td_spawn *s, struct td_child_fds *fds,
			  void (*exited)(void *ctx, int code), void *ctx, char *why, size_t cap);
/* Not interested any more: a child that still runs gets SIGHUP (its whole process group), 5 s later SIGKILL.
 * It is reaped in any case. */
void td_child_free(struct td_child *c);
pid_t td_child_pid(const struct td_child *c);

#endif
