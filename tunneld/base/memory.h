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
/* The calling thread is not the main one: what it changes does not call those who wait for room (below).  When there is
 * room that they have not heard of, it wakes a loop of the main thread, which tells them at the end of its turn. */
void td_memory_aside(void);
bool td_memory_owes(void);

/* Shares.  What waits for somebody belongs to an owner: a session, a user, an instance.  All owners together have 7/8
 * of the limit, the rest is left to calls and control channels.  One that keeps `kept` bytes may take more while that
 * is at most `weight` times what is free, so that one that is greedy gets half of it, two a third each, n one part of n
 * + 1, and there is always as much left for whoever comes next, without a number that somebody would have to set. */
bool td_memory_may_keep(uint64_t kept, unsigned weight);
bool td_memory_spent(void);	  /* nothing is free for owners */
bool td_memory_half_free(void);	  /* of the limit: what only makes things faster may be added */
uint64_t td_memory_lacking(void); /* then: what they would have to give up for a little to be free; else 0 */

/* What each of very many may have however full it is: 128 KiB, but all of them together no more than a quarter of
 * what is for owners.  Those who count on it say that they are there, and that they have gone. */
uint64_t td_memory_least(void);
void td_memory_count_owner(int more);

/* Who stopped for want of memory.  fn(arg) runs soon on the waiter's own loop each time when the account, having been
 * full, is below 7/8 of the limit again, and when it has fallen by 1/32 of the limit since an owner was told that it
 * may not keep more; between on_room and off_room, which its owner calls before it goes.  On twice and off twice are
 * fine.
 */
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
