/* Payload encryption, against the captured exchange of the stock programs and against itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "lib/alloc.h"
#include "lib/num.h"
#include "lib/enc.h"
#include "lib/handshake.h"
#include "lib/seal.h"
#include "tests/vectors/kms_shell.h"

static const struct tnl_seal_about about; /* stock ends bind nothing */

static size_t unhex(const char *hex, uint8_t *out, size_t cap)
{
	size_t n = strlen(hex);
	assert_true(n / 2 <= cap);
	assert_int_equal(tnl_unhex(hex, n, out), 0);
	return n / 2;
}

static void captured_exchange(void **state)
{
	static const char *const plain[] = {"echo marker-$((40+2))\n", "$ echo marker-$((40+2))\r\nmarker-42\r\n$ ",
					    "exit\n", "exit\r\n"};
	uint8_t key[64], b[2048], out[2048], challenge[2][64];
	size_t outputs = 0, challenges = 0;
	(void)state;
	assert_int_equal(unhex(kms_key_hex, key, sizeof(key)), 64);
	struct tnl_seal *agent = tnl_seal_new(key, true), *client = tnl_seal_new(key, false);
	for (size_t i = 0; i < TNL_COUNT(kms_messages); i++) {
		size_t n = unhex(kms_messages[i].hex, b, sizeof(b));
		struct tnl_seal *reader = kms_messages[i].from_agent ? client : agent;
		if (kms_messages[i].ptype == 8 || kms_messages[i].ptype == 9) {
			int got = tnl_hs_challenge_parse(b, n, out, sizeof(out));
			assert_int_equal(got, 64 + TNL_SEAL_OVERHEAD);
			assert_int_equal(tnl_seal_open(reader, &about, out, (size_t)got, challenge[challenges++]), 0);
		} else if (kms_messages[i].ptype == 1) {
			assert_int_equal(tnl_seal_open(reader, &about, b, n, out), 0);
			assert_int_equal(n - TNL_SEAL_OVERHEAD, strlen(plain[outputs]));
			assert_memory_equal(out, plain[outputs], strlen(plain[outputs]));
			outputs++;
			/* The other direction's key does not open it. */
			assert_int_equal(tnl_seal_open(reader == client ? agent : client, &about, b, n, out),
					 TNL_ECRYPTO);
		}
	}
	assert_int_equal(outputs, 4);
	assert_int_equal(challenges, 2);
	assert_memory_equal(challenge[0], challenge[1], 64); /* the same plaintext came back */
	tnl_seal_free(agent);
	tnl_seal_free(client);
	assert_int_equal(tnl_alloc_live(), 0);
}

static void round_trip_and_nonces(void **state)
{
	uint8_t key[64] = {1, 2, 3}, b[200], out[200], last[12];
	(void)state;
	key[40] = 9;
	struct tnl_seal *agent = tnl_seal_new(key, true), *client = tnl_seal_new(key, false);
	for (size_t n = 0; n < 100; n++) {
		memset(b + TNL_SEAL_NONCE, (int)n, n);
		assert_int_equal(tnl_seal_seal(agent, &about, b, n), 0);
		if (n > 0) { /* counts up by one, little endian: no nonce comes twice */
			for (int i = 0; i < 12 && ++last[i] == 0; i++)
				;
			assert_memory_equal(b, last, 12);
		}
		memcpy(last, b, 12);
		assert_int_equal(tnl_seal_open(client, &about, b, n + TNL_SEAL_OVERHEAD, out), 0);
		for (size_t i = 0; i < n; i++)
			assert_int_equal(out[i], n);
	}
	/* Two sessions under one key start at different random places. */
	struct tnl_seal *other = tnl_seal_new(key, true);
	assert_int_equal(tnl_seal_seal(other, &about, b, 0), 0);
	assert_memory_not_equal(b, last, 8);
	tnl_seal_free(other);
	tnl_seal_free(agent);
	tnl_seal_free(client);
	tnl_seal_free(NULL);
	assert_int_equal(tnl_alloc_live(), 0);
}

static void every_bit_matters(void **state)
{
	uint8_t key[64] = {7}, b[40 + TNL_SEAL_OVERHEAD], out[40];
	(void)state;
	struct tnl_seal *agent = tnl_seal_new(key, true), *client = tnl_seal_new(key, false);
	memset(b, 'x', sizeof(b));
	assert_int_equal(tnl_seal_seal(agent, &about, b, 40), 0);
	for (size_t i = 0; i < 8 * sizeof(b); i++) {
		b[i / 8] ^= (uint8_t)(1 << (i % 8));
		assert_int_equal(tnl_seal_open(client, &about, b, sizeof(b), out), TNL_ECRYPTO);
		b[i / 8] ^= (uint8_t)(1 << (i % 8));
	}
	for (size_t n = 0; n < sizeof(b); n++)
		assert_int_equal(tnl_seal_open(client, &about, b, n, out), TNL_ECRYPTO);
	assert_int_equal(tnl_seal_open(client, &about, b, sizeof(b), out), 0);
	tnl_seal_free(agent);
	tnl_seal_free(client);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(captured_exchange),
	    cmocka_unit_test(round_trip_and_nonces),
	    cmocka_unit_test(every_bit_matters),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
