/* Signature Version 4, the part that both sides share: the canonical request, the
 * string to sign and the key; and signing.  Verification is in sigv4_verify.c. */
#include "lib/sigv4_internal.h"
#include "lib/num.h"
#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/enc.h"
#include <string.h>

static int lower(int c)
{
	return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c;
}

static bool blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* --- path ---------------------------------------------------------------------- */

/* Segments without "", "." and ".." (RFC 3986 section 5.2.4, and runs of slashes folded). */
static int normalize(struct tnl_buf *out, const char *p, size_t n)
{
	size_t start = tnl_buf_len(out);
	bool trailing = true;

	for (size_t i = 0; i < n;) {
		size_t end;

		while (i < n && p[i] == '/')
			i++;
		for (end = i; end < n && p[end] != '/'; end++)
			;
		size_t len = end - i;
		if (!len)
			break;
		trailing = end < n;
		if (len == 2 && memcmp(p + i, "..", 2) == 0) {
			size_t at = tnl_buf_len(out);

			while (at > start && tnl_buf_data(out)[at - 1] != '/')
				at--;
			out->tail = out->head + (at > start ? at - 1 : start);
			trailing = trailing || i + len == n;
		} else if (len == 1 && p[i] == '.') {
			trailing = trailing || i + len == n;
		} else {
			tnl_buf_putc(out, '/');
			tnl_buf_put(out, p + i, len);
		}
		i = end;
	}
	if (trailing || tnl_buf_len(out) == start)
		tnl_buf_putc(out, '/');
	return out->failed ? TNL_ELIMIT : 0;
}

static int put_path(struct tnl_buf *out, const struct tnl_sigv4_request *r)
{
	const char *p = r->path;
	size_t n = r->path_len;
	struct tnl_buf flat;
	int rc = 0;

	if (!n) {
		p = "/";
		n = 1;
	}
	tnl_buf_init(&flat, n + 2);
	if (r->normalize_path) {
		rc = normalize(&flat, p, n);
		p = (const char *)tnl_buf_data(&flat);
		n = tnl_buf_len(&flat);
	}
	if (rc == 0)
		rc = r->double_encode_path ? tnl_uri_encode(out, p, n, true) : tnl_buf_put(out, p, n);
	tnl_buf_fini(&flat);
	return rc;
}

/* --- query --------------------------------------------------------------------- */

struct param {
	const uint8_t *key, *value; /* encoded, in the scratch buffer */
	size_t klen, vlen;
};

static int compare_bytes(const uint8_t *a, size_t an, const uint8_t *b, size_t bn)
{
	int c = memcmp(a, b, TNL_MIN(an, bn));

	return c ? c : (an > bn) - (an < bn);
}

static int compare_params(const struct param *a, const struct param *b)
{
	int c = compare_bytes(a->key, a->klen, b->key, b->klen);

	return c ? c : compare_bytes(a->value, a->vlen, b->value, b->vlen);
}

/* Decodes and encodes again, so that every spelling of a byte becomes the one that is signed.
 * What does not decode is taken byte for byte. */
static int recode(struct tnl_buf *out, const char *s, size_t n)
{
	struct tnl_buf plain;
	int rc;

	tnl_buf_init(&plain, n + 1);
	if (tnl_uri_decode(&plain, s, n) == 0)
		rc = tnl_uri_encode(out, (const char *)tnl_buf_data(&plain), tnl_buf_len(&plain), false);
	else
		rc = tnl_uri_encode(out, s, n, false);
	tnl_buf_fini_wiped(&plain);
	return rc;
}

/* By insertion: there are few, and qsort would allocate behind our back. */
static void sort_params(struct param *v, size_t n)
{
	for (size_t i = 1; i < n; i++) {
		struct param x = v[i];
		size_t at = i;

		for (; at && compare_params(&v[at - 1], &x) > 0; at--)
			v[at] = v[at - 1];
		v[at] = x;
	}
}

static int put_query(struct tnl_buf *out, const char *q, size_t n)
{
	struct param params[TNL_SIGV4_MAX_PARAMS];
	struct tnl_buf scratch;
	size_t count = 0;
	int rc = 0;

	tnl_buf_init(&scratch, 3 * n + 1);
	/* All the room at once: the parameters point into it. */
	if (!tnl_buf_reserve(&scratch, 3 * n + 1))
		return TNL_ENOMEM;
	for (size_t i = 0; i < n && rc == 0;) {
		const char *amp = memchr(q + i, '&', n - i);
		size_t len = amp ? (size_t)(amp - (q + i)) : n - i;
		const char *eq = memchr(q + i, '=', len);
		size_t klen = eq ? (size_t)(eq - (q + i)) : len;

		if (len && count == TNL_SIGV4_MAX_PARAMS)
			rc = TNL_ELIMIT;
		else if (len) {
			struct param *p = &params[count++];

			p->key = tnl_buf_data(&scratch) + tnl_buf_len(&scratch);
			rc = recode(&scratch, q + i, klen);
			p->value = tnl_buf_data(&scratch) + tnl_buf_len(&scratch);
			p->klen = (size_t)(p->value - p->key);
			if (rc == 0 && eq)
				rc = recode(&scratch, eq + 1, len - klen - 1);
			p->vlen = (size_t)(tnl_buf_data(&scratch) + tnl_buf_len(&scratch) - p->value);
		}
		i += len + 1;
	}
	if (rc == 0)
		sort_params(params, count);
	for (size_t i = 0; i < count && rc == 0; i++) {
		if (i)
			tnl_buf_putc(out, '&');
		tnl_buf_put(out, params[i].key, params[i].klen);
		tnl_buf_putc(out, '=');
		rc = tnl_buf_put(out, params[i].value, params[i].vlen);
	}
	tnl_buf_fini_wiped(&scratch);
	return rc;
}

/* --- headers ------------------------------------------------------------------- */

static int compare_names(const struct tnl_sigv4_header *a, const struct tnl_sigv4_header *b)
{
	for (size_t i = 0; i < a->nlen && i < b->nlen; i++) {
		int c = lower((uint8_t)a->name[i]) - lower((uint8_t)b->name[i]);

		if (c)
			return c;
	}
	return (a->nlen > b->nlen) - (a->nlen < b->nlen);
}

static void put_name(struct tnl_buf *out, const struct tnl_sigv4_header *h)
{
	for (size_t i = 0; i < h->nlen; i++)
		tnl_buf_putc(out, lower((uint8_t)h->name[i]));
}

/* Without white space at the ends, runs of it inside as one space. */
static void put_value(struct tnl_buf *out, const struct tnl_sigv4_header *h)
{
	bool gap = false, any = false;

	for (size_t i = 0; i < h->vlen; i++) {
		if (blank(h->value[i])) {
			gap = any;
			continue;
		}
		if (gap)
			tnl_buf_putc(out, ' ');
		gap = false;
		any = true;
		tnl_buf_putc(out, (uint8_t)h->value[i]);
	}
}

static int put_headers(struct tnl_buf *out, struct tnl_buf *names, const struct tnl_sigv4_request *r)
{
	const struct tnl_sigv4_header *sorted[TNL_SIGV4_MAX_HEADERS];

	if (r->nheaders > TNL_SIGV4_MAX_HEADERS)
		return TNL_ELIMIT;
	/* Insertion keeps headers of one name in the order they came. */
	for (size_t i = 0; i < r->nheaders; i++) {
		size_t at = i;

		for (; at && compare_names(sorted[at - 1], &r->headers[i]) > 0; at--)
			sorted[at] = sorted[at - 1];
		sorted[at] = &r->headers[i];
	}
	for (size_t i = 0; i < r->nheaders; i++) {
		if (i && compare_names(sorted[i - 1], sorted[i]) == 0) {
			tnl_buf_putc(out, ',');
			put_value(out, sorted[i]);
			continue;
		}
		if (i) {
			tnl_buf_putc(out, '\n');
			tnl_buf_putc(names, ';');
		}
		put_name(names, sorted[i]);
		put_name(out, sorted[i]);
		tnl_buf_putc(out, ':');
		put_value(out, sorted[i]);
	}
	if (r->nheaders)
		tnl_buf_putc(out, '\n');
	return out->failed || names->failed ? TNL_ELIMIT : 0;
}

int tnl_sigv4_canonical(const struct tnl_sigv4_request *r, struct tnl_buf *out, struct tnl_buf *signed_headers)
{
	uint8_t sum[32];
	char hex[65];
	size_t names_at = tnl_buf_len(signed_headers);
	int rc;

	tnl_buf_puts(out, r->method);
	tnl_buf_putc(out, '\n');
	if ((rc = put_path(out, r)) != 0)
		return rc;
	tnl_buf_putc(out, '\n');
	if ((rc = put_query(out, r->query, r->query ? r->query_len : 0)) != 0)
		return rc;
	tnl_buf_putc(out, '\n');
	if ((rc = put_headers(out, signed_headers, r)) != 0)
		return rc;
	tnl_buf_putc(out, '\n');
	tnl_buf_put(out, tnl_buf_data(signed_headers) + names_at, tnl_buf_len(signed_headers) - names_at);
	tnl_buf_putc(out, '\n');
	tnl_sha256(r->body ? r->body : "", r->body ? r->body_len : 0, sum);
	tnl_hex(sum, sizeof(sum), hex);
	tnl_buf_put(out, hex, 64);
	return out->failed ? TNL_ELIMIT : 0;
}

/* --- string to sign, key, signature ---------------------------------------------- */

int tnl_sigv4_string_to_sign(const struct tnl_buf *canonical, const char *amz_date, const char *date,
			     const char *region, const char *service, struct tnl_buf *out)
{
	uint8_t sum[32];
	char hex[65];

	tnl_sha256(tnl_buf_data(canonical), tnl_buf_len(canonical), sum);
	tnl_hex(sum, sizeof(sum), hex);
	return tnl_buf_printf(out, "%s\n%s\n%s/%s/%s/aws4_request\n%s", TNL_SIGV4_ALGORITHM, amz_date, date, region,
			      service, hex);
}

int tnl_sigv4_signature(const char *secret, const char *date, const char *region, const char *service,
			const struct tnl_buf *sts, uint8_t out[32])
{
	char first[4 + TNL_SIGV4_MAX_SECRET] = "AWS4";
	size_t n = strlen(secret);
	uint8_t k[32];

	if (n > TNL_SIGV4_MAX_SECRET)
		return TNL_EINVAL;
	memcpy(first + 4, secret, n);
	tnl_hmac_sha256(first, 4 + n, date, strlen(date), k);
	tnl_hmac_sha256(k, 32, region, strlen(region), k);
	tnl_hmac_sha256(k, 32, service, strlen(service), k);
	tnl_hmac_sha256(k, 32, "aws4_request", 12, k);
	tnl_hmac_sha256(k, 32, tnl_buf_data(sts), tnl_buf_len(sts), out);
	tnl_wipe(first, sizeof(first));
	tnl_wipe(k, sizeof(k));
	return 0;
}

/* Signs r; `names` receives the list of signed headers. */
static int sign(const struct tnl_sigv4_request *r, const struct tnl_sigv4_keys *k, const char *region,
		const char *service, const char *amz_date, struct tnl_buf *names, char hex[65])
{
	struct tnl_buf canonical, sts;
	uint8_t mac[32];
	char date[9];
	int rc;

	memcpy(date, amz_date, 8);
	date[8] = 0;
	tnl_buf_init(&canonical, TNL_SIGV4_MAX_CANONICAL);
	tnl_buf_init(&sts, 1024);
	rc = tnl_sigv4_canonical(r, &canonical, names);
	if (rc == 0)
		rc = tnl_sigv4_string_to_sign(&canonical, amz_date, date, region, service, &sts);
	if (rc == 0)
		rc = tnl_sigv4_signature(k->secret_access_key, date, region, service, &sts, mac);
	if (rc == 0)
		tnl_hex(mac, sizeof(mac), hex);
	tnl_buf_fini_wiped(&canonical);
	tnl_buf_fini(&sts);
	return rc;
}

int tnl_sigv4_sign(const struct tnl_sigv4_request *r, const struct tnl_sigv4_keys *k, const char *region,
		   const char *service, uint64_t unix_s, struct tnl_buf *authorization)
{
	char amz_date[TNL_AMZDATE_STR], hex[65];
	struct tnl_buf names;
	int rc;

	tnl_amz_date(unix_s, amz_date);
	tnl_buf_init(&names, TNL_SIGV4_MAX_CANONICAL);
	rc = sign(r, k, region, service, amz_date, &names, hex);
	if (rc == 0)
		rc = tnl_buf_printf(authorization,
				    "%s Credential=%s/%.8s/%s/%s/aws4_request, SignedHeaders=%.*s, Signature=%s",
				    TNL_SIGV4_ALGORITHM, k->access_key_id, amz_date, region, service,
				    (int)tnl_buf_len(&names), (const char *)tnl_buf_data(&names), hex);
	tnl_buf_fini(&names);
	return rc;
}
