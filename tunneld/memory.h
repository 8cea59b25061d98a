/* Process-wide account of buffered bytes (process_memory): at the limit reading
 * and accepting stop, nothing is dropped.  Sessions and relays report changes. */
#ifndef TD_MEMORY_H
#define TD_MEMORY_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
void td_memory_limit(uint64_t bytes);
void td_memory_change(int64_t delta);
uint64_t td_memory_used(void);
bool td_memory_full(void);           /* above the limit: do not read more */
/* fn runs (from the loop, deferred) when it is below 7/8 of the limit again. */
void td_memory_on_room(void (*fn)(void *), void *arg);
void td_memory_off_room(void (*fn)(void *), void *arg);
#endif
