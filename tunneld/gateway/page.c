/* Answers in pages: how many there may be, behind which key a page begins, the parts that several calls have. */
#include "tunneld/gateway/page_internal.h"
#include "lib/enc.h"
#include <stdio.h>
#include <string.h>

/* false: answered */
bool gw_page_count(struct gw_call *c, const char *what, const struct tnl_json *list, int lo, int hi)
{
	int n = tnl_json_len(list);
	if ((!list || tnl_json_is_null(list) || tnl_json_is_arr(list)) && n >= lo && n <= hi)
		return true;
	gw_call_fail(c, 400, "ValidationException",
		     "1 validation error detected: Value at '%s' failed to satisfy "
		     "constraint: Member must be a list with length between %d and %d",
		     what, lo, hi);
	return false;
}

/* --- paging: a token says behind which key to go on -------------------------- */
bool gw_page_read(struct gw_call *c, int64_t lo, int64_t hi, struct gw_page *p)
{
	bool ok;
	p->after[0] = 0;
	if (!gw_call_int(c, "MaxResults", lo, hi, hi, &p->max))
		return false;
	const char *t = gw_call_str(c, "NextToken", 512, false, &ok);
	if (!ok)
		return false;
	if (!t || !*t)
		return true;
	int n = tnl_unb64(t, strlen(t), (uint8_t *)p->after, sizeof(p->after) - 1);
	if (n <= 0 || memchr(p->after, 0, (size_t)n)) {
		gw_call_fail(c, 400, "InvalidNextToken", "The specified token is not valid.");
		return false;
	}
	p->after[n] = 0;
	return true;
}

void gw_page_next(struct tnl_jw *w, const char *key)
{
	char t[TNL_B64_LEN(256) + 1];
	tnl_b64((const uint8_t *)key, strlen(key), t);
	tnl_jw_kv(w, "NextToken", t);
}

void gw_page_date(struct tnl_jw *w, const char *key, uint64_t ms)
{
	char t[32];
	snprintf(t, sizeof(t), "%llu.%03u", (unsigned long long)(ms / 1000), (unsigned)(ms % 1000));
	tnl_jw_key(w, key);
	tnl_jw_raw(w, t);
}

void gw_page_optional(struct tnl_jw *w, const char *key, const char *v)
{
	if (v && *v)
		tnl_jw_kv(w, key, v);
}
