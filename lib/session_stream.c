/* Streams: their life, their timers, sending. */
#include "lib/alloc.h"
#include "lib/num.h"
#include "lib/session_internal.h"
#include "lib/steps.h"
#include <string.h>

struct tnl_stream *tnl_stream_create(struct tnl_session *s, bool ours, uint64_t now)
{
	struct tnl_stream *st = tnl_calloc(1, sizeof(*st));
	if (!st)
		return NULL;
	st->s = s;
	tnl_list_init(&st->dead);
	tnl_turn_init(&st->turn);
	tnl_list_init(&st->ctl);
	tnl_list_init(&st->timed);
	tnl_list_init(&st->work);
	tnl_list_push_back(&s->mux.streams, &st->all);
	s->mux.nstreams++;
	/* A terminal has nothing to dial. */
	st->connected = ours || s->info.mode == TNL_MODE_SHELL || s->info.mode == TNL_MODE_COMMAND;
	st->peer_window = TNL_MUX_FIRST_WINDOW;
	st->tx_at = st->rx_at = now;
	st->last_number = st->old_number = -1;
	st->timer_at = TNL_NEVER;
	return st;
}

static void drop_kept(struct tnl_stream *st)
{
	struct tnl_session *s = st->s;
	s->kept_memory -= st->kept.memory;
	tnl_kept_clear(&st->kept);
	if (s->blocked && tnl_session_room(s, s->blocked_len))
		s->ready_due = true;
}

/* Out of everybody's sight but the control queue's. */
static void leave_lists(struct tnl_stream *st)
{
	struct tnl_mux *m = &st->s->mux;
	drop_kept(st);
	tnl_turns_leave(&st->turn);
	tnl_list_remove(&st->timed);
	tnl_list_remove(&st->work);
	st->push_due = st->eof_due = false;
	tnl_mux_claim(st, false);
	st->window = 0;
	if (m->single == st)
		m->single = NULL;
}

void tnl_stream_destroy(struct tnl_stream *st)
{
	struct tnl_session *s = st->s;
	if (st->zombie)
		s->mux.nzombies--;
	else
		s->mux.nstreams--;
	leave_lists(st);
	tnl_list_remove(&st->ctl);
	tnl_list_remove(&st->dead);
	tnl_list_remove(&st->all);
	tnl_free(st->reset_words);
	tnl_free(st->from);
	tnl_stream_head_fini(st);
	if (st->id && tnl_map_get_u64(s->mux.by_id, st->id) == st)
		(void)tnl_map_del_u64(s->mux.by_id, st->id);
	if (s->reserved == st) {
		tnl_channel_abandon(s->ch);
		s->reserved = NULL;
	}
	tnl_free(st);
}

void tnl_session_streams_reap(struct tnl_session *s)
{
	while (!s->depth && !tnl_list_empty(&s->mux.dead))
		tnl_stream_destroy(tnl_container_of(s->mux.dead.next, struct tnl_stream, dead));
}

void tnl_stream_queue_control(struct tnl_stream *st)
{
	if (tnl_list_empty(&st->ctl))
		tnl_list_push_back(&st->s->mux.ctl, &st->ctl);
}

void tnl_stream_leave_control(struct tnl_stream *st)
{
	tnl_list_remove(&st->ctl);
	if (st->zombie && tnl_list_empty(&st->dead))
		tnl_list_push_back(&st->s->mux.dead, &st->dead);
}

void tnl_stream_call_open(struct tnl_stream *st)
{
	struct tnl_session *s = st->s;
	if (!s->cb.on_open)
		return;
	tnl_session_cb_enter(s);
	s->cb.on_open(s->cfg.ctx, st);
	tnl_session_cb_leave(s);
}

/* --- timers ------------------------------------------------------------------- */

static bool fin_held(const struct tnl_stream *st)
{
	enum tnl_session_mode m = st->s->info.mode;
	return st->shut && !st->fin_due && !st->fin_sent &&
	       (m == TNL_MODE_MUX || m == TNL_MODE_BASIC || m == TNL_MODE_SINGLE);
}

bool tnl_stream_holding(const struct tnl_stream *st)
{
	return fin_held(st) && !st->s->info.half_close && !st->zombie && !st->was_reset;
}

static uint64_t timer_of(const struct tnl_stream *st)
{
	const struct tnl_session_config *c = &st->s->cfg;
	if (st->zombie || st->was_reset || st->s->state != TNL_SS_READY)
		return TNL_NEVER;
	if (fin_held(st))
		/* A client's end of input is often followed by the whole answer; a
		 * target's end is its last word, only what still comes in counts. */
		return (c->agent ? st->rx_at : TNL_MAX(st->rx_at, st->shut_at)) + c->fin_quiet_ns;
	if (tnl_stream_unheard(st))
		return st->tx_at + TNL_HEAD_TIME;
	bool halves =
	    st->s->info.mode == TNL_MODE_MUX || (st->s->info.mode == TNL_MODE_SINGLE && st->s->info.half_close);
	if (c->half_close_timeout_ns && halves && st->shut != st->fin_recv)
		return TNL_MAX(TNL_MAX(st->rx_at, st->tx_at), st->shut_at) + c->half_close_timeout_ns;
	return TNL_NEVER;
}

void tnl_stream_arm_timer(struct tnl_stream *st)
{
	struct tnl_mux *m = &st->s->mux;
	st->timer_at = timer_of(st);
	if (st->timer_at == TNL_NEVER) {
		tnl_list_remove(&st->timed);
		return;
	}
	if (tnl_list_empty(&st->timed))
		tnl_list_push_back(&m->timed, &st->timed);
	m->timer_at = TNL_MIN(m->timer_at, st->timer_at);
}

static void timer_fired(struct tnl_stream *st)
{
	struct tnl_session *s = st->s;
	if (tnl_stream_unheard(st)) {
		tnl_stream_refuse_unheard(st, TNL_RESET_TIMEOUT, "it did not say in time where it goes");
		return;
	}
	if (!fin_held(st)) {
		tnl_stream_send_reset(st, TNL_RESET_TIMEOUT);
		tnl_stream_report_reset(st, TNL_RESET_TIMEOUT);
		return;
	}
	if (s->info.mode == TNL_MODE_MUX) {
		st->fin_due = true;
		tnl_stream_queue_control(st);
		return;
	}
	if (s->info.mode == TNL_MODE_BASIC && !s->cfg.agent && tnl_session_out_flag(s, TNL_FLAG_DISCONNECT))
		s->failed = TNL_ENOMEM;
	tnl_stream_end_single(st);
}

void tnl_session_streams_expire(struct tnl_session *s, uint64_t now)
{
	struct tnl_mux *m = &s->mux;
	struct tnl_list round; /* each once, whatever callbacks do to the list */
	if (now < m->timer_at)
		return;
	m->timer_at = TNL_NEVER;
	tnl_list_init(&round);
	tnl_list_splice_back(&round, &m->timed);
	while (!tnl_list_empty(&round)) {
		struct tnl_stream *st = tnl_container_of(round.next, struct tnl_stream, timed);
		tnl_step();
		tnl_list_remove(&st->timed);
		if (timer_of(st) <= now)
			timer_fired(st);
		tnl_stream_arm_timer(st);
	}
}

/* --- reset -------------------------------------------------------------------- */

static void forget_due(struct tnl_stream *st)
{
	st->was_reset = true;
	st->upd_due = st->fin_due = st->rst_due = st->flag3_due = st->syn_due = st->stands_due = false;
	tnl_list_remove(&st->ctl);
	tnl_stream_drop_head(st);
	leave_lists(st);
}

void tnl_stream_report_reset(struct tnl_stream *st, uint32_t reason)
{
	struct tnl_session *s = st->s;
	if (!st->was_reset) {
		st->reset_reason = reason;
		forget_due(st);
	}
	if (tnl_stream_unheard(st)) {
		tnl_session_cb_enter(s); /* whoever called still looks at it */
		tnl_stream_free(st);
		tnl_session_cb_leave(s);
		return;
	}
	if (!s->cb.on_reset || st->zombie)
		return;
	tnl_session_cb_enter(s);
	s->cb.on_reset(s->cfg.ctx, st, reason);
	tnl_session_cb_leave(s);
}

void tnl_stream_send_reset(struct tnl_stream *st, uint32_t reason)
{
	struct tnl_session *s = st->s;
	if (st->was_reset)
		return;
	bool unheard = st->id == 0 || st->syn_due; /* the peer does not know of it */
	bool fin_sent = st->fin_sent, over = st->fin_recv && (fin_sent || st->fin_due), fin_due = st->fin_due;
	forget_due(st);
	st->reset_reason = reason;
	if (tnl_session_over(s) || s->state != TNL_SS_READY)
		return;
	bool refused = s->cfg.agent && !st->connected;
	if (s->info.mode == TNL_MODE_MUX) {
		if (unheard)
			return;
		if (s->info.half_close && !over) {
			st->rst_due = true;
		} else if (fin_due || !fin_sent) {
			st->fin_due = true;
			st->flag3_due = refused && !s->info.half_close;
		}
		if (st->rst_due || st->fin_due)
			tnl_stream_queue_control(st);
		return;
	}
	int rc = 0;
	if (s->info.mode == TNL_MODE_SINGLE && s->info.half_close && !over)
		rc = tnl_session_out_flag(s, TNL_FLAG_STREAM_RST | (reason & 0xff));
	else if (s->info.mode == TNL_MODE_BASIC && !s->cfg.agent && !over)
		rc = tnl_session_out_flag(s, TNL_FLAG_DISCONNECT);
	else if (refused && (s->info.mode == TNL_MODE_BASIC || s->info.mode == TNL_MODE_SINGLE))
		rc = tnl_session_out_flag(s, TNL_FLAG_CONNECT_ERROR);
	if (rc)
		s->failed = rc;
}

/* After shut: FIN now or by timer. */
static void plan_fin(struct tnl_stream *st)
{
	struct tnl_session *s = st->s;
	if (s->state != TNL_SS_READY)
		return;
	switch (s->info.mode) {
	case TNL_MODE_MUX:
		if (st->id && (s->info.half_close || st->fin_recv) && !st->fin_sent) {
			st->fin_due = true;
			tnl_stream_queue_control(st);
		}
		break;
	case TNL_MODE_SINGLE:
		if (s->info.half_close && !st->fin_sent) {
			st->fin_sent = true;
			if (tnl_session_out_flag(s, TNL_FLAG_STREAM_FIN))
				s->failed = TNL_ENOMEM;
		}
		break;
	case TNL_MODE_SHELL:
	case TNL_MODE_COMMAND:
		st->fin_sent = true; /* a terminal's end is the session's, which is the daemon's to say */
		break;
	default:
		break;
	}
	tnl_stream_arm_timer(st);
}

/* Into the turns, if it wants and may. */
static void take_turn(struct tnl_stream *st)
{
	if (st->want && tnl_mux_sendable(st))
		tnl_turns_join(&st->s->mux.turns, &st->turn);
}

/* --- public: life ------------------------------------------------------------- */

void tnl_stream_start(struct tnl_stream *st, uint64_t now)
{
	struct tnl_session *s = st->s;
	struct tnl_mux *m = &s->mux;
	if (st->was_reset || st->zombie)
		return;
	if (!s->cfg.agent && !st->head_out != !s->info.dial) { /* it was opened before that was known */
		tnl_stream_report_reset(st, TNL_RESET_DENIED);
		return;
	}
	if (s->info.mode == TNL_MODE_MUX) {
		st->id = m->next_id;
		if (tnl_map_set_u64(m->by_id, st->id, st)) {
			st->id = 0;
			tnl_stream_report_reset(st, TNL_RESET_LIMIT);
			return;
		}
		m->next_id += 2;
		st->syn_due = true;
		tnl_stream_queue_control(st);
		tnl_mux_first_grant(st);
	} else if (m->single || m->had_single) {
		tnl_stream_report_reset(st, TNL_RESET_LIMIT);
		return;
	} else {
		m->single = st;
		m->had_single = true;
		s->ready_due = s->ready_due || s->blocked;
	}
	st->tx_at = st->rx_at = now;
	if (st->shut)
		plan_fin(st);
	take_turn(st);
}

void tnl_stream_free(struct tnl_stream *st)
{
	if (!st || st->zombie)
		return;
	struct tnl_session *s = st->s;
	if (!tnl_stream_done(st))
		tnl_stream_send_reset(st, TNL_RESET_UNSPEC);
	leave_lists(st);
	s->mux.nstreams--;
	s->mux.nzombies++;
	st->zombie = true;
	st->user = st->note = NULL;
	if (!tnl_list_empty(&st->ctl) && !tnl_session_over(s))
		return; /* it goes with its last control frame */
	if (s->depth)
		tnl_list_push_back(&s->mux.dead, &st->dead);
	else
		tnl_stream_destroy(st);
}

void tnl_stream_set_user(struct tnl_stream *st, void *user)
{
	st->user = user;
}
void *tnl_stream_user(const struct tnl_stream *st)
{
	return st->user;
}
void tnl_stream_set_note(struct tnl_stream *st, void *note)
{
	st->note = note;
}
void *tnl_stream_note(const struct tnl_stream *st)
{
	return st->note;
}
uint32_t tnl_stream_id(const struct tnl_stream *st)
{
	return st->id;
}

void tnl_stream_connected(struct tnl_stream *st, uint64_t now)
{
	if (st->connected)
		return;
	st->connected = true;
	st->tx_at = now;
	if (st->was_reset)
		return;
	if (st->asked && st->id) {
		st->stands_due = true;
		tnl_stream_queue_control(st);
	}
	st->push_due = st->kept.len > 0;
	if ((st->push_due || st->eof_due) && tnl_list_empty(&st->work))
		tnl_list_push_back(&st->s->mux.work, &st->work);
	take_turn(st);
}

/* --- public: sending ------------------------------------------------------------ */

void tnl_stream_want_send(struct tnl_stream *st, bool want)
{
	st->want = want;
	if (want)
		take_turn(st);
	/* Else next() takes it out when its turn comes: it keeps its place in the round. */
}

/* A keystroke need not wait until the window of the bulk transfer beside it opens: one small message may pass it. */
static size_t pass_window(struct tnl_session *s, const struct tnl_stream *st, uint64_t now)
{
	struct tnl_turn *t = tnl_turns_newcomer(&s->mux.turns);
	return t && (!st || t == &st->turn) ? tnl_channel_can_send_small(s->ch, now) : 0;
}

struct tnl_stream *tnl_session_next(struct tnl_session *s, uint64_t now)
{
	if (!tnl_session_may_send(s, now) || s->reserved || s->failed)
		return NULL;
	tnl_channel_alone(s->ch, s->mux.nstreams == 1);
	size_t around = tnl_session_around(s), can = tnl_channel_can_send(s->ch, now);
	if (can > around + TNL_SMUX_HDR)
		tnl_turns_set_quantum(&s->mux.turns, can - around);
	else if (pass_window(s, NULL, now) <= around + TNL_SMUX_HDR)
		return NULL;
	struct tnl_turn *t = tnl_turns_next(&s->mux.turns);
	return t ? tnl_container_of(t, struct tnl_stream, turn) : NULL;
}

uint8_t *tnl_stream_reserve(struct tnl_stream *st, size_t *cap, uint64_t now)
{
	struct tnl_session *s = st->s;
	if (!tnl_session_may_send(s, now) || s->reserved || s->failed || !tnl_mux_sendable(st))
		return NULL;
	tnl_session_out_flush(s, now);
	if (!tnl_list_empty(&s->outq) || !tnl_list_empty(&s->mux.ctl) || s->failed)
		return NULL; /* what is due first does not fit */
	size_t around = tnl_session_around(s) + (s->info.mode == TNL_MODE_MUX ? TNL_SMUX_HDR : 0);
	tnl_channel_alone(s->ch, s->mux.nstreams == 1 && st->asked != TNL_KIND_UDP);
	size_t can = tnl_channel_can_send(s->ch, now);
	if (can <= around)
		can = pass_window(s, st, now);
	if (can <= around)
		return NULL;
	can = TNL_MIN(can - around, tnl_mux_window(st));
	uint8_t *p = tnl_channel_reserve(s->ch, can + around);
	if (!p)
		return NULL;
	s->reserved = st;
	s->reserved_at = p;
	s->reserved_cap = can;
	*cap = can;
	return p + tnl_session_front(s) + (s->info.mode == TNL_MODE_MUX ? TNL_SMUX_HDR : 0);
}

int tnl_stream_commit(struct tnl_stream *st, size_t n, uint32_t ptype, uint64_t now)
{
	struct tnl_session *s = st->s;
	if (s->reserved != st)
		return TNL_EINVAL;
	s->reserved = NULL;
	if (n == 0 || n > s->reserved_cap || tnl_session_over(s)) {
		tnl_channel_abandon(s->ch);
		return n == 0 ? 0 : tnl_session_over(s) ? TNL_ECLOSED : TNL_EINVAL;
	}
	size_t len = n;
	if (s->info.mode == TNL_MODE_MUX) {
		struct tnl_smux_frame f = {(uint8_t)s->mux.version, TNL_SMUX_PSH, (uint16_t)n, st->id};
		tnl_smux_write(s->reserved_at + tnl_session_front(s), &f);
		len += TNL_SMUX_HDR;
		ptype = TNL_PT_OUTPUT;
	}
	st->sent += (uint32_t)n;
	st->tx_at = now;
	st->last_number = tnl_channel_next(s->ch);
	tnl_turn_charge(&st->turn, len);
	int rc = tnl_session_commit(s, s->reserved_at, len, ptype, now);
	if (rc)
		s->failed = rc;
	return rc;
}

void tnl_stream_shutdown(struct tnl_stream *st, uint64_t now)
{
	if (st->shut || st->was_reset)
		return;
	st->shut = true;
	st->shut_at = now;
	tnl_turns_leave(&st->turn);
	plan_fin(st);
}

void tnl_stream_reset(struct tnl_stream *st, uint32_t reason, uint64_t now)
{
	(void)now;
	if (!tnl_stream_done(st))
		tnl_stream_send_reset(st, reason);
}

void tnl_stream_reset_because(struct tnl_stream *st, uint32_t reason, const char *words, uint64_t now)
{
	if (!tnl_stream_done(st) && st->s->caps.reset_words && words[0])
		tnl_stream_keep_words(st, words, strlen(words));
	tnl_stream_reset(st, reason, now);
}

void tnl_stream_keep_words(struct tnl_stream *st, const char *words, size_t n)
{
	tnl_free(st->reset_words);
	st->reset_words = tnl_strndup(words, TNL_MIN(n, TNL_SMUX_WORDS)); /* none for want of memory is no loss */
}

const char *tnl_stream_reset_words(const struct tnl_stream *st)
{
	return st->reset_words ? st->reset_words : "";
}

bool tnl_stream_done(const struct tnl_stream *st)
{
	if (st->was_reset)
		return true;
	return st->fin_recv && st->shut && (st->fin_sent || st->fin_due) && st->kept.len == 0 && !st->eof_due;
}
