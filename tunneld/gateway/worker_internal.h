/* Inside of the gateway: its workers and its counters.
 *
 * Calls, control channels, the store, tokens, timers of sessions are the main loop's.  A data channel whose token was
 * verified goes to the worker of its session (gw_link_move), both ends to the same one; from then on frames are read,
 * relayed and written there, in a thread of its own.  Each worker has one lock, which it has but while it sleeps
 * (tunneld/base/worker.h), so that a frame costs none.
 *
 *   main loop → worker   gw_worker_hold before it touches what a worker may be at: queues, links, times and pauses of
 *                        a session.  What only the main loop writes it reads without.  The functions of link.c,
 *                        relay.c and session.c see to it themselves.
 *   worker → main loop   never touches what is the main loop's.  What a frame or a broken link leads to beyond the
 *                        relay is put down in its object and mailed (gw_worker_mail); the main loop takes it with the
 *                        worker held.  Whoever frees the object takes the mail back.
 *
 * Counters are atomic; what is counted for each frame is so for each worker.  With one worker there is no thread: the
 * main loop is its own. */
#ifndef TD_GATEWAY_WORKER_INTERNAL_H
#define TD_GATEWAY_WORKER_INTERNAL_H
#include "tunneld/base/worker.h"

struct td_gateway;
enum gw_counter {
	GW_C_API_CALLS,
	GW_C_API_ERRORS,
	GW_C_HTTP_REFUSED,
	GW_C_AUTH_MISSING,
	GW_C_AUTH_MALFORMED,
	GW_C_AUTH_UNKNOWN_KEY,
	GW_C_AUTH_SIGNATURE,
	GW_C_AUTH_CLOCK,
	GW_C_AUTH_DENIED,
	GW_C_TOKENS_ISSUED,
	GW_C_TOKENS_USED,
	GW_C_TOKENS_REFUSED,
	GW_C_LINKS_OPENED,
	GW_C_LINKS_REPLACED,
	GW_C_LINKS_BROKEN,
	GW_C_FRAMES_REFUSED,
	GW_C_FRAMES_IGNORED,
	GW_C_FRAMES_RELAYED,
	GW_C_BYTES_RELAYED,
	GW_C_READ_PAUSES,
	GW_C_CLIENT_HOLDS,
	GW_C_SESSIONS_STARTED,
	GW_C_SESSIONS_RESUMED,
	GW_C_SESSIONS_RESTORED,
	GW_C_SESSIONS_ENDED,
	GW_C_IDLE_TIMEOUTS,
	GW_C_MAX_DURATIONS,
	GW_C_AGENTS_LOST,
	GW_C_LIMIT_SESSIONS,
	GW_C_LIMIT_FAIR_SHARE,
	GW_C_LIMIT_USER_SESSIONS,
	GW_C_LIMIT_INSTANCE_SESSIONS,
	GW_C_LIMIT_USER_RATE,
	GW_C_LIMIT_INSTANCE_RATE,
	GW_C_LIMIT_USER_CALLS,
	GW_C_LIMIT_INSTANCE_CALLS,
	GW_C_LIMIT_USER_BANDWIDTH,
	GW_C_LIMIT_INSTANCE_BANDWIDTH,
	GW_C_LIMIT_DESCRIPTORS,
	GW_C_LIMIT_UNFINISHED_REQUESTS,
	GW_C_LIMIT_UNVERIFIED_LINKS,
	GW_C_LIMIT_UNREAD_PONGS,
	GW_C_LIMIT_USER_MEMORY,
	GW_C_LIMIT_INSTANCE_MEMORY,
	GW_C_MEMORY_ENDED,
	GW_C_DIRECT_LINKS,
	GW_C_COUNT
};

struct gw_mail { /* zero: never initialised, cancelling is fine */
	struct tnl_list node;
	bool pending;
	void (*take)(void *arg); /* on the main loop */
	void *arg;
};

struct gw_worker {
	struct td_gateway *g;
	struct td_worker *w; /* NULL: the main loop */
	struct td_loop *l;
	struct tnl_list mails;
	struct gw_mail crowded;	       /* memory for owners is spent */
	unsigned links;		       /* the main loop's to count */
	uint64_t frames, bytes, to[2]; /* relayed; bytes to clients, to agents */
};
/* n 1: none. -1: *why. */
int gw_workers_start(struct td_gateway *g, unsigned n, char *why, size_t cap);
void gw_workers_stop(struct td_gateway *g); /* their threads */
void gw_workers_free(struct td_gateway *g);
void gw_workers_hold(struct td_gateway *g);		  /* all of them */
struct gw_worker *gw_worker_choose(struct td_gateway *g); /* for a session */
void gw_worker_mail(struct gw_worker *k, struct gw_mail *m, void (*take)(void *arg), void *arg);
void gw_mail_cancel(struct gw_mail *m);
void gw_worker_crowded(struct gw_worker *k);

static inline void gw_worker_hold(const struct gw_worker *k)
{
	if (k->w)
		td_worker_hold(k->w);
}

/* Of a number that one thread writes at a time. */
static inline void gw_add(uint64_t *v, uint64_t n)
{
	__atomic_store_n(v, __atomic_load_n(v, __ATOMIC_RELAXED) + n, __ATOMIC_RELAXED);
}

void gw_count(struct td_gateway *g, enum gw_counter c);
uint64_t gw_counted(const struct td_gateway *g, enum gw_counter c);
uint64_t gw_relayed(const struct td_gateway *g, bool to_agents); /* bytes */

#endif
