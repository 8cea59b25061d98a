/* The life of a configuration's objects: defaults, holders, copies, comparing, freeing.  All of it follows the option
 * table. */
#include "lib/alloc.h"
#include "tunneld/config/internal.h"
#include <string.h>

static void clear_section(enum td_section kind, struct td_place at)
{
	for (const struct td_opt *o = NULL; (o = td_opt_next(kind, o)) != NULL;)
		td_value_clear(o, td_opt_base(o, at));
}

void td_cfg_set_defaults(struct td_cfg_parse *p, enum td_section kind, int index, int line)
{
	struct td_place at = td_section_place(p->c, kind, index);
	clear_section(kind, at);
	for (const struct td_opt *o = NULL; (o = td_opt_next(kind, o)) != NULL;)
		if (o->dflt)
			td_value_set(p, line, o, td_opt_base(o, at), o->dflt);
}

bool td_section_same(enum td_section kind, struct td_place a, struct td_place b)
{
	for (const struct td_opt *o = NULL; (o = td_opt_next(kind, o)) != NULL;)
		if (!td_value_same(o, td_opt_base(o, a), td_opt_base(o, b)))
			return false;
	return true;
}

/* --- the whole ------------------------------------------------------------------------ */

struct td_config *td_config_ref(const struct td_config *c)
{
	struct td_config *held = (struct td_config *)(uintptr_t)c;
	held->refs++;
	return held;
}

void td_config_free(struct td_config *c)
{
	if (!c || c->refs-- > 0)
		return;
	for (enum td_section kind = 0; kind < TD_SECTION_COUNT; kind++) {
		for (int i = 0; i < td_section_count(c, kind); i++)
			clear_section(kind, td_section_place(c, kind, i));
		td_section_drop(c, kind);
	}
	tnl_free(c->path);
	for (int i = 0; i < c->included.n; i++)
		tnl_free(c->included.v[i]);
	tnl_free(c->included.v);
	tnl_free(c);
}

static struct td_place place_of_tunnel(const struct td_tunnel_config *t)
{
	struct td_tunnel_config *own = (struct td_tunnel_config *)(uintptr_t)t;
	return (struct td_place){own, &own->aws};
}

bool td_tunnel_same(const struct td_tunnel_config *a, const struct td_tunnel_config *b)
{
	return strcmp(a->name, b->name) == 0 && a->range == b->range &&
	       td_section_same(TD_SECTION_TUNNEL, place_of_tunnel(a), place_of_tunnel(b));
}

/* --- blocks of [aws] ---------------------------------------------------------------------- */

static struct td_place place_of_aws(const struct td_aws_config *a)
{
	return (struct td_place){NULL, (struct td_aws_config *)(uintptr_t)a};
}

void td_aws_config_clear(struct td_aws_config *a)
{
	clear_section(TD_SECTION_AWS, place_of_aws(a));
}

bool td_aws_config_same(const struct td_aws_config *a, const struct td_aws_config *b)
{
	return td_section_same(TD_SECTION_AWS, place_of_aws(a), place_of_aws(b));
}

/* Is any key of that group set? */
static bool has_group(const struct td_aws_config *a, enum td_opt_group group)
{
	struct td_aws_config none = {0};
	td_aws_config_clear(&none);
	for (const struct td_opt *o = NULL; (o = td_opt_next(TD_SECTION_AWS, o)) != NULL;)
		if (o->group == group && !td_value_same(o, a, &none))
			return true;
	return false;
}

void td_aws_config_inherit(struct td_aws_config *a, const struct td_aws_config *from)
{
	bool own[TD_GROUP_COUNT] = {false};
	for (int group = TD_GROUP_NONE + 1; group < TD_GROUP_COUNT; group++)
		own[group] = has_group(a, (enum td_opt_group)group);
	for (const struct td_opt *o = NULL; (o = td_opt_next(TD_SECTION_AWS, o)) != NULL;)
		if (!own[o->group])
			o->type->inherit(o, a, from);
}

void td_aws_config_copy(struct td_aws_config *a, const struct td_aws_config *from)
{
	td_aws_config_clear(a);
	td_aws_config_inherit(a, from);
}

const char *td_aws_config_file(const struct td_aws_config *a, int i)
{
	for (const struct td_opt *o = NULL; (o = td_opt_next(TD_SECTION_AWS, o)) != NULL;)
		if (o->type->is_file) {
			const char *path = *(char *const *)(const void *)((const char *)a + o->off);
			if (path && i-- == 0)
				return path;
		}
	return NULL;
}
