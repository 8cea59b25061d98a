#include "tunneld/pump/internal.h"

#include "lib/alloc.h"
#include "tunneld/base/log.h"

#include <string.h>

/* Bytes moved from local sockets in one run before others get their turn. */
#define RUN_BUDGET (1024u * 1024)
#define LONE_MAX 1024u /* of a message whose ack may wait: bulk is acknowledged at once */
#define ACK_LINGER (1 * TD_MS)
#define SESSION_LEAST (256u * 1024)

enum event_kind { EV_READY, EV_OPEN, EV_CANCELLED, EV_FLAG, EV_SIZE, EV_EXIT, EV_PUBLICATION, EV_KMS, EV_CLOSED };

struct event {
	struct tnl_list node;
	enum event_kind kind;
	int err;
	uint32_t a, b;
	struct tnl_stream *st;
	char *text, *challenge;
	uint8_t *blob;
	size_t blob_len;
};

/* ---- what the session reports ---------------------------------------------- */

static struct event *event_new(struct td_pump *p, enum event_kind kind)
{
	struct event *e = tnl_calloc(1, sizeof(*e));
	if (!e) {
		/* Out of memory for a note of some 100 bytes: the session cannot go on in a known state. */
		td_error("pump", tnl_session_id(p->session), "out of memory, session event lost");
		return NULL;
	}
	e->kind = kind;
	tnl_list_push_back(&p->events, &e->node);
	return e;
}

static void event_free(struct event *e)
{
	tnl_list_remove(&e->node);
	tnl_free(e->text);
	tnl_free(e->challenge);
	tnl_free(e->blob);
	tnl_free(e);
}

static void on_ready(void *ctx, const struct tnl_session_info *info)
{
	event_new(ctx, EV_READY);
}

static void on_open(void *ctx, struct tnl_stream *st)
{
	struct event *e = event_new(ctx, EV_OPEN);
	if (e)
		e->st = st;
}

static size_t on_data(void *ctx, struct tnl_stream *st, uint32_t ptype, const uint8_t *b, size_t n)
{
	struct td_pipe *pipe = tnl_stream_user(st);
	return pipe ? td_pipe_deliver(pipe, ptype, b, n) : 0;
}

static void on_eof(void *ctx, struct tnl_stream *st, bool half_closed)
{
	struct td_pipe *pipe = tnl_stream_user(st);
	if (pipe)
		td_pipe_peer_eof(pipe, half_closed);
	/* Without a pipe the dial is still going on; td_pipe_agent asks the stream. */
}

static void on_reset(void *ctx, struct tnl_stream *st, uint32_t reason)
{
	struct td_pump *p = ctx;
	struct td_pipe *pipe = tnl_stream_user(st);
	if (pipe) {
		td_pipe_peer_reset(pipe, reason);
		return;
	}
	tnl_list_foreach(it, &p->events)
	{
		struct event *e = tnl_container_of(it, struct event, node);
		if (e->kind == EV_OPEN && e->st == st) { /* the owner never heard of it */
			e->kind = EV_CANCELLED;
			e->a = 1;
			return;
		}
	}
	struct event *e = event_new(p, EV_CANCELLED);
	if (e)
		e->st = st;
}

bool td_pump_forget_(struct td_pump *p, const struct tnl_stream *st)
{
	bool found = false;
	tnl_list_foreach_safe(it, &p->events)
	{
		struct event *e = tnl_container_of(it, struct event, node);
		if (e->st == st) {
			event_free(e);
			found = true;
		}
	}
	return found;
}

void td_pump_refuse(struct td_pump *p, struct tnl_stream *st, uint32_t reason)
{
	td_pump_forget_(p, st);
	tnl_stream_reset(st, reason, p->loop->now);
	tnl_stream_free(st);
	td_pump_kick(p);
}

static void on_size(void *ctx, unsigned cols, unsigned rows)
{
	struct event *e = event_new(ctx, EV_SIZE);
	if (e) {
		e->a = cols;
		e->b = rows;
	}
}

static void on_exit_code(void *ctx, int code)
{
	struct event *e = event_new(ctx, EV_EXIT);
	if (e)
		e->err = code;
}

static void on_flag(void *ctx, uint32_t flag)
{
	struct event *e = event_new(ctx, EV_FLAG);
	if (e)
		e->a = flag;
}

static void on_publication(void *ctx, bool started)
{
	struct event *e = event_new(ctx, EV_PUBLICATION);
	if (e)
		e->a = started;
}

static void on_kms(void *ctx, const struct tnl_kms_request *r)
{
	struct event *e = event_new(ctx, EV_KMS);
	if (!e)
		return;
	e->a = r->generate;
	e->text = r->key_id ? tnl_strdup(r->key_id) : NULL;
	e->challenge = r->challenge ? tnl_strdup(r->challenge) : NULL;
	e->blob = tnl_malloc(r->ciphertext_len ? r->ciphertext_len : 1);
	if (e->blob && r->ciphertext_len)
		memcpy(e->blob, r->ciphertext, r->ciphertext_len);
	e->blob_len = e->blob ? r->ciphertext_len : 0;
}

static void on_closed(void *ctx, int err, const char *text)
{
	struct event *e = event_new(ctx, EV_CLOSED);
	if (e) {
		e->err = err;
		e->text = tnl_strdup(text ? text : "");
	}
}

static const struct tnl_session_cb session_cb = {
    .on_ready = on_ready,
    .on_open = on_open,
    .on_data = on_data,
    .on_eof = on_eof,
    .on_reset = on_reset,
    .on_size = on_size,
    .on_exit_code = on_exit_code,
    .on_flag = on_flag,
    .on_publication = on_publication,
    .on_kms = on_kms,
    .on_closed = on_closed,
};

static void tell(struct td_pump *p, struct event *e)
{
	const struct td_pump_cb *cb = p->cb;
	switch (e->kind) {
	case EV_READY:
		if (cb->ready)
			cb->ready(p->ctx, tnl_session_info(p->session));
		break;
	case EV_OPEN:
		if (cb->open)
			cb->open(p->ctx, e->st);
		break;
	case EV_CANCELLED:
		if (!e->a && cb->cancelled)
			cb->cancelled(p->ctx, e->st);
		tnl_stream_free(e->st);
		break;
	case EV_FLAG:
		if (cb->flag)
			cb->flag(p->ctx, e->a);
		break;
	case EV_SIZE:
		if (cb->size)
			cb->size(p->ctx, e->a, e->b);
		break;
	case EV_EXIT:
		if (cb->exit_code)
			cb->exit_code(p->ctx, e->err);
		break;
	case EV_PUBLICATION:
		if (cb->publication)
			cb->publication(p->ctx, e->a);
		break;
	case EV_KMS:
		if (cb->kms)
			cb->kms(p->ctx, &(struct tnl_kms_request){.generate = e->a,
								  .key_id = e->text,
								  .challenge = e->challenge,
								  .ciphertext = e->blob,
								  .ciphertext_len = e->blob_len});
		else
			tnl_session_kms_result(p->session, TNL_EREFUSED, NULL, 0, NULL, 0,
					       "encryption not possible here", p->loop->now);
		break;
	case EV_CLOSED:
		if (cb->closed)
			cb->closed(p->ctx, e->err, e->text ? e->text : "");
		break;
	}
}

/* ---- the link ----------------------------------------------------------------- */

static void link_message(void *ctx, enum tnl_ws_op op, uint8_t *b, size_t n)
{
	struct td_pump *p = ctx;
	if (op != TNL_WS_BINARY) {
		td_debug("pump", tnl_session_id(p->session), "text frame ignored bytes=%zu", n);
		return;
	}
	p->fed++;
	p->fed_bytes += n;
	p->depth++;
	int r = tnl_session_feed(p->session, b, n, p->loop->now);
	p->depth--;
	if (r < 0)
		td_pump_kick(p);
}

static void link_batch_end(void *ctx)
{
	td_pump_run(ctx);
}

static void link_closed(void *ctx, int err, uint16_t code, int http_status, const char *why)
{
	struct td_pump *p = ctx;
	td_wslink_free(p->link);
	p->link = NULL;
	p->link_lost = true;
	p->lost_err = err;
	p->lost_code = code;
	strncpy(p->lost_why, why ? why : "", sizeof(p->lost_why) - 1);
	tnl_session_link_down(p->session, p->loop->now);
	td_pump_kick(p);
}

static const struct td_wslink_cb link_cb = {
    .message = link_message,
    .batch_end = link_batch_end,
    .writable = link_batch_end,
    .closed = link_closed,
};

void td_pump_attach(struct td_pump *p, struct td_wslink *w)
{
	if (p->link) {
		td_wslink_free(p->link);
		tnl_session_link_down(p->session, p->loop->now);
	}
	p->link = w;
	p->link_lost = false;
	td_wslink_set_cb(w, &link_cb, p);
	tnl_session_link_up(p->session, p->loop->now);
	td_pump_kick(p);
}

void td_pump_detach(struct td_pump *p)
{
	if (!p->link)
		return;
	td_wslink_free(p->link);
	p->link = NULL;
	tnl_session_link_down(p->session, p->loop->now);
	td_pump_kick(p); /* its deadlines are others now */
}

struct td_wslink *td_pump_link(struct td_pump *p)
{
	return p->link;
}

/* ---- the run -------------------------------------------------------------------- */

static void account(struct td_pump *p)
{
	size_t now = tnl_session_memory(p->session);
	if (now != p->memory_told) {
		td_memory_change((int64_t)now - (int64_t)p->memory_told);
		p->memory_told = now;
	}
}

static void memory_room(void *arg)
{
	struct td_pump *p = arg;
	td_memory_off_room(&p->room);
	tnl_session_retry(p->session);
	td_pump_kick(p);
}

/* When the process is full, sessions take no more bytes in either direction, but each its least share, so that
 * some that stall do not stop those that flow. Asks to be told of room. */
static bool memory_ok(struct td_pump *p)
{
	account(p); /* one run may read a lot: the limit holds within it */
	if (!td_memory_full() || p->memory_told < SESSION_LEAST)
		return true;
	td_memory_on_room(&p->room, p->loop, memory_room, p);
	return false;
}

static bool may_keep(void *ctx)
{
	return memory_ok(ctx);
}

static bool is_ack(const uint8_t *b, size_t n)
{
	static const char type[] = "acknowledge ";
	return n > TNL_MSG_HDR && memcmp(b + 4, type, sizeof(type) - 1) == 0;
}

/* The ack of one small message waits a moment for the answer to that message: a
 * record, a write and a wake-up less in each process on the way.  Only between
 * our own ends; a second ack, or anything else to send, takes it along. */
static void wait_for_company(struct td_pump *p, bool lone)
{
	const struct tnl_session_info *info = tnl_session_info(p->session);
	if (lone && p->link && p->sent == 1 && p->sent_ack && info && info->own_peer)
		td_wslink_linger(p->link, ACK_LINGER);
}

/* Session to link until the link is full or nothing is left. */
static bool move_out(struct td_pump *p)
{
	size_t budget = RUN_BUDGET;
	const uint8_t *b;
	size_t n;

	while (p->link) {
		size_t need = TNL_MSG_HDR + tnl_channel_max_payload(tnl_session_channel(p->session));
		if (need < 4096)
			need = 4096;
		if (td_wslink_room(p->link) < need)
			return false;
		int r = tnl_session_pull(p->session, p->loop->now, &b, &n);
		if (r == 1) {
			p->sent++;
			p->sent_ack = is_ack(b, n);
			r = td_wslink_send(p->link, TNL_WS_BINARY, b, n);
			if (r < 0) {
				/* Cannot happen while room() keeps its word; the channel sends it again. */
				td_warn("pump", tnl_session_id(p->session), "link refused a message bytes=%zu error=%s",
					n, tnl_err_name(r));
				return false;
			}
			continue;
		}
		if (!memory_ok(p))
			return false;
		struct tnl_stream *st = tnl_session_next(p->session, p->loop->now);
		if (!st)
			return false;
		struct td_pipe *pipe = tnl_stream_user(st);
		if (!pipe) {
			tnl_stream_want_send(st, false);
			continue;
		}
		uint64_t before = pipe->in;
		if (!td_pipe_feed_session(pipe))
			continue;
		uint64_t moved = pipe->in - before;
		if (moved >= budget)
			return true;
		budget -= moved;
	}
	return false;
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
	while (!p->dead && !tnl_list_empty(&p->events)) {
		struct event *e = tnl_container_of(p->events.next, struct event, node);
		tnl_list_remove(&e->node);
		tell(p, e);
		event_free(e);
	}
	if (!p->dead && p->link_lost) {
		p->link_lost = false;
		if (p->cb->lost)
			p->cb->lost(p->ctx, p->lost_err, p->lost_code, p->lost_why);
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
	bool more = move_out(p);
	settle_pipes(p);
	tell_all(p);
	if (!p->dead && p->link)
		more |= move_out(p); /* what the callbacks added, and the last word of a pipe that has just ended */
	p->depth--;
	if (p->dead)
		return;
	account(p);
	wait_for_company(p, lone);
	td_timer_at(&p->timer, tnl_session_deadline(p->session));
	if (more || !tnl_list_empty(&p->events))
		td_pump_kick(p);
}

static void kick_cb(void *arg)
{
	struct td_pump *p = arg;
	p->kicked = false;
	td_pump_run(p);
}

void td_pump_kick(struct td_pump *p)
{
	if (p->kicked || p->dead)
		return;
	p->kicked = true;
	td_loop_defer(p->loop, kick_cb, p);
}

static void timer_cb(void *arg)
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
	td_timer_init(&p->timer, l, timer_cb, p);
	sc->cb = &session_cb;
	sc->ctx = p;
	sc->wall_ms = wall_ms;
	sc->may_keep = may_keep;
	p->session = tnl_session_new(sc, l->now);
	if (!p->session) {
		tnl_free(p);
		return NULL;
	}
	td_timer_at(&p->timer, tnl_session_deadline(p->session));
	return p;
}

void td_pump_free(struct td_pump *p)
{
	if (!p || p->dead)
		return;
	p->dead = true;
	td_timer_stop(&p->timer);
	td_memory_off_room(&p->room);
	tnl_list_foreach_safe(it, &p->pipes) td_pipe_destroy(tnl_container_of(it, struct td_pipe, node), true);
	while (!tnl_list_empty(&p->events))
		event_free(tnl_container_of(p->events.next, struct event, node));
	if (p->link) {
		td_wslink_free(p->link);
		p->link = NULL;
	}
	if (p->memory_told)
		td_memory_change(-(int64_t)p->memory_told);
	p->memory_told = 0;
	/* The session may be on the stack, and a kick may be queued: deferred calls run in order, this one last. */
	td_loop_defer(p->loop, pump_destroy, p);
}

struct tnl_session *td_pump_session(struct td_pump *p)
{
	return p->session;
}

size_t td_pump_pipes(const struct td_pump *p)
{
	return p->npipes;
}
