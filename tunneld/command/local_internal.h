/* tunneld local, in two files: local.c runs it, local_config.c writes what its roles run on. */
#ifndef TD_COMMAND_LOCAL_INTERNAL_H
#define TD_COMMAND_LOCAL_INTERNAL_H
#include "tunneld/command/local_keys.h"
#include "tunneld/process/daemon.h"

#define TD_LOCAL_INSTANCE "i-10ca1000000000000"

struct td_local {
	struct td_daemon d;
	const char *file, *target, *listen, *level;
	bool own_roles; /* FILE brings [agent] and [gateway] of its own */
	struct td_local_keys keys;
	char endpoint[80];
	char target_host[256];
	uint16_t target_port;
	struct td_timer wait;
	uint64_t asked;
	bool told_waiting;
};

/* The gateway's, on 127.0.0.1 and that port (0: any). */
struct td_config *td_local_config_gateway(const struct td_local *o, unsigned port);
/* [aws] and [agent] that lead to our gateway, and the tunnel that was asked for; the agent allows what the tunnels of
 * file (or NULL) lead to. */
struct td_config *td_local_config_clients(const struct td_local *o, const struct td_config *file, FILE *errors);
/* The tunnels of file, which is taken, led to our own agent: it keeps everything but targets, [aws] and [agent]. */
struct td_config *td_local_config_overlay(const struct td_local *o, struct td_config *file, FILE *errors);

#endif
