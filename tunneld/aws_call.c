/* Signed calls. */
#include "tunneld/aws_int.h"

#include "lib/alloc.h"
#include "tunneld/loop.h"

#include <stdio.h>
#include <string.h>

struct td_aws_call {
	struct td_aws *aws;
	char service[24], target[96], path[512];
	struct tnl_buf body;
	int attempts;
	struct td_creds_req *creds;
	struct td_httpc *http;
	struct td_timer retry;
	struct td_backoff backoff;
	td_aws_fn *fn;
	void *ctx;
};

static void try_call(void *arg);

static void call_free(void *arg)
{
	struct td_aws_call *c = arg;
	td_aws_free(c->aws);
	tnl_buf_fini(&c->body);
	tnl_free(c);
}

void td_aws_call_cancel(struct td_aws_call *c)
{
	if (!c)
		return;
	td_timer_stop(&c->retry);
	if (c->creds)
		td_creds_cancel(c->creds);
	if (c->http)
		td_httpc_cancel(c->http);
	td_loop_defer(c->aws->loop, call_free, c);
}

static void answer(struct td_aws_call *c, const struct td_aws_reply *r)
{
	c->fn(c->ctx, r);
	td_loop_defer(c->aws->loop, call_free, c);
}

static void api_error(const struct tnl_json *j, struct td_aws_reply *r)
{
	const char *t = tnl_json_str(tnl_json_iget(j, "__type"));
	const char *hash = t ? strrchr(t, '#') : NULL;
	snprintf(r->type, sizeof r->type, "%s", hash ? hash + 1 : t ? t : "");
	r->text = tnl_json_str(tnl_json_iget(j, "message"));
}

static void on_http(void *ctx, const struct td_http_response *h)
{
	struct td_aws_call *c = ctx;
	struct td_aws_reply r = { .status = h->status, .body = h->body, .body_len = h->body_len, .text = "" };

	c->http = NULL;
	struct tnl_json *j = !h->err && h->body_len ? tnl_json_parse(h->body, h->body_len) : NULL;
	r.json = j;
	if (h->err) {
		r.err = h->err == TNL_ETIMEOUT ? TNL_ETIMEOUT : TNL_EUNREACH;
		r.text = h->why;
	} else if (h->status >= 300) {
		r.err = TNL_EREFUSED;
		api_error(j, &r);
		if (!strcmp(r.type, "UnrecognizedClientException") || !strcmp(r.type, "InvalidSignatureException") ||
		    !strcmp(r.type, "ExpiredTokenException"))
			r.err = TNL_EAUTH;
	}
	bool again = h->err || h->status >= 500 || !strncmp(r.type, "Throttl", 7);
	if (again && --c->attempts > 0)
		td_timer_in(&c->retry, td_backoff_next(&c->backoff));
	else
		answer(c, &r);
	tnl_json_free(j);
}

static void on_keys(void *ctx, const struct tnl_sigv4_keys *k, enum td_cred_state st, const char *why)
{
	struct td_aws_call *c = ctx;
	const char *h[2][2] = { { "Content-Type", c->target[0] ? "application/x-amz-json-1.1" : "application/json" },
				{ "X-Amz-Target", c->target } };
	char url[1024];
	struct tnl_url u;
	const char *fault;

	c->creds = NULL;
	if (!k) {
		answer(c, &(struct td_aws_reply){ .err = TNL_EAUTH, .text = why });
		return;
	}
	snprintf(url, sizeof url, "%s%s", td_aws_endpoint(c->aws, c->service), c->path);
	if (tnl_url_parse(url, &u, &fault) < 0) {
		answer(c, &(struct td_aws_reply){ .err = TNL_EUNREACH, .text = fault });
		return;
	}
	struct td_http_opts o = { .tls = td_aws_tls(c->aws), .proxy = td_aws_proxy(c->aws, u.host) };
	c->http = td_http_signed(c->aws->loop, "POST", url, h, c->target[0] ? 2 : 1, tnl_buf_data(&c->body), tnl_buf_len(&c->body), k,
				 c->aws->region, c->service, &o, on_http, c);
	if (!c->http)
		answer(c, &(struct td_aws_reply){ .err = TNL_EUNREACH, .text = "request could not be made" });
}

static void try_call(void *arg)
{
	struct td_aws_call *c = arg;
	c->creds = td_aws_creds(c->aws, false, on_keys, c);
}

static struct td_aws_call *call_new(struct td_aws *a, const char *service, const char *target, const char *path, const char *body,
				    size_t len, int attempts, td_aws_fn *fn, void *ctx)
{
	struct td_aws_call *c = tnl_calloc(1, sizeof *c);
	if (!c)
		return NULL;
	c->aws = td_aws_ref(a);
	snprintf(c->service, sizeof c->service, "%s", service);
	snprintf(c->target, sizeof c->target, "%s", target);
	snprintf(c->path, sizeof c->path, "%s", path);
	tnl_buf_init(&c->body, 1 << 20);
	tnl_buf_put(&c->body, body, len);
	c->attempts = attempts;
	c->fn = fn;
	c->ctx = ctx;
	td_timer_init(&c->retry, a->loop, try_call, c);
	td_backoff_init(&c->backoff, 100 * TD_MS, 5 * TD_SEC);
	try_call(c);
	return c;
}

struct td_aws_call *td_aws_json(struct td_aws *a, const char *service, const char *target, const char *body, size_t len, int attempts,
				td_aws_fn *fn, void *ctx)
{
	return call_new(a, service, target, "/", body, len, attempts, fn, ctx);
}

struct td_aws_call *td_aws_post(struct td_aws *a, const char *service, const char *path, const char *body, size_t len, td_aws_fn *fn,
				void *ctx)
{
	return call_new(a, service, "", path, body, len, 1, fn, ctx);
}

/* ---- the session calls ----------------------------------------------------------- */

void td_session_grant_fini(struct td_session_grant *g)
{
	tnl_free(g->session_id);
	if (g->token)
		tnl_free_wiped(g->token, strlen(g->token));
	tnl_free(g->stream_url);
	memset(g, 0, sizeof *g);
}

static char *dup_of(const struct tnl_json *j, const char *key)
{
	const char *s = tnl_json_get_str(j, key);
	return s ? tnl_strdup(s) : NULL;
}

int td_session_grant_parse(const struct tnl_json *j, struct td_session_grant *g)
{
	memset(g, 0, sizeof *g);
	g->session_id = dup_of(j, "SessionId");
	g->token = dup_of(j, "TokenValue");
	g->stream_url = dup_of(j, "StreamUrl");
	return g->session_id ? 0 : TNL_ESYNTAX;
}

static void one(struct tnl_jw *w, const char *key, const char *value)
{
	tnl_jw_key(w, key);
	tnl_jw_arr(w);
	tnl_jw_str(w, value);
	tnl_jw_end_arr(w);
}

int td_start_session_body(struct tnl_buf *b, const char *target, const char *document, const char *host, uint16_t port,
			  uint16_t local_port, const char *reason, const char *const *command)
{
	struct tnl_jw w;
	char num[8];

	tnl_jw_init(&w, b);
	tnl_jw_obj(&w);
	tnl_jw_kv(&w, "Target", target);
	if (!document && port)
		document = host ? "AWS-StartPortForwardingSessionToRemoteHost" : "AWS-StartPortForwardingSession";
	if (document)
		tnl_jw_kv(&w, "DocumentName", document);
	if (port || command) {
		tnl_jw_key(&w, "Parameters");
		tnl_jw_obj(&w);
		if (host)
			one(&w, "host", host);
		if (port) {
			snprintf(num, sizeof num, "%u", port);
			one(&w, "portNumber", num);
		}
		if (port && strcmp(document, "AWS-StartSSHSession")) {
			snprintf(num, sizeof num, "%u", local_port);
			one(&w, "localPortNumber", num);
		}
		if (command) {
			tnl_jw_key(&w, "command");
			tnl_jw_arr(&w);
			for (; *command; command++)
				tnl_jw_str(&w, *command);
			tnl_jw_end_arr(&w);
		}
		tnl_jw_end_obj(&w);
	}
	if (reason)
		tnl_jw_kv(&w, "Reason", reason);
	tnl_jw_end_obj(&w);
	return b->failed ? TNL_ENOMEM : 0;
}
