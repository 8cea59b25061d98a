/* What the keys of a [tunnel] owe each other. */
#include "tests/unit/check.h"
#include "tunneld/config/config.h"

#define TUNNEL(listen) "[tunnel a]\nlisten = " listen "\ntarget = i-1\n"

/* Refused with these lines; NULL: it is taken, and the caller's to free. */
static struct td_config *parse(const char *text, const char *lines)
{
	char *said = NULL;
	size_t n;
	FILE *f = open_memstream(&said, &n);
	struct td_config *c = td_config_parse(text, "t.ini", "/base", TD_ROLE_FORWARDER, f);
	fclose(f);
	if (lines)
		assert_null(c);
	else if (!c)
		print_error("%s", said);
	assert_string_equal(said, lines ? lines : "");
	free(said);
	return c;
}

static void datagrams_have_no_connections(void **state)
{
	parse(TUNNEL("127.0.0.1:1") "port = 2\ntype = udp\nsend_proxy = v2\nbandwidth = 1M\nprobe = 10s\n"
				    "session = per-connection\n",
	      "t.ini:6: type = udp: send_proxy is for connections\n"
	      "t.ini:9: type = udp: session = per-connection is for connections\n");
	parse(TUNNEL("unix:x") "port = 2\ntype = udp\n",
	      "t.ini:2: type = udp: listen takes addresses with ports only\n");
}

static void udp_has_ports_of_its_own(void **state)
{
	struct td_config *c = parse(TUNNEL("127.0.0.1:1") "port = 2\ntype = udp\n[tunnel t]\nlisten = 127.0.0.1:1\n"
							  "target = i-1\nport = 2\n",
				    NULL);
	assert_non_null(c);
	assert_int_equal(c->fwd.tunnels[0].type, TD_TUNNEL_UDP);
	assert_int_equal(c->fwd.tunnels[0].max_flows, 1000);
	assert_int_equal(c->fwd.tunnels[0].udp_queue, 65536);
	assert_true(c->fwd.tunnels[0].udp_idle_ns == UINT64_C(60000000000));
	td_config_free(c);
	parse(TUNNEL("127.0.0.1:1") "port = 2\ntype = udp\n[tunnel t]\nlisten = 127.0.0.1:1\ntarget = i-1\nport = 2\n"
				    "type = udp\n",
	      "t.ini:7: listen: 127.0.0.1:1 is taken already, on line 2\n");
}

static void a_range_is_a_tunnel_for_each_port(void **state)
{
	struct td_config *c = parse("[aws]\nregion = eu-west-1\naccess_key_id = A\nsecret_access_key = long-enough\n"
				    "[tunnel web]\nlisten = 127.0.0.1:8000-8002, 127.0.0.2:18000-18002\ntarget = i-1\n"
				    "host = h.internal\nport = 9000-9002\nmax_connections = 7\nsession = pool 3\n"
				    "message_rate = 5\nbandwidth = 1M\nproxy = none\n"
				    "[tunnel one]\nlisten = 127.0.0.1:9\ntarget = i-1\nport = 9\n",
				    NULL);
	static const char *const names[] = {"web:9000", "web:9001", "web:9002", "one"};
	assert_int_equal(c->fwd.ntunnels, 4);
	for (int i = 0; i < 4; i++)
		assert_string_equal(c->fwd.tunnels[i].name, names[i]);
	for (int k = 0; k < 3; k++) {
		const struct td_tunnel_config *t = &c->fwd.tunnels[k];
		assert_int_equal(t->port, 9000 + k);
		assert_int_equal(t->naddrs, 2);
		assert_int_equal(td_addr_port(&t->addrs[0]), 8000 + k);
		assert_int_equal(td_addr_port(&t->addrs[1]), 18000 + k);
		assert_string_equal(t->host, "h.internal");
		assert_int_equal(t->max_connections, 7);
		assert_int_equal(t->pool, 3);
		assert_true(t->message_rate_set && t->message_rate == 5 && t->bandwidth == 1 << 20);
		assert_string_equal(t->aws.secret_access_key, "long-enough");
		assert_string_equal(t->aws.proxy, "none");
	}
	td_config_free(c);
}

static void ranges_that_do_not_fit(void **state)
{
	parse(TUNNEL("127.0.0.1:8000-8002") "port = 9000-9001\n",
	      "t.ini:4: listen has 3 ports in an entry, port has 2: they have to be as many\n");
	parse(TUNNEL("127.0.0.1:8000") "port = 9000-9001\n",
	      "t.ini:4: listen has 1 ports in an entry, port has 2: they have to be as many\n");
	parse(TUNNEL("127.0.0.1:8000-8001, unix:x") "port = 9000-9001\n",
	      "t.ini:2: listen = unix:/base/x: all entries have to be as many ports\n");
	parse(
	    TUNNEL("127.0.0.1:8001-8000") "port = 1\n",
	    "t.ini:2: listen = 127.0.0.1:8001-8000: LOW-HIGH must be two ports from 1 to 65535, the lower one first\n");
	parse(TUNNEL("127.0.0.1:0-3") "port = 1\n",
	      "t.ini:2: listen = 127.0.0.1:0-3: LOW-HIGH must be two ports from 1 to 65535, the lower one first\n");
	parse(TUNNEL("127.0.0.1:1-257") "port = 1\n",
	      "t.ini:2: listen = 127.0.0.1:1-257: a range has at most 256 ports\n");
	parse(TUNNEL("127.0.0.1:1") "port = 1-x\n",
	      "t.ini:4: port = 1-x: LOW-HIGH must be two ports from 1 to 65535, the lower one first\n");
	parse(TUNNEL("127.0.0.1:1-3") "port = 1-3\n[tunnel b]\nlisten = 127.0.0.1:2\ntarget = i-1\nport = 2\n",
	      "t.ini:6: listen: 127.0.0.1:2 is taken already, on line 2\n");
	parse(TUNNEL("127.0.0.1:1-3") "port = 1-3\n[tunnel a:2]\nlisten = 127.0.0.1:9\ntarget = i-1\nport = 2\n",
	      "t.ini:1: the name a:2 is that of a port of the tunnel a as well\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(datagrams_have_no_connections),
	    cmocka_unit_test(a_range_is_a_tunnel_for_each_port),
	    cmocka_unit_test(ranges_that_do_not_fit),
	    cmocka_unit_test(udp_has_ports_of_its_own),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
