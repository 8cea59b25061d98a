/* A process that runs roles, from start to end.
 *
 *   prepare: another user; who starts processes for it
 *   init: state directory and its lock, loop, signals, control socket
 *   add, start: the roles, one on the other (gateway, agent, forwarder); then no privileges, few system calls
 *   ready, run: SIGHUP loads a configuration and hands it to each role;
 *         SIGTERM or SIGINT drains, the role that leans on the others first; a
 *         second signal, or a role that takes longer than it said, cuts it all
 *   fini: what is left, in the same order
 *
 * The roles are rows of functions (struct td_role): this file calls them in the
 * right order, reports to the log, systemd and the control socket, and knows none. */
#include "tunneld/process/recent.h"
#include "tunneld/process/internal.h"
#include "lib/alloc.h"
#include "lib/json.h"
#include "tunneld/base/memory.h"
#include "tunneld/base/spawner.h"
#include "tunneld/net/activation.h"
#include "tunneld/process/confine.h"
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

void td_daemon_setup(void)
{
	struct rlimit r;
	umask(077);
	signal(SIGPIPE, SIG_IGN);
	td_confine_shut();
	td_activation_take();
	if (!getrlimit(RLIMIT_NOFILE, &r) && r.rlim_cur < r.rlim_max) {
		r.rlim_cur = r.rlim_max;
		setrlimit(RLIMIT_NOFILE, &r);
	}
}

static struct td_daemon_role *last_role(struct td_daemon *d)
{
	return d->nroles ? &d->roles[d->nroles - 1] : NULL;
}

static const struct td_config *config_of(const struct td_daemon *d, const struct td_daemon_role *r)
{
	return r->cfg ? r->cfg : d->cfg;
}

void *td_daemon_role(const struct td_daemon *d, const struct td_role *row)
{
	for (int i = 0; i < d->nroles; i++)
		if (d->roles[i].row == row)
			return d->roles[i].self;
	return NULL;
}

/* --- in a few words --------------------------------------------------------------- */

/* What systemctl status shows, in the words of the role that leans on the others; true: it has changed. */
static bool describe(struct td_daemon *d)
{
	char was[sizeof(d->described)];
	struct td_daemon_role *r = last_role(d);
	memcpy(was, d->described, sizeof(was));
	d->described[0] = '\0';
	if (r)
		r->row->describe(r->self, config_of(d, r), d->described, sizeof(d->described));
	return strcmp(was, d->described) != 0;
}

static void on_tick(void *arg)
{
	struct td_daemon *d = arg;
	if (d->draining)
		return;
	if (describe(d))
		td_notify("STATUS=%s", d->described);
	td_timer_in(&d->tick, TD_SEC);
}

/* Twice in the time after which systemd takes us for stuck. */
static void on_watchdog(void *arg)
{
	struct td_daemon *d = arg;
	td_notify("WATCHDOG=1");
	td_timer_in(&d->watchdog, td_notify_watchdog_ns() / 2);
}

/* --- configuration and reload ---------------------------------------------------- */

static void apply(const struct td_config *c)
{
	td_log_setup(c->log_level, c->log_format);
	td_log_connections(c->log_connections);
	td_memory_limit(c->process_memory);
}

/* Roles find their own folder in state_dir, not the root that was configured. */
static int set_state_dir(const struct td_daemon *d, struct td_config *c)
{
	tnl_free(c->state_dir);
	c->state_dir = tnl_strdup(d->state.dir);
	return c->state_dir ? 0 : -1;
}

int td_daemon_configure(struct td_daemon *d, struct td_config *cfg)
{
	td_config_free(d->cfg);
	d->cfg = cfg;
	apply(cfg);
	return set_state_dir(d, cfg);
}

/* said: gets them as well; NULL: nobody asked. */
static void log_lines(char *text, struct tnl_buf *said)
{
	if (said)
		tnl_buf_puts(said, text);
	for (char *save = NULL, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		td_log(strncmp(line, "warning: ", 9) ? TNL_LOG_ERROR : TNL_LOG_WARN, "config", NULL, "%s", line);
}

/* The new configuration, its mistakes and warnings in the log; NULL: nothing to be done with it. */
static struct td_config *load(struct td_daemon *d, struct tnl_buf *told)
{
	char *said = NULL;
	size_t n;
	FILE *f = open_memstream(&said, &n);
	struct td_config *c = f ? d->hooks.load(d->hooks.ctx, f) : NULL;
	if (f)
		fclose(f);
	if (said)
		log_lines(said, told);
	free(said);
	if (c && set_state_dir(d, c)) {
		td_config_free(c);
		c = NULL;
	}
	return c;
}

struct td_config *td_daemon_load(const struct td_daemon_hooks *hooks)
{
	char *said = NULL;
	size_t n;
	FILE *f = open_memstream(&said, &n);
	struct td_config *c = f ? hooks->load(hooks->ctx, f) : NULL;
	if (f)
		fclose(f);
	if (said && c && c->log_format == TD_LOG_JSON) {
		td_log_setup(c->log_level, c->log_format);
		log_lines(said, NULL);
	} else if (said) {
		fputs(said, stderr);
	}
	free(said);
	return c;
}

static bool take_config(struct td_daemon *d, struct td_config *c)
{
	char why[1024] = "";
	bool all = true;
	for (int i = 0; i < d->nroles; i++) {
		const struct td_daemon_role *r = &d->roles[i];
		if (r->cfg || !r->row->reload(r->self, c, why, sizeof(why)))
			continue;
		td_error("main", NULL, "the %s did not take all of the new configuration: %s", r->row->name, why);
		all = false;
	}
	struct td_config *old = d->cfg;
	d->cfg = c;
	apply(c);
	td_daemon_serve_reload(d, old);
	td_config_free(old); /* a role that still points into it holds a reference */
	return all;
}

/* told: gets the mistakes of the file.  NULL: all of it is in force; else why not, in one line. */
const char *td_daemon_reload(struct td_daemon *d, struct tnl_buf *told)
{
	const char *file = d->cfg->path ? d->cfg->path : "";
	if (d->draining || !d->hooks.load)
		return d->draining ? "the process is draining" : "it runs without a configuration file";
	td_notify_reloading("reloading");
	struct td_config *c = load(d, told);
	if (!c) {
		describe(d);
		td_error("main", NULL, "reload refused: the configuration is wrong, nothing was changed file=%s", file);
		td_notify("READY=1\nSTATUS=%s; the last reload was refused", d->described);
		return "the configuration is wrong, nothing was changed";
	}
	bool all = take_config(d, c);
	td_info("main", NULL, "%s file=%s", all ? "reloaded" : "reloaded in part", d->cfg->path ? d->cfg->path : "");
	describe(d);
	td_notify("READY=1\nSTATUS=%s", d->described);
	return all ? NULL : "not all of it could be taken: the log says what";
}

static void on_hup(struct ev_loop *ev, ev_signal *w, int events)
{
	td_daemon_reload(w->data, NULL);
}

/* --- the end ------------------------------------------------------------------ */

/* Its configuration stays until fini: what the role has left on the loop may point into it. */
static void free_last_role(struct td_daemon *d)
{
	struct td_daemon_role *r = last_role(d);
	d->nroles--;
	r->row->free(r->self);
}

static void on_guard(void *arg)
{
	struct td_daemon *d = arg;
	td_warn("main", NULL, "drain time-out: what is left is cut");
	td_loop_stop(d->loop);
}

static void on_drained(void *ctx)
{
	struct td_daemon *d = ctx;
	td_soon_do(&d->drained); /* the role is freed once its callback has returned */
}

/* One role after the other, the one that the next leans on last. */
static void drain_last_role(struct td_daemon *d)
{
	struct td_daemon_role *r = last_role(d);
	if (!r) {
		td_loop_stop(d->loop);
		return;
	}
	uint64_t t = r->row->drain_timeout(config_of(d, r));
	td_timer_in(&d->guard, t + DRAIN_SLACK);
	r->row->drain(r->self, t, on_drained, d);
}

static void after_drained(void *arg)
{
	struct td_daemon *d = arg;
	free_last_role(d);
	drain_last_role(d);
}

void td_daemon_begin_drain(struct td_daemon *d)
{
	d->draining = true;
	td_info("main", NULL, "draining: no new connections, those that are there may finish");
	td_notify("STOPPING=1\nSTATUS=draining");
	drain_last_role(d);
}

static void on_term(struct ev_loop *ev, ev_signal *w, int events)
{
	struct td_daemon *d = w->data;
	if (d->draining) {
		td_warn("main", NULL, "second signal: what is left is cut");
		td_loop_stop(d->loop);
		return;
	}
	td_daemon_begin_drain(d);
}

/* --- from start to end ---------------------------------------------------------- */

static void watch_signal(struct td_daemon *d, ev_signal *w, void (*fn)(struct ev_loop *, ev_signal *, int), int signum)
{
	ev_signal_init(w, fn, signum);
	w->data = d;
	ev_signal_start(d->loop->ev, w);
}

/* The programs' spawner has lost the way back to root, as this process will. */
static bool enter_programs(void)
{
	char why[200];
	return td_confine_for_good(why, sizeof(why)) == 0;
}

/* What a reload will need. */
static void check_access(const struct td_config *cfg)
{
	if (cfg->user && cfg->path && access(cfg->path, R_OK) != 0)
		td_warn("main", NULL, "user %s cannot read %s: a reload will fail: %s", cfg->user, cfg->path,
			strerror(errno));
}

int td_daemon_prepare(const struct td_config *cfg, const struct td_role *const *rows, int n)
{
	char why[300] = "";
	bool programs = false;
	int r = 0;

	apply(cfg);
	for (int i = 0; i < n && !r; i++) {
		r = rows[i]->prepare ? rows[i]->prepare(cfg, why, sizeof(why)) : 0;
		programs |= rows[i]->runs_programs;
	}
	if (!r)
		r = td_confine_user(cfg->user, why, sizeof(why));
	if (!r && programs && cfg->seccomp) {
		r = td_spawner_programs(enter_programs);
		snprintf(why, sizeof(why), "cannot make the process that starts programs: %s", strerror(errno));
	}
	if (r)
		td_error("main", NULL, "cannot start: %s", why);
	else
		check_access(cfg);
	return r;
}

static int confine(const struct td_daemon *d)
{
	char why[300] = "";
	if (td_confine_for_good(why, sizeof(why))) {
		td_error("main", NULL, "cannot start: %s", why);
		return -1;
	}
	if (d->cfg->seccomp && td_confine_calls(why, sizeof(why)))
		td_warn("main", NULL, "%s", why);
	return 0;
}

int td_daemon_init(struct td_daemon *d, const char *name, struct td_config *cfg, const struct td_daemon_hooks *hooks)
{
	char why[1024] = "";
	*d = (struct td_daemon){.name = name, .hooks = *hooks, .cfg = cfg, .state = {.lock_fd = -1}};
	apply(cfg);
	if (td_state_open(&d->state, cfg->state_dir, name, cfg->path, why, sizeof(why))) {
		td_error("main", NULL, "%s", why);
		return -1;
	}
	d->loop = set_state_dir(d, cfg) ? NULL : td_loop_new();
	if (!d->loop) {
		td_error("main", NULL, "cannot make an event loop: %s", strerror(errno));
		return -1;
	}
	d->started = d->loop->now;
	td_log_fold(d->loop);
	td_timer_init(&d->guard, d->loop, on_guard, d);
	td_timer_init(&d->tick, d->loop, on_tick, d);
	td_timer_init(&d->watchdog, d->loop, on_watchdog, d);
	td_soon_init(&d->drained, d->loop, after_drained, d);
	watch_signal(d, &d->term, on_term, SIGTERM);
	watch_signal(d, &d->intr, on_term, SIGINT);
	watch_signal(d, &d->hup, on_hup, SIGHUP);
	return td_daemon_record(d);
}

int td_daemon_add(struct td_daemon *d, const struct td_role *row, struct td_config *own, char *why, size_t cap)
{
	if (d->nroles == TD_DAEMON_ROLES_MAX || (own && set_state_dir(d, own))) {
		snprintf(why, cap, d->nroles == TD_DAEMON_ROLES_MAX ? "too many roles" : "out of memory");
		td_config_free(own);
		return -1;
	}
	struct td_daemon_role *r = &d->roles[d->nroles];
	*r = (struct td_daemon_role){.row = row, .cfg = own};
	r->self = row->start(d->loop, config_of(d, r), why, cap);
	if (r->self) {
		d->nroles++;
		return 0;
	}
	td_config_free(own);
	*r = (struct td_daemon_role){0};
	return -1;
}

int td_daemon_start(struct td_daemon *d, const struct td_role *const *rows, int n)
{
	char why[2048] = "";
	for (int i = 0; i < n; i++) {
		if (td_daemon_add(d, rows[i], NULL, why, sizeof(why))) {
			td_error("main", NULL, "the %s cannot start: %s", rows[i]->name, why);
			return -1;
		}
	}
	return td_daemon_serve(d) ? -1 : confine(d);
}

void td_daemon_ready(struct td_daemon *d)
{
	struct td_daemon_role *r = last_role(d);
	describe(d);
	td_info("main", NULL, "ready role=%s pid=%ld version=%s", d->name, (long)getpid(), TUNNELD_VERSION);
	td_notify("READY=1\nMAINPID=%ld\nSTATUS=%s", (long)getpid(), d->described);
	if (r && r->row->describes_itself_anew && td_notify_wanted())
		td_timer_in(&d->tick, TD_SEC);
}

void td_daemon_run(struct td_daemon *d)
{
	if (td_notify_watchdog_ns())
		on_watchdog(d);
	td_loop_run(d->loop);
	td_log_fold(NULL);
	td_info("main", NULL, "ended role=%s", d->name);
}

void td_daemon_fini(struct td_daemon *d)
{
	td_soon_cancel(&d->drained);
	while (d->nroles)
		free_last_role(d);
	td_http_free(d->http);
	td_recent_free(d->recent);
	td_control_free(d->control);
	if (d->loop) {
		ev_signal_stop(d->loop->ev, &d->term);
		ev_signal_stop(d->loop->ev, &d->intr);
		ev_signal_stop(d->loop->ev, &d->hup);
		td_timer_stop(&d->guard);
		td_timer_stop(&d->tick);
		td_timer_stop(&d->watchdog);
		td_log_fold(NULL);
		td_loop_free(d->loop);
	}
	td_spawner_programs_end();
	td_state_close(&d->state);
	for (int i = 0; i < TD_DAEMON_ROLES_MAX; i++)
		td_config_free(d->roles[i].cfg);
	td_config_free(d->cfg);
}
