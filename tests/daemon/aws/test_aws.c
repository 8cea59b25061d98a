/* The environment of an [aws] block: endpoints, proxies, trust, StreamUrl; and signed calls with their verdicts. */
#include "tests/daemon/aws/aws_test.h"
#include "lib/crypto.h"
#include "lib/num.h"
#include "tunneld/net/conn.h"
#include "tunneld/net/listen.h"

#define CONF(...) (&(struct td_aws_config){.use_fips = -1, .use_dualstack = -1, __VA_ARGS__})
#define S(text) ((char *)(uintptr_t)(text))
#define KEYS .access_key_id = S("AKID"), .secret_access_key = S("the-secret")

static int setup(void **state)
{
	aws_open();
	return 0;
}

static int teardown(void **state)
{
	return aws_close();
}

static void endpoint_is(const struct td_aws_config *c, const char *service, const char *want)
{
	struct td_aws *a = aws_new(c);

	assert_string_equal(td_aws_endpoint(a, service), want);
	td_aws_free(a);
}

static void expect_refused(const struct td_aws_config *c, const char *want)
{
	char why[600] = "";
	struct td_aws *a = td_aws_new(T, c, why, sizeof(why));

	assert_null(a);
	if (!strstr(why, want))
		fail_msg("\"%s\" lacks \"%s\"", why, want);
}

/* --- endpoints -------------------------------------------------------------------------------- */

static void test_partitions(void **state)
{
	static const struct {
		const char *region, *service;
		int fips, dual;
		const char *want;
	} cases[] = {
	    {"eu-west-1", "ssm", 0, 0, "https://ssm.eu-west-1.amazonaws.com"},
	    {"eu-west-1", "ssmmessages", 0, 0, "https://ssmmessages.eu-west-1.amazonaws.com"},
	    {"eu-west-1", "kms", 0, 0, "https://kms.eu-west-1.amazonaws.com"},
	    {"eu-west-1", "sts", 0, 0, "https://sts.eu-west-1.amazonaws.com"},
	    {"us-east-1", "ssm", 1, 0, "https://ssm-fips.us-east-1.amazonaws.com"},
	    {"us-east-1", "ssm", 0, 1, "https://ssm.us-east-1.api.aws"},
	    {"us-east-1", "kms", 1, 1, "https://kms-fips.us-east-1.api.aws"},
	    {"cn-north-1", "ssm", 0, 0, "https://ssm.cn-north-1.amazonaws.com.cn"},
	    {"cn-north-1", "ssmmessages", 0, 1, "https://ssmmessages.cn-north-1.api.amazonwebservices.com.cn"},
	    {"us-gov-west-1", "ssm", 0, 0, "https://ssm.us-gov-west-1.amazonaws.com"},
	    {"us-gov-west-1", "ssm", 1, 0, "https://ssm.us-gov-west-1.amazonaws.com"},
	    {"us-gov-west-1", "kms", 1, 0, "https://kms-fips.us-gov-west-1.amazonaws.com"},
	    {"us-iso-east-1", "ssm", 0, 0, "https://ssm.us-iso-east-1.c2s.ic.gov"},
	    {"us-isob-east-1", "sts", 0, 0, "https://sts.us-isob-east-1.sc2s.sgov.gov"},
	};

	for (size_t i = 0; i < TNL_COUNT(cases); i++) {
		struct td_aws_config c = {.region = S(cases[i].region),
					  .use_fips = cases[i].fips,
					  .use_dualstack = cases[i].dual};

		endpoint_is(&c, cases[i].service, cases[i].want);
	}
	struct td_aws_config iso = {.region = S("us-iso-east-1"), .use_fips = -1, .use_dualstack = 1};
	expect_refused(&iso, "has no dual-stack endpoints");
}

static void test_region_from_around(void **state)
{
	endpoint_is(NULL, "ssm", "https://ssm.eu-west-1.amazonaws.com");
	endpoint_is(CONF(.region = S("eu-north-1")), "ssm", "https://ssm.eu-north-1.amazonaws.com");
	unsetenv("AWS_REGION");
	expect_refused(CONF(), "no region is set: set region in [aws], AWS_REGION, or region in profile default");
	setenv("AWS_DEFAULT_REGION", "eu-west-2", 1);
	endpoint_is(NULL, "ssm", "https://ssm.eu-west-2.amazonaws.com");
	unsetenv("AWS_DEFAULT_REGION");
	write_file(".aws/config",
		   "[default]\nregion = eu-west-3\nuse_fips_endpoint = true\n[profile x]\nregion = eu south\n");
	endpoint_is(NULL, "ssm", "https://ssm-fips.eu-west-3.amazonaws.com");
	setenv("AWS_USE_FIPS_ENDPOINT", "false", 1);
	setenv("AWS_USE_DUALSTACK_ENDPOINT", "true", 1);
	endpoint_is(NULL, "ssm", "https://ssm.eu-west-3.api.aws");
	expect_refused(CONF(.profile = S("x")), "eu south is no region name");
	/* an endpoint tells it, or needs none */
	clean_env();
	unsetenv("AWS_REGION");
	remove_file(".aws/config");
	struct td_aws *a = aws_new(CONF(.ssm_endpoint = S("https://ssm.ap-south-1.amazonaws.com")));
	assert_string_equal(td_aws_region(a), "ap-south-1");
	td_aws_free(a);
	a = aws_new(CONF(.ssm_endpoint = S("https://gateway.example:8443")));
	assert_string_equal(td_aws_region(a), "us-east-1");
	td_aws_free(a);
}

static void test_endpoint_overrides(void **state)
{
	static const char file[] = "[default]\nendpoint_url = https://profile.example\nservices = dev\n"
				   "[services dev]\nkms =\n  endpoint_url = https://kms.dev.example/\n";
	write_file(".aws/config", "%s", file);
	endpoint_is(NULL, "ssm", "https://profile.example");
	endpoint_is(NULL, "kms", "https://kms.dev.example");
	setenv("AWS_ENDPOINT_URL", "https://global.example/", 1);
	endpoint_is(NULL, "ssm", "https://global.example");
	endpoint_is(NULL, "kms", "https://global.example");
	setenv("AWS_ENDPOINT_URL_KMS", "https://kms.example", 1);
	endpoint_is(NULL, "kms", "https://kms.example");
	endpoint_is(CONF(.kms_endpoint = S("https://conf.example/")), "kms", "https://conf.example");
	setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true", 1);
	endpoint_is(NULL, "kms", "https://kms.eu-west-1.amazonaws.com");
	endpoint_is(CONF(.kms_endpoint = S("https://conf.example")), "kms", "https://conf.example");
	clean_env();
	write_file(".aws/config", "%s[default]\nignore_configured_endpoint_urls = true\n", file);
	endpoint_is(NULL, "ssm", "https://ssm.eu-west-1.amazonaws.com");
	setenv("AWS_ENDPOINT_URL_SSM", "ftp://x", 1);
	remove_file(".aws/config");
	expect_refused(CONF(), "AWS_ENDPOINT_URL_SSM: ftp://x is no https URL");
}

/* One gateway serves all three; AWS's own endpoints do not stand for each other. */
static void test_companions(void **state)
{
	endpoint_is(CONF(.ssm_endpoint = S("https://gw.example:8443")), "ssmmessages", "https://gw.example:8443");
	endpoint_is(CONF(.ssm_endpoint = S("https://gw.example:8443")), "kms", "https://gw.example:8443");
	endpoint_is(CONF(.ssmmessages_endpoint = S("https://gw.example:8443")), "ssm", "https://gw.example:8443");
	endpoint_is(CONF(.ssm_endpoint = S("https://gw.example:8443")), "sts", "https://sts.eu-west-1.amazonaws.com");
	endpoint_is(CONF(.ssm_endpoint = S("https://vpce-1.ssm.eu-west-1.vpce.amazonaws.com")), "ssmmessages",
		    "https://ssmmessages.eu-west-1.amazonaws.com");
}

static void test_is_amazon(void **state)
{
	static const struct {
		const char *url;
		bool amazon;
	} cases[] = {{"https://ssm.eu-west-1.amazonaws.com", true},
		     {"https://ssm.cn-north-1.amazonaws.com.cn", true},
		     {"https://ssm.eu-west-1.api.aws", true},
		     {"https://gw.example:8443", false},
		     {"https://amazonaws.com.evil.example", false},
		     {"https://evilamazonaws.com", false},
		     {"https://vpce-1.ssm.eu-west-1.vpce.amazonaws.com", true}};

	for (size_t i = 0; i < TNL_COUNT(cases); i++) {
		struct td_aws *a = aws_new(CONF(.ssm_endpoint = S(cases[i].url)));

		assert_int_equal(td_aws_is_amazon(a), cases[i].amazon);
		td_aws_free(a);
	}
}

/* --- StreamUrl --------------------------------------------------------------------------------- */

static void test_stream_url(void **state)
{
	static const struct {
		const char *url;
		bool ok;
	} cases[] = {
	    {"wss://ssmmessages.eu-west-1.amazonaws.com/v1/data-channel/s-1?role=publish_subscribe&cell-number=AAE",
	     true},
	    {"wss://SSMMESSAGES.eu-west-1.amazonaws.com/v1/x", true},
	    {"wss://ssmmessages-fips.eu-west-1.amazonaws.com/v1/x", true},
	    {"wss://ssmmessages.eu-west-1.api.aws/v1/x", true},
	    {"wss://vpce-0a1b.ssmmessages.eu-west-1.vpce.amazonaws.com/v1/x", true},
	    {"ws://ssmmessages.eu-west-1.amazonaws.com/v1/x", false},
	    {"https://ssmmessages.eu-west-1.amazonaws.com/v1/x", false},
	    {"wss://ssmmessages.us-east-1.amazonaws.com/v1/x", false},
	    {"wss://bucket.s3.eu-west-1.amazonaws.com/v1/x", false},
	    {"wss://balancer.eu-west-1.elb.amazonaws.com/v1/x", false},
	    {"wss://ssmmessages.eu-west-1.amazonaws.com.evil.example/v1/x", false},
	    {"wss://evil.example/ssmmessages.eu-west-1.amazonaws.com", false},
	    {"wss://ssmmessages.eu-west-1.amazonaws.com@evil.example/v1/x", false},
	    {"wss://ssmmessages.eu-west-1.amazonaws.com:443@evil.example/", false},
	    {"wss://user@ssmmessages.eu-west-1.amazonaws.com/", false},
	    {"wss://vpce.amazonaws.com/", false},
	    {"wss://gw.example:9000/v1/data-channel/x", true},
	    {"wss://Gw.Example/v1", true},
	    {"wss://a.gw.example/v1", false},
	    {"wss://one.example/v1", true},
	    {"wss://x.two.example/v1", true},
	    {"wss://two.example/v1", false},
	    {"wss://", false},
	    {"", false},
	    {"wss://ssmmessages.eu-west-1.amazonaws.com\\@evil.example/", false},
	};
	char *hosts[] = {S("one.example"), S("*.two.example")};
	struct td_aws *a = aws_new(CONF(.ssm_endpoint = S("https://gw.example:8443"), .stream_hosts = {hosts, 2}));

	for (size_t i = 0; i < TNL_COUNT(cases); i++) {
		const char *fault = NULL;

		if (td_aws_stream_url_ok(a, cases[i].url, &fault) != cases[i].ok)
			fail_msg("%s: %s", cases[i].url, fault ? fault : "");
		if (!cases[i].ok)
			assert_non_null(fault);
	}
	td_aws_free(a);
}

static void test_presigned(void **state)
{
	assert_true(td_aws_url_presigned("wss://h/p?role=x&X-Amz-Signature=00"));
	assert_true(td_aws_url_presigned("wss://h/p?X-Amz-Algorithm=AWS4-HMAC-SHA256"));
	assert_true(td_aws_url_presigned("wss://h/p?a=1&X-Amz-Security-Token=x"));
	assert_false(td_aws_url_presigned("wss://h/p?role=publish_subscribe&cell-number=A"));
	assert_false(td_aws_url_presigned("wss://h/X-Amz-Signature=00"));
	assert_false(td_aws_url_presigned("wss://h/p?x=X-Amz-Signature"));
}

/* --- proxies --------------------------------------------------------------------------------------- */

static void proxy_is(struct td_aws *a, const char *host, const char *want)
{
	const struct td_proxy *p = td_aws_proxy(a, host);

	if (!want)
		assert_null(p);
	else if (!p)
		fail_msg("%s: no proxy", host);
	else
		assert_string_equal(p->host, want);
}

static void test_proxy_from_around(void **state)
{
	struct td_aws *a = aws_new(NULL);

	proxy_is(a, "ssm.eu-west-1.amazonaws.com", NULL);
	td_aws_free(a);
	setenv("HTTPS_PROXY", "http://me:p%40ss@upper.example:3128", 1);
	setenv("NO_PROXY", "direct.example, .sub.example,*.star.example,10.0.0.0/8 fd00::/8,1.2.3.4", 1);
	a = aws_new(CONF(.region = S("eu-west-2")));
	proxy_is(a, "ssm.eu-west-1.amazonaws.com", "upper.example");
	assert_int_equal(td_aws_proxy(a, "x")->port, 3128);
	assert_string_equal(td_aws_proxy(a, "x")->user, "me");
	assert_string_equal(td_aws_proxy(a, "x")->password, "p@ss");
	assert_false(td_aws_proxy(a, "x")->tls);
	proxy_is(a, "direct.example", NULL);
	proxy_is(a, "a.direct.example", NULL);
	proxy_is(a, "notdirect.example", "upper.example");
	proxy_is(a, "sub.example", "upper.example");
	proxy_is(a, "a.sub.example", NULL);
	proxy_is(a, "a.star.example", NULL);
	proxy_is(a, "10.1.2.3", NULL);
	proxy_is(a, "11.1.2.3", "upper.example");
	proxy_is(a, "fd00::1", NULL);
	proxy_is(a, "1.2.3.4", NULL);
	proxy_is(a, "localhost", NULL);
	proxy_is(a, "127.0.0.1", NULL);
	proxy_is(a, "::1", NULL);
	proxy_is(a, "127.evil.example", "upper.example");
	proxy_is(a, "db.LOCALHOST.", NULL);
	td_aws_free(a);
	setenv("https_proxy", "https://lower.example", 1);
	setenv("no_proxy", "*", 1);
	a = aws_new(CONF(.region = S("eu-west-3")));
	proxy_is(a, "ssm.eu-west-1.amazonaws.com", NULL);
	td_aws_free(a);
	unsetenv("no_proxy");
	a = aws_new(CONF(.region = S("eu-north-1")));
	proxy_is(a, "ssm.eu-west-1.amazonaws.com", "lower.example");
	assert_true(td_aws_proxy(a, "x")->tls);
	assert_int_equal(td_aws_proxy(a, "x")->port, 443);
	td_aws_free(a);
	/* the configuration wins, on loopback too; none means none */
	a = aws_new(CONF(.proxy = S("http://conf.example:1")));
	proxy_is(a, "127.0.0.1", "conf.example");
	td_aws_free(a);
	a = aws_new(CONF(.proxy = S("none")));
	proxy_is(a, "ssm.eu-west-1.amazonaws.com", NULL);
	td_aws_free(a);
	/* a malformed one is named without its value: it may hold a password */
	setenv("https_proxy", "ftp://me:hush@x", 1);
	expect_refused(CONF(.region = S("sa-east-1")), "https_proxy is no proxy URL");
	setenv("https_proxy", "http://me:hush@:99999", 1);
	char why[600] = "";
	assert_null(td_aws_new(T, CONF(.region = S("sa-east-1")), why, sizeof(why)));
	assert_null(strstr(why, "hush"));
}

/* --- trust ------------------------------------------------------------------------------------------ */

static void test_tls_files(void **state)
{
	char *ca, *cakey, path[100], keypath[100];
	uint64_t now = (uint64_t)time(NULL);

	assert_int_equal(tnl_x509_make("CA", "", NULL, NULL, now - 10, now + 1000, &ca, &cakey), 0);
	write_file("ca.pem", "%s", ca);
	write_file("key.pem", "%s", cakey);
	snprintf(path, sizeof(path), "%s/ca.pem", HOME);
	snprintf(keypath, sizeof(keypath), "%s/key.pem", HOME);
	expect_refused(CONF(.ca_file = S("/nowhere/ca.pem")), "ca_file: cannot read /nowhere/ca.pem: No such file");
	setenv("SSL_CERT_FILE", "/nowhere/a", 1);
	expect_refused(CONF(), "SSL_CERT_FILE: cannot read /nowhere/a");
	setenv("AWS_CA_BUNDLE", "/nowhere/b", 1);
	expect_refused(CONF(), "AWS_CA_BUNDLE: cannot read /nowhere/b");
	setenv("AWS_CA_BUNDLE", path, 1);
	td_aws_free(aws_new(NULL));
	clean_env();
	write_file(".aws/config", "[default]\nca_bundle = /nowhere/c\n");
	expect_refused(CONF(), "ca_bundle of the profile: cannot read /nowhere/c");
	td_aws_free(aws_new(CONF(.ca_file = path)));
	write_file("empty.pem", "nothing\n");
	char empty[100];
	snprintf(empty, sizeof(empty), "%s/empty.pem", HOME);
	expect_refused(CONF(.ca_file = empty), "there is no CA certificate in it");
	expect_refused(CONF(.ca_file = path, .client_certificate = path),
		       "client_certificate is set without client_key");
	chmod(keypath, 0644);
	expect_refused(CONF(.ca_file = path, .client_certificate = path, .client_key = keypath),
		       "can be read by others: run chmod 600");
	chmod(keypath, 0600);
	td_aws_free(aws_new(CONF(.ca_file = path, .client_certificate = path, .client_key = keypath)));
	chmod(path, 0600);
	expect_refused(CONF(.ca_file = path, .client_certificate = path, .client_key = path),
		       "private key cannot be read");
	tnl_free(ca);
	tnl_free(cakey);
}

static void test_equal_blocks_are_shared(void **state)
{
	char path[100];
	struct td_aws *a, *b;

	a = aws_new(CONF(KEYS));
	b = aws_new(CONF(KEYS));
	assert_ptr_equal(a, b);
	td_aws_free(b);
	b = aws_new(CONF(KEYS, .region = S("eu-west-2")));
	assert_ptr_not_equal(a, b);
	td_aws_free(b);
	/* whatever key differs */
	char *hosts[] = {S("a.example")};
	const struct td_aws_config *const other[] = {CONF(.access_key_id = S("AKID"),
							  .secret_access_key = S("another")),
						     CONF(KEYS, .session_token = S("t")),
						     CONF(KEYS, .ssm_endpoint = S("https://a.example")),
						     CONF(KEYS, .proxy = S("none")),
						     CONF(KEYS, .stream_hosts = {hosts, 1}),
						     &(struct td_aws_config){KEYS, .use_fips = 1, .use_dualstack = -1},
						     &(struct td_aws_config){KEYS, .use_fips = -1, .use_dualstack = 0}};
	for (size_t i = 0; i < TNL_COUNT(other); i++) {
		b = aws_new(other[i]);
		assert_ptr_not_equal(a, b);
		assert_ptr_equal(td_aws_ref(b), aws_new(other[i]));
		td_aws_free(b);
		td_aws_free(b);
		td_aws_free(b);
	}
	td_aws_free(a);
	/* a CA file that was replaced makes another one */
	char *ca, *key;
	uint64_t now = (uint64_t)time(NULL);
	assert_int_equal(tnl_x509_make("CA", "", NULL, NULL, now - 10, now + 1000, &ca, &key), 0);
	write_file("ca.pem", "%s", ca);
	snprintf(path, sizeof(path), "%s/ca.pem", HOME);
	a = aws_new(CONF(KEYS, .ca_file = path));
	write_file("ca.pem", "%s\n\n", ca);
	b = aws_new(CONF(KEYS, .ca_file = path));
	assert_ptr_not_equal(a, b);
	td_aws_free(a);
	td_aws_free(b);
	tnl_free(ca);
	tnl_free(key);
}

/* --- calls -------------------------------------------------------------------------------------------- */

static struct {
	int done, err, status;
	enum td_credentials_state cred;
	char type[96], text[600], value[100];
} R;

static void on_reply(void *ctx, const struct td_aws_reply *r)
{
	R.done++;
	R.err = r->err;
	R.status = r->status;
	R.cred = r->cred;
	snprintf(R.type, sizeof(R.type), "%s", r->type);
	snprintf(R.text, sizeof(R.text), "%s", r->text ? r->text : "");
	snprintf(R.value, sizeof(R.value), "%s",
		 tnl_json_get_str(r->json, "Value") ? tnl_json_get_str(r->json, "Value") : "");
}

static void call(struct td_aws *a, int attempts)
{
	memset(&R, 0, sizeof(R));
	F.calls = 0;
	assert_non_null(
	    td_aws_json(a, "ssm", "AmazonSSM.StartSession", "{\"Target\":\"i-1\"}", 16, attempts, on_reply, NULL));
	assert_int_equal(R.done, 0);
	assert_true(t_until(&R.done, 20000));
	t_turns(3);
	assert_int_equal(R.done, 1);
}

static const char *next_type, *next_message;
static int next_status, fail_first;

static void api(struct td_request *r, const char *method, const char *target, const char *body)
{
	const struct tnl_http_head *h = td_request_head(r);

	assert_string_equal(body, "{\"Target\":\"i-1\"}");
	assert_true(tnl_http_has_token(h, "x-amz-target", "AmazonSSM.StartSession"));
	assert_true(tnl_http_has_token(h, "content-type", "application/x-amz-json-1.1"));
	assert_true(signed_with(r, "AKID", "the-secret", "ssm") || signed_with(r, "NEW", "new-secret", "ssm"));
	if (next_type && F.calls <= fail_first)
		reply_json(r, next_status, "{\"__type\":\"%s\",\"message\":\"%s\"}", next_type, next_message);
	else
		reply_json(r, 200, "{\"Value\":\"fine\"}");
}

static struct td_aws *api_open(void)
{
	F.handle = api;
	next_type = NULL;
	next_message = "because";
	next_status = 400;
	fail_first = 1000;
	setenv("AWS_ENDPOINT_URL_SSM", F.url, 1);
	return aws_new(CONF(KEYS));
}

static void test_call(void **state)
{
	struct td_aws *a = api_open();

	call(a, 3);
	assert_int_equal(R.err, 0);
	assert_int_equal(R.status, 200);
	assert_string_equal(R.value, "fine");
	assert_int_equal(F.calls, 1);
	td_aws_free(a);
}

static void test_call_errors(void **state)
{
	struct td_aws *a = api_open();

	/* final at once, type without its prefix, text as it came */
	next_type = "com.amazonaws.ssm#TargetNotConnected";
	call(a, 3);
	assert_int_equal(R.err, TNL_EREFUSED);
	assert_string_equal(R.type, "TargetNotConnected");
	assert_string_equal(R.text, "because");
	assert_int_equal(F.calls, 1);
	/* throttling and 5xx are tried again */
	next_type = "ThrottlingException";
	fail_first = 2;
	call(a, 3);
	assert_int_equal(R.err, 0);
	assert_int_equal(F.calls, 3);
	call(a, 2);
	assert_int_equal(R.err, TNL_EREFUSED);
	assert_string_equal(R.type, "ThrottlingException");
	assert_int_equal(F.calls, 2);
	next_type = "InternalServerError";
	next_status = 500;
	fail_first = 1;
	call(a, 2);
	assert_int_equal(R.err, 0);
	td_aws_free(a);
	/* nobody there */
	setenv("AWS_ENDPOINT_URL_SSM", "http://127.0.0.1:1", 1);
	a = aws_new(CONF(KEYS, .region = S("eu-west-2")));
	call(a, 2);
	assert_int_equal(R.err, TNL_EUNREACH);
	assert_non_null(strstr(R.text, "127.0.0.1:1"));
	td_aws_free(a);
}

static void test_no_credentials(void **state)
{
	setenv("AWS_ENDPOINT_URL_SSM", F.url, 1);
	struct td_aws *a = aws_new(NULL);

	call(a, 3);
	assert_int_equal(R.err, TNL_EAUTH);
	assert_int_equal(R.cred, TD_CREDENTIALS_NONE);
	assert_non_null(strstr(R.text, "no credentials: set"));
	assert_int_equal(F.calls, 0);
	td_aws_free(a);
}

static void test_refused_keys(void **state)
{
	struct td_aws *a = api_open();

	next_type = "UnrecognizedClientException";
	call(a, 3);
	assert_int_equal(R.err, TNL_EAUTH);
	assert_int_equal(R.cred, TD_CREDENTIALS_ERROR);
	assert_string_equal(
	    R.text,
	    "the access key of the configuration is not known: check access_key_id, and that the key is active");
	assert_int_equal(F.calls, 2); /* once more with what a new search gave */
	next_type = "InvalidSignatureException";
	call(a, 3);
	assert_int_equal(R.err, TNL_EAUTH);
	assert_string_equal(R.text, "the signature was refused: check the secret access key of the configuration");
	next_type = "ExpiredTokenException";
	call(a, 3);
	assert_int_equal(R.err, TNL_EAUTH);
	assert_int_equal(R.cred, TD_CREDENTIALS_NEEDS_LOGIN);
	assert_string_equal(R.text, "the credentials of the configuration have expired: renew them there");
	assert_int_equal(F.calls, 1);
	assert_int_equal(td_credentials_last(a, NULL), TD_CREDENTIALS_NEEDS_LOGIN);
	td_aws_free(a);
	/* not allowed is no matter of the keys */
	a = aws_new(CONF(KEYS));
	next_type = "AccessDeniedException";
	call(a, 3);
	assert_int_equal(R.err, TNL_EREFUSED);
	assert_int_equal(td_credentials_last(a, NULL), TD_CREDENTIALS_OK);
	td_aws_free(a);
}

/* Keys that were exchanged in the file: the next refusal fetches them, and the call goes through. */
static void test_expired_keys_are_fetched_again(void **state)
{
	struct td_aws *a;

	write_file(
	    ".aws/credentials",
	    "[default]\naws_access_key_id = AKID\naws_secret_access_key = the-secret\naws_session_token = old\n");
	td_aws_free(api_open());
	a = aws_new(NULL);
	call(a, 1);
	assert_int_equal(R.err, 0);
	write_file(".aws/credentials", "[default]\naws_access_key_id = NEW\naws_secret_access_key = new-secret\n");
	next_type = "ExpiredTokenException";
	fail_first = 1;
	call(a, 1);
	assert_int_equal(R.err, 0);
	assert_int_equal(F.calls, 2);
	assert_non_null(strstr(F.auth[0], "Credential=AKID/"));
	assert_non_null(strstr(F.auth[1], "Credential=NEW/"));
	td_aws_free(a);
}

static void test_cancel(void **state)
{
	struct td_aws *a = api_open();
	struct td_aws_call *c;

	memset(&R, 0, sizeof(R));
	for (int turns = 0; turns < 6; turns++) {
		c = td_aws_json(a, "ssm", "AmazonSSM.StartSession", "{\"Target\":\"i-1\"}", 16, 1, on_reply, NULL);
		t_turns(turns);
		if (R.done)
			break;
		td_aws_call_cancel(c);
	}
	t_turns(20);
	assert_true(R.done <= 1);
	td_aws_free(a);
}

/* The same, but nobody has exchanged them yet: a person is wanted, and then it goes on by itself. */
static void test_expired_keys_are_waited_for(void **state)
{
	struct td_aws *a;
	const char *why;

	write_file(
	    ".aws/credentials",
	    "[default]\naws_access_key_id = AKID\naws_secret_access_key = the-secret\naws_session_token = old\n");
	td_aws_free(api_open());
	a = aws_new(NULL);
	next_type = "ExpiredTokenException";
	call(a, 1);
	assert_int_equal(R.err, TNL_EAUTH);
	assert_int_equal(R.cred, TD_CREDENTIALS_NEEDS_LOGIN);
	assert_string_equal(R.text, "the credentials of profile default have expired: renew them there");
	assert_int_equal(td_credentials_last(a, &why), TD_CREDENTIALS_NEEDS_LOGIN);
	assert_string_equal(why, R.text);
	next_type = NULL;
	call(a, 1);
	assert_int_equal(F.calls, 0); /* they are not even tried */
	write_file(".aws/credentials", "[default]\naws_access_key_id = NEW\naws_secret_access_key = new-secret\n");
	for (int i = 0; i < 200 && td_credentials_last(a, NULL) != TD_CREDENTIALS_OK; i++) {
		int never = 0;

		t_until(&never, 50);
	}
	assert_int_equal(td_credentials_last(a, NULL), TD_CREDENTIALS_OK);
	call(a, 1);
	assert_int_equal(R.err, 0);
	td_aws_free(a);
}

/* --- an answer that no HTTP server of ours would give ---------------------------------------------------- */

static struct {
	struct td_listener *l;
	char url[64], port[8];
	const char *answer;
	char seen[600];
	struct td_conn *c;
} RAW;

static void raw_readable(void *ctx)
{
	char b[2000];
	ssize_t n = td_conn_read(RAW.c, b, sizeof(b) - 1);

	if (n <= 0)
		return;
	b[n] = 0;
	snprintf(RAW.seen, sizeof(RAW.seen), "%.500s", b);
	td_conn_write(RAW.c, RAW.answer, strlen(RAW.answer));
	td_conn_shutdown(RAW.c);
}

static void raw_closed(void *ctx, int err, const char *why)
{
	td_conn_free(RAW.c);
	RAW.c = NULL;
}

static void raw_accept(void *ctx, int fd, const struct td_addr *peer)
{
	static const struct td_conn_cb cb = {.readable = raw_readable, .closed = raw_closed};

	if (RAW.c)
		td_conn_free(RAW.c);
	RAW.c = td_conn_accepted(T, fd, NULL, 0, &cb, NULL);
}

static void raw_open(const char *answer)
{
	struct td_addr a = t_addr("127.0.0.1:0");
	char why[200], name[TD_ADDR_STR];

	memset(&RAW, 0, sizeof(RAW));
	RAW.answer = answer;
	RAW.l = td_listen(T, &a, raw_accept, NULL, why, sizeof(why));
	assert_non_null(RAW.l);
	td_listener_addr(RAW.l, &a);
	snprintf(RAW.url, sizeof(RAW.url), "http://%s", td_addr_str(&a, name));
}

static void raw_close(void)
{
	if (RAW.c)
		td_conn_free(RAW.c);
	td_listener_free(RAW.l);
	t_turns(3);
}

static void clock_case(int64_t off, const char *want)
{
	static const char body[] = "{\"__type\":\"InvalidSignatureException\",\"message\":\"no\"}";
	char answer[600], date[64];
	time_t t = (time_t)((int64_t)time(NULL) - off);
	struct tm tm;
	struct td_aws *a;

	gmtime_r(&t, &tm);
	strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
	snprintf(answer, sizeof(answer),
		 "HTTP/1.1 400 Bad Request\r\nDate: %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", date,
		 strlen(body), body);
	raw_open(answer);
	setenv("AWS_ENDPOINT_URL_SSM", RAW.url, 1);
	a = aws_new(CONF(KEYS));
	call(a, 1);
	assert_int_equal(R.err, TNL_EAUTH);
	assert_string_equal(R.type, "InvalidSignatureException");
	if (!strstr(R.text, want))
		fail_msg("\"%s\" lacks \"%s\"", R.text, want);
	td_aws_free(a);
	raw_close();
}

static void test_clock_off(void **state)
{
	clock_case(3600 + 20, "this machine's clock is 60 minutes fast: set it (timedatectl set-ntp true)");
	clock_case(-1810, "this machine's clock is 30 minutes slow: set it");
	clock_case(0, "check the secret access key");
}

/* A refusal of channel creation in the words of its XML, and of the keys with cause and cure; what is no such body is
 * not taken apart. */
static void xml_case(const char *body, int err, const char *type, const char *text)
{
	char answer[800];
	struct td_aws *a;

	snprintf(answer, sizeof(answer), "HTTP/1.1 403 Forbidden\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
		 strlen(body), body);
	raw_open(answer);
	setenv("AWS_ENDPOINT_URL_SSM", RAW.url, 1);
	a = aws_new(CONF(KEYS));
	call(a, 1);
	assert_int_equal(R.err, err);
	assert_string_equal(R.type, type);
	if (!strstr(R.text, text))
		fail_msg("\"%s\" lacks \"%s\"", R.text, text);
	td_aws_free(a);
	raw_close();
}

static void test_xml_refusals(void **state)
{
	xml_case("<AccessDeniedException><Message>not yours</Message></AccessDeniedException>", TNL_EREFUSED,
		 "AccessDeniedException", "not yours");
	xml_case("<InvalidSignatureException><Message>no</Message></InvalidSignatureException>", TNL_EAUTH,
		 "InvalidSignatureException", "check the secret access key");
	xml_case("<html><body>no</body></html>", TNL_EREFUSED, "", "");
	xml_case("<Oops><Message>cut", TNL_EREFUSED, "", "");
	xml_case("<<Message>x</Message>", TNL_EREFUSED, "", "");
	xml_case("<Message></Message>", TNL_EREFUSED, "Message", "");
	xml_case("<A", TNL_EREFUSED, "", "");
}

static void test_proxy_refuses(void **state)
{
	char proxy[700];
	struct td_aws *a;

	raw_open("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n");
	snprintf(proxy, sizeof(proxy), "http://me:hush@%s", RAW.url + 7);
	setenv("AWS_ENDPOINT_URL_SSM", "https://ssm.invalid", 1);
	a = aws_new(CONF(KEYS, .proxy = proxy));
	call(a, 1);
	assert_int_equal(R.err, TNL_EUNREACH);
	assert_non_null(strstr(RAW.seen, "CONNECT ssm.invalid:443 HTTP/1.1"));
	assert_non_null(strstr(RAW.seen, "Proxy-Authorization: Basic bWU6aHVzaA=="));
	if (!strstr(R.text, "refused ssm.invalid:443: 407") ||
	    !strstr(R.text, "user or password of the proxy is wrong"))
		fail_msg("%s", R.text);
	assert_null(strstr(R.text, "hush"));
	td_aws_free(a);
	raw_close();
}

/* --- bodies ------------------------------------------------------------------------------------------------- */

static void test_start_session_body(void **state)
{
	static const char *const command[] = {"ls", "-l", NULL};
	struct tnl_buf b;

	tnl_buf_init(&b, 4096);
	assert_int_equal(td_start_session_body(&b, "i-1", NULL, NULL, 5432, 15432, NULL, NULL), 0);
	assert_string_equal(tnl_buf_str(&b),
			    "{\"Target\":\"i-1\",\"DocumentName\":\"AWS-StartPortForwardingSession\","
			    "\"Parameters\":{\"portNumber\":[\"5432\"],\"localPortNumber\":[\"15432\"]}}");
	tnl_buf_reset(&b);
	assert_int_equal(td_start_session_body(&b, "i-1", NULL, "db", 5432, 0, "why", NULL), 0);
	assert_non_null(strstr(tnl_buf_str(&b), "AWS-StartPortForwardingSessionToRemoteHost"));
	assert_non_null(strstr(tnl_buf_str(&b), "\"host\":[\"db\"]"));
	assert_non_null(strstr(tnl_buf_str(&b), "\"Reason\":\"why\""));
	tnl_buf_reset(&b);
	assert_int_equal(td_start_session_body(&b, "i-1", "AWS-StartSSHSession", NULL, 22, 0, NULL, NULL), 0);
	assert_null(strstr(tnl_buf_str(&b), "localPortNumber"));
	tnl_buf_reset(&b);
	assert_int_equal(td_start_session_body(&b, "i-1", "D", NULL, 0, 0, NULL, command), 0);
	assert_non_null(strstr(tnl_buf_str(&b), "\"command\":[\"ls\",\"-l\"]"));
	tnl_buf_fini(&b);
}

static void test_throttled(void **state)
{
	static const char *const yes[] = {"Throttling",
					  "ThrottlingException",
					  "ThrottledException",
					  "RequestThrottled",
					  "RequestThrottledException",
					  "TooManyRequestsException",
					  "RequestLimitExceeded",
					  "BandwidthLimitExceeded",
					  "LimitExceededException",
					  "ProvisionedThroughputExceededException",
					  "TransactionInProgressException",
					  "EC2ThrottledException",
					  "SlowDown",
					  "PriorRequestNotComplete"};
	static const char *const no[] = {"", "TargetNotConnected", "AccessDeniedException", "ExpiredToken", "Slow"};

	for (size_t i = 0; i < TNL_COUNT(yes); i++)
		if (!td_aws_throttled(yes[i]))
			fail_msg("%s is throttling", yes[i]);
	for (size_t i = 0; i < TNL_COUNT(no); i++)
		if (td_aws_throttled(no[i]))
			fail_msg("%s is no throttling", no[i]);
}

static void test_grant(void **state)
{
	static const char text[] = "{\"SessionId\":\"s\",\"TokenValue\":\"t\",\"StreamUrl\":\"wss://x\"}";
	struct tnl_json *j = tnl_json_parse(text, strlen(text));
	struct td_session_grant g;

	assert_int_equal(td_session_grant_parse(j, &g), 0);
	assert_string_equal(g.session_id, "s");
	assert_string_equal(g.token, "t");
	assert_string_equal(g.stream_url, "wss://x");
	td_session_grant_fini(&g);
	for (long n = 0; n < 3; n++) {
		tnl_alloc_fail_after(n, 0);
		assert_int_equal(td_session_grant_parse(j, &g), TNL_ENOMEM);
		tnl_alloc_fail_after(-1, 0);
	}
	tnl_json_free(j);
	j = tnl_json_parse("{}", 2);
	assert_int_equal(td_session_grant_parse(j, &g), TNL_ESYNTAX);
	tnl_json_free(j);
}

int main(void)
{
#define T_CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T_CASE(test_partitions),
	    T_CASE(test_region_from_around),
	    T_CASE(test_endpoint_overrides),
	    T_CASE(test_companions),
	    T_CASE(test_is_amazon),
	    T_CASE(test_stream_url),
	    T_CASE(test_presigned),
	    T_CASE(test_proxy_from_around),
	    T_CASE(test_tls_files),
	    T_CASE(test_equal_blocks_are_shared),
	    T_CASE(test_call),
	    T_CASE(test_call_errors),
	    T_CASE(test_no_credentials),
	    T_CASE(test_refused_keys),
	    T_CASE(test_expired_keys_are_fetched_again),
	    T_CASE(test_expired_keys_are_waited_for),
	    T_CASE(test_cancel),
	    T_CASE(test_xml_refusals),
	    T_CASE(test_clock_off),
	    T_CASE(test_proxy_refuses),
	    T_CASE(test_start_session_body),
	    T_CASE(test_throttled),
	    T_CASE(test_grant),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
