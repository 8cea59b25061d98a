/* Byte buffer with a hard maximum.  Bytes are appended at the tail and taken
 * from the head; contiguous, compacts itself.  A producer reserves and commits,
 * a consumer peeks and consumes. */
#ifndef TNL_BUF_H
#define TNL_BUF_H
#include "lib/err.h"
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tnl_buf {
	uint8_t *base;
	size_t head, tail, cap, max;
	size_t want; /* the most that it had to have */
	bool failed; /* an append did not fit or memory ran out; sticky until reset */
};

void tnl_buf_init(struct tnl_buf *b, size_t max); /* allocates nothing */
void tnl_buf_fini(struct tnl_buf *b);
void tnl_buf_fini_wiped(struct tnl_buf *b);
void tnl_buf_reset(struct tnl_buf *b); /* empty, keeps memory, clears failed */
void tnl_buf_trim(struct tnl_buf *b);  /* give memory back when empty */
/* After an event: as trim, and a large block goes where the next event finds it (lib/spare.h); one that holds next to
 * nothing is exchanged for a small one. */
void tnl_buf_settle(struct tnl_buf *b);
static inline size_t tnl_buf_len(const struct tnl_buf *b)
{
	return b->tail - b->head;
}
static inline size_t tnl_buf_room(const struct tnl_buf *b)
{
	return b->max - (b->tail - b->head);
}
static inline const uint8_t *tnl_buf_data(const struct tnl_buf *b)
{
	return b->base ? b->base + b->head : (const uint8_t *)"";
}

/* Room for n contiguous bytes at the tail, or NULL (over max, or no memory). */
uint8_t *tnl_buf_reserve(struct tnl_buf *b, size_t n) TNL_MUST_USE;
void tnl_buf_commit(struct tnl_buf *b, size_t n);  /* n <= what was reserved */
void tnl_buf_consume(struct tnl_buf *b, size_t n); /* n <= len */

/* Append: 0, TNL_ELIMIT or TNL_ENOMEM; nothing is appended on failure, and
 * `failed` is set, so that a chain of appends can be checked once at its end. */
int tnl_buf_put(struct tnl_buf *b, const void *p, size_t n);
int tnl_buf_puts(struct tnl_buf *b, const char *s);
int tnl_buf_putc(struct tnl_buf *b, int c);
int tnl_buf_printf(struct tnl_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* NUL-terminates behind the tail (not counted in len) and returns the text, or NULL. */
const char *tnl_buf_str(struct tnl_buf *b);
/* Detaches a NUL-terminated heap copy owned by the caller (tnl_free), or NULL. */
char *tnl_buf_steal_str(struct tnl_buf *b);

#endif
