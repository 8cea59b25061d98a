/* Text that Prometheus reads: format 0.0.4, and OpenMetrics 1.0 when that was asked for.
 *
 *   tnl_metrics_family(m, "tunneld_tunnel_up", TNL_METRIC_GAUGE, "…");     all samples of a family stand together
 *   tnl_metrics_put(m, "tunnel", "db", NULL, NULL, 1);
 *
 * Errors stick in buf->failed. */
#ifndef TNL_METRICS_H
#define TNL_METRICS_H
#include "lib/buf.h"
#include <stdbool.h>
#include <stdint.h>

enum tnl_metric_type { TNL_METRIC_GAUGE, TNL_METRIC_COUNTER, TNL_METRIC_HISTOGRAM };

struct tnl_metrics {
	struct tnl_buf *b;
	bool open_metrics;
	const char *family; /* borrowed until the next one */
};
void tnl_metrics_init(struct tnl_metrics *m, struct tnl_buf *b, bool open_metrics);
/* A counter's name ends in _total. */
void tnl_metrics_family(struct tnl_metrics *m, const char *name, enum tnl_metric_type type, const char *help);
/* One sample with up to two labels; a NULL name: none.  Values may be anything: they are escaped. */
void tnl_metrics_put(struct tnl_metrics *m, const char *l1, const char *v1, const char *l2, const char *v2,
		     double value);
void tnl_metrics_end(struct tnl_metrics *m);

/* Durations, in the buckets that suit what takes from a millisecond to a minute. */
#define TNL_HISTOGRAM_BUCKETS 13
struct tnl_histogram {
	uint64_t in[TNL_HISTOGRAM_BUCKETS + 1]; /* the last: longer than all */
	double sum;				/* seconds */
};
void tnl_histogram_add(struct tnl_histogram *h, uint64_t ns);
void tnl_metrics_put_histogram(struct tnl_metrics *m, const char *label, const char *value,
			       const struct tnl_histogram *h);

#endif
