/* Inside of the gateway: the parts that answers in pages have in common. */
#ifndef TD_GATEWAY_PAGE_INTERNAL_H
#define TD_GATEWAY_PAGE_INTERNAL_H
#include "tunneld/gateway/internal.h"

struct gw_page {
	int64_t max;
	char after[256]; /* "": from the beginning */
};
/* These: false: answered */
bool gw_page_count(struct gw_call *c, const char *what, const struct tnl_json *list, int lo, int hi);
bool gw_page_read(struct gw_call *c, int64_t lo, int64_t hi, struct gw_page *p);
void gw_page_next(struct tnl_jw *w, const char *key);
void gw_page_date(struct tnl_jw *w, const char *key, uint64_t ms);
void gw_page_optional(struct tnl_jw *w, const char *key, const char *v);

#endif
