/* Session records of the gateway that outlive its process, behind one small
 * interface.  Writes are queued, kept in order and done off the event loop;
 * nothing that is in flight is stored, of tokens only the SHA-256.
 *
 * Two kinds: SQLite, which is one gateway's own, and Redis, which several share.  What only the latter has stands in
 * the second half: who else is there, which node owns a session, tokens that any node takes, where an instance is, how
 * many sessions a user has on all nodes, and what the nodes say to each other. */
#ifndef TD_GATEWAY_STORE_H
#define TD_GATEWAY_STORE_H
#include "lib/tls.h"
#include "tunneld/base/loop.h"

#define TD_STORE_TOKENS 8u
#define TD_STORE_CLIENT_ID 65u
/* Numbers of the records: none changes its meaning. */
#define TD_STORE_GRANT_DIAL 1u
#define TD_STORE_GRANT_REVERSE 2u

struct td_store_token {
	uint8_t hash[32];    /* SHA-256 of the token */
	uint64_t expires_ms; /* wall clock */
	uint8_t role;
	bool bound; /* client_id must match */
	char client_id[TD_STORE_CLIENT_ID];
};

struct td_store_session {
	/* NULL is written as "" */
	const char *id, *owner, *target, *document, *parameters, *reason;
	const char *client_id;	       /* of the client end; NULL: none yet */
	const char *status;	       /* "Connecting", "Connected", "Disconnected", "Terminated", "Failed" */
	const char *output;	       /* what the user was told at the end */
	uint64_t started_ms, ended_ms; /* wall clock; ended 0: active */
	uint64_t expires_ms;	       /* maximum duration; 0: none */
	uint64_t keep_ms;	       /* shared: how long the record outlives its last write */
	uint64_t grants;	       /* TD_STORE_GRANT_…: what the agent is told that it may do */
	uint64_t epoch;		       /* shared: of its ownership, counted up by who takes it over */
	unsigned ntokens;
	struct td_store_token tokens[TD_STORE_TOKENS];
};

struct td_store_stats {
	uint64_t queued, written, failed; /* records: not written yet, since the start, given up */
};

struct td_store;
/* err 0: it is on the disk; TNL_EIO: it is not (logged).  Runs on the loop, after TNL_ENOMEM inside of td_store_put. */
typedef void td_store_done(void *ctx, int err);

/* What a store says by itself, from the loop; a shared one all but the first. */
struct td_store_cb {
	/* What it was given of this session is not on the disk; also from inside of td_store_put, without memory. */
	void (*unwritten)(void *ctx, const char *session);
	/* It has (again) what it needs from us; what it has of us from before may be gone: instances, counts. */
	void (*announce)(void *ctx);
	void (*lost)(void *ctx, const char *session); /* another node owns it now */
	void (*message)(void *ctx, const char *text, size_t n);
	void (*taken)(void *ctx); /* another gateway runs under our node's name */
	void (*beat)(void *ctx);  /* every few seconds, while it is up */
};
struct td_store_opts {
	const char
	    *spec; /* "sqlite:PATH" ("sqlite::memory:": nothing outlives the process), or the URL of a Redis server */
	const char *node;	      /* shared: our name */
	const char *peer;	      /* shared: where other nodes reach us; NULL: nowhere */
	struct tnl_tls_ctx *tls;      /* for rediss:// */
	const struct td_store_cb *cb; /* NULL: not shared, and nobody to tell */
	void *ctx;
};
/* A shared one has been reached when this returns, and is held under our node's name. NULL: *why says what to do. */
struct td_store *td_store_open(struct td_loop *l, const struct td_store_opts *o, char *why, size_t cap);
/* Every record (shared: of our node's sessions that are active), before the first write. The record is valid during the
 * call. TNL_EIO. */
int td_store_load(struct td_store *s, void (*each)(void *ctx, const struct td_store_session *r), void *ctx);
/* Copies the record; fn may be NULL. */
void td_store_put(struct td_store *s, const struct td_store_session *r, td_store_done *fn, void *ctx);
void td_store_del(struct td_store *s, const char *id); /* shared: nothing, since records expire */
void td_store_stats(struct td_store *s, struct td_store_stats *out);
/* Writes what is queued, then closes. Callbacks that have not run yet never will; of a shared one: run with
 * TNL_ECLOSED. */
void td_store_close(struct td_store *s);

/* --- of a store that several nodes share ------------------------------------------------
 * Each fn runs once, from the loop, with 0 or: TNL_ETIMEOUT and TNL_EIO, the store is away; TNL_ELIMIT, too much waits
 * for it, and TNL_ENOMEM, inside of the call. */
bool td_store_is_shared(const struct td_store *s);
const char *td_store_node(const struct td_store *s);	   /* "": not shared */
bool td_store_is_up(const struct td_store *s);		   /* reached, and heard by the other nodes */
const char *td_store_peer(const struct td_store *s);	   /* "HOST:PORT" of the server; "": not shared */
void td_store_forget(struct td_store *s, const void *ctx); /* no fn with this ctx runs any more */
struct td_store_node {
	char name[40], peer[128];
};
/* The others, as they were some seconds ago; n: how many. */
const struct td_store_node *td_store_nodes(const struct td_store *s, unsigned *n);
void td_store_look_again(struct td_store *s); /* who they are now is known in a moment */

enum td_store_where {
	TD_STORE_NONE,	/* there is no such session */
	TD_STORE_ENDED, /* it is over */
	TD_STORE_OTHER, /* another node owns it, which is alive */
	TD_STORE_FREE,	/* its node is gone, or ours does not know it: it may be taken */
	TD_STORE_OURS	/* it was taken just now */
};
struct td_store_found {
	enum td_store_where where;
	const char *node, *peer;	  /* of the owner; peer "": it has no address for other nodes */
	const struct td_store_session *r; /* NULL: none */
};
typedef void td_store_find_fn(void *ctx, int err, const struct td_store_found *f);
/* TAKE: it becomes ours when it is free; TAKE_BACK: also when another node has it, which hears of it; UNITE: then only
 * when the node that made its id is not there; MAY_UNITE: FREE if that would take it. */
enum td_store_take { TD_STORE_LOOK, TD_STORE_TAKE, TD_STORE_TAKE_BACK, TD_STORE_UNITE, TD_STORE_MAY_UNITE };
void td_store_find(struct td_store *s, const char *id, enum td_store_take take, td_store_find_fn *fn, void *ctx);
/* The sessions of a user, newest first, `max` from behind `skip` of them; went: how many that were, also of those that
 * are not there any more. */
typedef void td_store_list_fn(void *ctx, int err, const struct td_store_session *v, unsigned n, unsigned went);
void td_store_list(struct td_store *s, const char *user, bool past, unsigned skip, unsigned max, td_store_list_fn *fn,
		   void *ctx);

void td_store_token_put(struct td_store *s, const uint8_t hash[32], const char *value, uint64_t ttl_ms,
			td_store_done *fn, void *ctx);
/* The value of the first of these that is there, which is then there no more; NULL: none is. */
typedef void td_store_token_fn(void *ctx, int err, const char *value, unsigned which);
void td_store_token_take(struct td_store *s, const uint8_t (*hashes)[32], unsigned n, td_store_token_fn *fn, void *ctx);

/* Instances: pairs of names and values, which stay; the name "node" is the store's. */
#define TD_STORE_FACTS 12u
struct td_store_fact {
	const char *key, *value;
};
void td_store_instance_up(struct td_store *s, const char *id, const struct td_store_fact *v, unsigned n);
void td_store_instance_down(struct td_store *s, const char *id, uint64_t ping_ms);
void td_store_instance_note(struct td_store *s, const char *id, const struct td_store_fact *v, unsigned n);
struct td_store_instance {
	const char *node; /* that has its control channel; "": none */
	struct td_store_fact v[TD_STORE_FACTS];
	unsigned n;
};
typedef void td_store_instances_fn(void *ctx, int err, const struct td_store_instance *v, unsigned n);
#define TD_STORE_ASK_MAX 50u /* instances at a time */
void td_store_instances(struct td_store *s, const char *const *ids, unsigned n, td_store_instances_fn *fn, void *ctx);

/* A place for one session more, on all nodes together. */
struct td_store_claim {
	const char *user, *instance;
	unsigned user_max, instance_max; /* 0: no limit */
	unsigned user_per_minute, instance_per_minute;
	bool here; /* the instance is connected to us */
};
enum td_store_verdict {
	TD_STORE_ADMITTED, /* and counted */
	TD_STORE_AWAY,	   /* the instance is connected to no node */
	TD_STORE_USER_MAX,
	TD_STORE_INSTANCE_MAX,
	TD_STORE_USER_RATE,
	TD_STORE_INSTANCE_RATE
};
typedef void td_store_admit_fn(void *ctx, int err, enum td_store_verdict v, const char *node /* of the instance */);
void td_store_admit(struct td_store *s, const struct td_store_claim *c, td_store_admit_fn *fn, void *ctx);
void td_store_count(struct td_store *s, const char *user, const char *instance, int delta);
/* How many sessions these users (or instances) have on all nodes; n: TD_STORE_ASK_MAX at most. */
typedef void td_store_counts_fn(void *ctx, int err, const unsigned *v, unsigned n);
void td_store_counts(struct td_store *s, bool of_instances, const char *const *names, unsigned n,
		     td_store_counts_fn *fn, void *ctx);
void td_store_count_anew(struct td_store *s); /* we have none: what follows is counted */

/* We go: our sessions may be taken over from now on, though we are alive. */
void td_store_leaving(struct td_store *s);
void td_store_look(struct td_store *s); /* who is there, soon: another node has come */

/* To one node, or to all others (node NULL). receivers 0: it is not there. */
typedef void td_store_said_fn(void *ctx, int err, unsigned receivers);
void td_store_say(struct td_store *s, const char *node, const char *text, size_t n, td_store_said_fn *fn, void *ctx);

/* --- for implementations -------------------------------------------------- */
struct td_store_ops {
	const char *scheme; /* "sqlite:" */
	void *(*open)(struct td_loop *l, const struct td_store_opts *o, char *why, size_t cap);
	int (*load)(void *impl, void (*each)(void *ctx, const struct td_store_session *r), void *ctx);
	void (*put)(void *impl, const struct td_store_session *r, td_store_done *fn, void *ctx);
	void (*del)(void *impl, const char *id);
	void (*stats)(void *impl, struct td_store_stats *out);
	void (*close)(void *impl);
};
extern const struct td_store_ops td_store_sqlite, td_store_redis, td_store_rediss;
void *td_store_impl(const struct td_store *s); /* NULL: it is not shared */

#endif
