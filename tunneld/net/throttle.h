/* How often a peer may fail, so that nobody tries for long: a table of a fixed size, so that nobody makes it large. Two
 * peers that share a place share its count; which ones do is drawn at the start. */
#ifndef TD_NET_THROTTLE_H
#define TD_NET_THROTTLE_H
#include "tunneld/net/peers.h"

struct td_throttle;
/* burst failures at once, and one more every each_ns. */
struct td_throttle *td_throttle_new(unsigned burst, uint64_t each_ns);
void td_throttle_free(struct td_throttle *t);
bool td_throttle_allows(const struct td_throttle *t, const struct td_addr *a, uint64_t now);
void td_throttle_failed(struct td_throttle *t, const struct td_addr *a, uint64_t now);

#endif
