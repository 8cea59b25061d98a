/* The keys of one environment: kept, renewed ahead of their end, asked for by whoever signs. */
#include "lib/alloc.h"
#include "tunneld/aws/internal.h"
#include <stdio.h>
#include <string.h>

#define AHEAD_S 300u	 /* renewed so long before the end, or at three quarters of a short life */
#define MUST_S 30u	 /* with less left they are not handed out any more; of a short life a quarter */
#define RECHECK_FIRST 2u /* seconds between looks whether a person has logged in */
#define RECHECK_MAX 60u
#define IDLE (3600 * TD_SEC) /* nobody asked for so long: renewed when somebody does */

struct td_credentials_request {
	struct tnl_list node;
	struct td_aws *a;
	td_credentials_fn *fn;
	void *ctx;
	bool cancelled;
};

static uint64_t now_s(const struct td_aws *a)
{
	return a->loop->wall_ms / 1000;
}

static bool usable(const struct td_aws *a)
{
	return a->keys.id && (!a->keys.expires_s || a->keys.expires_s > now_s(a) + a->margin);
}

static void start_run(struct td_aws *a);

static void on_refresh(void *arg)
{
	struct td_aws *a = arg;

	if (a->loop->now - a->used < IDLE)
		start_run(a);
}

void td_credentials_init(struct td_aws *a)
{
	tnl_list_init(&a->waiting);
	a->state = TD_CREDENTIALS_PENDING;
	td_timer_init(&a->refresh, a->loop, on_refresh, a);
}

void td_credentials_fini(struct td_aws *a)
{
	td_timer_stop(&a->refresh);
	td_credentials_run_cancel(a->run);
	a->run = NULL;
	td_keys_fini(&a->keys);
}

const char *td_credentials_origin(const struct td_aws *a)
{
	return a->source[0] ? a->source : "the configuration";
}

enum td_credentials_state td_credentials_state(const struct td_aws *a, const char **why)
{
	if (why)
		*why = a->state == TD_CREDENTIALS_OK ? "" : a->why;
	return a->state;
}

void td_credentials_refused(struct td_aws *a, const char *id)
{
	snprintf(a->refused, sizeof(a->refused), "%s", id);
	if (a->keys.id && strcmp(a->keys.id, id) == 0)
		td_keys_fini(&a->keys);
}

/* --- answering ----------------------------------------------------------------------- */

static void req_free(struct td_credentials_request *q)
{
	struct td_aws *a = q->a;

	tnl_list_remove(&q->node);
	tnl_free(q);
	td_aws_free(a);
}

/* Those who wait when it begins; who asks from inside an answer waits for the next turn. */
static void answer_all(void *arg)
{
	struct td_aws *a = arg;
	struct tnl_list now;

	a->answering = false;
	tnl_list_init(&now);
	if (!tnl_list_empty(&a->waiting) && (!a->run || (usable(a) && !a->forced))) {
		tnl_list_push_back(&a->waiting, &now);
		tnl_list_remove(&a->waiting);
	}
	while (!tnl_list_empty(&now)) {
		struct td_credentials_request *q = tnl_container_of(now.next, struct td_credentials_request, node);
		struct tnl_sigv4_keys k = {a->keys.id, a->keys.secret, a->keys.token};
		bool have = usable(a);

		tnl_list_remove(&q->node);
		if (!q->cancelled)
			q->fn(q->ctx, have ? &k : NULL, have ? TD_CREDENTIALS_OK : a->state, have ? NULL : a->why);
		req_free(q);
	}
	td_aws_free(a);
}

static void answer_soon(struct td_aws *a)
{
	if (a->answering || tnl_list_empty(&a->waiting))
		return;
	a->answering = true;
	td_aws_ref(a);
	td_loop_defer(a->loop, answer_all, a);
}

/* --- getting them ---------------------------------------------------------------------- */

static void plan_refresh(struct td_aws *a)
{
	uint64_t left, ahead = AHEAD_S;

	if (!a->keys.expires_s) {
		td_timer_stop(&a->refresh);
		return;
	}
	left = a->keys.expires_s > now_s(a) ? a->keys.expires_s - now_s(a) : 0;
	if (left < 4 * ahead)
		ahead = left / 4;
	left -= ahead;
	td_timer_in(&a->refresh, (left > 5 ? left : 5) * TD_SEC);
}

static void no_keys(struct td_aws *a, enum td_credentials_state st, const char *why);

static void have_keys(struct td_aws *a, struct td_keys *keys)
{
	bool back = a->state == TD_CREDENTIALS_NEEDS_LOGIN;
	uint64_t now = now_s(a), left = keys->expires_s > now ? keys->expires_s - now : 0;

	if (a->refused[0] && strcmp(keys->id, a->refused) == 0) {
		char why[400];

		snprintf(why, sizeof(why), "the credentials of %s have expired: renew them there",
			 td_credentials_origin(a));
		no_keys(a, TD_CREDENTIALS_NEEDS_LOGIN, why);
		return;
	}
	if (keys->expires_s && !left) {
		char why[400];

		snprintf(why, sizeof(why),
			 "the credentials of %s came with an end in the past: check this machine's clock",
			 td_credentials_origin(a));
		no_keys(a, TD_CREDENTIALS_ERROR, why);
		return;
	}
	a->margin = left / 4 < MUST_S ? left / 4 : MUST_S;
	td_keys_fini(&a->keys);
	a->keys = *keys;
	memset(keys, 0, sizeof(*keys));
	a->state = TD_CREDENTIALS_OK;
	a->why[0] = 0;
	a->refused[0] = 0;
	a->recheck = 0;
	if (back)
		td_info("aws", NULL, "credentials are there again source=\"%s\"", a->source);
	else
		td_debug("aws", NULL, "credentials source=\"%s\" expires=%llu", a->source,
			 (unsigned long long)a->keys.expires_s);
	plan_refresh(a);
}

static void no_keys(struct td_aws *a, enum td_credentials_state st, const char *why)
{
	bool news = a->state != st || strcmp(a->why, why) != 0;

	snprintf(a->why, sizeof(a->why), "%s", why);
	if (usable(a)) {
		/* What is there still holds: nothing that runs is touched. */
		if (news)
			td_warn("aws", NULL, "credentials could not be renewed yet: %s", a->why);
		td_timer_in(&a->refresh, 30 * TD_SEC);
		return;
	}
	a->state = st;
	if (news)
		td_warn("aws", NULL, "%s", a->why);
	if (st != TD_CREDENTIALS_NEEDS_LOGIN)
		return;
	a->recheck = !a->recheck ? RECHECK_FIRST : a->recheck * 2 < RECHECK_MAX ? a->recheck * 2 : RECHECK_MAX;
	td_timer_in(&a->refresh, a->recheck * TD_SEC);
}

static void on_run(void *ctx, struct td_keys *keys, enum td_credentials_state st, const char *why, const char *source)
{
	struct td_aws *a = ctx;

	a->run = NULL;
	a->forced = false;
	if (source[0])
		snprintf(a->source, sizeof(a->source), "%s", source);
	if (keys)
		have_keys(a, keys);
	else
		no_keys(a, st, why);
	answer_soon(a);
}

static void start_run(struct td_aws *a)
{
	if (a->run)
		return;
	a->run = td_credentials_run_start(a, on_run, a);
	if (!a->run) {
		no_keys(a, TD_CREDENTIALS_ERROR, "out of memory");
		answer_soon(a);
	}
}

struct td_credentials_request *td_credentials_ask(struct td_aws *a, bool force_refresh, td_credentials_fn *fn,
						  void *ctx)
{
	struct td_credentials_request *q = tnl_calloc(1, sizeof(*q));

	if (!q)
		return NULL;
	q->a = td_aws_ref(a);
	q->fn = fn;
	q->ctx = ctx;
	tnl_list_push_back(&a->waiting, &q->node);
	a->used = a->loop->now;
	if (force_refresh || !usable(a)) {
		a->forced = a->forced || force_refresh;
		start_run(a);
	} else {
		if (a->keys.expires_s && a->keys.expires_s < now_s(a) + a->margin * 2)
			start_run(a); /* late: the timer slept with the machine, or nobody asked for long */
		answer_soon(a);
	}
	return q;
}

void td_credentials_cancel(struct td_credentials_request *q)
{
	if (!q)
		return;
	/* The one that is being answered is freed by the loop that answers. */
	q->cancelled = true;
	if (!tnl_list_empty(&q->node))
		req_free(q);
}
