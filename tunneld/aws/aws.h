/* AWS side of the clients: TLS contexts, endpoints, credentials and the control API,
 * as state machines on the loop. */
#ifndef TD_AWS_H
#define TD_AWS_H
#include "lib/sigv4.h"
#include "lib/wire.h"
#include "tunneld/config/config.h"
#include "tunneld/net/http_client.h"

/* --- one [aws] block: resolved region, endpoints, TLS, proxy, where its credentials come from --- */
struct td_aws; /* reference counted; shared by equal configurations */
/* c is copied.  NULL: *why says what is missing or malformed, with the cure.  No credentials are looked for yet. */
struct td_aws *td_aws_new(struct td_loop *l, const struct td_aws_config *c, char *why, size_t cap);
struct td_aws *td_aws_ref(struct td_aws *a);
void td_aws_free(struct td_aws *a);
/* The configuration is read anew: whatever keys are kept on this loop, they are looked for again before their next use.
 * Those that are there still hold when no other ones can be had. */
void td_aws_reload(struct td_loop *l);
/* Do both lead to the same control API and message gateway?  Then a session of one is known to the other. */
bool td_aws_same_service(struct td_aws *a, struct td_aws *b);
const char *td_aws_region(const struct td_aws *a);
/* service: "ssm", "ssmmessages", "kms", "sts", "ecs".  An https URL without trailing slash: of several the one in use.
 */
const char *td_aws_endpoint(struct td_aws *a, const char *service);
/* Of several the i-th, in the order of the list; NULL behind the last. */
const char *td_aws_endpoint_at(struct td_aws *a, const char *service, unsigned i);
bool td_aws_has_endpoint(struct td_aws *a, const char *service, const char *url); /* by host and port */
/* Something else than a call has shown that it is not to be had: it is passed over for a while. */
void td_aws_url_failed(struct td_aws *a, const char *url, const char *why);
/* [{url, in_use, error}], for status; and how often another one had to be taken. */
void td_aws_put_endpoints(struct td_aws *a, const char *service, struct tnl_jw *w);
uint64_t td_aws_endpoint_moves(struct td_aws *a, const char *service);
struct tnl_tls_ctx *td_aws_tls(struct td_aws *a);
/* fn for each that is in one of the shared files. */
void td_aws_each_profile(void (*fn)(void *ctx, const char *name), void *ctx);
bool td_aws_has_profile(const char *name);				 /* in one of the shared files */
const struct td_proxy *td_aws_proxy(struct td_aws *a, const char *host); /* after NO_PROXY; NULL: direct */
bool td_aws_is_amazon(struct td_aws *a);				 /* is the control API AWS's own? */
/* Is this StreamUrl fit to receive a token? *fault on false. */
bool td_aws_stream_url_ok(struct td_aws *a, const char *url, const char **fault);
/* Where to call a StreamUrl: with ssmmessages_endpoint set its host takes the place of AWS's public one. Heap. */
char *td_aws_stream_route(struct td_aws *a, const char *url);
bool td_aws_url_presigned(const char *url); /* it is signed already, in its query */

/* --- credentials --- */
enum td_credentials_state {
	TD_CREDENTIALS_OK,
	TD_CREDENTIALS_PENDING,
	TD_CREDENTIALS_NONE,
	TD_CREDENTIALS_NEEDS_LOGIN,
	TD_CREDENTIALS_ERROR
};
/* Keys valid during the call (copy), or NULL, what became of them, and one line: cause and cure. */
typedef void td_credentials_fn(void *ctx, const struct tnl_sigv4_keys *keys, enum td_credentials_state st,
			       const char *why);
struct td_credentials_request;
/* Keys that are kept and renewed ahead of their end; force: those that are there were refused, other ones are looked
 * for.  fn is called once, from the loop, and the request is gone then; `a` must live until that, or until it is
 * cancelled.  NULL: no memory. */
struct td_credentials_request *td_credentials_ask(struct td_aws *a, bool force, td_credentials_fn *fn, void *ctx);
void td_credentials_cancel(struct td_credentials_request *r);
/* Unix seconds at which its keys end; 0: they do not. */
uint64_t td_credentials_expire(const struct td_aws *a);
const char *td_credentials_origin(const struct td_aws *a); /* where they come from, for people: "profile ops" */
/* What the last search gave, for status; PENDING before the first.  *why: one line, "" when OK.  While a person has to
 * log in (NEEDS_LOGIN) it looks again by itself, every 2 to 60 s. */
enum td_credentials_state td_credentials_last(const struct td_aws *a, const char **why);

/* A digest of the environment's variables that say where keys, region and endpoints come from: two processes with the
 * same one, and the same block, act for the same account. */
void td_aws_environment_digest(char hex[65]);

/* --- signed calls --- */
struct td_aws_reply {
	/* 0; TNL_EAUTH (credentials), TNL_EUNREACH or TNL_ETIMEOUT (network, after retries), TNL_EREFUSED (API error)
	 */
	int err;
	char type[96]; /* "TargetNotConnected", … without prefix */
	/* With TNL_EAUTH: NEEDS_LOGIN when only a person can help, else NONE or ERROR. */
	enum td_credentials_state cred;
	const char *text; /* for people, raw from the peer: escape */
	int status;
	const char *endpoint;	     /* that has answered, or was asked last; NULL: none was */
	const struct tnl_json *json; /* parsed body (borrowed) or NULL (XML bodies) */
	const uint8_t *body;
	size_t body_len;
};
struct td_aws_call;
typedef void td_aws_fn(void *ctx, const struct td_aws_reply *r);
/* JSON 1.1 call: target "AmazonSSM.StartSession", service "ssm". Retries throttling, 5xx and network
 * errors with back-off up to `attempts`; credentials that are refused (expired, unknown, of another signature) are
 * looked for anew once. */
struct td_aws_call *td_aws_json(struct td_aws *a, const char *service, const char *target, const char *body, size_t len,
				int attempts, td_aws_fn *fn, void *ctx);
/* Channel creation: POST path on ssmmessages, one attempt. */
struct td_aws_call *td_aws_post(struct td_aws *a, const char *service, const char *path, const char *body, size_t len,
				td_aws_fn *fn, void *ctx);
void td_aws_call_cancel(struct td_aws_call *c);
bool td_aws_throttled(const char *type); /* a refusal that patience cures; type as in td_aws_reply */

/* --- the three session calls --- */
struct td_session_grant {
	char *session_id, *token, *stream_url;
};
void td_session_grant_fini(struct td_session_grant *g); /* wipes the token */
/* TNL_ESYNTAX without a session id, TNL_ENOMEM; the others may be NULL. */
int td_session_grant_parse(const struct tnl_json *j, struct td_session_grant *g);
/* ResumeSession or TerminateSession: target "AmazonSSM.ResumeSession", as td_aws_json. */
struct td_aws_call *td_session_call(struct td_aws *a, const char *target, const char *session_id, int attempts,
				    td_aws_fn *fn, void *ctx);
/* OpenSessionLink of our own gateway: a token for a further link of the session; tried once. */
struct td_aws_call *td_session_link_call(struct td_aws *a, const char *session_id, unsigned link, td_aws_fn *fn,
					 void *ctx);
/* host, reason, command (ending in NULL) may be NULL, document too: the one that fits; port 0: none. */
int td_start_session_body(struct tnl_buf *b, const char *target, const char *document, const char *host, uint16_t port,
			  uint16_t local_port, const char *reason, const char *const *command);

#endif
