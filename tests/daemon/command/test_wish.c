/* Whose word counts for the plugin: the command line's, not the far end's. */
#include "tests/daemon/base/td_test.h"
#include "tunneld/command/wish.h"

static char out[300], why[200];

/* -1, or 0 and where to listen in `out`. */
static int where(const char *parameters, const char *properties)
{
	struct td_wish w;
	struct tnl_json *p = tnl_json_parse(properties, strlen(properties));
	out[0] = why[0] = '\0';
	td_wish_init(&w, parameters);
	int r = td_wish_listen(&w, p, out, sizeof(out), why, sizeof(why));
	td_wish_fini(&w);
	tnl_json_free(p);
	return r;
}

#define PORT "AWS-StartPortForwardingSession"
#define ASK(document, parameters)                                                                                      \
	"{\"Target\":\"i-1\",\"DocumentName\":\"" document "\",\"Parameters\":{" parameters "}}"

static void own_words(void **state)
{
	assert_int_equal(where(ASK(PORT, "\"localPortNumber\":[\"5000\"]"), "{\"localPortNumber\":\"22\"}"), 0);
	assert_string_equal(out, "127.0.0.1:5000");
	assert_int_equal(where(ASK(PORT, "\"localUnixSocket\":[\"/run/me\"]"),
			       "{\"localConnectionType\":\"unix\",\"localUnixSocket\":\"/run/docker.sock\"}"),
			 0);
	assert_string_equal(out, "unix:/run/me");
}

static void not_the_far_ends(void **state)
{
	assert_int_equal(where(ASK(PORT, ""), "{\"localPortNumber\":\"5000\"}"), 0);
	assert_string_equal(out, "127.0.0.1:0");
	assert_int_equal(where("{\"Target\":\"i-1\"}", "{\"localPortNumber\":\"5000\"}"), 0);
	assert_string_equal(out, "127.0.0.1:0");
	assert_int_equal(where(NULL, "{\"localPortNumber\":\"5000\"}"), 0);
	assert_string_equal(out, "127.0.0.1:0");
	assert_int_equal(where("no JSON", "{}"), 0);
	assert_string_equal(out, "127.0.0.1:0");
	const char *const sockets[] = {ASK(PORT, ""), ASK("Mine", ""), "{}", NULL};
	for (size_t i = 0; i < 4; i++) {
		assert_int_equal(where(sockets[i], "{\"localConnectionType\":\"unix\",\"localUnixSocket\":\"/run/x\"}"),
				 -1);
		assert_non_null(strstr(why, "pass localUnixSocket"));
	}
}

/* The far end may repeat what a document of one's own says, as long as that takes no privilege. */
static void own_documents(void **state)
{
	assert_int_equal(where(ASK("Mine", ""), "{\"localPortNumber\":\"5000\"}"), 0);
	assert_string_equal(out, "127.0.0.1:5000");
	const char *const bad[] = {"22", "65536", "1023", "5000@evil", "-1", "5000\\u001b[2J"};
	for (size_t i = 0; i < 6; i++) {
		char properties[100];
		snprintf(properties, sizeof(properties), "{\"localPortNumber\":\"%s\"}", bad[i]);
		assert_int_equal(where(ASK("Mine", ""), properties), -1);
		assert_non_null(strstr(why, "pass localPortNumber"));
	}
	assert_int_equal(where(ASK("Mine", "\"localPortNumber\":[\"22\"]"), "{\"localPortNumber\":\"5000\"}"), 0);
	assert_string_equal(out, "127.0.0.1:22");
}

static void kinds(void **state)
{
	static const struct {
		const char *document;
		const char *modes; /* those that it may be: m, b, 1, s, c */
	} rows[] = {{ASK(PORT, ""), "mb"},
		    {ASK("AWS-StartPortForwardingSessionToRemoteHost", ""), "mb"},
		    {ASK("AWS-StartSSHSession", ""), "1"},
		    {ASK("SSM-SessionManagerRunShell", ""), "s"},
		    {ASK("AWS-StartInteractiveCommand", ""), "s"},
		    {ASK("AWS-StartNonInteractiveCommand", ""), "c"},
		    {ASK("Mine", ""), "mb1sc"},
		    {"{\"Target\":\"i-1\"}", "mb1sc"},
		    {NULL, "mb1sc"}};
	static const struct {
		char letter;
		enum tnl_session_mode mode;
	} modes[] = {{'m', TNL_MODE_MUX},
		     {'b', TNL_MODE_BASIC},
		     {'1', TNL_MODE_SINGLE},
		     {'s', TNL_MODE_SHELL},
		     {'c', TNL_MODE_COMMAND}};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct td_wish w;
		td_wish_init(&w, rows[i].document);
		for (size_t k = 0; k < 5; k++)
			assert_int_equal(td_wish_allows(&w, modes[k].mode),
					 strchr(rows[i].modes, modes[k].letter) != NULL);
		td_wish_fini(&w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(own_words),
	    cmocka_unit_test(not_the_far_ends),
	    cmocka_unit_test(own_documents),
	    cmocka_unit_test(kinds),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
