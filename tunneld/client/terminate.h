/* TerminateSession on its own. */
#ifndef TD_CLIENT_TERMINATE_H
#define TD_CLIENT_TERMINATE_H
#include "tunneld/aws/aws.h"

struct td_terminate;
/* done(ctx, session_id, ok) comes from the loop when it is answered or given up (2 tries), and it is gone then; ok: the
 * session is over, or nobody knows it. NULL: no memory. */
struct td_terminate *td_terminate_start(struct td_aws *aws, const char *session_id,
					void (*done)(void *ctx, const char *session_id, bool ok), void *ctx);
void td_terminate_cancel(struct td_terminate *t);

#endif
