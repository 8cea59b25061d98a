/* What the forwarder tells of itself: status and log lines. */
#include "tests/daemon/forwarder/fwd_util.h"

static void the_status_shows_what_sessions_dropped(void **state)
{
	static const char *const names[] = {"bad_messages",	"unknown_messages", "bad_payloads",
					    "unknown_payloads", "unknown_frames",   "early_data"};
	forwarder_up(ONE);
	int a = served(0);
	struct tnl_json *j = forwarder_status();
	const struct tnl_json *s = tnl_json_at(tnl_json_get(tunnel_of(j, 0), "sessions"), 0);
	const struct tnl_json *dropped = tnl_json_get(s, "dropped");
	assert_int_equal(tnl_json_len(dropped), TNL_COUNT(names));
	for (size_t i = 0; i < TNL_COUNT(names); i++) {
		int64_t v = -1;
		assert_true(tnl_json_int(tnl_json_get(dropped, names[i]), &v));
		assert_int_equal(v, 0);
	}
	tnl_json_free(j);
	close(a);
}

static bool text_of_tunnel_is(int i, const char *key, const char *part)
{
	struct tnl_json *j = forwarder_status();
	const char *text = tnl_json_get_str(tunnel_of(j, i), key);
	bool same = text && strstr(text, part);
	tnl_json_free(j);
	return same;
}

static void shared_sessions_stand_once(void **state)
{
	forwarder_up(ONE "[tunnel two]\nlisten = 127.0.0.1:0\n");
	int a = served(0), b = served(1);
	assert_string_equal(loads(0), "2");
	assert_string_equal(loads(1), "");
	assert_true(text_of_tunnel_is(1, "sessions_of", "one"));
	assert_false(text_of_tunnel_is(0, "sessions_of", ""));
	close(a);
	close(b);
}

static int resumes_of_first(void)
{
	struct tnl_json *j = forwarder_status();
	int64_t n = -1;
	(void)tnl_json_int(tnl_json_get(tnl_json_at(tnl_json_get(tunnel_of(j, 0), "sessions"), 0), "resumes"), &n);
	tnl_json_free(j);
	return (int)n;
}

/* However many tries each of them took. */
static void resumes_are_links_that_came_back(void **state)
{
	forwarder_up(ONE);
	int a = served(0);
	assert_int_equal(resumes_of_first(), 0);
	for (int i = 1; i <= 2; i++) {
		gateway_gone();
		until_(tunnel_is(0, "resuming") && text_of_tunnel_is(0, "last_error", ""));
		for_ms(400);
		gateway_back();
		until_(tunnel_is(0, "up"));
		assert_int_equal(resumes_of_first(), i);
		assert_false(text_of_tunnel_is(0, "last_error", ""));
	}
	talk(a, 0);
	close(a);
}

static void one_that_opens_at_start_and_cannot_has_failed(void **state)
{
	gateway_gone();
	forwarder_up(ONE "open = start\n");
	until_(tunnel_is(0, "failed"));
	assert_true(text_of_tunnel_is(0, "last_error", "StartSession"));
	for_ms(300);
	assert_true(tunnel_is(0, "failed")); /* not "starting" with each try */
	gateway_back();
	until_(tunnel_is(0, "up"));
}

/* A failure that somebody met is told by his line, once. */
static void a_failure_has_one_line(void **state)
{
	forwarder_up(ONE);
	gateway_gone();
	log_begin();
	int fd = connect_to(port_of(0));
	int end = end_of(fd, 4000);
	bool twice = log_shows("cannot open", "");
	bool told = log_has("connection reset", "StartSession");
	assert_int_equal(end, -ECONNRESET);
	assert_true(told);
	assert_false(twice);
	close(fd);
	gateway_back();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(the_status_shows_what_sessions_dropped),
	    TEST(shared_sessions_stand_once),
	    TEST(resumes_are_links_that_came_back),
	    TEST(one_that_opens_at_start_and_cannot_has_failed),
	    TEST(a_failure_has_one_line),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
