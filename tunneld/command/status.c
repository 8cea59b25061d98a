/* tunneld status: asks the control sockets below the state directory, and shows their JSON as it
 * is or, for people, as an indented list. */
#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/json.h"
#include "lib/num.h"
#include "tunneld/command/command.h"
#include "tunneld/command/term.h"
#include "tunneld/config/config.h"
#include "tunneld/process/control.h"
#include "tunneld/process/state.h"
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ASK_TIMEOUT_MS = 5000, VALUES_AT = 24 /* column */ };

static bool print_scalar(const struct tnl_json *v)
{
	int64_t n;
	if (tnl_json_is_obj(v) || tnl_json_is_arr(v))
		return false;
	if (tnl_json_str(v))
		td_term_put(stdout, tnl_json_str(v));
	else if (tnl_json_int(v, &n))
		printf("%lld", (long long)n);
	else if (tnl_json_is_null(v))
		fputs("-", stdout);
	else if (tnl_json_bool(v, false) == tnl_json_bool(v, true))
		fputs(tnl_json_bool(v, false) ? "yes" : "no", stdout);
	else
		fputs("?", stdout);
	return true;
}

static void print_value(const char *key, const struct tnl_json *v, int depth);

static void print_members(const struct tnl_json *o, int depth)
{
	tnl_json_each(v, o)
		print_value(tnl_json_key(v), v, depth);
}

static bool holds_scalars(const struct tnl_json *list)
{
	tnl_json_each(v, list)
		if (tnl_json_is_obj(v) || tnl_json_is_arr(v))
			return false;
	return true;
}

static void print_list(const struct tnl_json *list)
{
	const struct tnl_json *v = tnl_json_first(list);
	if (!v)
		fputs("none", stdout);
	for (; v; v = tnl_json_next(v)) {
		print_scalar(v);
		fputs(tnl_json_next(v) ? ", " : "", stdout);
	}
	putchar('\n');
}

static void print_objects(const struct tnl_json *list, int depth)
{
	putchar('\n');
	tnl_json_each(o, list) {
		printf("%*s-\n", 2 * depth + 2, "");
		if (tnl_json_is_obj(o))
			print_members(o, depth + 2);
	}
}

static void print_value(const char *key, const struct tnl_json *v, int depth)
{
	int gap = TNL_MAX(VALUES_AT - (int)strlen(key) - 2 * depth, 1);
	printf("%*s", 2 * depth, "");
	td_term_put(stdout, key);
	if (tnl_json_is_obj(v)) {
		putchar('\n');
		print_members(v, depth + 1);
	} else if (tnl_json_is_arr(v) && holds_scalars(v)) {
		printf("%*s", gap, "");
		print_list(v);
	} else if (tnl_json_is_arr(v)) {
		print_objects(v, depth);
	} else {
		printf("%*s", gap, "");
		print_scalar(v);
		putchar('\n');
	}
}

struct asked {
	int found;
	bool json;
	const char *role;
};

/* One state folder: 0 when nobody is behind it. */
static void show(const char *root, const char *name, struct asked *a)
{
	size_t n = strlen(root) + strlen(name) + 2;
	char *dir = tnl_malloc(n);
	if (!dir)
		return;
	snprintf(dir, n, "%s/%s", root, name);
	char *reply = td_control_ask(dir, "status", ASK_TIMEOUT_MS);
	if (!reply && errno != ENOENT && errno != ECONNREFUSED && errno != ENOTDIR)
		fprintf(stderr, "tunneld: %s does not answer: %s\n", dir, strerror(errno));
	struct tnl_json *j = reply ? tnl_json_parse(reply, strlen(reply)) : NULL;
	if (reply && !j)
		fprintf(stderr, "tunneld: the answer of %s is not JSON\n", dir);
	if (j && a->json) {
		reply[strcspn(reply, "\n")] = '\0';
		printf("%s%s", a->found ? ",\n" : "", reply);
	} else if (j) {
		if (a->found)
			putchar('\n');
		print_members(j, 0);
	}
	a->found += j != NULL;
	tnl_json_free(j);
	tnl_free(reply);
	tnl_free(dir);
}

static void show_all(const char *root, struct asked *a)
{
	struct dirent **list;
	int n = scandir(root, &list, NULL, alphasort);
	if (n < 0 && errno != ENOENT && errno != ENOTDIR)
		fprintf(stderr, "tunneld: cannot list %s: %s\n", root, strerror(errno));
	for (int i = 0; i < n; i++) {
		size_t k = a->role ? strlen(a->role) : 0;
		if (list[i]->d_name[0] != '.' &&
		    (!k || (strncmp(list[i]->d_name, a->role, k) == 0 && strchr("-", list[i]->d_name[k]))))
			show(root, list[i]->d_name, a);
		free(list[i]);
	}
	if (n >= 0)
		free(list);
}

/* Where daemons keep their state: as configured, else where this user's go and where the units put theirs. */
static int find_roots(const char *path, char *roots[4])
{
	static const char *const system_roots[] = {"/var/lib/tunneld", "/var/lib/tunneld-agent",
						   "/var/lib/tunneld-gateway"};
	struct td_config *c = path ? td_config_load(path, 0, stderr) : NULL;
	if (path && !c)
		return TD_EXIT_USAGE;
	roots[0] = td_state_root(c ? c->state_dir : NULL);
	for (int i = 0; i < 3 && !(c && c->state_dir); i++)
		roots[i + 1] = tnl_strdup(system_roots[i]);
	td_config_free(c);
	return 0;
}

static const char *const roles[] = {"forwarder", "agent", "gateway", "local"};

/* Only what runs with this configuration. */
static void show_roles(const char *root, const char *file, struct asked *a)
{
	char name[128], *full = realpath(file, NULL);
	for (int i = 0; full && i < 4; i++) {
		if (a->role && strcmp(a->role, roles[i]) != 0)
			continue;
		td_state_name(roles[i], full, name, sizeof(name));
		show(root, name, a);
	}
	free(full);
}

static int run_status(const struct td_command *cmd, int argc, char **argv)
{
	struct asked a = {0};
	const char *file = NULL;
	char *roots[4] = {NULL};
	const struct td_arg args[] = {{'c', "config", .value = &file}, {'j', "json", .flag = &a.json}};
	int n = td_args(cmd, argc, argv, args, TNL_COUNT(args), 1);
	if (n < 0)
		return -1 - n;
	for (int i = 0; n && i < 4; i++)
		if (strcmp(argv[1], roles[i]) == 0)
			a.role = roles[i];
	if (n && !a.role)
		return td_args_usage(cmd, "unknown role %s: it must be forwarder, agent, gateway or local", argv[1]);
	char *path = td_config_find(file);
	int code = find_roots(path, roots);
	if (!code && a.json)
		putchar('[');
	for (int i = 0; !code && i < 4; i++) {
		if (roots[i] && file)
			show_roles(roots[i], file, &a);
		else if (roots[i])
			show_all(roots[i], &a);
	}
	if (!code && a.json)
		puts("]");
	if (!code && !a.found) {
		fprintf(stderr, "tunneld: nothing is running%s%s (looked in %s)\n", file ? " with " : "",
			file ? file : "", roots[0] ? roots[0] : roots[1]);
		code = TD_EXIT_RUNTIME;
	}
	for (int i = 0; i < 4; i++)
		tnl_free(roots[i]);
	tnl_free(path);
	return code;
}

const struct td_command td_command_status = {
    "status", "what the running daemons of this user are doing",
    "usage: tunneld status [-c FILE] [--json] [forwarder|agent|gateway|local]\n"
    "\n"
    "Shows addresses, sessions, connections, memory and counters of each running role:\n"
    "of those with that configuration, or of all in the state directory; a role may be\n"
    "named.\n"
    "\n"
    "  -c, --config FILE   only what runs with this configuration\n"
    "  -j, --json          a JSON list, one object per process\n"
    "  -h, --help          this text\n"
    "  -V, --version       the version\n"
    "\n"
    "Exit codes: 0 ok, 1 nothing is running, 2 usage or configuration.\n",
    run_status};
