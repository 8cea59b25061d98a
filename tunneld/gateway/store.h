/* Session records of the gateway that outlive its process, behind one small
 * interface.  Writes are queued, kept in order and done off the event loop;
 * nothing that is in flight is stored, of tokens only the SHA-256. */
#ifndef TD_GATEWAY_STORE_H
#define TD_GATEWAY_STORE_H
#include "tunneld/base/loop.h"

#define TD_STORE_TOKENS 8u
#define TD_STORE_CLIENT_ID 65u

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
	const char *status;	       /* "Connecting", "Connected", "Terminated", "Failed" */
	const char *output;	       /* what the user was told at the end */
	uint64_t started_ms, ended_ms; /* wall clock; ended 0: active */
	uint64_t expires_ms;	       /* maximum duration; 0: none */
	unsigned ntokens;
	struct td_store_token tokens[TD_STORE_TOKENS];
};

struct td_store_stats {
	uint64_t queued, written, failed; /* records: not written yet, since the start, given up */
};

struct td_store;
/* err 0: it is on the disk; TNL_EIO: it is not (logged).  Runs on the loop, after TNL_ENOMEM inside of td_store_put. */
typedef void td_store_done(void *ctx, int err);

/* "sqlite:PATH" ("sqlite::memory:": nothing outlives the process). NULL: *why says what to do. */
struct td_store *td_store_open(struct td_loop *l, const char *spec, char *why, size_t cap);
/* Every record, before the first write. The record is valid during the call. TNL_EIO. */
int td_store_load(struct td_store *s, void (*each)(void *ctx, const struct td_store_session *r), void *ctx);
/* Copies the record; fn may be NULL. */
void td_store_put(struct td_store *s, const struct td_store_session *r, td_store_done *fn, void *ctx);
void td_store_del(struct td_store *s, const char *id);
void td_store_stats(struct td_store *s, struct td_store_stats *out);
/* Writes what is queued, then closes. Callbacks that have not run yet never will. */
void td_store_close(struct td_store *s);

/* --- for implementations -------------------------------------------------- */
struct td_store_ops {
	const char *scheme; /* "sqlite:" */
	void *(*open)(struct td_loop *l, const char *path, char *why, size_t cap);
	int (*load)(void *impl, void (*each)(void *ctx, const struct td_store_session *r), void *ctx);
	void (*put)(void *impl, const struct td_store_session *r, td_store_done *fn, void *ctx);
	void (*del)(void *impl, const char *id);
	void (*stats)(void *impl, struct td_store_stats *out);
	void (*close)(void *impl);
};
extern const struct td_store_ops td_store_sqlite;

#endif
