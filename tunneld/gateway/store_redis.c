/* The shared store: opening it, its two connections, the heartbeat.
 *
 * It is opened on a loop of its own, which is run until the server has answered: a wrong password, a store of another
 * version or a node name in use is then one line and no gateway.  After that one connection asks, on the gateway's
 * loop, and another listens.  Only when both are there, and the heartbeat was answered, is the gateway asked to tell
 * the store what it has (announce): other nodes send it nothing before it can hear them. */
#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/enc.h"
#include "lib/err.h"
#include "lib/num.h"
#include "tunneld/base/log.h"
#include "tunneld/gateway/store_redis_internal.h"
#include <stdio.h>
#include <string.h>

#define START_NS (4 * TD_SEC) /* for a server that does not answer yet */
#define CLOSE_NS TD_SEC

/* Opening and loading, on a loop of its own. */
struct store_start {
	struct store_redis *s;
	struct td_loop *l;
	struct td_redis *c;
	struct td_timer timer;
	char why[700];
	bool ok, over;
	int left; /* answers that are still to come */
	void (*each)(void *ctx, const struct td_store_session *r);
	void *ctx;
};

/* --- asking ------------------------------------------------------------------- */
int td_store_redis_script(struct td_redis *c, enum store_script k, const struct tnl_redis_arg *v, size_t n,
			  td_redis_fn *fn, void *ctx)
{
	struct tnl_redis_arg all[TD_REDIS_ARGS_MAX] = {STORE_TEXT("EVALSHA"), STORE_TEXT(td_store_script_sha(k)),
						       STORE_TEXT("0")};
	if (n + 3 > TD_REDIS_ARGS_MAX)
		return TNL_EINVAL;
	memcpy(&all[3], v, n * sizeof(*v));
	return td_redis_send(c, all, n + 3, fn, ctx);
}

/* Errors of the server: of one that has restarted, or is no master any more, another connection is made. */
static int server_error(struct store_redis *s, const char *text)
{
	static const char *const other[] = {"NOSCRIPT", "READONLY", "MASTERDOWN", "LOADING"};
	for (size_t i = 0; i < TNL_COUNT(other); i++)
		if (strncmp(text, other[i], strlen(other[i])) == 0) {
			td_redis_reconnect(s->cmd, text);
			return TNL_EIO;
		}
	if (!s->complained)
		td_error("store", NULL, "the store refuses what it is asked error=\"%.200s\"", text);
	s->complained = true;
	return TNL_EIO;
}

static void end_ask(struct store_ask *a, int err, const struct tnl_redis_reply *r)
{
	tnl_list_remove(&a->node);
	if (!a->forgotten)
		a->take(a, err, r);
	tnl_free(a->id);
	tnl_free(a);
}

static void on_answer(void *ctx, int err, const struct tnl_redis_reply *r)
{
	struct store_ask *a = ctx;
	struct store_redis *s = a->s;
	if (err == 0 && r->type == TNL_REDIS_ERROR)
		err = server_error(s, r->str);
	else if (err == 0)
		s->complained = false;
	end_ask(a, err, err == 0 ? r : NULL);
}

void td_store_redis_ask(struct store_redis *s, enum store_script k, const struct tnl_redis_arg *v, size_t n,
			struct store_ask *form)
{
	struct store_ask *a = tnl_malloc(sizeof(*a));
	form->s = s;
	if (!a) {
		form->take(form, TNL_ENOMEM, NULL);
		tnl_free(form->id);
		return;
	}
	*a = *form;
	tnl_list_push_back(&s->asks, &a->node);
	int rc = k == STORE_SCRIPTS ? td_redis_send(s->cmd, v, n, on_answer, a)
				    : td_store_redis_script(s->cmd, k, v, n, on_answer, a);
	if (rc != 0)
		end_ask(a, rc, NULL);
}

void td_store_forget(struct td_store *store, const void *ctx)
{
	struct store_redis *s = td_store_impl(store);
	if (!s)
		return;
	tnl_list_foreach(it, &s->asks) {
		struct store_ask *a = tnl_container_of(it, struct store_ask, node);
		if (a->ctx == ctx)
			a->forgotten = true;
	}
}

/* --- the heartbeat ---------------------------------------------------------------- */
static void take_node(struct store_redis *s, const char *name, const char *value)
{
	const char *peer = value ? strchr(value, ' ') : NULL;
	if (!name || !peer || strcmp(name, s->node) == 0 || s->nnodes == STORE_NODES)
		return;
	struct td_store_node *n = &s->nodes[s->nnodes++];
	snprintf(n->name, sizeof(n->name), "%s", name);
	snprintf(n->peer, sizeof(n->peer), "%s", peer + 1);
}

static void on_taken(struct store_redis *s)
{
	if (!s->taken)
		td_error("store", NULL,
			 "another gateway runs as node %s: give each a name of its own (node in [gateway]); "
			 "this one serves no more",
			 s->node);
	s->taken = true;
	s->cb.taken(s->ctx);
}

static void on_beat(void *ctx, int err, const struct tnl_redis_reply *r)
{
	struct store_redis *s = ctx;
	if (err == 0 && r->type == TNL_REDIS_ERROR)
		err = server_error(s, r->str);
	if (err != 0 || s->taken)
		return;
	int64_t known = tnl_redis_int_at(r, 0, 0);
	if (known < 0) {
		on_taken(s);
		return;
	}
	s->nnodes = 0;
	for (size_t i = 1; i + 1 < r->n; i += 2)
		take_node(s, tnl_redis_str_at(r, i), tnl_redis_str_at(r, i + 1));
	bool again = !s->announced || !known;
	if (s->away)
		td_warn("store", NULL, "the store is there again server=%s", td_redis_peer(s->cmd));
	s->announced = true;
	s->away = false;
	if (again)
		s->cb.announce(s->ctx);
	else
		s->cb.beat(s->ctx);
}

static size_t node_args(const struct store_redis *s, struct tnl_redis_arg v[4], char ms[16])
{
	snprintf(ms, 16, "%u", STORE_NODE_MS);
	v[0] = STORE_TEXT(s->node);
	v[1] = STORE_TEXT(s->incarnation);
	v[2] = STORE_TEXT(s->peer);
	v[3] = STORE_TEXT(ms);
	return 4;
}

static void beat(void *arg)
{
	struct store_redis *s = arg;
	struct tnl_redis_arg v[4];
	char ms[16];
	td_timer_in(&s->beat, STORE_BEAT_NS);
	if (s->taken || !td_redis_is_up(s->cmd) || !td_redis_is_up(s->sub))
		return;
	(void)td_store_redis_script(s->cmd, STORE_BEAT, v, node_args(s, v, ms), on_beat, s);
}

void td_store_look_again(struct td_store *store)
{
	struct store_redis *s = td_store_impl(store);
	if (s)
		beat(s);
}

/* --- the connections --------------------------------------------------------------- */
static void on_cmd_up(void *ctx)
{
	struct store_redis *s = ctx;
	td_store_scripts_load(s->cmd);
	beat(s);
}

static void on_sub_up(void *ctx)
{
	beat(ctx);
}

static void on_down(void *ctx, int err, const char *why)
{
	struct store_redis *s = ctx;
	s->announced = false;
	if (!s->away)
		td_error("store", NULL,
			 "the store is away: what runs goes on, new sessions wait and then fail error=\"%s\"", why);
	s->away = true;
}

static void on_message(void *ctx, const char *channel, const void *p, size_t n)
{
	struct store_redis *s = ctx;
	s->cb.message(s->ctx, p, n);
}

static bool open_connections(struct store_redis *s, struct tnl_tls_ctx *tls)
{
	static const struct td_redis_cb cmd = {.up = on_cmd_up, .down = on_down};
	static const struct td_redis_cb sub = {.up = on_sub_up, .down = on_down, .message = on_message};
	struct td_redis_opts o = {.url = &s->url, .tls = tls};
	s->cmd = td_redis_new(s->l, &o, &cmd, s);
	o.channels = s->channels;
	o.nchannels = 2;
	s->sub = td_redis_new(s->l, &o, &sub, s);
	td_timer_init(&s->beat, s->l, beat, s);
	return s->cmd && s->sub;
}

/* --- opening -------------------------------------------------------------------------- */
static void end_start(struct store_start *t, bool ok)
{
	t->ok = ok;
	t->over = true;
	td_loop_stop(t->l);
}

static void on_claimed(void *ctx, int err, const struct tnl_redis_reply *r)
{
	struct store_start *t = ctx;
	if (err != 0)
		return;
	if (r->type == TNL_REDIS_ERROR)
		snprintf(t->why, sizeof(t->why), "%s: %.200s%s", td_redis_peer(t->c), r->str,
			 strstr(r->str, "PERM") ? "; docs/scale.md has the commands that it must allow" : "");
	else if (r->integer != 1)
		snprintf(t->why, sizeof(t->why),
			 "another gateway runs as node %s; give each a name of its own (node in [gateway])",
			 t->s->node);
	end_start(t, r->type == TNL_REDIS_INTEGER && r->integer == 1);
}

static void claim(struct store_start *t)
{
	struct tnl_redis_arg v[4];
	char ms[16];
	td_store_scripts_load(t->c);
	if (td_store_redis_script(t->c, STORE_CLAIM, v, node_args(t->s, v, ms), on_claimed, t) != 0)
		end_start(t, false);
}

static void on_probed(void *ctx, int err, const struct tnl_redis_reply *r)
{
	struct store_start *t = ctx;
	if (err != 0 || t->over)
		return;
	if (r->type == TNL_REDIS_ERROR) {
		snprintf(t->why, sizeof(t->why), "%s: %.200s%s", td_redis_peer(t->c), r->str,
			 strstr(r->str, "unknown command") ? "; Redis 6.2 or later is wanted" : "");
		end_start(t, false);
	}
}

static void on_schema(void *ctx, int err, const struct tnl_redis_reply *r)
{
	struct store_start *t = ctx;
	if (err != 0 || t->over)
		return;
	if (r->type == TNL_REDIS_ERROR) {
		on_probed(ctx, err, r);
	} else if (r->str && strcmp(r->str, STORE_SCHEMA) != 0) {
		snprintf(t->why, sizeof(t->why),
			 "%s: written by another version of tunneld (schema %.20s, this one has " STORE_SCHEMA
			 "); use another database",
			 td_redis_peer(t->c), r->str);
		end_start(t, false);
	} else {
		claim(t);
	}
}

static void on_start_up(void *ctx)
{
	struct store_start *t = ctx;
	const struct tnl_redis_arg probe[] = {STORE_TEXT("GETDEL"), STORE_TEXT("tunneld:" STORE_SCHEMA ":probe")};
	const struct tnl_redis_arg set[] = {STORE_TEXT("SET"), STORE_TEXT("tunneld:schema"), STORE_TEXT(STORE_SCHEMA),
					    STORE_TEXT("NX")};
	const struct tnl_redis_arg get[] = {STORE_TEXT("GET"), STORE_TEXT("tunneld:schema")};
	if (td_redis_send(t->c, probe, 2, on_probed, t) != 0 || td_redis_send(t->c, set, 4, on_probed, t) != 0 ||
	    td_redis_send(t->c, get, 2, on_schema, t) != 0)
		end_start(t, false);
}

static void on_start_down(void *ctx, int err, const char *why)
{
	struct store_start *t = ctx;
	if (t->over)
		return;
	snprintf(t->why, sizeof(t->why), "%s", why);
	if (err == TNL_EAUTH || err == TNL_ECERT || err == TNL_ETLS || err == TNL_ENOTFOUND)
		end_start(t, false);
}

static void on_start_late(void *arg)
{
	end_start(arg, false);
}

static void run_start(struct store_start *t)
{
	t->over = t->ok = false;
	td_loop_update(t->l);
	td_timer_init(&t->timer, t->l, on_start_late, t);
	td_timer_in(&t->timer, START_NS);
	td_loop_run(t->l);
	td_timer_stop(&t->timer);
}

static void free_start(struct store_redis *s)
{
	struct store_start *t = s->start;
	if (!t)
		return;
	s->start = NULL;
	td_redis_free(t->c);
	td_loop_free(t->l);
	tnl_free(t);
}

static bool begin(struct store_redis *s, struct tnl_tls_ctx *tls, char *why, size_t cap)
{
	static const struct td_redis_cb cb = {.up = on_start_up, .down = on_start_down};
	const struct td_redis_opts o = {.url = &s->url, .tls = tls, .timeout_ns = START_NS};
	struct store_start *t = s->start = tnl_calloc(1, sizeof(*t));
	if (!t || !(t->l = td_loop_new())) {
		tnl_free(t);
		s->start = NULL;
		return false;
	}
	t->s = s;
	t->c = td_redis_new(t->l, &o, &cb, t);
	if (t->c)
		run_start(t);
	if (!t->ok)
		snprintf(why, cap, "store: %s", t->why[0] ? t->why : "the server does not answer");
	return t->ok;
}

static void redis_close(void *impl);

static void *redis_open(struct td_loop *l, const struct td_store_opts *o, char *why, size_t cap)
{
	uint8_t rnd[16];
	const char *fault;
	struct store_redis *s = tnl_calloc(1, sizeof(*s));
	snprintf(why, cap, "out of memory");
	if (!s)
		return NULL;
	s->l = l;
	s->cb = *o->cb;
	s->ctx = o->ctx;
	tnl_list_init(&s->asks);
	tnl_random(rnd, sizeof(rnd));
	tnl_hex(rnd, sizeof(rnd), s->incarnation);
	snprintf(s->node, sizeof(s->node), "%s", o->node);
	snprintf(s->peer, sizeof(s->peer), "%s", o->peer ? o->peer : "");
	snprintf(s->channel, sizeof(s->channel), "tunneld:" STORE_SCHEMA ":n:%s", s->node);
	s->channels[0] = s->channel;
	s->channels[1] = "tunneld:" STORE_SCHEMA ":all";
	if (tnl_redis_url_parse(o->spec, &s->url, &fault) != 0) {
		snprintf(why, cap, "store: %s", fault);
	} else if (begin(s, o->tls, why, cap) && open_connections(s, o->tls)) {
		return s;
	}
	redis_close(s);
	return NULL;
}

/* --- loading ------------------------------------------------------------------------------ */
static void on_loaded(void *ctx, int err, const struct tnl_redis_reply *r)
{
	struct store_start *t = ctx;
	struct td_store_session rec;
	const char *state = err == 0 ? tnl_redis_str_at(r, 0) : NULL;
	if (state && strcmp(state, "ours") == 0) {
		td_store_record_read(tnl_redis_at(r, 4), NULL, &rec);
		rec.epoch = (uint64_t)tnl_redis_int_at(r, 2, 1);
		if (rec.id)
			t->each(t->ctx, &rec);
	}
	if (--t->left == 0)
		end_start(t, true);
}

static void on_mine(void *ctx, int err, const struct tnl_redis_reply *r)
{
	struct store_start *t = ctx;
	if (err != 0 || r->type != TNL_REDIS_ARRAY) {
		end_start(t, false);
		return;
	}
	t->left = 1;
	for (size_t i = 0; i < r->n; i++) {
		const char *id = tnl_redis_str_at(r, i);
		const struct tnl_redis_arg v[] = {STORE_TEXT(id ? id : ""), STORE_TEXT(t->s->node), STORE_TEXT("5")};
		if (td_store_redis_script(t->c, STORE_FIND, v, 3, on_loaded, t) == 0)
			t->left++;
	}
	if (--t->left == 0)
		end_start(t, true);
}

static int redis_load(void *impl, void (*each)(void *, const struct td_store_session *), void *ctx)
{
	struct store_redis *s = impl;
	struct store_start *t = s->start;
	char key[80];
	snprintf(key, sizeof(key), "tunneld:" STORE_SCHEMA ":of:%s", s->node);
	const struct tnl_redis_arg v[] = {STORE_TEXT("SMEMBERS"), STORE_TEXT(key)};
	t->each = each;
	t->ctx = ctx;
	if (td_redis_send(t->c, v, 2, on_mine, t) == 0)
		run_start(t);
	int rc = t->ok ? 0 : TNL_EIO;
	free_start(s);
	return rc;
}

/* --- the end --------------------------------------------------------------------------------- */
/* What is queued goes out, as long as the server is there to take it. */
static void write_rest(struct store_redis *s)
{
	const struct tnl_redis_arg v[] = {STORE_TEXT(s->node), STORE_TEXT(s->incarnation)};
	if (!s->cmd || !td_redis_is_up(s->cmd))
		return;
	s->taken = true; /* no beat any more */
	(void)td_store_redis_script(s->cmd, STORE_LEAVE, v, 2, NULL, NULL);
	td_loop_update(s->l);
	uint64_t until = s->l->now + CLOSE_NS;
	td_timer_in(&s->beat, CLOSE_NS);
	while (td_redis_is_up(s->cmd) && td_redis_queued(s->cmd) && s->l->now < until)
		ev_run(s->l->ev, EVRUN_ONCE);
}

static void redis_close(void *impl)
{
	struct store_redis *s = impl;
	free_start(s);
	tnl_list_foreach_safe(it, &s->asks) {
		struct store_ask *a = tnl_container_of(it, struct store_ask, node);
		if (!a->forgotten)
			a->take(a, TNL_ECLOSED, NULL);
		a->forgotten = true;
	}
	write_rest(s);
	td_timer_stop(&s->beat);
	td_redis_free(s->cmd);
	td_redis_free(s->sub);
	while (!tnl_list_empty(&s->asks)) {
		struct store_ask *a = tnl_container_of(s->asks.next, struct store_ask, node);
		tnl_list_remove(&a->node);
		tnl_free(a->id);
		tnl_free(a);
	}
	tnl_wipe(&s->url, sizeof(s->url));
	tnl_free(s);
}

static void redis_del(void *impl, const char *id) {}

static void redis_stats(void *impl, struct td_store_stats *out)
{
	*out = ((struct store_redis *)impl)->stats;
}

const struct td_store_ops td_store_redis = {
    "redis://", redis_open, redis_load, td_store_record_put, redis_del, redis_stats, redis_close,
};
const struct td_store_ops td_store_rediss = {
    "rediss://", redis_open, redis_load, td_store_record_put, redis_del, redis_stats, redis_close,
};
