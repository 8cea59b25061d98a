/* Sections as rows: where the objects of each kind lie in struct td_config, and what each has. */
#include "tunneld/config/internal.h"
#include "lib/alloc.h"
#include <string.h>

#define C(f) offsetof(struct td_config, f)
#define T(f) offsetof(struct td_tunnel_config, f)
#define U(f) offsetof(struct td_user_config, f)
#define I(f) offsetof(struct td_instance_config, f)

/* clang-format off */
const struct td_section_kind td_sections[TD_SECTION_COUNT] = {
	[TD_SECTION_TUNNELD]  = {.word = "tunneld", .shown = "tunneld", .off = 0},
	[TD_SECTION_AWS]      = {.word = "aws", .shown = "aws", .off = C(aws), .aws = 0},
	[TD_SECTION_TUNNEL]   = {.word = "tunnel", .shown = "tunnel NAME", .named = true, .has = C(has_forwarder),
	                         .off = C(fwd.tunnels), .count = C(fwd.ntunnels), .size = sizeof(struct td_tunnel_config),
	                         .name = T(name), .line = T(line), .aws = T(aws)},
	[TD_SECTION_ALIAS]    = {.word = "alias", .shown = "alias NAME", .named = true,
	                         .off = C(fwd.aliases), .count = C(fwd.naliases), .size = sizeof(struct td_tunnel_config),
	                         .name = T(name), .line = T(line), .aws = T(aws)},
	[TD_SECTION_AGENT]    = {.word = "agent", .shown = "agent", .has = C(has_agent),
	                         .off = C(agent), .aws = offsetof(struct td_agent_config, aws)},
	[TD_SECTION_GATEWAY]  = {.word = "gateway", .shown = "gateway", .has = C(has_gateway), .off = C(gw)},
	[TD_SECTION_USER]     = {.word = "user", .shown = "user NAME", .named = true,
	                         .off = C(gw.users), .count = C(gw.nusers), .size = sizeof(struct td_user_config),
	                         .name = U(name), .line = U(line)},
	[TD_SECTION_INSTANCE] = {.word = "instance", .shown = "instance ID", .named = true,
	                         .off = C(gw.instances), .count = C(gw.ninstances), .size = sizeof(struct td_instance_config),
	                         .name = I(id), .line = I(line)},
};
/* clang-format on */

/* The pointer to the array of a named section; of another type in each. */
static char *array_of(const struct td_config *c, const struct td_section_kind *k)
{
	char *v;
	memcpy(&v, (const char *)c + k->off, sizeof(v));
	return v;
}

int td_section_count(const struct td_config *c, enum td_section kind)
{
	const struct td_section_kind *k = &td_sections[kind];
	return k->named ? *(const int *)(const void *)((const char *)c + k->count) : 1;
}

struct td_place td_section_place(struct td_config *c, enum td_section kind, int index)
{
	const struct td_section_kind *k = &td_sections[kind];
	char *own = k->named ? array_of(c, k) + (size_t)index * k->size : (char *)c + k->off;
	void *aws = TD_IN_AWS_KEYS >> kind & 1 ? own + k->aws : NULL;
	return (struct td_place){own, aws};
}

char **td_section_name(struct td_config *c, enum td_section kind, int index)
{
	const struct td_section_kind *k = &td_sections[kind];
	char *own = td_section_place(c, kind, index).own;
	return k->named ? (char **)(void *)(own + k->name) : NULL;
}

int td_section_add(struct td_config *c, enum td_section kind, const char *name, int line)
{
	const struct td_section_kind *k = &td_sections[kind];
	if (k->has)
		*((bool *)c + k->has) = true;
	if (!k->named)
		return 0;
	int n = td_section_count(c, kind);
	char *v = td_cfg_grow(array_of(c, k), (size_t)(n + 1) * k->size), *last = v + (size_t)n * k->size;
	memset(last, 0, k->size);
	memcpy((char *)c + k->off, &v, sizeof(v));
	*(int *)(void *)((char *)c + k->count) = n + 1;
	*td_section_name(c, kind, n) = td_cfg_dup(name, strlen(name));
	*(int *)(void *)(last + k->line) = line;
	return n;
}

void td_section_drop(struct td_config *c, enum td_section kind)
{
	if (!td_sections[kind].named)
		return;
	for (int i = 0; i < td_section_count(c, kind); i++)
		tnl_free(*td_section_name(c, kind, i));
	tnl_free(array_of(c, &td_sections[kind]));
}
