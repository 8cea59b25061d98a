/* Keys from STS: roles on top of each other, web identity, roles that require a one-time code. */
#include "tests/daemon/aws/credentials_test.h"

static int roles_asked;

static void sts(struct td_request *r, const char *method, const char *target, const char *body)
{
	const char *id = NULL, *secret = NULL, *next = NULL;

	assert_string_equal(method, "POST");
	assert_string_equal(target, "/");
	assert_non_null(strstr(body, "Action=AssumeRole&Version=2011-06-15"));
	roles_asked++;
	if (strstr(body, "role%2FFirst")) {
		assert_non_null(strstr(body, "&RoleSessionName=tunneld-"));
		id = "BASE", secret = "base-secret", next = "FIRST";
	} else if (strstr(body, "role%2FSecond")) {
		assert_non_null(strstr(body, "&RoleSessionName=me%40home&ExternalId=x%2Fy&DurationSeconds=1800"));
		id = "FIRST", secret = "FIRST-secret", next = "SECOND";
	}
	if (!id || !signed_with(r, id, secret, "sts"))
		reply_json(r, 403,
			   "{\"Error\":{\"Code\":\"AccessDenied\",\"Message\":\"not you\",\"Type\":\"Sender\"}}");
	else
		reply_json(
		    r, 200,
		    "{\"AssumeRoleResponse\":{\"AssumeRoleResult\":{\"Credentials\":{\"AccessKeyId\":\"%s\",\"SecretAccessKey\":"
		    "\"%s-secret\",\"SessionToken\":\"%s-token\",\"Expiration\":%llu.0}}}}",
		    next, next, next, (unsigned long long)(T->wall_ms / 1000 + 3600));
}

static void sts_begin(void)
{
	role_files();
	F.handle = sts;
	roles_asked = 0;
}

static void test_role_chain(void **state)
{
	sts_begin();
	expect_keys(CONF(.profile = S("first")), "FIRST", "FIRST-secret", "FIRST-token");
	assert_int_equal(roles_asked, 1);
	expect_keys(CONF(.profile = S("second")), "SECOND", "SECOND-secret", "SECOND-token");
	assert_int_equal(roles_asked, 3);
	expect_keys(CONF(.profile = S("self")), "FIRST", "FIRST-secret", "FIRST-token");
	setenv("AWS_ACCESS_KEY_ID", "BASE", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "base-secret", 1);
	expect_keys(CONF(.profile = S("env")), "FIRST", "FIRST-secret", "FIRST-token");
	expect_none(
	    CONF(.profile = S("refused")), TD_CREDENTIALS_ERROR,
	    "role arn:aws:iam::1:role/Third cannot be assumed (AccessDenied: not you): check role_arn and the role's trust policy");
}

static void test_role_mistakes(void **state)
{
	static const struct {
		const char *text, *why;
	} bad[] = {
	    {"role_arn = r\n", "neither source_profile nor credential_source"},
	    {"role_arn = r\nsource_profile = a\ncredential_source = Environment\n", "remove one"},
	    {"role_arn = r\nsource_profile = gone\n", "source_profile gone, which does not exist"},
	    {"role_arn = r\nsource_profile = p\n", "is its own source_profile, but has no keys"},
	    {"role_arn = r\nsource_profile = q\n[profile q]\nrole_arn = r\nsource_profile = p\n",
	     "comes back to itself"},
	    {"role_arn = r\nsource_profile = q\n[profile q]\nregion = x\n", "profile q has no credentials"},
	    {"role_arn = r\ncredential_source = Pocket\n", "credential_source is Pocket"},
	    {"role_arn = r\ncredential_source = Environment\n", "there are no credentials in it"},
	    {"role_arn = r\nsource_profile = p\nduration_seconds = 60\n",
	     "duration_seconds is 60, but must be 900 to 43200"},
	    {"sso_session = corp\nsso_account_id = 1\nsso_role_name = r\n", "there is no [sso-session corp]"},
	    {"sso_start_url = https://x\nsso_region = r\nsso_role_name = r\n", "lacks sso_account_id"},
	    {"aws_secret_access_key = x\n", "only one of"},
	};

	for (size_t i = 0; i < TNL_COUNT(bad); i++) {
		write_file(".aws/config", "[profile p]\n%s", bad[i].text);
		expect_none(CONF(.profile = S("p")), TD_CREDENTIALS_ERROR, bad[i].why);
	}
	assert_int_equal(F.calls, 0);
}

/* Proxies and emulators of STS answer in XML whatever was asked for. */
static void sts_in_xml(struct td_request *r, const char *method, const char *target, const char *body)
{
	static const char good[] =
	    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
	    "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult>"
	    "<AssumedRoleUser><Arn>arn:x</Arn></AssumedRoleUser><Credentials><AccessKeyId>XML</AccessKeyId>"
	    "<SecretAccessKey>a&amp;b</SecretAccessKey><SessionToken>xml/token==</SessionToken>"
	    "<Expiration>2099-11-25T01:04:26Z</Expiration></Credentials></AssumeRoleResult>"
	    "<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></AssumeRoleResponse>\n";
	static const char bad[] = "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error>"
				  "<Type>Sender</Type><Code>AccessDenied</Code><Message>not &lt;you&gt;</Message>"
				  "</Error><RequestId>1</RequestId></ErrorResponse>";
	bool ok = strstr(body, "role%2FFirst");

	td_request_reply(r, ok ? 200 : 403, "text/xml", NULL, 0, ok ? good : bad, strlen(ok ? good : bad));
}

static void test_sts_in_xml(void **state)
{
	sts_begin();
	F.handle = sts_in_xml;
	expect_keys(CONF(.profile = S("first")), "XML", "a&b", "xml/token==");
	expect_none(CONF(.profile = S("refused")), TD_CREDENTIALS_ERROR,
		    "role arn:aws:iam::1:role/Third cannot be assumed (AccessDenied: not <you>)");
}

static void unreachable(struct td_request *r, const char *method, const char *target, const char *body)
{
	reply_json(r, 503, "{}");
}

static void test_sts_down_is_tried_again(void **state)
{
	role_files();
	F.handle = unreachable;
	expect_none(CONF(.profile = S("first")), TD_CREDENTIALS_ERROR, "cannot be assumed");
	assert_int_equal(F.calls, 3);
}

/* --- web identity ---------------------------------------------------------------------------------- */

static void web(struct td_request *r, const char *method, const char *target, const char *body)
{
	const struct tnl_http_head *h = td_request_head(r);

	assert_null(tnl_http_get(h, "authorization", NULL));
	assert_true(tnl_http_has_token(h, "accept", "application/json"));
	assert_non_null(
	    strstr(body,
		   "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2FWeb"
		   "&RoleSessionName=pod&WebIdentityToken=ey.J%2B.sig"));
	reply_json(
	    r, 200,
	    "{\"AssumeRoleWithWebIdentityResponse\":{\"AssumeRoleWithWebIdentityResult\":{\"Credentials\":{" CREDS(
		"WEB") ","
		       "\"SessionToken\":\"t\",\"Expiration\":\"%s\"}}}}",
	    iso(3600));
}

static void test_web_identity(void **state)
{
	char path[100];

	write_file("token", "ey.J+.sig\n");
	snprintf(path, sizeof(path), "%s/token", HOME);
	setenv("AWS_ENDPOINT_URL_STS", F.url, 1);
	setenv("AWS_WEB_IDENTITY_TOKEN_FILE", path, 1);
	expect_none(NULL, TD_CREDENTIALS_ERROR, "AWS_WEB_IDENTITY_TOKEN_FILE is set without AWS_ROLE_ARN");
	setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/Web", 1);
	setenv("AWS_ROLE_SESSION_NAME", "pod", 1);
	F.handle = web;
	expect_keys(NULL, "WEB", "WEB-secret", "t");
	/* in a profile */
	unsetenv("AWS_WEB_IDENTITY_TOKEN_FILE");
	write_file(
	    ".aws/config",
	    "[default]\nrole_arn = arn:aws:iam::1:role/Web\nrole_session_name = pod\nweb_identity_token_file = %s\n",
	    path);
	expect_keys(NULL, "WEB", "WEB-secret", "t");
	remove_file("token");
	expect_none(NULL, TD_CREDENTIALS_ERROR, "the web identity token");
}

/* --- one-time codes -------------------------------------------------------------------------------- */

/* A role with a one-time code: the aws command's cache is used. The file's name is the SHA-1 of
 * {"DurationSeconds": 3600, "ExternalId": "a\"b", "RoleArn": …, "SerialNumber": …}, made with Python's json. */
static void test_mfa(void **state)
{
	write_file(".aws/config",
		   "[profile ops]\nrole_arn = arn:aws:iam::123456789012:role/Ops\nsource_profile = base\n"
		   "mfa_serial = arn:aws:iam::123456789012:mfa/me\nduration_seconds = 3600\nexternal_id = a\"b\n"
		   "[profile base]\naws_access_key_id = B\naws_secret_access_key = b\n");
	expect_none(
	    CONF(.profile = S("ops")), TD_CREDENTIALS_NEEDS_LOGIN,
	    "profile ops requires a one-time code (mfa_serial): run: aws sts get-caller-identity --profile ops");
	write_file(".aws/cli/cache/c34b5200d16e7c1ce805d24bbac6ae8fe194d367.json",
		   "{\"Credentials\":{" CREDS("MFA") ",\"SessionToken\":\"m\",\"Expiration\":\"%s\"}}", iso(1800));
	expect_keys(CONF(.profile = S("ops")), "MFA", "MFA-secret", "m");
	write_file(".aws/cli/cache/c34b5200d16e7c1ce805d24bbac6ae8fe194d367.json",
		   "{\"Credentials\":{" CREDS("MFA") ",\"SessionToken\":\"m\",\"Expiration\":\"%s\"}}", iso(-1));
	expect_none(CONF(.profile = S("ops")), TD_CREDENTIALS_NEEDS_LOGIN, "one-time code");
	assert_int_equal(F.calls, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T_CASE(test_role_chain), T_CASE(test_role_mistakes), T_CASE(test_sts_down_is_tried_again),
	    T_CASE(test_sts_in_xml), T_CASE(test_web_identity),	 T_CASE(test_mfa),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
