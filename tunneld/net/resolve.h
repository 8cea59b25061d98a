/* Name resolution (c-ares). */
#ifndef TD_NET_RESOLVE_H
#define TD_NET_RESOLVE_H
#include "tunneld/base/loop.h"
#include "tunneld/net/addr.h"

struct td_resolve;
/* err: 0, TNL_ENOTFOUND, TNL_ETIMEOUT or TNL_ELIMIT and why. */
typedef void td_resolve_fn(void *ctx, int err, const struct td_addr *addrs, int n, const char *why);
/* Literals and localhost answer at once but still through the callback, deferred. NULL: no memory. */
struct td_resolve *td_resolve_start(struct td_loop *l, const char *host, uint16_t port, td_resolve_fn *fn, void *ctx);
/* For somebody else, of whose questions only so many may wait for answers at a time, those that were cancelled
 * meanwhile included, however many others wait: TNL_ELIMIT.  owner: a name for him. */
struct td_resolve *td_resolve_start_for(struct td_loop *l, const char *owner, const char *host, uint16_t port,
					td_resolve_fn *fn, void *ctx);
void td_resolve_cancel(struct td_resolve *r);

#endif
