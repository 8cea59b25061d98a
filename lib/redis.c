/* RESP2 by hiredis' reader and formatter.  The reader's objects are ours: an array that is announced larger than its
 * bound, or a reply of more parts than there may be, is refused before anything is allocated for it; a string waits in
 * the reader's buffer until it is whole, and that buffer has a bound as well.
 *
 * (hiredis 0.14.1-3 of Debian has the fix of CVE-2021-32765, an overflow where it allocates arrays; that code is not
 * used here.) */
#include "lib/redis.h"
#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/err.h"
#include <hiredis/hiredis.h>
#include <stdlib.h>
#include <string.h>

struct tnl_redis_reader {
	redisReader *r;
	unsigned nodes; /* of the reply that is under way */
	bool too_big;
};

/* --- objects ---------------------------------------------------------------- */
void tnl_redis_reply_free(struct tnl_redis_reply *r)
{
	if (!r)
		return;
	for (size_t i = 0; i < r->n; i++)
		tnl_redis_reply_free(r->element[i]); /* hiredis bounds the depth */
	tnl_free(r->element);
	if (r->str)
		tnl_free_wiped(r->str, r->len);
	tnl_free(r);
}

static enum tnl_redis_type type_of(int hiredis_type)
{
	switch (hiredis_type) {
	case REDIS_REPLY_ARRAY:
		return TNL_REDIS_ARRAY;
	case REDIS_REPLY_INTEGER:
		return TNL_REDIS_INTEGER;
	case REDIS_REPLY_NIL:
		return TNL_REDIS_NIL;
	case REDIS_REPLY_STATUS:
		return TNL_REDIS_STATUS;
	case REDIS_REPLY_ERROR:
		return TNL_REDIS_ERROR;
	default:
		return TNL_REDIS_STRING;
	}
}

/* In its place in the array that is read; the root stays with the reader. NULL: over a bound, or no memory. */
static struct tnl_redis_reply *add_node(const redisReadTask *t, enum tnl_redis_type type)
{
	struct tnl_redis_reader *rd = t->privdata;
	if (rd->nodes >= TNL_REDIS_NODES) {
		rd->too_big = true;
		return NULL;
	}
	struct tnl_redis_reply *r = tnl_calloc(1, sizeof(*r));
	if (!r)
		return NULL;
	rd->nodes++;
	r->type = type;
	return r;
}

static void *put_node(const redisReadTask *t, struct tnl_redis_reply *r)
{
	struct tnl_redis_reply *in = t->parent ? t->parent->obj : NULL;
	if (in)
		in->element[t->idx] = r;
	return r;
}

static void *make_string(const redisReadTask *t, char *s, size_t n)
{
	struct tnl_redis_reader *rd = t->privdata;
	if (n > TNL_REDIS_BULK) {
		rd->too_big = true;
		return NULL;
	}
	struct tnl_redis_reply *r = add_node(t, type_of(t->type));
	if (!r)
		return NULL;
	r->str = tnl_malloc(n + 1);
	if (!r->str) {
		tnl_free(r);
		return NULL;
	}
	memcpy(r->str, s, n);
	r->str[n] = 0;
	r->len = n;
	return put_node(t, r);
}

static void *make_array(const redisReadTask *t, int n)
{
	struct tnl_redis_reader *rd = t->privdata;
	if (n < 0 || (unsigned)n > TNL_REDIS_ELEMENTS || (unsigned)n > TNL_REDIS_NODES - rd->nodes) {
		rd->too_big = true;
		return NULL;
	}
	struct tnl_redis_reply *r = add_node(t, TNL_REDIS_ARRAY);
	if (!r)
		return NULL;
	if (n && !(r->element = tnl_calloc((size_t)n, sizeof(struct tnl_redis_reply *)))) {
		tnl_free(r);
		return NULL;
	}
	r->n = (size_t)n;
	return put_node(t, r);
}

static void *make_integer(const redisReadTask *t, long long v)
{
	struct tnl_redis_reply *r = add_node(t, TNL_REDIS_INTEGER);
	if (!r)
		return NULL;
	r->integer = v;
	return put_node(t, r);
}

static void *make_nil(const redisReadTask *t)
{
	struct tnl_redis_reply *r = add_node(t, TNL_REDIS_NIL);
	return r ? put_node(t, r) : NULL;
}

static void free_object(void *o)
{
	tnl_redis_reply_free(o);
}

/* --- the reader --------------------------------------------------------------- */
struct tnl_redis_reader *tnl_redis_reader_new(void)
{
	static redisReplyObjectFunctions fns = {make_string, make_array, make_integer, make_nil, free_object};
	struct tnl_redis_reader *rd = tnl_calloc(1, sizeof(*rd));
	if (!rd)
		return NULL;
	rd->r = redisReaderCreateWithFunctions(&fns);
	if (!rd->r) {
		tnl_free(rd);
		return NULL;
	}
	rd->r->privdata = rd;
	return rd;
}

void tnl_redis_reader_free(struct tnl_redis_reader *rd)
{
	if (!rd)
		return;
	redisReaderFree(rd->r); /* with what it has of a reply */
	tnl_free(rd);
}

int tnl_redis_reader_feed(struct tnl_redis_reader *rd, const void *p, size_t n)
{
	if (rd->r->len - rd->r->pos + n > TNL_REDIS_BYTES) {
		rd->too_big = true;
		return TNL_ETOOBIG;
	}
	return redisReaderFeed(rd->r, p, n) == REDIS_OK ? 0 : TNL_ENOMEM;
}

/* hiredis looks for the end of a line from its beginning each time; that of a long string is behind a short line. */
static bool line_too_long(const redisReader *r)
{
	const char *p = r->buf + r->pos;
	return r->len - r->pos > TNL_REDIS_LINE && !memmem(p, TNL_REDIS_LINE, "\r\n", 2);
}

int tnl_redis_reader_next(struct tnl_redis_reader *rd, struct tnl_redis_reply **out)
{
	void *reply = NULL;
	*out = NULL;
	if (redisReaderGetReply(rd->r, &reply) != REDIS_OK)
		return rd->too_big ? TNL_ETOOBIG : rd->r->err == REDIS_ERR_OOM ? TNL_ENOMEM : TNL_ESYNTAX;
	if (!reply)
		return line_too_long(rd->r) ? TNL_ETOOBIG : TNL_EAGAIN;
	rd->nodes = 0;
	*out = reply;
	return 0;
}

const struct tnl_redis_reply *tnl_redis_at(const struct tnl_redis_reply *r, size_t i)
{
	return r && r->type == TNL_REDIS_ARRAY && i < r->n ? r->element[i] : NULL;
}

const char *tnl_redis_str_at(const struct tnl_redis_reply *r, size_t i)
{
	const struct tnl_redis_reply *e = tnl_redis_at(r, i);
	return e ? e->str : NULL;
}

int64_t tnl_redis_int_at(const struct tnl_redis_reply *r, size_t i, int64_t dflt)
{
	const struct tnl_redis_reply *e = tnl_redis_at(r, i);
	if (e && e->type == TNL_REDIS_INTEGER)
		return e->integer;
	if (!e || !e->str || !*e->str)
		return dflt;
	char *end;
	long long v = strtoll(e->str, &end, 10);
	return *end ? dflt : v;
}

/* --- commands ----------------------------------------------------------------- */
#define ARGS 64u

int tnl_redis_command(struct tnl_buf *out, const struct tnl_redis_arg *v, size_t n)
{
	const char *argv[ARGS];
	size_t len[ARGS];
	if (n == 0 || n > ARGS)
		return TNL_EINVAL;
	for (size_t i = 0; i < n; i++) {
		argv[i] = v[i].p;
		len[i] = v[i].n;
	}
	char *text = NULL;
	int k = redisFormatCommandArgv(&text, (int)n, argv, len);
	if (k < 0)
		return TNL_ENOMEM;
	int rc = tnl_buf_put(out, text, (size_t)k);
	tnl_wipe(text, (size_t)k);
	redisFreeCommand(text);
	return rc;
}

/* --- the URL ------------------------------------------------------------------ */
bool tnl_redis_url_is(const char *s)
{
	return strncmp(s, "redis://", 8) == 0 || strncmp(s, "rediss://", 9) == 0;
}

static bool decode_part(const char *s, size_t n, char *out, size_t cap)
{
	struct tnl_buf b;
	tnl_buf_init(&b, cap);
	bool ok = tnl_uri_decode(&b, s, n) == 0 && tnl_buf_len(&b) < cap &&
		  !(tnl_buf_len(&b) && memchr(tnl_buf_data(&b), 0, tnl_buf_len(&b)));
	if (ok && tnl_buf_len(&b))
		memcpy(out, tnl_buf_data(&b), tnl_buf_len(&b));
	if (ok)
		out[tnl_buf_len(&b)] = 0;
	tnl_buf_fini_wiped(&b);
	return ok;
}

/* USER:PASSWORD, or the password alone behind a colon. */
static bool take_user(const char *s, size_t n, struct tnl_redis_url *u)
{
	const char *colon = memchr(s, ':', n);
	size_t k = colon ? (size_t)(colon - s) : n;
	return colon && decode_part(s, k, u->user, sizeof(u->user)) &&
	       decode_part(colon + 1, n - k - 1, u->password, sizeof(u->password)) && u->password[0];
}

static bool take_number(const char *s, size_t n, unsigned lo, unsigned hi, unsigned *out)
{
	unsigned v = 0;
	for (size_t i = 0; i < n; i++) {
		if (s[i] < '0' || s[i] > '9' || i > 5)
			return false;
		v = v * 10 + (unsigned)(s[i] - '0');
	}
	*out = v;
	return n > 0 && v >= lo && v <= hi;
}

static bool is_host(const char *s, size_t n, bool v6)
{
	for (size_t i = 0; i < n; i++) {
		char c = s[i];
		bool word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
		if (!word && !(v6 ? c == ':' || c == '.' : c == '-' || c == '.' || c == '_'))
			return false;
	}
	return n > 0 && n < 256;
}

static bool take_host(const char *s, size_t n, struct tnl_redis_url *u)
{
	unsigned port = u->sentinel[0] ? 26379 : 6379;
	bool v6 = n && *s == '[';
	const char *end = memchr(s, v6 ? ']' : ':', n);
	size_t k = end ? (size_t)(end - s) : n, from = v6 ? 1 : 0;
	if (u->nhosts == TNL_REDIS_HOSTS || (v6 && !end) || !is_host(s + from, k - from, v6))
		return false;
	size_t rest = v6 ? k + 1 : k;
	if (rest < n && (s[rest] != ':' || !take_number(s + rest + 1, n - rest - 1, 1, 65535, &port)))
		return false;
	memcpy(u->hosts[u->nhosts].host, s + from, k - from);
	u->hosts[u->nhosts].host[k - from] = 0;
	u->hosts[u->nhosts++].port = (uint16_t)port;
	return true;
}

static bool take_hosts(const char *s, size_t n, struct tnl_redis_url *u)
{
	for (;;) {
		const char *comma = memchr(s, ',', n);
		size_t k = comma ? (size_t)(comma - s) : n;
		if (!take_host(s, k, u))
			return false;
		if (!comma)
			return true;
		s += k + 1;
		n -= k + 1;
	}
}

int tnl_redis_url_parse(const char *s, struct tnl_redis_url *u, const char **fault)
{
	memset(u, 0, sizeof(*u));
	*fault = "must be redis://[USER:PASSWORD@]HOST:PORT[,HOST:PORT…][/DB][?sentinel=NAME], or rediss://…";
	if (!tnl_redis_url_is(s))
		return TNL_ESYNTAX;
	u->tls = s[5] == 's';
	s += u->tls ? 9 : 8;
	size_t n = strcspn(s, "/?"), q = strcspn(s, "?");
	const char *at = memrchr(s, '@', n), *query = s[q] ? s + q + 1 : NULL;
	if (query) {
		*fault = "what stands behind ? must be sentinel=NAME";
		if (strncmp(query, "sentinel=", 9) != 0 || !query[9] || strchr(query, '&') ||
		    !decode_part(query + 9, strlen(query + 9), u->sentinel, sizeof(u->sentinel)))
			return TNL_ESYNTAX;
	}
	*fault = "user and password must be USER:PASSWORD or :PASSWORD, with %XX for @ / ? : % in them";
	if (at && !take_user(s, (size_t)(at - s), u))
		return TNL_ESYNTAX;
	const char *hosts = at ? at + 1 : s;
	*fault = "HOST:PORT is missing or malformed (eight of them, with commas between, at most)";
	if (!take_hosts(hosts, n - (size_t)(hosts - s), u))
		return TNL_ESYNTAX;
	*fault = "DB must be a number from 0 to 65535";
	if (s[n] == '/' && q > n + 1 && !take_number(s + n + 1, q - n - 1, 0, 65535, &u->db))
		return TNL_ESYNTAX;
	return 0;
}
