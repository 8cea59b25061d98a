/* Which proxy leads to a host. */
#include "tests/daemon/aws/aws_test.h"
#include "tunneld/aws/internal.h"

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
	setenv("NO_PROXY",
	       "direct.example, .sub.example,*.star.example,10.0.0.0/8 fd00::/8,1.2.3.4,"
	       "port.example:8443,.any.example:443,[2001:db8::1]:443,2001:db8::2,odd.example:x",
	       1);
	a = aws_new(CONF(.region = S("eu-west-2")));
	proxy_is(a, "ssm.eu-west-1.amazonaws.com", "upper.example");
	assert_int_equal(td_aws_proxy(a, "x")->port, 3128);
	assert_string_equal(td_aws_proxy(a, "x")->user, "me");
	assert_string_equal(td_aws_proxy(a, "x")->password, "p@ss");
	assert_false(td_aws_proxy(a, "x")->tls);
	proxy_is(a, "direct.example", NULL);
	proxy_is(a, "a.direct.example", NULL);
	proxy_is(a, "notdirect.example", "upper.example");
	proxy_is(a, "sub.example", NULL); /* the host itself as well */
	proxy_is(a, "notsub.example", "upper.example");
	proxy_is(a, "star.example", "upper.example");
	proxy_is(a, "port.example", "upper.example"); /* 443 is not 8443 */
	assert_null(td_aws_proxy_for(a, true, "port.example", 8443));
	assert_null(td_aws_proxy_for(a, true, "a.port.example", 8443));
	proxy_is(a, "any.example", NULL);
	proxy_is(a, "a.any.example", NULL);
	assert_non_null(td_aws_proxy_for(a, true, "any.example", 444));
	proxy_is(a, "2001:db8::1", NULL);
	proxy_is(a, "2001:db8::2", NULL);
	proxy_is(a, "2001:db8::3", "upper.example");
	proxy_is(a, "odd.example", "upper.example");
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
}

static void test_proxy_order(void **state)
{
	struct td_aws *a;

	setenv("HTTPS_PROXY", "http://upper.example:3128", 1);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T_CASE(test_proxy_from_around),
	    T_CASE(test_proxy_order),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
