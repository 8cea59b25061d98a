/* Keys from SSO: its cache, renewing the token, logging in. */
#include "tests/daemon/aws/credentials_test.h"

static int refreshes;
static bool refuse_refresh;

static void sso(struct td_request *r, const char *method, const char *target, const char *body)
{
	if (strcmp(target, "/token") == 0) {
		refreshes++;
		assert_non_null(strstr(body, "\"grantType\":\"refresh_token\""));
		assert_non_null(strstr(body, "\"refreshToken\":\"refresh-me\""));
		assert_non_null(strstr(body, "\"clientSecret\":\"client-secret\""));
		if (refuse_refresh)
			reply_json(r, 400, "{\"error\":\"invalid_grant\"}");
		else
			reply_json(
			    r, 200,
			    "{\"accessToken\":\"fresh\",\"expiresIn\":3600,\"refreshToken\":\"refresh-2\",\"tokenType\":\"Bearer\"}");
		return;
	}
	assert_string_equal(target, "/federation/credentials?role_name=Admin%20x&account_id=123456789012");
	if (strcmp(F.bearer, "good") == 0 || strcmp(F.bearer, "fresh") == 0)
		reply_json(
		    r, 200,
		    "{\"roleCredentials\":{\"accessKeyId\":\"SSO\",\"secretAccessKey\":\"sso-secret\",\"sessionToken\":\"st\","
		    "\"expiration\":%llu}}",
		    (unsigned long long)T->wall_ms + 3600000);
	else if (strcmp(F.bearer, "forbidden") == 0)
		reply_json(r, 403, "{\"message\":\"No access\"}");
	else
		reply_json(r, 401, "{\"message\":\"Session token not found or invalid\"}");
}

#define SSO_FILE ".aws/sso/cache/ee0bfd2552fbd840c02cc48b6e823320543c450f.json" /* SHA-1 of "corp" */

static void sso_files(void)
{
	write_file(".aws/config",
		   "[profile work]\nsso_session = corp\nsso_account_id = 123456789012\nsso_role_name = Admin x\n"
		   "[profile old]\nsso_start_url = https://corp.awsapps.com/start\nsso_region = eu-west-1\n"
		   "sso_account_id = 123456789012\nsso_role_name = Admin x\n"
		   "[sso-session corp]\nsso_start_url = https://corp.awsapps.com/start\nsso_region = eu-central-1\n");
	setenv("AWS_ENDPOINT_URL_SSO", F.url, 1);
	setenv("AWS_ENDPOINT_URL_SSO_OIDC", F.url, 1);
	setenv("AWS_PROFILE", "work", 1);
	F.handle = sso;
	refreshes = 0;
	refuse_refresh = false;
}

static void test_sso(void **state)
{
	sso_files();
	expect_none(NULL, TD_CREDENTIALS_NEEDS_LOGIN, "run: aws sso login --profile work");
	assert_int_equal(F.calls, 0);
	write_file(SSO_FILE, "{\"accessToken\":\"good\",\"expiresAt\":\"%s\"}", iso(3600));
	expect_keys(NULL, "SSO", "sso-secret", "st");
	write_file(SSO_FILE, "{\"accessToken\":\"good\",\"expiresAt\":\"%s\"}", iso(-10));
	expect_none(NULL, TD_CREDENTIALS_NEEDS_LOGIN, "has expired: run: aws sso login --profile work");
	write_file(SSO_FILE, "{\"accessToken\":\"revoked\",\"expiresAt\":\"%s\"}", iso(3600));
	expect_none(NULL, TD_CREDENTIALS_NEEDS_LOGIN, "was ended: run: aws sso login --profile work");
	write_file(SSO_FILE, "{\"accessToken\":\"forbidden\",\"expiresAt\":\"%s\"}", iso(3600));
	expect_none(NULL, TD_CREDENTIALS_ERROR,
		    "SSO refuses role Admin x in account 123456789012 (403 No access): check sso_role_name");
	write_file(SSO_FILE, "not json");
	expect_none(NULL, TD_CREDENTIALS_NEEDS_LOGIN, "has not begun");
	write_file(SSO_FILE, "{\"accessToken\":\"good\",\"expiresAt\":\"2099-11-25T01:04:26UTC\"}");
	expect_keys(NULL, "SSO", "sso-secret", "st");
	write_file(SSO_FILE, "{\"accessToken\":\"good\",\"expiresAt\":\"tomorrow\"}");
	expect_none(NULL, TD_CREDENTIALS_ERROR, "SSO: expiresAt is no time");
	/* the older form: the file is named after the start URL */
	setenv("AWS_PROFILE", "old", 1);
	write_file(".aws/sso/cache/a51746d4aa793ae07b25e90c3a5db96fc7832bd7.json",
		   "{\"accessToken\":\"good\",\"expiresAt\":\"%s\"}", iso(900));
	expect_keys(NULL, "SSO", "sso-secret", "st");
}

static void test_sso_refresh(void **state)
{
	char path[200], text[2000] = "";
	struct stat st;
	FILE *f;

	sso_files();
	write_file(
	    SSO_FILE,
	    "{\"startUrl\":\"https://corp.awsapps.com/start\",\"region\":\"eu-central-1\",\"accessToken\":\"stale\",\"expiresAt\":\"%s\","
	    "\"clientId\":\"client\",\"clientSecret\":\"client-secret\",\"registrationExpiresAt\":\"%s\",\"refreshToken\":\"refresh-me\"}",
	    iso(-10), iso(86400));
	expect_keys(NULL, "SSO", "sso-secret", "st");
	assert_int_equal(refreshes, 1);
	/* kept for the aws command, as private as it was */
	snprintf(path, sizeof(path), "%s/%s", HOME, SSO_FILE);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	f = fopen(path, "r");
	assert_true(fread(text, 1, sizeof(text) - 1, f) > 0);
	fclose(f);
	assert_non_null(strstr(text, "\"accessToken\":\"fresh\""));
	assert_non_null(strstr(text, "\"refreshToken\":\"refresh-2\""));
	assert_non_null(strstr(text, "\"clientSecret\":\"client-secret\""));
	expect_keys(NULL, "SSO", "sso-secret", "st");
	assert_int_equal(refreshes, 1);
	/* a refresh that is refused */
	refuse_refresh = true;
	write_file(
	    SSO_FILE,
	    "{\"accessToken\":\"stale\",\"expiresAt\":\"%s\",\"clientId\":\"client\",\"clientSecret\":\"client-secret\","
	    "\"registrationExpiresAt\":\"%s\",\"refreshToken\":\"refresh-me\"}",
	    iso(-10), iso(86400));
	expect_none(NULL, TD_CREDENTIALS_NEEDS_LOGIN, "run: aws sso login --profile work");
	/* still good for a while: used, although it could not be renewed */
	write_file(
	    SSO_FILE,
	    "{\"accessToken\":\"good\",\"expiresAt\":\"%s\",\"clientId\":\"client\",\"clientSecret\":\"client-secret\","
	    "\"registrationExpiresAt\":\"%s\",\"refreshToken\":\"refresh-me\"}",
	    iso(120), iso(86400));
	expect_keys(NULL, "SSO", "sso-secret", "st");
}

/* Somebody logs in: it goes on by itself, and also at once when asked. */
static void test_login_is_noticed(void **state)
{
	struct td_aws *a;
	const char *why;

	sso_files();
	a = aws_new(NULL);
	assert_int_equal(td_credentials_last(a, &why), TD_CREDENTIALS_PENDING);
	ask(a, false);
	assert_int_equal(G.st, TD_CREDENTIALS_NEEDS_LOGIN);
	assert_int_equal(td_credentials_last(a, &why), TD_CREDENTIALS_NEEDS_LOGIN);
	assert_non_null(strstr(why, "aws sso login --profile work"));
	write_file(SSO_FILE, "{\"accessToken\":\"good\",\"expiresAt\":\"%s\"}", iso(3600));
	for (int i = 0; i < 100 && td_credentials_last(a, NULL) != TD_CREDENTIALS_OK; i++) {
		int never = 0;

		t_until(&never, 50);
	}
	assert_int_equal(td_credentials_last(a, &why), TD_CREDENTIALS_OK);
	assert_string_equal(why, "");
	ask(a, false);
	assert_string_equal(G.id, "SSO");
	td_aws_free(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T_CASE(test_sso),
	    T_CASE(test_sso_refresh),
	    T_CASE(test_login_is_noticed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
