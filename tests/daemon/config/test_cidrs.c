/* Lists of networks: what is taken, what is refused, and which addresses are in them. */
#include "tunneld/config/internal.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define GW "[gateway]\nlisten = 127.0.0.1:0\ncertificate = c\nprivate_key = k\n"

/* *said: what was printed (free). */
static struct td_config *parse(const char *networks, char **said)
{
	size_t n;
	char text[400];
	FILE *f = open_memstream(said, &n);
	snprintf(text, sizeof(text), GW "proxy_protocol = %s\n", networks);
	struct td_config *c = td_config_parse(text, "t.ini", "/base", 0, f);
	fclose(f);
	return c;
}

static void test_taken(void **s)
{
	static const struct {
		const char *address;
		bool in;
	} rows[] = {{"10.1.255.255:1", true},	{"10.2.0.0:1", false},	       {"192.0.2.7:9", true},
		    {"192.0.2.8:9", false},	{"[2001:db8::1]:5", true},     {"[2001:db9::1]:5", false},
		    {"127.0.0.1:1", false},	{"[::ffff:10.1.0.1]:1", true}, {"[::ffff:10.2.0.1]:1", false},
		    {"198.51.100.127:1", true}, {"198.51.100.128:1", false}};
	char *said = NULL;
	struct td_config *c = parse("10.1.0.0/16, 192.0.2.7 ,2001:db8::/32, 198.51.100.0/25", &said);
	assert_non_null(c);
	assert_int_equal(c->gw.proxy_protocol.n, 4);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct td_addr a;
		const char *fault = "";
		assert_int_equal(td_addr_parse(rows[i].address, &a, 1, &fault), 1);
		if (td_cidrs_have(&c->gw.proxy_protocol, &a) != rows[i].in)
			fail_msg("%s", rows[i].address);
	}
	struct td_addr local = {.len = sizeof(local.un)};
	local.un.sun_family = AF_UNIX;
	assert_false(td_cidrs_have(&c->gw.proxy_protocol, &local));
	free(said);
	td_config_free(c);
}

static void test_refused(void **s)
{
	static const char lines[] =
	    "t.ini:5: proxy_protocol = lb.example: must be an address or ADDRESS/BITS\n"
	    "t.ini:5: proxy_protocol = 10.0.0.0/33: the prefix length is not a number from 0 to 32\n"
	    "t.ini:5: proxy_protocol = 10.1.0.0/8: the address has bits set behind its prefix length\n"
	    "t.ini:5: proxy_protocol = x/8: the address before the / is malformed\n"
	    "t.ini:5: proxy_protocol = : an entry of the list is empty\n";
	char *said = NULL;
	assert_null(parse("lb.example, 10.0.0.0/33, 10.1.0.0/8, x/8, 10.0.0.0/8,", &said));
	assert_non_null(strstr(said, lines)); /* behind the warnings */
	free(said);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_taken), cmocka_unit_test(test_refused)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
