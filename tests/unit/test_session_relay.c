/* Two ends of ours that have a key, and a relay between them that has not: it may read every header, make digests and
 * acknowledgements of its own and change the handshake.  Bytes either arrive as they were sent or the session ends. */
#include "tests/unit/sess_util.h"
#include "lib/message.h"
#include "lib/session_internal.h"
#include "lib/wire.h"

enum { MESSAGES = 64, MESSAGE_MAX = 4096 };

struct relay {
	struct pair p;
	struct {
		uint8_t b[MESSAGE_MAX];
		size_t n;
		struct tnl_msg m;
	} held[MESSAGES];
	int n;
};

static struct relay R;

static void relay_up(const char *type, const char *properties)
{
	struct tnl_session_config cc = pair_config(false), ac = pair_config(true);
	memset(&R, 0, sizeof(R));
	ac.session_type = type;
	ac.properties_json = properties;
	ac.kms_key_id = "arn:key";
	cc.max_payload = ac.max_payload = 2048;
	pair_init(&R.p, &cc, &ac);
	pair_up(&R.p);
	assert_true(R.p.c.ready && R.p.a.ready);
	assert_true(tnl_session_info(R.p.c.s)->encrypted);
	assert_true(tnl_seal_is_bound(R.p.c.s->seal));
	assert_true(tnl_seal_is_bound(R.p.a.s->seal));
}

static struct rec *write_from_client(const char *text)
{
	struct rec *r = R.p.c.nrec ? &R.p.c.rec[0] : end_rec(&R.p.c, NULL);
	int err = 0;
	if (!r->st)
		r->st = tnl_stream_open(R.p.c.s, r, R.p.now, &err);
	assert_non_null(r->st);
	tnl_buf_put(&r->out, text, strlen(text));
	return r;
}

/* What the client sends now stays with the relay. */
static void hold(void)
{
	const uint8_t *p;
	size_t n;
	R.p.now += 1000;
	end_pump(&R.p.c);
	while (tnl_session_pull(R.p.c.s, R.p.now, &p, &n) == 1) {
		assert_true(R.n < MESSAGES && n <= MESSAGE_MAX);
		memcpy(R.held[R.n].b, p, n);
		R.held[R.n].n = n;
		(void)!tnl_msg_peek(R.held[R.n].b, n, &R.held[R.n].m, NULL);
		if (R.held[R.n].m.type == TNL_MT_INPUT)
			R.n++;
		end_pump(&R.p.c);
	}
}

/* Held message i under another number and as another type of payload, with a digest that fits. */
static void pass_as(int i, int64_t seq, uint32_t ptype)
{
	static uint8_t out[MESSAGE_MAX];
	struct tnl_msg m = R.held[i].m;
	m.seq = seq;
	m.ptype = ptype;
	size_t n = tnl_msg_encode(out, &m);
	(void)!tnl_session_feed(R.p.a.s, out, n, R.p.now);
}

static void pass(int i)
{
	pass_as(i, R.held[i].m.seq, R.held[i].m.ptype);
}

/* Three messages of one stream: SYN and "one", "two", "three". */
static void three(void)
{
	relay_up("Port", "{\"type\":\"LocalPortForwarding\"}");
	write_from_client("one");
	hold();
	write_from_client("two");
	hold();
	write_from_client("three");
	hold();
	assert_true(R.n >= 3);
}

static void found_out(const char *why)
{
	assert_int_equal(R.p.a.closed, 1);
	assert_int_equal(R.p.a.err, TNL_ECRYPTO);
	if (!strstr(R.p.a.text, why))
		fail_msg("not \"%s\": %s", why, R.p.a.text);
	pair_fini(&R.p);
	assert_int_equal(tnl_alloc_live(), 0);
}

static void in_order_all_arrives(void **state)
{
	three();
	for (int i = 0; i < R.n; i++)
		pass(i);
	pass(0); /* a resend as it was: acknowledged again, and nothing else */
	assert_int_equal(R.p.a.closed, 0);
	assert_int_equal(tnl_buf_len(&R.p.a.rec[0].in), 11);
	assert_memory_equal(tnl_buf_data(&R.p.a.rec[0].in), "onetwothree", 11);
	pair_fini(&R.p);
}

static void repeated_under_the_next_number(void **state)
{
	three();
	pass(0);
	pass_as(0, R.held[1].m.seq, TNL_PT_OUTPUT);
	found_out("repeated, left out or moved");
}

static void left_out(void **state)
{
	three();
	int last = R.n - 1;
	for (int i = 0; i < last - 1; i++)
		pass(i);
	pass_as(last, R.held[last].m.seq - 1, TNL_PT_OUTPUT);
	found_out("repeated, left out or moved");
}

static void the_first_left_out(void **state)
{
	three();
	pass_as(1, R.held[0].m.seq, TNL_PT_OUTPUT);
	found_out("repeated, left out or moved");
}

static void swapped(void **state)
{
	three();
	pass(0);
	pass_as(2, R.held[1].m.seq, TNL_PT_OUTPUT);
	found_out("repeated, left out or moved");
}

/* One number further is enough, with nothing before it: a message that the relay made up and that is dropped. */
static void renumbered(void **state)
{
	static uint8_t out[MESSAGE_MAX];
	three();
	struct tnl_msg m = R.held[0].m;
	m.plen = 0;
	m.ptype = 99; /* acknowledged and ignored */
	size_t n = tnl_msg_encode(out, &m);
	assert_int_equal(tnl_session_feed(R.p.a.s, out, n, R.p.now), 0);
	pass_as(0, R.held[0].m.seq + 1, TNL_PT_OUTPUT);
	found_out("does not verify");
}

static void passed_off_as_another_type(void **state)
{
	three();
	pass_as(0, R.held[0].m.seq, TNL_PT_SIZE);
	found_out("does not verify");
}

static void sent_back(void **state)
{
	three();
	struct tnl_msg m = R.held[0].m;
	static uint8_t out[MESSAGE_MAX];
	m.type = TNL_MT_OUTPUT;
	m.seq = tnl_channel_next(R.p.a.s->ch);
	size_t n = tnl_msg_encode(out, &m);
	(void)!tnl_session_feed(R.p.c.s, out, n, R.p.now);
	assert_int_equal(R.p.c.err, TNL_ECRYPTO);
	pair_fini(&R.p);
}

/* The end of a stream that is not in smux frames is a flag: it is encrypted as well. */
static void a_forged_end_of_a_single_stream(void **state)
{
	static uint8_t out[MESSAGE_MAX];
	uint8_t flag[4];
	relay_up("Port", "{\"portNumber\":\"22\"}");
	assert_int_equal(R.p.a.mode, TNL_MODE_SINGLE);
	write_from_client("data");
	hold();
	pass(0);
	tnl_put_be32(flag, TNL_FLAG_STREAM_FIN);
	struct tnl_msg m = {.type = TNL_MT_INPUT,
			    .schema = 1,
			    .created_ms = 1,
			    .seq = R.held[0].m.seq + 1,
			    .ptype = TNL_PT_FLAG,
			    .payload = flag,
			    .plen = 4};
	(void)!tnl_session_feed(R.p.a.s, out, tnl_msg_encode(out, &m), R.p.now);
	found_out("does not verify");
}

static void sizes_and_ends_come_through(void **state)
{
	relay_up("Standard_Stream", NULL);
	tnl_session_send_size(R.p.c.s, 81, 25, R.p.now);
	pair_run(&R.p);
	assert_int_equal(R.p.a.cols, 81);
	tnl_session_send_flag(R.p.c.s, TNL_FLAG_TERMINATE, R.p.now);
	pair_run(&R.p);
	assert_int_equal(R.p.a.flag, TNL_FLAG_TERMINATE);
	pair_fini(&R.p);
	relay_up("Port", "{\"portNumber\":\"22\"}");
	struct rec *r = write_from_client("x");
	r->shut_after = true;
	pair_run(&R.p);
	assert_true(R.p.a.rec[0].eof && R.p.a.rec[0].half);
	pair_fini(&R.p);
	assert_int_equal(tnl_alloc_live(), 0);
}

/* --- the handshake changed on its way ------------------------------------------------------- */

/* Replaces `from` by as many bytes in messages of that payload type until one end gives up or all is done. */
static void handshake_through(uint32_t ptype, const char *from, const char *to, const char *key)
{
	static uint8_t out[1 << 16];
	struct tnl_session_config cc = pair_config(false), ac = pair_config(true);
	memset(&R, 0, sizeof(R));
	ac.kms_key_id = "arn:key";
	cc.kms_key_pin = key;
	pair_init(&R.p, &cc, &ac);
	struct end *ends[] = {&R.p.c, &R.p.a};
	int moved = 1, changed = 0;
	tnl_session_link_up(R.p.c.s, R.p.now);
	tnl_session_link_up(R.p.a.s, R.p.now);
	while (moved) {
		moved = 0;
		R.p.now += 20000;
		for (int i = 0; i < 2; i++) {
			const uint8_t *p;
			size_t n;
			while (tnl_session_pull(ends[i]->s, R.p.now, &p, &n) == 1) {
				struct tnl_msg m;
				moved++;
				memcpy(out, p, n);
				out[n] = 0;
				char *at = strstr((char *)out + TNL_MSG_HDR, from);
				assert_int_equal(tnl_msg_peek(out, n, &m, NULL), 0);
				if (m.ptype == ptype && at) {
					memcpy(at, to, strlen(to));
					n = tnl_msg_encode(out, &m);
					changed++;
				}
				(void)!tnl_session_feed(ends[!i]->s, out, n, R.p.now);
			}
		}
	}
	assert_int_equal(strlen(from), strlen(to));
	assert_true(changed || !*from);
}

static void handshake_fails(uint32_t ptype, const char *from, const char *to)
{
	handshake_through(ptype, from, to, NULL);
	if (R.p.c.ready && R.p.a.ready)
		fail_msg("%s for %s went unseen", to, from);
	assert_true(R.p.c.err == TNL_ECRYPTO || R.p.a.err == TNL_ECRYPTO);
	pair_fini(&R.p);
}

static void a_changed_handshake(void **state)
{
	handshake_fails(TNL_PT_HANDSHAKE_REQUEST, "TunneldCapabilities", "TunneldCapabilitieX");
	handshake_fails(TNL_PT_HANDSHAKE_RESPONSE, "TunneldCapabilities", "TunneldCapabilitieX");
	handshake_fails(TNL_PT_HANDSHAKE_REQUEST, "\"Seal\":2", "\"Seal\":1");
	handshake_fails(TNL_PT_HANDSHAKE_RESPONSE, "\"Seal\":2", "\"Seal\":1");
	handshake_fails(TNL_PT_HANDSHAKE_REQUEST, "\"Encrypt\":true", "\"Encrypt\":null");
	handshake_fails(TNL_PT_HANDSHAKE_RESPONSE, "\"Encrypt\":true", "\"Encrypt\":null");
	handshake_fails(TNL_PT_HANDSHAKE_REQUEST, "\"portNumber\":\"22\"", "\"portNumber\":\"23\"");
	handshake_fails(TNL_PT_HANDSHAKE_REQUEST, "\"Smux\":2", "\"Smux\":1");
}

static void a_key_of_the_gateways_own(void **state)
{
	handshake_through(TNL_PT_HANDSHAKE_REQUEST, "arn:key", "arn:bad", "arn:key");
	assert_int_equal(R.p.c.err, TNL_EREFUSED);
	assert_non_null(strstr(R.p.c.text, "arn:bad"));
	assert_int_equal(R.p.c.kms_calls, 0);
	pair_fini(&R.p);
	handshake_through(TNL_PT_HANDSHAKE_REQUEST, "", "", "arn:key");
	assert_true(R.p.c.ready && R.p.a.ready);
	pair_fini(&R.p);
	assert_int_equal(tnl_alloc_live(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(in_order_all_arrives),
	    cmocka_unit_test(repeated_under_the_next_number),
	    cmocka_unit_test(left_out),
	    cmocka_unit_test(the_first_left_out),
	    cmocka_unit_test(swapped),
	    cmocka_unit_test(renumbered),
	    cmocka_unit_test(passed_off_as_another_type),
	    cmocka_unit_test(sent_back),
	    cmocka_unit_test(a_forged_end_of_a_single_stream),
	    cmocka_unit_test(sizes_and_ends_come_through),
	    cmocka_unit_test(a_changed_handshake),
	    cmocka_unit_test(a_key_of_the_gateways_own),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
