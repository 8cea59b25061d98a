/* A shell's terminal.  What is typed does not go straight to the session: that reads nothing while it cannot send, and
 * then a way out would be missing just when it is wanted.  So it passes through here (escapes) and a socket pair. */
#include "tunneld/command/term.h"

#include "lib/enc.h"
#include "lib/num.h"

#include "tunneld/base/fd.h"
#include "tunneld/base/log.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#define LOOK_NS (500 * TD_MS)
#define AWAY_NS (3 * TD_SEC)
#define TYPED_MAX (16u << 10) /* read ahead of what the session takes, beside what a socket keeps */

static const char help_text[] = "\r\n"
				"Behind Enter:\r\n"
				"  ~.  leave\r\n"
				"  ~?  this text\r\n"
				"  ~~  one ~\r\n";

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

static bool in_foreground(int fd)
{
	return tcgetpgrp(fd) == getpgrp();
}

bool td_term_is_ours(void)
{
	return isatty(STDIN_FILENO) && in_foreground(STDIN_FILENO);
}

static bool set_raw(int fd)
{
	struct termios raw = saved;
	cfmakeraw(&raw);
	return tcsetattr(fd, TCSADRAIN, &raw) == 0;
}

/* false: fd is no terminal.  One that is another's now becomes raw when this process is in the foreground. */
static bool make_raw(int fd)
{
	static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
	static bool registered;

	if (term_fd >= 0 || tcgetattr(fd, &saved) != 0)
		return false;
	if (in_foreground(fd) && !set_raw(fd))
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

/* ---- stopped and continued ------------------------------------------------------------ */

/* Whoever stopped us, the shell that took over has set its own mode, and the window may be another. */
static void on_cont(EV_P_ ev_signal *w, int revents)
{
	struct td_term *t = w->data;
	if (term_fd >= 0 && in_foreground(term_fd))
		set_raw(term_fd);
	if (t->fg->code < 0)
		send_size(t);
}

static void on_tstp(EV_P_ ev_signal *w, int revents)
{
	if (term_fd >= 0)
		tcsetattr(term_fd, TCSADRAIN, &saved);
	kill(getpid(), SIGSTOP);
}

static void watch_signal(struct td_term *t, ev_signal *w, void (*fn)(EV_P_ ev_signal *, int), int signum)
{
	ev_signal_init(w, fn, signum);
	w->data = t;
	ev_signal_start(t->fg->loop->ev, w);
}

/* ---- lines of our own ------------------------------------------------------------------- */

static void put_line(const char *text)
{
	int fd = isatty(STDERR_FILENO) ? STDERR_FILENO : term_fd;
	if (fd >= 0 && write(fd, text, strlen(text)) < 0)
		return; /* a terminal that takes nothing cannot be told of that */
}

/* Away: no link, or nothing has come back for what was sent. */
static bool is_away(struct td_term *t, uint64_t *since)
{
	struct tnl_session *ses = td_pump_session(td_client_pump(t->fg->client));
	struct tnl_channel_stats st = {0};
	uint64_t now = t->fg->loop->now;

	tnl_channel_stats(tnl_session_channel(ses), &st);
	if (st.acks_received + st.received != t->seen || tnl_session_drained(ses)) {
		t->seen = st.acks_received + st.received;
		t->seen_at = now;
	}
	bool linked = td_client_state(t->fg->client) == TD_CLIENT_UP;
	*since = linked ? t->seen_at : now;
	return !linked || now - t->seen_at >= AWAY_NS;
}

static void on_look(void *arg)
{
	struct td_term *t = arg;
	uint64_t since;

	td_timer_in(&t->look, LOOK_NS);
	if (t->fg->code >= 0)
		return;
	if (!is_away(t, &since)) {
		if (t->away_told)
			put_line("\r\ntunneld: the connection is back\r\n");
		t->away_since = 0;
		t->away_told = false;
		return;
	}
	if (!t->away_since)
		t->away_since = since;
	if (t->away_told || t->fg->loop->now - t->away_since < AWAY_NS)
		return;
	t->away_told = true;
	put_line("\r\ntunneld: the connection is away, it is being tried again; Enter ~ . leaves, ~? helps\r\n");
}

/* ---- what is typed ------------------------------------------------------------------------ */

static void leave(struct td_term *t)
{
	bool away = t->away_since != 0;
	td_term_restore();
	td_foreground_say(t->fg, "left with ~.");
	td_foreground_finish(t->fg, away ? TD_EXIT_LOST : TD_EXIT_OK);
}

/* Behind Enter ~. true: it was an escape. */
static bool escape(struct td_term *t, uint8_t c)
{
	t->tilde = false;
	if (c == '.')
		leave(t);
	else if (c == '?')
		put_line(help_text);
	else if (c == '~')
		tnl_buf_putc(&t->typed, '~');
	else
		return false;
	t->line_start = c == '?';
	return true;
}

static void take_typed(struct td_term *t, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n && t->fg->code < 0; i++) {
		if (t->tilde) {
			if (escape(t, p[i]))
				continue;
			tnl_buf_putc(&t->typed, '~');
		} else if (t->line_start && p[i] == '~') {
			t->tilde = true;
			t->line_start = false;
			continue;
		}
		tnl_buf_putc(&t->typed, p[i]);
		t->line_start = p[i] == '\r' || p[i] == '\n';
	}
}

/* What was typed on to the session; with much of it waiting nothing is read. */
static void pass_on(struct td_term *t)
{
	struct ev_loop *ev = t->fg->loop->ev;
	size_t n = tnl_buf_len(&t->typed);
	ssize_t w = n ? send(t->feed[1], tnl_buf_data(&t->typed), n, MSG_NOSIGNAL) : 0;

	if (w > 0)
		tnl_buf_consume(&t->typed, (size_t)w);
	n = tnl_buf_len(&t->typed);
	if (n)
		ev_io_start(ev, &t->out);
	else
		ev_io_stop(ev, &t->out);
	if (n > TYPED_MAX / 4)
		ev_io_stop(ev, &t->in);
	else
		ev_io_start(ev, &t->in);
}

static void on_room(EV_P_ ev_io *w, int revents)
{
	pass_on(w->data);
}

static void on_typed(EV_P_ ev_io *w, int revents)
{
	struct td_term *t = w->data;
	uint8_t b[1024];
	ssize_t n = read(STDIN_FILENO, b, sizeof(b));

	if (n > 0) {
		take_typed(t, b, (size_t)n);
		if (t->fg->code < 0)
			pass_on(t);
	} else if (n == 0 || (errno != EINTR && errno != EAGAIN)) { /* the terminal has gone */
		ev_io_stop(t->fg->loop->ev, &t->in);
		shutdown(t->feed[1], SHUT_WR);
	}
}

/* true: what is typed passes through here. */
static bool feed_open(struct td_term *t)
{
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, t->feed) != 0) {
		t->feed[0] = t->feed[1] = -1;
		return false;
	}
	tnl_buf_init(&t->typed, TYPED_MAX);
	t->line_start = true;
	ev_io_init(&t->in, on_typed, STDIN_FILENO, EV_READ);
	ev_io_init(&t->out, on_room, t->feed[1], EV_WRITE);
	t->in.data = t->out.data = t;
	ev_io_start(t->fg->loop->ev, &t->in);
	td_timer_init(&t->look, t->fg->loop, on_look, t);
	td_timer_in(&t->look, LOOK_NS);
	t->seen_at = t->fg->loop->now;
	td_foreground_quiet(t->fg); /* what the log says of links would land between a program's lines */
	return true;
}

/* ---- the session ---------------------------------------------------------------------------- */

struct td_pipe *td_term_open(struct td_term *t, struct td_foreground *fg, void *user)
{
	bool raw = make_raw(STDIN_FILENO);

	memset(t, 0, sizeof(*t));
	t->fg = fg;
	t->feed[0] = t->feed[1] = -1;
	struct td_pipe *p =
	    td_foreground_stream(fg, raw && feed_open(t) ? t->feed[0] : STDIN_FILENO, STDERR_FILENO, user);
	if (p && !raw)
		td_pipe_at_eof(p, "\x04"); /* what a person would type to end the shell */
	watch_signal(t, &t->winch, on_winch, SIGWINCH);
	watch_signal(t, &t->cont, on_cont, SIGCONT);
	if (raw)
		watch_signal(t, &t->tstp, on_tstp, SIGTSTP);
	if (p)
		send_size(t);
	return p;
}

void td_term_detach(struct td_term *t)
{
	if (!t->fg)
		return;
	struct ev_loop *ev = t->fg->loop->ev;
	ev_signal_stop(ev, &t->winch);
	ev_signal_stop(ev, &t->cont);
	ev_signal_stop(ev, &t->tstp);
	t->fg = NULL;
	if (t->feed[1] < 0)
		return;
	ev_io_stop(ev, &t->in);
	ev_io_stop(ev, &t->out);
	td_timer_stop(&t->look);
	tnl_buf_fini_wiped(&t->typed);
	close(t->feed[1]); /* the other end is the pipe's until the process ends */
	t->feed[1] = -1;
}

void td_term_put(FILE *f, const char *text)
{
	struct tnl_buf b;
	tnl_buf_init(&b, 1 << 20);
	tnl_escape(&b, text, strlen(text), false);
	fwrite(tnl_buf_data(&b), 1, tnl_buf_len(&b), f);
	tnl_buf_fini(&b);
}
