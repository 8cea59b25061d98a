/* A spawner: a process that was forked before this one gave up privileges and system calls, and does for it the one
 * thing that needs them.  It holds no descriptor of ours, hears no signal, and ends when we do.
 *
 *   we ── message, descriptors, the far end of a channel ──► spawner ── fork ──► warden ── child
 *
 * What is asked for is a message that it reads with suspicion: whoever took over this process may ask, too. */
#ifndef TD_BASE_SPAWNER_H
#define TD_BASE_SPAWNER_H
#include "tunneld/base/child.h"

enum { TD_SPAWNER_MESSAGE_MAX = 128 * 1024, TD_SPAWNER_FDS_MAX = 3 };

struct td_spawner_job {
	const char *message; /* with a 0 behind it */
	size_t n;
	int fds[TD_SPAWNER_FDS_MAX]; /* its own; closed afterwards */
	int nfds;
	int channel; /* for td_warden_fork or td_warden_refuse */
};
/* Starts what is asked for.  In the spawner, or without one right here; gives the warden's number, 0: refused. */
typedef pid_t td_spawner_fn(const void *arg, const struct td_spawner_job *j);

struct td_spawner;
/* Forks it: from now on it sees arg as it was. enter: what it gives up itself, before anything else; false: it ends.
 * NULL and errno. */
struct td_spawner *td_spawner_new(td_spawner_fn *fn, const void *arg, bool (*enter)(void));
void td_spawner_free(struct td_spawner *s); /* it ends; the children go on. NULL is fine */

struct td_spawner_order {
	td_spawner_fn *fn; /* for the case that there is no spawner */
	const void *arg;
	const char *message;
	size_t n;
	const int *fds; /* stay yours */
	int nfds;
};
/* td_child_adopt with what comes of the order. */
struct td_child *td_spawner_start(struct td_spawner *s, struct td_loop *l, const struct td_spawner_order *o,
				  int give[2], td_child_fn *exited, void *ctx, char *why, size_t cap);

/* From now on a spawner starts what td_child_start is asked for: any program, with our environment, without `enter` and
 * `session`, as whoever we are by now.  0 or -1 and errno. */
int td_spawner_programs(bool (*enter)(void));
void td_spawner_programs_end(void);

#endif
