/* Settings of descriptors. */
#ifndef TD_BASE_FD_H
#define TD_BASE_FD_H
#include <stdbool.h>
#include <stdint.h>

void td_fd_nonblock(int fd); /* and close-on-exec */
/* TCP asks a peer that has been silent so long whether it is there, four times, and gives it up; 0: it does not. */
void td_fd_keepalive(int fd, uint64_t ns);
void td_fd_nodelay(int fd); /* no effect on a unix socket */
/* Can it be read, written and waited for: a file, a terminal or other device, a pipe, a socket?  Not a folder, a mere
 * path, or what the kernel has for its own ends, which would end the loop. */
bool td_fd_is_stream(int fd);
void td_fd_rst_close(int fd); /* SO_LINGER 0 + close: RST */

/* The last descriptors of the process (an eighth, 64 at most) are left to what keeps it reachable: control channels,
 * calls, the links of sessions that are there.  What a peer can ask for in any number, a connection, a session, a
 * shell, asks here first.  The kernel gives the lowest number that is free, so that one of the last means that all
 * others are in use. */
bool td_fd_is_spare(int fd); /* is this one of them? */
bool td_fd_short(void);	     /* would the next one be? */

#endif
