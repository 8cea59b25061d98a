#include "tunneld/process/daemon.h"
#include "lib/alloc.h"
#include "lib/json.h"
#include "tunneld/base/memory.h"
#include "tunneld/process/notify.h"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* How long after the roles' own drain time-outs the process waits for them. */
#define DRAIN_SLACK (2 * TD_SEC)

void td_process_setup(void)
{
	struct rlimit r;
	umask(077);
	signal(SIGPIPE, SIG_IGN);
	if (!getrlimit(RLIMIT_NOFILE, &r) && r.rlim_cur < r.rlim_max) {
		r.rlim_cur = r.rlim_max;
		setrlimit(RLIMIT_NOFILE, &r);
	}
}

/* --- status ------------------------------------------------------------------- */

static void role_status(struct tnl_buf *b, const char *name, void (*fn)(void *, struct tnl_buf *), void *role)
{
	if (!role)
		return;
	tnl_buf_printf(b, ",\"%s\":", name);
	fn(role, b);
}

static void forwarder_status(void *r, struct tnl_buf *b)
{
	td_forwarder_status(r, b);
}
static void agent_status(void *r, struct tnl_buf *b)
{
	td_agent_status(r, b);
}
static void gateway_status(void *r, struct tnl_buf *b)
{
	td_gateway_status(r, b);
}

static void status(void *ctx, struct tnl_buf *b)
{
	struct td_daemon *d = ctx;
	struct tnl_jw w;
	tnl_jw_init(&w, b);
	tnl_jw_obj(&w);
	tnl_jw_kv(&w, "role", d->role);
	tnl_jw_kv(&w, "version", TUNNELD_VERSION);
	tnl_jw_kvi(&w, "pid", getpid());
	tnl_jw_kv(&w, "state", d->draining ? "draining" : "running");
	tnl_jw_kv(&w, "configuration", d->cfg->path);
	tnl_jw_kv(&w, "state_dir", d->state.dir);
	tnl_jw_kvi(&w, "uptime_s", (int64_t)((d->loop->now - d->started) / TD_SEC));
	tnl_jw_key(&w, "memory");
	tnl_jw_obj(&w);
	tnl_jw_kvi(&w, "used", (int64_t)td_memory_used());
	tnl_jw_kvi(&w, "limit", (int64_t)d->cfg->process_memory);
	tnl_jw_end_obj(&w);
	if (d->extra_status)
		d->extra_status(d->ctx, b);
	role_status(b, "forwarder", forwarder_status, d->fwd);
	role_status(b, "agent", agent_status, d->agent);
	role_status(b, "gateway", gateway_status, d->gw);
	tnl_jw_end_obj(&w);
}

/* What systemctl status shows. */
static void describe(const struct td_daemon *d, char *out, size_t cap)
{
	if (d->fwd)
		snprintf(out, cap, "%d tunnel%s", d->cfg->fwd.ntunnels, d->cfg->fwd.ntunnels == 1 ? "" : "s");
	else if (d->agent)
		snprintf(out, cap, "%s: %s", d->cfg->agent.instance_id,
			 td_agent_connected(d->agent) ? "connected" : "connecting");
	else
		snprintf(out, cap, "%d user%s, %d instance%s", d->cfg->gw.nusers, d->cfg->gw.nusers == 1 ? "" : "s",
			 d->cfg->gw.ninstances, d->cfg->gw.ninstances == 1 ? "" : "s");
}

static void on_tick(void *arg)
{
	struct td_daemon *d = arg;
	char text[256];
	bool up = d->agent && td_agent_connected(d->agent);
	if (up != d->told_connected && !d->draining) {
		d->told_connected = up;
		describe(d, text, sizeof(text));
		td_notify("STATUS=%s", text);
	}
	td_timer_in(&d->tick, TD_SEC);
}

/* --- reload ------------------------------------------------------------------- */

static void apply(const struct td_config *c)
{
	td_log_setup(c->log_level, c->log_format);
	td_memory_limit(c->process_memory);
}

static void log_lines(char *text)
{
	for (char *save = NULL, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		td_log(strncmp(line, "warning: ", 9) ? TNL_LOG_ERROR : TNL_LOG_WARN, "config", NULL, "%s", line);
}

static bool take_config(struct td_daemon *d, struct td_config *c)
{
	char why[1024] = "";
	int r = 0;
	if (d->gw && !d->gw_cfg && td_gateway_reload(d->gw, c, why, sizeof(why))) {
		td_error("main", NULL, "the gateway did not take all of the new configuration: %s", why);
		r = -1;
	}
	if (d->agent && td_agent_reload(d->agent, c, why, sizeof(why))) {
		td_error("main", NULL, "the agent did not take all of the new configuration: %s", why);
		r = -1;
	}
	if (d->fwd && td_forwarder_reload(d->fwd, c, why, sizeof(why))) {
		td_error("main", NULL, "the forwarder did not take all of the new configuration: %s", why);
		r = -1;
	}
	struct td_config *old = d->cfg;
	d->cfg = c;
	apply(c);
	td_config_free(old); /* a role that still points into it holds a reference */
	return r == 0;
}

static void set_state_dir(struct td_config *c, const char *dir)
{
	tnl_free(c->state_dir);
	c->state_dir = tnl_strdup(dir);
}

static void on_hup(struct ev_loop *ev, ev_signal *w, int events)
{
	struct td_daemon *d = w->data;
	char *said = NULL, text[256];
	size_t n;
	if (d->draining || !d->load)
		return;
	td_notify_reloading("reloading");
	FILE *f = open_memstream(&said, &n);
	struct td_config *c = f ? d->load(d->ctx, f) : NULL;
	if (f)
		fclose(f);
	if (said)
		log_lines(said);
	free(said);
	describe(d, text, sizeof(text));
	if (!c) {
		td_error("main", NULL, "reload refused: the configuration is wrong, nothing was changed file=%s",
			 d->cfg->path);
		td_notify("READY=1\nSTATUS=%s; the last reload was refused", text);
		return;
	}
	set_state_dir(c, d->state.dir);
	bool ok = take_config(d, c);
	td_info("main", NULL, "%s file=%s", ok ? "reloaded" : "reloaded in part", d->cfg->path ? d->cfg->path : "");
	describe(d, text, sizeof(text));
	td_notify("READY=1\nSTATUS=%s", text);
}

/* --- the end ------------------------------------------------------------------ */

static void drain_next(void *ctx);

static void on_guard(void *arg)
{
	struct td_daemon *d = arg;
	td_warn("main", NULL, "not everything ended in time, it is cut now");
	td_loop_stop(d->loop);
}

/* The role is freed once its callback has returned. */
static void free_forwarder(void *r)
{
	td_forwarder_free(r);
}
static void free_agent(void *r)
{
	td_agent_free(r);
}
static void free_gateway(void *r)
{
	td_gateway_free(r);
}

static void forwarder_done(void *ctx)
{
	struct td_daemon *d = ctx;
	td_loop_defer(d->loop, free_forwarder, d->fwd);
	d->fwd = NULL;
	td_loop_defer(d->loop, drain_next, d);
}

static void agent_done(void *ctx)
{
	struct td_daemon *d = ctx;
	td_loop_defer(d->loop, free_agent, d->agent);
	d->agent = NULL;
	td_loop_defer(d->loop, drain_next, d);
}

static void gateway_done(void *ctx)
{
	struct td_daemon *d = ctx;
	td_loop_defer(d->loop, free_gateway, d->gw);
	d->gw = NULL;
	td_loop_defer(d->loop, drain_next, d);
}

/* One role after the other, the one that the next leans on last. */
static void drain_next(void *ctx)
{
	struct td_daemon *d = ctx;
	uint64_t t;
	if (d->fwd) {
		t = d->cfg->fwd.drain_timeout_ns;
		td_timer_in(&d->guard, t + DRAIN_SLACK);
		td_forwarder_drain(d->fwd, t, forwarder_done, d);
	} else if (d->agent) {
		t = d->cfg->agent.drain_timeout_ns;
		td_timer_in(&d->guard, t + DRAIN_SLACK);
		td_agent_drain(d->agent, t, agent_done, d);
	} else if (d->gw) {
		t = (d->gw_cfg ? d->gw_cfg : d->cfg)->gw.drain_timeout_ns;
		td_timer_in(&d->guard, t + DRAIN_SLACK);
		td_gateway_drain(d->gw, t, gateway_done, d);
	} else {
		td_loop_stop(d->loop);
	}
}

static void on_term(struct ev_loop *ev, ev_signal *w, int events)
{
	struct td_daemon *d = w->data;
	if (d->draining) {
		td_warn("main", NULL, "second signal: everything is cut");
		td_loop_stop(d->loop);
		return;
	}
	d->draining = true;
	td_info("main", NULL, "draining: no new connections, those that are there may finish signal=%d", w->signum);
	td_notify("STOPPING=1\nSTATUS=draining");
	drain_next(d);
}

/* --- from start to end ---------------------------------------------------------- */

int td_daemon_init(struct td_daemon *d, const char *role, struct td_config *cfg)
{
	char why[1024] = "";
	*d = (struct td_daemon){.role = role, .cfg = cfg, .state = {.lock_fd = -1}};
	apply(cfg);
	if (td_state_open(&d->state, cfg->state_dir, role, cfg->path, why, sizeof(why))) {
		td_error("main", NULL, "%s", why);
		return TD_EXIT_RUNTIME;
	}
	set_state_dir(cfg, d->state.dir);
	d->loop = td_loop_new();
	if (!d->loop) {
		td_error("main", NULL, "cannot make an event loop: %s", strerror(errno));
		return TD_EXIT_RUNTIME;
	}
	d->started = d->loop->now;
	td_timer_init(&d->guard, d->loop, on_guard, d);
	td_timer_init(&d->tick, d->loop, on_tick, d);
	ev_signal_init(&d->term, on_term, SIGTERM);
	ev_signal_init(&d->intr, on_term, SIGINT);
	ev_signal_init(&d->hup, on_hup, SIGHUP);
	d->term.data = d->intr.data = d->hup.data = d;
	ev_signal_start(d->loop->ev, &d->term);
	ev_signal_start(d->loop->ev, &d->intr);
	ev_signal_start(d->loop->ev, &d->hup);
	if (!cfg->control_socket)
		return 0;
	d->control = td_control_new(d->loop, d->state.dir, status, d, why, sizeof(why));
	if (!d->control)
		td_warn("main", NULL, "no control socket: %s", why);
	return 0;
}

int td_daemon_start(struct td_daemon *d, unsigned roles)
{
	char why[2048] = "";
	if ((roles & TD_ROLE_GATEWAY) &&
	    !(d->gw = td_gateway_new(d->loop, d->gw_cfg ? d->gw_cfg : d->cfg, why, sizeof(why))))
		td_error("main", NULL, "the gateway cannot start: %s", why);
	else if ((roles & TD_ROLE_AGENT) && !(d->agent = td_agent_new(d->loop, d->cfg, why, sizeof(why))))
		td_error("main", NULL, "the agent cannot start: %s", why);
	else if ((roles & TD_ROLE_FORWARDER) && !(d->fwd = td_forwarder_new(d->loop, d->cfg, why, sizeof(why))))
		td_error("main", NULL, "the forwarder cannot start: %s", why);
	else
		return 0;
	return TD_EXIT_RUNTIME;
}

void td_daemon_ready(struct td_daemon *d)
{
	char text[256];
	describe(d, text, sizeof(text));
	td_info("main", NULL, "ready role=%s pid=%ld version=%s", d->role, (long)getpid(), TUNNELD_VERSION);
	td_notify("READY=1\nMAINPID=%ld\nSTATUS=%s", (long)getpid(), text);
	if (d->agent && td_notify_wanted())
		td_timer_in(&d->tick, TD_SEC);
}

int td_daemon_run(struct td_daemon *d)
{
	if (!d->ready_later)
		td_daemon_ready(d);
	td_loop_run(d->loop);
	td_info("main", NULL, "ended role=%s", d->role);
	return TD_EXIT_OK;
}

void td_daemon_fini(struct td_daemon *d)
{
	if (d->fwd)
		td_forwarder_free(d->fwd);
	if (d->agent)
		td_agent_free(d->agent);
	if (d->gw)
		td_gateway_free(d->gw);
	td_control_free(d->control);
	if (d->loop) {
		ev_signal_stop(d->loop->ev, &d->term);
		ev_signal_stop(d->loop->ev, &d->intr);
		ev_signal_stop(d->loop->ev, &d->hup);
		td_timer_stop(&d->guard);
		td_timer_stop(&d->tick);
		td_loop_free(d->loop);
	}
	td_state_close(&d->state);
	td_config_free(d->gw_cfg);
	td_config_free(d->cfg);
}
