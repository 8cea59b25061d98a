/* Rows of the doctor: noted, printed for people or as JSON; and waiting for what a check has asked. */
#include "tunneld/command/doctor.h"

#include "lib/alloc.h"
#include "lib/enc.h"
#include "tunneld/command/term.h"

#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SECRET_MIN = 4, TEXT_MAX = 64 << 20, SIGNALS = 2 };

const char *const td_doctor_results[] = {"ok", "warn", "fail", "skipped"};

static void print_row(const struct td_doctor *d, const struct td_doctor_row *r)
{
	static const char *const colours[] = {"\033[32m", "\033[33m", "\033[31m", "\033[2m"};
	printf("%s%-7s%s  %-13s  ", d->colour ? colours[r->result] : "", td_doctor_results[r->result],
	       d->colour ? "\033[0m" : "", r->check);
	if (r->subject[0]) {
		td_term_put(stdout, r->subject);
		fputs(": ", stdout);
	}
	td_term_put(stdout, r->fact);
	if (r->advice[0]) {
		fputs("\n                          ", stdout);
		td_term_put(stdout, r->advice);
	}
	putchar('\n');
	fflush(stdout);
}

void td_doctor_row(struct td_doctor *d, const char *check, enum td_doctor_result result, int code, const char *advice,
		   const char *fmt, ...)
{
	struct td_doctor_row *rows = tnl_realloc(d->rows, (d->nrows + 1) * sizeof(*rows));
	va_list ap;
	td_progress_end(&d->progress);
	if (result == TD_DOCTOR_FAIL && !d->code)
		d->code = code;
	if (!rows)
		return;
	d->rows = rows;
	struct td_doctor_row *r = &rows[d->nrows++];
	memset(r, 0, sizeof(*r));
	r->check = check;
	r->result = result;
	snprintf(r->subject, sizeof(r->subject), "%s", d->subject ? d->subject : "");
	snprintf(r->advice, sizeof(r->advice), "%s", advice ? advice : "");
	va_start(ap, fmt);
	vsnprintf(r->fact, sizeof(r->fact), fmt, ap);
	va_end(ap);
	if (d->live)
		print_row(d, r);
}

/* Texts of peers may be cut in the middle of a character, or be none. */
static void put_text(struct tnl_jw *w, const char *key, const char *text)
{
	struct tnl_buf b;
	tnl_buf_init(&b, 8192);
	tnl_escape(&b, text, strlen(text), false);
	tnl_jw_kv(w, key, tnl_buf_str(&b));
	tnl_buf_fini(&b);
}

void td_doctor_json(const struct td_doctor *d, struct tnl_buf *b)
{
	struct tnl_jw w;
	tnl_jw_init(&w, b);
	tnl_jw_obj(&w);
	tnl_jw_kv(&w, "version", TUNNELD_VERSION);
	tnl_jw_kv(&w, "configuration", d->path);
	tnl_jw_kvi(&w, "exit_code", d->code);
	tnl_jw_key(&w, "rows");
	tnl_jw_arr(&w);
	for (size_t i = 0; i < d->nrows; i++) {
		const struct td_doctor_row *r = &d->rows[i];
		tnl_jw_obj(&w);
		tnl_jw_kv(&w, "check", r->check);
		tnl_jw_kv(&w, "result", td_doctor_results[r->result]);
		if (r->subject[0])
			tnl_jw_kv(&w, "tunnel", r->subject);
		put_text(&w, "fact", r->fact);
		if (r->advice[0])
			put_text(&w, "advice", r->advice);
		tnl_jw_end_obj(&w);
	}
	tnl_jw_end_arr(&w);
	tnl_jw_end_obj(&w);
}

/* --- the object -------------------------------------------------------------------------------- */

bool td_doctor_open(struct td_doctor *d)
{
	const char *no_color = getenv("NO_COLOR");
	d->loop = td_loop_new();
	if (!d->loop)
		return false;
	d->subject = "";
	d->colour = isatty(STDOUT_FILENO) && (!no_color || !*no_color);
	td_progress_init(&d->progress, d->loop);
	tnl_buf_init(&d->status, TEXT_MAX);
	tnl_buf_init(&d->secrets, 1 << 20);
	return true;
}

void td_doctor_close(struct td_doctor *d)
{
	td_progress_end(&d->progress);
	tnl_buf_fini(&d->status);
	tnl_buf_fini_wiped(&d->secrets);
	td_config_free(d->cfg);
	tnl_free(d->path);
	tnl_free(d->rows);
	td_loop_free(d->loop);
}

/* --- waiting --------------------------------------------------------------------------------- */

static void stop_loop(void *arg)
{
	td_loop_stop(arg);
}

/* Only while something is waited for: else they end the process, and nothing has to be ended before. */
static void on_signal(EV_P_ ev_signal *w, int revents)
{
	struct td_doctor *d = w->data;
	d->interrupted = true;
	td_loop_stop(d->loop);
}

static void watch_signals(struct td_doctor *d, ev_signal sig[SIGNALS])
{
	const int signals[SIGNALS] = {SIGINT, SIGTERM};
	for (int i = 0; i < SIGNALS; i++) {
		ev_signal_init(&sig[i], on_signal, signals[i]);
		sig[i].data = d;
		ev_signal_start(d->loop->ev, &sig[i]);
	}
}

bool td_doctor_wait(struct td_doctor *d, const bool *done, uint64_t ns, const char *what)
{
	struct td_timer t;
	ev_signal sig[SIGNALS];
	td_progress_begin(&d->progress, what);
	td_timer_init(&t, d->loop, stop_loop, d->loop);
	td_loop_update(d->loop);
	watch_signals(d, sig);
	uint64_t end = d->loop->now + ns;
	while (!*done && !d->interrupted && d->loop->now < end) {
		td_timer_at(&t, end);
		td_loop_run(d->loop);
		td_loop_update(d->loop);
	}
	td_timer_stop(&t);
	for (int i = 0; i < SIGNALS; i++)
		ev_signal_stop(d->loop->ev, &sig[i]);
	td_progress_end(&d->progress);
	return *done;
}

void td_doctor_done(struct td_doctor *d, bool *done)
{
	*done = true;
	td_loop_stop(d->loop);
}

void td_doctor_secret(struct td_doctor *d, const char *text)
{
	if (text && strlen(text) >= SECRET_MIN)
		tnl_buf_put(&d->secrets, text, strlen(text) + 1);
}
