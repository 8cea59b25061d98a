#include "tunneld/forwarder/internal.h"

#include "tunneld/base/log.h"

#include <stdio.h>
#include <string.h>

static int open_one(struct fwd_tunnel *t, char *why, size_t cap)
{
	if (!t->nlisteners && fwd_tunnel_listen(t, why, cap) < 0) {
		if (!t->closed)
			fwd_tunnel_listen_later(t, why);
		return -1;
	}
	if (t->closed)
		td_info(FWD_MOD, NULL, "tunnel opened by hand tunnel=%s", t->cfg->name);
	t->closed = false;
	fwd_probe_start(&t->probe);
	t->group->asked = t->group->cfg->session != TD_SESSION_PER_CONNECTION;
	if (fwd_tunnel_is_reverse(t))
		fwd_reverse_start(t); /* a session with connections may have stayed */
	fwd_group_serve(t->group);
	return 0;
}

static int close_one(struct fwd_tunnel *t, char *why, size_t cap)
{
	if (t->closed)
		return 0;
	td_info(FWD_MOD, NULL, "tunnel closed by hand tunnel=%s connections=%u", t->cfg->name, t->connections);
	fwd_tunnel_stop_listening(t);
	fwd_probe_stop(&t->probe);
	t->listen_error[0] = '\0';
	t->closed = true;
	t->closed_at = t->f->loop->now;
	t->group->asked = false;
	td_soon_do(&t->group->adjust);
	fwd_proxy_adjust(&t->proxy);
	return 0;
}

/* --- which of them ------------------------------------------------------------------------ */

static bool is_in_group(const struct fwd_tunnel *t, const char *group)
{
	for (int i = 0; i < t->cfg->groups.n; i++)
		if (strcmp(t->cfg->groups.v[i], group) == 0)
			return true;
	return false;
}

static bool is_meant(const struct fwd_tunnel *t, const char *name)
{
	const char *group = strncmp(name, "group:", 6) == 0 ? name + 6 : NULL;
	return !t->closing && !t->hidden && (group ? is_in_group(t, group) : td_tunnel_is_called(t->cfg, name));
}

typedef int one_fn(struct fwd_tunnel *t, char *why, size_t cap);

/* group:NAME, and the name of a range of ports, are all of them: the first that fails gives the reason, the others are
 * done nevertheless. */
static int for_name(struct td_forwarder *f, const char *name, one_fn *fn, char *why, size_t cap)
{
	char first[512] = "", text[512];
	int seen = 0, failed = 0;
	if (f->state != FWD_RUNNING) {
		snprintf(why, cap, "the forwarder is draining");
		return -1;
	}
	tnl_list_foreach(it, &f->tunnels) {
		struct fwd_tunnel *t = tnl_container_of(it, struct fwd_tunnel, node);
		if (!is_meant(t, name) || ++seen == 0 || fn(t, text, sizeof(text)) == 0)
			continue;
		if (!failed++)
			snprintf(first, sizeof(first), "%s", text);
	}
	bool group = strncmp(name, "group:", 6) == 0;
	if (!seen)
		snprintf(why, cap, "there is no tunnel %s%s", group ? "in group " : "", group ? name + 6 : name);
	else if (failed)
		snprintf(why, cap, "%s", first);
	return seen && !failed ? 0 : -1;
}

int td_forwarder_open(struct td_forwarder *f, const char *name, char *why, size_t cap)
{
	return for_name(f, name, open_one, why, cap);
}

int td_forwarder_close(struct td_forwarder *f, const char *name, char *why, size_t cap)
{
	return for_name(f, name, close_one, why, cap);
}
