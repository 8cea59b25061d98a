/* One session: start, refusal, resume, end. */
#include "tests/daemon/agent/agent_util.h"
#include "lib/num.h"
#include "lib/steps.h"

#include <stddef.h>
#include <sys/un.h>

static void a_session_from_start_to_confirmed_end(void **state)
{
	struct tnl_open o;
	const char *fault;

	agent_up("");
	session_up(MUX);
	assert_int_equal(C.info.mode, TNL_MODE_MUX);
	assert_true(C.info.own_peer);
	assert_int_equal(tnl_open_parse(G.token_frame, strlen(G.token_frame), &o, &fault), 0);
	assert_string_equal(o.client_instance_id, ID);
	assert_string_equal(o.client_id, "");
	tnl_open_fini(&o);
	int fd = open_stream();
	echo_through(fd, "hello");
	start_session("s-1", "Port", MUX); /* said twice */
	echo_through(fd, "again");
	assert_int_equal(G.creates, 1);
	tnl_session_send_flag(td_pump_session(C.pump), TNL_FLAG_TERMINATE, T->now);
	td_pump_kick(C.pump);
	wait_task(1, "s-1", "Success");
	for_ms(1300); /* confirmed: not said again */
	assert_int_equal(G.tasks, 1);
	assert_int_equal(G.unsigned_calls, 0);
	close(fd);
}

static void what_cannot_be_served_is_refused(void **state)
{
	agent_up("max_sessions = 1\n");
	start_session("s-2", "Port", "{\"portNumber\":\"0\"}");
	wait_task(1, "s-2", "Failed");
	assert_non_null(strstr(G.task_output[0], "portNumber"));
	session_up(MUX);
	start_session("s-2", "Port", MUX);
	wait_task(2, "s-2", "Failed");
	assert_non_null(strstr(G.task_output[1], "max_sessions"));
}

static void one_user_does_not_take_all_places(void **state)
{
	char id[16];

	agent_up("max_sessions = 8\n");
	assert_true(t_until(&G.control_up, 5000));
	G.create_body = "<r/>";
	G.create_status = 500; /* they wait for their channels */
	for (int i = 1; i <= 7; i++) {
		snprintf(id, sizeof(id), "s-%d", i);
		start_session(id, "Port", MUX);
	}
	wait_task(1, "s-7", "Failed"); /* the last quarter is for others */
	assert_non_null(strstr(G.task_output[0], "fair share"));
}

static void the_data_channel_is_resumed(void **state)
{
	agent_up("");
	session_up(MUX);
	int fd = open_stream();
	echo_through(fd, "one");
	for (int i = 1; i <= 3; i++) {
		G.data_up = 0;
		td_pump_detach(C.pump);
		G.data = NULL;
		assert_int_equal(write(fd, "lost?", 5), 5);
		assert_true(t_until(&G.data_up, 5000));
		char got[16];
		assert_int_equal(read_some(S.fd, got, sizeof(got)), 5);
		echo_through(fd, "two");
	}
	assert_int_equal(G.creates, 4);
	assert_int_equal(counter("resumes"), 3);
	/* Errors on the way are tried again, the gateway's word that it is over is final. */
	G.create_status = 500;
	G.create_body = "<e>busy</e>";
	td_pump_detach(C.pump);
	G.data = NULL;
	while (G.creates < 7)
		for_ms(5);
	assert_int_equal(G.tasks, 0);
	G.create_status = 400;
	G.create_body = "<e><Message>Session is already terminated</Message></e>";
	wait_task(1, "s-1", "Success");
	int creates = G.creates;
	for_ms(200);
	assert_int_equal(G.creates, creates);
	close(fd);
}

/* Messages of a client that make no sense are counted, and shown, for their session. */
static void what_a_session_drops_is_in_its_status(void **state)
{
	static const char *const names[] = {"bad_messages",	"unknown_messages", "bad_payloads",
					    "unknown_payloads", "unknown_frames",   "early_data"};
	int64_t v;

	agent_up("");
	session_up(MUX);
	send_frame(G.data, TNL_MT_TASK_ACK, "{}", 2);
	td_wslink_send(G.data, TNL_WS_BINARY, "short", 5);
	int fd = open_stream();
	echo_through(fd, "behind them");
	struct tnl_json *j = agent_status();
	const struct tnl_json *s = tnl_json_at(tnl_json_get(j, "sessions"), 0);
	const struct tnl_json *dropped = tnl_json_get(s, "dropped");
	assert_string_equal(tnl_json_get_str(s, "id"), "s-1");
	assert_int_equal(tnl_json_len(dropped), TNL_COUNT(names));
	for (size_t i = 0; i < TNL_COUNT(names); i++) {
		assert_true(tnl_json_int(tnl_json_get(dropped, names[i]), &v));
		assert_int_equal(v, i < 2 ? 1 : 0);
	}
	tnl_json_free(j);
	close(fd);
}

enum { PORTS = 150 };

/* All are ours, and promised to us as in tests/e2e/services.py: none comes free while another test ends. */
static bool take_port(unsigned port, int fds[2])
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_un promise = {.sun_family = AF_UNIX};
	int n = snprintf(promise.sun_path + 1, sizeof(promise.sun_path) - 1, "tunneld-test-port-%u", port);
	socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);

	at.sin_port = htons((uint16_t)port);
	fds[0] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	fds[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	return bind(fds[0], (struct sockaddr *)&promise, len) == 0 &&
	       bind(fds[1], (struct sockaddr *)&at, sizeof(at)) == 0;
}

static void give_ports(int (*fds)[2], unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		close(fds[i][0]);
		close(fds[i][1]);
	}
}

/* -> the first of PORTS in a row */
static unsigned take_ports(int (*fds)[2])
{
	for (unsigned low = 10000 + (unsigned)getpid() % 100 * 200, tries = 0; tries < 100; tries++) {
		unsigned n = 0;
		while (n < PORTS && take_port(low + n, fds[n]))
			n++;
		if (n == PORTS)
			return low;
		give_ports(fds, n + 1);
		low = low + 200 < 30000 ? low + 200 : 10000;
	}
	fail_msg("no %d ports in a row are free", PORTS);
	return 0;
}

/* A client asks for any port, and all that may be bound are taken: one search, not one for each word. */
static void a_search_for_ports_is_not_repeated_at_once(void **state)
{
	enum { WORDS = 40 };
	struct tnl_reverse word = {.kind = TNL_REVERSE_LISTEN, .bind = "127.0.0.1:0", .most = 1};
	int taken[PORTS][2];
	char conf[100];
	unsigned low = take_ports(taken);

	snprintf(conf, sizeof(conf), "reverse = 127.0.0.1:%u-%u\n", low, low + PORTS - 1);
	C.may_reverse = true;
	agent_up(conf);
	session_up(MUX);
	assert_true(C.info.reverse);
	uint64_t before = tnl_steps_made;
	for (int i = 1; i <= WORDS; i++) {
		word.id = (uint16_t)i;
		td_pump_tell_reverse(C.pump, &word);
	}
	while (C.refused < WORDS)
		t_turns(1);
	assert_in_range(tnl_steps_made - before, PORTS, PORTS * 20);
	give_ports(taken, PORTS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(a_session_from_start_to_confirmed_end), TEST(what_cannot_be_served_is_refused),
	    TEST(one_user_does_not_take_all_places),	 TEST(the_data_channel_is_resumed),
	    TEST(what_a_session_drops_is_in_its_status), TEST(a_search_for_ports_is_not_repeated_at_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
