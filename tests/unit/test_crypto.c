/* Hashes, HMAC, GCM and the random pool, against published vectors. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/enc.h"
#include <string.h>

static void expect_hex(const uint8_t *p, size_t n, const char *want)
{
	char hex[129];

	tnl_hex(p, n, hex);
	assert_string_equal(hex, want);
}

static void test_sha(void **state)
{
	uint8_t d[32];

	/* FIPS 180-4 examples */
	tnl_sha256("abc", 3, d);
	expect_hex(d, 32, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	tnl_sha256("", 0, d);
	expect_hex(d, 32, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	tnl_sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56, d);
	expect_hex(d, 32, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
	tnl_sha1("abc", 3, d);
	expect_hex(d, 20, "a9993e364706816aba3e25717850c26c9cd0d89d");
}

/* RFC 4231, test cases 1, 2, 6 and 7 (keys shorter and longer than a block). */
static void test_hmac(void **state)
{
	uint8_t key[131], d[32];

	memset(key, 0x0b, 20);
	tnl_hmac_sha256(key, 20, "Hi There", 8, d);
	expect_hex(d, 32, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
	tnl_hmac_sha256("Jefe", 4, "what do ya want for nothing?", 28, d);
	expect_hex(d, 32, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
	memset(key, 0xaa, 131);
	tnl_hmac_sha256(key, 131, "Test Using Larger Than Block-Size Key - Hash Key First", 54, d);
	expect_hex(d, 32, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
	/* output over the key, as key derivation does it */
	memset(key, 0x0b, 20);
	memset(d, 0x0b, 20);
	tnl_hmac_sha256(d, 20, "Hi There", 8, d);
	expect_hex(d, 32, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
	tnl_hmac_sha256(NULL, 0, "", 0, d);
	expect_hex(d, 32, "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

static void test_ct_eq(void **state)
{
	assert_true(tnl_ct_eq("abc", "abc", 3));
	assert_false(tnl_ct_eq("abc", "abd", 3));
	assert_true(tnl_ct_eq("abc", "abd", 2));
	assert_true(tnl_ct_eq("", "", 0));
}

static void test_gcm(void **state)
{
	/* The GCM paper's test case 14: AES-256, zero key, nonce and 16 bytes. */
	uint8_t key[32] = {0}, nonce[12] = {0}, zero[16] = {0}, out[80], back[64];
	struct tnl_gcm *g = tnl_gcm_new(key);

	assert_non_null(g);
	assert_int_equal(tnl_gcm_seal(g, nonce, zero, 16, NULL, 0, out), 0);
	expect_hex(out, 32, "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919");
	assert_int_equal(tnl_gcm_open(g, nonce, out, 32, NULL, 0, back), 0);
	assert_memory_equal(back, zero, 16);
	for (int i = 0; i < 32; i++) {
		out[i] ^= 1;
		assert_int_equal(tnl_gcm_open(g, nonce, out, 32, NULL, 0, back), TNL_ECRYPTO);
		out[i] ^= 1;
	}
	assert_int_equal(tnl_gcm_open(g, nonce, out, 15, NULL, 0, back), TNL_ECRYPTO);
	assert_int_equal(tnl_gcm_open(g, nonce, out, 32, (const uint8_t *)"a", 1, back), TNL_ECRYPTO);
	nonce[0] = 1;
	assert_int_equal(tnl_gcm_open(g, nonce, out, 32, NULL, 0, back), TNL_ECRYPTO);
	/* in place, with additional data, and empty */
	memcpy(out, "in place", 8);
	assert_int_equal(tnl_gcm_seal(g, nonce, out, 8, (const uint8_t *)"aad", 3, out), 0);
	assert_int_equal(tnl_gcm_open(g, nonce, out, 24, (const uint8_t *)"aad", 3, out), 0);
	assert_memory_equal(out, "in place", 8);
	assert_int_equal(tnl_gcm_seal(g, nonce, out, 0, NULL, 0, out), 0);
	assert_int_equal(tnl_gcm_open(g, nonce, out, 16, NULL, 0, out), 0);
	tnl_gcm_free(g);
	tnl_gcm_free(NULL);
}

static int fills;

static void counting(void *ctx, uint8_t *p, size_t n)
{
	uint8_t *next = ctx;

	for (size_t i = 0; i < n; i++)
		p[i] = (*next)++;
	fills++;
}

static void test_random_pool(void **state)
{
	uint8_t next = 0, a[16], b[16], big[5000];

	tnl_random_source(counting, &next);
	fills = 0;
	tnl_random(a, 16);
	tnl_random(b, 16);
	assert_int_equal(fills, 1); /* many draws from one call of the source */
	for (int i = 0; i < 16; i++) {
		assert_int_equal(a[i], i);
		assert_int_equal(b[i], 16 + i);
	}
	for (int i = 0; i < 1000; i++)
		tnl_random(a, 16);
	assert_in_range(fills, 4, 5);
	tnl_random(big, sizeof(big));
	/* a new source: nothing of the pool is used again */
	fills = 0;
	tnl_random_source(counting, &next);
	tnl_random(a, 1);
	assert_int_equal(fills, 1);
	tnl_random_source(NULL, NULL);
	tnl_random(a, 16);
	tnl_random(b, 16);
	assert_memory_not_equal(a, b, 16);
}

static void test_uuid(void **state)
{
	uint8_t u[16], v[16];

	tnl_uuid_new(u);
	tnl_uuid_new(v);
	assert_memory_not_equal(u, v, 16);
	assert_int_equal(u[6] >> 4, 4);
	assert_int_equal(u[8] >> 6, 2);
}

static int no_leaks(void **state)
{
	return tnl_alloc_live() == 0 ? 0 : -1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_sha), cmocka_unit_test(test_hmac),	    cmocka_unit_test(test_ct_eq),
	    cmocka_unit_test(test_gcm), cmocka_unit_test(test_random_pool), cmocka_unit_test(test_uuid),
	};

	return cmocka_run_group_tests(tests, NULL, no_leaks);
}
