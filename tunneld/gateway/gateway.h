/* The gateway as an object on a loop: control API and relay, on the addresses of [gateway]. */
#ifndef TD_GATEWAY_H
#define TD_GATEWAY_H
#include "lib/buf.h"
#include "lib/metrics.h"
#include "tunneld/base/loop.h"
#include "tunneld/config/config.h"

struct td_gateway;
struct tnl_tls_ctx;

/* Listens when it returns; sessions of the store are restored. Takes a reference to cfg. NULL: *why says what to do. */
struct td_gateway *td_gateway_new(struct td_loop *l, const struct td_config *cfg, char *why, size_t cap);
int td_gateway_addr(struct td_gateway *g, int i, struct td_addr *out); /* as bound; not 0: there is no such one */
/* Takes on cfg; sessions whose user or instance has gone end. -1: nothing has changed, *why says what to do. */
int td_gateway_reload(struct td_gateway *g, const struct td_config *cfg, char *why, size_t cap);
/* No new sessions and links; finishes calls and frames in hand (timeout_ns, 1 s at most), closes all links (as a node
 * among several one by one, within timeout_ns), then done(ctx), from the loop or in a second call, which does not wait
 * any longer. Sessions go on with the next gateway.
 */
void td_gateway_drain(struct td_gateway *g, uint64_t timeout_ns, void (*done)(void *), void *ctx);
void td_gateway_metrics(struct td_gateway *g, struct tnl_metrics *m);
/* 1: it serves; 0: it does not, *why; -1: a tunnel was named, and it has none. */
int td_gateway_ready(struct td_gateway *g, const char *tunnel, char *why, size_t cap);
void td_gateway_status(struct td_gateway *g, struct tnl_buf *json); /* one object */
void td_gateway_free(struct td_gateway *g);			    /* NULL is fine; writes what the store has queued */

/* What a store at rediss:// is reached with; NULL: *why says what to do. */
struct tnl_tls_ctx *td_gateway_store_tls(struct td_loop *l, const struct td_gateway_config *c, char *why, size_t cap);

#endif
