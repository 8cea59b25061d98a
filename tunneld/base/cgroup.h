/* A control group of its own for a child and all that comes of it, where systemd has delegated us a part of the tree
 * (Delegate=yes).  It ends all of it at once, however fast it forks.  Nothing here allocates memory. */
#ifndef TD_BASE_CGROUP_H
#define TD_BASE_CGROUP_H
#include <stdbool.h>

struct td_cgroup {
	char path[512]; /* empty: there is none */
};
void td_cgroup_make(struct td_cgroup *g);	 /* leaves it empty where that cannot be */
void td_cgroup_enter(const struct td_cgroup *g); /* this process */
bool td_cgroup_kill(
    const struct td_cgroup *g); /* all in it; false: there is none, or it cannot be (before Linux 5.14) */
void td_cgroup_remove(struct td_cgroup *g);

#endif
