/* tunneld local: gateway, agent and forwarder in one process, talking TLS over
 * loopback, with an authority, certificates and keys of their own (local_keys.c).
 *
 * It writes configurations for the three and starts them as any process does
 * (process/daemon.h): the gateway first, on a configuration of its own, since the
 * others' holds its address.  With -c the tunnels are the file's, led to the local
 * agent; a file that has [agent] and [gateway] as well is run as it stands. */
#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/json.h"
#include "lib/num.h"
#include "tunneld/agent/agent.h"
#include "tunneld/command/command.h"
#include "tunneld/command/local_internal.h"
#include "tunneld/command/roles.h"
#include "tunneld/forwarder/forwarder.h"
#include "tunneld/gateway/gateway.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- the file ----------------------------------------------------------------------- */

static struct td_config *load_file(struct td_local *o, unsigned again, FILE *errors)
{
	struct td_config *c = td_config_load(o->file, TD_ROLE_FORWARDER | TD_ROLE_FILES | again, errors);
	if (c && c->has_agent != c->has_gateway) {
		fprintf(errors, "%s: has [%s] but no [%s]; tunneld local requires both or neither\n", o->file,
			c->has_agent ? "agent" : "gateway", c->has_agent ? "gateway" : "agent");
		td_config_free(c);
		return NULL;
	}
	return c;
}

static struct td_config *reload(void *ctx, FILE *errors)
{
	struct td_local *o = ctx;
	if (!o->file)
		return td_local_config_clients(o, NULL, errors);
	struct td_config *c = load_file(o, TD_ROLE_AGAIN, errors);
	if (c && c->has_agent != o->own_roles) {
		fprintf(errors, "%s: [agent] and [gateway] were added or removed; that requires a restart\n", o->file);
		td_config_free(c);
		return NULL;
	}
	return c && !o->own_roles ? td_local_config_overlay(o, c, errors) : c;
}

/* --- start -------------------------------------------------------------------------- */

static struct td_gateway *gateway_of(const struct td_local *o)
{
	return td_daemon_role(&o->d, &td_roles_gateway);
}

static struct td_forwarder *forwarder_of(const struct td_local *o)
{
	return td_daemon_role(&o->d, &td_roles_forwarder);
}

/* Ready is when the agent has its control channel: from then on a connection gets through. */
static bool is_ready(const struct td_local *o)
{
	const struct td_agent *a = td_daemon_role(&o->d, &td_roles_agent);
	return a && td_agent_connected(a);
}

/* On the port of the last run when it is free, so that what was noted down stays right. */
static int start_gateway(struct td_local *o)
{
	struct td_addr a;
	char why[1024] = "", text[TD_ADDR_STR], *port = td_local_keys_read(&o->d.state, "port");
	unsigned last = port ? (unsigned)strtoul(port, NULL, 10) : 0;
	tnl_free(port);
	for (int i = last && last < 65536 ? 0 : 1; i < 2 && !gateway_of(o); i++) {
		struct td_config *c = td_local_config_gateway(o, i ? 0 : last);
		if (!c)
			return TD_EXIT_RUNTIME;
		td_daemon_add(&o->d, &td_roles_gateway, c, why, sizeof(why));
	}
	if (!gateway_of(o) || td_gateway_addr(gateway_of(o), 0, &a)) {
		td_error("local", NULL, "the gateway cannot start: %s", why);
		return TD_EXIT_RUNTIME;
	}
	snprintf(o->endpoint, sizeof(o->endpoint), "https://%s", td_addr_str(&a, text));
	snprintf(text, sizeof(text), "%u\n", (unsigned)ntohs(a.in.sin_port));
	return td_local_keys_write(&o->d.state, "port", text) ? TD_EXIT_RUNTIME : 0;
}

static void tunnel_goal(const struct td_tunnel_config *t, char *out, size_t cap)
{
	const char *host = t->host ? t->host : "localhost";
	snprintf(out, cap, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, (unsigned)t->port);
}

static void tunnel_status(struct tnl_jw *w, struct td_forwarder *f, const struct td_tunnel_config *t, int i)
{
	struct td_addr a;
	char text[TD_ADDR_STR], goal[300];
	tnl_jw_obj(w);
	tnl_jw_kv(w, "name", t->name);
	tnl_jw_key(w, "listen");
	tnl_jw_arr(w);
	for (int k = 0; !td_forwarder_addr(f, i, k, &a); k++)
		tnl_jw_str(w, td_addr_str(&a, text));
	tnl_jw_end_arr(w);
	tunnel_goal(t, goal, sizeof(goal));
	tnl_jw_kv(w, "to", goal);
	tnl_jw_end_obj(w);
}

static void local_status(void *ctx, struct tnl_buf *b)
{
	struct td_local *o = ctx;
	struct td_forwarder *f = forwarder_of(o);
	struct tnl_jw w;
	tnl_buf_puts(b, ",\"local\":");
	tnl_jw_init(&w, b);
	tnl_jw_obj(&w);
	tnl_jw_key(&w, "ready");
	tnl_jw_bool(&w, is_ready(o));
	tnl_jw_kv(&w, "endpoint", *o->endpoint ? o->endpoint : NULL);
	tnl_jw_kv(&w, "target", o->d.cfg->agent.instance_id);
	if (!o->own_roles) {
		static const char *const names[][2] = {{"ca_file", "ca.pem"},
						       {"credentials_file", "credentials"},
						       {"config_file", "config"}};
		for (size_t i = 0; i < TNL_COUNT(names); i++) {
			char *path = td_state_file(&o->d.state, names[i][1]);
			tnl_jw_kv(&w, names[i][0], path);
			tnl_free(path);
		}
	}
	tnl_jw_key(&w, "tunnels");
	tnl_jw_arr(&w);
	for (int i = 0; f && i < o->d.cfg->fwd.ntunnels; i++)
		tunnel_status(&w, f, &o->d.cfg->fwd.tunnels[i], i);
	tnl_jw_end_arr(&w);
	tnl_jw_end_obj(&w);
}

/* A file in the state directory as a word of the shell's, in quotes where it takes them; heap (tnl_free). */
static char *shell_word(const struct td_local *o, const char *name)
{
	struct tnl_buf b;
	tnl_buf_init(&b, 16384);
	char *path = td_state_file(&o->d.state, name);
	bool plain =
	    path && !path[strspn(path, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/._+@%:,-")];
	tnl_buf_puts(&b, plain ? "" : "'");
	for (const char *c = path; c && *c; c++)
		*c == '\'' ? tnl_buf_puts(&b, "'\\''") : tnl_buf_putc(&b, *c);
	tnl_buf_puts(&b, plain ? "" : "'");
	tnl_free(path);
	path = tnl_buf_steal_str(&b);
	tnl_buf_fini(&b);
	return path;
}

static void print_aws_commands(const struct td_local *o)
{
	char *credentials = shell_word(o, "credentials"), *config = shell_word(o, "config"),
	     *ca = shell_word(o, "ca.pem");
	if (credentials && config && ca)
		fprintf(stderr,
			"With the aws command (session-manager-plugin, or tunneld under that name, beside it):\n"
			"  export AWS_SHARED_CREDENTIALS_FILE=%s AWS_CONFIG_FILE=%s\n"
			"  aws --endpoint-url %s --ca-bundle %s ssm describe-sessions --state Active\n",
			credentials, config, o->endpoint, ca);
	tnl_free(credentials);
	tnl_free(config);
	tnl_free(ca);
}

static void print_ready(struct td_local *o)
{
	const struct td_config *c = o->d.cfg;
	struct td_forwarder *f = forwarder_of(o);
	fprintf(stderr, "tunneld local: ready\n");
	if (*o->endpoint)
		fprintf(stderr, "  gateway  %s\n", o->endpoint);
	fprintf(stderr, "  target   %s (this machine)\n", c->agent.instance_id);
	for (int i = 0; f && i < c->fwd.ntunnels; i++) {
		struct td_addr a;
		char text[TD_ADDR_STR], goal[300];
		tunnel_goal(&c->fwd.tunnels[i], goal, sizeof(goal));
		for (int k = 0; !td_forwarder_addr(f, i, k, &a); k++)
			fprintf(stderr, "  tunnel   %s -> %s (%s)\n", td_addr_str(&a, text), goal,
				c->fwd.tunnels[i].name);
	}
	if (!o->own_roles)
		print_aws_commands(o);
	if (!f)
		fprintf(stderr, "There is no tunnel yet: tunneld local --target HOST:PORT makes one.\n");
	fprintf(stderr, "Ctrl-C ends it; tunneld status shows what it does.\n");
}

static void on_wait(void *arg)
{
	struct td_local *o = arg;
	if (is_ready(o)) {
		print_ready(o);
		td_daemon_ready(&o->d);
		return;
	}
	if (o->d.loop->now - o->asked > 10 * TD_SEC && !o->told_waiting) {
		o->told_waiting = true;
		td_warn("local", NULL, "waiting for the agent to reach the gateway; --log-level info shows why");
	}
	td_timer_in(&o->wait, 20 * TD_MS);
}

static int start_roles(struct td_local *o)
{
	const struct td_role *rows[3];
	int n = 0;
	if (o->own_roles)
		rows[n++] = &td_roles_gateway;
	rows[n++] = &td_roles_agent;
	if (o->d.cfg->fwd.ntunnels)
		rows[n++] = &td_roles_forwarder;
	return td_daemon_start(&o->d, rows, n);
}

/* The configuration that everything but the gateway runs on. */
static struct td_config *make_config(struct td_local *o)
{
	if (!o->file)
		return td_local_config_clients(o, NULL, stderr);
	return td_local_config_overlay(o, td_config_ref(o->d.cfg), stderr); /* the file, which has been read */
}

static int run(struct td_local *o)
{
	if (!o->own_roles) {
		int code = td_local_keys_open(&o->d.state, &o->keys) ? TD_EXIT_RUNTIME : start_gateway(o);
		if (code)
			return code;
		struct td_config *c = make_config(o);
		if (!c)
			return TD_EXIT_USAGE;
		if (td_daemon_configure(&o->d, c))
			return TD_EXIT_RUNTIME;
	}
	if (start_roles(o))
		return TD_EXIT_RUNTIME;
	o->asked = o->d.loop->now;
	td_timer_init(&o->wait, o->d.loop, on_wait, o);
	td_timer_in(&o->wait, 0);
	td_daemon_run(&o->d);
	return TD_EXIT_OK;
}

/* HOST:PORT or [IPV6]:PORT. */
static bool split_target(struct td_local *o)
{
	const char *s = o->target, *colon = strrchr(s, ':');
	char *end;
	if (!colon || colon == s)
		return false;
	size_t n = (size_t)(colon - s);
	bool brackets = *s == '[' && s[n - 1] == ']';
	unsigned long port = strtoul(colon + 1, &end, 10);
	if (brackets) {
		s++;
		n -= 2;
	}
	if (!n || n >= sizeof(o->target_host) || *end || end == colon + 1 || port < 1 || port > 65535 ||
	    (!brackets && memchr(s, ':', n)) || strpbrk(o->target, " \t\r\n;,"))
		return false;
	memcpy(o->target_host, s, n);
	o->target_host[n] = '\0';
	o->target_port = (uint16_t)port;
	return true;
}

/* Read before anything else, so that a mistake in the file or in --listen costs nothing; the state directory may stand
 * in the file. */
static struct td_config *first_config(struct td_local *o)
{
	char text[256];
	if (o->file)
		return load_file(o, 0, stderr);
	const char *level = o->level ? o->level : "warn";
	if (o->listen)
		snprintf(text, sizeof(text),
			 "[tunneld]\nlog_level = %s\n[tunnel local]\nlisten = %s\ntarget = x\nport = 1\n", level,
			 o->listen);
	else
		snprintf(text, sizeof(text), "[tunneld]\nlog_level = %s\n", level);
	return td_config_parse(text, "tunneld local", NULL, 0, stderr);
}

static bool is_level(const char *s)
{
	static const char *const levels[] = {"error", "warn", "info", "debug"};
	for (size_t i = 0; i < TNL_COUNT(levels); i++)
		if (strcmp(s, levels[i]) == 0)
			return true;
	return false;
}

static int run_local(const struct td_command *cmd, int argc, char **argv)
{
	struct td_local o = {0};
	const struct td_arg args[] = {{'c', "config", .value = &o.file},
				      {0, "target", .value = &o.target},
				      {0, "listen", .value = &o.listen},
				      {0, "log-level", .value = &o.level}};
	int n = td_args(cmd, argc, argv, args, TNL_COUNT(args), 0);
	if (n < 0)
		return -1 - n;
	if (o.target && !split_target(&o))
		return td_args_usage(cmd, "--target %s: HOST:PORT is required", o.target);
	if (o.listen && !o.target)
		return td_args_usage(cmd, "--listen requires --target HOST:PORT");
	if (o.target && o.file)
		return td_args_usage(cmd, "--target and -c exclude each other");
	if (o.level && !is_level(o.level))
		return td_args_usage(cmd, "--log-level %s: must be error, warn, info or debug", o.level);
	td_daemon_setup();
	struct td_config *first = first_config(&o);
	if (!first)
		return TD_EXIT_USAGE;
	o.own_roles = first->has_agent;
	const struct td_role *const rows[] = {&td_roles_gateway, &td_roles_agent, &td_roles_forwarder};
	if (td_daemon_prepare(first, rows, TNL_COUNT(rows))) {
		td_config_free(first);
		return TD_EXIT_RUNTIME;
	}
	const struct td_daemon_hooks hooks = {.load = reload, .status = local_status, .ctx = &o};
	int code = td_daemon_init(&o.d, "local", first, &hooks) ? TD_EXIT_RUNTIME : run(&o);
	if (o.wait.l)
		td_timer_stop(&o.wait);
	td_daemon_fini(&o.d);
	tnl_wipe(&o, sizeof(o));
	return code;
}

const struct td_command td_command_local = {
    "local", "all three roles in one process, nothing to configure",
    "usage: tunneld local [--target HOST:PORT [--listen ADDRESS:PORT]] [-c FILE]\n"
    "\n"
    "Gateway, agent and forwarder in one process, over real TLS on loopback, with an\n"
    "authority, certificates and keys of their own in the state directory.\n"
    "\n"
    "      --target HOST:PORT  open a tunnel to this service\n"
    "      --listen ADDRESS    where that tunnel listens; default 127.0.0.1:0, any free port\n"
    "  -c, --config FILE       the tunnels of this file, led to the local agent; when the\n"
    "                          file has [agent] and [gateway] too, all of it as it stands\n"
    "      --log-level LEVEL   error, warn (default), info or debug\n"
    "  -h, --help              this text\n"
    "  -V, --version           the version\n"
    "\n"
    "It says \"tunneld local: ready\" and the addresses on stderr; tunneld status --json\n"
    "gives them to scripts.\n"
    "\n" TD_EXIT_HELP,
    run_local};
