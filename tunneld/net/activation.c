#include "tunneld/net/activation.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FIRST 3
#define SOCKETS_MAX 64

static struct {
	char names[SOCKETS_MAX][64];
	int n;
} given;

static bool is_for_us(const char *pid)
{
	return pid && strtol(pid, NULL, 10) == (long)getpid();
}

void td_activation_take(void)
{
	const char *n = getenv("LISTEN_FDS"), *names = getenv("LISTEN_FDNAMES");
	long count = n && is_for_us(getenv("LISTEN_PID")) ? strtol(n, NULL, 10) : 0;

	for (given.n = 0; given.n < count && given.n < SOCKETS_MAX; given.n++) {
		size_t len = names ? strcspn(names, ":") : 0;
		snprintf(given.names[given.n], sizeof(given.names[0]), "%.*s", (int)len, names ? names : "");
		if (names)
			names += len + (names[len] == ':');
		fcntl(FIRST + given.n, F_SETFD, FD_CLOEXEC);
	}
	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	unsetenv("LISTEN_FDNAMES");
}

static int open_copy(int fd)
{
	int listens = 0, type = 0;
	socklen_t len = sizeof(listens), type_len = sizeof(type);
	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) != 0 ||
	    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_len) != 0)
		return -1;
	if (!listens || type != SOCK_STREAM) {
		errno = EINVAL;
		return -1;
	}
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, FIRST), flags = copy >= 0 ? fcntl(copy, F_GETFL) : -1;
	if (flags >= 0)
		fcntl(copy, F_SETFL, flags | O_NONBLOCK);
	return copy;
}

int td_activation_open(const char *name, int i)
{
	for (int k = 0; k < given.n; k++)
		if (strcmp(given.names[k], name) == 0 && --i == 0)
			return open_copy(FIRST + k);
	errno = ENOENT;
	return -1;
}
