/* Inside of the AWS client. */
#ifndef TD_AWS_INT_H
#define TD_AWS_INT_H
#include "tunneld/aws.h"

struct td_aws {
	int refs;
	struct td_loop *loop;
	char *region, *ssm, *ssmmessages, *kms;
	char *id, *secret, *token;
	char made[256];
	struct tnl_tls_ctx *tls;
};
#endif
