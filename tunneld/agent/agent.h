/* The agent as an object on a loop: the target's side, its control channel, its sessions and what they dial or run.
 * All callbacks come from the loop, never from inside a call. */
#ifndef TD_AGENT_H
#define TD_AGENT_H
#include "lib/buf.h"
#include "lib/metrics.h"
#include "tunneld/base/loop.h"
#include "tunneld/config/config.h"

struct td_agent;

/* Before the process gives up privileges and system calls: what its shells will need of them. -1: *why. */
int td_agent_prepare(const struct td_config *cfg, char *why, size_t cap);
/* Takes a reference to cfg and begins to open the control channel. NULL: *why. */
struct td_agent *td_agent_new(struct td_loop *l, const struct td_config *cfg, char *why, size_t cap);
/* The control channel is up. */
bool td_agent_connected(const struct td_agent *a);
/* Sessions stay. New connections meet the new allow and deny; another endpoint, key or name brings a new control
 * channel, and resumes go the new way. -1: *why, and all is as before. */
int td_agent_reload(struct td_agent *a, const struct td_config *cfg, char *why, size_t cap);
/* New sessions are refused, those without connections end, the others have timeout_ns; then, once, done(ctx), in which
 * the agent may be freed. Called again while that is going on: done comes at once. */
void td_agent_drain(struct td_agent *a, uint64_t timeout_ns, void (*done)(void *), void *ctx);
/* Appends one JSON object. */
uint64_t td_agent_credentials_end(const struct td_agent *a); /* Unix seconds; 0: they do not */
void td_agent_metrics(struct td_agent *a, struct tnl_metrics *m);
/* 1: its control channel is up; 0: it is not, *why; -1: a tunnel was named, and it has none. */
int td_agent_ready(struct td_agent *a, const char *tunnel, char *why, size_t cap);
void td_agent_status(struct td_agent *a, struct tnl_buf *json);
/* At once, without a word to anybody: sessions that are open are reported as ended by the next start. NULL is fine. */
void td_agent_free(struct td_agent *a);

#endif
