/* The local terminal: raw mode that is undone on every way out, size. */
#ifndef TD_COMMAND_TERM_H
#define TD_COMMAND_TERM_H
#include <stdbool.h>

/* Puts the terminal of fd into raw mode; restored by td_term_restore, at exit() and when the process is
 * killed by a signal that can be caught. false: fd is no terminal. */
bool td_term_raw(int fd);
void td_term_restore(void);
/* Size of the terminal; 300 x 100 without one, as the stock client says. */
void td_term_size(int fd, unsigned *cols, unsigned *rows);

#endif
