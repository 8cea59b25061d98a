#include "tunneld/base/caps.h"

#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

bool td_caps_have(uint64_t all_of)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2];
	if (syscall(SYS_capget, &h, d) != 0)
		return false;
	return ((d[0].effective | (uint64_t)d[1].effective << 32) & all_of) == all_of;
}

int td_caps_keep(uint64_t mask)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2];
	if (syscall(SYS_capget, &h, d) != 0)
		return -1;
	for (int i = 0; i < 2; i++) {
		d[i].permitted &= (uint32_t)(mask >> 32 * i);
		d[i].effective = d[i].permitted;
		d[i].inheritable = 0;
	}
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	return (int)syscall(SYS_capset, &h, d);
}
