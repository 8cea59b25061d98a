/* What the foreground commands share (connect, forward, shell, plugin): finding
 * configuration and target, one session, signals, the orderly end, the exit code. */
#ifndef TD_COMMAND_FOREGROUND_H
#define TD_COMMAND_FOREGROUND_H
#include "tunneld/client/client.h"
#include "tunneld/command/command.h"
#include "tunneld/config/config.h"

struct td_cli {
	const char *command; /* "connect", for messages */
	struct td_loop *loop;
	struct td_config *cfg;		  /* the file, or an empty one */
	struct td_config *made;		  /* defaults of a target that stands in no file */
	const struct td_tunnel_config *t; /* target, host, port, document, times and sizes */
	struct td_aws *aws;
	struct td_client *client;
	struct td_terminate *terminate;
	struct td_timer deadline;
	ev_signal sig[4];
	int code; /* exit code; -1 while running */
	bool ended, told_api;
	void (*on_signal)(struct td_cli *c, int signum); /* NULL: end with 0 */
	void *user;
	void (*cleanup)(void *); /* before the loop is freed */
	void *cleanup_arg;
};

/* Loads the configuration (path NULL: $TUNNELD_CONFIG and the usual places, none is fine), sets the log
 * (warnings only unless the file or `verbose` says more) and makes the loop. 0 or an exit code (it was told why). */
int td_cli_open(struct td_cli *c, const char *command, const char *path, bool verbose);
/* NAME: a tunnel's or alias's name, or an id (i-…, mi-…, ecs:…). Fills c->t and c->aws. 0 or an exit code. */
int td_cli_target(struct td_cli *c, const char *name);
/* A section with every default for an id that stands in no file. Lives as long as c. */
const struct td_tunnel_config *td_cli_defaults(struct td_cli *c, const char *id);
/* Session settings of c->t. */
void td_cli_settings(struct td_cli *c, struct td_client_config *cc);
/* Runs the loop until td_cli_finish; gives the exit code. Frees everything. */
int td_cli_run(struct td_cli *c);
/* Ends the session (TerminateSession, at most 1.5 s) and then the loop. The first code stays. */
void td_cli_stop(struct td_cli *c, int code); /* the loop at once */
void td_cli_finish(struct td_cli *c, int code);
/* Exit code for a failed start: credentials, target not connected, refused, runtime. */
int td_cli_code(int err, const char *type);
/* "tunneld connect: …" on stderr, peers' control characters escaped. */
void td_cli_say(const struct td_cli *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
