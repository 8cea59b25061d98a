/* DescribeSessions: filters, pages, and only what the caller owns.  Where nodes share a store it is read from there, a
 * part at a time, since the sessions of a user are on any of them. */
#include "tunneld/gateway/api_internal.h"
#include "tunneld/gateway/page_internal.h"
#include "tunneld/gateway/shared_internal.h"
#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/steps.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_MAX (4096u * 1024) /* a page of 200 sessions whose texts are escaped throughout */
/* As AWS bounds them. */
#define SESSION_FILTERS 6
#define SESSION_FILTER_VALUE 400u
#define STORE_LOOKS 100000u /* what asking the store for all sessions of a user counts as */

/* --- DescribeSessions ------------------------------------------------------------ */
struct session_filter {
	bool history;
	const char *target, *owner, *status, *id;
	uint64_t after_ms, before_ms; /* 0: not set */
};

static bool read_filter_date(struct gw_call *c, const char *v, uint64_t *out)
{
	if (tnl_iso_date_parse(v, strlen(v), out) == 0)
		return true;
	gw_call_fail(c, 400, "InvalidFilterValue", "The date %.64s is not in ISO 8601 form", v);
	return false;
}

static bool read_session_filter(struct gw_call *c, const struct tnl_json *e, struct session_filter *f)
{
	const char *k = tnl_json_get_str(e, "key"), *v = tnl_json_get_str(e, "value");
	if (!k || !v || !*v || strlen(v) > SESSION_FILTER_VALUE) {
		gw_call_fail(c, 400, "ValidationException",
			     "Each filter requires a key, and a value of at most %u characters", SESSION_FILTER_VALUE);
		return false;
	}
	if (strcmp(k, "InvokedAfter") == 0)
		return read_filter_date(c, v, &f->after_ms);
	if (strcmp(k, "InvokedBefore") == 0)
		return read_filter_date(c, v, &f->before_ms);
	if (strcmp(k, "Target") == 0)
		f->target = v;
	else if (strcmp(k, "Owner") == 0)
		f->owner = v;
	else if (strcmp(k, "Status") == 0)
		f->status = v;
	else if (strcmp(k, "SessionId") == 0)
		f->id = v;
	else {
		gw_call_fail(c, 400, "InvalidFilterKey", "The filter key %.64s is not valid", k);
		return false;
	}
	return true;
}

static bool read_session_filters(struct gw_call *c, struct session_filter *f)
{
	bool ok;
	const char *state = gw_call_str(c, "State", 16, true, &ok);
	if (!ok)
		return false;
	if (strcmp(state, "Active") != 0 && strcmp(state, "History") != 0) {
		gw_call_fail(c, 400, "ValidationException",
			     "1 validation error detected: Value at 'state' failed to satisfy "
			     "constraint: Member must satisfy enum value set: [Active, History]");
		return false;
	}
	f->history = state[0] == 'H';
	const struct tnl_json *list = tnl_json_get(c->in, "Filters");
	if (!gw_page_count(c, "filters", list, 0, SESSION_FILTERS))
		return false;
	tnl_json_each(e, list)
		if (!read_session_filter(c, e, f))
			return false;
	return true;
}

static void write_owner_arn(const struct gw_session *s, char out[256])
{
	snprintf(out, 256, "arn:aws:iam::000000000000:user/%s", s->owner);
}

static bool session_matches(const struct gw_session *s, const struct session_filter *f, const char *caller)
{
	char arn[256];
	tnl_step();
	if (strcmp(s->owner, caller) != 0)
		return false;
	write_owner_arn(s, arn);
	return (!f->target || strcmp(f->target, s->target) == 0) &&
	       (!f->owner || strcmp(f->owner, arn) == 0 || strcmp(f->owner, s->owner) == 0) &&
	       (!f->status || strcmp(f->status, gw_session_status(s)) == 0) && (!f->id || strcmp(f->id, s->id) == 0) &&
	       (!f->after_ms || s->started_ms > f->after_ms) && (!f->before_ms || s->started_ms < f->before_ms);
}

/* Newest first; the same form as in a page token. */
static void write_session_key(const struct gw_session *s, char out[256])
{
	snprintf(out, 256, "%020llu %s", (unsigned long long)s->started_ms, s->id);
}

static int compare_newest_first(const void *a, const void *b)
{
	const struct gw_session *x = *(struct gw_session *const *)a, *y = *(struct gw_session *const *)b;
	if (x->started_ms != y->started_ms)
		return x->started_ms < y->started_ms ? 1 : -1;
	return strcmp(y->id, x->id);
}

static void write_session(struct tnl_jw *w, const struct gw_session *s)
{
	char arn[256], minutes[32];
	write_owner_arn(s, arn);
	tnl_jw_obj(w);
	tnl_jw_kv(w, "SessionId", s->id);
	tnl_jw_kv(w, "Target", s->target);
	tnl_jw_kv(w, "Status", gw_session_status(s));
	gw_page_date(w, "StartDate", s->started_ms);
	if (s->ended_ms)
		gw_page_date(w, "EndDate", s->ended_ms);
	tnl_jw_kv(w, "DocumentName", s->document);
	tnl_jw_kv(w, "Owner", arn);
	gw_page_optional(w, "Reason", s->reason);
	gw_page_optional(w, "Details", s->output);
	if (s->expires_ms) {
		snprintf(minutes, sizeof(minutes), "%llu",
			 (unsigned long long)((s->expires_ms - s->started_ms) / 60000));
		tnl_jw_kv(w, "MaxSessionDuration", minutes);
	}
	tnl_jw_end_obj(w);
}

static struct gw_session **list_sessions(struct gw_call *c, const struct session_filter *f, size_t *n)
{
	struct td_gateway *g = c->g;
	struct tnl_list *l = f->history ? &g->history : &g->active;
	size_t cap = f->history ? g->nhistory : g->nactive;
	struct gw_session **v = tnl_calloc(cap + 1, sizeof(*v));
	*n = 0;
	if (!v)
		return NULL;
	tnl_list_foreach(it, l) {
		struct gw_session *s = tnl_container_of(it, struct gw_session, by_age);
		if (*n < cap && session_matches(s, f, c->who->user->name))
			v[(*n)++] = s;
	}
	qsort(v, *n, sizeof(*v), compare_newest_first);
	return v;
}

/* A page under way: the sessions come newest first. */
struct listing {
	struct gw_call *c;
	struct session_filter filter;
	struct gw_page page;
	char caller[256], key[256];
	struct tnl_buf b;
	struct tnl_jw w;
	int64_t written;
	bool more;
	unsigned skip; /* of the store's */
};

static void begin_listing(struct listing *k)
{
	tnl_buf_init(&k->b, ANSWER_MAX);
	tnl_jw_init(&k->w, &k->b);
	tnl_jw_obj(&k->w);
	tnl_jw_key(&k->w, "Sessions");
	tnl_jw_arr(&k->w);
}

static void list_one(struct listing *k, const struct gw_session *s)
{
	char key[256];
	write_session_key(s, key);
	if (k->page.after[0] && strcmp(key, k->page.after) >= 0)
		return;
	if (k->written == k->page.max) {
		k->more = true;
		return;
	}
	write_session(&k->w, s);
	memcpy(k->key, key, sizeof(k->key));
	k->written++;
}

static void end_listing(struct listing *k)
{
	tnl_jw_end_arr(&k->w);
	if (k->more)
		gw_page_next(&k->w, k->key);
	tnl_jw_end_obj(&k->w);
	gw_call_ok(k->c, &k->b);
	tnl_buf_fini(&k->b);
}

/* --- from the store ----------------------------------------------------------------- */
#define PART 100u

static void free_listing(struct listing *k)
{
	tnl_buf_fini(&k->b);
	tnl_free(k);
}

static void list_record(struct listing *k, const struct td_store_session *r)
{
	const struct gw_session s = {
	    .state = GW_S_ENDED, /* its status is as the record has it */
	    .status = r->status,
	    .id = (char *)(uintptr_t)r->id,
	    .owner = (char *)(uintptr_t)r->owner,
	    .target = (char *)(uintptr_t)r->target,
	    .document = (char *)(uintptr_t)r->document,
	    .reason = (char *)(uintptr_t)r->reason,
	    .output = (char *)(uintptr_t)r->output,
	    .started_ms = r->started_ms,
	    .ended_ms = r->ended_ms,
	    .expires_ms = r->expires_ms,
	};
	if (session_matches(&s, &k->filter, k->caller))
		list_one(k, &s);
}

static void on_part(void *ctx, int err, const struct td_store_session *v, unsigned n, unsigned went)
{
	struct listing *k = ctx;
	struct gw_call *c = k->c;
	for (unsigned i = 0; i < n && !k->more; i++)
		list_record(k, &v[i]);
	k->skip += went;
	if (err == TNL_ECLOSED || !c->r) {
		if (err != TNL_ECLOSED) /* else the gateway has freed it */
			gw_call_free(c);
		free_listing(k);
	} else if (err != 0) {
		gw_call_unavailable(c);
		free_listing(k);
	} else if (went == PART && !k->more) {
		td_store_list(c->g->store, k->caller, k->filter.history, k->skip, PART, on_part, k);
	} else {
		end_listing(k);
		free_listing(k);
	}
}

static void list_from_store(const struct listing *form)
{
	struct listing *k = tnl_malloc(sizeof(*k));
	struct gw_call *c = form->c;
	if (!k) {
		gw_call_fail(c, 500, "InternalServerError", "out of memory");
		return;
	}
	*k = *form;
	c->who = NULL;
	begin_listing(k);
	td_store_list(c->g->store, k->caller, k->filter.history, 0, PART, on_part, k);
}

void gw_op_describe_sessions(struct gw_call *c)
{
	struct listing k = {.c = c};
	if (!read_session_filters(c, &k.filter) || !gw_page_read(c, 1, 200, &k.page))
		return;
	snprintf(k.caller, sizeof(k.caller), "%s", c->who->user->name);
	if (!gw_rate_listing(c, c->g->shared ? STORE_LOOKS : k.filter.history ? c->g->nhistory : c->g->nactive))
		return;
	if (c->g->shared) {
		list_from_store(&k);
		return;
	}
	size_t n;
	struct gw_session **v = list_sessions(c, &k.filter, &n);
	if (!v) {
		gw_call_fail(c, 500, "InternalServerError", "out of memory");
		return;
	}
	begin_listing(&k);
	for (size_t i = 0; i < n && !k.more; i++)
		list_one(&k, v[i]);
	tnl_free(v);
	end_listing(&k);
}
