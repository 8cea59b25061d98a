/* The credential chain: each source, their order, roles on top of each other, refreshing, logging in, and every
 * mistake with one line that names the cause and the cure. */
#include "tests/daemon/aws/aws_test.h"
#include "tunneld/aws/internal.h"

#define CREDS(id) "\"AccessKeyId\":\"" id "\",\"SecretAccessKey\":\"" id "-secret\""

static char *iso(int64_t in_s)
{
	static char out[4][TNL_ISO_STR];
	static int at;

	at = (at + 1) % 4;
	tnl_iso_date((T->wall_ms / 1000 + (uint64_t)in_s) * 1000, out[at]);
	return out[at];
}

/* --- keys that lie about ------------------------------------------------------------------- */

static void test_configuration_first(void **state)
{
	setenv("AWS_ACCESS_KEY_ID", "ENV", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "env-secret", 1);
	setenv("AWS_SESSION_TOKEN", "env-token", 1);
	expect_keys(CONF(.access_key_id = S("CONF"), .secret_access_key = S("conf-secret")), "CONF", "conf-secret", "");
	expect_keys(NULL, "ENV", "env-secret", "env-token");
	expect_none(CONF(.access_key_id = S("CONF")), TD_CREDENTIALS_ERROR, "belong together");
	unsetenv("AWS_SECRET_ACCESS_KEY");
	expect_none(NULL, TD_CREDENTIALS_ERROR, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY belong together");
}

static void test_files(void **state)
{
	write_file(".aws/config",
		   "[default]\nregion = eu-west-1\naws_access_key_id = CONFFILE\naws_secret_access_key = c\n"
		   "[profile ops]\naws_access_key_id = OPS\naws_secret_access_key = ops-secret\n");
	expect_keys(NULL, "CONFFILE", "c", "");
	write_file(".aws/credentials",
		   "[default]\naws_access_key_id = CREDFILE\naws_secret_access_key = d\naws_session_token = t\n");
	expect_keys(NULL, "CREDFILE", "d", "t");
	setenv("AWS_PROFILE", "ops", 1);
	expect_keys(NULL, "OPS", "ops-secret", "");
	unsetenv("AWS_PROFILE");
	setenv("AWS_DEFAULT_PROFILE", "ops", 1);
	expect_keys(NULL, "OPS", "ops-secret", "");
	/* the environment wins over AWS_PROFILE, a profile in the configuration over the environment */
	setenv("AWS_ACCESS_KEY_ID", "ENV", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "env-secret", 1);
	expect_keys(NULL, "ENV", "env-secret", "");
	expect_keys(CONF(.profile = S("ops")), "OPS", "ops-secret", "");
	clean_env();
	/* other places */
	write_file("elsewhere", "[default]\naws_access_key_id = ELSEWHERE\naws_secret_access_key = e\n");
	char path[100];
	snprintf(path, sizeof(path), "%s/elsewhere", HOME);
	setenv("AWS_SHARED_CREDENTIALS_FILE", path, 1);
	expect_keys(NULL, "ELSEWHERE", "e", "");
	setenv("AWS_SHARED_CREDENTIALS_FILE", "~/elsewhere", 1);
	expect_keys(NULL, "ELSEWHERE", "e", "");
}

static void test_file_mistakes(void **state)
{
	char why[600];

	expect_none(NULL, TD_CREDENTIALS_NONE, "no credentials: set access_key_id");
	setenv("AWS_PROFILE", "nobody", 1);
	expect_none(NULL, TD_CREDENTIALS_ERROR, "profile nobody is in neither");
	assert_null(td_aws_new(T, CONF(.profile = S("nobody")), why, sizeof(why)));
	assert_non_null(strstr(why, "profile nobody is in neither"));
	clean_env();
	write_file(".aws/credentials", "[default]\naws_access_key_id = A\n");
	expect_none(NULL, TD_CREDENTIALS_ERROR, "profile default has only one of");
	/* a file that breaks while the daemon runs */
	write_file(".aws/credentials", "[default]\naws_access_key_id = A\naws_secret_access_key = B\n");
	struct td_aws *a = aws_new(NULL);
	write_file(".aws/credentials", "[default]\nwhat is this\n");
	ask(a, false);
	assert_int_equal(G.st, TD_CREDENTIALS_ERROR);
	assert_non_null(strstr(G.why, "/.aws/credentials:2: neither KEY = VALUE nor [SECTION]"));
	td_aws_free(a);
	assert_null(td_aws_new(T, CONF(), why, sizeof(why)));
	assert_non_null(strstr(why, "/.aws/credentials:2:"));
}

/* --- roles ------------------------------------------------------------------------------------ */

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

static void role_files(void)
{
	write_file(".aws/credentials", "[base]\naws_access_key_id = BASE\naws_secret_access_key = base-secret\n");
	write_file(".aws/config",
		   "[profile first]\nrole_arn = arn:aws:iam::1:role/First\nsource_profile = base\n"
		   "[profile second]\nrole_arn = arn:aws:iam::1:role/Second\nsource_profile = first\n"
		   "external_id = x/y\nrole_session_name = me@home\nduration_seconds = 1800\n"
		   "[profile refused]\nrole_arn = arn:aws:iam::1:role/Third\nsource_profile = base\n"
		   "[profile env]\nrole_arn = arn:aws:iam::1:role/First\ncredential_source = Environment\n"
		   "[profile self]\nrole_arn = arn:aws:iam::1:role/First\nsource_profile = self\n"
		   "aws_access_key_id = BASE\naws_secret_access_key = base-secret\n");
	setenv("AWS_ENDPOINT_URL_STS", F.url, 1);
	F.handle = sts;
	roles_asked = 0;
}

static void test_role_chain(void **state)
{
	role_files();
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

/* --- credential_process ------------------------------------------------------------------------------- */

static void process(const char *command)
{
	write_file(".aws/config", "[default]\ncredential_process = %s\n", command);
}

static void test_process(void **state)
{
	process("printf '%s' '{\"Version\":1," CREDS("PROC") ",\"SessionToken\":\"t\"}'; : ");
	expect_keys(NULL, "PROC", "PROC-secret", "t");
	process("echo secret-in-output; exit 3");
	expect_none(NULL, TD_CREDENTIALS_ERROR, "credential_process of profile default failed (exit code 3)");
	assert_null(strstr(G.why, "secret-in-output"));
	process("kill -9 $$");
	expect_none(NULL, TD_CREDENTIALS_ERROR, "failed (signal 9)");
	process("/nowhere/at/all");
	expect_none(NULL, TD_CREDENTIALS_ERROR, "failed (exit code 127)");
	process("echo '{\"Version\":2," CREDS("PROC") "}'");
	expect_none(NULL, TD_CREDENTIALS_ERROR, "printed no usable credentials");
	process("echo '{\"Version\":1,\"AccessKeyId\":\"A\"}'");
	expect_none(NULL, TD_CREDENTIALS_ERROR, "printed no usable credentials");
	process("yes");
	expect_none(NULL, TD_CREDENTIALS_ERROR, "credential_process of profile default");
	process("echo '{\"Version\":1," CREDS("PROC") ",\"Expiration\":\"2001-01-01T00:00:00Z\"}'");
	expect_none(NULL, TD_CREDENTIALS_ERROR, "that have expired");
	process("cat; echo '{\"Version\":1," CREDS("STDIN") "}'"); /* nothing to read, and nobody is asked */
	expect_keys(NULL, "STDIN", "STDIN-secret", "");
}

static void test_process_does_not_block(void **state)
{
	struct td_aws *a;
	uint64_t before;
	int fds = t_open_fds();

	process("sleep 1000");
	a = aws_new(NULL);
	td_loop_update(T);
	before = T->now;
	struct td_credentials_request *q = td_credentials_ask(a, false, on_got, NULL);
	memset(&G, 0, sizeof(G));
	t_turns(5);
	td_loop_update(T);
	assert_true(T->now - before < TD_SEC);
	assert_int_equal(G.done, 0);
	/* cancelled: the process is ended and reaped, no descriptor stays */
	td_credentials_cancel(q);
	td_aws_free(a);
	int never = 0;
	t_until(&never, 100);
	assert_int_equal(t_open_fds(), fds);
}

/* --- container and instance ------------------------------------------------------------------------------- */

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

/* --- SSO ------------------------------------------------------------------------------------------------------ */

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

/* --- keeping ------------------------------------------------------------------------------------------------------ */

static int life;

static void short_lived(struct td_request *r, const char *method, const char *target, const char *body)
{
	reply_json(
	    r, 200,
	    "{\"AssumeRoleResponse\":{\"AssumeRoleResult\":{\"Credentials\":{\"AccessKeyId\":\"K%d\",\"SecretAccessKey\":\"s\","
	    "\"SessionToken\":\"t\",\"Expiration\":\"%s\"}}}}",
	    F.calls, iso(life));
}

static void test_kept_and_renewed(void **state)
{
	struct td_aws *a;

	role_files();
	F.handle = short_lived;
	life = 3600;
	a = aws_new(CONF(.profile = S("first")));
	ask(a, false);
	ask(a, false);
	assert_string_equal(G.id, "K1");
	assert_int_equal(F.calls, 1);
	ask(a, true); /* refused by somebody: new ones */
	assert_string_equal(G.id, "K2");
	td_aws_free(a);
	/* a short life is used too; one that is over is refused */
	F.calls = 0;
	life = 8;
	a = aws_new(CONF(.profile = S("first")));
	ask(a, false);
	assert_string_equal(G.id, "K1");
	td_aws_free(a);
	life = -5;
	expect_none(CONF(.profile = S("first")), TD_CREDENTIALS_ERROR,
		    "came with an end in the past: check this machine's clock");
}

static void test_renewed_behind_the_back(void **state)
{
	struct td_aws *a;

	role_files();
	F.handle = short_lived;
	life = 8; /* usable, but soon over */
	a = aws_new(CONF(.profile = S("first")));
	ask(a, false);
	assert_string_equal(G.id, "K1");
	life = 3600;
	for (int i = 0; i < 700 && F.calls < 2; i++) {
		int never = 0;

		t_until(&never, 10);
		if (F.calls < 2) {
			ask(a, false);
			assert_int_equal(G.st, TD_CREDENTIALS_OK);
		}
	}
	assert_int_equal(F.calls, 2);
	ask(a, false);
	assert_string_equal(G.id, "K2");
	td_aws_free(a);
}

/* Who is answered may let go of the block. */
static void on_last(void *ctx, const struct tnl_sigv4_keys *k, enum td_credentials_state st, const char *why)
{
	td_aws_free(ctx);
	on_got(NULL, NULL, st, NULL);
}

static void test_freed_by_its_answer(void **state)
{
	struct td_aws *a = aws_new(CONF(.access_key_id = S("CONF"), .secret_access_key = S("conf-secret")));

	memset(&G, 0, sizeof(G));
	td_credentials_ask(td_aws_ref(a), false, on_last, a);
	td_credentials_ask(a, false, on_last, a);
	assert_true(t_until(&G.done, 1000));
	t_turns(5);
	assert_int_equal(G.done, 2);
}

static void test_one_search_for_many(void **state)
{
	struct td_credentials_request *q[10];
	struct td_aws *a;

	role_files();
	F.handle = short_lived;
	life = 3600;
	a = aws_new(CONF(.profile = S("first")));
	memset(&G, 0, sizeof(G));
	for (int i = 0; i < 10; i++)
		q[i] = td_credentials_ask(a, false, on_got, NULL);
	td_credentials_cancel(q[3]);
	for (int i = 0; i < 100 && G.done < 9; i++) {
		int never = 0;

		t_until(&never, 20);
	}
	t_turns(3);
	assert_int_equal(G.done, 9);
	assert_int_equal(F.calls, 1);
	/* freed while a search is under way */
	q[0] = td_credentials_ask(a, true, on_got, NULL);
	td_credentials_cancel(q[0]);
	td_aws_free(a);
	t_turns(5);
	assert_int_equal(G.done, 9);
}

static void on_first(void *ctx, const struct tnl_sigv4_keys *k, enum td_credentials_state st, const char *why)
{
	td_credentials_refused(ctx, k->access_key_id);
	td_credentials_ask(ctx, true, on_got, NULL);
}

/* Answers are given one by one, and between two of them the keys can turn out to be refused. */
static void test_refused_between_answers(void **state)
{
	struct td_aws *a;

	role_files();
	F.handle = short_lived;
	life = 3600;
	a = aws_new(CONF(.profile = S("first")));
	ask(a, false);
	assert_string_equal(G.id, "K1");
	memset(&G, 0, sizeof(G));
	td_credentials_ask(a, false, on_first, a);
	td_credentials_ask(a, false, on_got, NULL);
	assert_true(t_until(&G.done, 1000));
	assert_int_equal(G.st, TD_CREDENTIALS_OK);
	assert_string_equal(G.id, "K2");
	t_turns(5);
	assert_int_equal(G.done, 2);
	td_aws_free(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T_CASE(test_configuration_first),
	    T_CASE(test_files),
	    T_CASE(test_file_mistakes),
	    T_CASE(test_role_chain),
	    T_CASE(test_role_mistakes),
	    T_CASE(test_sts_down_is_tried_again),
	    T_CASE(test_web_identity),
	    T_CASE(test_process),
	    T_CASE(test_process_does_not_block),
	    T_CASE(test_container),
	    T_CASE(test_instance),
	    T_CASE(test_sso),
	    T_CASE(test_sso_refresh),
	    T_CASE(test_login_is_noticed),
	    T_CASE(test_mfa),
	    T_CASE(test_kept_and_renewed),
	    T_CASE(test_renewed_behind_the_back),
	    T_CASE(test_freed_by_its_answer),
	    T_CASE(test_one_search_for_many),
	    T_CASE(test_refused_between_answers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
