/* The local terminal: raw mode that is undone on every way out, its size, a shell session on it, and text that must not
 * steer it. */
#ifndef TD_COMMAND_TERM_H
#define TD_COMMAND_TERM_H
#include "tunneld/command/foreground.h"
#include <stdio.h>

/* Undoes raw mode; also done at exit() and when the process is killed by a signal that can be caught. */
void td_term_restore(void);

/* A shell session on stdin: raw mode, or the end of input as a person would type it where stdin is no terminal, and the
 * window's size, now and whenever it changes.  p: the session's stream, from td_foreground_stream. */
struct td_term {
	struct td_foreground *fg; /* NULL: not attached */
	ev_signal winch;
};
void td_term_attach(struct td_term *t, struct td_foreground *fg, struct td_pipe *p);
void td_term_detach(struct td_term *t); /* sizes are sent no more; the mode stays; fine when not attached */

/* Text of peers or files, its control characters escaped. */
void td_term_put(FILE *f, const char *text);

#endif
