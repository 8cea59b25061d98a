/* Flows of datagrams: every size, both ways, over a cut; who floods is not held up and costs no more than the queue. */
#include "tests/daemon/pump/pump_util.h"
#include "lib/alloc.h"
#include "lib/dgram.h"
#include "lib/num.h"

enum { SEEN = 64 };

static struct end {
	struct td_flow *flow;
	struct td_pipe *pipe;
	uint64_t got, bytes, highest; /* numbers in front of them only grow */
	size_t sizes[SEEN];
} C, A;

static uint8_t room[TNL_DGRAM_MAX];

static void on_datagram(void *user, const uint8_t *p, size_t n)
{
	struct end *e = user;
	uint64_t number;
	e->sizes[e->got++ % SEEN] = n;
	e->bytes += n;
	for (size_t i = 8; i < n; i++)
		if (p[i] != (uint8_t)(p[0] + i * 13))
			fail_msg("datagram of %zu bytes: byte %zu differs", n, i);
	if (n < 8)
		return;
	memcpy(&number, p, 8);
	assert_true(number > e->highest);
	e->highest = number;
}

static void send_on(struct end *e, uint64_t number, size_t n)
{
	for (size_t i = 8; i < n; i++)
		room[i] = (uint8_t)((uint8_t)number + i * 13);
	memcpy(room, &number, 8);
	td_flow_send(e->flow, room, n);
}

static void accept_flow(size_t queue)
{
	until_(W.held);
	A.flow = td_flow_new(queue, on_datagram, &A);
	A.pipe = td_pipe_agent_flow(W.a.pump, W.held, A.flow, NULL);
	assert_non_null(A.pipe);
	W.held = NULL;
}

static void flow_up(size_t queue)
{
	int err = 0;
	memset(&C, 0, sizeof(C));
	memset(&A, 0, sizeof(A));
	W.hold = W.udp = true;
	pumps_up();
	C.flow = td_flow_new(queue, on_datagram, &C);
	send_on(&C, 1, 8); /* before there is a pipe */
	C.pipe = td_pipe_flow(W.c.pump, C.flow, NULL, &err);
	assert_non_null(C.pipe);
	send_on(&C, 2, 9);
	accept_flow(queue);
	until_(A.got == 2);
}

/* Bytes of a client's stream that is no flow. */
static void put_raw(struct tnl_stream *st, const uint8_t *bytes, size_t n)
{
	uint8_t *b = NULL;
	size_t cap;
	for (int i = 0; !b && i < 5000; i++) {
		b = tnl_stream_reserve(st, &cap, T->now);
		if (!b)
			t_turns(1), usleep(200);
	}
	assert_non_null(b);
	memcpy(b, bytes, n);
	assert_int_equal(tnl_stream_commit(st, n, TNL_PT_OUTPUT, T->now), 0);
	td_pump_kick(W.c.pump);
}

static void every_size_both_ways(void **state)
{
	static const size_t sizes[] = {0, 1, 7, 8, 1400, 1500, 16384, 0, 65506, 65507};
	enum { N = sizeof(sizes) / sizeof(sizes[0]) };
	flow_up(1 << 20);
	for (size_t i = 0; i < N; i++) {
		send_on(&C, 10 + i, sizes[i]);
		send_on(&A, 10 + i, sizes[i]);
	}
	until_(A.got == N + 2 && C.got == N);
	for (size_t i = 0; i < N; i++) {
		assert_int_equal(A.sizes[i + 2], sizes[i]);
		assert_int_equal(C.sizes[i], sizes[i]);
	}
	assert_int_equal(td_flow_dropped(C.flow) + td_flow_dropped(A.flow), 0);
	uint64_t in, out;
	td_pipe_bytes(C.pipe, &in, &out);
	assert_int_equal(out, C.bytes);
}

/* The link is away: what is new pushes out what is old, nothing blocks, and the newest arrive when it is back. */
static void the_newest_survive_a_cut(void **state)
{
	enum { QUEUE = 200000, SIZE = 1000, SENT = 5000 };
	flow_up(QUEUE);
	td_pump_detach(W.c.pump);
	size_t before = tnl_alloc_bytes(), most = 0;
	for (uint64_t i = 0; i < SENT; i++) {
		send_on(&C, 100 + i, SIZE);
		most = TNL_MAX(most, tnl_alloc_bytes());
		if (i % 100 == 0)
			t_turns(1);
	}
	assert_true(most < before + 3 * QUEUE + (2 << 20)); /* the queue, and what the session has taken */
	assert_true(td_flow_dropped(C.flow) > SENT / 2 - 2000);
	link_up();
	until_(A.highest == 100 + SENT - 1);
	assert_int_equal(A.got + td_flow_dropped(C.flow), SENT + 2);
	send_on(&A, 7, 100);
	until_(C.got == 1);
}

static void one_end_ends_both(void **state)
{
	for (int agent = 0; agent < 2; agent++) {
		int c = W.c.pipes_closed, a = W.a.pipes_closed;
		if (!agent)
			flow_up(65536);
		send_on(agent ? &A : &C, 50, 500);
		until_(agent ? C.got : A.got == 3);
		td_pipe_end_flow(agent ? A.pipe : C.pipe);
		until_(W.c.pipes_closed == c + 1 && W.a.pipes_closed == a + 1);
		assert_int_equal(W.c.reason, UINT32_MAX);
		assert_int_equal(W.a.reason, UINT32_MAX);
		if (agent)
			break;
		int err;
		memset(&C, 0, sizeof(C));
		memset(&A, 0, sizeof(A));
		C.flow = td_flow_new(65536, on_datagram, &C);
		C.pipe = td_pipe_flow(W.c.pump, C.flow, NULL, &err);
		accept_flow(65536);
	}
}

/* A peer that frames wrongly loses that stream only. */
static void what_is_no_datagram_resets_the_flow(void **state)
{
	int err;
	static const uint8_t junk[2] = {0xff, 0xff};
	flow_up(65536);
	struct tnl_stream *st = tnl_stream_open(td_pump_session(W.c.pump), NULL, T->now, &err);
	assert_true(tnl_stream_ask(st, TNL_KIND_UDP));
	td_pump_kick(W.c.pump);
	accept_flow(65536);
	put_raw(st, junk, 2);
	until_(W.a.pipes_closed == 1);
	send_on(&C, 99, 100);
	until_(A.got == 3);
	assert_int_equal(W.a.pipes_closed, 1);
}

/* Many announce long datagrams and send a byte of each: what they hold is bounded, and whole ones still go through. */
static void parts_are_bounded(void **state)
{
	enum { MANY = 200 };
	static struct tnl_stream *st[MANY];
	static struct td_flow *flows[MANY];
	static const uint8_t part[3] = {0xff, 0xe3, 1};
	int err;
	flow_up(65536);
	size_t before = tnl_alloc_bytes();
	for (int i = 0; i < MANY; i++) {
		st[i] = tnl_stream_open(td_pump_session(W.c.pump), NULL, T->now, &err);
		assert_true(tnl_stream_ask(st[i], TNL_KIND_UDP));
		td_pump_kick(W.c.pump);
		until_(W.held);
		flows[i] = td_flow_new(1000, on_datagram, &A);
		assert_non_null(td_pipe_agent_flow(W.a.pump, W.held, flows[i], NULL));
		W.held = NULL;
		put_raw(st[i], part, 3);
	}
	until_(tnl_session_drained(td_pump_session(W.c.pump)));
	assert_true(tnl_alloc_bytes() - before < 4 << 20);
	uint64_t got = A.got;
	send_on(&C, 1000, 1000);
	until_(A.got == got + 1);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(every_size_both_ways), TEST(the_newest_survive_a_cut),
	    TEST(one_end_ends_both),	TEST(what_is_no_datagram_resets_the_flow),
	    TEST(parts_are_bounded),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
