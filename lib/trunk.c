/* Streams of a trunk: who may send how much, and what the other end's frames mean.  Numbers are given upward, odd ones
 * by who dialed; so what names a number that was never given is a fault, and what names one that is over is late. */
#include "lib/trunk.h"
#include "lib/alloc.h"
#include "lib/map.h"
#include "lib/num.h"
#include <string.h>

#define VERSION 2
#define MAGIC "TNLPEER1"
#define MAGIC_LEN 8u
#define PART (16u * 1024) /* of a stream, in one frame */
#define ACK_AT (TNL_TRUNK_WINDOW / 4)
#define GONE 0u	     /* reason of our RST */
#define DISMISSED 0u /* window of an UPD: the stream is to end. Else it is always the same, so that this is free */

struct tnl_trunk_stream {
	struct tnl_trunk *t;
	struct tnl_list all;
	struct tnl_turn turn;
	void *user;
	uint32_t id;
	uint32_t sent, acked;	    /* bytes, by us; taken by the other end */
	uint32_t came, taken, told; /* bytes, from it; taken here; of that it knows */
	bool wants, starved;	    /* has bytes to send; and waits for credit */
	bool fin_sent, fin_came;
};

struct tnl_trunk {
	struct tnl_trunk_config cfg;
	char name[TNL_TRUNK_NAME + 1], peer[TNL_TRUNK_NAME + 1];
	uint8_t head[MAGIC_LEN + 1 + TNL_TRUNK_NAME];
	size_t have;
	bool greeted;
	struct tnl_smux_parser parser;
	struct tnl_buf out;
	size_t reserved;
	struct tnl_map *by_id;
	struct tnl_list streams;
	struct tnl_turns turns;
	size_t count;
	uint32_t next_id, last_theirs;
};

/* --- life ------------------------------------------------------------------------------------ */

static size_t credit_of(const struct tnl_trunk_stream *st)
{
	return TNL_TRUNK_WINDOW - (st->sent - st->acked);
}

static bool is_ready(const struct tnl_turn *turn)
{
	const struct tnl_trunk_stream *st = tnl_container_of(turn, struct tnl_trunk_stream, turn);
	return st->wants && credit_of(st);
}

struct tnl_trunk *tnl_trunk_new(const struct tnl_trunk_config *c)
{
	struct tnl_trunk *t = tnl_calloc(1, sizeof(*t));
	size_t n = strlen(c->name);
	if (!t || n == 0 || n > TNL_TRUNK_NAME || !(t->by_id = tnl_map_new())) {
		tnl_free(t);
		return NULL;
	}
	t->cfg = *c;
	memcpy(t->name, c->name, n);
	t->cfg.name = t->name;
	t->next_id = c->dialer ? 1 : 2;
	tnl_list_init(&t->streams);
	tnl_turns_init(&t->turns, is_ready);
	tnl_smux_parser_init(&t->parser, VERSION, true);
	tnl_buf_init(&t->out, TNL_TRUNK_DATA + TNL_TRUNK_CONTROL);
	tnl_buf_put(&t->out, MAGIC, MAGIC_LEN);
	tnl_buf_putc(&t->out, (int)n);
	tnl_buf_put(&t->out, t->name, n);
	return t;
}

static void free_stream(struct tnl_trunk_stream *st)
{
	tnl_map_del_u64(st->t->by_id, st->id);
	tnl_turns_leave(&st->turn);
	tnl_list_remove(&st->all);
	st->t->count--;
	tnl_free(st);
}

void tnl_trunk_free(struct tnl_trunk *t)
{
	if (!t)
		return;
	tnl_list_foreach_safe(it, &t->streams)
		free_stream(tnl_container_of(it, struct tnl_trunk_stream, all));
	tnl_map_free(t->by_id);
	tnl_buf_fini(&t->out);
	tnl_free(t);
}

const char *tnl_trunk_peer(const struct tnl_trunk *t)
{
	return t->greeted ? t->peer : NULL;
}

struct tnl_buf *tnl_trunk_out(struct tnl_trunk *t)
{
	return &t->out;
}

size_t tnl_trunk_streams(const struct tnl_trunk *t)
{
	return t->count;
}

struct tnl_trunk_stream *tnl_trunk_first(struct tnl_trunk *t)
{
	return tnl_list_empty(&t->streams) ? NULL : tnl_container_of(t->streams.next, struct tnl_trunk_stream, all);
}

/* --- frames out -------------------------------------------------------------------------------- */

static void put_frame(struct tnl_trunk *t, enum tnl_smux_cmd cmd, uint32_t id, const void *body, size_t n)
{
	const struct tnl_smux_frame f = {.version = VERSION, .cmd = (uint8_t)cmd, .len = (uint16_t)n, .id = id};
	uint8_t *p = tnl_buf_reserve(&t->out, TNL_SMUX_HDR + n);
	if (!p) {
		t->out.failed = true;
		return;
	}
	tnl_smux_write(p, &f);
	if (n)
		memcpy(p + TNL_SMUX_HDR, body, n);
	tnl_buf_commit(&t->out, TNL_SMUX_HDR + n);
}

void tnl_trunk_nop(struct tnl_trunk *t)
{
	put_frame(t, TNL_SMUX_NOP, 0, NULL, 0);
}

static struct tnl_trunk_stream *add_stream(struct tnl_trunk *t, uint32_t id)
{
	struct tnl_trunk_stream *st = tnl_calloc(1, sizeof(*st));
	if (!st || tnl_map_set_u64(t->by_id, id, st) != 0) {
		tnl_free(st);
		return NULL;
	}
	st->t = t;
	st->id = id;
	tnl_turn_init(&st->turn);
	tnl_list_push_back(&t->streams, &st->all);
	t->count++;
	return st;
}

struct tnl_trunk_stream *tnl_trunk_open(struct tnl_trunk *t, void *user)
{
	if (!t->greeted || t->count >= t->cfg.max_streams || t->next_id > UINT32_MAX - 2)
		return NULL;
	struct tnl_trunk_stream *st = add_stream(t, t->next_id);
	if (!st)
		return NULL;
	st->user = user;
	t->next_id += 2;
	put_frame(t, TNL_SMUX_SYN, st->id, NULL, 0);
	return st;
}

void tnl_trunk_set_user(struct tnl_trunk_stream *st, void *user)
{
	st->user = user;
}

void *tnl_trunk_user(const struct tnl_trunk_stream *st)
{
	return st->user;
}

void tnl_trunk_want(struct tnl_trunk_stream *st)
{
	if (st->fin_sent)
		return;
	st->wants = true;
	st->starved = !credit_of(st);
	if (!st->starved)
		tnl_turns_return(&st->t->turns, &st->turn);
}

struct tnl_trunk_stream *tnl_trunk_next(struct tnl_trunk *t)
{
	if (tnl_buf_len(&t->out) >= TNL_TRUNK_DATA)
		return NULL;
	struct tnl_turn *turn = tnl_turns_next(&t->turns);
	return turn ? tnl_container_of(turn, struct tnl_trunk_stream, turn) : NULL;
}

uint8_t *tnl_trunk_reserve(struct tnl_trunk_stream *st, size_t *n)
{
	*n = TNL_MIN(*n, TNL_MIN((size_t)PART, credit_of(st)));
	uint8_t *p = tnl_buf_reserve(&st->t->out, TNL_SMUX_HDR + *n);
	return p ? p + TNL_SMUX_HDR : NULL;
}

void tnl_trunk_commit(struct tnl_trunk_stream *st, size_t n)
{
	struct tnl_trunk *t = st->t;
	const struct tnl_smux_frame f = {.version = VERSION, .cmd = TNL_SMUX_PSH, .len = (uint16_t)n, .id = st->id};
	if (n == 0) {
		st->wants = false;
		tnl_turns_leave(&st->turn);
		return;
	}
	uint8_t *p = tnl_buf_reserve(&t->out, TNL_SMUX_HDR + n); /* the same room as before */
	tnl_smux_write(p, &f);
	tnl_buf_commit(&t->out, TNL_SMUX_HDR + n);
	st->sent += (uint32_t)n;
	st->starved = !credit_of(st);
	tnl_turn_charge(&st->turn, n);
}

static void put_update(struct tnl_trunk_stream *st, uint32_t window)
{
	uint8_t body[8];
	st->told = st->taken;
	tnl_put_le32(body, st->told);
	tnl_put_le32(body + 4, window);
	put_frame(st->t, TNL_SMUX_UPD, st->id, body, sizeof(body));
}

void tnl_trunk_taken(struct tnl_trunk_stream *st, size_t n)
{
	st->taken += (uint32_t)n;
	if (!st->fin_came && st->taken - st->told >= ACK_AT)
		put_update(st, TNL_TRUNK_WINDOW);
}

void tnl_trunk_dismiss(struct tnl_trunk_stream *st)
{
	if (!st->fin_came)
		put_update(st, DISMISSED);
}

void tnl_trunk_shut(struct tnl_trunk_stream *st)
{
	if (st->fin_sent)
		return;
	st->fin_sent = true;
	st->wants = false;
	tnl_turns_leave(&st->turn);
	put_frame(st->t, TNL_SMUX_FIN, st->id, NULL, 0);
}

void tnl_trunk_close(struct tnl_trunk_stream *st)
{
	uint8_t body[4];
	if (!st->fin_sent || !st->fin_came) {
		tnl_put_le32(body, GONE);
		put_frame(st->t, TNL_SMUX_RST, st->id, body, sizeof(body));
	}
	free_stream(st);
}

/* --- frames in ----------------------------------------------------------------------------------- */

static bool is_theirs(const struct tnl_trunk *t, uint32_t id)
{
	return (id & 1) == (t->cfg.dialer ? 0 : 1);
}

/* Was the number ever given? */
static bool was_given(const struct tnl_trunk *t, uint32_t id)
{
	return id != 0 && (is_theirs(t, id) ? id <= t->last_theirs : id < t->next_id);
}

static int on_syn(struct tnl_trunk *t, uint32_t id)
{
	if (!is_theirs(t, id) || id == 0 || id <= t->last_theirs)
		return TNL_EPROTO;
	t->last_theirs = id;
	struct tnl_trunk_stream *st = t->count < t->cfg.max_streams ? add_stream(t, id) : NULL;
	if (st) {
		t->cfg.opened(t->cfg.ctx, st);
		return 0;
	}
	uint8_t body[4] = {GONE};
	put_frame(t, TNL_SMUX_RST, id, body, sizeof(body));
	return 0;
}

static int on_data(struct tnl_trunk *t, struct tnl_trunk_stream *st, const uint8_t *p, size_t n)
{
	st->came += (uint32_t)n;
	if (st->fin_came || st->came - st->told > TNL_TRUNK_WINDOW)
		return TNL_EPROTO;
	t->cfg.data(t->cfg.ctx, st, p, n);
	return 0;
}

static int on_update(struct tnl_trunk *t, struct tnl_trunk_stream *st, uint32_t taken, uint32_t window)
{
	if (taken - st->acked > st->sent - st->acked)
		return TNL_EPROTO;
	st->acked = taken;
	if (st->starved && credit_of(st)) {
		st->starved = false;
		if (st->wants)
			tnl_turns_return(&t->turns, &st->turn);
		t->cfg.credit(t->cfg.ctx, st);
	}
	if (window == DISMISSED)
		t->cfg.dismissed(t->cfg.ctx, st); /* which may close it */
	return 0;
}

static int on_event(struct tnl_trunk *t, const struct tnl_smux_event *e)
{
	if (e->cmd == TNL_SMUX_NOP)
		return 0;
	if (e->cmd == TNL_SMUX_SYN)
		return on_syn(t, e->id);
	if (!was_given(t, e->id))
		return TNL_EPROTO;
	struct tnl_trunk_stream *st = tnl_map_get_u64(t->by_id, e->id);
	if (!st)
		return 0;
	switch (e->cmd) {
	case TNL_SMUX_PSH:
		return on_data(t, st, e->data, e->len);
	case TNL_SMUX_UPD:
		return on_update(t, st, e->consumed, e->window);
	case TNL_SMUX_FIN:
		if (st->fin_came)
			return TNL_EPROTO;
		st->fin_came = true;
		t->cfg.ended(t->cfg.ctx, st, false);
		return 0;
	case TNL_SMUX_RST:
		st->fin_came = st->fin_sent = true; /* it knows */
		tnl_turns_leave(&st->turn);
		t->cfg.ended(t->cfg.ctx, st, true);
		return 0;
	default:
		return TNL_EPROTO;
	}
}

/* Takes the greeting from *p; TNL_EAGAIN: it is not whole. */
static int take_greeting(struct tnl_trunk *t, const uint8_t **p, size_t *n)
{
	while (*n && !t->greeted) {
		t->head[t->have++] = *(*p)++;
		(*n)--;
		if (t->have <= MAGIC_LEN && t->head[t->have - 1] != (uint8_t)MAGIC[t->have - 1])
			return TNL_EPROTO;
		if (t->have <= MAGIC_LEN)
			continue;
		size_t len = t->head[MAGIC_LEN];
		if (len == 0 || len > TNL_TRUNK_NAME)
			return TNL_EPROTO;
		if (t->have < MAGIC_LEN + 1 + len)
			continue;
		memcpy(t->peer, t->head + MAGIC_LEN + 1, len);
		if (strlen(t->peer) != len || !t->cfg.greeted(t->cfg.ctx, t->peer))
			return TNL_EAUTH;
		t->greeted = true;
	}
	return t->greeted ? 0 : TNL_EAGAIN;
}

int tnl_trunk_feed(struct tnl_trunk *t, const uint8_t *p, size_t n)
{
	struct tnl_smux_event e;
	int r = take_greeting(t, &p, &n);
	if (r != 0)
		return r == TNL_EAGAIN ? 0 : r;
	while (n && (r = tnl_smux_next(&t->parser, &p, &n, &e)) > 0) {
		r = on_event(t, &e);
		if (r != 0)
			return r;
		if (t->out.failed)
			return TNL_ELIMIT;
	}
	return r < 0 ? r : 0;
}
