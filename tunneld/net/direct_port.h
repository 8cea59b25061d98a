/* The port of direct links: accepts, and shows nothing to who has no ticket.
 *
 *   accept → (too many of this peer, or it failed too often: reset) → ClientHello names a ticket → TLS → its proof →
 *   ours → a WebSocket link that goes to the owner
 *
 * All of it within 5 s; 64 connections on their way in all, 8 of a peer; 10 failures at once and one more every 6 s. */
#ifndef TD_NET_DIRECT_PORT_H
#define TD_NET_DIRECT_PORT_H
#include "lib/direct.h"
#include "tunneld/net/wslink.h"

struct td_direct_port;
struct td_direct_port_cb {
	/* Inside of TLS: is there such a ticket? A name is good for one ClientHello. May call nothing. */
	bool (*admit)(void *ctx, const char *name);
	/* Of a name that was admitted. false: it has been withdrawn. */
	bool (*secret)(void *ctx, const char *name, uint8_t out[TNL_DIRECT_SECRET]);
	/* w is the owner's, with callbacks to be set at once. */
	void (*opened)(void *ctx, const char *name, struct td_wslink *w);
};
struct td_direct_port_stats {
	uint64_t accepted, opened, failed, turned_away;
};
/* *why on failure. Makes a key of its own. */
struct td_direct_port *td_direct_port_new(struct td_loop *l, const struct td_addr *addrs, int naddrs,
					  const struct td_wslink_opts *o, const struct td_direct_port_cb *cb, void *ctx,
					  char *why, size_t cap);
void td_direct_port_free(struct td_direct_port *p);
const uint8_t *td_direct_port_key(const struct td_direct_port *p); /* 32 bytes, for tickets */
/* Where the i-th listens, with the chosen port; -1: there is none. */
int td_direct_port_addr(const struct td_direct_port *p, int i, struct td_addr *out);
const struct td_direct_port_stats *td_direct_port_stats(const struct td_direct_port *p);

#endif
