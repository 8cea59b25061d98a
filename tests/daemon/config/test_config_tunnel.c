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
	      "t.ini:7: type = udp: bandwidth is for connections\n"
	      "t.ini:8: type = udp: probe is for connections\n"
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

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(datagrams_have_no_connections),
	    cmocka_unit_test(udp_has_ports_of_its_own),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
