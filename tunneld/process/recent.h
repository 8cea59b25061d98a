/* What has been lately: rates and round trips of ten minutes by tunnel, and the last events of the log. */
#ifndef TD_PROCESS_RECENT_H
#define TD_PROCESS_RECENT_H
#include "lib/buf.h"
#include "tunneld/base/loop.h"
#include "tunneld/process/http.h"

enum { TD_RECENT_STEP_S = 10, TD_RECENT_STEPS = 60, TD_RECENT_EVENTS = 200, TD_RECENT_TUNNELS = 1000 };

struct td_recent;
/* Listens to the log.  One at a time in a process.  NULL: no memory. */
struct td_recent *td_recent_new(struct td_loop *l, const struct td_http_source *s);
void td_recent_sample(struct td_recent *r, bool on); /* by itself, while it is on; at first it is off */
void td_recent_history(const struct td_recent *r, struct tnl_buf *json);
void td_recent_events(struct td_recent *r, struct tnl_buf *json); /* the oldest first */
void td_recent_free(struct td_recent *r);

#endif
