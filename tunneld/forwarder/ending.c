/* Ends of sessions, as far as the API has to hear of them: the TerminateSession calls under way, and the ledger of what
 * has not been terminated, which the next start sweeps. */
#include "tunneld/forwarder/internal.h"

#include "lib/alloc.h"
#include "tunneld/base/log.h"
#include "tunneld/client/terminate.h"

#include <string.h>

struct ending {
	struct tnl_list node; /* forwarder->endings */
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
	td_soon_do(&f->settle);
}

void fwd_ending_start(struct td_forwarder *f, struct td_aws *aws, const char *session_id)
{
	struct ending *e = tnl_calloc(1, sizeof(*e));

	if (!e)
		return;
	e->f = f;
	tnl_list_push_back(&f->endings, &e->node);
	e->call = td_terminate_start(aws, session_id, on_terminated, e);
	if (!e->call)
		ending_free(e);
}

/* Unanswered: the ledger keeps them for the next start. */
void fwd_endings_cancel(struct td_forwarder *f)
{
	while (!tnl_list_empty(&f->endings)) {
		struct ending *e = tnl_container_of(f->endings.next, struct ending, node);
		td_terminate_cancel(e->call);
		ending_free(e);
	}
}

/* --- what an earlier run left behind ---------------------------------------------------------- */

/* The tunnel of that name, else any: its credentials are the best guess. */
static struct fwd_group *group_for(struct td_forwarder *f, const char *name)
{
	struct fwd_group *any = NULL;
	tnl_list_foreach(it, &f->tunnels) {
		struct fwd_tunnel *t = tnl_container_of(it, struct fwd_tunnel, node);
		if (strcmp(t->cfg->name, name) == 0)
			return t->group;
		any = t->group;
	}
	return any;
}

static void end_left_behind(void *ctx, const char *session_id, const char *tunnel)
{
	struct td_forwarder *f = ctx;
	struct fwd_group *g = group_for(f, tunnel);

	if (!g)
		return; /* kept for a start that has a tunnel */
	td_info(FWD_MOD, session_id, "ending a session that an earlier run left behind tunnel=%s", tunnel);
	fwd_ending_start(f, g->aws, session_id);
}

void fwd_ledger_open(struct td_forwarder *f, const char *state_dir)
{
	struct td_ledger_config c = {.dir = state_dir,
				     .name = "sessions",
				     .module = FWD_MOD,
				     .risk = "a crash would leave sessions behind"};
	f->ledger = td_ledger_new(f->loop, &c);
	td_ledger_each(f->ledger, end_left_behind, f);
}
