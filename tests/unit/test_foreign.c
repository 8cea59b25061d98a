/* Ends that nobody here wrote: an agent is no stricter with their messages than a stock agent is, and as strict as ever
 * with our own client's. */
#include "tests/unit/raw_util.h"

enum { DIGEST = 90, SCHEMA = 39, LENGTH = 119 };

struct foreign {
	struct raw r;
	int64_t seq;
};

/* A message of the raw client's, with the byte at `at` wrong (0: none); true: it was acknowledged. */
static bool send_odd(struct foreign *f, enum tnl_mtype type, uint32_t ptype, const char *text, size_t at)
{
	uint8_t out[4096];
	const uint8_t *p;
	size_t n;
	struct tnl_msg m = {.type = type,
			    .schema = 1,
			    .created_ms = 1,
			    .seq = type == TNL_MT_ACK ? 0 : f->seq,
			    .ptype = ptype,
			    .payload = (const uint8_t *)text,
			    .plen = (uint32_t)strlen(text)};
	n = tnl_msg_encode(out, &m);
	out[at] ^= at ? 1 : 0;
	assert_int_equal(tnl_session_feed(f->r.e.s, out, n, f->r.now), 0);
	bool acked = false;
	end_pump(&f->r.e);
	f->r.now += 100 * MS; /* beyond what is held back after HandshakeComplete */
	tnl_session_expire(f->r.e.s, f->r.now);
	while (tnl_session_pull(f->r.e.s, f->r.now, &p, &n) == 1) {
		struct tnl_ack a;
		assert_int_equal(tnl_msg_decode(p, n, &m, NULL), 0);
		acked = acked || (m.type == TNL_MT_ACK && !tnl_ack_parse(m.payload, m.plen, &a) && a.seq == f->seq);
	}
	f->seq += acked;
	return acked;
}

static bool send_input(struct foreign *f, const char *text, size_t at)
{
	return send_odd(f, TNL_MT_INPUT, TNL_PT_OUTPUT, text, at);
}

static uint64_t bad_messages(struct foreign *f)
{
	return tnl_session_stats(f->r.e.s)->bad_messages;
}

static void shell_agent(struct foreign *f)
{
	struct tnl_session_config c = agent();
	memset(f, 0, sizeof(*f));
	c.session_type = "Standard_Stream";
	c.properties_json = NULL;
	c.skip_handshake = true;
	raw_init(&f->r, &c);
	assert_int_equal(f->r.e.ready, 1);
}

/* No handshake says whose the client is: one that writes no digests is served, once noted and once counted. */
static void a_shell_without_digests(void **state)
{
	struct foreign f;
	(void)state;
	shell_agent(&f);
	assert_true(send_odd(&f, TNL_MT_INPUT, TNL_PT_SIZE, "{\"Rows\": 34, \"COLS\": 120}", DIGEST));
	assert_int_equal(f.r.e.cols, 120);
	assert_int_equal(f.r.e.rows, 34);
	assert_true(send_input(&f, "ls", DIGEST));
	assert_true(send_input(&f, "\r", SCHEMA));
	assert_true(send_input(&f, "x", LENGTH));
	assert_true(send_input(&f, "y", 0));
	rec_expect(&f.r.e.rec[0], "ls\rxy");
	assert_int_equal(bad_messages(&f), 1);
	raw_fini(&f.r);
}

/* One that has written a right digest is held to it: ours does, and nothing else tells of a changed byte. */
static void a_shell_with_digests(void **state)
{
	struct foreign f;
	(void)state;
	shell_agent(&f);
	assert_true(send_input(&f, "ls", 0));
	assert_false(send_input(&f, "rm", DIGEST));
	assert_false(send_input(&f, "rm", SCHEMA));
	assert_true(send_input(&f, "\r", 0));
	rec_expect(&f.r.e.rec[0], "ls\r");
	assert_int_equal(bad_messages(&f), 2);
	raw_fini(&f.r);
}

static void port_agent(struct foreign *f)
{
	struct tnl_session_config c = agent();
	memset(f, 0, sizeof(*f));
	c.properties_json = "{\"portNumber\":\"22\"}";
	raw_init(&f->r, &c);
}

/* The response says that the client is not ours; from the first message to the last its digests count for nothing. */
static void a_port_without_digests(void **state)
{
	struct foreign f;
	(void)state;
	port_agent(&f);
	const uint8_t *p;
	size_t n;
	while (tnl_session_pull(f.r.e.s, f.r.now, &p, &n) == 1)
		;
	assert_false(
	    send_odd(&f, TNL_MT_ACK, 0,
		     "{\"acknowledgedMessageType\":\"output_stream_data\",\"AcknowledgedMessageSequenceNumber\":0}",
		     DIGEST));
	assert_int_equal(tnl_session_stats(f.r.e.s)->bad_messages, 1);
	assert_true(
	    send_odd(&f, TNL_MT_INPUT, TNL_PT_HANDSHAKE_RESPONSE,
		     "{\"clientversion\":\"1.2.764.0\",\"processedClientActions\":[{\"actionType\":\"SessionType\","
		     "\"actionStatus\":1}]}",
		     DIGEST));
	assert_int_equal(f.r.e.ready, 1);
	assert_true(send_input(&f, "abc", DIGEST));
	rec_expect(&f.r.e.rec[0], "abc");
	assert_int_equal(bad_messages(&f), 1);
	raw_fini(&f.r);
}

/* A stock client computes digests; a stock agent would take what it sends without. */
static void a_stock_client(void **state)
{
	struct foreign f;
	struct tnl_session_config c = agent();
	(void)state;
	memset(&f, 0, sizeof(f));
	c.properties_json = "{\"portNumber\":\"22\"}";
	raw_agent(&f.r, &c, STOCK_RESPONSE("1.2.764.0"));
	f.seq = 1;
	assert_true(send_input(&f, "abc", DIGEST));
	assert_true(send_input(&f, "def", SCHEMA));
	rec_expect(&f.r.e.rec[0], "abcdef");
	assert_int_equal(bad_messages(&f), 1);
	raw_fini(&f.r);
}

/* Ours is held to everything, also when its first digest came to harm. */
static void our_own_client(void **state)
{
	struct foreign f;
	(void)state;
	port_agent(&f);
	const uint8_t *p;
	size_t n;
	while (tnl_session_pull(f.r.e.s, f.r.now, &p, &n) == 1)
		;
	assert_false(send_odd(&f, TNL_MT_INPUT, TNL_PT_HANDSHAKE_RESPONSE, OWN_RESPONSE, DIGEST));
	assert_int_equal(f.r.e.ready, 0);
	assert_false(send_odd(&f, TNL_MT_INPUT, TNL_PT_HANDSHAKE_RESPONSE, "{", DIGEST));
	assert_false(send_odd(&f, TNL_MT_ACK, 0, "{\"AcknowledgedMessageSequenceNumber\":0}", DIGEST));
	assert_true(send_odd(&f, TNL_MT_INPUT, TNL_PT_HANDSHAKE_RESPONSE, OWN_RESPONSE, 0));
	assert_int_equal(f.r.e.ready, 1);
	assert_true(tnl_session_info(f.r.e.s)->own_peer);
	assert_false(send_input(&f, "abc", DIGEST));
	assert_false(send_input(&f, "abc", SCHEMA));
	assert_false(send_input(&f, "abc", LENGTH));
	assert_true(send_input(&f, "def", 0));
	rec_expect(&f.r.e.rec[0], "def");
	raw_fini(&f.r);
}

/* A stock client compares digests, and so does ours; the rest it lets pass from an agent that is not ours. */
static void a_client_compares(void **state)
{
	struct raw r;
	struct tnl_session_config c = client();
	uint8_t out[200];
	const uint8_t *p;
	size_t n;
	(void)state;
	raw_client(&r, &c, STOCK_REQUEST("3.3.987.0"));
	for (int odd = 0; odd < 2; odd++) {
		static const size_t at[] = {DIGEST, SCHEMA};
		struct tnl_msg m = {.type = TNL_MT_OUTPUT,
				    .schema = 1,
				    .created_ms = 1,
				    .seq = 2,
				    .ptype = TNL_PT_PARAMETER,
				    .payload = (const uint8_t *)"x",
				    .plen = 1};
		n = tnl_msg_encode(out, &m);
		out[at[odd]] ^= 1;
		assert_int_equal(tnl_session_feed(r.e.s, out, n, r.now), 0);
		bool acked = false;
		while (tnl_session_pull(r.e.s, r.now, &p, &n) == 1) {
			assert_int_equal(tnl_msg_decode(p, n, &m, NULL), 0);
			acked = acked || m.type == TNL_MT_ACK;
		}
		assert_int_equal(acked, odd == 1);
	}
	raw_fini(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_shell_without_digests), cmocka_unit_test(a_shell_with_digests),
	    cmocka_unit_test(a_port_without_digests),  cmocka_unit_test(a_stock_client),
	    cmocka_unit_test(our_own_client),	       cmocka_unit_test(a_client_compares),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
