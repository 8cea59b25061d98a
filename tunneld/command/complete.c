/* Completion: a small script for each shell asks `tunneld __complete -- WORDS…` what the last word could become.  One
 * candidate a line; ":files" alone means file names. */
#include "tunneld/command/complete.h"
#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/num.h"
#include "tunneld/command/known.h"
#include "tunneld/config/config.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

static const char *const roles[] = {"forwarder", "agent", "gateway", "local", NULL};
static const char *const levels[] = {"error", "warn", "info", "debug", NULL};
static const char *const makes[] = {"gateway", "ssh", NULL};
static const char *const selects[] = {"only", "newest", "any", NULL};
static const char *const shells[] = {"bash", "zsh", "fish", NULL};

static bool is_one_of(const char *name, const char *const *list)
{
	for (; *list; list++)
		if (strcmp(name, *list) == 0)
			return true;
	return false;
}

static void offer(const char *candidate, const char *word)
{
	if (candidate && strncmp(candidate, word, strlen(word)) == 0)
		puts(candidate);
}

static void offer_all(const char *const *list, const char *word)
{
	for (; *list; list++)
		offer(*list, word);
}

/* The next --option of a help text, from p on; NULL: there is none. */
static const char *next_option(const char *help, const char *p, char option[64])
{
	for (size_t n; (p = strstr(p, "--")) != NULL; p += n) {
		bool begins = p == help || p[-1] == ' ' || p[-1] == '[';
		for (n = 2; isalnum((unsigned char)p[n]) || p[n] == '-';)
			n++;
		if (begins && n > 2 && n < 64) {
			snprintf(option, 64, "%.*s", (int)n, p);
			return p;
		}
	}
	return NULL;
}

/* Every --option of a help text, each once, and those that every command has. */
static void offer_options(const char *help, const char *word)
{
	static const char *const all[] = {"--help", "--version", NULL};
	char option[64], other[64];
	for (const char *p = help; (p = next_option(help, p, option)) != NULL; p += strlen(option)) {
		const char *q = help;
		while ((q = next_option(help, q, other)) != p && strcmp(other, option) != 0)
			q += strlen(other);
		if (q == p && !is_one_of(option, all))
			offer(option, word);
	}
	offer_all(all, word);
}

/* Of the configuration, each once. */
static void offer_keys(const char *word)
{
	struct td_option o, before;
	for (int i = 0; td_option_at(i, &o); i++) {
		bool seen = false;
		for (int k = 0; k < i && !seen; k++)
			seen = td_option_at(k, &before) && strcmp(before.key, o.key) == 0;
		if (!seen)
			offer(o.key, word);
	}
}

/* Those of a tunnel that none before it has. */
static void offer_groups(const struct td_config *c, int tunnel, const char *word)
{
	char text[300];
	const struct td_strlist *l = &c->fwd.tunnels[tunnel].groups;
	for (int i = 0; i < l->n; i++) {
		bool offered = false;
		for (int j = 0; j < tunnel; j++)
			for (int k = 0; k < c->fwd.tunnels[j].groups.n; k++)
				offered = offered || strcmp(c->fwd.tunnels[j].groups.v[k], l->v[i]) == 0;
		snprintf(text, sizeof(text), "group:%s", l->v[i]);
		if (!offered)
			offer(text, word);
	}
}

/* The range that it is a port of, unless one before it is as well. */
static void offer_range(const struct td_config *c, int tunnel, const char *word)
{
	const struct td_tunnel_config *t = &c->fwd.tunnels[tunnel];
	char text[300];
	snprintf(text, sizeof(text), "%.*s", (int)t->range, t->name);
	if (t->range && td_tunnel_find(c->fwd.tunnels, c->fwd.ntunnels, text) == t)
		offer(text, word);
}

/* What the configuration names; one that does not parse offers nothing. */
static void offer_names(const char *file, bool tunnels_only, const char *word)
{
	char *path = td_config_find(file);
	FILE *nowhere = path ? fopen("/dev/null", "w") : NULL;
	struct td_config *c = nowhere ? td_config_load(path, 0, nowhere) : NULL;
	if (nowhere)
		fclose(nowhere);
	for (int i = 0; c && i < c->fwd.ntunnels; i++) {
		offer_range(c, i, word);
		offer(c->fwd.tunnels[i].name, word);
	}
	for (int i = 0; c && tunnels_only && i < c->fwd.ntunnels; i++)
		offer_groups(c, i, word);
	for (int i = 0; c && !tunnels_only && i < c->fwd.naliases; i++)
		offer(c->fwd.aliases[i].name, word);
	for (int i = 0; c && !tunnels_only && i < c->fwd.ntunnels; i++)
		offer(c->fwd.tunnels[i].target, word);
	for (int i = 0; c && !tunnels_only && i < c->gw.ninstances; i++)
		offer(c->gw.instances[i].id, word);
	td_config_free(c);
	tnl_free(path);
}

/* What the service calls its instances lands on a command line, and bash takes it as it is: what any shell would read
 * as more than a word is left out. */
static bool is_plain_word(const char *s)
{
	size_t n = strlen(s);
	for (size_t i = 0; i < n;) {
		const uint8_t *p = (const uint8_t *)s + i;
		size_t k = tnl_utf8_printable(p, n - i);
		if (!k || (*p < 0x80 && !isalnum(*p) && !strchr("-_.:@=/,+%", *p)))
			return false;
		i += k;
	}
	return true;
}

static void offer_known(void *word, const char *target)
{
	if (is_plain_word(target))
		offer(target, word);
}

static const char *config_of(char **words, int n)
{
	for (int i = 0; i + 1 < n; i++)
		if (strcmp(words[i], "-c") == 0 || strcmp(words[i], "--config") == 0)
			return words[i + 1];
	return NULL;
}

static void offer_operands(const struct td_command *cmd, char **words, int n, const char *word)
{
	static const char *const by_target[] = {"connect", "exec", "forward", "shell", "list", NULL};
	static const char *const by_tunnel[] = {"open", "close", "status", "doctor", NULL};
	static const char *const by_role[] = {"status", "reload", "drain", NULL};
	const char *file = config_of(words, n);
	if (is_one_of(cmd->name, by_target)) {
		offer_names(file, false, word);
		td_known_each(offer_known, (void *)(uintptr_t)word);
	}
	if (is_one_of(cmd->name, by_tunnel))
		offer_names(file, true, word);
	if (is_one_of(cmd->name, by_role))
		offer_all(roles, word);
	if (strcmp(cmd->name, "log-level") == 0)
		offer_all(is_one_of(words[n - 2], levels) ? roles : levels, word);
	if (strcmp(cmd->name, "init") == 0)
		offer_all(makes, word);
	if (strcmp(cmd->name, "completion") == 0)
		offer_all(shells, word);
}

void td_complete(const struct td_command *const *commands, size_t ncommands, char **words, int n)
{
	const char *word = n ? words[n - 1] : "", *before = n > 1 ? words[n - 2] : "";
	static const char *const files[] = {"-c",	"--config", "-d", "--dir",     "-o",
					    "--output", "--bundle", "-b", "--ca-file", NULL};
	const struct td_command *cmd = NULL;
	if (is_one_of(before, files)) {
		puts(":files");
		return;
	}
	if (strcmp(before, "--options") == 0)
		offer_keys(word);
	if (strcmp(before, "--select") == 0)
		offer_all(selects, word);
	if (strcmp(before, "--options") == 0 || strcmp(before, "--select") == 0)
		return;
	for (size_t i = 0; i < ncommands; i++) {
		if (n <= 1)
			offer(commands[i]->name, word);
		else if (strcmp(commands[i]->name, words[0]) == 0)
			cmd = commands[i];
	}
	if (n <= 1)
		offer_options("--config --check --options", word);
	else if (cmd && word[0] == '-')
		offer_options(cmd->help, word);
	else if (cmd)
		offer_operands(cmd, words, n, word);
}

/* --- the scripts ----------------------------------------------------------------------------- */

static const char bash_script[] =
    "# bash completion for tunneld: eval \"$(tunneld completion bash)\", or into bash-completion's folder.\n"
    "_tunneld() {\n"
    "\tlocal IFS=$'\\n' out word begin i\n"
    "\tlocal -a words=()\n"
    "\t# bash takes words apart at : and =, and puts the answer behind the last of them.\n"
    "\tfor ((i = 1; i <= COMP_CWORD; i++)); do\n"
    "\t\tword=${COMP_WORDS[i]}\n"
    "\t\tif ((i > 1)) && [[ $word == [:=]* || ${COMP_WORDS[i-1]} == *[:=] ]]; then\n"
    "\t\t\twords[${#words[@]}-1]+=$word\n"
    "\t\telse\n"
    "\t\t\twords+=(\"$word\")\n"
    "\t\tfi\n"
    "\tdone\n"
    "\tout=$(\"${COMP_WORDS[0]}\" __complete -- \"${words[@]}\" 2>/dev/null)\n"
    "\tif [ \"$out\" = :files ]; then\n"
    "\t\tCOMPREPLY=($(compgen -f -- \"${COMP_WORDS[COMP_CWORD]}\"))\n"
    "\t\tcompopt -o filenames 2>/dev/null\n"
    "\telse\n"
    "\t\tCOMPREPLY=($out)\n"
    "\t\tword=${words[${#words[@]}-1]} begin=\n"
    "\t\t[ \"$word\" = \"${COMP_WORDS[COMP_CWORD]}\" ] || begin=${word%\"${word##*[:=]}\"}\n"
    "\t\tCOMPREPLY=(\"${COMPREPLY[@]#\"$begin\"}\")\n"
    "\tfi\n"
    "}\n"
    "complete -F _tunneld tunneld\n";
static const char zsh_script[] =
    "#compdef tunneld\n"
    "# zsh completion for tunneld: as _tunneld in a folder of $fpath.\n"
    "_tunneld() {\n"
    "\tlocal -a out\n"
    "\tout=(${(f)\"$(\"${words[1]}\" __complete -- \"${(@)words[2,CURRENT]}\" 2>/dev/null)\"})\n"
    "\tif [[ \"$out\" == :files ]]; then _files; else compadd -a out; fi\n"
    "}\n"
    "if [ \"$funcstack[1]\" = _tunneld ]; then _tunneld \"$@\"; else compdef _tunneld tunneld; fi\n";
static const char fish_script[] = "# fish completion for tunneld: as tunneld.fish in ~/.config/fish/completions.\n"
				  "function __tunneld_complete\n"
				  "\tset -l words (commandline -opc) (commandline -ct)\n"
				  "\tset -l out ($words[1] __complete -- $words[2..-1] 2>/dev/null)\n"
				  "\tif test \"$out\" = :files\n"
				  "\t\t__fish_complete_path (commandline -ct)\n"
				  "\telse\n"
				  "\t\tprintf '%s\\n' $out\n"
				  "\tend\n"
				  "end\n"
				  "complete -c tunneld -f -a '(__tunneld_complete)'\n";

static int run_completion(const struct td_command *cmd, int argc, char **argv)
{
	static const char *const scripts[] = {bash_script, zsh_script, fish_script};
	int n = td_args(cmd, argc, argv, NULL, 0, 1);
	if (n < 0)
		return -1 - n;
	for (size_t i = 0; n && shells[i]; i++) {
		if (strcmp(argv[1], shells[i]) != 0)
			continue;
		fputs(scripts[i], stdout);
		return TD_EXIT_OK;
	}
	return td_args_usage(cmd, "say which shell: bash, zsh or fish");
}

const struct td_command td_command_completion = {
    "completion", "print the script that completes commands, options and names in a shell",
    "usage: tunneld completion bash|zsh|fish\n"
    "\n"
    "bash: eval \"$(tunneld completion bash)\" in ~/.bashrc; zsh: as _tunneld in a folder of\n"
    "$fpath; fish: as ~/.config/fish/completions/tunneld.fish.\n"
    "\n"
    "  -h, --help          this text\n"
    "  -V, --version       the version\n"
    "\n"
    "Exit codes: 0 ok, 2 usage.\n",
    run_completion};
