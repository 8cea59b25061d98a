/* What can be done with a value of each type: one row a type.  Numbers, texts and rules have files of their own; the
 * smaller ones (lists, addresses, words, yes and no) are here. */
#include "tunneld/config/internal.h"
#include "lib/alloc.h"
#include "lib/num.h"
#include "lib/target.h"
#include <string.h>
#include <strings.h>

enum { LISTEN_MAX = 16, TAGS_MAX = 50 }; /* of one section */

/* The value itself, from any of the structures. */
static void *field(const struct td_opt *o, void *base)
{
	return (char *)base + o->off;
}

/* --- lists ------------------------------------------------------------------------ */

static void list_add(struct td_strlist *l, const char *s, size_t n)
{
	l->v = td_cfg_grow(l->v, (size_t)(l->n + 1) * sizeof(*l->v));
	l->v[l->n++] = td_cfg_dup(s, n);
}

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
		if (len) {
			list_add(out, s, len);
		} else {
			td_cfg_error(p, line, "%s: an entry of the list is empty", key);
			ok = false;
		}
		if (!s[n])
			return ok;
		s += n + 1;
	}
}

static bool set_list(struct td_cfg_parse *p, int line, const struct td_opt *o, void *base, const char *value)
{
	return list_parse(p, line, o->key, value, field(o, base));
}

static bool set_ports(struct td_cfg_parse *p, int line, const struct td_opt *o, void *base, const char *value)
{
	struct td_strlist *l = field(o, base);
	bool ok = list_parse(p, line, o->key, value, l), valid;
	for (int i = 0; i < l->n; i++) {
		(void)td_config_port_in(l->v[i], 0, &valid);
		if (!valid)
			td_cfg_error(p, line, "%s = %s: must be a port from 1 to 65535, LOW-HIGH, or *", o->key,
				     l->v[i]);
		ok = ok && valid;
	}
	return ok;
}

static bool has_key(const struct td_strlist *l, int n, const char *tag)
{
	size_t len = strcspn(tag, "=");
	for (int i = 0; i < n; i++)
		if (strncmp(l->v[i], tag, len + 1) == 0)
			return true;
	return false;
}

static bool set_tags(struct td_cfg_parse *p, int line, const struct td_opt *o, void *base, const char *value)
{
	struct td_strlist *l = field(o, base);
	bool ok = list_parse(p, line, o->key, value, l);
	for (int i = 0; i < l->n; i++) {
		char *text = l->v[i], *eq = strchr(text, '=');
		size_t key = eq ? (size_t)(eq - text) : 0, v = eq ? strspn(eq + 1, " \t") : 0;
		while (key && (text[key - 1] == ' ' || text[key - 1] == '\t'))
			key--;
		const char *fault = !key || !eq[1 + v] ? "must be KEY=VALUE"
				    : key > TNL_TARGET_KEY || strlen(eq + 1 + v) > TNL_TARGET_VALUE ? "is too long"
				    : l->n > TAGS_MAX ? "is one too many: at most 50"
						      : NULL;
		if (!fault) { /* without blanks around the = */
			memmove(text + key + 1, eq + 1 + v, strlen(eq + 1 + v) + 1);
			text[key] = '=';
			fault = has_key(l, i, text) ? "has that key a second time" : NULL;
		}
		if (fault)
			td_cfg_error(p, line, "%s = %s: %s", o->key, text, fault);
		ok = ok && !fault;
	}
	return ok;
}

/* false: said. */
static bool check_url(struct td_cfg_parse *p, int line, const char *key, const struct td_strlist *l, int k)
{
	size_t len = strlen(l->v[k]);
	const char *fault = td_text_url_fault(l->v[k], &len);
	if (!fault)
		l->v[k][len] = '\0';
	for (int i = 0; i < k && !fault; i++)
		fault = strcmp(l->v[i], l->v[k]) == 0 ? "stands there twice" : NULL;
	if (!fault && k >= TD_ENDPOINTS_MAX)
		fault = "is one too many: at most 8";
	if (fault)
		td_cfg_error(p, line, "%s = %s: %s", key, l->v[k], fault);
	return !fault;
}

static char *join(const struct td_strlist *l)
{
	size_t len = 1;
	for (int i = 0; i < l->n; i++)
		len += strlen(l->v[i]) + 1;
	char *out = td_cfg_alloc(len), *end = out;
	*out = '\0';
	for (int i = 0; i < l->n; i++)
		end = stpcpy(stpcpy(end, i ? "," : ""), l->v[i]);
	return out;
}

static bool set_urls(struct td_cfg_parse *p, int line, const struct td_opt *o, void *base, const char *value)
{
	char **to = field(o, base);
	struct td_strlist l = {0};
	bool ok = list_parse(p, line, o->key, value, &l);
	for (int i = 0; i < l.n; i++)
		ok &= check_url(p, line, o->key, &l, i);
	if (ok) {
		tnl_free(*to);
		*to = join(&l);
	}
	list_free(&l);
	return ok;
}

static void clear_list(const struct td_opt *o, void *base)
{
	list_free(field(o, base));
}

static bool same_list(const struct td_opt *o, const void *a, const void *b)
{
	return list_same((const void *)((const char *)a + o->off), (const void *)((const char *)b + o->off));
}

static void inherit_list(const struct td_opt *o, void *base, const void *from)
{
	struct td_strlist *l = field(o, base);
	const struct td_strlist *theirs = (const void *)((const char *)from + o->off);
	if (l->n)
		return;
	for (int i = 0; i < theirs->n; i++)
		list_add(l, theirs->v[i], strlen(theirs->v[i]));
}

/* --- addresses ----------------------------------------------------------------------- */

struct addrs {
	struct td_strlist text; /* as written */
	struct td_addr *v;
	int n;
};

/* unix:NAME is beside the file; other texts stay. */
static void absolute_socket(const struct td_cfg_parse *p, char **text)
{
	const char *name = *text + 5;
	if (strncmp(*text, "unix:", 5) != 0 || *name == '/' || !*name)
		return;
	char *path = td_text_path(p->dir, name);
	size_t len = strlen(path) + 6;
	char *full = td_cfg_alloc(len);
	snprintf(full, len, "unix:%s", path);
	tnl_free(path);
	tnl_free(*text);
	*text = full;
}

/* Of one entry; ports of each range that there may be. */
static const char *parse_entry(const char *text, bool ranges, struct addrs *out, unsigned *ports)
{
	struct td_addr got[4];
	char first[192];
	const char *fault = "not an address";
	unsigned n = 1;
	const char *bad = ranges ? td_number_ports(text, first, sizeof(first), &n) : NULL;
	int k = bad ? 0 : td_addr_parse(ranges ? first : text, got, 4, &fault);
	if (bad || k <= 0)
		return bad ? bad : fault;
	if (out->n && n != *ports)
		return "all entries have to be as many ports";
	*ports = n;
	out->v = td_cfg_grow(out->v, ((size_t)out->n + (size_t)k * n) * sizeof(*out->v));
	for (int i = 0; i < k; i++)
		for (unsigned j = 0; j < n; j++) {
			out->v[out->n] = got[i];
			if (n > 1)
				td_addr_set_port(&out->v[out->n], (uint16_t)(td_addr_port(&got[i]) + j));
			out->n++;
		}
	return NULL;
}

static bool parse_addrs(struct td_cfg_parse *p, int line, const struct td_opt *o, const char *value, bool ranges,
			struct addrs *out, unsigned *ports)
{
	bool ok = list_parse(p, line, o->key, value, &out->text);
	*ports = 1;
	for (int i = 0; i < out->text.n; i++) {
		absolute_socket(p, &out->text.v[i]);
		const char *fault = parse_entry(out->text.v[i], ranges, out, ports);
		if (fault)
			td_cfg_error(p, line, "%s = %s: %s", o->key, out->text.v[i], fault);
		ok = ok && !fault;
	}
	if (out->n > LISTEN_MAX * (int)*ports) {
		td_cfg_error(p, line, "%s: more than %d addresses", o->key, LISTEN_MAX);
		ok = false;
	}
	return ok;
}

static bool set_listen(struct td_cfg_parse *p, int line, const struct td_opt *o, void *base, const char *value)
{
	struct td_tunnel_config *t = base;
	struct addrs a = {0};
	bool ok = parse_addrs(p, line, o, value, true, &a, &t->listen_ports);
	t->listen = a.text;
	t->addrs = a.v;
	t->naddrs = a.n;
	return ok;
}

static void clear_listen(const struct td_opt *o, void *base)
{
	struct td_tunnel_config *t = base;
	list_free(&t->listen);
	tnl_free(t->addrs);
	t->addrs = NULL;
	t->naddrs = 0;
}

static bool same_listen(const struct td_opt *o, const void *a, const void *b)
{
	const struct td_tunnel_config *s = a, *t = b;
	return list_same(&s->listen, &t->listen);
}

/* Where the option points: the addresses and, behind them, how many. */
struct td_addr_list {
	struct td_addr *v;
	int n;
};

static struct td_addr_list *addrs_at(const struct td_opt *o, void *base)
{
	return (void *)((char *)base + o->off);
}

static bool set_addrs(struct td_cfg_parse *p, int line, const struct td_opt *o, void *base, const char *value)
{
	struct addrs a = {0};
	unsigned one;
	bool ok = parse_addrs(p, line, o, value, false, &a, &one);
	list_free(&a.text);
	*addrs_at(o, base) = (struct td_addr_list){a.v, a.n};
	return ok;
}

static void clear_addrs(const struct td_opt *o, void *base)
{
	struct td_addr_list *l = addrs_at(o, base);
	tnl_free(l->v);
	*l = (struct td_addr_list){0};
}

static bool same_addrs(const struct td_opt *o, const void *a, const void *b)
{
	const struct td_addr_list *g = (const void *)((const char *)a + o->off);
	const struct td_addr_list *h = (const void *)((const char *)b + o->off);
	if (g->n != h->n)
		return false;
	for (int i = 0; i < g->n; i++)
		if (g->v[i].len != h->v[i].len || memcmp(&g->v[i].sa, &h->v[i].sa, g->v[i].len) != 0)
			return false;
	return true;
}

_Static_assert(offsetof(struct td_gateway_config, naddrs) ==
		   offsetof(struct td_gateway_config, addrs) + offsetof(struct td_addr_list, n),
	       "addresses and their number stand together");
_Static_assert(offsetof(struct td_config, nhttp) == offsetof(struct td_config, http) + offsetof(struct td_addr_list, n),
	       "addresses and their number stand together");

/* --- words ----------------------------------------------------------------------------- */

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

/* Which of the option's words; false: none, and said. */
static bool parse_word(struct td_cfg_parse *p, int line, const struct td_opt *o, const char *value, unsigned *index)
{
	int k = word_index(o->words, value);
	if (k < 0)
		td_cfg_error(p, line, "%s = %s: must be one of %s", o->key, value, o->words);
	*index = k < 0 ? 0 : (unsigned)k;
	return k >= 0;
}

static bool set_word(struct td_cfg_parse *p, int line, const struct td_opt *o, void *base, const char *value)
{
	unsigned k;
	if (!parse_word(p, line, o, value, &k))
		return false;
	*(unsigned *)field(o, base) = k; /* enums of the header have unsigned's size */
	return true;
}

static bool set_wordbool(struct td_cfg_parse *p, int line, const struct td_opt *o, void *base, const char *value)
{
	unsigned k;
	if (!parse_word(p, line, o, value, &k))
		return false;
	*(bool *)field(o, base) = k;
	return true;
}

/* 1, 0, or -1: neither, and said. */
static int yes_no(struct td_cfg_parse *p, int line, const struct td_opt *o, const char *value)
{
	static const char *const yes[] = {"yes", "true", "on", "1"}, *const no[] = {"no", "false", "off", "0"};
	for (size_t i = 0; i < TNL_COUNT(yes); i++) {
		if (strcasecmp(value, yes[i]) == 0)
			return 1;
		if (strcasecmp(value, no[i]) == 0)
			return 0;
	}
	td_cfg_error(p, line, "%s = %s: must be yes or no", o->key, value);
	return -1;
}

static bool set_bool(struct td_cfg_parse *p, int line, const struct td_opt *o, void *base, const char *value)
{
	int k = yes_no(p, line, o, value);
	if (k < 0)
		return false;
	*(bool *)field(o, base) = k;
	return true;
}

static bool set_tri(struct td_cfg_parse *p, int line, const struct td_opt *o, void *base, const char *value)
{
	int k = yes_no(p, line, o, value);
	if (k < 0)
		return false;
	*(int *)field(o, base) = k;
	return true;
}

static void clear_tri(const struct td_opt *o, void *base)
{
	*(int *)field(o, base) = -1;
}

static void inherit_tri(const struct td_opt *o, void *base, const void *from)
{
	int *k = field(o, base);
	if (*k < 0)
		*k = *(const int *)(const void *)((const char *)from + o->off);
}

static bool same_scalar(const struct td_opt *o, const void *a, const void *b)
{
	return memcmp((const char *)a + o->off, (const char *)b + o->off, o->type->size) == 0;
}

/* --- session = … ---------------------------------------------------------------------------- */

static bool set_session(struct td_cfg_parse *p, int line, const struct td_opt *o, void *base, const char *value)
{
	struct td_tunnel_config *t = base;
	uint64_t n;
	bool pool = strncmp(value, "pool", 4) == 0 && (value[4] == ' ' || value[4] == '\t');
	t->pool = 1;
	if (strcmp(value, "shared") == 0) {
		t->session = TD_SESSION_SHARED;
	} else if (strcmp(value, "per-connection") == 0) {
		t->session = TD_SESSION_PER_CONNECTION;
	} else if (pool && td_number_plain(value + 4 + strspn(value + 4, " \t"), &n) == 0 && n >= o->lo && n <= o->hi) {
		t->session = TD_SESSION_POOL;
		t->pool = (unsigned)n;
	} else {
		td_cfg_error(p, line, "%s = %s: must be shared, per-connection or pool N (N from %u to %u)", o->key,
			     value, (unsigned)o->lo, (unsigned)o->hi);
		return false;
	}
	return true;
}

static void inherit_session(const struct td_opt *o, void *base, const void *from)
{
	struct td_tunnel_config *t = base;
	const struct td_tunnel_config *theirs = from;
	t->session = theirs->session;
	t->pool = theirs->pool;
}

static bool same_session(const struct td_opt *o, const void *a, const void *b)
{
	const struct td_tunnel_config *s = a, *t = b;
	return s->session == t->session && s->pool == t->pool;
}

/* --- the types --------------------------------------------------------------------------------- */

#define TEXT .set = td_text_set, .clear = td_text_clear, .same = td_text_same, .inherit = td_text_inherit
#define NUMBER(type) .set = td_number_set, .same = same_scalar, .size = sizeof(type)
#define SCALAR(type) .same = same_scalar, .size = sizeof(type)

#define DURATION_NEEDS "must be a duration with a unit: 150ms, 10s, 5m, 1h30m"
#define SIZE_NEEDS "must be a size: 512K, 16M, 1G or bytes"

/* clang-format off */
const struct td_type td_types[TD_T_COUNT] = {
	[TD_T_TEXT]     = {.name = "text", TEXT},
	[TD_T_ID]       = {.name = "text", TEXT, .fault = td_text_id_fault},
	[TD_T_SECRET]   = {.name = "text", TEXT, .fault = td_text_secret_fault},
	[TD_T_KEYID]    = {.name = "text", TEXT, .fault = td_text_keyid_fault},
	[TD_T_REGION]   = {.name = "region", TEXT, .fault = td_text_region_fault},
	[TD_T_TARGET]   = {.name = "target", TEXT, .fault = td_text_target_fault},
	[TD_T_FIND]     = {.name = "target", TEXT, .fault = td_text_find_fault, .keep = td_text_keep_finds},
	[TD_T_FINDS]    = {.name = "targets", TEXT, .fault = td_text_finds_fault, .keep = td_text_keep_finds},
	[TD_T_TAGS]     = {.name = "tags", .set = set_tags, .clear = clear_list, .same = same_list},
	[TD_T_PATH]     = {.name = "path", TEXT, .keep = td_text_keep_path},
	[TD_T_FILE]     = {.name = "file", TEXT, .is_file = true, .keep = td_text_keep_path},
	[TD_T_KEYFILE]  = {.name = "private file", TEXT, .is_file = true, .is_private = true, .keep = td_text_keep_path},
	[TD_T_SECRETF] = {.name = "private file", TEXT, .is_file = true, .is_private = true, .keep = td_text_keep_credential},
	[TD_T_AUDIT]    = {.name = "path or syslog", TEXT, .keep = td_text_keep_audit},
	[TD_T_STORE]    = {.name = "sqlite:PATH or URL", TEXT, .fault = td_text_store_fault, .keep = td_text_keep_store},
	[TD_T_PEER]     = {.name = "address", TEXT, .fault = td_text_peer_fault},
	[TD_T_NODE]     = {.name = "name", TEXT, .fault = td_text_node_fault},
	[TD_T_URL]      = {.name = "URL", TEXT, .fault = td_text_url_fault},
	[TD_T_URLS]     = {.name = "URLs", .set = set_urls, .clear = td_text_clear, .same = td_text_same, .inherit = td_text_inherit},
	[TD_T_PROXY]    = {.name = "URL or none", TEXT, .fault = td_text_proxy_fault},
	[TD_T_BIND]     = {.name = "address", TEXT, .fault = td_text_bind_fault},
	[TD_T_CONNECT]  = {.name = "address", TEXT, .fault = td_text_connect_fault},
	[TD_T_DIRECT]   = {.name = "address", TEXT, .fault = td_text_direct_fault},
	[TD_T_HOST]     = {.name = "host", TEXT, .fault = td_text_host_fault},
	[TD_T_DURATION] = {.name = "duration", NUMBER(uint64_t), .number = td_number_duration, .show = td_number_show_duration, .needs = DURATION_NEEDS},
	[TD_T_SIZE]     = {.name = "size", NUMBER(uint64_t), .number = td_number_size, .show = td_number_show_size, .needs = SIZE_NEEDS},
	[TD_T_SIZE32]   = {.name = "size", NUMBER(unsigned), .number = td_number_size, .show = td_number_show_size, .needs = SIZE_NEEDS},
	[TD_T_UINT]     = {.name = "number", NUMBER(unsigned), .number = td_number_plain, .show = td_number_show_plain, .needs = "must be a number"},
	[TD_T_PORT]     = {.name = "port", NUMBER(uint16_t), .number = td_number_plain, .show = td_number_show_plain, .needs = "must be a port from 1 to 65535"},
	[TD_T_PLACE]    = {.name = "port or LOW-HIGH or unix:PATH", .set = td_place_set, .clear = td_place_clear, .same = td_place_same, .inherit = td_place_inherit},
	[TD_T_MODE]     = {.name = "mode", NUMBER(unsigned), .number = td_number_octal, .show = td_number_show_octal, .needs = "must be a mode in octal, as 0660"},
	[TD_T_USERS]    = {.name = "private file", .set = td_users_set, .clear = td_users_clear, .same = td_users_same, .inherit = td_users_inherit},
	[TD_T_BOOL]     = {.name = "yes or no", SCALAR(bool), .set = set_bool},
	[TD_T_TRI]      = {.name = "yes or no", SCALAR(int), .set = set_tri, .clear = clear_tri, .inherit = inherit_tri},
	[TD_T_WORD]     = {SCALAR(unsigned), .set = set_word},
	[TD_T_WORDBOOL] = {SCALAR(bool), .set = set_wordbool},
	[TD_T_SESSION]  = {.name = "shared|per-connection|pool N", .set = set_session, .same = same_session, .inherit = inherit_session},
	[TD_T_LIST]     = {.name = "list", .set = set_list, .clear = clear_list, .same = same_list, .inherit = inherit_list},
	[TD_T_PORTS]    = {.name = "list of ports", .set = set_ports, .clear = clear_list, .same = same_list, .inherit = inherit_list},
	[TD_T_LISTEN]   = {.name = "addresses", .set = set_listen, .clear = clear_listen, .same = same_listen},
	[TD_T_ADDRS]    = {.name = "addresses", .set = set_addrs, .clear = clear_addrs, .same = same_addrs},
	[TD_T_RULES]    = {.name = "rules", .may_be_empty = true, .set = td_rules_set, .clear = td_rules_clear, .same = td_rules_same, .inherit = td_rules_inherit},
	[TD_T_CIDRS]    = {.name = "list of networks", .set = td_cidrs_set, .clear = td_cidrs_clear, .same = td_cidrs_same},
};
/* clang-format on */

bool td_value_set(struct td_cfg_parse *p, int line, const struct td_opt *o, void *base, const char *value)
{
	if (!*value && !o->type->may_be_empty) {
		td_cfg_error(p, line, "%s: the value is missing", o->key);
		return false;
	}
	if (!o->type->set(p, line, o, base, value))
		return false;
	if (o->set_off)
		*((bool *)base + o->set_off) = true;
	return true;
}

void td_value_clear(const struct td_opt *o, void *base)
{
	if (o->type->clear)
		o->type->clear(o, base);
	if (o->set_off)
		*((bool *)base + o->set_off) = false;
}

bool td_value_same(const struct td_opt *o, const void *a, const void *b)
{
	return o->type->same(o, a, b) &&
	       (!o->set_off || *((const bool *)a + o->set_off) == *((const bool *)b + o->set_off));
}
