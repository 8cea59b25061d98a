/* Pumps and pipes on a real loop: bytes, ends, resets, lost links, memory, and owners that free things in callbacks. */
#include "tests/daemon/pump/pump_util.h"
#include "tunneld/base/fd.h"

#include <linux/tcp.h>
#include <poll.h>

static void bytes_both_ways_through_tiny_buffers(void **state)
{
	W.tiny = true;
	pumps_up();
	int fd = open_stream();
	struct flow f[2] = {{fd, W.target, 700000, 0, 0, 0}, {W.target, fd, 700000, 0, 0, 0}};
	flow_all(f, 2);
	close(fd);
	assert_int_equal(end_of(W.target), 0);
}

static void each_direction_ends_on_its_own(void **state)
{
	for (int target_first = 0; target_first < 2; target_first++) {
		if (!W.c.pump)
			pumps_up();
		int fd = open_stream(), closed = W.c.pipes_closed;
		int one = target_first ? W.target : fd, two = target_first ? fd : W.target;
		struct flow a = {one, two, 50000, 0, 0, 0}, b = {two, one, 300000, 0, 0, 0};
		flow_all(&a, 1);
		shutdown(one, SHUT_WR);
		assert_int_equal(end_of(two), 0);
		flow_all(&b, 1); /* the other goes on */
		assert_false(b.ended);
		assert_int_equal(W.c.pipes_closed, closed);
		shutdown(two, SHUT_WR);
		assert_int_equal(end_of(one), 0);
		until_(W.c.pipes_closed == closed + 1 && W.a.pipes_closed == closed + 1);
		assert_int_equal(W.c.reason, UINT32_MAX);
		assert_int_equal(W.a.reason, UINT32_MAX);
		close(fd);
		close(W.target);
		W.target = -1;
	}
	assert_int_equal(W.c.in, 350000);
	assert_int_equal(W.c.out, 350000);
	assert_int_equal(W.c.drained, 2);
}

/* What is left of the flows, all but what a burst and the slices of a moment may be, takes that long. */
static void takes_its_time(struct flow *f, int n, uint64_t rate)
{
	uint64_t left = 0;
	td_loop_update(T);
	uint64_t began = T->now;
	for (int i = 0; i < n; i++)
		left +=
		    f[i].total - f[i].sent; /* what has been sent may wait in a buffer that is no part of the pace */
	flow_all(f, n);
	assert_true((T->now - began) * rate / TD_SEC + rate / 10 + 65536 >= left);
}

/* Two connections at one pace: every byte arrives, no sooner than that; a third goes away while it waits. */
static void a_pace_holds_for_all_who_share_it(void **state)
{
	enum { RATE = 1000000, EACH = 300000 };
	struct td_pace *pace = td_pace_new(T, RATE);
	int ours, fds[3], targets[3], err = 0;

	pumps_up();
	for (int i = 0; i < 3; i++) {
		int before = W.opened;
		tcp_pair(&ours, &fds[i], false);
		td_pipe_pace(td_pipe_client(W.c.pump, ours, NULL, &err), pace);
		until_(W.opened > before);
		targets[i] = W.target;
	}
	W.target = -1;
	struct flow out[] = {{fds[0], targets[0], EACH, 0, 0, 0},
			     {fds[1], targets[1], EACH, 0, 0, 0},
			     {fds[2], targets[2], 1 << 30, 0, 0, 0}};
	struct flow in[] = {{targets[0], fds[0], EACH, 0, 0, 0},
			    {targets[1], fds[1], EACH, 0, 0, 0},
			    {targets[2], fds[2], 1 << 30, 0, 0, 0}};
	while (out[2].got < 20000 || in[2].got < 20000)
		step(out, 3), step(in, 3);
	td_fd_rst_close(fds[2]);
	close(targets[2]);
	takes_its_time(out, 2, RATE);
	takes_its_time(in, 2, RATE);
	out[0].total = in[0].total = 1 << 30; /* both ways wait for their turn when all goes away */
	for (uint64_t till = T->now + 100 * TD_MS; T->now < till;)
		step(out, 1), step(in, 1);
	give_up(&W.c);
	for (uint64_t till = T->now + 100 * TD_MS; T->now < till; usleep(1000))
		t_turns(1);
	td_pace_free(pace);
	for (int i = 0; i < 2; i++) {
		close(fds[i]);
		close(targets[i]);
	}
}

/* What leads is longer than a message, and the program has sent all and hung up before any of it can go. */
static void what_leads_goes_first(void **state)
{
	static uint8_t lead[40000];
	int ours, theirs, err = 0;
	uint8_t got[8192];

	memset(lead, 0xee, sizeof(lead));
	pumps_up();
	tcp_pair(&ours, &theirs, false);
	assert_int_equal(write(theirs, "last", 4), 4);
	shutdown(theirs, SHUT_WR);
	struct td_pipe *p = td_pipe_client(W.c.pump, ours, NULL, &err);
	assert_non_null(p);
	assert_int_equal(td_pipe_lead(p, lead, sizeof(lead)), 0);
	until_(W.opened == 1);
	for (size_t at = 0; at < sizeof(lead) + 4;) {
		ssize_t n = read(W.target, got, sizeof(got));
		for (ssize_t i = 0; i < n; i++, at++)
			assert_int_equal(got[i], at < sizeof(lead) ? 0xee : "last"[at - sizeof(lead)]);
		t_turns(1);
	}
	assert_int_equal(end_of(W.target), 0);
	close(W.target);
	W.target = -1;
	close(theirs);
	until_(W.c.pipes_closed == 1);
	assert_int_equal(W.c.in, 4);
}

/* The program says nothing: what leads goes all the same. */
static void what_leads_waits_for_nobody(void **state)
{
	int ours, theirs, err = 0;
	static uint8_t lead[40000];
	struct flow f = {-1, -1, sizeof(lead), 0, 0, 0};

	for (size_t i = 0; i < sizeof(lead); i++)
		lead[i] = pattern(i);
	pumps_up();
	tcp_pair(&ours, &theirs, false);
	assert_int_equal(td_pipe_lead(td_pipe_client(W.c.pump, ours, NULL, &err), lead, sizeof(lead)), 0);
	until_(W.opened == 1);
	f.to = W.target;
	flow_all(&f, 1);
	close(theirs);
}

static void a_reset_crosses_as_a_reset(void **state)
{
	pumps_up();
	int fd = open_stream();
	td_fd_rst_close(fd);
	assert_int_equal(end_of(W.target), ECONNRESET);
	until_(W.c.pipes_closed == 1 && W.a.pipes_closed == 1);
	assert_int_equal(W.a.reason, TNL_RESET_PEER);
	close(W.target);
	fd = open_stream();
	td_fd_rst_close(W.target);
	W.target = -1;
	assert_int_equal(end_of(fd), ECONNRESET);
	assert_int_equal(W.c.reason, TNL_RESET_PEER);
	close(fd);
}

static void nothing_is_lost_with_the_link(void **state)
{
	W.reconnect = true;
	pumps_up();
	int fd = open_stream();
	struct flow f[2] = {{fd, W.target, 2000000, 0, 0, 0}, {W.target, fd, 2000000, 0, 0, 0}};
	for (int cut = 1; cut <= 6; cut++) {
		while (f[0].got < (uint64_t)cut * 280000 || f[1].got < (uint64_t)cut * 280000)
			step(f, 2);
		int links = W.links;
		if (cut & 1) { /* noticed by the client at once, or by both through a broken connection */
			td_pump_detach(W.c.pump);
			link_up();
		} else {
			td_pump_detach(W.a.pump);
		}
		while (W.links == links)
			step(f, 2);
	}
	flow_all(f, 2);
	assert_true(W.c.lost >= 3);
	assert_int_equal(W.c.pipes_closed, 0);
	close(fd);
}

static void the_end_of_a_session_resets_its_streams_first(void **state)
{
	pumps_up();
	int one = open_stream(), t1 = W.target, two = open_stream();
	tnl_session_abort(td_pump_session(W.c.pump), TNL_ECLOSED, "gone", T->now);
	td_pump_kick(W.c.pump);
	assert_true(t_until(&W.c.closed, 5000));
	assert_int_equal(W.c.pipes_closed, 2);
	assert_int_equal(W.c.reason, TNL_RESET_SESSION);
	assert_string_equal(W.c.text, "gone");
	assert_int_equal(end_of(one), ECONNRESET);
	assert_int_equal(end_of(two), ECONNRESET);
	int ours, theirs, err = 0;
	tcp_pair(&ours, &theirs, false);
	assert_null(td_pipe_client(W.c.pump, ours, NULL, &err));
	assert_int_equal(err, TNL_ECLOSED);
	close(ours);
	close(theirs);
	close(one);
	close(two);
	close(t1);
}

static void owners_free_the_pump_in_its_callbacks(void **state)
{
	pumps_up();
	W.c.free_in_pipe_closed = W.a.free_in_open = true;
	int one = open_stream(), ours, two, err = 0;
	assert_null(W.a.pump);
	tcp_pair(&ours, &two, false);
	assert_non_null(td_pipe_client(W.c.pump, ours, NULL, &err));
	tnl_session_abort(td_pump_session(W.c.pump), TNL_ECLOSED, "", T->now);
	td_pump_kick(W.c.pump);
	until_(W.c.pump == NULL);
	assert_int_equal(W.c.pipes_closed, 1); /* freed: nobody is told of the second */
	assert_int_equal(W.c.closed, 0);
	assert_int_equal(end_of(one), ECONNRESET);
	assert_int_equal(end_of(two), ECONNRESET);
	close(one);
	close(two);
}

static void owner_frees_the_pump_when_told_of_the_end(void **state)
{
	pumps_up();
	W.c.free_in_closed = true;
	int fd = open_stream();
	tnl_session_abort(td_pump_session(W.c.pump), TNL_ESYNTAX, "x", T->now);
	td_pump_kick(W.c.pump);
	until_(W.c.pump == NULL);
	assert_int_equal(end_of(fd), ECONNRESET);
	close(fd);
}

static void a_program_that_gives_up_cancels_the_dial(void **state)
{
	W.hold = true;
	pumps_up();
	td_fd_rst_close(open_stream());
	until_(W.a.cancelled == 1);
	assert_null(W.held);
}

/* The cancellation is on its way when the dial is done, or fails. */
static void a_dial_that_ends_while_its_cancellation_is_queued(void **state)
{
	int ours, theirs;
	W.hold = true;
	for (int refuse = 0; refuse < 2; refuse++) {
		memset(&W.c, 0, sizeof(W.c));
		memset(&W.a, 0, sizeof(W.a));
		pumps_up();
		int fd = open_stream();
		tnl_session_abort(td_pump_session(W.a.pump), TNL_ECLOSED, "", T->now);
		td_pump_kick(W.a.pump);
		if (refuse) {
			td_pump_refuse(W.a.pump, W.held, TNL_RESET_CONNECT, "no way");
		} else {
			tcp_pair(&ours, &theirs, false);
			assert_non_null(td_pipe_agent(W.a.pump, W.held, ours, NULL));
		}
		assert_true(t_until(&W.a.closed, 5000));
		t_turns(5);
		assert_int_equal(W.a.cancelled, 0);
		assert_int_equal(W.a.pipes_closed, !refuse);
		if (!refuse) {
			assert_int_equal(end_of(theirs), ECONNRESET);
			close(theirs);
		}
		close(fd);
		give_up(&W.a);
		give_up(&W.c);
		t_turns(5);
	}
}

static void bytes_and_end_that_came_before_the_dial_was_done(void **state)
{
	int ours, theirs;
	W.hold = true;
	pumps_up();
	int fd = open_stream();
	struct flow f = {fd, -1, 5000, 0, 0, 0};
	while (f.sent < f.total)
		step(&f, 1);
	shutdown(fd, SHUT_WR);
	for (int i = 0; i < 20; i++)
		t_turns(1), usleep(500);
	tcp_pair(&ours, &theirs, false);
	assert_non_null(td_pipe_agent(W.a.pump, W.held, ours, NULL));
	f.to = theirs;
	f.from = -1;
	while (!f.ended)
		step(&f, 1);
	assert_int_equal(f.got, 5000);
	close(theirs);
	close(fd);
}

/* --- descriptors that are somebody else's ---------------------------------------------- */

static void blocking_output_without_a_reader_stops_only_itself(void **state)
{
	int in[2], out[2], err = 0;
	pumps_up();
	assert_int_equal(pipe(in) | pipe(out), 0);
	assert_non_null(td_pipe_fds(W.c.pump, in[0], out[1], -1, NULL, &err));
	assert_true(t_until(&W.opened, 5000));
	struct flow f = {W.target, -1, 1000000, 0, 0, 0};
	for (int i = 0; i < 300; i++)
		step(&f, 1); /* an alarm ends us if a write blocks */
	int other = open_stream();
	struct flow g = {W.target, other, 1000, 0, 0, 0};
	flow_all(&g, 1);
	fcntl(out[0], F_SETFL, O_NONBLOCK);
	f.to = out[0];
	flow_all(&f, 1);
	assert_int_equal(fcntl(out[1], F_GETFL) & O_NONBLOCK, 0);
	close(f.from);
	close(W.target);
	W.target = -1;
	close(other);
	close(in[1]);
	until_(W.c.pipes_closed == 2);
	close(in[0]);
	close(out[0]);
	close(out[1]);
}

static void whoever_reads_the_output_sees_its_end(void **state)
{
	int in[2], out[2], err = 0;
	char b[8];
	pumps_up();
	assert_int_equal(pipe(in) | pipe(out), 0);
	int flags = fcntl(out[1], F_GETFL), keep = dup(out[1]);
	fcntl(out[1], F_SETFL, flags | O_NONBLOCK);
	struct td_pipe *p = td_pipe_fds(W.c.pump, in[0], out[1], -1, NULL, &err);
	td_pipe_end_sink(p, flags);
	assert_true(t_until(&W.opened, 5000));
	assert_int_equal(write(W.target, "bye", 3), 3);
	shutdown(W.target, SHUT_WR);
	until_((fcntl(keep, F_GETFL) & O_NONBLOCK) == 0);
	close(keep);
	assert_int_equal(read(out[0], b, sizeof(b)), 3);
	assert_int_equal(read(out[0], b, sizeof(b)), 0);
	assert_int_equal(write(in[1], "last", 4), 4); /* the other direction is still there */
	close(in[1]);
	until_(W.c.pipes_closed == 1);
	assert_int_equal(W.c.reason, UINT32_MAX);
	close(in[0]);
	close(out[0]);
	close(out[1]);
}

static void output_whose_reader_has_gone_is_a_reset(void **state)
{
	int in[2], out[2], err = 0;
	pumps_up();
	assert_int_equal(pipe(in) | pipe(out), 0);
	td_pipe_fds(W.c.pump, in[0], out[1], -1, NULL, &err);
	assert_true(t_until(&W.opened, 5000));
	close(out[0]);
	assert_int_equal(write(W.target, "x", 1), 1);
	until_(W.c.pipes_closed == 1);
	assert_int_equal(W.c.reason, TNL_RESET_PEER);
	assert_int_equal(end_of(W.target), ECONNRESET);
	close(in[0]);
	close(in[1]);
	close(out[1]);
}

/* --- a command's two outputs ----------------------------------------------------------------- */

static void a_slow_reader_of_errors_gets_them_all(void **state)
{
	int out[2], err_src[2], got_out[2], got_err[2], in[2], err = 0;
	W.type = "NonInteractiveCommands";
	W.hold = true;
	pumps_up();
	assert_int_equal(pipe(out) | pipe2(err_src, O_NONBLOCK) | pipe2(got_out, O_NONBLOCK) |
			     pipe2(got_err, O_NONBLOCK) | pipe(in),
			 0);
	fcntl(out[0], F_SETFL, O_NONBLOCK);
	assert_non_null(td_pipe_fds(W.c.pump, in[0], got_out[1], got_err[1], NULL, &err));
	assert_true(t_until(&W.opened, 5000));
	struct td_pipe *p = td_pipe_agent_pair(W.a.pump, W.held, out[0], open("/dev/null", O_WRONLY), NULL);
	assert_non_null(p);
	td_pipe_add_stderr(p, err_src[0]);
	struct flow f = {err_src[1], -1, 3000000, 0, 0, 0};
	for (int i = 0; i < 1500; i++)
		step(&f, 1);
	assert_true(f.sent < f.total); /* it has stopped, and waits without turning */
	int turns = 0;
	uint64_t until = T->now + 100 * TD_MS;
	bool late;
	for (struct td_timer t; T->now < until; turns++) {
		td_timer_init(&t, T, t_expired, &late);
		td_timer_in(&t, 20 * TD_MS);
		ev_run(T->ev, EVRUN_ONCE);
		td_timer_stop(&t);
	}
	assert_true(turns < 200);
	f.to = got_err[0];
	flow_all(&f, 1);
	close(err_src[1]);
	close(out[1]);
	until_(W.a.drained == 1);
	tnl_session_send_exit_code(td_pump_session(W.a.pump), 7, T->now);
	td_pump_kick(W.a.pump);
	until_(W.exit_code == 7);
	td_pump_free(W.c.pump);
	W.c.pump = NULL;
	int all[] = {in[0], in[1], got_out[0], got_out[1], got_err[0], got_err[1]};
	for (int i = 0; i < 6; i++)
		close(all[i]);
}

/* --- a terminal ------------------------------------------------------------------------------- */

/* Or a program that is started by what was typed after a resize finds the old size. */
static void a_size_is_told_before_the_input_that_follows_it(void **state)
{
	for (int early = 0; early < 2; early++) { /* before and after the shell is there */
		int in[2], out[2], shell[2], sink[2], err = 0;
		char b[8];
		W.type = "Standard_Stream";
		W.hold = true;
		pumps_up();
		assert_int_equal(pipe(in) | pipe(out) | pipe2(shell, O_NONBLOCK) | pipe2(sink, O_NONBLOCK), 0);
		W.sink = sink[0];
		W.sizes = W.unread = 0;
		assert_non_null(td_pipe_fds(W.c.pump, in[0], out[1], -1, NULL, &err));
		assert_true(t_until(&W.opened, 5000));
		if (!early)
			assert_non_null(td_pipe_agent_pair(W.a.pump, W.held, shell[0], sink[1], NULL));
		t_turns(20);
		tnl_session_send_size(td_pump_session(W.c.pump), 101, 33, T->now);
		assert_int_equal(write(in[1], "typed", 5), 5); /* which wakes the pump: both go at once */
		if (early) {
			until_(W.sizes == 1);
			assert_non_null(td_pipe_agent_pair(W.a.pump, W.held, shell[0], sink[1], NULL));
		}
		int n = 0;
		until_(ioctl(sink[0], FIONREAD, &n) == 0 && n == 5);
		assert_int_equal(read(sink[0], b, sizeof(b)), 5);
		assert_memory_equal(b, "typed", 5);
		assert_int_equal(W.sizes, 1);
		assert_int_equal(W.unread, 0);
		td_pump_free(W.c.pump);
		td_pump_free(W.a.pump);
		memset(&W.c, 0, sizeof(W.c));
		memset(&W.a, 0, sizeof(W.a));
		W.opened = 0;
		int all[] = {in[0], in[1], out[0], out[1], shell[1], sink[0]};
		for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
			close(all[i]);
		t_turns(5);
	}
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

/* Segments with data that went out on the connection to the gateway's port. */
static unsigned link_segments(void)
{
	struct sockaddr_in a;
	struct tcp_info ti;
	socklen_t n;
	int port = atoi(strrchr(W.url, ':') + 1);
	for (int fd = 3; fd < 1024; fd++) {
		n = sizeof(a);
		if (getpeername(fd, (struct sockaddr *)&a, &n) || ntohs(a.sin_port) != port)
			continue;
		n = sizeof(ti);
		assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &ti, &n), 0);
		return ti.tcpi_data_segs_out;
	}
	fail_msg("no connection to port %d", port);
	return 0;
}

static void send_small(int from, int to)
{
	char b[64] = "ping";
	int waiting = 0;
	assert_int_equal(write(from, b, sizeof(b)), sizeof(b));
	until_(ioctl(to, FIONREAD, &waiting) == 0 && waiting == sizeof(b));
	assert_int_equal(read(to, b, sizeof(b)), sizeof(b));
}

/* A pong comes with the ack of its ping; its own ack goes with the next ping, and not in a write of its own. */
static void acks_of_answers_wait_for_company(void **state)
{
	enum { PINGS = 200 };
	pumps_up();
	int fd = open_stream();
	unsigned before = 0, segments;
	for (int i = 0; i < PINGS + 10; i++) {
		if (i == 10)
			before = link_segments();
		send_small(fd, W.target);
		send_small(W.target, fd);
	}
	segments = link_segments() - before;
	if (segments > PINGS * 3 / 2)
		fail_msg("%u segments for %d pings", segments, PINGS);
	until_(tnl_session_drained(td_pump_session(W.a.pump))); /* nobody waits for ever */
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(bytes_both_ways_through_tiny_buffers),
	    TEST(each_direction_ends_on_its_own),
	    TEST(a_pace_holds_for_all_who_share_it),
	    TEST(what_leads_goes_first),
	    TEST(what_leads_waits_for_nobody),
	    TEST(a_reset_crosses_as_a_reset),
	    TEST(nothing_is_lost_with_the_link),
	    TEST(the_end_of_a_session_resets_its_streams_first),
	    TEST(owners_free_the_pump_in_its_callbacks),
	    TEST(acks_of_answers_wait_for_company),
	    TEST(owner_frees_the_pump_when_told_of_the_end),
	    TEST(a_program_that_gives_up_cancels_the_dial),
	    TEST(a_dial_that_ends_while_its_cancellation_is_queued),
	    TEST(bytes_and_end_that_came_before_the_dial_was_done),
	    TEST(blocking_output_without_a_reader_stops_only_itself),
	    TEST(whoever_reads_the_output_sees_its_end),
	    TEST(output_whose_reader_has_gone_is_a_reset),
	    TEST(a_slow_reader_of_errors_gets_them_all),
	    TEST(a_size_is_told_before_the_input_that_follows_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
