/* tunneld forward when a running daemon serves it: the sockets are opened here and handed over. */
#ifndef TD_COMMAND_FORWARD_SERVED_H
#define TD_COMMAND_FORWARD_SERVED_H
#include "tunneld/command/foreground.h"

struct td_forward_served;
/* Each tunnel of `made`, all or none.  ended(ctx, code) once, from the loop.  NULL: no daemon does it. */
struct td_forward_served *td_forward_served_start(struct td_foreground *fg, const struct td_config *made,
						  void (*ended)(void *ctx, int code), void *ctx);
void td_forward_served_finish(struct td_forward_served *s, uint64_t timeout_ns); /* connections may finish */
void td_forward_served_free(struct td_forward_served *s);			 /* NULL is fine */

#endif
