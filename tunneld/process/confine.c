/* Identity, capabilities and core dumps; system calls are in seccomp.c. */
#include "tunneld/process/confine.h"

#include "tunneld/base/caps.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

void td_confine_shut(void)
{
	/* The soft limit: shells may raise theirs again. */
	struct rlimit r;
	if (!getrlimit(RLIMIT_CORE, &r)) {
		r.rlim_cur = 0;
		setrlimit(RLIMIT_CORE, &r);
	}
#ifndef __SANITIZE_ADDRESS__ /* whose search for leaks looks in from outside */
	prctl(PR_SET_DUMPABLE, 0);
#endif
}

static int complain(char *why, size_t cap, const char *user, const char *what)
{
	snprintf(why, cap, "cannot become user %s: %s: %s", user, what, strerror(errno));
	return -1;
}

int td_confine_user(const char *user, char *why, size_t cap)
{
	errno = 0;
	struct passwd *p = user ? getpwnam(user) : NULL;
	if (!user || (p && p->pw_uid == geteuid())) {
		/* What a unit gave us for the spawner. Root stays what it is. */
		if (geteuid() == 0 || td_caps_keep(TD_CAP(CAP_NET_BIND_SERVICE)) == 0)
			return 0;
		snprintf(why, cap, "cannot give up capabilities: %s", strerror(errno));
		return -1;
	}
	if (!p || geteuid() != 0) {
		snprintf(why, cap, p ? "only root can become user %s" : "there is no user %s here", user);
		return -1;
	}
	if (initgroups(user, p->pw_gid) != 0 || setresgid(p->pw_gid, p->pw_gid, p->pw_gid) != 0)
		return complain(why, cap, user, "groups");
	/* Root stays the saved one: when it goes, the kernel takes all capabilities, from every thread. */
	if (setresuid(p->pw_uid, p->pw_uid, 0) != 0 || td_caps_keep(TD_CAP(CAP_NET_BIND_SERVICE)) != 0)
		return complain(why, cap, user, "identity");
	td_confine_shut(); /* a change of identity opens the process again */
	setenv("HOME", p->pw_dir, 1);
	setenv("USER", user, 1);
	setenv("LOGNAME", user, 1);
	return 0;
}

int td_confine_for_good(char *why, size_t cap)
{
	uid_t real, effective, saved;
	if (getresuid(&real, &effective, &saved) != 0 || saved == effective)
		return 0;
	if (setresuid(effective, effective, effective) != 0 || setresuid(saved, saved, saved) == 0) {
		snprintf(why, cap, "cannot give up root: %s", strerror(errno));
		return -1;
	}
	td_confine_shut();
	return 0;
}
