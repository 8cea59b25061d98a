/* The state directory: found, made, closed to others, and locked for one process.  The
 * lock is a file with the process's number that stays when the process ends; held is
 * what flock(2) says, so that a process that was killed leaves nothing to clean up. */
#include "tunneld/process/state.h"
#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/enc.h"
#include "lib/err.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static char *join(const char *a, const char *b)
{
	size_t n = strlen(a) + strlen(b) + 2;
	char *p = tnl_malloc(n);
	if (p)
		snprintf(p, n, "%s/%s", a, b);
	return p;
}

char *td_state_root(const char *configured)
{
	const char *env = getenv("STATE_DIRECTORY"), *xdg = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	if (configured)
		return tnl_strdup(configured);
	if (env && *env == '/')
		return tnl_strndup(env, strcspn(env, ":")); /* systemd lists several with colons */
	if (xdg && *xdg == '/')
		return join(xdg, "tunneld");
	if (home && *home == '/')
		return join(home, ".local/state/tunneld");
	return NULL;
}

void td_state_name(const char *role, const char *config_path, char *out, size_t cap)
{
	uint8_t sum[32];
	char hex[13];
	if (!config_path) {
		snprintf(out, cap, "%s", role);
		return;
	}
	tnl_sha256(config_path, strlen(config_path), sum);
	tnl_hex(sum, 6, hex);
	snprintf(out, cap, "%s-%s", role, hex);
}

/* Makes the directory and those above it. */
static int make_dirs(char *path)
{
	for (char *s = path + 1; *s; s++) {
		if (*s != '/')
			continue;
		*s = '\0';
		int failed = mkdir(path, 0700) && errno != EEXIST;
		*s = '/';
		if (failed)
			return -1;
	}
	return mkdir(path, 0700) && errno != EEXIST ? -1 : 0;
}

/* Ours, a directory, and closed to everybody else. */
static int make_private(char *path, char *why, size_t cap)
{
	struct stat st;
	if (make_dirs(path) || stat(path, &st)) {
		snprintf(why, cap,
			 "cannot make the state directory %s: %s; set state_dir in [tunneld] or $STATE_DIRECTORY", path,
			 strerror(errno));
		return TNL_EIO;
	}
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid()) {
		snprintf(why, cap, "the state directory %s is %s; set state_dir in [tunneld] or $STATE_DIRECTORY", path,
			 S_ISDIR(st.st_mode) ? "owned by another user" : "not a directory");
		return TNL_EIO;
	}
	if ((st.st_mode & 077) && chmod(path, 0700)) {
		snprintf(why, cap, "cannot close the state directory %s to others: %s", path, strerror(errno));
		return TNL_EIO;
	}
	return 0;
}

/* Our number, for who finds the lock taken; where a disk has no room for it they hear no number. */
static bool write_number(int fd)
{
	char pid[32];
	int n = snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());
	errno = ENOSPC; /* of a write that is cut short */
	return (ftruncate(fd, 0) == 0 && pwrite(fd, pid, (size_t)n, 0) == n) || errno == ENOSPC || errno == EDQUOT;
}

static int take_lock(struct td_state *s, const char *config_path, char *why, size_t cap)
{
	char *path = join(s->dir, "lock"), pid[32] = "";
	int err = TNL_EIO;
	if (!path)
		return TNL_ENOMEM;
	s->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (s->lock_fd < 0) {
		snprintf(why, cap, "cannot open %s: %s", path, strerror(errno));
	} else if (flock(s->lock_fd, LOCK_EX | LOCK_NB)) {
		ssize_t n = read(s->lock_fd, pid, sizeof(pid) - 1);
		pid[n > 0 ? n : 0] = '\0';
		pid[strcspn(pid, "\n")] = '\0';
		snprintf(why, cap,
			 "%s is in use by another tunneld%s%s%s%s; end that one first, or give this one a state_dir of "
			 "its own",
			 s->dir, *pid ? ", process " : "", pid, config_path ? ", with the configuration " : "",
			 config_path ? config_path : "");
		err = TNL_EBUSY;
	} else {
		err = write_number(s->lock_fd) ? 0 : TNL_EIO;
		if (err)
			snprintf(why, cap, "cannot write %s: %s", path, strerror(errno));
	}
	tnl_free(path);
	return err;
}

int td_state_open(struct td_state *s, const char *configured, const char *role, const char *config_path, char *why,
		  size_t cap)
{
	char *root = td_state_root(configured), name[128];
	int err = TNL_EIO;
	*s = (struct td_state){.lock_fd = -1};
	if (!root) {
		snprintf(
		    why, cap,
		    "no place for the state directory, since HOME is not set; set state_dir in [tunneld] or $STATE_DIRECTORY");
		return err;
	}
	td_state_name(role, config_path, name, sizeof(name));
	s->dir = join(root, name);
	if (s->dir && !(err = make_private(root, why, cap)) && !(err = make_private(s->dir, why, cap)))
		err = take_lock(s, config_path, why, cap);
	tnl_free(root);
	if (err)
		td_state_close(s);
	return err;
}

void td_state_close(struct td_state *s)
{
	if (s->lock_fd >= 0)
		close(s->lock_fd); /* the file stays: unlinking it would let two processes lock two files of one name */
	tnl_free(s->dir);
	*s = (struct td_state){.lock_fd = -1};
}

char *td_state_file(const struct td_state *s, const char *name)
{
	return join(s->dir, name);
}
