/* The shared configuration files of the AWS SDKs: what is read, what wins, and each mistake with its line. */
#include "tests/daemon/base/td_test.h"
#include "lib/num.h"
#include "tunneld/aws/profile.h"

static struct td_profiles *P;

static int add(enum td_profile_file f, const char *text, char *why)
{
	return td_profiles_parse(P, text, strlen(text), f, "file", why, 200);
}

static void good(enum td_profile_file f, const char *text)
{
	char why[200] = "";

	if (add(f, text, why) != 0)
		fail_msg("%s", why);
}

static int setup(void **state)
{
	P = td_profiles_new();
	return P ? 0 : -1;
}

static int teardown(void **state)
{
	td_profiles_free(P);
	return tnl_alloc_live() == 0 ? 0 : -1;
}

static void expect(const char *profile, const char *key, const char *want)
{
	const char *v = td_profiles_get(P, TD_PROFILE, profile, key);

	if (!want)
		assert_null(v);
	else if (!v)
		fail_msg("%s.%s is not set", profile, key);
	else
		assert_string_equal(v, want);
}

static void test_sections_and_values(void **state)
{
	good(TD_PROFILE_CONFIG, "\xef\xbb\xbf# comment\n"
				"; another\r\n"
				"[default]\r\n"
				"Region = eu-west-1\r\n"
				"output=json\n"
				"\n"
				"[ profile   ops ]   # with a comment\n"
				"role_arn = arn:aws:iam::1:role/a=b\n"
				"source_profile=default ; why\n"
				"hash = a#b;c\n"
				"empty =\n"
				"[profile \"with space\"]\n"
				"region = us-east-1\n"
				"[sso-session corp]\n"
				"sso_region = eu-central-1\n"
				"[plugins]\n"
				"anything goes here\n"
				"[ops]\n"
				"region = not-read\n");
	expect("default", "region", "eu-west-1");
	expect("default", "output", "json");
	expect("ops", "role_arn", "arn:aws:iam::1:role/a=b");
	expect("ops", "source_profile", "default");
	expect("ops", "hash", "a#b;c");
	expect("ops", "empty", NULL);
	expect("ops", "region", NULL);
	expect("with space", "region", "us-east-1");
	expect("nobody", "region", NULL);
	assert_true(td_profiles_has(P, TD_PROFILE, "ops"));
	assert_false(td_profiles_has(P, TD_PROFILE, "corp"));
	assert_true(td_profiles_has(P, TD_PROFILE_SSO_SESSION, "corp"));
	assert_string_equal(td_profiles_get(P, TD_PROFILE_SSO_SESSION, "corp", "sso_region"), "eu-central-1");
}

static void test_credentials_file_wins(void **state)
{
	good(TD_PROFILE_CREDENTIALS, "[default]\naws_access_key_id = FROMCRED\n[ops]\naws_access_key_id = OPSCRED\n");
	good(
	    TD_PROFILE_CONFIG,
	    "[default]\naws_access_key_id = FROMCONF\nregion = r1\n[profile ops]\naws_access_key_id = X\nregion = r2\n");
	expect("default", "aws_access_key_id", "FROMCRED");
	expect("default", "region", "r1");
	expect("ops", "aws_access_key_id", "OPSCRED");
	expect("ops", "region", "r2");
}

static void test_profile_default_wins_over_default(void **state)
{
	good(TD_PROFILE_CONFIG, "[profile default]\nregion = right\n[default]\nregion = wrong\noutput = text\n");
	expect("default", "region", "right");
	expect("default", "output", "text");
}

static void test_later_wins_and_sections_join(void **state)
{
	good(TD_PROFILE_CONFIG, "[default]\na = 1\na = 2\n[profile x]\nb = 1\n[default]\nc = 3\n");
	expect("default", "a", "2");
	expect("default", "c", "3");
}

static void test_nested_and_continued(void **state)
{
	good(TD_PROFILE_CONFIG, "[services dev]\n"
				"ssm =\n"
				"  endpoint_url = https://a.example\n"
				"  other = 1\n"
				"kms =\n"
				"\tendpoint_url = https://b.example # why\n"
				"[profile dev]\n"
				"services = dev\n"
				"long = one\n"
				"  two\n"
				"  three = 3\n"
				"  [four]\n"
				"last = x\n");
	assert_string_equal(td_profiles_get(P, TD_PROFILE_SERVICES, "dev", "ssm.endpoint_url"), "https://a.example");
	assert_string_equal(td_profiles_get(P, TD_PROFILE_SERVICES, "dev", "ssm.other"), "1");
	assert_string_equal(td_profiles_get(P, TD_PROFILE_SERVICES, "dev", "kms.endpoint_url"), "https://b.example");
	expect("dev", "long", "one\ntwo\nthree = 3\n[four]");
	expect("dev", "last", "x");
}

static void test_indented_file(void **state)
{
	good(TD_PROFILE_CONFIG, "[default]\n    region = eu-west-1\n    output = json\n");
	expect("default", "region", "eu-west-1");
	expect("default", "output", "json");
}

static void test_mistakes_have_their_line(void **state)
{
	static const struct {
		const char *text, *why;
	} bad[] = {
	    {"region = x\n", "file:1: a setting comes before the first [section]"},
	    {"\n\n[default\nregion = x\n", "file:3: a section's header must end in ]"},
	    {"[]\n", "file:1: the section has no name"},
	    {"[profile \"\"]\n", "file:1: the section has no name"},
	    {"[default]\nregion\n", "file:2: neither KEY = VALUE nor [SECTION]"},
	    {"[default]\n# c\n= x\n", "file:3: there is no name before the ="},
	    {"[services x]\nssm =\n  endpoint_url\n", "file:3: a nested setting must be KEY = VALUE"},
	};

	for (size_t i = 0; i < TNL_COUNT(bad); i++) {
		char why[200] = "";

		assert_int_equal(add(TD_PROFILE_CONFIG, bad[i].text, why), TNL_ESYNTAX);
		assert_string_equal(why, bad[i].why);
	}
	/* NUL bytes, and a file that is no such file */
	char why[200] = "", *big;
	assert_int_equal(td_profiles_parse(P, "[default]\na = b\0c\n", 18, TD_PROFILE_CONFIG, "file", why, sizeof(why)),
			 TNL_ESYNTAX);
	assert_string_equal(why, "file:2: there is a NUL byte in it");
	big = calloc(1, TD_PROFILE_FILE_MAX + 1);
	assert_int_equal(td_profiles_parse(P, big, TD_PROFILE_FILE_MAX + 1, TD_PROFILE_CONFIG, "file", why,
					   sizeof(why)),
			 TNL_ESYNTAX);
	free(big);
}

/* As the aws command reads: a colon, text behind a header. */
static void test_what_the_aws_command_reads(void **state)
{
	good(TD_PROFILE_CONFIG, "[profile other] // a note that somebody left\n"
				"region: us-east-1\n"
				"credential_process=/bin/x a:b\n"
				"sso_start_url: https://sso.example/start?a=b\n"
				"[profile ops]\n"
				"region = eu-west-1\n");
	expect("other", "region", "us-east-1");
	expect("other", "credential_process", "/bin/x a:b");
	expect("other", "sso_start_url", "https://sso.example/start?a=b");
	expect("ops", "region", "eu-west-1");
	assert_null(td_profiles_fault(P, TD_PROFILE, "other"));
}

static void fault_is(const char *profile, const char *want)
{
	const char *f = td_profiles_fault(P, TD_PROFILE, profile);

	if (!want)
		assert_null(f);
	else if (!f)
		fail_msg("%s: no fault", profile);
	else
		assert_string_equal(f, want);
}

/* A mistake costs the profile that it stands in; one in a header costs what cannot be found any more. */
static void test_a_mistake_costs_its_profile_alone(void **state)
{
	char why[200] = "";

	assert_int_equal(add(TD_PROFILE_CONFIG,
			     "[default]\nregion = r1\n[profile odd]\nwhat is this\nregion = r2\n[profile open\n"
			     "region = r3\n[profile good]\nregion = r4\n",
			     why),
			 TNL_ESYNTAX);
	assert_string_equal(why, "file:4: neither KEY = VALUE nor [SECTION]");
	expect("default", "region", "r1");
	expect("odd", "region", "r2");
	expect("good", "region", "r4");
	fault_is("default", NULL);
	fault_is("good", NULL);
	fault_is("odd", "file:4: neither KEY = VALUE nor [SECTION]");
	fault_is("open", "file:6: a section's header must end in ]");
}

static void test_without_memory(void **state)
{
	static const char text[] = "[default]\nregion = a\n  b\n[services x]\nssm =\n  endpoint_url = y\n";
	char why[200];
	int rc = -1;

	for (long n = 0; n < 100 && rc != 0; n++) {
		struct td_profiles *p = td_profiles_new();

		tnl_alloc_fail_after(n, 0);
		rc = td_profiles_parse(p, text, strlen(text), TD_PROFILE_CONFIG, "file", why, sizeof(why));
		tnl_alloc_fail_after(-1, 0);
		td_profiles_free(p);
		if (rc != 0)
			assert_int_equal(rc, TNL_ENOMEM);
	}
	assert_int_equal(rc, 0);
}

int main(void)
{
#define T_CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    T_CASE(test_sections_and_values),
	    T_CASE(test_credentials_file_wins),
	    T_CASE(test_profile_default_wins_over_default),
	    T_CASE(test_later_wins_and_sections_join),
	    T_CASE(test_nested_and_continued),
	    T_CASE(test_indented_file),
	    T_CASE(test_mistakes_have_their_line),
	    T_CASE(test_what_the_aws_command_reads),
	    T_CASE(test_a_mistake_costs_its_profile_alone),
	    T_CASE(test_without_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
