/* The credential chain: keys that lie about and their order, keeping and renewing what was found, and every mistake
 * with one line that names the cause and the cure. */
#include "tests/daemon/aws/credentials_test.h"
#include "tunneld/aws/internal.h"

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

/* What came along when a key was copied is named, not signed with. */
static void test_environment_with_odd_ends(void **state)
{
	static const char *const names[] = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"};
	static const char *const odd[][2] = {{"x\n", "a line break at its end"},
					     {"x ", "a space at its end"},
					     {"x\r\n", "a line break in it"},
					     {" x", "a space in it"},
					     {"\xef\xbb\xbfx", "a character that no key has in it"}};
	char want[100];

	for (size_t i = 0; i < TNL_COUNT(names); i++)
		for (size_t k = 0; k < TNL_COUNT(odd); k++) {
			for (size_t all = 0; all < TNL_COUNT(names); all++)
				setenv(names[all], all == i ? odd[k][0] : "right", 1);
			snprintf(want, sizeof(want), "%s has %s", names[i], odd[k][1]);
			expect_none(NULL, TD_CREDENTIALS_ERROR, want);
		}
}

/* Keys of the environment stand in for a profile that nobody has, or that cannot be read. */
static void test_environment_in_place_of_a_profile(void **state)
{
	char why[600];

	setenv("AWS_ACCESS_KEY_ID", "ENV", 1);
	setenv("AWS_SECRET_ACCESS_KEY", "env-secret", 1);
	expect_keys(CONF(.profile = S("default")), "ENV", "env-secret", "");
	expect_keys(CONF(.profile = S("env")), "ENV", "env-secret", "");
	write_file(".aws/config", "[profile odd]\nwhat is this\n[profile good]\naws_access_key_id = G\n"
				  "aws_secret_access_key = g\n");
	expect_keys(CONF(.profile = S("odd")), "ENV", "env-secret", "");
	expect_keys(CONF(.profile = S("good")), "G", "g", ""); /* one that is there says more */
	unsetenv("AWS_ACCESS_KEY_ID");
	unsetenv("AWS_SECRET_ACCESS_KEY");
	expect_keys(CONF(.profile = S("good")), "G", "g", "");
	assert_null(td_aws_new(T, CONF(.profile = S("odd")), why, sizeof(why)));
	assert_non_null(strstr(why, "/.aws/config:2: neither KEY = VALUE nor [SECTION]"));
	expect_keys(CONF(.access_key_id = S("C"), .secret_access_key = S("c")), "C", "c", "");
	/* one source of a chain that cannot be read */
	write_file(".aws/config", "[profile role]\nrole_arn = r\nsource_profile = odd\n[profile odd]\nwhat is this\n");
	expect_none(CONF(.profile = S("role")), TD_CREDENTIALS_ERROR, "/.aws/config:5: neither");
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
	    T_CASE(test_configuration_first),	  T_CASE(test_files),
	    T_CASE(test_file_mistakes),		  T_CASE(test_environment_in_place_of_a_profile),
	    T_CASE(test_kept_and_renewed),	  T_CASE(test_renewed_behind_the_back),
	    T_CASE(test_freed_by_its_answer),	  T_CASE(test_one_search_for_many),
	    T_CASE(test_refused_between_answers), T_CASE(test_environment_with_odd_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
