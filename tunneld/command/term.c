#include "tunneld/command/term.h"

#include "lib/enc.h"
#include "lib/num.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
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

/* false: fd is no terminal. */
static bool make_raw(int fd)
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
		for (size_t i = 0; i < TNL_COUNT(signals); i++)
			signal(signals[i], fatal);
	}
	return true;
}

/* 300 x 100 without a terminal, as the stock client says. */
static void send_size(struct td_term *t)
{
	struct winsize w;
	struct td_pump *p = td_client_pump(t->fg->client);
	bool known = ioctl(STDIN_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col && w.ws_row;
	tnl_session_send_size(td_pump_session(p), known ? w.ws_col : 300, known ? w.ws_row : 100, t->fg->loop->now);
	td_pump_kick(p);
}

static void on_winch(EV_P_ ev_signal *w, int revents)
{
	struct td_term *t = w->data;
	if (t->fg->code < 0)
		send_size(t);
}

void td_term_attach(struct td_term *t, struct td_foreground *fg, struct td_pipe *p)
{
	t->fg = fg;
	if (!make_raw(STDIN_FILENO))
		td_pipe_at_eof(p, "\x04"); /* what a person would type to end the shell */
	ev_signal_init(&t->winch, on_winch, SIGWINCH);
	t->winch.data = t;
	ev_signal_start(fg->loop->ev, &t->winch);
	send_size(t);
}

void td_term_detach(struct td_term *t)
{
	if (t->fg)
		ev_signal_stop(t->fg->loop->ev, &t->winch);
	t->fg = NULL;
}

void td_term_put(FILE *f, const char *text)
{
	struct tnl_buf b;
	tnl_buf_init(&b, 1 << 20);
	tnl_escape(&b, text, strlen(text), false);
	fwrite(tnl_buf_data(&b), 1, tnl_buf_len(&b), f);
	tnl_buf_fini(&b);
}
