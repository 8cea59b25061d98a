#include "tunneld/command/foreground.h"

#include "lib/alloc.h"
#include "lib/enc.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define END_NS (1500 * TD_MS)

void td_cli_say(const struct td_cli *c, const char *fmt, ...)
{
	char text[1024];
	struct tnl_buf b;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	tnl_buf_init(&b, 8192);
	tnl_escape(&b, text, strlen(text), false);
	const char *s = tnl_buf_str(&b);
	fprintf(stderr, "tunneld %s: %s\n", c->command, s ? s : text);
	tnl_buf_fini(&b);
}

int td_cli_code(int err, const char *type)
{
	if (err == TNL_EAUTH || strcmp(type, "ExpiredTokenException") == 0 ||
	    strcmp(type, "UnrecognizedClientException") == 0 || strcmp(type, "InvalidSignatureException") == 0)
		return TD_EXIT_CREDENTIALS;
	if (strcmp(type, "TargetNotConnected") == 0)
		return TD_EXIT_NOT_CONNECTED;
	if (err == TNL_EREFUSED || err == TNL_ECLOSED) /* closed before it was ready: the far end does not want it */
		return TD_EXIT_REFUSED;
	return TD_EXIT_RUNTIME;
}

int td_cli_open(struct td_cli *c, const char *command, const char *path, bool verbose)
{
	memset(c, 0, sizeof(*c));
	c->command = command;
	c->code = -1;
	char *file = td_config_find(path);
	c->cfg = file ? td_config_load(file, 0, stderr) : td_config_parse("", "built-in", ".", 0, stderr);
	if (!c->cfg && path)
		fprintf(stderr, "tunneld %s: %s is not usable\n", command, path);
	tnl_free(file);
	if (!c->cfg)
		return TD_EXIT_USAGE;
	enum tnl_log_level level = c->cfg->log_level == TNL_LOG_INFO ? TNL_LOG_WARN : c->cfg->log_level;
	td_log_setup(verbose && level < TNL_LOG_INFO ? TNL_LOG_INFO : level, c->cfg->log_format);
	c->loop = td_loop_new();
	if (!c->loop) {
		td_cli_say(c, "no event loop can be made");
		return TD_EXIT_RUNTIME;
	}
	return 0;
}

static const struct td_tunnel_config *by_name(const struct td_tunnel_config *v, int n, const char *name)
{
	for (int i = 0; i < n; i++)
		if (strcmp(v[i].name, name) == 0)
			return &v[i];
	return NULL;
}

static bool is_id(const char *s)
{
	return strncmp(s, "i-", 2) == 0 || strncmp(s, "mi-", 3) == 0 || strncmp(s, "ecs:", 4) == 0;
}

/* A target that no section names: the same keys with their defaults. */
const struct td_tunnel_config *td_cli_defaults(struct td_cli *c, const char *id)
{
	char text[512];
	for (const char *p = id; *p; p++)
		if ((unsigned char)*p <= ' ' || *p == ';' || *p == '#')
			return NULL;
	if (snprintf(text, sizeof(text), "[alias command-line]\ntarget = %s\n", id) >= (int)sizeof(text))
		return NULL;
	c->made = td_config_parse(text, "command line", ".", 0, NULL);
	return c->made && c->made->fwd.naliases ? &c->made->fwd.aliases[0] : NULL;
}

int td_cli_target(struct td_cli *c, const char *name)
{
	char why[400];
	const struct td_aws_config *aws;

	c->t = by_name(c->cfg->fwd.tunnels, c->cfg->fwd.ntunnels, name);
	if (!c->t)
		c->t = by_name(c->cfg->fwd.aliases, c->cfg->fwd.naliases, name);
	aws = c->t ? &c->t->aws : &c->cfg->aws;
	if (!c->t && is_id(name))
		c->t = td_cli_defaults(c, name);
	if (!c->t) {
		td_cli_say(c, "%s is no instance id (i-…, mi-…, ecs:…) and no [tunnel] or [alias] of %s", name,
			   c->cfg->path ? c->cfg->path : "a configuration (none was found; name one with -c)");
		return TD_EXIT_USAGE;
	}
	c->aws = td_aws_new(c->loop, aws, why, sizeof(why));
	if (!c->aws) {
		td_cli_say(c, "%s", why);
		return TD_EXIT_USAGE;
	}
	return 0;
}

void td_cli_settings(struct td_cli *c, struct td_client_config *cc)
{
	const struct td_tunnel_config *t = c->t;
	cc->aws = c->aws;
	cc->target = t->target;
	cc->reason = t->reason;
	cc->reconnect_min_ns = t->reconnect_min_ns;
	cc->reconnect_max_ns = t->reconnect_max_ns;
	cc->ping_ns = t->ping_interval_ns;
	cc->pong_ns = t->pong_timeout_ns;
	cc->session = (struct tnl_session_config){
	    .memory_max = (size_t)t->session_memory,
	    .stream_window = (size_t)t->stream_window,
	    .max_payload = t->max_payload,
	    .message_rate = t->message_rate_set	       ? t->message_rate
			    : td_aws_is_amazon(c->aws) ? 900
						       : 0,
	    .resend_max = 3000,
	    .half_close_timeout_ns = t->half_close_timeout_ns,
	    .fin_quiet_ns = 2 * TD_SEC,
	    .keepalive_ns = t->keepalive ? t->idle_timeout_ns / 3 : 0,
	    .offer_capabilities = true,
	    .require_encryption = t->require_encryption,
	};
}

static void stop_when_done(struct td_cli *c)
{
	if (c->ended && !c->terminate)
		td_loop_stop(c->loop);
}

static void on_terminated(void *ctx, const char *session_id, bool ok)
{
	struct td_cli *c = ctx;
	c->terminate = NULL;
	stop_when_done(c);
}

static void deadline_over(void *arg)
{
	td_loop_stop(((struct td_cli *)arg)->loop);
}

static void tell_api(struct td_cli *c)
{
	if (c->told_api || !c->client || !td_client_session_id(c->client))
		return;
	c->told_api = true;
	c->terminate = td_terminate_start(c->aws, td_client_session_id(c->client), on_terminated, c);
}

void td_cli_stop(struct td_cli *c, int code)
{
	if (c->code < 0)
		c->code = code;
	td_loop_stop(c->loop);
}

void td_cli_finish(struct td_cli *c, int code)
{
	if (c->code >= 0) {
		tell_api(c); /* StartSession may have been answered only now */
		c->ended = true;
		stop_when_done(c);
		return;
	}
	c->code = code;
	td_timer_init(&c->deadline, c->loop, deadline_over, c);
	td_timer_in(&c->deadline, END_NS);
	tell_api(c);
	if (c->client && td_client_state(c->client) != TD_CLIENT_ENDING) {
		td_client_end(c->client); /* its ended() comes back here */
		return;
	}
	c->ended = true;
	stop_when_done(c);
}

static void on_signal(EV_P_ ev_signal *w, int revents)
{
	struct td_cli *c = w->data;
	if (c->code >= 0)
		td_loop_stop(c->loop); /* the second one */
	else if (c->on_signal)
		c->on_signal(c, w->signum);
	else
		td_cli_finish(c, TD_EXIT_OK);
}

int td_cli_run(struct td_cli *c)
{
	static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT};

	signal(SIGPIPE, SIG_IGN);
	for (int i = 0; i < 4; i++) {
		ev_signal_init(&c->sig[i], on_signal, signals[i]);
		c->sig[i].data = c;
		ev_signal_start(c->loop->ev, &c->sig[i]);
	}
	td_loop_run(c->loop);
	for (int i = 0; i < 4; i++)
		ev_signal_stop(c->loop->ev, &c->sig[i]);
	td_timer_stop(&c->deadline);
	td_terminate_cancel(c->terminate);
	if (c->cleanup)
		c->cleanup(c->cleanup_arg);
	td_client_free(c->client);
	td_aws_free(c->aws);
	td_loop_free(c->loop);
	td_config_free(c->made);
	td_config_free(c->cfg);
	return c->code >= 0 ? c->code : TD_EXIT_RUNTIME;
}
