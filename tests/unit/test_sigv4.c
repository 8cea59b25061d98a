/* Signature Version 4.  The public cases (restated in tests/vectors/sigv4, and the original
 * folder where it is at hand) are signed in headers and in the query, and each signed request
 * is verified.  Then everything that verification has to refuse. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include "lib/alloc.h"
#include "lib/num.h"
#include "lib/enc.h"
#include "lib/http.h"
#include "lib/json.h"
#include "lib/sigv4_internal.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define T0 1440938160ull /* 2015-08-30T12:36:00Z */
#define SECRET "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"

struct vec {
	char name[100], method[16], target[1024];
	char headers[24][512];
	int nheaders;
	char body[1024];
	bool normalize, sign_body, token_after;
	char token[1024];
	char canonical[2][4096]; /* header, query */
	char signature[2][65];
	char presigned[4096];
};

/* The product verifies pre-signed queries and makes none: they are made here. The parameters but for the signature. */
static void presign_query(const struct tnl_sigv4_request *r, const struct tnl_sigv4_keys *k, const char *region,
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

static void presign(const struct tnl_sigv4_request *r, const struct tnl_sigv4_keys *k, const char *region,
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

static void put(char *dst, size_t cap, const char *text)
{
	size_t n = strlen(text);

	assert_true(n < cap);
	memcpy(dst, text, n + 1);
}

static void unescape(char *out, size_t cap, const char *s)
{
	size_t n = 0;

	for (; *s && *s != '\n'; s++) {
		assert_true(n + 1 < cap);
		if (*s == '\\') {
			s++;
			out[n++] = *s == 'n' ? '\n' : *s;
		} else {
			out[n++] = *s;
		}
	}
	out[n] = 0;
}

static void set_request(struct vec *v, const char *line)
{
	const char *sp = strchr(line, ' ');

	snprintf(v->method, sizeof(v->method), "%.*s", (int)(sp - line), line);
	snprintf(v->target, sizeof(v->target), "%s", sp + 1);
}

static struct vec *load_vectors(size_t *count)
{
	FILE *f = fopen("tests/vectors/sigv4/cases.txt", "r");
	struct vec *all = test_calloc(64, sizeof(*all)), *v = NULL;
	static char line[8192], text[8192];

	assert_non_null(f);
	*count = 0;
	while (fgets(line, sizeof(line), f)) {
		char *value = strchr(line, ' ');

		if (line[0] == '#' || !value)
			continue;
		*value++ = 0;
		unescape(text, sizeof(text), value);
		if (strcmp(line, "case") == 0) {
			assert_true(*count < 64);
			v = &all[(*count)++];
			put(v->name, sizeof(v->name), text);
		} else if (strcmp(line, "request") == 0) {
			set_request(v, text);
		} else if (strcmp(line, "header") == 0) {
			put(v->headers[v->nheaders++], sizeof(v->headers[0]), text);
		} else if (strcmp(line, "body") == 0) {
			put(v->body, sizeof(v->body), text);
		} else if (strcmp(line, "normalize") == 0) {
			v->normalize = true;
		} else if (strcmp(line, "sign-body") == 0) {
			v->sign_body = true;
		} else if (strcmp(line, "token") == 0) {
			put(v->token, sizeof(v->token), text);
		} else if (strcmp(line, "token-after") == 0) {
			v->token_after = true;
		} else if (strcmp(line, "header-canonical") == 0) {
			put(v->canonical[0], sizeof(v->canonical[0]), text);
		} else if (strcmp(line, "query-canonical") == 0) {
			put(v->canonical[1], sizeof(v->canonical[1]), text);
		} else if (strcmp(line, "header-signature") == 0) {
			put(v->signature[0], sizeof(v->signature[0]), text);
		} else if (strcmp(line, "query-signature") == 0) {
			put(v->signature[1], sizeof(v->signature[1]), text);
		} else if (strcmp(line, "presigned") == 0) {
			put(v->presigned, sizeof(v->presigned), text);
		} else {
			fail_msg("unknown field %s", line);
		}
	}
	fclose(f);
	return all;
}

/* --- building requests ------------------------------------------------------------ */

struct built {
	struct tnl_sigv4_header h[32];
	size_t n;
	char extra[8][2048];
	int nextra;
};

static void add(struct built *b, const char *name, size_t nlen, const char *value)
{
	b->h[b->n++] = (struct tnl_sigv4_header){.name = name, .nlen = nlen, .value = value, .vlen = strlen(value)};
}

static void build(const struct vec *v, bool in_headers, struct built *b, struct tnl_sigv4_request *r)
{
	const char *q = strchr(v->target, '?');

	memset(b, 0, sizeof(*b));
	for (int i = 0; i < v->nheaders; i++) {
		const char *colon = strchr(v->headers[i], ':');

		add(b, v->headers[i], (size_t)(colon - v->headers[i]), colon + 1);
	}
	if (in_headers) {
		add(b, "X-Amz-Date", 10, "20150830T123600Z");
		if (v->token[0] && !v->token_after)
			add(b, "X-Amz-Security-Token", 20, v->token);
		if (v->sign_body)
			add(b, "x-amz-content-sha256", 20,
			    "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e");
	}
	*r = (struct tnl_sigv4_request){.method = v->method,
					.path = v->target,
					.path_len = q ? (size_t)(q - v->target) : strlen(v->target),
					.query = q ? q + 1 : "",
					.query_len = q ? strlen(q + 1) : 0,
					.headers = b->h,
					.nheaders = b->n,
					.body = v->body,
					.body_len = strlen(v->body),
					.double_encode_path = true,
					.normalize_path = v->normalize};
}

static void head_of(const struct vec *v, const struct built *b, const char *target, struct tnl_http_head *h)
{
	memset(h, 0, sizeof(*h));
	h->request = true;
	h->method = v->method;
	h->method_len = strlen(v->method);
	h->target = target;
	h->target_len = strlen(target);
	for (size_t i = 0; i < b->n; i++)
		h->headers[h->nheaders++] = (struct tnl_http_header){.name = b->h[i].name,
								     .nlen = b->h[i].nlen,
								     .value = b->h[i].value,
								     .vlen = b->h[i].vlen};
}

static int verify(const struct tnl_http_head *h, const void *body, size_t n, const char *secret, uint64_t now,
		  const char **fault)
{
	struct tnl_sigv4_claim c;
	int rc = tnl_sigv4_claim_parse(h, &c, fault);

	return rc ? rc : tnl_sigv4_verify(h, body, n, &c, secret, NULL, "service", now, fault);
}

static void check_case(const struct vec *v)
{
	struct tnl_sigv4_keys keys = {.access_key_id = "AKIDEXAMPLE", .secret_access_key = SECRET};
	struct tnl_buf out, names;
	struct tnl_sigv4_request r;
	struct tnl_http_head h;
	struct built b;
	const char *sig, *fault = NULL;
	static char target[8192];

	tnl_buf_init(&out, 100000);
	tnl_buf_init(&names, 100000);
	/* in headers */
	build(v, true, &b, &r);
	assert_int_equal(tnl_sigv4_canonical(&r, &out, &names), 0);
	assert_string_equal(tnl_buf_str(&out), v->canonical[0]);
	tnl_buf_reset(&out);
	assert_int_equal(tnl_sigv4_sign(&r, &keys, "us-east-1", "service", T0, &out), 0);
	sig = strstr(tnl_buf_str(&out), "Signature=");
	assert_non_null(sig);
	assert_string_equal(sig + 10, v->signature[0]);
	assert_non_null(
	    strstr(tnl_buf_str(&out),
		   "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders="));
	/* and verified: the server always normalises, so the cases that are signed without it differ when
	 * there is something to normalise */
	add(&b, "Authorization", 13, tnl_buf_str(&out));
	if (v->token_after)
		add(&b, "X-Amz-Security-Token", 20, v->token);
	head_of(v, &b, v->target, &h);
	int rc = verify(&h, v->body, strlen(v->body), SECRET, T0 + 5, &fault);
	bool differs = !v->normalize && (strstr(v->target, "//") || strstr(v->target, "/."));
	int want = v->token_after || differs ? TNL_EAUTH : 0;
	if (rc != want)
		fail_msg("%s: verification gave %s (%s)", v->name, tnl_err_name(rc), fault ? fault : "");
	if (v->token_after)
		assert_string_equal(fault, "signed headers");
	/* in the query */
	build(v, false, &b, &r);
	if (v->token[0] && !v->token_after)
		keys.session_token = v->token;
	tnl_buf_reset(&out);
	presign(&r, &keys, "us-east-1", "service", T0, 3600, &out);
	const char *mark = strstr(tnl_buf_str(&out), "&X-Amz-Signature=");
	assert_non_null(mark);
	assert_string_equal(mark + 17, v->signature[1]);
	if (!v->token_after)
		assert_string_equal(tnl_buf_str(&out), v->presigned);
	/* the canonical form of what was signed */
	struct tnl_sigv4_request signed_r = r;
	signed_r.query = tnl_buf_str(&out);
	signed_r.query_len = (size_t)(mark - signed_r.query);
	struct tnl_buf canon;
	tnl_buf_init(&canon, 100000);
	tnl_buf_reset(&names);
	assert_int_equal(tnl_sigv4_canonical(&signed_r, &canon, &names), 0);
	assert_string_equal(tnl_buf_str(&canon), v->canonical[1]);
	tnl_buf_fini(&canon);
	snprintf(target, sizeof(target), "%.*s?%s", (int)r.path_len, r.path, tnl_buf_str(&out));
	head_of(v, &b, target, &h);
	rc = verify(&h, v->body, strlen(v->body), SECRET, T0 + 3599, &fault);
	want = differs ? TNL_EAUTH : 0;
	if (rc != want)
		fail_msg("%s: verification of the pre-signed form gave %s (%s)", v->name, tnl_err_name(rc),
			 fault ? fault : "");
	if (!differs)
		assert_int_equal(verify(&h, v->body, strlen(v->body), SECRET, T0 + 3601, &fault), TNL_EEXPIRED);
	tnl_buf_fini(&out);
	tnl_buf_fini(&names);
}

static void test_cases(void **state)
{
	size_t n;
	struct vec *all = load_vectors(&n);

	assert_int_equal(n, 38);
	for (size_t i = 0; i < n; i++)
		check_case(&all[i]);
	test_free(all);
}

/* --- the original folder, where it is there ---------------------------------------- */

static bool slurp(const char *dir, const char *file, char *out, size_t cap)
{
	char path[512];
	FILE *f;
	size_t n, w = 0;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	f = fopen(path, "r");
	if (!f)
		return false;
	n = fread(out, 1, cap - 1, f);
	fclose(f);
	for (size_t i = 0; i < n; i++)
		if (out[i] != '\r')
			out[w++] = out[i];
	out[w] = 0;
	return true;
}

static void load_request(struct vec *v, char *text)
{
	char *body = strstr(text, "\n\n"), *line, *end;

	if (body) {
		snprintf(v->body, sizeof(v->body), "%s", body + 2);
		*body = 0;
	}
	end = strstr(text, " HTTP/1.1");
	assert_non_null(end);
	*end = 0;
	set_request(v, text);
	line = strchr(end + 1, '\n');
	while (line && line[1]) {
		char *next = strchr(line + 1, '\n');

		while (next && (next[1] == ' ' || next[1] == '\t'))
			next = strchr(next + 1, '\n');
		size_t n = next ? (size_t)(next - line - 1) : strlen(line + 1);
		if (n)
			snprintf(v->headers[v->nheaders++], sizeof(v->headers[0]), "%.*s", (int)n, line + 1);
		line = next;
	}
}

static bool load_case(const char *dir, struct vec *v)
{
	static char text[8192];
	struct tnl_json *ctx;
	const struct tnl_json *cred;

	if (!slurp(dir, "request.txt", text, sizeof(text)))
		return false;
	load_request(v, text);
	assert_true(slurp(dir, "context.json", text, sizeof(text)));
	ctx = tnl_json_parse(text, strlen(text));
	assert_non_null(ctx);
	v->normalize = tnl_json_bool(tnl_json_get(ctx, "normalize"), false);
	v->sign_body = tnl_json_bool(tnl_json_get(ctx, "sign_body"), false);
	v->token_after = tnl_json_bool(tnl_json_get(ctx, "omit_session_token"), false);
	cred = tnl_json_get(ctx, "credentials");
	if (tnl_json_get_str(cred, "token"))
		snprintf(v->token, sizeof(v->token), "%s", tnl_json_get_str(cred, "token"));
	tnl_json_free(ctx);
	assert_true(slurp(dir, "header-canonical-request.txt", v->canonical[0], sizeof(v->canonical[0])));
	assert_true(slurp(dir, "query-canonical-request.txt", v->canonical[1], sizeof(v->canonical[1])));
	assert_true(slurp(dir, "header-signature.txt", v->signature[0], sizeof(v->signature[0])));
	assert_true(slurp(dir, "query-signature.txt", v->signature[1], sizeof(v->signature[1])));
	assert_true(slurp(dir, "query-signed-request.txt", text, sizeof(text)));
	char *end = strstr(text, " HTTP/1.1"), *q;
	*end = 0;
	q = strchr(text, '?');
	snprintf(v->presigned, sizeof(v->presigned), "%s", q + 1);
	return true;
}

static void test_suite_folder(void **state)
{
	DIR *d = opendir("../shared/sigv4-suite");
	struct dirent *e;
	int n = 0;

	if (!d)
		skip();
	while ((e = readdir(d)) != NULL) {
		struct vec *v = test_calloc(1, sizeof(*v));
		char dir[400];

		snprintf(dir, sizeof(dir), "../shared/sigv4-suite/%.200s", e->d_name);
		snprintf(v->name, sizeof(v->name), "%.90s", e->d_name);
		if (e->d_name[0] != '.' && load_case(dir, v)) {
			check_case(v);
			n++;
		}
		test_free(v);
	}
	closedir(d);
	assert_true(n >= 38);
}

/* --- refusals ------------------------------------------------------------------------- */

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
	    cmocka_unit_test(test_cases),
	    cmocka_unit_test(test_suite_folder),
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
