/* Listening sockets that were open before us, by the names that systemd gives them (sd_listen_fds(3), without
 * libsystemd): FileDescriptorName= of a .socket unit. */
#ifndef TD_NET_ACTIVATION_H
#define TD_NET_ACTIVATION_H

/* Takes what the environment says of them out of it, for good and for this process alone. */
void td_activation_take(void);
/* A copy of the i-th listening stream socket (from 1) of that name, not blocking; -1 and errno, ENOENT: there is none.
 */
int td_activation_open(const char *name, int i);

#endif
