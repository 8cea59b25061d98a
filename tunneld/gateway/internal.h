/* Inside of the gateway: what its files share.  Nobody else includes this.
 *
 * The files from the lowest to the highest.  Each calls only those before it; what a lower one has to tell a higher one
 * goes through a callback that was set when the two met (a link's gw_link_cb, a call's `again`, a td_soon, a timer).
 *
 *   store_*, store        session records on the disk, off the loop, or on a server that several nodes share
 *   words                 what nodes say to each other
 *   documents             what a session can be started with
 *   token                 tokens of new links                    queue      frames that wait for a link
 *   keys                  access keys and their marks            rights     what a user may do
 *   worker                loops beside the main one, on which links are relayed
 *   audit                 what the audit log has                 auth       who signed a request
 *   call, page            one JSON call: arguments, answer, errors; answers in pages
 *   link                  a WebSocket: token frame, owner, end
 *   instance              who is configured, their control channels
 *   share, quota, split   what users and instances may take, and what of it a node gives
 *   rate                  how often calls may come
 *   direct                links past the relay: whether, and what the ends say of them
 *   relay                 frames from end to end of a session
 *   record                a session as a store record            session    sessions: states, timers, how they end
 *   settle                tokens that the store knows of         place      places for sessions, on all nodes together
 *   room                  what ends when memory is short
 *   arrival               calls that wait for an instance after the start
 *   control               what is said on control channels       channel    making and opening channels
 *   grant                 what a client is granted
 *   kms, api_elsewhere, api_session, api_list, api_info, api_agent   the operations
 *   api                   their table, dispatch                  status     what operators see
 *   peer, ferry, route    links to other nodes, for data channels that came to the wrong one
 *   drain                 the end: links are sent away
 *   hear                  what other nodes say, and what they and the store are told anew
 *   gateway               setup, routing, reload
 *
 * State of a session:   CONNECTING ─ both ends came once ─► CONNECTED ─ end ─► ENDED
 *                            └──────────────── end ──────────────────────────────┘
 * Its links come and go without changing it.  A client that comes with its token after the end hears how it ended, and
 * nothing else. */
#ifndef TD_GATEWAY_INTERNAL_H
#define TD_GATEWAY_INTERNAL_H
#include "lib/json.h"
#include "lib/list.h"
#include "lib/map.h"
#include "lib/message.h"
#include "tunneld/base/audit.h"
#include "tunneld/base/log.h"
#include "tunneld/base/memory.h"
#include "tunneld/gateway/gateway.h"
#include "tunneld/gateway/store.h"
#include "tunneld/gateway/worker_internal.h"
#include "tunneld/net/http_server.h"
#include "tunneld/net/peers.h"

#define GW_TOKEN_STR 44u		 /* base64 of 32 bytes */
#define GW_TOKENS 4u			 /* unused ones kept of the main link of each end; the oldest goes first */
#define GW_HOLD_NS (50 * TD_MS)		 /* a stock client after HandshakeComplete */
#define GW_LINKS 8u			 /* of one end of a session */
#define GW_TOKEN_FRAME_MAX (4u * 1024)	 /* nothing longer is read before the token */
#define GW_COMPLAINTS_MAX 100u		 /* messages of a link that are refused before it is closed */
#define GW_REFUSALS 48u			 /* kinds of refusals that are counted apart */
#define GW_TOKEN_FRAME_NS (10 * TD_SEC)	 /* from the upgrade to the token frame */
#define GW_START_NS (60 * TD_SEC)	 /* from StartSession to the agent's data channel */
#define GW_AGENT_LOST_NS (30 * TD_SEC)	 /* control channel up, data channel missing: the agent forgot it */
#define GW_RESTART_NS (1 * TD_SEC)	 /* the same when the agent said that it has just started */
#define GW_RESTART_SEEN_NS (60 * TD_SEC) /* by then a dead agent's old link has been noticed */
#define GW_LINGER_NS (2 * TD_SEC)	 /* links after channel_closed */
#define GW_LAST_WORDS_NS (30 * TD_SEC)	 /* … while the client still reads what waits for it */
#define GW_POLL_NS (20 * TD_SEC)	 /* GetMessages */
#define GW_ARRIVAL_CALLS 64u		 /* of one user, that wait for an instance at the same time */
#define GW_HISTORY_MAX 1000u		 /* ended sessions that DescribeSessions still knows */
#define GW_HISTORY_MS (30ull * 24 * 3600 * 1000)
#define GW_ID_MAX 400u /* of targets, as in the configuration */
#define GW_SESSION_ID_MAX 128u
#define GW_KEEP_NS (3600 * TD_SEC) /* a record in a shared store, beyond its idle time */
#define GW_WORDS_MAX (256u * 1024)
#define GW_WORDS_NS (2 * TD_SEC) /* for a node's answer, and for an agent that goes from one node to another */
#define GW_GOING_TEXT "gateway is shutting down"
#define GW_IDLE_TEXT "Your session timed out due to inactivity and has been terminated."

struct gw_call;
struct gw_instance;
struct gw_kms;
struct gw_link;
struct gw_peers;
struct gw_session;
struct gw_share;

/* --- the gateway itself (gateway.c, status.c) ---------------------- */

/* How long after the start, and how long at most, a call waits for an instance that has not come yet (arrival.c). */
struct gw_arrival {
	uint64_t unknown_until, known_until; /* monotonic; known: a session record names it */
	uint64_t unknown_wait, known_wait;
	struct td_soon soon; /* an instance has come */
};

/* Refused calls and requests, by the type of the error or the HTTP status. */
struct gw_refusals {
	struct {
		char kind[48];
		uint64_t n;
	} v[GW_REFUSALS];
	unsigned n;
};

/* Refusals as the audit log has them: so many lines in a second, then a number. */
struct gw_lines {
	uint64_t second, more;
	unsigned n;
};

enum gw_share_kind { GW_SHARE_USER, GW_SHARE_INSTANCE, GW_SHARES };
enum gw_drain { GW_D_NONE, GW_D_FINISHING, GW_D_SENDING, GW_D_CLOSING, GW_D_DONE };
struct td_gateway {
	struct td_loop *l;
	const struct td_config *cfg;
	struct td_http_server *httpd;
	struct gw_peers *peers; /* NULL: peer_listen is not set */
	struct tnl_tls_ctx *tls;
	struct td_store *store;
	bool shared;		    /* with other nodes */
	char node[TD_NODE_MAX + 1]; /* "": we have no name */
	struct tnl_list questions;  /* to other nodes, without an answer */
	int64_t questions_asked;
	struct td_timer tell;		       /* hear.c: what the store is to know goes there in parts */
	unsigned told;			       /* how often it was begun */
	void (*stopped)(struct td_gateway *g); /* another gateway runs under our name */
	struct td_memory_waiter room;
	struct tnl_map *shares[GW_SHARES]; /* by name */
	struct tnl_map *afar;		   /* rate.c: calls about sessions of other nodes, by end and id */
	size_t afar_next;		   /* … how many there may be before those at rest are forgotten */
	struct td_soon make_room;
	struct td_soon go_on;		      /* links that were not read for a while may be read again */
	uint64_t room_at;		      /* monotonic; not before */
	struct gw_kms *kms;		      /* NULL: no key file */
	char kms_arn[256];		      /* key id that sessions are encrypted with; "": none */
	char public_url[320];		      /* wss://host[:port]; "": from the Host header */
	struct tnl_map *keys;		      /* access key id → struct gw_principal */
	struct td_audit *audit;		      /* NULL: none */
	struct gw_lines strangers;	      /* refusals of who has no key */
	struct tnl_map *marks;		      /* gw_principal.mark → the same */
	struct tnl_map *instances, *sessions; /* by id */
	struct tnl_map *handed;		      /* links that another node has handed on to us, by the number of that */
	struct td_peers *pending;	      /* upgrades without a verified token */
	struct tnl_list active, history, links, calls;
	struct tnl_list unwritten;  /* sessions whose records the store could not write */
	struct td_timer again;	    /* it is tried */
	struct tnl_list unverified; /* links that wait for their token, the oldest first */
	struct gw_arrival arrival;
	size_t nactive, nhistory;
	uint64_t counters[GW_C_COUNT]; /* gw_count, gw_counted */
	struct gw_refusals refused;
	struct gw_worker here;	   /* the main loop */
	struct gw_worker *workers; /* beside it */
	unsigned nworkers, next_worker;
	enum gw_drain drain;
	uint64_t drain_until; /* monotonic; of the state */
	uint64_t drain_end;   /* of the whole */
	uint64_t drain_next;  /* when the next link is sent away */
	struct td_timer drain_timer;
	void (*drained)(void *);
	void *drained_ctx;
};

extern const char *const gw_counter_names[GW_C_COUNT];

/* --- documents.c --------------------------------------------------------------- */
struct gw_doc;
struct gw_doc_prefs {
	const char *kms_key_id; /* "": none */
};
const struct gw_doc *gw_doc_find(const char *name /* NULL or "": the default one */);
const char *gw_doc_name(const struct gw_doc *d);
bool gw_doc_is_port(const struct gw_doc *d);
/* Parameters of StartSession ({"name": ["value"]}, may be NULL) checked and, with defaults, written as
 * {"name":"value"}. */
int gw_doc_parameters(const struct gw_doc *d, const struct tnl_json *in, struct tnl_buf *out, char *why, size_t cap);
int gw_doc_content(const struct gw_doc *d, const struct gw_doc_prefs *p, struct tnl_buf *out);

/* --- token.c -------------------------------------------------------------------- */
#define GW_MARK 16u
/* The keys that a user or an instance has now, each as its mark. */
struct gw_marks {
	uint8_t v[TD_KEYS_MAX][GW_MARK];
	unsigned n;
};
/* Granted to a key: the hash is of its mark and the token, so that it is void when the key has gone. */
struct gw_token {
	uint8_t hash[32];
	uint64_t expires_ms; /* wall */
	bool bound;
	unsigned link; /* of the end's links; kept in the store for link 0 only */
	char client_id[TD_STORE_CLIENT_ID];
};
struct gw_tokens {
	struct gw_token v[GW_LINKS - 1]; /* GW_TOKENS of the main link, one for each further one */
	unsigned n;
	unsigned used; /* link of the one that was used last */
};
void gw_token_new(struct td_gateway *g, struct gw_tokens *t, const uint8_t mark[GW_MARK],
		  const char *client_id /* NULL: not bound */, char out[GW_TOKEN_STR + 1]);
/* The same for a further link, in place of an older one for it. */
void gw_token_new_link(struct td_gateway *g, struct gw_tokens *t, const uint8_t mark[GW_MARK], const char *client_id,
		       unsigned link, char out[GW_TOKEN_STR + 1]);
/* Uses it up: 0, and t->used is its link, or *field says why not ("token", "token expiry", "ClientId"). */
int gw_token_use(struct td_gateway *g, struct gw_tokens *t, const struct gw_marks *owner, const char *token,
		 const char *client_id, uint8_t mark[GW_MARK] /* of the key that it was granted to */,
		 const char **field);
void gw_tokens_bind(struct gw_tokens *t, const char *client_id);		 /* all of them, from now on */
bool gw_tokens_drop_expired(struct gw_tokens *t, uint64_t wall_ms);		 /* was there one? */
uint64_t gw_tokens_deadline(const struct gw_tokens *t, const struct td_loop *l); /* of the next that expires */

/* --- queue.c -------------------------------------------------------------------- */
struct gw_chunk;
struct gw_queue {
	struct gw_chunk *first, *last;
	size_t bytes, held; /* of frames; of memory */
	unsigned frames;
};
int gw_queue_put(struct gw_queue *q, const void *p, size_t n); /* TNL_ENOMEM */
const uint8_t *gw_queue_peek(struct gw_queue *q, size_t *n);   /* NULL: empty */
void gw_queue_pop(struct gw_queue *q);
void gw_queue_clear(struct gw_queue *q);

/* --- keys.c --------------------------------------------------------------------- */
struct gw_principal {			   /* one access key of the configuration */
	const struct td_user_config *user; /* one of the two */
	const struct td_instance_config *instance;
	const char *key_id, *secret;
	uint8_t mark[GW_MARK]; /* stands for key id and secret: another one after a change of either */
	struct gw_lines *refused;
};
int gw_keys_load(const struct td_gateway_config *c, struct tnl_map **keys, struct tnl_map **marks);
void gw_keys_free(struct tnl_map *keys, struct tnl_map *marks);
const struct gw_principal *gw_keys_by_mark(const struct td_gateway *g, const uint8_t mark[GW_MARK]); /* NULL: gone */
void gw_keys_marks(const struct td_gateway *g, const struct td_access_key keys[TD_KEYS_MAX], struct gw_marks *out);
const char *gw_keys_name(const struct gw_principal *p);	       /* of the user or instance */
const char *gw_keys_certificate(const struct gw_principal *p); /* name that its client certificate must have, or NULL */
const struct td_user_config *gw_keys_user(const struct td_gateway *g, const char *name);

/* --- auth.c --------------------------------------------------------------------- */
struct gw_refusal {
	int status;
	const char *type;
	char text[300];
};
/* 0: *who is set (also NULL with `unsigned_ok` when there is no signature); -1: *why filled, counted and logged. */
bool gw_auth_host_is_ours(const struct td_gateway *g, const struct tnl_http_head *h); /* as signatures may name us */
int gw_auth_check(struct td_gateway *g, struct td_request *r, const char *service, bool unsigned_ok,
		  const struct gw_principal **who, struct gw_refusal *why);

/* --- rights.c ------------------------------------------------------------------- */
/* What the agent is told that such a session of the user may do beside its parameters. */
struct tnl_start_grants gw_rights_grants(const struct td_user_config *u, const char *document);
bool gw_rights_target(const struct td_user_config *u, const char *target);
/* May the streams of a session of that document say themselves where they go? */
bool gw_rights_anywhere(const struct td_user_config *u, const char *document);
/* What forbids a session of that document and those parameters ("document", "port", "host"); NULL: nothing. */
const char *gw_rights_session(const struct td_user_config *u, const char *document, const char *parameters);

/* --- call.c --------------------------------------------------------------------- */
struct gw_call {	      /* one JSON call; lives until it is answered */
	struct tnl_list node; /* in g->calls */
	struct td_gateway *g;
	struct td_request *r;		/* NULL: the caller has gone */
	const char *op;			/* "StartSession" */
	const struct gw_principal *who; /* not kept over a wait */
	uint8_t mark[GW_MARK];		/* of the key that it was signed with */
	struct tnl_json *in;		/* an object */
	struct gw_session *s;		/* for those that wait for the store */
	char *token;
	char *at; /* the node of its instance; NULL: here, or not known yet */
	void (*placed)(struct gw_call *c, const char *node);
	bool admitted;	   /* on all nodes together, and counted there */
	bool asked, fresh; /* the store was; what it asks about was read from there just now */
	bool patient;	   /* waits for nothing of ours: dropped with its caller, and no reason to put off a drain */
	struct td_timer timer;
	/* for those that wait for an instance (arrival.c) */
	void (*again)(struct gw_call *);
	char *user;
	uint64_t until; /* monotonic */
};
/* Takes `in`; NULL: no memory, r and in are the caller's still. */
struct gw_call *gw_call_new(struct td_gateway *g, struct td_request *r, const char *op, const struct gw_principal *who,
			    struct tnl_json *in);
void gw_call_free(struct gw_call *c);
void gw_call_gone(struct gw_call *c);			  /* its caller hung up */
void gw_call_ok(struct gw_call *c, struct tnl_buf *body); /* answers and frees the call */
void gw_call_fail(struct gw_call *c, int status, const char *type, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void gw_refusal_count(struct td_gateway *g, const char *kind);
void gw_refusal_reply(struct td_gateway *g, struct td_request *r, const struct gw_refusal *why, bool xml);
/* A string member: NULL (and answered) when it is missing though required, no string or too long. *ok tells. */
const char *gw_call_str(struct gw_call *c, const char *key, size_t max, bool required, bool *ok);
/* false: answered */
bool gw_call_int(struct gw_call *c, const char *key, int64_t lo, int64_t hi, int64_t dflt, int64_t *out);
bool gw_call_own_instance(struct gw_call *c, const char *id); /* the signer is that instance, else answered */

/* --- audit.c --------------------------------------------------------------------- */
struct gw_denial { /* what was refused to whom; what is not known is NULL */
	const char *op, *peer, *key, *target, *document, *reason, *text;
	const struct gw_principal *who; /* that it is, or claims to be */
	bool proven;			/* by a signature */
};
void gw_audit_refused(struct td_gateway *g, const struct gw_denial *d);
void gw_audit_session(struct td_gateway *g, const char *event, const struct gw_session *s, const struct gw_call *c);
void gw_audit_session_end(const struct gw_session *s);
void gw_audit_link(struct gw_link *l, const char *event); /* "link-open", "link-end" */
void gw_audit_more(struct td_gateway *g);		  /* how many refusals were only counted, before the log goes */

/* --- link.c --------------------------------------------------------------------- */
enum gw_role { GW_CLIENT, GW_AGENT, GW_CONTROL };
enum gw_phase { GW_L_TOKEN, GW_L_OPEN, GW_L_CLOSING };
/* What its owner hears of a link, set by gw_link_upgrade and gw_link_open.  gone: it is closed or freed next, once. */
struct gw_link_cb {
	void (*message)(struct gw_link *l, uint8_t *p, size_t n); /* the token frame, then binary ones */
	void (*writable)(struct gw_link *l);			  /* of open ones */
	void (*gone)(struct gw_link *l);			  /* may be NULL */
};
struct gw_link {
	struct tnl_list node;	    /* in g->links */
	struct tnl_list unverified; /* in g->unverified, until its token is */
	struct td_gateway *g;
	struct gw_worker *worker; /* whose loop it is on */
	struct td_wslink *w;
	const struct gw_link_cb *cb;
	enum gw_phase phase;
	enum gw_role role;	  /* GW_CONTROL: control channel */
	struct gw_end *end;	  /* data channel that is open */
	unsigned index;		  /* which of its links; 0: the main one */
	struct gw_instance *inst; /* control channel that is open */
	char *id;		  /* session or instance named by the path */
	char *user, *instance;	  /* who signed the upgrade; both NULL: nobody */
	struct gw_marks keys;	  /* that it lives by: of the upgrade's signature, and of the token */
	char *key_id;		  /* of the last of them */
	const char *how;	  /* it ended */
	uint64_t opened;	  /* monotonic; its token was verified */
	uint64_t bytes;		  /* relayed on it, to its end */
	bool stock;		  /* User-Agent is not ours */
	bool paused;
	struct td_addr peer;
	uint64_t handed; /* by another node: its number in g->handed */
	unsigned complaints;
	struct td_peer pending; /* counted there until the token is verified */
	uint8_t *frame;		/* settle.c: its token frame, while the store is asked */
	size_t frame_len;
	void (*settled)(struct gw_link *l, uint8_t *p, size_t n);
	uint8_t hashes[TD_KEYS_MAX][32]; /* that the token can have */
	unsigned nhashes;
	char *grant; /* what the store says of its token, while it is asked for the session */
	struct td_timer timer;
	struct gw_mail mail; /* what was met on its worker, for the main loop */
	struct {
		bool over; /* the WebSocket is */
		int err;
		uint16_t code, close_code; /* close_code: it is to be closed */
		char *why;
		const char *reason;
		struct gw_queue words; /* messages about direct links */
	} met;
};
/* Before the upgrade. TNL_ENOMEM; TNL_ELIMIT: too many of this peer wait for their token. */
int gw_link_new(struct td_gateway *g, const struct td_request *r, enum gw_role role, const char *id,
		const struct gw_principal *who, struct gw_link **out);
void gw_link_upgrade(struct gw_link *l, struct td_request *r, const struct gw_link_cb *cb); /* may free l */
/* It lives by that one, too.  *field: why not. */
bool gw_link_add_key(struct gw_link *l, const uint8_t mark[GW_MARK], const char **field);
bool gw_link_has_keys(const struct gw_link *l); /* all that it lives by */
void gw_links_recheck(struct td_gateway *g);	/* after a reload: those whose key has gone are closed */
void gw_link_open(struct gw_link *l, const struct gw_link_cb *cb); /* its token was verified */
void gw_link_move(struct gw_link *l, struct gw_worker *k);
/* On a worker: the message is for the main loop, where cb->message gets it. */
void gw_link_hand_in(struct gw_link *l, const uint8_t *p, size_t n);
void gw_link_close(struct gw_link *l, uint16_t code, const char *reason); /* politely */
void gw_link_free(struct gw_link *l);
void gw_link_replace(struct gw_link *l, const char *reason); /* politely, and gone() is not called */
void gw_link_drop(struct gw_link *l);			     /* the same, and gone() is not called */
/* Said once for a link; one with too many is closed. */
void gw_link_complain(struct gw_link *l, const char *what, const char *field);
void gw_link_refuse_token(struct gw_link *l, const char *field);
/* A message of our own; out: 120 + n bytes. */
size_t gw_message_encode(struct td_gateway *g, uint8_t *out, enum tnl_mtype t, const void *p, size_t n);

/* --- instance.c ------------------------------------------------------------------- */
struct gw_instance {
	struct td_gateway *g;
	char *id;
	const struct td_instance_config *cfg; /* NULL: no longer configured */
	struct gw_link *link;		      /* control channel */
	unsigned generation;		      /* of the control channel; 0: it has not come yet */
	bool recorded;			      /* a session record of before the start names it */
	uint64_t up_since;		      /* monotonic; of the control channel */
	char remote[TD_NODE_MAX + 1];	      /* node that has its control channel; "": none that we know of */
	uint64_t remote_since;		      /* monotonic; that we know it */
	uint64_t left_at;		      /* monotonic; that it was connected to some node, and is to none now */
	unsigned told;			      /* as in the gateway */
	unsigned replaced;		      /* how often in a row while the one before was young */
	uint64_t restarted;		      /* monotonic; the agent said that it has just started */
	struct gw_tokens tokens;
	struct gw_queue q;
	struct tnl_list sessions;
	uint64_t ping_ms, registered_ms; /* wall; 0: never */
	char *agent_version, *agent_name, *platform_type, *platform_name, *platform_version, *ip_address,
	    *computer_name;
};
int gw_instances_load(struct td_gateway *g); /* from g->cfg; keeps those that are there */
void gw_instances_free(struct td_gateway *g);
struct gw_instance *gw_instance_get(struct td_gateway *g, const char *id); /* NULL: not configured */
void gw_instance_attach(struct gw_instance *i, struct gw_link *l);	   /* its control channel is open */
void gw_instance_detach(struct gw_instance *i);
void gw_instance_send(struct gw_instance *i, enum tnl_mtype t, const void *p, size_t n); /* i NULL, or away: nothing */
void gw_instance_flush(struct gw_instance *i);

/* --- rate.c --------------------------------------------------------------------------- */
struct gw_rate {       /* a bucket that fills within a minute; zero: it is full */
	uint64_t full; /* monotonic; when it is full again */
};

/* --- share.c ---------------------------------------------------------------------- */
struct gw_share {
	struct td_gateway *g;
	enum gw_share_kind kind;
	char *name;
	unsigned sessions;  /* active ones */
	uint64_t kept;	    /* for them */
	uint64_t warned_at; /* monotonic; of its memory */
	uint64_t reached;   /* how often its memory was used up */
	/* quota.c */
	struct td_quota quota;
	uint64_t rate_at;	     /* monotonic; the start that would be on time */
	struct gw_rate calls, looks; /* rate.c */
	uint64_t bandwidth;	     /* of the quota's: what this node may give of it; 0: no limit */
	int64_t credit;		     /* of bytes */
	uint64_t filled_at, relayed;
	bool throttled;
	struct td_timer refill; /* of the main loop */
	struct gw_mail mail;	/* it is to be armed */
}; /* kept, reached, warned_at, sessions, bandwidth to throttled: atomic, its sessions may be on several workers */
bool gw_shares_init(struct td_gateway *g);
void gw_shares_load(struct td_gateway *g); /* quotas, from g->cfg */
void gw_shares_fini(struct td_gateway *g);
struct gw_share *gw_share_get(struct td_gateway *g, enum gw_share_kind kind, const char *name); /* NULL: no memory */
const char *gw_share_kind(const struct gw_share *h);
bool gw_shares_join(struct gw_session *s); /* with its owner and target; false: no memory */
void gw_shares_end(struct gw_session *s);  /* it has ended; what its client is still to read goes on counting */
void gw_shares_keep(struct gw_session *s, int64_t delta);
bool gw_share_may_keep(const struct gw_share *h);
struct gw_share *gw_shares_used_up(const struct gw_session *s); /* the one of its two that may keep no more, or NULL */
void gw_share_reached(struct gw_share *h, uint64_t now);	/* counts, and says it once a minute */

/* --- quota.c ---------------------------------------------------------------------- */
/* May the user have one more session to the instance? false: counted, *why says why not. */
bool gw_quota_admit(struct td_gateway *g, const char *user, const char *instance, char *why, size_t cap);
void gw_quota_started(struct gw_session *s);
void gw_quota_charge(struct gw_session *s, size_t n); /* n bytes were relayed */
bool gw_quota_throttles(const struct gw_session *s);  /* nothing is to be read for it now */

/* --- relay.c ---------------------------------------------------------------------- */
/* A further link of an end, between ends of our own.  What comes on link i of one end goes on by link i of the other,
 * or by any that is there; each has a queue of its own, so that one that stands still holds up no other. */
struct gw_lane {
	struct gw_link *link; /* NULL: absent */
	struct gw_queue q;
};
struct gw_end {
	struct gw_session *s;
	enum gw_role role;		      /* GW_CLIENT or GW_AGENT */
	struct gw_link *link;		      /* NULL: absent */
	bool seen;			      /* came at least once */
	uint64_t attached_at, absent_since;   /* monotonic; of the link, and since there is none */
	uint64_t hold_until;		      /* monotonic; nothing is sent to it before */
	struct gw_queue q;		      /* frames that wait for it */
	size_t kept;			      /* in its shares: of the queue and of its link */
	uint64_t waits_since;		      /* monotonic; with frames in the queue: since it took none */
	struct gw_lane *lane;		      /* GW_LINKS of them, the first is not used; NULL: it never had any */
	struct gw_tokens tokens, link_tokens; /* of the main link, of further ones */
	struct gw_rate calls, link_calls;     /* rate.c */
	char client_id[TD_STORE_CLIENT_ID];
	bool client_id_set;
	uint64_t frames, bytes; /* relayed to it */
	struct {
		bool up;
		uint64_t sent, received; /* bytes, as it says */
		uint64_t paid;		 /* monotonic; its words are paid for until then */
	} direct;
};

/* --- direct.c (before relay.c) ------------------------------------------------------ */
bool gw_direct_allowed(const struct gw_session *s);
void gw_direct_tell(struct gw_end *e);				      /* what its policy is; nothing to a stock end */
bool gw_direct_message(struct gw_end *from, const struct tnl_msg *m); /* true: it is for the other end */

/* --- relay.c, what it does ------------------------------------------------------------ */
void gw_relay_message(struct gw_link *l, uint8_t *p, size_t n);		    /* of an open data channel */
void gw_relay_flush(struct gw_end *e);					    /* as much as its main link takes */
void gw_relay_writable(struct gw_link *l);				    /* the same for any link */
int gw_relay_attach_lane(struct gw_end *e, struct gw_link *l) TNL_MUST_USE; /* a further link, of l->index */
void gw_relay_detach_lane(struct gw_end *e, unsigned index);		    /* it has gone */
void gw_relay_close_lanes(struct gw_end *e);				    /* the session is over */
void gw_relay_drop_lanes(struct gw_end *e);				    /* at once, nobody hears of it */
void gw_relay_forget(struct gw_link *l);				    /* its end forgets it, at once */
unsigned gw_relay_links(const struct gw_end *e);			    /* how many are there */
uint64_t gw_relay_waiting_bytes(const struct gw_end *e);
size_t gw_relay_waiting(const struct gw_end *e); /* frames, for all of its links */
void gw_relay_attach(struct gw_end *e, struct gw_link *l);
void gw_relay_detach(struct gw_end *e); /* its link has gone */
/* A message of our own, behind what waits. */
void gw_relay_send(struct gw_end *e, enum tnl_mtype t, const void *p, size_t n);
void gw_relay_drop(struct gw_end *e); /* what waits */
void gw_relay_room(void *g);	      /* process memory has room again */

/* --- record.c, session.c ----------------------------------------------------------- */
enum gw_session_state { GW_S_CONNECTING, GW_S_CONNECTED, GW_S_ENDED };
struct gw_session {
	struct td_gateway *g;
	struct gw_worker *worker;    /* its links are on that loop */
	struct tnl_list by_instance; /* while active */
	struct tnl_list by_age;	     /* in g->active or g->history */
	struct tnl_list unwritten;
	struct gw_instance *inst; /* NULL when ended */
	char *id, *owner, *target, *document, *parameters, *reason, *output;
	const char *status; /* for the ended */
	enum gw_session_state state;
	bool complete;	 /* agent_task_complete came */
	bool agent_lost; /* the agent's link broke since the client's attached (or before a restart) */
	bool reverse;	 /* the agent is told that it may listen for the client: decided at the start, and kept */
	bool dial;	 /* the same: that its streams may go anywhere */
	bool tell_lost;	 /* the client that is attached now is still to hear of that */
	uint64_t started_ms, ended_ms, expires_ms; /* wall */
	uint64_t started, expires, last_stream;	   /* monotonic; expires UINT64_MAX: none */
	uint64_t ended, linger_until;
	uint64_t epoch;	     /* of its ownership, where nodes share the store */
	uint64_t saved;	     /* monotonic */
	unsigned told;	     /* as in the gateway */
	unsigned shell_sent; /* generation of the control channel that carried interactive_shell */
	struct gw_end ends[2];
	struct gw_share *shares[GW_SHARES]; /* NULL: restored as ended */
	bool counted;			    /* among their sessions */
	struct td_timer timer, hold;
};
void gw_record_save(struct gw_session *s, td_store_done *fn, void *ctx);
bool gw_record_read(struct gw_session *s, const struct td_store_session *r); /* false: no memory, free it */
bool gw_record_set_texts(struct gw_session *s, const char *owner, const char *target, const char *document,
			 const char *parameters, const char *reason);

struct gw_session *gw_session_new(struct td_gateway *g, const struct td_user_config *u, struct gw_instance *i,
				  const char *document, const char *parameters, const char *reason);
/* The node that made the session's id, which is where its ends meet while that node is up; false: it names none. */
bool gw_session_id_node(const char *id, char out[TD_NODE_MAX + 1]);
struct gw_session *gw_session_get(struct td_gateway *g, const char *id);
int gw_sessions_restore(struct td_gateway *g);
void gw_session_bind_client(struct gw_session *s, const char *client_id); /* no other can have it from here on */
void gw_session_place(struct gw_session *s);	    /* a link comes: the first one chooses the worker */
void gw_session_update_state(struct gw_session *s); /* an end came: CONNECTED with the second */
void gw_session_end(struct gw_session *s, const char *status, const char *output);
void gw_session_send_farewell(struct gw_session *s); /* to a client that came after the end */
void gw_session_rearm(struct gw_session *s);
void gw_session_free(struct gw_session *s);
const char *gw_session_status(const struct gw_session *s);
void gw_sessions_recheck(struct td_gateway *g); /* after a reload: access that is gone */

/* --- room.c ------------------------------------------------------------------------- */
void gw_room_make(void *g); /* memory for owners is spent: what is unread goes */

/* --- arrival.c ---------------------------------------------------------------------- */
void gw_arrival_init(struct td_gateway *g);
/* May the call wait (again) for the instance, which is not connected?  again(c) then follows once; false: answer it. */
bool gw_arrival_wait(struct gw_call *c, const char *user, const char *instance, void (*again)(struct gw_call *c));
void gw_arrival_done(struct gw_call *c);       /* it does not wait any more */
void gw_arrival_recheck(struct td_gateway *g); /* every waiting call decides again */

/* --- control.c, channel.c ------------------------------------------------------------ */
struct tnl_open;
void gw_control_open(struct gw_link *l, const struct tnl_open *o);
void gw_control_start(struct gw_session *s); /* interactive_shell, when the control channel is up */
void gw_control_restarted(struct gw_instance *i);

void gw_channel_create(struct td_gateway *g, struct td_request *r, enum gw_role kind, const char *id);
void gw_channel_upgrade(struct td_gateway *g, struct td_request *r, enum gw_role kind, const char *id);

/* --- kms.c, api_session.c, api_info.c, api_agent.c, api.c ---------------------------- */
struct gw_kms *gw_kms_load(const char *path, const char *key_id, const char *region, char *why, size_t cap);
void gw_kms_free(struct gw_kms *k);
const char *gw_kms_arn(const struct gw_kms *k);

void gw_drain_step(void *g); /* of the timer */

void gw_api_request(struct td_gateway *g, struct td_request *r, const char *target, size_t n);

#endif
