/* Keys that a credential_process prints. */
#include "tests/daemon/aws/credentials_test.h"

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
	process("echo '{\"Version\":1," CREDS("PROC") ",\"Expiration\":\"soon\"}'");
	expect_none(NULL, TD_CREDENTIALS_ERROR, "Expiration is no time");
	process("echo '{\"Version\":1," CREDS("PROC") ",\"Expiration\":\"20991126T010426Z\"}'");
	expect_keys(NULL, "PROC", "PROC-secret", "");
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
	t_until_fds(fds);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T_CASE(test_process),
	    T_CASE(test_process_does_not_block),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
