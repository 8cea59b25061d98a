/* Signature Version 4, the server's side: find the claim in a request, then check it. */
#include "lib/alloc.h"
#include "lib/num.h"
#include "lib/crypto.h"
#include "lib/enc.h"
#include "lib/http.h"
#include "lib/sigv4_internal.h"
#include <stdio.h>
#include <string.h>

#define SKEW_S 900
#define MAX_EXPIRES_S 604800 /* a week, as AWS; whatever it says, it is good for SKEW_S at most */

struct slice {
	const char *p;
	size_t n;
};

static bool slice_is(struct slice s, const char *text)
{
	return s.n == strlen(text) && memcmp(s.p, text, s.n) == 0;
}

static int copy(char *out, size_t cap, struct slice s)
{
	if (!s.n || s.n >= cap || memchr(s.p, 0, s.n))
		return TNL_ESYNTAX;
	memcpy(out, s.p, s.n);
	out[s.n] = 0;
	return 0;
}

/* --- dates ------------------------------------------------------------------------ */

/* "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 9110 section 5.6.7). */
int tnl_http_date_parse(const char *s, size_t n, uint64_t *unix_s)
{
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	char iso[32], mon[4];
	const char *m;
	uint64_t ms;
	int rc;

	if (n != 29 || memcmp(s + 3, ", ", 2) != 0 || s[7] != ' ' || s[11] != ' ' || s[16] != ' ' ||
	    memcmp(s + 25, " GMT", 4) != 0)
		return TNL_ESYNTAX;
	memcpy(mon, s + 8, 3);
	mon[3] = 0;
	m = strstr(months, mon);
	if (!m || (m - months) % 3)
		return TNL_ESYNTAX;
	snprintf(iso, sizeof(iso), "%.4s-%02d-%.2sT%.8sZ", s + 12, (int)((m - months) / 3 + 1) % 100, s + 5, s + 17);
	rc = tnl_iso_date_parse(iso, strlen(iso), &ms);
	if (rc == 0)
		*unix_s = ms / 1000;
	return rc;
}

static int parse_date(struct slice s, uint64_t *unix_s)
{
	return tnl_amz_date_parse(s.p, s.n, unix_s) == 0 ? 0 : tnl_http_date_parse(s.p, s.n, unix_s);
}

/* --- the claim ----------------------------------------------------------------------- */

/* "AKID/20150830/us-east-1/service/aws4_request" */
static int parse_credential(struct slice s, struct tnl_sigv4_claim *c)
{
	struct slice part[5];
	size_t i = 0;

	for (;; i++) {
		const char *slash = memchr(s.p, '/', s.n);

		if (i == 5)
			return TNL_ESYNTAX;
		part[i].p = s.p;
		part[i].n = slash ? (size_t)(slash - s.p) : s.n;
		if (!slash)
			break;
		s.n -= part[i].n + 1;
		s.p = slash + 1;
	}
	if (i != 4 || !slice_is(part[4], "aws4_request") || part[1].n != 8)
		return TNL_ESYNTAX;
	if (copy(c->access_key_id, sizeof(c->access_key_id), part[0]) || copy(c->date, sizeof(c->date), part[1]) ||
	    copy(c->region, sizeof(c->region), part[2]) || copy(c->service, sizeof(c->service), part[3]))
		return TNL_ESYNTAX;
	return 0;
}

static int parse_signature(struct slice s, struct tnl_sigv4_claim *c)
{
	return s.n == 64 ? tnl_unhex(s.p, s.n, c->signature) : TNL_ESYNTAX;
}

/* Names in lower case, sorted, none twice. */
static int parse_signed_headers(struct slice s, struct tnl_sigv4_claim *c)
{
	const char *prev = NULL, *p;
	size_t prev_n = 0;

	if (copy(c->signed_headers, sizeof(c->signed_headers), s) != 0)
		return TNL_ESYNTAX;
	for (p = c->signed_headers;; p++) {
		size_t n = strcspn(p, ";"), low = TNL_MIN(prev_n, n);
		int order = prev ? memcmp(prev, p, low) : -1;

		if (!n || (order ? order > 0 : prev_n >= n))
			return TNL_ESYNTAX;
		for (size_t i = 0; i < n; i++)
			if (p[i] >= 'A' && p[i] <= 'Z')
				return TNL_ESYNTAX;
		prev = p;
		prev_n = n;
		p += n;
		if (!*p)
			return 0;
	}
}

static int parse_authorization(struct slice s, struct tnl_sigv4_claim *c, const char **fault)
{
	static const char scheme[] = TNL_SIGV4_ALGORITHM " ";
	unsigned seen = 0;

	*fault = "authorization";
	if (s.n < sizeof(scheme) || memcmp(s.p, scheme, sizeof(scheme) - 1) != 0)
		return TNL_ESYNTAX;
	s.p += sizeof(scheme) - 1;
	s.n -= sizeof(scheme) - 1;
	while (s.n) {
		const char *comma = memchr(s.p, ',', s.n), *eq;
		struct slice item = {s.p, comma ? (size_t)(comma - s.p) : s.n}, v;
		unsigned bit;
		int rc;

		s.p += item.n + (comma ? 1 : 0);
		s.n -= item.n + (comma ? 1 : 0);
		while (item.n && *item.p == ' ')
			item.p++, item.n--;
		while (item.n && item.p[item.n - 1] == ' ')
			item.n--;
		eq = memchr(item.p, '=', item.n);
		if (!eq)
			return TNL_ESYNTAX;
		v = (struct slice){eq + 1, item.n - (size_t)(eq + 1 - item.p)};
		item.n = (size_t)(eq - item.p);
		if (slice_is(item, "Credential")) {
			*fault = "credential";
			bit = 1;
			rc = parse_credential(v, c);
		} else if (slice_is(item, "SignedHeaders")) {
			*fault = "signed headers";
			bit = 2;
			rc = parse_signed_headers(v, c);
		} else if (slice_is(item, "Signature")) {
			*fault = "signature";
			bit = 4;
			rc = parse_signature(v, c);
		} else {
			return TNL_ESYNTAX;
		}
		if (rc != 0 || seen & bit)
			return TNL_ESYNTAX;
		seen |= bit;
		*fault = "authorization";
	}
	return seen == 7 ? 0 : TNL_ESYNTAX;
}

static int parse_expires(struct slice s, struct tnl_sigv4_claim *c)
{
	unsigned v = 0;

	if (!s.n || s.n > 6)
		return TNL_ESYNTAX;
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] < '0' || s.p[i] > '9')
			return TNL_ESYNTAX;
		v = v * 10 + (unsigned)(s.p[i] - '0');
	}
	c->expires_s = v;
	return v >= 1 && v <= MAX_EXPIRES_S ? 0 : TNL_ESYNTAX;
}

/* One of the six parameters; others are no concern of this. */
static int presign_param(struct slice key, struct slice v, struct tnl_sigv4_claim *c, unsigned *seen,
			 const char **fault)
{
	static const char *const names[] = {"X-Amz-Algorithm", "X-Amz-Credential",    "X-Amz-Date",
					    "X-Amz-Expires",   "X-Amz-SignedHeaders", "X-Amz-Signature"};
	static const char *const faults[] = {"algorithm", "credential",	    "date",
					     "expires",	  "signed headers", "signature"};
	unsigned i;
	int rc;

	for (i = 0; i < 6 && !slice_is(key, names[i]); i++)
		;
	if (i == 6)
		return 0;
	*fault = faults[i];
	if (*seen & 1u << i)
		return TNL_ESYNTAX; /* which of the two would be meant? */
	*seen |= 1u << i;
	switch (i) {
	case 0:
		rc = slice_is(v, TNL_SIGV4_ALGORITHM) ? 0 : TNL_ESYNTAX;
		break;
	case 1:
		rc = parse_credential(v, c);
		break;
	case 2:
		rc = tnl_amz_date_parse(v.p, v.n, &c->unix_s);
		break;
	case 3:
		rc = parse_expires(v, c);
		break;
	case 4:
		rc = parse_signed_headers(v, c);
		break;
	default:
		rc = parse_signature(v, c);
		break;
	}
	return rc == 0 ? 0 : TNL_ESYNTAX;
}

/* TNL_ENOTFOUND: the query has nothing of a signature. */
static int parse_presigned(struct slice q, struct tnl_sigv4_claim *c, const char **fault)
{
	struct tnl_buf plain;
	unsigned seen = 0;
	int rc = 0;

	tnl_buf_init(&plain, q.n + 2);
	while (q.n && rc == 0) {
		const char *amp = memchr(q.p, '&', q.n), *eq;
		size_t n = amp ? (size_t)(amp - q.p) : q.n, klen;

		eq = memchr(q.p, '=', n);
		klen = eq ? (size_t)(eq - q.p) : n;
		tnl_buf_reset(&plain);
		if (tnl_uri_decode(&plain, q.p, klen) == 0) {
			struct slice key, v;

			klen = tnl_buf_len(&plain);
			if (eq && tnl_uri_decode(&plain, eq + 1, n - (size_t)(eq + 1 - q.p)) != 0)
				plain.tail =
				    plain.head + klen; /* no value that decodes: an empty one fails where it matters */
			key = (struct slice){(const char *)tnl_buf_data(&plain), klen};
			v = (struct slice){key.p + klen, tnl_buf_len(&plain) - klen};
			rc = presign_param(key, v, c, &seen, fault);
		}
		q.n -= n + (amp ? 1 : 0);
		q.p += n + (amp ? 1 : 0);
	}
	tnl_buf_fini_wiped(&plain);
	if (rc != 0)
		return rc;
	if (!(seen & 1u << 5) && !(seen & 1u))
		return TNL_ENOTFOUND;
	*fault = "query";
	c->presigned = true;
	return seen == 63 ? 0 : TNL_ESYNTAX;
}

static struct slice target_query(const struct tnl_http_head *h, struct slice *path)
{
	const char *mark = memchr(h->target, '?', h->target_len);
	struct slice q = {"", 0};

	path->p = h->target;
	path->n = mark ? (size_t)(mark - h->target) : h->target_len;
	if (mark)
		q = (struct slice){mark + 1, h->target_len - path->n - 1};
	return q;
}

int tnl_sigv4_claim_parse(const struct tnl_http_head *h, struct tnl_sigv4_claim *c, const char **fault)
{
	struct slice auth, date, path, query = target_query(h, &path);
	const char *ignored;
	int rc;

	if (!fault)
		fault = &ignored;
	memset(c, 0, sizeof(*c));
	*fault = "authorization";
	auth.p = tnl_http_get(h, "authorization", &auth.n);
	rc = parse_presigned(query, c, fault);
	if (rc == TNL_ENOTFOUND && !auth.p)
		return rc;
	if (auth.p && rc != TNL_ENOTFOUND) {
		*fault = "two signatures";
		return TNL_ESYNTAX;
	}
	if (!auth.p)
		return rc;
	memset(c, 0, sizeof(*c));
	rc = parse_authorization(auth, c, fault);
	if (rc != 0)
		return rc;
	*fault = "date";
	date.p = tnl_http_get(h, "x-amz-date", &date.n);
	if (!date.p)
		date.p = tnl_http_get(h, "date", &date.n);
	return date.p ? parse_date(date, &c->unix_s) : TNL_ESYNTAX;
}

/* --- verification ------------------------------------------------------------------------ */

static bool name_is(const struct tnl_http_header *h, const char *name, size_t n)
{
	if (h->nlen != n)
		return false;
	for (size_t i = 0; i < n; i++) {
		char c = h->name[i];

		if ((c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c) != name[i])
			return false;
	}
	return true;
}

/* Is the header among the signed ones? */
static bool covered(const struct tnl_sigv4_claim *c, const struct tnl_http_header *h)
{
	for (const char *p = c->signed_headers; *p; p += *p == ';') {
		size_t n = strcspn(p, ";");

		if (name_is(h, p, n))
			return true;
		p += n;
	}
	return false;
}

/* Collects the headers that are signed; every one that must be has to be there. */
static int gather(const struct tnl_http_head *h, const struct tnl_sigv4_claim *c, struct tnl_sigv4_header *out,
		  size_t *count)
{
	bool host = false, date = c->presigned;

	*count = 0;
	for (size_t i = 0; i < h->nheaders; i++) {
		const struct tnl_http_header *x = &h->headers[i];
		bool amz = x->nlen > 6 && name_is(&(struct tnl_http_header){.name = x->name, .nlen = 6}, "x-amz-", 6);

		if (!covered(c, x)) {
			if (amz)
				return TNL_EAUTH;
			continue;
		}
		host = host || name_is(x, "host", 4);
		date = date || name_is(x, "x-amz-date", 10) || name_is(x, "date", 4);
		out[(*count)++] =
		    (struct tnl_sigv4_header){.name = x->name, .nlen = x->nlen, .value = x->value, .vlen = x->vlen};
	}
	return host && date ? 0 : TNL_EAUTH;
}

/* The query as the signer saw it: without the signature itself. */
static int strip_signature(struct slice q, struct tnl_buf *out)
{
	static const char name[] = "X-Amz-Signature=";

	while (q.n) {
		const char *amp = memchr(q.p, '&', q.n);
		size_t n = amp ? (size_t)(amp - q.p) : q.n;

		if (n < sizeof(name) - 1 || memcmp(q.p, name, sizeof(name) - 1) != 0) {
			if (tnl_buf_len(out))
				tnl_buf_putc(out, '&');
			tnl_buf_put(out, q.p, n);
		}
		q.n -= n + (amp ? 1 : 0);
		q.p += n + (amp ? 1 : 0);
	}
	return out->failed ? TNL_ENOMEM : 0;
}

static int compute(const struct tnl_http_head *h, const void *body, size_t body_len, const struct tnl_sigv4_claim *c,
		   const struct tnl_sigv4_header *headers, size_t nheaders, const char *secret, uint8_t mac[32])
{
	struct slice path, query = target_query(h, &path);
	struct tnl_buf canonical, sts, names, q;
	char method[32], amz_date[TNL_AMZDATE_STR];
	struct tnl_sigv4_request r = {.method = method,
				      .path = path.p,
				      .path_len = path.n,
				      .headers = headers,
				      .nheaders = nheaders,
				      .body = body,
				      .body_len = body_len,
				      .double_encode_path = true,
				      .normalize_path = true};
	int rc;

	if (copy(method, sizeof(method), (struct slice){h->method, h->method_len}) != 0)
		return TNL_ESYNTAX;
	tnl_amz_date(c->unix_s, amz_date);
	tnl_buf_init(&canonical, TNL_SIGV4_MAX_CANONICAL);
	tnl_buf_init(&sts, 1024);
	tnl_buf_init(&names, sizeof(c->signed_headers));
	tnl_buf_init(&q, query.n + 1);
	rc = c->presigned ? strip_signature(query, &q) : tnl_buf_put(&q, query.p, query.n);
	r.query = (const char *)tnl_buf_data(&q);
	r.query_len = tnl_buf_len(&q);
	if (rc == 0)
		rc = tnl_sigv4_canonical(&r, &canonical, &names);
	if (rc == 0 && (tnl_buf_len(&names) != strlen(c->signed_headers) ||
			memcmp(tnl_buf_data(&names), c->signed_headers, tnl_buf_len(&names)) != 0))
		rc = TNL_EAUTH; /* a name was signed that is not in the request */
	if (rc == 0)
		rc = tnl_sigv4_string_to_sign(&canonical, amz_date, c->date, c->region, c->service, &sts);
	if (rc == 0)
		rc = tnl_sigv4_signature(secret, c->date, c->region, c->service, &sts, mac);
	tnl_buf_fini_wiped(&canonical);
	tnl_buf_fini(&sts);
	tnl_buf_fini(&names);
	tnl_buf_fini_wiped(&q);
	return rc;
}

/* X-Amz-Content-Sha256, when there is one, must tell the truth about the body. */
static bool body_hash_ok(const struct tnl_http_head *h, const void *body, size_t n)
{
	size_t len;
	const char *v = tnl_http_get(h, "x-amz-content-sha256", &len);
	uint8_t sum[32];
	char hex[65];

	if (!v)
		return true;
	tnl_sha256(body ? body : "", n, sum);
	tnl_hex(sum, sizeof(sum), hex);
	return len == 64 && memcmp(v, hex, 64) == 0;
}

static int check_clock(const struct tnl_sigv4_claim *c, uint64_t now)
{
	uint64_t late = c->presigned ? TNL_MIN(c->expires_s, (unsigned)SKEW_S) : SKEW_S;

	return now + SKEW_S < c->unix_s || now > c->unix_s + late ? TNL_EEXPIRED : 0;
}

int tnl_sigv4_verify(const struct tnl_http_head *h, const void *body, size_t body_len, const struct tnl_sigv4_claim *c,
		     const char *secret, const char *want_region, const char *want_service, uint64_t now,
		     const char **fault)
{
	struct tnl_sigv4_header headers[TNL_HTTP_MAX_HEADERS];
	char amz_date[TNL_AMZDATE_STR];
	const char *ignored;
	uint8_t mac[32] = {0};
	size_t n;
	int rc;

	if (!fault)
		fault = &ignored;
	*fault = "signed headers";
	if (gather(h, c, headers, &n) != 0)
		return TNL_EAUTH;
	rc = compute(h, body, body_len, c, headers, n, secret ? secret : "no key of this name is known here, xxxxx",
		     mac);
	if (rc == TNL_ENOMEM)
		return rc;
	if (rc == TNL_ELIMIT)
		*fault = "query";
	if (rc != 0)
		return TNL_EAUTH;
	tnl_amz_date(c->unix_s, amz_date);
	*fault = "scope date";
	if (memcmp(amz_date, c->date, 8) != 0)
		return TNL_EAUTH;
	*fault = "service";
	if (strcmp(c->service, want_service) != 0)
		return TNL_EAUTH;
	*fault = "region";
	if (want_region && strcmp(c->region, want_region) != 0)
		return TNL_EAUTH;
	*fault = "body hash";
	if (!body_hash_ok(h, body, body_len))
		return TNL_EAUTH;
	*fault = "clock";
	if (check_clock(c, now) != 0)
		return TNL_EEXPIRED;
	*fault = "signature";
	bool same = tnl_ct_eq(mac, c->signature, sizeof(mac));
	tnl_wipe(mac, sizeof(mac));
	if (!same || !secret)
		return TNL_EAUTH;
	*fault = NULL;
	return 0;
}
