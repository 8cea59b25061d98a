/* The gateway's API: who may call what, and what each call answers. */
#include "tests/daemon/gateway/gw_util.h"

static int begin(void **state)
{
	test_begin(NULL);
	return 0;
}

/* --- signatures --------------------------------------------------------------- */
struct odd {
	const char *key, *secret, *region, *service, *host;
	int64_t skew;
	bool flip, tamper, unsigned_header;
};

/* StartSession signed by hand, with one thing wrong. */
static void odd_call(const struct odd *o, const char *body)
{
	char host[64], date[TNL_AMZDATE_STR], url[80];
	uint64_t now = (uint64_t)((int64_t)(T.l->wall_ms / 1000) + o->skew);
	struct tnl_buf auth;
	snprintf(host, sizeof(host), "127.0.0.1:%d", T.port);
	snprintf(url, sizeof(url), "%s/", T.base);
	tnl_amz_date(now, date);
#define HDR(n, v)                                                                                                      \
	{                                                                                                              \
		n, v, strlen(n), strlen(v)                                                                             \
	}
	const struct tnl_sigv4_header h[] = {HDR("Host", o->host ? o->host : host), HDR("X-Amz-Date", date),
					     HDR("X-Amz-Target", "AmazonSSM.DescribeSessions")};
	const struct tnl_sigv4_request q = {.method = "POST",
					    .path = "/",
					    .path_len = 1,
					    .query = "",
					    .headers = h,
					    .nheaders = o->unsigned_header ? 2 : 3,
					    .body = body,
					    .body_len = strlen(body),
					    .double_encode_path = true};
	const struct tnl_sigv4_keys k = {o->key ? o->key : "AKIDOPS", o->secret ? o->secret : "ops-secret", NULL};
	tnl_buf_init(&auth, 4096);
	assert_int_equal(tnl_sigv4_sign(&q, &k, o->region ? o->region : "eu-west-1", o->service ? o->service : "ssm",
					now, &auth),
			 0);
	char value[1024];
	snprintf(value, sizeof(value), "%s", tnl_buf_str(&auth));
	tnl_buf_fini(&auth);
	char *last = &value[strlen(value) - 1];
	if (o->flip)
		*last = *last == '0' ? '1' : '0';
	const char *const headers[][2] = {{"X-Amz-Date", date},
					  {"X-Amz-Target", "AmazonSSM.DescribeSessions"},
					  {"Authorization", value}};
	const struct td_http_client_opts opts = {.tls = T.tls};
	const char *sent = o->tamper ? "{\"State\":\"Active\" }" : body;
	reply_clear(&R);
	assert_non_null(td_http_client_request(T.l, "POST", url, headers, 3, sent, strlen(sent), &opts, on_reply, &R));
	wait_for(R.done);
	assert_int_equal(R.err, 0);
}

static void odd_refused(const struct odd *o, const char *type, const char *counter)
{
	char path[64];
	snprintf(path, sizeof(path), "counters/%s", counter);
	long before = status_of(path);
	odd_call(o, "{\"State\":\"Active\"}");
	assert_int_equal(R.status, 400);
	assert_string_equal(R.type, type);
	assert_int_equal(status_of(path), before + 1);
}

static void test_signatures(void **state)
{
	odd_call(&(struct odd){0}, "{\"State\":\"Active\"}");
	assert_int_equal(R.status, 200);
	odd_call(&(struct odd){.skew = -890}, "{\"State\":\"Active\"}");
	assert_int_equal(R.status, 200);
	odd_call(&(struct odd){.region = "us-east-1"}, "{\"State\":\"Active\"}"); /* no region configured: any */
	assert_int_equal(R.status, 200);
	odd_refused(&(struct odd){.flip = true}, "InvalidSignatureException", "auth_signature");
	odd_refused(&(struct odd){.tamper = true}, "InvalidSignatureException", "auth_signature");
	odd_refused(&(struct odd){.secret = "other"}, "InvalidSignatureException", "auth_signature");
	odd_refused(&(struct odd){.key = "AKIDNOBODY"}, "UnrecognizedClientException", "auth_unknown_key");
	odd_refused(&(struct odd){.skew = -930}, "InvalidSignatureException", "auth_clock");
	odd_refused(&(struct odd){.skew = 930}, "InvalidSignatureException", "auth_clock");
	assert_non_null(strstr(R.body, "not yet current"));
	odd_refused(&(struct odd){.service = "ssmmessages"}, "InvalidSignatureException", "auth_signature");
	odd_refused(&(struct odd){.host = "elsewhere"}, "InvalidSignatureException", "auth_signature");
	odd_refused(&(struct odd){.unsigned_header = true}, "InvalidSignatureException", "auth_signature");
}

static void plain_call(const char *target, const char *authorization)
{
	const char *const h[][2] = {{"X-Amz-Target", target},
				    {"X-Amz-Date", "20261122T091008Z"},
				    {"Authorization", authorization}};
	const struct td_http_client_opts o = {.tls = T.tls};
	char url[80];
	snprintf(url, sizeof(url), "%s/", T.base);
	reply_clear(&R);
	assert_non_null(td_http_client_request(T.l, "POST", url, h, authorization ? 3 : 1, "{}", 2, &o, on_reply, &R));
	wait_for(R.done);
	assert_int_equal(R.status, 400);
}

static void test_unsigned(void **state)
{
	plain_call("AmazonSSM.StartSession", NULL);
	assert_string_equal(R.type, "MissingAuthenticationTokenException");
	plain_call("AmazonSSM.StartSession", "AWS4-HMAC-SHA256 Credential=AKIDOPS, Signature=00");
	assert_string_equal(R.type, "IncompleteSignatureException");
	plain_call("AmazonEC2.RunInstances", NULL);
	assert_string_equal(R.type, "UnknownOperationException");
	assert_int_equal(status_of("counters/auth_missing"), 1);
	assert_int_equal(status_of("counters/auth_malformed"), 1);
}

static int begin_other_host(void **state)
{
	test_begin("signed_hosts = gw.example.com, 127.0.0.10\npublic_url = https://other.example.com:8443");
	return 0;
}

static int begin_own_host(void **state)
{
	test_begin("signed_hosts = gw.example.com, 127.0.0.1");
	return 0;
}

static int begin_public_host(void **state)
{
	test_begin("signed_hosts = gw.example.com\npublic_url = https://127.0.0.1:8443");
	return 0;
}

/* What was signed for another server, which saw it, is of no use here. */
static void test_other_host(void **state)
{
	odd_refused(&(struct odd){0}, "InvalidSignatureException", "auth_signature");
	assert_non_null(strstr(R.body, "for another host"));
}

static void test_own_host(void **state)
{
	odd_call(&(struct odd){0}, "{\"State\":\"Active\"}");
	assert_int_equal(R.status, 200);
}

static int begin_region(void **state)
{
	test_begin("region = eu-west-1");
	return 0;
}

static void test_region(void **state)
{
	odd_call(&(struct odd){0}, "{\"State\":\"Active\"}");
	assert_int_equal(R.status, 200);
	odd_refused(&(struct odd){.region = "us-east-1"}, "InvalidSignatureException", "auth_signature");
}

static int http_status(const char *method, const char *path)
{
	const struct td_http_client_opts o = {.tls = T.tls};
	char url[200];
	snprintf(url, sizeof(url), "%s%s", T.base, path);
	reply_clear(&R);
	assert_non_null(td_http_client_request(T.l, method, url, NULL, 0, "", 0, &o, on_reply, &R));
	wait_for(R.done);
	assert_int_equal(R.err, 0);
	return R.status;
}

static void test_routes(void **state)
{
	assert_int_equal(http_status("GET", "/"), 405);
	assert_int_equal(http_status("GET", "/admin"), 404);
	assert_int_equal(http_status("POST", "/v1/data-channel/"), 404);
	assert_int_equal(http_status("POST", "/v1/data-channel/a/b"), 404);
	assert_int_equal(http_status("POST", "/v1/data-channel/a%00b"), 404);
	assert_int_equal(http_status("GET", "/v1/data-channel/x"), 426);
	assert_int_equal(http_status("DELETE", "/v1/data-channel/x"), 405);
	assert_int_equal(status_of("counters/http_refused"), 7);
	assert_int_equal(http_status("HEAD", "/"), 405); /* who only looks whether somebody is there is no fault */
	assert_int_equal(status_of("counters/http_refused"), 7);
	assert_int_equal(http_status("HEAD", "/admin"), 404);
	assert_int_equal(status_of("counters/http_refused"), 8);
}

/* --- who may what ---------------------------------------------------------------- */
static void test_operations(void **state)
{
	refused_as(&OPS, "NoSuchThing", "{}", "UnknownOperationException");
	refused_as(&OPS, "DescribeSessions", "{\"State\":", "SerializationException");
	refused_as(&OPS, "DescribeSessions", "[]", "SerializationException");
	refused_as(&OPS, "DescribeSessions", "{}", "ValidationException");
	refused_as(&OPS, "DescribeSessions", "{\"State\":\"Some\"}", "ValidationException");
	refused_as(&OPS, "DescribeSessions", "{\"State\":1}", "SerializationException");
	refused_as(&OPS, "DescribeSessions", "{\"State\":\"Active\",\"MaxResults\":0}", "ValidationException");
	refused_as(&OPS, "DescribeSessions", "{\"State\":\"Active\",\"NextToken\":\"?\"}", "InvalidNextToken");
	refused_as(&OPS, "DescribeSessions",
		   "{\"State\":\"Active\",\"Filters\":[{\"key\":\"Colour\",\"value\":\"x\"}]}", "InvalidFilterKey");
	refused_as(&I1, "StartSession", "{\"Target\":\"i-1\"}", "AccessDeniedException");
	refused_as(&OPS, "UpdateInstanceInformation", "{\"InstanceId\":\"i-1\"}", "AccessDeniedException");
	refused_as(&I2, "UpdateInstanceInformation", "{\"InstanceId\":\"i-1\"}", "AccessDeniedException");
	assert_int_equal(ssm(&I1, "UpdateInstanceInformation", "{\"InstanceId\":\"i-1\",\"AgentVersion\":\"3.3.0.0\"}"),
			 200);
	assert_string_equal(R.body, "{}");
	assert_int_equal(ssm(&I1, "ListInstanceAssociations", "{\"InstanceId\":\"i-1\",\"MaxResults\":20}"), 200);
	assert_string_equal(R.body, "{\"Associations\":[]}");
	assert_int_equal(ssm(&I1, "PutInventory", "{\"InstanceId\":\"i-1\",\"Items\":[]}"), 200);
}

static void test_start_refusals(void **state)
{
	struct end control = {0};
	refused_as(&OPS, "StartSession", "{}", "ValidationException");
	refused_as(&OPS, "StartSession", "{\"Target\":\"i-1\"}", "TargetNotConnected");
	refused_as(&OPS, "StartSession", "{\"Target\":\"i-999\"}", "TargetNotConnected"); /* unknown: the same answer */
	refused_as(&OPS, "StartSession", "{\"Target\":\"mi-1\"}", "AccessDeniedException");
	refused_as(&DEV, "StartSession", "{\"Target\":\"i-1\"}", "AccessDeniedException");
	refused_as(&DEV, "StartSession", "{\"Target\":\"i-1999\"}",
		   "AccessDeniedException"); /* there or not: the same */
	open_control(&control, &I1, "i-1");
	refused_as(&DEV, "StartSession", "{\"Target\":\"i-1\"}", "AccessDeniedException");
	refused_as(&OPS, "StartSession", "{\"Target\":\"i-1\",\"DocumentName\":\"AWS-RunShellScript\"}",
		   "InvalidDocument");
	refused_as(
	    &OPS, "StartSession",
	    "{\"Target\":\"i-1\",\"DocumentName\":\"AWS-StartSSHSession\",\"Parameters\":{\"portNumber\":[\"x\"]}}",
	    "InvalidParameters");
	assert_int_equal(status_of("sessions_active"), 0);
	assert_int_equal(control.n, 0); /* nothing of this reached the agent */
	end_reset(&control);
	wait_for(!status_of("instances/0/connected"));
	refused_as(&OPS, "StartSession", "{\"Target\":\"i-1\"}", "TargetNotConnected");
}

static void test_start(void **state)
{
	struct end control = {0};
	struct ses s;
	open_control(&control, &I1, "i-1");
	session_start(&s, "i-1");
	assert_memory_equal(s.id, "ops-", 4);
	assert_int_equal(strlen(s.id), 4 + 17);
	assert_int_equal(strlen(s.token), 44);
	char want[300];
	snprintf(want, sizeof(want), "wss://127.0.0.1:%d/v1/data-channel/%s?role=publish_subscribe", T.port, s.id);
	assert_string_equal(tnl_json_get_str(R.json, "StreamUrl"), want);
	wait_for(control.n == 1);
	assert_int_equal(control.f[0].type, TNL_MT_INTERACTIVE_SHELL);
	struct tnl_json *j = tnl_json_parse(control.f[0].text, control.f[0].n);
	struct tnl_json *c = tnl_json_parse(tnl_json_get_str(j, "Content"), strlen(tnl_json_get_str(j, "Content")));
	assert_string_equal(tnl_json_get_str(j, "TaskId"), s.id);
	assert_string_equal(tnl_json_get_str(c, "DocumentName"), "AWS-StartPortForwardingSession");
	assert_string_equal(tnl_json_get_str(c, "SessionId"), s.id);
	assert_string_equal(tnl_json_get_str(c, "SessionOwner"), "arn:aws:iam::000000000000:user/ops");
	assert_string_equal(tnl_json_get_str(tnl_json_get(c, "Parameters"), "portNumber"), "5432");
	assert_string_equal(tnl_json_get_str(tnl_json_get(c, "DocumentContent"), "sessionType"), "Port");
	tnl_json_free(j);
	tnl_json_free(c);
	end_reset(&control);
}

/* Another's session and one that is not there: the same answer for each call. */
static void test_ownership(void **state)
{
	struct end control = {0};
	struct ses s;
	char body[200], nobody[200];
	open_control(&control, &I1, "i-1");
	session_start(&s, "i-1");
	snprintf(body, sizeof(body), "{\"SessionId\":\"%s\"}", s.id);
	snprintf(nobody, sizeof(nobody), "{\"SessionId\":\"%s0\"}", s.id);
	refused_as(&DEV, "ResumeSession", body, "DoesNotExistException");
	refused_as(&DEV, "TerminateSession", body, "DoesNotExistException");
	refused_as(&OPS, "ResumeSession", nobody, "DoesNotExistException");
	refused_as(&OPS, "TerminateSession", nobody, "DoesNotExistException");
	assert_int_equal(ssm(&DEV, "DescribeSessions", "{\"State\":\"Active\"}"), 200);
	assert_string_equal(R.body, "{\"Sessions\":[]}");
	session_resume(&s);
	assert_int_equal(ssm(&OPS, "TerminateSession", body), 200);
	assert_string_equal(tnl_json_get_str(R.json, "SessionId"), s.id);
	assert_int_equal(ssm(&OPS, "TerminateSession", body), 200); /* once more: the same */
	assert_int_equal(ssm(&OPS, "ResumeSession", body), 200);
	assert_null(tnl_json_get(R.json, "TokenValue")); /* over */
	char path[200], token[64];
	snprintf(path, sizeof(path), "/v1/data-channel/%s", s.id);
	assert_int_equal(post_channel(&I1, path, create_body, token), 400);
	assert_non_null(strstr(R.body, "Session is already terminated"));
	wait_for(control.n == 2); /* told on the control channel: it had no data channel */
	assert_int_equal(control.f[1].type, TNL_MT_CHANNEL_CLOSED);
	end_reset(&control);
}

static void test_describe_sessions(void **state)
{
	struct end control = {0};
	struct ses s[5];
	char body[300], next[200];
	open_control(&control, &I1, "i-1");
	for (int i = 0; i < 5; i++)
		session_start(&s[i], "i-1");
	int seen = 0;
	snprintf(body, sizeof(body), "{\"State\":\"Active\",\"MaxResults\":2}");
	for (int page = 0; page < 3; page++) {
		assert_int_equal(ssm(&OPS, "DescribeSessions", body), 200);
		const struct tnl_json *list = tnl_json_get(R.json, "Sessions");
		assert_int_equal(tnl_json_len(list), page < 2 ? 2 : 1);
		for (int i = 0; i < tnl_json_len(list); i++)
			for (int k = 0; k < 5; k++)
				if (strcmp(tnl_json_get_str(tnl_json_at(list, i), "SessionId"), s[k].id) == 0)
					seen |= 1 << k;
		const char *t = tnl_json_get_str(R.json, "NextToken");
		assert_int_equal(t != NULL, page < 2);
		snprintf(next, sizeof(next), "%s", t ? t : "");
		snprintf(body, sizeof(body), "{\"State\":\"Active\",\"MaxResults\":2,\"NextToken\":\"%s\"}", next);
	}
	assert_int_equal(seen, 31);
	snprintf(body, sizeof(body), "{\"SessionId\":\"%s\"}", s[2].id);
	ssm(&OPS, "TerminateSession", body);
	snprintf(body, sizeof(body), "{\"State\":\"History\",\"Filters\":[{\"key\":\"SessionId\",\"value\":\"%s\"}]}",
		 s[2].id);
	assert_int_equal(ssm(&OPS, "DescribeSessions", body), 200);
	const struct tnl_json *e = tnl_json_at(tnl_json_get(R.json, "Sessions"), 0);
	assert_string_equal(tnl_json_get_str(e, "Status"), "Terminated");
	assert_string_equal(tnl_json_get_str(e, "Owner"), "arn:aws:iam::000000000000:user/ops");
	assert_string_equal(tnl_json_get_str(e, "DocumentName"), "AWS-StartPortForwardingSession");
	assert_non_null(tnl_json_get(e, "EndDate"));
	assert_int_equal(ssm(&OPS, "DescribeSessions",
			     "{\"State\":\"Active\",\"Filters\":[{\"key\":\"Target\",\"value\":\"i-2\"}]}"),
			 200);
	assert_int_equal(tnl_json_len(tnl_json_get(R.json, "Sessions")), 0);
	end_reset(&control);
}

static void test_describe_instances(void **state)
{
	struct end control = {0};
	assert_int_equal(ssm(&OPS, "DescribeInstanceInformation", "{}"), 200);
	assert_string_equal(R.body, "{\"InstanceInformationList\":[]}");
	assert_int_equal(
	    ssm(&I1, "UpdateInstanceInformation",
		"{\"InstanceId\":\"i-1\",\"AgentVersion\":\"3.3.1.0\",\"PlatformType\":\"Linux\","
		"\"AgentStatus\":\"Active\",\"PlatformName\":\"Debian\",\"IPAddress\":\"10.0.0.1\",\"ComputerName\":\"box\"}"),
	    200);
	open_control(&control, &I2, "i-2");
	assert_int_equal(ssm(&OPS, "DescribeInstanceInformation", "{}"), 200);
	const struct tnl_json *l = tnl_json_get(R.json, "InstanceInformationList");
	assert_int_equal(tnl_json_len(l), 2);
	assert_string_equal(tnl_json_get_str(tnl_json_at(l, 0), "PingStatus"), "ConnectionLost");
	assert_string_equal(tnl_json_get_str(tnl_json_at(l, 0), "PlatformName"), "Debian");
	assert_string_equal(tnl_json_get_str(tnl_json_at(l, 1), "PingStatus"), "Online");
	assert_string_equal(tnl_json_get_str(tnl_json_at(l, 1), "AgentVersion"), "3.3.0.0");
	assert_int_equal(ssm(&DEV, "DescribeInstanceInformation", "{}"), 200); /* only what it may reach */
	assert_int_equal(tnl_json_len(tnl_json_get(R.json, "InstanceInformationList")), 1);
	assert_int_equal(ssm(&OPS, "DescribeInstanceInformation",
			     "{\"Filters\":[{\"Key\":\"PingStatus\",\"Values\":[\"Online\"]}]}"),
			 200);
	assert_int_equal(tnl_json_len(tnl_json_get(R.json, "InstanceInformationList")), 1);
	refused_as(&OPS, "DescribeInstanceInformation", "{\"Filters\":[{\"Key\":\"Colour\",\"Values\":[\"x\"]}]}",
		   "InvalidFilterKey");
	end_reset(&control);
}

static int count_with(const struct tnl_sigv4_keys *who, const char *filters)
{
	char body[300];
	snprintf(body, sizeof(body), "{\"Filters\":[%s]}", filters);
	assert_int_equal(ssm(who, "DescribeInstanceInformation", body), 200);
	return tnl_json_len(tnl_json_get(R.json, "InstanceInformationList"));
}

/* [instance i-2] has tags = Name = the db, env=prod */
static void test_tags(void **state)
{
	struct end one = {0}, two = {0};
	open_control(&one, &I1, "i-1");
	open_control(&two, &I2, "i-2");
	assert_int_equal(count_with(&OPS, "{\"Key\":\"tag:Name\",\"Values\":[\"x\",\"the db\"]}"), 1);
	const struct tnl_json *i = tnl_json_at(tnl_json_get(R.json, "InstanceInformationList"), 0);
	assert_string_equal(tnl_json_get_str(i, "InstanceId"), "i-2");
	assert_non_null(
	    strstr(R.body, "\"Tags\":[{\"Key\":\"Name\",\"Value\":\"the db\"},{\"Key\":\"env\",\"Value\":\"prod\"}]"));
	assert_non_null(tnl_json_get(i, "RegistrationDate"));
	assert_int_equal(count_with(&OPS, "{\"Key\":\"tag:Name\",\"Values\":[\"the db\"]},{\"Key\":\"tag:env\","
					  "\"Values\":[\"prod\"]},{\"Key\":\"PingStatus\",\"Values\":[\"Online\"]}"),
			 1);
	assert_int_equal(count_with(&OPS, "{\"Key\":\"tag:Name\",\"Values\":[\"the db\"]},{\"Key\":\"tag:env\","
					  "\"Values\":[\"test\"]}"),
			 0);
	assert_int_equal(count_with(&OPS, "{\"Key\":\"tag:Nam\",\"Values\":[\"the db\",\"e=the db\"]}"), 0);
	assert_int_equal(count_with(&OPS, "{\"Key\":\"tag-key\",\"Values\":[\"x\",\"env\"]}"), 1);
	refused_as(&OPS, "DescribeInstanceInformation", "{\"Filters\":[{\"Key\":\"tag:\",\"Values\":[\"x\"]}]}",
		   "InvalidFilterKey");
	refused_as(&OPS, "DescribeInstanceInformation", "{\"Filters\":[{\"Key\":\"tags\",\"Values\":[\"x\"]}]}",
		   "InvalidFilterKey");
	/* a tag gives no right: what this user may reach stays */
	assert_int_equal(count_with(&DEV, "{\"Key\":\"PingStatus\",\"Values\":[\"Online\"]}"), 1);
	assert_int_equal(count_with(&DEV, "{\"Key\":\"tag-key\",\"Values\":[\"env\"]}"), 1);
	assert_int_equal(count_with(&DEV, "{\"Key\":\"tag-key\",\"Values\":[\"secret\"]}"), 0);
	assert_int_equal(count_with(&OPS, "{\"Key\":\"tag-key\",\"Values\":[\"secret\"]}"), 1);
	end_reset(&one);
	end_reset(&two);
}

static void expect_connection(const char *target, const char *status)
{
	char body[80];
	snprintf(body, sizeof(body), "{\"Target\":\"%s\"}", target);
	assert_int_equal(ssm(&OPS, "GetConnectionStatus", body), 200);
	assert_string_equal(tnl_json_get_str(R.json, "Target"), target);
	assert_string_equal(tnl_json_get_str(R.json, "Status"), status);
}

static void test_connection_status(void **state)
{
	struct end control = {0};
	expect_connection("i-2", "notconnected");
	expect_connection("i-999", "notconnected");
	open_control(&control, &I2, "i-2");
	expect_connection("i-2", "connected");
	refused_as(&DEV, "GetConnectionStatus", "{\"Target\":\"i-1\"}", "AccessDeniedException");
	refused_as(&I2, "GetConnectionStatus", "{\"Target\":\"i-2\"}", "AccessDeniedException");
	refused_as(&OPS, "GetConnectionStatus", "{}", "ValidationException");
	end_reset(&control);
	wait_for(status_of("counters/links_opened") == status_of("counters/links_broken"));
	expect_connection("i-2", "notconnected");
}

/* --- lists that a caller sizes ------------------------------------------------------- */
/* n elements in a list that stands between head and tail; the steps that the call took. */
static uint64_t call_with_list(const char *op, const char *head, const char *element, int n, const char *tail,
			       const char *type)
{
	static char body[65536];
	size_t at = (size_t)snprintf(body, sizeof(body), "%s", head);
	for (int i = 0; i < n; i++)
		at += (size_t)snprintf(body + at, sizeof(body) - at, "%s%s", i ? "," : "", element);
	snprintf(body + at, sizeof(body) - at, "%s", tail);
	uint64_t before = tnl_steps_made;
	if (type)
		refused_as(&OPS, op, body, type);
	else
		assert_int_equal(ssm(&OPS, op, body), 200);
	return tnl_steps_made - before;
}

static void test_long_lists(void **state)
{
	struct end control = {0};
	const char *instances = "DescribeInstanceInformation", *sessions = "DescribeSessions";
	const char *values = "{\"Filters\":[{\"Key\":\"InstanceIds\",\"Values\":[", *refused = "ValidationException";
	open_control(&control, &I2, "i-2");
	call_with_list(instances, values, "\"i-1\"", 100, "]}]}", NULL);
	call_with_list(instances, values, "\"i-1\"", 101, "]}]}", refused);
	call_with_list(instances, values, "", 0, "]}]}", refused);
	call_with_list(instances, "{\"Filters\":[", "{\"Key\":\"PingStatus\",\"Values\":[\"Online\"]}", 10, "]}", NULL);
	call_with_list(instances, "{\"Filters\":[", "{\"Key\":\"PingStatus\",\"Values\":[\"Online\"]}", 11, "]}",
		       refused);
	call_with_list(instances, "{\"InstanceInformationFilterList\":[{\"key\":\"InstanceIds\",\"valueSet\":[",
		       "\"i\"", 101, "]}]}", refused);
	call_with_list(sessions, "{\"State\":\"Active\",\"Filters\":[", "{\"key\":\"Target\",\"value\":\"i-1\"}", 6,
		       "]}", NULL);
	call_with_list(sessions, "{\"State\":\"Active\",\"Filters\":[", "{\"key\":\"Target\",\"value\":\"i-1\"}", 7,
		       "]}", refused);
	/* as many as a body holds: a step or two for each, for the refusal */
	assert_in_range(call_with_list(instances, values, "\"i-1\"", 10000, "]}]}", refused), 10000, 30000);
	assert_in_range(call_with_list("StartSession", "{\"Target\":\"i-2\",\"Parameters\":{\"portNumber\":[",
				       "\"8080\"", 9000, "]}}", "InvalidParameters"),
			1, 8000); /* most of it for the heads of HTTP */
	end_reset(&control);
}

/* --- the long poll: answered late, and dropped with its caller ---------------------- */
static void test_long_poll(void **state)
{
	struct reply a = {0};
	const char *body = "{\"Destination\":\"i-1\",\"MessagesRequestId\":\"r-1\",\"VisibilityTimeoutInSeconds\":10}";
	call_begin(&a, &I1, "ec2messages", "EC2WindowsMessageDeliveryService.GetMessages", body);
	const char *const h[][2] = {{"X-Amz-Target", "EC2WindowsMessageDeliveryService.GetMessages"}};
	const struct td_http_client_opts o = {.tls = T.tls};
	struct reply b = {0};
	char url[80];
	snprintf(url, sizeof(url), "%s/", T.base);
	struct td_http_client *gone = td_http_client_signed(T.l, "POST", url, h, 1, body, strlen(body), &I1,
							    "eu-west-1", "ec2messages", &o, on_reply, &b);
	wait_for(status_of("connections") == 2 && status_of("counters/api_calls") == 2);
	td_http_client_cancel(gone);
	wait_for(status_of("connections") == 1);
	assert_false(a.done);
	turns_for(300 * TD_MS);
	assert_false(a.done); /* the rest of its 20 s is not waited for here */
	reply_clear(&a);
	assert_int_equal(call(&I2, "ec2messages", "EC2WindowsMessageDeliveryService.GetMessages", body), 400);
	assert_string_equal(R.type, "AccessDeniedException");
	gateway_stop(); /* with a poll in hand */
	turns_for(50 * TD_MS);
	reply_clear(&a);
}

/* --- reload ------------------------------------------------------------------------------ */
static void test_reload(void **state)
{
	char why[300];
	struct ses s;
	struct end c1 = {0}, c2 = {0};
	open_control(&c1, &I1, "i-1");
	open_control(&c2, &I2, "i-2");
	session_up(&s);
	struct td_config *same = config(NULL);
	assert_int_equal(td_gateway_reload(T.g, same, why, sizeof(why)), 0);
	td_config_free(T.cfg);
	T.cfg = same;
	assert_int_equal(send_msg(&s.client, TNL_MT_INPUT, TNL_PT_OUTPUT, 0, "x", 1), 0);
	wait_for(s.agent.n == 1); /* nothing was touched */
	struct td_config *less =
	    config("[user ops]\naccess_key_id = AKIDOPS\nsecret_access_key = ops-secret\ntargets = i-1\n"
		   "[instance i-1]\naccess_key_id = AKIDI1\nsecret_access_key = new-secret\n");
	assert_int_equal(td_gateway_reload(T.g, less, why, sizeof(why)), 0);
	td_config_free(T.cfg);
	T.cfg = less;
	wait_for(c2.closed);		       /* that instance is no longer known */
	wait_for(c1.closed && s.agent.closed); /* and this one's key is another */
	assert_int_equal(c1.code, 1008);
	assert_false(s.client.closed);
	refused_as(&DEV, "DescribeSessions", "{\"State\":\"Active\"}", "UnrecognizedClientException");
	refused_as(&I1, "ListInstanceAssociations", "{}", "InvalidSignatureException");
	assert_int_equal(status_of("sessions_active"), 1);
	struct td_config *none =
	    config("[user dev]\naccess_key_id = AKIDDEV\nsecret_access_key = dev-secret\ntargets = i-1\n"
		   "[instance i-1]\naccess_key_id = AKIDI1\nsecret_access_key = i1-secret\n");
	assert_int_equal(td_gateway_reload(T.g, none, why, sizeof(why)), 0);
	td_config_free(T.cfg);
	T.cfg = none;
	wait_for(s.client.closed);
	assert_int_equal(s.client.n, 2);			     /* pause_publication was the first */
	assert_int_equal(s.client.f[1].type, TNL_MT_CHANNEL_CLOSED); /* its owner is gone */
	T.port++;
	struct td_config *moved = config(NULL);
	assert_int_equal(td_gateway_reload(T.g, moved, why, sizeof(why)), -1);
	td_config_free(moved);
	session_done(&s);
	end_reset(&c1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_signatures, begin, test_end),
	    cmocka_unit_test_setup_teardown(test_unsigned, begin, test_end),
	    cmocka_unit_test_setup_teardown(test_region, begin_region, test_end),
	    cmocka_unit_test_setup_teardown(test_routes, begin, test_end),
	    cmocka_unit_test_setup_teardown(test_operations, begin, test_end),
	    cmocka_unit_test_setup_teardown(test_start_refusals, begin, test_end),
	    cmocka_unit_test_setup_teardown(test_start, begin, test_end),
	    cmocka_unit_test_setup_teardown(test_ownership, begin, test_end),
	    cmocka_unit_test_setup_teardown(test_describe_sessions, begin, test_end),
	    cmocka_unit_test_setup_teardown(test_describe_instances, begin, test_end),
	    cmocka_unit_test_setup_teardown(test_tags, begin, test_end),
	    cmocka_unit_test_setup_teardown(test_connection_status, begin, test_end),
	    cmocka_unit_test_setup_teardown(test_long_lists, begin, test_end),
	    cmocka_unit_test_setup_teardown(test_other_host, begin_other_host, test_end),
	    cmocka_unit_test_setup_teardown(test_own_host, begin_own_host, test_end),
	    cmocka_unit_test_setup_teardown(test_own_host, begin_public_host, test_end),
	    cmocka_unit_test_setup_teardown(test_long_poll, begin, test_end),
	    cmocka_unit_test_setup_teardown(test_reload, begin, test_end),
	};
	return cmocka_run_group_tests_name("gateway", tests, NULL, NULL);
}
