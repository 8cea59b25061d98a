/* Finding, comparing and freeing configurations. */
#include "lib/alloc.h"
#include "tunneld/config/internal.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void free_section(enum td_section kind, void *base, void *aws)
{
	for (int i = 0; i < td_nopts; i++)
		if (td_opt_in(&td_opts[i], kind))
			td_value_free(&td_opts[i], td_opts[i].flags & TD_F_AWS ? aws : base);
}

static void free_tunnels(struct td_tunnel_config *t, int n, enum td_section kind)
{
	for (int i = 0; i < n; i++) {
		free_section(kind, &t[i], &t[i].aws);
		tnl_free(t[i].name);
	}
	tnl_free(t);
}

struct td_config *td_config_ref(const struct td_config *c)
{
	struct td_config *held = (struct td_config *)(uintptr_t)c;
	held->refs++;
	return held;
}

void td_aws_config_replace(struct td_aws_config *dst, const struct td_aws_config *src)
{
	free_section(TD_SEC_AWS, NULL, dst);
	*dst = (struct td_aws_config){.use_fips = -1, .use_dualstack = -1};
	td_aws_config_inherit(dst, src);
}

void td_config_free(struct td_config *c)
{
	if (!c || c->refs-- > 0)
		return;
	free_section(TD_SEC_TUNNELD, c, NULL);
	free_section(TD_SEC_AWS, NULL, &c->aws);
	free_section(TD_SEC_AGENT, &c->agent, &c->agent.aws);
	free_section(TD_SEC_GATEWAY, &c->gw, NULL);
	free_tunnels(c->fwd.tunnels, c->fwd.ntunnels, TD_SEC_TUNNEL);
	free_tunnels(c->fwd.aliases, c->fwd.naliases, TD_SEC_ALIAS);
	for (int i = 0; i < c->gw.nusers; i++) {
		free_section(TD_SEC_USER, &c->gw.users[i], NULL);
		tnl_free(c->gw.users[i].name);
	}
	tnl_free(c->gw.users);
	for (int i = 0; i < c->gw.ninstances; i++) {
		free_section(TD_SEC_INSTANCE, &c->gw.instances[i], NULL);
		tnl_free(c->gw.instances[i].id);
	}
	tnl_free(c->gw.instances);
	tnl_free(c->path);
	tnl_free(c);
}

static bool same_section(enum td_section kind, const void *a, const void *b, const void *aws_a, const void *aws_b)
{
	for (int i = 0; i < td_nopts; i++) {
		const struct td_opt *o = &td_opts[i];
		if (!td_opt_in(o, kind))
			continue;
		const void *x = o->flags & TD_F_AWS ? aws_a : a, *y = o->flags & TD_F_AWS ? aws_b : b;
		if (!td_value_same(o, x, y))
			return false;
		if (o->set_off &&
		    *(const bool *)((const char *)x + o->set_off) != *(const bool *)((const char *)y + o->set_off))
			return false;
	}
	return true;
}

bool td_tunnel_same(const struct td_tunnel_config *a, const struct td_tunnel_config *b)
{
	return strcmp(a->name, b->name) == 0 && same_section(TD_SEC_TUNNEL, a, b, &a->aws, &b->aws);
}

bool td_config_same(const struct td_config *a, const struct td_config *b)
{
	if (a->fwd.ntunnels != b->fwd.ntunnels || a->fwd.naliases != b->fwd.naliases || a->gw.nusers != b->gw.nusers ||
	    a->gw.ninstances != b->gw.ninstances || a->has_agent != b->has_agent || a->has_gateway != b->has_gateway)
		return false;
	if (!same_section(TD_SEC_TUNNELD, a, b, NULL, NULL) ||
	    !same_section(TD_SEC_AWS, NULL, NULL, &a->aws, &b->aws) ||
	    !same_section(TD_SEC_AGENT, &a->agent, &b->agent, &a->agent.aws, &b->agent.aws) ||
	    !same_section(TD_SEC_GATEWAY, &a->gw, &b->gw, NULL, NULL))
		return false;
	for (int i = 0; i < a->fwd.ntunnels; i++)
		if (!td_tunnel_same(&a->fwd.tunnels[i], &b->fwd.tunnels[i]))
			return false;
	for (int i = 0; i < a->fwd.naliases; i++)
		if (strcmp(a->fwd.aliases[i].name, b->fwd.aliases[i].name) != 0 ||
		    !same_section(TD_SEC_ALIAS, &a->fwd.aliases[i], &b->fwd.aliases[i], &a->fwd.aliases[i].aws,
				  &b->fwd.aliases[i].aws))
			return false;
	for (int i = 0; i < a->gw.nusers; i++)
		if (strcmp(a->gw.users[i].name, b->gw.users[i].name) != 0 ||
		    !same_section(TD_SEC_USER, &a->gw.users[i], &b->gw.users[i], NULL, NULL))
			return false;
	for (int i = 0; i < a->gw.ninstances; i++)
		if (strcmp(a->gw.instances[i].id, b->gw.instances[i].id) != 0 ||
		    !same_section(TD_SEC_INSTANCE, &a->gw.instances[i], &b->gw.instances[i], NULL, NULL))
			return false;
	return true;
}

char *td_config_find(const char *arg)
{
	const char *env = getenv("TUNNELD_CONFIG"), *home = getenv("HOME"), *xdg = getenv("XDG_CONFIG_HOME");
	char path[4096];
	/* What was named is taken whether it exists or not: the error must say so. */
	if (arg)
		return td_cfg_dup(arg, strlen(arg));
	if (env && *env)
		return td_cfg_dup(env, strlen(env));
	if (xdg && *xdg == '/')
		snprintf(path, sizeof(path), "%s/tunneld/tunneld.ini", xdg);
	else
		snprintf(path, sizeof(path), "%s/.config/tunneld/tunneld.ini", home ? home : "");
	if ((home || xdg) && !access(path, F_OK))
		return td_cfg_dup(path, strlen(path));
	if (!access("/etc/tunneld/tunneld.ini", F_OK))
		return td_cfg_dup("/etc/tunneld/tunneld.ini", strlen("/etc/tunneld/tunneld.ini"));
	return NULL;
}
