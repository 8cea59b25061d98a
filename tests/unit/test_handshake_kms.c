/* The handshake of encrypted sessions: keys, challenges, and what goes wrong with them. */
#include "tests/unit/raw_util.h"
#include "tests/unit/hs_util.h"
#include "lib/num.h"
#include "lib/handshake.h"
#include "lib/seal.h"

static const struct tnl_seal_about about; /* stock ends bind nothing */

/* Our client in the place of the stock one, against the captured agent and its key. */
static uint8_t captured_key[64];

static void captured_kms(void *ctx, const struct tnl_kms_request *k)
{
	struct end *e = ctx;
	assert_true(k->generate);
	assert_string_equal(k->key_id, KMS_KEY);
	assert_string_equal(k->challenge, "NatKLK6P/VU2P2N8YMuxYw==");
	tnl_session_kms_result(e->s, 0, captured_key, 64, (const uint8_t *)"blob", 4, NULL, *e->now);
}

static void client_with_captured_agent(void **state)
{
	struct raw r;
	struct tnl_session_config c = client();
	struct tnl_session_cb cb = end_cb;
	uint8_t b[256], plain[64], back[64], key[64];
	(void)state;
	cb.on_kms = captured_kms;
	c.cb = &cb;
	assert_int_equal(tnl_unhex(kms_key_hex, 128, captured_key), 0);
	raw_init(&r, &c);
	struct rec *x = raw_open(&r);
	raw_text(&r, TNL_PT_HANDSHAKE_REQUEST, kms_text(5));
	assert_non_null(strstr(r.got[0].p, "\"KMSCipherTextKey\":\"YmxvYg==\",\"KMSCipherTextHash\":null,"
					   "\"ChallengeAcknowledgement\":true"));
	raw_text(&r, TNL_PT_ENC_CHALLENGE_REQUEST, kms_text(8));
	assert_int_equal(r.got[1].ptype, TNL_PT_ENC_CHALLENGE_RESPONSE);
	memcpy(key, captured_key, 64);
	struct tnl_seal *stock = tnl_seal_new(key, true), *self = tnl_seal_new(key, false);
	int n = tnl_hs_challenge_parse(r.got[1].p, r.got[1].len, b, sizeof(b));
	assert_int_equal(n, 92);
	assert_int_equal(tnl_seal_open(stock, &about, b, 92, back), 0);
	const char *t = kms_text(8);
	assert_int_equal(tnl_hs_challenge_parse(t, strlen(t), b, sizeof(b)), 92);
	assert_int_equal(tnl_seal_open(self, &about, b, 92, plain), 0);
	assert_memory_equal(plain, back, 64);
	raw_text(&r, TNL_PT_HANDSHAKE_COMPLETE, kms_text(7));
	assert_int_equal(r.e.mode, TNL_MODE_SHELL);
	assert_true(tnl_session_info(r.e.s)->encrypted);
	assert_string_equal(tnl_session_info(r.e.s)->customer_message, "This session is encrypted using AWS KMS.");
	/* The agent's captured output, in our session. */
	for (size_t i = 0; i < TNL_COUNT(kms_messages); i++) {
		if (kms_messages[i].ptype != 1 || !kms_messages[i].from_agent)
			continue;
		size_t len = strlen(kms_messages[i].hex) / 2;
		assert_int_equal(tnl_unhex(kms_messages[i].hex, 2 * len, b), 0);
		raw_send(&r, TNL_PT_OUTPUT, b, len);
	}
	rec_expect(x, "$ echo marker-$((40+2))\r\nmarker-42\r\n$ exit\r\n");
	tnl_seal_free(stock);
	tnl_seal_free(self);
	raw_fini(&r);
}

static void kms_failures(void **state)
{
	struct pair p;
	struct tnl_session_config cc = client(), ac = agent();
	(void)state;
	ac.kms_key_id = "arn:key";
	/* The answer may come later, and may be no. */
	pair_init(&p, &cc, &ac);
	p.c.no_kms_answer = true;
	pair_up(&p);
	assert_int_equal(p.c.kms_calls, 1);
	assert_int_equal(p.c.ready, 0);
	tnl_session_kms_result(p.c.s, TNL_EREFUSED, NULL, 0, NULL, 0, "AccessDeniedException: not yours", p.now);
	assert_int_equal(p.c.err, TNL_EREFUSED);
	assert_non_null(strstr(p.c.text, "GenerateDataKey"));
	assert_non_null(strstr(p.c.text, "AccessDeniedException"));
	tnl_session_kms_result(p.c.s, 0, pair_key, 64, (const uint8_t *)"x", 1, NULL, p.now); /* too late: ignored */
	pair_fini(&p);
	/* Wrong length. */
	pair_init(&p, &cc, &ac);
	p.c.no_kms_answer = true;
	pair_up(&p);
	tnl_session_kms_result(p.c.s, 0, pair_key, 32, (const uint8_t *)"x", 1, NULL, p.now);
	assert_int_equal(p.c.err, TNL_ECRYPTO);
	pair_fini(&p);
	/* Different keys: the challenge finds it. */
	pair_init(&p, &cc, &ac);
	p.a.no_kms_answer = true;
	pair_up(&p);
	uint8_t other[64] = {1};
	tnl_session_kms_result(p.a.s, 0, other, 64, NULL, 0, NULL, p.now);
	pair_run(&p);
	assert_int_equal(p.c.err, TNL_ECRYPTO);
	pair_fini(&p);
	/* Late, but in time. */
	pair_init(&p, &cc, &ac);
	p.a.no_kms_answer = true;
	pair_up(&p);
	pair_advance(&p, 10 * SEC);
	tnl_session_kms_result(p.a.s, 0, pair_key, 64, NULL, 0, NULL, p.now);
	pair_run(&p);
	assert_true(p.c.ready && p.a.ready);
	pair_fini(&p);
	assert_int_equal(tnl_alloc_live(), 0);
}

static const char kms_response[] =
    "{\"ClientVersion\":\"1.2.707.0\",\"ProcessedClientActions\":[{\"ActionType\":\"SessionType\",\"ActionStatus\":1,"
    "\"ActionResult\":null,\"Error\":\"\"},{\"ActionType\":\"KMSEncryption\",\"ActionStatus\":1,\"ActionResult\":"
    "{\"KMSCipherTextKey\":\"c2VhbGVkLWtleQ==\",\"KMSCipherTextHash\":null},\"Error\":\"\"}],\"Errors\":null}";

static void stock_client_without_acknowledgement(void **state)
{
	struct raw r;
	struct tnl_session_config c = agent();
	(void)state;
	c.kms_key_id = "arn:key";
	raw_init(&r, &c);
	raw_text(&r, TNL_PT_HANDSHAKE_RESPONSE, kms_response);
	assert_int_equal(r.e.kms_calls, 1);
	assert_string_equal(r.e.kms_challenge, ""); /* it was not in the client's context, so not in ours */
	assert_int_equal(r.got[1].ptype, TNL_PT_ENC_CHALLENGE_REQUEST);
	/* A wrong answer. */
	raw_text(&r, TNL_PT_ENC_CHALLENGE_RESPONSE, r.got[1].p);
	assert_int_equal(r.e.err, TNL_ECRYPTO);
	raw_fini(&r);
	c.require_challenge_ack = true;
	raw_init(&r, &c);
	raw_text(&r, TNL_PT_HANDSHAKE_RESPONSE, kms_response);
	assert_int_equal(r.e.err, TNL_EREFUSED);
	assert_non_null(strstr(r.e.text, "acknowledge"));
	raw_fini(&r);
}

/* The right key is not enough: the answer has to be the same 64 bytes. */
static void wrong_challenge_answer(void **state)
{
	struct raw r;
	struct tnl_session_config c = agent();
	uint8_t sealed[TNL_HS_CHALLENGE + TNL_SEAL_OVERHEAD] = {0};
	struct tnl_buf text;
	(void)state;
	c.kms_key_id = "arn:key";
	raw_init(&r, &c);
	raw_text(&r, TNL_PT_HANDSHAKE_RESPONSE, kms_response);
	struct tnl_seal *self = tnl_seal_new(pair_key, false);
	assert_int_equal(tnl_seal_seal(self, &about, sealed, TNL_HS_CHALLENGE), 0);
	tnl_buf_init(&text, 1024);
	assert_int_equal(tnl_hs_challenge_write(&text, sealed, sizeof(sealed)), 0);
	raw_send(&r, TNL_PT_ENC_CHALLENGE_RESPONSE, tnl_buf_data(&text), tnl_buf_len(&text));
	assert_int_equal(r.e.err, TNL_ECRYPTO);
	assert_int_equal(r.e.ready, 0);
	tnl_buf_fini(&text);
	tnl_seal_free(self);
	raw_fini(&r);
}

/* An agent that skips its challenge has not shown that it has the key. */
static void complete_without_challenge(void **state)
{
	struct raw r;
	struct tnl_session_config c = client();
	(void)state;
	raw_init(&r, &c);
	raw_text(&r, TNL_PT_HANDSHAKE_REQUEST, kms_text(5));
	assert_int_equal(r.n, 1);
	raw_text(&r, TNL_PT_HANDSHAKE_COMPLETE, STOCK_COMPLETE);
	assert_int_equal(r.e.err, TNL_EPROTO);
	assert_int_equal(r.e.ready, 0);
	raw_fini(&r);
}

/* A stock client that has the key encrypts a port session too, though no stock agent ever asks it: so do we. */
static void stock_client_encrypts_port(void **state)
{
	struct raw r;
	struct tnl_session_config c = agent();
	uint8_t b[256], plain[TNL_HS_CHALLENGE], sealed[256];
	struct tnl_buf text;
	(void)state;
	c.kms_key_id = "arn:key";
	c.require_encryption = true;
	raw_init(&r, &c);
	raw_text(&r, TNL_PT_HANDSHAKE_RESPONSE, kms_response);
	struct tnl_seal *self = tnl_seal_new(pair_key, false);
	assert_int_equal(tnl_hs_challenge_parse(r.got[1].p, r.got[1].len, b, sizeof(b)), 92);
	assert_int_equal(tnl_seal_open(self, &about, b, 92, plain), 0);
	memcpy(sealed + TNL_SEAL_NONCE, plain, 64);
	assert_int_equal(tnl_seal_seal(self, &about, sealed, 64), 0);
	tnl_buf_init(&text, 1024);
	assert_int_equal(tnl_hs_challenge_write(&text, sealed, 92), 0);
	raw_send(&r, TNL_PT_ENC_CHALLENGE_RESPONSE, tnl_buf_data(&text), tnl_buf_len(&text));
	assert_int_equal(r.e.ready, 1);
	assert_true(tnl_session_info(r.e.s)->encrypted);
	uint8_t f[128];
	size_t n = raw_frame(f + TNL_SEAL_NONCE, 1, TNL_SMUX_SYN, 3, NULL, 0);
	n += raw_frame(f + TNL_SEAL_NONCE + n, 1, TNL_SMUX_PSH, 3, "secret", 6);
	assert_int_equal(tnl_seal_seal(self, &about, f, n), 0);
	raw_send(&r, TNL_PT_OUTPUT, f, n + TNL_SEAL_OVERHEAD);
	rec_expect(&r.e.rec[0], "secret");
	tnl_buf_fini(&text);
	tnl_seal_free(self);
	raw_fini(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(client_with_captured_agent),
	    cmocka_unit_test(kms_failures),
	    cmocka_unit_test(stock_client_without_acknowledgement),
	    cmocka_unit_test(stock_client_encrypts_port),
	    cmocka_unit_test(wrong_challenge_answer),
	    cmocka_unit_test(complete_without_challenge),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
