/* What nodes share beside sessions: tokens that any of them takes, where instances are, how many sessions a user has on
 * all of them, and what they say to each other. */
#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/err.h"
#include "lib/num.h"
#include "tunneld/gateway/store_redis_internal.h"
#include <stdio.h>
#include <string.h>

static struct store_redis *shared(struct td_store *s)
{
	return td_store_impl(s);
}

static void *ctx_of(const struct store_ask *a)
{
	return (void *)(uintptr_t)a->ctx;
}

/* --- the store itself -------------------------------------------------------------- */
bool td_store_is_shared(const struct td_store *s)
{
	return td_store_impl(s) != NULL;
}

const char *td_store_node(const struct td_store *store)
{
	const struct store_redis *s = td_store_impl(store);
	return s ? s->node : "";
}

bool td_store_is_up(const struct td_store *store)
{
	const struct store_redis *s = td_store_impl(store);
	return !s || (s->announced && td_redis_is_up(s->cmd) && td_redis_is_up(s->sub));
}

const char *td_store_peer(const struct td_store *store)
{
	const struct store_redis *s = td_store_impl(store);
	return s ? td_redis_peer(s->cmd) : "";
}

const struct td_store_node *td_store_nodes(const struct td_store *store, unsigned *n)
{
	const struct store_redis *s = td_store_impl(store);
	*n = s ? s->nnodes : 0;
	return s ? s->nodes : NULL;
}

/* --- tokens ---------------------------------------------------------------------------- */
static void on_done(struct store_ask *a, int err, const struct tnl_redis_reply *r)
{
	if (a->fn.done)
		a->fn.done(ctx_of(a), err);
}

void td_store_token_put(struct td_store *store, const uint8_t hash[32], const char *value, uint64_t ttl_ms,
			td_store_done *fn, void *ctx)
{
	char key[90] = "tunneld:" STORE_SCHEMA ":tok:", ms[24];
	tnl_hex(hash, 32, key + strlen(key));
	snprintf(ms, sizeof(ms), "%llu", (unsigned long long)TNL_MAX(ttl_ms, 1u));
	const struct tnl_redis_arg v[] = {STORE_TEXT("SET"), STORE_TEXT(key), STORE_TEXT(value),
					  STORE_TEXT("PX"),  STORE_TEXT(ms),  STORE_TEXT("NX")};
	struct store_ask form = {.ctx = ctx, .take = on_done, .fn.done = fn};
	td_store_redis_ask(shared(store), STORE_SCRIPTS, v, 6, &form);
}

static void on_token(struct store_ask *a, int err, const struct tnl_redis_reply *r)
{
	a->fn.token(ctx_of(a), err, tnl_redis_str_at(r, 0), (unsigned)tnl_redis_int_at(r, 1, 0));
}

void td_store_token_take(struct td_store *store, const uint8_t (*hashes)[32], unsigned n, td_store_token_fn *fn,
			 void *ctx)
{
	char hex[8][65];
	struct tnl_redis_arg v[8];
	n = TNL_MIN(n, 8u);
	for (unsigned i = 0; i < n; i++) {
		tnl_hex(hashes[i], 32, hex[i]);
		v[i] = STORE_TEXT(hex[i]);
	}
	struct store_ask form = {.ctx = ctx, .take = on_token, .fn.token = fn};
	td_store_redis_ask(shared(store), STORE_TAKE, v, n, &form);
}

/* --- instances ------------------------------------------------------------------------------ */
static void on_nothing(struct store_ask *a, int err, const struct tnl_redis_reply *r) {}

static size_t add_facts(struct tnl_redis_arg *v, size_t k, const struct td_store_fact *f, unsigned n)
{
	for (unsigned i = 0; i < n && i < TD_STORE_FACTS; i++) {
		if (!f[i].value)
			continue;
		v[k++] = STORE_TEXT(f[i].key);
		v[k++] = STORE_TEXT(f[i].value);
	}
	return k;
}

void td_store_instance_up(struct td_store *store, const char *id, const struct td_store_fact *f, unsigned n)
{
	struct store_redis *s = shared(store);
	struct tnl_redis_arg v[2 + 2 * TD_STORE_FACTS] = {STORE_TEXT(s->node), STORE_TEXT(id)};
	struct store_ask form = {.take = on_nothing};
	td_store_redis_ask(s, STORE_UP, v, add_facts(v, 2, f, n), &form);
}

void td_store_instance_note(struct td_store *store, const char *id, const struct td_store_fact *f, unsigned n)
{
	struct tnl_redis_arg v[1 + 2 * TD_STORE_FACTS] = {STORE_TEXT(id)};
	struct store_ask form = {.take = on_nothing};
	td_store_redis_ask(shared(store), STORE_NOTE, v, add_facts(v, 1, f, n), &form);
}

void td_store_instance_down(struct td_store *store, const char *id, uint64_t ping_ms)
{
	struct store_redis *s = shared(store);
	char ping[24];
	snprintf(ping, sizeof(ping), "%llu", (unsigned long long)ping_ms);
	const struct tnl_redis_arg v[] = {STORE_TEXT(s->node), STORE_TEXT(id), STORE_TEXT(ping)};
	struct store_ask form = {.take = on_nothing};
	td_store_redis_ask(s, STORE_DOWN, v, 3, &form);
}

static void read_instance(const struct tnl_redis_reply *node, const struct tnl_redis_reply *all,
			  struct td_store_instance *out)
{
	*out = (struct td_store_instance){.node = node && node->str ? node->str : ""};
	for (size_t i = 0; all && i + 1 < all->n && out->n < TD_STORE_FACTS; i += 2) {
		struct td_store_fact f = {tnl_redis_str_at(all, i), tnl_redis_str_at(all, i + 1)};
		if (f.key && f.value && strcmp(f.key, "node") != 0)
			out->v[out->n++] = f;
	}
}

static void on_instances(struct store_ask *a, int err, const struct tnl_redis_reply *r)
{
	struct td_store_instance v[TD_STORE_ASK_MAX];
	unsigned n = r ? (unsigned)TNL_MIN(r->n / 2, (size_t)TD_STORE_ASK_MAX) : 0;
	for (unsigned i = 0; i < n; i++)
		read_instance(tnl_redis_at(r, 2 * i), tnl_redis_at(r, 2 * i + 1), &v[i]);
	a->fn.instances(ctx_of(a), err, v, n);
}

void td_store_instances(struct td_store *store, const char *const *ids, unsigned n, td_store_instances_fn *fn,
			void *ctx)
{
	struct tnl_redis_arg v[TD_STORE_ASK_MAX];
	n = TNL_MIN(n, TD_STORE_ASK_MAX);
	for (unsigned i = 0; i < n; i++)
		v[i] = STORE_TEXT(ids[i]);
	struct store_ask form = {.ctx = ctx, .take = on_instances, .fn.instances = fn};
	td_store_redis_ask(shared(store), STORE_WHERE, v, n, &form);
}

/* --- places --------------------------------------------------------------------------------- */
static void on_admitted(struct store_ask *a, int err, const struct tnl_redis_reply *r)
{
	const char *node = tnl_redis_str_at(r, 1);
	int64_t verdict = tnl_redis_int_at(r, 0, TD_STORE_AWAY);
	a->fn.admit(ctx_of(a), err, (enum td_store_verdict)verdict, node ? node : "");
}

void td_store_admit(struct td_store *store, const struct td_store_claim *c, td_store_admit_fn *fn, void *ctx)
{
	struct store_redis *s = shared(store);
	const unsigned limits[] = {c->user_max, c->instance_max, c->user_per_minute, c->instance_per_minute};
	char text[4][16];
	struct tnl_redis_arg v[8] = {STORE_TEXT(s->node), STORE_TEXT(c->user), STORE_TEXT(c->instance)};
	for (size_t i = 0; i < 4; i++) {
		snprintf(text[i], sizeof(text[i]), "%u", limits[i]);
		v[3 + i] = STORE_TEXT(text[i]);
	}
	v[7] = STORE_TEXT(c->here ? "1" : "0");
	struct store_ask form = {.ctx = ctx, .take = on_admitted, .fn.admit = fn};
	td_store_redis_ask(s, STORE_ADMIT, v, 8, &form);
}

void td_store_count(struct td_store *store, const char *user, const char *instance, int delta)
{
	struct store_redis *s = shared(store);
	char by[16];
	snprintf(by, sizeof(by), "%d", delta);
	const struct tnl_redis_arg v[] = {STORE_TEXT(s->node), STORE_TEXT(user), STORE_TEXT(instance), STORE_TEXT(by)};
	struct store_ask form = {.take = on_nothing};
	td_store_redis_ask(s, STORE_COUNT, v, 4, &form);
}

static void on_counts(struct store_ask *a, int err, const struct tnl_redis_reply *r)
{
	unsigned v[TD_STORE_ASK_MAX], n = r ? (unsigned)TNL_MIN(r->n, (size_t)TD_STORE_ASK_MAX) : 0;
	for (unsigned i = 0; i < n; i++)
		v[i] = (unsigned)TNL_MAX(tnl_redis_int_at(r, i, 0), 0);
	a->fn.counts(ctx_of(a), err, v, n);
}

void td_store_counts(struct td_store *store, bool of_instances, const char *const *names, unsigned n,
		     td_store_counts_fn *fn, void *ctx)
{
	struct store_redis *s = shared(store);
	struct tnl_redis_arg v[2 + TD_STORE_ASK_MAX] = {STORE_TEXT(s->node), STORE_TEXT(of_instances ? "i " : "u ")};
	n = TNL_MIN(n, TD_STORE_ASK_MAX);
	for (unsigned i = 0; i < n; i++)
		v[2 + i] = STORE_TEXT(names[i]);
	struct store_ask form = {.ctx = ctx, .take = on_counts, .fn.counts = fn};
	td_store_redis_ask(s, STORE_SUMS, v, 2 + n, &form);
}

void td_store_count_anew(struct td_store *store)
{
	struct store_redis *s = shared(store);
	char key[80];
	snprintf(key, sizeof(key), "tunneld:" STORE_SCHEMA ":load:%s", s->node);
	const struct tnl_redis_arg v[] = {STORE_TEXT("DEL"), STORE_TEXT(key)};
	struct store_ask form = {.take = on_nothing};
	td_store_redis_ask(s, STORE_SCRIPTS, v, 2, &form);
}

void td_store_leaving(struct td_store *store)
{
	struct store_redis *s = shared(store);
	char key[80];
	snprintf(key, sizeof(key), "tunneld:" STORE_SCHEMA ":leaving:%s", s->node);
	const struct tnl_redis_arg v[] = {STORE_TEXT("SET"), STORE_TEXT(key), STORE_TEXT("1"), STORE_TEXT("PX"),
					  STORE_TEXT("3600000")};
	struct store_ask form = {.take = on_nothing};
	td_store_redis_ask(s, STORE_SCRIPTS, v, 5, &form);
}

void td_store_look(struct td_store *store)
{
	struct store_redis *s = shared(store);
	if (s->beat.at > s->l->now + STORE_LOOK_NS)
		td_timer_in(&s->beat, STORE_LOOK_NS);
}

/* --- words ------------------------------------------------------------------------------------ */
static void on_said(struct store_ask *a, int err, const struct tnl_redis_reply *r)
{
	if (a->fn.said)
		a->fn.said(ctx_of(a), err, r && r->integer > 0 ? (unsigned)r->integer : 0);
}

void td_store_say(struct td_store *store, const char *node, const char *text, size_t n, td_store_said_fn *fn, void *ctx)
{
	char channel[100];
	snprintf(channel, sizeof(channel), "tunneld:" STORE_SCHEMA ":%s%s", node ? "n:" : "all", node ? node : "");
	const struct tnl_redis_arg v[] = {STORE_TEXT("PUBLISH"), STORE_TEXT(channel), {text, n}};
	struct store_ask form = {.ctx = ctx, .take = on_said, .fn.said = fn};
	td_store_redis_ask(shared(store), STORE_SCRIPTS, v, 3, &form);
}
