/* The ids of open sessions, in a file of the state directory: what a crash left
 * behind is terminated by the next start.  One line each: SESSION-ID TUNNEL-NAME.
 * The whole file is written anew at each change (it is short) and renamed into place. */
#include "tunneld/forwarder/internal.h"

#include "lib/alloc.h"
#include "tunneld/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MOD "forwarder"

struct entry {
	struct tnl_list node;
	char *id, *tunnel;
};

static bool path_of(const struct td_forwarder *f, const char *suffix, char *out, size_t cap)
{
	return f->state_dir && snprintf(out, cap, "%s/sessions%s", f->state_dir, suffix) < (int)cap;
}

static void save(struct td_forwarder *f)
{
	char path[1024], tmp[1024];

	if (!path_of(f, "", path, sizeof(path)) || !path_of(f, ".new", tmp, sizeof(tmp)))
		return;
	if (tnl_list_empty(&f->ledger)) {
		unlink(path);
		return;
	}
	int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	FILE *out = fd >= 0 ? fdopen(fd, "w") : NULL;
	if (!out) {
		td_warn(MOD, NULL, "cannot write %s: %s; a crash would leave sessions behind", tmp, strerror(errno));
		if (fd >= 0)
			close(fd);
		return;
	}
	tnl_list_foreach(it, &f->ledger)
	{
		struct entry *e = tnl_container_of(it, struct entry, node);
		fprintf(out, "%s %s\n", e->id, e->tunnel);
	}
	if (fclose(out) != 0 || rename(tmp, path) != 0)
		td_warn(MOD, NULL, "cannot write %s: %s", path, strerror(errno));
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
	char path[1024], line[1024];

	if (!path_of(f, "", path, sizeof(path)))
		return;
	FILE *in = fopen(path, "re");
	if (!in)
		return;
	while (fgets(line, sizeof(line), in)) {
		line[strcspn(line, "\n")] = '\0';
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
	fclose(in);
}
