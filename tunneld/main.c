/* Commands and their help. */
#include "lib/alloc.h"
#include "tunneld/command/command.h"
#include "tunneld/process/daemon.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct td_command *const commands[] = {&td_cmd_agent,   &td_cmd_gateway, &td_cmd_local, &td_cmd_connect,
						    &td_cmd_forward, &td_cmd_shell,   &td_cmd_status};

/* --- the three daemons ----------------------------------------------------------- */

struct role_ctx {
	const char *path;
	unsigned role;
};

static struct td_config *reload(void *ctx, FILE *errors)
{
	const struct role_ctx *r = ctx;
	return td_config_load(r->path, r->role | TD_ROLE_FILES, errors);
}

static int check_only(const char *path, unsigned role)
{
	struct td_config *c = td_config_load(path, role, stderr);
	if (!c)
		return TD_EXIT_USAGE;
	printf("%s: ok\n", path);
	td_config_free(c);
	return TD_EXIT_OK;
}

static int run_role(const struct td_command *cmd, int argc, char **argv, const char *role, unsigned bit)
{
	const char *file = NULL;
	bool check = false;
	const struct td_arg args[] = {{'c', "config", .value = &file}, {'t', "check", .flag = &check}};
	int n = td_args(cmd, argc, argv, args, 2, 0);
	if (n < 0)
		return -1 - n;
	char *path = td_config_find(file);
	if (!path)
		return td_usage(
		    cmd, "there is no configuration: name one with -c FILE, or make ~/.config/tunneld/tunneld.ini");
	td_process_setup();
	struct role_ctx ctx = {path, bit};
	int code = TD_EXIT_USAGE;
	if (check) {
		code = check_only(path, *cmd->name ? bit : TD_ROLE_ANY);
	} else {
		struct td_config *c = td_config_load(path, bit | TD_ROLE_FILES, stderr);
		struct td_daemon d;
		if (c) {
			code = td_daemon_init(&d, role, c);
			d.load = reload;
			d.ctx = &ctx;
			if (!code && !(code = td_daemon_start(&d, bit)))
				code = td_daemon_run(&d);
			td_daemon_fini(&d);
		}
	}
	tnl_free(path);
	return code;
}

static int run_forwarder(const struct td_command *cmd, int argc, char **argv)
{
	return run_role(cmd, argc, argv, "forwarder", TD_ROLE_FORWARDER);
}

static int run_agent(const struct td_command *cmd, int argc, char **argv)
{
	return run_role(cmd, argc, argv, "agent", TD_ROLE_AGENT);
}

static int run_gateway(const struct td_command *cmd, int argc, char **argv)
{
	return run_role(cmd, argc, argv, "gateway", TD_ROLE_GATEWAY);
}

#define COMMON                                                                                                         \
	"  -c, --config FILE   the configuration; else $TUNNELD_CONFIG,\n"                                             \
	"                      ~/.config/tunneld/tunneld.ini, /etc/tunneld/tunneld.ini\n"                              \
	"  -t, --check         check it, tell every mistake as file:line: text, and exit\n"                            \
	"  -h, --help          this text\n"                                                                            \
	"  -V, --version       the version\n"
#define RUNNING                                                                                                        \
	"\n"                                                                                                           \
	"Signals: TERM or INT drains and ends, a second one ends at once; HUP reloads.\n"                              \
	"Exit codes: 0 ok, 1 runtime, 2 usage or configuration.\n"

/* The list of commands is put in by print_help(). */
const struct td_command td_cmd_forwarder = {"", "the forwarder daemon", "", run_forwarder};
const struct td_command td_cmd_agent = {
    "agent", "the target's side: waits for sessions, dials services",
    "usage: tunneld agent [-c FILE] [-t]\n"
    "\n"
    "Keeps a control channel to the gateway and connects sessions to services that\n"
    "[agent] allows. Runs in the foreground, logs on stderr.\n"
    "\n" COMMON RUNNING,
    run_agent};
const struct td_command td_cmd_gateway = {
    "gateway", "the control API and the relay between forwarders and agents",
    "usage: tunneld gateway [-c FILE] [-t]\n"
    "\n"
    "One HTTPS port for sessions of the users and instances in the configuration.\n"
    "Runs in the foreground, logs on stderr.\n"
    "\n" COMMON RUNNING,
    run_gateway};

static void print_help(void)
{
	fputs("usage: tunneld [-c FILE] [-t]\n"
	      "       tunneld COMMAND [OPTION]…\n"
	      "\n"
	      "TCP tunnels over AWS Session Manager's protocol that survive broken links.\n"
	      "Without a command: the forwarder daemon, in the foreground, for every [tunnel]\n"
	      "of the configuration.\n"
	      "\n",
	      stdout);
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		printf("  %-18s  %s\n", commands[i]->name, commands[i]->summary);
	fputs("\n" COMMON "      --options       list every key of the configuration\n" RUNNING "\n"
	      "More: tunneld COMMAND --help, man 8 tunneld, man 5 tunneld.ini\n",
	      stdout);
}

static void print_options(void)
{
	struct td_option o;
	const char *last = "";
	for (int i = 0; td_option_at(i, &o); i++) {
		if (strcmp(o.section, last) != 0)
			printf("%s[%s]\n", i ? "\n" : "", o.section);
		last = o.section;
		printf("%-22s %-14s %-10s %s\n", o.key, o.type, *o.dflt ? o.dflt : "-", o.help);
	}
}

static int run_command(int argc, char **argv)
{
	const char *slash = strrchr(argv[0], '/');
	if (strcmp(slash ? slash + 1 : argv[0], "session-manager-plugin") == 0)
		return td_plugin_main(argc, argv);
	if (argc < 2 || argv[1][0] == '-') {
		for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
			bool help = strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0;
			if (!help && strcmp(argv[i], "--options") != 0)
				continue;
			help ? print_help() : print_options();
			return TD_EXIT_OK;
		}
		return td_cmd_forwarder.run(&td_cmd_forwarder, argc, argv);
	}
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		if (strcmp(commands[i]->name, argv[1]) == 0)
			return commands[i]->run(commands[i], argc - 1, argv + 1);
	return td_usage(&td_cmd_forwarder, "unknown command %s", argv[1]);
}

int main(int argc, char **argv)
{
	if (argc < 1)
		return TD_EXIT_USAGE;
	/* A standard descriptor that is closed must not become one of ours. Reading from 0 and writing to 1 fail then.
	 */
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == 1 ? O_RDONLY : O_WRONLY) != fd)
			return TD_EXIT_RUNTIME;
	int code = run_command(argc, argv);
	if ((fflush(stdout) || ferror(stdout)) && code == TD_EXIT_OK) {
		fprintf(stderr, "tunneld: cannot write the output: %s\n", strerror(errno));
		code = TD_EXIT_RUNTIME;
	}
	return code;
}
