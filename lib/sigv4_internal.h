/* Private to lib/sigv4*.c. */
#ifndef TNL_SIGV4_INTERNAL_H
#define TNL_SIGV4_INTERNAL_H
#include "lib/sigv4.h"

#define TNL_SIGV4_ALGORITHM "AWS4-HMAC-SHA256"
#define TNL_SIGV4_MAX_PARAMS 128
#define TNL_SIGV4_MAX_HEADERS 128
#define TNL_SIGV4_MAX_SECRET 512
#define TNL_SIGV4_MAX_CANONICAL (128u * 1024) /* a head of 16 KiB, each byte of it encoded twice */

int tnl_sigv4_string_to_sign(const struct tnl_buf *canonical, const char *amz_date, const char *date,
			     const char *region, const char *service, struct tnl_buf *out);
int tnl_sigv4_signature(const char *secret, const char *date, const char *region, const char *service,
			const struct tnl_buf *sts, uint8_t out[32]);

#endif
