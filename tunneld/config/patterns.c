#include "lib/alloc.h"
#include "tunneld/config/internal.h"

#include <string.h>

enum { DEPTH_MAX = 4, PATTERNS_MAX = 1000 };

void td_cfg_include(struct td_cfg_parse *p, int line, const char *value)
{
	for (const char *s = value;;) {
		s += strspn(s, " \t");
		size_t n = strcspn(s, ","), len = n;
		while (len && (s[len - 1] == ' ' || s[len - 1] == '\t'))
			len--;
		char *entry = td_cfg_dup(s, len);
		if (len && p->depth >= DEPTH_MAX)
			td_cfg_error(p, line, "include: files are nested deeper than %d", DEPTH_MAX);
		else if (len && p->npatterns == PATTERNS_MAX)
			td_cfg_error(p, line, "include: more than %d patterns", PATTERNS_MAX);
		else if (len) {
			p->patterns = td_cfg_grow(p->patterns, (size_t)(p->npatterns + 1) * sizeof(*p->patterns));
			p->patterns[p->npatterns++] =
			    (struct td_cfg_pattern){td_text_path(p->dir, entry), line, p->depth + 1};
		} else {
			td_cfg_error(p, line, "include: an entry of the list is empty");
		}
		tnl_free(entry);
		if (!s[n])
			return;
		s += n + 1;
	}
}
