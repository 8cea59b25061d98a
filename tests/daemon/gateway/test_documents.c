/* The document table: what an agent receives for each document, and which
 * parameters are refused. */
#include "lib/num.h"
#include "tunneld/gateway/internal.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

/* Parameters as StartSession carries them → what the agent gets, or the refusal. */
static int check(const char *doc, const char *in, const char *want)
{
	char why[200] = "";
	struct tnl_buf b;
	tnl_buf_init(&b, 32 * 1024);
	struct tnl_json *j = in ? tnl_json_parse(in, strlen(in)) : NULL;
	assert_true(!in || j);
	const struct gw_doc *d = gw_doc_find(doc);
	assert_non_null(d);
	int rc = gw_doc_parameters(d, j, &b, why, sizeof(why));
	if (want)
		assert_string_equal(rc == 0 ? tnl_buf_str(&b) : why, want);
	else
		assert_true(rc != 0 && why[0]);
	tnl_json_free(j);
	tnl_buf_fini(&b);
	return rc;
}

#define PF "AWS-StartPortForwardingSession"
#define RH "AWS-StartPortForwardingSessionToRemoteHost"
#define SSH "AWS-StartSSHSession"
#define IC "AWS-StartInteractiveCommand"
#define NIC "AWS-StartNonInteractiveCommand"
#define SHELL "SSM-SessionManagerRunShell"

static void test_accepted(void **state)
{
	check(PF, "{\"portNumber\":[\"5432\"],\"localPortNumber\":[\"15432\"]}",
	      "{\"portNumber\":\"5432\",\"localPortNumber\":\"15432\"}");
	check(PF, NULL, "{\"portNumber\":\"80\",\"localPortNumber\":\"0\"}");
	check(RH, "{\"host\":[\"db.internal\"],\"portNumber\":[\"1\"]}",
	      "{\"host\":\"db.internal\",\"portNumber\":\"1\",\"localPortNumber\":\"0\"}");
	check(RH, "{\"host\":[\"2001:db8::1\"],\"portNumber\":[\"65535\"]}",
	      "{\"host\":\"2001:db8::1\",\"portNumber\":\"65535\",\"localPortNumber\":\"0\"}");
	check(SSH, "{}", "{\"portNumber\":\"22\"}");
	check(SHELL, NULL, "{}");
	check(NULL, NULL, "{}");
	check(IC, "{\"command\":[\"ls -l \\\"a b\\\" | wc; $HOME\"]}",
	      "{\"command\":\"ls -l \\\"a b\\\" | wc; $HOME\"}");
}

static void test_refused(void **state)
{
	static const char *const ports[] = {"",
					    "0",
					    "65536",
					    "-1",
					    "+1",
					    "080",
					    "8 0",
					    "eighty",
					    "80x",
					    "100000",
					    "\xc2\xb2",
					    "22 ",
					    " 22",
					    "22\\n",
					    "0x16",
					    "1e3",
					    "\\u001f22",
					    "{{ x }}",
					    "\xef\xbc\x92\xef\xbc\x92"};
	char in[100];
	for (size_t i = 0; i < TNL_COUNT(ports); i++) {
		snprintf(in, sizeof(in), "{\"portNumber\":[\"%s\"]}", ports[i]);
		check(PF, in, NULL);
		check(SSH, in, NULL);
	}
	static const char *const hosts[] = {"",	   " ",	 "a b", "a;b", "$(id)", "{{ portNumber }}",
					    "a,b", "-x", "a`b", "a|b", "a'b"};
	for (size_t i = 0; i < TNL_COUNT(hosts); i++) {
		snprintf(in, sizeof(in), "{\"host\":[\"%s\"]}", hosts[i]);
		check(RH, in, NULL);
	}
	check(PF, "{\"port\":[\"80\"]}", "Parameter \"port\" is not defined in document " PF);
	check(SHELL, "{\"x\":[\"1\"]}", NULL);
	check(IC, "{}", "Parameter \"command\" is required by document " IC);
	check(IC, "{\"command\":[\"\"]}", NULL);
	check(PF, "{\"portNumber\":\"80\"}", "Parameter \"portNumber\" must be a list of one string");
	check(PF, "{\"portNumber\":[]}", NULL);
	check(PF, "{\"portNumber\":[\"1\",\"2\"]}", NULL);
	check(PF, "{\"portNumber\":[80]}", NULL);
	check(PF, "{\"portNumber\":[null]}", NULL);
	check(PF, "{\"portNumber\":null}", NULL);
	check(PF, "{\"portNumber\":[[\"80\"]]}", NULL);
	check(PF, "{\"portNumber\":{\"0\":\"80\"}}", NULL);
	check(PF, "{\"localPortNumber\":[\"-1\"]}", NULL);
	check(PF, "{\"\":[\"80\"]}", NULL);
	check(PF, "null", NULL);
	check(PF, "[]", NULL);
	assert_null(gw_doc_find("AWS-RunShellScript"));
	assert_null(gw_doc_find("aws-startsshsession"));
}

static struct tnl_json *content(const char *doc, const char *key)
{
	struct tnl_buf b;
	tnl_buf_init(&b, 32 * 1024);
	const struct gw_doc_prefs p = {key};
	assert_int_equal(gw_doc_content(gw_doc_find(doc), &p, &b), 0);
	struct tnl_json *j = tnl_json_parse(tnl_buf_data(&b), tnl_buf_len(&b));
	assert_non_null(j);
	tnl_buf_fini(&b);
	return j;
}

static void same_json(const struct tnl_json *v, const char *want)
{
	struct tnl_buf b;
	tnl_buf_init(&b, 32 * 1024);
	assert_int_equal(tnl_json_print(v, &b), 0);
	assert_string_equal(tnl_buf_str(&b), want);
	tnl_buf_fini(&b);
}

static void test_content(void **state)
{
	static const char *const types[][2] = {{PF, "Port"},
					       {RH, "Port"},
					       {SSH, "Port"},
					       {SHELL, "Standard_Stream"},
					       {IC, "InteractiveCommands"},
					       {NIC, "NonInteractiveCommands"}};
	for (size_t i = 0; i < TNL_COUNT(types); i++) {
		struct tnl_json *j = content(types[i][0], "");
		assert_string_equal(tnl_json_get_str(j, "schemaVersion"), "1.0");
		assert_string_equal(tnl_json_get_str(j, "sessionType"), types[i][1]);
		assert_int_equal(tnl_json_get(j, "inputs") == NULL, gw_doc_is_port(gw_doc_find(types[i][0])));
		tnl_json_free(j);
	}
	struct tnl_json *j = content(PF, "");
	same_json(tnl_json_get(j, "properties"),
		  "{\"portNumber\":\"{{ portNumber }}\",\"type\":\"LocalPortForwarding\","
		  "\"localPortNumber\":\"{{ localPortNumber }}\"}");
	assert_string_equal(tnl_json_get_str(tnl_json_get(tnl_json_get(j, "parameters"), "portNumber"), "default"),
			    "80");
	tnl_json_free(j);
	j = content(SSH, ""); /* no type: one byte stream */
	same_json(tnl_json_get(j, "properties"), "{\"portNumber\":\"{{ portNumber }}\"}");
	tnl_json_free(j);
	j = content(NIC, "");
	same_json(tnl_json_get(tnl_json_get(j, "properties"), "linux"),
		  "{\"commands\":\"{{ command }}\",\"runAsElevated\":false,\"separateOutputStream\":true}");
	tnl_json_free(j);
}

/* The captured shell document: the same preferences, with our key in them when sessions are to be encrypted. */
static void test_inputs(void **state)
{
	struct tnl_json *j = content(SHELL, "");
	same_json(
	    tnl_json_get(j, "inputs"),
	    "{\"s3BucketName\":\"\",\"s3KeyPrefix\":\"\",\"s3EncryptionEnabled\":true,"
	    "\"cloudWatchLogGroupName\":\"\",\"cloudWatchEncryptionEnabled\":true,\"cloudWatchStreamingEnabled\":false,"
	    "\"kmsKeyId\":\"\",\"runAsEnabled\":false,\"runAsDefaultUser\":\"\",\"shellProfile\":{\"windows\":\"\",\"linux\":\"\"}}");
	assert_null(tnl_json_get(j, "properties"));
	tnl_json_free(j);
	j = content(SHELL, "arn:k");
	assert_string_equal(tnl_json_get_str(tnl_json_get(j, "inputs"), "kmsKeyId"), "arn:k");
	tnl_json_free(j);
	j = content(PF, "arn:k");
	assert_string_equal(tnl_json_get_str(tnl_json_get(j, "inputs"), "kmsKeyId"), "arn:k");
	tnl_json_free(j);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_accepted),
	    cmocka_unit_test(test_refused),
	    cmocka_unit_test(test_content),
	    cmocka_unit_test(test_inputs),
	};
	return cmocka_run_group_tests_name("documents", tests, NULL, NULL);
}
