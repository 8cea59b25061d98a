/* One tunnel out of a configuration, in one of its own. */
#include "lib/alloc.h"
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

static void copy_tunnel(struct td_place to, const struct td_tunnel_config *from, enum td_section kind)
{
	struct td_place theirs = {(void *)(uintptr_t)from, (struct td_aws_config *)(uintptr_t)&from->aws};
	for (const struct td_opt *o = NULL; (o = td_opt_next(kind, o)) != NULL;) {
		void *base = td_opt_base(o, to);
		td_value_clear(o, base);
		copy_value(o, base, td_opt_base(o, theirs));
	}
}

static void set_addresses(struct td_tunnel_config *t, const struct td_addr *v, int n)
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

struct td_config *td_config_single(const struct td_config *from, const struct td_tunnel_config *t,
				   const struct td_addr *listen, int n)
{
	struct td_config *c = td_config_parse("", "built-in", ".", 0, NULL);
	struct td_cfg_parse p = {.c = c, .dir = "."};
	int i = td_section_add(c, TD_SECTION_TUNNEL, t->name, t->line);
	td_cfg_set_defaults(&p, TD_SECTION_TUNNEL, i, 0);
	/* An alias has not the keys of listening: those keep their defaults. */
	copy_tunnel(td_section_place(c, TD_SECTION_TUNNEL, i), t, t->naddrs ? TD_SECTION_TUNNEL : TD_SECTION_ALIAS);
	set_addresses(&c->fwd.tunnels[i], listen, n);
	c->fwd.drain_timeout_ns = from->fwd.drain_timeout_ns;
	return c;
}

void td_config_name_host(struct td_tunnel_config *t, const char *host, uint16_t port)
{
	tnl_free(t->host);
	t->host = host ? td_cfg_dup(host, strlen(host)) : NULL;
	t->port = port;
	if (port) { /* not to the socket that the section names */
		tnl_free(t->path);
		t->path = NULL;
	}
}
