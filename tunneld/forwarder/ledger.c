/* The ids of open sessions, in a file of the state directory: what a crash left
 * behind is terminated by the next start.  One line each: SESSION-ID TUNNEL-NAME.
 * The whole file is written anew at each change (it is short) and renamed into place. */
#include "tunneld/forwarder/internal.h"

#include "lib/alloc.h"
#include "tunneld/base/file.h"
#include "tunneld/base/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MOD "forwarder"
#define FILE_LIMIT (16u << 20)

struct entry {
	struct tnl_list node;
	char *id, *tunnel;
};

static bool path_of(const struct td_forwarder *f, char *out, size_t cap)
{
	return f->state_dir && snprintf(out, cap, "%s/sessions", f->state_dir) < (int)cap;
}

static void save(struct td_forwarder *f)
{
	char path[1024];
	struct tnl_buf all;

	if (!path_of(f, path, sizeof(path)))
		return;
	if (tnl_list_empty(&f->ledger)) {
		unlink(path);
		return;
	}
	tnl_buf_init(&all, FILE_LIMIT);
	tnl_list_foreach(it, &f->ledger)
	{
		struct entry *e = tnl_container_of(it, struct entry, node);
		tnl_buf_printf(&all, "%s %s\n", e->id, e->tunnel);
	}
	if (all.failed || td_file_write(path, tnl_buf_data(&all), tnl_buf_len(&all), 0) != 0)
		td_warn(MOD, NULL, "cannot write %s: %s; a crash would leave sessions behind", path, strerror(errno));
	tnl_buf_fini(&all);
}

static void later_save(void *arg)
{
	struct td_forwarder *f = arg;
	if (f->ledger_dirty)
		save(f);
	f->ledger_dirty = false;
}

static void changed(struct td_forwarder *f)
{
	if (f->ledger_dirty)
		return;
	f->ledger_dirty = true;
	td_loop_defer(f->loop, later_save, f);
}

static void entry_free(struct entry *e)
{
	tnl_list_remove(&e->node);
	tnl_free(e->id);
	tnl_free(e->tunnel);
	tnl_free(e);
}

void fwd_ledger_add(struct td_forwarder *f, const char *session_id, const struct td_tunnel_config *t)
{
	struct entry *e = tnl_calloc(1, sizeof(*e));
	if (!e)
		return;
	tnl_list_init(&e->node);
	e->id = tnl_strdup(session_id);
	e->tunnel = tnl_strdup(t->name);
	if (!e->id || !e->tunnel) {
		entry_free(e);
		return;
	}
	tnl_list_push_back(&f->ledger, &e->node);
	changed(f);
}

void fwd_ledger_del(struct td_forwarder *f, const char *session_id)
{
	tnl_list_foreach_safe(it, &f->ledger)
	{
		struct entry *e = tnl_container_of(it, struct entry, node);
		if (strcmp(e->id, session_id) == 0) {
			entry_free(e);
			changed(f);
			return;
		}
	}
}

void fwd_ledger_fini(struct td_forwarder *f)
{
	if (f->ledger_dirty)
		save(f);
	f->ledger_dirty = false; /* a save that is still queued finds nothing to do */
	tnl_free(f->state_dir);
	f->state_dir = NULL;
	while (!tnl_list_empty(&f->ledger))
		entry_free(tnl_container_of(f->ledger.next, struct entry, node));
}

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

void fwd_ledger_sweep(struct td_forwarder *f)
{
	char path[1024], *line;
	size_t n;

	if (!path_of(f, path, sizeof(path)))
		return;
	char *text = td_file_read(path, FILE_LIMIT, 0, &n, NULL), *rest = text;
	while ((line = strsep(&rest, "\n")) != NULL) {
		char *name = strchr(line, ' ');
		if (!name || name == line)
			continue;
		*name++ = '\0';
		struct fwd_group *g = group_for(f, name);
		fwd_ledger_add(f, line, &(struct td_tunnel_config){.name = name});
		if (!g)
			continue; /* kept for a start that has a tunnel */
		td_info(MOD, line, "ending a session that an earlier run left behind tunnel=%s", name);
		fwd_terminate(f, g->aws, line);
	}
	tnl_free(text);
}
