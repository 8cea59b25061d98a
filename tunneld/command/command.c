/* The commands, their help, and which of them is run. */
#include "tunneld/command/command.h"
#include "lib/crypto.h"
#include "lib/map.h"
#include "lib/num.h"
#include "tunneld/command/complete.h"
#include "tunneld/command/roles.h"
#include "tunneld/process/confine.h"
#include <stdio.h>
#include <string.h>

static const struct td_command *const commands[] = {&td_command_agent,	 &td_command_gateway,	&td_command_local,
						    &td_command_connect, &td_command_exec,	&td_command_forward,
						    &td_command_shell,	 &td_command_list,	&td_command_status,
						    &td_command_reload,	 &td_command_drain,	&td_command_open,
						    &td_command_close,	 &td_command_log_level, &td_command_init,
						    &td_command_doctor,	 &td_command_completion};

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
	for (size_t i = 0; i < TNL_COUNT(commands); i++)
		printf("  %-18s  %s\n", commands[i]->name, commands[i]->summary);
	fputs(
	    "\n" TD_ROLES_HELP_OPTIONS
	    "      --options [KEY] list every key of the configuration, or one, or a section's\n" TD_ROLES_HELP_SIGNALS
		TD_EXIT_HELP "\n"
	    "More: tunneld COMMAND --help, man 8 tunneld, man 5 tunneld.ini\n",
	    stdout);
}

/* Of a key or a section (tunnel), or all. */
static bool is_wanted(const struct td_option *o, const char *which)
{
	size_t n = strcspn(o->section, " ");
	return !which || strcmp(o->key, which) == 0 || (strlen(which) == n && strncmp(o->section, which, n) == 0);
}

static int print_options(const char *which)
{
	struct td_option o;
	const char *last = "";
	for (int i = 0; td_option_at(i, &o); i++) {
		if (!is_wanted(&o, which))
			continue;
		if (strcmp(o.section, last) != 0)
			printf("%s[%s]\n", *last ? "\n" : "", o.section);
		last = o.section;
		printf("%-22s %-14s %-10s %s\n", o.key, o.type, *o.dflt ? o.dflt : "-", o.help);
	}
	if (*last)
		return TD_EXIT_OK;
	return td_args_usage(&td_command_forwarder, "--options %s: there is no such key or section", which);
}

/* Before the first map is made. */
static void seed_maps(void)
{
	uint64_t key[2];
	tnl_random(key, sizeof(key));
	tnl_map_seed(key);
}

int td_command_main(int argc, char **argv)
{
	td_confine_shut();
	seed_maps();
	const char *slash = strrchr(argv[0], '/');
	if (strcmp(slash ? slash + 1 : argv[0], "session-manager-plugin") == 0)
		return td_plugin_main(argc, argv);
	if (argc < 2 || argv[1][0] == '-') {
		for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
			bool help = strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0;
			if (!help && strcmp(argv[i], "--options") != 0)
				continue;
			if (!help)
				return print_options(argv[i + 1]);
			print_help();
			return TD_EXIT_OK;
		}
		return td_command_forwarder.run(&td_command_forwarder, argc, argv);
	}
	if (strcmp(argv[1], "__complete") == 0) {
		int skip = argc > 2 && strcmp(argv[2], "--") == 0 ? 3 : 2;
		td_complete(commands, TNL_COUNT(commands), argv + skip, argc - skip);
		return TD_EXIT_OK;
	}
	for (size_t i = 0; i < TNL_COUNT(commands); i++)
		if (strcmp(commands[i]->name, argv[1]) == 0)
			return commands[i]->run(commands[i], argc - 1, argv + 1);
	return td_args_usage(&td_command_forwarder, "unknown command %s", argv[1]);
}
