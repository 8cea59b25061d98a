/* Connecting to the first that answers of addresses that are already resolved. */
#ifndef TD_NET_DIAL_H
#define TD_NET_DIAL_H
#include "tunneld/base/loop.h"
#include "tunneld/net/addr.h"

struct td_dial;
/* fd >= 0: connected (yours); -1: err TNL_EREFUSED, TNL_EUNREACH or TNL_ETIMEOUT and text. */
typedef void td_dial_fn(void *ctx, int fd, const struct td_addr *peer, int err, const char *why);
/* Tries the next address when one failed, or beside it after 250 ms. fn is never called from inside td_dial_start
 * (NULL: no memory); once it is called the dial is over and gone. */
struct td_dial *td_dial_start(struct td_loop *l, const struct td_addr *addrs, int n, uint64_t timeout_ns,
			      td_dial_fn *fn, void *ctx);
/* The same, for connections of which there may be any number: it fails when only the last descriptors are left. */
struct td_dial *td_dial_start_many(struct td_loop *l, const struct td_addr *addrs, int n, uint64_t timeout_ns,
				   td_dial_fn *fn, void *ctx);
/* In fn, when it failed: the errno of what `why` is about; 0: there is none. */
int td_dial_errno(const struct td_dial *d);
void td_dial_cancel(struct td_dial *d);

#endif
