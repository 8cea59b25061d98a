/* The agent as an object on a loop: the target's side, its control channel, its sessions and what they dial or run. */
#ifndef TD_AGENT_H
#define TD_AGENT_H
#include "lib/buf.h"
#include "tunneld/base/loop.h"
#include "tunneld/config/config.h"

struct td_agent;

struct td_agent *td_agent_new(struct td_loop *l, const struct td_config *cfg, char *why, size_t cap);
bool td_agent_connected(const struct td_agent *a); /* control channel is up */
int td_agent_reload(struct td_agent *a, const struct td_config *cfg, char *why, size_t cap);
void td_agent_drain(struct td_agent *a, uint64_t timeout_ns, void (*done)(void *), void *ctx);
void td_agent_status(struct td_agent *a, struct tnl_buf *json);
void td_agent_free(struct td_agent *a);

#endif
