/* Streams, receiving: what comes is offered to the consumer, the rest is kept and counted. */
#include "lib/session_internal.h"
#include "lib/num.h"
#include "lib/steps.h"

bool tnl_session_room(const struct tnl_session *s, size_t n)
{
	if (s->mux.nzombies > TNL_OPENS_REFUSED_MAX)
		return false; /* what was refused before is to be sent first */
	if (s->kept_memory == 0)
		return true;
	if (s->cfg.may_keep && !s->cfg.may_keep(s->cfg.ctx))
		return false;
	/* The slack is what rounding up to chunks can add. */
	return s->kept_memory + n + 16640 <= s->kept_max;
}

static size_t offer_data(struct tnl_stream *st, uint32_t ptype, const uint8_t *p, size_t n)
{
	struct tnl_session *s = st->s;
	if (!s->cb.on_data)
		return n;
	tnl_session_cb_enter(s);
	size_t took = s->cb.on_data(s->cfg.ctx, st, ptype, p, n);
	tnl_session_cb_leave(s);
	return TNL_MIN(took, n);
}

int tnl_stream_take_data(struct tnl_stream *st, uint32_t ptype, const uint8_t *p, size_t n, uint64_t now)
{
	struct tnl_session *s = st->s;
	size_t took = 0;
	int rc = 0;
	st->rx_at = now;
	tnl_mux_claim(st, st->window > 0);
	if (st->connected && st->kept.len == 0)
		took = offer_data(st, ptype, p, n);
	st->consumed += (uint32_t)took;
	if (took < n && !st->was_reset) {
		size_t before = st->kept.memory;
		rc = tnl_kept_put(&st->kept, p + took, n - took);
		s->kept_memory += st->kept.memory - before;
		st->kept_ptype = ptype;
	}
	if (took)
		tnl_mux_grant(st);
	return rc;
}

static void call_eof(struct tnl_stream *st)
{
	struct tnl_session *s = st->s;
	st->eof_due = false;
	if (!s->cb.on_eof)
		return;
	tnl_session_cb_enter(s);
	s->cb.on_eof(s->cfg.ctx, st, s->info.half_close && (s->info.mode == TNL_MODE_MUX || !st->shut));
	tnl_session_cb_leave(s);
}

void tnl_stream_peer_ended(struct tnl_stream *st)
{
	struct tnl_session *s = st->s;
	if (st->fin_recv || st->was_reset)
		return;
	if (tnl_stream_unheard(st)) {
		tnl_stream_refuse_unheard(st, TNL_RESET_UNSPEC, "it ended before it said where it goes");
		return;
	}
	st->fin_recv = true;
	if (!s->info.half_close) {
		/* A stock end has closed both ways: nothing that we send is read any more. */
		st->shut = true;
		tnl_turns_leave(&st->turn);
		if (s->info.mode == TNL_MODE_MUX && !st->fin_sent) {
			st->fin_due = true;
			tnl_stream_queue_control(st);
		}
	}
	tnl_stream_arm_timer(st);
	if (st->connected && !st->push_due)
		call_eof(st);
	else
		st->eof_due = true; /* after the bytes that wait for the dial */
}

void tnl_stream_end_single(struct tnl_stream *st)
{
	st->shut = st->fin_sent = true;
	tnl_turns_leave(&st->turn);
	if (st->s->mux.single == st)
		st->s->mux.single = NULL;
	if (!st->fin_recv) {
		st->fin_recv = true;
		if (st->connected && !st->push_due)
			call_eof(st);
		else
			st->eof_due = true;
	}
}

/* What could not be reported when it came, because the dial was not done. */
void tnl_session_streams_work(struct tnl_session *s, uint64_t now)
{
	struct tnl_list round;
	tnl_list_init(&round);
	tnl_list_splice_back(&round, &s->mux.work);
	while (!tnl_list_empty(&round)) {
		struct tnl_stream *st = tnl_container_of(round.next, struct tnl_stream, work);
		const uint8_t *p;
		size_t n;
		tnl_step();
		tnl_list_remove(&st->work);
		while (st->push_due && (n = tnl_kept_peek(&st->kept, &p))) {
			size_t took = offer_data(st, st->kept_ptype, p, n);
			tnl_stream_consume(st, took, now);
			if (took < n)
				st->push_due = false;
		}
		st->push_due = false;
		if (st->eof_due && st->connected && !st->zombie)
			call_eof(st);
	}
}

/* --- public: receiving ---------------------------------------------------------- */

size_t tnl_stream_peek(struct tnl_stream *st, const uint8_t **p)
{
	return tnl_kept_peek(&st->kept, p);
}
uint32_t tnl_stream_kept_ptype(const struct tnl_stream *st)
{
	return st->kept_ptype;
}
size_t tnl_stream_kept(const struct tnl_stream *st)
{
	return st->kept.len;
}
bool tnl_stream_eof(const struct tnl_stream *st)
{
	return st->fin_recv && st->kept.len == 0;
}

void tnl_stream_consume(struct tnl_stream *st, size_t n, uint64_t now)
{
	struct tnl_session *s = st->s;
	n = TNL_MIN(n, st->kept.len);
	if (n == 0)
		return;
	size_t before = st->kept.memory;
	tnl_kept_consume(&st->kept, n);
	s->kept_memory -= before - st->kept.memory;
	st->consumed += (uint32_t)n;
	st->rx_at = now;
	tnl_mux_grant(st);
	if (s->blocked && tnl_session_room(s, s->blocked_len))
		s->ready_due = true;
}
