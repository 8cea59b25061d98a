/* The file of open records.
 *
 * One line each: "+ID NOTE" when it begins (the blank only with a note), "-ID" at its end.  Changes are appended, one
 * write for all of a turn.  What cannot be written is tried again, whole.  When that has made the file long it is
 * written anew with what is open, and when nothing is open there is no file.  A line without a sign is a record too:
 * forwarders wrote them so. */
#include "tunneld/base/ledger.h"

#include "lib/alloc.h"
#include "lib/buf.h"
#include "tunneld/base/file.h"
#include "tunneld/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SLACK (64u << 10) /* beyond twice what was open when it was last written anew */
#define FILE_MAX (16u << 20)
#define LINE_LEN_MAX 1000
#define AGAIN (1 * TD_SEC)

struct record {
	struct tnl_list node;
	const char *note; /* in text, behind the id */
	char text[];
};

struct td_ledger {
	struct tnl_list records;
	char *path;
	const char *module, *risk;
	int fd;			 /* appends to the file as it is; -1: it has to be written anew */
	size_t size, rewrite_at; /* of the file */
	struct tnl_buf pending;
	struct td_soon save;
	struct td_timer again;
	bool broken; /* and the log says so */
};

static struct record *find(struct td_ledger *g, const char *id)
{
	tnl_list_foreach(it, &g->records) {
		struct record *r = tnl_container_of(it, struct record, node);
		if (strcmp(r->text, id) == 0)
			return r;
	}
	return NULL;
}

static void forget(struct record *r)
{
	tnl_list_remove(&r->node);
	tnl_free(r);
}

static struct record *remember(struct td_ledger *g, const char *id, const char *note)
{
	size_t n = strlen(id) + 1, m = strlen(note) + 1;
	struct record *r = tnl_malloc(sizeof(*r) + n + m);

	if (!r)
		return NULL;
	memcpy(r->text, id, n);
	memcpy(r->text + n, note, m);
	r->note = r->text + n;
	tnl_list_init(&r->node);
	tnl_list_push_back(&g->records, &r->node);
	return r;
}

/* --- the file ------------------------------------------------------------------------------- */

static void put_record(struct tnl_buf *b, const struct record *r)
{
	tnl_buf_printf(b, "+%s%s%s\n", r->text, r->note[0] ? " " : "", r->note);
}

static void close_file(struct td_ledger *g)
{
	if (g->fd >= 0)
		close(g->fd);
	g->fd = -1;
}

static void report_trouble_once(struct td_ledger *g)
{
	if (!g->broken)
		td_warn(g->module, NULL, "cannot write %s: %s; %s", g->path, strerror(errno), g->risk);
	g->broken = true;
	close_file(g);
	td_timer_in(&g->again, AGAIN);
}

static void report_trouble_over(struct td_ledger *g)
{
	if (g->broken)
		td_warn(g->module, NULL, "%s is written again", g->path);
	g->broken = false;
}

static void rewrite(struct td_ledger *g)
{
	struct tnl_buf all;

	close_file(g);
	tnl_buf_init(&all, FILE_MAX);
	tnl_list_foreach(it, &g->records)
		put_record(&all, tnl_container_of(it, struct record, node));
	if (!all.failed && td_file_write(g->path, tnl_buf_data(&all), tnl_buf_len(&all), 0) == 0)
		g->fd = open(g->path, O_WRONLY | O_APPEND | O_CLOEXEC);
	else if (all.failed)
		errno = ENOMEM;
	if (g->fd < 0) {
		report_trouble_once(g);
	} else {
		g->size = tnl_buf_len(&all);
		g->rewrite_at = 2 * g->size + SLACK;
		report_trouble_over(g);
	}
	tnl_buf_fini(&all);
}

static void save(void *arg)
{
	struct td_ledger *g = arg;
	size_t n = tnl_buf_len(&g->pending);

	td_timer_stop(&g->again);
	if (tnl_list_empty(&g->records)) {
		close_file(g);
		unlink(g->path);
		report_trouble_over(g);
	} else if (g->fd < 0 || g->pending.failed || g->size + n > g->rewrite_at) {
		rewrite(g);
	} else if (td_file_append(g->fd, tnl_buf_data(&g->pending), n) != 0) {
		report_trouble_once(g);
	} else {
		g->size += n;
	}
	tnl_buf_reset(&g->pending);
}

static void read_line(struct td_ledger *g, char *line)
{
	bool end = line[0] == '-';
	char *id = line[0] == '+' || end ? line + 1 : line;
	size_t n = strcspn(id, " ");

	if (n == 0 || strlen(id) > LINE_LEN_MAX)
		return;
	const char *note = id[n] ? id + n + 1 : "";
	id[n] = '\0';
	struct record *r = find(g, id);
	if (end && r)
		forget(r);
	else if (!end && !r)
		(void)!remember(g, id, note);
}

static void read_back(struct td_ledger *g)
{
	size_t n;
	char *text = td_file_read(g->path, FILE_MAX, 0, &n, NULL), *rest = text, *line;

	while ((line = strsep(&rest, "\n")) != NULL && rest) /* what the last newline misses was torn by the crash */
		read_line(g, line);
	tnl_free(text);
}

/* --- the records ---------------------------------------------------------------------------- */

struct td_ledger *td_ledger_new(struct td_loop *l, const struct td_ledger_config *cfg)
{
	if (!cfg->dir)
		return NULL;
	size_t cap = strlen(cfg->dir) + strlen(cfg->name) + 2;
	struct td_ledger *g = tnl_calloc(1, sizeof(*g));
	char *path = tnl_malloc(cap);
	if (!g || !path) {
		tnl_free(g);
		tnl_free(path);
		return NULL;
	}
	snprintf(path, cap, "%s/%s", cfg->dir, cfg->name);
	g->path = path;
	g->module = cfg->module;
	g->risk = cfg->risk;
	g->fd = -1;
	tnl_list_init(&g->records);
	tnl_buf_init(&g->pending, 1 << 20);
	td_soon_init(&g->save, l, save, g);
	td_timer_init(&g->again, l, save, g);
	read_back(g);
	return g;
}

void td_ledger_add(struct td_ledger *g, const char *id, const char *note)
{
	if (!g || !id[0] || id[strcspn(id, " \n")] || find(g, id)) /* an id with a blank could not be read back */
		return;
	struct record *r = remember(g, id, note);
	if (!r)
		return;
	put_record(&g->pending, r);
	td_soon_do(&g->save);
}

void td_ledger_del(struct td_ledger *g, const char *id)
{
	struct record *r = g ? find(g, id) : NULL;
	if (!r)
		return;
	tnl_buf_printf(&g->pending, "-%s\n", id); /* before the record goes: id may be the record's own */
	forget(r);
	td_soon_do(&g->save);
}

void td_ledger_each(struct td_ledger *g, void (*fn)(void *ctx, const char *id, const char *note), void *ctx)
{
	if (!g)
		return;
	tnl_list_foreach_safe(it, &g->records) {
		const struct record *r = tnl_container_of(it, struct record, node);
		fn(ctx, r->text, r->note);
	}
}

void td_ledger_free(struct td_ledger *g)
{
	if (!g)
		return;
	if (g->save.pending || g->broken)
		save(g);
	td_soon_cancel(&g->save);
	td_timer_stop(&g->again);
	close_file(g);
	while (!tnl_list_empty(&g->records))
		forget(tnl_container_of(g->records.next, struct record, node));
	tnl_buf_fini(&g->pending);
	tnl_free(g->path);
	tnl_free(g);
}
