/* The configurations that the roles of tunneld local run on. */
#include "tunneld/command/local_internal.h"
#include "lib/alloc.h"
#include "lib/enc.h"
#include <string.h>

enum { TEXT_CAP = 16384 };

static int set_text(char **dst, const char *src)
{
	tnl_free(*dst);
	*dst = tnl_strdup(src);
	return *dst ? 0 : -1;
}

static struct td_config *parse(const struct td_local *o, const char *text, unsigned roles, FILE *errors)
{
	return td_config_parse(text, "tunneld local", o->d.state.dir, roles | TD_ROLE_FILES, errors);
}

struct td_config *td_local_config_gateway(const struct td_local *o, unsigned port)
{
	char text[1024];
	snprintf(text, sizeof(text),
		 "[gateway]\nlisten = 127.0.0.1:%u\ncertificate = gateway.pem\nprivate_key = gateway.key\n"
		 "[user local]\naccess_key_id = %s\nsecret_access_key = %s\ntargets = *\n"
		 "[instance " TD_LOCAL_INSTANCE "]\naccess_key_id = %s\nsecret_access_key = %s\n",
		 port, o->keys.user_id, o->keys.user_secret, o->keys.agent_id, o->keys.agent_secret);
	struct td_config *c = parse(o, text, TD_ROLE_GATEWAY, stderr);
	tnl_wipe(text, sizeof(text));
	return c;
}

static void allow_place(struct tnl_buf *b, const char *host, unsigned port)
{
	tnl_buf_printf(b, strchr(host, ':') ? ", [%s]:%u" : ", %s:%u", host, port);
}

struct td_config *td_local_config_clients(const struct td_local *o, const struct td_config *file, FILE *errors)
{
	struct tnl_buf b;
	tnl_buf_init(&b, TEXT_CAP);
	tnl_buf_printf(&b, "[tunneld]\nlog_level = %s\n", o->level ? o->level : "warn");
	tnl_buf_printf(&b,
		       "[aws]\nregion = " TD_LOCAL_REGION
		       "\nssm_endpoint = %s\nssmmessages_endpoint = %s\nca_file = ca.pem\n"
		       "proxy = none\naccess_key_id = %s\nsecret_access_key = %s\n",
		       o->endpoint, o->endpoint, o->keys.user_id, o->keys.user_secret);
	tnl_buf_printf(&b,
		       "[agent]\ninstance_id = " TD_LOCAL_INSTANCE "\naccess_key_id = %s\nsecret_access_key = %s\n"
		       "allow = 127.0.0.0/8:*, [::1/128]:*, localhost:*",
		       o->keys.agent_id, o->keys.agent_secret);
	if (o->target)
		allow_place(&b, o->target_host, o->target_port);
	for (int i = 0; file && i < file->fwd.ntunnels; i++)
		if (file->fwd.tunnels[i].host)
			allow_place(&b, file->fwd.tunnels[i].host, file->fwd.tunnels[i].port);
	tnl_buf_puts(&b, "\n");
	if (o->target)
		tnl_buf_printf(&b,
			       "[tunnel local]\nlisten = %s\nrequired = yes\ntarget = " TD_LOCAL_INSTANCE
			       "\nhost = %s\nport = %u\n",
			       o->listen ? o->listen : "127.0.0.1:0", o->target_host, o->target_port);
	const char *text = tnl_buf_str(&b);
	struct td_config *c = text && !b.failed ? parse(o, text, TD_ROLE_AGENT, errors) : NULL;
	tnl_buf_fini_wiped(&b);
	return c;
}

struct td_config *td_local_config_overlay(const struct td_local *o, struct td_config *file, FILE *errors)
{
	struct td_config *c = td_local_config_clients(o, file, errors);
	if (!c) {
		td_config_free(file);
		return NULL;
	}
	for (int i = 0; i < file->fwd.ntunnels; i++) {
		struct td_tunnel_config *t = &file->fwd.tunnels[i];
		set_text(&t->target, TD_LOCAL_INSTANCE);
		td_aws_config_copy(&t->aws, &c->aws);
	}
	struct td_agent_config mine = c->agent; /* swapped: each configuration frees what it then holds */
	c->agent = file->agent;
	file->agent = mine;
	file->has_agent = true;
	td_config_free(c);
	return file;
}
