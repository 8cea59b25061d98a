/* One value of the configuration: text → typed field, and back to nothing. */
#include "lib/alloc.h"
#include "lib/err.h"
#include "tunneld/config/internal.h"
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { LISTEN_MAX = 16 }; /* of one section */

void *td_cfg_alloc(size_t n)
{
	void *p = tnl_calloc(1, n);
	if (!p) {
		fputs("tunneld: out of memory while reading the configuration\n", stderr);
		abort();
	}
	return p;
}

void *td_cfg_grow(void *p, size_t n)
{
	p = tnl_realloc(p, n);
	if (!p) {
		fputs("tunneld: out of memory while reading the configuration\n", stderr);
		abort();
	}
	return p;
}

char *td_cfg_dup(const char *s, size_t n)
{
	char *p = td_cfg_alloc(n + 1);
	memcpy(p, s, n);
	return p;
}

char *td_cfg_path(const char *dir, const char *path)
{
	if (path[0] == '/' || !dir || !dir[0])
		return td_cfg_dup(path, strlen(path));
	while (path[0] == '.' && path[1] == '/')
		path += 2;
	size_t n = strlen(dir) + strlen(path) + 2;
	char *p = td_cfg_alloc(n);
	snprintf(p, n, "%s%s%s", dir, dir[strlen(dir) - 1] == '/' ? "" : "/", path);
	return p;
}

/* Digits at *s; false when there are none or they do not fit. */
bool td_cfg_digits(const char **s, uint64_t *v)
{
	const char *p = *s;
	uint64_t n = 0;
	if (!isdigit((unsigned char)*p))
		return false;
	for (; isdigit((unsigned char)*p); p++)
		if (__builtin_mul_overflow(n, 10u, &n) || __builtin_add_overflow(n, (uint64_t)(*p - '0'), &n))
			return false;
	*s = p;
	*v = n;
	return true;
}

int td_parse_duration(const char *s, uint64_t *ns)
{
	static const struct {
		const char *unit;
		uint64_t ns;
	} units[] = {{"ms", 1000000ull}, {"s", 1000000000ull}, {"m", 60000000000ull}, {"h", 3600000000000ull}};
	uint64_t sum = 0, last = UINT64_MAX;
	if (strcmp(s, "0") == 0) {
		*ns = 0;
		return 0;
	}
	do {
		uint64_t v;
		size_t i;
		if (!td_cfg_digits(&s, &v))
			return TNL_ESYNTAX;
		for (i = 0; i < 4; i++) {
			size_t n = strlen(units[i].unit);
			if (strncmp(s, units[i].unit, n) == 0 && !isalpha((unsigned char)s[n])) {
				s += n;
				break;
			}
		}
		/* 1h30m, but neither 30m1h nor 5m5m: those are slips. */
		if (i == 4 || units[i].ns >= last)
			return TNL_ESYNTAX;
		last = units[i].ns;
		if (__builtin_mul_overflow(v, last, &v) || __builtin_add_overflow(sum, v, &sum))
			return TNL_ELIMIT;
	} while (*s);
	*ns = sum;
	return 0;
}

int td_parse_size(const char *s, uint64_t *bytes)
{
	uint64_t v, unit = 1;
	if (!td_cfg_digits(&s, &v))
		return TNL_ESYNTAX;
	if (*s) {
		const char *u = strchr("KMG", *s);
		if (!u || s[1])
			return TNL_ESYNTAX;
		unit = *s == 'K' ? 1ull << 10 : *s == 'M' ? 1ull << 20 : 1ull << 30;
	}
	if (__builtin_mul_overflow(v, unit, bytes))
		return TNL_ELIMIT;
	return 0;
}

/* --- lists ------------------------------------------------------------------ */

static void list_free(struct td_strlist *l)
{
	for (int i = 0; i < l->n; i++)
		tnl_free(l->v[i]);
	tnl_free(l->v);
	*l = (struct td_strlist){0};
}

static bool list_same(const struct td_strlist *a, const struct td_strlist *b)
{
	if (a->n != b->n)
		return false;
	for (int i = 0; i < a->n; i++)
		if (strcmp(a->v[i], b->v[i]) != 0)
			return false;
	return true;
}

static bool list_parse(struct td_cfg_parse *p, int line, const char *key, const char *value, struct td_strlist *out)
{
	bool ok = true;
	for (const char *s = value;;) {
		s += strspn(s, " \t");
		size_t n = strcspn(s, ","), len = n;
		while (len && (s[len - 1] == ' ' || s[len - 1] == '\t'))
			len--;
		if (!len) {
			td_cfg_error(p, line, "%s: an entry of the list is empty", key);
			ok = false;
		} else {
			out->v = td_cfg_grow(out->v, (size_t)(out->n + 1) * sizeof(*out->v));
			out->v[out->n++] = td_cfg_dup(s, len);
		}
		if (!s[n])
			return ok;
		s += n + 1;
	}
}

static bool parse_listen(struct td_cfg_parse *p, int line, const struct td_opt *o, void *base, const char *value)
{
	struct td_strlist list = {0};
	struct td_addr *addrs = NULL;
	int n = 0;
	bool ok = list_parse(p, line, o->key, value, &list);
	for (int i = 0; i < list.n; i++) {
		struct td_addr got[4];
		const char *fault = "not an address";
		char *s = list.v[i];
		if (strncmp(s, "unix:", 5) == 0 && s[5] != '/' && s[5]) {
			char *path = td_cfg_path(p->dir, s + 5);
			size_t len = strlen(path) + 6;
			char *full = td_cfg_alloc(len);
			snprintf(full, len, "unix:%s", path);
			tnl_free(path);
			tnl_free(s);
			s = list.v[i] = full;
		}
		int k = td_addr_parse(s, got, 4, &fault);
		if (k <= 0) {
			td_cfg_error(p, line, "%s = %s: %s", o->key, s, fault);
			ok = false;
			continue;
		}
		addrs = td_cfg_grow(addrs, (size_t)(n + k) * sizeof(*addrs));
		memcpy(addrs + n, got, (size_t)k * sizeof(*addrs));
		n += k;
	}
	if (n > LISTEN_MAX) {
		td_cfg_error(p, line, "%s: more than %d addresses", o->key, LISTEN_MAX);
		ok = false;
	}
	if (o->in & TD_IN(TUNNEL)) {
		struct td_tunnel_config *t = base;
		t->listen = list;
		t->addrs = addrs;
		t->naddrs = n;
	} else {
		struct td_gateway_config *g = base;
		list_free(&list);
		g->addrs = addrs;
		g->naddrs = n;
	}
	return ok;
}

static bool set_text(struct td_cfg_parse *p, int line, const struct td_opt *o, char **dst, const char *value)
{
	size_t len = strlen(value);
	const char *fault = !len ? "is empty" : td_cfg_check_text(o->type, value, &len);
	if (fault) {
		/* A secret is never shown, not even a malformed one. */
		if (!len || (o->flags & TD_F_SECRET))
			td_cfg_error(p, line, "%s: %s", o->key, fault);
		else
			td_cfg_error(p, line, "%s = %s: %s", o->key, value, fault);
		return false;
	}
	if (o->type == TD_T_PATH || o->type == TD_T_FILE || o->type == TD_T_KEYFILE) {
		*dst = td_cfg_path(p->dir, value);
	} else if (o->type == TD_T_STORE && strcmp(value, "sqlite::memory:") != 0) {
		char *path = td_cfg_path(p->dir, value + 7);
		*dst = td_cfg_alloc(strlen(path) + 8);
		snprintf(*dst, strlen(path) + 8, "sqlite:%s", path);
		tnl_free(path);
	} else {
		*dst = td_cfg_dup(value, len);
	}
	if ((o->flags & TD_F_SECRET) && (o->type != TD_T_PROXY || strchr(value, '@')))
		p->has_secret = true;
	return true;
}

/* --- numbers and words -------------------------------------------------------- */

static void show(const struct td_opt *o, uint64_t v, char out[32])
{
	if (o->type == TD_T_DURATION) {
		const uint64_t ms = v / 1000000;
		if (ms % 3600000 == 0 && ms)
			snprintf(out, 32, "%lluh", (unsigned long long)(ms / 3600000));
		else if (ms % 1000 == 0)
			snprintf(out, 32, "%llus", (unsigned long long)(ms / 1000));
		else
			snprintf(out, 32, "%llums", (unsigned long long)ms);
	} else if (o->type == TD_T_SIZE || o->type == TD_T_SIZE32) {
		const char *unit = v >> 30 && !(v & 0x3fffffff) ? "G"
				   : v >> 20 && !(v & 0xfffff)	? "M"
				   : v >> 10			? "K"
								: "";
		snprintf(out, 32, "%llu%s",
			 (unsigned long long)(v >> (*unit == 'G'   ? 30
						    : *unit == 'M' ? 20
						    : *unit	   ? 10
								   : 0)),
			 unit);
	} else {
		snprintf(out, 32, "%llu", (unsigned long long)v);
	}
}

static bool set_number(struct td_cfg_parse *p, int line, const struct td_opt *o, const char *value, uint64_t *v)
{
	const char *s = value, *want = "wants a number";
	int err = 0;
	if (o->type == TD_T_DURATION) {
		err = td_parse_duration(value, v);
		want = "wants a duration with a unit: 150ms, 10s, 5m, 1h30m";
	} else if (o->type == TD_T_SIZE || o->type == TD_T_SIZE32) {
		err = td_parse_size(value, v);
		want = "wants a size: 512K, 16M, 1G or bytes";
	} else if (!td_cfg_digits(&s, v) || *s) {
		err = TNL_ESYNTAX;
	}
	if (err == TNL_ESYNTAX && o->type == TD_T_PORT)
		want = "wants a port from 1 to 65535";
	if (err == TNL_ESYNTAX) {
		td_cfg_error(p, line, "%s = %s: %s", o->key, value, want);
		return false;
	}
	if (err || *v < o->lo || *v > o->hi) {
		char lo[32], hi[32];
		show(o, o->lo, lo);
		show(o, o->hi, hi);
		td_cfg_error(p, line, "%s = %s: out of range, %s to %s", o->key, value, lo, hi);
		return false;
	}
	return true;
}

static int word_index(const char *words, const char *value)
{
	size_t len = strlen(value);
	for (int i = 0;; i++) {
		size_t n = strcspn(words, "|");
		if (n == len && memcmp(words, value, n) == 0)
			return i;
		if (!words[n])
			return -1;
		words += n + 1;
	}
}

static int yes_no(const char *v)
{
	static const char *const yes[] = {"yes", "true", "on", "1"}, *const no[] = {"no", "false", "off", "0"};
	for (int i = 0; i < 4; i++) {
		if (strcasecmp(v, yes[i]) == 0)
			return 1;
		if (strcasecmp(v, no[i]) == 0)
			return 0;
	}
	return -1;
}

static bool set_session(struct td_cfg_parse *p, int line, const struct td_opt *o, struct td_tunnel_config *t,
			const char *value)
{
	uint64_t n;
	bool pool = strncmp(value, "pool", 4) == 0 && (value[4] == ' ' || value[4] == '\t');
	const char *s = pool ? value + 4 + strspn(value + 4, " \t") : value;
	t->pool = 1;
	if (strcmp(value, "shared") == 0) {
		t->session = TD_SESSION_SHARED;
	} else if (strcmp(value, "per-connection") == 0) {
		t->session = TD_SESSION_PER_CONNECTION;
	} else if (pool && td_cfg_digits(&s, &n) && !*s && n >= o->lo && n <= o->hi) {
		t->session = TD_SESSION_POOL;
		t->pool = (unsigned)n;
	} else {
		td_cfg_error(p, line, "%s = %s: wants shared, per-connection or pool N (N from %u to %u)", o->key,
			     value, (unsigned)o->lo, (unsigned)o->hi);
		return false;
	}
	return true;
}

bool td_value_set(struct td_cfg_parse *p, int line, const struct td_opt *o, void *base, const char *value)
{
	void *at = (char *)base + o->off;
	uint64_t v = 0;
	int k;
	if (!*value && o->type != TD_T_RULES) {
		td_cfg_error(p, line, "%s: the value is missing", o->key);
		return false;
	}
	switch (o->type) {
	case TD_T_LIST:
		return list_parse(p, line, o->key, value, at);
	case TD_T_LISTEN:
		return parse_listen(p, line, o, base, value);
	case TD_T_RULES:
		return td_rules_parse(p, line, o->key, value, at);
	case TD_T_SESSION:
		return set_session(p, line, o, base, value);
	case TD_T_BOOL:
	case TD_T_TRI:
		if ((k = yes_no(value)) < 0) {
			td_cfg_error(p, line, "%s = %s: wants yes or no", o->key, value);
			return false;
		}
		if (o->type == TD_T_TRI)
			*(int *)at = k;
		else
			*(bool *)at = k;
		return true;
	case TD_T_WORD:
	case TD_T_WORDBOOL:
		if ((k = word_index(o->words, value)) < 0) {
			td_cfg_error(p, line, "%s = %s: wants one of %s", o->key, value, o->words);
			return false;
		}
		if (o->type == TD_T_WORD)
			*(unsigned *)at = (unsigned)k; /* enums of the header have unsigned's size */
		else
			*(bool *)at = k;
		return true;
	case TD_T_DURATION:
	case TD_T_SIZE:
	case TD_T_SIZE32:
	case TD_T_UINT:
	case TD_T_PORT:
		if (!set_number(p, line, o, value, &v))
			return false;
		if (o->type == TD_T_PORT)
			*(uint16_t *)at = (uint16_t)v;
		else if (o->type == TD_T_UINT || o->type == TD_T_SIZE32)
			*(unsigned *)at = (unsigned)v;
		else
			*(uint64_t *)at = v;
		return true;
	default:
		return set_text(p, line, o, at, value);
	}
}

static bool is_text(enum td_opt_type t)
{
	return t <= TD_T_HOST;
}

void td_value_free(const struct td_opt *o, void *base)
{
	void *at = (char *)base + o->off;
	if (o->type == TD_T_LISTEN && (o->in & TD_IN(TUNNEL))) {
		struct td_tunnel_config *t = base;
		list_free(&t->listen);
		tnl_free(t->addrs);
		t->addrs = NULL;
		t->naddrs = 0;
	} else if (o->type == TD_T_LISTEN) {
		struct td_gateway_config *g = base;
		tnl_free(g->addrs);
		g->addrs = NULL;
		g->naddrs = 0;
	} else if (o->type == TD_T_LIST) {
		list_free(at);
	} else if (o->type == TD_T_RULES) {
		td_rules_free(at);
	} else if (is_text(o->type)) {
		char **s = at;
		if (*s && (o->flags & TD_F_SECRET))
			tnl_wipe(*s, strlen(*s));
		tnl_free(*s);
		*s = NULL;
	}
}

bool td_value_same(const struct td_opt *o, const void *a, const void *b)
{
	const void *x = (const char *)a + o->off, *y = (const char *)b + o->off;
	switch (o->type) {
	case TD_T_LIST:
		return list_same(x, y);
	case TD_T_RULES:
		return td_rules_same(x, y);
	case TD_T_LISTEN:
		if (o->in & TD_IN(TUNNEL))
			return list_same(&((const struct td_tunnel_config *)a)->listen,
					 &((const struct td_tunnel_config *)b)->listen);
		const struct td_gateway_config *g = a, *h = b;
		if (g->naddrs != h->naddrs)
			return false;
		for (int i = 0; i < g->naddrs; i++)
			if (g->addrs[i].len != h->addrs[i].len ||
			    memcmp(&g->addrs[i].sa, &h->addrs[i].sa, g->addrs[i].len) != 0)
				return false;
		return true;
	case TD_T_SESSION: {
		const struct td_tunnel_config *s = a, *t = b;
		return s->session == t->session && s->pool == t->pool;
	}
	case TD_T_BOOL:
	case TD_T_WORDBOOL:
		return *(const bool *)x == *(const bool *)y;
	case TD_T_PORT:
		return *(const uint16_t *)x == *(const uint16_t *)y;
	case TD_T_DURATION:
	case TD_T_SIZE:
		return *(const uint64_t *)x == *(const uint64_t *)y;
	case TD_T_SIZE32:
	case TD_T_UINT:
	case TD_T_WORD:
	case TD_T_TRI:
		return *(const unsigned *)x == *(const unsigned *)y;
	default: {
		const char *s = *(char *const *)x, *t = *(char *const *)y;
		return s == t || (s && t && strcmp(s, t) == 0);
	}
	}
}
