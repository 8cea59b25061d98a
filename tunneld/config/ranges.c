/* Tunnels of a range of ports: each port becomes a tunnel of its own, NAME:PORT. */
#include "lib/alloc.h"
#include "tunneld/config/internal.h"
#include <string.h>

/* v: the addresses of the whole range, `ports` of them for each of n.  It has the i-th port of each. */
static void take_port(struct td_tunnel_config *t, const struct td_addr *v, int n, unsigned ports, unsigned i)
{
	struct td_addr *mine = td_cfg_alloc((size_t)(n + 1) * sizeof(*v));
	for (int k = 0; k < n; k++)
		mine[k] = v[(unsigned)k * ports + i];
	td_cfg_set_addresses(t, mine, n);
	tnl_free(mine);
	t->listen_ports = t->ports = 1;
}

static void name_by_port(struct td_cfg_parse *p, const char *range, unsigned port, int line, char *out, size_t cap)
{
	const struct td_config *c = p->c;
	snprintf(out, cap, "%s:%u", range, port);
	for (int i = 0; i < c->fwd.ntunnels; i++)
		if (strcmp(c->fwd.tunnels[i].name, out) == 0)
			td_cfg_error(p, line, "the name %s is that of a port of the tunnel %s as well", out, range);
}

/* One more, like the first, for the i-th port. */
static void add_port(struct td_cfg_parse *p, int first, const char *range, const struct td_addr *v, int n,
		     unsigned ports, unsigned i)
{
	struct td_config *c = p->c;
	unsigned port = c->fwd.tunnels[first].port + i;
	char name[256];
	name_by_port(p, range, port, c->fwd.tunnels[first].line, name, sizeof(name));
	int k = td_section_add(c, TD_SECTION_TUNNEL, name, c->fwd.tunnels[first].line);
	td_cfg_set_defaults(p, TD_SECTION_TUNNEL, k, 0);
	td_cfg_copy_tunnel(td_section_place(c, TD_SECTION_TUNNEL, k), &c->fwd.tunnels[first], TD_SECTION_TUNNEL);
	take_port(&c->fwd.tunnels[k], v, n, ports, i);
	c->fwd.tunnels[k].port = (uint16_t)port;
	c->fwd.tunnels[k].range = strlen(range);
}

static void split_range(struct td_cfg_parse *p, int first)
{
	struct td_tunnel_config *t = &p->c->fwd.tunnels[first];
	unsigned ports = t->ports;
	int n = t->naddrs / (int)ports;
	struct td_addr *v = t->addrs;
	char *range = t->name, name[256];
	t->addrs = NULL;
	for (int i = 0; i < t->listen.n; i++)
		tnl_free(t->listen.v[i]);
	tnl_free(t->listen.v);
	name_by_port(p, range, t->port, t->line, name, sizeof(name));
	t->name = td_cfg_dup(name, strlen(name));
	t->range = strlen(range);
	take_port(t, v, n, ports, 0);
	for (unsigned i = 1; i < ports; i++)
		add_port(p, first, range, v, n, ports, i);
	tnl_free(v);
	tnl_free(range);
}

/* The last n go to where at is, what stood there behind them. */
static void move_up(struct td_forwarder_config *f, int at, int n)
{
	struct td_tunnel_config *v = f->tunnels, *last = td_cfg_alloc((size_t)n * sizeof(*v));
	memcpy(last, v + f->ntunnels - n, (size_t)n * sizeof(*v));
	memmove(v + at + n, v + at, (size_t)(f->ntunnels - n - at) * sizeof(*v));
	memcpy(v + at, last, (size_t)n * sizeof(*v));
	tnl_free(last);
}

void td_cfg_split_ranges(struct td_cfg_parse *p)
{
	struct td_forwarder_config *f = &p->c->fwd;
	for (int i = 0; i < f->ntunnels; i++) {
		int before = f->ntunnels;
		if (f->tunnels[i].ports < 2)
			continue;
		split_range(p, i);
		int more = f->ntunnels - before;
		move_up(f, i + 1, more);
		i += more;
	}
}

bool td_tunnel_is_called(const struct td_tunnel_config *t, const char *name)
{
	return strcmp(t->name, name) == 0 ||
	       (t->range && strlen(name) == t->range && memcmp(t->name, name, t->range) == 0);
}

const struct td_tunnel_config *td_tunnel_find(const struct td_tunnel_config *v, int n, const char *name)
{
	for (int i = 0; i < n; i++)
		if (td_tunnel_is_called(&v[i], name))
			return &v[i];
	return NULL;
}
