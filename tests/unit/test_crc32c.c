/* CRC-32C by instruction and from tables: published vectors, and both alike at every length and alignment. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include "lib/crc32c.h"
#include <string.h>

static void expect_crc(const void *p, size_t n, uint32_t want)
{
	uint32_t crc = want;

	assert_int_equal(tnl_crc32c_tables(p, n), want);
	(void)tnl_crc32c_by_processor(p, n, &crc); /* false: there is but one way */
	assert_int_equal(crc, want);
	assert_int_equal(tnl_crc32c(p, n), want);
}

/* RFC 3720, appendix B.4, and the check value of the catalogues. */
static void test_vectors(void **state)
{
	static const uint8_t read10[48] = {0x01, 0xc0, 0,    0,	   0,	 0, 0, 0, 0, 0, 0, 0, 0,   0,
					   0,	 0,    0x14, 0,	   0,	 0, 0, 0, 4, 0, 0, 0, 0,   0x14,
					   0,	 0,    0,    0x18, 0x28, 0, 0, 0, 0, 0, 0, 0, 0x02};
	uint8_t p[32];

	expect_crc("", 0, 0);
	expect_crc("123456789", 9, 0xe3069283);
	memset(p, 0, sizeof(p));
	expect_crc(p, sizeof(p), 0x8a9136aa);
	memset(p, 0xff, sizeof(p));
	expect_crc(p, sizeof(p), 0x62a8ab43);
	for (unsigned i = 0; i < sizeof(p); i++)
		p[i] = (uint8_t)i;
	expect_crc(p, sizeof(p), 0x46dd794e);
	for (unsigned i = 0; i < sizeof(p); i++)
		p[i] = (uint8_t)(31 - i);
	expect_crc(p, sizeof(p), 0x113fdb5c);
	expect_crc(read10, sizeof(read10), 0xd9963a56);
}

static uint32_t bit_by_bit(const uint8_t *p, size_t n)
{
	uint32_t c = UINT32_MAX;

	while (n--) {
		c ^= *p++;
		for (int i = 0; i < 8; i++)
			c = c >> 1 ^ (c & 1 ? 0x82f63b78u : 0);
	}
	return ~c;
}

/* Stretches of 1,024 and of 128 bytes, words, bytes: each with and without what comes after it. */
static void test_lengths(void **state)
{
	static uint8_t p[9000];

	for (unsigned i = 0, x = 1; i < sizeof(p); i++, x = x * 1103515245 + 12345)
		p[i] = (uint8_t)(x >> 16);
	for (size_t n = 0; n < 1200; n++)
		expect_crc(p + n % 9, n, bit_by_bit(p + n % 9, n));
	for (size_t n = 3000; n < 8900; n += 61)
		expect_crc(p + n % 9, n, bit_by_bit(p + n % 9, n));
}

static void test_flips(void **state)
{
	static uint8_t p[4096];
	uint32_t right = tnl_crc32c(p, sizeof(p));

	for (size_t bit = 0; bit < 8 * sizeof(p); bit++) {
		p[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_not_equal(tnl_crc32c(p, sizeof(p)), right);
		p[bit / 8] = 0;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_vectors),
	    cmocka_unit_test(test_lengths),
	    cmocka_unit_test(test_flips),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
