/* The local terminal: raw mode that is undone on every way out, its size, a shell session on it, and text that must not
 * steer it. */
#ifndef TD_COMMAND_TERM_H
#define TD_COMMAND_TERM_H
#include "tunneld/command/foreground.h"
#include "lib/buf.h"
#include <stdio.h>

/* Undoes raw mode; also done at exit() and when the process is killed by a signal that can be caught. */
void td_term_restore(void);
/* Is stdin a terminal that we may read? Not from the background. */
bool td_term_is_ours(void);

/* A shell session on stdin.  On a terminal: raw mode, which comes back when the process was stopped and goes on; what
 * is typed passes through here, so that Enter ~ . leaves also while nothing can be sent; and a line that says when the
 * session is away for 3 s, and when it is back.  Where stdin is no terminal: the end of input as a person would type
 * it. Both: the window's size, now and whenever it changes.
 *
 *   stdin → [escapes] → feed[1] ⇒ feed[0] → the session's pipe */
struct td_term {
	struct td_foreground *fg; /* NULL: not attached */
	ev_signal winch, cont, tstp;
	/* of a terminal */
	ev_io in, out;
	int feed[2]; /* -1: what is typed does not pass through here */
	struct tnl_buf typed;
	bool line_start, tilde;
	struct td_timer look;
	uint64_t seen, seen_at; /* what has come from the other end, and when that changed */
	uint64_t away_since;	/* 0: it is there */
	bool away_told;
};
/* The session's one stream, as td_foreground_stream makes it.  NULL: that failed. */
struct td_pipe *td_term_open(struct td_term *t, struct td_foreground *fg, void *user);
void td_term_detach(struct td_term *t); /* nothing passes any more; the mode stays; fine when not attached */

/* Text of peers or files, its control characters escaped. */
void td_term_put(FILE *f, const char *text);

#endif
