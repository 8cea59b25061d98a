/* Hash map from byte-string or u64 keys to pointers.  Keys are copied.
 * The hash is SipHash under a key that the program draws at its start (tnl_map_seed):
 * whoever does not know it cannot aim for collisions.  Tests have a fixed one. */
#ifndef TNL_MAP_H
#define TNL_MAP_H
#include "lib/err.h"
#include <stddef.h>
#include <stdint.h>

struct tnl_map;
/* Before the first map is made: entries of older ones are not found again. */
void tnl_map_seed(const uint64_t key[2]);
struct tnl_map *tnl_map_new(void);    /* NULL: no memory */
void tnl_map_free(struct tnl_map *m); /* values are the caller's */
size_t tnl_map_count(const struct tnl_map *m);
int tnl_map_set(struct tnl_map *m, const void *key, size_t klen, void *value) TNL_MUST_USE; /* replaces */
void *tnl_map_get(const struct tnl_map *m, const void *key, size_t klen);		    /* NULL: none */
void *tnl_map_del(struct tnl_map *m, const void *key, size_t klen);			    /* returns the value */
int tnl_map_set_str(struct tnl_map *m, const char *key, void *value) TNL_MUST_USE;
void *tnl_map_get_str(const struct tnl_map *m, const char *key);
void *tnl_map_del_str(struct tnl_map *m, const char *key);
int tnl_map_set_u64(struct tnl_map *m, uint64_t key, void *value) TNL_MUST_USE;
void *tnl_map_get_u64(const struct tnl_map *m, uint64_t key);
void *tnl_map_del_u64(struct tnl_map *m, uint64_t key);
/* Iteration: *it starts at 0; returns the next value or NULL.  Deleting the
 * entry just returned is allowed, any other change is not. */
void *tnl_map_next(const struct tnl_map *m, size_t *it, const void **key, size_t *klen);

#endif
