/* The processes of shell sessions: as the user, with his environment, on a terminal of their own or with pipes. */
#ifndef TD_AGENT_SPAWN_H
#define TD_AGENT_SPAWN_H
#include "tunneld/base/child.h"

struct ag_spawn {
	const char *user;    /* whom it runs as */
	const char *command; /* for the shell's -c; NULL: a login shell */
	bool terminal;	     /* pty; else /dev/null, and a pipe each for output and errors */
	bool join_errors;    /* without a terminal: errors go into the output */
	unsigned cols, rows;
};
struct ag_spawn_fds {
	int out; /* pty master (both ways), or the read end of its output; yours */
	int err; /* read end of its errors, or -1; yours */
};
/* exited as in td_child_start. NULL: failed, *why. */
struct td_child *ag_spawn(struct td_loop *l, const struct ag_spawn *s, struct ag_spawn_fds *fds,
			  void (*exited)(void *ctx, int status), void *ctx, char *why, size_t cap);

#endif
