/* What a user may do: documents, ports and hosts beside targets. */
#include "tunneld/gateway/internal.h"
#include "lib/num.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#define SHELL "SSM-SessionManagerRunShell"
#define PORT "AWS-StartPortForwardingSession"
#define REMOTE PORT "ToRemoteHost"
#define SSH "AWS-StartSSHSession"

static struct td_strlist list(const char *const v[4])
{
	struct td_strlist l = {.v = (char **)(uintptr_t)v};
	while (l.n < 4 && v[l.n])
		l.n++;
	return l;
}

static const struct {
	const char *documents[4], *ports[4], *hosts[4];
	const char *document, *parameters, *denied;
} cases[] = {
    {{0}, {0}, {0}, SHELL, "{}", NULL},
    {{0}, {0}, {0}, REMOTE, "{\"host\":\"db\",\"portNumber\":\"5432\"}", NULL},
    {{"*Port*"}, {0}, {0}, SHELL, "{}", "document"},
    {{"*Port*"}, {0}, {0}, REMOTE, "{\"host\":\"db\",\"portNumber\":\"5432\"}", NULL},
    {{SSH, PORT}, {0}, {0}, REMOTE, "{\"host\":\"db\",\"portNumber\":\"5432\"}", "document"},
    {{0}, {"22", "5000-6000"}, {0}, SSH, "{\"portNumber\":\"22\"}", NULL},
    {{0}, {"22", "5000-6000"}, {0}, SSH, "{\"portNumber\":\"23\"}", "port"},
    {{0}, {"22", "5000-6000"}, {0}, PORT, "{\"portNumber\":\"6000\"}", NULL},
    {{0}, {"22", "5000-6000"}, {0}, PORT, "{\"portNumber\":\"6001\"}", "port"},
    {{0}, {"80*"}, {0}, PORT, "{\"portNumber\":\"8080\"}", NULL},
    {{0}, {"80*"}, {0}, PORT, "{\"portNumber\":\"1080\"}", "port"},
    {{0}, {"*"}, {0}, PORT, "{\"portNumber\":\"1\"}", NULL},
    {{0}, {"22"}, {0}, SHELL, "{}", "document"}, /* a list of ports means ports */
    {{"*"}, {"22"}, {0}, SHELL, "{}", NULL},	 /* unless shells are named */
    {{0}, {0}, {"*.internal"}, REMOTE, "{\"host\":\"DB.Internal\",\"portNumber\":\"1\"}", NULL},
    {{0}, {0}, {"*.internal"}, REMOTE, "{\"host\":\"db.internal.example\",\"portNumber\":\"1\"}", "host"},
    {{0}, {0}, {"*.internal"}, PORT, "{\"portNumber\":\"1\"}", "host"}, /* the target itself */
    {{0}, {0}, {"localhost"}, PORT, "{\"portNumber\":\"1\"}", NULL},
    {{0}, {0}, {"10.0.*"}, REMOTE, "{\"host\":\"10.0.7.7\",\"portNumber\":\"1\"}", NULL},
    {{0}, {0}, {"10.0.*"}, REMOTE, "{\"host\":\"10.0.evil.example\",\"portNumber\":\"1\"}", "host"},
    {{0}, {0}, {"localhost"}, "no-such-document", "{}", "document"},
};

static void test_rights(void **state)
{
	for (size_t i = 0; i < TNL_COUNT(cases); i++) {
		const struct td_user_config u = {.documents = list(cases[i].documents),
						 .ports = list(cases[i].ports),
						 .hosts = list(cases[i].hosts)};
		const char *denied = gw_rights_session(&u, cases[i].document, cases[i].parameters);
		if ((denied != NULL) != (cases[i].denied != NULL) || (denied && strcmp(denied, cases[i].denied) != 0))
			fail_msg("case %zu: %s denied, not %s", i, denied ? denied : "nothing",
				 cases[i].denied ? cases[i].denied : "nothing");
	}
}

/* The agent is told that streams may go anywhere only where nothing limits that. */
static void test_anywhere(void **state)
{
	const char *const some[4] = {"db"}, *const all[4] = {"*"};
	const struct td_user_config free = {.documents = list(all)}, hosts = {.hosts = list(some)},
				    ports = {.ports = list(all)};
	assert_true(gw_rights_anywhere(&free, REMOTE));
	assert_false(gw_rights_anywhere(&free, PORT));
	assert_false(gw_rights_anywhere(&free, SSH));
	assert_false(gw_rights_anywhere(&hosts, REMOTE));
	assert_false(gw_rights_anywhere(&ports, REMOTE));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_rights), cmocka_unit_test(test_anywhere)};
	return cmocka_run_group_tests_name("gateway rights", tests, NULL, NULL);
}
