/* Links of a channel: they come and go, stall and answer again, and which of them carries what
 * (docs/reliability.md "Several links").
 *
 * A link is good, doubtful (its timer ran out: the back-off counts) or stalled; the best that are up carry
 * numbered messages, of these those of the lowest rank.  Who is not among the best because it does not answer gets a
 * copy of the oldest message now and then, as a proof of life: its ack, on the same link, makes it good again. */
#include "lib/channel_internal.h"
#include "lib/alloc.h"
#include "lib/num.h"
#include <limits.h>
#include <string.h>

#define BEHIND 2000000u	    /* ns by which a link may be later than another that has to wait a moment */
#define ACKS_WAIT 10000000u /* ns that acks wait for their own link while others are up */

/* --- what a link may do ---------------------------------------------------------- */

static void forget_copies(struct tnl_chlink *l)
{
	for (unsigned i = 0; i < TNL_PROOFS; i++)
		l->proof[i] = -1;
}

static void remember_copy(struct tnl_chlink *l, int64_t seq)
{
	if (l->proof[0] == seq)
		return;
	memmove(&l->proof[1], &l->proof[0], sizeof(l->proof) - sizeof(l->proof[0]));
	l->proof[0] = seq;
}

bool tnl_chlink_asked(const struct tnl_chlink *l, int64_t seq)
{
	for (unsigned i = 0; i < TNL_PROOFS; i++)
		if (l->proof[i] == seq)
			return true;
	return false;
}

void tnl_chlink_init(struct tnl_channel *ch, struct tnl_chlink *l, unsigned index, unsigned rank, uint64_t now)
{
	*l = (struct tnl_chlink){.index = index, .rank = rank, .rto_start = now, .proof_at = UINT64_MAX};
	forget_copies(l);
	tnl_sendq_way_init(&l->way);
	tnl_rto_init(&l->rto);
	tnl_cc_init(&l->cc, tnl_channel_share(ch, 0), now);
}

/* Less is better. */
static unsigned grade(const struct tnl_chlink *l)
{
	unsigned doubt = l->stalled ? 2 : l->rto.backoff ? 1 : 0;
	return doubt << 8 | l->rank;
}

static unsigned best_grade(const struct tnl_channel *ch)
{
	const struct tnl_chlink *l;
	unsigned best = UINT_MAX;
	TNL_EACH_LINK(ch, l)
	best = TNL_MIN(best, grade(l));
	return best;
}

bool tnl_chlink_carries(const struct tnl_channel *ch, const struct tnl_chlink *l)
{
	return ch->up == 1u << l->index || grade(l) <= best_grade(ch);
}

/* A good one is there now: whoever came into doubt while there was none would carry nothing beside it for good. */
void tnl_chlink_ask_others(struct tnl_channel *ch, const struct tnl_chlink *good, uint64_t now)
{
	struct tnl_chlink *other;
	TNL_EACH_LINK(ch, other)
	if (other != good && other->rto.backoff && other->proof_at == UINT64_MAX && !other->proof_due)
		other->proof_at = now;
}

void tnl_chlink_answered(struct tnl_channel *ch, struct tnl_chlink *l, uint64_t now)
{
	/* Alone it keeps its distance until a round trip is known. */
	bool doubt = l->rto.backoff && ch->up != 1u << l->index;
	if (!l->stalled && l->proof[0] < 0 && !doubt)
		return;
	l->stalled = l->proof_due = false;
	forget_copies(l);
	l->proof_at = UINT64_MAX;
	l->rto.backoff = 0;
	l->rto_start = l->progress_at = now;
	tnl_chlink_ask_others(ch, l, now);
}

/* --- stalls ------------------------------------------------------------------------- */

uint64_t tnl_chlink_rto_at(const struct tnl_chlink *l)
{
	if (tnl_list_empty(&l->way.flight))
		return UINT64_MAX;
	return l->rto_start + tnl_rto_value(&l->rto) + tnl_cc_patience(&l->cc, l->rto_start);
}

uint64_t tnl_chlink_deadline(const struct tnl_channel *ch, const struct tnl_chlink *l)
{
	uint64_t at = TNL_MIN(tnl_chlink_rto_at(l), tnl_sendq_deadline(&l->way));
	return ch->sendq.base < ch->sendq.next ? TNL_MIN(at, l->proof_at) : at;
}

/* Another one that answers; *goes: one that has brought acks since then. */
static bool another_answers(const struct tnl_channel *ch, const struct tnl_chlink *l, uint64_t since, bool *goes)
{
	const struct tnl_chlink *other;
	bool there = false;
	*goes = false;
	TNL_EACH_LINK(ch, other)
	{
		if (other == l || other->stalled || other->rto.backoff)
			continue;
		there = true;
		*goes = *goes || other->progress_at > since;
	}
	return there;
}

bool tnl_chlink_stall(struct tnl_channel *ch, struct tnl_chlink *l, uint64_t since, uint64_t now)
{
	bool goes;
	if (!another_answers(ch, l, since, &goes))
		return false;
	l->proof_at = now + tnl_rto_value(&l->rto);
	if (!goes && !l->rto.backoff)
		return false; /* perhaps it is all of them: one message first */
	l->stalled = true;
	l->stalls++;
	tnl_rto_expired(&l->rto);
	tnl_sendq_way_lost(&ch->sendq, &l->way);
	return true;
}

struct tnl_mbuf *tnl_chlink_proof(struct tnl_channel *ch, struct tnl_chlink *l, uint64_t now)
{
	struct tnl_mbuf *m = tnl_sendq_find(&ch->sendq, ch->sendq.base);
	if (ch->paused || !m || m->at == TNL_AT_FRESH)
		return NULL;
	if (!l->stalled && !l->rto.backoff) { /* it has answered meanwhile */
		l->proof_due = false;
		return NULL;
	}
	m->ambiguous = true;
	remember_copy(l, m->seq);
	l->proof_due = false;
	tnl_rto_expired(&l->rto);
	l->proof_at = now + tnl_rto_value(&l->rto);
	ch->st.resent++;
	return m;
}

/* --- they come and go ---------------------------------------------------------------- */

/* The first link after a time without: the path may be another one, and everything is to be sent again. */
static void begin_anew(struct tnl_channel *ch, uint64_t now)
{
	ch->paused = false;
	tnl_sendq_all_lost(&ch->sendq);
	ch->sample_from = now;
}

int tnl_channel_link_add(struct tnl_channel *ch, unsigned link, unsigned rank, uint64_t now)
{
	if (link >= TNL_LINKS_MAX || rank > UINT8_MAX)
		return TNL_EINVAL;
	if (ch->up & 1u << link)
		tnl_channel_link_gone(ch, link, now);
	struct tnl_chlink *l = link ? tnl_malloc(sizeof(*l)) : &ch->first;
	if (!l)
		return TNL_ENOMEM;
	if (!ch->up)
		begin_anew(ch, now);
	tnl_chlink_ask_others(ch, l, now);
	tnl_chlink_init(ch, l, link, rank, now);
	ch->link[link] = l;
	ch->up |= 1u << link;
	return 0;
}

void tnl_channel_link_up(struct tnl_channel *ch, uint64_t now)
{
	(void)!tnl_channel_link_add(ch, 0, 0, now); /* cannot fail */
}

void tnl_channel_link_gone(struct tnl_channel *ch, unsigned link, uint64_t now)
{
	if (link >= TNL_LINKS_MAX || !(ch->up & 1u << link))
		return;
	struct tnl_chlink *l = ch->link[link];
	ch->up &= ~(1u << link);
	struct tnl_chlink *other;
	TNL_EACH_LINK(ch, other)
	other->behind = false;
	if (!ch->up) {
		ch->sample_from = now;
		ch->token_at = UINT64_MAX;
	}
	if (ch->up || link)
		tnl_sendq_way_gone(&ch->sendq, &l->way);
	if (!link)
		return;
	ch->link[link] = NULL;
	tnl_free(l);
}

unsigned tnl_channel_links(const struct tnl_channel *ch)
{
	return ch->up;
}

bool tnl_channel_link_carries(const struct tnl_channel *ch, unsigned link)
{
	return link < TNL_LINKS_MAX && (ch->up & 1u << link) && tnl_chlink_carries(ch, ch->link[link]);
}

void tnl_channel_near_on(struct tnl_channel *ch, unsigned link, const struct tnl_hop *h, uint64_t now)
{
	if (link < TNL_LINKS_MAX && ch->link[link])
		tnl_cc_near(&ch->link[link]->cc, h, now);
}

bool tnl_channel_is_spread(const struct tnl_channel *ch)
{
	const struct tnl_chlink *l;
	unsigned carry = 0;
	bool far = false;
	TNL_EACH_LINK(ch, l)
	if (tnl_chlink_carries(ch, l)) {
		carry++;
		far = far || tnl_cc_is_long(&l->cc);
	}
	return far && carry > 1;
}

bool tnl_channel_repairs(const struct tnl_channel *ch, uint64_t now)
{
	return ch->up && tnl_cc_repairs(&ch->link[__builtin_ctz(ch->up)]->cc, now);
}

bool tnl_channel_is_full(const struct tnl_channel *ch, uint64_t now)
{
	const struct tnl_chlink *l;
	TNL_EACH_LINK(ch, l)
	if (tnl_cc_is_full(&l->cc, now))
		return true;
	return false;
}

uint64_t tnl_chlink_best_rate(const struct tnl_channel *ch)
{
	const struct tnl_chlink *l;
	unsigned best_of = best_grade(ch);
	uint64_t best = 0;
	TNL_EACH_LINK(ch, l)
	best = grade(l) == best_of ? TNL_MAX(best, tnl_cc_rate(&l->cc)) : best;
	return best;
}

/* When a byte that goes now is acknowledged, about.  Where it is told what stands on the way: the least round trip, and
 * what is in flight at the link's rate.  A link on which nothing stands is taken to carry what the best one does, since
 * its own rate says only what it was given; else who once had less would get less for good.  What an earlier round trip
 * took says nothing of a link that has not answered since: each time that its timer runs out, others come before it. */
static uint64_t expected_delay(const struct tnl_chlink *l, uint64_t best, uint64_t now)
{
	uint64_t rate = tnl_cc_is_free(&l->cc, now) ? best : tnl_cc_rate(&l->cc);
	uint64_t least = tnl_cc_told_base(&l->cc, now);
	uint64_t doubt = (uint64_t)l->rto.backoff * TNL_RTO_MAX;
	uint64_t queue = rate ? (uint64_t)((double)l->way.flight_bytes * 1e9 / (double)rate) : 0;
	return doubt + (least ? least : l->rto.srtt) + queue;
}

/* When a message is acknowledged that goes on the best link as soon as its pace allows; UINT64_MAX: all windows are
 * full.  To wait for that is better than to send it now on one on which it would take longer: everything behind it
 * waits in the reorder buffer until it is there. */
static uint64_t soonest(const struct tnl_channel *ch, unsigned room, const uint64_t delay[TNL_LINKS_MAX], uint64_t now)
{
	const struct tnl_chlink *l;
	unsigned best_of = best_grade(ch);
	uint64_t at = UINT64_MAX;
	TNL_EACH_LINK(ch, l)
	{
		if (!(room & 1u << l->index) || grade(l) != best_of ||
		    l->way.flight_bytes + TNL_MSG_HDR + ch->max_payload > l->cc.window)
			continue;
		uint64_t pace = tnl_cc_pace(&l->cc, 0, now);
		at = TNL_MIN(at, delay[l->index] + (pace > now ? pace - now : 0));
	}
	return at;
}

unsigned tnl_channel_link_order(struct tnl_channel *ch, unsigned room, uint64_t now, uint8_t order[TNL_LINKS_MAX])
{
	struct tnl_chlink *l;
	uint64_t delay[TNL_LINKS_MAX] = {0}, best = tnl_chlink_best_rate(ch);
	unsigned n = 0;
	TNL_EACH_LINK(ch, l)
	{
		uint64_t d = delay[l->index] = expected_delay(l, best, now);
		if (!(room & 1u << l->index))
			continue;
		unsigned i = n++;
		for (; i && delay[order[i - 1]] > d; i--)
			order[i] = order[i - 1];
		order[i] = (uint8_t)l->index;
	}
	uint64_t at = soonest(ch, room, delay, now);
	TNL_EACH_LINK(ch, l)
	l->behind = at != UINT64_MAX && delay[l->index] > at + BEHIND && tnl_cc_rate(&l->cc);
	return n;
}

void tnl_channel_link_stats(const struct tnl_channel *ch, unsigned link, struct tnl_link_stats *st)
{
	*st = (struct tnl_link_stats){0};
	if (link >= TNL_LINKS_MAX || !(ch->up & 1u << link))
		return;
	const struct tnl_chlink *l = ch->link[link];
	*st = (struct tnl_link_stats){.up = true,
				      .stalled = l->stalled,
				      .srtt_ns = l->rto.srtt,
				      .delivery_rate = tnl_cc_rate(&l->cc),
				      .cwnd = l->cc.window,
				      .inflight_bytes = l->way.flight_bytes,
				      .sent = l->sent,
				      .stalls = l->stalls};
}

/* --- acks --------------------------------------------------------------------------- */

bool tnl_channel_ack_push(struct tnl_channel *ch, unsigned link, const uint8_t id[16], int64_t seq, uint64_t now)
{
	if (!tnl_ackq_push(&ch->ackq[link], id, seq))
		return false;
	ch->acks++;
	if (ch->acks_since[link] == UINT64_MAX)
		ch->acks_since[link] = now;
	return true;
}

/* Whose acks may go on this link: its own, those of links that are not there, those that have waited. 0: none. */
static unsigned acks_for(const struct tnl_channel *ch, unsigned link)
{
	return ch->acks ? 1u << link | ~ch->up | ch->acks_free : 0;
}

static struct tnl_ackq *next_acks(struct tnl_channel *ch, unsigned link, unsigned *of)
{
	unsigned may = acks_for(ch, link);
	if (may && ch->ackq[link].count) {
		*of = link;
		return &ch->ackq[link];
	}
	for (unsigned i = 0; may && i < TNL_LINKS_MAX; i++) {
		*of = i;
		if (may & 1u << i && ch->ackq[i].count)
			return &ch->ackq[i];
	}
	return NULL;
}

bool tnl_channel_ack_waits(const struct tnl_channel *ch, unsigned link)
{
	unsigned of;
	return next_acks((struct tnl_channel *)(uintptr_t)ch, link, &of) != NULL;
}

bool tnl_channel_ack_pop(struct tnl_channel *ch, unsigned link, struct tnl_ackq_entry *e)
{
	unsigned of;
	struct tnl_ackq *q = next_acks(ch, link, &of);
	if (!q || !tnl_ackq_pop(q, e))
		return false;
	ch->acks--;
	if (!q->count) {
		ch->acks_since[of] = UINT64_MAX;
		ch->acks_free &= ~(1u << of);
	}
	return true;
}

uint64_t tnl_channel_acks_deadline(const struct tnl_channel *ch)
{
	uint64_t at = UINT64_MAX;
	for (unsigned i = 0; i < TNL_LINKS_MAX && ch->acks; i++)
		if (ch->ackq[i].count && !(ch->acks_free & 1u << i))
			at = TNL_MIN(at, ch->acks_since[i] + ACKS_WAIT);
	return at;
}

void tnl_channel_acks_expire(struct tnl_channel *ch, uint64_t now)
{
	for (unsigned i = 0; i < TNL_LINKS_MAX && ch->acks; i++)
		if (ch->ackq[i].count && ch->acks_since[i] + ACKS_WAIT <= now)
			ch->acks_free |= 1u << i;
}

size_t tnl_channel_acks_heap(const struct tnl_channel *ch)
{
	size_t n = 0;
	for (unsigned i = 0; i < TNL_LINKS_MAX; i++)
		n += tnl_ackq_heap(&ch->ackq[i]);
	return n;
}
