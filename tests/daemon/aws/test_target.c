/* Targets that say how to find an instance: searches page by page, what is kept of them, and which match is taken. */
#include "tests/daemon/aws/aws_test.h"
#include "lib/num.h"
#include "tunneld/aws/instances.h"
#include "tunneld/aws/target.h"

enum { ASKS = 4 };
static struct answer {
	int done, err;
	char id[200], type[96], text[700];
} A[ASKS];

static void on_answer(void *ctx, const struct td_target_answer *r)
{
	struct answer *a = ctx;
	a->done++;
	a->err = r->err;
	snprintf(a->id, sizeof(a->id), "%s", r->id);
	snprintf(a->type, sizeof(a->type), "%s", r->type);
	snprintf(a->text, sizeof(a->text), "%s", r->text);
}

static struct td_target_request *ask_target(struct td_aws *a, int i, const char *target, enum td_target_select select,
					    bool fresh, const char *tried)
{
	const struct td_target_query q = {target, select, fresh, tried};
	memset(&A[i], 0, sizeof(A[i]));
	struct td_target_request *r = td_target_ask(a, &q, on_answer, &A[i]);
	assert_non_null(r);
	assert_int_equal(A[i].done, 0);
	return r;
}

static const struct answer *found(struct td_aws *a, const char *target, enum td_target_select select)
{
	ask_target(a, 0, target, select, false, NULL);
	assert_true(t_until(&A[0].done, 20000));
	t_turns(3);
	assert_int_equal(A[0].done, 1);
	return &A[0];
}

/* What the service answers, one answer a call; the last one stays. */
static const char *answers[60];
static int nanswers, refusal;

static void api(struct td_request *r, const char *method, const char *target, const char *body)
{
	const char *text = answers[TNL_MIN(F.calls, nanswers) - 1];
	td_request_reply(r, refusal ? refusal : 200, "application/json", NULL, 0, text, strlen(text));
}

static void serve(int n, const char *const *texts)
{
	F.handle = api;
	F.calls = 0;
	refusal = 0;
	memcpy(answers, texts, (size_t)n * sizeof(*texts));
	nanswers = n;
}
#define SERVE(...)                                                                                                     \
	serve((int)(sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)), (const char *const[]){__VA_ARGS__})
#define INSTANCE(id, status, more) "{\"InstanceId\":\"" id "\",\"PingStatus\":\"" status "\"" more "}"
#define LIST(...) "{\"InstanceInformationList\":[" __VA_ARGS__ "]}"
#define PAGE_OF(token, ...) "{\"InstanceInformationList\":[" __VA_ARGS__ "],\"NextToken\":\"" token "\"}"

static struct td_aws *fake_aws(void)
{
	return aws_new(CONF(KEYS, .ssm_endpoint = F.url, .ecs_endpoint = F.url));
}

static void test_filters_and_pages(void **state)
{
	struct td_aws *a = fake_aws();
	SERVE(PAGE_OF("p2"), PAGE_OF("p3", INSTANCE("i-off", "ConnectionLost", "")),
	      LIST(INSTANCE("i-1", "Online", "")));
	const struct answer *r = found(a, "tag:Name=my box,env=prod", TD_SELECT_ONLY);
	assert_int_equal(r->err, 0);
	assert_string_equal(r->id, "i-1");
	assert_int_equal(F.calls, 3);
	assert_non_null(
	    strstr(F.last[0], "{\"Key\":\"PingStatus\",\"Values\":[\"Online\"]},{\"Key\":\"tag:Name\",\"Values\":[\"my "
			      "box\"]},{\"Key\":\"tag:env\",\"Values\":[\"prod\"]}"));
	assert_null(strstr(F.last[0], "NextToken"));
	assert_non_null(strstr(F.last[1], "\"NextToken\":\"p2\""));
	assert_non_null(strstr(F.last[2], "\"NextToken\":\"p3\""));
	td_aws_free(a);
}

static void test_names(void **state)
{
	struct td_aws *a = fake_aws();
	SERVE(LIST(INSTANCE("i-1", "Online", ",\"ComputerName\":\"WEB-1.internal\"") "," INSTANCE(
	    "i-2", "Online", ",\"ComputerName\":\"web-10\"") "," INSTANCE("i-3", "ConnectionLost",
									  ",\"ComputerName\":\"web-1\"")));
	assert_string_equal(found(a, "name:web-1", TD_SELECT_ONLY)->id, "i-1");
	assert_string_equal(found(a, "name:web-1.internal", TD_SELECT_ONLY)->id, "i-1");
	assert_string_equal(found(a, "name:web-2", TD_SELECT_ONLY)->type, "TargetNotConnected");
	td_aws_free(a);
}

static void test_select(void **state)
{
	struct td_aws *a = fake_aws();
	SERVE(LIST(INSTANCE("i-1", "Online", ",\"ComputerName\":\"a\",\"RegistrationDate\":1700000001.5") "," INSTANCE(
	    "i-2", "Online",
	    ",\"RegistrationDate\":1700000002.25") "," INSTANCE("i-3", "Online",
								",\"LastPingDateTime\":\"2020-01-01T00:00:00Z\"")));
	const struct answer *r = found(a, "tag:a=1", TD_SELECT_ONLY);
	assert_int_equal(r->err, TNL_ECONF);
	assert_string_equal(r->text, "tag:a=1 matches 3 instances, and select = only: i-1 (a), i-2, i-3");
	assert_string_equal(found(a, "tag:a=1", TD_SELECT_NEWEST)->id, "i-2");
	bool seen[4] = {false};
	for (int i = 0; i < 200; i++)
		seen[found(a, "tag:a=1", TD_SELECT_ANY)->id[2] - '0'] = true;
	assert_true(seen[1] && seen[2] && seen[3]);
	assert_int_equal(F.calls, 1); /* what was found is kept */
	ask_target(a, 0, "tag:a=1", TD_SELECT_NEWEST, false, "i-2 i-11 ");
	assert_true(t_until(&A[0].done, 20000));
	assert_string_equal(A[0].id, "i-1");
	ask_target(a, 0, "tag:a=1", TD_SELECT_ANY, false, "i-2 i-1 i-3 ");
	assert_true(t_until(&A[0].done, 20000));
	assert_string_equal(A[0].type, "TargetNotConnected");
	td_aws_free(a);
}

static void test_kept(void **state)
{
	struct td_aws *a = fake_aws();
	SERVE(LIST(), LIST(INSTANCE("i-1", "Online", "")), LIST(INSTANCE("i-2", "Online", "")));
	assert_string_equal(found(a, "tag:a=1", TD_SELECT_ONLY)->type, "TargetNotConnected");
	assert_string_equal(found(a, "tag:a=1", TD_SELECT_ONLY)->id, "i-1"); /* that nothing was found is not kept */
	assert_string_equal(found(a, "tag:a=1", TD_SELECT_ONLY)->id, "i-1");
	assert_int_equal(F.calls, 2);
	T->now += 31 * TD_SEC;
	const struct td_target_query q = {"tag:a=1", TD_SELECT_ONLY, false, NULL};
	memset(A, 0, sizeof(A));
	assert_non_null(td_target_ask(a, &q, on_answer, &A[0])); /* 30 s later */
	assert_true(t_until(&A[0].done, 20000));
	assert_string_equal(A[0].id, "i-2");
	SERVE(LIST(INSTANCE("i-3", "Online", "")));
	ask_target(a, 1, "tag:a=1", TD_SELECT_ONLY, true, NULL); /* what was found is not connected */
	assert_true(t_until(&A[1].done, 20000));
	assert_string_equal(A[1].id, "i-3");
	assert_int_equal(F.calls, 1);
	td_aws_free(a);
}

static void test_one_search_for_all(void **state)
{
	struct td_aws *a = fake_aws();
	SERVE(LIST(INSTANCE("i-1", "Online", "") "," INSTANCE("i-2", "Online", "")));
	ask_target(a, 0, "tag:a=1", TD_SELECT_NEWEST, false, NULL);
	ask_target(a, 1, "tag:a=1", TD_SELECT_ONLY, true, NULL);
	struct td_target_request *gone = ask_target(a, 2, "tag:a=1", TD_SELECT_ANY, false, NULL);
	td_target_cancel(gone);
	assert_true(t_until(&A[1].done, 20000));
	t_turns(3);
	assert_int_equal(A[0].done, 1);
	assert_string_equal(A[0].id, "i-1");
	assert_int_equal(A[1].err, TNL_ECONF);
	assert_int_equal(A[2].done, 0);
	assert_int_equal(F.calls, 1);
	/* With the last that waits the search goes. */
	td_target_cancel(ask_target(a, 3, "tag:b=1", TD_SELECT_ANY, false, NULL));
	t_turns(5);
	assert_int_equal(A[3].done, 0);
	/* More targets than are kept. */
	for (int i = 0; i < 200; i++) {
		char target[32];
		snprintf(target, sizeof(target), "tag:n=%d", i);
		assert_int_equal(found(a, target, TD_SELECT_ANY)->err, 0);
	}
	td_aws_free(a);
}

static void test_bounds_and_faults(void **state)
{
	struct td_aws *a = fake_aws();
	SERVE(PAGE_OF("again", INSTANCE("i-1", "Online", ""))); /* pages without an end */
	const struct answer *r = found(a, "tag:a=1", TD_SELECT_ONLY);
	assert_int_equal(r->err, TNL_ECONF);
	assert_non_null(strstr(r->text, "matches at least 40 instances"));
	assert_int_equal(F.calls, 40);
	SERVE("{\"__type\":\"AccessDeniedException\",\"message\":\"not ssm:DescribeInstanceInformation\"}");
	refusal = 400;
	r = found(a, "tag:b=1", TD_SELECT_ONLY);
	assert_int_equal(r->err, TNL_EREFUSED);
	assert_string_equal(r->type, "AccessDeniedException");
	static const char *const odd[] = {"[]", "{}", "{\"InstanceInformationList\":{}}",
					  "{\"InstanceInformationList\":[1,null,{}]}"};
	for (size_t i = 0; i < TNL_COUNT(odd); i++) {
		serve(1, &odd[i]);
		assert_int_equal(found(a, "tag:b=1", TD_SELECT_ONLY)->err, TNL_EREFUSED);
	}
	td_aws_free(a);
}

#define ECS_TASK(id, container, agent)                                                                                 \
	"{\"taskArn\":\"arn:aws:ecs:eu-west-1:1:task/prod/" id                                                         \
	"\",\"clusterArn\":\"arn:aws:ecs:eu-west-1:1:cluster/prod\",\"startedAt\":17000000" id ".5,\"containers\":["   \
	"{\"name\":\"" container "\",\"runtimeId\":\"" id                                                              \
	"-7\",\"lastStatus\":\"RUNNING\",\"managedAgents\":[{\"name\":"                                                \
	"\"ExecuteCommandAgent\",\"lastStatus\":\"" agent "\"}]},{\"name\":\"log\",\"runtimeId\":\"" id                \
	"-8\",\"lastStatus\":\"STOPPED\"}]}"

static void test_ecs(void **state)
{
	struct td_aws *a = fake_aws();
	SERVE(
	    "{\"taskArns\":[\"arn:aws:ecs:eu-west-1:1:task/prod/11\",\"arn:aws:ecs:eu-west-1:1:task/prod/12\"],\"nextToken\":\"n\"}",
	    "{\"tasks\":[" ECS_TASK("11", "app", "RUNNING") "," ECS_TASK("12", "app", "STOPPED") "]}",
	    "{\"taskArns\":[\"arn:aws:ecs:eu-west-1:1:task/prod/13\"]}",
	    "{\"tasks\":[" ECS_TASK("13", "app", "RUNNING") "]}");
	const struct answer *r = found(a, "ecs:prod/api", TD_SELECT_ONLY);
	assert_int_equal(r->err, TNL_ECONF);
	assert_non_null(strstr(r->text, "ecs:prod_11_11-7 (app), ecs:prod_13_13-7 (app)"));
	assert_string_equal(found(a, "ecs:prod/api", TD_SELECT_NEWEST)->id, "ecs:prod_13_13-7");
	assert_int_equal(F.calls, 4);
	assert_non_null(
	    strstr(F.last[0], "\"cluster\":\"prod\",\"serviceName\":\"api\",\"desiredStatus\":\"RUNNING\""));
	assert_non_null(strstr(F.last[1], "\"cluster\":\"prod\",\"tasks\":[\"arn:aws:ecs:eu-west-1:1:task/prod/11\""));
	assert_non_null(strstr(F.last[2], "\"nextToken\":\"n\""));
	SERVE("{\"taskArns\":[\"arn:aws:ecs:eu-west-1:1:task/prod/11\"]}",
	      "{\"tasks\":[" ECS_TASK("11", "app", "RUNNING") "]}");
	assert_string_equal(found(a, "ecs:prod/api/log", TD_SELECT_ONLY)->type, "TargetNotConnected");
	SERVE("{\"taskArns\":[]}");
	assert_string_equal(found(a, "ecs:prod/none", TD_SELECT_ANY)->type, "TargetNotConnected");
	assert_int_equal(F.calls, 1);
	td_aws_free(a);
}

/* --- the list as it is shown ---------------------------------------------------------- */

static struct {
	int done, err;
	struct td_instances list;
} L;

static void on_list(void *ctx, const char *call, const struct td_aws_reply *r, struct td_instances *list)
{
	L.done++;
	L.err = r->err;
	L.list = *list;
	*list = (struct td_instances){0};
}

static void test_list(void **state)
{
	struct td_aws *a = fake_aws();
	SERVE(LIST(INSTANCE(
	    "i-1", "ConnectionLost",
	    ",\"PlatformName\":\"Debian\",\"PlatformVersion\":\"12\",\"AgentVersion\":\"3.3\",\"ComputerName\":\"box\","
	    "\"Tags\":[{\"Key\":\"env\",\"Value\":\"prod\"},{\"Key\":\"Name\",\"Value\":\"db\"},{\"Key\":1}]") "," INSTANCE("i-2",
															    "Online",
															    ",\"PlatformType\":\"Linux\"")));
	memset(&L, 0, sizeof(L));
	assert_non_null(td_instances_search(a, NULL, false, on_list, NULL));
	assert_true(t_until(&L.done, 20000));
	assert_int_equal(L.list.n, 2);
	assert_string_equal(L.list.v[0].name, "db");
	assert_string_equal(L.list.v[0].computer, "box");
	assert_string_equal(L.list.v[0].tags, "env=prod\nName=db");
	assert_string_equal(L.list.v[0].platform, "Debian 12");
	assert_string_equal(L.list.v[0].status, "ConnectionLost");
	assert_string_equal(L.list.v[1].platform, "Linux");
	assert_non_null(strstr(F.last[0], "\"Filters\":[]"));
	td_instances_fini(&L.list);
	td_aws_free(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T_CASE(test_filters_and_pages),
	    T_CASE(test_names),
	    T_CASE(test_select),
	    T_CASE(test_kept),
	    T_CASE(test_one_search_for_all),
	    T_CASE(test_bounds_and_faults),
	    T_CASE(test_ecs),
	    T_CASE(test_list),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
