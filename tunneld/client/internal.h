/* Inside of a client: client.c (calls, channel, end) and events.c (what happens on the session). */
#ifndef TD_CLIENT_INTERNAL_H
#define TD_CLIENT_INTERNAL_H
#include "lib/enc.h"
#include "tunneld/aws/channel_link.h"
#include "tunneld/client/client.h"

#define MOD "client"

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
	struct td_backoff backoff;
	struct td_timer retry;
	uint64_t link_up_at, started_at, state_at;
	unsigned resumes;     /* that succeeded */
	char last_error[300]; /* why it is not up, "" when it is */
	bool was_ready, was_linked, needs_login, tried_once_more;
};

void td_client_set_state(struct td_client *c, enum td_client_state st);
void td_client_fail(struct td_client *c, int err, const char *type, const char *why);
void td_client_note(struct td_client *c, const char *what, const char *why); /* the last error */
void td_client_resume_later(struct td_client *c);
void td_client_tell_ended(void *c);	       /* a timer's callback */
bool td_client_make_pump(struct td_client *c); /* once there is a grant */

#endif
