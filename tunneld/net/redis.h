/* A connection to a Redis server that comes back by itself.  Commands go out together and are answered in order; while
 * there is no connection they wait, for as long as their own time lasts.
 *
 *   WAIT ─► DIAL ─► [ASK: a Sentinel, then DIAL] ─► GREET ─► UP        any ─ lost ─► WAIT (back-off with jitter)
 *
 * A command that was on its way when the connection broke fails: whether it was done is not known, so it is not sent
 * again.  What the server sends is bounded by lib/redis.h, what waits for it by queue_max. */
#ifndef TD_NET_REDIS_H
#define TD_NET_REDIS_H
#include "lib/redis.h"
#include "lib/tls.h"
#include "tunneld/base/loop.h"

#define TD_REDIS_ARGS_MAX 64u

struct td_redis;
struct td_redis_cb {
	void (*up)(void *ctx); /* greeted (and subscribed); what waits goes out behind what is sent in here */
	/* It was lost, or could not be made (TNL_EAUTH: user or password is wrong); it is tried again. */
	void (*down)(void *ctx, int err, const char *why);
	void (*message)(void *ctx, const char *channel, const void *p, size_t n); /* of a subscriber */
};
struct td_redis_opts {
	const struct tnl_redis_url *url; /* copied */
	struct tnl_tls_ctx *tls;	 /* for rediss://; a reference is taken */
	const char *const *channels;	 /* a subscriber's, which stay; it sends no commands */
	size_t nchannels;		 /* 0: no subscriber */
	uint64_t timeout_ns;		 /* from a command to its answer; 0: 2 s */
	size_t queue_max;		 /* bytes of commands without an answer; 0: 16 MiB */
};
/* r is valid during the call; NULL with err: TNL_ETIMEOUT (it was not sent), TNL_EIO (it may have been done). An error
 * of the server is a reply. */
typedef void td_redis_fn(void *ctx, int err, const struct tnl_redis_reply *r);

/* No callback runs inside any call of this header; after td_redis_free none does. NULL: no memory. */
struct td_redis *td_redis_new(struct td_loop *l, const struct td_redis_opts *o, const struct td_redis_cb *cb,
			      void *ctx);
/* 0: fn follows, once; TNL_ELIMIT: too much waits; TNL_ENOMEM. fn may be NULL. */
int td_redis_send(struct td_redis *c, const struct tnl_redis_arg *v, size_t n, td_redis_fn *fn, void *ctx);
/* The answers that this ctx waits for come to nobody. */
void td_redis_forget(struct td_redis *c, const void *ctx);
bool td_redis_is_up(const struct td_redis *c);
size_t td_redis_queued(const struct td_redis *c);	      /* commands without an answer */
const char *td_redis_peer(const struct td_redis *c);	      /* "HOST:PORT" that it is at, or tries */
void td_redis_reconnect(struct td_redis *c, const char *why); /* this server is no longer the right one */
void td_redis_free(struct td_redis *c);

#endif
