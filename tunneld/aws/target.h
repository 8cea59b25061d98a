/* From what a target says to one id.  What was found is kept for 30 s by the process; one search at a time for each
 * target and [aws] block, whoever asks. */
#ifndef TD_AWS_TARGET_H
#define TD_AWS_TARGET_H
#include "lib/target.h"
#include "tunneld/aws/aws.h"

struct td_target_query {
	const char *target; /* one, not a list */
	enum td_target_select select;
	bool fresh;	   /* search in any case: what was found is not connected */
	const char *tried; /* ids between blanks that are not to be given again; NULL: none.  Must stay. */
};
struct td_target_answer {
	int err;	  /* as of td_aws_reply; TNL_ECONF: several match, and one was asked for */
	const char *type; /* as of td_aws_reply; "TargetNotConnected": none matches */
	enum td_credentials_state cred;
	int status;
	const char *id;	  /* when err is 0 */
	const char *call; /* that gave the answer */
	const char *text; /* for people, raw */
};
typedef void td_target_fn(void *ctx, const struct td_target_answer *r);
struct td_target_request;
/* Once, from the loop; then it is gone.  NULL: no memory. */
struct td_target_request *td_target_ask(struct td_aws *a, const struct td_target_query *q, td_target_fn *fn, void *ctx);
void td_target_cancel(struct td_target_request *r);

#endif
