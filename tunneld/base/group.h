/* Groups of the system, by name. */
#ifndef TD_BASE_GROUP_H
#define TD_BASE_GROUP_H
#include <stdbool.h>
#include <sys/types.h>

/* A name, or a number.  0, or errno: ENOENT, there is none. */
int td_group_find(const char *name, gid_t *gid);
/* May that user (NULL: this process as it is) give its files to the group? */
bool td_group_may_give(gid_t gid, const char *user);

#endif
