/* Lines → sections and keys.  inih splits the lines; this reader feeds it, since
 * inih counts no lines for its handler, drops empty sections, joins indented
 * lines to the key before, and cuts what is longer than 199 bytes. */
#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/num.h"
#include "tunneld/config/internal.h"
#include <ctype.h>
#include <ini.h>
#include <string.h>

enum { LINE_MAX_BYTES = 8192, SECTION_MAX = 128, INIH_SAFE = 180, WHERE_MAX = 4200 };

struct reader {
	struct td_cfg_parse *p;
	const char *at, *end;
	int line;
	int pending;	  /* line that was handed over and must come back through the handler */
	char *long_value; /* of a line that inih could not hold; stands in for "\1" */
};

static void unknown_section(struct reader *r, const char *word)
{
	td_cfg_error(r->p, r->line,
		     "unknown section [%s]; there are [tunneld], [aws], [tunnel NAME], [alias NAME], [agent], "
		     "[gateway], [user NAME] and [instance ID]",
		     word);
}

static enum td_section section_of(const char *word)
{
	enum td_section kind = 0;
	while (kind < TD_SECTION_COUNT && strcmp(td_sections[kind].word, word) != 0)
		kind++;
	return kind;
}

/* Whatever is wrong with the header, the keys below it are checked as well.  Gives the name that counts. */
static const char *check_header(struct reader *r, enum td_section kind, const char *name)
{
	struct td_cfg_parse *p = r->p;
	const char *word = td_sections[kind].word;
	if (td_sections[kind].named && (!*name || strpbrk(name, " \t")))
		td_cfg_error(p, r->line, "[%s] requires one name without white space: [%s NAME]", word, word);
	if (!td_sections[kind].named && *name) {
		td_cfg_error(p, r->line, "[%s] takes no name", word);
		name = "";
	}
	char where[WHERE_MAX];
	int taken = td_cfg_take(p, word, name, r->line);
	if (taken)
		td_cfg_error(p, r->line, "section [%s%s%s] is there already, on %s", word, *name ? " " : "", name,
			     td_cfg_where(p, taken, r->line, where, sizeof(where)));
	return name;
}

static void open_section(struct reader *r, char *header)
{
	struct td_cfg_parse *p = r->p;
	size_t n = strcspn(header, " \t");
	const char *name = header + n + strspn(header + n, " \t");
	if (header[n])
		header[n] = '\0';
	enum td_section kind = section_of(header);
	if (kind == TD_SECTION_COUNT) {
		unknown_section(r, header);
		return;
	}
	name = check_header(r, kind, name);
	p->secs = td_cfg_grow(p->secs, (size_t)(p->nsecs + 1) * sizeof(*p->secs));
	struct td_section_read *s = &p->secs[p->nsecs++];
	*s = (struct td_section_read){.kind = kind,
				      .index = td_section_add(p->c, kind, name, r->line),
				      .line = r->line,
				      .name = td_cfg_dup(name, strlen(name)),
				      .key_line = td_cfg_alloc((size_t)td_nopts * sizeof(int))};
	if (td_sections[kind].named)
		td_cfg_set_defaults(p, kind, s->index, r->line);
	p->cur = s;
	p->skipping = false;
}

/* [KIND] or [KIND NAME], perhaps with a comment behind it. */
static void take_header(struct reader *r, char *s)
{
	char *end = strchr(s, ']');
	r->p->cur = NULL;
	r->p->skipping = true;
	if (!end) {
		td_cfg_error(r->p, r->line, "the ] of the section is missing");
		return;
	}
	const char *rest = end + 1 + strspn(end + 1, " \t");
	if (*rest && *rest != ';' && *rest != '#') {
		td_cfg_error(r->p, r->line, "text behind the ] of the section");
		return;
	}
	char *from = s + 1 + strspn(s + 1, " \t");
	while (end > from && (end[-1] == ' ' || end[-1] == '\t'))
		end--;
	*end = '\0';
	if (!*from)
		td_cfg_error(r->p, r->line, "the section has no name");
	else if (end - from > SECTION_MAX)
		td_cfg_error(r->p, r->line, "the section's name is longer than %d bytes", SECTION_MAX);
	else
		open_section(r, from);
}

/* How many letters were left out, put in, mistaken or swapped with the next one; 99 for words that are no keys. */
static unsigned distance(const char *a, const char *b)
{
	unsigned d[3][64]; /* rows i - 2, i - 1 and i, in turn */
	size_t n = strlen(b);
	if (n >= 63 || strlen(a) >= 63)
		return 99;
	unsigned *before = d[0], *last = d[1], *row = d[2];
	for (size_t j = 0; j <= n; j++)
		row[j] = (unsigned)j;
	for (size_t i = 0; a[i]; i++) {
		unsigned *next = before;
		before = last;
		last = row;
		row = next;
		row[0] = (unsigned)i + 1;
		for (size_t j = 0; j < n; j++) {
			unsigned best = last[j] + (a[i] != b[j]);
			best = TNL_MIN(best, TNL_MIN(last[j + 1], row[j]) + 1);
			if (i && j && a[i] == b[j - 1] && a[i - 1] == b[j])
				best = TNL_MIN(best, before[j - 1] + 1);
			row[j + 1] = best;
		}
	}
	return row[n];
}

static void unknown_key(struct td_cfg_parse *p, int line, const char *key)
{
	const char *near = NULL, *where = NULL, *sec = td_sections[p->cur->kind].word;
	unsigned best = 3;
	for (int i = 0; i < td_nopts; i++) {
		const struct td_opt *o = &td_opts[i];
		if (!td_opt_in(o, p->cur->kind)) {
			if (!where && strcmp(o->key, key) == 0)
				where = td_sections[__builtin_ctz(o->in)].word;
			continue;
		}
		unsigned d = distance(key, o->key);
		if (d < best) {
			best = d;
			near = o->key;
		}
	}
	if (where)
		td_cfg_error(p, line, "%s does not belong in [%s] (but in [%s])", key, sec, where);
	else if (near)
		td_cfg_error(p, line, "unknown key %s in [%s]; is it %s?", key, sec, near);
	else
		td_cfg_error(p, line, "unknown key %s in [%s]", key, sec);
}

static void take_value(struct reader *r, const struct td_opt *o, const char *value)
{
	struct td_cfg_parse *p = r->p;
	int *line = &p->cur->key_line[o - td_opts];
	char where[WHERE_MAX];
	size_t n = strlen(value);
	if (*line) {
		td_cfg_error(p, r->line, "%s is there already, on %s", o->key,
			     td_cfg_where(p, *line, r->line, where, sizeof(where)));
		return;
	}
	*line = r->line;
	if (n > 1 && (*value == '"' || *value == '\'') && value[n - 1] == *value)
		td_cfg_warn(p, r->line, "%s: values are not quoted, these quotes are part of it", o->key);
	void *base = td_opt_base(o, td_section_place(p->c, p->cur->kind, p->cur->index));
	td_value_clear(o, base);
	td_value_set(p, r->line, o, base, value);
}

static int on_key(void *user, const char *section, const char *key, const char *value)
{
	struct reader *r = user;
	struct td_cfg_parse *p = r->p;
	(void)section; /* cut at 49 bytes by inih; ours is p->cur */
	r->pending = 0;
	if (r->long_value && strcmp(value, "\1") == 0)
		value = r->long_value;
	if (p->skipping)
		return 1;
	bool include = strcmp(key, "include") == 0;
	if (include && (!p->cur || p->cur->kind == TD_SECTION_TUNNELD))
		td_cfg_include(p, r->line, value);
	if (!p->cur && include)
		return 1;
	if (!p->cur) {
		td_cfg_error(p, r->line, "%s comes before the first section", key);
		return 1;
	}
	const struct td_opt *o = td_opt_find(p->cur->kind, key);
	if (o)
		take_value(r, o, value);
	else
		unknown_key(p, r->line, key);
	return 1;
}

static void check_pending(struct reader *r)
{
	if (r->pending)
		td_cfg_error(r->p, r->pending, "neither a [section] nor KEY = VALUE");
	r->pending = 0;
}

/* A line too long for inih: the key goes through it, the value is kept here. */
static void shorten(struct reader *r, char *s, char *out, size_t cap)
{
	size_t n = strcspn(s, "=:");
	char *v = s + n + (s[n] ? 1 : 0);
	if (!s[n] || n > INIH_SAFE / 2) {
		snprintf(out, cap, "%.*s\n", INIH_SAFE / 2, s); /* comes back as an unknown key, or not at all */
		return;
	}
	v += strspn(v, " \t");
	char *cut = *v == ';' ? v : NULL;
	for (char *c = v; *c && !cut; c++)
		if (*c == ';' && c > v && (c[-1] == ' ' || c[-1] == '\t'))
			cut = c;
	if (cut)
		*cut = '\0';
	size_t len = strlen(v);
	while (len && (v[len - 1] == ' ' || v[len - 1] == '\t'))
		len--;
	r->long_value = td_cfg_dup(v, len);
	snprintf(out, cap, "%.*s=\1\n", (int)n, s);
}

/* Checks the bytes of a line; it is copied, without the white space around it. NULL: refused. */
static char *clean_line(struct reader *r, const char *s, size_t n)
{
	while (n && (s[n - 1] == '\r' || s[n - 1] == ' ' || s[n - 1] == '\t'))
		n--;
	while (n && (*s == ' ' || *s == '\t')) {
		s++;
		n--;
	}
	if (n > LINE_MAX_BYTES) {
		td_cfg_error(r->p, r->line, "the line is longer than %d bytes", LINE_MAX_BYTES);
		return NULL;
	}
	for (size_t i = 0; i < n; i++)
		if (((unsigned char)s[i] < 0x20 && s[i] != '\t') || s[i] == 0x7f) {
			td_cfg_error(r->p, r->line, "control character 0x%02x", (unsigned char)s[i]);
			return NULL;
		}
	if (!tnl_utf8_valid((const uint8_t *)s, n)) {
		td_cfg_error(r->p, r->line, "not valid UTF-8");
		return NULL;
	}
	return td_cfg_dup(s, n);
}

/* inih's fgets. Headers, blank lines and comments are dealt with here; it gets "\n" for them. */
static char *next_line(char *out, int num, void *stream)
{
	struct reader *r = stream;
	check_pending(r);
	tnl_free(r->long_value);
	r->long_value = NULL;
	if (r->at >= r->end)
		return NULL;
	const char *nl = memchr(r->at, '\n', (size_t)(r->end - r->at));
	size_t n = nl ? (size_t)(nl - r->at) : (size_t)(r->end - r->at);
	const char *s = r->at;
	r->at += n + (nl ? 1 : 0);
	r->line++;
	char *line = clean_line(r, s, n);
	snprintf(out, (size_t)num, "\n");
	if (!line)
		return out;
	if (*line == '[') {
		take_header(r, line);
	} else if (*line && *line != ';' && *line != '#') {
		r->pending = r->line;
		if (*line == '=' || *line == ':')
			; /* inih would hand over an empty key */
		else if (strlen(line) > INIH_SAFE)
			shorten(r, line, out, (size_t)num);
		else
			snprintf(out, (size_t)num, "%s\n", line);
	}
	tnl_free(line);
	return out;
}

void td_cfg_read(struct td_cfg_parse *p, const char *text, size_t len, int base)
{
	struct reader r = {.p = p, .at = text, .end = text + len, .line = base};
	if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
		r.at += 3;
	(void)ini_parse_stream(next_line, &r, on_key, &r); /* its number of the first error says less than ours */
	check_pending(&r);
	tnl_free(r.long_value);
}
