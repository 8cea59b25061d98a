/* Log lines on stderr, one write(2) each. */
#include "tunneld/base/log.h"

#include "lib/num.h"
#include "tunneld/base/log_fold.h"
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE_CAP = 8192, TEXT_CAP = 6000 };

static enum td_log_format format = TD_LOG_TEXT;

/* Other threads log as well, now and then. */
static struct {
	pthread_mutex_t lock;
	struct td_loop *l; /* NULL: nothing is folded */
	pthread_t thread;  /* the loop's */
	struct td_timer timer;
} folding = {.lock = PTHREAD_MUTEX_INITIALIZER};

struct line {
	char b[LINE_CAP];
	size_t n;
};

/* Keeps room for the end of the line whatever the text was. */
static void put_bytes(struct line *l, const char *s, size_t n)
{
	n = TNL_MIN(n, LINE_CAP - 32 - l->n);
	memcpy(l->b + l->n, s, n);
	l->n += n;
}

static void put_text(struct line *l, const char *s)
{
	put_bytes(l, s, strlen(s));
}

/* Length of the printable UTF-8 sequence at s (1–4), or 0: a byte that must not reach a terminal as it is. */
static size_t printable_length(const unsigned char *s)
{
	static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
	size_t n = *s < 0x80 ? 1 : *s >> 5 == 6 ? 2 : *s >> 4 == 14 ? 3 : *s >> 3 == 30 ? 4 : 0;
	if (n <= 1)
		return *s >= 0x20 && *s < 0x7f ? n : 0;
	uint32_t v = *s & (0x7fu >> n);
	for (size_t i = 1; i < n; i++) {
		if (s[i] >> 6 != 2)
			return 0;
		v = v << 6 | (s[i] & 0x3f);
	}
	/* C1 controls, surrogates, and the characters that turn the direction of writing or end a line. */
	if (v < least[n] || v > 0x10ffff || v < 0xa0 || (v >= 0xd800 && v < 0xe000) || (v >= 0x202a && v <= 0x202e) ||
	    (v >= 0x2066 && v <= 0x2069) || v == 0x2028 || v == 0x2029)
		return 0;
	return n;
}

static void put_escaped(struct line *l, const char *s, bool json)
{
	const unsigned char *p = (const unsigned char *)s;
	while (*p && l->n < LINE_CAP - 64) {
		size_t n = printable_length(p);
		char hex[8];
		if (n && json && (*p == '"' || *p == '\\')) {
			put_bytes(l, "\\", 1);
			put_bytes(l, (const char *)p, 1);
		} else if (n) {
			put_bytes(l, (const char *)p, n);
		} else if (*p == '\n' || *p == '\t' || *p == '\r') {
			put_text(l, *p == '\n' ? "\\n" : *p == '\t' ? "\\t" : "\\r");
		} else {
			/* JSON has no \x: a stray byte shows as the character of the same number. */
			snprintf(hex, sizeof(hex), json ? "\\u%04x" : "\\x%02x", *p);
			put_text(l, hex);
		}
		p += n ? n : 1;
	}
	if (*p)
		put_text(l, "…");
}

static void put_time(struct line *l)
{
	struct timespec ts;
	struct tm tm;
	char text[40];
	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	size_t n = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
	n += (size_t)snprintf(text + n, sizeof(text) - n, ".%03dZ", (int)(ts.tv_nsec / 1000000));
	put_bytes(l, text, n);
}

static struct {
	td_log_tap_fn *fn;
	void *ctx;
} tap;

void td_log_tap(td_log_tap_fn *fn, void *ctx)
{
	tap.fn = fn;
	tap.ctx = ctx;
}

static void emit_line(enum tnl_log_level level, const char *module, const char *session, const char *text)
{
	static const char *const upper[] = {"ERROR", "WARN", "INFO", "DEBUG"};
	static const char *const lower[] = {"error", "warn", "info", "debug"};
	struct line l;
	l.n = 0;
	if (tap.fn)
		tap.fn(tap.ctx, level, module, session, text);
	if (format == TD_LOG_JSON) {
		put_text(&l, "{\"time\":\"");
		put_time(&l);
		put_text(&l, "\",\"level\":\"");
		put_text(&l, lower[level]);
		put_text(&l, "\",\"module\":\"");
		put_escaped(&l, module, true);
		if (session && *session) {
			put_text(&l, "\",\"session\":\"");
			put_escaped(&l, session, true);
		}
		put_text(&l, "\",\"message\":\"");
		put_escaped(&l, text, true);
		memcpy(l.b + l.n, "\"}\n", 3);
		l.n += 3;
	} else {
		put_time(&l);
		put_text(&l, " ");
		put_text(&l, upper[level]);
		put_text(&l, " ");
		put_escaped(&l, module, false);
		if (session && *session) {
			put_text(&l, " session=");
			put_escaped(&l, session, false);
		}
		put_text(&l, " ");
		put_escaped(&l, text, false);
		l.b[l.n++] = '\n';
	}
	for (size_t off = 0; off < l.n;) {
		ssize_t n = write(STDERR_FILENO, l.b + off, l.n - off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return; /* nobody to tell */
		off += (size_t)n;
	}
}

/* --- folding ------------------------------------------------------------------ */

static uint64_t clock_now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * TD_SEC + (uint64_t)ts.tv_nsec;
}

static void on_fold_due(void *arg)
{
	pthread_mutex_lock(&folding.lock);
	td_timer_at(&folding.timer, td_fold_say(clock_now(), false, emit_line));
	pthread_mutex_unlock(&folding.lock);
}

static bool passes(enum tnl_log_level level, const char *fmt, const char *module, const char *session, const char *text)
{
	const struct td_fold_line l = {level, fmt, module, session, text};
	if (!folding.l || level >= TNL_LOG_DEBUG)
		return true;
	pthread_mutex_lock(&folding.lock);
	bool yes = td_fold_passes(&l, clock_now(), emit_line);
	if (!yes && folding.timer.at == UINT64_MAX && pthread_equal(folding.thread, pthread_self()))
		td_timer_in(&folding.timer, TD_FOLD_NS);
	pthread_mutex_unlock(&folding.lock);
	return yes;
}

void td_log_fold(struct td_loop *l)
{
	if (folding.l) {
		td_timer_stop(&folding.timer);
		td_fold_say(clock_now(), true, emit_line);
		td_fold_clear();
	}
	folding.l = l;
	folding.thread = pthread_self();
	if (l)
		td_timer_init(&folding.timer, l, on_fold_due, NULL);
}

void td_log(enum tnl_log_level level, const char *module, const char *session, const char *fmt, ...)
{
	if (!tnl_log_on(level))
		return;
	int saved = errno;
	char text[TEXT_CAP];
	va_list ap;
	va_start(ap, fmt);
	tnl_log_format(text, sizeof(text), fmt, ap);
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
	format = f;
	tnl_log_set(from_library, NULL, max);
}
