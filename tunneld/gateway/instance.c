/* The instances of the configuration, and what is sent to them on their control channels. */
#include "tunneld/gateway/internal.h"
#include "lib/alloc.h"

static struct gw_instance *instance_new(struct td_gateway *g, const char *id)
{
	struct gw_instance *i = tnl_calloc(1, sizeof(*i));
	if (!i)
		return NULL;
	i->g = g;
	i->id = tnl_strdup(id);
	tnl_list_init(&i->sessions);
	if (!i->id || tnl_map_set_str(g->instances, id, i) != 0) {
		tnl_free(i->id);
		tnl_free(i);
		return NULL;
	}
	return i;
}

int gw_instances_load(struct td_gateway *g)
{
	size_t it = 0, klen;
	const void *key;
	for (struct gw_instance *i; (i = tnl_map_next(g->instances, &it, &key, &klen)) != NULL;)
		i->cfg = NULL;
	const struct td_gateway_config *c = &g->cfg->gw;
	for (int k = 0; k < c->ninstances; k++) {
		struct gw_instance *i = tnl_map_get_str(g->instances, c->instances[k].id);
		if (!i && !(i = instance_new(g, c->instances[k].id)))
			return TNL_ENOMEM;
		i->cfg = &c->instances[k];
	}
	it = 0;
	for (struct gw_instance *i; (i = tnl_map_next(g->instances, &it, &key, &klen)) != NULL;)
		if (!i->cfg && i->link)
			gw_link_close(i->link, 1008, "no longer known");
	return 0;
}

void gw_instances_free(struct td_gateway *g)
{
	size_t it = 0, klen;
	const void *key;
	for (struct gw_instance *i; (i = tnl_map_next(g->instances, &it, &key, &klen)) != NULL;) {
		gw_queue_clear(&i->q);
		tnl_free(i->id);
		tnl_free(i->agent_version);
		tnl_free(i->agent_name);
		tnl_free(i->platform_type);
		tnl_free(i->platform_name);
		tnl_free(i->platform_version);
		tnl_free(i->ip_address);
		tnl_free(i->computer_name);
		tnl_wipe(&i->tokens, sizeof(i->tokens));
		tnl_free(i);
	}
	tnl_map_free(g->instances);
}

struct gw_instance *gw_instance_get(struct td_gateway *g, const char *id)
{
	struct gw_instance *i = tnl_map_get_str(g->instances, id);
	return i && i->cfg ? i : NULL;
}

/* --- its control channel ---------------------------------------------------- */
void gw_instance_attach(struct gw_instance *i, struct gw_link *l)
{
	gw_queue_clear(&i->q);
	i->link = l;
	l->inst = i;
	i->generation++;
	i->up_since = i->g->l->now;
	i->ping_ms = i->g->l->wall_ms;
	if (!i->registered_ms)
		i->registered_ms = i->ping_ms;
}

void gw_instance_detach(struct gw_instance *i)
{
	i->link = NULL;
	i->ping_ms = i->g->l->wall_ms;
	gw_queue_clear(&i->q);
	td_info("gateway", NULL, "instance disconnected instance=%s", i->id);
}

void gw_instance_send(struct gw_instance *i, enum tnl_mtype t, const void *p, size_t n)
{
	if (!i || !i->link)
		return;
	uint8_t *out = tnl_malloc(TNL_MSG_HDR + n);
	if (!out)
		return;
	size_t len = gw_message_encode(i->g, out, t, p, n);
	if (i->q.frames || td_wslink_send(i->link->w, TNL_WS_BINARY, out, len) != 0) {
		if (i->q.bytes + len > i->g->cfg->gw.relay_memory || gw_queue_put(&i->q, out, len) != 0)
			gw_link_close(i->link, 1013,
				      "control channel does not read"); /* it comes back and hears it anew */
	}
	tnl_free(out);
}

void gw_instance_flush(struct gw_instance *i)
{
	size_t n;
	const uint8_t *p;
	while (i->link && (p = gw_queue_peek(&i->q, &n)) != NULL &&
	       td_wslink_send(i->link->w, TNL_WS_BINARY, p, n) == 0)
		gw_queue_pop(&i->q);
}
