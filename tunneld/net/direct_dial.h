/* The client's way to a direct link: the addresses of a ticket are resolved, connected to beside each other (dial.h),
 * and the first that connects has to prove that it is the one of the ticket; if it is not, the others are tried. */
#ifndef TD_NET_DIRECT_DIAL_H
#define TD_NET_DIRECT_DIAL_H
#include "lib/direct.h"
#include "tunneld/net/wslink.h"

struct td_direct_dial;
/* w: the open link, yours, with callbacks to be set at once; NULL: err and why. The dial is gone then. */
typedef void td_direct_dial_fn(void *ctx, struct td_wslink *w, int err, const char *why);
/* The ticket is copied. timeout_ns: until the first connects; as much again for its proof. From the loop, once, unless
 * cancelled. NULL: no memory. */
struct td_direct_dial *td_direct_dial_start(struct td_loop *l, const struct tnl_direct_ticket *t, uint64_t timeout_ns,
					    const struct td_wslink_opts *o, td_direct_dial_fn *fn, void *ctx);
void td_direct_dial_cancel(struct td_direct_dial *d);

#endif
