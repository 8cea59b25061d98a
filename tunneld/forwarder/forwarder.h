/* The forwarder as an object on a loop: listeners, groups of sessions, the connections that they carry. */
#ifndef TD_FORWARDER_H
#define TD_FORWARDER_H
#include "lib/buf.h"
#include "lib/metrics.h"
#include "tunneld/base/loop.h"
#include "tunneld/config/config.h"

struct td_forwarder;

/* Binds every listener first; those that cannot be had are tried again, unless their tunnel is `required`. NULL: *why
 * holds the reason(s). A reference to cfg is kept as long as it is
 * needed: the caller may free its own at once (td_config_free). */
struct td_forwarder *td_forwarder_new(struct td_loop *l, const struct td_config *cfg, char *why, size_t cap);
/* Told of each start of a session that succeeded (err 0) or failed for good, with the API's type and words for a
 * person; of a reverse tunnel when the agent listens; NULL: nobody is.  Not called from inside the calls of this
 * header. */
#define TD_FORWARDER_TAKEN_OVER                                                                                        \
	"TakenOver" /* a type: another run of this client has the listener of a reverse tunnel */
typedef void td_forwarder_started_fn(void *ctx, int err, const char *type, const char *why);
void td_forwarder_on_started(struct td_forwarder *f, td_forwarder_started_fn *fn, void *ctx);
/* New configuration (already checked): unchanged tunnels are not touched, others stopped/started.
 * -1: something could not be bound, old state kept as far as possible; *why. cfg then replaces the old one. */
int td_forwarder_reload(struct td_forwarder *f, const struct td_config *cfg, char *why, size_t cap);
/* Logs where a tunnel listens. */
void td_forwarder_announce(const struct td_tunnel_config *t, const char *target, const struct td_addr *a);
/* By hand, until the next start: open listens again if it was closed and starts a session without waiting for a
 * connection; close stops listening, lets connections finish, and ends the session when no other tunnel shares it.
 * 0, or -1 and *why.  How it went is in the status. */
int td_forwarder_open(struct td_forwarder *f, const char *tunnel, char *why, size_t cap);
int td_forwarder_close(struct td_forwarder *f, const char *tunnel, char *why, size_t cap);
/* Serves a one-shot command with a session of ours: words is JSON, fd its connection, where lines of JSON tell it how
 * that goes (one_shot.c has both); fds came along.  true: all of it is taken; false: *why. */
bool td_forwarder_one_shot(struct td_forwarder *f, const char *words, int fd, const int *fds, int nfds, char *why,
			   size_t cap);
/* Stop listening, let connections finish, terminate sessions, then done(ctx). A second call cuts everything. */
void td_forwarder_drain(struct td_forwarder *f, uint64_t timeout_ns, void (*done)(void *), void *ctx);
/* fn for each tunnel: bytes from and to local programs so far, smoothed round trip (0: unknown). */
void td_forwarder_sample(struct td_forwarder *f,
			 void (*fn)(void *ctx, const char *tunnel, uint64_t up, uint64_t down, uint64_t rtt_us),
			 void *ctx);
/* Unix seconds at which the first of the credentials in use end; 0: none do. */
uint64_t td_forwarder_credentials_end(const struct td_forwarder *f);
void td_forwarder_metrics(struct td_forwarder *f, struct tnl_metrics *m);
/* 1: the tunnel of that name, each of the range of that name, or each (NULL), is up or opens on demand; 0: it is not,
 * *why; -1: there is no such one.
 */
int td_forwarder_ready(struct td_forwarder *f, const char *tunnel, char *why, size_t cap);
void td_forwarder_status(struct td_forwarder *f, struct tnl_buf *json);		       /* one JSON object */
int td_forwarder_addr(struct td_forwarder *f, int tunnel, int i, struct td_addr *out); /* bound addresses */
void td_forwarder_free(struct td_forwarder *f);

#endif
