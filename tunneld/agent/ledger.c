/* The ids of sessions that run, in a file of the state directory: sessions that a
 * crash cut off are reported as ended by the next start, so that their clients do
 * not wait for an agent that knows nothing of them.
 *
 * "+ID" when one starts, "-ID" when its end is confirmed; written anew when it has
 * grown.  One write for all changes of a turn. */
#include "tunneld/agent/internal.h"

#include "lib/alloc.h"
#include "lib/map.h"
#include "tunneld/base/file.h"
#include "tunneld/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define COMPACT_AT (64u * 1024)
#define LINE_MAX_ 300
#define FILE_LIMIT (16 << 20)

struct ag_ledger {
	struct td_agent *a;
	char path[1024];
	int fd;
	size_t size;
	struct tnl_buf pending;
	bool queued, broken, closed;
};

static void trouble(struct ag_ledger *l, const char *what)
{
	if (!l->broken)
		td_warn(AG_MOD, NULL, "cannot %s %s: %s; sessions that a crash cuts off will end late", what, l->path,
			strerror(errno));
	l->broken = true;
}

static bool append(struct ag_ledger *l, const struct tnl_buf *b)
{
	const uint8_t *p = tnl_buf_data(b);
	size_t n = tnl_buf_len(b);
	while (n) {
		ssize_t w = write(l->fd, p, n);
		if (w < 0 && errno == EINTR)
			continue;
		if (w <= 0)
			return false;
		p += w;
		n -= (size_t)w;
	}
	return true;
}

/* What is open, and what has ended without the gateway's word for it. */
static void compact(struct ag_ledger *l)
{
	struct tnl_buf all;

	tnl_buf_init(&all, FILE_LIMIT);
	tnl_list_foreach(it, &l->a->sessions)
	    tnl_buf_printf(&all, "+%s\n", tnl_container_of(it, struct ag_session, node)->start.session_id);
	tnl_list_foreach(it, &l->a->tasks.list)
	    tnl_buf_printf(&all, "+%s\n", tnl_container_of(it, struct ag_task, node)->session_id);
	int fd = -1;
	if (!all.failed && td_file_write(l->path, tnl_buf_data(&all), tnl_buf_len(&all), 0) == 0)
		fd = open(l->path, O_WRONLY | O_APPEND | O_CLOEXEC);
	if (fd >= 0) {
		if (l->fd >= 0)
			close(l->fd);
		l->fd = fd;
		l->size = tnl_buf_len(&all);
		l->broken = false;
	} else {
		trouble(l, "write");
	}
	tnl_buf_fini(&all);
}

static void flush(void *arg)
{
	struct ag_ledger *l = arg;

	l->queued = false;
	if (l->closed)
		return;
	l->size += tnl_buf_len(&l->pending);
	if (l->fd < 0 || l->size > COMPACT_AT || l->pending.failed) {
		compact(l);
	} else if (!append(l, &l->pending)) {
		trouble(l, "write");
	}
	tnl_buf_reset(&l->pending);
}

static void note(struct ag_ledger *l, char sign, const char *id)
{
	if (!l)
		return;
	tnl_buf_printf(&l->pending, "%c%s\n", sign, id);
	if (!l->queued)
		td_loop_defer(l->a->loop, flush, l);
	l->queued = true;
}

void ag_ledger_add(struct ag_ledger *l, const char *session_id)
{
	note(l, '+', session_id);
}

void ag_ledger_del(struct ag_ledger *l, const char *session_id)
{
	note(l, '-', session_id);
}

static void line(struct tnl_map *open_ids, const char *s)
{
	static char here;

	if (s[0] == '+' && s[1])
		(void)!tnl_map_set_str(open_ids, s + 1, &here);
	else if (s[0] == '-')
		tnl_map_del_str(open_ids, s + 1);
}

/* What the last process left: each is reported as failed as soon as there is a control channel. */
static void read_back(struct ag_ledger *l)
{
	struct tnl_map *ids = tnl_map_new();
	size_t it = 0, n;
	char *text = td_file_read(l->path, FILE_LIMIT, 0, &n, NULL), *rest = text, *s;
	const void *key;

	while (ids && (s = strsep(&rest, "\n")) != NULL && rest) /* a torn last line is no id */
		if (strlen(s) < LINE_MAX_ - 1)
			line(ids, s);
	tnl_free(text);
	while (ids && tnl_map_next(ids, &it, &key, &n)) {
		char id[LINE_MAX_];
		snprintf(id, sizeof(id), "%.*s", (int)n, (const char *)key);
		td_info(AG_MOD, id, "session of the last run is reported as ended");
		ag_tasks_add(&l->a->tasks, id, AG_FAILED, "the agent was restarted");
	}
	tnl_map_free(ids);
}

struct ag_ledger *ag_ledger_new(struct td_agent *a)
{
	if (!a->cfg->state_dir)
		return NULL;
	struct ag_ledger *l = tnl_calloc(1, sizeof(*l));
	if (!l)
		return NULL;
	l->a = a;
	l->fd = -1;
	tnl_buf_init(&l->pending, 1 << 20);
	if (snprintf(l->path, sizeof(l->path), "%s/agent-sessions", a->cfg->state_dir) >= (int)sizeof(l->path)) {
		tnl_free(l);
		return NULL;
	}
	read_back(l);
	compact(l);
	return l;
}

/* Orderly: the next start has nothing to report but what the gateway never confirmed. */
void ag_ledger_free(struct ag_ledger *l)
{
	if (!l)
		return;
	compact(l);
	if (l->fd >= 0)
		close(l->fd);
	tnl_buf_fini(&l->pending);
	l->closed = true; /* a flush may be queued: it runs before the memory goes */
	td_loop_defer(l->a->loop, tnl_free, l);
}
