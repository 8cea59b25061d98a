/* Signed calls: keys, one request, the verdict, and another try where one helps.  The answer comes once, from the loop;
 * behind it, or when it is cancelled, the call frees itself at the end of the turn. */
#include "lib/alloc.h"
#include "tunneld/aws/internal.h"
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLOCK_OFF_S 240 /* AWS allows 300 */

struct td_aws_call {
	struct td_aws *aws;
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
	char text[512];
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

/* --- the verdict ---------------------------------------------------------------------- */

static bool is_one_of(const char *type, const char *const *list)
{
	for (; *list; list++)
		if (strcmp(type, *list) == 0)
			return true;
	return false;
}

bool td_aws_throttled(const char *type)
{
	/* What the SDKs take for it ("Throttling" and its kin have many endings). */
	static const char *const list[] = {"TooManyRequestsException",
					   "RequestLimitExceeded",
					   "BandwidthLimitExceeded",
					   "LimitExceededException",
					   "ProvisionedThroughputExceededException",
					   "TransactionInProgressException",
					   "EC2ThrottledException",
					   "SlowDown",
					   "PriorRequestNotComplete",
					   NULL};

	return strncmp(type, "Throttl", 7) == 0 || strncmp(type, "RequestThrottled", 16) == 0 || is_one_of(type, list);
}

static bool is_expired(const char *type)
{
	static const char *const list[] = {"ExpiredTokenException", "ExpiredToken", "TokenRefreshRequired", NULL};

	return is_one_of(type, list);
}

static bool is_unknown_key(const char *type)
{
	static const char *const list[] = {"UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId",
					   "NotAuthorizedException", NULL};

	return is_one_of(type, list);
}

static bool is_bad_signature(const char *type)
{
	static const char *const list[] = {"InvalidSignatureException",
					   "SignatureDoesNotMatch",
					   "RequestExpired",
					   "RequestTimeTooSkewed",
					   "IncompleteSignatureException",
					   "AuthFailure",
					   NULL};

	return is_one_of(type, list);
}

/* Seconds that our clock is ahead of the peer's (negative: behind), by its Date header. */
static int64_t clock_ahead(const struct td_aws_call *c, const struct tnl_http_head *h)
{
	size_t n = 0;
	const char *date = h ? tnl_http_get(h, "date", &n) : NULL;
	uint64_t theirs;

	if (!date || tnl_http_date_parse(date, n, &theirs) != 0)
		return 0;
	return (int64_t)td_aws_now(c->aws) - (int64_t)theirs;
}

static const char *put_text(struct td_aws_call *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static const char *put_text(struct td_aws_call *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(c->text, sizeof(c->text), fmt, ap);
	va_end(ap);
	return c->text;
}

/* Refusals of the keys themselves, with the cause and the cure. */
static void judge_keys(struct td_aws_call *c, const struct tnl_http_head *h, struct td_aws_reply *r)
{
	int64_t off = clock_ahead(c, h), abs = off < 0 ? -off : off;
	const char *from = td_credentials_origin(c->aws);

	r->cred = TD_CREDENTIALS_ERROR;
	if (is_bad_signature(r->type) && abs > CLOCK_OFF_S) {
		r->text = put_text(c, "this machine's clock is %lld %s %s: set it (timedatectl set-ntp true)",
				   (long long)(abs < 120 ? abs : abs / 60), abs < 120 ? "seconds" : "minutes",
				   off > 0 ? "fast" : "slow");
	} else if (is_expired(r->type)) {
		r->cred = TD_CREDENTIALS_NEEDS_LOGIN;
		r->text = put_text(c, "the credentials of %s have expired: renew them there", from);
	} else if (is_unknown_key(r->type)) {
		r->text =
		    put_text(c, "the access key of %s is not known: check access_key_id, and that the key is active",
			     from);
	} else if (is_bad_signature(r->type)) {
		r->text = put_text(c, "the signature was refused: check the secret access key of %s", from);
	} else {
		return;
	}
	r->err = TNL_EAUTH;
}

static void judge_json(const struct tnl_json *j, const struct tnl_http_head *h, struct td_aws_reply *r)
{
	size_t n = 0;
	const char *t = tnl_json_str(tnl_json_iget(j, "__type"));
	const char *hash, *header = h ? tnl_http_get(h, "x-amzn-errortype", &n) : NULL;

	if (!t)
		t = tnl_json_str(tnl_json_iget(j, "code"));
	if (t) {
		hash = strrchr(t, '#');
		snprintf(r->type, sizeof(r->type), "%s", hash ? hash + 1 : t);
	} else if (header) {
		snprintf(r->type, sizeof(r->type), "%.*s", (int)n, header);
	}
	r->type[strcspn(r->type, ":")] = 0;
	t = tnl_json_str(tnl_json_iget(j, "message"));
	r->text = t ? t : "";
}

/* Refusals of channels are XML: <AccessDeniedException><Message>text</Message></AccessDeniedException>. */
static void judge_xml(struct td_aws_call *c, struct td_aws_reply *r)
{
	static const char open[] = "<Message>", close[] = "</Message>";
	const char *b = (const char *)r->body, *text, *end;
	size_t n = 0;

	if (r->body_len < 3 || b[0] != '<')
		return;
	while (n + 1 < r->body_len && n + 1 < sizeof(r->type) && isalpha((unsigned char)b[n + 1]))
		n++;
	if (n + 1 >= r->body_len || b[n + 1] != '>')
		return;
	text = memmem(b, r->body_len, open, sizeof(open) - 1);
	end = text ? memmem(text, (size_t)(b + r->body_len - text), close, sizeof(close) - 1) : NULL;
	if (!end)
		return;
	text += sizeof(open) - 1;
	snprintf(r->type, sizeof(r->type), "%.*s", (int)n, b + 1);
	r->text = put_text(c, "%.*s", (int)(end - text), text);
}

static void on_http(void *ctx, const struct td_http_client_response *h)
{
	struct td_aws_call *c = ctx;
	struct td_aws_reply r = {.status = h->status, .body = h->body, .body_len = h->body_len, .text = ""};
	struct tnl_json *j = !h->err && h->body_len ? tnl_json_parse(h->body, h->body_len) : NULL;
	bool again;

	c->http = NULL;
	r.json = j;
	if (h->err) {
		r.err = h->err == TNL_ETIMEOUT ? TNL_ETIMEOUT : TNL_EUNREACH;
		r.text = h->why ? h->why : tnl_err_text(h->err);
	} else if (h->status < 200 || h->status >= 300) {
		r.err = TNL_EREFUSED;
		if (j)
			judge_json(j, h->head, &r);
		else
			judge_xml(c, &r);
		judge_keys(c, h->head, &r);
	}
	again = h->err || h->status >= 500 || td_aws_throttled(r.type);
	if (again && --c->attempts > 0) {
		td_timer_in(&c->retry, td_backoff_next(&c->backoff));
	} else if (!again && !c->refreshed && (is_expired(r.type) || is_unknown_key(r.type))) {
		c->refreshed = true; /* keys that were renewed or exchanged behind our back */
		if (is_expired(r.type))
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
	struct td_http_client_opts o = {.tls = c->aws->tls};
	const char *fault = "";
	struct tnl_url u;
	char url[1400];

	c->keys = NULL;
	if (!k) {
		answer_call(c,
			    &(struct td_aws_reply){.err = TNL_EAUTH, .cred = st, .text = why ? why : "no credentials"});
		return;
	}
	snprintf(c->key_id, sizeof(c->key_id), "%s", k->access_key_id);
	snprintf(url, sizeof(url), "%s%s", td_aws_endpoint(c->aws, c->service), c->path);
	if (tnl_url_parse(url, &u, &fault) != 0) {
		answer_call(c, &(struct td_aws_reply){.err = TNL_EINVAL, .text = fault});
		return;
	}
	o.proxy = td_aws_proxy_for(c->aws, strcmp(u.scheme, "https") == 0, u.host);
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
