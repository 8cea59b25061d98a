/* Port sessions: dials, rules, one connection at a time. */
#include "tests/daemon/agent/agent_util.h"

static void denied_and_unreachable_targets(void **state)
{
	char got[8];

	agent_up("allow = 127.0.0.1:*, 169.254.0.0/16:*\nmax_streams = 2\n");
	session_up("{\"portNumber\":\"80\",\"host\":\"169.254.169.254\",\"type\":\"LocalPortForwarding\"}");
	int fd = open_stream();
	assert_true(t_until(&C.pipes_closed, 5000));
	assert_int_equal(C.reason, TNL_RESET_DENIED);
	assert_true(read_some(fd, got, sizeof(got)) <= 0);
	assert_int_equal(counter("denied"), 1);
	assert_int_equal(counter("connections"), 0);
	assert_int_equal(G.tasks, 0); /* the session goes on */
	close(fd);
}

static void a_refused_connection_resets_its_stream_only(void **state)
{
	agent_up("max_streams = 2\n");
	session_up(MUX);
	int good = open_stream();
	echo_through(good, "one");
	struct td_addr a;
	td_listener_addr(S.l, &a);
	td_listener_free(S.l);
	int bad = open_stream();
	assert_true(t_until(&C.pipes_closed, 5000));
	assert_int_equal(C.reason, TNL_RESET_CONNECT);
	echo_through(good, "two");
	char why[128];
	S.l = td_listen(T, &a, on_accept, NULL, why, sizeof(why));
	assert_non_null(S.l);
	C.pipes_closed = 0;
	int kept = S.fd;
	S.fd = -1;
	S.accepted = 0;
	int second = open_stream();
	echo_through(second, "x");
	int third = open_stream();
	assert_true(t_until(&C.pipes_closed, 5000));
	assert_int_equal(C.reason, TNL_RESET_LIMIT);
	close(kept);
	close(good);
	close(bad);
	close(second);
	close(third);
}

static void of_many_opened_at_once_those_beyond_the_limit_are_refused(void **state)
{
	enum { N = 6, LIMIT = 5 };
	int fd[N];

	agent_up("max_streams = 5\n");
	session_up(MUX);
	for (int i = 0; i < N; i++) /* they leave together, in the next turn */
		fd[i] = open_stream();
	assert_true(t_until(&C.pipes_closed, 5000));
	assert_int_equal(C.reason, TNL_RESET_LIMIT);
	for (int i = 0; i < 100 && counter("connections") < LIMIT; i++)
		t_turns(5);
	assert_int_equal(counter("connections"), LIMIT);
	assert_int_equal(C.pipes_closed, 1);
	for (int i = 0; i < N; i++)
		close(fd[i]);
}

static void single_stream_ends_with_its_connection(void **state)
{
	agent_up("");
	session_up(SINGLE);
	assert_int_equal(C.info.mode, TNL_MODE_SINGLE);
	int fd = open_stream();
	echo_through(fd, "SSH-2.0");
	shutdown(fd, SHUT_WR);
	char got[8];
	assert_int_equal(read_some(S.fd, got, sizeof(got)), 0);
	close(S.fd);
	S.fd = -1;
	wait_task(1, "s-1", "Success");
	close(fd);
}

static void single_stream_that_cannot_connect_fails(void **state)
{
	agent_up("");
	td_listener_pause(S.l, true);
	struct td_addr a = t_addr("127.0.0.1:0");
	char why[128];
	td_listener_free(S.l);
	start_session("s-1", "Port", SINGLE);
	wait_task(1, "s-1", "Failed");
	assert_non_null(strstr(G.task_output[0], "cannot connect to localhost port"));
	S.l = td_listen(T, &a, on_accept, NULL, why, sizeof(why));
	assert_non_null(S.l);
}

/* Its version decides alone: what it sends is raw, so the target sees the very bytes that our client's mux makes. */
static void an_old_client_gets_basic_mode(void **state)
{
	static const uint8_t smux_syn[8] = {1, 0, 0, 0, 3, 0, 0, 0};
	char got[64];

	C.version = "1.1.23.0";
	agent_up("");
	session_up(MUX);
	int fd = open_stream();
	assert_true(t_until(&S.accepted, 5000));
	assert_true(read_some(S.fd, got, sizeof(got)) >= 8);
	assert_memory_equal(got, smux_syn, 8);
	close(fd);
	/* A failed dial ends it: there is no stream id to answer on. */
	struct td_addr a;
	td_listener_addr(S.l, &a);
	td_listener_free(S.l);
	close(S.fd);
	S.fd = -1;
	tnl_session_send_flag(td_pump_session(C.pump), TNL_FLAG_DISCONNECT, T->now);
	fd = open_stream();
	wait_task(1, "s-1", "Failed");
	assert_non_null(strstr(G.task_output[0], "cannot connect"));
	close(fd);
	char why[128];
	S.l = td_listen(T, &a, on_accept, NULL, why, sizeof(why));
	assert_non_null(S.l);
}

static void a_client_hears_of_what_stands_and_of_what_does_not(void **state)
{
	agent_up("");
	session_up(MUX);
	int fd = open_kind(TNL_KIND_TOLD);
	assert_true(t_until(&C.connected, 5000));
	assert_int_equal(S.accepted, 1);
	echo_through(fd, "as any other");
	close(fd);
	close(S.fd);
	S.fd = -1;
	assert_true(t_until(&C.pipes_closed, 5000));
	C.pipes_closed = C.connected = 0;
	struct td_addr a;
	td_listener_addr(S.l, &a);
	td_listener_free(S.l);
	fd = open_kind(TNL_KIND_TOLD);
	assert_true(t_until(&C.pipes_closed, 5000));
	assert_int_equal(C.reason, TNL_RESET_CONNECT);
	assert_int_equal(C.connected, 0);
	close(fd);
	char why[128];
	S.l = td_listen(T, &a, on_accept, NULL, why, sizeof(why));
	assert_non_null(S.l);
}

static void an_echo_dials_nobody(void **state)
{
	static uint8_t out[300000], in[sizeof(out)];
	size_t sent = 0, got = 0;
	agent_up("allow = 192.0.2.1:*\n");
	session_up(MUX);
	int fd = open_kind(TNL_KIND_ECHO);
	assert_true(t_until(&C.connected, 5000));
	for (size_t i = 0; i < sizeof(out); i++)
		out[i] = (uint8_t)(i * 7 + i / 256);
	for (int i = 0; got < sizeof(in) && i < 100000; i++) {
		ssize_t w = sent < sizeof(out) ? write(fd, out + sent, sizeof(out) - sent) : 0;
		sent += w > 0 ? (size_t)w : 0;
		ssize_t r = read(fd, in + got, sizeof(in) - got);
		got += r > 0 ? (size_t)r : 0;
		t_turns(1);
	}
	assert_memory_equal(in, out, sizeof(out));
	shutdown(fd, SHUT_WR); /* it ends when its client does, and all has come back */
	assert_int_equal(read_some(fd, (char *)in, sizeof(in)), 0);
	assert_true(t_until(&C.pipes_closed, 5000));
	assert_int_equal(C.reason, UINT32_MAX);
	assert_int_equal(S.accepted, 0);
	assert_int_equal(counter("connections"), 0);
	close(fd);
}

static int open_stream_to(enum tnl_head_kind kind, const char *name, uint16_t port)
{
	struct tnl_head to;
	int pair[2], err = 0;

	assert_int_equal(tnl_head_set(&to, kind, name, port), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	assert_non_null(td_pipe_client_to(C.pump, pair[0], &to, NULL, NULL, &err));
	return pair[1];
}

/* What the session says to a stream without a destination. */
static int open_stream_to_nowhere(void)
{
	int err = 0;
	assert_null(td_pipe_client(C.pump, -1, NULL, &err));
	return err;
}

static void expect_refusal(int fd, uint32_t reason)
{
	char got[8];
	assert_true(t_until(&C.pipes_closed, 5000));
	assert_int_equal(C.reason, reason);
	assert_true(read_some(fd, got, sizeof(got)) <= 0);
	C.pipes_closed = 0;
	close(fd);
}

#define ELSEWHERE "{\"portNumber\":\"1\",\"host\":\"localhost\",\"type\":\"LocalPortForwarding\"}"

/* The agent's rules decide for each stream; the session's own host and port, where nobody listens, do not matter. */
static void streams_say_where_they_go(void **state)
{
	C.may_dial = true;
	agent_up("allow = 127.0.0.1:*\n");
	session_up(ELSEWHERE);
	assert_int_equal(C.info.dial, TNL_DIAL_VERSION);
	int fd = open_stream_to(TNL_HEAD_TCP, "127.0.0.1", S.port);
	echo_through(fd, "there");
	expect_refusal(open_stream_to(TNL_HEAD_TCP, "169.254.169.254", 80), TNL_RESET_DENIED);
	expect_refusal(open_stream_to(TNL_HEAD_TCP, "10.0.0.1", 80), TNL_RESET_DENIED);
	expect_refusal(open_stream_to(TNL_HEAD_TCP, "127.0.0.1", 1), TNL_RESET_CONNECT);
	expect_refusal(open_stream_to(TNL_HEAD_TCP, "no..name", 80), TNL_RESET_NAME);
	expect_refusal(open_stream_to(TNL_HEAD_UNIX, "/run/x.sock", 0), TNL_RESET_DENIED);
	echo_through(fd, "still");
	assert_int_equal(open_stream_to_nowhere(), TNL_EINVAL);
	close(fd);
}

static void a_gateway_that_says_nothing_permits_no_destinations(void **state)
{
	agent_up("");
	session_up(MUX);
	assert_true(C.info.own_peer);
	assert_int_equal(C.info.dial, 0);
	int fd = open_stream();
	echo_through(fd, "as ever");
	close(fd);
}

static void unix_sockets_that_are_allowed(void **state)
{
	char path[128], more[256], why[128];
	struct td_addr a;

	snprintf(path, sizeof(path), "%s/service.sock", dir);
	snprintf(more, sizeof(more), "allow = unix:%s/*.sock\ndeny = unix:%s/secret*\n", dir, dir);
	td_listener_free(S.l);
	a = (struct td_addr){.un.sun_family = AF_UNIX, .len = sizeof(a.un)};
	snprintf(a.un.sun_path, sizeof(a.un.sun_path), "%.100s", path);
	S.l = td_listen(T, &a, on_accept, NULL, why, sizeof(why));
	assert_non_null(S.l);
	C.may_dial = true;
	agent_up(more);
	S.port = 1;
	session_up(ELSEWHERE);
	int fd = open_stream_to(TNL_HEAD_UNIX, path, 0);
	echo_through(fd, "GET /version");
	snprintf(path, sizeof(path), "%s/none.sock", dir);
	expect_refusal(open_stream_to(TNL_HEAD_UNIX, path, 0), TNL_RESET_CONNECT);
	snprintf(path, sizeof(path), "%s/secret.sock", dir);
	expect_refusal(open_stream_to(TNL_HEAD_UNIX, path, 0), TNL_RESET_DENIED);
	snprintf(path, sizeof(path), "%s/../x.sock", dir);
	expect_refusal(open_stream_to(TNL_HEAD_UNIX, path, 0), TNL_RESET_DENIED);
	expect_refusal(open_stream_to(TNL_HEAD_TCP, "127.0.0.1", 80), TNL_RESET_DENIED);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(denied_and_unreachable_targets),
	    TEST(a_refused_connection_resets_its_stream_only),
	    TEST(a_client_hears_of_what_stands_and_of_what_does_not),
	    TEST(an_echo_dials_nobody),
	    TEST(single_stream_ends_with_its_connection),
	    TEST(single_stream_that_cannot_connect_fails),
	    TEST(an_old_client_gets_basic_mode),
	    TEST(streams_say_where_they_go),
	    TEST(a_gateway_that_says_nothing_permits_no_destinations),
	    TEST(unix_sockets_that_are_allowed),
	    TEST(of_many_opened_at_once_those_beyond_the_limit_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
