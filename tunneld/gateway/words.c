/* What the nodes that share a store say to each other: one JSON object a message, {"op", "from", …}.  A question has a
 * number, "n", and is answered with {"op":"answer", "n", "ok"} within GW_WORDS_NS; nobody there is known at once. */
#include "tunneld/gateway/shared_internal.h"
#include "lib/alloc.h"
#include <string.h>

struct gw_question {
	struct tnl_list node;
	struct td_gateway *g;
	int64_t n;
	struct td_timer timer;
	gw_words_fn *fn;
	void *ctx;
};

void gw_words_begin(const struct td_gateway *g, struct gw_words *w, const char *op)
{
	tnl_buf_init(&w->b, GW_WORDS_MAX);
	tnl_jw_init(&w->w, &w->b);
	tnl_jw_obj(&w->w);
	tnl_jw_kv(&w->w, "op", op);
	tnl_jw_kv(&w->w, "from", g->node);
}

static void send_words(struct td_gateway *g, const char *node, struct gw_words *w, td_store_said_fn *fn, void *ctx)
{
	tnl_jw_end_obj(&w->w);
	if (w->b.failed) {
		if (fn)
			fn(ctx, TNL_ETOOBIG, 0);
	} else {
		td_store_say(g->store, node, (const char *)tnl_buf_data(&w->b), tnl_buf_len(&w->b), fn, ctx);
	}
	tnl_buf_fini(&w->b);
}

void gw_words_say(struct td_gateway *g, const char *node, struct gw_words *w)
{
	send_words(g, node, w, NULL, NULL);
}

/* --- questions ------------------------------------------------------------------- */
static void end_question(struct gw_question *q, int err, bool ok)
{
	gw_words_fn *fn = q->fn;
	void *ctx = q->ctx;
	td_timer_stop(&q->timer);
	td_store_forget(q->g->store, q);
	tnl_list_remove(&q->node);
	tnl_free(q);
	if (fn)
		fn(ctx, err, ok);
}

static void on_said(void *ctx, int err, unsigned receivers)
{
	if (err != 0 || receivers == 0)
		end_question(ctx, err != 0 ? err : TNL_ENOTFOUND, false);
}

static void on_late(void *arg)
{
	end_question(arg, TNL_ETIMEOUT, false);
}

void gw_words_ask(struct td_gateway *g, const char *node, struct gw_words *w, gw_words_fn *fn, void *ctx)
{
	struct gw_question *q = tnl_calloc(1, sizeof(*q));
	if (!q) {
		tnl_buf_fini(&w->b);
		if (fn)
			fn(ctx, TNL_ENOMEM, false);
		return;
	}
	*q = (struct gw_question){.g = g, .n = ++g->questions_asked, .fn = fn, .ctx = ctx};
	tnl_list_push_back(&g->questions, &q->node);
	td_timer_init(&q->timer, g->l, on_late, q);
	td_timer_in(&q->timer, GW_WORDS_NS);
	tnl_jw_kvi(&w->w, "n", q->n);
	send_words(g, node, w, on_said, q);
}

void gw_words_answer(struct td_gateway *g, const struct tnl_json *question, bool ok)
{
	struct gw_words w;
	int64_t n;
	const char *from = tnl_json_get_str(question, "from");
	if (!from || !tnl_json_int(tnl_json_get(question, "n"), &n))
		return;
	gw_words_begin(g, &w, "answer");
	tnl_jw_kvi(&w.w, "n", n);
	tnl_jw_key(&w.w, "ok");
	tnl_jw_bool(&w.w, ok);
	gw_words_say(g, from, &w);
}

void gw_words_answered(struct td_gateway *g, const struct tnl_json *answer)
{
	int64_t n;
	if (!tnl_json_int(tnl_json_get(answer, "n"), &n))
		return;
	tnl_list_foreach(it, &g->questions) {
		struct gw_question *q = tnl_container_of(it, struct gw_question, node);
		if (q->n != n)
			continue;
		end_question(q, 0, tnl_json_bool(tnl_json_get(answer, "ok"), false));
		return;
	}
}

void gw_words_forget(struct td_gateway *g, const void *ctx)
{
	tnl_list_foreach(it, &g->questions) {
		struct gw_question *q = tnl_container_of(it, struct gw_question, node);
		if (q->ctx == ctx)
			q->fn = NULL;
	}
}

void gw_words_fini(struct td_gateway *g)
{
	while (!tnl_list_empty(&g->questions)) {
		struct gw_question *q = tnl_container_of(g->questions.next, struct gw_question, node);
		end_question(q, TNL_ECLOSED, false);
	}
}
