/* The configuration's file and the files that it names: missing, readable by others, of the wrong kind. */
#include "lib/alloc.h"
#include "lib/tls.h"
#include "tunneld/config/internal.h"
#include <fcntl.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <time.h>
#include <cmocka.h>

static void write_file(const char *path, const char *text, mode_t mode)
{
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	assert_int_equal(chmod(path, mode), 0);
}

/* A folder with a gateway's configuration; the certificate and key that it names are made, but not written. */
static struct files {
	char dir[32], path[64], cert[64], key[64], want[800];
	char *pem, *pem_key, *other, *other_key; /* other: of another certificate */
} F;

static int setup(void **s)
{
	const uint64_t until = UINT64_C(4000000000);

	memset(&F, 0, sizeof(F));
	strcpy(F.dir, "/tmp/tunneld-test-XXXXXX");
	assert_non_null(mkdtemp(F.dir));
	snprintf(F.path, sizeof(F.path), "%s/g.ini", F.dir);
	snprintf(F.cert, sizeof(F.cert), "%s/c.pem", F.dir);
	snprintf(F.key, sizeof(F.key), "%s/k.pem", F.dir);
	write_file(F.path,
		   "[gateway]\nlisten = 127.0.0.1:0\ncertificate = c.pem\nprivate_key = k.pem\n"
		   "[user u]\naccess_key_id = K\nsecret_access_key = s-of-tests\ntargets = *\n"
		   "[instance i-1]\naccess_key_id = L\nsecret_access_key = s-of-tests\n",
		   0600);
	assert_int_equal(tnl_x509_make("a", "localhost", NULL, NULL, 1, until, &F.pem, &F.pem_key), 0);
	assert_int_equal(tnl_x509_make("b", "localhost", NULL, NULL, 1, until, &F.other, &F.other_key), 0);
	return 0;
}

static int teardown(void **s)
{
	tnl_free(F.pem);
	tnl_free(F.pem_key);
	tnl_free(F.other);
	tnl_free(F.other_key);
	unlink(F.path);
	unlink(F.cert);
	unlink(F.key);
	return rmdir(F.dir);
}

/* Loads; *said gets what was printed (free). */
static struct td_config *load_said(const char *path, unsigned roles, char **said)
{
	size_t n;
	FILE *f = open_memstream(said, &n);
	struct td_config *c = td_config_load(path, roles, f);
	fclose(f);
	return c;
}

/* --- secrets in files of their own --------------------------------------------------- */

static char *in_dir(const char *name)
{
	static char path[2][80];
	static int i;
	i = !i;
	snprintf(path[i], sizeof(path[i]), "%s/%s", F.dir, name);
	return path[i];
}

/* A user with the lines of `keys`, and what the configuration says of them; NULL: it was refused. */
static struct td_config *load_keys(const char *keys, char **said)
{
	char text[600];
	snprintf(text, sizeof(text),
		 "[gateway]\nlisten = 127.0.0.1:0\ncertificate = c.pem\nprivate_key = k.pem\n"
		 "[user u]\ntargets = *\naccess_key_id = K\n%s[instance i-1]\naccess_key_id = L\n"
		 "secret_access_key = s-of-tests\n",
		 keys);
	write_file(F.path, text, 0600);
	return load_said(F.path, TD_ROLE_GATEWAY | TD_ROLE_FILES, said);
}

static void refuses_keys(const char *keys, const char *words)
{
	char *said = NULL;
	assert_null(load_keys(keys, &said));
	if (!strstr(said, words))
		fail_msg("no \"%s\" in: %s", words, said);
	free(said);
}

static void test_secret_files(void **s)
{
	char *said = NULL;
	write_file(F.cert, F.pem, 0644);
	write_file(F.key, F.pem_key, 0600);
	write_file(in_dir("one"), "first-secret\n", 0600);
	write_file(in_dir("two"), "second-secret", 0600);
	struct td_config *c = load_keys("secret_access_key_file = one\naccess_key_id_2 = K2\n"
					"secret_access_key_file_2 = two\n",
					&said);
	assert_non_null(c);
	assert_string_equal(c->gw.users[0].keys[0].secret, "first-secret");
	assert_string_equal(c->gw.users[0].keys[1].secret, "second-secret");
	td_config_free(c);
	free(said);
	/* a credential of the unit goes before a file beside the configuration */
	assert_int_equal(mkdir(in_dir("cred"), 0700), 0);
	write_file(in_dir("cred/one"), "unit-secret\n", 0400);
	setenv("CREDENTIALS_DIRECTORY", in_dir("cred"), 1);
	c = load_keys("secret_access_key_file = one\naccess_key_id_2 = K2\nsecret_access_key_file_2 = two\n", &said);
	assert_non_null(c);
	assert_string_equal(c->gw.users[0].keys[0].secret, "unit-secret");
	assert_string_equal(c->gw.users[0].keys[1].secret, "second-secret");
	td_config_free(c);
	free(said);
	unsetenv("CREDENTIALS_DIRECTORY");
	refuses_keys("secret_access_key_file = none\n", ":8: secret_access_key_file: cannot read ");
	refuses_keys("secret_access_key_file = one\nsecret_access_key = s-of-tests\n", "only one of them");
	write_file(in_dir("one"), "short\n", 0600);
	refuses_keys("secret_access_key_file = one\n", ":8: secret_access_key: less than 8 characters");
	write_file(in_dir("one"), "two-lines-of\nthe-secret\n", 0600);
	refuses_keys("secret_access_key_file = one\n", "must hold the secret in one line");
	write_file(in_dir("one"), "first-secret\n", 0644);
	refuses_keys("secret_access_key_file = one\n", "others can read ");
	unlink(in_dir("one"));
	unlink(in_dir("two"));
	unlink(in_dir("cred/one"));
	rmdir(in_dir("cred"));
}

/* Missing files: mistakes when a role is to start, warnings else. */
static void test_missing(void **s)
{
	char *said = NULL;

	assert_null(load_said(F.path, TD_ROLE_GATEWAY | TD_ROLE_FILES, &said));
	snprintf(F.want, sizeof(F.want),
		 "%s:3: certificate: cannot read %s: No such file or directory\n%s:4: private_key: cannot read %s: "
		 "No such file or directory\n",
		 F.path, F.cert, F.path, F.key);
	assert_string_equal(said, F.want);
	free(said);
}

/* A key that others can read is refused; a file with secrets that others can read is a warning. */
static void test_readable_by_others(void **s)
{
	char *said = NULL;

	write_file(F.cert, F.pem, 0644);
	write_file(F.key, F.pem_key, 0604);
	assert_int_equal(chmod(F.path, 0644), 0);
	assert_null(load_said(F.path, TD_ROLE_GATEWAY | TD_ROLE_FILES, &said));
	snprintf(F.want, sizeof(F.want),
		 "warning: %s: others can read the secrets in this file (mode 0644); do: chmod 600 %s\n"
		 "%s:4: private_key: others can read %s (mode 0604); do: chmod 600 %s\n",
		 F.path, F.path, F.path, F.key, F.key);
	assert_string_equal(said, F.want);
	free(said);
}

/* The key of another certificate, and no certificate at all. */
static void test_of_the_wrong_kind(void **s)
{
	char *said = NULL;

	assert_int_equal(chmod(F.path, 0644), 0);
	for (int i = 0; i < 2; i++) {
		write_file(F.cert, i ? "garbage" : F.pem, 0644);
		write_file(F.key, F.other_key, 0600);
		assert_null(load_said(F.path, 0, &said));
		snprintf(F.want, sizeof(F.want), "%s:3: certificate: %s: ", F.path, F.cert);
		assert_non_null(strstr(said, F.want));
		free(said);
	}
}

static void test_as_they_should_be(void **s)
{
	char *said = NULL;

	write_file(F.cert, F.pem, 0644);
	write_file(F.key, F.pem_key, 0600);
	assert_int_equal(chmod(F.path, 0600), 0);
	struct td_config *c = load_said(F.path, TD_ROLE_GATEWAY | TD_ROLE_FILES, &said);
	assert_string_equal(said, "");
	assert_non_null(c);
	free(said);
	assert_string_equal(c->gw.certificate, F.cert);
	td_config_free(c);
}

/* Certificates that work today: a warning names the day that is near, and the name that is missing. */
static void dates_case(int64_t from_days, int64_t to_days, const char *url, const char *want)
{
	char *said = NULL, *pem, *pem_key, text[500];
	uint64_t now = (uint64_t)time(NULL);

	assert_int_equal(tnl_x509_make("a", "localhost,127.0.0.1", NULL, NULL, now + (uint64_t)(from_days * 86400),
				       now + (uint64_t)(to_days * 86400) + 600, &pem, &pem_key),
			 0);
	write_file(F.cert, pem, 0644);
	write_file(F.key, pem_key, 0600);
	snprintf(text, sizeof(text),
		 "[gateway]\nlisten = 127.0.0.1:0\ncertificate = c.pem\nprivate_key = k.pem\n%s"
		 "[user u]\naccess_key_id = K\nsecret_access_key = s-of-tests\ntargets = *\n"
		 "[instance i-1]\naccess_key_id = L\nsecret_access_key = s-of-tests\n",
		 url);
	write_file(F.path, text, 0600);
	struct td_config *c = load_said(F.path, TD_ROLE_GATEWAY | TD_ROLE_FILES, &said);
	assert_non_null(c);
	if (*want ? !strstr(said, want) || strncmp(said, "warning: ", 9) != 0 : *said)
		fail_msg("\"%s\" lacks \"%s\"", said, want);
	free(said);
	td_config_free(c);
	tnl_free(pem);
	tnl_free(pem_key);
}

static void test_certificates_that_end(void **s)
{
	char day[32], want[100];
	time_t then = time(NULL) + 3 * 86400 + 600;

	dates_case(-1, 14, "", "");
	strftime(day, sizeof(day), "%Y-%m-%d", gmtime(&then));
	snprintf(want, sizeof(want), "c.pem expires on %s, in 3 days", day);
	dates_case(-1, 3, "", want);
	dates_case(-3, -1, "", "g.ini:3: certificate: ");
	dates_case(-3, -1, "", "c.pem has expired on ");
	dates_case(1, 30, "", "c.pem is not valid before ");
	dates_case(-1, 30, "public_url = https://localhost:8443\n", "");
	dates_case(-1, 30, "public_url = https://127.0.0.1\n", "");
	dates_case(-1, 30, "public_url = https://gw.example.com:8443\n",
		   "c.pem is not for gw.example.com, the host of");
	dates_case(-1, 30, "public_url = https://[::1]:8443\n", "is not for ::1,");
	dates_case(-1, 30, "node = localhost\npeer_listen = 127.0.0.1:1\npeer_ca = c.pem\n", "");
	dates_case(-1, 30, "node = n1\npeer_listen = 127.0.0.1:1\npeer_ca = c.pem\n",
		   "c.pem has no subjectAltName n1, the name of this node");
}

/* Of the two one is of no use without the other, and the address is one that others can use. */
static void test_peers(void **s)
{
	static const struct {
		const char *keys, *said;
	} rows[] = {
	    {"peer_listen = 127.0.0.1:1", "peer_listen and peer_ca belong together"},
	    {"peer_ca = c.pem", "peer_listen and peer_ca belong together"},
	    {"peer_listen = 0.0.0.0:1", "is no address that other nodes could connect to"},
	    {"peer_listen = 127.0.0.1:0", "by which other nodes reach this one"},
	    {"peer_listen = unix:x", "by which other nodes reach this one"},
	    {"node = a-b", "is no node name"},
	    {"peer_listen = 0.0.0.0:1\npeer_ca = c.pem", "is no address that other nodes could connect to"},
	    {"peer_listen = 127.0.0.1:1\npeer_ca =", "peer_ca: the value is missing"},
	};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char *said = NULL, text[300];
		size_t n;
		FILE *f = open_memstream(&said, &n);
		snprintf(text, sizeof(text), "[gateway]\nlisten = 127.0.0.1:0\n%s\n", rows[i].keys);
		assert_null(td_config_parse(text, "t.ini", "/base", 0, f));
		fclose(f);
		if (!strstr(said, rows[i].said))
			fail_msg("%s: %s", rows[i].keys, said);
		if (strstr(rows[i].keys, "\npeer_ca") && strstr(said, "belong together")) /* one line for one fault */
			fail_msg("%s: %s", rows[i].keys, said);
		free(said);
	}
}

/* Authorities and client certificates of [aws] and its kin. */
static void test_aws(void **s)
{
	char *said = NULL;

	write_file(F.cert, F.pem, 0644);
	write_file(F.key, F.pem_key, 0600);
	snprintf(F.want, sizeof(F.want),
		 "[tunnel a]\nlisten = 127.0.0.1:0\ntarget = i-1\nport = 1\nca_file = %s\nclient_certificate = %s\n"
		 "client_key = k.pem\n[aws]\nca_file = k.pem\n",
		 F.cert, F.cert);
	write_file(F.path, F.want, 0600);
	assert_null(load_said(F.path, 0, &said));
	snprintf(F.want, sizeof(F.want), "%s:9: ca_file: %s: ", F.path, F.key);
	assert_ptr_equal(strstr(said, F.want), said);
	assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1);
	free(said);
}

static void test_no_configuration(void **s)
{
	char *said = NULL;

	unlink(F.path);
	assert_null(load_said(F.path, 0, &said));
	assert_non_null(strstr(said, "cannot read the configuration: No such file or directory\n"));
	free(said);
	assert_null(load_said(F.dir, 0, &said));
	assert_non_null(strstr(said, "cannot read the configuration: is a directory\n"));
	free(said);
}

/* A pipe that somebody holds open and writes nothing into would be waited for: it is refused wherever the configuration
 * names one, and so is what is longer than its kind ever is. */
static void refuses_file(const char *section, const char *key, const char *name, const char *why)
{
	char *said = NULL, want[200];
	snprintf(F.want, sizeof(F.want), "%s%s = %s\n", section, key, name);
	write_file(F.path, F.want, 0600);
	assert_null(load_said(F.path, TD_ROLE_FILES, &said));
	snprintf(want, sizeof(want), "%s: cannot read %s: %s\n", key, in_dir(name), why);
	if (!strstr(said, want))
		fail_msg("no \"%s\" in: %s", want, said);
	free(said);
}

static void test_neither_pipes_nor_long(void **s)
{
	static const char aws[] = "[aws]\nregion = eu-west-1\n", gateway[] = "[gateway]\nlisten = 127.0.0.1:0\n";
	static const char *const keys[][2] = {
	    {"", "include"},
	    {aws, "secret_access_key_file"},
	    {aws, "ca_file"},
	    {aws, "client_certificate"},
	    {aws, "client_key"},
	    {gateway, "certificate"},
	    {gateway, "private_key"},
	    {gateway, "client_ca"},
	    {gateway, "peer_ca"},
	    {gateway, "kms_key_file"},
	    {"[tunnel p]\ntype = proxy\nlisten = 127.0.0.1:0\ntarget = i-1\n", "proxy_auth"},
	};
	char *said = NULL;

	alarm(20);
	assert_int_equal(mkfifo(in_dir("pipe"), 0600), 0);
	int held = open(in_dir("pipe"), O_RDWR | O_CLOEXEC);
	assert_true(held >= 0);
	write_file(in_dir("long"), "", 0600);
	assert_int_equal(truncate(in_dir("long"), (off_t)1 << 40), 0);
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		refuses_file(keys[i][0], keys[i][1], "pipe", "is not a file");
		refuses_file(keys[i][0], keys[i][1], "long", "is too large");
	}
	/* the file itself may be one, but not for a process that serves */
	assert_null(load_said(in_dir("pipe"), TD_ROLE_AGAIN, &said));
	assert_non_null(strstr(said, "cannot read the configuration: is not a file\n"));
	free(said);
	close(held);
	unlink(in_dir("pipe"));
	unlink(in_dir("long"));
	alarm(0);
}

static void test_nul(void **s)
{
	char path[] = "/tmp/tunneld-test-XXXXXX", *said = NULL;
	size_t n;
	int fd = mkstemp(path);
	static const char text[] = "[tunneld]\nlog_level = in\0fo\n";
	assert_int_equal(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
	close(fd);
	FILE *f = open_memstream(&said, &n);
	assert_null(td_config_load(path, 0, f));
	fclose(f);
	assert_non_null(strstr(said, ":2: control character 0x00\n"));
	free(said);
	unlink(path);
}

static void test_find(void **s)
{
	char *p = td_config_find("x.ini");
	assert_string_equal(p, "x.ini");
	tnl_free(p);
	setenv("TUNNELD_CONFIG", "/env.ini", 1);
	p = td_config_find(NULL);
	assert_string_equal(p, "/env.ini");
	tnl_free(p);
	unsetenv("TUNNELD_CONFIG");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_missing, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_secret_files, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_readable_by_others, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_of_the_wrong_kind, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_as_they_should_be, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_certificates_that_end, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_aws, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_no_configuration, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_neither_pipes_nor_long, setup, teardown),
	    cmocka_unit_test(test_peers),
	    cmocka_unit_test(test_nul),
	    cmocka_unit_test(test_find),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
