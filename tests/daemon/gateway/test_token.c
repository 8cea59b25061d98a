/* Tokens by themselves: used once, bound, expired, the oldest gives way. */
#include "tunneld/gateway/internal.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static struct td_loop loop = {.now = 1000 * TD_SEC, .wall_ms = 1795338608809ull};
static struct td_config cfg = {.gw.token_ttl_ns = 60 * TD_SEC};
static struct td_gateway gateway = {.l = &loop, .cfg = &cfg}, *g = &gateway;
static struct gw_tokens t;
static struct gw_marks keys = {.v = {"first", "second"}, .n = 2};
static uint8_t mark[GW_MARK];
static char token[GW_TOKENS + 1][GW_TOKEN_STR + 1];

static int begin(void **state)
{
	memset(&t, 0, sizeof(t));
	memset(gateway.counters, 0, sizeof(gateway.counters));
	loop.wall_ms = 1795338608809ull;
	return 0;
}

static void refused(const char *tok, const char *client_id, int err, const char *why)
{
	const char *field = NULL;
	assert_int_equal(gw_token_use(g, &t, &keys, tok, client_id, mark, &field), err);
	assert_string_equal(field, why);
}

static void taken(const char *tok, const char *client_id)
{
	const char *field = NULL;
	assert_int_equal(gw_token_use(g, &t, &keys, tok, client_id, mark, &field), 0);
	assert_null(field);
}

static void test_once(void **state)
{
	gw_token_new(g, &t, keys.v[0], NULL, token[0]);
	gw_token_new(g, &t, keys.v[0], NULL, token[1]);
	assert_int_equal(strlen(token[0]), GW_TOKEN_STR);
	assert_string_not_equal(token[0], token[1]);
	taken(token[0], "any");
	refused(token[0], "any", TNL_EAUTH, "token");
	taken(token[1], "");
	assert_int_equal(t.n, 0);
	assert_int_equal(gateway.counters[GW_C_TOKENS_ISSUED], 2);
	assert_int_equal(gateway.counters[GW_C_TOKENS_USED], 2);
}

static void test_bound(void **state)
{
	gw_token_new(g, &t, keys.v[0], "one", token[0]);
	gw_token_new(g, &t, keys.v[0], NULL, token[1]);
	gw_token_new(g, &t, keys.v[0], NULL, token[2]);
	refused(token[0], "two", TNL_EAUTH, "ClientId");
	refused(token[0], "one", TNL_EAUTH, "token"); /* spent by that */
	gw_tokens_bind(&t, "three");
	refused(token[1], "one", TNL_EAUTH, "ClientId");
	taken(token[2], "three");
}

static void test_expiry(void **state)
{
	assert_true(gw_tokens_deadline(&t, &loop) == UINT64_MAX);
	gw_token_new(g, &t, keys.v[0], NULL, token[0]);
	loop.wall_ms += 20000;
	gw_token_new(g, &t, keys.v[0], NULL, token[1]);
	assert_true(gw_tokens_deadline(&t, &loop) == loop.now + 40 * TD_SEC);
	assert_false(gw_tokens_drop_expired(&t, loop.wall_ms));
	loop.wall_ms += 40000;
	assert_true(gw_tokens_deadline(&t, &loop) == loop.now);
	refused(token[0], "any", TNL_EEXPIRED, "token expiry");
	assert_int_equal(t.n, 1);
	loop.wall_ms += 20000;
	assert_true(gw_tokens_drop_expired(&t, loop.wall_ms));
	assert_int_equal(t.n, 0);
	refused(token[1], "any", TNL_EAUTH, "token");
}

static void test_oldest_gives_way(void **state)
{
	for (unsigned i = 0; i <= GW_TOKENS; i++)
		gw_token_new(g, &t, keys.v[0], NULL, token[i]);
	assert_int_equal(t.n, GW_TOKENS);
	refused(token[0], "any", TNL_EAUTH, "token");
	for (unsigned i = GW_TOKENS; i > 0; i--) /* in any order */
		taken(token[i], "any");
}

/* Void as soon as the key that it was granted to has gone, whatever other keys its owner has. */
static void test_key(void **state)
{
	const char *field = NULL;
	struct gw_marks other = {.v = {"third", "second"}, .n = 2}, none = {.n = 0};
	gw_token_new(g, &t, keys.v[0], NULL, token[0]);
	gw_token_new(g, &t, keys.v[1], NULL, token[1]);
	assert_int_equal(gw_token_use(g, &t, &other, token[0], "any", mark, &field), TNL_EAUTH);
	assert_string_equal(field, "token");
	assert_int_equal(gw_token_use(g, &t, &none, token[1], "any", mark, &field), TNL_EAUTH);
	assert_int_equal(gw_token_use(g, &t, &other, token[1], "any", mark, &field), 0);
	assert_memory_equal(mark, "second", 6);
	taken(token[0], "any");
	assert_memory_equal(mark, "first", 5);
}

int main(void)
{
#define T2(name) cmocka_unit_test_setup(name, begin)
	const struct CMUnitTest tests[] = {T2(test_once), T2(test_bound), T2(test_expiry), T2(test_oldest_gives_way),
					   T2(test_key)};
	return cmocka_run_group_tests_name("gateway tokens", tests, NULL, NULL);
}
