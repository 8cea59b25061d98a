/* The control socket: DIR/control.sock, 0600. One line in ("status", "open NAME"), one JSON
 * object out, end. */
#ifndef TD_PROCESS_CONTROL_H
#define TD_PROCESS_CONTROL_H
#include "lib/buf.h"
#include "tunneld/base/loop.h"
#include "tunneld/net/addr.h"

struct td_control;
/* Writes one JSON object for the request, whatever that may be. */
typedef void td_control_fn(void *ctx, const char *request, struct tnl_buf *json);
struct td_control *td_control_new(struct td_loop *l, const char *dir, td_control_fn *fn, void *ctx, char *why,
				  size_t cap);
void td_control_free(struct td_control *c);

/* The other end, blocking, bounded by timeout_ms: the reply as a heap string (tnl_free), or NULL and errno. */
char *td_control_ask(const char *dir, const char *request, int timeout_ms);

#endif
