/* Copies of tunnels. */
#include "tunneld/config/internal.h"
#include <string.h>

/* `to` has not been set.  Where a tunnel listens is not copied: that is said anew. */
static void copy_value(const struct td_opt *o, void *to, const void *from)
{
	if (o->type->inherit)
		o->type->inherit(o, to, from);
	else if (o->type->size)
		memcpy((char *)to + o->off, (const char *)from + o->off, o->type->size);
	if (o->set_off)
		*((bool *)to + o->set_off) = *((const bool *)from + o->set_off);
}

void td_cfg_copy_tunnel(struct td_place to, const struct td_tunnel_config *from, enum td_section kind)
{
	struct td_place theirs = {(void *)(uintptr_t)from, (struct td_aws_config *)(uintptr_t)&from->aws};
	for (const struct td_opt *o = NULL; (o = td_opt_next(kind, o)) != NULL;) {
		void *base = td_opt_base(o, to);
		td_value_clear(o, base);
		copy_value(o, base, td_opt_base(o, theirs));
	}
}

void td_cfg_set_addresses(struct td_tunnel_config *t, const struct td_addr *v, int n)
{
	char text[TD_ADDR_STR];
	t->addrs = td_cfg_alloc((size_t)(n + 1) * sizeof(*v));
	t->listen.v = td_cfg_alloc((size_t)(n + 1) * sizeof(char *));
	for (int i = 0; i < n; i++) {
		t->addrs[i] = v[i];
		td_addr_str(&v[i], text);
		t->listen.v[i] = td_cfg_dup(text, strlen(text));
	}
	t->listen.n = t->naddrs = n;
}
