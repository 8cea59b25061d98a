/* The instances that `tunneld list` saw last, kept in the cache folder of the user, for completion. */
#ifndef TD_COMMAND_KNOWN_H
#define TD_COMMAND_KNOWN_H
#include "tunneld/aws/instances.h"

/* Without a cache folder, or room on the disk, nothing is kept. */
void td_known_save(const struct td_instances *list);
/* fn for each: "i-…", and "name:HOST" and "tag:KEY=VALUE" where it has them. */
void td_known_each(void (*fn)(void *ctx, const char *target), void *ctx);

#endif
