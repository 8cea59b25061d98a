/* Log lines on stderr: text or JSON; level, module, session, key=value.  With text the journal gets them by its own
 * protocol, a field for each pair, when stderr leads to it.  Texts of peers may be given as they are: what
 * must not reach a terminal (control characters, bytes that are no UTF-8, marks that turn the direction of writing) is
 * escaped in the finished line.  Never a secret. */
#ifndef TD_BASE_LOG_H
#define TD_BASE_LOG_H
#include "lib/log.h"
#include "tunneld/base/loop.h"

enum td_log_format { TD_LOG_TEXT, TD_LOG_JSON };
void td_log_setup(enum tnl_log_level max, enum td_log_format f); /* also installs the library's sink */
/* The socket of a journal (what td_log_setup finds, once, when JOURNAL_STREAM names stderr); NULL: none. */
void td_log_journal(const char *path);
/* Lines that say that a single connection began or ended well: at this level, INFO or (no) DEBUG. */
void td_log_connections(bool yes);
enum tnl_log_level td_log_of_connection(void);
/* From now on lines that repeat are folded (tunneld/base/log_fold.h), and what was folded is said by a timer of this
 * loop; NULL, before the loop goes: now, and no more. */
void td_log_fold(struct td_loop *l);
/* Hears every line that is logged as well, raw: escape it.  NULL: nobody does.  It must not log. */
typedef void td_log_tap_fn(void *ctx, enum tnl_log_level level, const char *module, const char *session,
			   const char *text);
void td_log_tap(td_log_tap_fn *fn, void *ctx);
/* session may be NULL. fmt gives a sentence, then key=value pairs. */
void td_log(enum tnl_log_level level, const char *module, const char *session, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
#define td_error(mod, ses, ...) td_log(TNL_LOG_ERROR, mod, ses, __VA_ARGS__)
#define td_warn(mod, ses, ...) td_log(TNL_LOG_WARN, mod, ses, __VA_ARGS__)
#define td_info(mod, ses, ...) td_log(TNL_LOG_INFO, mod, ses, __VA_ARGS__)
#define td_debug(mod, ses, ...)                                                                                        \
	do {                                                                                                           \
		if (tnl_log_on(TNL_LOG_DEBUG))                                                                         \
			td_log(TNL_LOG_DEBUG, mod, ses, __VA_ARGS__);                                                  \
	} while (0)

#endif
