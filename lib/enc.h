/* Encodings: hex, base64 (RFC 4648), URI (RFC 3986, AWS flavour), UUID, dates,
 * UTF-8 check, escaping for logs and terminals. Writers NUL-terminate. */
#ifndef TNL_ENC_H
#define TNL_ENC_H
#include "lib/buf.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void tnl_hex(const uint8_t *p, size_t n, char *out /* 2n+1 */);
int tnl_unhex(const char *s, size_t n, uint8_t *out /* n/2 */); /* TNL_ESYNTAX */

#define TNL_B64_LEN(n) (((n) + 2) / 3 * 4)
void tnl_b64(const uint8_t *p, size_t n, char *out /* TNL_B64_LEN(n)+1 */);
/* Strict: padding is required, no white space.  Returns decoded length or TNL_ESYNTAX. */
int tnl_unb64(const char *s, size_t n, uint8_t *out, size_t cap);

/* Percent-encode all but unreserved (A-Za-z0-9-_.~); '/' kept when keep_slash. */
int tnl_uri_encode(struct tnl_buf *b, const char *s, size_t n, bool keep_slash);
int tnl_uri_decode(struct tnl_buf *b, const char *s, size_t n); /* TNL_ESYNTAX on bad % */

/* UUID bytes are in natural (text) order everywhere but on the wire. */
#define TNL_UUID_STR 37
void tnl_uuid_str(const uint8_t u[16], char out[TNL_UUID_STR]); /* hyphenated lower case */
int tnl_uuid_parse(const char *s, size_t n, uint8_t u[16]);
void tnl_uuid_v4(uint8_t u[16], const uint8_t rnd[16]); /* sets version and variant */

#define TNL_AMZDATE_STR 17
void tnl_amz_date(uint64_t unix_s, char out[TNL_AMZDATE_STR]); /* 20261122T091008Z */
int tnl_amz_date_parse(const char *s, size_t n, uint64_t *unix_s);
#define TNL_ISO_STR 25
void tnl_iso_date(uint64_t unix_ms, char out[TNL_ISO_STR]); /* 2026-11-22T09:09:49.000Z */
int tnl_iso_date_parse(
    const char *s, size_t n,
    uint64_t *unix_ms); /* with or without fraction; Z, UTC, GMT or ±hh:mm; with or without - and : */

/* Length of the valid character at p, of n > 0 bytes, or 0. */
size_t tnl_utf8_len(const uint8_t *p, size_t n);
bool tnl_utf8_valid(const uint8_t *p, size_t n);
/* How much of n bytes stays when at most so many may: not cut in mid-character. */
size_t tnl_utf8_cut(const char *s, size_t n, size_t most);
/* Length of the character at p, of n > 0 bytes; 0: it is invalid, or must not reach a terminal as it is (controls, C1
 * too, what turns the direction of writing, and Unicode's ends of lines). */
size_t tnl_utf8_printable(const uint8_t *p, size_t n);
/* Appends text with what is not printable escaped as \xNN; quote and backslash too when `quote`. */
int tnl_escape(struct tnl_buf *b, const char *s, size_t n, bool quote);
bool tnl_ieq(const char *a, const char *b); /* ASCII case-insensitive */

static inline uint16_t tnl_get_be16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}
static inline uint32_t tnl_get_be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}
static inline uint64_t tnl_get_be64(const uint8_t *p)
{
	return (uint64_t)tnl_get_be32(p) << 32 | tnl_get_be32(p + 4);
}
static inline uint16_t tnl_get_le16(const uint8_t *p)
{
	return (uint16_t)(p[1] << 8 | p[0]);
}
static inline uint32_t tnl_get_le32(const uint8_t *p)
{
	return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}
static inline void tnl_put_be16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}
static inline void tnl_put_be32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
}
static inline void tnl_put_be64(uint8_t *p, uint64_t v)
{
	tnl_put_be32(p, (uint32_t)(v >> 32));
	tnl_put_be32(p + 4, (uint32_t)v);
}
static inline void tnl_put_le16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}
static inline void tnl_put_le32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
	p[2] = (uint8_t)(v >> 16);
	p[3] = (uint8_t)(v >> 24);
}

#endif
