/* The reliable channel of one session (docs/protocol.md "Reliability"): numbers,
 * selective acks, retransmission, reorder buffer, caps, publication, pacing.
 * Survives links.  Payload in, whole messages out; whole messages in, payload
 * out in order.  No I/O, no clock: `now` is monotonic ns, `wall_ms` for
 * CreatedDate comes through the config callback.
 *
 *   reserve → commit → [send queue] → pull → one of the links
 *   links → feed → deliver callback (in order) or [reorder buffer]
 *
 * Sending: what may be in flight is min(10,000 messages, memory_max, congestion
 * window).  The congestion window follows delivery rate × (min RTT + a few ms)
 * (docs/reliability.md); message_rate adds a token bucket (acks go first and count).
 * The stored message is what is sent again, byte for byte. */
#ifndef TNL_CHANNEL_H
#define TNL_CHANNEL_H
#include "lib/message.h"
#include <stdbool.h>

struct tnl_channel_config {
	enum tnl_mtype send_type; /* TNL_MT_INPUT (client) or TNL_MT_OUTPUT (agent) */
	enum tnl_mtype recv_type;
	size_t memory_max;	 /* bytes of unacknowledged + reordered messages */
	unsigned message_rate;	 /* messages a second, acks included; 0: no limit */
	unsigned resend_max;	 /* resends of one message that end the session; 0: never (default 3000) */
	bool stock_peer_payload; /* start with 1,024-byte payloads (raised by _set_max_payload) */
	uint64_t (*wall_ms)(void *ctx);
	/* In-order payload of a stream message.  0: taken (ack it, advance).
	 * TNL_EAGAIN: not ready: neither ack nor advance (kept if there is room).
	 * Other negative: protocol error, ends the session.  Must not call back into the channel
	 * except _reserve/_commit. */
	int (*deliver)(void *ctx, const struct tnl_msg *m, uint64_t now);
	/* May what came too early be kept? NULL: yes. No: it is dropped without an ack, and will come again. */
	bool (*may_keep)(void *ctx);
	void *ctx;
};

struct tnl_channel_stats {
	uint64_t sent, resent, received, duplicates, reordered, dropped_full, bad, acks_sent, acks_received;
	uint64_t payload_sent, payload_received;
	uint64_t srtt_ns; /* as measured; 0: not yet */
	uint64_t rttvar_ns, rto_ns, min_rtt_ns;
	uint64_t delivery_rate; /* bytes/s, 0: not known */
	size_t cwnd, inflight_bytes, inflight_msgs, reorder_msgs, memory;
};

/* Links. A channel is one, with one row of numbers and one reorder buffer, over up to nine links: each with a window,
 * a timer and evidence of its own, numbered from 0. A new message goes on whichever link its owner pulls for; an ack on
 * the link on which its message came, or after 10 ms on any.
 *
 * - A link that goes while others are up: what was in flight on it is sent again on those, at once. When the last one
 *   goes the channel is down, and with the next everything that is not acknowledged is sent again.
 * - A link whose timer runs out while others go has stalled: what was in flight on it goes to the others, and it
 * carries nothing until it answers to copies of the oldest message, which it gets with growing distance.
 * - Ranks: while a link of a lower rank is up and answers, those of higher ones carry acks only.
 *
 * The calls without a link mean link 0. */
#define TNL_LINKS_MAX 9u /* eight through a gateway and a direct one */
struct tnl_link_stats {
	bool up, stalled;
	uint64_t srtt_ns, delivery_rate;
	size_t cwnd, inflight_bytes;
	uint64_t sent;	 /* messages with a number */
	uint64_t stalls; /* how often */
};

struct tnl_channel;
struct tnl_channel *tnl_channel_new(const struct tnl_channel_config *c, uint64_t now);
void tnl_channel_free(struct tnl_channel *ch);

/* --- producing ------------------------------------------------------------ */
/* How many payload bytes one new message may carry now: 0 when the window, a cap,
 * the rate or a pause forbids it.  Adapts to the measured rate (about 1.5 ms
 * of link time), between 1,024 and the agreed maximum. */
size_t tnl_channel_can_send(struct tnl_channel *ch, uint64_t now);
/* The same for a small message of a quiet stream (a keystroke beside a bulk transfer): up to
 * 1,024 bytes, which may overdraw the congestion window by a few KiB. 0 also where the measured
 * rate is low (below 0.7 MB/s): messages of bulk are as small there, and overdrawing makes a queue. */
size_t tnl_channel_can_send_small(struct tnl_channel *ch, uint64_t now);
/* A message buffer with room for `n` payload bytes (n ≤ max payload; handshake messages may be
 * longer), or NULL.
 * One at a time; commit or abandon it before the next. Urgent ones (handshake, flags, window
 * updates, small answers) may pass can_send, never the hard caps. */
uint8_t *tnl_channel_reserve(struct tnl_channel *ch, size_t n);
/* n > 0 (stock ends never send an empty payload); 0 or TNL_EINVAL. */
int tnl_channel_commit(struct tnl_channel *ch, uint32_t ptype, size_t n, uint64_t flags, uint64_t now) TNL_MUST_USE;
void tnl_channel_abandon(struct tnl_channel *ch);
/* Something to pack into messages without number (agent_session_state): queued before all else. */
int tnl_channel_send_unnumbered(struct tnl_channel *ch, enum tnl_mtype t, const void *p, size_t n,
				uint64_t now) TNL_MUST_USE;

/* --- link side ------------------------------------------------------------ */
/* Next whole message to put on the link: acks, then resends, then new ones.
 * 1 and a slice that is valid until the next call; TNL_EAGAIN. */
int tnl_channel_pull_on(struct tnl_channel *ch, unsigned link, uint64_t now, const uint8_t **p, size_t *n) TNL_MUST_USE;
static inline int tnl_channel_pull(struct tnl_channel *ch, uint64_t now, const uint8_t **p, size_t *n)
{
	return tnl_channel_pull_on(ch, 0, now, p, n);
}
/* One decoded message of any type (payload borrowed). 0 also for what is ignored;
 * TNL_EPROTO etc. end the session. channel_closed and unknown types are the caller's. */
int tnl_channel_feed_on(struct tnl_channel *ch, unsigned link, const struct tnl_msg *m, uint64_t now) TNL_MUST_USE;
static inline int tnl_channel_feed(struct tnl_channel *ch, const struct tnl_msg *m, uint64_t now)
{
	return tnl_channel_feed_on(ch, 0, m, now);
}
/* Try again to deliver what was "not ready"; call when the consumer has room. */
int tnl_channel_ready(struct tnl_channel *ch, uint64_t now) TNL_MUST_USE;
/* A link came, in the place of an older one of that number if there is one. The first: everything unacked again, paced;
 * ends a pause. TNL_EINVAL: no such number; TNL_ENOMEM: not for link 0. */
int tnl_channel_link_add(struct tnl_channel *ch, unsigned link, unsigned rank, uint64_t now) TNL_MUST_USE;
void tnl_channel_link_gone(struct tnl_channel *ch, unsigned link, uint64_t now);
void tnl_channel_link_up(struct tnl_channel *ch, uint64_t now);
static inline void tnl_channel_link_down(struct tnl_channel *ch, uint64_t now)
{
	tnl_channel_link_gone(ch, 0, now);
}
unsigned tnl_channel_links(const struct tnl_channel *ch); /* bit mask of those that are up */
/* Of the links that are up those with room (bit mask), in the order in which they should be asked: by what is expected
 * to arrive first.  Until the next call none takes bulk on which that would arrive later than on one that has to wait
 * for its pace. */
unsigned tnl_channel_link_order(struct tnl_channel *ch, unsigned room, uint64_t now, uint8_t order[TNL_LINKS_MAX]);
/* Would a numbered message go on this one now, as far as the links are concerned? */
bool tnl_channel_link_carries(const struct tnl_channel *ch, unsigned link);
void tnl_channel_link_stats(const struct tnl_channel *ch, unsigned link, struct tnl_link_stats *st);
uint64_t tnl_channel_deadline(const struct tnl_channel *ch);
int tnl_channel_expire(struct tnl_channel *ch, uint64_t now) TNL_MUST_USE; /* TNL_ETIMEOUT: resend_max reached */
bool tnl_channel_idle(const struct tnl_channel *ch);			   /* nothing unacked, no acks to send */
/* Lowest number without an ack; the next one when there is none. */
int64_t tnl_channel_oldest(const struct tnl_channel *ch);
int64_t tnl_channel_next(const struct tnl_channel *ch); /* number of the next message */
size_t tnl_channel_memory(const struct tnl_channel *ch);
/* Short of memory: new messages are small, few of them are on their way, and no spare buffers are kept. */
void tnl_channel_narrow(struct tnl_channel *ch, bool narrow);
/* A message takes 1.5 ms of the path at the rate that it gives, so that others need not wait; 12 ms where all bytes are
 * those of one, since each message costs its work at all ends. */
void tnl_channel_alone(struct tnl_channel *ch, bool alone);
void tnl_channel_set_max_payload(struct tnl_channel *ch, size_t n);
size_t tnl_channel_max_payload(const struct tnl_channel *ch);
/* Agreed with the other end: what is made from now on is sealed with it. */
void tnl_channel_set_digest(struct tnl_channel *ch, enum tnl_digest digest);
/* Agreed with the other end: from now on acks ask the gateway what stands before the hop to us (TNL_HOP_ASKED). */
void tnl_channel_ask_hop(struct tnl_channel *ch);
/* What stands before our own link, as its owner measures it every few ms. */
void tnl_channel_near_on(struct tnl_channel *ch, unsigned link, const struct tnl_hop *h, uint64_t now);
/* Several links carry what is sent, over a long way: what comes on one waits until another has repaired a loss. */
bool tnl_channel_is_spread(const struct tnl_channel *ch);
/* TCP repairs losses on the way of what is sent, as its first link shows: those that came later may never have seen
 * the path without a queue, and take what that overflows for losses. */
bool tnl_channel_repairs(const struct tnl_channel *ch, uint64_t now);
/* A queue stands on the path of one of its links: it carries no more. */
bool tnl_channel_is_full(const struct tnl_channel *ch, uint64_t now);
static inline void tnl_channel_near(struct tnl_channel *ch, const struct tnl_hop *h, uint64_t now)
{
	tnl_channel_near_on(ch, 0, h, now);
}
void tnl_channel_stats(const struct tnl_channel *ch, struct tnl_channel_stats *st);

#endif
