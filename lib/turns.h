/* Whose turn it is, by bytes: deficit round robin with a list of new ones before
 * the old ones (as fq_codel, RFC 8290 §4), so that one who has little to send now
 * and then does not wait behind bulk.  Knows nothing of what takes the turns: its
 * users embed a struct tnl_turn and find themselves with tnl_container_of. */
#ifndef TNL_TURNS_H
#define TNL_TURNS_H
#include "lib/list.h"
#include <stdint.h>

#define TNL_TURNS_QUANTUM 16384 /* bytes of one turn at most */

enum tnl_turn_place { TNL_TURN_NONE, TNL_TURN_NEW, TNL_TURN_OLD };

struct tnl_turn {
	struct tnl_list link;
	enum tnl_turn_place place;
	bool spent;   /* has sent something since it was new */
	int64_t left; /* bytes that it may still send in its turn; less than none when it sent more */
};

struct tnl_turns {
	struct tnl_list fresh, old;
	int64_t quantum; /* bytes of one turn */
	/* Has it something to send, and may it? Asked when its turn comes: who says no loses its place. */
	bool (*ready)(const struct tnl_turn *t);
};

void tnl_turns_init(struct tnl_turns *q, bool (*ready)(const struct tnl_turn *t));
/* bytes: of one message now, so that a turn is not longer than that where messages are small. */
void tnl_turns_set_quantum(struct tnl_turns *q, size_t bytes);
void tnl_turn_init(struct tnl_turn *t);
/* Nothing happens to one that has a place already. */
void tnl_turns_join(struct tnl_turns *q, struct tnl_turn *t);	/* it is new: before the old ones, with a whole turn */
void tnl_turns_return(struct tnl_turns *q, struct tnl_turn *t); /* it was only held up: behind the old ones */
void tnl_turns_leave(struct tnl_turn *t);
struct tnl_turn *tnl_turns_next(struct tnl_turns *q); /* NULL: nobody is ready */
/* One who is new and has sent nothing yet, while an old one waits its turn: NULL when it is another's. */
struct tnl_turn *tnl_turns_newcomer(struct tnl_turns *q);
void tnl_turn_charge(struct tnl_turn *t, size_t n); /* it sent n bytes */

#endif
