/* The forwarder with a gateway and an agent in one process: placement, waiting, replacement, reload, drain, ledger. */
#include "tests/daemon/forwarder/fwd_util.h"
#include "tunneld/base/fd.h"

static void close_both(int fd, int t)
{
	close(fd);
	close(W.target[t]);
	W.target[t] = -1;
}

/* --- refusals ---------------------------------------------------------------------- */

static void an_unreachable_gateway_resets_at_once(void **state)
{
	forwarder_up(ONE);
	gateway_gone();
	log_begin();
	int fd = connect_to(port_of(0));
	int end = end_of(fd, 4000);
	bool told = log_has("connection reset", "StartSession");
	assert_int_equal(end, -ECONNRESET);
	assert_true(told);
	close(fd);
	gateway_back();
	close(served(0)); /* failures are not remembered */
}

static void a_target_that_is_not_there_resets_at_once(void **state)
{
	td_agent_free(W.a);
	W.a = NULL;
	for_ms(50);
	forwarder_up(ONE);
	log_begin();
	int fd = connect_to(port_of(0));
	int end = end_of(fd, 4000);
	bool told = log_has("connection reset", "TargetNotConnected");
	assert_int_equal(end, -ECONNRESET);
	assert_true(told);
	close(fd);
	agent_up();
	close(served(0));
}

static void on_doomed(void *ctx, int fd, const struct td_addr *peer)
{
	td_fd_rst_close(fd);
	++*(int *)ctx;
}

/* The gateway dies under a session that begins, and nobody has heard yet that others have lost their links. */
static void a_gateway_that_breaks_once_is_tried_again(void **state)
{
	struct td_addr a;
	int breaks = 0;
	char why[200];

	forwarder_up(ONE "session = per-connection\n");
	td_agent_free(W.a); /* it would come to the doomed listener as well */
	W.a = NULL;
	gateway_gone();
	for_ms(30);
	assert_true(td_addr_literal("127.0.0.1", (uint16_t)W.port, &a));
	struct td_listener *s = td_listen(T, &a, on_doomed, &breaks, why, sizeof(why));
	assert_non_null(s);
	int fd = connect_to(port_of(0)), t = W.targets;
	until_(breaks > 0);
	td_listener_free(s);
	gateway_up();
	agent_up();
	talk(fd, t);
	close_both(fd, t);
}

/* --- placement ------------------------------------------------------------------------ */

static void tunnels_alike_share_one_session(void **state)
{
	forwarder_up(ONE "[tunnel two]\nlisten = 127.0.0.1:0\nmax_connections = 7\n");
	int a = served(0), b = served(1), c = served(0);
	assert_int_equal(gateway_sessions(), 1);
	assert_string_equal(loads(0), "3");
	close(a);
	close(b);
	close(c);
}

static void per_connection_each_has_its_own_and_ends_with_it(void **state)
{
	forwarder_up(ONE "session = per-connection\n");
	int a = served(0), b = served(0);
	assert_int_equal(gateway_sessions(), 2);
	close_both(a, 0);
	until_(gateway_sessions() == 1);
	talk(b, 1);
	assert_string_equal(loads(0), "1");
	assert_true(file_there("sessions"));
	close_both(b, 1);
	until_(gateway_sessions() == 0);
	until_(!file_there("sessions"));
}

static void a_pool_grows_while_busy_and_places_on_the_least_loaded(void **state)
{
	int fd[6];
	forwarder_up(ONE "session = pool 2\nidle_timeout = 1s\n");
	const char *const want[] = {"1", "1 1", "2 1", "2 2", "3 2", "3 3"};
	for (int i = 0; i < 6; i++) {
		fd[i] = served(0);
		assert_string_equal(loads(0), want[i]);
	}
	for (int i = 0; i < 6; i += 2) { /* those of the first */
		close(fd[i]);
		close(W.target[i]);
		W.target[i] = -1;
	}
	until_(strcmp(loads(0), "0 3") == 0);
	close(fd[1]);
	close(W.target[1]);
	W.target[1] = -1;
	until_(strcmp(loads(0), "2") == 0 && gateway_sessions() == 1); /* the surplus one ended */
	close(fd[3]);
	close(fd[5]);
}

static void beyond_max_connections_they_wait_in_the_backlog(void **state)
{
	forwarder_up(ONE "max_connections = 1\n");
	int a = served(0), b = connect_to(port_of(0));
	char c[8];
	assert_int_equal(write(b, "ping", 4), 4);
	assert_int_equal(hear(b, c, sizeof(c), 150), -EAGAIN);
	close_both(a, 0);
	until_(W.targets == 2);
	assert_int_equal(hear(W.target[1], c, sizeof(c), 3000), 4);
	close(b);
}

/* The gateway here stands still as well meanwhile: it shares the process. */
static void full_memory_stops_accepting(void **state)
{
	forwarder_up(ONE);
	td_memory_change(200u << 20);
	int a = connect_to(port_of(0)), b = connect_to(port_of(0));
	for_ms(100);
	assert_int_equal(of_tunnel(0, "accepted"), 1); /* with that one it noticed */
	td_memory_change(-(int64_t)(200u << 20));
	talk(a, 0);
	talk(b, 1);
	close(a);
	close(b);
}

static void memory_that_is_full_when_max_connections_no_longer_counts(void **state)
{
	forwarder_up(ONE "max_connections = 1\n");
	int a = served(0);
	td_memory_change(200u << 20);
	td_fd_rst_close(a);
	until_(of_tunnel(0, "connections") == 0);
	int b = connect_to(port_of(0));
	for_ms(100);
	assert_int_equal(of_tunnel(0, "accepted"), 1);
	td_memory_change(-(int64_t)(200u << 20));
	talk(b, 1);
	close(b);
}

/* --- lost and replaced sessions --------------------------------------------------------- */

static const char *const policies[] = {"shared", "pool 2", "per-connection"};

static void tunnel_up(const char *before, const char *policy)
{
	char text[300];
	snprintf(text, sizeof(text), "%s" ONE "session = %s\n", before, policy);
	forwarder_up(text);
}

static void connections_wait_while_a_session_resumes(void **state)
{
	for (size_t i = 0; i < TNL_COUNT(policies); i++) {
		tunnel_up("", policies[i]);
		int a = served(0), t = W.targets - 1;
		gateway_gone();
		for_ms(50);
		int b = connect_to(port_of(0));
		assert_int_equal(end_of(b, 200), -EAGAIN);
		gateway_up();
		talk(b, t + 1);
		talk(a, t);
		close(a);
		close(b);
		forwarder_gone();
	}
}

static void they_wait_no_longer_than_connect_timeout(void **state)
{
	forwarder_up(ONE "connect_timeout = 300ms\n");
	int a = served(0);
	gateway_gone();
	for_ms(50);
	uint64_t began = T->now;
	log_begin();
	int b = connect_to(port_of(0));
	int end = end_of(b, 3000);
	bool told = log_has("no session within connect_timeout", "; last error: ");
	assert_int_equal(end, -ECONNRESET);
	assert_true(told);
	assert_true(T->now - began > 250 * TD_MS);
	gateway_up();
	talk(a, 0); /* the old one has lost nothing */
	close(a);
	close(b);
}

/* A session of another tunnel to the target has lost its link and has it again; now the agent is away. */
static int lost_and_back_without_agent(const char *policy, const char *timeout)
{
	char before[200];
	snprintf(before, sizeof(before), "[tunnel other]\nlisten = 127.0.0.1:0\nhost = 127.0.0.1\n");
	snprintf(before + strlen(before), sizeof(before) - strlen(before), "connect_timeout = %s\n", timeout);
	char with[100];
	snprintf(with, sizeof(with), "%s\nconnect_timeout = %s", policy, timeout);
	tunnel_up(before, with);
	int a = served(0);
	gateway_gone();
	until_(tunnel_is(0, "resuming") && !td_agent_connected(W.a));
	gateway_up();
	until_(tunnel_is(0, "up") && instance_there());
	td_agent_free(W.a);
	W.a = NULL;
	until_(!instance_there());
	return a;
}

static void a_target_that_was_lost_is_waited_for(void **state)
{
	for (size_t i = 0; i < TNL_COUNT(policies); i++) {
		int a = lost_and_back_without_agent(policies[i], "30s"), t = W.targets;
		char c;
		log_begin();
		int b = connect_to(port_of(1));
		assert_true(log_comes("StartSession will be tried again", "TargetNotConnected"));
		assert_int_equal(hear(b, &c, 1, 0), -EAGAIN);
		agent_up();
		talk(b, t);
		assert_int_equal(of_tunnel(1, "failed"), 0);
		close(a);
		close(b);
		forwarder_gone();
	}
}

static void it_is_waited_for_no_longer_than_connect_timeout(void **state)
{
	for (size_t i = 0; i < TNL_COUNT(policies); i++) {
		int a = lost_and_back_without_agent(policies[i], "1s");
		log_begin();
		uint64_t began = T->now;
		int b = connect_to(port_of(1));
		int end = end_of(b, 8000);
		bool waited = log_has("StartSession will be tried again", "TargetNotConnected");
		assert_int_equal(end, -ECONNRESET);
		assert_true(waited);
		assert_true(T->now - began < 4 * TD_SEC);
		close(b);
		until_(strcmp(loads(1), "") == 0); /* nobody needs a session any more */
		/* What was lost is older than that by now, and an answer is an answer. */
		log_begin();
		b = connect_to(port_of(1));
		end = end_of(b, 8000);
		waited = log_shows("StartSession will be tried again", "");
		bool told = log_has("connection reset", "TargetNotConnected");
		assert_int_equal(end, -ECONNRESET);
		assert_false(waited);
		assert_true(told);
		close(a);
		close(b);
		forwarder_gone();
		agent_up();
	}
}

static void a_session_that_is_gone_is_replaced_for_those_who_wait(void **state)
{
	char path[128];
	forwarder_up(ONE);
	int a = served(0);
	gateway_gone();
	for_ms(20);
	int b = connect_to(port_of(0));
	snprintf(path, sizeof(path), "%s/sessions.db", W.dir);
	assert_int_equal(unlink(path), 0);
	gateway_up();
	assert_int_equal(end_of(a, 8000), -ECONNRESET);
	talk(b, 1);
	assert_string_equal(loads(0), "1");
	close(a);
	close(b);
}

static void open_at_start_comes_back_by_itself(void **state)
{
	char path[128];
	forwarder_up(ONE "open = start\n");
	until_(gateway_sessions() == 1);
	gateway_gone();
	snprintf(path, sizeof(path), "%s/sessions.db", W.dir);
	assert_int_equal(unlink(path), 0);
	gateway_up();
	until_(gateway_sessions() == 1);
	forwarder_gone();
	gateway_gone();
	forwarder_up(ONE "open = start\n"); /* and is tried again when the first does not come */
	for_ms(100);
	gateway_back();
	until_(strcmp(loads(0), "0") == 0);
	close(served(0));
}

/* --- the end ------------------------------------------------------------------------------------ */

static void drain_with_nothing_to_do_is_quick(void **state)
{
	for (int gateway = 0; gateway < 3; gateway++) { /* there, gone, gone before anything began */
		W.done = 0;
		forwarder_up(ONE);
		if (gateway < 2) {
			int fd = served(0);
			close_both(fd, W.targets - 1);
		}
		for_ms(50);
		if (gateway)
			gateway_gone();
		td_loop_update(T);
		uint64_t began = T->now;
		td_forwarder_drain(W.f, 20 * TD_SEC, is_done, NULL);
		until_in(W.done == 1, 1950);
		assert_true(T->now - began < 1950 * TD_MS);
		forwarder_gone();
		if (gateway) {
			gateway_back();
		} else {
			until_(gateway_sessions() == 0);
			assert_false(file_there("sessions"));
		}
		if (gateway == 1)
			assert_true(file_there("sessions")); /* for the next start */
	}
}

static void drain_lets_connections_finish(void **state)
{
	forwarder_up(ONE);
	uint16_t port = port_of(0);
	int a = served(0);
	td_forwarder_drain(W.f, 20 * TD_SEC, is_done, NULL);
	assert_int_equal(connect_to(port), -1);
	for_ms(100);
	talk(a, 0);
	assert_int_equal(W.done, 0);
	close_both(a, 0);
	until_in(W.done == 1, 2000);
	assert_int_equal(gateway_sessions(), 0);
}

static void drain_is_cut_at_its_deadline_or_by_a_second_call(void **state)
{
	for (int twice = 0; twice < 2; twice++) {
		W.done = 0;
		forwarder_up(ONE);
		int a = served(0);
		td_forwarder_drain(W.f, twice ? 20 * TD_SEC : 200 * TD_MS, is_done, NULL);
		if (twice)
			td_forwarder_drain(W.f, 0, is_done, NULL);
		assert_int_equal(end_of(a, 2000), -ECONNRESET);
		until_in(W.done == 1, 2000);
		close(a);
		forwarder_gone();
		until_(gateway_sessions() == 0);
	}
}

/* StartSession is under way when the end comes: what it grants is ended all the same. */
static void a_session_that_is_granted_too_late_is_ended(void **state)
{
	forwarder_up(ONE);
	int a = connect_to(port_of(0));
	until_(gateway_sessions() == 1); /* there it is begun, and the answer is on its way */
	assert_false(file_there("sessions"));
	td_forwarder_drain(W.f, 0, is_done, NULL);
	until_in(W.done == 1, 2000);
	assert_int_equal(end_of(a, 2000), -ECONNRESET);
	close(a);
	forwarder_gone();
	for_ms(100);
	assert_int_equal(gateway_sessions(), 0);
}

static void a_crash_leaves_a_ledger_that_the_next_start_sweeps(void **state)
{
	forwarder_up(ONE);
	int a = served(0);
	for_ms(20);
	forwarder_gone(); /* without a word, as a crash does */
	assert_int_equal(end_of(a, 2000), -ECONNRESET);
	close(a);
	assert_true(file_there("sessions"));
	assert_int_equal(gateway_sessions(), 1);
	forwarder_up("[tunnel another]\nlisten = 127.0.0.1:0\n");
	until_(gateway_sessions() == 0);
	until_(!file_there("sessions"));
}

static void freed_with_everything_under_way(void **state)
{
	forwarder_up(ONE "session = per-connection\n[tunnel two]\nlisten = 127.0.0.1:0\nsession = pool 3\n");
	int a = served(0), b = served(1), c = connect_to(port_of(0)), d = connect_to(port_of(1));
	close_both(a, 0);
	until_(strcmp(loads(0), "1") != 0);
	td_forwarder_drain(W.f, 20 * TD_SEC, is_done, NULL);
	for_ms(2);
	forwarder_gone();
	td_loop_clocks(T, T->now, T->now + 1000 * TD_SEC); /* the machine has slept: the agent alone hears of it */
	for_ms(300);					   /* answers that come now find nobody */
	assert_int_equal(end_of(c, 100), -ECONNRESET);
	assert_int_equal(end_of(d, 100), -ECONNRESET);
	close(b);
	close(c);
	close(d);
}

/* The tunnel is off the configuration and its last connection has ended: only the session is left, on its way out. */
static void freed_while_the_session_of_a_closed_tunnel_ends(void **state)
{
	bool over = false;
	for (int turns = 0; !over; turns++) { /* each time one turn later, until it has ended */
		long left = gateway_sessions();
		forwarder_up(ONE "[tunnel two]\nlisten = 127.0.0.1:0\nhost = 127.0.0.1\n");
		int a = served(1);
		assert_int_equal(reload(ONE), 0);
		close_both(a, 0);
		t_turns(turns);
		over = of_tunnel(1, "connections") == -1 && gateway_sessions() == left;
		forwarder_gone();
		W.targets = 0;
		assert_in_range(turns, 0, 200);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(an_unreachable_gateway_resets_at_once),
	    TEST(a_target_that_is_not_there_resets_at_once),
	    TEST(a_gateway_that_breaks_once_is_tried_again),
	    TEST(tunnels_alike_share_one_session),
	    TEST(per_connection_each_has_its_own_and_ends_with_it),
	    TEST(a_pool_grows_while_busy_and_places_on_the_least_loaded),
	    TEST(beyond_max_connections_they_wait_in_the_backlog),
	    TEST(full_memory_stops_accepting),
	    TEST(memory_that_is_full_when_max_connections_no_longer_counts),
	    TEST(connections_wait_while_a_session_resumes),
	    TEST(they_wait_no_longer_than_connect_timeout),
	    TEST(a_target_that_was_lost_is_waited_for),
	    TEST(it_is_waited_for_no_longer_than_connect_timeout),
	    TEST(a_session_that_is_gone_is_replaced_for_those_who_wait),
	    TEST(open_at_start_comes_back_by_itself),
	    TEST(drain_with_nothing_to_do_is_quick),
	    TEST(drain_lets_connections_finish),
	    TEST(drain_is_cut_at_its_deadline_or_by_a_second_call),
	    TEST(a_session_that_is_granted_too_late_is_ended),
	    TEST(a_crash_leaves_a_ledger_that_the_next_start_sweeps),
	    TEST(freed_with_everything_under_way),
	    TEST(freed_while_the_session_of_a_closed_tunnel_ends),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
