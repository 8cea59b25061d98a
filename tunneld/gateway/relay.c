/* The relay: whole frames from one end of a session to the other.  Only the 120-byte header is looked at, the payload
 * passes as it is.  A frame goes straight into the other link when that has room; else it waits in a bounded queue, and
 * when that is full the sender's link is not read any more. */
#include "tunneld/gateway/internal.h"
#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/num.h"
#include "lib/wire.h"
#include <string.h>

/* What is called from the main loop has the session's worker held; frames come on that worker itself. */
static void hold(const struct gw_end *e)
{
	gw_worker_hold(e->s->worker);
}

static uint64_t now_of(const struct gw_end *e)
{
	return e->s->worker->l->now;
}

/* --- back-pressure ----------------------------------------------------------- */
static struct gw_end *other_end(struct gw_end *e)
{
	return &e->s->ends[e->role == GW_CLIENT ? GW_AGENT : GW_CLIENT];
}

/* Link 0 is the end's own, the others are lanes. */
static unsigned lanes_of(const struct gw_end *e)
{
	return e->lane ? GW_LINKS : 1;
}

static struct gw_link *link_of(const struct gw_end *e, unsigned i)
{
	return i ? e->lane ? e->lane[i].link : NULL : e->link;
}

static struct gw_queue *queue_of(struct gw_end *e, unsigned i)
{
	return i ? &e->lane[i].q : &e->q;
}

static void set_link(struct gw_end *e, unsigned i, struct gw_link *l)
{
	if (i)
		e->lane[i].link = l;
	else
		e->link = l;
}

/* By which link of `to` goes what came on link i of the other end: that of the same number, else its main one, else
 * any. */
static unsigned lane_to(const struct gw_end *to, unsigned i)
{
	if (!to->lane || link_of(to, i))
		return to->lane ? i : 0;
	for (i = 0; i < GW_LINKS; i++)
		if (link_of(to, i))
			return i;
	return 0;
}

unsigned gw_relay_links(const struct gw_end *e)
{
	unsigned n = 0;
	for (unsigned i = 0; i < lanes_of(e); i++)
		n += link_of(e, i) != NULL;
	return n;
}

uint64_t gw_relay_waiting_bytes(const struct gw_end *e)
{
	hold(e);
	uint64_t n = e->q.bytes;
	for (unsigned i = 1; i < lanes_of(e); i++)
		n += e->lane[i].q.bytes;
	return n;
}

size_t gw_relay_waiting(const struct gw_end *e)
{
	hold(e);
	size_t n = e->q.frames;
	for (unsigned i = 1; i < lanes_of(e); i++)
		n += e->lane[i].q.frames;
	return n;
}

/* What is kept for an end, in its queue and in its link, goes into the account of its owners: as much as it costs, and
 * the buffers of a link grow by doubling. */
static void account_end(struct gw_end *e)
{
	size_t now = 0;
	for (unsigned i = 0; i < lanes_of(e); i++) {
		const struct gw_link *l = link_of(e, i);
		now += queue_of(e, i)->held + (l ? 2 * td_wslink_queued(l->w) : 0);
	}
	gw_shares_keep(e->s, (int64_t)now - (int64_t)e->kept);
	e->kept = now;
}

static bool is_short_of_memory(struct gw_session *s, struct gw_share **who)
{
	*who = gw_shares_used_up(s);
	return *who || td_memory_full();
}

/* A link of `from` is read while what it sent and what still waits stays under its part of the limit. */
static void update_link_pause(struct gw_end *from, unsigned i)
{
	struct gw_end *to = other_end(from);
	struct gw_link *l = link_of(from, i);
	if (!l)
		return;
	const struct gw_queue *q = queue_of(to, lane_to(to, i));
	uint64_t limit = from->s->g->cfg->gw.relay_memory;
	if (to->lane)
		limit /= TNL_MAX(gw_relay_links(to), 1u);
	struct gw_share *who = NULL;
	bool pause = l->paused ? q->bytes > limit / 2 : q->bytes >= limit;
	if (q->frames && is_short_of_memory(from->s, &who))
		pause = true;
	pause |= gw_quota_throttles(from->s);
	if (pause == l->paused)
		return;
	l->paused = pause;
	if (pause)
		gw_count(from->s->g, GW_C_READ_PAUSES);
	if (pause && who)
		gw_share_reached(who, now_of(from));
	td_wslink_pause(l->w, pause);
}

static void update_pause(struct gw_end *from)
{
	for (unsigned i = 0; i < lanes_of(from); i++)
		update_link_pause(from, i);
}

static void update_pauses(struct gw_session *s)
{
	update_pause(&s->ends[GW_CLIENT]);
	update_pause(&s->ends[GW_AGENT]);
}

void gw_relay_room(void *arg)
{
	struct td_gateway *g = arg;
	tnl_list_foreach_safe(it, &g->active) {
		struct gw_session *s = tnl_container_of(it, struct gw_session, by_age);
		gw_worker_hold(s->worker);
		update_pauses(s);
	}
}

/* --- sending --------------------------------------------------------------------- */
/* A stock client can be left deaf by a frame that comes right behind HandshakeComplete. */
static void hold_stock_client(struct gw_end *to, const uint8_t *p, size_t n)
{
	if (to->role != GW_CLIENT || !to->link->stock || n < TNL_MSG_HDR ||
	    tnl_get_be32(p + 112) != TNL_PT_HANDSHAKE_COMPLETE)
		return;
	if (tnl_msg_type(p) != TNL_MT_OUTPUT)
		return;
	to->hold_until = now_of(to) + GW_HOLD_NS;
	td_timer_at(&to->s->hold, to->hold_until);
	gw_count(to->s->g, GW_C_CLIENT_HOLDS);
}

static bool is_held_back(const struct gw_end *e)
{
	return e->hold_until > now_of(e);
}

static void note_sent(struct gw_end *to, unsigned i, const uint8_t *p, size_t n)
{
	struct gw_worker *k = to->s->worker;
	to->frames++;
	to->bytes += n;
	link_of(to, i)->bytes += n;
	gw_add(&k->frames, 1);
	gw_add(&k->bytes, n);
	gw_add(&k->to[to == &to->s->ends[GW_AGENT]], n);
	gw_quota_charge(to->s, n);
	if (!i)
		hold_stock_client(to, p, n);
}

static int send_frame(struct gw_end *to, unsigned i, const uint8_t *p, size_t n)
{
	if (td_wslink_send(link_of(to, i)->w, TNL_WS_BINARY, p, n) != 0)
		return TNL_EAGAIN;
	note_sent(to, i, p, n);
	return 0;
}

static void flush_link(struct gw_end *e, unsigned i)
{
	size_t n;
	const uint8_t *p;
	struct gw_queue *q = queue_of(e, i);
	while (link_of(e, i) && !(i == 0 && is_held_back(e)) && (p = gw_queue_peek(q, &n)) != NULL) {
		if (send_frame(e, i, p, n) != 0)
			break;
		gw_queue_pop(q);
		e->waits_since = now_of(e);
	}
	account_end(e);
	update_pause(other_end(e));
}

void gw_relay_flush(struct gw_end *e)
{
	hold(e);
	flush_link(e, 0);
}

void gw_relay_writable(struct gw_link *l)
{
	flush_link(l->end, l->index);
}

static void mind_quota(struct gw_session *s)
{
	if (gw_quota_throttles(s))
		update_pauses(s);
}

static bool is_next(struct gw_end *to, unsigned i)
{
	return link_of(to, i) && !queue_of(to, i)->frames && !(i == 0 && is_held_back(to));
}

static void queue_frame(struct gw_end *to, unsigned i, const uint8_t *p, size_t n)
{
	if (!gw_relay_waiting(to))
		to->waits_since = now_of(to);
	if (gw_queue_put(queue_of(to, i), p, n) != 0) { /* as if the network had lost it: the ends send it again */
		gw_count(to->s->g, GW_C_FRAMES_IGNORED);
		return;
	}
	account_end(to);
	if (td_memory_spent())
		gw_worker_crowded(to->s->worker);
	update_pause(other_end(to));
}

/* On link i of `to`, or as lane_to says. */
static void forward_frame(struct gw_end *to, unsigned i, const uint8_t *p, size_t n)
{
	i = lane_to(to, i);
	if (is_next(to, i) && send_frame(to, i, p, n) == 0)
		mind_quota(to->s);
	else
		queue_frame(to, i, p, n);
}

/* The same with what the link is handing over: it goes from the one link's buffer into the other's, unmasked on the
 * way. */
static void pass_on(struct gw_link *l, const uint8_t *p, size_t n)
{
	struct gw_end *to = other_end(l->end);
	unsigned i = lane_to(to, l->index);
	if (is_next(to, i) && td_wslink_send_on(link_of(to, i)->w, l->w) == 0) {
		note_sent(to, i, p, n);
		mind_quota(to->s);
		return;
	}
	td_wslink_unmask(l->w);
	queue_frame(to, i, p, n);
}

void gw_relay_send(struct gw_end *e, enum tnl_mtype t, const void *p, size_t n)
{
	uint8_t *out = tnl_malloc(TNL_MSG_HDR + n);
	hold(e);
	if (!out)
		return;
	forward_frame(e, 0, out, gw_message_encode(e->s->g, out, t, p, n));
	tnl_free(out);
}

#define PUBLICATION_MAX 1024u
#define STATE_MAX 1024u

/* Behind what waits, or before it when the link has just come. */
static void send_publication(struct gw_end *e, enum tnl_mtype t, bool first)
{
	uint8_t out[TNL_MSG_HDR + PUBLICATION_MAX];
	struct tnl_buf b;
	tnl_buf_init(&b, PUBLICATION_MAX);
	if (gw_relay_links(e) && tnl_publication_write(&b, e->s->id) == 0) {
		size_t n = gw_message_encode(e->s->g, out, t, tnl_buf_data(&b), tnl_buf_len(&b));
		if (!first || !e->link || send_frame(e, 0, out, n) != 0)
			forward_frame(e, 0, out, n);
	}
	tnl_buf_fini(&b);
}

/* A stock agent whose link broke may take what is sent to it again for new.  The client has to know
 * that the link broke, also when its own was not there at the time, or the gateway was not. */
static void tell_agent_was_lost(struct gw_session *s, bool first)
{
	struct gw_end *agent = &s->ends[GW_AGENT];
	if (!s->tell_lost || !agent->link || !s->ends[GW_CLIENT].link)
		return;
	s->tell_lost = false;
	if (agent->link->stock)
		send_publication(&s->ends[GW_CLIENT], TNL_MT_PAUSE_PUBLICATION, first);
}

/* --- ends come and go --------------------------------------------------------------- */
void gw_relay_attach(struct gw_end *e, struct gw_link *l)
{
	struct gw_end *o = other_end(e);
	struct gw_session *s = e->s;
	hold(e);
	e->link = l;
	e->seen = true;
	e->attached_at = s->g->l->now;
	l->end = e;
	td_wslink_set_clear(l->w, TNL_MSG_HDR);
	if (e->role == GW_CLIENT) {
		s->tell_lost |= s->agent_lost;
		s->agent_lost = false;
	}
	bool both = o->link && s->state != GW_S_ENDED;
	gw_direct_tell(e); /* before the handshake */
	gw_direct_tell(o); /* which heard no for as long as this one had no key */
	if (both)
		tell_agent_was_lost(s, e->role == GW_CLIENT);
	gw_relay_flush(e); /* what waited for it */
	if (both) {
		send_publication(e, TNL_MT_START_PUBLICATION, false);
		send_publication(o, TNL_MT_START_PUBLICATION, false);
	}
	update_pause(e);
}

/* What waits for a link that has gone takes another. */
static void leave_link(struct gw_end *e, unsigned i)
{
	size_t n;
	const uint8_t *p;
	struct gw_queue *q = queue_of(e, i);
	unsigned to = lane_to(e, i);
	while (to != i && (p = gw_queue_peek(q, &n)) != NULL) {
		queue_frame(e, to, p, n);
		gw_queue_pop(q);
	}
	if (to != i)
		flush_link(e, to);
	update_pause(other_end(e));
}

void gw_relay_detach(struct gw_end *e)
{
	struct gw_end *o = other_end(e);
	hold(e);
	e->link = NULL;
	e->absent_since = e->s->g->l->now;
	if (e->s->state == GW_S_ENDED) {
		gw_relay_drop(e);
		return;
	}
	e->s->agent_lost |= e->role == GW_AGENT;
	leave_link(e, 0);
	if (!gw_relay_links(e))
		send_publication(o, TNL_MT_PAUSE_PUBLICATION, false);
}

/* --- further links ------------------------------------------------------------------- */
int gw_relay_attach_lane(struct gw_end *e, struct gw_link *l)
{
	hold(e);
	if (!e->lane && !(e->lane = tnl_calloc(GW_LINKS, sizeof(*e->lane))))
		return TNL_ENOMEM;
	struct gw_link *old = e->lane[l->index].link;
	if (old) {
		gw_count(e->s->g, GW_C_LINKS_REPLACED);
		e->lane[l->index].link = NULL;
		gw_link_drop(old);
	}
	e->lane[l->index].link = l;
	l->end = e;
	td_wslink_set_clear(l->w, TNL_MSG_HDR);
	flush_link(e, l->index);
	return 0;
}

void gw_relay_detach_lane(struct gw_end *e, unsigned index)
{
	hold(e);
	e->lane[index].link = NULL;
	if (e->s->state == GW_S_ENDED &&
	    !(e->role == GW_CLIENT && e->link)) { /* that one still gets what waits for it */
		gw_queue_clear(&e->lane[index].q);
		account_end(e);
		return;
	}
	leave_link(e, index);
	if (!gw_relay_links(e))
		send_publication(other_end(e), TNL_MT_PAUSE_PUBLICATION, false);
}

void gw_relay_close_lanes(struct gw_end *e)
{
	hold(e);
	for (unsigned i = 1; i < lanes_of(e); i++)
		if (e->lane[i].link)
			gw_link_close(e->lane[i].link, 1000, "session over");
}

void gw_relay_drop_lanes(struct gw_end *e)
{
	hold(e);
	for (unsigned i = 1; i < lanes_of(e); i++) {
		struct gw_link *l = e->lane[i].link;
		e->lane[i].link = NULL;
		if (l)
			gw_link_drop(l);
		gw_queue_clear(&e->lane[i].q);
	}
	tnl_free(e->lane);
	e->lane = NULL;
	account_end(e);
}

void gw_relay_forget(struct gw_link *l)
{
	hold(l->end);
	set_link(l->end, l->index, NULL);
}

void gw_relay_drop(struct gw_end *e)
{
	hold(e);
	gw_queue_clear(&e->q);
	account_end(e);
	update_pause(other_end(e));
}

/* --- frames that come ------------------------------------------------------------------ */
static void log_session_state(struct gw_link *l, const struct tnl_msg *m)
{
	struct tnl_json *j = m->plen <= STATE_MAX ? tnl_json_parse(m->payload, m->plen) : NULL;
	const char *state = tnl_json_get_str(j, "SessionState");
	td_debug("gateway", l->end->s->id, "agent says state=\"%.64s\"", state ? state : "?");
	tnl_json_free(j);
}

/* The acknowledged data went to `from`: what waits for its link, or in it, is the queue that the sender makes. */
static void tell_hop(struct gw_link *l, uint8_t *ack)
{
	tnl_ack_tell_hop(ack, td_wslink_hop(l->w, queue_of(l->end, l->index)->bytes));
}

void gw_relay_message(struct gw_link *l, uint8_t *p, size_t n)
{
	struct gw_end *from = l->end;
	struct gw_session *s = from->s;
	struct tnl_msg m;
	struct tnl_msg_fault fault = {NULL};
	int rc = tnl_msg_peek(p, n, &m, &fault);
	if (rc != 0 && rc != TNL_ETYPE) {
		gw_link_complain(l, "malformed message", fault.field ? fault.field : "length");
		return;
	}
	if (s->state == GW_S_ENDED)
		return;
	bool client = from->role == GW_CLIENT;
	if (rc == 0 && m.type == (client ? TNL_MT_INPUT : TNL_MT_OUTPUT)) {
		s->last_stream = now_of(from);
		pass_on(l, p, n);
	} else if (rc == 0 && m.type == TNL_MT_ACK) {
		if (m.seq == TNL_HOP_ASKED)
			tell_hop(l, p);
		pass_on(l, p, n);
	} else if (rc == 0 && m.type == TNL_MT_SESSION_STATE && !client) {
		td_wslink_unmask(l->w);
		log_session_state(l, &m);
	} else if (rc == 0 && m.type == TNL_MT_DIRECT && !l->stock) {
		struct gw_end *to = other_end(from);
		td_wslink_unmask(l->w);
		if (td_worker_here())
			gw_link_hand_in(l, p, n);
		else if (gw_direct_message(from, &m) && to->link && !to->link->stock)
			forward_frame(to, 0, p, n);
	} else { /* nothing else has any business on a data channel */
		gw_link_complain(l, "message of a type that this end does not send", "MessageType");
	}
}
