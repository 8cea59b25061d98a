/* What a command prints, gathered without ever waiting for it. */
#ifndef TD_BASE_CAPTURE_H
#define TD_BASE_CAPTURE_H
#include "tunneld/base/loop.h"

struct td_capture;
struct td_captured {
	bool late;	    /* it took longer than it had, and was killed */
	int status;	    /* of waitpid(); 0 when nobody can know it */
	const uint8_t *out; /* up to the bound, valid during the call, wiped after it */
	size_t n;
};
typedef void td_capture_fn(void *ctx, const struct td_captured *r); /* once, unless cancelled */
/* `sh -c command` with our environment; no input, and its errors go nowhere: they may tell secrets.  It is over when it
 * has exited and its output is closed; who prints more than `max` finds the pipe closed.  NULL and errno. */
struct td_capture *td_capture_start(struct td_loop *l, const char *command, size_t max, uint64_t limit_ns,
				    td_capture_fn *fn, void *ctx);
void td_capture_cancel(struct td_capture *c); /* kills it */

#endif
