/* The table of what was logged of late, by kind and by whom it is about. */
#include "tunneld/base/log_fold.h"

#include "lib/num.h"

#include <stdio.h>
#include <string.h>

enum { WHO_CAP = 96, TEXT_CAP = 400, MODULE_CAP = 24, SESSION_CAP = 160 };

struct pair {
	bool used, hot; /* hot: lines were folded in the minute before */
	enum tnl_log_level level;
	uint64_t kind, began, folded;
	unsigned passed;
	char who[WHO_CAP], module[MODULE_CAP], session[SESSION_CAP], last[TEXT_CAP];
};
#define PAIRS ((size_t)TD_FOLD_SETS * TD_FOLD_WAYS)
static struct pair pairs[PAIRS + TD_FOLD_KINDS];

/* --- which pair a line belongs to ------------------------------------------- */

static uint64_t mix(uint64_t h, const void *p, size_t n)
{
	const unsigned char *s = p;
	for (size_t i = 0; i < n; i++)
		h = (h ^ s[i]) * 1099511628211ull;
	return h;
}

static bool is_mark(char c)
{
	return c == TNL_LOG_FIELD || c == TNL_LOG_NUMBER;
}

/* The value behind " key=", its length in *n; NULL: there is none.  What stands in quotes may be a peer's: no key does.
 */
static const char *value_of(const char *text, const char *key, size_t *n)
{
	bool quoted = false;
	for (const char *p = text; *p; p++) {
		if (quoted && *p == '\\' && p[1]) {
			p++;
		} else if (*p == '"') {
			quoted = !quoted;
		} else if (!quoted && *p == *key && strncmp(p + 1 + is_mark(p[1]), key + 1, strlen(key) - 1) == 0) {
			p += strlen(key) + is_mark(p[1]);
			*n = strcspn(p, " ");
			return p;
		}
	}
	return NULL;
}

static uint64_t kind_of(const struct td_fold_line *l)
{
	static const char *const keys[] = {" reason=", " status="};
	uint64_t h = 14695981039346656037ull + (uint64_t)l->level;
	size_t n;
	if (l->format)
		h = mix(h, &l->format, sizeof(l->format));
	else
		h = mix(h, l->text, strcspn(l->text, "=0123456789"));
	for (size_t i = 0; i < TNL_COUNT(keys); i++) {
		const char *v = value_of(l->text, keys[i], &n);
		if (v && *v != '"')
			h = mix(h, v, n);
	}
	return h;
}

/* "127.0.0.1:443:" and "[::1]:443" without the port; a path as it is. */
static size_t without_port(const char *s, size_t n)
{
	while (n && strchr(":,;", s[n - 1]))
		n--;
	const char *end = n && *s == '[' ? memchr(s, ']', n) : memrchr(s, ':', n);
	return end && *s != '/' ? (size_t)(end - s) : n;
}

static void who_of(const struct td_fold_line *l, char who[WHO_CAP])
{
	size_t n = 0, tn = 0;
	const char *p = value_of(l->text, " peer=", &n), *t = value_of(l->text, " tunnel=", &tn);
	if (p) {
		n = without_port(p, n);
	} else if (l->session) { /* a user's sessions differ in what stands behind the last dash */
		const char *dash = strrchr(l->session, '-');
		p = l->session;
		n = dash ? (size_t)(dash - p) : strlen(p);
	}
	snprintf(who, WHO_CAP, "%.*s %.*s", (int)TNL_MIN(n, (size_t)60), p ? p : "", (int)TNL_MIN(tn, (size_t)30),
		 t ? t : "");
}

/* --- what was folded is said ---------------------------------------------------- */

static void put_number(uint64_t v, char out[32])
{
	char digits[24];
	int n = snprintf(digits, sizeof(digits), "%llu", (unsigned long long)v), o = 0;
	for (int i = 0; i < n; i++) {
		out[o++] = digits[i];
		if (i + 1 < n && (n - i - 1) % 3 == 0)
			out[o++] = ',';
	}
	out[o] = '\0';
}

static void say_pair(struct pair *e, uint64_t now, td_fold_write *write)
{
	char text[TEXT_CAP + 100], number[32];
	uint64_t s = (now - e->began + 999999999) / 1000000000;
	put_number(e->folded, number);
	snprintf(text, sizeof(text), "%s … %s more in %llu s", e->last, number, (unsigned long long)TNL_MAX(s, 1ull));
	write(e->level, e->module, e->session, text);
	e->folded = 0;
}

static bool is_over(const struct pair *e, uint64_t now)
{
	return now - e->began >= TD_FOLD_NS;
}

/* Its minute is over: the next begins, or it is forgotten. */
static void end_minute(struct pair *e, uint64_t now, td_fold_write *write)
{
	e->hot = e->folded > 0;
	if (e->hot)
		say_pair(e, now, write);
	e->used = e->hot;
	e->began = now;
	e->passed = 0;
}

uint64_t td_fold_say(uint64_t now, bool all, td_fold_write *write)
{
	uint64_t next = UINT64_MAX;
	for (size_t i = 0; i < TNL_COUNT(pairs); i++) {
		struct pair *e = &pairs[i];
		if (e->used && (all || is_over(e, now)))
			end_minute(e, now, write);
		if (e->used && e->folded)
			next = TNL_MIN(next, e->began + TD_FOLD_NS);
	}
	return next;
}

void td_fold_clear(void)
{
	memset(pairs, 0, sizeof(pairs));
}

/* --- lines ------------------------------------------------------------------------ */

static struct pair *find_pair(size_t from, size_t to, uint64_t kind, const char *who)
{
	for (size_t i = from; i < to; i++)
		if (pairs[i].used && pairs[i].kind == kind && strcmp(pairs[i].who, who) == 0)
			return &pairs[i];
	return NULL;
}

/* A place that is free, or whose minute is over; NULL: there is none. */
static struct pair *find_place(size_t from, size_t to, uint64_t now, td_fold_write *write)
{
	for (size_t i = from; i < to; i++) {
		struct pair *e = &pairs[i];
		if (e->used && !is_over(e, now))
			continue;
		if (e->used && e->folded)
			say_pair(e, now, write);
		return e;
	}
	return NULL;
}

static struct pair *pair_of(const struct td_fold_line *l, uint64_t now, td_fold_write *write)
{
	char who[WHO_CAP];
	uint64_t kind = kind_of(l);
	who_of(l, who);
	size_t from = (size_t)(mix(kind, who, strlen(who)) % TD_FOLD_SETS) * TD_FOLD_WAYS, to = from + TD_FOLD_WAYS;
	struct pair *e = find_pair(from, to, kind, who);
	if (e)
		return e;
	struct pair *place = find_place(from, to, now, write);
	if (!place) { /* too many peers: all others of this kind are one */
		from = PAIRS;
		to = TNL_COUNT(pairs);
		snprintf(who, sizeof(who), "*");
		e = find_pair(from, to, kind, who);
		if (e)
			return e;
		place = find_place(from, to, now, write);
		if (!place) /* kinds are not a peer's to make; still */
			return &pairs[from + kind % TD_FOLD_KINDS];
	}
	*place = (struct pair){.used = true, .kind = kind, .began = now};
	memcpy(place->who, who, sizeof(place->who));
	return place;
}

bool td_fold_passes(const struct td_fold_line *l, uint64_t now, td_fold_write *write)
{
	struct pair *e = pair_of(l, now, write);
	if (is_over(e, now)) {
		end_minute(e, now, write);
		e->used = true;
	}
	unsigned pass = e->hot ? 1 : l->level <= TNL_LOG_WARN ? TD_FOLD_PASS : TD_FOLD_PASS_INFO;
	if (e->passed < pass) {
		e->passed++;
		return true;
	}
	e->folded++;
	e->level = l->level;
	snprintf(e->module, sizeof(e->module), "%s", l->module);
	snprintf(e->session, sizeof(e->session), "%s", l->session ? l->session : "");
	snprintf(e->last, sizeof(e->last), "%s", l->text);
	return false;
}
