/* A fake of the AWS services on loopback, an environment without surprises, and a home folder. */
#ifndef AWS_TEST_H
#define AWS_TEST_H
#include "tests/daemon/base/td_test.h"
#include "lib/enc.h"
#include "lib/json.h"
#include "lib/num.h"
#include "lib/sigv4.h"
#include "tunneld/aws/aws.h"
#include "tunneld/net/http_server.h"
#include <sys/stat.h>

static char HOME[64];
static long live_before;

static struct fake {
	struct td_http_server *h;
	char url[64];
	int calls;
	char last[8][3000]; /* "METHOD target\nbody" of the latest calls, newest last */
	char auth[8][600];
	char bearer[400], imds_token[400];
	void (*handle)(struct td_request *r, const char *method, const char *target, const char *body);
} F;

T_UNUSED static void clean_env(void)
{
	static const char *const names[] = {"AWS_PROFILE",
					    "AWS_DEFAULT_PROFILE",
					    "AWS_REGION",
					    "AWS_DEFAULT_REGION",
					    "AWS_CONFIG_FILE",
					    "AWS_SHARED_CREDENTIALS_FILE",
					    "AWS_CA_BUNDLE",
					    "SSL_CERT_FILE",
					    "AWS_ENDPOINT_URL",
					    "AWS_ENDPOINT_URL_SSM",
					    "AWS_ENDPOINT_URL_SSMMESSAGES",
					    "AWS_ENDPOINT_URL_KMS",
					    "AWS_ENDPOINT_URL_STS",
					    "AWS_ENDPOINT_URL_SSO",
					    "AWS_ENDPOINT_URL_SSO_OIDC",
					    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
					    "AWS_ACCESS_KEY_ID",
					    "AWS_SECRET_ACCESS_KEY",
					    "AWS_SESSION_TOKEN",
					    "AWS_WEB_IDENTITY_TOKEN_FILE",
					    "AWS_ROLE_ARN",
					    "AWS_ROLE_SESSION_NAME",
					    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
					    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
					    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
					    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
					    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
					    "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
					    "AWS_USE_FIPS_ENDPOINT",
					    "AWS_USE_DUALSTACK_ENDPOINT",
					    "HTTPS_PROXY",
					    "https_proxy",
					    "HTTP_PROXY",
					    "http_proxy",
					    "NO_PROXY",
					    "no_proxy"};

	for (size_t i = 0; i < TNL_COUNT(names); i++)
		unsetenv(names[i]);
	setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
	setenv("AWS_REGION", "eu-west-1", 1);
}

T_UNUSED static void write_file(const char *name, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void write_file(const char *name, const char *fmt, ...)
{
	char path[200], *slash;
	va_list ap;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", HOME, name);
	for (slash = path + strlen(HOME) + 1; (slash = strchr(slash, '/')) != NULL; *slash++ = '/') {
		*slash = 0;
		mkdir(path, 0700);
	}
	f = fopen(path, "w");
	assert_non_null(f);
	va_start(ap, fmt);
	vfprintf(f, fmt, ap);
	va_end(ap);
	fclose(f);
}

T_UNUSED static void remove_file(const char *name)
{
	char path[200];

	snprintf(path, sizeof(path), "%s/%s", HOME, name);
	unlink(path);
}

T_UNUSED static void reply_json(struct td_request *r, int status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void reply_json(struct td_request *r, int status, const char *fmt, ...)
{
	char body[4000];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(body, sizeof(body), fmt, ap);
	va_end(ap);
	td_request_reply(r, status, "application/json", NULL, 0, body, strlen(body));
}

static void copy_header(const struct tnl_http_head *h, const char *name, char *out, size_t cap)
{
	size_t n = 0;
	const char *v = tnl_http_get(h, name, &n);

	snprintf(out, cap, "%.*s", (int)n, v ? v : "");
}

static void fake_request(void *ctx, struct td_request *r)
{
	const struct tnl_http_head *h = td_request_head(r);
	static char method[16], target[1000], body[2000];
	size_t n;
	const uint8_t *b = td_request_body(r, &n);
	int at = F.calls < 7 ? F.calls : 7;

	if (F.calls >= 8) {
		memmove(F.last[0], F.last[1], sizeof(F.last[0]) * 7);
		memmove(F.auth[0], F.auth[1], sizeof(F.auth[0]) * 7);
	}
	F.calls++;
	snprintf(method, sizeof(method), "%.*s", (int)h->method_len, h->method);
	snprintf(target, sizeof(target), "%.*s", (int)h->target_len, h->target);
	snprintf(body, sizeof(body), "%.*s", (int)n, b ? (const char *)b : "");
	snprintf(F.last[at], sizeof(F.last[0]), "%s %s\n%.1500s", method, target, body);
	copy_header(h, "authorization", F.auth[at], sizeof(F.auth[0]));
	copy_header(h, "x-amz-sso_bearer_token", F.bearer, sizeof(F.bearer));
	copy_header(h, "x-aws-ec2-metadata-token", F.imds_token, sizeof(F.imds_token));
	if (F.handle)
		F.handle(r, method, target, body);
	else
		reply_json(r, 404, "{}");
}

/* Was the request signed with these keys, for this service? */
T_UNUSED static bool signed_with(struct td_request *r, const char *id, const char *secret, const char *service)
{
	const struct tnl_http_head *h = td_request_head(r);
	struct tnl_sigv4_claim c;
	const char *fault;
	size_t n;
	const uint8_t *body = td_request_body(r, &n);

	return tnl_sigv4_claim_parse(h, &c, &fault) == 0 && strcmp(c.access_key_id, id) == 0 &&
	       tnl_sigv4_verify(h, body, n, &c, secret, NULL, service, T->wall_ms / 1000, &fault) == 0;
}

T_UNUSED static void aws_open(void)
{
	struct td_addr a;
	char why[256] = "", name[TD_ADDR_STR];
	struct td_http_server_config c = {.addrs = &a, .naddrs = 1, .request = fake_request};

	live_before = tnl_alloc_live();
	t_open();
	clean_env();
	strcpy(HOME, "/tmp/tunneld-test-XXXXXX");
	assert_non_null(mkdtemp(HOME));
	setenv("HOME", HOME, 1);
	memset(&F, 0, sizeof(F));
	a = t_addr("127.0.0.1:0");
	F.h = td_http_server_new(T, &c, why, sizeof(why));
	if (!F.h)
		fail_msg("%s", why);
	assert_int_equal(td_http_server_addr(F.h, 0, &a), 0);
	snprintf(F.url, sizeof(F.url), "http://%s", td_addr_str(&a, name));
}

/* -1 when memory was left behind. */
T_UNUSED static int aws_close(void)
{
	char cmd[128];

	td_http_server_free(F.h);
	t_turns(3);
	t_close();
	snprintf(cmd, sizeof(cmd), "rm -rf %s", HOME);
	assert_int_equal(system(cmd), 0);
	return tnl_alloc_live() == live_before ? 0 : -1;
}

#define CONF(...) (&(struct td_aws_config){.use_fips = -1, .use_dualstack = -1, __VA_ARGS__})
#define S(text) ((char *)(uintptr_t)(text))
#define KEYS .access_key_id = S("AKID"), .secret_access_key = S("the-secret")
#define T_CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

T_UNUSED static int setup(void **state)
{
	aws_open();
	return 0;
}

T_UNUSED static int teardown(void **state)
{
	return aws_close();
}

T_UNUSED static struct td_aws *aws_new(const struct td_aws_config *c)
{
	static const struct td_aws_config none = {.use_fips = -1, .use_dualstack = -1};
	char why[600] = "";
	struct td_aws *a = td_aws_new(T, c ? c : &none, why, sizeof(why));

	if (!a)
		fail_msg("%s", why);
	return a;
}

T_UNUSED static void expect_refused(const struct td_aws_config *c, const char *want)
{
	char why[600] = "";
	struct td_aws *a = td_aws_new(T, c, why, sizeof(why));

	assert_null(a);
	if (!strstr(why, want))
		fail_msg("\"%s\" lacks \"%s\"", why, want);
}

/* --- asking for keys ------------------------------------------------------------------ */

static struct got {
	int done;
	enum td_credentials_state st;
	char id[200], secret[200], token[200], why[600];
} G;

static void on_got(void *ctx, const struct tnl_sigv4_keys *k, enum td_credentials_state st, const char *why)
{
	G.done++;
	G.st = st;
	snprintf(G.id, sizeof(G.id), "%s", k ? k->access_key_id : "");
	snprintf(G.secret, sizeof(G.secret), "%s", k ? k->secret_access_key : "");
	snprintf(G.token, sizeof(G.token), "%s", k && k->session_token ? k->session_token : "");
	snprintf(G.why, sizeof(G.why), "%s", why ? why : "");
}

T_UNUSED static void ask(struct td_aws *a, bool force)
{
	memset(&G, 0, sizeof(G));
	assert_non_null(td_credentials_ask(a, force, on_got, NULL));
	assert_int_equal(G.done, 0); /* never at once */
	assert_true(t_until(&G.done, 15000));
	assert_int_equal(G.done, 1);
}

T_UNUSED static void expect_keys(const struct td_aws_config *c, const char *id, const char *secret, const char *token)
{
	struct td_aws *a = aws_new(c);

	ask(a, false);
	if (G.st != TD_CREDENTIALS_OK)
		fail_msg("no keys: %s", G.why);
	assert_string_equal(G.id, id);
	assert_string_equal(G.secret, secret);
	assert_string_equal(G.token, token);
	td_aws_free(a);
}

T_UNUSED static void expect_none(const struct td_aws_config *c, enum td_credentials_state st, const char *why)
{
	struct td_aws *a = aws_new(c);

	ask(a, false);
	assert_string_equal(G.id, "");
	if (G.st != st || !strstr(G.why, why))
		fail_msg("state %d, \"%s\"; wanted %d, \"%s\"", (int)G.st, G.why, (int)st, why);
	if (strchr(G.why, '\n'))
		fail_msg("more than one line: %s", G.why);
	td_aws_free(a);
}

#endif
