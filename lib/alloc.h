/* All heap use of lib/ goes through these, so that the allocation-failure
 * sweep can make the n-th call fail.  Plain malloc semantics otherwise. */
#ifndef TNL_ALLOC_H
#define TNL_ALLOC_H
#include <stddef.h>

void *tnl_malloc(size_t n);
void *tnl_calloc(size_t n, size_t size);
void *tnl_realloc(void *p, size_t n);
char *tnl_strdup(const char *s);
char *tnl_strndup(const char *s, size_t n);
void tnl_free(void *p);		  /* NULL is fine */
void tnl_wipe(void *p, size_t n); /* zero memory; the compiler may not drop it */
void tnl_free_wiped(void *p, size_t n);

/* Test hook: after `countdown` more successful allocations the next one (and,
 * with sticky, every later one) returns NULL.  Negative = never. */
void tnl_alloc_fail_after(long countdown, int sticky);
long tnl_alloc_count(void); /* allocations made so far */
long tnl_alloc_live(void);  /* blocks not yet freed (through tnl_free), but for those that rest (lib/spare.h) */
void tnl_alloc_resting(long blocks);
/* What the heap has given out, as large as it made the blocks; those of BoringSSL and those that rest are in it.  most:
 * the greatest since it was last asked for. */
size_t tnl_alloc_bytes(void);
size_t tnl_alloc_most(void);

#endif
