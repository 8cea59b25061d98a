/* What two ends agree on about further links: the capability, and the flag by which the agent hears of their number. */
#include "tests/unit/sess_util.h"

static struct tnl_session_config end_config(bool agent, unsigned links)
{
	return (struct tnl_session_config){.agent = agent,
					   .session_id = "sess",
					   .memory_max = 4u << 20,
					   .stream_window = 1u << 20,
					   .max_payload = 32768,
					   .offer_capabilities = true,
					   .session_type = "Port",
					   .properties_json = "{\"type\":\"LocalPortForwarding\"}",
					   .links = links,
					   .cb = &end_cb};
}

static void the_least_is_agreed(void **state)
{
	static const struct {
		unsigned client, agent, agreed;
		bool own;
	} cases[] = {{4, 8, 4, true}, {8, 2, 2, true},	   {1, 8, 1, true},
		     {8, 0, 1, true}, {100, 100, 8, true}, {8, 8, 1, false}};
	(void)state;
	for (size_t i = 0; i < TNL_COUNT(cases); i++) {
		struct pair p;
		struct tnl_session_config c = end_config(false, cases[i].client), a = end_config(true, cases[i].agent);
		c.offer_capabilities = cases[i].own;
		pair_init(&p, &c, &a);
		pair_up(&p);
		p.now += 100 * MS;
		pair_run(&p);
		assert_int_equal(tnl_session_info(p.c.s)->links, cases[i].agreed);
		assert_int_equal(tnl_session_info(p.a.s)->links, cases[i].agreed);
		/* the flag, at most what was agreed; where nothing was, it is nobody's */
		tnl_session_send_flag(p.c.s, TNL_FLAG_LINKS | 7, p.now);
		pair_run(&p);
		unsigned said = cases[i].agreed < 7 ? cases[i].agreed : 7;
		assert_int_equal(p.a.flag, cases[i].agreed > 1 ? TNL_FLAG_LINKS | said : 0);
		tnl_session_send_flag(p.a.s, TNL_FLAG_LINKS | 7, p.now);
		pair_run(&p);
		assert_int_equal(p.c.flag, 0); /* a client does not take it */
		assert_int_equal(tnl_session_state(p.c.s), TNL_SS_READY);
		pair_fini(&p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(the_least_is_agreed)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
