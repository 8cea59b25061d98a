/* Masking of WebSocket payloads, 64 bytes at a time, in whatever registers the processor has for it. dst may be src. */
#ifndef TNL_WS_INTERNAL_H
#define TNL_WS_INTERNAL_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint64_t tnl_ws_wide __attribute__((vector_size(16)));

static inline void tnl_ws_mask_wide(uint8_t *dst, const uint8_t *src, uint64_t key)
{
	tnl_ws_wide w;

	memcpy(&w, src, sizeof(w));
	w ^= key;
	memcpy(dst, &w, sizeof(w));
}

static inline void tnl_ws_mask(uint8_t *dst, const uint8_t *src, size_t n, const uint8_t key[4])
{
	uint32_t k32;
	uint64_t k;
	size_t i = 0;

	memcpy(&k32, key, 4);
	k = (uint64_t)k32 << 32 | k32;
	for (; n - i >= 64; i += 64) {
		tnl_ws_mask_wide(dst + i, src + i, k);
		tnl_ws_mask_wide(dst + i + 16, src + i + 16, k);
		tnl_ws_mask_wide(dst + i + 32, src + i + 32, k);
		tnl_ws_mask_wide(dst + i + 48, src + i + 48, k);
	}
	for (; n - i >= 16; i += 16)
		tnl_ws_mask_wide(dst + i, src + i, k);
	for (; i < n; i++)
		dst[i] = src[i] ^ key[i & 3];
}

#endif
