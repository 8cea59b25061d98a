/* Settings of descriptors. */
#ifndef TD_BASE_FD_H
#define TD_BASE_FD_H

void td_fd_nonblock(int fd);  /* and close-on-exec */
void td_fd_nodelay(int fd);   /* no effect on a unix socket */
void td_fd_rst_close(int fd); /* SO_LINGER 0 + close: RST */

#endif
