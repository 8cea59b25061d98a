/* WebSocket frames against wslay as the other end. */
#include "tests/unit/ws_util.h"
#include "lib/num.h"
#include <wslay/wslay.h>

struct peer {
	wslay_event_context_ptr c;
	struct tnl_buf in, out;
	struct tnl_buf got;
	int messages, last_op;
	uint16_t close_code;
	const uint8_t *frag;
	size_t frag_left, frag_step;
};

static ssize_t peer_recv(wslay_event_context_ptr c, uint8_t *buf, size_t len, int flags, void *user)
{
	struct peer *p = user;
	size_t n = tnl_buf_len(&p->in);

	if (!n) {
		wslay_event_set_error(c, WSLAY_ERR_WOULDBLOCK);
		return -1;
	}
	n = TNL_MIN(n, len);
	memcpy(buf, tnl_buf_data(&p->in), n);
	tnl_buf_consume(&p->in, n);
	return (ssize_t)n;
}

static ssize_t peer_send(wslay_event_context_ptr c, const uint8_t *data, size_t len, int flags, void *user)
{
	struct peer *p = user;

	assert_int_equal(tnl_buf_put(&p->out, data, len), 0);
	return (ssize_t)len;
}

static int peer_mask(wslay_event_context_ptr c, uint8_t *buf, size_t len, void *user)
{
	tnl_random(buf, len);
	return 0;
}

static void peer_msg(wslay_event_context_ptr c, const struct wslay_event_on_msg_recv_arg *m, void *user)
{
	struct peer *p = user;

	p->messages++;
	p->last_op = m->opcode;
	p->close_code = m->status_code;
	tnl_buf_reset(&p->got);
	assert_int_equal(tnl_buf_put(&p->got, m->msg, m->msg_length), 0);
}

static ssize_t peer_fragment(wslay_event_context_ptr c, uint8_t *buf, size_t len,
			     const union wslay_event_msg_source *src, int *eof, void *user)
{
	struct peer *p = user;
	size_t n = TNL_MIN(p->frag_left, p->frag_step);

	n = TNL_MIN(n, len);
	memcpy(buf, p->frag, n);
	p->frag += n;
	p->frag_left -= n;
	*eof = p->frag_left == 0;
	return (ssize_t)n;
}

static void peer_init(struct peer *p, bool server)
{
	static const struct wslay_event_callbacks cb = {.recv_callback = peer_recv,
							.send_callback = peer_send,
							.genmask_callback = peer_mask,
							.on_msg_recv_callback = peer_msg};

	memset(p, 0, sizeof(*p));
	assert_int_equal((server ? wslay_event_context_server_init : wslay_event_context_client_init)(&p->c, &cb, p),
			 0);
	tnl_buf_init(&p->in, 1 << 21);
	tnl_buf_init(&p->out, 1 << 21);
	tnl_buf_init(&p->got, 1 << 21);
}

static void peer_fini(struct peer *p)
{
	wslay_event_context_free(p->c);
	tnl_buf_fini(&p->in);
	tnl_buf_fini(&p->out);
	tnl_buf_fini(&p->got);
}

static void to_peer(struct tnl_ws *w, struct peer *p)
{
	size_t n;
	const uint8_t *q = tnl_ws_out_peek(w, &n);

	assert_int_equal(tnl_buf_put(&p->in, q, n), 0);
	tnl_ws_out_consume(w, n);
	assert_int_equal(wslay_event_recv(p->c), 0);
}

/* Everything that the oracle wants to send, in random portions; returns the last event. */
static int from_peer(struct peer *p, struct tnl_ws *w, struct tnl_ws_event *ev, struct tnl_buf *copy)
{
	int events = 0;

	assert_int_equal(wslay_event_send(p->c), 0);
	while (tnl_buf_len(&p->out)) {
		size_t cap, n = tnl_buf_len(&p->out), k = 1 + (size_t)rand() % 3000;
		uint8_t *q = tnl_ws_in_reserve(w, &cap);
		struct tnl_ws_event e;
		int rc;

		n = TNL_MIN(n, k);
		n = TNL_MIN(n, cap);
		memcpy(q, tnl_buf_data(&p->out), n);
		tnl_buf_consume(&p->out, n);
		tnl_ws_in_commit(w, n, 0);
		while ((rc = tnl_ws_next(w, &e, 0, NULL)) == 1) {
			*ev = e;
			tnl_buf_reset(copy);
			assert_int_equal(tnl_buf_put(copy, e.data, e.len), 0);
			events++;
		}
		assert_int_equal(rc, TNL_EAGAIN);
	}
	return events;
}

/* n bytes to the oracle, back in one frame, and back in fragments. */
static void exchange(struct tnl_ws *w, struct peer *p, const uint8_t *data, size_t n, struct tnl_buf *copy)
{
	struct tnl_ws_event ev;
	struct wslay_event_msg m = {WSLAY_BINARY_FRAME, data, n};

	assert_int_equal(tnl_ws_send(w, TNL_WS_BINARY, data, n), 0);
	to_peer(w, p);
	assert_int_equal(p->last_op, WSLAY_BINARY_FRAME);
	assert_int_equal(tnl_buf_len(&p->got), n);
	assert_memory_equal(tnl_buf_data(&p->got), data, n);

	assert_int_equal(wslay_event_queue_msg(p->c, &m), 0);
	assert_int_equal(from_peer(p, w, &ev, copy), 1);
	assert_int_equal(ev.op, TNL_WS_BINARY);
	assert_int_equal(ev.len, n);
	assert_memory_equal(tnl_buf_data(copy), data, n);

	struct wslay_event_fragmented_msg fm = {.opcode = WSLAY_BINARY_FRAME, .read_callback = peer_fragment};
	p->frag = data;
	p->frag_left = n;
	p->frag_step = n / 3 + 1;
	assert_int_equal(wslay_event_queue_fragmented_msg(p->c, &fm), 0);
	assert_int_equal(from_peer(p, w, &ev, copy), 1);
	assert_int_equal(ev.op, TNL_WS_BINARY);
	assert_int_equal(tnl_buf_len(copy), n);
	assert_memory_equal(tnl_buf_data(copy), data, n);
}

/* Its ping is answered by ours, ours by it. */
static void pings(struct tnl_ws *w, struct peer *p, struct tnl_buf *copy)
{
	struct tnl_ws_event ev;
	struct wslay_event_msg ping = {WSLAY_PING, (const uint8_t *)"keepalive", 9};

	assert_int_equal(wslay_event_queue_msg(p->c, &ping), 0);
	assert_int_equal(from_peer(p, w, &ev, copy), 1);
	assert_int_equal(ev.op, TNL_WS_PING);
	to_peer(w, p);
	assert_int_equal(p->last_op, WSLAY_PONG);
	assert_memory_equal(tnl_buf_data(&p->got), "keepalive", 9);
	assert_int_equal(tnl_ws_send(w, TNL_WS_PING, "hi", 2), 0);
	to_peer(w, p);
	assert_int_equal(from_peer(p, w, &ev, copy), 1);
	assert_int_equal(ev.op, TNL_WS_PONG);
	assert_memory_equal(tnl_buf_data(copy), "hi", 2);
}

static void close_from_here(struct tnl_ws *w, struct peer *p, struct tnl_buf *copy)
{
	struct tnl_ws_event ev;

	assert_int_equal(tnl_ws_close(w, 1001, "going away"), 0);
	assert_int_equal(tnl_ws_close(w, 1001, "twice"), TNL_ECLOSED);
	to_peer(w, p);
	assert_int_equal(p->last_op, WSLAY_CONNECTION_CLOSE);
	assert_int_equal(p->close_code, 1001);
	assert_memory_equal(tnl_buf_data(&p->got) + 2, "going away", 10);
	assert_int_equal(tnl_ws_next(w, &ev, 0, NULL), TNL_EAGAIN); /* the peer's close has not come */
	assert_int_equal(from_peer(p, w, &ev, copy), 1);
	assert_int_equal(ev.op, TNL_WS_CLOSE);
	assert_int_equal(ev.close_code, 1001);
}

static void close_from_there(struct tnl_ws *w, struct peer *p, struct tnl_buf *copy)
{
	struct tnl_ws_event ev;

	assert_int_equal(wslay_event_queue_close(p->c, 1000, (const uint8_t *)"Bye", 3), 0);
	assert_int_equal(from_peer(p, w, &ev, copy), 1);
	assert_int_equal(ev.op, TNL_WS_CLOSE);
	assert_int_equal(ev.close_code, 1000);
	assert_memory_equal(tnl_buf_data(copy), "Bye", 3);
	to_peer(w, p);
	assert_int_equal(wslay_event_get_close_received(p->c), 1);
}

static void oracle_round(bool server, unsigned seed)
{
	static const size_t sizes[] = {0,    1,	   5,	  124,	 125,	126,   127,   1000,
				       1144, 4096, 16384, 65535, 65536, 70000, 262144};
	struct tnl_ws *w = ws_new(server);
	struct tnl_buf copy;
	struct peer p;
	uint8_t *data = test_malloc(262144);

	srand(seed);
	for (size_t i = 0; i < 262144; i++)
		data[i] = (uint8_t)rand();
	tnl_buf_init(&copy, 1 << 20);
	peer_init(&p, !server);
	for (size_t i = 0; i < TNL_COUNT(sizes); i++)
		exchange(w, &p, data, sizes[i], &copy);
	pings(w, &p, &copy);
	if (seed & 1)
		close_from_here(w, &p, &copy);
	else
		close_from_there(w, &p, &copy);
	assert_true(no_more_sending(w));
	peer_fini(&p);
	tnl_buf_fini(&copy);
	tnl_ws_free(w);
	test_free(data);
}

static void test_wslay_agrees(void **state)
{
	for (unsigned seed = 1; seed <= 4; seed++) {
		oracle_round(true, seed);
		oracle_round(false, seed);
	}
}

static int no_leaks(void **state)
{
	return tnl_alloc_live() == 0 ? 0 : -1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_wslay_agrees),
	};
	return cmocka_run_group_tests(tests, NULL, no_leaks);
}
