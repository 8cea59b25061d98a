/* Datagrams on a stream of bytes: each is a two-byte length, big endian, and its bytes (as RFC 4571 has it).
 *
 *   queue    what waits to be sent, bounded: the oldest go when there is no room, as datagrams wait for nobody
 *   reader   takes the bytes of a stream as they come, gives whole datagrams */
#ifndef TNL_DGRAM_H
#define TNL_DGRAM_H
#include "lib/err.h"
#include "lib/list.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TNL_DGRAM_MAX 65507u /* what IPv4's UDP can have */
#define TNL_DGRAM_HDR 2u
#define TNL_DGRAM_COST 64u /* that each counts for in the queue, beside its bytes */

struct tnl_dgramq {
	struct tnl_list list;	    /* the oldest first */
	size_t count, bytes, limit; /* bytes: with what each costs */
	size_t gone; /* bytes of the first one that have been pulled: it stays, or the reader would lose its place */
	uint64_t dropped;
};
void tnl_dgramq_init(struct tnl_dgramq *q, size_t limit);
/* Copied.  One is kept however large it is; longer than TNL_DGRAM_MAX or without memory it is dropped itself. */
void tnl_dgramq_push(struct tnl_dgramq *q, const void *p, size_t n);
/* The oldest that the stream has nothing of goes; false: there is none. */
bool tnl_dgramq_drop(struct tnl_dgramq *q);
/* Up to cap bytes of the stream; 0: there is nothing. */
size_t tnl_dgramq_pull(struct tnl_dgramq *q, uint8_t *out, size_t cap);
/* The oldest whole, of which nothing was pulled, until it is popped; NULL: there is none. */
const uint8_t *tnl_dgramq_first(const struct tnl_dgramq *q, size_t *n);
void tnl_dgramq_pop(struct tnl_dgramq *q);
void tnl_dgramq_clear(struct tnl_dgramq *q); /* they do not count as dropped */

struct tnl_dgram_reader { /* zeroed: at the beginning */
	uint8_t len[TNL_DGRAM_HDR];
	size_t have; /* of length and datagram together */
	uint8_t *b;  /* of one that comes in parts: tnl_dgram_parts bytes */
	bool full;   /* set by the owner: no room for one that comes in parts, it is skipped */
	bool skips;
	uint64_t skipped;
};
/* Takes bytes, up to the end of one datagram: *used of them.  1: *d is it, *dn bytes, until the next call and as long
 * as p is there; 0: more is to come, or one was skipped; TNL_ESYNTAX: longer than a datagram can be. */
int tnl_dgram_read(struct tnl_dgram_reader *r, const uint8_t *p, size_t n, size_t *used, const uint8_t **d,
		   size_t *dn) TNL_MUST_USE;
void tnl_dgram_done(
    struct tnl_dgram_reader *r); /* it has been looked at: its memory goes now, not with the next call */
size_t tnl_dgram_parts(const struct tnl_dgram_reader *r); /* bytes that it holds */
void tnl_dgram_reader_fini(struct tnl_dgram_reader *r);

#endif
