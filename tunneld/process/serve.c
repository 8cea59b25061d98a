/* What is asked of a running process: its status, reload and drain, tunnels by hand, how much it logs (control socket);
 * metrics, health and the status again (HTTP). */
#include "tunneld/process/internal.h"
#include "lib/json.h"
#include "tunneld/base/log.h"
#include "tunneld/base/memory.h"
#include "tunneld/process/recent.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* --- status --------------------------------------------------------------------------- */

static void write_status(struct td_daemon *d, struct tnl_buf *b)
{
	struct tnl_jw w;
	tnl_jw_init(&w, b);
	tnl_jw_obj(&w);
	tnl_jw_kv(&w, "role", d->name);
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
	if (d->hooks.status)
		d->hooks.status(d->hooks.ctx, b);
	for (int i = d->nroles - 1; i >= 0; i--) {
		tnl_buf_printf(b, ",\"%s\":", d->roles[i].row->name);
		d->roles[i].row->status(d->roles[i].self, b);
	}
	tnl_jw_end_obj(&w);
}

/* --- the control socket -------------------------------------------------------------- */

static void write_answer(struct tnl_buf *b, const char *error, const char *details)
{
	struct tnl_jw w;
	tnl_jw_init(&w, b);
	tnl_jw_obj(&w);
	if (error) {
		tnl_jw_kv(&w, "error", error);
		tnl_jw_kv(&w, "details", details);
	} else {
		tnl_jw_key(&w, "ok");
		tnl_jw_bool(&w, true);
	}
	tnl_jw_end_obj(&w);
}

static void answer_reload(struct td_daemon *d, struct tnl_buf *b)
{
	struct tnl_buf told;
	tnl_buf_init(&told, 1 << 20);
	const char *error = td_daemon_reload(d, &told);
	write_answer(b, error, tnl_buf_str(&told));
	tnl_buf_fini(&told);
}

static void answer_log_level(const struct td_daemon *d, const char *word, struct tnl_buf *b)
{
	static const char *const levels[] = {"error", "warn", "info", "debug"};
	for (int i = 0; i < 4; i++) {
		if (strcmp(word, levels[i]) != 0)
			continue;
		td_log_setup((enum tnl_log_level)i, d->cfg->log_format);
		write_answer(b, NULL, NULL);
		return;
	}
	write_answer(b, "the level must be error, warn, info or debug", NULL);
}

static void answer_switch(struct td_daemon *d, bool open, const char *name, struct tnl_buf *b)
{
	char why[512] = TD_CONTROL_NO_TUNNELS;
	for (int i = 0; i < d->nroles; i++) {
		const struct td_daemon_role *r = &d->roles[i];
		int (*fn)(void *, const char *, char *, size_t) = open ? r->row->open : r->row->close;
		if (fn && fn(r->self, name, why, sizeof(why)) == 0) {
			write_answer(b, NULL, NULL);
			return;
		}
	}
	write_answer(b, why, NULL);
}

static void answer_drain(struct td_daemon *d, struct tnl_buf *b)
{
	if (!d->draining)
		td_daemon_begin_drain(d);
	write_answer(b, NULL, NULL);
}

static void answer_events(const struct td_daemon *d, struct tnl_buf *b)
{
	tnl_buf_puts(b, "{\"events\":");
	td_recent_events(d->recent, b);
	tnl_buf_puts(b, "}");
}

/* WORD, or WORD and what is behind it. */
static bool is_request(const char *request, const char *word, const char **rest)
{
	size_t n = strlen(word);
	*rest = request[n] == ' ' ? request + n + 1 : "";
	return strncmp(request, word, n) == 0 && (request[n] == ' ' || !request[n]);
}

static void on_request(void *ctx, const char *request, struct tnl_buf *b)
{
	struct td_daemon *d = ctx;
	const char *rest;
	if (is_request(request, "status", &rest))
		write_status(d, b);
	else if (is_request(request, "reload", &rest))
		answer_reload(d, b);
	else if (is_request(request, "drain", &rest))
		answer_drain(d, b);
	else if (is_request(request, "log-level", &rest))
		answer_log_level(d, rest, b);
	else if (is_request(request, "events", &rest))
		answer_events(d, b);
	else if (is_request(request, "open", &rest))
		answer_switch(d, true, rest, b);
	else if (is_request(request, "close", &rest))
		answer_switch(d, false, rest, b);
	else
		write_answer(b, "unknown request", NULL);
}

static bool on_take(void *ctx, const char *request, int fd, const int *fds, int nfds, struct tnl_buf *b)
{
	struct td_daemon *d = ctx;
	const char *rest;
	char why[512] = TD_CONTROL_NO_TUNNELS;
	if (!is_request(request, "one-shot", &rest))
		return false;
	for (int i = 0; i < d->nroles; i++) {
		const struct td_daemon_role *r = &d->roles[i];
		if (r->row->one_shot && r->row->one_shot(r->self, rest, fd, fds, nfds, why, sizeof(why)))
			return true;
	}
	write_answer(b, why, NULL);
	return false;
}

/* --- HTTP ------------------------------------------------------------------------------ */

/* The first of all roles; 0: none do. */
static uint64_t credentials_end(const struct td_daemon *d)
{
	uint64_t first = 0;
	for (int i = 0; i < d->nroles; i++) {
		const struct td_daemon_role *r = &d->roles[i];
		uint64_t ends = r->row->credentials_end ? r->row->credentials_end(r->self) : 0;
		first = ends && (!first || ends < first) ? ends : first;
	}
	return first;
}

static void write_process_metrics(const struct td_daemon *d, struct tnl_metrics *m)
{
	const struct {
		const char *name, *help;
		double value;
	} plain[] = {
	    {"tunneld_start_time_seconds", "When the process started, in seconds since the epoch.",
	     (double)d->loop->wall_ms / 1000 - (double)(d->loop->now - d->started) / 1e9},
	    {"tunneld_memory_bytes", "Memory that the process has taken for its work.", (double)td_memory_used()},
	    {"tunneld_memory_limit_bytes", "memory_limit of the configuration.", (double)d->cfg->process_memory},
	    {"tunneld_credentials_expiry_timestamp_seconds",
	     "When the first of the credentials in use ends; 0: none does.", (double)credentials_end(d)},
	};
	tnl_metrics_family(m, "tunneld_build_info", TNL_METRIC_GAUGE, "1, with the version and the role as labels.");
	tnl_metrics_put(m, "version", TUNNELD_VERSION, "role", d->name, 1);
	for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++) {
		tnl_metrics_family(m, plain[i].name, TNL_METRIC_GAUGE, plain[i].help);
		tnl_metrics_put(m, NULL, NULL, NULL, NULL, plain[i].value);
	}
}

static void write_metrics(void *ctx, struct tnl_metrics *m)
{
	struct td_daemon *d = ctx;
	write_process_metrics(d, m);
	for (int i = 0; i < d->nroles; i++)
		if (d->roles[i].row->metrics)
			d->roles[i].row->metrics(d->roles[i].self, m);
}

static int one_tunnel_ready(const struct td_daemon *d, const char *tunnel, struct tnl_buf *why)
{
	for (int i = 0; i < d->nroles; i++) {
		const struct td_daemon_role *r = &d->roles[i];
		char text[512] = "";
		int ready = r->row->ready ? r->row->ready(r->self, tunnel, text, sizeof(text)) : -1;
		if (text[0] && ready >= 0)
			tnl_buf_printf(why, "%s\n", text);
		if (ready >= 0)
			return ready;
	}
	return -1;
}

static int check_ready(void *ctx, const char *tunnel, struct tnl_buf *why)
{
	const struct td_daemon *d = ctx;
	bool all = !d->draining;
	if (tunnel)
		return one_tunnel_ready(d, tunnel, why);
	if (d->draining)
		tnl_buf_puts(why, "draining\n");
	for (int i = 0; i < d->nroles; i++) {
		const struct td_daemon_role *r = &d->roles[i];
		char text[512] = "";
		bool ready = !r->row->ready || r->row->ready(r->self, NULL, text, sizeof(text)) > 0;
		if (text[0]) /* also a warning */
			tnl_buf_printf(why, "%s: %s\n", r->row->name, text);
		all = all && ready;
	}
	return all;
}

static void write_status_anew(void *ctx, struct tnl_buf *json)
{
	write_status(ctx, json);
}

static void sample_all(void *ctx, td_sample_fn *fn, void *fn_ctx)
{
	const struct td_daemon *d = ctx;
	for (int i = 0; i < d->nroles; i++)
		if (d->roles[i].row->sample)
			d->roles[i].row->sample(d->roles[i].self, fn, fn_ctx);
}

static struct td_http_source source_of(struct td_daemon *d)
{
	return (struct td_http_source){.metrics = write_metrics,
				       .ready = check_ready,
				       .status = write_status_anew,
				       .sample = sample_all,
				       .ctx = d};
}

static struct td_http *start_http(struct td_daemon *d, char *why, size_t cap)
{
	const struct td_http_source source = source_of(d);
	struct td_http *h = td_http_new(d->loop, d->cfg, &source, d->recent, why, cap);
	td_recent_sample(d->recent, h != NULL);
	return h;
}

/* --- from start to end -------------------------------------------------------------------- */

int td_daemon_record(struct td_daemon *d)
{
	const struct td_http_source source = source_of(d);
	d->recent = td_recent_new(d->loop, &source);
	if (!d->recent)
		td_error("main", NULL, "out of memory");
	return d->recent ? 0 : -1;
}

int td_daemon_serve(struct td_daemon *d)
{
	char why[512] = "";
	if (d->cfg->control_socket) {
		d->control = td_control_new(d->loop, d->state.dir, on_request, d, why, sizeof(why));
		if (!d->control)
			td_warn("main", NULL, "no control socket: %s", why);
		else
			td_control_on_take(d->control, on_take);
	}
	if (d->cfg->nhttp && !(d->http = start_http(d, why, sizeof(why)))) {
		td_error("main", NULL, "http: %s", why);
		return -1;
	}
	return 0;
}

static bool same_addresses(const struct td_config *a, const struct td_config *b)
{
	if (a->nhttp != b->nhttp)
		return false;
	for (int i = 0; i < a->nhttp; i++)
		if (a->http[i].len != b->http[i].len || memcmp(&a->http[i].sa, &b->http[i].sa, a->http[i].len) != 0)
			return false;
	return true;
}

void td_daemon_serve_reload(struct td_daemon *d, const struct td_config *old)
{
	char why[512] = "";
	if (!same_addresses(old, d->cfg) || (d->cfg->nhttp && !d->http)) {
		td_http_free(d->http); /* its addresses may be wanted again */
		td_recent_sample(d->recent, false);
		d->http = d->cfg->nhttp ? start_http(d, why, sizeof(why)) : NULL;
		if (d->cfg->nhttp && !d->http)
			td_error("main", NULL, "http: %s", why);
	}
	if (d->http)
		td_http_set_hosts(d->http, &d->cfg->http_hosts);
}
