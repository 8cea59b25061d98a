#include "tunneld/net/throttle.h"

#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/num.h"
#include "lib/enc.h"

#define PLACES 4096u

struct td_throttle {
	uint8_t key[32];
	uint64_t each, slack;  /* slack: how far a place may be ahead of the clock */
	uint64_t paid[PLACES]; /* until when the failures of a place are paid for */
};

struct td_throttle *td_throttle_new(unsigned burst, uint64_t each_ns)
{
	struct td_throttle *t = tnl_calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->each = each_ns;
	t->slack = each_ns * (burst ? burst - 1 : 0);
	tnl_random(t->key, sizeof(t->key));
	return t;
}

void td_throttle_free(struct td_throttle *t)
{
	tnl_free(t);
}

static size_t place_of(const struct td_throttle *t, const struct td_addr *a)
{
	struct td_peer who = td_peer_of(a);
	uint8_t h[32];

	tnl_hmac_sha256(t->key, sizeof(t->key), who.key, who.len, h);
	return tnl_get_be32(h) % PLACES;
}

bool td_throttle_allows(const struct td_throttle *t, const struct td_addr *a, uint64_t now)
{
	return t->paid[place_of(t, a)] <= now + t->slack;
}

void td_throttle_failed(struct td_throttle *t, const struct td_addr *a, uint64_t now)
{
	uint64_t *paid = &t->paid[place_of(t, a)];

	*paid = TNL_MAX(*paid, now) + t->each;
}
