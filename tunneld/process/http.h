/* What a process shows over HTTP, read only: / (the status page with its
 * status.json, history.json and events.json), /metrics, /healthz and /readyz[/TUNNEL], on the addresses of
 * [tunneld] http.  Who can reach them may read them; no answer holds a secret. */
#ifndef TD_PROCESS_HTTP_H
#define TD_PROCESS_HTTP_H
#include "lib/metrics.h"
#include "tunneld/base/loop.h"
#include "tunneld/config/config.h"

struct td_http;
typedef void td_sample_fn(void *ctx, const char *tunnel, uint64_t up, uint64_t down, uint64_t rtt_us);
/* Called from the loop; all of it writes into the buffer that it is given. */
struct td_http_source {
	void (*metrics)(void *ctx, struct tnl_metrics *m);
	int (*ready)(void *ctx, const char *tunnel,
		     struct tnl_buf *why); /* as struct td_role's, a line for each reason */
	void (*status)(void *ctx, struct tnl_buf *json);
	void (*sample)(void *ctx, td_sample_fn *fn, void *fn_ctx);
	void *ctx;
};
/* cfg has addresses; recent is borrowed.  NULL: *why. */
struct td_recent;
struct td_http *td_http_new(struct td_loop *l, const struct td_config *cfg, const struct td_http_source *s,
			    struct td_recent *recent, char *why, size_t cap);
void td_http_set_hosts(struct td_http *h, const struct td_strlist *hosts); /* borrowed until the next call */
int td_http_addr(const struct td_http *h, int i, struct td_addr *out);	   /* -1: there is none */
void td_http_free(struct td_http *h);

#endif
