/* The control socket: DIR/control.sock, 0600. One line in ("status", "open NAME"), one JSON
 * object out, end. */
#ifndef TD_PROCESS_CONTROL_H
#define TD_PROCESS_CONTROL_H
#include "lib/buf.h"
#include "tunneld/base/loop.h"
#include "tunneld/net/addr.h"

/* The answer to what is asked of tunnels, by a process that is no forwarder. */
#define TD_CONTROL_NO_TUNNELS "no tunnels here"

struct td_control;
/* Writes one JSON object for the request, whatever that may be. */
typedef void td_control_fn(void *ctx, const char *request, struct tnl_buf *json);
struct td_control *td_control_new(struct td_loop *l, const char *dir, td_control_fn *fn, void *ctx, char *why,
				  size_t cap);
void td_control_free(struct td_control *c);

/* A request that is more than a question is asked here first: true takes the connection and the descriptors that came
 * with it (two at most); false leaves them, and what was written to json is the answer, when it was. */
typedef bool td_control_take_fn(void *ctx, const char *request, int fd, const int *fds, int nfds, struct tnl_buf *json);
void td_control_on_take(struct td_control *c, td_control_take_fn *fn);

/* Sends the request with descriptors (which stay the caller's), blocking.  Gives the connection, or -1 and errno. */
int td_control_send(const char *dir, const char *request, const int *fds, int nfds);
/* The other end, blocking, bounded by timeout_ms: the reply as a heap string (tnl_free), or NULL and errno. */
char *td_control_ask(const char *dir, const char *request, int timeout_ms);

#endif
