#include "tests/unit/check.h"
#include "tunneld/agent/access.h"
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static struct td_config *cfg;
static bool datagrams; /* what is checked: they, or TCP */

/* The rules as a configuration file gives them. NULL: the key is not there. */
static void rules(const char *allow, const char *deny)
{
	char text[1024];
	int n = snprintf(text, sizeof(text), "[agent]\ninstance_id = i-0123456789abcdef0\nregion = eu-west-1\n");

	if (allow)
		n += snprintf(text + n, sizeof(text) - (size_t)n, "allow = %s\n", allow);
	if (deny)
		n += snprintf(text + n, sizeof(text) - (size_t)n, "deny = %s\n", deny);
	if (cfg)
		td_config_free(cfg);
	cfg = td_config_parse(text, "test.ini", ".", TD_ROLE_AGENT, stderr);
	assert_non_null(cfg);
}

static enum ag_access check(const char *host, const char *addr, uint16_t port)
{
	struct td_addr a;

	if (!td_addr_literal(addr, port, &a))
		fail_msg("not an address: %s", addr);
	return ag_access_check(&cfg->agent.allow, &cfg->agent.deny, datagrams, host, &a);
}

static void without_allow_loopback_only(void **state)
{
	rules(NULL, NULL);
	assert_int_equal(check("localhost", "127.0.0.1", 80), AG_ACCESS_OK);
	assert_int_equal(check("localhost", "127.255.0.9", 80), AG_ACCESS_OK);
	assert_int_equal(check("localhost", "::1", 80), AG_ACCESS_OK);
	assert_int_equal(check("localhost", "::ffff:127.0.0.1", 80), AG_ACCESS_OK);
	assert_int_equal(check("localhost", "128.0.0.1", 80), AG_ACCESS_NOT_ALLOWED);
	assert_int_equal(check("localhost", "10.0.0.1", 80), AG_ACCESS_NOT_ALLOWED);
	assert_int_equal(check("localhost", "::2", 80), AG_ACCESS_NOT_ALLOWED);
	assert_int_equal(check("localhost", "2001:db8::1", 80), AG_ACCESS_NOT_ALLOWED);
	/* Loopback in the clothes of a translator is not loopback. */
	assert_int_equal(check("localhost", "2002:7f00:1::", 80), AG_ACCESS_NOT_ALLOWED);
	assert_int_equal(check("localhost", "64:ff9b::7f00:1", 80), AG_ACCESS_NOT_ALLOWED);
	rules(NULL, "127.0.0.1:22");
	assert_int_equal(check("localhost", "127.0.0.1", 22), AG_ACCESS_DENIED);
	assert_int_equal(check("localhost", "127.0.0.1", 23), AG_ACCESS_OK);
}

static void metadata_and_kin_are_always_denied(void **state)
{
	static const char *const bad[] = {
	    "0.0.0.0",
	    "0.1.2.3",
	    "::",
	    "169.254.169.254",
	    "169.254.0.1",
	    "fe80::1",
	    "febf::1",
	    "fd00:ec2::254",
	    "fd00:ec2::23",
	    "224.0.0.1",
	    "239.255.255.255",
	    "255.255.255.255",
	    "ff02::1",
	    /* the same in other clothes */
	    "::ffff:169.254.169.254",
	    "::ffff:0.0.0.0",
	    "::169.254.169.254",
	    "::ffff:0:a9fe:a9fe",
	    "2002:a9fe:a9fe::1",
	    "64:ff9b::a9fe:a9fe",
	    "64:ff9b:1:a9fe:a9:fe00::",
	    "2002::",
	    "64:ff9b::",
	    "2002:e000:1::",
	};

	for (int with = 0; with < 3; with++) {
		rules(with == 0 ? "0.0.0.0/0:*, [::/0]:*, *:*" : "*:*", with == 2 ? "10.0.0.0/8:*" : NULL);
		for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
			if (check("anything.example", bad[i], 80) != AG_ACCESS_DENIED)
				fail_msg("allowed: %s", bad[i]);
		assert_int_equal(check("x", "170.254.169.254", 80), AG_ACCESS_OK);
		assert_int_equal(check("x", "fec0::1", 80), AG_ACCESS_OK);
		assert_int_equal(check("x", "fd00:ec3::254", 80), AG_ACCESS_OK);
		assert_int_equal(check("x", "223.255.255.255", 80), AG_ACCESS_OK);
		assert_int_equal(check("x", "64:ff9b::808:808", 80), AG_ACCESS_OK);
	}
	/* unless `deny` is set to nothing */
	rules("*:*", "");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (check("anything.example", bad[i], 80) != AG_ACCESS_OK)
			fail_msg("denied: %s", bad[i]);
}

static void names_match_what_was_asked_for(void **state)
{
	rules("db.internal:5432, *.svc.example:1000-2000, web?:*", NULL);
	assert_int_equal(check("db.internal", "10.1.2.3", 5432), AG_ACCESS_OK);
	assert_int_equal(check("DB.Internal.", "2001:db8::7", 5432), AG_ACCESS_OK);
	assert_int_equal(check("db.internal", "10.1.2.3", 5433), AG_ACCESS_NOT_ALLOWED);
	assert_int_equal(check("xdb.internal", "10.1.2.3", 5432), AG_ACCESS_NOT_ALLOWED);
	assert_int_equal(check("db.internal.evil", "10.1.2.3", 5432), AG_ACCESS_NOT_ALLOWED);
	assert_int_equal(check("a.b.svc.example", "10.1.2.3", 1000), AG_ACCESS_OK);
	assert_int_equal(check("a.svc.example", "10.1.2.3", 2000), AG_ACCESS_OK);
	assert_int_equal(check("a.svc.example", "10.1.2.3", 999), AG_ACCESS_NOT_ALLOWED);
	assert_int_equal(check("a.svc.example", "10.1.2.3", 2001), AG_ACCESS_NOT_ALLOWED);
	assert_int_equal(check("svc.example", "10.1.2.3", 1000), AG_ACCESS_NOT_ALLOWED);
	assert_int_equal(check("web1", "10.1.2.3", 80), AG_ACCESS_OK);
	assert_int_equal(check("web", "10.1.2.3", 80), AG_ACCESS_NOT_ALLOWED);
	assert_int_equal(check("web12", "10.1.2.3", 80), AG_ACCESS_NOT_ALLOWED);
	/* A name that is allowed must not lead to the metadata service. */
	assert_int_equal(check("db.internal", "169.254.169.254", 5432), AG_ACCESS_DENIED);
	/* Loopback is no longer allowed by itself once there is a list. */
	assert_int_equal(check("localhost", "127.0.0.1", 80), AG_ACCESS_NOT_ALLOWED);
}

static void addresses_match_what_was_resolved(void **state)
{
	rules("10.1.0.0/16:80, 192.0.2.7:*, [2001:db8::/33]:443, [::1]:*", NULL);
	assert_int_equal(check("any.name", "10.1.255.255", 80), AG_ACCESS_OK);
	assert_int_equal(check("any.name", "::ffff:10.1.0.1", 80), AG_ACCESS_OK);
	assert_int_equal(check("any.name", "64:ff9b::a01:1", 80), AG_ACCESS_OK);
	assert_int_equal(check("any.name", "10.2.0.0", 80), AG_ACCESS_NOT_ALLOWED);
	assert_int_equal(check("any.name", "10.1.0.1", 81), AG_ACCESS_NOT_ALLOWED);
	assert_int_equal(check("192.0.2.7", "192.0.2.7", 1), AG_ACCESS_OK);
	assert_int_equal(check("192.0.2.7", "192.0.2.8", 1), AG_ACCESS_NOT_ALLOWED);
	assert_int_equal(check("x", "2001:db8:7fff::1", 443), AG_ACCESS_OK);
	assert_int_equal(check("x", "2001:db8:8000::1", 443), AG_ACCESS_NOT_ALLOWED);
	assert_int_equal(check("x", "::1", 7), AG_ACCESS_OK);
	rules("127.0.0.1:*", NULL);
	assert_int_equal(check("x", "2002:7f00:1::", 80), AG_ACCESS_NOT_ALLOWED);
	assert_int_equal(check("x", "64:ff9b::7f00:1", 80), AG_ACCESS_NOT_ALLOWED);
}

static void deny_wins(void **state)
{
	rules("*:*", "10.0.0.0/8:*, [2001:db8::]:*, secret.example:*, 192.0.2.0/25:25");
	assert_int_equal(check("x", "10.9.9.9", 80), AG_ACCESS_DENIED);
	assert_int_equal(check("x", "::ffff:10.9.9.9", 80), AG_ACCESS_DENIED);
	assert_int_equal(check("x", "2002:a09:909::1", 80), AG_ACCESS_DENIED);
	assert_int_equal(check("x", "64:ff9b::a09:909", 80), AG_ACCESS_DENIED);
	assert_int_equal(check("x", "2001:db8::", 80), AG_ACCESS_DENIED);
	assert_int_equal(check("secret.example", "192.0.2.1", 80), AG_ACCESS_DENIED);
	assert_int_equal(check("x", "192.0.2.127", 25), AG_ACCESS_DENIED);
	assert_int_equal(check("x", "192.0.2.128", 25), AG_ACCESS_OK);
	assert_int_equal(check("x", "192.0.2.1", 26), AG_ACCESS_OK);
}

static void filter_skips_what_is_denied(void **state)
{
	struct td_addr a[4];
	enum ag_access first;

	rules("*.example:*", NULL);
	assert_true(td_addr_literal("169.254.169.254", 80, &a[0]));
	assert_true(td_addr_literal("192.0.2.1", 80, &a[1]));
	assert_true(td_addr_literal("fe80::1", 80, &a[2]));
	assert_true(td_addr_literal("2001:db8::1", 80, &a[3]));
	assert_int_equal(ag_access_filter(&cfg->agent.allow, &cfg->agent.deny, false, "a.example", a, 4, &first), 2);
	assert_int_equal(first, AG_ACCESS_DENIED);
	char text[TD_ADDR_STR];
	assert_string_equal(td_addr_str(&a[0], text), "192.0.2.1:80");
	assert_string_equal(td_addr_str(&a[1], text), "[2001:db8::1]:80");
	assert_int_equal(ag_access_filter(&cfg->agent.allow, &cfg->agent.deny, false, "b.test", a, 2, &first), 0);
	assert_int_equal(first, AG_ACCESS_NOT_ALLOWED);
	struct td_addr u = {.un = {.sun_family = AF_UNIX}};
	assert_int_equal(ag_access_check(&cfg->agent.allow, &cfg->agent.deny, false, "a.example", &u),
			 AG_ACCESS_DENIED);
}

static void datagrams_have_rules_of_their_own(void **state)
{
	static const struct {
		const char *allow, *deny, *addr;
		enum ag_access tcp, udp;
	} c[] = {
	    {NULL, NULL, "127.0.0.1", AG_ACCESS_OK, AG_ACCESS_NOT_ALLOWED},
	    {"10.0.0.1:53", NULL, "10.0.0.1", AG_ACCESS_OK, AG_ACCESS_NOT_ALLOWED},
	    {"udp:10.0.0.0/8:53", NULL, "10.0.0.1", AG_ACCESS_NOT_ALLOWED, AG_ACCESS_OK},
	    {"udp:*.example:50-60, 10.0.0.1:53", NULL, "10.0.0.1", AG_ACCESS_OK, AG_ACCESS_OK},
	    {"udp:[fd00::]/8:*", NULL, "fd00::1", AG_ACCESS_NOT_ALLOWED, AG_ACCESS_OK},
	    {"udp:10.0.0.1:53, 10.0.0.1:53", "10.0.0.1:*", "10.0.0.1", AG_ACCESS_DENIED, AG_ACCESS_DENIED},
	    {"udp:10.0.0.1:53, 10.0.0.1:53", "udp:10.0.0.1:*", "10.0.0.1", AG_ACCESS_OK, AG_ACCESS_DENIED},
	    {"udp:0.0.0.0/0:*", NULL, "169.254.169.254", AG_ACCESS_DENIED, AG_ACCESS_DENIED},
	    {"udp:10.0.0.1:54", NULL, "10.0.0.1", AG_ACCESS_NOT_ALLOWED, AG_ACCESS_NOT_ALLOWED},
	};
	for (size_t i = 0; i < sizeof(c) / sizeof(c[0]); i++) {
		rules(c[i].allow, c[i].deny);
		assert_int_equal(check("dns.example", c[i].addr, 53), c[i].tcp);
		datagrams = true;
		assert_int_equal(check("dns.example", c[i].addr, 53), c[i].udp);
		datagrams = false;
	}
}

/* A name whose owner has it lead to wherever he likes. */
static void patterns_of_addresses_match_no_names(void **state)
{
	rules("10.0.*:443, 192.168.?.1:*", "172.16.*:*");
	assert_int_equal(check("10.0.7.7", "10.0.7.7", 443), AG_ACCESS_OK);
	assert_int_equal(check("any.name", "10.0.7.7", 443), AG_ACCESS_OK);
	assert_int_equal(check("any.name", "::ffff:10.0.7.7", 443), AG_ACCESS_OK);
	assert_int_equal(check("10.0.evil.example", "10.9.9.9", 443), AG_ACCESS_NOT_ALLOWED);
	assert_int_equal(check("10.0.evil.example", "127.0.0.1", 443), AG_ACCESS_NOT_ALLOWED);
	assert_int_equal(check("192.168.x.1", "10.9.9.9", 80), AG_ACCESS_NOT_ALLOWED);
	assert_int_equal(check("x", "192.168.3.1", 80), AG_ACCESS_OK);
	rules("*:*", "172.16.*:*");
	assert_int_equal(check("x", "172.16.3.1", 80), AG_ACCESS_DENIED);
	assert_int_equal(check("x", "64:ff9b::172.16.3.1", 80), AG_ACCESS_DENIED);
	assert_int_equal(check("x", "172.17.3.1", 80), AG_ACCESS_OK);
}

static enum ag_access path(const char *p)
{
	return ag_access_path(&cfg->agent.allow, &cfg->agent.deny, p);
}

static void sockets_have_one_name(void **state)
{
	char dir[] = "/tmp/tunneld-test-XXXXXX", list[128], deny[128], real[64], link_[64], folder[64], by_folder[80];

	rules("unix:/run/*/*, unix:/run/*.sock", "unix:/run/a/secret");
	assert_int_equal(path("/run/a/b"), AG_ACCESS_OK);
	assert_int_equal(path("/run/a/.b"), AG_ACCESS_OK);
	assert_int_equal(path("/run/a/secret"), AG_ACCESS_DENIED);
	static const char *const odd[] = {"/run//b", "/run/../b", "/run/./b", "/run/a/..", "/run/a/.", "//run/a/b"};
	for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++)
		if (path(odd[i]) == AG_ACCESS_OK)
			fail_msg("allowed: %s", odd[i]);
	/* deny wins, through links of the file and of its folder, and by a name that is itself a link */
	assert_non_null(mkdtemp(dir));
	snprintf(list, sizeof(list), "unix:%s/*, unix:%s/*/*", dir, dir);
	snprintf(real, sizeof(real), "%s/real", dir);
	snprintf(link_, sizeof(link_), "%s/link", dir);
	snprintf(folder, sizeof(folder), "%s/folder", dir);
	snprintf(by_folder, sizeof(by_folder), "%s/real", folder);
	assert_int_equal(mknod(real, S_IFSOCK | 0600, 0), 0);
	assert_int_equal(symlink("real", link_), 0);
	assert_int_equal(symlink(".", folder), 0);
	const char *const names[] = {real, link_, by_folder};
	for (int denied = 0; denied < 3; denied++) {
		snprintf(deny, sizeof(deny), "unix:/run/other, unix:%s", names[denied]);
		rules(list, deny);
		for (int i = 0; i < 3; i++)
			assert_int_equal(path(names[i]), AG_ACCESS_DENIED);
		assert_int_equal(path("/run/nothing"), AG_ACCESS_NOT_ALLOWED);
	}
	snprintf(deny, sizeof(deny), "unix:%s/rea?", dir);
	rules(list, deny);
	for (int i = 0; i < 3; i++)
		assert_int_equal(path(names[i]), AG_ACCESS_DENIED);
	rules(list, "unix:/run/other");
	for (int i = 0; i < 3; i++)
		assert_int_equal(path(names[i]), AG_ACCESS_OK);
	unlink(real);
	unlink(link_);
	unlink(folder);
	rmdir(dir);
}

static bool may_bind(const char *list, const char *address)
{
	char text[1024];
	struct td_addr a;
	const char *fault;

	snprintf(text, sizeof(text), "[agent]\ninstance_id = i-0123456789abcdef0\nregion = eu-west-1\n%s%s\n",
		 list ? "reverse = " : "", list ? list : "");
	struct td_config *c = td_config_parse(text, "test.ini", ".", TD_ROLE_AGENT, stderr);
	assert_non_null(c);
	assert_int_equal(td_addr_parse(address, &a, 1, &fault), 1);
	bool may = ag_access_may_bind(&c->agent.reverse, &a);
	td_config_free(c);
	return may;
}

static void what_may_be_bound(void **state)
{
	assert_false(may_bind(NULL, "127.0.0.1:9000"));
	assert_false(may_bind("none", "127.0.0.1:9000"));
	assert_true(may_bind("127.0.0.1:9000-9099", "127.0.0.1:9000"));
	assert_true(may_bind("127.0.0.1:9000-9099", "127.0.0.1:9099"));
	assert_false(may_bind("127.0.0.1:9000-9099", "127.0.0.1:9100"));
	assert_false(may_bind("127.0.0.1:9000-9099", "127.0.0.2:9000"));
	assert_false(may_bind("127.0.0.1:9000-9099", "0.0.0.0:9000"));
	assert_false(may_bind("127.0.0.1:*", "[::1]:9000"));
	assert_false(may_bind("127.0.0.1:*", "unix:/run/x.sock"));
	assert_true(may_bind("localhost:*", "[::1]:9000"));
	assert_true(may_bind("localhost:*", "127.0.0.9:9000"));
	assert_false(may_bind("localhost:*", "10.0.0.1:9000"));
	assert_true(may_bind("10.0.0.0/8:443, [fd00::]/8:443", "10.1.2.3:443"));
	assert_true(may_bind("10.0.0.0/8:443, [fd00::]/8:443", "[fd00::1]:443"));
	assert_false(may_bind("10.0.0.0/8:443", "0.0.0.0:443"));
	assert_true(may_bind("*:443", "0.0.0.0:443"));
	assert_true(may_bind("10.0.*:443", "10.0.7.7:443"));
	assert_true(may_bind("unix:/run/*.sock", "unix:/run/x.sock"));
	assert_false(may_bind("unix:/run/*.sock", "unix:/run/a/x.sock"));
	assert_false(may_bind("unix:/run/*/x.sock", "unix:/run/../x.sock"));
	assert_false(may_bind("unix:/run/*/*", "unix:/run//x.sock"));
	assert_false(may_bind("unix:/run/*/*", "unix:/run/x/.."));
	assert_false(may_bind("unix:/run/*.sock", "127.0.0.1:1"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(datagrams_have_rules_of_their_own),    cmocka_unit_test(without_allow_loopback_only),
	    cmocka_unit_test(metadata_and_kin_are_always_denied),   cmocka_unit_test(names_match_what_was_asked_for),
	    cmocka_unit_test(addresses_match_what_was_resolved),    cmocka_unit_test(deny_wins),
	    cmocka_unit_test(filter_skips_what_is_denied),	    cmocka_unit_test(what_may_be_bound),
	    cmocka_unit_test(patterns_of_addresses_match_no_names), cmocka_unit_test(sockets_have_one_name),
	};
	int rc = cmocka_run_group_tests(tests, NULL, NULL);
	if (cfg)
		td_config_free(cfg);
	return rc;
}
