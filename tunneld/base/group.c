#include "tunneld/base/group.h"

#include "lib/alloc.h"
#include "lib/num.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tunneld/base/caps.h"

enum { FIRST = 4096, MOST = 16 << 20, GROUPS_MAX = 65536 };

static int by_name(const char *name, gid_t *gid)
{
	int err = ERANGE;
	for (size_t n = FIRST; err == ERANGE && n <= MOST; n *= 4) { /* all of its members are in there */
		char *room = tnl_malloc(n);
		struct group g, *got = NULL;
		err = room ? getgrnam_r(name, &g, room, n, &got) : ENOMEM;
		if (got)
			*gid = g.gr_gid;
		else if (!err)
			err = ENOENT;
		tnl_free(room);
	}
	return err;
}

int td_group_find(const char *name, gid_t *gid)
{
	char *end;
	int err = by_name(name, gid);
	if (!err || !*name || name[strspn(name, "0123456789")])
		return err;
	errno = 0;
	unsigned long n = strtoul(name, &end, 10);
	if (errno || n >= (gid_t)-1)
		return ENOENT;
	*gid = (gid_t)n;
	return 0;
}

static bool is_among(gid_t gid, const gid_t *v, int n)
{
	for (int i = 0; i < n; i++)
		if (v[i] == gid)
			return true;
	return false;
}

bool td_group_may_give(gid_t gid, const char *user)
{
	const struct passwd *p = user ? getpwnam(user) : NULL;
	if (!user && (td_caps_have(TD_CAP(CAP_CHOWN)) || getegid() == gid))
		return true;
	if (user && !p)
		return false;
	gid_t *v = tnl_malloc(GROUPS_MAX * sizeof(*v));
	int n = GROUPS_MAX;
	if (!v)
		return false;
	if (!user)
		n = getgroups(n, v);
	else if (getgrouplist(user, p->pw_gid, v, &n) < 0)
		n = GROUPS_MAX;
	bool may = is_among(gid, v, n);
	tnl_free(v);
	return may;
}
