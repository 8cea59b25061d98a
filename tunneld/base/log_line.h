/* What a log line looks like: as text, as a JSON object with a member for each pair, and as a datagram of the journal's
 * own protocol.  Pairs are known by the marks that tnl_log_format_marked has put before them, so that nothing a peer
 * writes can be one. */
#ifndef TD_BASE_LOG_LINE_H
#define TD_BASE_LOG_LINE_H
#include "lib/log.h"
#include <stdbool.h>
#include <stdint.h>

enum { TD_LOG_LINE_CAP = 8192, TD_LOG_JOURNAL_CAP = 24576 };

struct td_log_entry {
	enum tnl_log_level level;
	const char *module, *session, *text; /* session: NULL or "": none; text: with marks */
	uint64_t wall_ms;
};
/* Each gives the number of bytes; what is too long loses its end. */
size_t td_log_line_text(const struct td_log_entry *e, char out[TD_LOG_LINE_CAP]);
size_t td_log_line_json(const struct td_log_entry *e, char out[TD_LOG_LINE_CAP]);
size_t td_log_line_journal(const struct td_log_entry *e, char out[TD_LOG_JOURNAL_CAP]);

#endif
