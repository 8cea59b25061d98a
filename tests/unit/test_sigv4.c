/* Signature Version 4.  The public cases (restated in tests/vectors/sigv4, and the original
 * folder where it is at hand) are signed in headers and in the query, and each signed request
 * is verified. */
#include "tests/unit/sigv4_util.h"
#include "lib/alloc.h"
#include "lib/http.h"
#include "lib/json.h"
#include <dirent.h>

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

/* The server always normalises, so the cases that are signed without it differ when there is something to normalise. */
static bool differs_at_server(const struct vec *v)
{
	return !v->normalize && (strstr(v->target, "//") || strstr(v->target, "/."));
}

static void check_in_headers(const struct vec *v)
{
	struct tnl_sigv4_keys keys = {.access_key_id = "AKIDEXAMPLE", .secret_access_key = SECRET};
	struct tnl_buf out, names;
	struct tnl_sigv4_request r;
	struct tnl_http_head h;
	struct built b;
	const char *sig, *fault = NULL;

	tnl_buf_init(&out, 100000);
	tnl_buf_init(&names, 100000);
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
	/* and verified */
	add(&b, "Authorization", 13, tnl_buf_str(&out));
	if (v->token_after)
		add(&b, "X-Amz-Security-Token", 20, v->token);
	head_of(v, &b, v->target, &h);
	int rc = verify(&h, v->body, strlen(v->body), SECRET, T0 + 5, &fault);
	if (rc != (v->token_after || differs_at_server(v) ? TNL_EAUTH : 0))
		fail_msg("%s: verification gave %s (%s)", v->name, tnl_err_name(rc), fault ? fault : "");
	if (v->token_after)
		assert_string_equal(fault, "signed headers");
	tnl_buf_fini(&out);
	tnl_buf_fini(&names);
}

/* The canonical form of what was signed in the query, whose first n bytes stand before the signature. */
static void check_canonical(const struct vec *v, const struct tnl_sigv4_request *r, const char *query, size_t n)
{
	struct tnl_sigv4_request with = *r;
	struct tnl_buf canon, names;

	with.query = query;
	with.query_len = n;
	tnl_buf_init(&canon, 100000);
	tnl_buf_init(&names, 100000);
	assert_int_equal(tnl_sigv4_canonical(&with, &canon, &names), 0);
	assert_string_equal(tnl_buf_str(&canon), v->canonical[1]);
	tnl_buf_fini(&canon);
	tnl_buf_fini(&names);
}

static void check_in_query(const struct vec *v)
{
	struct tnl_sigv4_keys keys = {.access_key_id = "AKIDEXAMPLE", .secret_access_key = SECRET};
	struct tnl_buf out;
	struct tnl_sigv4_request r;
	struct tnl_http_head h;
	struct built b;
	const char *fault = NULL;
	static char target[8192];

	tnl_buf_init(&out, 100000);
	build(v, false, &b, &r);
	if (v->token[0] && !v->token_after)
		keys.session_token = v->token;
	presign(&r, &keys, "us-east-1", "service", T0, 3600, &out);
	const char *query = tnl_buf_str(&out), *mark = strstr(query, "&X-Amz-Signature=");
	assert_non_null(mark);
	assert_string_equal(mark + 17, v->signature[1]);
	if (!v->token_after)
		assert_string_equal(query, v->presigned);
	check_canonical(v, &r, query, (size_t)(mark - query));
	snprintf(target, sizeof(target), "%.*s?%s", (int)r.path_len, r.path, query);
	head_of(v, &b, target, &h);
	int rc = verify(&h, v->body, strlen(v->body), SECRET, T0 + 899, &fault);
	if (rc != (differs_at_server(v) ? TNL_EAUTH : 0))
		fail_msg("%s: verification of the pre-signed form gave %s (%s)", v->name, tnl_err_name(rc),
			 fault ? fault : "");
	if (!differs_at_server(v))
		assert_int_equal(verify(&h, v->body, strlen(v->body), SECRET, T0 + 901, &fault), TNL_EEXPIRED);
	tnl_buf_fini(&out);
}

static void check_case(const struct vec *v)
{
	check_in_headers(v);
	check_in_query(v);
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

static int no_leaks(void **state)
{
	return tnl_alloc_live() == 0 ? 0 : -1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_cases),
	    cmocka_unit_test(test_suite_folder),
	};
	return cmocka_run_group_tests(tests, NULL, no_leaks);
}
