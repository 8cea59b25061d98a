#include "lib/reverse.h"

#include "lib/enc.h"
#include "lib/json.h"
#include "lib/num.h"
#include "lib/smux.h"

#include <stdio.h>
#include <string.h>

#define HEAD_ID 2u

static const char *const kinds[] = {
    [TNL_REVERSE_LISTEN] = "listen",
    [TNL_REVERSE_UNLISTEN] = "unlisten",
    [TNL_REVERSE_LISTENING] = "listening",
    [TNL_REVERSE_REFUSED] = "refused",
};

int tnl_reverse_write(struct tnl_buf *b, const struct tnl_reverse *r)
{
	struct tnl_jw w;

	tnl_jw_init(&w, b);
	tnl_jw_obj(&w);
	tnl_jw_kv(&w, "Do", kinds[r->kind]);
	tnl_jw_kvi(&w, "Id", r->id);
	if (r->kind == TNL_REVERSE_LISTEN || r->kind == TNL_REVERSE_LISTENING)
		tnl_jw_kv(&w, "Bind", r->bind);
	if (r->kind == TNL_REVERSE_LISTEN) {
		tnl_jw_kvi(&w, "Most", r->most);
		tnl_jw_kv(&w, "Client", r->client);
	}
	if (r->kind == TNL_REVERSE_REFUSED) {
		tnl_jw_kv(&w, "Why", r->why);
		tnl_jw_key(&w, "Again");
		tnl_jw_bool(&w, r->again);
	}
	tnl_jw_end_obj(&w);
	return b->failed ? TNL_ENOMEM : 0;
}

/* Printable ASCII without spaces, as addresses stand in logs. */
static bool is_plain(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (s[i] <= ' ' || s[i] > '~')
			return false;
	return true;
}

static bool read_plain(const struct tnl_json *j, const char *key, bool may_be_empty, char *out, size_t cap)
{
	const char *s = tnl_json_get_str(j, key);
	size_t n = s ? strlen(s) : 0;

	if (!s || (n == 0 && !may_be_empty) || n >= cap || !is_plain(s, n))
		return false;
	memcpy(out, s, n + 1);
	return true;
}

static bool read_number(const struct tnl_json *j, const char *key, uint16_t *out)
{
	int64_t v;

	if (!tnl_json_int(tnl_json_get(j, key), &v) || v < 1 || v > UINT16_MAX)
		return false;
	*out = (uint16_t)v;
	return true;
}

static bool read_body(const struct tnl_json *j, struct tnl_reverse *r)
{
	const char *why;

	switch (r->kind) {
	case TNL_REVERSE_LISTEN:
		return read_plain(j, "Bind", false, r->bind, sizeof(r->bind)) && read_number(j, "Most", &r->most) &&
		       read_plain(j, "Client", true, r->client, sizeof(r->client));
	case TNL_REVERSE_LISTENING:
		return read_plain(j, "Bind", false, r->bind, sizeof(r->bind));
	case TNL_REVERSE_REFUSED:
		why = tnl_json_get_str(j, "Why");
		snprintf(r->why, sizeof(r->why), "%s", why ? why : "no reason given");
		r->again = tnl_json_bool(tnl_json_get(j, "Again"), false);
		return true;
	default:
		return true;
	}
}

int tnl_reverse_parse(const void *p, size_t n, struct tnl_reverse *r)
{
	struct tnl_json *j = n <= TNL_REVERSE_JSON ? tnl_json_parse(p, n) : NULL;
	const char *word = tnl_json_get_str(j, "Do");
	bool ok = false;

	memset(r, 0, sizeof(*r));
	for (size_t i = 0; word && i < TNL_COUNT(kinds); i++)
		if (strcmp(word, kinds[i]) == 0) {
			r->kind = (enum tnl_reverse_kind)i;
			ok = read_number(j, "Id", &r->id) && read_body(j, r);
		}
	tnl_json_free(j);
	return ok ? 0 : TNL_ESYNTAX;
}

size_t tnl_reverse_head_write(uint8_t *out, uint16_t listener, const char *from)
{
	size_t n = TNL_MIN(strlen(from), (size_t)TNL_SMUX_WORDS - HEAD_ID);

	tnl_put_le16(out, listener);
	for (size_t i = 0; i < n; i++)
		out[HEAD_ID + i] = (uint8_t)(is_plain(from + i, 1) ? from[i] : '?');
	return HEAD_ID + n;
}

bool tnl_reverse_head_parse(const uint8_t *p, size_t n, uint16_t *listener, char *from)
{
	if (n < HEAD_ID || n > TNL_SMUX_WORDS)
		return false;
	*listener = tnl_get_le16(p);
	memcpy(from, p + HEAD_ID, n - HEAD_ID);
	from[n - HEAD_ID] = '\0';
	return *listener != 0 && is_plain(from, n - HEAD_ID);
}
