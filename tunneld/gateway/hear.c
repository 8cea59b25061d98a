/* What other nodes say, and what the store says by itself.  When the store has forgotten us (it restarted, another
 * server took over, we were away), it is told again what we have: instances, counts, sessions; in parts, so that
 * thousands of them do not hold up the loop. */
#include "tunneld/gateway/shared_internal.h"
#include "lib/num.h"
#include <string.h>

#define PART 200u
#define PART_EVERY (10 * TD_MS)
#define SAVE_EVERY (600 * TD_SEC) /* records, so that they do not expire */

/* --- words ------------------------------------------------------------------------ */
static struct gw_instance *instance_of(struct td_gateway *g, const struct tnl_json *m)
{
	const char *id = tnl_json_get_str(m, "instance");
	return id ? gw_instance_get(g, id) : NULL;
}

static struct gw_session *session_of(struct td_gateway *g, const struct tnl_json *m)
{
	const char *id = tnl_json_get_str(m, "session");
	return id ? gw_session_get(g, id) : NULL;
}

static const char *from_of(const struct tnl_json *m)
{
	const char *from = tnl_json_get_str(m, "from");
	return from && strlen(from) <= TD_NODE_MAX ? from : "";
}

static void hear_start(struct td_gateway *g, const struct tnl_json *m)
{
	struct gw_instance *i = instance_of(g, m);
	const char *text = tnl_json_get_str(m, "text");
	bool ok = i && i->link && text && *text;
	if (ok)
		gw_instance_send(i, TNL_MT_INTERACTIVE_SHELL, text, strlen(text));
	gw_words_answer(g, m, ok);
}

static void hear_closed(struct td_gateway *g, const struct tnl_json *m)
{
	struct gw_instance *i = instance_of(g, m);
	const char *text = tnl_json_get_str(m, "text");
	if (i && i->link && text)
		gw_instance_send(i, TNL_MT_CHANNEL_CLOSED, text, strlen(text));
}

static void hear_up(struct td_gateway *g, const struct tnl_json *m)
{
	struct gw_instance *i = instance_of(g, m);
	if (i)
		gw_control_arrived(i, from_of(m));
}

static void hear_down(struct td_gateway *g, const struct tnl_json *m)
{
	struct gw_instance *i = instance_of(g, m);
	if (i && strcmp(i->remote, from_of(m)) == 0)
		gw_instance_at(i, "");
}

static void hear_restarted(struct td_gateway *g, const struct tnl_json *m)
{
	struct gw_instance *i = instance_of(g, m);
	if (i)
		gw_control_restarted(i);
}

static void on_where(void *ctx, int err, const struct td_store_instance *v, unsigned n)
{
	struct gw_instance *i = ctx;
	if (err != 0 || n == 0)
		return;
	gw_instance_read(i, &v[0]);
	struct gw_link *old = i->remote[0] ? i->link : NULL;
	if (!old)
		return;
	i->link = NULL;
	gw_count(i->g, GW_C_LINKS_REPLACED);
	gw_link_replace(old, "another agent connected with this instance_id");
}

/* Its control channel came to another node, ours was half open: unless it has come back here meanwhile. */
static void hear_moved(struct td_gateway *g, const struct tnl_json *m)
{
	struct gw_instance *i = instance_of(g, m);
	const char *const id = i ? i->id : NULL;
	if (i && i->link)
		td_store_instances(g->store, &id, 1, on_where, i);
}

/* What was said before we took it back comes late. */
static void hear_lost(struct td_gateway *g, const struct tnl_json *m)
{
	const struct gw_session *s = session_of(g, m);
	int64_t epoch;
	bool late = s && tnl_json_int(tnl_json_get(m, "epoch"), &epoch) && epoch >= 0 && (uint64_t)epoch < s->epoch;
	if (s && !late)
		gw_session_lose(g, s->id, from_of(m));
}

static void hear_touch(struct td_gateway *g, const struct tnl_json *m)
{
	struct gw_session *s = session_of(g, m);
	if (!s)
		return;
	gw_worker_hold(s->worker);
	s->last_stream = g->l->now;
}

static void hear_terminate(struct td_gateway *g, const struct tnl_json *m)
{
	struct gw_session *s = session_of(g, m);
	if (s)
		gw_session_end(s, "Terminated", "");
	gw_words_answer(g, m, s != NULL);
}

static void hear_completed(struct td_gateway *g, const struct tnl_json *m)
{
	const char *id = tnl_json_get_str(m, "session"), *instance = tnl_json_get_str(m, "instance");
	bool known = id && instance &&
		     gw_control_completed(g, id, instance, tnl_json_bool(tnl_json_get(m, "success"), false),
					  tnl_json_get_str(m, "output"));
	gw_words_answer(g, m, known);
}

static void hear_here(struct td_gateway *g, const struct tnl_json *m)
{
	td_store_look(g->store);
}

static const struct {
	const char *op;
	void (*hear)(struct td_gateway *g, const struct tnl_json *m);
} ops[] = {
    {"answer", gw_words_answered}, {"start", hear_start},	  {"closed", hear_closed},	 {"up", hear_up},
    {"down", hear_down},	   {"restarted", hear_restarted}, {"moved", hear_moved},	 {"lost", hear_lost},
    {"touch", hear_touch},	   {"terminate", hear_terminate}, {"completed", hear_completed}, {"here", hear_here},
};

static void on_message(void *ctx, const char *text, size_t n)
{
	struct td_gateway *g = ctx;
	struct tnl_json *m = n <= GW_WORDS_MAX ? tnl_json_parse(text, n) : NULL;
	const char *op = tnl_json_get_str(m, "op");
	bool ours = strcmp(from_of(m), g->node) == 0;
	for (size_t i = 0; op && !ours && i < TNL_COUNT(ops); i++)
		if (strcmp(op, ops[i].op) == 0) {
			ops[i].hear(g, m);
			break;
		}
	tnl_json_free(m);
}

/* --- what the store is told anew ------------------------------------------------------ */
static unsigned tell_instances(struct td_gateway *g, unsigned left)
{
	size_t it = 0, klen;
	const void *key;
	for (struct gw_instance *i; left && (i = tnl_map_next(g->instances, &it, &key, &klen)) != NULL;) {
		if (i->told == g->told)
			continue;
		i->told = g->told;
		if (i->link) {
			gw_instance_tell(i);
			left--;
		}
	}
	return left;
}

/* Of those that ended meanwhile the store may not have heard. */
static unsigned tell_sessions(struct td_gateway *g, struct tnl_list *l, unsigned left)
{
	tnl_list_foreach_safe(it, l) {
		struct gw_session *s = tnl_container_of(it, struct gw_session, by_age);
		if (!left)
			break;
		if (s->told == g->told)
			continue;
		s->told = g->told;
		if (s->state != GW_S_ENDED)
			td_store_count(g->store, s->owner, s->target, 1);
		gw_record_save(s, NULL, NULL);
		left--;
	}
	return left;
}

static void save_old(struct td_gateway *g)
{
	unsigned left = PART;
	tnl_list_foreach_safe(it, &g->active) {
		struct gw_session *s = tnl_container_of(it, struct gw_session, by_age);
		if (left && g->l->now - s->saved >= SAVE_EVERY) {
			gw_record_save(s, NULL, NULL);
			left--;
		}
	}
	td_timer_in(&g->tell, left ? SAVE_EVERY / 10 : PART_EVERY);
}

static void tell(void *arg)
{
	struct td_gateway *g = arg;
	if (!td_store_is_up(g->store)) /* it asks again */
		return;
	unsigned left = tell_instances(g, PART);
	left = tell_sessions(g, &g->active, left);
	left = tell_sessions(g, &g->history, left);
	if (left)
		save_old(g);
	else
		td_timer_in(&g->tell, PART_EVERY);
}

static void on_announce(void *ctx)
{
	struct td_gateway *g = ctx;
	struct gw_words w;
	gw_words_begin(g, &w, "here");
	gw_words_say(g, NULL, &w);
	g->told++;
	td_store_count_anew(g->store);
	td_timer_in(&g->tell, 0);
}

static void on_lost(void *ctx, const char *session)
{
	gw_session_lose(ctx, session, "?");
}

static void on_taken(void *ctx)
{
	struct td_gateway *g = ctx;
	g->stopped(g);
}

static void on_beat(void *ctx)
{
	gw_split_bandwidth(ctx);
}

const struct td_store_cb gw_hear = {.unwritten = gw_record_unwritten,
				    .announce = on_announce,
				    .lost = on_lost,
				    .message = on_message,
				    .taken = on_taken,
				    .beat = on_beat};

void gw_hear_init(struct td_gateway *g)
{
	tnl_list_init(&g->questions);
	td_timer_init(&g->tell, g->l, tell, g);
}
