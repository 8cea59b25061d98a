/* Sub-commands: their table, their options, their exit codes. */
#ifndef TD_COMMAND_H
#define TD_COMMAND_H
#include <stdbool.h>
#include <stddef.h>

enum {
	TD_EXIT_OK,
	TD_EXIT_RUNTIME,
	TD_EXIT_USAGE, /* or configuration */
	TD_EXIT_CREDENTIALS,
	TD_EXIT_NOT_CONNECTED, /* the target */
	TD_EXIT_REFUSED,
	TD_EXIT_LOST /* the session */
};

/* The last lines of each --help. */
#define TD_EXIT_HELP                                                                                                   \
	"Exit codes: 0 ok, 1 runtime error, 2 usage or configuration, 3 credentials,\n"                                \
	"4 target not connected, 5 refused, 6 session lost.\n"

struct td_command {
	const char *name;    /* "agent"; "" is what runs without a sub-command */
	const char *summary; /* one line for tunneld --help */
	const char *help;    /* all of tunneld NAME --help */
	int (*run)(const struct td_command *cmd, int argc, char **argv); /* argv[0] is NAME; gives the exit code */
};
extern const struct td_command td_command_forwarder, td_command_agent, td_command_gateway, td_command_local,
    td_command_connect, td_command_exec, td_command_forward, td_command_shell, td_command_list, td_command_status,
    td_command_reload, td_command_drain, td_command_open, td_command_close, td_command_log_level, td_command_init,
    td_command_doctor, td_command_completion;

/* The command that argv names: a sub-command, the forwarder daemon without one, the plugin when the program is called
 * session-manager-plugin.  Gives the exit code; what it printed on stdout is not flushed. */
int td_command_main(int argc, char **argv);
/* Called as session-manager-plugin. */
int td_plugin_main(int argc, char **argv);

/* An option of a command: --name VALUE, --name=VALUE, -n VALUE, -nVALUE, or a flag.  One of value, each and flag is
 * set. */
struct td_arg {
	char letter; /* or 0 */
	const char *name;
	const char **value; /* where the value goes; a second time is a mistake */
	bool *flag;	    /* becomes true */
	/* Called for each time that it is given; false: refused, after a line on stderr. */
	bool (*each)(void *ctx, const char *value);
	void *ctx;
};
/* Reads argv up to its end; -- ends the options; --help and --version are added.  Operands are moved to the front of
 * argv[1…].  Gives their number, at most max_operands, or -1 - EXITCODE when the command is to end now: help was
 * printed, or a mistake reported on stderr. */
int td_args(const struct td_command *cmd, int argc, char **argv, const struct td_arg *args, size_t n, int max_operands);
/* The same, with one operand; the words after it, from the first that is no option, are a command and not looked at, as
 * ssh has it. */
int td_args_and_command(const struct td_command *cmd, int argc, char **argv, const struct td_arg *args, size_t n);
/* Before td_args, where a command with options of its own follows the first operand: it has to stand behind --.  0, or
 * said and TD_EXIT_USAGE. */
int td_args_command(const struct td_command *cmd, int argc, char **argv, const struct td_arg *args, size_t n);
/* "tunneld: …" and a hint on stderr; gives TD_EXIT_USAGE. */
int td_args_usage(const struct td_command *cmd, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
