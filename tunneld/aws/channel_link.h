/* The way to a channel: credentials → WebSocket (signed or not) → token frame. */
#ifndef TD_AWS_CHANNEL_LINK_H
#define TD_AWS_CHANNEL_LINK_H
#include "tunneld/aws/aws.h"
#include "tunneld/net/wslink.h"

struct td_channel_link;
struct td_channel_link_opts {
	const char *url; /* ws or wss */
	/* Without keys it fails; else it goes unsigned then, where the token is the authority. A URL that is signed
	 * already is never signed again. */
	bool must_sign;
	bool never_sign;	     /* keys are not even looked for */
	const struct tnl_open *open; /* the token frame; request_id is filled in */
	uint64_t ping_ns, pong_ns;
};
struct td_channel_link_result {
	struct td_wslink *w; /* the token frame was sent on it; the receiver's from now on. NULL: failed */
	bool dialed;	     /* what failed is the WebSocket, not what comes before it */
	int http_status;     /* of a refused upgrade, or 0 */
	const char *why;
};
typedef void td_channel_link_fn(void *ctx, const struct td_channel_link_result *r);
/* Copies what it is given. fn comes from the loop, once, and the opening is gone then; unless cancelled. 15 s are given
 * to the WebSocket. NULL: no memory. */
struct td_channel_link *td_channel_link_open(struct td_aws *a, const struct td_channel_link_opts *o,
					     td_channel_link_fn *fn, void *ctx);
void td_channel_link_cancel(struct td_channel_link *c);

#endif
