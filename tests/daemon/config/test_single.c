/* One tunnel out of a configuration: every setting comes along, but where it listens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "lib/alloc.h"
#include "tunneld/config/internal.h"

#define COMMON                                                                                                         \
	"target = i-1\nport = 5432\nhost = db\ndocument = Doc\nreason = r\nkeepalive = no\nmessage_rate = 0\n"         \
	"connect_timeout = 7s\nidle_timeout = 3m\nlinks = 3\nsession_memory = 4M\nprofile = other\n"                   \
	"stream_hosts = a.example, b.example\nuse_fips = yes\n"

static struct td_config *parse(const char *text)
{
	struct td_config *c = td_config_parse(text, "t.ini", "/", 0, stderr);
	assert_non_null(c);
	return c;
}

/* A type that nobody can copy would be lost without a word. */
static void every_type_is_copied(void **state)
{
	for (const struct td_opt *o = NULL; (o = td_opt_next(TD_SECTION_TUNNEL, o)) != NULL;)
		if (o->type != &td_types[TD_T_LISTEN] && !o->type->inherit && !o->type->size)
			fail_msg("%s is of a type that is not copied", o->key);
}

static void a_tunnel(void **state)
{
	long before = tnl_alloc_live();
	struct td_addr at[2];
	const char *fault;
	struct td_config *c = parse("[tunneld]\ndrain_timeout = 3s\n[aws]\nregion = eu-west-1\n[tunnel a]\nlisten = "
				    "127.0.0.1:1\nmax_connections = 3\nsession = pool 4\n" COMMON
				    "[tunnel b]\nlisten = 127.0.0.1:2\ntarget = i-1\nport = 2\n");
	assert_int_equal(td_addr_parse("127.0.0.1:7", &at[0], 1, &fault), 1);
	struct td_config *one = td_config_single(c, &c->fwd.tunnels[0], at, 1);

	assert_int_equal(one->fwd.ntunnels, 1);
	assert_true(one->fwd.drain_timeout_ns == 3000000000u);
	assert_false(td_tunnel_same(&one->fwd.tunnels[0], &c->fwd.tunnels[0])); /* it listens elsewhere */
	td_config_free(one);

	assert_int_equal(td_addr_parse("127.0.0.1:1", &at[0], 1, &fault), 1);
	one = td_config_single(c, &c->fwd.tunnels[0], at, 1);
	assert_true(td_tunnel_same(&one->fwd.tunnels[0], &c->fwd.tunnels[0]));
	td_config_name_host(&one->fwd.tunnels[0], NULL, 80);
	assert_null(one->fwd.tunnels[0].host);
	assert_int_equal(one->fwd.tunnels[0].port, 80);
	td_config_free(c); /* nothing is shared */
	assert_string_equal(one->fwd.tunnels[0].aws.region, "eu-west-1");
	td_config_free(one);
	assert_int_equal(tnl_alloc_live(), before);
}

static void an_alias(void **state)
{
	struct td_config *c = parse("[aws]\nregion = eu-west-1\n[alias web]\n" COMMON);
	struct td_config *one = td_config_single(c, &c->fwd.aliases[0], NULL, 0);
	const struct td_tunnel_config *t = &one->fwd.tunnels[0];

	assert_string_equal(t->name, "web");
	assert_string_equal(t->host, "db");
	assert_int_equal(t->port, 5432);
	assert_int_equal(t->links, 3);
	assert_true(t->message_rate_set);
	assert_int_equal(t->max_connections, 200); /* what an alias has not keeps its default */
	assert_int_equal(t->aws.use_fips, 1);
	assert_string_equal(t->aws.stream_hosts.v[1], "b.example");
	assert_int_equal(t->naddrs, 0);
	td_config_free(one);
	td_config_free(c);
}

static void a_proxy(void **state)
{
	struct td_config *c = parse("[tunnel p]\ntype = proxy\nlisten = 127.0.0.1:1\ntarget = i-1\nregion = eu-west-1\n"
				    "allow = *.internal:443, 10.0.0.0/8:*\n");
	struct td_config *one = td_config_single(c, &c->fwd.tunnels[0], c->fwd.tunnels[0].addrs, 1);
	td_config_free(c); /* nothing is shared */
	const struct td_rules *r = &one->fwd.tunnels[0].allow;
	assert_true(r->set && r->n == 2 && r->v[1].is_cidr);
	assert_string_equal(r->v[0].host, "*.internal");
	td_config_free(one);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_proxy),
	    cmocka_unit_test(every_type_is_copied),
	    cmocka_unit_test(a_tunnel),
	    cmocka_unit_test(an_alias),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
