/* Process-wide account of memory (memory_limit): at the limit reading and accepting stop, nothing is dropped.  It is
 * what the heap has given to us (lib/alloc.h), so that whatever a peer can make grow is in it: link buffers, bodies of
 * HTTP, trees of JSON, records of sessions.  Sessions and relays report beside it what they keep, for their own shares.
 */
#ifndef TD_BASE_MEMORY_H
#define TD_BASE_MEMORY_H
#include "tunneld/base/loop.h"

void td_memory_limit(uint64_t bytes); /* 96 MiB unless set */
void td_memory_change(int64_t delta);
uint64_t td_memory_told(void); /* what td_memory_change has come to */
uint64_t td_memory_used(void); /* that, or the heap when it is more */
uint64_t td_memory_max(void);
bool td_memory_full(void); /* above the limit: do not read more */

/* Who stopped for want of memory.  fn(arg) runs soon on the waiter's own loop each time when the account, having been
 * full, is below 7/8 of the limit again; between on_room and off_room, which its owner calls before it goes.  On twice
 * and off twice are fine. */
struct td_memory_waiter {
	struct tnl_list node;
	struct td_soon soon;
	ev_prepare look; /* at the end of each turn */
	void (*fn)(void *);
	void *arg;
};
void td_memory_on_room(struct td_memory_waiter *w, struct td_loop *l, void (*fn)(void *), void *arg);
void td_memory_off_room(struct td_memory_waiter *w); /* a waiter that is all zero is fine */
#endif
