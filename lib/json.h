/* JSON: the only user of cJSON.  Reading goes through a parsed tree whose
 * look-ups never fail hard; writing through an append-only writer. */
#ifndef TNL_JSON_H
#define TNL_JSON_H
#include "lib/buf.h"
#include <stdbool.h>
#include <stdint.h>

struct tnl_json; /* a node; opaque */
/* Depth at most 64, keys of an object at most 1,024, values at most 4,096 and one for each 4 bytes, whole input must be
 * one value, valid UTF-8, no NUL in strings, duplicate keys refused.  NULL on error. */
struct tnl_json *tnl_json_parse(const void *p, size_t n);
void tnl_json_free(struct tnl_json *root);					 /* root only */
const struct tnl_json *tnl_json_get(const struct tnl_json *o, const char *key);	 /* exact case; NULL when absent */
const struct tnl_json *tnl_json_iget(const struct tnl_json *o, const char *key); /* ASCII case ignored */
/* The members of an array or object in their order; of anything else none. */
const struct tnl_json *tnl_json_first(const struct tnl_json *a); /* NULL: there is none */
const struct tnl_json *tnl_json_next(const struct tnl_json *member);
#define tnl_json_each(v, a) for (const struct tnl_json *v = tnl_json_first(a); v; v = tnl_json_next(v))
/* These walk the list: not in, nor as the end of, a loop over it. */
const struct tnl_json *tnl_json_at(const struct tnl_json *a, int i);
int tnl_json_len(const struct tnl_json *a);				 /* arrays and objects; else 0 */
const char *tnl_json_key(const struct tnl_json *member);		 /* name of an object's member */
const char *tnl_json_str(const struct tnl_json *v);			 /* NULL when not a string (or v NULL) */
const char *tnl_json_get_str(const struct tnl_json *o, const char *key); /* NULL when absent */
/* A copy of a string for tnl_free.  take: one that is longer than max is refused (TNL_ELIMIT); cut: it loses its end.
 * TNL_ESYNTAX: not a string; TNL_ENOMEM.  *out is set on success only. */
int tnl_json_take_str(const struct tnl_json *v, size_t max, char **out) TNL_MUST_USE;
int tnl_json_cut_str(const struct tnl_json *v, size_t max, char **out) TNL_MUST_USE;
bool tnl_json_int(const struct tnl_json *v, int64_t *out); /* false: not an integral number */
bool tnl_json_bool(const struct tnl_json *v, bool dflt);
bool tnl_json_is_null(const struct tnl_json *v);
bool tnl_json_is_obj(const struct tnl_json *v);
bool tnl_json_is_arr(const struct tnl_json *v);
/* Serialises a node compactly. */
int tnl_json_print(const struct tnl_json *v, struct tnl_buf *out);

/* Writer: commas are put by itself.  Errors stick in buf->failed. */
struct tnl_jw {
	struct tnl_buf *b;
	uint64_t first;
	int depth;
	bool after_key;
};
void tnl_jw_init(struct tnl_jw *w, struct tnl_buf *b);
void tnl_jw_obj(struct tnl_jw *w);
void tnl_jw_end_obj(struct tnl_jw *w);
void tnl_jw_arr(struct tnl_jw *w);
void tnl_jw_end_arr(struct tnl_jw *w);
void tnl_jw_key(struct tnl_jw *w, const char *key);
void tnl_jw_str(struct tnl_jw *w, const char *s); /* NULL writes null */
void tnl_jw_strn(struct tnl_jw *w, const char *s, size_t n);
void tnl_jw_int(struct tnl_jw *w, int64_t v);
void tnl_jw_bool(struct tnl_jw *w, bool v);
void tnl_jw_null(struct tnl_jw *w);
void tnl_jw_raw(struct tnl_jw *w, const char *json); /* one ready value */
void tnl_jw_kv(struct tnl_jw *w, const char *key, const char *s);
void tnl_jw_kvi(struct tnl_jw *w, const char *key, int64_t v);

#endif
