/* The sessions that an earlier run left behind. */
#include "tunneld/forwarder/internal.h"

#include "tunneld/base/log.h"

#include <string.h>

#define MOD "forwarder"

/* The tunnel of that name, else any: its credentials are the best guess. */
static struct fwd_group *group_for(struct td_forwarder *f, const char *name)
{
	struct fwd_group *any = NULL;
	tnl_list_foreach(it, &f->tunnels)
	{
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
	td_info(MOD, session_id, "ending a session that an earlier run left behind tunnel=%s", tunnel);
	fwd_terminate(f, g->aws, session_id);
}

void fwd_ledger_open(struct td_forwarder *f, const char *state_dir)
{
	struct td_ledger_config c = {.dir = state_dir,
				     .name = "sessions",
				     .module = MOD,
				     .risk = "a crash would leave sessions behind"};
	f->ledger = td_ledger_new(f->loop, &c);
	td_ledger_each(f->ledger, end_left_behind, f);
}
