/* Large blocks that buffers have given back, a few for each thread that keeps any, so that buffers are given back after
 * every event and the next event takes the same blocks again, whichever connection it is about. */
#ifndef TNL_SPARE_H
#define TNL_SPARE_H
#include <stdbool.h>
#include <stddef.h>

#define TNL_SPARE_LEAST ((size_t)16 * 1024) /* smaller ones are the heap's business */

void tnl_spare_keep(bool keep); /* this thread, which says so before it ends as well; else they go back to the heap */
void *tnl_spare_take(size_t least, size_t *cap); /* the smallest that is not less, nor far more; NULL: none */
void tnl_spare_put(void *p, size_t cap);	 /* of tnl_malloc; taken over; NULL is fine */
/* bytes: of all threads that keep some, each an equal part (12 MiB unless set); room: while all that the
 * process has allocated, resting blocks with it, is no more than that, they keep what is given back (0 unless set). */
void tnl_spare_limit(size_t bytes, size_t room);
void tnl_spare_drop(void); /* frees those of this thread */

#endif
