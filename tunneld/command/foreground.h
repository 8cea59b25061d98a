/* What the commands in the foreground share (connect, forward, shell, plugin): finding
 * configuration and target, one session, signals, the orderly end, the exit code. */
#ifndef TD_COMMAND_FOREGROUND_H
#define TD_COMMAND_FOREGROUND_H
#include "tunneld/client/client.h"
#include "tunneld/client/terminate.h"
#include "tunneld/command/command.h"
#include "tunneld/config/config.h"

struct td_foreground {
	const char *command; /* "connect", for messages */
	struct td_loop *loop;
	struct td_config *cfg;		  /* the file, or an empty one */
	struct td_config *made;		  /* defaults of a target that stands in no file */
	const struct td_tunnel_config *t; /* target, host, port, document, times and sizes */
	struct td_aws *aws;
	enum td_target_select select; /* of --select, else that of t */
	bool select_given, several;   /* several: t is the first port of the range that was named */
	struct td_client *client;     /* the command makes it, td_foreground_run frees it */
	void (*on_signal)(struct td_foreground *fg, int signum); /* the first one; NULL: end with 0 */
	void *user;						 /* for on_signal */
	void (*cleanup)(void *);				 /* before the loop is freed; or NULL */
	void *cleanup_arg;
	int code; /* exit code; -1 while running */
	/* private below */
	struct td_terminate *terminate;
	struct td_timer deadline;
	ev_signal sig[4];
	bool ended, told_api;
	enum tnl_log_level level;
};

/* Loads the configuration (path NULL: $TUNNELD_CONFIG and the usual places, none is fine), sets the log (warnings only
 * unless the file or `verbose` says more) and makes the loop.  0, or an exit code after a line on stderr. */
int td_foreground_open(struct td_foreground *fg, const char *command, const char *path, bool verbose);
/* --select WORD, behind td_foreground_open; word NULL: not given.  0, or an exit code after a line on stderr. */
int td_foreground_select(struct td_foreground *fg, const char *word);
/* NAME: a tunnel's or alias's name, an id (i-…, mi-…, ecs:…), or how to find one (tag:…, name:…, ecs:CLUSTER/SERVICE).
 * Fills fg->t and fg->aws.  0, or an exit code
 * after a line on stderr. */
int td_foreground_target(struct td_foreground *fg, const char *name);
/* The two halves of it: fg->t, and fg->aws, which takes some milliseconds. */
int td_foreground_find(struct td_foreground *fg, const char *name);
int td_foreground_account(struct td_foreground *fg);
/* Is there a port behind it, one only? 0, or said and a code. */
int td_foreground_port(struct td_foreground *fg);
/* Of a range that was named, the port of that number at the target; 0: none was said. */
void td_foreground_choose_port(struct td_foreground *fg, uint16_t port);
/* A section with every default for a target that stands in no file; lives as long as fg.  NULL: that is none. */
const struct td_tunnel_config *td_foreground_defaults(struct td_foreground *fg, const char *id);
/* Session settings of fg->t. */
void td_foreground_settings(struct td_foreground *fg, struct td_client_config *cc);
/* Runs the loop until td_foreground_finish; gives the exit code. Frees everything. */
int td_foreground_run(struct td_foreground *fg);
/* The session's one stream on in_fd (stdin, or what stands for it) and stdout, and its errors on err_fd (-1: it has
 * none).  NULL: that failed; a line on stderr said so and the command is ending. */
struct td_pipe *td_foreground_stream(struct td_foreground *fg, int in_fd, int err_fd, void *user);
/* Its pipe has closed: did a write here fail? Then a line on stderr says so and the command is ending. */
bool td_foreground_sink_failed(struct td_foreground *fg, const struct td_pipe *p);
void td_foreground_say_sink(const struct td_foreground *fg, int err); /* the same for an errno */
/* Ends the session (TerminateSession, at most 1.5 s) and then the loop. The first code stays. */
void td_foreground_finish(struct td_foreground *fg, int code);
void td_foreground_stop(struct td_foreground *fg, int code); /* the loop at once; the first code stays */
/* For td_client_cb's failed and over: a line on stderr, and the end with the exit code that belongs to it. */
void td_foreground_failed(struct td_foreground *fg, int err, const char *type, const char *why);
void td_foreground_lost(struct td_foreground *fg, int err, const char *text);
/* Exit code for a failed start: credentials, target not connected, refused, runtime. */
int td_foreground_code(int err, const char *type);
void td_foreground_quiet(struct td_foreground *fg); /* errors only from now on, unless the log was to say more */
/* "tunneld connect: …" on stderr, peers' control characters escaped. */
void td_foreground_say(const struct td_foreground *fg, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
