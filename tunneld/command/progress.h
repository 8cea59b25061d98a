/* A line on the terminal that says what is being waited for, once that has taken a second: a sign that it goes on.  On
 * stderr, only when that is a terminal; gone when it is over. */
#ifndef TD_COMMAND_PROGRESS_H
#define TD_COMMAND_PROGRESS_H
#include "tunneld/base/loop.h"

struct td_progress {
	struct td_timer timer;
	char what[200];
	uint64_t since;
	unsigned step;
	bool on, shown, dim;
};
void td_progress_init(struct td_progress *p, struct td_loop *l);
void td_progress_begin(struct td_progress *p, const char *what); /* in the place of what was there; copied */
void td_progress_end(struct td_progress *p);			 /* before anything else is printed */

#endif
