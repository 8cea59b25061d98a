/* Reads the shared files of the AWS SDKs as these do (profile.h has what), line by line, into a list of sections with
 * their properties; a later file or section adds to an earlier one. */
#include "tunneld/aws/profile.h"
#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/num.h"
#include <stdio.h>
#include <string.h>

struct prop {
	struct prop *next;
	char *value;
	char key[]; /* lower case, "parent.child" when nested */
};

struct section {
	struct section *next;
	struct prop *props; /* the latest first */
	enum td_profile_kind kind;
	enum td_profile_file file;
	bool prefixed; /* [profile default] wins over [default] */
	char *fault;   /* its first mistake; NULL: none */
	char name[];
};

struct td_profiles {
	struct section *sections;
	char fault[300]; /* the first mistake that is in no section that can be had */
};

struct parser {
	struct td_profiles *p;
	struct section *section; /* NULL: none yet, or one that is none of our business */
	struct prop *parent;	 /* the property that an indented line belongs to */
	size_t indent;		 /* of the parent */
	bool any_section, nested;
	unsigned faults;
	enum td_profile_file file;
	const char *name;
	int line;
	char *why;
	size_t cap;
};

struct td_profiles *td_profiles_new(void)
{
	return tnl_calloc(1, sizeof(struct td_profiles));
}

void td_profiles_free(struct td_profiles *p)
{
	struct section *s, *next;

	for (s = p ? p->sections : NULL; s; s = next) {
		struct prop *v, *after;

		for (v = s->props; v; v = after) {
			after = v->next;
			tnl_free_wiped(v->value, strlen(v->value));
			tnl_free(v);
		}
		next = s->next;
		tnl_free(s->fault);
		tnl_free(s);
	}
	tnl_free(p);
}

/* --- look-up ------------------------------------------------------------------ */

static bool is_section(const struct section *s, enum td_profile_kind kind, const char *name)
{
	return s->kind == kind && strcmp(s->name, name) == 0;
}

bool td_profiles_has(const struct td_profiles *p, enum td_profile_kind kind, const char *name)
{
	for (const struct section *s = p->sections; s; s = s->next)
		if (is_section(s, kind, name))
			return true;
	return false;
}

void td_profiles_each(const struct td_profiles *p, enum td_profile_kind kind, void (*fn)(void *ctx, const char *name),
		      void *ctx)
{
	for (const struct section *s = p->sections; s; s = s->next) {
		bool first = s->kind == kind;
		for (const struct section *e = p->sections; first && e != s; e = e->next)
			first = !is_section(e, kind, s->name);
		if (first)
			fn(ctx, s->name);
	}
}

static const struct prop *find(const struct section *s, const char *key)
{
	const struct prop *v = s->props;

	while (v && strcmp(v->key, key) != 0)
		v = v->next;
	return v;
}

const char *td_profiles_get(const struct td_profiles *p, enum td_profile_kind kind, const char *name, const char *key)
{
	const char *best = NULL;
	int best_rank = -1;

	for (const struct section *s = p->sections; s; s = s->next) {
		int rank = s->file == TD_PROFILE_CREDENTIALS ? 2 : s->prefixed ? 1 : 0;
		const struct prop *v = is_section(s, kind, name) ? find(s, key) : NULL;

		if (v && v->value[0] && rank > best_rank) {
			best = v->value;
			best_rank = rank;
		}
	}
	return best;
}

void td_profiles_note(struct td_profiles *p, const char *why)
{
	if (!p->fault[0])
		snprintf(p->fault, sizeof(p->fault), "%s", why);
}

const char *td_profiles_fault(const struct td_profiles *p, enum td_profile_kind kind, const char *name)
{
	bool there = false;

	for (const struct section *s = p->sections; s; s = s->next) {
		if (!is_section(s, kind, name))
			continue;
		if (s->fault)
			return s->fault;
		there = true;
	}
	return there || !p->fault[0] ? NULL : p->fault;
}

/* --- parsing ------------------------------------------------------------------- */

/* What stands on the line is lost, and with it the profile that it belongs to; the others are not. */
static int wrong(struct parser *x, const char *text)
{
	char why[300];

	snprintf(why, sizeof(why), "%s:%d: %s", x->name, x->line, text);
	if (x->section && !x->section->fault)
		x->section->fault = tnl_strdup(why);
	else if (!x->section && !x->p->fault[0])
		snprintf(x->p->fault, sizeof(x->p->fault), "%s", why);
	if (!x->faults++)
		snprintf(x->why, x->cap, "%s", why);
	return TNL_ESYNTAX;
}

static bool blank(char c)
{
	return c == ' ' || c == '\t';
}

static void trim(const char **s, size_t *n)
{
	while (*n && blank(**s))
		(*s)++, (*n)--;
	while (*n && blank((*s)[*n - 1]))
		(*n)--;
}

/* The section with that header; a second one of the same name goes on where the first ended. */
static int open_section(struct parser *x, enum td_profile_kind kind, bool prefixed, const char *name, size_t n)
{
	struct section *s;

	if (n >= 2 && (name[0] == '"' || name[0] == '\'') && name[n - 1] == name[0]) {
		name++;
		n -= 2;
	}
	if (!n)
		return wrong(x, "the section has no name");
	for (s = x->p->sections; s; s = s->next)
		if (s->kind == kind && s->file == x->file && s->prefixed == prefixed && strlen(s->name) == n &&
		    memcmp(s->name, name, n) == 0)
			break;
	if (!s) {
		s = tnl_calloc(1, sizeof(*s) + n + 1);
		if (!s)
			return TNL_ENOMEM;
		memcpy(s->name, name, n);
		s->kind = kind;
		s->file = x->file;
		s->prefixed = prefixed;
		s->next = x->p->sections;
		x->p->sections = s;
	}
	x->section = s;
	return 0;
}

/* Length of `word` when s starts with it and white space follows; else 0. */
static size_t prefix(const char *s, size_t n, const char *word)
{
	size_t k = strlen(word);

	return n > k && memcmp(s, word, k) == 0 && blank(s[k]) ? k : 0;
}

static int section_line(struct parser *x, const char *s, size_t n)
{
	static const struct {
		const char *word;
		enum td_profile_kind kind;
	} kinds[] = {{"profile", TD_PROFILE},
		     {"sso-session", TD_PROFILE_SSO_SESSION},
		     {"services", TD_PROFILE_SERVICES}};
	const char *end = memchr(s, ']', n);

	x->section = NULL;
	x->parent = NULL;
	x->any_section = true;
	if (!end)
		return wrong(x, "a section's header must end in ]");
	s++;
	n = (size_t)(end - s); /* what stands behind it is of no account, as to the aws command */
	trim(&s, &n);
	if (!n)
		return wrong(x, "the section has no name");
	if (x->file == TD_PROFILE_CREDENTIALS)
		return open_section(x, TD_PROFILE, false, s, n);
	for (size_t i = 0; i < TNL_COUNT(kinds); i++) {
		size_t k = prefix(s, n, kinds[i].word);

		if (k) {
			s += k;
			n -= k;
			trim(&s, &n);
			return open_section(x, kinds[i].kind, true, s, n);
		}
	}
	if (n == 7 && memcmp(s, "default", 7) == 0)
		return open_section(x, TD_PROFILE, false, s, n);
	return 0; /* a plug-in's own, or a profile that lacks the word: the SDKs pass over it too */
}

/* A comment begins with # or ; behind white space. */
static size_t without_comment(const char *s, size_t n)
{
	for (size_t i = 1; i < n; i++)
		if ((s[i] == '#' || s[i] == ';') && blank(s[i - 1]))
			return i;
	return n;
}

static int add_prop(struct parser *x, const char *parent, const char *key, size_t klen, const char *value, size_t vlen,
		    struct prop **out)
{
	size_t plen = parent ? strlen(parent) + 1 : 0;
	struct prop *v;

	if (memchr(key, 0, klen) || memchr(value, 0, vlen))
		return wrong(x, "there is a NUL byte in it");
	v = tnl_calloc(1, sizeof(*v) + plen + klen + 1);
	if (!v)
		return TNL_ENOMEM;
	v->value = tnl_strndup(value, vlen);
	if (!v->value) {
		tnl_free(v);
		return TNL_ENOMEM;
	}
	if (parent)
		snprintf(v->key, plen + 1, "%s.", parent);
	memcpy(v->key + plen, key, klen);
	for (char *c = v->key; *c; c++)
		if (*c >= 'A' && *c <= 'Z')
			*c = (char)(*c - 'A' + 'a');
	v->next = x->section->props;
	x->section->props = v;
	if (out)
		*out = v;
	return 0;
}

static int append(struct parser *x, struct prop *v, const char *s, size_t n)
{
	size_t have = strlen(v->value);
	char *both;

	if (memchr(s, 0, n))
		return wrong(x, "there is a NUL byte in it");
	both = tnl_malloc(have + n + 2);
	if (!both)
		return TNL_ENOMEM;
	memcpy(both, v->value, have);
	both[have] = '\n';
	memcpy(both + have + 1, s, n);
	both[have + 1 + n] = 0;
	tnl_free_wiped(v->value, have);
	v->value = both;
	return 0;
}

static int property_line(struct parser *x, const char *s, size_t n, size_t indent)
{
	bool indented = x->parent && indent > x->indent;
	const char *eq = s, *key = s, *value;
	size_t klen, vlen;

	if (!x->any_section)
		return wrong(x, "a setting comes before the first [section]");
	if (!x->section)
		return 0;
	if (indented && !x->nested)
		return append(x, x->parent, s, n);
	while (eq < s + n && *eq != '=' && *eq != ':')
		eq++;
	if (eq == s + n)
		return wrong(x,
			     indented ? "a nested setting must be KEY = VALUE" : "neither KEY = VALUE nor [SECTION]");
	klen = (size_t)(eq - s);
	value = eq + 1;
	vlen = n - klen - 1;
	trim(&key, &klen);
	vlen = without_comment(value - 1, vlen + 1) - 1;
	trim(&value, &vlen);
	if (!klen)
		return wrong(x, "there is no name before the =");
	if (indented)
		return add_prop(x, x->parent->key, key, klen, value, vlen, NULL);
	x->nested = vlen == 0;
	x->indent = indent;
	return add_prop(x, NULL, key, klen, value, vlen, &x->parent);
}

static int one_line(struct parser *x, const char *s, size_t n)
{
	const char *start = s;

	if (n && s[n - 1] == '\r')
		n--;
	trim(&s, &n);
	if (!n || *s == '#' || *s == ';')
		return 0;
	if (*s == '[' && s == start)
		return section_line(x, s, n);
	return property_line(x, s, n, (size_t)(s - start));
}

int td_profiles_parse(struct td_profiles *p, const char *text, size_t n, enum td_profile_file file, const char *name,
		      char *why, size_t cap)
{
	struct parser x = {.p = p, .file = file, .name = name, .why = why, .cap = cap};
	int rc = 0;

	if (n > TD_PROFILE_FILE_MAX) {
		snprintf(why, cap, "%s: is larger than 1 MiB", name);
		td_profiles_note(p, why);
		return TNL_ESYNTAX;
	}
	if (n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
		text += 3;
		n -= 3;
	}
	while (n && (rc == 0 || rc == TNL_ESYNTAX)) {
		const char *nl = memchr(text, '\n', n);
		size_t len = nl ? (size_t)(nl - text) : n;

		x.line++;
		rc = one_line(&x, text, len);
		text += len + (nl ? 1 : 0);
		n -= len + (nl ? 1 : 0);
	}
	if (rc == TNL_ENOMEM) {
		snprintf(why, cap, "%s: out of memory", name);
		return rc;
	}
	return x.faults ? TNL_ESYNTAX : 0;
}
