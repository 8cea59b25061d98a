/* type = …: what a tunnel of each type may have and what it lacks; port = unix:PATH; the rules of a proxy. */
#include "lib/alloc.h"
#include "lib/buf.h"
#include "lib/num.h"
#include "tests/daemon/config/config_said.h"
#include "tunneld/config/internal.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define SEC_NS 1000000000ull

/* Who cannot give a socket to the group hears so before it is tried; who does not listen needs none. */
static void test_groups(void **s)
{
	char *said = NULL;
	struct td_config *c =
	    parse_said("[tunneld]\nuser = nobody\n" TUNNEL "socket_group = root\n", TD_ROLE_FORWARDER, &said);
	assert_non_null(c);
	assert_string_equal(said, "warning: t.ini:7: socket_group = root: user nobody does not belong to it, and only "
				  "who does can give it a socket\n");
	free(said);
	td_config_free(c);
	td_config_free(parse_ok("[tunneld]\nuser = root\n" TUNNEL "socket_group = 0\n", TD_ROLE_FORWARDER));
	c = parse_said(TUNNEL "socket_group = no-such-group\n", 0, &said);
	assert_non_null(c);
	assert_string_equal(said, "");
	free(said);
	td_config_free(c);
}

static void test_types(void **s)
{
#define PROXY "[tunnel a]\nlisten = 127.0.0.1:1, unix:/run/x, [::1]:1\ntarget = i-1\ntype = proxy\n"
	struct td_config *c = parse_ok(PROXY "allow = *.internal:443, 10.0.0.0/8:*\n", TD_ROLE_FORWARDER);
	const struct td_tunnel_config *t = c->fwd.tunnels;
	assert_int_equal(t->max_destinations, 16);
	assert_int_equal(t->socket_mode, 0600);
	assert_true(td_rules_have(&t->allow, "DB.Internal", 443));
	assert_true(td_rules_have(&t->allow, "db.internal.", 443));
	assert_false(td_rules_have(&t->allow, "db.internal", 80));
	assert_false(td_rules_have(&t->allow, "internal.example", 443));
	assert_true(td_rules_have(&t->allow, "10.255.0.1", 1));
	assert_true(td_rules_have(&t->allow, "::ffff:10.0.0.1", 1));
	assert_false(td_rules_have(&t->allow, "11.0.0.1", 1));
	assert_true(td_pattern_means_address("10.0.*") && td_pattern_means_address("?0.1"));
	assert_false(td_pattern_means_address("*") || td_pattern_means_address("web1*") ||
		     td_pattern_means_address("*.*"));
	assert_false(td_rules_have(&t->allow, "::10.0.0.1", 1));
	td_config_free(c);
	c = parse_ok(
	    "[tunnel a]\nlisten = unix:/run/x\ntarget = i-1\nport = unix:/run/docker.sock\nsocket_mode = 660\n",
	    TD_ROLE_FORWARDER);
	assert_string_equal(c->fwd.tunnels[0].path, "/run/docker.sock");
	assert_int_equal(c->fwd.tunnels[0].port, 0);
	assert_int_equal(c->fwd.tunnels[0].socket_mode, 0660);
	td_config_free(c);
	expect(PROXY "port = 1\nhost = h\nmax_destinations = 0\n", TD_ROLE_FORWARDER,
	       "t.ini:5: port: a proxy is told where to go by those who use it\n"
	       "t.ini:6: host: a proxy is told where to go by those who use it\n"
	       "t.ini:7: max_destinations = 0: out of range, 1 to 1000\n");
	expect("[tunnel a]\nlisten = 127.0.0.1:1, 10.0.0.1:1\ntarget = i-1\ntype = proxy\n", TD_ROLE_FORWARDER,
	       "t.ini:2: listen: a proxy on 10.0.0.1:1, which others can reach, requires proxy_auth\n");
	expect(TUNNEL "allow = a:1\nsocket_mode = 0888\n", TD_ROLE_FORWARDER,
	       "t.ini:5: allow: only with type = proxy\n"
	       "t.ini:6: socket_mode = 0888: must be a mode in octal, as 0660\n");
	expect(TUNNEL "socket_mode = 0444\nsocket_group = no-such-group\n", TD_ROLE_FORWARDER,
	       "t.ini:5: socket_mode = 0444: who connects has to have the right to write, and nobody has it\n"
	       "t.ini:6: socket_group = no-such-group: there is no such group on this machine\n");
	expect(TUNNEL "socket_mode = 01777\n", TD_ROLE_FORWARDER,
	       "t.ini:5: socket_mode = 01777: out of range, 0000 to 0777\n");
	expect("[tunnel a]\nlisten = 127.0.0.1:1\ntarget = i-1\nport = unix:run\n", TD_ROLE_FORWARDER,
	       "t.ini:4: port = unix:run: needs the absolute path of a socket, of at most 107 bytes\n");
	expect(TUNNEL "type = http\n", TD_ROLE_FORWARDER,
	       "t.ini:5: type = http: must be one of tcp|proxy|udp|reverse\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_types), cmocka_unit_test(test_groups)};
	return cmocka_run_group_tests_name("types of tunnels", tests, NULL, NULL);
}
