/* Inside of a client: client.c (calls, channel, end), target.c (whom it is for), events.c (what happens on the
 * session), links.c (further links through the gateway) and direct.c (its direct link). */
#ifndef TD_CLIENT_INTERNAL_H
#define TD_CLIENT_INTERNAL_H
#include "lib/enc.h"
#include "tunneld/aws/channel_link.h"
#include "tunneld/aws/target.h"
#include "tunneld/client/client.h"
#include "tunneld/client/crowd.h"
#include "tunneld/net/direct_dial.h"

#define MOD "client"
enum { TD_CLIENT_TARGET = 404 };

/* Further links (links.c). */
struct td_client_opening { /* of one */
	struct td_client *c;
	struct td_aws_call *call;
	struct td_channel_link *link;
};
struct td_client_links {
	unsigned want; /* links in all, the main one included */
	struct td_client_opening opening[TD_PUMP_LINKS];
	struct td_timer timer;
	struct td_backoff backoff; /* while the gateway has too many calls */
	uint64_t not_before;	   /* monotonic; the next of them */
	uint64_t bulk_at, full_at; /* the latest that was told; of a full path, 0: never */
	struct td_crowd_member crowd;
	uint64_t least_rtt, least_of; /* of the channel, 0: not known; since which main link was up */
	bool refused;		      /* the gateway does not know of them */
};

/* Which of its targets it is at (target.c). */
struct td_client_find {
	const char *rest; /* of the list, behind what is tried now */
	const char *at;	  /* NULL: it is at the beginning */
	size_t n;
	struct td_target_request *ask;
	unsigned asked;		   /* look-ups of this entry */
	char id[TD_CLIENT_TARGET]; /* that StartSession is called for, or was */
	char tried[TD_CLIENT_TARGET * 4];
};

enum td_client_direct_state {
	TD_CLIENT_DIRECT_OFF, /* not agreed on, or not permitted */
	TD_CLIENT_DIRECT_WAITING,
	TD_CLIENT_DIRECT_ASKED,
	TD_CLIENT_DIRECT_DIALING,
	TD_CLIENT_DIRECT_UP
};
struct td_client_direct {
	enum td_client_direct_state state;
	struct td_direct_dial *dial;
	struct td_timer timer; /* when to ask again; of an answer that does not come */
	struct td_backoff backoff;
	uint64_t up_at;
	char error[200]; /* of the last attempt */
};

struct td_client {
	struct td_loop *loop;
	struct td_client_config cfg; /* strings are ours */
	const struct td_client_cb *cb;
	void *ctx;
	enum td_client_state state;
	struct td_session_grant grant;
	char client_id[TNL_UUID_STR];
	struct td_pump *pump; /* from the grant on */
	struct td_aws_call *call, *kms;
	struct td_channel_link *link; /* while it opens; then it is the pump's */
	struct td_client_find find;
	struct td_client_links more;
	struct td_backoff backoff;
	struct td_timer retry;
	uint64_t link_up_at, started_at, state_at;
	uint64_t progress; /* td_pump_progress when the link came */
	unsigned resumes;  /* that succeeded */
	struct td_client_direct direct;
	char last_error[300]; /* why it is not up, "" when it is */
	bool was_ready, was_linked, needs_login, tried_once_more;
};

void td_client_set_state(struct td_client *c, enum td_client_state st);
void td_client_fail(struct td_client *c, int err, const char *type, const char *why);
void td_client_note(struct td_client *c, const char *what, const char *why); /* the last error */
void td_client_resume_later(struct td_client *c);
void td_client_tell_ready(struct td_client *c);
void td_client_tell_ended(void *c);		   /* a timer's callback */
bool td_client_make_pump(struct td_client *c);	   /* once there is a grant */
void td_client_start_session(struct td_client *c); /* for find.id */
/* A call before there is a session was refused; what: its name. */
void td_client_start_refused(struct td_client *c, const char *what, const struct td_aws_reply *r);
/* target.c */
void td_client_find(struct td_client *c); /* an id for the entry of the list that it is at, then StartSession */
/* What was found is not connected. true: another one is tried; false: there is none, and it is at the beginning again.
 */
bool td_client_find_next(struct td_client *c);
void td_client_find_cancel(struct td_client *c);
void td_client_links_init(struct td_client *c);
void td_client_links_ready(struct td_client *c);
void td_client_links_bulk(struct td_client *c, enum td_bulk kind); /* of either direction */
/* How many are to be there, of `wanted` so far and `up`; full: an end has just said that its path is. */
unsigned td_client_links_for(enum td_bulk kind, unsigned wanted, unsigned up, bool full, unsigned busy);
/* OpenSessionLink will never be answered: the gateway does not know it, or does not permit it. */
bool td_client_links_refused(const struct td_aws_reply *r);
void td_client_links_lost(struct td_client *c, unsigned index);
void td_client_links_cancel(struct td_client *c); /* those that are open stay */

/* direct.c */
void td_client_direct_init(struct td_client *c);
void td_client_direct_stop(struct td_client *c);
/* The handshake is done. true: the owner hears of it now; else when the direct link is up, or that it has failed. */
bool td_client_direct_ready(struct td_client *c);
void td_client_direct_word(struct td_client *c, const struct tnl_direct *d);
void td_client_direct_lost(struct td_client *c, int err, const char *why);
/* Does the session go on without the gateway's link? */
bool td_client_direct_carries(const struct td_client *c);

#endif
