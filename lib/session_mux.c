/* smux, what the streams of a multiplexed session share: who may send, the windows that are
 * granted to the peer (version 2), and control frames, packed many to a message. */
#include "lib/num.h"
#include "lib/session_internal.h"
#include "lib/steps.h"
#include <string.h>

#define CTL_MAX 40u /* OPEN or SYN, UPD, FIN or RST of one stream; its head and words come on top */
#define QUARTER_MIN (16u * 1024)
#define IDLE_AFTER (1000 * TNL_MS)
#define IDLE_EVERY (250 * TNL_MS) /* looked for, where windows are wanted */
#define WINDOW_MAX (UINT32_C(1) << 30)
#define SPREAD_WINDOW 4u /* times as wide over several links: each of them may be repairing a loss */

struct tnl_stream *tnl_mux_find(const struct tnl_mux *m, uint32_t id)
{
	struct tnl_stream *st = tnl_map_get_u64(m->by_id, id);
	return st && !st->zombie && !st->was_reset ? st : NULL;
}

/* --- sending: who may ----------------------------------------------------- */

size_t tnl_mux_window(const struct tnl_stream *st)
{
	const struct tnl_session *s = st->s;
	if (s->info.mode != TNL_MODE_MUX)
		return TNL_MSG_MAX_PAYLOAD;
	if (s->mux.version < 2)
		return s->info.own_peer ? TNL_SMUX_MAX_DATA : TNL_SMUX_STOCK_DATA;
	/* Signed: a peer that shrank its window leaves less than nothing. */
	int64_t left = (int64_t)st->peer_window - (int32_t)(st->sent - st->peer_consumed);
	return (size_t)TNL_MAX(0, TNL_MIN(left, (int64_t)TNL_SMUX_MAX_DATA));
}

bool tnl_mux_sendable(const struct tnl_stream *st)
{
	const struct tnl_session *s = st->s;
	if (!st->connected || st->shut || st->was_reset || st->zombie)
		return false;
	if (st->fin_recv && !s->info.half_close)
		return false;
	if (s->info.mode == TNL_MODE_MUX ? st->id == 0 : s->mux.single != st)
		return false;
	return tnl_mux_window(st) > 0;
}

static bool turn_ready(const struct tnl_turn *t)
{
	const struct tnl_stream *st = tnl_container_of(t, struct tnl_stream, turn);
	return st->want && tnl_mux_sendable(st);
}

int tnl_mux_init(struct tnl_mux *m)
{
	tnl_list_init(&m->streams);
	tnl_list_init(&m->dead);
	tnl_list_init(&m->work);
	m->streams_max = TNL_STREAMS_MAX;
	tnl_turns_init(&m->turns, turn_ready);
	tnl_list_init(&m->ctl);
	tnl_list_init(&m->timed);
	m->version = 1;
	m->next_id = 3;
	tnl_smux_parser_init(&m->in, m->version, false);
	m->timer_at = TNL_NEVER;
	m->by_id = tnl_map_new();
	return m->by_id ? 0 : TNL_ENOMEM;
}

void tnl_mux_fini(struct tnl_mux *m)
{
	tnl_map_free(m->by_id);
	m->by_id = NULL;
}

/* --- windows (version 2) ---------------------------------------------------- */

static uint64_t claim_of(const struct tnl_stream *st)
{
	return (uint64_t)st->window + TNL_KEPT_OVERHEAD;
}

void tnl_mux_claim(struct tnl_stream *st, bool claims)
{
	if (st->claims == claims)
		return;
	st->claims = claims;
	if (claims)
		st->s->mux.claimed += claim_of(st);
	else
		st->s->mux.claimed -= claim_of(st);
}

/* Streams whose readers have taken all, and to which nothing has come for a while, claim nothing: else a pool of idle
 * connections would leave the one that is busy without a window.  Their peers may still use what they were told; should
 * so many do at once that it does not fit, the session takes no more until some of it is read. */
static void forget_idle(struct tnl_session *s, uint64_t now)
{
	if (now < s->mux.idle_at)
		return;
	s->mux.idle_at = now + IDLE_EVERY;
	tnl_list_foreach(it, &s->mux.streams) {
		struct tnl_stream *st = tnl_container_of(it, struct tnl_stream, all);
		tnl_step();
		if (!st->kept.len && st->rx_at + IDLE_AFTER <= now)
			tnl_mux_claim(st, false);
	}
}

static uint64_t unclaimed(const struct tnl_session *s)
{
	uint64_t most_of_it = s->kept_max / 8 * 5;
	return most_of_it > s->mux.claimed ? most_of_it - s->mux.claimed : 0;
}

/* The window may grow into a quarter of what no window claims yet; it never
 * shrinks, since the peer counts on what it was told.  A backlog takes more
 * memory than its bytes, and the first windows of streams to come need room too:
 * three eighths are left to them, or a few stalled streams with wide windows
 * would let the next ones fill the session and hold up everybody. */
static void grow_window(struct tnl_stream *st)
{
	struct tnl_session *s = st->s;
	uint64_t wide = s->cfg.stream_window * (tnl_channel_is_spread(s->ch) ? SPREAD_WINDOW : 1u);
	uint64_t most = TNL_MIN(wide, WINDOW_MAX);
	tnl_mux_claim(st, true);
	if (most <= st->window)
		return;
	if (unclaimed(s) / 4 < most - st->window)
		forget_idle(s, st->rx_at);
	uint64_t more = TNL_MIN(unclaimed(s) / 4, most - st->window);
	s->mux.claimed += more;
	st->window += (uint32_t)more;
}

void tnl_mux_first_grant(struct tnl_stream *st)
{
	if (st->s->mux.version < 2)
		return;
	st->window = TNL_MUX_FIRST_WINDOW;
	grow_window(st);
	if (st->window > TNL_MUX_FIRST_WINDOW) {
		st->upd_due = true;
		tnl_stream_queue_control(st);
	}
}

void tnl_mux_grant(struct tnl_stream *st)
{
	if (st->s->mux.version < 2 || st->s->info.mode != TNL_MODE_MUX || st->fin_recv || st->was_reset || st->zombie)
		return;
	uint32_t since = st->consumed - st->told;
	/* Told at each quarter, a sender far away has three quarters of the window at its disposal; small windows keep
	 * to halves. */
	uint32_t step = st->window / 4 >= QUARTER_MIN ? st->window / 4 : st->window / 2;
	if (since == 0 || (st->told != 0 && since < step))
		return;
	grow_window(st);
	st->upd_due = true;
	tnl_stream_queue_control(st);
}

/* --- control frames --------------------------------------------------------- */

static size_t put_frame(struct tnl_session *s, uint8_t *p, enum tnl_smux_cmd cmd, uint32_t id, uint16_t len)
{
	struct tnl_smux_frame f = {(uint8_t)s->mux.version, (uint8_t)cmd, len, id};
	tnl_smux_write(p, &f);
	return TNL_SMUX_HDR;
}

static size_t put_open(struct tnl_stream *st, uint8_t *p)
{
	size_t n = put_frame(st->s, p, TNL_SMUX_OPEN, st->id, 4);
	tnl_put_le32(p + n, (uint32_t)st->asked);
	return n + 4;
}

static size_t reset_words_due(const struct tnl_stream *st)
{
	return st->rst_due && st->reset_words ? strlen(st->reset_words) : 0;
}

/* What stands behind the frames that are due, beside their fixed parts. */
static size_t words_due(const struct tnl_stream *st)
{
	size_t head = st->head_out ? TNL_SMUX_HDR + st->head_len : 0;
	return reset_words_due(st) + head + (st->syn_due && st->listener ? TNL_SMUX_WORDS : 0);
}

static size_t put_syn(struct tnl_stream *st, uint8_t *p)
{
	size_t words = 0;
	if (st->listener)
		words = tnl_reverse_head_write(p + TNL_SMUX_HDR, st->listener, tnl_stream_from(st));
	return put_frame(st->s, p, TNL_SMUX_SYN, st->id, (uint16_t)words) + words;
}

static size_t put_head(struct tnl_stream *st, uint8_t *p)
{
	size_t n = put_frame(st->s, p, TNL_SMUX_PSH, st->id, (uint16_t)st->head_len);
	memcpy(p + n, st->head_out, st->head_len);
	n += st->head_len;
	st->sent += (uint32_t)st->head_len;
	tnl_stream_drop_head(st);
	return n;
}

static size_t put_due(struct tnl_stream *st, uint8_t *p)
{
	struct tnl_session *s = st->s;
	size_t n = 0;
	if (st->stands_due || (st->syn_due && st->asked))
		n += put_open(st, p + n);
	else if (st->syn_due)
		n += put_syn(st, p + n);
	if (st->head_out)
		n += put_head(st, p + n);
	if (st->upd_due) {
		n += put_frame(s, p + n, TNL_SMUX_UPD, st->id, 8);
		tnl_put_le32(p + n, st->consumed);
		tnl_put_le32(p + n + 4, st->window);
		n += 8;
		st->told = st->consumed;
	}
	if (st->fin_due) {
		n += put_frame(s, p + n, TNL_SMUX_FIN, st->id, 0);
		st->fin_sent = true;
	}
	if (st->rst_due) {
		size_t words = reset_words_due(st);
		n += put_frame(s, p + n, TNL_SMUX_RST, st->id, (uint16_t)(4 + words));
		tnl_put_le32(p + n, st->reset_reason);
		if (words)
			memcpy(p + n + 4, st->reset_words, words);
		n += 4 + words;
	}
	st->syn_due = st->stands_due = st->upd_due = st->fin_due = st->rst_due = false;
	tnl_stream_leave_control(st);
	return n;
}

static struct tnl_stream *first_ctl(const struct tnl_mux *m)
{
	return tnl_list_empty(&m->ctl) ? NULL : tnl_container_of(m->ctl.next, struct tnl_stream, ctl);
}

/* ConnectToPortError names no stream: it goes out right before that stream's FIN. */
static bool flush_flag3(struct tnl_session *s, struct tnl_stream *st, uint64_t now)
{
	uint8_t *p = tnl_channel_reserve(s->ch, 4);
	if (!p)
		return false;
	tnl_put_be32(p, TNL_FLAG_CONNECT_ERROR);
	st->flag3_due = false;
	int rc = tnl_channel_commit(s->ch, TNL_PT_FLAG, 4, 0, now);
	if (rc)
		s->failed = rc;
	return rc == 0;
}

static size_t ctl_room(const struct tnl_session *s)
{
	size_t want = s->mux.nop_due ? TNL_SMUX_HDR : 0;
	tnl_list_foreach(it, &s->mux.ctl) {
		want += CTL_MAX + words_due(tnl_container_of(it, struct tnl_stream, ctl));
		if (want > TNL_MIN_PAYLOAD)
			break;
	}
	size_t most = TNL_MIN_PAYLOAD - tnl_session_around(s);
	return TNL_MIN(want, most);
}

bool tnl_mux_flush(struct tnl_session *s, uint64_t now)
{
	struct tnl_mux *m = &s->mux;
	struct tnl_stream *st;
	while ((st = first_ctl(m)) || m->nop_due) {
		if (st && st->flag3_due) {
			if (!flush_flag3(s, st, now))
				return false;
			continue;
		}
		size_t room = ctl_room(s), n = 0;
		uint8_t *buf = tnl_channel_reserve(s->ch, room + tnl_session_around(s));
		if (!buf)
			return false;
		uint8_t *p = buf + tnl_session_front(s);
		if (m->nop_due)
			n += put_frame(s, p, TNL_SMUX_NOP, 0, 0);
		m->nop_due = false;
		while ((st = first_ctl(m)) && !st->flag3_due && n + CTL_MAX + words_due(st) <= room)
			n += put_due(st, p + n);
		if (n == 0) {
			tnl_channel_abandon(s->ch);
			continue;
		}
		int rc = tnl_session_commit(s, buf, n, TNL_PT_OUTPUT, now);
		if (rc) {
			s->failed = rc;
			return false;
		}
	}
	return true;
}
