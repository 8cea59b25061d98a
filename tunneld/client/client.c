/* A client session: the calls that begin and resume it, its channel, its end.  At any time one thing is under way:
 *
 *   the look-up of its target → call (StartSession, ResumeSession) → link (opening) → the pump's link → lost → retry
 * (the timer's wait) → call …
 *
 * What happens on the session itself is in events.c. */
#include "tunneld/client/internal.h"

#include "lib/alloc.h"
#include "lib/crypto.h"
#include "tunneld/base/log.h"

#include <stdio.h>
#include <string.h>

#define ENDING_NS (500 * TD_MS)
#define ONCE_MORE_NS (50 * TD_MS)

static void call_start(void *arg);
static void call_resume(void *arg);
static void open_link(void *client);

static const char *const state_names[] = {"starting", "connecting", "handshake", "up", "resuming", "ending"};

void td_client_set_state(struct td_client *c, enum td_client_state st)
{
	if (c->state == st)
		return;
	td_debug(MOD, c->grant.session_id, "state old=%s new=%s %-s", state_names[c->state], state_names[st],
		 c->cfg.label);
	c->state = st;
	c->state_at = c->loop->now;
	if (c->cb->changed)
		c->cb->changed(c->ctx, st);
}

static void call_after(struct td_client *c, void (*fn)(void *), uint64_t ns)
{
	c->retry.fn = fn;
	td_timer_in(&c->retry, ns);
}

void td_client_fail(struct td_client *c, int err, const char *type, const char *why)
{
	td_client_set_state(c, TD_CLIENT_ENDING);
	td_timer_stop(&c->retry);
	td_client_direct_stop(c);
	c->cb->failed(c->ctx, err, type, why);
}

void td_client_note(struct td_client *c, const char *what, const char *why)
{
	snprintf(c->last_error, sizeof(c->last_error), "%s%s%s", what, why[0] ? ": " : "", why);
}

void td_client_resume_later(struct td_client *c)
{
	call_after(c, call_resume, td_backoff_next(&c->backoff));
}

/* ---- StartSession ---------------------------------------------------------------- */

/* Errors that the far end's absence explains may be no end: the owner knows. */
static bool owner_waits(struct td_client *c, int err, const char *type)
{
	return c->cb->unreachable && c->cb->unreachable(c->ctx, err, type);
}

/* What breaks the way to the gateway breaks the owner's other sessions as well, but he may hear of those a moment
 * later: before the first failure counts it is tried once more. */
static bool try_once_more(struct td_client *c, void (*fn)(void *), const char *what, const char *why)
{
	if (!c->cb->unreachable || c->tried_once_more)
		return false;
	c->tried_once_more = true;
	td_debug(MOD, c->grant.session_id, "%s is tried once more %-s error=\"%s\"", what, c->cfg.label, why);
	call_after(c, fn, ONCE_MORE_NS);
	return true;
}

static bool check_grant(struct td_client *c)
{
	const char *fault = NULL;
	char why[300];

	if (!td_aws_stream_url_ok(c->cfg.aws, c->grant.stream_url, &fault)) {
		snprintf(why, sizeof(why), "StreamUrl refused: %s (allow its host with stream_hosts)", fault);
		td_client_fail(c, TNL_EREFUSED, "", why);
		return false;
	}
	if (!td_client_make_pump(c)) {
		td_client_fail(c, TNL_ENOMEM, "", "out of memory");
		return false;
	}
	return true;
}

static void begin_link(void *arg)
{
	struct td_client *c = arg;
	if (!check_grant(c))
		return;
	td_client_set_state(c, TD_CLIENT_CONNECTING);
	open_link(c);
}

void td_client_start_refused(struct td_client *c, const char *what, const struct td_aws_reply *r)
{
	char why[512];
	bool offline = strcmp(r->type, "TargetNotConnected") == 0;
	bool away = r->err == TNL_EUNREACH || r->err == TNL_ETIMEOUT || r->err == TNL_EPROTO || offline;

	c->needs_login = r->err == TNL_EAUTH && r->cred == TD_CREDENTIALS_NEEDS_LOGIN;
	if (offline && td_client_find_next(c))
		return;
	if (td_aws_throttled(r->type) || (r->status >= 500 && !away) || (away && owner_waits(c, r->err, r->type))) {
		td_client_note(c, r->type[0] ? r->type : what, r->text ? r->text : "");
		td_warn(MOD, NULL, "%s will be tried again %-s error=\"%s\" text=\"%s\"", what, c->cfg.label,
			r->type[0] ? r->type : tnl_err_text(r->err), r->text ? r->text : "");
		call_after(c, call_start, td_backoff_next(&c->backoff));
		if (c->cb->delayed)
			c->cb->delayed(c->ctx, c->last_error);
		return;
	}
	if (r->err == TNL_EUNREACH && try_once_more(c, call_start, what, r->text ? r->text : ""))
		return;
	const char *text = r->text ? r->text : "";
	size_t n = strlen(text);
	if (offline && n && text[n - 1] == '.') /* the sentence goes on */
		n--;
	snprintf(why, sizeof(why), "%s: %s%s%.*s%s", what, r->type[0] ? r->type : tnl_err_text(r->err), n ? ": " : "",
		 (int)n, text, offline ? "; does the agent of the target run, and reach the same endpoint?" : "");
	td_client_fail(c, r->err, r->type, why);
}

static void on_started(void *ctx, const struct td_aws_reply *r)
{
	struct td_client *c = ctx;

	c->call = NULL;
	c->needs_login = false;
	if (c->state == TD_CLIENT_ENDING) { /* meanwhile nobody wants it: only its id, so that it can be ended */
		if (!r->err && td_session_grant_parse(r->json, &c->grant) == 0 && c->cb->granted)
			c->cb->granted(c->ctx, c->grant.session_id);
		td_client_tell_ended(c);
		return;
	}
	if (r->err) {
		td_client_start_refused(c, "StartSession", r);
		return;
	}
	if (td_session_grant_parse(r->json, &c->grant) < 0 || !c->grant.token || !c->grant.token[0] ||
	    !c->grant.stream_url) {
		td_client_fail(c, TNL_ESYNTAX, "", "StartSession: the answer lacks SessionId, TokenValue or StreamUrl");
		return;
	}
	td_info(MOD, c->grant.session_id, "session started %-s target=%s", c->cfg.label, c->find.id);
	if (c->cb->granted)
		c->cb->granted(c->ctx, c->grant.session_id);
	begin_link(c);
}

void td_client_start_session(struct td_client *c)
{
	struct tnl_buf b;

	tnl_buf_init(&b, 64 * 1024);
	if (td_start_session_body(&b, c->find.id, c->cfg.document, c->cfg.host, c->cfg.port, c->cfg.local_port,
				  c->cfg.reason, c->cfg.command) == 0)
		c->call = td_aws_json(c->cfg.aws, "ssm", "AmazonSSM.StartSession", (const char *)tnl_buf_data(&b),
				      tnl_buf_len(&b), 1, on_started, c);
	tnl_buf_fini(&b);
	if (!c->call)
		td_client_fail(c, TNL_ENOMEM, "", "out of memory");
}

static void call_start(void *client)
{
	td_client_find(client);
}

/* ---- the data channel ------------------------------------------------------------- */

static void link_failed(struct td_client *c, const char *why, bool network)
{
	if (!c->was_linked && !owner_waits(c, TNL_EUNREACH, "")) {
		char text[300];
		if (network && try_once_more(c, open_link, "the data channel", why))
			return;
		snprintf(text, sizeof(text), "data channel: %s", why);
		td_client_fail(c, TNL_EUNREACH, "", text);
		return;
	}
	if (!td_client_direct_carries(c) && !(c->was_linked && td_pump_links(c->pump)))
		td_client_set_state(c, TD_CLIENT_RESUMING);
	td_client_note(c, "data channel", why);
	td_warn(MOD, c->grant.session_id, "data channel could not be opened, trying again %-s error=\"%s\"",
		c->cfg.label, why);
	td_client_resume_later(c);
}

static void link_up(struct td_client *c, struct td_wslink *w)
{
	c->link_up_at = c->loop->now;
	c->progress = td_pump_progress(c->pump);
	c->last_error[0] = '\0';
	if (c->was_linked && td_pump_links(c->pump))
		td_info(MOD, c->grant.session_id, "main link is back %-s links=%u", c->cfg.label,
			td_pump_links(c->pump) + 1);
	else if (c->was_linked)
		td_info(MOD, c->grant.session_id, "session resumed %-s resumes=%u", c->cfg.label, ++c->resumes);
	c->was_linked = true;
	td_pump_attach(c->pump, w);
	bool waits = c->cfg.session.direct == TNL_DIRECT_ONLY && !td_client_direct_carries(c);
	if (!c->was_ready)
		td_client_set_state(c, TD_CLIENT_HANDSHAKE);
	else if (!waits)
		td_client_set_state(c, TD_CLIENT_UP);
}

static void on_link(void *ctx, const struct td_channel_link_result *r)
{
	struct td_client *c = ctx;
	char text[256], status[32] = "";

	c->link = NULL;
	if (r->w) {
		link_up(c, r->w);
		return;
	}
	if (r->http_status)
		snprintf(status, sizeof(status), " (HTTP status %d)", r->http_status);
	snprintf(text, sizeof(text), "%s%s", r->why, status);
	link_failed(c, text, r->dialed && !r->http_status);
}

static void open_link(void *client)
{
	struct td_client *c = client;
	char version[] = TNL_CLIENT_VERSION;
	struct tnl_open open = {.token = c->grant.token, .client_id = c->client_id, .client_version = version};
	char *url = td_aws_stream_route(c->cfg.aws, c->grant.stream_url);
	struct td_channel_link_opts o = {.url = url,
					 .never_sign = c->cfg.never_sign,
					 .open = &open,
					 .ping_ns = c->cfg.ping_ns,
					 .pong_ns = c->cfg.pong_ns};

	c->link = url ? td_channel_link_open(c->cfg.aws, &o, on_link, c) : NULL;
	tnl_free(url);
	if (!c->link)
		link_failed(c, "out of memory", false);
}

/* ---- ResumeSession ------------------------------------------------------------------- */

/* Streams first: their pipes are reset with the reason before the pump goes. */
static void session_over(struct td_client *c, int err, const char *why)
{
	tnl_session_abort(td_pump_session(c->pump), err, why, c->loop->now);
	td_pump_kick(c->pump);
}

static void take_grant(struct td_client *c, struct td_session_grant *g)
{
	tnl_free(g->session_id); /* ours stays */
	g->session_id = c->grant.session_id;
	c->grant.session_id = NULL;
	if (!g->stream_url) {
		g->stream_url = c->grant.stream_url;
		c->grant.stream_url = NULL;
	}
	td_session_grant_fini(&c->grant);
	c->grant = *g;
}

static void on_resumed(void *ctx, const struct td_aws_reply *r)
{
	struct td_client *c = ctx;
	struct td_session_grant g = {0};
	const char *fault = NULL;

	c->call = NULL;
	c->needs_login = r->err == TNL_EAUTH && r->cred == TD_CREDENTIALS_NEEDS_LOGIN;
	if (r->err == TNL_EREFUSED && strcmp(r->type, "DoesNotExistException") == 0) {
		session_over(c, TNL_ECLOSED, "the session does not exist any more");
		return;
	}
	if (r->err) {
		td_client_note(c, r->type[0] ? r->type : "ResumeSession", r->text ? r->text : "");
		td_warn(MOD, c->grant.session_id, "ResumeSession failed, trying again %-s error=\"%s\" text=\"%s\"",
			c->cfg.label, r->type[0] ? r->type : tnl_err_text(r->err), r->text ? r->text : "");
		td_client_resume_later(c);
		return;
	}
	if (td_session_grant_parse(r->json, &g) < 0 || !g.token || !g.token[0]) {
		td_session_grant_fini(&g);
		session_over(c, TNL_ECLOSED,
			     c->was_ready ? "the session has timed out or was ended"
					  : "the far end ended the session before it began; its log says why");
		return;
	}
	if (g.stream_url && !td_aws_stream_url_ok(c->cfg.aws, g.stream_url, &fault)) {
		td_session_grant_fini(&g);
		session_over(c, TNL_EREFUSED, "ResumeSession gave a StreamUrl that is refused (see stream_hosts)");
		return;
	}
	take_grant(c, &g);
	open_link(c);
}

static void call_resume(void *arg)
{
	struct td_client *c = arg;

	c->call = td_session_call(c->cfg.aws, "AmazonSSM.ResumeSession", c->grant.session_id, 1, on_resumed, c);
	if (!c->call)
		td_client_resume_later(c);
}

/* ---- the object ---------------------------------------------------------------------------------- */

static char *dup_or_null(const char *s)
{
	return s ? tnl_strdup(s) : NULL;
}

static bool copy_command(struct td_client *c, const char *const *command)
{
	size_t n = 0;
	while (command && command[n])
		n++;
	char **v = tnl_calloc(n + 1, sizeof(*v));
	if (!v)
		return false;
	for (size_t i = 0; i < n; i++)
		v[i] = tnl_strdup(command[i]);
	c->cfg.command = n ? (const char *const *)v : NULL;
	if (!n)
		tnl_free(v);
	return true;
}

static void client_free(void *arg)
{
	struct td_client *c = arg;
	for (size_t i = 0; c->cfg.command && c->cfg.command[i]; i++)
		tnl_free((char *)(uintptr_t)c->cfg.command[i]);
	tnl_free((void *)(uintptr_t)c->cfg.command);
	tnl_free((char *)(uintptr_t)c->cfg.label);
	tnl_free((char *)(uintptr_t)c->cfg.target);
	tnl_free((char *)(uintptr_t)c->cfg.document);
	tnl_free((char *)(uintptr_t)c->cfg.host);
	tnl_free((char *)(uintptr_t)c->cfg.reason);
	tnl_free((char *)(uintptr_t)c->cfg.session.expected_type);
	td_aws_free(c->cfg.aws);
	td_session_grant_fini(&c->grant);
	tnl_free(c);
}

struct td_client *td_client_new(struct td_loop *l, const struct td_client_config *cfg, const struct td_client_cb *cb,
				void *ctx)
{
	uint8_t u[16];
	struct td_client *c = tnl_calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->loop = l;
	c->cb = cb;
	c->ctx = ctx;
	c->cfg = *cfg;
	c->cfg.aws = td_aws_ref(cfg->aws);
	c->cfg.label = tnl_strdup(cfg->label ? cfg->label : "");
	c->cfg.target = dup_or_null(cfg->target);
	c->cfg.document = dup_or_null(cfg->document);
	c->cfg.host = dup_or_null(cfg->host);
	c->cfg.reason = dup_or_null(cfg->reason);
	c->cfg.session.expected_type = dup_or_null(cfg->session.expected_type);
	c->cfg.command = NULL;
	c->cfg.grant = NULL;
	td_timer_init(&c->retry, l, NULL, c);
	td_client_direct_init(c);
	td_client_links_init(c);
	td_backoff_init(&c->backoff, cfg->reconnect_min_ns, cfg->reconnect_max_ns);
	c->started_at = c->state_at = l->now;
	tnl_uuid_new(u);
	tnl_uuid_str(u, c->client_id);
	if (!copy_command(c, cfg->command) || !c->cfg.label) {
		client_free(c);
		return NULL;
	}
	if (cfg->grant) {
		snprintf(c->find.id, sizeof(c->find.id), "%s", cfg->target ? cfg->target : "");
		c->grant.session_id = dup_or_null(cfg->grant->session_id);
		c->grant.token = dup_or_null(cfg->grant->token);
		c->grant.stream_url = dup_or_null(cfg->grant->stream_url);
	}
	/* From the loop, so that nobody is called back from inside the call. */
	call_after(c, cfg->grant ? begin_link : call_start, 0);
	return c;
}

/* Whatever would come back to us later. */
static void drop_work(struct td_client *c, bool keep_call)
{
	td_timer_stop(&c->retry);
	td_client_direct_stop(c);
	if (c->call && !keep_call) {
		td_aws_call_cancel(c->call);
		c->call = NULL;
	}
	td_client_find_cancel(c);
	if (c->kms)
		td_aws_call_cancel(c->kms);
	td_channel_link_cancel(c->link);
	td_client_links_cancel(c);
	c->kms = NULL;
	c->link = NULL;
}

void td_client_free(struct td_client *c)
{
	if (!c)
		return;
	drop_work(c, false);
	td_pump_free(c->pump);
	td_loop_defer(c->loop, client_free, c);
}

void td_client_end(struct td_client *c)
{
	if (c->state == TD_CLIENT_ENDING)
		return;
	bool linked = c->pump && td_pump_links(c->pump);
	/* A StartSession that is under way may be granted all the same: its answer is waited for. */
	bool starting = c->state == TD_CLIENT_STARTING && c->call;
	td_client_set_state(c, TD_CLIENT_ENDING);
	drop_work(c, starting);
	if (linked) { /* the flag ends it where the API call is not allowed, and sooner */
		tnl_session_send_flag(td_pump_session(c->pump), TNL_FLAG_TERMINATE, c->loop->now);
		td_pump_kick(c->pump);
	}
	call_after(c, td_client_tell_ended, linked || starting ? ENDING_NS : 0);
}

enum td_client_state td_client_state(const struct td_client *c)
{
	return c->state;
}

uint64_t td_client_state_since(const struct td_client *c)
{
	return c->state_at;
}

const char *td_client_state_name(const struct td_client *c)
{
	return c->needs_login ? "needs-login" : state_names[c->state];
}

bool td_client_was_ready(const struct td_client *c)
{
	return c->was_ready;
}

struct td_pump *td_client_pump(const struct td_client *c)
{
	return c->pump;
}

const char *td_client_session_id(const struct td_client *c)
{
	return c->grant.session_id;
}

const char *td_client_target(const struct td_client *c)
{
	return c->find.id[0] ? c->find.id : NULL;
}

unsigned td_client_resumes(const struct td_client *c)
{
	return c->resumes;
}

const char *td_client_last_error(const struct td_client *c)
{
	return c->last_error;
}

uint64_t td_client_started_at(const struct td_client *c)
{
	return c->started_at;
}

void td_client_renew(struct td_client *c, struct td_aws *aws)
{
	struct td_aws *old = c->cfg.aws;

	c->cfg.aws = td_aws_ref(aws);
	td_aws_free(old);
	bool waits = c->state == TD_CLIENT_RESUMING || c->state == TD_CLIENT_STARTING;
	if (!waits || c->call || c->link || c->retry.at == UINT64_MAX) /* only what waits is hurried */
		return;
	td_backoff_init(&c->backoff, c->cfg.reconnect_min_ns, c->cfg.reconnect_max_ns);
	td_timer_in(&c->retry, 0);
}

void td_client_ping(struct td_client *c)
{
	if (c->pump)
		td_pump_ping(c->pump);
}
