/* Streams that say where they go: agreed or not, heads that come late, whole, in pieces or not at all, and the answer.
 */
#include "tests/unit/raw_util.h"
#include "lib/session_internal.h"

static struct {
	int opens, resets, connected, data;
	struct tnl_stream *st;
	struct tnl_head head;
	uint32_t reason;
} seen;

static void on_open(void *ctx, struct tnl_stream *st)
{
	seen.opens++;
	seen.st = st;
	assert_non_null(tnl_stream_head(st));
	seen.head = *tnl_stream_head(st);
}

static void on_reset(void *ctx, struct tnl_stream *st, uint32_t reason)
{
	seen.resets++;
	seen.reason = reason;
	tnl_stream_free(st);
}

static void on_connected(void *ctx, struct tnl_stream *st)
{
	assert_int_equal(seen.data, 0);
	seen.connected++;
}

static size_t on_data(void *ctx, struct tnl_stream *st, uint32_t ptype, const uint8_t *p, size_t n)
{
	seen.data += (int)n;
	return n;
}

static const struct tnl_session_cb noting = {.on_open = on_open,
					     .on_reset = on_reset,
					     .on_connected = on_connected,
					     .on_data = on_data};

#define DIAL_CAPS                                                                                                      \
	"{\"Version\":1,\"MaxPayload\":32768,\"Smux\":2,\"HalfClose\":true,\"Digest\":true,\"Encrypt\":true,"          \
	"\"ResetWords\":true,\"Opens\":true,\"Dial\":1}"
#define DIAL_RESPONSE                                                                                                  \
	"{\"ClientVersion\":\"1.2.764.0\",\"ProcessedClientActions\":[{\"ActionType\":\"SessionType\","                \
	"\"ActionStatus\":1,\"ActionResult\":null,\"Error\":\"\"},{\"ActionType\":\"TunneldCapabilities\","            \
	"\"ActionStatus\":1,\"ActionResult\":" DIAL_CAPS ",\"Error\":\"\"}],\"Errors\":null}"

static void agent_ready(struct raw *r)
{
	struct tnl_session_config c = agent();
	memset(&seen, 0, sizeof(seen));
	c.cb = &noting;
	c.dial = TNL_DIAL_VERSION;
	raw_init(r, &c);
	raw_move(r);
	raw_text(r, TNL_PT_HANDSHAKE_RESPONSE, DIAL_RESPONSE);
	assert_int_equal(tnl_session_info(r->e.s)->dial, TNL_DIAL_VERSION);
	tnl_buf_reset(&r->out);
}

static const char head[] = "\0\5\1\0\120\1h"; /* tcp h:80 */
#define HEAD_LEN (sizeof(head) - 1)

/* The frames of one kind that the agent sent for a stream; the last one's data. */
static int frames_sent(struct raw *r, int cmd, uint32_t id, char *out, size_t cap)
{
	struct tnl_smux_frame f;
	const uint8_t *d;
	int n = 0;
	while (raw_next_frame(r, &f, &d))
		if (f.cmd == cmd && f.id == id) {
			n++;
			memcpy(out, d, TNL_MIN(cap, (size_t)f.len));
		}
	return n;
}

static void nobody_hears_before_the_head_is_whole(void **state)
{
	for (size_t cut = 0; cut < HEAD_LEN; cut++) {
		struct raw r;
		char got[64] = "";
		agent_ready(&r);
		raw_smux(&r, 2, TNL_SMUX_OPEN, 3, "\1\0\0\0", 4);
		raw_smux(&r, 2, TNL_SMUX_PSH, 3, head, cut);
		assert_int_equal(seen.opens, 0);
		char rest[64];
		memcpy(rest, head + cut, HEAD_LEN - cut);
		memcpy(rest + HEAD_LEN - cut, "data", 4);
		raw_smux(&r, 2, TNL_SMUX_PSH, 3, rest, HEAD_LEN - cut + 4);
		assert_int_equal(seen.opens, 1);
		assert_string_equal(seen.head.name, "h");
		assert_int_equal(seen.head.port, 80);
		assert_int_equal(seen.data, 0); /* it waits for the dial */
		tnl_buf_reset(&r.out);
		tnl_stream_connected(seen.st, r.now);
		raw_move(&r);
		assert_int_equal(seen.data, 4);
		assert_int_equal(frames_sent(&r, TNL_SMUX_OPEN, 3, got, sizeof(got)), 1);
		raw_fini(&r);
	}
}

static void expect_refusal(struct raw *r, uint32_t reason, const char *words)
{
	char got[160] = "";
	assert_int_equal(frames_sent(r, TNL_SMUX_RST, 3, got, sizeof(got)), 1);
	assert_int_equal(tnl_get_le32((uint8_t *)got), reason);
	assert_non_null(strstr(got + 4, words));
	assert_int_equal(seen.opens + seen.resets, 0);
	assert_int_equal(tnl_session_streams(r->e.s), 0);
	assert_int_equal(r->e.s->mux.nzombies, 0);
	assert_int_equal(tnl_session_state(r->e.s), TNL_SS_READY);
}

static void a_head_that_does_not_come(void **state)
{
	struct raw r;
	agent_ready(&r);
	raw_smux(&r, 2, TNL_SMUX_OPEN, 3, "\1\0\0\0", 4);
	raw_smux(&r, 2, TNL_SMUX_PSH, 3, head, 3);
	assert_in_range(tnl_session_deadline(r.e.s), r.now, r.now + 10 * SEC);
	raw_advance(&r, 11 * SEC);
	expect_refusal(&r, TNL_RESET_TIMEOUT, "in time");
	raw_fini(&r);
	agent_ready(&r);
	raw_smux(&r, 2, TNL_SMUX_OPEN, 3, "\1\0\0\0", 4);
	raw_smux(&r, 2, TNL_SMUX_FIN, 3, NULL, 0);
	expect_refusal(&r, TNL_RESET_UNSPEC, "ended before");
	raw_fini(&r);
	agent_ready(&r); /* the client takes it back */
	raw_smux(&r, 2, TNL_SMUX_OPEN, 3, "\1\0\0\0", 4);
	raw_smux(&r, 2, TNL_SMUX_PSH, 3, head, 3);
	raw_smux(&r, 2, TNL_SMUX_RST, 3, "\0\0\0\0", 4);
	assert_int_equal(seen.opens + seen.resets, 0);
	assert_int_equal(tnl_session_streams(r.e.s), 0);
	raw_fini(&r);
	agent_ready(&r); /* the session ends meanwhile */
	raw_smux(&r, 2, TNL_SMUX_OPEN, 3, "\1\0\0\0", 4);
	raw_smux(&r, 2, TNL_SMUX_SYN, 5, NULL, 0);
	raw_smux(&r, 2, TNL_SMUX_PSH, 5, head, 3);
	tnl_session_abort(r.e.s, TNL_ECLOSED, "", r.now);
	assert_int_equal(seen.opens + seen.resets, 0);
	raw_fini(&r);
}

static void a_head_that_is_none(void **state)
{
	static const char *const bad[] = {"\0\5\1\0\120\1 ", "\377\377", "\0\5\1\0\0\1h", "\0\5\11\0\120\1h",
					  "\0\5\0\0\120\1h"};
	static const size_t len[] = {7, 2, 7, 7, 7};
	for (size_t i = 0; i < TNL_COUNT(bad); i++) {
		struct raw r;
		agent_ready(&r);
		raw_smux(&r, 2, TNL_SMUX_OPEN, 3, "\1\0\0\0", 4);
		raw_smux(&r, 2, TNL_SMUX_PSH, 3, bad[i], len[i]);
		expect_refusal(&r, TNL_RESET_UNSPEC, "goes");
		raw_fini(&r);
	}
}

/* --- the client ------------------------------------------------------------------ */

static void client_ready(struct raw *r)
{
	struct tnl_session_config c = client();
	memset(&seen, 0, sizeof(seen));
	c.cb = &noting;
	c.dial = TNL_DIAL_VERSION;
	raw_init(r, &c);
	raw_move(r);
	raw_text(r, TNL_PT_HANDSHAKE_REQUEST,
		 "{\"AgentVersion\":\"3.3.987.0\",\"RequestedClientActions\":[{\"ActionType\":\"SessionType\","
		 "\"ActionParameters\":{\"SessionType\":\"Port\",\"Properties\":{\"type\":\"LocalPortForwarding\"}}},"
		 "{\"ActionType\":\"TunneldCapabilities\",\"ActionParameters\":" DIAL_CAPS "}]}");
	raw_text(r, TNL_PT_HANDSHAKE_COMPLETE, "{\"HandshakeTimeToComplete\":1,\"CustomerMessage\":\"\"}");
	assert_int_equal(tnl_session_info(r->e.s)->dial, TNL_DIAL_VERSION);
	tnl_buf_reset(&r->out);
}

static void the_clients_head_follows_its_syn(void **state)
{
	struct raw r;
	struct tnl_head to;
	struct tnl_smux_frame f;
	const uint8_t *d;
	int err;
	client_ready(&r);
	assert_null(tnl_stream_open(r.e.s, NULL, r.now, &err));
	assert_int_equal(err, TNL_EINVAL);
	assert_int_equal(tnl_head_set(&to, TNL_HEAD_TCP, "h", 80), 0);
	struct tnl_stream *st = tnl_stream_open_to(r.e.s, &to, NULL, r.now, &err);
	assert_non_null(st);
	raw_move(&r);
	assert_true(raw_next_frame(&r, &f, &d) && f.cmd == TNL_SMUX_OPEN);
	assert_true(raw_next_frame(&r, &f, &d) && f.cmd == TNL_SMUX_PSH && f.len == HEAD_LEN);
	assert_memory_equal(d, head, HEAD_LEN);
	assert_int_equal(seen.connected, 0);
	raw_smux(&r, 2, TNL_SMUX_OPEN, tnl_stream_id(st), "\1\0\0\0", 4);
	assert_int_equal(seen.connected, 1);
	raw_smux(&r, 2, TNL_SMUX_PSH, tnl_stream_id(st), "hello", 5);
	assert_int_equal(seen.data, 5);
	tnl_stream_free(st);
	raw_move(&r);
	raw_fini(&r);
}

static void where_it_is_not_agreed(void **state)
{
	struct tnl_head to;
	int err;
	assert_int_equal(tnl_head_set(&to, TNL_HEAD_TCP, "h", 80), 0);
	for (int who = 0; who < 3; who++) {
		struct pair p;
		struct tnl_session_config cc = client(), ac = agent();
		cc.dial = who == 1 ? 0 : TNL_DIAL_VERSION;
		ac.dial = who == 2 ? 0 : TNL_DIAL_VERSION;
		ready_pair(&p, &cc, &ac);
		assert_int_equal(tnl_session_info(p.c.s)->dial, who ? 0 : TNL_DIAL_VERSION);
		struct tnl_stream *st = tnl_stream_open_to(p.c.s, &to, NULL, p.now, &err);
		assert_int_equal(st == NULL, who != 0);
		pair_run(&p);
		assert_int_equal(p.a.nrec, who == 0);
		pair_fini(&p);
	}
	struct pair p;
	struct tnl_session_config cc = client(), ac = agent();
	cc.dial = TNL_DIAL_VERSION;
	cc.require_dial = true;
	pair_init(&p, &cc, &ac);
	pair_up(&p);
	pair_run(&p);
	assert_int_equal(p.c.closed, 1);
	assert_int_equal(p.c.err, TNL_EREFUSED);
	assert_non_null(strstr(p.c.text, "no destinations"));
	pair_fini(&p);
	assert_int_equal(tnl_alloc_live(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(nobody_hears_before_the_head_is_whole),
	    cmocka_unit_test(a_head_that_does_not_come),
	    cmocka_unit_test(a_head_that_is_none),
	    cmocka_unit_test(the_clients_head_follows_its_syn),
	    cmocka_unit_test(where_it_is_not_agreed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
