/* Linux capabilities of the calling thread, of which this program knows but a few. */
#ifndef TD_BASE_CAPS_H
#define TD_BASE_CAPS_H
#include <linux/capability.h>
#include <stdbool.h>
#include <stdint.h>

#define TD_CAP(c) (1ull << (c))

bool td_caps_have(uint64_t all_of);
/* Gives up all others, also for programs that it starts. 0, or -1 and errno. */
int td_caps_keep(uint64_t mask);

#endif
