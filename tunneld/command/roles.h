/* The three roles as rows for the process that runs them, and what their commands have in common. */
#ifndef TD_COMMAND_ROLES_H
#define TD_COMMAND_ROLES_H
#include "tunneld/process/daemon.h"

extern const struct td_role td_roles_forwarder, td_roles_agent, td_roles_gateway;

/* Ends of the --help texts. */
#define TD_ROLES_HELP_OPTIONS                                                                                          \
	"  -c, --config FILE   the configuration; else $TUNNELD_CONFIG,\n"                                             \
	"                      ~/.config/tunneld/tunneld.ini, /etc/tunneld/tunneld.ini\n"                              \
	"  -t, --check         check it, report every mistake as file:line: text, and exit\n"                          \
	"  -h, --help          this text\n"                                                                            \
	"  -V, --version       the version\n"
#define TD_ROLES_HELP_SIGNALS                                                                                          \
	"\n"                                                                                                           \
	"Signals: TERM or INT drains and ends, a second one ends at once; HUP reloads.\n"

#endif
