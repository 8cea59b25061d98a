/* What the kernel knows of the path of a TCP socket, as a hop that a session goes over (struct tnl_hop). */
#ifndef TD_NET_TCP_HOP_H
#define TD_NET_TCP_HOP_H
#include "lib/message.h"
#include "tunneld/net/addr.h"

struct td_tcp_hop { /* zero: not asked yet */
	struct tnl_hop hop;
	uint64_t at;		       /* when the kernel was asked */
	uint64_t repaired_at, full_at; /* when it had sent something again; when much stood on the path */
	uint64_t bulk_at;	       /* when more than a little was unsent */
	uint32_t retrans;	       /* segments that it has sent again */
	bool helped;		       /* in this run of bulk */
};
struct tcp_info;
/* A queue stands on the path itself: more is on the way than the path holds. */
bool td_tcp_hop_stands(const struct tcp_info *i);
/* Asks the kernel, once in 2 ms at most; between that the answer stays.
 * queue: what is queued on the path (round trip above its least), and what the socket and `ahead` bytes before it have
 * not sent yet, at the delivery rate.  What TCP holds back to repair a loss does not count.  0: not TCP, or not known.
 * repairs: something was lost within the last half second although the path was not full.
 * full: within the last half second a queue stood on the path, which has 2 ms there and back at least.
 * A BBR that has settled on the rate of small messages is made to search anew when bulk waits. */
const struct tnl_hop *td_tcp_hop_ask(struct td_tcp_hop *h, int fd, size_t ahead, uint64_t now);

/* A hop that does not leave the machine has nothing to find out: it goes without BBR, whose pacing takes a timer for
 * each few segments there as well.  For a socket that is not connected yet, or one that listens on `a`. */
void td_tcp_hop_local(int fd, const struct td_addr *a);

#endif
