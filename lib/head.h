/* The head of a stream: where it goes, said by the client before the first byte of data.  Both ends agree on it in the
 * handshake (Dial); then each stream that the client opens has one, and is of the kind TOLD (lib/session.h).
 *
 *   2 bytes  how many follow, big endian: 4 … TNL_HEAD_MAX - 2
 *   1        kind: 1 tcp (a host name or an address, and a port), 2 unix (an absolute path, port 0), 3 udp (as tcp)
 *   2        port, big endian
 *   1        length of the name
 *   n        the name: host or path, printable ASCII or bytes of a path; no white space, control, quote or backslash
 *   …        fields, as many as fit: 1 byte type, 2 bytes length, value.  A type from 128 on has to be understood, or
 * the head is refused; others are skipped by who does not know them.
 *
 * The reader takes the bytes as they come and keeps no more than one head. */
#ifndef TNL_HEAD_H
#define TNL_HEAD_H
#include "lib/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TNL_DIAL_VERSION 1
#define TNL_HEAD_MAX 512u
#define TNL_HEAD_NAME 255u
#define TNL_HEAD_PATH 107u /* of a Unix socket */
#define TNL_HEAD_FIELDS 240u
#define TNL_HEAD_MUST 128u /* types from here on have to be understood */

enum tnl_head_kind { TNL_HEAD_NONE, TNL_HEAD_TCP, TNL_HEAD_UNIX, TNL_HEAD_UDP };

struct tnl_head {
	enum tnl_head_kind kind;
	uint16_t port;
	char name[TNL_HEAD_NAME + 1];
	uint8_t fields[TNL_HEAD_FIELDS]; /* as on the wire */
	size_t nfields;
};

/* *h becomes one without fields.  TNL_EINVAL: no such name, path or port. */
int tnl_head_set(struct tnl_head *h, enum tnl_head_kind kind, const char *name, uint16_t port) TNL_MUST_USE;
/* One field more; TNL_ELIMIT: it does not fit. */
int tnl_head_add(struct tnl_head *h, uint8_t type, const void *value, size_t n) TNL_MUST_USE;
/* The value of the first field of that type, borrowed; NULL: there is none. */
const uint8_t *tnl_head_field(const struct tnl_head *h, uint8_t type, size_t *n);
/* Its bytes on the wire; how many. */
size_t tnl_head_write(const struct tnl_head *h, uint8_t out[TNL_HEAD_MAX]);
/* A whole one, n bytes with those of its length.  0, TNL_ESYNTAX. */
int tnl_head_parse(const uint8_t *p, size_t n, struct tnl_head *h) TNL_MUST_USE;

struct tnl_head_reader { /* zeroed: at the beginning */
	uint8_t len[2];
	size_t have;
	uint8_t *b; /* the whole head, once its length is known */
};
/* Takes bytes up to the end of the head: *used of them.  1: *h is it; 0: more is to come; TNL_ESYNTAX, TNL_ENOMEM. */
int tnl_head_feed(struct tnl_head_reader *r, const uint8_t *p, size_t n, size_t *used, struct tnl_head *h) TNL_MUST_USE;
void tnl_head_reader_fini(struct tnl_head_reader *r);

#endif
