/* Mistakes and warnings of one file, kept until they can be printed in the order of its lines; memory. */
#include "lib/alloc.h"
#include "lib/map.h"
#include "lib/num.h"
#include "tunneld/config/internal.h"
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static void *or_abort(void *p)
{
	if (p)
		return p;
	fputs("tunneld: out of memory while reading the configuration\n", stderr);
	abort();
}

void *td_cfg_alloc(size_t n)
{
	return or_abort(tnl_calloc(1, n));
}

void *td_cfg_grow(void *p, size_t n)
{
	return or_abort(tnl_realloc(p, n));
}

struct tnl_map *td_cfg_map(void)
{
	return or_abort(tnl_map_new());
}

char *td_cfg_dup(const char *s, size_t n)
{
	char *p = td_cfg_alloc(n + 1);
	memcpy(p, s, n);
	return p;
}

enum { TAKEN_MAX = 8300 }; /* more than a line has */

static size_t taken_key(char *out, size_t cap, const char *word, const char *name)
{
	int n = snprintf(out, cap, "%s %s", word, name);
	return TNL_MIN((size_t)TNL_MAX(n, 0), cap - 1);
}

int td_cfg_taken(const struct td_cfg_parse *p, const char *word, const char *name)
{
	char key[TAKEN_MAX];
	size_t n = taken_key(key, sizeof(key), word, name);
	return (int)(intptr_t)tnl_map_get(p->lines, key, n);
}

int td_cfg_take(struct td_cfg_parse *p, const char *word, const char *name, int line)
{
	char key[TAKEN_MAX];
	size_t n = taken_key(key, sizeof(key), word, name);
	int taken = td_cfg_taken(p, word, name);
	if (!taken && tnl_map_set(p->lines, key, n, (void *)(intptr_t)line) != 0)
		or_abort(NULL);
	return taken;
}

/* --- where a line stands ---------------------------------------------------------- */

const struct td_cfg_file *td_cfg_file_of(const struct td_cfg_parse *p, int line)
{
	int k = p->nfiles - 1;
	if (line < 0)
		return &p->files[-line];
	while (k > 0 && line <= p->files[k].base)
		k--;
	return k >= 0 ? &p->files[k] : NULL;
}

const char *td_cfg_where(const struct td_cfg_parse *p, int line, int from, char *out, size_t cap)
{
	const struct td_cfg_file *f = td_cfg_file_of(p, line);
	bool same = !f || f == td_cfg_file_of(p, from);
	snprintf(out, cap, same ? "line %d" : "line %d of %s", f ? line - f->base : line, f ? f->name : "");
	return out;
}

__attribute__((format(printf, 4, 0))) static void add_note(struct td_cfg_parse *p, int line, bool warning,
							   const char *fmt, va_list ap)
{
	char text[1024];
	vsnprintf(text, sizeof(text), fmt, ap);
	p->notes = td_cfg_grow(p->notes, (size_t)(p->nnotes + 1) * sizeof(*p->notes));
	p->notes[p->nnotes] = (struct td_note){line, p->nnotes, warning, td_cfg_dup(text, strlen(text))};
	p->nnotes++;
	p->nerrors += !warning;
}

void td_cfg_error(struct td_cfg_parse *p, int line, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	add_note(p, line, false, fmt, ap);
	va_end(ap);
}

void td_cfg_warn(struct td_cfg_parse *p, int line, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	add_note(p, line, true, fmt, ap);
	va_end(ap);
}

static int by_line(const void *a, const void *b)
{
	const struct td_note *x = a, *y = b;
	return x->line != y->line ? (x->line > y->line) - (x->line < y->line) : x->order - y->order;
}

void td_cfg_print_notes(struct td_cfg_parse *p, FILE *errors)
{
	if (p->nnotes)
		qsort(p->notes, (size_t)p->nnotes, sizeof(*p->notes), by_line);
	for (int i = 0; i < p->nnotes; i++) {
		const struct td_note *n = &p->notes[i];
		const struct td_cfg_file *f = td_cfg_file_of(p, n->line);
		const char *kind = n->warning ? "warning: " : "", *file = f ? f->name : "";
		if (errors && n->line > 0)
			fprintf(errors, "%s%s:%d: %s\n", kind, file, n->line - (f ? f->base : 0), n->text);
		else if (errors)
			fprintf(errors, "%s%s: %s\n", kind, file, n->text);
		tnl_free(n->text);
	}
	tnl_free(p->notes);
	p->notes = NULL;
	p->nnotes = 0;
}
