/* What Prometheus reads: families, labels that need escaping, histograms, and both formats. */
#include "tests/unit/check.h"
#include "lib/alloc.h"
#include "lib/metrics.h"

static char text[8192];

static void written(bool open_metrics, void (*fn)(struct tnl_metrics *m))
{
	struct tnl_buf b;
	struct tnl_metrics m;
	tnl_buf_init(&b, sizeof(text) - 1);
	tnl_metrics_init(&m, &b, open_metrics);
	fn(&m);
	tnl_metrics_end(&m);
	assert_false(b.failed);
	snprintf(text, sizeof(text), "%s", tnl_buf_str(&b) ? tnl_buf_str(&b) : "");
	tnl_buf_fini(&b);
}

static void some(struct tnl_metrics *m)
{
	tnl_metrics_family(m, "a_up", TNL_METRIC_GAUGE, "Is it up?");
	tnl_metrics_put(m, NULL, NULL, NULL, NULL, 1);
	tnl_metrics_family(m, "a_bytes_total", TNL_METRIC_COUNTER, "Bytes.");
	tnl_metrics_put(m, "tunnel", "d\"b\\\n", "way", "in", 12345678901234.0);
	tnl_metrics_put(m, "tunnel", "x", NULL, NULL, 0.25);
}

static void formats(void **state)
{
	(void)state;
	written(false, some);
	assert_string_equal(text, "# HELP a_up Is it up?\n# TYPE a_up gauge\na_up 1\n"
				  "# HELP a_bytes_total Bytes.\n# TYPE a_bytes_total counter\n"
				  "a_bytes_total{tunnel=\"d\\\"b\\\\\\n\",way=\"in\"} 12345678901234\n"
				  "a_bytes_total{tunnel=\"x\"} 0.25\n");
	written(true, some);
	assert_non_null(strstr(text, "# TYPE a_bytes counter\na_bytes_total{"));
	assert_string_equal(text + strlen(text) - 6, "# EOF\n");
	assert_int_equal(tnl_alloc_live(), 0);
}

static struct tnl_histogram H;

static void histogram(struct tnl_metrics *m)
{
	tnl_metrics_family(m, "t_seconds", TNL_METRIC_HISTOGRAM, "How long.");
	tnl_metrics_put_histogram(m, "tunnel", "x", &H);
}

static void histograms(void **state)
{
	(void)state;
	written(false, histogram);
	assert_non_null(strstr(text, "t_seconds_bucket{tunnel=\"x\",le=\"0.001\"} 0\n"));
	assert_non_null(strstr(text, "t_seconds_bucket{tunnel=\"x\",le=\"+Inf\"} 0\nt_seconds_sum{tunnel=\"x\"} 0\n"
				     "t_seconds_count{tunnel=\"x\"} 0\n"));
	tnl_histogram_add(&H, 1000000); /* on a bound: in its bucket */
	tnl_histogram_add(&H, 20000000);
	tnl_histogram_add(&H, UINT64_C(3600) * 1000000000);
	written(false, histogram);
	assert_non_null(strstr(text, "le=\"0.001\"} 1\n"));
	assert_non_null(strstr(text, "le=\"0.01\"} 1\n"));
	assert_non_null(strstr(text, "le=\"0.025\"} 2\n"));
	assert_non_null(strstr(text, "le=\"30\"} 2\n"));
	assert_non_null(
	    strstr(text, "le=\"+Inf\"} 3\nt_seconds_sum{tunnel=\"x\"} 3600.021\nt_seconds_count{tunnel=\"x\"} 3\n"));
	written(true, histogram);
	assert_non_null(strstr(text, "le=\"1.0\"} 2\n"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(formats),
	    cmocka_unit_test(histograms),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
