/* tunneld init without a further word: a configuration with one tunnel, from answers. */
#ifndef TD_COMMAND_INIT_TUNNEL_H
#define TD_COMMAND_INIT_TUNNEL_H
#include "tunneld/command/command.h"

struct td_init_flags { /* NULL: not given */
	const char *profile, *region, *endpoint, *ca_file, *target, *host, *port, *listen, *name, *output;
	bool force, no_test;
};
int td_init_tunnel(const struct td_command *cmd, const struct td_init_flags *f); /* gives the exit code */

#endif
