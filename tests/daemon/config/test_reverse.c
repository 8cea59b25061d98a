/* What a reverse tunnel has to say, and what it may not. */
#include "tests/daemon/config/config_said.h"

#define REVERSE "[tunnel r]\ntype = reverse\ntarget = i-1\n"

static void test_reverse(void **s)
{
	struct td_config *c = parse_ok(REVERSE "bind = 127.0.0.1:9222\nconnect = dev.internal:80\n", TD_ROLE_FORWARDER);
	assert_true(c->fwd.tunnels[0].open_at_start);
	assert_int_equal(c->fwd.tunnels[0].port, 9222);
	assert_string_equal(c->fwd.tunnels[0].connect, "dev.internal:80");
	td_config_free(c);
	c = parse_ok(REVERSE "bind = unix:/run/x.sock\nconnect = unix:/run/y.sock\n", TD_ROLE_FORWARDER);
	assert_int_equal(c->fwd.tunnels[0].port, 1);
	td_config_free(c);
	c = parse_ok(REVERSE "bind = [::1]:0\nconnect = [::1]:80\nport = 22\n", TD_ROLE_FORWARDER);
	assert_int_equal(c->fwd.tunnels[0].port, 22);
	td_config_free(c);
	expect(REVERSE, TD_ROLE_FORWARDER,
	       "t.ini:1: type = reverse requires bind\nt.ini:1: type = reverse requires connect\n");
	expect(REVERSE
	       "bind = 127.0.0.1:1\nconnect = a:1\nlisten = 127.0.0.1:1\nhost = x\nsession = pool 2\nopen = demand\n",
	       TD_ROLE_FORWARDER,
	       "t.ini:6: type = reverse has no listen\nt.ini:7: type = reverse has no host\n"
	       "t.ini:8: type = reverse has one session, its own\nt.ini:9: type = reverse has no open\n");
	expect(REVERSE "bind = db:1\nconnect = a\n", TD_ROLE_FORWARDER,
	       "t.ini:4: bind = db:1: is neither ADDRESS:PORT nor unix:/PATH\n"
	       "t.ini:5: connect = a: is neither HOST:PORT nor unix:/PATH\n");
	expect("[agent]\ninstance_id = i-1\nregion = eu-west-1\nreverse = localhost:1, udp:127.0.0.1:1\n",
	       TD_ROLE_AGENT, "t.ini:4: reverse: listeners are TCP's or Unix sockets\n");
	expect(TUNNEL "bind = 127.0.0.1:1\n", TD_ROLE_FORWARDER, "t.ini:5: bind requires type = reverse\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_reverse)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
