/* Folding of log lines: what one peer causes again and again becomes a few lines and a number, so that nobody writes
 * our log at his own rate.  A line belongs to its kind (the format, with an unquoted reason= or status=) and to whom it
 * is about (the address behind peer= without its port, else the user of the session, and the tunnel).  Of each such
 * pair the first lines of a minute pass, the others are counted; when the minute is over the last of them is said with
 * their number. While that goes on only one passes each minute.  The table is bounded: when it is full the kind alone
 * counts, so that the first of a kind is never lost.  No clock, no I/O. */
#ifndef TD_BASE_LOG_FOLD_H
#define TD_BASE_LOG_FOLD_H
#include "lib/log.h"

#include <stdbool.h>
#include <stdint.h>

#define TD_FOLD_NS (60 * 1000000000ull)
#define TD_FOLD_PASS 20u       /* errors and warnings of a pair in a minute */
#define TD_FOLD_PASS_INFO 100u /* others */
#define TD_FOLD_SETS 256u      /* a pair has its place in one of them */
#define TD_FOLD_WAYS 8u
#define TD_FOLD_KINDS 64u

struct td_fold_line {
	enum tnl_log_level level;
	const char *format; /* NULL: told by the text */
	const char *module, *session, *text;
};
typedef void td_fold_write(enum tnl_log_level level, const char *module, const char *session, const char *text);
/* Is it to be written? false: it was counted. write is called first for what was folded and had to give way. */
bool td_fold_passes(const struct td_fold_line *l, uint64_t now, td_fold_write *write);
/* Says what is due, or all; when the next is due, UINT64_MAX: nothing is folded. */
uint64_t td_fold_say(uint64_t now, bool all, td_fold_write *write);
void td_fold_clear(void);

#endif
