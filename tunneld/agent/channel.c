/* How both kinds of channel come up: POST, credentials, WebSocket, token frame. */
#include "tunneld/agent/internal.h"

#include "lib/alloc.h"
#include "lib/crypto.h"
#include "tunneld/base/log.h"

#include <stdio.h>
#include <string.h>

#define OPEN_TIMEOUT (15 * TD_SEC)
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
	if (o->creds)
		td_credentials_cancel(o->creds);
	if (o->link)
		td_wslink_free(o->link);
	o->call = NULL;
	o->creds = NULL;
	o->link = NULL;
	if (o->token)
		tnl_free_wiped(o->token, strlen(o->token));
	o->token = NULL;
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

static void failed(struct ag_open *o, const char *why)
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

/* --- token frame ------------------------------------------------------------------ */

static int send_token(struct ag_open *o)
{
	char request_id[TNL_UUID_STR], version[] = TNL_AGENT_VERSION, platform[] = "linux", empty[] = "";
	struct tnl_open frame = {.token = o->token, .request_id = request_id};
	struct tnl_buf b;
	uint8_t u[16];

	tnl_uuid_new(u);
	tnl_uuid_str(u, request_id);
	if (o->session_id) {
		frame.client_instance_id = o->a->instance_id;
		frame.client_id = empty;
	} else {
		frame.agent_version = version;
		frame.platform_type = platform;
	}
	tnl_buf_init(&b, 32 * 1024);
	int rc = tnl_open_write(&b, &frame);
	if (!rc)
		rc = td_wslink_send(o->link, TNL_WS_TEXT, tnl_buf_data(&b), tnl_buf_len(&b));
	tnl_buf_fini_wiped(&b);
	return rc;
}

static void link_open(void *ctx)
{
	struct ag_open *o = ctx;
	int rc = send_token(o);

	if (rc) {
		failed(o, tnl_err_text(rc));
		return;
	}
	struct td_wslink *w = o->link;
	o->link = NULL;
	finish(o, &(struct ag_open_result){.w = w, .why = ""});
}

static void link_closed(void *ctx, int err, uint16_t code, int http_status, const char *why)
{
	struct ag_open *o = ctx;
	char text[300];
	struct ag_open_result r = {.why = text};

	if (http_status)
		snprintf(text, sizeof(text), "WebSocket refused with HTTP status %d: %s", http_status, why);
	else
		snprintf(text, sizeof(text), "WebSocket: %s", why && *why ? why : tnl_err_text(err));
	r.over = o->session_id && why && strstr(why, OVER_TEXT);
	r.refused = http_status >= 400 && http_status < 500;
	finish(o, &r);
}

static const struct td_wslink_cb dial_cb = {.open = link_open, .closed = link_closed};

static void dial(struct ag_open *o, const struct tnl_sigv4_keys *keys)
{
	const struct td_agent_config *c = ag_cfg(o->a);
	const char *fault = "out of memory", *endpoint = td_aws_endpoint(o->aws, "ssmmessages");
	struct tnl_url u;
	struct tnl_buf url;

	if (tnl_url_parse(endpoint, &u, &fault)) {
		failed(o, fault);
		return;
	}
	tnl_buf_init(&url, 4096);
	tnl_buf_puts(&url, strcmp(u.scheme, "http") == 0 ? "ws" : "wss");
	tnl_buf_puts(&url, strstr(endpoint, "://"));
	put_path(o, &url);
	tnl_buf_puts(&url, o->session_id ? "?role=publish_subscribe" : "?role=subscribe&stream=input");
	const char *text = tnl_buf_str(&url);
	struct td_wslink_opts opts = {
	    .tls = td_aws_tls(o->aws),
	    .proxy = td_aws_proxy(o->aws, u.host),
	    .timeout_ns = OPEN_TIMEOUT,
	    .keys = keys,
	    .region = td_aws_region(o->aws),
	    .service = "ssmmessages",
	    .ping_ns = c->ping_interval_ns,
	    .pong_ns = c->pong_timeout_ns,
	};
	if (text && !url.failed)
		o->link = td_wslink_dial(o->a->loop, text, &opts, &dial_cb, o);
	tnl_buf_fini(&url);
	if (!o->link)
		failed(o, "out of memory");
}

/* --- create call ------------------------------------------------------------------- */

static void on_keys(void *ctx, const struct tnl_sigv4_keys *keys, enum td_credentials_state st, const char *why)
{
	struct ag_open *o = ctx;

	o->creds = NULL;
	if (keys)
		dial(o, keys);
	else
		failed(o, why);
}

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
	if (!r->err && r->status == 201 && !tnl_create_reply_parse(r->body, r->body_len, &o->token)) {
		struct td_credentials_request *req = td_credentials_ask(o->aws, false, on_keys, o);
		if (!req)
			failed(o, "out of memory");
		else
			o->creds = req;
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
	failed(ctx, "out of memory");
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
