/* The run of a session: its messages to the link while that has room, bytes of local sources to the session while it
 * may send, what has ended is settled, the owner is told, and one timer is set to the session's deadline.  Everything
 * that happens to one of them ends in td_pump_run, or in td_pump_kick when it happens inside of a call.
 *
 * The session's callbacks never reach the owner directly: they are noted (events.c) and told when the session has
 * returned, since the owner may free everything. */
#include "tunneld/pump/internal.h"

#include "lib/alloc.h"
#include "lib/num.h"
#include "tunneld/base/log.h"

#include <stdio.h>
#include <string.h>

/* Bytes moved from local sockets in one run before others get their turn. */
#define RUN_BUDGET (1024u * 1024)
#define LONE_MAX 1024u /* of a message whose ack may wait: bulk is acknowledged at once */
#define ACK_LINGER (1 * TD_MS)
#define A_LOT 16 /* a part of the limit */
#define BULK_SPAN (250 * TD_MS)
#define BULK_BYTES (64u * 1024)	       /* in each of two spans in a row, acks not counted */
#define LINK_ROOM_LEAST ((size_t)4096) /* for what the session sends beside data */

/* ---- the run -------------------------------------------------------------------- */

/* What waits in the links counts too, twice, since their buffers grow by doubling. */
static size_t memory_of(const struct td_pump *p)
{
	size_t n = tnl_session_memory(p->session);
	for (unsigned i = 0; i < TNL_LINKS_MAX; i++)
		if (p->links[i].w)
			n += 2 * td_wslink_queued(p->links[i].w);
	return n;
}

static void account_memory(struct td_pump *p)
{
	size_t now = memory_of(p);
	if (now != p->memory_told) {
		td_memory_change((int64_t)now - (int64_t)p->memory_told);
		p->memory_told = now;
	}
}

static void on_room(void *arg)
{
	struct td_pump *p = arg;
	td_memory_off_room(&p->room);
	tnl_session_retry(p->session);
	td_pump_kick(p);
}

/* When the process is full, sessions take no more bytes than their least shares, so that some that stall do not stop
 * those that flow; one that keeps a lot stops before, when it has its share of what is free.  Beyond that nothing more
 * is kept for a local reader, and what is sent goes in small portions (tnl_channel_narrow).  Asks to be told of room.
 */
static bool may_keep(void *ctx)
{
	struct td_pump *p = ctx;
	account_memory(p); /* one run may read a lot: the limit holds within it */
	if (p->memory_told < td_memory_least())
		return true;
	if (td_memory_may_keep(p->memory_told < td_memory_max() / A_LOT ? 0 : p->memory_told, 1))
		return true;
	td_memory_on_room(&p->room, p->loop, on_room, p);
	return false;
}

/* The ack of one small message, which may have come together with acks, waits a moment for the answer to that message,
 * or for what the answer brings about: a record, a write and a wake-up less in each process on the way.  Only between
 * our own ends; a second ack, or anything else to send, takes it along. */
static void wait_for_company(struct td_pump *p, bool lone)
{
	const struct tnl_session_info *info = tnl_session_info(p->session);
	struct td_wslink *w = p->links[p->sent_on].w;
	if (lone && w && p->sent == 1 && p->sent_ack && info && info->own_peer)
		td_wslink_linger(w, ACK_LINGER);
}

static bool send_message(struct td_pump *p, unsigned link, const uint8_t *b, size_t n)
{
	p->sent++;
	p->sent_ack = td_pump_is_ack(b, n);
	p->sent_on = link;
	p->bulk.sent += p->sent_ack ? 0 : n;
	if (link == TD_PUMP_DIRECT)
		p->direct.st.sent += n;
	int r = td_wslink_send(p->links[link].w, TNL_WS_BINARY, b, n);
	if (r < 0) /* Cannot happen while room() keeps its word; the channel sends it again. */
		td_warn("pump", tnl_session_id(p->session), "link refused a message bytes=%zu error=\"%s\"", n,
			tnl_err_text(r));
	return r == 0;
}

static unsigned links_with_room(const struct td_pump *p, size_t most)
{
	unsigned room = 0;
	for (unsigned i = 0; i < TNL_LINKS_MAX; i++)
		if (p->links[i].w && td_wslink_room(p->links[i].w) >= most)
			room |= 1u << i;
	return room;
}

static unsigned links_in_order(struct td_pump *p, size_t most, uint8_t order[TNL_LINKS_MAX])
{
	struct tnl_channel *ch = tnl_session_channel(p->session);
	unsigned up = tnl_channel_links(ch), room = links_with_room(p, most) & up;
	if (up & (up - 1))
		return tnl_channel_link_order(ch, room, p->loop->now, order);
	order[0] = room ? (uint8_t)__builtin_ctz(room) : 0;
	return room != 0;
}

/* The session's next message on the first link that takes it. 1: one went; 0: it has none; TNL_EAGAIN: those that would
 * carry one have no room. */
static int send_next(struct td_pump *p)
{
	struct tnl_channel *ch = tnl_session_channel(p->session);
	size_t most = TNL_MAX(TNL_MSG_HDR + tnl_channel_max_payload(ch), LINK_ROOM_LEAST), n;
	uint8_t order[TNL_LINKS_MAX];
	unsigned count = links_in_order(p, most, order);
	bool room = false;
	const uint8_t *b;

	for (unsigned i = 0; i < count; i++) {
		if (tnl_session_pull_on(p->session, order[i], p->loop->now, &b, &n) == 1)
			return send_message(p, order[i], b, n) ? 1 : TNL_EAGAIN;
		room = room || tnl_channel_link_carries(ch, order[i]);
	}
	return room ? 0 : TNL_EAGAIN;
}

/* One read for the stream whose turn it is; how many bytes moved. false: nobody may send now. */
static bool feed_next(struct td_pump *p, uint64_t *moved)
{
	tnl_channel_narrow(tnl_session_channel(p->session), !may_keep(p));
	struct tnl_stream *st = tnl_session_next(p->session, p->loop->now);
	struct td_pipe *pipe = st ? tnl_stream_user(st) : NULL;
	*moved = 0;
	if (pipe) {
		uint64_t before = pipe->in;
		if (td_pipe_feed_session(pipe))
			*moved = pipe->in - before;
	} else if (st) {
		tnl_stream_want_send(st, false);
	}
	return st != NULL;
}

/* Session to links until those are full or nothing is left. true: there is more, and others shall have their turn. */
static bool move_out(struct td_pump *p)
{
	uint64_t budget = RUN_BUDGET, moved;

	for (;;) {
		int r = send_next(p);
		if (r < 0)
			return false;
		if (r > 0)
			continue;
		if (!feed_next(p, &moved))
			return false;
		if (moved >= budget)
			return true;
		budget -= moved;
	}
}

static void ask_hops(struct td_pump *p)
{
	for (unsigned i = 0; i < TNL_LINKS_MAX; i++)
		if (p->links[i].w)
			tnl_channel_near_on(tnl_session_channel(p->session), i, td_wslink_hop(p->links[i].w, 0),
					    p->loop->now);
}

/* A path that was full may be lossy all the same: nothing is said to be repaired while a queue stands on it. */
static enum td_bulk bulk_kind(const struct td_pump *p)
{
	if (p->bulk.sent >= BULK_BYTES && tnl_channel_repairs(tnl_session_channel(p->session), p->loop->now))
		return TD_BULK_LOSSY;
	return p->bulk.full ? TD_BULK_FULL : TD_BULK_PLAIN;
}

/* That a path is full is told at once: who receives has to hear of it before it opens links. */
static void note_full(struct td_pump *p)
{
	if (p->bulk.full || p->bulk.sent < BULK_BYTES || p->bulk.sent <= p->bulk.fed ||
	    !tnl_channel_is_full(tnl_session_channel(p->session), p->loop->now))
		return;
	p->bulk.full = true;
	p->bulk.kind = bulk_kind(p);
	p->bulk.told_soon = p->bulk.told_soon || p->bulk.kind == TD_BULK_FULL;
}

/* Streams that have moved much since they were counted last. */
static unsigned count_busy(const struct td_pump *p)
{
	unsigned n = 0;
	tnl_list_foreach(it, &p->pipes) {
		struct td_pipe *pipe = tnl_container_of(it, struct td_pipe, node);
		n += pipe->in + pipe->out - pipe->counted >= BULK_BYTES;
		pipe->counted = pipe->in + pipe->out;
	}
	return n;
}

unsigned td_pump_busy(const struct td_pump *p)
{
	return p->bulk.busy;
}

/* Is it bulk, and of what kind? */
static void note_bulk(struct td_pump *p)
{
	uint64_t el = p->loop->now - p->bulk.since;
	note_full(p);
	if (el < BULK_SPAN)
		return;
	bool enough = p->bulk.sent + p->bulk.fed >= BULK_BYTES && el < 2 * BULK_SPAN;
	p->bulk.spans = enough ? p->bulk.spans + 1 : 0;
	p->bulk.full = enough && p->bulk.sent > p->bulk.fed && p->bulk.full;
	p->bulk.kind = bulk_kind(p);
	p->bulk.since = p->loop->now;
	p->bulk.sent = p->bulk.fed = 0;
	p->bulk.busy = enough ? count_busy(p) : 0;
	bool soon = p->bulk.kind == TD_BULK_LOSSY || p->bulk.busy > TD_BULK_FEW;
	if (p->bulk.spans >= (soon ? 1 : 2)) {
		p->bulk.spans = 0;
		p->bulk.told_soon = true;
	}
}

/* Of its links through the gateway that are not the main one, and of bulk. */
static void tell_of_links(struct td_pump *p)
{
	for (unsigned i = 1; i < TD_PUMP_LINKS && !p->dead; i++) {
		if (!p->links[i].lost)
			continue;
		p->links[i].lost = false;
		if (p->cb->link_lost)
			p->cb->link_lost(p->ctx, i);
	}
	if (p->dead || !p->bulk.told_soon)
		return;
	p->bulk.told_soon = false;
	if (p->cb->bulk)
		p->cb->bulk(p->ctx, p->bulk.kind);
}

static void settle_pipes(struct td_pump *p)
{
	while (!p->dead && !tnl_list_empty(&p->unsettled)) {
		struct td_pipe *pipe = tnl_container_of(p->unsettled.next, struct td_pipe, unsettled);
		tnl_list_remove(&pipe->unsettled);
		td_pipe_settle(pipe);
	}
}

static void tell_all(struct td_pump *p)
{
	td_pump_tell_events(p);
	tell_of_links(p);
	if (!p->dead && p->lost.told_soon) {
		p->lost.told_soon = false;
		if (p->cb->lost)
			p->cb->lost(p->ctx, p->lost.err, p->lost.code, p->lost.why);
	}
	if (!p->dead && p->direct.lost.told_soon) {
		p->direct.lost.told_soon = false;
		if (p->cb->direct_lost)
			p->cb->direct_lost(p->ctx, p->direct.lost.err, p->direct.lost.why);
	}
}

static void pump_destroy(void *arg)
{
	struct td_pump *p = arg;
	tnl_session_free(p->session);
	tnl_free(p);
}

void td_pump_run(struct td_pump *p)
{
	if (p->dead)
		return;
	if (p->depth) { /* from inside ourselves: later */
		td_pump_kick(p);
		return;
	}
	bool lone = p->fed == 1 && p->fed_bytes <= LONE_MAX;
	p->fed = p->sent = 0;
	p->fed_bytes = 0;
	p->depth++;
	uint64_t d = tnl_session_deadline(p->session);
	if (d <= p->loop->now)
		tnl_session_expire(p->session, p->loop->now);
	ask_hops(p);
	note_bulk(p);
	bool more = move_out(p);
	settle_pipes(p);
	tell_all(p);
	if (!p->dead)
		more |= move_out(p); /* what the callbacks added, and the last word of a pipe that has just ended */
	p->depth--;
	if (p->dead)
		return;
	account_memory(p);
	wait_for_company(p, lone);
	td_timer_at(&p->timer, tnl_session_deadline(p->session));
	if (more || !tnl_list_empty(&p->events))
		td_pump_kick(p);
}

void td_pump_kick(struct td_pump *p)
{
	if (!p->dead)
		td_soon_do(&p->kick);
}

static void run_now(void *arg)
{
	td_pump_run(arg);
}

static uint64_t wall_ms(void *ctx)
{
	return ((struct td_pump *)ctx)->loop->wall_ms;
}

struct td_pump *td_pump_new(struct td_loop *l, struct tnl_session_config *sc, const struct td_pump_cb *cb, void *ctx)
{
	struct td_pump *p = tnl_calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->loop = l;
	p->cb = cb;
	p->ctx = ctx;
	tnl_list_init(&p->pipes);
	tnl_list_init(&p->events);
	tnl_list_init(&p->unsettled);
	td_timer_init(&p->timer, l, run_now, p);
	td_soon_init(&p->kick, l, run_now, p);
	td_pump_links_init(p);
	sc->cb = &td_pump_session_cb;
	sc->ctx = p;
	sc->wall_ms = wall_ms;
	sc->may_keep = may_keep;
	p->session = tnl_session_new(sc, l->now);
	if (!p->session) {
		tnl_free(p);
		return NULL;
	}
	td_memory_count_owner(1);
	td_timer_at(&p->timer, tnl_session_deadline(p->session));
	return p;
}

void td_pump_free(struct td_pump *p)
{
	if (!p || p->dead)
		return;
	p->dead = true;
	td_memory_count_owner(-1);
	td_timer_stop(&p->timer);
	td_soon_cancel(&p->kick);
	td_memory_off_room(&p->room);
	tnl_list_foreach_safe(it, &p->pipes)
		td_pipe_destroy(tnl_container_of(it, struct td_pipe, node), true);
	td_pump_drop_events(p);
	td_pump_links_fini(p);
	if (p->memory_told)
		td_memory_change(-(int64_t)p->memory_told);
	p->memory_told = 0;
	/* The session may be on the stack. */
	td_loop_defer(p->loop, pump_destroy, p);
}

struct tnl_session *td_pump_session(struct td_pump *p)
{
	return p->session;
}

void td_pump_refuse(struct td_pump *p, struct tnl_stream *st, uint32_t reason, const char *words)
{
	td_pump_forget(p, st);
	tnl_stream_reset_because(st, reason, words, p->loop->now);
	tnl_stream_free(st);
	td_pump_kick(p);
}

void td_pump_tell_reverse(struct td_pump *p, const struct tnl_reverse *word)
{
	tnl_session_send_reverse(p->session, word, p->loop->now);
	td_pump_kick(p);
}

bool td_pump_has_local_end(const struct td_pump *p)
{
	tnl_list_foreach(it, &p->pipes)
		if (td_pipe_local_end(tnl_container_of(it, struct td_pipe, node)))
			return true;
	return false;
}

uint64_t td_pump_progress(const struct td_pump *p)
{
	struct tnl_channel *ch = tnl_session_channel(p->session);
	struct tnl_channel_stats st;
	tnl_channel_stats(ch, &st);
	return (uint64_t)tnl_channel_oldest(ch) + st.payload_received;
}

size_t td_pump_pipes(const struct td_pump *p)
{
	return p->npipes;
}
