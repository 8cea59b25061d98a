/* UDP sockets: many datagrams a call, without blocking. */
#ifndef TD_NET_UDP_H
#define TD_NET_UDP_H
#include "tunneld/net/addr.h"

#include <stddef.h>

/* Bound to the address, or connected to it.  -1 and errno. */
int td_udp_bound(const struct td_addr *a);
int td_udp_connected(const struct td_addr *a);
/* Once for each datagram that is there, of some at a time.  It may do anything but read. */
typedef void td_udp_fn(void *ctx, const struct td_addr *from, const uint8_t *p, size_t n);
/* 0, or errno: ECONNREFUSED and its like are an answer to what was sent, and the socket goes on. */
int td_udp_read(int fd, td_udp_fn *fn, void *ctx);
/* to NULL: the socket is connected.  false: it found no room, or the far end is not there.  *answer, when it is not
 * NULL: such an errno as above, of what was sent before; it is not touched when there is none. */
bool td_udp_send(int fd, const struct td_addr *to, const uint8_t *p, size_t n, int *answer);

#endif
