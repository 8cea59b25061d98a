/* The daemons that run on this machine, by their control sockets. */
#ifndef TD_COMMAND_DAEMONS_H
#define TD_COMMAND_DAEMONS_H
#include <stdbool.h>

#define TD_EXIT_NOT_RUNNING 7

struct td_daemons_query {
	const char *file; /* only what runs with this configuration; NULL: whatever runs for this user */
	const char *role; /* only this one; NULL: any */
};
/* Asks each of them `request` and hands over its answer, JSON of one line without its end (fn may change it, not keep
 * it).  Gives how many answered, or -1 after a line on stderr: the configuration is wrong. */
int td_daemons_ask(const struct td_daemons_query *q, const char *request, void (*fn)(void *ctx, char *reply),
		   void *ctx);
/* "nothing is running …" on stderr; gives the exit code. */
int td_daemons_none(const struct td_daemons_query *q);
/* "forwarder", "agent", "gateway" or "local"? */
bool td_daemons_is_role(const char *word);

#endif
