/* Open addressing with linear probing and tombstones; the table keeps at most
 * 3/4 of its slots in use.  The hash is SipHash-1-3 under a process-wide key. */
#include "lib/map.h"
#include "lib/alloc.h"
#include "lib/steps.h"
#include <stdbool.h>
#include <string.h>

struct slot {
	uint64_t hash;
	void *key; /* NULL: never used; &gone: deleted */
	size_t klen;
	void *value;
};

struct tnl_map {
	struct slot *slots;
	size_t cap, used, dead; /* cap is a power of two, or 0 */
};

static uint64_t seed_a = 0x736f6d6570736575u, seed_b = 0x646f72616e646f6du;
static char gone;

void tnl_map_seed(const uint64_t key[2])
{
	seed_a = key[0];
	seed_b = key[1];
}

static inline uint64_t rotl(uint64_t x, int b)
{
	return x << b | x >> (64 - b);
}

static inline void sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[1] = rotl(v[1], 13) ^ v[0];
	v[0] = rotl(v[0], 32);
	v[2] += v[3];
	v[3] = rotl(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = rotl(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = rotl(v[1], 17) ^ v[2];
	v[2] = rotl(v[2], 32);
}

static uint64_t hash_key(const void *key, size_t n)
{
	const uint8_t *p = key;
	uint64_t v[4] = {seed_a, seed_b, seed_a ^ 0x6c7967656e657261u, seed_b ^ 0x7465646279746573u};
	uint64_t last = (uint64_t)n << 56, m;

	for (; n >= 8; n -= 8, p += 8) {
		memcpy(&m, p, 8);
		v[3] ^= m;
		sip_round(v);
		v[0] ^= m;
	}
	for (size_t i = 0; i < n; i++)
		last |= (uint64_t)p[i] << (8 * i);
	v[3] ^= last;
	sip_round(v);
	v[0] ^= last;
	v[2] ^= 0xff;
	for (int i = 0; i < 3; i++)
		sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

struct tnl_map *tnl_map_new(void)
{
	return tnl_calloc(1, sizeof(struct tnl_map));
}

void tnl_map_free(struct tnl_map *m)
{
	if (!m)
		return;
	for (size_t i = 0; i < m->cap; i++)
		if (m->slots[i].key != &gone)
			tnl_free(m->slots[i].key);
	tnl_free(m->slots);
	tnl_free(m);
}

size_t tnl_map_count(const struct tnl_map *m)
{
	return m->used;
}

static struct slot *find_slot(const struct tnl_map *m, uint64_t h, const void *key, size_t klen)
{
	if (!m->cap)
		return NULL;
	for (size_t i = h & (m->cap - 1);; i = (i + 1) & (m->cap - 1)) {
		struct slot *s = &m->slots[i];
		tnl_step();
		if (!s->key)
			return NULL;
		if (s->key != &gone && s->hash == h && s->klen == klen && memcmp(s->key, key, klen) == 0)
			return s;
	}
}

static struct slot *free_slot(struct slot *slots, size_t cap, uint64_t h)
{
	size_t i = h & (cap - 1);
	while (slots[i].key && slots[i].key != &gone) {
		tnl_step();
		i = (i + 1) & (cap - 1);
	}
	return &slots[i];
}

static int grow_table(struct tnl_map *m)
{
	size_t cap = 16;
	while (cap < m->used * 2 + 2)
		cap *= 2;
	struct slot *slots = tnl_calloc(cap, sizeof(*slots));
	if (!slots)
		return TNL_ENOMEM;
	for (size_t i = 0; i < m->cap; i++)
		if (m->slots[i].key && m->slots[i].key != &gone)
			*free_slot(slots, cap, m->slots[i].hash) = m->slots[i];
	tnl_free(m->slots);
	m->slots = slots;
	m->cap = cap;
	m->dead = 0;
	return 0;
}

int tnl_map_set(struct tnl_map *m, const void *key, size_t klen, void *value)
{
	uint64_t h = hash_key(key, klen);
	struct slot *s = find_slot(m, h, key, klen);
	if (s) {
		s->value = value;
		return 0;
	}
	if ((m->used + m->dead + 1) * 4 > m->cap * 3) {
		int rc = grow_table(m);
		if (rc)
			return rc;
	}
	void *copy = tnl_malloc(klen);
	if (!copy)
		return TNL_ENOMEM;
	memcpy(copy, key, klen);
	s = free_slot(m->slots, m->cap, h);
	if (s->key == &gone)
		m->dead--;
	*s = (struct slot){.hash = h, .key = copy, .klen = klen, .value = value};
	m->used++;
	return 0;
}

void *tnl_map_get(const struct tnl_map *m, const void *key, size_t klen)
{
	struct slot *s = find_slot(m, hash_key(key, klen), key, klen);
	return s ? s->value : NULL;
}

void *tnl_map_del(struct tnl_map *m, const void *key, size_t klen)
{
	struct slot *s = find_slot(m, hash_key(key, klen), key, klen);
	if (!s)
		return NULL;
	tnl_free(s->key);
	s->key = &gone;
	m->used--;
	m->dead++;
	return s->value;
}

int tnl_map_set_str(struct tnl_map *m, const char *key, void *value)
{
	return tnl_map_set(m, key, strlen(key), value);
}

void *tnl_map_get_str(const struct tnl_map *m, const char *key)
{
	return tnl_map_get(m, key, strlen(key));
}

void *tnl_map_del_str(struct tnl_map *m, const char *key)
{
	return tnl_map_del(m, key, strlen(key));
}

int tnl_map_set_u64(struct tnl_map *m, uint64_t key, void *value)
{
	return tnl_map_set(m, &key, sizeof(key), value);
}

void *tnl_map_get_u64(const struct tnl_map *m, uint64_t key)
{
	return tnl_map_get(m, &key, sizeof(key));
}

void *tnl_map_del_u64(struct tnl_map *m, uint64_t key)
{
	return tnl_map_del(m, &key, sizeof(key));
}

void *tnl_map_next(const struct tnl_map *m, size_t *it, const void **key, size_t *klen)
{
	for (; *it < m->cap; ++*it) {
		const struct slot *s = &m->slots[*it];
		if (!s->key || s->key == &gone)
			continue;
		if (key)
			*key = s->key;
		if (klen)
			*klen = s->klen;
		++*it;
		return s->value;
	}
	return NULL;
}
