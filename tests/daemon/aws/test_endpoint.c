/* Where the services are: partitions, regions, overrides; and which StreamUrl may have a token. */
#include "tests/daemon/aws/aws_test.h"
#include "lib/num.h"

static void endpoint_is(const struct td_aws_config *c, const char *service, const char *want)
{
	struct td_aws *a = aws_new(c);

	assert_string_equal(td_aws_endpoint(a, service), want);
	td_aws_free(a);
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

static void route_is(struct td_aws *a, const char *url, const char *want)
{
	char *got = td_aws_stream_route(a, url);

	assert_non_null(got);
	assert_string_equal(got, want);
	tnl_free(got);
}

/* Behind PrivateLink without private DNS the public name leads nowhere. */
static void test_stream_route(void **state)
{
	static const char public[] =
	    "wss://ssmmessages.eu-west-1.amazonaws.com/v1/data-channel/s-1?role=publish_subscribe",
			  other[] = "wss://gw.example:9000/v1/data-channel/s-1",
			  signed_url[] = "wss://ssmmessages.eu-west-1.amazonaws.com/v1/x?X-Amz-Signature=00";
	struct td_aws *a = aws_new(NULL);

	route_is(a, public, public);
	td_aws_free(a);
	a = aws_new(CONF(.ssmmessages_endpoint = S("https://vpce-0a1b.ssmmessages.eu-west-1.vpce.amazonaws.com/")));
	route_is(a, public,
		 "wss://vpce-0a1b.ssmmessages.eu-west-1.vpce.amazonaws.com/v1/data-channel/s-1?role=publish_subscribe");
	route_is(a, other, other);
	route_is(a, signed_url, signed_url); /* its signature covers the host */
	td_aws_free(a);
	a = aws_new(CONF(.ssm_endpoint = S("https://ssm.eu-west-1.amazonaws.com"),
			 .ssmmessages_endpoint = S("http://[::1]:8080")));
	route_is(a, public, "ws://[::1]:8080/v1/data-channel/s-1?role=publish_subscribe");
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

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T_CASE(test_partitions),   T_CASE(test_region_from_around), T_CASE(test_endpoint_overrides),
	    T_CASE(test_companions),   T_CASE(test_is_amazon),		T_CASE(test_stream_url),
	    T_CASE(test_stream_route), T_CASE(test_presigned),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
