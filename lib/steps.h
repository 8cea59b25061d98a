/* A count of the work that input causes: one for each thing that is looked at in a loop over what a peer sizes (a slot
 * of a map, a member of a JSON value, a frame, a stream).  Tests and fuzzers hold it against the bytes that were fed,
 * so that a loop inside a loop is found by counting and not by a clock. */
#ifndef TNL_STEPS_H
#define TNL_STEPS_H
#include <stdint.h>

extern _Thread_local uint64_t tnl_steps_made;

static inline void tnl_step(void)
{
	tnl_steps_made++;
}

#endif
