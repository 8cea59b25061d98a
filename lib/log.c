#include "lib/log.h"
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

static tnl_log_fn *sink;
static void *sink_ctx;
static enum tnl_log_level sink_max = TNL_LOG_WARN;

void tnl_log_set(tnl_log_fn *fn, void *ctx, enum tnl_log_level max)
{
	sink = fn;
	sink_ctx = ctx;
	__atomic_store_n(&sink_max, max, __ATOMIC_RELAXED); /* changes while other threads log */
}

int tnl_log_on(enum tnl_log_level level)
{
	return sink && level <= __atomic_load_n(&sink_max, __ATOMIC_RELAXED);
}

void tnl_log(enum tnl_log_level level, const char *module, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	if (!tnl_log_on(level))
		return;
	va_start(ap, fmt);
	tnl_log_format_marked(text, sizeof(text), fmt, ap);
	va_end(ap);
	sink(sink_ctx, level, module, text);
}
