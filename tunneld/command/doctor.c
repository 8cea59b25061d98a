/* tunneld doctor [TUNNEL]: tests the way that a tunnel takes, step by step, and says what to do about what is wrong. */
#include "tunneld/command/doctor.h"
#include "tunneld/command/foreground.h"

#include "lib/alloc.h"
#include "lib/num.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TEXT_MAX = 64u << 20 };

/* --- the configuration --------------------------------------------------------------------------- */

static const char *what_it_has(const struct td_config *c, char *out, size_t cap)
{
	snprintf(out, cap, "%d tunnels%s%s", c->fwd.ntunnels, c->has_agent ? ", an agent" : "",
		 c->has_gateway ? ", a gateway" : "");
	return out;
}

/* The first line of the mistakes, and how many there are. */
static unsigned first_line(const char *text, char *out, size_t cap)
{
	unsigned n = 0;
	snprintf(out, cap, "%.*s", (int)strcspn(text, "\n"), text);
	for (; *text; text++)
		n += *text == '\n';
	return n;
}

/* What its reader says about it is the caller's; NULL: no memory. */
static char *read_config(struct td_doctor *d)
{
	char *told = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&told, &n);
	if (!f)
		return NULL;
	d->path = td_config_find(d->file);
	d->cfg = d->path ? td_config_load(d->path, TD_ROLE_ANY | TD_ROLE_FILES, f) : NULL;
	fclose(f);
	return told;
}

static void tell_config(struct td_doctor *d, const char *told)
{
	char line[400] = "", has[120];
	unsigned lines = first_line(told, line, sizeof(line));
	if (!d->path)
		td_doctor_row(d, "configuration", TD_DOCTOR_FAIL, TD_EXIT_USAGE,
			      "Write one: tunneld init, or name one with -c.", "there is none");
	else if (!d->cfg)
		td_doctor_row(d, "configuration", TD_DOCTOR_FAIL, TD_EXIT_USAGE,
			      "Mend it; tunneld -t -c FILE lists every mistake.", "%s%s", line,
			      lines > 1 ? ", and more" : "");
	else
		td_doctor_row(d, "configuration", lines ? TD_DOCTOR_WARN : TD_DOCTOR_OK, 0,
			      lines ? "tunneld -t -c FILE lists every warning." : NULL, "%s: %s%s%s", d->path,
			      what_it_has(d->cfg, has, sizeof(has)), lines ? "; " : "", line);
}

static void skip_all(struct td_doctor *d, const char *why)
{
	static const char *const checks[] = {"clock",	      "name",	  "connection", "tls",	     "credentials",
					     "start-session", "target",	  "stream-url", "websocket", "dial",
					     "round-trip",    "transfer", "listen"};
	for (size_t i = 0; i < TNL_COUNT(checks); i++)
		td_doctor_row(d, checks[i], TD_DOCTOR_SKIPPED, 0, NULL, "%s", why);
}

/* --- roles -------------------------------------------------------------------------------------------- */

static struct td_aws *open_block(struct td_doctor *d, const struct td_aws_config *c)
{
	char why[400];
	struct td_aws *aws = td_aws_new(d->loop, c, why, sizeof(why));
	if (!aws)
		td_doctor_row(d, "configuration", TD_DOCTOR_FAIL, TD_EXIT_USAGE,
			      "Mend it in [aws], or in the environment.", "%s", why);
	td_doctor_secret(d, c->secret_access_key);
	td_doctor_secret(d, c->session_token);
	return aws;
}

/* With what the rows before this one found out of the same endpoint. */
static void test_tunnel(struct td_doctor *d, const struct td_tunnel_config *t, const struct td_tunnel_config *before,
			bool *reachable)
{
	static const char *const services[] = {"ssm", "ssmmessages"};
	struct td_aws *aws = open_block(d, &t->aws);
	if (!aws) {
		skip_all(d, "its [aws] cannot be used");
		return;
	}
	if (!before || !td_aws_config_same(&before->aws, &t->aws)) {
		d->subject = "";
		*reachable = td_doctor_net(d, aws, services, td_aws_is_amazon(aws) ? 2 : 1);
	}
	d->subject = t->name;
	if (!d->interrupted)
		td_doctor_session(d, aws, t, *reachable);
	if (!d->interrupted && t->type != TD_TUNNEL_UDP)
		td_doctor_listen(d, t->addrs, t->naddrs);
	d->subject = "";
	td_aws_free(aws);
}

/* A tunnel, several (the ports of a range), or an alias. */
static bool is_there(const struct td_doctor *d, const char *name)
{
	const struct td_forwarder_config *f = &d->cfg->fwd;
	return td_tunnel_find(f->tunnels, f->ntunnels, name) || td_tunnel_find(f->aliases, f->naliases, name);
}

/* Of that name, which is there; NULL: all. */
static void test_tunnels(struct td_doctor *d, const char *name)
{
	const struct td_forwarder_config *f = &d->cfg->fwd;
	const struct td_tunnel_config *before = NULL;
	bool reachable = false;
	if (name && !td_tunnel_find(f->tunnels, f->ntunnels, name)) {
		test_tunnel(d, td_tunnel_find(f->aliases, f->naliases, name), NULL, &reachable);
		return;
	}
	for (int i = 0; i < f->ntunnels && !d->interrupted; i++) {
		if (name && !td_tunnel_is_called(&f->tunnels[i], name))
			continue;
		test_tunnel(d, &f->tunnels[i], before, &reachable);
		before = &f->tunnels[i];
	}
}

static void test_agent(struct td_doctor *d)
{
	static const char *const services[] = {"ssmmessages", "ssm"};
	struct td_aws *aws = open_block(d, &d->cfg->agent.aws);
	if (!aws)
		return;
	bool reachable = td_doctor_net(d, aws, services, 1);
	if (!d->interrupted)
		td_doctor_credentials(d, aws, reachable && td_aws_is_amazon(aws));
	if (!d->interrupted)
		td_doctor_agent_state(d);
	td_aws_free(aws);
}

static void test_all(struct td_doctor *d, const char *tunnel)
{
	td_doctor_running(d);
	if (d->cfg->fwd.ntunnels || tunnel)
		test_tunnels(d, tunnel);
	if (d->cfg->has_agent && !tunnel && !d->interrupted)
		test_agent(d);
	if (d->cfg->has_gateway && !tunnel && !d->interrupted)
		td_doctor_gateway(d);
}

/* --- the command ------------------------------------------------------------------------------------------ */

/* Rows to d, and its code; -1: there is no such tunnel, and no row. */
static int examine(struct td_doctor *d, const char *tunnel)
{
	char *told = read_config(d);
	if (d->cfg && tunnel && !is_there(d, tunnel)) {
		free(told);
		return -1;
	}
	tell_config(d, told ? told : "");
	free(told);
	if (d->cfg)
		test_all(d, tunnel);
	else
		skip_all(d, "there is no configuration that can be read");
	td_doctor_limits(d);
	if (d->interrupted) /* what failed then failed by that */
		d->code = TD_EXIT_RUNTIME;
	return d->code;
}

static int no_such_tunnel(const struct td_command *cmd, struct td_doctor *d, const char *name)
{
	int r = td_args_usage(cmd, "there is no [tunnel] or [alias] %.100s in %s", name, d->path);
	td_doctor_close(d);
	return r;
}

static void print_json(const struct td_doctor *d)
{
	struct tnl_buf b;
	tnl_buf_init(&b, TEXT_MAX);
	td_doctor_json(d, &b);
	puts(b.failed ? "" : tnl_buf_str(&b));
	tnl_buf_fini(&b);
}

static int run_doctor(const struct td_command *cmd, int argc, char **argv)
{
	struct td_doctor d = {.subject = ""};
	bool json = false, verbose = false;
	const char *bundle = NULL;
	const struct td_arg args[] = {{'c', "config", .value = &d.file},
				      {'j', "json", .flag = &json},
				      {'b', "bundle", .value = &bundle},
				      {'v', "verbose", .flag = &verbose}};
	int n = td_args(cmd, argc, argv, args, TNL_COUNT(args), 1);
	if (n < 0)
		return -1 - n;
	td_log_setup(verbose ? TNL_LOG_DEBUG : TNL_LOG_ERROR, TD_LOG_TEXT);
	if (!td_doctor_open(&d)) {
		fputs("tunneld doctor: cannot make an event loop\n", stderr);
		return TD_EXIT_RUNTIME;
	}
	d.live = !json;
	int code = examine(&d, n ? argv[1] : NULL);
	if (code < 0)
		return no_such_tunnel(cmd, &d, argv[1]);
	if (json)
		print_json(&d);
	if (bundle) {
		int r = td_doctor_bundle(&d, bundle);
		code = code ? code : r;
	}
	td_doctor_close(&d);
	return code;
}

const struct td_command td_command_doctor = {
    "doctor", "test the way of a tunnel step by step, and say what to do",
    "usage: tunneld doctor [-c FILE] [--json] [--bundle FILE] [TUNNEL]\n"
    "\n"
    "Tests, for one [tunnel] or [alias] or for all tunnels of the configuration, in this\n"
    "order: configuration, clock, names, connections and proxy, TLS, credentials,\n"
    "StartSession, the target, StreamUrl, the WebSocket and its handshake, the dial of host\n"
    "and port, round trip, 1 MiB each way, listen addresses, descriptors, memory.  A row\n"
    "each: ok, warn, fail or skipped, what was found, and what to do about it.  Each\n"
    "question may take 5 seconds; what depends on one that failed is skipped.  The session\n"
    "that it starts is ended.  Of an agent's and a gateway's configuration: the rows that\n"
    "apply.\n"
    "\n"
    "  -c, --config FILE   the configuration; else $TUNNELD_CONFIG,\n"
    "                      ~/.config/tunneld/tunneld.ini, /etc/tunneld/tunneld.ini\n"
    "  -j, --json          one JSON object in place of the rows\n"
    "  -b, --bundle FILE   a tar for whoever helps: the result, the status, the configuration\n"
    "                      and the last lines of the log, without secrets; mode 0600\n"
    "  -v, --verbose       the log as well, on stderr\n"
    "  -h, --help          this text\n"
    "  -V, --version       the version\n"
    "\n"
    "Exit code: that of the first row that failed: 2 configuration and listen addresses, 3\n"
    "clock and credentials, 4 target, 5 names, connections, TLS and what was refused, 6 the\n"
    "session; 0 when none did, 1 when it was interrupted.\n",
    run_doctor};
