/* The three daemons: each role as a row of functions for the process that runs it, and the
 * commands that run a process with one of them. */
#include "tunneld/command/roles.h"
#include "lib/alloc.h"
#include "lib/num.h"
#include "tunneld/agent/agent.h"
#include "tunneld/command/command.h"
#include "tunneld/forwarder/forwarder.h"
#include "tunneld/gateway/gateway.h"
#include <stdio.h>

/* --- the rows -------------------------------------------------------------------- */

/* A role's own functions, for callers that do not know its type. */
#define ADAPT(role)                                                                                                    \
	static void *role##_start(struct td_loop *l, const struct td_config *cfg, char *why, size_t cap)               \
	{                                                                                                              \
		return td_##role##_new(l, cfg, why, cap);                                                              \
	}                                                                                                              \
	static int role##_reload(void *r, const struct td_config *cfg, char *why, size_t cap)                          \
	{                                                                                                              \
		return td_##role##_reload(r, cfg, why, cap);                                                           \
	}                                                                                                              \
	static void role##_drain(void *r, uint64_t timeout_ns, void (*done)(void *), void *ctx)                        \
	{                                                                                                              \
		td_##role##_drain(r, timeout_ns, done, ctx);                                                           \
	}                                                                                                              \
	static void role##_status(void *r, struct tnl_buf *json)                                                       \
	{                                                                                                              \
		td_##role##_status(r, json);                                                                           \
	}                                                                                                              \
	static void role##_metrics(void *r, struct tnl_metrics *m)                                                     \
	{                                                                                                              \
		td_##role##_metrics(r, m);                                                                             \
	}                                                                                                              \
	static int role##_ready(void *r, const char *tunnel, char *why, size_t cap)                                    \
	{                                                                                                              \
		return td_##role##_ready(r, tunnel, why, cap);                                                         \
	}                                                                                                              \
	static void role##_free(void *r)                                                                               \
	{                                                                                                              \
		td_##role##_free(r);                                                                                   \
	}
ADAPT(forwarder)
ADAPT(agent)
ADAPT(gateway)

static uint64_t forwarder_credentials_end(void *r)
{
	return td_forwarder_credentials_end(r);
}

static uint64_t agent_credentials_end(void *r)
{
	return td_agent_credentials_end(r);
}

static void sample_tunnels(void *r, td_sample_fn *fn, void *ctx)
{
	td_forwarder_sample(r, fn, ctx);
}

static int open_tunnel(void *r, const char *name, char *why, size_t cap)
{
	return td_forwarder_open(r, name, why, cap);
}

static int close_tunnel(void *r, const char *name, char *why, size_t cap)
{
	return td_forwarder_close(r, name, why, cap);
}

static bool serve_one_shot(void *r, const char *words, int fd, const int *fds, int nfds, char *why, size_t cap)
{
	return td_forwarder_one_shot(r, words, fd, fds, nfds, why, cap);
}

static uint64_t forwarder_drain_timeout(const struct td_config *cfg)
{
	return cfg->fwd.drain_timeout_ns;
}

static uint64_t agent_drain_timeout(const struct td_config *cfg)
{
	return cfg->agent.drain_timeout_ns;
}

static uint64_t gateway_drain_timeout(const struct td_config *cfg)
{
	return cfg->gw.drain_timeout_ns;
}

static const char *plural(int n)
{
	return n == 1 ? "" : "s";
}

static void describe_forwarder(void *r, const struct td_config *cfg, char *out, size_t cap)
{
	snprintf(out, cap, "%d tunnel%s", cfg->fwd.ntunnels, plural(cfg->fwd.ntunnels));
}

static void describe_agent(void *r, const struct td_config *cfg, char *out, size_t cap)
{
	snprintf(out, cap, "%s: %s", cfg->agent.instance_id, td_agent_connected(r) ? "connected" : "connecting");
}

static void describe_gateway(void *r, const struct td_config *cfg, char *out, size_t cap)
{
	const struct td_gateway_config *g = &cfg->gw;
	snprintf(out, cap, "%d user%s, %d instance%s", g->nusers, plural(g->nusers), g->ninstances,
		 plural(g->ninstances));
}

#define ROW(role)                                                                                                      \
	.name = #role, .start = role##_start, .reload = role##_reload, .drain = role##_drain, .status = role##_status, \
	.metrics = role##_metrics, .ready = role##_ready, .free = role##_free, .drain_timeout = role##_drain_timeout,  \
	.describe = describe_##role
const struct td_role td_roles_forwarder = {ROW(forwarder),
					   .open = open_tunnel,
					   .sample = sample_tunnels,
					   .close = close_tunnel,
					   .one_shot = serve_one_shot,
					   .runs_programs = true,
					   .credentials_end = forwarder_credentials_end};
const struct td_role td_roles_agent = {ROW(agent), .prepare = td_agent_prepare, .runs_programs = true,
				       .credentials_end = agent_credentials_end, .describes_itself_anew = true};
const struct td_role td_roles_gateway = {ROW(gateway)};

/* --- the commands ---------------------------------------------------------------- */

struct role_command {
	const struct td_role *row;
	unsigned bit; /* of td_config_load */
	const char *path;
	bool again;
};

static struct td_config *load(void *ctx, FILE *errors)
{
	struct role_command *r = ctx;
	unsigned again = r->again ? TD_ROLE_AGAIN : 0;
	r->again = true;
	return td_config_load(r->path, r->bit | TD_ROLE_FILES | again, errors);
}

static int check_only(const char *path, unsigned roles)
{
	struct td_config *c = td_config_load(path, roles, stderr);
	if (!c)
		return TD_EXIT_USAGE;
	for (int i = 0; i < c->included.n; i++)
		printf("%s: included\n", c->included.v[i]);
	printf("%s: ok\n", path);
	td_config_free(c);
	return TD_EXIT_OK;
}

static int run_process(struct role_command *r)
{
	const struct td_daemon_hooks hooks = {.load = load, .ctx = r};
	struct td_config *c = td_daemon_load(&hooks);
	struct td_daemon d;
	int code = TD_EXIT_RUNTIME;
	if (!c)
		return TD_EXIT_USAGE;
	if (td_daemon_prepare(c, &r->row, 1)) {
		td_config_free(c);
		return TD_EXIT_RUNTIME;
	}
	if (!td_daemon_init(&d, r->row->name, c, &hooks) && !td_daemon_start(&d, &r->row, 1)) {
		td_daemon_ready(&d);
		td_daemon_run(&d);
		code = TD_EXIT_OK;
	}
	td_daemon_fini(&d);
	return code;
}

static int run_role(const struct td_command *cmd, int argc, char **argv, const struct td_role *row, unsigned bit)
{
	const char *file = NULL;
	bool check = false;
	const struct td_arg args[] = {{'c', "config", .value = &file}, {'t', "check", .flag = &check}};
	int n = td_args(cmd, argc, argv, args, TNL_COUNT(args), 0);
	if (n < 0)
		return -1 - n;
	char *path = td_config_find(file);
	if (!path)
		return td_args_usage(cmd,
				     "there is no configuration: name one with -c FILE, or let tunneld init make one");
	td_daemon_setup();
	struct role_command r = {.row = row, .bit = bit, .path = path};
	int code = check ? check_only(path, *cmd->name ? bit : TD_ROLE_ANY) : run_process(&r);
	tnl_free(path);
	return code;
}

static int run_forwarder(const struct td_command *cmd, int argc, char **argv)
{
	return run_role(cmd, argc, argv, &td_roles_forwarder, TD_ROLE_FORWARDER);
}

static int run_agent(const struct td_command *cmd, int argc, char **argv)
{
	return run_role(cmd, argc, argv, &td_roles_agent, TD_ROLE_AGENT);
}

static int run_gateway(const struct td_command *cmd, int argc, char **argv)
{
	return run_role(cmd, argc, argv, &td_roles_gateway, TD_ROLE_GATEWAY);
}

/* Its help has the list of commands: command.c prints it. */
const struct td_command td_command_forwarder = {"", "the forwarder daemon", "", run_forwarder};
const struct td_command td_command_agent = {
    "agent", "the target's side: waits for sessions, dials services",
    "usage: tunneld agent [-c FILE] [-t]\n"
    "\n"
    "Keeps a control channel to the gateway and connects sessions to services that\n"
    "[agent] allows. Runs in the foreground, logs on stderr.\n"
    "\n" TD_ROLES_HELP_OPTIONS TD_ROLES_HELP_SIGNALS
    "Exit codes: 0 ended as it should, 1 runtime error, 2 usage or configuration.\n",
    run_agent};
const struct td_command td_command_gateway = {
    "gateway", "the control API and the relay between forwarders and agents",
    "usage: tunneld gateway [-c FILE] [-t]\n"
    "\n"
    "One HTTPS port for sessions of the users and instances in the configuration.\n"
    "Runs in the foreground, logs on stderr.\n"
    "\n" TD_ROLES_HELP_OPTIONS TD_ROLES_HELP_SIGNALS
    "Exit codes: 0 ended as it should, 1 runtime error, 2 usage or configuration.\n",
    run_gateway};
