/* The other end of tunneld/forwarder/one_shot.c: a command that a running daemon serves with a session of its own. */
#ifndef TD_COMMAND_ONE_SHOT_H
#define TD_COMMAND_ONE_SHOT_H
#include "tunneld/command/foreground.h"

struct td_one_shot;
struct td_one_shot_cb {
	void (*up)(void *ctx); /* the session is there */
	/* It is over; what there is to say was said on stderr.  gone: not the command's end, the daemon's. */
	void (*ended)(void *ctx, int code, bool gone);
};
struct td_one_shot_wish {
	const char *kind; /* "connect", "listen", "use" */
	const char *host; /* of the connection */
	uint16_t port;
	const int *fds;
	int nfds, flags[2]; /* descriptors that go along; connect: their status flags */
};
/* Is there a daemon of this configuration, and does it serve this?  NULL: no (the log says why with -v). */
struct td_one_shot *td_one_shot_start(struct td_foreground *fg, const struct td_one_shot_wish *w,
				      const struct td_one_shot_cb *cb, void *ctx);
bool td_one_shot_is_served(const struct td_one_shot *o);		       /* it has not ended */
int td_one_shot_addr(const struct td_one_shot *o, int i, struct td_addr *out); /* where it listens; -1: no more */
void td_one_shot_finish(struct td_one_shot *o); /* listen: no new connections; ended() when the last has gone */
void td_one_shot_free(struct td_one_shot *o);	/* NULL is fine */

#endif
