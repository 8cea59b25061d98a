/* Direct links as the gateway sees them: whom it permits one, what it passes on, what it hears. */
#include "tests/daemon/gateway/gw_channel.h"

static int begin_plain(void **state)
{
	return begin_with("direct_grace = 7s");
}

static int begin_forbidden(void **state)
{
	return begin_with("direct = no");
}

static void say(struct end *e, const char *json)
{
	send_msg(e, TNL_MT_DIRECT, 0, 0, json, strlen(json));
}

#define TICKET                                                                                                         \
	"{\"Do\":\"ticket\",\"Addresses\":[\"10.0.0.7:7000\"],\"Key\":"                                                \
	"\"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\","                                        \
	"\"Secret\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"}"
#define POLICY "{\"Do\":\"policy\",\"Allow\":true,\"GraceMs\":86400000}"

static void expect_policy(const struct end *e, bool allow, uint64_t grace_ms)
{
	assert_int_equal(e->word.kind, TNL_DIRECT_POLICY);
	assert_int_equal(e->word.allow, allow);
	assert_int_equal(e->word.grace_ms, grace_ms);
}

static void test_words(void **state)
{
	struct ses s;
	session_up(&s);
	assert_true(s.client.words && s.agent.words);
	expect_policy(&s.client, true, 7000);
	expect_policy(&s.agent, true, 7000);
	assert_true(status_of("sessions/0/direct_allowed"));
	s.client.words = s.agent.words = 1; /* told once or twice */
	say(&s.client, "{\"Do\":\"want\"}");
	wait_for(s.agent.words == 2);
	assert_int_equal(s.agent.word.kind, TNL_DIRECT_WANT);
	say(&s.agent, TICKET);
	wait_for(s.client.words == 2);
	assert_string_equal(s.client.word.ticket.addresses[0], "10.0.0.7:7000");
	/* what only the gateway may say, and what the other end would */
	say(&s.client, POLICY);
	say(&s.client, TICKET);
	say(&s.client, "{\"Do\":");
	say(&s.agent, POLICY);
	say(&s.agent, "{\"Do\":\"want\"}");
	send_msg(&s.client, TNL_MT_INPUT, TNL_PT_OUTPUT, 0, "x", 1);
	send_msg(&s.agent, TNL_MT_OUTPUT, TNL_PT_OUTPUT, 0, "x", 1);
	wait_for(s.client.n == 1 && s.agent.n == 1);
	assert_int_equal(s.client.words, 2);
	assert_int_equal(s.agent.words, 2);
	session_done(&s);
}

static void test_reports(void **state)
{
	struct ses s;
	session_up(&s);
	say(&s.client, "{\"Do\":\"report\",\"Up\":true,\"Sent\":1000,\"Received\":20}");
	say(&s.agent, "{\"Do\":\"report\",\"Up\":true,\"Sent\":20,\"Received\":900}");
	wait_for(status_of("sessions/0/client/direct") && status_of("sessions/0/agent/direct"));
	assert_int_equal(status_of("sessions/0/client/direct_sent_bytes"), 1000);
	assert_int_equal(status_of("sessions/0/agent/direct_received_bytes"), 900);
	assert_int_equal(status_of("counters/direct_links"), 2);
	say(&s.client, "{\"Do\":\"report\",\"Up\":false,\"Sent\":1001,\"Received\":20}");
	wait_for(!status_of("sessions/0/client/direct"));
	assert_int_equal(status_of("sessions/0/client/direct_sent_bytes"), 1001);
	assert_int_equal(s.agent.word.kind, TNL_DIRECT_POLICY); /* they are the gateway's */
	session_done(&s);
}

/* So many at once and no more, whoever asks. */
static void test_words_are_bounded(void **state)
{
	struct ses s;
	session_up(&s);
	for (int i = 0; i < 100; i++)
		say(&s.client, "{\"Do\":\"want\"}");
	send_msg(&s.client, TNL_MT_INPUT, TNL_PT_OUTPUT, 0, "x", 1);
	wait_for(s.agent.n == 1);
	assert_in_range(s.agent.words, 1 + 16, 1 + 18);
	session_done(&s);
}

static void test_forbidden(void **state)
{
	struct ses s;
	session_up(&s);
	assert_true(s.client.words && s.agent.words);
	expect_policy(&s.client, false, 60000);
	expect_policy(&s.agent, false, 60000);
	assert_false(status_of("sessions/0/direct_allowed"));
	s.client.words = s.agent.words = 1; /* told once or twice */
	say(&s.client, "{\"Do\":\"want\"}");
	say(&s.agent, TICKET);
	send_msg(&s.client, TNL_MT_INPUT, TNL_PT_OUTPUT, 0, "x", 1);
	send_msg(&s.agent, TNL_MT_OUTPUT, TNL_PT_OUTPUT, 0, "x", 1);
	wait_for(s.client.n == 1 && s.agent.n == 1);
	assert_int_equal(s.client.words, 1);
	assert_int_equal(s.agent.words, 1);
	session_done(&s);
}

static void reload(const char *user, const char *instance)
{
	char sections[800], why[300] = "";
	snprintf(sections, sizeof(sections),
		 "[user ops]\naccess_key_id = AKIDOPS\nsecret_access_key = ops-secret\ntargets = i-*\n%s\n"
		 "[instance i-1]\naccess_key_id = AKIDI1\nsecret_access_key = i1-secret\n%s\n",
		 user, instance);
	struct td_config *c = config(sections);
	assert_int_equal(td_gateway_reload(T.g, c, why, sizeof(why)), 0);
	td_config_free(T.cfg);
	T.cfg = c;
}

/* By user and by instance, also while a session lives; and never for those whose bytes are to be counted here. */
static void test_by_user_and_instance(void **state)
{
	static const struct {
		const char *user, *instance;
		bool allow;
	} cases[] = {{"direct = no", "", false},
		     {"", "", true},
		     {"", "direct = no", false},
		     {"bandwidth = 1M", "", false},
		     {"", "", true},
		     {"", "bandwidth = 1M", false},
		     {"direct = yes", "direct = yes", true}};
	struct ses s;
	session_up(&s);
	for (size_t i = 0; i < TNL_COUNT(cases); i++) {
		int before = s.client.words, also = s.agent.words;
		reload(cases[i].user, cases[i].instance);
		wait_for(s.client.words > before && s.agent.words > also);
		expect_policy(&s.client, cases[i].allow, 7000);
		expect_policy(&s.agent, cases[i].allow, 7000);
	}
	session_done(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T2(test_words, begin_plain),
	    T2(test_reports, begin_plain),
	    T2(test_words_are_bounded, begin_plain),
	    T2(test_forbidden, begin_forbidden),
	    T2(test_by_user_and_instance, begin_plain),
	};
	return cmocka_run_group_tests_name("gateway direct", tests, NULL, NULL);
}
