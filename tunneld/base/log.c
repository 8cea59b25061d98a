/* Log lines, one write(2) of each 4 KiB or one datagram. */
#include "tunneld/base/log.h"

#include "lib/num.h"
#include "tunneld/base/log_fold.h"
#include "tunneld/base/log_line.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { TEXT_CAP = 6000 };

static enum td_log_format format = TD_LOG_TEXT; /* atomic, as all that a reload sets */

/* Other threads log as well, now and then. */
static struct {
	pthread_mutex_t lock;
	struct td_loop *l; /* NULL: nothing is folded */
	pthread_t thread;  /* the loop's */
	struct td_timer timer;
	ev_async due; /* a line of another thread was folded */
} folding = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct {
	pthread_mutex_t lock;
	td_log_tap_fn *fn;
	void *ctx;
} tap = {.lock = PTHREAD_MUTEX_INITIALIZER};

void td_log_tap(td_log_tap_fn *fn, void *ctx)
{
	pthread_mutex_lock(&tap.lock);
	tap.fn = fn;
	tap.ctx = ctx;
	pthread_mutex_unlock(&tap.lock);
}

static uint64_t clock_now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * TD_SEC + (uint64_t)ts.tv_nsec;
}

/* --- patience ---------------------------------------------------------------------------------------- */

/* Whoever reads the log may be slow, or have stopped: a terminal, a pager, a collector whose disk hangs.  Nobody is
 * served while he is waited for; so that is a fifth of the time at most, three seconds at a stretch, and no more once
 * he has let that pass, until he takes lines again. */
#define PATIENCE (3 * TD_SEC)

struct patience {
	uint64_t left, at; /* what may be waited still, as of when */
	bool over;
};

/* Of both outputs, which may be one: one line at a time. */
static pthread_mutex_t out_lock = PTHREAD_MUTEX_INITIALIZER;
static struct patience patience = {.left = PATIENCE};

/* Tries at once, and then for as long as may be waited. */
static bool wait_for(bool (*taken)(void *arg, uint64_t ns), void *arg)
{
	struct patience *w = &patience;
	uint64_t now;
	if (taken(arg, 0)) {
		if (w->over)
			*w = (struct patience){.at = clock_now()};
		return true;
	}
	if (w->over)
		return false;
	now = clock_now();
	w->left = TNL_MIN(PATIENCE, w->left + (now - w->at) / 4);
	w->at = now;
	bool yes = w->left >= TD_MS && taken(arg, w->left);
	now = clock_now();
	w->over = !yes;
	w->left -= TNL_MIN(w->left, now - w->at);
	w->at = now;
	return yes;
}

/* --- where lines go --------------------------------------------------------------------------------- */

/* journald's own socket, while the standard error output is its. */
static struct {
	int fd; /* -1: none */
	struct sockaddr_un addr;
} journal = {.fd = -1};

void td_log_journal(const char *path)
{
	if (journal.fd >= 0)
		close(journal.fd);
	journal.fd = -1;
	if (!path || strlen(path) >= sizeof(journal.addr.sun_path))
		return;
	journal.addr.sun_family = AF_UNIX;
	strcpy(journal.addr.sun_path, path);
	journal.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
}

/* JOURNAL_STREAM says which file the standard error output was when systemd made it. */
static bool stderr_is_journal(void)
{
	unsigned long long device, inode;
	const char *s = getenv("JOURNAL_STREAM");
	struct stat st;
	return s && sscanf(s, "%llu:%llu", &device, &inode) == 2 && fstat(STDERR_FILENO, &st) == 0 &&
	       st.st_dev == device && st.st_ino == inode;
}

struct datagram {
	char line[TD_LOG_JOURNAL_CAP];
	size_t len;
	bool sent;
};

/* false: its queue is full. */
static bool journal_takes(void *arg, uint64_t ns)
{
	struct datagram *d = arg;
	struct timeval most = {(time_t)(ns / TD_SEC), (suseconds_t)(ns % TD_SEC / 1000)};
	ssize_t n;
	if (ns)
		setsockopt(journal.fd, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof(most));
	do
		n = sendto(journal.fd, d->line, d->len, MSG_NOSIGNAL | (ns ? 0 : MSG_DONTWAIT),
			   (const struct sockaddr *)&journal.addr, sizeof(journal.addr));
	while (n < 0 && errno == EINTR);
	d->sent = n >= 0;
	return d->sent || (errno != EAGAIN && errno != EWOULDBLOCK);
}

/* false: it is not there, or does not take it. */
static bool to_journal(const struct td_log_entry *e)
{
	struct datagram d = {.sent = false};
	if (journal.fd < 0)
		return false;
	d.len = td_log_line_journal(e, d.line);
	(void)wait_for(journal_takes, &d);
	return d.sent;
}

/* Lines that the standard error output did not take (a full disk), and whether the last of them is there in part. */
static struct {
	uint64_t lines;
	int err;
	bool torn;
} lost;

/* A terminal that has room for a byte makes a longer write wait, and so does a pipe that others have filled since it
 * was looked at.  A file description of our own does not, and leaves that which others share as it is. */
static struct {
	int fd; /* -1: none */
	dev_t dev;
	ino_t ino;
} own = {.fd = -1};

static int output(void)
{
	struct stat st;
	if (fstat(STDERR_FILENO, &st) != 0 || !(S_ISCHR(st.st_mode) || S_ISFIFO(st.st_mode)))
		return STDERR_FILENO;
	if (own.dev != st.st_dev || own.ino != st.st_ino) {
		if (own.fd >= 0)
			close(own.fd);
		own.dev = st.st_dev;
		own.ino = st.st_ino;
		own.fd = open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	}
	return own.fd >= 0 ? own.fd : STDERR_FILENO;
}

struct piece {
	const char *p;
	size_t len;
	ssize_t n; /* what was written of it; or negative: */
	int err;
};

static bool stderr_takes(void *arg, uint64_t ns)
{
	struct piece *w = arg;
	struct pollfd f = {.fd = output(), .events = POLLOUT};
	if ((ns || f.fd == STDERR_FILENO) && poll(&f, 1, (int)(ns / TD_MS)) == 0)
		return false;
	do
		w->n = write(f.fd, w->p, TNL_MIN(w->len, (size_t)PIPE_BUF));
	while (w->n < 0 && errno == EINTR);
	w->err = w->n < 0 ? errno : ENOSPC;
	return w->n >= 0 || w->err != EAGAIN;
}

/* 0 or errno, EAGAIN when nobody reads it; *off: what was written. */
static int write_bytes(const char *p, size_t len, size_t *off)
{
	for (*off = 0; *off < len;) {
		struct piece w = {.p = p + *off, .len = len - *off};
		if (!wait_for(stderr_takes, &w))
			return EAGAIN;
		if (w.n <= 0)
			return w.err;
		*off += (size_t)w.n;
	}
	return 0;
}

static bool write_line(const struct td_log_entry *e, bool json)
{
	char line[TD_LOG_LINE_CAP + 1];
	size_t off, torn = lost.torn;
	line[0] = '\n'; /* ends the one that is there in part */
	size_t len = json ? td_log_line_json(e, line + 1) : td_log_line_text(e, line + 1);
	int err = write_bytes(line + !torn, len + torn, &off);
	lost.torn = err && off != torn;
	lost.err = err ? err : lost.err;
	return !err || (err == EAGAIN && off + 1 == len + torn); /* its end comes with the next one */
}

static const char *say_lost(char *out, size_t cap, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	tnl_log_format_marked(out, cap, fmt, ap);
	va_end(ap);
	return out;
}

static void to_stderr(const struct td_log_entry *e, bool json)
{
	char text[200];
	bool ok = true;
	if (lost.lines) {
		struct td_log_entry l = {.level = TNL_LOG_WARN, .module = "log", .wall_ms = e->wall_ms};
		l.text = say_lost(text, sizeof(text), "lines of the log could not be written lines=%llu error=\"%s\"",
				  (unsigned long long)lost.lines,
				  lost.err == EAGAIN ? "nobody reads them" : strerror(lost.err));
		ok = write_line(&l, json);
		lost.lines = ok ? 0 : lost.lines;
	}
	lost.lines += !ok || !write_line(e, json);
}

static void tell_tap(const struct td_log_entry *e)
{
	char text[TEXT_CAP];
	pthread_mutex_lock(&tap.lock);
	if (tap.fn) {
		snprintf(text, sizeof(text), "%s", e->text);
		tnl_log_unmark(text);
		tap.fn(tap.ctx, e->level, e->module, e->session, text);
	}
	pthread_mutex_unlock(&tap.lock);
}

static void emit_line(enum tnl_log_level level, const char *module, const char *session, const char *text)
{
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	const struct td_log_entry e = {.level = level,
				       .module = module,
				       .session = session,
				       .text = text,
				       .wall_ms = (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000};
	tell_tap(&e);
	bool json = __atomic_load_n(&format, __ATOMIC_RELAXED) == TD_LOG_JSON;
	pthread_mutex_lock(&out_lock);
	if (json || !to_journal(&e))
		to_stderr(&e, json);
	pthread_mutex_unlock(&out_lock);
}

/* --- folding ------------------------------------------------------------------ */

static void on_fold_due(void *arg)
{
	pthread_mutex_lock(&folding.lock);
	td_timer_at(&folding.timer, td_fold_say(clock_now(), false, emit_line));
	pthread_mutex_unlock(&folding.lock);
}

static void arm_fold(void)
{
	if (folding.timer.at == UINT64_MAX)
		td_timer_in(&folding.timer, TD_FOLD_NS);
}

static void on_folded_elsewhere(struct ev_loop *ev, ev_async *w, int events)
{
	arm_fold();
}

static bool passes(enum tnl_log_level level, const char *fmt, const char *module, const char *session, const char *text)
{
	const struct td_fold_line l = {level, fmt, module, session, text};
	if (level >= TNL_LOG_DEBUG)
		return true;
	pthread_mutex_lock(&folding.lock);
	bool yes = !folding.l || td_fold_passes(&l, clock_now(), emit_line);
	if (!yes && pthread_equal(folding.thread, pthread_self()))
		arm_fold();
	else if (!yes)
		ev_async_send(folding.l->ev, &folding.due);
	pthread_mutex_unlock(&folding.lock);
	return yes;
}

void td_log_fold(struct td_loop *l)
{
	pthread_mutex_lock(&folding.lock);
	if (folding.l) {
		td_timer_stop(&folding.timer);
		ev_ref(folding.l->ev);
		ev_async_stop(folding.l->ev, &folding.due);
		td_fold_say(clock_now(), true, emit_line);
		td_fold_clear();
	}
	folding.l = l;
	folding.thread = pthread_self();
	if (l) {
		td_timer_init(&folding.timer, l, on_fold_due, NULL);
		ev_async_init(&folding.due, on_folded_elsewhere);
		ev_async_start(l->ev, &folding.due);
		ev_unref(l->ev);
	}
	pthread_mutex_unlock(&folding.lock);
}

static bool connections_are_logged = true;

void td_log_connections(bool yes)
{
	__atomic_store_n(&connections_are_logged, yes, __ATOMIC_RELAXED);
}

enum tnl_log_level td_log_of_connection(void)
{
	return __atomic_load_n(&connections_are_logged, __ATOMIC_RELAXED) ? TNL_LOG_INFO : TNL_LOG_DEBUG;
}

void td_log(enum tnl_log_level level, const char *module, const char *session, const char *fmt, ...)
{
	if (!tnl_log_on(level))
		return;
	int saved = errno;
	char text[TEXT_CAP];
	va_list ap;
	va_start(ap, fmt);
	tnl_log_format_marked(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (passes(level, fmt, module, session, text))
		emit_line(level, module, session, text);
	errno = saved;
}

static void from_library(void *ctx, enum tnl_log_level level, const char *module, const char *text)
{
	if (passes(level, NULL, module, NULL, text))
		emit_line(level, module, NULL, text);
}

void td_log_setup(enum tnl_log_level max, enum td_log_format f)
{
	static bool looked;
	__atomic_store_n(&format, f, __ATOMIC_RELAXED);
	if (!looked && stderr_is_journal())
		td_log_journal("/run/systemd/journal/socket");
	looked = true;
	tnl_log_set(from_library, NULL, max);
}
