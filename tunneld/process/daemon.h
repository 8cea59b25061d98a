/* One process with one or several roles: state directory, control socket,
 * signals, reload, drain.  Used by the daemon's commands and by `local`, which
 * hand the roles in as rows: nothing in this room knows which ones there are. */
#ifndef TD_PROCESS_DAEMON_H
#define TD_PROCESS_DAEMON_H
#include "lib/metrics.h"
#include "tunneld/config/config.h"
#include "tunneld/process/control.h"
#include "tunneld/process/http.h"
#include "tunneld/process/state.h"

/* A role, as a process runs it.  `role` is what start() gave; all of it is called on the loop's thread, and none of it
 * from inside another call of the same role. */
struct td_role {
	const char *name; /* "gateway": in log lines, and its key in the status */
	/* Before privileges and system calls are given up, or NULL.  0, or -1 and *why. */
	int (*prepare)(const struct td_config *cfg, char *why, size_t cap);
	bool runs_programs; /* credential_process: then another process starts them */
	/* Starts it on a configuration that was checked for it.  NULL: it cannot start, nothing of it is left, and *why
	 * has the reason in one line.  cfg stays the caller's: until reload() it outlives the role, and a role that
	 * needs it longer holds a reference (td_config_ref). */
	void *(*start)(struct td_loop *l, const struct td_config *cfg, char *why, size_t cap);
	/* Takes cfg, which was checked, in the place of the one before, which is given back at once after the call.
	 * What did not change is not touched.  Not 0: part of it could not be taken, *why; the rest is in force. */
	int (*reload)(void *role, const struct td_config *cfg, char *why, size_t cap);
	/* Takes nothing new; what is there may finish within timeout_ns and is cut then.  done(ctx) once, at any time
	 * from the call on; the role is freed after it has returned. */
	void (*drain)(void *role, uint64_t timeout_ns, void (*done)(void *ctx), void *ctx);
	/* One of its tunnels, by hand: 0, or -1 and *why.  NULL: it has none. */
	int (*open)(void *role, const char *name, char *why, size_t cap);
	int (*close)(void *role, const char *name, char *why, size_t cap);
	/* A one-shot command that asks this role to serve it: `words` is JSON, fd its connection, with the descriptors
	 * that came along.  true: all of that is taken; false: *why.  NULL: it serves none. */
	bool (*one_shot)(void *role, const char *words, int fd, const int *fds, int nfds, char *why, size_t cap);
	void (*status)(void *role, struct tnl_buf *json); /* appends one JSON value; also while it drains */
	void (*free)(void *role);			  /* at once: no words to anybody, drained or not */
	/* Its families, whole each; NULL: it has none. */
	void (*metrics)(void *role, struct tnl_metrics *m);
	/* Calls fn for each of its tunnels, with the bytes of connections so far and the round trip (0: unknown). NULL:
	 * it has none. */
	void (*sample)(void *role, td_sample_fn *fn, void *ctx);
	/* Is what it is for there?  name: that tunnel, or NULL: all of it.  1: yes; 0: no, *why; -1: no such tunnel.
	 * NULL: always, without tunnels. */
	int (*ready)(void *role, const char *name, char *why, size_t cap);
	uint64_t (*drain_timeout)(const struct td_config *cfg); /* for drain(), in ns */
	/* A few words for `systemctl status`. */
	void (*describe)(void *role, const struct td_config *cfg, char *out, size_t cap);
	uint64_t (*credentials_end)(void *role); /* Unix seconds at which the first of its keys end; 0: none do */
	bool describes_itself_anew;		 /* they change without a reload: asked for every second */
};

/* What the command adds; each may be NULL. */
struct td_daemon_hooks {
	/* SIGHUP: the new configuration, checked, or NULL (the mistakes were printed to errors).  NULL: no reload. */
	struct td_config *(*load)(void *ctx, FILE *errors);
	void (*status)(void *ctx, struct tnl_buf *json_members); /* appends ,"key":value… */
	void *ctx;
};

/* The configuration to start with.  Its warnings go where its log goes, as JSON lines when that is their form;
 * mistakes, of a file that says nothing yet about logs, as text to stderr: NULL. */
struct td_config *td_daemon_load(const struct td_daemon_hooks *hooks);

enum { TD_DAEMON_ROLES_MAX = 3 };

struct td_daemon {
	const char *name; /* "forwarder", "agent", "gateway", "local" */
	struct td_loop *loop;
	struct td_state state;
	struct td_config *cfg; /* log, limits, and of every role that has none of its own; owned */
	/* private below */
	struct td_daemon_hooks hooks;
	struct td_control *control;
	struct td_http *http;
	struct td_recent *recent;
	struct td_daemon_role {
		const struct td_role *row;
		void *self;
		struct td_config *cfg; /* its own, which no reload replaces; NULL: the daemon's; owned */
	} roles[TD_DAEMON_ROLES_MAX];
	int nroles; /* those that run, in the order of their start */
	ev_signal term, intr, hup;
	struct td_timer guard, tick, watchdog;
	struct td_soon drained;
	bool draining;
	char described[256]; /* what `systemctl status` shows */
	uint64_t started;
};

/* Before anything else in a process that runs roles: umask, SIGPIPE, descriptors, core dumps. */
void td_daemon_setup(void);
/* Before td_daemon_init: becomes cfg->user, and leaves behind what these roles will need of what is given up now and in
 * td_daemon_start.  0, or -1 after an error in the log. */
int td_daemon_prepare(const struct td_config *cfg, const struct td_role *const *rows, int n);
/* State directory, loop, signals, control socket.  Takes cfg in any case.  0, or -1 after an error in the log;
 * td_daemon_fini either way.  name and what hooks->ctx points at are borrowed until then. */
int td_daemon_init(struct td_daemon *d, const char *name, struct td_config *cfg, const struct td_daemon_hooks *hooks);
/* Another configuration in the place of init's, before there is a role that uses it.  Taken in any case; 0 or -1. */
int td_daemon_configure(struct td_daemon *d, struct td_config *cfg);
/* Starts one role.  own: a configuration of its own, taken in any case, or NULL: d->cfg.  0, or -1 and *why. */
int td_daemon_add(struct td_daemon *d, const struct td_role *row, struct td_config *own, char *why, size_t cap);
/* Starts roles in this order: each leans on those before it, so that they drain and end in the other one; then they can
 * be asked, by the control socket and HTTP, and what only starting takes is given up (confine.h).  0, or -1 after an
 * error in the log; those that have started stay until td_daemon_fini. */
int td_daemon_start(struct td_daemon *d, const struct td_role *const *rows, int n);
void *td_daemon_role(const struct td_daemon *d, const struct td_role *row); /* NULL: not started, or drained and gone */
void td_daemon_ready(struct td_daemon *d);				    /* log line and READY=1 */
void td_daemon_run(struct td_daemon *d);				    /* until everything is drained or cut */
void td_daemon_fini(struct td_daemon *d);

#endif
