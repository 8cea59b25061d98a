/* Message buffers of a channel: [120 header][payload] behind their bookkeeping,
 * in size classes, recycled.  What a pool holds, in use or spare, is counted. */
#ifndef TNL_MBUF_H
#define TNL_MBUF_H
#include "lib/cc.h"
#include "lib/list.h"
#include "lib/message.h"

#define TNL_MBUF_CLASSES 11u /* whole message up to 2^k + 256 bytes, k = 0 (unused bits) … 256 KiB */

struct tnl_sendq_way;
enum tnl_mbuf_at { TNL_AT_NONE, TNL_AT_FRESH, TNL_AT_FLIGHT, TNL_AT_RESEND };

struct tnl_mbuf {
	struct tnl_list link;
	uint8_t cls, at;
	uint8_t came_on;  /* received: the link that it came on, where its ack goes */
	bool ambiguous;	  /* sent: more than once, so that an ack says nothing about time */
	bool owed;	  /* received: acknowledged already */
	bool probe;	  /* resend by timer: passes the congestion window */
	bool led;	  /* it was the oldest when it was sent last */
	uint32_t len;	  /* whole message */
	uint32_t resends; /* by timer or evidence; a new link does not count */
	uint64_t sent_at, order;
	struct tnl_sendq_way *on; /* sent: the link that it went out on; NULL: that has gone */
	union {
		struct tnl_cc_snap snap;
		struct tnl_msg msg; /* received: payload points into data */
	};
	int64_t seq;
	uint8_t data[];
};

struct tnl_mpool {
	struct tnl_list spare[TNL_MBUF_CLASSES];
	size_t used, kept; /* bytes in use and spare */
	size_t kept_max;
	size_t kept_low; /* least of `kept` since the last tick: was not needed */
};

void tnl_mpool_init(struct tnl_mpool *p, size_t kept_max);
void tnl_mpool_fini(struct tnl_mpool *p);			 /* spare ones only */
size_t tnl_mbuf_cost(size_t len);				 /* what a message of `len` bytes counts */
size_t tnl_mbuf_room(const struct tnl_mbuf *m);			 /* bytes that data[] can take */
size_t tnl_mbuf_size(const struct tnl_mbuf *m);			 /* what this one counts */
struct tnl_mbuf *tnl_mpool_get(struct tnl_mpool *p, size_t len); /* NULL: no memory, or len too big */
void tnl_mpool_put(struct tnl_mpool *p, struct tnl_mbuf *m);	 /* NULL is fine */
bool tnl_mpool_tick(struct tnl_mpool *p); /* gives back what was not needed since the last; true: call again */
void tnl_mpool_trim(struct tnl_mpool *p, size_t keep); /* give spare ones back until `keep` bytes are left */

#endif
