/* Where a tunnel goes at its target: a port, or unix:PATH. */
#include "lib/alloc.h"
#include "lib/head.h"
#include "lib/err.h"
#include "tunneld/config/internal.h"
#include <string.h>

bool td_place_set(struct td_cfg_parse *p, int line, const struct td_opt *o, void *base, const char *value)
{
	struct td_tunnel_config *t = base;
	char first[32];
	unsigned ports = 1;
	uint64_t n;

	if (strncmp(value, "unix:", 5) != 0) {
		bool range = (o->in & TD_IN(TUNNEL)) && strchr(value, '-');
		const char *fault = range ? td_number_ports(value, first, sizeof(first), &ports) : NULL;
		if (fault) {
			td_cfg_error(p, line, "%s = %s: %s", o->key, value, fault);
			return false;
		}
		value = ports > 1 ? first : value;
		int err = td_number_plain(value, &n);
		if (err == TNL_ESYNTAX)
			td_cfg_error(p, line, "%s = %s: must be a port from 1 to 65535, or unix:PATH", o->key, value);
		else if (err || n < o->lo || n > o->hi)
			td_cfg_error(p, line, "%s = %s: out of range, 1 to 65535", o->key, value);
		else {
			td_place_clear(o, base);
			t->port = (uint16_t)n;
			t->ports = ports;
			return true;
		}
		return false;
	}
	const char *path = value + 5;
	if (*path != '/' || strlen(path) < 2 || strlen(path) > TNL_HEAD_PATH) {
		td_cfg_error(p, line, "%s = %s: needs the absolute path of a socket, of at most %u bytes", o->key,
			     value, TNL_HEAD_PATH);
		return false;
	}
	td_place_clear(o, base);
	t->path = td_cfg_dup(path, strlen(path));
	return true;
}

void td_place_clear(const struct td_opt *o, void *base)
{
	struct td_tunnel_config *t = base;
	tnl_free(t->path);
	t->path = NULL;
	t->port = 0;
}

bool td_place_same(const struct td_opt *o, const void *a, const void *b)
{
	const struct td_tunnel_config *x = a, *y = b;
	return x->port == y->port && !x->path == !y->path && (!x->path || strcmp(x->path, y->path) == 0);
}

void td_place_inherit(const struct td_opt *o, void *base, const void *from)
{
	struct td_tunnel_config *t = base;
	const struct td_tunnel_config *theirs = from;
	if (t->port || t->path)
		return;
	t->port = theirs->port;
	t->path = theirs->path ? td_cfg_dup(theirs->path, strlen(theirs->path)) : NULL;
}

const char *td_tunnel_host(const struct td_tunnel_config *t)
{
	return t->path ? t->path : t->host ? t->host : "-";
}
