/* How both kinds of channel come up: POST, credentials, WebSocket, token frame. */
#include "tunneld/agent/internal.h"

#include "lib/alloc.h"
#include "lib/crypto.h"
#include "tunneld/base/log.h"

#include <stdio.h>
#include <string.h>

#define OVER_TEXT "Session is already terminated"

static void fail_for_memory(void *ctx);

void ag_open_init(struct ag_open *o, struct td_agent *a, const char *session_id, ag_open_fn *fn, void *ctx)
{
	*o = (struct ag_open){.a = a, .session_id = session_id, .fn = fn, .ctx = ctx};
	td_soon_init(&o->no_memory, a->loop, fail_for_memory, o);
}

void ag_open_cancel(struct ag_open *o)
{
	if (o->call)
		td_aws_call_cancel(o->call);
	td_channel_link_cancel(o->link);
	o->call = NULL;
	o->link = NULL;
	td_aws_free(o->aws);
	o->aws = NULL;
	td_soon_cancel(&o->no_memory);
	o->busy = false;
}

static void finish(struct ag_open *o, const struct ag_open_result *r)
{
	ag_open_cancel(o);
	o->fn(o->ctx, r);
}

static void fail(struct ag_open *o, const char *why)
{
	/* `why` may lie in what cancel frees. */
	char text[300];
	snprintf(text, sizeof(text), "%s", why);
	finish(o, &(struct ag_open_result){.why = text});
}

static const char *kind(const struct ag_open *o)
{
	return o->session_id ? "data-channel" : "control-channel";
}

/* "/v1/data-channel/<id>"; what a path may hold as it is stays readable. */
static int put_path(const struct ag_open *o, struct tnl_buf *b)
{
	const char *id = o->session_id ? o->session_id : o->a->instance_id;

	tnl_buf_printf(b, "/v1/%s/", kind(o));
	for (; *id; id++)
		if (*id == '@' || *id == '+' || *id == '=' || *id == ',')
			tnl_buf_putc(b, *id);
		else
			tnl_uri_encode(b, id, 1, false);
	return b->failed ? TNL_ENOMEM : 0;
}

/* --- the link ------------------------------------------------------------------- */

static void on_link(void *ctx, const struct td_channel_link_result *l)
{
	struct ag_open *o = ctx;
	char text[300];
	struct ag_open_result r = {.w = l->w, .why = text};

	o->link = NULL;
	if (l->http_status)
		snprintf(text, sizeof(text), "WebSocket refused with HTTP status %d: %s", l->http_status, l->why);
	else
		snprintf(text, sizeof(text), "%s%s", l->dialed ? "WebSocket: " : "", l->why);
	r.over = o->session_id && l->dialed && strstr(l->why, OVER_TEXT);
	r.refused = l->http_status >= 400 && l->http_status < 500;
	finish(o, &r);
}

/* NULL: it does not fit. */
static const char *channel_url(struct ag_open *o, struct tnl_buf *url)
{
	const char *endpoint = td_aws_endpoint(o->aws, "ssmmessages"), *rest = strstr(endpoint, "://");

	tnl_buf_puts(url, strncmp(endpoint, "http:", 5) == 0 ? "ws" : "wss");
	tnl_buf_puts(url, rest ? rest : "");
	put_path(o, url);
	tnl_buf_puts(url, o->session_id ? "?role=publish_subscribe" : "?role=subscribe&stream=input");
	return url->failed ? NULL : tnl_buf_str(url);
}

static void open_link(struct ag_open *o, char *token)
{
	char version[] = TNL_AGENT_VERSION, platform[] = "linux", empty[] = "";
	struct tnl_open data = {.token = token, .client_instance_id = o->a->instance_id, .client_id = empty};
	struct tnl_open control = {.token = token, .agent_version = version, .platform_type = platform};
	struct tnl_buf url;

	tnl_buf_init(&url, 4096);
	struct td_channel_link_opts opts = {.url = channel_url(o, &url),
					    .must_sign = true,
					    .open = o->session_id ? &data : &control,
					    .ping_ns = ag_cfg(o->a)->ping_interval_ns,
					    .pong_ns = ag_cfg(o->a)->pong_timeout_ns};
	if (opts.url)
		o->link = td_channel_link_open(o->aws, &opts, on_link, o);
	tnl_buf_fini(&url);
	if (!o->link)
		fail(o, "out of memory");
}

/* --- create call ------------------------------------------------------------------- */

/* The create call's reason in one line; an error's body is XML or JSON and says why. The body
 * of anything else is not shown: it could hold a token. */
static void describe(const struct td_aws_reply *r, char *out, size_t cap)
{
	bool text = r->text && *r->text, body = !text && r->status >= 400 && r->body;
	size_t n = text ? strlen(r->text) : body ? r->body_len : 0;

	if (r->err && r->err != TNL_EREFUSED)
		snprintf(out, cap, "%s: %s", tnl_err_text(r->err), text ? r->text : "");
	else
		snprintf(out, cap, "HTTP status %d%s%s%s%.*s", r->status, r->type[0] ? " " : "", r->type, n ? ": " : "",
			 (int)(n < 160 ? n : 160),
			 text	? r->text
			 : body ? (const char *)r->body
				: "");
}

static bool says(const struct td_aws_reply *r, const char *what)
{
	return (r->body && memmem(r->body, r->body_len, what, strlen(what))) || (r->text && strstr(r->text, what));
}

static void on_created(void *ctx, const struct td_aws_reply *r)
{
	struct ag_open *o = ctx;
	char text[300];
	struct ag_open_result res = {.why = text};

	o->call = NULL;
	char *token = NULL;
	if (!r->err && r->status == 201 && tnl_create_reply_parse(r->body, r->body_len, &token) == 0) {
		open_link(o, token);
		tnl_free_wiped(token, strlen(token));
		return;
	}
	if (!r->err && r->status == 201)
		snprintf(text, sizeof(text), "the response has no token");
	else
		describe(r, text, sizeof(text));
	res.over = o->session_id && says(r, OVER_TEXT);
	res.refused =
	    (r->err == TNL_EREFUSED || r->err == TNL_EAUTH) && r->status >= 400 && r->status < 500 && r->status != 429;
	finish(o, &res);
}

static void fail_for_memory(void *ctx)
{
	fail(ctx, "out of memory");
}

void ag_open_start(struct ag_open *o)
{
	char request_id[TNL_UUID_STR];
	struct tnl_buf path, body;
	uint8_t u[16];

	o->busy = true;
	o->aws = td_aws_ref(o->a->aws);
	tnl_uuid_new(u);
	tnl_uuid_str(u, request_id);
	tnl_buf_init(&path, 2048);
	tnl_buf_init(&body, 2048);
	put_path(o, &path);
	tnl_create_write(&body, request_id, o->session_id ? "" : NULL);
	const char *text = tnl_buf_str(&path);
	if (text && !path.failed && !body.failed)
		o->call = td_aws_post(o->aws, "ssmmessages", text, (const char *)tnl_buf_data(&body),
				      tnl_buf_len(&body), on_created, o);
	tnl_buf_fini(&path);
	tnl_buf_fini(&body);
	if (!o->call)
		td_soon_do(&o->no_memory);
}
