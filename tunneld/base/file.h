/* Whole small files: read at once, written at once. */
#ifndef TD_BASE_FILE_H
#define TD_BASE_FILE_H
#include "lib/err.h"

#include <stddef.h>
#include <sys/stat.h>

enum {
	TD_FILE_PIPE = 1, /* read: a pipe is fine too and is waited for, as with -c <(…) */
	TD_FILE_SYNC = 2, /* write: on the disk before it takes the old one's place */
};

/* What a configuration names is never longer: certificates, keys, secrets. */
#define TD_FILE_SMALL ((size_t)8 << 20)

/* All of a file of at most `max` bytes, with a NUL behind it; heap, tnl_free_wiped(p, n) where it may hold a secret.
 * st (or NULL): what it is, filled whenever it could be opened.  NULL and errno: that of open or read, EISDIR,
 * ENOTSUP for what is no file, EFBIG, ENOMEM. */
char *td_file_read(const char *path, size_t max, unsigned flags, size_t *n, struct stat *st) TNL_MUST_USE;
/* Of its errno, in words: what somebody reads behind "cannot read PATH: ". */
const char *td_file_trouble(int err);

/* The file is there with all of it or stays as it was: written beside it, mode 0600, and renamed.
 * 0, or TNL_EIO or TNL_ENOMEM and errno. */
int td_file_write(const char *path, const void *p, size_t n, unsigned flags) TNL_MUST_USE;
/* All of it where fd stands.  0, or TNL_EIO and errno. */
int td_file_append(int fd, const void *p, size_t n) TNL_MUST_USE;

#endif
