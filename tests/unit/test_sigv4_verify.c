/* Signature Version 4: everything that verification has to refuse. */
#include "tests/unit/sigv4_util.h"
#include "lib/alloc.h"
#include "lib/http.h"
#include "lib/num.h"

/* A request as text, signed here, and then bent by the test. */
struct req {
	char target[512];
	char lines[16][700];
	int n;
	char body[200];
};

static void req_init(struct req *q)
{
	memset(q, 0, sizeof(*q));
	strcpy(q->target, "/v1/data-channel/ops%40home?role=publish_subscribe&a=2&a=1");
	strcpy(q->lines[q->n++], "Host: gw.example.com:8443");
	strcpy(q->lines[q->n++], "Content-Type: application/x-amz-json-1.1");
	strcpy(q->lines[q->n++], "X-Amz-Target: AmazonSSM.StartSession");
	strcpy(q->lines[q->n++], "X-Amz-Date: 20150830T123600Z");
	strcpy(q->body, "{\"Target\":\"i-0123456789abcdef0\"}");
}

static const char *sign_secret = SECRET;

static void req_sign_as(struct req *q, const char *service, uint64_t at, int skip)
{
	struct tnl_sigv4_keys keys = {.access_key_id = "AKIDEXAMPLE", .secret_access_key = sign_secret};
	struct tnl_sigv4_header h[16];
	char *mark = strchr(q->target, '?');
	struct tnl_sigv4_request r = {.method = "POST",
				      .path = q->target,
				      .path_len = mark ? (size_t)(mark - q->target) : strlen(q->target),
				      .query = mark ? mark + 1 : "",
				      .query_len = mark ? strlen(mark + 1) : 0,
				      .headers = h,
				      .body = q->body,
				      .body_len = strlen(q->body),
				      .double_encode_path = true,
				      .normalize_path = true};
	struct tnl_buf auth;

	for (int i = 0; i < q->n; i++) {
		char *colon = strchr(q->lines[i], ':');

		if (i == skip)
			continue;
		h[r.nheaders++] = (struct tnl_sigv4_header){.name = q->lines[i],
							    .nlen = (size_t)(colon - q->lines[i]),
							    .value = colon + 1,
							    .vlen = strlen(colon + 1)};
	}
	tnl_buf_init(&auth, 4096);
	assert_int_equal(tnl_sigv4_sign(&r, &keys, "eu-west-1", service, at, &auth), 0);
	snprintf(q->lines[q->n++], sizeof(q->lines[0]), "Authorization: %s", tnl_buf_str(&auth));
	tnl_buf_fini(&auth);
}

static void req_sign(struct req *q)
{
	req_sign_as(q, "ssmmessages", T0, -1);
}

static void req_sign_with(struct req *q, const char *secret)
{
	sign_secret = secret;
	req_sign(q);
	sign_secret = SECRET;
}

/* Through the real head parser. */
static int req_verify(struct req *q, const char *secret, const char *region, uint64_t now, const char **fault)
{
	static char text[20000];
	struct tnl_http_head h;
	struct tnl_sigv4_claim c;
	size_t n = (size_t)snprintf(text, sizeof(text), "POST %s HTTP/1.1\r\n", q->target);
	int rc;

	for (int i = 0; i < q->n; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s\r\n", q->lines[i]);
	n += (size_t)snprintf(text + n, sizeof(text) - n, "\r\n");
	*fault = NULL;
	rc = tnl_http_parse(true, (const uint8_t *)text, n, &h);
	if (rc < 0)
		return rc;
	rc = tnl_sigv4_claim_parse(&h, &c, fault);
	if (rc)
		return rc;
	if (strcmp(c.access_key_id, "AKIDEXAMPLE") != 0)
		secret = NULL; /* the key's name is not part of what is signed: it chooses the secret */
	return tnl_sigv4_verify(&h, q->body, strlen(q->body), &c, secret, region, "ssmmessages", now, fault);
}

static void expect(struct req *q, int want, const char *want_fault)
{
	const char *fault;
	int rc = req_verify(q, SECRET, NULL, T0 + 10, &fault);

	if (rc != want || (want_fault && (!fault || strcmp(fault, want_fault) != 0)))
		fail_msg("got %s (%s), want %s (%s)", tnl_err_name(rc), fault ? fault : "-", tnl_err_name(want),
			 want_fault ? want_fault : "-");
}

static void test_good_request(void **state)
{
	struct req q;

	req_init(&q);
	req_sign(&q);
	expect(&q, 0, NULL);
	/* the same bytes spelled otherwise: order of the parameters, spaces, case of header names */
	strcpy(q.target, "/v1/data-channel/ops%40home?a=1&role=publish%5fsubscribe&a=2");
	strcpy(q.lines[1], "content-type:   application/x-amz-json-1.1  ");
	expect(&q, 0, NULL);
	/* headers that are not signed and are none of x-amz-* are free */
	strcpy(q.lines[q.n++], "User-Agent: whatever");
	expect(&q, 0, NULL);
}

static void test_unsigned(void **state)
{
	struct req q;

	req_init(&q);
	expect(&q, TNL_ENOTFOUND, NULL);
}

static void test_uncovered_amz_header(void **state)
{
	struct req q;

	req_init(&q);
	req_sign(&q);
	strcpy(q.lines[q.n++], "X-Amz-Security-Token: abc");
	expect(&q, TNL_EAUTH, "signed headers");
	/* the target header itself left out of the signature */
	req_init(&q);
	req_sign_as(&q, "ssmmessages", T0, 2);
	expect(&q, TNL_EAUTH, "signed headers");
	/* the host left out */
	req_init(&q);
	req_sign_as(&q, "ssmmessages", T0, 0);
	expect(&q, TNL_EAUTH, "signed headers");
	/* the date left out */
	req_init(&q);
	req_sign_as(&q, "ssmmessages", T0, 3);
	expect(&q, TNL_EAUTH, "signed headers");
}

static void test_body(void **state)
{
	struct req q;

	req_init(&q);
	req_sign(&q);
	q.body[5] ^= 1;
	expect(&q, TNL_EAUTH, "signature");
	/* a content hash that is signed but is not that of the body */
	req_init(&q);
	strcpy(q.lines[q.n++], "X-Amz-Content-Sha256: UNSIGNED-PAYLOAD");
	req_sign(&q);
	expect(&q, TNL_EAUTH, "body hash");
}

static void test_scope(void **state)
{
	struct req q;
	const char *fault;

	/* scope date is not the date of X-Amz-Date */
	req_init(&q);
	req_sign_as(&q, "ssmmessages", T0 + 86400, -1);
	expect(&q, TNL_EAUTH, "scope date");
	req_init(&q);
	req_sign_as(&q, "ssm", T0, -1);
	expect(&q, TNL_EAUTH, "service");
	req_init(&q);
	req_sign(&q);
	assert_int_equal(req_verify(&q, SECRET, "eu-west-1", T0, &fault), 0);
	assert_int_equal(req_verify(&q, SECRET, "us-east-1", T0, &fault), TNL_EAUTH);
	assert_string_equal(fault, "region");
}

static void test_clock(void **state)
{
	struct req q;
	const char *fault;

	req_init(&q);
	req_sign(&q);
	assert_int_equal(req_verify(&q, SECRET, NULL, T0 + 900, &fault), 0);
	assert_int_equal(req_verify(&q, SECRET, NULL, T0 - 900, &fault), 0);
	assert_int_equal(req_verify(&q, SECRET, NULL, T0 + 901, &fault), TNL_EEXPIRED);
	assert_string_equal(fault, "clock");
	assert_int_equal(req_verify(&q, SECRET, NULL, T0 - 901, &fault), TNL_EEXPIRED);
	assert_int_equal(req_verify(&q, SECRET, NULL, UINT64_MAX - 10, &fault), TNL_EEXPIRED);
}

static void test_unknown_or_wrong_key(void **state)
{
	struct req q;
	const char *fault;

	req_init(&q);
	req_sign(&q);
	assert_int_equal(req_verify(&q, NULL, NULL, T0, &fault), TNL_EAUTH);
	assert_string_equal(fault, "signature");
	assert_int_equal(req_verify(&q, "wrong", NULL, T0, &fault), TNL_EAUTH);
	assert_string_equal(fault, "signature");
	assert_int_equal(req_verify(&q, "", NULL, T0, &fault), TNL_EAUTH);
	/* who knows what stands in for the secret of an unknown key gets in no more than others */
	req_init(&q);
	req_sign_with(&q, "no key of this name is known here, xxxxx");
	assert_int_equal(req_verify(&q, "no key of this name is known here, xxxxx", NULL, T0, &fault), 0);
	assert_int_equal(req_verify(&q, NULL, NULL, T0, &fault), TNL_EAUTH);
}

static void test_duplicate_query_keys(void **state)
{
	struct req q;

	/* sorted by value: another order is the same request, another value is not */
	req_init(&q);
	req_sign(&q);
	strcpy(q.target, "/v1/data-channel/ops%40home?a=2&a=1&role=publish_subscribe");
	expect(&q, 0, NULL);
	strcpy(q.target, "/v1/data-channel/ops%40home?a=2&a=2&role=publish_subscribe");
	expect(&q, TNL_EAUTH, "signature");
	/* too many to sort for a stranger */
	req_init(&q);
	req_sign(&q);
	strcpy(q.target, "/?");
	for (int i = 0; i < 200; i++)
		strcat(q.target, "a&");
	expect(&q, TNL_EAUTH, "query");
}

static void test_path_is_encoded_once_more(void **state)
{
	struct req q;

	req_init(&q);
	req_sign(&q);
	strcpy(q.target, "/v1/data-channel/ops@home?role=publish_subscribe&a=2&a=1"); /* another path on the wire */
	expect(&q, TNL_EAUTH, "signature");
}

/* Flip each byte of each line in turn: nothing that was changed may pass. */
static void test_everything_tampered(void **state)
{
	struct req good, q;
	size_t tried = 0;
	const char *fault;

	req_init(&good);
	req_sign(&good);
	for (size_t i = 0; i < strlen(good.target); i++) {
		q = good;
		q.target[i] ^= 1;
		assert_int_not_equal(req_verify(&q, SECRET, NULL, T0, &fault), 0);
		tried++;
	}
	for (int l = 0; l < good.n; l++)
		for (size_t i = 0; i < strlen(good.lines[l]); i++)
			for (int bit = 0; bit < 8; bit++) {
				q = good;
				q.lines[l][i] ^= (char)(1 << bit);
				if (bit == 5 && i < strcspn(good.lines[l], ":"))
					continue; /* the case of a header's name is free */
				if (req_verify(&q, SECRET, NULL, T0, &fault) == 0) {
					/* harmless: white space at the start or end of a value and in the
					 * Authorization's lists, and the case of the hex digits */
					bool space =
					    good.lines[l][i] == ' ' || q.lines[l][i] == ' ' || q.lines[l][i] == '\t';
					bool hexcase = l == good.n - 1 && bit == 5;

					if (!space && !hexcase)
						fail_msg("passed: line %d byte %zu bit %d: %s", l, i, bit, q.lines[l]);
				}
				tried++;
			}
	for (size_t i = 0; i < strlen(good.body); i++) {
		q = good;
		q.body[i] ^= 0x10;
		assert_int_not_equal(req_verify(&q, SECRET, NULL, T0, &fault), 0);
	}
	assert_true(tried > 2000);
}

static void test_malformed_claims(void **state)
{
	static const struct {
		const char *value, *fault;
	} bad[] = {
	    {"Basic dXNlcjpwYXNz", "authorization"},
	    {"AWS4-HMAC-SHA256 ", "authorization"},
	    {"AWS4-HMAC-SHA256 Credential=A/20150830/r/s/aws4_request", "authorization"},
	    {"AWS4-HMAC-SHA256 Credential=A/20150830/r/aws4_request, SignedHeaders=host, Signature=00", "credential"},
	    {"AWS4-HMAC-SHA256 Credential=A/20150830/r/s/x/aws4_request, SignedHeaders=host, Signature=00",
	     "credential"},
	    {"AWS4-HMAC-SHA256 Credential=/20150830/r/s/aws4_request, SignedHeaders=host, Signature=00", "credential"},
	    {"AWS4-HMAC-SHA256 Credential=A/2015083/r/s/aws4_request, SignedHeaders=host, Signature=00", "credential"},
	    {"AWS4-HMAC-SHA256 Credential=A/20150830/r/s/aws5_request, SignedHeaders=host, Signature=00", "credential"},
	    {"AWS4-HMAC-SHA256 SignedHeaders=x;host", "signed headers"},
	    {"AWS4-HMAC-SHA256 SignedHeaders=host;host", "signed headers"},
	    {"AWS4-HMAC-SHA256 SignedHeaders=host;", "signed headers"},
	    {"AWS4-HMAC-SHA256 SignedHeaders=;host", "signed headers"},
	    {"AWS4-HMAC-SHA256 SignedHeaders=Host", "signed headers"},
	    {"AWS4-HMAC-SHA256 SignedHeaders=", "signed headers"},
	    {"AWS4-HMAC-SHA256 Signature=00", "signature"},
	    {"AWS4-HMAC-SHA256 Signature="
	     "zz000000000000000000000000000000000000000000000000000000000000zz",
	     "signature"},
	    {"AWS4-HMAC-SHA256 Colour=red", "authorization"},
	};

	for (size_t i = 0; i < TNL_COUNT(bad); i++) {
		struct req q;

		req_init(&q);
		snprintf(q.lines[q.n++], sizeof(q.lines[0]), "Authorization: %s", bad[i].value);
		expect(&q, TNL_ESYNTAX, bad[i].fault);
	}
	/* the parts twice */
	struct req q;
	req_init(&q);
	req_sign(&q);
	strcat(q.lines[q.n - 1], ", Signature=0000000000000000000000000000000000000000000000000000000000000000");
	expect(&q, TNL_ESYNTAX, "signature");
	/* no date, a date that is none */
	req_init(&q);
	req_sign(&q);
	strcpy(q.lines[3], "X-Other: 1");
	expect(&q, TNL_ESYNTAX, "date");
	strcpy(q.lines[3], "X-Amz-Date: yesterday");
	expect(&q, TNL_ESYNTAX, "date");
	/* a name that is signed but not there */
	req_init(&q);
	req_sign(&q);
	strcpy(q.lines[1], "X-Other: 1");
	expect(&q, TNL_EAUTH, "signed headers");
	/* both kinds of signature at once */
	req_init(&q);
	req_sign(&q);
	strcpy(q.target, "/?X-Amz-Algorithm=AWS4-HMAC-SHA256");
	expect(&q, TNL_ESYNTAX, "two signatures");
}

static void presigned_req(struct req *q, unsigned expires)
{
	struct tnl_sigv4_keys keys = {.access_key_id = "AKIDEXAMPLE",
				      .secret_access_key = SECRET,
				      .session_token = "to/ken+="};
	struct tnl_sigv4_header h = {.name = "Host", .nlen = 4, .value = "gw.example.com:8443", .vlen = 19};
	struct tnl_sigv4_request r = {.method = "POST",
				      .path = "/v1/x",
				      .path_len = 5,
				      .query = "role=publish_subscribe",
				      .query_len = 22,
				      .headers = &h,
				      .nheaders = 1,
				      .double_encode_path = true,
				      .normalize_path = true};
	struct tnl_buf out;

	memset(q, 0, sizeof(*q));
	tnl_buf_init(&out, 4096);
	presign(&r, &keys, "eu-west-1", "ssmmessages", T0, expires, &out);
	snprintf(q->target, sizeof(q->target), "/v1/x?%s", tnl_buf_str(&out));
	strcpy(q->lines[q->n++], "Host: gw.example.com:8443");
	tnl_buf_fini(&out);
}

static void test_presigned_refusals(void **state)
{
	struct req q;
	const char *fault;

	presigned_req(&q, 60);
	expect(&q, 0, NULL);
	assert_int_equal(req_verify(&q, SECRET, NULL, T0 + 60, &fault), 0);
	assert_int_equal(req_verify(&q, SECRET, NULL, T0 + 61, &fault), TNL_EEXPIRED);
	assert_int_equal(req_verify(&q, SECRET, NULL, T0 - 901, &fault), TNL_EEXPIRED);
	strcpy(q.lines[q.n++], "X-Amz-Target: Other");
	expect(&q, TNL_EAUTH, "signed headers");
	presigned_req(&q, 60);
	strcpy(q.body, "a body that was not signed");
	expect(&q, TNL_EAUTH, "signature");
	presigned_req(&q, 60);
	strcat(q.target, "&X-Amz-Expires=600");
	expect(&q, TNL_ESYNTAX, "expires");
	presigned_req(&q, 0);
	expect(&q, TNL_ESYNTAX, "expires");
	presigned_req(&q, 604801);
	expect(&q, TNL_ESYNTAX, "expires");
	for (unsigned expires = 900; expires <= 604800; expires = expires == 900   ? 901
								  : expires == 901 ? 604800
										   : 604801) {
		presigned_req(&q, expires); /* AWS would take it for so long */
		assert_int_equal(req_verify(&q, SECRET, NULL, T0 + 900, &fault), 0);
		assert_int_equal(req_verify(&q, SECRET, NULL, T0 + 901, &fault), TNL_EEXPIRED);
	}
	presigned_req(&q, 60);
	*strstr(q.target, "X-Amz-Date") = 'Y';
	expect(&q, TNL_ESYNTAX, "query");
	/* every byte of the query */
	presigned_req(&q, 60);
	for (size_t i = 5; i < strlen(q.target); i++) {
		struct req bad = q;

		bad.target[i] ^= 1;
		assert_int_not_equal(req_verify(&bad, SECRET, NULL, T0, &fault), 0);
	}
}

static void test_http_date(void **state)
{
	uint64_t s;

	assert_int_equal(tnl_http_date_parse("Sun, 06 Nov 1994 08:49:37 GMT", 29, &s), 0);
	assert_int_equal(s, 784111777);
	assert_int_equal(tnl_http_date_parse("Sun, 06 Nox 1994 08:49:37 GMT", 29, &s), TNL_ESYNTAX);
	assert_int_equal(tnl_http_date_parse("Sun, 36 Nov 1994 08:49:37 GMT", 29, &s), TNL_ESYNTAX);
	assert_int_equal(tnl_http_date_parse("Sun, 06 Nov 1994 08:49:37 CET", 29, &s), TNL_ESYNTAX);
	assert_int_equal(tnl_http_date_parse("", 0, &s), TNL_ESYNTAX);
}

/* A request may fail for want of memory, but neither crash nor leak, nor pass wrongly. */
static void test_allocation_failures(void **state)
{
	struct req q;
	const char *fault;
	long live = tnl_alloc_live();
	bool passed = false;

	req_init(&q);
	req_sign(&q);
	for (long n = 0; n < 200 && !passed; n++) {
		tnl_alloc_fail_after(n, 0);
		passed = req_verify(&q, SECRET, NULL, T0, &fault) == 0;
		tnl_alloc_fail_after(-1, 0);
		assert_int_equal(tnl_alloc_live(), live);
	}
	assert_true(passed);
}

static int no_leaks(void **state)
{
	return tnl_alloc_live() == 0 ? 0 : -1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_good_request),
	    cmocka_unit_test(test_unsigned),
	    cmocka_unit_test(test_uncovered_amz_header),
	    cmocka_unit_test(test_body),
	    cmocka_unit_test(test_scope),
	    cmocka_unit_test(test_clock),
	    cmocka_unit_test(test_unknown_or_wrong_key),
	    cmocka_unit_test(test_duplicate_query_keys),
	    cmocka_unit_test(test_path_is_encoded_once_more),
	    cmocka_unit_test(test_everything_tampered),
	    cmocka_unit_test(test_malformed_claims),
	    cmocka_unit_test(test_presigned_refusals),
	    cmocka_unit_test(test_http_date),
	    cmocka_unit_test(test_allocation_failures),
	};
	return cmocka_run_group_tests(tests, NULL, no_leaks);
}
