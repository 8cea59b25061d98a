/* Sessions in the shared store: written by the node that owns them, found by any. */
#include "lib/alloc.h"
#include "lib/err.h"
#include "lib/num.h"
#include "tunneld/base/log.h"
#include "tunneld/gateway/store_redis_internal.h"
#include <stdio.h>
#include <string.h>

static const struct {
	const char *name;
	size_t off;
} texts[] =
    {
#define TEXT(name, f)                                                                                                  \
	{                                                                                                              \
		name, offsetof(struct td_store_session, f)                                                             \
	}
	TEXT("id", id),
	TEXT("owner", owner),
	TEXT("target", target),
	TEXT("document", document),
	TEXT("parameters", parameters),
	TEXT("reason", reason),
	TEXT("client", client_id),
	TEXT("status", status),
	TEXT("output", output),
#undef TEXT
},
  numbers[] = {
      {"start", offsetof(struct td_store_session, started_ms)},
      {"end", offsetof(struct td_store_session, ended_ms)},
      {"expires", offsetof(struct td_store_session, expires_ms)},
      {"grants", offsetof(struct td_store_session, grants)}, /* older versions have none, and leave it alone */
};

static const char **text_of(struct td_store_session *r, size_t i)
{
	return (const char **)(void *)((char *)r + texts[i].off);
}

static uint64_t *number_of(struct td_store_session *r, size_t i)
{
	return (uint64_t *)(void *)((char *)r + numbers[i].off);
}

/* --- writing ---------------------------------------------------------------------- */
static void on_put(struct store_ask *a, int err, const struct tnl_redis_reply *r)
{
	struct store_redis *s = a->s;
	s->stats.queued--;
	if (err == 0)
		s->stats.written++;
	else
		s->stats.failed++;
	bool lost = err == 0 && r->integer == 0;
	if (a->fn.done)
		a->fn.done((void *)(uintptr_t)a->ctx, err == 0 ? lost ? TNL_EEXPIRED : 0 : TNL_EIO);
	if (lost)
		s->cb.lost(s->ctx, a->id);
}

#define PUT_ARGS (7 + 2 * (TNL_COUNT(texts) + TNL_COUNT(numbers)))

void td_store_record_put(void *impl, const struct td_store_session *r, td_store_done *fn, void *ctx)
{
	struct store_redis *s = impl;
	struct td_store_session copy = *r;
	struct tnl_redis_arg v[PUT_ARGS];
	char n[TNL_COUNT(numbers)][24], epoch[24], keep[24], start[24];
	snprintf(epoch, sizeof(epoch), "%llu", (unsigned long long)r->epoch);
	snprintf(keep, sizeof(keep), "%llu", (unsigned long long)TNL_MAX(r->keep_ms, 1u));
	snprintf(start, sizeof(start), "%llu", (unsigned long long)r->started_ms);
	size_t k = 0;
	v[k++] = STORE_TEXT(r->id);
	v[k++] = STORE_TEXT(s->node);
	v[k++] = STORE_TEXT(epoch);
	v[k++] = STORE_TEXT(r->ended_ms ? "0" : "1");
	v[k++] = STORE_TEXT(keep);
	v[k++] = STORE_TEXT(r->owner);
	v[k++] = STORE_TEXT(start);
	for (size_t i = 0; i < TNL_COUNT(texts); i++) {
		const char *text = *text_of(&copy, i);
		v[k++] = STORE_TEXT(texts[i].name);
		v[k++] = STORE_TEXT(text ? text : "");
	}
	for (size_t i = 0; i < TNL_COUNT(numbers); i++) {
		snprintf(n[i], sizeof(n[i]), "%llu", (unsigned long long)*number_of(&copy, i));
		v[k++] = STORE_TEXT(numbers[i].name);
		v[k++] = STORE_TEXT(n[i]);
	}
	s->stats.queued++;
	struct store_ask form = {.ctx = ctx, .take = on_put, .fn.done = fn, .id = tnl_strdup(r->id)};
	td_store_redis_ask(s, STORE_PUT, v, k, &form);
}

/* --- reading ------------------------------------------------------------------------ */
static bool read_field(const char *name, const char *value, struct td_store_session *r)
{
	for (size_t i = 0; i < TNL_COUNT(texts); i++)
		if (strcmp(name, texts[i].name) == 0) {
			*text_of(r, i) = value;
			return true;
		}
	return false;
}

/* A flat list of names and values, which the record points into. */
void td_store_record_read(const struct tnl_redis_reply *all, const char *id, struct td_store_session *r)
{
	*r = (struct td_store_session){.epoch = 1};
	for (size_t i = 0; i < TNL_COUNT(texts); i++)
		*text_of(r, i) = "";
	r->id = id;
	for (size_t i = 0; all && i + 1 < all->n; i += 2) {
		const char *name = tnl_redis_str_at(all, i), *value = tnl_redis_str_at(all, i + 1);
		if (!name || !value || read_field(name, value, r))
			continue;
		int64_t v = tnl_redis_int_at(all, i + 1, 0);
		for (size_t k = 0; k < TNL_COUNT(numbers); k++)
			if (strcmp(name, numbers[k].name) == 0)
				*number_of(r, k) = v > 0 ? (uint64_t)v : 0;
		if (strcmp(name, "epoch") == 0)
			r->epoch = v > 0 ? (uint64_t)v : 1;
	}
}

static enum td_store_where where_of(const char *state)
{
	static const char *const names[] = {[TD_STORE_NONE] = "none",
					    [TD_STORE_ENDED] = "ended",
					    [TD_STORE_OTHER] = "other",
					    [TD_STORE_FREE] = "free",
					    [TD_STORE_OURS] = "ours"};
	for (size_t i = 0; state && i < TNL_COUNT(names); i++)
		if (strcmp(state, names[i]) == 0)
			return (enum td_store_where)i;
	return TD_STORE_NONE;
}

static void on_found(struct store_ask *a, int err, const struct tnl_redis_reply *r)
{
	struct td_store_session rec;
	struct td_store_found f = {.where = where_of(tnl_redis_str_at(r, 0))};
	const char *value = tnl_redis_str_at(r, 3), *peer = value ? strchr(value, ' ') : NULL;
	f.node = tnl_redis_str_at(r, 1) ? tnl_redis_str_at(r, 1) : "";
	f.peer = peer ? peer + 1 : "";
	if (f.where != TD_STORE_NONE) {
		td_store_record_read(tnl_redis_at(r, 4), a->id, &rec);
		f.r = &rec;
	}
	a->fn.find((void *)(uintptr_t)a->ctx, err, &f);
}

void td_store_find(struct td_store *store, const char *id, enum td_store_take take, td_store_find_fn *fn, void *ctx)
{
	struct store_redis *s = td_store_impl(store);
	static const char *const how[] = {[TD_STORE_LOOK] = "0",
					  [TD_STORE_TAKE] = "1",
					  [TD_STORE_TAKE_BACK] = "2",
					  [TD_STORE_UNITE] = "3",
					  [TD_STORE_MAY_UNITE] = "4"};
	const struct tnl_redis_arg v[] = {STORE_TEXT(id), STORE_TEXT(s->node), STORE_TEXT(how[take])};
	struct store_ask form = {.ctx = ctx, .take = on_found, .fn.find = fn, .id = tnl_strdup(id)};
	td_store_redis_ask(s, STORE_FIND, v, 3, &form);
}

static void on_listed(struct store_ask *a, int err, const struct tnl_redis_reply *r)
{
	unsigned n = 0;
	struct td_store_session *v = r && r->n ? tnl_calloc(r->n / 2 + 1, sizeof(*v)) : NULL;
	if (r && r->n && !v)
		err = TNL_ENOMEM;
	for (size_t i = 0; v && i + 1 < r->n; i += 2) {
		const struct tnl_redis_reply *all = tnl_redis_at(r, i + 1);
		if (!tnl_redis_str_at(r, i) || !all || !all->n)
			continue;
		td_store_record_read(all, tnl_redis_str_at(r, i), &v[n++]);
	}
	a->fn.list((void *)(uintptr_t)a->ctx, err, v, n, r ? (unsigned)(r->n / 2) : 0);
	tnl_free(v);
}

void td_store_list(struct td_store *store, const char *user, bool past, unsigned skip, unsigned max,
		   td_store_list_fn *fn, void *ctx)
{
	struct store_redis *s = td_store_impl(store);
	char set[300], from[16], count[16];
	snprintf(set, sizeof(set), "%s:%s", past ? "past" : "act", user);
	snprintf(from, sizeof(from), "%u", skip);
	snprintf(count, sizeof(count), "%u", max);
	const struct tnl_redis_arg v[] = {STORE_TEXT(set), STORE_TEXT(from), STORE_TEXT(count)};
	struct store_ask form = {.ctx = ctx, .take = on_listed, .fn.list = fn};
	td_store_redis_ask(s, STORE_LIST, v, 3, &form);
}
