/* How many connections each peer has, so that one of them cannot take them all. A peer is an IPv4 address or an IPv6
 * /64, which one customer has to himself; ::1 counts alone, unix sockets are not counted. */
#ifndef TD_NET_PEERS_H
#define TD_NET_PEERS_H
#include "tunneld/net/addr.h"

struct td_peers;
struct td_peer { /* what was counted; all zero: nothing */
	uint8_t key[16];
	uint8_t len;
};
struct td_peer td_peer_of(const struct td_addr *a); /* len 0: a unix socket */
struct td_peers *td_peers_new(void);
void td_peers_free(struct td_peers *p);
/* false: it has `max` already, or there is no memory; nothing was counted then. */
bool td_peers_enter(struct td_peers *p, const struct td_addr *a, unsigned max, struct td_peer *out);
void td_peers_leave(struct td_peers *p, struct td_peer *what); /* once for each enter; zeroes it */

#endif
