/* Keys and pre-signed queries, for the tests of signatures. */
#ifndef SIGV4_UTIL_H
#define SIGV4_UTIL_H
#include "tests/unit/check.h"
#include "lib/enc.h"
#include "lib/sigv4_internal.h"

#define T0 1440938160ull /* 2015-08-30T12:36:00Z */

#define SECRET "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"

/* The product verifies pre-signed queries and makes none: they are made here. The parameters but for the signature. */
static inline void presign_query(const struct tnl_sigv4_request *r, const struct tnl_sigv4_keys *k, const char *region,
				 const char *service, const char *amz_date, unsigned expires_s, struct tnl_buf *q)
{
	char scope[500];
	struct tnl_buf canonical, names;
	tnl_buf_init(&canonical, TNL_SIGV4_MAX_CANONICAL);
	tnl_buf_init(&names, TNL_SIGV4_MAX_CANONICAL);
	if (r->query && r->query_len) {
		tnl_buf_put(q, r->query, r->query_len);
		tnl_buf_putc(q, '&');
	}
	tnl_buf_puts(q, "X-Amz-Algorithm=" TNL_SIGV4_ALGORITHM "&X-Amz-Credential=");
	int n =
	    snprintf(scope, sizeof(scope), "%s/%.8s/%s/%s/aws4_request", k->access_key_id, amz_date, region, service);
	assert_int_equal(tnl_uri_encode(q, scope, (size_t)n, false), 0);
	assert_int_equal(tnl_sigv4_canonical(r, &canonical, &names), 0);
	assert_int_equal(tnl_buf_printf(q, "&X-Amz-Date=%s&X-Amz-SignedHeaders=", amz_date), 0);
	assert_int_equal(tnl_uri_encode(q, tnl_buf_str(&names), tnl_buf_len(&names), false), 0);
	assert_int_equal(tnl_buf_printf(q, "&X-Amz-Expires=%u", expires_s), 0);
	if (k->session_token) {
		tnl_buf_puts(q, "&X-Amz-Security-Token=");
		assert_int_equal(tnl_uri_encode(q, k->session_token, strlen(k->session_token), false), 0);
	}
	tnl_buf_fini(&canonical);
	tnl_buf_fini(&names);
}

static inline void presign(const struct tnl_sigv4_request *r, const struct tnl_sigv4_keys *k, const char *region,
			   const char *service, uint64_t unix_s, unsigned expires_s, struct tnl_buf *query)
{
	struct tnl_sigv4_request with = *r;
	char amz_date[TNL_AMZDATE_STR], date[9], hex[65];
	struct tnl_buf q, names, canonical, sts;
	uint8_t mac[32];
	tnl_amz_date(unix_s, amz_date);
	snprintf(date, sizeof(date), "%.8s", amz_date);
	tnl_buf_init(&q, TNL_SIGV4_MAX_CANONICAL);
	tnl_buf_init(&names, TNL_SIGV4_MAX_CANONICAL);
	tnl_buf_init(&canonical, TNL_SIGV4_MAX_CANONICAL);
	tnl_buf_init(&sts, 1024);
	presign_query(r, k, region, service, amz_date, expires_s, &q);
	with.query = tnl_buf_str(&q);
	with.query_len = tnl_buf_len(&q);
	assert_int_equal(tnl_sigv4_canonical(&with, &canonical, &names), 0);
	assert_int_equal(tnl_sigv4_string_to_sign(&canonical, amz_date, date, region, service, &sts), 0);
	assert_int_equal(tnl_sigv4_signature(k->secret_access_key, date, region, service, &sts, mac), 0);
	tnl_hex(mac, sizeof(mac), hex);
	assert_int_equal(tnl_buf_printf(query, "%s&X-Amz-Signature=%s", tnl_buf_str(&q), hex), 0);
	tnl_buf_fini(&q);
	tnl_buf_fini(&names);
	tnl_buf_fini(&canonical);
	tnl_buf_fini(&sts);
}

#endif
