/* One end: the part of a daemon's pump, with flows in the place of sockets. */
#include "tests/sim/sim.h"
#include "lib/num.h"
#include <stdio.h>
#include <string.h>

static const uint8_t session_key[64] = "simulator-key-agent-to-client-..simulator-key-client-to-agent-.";

static struct flow *flow_of(struct tnl_stream *st)
{
	return tnl_stream_user(st);
}

static void check_open(struct node *n, const char *what)
{
	if (n->closed)
		world_fail(n->w, "%s after on_closed at node %d", what, n->which);
}

static void on_ready(void *ctx, const struct tnl_session_info *i)
{
	struct node *n = ctx;
	check_open(n, "on_ready");
	n->ready = true;
	say(n->w, "node %d ready mode=%d own=%d encrypted=%d smux=%d", n->which, i->mode, i->own_peer, i->encrypted,
	    i->smux_version);
	if (i->reverse != n->w->plan.reverse)
		world_fail(n->w, "node %d: reverse=%d", n->which, i->reverse);
	if (i->reverse && n->which == 0)
		tnl_session_send_reverse(n->s, &(struct tnl_reverse){.id = 7, .bind = "127.0.0.1:9000", .most = 9},
					 n->w->now);
}

/* Each word once, whatever the network does to its message. */
static void on_reverse(void *ctx, const struct tnl_reverse *r)
{
	struct node *n = ctx;
	check_open(n, "on_reverse");
	n->words++;
	if (r->id != 7 || strcmp(r->bind, "127.0.0.1:9000") != 0 || n->words > 1)
		world_fail(n->w, "node %d: word %d is about %u %s", n->which, n->words, r->id, r->bind);
	if (n->which == 1)
		tnl_session_send_reverse(
		    n->s, &(struct tnl_reverse){.kind = TNL_REVERSE_LISTENING, .id = 7, .bind = "127.0.0.1:9000"},
		    n->w->now);
}

static void check_from(struct node *n, const struct flow *f, struct tnl_stream *st)
{
	char from[32];
	snprintf(from, sizeof(from), "10.0.0.%d:%d", f->index, 5000 + f->index);
	if (f->opener && (tnl_stream_listener(st) != 7 || strcmp(tnl_stream_from(st), from) != 0))
		world_fail(n->w, "flow %d: from %s for listener %u", f->index, tnl_stream_from(st),
			   tnl_stream_listener(st));
}

static struct flow *match(struct node *n, struct tnl_stream *st)
{
	struct world *w = n->w;
	if (w->plan.mode > SIM_STOCK)
		return n->opened < w->plan.nstreams ? &w->flow[n->opened] : NULL;
	for (int i = 0; i < w->plan.nstreams; i++) {
		struct flow *f = &w->flow[i];
		struct side *c = &f->side[f->opener];
		if (f->opener != n->which && c->opened && !f->side[n->which].opened && tnl_stream_id(st) == c->take_id)
			return f;
	}
	return NULL;
}

static void on_open(void *ctx, struct tnl_stream *st)
{
	struct node *n = ctx;
	check_open(n, "on_open");
	struct flow *f = match(n, st);
	n->opened++;
	if (!f) {
		world_fail(n->w, "node %d saw a stream %u that nobody opened", n->which, tnl_stream_id(st));
		return;
	}
	check_from(n, f, st);
	struct side *s = &f->side[n->which];
	s->st = st;
	s->opened = true;
	tnl_stream_set_user(st, f);
	struct event e = {.at = n->w->now + f->dial_ns, .kind = EV_DIALED, .arg = f->index};
	if (f->dial_ns == 0 && !s->dial_failed && n->w->plan.mode <= SIM_STOCK)
		tnl_stream_connected(st, n->w->now);
	else
		net_push(n->w, &e);
}

static void check_bytes(struct node *n, struct flow *f, const uint8_t *p, size_t len)
{
	int dir = !n->which;
	struct way *v = &f->way[dir];
	for (size_t i = 0; i < len; i++) {
		if (v->received >= v->total) {
			world_fail(n->w, "flow %d dir %d: more bytes than were sent", f->index, dir);
			return;
		}
		if (p[i] != pattern(n->w, f, dir, v->received)) {
			world_fail(n->w, "flow %d dir %d: wrong byte at %llu", f->index, dir,
				   (unsigned long long)v->received);
			return;
		}
		v->received++;
	}
	if (v->received > v->sent)
		world_fail(n->w, "flow %d dir %d: bytes out ahead of bytes in", f->index, dir);
}

static size_t on_data(void *ctx, struct tnl_stream *st, uint32_t ptype, const uint8_t *p, size_t n)
{
	struct node *nd = ctx;
	struct flow *f = flow_of(st);
	struct side *s = &f->side[nd->which];
	check_open(nd, "on_data");
	if (ptype != TNL_PT_OUTPUT)
		world_fail(nd->w, "payload type %u", ptype);
	if (s->saw_eof)
		world_fail(nd->w, "flow %d: data after the end at node %d", f->index, nd->which);
	size_t took = s->stalled ? 0 : TNL_MIN(n, s->take_max);
	if (took > 1 && rng_chance(&nd->w->rng, 50))
		took = rng_below(&nd->w->rng, took);
	check_bytes(nd, f, p, took);
	return took;
}

static void on_eof(void *ctx, struct tnl_stream *st, bool half)
{
	struct node *n = ctx;
	struct flow *f = flow_of(st);
	check_open(n, "on_eof");
	say(n->w, "flow %d eof at node %d half=%d kept=%zu", f->index, n->which, half, tnl_stream_kept(st));
	if (f->side[n->which].saw_eof)
		world_fail(n->w, "flow %d: on_eof twice", f->index);
	f->side[n->which].saw_eof = true;
}

static void on_reset(void *ctx, struct tnl_stream *st, uint32_t reason)
{
	struct node *n = ctx;
	struct flow *f = flow_of(st);
	check_open(n, "on_reset");
	say(n->w, "flow %d reset at node %d: %s", f->index, n->which, tnl_reset_text(reason));
	/* A pause tells that a stock agent's link is gone: what was under way to it is given up. */
	if (reason == TNL_RESET_DOUBT && n->which == 0 && n->w->plan.pauses && n->w->plan.mode != SIM_OWN &&
	    n->w->plan.mode != SIM_SINGLE)
		f->broken = true;
	if (!f->broken && reason != TNL_RESET_SESSION)
		world_fail(n->w, "flow %d: reset (%s) that nobody asked for at node %d", f->index,
			   tnl_reset_text(reason), n->which);
	f->side[n->which].saw_reset = true;
}

static void on_kms(void *ctx, const struct tnl_kms_request *k)
{
	struct node *n = ctx;
	tnl_session_kms_result(n->s, 0, session_key, 64, k->generate ? (const uint8_t *)"ciphertext" : NULL,
			       k->generate ? 10 : 0, NULL, n->w->now);
}

static void on_closed(void *ctx, int err, const char *text)
{
	struct node *n = ctx;
	check_open(n, "on_closed");
	n->closed = true;
	n->close_err = err;
	say(n->w, "node %d closed: %s %s", n->which, tnl_err_name(err), text);
}

static uint64_t wall(void *ctx)
{
	struct node *n = ctx;
	return UINT64_C(1764000000000) + n->w->now / MS;
}

static const struct tnl_session_cb node_cb = {.on_ready = on_ready,
					      .on_open = on_open,
					      .on_data = on_data,
					      .on_eof = on_eof,
					      .on_reset = on_reset,
					      .on_reverse = on_reverse,
					      .on_kms = on_kms,
					      .on_closed = on_closed};

void node_start(struct world *w, int which)
{
	struct node *n = &w->node[which];
	struct plan *p = &w->plan;
	bool single = p->mode == SIM_SINGLE || p->mode == SIM_SINGLE_STOCK;
	struct tnl_session_config c = {
	    .agent = which == 1,
	    .session_id = "sim",
	    .memory_max = p->memory_max,
	    .stream_window = p->window,
	    .max_payload = p->max_payload,
	    .message_rate = p->message_rate,
	    .half_close_timeout_ns = 3600 * SEC,
	    .fin_quiet_ns = 2 * SEC,
	    .keepalive_ns = rng_chance(&w->rng, 300) ? 5 * SEC : 0,
	    .handshake_timeout_ns = 300 * SEC,
	    .offer_capabilities = p->mode == SIM_OWN || p->mode == SIM_SINGLE,
	    .direct = p->only ? TNL_DIRECT_ONLY : TNL_DIRECT_NO,
	    .reverse = p->reverse,
	    .session_type = "Port",
	    .properties_json = single ? "{\"portNumber\":\"22\"}" : "{\"type\":\"LocalPortForwarding\"}",
	    .kms_key_id = p->encrypted && which == 1 ? "key" : NULL,
	    .version = p->mode != SIM_BASIC ? NULL
		       : which		    ? "2.3.800.0"
					    : "1.1.0.0",
	    .wall_ms = wall,
	    .cb = &node_cb,
	    .ctx = n,
	};
	n->w = w;
	n->which = which;
	n->s = tnl_session_new(&c, w->now);
	if (!n->s)
		world_fail(w, "no session");
}

static struct tnl_stream *open_stream(struct node *n, struct flow *f, int *err)
{
	char from[32];
	if (n->which == 0)
		return tnl_stream_open(n->s, f, n->w->now, err);
	snprintf(from, sizeof(from), "10.0.0.%d:%d", f->index, 5000 + f->index);
	return tnl_stream_open_reverse(n->s, f, 7, from, n->w->now, err);
}

void node_open(struct node *n, struct flow *f)
{
	int err = 0;
	struct side *s = &f->side[n->which];
	bool wait = n->w->plan.mode == SIM_BASIC && f->index > 0 && !n->w->flow[f->index - 1].side[0].gone;
	wait = wait || (n->which == 1 && !n->ready);
	if (!wait)
		s->st = open_stream(n, f, &err);
	if (wait || err == TNL_EBUSY) { /* one at a time: later */
		struct event e = {.at = n->w->now + 20 * MS, .kind = EV_OPEN, .arg = f->index};
		net_push(n->w, &e);
		return;
	}
	if (!s->st) {
		world_fail(n->w, "flow %d: open failed: %s", f->index, tnl_err_name(err));
		return;
	}
	s->opened = true;
	say(n->w, "flow %d opened: %llu bytes up, %llu down%s", f->index, (unsigned long long)f->way[0].total,
	    (unsigned long long)f->way[1].total, f->broken ? ", to be broken" : "");
}

/* May this side say that it has ended? Towards stock ends only who has got everything does. */
static bool may_shut(const struct world *w, const struct flow *f, int which)
{
	enum sim_mode m = w->plan.mode;
	if (f->way[which].sent < f->way[which].total)
		return false;
	if (m == SIM_OWN || m == SIM_SINGLE)
		return true;
	return which == 0 && f->way[1].received == f->way[1].total;
}

static void reader(struct node *n, struct flow *f, struct side *s)
{
	const uint8_t *p;
	size_t len;
	while (!s->stalled && !s->saw_reset && (len = tnl_stream_peek(s->st, &p)) > 0) {
		size_t took = TNL_MIN(len, s->take_max);
		check_bytes(n, f, p, took);
		tnl_stream_consume(s->st, took, n->w->now);
		if (s->take_max < len && rng_chance(&n->w->rng, 300)) {
			struct event e = {.at = n->w->now + rng_log(&n->w->rng, 1, 20000) * 1000, .kind = EV_WAKE};
			net_push(n->w, &e);
			break;
		}
	}
}

static void side_work(struct node *n, struct flow *f)
{
	struct world *w = n->w;
	struct side *s = &f->side[n->which];
	struct way *out = &f->way[n->which], *in = &f->way[!n->which];
	if (!s->st)
		return;
	if (n->which == f->opener && s->take_id == 0)
		s->take_id = tnl_stream_id(s->st);
	reader(n, f, s);
	if (in->received >= s->reset_at && !s->saw_reset) {
		say(w, "flow %d node %d resets", f->index, n->which);
		tnl_stream_reset(s->st, TNL_RESET_PEER, w->now);
		s->saw_reset = true;
	}
	if (!s->saw_reset) {
		tnl_stream_want_send(s->st, out->sent < out->total && out->next_write <= w->now);
		if (!s->shut && may_shut(w, f, n->which)) {
			s->shut = true;
			tnl_stream_shutdown(s->st, w->now);
		}
	}
	if (s->saw_reset || tnl_stream_done(s->st)) {
		tnl_stream_free(s->st);
		s->st = NULL;
		s->gone = true;
		say(w, "flow %d gone at node %d", f->index, n->which);
	}
}

static bool write_some(struct node *n)
{
	struct world *w = n->w;
	struct tnl_stream *st = tnl_session_next(n->s, w->now);
	if (!st)
		return false;
	struct flow *f = flow_of(st);
	struct way *v = &f->way[n->which];
	size_t cap = 0;
	if (v->sent == v->total || v->next_write > w->now) {
		tnl_stream_want_send(st, false);
		return true;
	}
	uint8_t *p = tnl_stream_reserve(st, &cap, w->now);
	if (!p)
		return false;
	size_t len = TNL_MIN(cap, v->write_max);
	len = TNL_MIN(len, (size_t)(v->total - v->sent));
	if (rng_chance(&w->rng, 100))
		len = 1 + (size_t)rng_below(&w->rng, len);
	for (size_t i = 0; i < len; i++)
		p[i] = pattern(w, f, n->which, v->sent + i);
	if (rng_chance(&w->rng, 10))
		len = 0; /* a read that gave nothing after all */
	if (v->pause_every && len && v->sent / v->pause_every != (v->sent + len) / v->pause_every) {
		v->next_write = w->now + v->pause_ns;
		struct event e = {.at = v->next_write, .kind = EV_WRITE};
		net_push(w, &e);
	}
	v->sent += len;
	int rc = tnl_stream_commit(st, len, TNL_PT_OUTPUT, w->now);
	if (rc)
		world_fail(w, "flow %d: commit: %s", f->index, tnl_err_name(rc));
	return true;
}

/* Data, or the end of a stream: what has no business on the gateway's link of a session that is to be direct. */
static bool is_of_stream(const uint8_t *p, size_t len)
{
	struct tnl_msg m;
	if (tnl_msg_peek(p, len, &m, NULL) != 0)
		return false;
	return (m.type == TNL_MT_INPUT || m.type == TNL_MT_OUTPUT) &&
	       (m.ptype == TNL_PT_OUTPUT || m.ptype == TNL_PT_FLAG);
}

static unsigned room_mask(const struct node *n)
{
	unsigned room = 0;
	for (unsigned i = 0; i < MAX_LINKS; i++)
		if (net_room(n->w, n->which, i))
			room |= 1u << i;
	return room;
}

/* What the session has for its links, in their order. */
static bool send_all(struct node *n)
{
	uint8_t order[TNL_LINKS_MAX];
	bool sent = false;
	unsigned up = tnl_channel_link_order(tnl_session_channel(n->s), room_mask(n), n->w->now, order);
	const uint8_t *p;
	size_t len;
	for (unsigned i = 0; i < up; i++) {
		while (net_room(n->w, n->which, order[i]) &&
		       tnl_session_pull_on(n->s, order[i], n->w->now, &p, &len) == 1) {
			if (n->w->plan.only && !order[i] && is_of_stream(p, len))
				world_fail(n->w, "node %d: bytes of a stream beside the direct link", n->which);
			net_send(n->w, n->which, order[i], p, len);
			sent = true;
		}
	}
	return sent;
}

void node_pump(struct node *n)
{
	struct world *w = n->w;
	if (n->closed)
		return;
	for (int i = 0; i < w->plan.nstreams; i++)
		side_work(n, &w->flow[i]);
	for (;;) {
		bool sent = send_all(n);
		if (n->closed || !room_mask(n) || (!write_some(n) && !sent))
			break;
	}
	for (int i = 0; i < w->plan.nstreams && !n->closed; i++)
		side_work(n, &w->flow[i]);
	size_t mem = tnl_session_memory(n->s);
	w->most_memory[n->which] = TNL_MAX(w->most_memory[n->which], mem);
	if (mem > w->plan.memory_max)
		world_fail(w, "node %d holds %zu bytes, more than its %zu", n->which, mem, w->plan.memory_max);
}
