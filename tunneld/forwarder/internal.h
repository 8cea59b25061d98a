/* Inside of the forwarder: tunnels, groups of sessions, sessions, waiting connections.
 *
 *   tunnel (listeners) ─ accept → fwd_conn ─ waits in → group ─ placed on → fwd_session → pump → pipe
 *
 * A group is what tunnels with the same target, host, port, document, AWS block and
 * session policy share. It holds the sessions and the connections that wait for one. */
#ifndef TD_FORWARDER_INTERNAL_H
#define TD_FORWARDER_INTERNAL_H
#include "lib/enc.h"
#include "lib/list.h"
#include "tunneld/aws/aws.h"
#include "tunneld/base/ledger.h"
#include "tunneld/base/memory.h"
#include "tunneld/client/client.h"
#include "tunneld/forwarder/forwarder.h"
#include "tunneld/net/listen.h"
#include "tunneld/pump/pump.h"

#define FWD_MAX_LISTEN 16

struct fwd_group;

struct fwd_session {
	struct tnl_list node; /* group->sessions */
	struct fwd_group *group;
	struct td_client *client;
	struct td_timer idle;
	bool ending;
	bool one_shot;		   /* per-connection: ends with its pipe */
	struct fwd_conn *reserved; /* per-connection: for whom it was started */
	uint64_t bytes_in, bytes_out;
};

/* An accepted local connection, from accept to close. */
struct fwd_conn {
	struct tnl_list node; /* group->waiting while fd >= 0 */
	struct fwd_tunnel *tunnel;
	struct fwd_session *session; /* once placed */
	int fd;
	struct td_pipe *pipe;
	uint64_t accepted_at;
	struct td_timer patience; /* connect_timeout */
	char peer[TD_ADDR_STR];
};

struct fwd_group {
	struct tnl_list node; /* forwarder->groups */
	struct td_forwarder *f;
	const struct td_tunnel_config *cfg; /* of the tunnel that made it; all of the group are alike */
	const struct td_config *owner;	    /* keeps cfg alive */
	struct td_aws *aws;
	int refs;	  /* tunnels */
	bool needs_login; /* only a person can renew the credentials */
	struct tnl_list sessions, waiting;
	uint64_t lost_at; /* a session's link was lost or had just come back, or it is over; 0: one has come up since */
	bool stopping;
	struct td_timer restart;
	struct td_backoff backoff;
	char last_error[256];
};

struct fwd_tunnel {
	struct tnl_list node; /* forwarder->tunnels */
	struct td_forwarder *f;
	const struct td_tunnel_config *cfg;
	const struct td_config *owner; /* keeps cfg alive */
	struct fwd_group *group;
	struct td_listener *listeners[FWD_MAX_LISTEN];
	struct td_addr bound[FWD_MAX_LISTEN];
	int nlisteners;
	unsigned connections; /* accepted and not closed */
	bool keep, fresh;     /* reload: stays as it is; was made by it */
	struct td_memory_waiter room;
	bool paused, closing;  /* closing: off the configuration, its connections finish */
	struct tnl_list conns; /* placed fwd_conn.node */
	uint64_t accepted, failed, bytes_in, bytes_out;
};

struct td_forwarder {
	struct td_loop *loop;
	struct tnl_list tunnels, groups;
	bool draining, ended; /* ended: no connection is left, sessions are being ended */
	struct td_timer drain_timer, terminate_timer;
	void (*done)(void *);
	void *done_ctx;
	bool done_told;
	struct tnl_list terminating; /* TerminateSession calls under way */
	struct td_ledger *ledger;    /* ids of open sessions, with the name of their tunnel */
};

/* group.c */
struct fwd_group *fwd_group_get(struct td_forwarder *f, const struct td_config *owner, const struct td_tunnel_config *t,
				char *why, size_t cap);
void fwd_group_put(struct fwd_group *g);		       /* a tunnel lets go */
void fwd_group_place(struct fwd_group *g, struct fwd_conn *c); /* now, or when a session is there */
void fwd_group_serve(struct fwd_group *g);		       /* place who waits, start sessions that are wanted */
void fwd_group_fail(struct fwd_group *g, const char *why);     /* reset everyone who waits */
/* A start was refused and may be tried again: those who wait take what there is. Does anybody need it still? */
bool fwd_group_wants_retry(struct fwd_group *g);
/* A session of the group, or any to its target, is resuming or was lost within the group's connect_timeout. */
bool fwd_group_recovering(const struct fwd_group *g);
bool fwd_target_recovering(const struct fwd_group *g);
void fwd_group_settle(struct fwd_group *g);    /* free it when nobody needs it; see whether all is drained */
void fwd_group_drop_idle(struct fwd_group *g); /* end sessions without pipes */
void fwd_group_kill(struct fwd_group *g);      /* forwarder is freed: no words to anybody */

/* session.c */
struct fwd_session *fwd_session_start(struct fwd_group *g, uint16_t local_port);
bool fwd_session_up(const struct fwd_session *s); /* takes streams now */
size_t fwd_session_load(const struct fwd_session *s);
void fwd_session_end(struct fwd_session *s, const char *why); /* politely; API told; destroyed from the loop */
void fwd_session_destroy(struct fwd_session *s);	      /* at once, without a word */
const char *fwd_session_name(const struct fwd_session *s);    /* session id for logs, or NULL */

/* tunnel.c */
struct fwd_tunnel *fwd_tunnel_new(struct td_forwarder *f, const struct td_config *cfg,
				  const struct td_tunnel_config *tc, char *why, size_t cap);
void fwd_tunnel_close(struct fwd_tunnel *t); /* off the configuration: no new connections, the running ones finish */
int fwd_tunnel_start_listening(struct fwd_tunnel *t, char *why, size_t cap);
void fwd_tunnel_stop_listening(struct fwd_tunnel *t);
void fwd_tunnel_announce(const struct fwd_tunnel *t);
void fwd_tunnel_update_pause(struct fwd_tunnel *t);
void fwd_tunnel_unref_if_over(struct fwd_tunnel *t);

/* connection.c */
void fwd_conn_placed(struct fwd_conn *c, struct fwd_session *s, struct td_pipe *p);
void fwd_conn_failed(struct fwd_conn *c, const char *why); /* RST and freed */
void fwd_conn_closed(struct fwd_conn *c, uint64_t in, uint64_t out);

/* ending.c */
void fwd_terminate(struct td_forwarder *f, struct td_aws *aws, const char *session_id);
void fwd_endings_cancel(struct td_forwarder *f);

/* drain.c */
void fwd_check_drained(struct td_forwarder *f);

/* ledger.c */
void fwd_ledger_open(struct td_forwarder *f, const char *state_dir); /* and ends what a crash left */

#endif
