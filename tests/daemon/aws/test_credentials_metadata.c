/* Keys from a container's endpoint and from the metadata of an instance. */
#include "tests/daemon/aws/credentials_test.h"

static void container(struct td_request *r, const char *method, const char *target, const char *body)
{
	const char *auth = F.auth[F.calls - 1 < 7 ? F.calls - 1 : 7];

	if (strcmp(target, "/creds?id=1") != 0 || strcmp(auth, "Bearer abc") != 0)
		reply_json(r, 400, "{}");
	else
		reply_json(r, 200, "{" CREDS("TASK") ",\"Token\":\"tt\",\"Expiration\":\"%s\",\"RoleArn\":\"x\"}",
			   iso(3600));
}

static void test_container(void **state)
{
	char url[128], path[100];

	F.handle = container;
	snprintf(url, sizeof(url), "%s/creds?id=1", F.url);
	setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url, 1);
	setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "Bearer abc", 1);
	setenv("HTTP_PROXY", "http://127.0.0.1:1", 1); /* never for this */
	expect_keys(NULL, "TASK", "TASK-secret", "tt");
	write_file("token", "Bearer abc\n");
	snprintf(path, sizeof(path), "%s/token", HOME);
	setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "other", 1);
	expect_none(NULL, TD_CREDENTIALS_ERROR, "the container's credentials endpoint answered 400");
	setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", path, 1);
	expect_keys(NULL, "TASK", "TASK-secret", "tt");
	setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://10.0.0.1/creds", 1);
	expect_none(NULL, TD_CREDENTIALS_ERROR, "AWS_CONTAINER_CREDENTIALS_FULL_URI is not usable");
	setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.evil.example/creds", 1);
	expect_none(NULL, TD_CREDENTIALS_ERROR, "is not usable");
	setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1@evil.example/creds", 1);
	expect_none(NULL, TD_CREDENTIALS_ERROR, "is not usable");
}

static void instance(struct td_request *r, const char *method, const char *target, const char *body)
{
	if (strcmp(method, "PUT") == 0 && strcmp(target, "/latest/api/token") == 0) {
		assert_non_null(tnl_http_get(td_request_head(r), "x-aws-ec2-metadata-token-ttl-seconds", NULL));
		td_request_reply(r, 200, "text/plain", NULL, 0, "imds-token", 10);
	} else if (strcmp(F.imds_token, "imds-token") != 0) {
		td_request_reply(r, 401, "text/plain", NULL, 0, "", 0);
	} else if (strcmp(target, "/latest/meta-data/iam/security-credentials/") == 0) {
		td_request_reply(r, 200, "text/plain", NULL, 0, "TheRole\n", 8);
	} else if (strcmp(target, "/latest/meta-data/iam/security-credentials/TheRole") == 0) {
		reply_json(r, 200, "{\"Code\":\"Success\"," CREDS("INST") ",\"Token\":\"it\",\"Expiration\":\"%s\"}",
			   iso(3600));
	} else {
		td_request_reply(r, 404, "text/plain", NULL, 0, "", 0);
	}
}

static void no_role(struct td_request *r, const char *method, const char *target, const char *body)
{
	td_request_reply(r, strcmp(method, "PUT") == 0 ? 200 : 404, "text/plain", NULL, 0, "tok", 3);
}

static void test_instance(void **state)
{
	F.handle = instance;
	setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", F.url, 1);
	expect_none(NULL, TD_CREDENTIALS_NONE, "no credentials"); /* disabled */
	assert_int_equal(F.calls, 0);
	unsetenv("AWS_EC2_METADATA_DISABLED");
	expect_keys(NULL, "INST", "INST-secret", "it");
	F.handle = no_role;
	expect_none(NULL, TD_CREDENTIALS_NONE, "this instance has no role");
	setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1/", 1);
	expect_none(NULL, TD_CREDENTIALS_NONE, "or a profile (aws configure); instance metadata: not there");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T_CASE(test_container),
	    T_CASE(test_instance),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
