/* Giving up what a role has no use for, in this order:
 *
 *   shut      any command: no core dumps, nobody looks into its memory
 *   user      before anything is opened: root becomes `user`, and keeps of root's only the right to bind low ports
 *   for good  when the roles have started: that too, and the way back
 *   calls     then: system calls outside the list of the role (seccomp.c) fail with EPERM and are logged once */
#ifndef TD_PROCESS_CONFINE_H
#define TD_PROCESS_CONFINE_H
#include <stdbool.h>
#include <stddef.h>

void td_confine_shut(void);
/* 0, or -1 and *why. HOME, USER and LOGNAME follow. */
int td_confine_user(const char *user, char *why, size_t cap);
int td_confine_for_good(char *why, size_t cap);
int td_confine_calls(char *why, size_t cap);

#endif
