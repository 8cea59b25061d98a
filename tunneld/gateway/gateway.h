/* The gateway as an object on a loop: control API and relay. */
#ifndef TD_GATEWAY_H
#define TD_GATEWAY_H
#include "lib/buf.h"
#include "tunneld/base/loop.h"
#include "tunneld/config/config.h"

struct td_gateway;

struct td_gateway *td_gateway_new(struct td_loop *l, const struct td_config *cfg, char *why, size_t cap);
int td_gateway_addr(struct td_gateway *g, int i, struct td_addr *out);
int td_gateway_reload(struct td_gateway *g, const struct td_config *cfg, char *why, size_t cap);
void td_gateway_drain(struct td_gateway *g, uint64_t timeout_ns, void (*done)(void *), void *ctx);
void td_gateway_status(struct td_gateway *g, struct tnl_buf *json);
void td_gateway_free(struct td_gateway *g);

#endif
