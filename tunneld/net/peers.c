#include "tunneld/net/peers.h"

#include "lib/alloc.h"
#include "lib/map.h"
#include "tunneld/base/log.h"

#include <string.h>

struct td_peers {
	struct tnl_map *count; /* key → how many, as a pointer */
};

struct td_peers *td_peers_new(void)
{
	struct td_peers *p = tnl_calloc(1, sizeof(*p));
	if (p && (p->count = tnl_map_new()) != NULL)
		return p;
	tnl_free(p);
	return NULL;
}

void td_peers_free(struct td_peers *p)
{
	if (p)
		tnl_map_free(p->count);
	tnl_free(p);
}

struct td_peer td_peer_of(const struct td_addr *of)
{
	struct td_peer p = {.len = 0};
	struct td_addr copy = *of, *a = &copy;
	td_addr_unmap(a);
	if (a->len && a->sa.sa_family == AF_INET) {
		p.len = sizeof(a->in.sin_addr);
		memcpy(p.key, &a->in.sin_addr, p.len);
	} else if (a->len && a->sa.sa_family == AF_INET6) {
		p.len = IN6_IS_ADDR_LOOPBACK(&a->in6.sin6_addr) ? 16 : 8;
		memcpy(p.key, &a->in6.sin6_addr, p.len);
	}
	return p;
}

static uintptr_t count_of(const struct td_peers *p, const struct td_peer *who)
{
	return (uintptr_t)tnl_map_get(p->count, who->key, who->len);
}

bool td_peers_enter(struct td_peers *p, const struct td_addr *a, unsigned max, struct td_peer *out)
{
	struct td_peer who = td_peer_of(a);
	*out = (struct td_peer){.len = 0};
	if (!who.len)
		return true;
	uintptr_t n = count_of(p, &who);
	if (n >= max || tnl_map_set(p->count, who.key, who.len, (void *)(n + 1)) != 0)
		return false;
	*out = who;
	return true;
}

void td_peers_leave(struct td_peers *p, struct td_peer *what)
{
	if (!what->len)
		return;
	uintptr_t n = count_of(p, what);
	if (n <= 1)
		tnl_map_del(p->count, what->key, what->len);
	else if (tnl_map_set(p->count, what->key, what->len, (void *)(n - 1)) != 0)
		td_error("net", NULL, "out of memory, a peer keeps one connection too many in its count");
	*what = (struct td_peer){.len = 0};
}
