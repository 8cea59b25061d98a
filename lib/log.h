/* Log sink of the library: one callback, set once by the program.  The text is
 * already key=value formatted, with marks; never a secret, token or payload. */
#ifndef TNL_LOG_H
#define TNL_LOG_H
#include <stdarg.h>
#include <stddef.h>

enum tnl_log_level { TNL_LOG_ERROR, TNL_LOG_WARN, TNL_LOG_INFO, TNL_LOG_DEBUG };

typedef void tnl_log_fn(void *ctx, enum tnl_log_level level, const char *module, const char *text);
void tnl_log_set(tnl_log_fn *fn, void *ctx, enum tnl_log_level max);
int tnl_log_on(enum tnl_log_level level);
/* As vsnprintf, but that no value of %s can look like another key=value (log_format.c): what stands between quotation
 * marks in fmt is escaped, what stands behind a bare = is quoted when it is not plain. */
int tnl_log_format(char *out, size_t cap, const char *fmt, va_list ap) __attribute__((format(printf, 3, 0)));
/* The same with a mark before each pair that fmt itself has, and none that an argument brought, so that a reader knows
 * the ones from the others: TNL_LOG_NUMBER where the value is one number, else TNL_LOG_FIELD.  %-s stands for a pair
 * that was written by the program ("tunnel=NAME"). */
#define TNL_LOG_FIELD '\x1e'
#define TNL_LOG_NUMBER '\x1f'
int tnl_log_format_marked(char *out, size_t cap, const char *fmt, va_list ap) __attribute__((format(printf, 3, 0)));
void tnl_log_unmark(char *text); /* takes the marks out */
void tnl_log(enum tnl_log_level level, const char *module, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
