/* Bytes that a stream's consumer did not take yet: a queue of chunks, so that
 * nothing is moved when the head is consumed and memory is given back as it goes. */
#ifndef TNL_KEPT_H
#define TNL_KEPT_H
#include "lib/err.h"
#include <stddef.h>
#include <stdint.h>

/* What memory is over len in a large backlog: the first chunk partly consumed, the last one partly empty. */
#define TNL_KEPT_OVERHEAD (32u * 1024)

struct tnl_chunk;
struct tnl_kept {
	struct tnl_chunk *first, *last;
	size_t len;    /* bytes held */
	size_t memory; /* bytes allocated for them */
};

int tnl_kept_put(struct tnl_kept *k, const uint8_t *p, size_t n) TNL_MUST_USE; /* all or, on TNL_ENOMEM, nothing */
size_t tnl_kept_peek(const struct tnl_kept *k, const uint8_t **p);	       /* the first contiguous run; 0: empty */
void tnl_kept_consume(struct tnl_kept *k, size_t n);			       /* n <= len */
void tnl_kept_clear(struct tnl_kept *k);

#endif
