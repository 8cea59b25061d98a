/* Words about a session's direct link, and the proofs of its ends. */
#include "lib/direct.h"

#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/enc.h"
#include "lib/json.h"
#include "lib/num.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GRACE_MAX (24ull * 3600 * 1000)
#define BYTES_MAX ((int64_t)1 << 53)

static const char *const kinds[] = {
    [TNL_DIRECT_POLICY] = "policy",
    [TNL_DIRECT_WANT] = "want",
    [TNL_DIRECT_TICKET] = "ticket",
    [TNL_DIRECT_REPORT] = "report",
};

static void write_ticket(struct tnl_jw *w, const struct tnl_direct_ticket *t)
{
	char text[TNL_B64_LEN(TNL_DIRECT_SECRET) + 1], hex[65];

	tnl_jw_key(w, "Addresses");
	tnl_jw_arr(w);
	for (int i = 0; i < t->naddresses; i++)
		tnl_jw_str(w, t->addresses[i]);
	tnl_jw_end_arr(w);
	tnl_hex(t->key, sizeof(t->key), hex);
	tnl_jw_kv(w, "Key", hex);
	tnl_b64(t->secret, sizeof(t->secret), text);
	tnl_jw_kv(w, "Secret", text);
	tnl_wipe(text, sizeof(text));
}

int tnl_direct_write(struct tnl_buf *b, const struct tnl_direct *d)
{
	struct tnl_jw w;

	tnl_jw_init(&w, b);
	tnl_jw_obj(&w);
	tnl_jw_kv(&w, "Do", kinds[d->kind]);
	if (d->kind == TNL_DIRECT_POLICY) {
		tnl_jw_key(&w, "Allow");
		tnl_jw_bool(&w, d->allow);
		tnl_jw_kvi(&w, "GraceMs", (int64_t)TNL_MIN(d->grace_ms, GRACE_MAX));
	} else if (d->kind == TNL_DIRECT_TICKET) {
		write_ticket(&w, &d->ticket);
	} else if (d->kind == TNL_DIRECT_REPORT) {
		tnl_jw_key(&w, "Up");
		tnl_jw_bool(&w, d->up);
		tnl_jw_kvi(&w, "Sent", (int64_t)TNL_MIN(d->sent, (uint64_t)BYTES_MAX));
		tnl_jw_kvi(&w, "Received", (int64_t)TNL_MIN(d->received, (uint64_t)BYTES_MAX));
	}
	tnl_jw_end_obj(&w);
	return b->failed ? TNL_ENOMEM : 0;
}

static bool read_number(const struct tnl_json *j, const char *key, int64_t most, uint64_t *out)
{
	int64_t v;

	if (!tnl_json_int(tnl_json_get(j, key), &v) || v < 0 || v > most)
		return false;
	*out = (uint64_t)v;
	return true;
}

/* As it stands in a log and in a dial: printable, no space. */
static bool read_address(const struct tnl_json *v, char out[TNL_DIRECT_ADDRESS])
{
	const char *s = tnl_json_str(v);
	size_t n = s ? strlen(s) : 0;

	if (n == 0 || n >= TNL_DIRECT_ADDRESS)
		return false;
	for (size_t i = 0; i < n; i++)
		if (s[i] <= ' ' || s[i] > '~')
			return false;
	memcpy(out, s, n + 1);
	return true;
}

static bool read_ticket(const struct tnl_json *j, struct tnl_direct_ticket *t)
{
	const struct tnl_json *a = tnl_json_get(j, "Addresses");
	const char *key = tnl_json_get_str(j, "Key"), *secret = tnl_json_get_str(j, "Secret");
	int n = tnl_json_is_arr(a) ? tnl_json_len(a) : 0;

	if (n < 1 || n > TNL_DIRECT_ADDRESSES || !key || !secret)
		return false;
	for (t->naddresses = 0; t->naddresses < n; t->naddresses++)
		if (!read_address(tnl_json_at(a, t->naddresses), t->addresses[t->naddresses]))
			return false;
	return strlen(key) == 2 * sizeof(t->key) && tnl_unhex(key, 2 * sizeof(t->key), t->key) >= 0 &&
	       tnl_unb64(secret, strlen(secret), t->secret, sizeof(t->secret)) == (int)sizeof(t->secret);
}

static bool read_body(const struct tnl_json *j, struct tnl_direct *d)
{
	switch (d->kind) {
	case TNL_DIRECT_POLICY:
		d->allow = tnl_json_bool(tnl_json_get(j, "Allow"), false);
		return read_number(j, "GraceMs", (int64_t)GRACE_MAX, &d->grace_ms);
	case TNL_DIRECT_TICKET:
		return read_ticket(j, &d->ticket);
	case TNL_DIRECT_REPORT:
		d->up = tnl_json_bool(tnl_json_get(j, "Up"), false);
		return read_number(j, "Sent", BYTES_MAX, &d->sent) &&
		       read_number(j, "Received", BYTES_MAX, &d->received);
	default:
		return true;
	}
}

int tnl_direct_parse(const void *p, size_t n, struct tnl_direct *d)
{
	struct tnl_json *j = n <= TNL_DIRECT_JSON ? tnl_json_parse(p, n) : NULL;
	const char *word = tnl_json_get_str(j, "Do");
	int rc = TNL_ESYNTAX;

	memset(d, 0, sizeof(*d));
	for (size_t i = 0; word && i < TNL_COUNT(kinds); i++)
		if (strcmp(word, kinds[i]) == 0) {
			d->kind = (enum tnl_direct_kind)i;
			rc = read_body(j, d) ? 0 : TNL_ESYNTAX;
		}
	tnl_json_free(j);
	return rc;
}

bool tnl_direct_address_split(const char *s, char host[TNL_DIRECT_ADDRESS], uint16_t *port)
{
	const char *colon = strrchr(s, ':');
	size_t n = colon ? (size_t)(colon - s) : 0;
	char *end;

	if (n == 0 || n >= TNL_DIRECT_ADDRESS || colon[1] < '0' || colon[1] > '9')
		return false;
	unsigned long v = strtoul(colon + 1, &end, 10);
	bool brackets = s[0] == '[' && s[n - 1] == ']' && n > 2;
	if (*end || v < 1 || v > UINT16_MAX || (!brackets && strcspn(s, ":[]") != n))
		return false;
	snprintf(host, TNL_DIRECT_ADDRESS, "%.*s", (int)(brackets ? n - 2 : n), brackets ? s + 1 : s);
	*port = (uint16_t)v;
	return true;
}

void tnl_direct_name(const uint8_t secret[TNL_DIRECT_SECRET], char out[TNL_DIRECT_NAME + 1])
{
	static const char what[] = "tunneld direct name 1";
	uint8_t h[32];

	tnl_hmac_sha256(secret, TNL_DIRECT_SECRET, what, sizeof(what) - 1, h);
	tnl_hex(h, TNL_DIRECT_NAME / 2, out);
}

void tnl_direct_proof(const uint8_t secret[TNL_DIRECT_SECRET], const uint8_t exported[TNL_DIRECT_PROOF], bool client,
		      uint8_t out[TNL_DIRECT_PROOF])
{
	uint8_t text[1 + TNL_DIRECT_PROOF];

	text[0] = client ? 'c' : 'a';
	memcpy(text + 1, exported, TNL_DIRECT_PROOF);
	tnl_hmac_sha256(secret, TNL_DIRECT_SECRET, text, sizeof(text), out);
}
