/* The three roles as objects on one loop.  A role never includes another's header;
 * main() and `local` start them. */
#ifndef TD_ROLES_H
#define TD_ROLES_H
#include "lib/buf.h"
#include "tunneld/config/config.h"
#include "tunneld/base/loop.h"

struct td_forwarder;
struct td_agent;
struct td_gateway;

/* Binds every listener first. NULL: *why holds the reason(s). A reference to cfg is kept as long as it is
 * needed: the caller may free its own at once (td_config_free). */
struct td_forwarder *td_forwarder_new(struct td_loop *l, const struct td_config *cfg, char *why, size_t cap);
/* New configuration (already checked): unchanged tunnels are not touched, others stopped/started.
 * -1: something could not be bound, old state kept as far as possible; *why. cfg then replaces the old one. */
int td_forwarder_reload(struct td_forwarder *f, const struct td_config *cfg, char *why, size_t cap);
/* Stop listening, let connections finish, terminate sessions, then done(ctx). A second call cuts everything. */
void td_forwarder_drain(struct td_forwarder *f, uint64_t timeout_ns, void (*done)(void *), void *ctx);
void td_forwarder_status(struct td_forwarder *f, struct tnl_buf *json);		       /* one JSON object */
int td_forwarder_addr(struct td_forwarder *f, int tunnel, int i, struct td_addr *out); /* bound addresses */
void td_forwarder_free(struct td_forwarder *f);

struct td_agent *td_agent_new(struct td_loop *l, const struct td_config *cfg, char *why, size_t cap);
bool td_agent_connected(const struct td_agent *a); /* control channel is up */
int td_agent_reload(struct td_agent *a, const struct td_config *cfg, char *why, size_t cap);
void td_agent_drain(struct td_agent *a, uint64_t timeout_ns, void (*done)(void *), void *ctx);
void td_agent_status(struct td_agent *a, struct tnl_buf *json);
void td_agent_free(struct td_agent *a);

struct td_gateway *td_gateway_new(struct td_loop *l, const struct td_config *cfg, char *why, size_t cap);
int td_gateway_addr(struct td_gateway *g, int i, struct td_addr *out);
int td_gateway_reload(struct td_gateway *g, const struct td_config *cfg, char *why, size_t cap);
void td_gateway_drain(struct td_gateway *g, uint64_t timeout_ns, void (*done)(void *), void *ctx);
void td_gateway_status(struct td_gateway *g, struct tnl_buf *json);
void td_gateway_free(struct td_gateway *g);

#endif
