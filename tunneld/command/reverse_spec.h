/* What forward -R says, as a section of a configuration. */
#ifndef TD_COMMAND_REVERSE_SPEC_H
#define TD_COMMAND_REVERSE_SPEC_H
#include "lib/buf.h"
#include <stdbool.h>

/* [BIND:]PORT or a path, then :HOST:HOSTPORT or :PATH, as ssh spells it.  false: it is not that. */
bool td_reverse_section(const char *spec, int number, const char *target, const char *select, struct tnl_buf *out);

#endif
