/* So many bytes a second for all who share them, without loss: whoever has something to move asks first, and waits its
 * turn when the bytes of this moment are spent.  A bucket that fills at the rate (a tenth of a second's bytes at most),
 * given out in slices to those who wait, in the turns of lib/turns.h: by bytes, and who moves little now and then goes
 * before who moves all the time.
 *
 *   may → that many may be moved → use          may → 0: it waits → due → next names it → may
 *   rest: it has nothing to move now; what it was given and did not use is the others' */
#ifndef TNL_PACE_H
#define TNL_PACE_H
#include "lib/turns.h"
#include <stddef.h>
#include <stdint.h>

#define TNL_PACE_MAX (UINT64_C(16) << 30)

struct tnl_pace {
	uint64_t rate;	    /* bytes a second */
	int64_t credit;	    /* may be given out now; less than none after a slice that was more than there was */
	uint64_t filled_at; /* until when the rate is in the credit */
	size_t slice;	    /* bytes that one gets at once */
	struct tnl_turns turns;
	size_t waiting;
};

struct tnl_pace_turn {
	struct tnl_turn turn;
	size_t granted; /* of these it has not moved any */
	bool waits;
};

void tnl_pace_init(struct tnl_pace *p, uint64_t rate, uint64_t now);
void tnl_pace_turn_init(struct tnl_pace_turn *t);
/* How many bytes t may move now; 0: it waits until tnl_pace_next gives it. */
size_t tnl_pace_may(struct tnl_pace *p, struct tnl_pace_turn *t, uint64_t now);
void tnl_pace_use(struct tnl_pace_turn *t, size_t n); /* n of them, at most what may said */
void tnl_pace_rest(struct tnl_pace *p, struct tnl_pace_turn *t);
uint64_t tnl_pace_due(const struct tnl_pace *p); /* when next may give one; UINT64_MAX: nobody waits */
/* Whose turn has come: it may move something now.  NULL: nobody's.  Call it until then. */
struct tnl_pace_turn *tnl_pace_next(struct tnl_pace *p, uint64_t now);

#endif
