/* CRC-32C in two ways.  On x86-64 with SSE4.2 and PCLMULQDQ: the crc32 instruction takes eight bytes a cycle, but its
 * result comes three cycles later, so three stretches of a block are summed side by side and joined by a
 * multiplication: a sum over n more bytes of zeros is the sum times x^(8n), modulo the polynomial.  Elsewhere: eight
 * tables, eight bytes a step. */
#include "lib/crc32c.h"
#include "lib/enc.h"
#include <string.h>

#define POLYNOMIAL 0x82f63b78u /* lowest power in the highest bit, as all that follows */

/* table[k][b]: what byte b is worth k bytes before the end. Filled before main(): no call has to look whether it is. */
static uint32_t table[8][256];

__attribute__((constructor)) static void fill_tables(void)
{
	for (uint32_t b = 0; b < 256; b++) {
		uint32_t c = b;
		for (int i = 0; i < 8; i++)
			c = c >> 1 ^ (c & 1 ? POLYNOMIAL : 0);
		table[0][b] = c;
	}
	for (int k = 1; k < 8; k++)
		for (int b = 0; b < 256; b++)
			table[k][b] = table[k - 1][b] >> 8 ^ table[0][table[k - 1][b] & 0xff];
}

uint32_t tnl_crc32c_tables(const void *p, size_t n)
{
	const uint8_t *s = p;
	uint32_t c = UINT32_MAX;

	for (; n >= 8; s += 8, n -= 8) {
		uint32_t lo = c ^ tnl_get_le32(s), hi = tnl_get_le32(s + 4);
		c = table[7][lo & 0xff] ^ table[6][lo >> 8 & 0xff] ^ table[5][lo >> 16 & 0xff] ^ table[4][lo >> 24] ^
		    table[3][hi & 0xff] ^ table[2][hi >> 8 & 0xff] ^ table[1][hi >> 16 & 0xff] ^ table[0][hi >> 24];
	}
	while (n--)
		c = c >> 8 ^ table[0][(c ^ *s++) & 0xff];
	return ~c;
}

#ifdef __x86_64__
#include <nmmintrin.h>
#include <wmmintrin.h>

#define CODE __attribute__((target("sse4.2,pclmul")))

/* x^(16n - 33) and x^(8n - 33) for stretches of n bytes: the crc32 instruction multiplies by x^32 what it is given, and
 * a product of two such numbers stands one place too low. */
struct stretch {
	size_t n;
	uint32_t two, one;
};
static const struct stretch longer = {1024, 0xa51b6135, 0x170076fa}, shorter = {128, 0xb9e02b86, 0x0d3b6092};

static CODE uint64_t times(uint64_t crc, uint32_t power)
{
	return (uint64_t)_mm_cvtsi128_si64(
	    _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)crc), _mm_cvtsi64_si128((long long)power), 0));
}

static uint64_t word(const uint8_t *p)
{
	uint64_t v;
	memcpy(&v, p, sizeof(v));
	return v;
}

static CODE uint64_t three_stretches(uint64_t a, const uint8_t *p, const struct stretch *s)
{
	uint64_t b = 0, c = 0;

	for (const uint8_t *end = p + s->n; p < end; p += 8) {
		a = _mm_crc32_u64(a, word(p));
		b = _mm_crc32_u64(b, word(p + s->n));
		c = _mm_crc32_u64(c, word(p + 2 * s->n));
	}
	return c ^ _mm_crc32_u64(0, times(a, s->two) ^ times(b, s->one));
}

static CODE uint32_t crc_by_instruction(const uint8_t *p, size_t n)
{
	uint64_t c = UINT32_MAX;

	for (; n >= 3 * longer.n; p += 3 * longer.n, n -= 3 * longer.n)
		c = three_stretches(c, p, &longer);
	for (; n >= 3 * shorter.n; p += 3 * shorter.n, n -= 3 * shorter.n)
		c = three_stretches(c, p, &shorter);
	for (; n >= 8; p += 8, n -= 8)
		c = _mm_crc32_u64(c, word(p));
	while (n--)
		c = _mm_crc32_u8((uint32_t)c, *p++);
	return ~(uint32_t)c;
}

bool tnl_crc32c_by_processor(const void *p, size_t n, uint32_t *crc)
{
	if (!__builtin_cpu_supports("sse4.2") || !__builtin_cpu_supports("pclmul"))
		return false;
	*crc = crc_by_instruction(p, n);
	return true;
}
#else
bool tnl_crc32c_by_processor(const void *p, size_t n, uint32_t *crc)
{
	return false;
}
#endif

uint32_t tnl_crc32c(const void *p, size_t n)
{
	uint32_t crc;

	return tnl_crc32c_by_processor(p, n, &crc) ? crc : tnl_crc32c_tables(p, n);
}
