/* One run: faults by plan, time from event to event, and what must hold at the end. */
#include "tests/sim/sim.h"
#include "lib/alloc.h"
#include "lib/num.h"
#include "lib/crypto.h"
#include "lib/wire.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIMIT (1800 * SEC)
#define START (1000 * SEC)

void world_fail(struct world *w, const char *fmt, ...)
{
	va_list ap;
	if (w->fail[0])
		return;
	va_start(ap, fmt);
	vsnprintf(w->fail, sizeof(w->fail), fmt, ap);
	va_end(ap);
}

void say(struct world *w, const char *fmt, ...)
{
	va_list ap;
	if (!w->verbose)
		return;
	printf("%12.6f ", (double)(w->now - START) / 1e9);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

static void seeded_random(void *ctx, uint8_t *p, size_t n)
{
	struct rng *r = ctx;
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)rng_next(r);
}

static void link_at(struct world *w, uint64_t when, enum ev_kind kind, int to, int arg, unsigned link)
{
	struct event e = {.at = START + when, .kind = kind, .to = to, .arg = arg, .link = link};
	net_push(w, &e);
}

/* The other links come, break alone or at both ends, and come again, or not. */
static void schedule_links(struct world *w)
{
	struct rng *r = &w->links;
	for (unsigned l = 1; l < w->plan.links; l++) {
		for (int k = 0; k < 2; k++)
			link_at(w, rng_below(r, w->plan.busy_until), EV_UP, k, 0, l);
		for (int i = (int)rng_below(r, 5); i; i--) {
			uint64_t t = rng_below(r, w->plan.busy_until);
			int who = rng_chance(r, 500) ? 3 : 1 + (int)rng_below(r, 2);
			link_at(w, t, EV_CUT, 0, who, l);
			for (int k = 0; k < 2; k++)
				if (who & (1 << k) && (rng_chance(r, 700) || w->plan.only))
					link_at(w, t + rng_log(r, 1, 1000) * MS, EV_UP, k, 0, l);
		}
	}
}

static void at(struct world *w, uint64_t when, enum ev_kind kind, int to, int arg)
{
	struct event e = {.at = START + when, .kind = kind, .to = to, .arg = arg};
	net_push(w, &e);
}

static void schedule(struct world *w)
{
	struct rng *r = &w->rng;
	struct plan *p = &w->plan;
	at(w, rng_below(r, 50) * MS, EV_UP, 0, 0);
	at(w, rng_below(r, 50) * MS, EV_UP, 1, 0);
	for (int i = 0; i < p->cuts; i++) {
		uint64_t t = rng_below(r, p->busy_until);
		int who = rng_chance(r, 500) ? 3 : 1 + (int)rng_below(r, 2);
		at(w, t, EV_CUT, 0, who);
		for (int k = 0; k < 2; k++)
			if (who & (1 << k))
				at(w, t + rng_log(r, 1, 3000) * MS, EV_UP, k, 0);
	}
	for (int i = 0; i < p->pauses; i++) {
		uint64_t t = rng_below(r, p->busy_until);
		int who = (int)rng_below(r, 2);
		if (p->mode == SIM_SINGLE_STOCK || p->mode == SIM_BASIC)
			who = 1; /* a client gives such a session up when it hears that its stock agent has gone */
		at(w, t, EV_PAUSE, who, 1);
		at(w, t + rng_log(r, 1, 2000) * MS, EV_PAUSE, who, 0);
	}
	for (int i = 0; i < p->nstreams; i++) {
		at(w, w->flow[i].open_at, EV_OPEN, 0, i);
		for (int k = 0; k < 2; k++)
			for (int n = (int)rng_below(r, 3); n; n--)
				at(w, rng_below(r, p->busy_until), EV_STALL, k, i);
	}
	at(w, p->busy_until, EV_WAKE, 0, 0);
	schedule_links(w);
}

static void publication(struct world *w, int to, bool pause)
{
	uint8_t m[TNL_MSG_HDR + 256];
	struct tnl_buf b;
	if (!w->node[to].up)
		return;
	tnl_buf_init(&b, 200);
	if (tnl_publication_write(&b, "sim") == 0) {
		struct tnl_msg msg = {.type = pause ? TNL_MT_PAUSE_PUBLICATION : TNL_MT_START_PUBLICATION,
				      .schema = 1,
				      .created_ms = 1764000000000,
				      .payload = tnl_buf_data(&b),
				      .plen = (uint32_t)tnl_buf_len(&b)};
		size_t n = tnl_msg_encode(m, &msg);
		if (tnl_session_feed(w->node[to].s, m, n, w->now))
			world_fail(w, "publication message refused");
	}
	tnl_buf_fini(&b);
}

static void count_stalls(struct node *n, unsigned link)
{
	struct tnl_link_stats st;
	tnl_channel_link_stats(tnl_session_channel(n->s), link, &st);
	n->w->stalls += st.stalls;
}

static void cut(struct world *w, int who, unsigned link)
{
	say(w, "cut %d link %u", who, link);
	for (int k = 0; k < 2; k++) {
		struct node *n = &w->node[k];
		if (!(who & (1 << k)) || !(n->up & 1u << link))
			continue;
		count_stalls(n, link);
		n->up &= ~(1u << link);
		n->epoch[link]++;
		tnl_session_link_gone(n->s, link, w->now);
	}
}

/* A direct link comes when the handshake is done, and takes the session over for good. */
static void link_comes(struct node *n, const struct event *e)
{
	struct world *w = n->w;
	bool direct = w->plan.only && e->link;
	if (n->up & 1u << e->link || n->closed)
		return;
	if (direct && !w->node[0].ready) {
		struct event later = {.at = w->now + 20 * MS, .kind = EV_UP, .to = e->to, .link = e->link};
		net_push(w, &later);
		return;
	}
	say(w, "node %d link %u up", e->to, e->link);
	n->up |= 1u << e->link;
	n->link_free[e->link] = 0;
	w->resumes++;
	if (n->moved && !e->link)
		return;
	if (tnl_session_link_add(n->s, e->link, w->plan.link[e->link].rank, w->now))
		world_fail(w, "node %d: no link %u", e->to, e->link);
	if (direct) {
		n->moved = true;
		tnl_session_link_gone(n->s, 0, w->now);
		tnl_session_release(n->s);
	}
}

static void dialed(struct world *w, struct side *s)
{
	if (!s->st)
		return;
	if (s->dial_failed) {
		tnl_stream_reset(s->st, TNL_RESET_CONNECT, w->now);
		s->saw_reset = true;
	} else if (!s->saw_reset) {
		tnl_stream_connected(s->st, w->now);
	}
}

static void handle(struct world *w, struct event *e)
{
	struct node *n = &w->node[e->to];
	struct flow *f = &w->flow[e->arg < MAX_STREAMS ? e->arg : 0];
	switch (e->kind) {
	case EV_MESSAGE:
		if (n->up & 1u << e->link && !n->closed && e->epoch == n->epoch[e->link]) {
			if (tnl_session_feed_on(n->s, e->link, e->data, e->n, w->now))
				world_fail(w, "node %d: session ended: %s", e->to, tnl_err_name(n->close_err));
		} else {
			w->lost++;
		}
		free(e->data);
		break;
	case EV_CUT:
		cut(w, e->arg, e->link);
		break;
	case EV_UP:
		link_comes(n, e);
		break;
	case EV_PAUSE:
		say(w, "node %d publication %s", e->to, e->arg ? "pause" : "start");
		publication(w, e->to, e->arg);
		break;
	case EV_OPEN:
		node_open(&w->node[f->opener], f);
		break;
	case EV_DIALED:
		dialed(w, &f->side[!f->opener]);
		break;
	case EV_STALL:
		f->side[e->to].stalled = !f->side[e->to].stalled && w->now < START + w->plan.busy_until;
		break;
	case EV_WRITE:
	case EV_WAKE:
		break;
	}
}

static bool flow_over(const struct world *w, const struct flow *f)
{
	bool all = f->way[0].received == f->way[0].total && f->way[1].received == f->way[1].total;
	const struct side *near = &f->side[f->opener], *far = &f->side[!f->opener];
	if (!near->gone)
		return false;
	if (f->broken)
		return far->gone || !far->opened;
	return all && (far->gone || w->plan.mode == SIM_SINGLE_STOCK);
}

static bool all_over(struct world *w)
{
	for (int i = 0; i < w->plan.nstreams; i++)
		if (!flow_over(w, &w->flow[i]))
			return false;
	if (w->plan.reverse && (w->node[0].words != 1 || w->node[1].words != 1))
		return false;
	return tnl_session_drained(w->node[0].s) && tnl_session_drained(w->node[1].s);
}

static void calm_down(struct world *w)
{
	for (int i = 0; i < w->plan.nstreams; i++)
		for (int k = 0; k < 2; k++)
			w->flow[i].side[k].stalled = false;
}

static void run(struct world *w)
{
	bool calm = false;
	while (!w->fail[0] && !all_over(w)) {
		uint64_t t = net_next(w);
		for (int k = 0; k < 2; k++) {
			uint64_t d = tnl_session_deadline(w->node[k].s);
			t = TNL_MIN(t, d);
		}
		if (t == NEVER || t > START + LIMIT || w->steps++ > 20000000) {
			world_fail(w, "stuck: nothing more happens");
			return;
		}
		w->now = TNL_MAX(w->now, t);
		struct event e;
		while (!w->fail[0] && net_next(w) <= w->now && net_pop(w, &e))
			handle(w, &e);
		if (!calm && w->now >= START + w->plan.busy_until) {
			calm = true;
			calm_down(w);
		}
		for (int k = 0; k < 2; k++) {
			struct node *n = &w->node[k];
			if (tnl_session_deadline(n->s) <= w->now)
				tnl_session_expire(n->s, w->now);
			node_pump(n);
			if (n->closed)
				world_fail(w, "node %d closed: %s", k, tnl_err_name(n->close_err));
		}
	}
}

/* The end, in one of two ways; nothing may be reported after it. */
static void finish(struct world *w)
{
	uint8_t m[TNL_MSG_HDR + 1024];
	struct tnl_buf b;
	char none[] = "", id[] = "sim", bye[] = "bye";
	struct tnl_channel_closed cc = {.message_id = none, .session_id = id, .destination_id = id, .output = bye};
	for (int i = 0; i < w->plan.nstreams; i++) {
		struct side *s = &w->flow[i].side[1];
		if (s->st && w->plan.mode == SIM_SINGLE_STOCK) {
			tnl_stream_free(s->st);
			s->st = NULL;
		}
	}
	tnl_buf_init(&b, 1024);
	if (tnl_channel_closed_write(&b, &cc))
		world_fail(w, "no memory");
	struct tnl_msg msg = {.type = TNL_MT_CHANNEL_CLOSED,
			      .schema = 1,
			      .created_ms = 1764000000000,
			      .payload = tnl_buf_data(&b),
			      .plen = (uint32_t)tnl_buf_len(&b)};
	size_t n = tnl_msg_encode(m, &msg);
	tnl_buf_fini(&b);
	for (int k = 0; k < 2; k++) {
		struct node *nd = &w->node[k];
		const uint8_t *p;
		size_t len;
		for (unsigned l = 0; l < MAX_LINKS; l++)
			count_stalls(nd, l);
		if (w->plan.end_by_abort && k == 0)
			tnl_session_abort(nd->s, TNL_ECLOSED, "over", w->now);
		else
			(void)!tnl_session_feed(nd->s, m, n, w->now);
		if (!nd->closed || nd->close_err != TNL_ECLOSED)
			world_fail(w, "node %d was not closed", k);
		if (tnl_session_feed(nd->s, m, n, w->now) == 0 || tnl_session_pull(nd->s, w->now, &p, &len) == 1 ||
		    tnl_session_deadline(nd->s) != NEVER)
			world_fail(w, "node %d lives after its end", k);
	}
}

static void describe(const struct world *w)
{
	const struct plan *p = &w->plan;
	printf(
	    "  mode=%s encrypted=%d memory=%zu window=%zu payload=%zu drop=%u dup=%u reorder=%u corrupt=%u delay=%.1fms "
	    "jitter=%.1fms rate=%llu streams=%d cuts=%d pauses=%d busy=%.1fs%s\n",
	    mode_name(p->mode), p->encrypted, p->memory_max, p->window, p->max_payload, p->drop, p->dup, p->reorder,
	    p->corrupt, (double)p->delay / 1e6, (double)p->jitter / 1e6, (unsigned long long)p->rate, p->nstreams,
	    p->cuts, p->pauses, (double)p->busy_until / 1e9, p->reverse ? " reverse" : "");
	for (unsigned i = 0; i < p->links && p->links > 1; i++)
		printf("  link %u: delay=%.1fms rate=%llu lossy=%u stalls=%d\n", i, (double)p->link[i].delay / 1e6,
		       (unsigned long long)p->link[i].rate, p->link[i].lossy, p->link[i].nstalls);
	for (int k = 0; k < 2 && w->fail[0]; k++) {
		struct tnl_channel_stats st;
		if (!w->node[k].s)
			continue;
		tnl_channel_stats(tnl_session_channel(w->node[k].s), &st);
		printf(
		    "  node %d: sent %llu resent %llu received %llu dup %llu reordered %llu full %llu; cwnd %zu inflight %zu/%zu "
		    "reorder %zu memory %zu rto %.1fms\n",
		    k, (unsigned long long)st.sent, (unsigned long long)st.resent, (unsigned long long)st.received,
		    (unsigned long long)st.duplicates, (unsigned long long)st.reordered,
		    (unsigned long long)st.dropped_full, st.cwnd, st.inflight_bytes, st.inflight_msgs, st.reorder_msgs,
		    st.memory, (double)st.rto_ns / 1e6);
	}
	for (int i = 0; i < p->nstreams && w->fail[0]; i++) {
		const struct flow *f = &w->flow[i];
		printf("  flow %d: up %llu/%llu of %llu, down %llu/%llu of %llu%s%s%s\n", i,
		       (unsigned long long)f->way[0].received, (unsigned long long)f->way[0].sent,
		       (unsigned long long)f->way[0].total, (unsigned long long)f->way[1].received,
		       (unsigned long long)f->way[1].sent, (unsigned long long)f->way[1].total,
		       f->side[0].gone ? ", client gone" : "", f->side[1].gone ? ", agent gone" : "",
		       f->broken ? ", to be broken" : "");
	}
}

static void failed(struct world *w)
{
	printf("seed %llu FAILED at %.6f s: %s\n", (unsigned long long)w->seed, (double)(w->now - START) / 1e9,
	       w->fail);
	describe(w);
}

bool world_run(uint64_t seed, int verbose, struct world *stats)
{
	struct world *w = calloc(1, sizeof(*w));
	struct rng random_source = {.x = seed ^ 0x5eed};
	if (!w)
		abort();
	w->seed = seed;
	w->rng.x = seed * 0x2545f4914f6cdd1du;
	w->links.x = seed * 0x9e3779b97f4a7c15u + 7;
	w->reverse.x = seed * 0xd1342543de82ef95u + 3;
	w->now = START;
	w->verbose = verbose;
	long live = tnl_alloc_live();
	tnl_random_source(seeded_random, &random_source);
	plan_make(w);
	plan_links(w);
	plan_reverse(w);
	if (verbose)
		describe(w);
	node_start(w, 0);
	node_start(w, 1);
	schedule(w);
	run(w);
	if (!w->fail[0])
		finish(w);
	if (w->fail[0])
		failed(w);
	bool told = w->fail[0];
	tnl_session_free(w->node[0].s);
	tnl_session_free(w->node[1].s);
	w->node[0].s = w->node[1].s = NULL;
	net_fini(w);
	tnl_random_source(NULL, NULL);
	if (!told && tnl_alloc_live() != live)
		world_fail(w, "%ld blocks of memory leaked", tnl_alloc_live() - live);
	bool ok = !w->fail[0];
	if (!ok && !told)
		failed(w);
	if (verbose)
		say(w, "%s: %llu messages, %llu lost, %llu steps, most memory %zu and %zu", ok ? "ok" : "failed",
		    (unsigned long long)w->messages, (unsigned long long)w->lost, (unsigned long long)w->steps,
		    w->most_memory[0], w->most_memory[1]);
	if (stats)
		*stats = *w;
	free(w);
	return ok;
}
