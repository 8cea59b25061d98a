/* The handshake: payloads of the stock programs as captured, the order of messages, refusals, versions. */
#include "tests/unit/raw_util.h"
#include "tests/unit/hs_util.h"
#include "lib/num.h"
#include "lib/handshake.h"

#define PORT_PROPS "{\"localPortNumber\":\"0\",\"portNumber\":\"17007\",\"type\":\"LocalPortForwarding\"}"

static void expect_text(struct tnl_buf *b, const char *want)
{
	assert_string_equal(tnl_buf_str(b), want);
	tnl_buf_fini(b);
}

/* What we write is byte for byte what the stock programs wrote. */
static void writes_as_captured(void **state)
{
	struct tnl_buf b;
	struct tnl_hs_request q = {.agent_version = (char[]){"3.3.0.0"},
				   .session_type = (char[]){"Port"},
				   .properties_json = (char[]){PORT_PROPS}};
	(void)state;
	tnl_buf_init(&b, 65536);
	assert_int_equal(tnl_hs_request_write(&b, &q), 0);
	expect_text(&b, STOCK_REQUEST("3.3.0.0"));
	struct tnl_hs_request k = {.agent_version = (char[]){"3.3.0.0"},
				   .session_type = (char[]){"Standard_Stream"},
				   .kms = true,
				   .kms_key_id = (char[]){KMS_KEY},
				   .challenge = (char[]){"NatKLK6P/VU2P2N8YMuxYw=="}};
	tnl_buf_init(&b, 65536);
	assert_int_equal(tnl_hs_request_write(&b, &k), 0);
	expect_text(&b, kms_text(5));
	tnl_buf_init(&b, 65536);
	assert_int_equal(tnl_hs_complete_write(&b, 12124072, ""), 0);
	expect_text(&b, STOCK_COMPLETE);
	struct tnl_hs_request got;
	const char *fault = NULL;
	assert_int_equal(tnl_hs_request_parse(STOCK_REQUEST("3.3.0.0"), strlen(STOCK_REQUEST("3.3.0.0")), &got, &fault),
			 0);
	assert_string_equal(got.session_type, "Port");
	assert_string_equal(got.properties_json, PORT_PROPS);
	assert_false(got.kms || got.caps.present);
	struct tnl_hs_response a = {.client_version = (char[]){"1.2.707.0"}, .session_type_status = 1};
	tnl_buf_init(&b, 65536);
	assert_int_equal(tnl_hs_response_write(&b, &got, &a), 0);
	expect_text(&b, STOCK_RESPONSE("1.2.707.0"));
	tnl_hs_request_fini(&got);
	assert_int_equal(tnl_alloc_live(), 0);
}

static void reads_kms_as_captured(void **state)
{
	struct tnl_hs_request q;
	struct tnl_hs_response a;
	char *msg = NULL;
	(void)state;
	const char *t = kms_text(5);
	assert_int_equal(tnl_hs_request_parse(t, strlen(t), &q, NULL), 0);
	assert_true(q.kms);
	assert_null(q.properties_json);
	assert_string_equal(q.kms_key_id, KMS_KEY);
	assert_string_equal(q.challenge, "NatKLK6P/VU2P2N8YMuxYw==");
	t = kms_text(6);
	assert_int_equal(tnl_hs_response_parse(t, strlen(t), &a, NULL), 0);
	assert_int_equal(a.session_type_status, 1);
	assert_int_equal(a.kms_status, 1);
	assert_int_equal(a.ciphertext_len, 92);
	assert_false(a.challenge_ack); /* the stock client gives none */
	t = kms_text(7);
	assert_int_equal(tnl_hs_complete_parse(t, strlen(t), &msg), 0);
	assert_string_equal(msg, "This session is encrypted using AWS KMS.");
	tnl_free(msg);
	tnl_hs_request_fini(&q);
	tnl_hs_response_fini(&a);
	assert_int_equal(tnl_alloc_live(), 0);
}

static void malformed_payloads(void **state)
{
	static const char *const requests[] = {
	    "",
	    "{",
	    "[]",
	    "{}",
	    "null",
	    "{\"AgentVersion\":1,\"RequestedClientActions\":[]}",
	    "{\"AgentVersion\":\"1\"}",
	    "{\"AgentVersion\":\"1\",\"RequestedClientActions\":[]}",
	    "{\"AgentVersion\":\"1\",\"RequestedClientActions\":[{}]}",
	    "{\"AgentVersion\":\"1\",\"RequestedClientActions\":[{\"ActionType\":\"SessionType\"}]}",
	    "{\"AgentVersion\":\"1\",\"RequestedClientActions\":[{\"ActionType\":\"KMSEncryption\",\"ActionParameters\":{}}]}",
	};
	static const char *const responses[] = {
	    "",
	    "[]",
	    "{}",
	    "{\"ClientVersion\":\"1\",\"ProcessedClientActions\":{}}",
	    "{\"ClientVersion\":\"1\",\"ProcessedClientActions\":[{\"ActionType\":\"SessionType\"}]}",
	    "{\"ClientVersion\":\"1\",\"ProcessedClientActions\":[{\"ActionType\":\"KMSEncryption\",\"ActionStatus\":1}]}",
	    "{\"ClientVersion\":\"1\",\"ProcessedClientActions\":[{\"ActionType\":\"KMSEncryption\",\"ActionStatus\":1,"
	    "\"ActionResult\":{\"KMSCipherTextKey\":\"***\"}}]}",
	};
	(void)state;
	for (size_t i = 0; i < TNL_COUNT(requests); i++) {
		struct tnl_hs_request q;
		assert_int_equal(tnl_hs_request_parse(requests[i], strlen(requests[i]), &q, NULL), TNL_ESYNTAX);
	}
	for (size_t i = 0; i < TNL_COUNT(responses); i++) {
		struct tnl_hs_response a;
		assert_int_equal(tnl_hs_response_parse(responses[i], strlen(responses[i]), &a, NULL), TNL_ESYNTAX);
	}
	uint8_t out[92];
	assert_int_equal(tnl_hs_challenge_parse("{}", 2, out, sizeof(out)), TNL_ESYNTAX);
	char *msg;
	assert_int_equal(tnl_hs_complete_parse("x", 1, &msg), TNL_ESYNTAX);
	assert_int_equal(tnl_alloc_live(), 0);
}

static void versions(void **state)
{
	(void)state;
	/* What we say that we are has all that later versions have. */
	assert_true(tnl_client_version_mux(TNL_CLIENT_VERSION) &&
		    !tnl_client_version_smux_keepalive(TNL_CLIENT_VERSION));
	assert_true(tnl_agent_version_mux(TNL_AGENT_VERSION) && tnl_agent_version_terminate(TNL_AGENT_VERSION) &&
		    !tnl_agent_version_smux_keepalive(TNL_AGENT_VERSION));
	assert_true(tnl_agent_version_mux("3.0.197.0") && tnl_agent_version_mux("3.3.987.0"));
	assert_false(tnl_agent_version_mux("3.0.196.0") || tnl_agent_version_mux("2.3.800.0"));
	assert_false(tnl_agent_version_mux("3.3.987") || tnl_agent_version_mux("3.3.987.0.1") ||
		     tnl_agent_version_mux(""));
	assert_true(tnl_client_version_mux("1.1.70.0") && tnl_client_version_mux("1.2.0.0"));
	assert_false(tnl_client_version_mux("1.1.69.9") || tnl_client_version_mux("x"));
	assert_true(tnl_client_version_smux_keepalive("1.2.331.0") && !tnl_client_version_smux_keepalive("1.2.332.0"));
	assert_true(tnl_agent_version_smux_keepalive("3.1.1511.0") && !tnl_agent_version_smux_keepalive("3.1.1512.0"));
}

/* --- as an agent, towards a stock client ------------------------------------------------- */

static void agent_with_stock_client(void **state)
{
	struct raw r;
	struct tnl_session_config c = agent();
	(void)state;
	c.properties_json = PORT_PROPS;
	c.offer_capabilities = false;
	c.version = "3.3.0.0";
	raw_init(&r, &c);
	raw_move(&r);
	assert_int_equal(r.states, 1); /* agent_session_state Connected */
	assert_string_equal(r.got[0].p, STOCK_REQUEST("3.3.0.0"));
	assert_int_equal(r.got[0].flags, TNL_MF_SYN);
	raw_text(&r, TNL_PT_HANDSHAKE_RESPONSE, STOCK_RESPONSE("1.2.707.0"));
	assert_int_equal(r.n, 2);
	assert_int_equal(r.got[1].ptype, TNL_PT_HANDSHAKE_COMPLETE);
	assert_int_equal(r.got[1].flags, 0);
	assert_int_equal(r.e.mode, TNL_MODE_MUX);
	const struct tnl_session_info *i = tnl_session_info(r.e.s);
	assert_false(i->own_peer || i->half_close || i->encrypted);
	assert_int_equal(i->smux_version, 1);
	assert_int_equal(i->max_payload, 1024);
	assert_string_equal(i->peer_version, "1.2.707.0");
	raw_fini(&r);
}

/* A stock client answers the unknown action with status 0: not agreed, no failure, whatever Errors says. */
static void stock_client_and_capabilities(void **state)
{
	struct raw r;
	struct tnl_session_config c = agent();
	(void)state;
	raw_init(&r, &c);
	raw_move(&r);
	assert_non_null(strstr(
	    r.got[0].p,
	    "\"TunneldCapabilities\",\"ActionParameters\":{\"Version\":1,\"MaxPayload\":32768,"
	    "\"Smux\":2,\"HalfClose\":true,\"Digest\":\"CRC32C\",\"Encrypt\":true,\"Seal\":2,\"Program\":\"" TUNNELD_VERSION
	    "\",\"ResetWords\":true,\"Opens\":true}"));
	raw_text(
	    &r, TNL_PT_HANDSHAKE_RESPONSE,
	    "{\"ClientVersion\":\"1.2.707.0\",\"ProcessedClientActions\":[{\"ActionType\":\"SessionType\",\"ActionStatus\":1,"
	    "\"ActionResult\":null,\"Error\":\"\"},{\"ActionType\":\"TunneldCapabilities\",\"ActionStatus\":0,"
	    "\"ActionResult\":3,\"Error\":\"Unknown action\"}],\"Errors\":[\"Unknown action\"]}");
	assert_int_equal(r.e.ready, 1);
	assert_false(tnl_session_info(r.e.s)->own_peer);
	raw_fini(&r);
}

/* Each message towards a client waits for the ack of the one before. */
static void agent_waits_for_acks(void **state)
{
	struct raw r;
	struct tnl_session_config c = agent();
	const uint8_t *p;
	size_t n;
	struct tnl_msg m;
	(void)state;
	raw_init(&r, &c);
	/* The response comes although the request's ack is still on its way. */
	r.deaf = true;
	raw_move(&r);
	uint8_t *b = tnl_channel_reserve(r.ch, strlen(OWN_RESPONSE));
	memcpy(b, OWN_RESPONSE, strlen(OWN_RESPONSE));
	assert_int_equal(tnl_channel_commit(r.ch, TNL_PT_HANDSHAKE_RESPONSE, strlen(OWN_RESPONSE), 0, r.now), 0);
	uint8_t ack[512];
	size_t ack_n = 0;
	while (tnl_channel_pull(r.ch, r.now, &p, &n) == 1) {
		assert_int_equal(tnl_msg_decode(p, n, &m, NULL), 0);
		if (m.type == TNL_MT_ACK) {
			memcpy(ack, p, n);
			ack_n = n;
		} else {
			assert_int_equal(tnl_session_feed(r.e.s, p, n, r.now), 0);
		}
	}
	raw_move(&r);
	assert_int_equal(r.n, 1); /* no HandshakeComplete yet */
	assert_int_equal(r.e.ready, 0);
	assert_int_equal(tnl_session_feed(r.e.s, ack, ack_n, r.now), 0);
	raw_move(&r);
	assert_int_equal(r.n, 2);
	assert_int_equal(r.got[1].ptype, TNL_PT_HANDSHAKE_COMPLETE);
	assert_int_equal(r.e.ready, 1);
	raw_fini(&r);
}

static void agent_holds_back_after_complete(void **state)
{
	struct raw r;
	struct tnl_session_config c = agent();
	(void)state;
	c.properties_json = "{}";
	raw_init(&r, &c);
	raw_move(&r);
	raw_text(&r, TNL_PT_HANDSHAKE_RESPONSE, STOCK_RESPONSE("1.2.707.0"));
	assert_int_equal(r.e.mode, TNL_MODE_SINGLE);
	assert_int_equal(r.e.nrec, 1);
	rec_puts(&r.e.rec[0], "SSH-2.0\r\n");
	raw_advance(&r, 49 * MS);
	raw_expect_quiet(&r); /* a stock client may not have opened its port yet */
	raw_advance(&r, 2 * MS);
	assert_int_equal(tnl_buf_len(&r.out), 9);
	raw_fini(&r);
}

struct refusal {
	const char *response, *text;
	int err;
};

static void agent_refusals(void **state)
{
	static const struct refusal cases[] = {
	    {"nonsense", "bad handshake response", TNL_ESYNTAX},
	    {"{\"ClientVersion\":\"1.2.707.0\",\"ProcessedClientActions\":[{\"ActionType\":\"SessionType\",\"ActionStatus\":2,"
	     "\"ActionResult\":null,\"Error\":\"no such type\"}]}",
	     "no such type", TNL_EREFUSED},
	    {"{\"ClientVersion\":\"1.2.707.0\",\"ProcessedClientActions\":[]}", "SessionType", TNL_EREFUSED},
	};
	(void)state;
	for (size_t i = 0; i < TNL_COUNT(cases); i++) {
		struct raw r;
		struct tnl_session_config c = agent();
		raw_init(&r, &c);
		raw_text(&r, TNL_PT_HANDSHAKE_RESPONSE, cases[i].response);
		assert_int_equal(r.e.err, cases[i].err);
		assert_non_null(strstr(r.e.text, cases[i].text));
		raw_fini(&r);
	}
}

static void agent_times_out(void **state)
{
	struct raw r;
	struct tnl_session_config c = agent();
	(void)state;
	raw_init(&r, &c);
	raw_advance(&r, 14900 * MS);
	assert_int_equal(r.e.closed, 0);
	raw_advance(&r, 200 * MS);
	assert_int_equal(r.e.err, TNL_ETIMEOUT);
	raw_fini(&r);
}

/* What comes before HandshakeComplete is acknowledged and dropped. */
static void agent_drops_early_data(void **state)
{
	struct raw r;
	struct tnl_session_config c = agent();
	(void)state;
	raw_init(&r, &c);
	raw_text(&r, TNL_PT_OUTPUT, "too early");
	assert_int_equal(r.e.closed, 0);
	assert_int_equal(tnl_session_stats(r.e.s)->early_data, 1);
	raw_text(&r, TNL_PT_HANDSHAKE_RESPONSE, OWN_RESPONSE);
	assert_int_equal(r.e.ready, 1);
	raw_fini(&r);
}

static void capability_subset(void **state)
{
	struct raw r;
	struct tnl_session_config c = agent();
	(void)state;
	c.max_payload = 8192;
	raw_init(&r, &c);
	raw_move(&r);
	/* More than was offered in one place, less in others. */
	raw_text(
	    &r, TNL_PT_HANDSHAKE_RESPONSE,
	    "{\"ClientVersion\":\"1.2.764.0\",\"ProcessedClientActions\":[{\"ActionType\":\"SessionType\",\"ActionStatus\":1,"
	    "\"ActionResult\":null,\"Error\":\"\"},{\"ActionType\":\"TunneldCapabilities\",\"ActionStatus\":1,\"ActionResult\":"
	    "{\"Version\":9,\"MaxPayload\":65536,\"Smux\":1,\"HalfClose\":false,\"Digest\":true,\"Encrypt\":false},"
	    "\"Error\":\"\"}],\"Errors\":null}");
	const struct tnl_session_info *i = tnl_session_info(r.e.s);
	assert_int_equal(r.e.ready, 1);
	assert_true(i->own_peer && !i->half_close);
	assert_int_equal(i->smux_version, 1);
	assert_int_equal(i->max_payload, 8192);
	raw_fini(&r);
	/* Nonsense means no. */
	c = agent();
	raw_init(&r, &c);
	raw_text(
	    &r, TNL_PT_HANDSHAKE_RESPONSE,
	    "{\"ClientVersion\":\"1.2.764.0\",\"ProcessedClientActions\":[{\"ActionType\":\"SessionType\",\"ActionStatus\":1,"
	    "\"ActionResult\":null,\"Error\":\"\"},{\"ActionType\":\"TunneldCapabilities\",\"ActionStatus\":1,\"ActionResult\":"
	    "{\"Version\":1,\"MaxPayload\":10,\"Smux\":2},\"Error\":\"\"}],\"Errors\":null}");
	assert_false(tnl_session_info(r.e.s)->own_peer);
	raw_fini(&r);
}

/* The CRC takes two: an end that answers with `true`, as those before did, gets SHA-256, and a CRC from it is refused.
 */
static void digest_is_agreed(void **state)
{
	static const struct {
		const char *digest;
		bool crc;
	} answers[] = {{"true", false}, {"\"CRC32C\"", true}, {"\"crc32c\"", false}, {"7", false}, {"false", false}};
	(void)state;
	for (size_t i = 0; i < TNL_COUNT(answers); i++) {
		struct raw r;
		struct tnl_session_config c = agent();
		char response[1024], want[32] = "\"Digest\":";
		const char *at = strstr(OWN_RESPONSE, "\"Digest\":true") + strlen(want);
		snprintf(response, sizeof(response), "%.*s%s%s", (int)(strlen(OWN_RESPONSE) - strlen(at)), OWN_RESPONSE,
			 answers[i].digest, at + 4);
		raw_agent(&r, &c, response);
		assert_true(tnl_session_info(r.e.s)->own_peer);
		tnl_channel_set_digest(r.ch, TNL_DIGEST_CRC32C);
		struct tnl_channel_stats st;
		uint64_t bad = tnl_session_stats(r.e.s)->bad_messages;
		raw_smux(&r, 2, TNL_SMUX_NOP, 0, NULL, 0);
		tnl_channel_stats(r.ch, &st);
		assert_int_equal(st.inflight_msgs, answers[i].crc ? 0 : 1);
		assert_int_equal(tnl_session_stats(r.e.s)->bad_messages - bad, answers[i].crc ? 0 : 1);
		raw_fini(&r);
	}
}

static void agent_with_old_client(void **state)
{
	static const char *const old[] = {STOCK_RESPONSE("1.1.61.0"), STOCK_RESPONSE("1.2"), STOCK_RESPONSE("")};
	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct raw r;
		struct tnl_session_config c = agent();
		raw_init(&r, &c);
		raw_text(&r, TNL_PT_HANDSHAKE_RESPONSE, old[i]);
		assert_int_equal(r.e.mode, TNL_MODE_BASIC);
		raw_text(&r, TNL_PT_OUTPUT, "raw bytes");
		rec_expect(&r.e.rec[0], "raw bytes");
		raw_fini(&r);
	}
	/* Old enough to give up without smux keep-alives. */
	struct raw r;
	struct tnl_session_config c = agent();
	raw_agent(&r, &c, STOCK_RESPONSE("1.2.331.0"));
	raw_advance(&r, 35 * SEC);
	for (int k = 0; k < 3; k++)
		raw_expect_frame(&r, 1, TNL_SMUX_NOP, 0, NULL, 0);
	raw_fini(&r);
}

/* --- as a client, towards a stock agent ---------------------------------------------------- */

static void client_with_stock_agent(void **state)
{
	struct raw r;
	struct tnl_session_config c = client();
	(void)state;
	c.version = "1.2.707.0";
	raw_init(&r, &c);
	struct rec *x = raw_open(&r);
	rec_puts(x, "hello");
	raw_text(&r, TNL_PT_HANDSHAKE_REQUEST, STOCK_REQUEST("3.3.0.0"));
	assert_string_equal(r.got[0].p, STOCK_RESPONSE("1.2.707.0"));
	raw_advance(&r, 100 * MS);
	assert_int_equal(r.n, 1); /* nothing before HandshakeComplete */
	raw_text(&r, TNL_PT_HANDSHAKE_COMPLETE, STOCK_COMPLETE);
	assert_int_equal(r.e.ready, 1);
	raw_advance(&r, 4 * MS);
	assert_int_equal(r.n, 1); /* nor in the first 5 ms after it */
	raw_advance(&r, 2 * MS);
	raw_expect_frame(&r, 1, TNL_SMUX_SYN, 3, NULL, 0);
	raw_expect_frame(&r, 1, TNL_SMUX_PSH, 3, "hello", 5);
	raw_fini(&r);
}

static void client_version_rules(void **state)
{
	static const struct {
		const char *request;
		enum tnl_session_mode mode;
	} cases[] = {
	    {STOCK_REQUEST("3.3.0.0"), TNL_MODE_MUX},
	    {STOCK_REQUEST("3.0.197.0"), TNL_MODE_MUX},
	    {STOCK_REQUEST("3.0.196.0"), TNL_MODE_BASIC},
	    {STOCK_REQUEST("2.3.722.0"), TNL_MODE_BASIC},
	    {STOCK_REQUEST("3.3.0"), TNL_MODE_BASIC},
	    {STOCK_REQUEST("3.3.0.0.0"), TNL_MODE_BASIC},
	    {"{\"AgentVersion\":\"3.3.0.0\",\"RequestedClientActions\":[{\"ActionType\":\"SessionType\",\"ActionParameters\":"
	     "{\"SessionType\":\"Port\",\"Properties\":{\"portNumber\":\"22\"}}}]}",
	     TNL_MODE_SINGLE},
	    {"{\"AgentVersion\":\"3.3.0.0\",\"RequestedClientActions\":[{\"ActionType\":\"SessionType\",\"ActionParameters\":"
	     "{\"SessionType\":\"InteractiveCommands\",\"Properties\":null}}]}",
	     TNL_MODE_SHELL},
	};
	(void)state;
	for (size_t i = 0; i < TNL_COUNT(cases); i++) {
		struct raw r;
		struct tnl_session_config c = client();
		raw_client(&r, &c, cases[i].request);
		assert_int_equal(r.e.mode, cases[i].mode);
		raw_fini(&r);
	}
}

/* TerminateSession goes only to agents that know it, and also when the handshake hangs. */
static void terminate_flag(void **state)
{
	static const struct {
		const char *request;
		bool sent;
	} cases[] = {{STOCK_REQUEST("3.3.0.0"), true},
		     {STOCK_REQUEST("2.3.723.0"), true},
		     {STOCK_REQUEST("2.3.722.0"), false}};
	struct raw r;
	struct tnl_session_config c = client();
	(void)state;
	for (size_t i = 0; i < 3; i++) {
		raw_client(&r, &c, cases[i].request);
		tnl_session_send_flag(r.e.s, TNL_FLAG_TERMINATE, r.now);
		raw_move(&r);
		assert_int_equal(r.got[r.n - 1].ptype == TNL_PT_FLAG, cases[i].sent);
		raw_fini(&r);
	}
	raw_init(&r, &c);
	tnl_session_send_flag(r.e.s, TNL_FLAG_TERMINATE, r.now);
	raw_move(&r);
	assert_int_equal(r.n, 1);
	assert_memory_equal(r.got[0].p, "\0\0\0\2", 4);
	raw_fini(&r);
}

/* An action that nobody knows is answered as the stock client does: no failure. */
static void client_and_unknown_action(void **state)
{
	struct raw r;
	struct tnl_session_config c = client();
	(void)state;
	raw_client(
	    &r, &c,
	    "{\"AgentVersion\":\"3.9.0.0\",\"RequestedClientActions\":[{\"ActionType\":\"Teleport\",\"ActionParameters\":[1]},"
	    "{\"ActionType\":\"SessionType\",\"ActionParameters\":{\"SessionType\":\"Port\",\"Properties\":{}}}]}");
	assert_string_equal(
	    r.got[0].p,
	    "{\"ClientVersion\":\"" TNL_CLIENT_VERSION "\",\"ProcessedClientActions\":[{\"ActionType\":\"Teleport\","
	    "\"ActionStatus\":0,\"ActionResult\":3,\"Error\":\"\"},{\"ActionType\":\"SessionType\","
	    "\"ActionStatus\":1,\"ActionResult\":null,\"Error\":\"\"}],\"Errors\":[\"Unsupported action type\"]}");
	raw_fini(&r);
}

static void client_refusals(void **state)
{
	struct raw r;
	struct tnl_session_config c = client();
	(void)state;
	c.expected_type = "Port";
	raw_init(&r, &c);
	raw_text(
	    &r, TNL_PT_HANDSHAKE_REQUEST,
	    "{\"AgentVersion\":\"3.3.0.0\",\"RequestedClientActions\":[{\"ActionType\":\"SessionType\",\"ActionParameters\":"
	    "{\"SessionType\":\"Standard_Stream\",\"Properties\":null}}]}");
	assert_int_equal(r.e.err, TNL_EREFUSED);
	assert_non_null(strstr(r.e.text, "Standard_Stream"));
	raw_fini(&r);
	raw_init(&r, &c);
	raw_text(&r, TNL_PT_OUTPUT, "$ "); /* a shell without handshake is no port session */
	assert_int_equal(r.e.err, TNL_EREFUSED);
	raw_fini(&r);
	c.expected_type = NULL;
	c.require_encryption = true;
	raw_init(&r, &c);
	raw_text(&r, TNL_PT_HANDSHAKE_REQUEST, OWN_REQUEST);
	assert_int_equal(r.e.err, TNL_EREFUSED);
	assert_non_null(strstr(r.e.text, "not encrypted"));
	raw_fini(&r);
	raw_init(&r, &c);
	raw_text(&r, TNL_PT_OUTPUT, "$ ");
	assert_int_equal(r.e.err, TNL_EREFUSED);
	raw_fini(&r);
	/* Whoever asks for a key on a port without our extensions encrypts, as stock code does with any key. */
	raw_init(&r, &c);
	raw_text(
	    &r, TNL_PT_HANDSHAKE_REQUEST,
	    "{\"AgentVersion\":\"3.3.0.0\",\"RequestedClientActions\":[{\"ActionType\":\"SessionType\",\"ActionParameters\":"
	    "{\"SessionType\":\"Port\",\"Properties\":{}}},{\"ActionType\":\"KMSEncryption\",\"ActionParameters\":"
	    "{\"KMSKeyId\":\"k\"}}]}");
	assert_int_equal(r.e.err, 0);
	assert_int_equal(r.e.kms_calls, 1);
	raw_fini(&r);
	/* No way to get a key. */
	struct tnl_session_cb no_kms = end_cb;
	no_kms.on_kms = NULL;
	c = client();
	c.cb = &no_kms;
	raw_init(&r, &c);
	raw_text(&r, TNL_PT_HANDSHAKE_REQUEST, kms_text(5));
	assert_int_equal(r.e.err, TNL_EREFUSED);
	raw_fini(&r);
	c = client();
	raw_init(&r, &c);
	raw_text(&r, TNL_PT_HANDSHAKE_REQUEST, "{\"AgentVersion\":");
	assert_int_equal(r.e.err, TNL_ESYNTAX);
	raw_fini(&r);
	c = client();
	raw_init(&r, &c);
	raw_advance(&r, 61 * SEC);
	assert_int_equal(r.e.err, TNL_ETIMEOUT);
	raw_fini(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(writes_as_captured),      cmocka_unit_test(reads_kms_as_captured),
	    cmocka_unit_test(malformed_payloads),      cmocka_unit_test(versions),
	    cmocka_unit_test(agent_with_stock_client), cmocka_unit_test(stock_client_and_capabilities),
	    cmocka_unit_test(agent_waits_for_acks),    cmocka_unit_test(agent_holds_back_after_complete),
	    cmocka_unit_test(agent_refusals),	       cmocka_unit_test(agent_times_out),
	    cmocka_unit_test(agent_drops_early_data),  cmocka_unit_test(capability_subset),
	    cmocka_unit_test(digest_is_agreed),	       cmocka_unit_test(agent_with_old_client),
	    cmocka_unit_test(client_with_stock_agent), cmocka_unit_test(client_version_rules),
	    cmocka_unit_test(terminate_flag),	       cmocka_unit_test(client_and_unknown_action),
	    cmocka_unit_test(client_refusals),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
