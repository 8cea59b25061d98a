/* Targets as they are written: split, checked, and taken apart. */
#include "lib/target.h"
#include <ctype.h>
#include <stdbool.h>
#include <string.h>

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* Without the blanks around it. */
static void trim(const char **s, size_t *n)
{
	while (*n && is_blank(**s)) {
		++*s;
		--*n;
	}
	while (*n && is_blank((*s)[*n - 1]))
		--*n;
}

static bool has_prefix(const char *s, size_t n, const char *prefix)
{
	return n >= strlen(prefix) && memcmp(s, prefix, strlen(prefix)) == 0;
}

/* --- lists ---------------------------------------------------------------------------------- */

/* Is the part of the list that begins here one more KEY=VALUE of the tag: before it? */
static bool goes_on(const char *s)
{
	size_t n = strcspn(s, ",");
	trim(&s, &n);
	return !has_prefix(s, n, "tag:") && memchr(s, '=', n);
}

const char *tnl_target_next(const char **s, size_t *n)
{
	const char *at = *s;
	if (!at)
		return NULL;
	size_t len = strcspn(at, ",");
	const char *first = at;
	size_t first_len = len;
	trim(&first, &first_len);
	while (has_prefix(first, first_len, "tag:") && at[len] == ',' && goes_on(at + len + 1))
		len += 1 + strcspn(at + len + 1, ",");
	*s = at[len] ? at + len + 1 : NULL;
	*n = len;
	trim(&at, n);
	return at;
}

/* --- one ------------------------------------------------------------------------------------ */

static bool all_in(const char *s, size_t n, const char *extra)
{
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)s[i]) && !(s[i] && strchr(extra, s[i])))
			return false;
	return n > 0;
}

struct parts {
	struct tnl_target *t;
	size_t n;
};

/* A copy among the parts.  Room is there: they are not longer than the text. */
static const char *keep(struct parts *p, const char *s, size_t n)
{
	char *at = p->t->parts + p->n;
	memcpy(at, s, n);
	at[n] = '\0';
	p->n += n + 1;
	return at;
}

static const char *parse_pair(struct parts *p, const char *s, size_t n)
{
	struct tnl_target *t = p->t;
	const char *eq = memchr(s, '=', n);
	if (!eq)
		return "tag:KEY=VALUE is required";
	const char *key = s, *value = eq + 1;
	size_t nkey = (size_t)(eq - s), nvalue = n - nkey - 1;
	trim(&key, &nkey);
	trim(&value, &nvalue);
	if (!nkey || !nvalue)
		return "a tag requires a key and a value";
	if (nkey > TNL_TARGET_KEY || nvalue > TNL_TARGET_VALUE)
		return "a tag's key has at most 128 characters, its value 256";
	if (t->ntags == TNL_TARGET_TAGS)
		return "at most 8 tags";
	t->tag[t->ntags].key = keep(p, key, nkey);
	t->tag[t->ntags++].value = keep(p, value, nvalue);
	return NULL;
}

static const char *parse_tags(struct parts *p, const char *s, size_t n)
{
	const char *fault = NULL;
	for (const char *end = s + n; !fault;) {
		const char *comma = memchr(s, ',', (size_t)(end - s)), *stop = comma ? comma : end;
		fault = parse_pair(p, s, (size_t)(stop - s));
		if (!comma)
			break;
		s = comma + 1;
	}
	if (fault)
		return fault;
	char *out = p->t->text + strlen("tag:");
	for (unsigned i = 0; i < p->t->ntags; i++) {
		out = stpcpy(out, i ? "," : "");
		out = stpcpy(stpcpy(stpcpy(out, p->t->tag[i].key), "="), p->t->tag[i].value);
	}
	return NULL;
}

static const char *parse_name(struct parts *p, const char *s, size_t n)
{
	if (!all_in(s, n, "-_.") || n > 255)
		return "name:HOST is a host name";
	p->t->name = keep(p, s, n);
	return NULL;
}

static const char *parse_ecs(struct parts *p, const char *s, size_t n)
{
	const char **to[] = {&p->t->cluster, &p->t->service, &p->t->container};
	size_t i = 0;
	for (const char *end = s + n;; i++) {
		const char *slash = memchr(s, '/', (size_t)(end - s)), *stop = slash ? slash : end;
		if (i == 3 || !all_in(s, (size_t)(stop - s), "-_") || stop - s > 255)
			return "must be ecs:CLUSTER/SERVICE[/CONTAINER]";
		*to[i] = keep(p, s, (size_t)(stop - s));
		if (!slash)
			break;
		s = slash + 1;
	}
	return i ? NULL : "must be ecs:CLUSTER/SERVICE[/CONTAINER]";
}

static enum tnl_target_kind kind_of(const char *s, size_t n)
{
	if (has_prefix(s, n, "tag:"))
		return TNL_TARGET_TAG;
	if (has_prefix(s, n, "name:"))
		return TNL_TARGET_NAME;
	return has_prefix(s, n, "ecs:") && memchr(s, '/', n) ? TNL_TARGET_ECS : TNL_TARGET_ID;
}

static const char *parse(struct tnl_target *t, const char *s, size_t n)
{
	struct parts p = {.t = t};
	trim(&s, &n);
	if (n >= TNL_TARGET_TEXT)
		return "is too long";
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)s[i] < ' ' || s[i] == 127)
			return "a control character does not belong here";
	t->kind = kind_of(s, n);
	memcpy(t->text, s, n);
	switch (t->kind) {
	case TNL_TARGET_TAG:
		return parse_tags(&p, s + 4, n - 4);
	case TNL_TARGET_NAME:
		return parse_name(&p, s + 5, n - 5);
	case TNL_TARGET_ECS:
		return parse_ecs(&p, s + 4, n - 4);
	default:
		return all_in(s, n, "-_.:@") && n <= 400 ? NULL
							 : "is no instance or target id (like i-0123456789abcdef0), "
							   "nor tag:KEY=VALUE, name:HOST or ecs:CLUSTER/SERVICE";
	}
}

int tnl_target_parse(const char *s, size_t n, struct tnl_target *t, const char **fault)
{
	memset(t, 0, sizeof(*t));
	const char *why = parse(t, s, n);
	if (why && fault)
		*fault = why;
	return why ? TNL_ESYNTAX : 0;
}
