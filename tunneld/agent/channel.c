/* How both kinds of channel come up: the create call, which gives a token, then credentials, WebSocket and token frame
 * (aws/channel_link.c).  What failed is told apart by what the caller has to do about it: try again, or not. */
#include "tunneld/agent/internal.h"

#include "lib/alloc.h"
#include "lib/num.h"
#include "lib/crypto.h"

#include <stdio.h>
#include <string.h>

#define OVER_TEXT "Session is already terminated"

void ag_channel_cancel(struct ag_channel *c)
{
	if (c->call)
		td_aws_call_cancel(c->call);
	td_channel_link_cancel(c->link);
	c->call = NULL;
	c->link = NULL;
	td_aws_free(c->aws);
	c->aws = NULL;
	td_soon_cancel(&c->no_memory);
}

static void finish_open(struct ag_channel *c, const struct ag_channel_result *r)
{
	ag_channel_cancel(c);
	c->fn(c->ctx, r);
}

static void fail_open(struct ag_channel *c, const char *why)
{
	/* `why` may lie in what cancel frees. */
	char text[300];
	snprintf(text, sizeof(text), "%s", why);
	finish_open(c, &(struct ag_channel_result){.why = text});
}

static const char *channel_kind(const struct ag_channel *c)
{
	return c->session_id ? "data-channel" : "control-channel";
}

/* "/v1/data-channel/<id>"; what a path may hold as it is stays readable. */
static int put_path(const struct ag_channel *c, struct tnl_buf *b)
{
	const char *id = c->session_id ? c->session_id : c->a->instance_id;

	tnl_buf_printf(b, "/v1/%s/", channel_kind(c));
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
	struct ag_channel *c = ctx;
	char text[300];
	struct ag_channel_result r = {.w = l->w, .why = text};

	c->link = NULL;
	if (l->http_status)
		snprintf(text, sizeof(text), "WebSocket refused with HTTP status %d: %s", l->http_status, l->why);
	else
		snprintf(text, sizeof(text), "%s%s", l->dialed ? "WebSocket: " : "", l->why);
	r.over = c->session_id && l->dialed && strstr(l->why, OVER_TEXT);
	r.refused = l->http_status >= 400 && l->http_status < 500;
	finish_open(c, &r);
}

/* NULL: it does not fit. */
static const char *channel_url(struct ag_channel *c, struct tnl_buf *url)
{
	const char *rest = strstr(c->at, "://");

	tnl_buf_puts(url, strncmp(c->at, "http:", 5) == 0 ? "ws" : "wss");
	tnl_buf_puts(url, rest ? rest : "");
	put_path(c, url);
	tnl_buf_puts(url, c->session_id ? "?role=publish_subscribe" : "?role=subscribe&stream=input");
	return url->failed ? NULL : tnl_buf_str(url);
}

static void open_link(struct ag_channel *c, char *token)
{
	char version[] = TNL_AGENT_VERSION, platform[] = "linux", empty[] = "";
	struct tnl_open data = {.token = token, .client_instance_id = c->a->instance_id, .client_id = empty};
	struct tnl_open control = {.token = token, .agent_version = version, .platform_type = platform};
	struct tnl_buf url;

	tnl_buf_init(&url, 4096);
	struct td_channel_link_opts opts = {.url = channel_url(c, &url),
					    .must_sign = true,
					    .open = c->session_id ? &data : &control,
					    .ping_ns = ag_cfg(c->a)->ping_interval_ns,
					    .pong_ns = ag_cfg(c->a)->pong_timeout_ns};
	if (opts.url)
		c->link = td_channel_link_open(c->aws, &opts, on_link, c);
	tnl_buf_fini(&url);
	if (!c->link)
		fail_open(c, "out of memory");
}

/* --- create call ------------------------------------------------------------------- */

/* The create call's reason in one line; an error's body is XML or JSON and says why. The body
 * of anything else is not shown: it could hold a token. */
static void describe_reply(const struct td_aws_reply *r, char *out, size_t cap)
{
	bool text = r->text && *r->text, body = !text && r->status >= 400 && r->body;
	size_t n = text ? strlen(r->text) : body ? r->body_len : 0;

	if (r->err && r->err != TNL_EREFUSED)
		snprintf(out, cap, "%s: %s", tnl_err_text(r->err), text ? r->text : "");
	else
		snprintf(out, cap, "HTTP status %d%s%s%s%.*s", r->status, r->type[0] ? " " : "", r->type, n ? ": " : "",
			 (int)TNL_MIN(n, (size_t)160),
			 text	? r->text
			 : body ? (const char *)r->body
				: "");
}

static bool reply_says(const struct td_aws_reply *r, const char *what)
{
	return (r->body && memmem(r->body, r->body_len, what, strlen(what))) || (r->text && strstr(r->text, what));
}

static void on_created(void *ctx, const struct td_aws_reply *r)
{
	struct ag_channel *c = ctx;
	char text[300];
	struct ag_channel_result res = {.why = text};

	c->call = NULL;
	char *token = NULL;
	if (r->endpoint)
		snprintf(c->at, sizeof(c->at), "%s", r->endpoint);
	if (!r->err && r->status == 201 && tnl_create_reply_parse(r->body, r->body_len, &token) == 0) {
		open_link(c, token);
		tnl_free_wiped(token, strlen(token));
		return;
	}
	if (!r->err && r->status == 201)
		snprintf(text, sizeof(text), "the response has no token");
	else
		describe_reply(r, text, sizeof(text));
	res.over = c->session_id && reply_says(r, OVER_TEXT);
	res.refused =
	    (r->err == TNL_EREFUSED || r->err == TNL_EAUTH) && r->status >= 400 && r->status < 500 && r->status != 429;
	finish_open(c, &res);
}

static void fail_for_memory(void *ctx)
{
	fail_open(ctx, "out of memory");
}

void ag_channel_init(struct ag_channel *c, struct td_agent *a, const char *session_id, ag_channel_fn *fn, void *ctx)
{
	*c = (struct ag_channel){.a = a, .session_id = session_id, .fn = fn, .ctx = ctx};
	td_soon_init(&c->no_memory, a->loop, fail_for_memory, c);
}

void ag_channel_open(struct ag_channel *c)
{
	char request_id[TNL_UUID_STR];
	struct tnl_buf path, body;
	uint8_t u[16];

	c->aws = td_aws_ref(c->a->aws);
	tnl_uuid_new(u);
	tnl_uuid_str(u, request_id);
	tnl_buf_init(&path, 2048);
	tnl_buf_init(&body, 2048);
	put_path(c, &path);
	tnl_create_write(&body, request_id, c->session_id ? "" : NULL, c->link_number);
	const char *text = tnl_buf_str(&path);
	if (text && !path.failed && !body.failed)
		c->call = td_aws_post(c->aws, "ssmmessages", text, (const char *)tnl_buf_data(&body),
				      tnl_buf_len(&body), on_created, c);
	tnl_buf_fini(&path);
	tnl_buf_fini(&body);
	if (!c->call)
		td_soon_do(&c->no_memory);
}
