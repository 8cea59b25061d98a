/* Carries out a plan: the base, then role after role. */
#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/enc.h"
#include "tunneld/aws/credentials_internal.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void run_free(struct td_credentials_run *r)
{
	td_keys_fini(&r->cur);
	td_credentials_plan_fini(&r->plan);
	tnl_json_free(r->sso);
	tnl_free(r->sso_path);
	tnl_wipe(r->imds_token, sizeof(r->imds_token));
	tnl_free(r);
}

static void deliver(void *arg)
{
	struct td_credentials_run *r = arg;

	if (!r->cancelled)
		r->fn(r->ctx, r->state == TD_CREDENTIALS_OK ? &r->cur : NULL, r->state, r->why, r->plan.source);
	run_free(r);
}

static void finish(struct td_credentials_run *r, enum td_credentials_state st)
{
	r->state = st;
	r->finished = true;
	td_loop_defer(r->a->loop, deliver, r);
}

void td_credentials_run_fail(struct td_credentials_run *r, enum td_credentials_state st, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(r->why, sizeof(r->why), fmt, ap);
	va_end(ap);
	finish(r, st);
}

void td_credentials_run_have(struct td_credentials_run *r)
{
	if (r->role < 0)
		finish(r, TD_CREDENTIALS_OK);
	else
		td_credentials_assume(r, &r->plan.roles[r->role--]);
}

uint64_t td_credentials_run_now(const struct td_credentials_run *r)
{
	return r->a->loop->wall_ms / 1000;
}

/* --- keys ----------------------------------------------------------------------------- */

static void wiped(char **s)
{
	if (*s)
		tnl_free_wiped(*s, strlen(*s));
	*s = NULL;
}

void td_keys_fini(struct td_keys *k)
{
	wiped(&k->id);
	wiped(&k->secret);
	wiped(&k->token);
	k->expires_s = 0;
}

int td_keys_set(struct td_keys *k, const char *id, const char *secret, const char *token, uint64_t expires_s)
{
	struct td_keys new = {.id = tnl_strdup(id), .secret = tnl_strdup(secret), .expires_s = expires_s};

	if (token && *token)
		new.token = tnl_strdup(token);
	if (!new.id || !new.secret || (token && *token && !new.token)) {
		td_keys_fini(&new);
		return TNL_ENOMEM;
	}
	td_keys_fini(k);
	*k = new;
	return 0;
}

/* The end as a date, or as a number of seconds (STS) or milliseconds (SSO) since 1970. */
static int expiration(const struct tnl_json *v, uint64_t *s)
{
	const char *text = tnl_json_str(v);
	int64_t n;
	uint64_t ms;

	*s = 0;
	if (!v || tnl_json_is_null(v))
		return 0;
	if (text) {
		if (tnl_iso_date_parse(text, strlen(text), &ms) != 0)
			return TNL_ESYNTAX;
		*s = ms / 1000;
		return 0;
	}
	if (!tnl_json_int(v, &n) || n <= 0)
		return TNL_ESYNTAX;
	*s = n > 100000000000 ? (uint64_t)n / 1000 : (uint64_t)n;
	return 0;
}

int td_credentials_run_keys(struct td_credentials_run *r, const struct tnl_json *o, const char *token_key)
{
	const char *id = tnl_json_str(tnl_json_iget(o, "AccessKeyId")),
		   *secret = tnl_json_str(tnl_json_iget(o, "SecretAccessKey"));
	uint64_t end;

	if (!id || !*id || !secret || !*secret || expiration(tnl_json_iget(o, "Expiration"), &end) != 0)
		return TNL_ESYNTAX;
	return td_keys_set(&r->cur, id, secret, tnl_json_str(tnl_json_iget(o, token_key)), end);
}

char *td_env_cache_file(const char *dir, const char *name_to_hash)
{
	const char *home = td_env_get("HOME");
	uint8_t sum[20];
	char hex[41], *path;
	size_t n;

	if (!home)
		return NULL;
	tnl_sha1(name_to_hash, strlen(name_to_hash), sum);
	tnl_hex(sum, sizeof(sum), hex);
	n = strlen(home) + strlen(dir) + sizeof(hex) + 8;
	path = tnl_malloc(n);
	if (path)
		snprintf(path, n, "%s/%s/%s.json", home, dir, hex);
	return path;
}

/* --- one exchange ------------------------------------------------------------------------ */

static void on_http(void *ctx, const struct td_http_client_response *h)
{
	struct td_credentials_run *r = ctx;

	r->http = NULL;
	if ((h->err || h->status >= 500 || h->status == 429) && --r->attempts > 0) {
		td_timer_in(&r->timer, 300 * TD_MS);
		return;
	}
	r->got(r, h);
}

static void again(void *arg)
{
	struct td_credentials_run *r = arg;

	r->step(r);
}

void td_credentials_run_ask(struct td_credentials_run *r, const char *what, int attempts,
			    void (*step)(struct td_credentials_run *r),
			    void (*got)(struct td_credentials_run *r, const struct td_http_client_response *h))
{
	r->what = what;
	r->attempts = attempts;
	r->step = step;
	r->got = got;
	step(r);
}

void td_credentials_run_request(struct td_credentials_run *r, const struct td_credentials_run_request *q)
{
	struct td_http_client_opts o = {.tls = td_aws_tls(r->a),
					.timeout_ns = q->timeout_ns ? q->timeout_ns : 10 * TD_SEC,
					.body_max = 256 * 1024};
	const char *fault = NULL;
	struct tnl_url u;

	if (tnl_url_parse(q->url, &u, &fault) != 0) {
		td_credentials_run_fail(r, TD_CREDENTIALS_ERROR, "%s: %.100s is no URL: %s", r->what, q->url,
					fault ? fault : "");
		return;
	}
	if (!q->direct)
		o.proxy = td_aws_proxy_for(r->a, strcmp(u.scheme, "https") == 0, u.host);
	if (q->keys) {
		struct tnl_sigv4_keys k = {q->keys->id, q->keys->secret, q->keys->token};

		r->http = td_http_client_signed(r->a->loop, q->method, q->url, q->headers, q->n, q->body, q->len, &k,
						r->a->region, q->service, &o, on_http, r);
	} else {
		r->http = td_http_client_request(r->a->loop, q->method, q->url, q->headers, q->n, q->body, q->len, &o,
						 on_http, r);
	}
	if (!r->http)
		td_credentials_run_fail(r, TD_CREDENTIALS_ERROR, "%s: out of memory", r->what);
}

/* --- the run -------------------------------------------------------------------------------- */

static void start(struct td_credentials_run *r)
{
	const struct td_credentials_plan *p = &r->plan;

	switch (p->base) {
	case TD_BASE_STATIC:
		if (td_keys_set(&r->cur, p->id, p->secret, p->token, 0) != 0)
			td_credentials_run_fail(r, TD_CREDENTIALS_ERROR, "out of memory");
		else
			td_credentials_run_have(r);
		break;
	case TD_BASE_WEB_IDENTITY:
		td_credentials_web_identity(r);
		break;
	case TD_BASE_SSO:
		td_credentials_sso(r);
		break;
	case TD_BASE_PROCESS:
		td_credentials_process(r);
		break;
	case TD_BASE_CONTAINER:
		td_credentials_container(r);
		break;
	case TD_BASE_IMDS:
		td_credentials_imds(r);
		break;
	}
}

struct td_credentials_run *td_credentials_run_start(struct td_aws *a, td_credentials_run_fn *fn, void *ctx)
{
	struct td_credentials_run *r = tnl_calloc(1, sizeof(*r));
	enum td_credentials_state st;

	if (!r)
		return NULL;
	r->a = a;
	r->fn = fn;
	r->ctx = ctx;
	td_timer_init(&r->timer, a->loop, again, r);
	st = td_credentials_plan_make(a, &r->plan, r->why, sizeof(r->why));
	r->role = r->plan.nroles - 1;
	if (st == TD_CREDENTIALS_OK)
		start(r);
	else
		finish(r, st);
	return r;
}

void td_credentials_run_cancel(struct td_credentials_run *r)
{
	if (!r)
		return;
	r->cancelled = true;
	td_timer_stop(&r->timer);
	td_http_client_cancel(r->http);
	td_credentials_process_cancel(r);
	r->http = NULL;
	if (!r->finished)
		finish(r, TD_CREDENTIALS_ERROR); /* freed from the loop */
}
