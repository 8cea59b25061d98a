#include "tunneld/command/progress.h"

#include "tunneld/command/term.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define QUIET (1 * TD_SEC)
#define STEP (200 * TD_MS)

static void draw(void *arg)
{
	struct td_progress *p = arg;
	static const char signs[] = "|/-\\";
	uint64_t s = (p->timer.l->now - p->since) / TD_SEC;
	fprintf(stderr, "\r\033[K%s%c ", p->dim ? "\033[2m" : "", signs[p->step++ % 4]);
	td_term_put(stderr, p->what);
	fprintf(stderr, " … %llu s%s", (unsigned long long)s, p->dim ? "\033[0m" : "");
	fflush(stderr);
	p->shown = true;
	td_timer_in(&p->timer, STEP);
}

void td_progress_init(struct td_progress *p, struct td_loop *l)
{
	const char *term = getenv("TERM"), *no_color = getenv("NO_COLOR");
	memset(p, 0, sizeof(*p));
	td_timer_init(&p->timer, l, draw, p);
	p->on = isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0;
	p->dim = !no_color || !*no_color;
}

void td_progress_begin(struct td_progress *p, const char *what)
{
	td_progress_end(p);
	if (!p->on)
		return;
	snprintf(p->what, sizeof(p->what), "%s", what);
	td_loop_update(p->timer.l);
	p->since = p->timer.l->now;
	td_timer_in(&p->timer, QUIET);
}

void td_progress_end(struct td_progress *p)
{
	td_timer_stop(&p->timer);
	if (p->shown)
		fputs("\r\033[K", stderr);
	p->shown = false;
}
