/* Do two configurations hold the same values?  By the option table, but for names of files and lines. */
#ifndef CONFIG_SAME_H
#define CONFIG_SAME_H
#include "tunneld/config/internal.h"
#include <string.h>

static bool config_same(struct td_config *a, struct td_config *b)
{
	if (a->has_forwarder != b->has_forwarder || a->has_agent != b->has_agent || a->has_gateway != b->has_gateway)
		return false;
	for (enum td_section kind = 0; kind < TD_SECTION_COUNT; kind++) {
		int n = td_section_count(a, kind);
		if (n != td_section_count(b, kind))
			return false;
		for (int i = 0; i < n; i++) {
			char **x = td_section_name(a, kind, i), **y = td_section_name(b, kind, i);
			if ((x && strcmp(*x, *y) != 0) ||
			    !td_section_same(kind, td_section_place(a, kind, i), td_section_place(b, kind, i)))
				return false;
		}
	}
	return true;
}

#endif
