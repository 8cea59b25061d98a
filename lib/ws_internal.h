/* Masking of WebSocket payloads, 32 bytes at a time. dst may be src. */
#ifndef TNL_WS_INTERNAL_H
#define TNL_WS_INTERNAL_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline void tnl_ws_mask(uint8_t *dst, const uint8_t *src, size_t n, const uint8_t key[4])
{
	uint32_t k32;
	uint64_t k, w[4];
	size_t i = 0;

	memcpy(&k32, key, 4);
	k = (uint64_t)k32 << 32 | k32;
	for (; n - i >= 32; i += 32) {
		memcpy(w, src + i, 32);
		w[0] ^= k;
		w[1] ^= k;
		w[2] ^= k;
		w[3] ^= k;
		memcpy(dst + i, w, 32);
	}
	for (; n - i >= 8; i += 8) {
		memcpy(w, src + i, 8);
		w[0] ^= k;
		memcpy(dst + i, w, 8);
	}
	for (; i < n; i++)
		dst[i] = src[i] ^ key[i & 3];
}

#endif
