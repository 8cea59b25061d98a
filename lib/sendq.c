/* Messages from commit to ack, in a ring by number and in lists by state, and the evidence
 * by which one is taken for lost (docs/reliability.md "Finding what is lost"). */
#include "lib/sendq.h"
#include "lib/num.h"
#include "lib/alloc.h"
#include <string.h>

#define RING_FIRST 64u
#define THRESHOLD_FIRST 3u
#define THRESHOLD_MAX 256u
#define SCAN_MAX 512u /* messages looked at in one go: keeps the work of one ack small */

void tnl_sendq_init(struct tnl_sendq *q)
{
	memset(q, 0, sizeof(*q));
	tnl_list_init(&q->fresh);
	tnl_list_init(&q->resend);
}

void tnl_sendq_way_init(struct tnl_sendq_way *w)
{
	memset(w, 0, sizeof(*w));
	tnl_list_init(&w->flight);
	w->maybe_at = w->check_at = UINT64_MAX;
	w->threshold = THRESHOLD_FIRST;
}

void tnl_sendq_fini(struct tnl_sendq *q, struct tnl_mpool *pool)
{
	for (int64_t s = q->base; s < q->next; s++)
		tnl_mpool_put(pool, q->ring[s & (q->ring_size - 1)]);
	tnl_free(q->ring);
	tnl_sendq_init(q);
}

void tnl_sendq_shrink(struct tnl_sendq *q)
{
	tnl_free(q->ring);
	q->ring = NULL;
	q->ring_size = 0;
}

size_t tnl_sendq_heap(const struct tnl_sendq *q)
{
	return q->ring_size * sizeof(*q->ring);
}

int tnl_sendq_make_room(struct tnl_sendq *q)
{
	uint64_t span = (uint64_t)(q->next - q->base);
	/* The peer keeps that many beyond a hole: what is further ahead it would throw away. */
	if (span >= TNL_CHANNEL_CAP)
		return TNL_ELIMIT;
	if (span < q->ring_size)
		return 0;
	uint32_t size = q->ring_size ? 2 * q->ring_size : RING_FIRST;
	struct tnl_mbuf **ring = tnl_calloc(size, sizeof(*ring));
	if (!ring)
		return TNL_ENOMEM;
	for (int64_t s = q->base; s < q->next; s++)
		ring[s & (size - 1)] = q->ring[s & (q->ring_size - 1)];
	tnl_free(q->ring);
	q->ring = ring;
	q->ring_size = size;
	return 0;
}

void tnl_sendq_add(struct tnl_sendq *q, struct tnl_mbuf *m)
{
	m->seq = q->next++;
	m->at = TNL_AT_FRESH;
	q->ring[m->seq & (q->ring_size - 1)] = m;
	tnl_list_push_back(&q->fresh, &m->link);
	q->fresh_msgs++;
	q->fresh_bytes += m->len;
}

struct tnl_mbuf *tnl_sendq_head(const struct tnl_sendq *q)
{
	/* The oldest before all others: it is the only one that a peer whose reorder buffer is full can take. */
	struct tnl_mbuf *oldest = tnl_sendq_find(q, q->base);
	if (oldest && oldest->at == TNL_AT_RESEND)
		return oldest;
	const struct tnl_list *l = !tnl_list_empty(&q->resend) ? &q->resend : &q->fresh;
	return tnl_list_empty(l) ? NULL : tnl_container_of(l->next, struct tnl_mbuf, link);
}

static void leave_list(struct tnl_sendq *q, struct tnl_mbuf *m)
{
	tnl_list_remove(&m->link);
	if (m->at == TNL_AT_FRESH) {
		q->fresh_msgs--;
		q->fresh_bytes -= m->len;
	} else if (m->at == TNL_AT_FLIGHT) {
		q->flight_msgs--;
		q->flight_bytes -= m->len;
		m->on->flight_msgs--;
		m->on->flight_bytes -= m->len;
	} else if (m->at == TNL_AT_RESEND) {
		q->resend_msgs--;
		q->resend_bytes -= m->len;
	}
	m->at = TNL_AT_NONE;
}

void tnl_sendq_sent(struct tnl_sendq *q, struct tnl_sendq_way *w, struct tnl_mbuf *m, uint64_t now)
{
	if (m->at == TNL_AT_RESEND)
		m->ambiguous = true;
	m->probe = false;
	m->led = m->seq == q->base;
	leave_list(q, m);
	m->at = TNL_AT_FLIGHT;
	m->sent_at = now;
	m->order = ++w->order;
	m->on = w;
	tnl_list_push_back(&w->flight, &m->link);
	q->flight_msgs++;
	q->flight_bytes += m->len;
	w->flight_msgs++;
	w->flight_bytes += m->len;
}

struct tnl_mbuf *tnl_sendq_find(const struct tnl_sendq *q, int64_t seq)
{
	return seq >= q->base && seq < q->next ? q->ring[seq & (q->ring_size - 1)] : NULL;
}

void tnl_sendq_remove(struct tnl_sendq *q, struct tnl_mbuf *m)
{
	leave_list(q, m);
	q->ring[m->seq & (q->ring_size - 1)] = NULL;
	while (q->base < q->next && !q->ring[q->base & (q->ring_size - 1)])
		q->base++;
}

static void to_resend(struct tnl_sendq *q, struct tnl_mbuf *m)
{
	leave_list(q, m);
	m->at = TNL_AT_RESEND;
	tnl_list_push_back(&q->resend, &m->link);
	q->resend_msgs++;
	q->resend_bytes += m->len;
}

void tnl_sendq_lost(struct tnl_sendq *q, struct tnl_mbuf *m)
{
	m->resends++;
	to_resend(q, m);
}

void tnl_sendq_all_lost(struct tnl_sendq *q)
{
	for (int64_t s = q->base; s < q->next; s++) {
		struct tnl_mbuf *m = q->ring[s & (q->ring_size - 1)];
		if (m && m->at != TNL_AT_FRESH) {
			to_resend(q, m);
			m->on = NULL;
		}
	}
}

/* Nothing that is sent on it from now on can be older. */
static void forget_evidence(struct tnl_sendq_way *w)
{
	w->maybe_at = w->check_at = UINT64_MAX;
	w->seen_order = w->order;
	w->seen_at = 0;
}

void tnl_sendq_way_lost(struct tnl_sendq *q, struct tnl_sendq_way *w)
{
	for (int64_t s = q->base; s < q->next; s++) {
		struct tnl_mbuf *m = q->ring[s & (q->ring_size - 1)];
		if (m && (m->at == TNL_AT_RESEND || (m->at == TNL_AT_FLIGHT && m->on == w)))
			to_resend(q, m);
	}
	forget_evidence(w);
}

void tnl_sendq_way_gone(struct tnl_sendq *q, struct tnl_sendq_way *w)
{
	tnl_sendq_way_lost(q, w);
	tnl_list_foreach(it, &q->resend) {
		struct tnl_mbuf *m = tnl_container_of(it, struct tnl_mbuf, link);
		if (m->on == w)
			m->on = NULL;
	}
}

void tnl_sendq_evidence(struct tnl_sendq_way *w, const struct tnl_mbuf *m, const struct tnl_sendq_times *t,
			uint64_t now)
{
	if (m->at != TNL_AT_FLIGHT || m->on != w)
		return;
	if (m->ambiguous) {
		/* Too soon to be for the copy: what looked like a hole was a detour. */
		if (m->resends == 1 && now - m->sent_at < t->srtt / 4 && w->threshold < THRESHOLD_MAX)
			w->threshold *= 2;
		if (now - m->sent_at < t->least)
			return; /* for the first copy, and says nothing */
		/* For the first copy or for the last? Had it been the first, the acks of its
		 * neighbours would come with it: wait a moment for them. */
		if (w->maybe_at == UINT64_MAX || m->order > w->maybe_order) {
			w->maybe_order = m->order;
			w->maybe_sent = m->sent_at;
		}
		if (w->maybe_at == UINT64_MAX)
			w->maybe_at = now + t->srtt / 8 + 1000000 + t->patience;
		return;
	}
	if (w->maybe_at != UINT64_MAX && m->order < w->maybe_order)
		w->maybe_at = UINT64_MAX; /* first copies are still coming in */
	if (m->order > w->seen_order) {
		w->seen_order = m->order;
		w->seen_at = m->sent_at;
	}
}

/* When one that was overtaken is late enough. The first time at once; later with growing distance: a peer that is not
 * ready for a message drops it however often it comes. That says nothing of the oldest one, when it was not yet
 * the oldest as it was sent: a peer without room takes it now. */
static uint64_t lost_at(const struct tnl_sendq *q, const struct tnl_sendq_way *w, const struct tnl_mbuf *m,
			uint64_t srtt, uint64_t rto)
{
	uint64_t late = m->sent_at + srtt + srtt / 8;
	if (!m->resends)
		return w->seen_order - m->order < w->threshold ? late : m->sent_at;
	if (m->resends == 1 || (m->seq == q->base && !m->led))
		return late;
	return m->sent_at + (rto << TNL_MIN(m->resends - 2, 6u));
}

/* The oldest needs no turn in the scan, and passes a window that is full of what the peer has dropped. */
static unsigned detect_oldest(struct tnl_sendq *q, struct tnl_sendq_way *w, uint64_t srtt, uint64_t rto, uint64_t now)
{
	struct tnl_mbuf *m = tnl_sendq_find(q, q->base);
	if (!m || m->at != TNL_AT_FLIGHT || m->on != w || m->led || m->resends < 2 || m->order >= w->seen_order)
		return 0;
	uint64_t due = lost_at(q, w, m, srtt, rto);
	if (due > now) {
		w->check_at = due;
		return 0;
	}
	tnl_sendq_lost(q, m);
	m->probe = true;
	return 1;
}

unsigned tnl_sendq_detect(struct tnl_sendq *q, struct tnl_sendq_way *w, uint64_t srtt, uint64_t rto, uint64_t now)
{
	unsigned lost = 0, seen = 0;
	if (w->maybe_at <= now) {
		if (w->maybe_order > w->seen_order) {
			w->seen_order = w->maybe_order;
			w->seen_at = w->maybe_sent;
		}
		w->maybe_at = UINT64_MAX;
	}
	w->check_at = UINT64_MAX;
	lost += detect_oldest(q, w, srtt, rto, now);
	tnl_list_foreach_safe(it, &w->flight) {
		struct tnl_mbuf *m = tnl_container_of(it, struct tnl_mbuf, link);
		if (m->order >= w->seen_order)
			break;
		if (++seen > SCAN_MAX) {
			w->check_at = TNL_MIN(w->check_at, now + 1000000);
			break;
		}
		uint64_t due = lost_at(q, w, m, srtt, rto);
		if (due <= now) {
			tnl_sendq_lost(q, m);
			lost++;
		} else if (due < w->check_at) {
			w->check_at = due;
		}
	}
	return lost;
}
