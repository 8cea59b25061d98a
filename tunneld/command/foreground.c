/* One session in the foreground: from a name on the command line to an exit code.
 *
 * open → target → the command makes its client → run.  The end has two halves that
 * go on at the same time: the far end is told by the client (td_client_end, then
 * its ended()), the API by a TerminateSession call; when both are over, or 1.5 s
 * have passed, or a second signal comes, the loop stops.  StartSession may be
 * answered only after the end has begun: that session is terminated as well. */
#include "tunneld/command/foreground.h"

#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/num.h"
#include "lib/target.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define END_NS (1500 * TD_MS)

void td_foreground_say(const struct td_foreground *fg, const char *fmt, ...)
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
	fprintf(stderr, "tunneld %s: %s\n", fg->command, s ? s : text);
	tnl_buf_fini(&b);
}

int td_foreground_code(int err, const char *type)
{
	if (err == TNL_EAUTH || strcmp(type, "ExpiredTokenException") == 0 ||
	    strcmp(type, "UnrecognizedClientException") == 0 || strcmp(type, "InvalidSignatureException") == 0)
		return TD_EXIT_CREDENTIALS;
	if (err == TNL_ECONF)
		return TD_EXIT_USAGE;
	if (strcmp(type, "TargetNotConnected") == 0)
		return TD_EXIT_NOT_CONNECTED;
	if (err == TNL_EREFUSED || err == TNL_ECLOSED) /* closed before it was ready: the far end does not want it */
		return TD_EXIT_REFUSED;
	return TD_EXIT_RUNTIME;
}

void td_foreground_failed(struct td_foreground *fg, int err, const char *type, const char *why)
{
	td_foreground_say(fg, "%s: %s", fg->t->target, why);
	td_foreground_finish(fg, td_foreground_code(err, type));
}

void td_foreground_lost(struct td_foreground *fg, int err, const char *text)
{
	td_foreground_say(fg, "session lost: %s", text[0] ? text : tnl_err_text(err));
	td_foreground_finish(fg, TD_EXIT_LOST);
}

void td_foreground_say_sink(const struct td_foreground *fg, int err)
{
	if (err == EPIPE)
		td_foreground_say(fg, "the output was closed by its reader");
	else if (err == EBADF)
		td_foreground_say(fg, "cannot write the output: standard output is closed");
	else
		td_foreground_say(fg, "cannot write the output: %s", strerror(err));
}

bool td_foreground_sink_failed(struct td_foreground *fg, const struct td_pipe *p)
{
	int err = td_pipe_sink_errno(p);

	if (!err)
		return false;
	td_foreground_say_sink(fg, err);
	td_foreground_finish(fg, TD_EXIT_RUNTIME);
	return true;
}

struct td_pipe *td_foreground_stream(struct td_foreground *fg, int in_fd, int err_fd, void *user)
{
	struct tnl_head to;
	int err = 0;
	struct td_pump *pump = td_client_pump(fg->client);
	bool dials =
	    tnl_session_info(td_pump_session(pump))->dial && tnl_head_set(&to, TNL_HEAD_UNIX, fg->t->path, 0) == 0;
	struct td_pipe *p = dials ? td_pipe_fds_to(pump, in_fd, STDOUT_FILENO, &to, user, &err)
				  : td_pipe_fds(pump, in_fd, STDOUT_FILENO, err_fd, user, &err);
	if (!p) {
		td_foreground_say(fg, "cannot open the stream: %s", tnl_err_text(err));
		td_foreground_finish(fg, TD_EXIT_RUNTIME);
	}
	return p;
}

int td_foreground_open(struct td_foreground *fg, const char *command, const char *path, bool verbose)
{
	memset(fg, 0, sizeof(*fg));
	fg->command = command;
	fg->code = -1;
	char *file = td_config_find(path);
	fg->cfg = file ? td_config_load(file, 0, stderr) : td_config_parse("", "built-in", ".", 0, stderr);
	if (!fg->cfg && path)
		fprintf(stderr, "tunneld %s: %s is not usable\n", command, path);
	tnl_free(file);
	if (!fg->cfg)
		return TD_EXIT_USAGE;
	enum tnl_log_level level = fg->cfg->log_level == TNL_LOG_INFO ? TNL_LOG_WARN : fg->cfg->log_level;
	fg->level = verbose && level < TNL_LOG_INFO ? TNL_LOG_INFO : level;
	td_log_setup(fg->level, fg->cfg->log_format);
	td_log_connections(fg->cfg->log_connections);
	fg->loop = td_loop_new();
	if (!fg->loop) {
		td_foreground_say(fg, "cannot make an event loop");
		return TD_EXIT_RUNTIME;
	}
	td_log_fold(fg->loop);
	return 0;
}

void td_foreground_quiet(struct td_foreground *fg)
{
	if (fg->level == TNL_LOG_WARN)
		td_log_setup(TNL_LOG_ERROR, fg->cfg->log_format);
}

/* Anything else is the name of a section. */
static bool is_target(const char *s)
{
	static const char *const begins[] = {"i-", "mi-", "ecs:", "tag:", "name:"};
	for (size_t i = 0; i < TNL_COUNT(begins); i++)
		if (strncmp(s, begins[i], strlen(begins[i])) == 0)
			return true;
	return false;
}

/* A target that no section names: the same keys with their defaults. */
const struct td_tunnel_config *td_foreground_defaults(struct td_foreground *fg, const char *id)
{
	char text[512];
	for (const char *p = id; *p; p++)
		if ((unsigned char)*p < ' ' || *p == ';' || *p == '#')
			return NULL;
	if (snprintf(text, sizeof(text), "[alias command-line]\ntargets = %s\n", id) >= (int)sizeof(text))
		return NULL;
	fg->made = td_config_parse(text, "command line", ".", 0, NULL);
	return fg->made && fg->made->fwd.naliases ? &fg->made->fwd.aliases[0] : NULL;
}

int td_foreground_select(struct td_foreground *fg, const char *word)
{
	static const char *const words[] = {"only", "newest", "any"};
	for (unsigned i = 0; word && i < TNL_COUNT(words); i++)
		if (strcmp(word, words[i]) == 0) {
			fg->select = (enum td_target_select)i;
			fg->select_given = true;
		}
	if (!word || fg->select_given)
		return 0;
	td_foreground_say(fg, "--select %s: must be one of only, newest, any", word);
	return TD_EXIT_USAGE;
}

int td_foreground_find(struct td_foreground *fg, const char *name)
{
	fg->t = td_tunnel_find(fg->cfg->fwd.tunnels, fg->cfg->fwd.ntunnels, name);
	if (!fg->t)
		fg->t = td_tunnel_find(fg->cfg->fwd.aliases, fg->cfg->fwd.naliases, name);
	fg->several = fg->t && strcmp(fg->t->name, name) != 0;
	if (!fg->t && is_target(name))
		fg->t = td_foreground_defaults(fg, name);
	if (!fg->t) {
		td_foreground_say(fg,
				  "%s is neither an instance id (i-…, mi-…, ecs:…), nor tag:KEY=VALUE, name:HOST or "
				  "ecs:CLUSTER/SERVICE, nor a [tunnel] or [alias] of %s",
				  name,
				  fg->cfg->path ? fg->cfg->path : "a configuration (none was found; name one with -c)");
		return TD_EXIT_USAGE;
	}
	return 0;
}

int td_foreground_account(struct td_foreground *fg)
{
	char why[400];
	fg->aws = td_aws_new(fg->loop, fg->made ? &fg->cfg->aws : &fg->t->aws, why, sizeof(why));
	if (fg->aws)
		return 0;
	td_foreground_say(fg, "%s", why);
	return TD_EXIT_USAGE;
}

int td_foreground_target(struct td_foreground *fg, const char *name)
{
	int r = td_foreground_find(fg, name);
	return r ? r : td_foreground_account(fg);
}

/* The first and the last port of the range. */
static int say_ports(const struct td_foreground *fg)
{
	const struct td_forwarder_config *f = &fg->cfg->fwd;
	const struct td_tunnel_config *t = fg->t, *last = t;
	for (int i = 0; i < f->ntunnels; i++)
		if (f->tunnels[i].range == t->range && memcmp(f->tunnels[i].name, t->name, t->range) == 0)
			last = &f->tunnels[i];
	td_foreground_say(fg, "%.*s is a range of ports: say which one, %s to %s", (int)t->range, t->name, t->name,
			  last->name);
	return TD_EXIT_USAGE;
}

int td_foreground_port(struct td_foreground *fg)
{
	if (fg->several)
		return say_ports(fg);
	if (fg->t->type != TD_TUNNEL_REVERSE)
		return 0;
	td_foreground_say(fg, "%s is a reverse tunnel: there is nothing at its target to connect to", fg->t->name);
	return TD_EXIT_USAGE;
}

void td_foreground_choose_port(struct td_foreground *fg, uint16_t port)
{
	const struct td_forwarder_config *f = &fg->cfg->fwd;
	char name[300];
	if (!fg->several || !port)
		return;
	snprintf(name, sizeof(name), "%.*s:%u", (int)fg->t->range, fg->t->name, port);
	const struct td_tunnel_config *t = td_tunnel_find(f->tunnels, f->ntunnels, name);
	fg->t = t ? t : fg->t;
	fg->several = false; /* what it goes to is said */
}

void td_foreground_settings(struct td_foreground *fg, struct td_client_config *cc)
{
	const struct td_tunnel_config *t = fg->t;
	cc->aws = fg->aws;
	cc->target = t->target;
	cc->select = fg->select_given ? fg->select : t->select;
	cc->reason = t->reason;
	cc->reconnect_min_ns = t->reconnect_min_ns;
	cc->reconnect_max_ns = t->reconnect_max_ns;
	cc->ping_ns = t->ping_interval_ns;
	cc->pong_ns = t->pong_timeout_ns;
	cc->links_auto = t->links == 0;
	td_tunnel_session(t, td_aws_is_amazon(fg->aws), &cc->session);
	cc->session.dial = 0; /* who goes to the socket of a tunnel says so */
	cc->session.require_dial = false;
}

static void stop_when_done(struct td_foreground *fg)
{
	if (fg->ended && !fg->terminate)
		td_loop_stop(fg->loop);
}

static void on_terminated(void *ctx, const char *session_id, bool ok)
{
	struct td_foreground *fg = ctx;
	fg->terminate = NULL;
	stop_when_done(fg);
}

static void deadline_over(void *arg)
{
	td_loop_stop(((struct td_foreground *)arg)->loop);
}

static void tell_api(struct td_foreground *fg)
{
	if (fg->told_api || !fg->client || !td_client_session_id(fg->client))
		return;
	fg->told_api = true;
	fg->terminate = td_terminate_start(fg->aws, td_client_session_id(fg->client), on_terminated, fg);
}

void td_foreground_stop(struct td_foreground *fg, int code)
{
	if (fg->code < 0)
		fg->code = code;
	td_loop_stop(fg->loop);
}

void td_foreground_finish(struct td_foreground *fg, int code)
{
	if (fg->code >= 0) {
		tell_api(fg); /* StartSession may have been answered only now */
		fg->ended = true;
		stop_when_done(fg);
		return;
	}
	fg->code = code;
	td_timer_init(&fg->deadline, fg->loop, deadline_over, fg);
	td_timer_in(&fg->deadline, END_NS);
	tell_api(fg);
	if (fg->client && td_client_state(fg->client) != TD_CLIENT_ENDING) {
		td_client_end(fg->client); /* its ended() comes back here */
		return;
	}
	fg->ended = true;
	stop_when_done(fg);
}

static void on_signal(EV_P_ ev_signal *w, int revents)
{
	struct td_foreground *fg = w->data;
	if (fg->code >= 0)
		td_loop_stop(fg->loop); /* the second one */
	else if (fg->on_signal)
		fg->on_signal(fg, w->signum);
	else
		td_foreground_finish(fg, TD_EXIT_OK);
}

int td_foreground_run(struct td_foreground *fg)
{
	static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT};

	signal(SIGPIPE, SIG_IGN);
	for (int i = 0; i < 4; i++) {
		ev_signal_init(&fg->sig[i], on_signal, signals[i]);
		fg->sig[i].data = fg;
		ev_signal_start(fg->loop->ev, &fg->sig[i]);
	}
	td_loop_run(fg->loop);
	for (int i = 0; i < 4; i++)
		ev_signal_stop(fg->loop->ev, &fg->sig[i]);
	td_timer_stop(&fg->deadline);
	td_terminate_cancel(fg->terminate);
	if (fg->cleanup)
		fg->cleanup(fg->cleanup_arg);
	td_client_free(fg->client);
	td_aws_free(fg->aws);
	td_log_fold(NULL);
	td_loop_free(fg->loop);
	td_config_free(fg->made);
	td_config_free(fg->cfg);
	return fg->code >= 0 ? fg->code : TD_EXIT_RUNTIME;
}
