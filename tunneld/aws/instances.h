/* Which instances there are: DescribeInstanceInformation, and ListTasks with DescribeTasks for those of ECS. */
#ifndef TD_AWS_INSTANCES_H
#define TD_AWS_INSTANCES_H
#include "lib/target.h"
#include "tunneld/aws/aws.h"

/* Texts are never NULL, and raw: escape them.  tags: KEY=VALUE, one a line. */
struct td_instance {
	char *id, *name, *computer, *tags, *platform, *version, *status;
	uint64_t since_ms; /* when it was registered or started, else seen last; 0: not told */
	bool online;
};
struct td_instances {
	struct td_instance *v;
	size_t n;
	bool more; /* there are others: the search ends after 40 pages, or 4,000 of them */
};
/* call: the one that ended it.  r: its answer, r->err 0 when all went well; list is empty else. */
typedef void td_instances_fn(void *ctx, const char *call, const struct td_aws_reply *r, struct td_instances *list);
struct td_instances_search;
/* t NULL: all of them.  online_only: those that are.  fn may take what is in *list (and zero it).  Once, from the loop;
 * then it is gone.  NULL: no memory. */
struct td_instances_search *td_instances_search(struct td_aws *a, const struct tnl_target *t, bool online_only,
						td_instances_fn *fn, void *ctx);
void td_instances_cancel(struct td_instances_search *s);
void td_instances_fini(struct td_instances *list);

#endif
