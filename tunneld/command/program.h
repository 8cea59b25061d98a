/* The program of `tunneld exec`: in our process group, with our descriptors and our terminal, as if the shell had
 * started it.  Signals that come to us alone are passed on; what the terminal sends it has got itself. */
#ifndef TD_COMMAND_PROGRAM_H
#define TD_COMMAND_PROGRAM_H
#include "tunneld/base/loop.h"

/* What the process was given, before anything of ours changes it. */
void td_program_remember(void);

struct td_program;
struct td_program_cb {
	void (*exited)(void *ctx, int code);   /* as shells have it: 128 + the signal that killed it */
	void (*signalled)(void *ctx, int sig); /* after it had exited */
};
/* argv ends in NULL.  From now on signals are ours alone.  NULL: errno says why it cannot be run. */
struct td_program *td_program_start(struct td_loop *l, char *const *argv, const struct td_program_cb *cb, void *ctx);
void td_program_free(struct td_program *p); /* the terminal is our group's again; NULL is fine */

#endif
