/* JSON over cJSON: a check of size, depth, UTF-8, NUL and duplicate keys around its parser, which
 * lets those pass, and a writer that needs no tree. */
#include "lib/json.h"
#include "lib/num.h"
#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/map.h"
#include "lib/steps.h"
#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* struct tnl_json is never defined: a node is a cJSON under another name. */
#define DEPTH_MAX 64
#define KEYS_MAX 1024u /* of one object */
/* Each value becomes a node of some 80 bytes, whatever it took to write it: more than a few thousand are taken from an
 * input only if they are four bytes each. */
#define VALUES_FREE 4096u
#define VALUE_BYTES 4u

static cJSON *node(const struct tnl_json *v)
{
	return (cJSON *)(uintptr_t)v;
}

static const struct tnl_json *as_json(const cJSON *c)
{
	return (const struct tnl_json *)(const void *)c;
}

/* --- strict syntax (RFC 8259): cJSON lets much pass ------------------------ */

struct scan {
	const uint8_t *p, *end;
	int depth;
	size_t values; /* that may still come */
};

static void scan_space(struct scan *s)
{
	while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == '\n' || *s->p == '\r'))
		s->p++;
}

static bool scan_char(struct scan *s, char c)
{
	if (s->p == s->end || *s->p != (uint8_t)c)
		return false;
	s->p++;
	return true;
}

static bool scan_digits(struct scan *s)
{
	const uint8_t *from = s->p;
	while (s->p < s->end && *s->p >= '0' && *s->p <= '9')
		s->p++;
	return s->p != from;
}

static bool scan_number(struct scan *s)
{
	const uint8_t *from = s->p;
	scan_char(s, '-');
	if (!scan_char(s, '0') && !scan_digits(s))
		return false;
	if (scan_char(s, '.') && !scan_digits(s))
		return false;
	if (scan_char(s, 'e') || scan_char(s, 'E')) {
		if (!scan_char(s, '+'))
			scan_char(s, '-');
		if (!scan_digits(s))
			return false;
	}
	/* cJSON copies a number into 64 bytes and would cut a longer one in two. */
	return s->p - from < 60;
}

static bool scan_escape(struct scan *s)
{
	if (s->p == s->end)
		return false;
	uint8_t c = *s->p++, hex[2];
	if (c != 'u')
		return c && strchr("\"\\/bfnrt", c);
	if (s->end - s->p < 4 || tnl_unhex((const char *)s->p, 4, hex))
		return false;
	s->p += 4;
	return hex[0] || hex[1];
}

static bool scan_string(struct scan *s)
{
	if (!scan_char(s, '"'))
		return false;
	while (s->p < s->end) {
		uint8_t c = *s->p++;
		if (c == '"')
			return true;
		if (c < 0x20 || (c == '\\' && !scan_escape(s)))
			return false;
	}
	return false;
}

static bool scan_word(struct scan *s, const char *w)
{
	size_t n = strlen(w);
	if ((size_t)(s->end - s->p) < n || memcmp(s->p, w, n) != 0)
		return false;
	s->p += n;
	return true;
}

static bool scan_value(struct scan *s);

static bool scan_members(struct scan *s, char close, bool keys)
{
	size_t left = keys ? KEYS_MAX : SIZE_MAX;
	if (++s->depth > DEPTH_MAX)
		return false;
	scan_space(s);
	if (scan_char(s, close)) {
		s->depth--;
		return true;
	}
	do {
		if (left-- == 0)
			return false;
		scan_space(s);
		if (keys) {
			if (!scan_string(s))
				return false;
			scan_space(s);
			if (!scan_char(s, ':'))
				return false;
		}
		if (!scan_value(s))
			return false;
	} while (scan_char(s, ','));
	s->depth--;
	return scan_char(s, close);
}

static bool scan_value(struct scan *s)
{
	bool ok;

	scan_space(s);
	if (s->p == s->end || s->values-- == 0)
		return false;
	switch (*s->p) {
	case '{':
		s->p++;
		ok = scan_members(s, '}', true);
		break;
	case '[':
		s->p++;
		ok = scan_members(s, ']', false);
		break;
	case '"':
		ok = scan_string(s);
		break;
	case 't':
		ok = scan_word(s, "true");
		break;
	case 'f':
		ok = scan_word(s, "false");
		break;
	case 'n':
		ok = scan_word(s, "null");
		break;
	default:
		ok = scan_number(s);
	}
	scan_space(s);
	return ok;
}

/* --- tree ------------------------------------------------------------------ */

static bool unique_small(const cJSON *o)
{
	for (const cJSON *a = o->child; a; a = a->next)
		for (const cJSON *b = a->next; b; b = b->next) {
			tnl_step();
			if (strcmp(a->string, b->string) == 0)
				return false;
		}
	return true;
}

/* With many keys the comparison of each with each would be a gift to an attacker. */
static bool unique_large(const cJSON *o)
{
	struct tnl_map *seen = tnl_map_new();
	bool ok = seen != NULL;

	for (const cJSON *a = o->child; ok && a; a = a->next)
		ok = !tnl_map_get_str(seen, a->string) && !tnl_map_set_str(seen, a->string, (void *)(uintptr_t)a);
	tnl_map_free(seen);
	return ok;
}

static bool keys_unique(const cJSON *v)
{
	if (!cJSON_IsObject(v) && !cJSON_IsArray(v))
		return true;
	if (cJSON_IsObject(v) && !(cJSON_GetArraySize(v) <= 16 ? unique_small(v) : unique_large(v)))
		return false;
	for (const cJSON *c = v->child; c; c = c->next)
		if (!keys_unique(c))
			return false;
	return true;
}

struct tnl_json *tnl_json_parse(const void *p, size_t n)
{
	struct scan s = {.p = p, .end = (const uint8_t *)p + n, .values = VALUES_FREE + n / VALUE_BYTES};

	if (!n || !tnl_utf8_valid(p, n) || !scan_value(&s) || s.p != s.end)
		return NULL;
	/* The tree lives on the library's allocator, so that the failure sweep reaches it. */
	cJSON_Hooks hooks = {.malloc_fn = tnl_malloc, .free_fn = tnl_free};
	cJSON_InitHooks(&hooks);
	cJSON *root = cJSON_ParseWithLength(p, n);
	if (root && !keys_unique(root)) {
		cJSON_Delete(root);
		root = NULL;
	}
	return (struct tnl_json *)(void *)root;
}

/* cJSON keeps copies of strings: they may hold tokens and keys. */
static void wipe_strings(cJSON *v)
{
	for (; v; v = v->next) {
		if (v->valuestring)
			tnl_wipe(v->valuestring, strlen(v->valuestring));
		wipe_strings(v->child);
	}
}

void tnl_json_free(struct tnl_json *root)
{
	if (!root)
		return;
	wipe_strings(node(root));
	cJSON_Delete(node(root));
}

const struct tnl_json *tnl_json_get(const struct tnl_json *o, const char *key)
{
	if (!cJSON_IsObject(node(o)))
		return NULL;
	for (const cJSON *c = node(o)->child; c; c = c->next) {
		tnl_step();
		if (strcmp(c->string, key) == 0)
			return as_json(c);
	}
	return NULL;
}

const struct tnl_json *tnl_json_iget(const struct tnl_json *o, const char *key)
{
	if (!cJSON_IsObject(node(o)))
		return NULL;
	const struct tnl_json *exact = tnl_json_get(o, key);
	if (exact)
		return exact;
	for (const cJSON *c = node(o)->child; c; c = c->next) {
		tnl_step();
		if (tnl_ieq(c->string, key))
			return as_json(c);
	}
	return NULL;
}

const struct tnl_json *tnl_json_first(const struct tnl_json *a)
{
	tnl_step();
	return cJSON_IsArray(node(a)) || cJSON_IsObject(node(a)) ? as_json(node(a)->child) : NULL;
}

const struct tnl_json *tnl_json_next(const struct tnl_json *member)
{
	tnl_step();
	return as_json(node(member)->next);
}

const struct tnl_json *tnl_json_at(const struct tnl_json *a, int i)
{
	const struct tnl_json *v = i < 0 ? NULL : tnl_json_first(a);
	while (v && i--)
		v = tnl_json_next(v);
	return v;
}

int tnl_json_len(const struct tnl_json *a)
{
	int n = 0;
	tnl_json_each(v, a)
		n++;
	return n;
}

const char *tnl_json_key(const struct tnl_json *member)
{
	return member ? node(member)->string : NULL;
}

const char *tnl_json_str(const struct tnl_json *v)
{
	return cJSON_IsString(node(v)) ? node(v)->valuestring : NULL;
}

const char *tnl_json_get_str(const struct tnl_json *o, const char *key)
{
	return tnl_json_str(tnl_json_get(o, key));
}

static int copy_str(const char *s, size_t n, char **out)
{
	char *copy = tnl_strndup(s, n);
	if (!copy)
		return TNL_ENOMEM;
	*out = copy;
	return 0;
}

int tnl_json_take_str(const struct tnl_json *v, size_t max, char **out)
{
	const char *s = tnl_json_str(v);
	size_t n = s ? strlen(s) : 0;
	return !s ? TNL_ESYNTAX : n > max ? TNL_ELIMIT : copy_str(s, n, out);
}

int tnl_json_cut_str(const struct tnl_json *v, size_t max, char **out)
{
	const char *s = tnl_json_str(v);
	return !s ? TNL_ESYNTAX : copy_str(s, tnl_utf8_cut(s, strlen(s), max), out);
}

bool tnl_json_int(const struct tnl_json *v, int64_t *out)
{
	if (!cJSON_IsNumber(node(v)))
		return false;
	double d = node(v)->valuedouble;
	/* Beyond 2^53 a double no longer names one integer. */
	if (!(d >= -9007199254740992.0 && d <= 9007199254740992.0) || d != floor(d))
		return false;
	*out = (int64_t)d;
	return true;
}

bool tnl_json_bool(const struct tnl_json *v, bool dflt)
{
	return cJSON_IsBool(node(v)) ? cJSON_IsTrue(node(v)) : dflt;
}

bool tnl_json_is_null(const struct tnl_json *v)
{
	return cJSON_IsNull(node(v));
}

bool tnl_json_is_obj(const struct tnl_json *v)
{
	return cJSON_IsObject(node(v));
}

bool tnl_json_is_arr(const struct tnl_json *v)
{
	return cJSON_IsArray(node(v));
}

int tnl_json_print(const struct tnl_json *v, struct tnl_buf *out)
{
	char *s = cJSON_PrintUnformatted(node(v));
	if (!s) {
		out->failed = true;
		return TNL_ENOMEM;
	}
	int rc = tnl_buf_puts(out, s);
	tnl_free_wiped(s, strlen(s));
	return rc;
}

/* --- writer ---------------------------------------------------------------- */

void tnl_jw_init(struct tnl_jw *w, struct tnl_buf *b)
{
	*w = (struct tnl_jw){.b = b, .first = 1};
}

/* The comma in front of a value or key: bit `depth` of `first` says "none yet here". */
static void separate(struct tnl_jw *w)
{
	if (w->after_key)
		w->after_key = false;
	else if (!(w->first >> w->depth & 1))
		tnl_buf_putc(w->b, ',');
	w->first &= ~(1ull << w->depth);
}

static void open_level(struct tnl_jw *w, int c)
{
	separate(w);
	tnl_buf_putc(w->b, c);
	if (w->depth == 63)
		w->b->failed = true;
	else
		w->first |= 1ull << ++w->depth;
}

static void close_level(struct tnl_jw *w, int c)
{
	tnl_buf_putc(w->b, c);
	if (w->depth)
		w->depth--;
}

void tnl_jw_obj(struct tnl_jw *w)
{
	open_level(w, '{');
}

void tnl_jw_end_obj(struct tnl_jw *w)
{
	close_level(w, '}');
}

void tnl_jw_arr(struct tnl_jw *w)
{
	open_level(w, '[');
}

void tnl_jw_end_arr(struct tnl_jw *w)
{
	close_level(w, ']');
}

/* Whole UTF-8 characters pass, those that a terminal must not see as escapes; a stray byte would make the document
 * invalid.  How many bytes it was. */
static size_t put_character(struct tnl_buf *b, const uint8_t *p, size_t n)
{
	size_t k = tnl_utf8_len(p, n);
	if (!k || tnl_utf8_printable(p, n))
		tnl_buf_put(b, k ? p : (const uint8_t *)"\xef\xbf\xbd", k ? k : 3);
	else if (k == 2)
		tnl_buf_printf(b, "\\u%04x", (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu));
	else
		tnl_buf_printf(b, "\\u%04x", (p[0] & 0xfu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu));
	return k ? k : 1;
}

static void put_string(struct tnl_buf *b, const char *s, size_t n)
{
	const uint8_t *p = (const uint8_t *)s, *end = p + n;

	tnl_buf_putc(b, '"');
	while (p < end) {
		const uint8_t *from = p;
		while (p < end && *p >= 0x20 && *p < 0x7f && *p != '"' && *p != '\\')
			p++;
		tnl_buf_put(b, from, (size_t)(p - from));
		if (p == end)
			break;
		const char *at, shorts[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
		size_t k = 1;
		if (*p && (at = strchr(shorts, *p))) {
			tnl_buf_printf(b, "\\%c", letters[at - shorts]);
		} else if (*p < 0x20 || *p == 0x7f) {
			tnl_buf_printf(b, "\\u%04x", *p);
		} else {
			k = put_character(b, p, (size_t)(end - p));
		}
		p += k;
	}
	tnl_buf_putc(b, '"');
}

void tnl_jw_key(struct tnl_jw *w, const char *key)
{
	separate(w);
	put_string(w->b, key, strlen(key));
	tnl_buf_putc(w->b, ':');
	w->after_key = true;
}

void tnl_jw_strn(struct tnl_jw *w, const char *s, size_t n)
{
	separate(w);
	put_string(w->b, s, n);
}

void tnl_jw_str(struct tnl_jw *w, const char *s)
{
	if (s)
		tnl_jw_strn(w, s, strlen(s));
	else
		tnl_jw_null(w);
}

void tnl_jw_int(struct tnl_jw *w, int64_t v)
{
	separate(w);
	tnl_buf_printf(w->b, "%lld", (long long)v);
}

void tnl_jw_bool(struct tnl_jw *w, bool v)
{
	tnl_jw_raw(w, v ? "true" : "false");
}

void tnl_jw_null(struct tnl_jw *w)
{
	tnl_jw_raw(w, "null");
}

void tnl_jw_raw(struct tnl_jw *w, const char *json)
{
	separate(w);
	tnl_buf_puts(w->b, json);
}

void tnl_jw_kv(struct tnl_jw *w, const char *key, const char *s)
{
	tnl_jw_key(w, key);
	tnl_jw_str(w, s);
}

void tnl_jw_kvi(struct tnl_jw *w, const char *key, int64_t v)
{
	tnl_jw_key(w, key);
	tnl_jw_int(w, v);
}
