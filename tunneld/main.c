#include "tunneld/command/command.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
	if (argc < 1)
		return TD_EXIT_USAGE;
	/* A standard descriptor that is closed must not become one of ours; reading 0 and writing 1 then fail. */
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == 1 ? O_RDONLY : O_WRONLY) != fd)
			return TD_EXIT_RUNTIME;
	int code = td_command_main(argc, argv);
	if ((fflush(stdout) || ferror(stdout)) && code == TD_EXIT_OK) {
		fprintf(stderr, "tunneld: cannot write the output: %s\n", strerror(errno));
		code = TD_EXIT_RUNTIME;
	}
	return code;
}
