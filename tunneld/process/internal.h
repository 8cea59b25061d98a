/* Inside of a process: daemon.c (from start to end) and serve.c (what is asked of it meanwhile). */
#ifndef TD_PROCESS_INTERNAL_H
#define TD_PROCESS_INTERNAL_H
#include "tunneld/process/daemon.h"
#include "tunneld/process/http.h"

/* daemon.c */
/* told: gets the mistakes of the file; NULL: nobody asked.  NULL: all of it is in force; else why not, in one line. */
const char *td_daemon_reload(struct td_daemon *d, struct tnl_buf *told);
void td_daemon_begin_drain(struct td_daemon *d);
const struct td_config *td_daemon_config_of(const struct td_daemon *d, const struct td_daemon_role *r);

/* serve.c */
int td_daemon_record(struct td_daemon *d); /* events from here on; -1 after an error in the log */
int td_daemon_serve(struct td_daemon *d);  /* control socket and HTTP, once the roles are there; the same */
void td_daemon_serve_reload(struct td_daemon *d, const struct td_config *old); /* d->cfg is in force */

#endif
