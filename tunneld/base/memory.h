/* Process-wide account of buffered bytes (process_memory): at the limit reading
 * and accepting stop, nothing is dropped.  Sessions and relays report changes. */
#ifndef TD_BASE_MEMORY_H
#define TD_BASE_MEMORY_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
struct td_loop;
void td_memory_loop(
    struct td_loop *l); /* the loop that runs the on_room callbacks: called by td_loop_new and td_loop_free */
void td_memory_limit(uint64_t bytes); /* 96 MiB unless set */
void td_memory_change(int64_t delta);
uint64_t td_memory_used(void);
uint64_t td_memory_max(void);
bool td_memory_full(void); /* above the limit: do not read more */
/* fn runs (from the loop, deferred) when it is below 7/8 of the limit again. Stays until taken off. */
void td_memory_on_room(void (*fn)(void *), void *arg);
void td_memory_off_room(void (*fn)(void *), void *arg);
#endif
