/* include = PATTERN, …: files whose lines count as if they stood behind those of the file that names them.
 *
 * Lines of all files are numbered through, so that every mistake keeps its place: file k has those from base + 1 to
 * base + lines.  The files of one pattern are read in the order of their names, patterns in the order in which they
 * stand.  Depth, number and size are bounded, and no file is read twice. */
#include "lib/alloc.h"
#include "tunneld/config/internal.h"

#include <errno.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { FILES_MAX = 1000, LINES_MAX = 1 << 30 };

/* --- reading ------------------------------------------------------------------------- */

static int count_lines(const char *text, size_t len)
{
	int n = 1;
	for (const char *s = text; (s = memchr(s, '\n', len - (size_t)(s - text))) != NULL && n < LINES_MAX; s++)
		n++;
	return n;
}

int td_cfg_read_file(struct td_cfg_parse *p, const char *name, const char *dir, const char *text, size_t len, int depth)
{
	int last = p->nfiles ? p->files[p->nfiles - 1].base + p->files[p->nfiles - 1].lines : 0, lines;
	lines = count_lines(text, len);
	p->files = td_cfg_grow(p->files, (size_t)(p->nfiles + 1) * sizeof(*p->files));
	p->files[p->nfiles++] =
	    (struct td_cfg_file){.name = td_cfg_dup(name, strlen(name)), .base = last, .lines = lines};
	p->dir = dir;
	p->depth = depth;
	p->cur = NULL;
	p->skipping = false;
	p->has_secret = false;
	td_cfg_read(p, text, len, last);
	return p->nfiles - 1;
}

static const struct td_cfg_file *find_read(const struct td_cfg_parse *p, const char *full)
{
	for (int i = 0; i < p->nfiles; i++) {
		const char *that = i ? p->files[i].full : p->full;
		if (that && strcmp(that, full) == 0)
			return &p->files[i];
	}
	return NULL;
}

/* The line of `above` by which it came to include what stands on `line`: `line` when that is in it; 0: it does not. */
static int led_here(const struct td_cfg_parse *p, const struct td_cfg_file *above, int line)
{
	while (line > 0 && td_cfg_file_of(p, line) != above)
		line = td_cfg_file_of(p, line)->included_on;
	return line;
}

static void refuse_again(struct td_cfg_parse *p, int line, const char *path, const struct td_cfg_file *read)
{
	char where[300];
	int led = led_here(p, read, line);
	if (led == line)
		td_cfg_error(p, line, "include: %s is this file itself, a cycle", path);
	else if (led)
		td_cfg_error(p, line, "include: %s includes this file, by %s: a cycle", path,
			     td_cfg_where(p, led, line, where, sizeof(where)));
	else
		td_cfg_error(p, line, "include: %s is read already, by %s", path,
			     td_cfg_where(p, read->included_on, line, where, sizeof(where)));
}

static void keep_name(struct td_strlist *l, const char *full)
{
	l->v = td_cfg_grow(l->v, (size_t)(l->n + 1) * sizeof(*l->v));
	l->v[l->n++] = td_cfg_dup(full, strlen(full));
}

static void read_one(struct td_cfg_parse *p, const struct td_cfg_pattern *from, const char *path)
{
	struct stat st;
	size_t len = 0;
	const char *why;
	char *full = realpath(path, NULL), *text = NULL;
	const struct td_cfg_file *read = full ? find_read(p, full) : NULL;
	if (read)
		refuse_again(p, from->line, path, read);
	else if (p->nfiles > FILES_MAX)
		td_cfg_error(p, from->line, "include: more than %d files", FILES_MAX);
	else if ((text = td_cfg_slurp(path, TD_CFG_FILE_MAX, 0, &len, &st, &why)) == NULL)
		td_cfg_error(p, from->line, "include: cannot read %s: %s", path, why);
	if (text) {
		char *dir = td_cfg_dup(full ? full : path, strlen(full ? full : path)), *slash = strrchr(dir, '/');
		if (slash)
			slash[slash == dir ? 1 : 0] = '\0';
		keep_name(&p->c->included, full ? full : path);
		int file = td_cfg_read_file(p, path, dir, text, len, from->depth);
		p->files[file].included_on = from->line;
		p->files[file].full = full ? td_cfg_dup(full, strlen(full)) : NULL;
		td_cfg_check_mode(p, file, &st);
		tnl_free_wiped(text, len);
		tnl_free(dir);
	}
	free(full);
}

/* A folder that is not there matches nothing; one that may not be read is a mistake. */
static int on_folder(const char *path, int err)
{
	return err != ENOENT && err != ENOTDIR;
}

static void read_pattern(struct td_cfg_parse *p, const struct td_cfg_pattern *from)
{
	glob_t g = {0};
	bool plain = !strpbrk(from->path, "*?[");
	int r = plain ? GLOB_NOMATCH : glob(from->path, 0, on_folder, &g);
	if (plain)
		read_one(p, from, from->path);
	else if (r != 0 && r != GLOB_NOMATCH)
		td_cfg_error(p, from->line, "include: cannot list %s", from->path);
	else if (r == GLOB_NOMATCH)
		td_cfg_warn(p, from->line, "include: no file matches %s", from->path);
	for (size_t i = 0; r == 0 && i < g.gl_pathc; i++) {
		bool full = p->nfiles > FILES_MAX;
		read_one(p, from, g.gl_pathv[i]);
		if (full) /* said once */
			break;
	}
	globfree(&g);
}

void td_cfg_read_included(struct td_cfg_parse *p)
{
	for (int i = 0; i < p->npatterns; i++) {
		const struct td_cfg_pattern from = p->patterns[i]; /* more may come */
		read_pattern(p, &from);
	}
}

void td_cfg_files_free(struct td_cfg_parse *p)
{
	for (int i = 0; i < p->nfiles; i++) {
		tnl_free(p->files[i].name);
		tnl_free(p->files[i].full);
	}
	for (int i = 0; i < p->npatterns; i++)
		tnl_free(p->patterns[i].path);
	tnl_free(p->files);
	tnl_free(p->patterns);
}
