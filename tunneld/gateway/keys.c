/* The access keys of users and instances: by id, and by the mark that stands for id and secret together in tokens and
 * links, so that a key that was taken away, or whose secret has changed, is not found any more. */
#include "tunneld/gateway/internal.h"
#include "lib/alloc.h"
#include "lib/crypto.h"
#include <string.h>

static void make_mark(const struct td_access_key *k, uint8_t mark[GW_MARK])
{
	uint8_t full[32];
	tnl_hmac_sha256(k->secret, strlen(k->secret), k->id, strlen(k->id), full);
	memcpy(mark, full, GW_MARK);
	tnl_wipe(full, sizeof(full));
}

static void free_principal(struct gw_principal *p)
{
	if (p)
		tnl_free(p->refused);
	tnl_free(p);
}

static int add_key(struct tnl_map *keys, struct tnl_map *marks, const struct td_access_key *k,
		   const struct td_user_config *u, const struct td_instance_config *i)
{
	if (!k->id || !k->secret)
		return 0;
	struct gw_principal *p = tnl_calloc(1, sizeof(*p));
	if (!p)
		return TNL_ENOMEM;
	*p = (struct gw_principal){.user = u, .instance = i, .key_id = k->id, .secret = k->secret};
	make_mark(k, p->mark);
	if (!(p->refused = tnl_calloc(1, sizeof(*p->refused)))) {
		tnl_free(p);
		return TNL_ENOMEM;
	}
	free_principal(tnl_map_del_str(keys, k->id));
	int rc = tnl_map_set_str(keys, k->id, p);
	if (rc != 0)
		free_principal(p);
	return rc == 0 ? tnl_map_set(marks, p->mark, GW_MARK, p) : rc;
}

int gw_keys_load(const struct td_gateway_config *c, struct tnl_map **keys, struct tnl_map **marks)
{
	struct tnl_map *k = tnl_map_new(), *m = tnl_map_new();
	int rc = k && m ? 0 : TNL_ENOMEM;
	for (int i = 0; i < c->nusers * TD_KEYS_MAX && rc == 0; i++) {
		const struct td_user_config *u = &c->users[i / TD_KEYS_MAX];
		rc = add_key(k, m, &u->keys[i % TD_KEYS_MAX], u, NULL);
	}
	for (int i = 0; i < c->ninstances * TD_KEYS_MAX && rc == 0; i++) {
		const struct td_instance_config *n = &c->instances[i / TD_KEYS_MAX];
		rc = add_key(k, m, &n->keys[i % TD_KEYS_MAX], NULL, n);
	}
	if (rc != 0) {
		gw_keys_free(k, m);
		return rc;
	}
	*keys = k;
	*marks = m;
	return 0;
}

void gw_keys_free(struct tnl_map *keys, struct tnl_map *marks)
{
	size_t it = 0;
	const void *key;
	size_t klen;
	tnl_map_free(marks);
	if (!keys)
		return;
	for (struct gw_principal *p; (p = tnl_map_next(keys, &it, &key, &klen)) != NULL;)
		free_principal(p);
	tnl_map_free(keys);
}

const struct gw_principal *gw_keys_by_mark(const struct td_gateway *g, const uint8_t mark[GW_MARK])
{
	return tnl_map_get(g->marks, mark, GW_MARK);
}

void gw_keys_marks(const struct td_gateway *g, const struct td_access_key keys[TD_KEYS_MAX], struct gw_marks *out)
{
	out->n = 0;
	for (int i = 0; i < TD_KEYS_MAX; i++) {
		const struct gw_principal *p = keys[i].id ? tnl_map_get_str(g->keys, keys[i].id) : NULL;
		if (p)
			memcpy(out->v[out->n++], p->mark, GW_MARK);
	}
}

const char *gw_keys_name(const struct gw_principal *p)
{
	return p->user ? p->user->name : p->instance->id;
}

const char *gw_keys_certificate(const struct gw_principal *p)
{
	return p->user ? p->user->certificate_name : p->instance->certificate_name;
}

const struct td_user_config *gw_keys_user(const struct td_gateway *g, const char *name)
{
	for (int i = 0; i < g->cfg->gw.nusers; i++)
		if (strcmp(g->cfg->gw.users[i].name, name) == 0)
			return &g->cfg->gw.users[i];
	return NULL;
}
