/* Signed calls: keys, one request, the verdict, and another try where one helps: at the service's next address at once,
 * as long as there is one, and when all have failed after a while.  The answer comes once, from the loop; behind it, or
 * when it is cancelled, the call frees itself at the end of the turn. */
#include "lib/alloc.h"
#include "tunneld/aws/internal.h"
#include <stdio.h>
#include <string.h>

/* How long one of several addresses may keep a call that the next one could answer. */
#define ANSWER_BY (5 * TD_SEC)

struct td_aws_call {
	struct td_aws *aws;
	struct td_addresses *addresses; /* of the service, in aws */
	unsigned at, tried;		/* which is asked; a bit for each that has failed in this round */
	char service[24], target[96], path[1024];
	struct tnl_buf body;
	int attempts;
	bool refreshed; /* once is enough */
	struct td_credentials_request *keys;
	struct td_http_client *http;
	struct td_timer retry;
	struct td_soon end;
	struct td_backoff backoff;
	char key_id[132]; /* that the request was signed with */
	bool with_token;
	char said[260]; /* by the service when it refused the keys */
	char text[700];
	td_aws_fn *fn;
	void *ctx;
};

static void on_keys(void *ctx, const struct tnl_sigv4_keys *k, enum td_credentials_state st, const char *why);

static void call_free(void *arg)
{
	struct td_aws_call *c = arg;

	td_aws_free(c->aws);
	tnl_buf_fini_wiped(&c->body);
	tnl_free(c);
}

static void end_call(struct td_aws_call *c)
{
	td_timer_stop(&c->retry);
	td_soon_do(&c->end);
}

void td_aws_call_cancel(struct td_aws_call *c)
{
	if (!c)
		return;
	td_credentials_cancel(c->keys);
	td_http_client_cancel(c->http);
	c->keys = NULL;
	c->http = NULL;
	end_call(c);
}

static void answer_call(struct td_aws_call *c, const struct td_aws_reply *r)
{
	c->fn(c->ctx, r);
	end_call(c);
}

static void ask_keys(struct td_aws_call *c, bool force)
{
	c->keys = td_credentials_ask(c->aws, force, on_keys, c);
	if (!c->keys)
		answer_call(c, &(struct td_aws_reply){.err = TNL_ENOMEM, .text = "out of memory"});
}

static void try_again(void *arg)
{
	ask_keys(arg, false);
}

static void judge_answer(struct td_aws_call *c, const struct td_http_client_response *h, struct td_aws_reply *r)
{
	const struct td_aws_asked asked = {.aws = c->aws,
					   .endpoint = td_addresses_url(c->addresses, c->at),
					   .key_id = c->key_id,
					   .with_token = c->with_token};
	td_aws_judge(&asked, h, r, c->text, sizeof(c->text));
}

/* Of its address.  No answer, or one that says that it cannot: false, and whether the next one may be asked at once. */
static bool note_address(struct td_aws_call *c, const struct td_aws_reply *r, bool no_answer)
{
	char why[300];

	if (!no_answer && r->status < 500) {
		td_addresses_worked(c->addresses, c->at);
		return false;
	}
	if (no_answer)
		snprintf(why, sizeof(why), "%s", r->text);
	else
		snprintf(why, sizeof(why), "HTTP status %d%s%s%s%.100s", r->status, r->type[0] ? " " : "", r->type,
			 r->text[0] ? ": " : "", r->text);
	td_addresses_failed(c->addresses, c->at, why);
	c->tried |= 1u << c->at;
	return td_addresses_next(c->addresses, c->tried) < TD_ENDPOINTS_MAX;
}

static void on_http(void *ctx, const struct td_http_client_response *h)
{
	struct td_aws_call *c = ctx;
	struct td_aws_reply r = {.status = h->status,
				 .endpoint = td_addresses_url(c->addresses, c->at),
				 .body = h->body,
				 .body_len = h->body_len,
				 .text = ""};
	struct tnl_json *j = !h->err && h->body_len ? tnl_json_parse(h->body, h->body_len) : NULL;
	bool again;

	c->http = NULL;
	r.json = j;
	judge_answer(c, h, &r);
	again = h->err || h->status >= 500 || td_aws_throttled(r.type);
	if (note_address(c, &r, h->err != 0)) {
		ask_keys(c, false);
	} else if (again && --c->attempts > 0) {
		c->tried = 0;
		td_timer_in(&c->retry, td_backoff_next(&c->backoff));
	} else if (!again && !c->refreshed && td_aws_says_other_keys(r.type)) {
		snprintf(c->said, sizeof(c->said), "%s", td_aws_said(&r));
		c->refreshed = true; /* keys that were renewed or exchanged behind our back */
		if (td_aws_says_expired(r.type))
			td_credentials_refused(c->aws, c->key_id);
		ask_keys(c, true);
	} else {
		answer_call(c, &r);
	}
	tnl_json_free(j);
}

/* --- the request ------------------------------------------------------------------------ */

static void on_keys(void *ctx, const struct tnl_sigv4_keys *k, enum td_credentials_state st, const char *why)
{
	struct td_aws_call *c = ctx;
	const char *h[2][2] = {{"Content-Type", c->target[0] ? "application/x-amz-json-1.1" : "application/json"},
			       {"X-Amz-Target", c->target}};
	struct td_http_client_opts o = {.tls = c->aws->tls, .kept = &c->aws->kept};
	const char *fault = "";
	struct tnl_url u;
	char url[1400];

	c->keys = NULL;
	if (!k) {
		snprintf(c->text, sizeof(c->text), c->said[0] ? "%s (%s)" : "%s", why ? why : "no credentials",
			 c->said);
		answer_call(c, &(struct td_aws_reply){.err = TNL_EAUTH, .cred = st, .text = c->text});
		return;
	}
	snprintf(c->key_id, sizeof(c->key_id), "%s", k->access_key_id);
	c->with_token = k->session_token && k->session_token[0];
	c->at = td_addresses_next(c->addresses, c->tried);
	snprintf(url, sizeof(url), "%s%s", td_addresses_url(c->addresses, c->at), c->path);
	if (tnl_url_parse(url, &u, &fault) != 0) {
		answer_call(c, &(struct td_aws_reply){.err = TNL_EINVAL, .text = fault});
		return;
	}
	if (td_addresses_next(c->addresses, c->tried | 1u << c->at) < TD_ENDPOINTS_MAX)
		o.timeout_ns = ANSWER_BY;
	o.proxy = td_aws_proxy_for(c->aws, strcmp(u.scheme, "https") == 0, u.host, u.port);
	c->http = td_http_client_signed(c->aws->loop, "POST", url, h, c->target[0] ? 2 : 1, tnl_buf_data(&c->body),
					tnl_buf_len(&c->body), k, c->aws->region, c->service, &o, on_http, c);
	if (!c->http)
		answer_call(c, &(struct td_aws_reply){.err = TNL_ENOMEM, .text = "out of memory"});
}

static struct td_aws_call *call_new(struct td_aws *a, const char *service, const char *target, const char *path,
				    const char *body, size_t len, int attempts, td_aws_fn *fn, void *ctx)
{
	struct td_aws_call *c;

	if (strlen(path) >= sizeof(c->path) || strlen(target) >= sizeof(c->target) ||
	    strlen(service) >= sizeof(c->service))
		return NULL;
	c = tnl_calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	snprintf(c->service, sizeof(c->service), "%s", service);
	snprintf(c->target, sizeof(c->target), "%s", target);
	snprintf(c->path, sizeof(c->path), "%s", path);
	tnl_buf_init(&c->body, len + 1);
	if (tnl_buf_put(&c->body, body, len) != 0) {
		tnl_free(c);
		return NULL;
	}
	c->aws = td_aws_ref(a);
	c->addresses = td_aws_addresses(a, service);
	c->attempts = attempts;
	c->fn = fn;
	c->ctx = ctx;
	td_timer_init(&c->retry, a->loop, try_again, c);
	td_soon_init(&c->end, a->loop, call_free, c);
	td_backoff_init(&c->backoff, 100 * TD_MS, 5 * TD_SEC);
	c->keys = td_credentials_ask(a, false, on_keys, c);
	if (!c->keys) {
		call_free(c);
		return NULL;
	}
	return c;
}

struct td_aws_call *td_aws_json(struct td_aws *a, const char *service, const char *target, const char *body, size_t len,
				int attempts, td_aws_fn *fn, void *ctx)
{
	return call_new(a, service, target, "/", body, len, attempts, fn, ctx);
}

struct td_aws_call *td_aws_post(struct td_aws *a, const char *service, const char *path, const char *body, size_t len,
				td_aws_fn *fn, void *ctx)
{
	return call_new(a, service, "", path, body, len, 1, fn, ctx);
}
