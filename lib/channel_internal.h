/* Inside of a channel, shared by its two halves: channel.c (producing, to the
 * link) and channel_in.c (from the link, time). */
#ifndef TNL_CHANNEL_INTERNAL_H
#define TNL_CHANNEL_INTERNAL_H
#include "lib/channel.h"
#include "lib/recvq.h"
#include "lib/rto.h"
#include "lib/sendq.h"

#define TNL_CHANNEL_TICK 1000000000u /* spare memory that was not used for so long is given back */

struct tnl_channel {
	struct tnl_channel_config cfg;
	struct tnl_mpool pool;
	struct tnl_sendq sendq;
	struct tnl_recvq recvq;
	struct tnl_ackq ackq;
	struct tnl_list unnumbered;
	struct tnl_mbuf *reserved, *pulled;
	struct tnl_rto rto;
	struct tnl_cc cc;
	struct tnl_bucket bucket;
	size_t max_payload;
	size_t send_mem; /* what reserved and unacknowledged messages count */
	bool up, paused;
	enum tnl_digest digest;
	bool ask_hop;		    /* our acks ask what stands before the hop to us */
	uint64_t rto_start;	    /* the timer runs from here while anything is in flight */
	uint64_t sample_from;	    /* what was sent earlier gives no round-trip sample */
	uint64_t token_at, tick_at; /* UINT64_MAX: not armed */
	struct tnl_channel_stats st;
	uint8_t ack[TNL_MSG_HDR + TNL_ACK_MAX];
};

/* Room under the memory maximum for one more received message of `len` bytes. */
bool tnl_channel_recv_fits(const struct tnl_channel *ch, size_t len);
void tnl_channel_make_way(struct tnl_channel *ch, size_t len); /* spare buffers give way to one of `len` bytes */
/* Bytes for one direction when the other holds so many. */
size_t tnl_channel_share(const struct tnl_channel *ch, size_t other);

static inline void tnl_channel_arm_tick(struct tnl_channel *ch, uint64_t now)
{
	if (ch->tick_at == UINT64_MAX)
		ch->tick_at = now + TNL_CHANNEL_TICK;
}

#endif
