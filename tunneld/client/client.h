/* One client session, whoever wants it (forwarder, connect, forward, shell, plugin):
 *
 *   the target is looked up → StartSession (or a grant that somebody else got) → data channel → handshake → up
 *   link lost → back-off → ResumeSession → data channel → up      for ever
 *   end → flag TerminateSession → link closed or 500 ms → ended
 *
 * The TerminateSession call is the owner's: td_terminate_start, when td_client_session_id is set.
 * Streams are made with td_pipe_client / td_pipe_fds on td_client_pump(). */
#ifndef TD_CLIENT_H
#define TD_CLIENT_H
#include "tunneld/aws/aws.h"
#include "tunneld/pump/pump.h"

enum td_client_state {
	TD_CLIENT_STARTING,
	TD_CLIENT_CONNECTING,
	TD_CLIENT_HANDSHAKE,
	TD_CLIENT_UP,
	TD_CLIENT_RESUMING,
	TD_CLIENT_ENDING
};

struct td_client;

/* From the loop, never from inside a td_client_* call. Unused ones may be NULL. */
struct td_client_cb {
	/* StartSession has answered; perhaps only after td_client_end: then the owner has to terminate it. */
	void (*granted)(void *ctx, const char *session_id);
	/* Before the first link the network failed (type "") or the API answered TargetNotConnected: true tries again
	 * after a back-off, since the other end may be coming back as well; NULL: never.  The first failure of the
	 * network is tried once more whatever it says. */
	bool (*unreachable)(void *ctx, int err, const char *type);
	/* Its start was refused for now (throttled, or the service has a fault), and is tried again after a back-off.
	 */
	void (*delayed)(void *ctx, const char *why);
	void (*ready)(void *ctx, const struct tnl_session_info *info);
	void (*changed)(void *ctx, enum td_client_state st);
	/* It never became ready and is over. type: the API's error type or "". Free it. */
	void (*failed)(void *ctx, int err, const char *type, const char *why);
	/* It was ready and is over; pipes have been reset. err TNL_ECLOSED: the far side or the gateway ended it. Free
	 * it. */
	void (*over)(void *ctx, int err, const char *text);
	void (*ended)(void *ctx); /* after td_client_end: free it */
	void (*pipe_closed)(void *ctx, struct td_pipe *p, void *user, uint32_t reason, uint64_t in, uint64_t out);
	void (*drained)(void *ctx, struct td_pipe *p, void *user);   /* its local program has ended its direction */
	void (*connected)(void *ctx, struct td_pipe *p, void *user); /* after td_pipe_ask */
	/* Where Reverse is agreed: the agent has taken a connection for us; as of the pump. */
	void (*open)(void *ctx, struct tnl_stream *st);
	void (*cancelled)(void *ctx, struct tnl_stream *st);
	void (*reverse)(void *ctx, const struct tnl_reverse *word);
	void (*flag)(void *ctx, uint32_t flag);
	void (*exit_code)(void *ctx, int code);
};

struct td_client_config {
	struct td_aws *aws; /* a reference is taken */
	const char *label;  /* for log lines: "tunnel=postgres" */
	const char *target; /* a list, as of td_tunnel_config; with a grant one id */
	enum td_target_select select;
	const char *document, *host, *reason;
	uint16_t port, local_port;
	const char *const *command;	      /* NULL-terminated, for command documents */
	const struct td_session_grant *grant; /* not NULL: StartSession has been called by somebody; copied */
	bool links_auto;		      /* as many as help, while there is bulk; else session.links */
	uint64_t reconnect_min_ns, reconnect_max_ns, ping_ns, pong_ns;
	bool never_sign;		   /* the data channel: keys are not looked for, the token is enough */
	struct tnl_session_config session; /* settings; session_id, cb, ctx are filled in here */
};

/* Copies all strings. NULL: no memory. Starts by itself. */
struct td_client *td_client_new(struct td_loop *l, const struct td_client_config *c, const struct td_client_cb *cb,
				void *ctx);
void td_client_free(struct td_client *c); /* at once: no words to anybody, no callbacks, pipes reset */
/* Ends it: the far end is told by flag, pipes are reset with the link. */
void td_client_end(struct td_client *c);
enum td_client_state td_client_state(const struct td_client *c);
uint64_t td_client_state_since(const struct td_client *c); /* monotonic ns */
/* "needs-login" when credentials can only be renewed by a person. */
const char *td_client_state_name(const struct td_client *c);
bool td_client_was_ready(const struct td_client *c);
struct td_pump *td_client_pump(const struct td_client *c);   /* NULL before the grant */
const char *td_client_session_id(const struct td_client *c); /* NULL before the grant */
const char *td_client_target(const struct td_client *c);     /* the id that it leads to; NULL before the look-up */
unsigned td_client_resumes(const struct td_client *c);	     /* links that came back */
const char *td_client_last_error(const struct td_client *c); /* why it is not up; "" while it is */
uint64_t td_client_started_at(const struct td_client *c);
void td_client_ping(struct td_client *c); /* after a sleep */
/* From now on it calls with this block, to which a reference is taken; what waits for another try is tried at once. */
void td_client_renew(struct td_client *c, struct td_aws *aws);

#endif
