/* The keys of one block: kept, renewed ahead of their end, asked for by whoever signs. */
#include "lib/alloc.h"
#include "lib/num.h"
#include "tunneld/aws/credentials_internal.h"
#include <stdio.h>
#include <string.h>

#define AHEAD_S 300u	 /* renewed so long before the end, or at three quarters of a short life */
#define MUST_S 30u	 /* with less left they are not handed out any more; of a short life a quarter */
#define RECHECK_FIRST 2u /* seconds between looks whether a person has logged in */
#define RECHECK_MAX 60u
#define IDLE (3600 * TD_SEC) /* nobody asked for so long: renewed when somebody does */

struct td_credentials_request {
	struct tnl_list node;
	td_credentials_fn *fn;
	void *ctx;
};

static bool usable(const struct td_aws *a)
{
	const struct td_credentials *c = &a->credentials;

	return c->keys.id && (!c->keys.expires_s || c->keys.expires_s > td_aws_now(a) + c->margin);
}

const char *td_credentials_origin(const struct td_aws *a)
{
	return a->credentials.source[0] ? a->credentials.source : "the configuration";
}

uint64_t td_credentials_expire(const struct td_aws *a)
{
	return a->credentials.keys.expires_s;
}

enum td_credentials_state td_credentials_last(const struct td_aws *a, const char **why)
{
	const struct td_credentials *c = &a->credentials;

	if (why)
		*why = c->state == TD_CREDENTIALS_OK ? "" : c->why;
	return c->state;
}

void td_credentials_refused(struct td_aws *a, const char *id)
{
	struct td_credentials *c = &a->credentials;

	snprintf(c->refused, sizeof(c->refused), "%s", id);
	if (c->keys.id && strcmp(c->keys.id, id) == 0)
		td_keys_fini(&c->keys);
}

/* --- answering ----------------------------------------------------------------------- */

/* One each time, as what is answered may be the end of the block.  Those who wait now are answered with what is there
 * now; who asks from inside an answer waits for the next round. */
static void answer_next(void *arg)
{
	struct td_aws *a = arg;
	struct td_credentials *c = &a->credentials;
	bool have = usable(a);

	if (c->run && !have) /* refused since the last one was answered: the others wait for what comes */
		tnl_list_splice_back(&c->waiting, &c->ready);
	if (tnl_list_empty(&c->ready) && (!c->run || (have && !c->forced)))
		tnl_list_splice_back(&c->ready, &c->waiting);
	if (tnl_list_empty(&c->ready))
		return;
	struct td_credentials_request *q = tnl_container_of(c->ready.next, struct td_credentials_request, node);
	struct td_credentials_request now = *q;
	struct tnl_sigv4_keys k = {c->keys.id, c->keys.secret, c->keys.token};
	tnl_list_remove(&q->node);
	tnl_free(q);
	if (!tnl_list_empty(&c->ready) || !tnl_list_empty(&c->waiting))
		td_soon_do(&c->answer);
	now.fn(now.ctx, have ? &k : NULL, have ? TD_CREDENTIALS_OK : c->state, have ? NULL : c->why);
}

/* --- getting them ---------------------------------------------------------------------- */

static void plan_refresh(struct td_aws *a)
{
	struct td_credentials *c = &a->credentials;
	uint64_t left, ahead = AHEAD_S, now = td_aws_now(a);

	if (!c->keys.expires_s) {
		td_timer_stop(&c->refresh);
		return;
	}
	left = c->keys.expires_s > now ? c->keys.expires_s - now : 0;
	if (left < 4 * ahead)
		ahead = left / 4;
	left -= ahead;
	td_timer_in(&c->refresh, TNL_MAX(left, (uint64_t)5) * TD_SEC);
}

static void no_keys(struct td_aws *a, enum td_credentials_state st, const char *why)
{
	struct td_credentials *c = &a->credentials;
	bool news = c->state != st || strcmp(c->why, why) != 0;

	snprintf(c->why, sizeof(c->why), "%s", why);
	if (usable(a)) {
		/* What is there still holds: nothing that runs is touched. */
		if (news)
			td_warn("aws", NULL, "credentials could not be renewed yet: %s", c->why);
		td_timer_in(&c->refresh, 30 * TD_SEC);
		return;
	}
	c->state = st;
	if (news)
		td_warn("aws", NULL, "%s", c->why);
	if (st != TD_CREDENTIALS_NEEDS_LOGIN)
		return;
	c->recheck = c->recheck ? TNL_MIN(c->recheck * 2, RECHECK_MAX) : RECHECK_FIRST;
	td_timer_in(&c->refresh, c->recheck * TD_SEC);
}

/* The keys that were found are of no use, with `what` after "the credentials of …". */
static void no_use(struct td_aws *a, enum td_credentials_state st, const char *what)
{
	char why[400];

	snprintf(why, sizeof(why), "the credentials of %s %s", td_credentials_origin(a), what);
	no_keys(a, st, why);
}

static void have_keys(struct td_aws *a, struct td_keys *keys)
{
	struct td_credentials *c = &a->credentials;
	bool back = c->state == TD_CREDENTIALS_NEEDS_LOGIN;
	uint64_t now = td_aws_now(a), left = keys->expires_s > now ? keys->expires_s - now : 0;

	if (c->refused[0] && strcmp(keys->id, c->refused) == 0) {
		no_use(a, TD_CREDENTIALS_NEEDS_LOGIN, "have expired: renew them there");
		return;
	}
	if (keys->expires_s && !left) {
		no_use(a, TD_CREDENTIALS_ERROR, "came with an end in the past: check this machine's clock");
		return;
	}
	c->margin = TNL_MIN(left / 4, (uint64_t)MUST_S);
	td_keys_fini(&c->keys);
	c->keys = *keys;
	memset(keys, 0, sizeof(*keys));
	c->state = TD_CREDENTIALS_OK;
	c->why[0] = 0;
	c->refused[0] = 0;
	c->recheck = 0;
	if (back)
		td_info("aws", NULL, "credentials are there again source=\"%s\"", c->source);
	else
		td_debug("aws", NULL, "credentials source=\"%s\" expires=%llu", c->source,
			 (unsigned long long)c->keys.expires_s);
	plan_refresh(a);
}

static void drop_run(struct td_credentials *c)
{
	td_credentials_plan_free(c->plan);
	c->plan = NULL;
	c->run = NULL;
	c->forced = false;
}

static void on_run(void *ctx, struct td_keys *keys, enum td_credentials_state st, const char *why)
{
	struct td_aws *a = ctx;
	struct td_credentials *c = &a->credentials;

	if (c->plan->source[0])
		snprintf(c->source, sizeof(c->source), "%s", c->plan->source);
	drop_run(c);
	if (keys)
		have_keys(a, keys);
	else
		no_keys(a, st, why);
	td_soon_do(&c->answer);
}

static void start_run(struct td_aws *a)
{
	struct td_credentials *c = &a->credentials;

	if (c->run)
		return;
	c->stale = false;
	c->plan = td_credentials_plan_new(a);
	c->run = c->plan ? td_credentials_run_start(a, c->plan, on_run, a) : NULL;
	if (c->run)
		return;
	drop_run(c);
	no_keys(a, TD_CREDENTIALS_ERROR, "out of memory");
	td_soon_do(&c->answer);
}

void td_credentials_renew(struct td_aws *a)
{
	struct td_credentials *c = &a->credentials;
	bool asked = !tnl_list_empty(&c->waiting) || c->state == TD_CREDENTIALS_NEEDS_LOGIN;

	c->refused[0] = 0;
	c->stale = true;
	if (c->run) { /* it may have begun with what was there before */
		td_credentials_run_cancel(c->run);
		drop_run(c);
	}
	if (asked) {
		c->forced = true;
		start_run(a);
	}
}

static void on_refresh(void *arg)
{
	struct td_aws *a = arg;

	if (a->loop->now - a->credentials.used < IDLE)
		start_run(a);
}

/* --- asking -------------------------------------------------------------------------------- */

void td_credentials_init(struct td_aws *a)
{
	struct td_credentials *c = &a->credentials;

	tnl_list_init(&c->waiting);
	tnl_list_init(&c->ready);
	c->state = TD_CREDENTIALS_PENDING;
	td_timer_init(&c->refresh, a->loop, on_refresh, a);
	td_soon_init(&c->answer, a->loop, answer_next, a);
}

void td_credentials_fini(struct td_aws *a)
{
	struct td_credentials *c = &a->credentials;

	td_timer_stop(&c->refresh);
	td_soon_cancel(&c->answer);
	td_credentials_run_cancel(c->run);
	drop_run(c);
	td_keys_fini(&c->keys);
}

struct td_credentials_request *td_credentials_ask(struct td_aws *a, bool force_refresh, td_credentials_fn *fn,
						  void *ctx)
{
	struct td_credentials *c = &a->credentials;
	struct td_credentials_request *q = tnl_calloc(1, sizeof(*q));

	if (!q)
		return NULL;
	q->fn = fn;
	q->ctx = ctx;
	tnl_list_push_back(&c->waiting, &q->node);
	c->used = a->loop->now;
	if (force_refresh || c->stale || !usable(a)) {
		c->forced = c->forced || force_refresh || c->stale;
		start_run(a);
	} else {
		if (c->keys.expires_s && c->keys.expires_s < td_aws_now(a) + c->margin * 2)
			start_run(a); /* late: the timer slept with the machine, or nobody asked for long */
		td_soon_do(&c->answer);
	}
	return q;
}

void td_credentials_cancel(struct td_credentials_request *q)
{
	if (!q)
		return;
	tnl_list_remove(&q->node);
	tnl_free(q);
}
