/* What the options of a tunnel and of an agent become for their sessions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/session.h"
#include "tunneld/config/config.h"

#define MINUTE 60000000000ull

static struct td_config *parse(const char *text, unsigned role)
{
	struct td_config *c = td_config_parse(text, "t.ini", "/", role, stderr);
	assert_non_null(c);
	return c;
}

static void a_tunnel(void **state)
{
	struct tnl_session_config s;
	struct td_config *c =
	    parse("[aws]\nregion = eu-west-1\n[tunnel a]\nlisten = 127.0.0.1:1\ntarget = i-1\nport = 2\n"
		  "session_memory = 4M\nstream_window = 64K\nmax_payload = 2K\nidle_timeout = 9m\nlinks = 3\n"
		  "half_close_timeout = 3m\nrequire_encryption = yes\nkms_key_id = arn:key\n"
		  "[tunnel b]\nlisten = 127.0.0.1:3\ntarget = i-1\nport = 2\nmessage_rate = 0\nkeepalive = no\n",
		  TD_ROLE_FORWARDER);

	td_tunnel_session(&c->fwd.tunnels[0], false, &s);
	assert_false(s.agent);
	assert_int_equal(s.memory_max, 4 << 20);
	assert_int_equal(s.stream_window, 64 << 10);
	assert_int_equal(s.max_payload, 2 << 10);
	assert_int_equal(s.message_rate, 0);
	assert_int_equal(s.resend_max, 3000);
	assert_int_equal(s.half_close_timeout_ns, 3 * MINUTE);
	assert_int_equal(s.fin_quiet_ns, MINUTE / 30);
	assert_int_equal(s.keepalive_ns, 3 * MINUTE);
	assert_true(s.offer_capabilities);
	assert_true(s.require_encryption);
	assert_string_equal(s.kms_key_pin, "arn:key");
	assert_null(s.session_id);
	assert_int_equal(s.direct, TNL_DIRECT_AUTO);
	assert_int_equal(s.links, 3);
	td_tunnel_session(&c->fwd.tunnels[0], true, &s);
	assert_int_equal(s.message_rate, 900);
	assert_int_equal(s.links, 1);		   /* nothing of ours is asked of AWS */
	assert_int_equal(s.direct, TNL_DIRECT_NO); /* nobody there to permit it, or to end it */

	td_tunnel_session(&c->fwd.tunnels[1], false, &s);
	assert_int_equal(s.links, 8); /* auto */
	td_tunnel_session(&c->fwd.tunnels[1], true, &s);
	assert_int_equal(s.message_rate, 0); /* said so */
	assert_int_equal(s.keepalive_ns, 0);
	assert_false(s.require_encryption);
	td_config_free(c);
}

static void an_agent(void **state)
{
	struct tnl_session_config s;
	struct td_config *c = parse("[agent]\nregion = eu-west-1\ninstance_id = i-1\nsession_memory = 4M\n"
				    "stream_window = 64K\nmax_payload = 2K\nhalf_close_timeout = 3m\n"
				    "require_challenge_ack = yes\n",
				    TD_ROLE_AGENT);

	td_agent_session(&c->agent, false, &s);
	assert_true(s.agent);
	assert_int_equal(s.memory_max, 4 << 20);
	assert_int_equal(s.stream_window, 64 << 10);
	assert_int_equal(s.max_payload, 2 << 10);
	assert_int_equal(s.message_rate, 0);
	assert_int_equal(s.half_close_timeout_ns, 3 * MINUTE);
	assert_int_equal(s.fin_quiet_ns, MINUTE / 30);
	assert_true(s.offer_capabilities);
	assert_false(s.require_encryption);
	assert_true(s.require_challenge_ack);
	assert_int_equal(s.links, 8);
	td_agent_session(&c->agent, true, &s);
	assert_int_equal(s.message_rate, 900);
	td_config_free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(a_tunnel), cmocka_unit_test(an_agent)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
