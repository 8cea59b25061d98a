/* sd_notify(3) without libsystemd: state lines to $NOTIFY_SOCKET, nothing without it. */
#ifndef TD_PROCESS_NOTIFY_H
#define TD_PROCESS_NOTIFY_H
#include <stdbool.h>

bool td_notify_wanted(void);
/* "READY=1\nSTATUS=…"; true when it was sent. */
bool td_notify(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
bool td_notify_reloading(const char *status); /* with the time stamp that systemd requires */

#endif
