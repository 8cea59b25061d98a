/* sd_notify(3) without libsystemd: state lines to $NOTIFY_SOCKET, nothing without it. */
#ifndef TD_PROCESS_NOTIFY_H
#define TD_PROCESS_NOTIFY_H
#include <stdbool.h>
#include <stdint.h>

bool td_notify_wanted(void);
/* "READY=1\nSTATUS=…"; true when it was sent. */
bool td_notify(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* WatchdogSec=: WATCHDOG=1 is wanted at least so often; 0: never. */
uint64_t td_notify_watchdog_ns(void);
bool td_notify_reloading(const char *status); /* with the time stamp that systemd requires */

#endif
