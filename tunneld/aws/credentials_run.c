/* Carries out a plan: the base, then role after role.  What each step does is its source's affair; here are the order
 * of the steps, the HTTP exchange that most of them need, with its retries, and the end, which is told from the loop.
 */
#include "lib/alloc.h"
#include "tunneld/aws/credentials_internal.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct td_credentials_source *source_at_hand(const struct td_credentials_run *r)
{
	return r->plan->state == TD_CREDENTIALS_OK ? r->plan->steps[r->step].source : NULL;
}

static void leave_step(struct td_credentials_run *r)
{
	const struct td_credentials_source *s = source_at_hand(r);

	if (s && s->cancel)
		s->cancel(r);
}

/* --- the end --------------------------------------------------------------------------- */

static void run_free(struct td_credentials_run *r)
{
	td_keys_fini(&r->keys);
	tnl_free(r);
}

static void tell_end(void *arg)
{
	struct td_credentials_run *r = arg;

	r->fn(r->ctx, r->state == TD_CREDENTIALS_OK ? &r->keys : NULL, r->state, r->why);
	run_free(r);
}

static void finish(struct td_credentials_run *r, enum td_credentials_state st)
{
	leave_step(r);
	r->state = st;
	td_soon_do(&r->end);
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
	if (r->step == 0) {
		finish(r, TD_CREDENTIALS_OK);
		return;
	}
	leave_step(r);
	r->step--;
	source_at_hand(r)->start(r);
}

/* --- one exchange ------------------------------------------------------------------------ */

static void on_http(void *ctx, const struct td_http_client_response *h)
{
	struct td_credentials_run *r = ctx;

	r->http = NULL;
	if ((h->err || h->status >= 500 || h->status == 429) && --r->attempts > 0)
		td_timer_in(&r->retry, 300 * TD_MS);
	else
		r->got(r, h);
}

static void try_again(void *arg)
{
	struct td_credentials_run *r = arg;

	r->request(r);
}

void td_credentials_run_ask(struct td_credentials_run *r, const char *what, int attempts,
			    void (*request)(struct td_credentials_run *r),
			    void (*got)(struct td_credentials_run *r, const struct td_http_client_response *h))
{
	r->what = what;
	r->attempts = attempts;
	r->request = request;
	r->got = got;
	request(r);
}

void td_credentials_run_send(struct td_credentials_run *r, const struct td_credentials_send *q)
{
	struct td_http_client_opts o = {.tls = r->a->tls,
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
		o.proxy = td_aws_proxy_for(r->a, strcmp(u.scheme, "https") == 0, u.host, u.port);
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

struct td_credentials_run *td_credentials_run_start(struct td_aws *a, const struct td_credentials_plan *p,
						    td_credentials_run_fn *fn, void *ctx)
{
	struct td_credentials_run *r = tnl_calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->a = a;
	r->plan = p;
	r->fn = fn;
	r->ctx = ctx;
	r->step = p->nsteps - 1;
	td_timer_init(&r->retry, a->loop, try_again, r);
	td_soon_init(&r->end, a->loop, tell_end, r);
	if (p->state == TD_CREDENTIALS_OK)
		source_at_hand(r)->start(r);
	else
		td_credentials_run_fail(r, p->state, "%s", p->why);
	return r;
}

void td_credentials_run_cancel(struct td_credentials_run *r)
{
	if (!r)
		return;
	td_timer_stop(&r->retry);
	td_http_client_cancel(r->http);
	td_soon_cancel(&r->end);
	leave_step(r);
	run_free(r);
}
