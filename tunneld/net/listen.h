/* Listening sockets, TCP and Unix. */
#ifndef TD_NET_LISTEN_H
#define TD_NET_LISTEN_H
#include "lib/err.h"
#include "tunneld/base/loop.h"
#include "tunneld/net/addr.h"

#include <stddef.h>

struct td_listener;
typedef void td_accept_fn(void *ctx, int fd, const struct td_addr *peer);
/* SO_REUSEADDR, IPV6_V6ONLY; a stale unix socket is removed only when connecting to it is refused; unix sockets 0600.
 * One that is there already (TD_AF_GIVEN) is copied, and stays when the listener goes.
 * EMFILE: gives up a reserve descriptor, pauses 1 s, logs once. Bounded accepts per turn. NULL and *why on failure. */
struct td_listener *td_listen(struct td_loop *l, const struct td_addr *a, td_accept_fn *fn, void *ctx, char *why,
			      size_t cap);
/* The socket alone, as td_listen makes it; -1 and *why. A unix socket is the caller's to unlink. */
int td_listen_socket(const struct td_addr *a, char *why, size_t cap);
/* On a socket that listens already.  Taken when it succeeds. */
struct td_listener *td_listen_on(struct td_loop *l, int fd, td_accept_fn *fn, void *ctx, char *why, size_t cap);
void td_listener_addr(const struct td_listener *s, struct td_addr *out); /* with the chosen port */
/* Others leave the last descriptors of the process alone (tunneld/base/fd.h): for those who are to be reached always.
 */
void td_listener_use_spare(struct td_listener *s);
/* A unix socket that it made: mode and group (NULL: as it is) of its file.  -1: *why. */
int td_listener_permit(struct td_listener *s, unsigned mode, const char *group, char *why, size_t cap) TNL_MUST_USE;
void td_listener_pause(struct td_listener *s, bool paused); /* stop accepting, keep the backlog */
void td_listener_free(struct td_listener *s);		    /* closes; unlinks a unix socket that it made */

#endif
