/* CRC-32C (Castagnoli, RFC 3720): what our own ends agree on as a message's digest.  It finds what memory or a relay
 * does to a payload by mistake, as TCP's checksum would; against whoever does it on purpose stand TLS and a session's
 * encryption. */
#ifndef TNL_CRC32C_H
#define TNL_CRC32C_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* By the processor's own instruction where it has one, else from tables: the same result. */
uint32_t tnl_crc32c(const void *p, size_t n);
/* The two ways, for tests. */
uint32_t tnl_crc32c_tables(const void *p, size_t n);
bool tnl_crc32c_by_processor(const void *p, size_t n, uint32_t *crc); /* false: this one has no such instruction */

#endif
