/* The sessions of this process that move bulk over one path at the same time.  Further links are there to fill a path
 * with several TCPs; where many sessions do that already, each further link is only one more connection to look after,
 * in every process on the way. */
#ifndef TD_CLIENT_CROWD_H
#define TD_CLIENT_CROWD_H
#include "lib/list.h"
#include <stdbool.h>
#include <stdint.h>

struct td_crowd_member {
	struct tnl_list node;
	const void *path; /* whatever those have in common that go the same way */
	uint64_t at;	  /* when it last had bulk */
	bool keeps;	  /* further links */
};

void td_crowd_init(struct td_crowd_member *m);
void td_crowd_leave(struct td_crowd_member *m);
/* Who keeps further links counts while it does, however long its bulk is past. */
void td_crowd_keep(struct td_crowd_member *m, bool keeps);
/* It has bulk now, and `most` links would help it alone: how many it is to have, 1 … most.  Up to four have what they
 * want, more share what those four would have. */
unsigned td_crowd_links(struct td_crowd_member *m, const void *path, unsigned most, uint64_t now);

#endif
