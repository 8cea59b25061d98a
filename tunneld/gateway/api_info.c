/* DescribeSessions and DescribeInstanceInformation: filters, paging, and only
 * what the caller owns or may reach. GetConnectionStatus: of one instance. */
#include "tunneld/gateway/internal.h"
#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/num.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_MAX (4096u * 1024) /* a page of 200 sessions whose texts are escaped throughout */
/* As AWS bounds them; where it names none, its number of keys. */
#define SESSION_FILTERS 6
#define SESSION_FILTER_VALUE 400u
#define INSTANCE_FILTERS 10
#define INSTANCE_FILTER_VALUES 100

/* false: answered */
static bool check_count(struct gw_call *c, const char *what, const struct tnl_json *list, int lo, int hi)
{
	int n = tnl_json_len(list);
	if ((!list || tnl_json_is_null(list) || tnl_json_is_arr(list)) && n >= lo && n <= hi)
		return true;
	gw_call_fail(c, 400, "ValidationException",
		     "1 validation error detected: Value at '%s' failed to satisfy "
		     "constraint: Member must be a list with length between %d and %d",
		     what, lo, hi);
	return false;
}

/* --- paging: a token says behind which key to go on -------------------------- */
struct page {
	int64_t max;
	char after[256];
};

static bool read_page(struct gw_call *c, int64_t lo, int64_t hi, struct page *p)
{
	bool ok;
	p->after[0] = 0;
	if (!gw_call_int(c, "MaxResults", lo, hi, hi, &p->max))
		return false;
	const char *t = gw_call_str(c, "NextToken", 512, false, &ok);
	if (!ok)
		return false;
	if (!t || !*t)
		return true;
	int n = tnl_unb64(t, strlen(t), (uint8_t *)p->after, sizeof(p->after) - 1);
	if (n <= 0 || memchr(p->after, 0, (size_t)n)) {
		gw_call_fail(c, 400, "InvalidNextToken", "The specified token is not valid.");
		return false;
	}
	p->after[n] = 0;
	return true;
}

static void write_next_token(struct tnl_jw *w, const char *key)
{
	char t[TNL_B64_LEN(256) + 1];
	tnl_b64((const uint8_t *)key, strlen(key), t);
	tnl_jw_kv(w, "NextToken", t);
}

static void write_date(struct tnl_jw *w, const char *key, uint64_t ms)
{
	char t[32];
	snprintf(t, sizeof(t), "%llu.%03u", (unsigned long long)(ms / 1000), (unsigned)(ms % 1000));
	tnl_jw_key(w, key);
	tnl_jw_raw(w, t);
}

static void write_optional(struct tnl_jw *w, const char *key, const char *v)
{
	if (v && *v)
		tnl_jw_kv(w, key, v);
}

/* --- DescribeSessions ------------------------------------------------------------ */
struct session_filter {
	bool history;
	const char *target, *owner, *status, *id;
	uint64_t after_ms, before_ms; /* 0: not set */
};

static bool read_filter_date(struct gw_call *c, const char *v, uint64_t *out)
{
	if (tnl_iso_date_parse(v, strlen(v), out) == 0)
		return true;
	gw_call_fail(c, 400, "InvalidFilterValue", "The date %.64s is not in ISO 8601 form", v);
	return false;
}

static bool read_session_filter(struct gw_call *c, const struct tnl_json *e, struct session_filter *f)
{
	const char *k = tnl_json_get_str(e, "key"), *v = tnl_json_get_str(e, "value");
	if (!k || !v || !*v || strlen(v) > SESSION_FILTER_VALUE) {
		gw_call_fail(c, 400, "ValidationException",
			     "Each filter requires a key, and a value of at most %u characters", SESSION_FILTER_VALUE);
		return false;
	}
	if (strcmp(k, "InvokedAfter") == 0)
		return read_filter_date(c, v, &f->after_ms);
	if (strcmp(k, "InvokedBefore") == 0)
		return read_filter_date(c, v, &f->before_ms);
	if (strcmp(k, "Target") == 0)
		f->target = v;
	else if (strcmp(k, "Owner") == 0)
		f->owner = v;
	else if (strcmp(k, "Status") == 0)
		f->status = v;
	else if (strcmp(k, "SessionId") == 0)
		f->id = v;
	else {
		gw_call_fail(c, 400, "InvalidFilterKey", "The filter key %.64s is not valid", k);
		return false;
	}
	return true;
}

static bool read_session_filters(struct gw_call *c, struct session_filter *f)
{
	bool ok;
	const char *state = gw_call_str(c, "State", 16, true, &ok);
	if (!ok)
		return false;
	if (strcmp(state, "Active") != 0 && strcmp(state, "History") != 0) {
		gw_call_fail(c, 400, "ValidationException",
			     "1 validation error detected: Value at 'state' failed to satisfy "
			     "constraint: Member must satisfy enum value set: [Active, History]");
		return false;
	}
	f->history = state[0] == 'H';
	const struct tnl_json *list = tnl_json_get(c->in, "Filters");
	if (!check_count(c, "filters", list, 0, SESSION_FILTERS))
		return false;
	tnl_json_each(e, list)
		if (!read_session_filter(c, e, f))
			return false;
	return true;
}

static void write_owner_arn(const struct gw_session *s, char out[256])
{
	snprintf(out, 256, "arn:aws:iam::000000000000:user/%s", s->owner);
}

static bool session_matches(const struct gw_session *s, const struct session_filter *f, const char *caller)
{
	char arn[256];
	write_owner_arn(s, arn);
	return strcmp(s->owner, caller) == 0 && (!f->target || strcmp(f->target, s->target) == 0) &&
	       (!f->owner || strcmp(f->owner, arn) == 0 || strcmp(f->owner, s->owner) == 0) &&
	       (!f->status || strcmp(f->status, gw_session_status(s)) == 0) && (!f->id || strcmp(f->id, s->id) == 0) &&
	       (!f->after_ms || s->started_ms > f->after_ms) && (!f->before_ms || s->started_ms < f->before_ms);
}

/* Newest first; the same form as in a page token. */
static void write_session_key(const struct gw_session *s, char out[256])
{
	snprintf(out, 256, "%020llu %s", (unsigned long long)s->started_ms, s->id);
}

static int compare_newest_first(const void *a, const void *b)
{
	const struct gw_session *x = *(struct gw_session *const *)a, *y = *(struct gw_session *const *)b;
	if (x->started_ms != y->started_ms)
		return x->started_ms < y->started_ms ? 1 : -1;
	return strcmp(y->id, x->id);
}

static void write_session(struct tnl_jw *w, const struct gw_session *s)
{
	char arn[256], minutes[32];
	write_owner_arn(s, arn);
	tnl_jw_obj(w);
	tnl_jw_kv(w, "SessionId", s->id);
	tnl_jw_kv(w, "Target", s->target);
	tnl_jw_kv(w, "Status", gw_session_status(s));
	write_date(w, "StartDate", s->started_ms);
	if (s->ended_ms)
		write_date(w, "EndDate", s->ended_ms);
	tnl_jw_kv(w, "DocumentName", s->document);
	tnl_jw_kv(w, "Owner", arn);
	write_optional(w, "Reason", s->reason);
	write_optional(w, "Details", s->output);
	if (s->expires_ms) {
		snprintf(minutes, sizeof(minutes), "%llu",
			 (unsigned long long)((s->expires_ms - s->started_ms) / 60000));
		tnl_jw_kv(w, "MaxSessionDuration", minutes);
	}
	tnl_jw_end_obj(w);
}

static struct gw_session **list_sessions(struct gw_call *c, const struct session_filter *f, size_t *n)
{
	struct td_gateway *g = c->g;
	struct tnl_list *l = f->history ? &g->history : &g->active;
	size_t cap = f->history ? g->nhistory : g->nactive;
	struct gw_session **v = tnl_calloc(cap + 1, sizeof(*v));
	*n = 0;
	if (!v)
		return NULL;
	tnl_list_foreach(it, l) {
		struct gw_session *s = tnl_container_of(it, struct gw_session, by_age);
		if (*n < cap && session_matches(s, f, c->who->user->name))
			v[(*n)++] = s;
	}
	qsort(v, *n, sizeof(*v), compare_newest_first);
	return v;
}

void gw_op_describe_sessions(struct gw_call *c)
{
	struct session_filter f = {0};
	struct page page;
	if (!read_session_filters(c, &f) || !read_page(c, 1, 200, &page))
		return;
	size_t n;
	struct gw_session **v = list_sessions(c, &f, &n);
	if (!v) {
		gw_call_fail(c, 500, "InternalServerError", "out of memory");
		return;
	}
	struct tnl_buf b;
	struct tnl_jw w;
	char key[256] = "";
	int64_t written = 0;
	bool more = false;
	tnl_buf_init(&b, ANSWER_MAX);
	tnl_jw_init(&w, &b);
	tnl_jw_obj(&w);
	tnl_jw_key(&w, "Sessions");
	tnl_jw_arr(&w);
	for (size_t i = 0; i < n && !more; i++) {
		char k[256];
		write_session_key(v[i], k);
		if (page.after[0] && strcmp(k, page.after) >= 0)
			continue;
		if (written == page.max) {
			more = true;
			continue;
		}
		write_session(&w, v[i]);
		memcpy(key, k, sizeof(key));
		written++;
	}
	tnl_jw_end_arr(&w);
	if (more)
		write_next_token(&w, key);
	tnl_jw_end_obj(&w);
	tnl_free(v);
	gw_call_ok(c, &b);
	tnl_buf_fini(&b);
}

/* --- DescribeInstanceInformation ---------------------------------------------------- */
static const char *ping_status(const struct gw_instance *i)
{
	return i->link ? "Online" : "ConnectionLost";
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
		if (!check_count(c, "filters", list, 0, INSTANCE_FILTERS))
			return false;
		tnl_json_each(e, list) {
			const char *key = tnl_json_get_str(e, spellings[k].key);
			if (!key || (!field_of(&none, key) && !is_tag_filter(key))) {
				gw_call_fail(c, 400, "InvalidFilterKey", "The filter key %.64s is not valid",
					     key ? key : "");
				return false;
			}
			const struct tnl_json *values = tnl_json_get(e, spellings[k].values);
			if (!check_count(c, spellings[k].values, values, 1, INSTANCE_FILTER_VALUES))
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
	write_date(w, "LastPingDateTime", i->link ? now_ms : i->ping_ms);
	write_optional(w, "AgentVersion", i->agent_version);
	tnl_jw_key(w, "IsLatestVersion");
	tnl_jw_bool(w, true);
	write_optional(w, "PlatformType", i->platform_type);
	write_optional(w, "PlatformName", i->platform_name);
	write_optional(w, "PlatformVersion", i->platform_version);
	tnl_jw_kv(w, "ResourceType", field_of(i, "ResourceType"));
	write_optional(w, "IPAddress", i->ip_address);
	write_optional(w, "ComputerName", i->computer_name);
	write_date(w, "RegistrationDate", i->registered_ms);
	if (i->cfg->tags.n)
		write_tags(w, &i->cfg->tags);
	tnl_jw_end_obj(w);
}

void gw_op_describe_instances(struct gw_call *c)
{
	struct page page;
	if (!read_page(c, 1, 50, &page) || !check_instance_filters(c))
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
		write_next_token(&w, last);
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
	const struct gw_instance *i = gw_instance_get(c->g, target);
	answer_connection(c, target, i && i->link);
}
