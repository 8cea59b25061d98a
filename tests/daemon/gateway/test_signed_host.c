/* Whom a signature may be for: the names by which a gateway is called. */
#include "tests/daemon/gateway/gw_util.h"
#include "lib/http.h"

static bool may_name_us(const char *host)
{
	char text[300];
	struct tnl_http_head h;
	snprintf(text, sizeof(text), "POST / HTTP/1.1\r\nHost: %s\r\n\r\n", host);
	assert_true(tnl_http_parse(true, (const uint8_t *)text, strlen(text), &h) > 0);
	return gw_auth_host_is_ours(T.g, &h);
}

static int begin_default(void **state)
{
	test_begin("public_url = https://gw.example.com:8443\nnode = n1");
	return 0;
}

static int begin_any(void **state)
{
	test_begin("signed_hosts = *");
	return 0;
}

/* Without signed_hosts: what the certificate, public_url, listen and node say, and loopback. */
static void test_default(void **state)
{
	const char *const ours[] = {"127.0.0.1",	   "127.0.0.9:1",    "[::1]:8443", "LOCALHOST:1",
				    "gw.example.com:8443", "GW.example.com", "n1"},
			  *const others[] = {"ssm.eu-west-1.amazonaws.com",
					     "192.0.2.1:8443",
					     "gw.example.com.evil.example",
					     "[2001:db8::1]",
					     "n2",
					     "gw.example"};
	for (size_t i = 0; i < TNL_COUNT(ours); i++)
		if (!may_name_us(ours[i]))
			fail_msg("%s", ours[i]);
	for (size_t i = 0; i < TNL_COUNT(others); i++)
		if (may_name_us(others[i]))
			fail_msg("%s", others[i]);
}

static void test_any(void **state)
{
	assert_true(may_name_us("whatever.example:1"));
}

int main(void)
{
	(void)open_control; /* of gw_util.h, not needed here */
	const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(test_default, begin_default, test_end),
					   cmocka_unit_test_setup_teardown(test_any, begin_any, test_end)};
	return cmocka_run_group_tests_name("signed hosts", tests, NULL, NULL);
}
