/* The processes of shell sessions: as the user, with his environment, on a terminal of their own or with pipes.
 *
 * A process that may give up its privileges has a spawner for them (base/spawner.h).  The user is the spawner's, from
 * the configuration that it was made with, and no part of an order: who takes over the agent gets no other user by it.
 */
#ifndef TD_AGENT_SPAWN_H
#define TD_AGENT_SPAWN_H
#include "tunneld/base/child.h"
#include "tunneld/config/config.h"

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
/* Before privileges are given up, on the first configuration: makes the spawner, when there is a shell_user. */
int ag_spawn_prepare(const struct td_config *cfg, char *why, size_t cap);
/* A reload: another user needs another spawner. Not 0: it cannot be had without a restart, *why. */
int ag_spawn_reload(const struct td_config *cfg, char *why, size_t cap);
/* exited as in td_child_start. NULL: failed, *why. */
struct td_child *ag_spawn(struct td_loop *l, const struct ag_spawn *s, struct ag_spawn_fds *fds,
			  void (*exited)(void *ctx, int status), void *ctx, char *why, size_t cap);

#endif
