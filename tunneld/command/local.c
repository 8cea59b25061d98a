/* tunneld local: gateway, agent and forwarder in one process, talking TLS over
 * loopback, with an authority, certificates and keys of their own. */
#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/enc.h"
#include "lib/json.h"
#include "lib/tls.h"
#include "lib/num.h"
#include "tunneld/agent/agent.h"
#include "tunneld/base/file.h"
#include "tunneld/command/command.h"
#include "tunneld/command/roles.h"
#include "tunneld/forwarder/forwarder.h"
#include "tunneld/gateway/gateway.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LOCAL_INSTANCE "i-10ca1000000000000"
#define LOCAL_REGION "eu-west-1"
enum { DAY = 86400, CERT_DAYS = 365, RENEW_DAYS = 30, TEXT_CAP = 16384 };

struct local {
	struct td_daemon d;
	const char *file, *target, *listen, *level;
	bool own_roles; /* FILE brings [agent] and [gateway] of its own */
	char user_id[32], user_secret[64], agent_id[32], agent_secret[64];
	char endpoint[80];
	char target_host[256];
	uint16_t target_port;
	struct td_timer wait;
	uint64_t asked;
	bool told_waiting;
};

/* --- keys and certificates ------------------------------------------------------- */

static void random_text(char *out, size_t n, const char *prefix, const char *alphabet)
{
	size_t k = strlen(prefix), m = strlen(alphabet);
	memcpy(out, prefix, k);
	while (k < n) {
		uint8_t r;
		tnl_random(&r, 1);
		if (r < 256 / m * m)
			out[k++] = alphabet[r % m];
	}
	out[n] = '\0';
}

/* In the state directory; 0 or -1 after telling. */
static int put_file(struct local *o, const char *name, const char *text)
{
	char *path = td_state_file(&o->d.state, name);
	int err = path ? td_file_write(path, text, strlen(text), TD_FILE_SYNC) : TNL_ENOMEM;
	if (err)
		td_error("local", NULL, "cannot write %s", path ? path : name);
	tnl_free(path);
	return err ? -1 : 0;
}

static char *get_file(struct local *o, const char *name)
{
	size_t n;
	char *path = td_state_file(&o->d.state, name), *text = path ? td_file_read(path, 4096, 0, &n, NULL) : NULL;
	tnl_free(path);
	return text;
}

static bool have_file(struct local *o, const char *name)
{
	char *text = get_file(o, name);
	bool have = text && *text;
	tnl_free(text);
	return have;
}

/* An authority that signs one certificate; its key is forgotten at once. */
static int make_certificates(struct local *o)
{
	uint64_t now = (uint64_t)time(NULL), end = now + (uint64_t)CERT_DAYS * DAY;
	char *ca = NULL, *ca_key = NULL, *cert = NULL, *key = NULL, until[32];
	int r = -1;
	if (tnl_x509_make("tunneld local authority", NULL, NULL, NULL, now - DAY, end, &ca, &ca_key) ||
	    tnl_x509_make("tunneld local", "localhost,127.0.0.1,::1", ca, ca_key, now - DAY, end, &cert, &key)) {
		td_error("local", NULL, "cannot make certificates");
		goto out;
	}
	snprintf(until, sizeof(until), "%llu\n", (unsigned long long)end);
	r = put_file(o, "ca.pem", ca) || put_file(o, "gateway.pem", cert) || put_file(o, "gateway.key", key) ||
		    put_file(o, "valid-until", until)
		? -1
		: 0;
out:
	if (ca_key)
		tnl_wipe(ca_key, strlen(ca_key));
	if (key)
		tnl_wipe(key, strlen(key));
	tnl_free(ca);
	tnl_free(ca_key);
	tnl_free(cert);
	tnl_free(key);
	return r;
}

static int make_keys(struct local *o)
{
	static const char upper[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
	static const char mixed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
	char text[300];
	random_text(o->user_id, 20, "AKID", upper);
	random_text(o->user_secret, 40, "", mixed);
	random_text(o->agent_id, 20, "AKID", upper);
	random_text(o->agent_secret, 40, "", mixed);
	snprintf(text, sizeof(text), "%s %s %s %s\n", o->user_id, o->user_secret, o->agent_id, o->agent_secret);
	int r = put_file(o, "keys", text);
	tnl_wipe(text, sizeof(text));
	return r;
}

/* What the last run left is used again while it is valid. */
static int prepare(struct local *o)
{
	char text[512], *until = get_file(o, "valid-until"), *keys = get_file(o, "keys");
	uint64_t end = until ? strtoull(until, NULL, 10) : 0;
	bool fresh = end > (uint64_t)time(NULL) + (uint64_t)RENEW_DAYS * DAY && have_file(o, "ca.pem") &&
		     have_file(o, "gateway.pem") && have_file(o, "gateway.key");
	int r = fresh ? 0 : make_certificates(o);
	if (!keys || sscanf(keys, "%31s %63s %31s %63s", o->user_id, o->user_secret, o->agent_id, o->agent_secret) != 4)
		r |= make_keys(o);
	snprintf(text, sizeof(text), "[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", o->user_id,
		 o->user_secret);
	r |= put_file(o, "credentials", text);
	tnl_wipe(text, sizeof(text));
	r |= put_file(o, "config", "[default]\nregion = " LOCAL_REGION "\n");
	if (keys)
		tnl_wipe(keys, strlen(keys));
	tnl_free(until);
	tnl_free(keys);
	return r;
}

/* --- configurations --------------------------------------------------------------- */

static int set_text(char **dst, const char *src)
{
	tnl_free(*dst);
	*dst = tnl_strdup(src);
	return *dst ? 0 : -1;
}

static struct td_config *parse(struct local *o, const char *text, unsigned roles, FILE *errors)
{
	return td_config_parse(text, "tunneld local", o->d.state.dir, roles | TD_ROLE_FILES, errors);
}

static struct td_config *gateway_config(struct local *o, unsigned port)
{
	char text[1024];
	snprintf(text, sizeof(text),
		 "[gateway]\nlisten = 127.0.0.1:%u\ncertificate = gateway.pem\nprivate_key = gateway.key\n"
		 "[user local]\naccess_key_id = %s\nsecret_access_key = %s\ntargets = *\n"
		 "[instance " LOCAL_INSTANCE "]\naccess_key_id = %s\nsecret_access_key = %s\n",
		 port, o->user_id, o->user_secret, o->agent_id, o->agent_secret);
	struct td_config *c = parse(o, text, TD_ROLE_GATEWAY, stderr);
	tnl_wipe(text, sizeof(text));
	return c;
}

/* [aws] and [agent] that lead to our gateway, and the tunnel that was asked for. */
static struct td_config *client_config(struct local *o, const struct td_config *file, FILE *errors)
{
	char *text = tnl_calloc(1, TEXT_CAP);
	struct tnl_buf b;
	tnl_buf_init(&b, TEXT_CAP);
	tnl_buf_printf(&b, "[tunneld]\nlog_level = %s\n", o->level ? o->level : "warn");
	tnl_buf_printf(&b,
		       "[aws]\nregion = " LOCAL_REGION
		       "\nssm_endpoint = %s\nssmmessages_endpoint = %s\nca_file = ca.pem\n"
		       "proxy = none\naccess_key_id = %s\nsecret_access_key = %s\n",
		       o->endpoint, o->endpoint, o->user_id, o->user_secret);
	tnl_buf_printf(&b,
		       "[agent]\ninstance_id = " LOCAL_INSTANCE "\naccess_key_id = %s\nsecret_access_key = %s\n"
		       "allow = 127.0.0.0/8:*, [::1/128]:*, localhost:*",
		       o->agent_id, o->agent_secret);
	if (o->target)
		tnl_buf_printf(&b, strchr(o->target_host, ':') ? ", [%s]:%u" : ", %s:%u", o->target_host,
			       o->target_port);
	for (int i = 0; file && i < file->fwd.ntunnels; i++) {
		const struct td_tunnel_config *t = &file->fwd.tunnels[i];
		if (t->host)
			tnl_buf_printf(&b, strchr(t->host, ':') ? ", [%s]:%u" : ", %s:%u", t->host, t->port);
	}
	tnl_buf_puts(&b, "\n");
	if (o->target)
		tnl_buf_printf(&b, "[tunnel local]\nlisten = %s\ntarget = " LOCAL_INSTANCE "\nhost = %s\nport = %u\n",
			       o->listen ? o->listen : "127.0.0.1:0", o->target_host, o->target_port);
	struct td_config *c = NULL;
	if (text && !b.failed)
		c = parse(o, tnl_buf_str(&b), TD_ROLE_AGENT, errors);
	tnl_buf_fini_wiped(&b);
	tnl_free(text);
	return c;
}

/* FILE's tunnels, led to our own agent: FILE keeps everything but target and [aws]. */
static struct td_config *overlay(struct local *o, struct td_config *file, FILE *errors)
{
	struct td_config *c = client_config(o, file, errors);
	if (!c) {
		td_config_free(file);
		return NULL;
	}
	for (int i = 0; i < file->fwd.ntunnels; i++) {
		struct td_tunnel_config *t = &file->fwd.tunnels[i];
		set_text(&t->target, LOCAL_INSTANCE);
		td_aws_config_copy(&t->aws, &c->aws);
	}
	struct td_agent_config mine = c->agent; /* swapped: each configuration frees what it then holds */
	c->agent = file->agent;
	file->agent = mine;
	file->has_agent = true;
	td_config_free(c);
	return file;
}

static struct td_config *load_file(struct local *o, FILE *errors)
{
	struct td_config *c = td_config_load(o->file, TD_ROLE_FORWARDER | TD_ROLE_FILES, errors);
	if (c && c->has_agent != c->has_gateway) {
		fprintf(errors, "%s: has [%s] but no [%s]; tunneld local wants both or neither\n", o->file,
			c->has_agent ? "agent" : "gateway", c->has_agent ? "gateway" : "agent");
		td_config_free(c);
		return NULL;
	}
	return c;
}

static struct td_config *reload(void *ctx, FILE *errors)
{
	struct local *o = ctx;
	if (!o->file)
		return client_config(o, NULL, errors);
	struct td_config *c = load_file(o, errors);
	if (c && c->has_agent != o->own_roles) {
		fprintf(errors, "%s: [agent] and [gateway] came or went; that wants a restart\n", o->file);
		td_config_free(c);
		return NULL;
	}
	return c && !o->own_roles ? overlay(o, c, errors) : c;
}

/* --- start -------------------------------------------------------------------------- */

static struct td_gateway *gateway_of(const struct local *o)
{
	return td_daemon_role(&o->d, &td_roles_gateway);
}

static struct td_forwarder *forwarder_of(const struct local *o)
{
	return td_daemon_role(&o->d, &td_roles_forwarder);
}

/* Ready is when the agent has its control channel: from then on a connection gets through. */
static bool is_ready(const struct local *o)
{
	const struct td_agent *a = td_daemon_role(&o->d, &td_roles_agent);
	return a && td_agent_connected(a);
}

/* On the port of the last run when it is free, so that what was noted down stays right. */
static int start_gateway(struct local *o)
{
	struct td_addr a;
	char why[1024] = "", text[TD_ADDR_STR], *port = get_file(o, "port");
	unsigned last = port ? (unsigned)strtoul(port, NULL, 10) : 0;
	tnl_free(port);
	for (int i = last && last < 65536 ? 0 : 1; i < 2 && !gateway_of(o); i++) {
		struct td_config *c = gateway_config(o, i ? 0 : last);
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
	return put_file(o, "port", text) ? TD_EXIT_RUNTIME : 0;
}

static void tunnel_goal(const struct td_tunnel_config *t, char *out, size_t cap)
{
	const char *host = t->host ? t->host : "localhost";
	snprintf(out, cap, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, (unsigned)t->port);
}

static void local_status(void *ctx, struct tnl_buf *b)
{
	struct local *o = ctx;
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
		for (int i = 0; i < 3; i++) {
			char *path = td_state_file(&o->d.state, names[i][1]);
			tnl_jw_kv(&w, names[i][0], path);
			tnl_free(path);
		}
	}
	tnl_jw_key(&w, "tunnels");
	tnl_jw_arr(&w);
	for (int i = 0; f && i < o->d.cfg->fwd.ntunnels; i++) {
		struct td_addr a;
		char text[TD_ADDR_STR], goal[300];
		tnl_jw_obj(&w);
		tnl_jw_kv(&w, "name", o->d.cfg->fwd.tunnels[i].name);
		tnl_jw_key(&w, "listen");
		tnl_jw_arr(&w);
		for (int k = 0; !td_forwarder_addr(f, i, k, &a); k++)
			tnl_jw_str(&w, td_addr_str(&a, text));
		tnl_jw_end_arr(&w);
		tunnel_goal(&o->d.cfg->fwd.tunnels[i], goal, sizeof(goal));
		tnl_jw_kv(&w, "to", goal);
		tnl_jw_end_obj(&w);
	}
	tnl_jw_end_arr(&w);
	tnl_jw_end_obj(&w);
}

static void print_ready(struct local *o)
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
		fprintf(stderr,
			"With the aws command (session-manager-plugin, or tunneld under that name, beside it):\n"
			"  export AWS_SHARED_CREDENTIALS_FILE=%s/credentials AWS_CONFIG_FILE=%s/config\n"
			"  aws --endpoint-url %s --ca-bundle %s/ca.pem ssm describe-sessions --state Active\n",
			o->d.state.dir, o->d.state.dir, o->endpoint, o->d.state.dir);
	if (!f)
		fprintf(stderr, "There is no tunnel yet: tunneld local --target HOST:PORT makes one.\n");
	fprintf(stderr, "Ctrl-C ends it; tunneld status shows what it does.\n");
}

static void on_wait(void *arg)
{
	struct local *o = arg;
	if (is_ready(o)) {
		print_ready(o);
		td_daemon_ready(&o->d);
		return;
	}
	if (o->d.loop->now - o->asked > 10 * TD_SEC && !o->told_waiting) {
		o->told_waiting = true;
		td_warn("local", NULL, "the agent has not reached the gateway yet; --log-level info says why");
	}
	td_timer_in(&o->wait, 20 * TD_MS);
}

static int start_roles(struct local *o)
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

static int run(struct local *o)
{
	if (!o->own_roles) {
		int code = prepare(o) ? TD_EXIT_RUNTIME : start_gateway(o);
		if (code)
			return code;
		struct td_config *file = o->file ? load_file(o, stderr) : NULL;
		struct td_config *c = !o->file ? client_config(o, NULL, stderr)
				      : file   ? overlay(o, file, stderr)
					       : NULL;
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
static bool split_target(struct local *o)
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

static int run_local(const struct td_command *cmd, int argc, char **argv)
{
	struct local o = {0};
	const struct td_arg args[] = {{'c', "config", .value = &o.file},
				      {0, "target", .value = &o.target},
				      {0, "listen", .value = &o.listen},
				      {0, "log-level", .value = &o.level}};
	int n = td_args(cmd, argc, argv, args, TNL_COUNT(args), 0);
	if (n < 0)
		return -1 - n;
	if (o.target && !split_target(&o))
		return td_args_usage(cmd, "--target %s: wants HOST:PORT", o.target);
	if (o.listen && !o.target)
		return td_args_usage(cmd, "--listen wants --target HOST:PORT");
	if (o.target && o.file)
		return td_args_usage(cmd, "--target and -c exclude each other");
	if (o.level && strcmp(o.level, "error") != 0 && strcmp(o.level, "warn") != 0 && strcmp(o.level, "info") != 0 &&
	    strcmp(o.level, "debug") != 0)
		return td_args_usage(cmd, "--log-level %s: wants error, warn, info or debug", o.level);
	td_daemon_setup();
	/* Read before anything else, so that a mistake in the file costs nothing; the state directory may stand in it.
	 */
	char text[256];
	snprintf(text, sizeof(text), "[tunneld]\nlog_level = %s\n%s%s\n", o.level ? o.level : "warn",
		 o.listen ? "[tunnel local]\nlisten = " : "", o.listen ? o.listen : "");
	if (o.listen)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "target = x\nport = 1\n");
	struct td_config *first =
	    o.file ? load_file(&o, stderr) : td_config_parse(text, "tunneld local", NULL, 0, stderr);
	if (!first)
		return TD_EXIT_USAGE;
	o.own_roles = first->has_agent;
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
    "gives them to scripts. Exit codes: 0 ok, 1 runtime, 2 usage or configuration.\n",
    run_local};
