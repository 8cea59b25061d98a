/* Reloads of the forwarder with connections open: what changes, what stays, keys that reach what lives. */
#include "tests/daemon/forwarder/fwd_util.h"

#define ONE "[tunnel one]\nlisten = 127.0.0.1:0\n"

static void close_both(int fd, int t)
{
	close(fd);
	close(W.target[t]);
	W.target[t] = -1;
}

static void reload_leaves_alone_what_is_unchanged(void **state)
{
	char one[200], text[500];
	forwarder_up(ONE "[tunnel two]\nlisten = 127.0.0.1:0\n");
	int a = served(0), b = served(1);
	uint16_t p1 = port_of(0), p2 = port_of(1);
	for (int i = 0; i < 40; i++) { /* many: each configuration goes when nobody needs it */
		snprintf(text, sizeof(text), ONE "[tunnel two]\nlisten = 127.0.0.1:%d\nmax_connections = %d\n", p2,
			 i + 1);
		assert_int_equal(reload(text), 0);
	}
	assert_int_equal(port_of(0), p1);
	talk(a, 0);
	talk(b, 1); /* its old tunnel only waits for it */
	for_ms(20);
	int c = connect_to(p2), t = W.targets;
	talk(c, t);
	snprintf(one, sizeof(one), "[tunnel one]\nlisten = 127.0.0.1:0\n");
	assert_int_equal(reload(one), 0);
	assert_int_equal(connect_to(p2), -1);
	talk(b, 1);
	talk(c, t);
	close(served(0));
	assert_int_equal(gateway_sessions(), 1);
	close(a);
	close(b);
	close(c);
}

static void reload_that_cannot_bind_goes_back(void **state)
{
	char text[600];
	forwarder_up(ONE
		     "[tunnel two]\nlisten = 127.0.0.1:0\n[tunnel three]\nlisten = 127.0.0.1:0\nmax_connections = 1\n");
	uint16_t p2 = port_of(1);
	int a = served(2), a_t = W.targets - 1;
	uint16_t taken = W.target_port, p3 = port_of(2);
	snprintf(text, sizeof(text),
		 ONE "[tunnel new]\nlisten = 127.0.0.1:0\n[tunnel two]\nlisten = 127.0.0.1:%d\n"
		     "[tunnel three]\nlisten = 127.0.0.1:%d\nmax_connections = 1\n",
		 taken, p3);
	assert_int_equal(reload(text), -1);
	assert_int_equal(connect_to(p2), -1); /* port 0 is another one now, but it listens */
	close(served(0));
	close(served(1));
	int b = connect_to(port_of(2)), t = W.targets;
	for_ms(100);
	assert_int_equal(W.targets, t); /* still as full as it was */
	close_both(a, a_t);
	talk(b, t);
	close(b);
}

/* The keys change at the gateway and here while a connection is open; then the link breaks. */
static void new_keys_reach_what_lives(void **state)
{
	static const char *const keys[] = {"AKIDOPS\nsecret_access_key = s8-of-tests",
					   "AKIDNEW\nsecret_access_key = s9-of-tests"};
	forwarder_up(ONE);
	uint16_t port = port_of(0);
	int a = served(0);
	for (int i = 0; i < 2; i++) {
		W.user_key = keys[i];
		gateway_reload();
		assert_int_equal(reload(ONE), 0);
		assert_int_equal(port_of(0), port);
		talk(a, 0);
		gateway_gone();
		gateway_back();
		talk(a, 0);
		close(served(0));
		assert_int_equal(gateway_sessions(), 1);
	}
	close(a);
}

/* It asks in vain until it has them; then it does not wait for its back-off either. */
static void new_keys_end_the_waiting(void **state)
{
	W.slow = true;
	forwarder_up(ONE);
	int a = served(0);
	W.user_key = "AKIDOPS\nsecret_access_key = s8-of-tests";
	gateway_gone();
	gateway_back();
	until_(tunnel_is(0, "resuming"));
	for_ms(100);
	assert_int_equal(reload(ONE), 0);
	talk(a, 0);
	close(a);
}

/* Any other key of [aws]: listeners and connections stay as well, at another service the old session finishes. */
static void keys_of_aws_leave_listeners_alone(void **state)
{
	static const char *const more[] = {"proxy = none\n", "stream_hosts = a.example\n", ""};
	forwarder_up(ONE "[tunnel two]\nlisten = 127.0.0.1:0\n");
	uint16_t p1 = port_of(0), p2 = port_of(1);
	int a = served(0), b = served(1);
	for (size_t i = 0; i < TNL_COUNT(more); i++) {
		const char *elsewhere = i == 2 ? "region = eu-west-2\n" : ""; /* for tunnel two */
		char text[200];
		snprintf(text, sizeof(text), ONE "[tunnel two]\nlisten = 127.0.0.1:0\n%s", elsewhere);
		W.aws_more = more[i];
		assert_int_equal(reload(text), 0);
		assert_int_equal(port_of(0), p1);
		assert_int_equal(port_of(1), p2);
		talk(a, 0);
		talk(b, 1);
		assert_int_equal(gateway_sessions(), 1);
	}
	int c = served(1);
	assert_int_equal(gateway_sessions(), 2); /* another service for all that we know: b stays where it is */
	talk(b, 1);
	close_both(a, 0);
	close_both(b, 1);
	close_both(c, 2);
}

static void a_tunnel_that_is_off_gives_up_without_local_ends(void **state)
{
	forwarder_up(ONE "[tunnel two]\nlisten = 127.0.0.1:0\nhost = 127.0.0.1\nconnect_timeout = 200ms\n");
	int a = served(1);
	gateway_gone();
	assert_int_equal(reload(ONE), 0);
	for_ms(1500);
	assert_int_equal(of_tunnel(1, "connections"), 1); /* somebody is there still */
	close(a);
	until_(of_tunnel(1, "connections") == -1);
	gateway_up();
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(reload_leaves_alone_what_is_unchanged),
	    TEST(reload_that_cannot_bind_goes_back),
	    TEST(new_keys_reach_what_lives),
	    TEST(new_keys_end_the_waiting),
	    TEST(keys_of_aws_leave_listeners_alone),
	    TEST(a_tunnel_that_is_off_gives_up_without_local_ends),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
