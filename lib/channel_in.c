/* The receiving half of the reliable channel: acks and what they say about the path,
 * order, what is kept until a hole is closed, and time (docs/reliability.md). */
#include "lib/channel_internal.h"
#include "lib/num.h"
#include "lib/log.h"

#define MUCH_LESS 4u /* part of the best link's rate below which one has ended its start too early */

/* --- from the link -------------------------------------------------------------- */

static int ignore_message(struct tnl_channel *ch, const char *what, int64_t seq)
{
	if (!ch->st.bad++)
		tnl_log(TNL_LOG_WARN, "channel", "ignored=%s number=%lld", what, (long long)seq);
	return 0;
}

static void end_pause(struct tnl_channel *ch, uint64_t now)
{
	if (!ch->paused)
		return;
	struct tnl_chlink *l;
	ch->paused = false;
	ch->sample_from = now;
	TNL_EACH_LINK(ch, l)
	l->rto_start = now;
}

static void find_lost(struct tnl_channel *ch, struct tnl_chlink *l, uint64_t now)
{
	tnl_sendq_detect(&ch->sendq, &l->way, l->rto.srtt, tnl_rto_value(&l->rto), now);
}

/* What an ack says of the link that carried the message. */
static void learn_from_ack(struct tnl_channel *ch, struct tnl_chlink *l, struct tnl_mbuf *m, uint64_t now)
{
	uint64_t rtt = 0;
	bool doubt = l->rto.backoff != 0;
	if (!m->ambiguous && m->sent_at >= ch->sample_from) {
		rtt = now > m->sent_at ? now - m->sent_at : 1;
		tnl_rto_sample(&l->rto, rtt);
	}
	if (doubt && !l->rto.backoff)
		tnl_chlink_ask_others(ch, l, now);
	bool flying = m->at == TNL_AT_FLIGHT;
	struct tnl_sendq_times t = {.srtt = l->rto.srtt,
				    .least = tnl_cc_least(&l->cc),
				    .patience = tnl_cc_patience(&l->cc, now)};
	tnl_sendq_evidence(&l->way, m, &t, now);
	tnl_sendq_remove(&ch->sendq, m);
	if (flying)
		tnl_cc_acked(&l->cc, &m->snap, m->sent_at, m->len, rtt, l->way.flight_bytes, now);
	if (l->cc.state == TNL_CC_STEADY && tnl_cc_rate(&l->cc) < tnl_chlink_best_rate(ch) / MUCH_LESS)
		tnl_cc_hurry(&l->cc, now);
}

static int feed_ack(struct tnl_channel *ch, unsigned link, const struct tnl_msg *msg, uint64_t now)
{
	struct tnl_chlink *from = ch->link[link];
	struct tnl_ack a;
	struct tnl_hop far;
	if (tnl_ack_parse(msg->payload, msg->plen, &a))
		return ignore_message(ch, "acknowledge payload", -1);
	end_pause(ch, now);
	ch->st.acks_received++;
	if (a.seq < 0 || a.seq >= ch->sendq.next)
		return ignore_message(ch, "acknowledge for an unused number", a.seq);
	if (from && tnl_ack_hop(msg, &far))
		tnl_cc_far(&from->cc, &far, now);
	struct tnl_mbuf *m = tnl_sendq_find(&ch->sendq, a.seq);
	if (from && (tnl_chlink_asked(from, a.seq) || (m && m->on == &from->way)))
		tnl_chlink_answered(ch, from, now);
	if (!m)
		return 0;
	if (m->at == TNL_AT_FRESH)
		return ignore_message(ch, "acknowledge for an unsent number", a.seq);
	struct tnl_chlink *l = m->on ? tnl_container_of(m->on, struct tnl_chlink, way) : NULL;
	if (l)
		learn_from_ack(ch, l, m, now);
	else
		tnl_sendq_remove(&ch->sendq, m);
	ch->send_mem -= tnl_mbuf_size(m);
	tnl_mpool_put(&ch->pool, m);
	tnl_channel_arm_tick(ch, now);
	if (!l)
		return 0;
	l->rto_start = l->progress_at = now;
	find_lost(ch, l, now);
	return 0;
}

/* In order: hand it over, acknowledge, advance. */
static int hand_over(struct tnl_channel *ch, unsigned link, const struct tnl_msg *m, bool owed, uint64_t now)
{
	int r = ch->cfg.deliver(ch->cfg.ctx, m, now);
	if (r)
		return r;
	if (!owed)
		tnl_channel_ack_push(ch, link, m->id, m->seq, now);
	ch->recvq.expected++;
	ch->st.payload_received += m->plen;
	return 0;
}

int tnl_channel_ready(struct tnl_channel *ch, uint64_t now)
{
	struct tnl_mbuf *b;
	while ((b = tnl_recvq_find(&ch->recvq, ch->recvq.expected))) {
		int r = hand_over(ch, b->came_on, &b->msg, b->owed, now);
		if (r)
			return r == TNL_EAGAIN ? 0 : r;
		tnl_recvq_drop(&ch->recvq, &ch->pool, b);
		tnl_channel_arm_tick(ch, now);
	}
	return 0;
}

static void keep_early(struct tnl_channel *ch, unsigned link, const struct tnl_msg *m, bool owed, uint64_t now)
{
	int r = TNL_ELIMIT;
	/* The one that is next is needed whatever the limits say. */
	bool may = !owed || !ch->cfg.may_keep || ch->cfg.may_keep(ch->cfg.ctx);
	if (may && tnl_channel_recv_fits(ch, TNL_MSG_HDR + m->plen)) {
		tnl_channel_make_way(ch, TNL_MSG_HDR + m->plen);
		/* Room for the ack first: what is kept as owed has one on its way. */
		if (owed && !tnl_ackq_room(&ch->ackq[link], 1))
			owed = false;
		r = tnl_recvq_keep(&ch->recvq, &ch->pool, m, link, owed);
	}
	if (r)
		ch->st.dropped_full++;
	else if (owed)
		tnl_channel_ack_push(ch, link, m->id, m->seq, now);
}

static int feed_stream(struct tnl_channel *ch, unsigned link, const struct tnl_msg *m, uint64_t now)
{
	if (m->seq < 0)
		return ignore_message(ch, "negative number", m->seq);
	end_pause(ch, now);
	ch->st.received++;
	if (m->seq < ch->recvq.expected) {
		ch->st.duplicates++;
		tnl_channel_ack_push(ch, link, m->id, m->seq, now);
		return 0;
	}
	struct tnl_mbuf *b = tnl_recvq_find(&ch->recvq, m->seq);
	if (b) {
		ch->st.duplicates++;
		if (b->owed)
			tnl_channel_ack_push(ch, link, m->id, m->seq, now);
		return m->seq == ch->recvq.expected ? tnl_channel_ready(ch, now) : 0;
	}
	if (m->seq > ch->recvq.expected) {
		ch->st.reordered++;
		keep_early(ch, link, m, true, now);
		return 0;
	}
	int r = hand_over(ch, link, m, false, now);
	if (r == TNL_EAGAIN) {
		keep_early(ch, link, m, false, now);
		return 0;
	}
	return r ? r : tnl_channel_ready(ch, now);
}

int tnl_channel_feed_on(struct tnl_channel *ch, unsigned link, const struct tnl_msg *m, uint64_t now)
{
	if (link >= TNL_LINKS_MAX)
		return TNL_EINVAL;
	if (m->type == ch->cfg.recv_type)
		return feed_stream(ch, link, m, now);
	switch (m->type) {
	case TNL_MT_ACK:
		return feed_ack(ch, link, m, now);
	case TNL_MT_START_PUBLICATION:
		end_pause(ch, now);
		return 0;
	case TNL_MT_PAUSE_PUBLICATION:
		ch->paused = true;
		return 0;
	case TNL_MT_INPUT:
	case TNL_MT_OUTPUT:
		return ignore_message(ch, "message of the other direction", m->seq);
	default:
		return 0;
	}
}

/* --- time -------------------------------------------------------------------------- */

uint64_t tnl_channel_deadline(const struct tnl_channel *ch)
{
	uint64_t at = TNL_MIN(ch->tick_at, ch->token_at);
	struct tnl_chlink *l;
	if (ch->up & (ch->up - 1)) /* more than one */
		at = TNL_MIN(at, tnl_channel_acks_deadline(ch));
	if (ch->paused)
		return at;
	TNL_EACH_LINK(ch, l)
	at = TNL_MIN(at, tnl_chlink_deadline(ch, l));
	return at;
}

static void give_memory_back(struct tnl_channel *ch, uint64_t now)
{
	bool again = tnl_mpool_tick(&ch->pool);
	if (ch->sendq.base == ch->sendq.next && !ch->reserved)
		tnl_sendq_shrink(&ch->sendq);
	if (!ch->recvq.count)
		tnl_recvq_shrink(&ch->recvq);
	for (unsigned i = 0; i < TNL_LINKS_MAX && !ch->acks; i++)
		tnl_ackq_fini(&ch->ackq[i]);
	again = again || ch->sendq.ring_size || ch->recvq.ring_size || ch->acks;
	ch->tick_at = again ? now + TNL_CHANNEL_TICK : UINT64_MAX;
}

/* The timer resends one message, the oldest of the channel: when all was merely late nothing is
 * doubled, and when all was lost its ack is evidence for the rest. What waits to be sent again does not come before
 * it: a peer whose reorder buffer is full takes that one alone. Only while it is on another link, whose timer
 * sees to it, is it another one. */
static int timer_expired(struct tnl_channel *ch, struct tnl_chlink *l, uint64_t now)
{
	struct tnl_sendq *q = &ch->sendq;
	uint64_t since = l->rto_start;
	l->rto_start = now;
	if (tnl_chlink_stall(ch, l, since, now))
		return 0;
	struct tnl_mbuf *m = tnl_sendq_find(q, q->base);
	bool here = m->at == TNL_AT_FLIGHT && m->on == &l->way;
	if (!here && !tnl_list_empty(&q->resend)) {
		/* The link has not taken it yet, or what is in flight and lost too holds the window shut: let one pass.
		 */
		tnl_sendq_head(q)->probe = true;
		return 0;
	}
	if (!here)
		m = tnl_container_of(l->way.flight.next, struct tnl_mbuf, link);
	if (ch->cfg.resend_max && m->resends >= ch->cfg.resend_max)
		return TNL_ETIMEOUT;
	tnl_rto_expired(&l->rto);
	tnl_sendq_lost(q, m);
	m->probe = true;
	return 0;
}

int tnl_channel_expire(struct tnl_channel *ch, uint64_t now)
{
	struct tnl_chlink *l;
	int rc = 0;
	if (ch->tick_at <= now)
		give_memory_back(ch, now);
	if (ch->token_at <= now)
		ch->token_at = UINT64_MAX;
	tnl_channel_acks_expire(ch, now);
	if (ch->paused)
		return 0;
	TNL_EACH_LINK(ch, l)
	{
		if (tnl_sendq_deadline(&l->way) <= now)
			find_lost(ch, l, now);
		if (l->proof_at <= now) {
			l->proof_at = UINT64_MAX;
			l->proof_due = true;
		}
		if (!rc && tnl_chlink_rto_at(l) <= now)
			rc = timer_expired(ch, l, now);
	}
	return rc;
}
