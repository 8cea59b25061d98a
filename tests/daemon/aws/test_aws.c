/* One [aws] block: whom to trust, and which blocks are one. */
#include "tests/daemon/aws/aws_test.h"
#include "lib/crypto.h"
#include "lib/num.h"

static void test_tls_files(void **state)
{
	char *ca, *cakey, path[100], keypath[100];
	uint64_t now = (uint64_t)time(NULL);

	assert_int_equal(tnl_x509_make("CA", "", NULL, NULL, now - 10, now + 1000, &ca, &cakey), 0);
	write_file("ca.pem", "%s", ca);
	write_file("key.pem", "%s", cakey);
	snprintf(path, sizeof(path), "%s/ca.pem", HOME);
	snprintf(keypath, sizeof(keypath), "%s/key.pem", HOME);
	expect_refused(CONF(.ca_file = S("/nowhere/ca.pem")), "ca_file: cannot read /nowhere/ca.pem: No such file");
	setenv("SSL_CERT_FILE", "/nowhere/a", 1);
	expect_refused(CONF(), "SSL_CERT_FILE: cannot read /nowhere/a");
	setenv("AWS_CA_BUNDLE", "/nowhere/b", 1);
	expect_refused(CONF(), "AWS_CA_BUNDLE: cannot read /nowhere/b");
	setenv("AWS_CA_BUNDLE", path, 1);
	td_aws_free(aws_new(NULL));
	clean_env();
	write_file(".aws/config", "[default]\nca_bundle = /nowhere/c\n");
	expect_refused(CONF(), "ca_bundle of the profile: cannot read /nowhere/c");
	td_aws_free(aws_new(CONF(.ca_file = path)));
	write_file("empty.pem", "nothing\n");
	char empty[100];
	snprintf(empty, sizeof(empty), "%s/empty.pem", HOME);
	expect_refused(CONF(.ca_file = empty), "there is no CA certificate in it");
	expect_refused(CONF(.ca_file = path, .client_certificate = path),
		       "client_certificate is set without client_key");
	chmod(keypath, 0644);
	expect_refused(CONF(.ca_file = path, .client_certificate = path, .client_key = keypath),
		       "can be read by others: run chmod 600");
	chmod(keypath, 0600);
	td_aws_free(aws_new(CONF(.ca_file = path, .client_certificate = path, .client_key = keypath)));
	chmod(path, 0600);
	expect_refused(CONF(.ca_file = path, .client_certificate = path, .client_key = path),
		       "private key cannot be read");
	tnl_free(ca);
	tnl_free(cakey);
}

static void test_equal_blocks_are_shared(void **state)
{
	char path[100];
	struct td_aws *a, *b;

	a = aws_new(CONF(KEYS));
	b = aws_new(CONF(KEYS));
	assert_ptr_equal(a, b);
	td_aws_free(b);
	b = aws_new(CONF(KEYS, .region = S("eu-west-2")));
	assert_ptr_not_equal(a, b);
	td_aws_free(b);
	/* whatever key differs */
	char *hosts[] = {S("a.example")};
	const struct td_aws_config *const other[] = {CONF(.access_key_id = S("AKID"),
							  .secret_access_key = S("another")),
						     CONF(KEYS, .session_token = S("t")),
						     CONF(KEYS, .ssm_endpoint = S("https://a.example")),
						     CONF(KEYS, .proxy = S("none")),
						     CONF(KEYS, .stream_hosts = {hosts, 1}),
						     &(struct td_aws_config){KEYS, .use_fips = 1, .use_dualstack = -1},
						     &(struct td_aws_config){KEYS, .use_fips = -1, .use_dualstack = 0}};
	for (size_t i = 0; i < TNL_COUNT(other); i++) {
		b = aws_new(other[i]);
		assert_ptr_not_equal(a, b);
		assert_ptr_equal(td_aws_ref(b), aws_new(other[i]));
		td_aws_free(b);
		td_aws_free(b);
		td_aws_free(b);
	}
	td_aws_free(a);
	/* a CA file that was replaced makes another one */
	char *ca, *key;
	uint64_t now = (uint64_t)time(NULL);
	assert_int_equal(tnl_x509_make("CA", "", NULL, NULL, now - 10, now + 1000, &ca, &key), 0);
	write_file("ca.pem", "%s", ca);
	snprintf(path, sizeof(path), "%s/ca.pem", HOME);
	a = aws_new(CONF(KEYS, .ca_file = path));
	write_file("ca.pem", "%s\n\n", ca);
	b = aws_new(CONF(KEYS, .ca_file = path));
	assert_ptr_not_equal(a, b);
	td_aws_free(a);
	td_aws_free(b);
	tnl_free(ca);
	tnl_free(key);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T_CASE(test_tls_files),
	    T_CASE(test_equal_blocks_are_shared),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
