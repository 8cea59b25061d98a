/* DescribeInstanceInformation: filters, pages, and only what the caller may reach. GetConnectionStatus: of one
 * instance. Where nodes share a store, what they know of the instances is read from there first. */
#include "tunneld/gateway/api_internal.h"
#include "tunneld/gateway/page_internal.h"
#include "tunneld/gateway/shared_internal.h"
#include "lib/alloc.h"
#include "lib/num.h"
#include <stdlib.h>
#include <string.h>

#define ANSWER_MAX (4096u * 1024)
/* As AWS bounds them; where it names none, its number of keys. */
#define INSTANCE_FILTERS 10
#define INSTANCE_FILTER_VALUES 100

/* --- what the store knows ----------------------------------------------------------- */
struct refresh {
	struct gw_call *c;
	void (*again)(struct gw_call *c);
	unsigned parts; /* without an answer */
	int err;
};
struct part {
	struct refresh *of;
	char *ids[TD_STORE_ASK_MAX];
	unsigned n;
};

static void end_refresh(struct refresh *k)
{
	struct gw_call *c = k->c;
	const struct gw_principal *p = k->err == TNL_ECLOSED ? NULL : gw_keys_by_mark(c->g, c->mark);
	if (k->err == TNL_ECLOSED) {
		; /* the gateway has freed it */
	} else if (!c->r) {
		gw_call_free(c);
	} else if (k->err != 0) {
		gw_call_unavailable(c);
	} else if (!p || !p->user) {
		gw_call_fail(c, 400, "UnrecognizedClientException",
			     "The security token included in the request is invalid.");
	} else {
		c->who = p;
		c->fresh = true;
		k->again(c);
	}
	tnl_free(k);
}

static void on_instances(void *ctx, int err, const struct td_store_instance *v, unsigned n)
{
	struct part *part = ctx;
	struct refresh *k = part->of;
	if (err != 0)
		k->err = err;
	for (unsigned i = 0; i < part->n; i++) {
		struct gw_instance *in = i < n && k->err != TNL_ECLOSED ? gw_instance_get(k->c->g, part->ids[i]) : NULL;
		if (in)
			gw_instance_read(in, &v[i]);
		tnl_free(part->ids[i]);
	}
	tnl_free(part);
	if (--k->parts == 0)
		end_refresh(k);
}

static void ask_part(struct part *part)
{
	part->of->parts++;
	td_store_instances(part->of->c->g->store, (const char *const *)part->ids, part->n, on_instances, part);
}

static struct part *add_id(struct refresh *k, struct part *part, const char *id)
{
	char *copy = tnl_strdup(id);
	if (!part && (part = tnl_calloc(1, sizeof(*part))) != NULL)
		part->of = k;
	if (!copy || !part) {
		k->err = TNL_ENOMEM;
		tnl_free(copy);
		return part;
	}
	part->ids[part->n++] = copy;
	if (part->n < TD_STORE_ASK_MAX)
		return part;
	ask_part(part);
	return NULL;
}

/* Of one instance, or of all that the caller may reach; then again(c). */
static void refresh(struct gw_call *c, const struct gw_instance *one, void (*again)(struct gw_call *c))
{
	struct refresh *k = tnl_calloc(1, sizeof(*k));
	struct part *part = NULL;
	size_t it = 0, klen;
	const void *key;
	if (!k) {
		gw_call_fail(c, 500, "InternalServerError", "out of memory");
		return;
	}
	k->c = c;
	k->again = again;
	k->parts = 1;
	if (one)
		part = add_id(k, part, one->id);
	for (struct gw_instance *i; !one && (i = tnl_map_next(c->g->instances, &it, &key, &klen)) != NULL;)
		if (i->cfg && gw_rights_target(c->who->user, i->id))
			part = add_id(k, part, i->id);
	if (part)
		ask_part(part);
	if (--k->parts == 0)
		end_refresh(k);
}

/* --- DescribeInstanceInformation ---------------------------------------------------- */
static const char *ping_status(const struct gw_instance *i)
{
	return gw_instance_is_up(i) ? "Online" : "ConnectionLost";
}

static bool is_one_of(const struct tnl_json *values, const char *s)
{
	tnl_json_each(e, values) {
		const char *v = tnl_json_str(e);
		if (v && s && strcmp(v, s) == 0)
			return true;
	}
	return false;
}

static const char *field_of(const struct gw_instance *i, const char *key)
{
	if (strcmp(key, "InstanceIds") == 0)
		return i->id;
	if (strcmp(key, "PingStatus") == 0)
		return ping_status(i);
	if (strcmp(key, "AgentVersion") == 0)
		return i->agent_version ? i->agent_version : "";
	if (strcmp(key, "PlatformTypes") == 0 || strcmp(key, "PlatformType") == 0)
		return i->platform_type ? i->platform_type : "";
	if (strcmp(key, "ResourceType") == 0)
		return strncmp(i->id, "mi-", 3) == 0 ? "ManagedInstance" : "EC2Instance";
	return NULL;
}

/* Its value of the tag; NULL: it has none.  n: of key. */
static const char *tag_of(const struct gw_instance *i, const char *key, size_t n)
{
	for (int k = 0; i->cfg && k < i->cfg->tags.n; k++) {
		const char *tag = i->cfg->tags.v[k];
		if (strncmp(tag, key, n) == 0 && tag[n] == '=')
			return tag + n + 1;
	}
	return NULL;
}

static bool has_tag_of(const struct gw_instance *i, const struct tnl_json *keys)
{
	tnl_json_each(e, keys) {
		const char *key = tnl_json_str(e);
		if (key && tag_of(i, key, strlen(key)))
			return true;
	}
	return false;
}

static bool is_tag_filter(const char *key)
{
	return strcmp(key, "tag-key") == 0 || (strncmp(key, "tag:", 4) == 0 && key[4]);
}

static bool filter_matches(const struct gw_instance *i, const char *key, const struct tnl_json *values)
{
	if (strcmp(key, "tag-key") == 0)
		return has_tag_of(i, values);
	const char *v = strncmp(key, "tag:", 4) == 0 ? tag_of(i, key + 4, strlen(key + 4)) : field_of(i, key);
	return v && is_one_of(values, v);
}

/* Both spellings of the filters: Filters [{Key, Values}] and InstanceInformationFilterList [{key, valueSet}]. */
static const struct {
	const char *list, *key, *values;
} spellings[] = {
    {"Filters", "Key", "Values"},
    {"InstanceInformationFilterList", "key", "valueSet"},
};

static bool check_instance_filters(struct gw_call *c)
{
	static const struct gw_instance none = {.id = (char *)""};
	for (size_t k = 0; k < TNL_COUNT(spellings); k++) {
		const struct tnl_json *list = tnl_json_get(c->in, spellings[k].list);
		if (!gw_page_count(c, "filters", list, 0, INSTANCE_FILTERS))
			return false;
		tnl_json_each(e, list) {
			const char *key = tnl_json_get_str(e, spellings[k].key);
			if (!key || (!field_of(&none, key) && !is_tag_filter(key))) {
				gw_call_fail(c, 400, "InvalidFilterKey", "The filter key %.64s is not valid",
					     key ? key : "");
				return false;
			}
			const struct tnl_json *values = tnl_json_get(e, spellings[k].values);
			if (!gw_page_count(c, spellings[k].values, values, 1, INSTANCE_FILTER_VALUES))
				return false;
		}
	}
	return true;
}

static bool instance_matches(const struct gw_call *c, const struct gw_instance *in)
{
	for (size_t k = 0; k < TNL_COUNT(spellings); k++) {
		const struct tnl_json *list = tnl_json_get(c->in, spellings[k].list);
		tnl_json_each(e, list) {
			const char *key = tnl_json_get_str(e, spellings[k].key);
			if (!filter_matches(in, key, tnl_json_get(e, spellings[k].values)))
				return false;
		}
	}
	return true;
}

static int compare_ids(const void *a, const void *b)
{
	return strcmp((*(struct gw_instance *const *)a)->id, (*(struct gw_instance *const *)b)->id);
}

/* Those that have been here, and that the caller may reach. */
static struct gw_instance **list_instances(struct gw_call *c, size_t *n)
{
	struct tnl_map *m = c->g->instances;
	struct gw_instance **v = tnl_calloc(tnl_map_count(m) + 1, sizeof(*v)), *i;
	size_t it = 0, klen;
	const void *key;
	*n = 0;
	while (v && (i = tnl_map_next(m, &it, &key, &klen)) != NULL)
		if (i->cfg && i->registered_ms && gw_rights_target(c->who->user, i->id) && instance_matches(c, i))
			v[(*n)++] = i;
	if (v)
		qsort(v, *n, sizeof(*v), compare_ids);
	return v;
}

/* Beyond AWS's answer, which knows none. */
static void write_tags(struct tnl_jw *w, const struct td_strlist *tags)
{
	tnl_jw_key(w, "Tags");
	tnl_jw_arr(w);
	for (int k = 0; k < tags->n; k++) {
		size_t n = strcspn(tags->v[k], "=");
		tnl_jw_obj(w);
		tnl_jw_key(w, "Key");
		tnl_jw_strn(w, tags->v[k], n);
		tnl_jw_kv(w, "Value", tags->v[k] + n + 1);
		tnl_jw_end_obj(w);
	}
	tnl_jw_end_arr(w);
}

static void write_instance(struct tnl_jw *w, const struct gw_instance *i, uint64_t now_ms)
{
	tnl_jw_obj(w);
	tnl_jw_kv(w, "InstanceId", i->id);
	tnl_jw_kv(w, "PingStatus", ping_status(i));
	gw_page_date(w, "LastPingDateTime", gw_instance_is_up(i) ? now_ms : i->ping_ms);
	gw_page_optional(w, "AgentVersion", i->agent_version);
	tnl_jw_key(w, "IsLatestVersion");
	tnl_jw_bool(w, true);
	gw_page_optional(w, "PlatformType", i->platform_type);
	gw_page_optional(w, "PlatformName", i->platform_name);
	gw_page_optional(w, "PlatformVersion", i->platform_version);
	tnl_jw_kv(w, "ResourceType", field_of(i, "ResourceType"));
	gw_page_optional(w, "IPAddress", i->ip_address);
	gw_page_optional(w, "ComputerName", i->computer_name);
	gw_page_date(w, "RegistrationDate", i->registered_ms);
	if (i->cfg->tags.n)
		write_tags(w, &i->cfg->tags);
	tnl_jw_end_obj(w);
}

/* How much a listing looks at: each instance, with each value of the filters. */
static uint64_t count_looks(const struct gw_call *c)
{
	uint64_t values = 1;
	for (size_t k = 0; k < TNL_COUNT(spellings); k++) {
		const struct tnl_json *list = tnl_json_get(c->in, spellings[k].list);
		tnl_json_each(e, list)
			values += (uint64_t)tnl_json_len(tnl_json_get(e, spellings[k].values));
	}
	return values * tnl_map_count(c->g->instances);
}

void gw_op_describe_instances(struct gw_call *c)
{
	if (!c->fresh && !gw_rate_listing(c, count_looks(c)))
		return;
	if (c->g->shared && !c->fresh) {
		refresh(c, NULL, gw_op_describe_instances);
		return;
	}
	struct gw_page page;
	if (!gw_page_read(c, 1, 50, &page) || !check_instance_filters(c))
		return;
	size_t n;
	struct gw_instance **v = list_instances(c, &n);
	if (!v) {
		gw_call_fail(c, 500, "InternalServerError", "out of memory");
		return;
	}
	struct tnl_buf b;
	struct tnl_jw w;
	const char *last = NULL;
	int64_t written = 0;
	bool more = false;
	tnl_buf_init(&b, ANSWER_MAX);
	tnl_jw_init(&w, &b);
	tnl_jw_obj(&w);
	tnl_jw_key(&w, "InstanceInformationList");
	tnl_jw_arr(&w);
	for (size_t i = 0; i < n && !more; i++) {
		if (page.after[0] && strcmp(v[i]->id, page.after) <= 0)
			continue;
		if (written == page.max) {
			more = true;
			continue;
		}
		write_instance(&w, v[i], c->g->l->wall_ms);
		last = v[i]->id;
		written++;
	}
	tnl_jw_end_arr(&w);
	if (more)
		gw_page_next(&w, last);
	tnl_jw_end_obj(&w);
	tnl_free(v);
	gw_call_ok(c, &b);
	tnl_buf_fini(&b);
}

/* --- GetConnectionStatus ---------------------------------------------------------- */
static void answer_connection(struct gw_call *c, const char *target, bool connected)
{
	struct tnl_buf b;
	struct tnl_jw w;
	tnl_buf_init(&b, 8192);
	tnl_jw_init(&w, &b);
	tnl_jw_obj(&w);
	tnl_jw_kv(&w, "Target", target);
	tnl_jw_kv(&w, "Status", connected ? "connected" : "notconnected");
	tnl_jw_end_obj(&w);
	gw_call_ok(c, &b);
	tnl_buf_fini(&b);
}

/* An instance that is unknown answers like one that is away. */
void gw_op_connection_status(struct gw_call *c)
{
	bool ok;
	const struct td_user_config *u = c->who->user;
	const char *target = gw_call_str(c, "Target", GW_ID_MAX, true, &ok);
	if (!ok)
		return;
	if (!gw_rights_target(u, target)) {
		gw_count(c->g, GW_C_AUTH_DENIED);
		gw_call_fail(c, 400, "AccessDeniedException",
			     "User: arn:aws:iam::000000000000:user/%s is not authorized to perform: "
			     "ssm:GetConnectionStatus on resource: %.100s",
			     u->name, target);
		return;
	}
	if (!c->fresh && !gw_rate_listing(c, 1))
		return;
	struct gw_instance *i = gw_instance_get(c->g, target);
	if (i && c->g->shared && !c->fresh)
		refresh(c, i, gw_op_connection_status);
	else
		answer_connection(c, target, i && gw_instance_is_up(i));
}
