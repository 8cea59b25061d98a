#include "tunneld/command/term.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static struct termios saved;
static int term_fd = -1;

void td_term_restore(void)
{
	if (term_fd >= 0) /* both calls are async-signal-safe */
		tcsetattr(term_fd, TCSADRAIN, &saved);
	term_fd = -1;
}

static void fatal(int signum)
{
	td_term_restore();
	signal(signum, SIG_DFL);
	raise(signum);
}

bool td_term_raw(int fd)
{
	static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
	static bool registered;
	struct termios raw;

	if (term_fd >= 0 || tcgetattr(fd, &saved) != 0)
		return false;
	raw = saved;
	cfmakeraw(&raw);
	if (tcsetattr(fd, TCSADRAIN, &raw) != 0)
		return false;
	term_fd = fd;
	if (!registered) {
		registered = true;
		atexit(td_term_restore);
		for (unsigned i = 0; i < sizeof(signals) / sizeof(*signals); i++)
			signal(signals[i], fatal);
	}
	return true;
}

void td_term_size(int fd, unsigned *cols, unsigned *rows)
{
	struct winsize w;
	*cols = 300;
	*rows = 100;
	if (ioctl(fd, TIOCGWINSZ, &w) == 0 && w.ws_col && w.ws_row) {
		*cols = w.ws_col;
		*rows = w.ws_row;
	}
}
