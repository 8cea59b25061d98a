/* Which store a specification names; the rest is its own. */
#include "tunneld/gateway/store.h"
#include "lib/alloc.h"
#include "lib/num.h"
#include <stdio.h>
#include <string.h>

struct td_store {
	const struct td_store_ops *ops;
	void *impl;
};

static const struct td_store_ops *const stores[] = {&td_store_sqlite, &td_store_redis, &td_store_rediss};

struct td_store *td_store_open(struct td_loop *l, const struct td_store_opts *o, char *why, size_t cap)
{
	for (size_t i = 0; i < TNL_COUNT(stores); i++) {
		size_t n = strlen(stores[i]->scheme);
		if (strncmp(o->spec, stores[i]->scheme, n) != 0)
			continue;
		struct td_store *s = tnl_calloc(1, sizeof(*s));
		if (!s)
			break;
		s->ops = stores[i];
		s->impl = s->ops->open(l, o, why, cap);
		if (!s->impl) {
			tnl_free(s);
			return NULL;
		}
		return s;
	}
	snprintf(why, cap, "store \"%s\": not a known store; use sqlite:PATH or redis://HOST:PORT", o->spec);
	return NULL;
}

void *td_store_impl(const struct td_store *s)
{
	return s && s->ops != &td_store_sqlite ? s->impl : NULL;
}

int td_store_load(struct td_store *s, void (*each)(void *, const struct td_store_session *), void *ctx)
{
	return s->ops->load(s->impl, each, ctx);
}

void td_store_put(struct td_store *s, const struct td_store_session *r, td_store_done *fn, void *ctx)
{
	s->ops->put(s->impl, r, fn, ctx);
}

void td_store_del(struct td_store *s, const char *id)
{
	s->ops->del(s->impl, id);
}

void td_store_stats(struct td_store *s, struct td_store_stats *out)
{
	s->ops->stats(s->impl, out);
}

void td_store_close(struct td_store *s)
{
	if (!s)
		return;
	s->ops->close(s->impl);
	tnl_free(s);
}
