/* Log lines in their three forms. */
#include "tunneld/base/log_line.h"

#include "lib/enc.h"
#include "lib/num.h"
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { VALUE_CAP = 6100, KEYS_MAX = 40, END_ROOM = 32, MARGIN = 64 };

struct line {
	char *b;
	size_t n, cap;
};

/* Keeps room for the end of the line whatever the text was. */
static void put_bytes(struct line *l, const char *s, size_t n)
{
	n = TNL_MIN(n, l->n < l->cap - END_ROOM ? l->cap - END_ROOM - l->n : 0);
	memcpy(l->b + l->n, s, n);
	l->n += n;
}

static void put_text(struct line *l, const char *s)
{
	put_bytes(l, s, strlen(s));
}

static bool is_mark(char c)
{
	return c == TNL_LOG_FIELD || c == TNL_LOG_NUMBER;
}

static void put_unprintable(struct line *l, unsigned char c, bool json)
{
	char hex[8];
	if (c == '\n' || c == '\t' || c == '\r') {
		put_text(l, c == '\n' ? "\\n" : c == '\t' ? "\\t" : "\\r");
		return;
	}
	/* JSON has no \x: a stray byte shows as the character of the same number. */
	snprintf(hex, sizeof(hex), json ? "\\u%04x" : "\\x%02x", c);
	put_text(l, hex);
}

static void put_escaped(struct line *l, const char *s, bool json)
{
	const uint8_t *p = (const uint8_t *)s, *end = p + strlen(s);
	while (*p && l->n < l->cap - MARGIN) {
		size_t n = tnl_utf8_printable(p, (size_t)(end - p));
		if (n && json && (*p == '"' || *p == '\\'))
			put_bytes(l, "\\", 1);
		if (n)
			put_bytes(l, (const char *)p, n);
		else if (!is_mark((char)*p))
			put_unprintable(l, *p, json);
		p += n ? n : 1;
	}
	if (*p)
		put_text(l, "…");
}

/* --- pairs ------------------------------------------------------------------------------------------ */

struct pair {
	const char *begin, *end; /* in the text, with the blank before it */
	const char *key;
	size_t nkey;
	char value[VALUE_CAP]; /* without its quotation marks */
	bool number;
};

/* Up to its closing quotation mark, which is left out; what is behind it. */
static const char *read_quoted(const char *p, struct pair *f)
{
	size_t n = 0;
	for (; *p && *p != '"'; p++) {
		if (*p == '\\' && (p[1] == '"' || p[1] == '\\'))
			p++;
		if (n < sizeof(f->value) - 1)
			f->value[n++] = *p;
	}
	f->value[n] = '\0';
	return *p ? p + 1 : p;
}

/* Up to the next blank; what ends a part of a sentence belongs to the sentence. */
static const char *read_bare(const char *p, struct pair *f)
{
	size_t n = strcspn(p, " ");
	while (n && strchr(":,;)", p[n - 1]))
		n--;
	snprintf(f->value, sizeof(f->value), "%.*s", (int)n, p);
	return p + n;
}

/* The next pair of the text behind p; false: there is none. */
static bool next_pair(const char *text, const char *p, struct pair *f)
{
	const char marks[] = {TNL_LOG_FIELD, TNL_LOG_NUMBER, '\0'};
	for (; (p = strpbrk(p, marks)) != NULL; p++) {
		f->number = *p == TNL_LOG_NUMBER;
		f->begin = p > text && p[-1] == ' ' ? p - 1 : p;
		f->key = p + 1;
		f->nkey = strcspn(f->key, "= ");
		if (f->key[f->nkey] != '=' || !f->nkey)
			continue;
		const char *value = f->key + f->nkey + 1;
		f->end = *value == '"' ? read_quoted(value + 1, f) : read_bare(value, f);
		return true;
	}
	return false;
}

/* What a JSON reader takes as the same number. */
static bool is_number(const struct pair *f)
{
	const char *s = f->value + (f->value[0] == '-');
	size_t n = strspn(s, "0123456789");
	return f->number && n && !s[n] && n <= 15 && (n == 1 || *s != '0');
}

/* The keys that a line has already. */
struct keys {
	struct {
		const char *s;
		size_t n;
	} v[KEYS_MAX];
	size_t n;
};

/* false: it is there already, or there are too many. */
static bool add_key(struct keys *k, const char *s, size_t n)
{
	for (size_t i = 0; i < k->n; i++)
		if (k->v[i].n == n && memcmp(k->v[i].s, s, n) == 0)
			return false;
	if (k->n == KEYS_MAX)
		return false;
	k->v[k->n].s = s;
	k->v[k->n++].n = n;
	return true;
}

/* --- text ------------------------------------------------------------------------------------------- */

static void put_time(struct line *l, uint64_t wall_ms)
{
	time_t s = (time_t)(wall_ms / 1000);
	struct tm tm;
	char text[40];
	gmtime_r(&s, &tm);
	size_t n = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
	n += (size_t)snprintf(text + n, sizeof(text) - n, ".%03dZ", (int)(wall_ms % 1000));
	put_bytes(l, text, n);
}

static void put_sentence(struct line *l, const struct td_log_entry *e)
{
	put_escaped(l, e->module, false);
	if (e->session && *e->session) {
		put_text(l, " session=");
		put_escaped(l, e->session, false);
	}
	put_text(l, " ");
	put_escaped(l, e->text, false);
}

size_t td_log_line_text(const struct td_log_entry *e, char out[TD_LOG_LINE_CAP])
{
	static const char *const names[] = {" ERROR ", " WARN ", " INFO ", " DEBUG "};
	struct line l = {.b = out, .cap = TD_LOG_LINE_CAP};
	put_time(&l, e->wall_ms);
	put_text(&l, names[e->level]);
	put_sentence(&l, e);
	l.b[l.n++] = '\n';
	return l.n;
}

/* --- JSON ------------------------------------------------------------------------------------------- */

static void put_member(struct line *l, const char *key, const char *value)
{
	put_text(l, ",\"");
	put_text(l, key);
	put_text(l, "\":\"");
	put_escaped(l, value, true);
	l->b[l->n++] = '"';
}

/* The text without its pairs. */
static void put_message(struct line *l, const struct td_log_entry *e)
{
	static const char head[] = ",\"message\":\"";
	char rest[VALUE_CAP], *to = rest;
	const char *p = e->text;
	struct pair f;
	for (bool more = true; more; p = f.end) {
		more = next_pair(e->text, p, &f);
		size_t n = more ? (size_t)(f.begin - TNL_MIN(p, f.begin)) : strlen(p);
		n = TNL_MIN(n, (size_t)(rest + sizeof(rest) - 1 - to));
		memcpy(to, p, n);
		to += n;
		if (!more)
			break;
	}
	*to = '\0';
	put_text(l, head);
	put_escaped(l, rest + (rest[0] == ' '), true);
	l->b[l->n++] = '"';
}

static void put_pair(struct line *l, const struct pair *f)
{
	put_text(l, ",\"");
	put_bytes(l, f->key, f->nkey);
	put_text(l, is_number(f) ? "\":" : "\":\"");
	put_escaped(l, f->value, true);
	if (!is_number(f))
		l->b[l->n++] = '"';
}

size_t td_log_line_json(const struct td_log_entry *e, char out[TD_LOG_LINE_CAP])
{
	static const char *const names[] = {"error", "warn", "info", "debug"};
	struct line l = {.b = out, .cap = TD_LOG_LINE_CAP};
	struct keys keys = {.v = {{"time", 4}, {"level", 5}, {"module", 6}, {"message", 7}}, .n = 4};
	struct pair f;
	put_text(&l, "{\"time\":\"");
	put_time(&l, e->wall_ms);
	put_text(&l, "\"");
	put_member(&l, "level", names[e->level]);
	put_member(&l, "module", e->module);
	if (e->session && *e->session) {
		put_member(&l, "session", e->session);
		add_key(&keys, "session", 7);
	}
	put_message(&l, e);
	for (const char *p = e->text; next_pair(e->text, p, &f); p = f.end)
		if (l.n + f.nkey + 16 < l.cap - MARGIN && add_key(&keys, f.key, f.nkey))
			put_pair(&l, &f);
	memcpy(l.b + l.n, "}\n", 2);
	return l.n + 2;
}

/* --- the journal ------------------------------------------------------------------------------------ */

static void put_field(struct line *l, const char *name, const char *value)
{
	put_text(l, name);
	put_text(l, "=");
	put_escaped(l, value, false);
	l->b[l->n++] = '\n';
}

static void put_pair_field(struct line *l, const struct pair *f)
{
	char name[64] = "TUNNELD_";
	size_t n = strlen(name);
	for (size_t i = 0; i < f->nkey && n < sizeof(name) - 1; i++)
		name[n++] = (char)toupper((unsigned char)f->key[i]);
	name[n] = '\0';
	put_field(l, name, f->value);
}

size_t td_log_line_journal(const struct td_log_entry *e, char out[TD_LOG_JOURNAL_CAP])
{
	static const char *const priorities[] = {"3", "4", "6", "7"};
	struct line l = {.b = out, .cap = TD_LOG_JOURNAL_CAP};
	struct keys keys = {.v = {{"module", 6}}, .n = 1};
	struct pair f;
	put_text(&l, "SYSLOG_IDENTIFIER=tunneld\n");
	put_field(&l, "PRIORITY", priorities[e->level]);
	put_field(&l, "TUNNELD_MODULE", e->module);
	if (e->session && *e->session) {
		put_field(&l, "TUNNELD_SESSION", e->session);
		add_key(&keys, "session", 7);
	}
	put_text(&l, "MESSAGE=");
	put_sentence(&l, e);
	l.b[l.n++] = '\n';
	for (const char *p = e->text; next_pair(e->text, p, &f); p = f.end)
		if (l.n + f.nkey + 16 < l.cap - MARGIN && add_key(&keys, f.key, f.nkey))
			put_pair_field(&l, &f);
	return l.n;
}
