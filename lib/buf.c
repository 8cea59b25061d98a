/* Byte buffer: the head moves as bytes are consumed; the rest is moved to the front only when room is short. */
#include "lib/buf.h"
#include "lib/alloc.h"
#include "lib/num.h"
#include "lib/spare.h"
#include <stdio.h>
#include <string.h>

#define LITTLE 4096u
#define FIRST                                                                                                          \
	320u /* doubled: a little more than a power of two, so that so many bytes with what is around them fit tightly \
	      */

void tnl_buf_init(struct tnl_buf *b, size_t max)
{
	*b = (struct tnl_buf){.max = max};
}

void tnl_buf_fini(struct tnl_buf *b)
{
	tnl_free(b->base);
	*b = (struct tnl_buf){.max = b->max};
}

void tnl_buf_fini_wiped(struct tnl_buf *b)
{
	tnl_free_wiped(b->base, b->cap);
	*b = (struct tnl_buf){.max = b->max};
}

void tnl_buf_reset(struct tnl_buf *b)
{
	b->head = b->tail = 0;
	b->failed = false;
}

void tnl_buf_trim(struct tnl_buf *b)
{
	if (b->head != b->tail)
		return;
	tnl_free(b->base);
	b->base = NULL;
	b->head = b->tail = b->cap = 0;
}

void tnl_buf_settle(struct tnl_buf *b)
{
	size_t len = tnl_buf_len(b), cap = LITTLE;
	uint8_t *p = NULL;

	if (!b->base || (len && (len > LITTLE || b->cap < TNL_SPARE_LEAST)))
		return;
	if (len && !(p = tnl_malloc(cap)))
		return;
	if (len)
		memcpy(p, b->base + b->head, len);
	tnl_spare_put(b->base, b->cap);
	b->base = p;
	b->head = 0;
	b->tail = len;
	b->cap = p ? cap : 0;
}

/* For more than a little one that rests, best of the size that it grew to before: else it would be copied each time
 * while it grows. */
static uint8_t *new_block(struct tnl_buf *b, size_t n, size_t *cap)
{
	uint8_t *p = NULL;
	b->want = TNL_MAX(b->want, *cap);
	if (n > LITTLE && !(p = tnl_spare_take(b->want, cap)))
		p = tnl_spare_take(*cap, cap);
	return p ? p : tnl_malloc(*cap);
}

/* Makes room for n bytes behind the tail; the limit is the caller's to check. */
static bool make_room(struct tnl_buf *b, size_t n)
{
	size_t len = tnl_buf_len(b);
	if (b->base && b->cap - b->tail >= n)
		return true;
	/* Moving is amortised: at least a quarter as much is free in front as is moved, else the buffer grows. */
	if (b->base && b->cap - len >= n && b->head >= len / 4) {
		memmove(b->base, b->base + b->head, len);
	} else {
		size_t cap = b->cap ? b->cap : FIRST;
		if (b->base && cap - len >= n)
			cap *= 2;
		while (cap < len + n)
			cap = cap > SIZE_MAX / 4 ? len + n : cap * 2;
		/* A copy instead of realloc: old content may be secret and must not be left behind by a move. */
		uint8_t *p = new_block(b, len + n, &cap);
		if (!p)
			return false;
		if (len)
			memcpy(p, b->base + b->head, len);
		tnl_wipe(b->base, b->tail);
		tnl_spare_put(b->base, b->cap);
		b->base = p;
		b->cap = cap;
	}
	b->head = 0;
	b->tail = len;
	return true;
}

uint8_t *tnl_buf_reserve(struct tnl_buf *b, size_t n)
{
	if (n > tnl_buf_room(b) || !make_room(b, n ? n : 1))
		return NULL;
	return b->base + b->tail;
}

void tnl_buf_commit(struct tnl_buf *b, size_t n)
{
	b->tail += n;
}

void tnl_buf_consume(struct tnl_buf *b, size_t n)
{
	b->head += n;
	if (b->head == b->tail)
		b->head = b->tail = 0;
}

int tnl_buf_put(struct tnl_buf *b, const void *p, size_t n)
{
	if (!n)
		return 0;
	if (n > tnl_buf_room(b)) {
		b->failed = true;
		return TNL_ELIMIT;
	}
	if (!make_room(b, n)) {
		b->failed = true;
		return TNL_ENOMEM;
	}
	memcpy(b->base + b->tail, p, n);
	b->tail += n;
	return 0;
}

int tnl_buf_puts(struct tnl_buf *b, const char *s)
{
	return tnl_buf_put(b, s, strlen(s));
}

int tnl_buf_putc(struct tnl_buf *b, int c)
{
	uint8_t byte = (uint8_t)c;
	return tnl_buf_put(b, &byte, 1);
}

__attribute__((format(printf, 2, 0))) static int put_format(struct tnl_buf *b, const char *fmt, va_list ap)
{
	char tmp[256];
	va_list again;

	va_copy(again, ap);
	int n = vsnprintf(tmp, sizeof(tmp), fmt, ap);
	int rc = TNL_EINVAL;
	if (n >= 0 && (size_t)n < sizeof(tmp)) {
		rc = tnl_buf_put(b, tmp, (size_t)n);
	} else if (n >= 0 && (size_t)n > tnl_buf_room(b)) {
		rc = TNL_ELIMIT;
	} else if (n >= 0) {
		rc = TNL_ENOMEM;
		if (make_room(b, (size_t)n + 1)) {
			vsnprintf((char *)b->base + b->tail, (size_t)n + 1, fmt, again);
			b->tail += (size_t)n;
			rc = 0;
		}
	}
	va_end(again);
	if (rc)
		b->failed = true;
	return rc;
}

int tnl_buf_printf(struct tnl_buf *b, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	int rc = put_format(b, fmt, ap);
	va_end(ap);
	return rc;
}

const char *tnl_buf_str(struct tnl_buf *b)
{
	/* The terminator is not content: it may lie one byte beyond max. */
	if (!make_room(b, 1)) {
		b->failed = true;
		return NULL;
	}
	b->base[b->tail] = '\0';
	return (const char *)b->base + b->head;
}

char *tnl_buf_steal_str(struct tnl_buf *b)
{
	char *s = tnl_strndup((const char *)tnl_buf_data(b), tnl_buf_len(b));
	if (!s)
		b->failed = true;
	return s;
}
