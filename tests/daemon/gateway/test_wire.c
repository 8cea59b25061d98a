/* The gateway against peers that are not ours: a stock client, broken WebSocket
 * frames, too many of everything; and the two key calls. */
#include "tests/daemon/gateway/gw_channel.h"
#include "tests/daemon/gateway/gw_raw.h"

/* --- a stock client ------------------------------------------------------------------ */
static void join(struct raw *r, struct ses *s, const char *agent)
{
	char path[200], frame[400];
	session_start(s, "i-1");
	snprintf(path, sizeof(path), "/v1/data-channel/%s?role=publish_subscribe", s->id);
	raw_upgrade(r, NULL, path, agent);
	raw_frame(r, 9, "keepalive", 9); /* stock clients may ping before the token */
	int n = snprintf(frame, sizeof(frame),
			 "{\"MessageSchemaVersion\":\"1.0\",\"RequestId\":\"%s\",\"TokenValue\":\"%s\","
			 "\"ClientId\":\"7e0d130c-29a9-480a-be35-05329433d1c9\",\"ClientVersion\":\"1.2.0.0\"}",
			 RID, s->token);
	raw_frame(r, 1, frame, (size_t)n);
	open_agent(&s->agent, &I1, s->id);
	/* pong, start_publication, and for our own ends the word about direct links before it */
	wait_for(r->frames >= (strncmp(agent, "tunneld/", 8) == 0 ? 3 : 2));
}

static uint64_t gap_after_complete(const char *agent)
{
	struct raw r;
	struct ses s;
	join(&r, &s, agent);
	int k = r.frames;
	send_msg(&s.agent, TNL_MT_OUTPUT, TNL_PT_HANDSHAKE_REQUEST, 0, "{}", 2);
	send_msg(&s.agent, TNL_MT_OUTPUT, TNL_PT_HANDSHAKE_COMPLETE, 1, "{}", 2);
	send_msg(&s.agent, TNL_MT_ACK, TNL_PT_HANDSHAKE_COMPLETE, 1, "{}", 2);
	send_msg(&s.agent, TNL_MT_OUTPUT, TNL_PT_OUTPUT, 2, "x", 1);
	send_msg(&s.agent, TNL_MT_OUTPUT, TNL_PT_OUTPUT, 3, "y", 1);
	wait_for(r.frames == k + 5);
	assert_true(r.frame_at[k + 1] - r.frame_at[k] < 40 * TD_MS);
	assert_true(r.frame_at[k + 4] - r.frame_at[k + 2] < 40 * TD_MS);
	uint64_t gap = r.frame_at[k + 2] - r.frame_at[k + 1];
	raw_free(&r);
	session_done(&s);
	return gap;
}

static void test_hold(void **state)
{
	assert_true(gap_after_complete("Go-http-client/1.1") >= 45 * TD_MS);
	assert_int_equal(status_of("counters/client_holds"), 1);
	assert_true(gap_after_complete("tunneld/0.1.0") < 40 * TD_MS);
	assert_int_equal(status_of("counters/client_holds"), 1);
}

/* --- broken WebSocket frames ------------------------------------------------------------- */
static void broken(const void *p, size_t n, uint16_t code)
{
	struct raw r;
	struct ses s;
	join(&r, &s, "tunneld/0.1.0");
	long before = status_of("counters/frames_refused");
	size_t from = r.parsed;
	raw_send(&r, p, n);
	wait_for(r.closed);
	assert_int_equal(r.in[from], 0x88); /* a close frame with the code, then the end */
	assert_int_equal(tnl_get_be16(r.in + from + 2), code);
	assert_int_equal(status_of("counters/frames_refused"), before + 1);
	wait_for(s.agent.n == 2); /* start, pause: the session itself goes on */
	raw_free(&r);
	session_done(&s);
	char body[200];
	snprintf(body, sizeof(body), "{\"SessionId\":\"%s\"}", s.id);
	ssm(&OPS, "TerminateSession", body);
}

static void test_broken_frames(void **state)
{
	broken("\x82\x01x", 3, 1002);				/* not masked */
	broken("\xc2\x81\0\0\0\0x", 7, 1002);			/* reserved bit */
	broken("\x83\x81\0\0\0\0x", 7, 1002);			/* reserved opcode */
	broken("\x82\xff\0\0\0\0\0\x05\0\0\0\0\0\0", 14, 1009); /* 320 KiB announced */
	broken("\x89\xfe\0\x80\0\0\0\0", 8, 1002);		/* a control frame of 128 bytes */
	broken("\x80\x81\0\0\0\0x", 7, 1002);			/* continues nothing */
	broken("\x81\x82\0\0\0\0\xc3\x28", 8, 1007);		/* text that is no UTF-8 */
}

/* --- limits ---------------------------------------------------------------------------------- */
static int begin_limits(void **state)
{
	return begin_with("max_sessions = 2\nper_peer_connections = 8");
}

static void test_limits(void **state)
{
	struct ses s[2];
	struct end e[9] = {0};
	int n = 0;
	for (int i = 0; i < 2; i++)
		session_start(&s[i], "i-1");
	refused_as(&OPS, "StartSession", "{\"Target\":\"i-1\"}", "ThrottlingException");
	for (int i = 0; i < 9; i++) /* upgrades that never show a token */
		dial(&e[i], NULL, "/v1/data-channel/whatever");
	for (int i = 0; i < 9; i++)
		n += e[i].open;
	assert_int_equal(n, 9);
	wait_for(e[0].closed); /* the oldest made way for the ninth, and nobody else */
	assert_int_equal(e[0].code, 1008);
	turns_for(50 * TD_MS);
	for (int i = 1; i < 9; i++)
		assert_false(e[i].closed);
	for (int i = 0; i < 9; i++)
		end_reset(&e[i]);
}

static void test_token_frame_is_waited_for(void **state)
{
	struct end e = {0};
	dial(&e, NULL, "/v1/data-channel/whatever");
	uint64_t start = T.l->now;
	wait_for(e.closed);
	assert_int_equal(e.code, 1008);
	assert_in_range(T.l->now - start, 9 * TD_SEC, 12 * TD_SEC);
}

/* --- key calls --------------------------------------------------------------------------------- */
static int begin_kms(void **state)
{
	test_begin(NULL);
	memset(&control, 0, sizeof(control));
	gateway_stop();
	write_file("kms.key", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n");
	snprintf(T.extra, sizeof(T.extra),
		 "kms_key_file = kms.key\nkms_key_id = arn:aws:kms:eu-west-1:000000000000:key/abc\n"
		 "encrypt_shells = yes");
	gateway_start();
	open_control(&control, &I1, "i-1");
	return 0;
}

static int kms(const struct tnl_sigv4_keys *k, const char *op, const char *fmt, const char *session, const char *target,
	       const char *extra)
{
	char body[2000], name[64];
	snprintf(name, sizeof(name), "TrentService.%s", op);
	snprintf(body, sizeof(body),
		 "{\"KeyId\":\"arn:aws:kms:eu-west-1:000000000000:key/%s\",%s,\"EncryptionContext\":{"
		 "\"aws:ssm:TargetId\":\"%s\",\"aws:ssm:SessionId\":\"%s\"%s}}",
		 "abc", fmt, target, session, extra);
	return call(k, "kms", name, body);
}

static void test_kms(void **state)
{
	struct ses s;
	char plain[200], blob[400], decrypt[600];
	session_start(&s, "i-1");
	static const char gen[] = "\"NumberOfBytes\":64", more[] = ",\"aws:ssm:RandomChallenge\":\"AAAA\"";
	assert_int_equal(kms(&OPS, "GenerateDataKey", gen, s.id, "i-1", more), 200);
	snprintf(plain, sizeof(plain), "%s", tnl_json_get_str(R.json, "Plaintext"));
	snprintf(blob, sizeof(blob), "%s", tnl_json_get_str(R.json, "CiphertextBlob"));
	assert_int_equal(strlen(plain), TNL_B64_LEN(64));
	assert_string_equal(tnl_json_get_str(R.json, "KeyId"), "arn:aws:kms:eu-west-1:000000000000:key/abc");
	snprintf(decrypt, sizeof(decrypt), "\"CiphertextBlob\":\"%s\"", blob);
	assert_int_equal(kms(&I1, "Decrypt", decrypt, s.id, "i-1", more), 200);
	assert_string_equal(tnl_json_get_str(R.json, "Plaintext"), plain);
	assert_int_equal(kms(&I1, "Decrypt", decrypt, s.id, "i-1", ",\"aws:ssm:RandomChallenge\":\"AAAB\""),
			 400); /* context */
	assert_string_equal(R.type, "InvalidCiphertextException");
	assert_int_equal(kms(&I1, "Decrypt", decrypt, s.id, "i-1", ""), 400);
	assert_string_equal(R.type, "InvalidCiphertextException");
	decrypt[40] = decrypt[40] == 'A' ? 'B' : 'A';
	assert_int_equal(kms(&I1, "Decrypt", decrypt, s.id, "i-1", more), 400);
	assert_string_equal(R.type, "InvalidCiphertextException");
	assert_int_equal(kms(&I1, "Decrypt", "\"CiphertextBlob\":\"AQ==\"", s.id, "i-1", more), 400);
	assert_string_equal(R.type, "InvalidCiphertextException");
	assert_int_equal(kms(&I2, "Decrypt", decrypt, s.id, "i-1", more), 400); /* another instance */
	assert_string_equal(R.type, "AccessDeniedException");
	assert_int_equal(kms(&DEV, "GenerateDataKey", gen, s.id, "i-1", more), 400); /* another user */
	assert_string_equal(R.type, "AccessDeniedException");
	assert_int_equal(kms(&OPS, "GenerateDataKey", gen, "ops-nosuch", "i-1", more), 400);
	assert_string_equal(R.type, "AccessDeniedException");
	assert_int_equal(kms(&OPS, "GenerateDataKey", "\"NumberOfBytes\":5000", s.id, "i-1", more), 400);
	assert_string_equal(R.type, "ValidationException");
	assert_int_equal(call(&OPS, "kms", "TrentService.GenerateDataKey",
			      "{\"KeyId\":\"other\",\"NumberOfBytes\":64}"),
			 400);
	assert_string_equal(R.type, "NotFoundException");
}

/* The preference reaches the agent for the sessions that it is for. */
static void test_kms_preference(void **state)
{
	struct ses s;
	session_start(&s, "i-1");
	wait_for(control.n == 1);
	assert_null(strstr(control.f[0].text, "kmsKeyId"));
	assert_int_equal(ssm(&OPS, "StartSession", "{\"Target\":\"i-1\"}"), 200);
	wait_for(control.n == 2);
	assert_non_null(
	    strstr(control.f[1].text, "\\\"kmsKeyId\\\":\\\"arn:aws:kms:eu-west-1:000000000000:key/abc\\\""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T2(test_hold, begin),	   T2(test_broken_frames, begin),
	    T2(test_limits, begin_limits), T2(test_token_frame_is_waited_for, begin),
	    T2(test_kms, begin_kms),	   T2(test_kms_preference, begin_kms),
	};
	return cmocka_run_group_tests_name("gateway wire", tests, NULL, NULL);
}
