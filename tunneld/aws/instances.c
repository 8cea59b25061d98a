/* A search for instances: page after page, up to a bound.
 *
 *   DescribeInstanceInformation → … → the last page          tags and ids are the service's to filter, names are ours
 *   ListTasks → DescribeTasks → ListTasks → …                for ecs:CLUSTER/SERVICE */
#include "tunneld/aws/instances.h"
#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/num.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define ECS "AmazonEC2ContainerServiceV20141113."
enum {
	PAGES_MAX = 40,
	PAGE = 50,
	TASKS_PAGE = 100,
	ATTEMPTS = 4,
	BODY_MAX = 64 << 10,
	ARN_MAX = 400,
	FOUND_MAX = PAGES_MAX * TASKS_PAGE
};

struct td_instances_search {
	struct td_aws *aws;
	struct tnl_target target;
	bool all, online_only;
	struct td_instances found;
	struct td_aws_call *call;
	const char *name; /* of the call */
	char *token;	  /* of the next page */
	unsigned pages;
	bool failed; /* no memory */
	td_instances_fn *fn;
	void *ctx;
};

static void ask_page(struct td_instances_search *s);

/* --- what was found --------------------------------------------------------------------------------- */

void td_instances_fini(struct td_instances *list)
{
	for (size_t i = 0; i < list->n; i++) {
		char *const texts[] = {list->v[i].id,	    list->v[i].name,	list->v[i].computer, list->v[i].tags,
				       list->v[i].platform, list->v[i].version, list->v[i].status};
		for (size_t k = 0; k < TNL_COUNT(texts); k++)
			tnl_free(texts[k]);
	}
	tnl_free(list->v);
	*list = (struct td_instances){0};
}

static char *copy_of(const char *s)
{
	return tnl_strndup(s ? s : "", s ? strnlen(s, 1024) : 0);
}

/* A copy of the texts of i; false: no memory.  A service that gives more than it was asked for is not listened to. */
static bool add(struct td_instances *l, const struct td_instance *i)
{
	if (l->n == FOUND_MAX) {
		l->more = true;
		return true;
	}
	struct td_instance *v = tnl_realloc(l->v, (l->n + 1) * sizeof(*v));
	if (!v)
		return false;
	l->v = v;
	v += l->n++;
	*v = (struct td_instance){.id = copy_of(i->id),
				  .name = copy_of(i->name),
				  .computer = copy_of(i->computer),
				  .tags = copy_of(i->tags),
				  .platform = copy_of(i->platform),
				  .version = copy_of(i->version),
				  .status = copy_of(i->status),
				  .since_ms = i->since_ms,
				  .online = i->online};
	return v->id && v->name && v->computer && v->tags && v->platform && v->version && v->status;
}

/* A time as the services write it: seconds with a fraction, or ISO 8601.  0: none. */
static uint64_t date_of(const struct tnl_json *v)
{
	const char *text = tnl_json_str(v);
	uint64_t ms = 0;
	struct tnl_buf b;
	if (!v || tnl_json_is_null(v))
		return 0;
	if (text)
		return tnl_iso_date_parse(text, strlen(text), &ms) == 0 ? ms : 0;
	tnl_buf_init(&b, 64);
	const char *number = tnl_json_print(v, &b) == 0 ? tnl_buf_str(&b) : NULL;
	double seconds = number ? strtod(number, NULL) : 0;
	tnl_buf_fini(&b);
	return seconds > 0 && seconds < 1e11 ? (uint64_t)(seconds * 1000) : 0;
}

/* --- DescribeInstanceInformation -------------------------------------------------------------------- */

/* The whole name or its first label, case ignored. */
static bool is_called(const char *name, const char *wanted)
{
	size_t n = name ? strcspn(name, ".") : 0;
	return name && (tnl_ieq(name, wanted) || (n == strlen(wanted) && strncasecmp(name, wanted, n) == 0));
}

/* Only a gateway of one's own tells tags. */
static void read_tags(const struct tnl_json *list, char *out, size_t cap, const char **name)
{
	size_t n = 0;
	*out = '\0';
	tnl_json_each(e, list) {
		const char *k = tnl_json_get_str(e, "Key"), *v = tnl_json_get_str(e, "Value");
		if (!k || !v)
			continue;
		if (strcmp(k, "Name") == 0)
			*name = v;
		int k_n = snprintf(out + n, cap - n, "%s%s=%s", n ? "\n" : "", k, v);
		n = TNL_MIN(n + (size_t)(k_n > 0 ? k_n : 0), cap - 1);
	}
}

static void take_instance(struct td_instances_search *s, const struct tnl_json *e)
{
	char tags[1024], platform[200];
	const char *system = tnl_json_get_str(e, "PlatformName"), *version = tnl_json_get_str(e, "PlatformVersion");
	const char *status = tnl_json_get_str(e, "PingStatus");
	struct td_instance i = {.id = (char *)(uintptr_t)tnl_json_get_str(e, "InstanceId"),
				.tags = tags,
				.platform = platform};
	const char *computer = tnl_json_get_str(e, "ComputerName"), *name = tnl_json_get_str(e, "Name");
	if (!i.id || !*i.id)
		return;
	if (!s->all && s->target.kind == TNL_TARGET_NAME && !is_called(computer, s->target.name) &&
	    !is_called(name, s->target.name))
		return;
	i.online = status && strcmp(status, "Online") == 0;
	if (s->online_only && !i.online)
		return;
	read_tags(tnl_json_get(e, "Tags"), tags, sizeof(tags), &name);
	if (!system)
		system = tnl_json_get_str(e, "PlatformType");
	snprintf(platform, sizeof(platform), "%s%s%s", system ? system : "", version ? " " : "",
		 version ? version : "");
	i.computer = (char *)(uintptr_t)computer;
	i.name = (char *)(uintptr_t)(name ? name : computer);
	i.version = (char *)(uintptr_t)tnl_json_get_str(e, "AgentVersion");
	i.status = (char *)(uintptr_t)status;
	i.since_ms = date_of(tnl_json_get(e, "RegistrationDate"));
	if (!i.since_ms)
		i.since_ms = date_of(tnl_json_get(e, "LastPingDateTime"));
	s->failed = !add(&s->found, &i) || s->failed;
}

static void put_filter(struct tnl_jw *w, const char *prefix, const char *key, const char *value)
{
	char name[TNL_TARGET_KEY + 8];
	snprintf(name, sizeof(name), "%s%s", prefix, key);
	tnl_jw_obj(w);
	tnl_jw_kv(w, "Key", name);
	tnl_jw_key(w, "Values");
	tnl_jw_arr(w);
	tnl_jw_str(w, value);
	tnl_jw_end_arr(w);
	tnl_jw_end_obj(w);
}

static void put_instances_body(const struct td_instances_search *s, struct tnl_jw *w)
{
	tnl_jw_kvi(w, "MaxResults", PAGE);
	tnl_jw_key(w, "Filters");
	tnl_jw_arr(w);
	if (s->online_only)
		put_filter(w, "", "PingStatus", "Online");
	if (!s->all && s->target.kind == TNL_TARGET_ID)
		put_filter(w, "", "InstanceIds", s->target.text);
	for (unsigned i = 0; !s->all && i < s->target.ntags; i++)
		put_filter(w, "tag:", s->target.tag[i].key, s->target.tag[i].value);
	tnl_jw_end_arr(w);
	if (s->token)
		tnl_jw_kv(w, "NextToken", s->token);
}

/* --- calls ------------------------------------------------------------------------------------------ */

static void search_free(struct td_instances_search *s)
{
	td_instances_fini(&s->found);
	tnl_free(s->token);
	td_aws_free(s->aws);
	tnl_free(s);
}

void td_instances_cancel(struct td_instances_search *s)
{
	if (!s)
		return;
	td_aws_call_cancel(s->call);
	search_free(s);
}

static void answer(struct td_instances_search *s, const struct td_aws_reply *r)
{
	static const struct td_aws_reply fine = {.text = ""}, no_memory = {.err = TNL_ENOMEM, .text = "out of memory"};
	if (!r)
		r = s->failed ? &no_memory : &fine;
	if (r->err)
		td_instances_fini(&s->found);
	s->fn(s->ctx, s->name, r, &s->found);
	search_free(s);
}

static bool call_service(struct td_instances_search *s, const char *service, const char *name, const char *body_of,
			 struct tnl_buf *b, td_aws_fn *fn)
{
	s->name = name;
	s->call = b->failed ? NULL
			    : td_aws_json(s->aws, service, body_of, (const char *)tnl_buf_data(b), tnl_buf_len(b),
					  ATTEMPTS, fn, s);
	return s->call != NULL;
}

static void go_on(struct td_instances_search *s)
{
	if (s->token && ++s->pages < PAGES_MAX && !s->failed) {
		ask_page(s);
		return;
	}
	s->found.more |= s->token != NULL;
	answer(s, NULL);
}

static void take_token(struct td_instances_search *s, const struct tnl_json *v)
{
	const char *t = tnl_json_str(v);
	tnl_free(s->token);
	s->token = t && *t ? tnl_strdup(t) : NULL;
	s->failed = s->failed || (t && *t && !s->token);
}

/* Something else answers in the service's place, say, with a page of its own: that is not "none". */
static const struct tnl_json *list_of(struct td_instances_search *s, const struct td_aws_reply *r, const char *key)
{
	const struct tnl_json *list = tnl_json_get(r->json, key);
	if (tnl_json_is_arr(list))
		return list;
	answer(s, &(struct td_aws_reply){.err = TNL_EREFUSED, .text = "the answer is not one of this service"});
	return NULL;
}

static void on_instances(void *ctx, const struct td_aws_reply *r)
{
	struct td_instances_search *s = ctx;
	s->call = NULL;
	if (r->err) {
		answer(s, r);
		return;
	}
	const struct tnl_json *list = list_of(s, r, "InstanceInformationList");
	if (!list)
		return;
	tnl_json_each(e, list)
		take_instance(s, e);
	take_token(s, tnl_json_get(r->json, "NextToken"));
	go_on(s);
}

/* --- ECS -------------------------------------------------------------------------------------------- */

static const char *behind_slash(const char *arn)
{
	const char *slash = arn ? strrchr(arn, '/') : NULL;
	return slash ? slash + 1 : arn ? arn : "";
}

/* Does it take sessions?  The agent in it must run; where it is not told, the container. */
static bool takes_sessions(const struct tnl_json *c)
{
	const char *status = tnl_json_get_str(c, "lastStatus");
	tnl_json_each(e, tnl_json_get(c, "managedAgents")) {
		const char *name = tnl_json_get_str(e, "name"), *state = tnl_json_get_str(e, "lastStatus");
		if (name && strcmp(name, "ExecuteCommandAgent") == 0)
			return state && strcmp(state, "RUNNING") == 0;
	}
	return status && strcmp(status, "RUNNING") == 0;
}

static void take_container(struct td_instances_search *s, const struct tnl_json *task, const struct tnl_json *c)
{
	const char *name = tnl_json_get_str(c, "name"), *runtime = tnl_json_get_str(c, "runtimeId");
	const char *arn = tnl_json_get_str(task, "taskArn"), *cluster = tnl_json_get_str(task, "clusterArn");
	const char *status = tnl_json_get_str(c, "lastStatus");
	const struct tnl_json *started = tnl_json_get(task, "startedAt");
	char id[ARN_MAX];
	struct td_instance i = {.id = id, .name = (char *)(uintptr_t)name, .platform = (char *)(uintptr_t) "ECS"};
	if (!arn || !runtime || !*runtime || (s->target.container && (!name || strcmp(name, s->target.container) != 0)))
		return;
	i.online = takes_sessions(c);
	if (s->online_only && !i.online)
		return;
	if (snprintf(id, sizeof(id), "ecs:%s_%s_%s", cluster ? behind_slash(cluster) : s->target.cluster,
		     behind_slash(arn), runtime) >= (int)sizeof(id))
		return;
	i.computer = (char *)(uintptr_t)s->target.service;
	i.status = (char *)(uintptr_t)(i.online ? "Online" : status);
	i.since_ms = date_of(started ? started : tnl_json_get(task, "createdAt"));
	s->failed = !add(&s->found, &i) || s->failed;
}

static void on_tasks(void *ctx, const struct td_aws_reply *r)
{
	struct td_instances_search *s = ctx;
	s->call = NULL;
	if (r->err) {
		answer(s, r);
		return;
	}
	const struct tnl_json *list = list_of(s, r, "tasks");
	if (!list)
		return;
	tnl_json_each(task, list)
		tnl_json_each(c, tnl_json_get(task, "containers"))
			take_container(s, task, c);
	go_on(s);
}

static void on_task_list(void *ctx, const struct td_aws_reply *r)
{
	struct td_instances_search *s = ctx;
	struct tnl_buf b;
	struct tnl_jw w;
	s->call = NULL;
	if (r->err) {
		answer(s, r);
		return;
	}
	const struct tnl_json *arns = list_of(s, r, "taskArns");
	if (!arns)
		return;
	take_token(s, tnl_json_get(r->json, "nextToken"));
	if (!tnl_json_len(arns)) {
		go_on(s);
		return;
	}
	tnl_buf_init(&b, BODY_MAX);
	tnl_jw_init(&w, &b);
	tnl_jw_obj(&w);
	tnl_jw_kv(&w, "cluster", s->target.cluster);
	tnl_jw_key(&w, "tasks");
	tnl_jw_arr(&w);
	tnl_json_each(e, arns)
		tnl_jw_str(&w, tnl_json_str(e));
	tnl_jw_end_arr(&w);
	tnl_jw_end_obj(&w);
	if (!call_service(s, "ecs", "DescribeTasks", ECS "DescribeTasks", &b, on_tasks))
		answer(s, &(struct td_aws_reply){.err = TNL_ENOMEM, .text = "out of memory"});
	tnl_buf_fini(&b);
}

static void put_tasks_body(const struct td_instances_search *s, struct tnl_jw *w)
{
	tnl_jw_kv(w, "cluster", s->target.cluster);
	tnl_jw_kv(w, "serviceName", s->target.service);
	tnl_jw_kv(w, "desiredStatus", "RUNNING");
	tnl_jw_kvi(w, "maxResults", TASKS_PAGE);
	if (s->token)
		tnl_jw_kv(w, "nextToken", s->token);
}

/* --- the search ------------------------------------------------------------------------------------- */

static bool start_page(struct td_instances_search *s)
{
	bool ecs = !s->all && s->target.kind == TNL_TARGET_ECS, ok;
	struct tnl_buf b;
	struct tnl_jw w;
	tnl_buf_init(&b, BODY_MAX);
	tnl_jw_init(&w, &b);
	tnl_jw_obj(&w);
	if (ecs)
		put_tasks_body(s, &w);
	else
		put_instances_body(s, &w);
	tnl_jw_end_obj(&w);
	ok = ecs ? call_service(s, "ecs", "ListTasks", ECS "ListTasks", &b, on_task_list)
		 : call_service(s, "ssm", "DescribeInstanceInformation", "AmazonSSM.DescribeInstanceInformation", &b,
				on_instances);
	tnl_buf_fini(&b);
	return ok;
}

static void ask_page(struct td_instances_search *s)
{
	if (!start_page(s))
		answer(s, &(struct td_aws_reply){.err = TNL_ENOMEM, .text = "out of memory"});
}

struct td_instances_search *td_instances_search(struct td_aws *a, const struct tnl_target *t, bool online_only,
						td_instances_fn *fn, void *ctx)
{
	struct td_instances_search *s = tnl_calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	s->aws = td_aws_ref(a);
	s->all = !t;
	s->online_only = online_only;
	s->fn = fn;
	s->ctx = ctx;
	if ((t && tnl_target_parse(t->text, strlen(t->text), &s->target, NULL) != 0) || !start_page(s)) {
		search_free(s);
		return NULL;
	}
	return s;
}
