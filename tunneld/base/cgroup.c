#include "tunneld/base/cgroup.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

static bool write_file(const struct td_cgroup *g, const char *name, const char *text)
{
	char path[sizeof(g->path) + 32];
	if (!g->path[0])
		return false;
	snprintf(path, sizeof(path), "%s/%s", g->path, name);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) > 0;
	if (fd >= 0)
		close(fd);
	return ok;
}

/* Where the second version is, alone or beside the first. */
static const char *root(void)
{
	static const char *const places[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};
	for (int i = 0; i < 2; i++) {
		struct statfs fs;
		if (statfs(places[i], &fs) == 0 && fs.f_type == CGROUP2_SUPER_MAGIC)
			return places[i];
	}
	return NULL;
}

/* Our own group in it: the line 0::/PATH. */
static bool own_path(char *out, size_t cap)
{
	char text[2048];
	int fd = open("/proc/self/cgroup", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return false;
	text[n] = '\0';
	const char *line = strncmp(text, "0::", 3) == 0 ? text : strstr(text, "\n0::"), *top = root();
	if (!line || !top)
		return false;
	line = strchr(line, '/');
	int len = snprintf(out, cap, "%s%.*s", top, line ? (int)strcspn(line, "\n") : 0, line ? line : "");
	return line && len > 0 && (size_t)len < cap;
}

static bool is_delegated(const char *path)
{
	char value[8] = "";
	return (getxattr(path, "user.delegate", value, sizeof(value) - 1) > 0 ||
		getxattr(path, "trusted.delegate", value, sizeof(value) - 1) > 0) &&
	       value[0] == '1';
}

void td_cgroup_make(struct td_cgroup *g)
{
	char own[sizeof(g->path) - 32];
	g->path[0] = '\0';
	if (!own_path(own, sizeof(own)) || !is_delegated(own))
		return;
	snprintf(g->path, sizeof(g->path), "%s/tunneld-%ld", own, (long)getpid());
	if (mkdir(g->path, 0700) != 0)
		g->path[0] = '\0';
}

void td_cgroup_enter(const struct td_cgroup *g)
{
	write_file(g, "cgroup.procs", "0");
}

bool td_cgroup_kill(const struct td_cgroup *g)
{
	return write_file(g, "cgroup.kill", "1");
}

void td_cgroup_remove(struct td_cgroup *g)
{
	if (g->path[0])
		rmdir(g->path);
	g->path[0] = '\0';
}
