#include "tunneld/base/file.h"

#include "lib/alloc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* 0, or why not. */
static int check_kind(const struct stat *st, size_t max, unsigned flags)
{
	if (S_ISDIR(st->st_mode))
		return EISDIR;
	if (S_ISFIFO(st->st_mode) && (flags & TD_FILE_PIPE))
		return 0;
	if (!S_ISREG(st->st_mode))
		return ENOTSUP;
	return (uintmax_t)st->st_size > max ? EFBIG : 0;
}

/* Up to `cap` bytes; 0 or errno. */
static int read_all(int fd, char *p, size_t cap, size_t *n)
{
	*n = 0;
	while (*n < cap) {
		ssize_t k = read(fd, p + *n, cap - *n);
		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return errno;
		if (k == 0)
			break;
		*n += (size_t)k;
	}
	return 0;
}

static char *read_open(int fd, size_t max, const struct stat *st, size_t *n, int *err)
{
	/* What has no size (a pipe, a file of /proc) shows by one byte more that it is too large. */
	size_t cap = S_ISREG(st->st_mode) && st->st_size > 0 ? (size_t)st->st_size : max + 1;
	char *p = tnl_malloc(cap + 1);
	if (!p) {
		*err = ENOMEM;
		return NULL;
	}
	*err = read_all(fd, p, cap, n);
	if (*err == 0 && *n > max)
		*err = EFBIG;
	if (*err == 0) {
		p[*n] = '\0';
		return p;
	}
	tnl_free_wiped(p, cap);
	return NULL;
}

char *td_file_read(const char *path, size_t max, unsigned flags, size_t *n, struct stat *st)
{
	/* Not waiting for somebody to open the other end of a pipe. */
	int err = 0, fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat own;
	char *p = NULL;
	if (!st)
		st = &own;
	*n = 0;
	if (fd < 0)
		return NULL;
	if (fstat(fd, st) != 0)
		err = errno;
	else if ((err = check_kind(st, max, flags)) == 0) {
		fcntl(fd, F_SETFL, 0);
		p = read_open(fd, max, st, n, &err);
	}
	close(fd);
	errno = err;
	return p;
}

const char *td_file_trouble(int err)
{
	return err == EISDIR	? "is a directory"
	       : err == ENOTSUP ? "is not a file"
	       : err == EFBIG	? "is too large"
				: strerror(err);
}

int td_file_append(int fd, const void *data, size_t n)
{
	const char *p = data;
	while (n) {
		ssize_t k = write(fd, p, n);
		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return TNL_EIO;
		p += k;
		n -= (size_t)k;
	}
	return 0;
}

int td_file_write(const char *path, const void *p, size_t n, unsigned flags)
{
	size_t cap = strlen(path) + sizeof(".XXXXXX");
	char *tmp = tnl_malloc(cap);
	int err = TNL_EIO;
	if (!tmp) {
		errno = ENOMEM;
		return TNL_ENOMEM;
	}
	snprintf(tmp, cap, "%s.XXXXXX", path);
	int fd = mkostemp(tmp, O_CLOEXEC);
	if (fd >= 0) {
		if (td_file_append(fd, p, n) == 0 && (!(flags & TD_FILE_SYNC) || fsync(fd) == 0) &&
		    rename(tmp, path) == 0)
			err = 0;
		int saved = errno;
		close(fd);
		if (err)
			unlink(tmp);
		errno = saved;
	}
	tnl_free(tmp);
	return err;
}
