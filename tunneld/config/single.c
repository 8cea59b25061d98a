/* One tunnel out of a configuration, in one of its own. */
#include "lib/alloc.h"
#include "tunneld/config/internal.h"
#include <string.h>

struct td_config *td_config_single(const struct td_config *from, const struct td_tunnel_config *t,
				   const struct td_addr *listen, int n)
{
	struct td_config *c = td_config_parse("", "built-in", ".", 0, NULL);
	struct td_cfg_parse p = {.c = c, .dir = "."};
	int i = td_section_add(c, TD_SECTION_TUNNEL, t->name, t->line);
	td_cfg_set_defaults(&p, TD_SECTION_TUNNEL, i, 0);
	/* An alias has not the keys of listening: those keep their defaults. */
	td_cfg_copy_tunnel(td_section_place(c, TD_SECTION_TUNNEL, i), t,
			   t->naddrs ? TD_SECTION_TUNNEL : TD_SECTION_ALIAS);
	td_cfg_set_addresses(&c->fwd.tunnels[i], listen, n);
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
