#include "lib/metrics.h"
#include "lib/num.h"
#include <stdio.h>
#include <string.h>

static const double bounds[TNL_HISTOGRAM_BUCKETS] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
						     0.25,  0.5,    1,	   2.5,	 10,	30};

void tnl_metrics_init(struct tnl_metrics *m, struct tnl_buf *b, bool open_metrics)
{
	*m = (struct tnl_metrics){.b = b, .open_metrics = open_metrics, .family = ""};
}

void tnl_metrics_family(struct tnl_metrics *m, const char *name, enum tnl_metric_type type, const char *help)
{
	static const char *const words[] = {"gauge", "counter", "histogram"};
	size_t n = strlen(name);
	if (m->open_metrics && type == TNL_METRIC_COUNTER)
		n -= strlen("_total"); /* of the family the name, of its samples the suffix */
	m->family = name;
	tnl_buf_printf(m->b, "# HELP %.*s %s\n# TYPE %.*s %s\n", (int)n, name, help, (int)n, name, words[type]);
}

static void put_label(struct tnl_buf *b, char before, const char *name, const char *value)
{
	tnl_buf_printf(b, "%c%s=\"", before, name);
	for (const char *p = value; *p; p++) {
		if (*p == '\n')
			tnl_buf_puts(b, "\\n");
		else if (*p == '"' || *p == '\\')
			tnl_buf_printf(b, "\\%c", *p);
		else
			tnl_buf_putc(b, *p);
	}
	tnl_buf_putc(b, '"');
}

static void put_sample(struct tnl_metrics *m, const char *suffix, const char *const labels[2][2], double value)
{
	char before = '{';
	tnl_buf_printf(m->b, "%s%s", m->family, suffix);
	for (int i = 0; i < 2; i++) {
		if (!labels[i][0])
			continue;
		put_label(m->b, before, labels[i][0], labels[i][1]);
		before = ',';
	}
	tnl_buf_printf(m->b, "%s %.15g\n", before == ',' ? "}" : "", value);
}

void tnl_metrics_put(struct tnl_metrics *m, const char *l1, const char *v1, const char *l2, const char *v2,
		     double value)
{
	put_sample(m, "", (const char *const[2][2]){{l1, v1}, {l2, v2}}, value);
}

void tnl_metrics_end(struct tnl_metrics *m)
{
	if (m->open_metrics)
		tnl_buf_puts(m->b, "# EOF\n");
}

void tnl_histogram_add(struct tnl_histogram *h, uint64_t ns)
{
	double s = (double)ns / 1e9;
	int i = 0;
	while (i < TNL_HISTOGRAM_BUCKETS && s > bounds[i])
		i++;
	h->in[i]++;
	h->sum += s;
}

void tnl_metrics_put_histogram(struct tnl_metrics *m, const char *label, const char *value,
			       const struct tnl_histogram *h)
{
	uint64_t count = 0;
	char le[32];
	for (int i = 0; i <= TNL_HISTOGRAM_BUCKETS; i++) {
		count += h->in[i];
		if (i < TNL_HISTOGRAM_BUCKETS)
			snprintf(le, sizeof(le), m->open_metrics && bounds[i] >= 1 && bounds[i] != 2.5 ? "%.1f" : "%g",
				 bounds[i]);
		else
			snprintf(le, sizeof(le), "+Inf");
		put_sample(m, "_bucket", (const char *const[2][2]){{label, value}, {"le", le}}, (double)count);
	}
	put_sample(m, "_sum", (const char *const[2][2]){{label, value}, {NULL, NULL}}, h->sum);
	put_sample(m, "_count", (const char *const[2][2]){{label, value}, {NULL, NULL}}, (double)count);
}
