/* The sending half of the reliable channel: memory under one maximum, when a new
 * message may be made and how large (window, pace, caps, rate), and what goes to the
 * link next: acks, then resends, then new ones (docs/reliability.md). */
#include "lib/channel_internal.h"
#include "lib/num.h"
#include "lib/alloc.h"
#include "lib/crypto.h"
#include <limits.h>
#include <string.h>

#define STOCK_PAYLOAD 1024u
#define DEFAULT_PAYLOAD (32u * 1024)
#define FIRST_PAYLOAD (16u * 1024) /* until the rate is known */
#define ALONE_TIMES 8u		   /* as long on the way, where nobody else's bytes wait behind a message */
#define SMALL 2048u		   /* messages that may overdraw the window, and by how much */
#define OVERDRAFT (8u * 1024)
#define MEMORY_DEFAULT (16u * 1024 * 1024)
#define MEMORY_LEAST (64u * 1024)
#define KEPT_MAX (8u * 1024 * 1024) /* what is in flight swings by megabytes */
#define NARROW_PAYLOAD 4096u
#define NARROW_FLIGHT ((size_t)16 * 1024)

/* Either direction may use what the other leaves, but a quarter is always its own:
 * a full send queue must not keep the reorder buffer from closing a hole. */
size_t tnl_channel_share(const struct tnl_channel *ch, size_t other)
{
	size_t quarter = ch->cfg.memory_max / 4;
	return ch->cfg.memory_max - TNL_MAX(other, quarter);
}

static size_t spare_max(const struct tnl_channel *ch)
{
	size_t half = ch->cfg.memory_max / 2;
	return ch->narrow ? 0 : TNL_MIN(half, KEPT_MAX);
}

struct tnl_channel *tnl_channel_new(const struct tnl_channel_config *c, uint64_t now)
{
	struct tnl_channel *ch = tnl_calloc(1, sizeof(*ch));
	if (!ch)
		return NULL;
	ch->cfg = *c;
	if (!ch->cfg.memory_max)
		ch->cfg.memory_max = MEMORY_DEFAULT;
	ch->cfg.memory_max = TNL_MAX(ch->cfg.memory_max, MEMORY_LEAST);
	tnl_mpool_init(&ch->pool, spare_max(ch));
	tnl_sendq_init(&ch->sendq);
	tnl_recvq_init(&ch->recvq);
	for (unsigned i = 0; i < TNL_LINKS_MAX; i++)
		ch->acks_since[i] = UINT64_MAX;
	tnl_list_init(&ch->unnumbered);
	ch->link[0] = &ch->first;
	tnl_chlink_init(ch, &ch->first, 0, 0, now);
	tnl_bucket_init(&ch->bucket, c->message_rate);
	ch->max_payload = c->stock_peer_payload ? STOCK_PAYLOAD : DEFAULT_PAYLOAD;
	ch->token_at = ch->tick_at = UINT64_MAX;
	return ch;
}

void tnl_channel_free(struct tnl_channel *ch)
{
	if (!ch)
		return;
	tnl_sendq_fini(&ch->sendq, &ch->pool);
	tnl_recvq_fini(&ch->recvq, &ch->pool);
	for (unsigned i = 0; i < TNL_LINKS_MAX; i++) {
		tnl_ackq_fini(&ch->ackq[i]);
		if (i)
			tnl_free(ch->link[i]);
	}
	tnl_list_foreach_safe(it, &ch->unnumbered) {
		struct tnl_mbuf *m = tnl_container_of(it, struct tnl_mbuf, link);
		tnl_list_remove(it);
		tnl_mpool_put(&ch->pool, m);
	}
	tnl_mpool_put(&ch->pool, ch->reserved);
	tnl_mpool_put(&ch->pool, ch->pulled);
	tnl_mpool_fini(&ch->pool);
	tnl_free(ch);
}

/* --- memory ----------------------------------------------------------------- */

static bool send_fits(const struct tnl_channel *ch, size_t len)
{
	return ch->send_mem + tnl_mbuf_cost(len) <= tnl_channel_share(ch, ch->recvq.mem);
}

bool tnl_channel_recv_fits(const struct tnl_channel *ch, size_t len)
{
	return ch->recvq.mem + tnl_mbuf_cost(len) <= tnl_channel_share(ch, ch->send_mem);
}

/* Spare buffers give way to ones in use: used and spare together stay under the maximum. */
void tnl_channel_make_way(struct tnl_channel *ch, size_t len)
{
	size_t need = ch->pool.used + tnl_mbuf_cost(len);
	if (need + ch->pool.kept > ch->cfg.memory_max)
		tnl_mpool_trim(&ch->pool, need < ch->cfg.memory_max ? ch->cfg.memory_max - need : 0);
}

void tnl_channel_narrow(struct tnl_channel *ch, bool narrow)
{
	if (ch->narrow == narrow)
		return;
	ch->narrow = narrow;
	ch->pool.kept_max = spare_max(ch);
	if (narrow)
		tnl_mpool_trim(&ch->pool, 0);
}

void tnl_channel_alone(struct tnl_channel *ch, bool alone)
{
	ch->alone = alone;
}

size_t tnl_channel_memory(const struct tnl_channel *ch)
{
	size_t links = (size_t)__builtin_popcount(ch->up & ~1u) * sizeof(struct tnl_chlink);
	return sizeof(*ch) + links + ch->pool.used + ch->pool.kept + tnl_sendq_heap(&ch->sendq) +
	       tnl_recvq_heap(&ch->recvq) + tnl_channel_acks_heap(ch);
}

/* --- producing ---------------------------------------------------------------- */

/* What waits for any of the links. */
static size_t queued(const struct tnl_channel *ch)
{
	return ch->sendq.fresh_bytes + ch->sendq.resend_bytes;
}

static size_t good_size(const struct tnl_channel *ch, const struct tnl_chlink *l)
{
	size_t n = tnl_cc_size(&l->cc), most = l->cc.window / 4;
	if (!n)
		n = FIRST_PAYLOAD;
	else if (ch->alone)
		n *= ALONE_TIMES;
	n = TNL_MIN(TNL_MAX(TNL_MIN(n, most), STOCK_PAYLOAD), ch->max_payload);
	return ch->narrow ? TNL_MIN(n, NARROW_PAYLOAD) : n;
}

/* Not for the path's sake: what is measured then says no more of it than when the source has run dry. */
static bool too_narrow(const struct tnl_channel *ch, size_t payload)
{
	return ch->narrow && ch->sendq.flight_bytes + queued(ch) + TNL_MSG_HDR + payload > NARROW_FLIGHT;
}

static void wake_at(struct tnl_channel *ch, uint64_t at)
{
	ch->token_at = TNL_MIN(ch->token_at, at);
}

static bool tokens_left(struct tnl_channel *ch, unsigned wanted, uint64_t now)
{
	if (tnl_bucket_left(&ch->bucket, now) >= wanted)
		return true;
	uint64_t at = tnl_bucket_at(&ch->bucket) + (wanted - 1) * ch->bucket.interval;
	if (at > now) /* else more waits than a full bucket holds: it is not the rate that holds it */
		wake_at(ch, at);
	return false;
}

static bool pace_allows(struct tnl_channel *ch, const struct tnl_chlink *l, size_t before, uint64_t now)
{
	uint64_t at = tnl_cc_pace(&l->cc, before, now);
	if (at)
		wake_at(ch, at);
	return !at;
}

static bool may_add(struct tnl_channel *ch, size_t payload)
{
	return (uint64_t)(ch->sendq.next - ch->sendq.base) < TNL_CHANNEL_CAP && send_fits(ch, TNL_MSG_HDR + payload);
}

static bool token_for_one_more(struct tnl_channel *ch, uint64_t now)
{
	return tokens_left(ch, ch->sendq.fresh_msgs + ch->sendq.resend_msgs + ch->acks + 1, now);
}

/* How large a new message may be that goes on this link; 0: none. */
static size_t link_takes(struct tnl_channel *ch, struct tnl_chlink *l, uint64_t now)
{
	size_t n = good_size(ch, l), waiting = queued(ch), used = l->way.flight_bytes + waiting;
	if (too_narrow(ch, n))
		return 0;
	bool open = !used || used + TNL_MSG_HDR + n <= l->cc.window;
	if (open && l->behind) {
		tnl_cc_idle(&l->cc, used);
		return 0;
	}
	if (open && pace_allows(ch, l, waiting, now) && may_add(ch, n))
		return n;
	tnl_cc_limited(&l->cc);
	return 0;
}

size_t tnl_channel_can_send(struct tnl_channel *ch, uint64_t now)
{
	size_t most = 0;
	struct tnl_chlink *l;
	if (!ch->up || ch->paused)
		return 0;
	TNL_EACH_LINK(ch, l)
	if (tnl_chlink_carries(ch, l))
		most = TNL_MAX(most, link_takes(ch, l, now));
	return most && token_for_one_more(ch, now) ? most : 0;
}

static bool link_takes_small(const struct tnl_channel *ch, const struct tnl_chlink *l)
{
	size_t good = tnl_cc_size(&l->cc), used = l->way.flight_bytes + queued(ch);
	return used <= l->cc.window + OVERDRAFT - STOCK_PAYLOAD && (!good || good >= STOCK_PAYLOAD);
}

size_t tnl_channel_can_send_small(struct tnl_channel *ch, uint64_t now)
{
	bool takes = false;
	struct tnl_chlink *l;
	if (!ch->up || ch->paused || too_narrow(ch, STOCK_PAYLOAD) || !may_add(ch, STOCK_PAYLOAD))
		return 0;
	TNL_EACH_LINK(ch, l)
	takes = takes || (tnl_chlink_carries(ch, l) && link_takes_small(ch, l));
	return takes && token_for_one_more(ch, now) ? STOCK_PAYLOAD : 0;
}

uint8_t *tnl_channel_reserve(struct tnl_channel *ch, size_t n)
{
	if (ch->reserved || n > TNL_MSG_MAX_PAYLOAD || !may_add(ch, n) || tnl_sendq_make_room(&ch->sendq))
		return NULL;
	tnl_channel_make_way(ch, TNL_MSG_HDR + n);
	struct tnl_mbuf *m = tnl_mpool_get(&ch->pool, TNL_MSG_HDR + n);
	if (!m)
		return NULL;
	ch->send_mem += tnl_mbuf_size(m);
	ch->reserved = m;
	return m->data + TNL_MSG_HDR;
}

void tnl_channel_abandon(struct tnl_channel *ch)
{
	if (!ch->reserved)
		return;
	ch->send_mem -= tnl_mbuf_size(ch->reserved);
	tnl_mpool_put(&ch->pool, ch->reserved);
	ch->reserved = NULL;
}

static void seal_message(struct tnl_channel *ch, uint8_t *p, enum tnl_mtype t, uint32_t ptype, int64_t seq,
			 uint64_t flags, size_t n)
{
	struct tnl_msg m = {.type = t,
			    .schema = 1,
			    .seq = seq,
			    .flags = flags,
			    .ptype = ptype,
			    .plen = (uint32_t)n,
			    .digest = ch->digest};
	m.created_ms = ch->cfg.wall_ms ? ch->cfg.wall_ms(ch->cfg.ctx) : 1;
	tnl_uuid_new(m.id);
	tnl_msg_seal(p, &m);
}

/* A short read into a large buffer must not hold the large one until its ack; where memory is short, none that is
 * larger than it needs. */
static struct tnl_mbuf *right_size(struct tnl_channel *ch, struct tnl_mbuf *m, size_t len)
{
	size_t cost = tnl_mbuf_cost(len);
	if (ch->narrow ? cost >= tnl_mbuf_size(m) : 4 * cost > tnl_mbuf_size(m))
		return m;
	tnl_channel_make_way(ch, len);
	struct tnl_mbuf *s = tnl_mpool_get(&ch->pool, len);
	if (!s)
		return m;
	memcpy(s->data + TNL_MSG_HDR, m->data + TNL_MSG_HDR, len - TNL_MSG_HDR);
	ch->send_mem += tnl_mbuf_size(s);
	ch->send_mem -= tnl_mbuf_size(m);
	tnl_mpool_put(&ch->pool, m);
	return s;
}

int tnl_channel_commit(struct tnl_channel *ch, uint32_t ptype, size_t n, uint64_t flags, uint64_t now)
{
	struct tnl_mbuf *m = ch->reserved;
	if (!m || n == 0 || TNL_MSG_HDR + n > tnl_mbuf_room(m))
		return TNL_EINVAL;
	ch->reserved = NULL;
	m = right_size(ch, m, TNL_MSG_HDR + n);
	m->len = (uint32_t)(TNL_MSG_HDR + n);
	seal_message(ch, m->data, ch->cfg.send_type, ptype, ch->sendq.next, flags, n);
	tnl_sendq_add(&ch->sendq, m);
	ch->st.payload_sent += n;
	tnl_channel_arm_tick(ch, now);
	return 0;
}

int tnl_channel_send_unnumbered(struct tnl_channel *ch, enum tnl_mtype t, const void *p, size_t n, uint64_t now)
{
	if (n > TNL_MSG_MAX_PAYLOAD)
		return TNL_EINVAL;
	if (!send_fits(ch, TNL_MSG_HDR + n))
		return TNL_ELIMIT;
	tnl_channel_make_way(ch, TNL_MSG_HDR + n);
	struct tnl_mbuf *m = tnl_mpool_get(&ch->pool, TNL_MSG_HDR + n);
	if (!m)
		return TNL_ENOMEM;
	ch->send_mem += tnl_mbuf_size(m);
	m->len = (uint32_t)(TNL_MSG_HDR + n);
	if (n)
		memcpy(m->data + TNL_MSG_HDR, p, n);
	seal_message(ch, m->data, t, TNL_PT_NONE, 0, TNL_MF_SYN | TNL_MF_FIN, n);
	tnl_list_push_back(&ch->unnumbered, &m->link);
	tnl_channel_arm_tick(ch, now);
	return 0;
}

/* --- to the link --------------------------------------------------------------- */

static size_t write_ack(struct tnl_channel *ch, const struct tnl_ackq_entry *e)
{
	struct tnl_ack a = {.type = ch->cfg.recv_type, .seq = e->seq};
	memcpy(a.id, e->id, sizeof(a.id));
	size_t n = tnl_ack_write((char *)ch->ack + TNL_MSG_HDR, &a);
	seal_message(ch, ch->ack, TNL_MT_ACK, TNL_PT_NONE, ch->ask_hop ? TNL_HOP_ASKED : 0, TNL_MF_SYN | TNL_MF_FIN, n);
	return TNL_MSG_HDR + n;
}

static bool window_open(const struct tnl_chlink *l, const struct tnl_mbuf *m)
{
	size_t flight = l->way.flight_bytes;
	return flight + m->len <= l->cc.window || flight == 0 || m->probe ||
	       (m->len <= SMALL && flight + m->len <= l->cc.window + OVERDRAFT);
}

static void put_in_flight(struct tnl_channel *ch, struct tnl_chlink *l, struct tnl_mbuf *m, uint64_t now)
{
	if (tnl_list_empty(&l->way.flight))
		l->rto_start = now;
	tnl_cc_sent(&l->cc, &m->snap, m->len, l->way.flight_bytes, now);
	if (m->at == TNL_AT_RESEND)
		ch->st.resent++;
	else
		ch->st.sent++;
	l->sent++;
	tnl_sendq_sent(&ch->sendq, &l->way, m, now);
}

/* Is there something that may go now on this link? */
static bool wants_pull(struct tnl_channel *ch, struct tnl_chlink *l, uint64_t now)
{
	bool control = tnl_channel_ack_waits(ch, l->index) || !tnl_list_empty(&ch->unnumbered);
	if (!control && !tnl_chlink_carries(ch, l))
		return false;
	struct tnl_mbuf *m = control || ch->paused ? NULL : tnl_sendq_head(&ch->sendq);
	if (m && l->behind && m->len > SMALL && !m->probe && window_open(l, m)) {
		tnl_cc_idle(&l->cc, l->way.flight_bytes);
		return false;
	}
	if (m && (!window_open(l, m) || (m->len > SMALL && !m->probe && !pace_allows(ch, l, 0, now)))) {
		tnl_cc_limited(&l->cc);
		return false;
	}
	if (!control && !m) {
		/* The source has run dry: what is measured from here on says nothing about the path.
		 * Not so when it merely comes in small portions, so that the window is nearly full all the time. */
		size_t used = l->way.flight_bytes + queued(ch);
		if (!ch->paused && used <= l->cc.window / 4 * 3 && !tnl_cc_pace(&l->cc, 0, now))
			tnl_cc_idle(&l->cc, used);
		return false;
	}
	if (tokens_left(ch, 1, now))
		return true;
	tnl_cc_idle(&l->cc, l->way.flight_bytes);
	return false;
}

int tnl_channel_pull_on(struct tnl_channel *ch, unsigned link, uint64_t now, const uint8_t **p, size_t *n)
{
	struct tnl_mbuf *proof;
	if (ch->pulled) {
		ch->send_mem -= tnl_mbuf_size(ch->pulled);
		tnl_mpool_put(&ch->pool, ch->pulled);
		tnl_channel_arm_tick(ch, now);
		ch->pulled = NULL;
	}
	if (link >= TNL_LINKS_MAX || !(ch->up & 1u << link))
		return TNL_EAGAIN;
	struct tnl_chlink *l = ch->link[link];
	if (l->proof_due && (proof = tnl_chlink_proof(ch, l, now))) {
		*p = proof->data;
		*n = proof->len;
		return 1;
	}
	if (!wants_pull(ch, l, now))
		return TNL_EAGAIN;
	struct tnl_ackq_entry e;
	if (!tnl_list_empty(&ch->unnumbered)) {
		ch->pulled = tnl_container_of(ch->unnumbered.next, struct tnl_mbuf, link);
		tnl_list_remove(&ch->pulled->link);
		*p = ch->pulled->data;
		*n = ch->pulled->len;
	} else if (tnl_channel_ack_pop(ch, link, &e)) {
		*n = write_ack(ch, &e);
		*p = ch->ack;
		ch->st.acks_sent++;
	} else {
		struct tnl_mbuf *m = tnl_sendq_head(&ch->sendq);
		put_in_flight(ch, l, m, now);
		*p = m->data;
		*n = m->len;
	}
	tnl_bucket_take(&ch->bucket, now);
	return 1;
}

/* --- questions --------------------------------------------------------------------- */

bool tnl_channel_idle(const struct tnl_channel *ch)
{
	return ch->sendq.base == ch->sendq.next && !ch->acks && tnl_list_empty(&ch->unnumbered);
}

int64_t tnl_channel_oldest(const struct tnl_channel *ch)
{
	return ch->sendq.base;
}

int64_t tnl_channel_next(const struct tnl_channel *ch)
{
	return ch->sendq.next;
}

void tnl_channel_set_max_payload(struct tnl_channel *ch, size_t n)
{
	ch->max_payload = TNL_MAX(TNL_MIN(n, TNL_MSG_MAX_PAYLOAD), STOCK_PAYLOAD);
}

void tnl_channel_set_digest(struct tnl_channel *ch, enum tnl_digest digest)
{
	ch->digest = digest;
}

void tnl_channel_ask_hop(struct tnl_channel *ch)
{
	ch->ask_hop = true;
}

size_t tnl_channel_max_payload(const struct tnl_channel *ch)
{
	return ch->max_payload;
}

void tnl_channel_stats(const struct tnl_channel *ch, struct tnl_channel_stats *st)
{
	*st = ch->st;
	const struct tnl_chlink *lead = ch->up ? ch->link[__builtin_ctz(ch->up)] : &ch->first, *l;
	st->srtt_ns = lead->rto.shown;
	st->rttvar_ns = lead->rto.rttvar;
	st->rto_ns = tnl_rto_value(&lead->rto);
	st->min_rtt_ns = lead->cc.base.rtt == UINT64_MAX ? 0 : lead->cc.base.rtt;
	st->delivery_rate = ch->up ? 0 : tnl_cc_rate(&lead->cc);
	st->cwnd = ch->up ? 0 : lead->cc.window;
	TNL_EACH_LINK(ch, l)
	{
		st->delivery_rate += tnl_cc_rate(&l->cc);
		st->cwnd += l->cc.window;
	}
	st->inflight_bytes = ch->sendq.flight_bytes;
	st->inflight_msgs = ch->sendq.flight_msgs;
	st->reorder_msgs = ch->recvq.count;
	st->memory = tnl_channel_memory(ch);
}
