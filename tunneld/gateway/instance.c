/* The instances of the configuration, and what is sent to them on their control channels. */
#include "tunneld/gateway/shared_internal.h"
#include "lib/alloc.h"
#include "lib/num.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* --- what nodes know of it ---------------------------------------------------- */
static char **text_of(struct gw_instance *i, const char *key)
{
	const struct {
		const char *key;
		char **text;
	} all[] = {{"name", &i->agent_name},	    {"version", &i->agent_version},    {"type", &i->platform_type},
		   {"platform", &i->platform_name}, {"release", &i->platform_version}, {"address", &i->ip_address},
		   {"host", &i->computer_name}};
	for (size_t k = 0; k < TNL_COUNT(all); k++)
		if (strcmp(all[k].key, key) == 0)
			return all[k].text;
	return NULL;
}

void gw_instance_tell(struct gw_instance *i)
{
	char ping[24], since[24];
	struct td_gateway *g = i->g;
	if (!g->shared)
		return;
	snprintf(ping, sizeof(ping), "%llu", (unsigned long long)i->ping_ms);
	snprintf(since, sizeof(since), "%llu", (unsigned long long)i->registered_ms);
	const struct td_store_fact v[] = {
	    {"ping", ping},
	    {"since", since},
	    {"name", i->agent_name},
	    {"version", i->agent_version},
	    {"type", i->platform_type},
	    {"platform", i->platform_name},
	    {"release", i->platform_version},
	    {"address", i->ip_address},
	    {"host", i->computer_name},
	};
	if (i->link)
		td_store_instance_up(g->store, i->id, v, TNL_COUNT(v));
	else
		td_store_instance_note(g->store, i->id, v, TNL_COUNT(v));
}

void gw_instance_at(struct gw_instance *i, const char *node)
{
	if (strcmp(node, i->g->node) == 0)
		node = "";
	if (strcmp(i->remote, node) == 0)
		return;
	snprintf(i->remote, sizeof(i->remote), "%s", node);
	i->remote_since = i->g->l->now;
	i->left_at = i->g->l->now;
}

void gw_instance_read(struct gw_instance *i, const struct td_store_instance *v)
{
	gw_instance_at(i, v->node);
	for (unsigned k = 0; k < v->n; k++) {
		const struct td_store_fact *f = &v->v[k];
		char **text = text_of(i, f->key), *copy;
		if (strcmp(f->key, "ping") == 0)
			i->ping_ms = TNL_MAX(i->ping_ms, strtoull(f->value, NULL, 10));
		else if (strcmp(f->key, "since") == 0 && !i->registered_ms)
			i->registered_ms = strtoull(f->value, NULL, 10);
		else if (text && (!*text || strcmp(*text, f->value) != 0) && (copy = tnl_strdup(f->value)) != NULL) {
			tnl_free(*text);
			*text = copy;
		}
	}
}

bool gw_instance_is_up(const struct gw_instance *i)
{
	return i->link || i->remote[0];
}

static void say_where(struct gw_instance *i, const char *op)
{
	struct gw_words w;
	if (!i->g->shared)
		return;
	gw_words_begin(i->g, &w, op);
	tnl_jw_kv(&w.w, "instance", i->id);
	gw_words_say(i->g, NULL, &w);
}

/* To the node that has its control channel, whichever that is. */
static void send_by_node(struct gw_instance *i, enum tnl_mtype t, const void *p, size_t n)
{
	struct gw_words w;
	if (!i->g->shared || t != TNL_MT_CHANNEL_CLOSED)
		return;
	gw_words_begin(i->g, &w, "closed");
	tnl_jw_kv(&w.w, "instance", i->id);
	tnl_jw_key(&w.w, "text");
	tnl_jw_strn(&w.w, p, n);
	gw_words_say(i->g, NULL, &w);
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
	gw_instance_at(i, "");
	gw_instance_tell(i);
	say_where(i, "up");
}

void gw_instance_detach(struct gw_instance *i)
{
	i->link = NULL;
	i->left_at = i->g->l->now;
	i->ping_ms = i->g->l->wall_ms;
	gw_queue_clear(&i->q);
	if (i->g->shared)
		td_store_instance_down(i->g->store, i->id, i->ping_ms);
	say_where(i, "down");
	td_info("gateway", NULL, "instance disconnected instance=%s", i->id);
}

void gw_instance_send(struct gw_instance *i, enum tnl_mtype t, const void *p, size_t n)
{
	if (i && !i->link)
		send_by_node(i, t, p, n);
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
