/* One process with one or several roles: state directory, control socket,
 * signals, reload, drain.  Used by the daemon's commands and by `local`. */
#ifndef TD_PROCESS_DAEMON_H
#define TD_PROCESS_DAEMON_H
#include "tunneld/config/config.h"
#include "tunneld/process/control.h"
#include "tunneld/forwarder/forwarder.h"
#include "tunneld/agent/agent.h"
#include "tunneld/gateway/gateway.h"
#include "tunneld/process/state.h"

struct td_daemon {
	struct td_loop *loop;
	const char *role; /* "forwarder", "agent", "gateway", "local" */
	struct td_state state;
	struct td_config *cfg;	  /* log, limits; owned */
	struct td_config *gw_cfg; /* of the gateway when it is not cfg; owned */
	struct td_forwarder *fwd;
	struct td_agent *agent;
	struct td_gateway *gw;
	struct td_control *control;
	void (*extra_status)(void *ctx, struct tnl_buf *json_members); /* ,"key":value… or NULL */
	/* SIGHUP: the new configuration, checked, or NULL (mistakes were printed to errors). */
	struct td_config *(*load)(void *ctx, FILE *errors);
	void *ctx;
	bool ready_later; /* the command calls td_daemon_ready itself */
	/* private */
	ev_signal term, intr, hup;
	struct td_timer guard, tick;
	bool draining, told_connected;
	uint64_t started;
};

/* Before anything else in a process that runs roles: umask, SIGPIPE, descriptors. */
void td_process_setup(void);
/* Loop, state directory, signals. 0 or an exit code; tells on stderr. Takes cfg in any case. */
int td_daemon_init(struct td_daemon *d, const char *role, struct td_config *cfg);
/* Starts the roles whose bit is set (gateway, agent, forwarder) with d->cfg. 0 or an exit code. */
int td_daemon_start(struct td_daemon *d, unsigned roles);
int td_daemon_run(struct td_daemon *d);	   /* ready … drained; the exit code */
void td_daemon_ready(struct td_daemon *d); /* log line and READY=1 */
void td_daemon_fini(struct td_daemon *d);

#endif
