/* TerminateSession calls under way. */
#include "tunneld/forwarder/internal.h"

#include "lib/alloc.h"
#include "tunneld/base/log.h"

struct ending {
	struct tnl_list node; /* forwarder->terminating */
	struct td_forwarder *f;
	struct td_terminate *call;
};

static void ending_free(struct ending *e)
{
	tnl_list_remove(&e->node);
	tnl_free(e);
}

static void on_terminated(void *ctx, const char *session_id, bool ok)
{
	struct ending *e = ctx;
	struct td_forwarder *f = e->f;

	ending_free(e);
	if (ok)
		td_ledger_del(f->ledger, session_id);
	fwd_check_drained(f);
}

void fwd_terminate(struct td_forwarder *f, struct td_aws *aws, const char *session_id)
{
	struct ending *e = tnl_calloc(1, sizeof(*e));

	if (!e)
		return;
	e->f = f;
	tnl_list_push_back(&f->terminating, &e->node);
	e->call = td_terminate_start(aws, session_id, on_terminated, e);
	if (!e->call)
		ending_free(e);
}

/* Unanswered: the ledger keeps them for the next start. */
void fwd_endings_cancel(struct td_forwarder *f)
{
	while (!tnl_list_empty(&f->terminating)) {
		struct ending *e = tnl_container_of(f->terminating.next, struct ending, node);
		td_terminate_cancel(e->call);
		ending_free(e);
	}
}
