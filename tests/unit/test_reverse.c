/* Words about listeners, the head of a connection's SYN, and the SYN that carries it. */
#include "tests/unit/check.h"
#include "lib/alloc.h"
#include "lib/num.h"
#include "lib/reverse.h"
#include "lib/smux.h"
#include <string.h>

static struct tnl_reverse there_and_back(const struct tnl_reverse *r)
{
	struct tnl_reverse out;
	struct tnl_buf b;

	tnl_buf_init(&b, TNL_REVERSE_JSON);
	assert_int_equal(tnl_reverse_write(&b, r), 0);
	assert_int_equal(tnl_reverse_parse(tnl_buf_data(&b), tnl_buf_len(&b), &out), 0);
	tnl_buf_fini(&b);
	assert_int_equal(out.kind, r->kind);
	assert_int_equal(out.id, r->id);
	return out;
}

static void words(void **state)
{
	struct tnl_reverse listen = {
	    .kind = TNL_REVERSE_LISTEN, .id = 1, .bind = "[::1]:9000", .most = 200, .client = "00ff"};
	struct tnl_reverse listening = {.kind = TNL_REVERSE_LISTENING, .id = UINT16_MAX, .bind = "unix:/run/x.sock"};
	struct tnl_reverse refused = {.kind = TNL_REVERSE_REFUSED, .id = 2, .why = "in use \"there\"", .again = true};
	struct tnl_reverse unlisten = {.kind = TNL_REVERSE_UNLISTEN, .id = 3};
	struct tnl_reverse got = there_and_back(&listen);

	(void)state;
	assert_string_equal(got.bind, "[::1]:9000");
	assert_string_equal(got.client, "00ff");
	assert_int_equal(got.most, 200);
	got = there_and_back(&listening);
	assert_string_equal(got.bind, "unix:/run/x.sock");
	got = there_and_back(&refused);
	assert_string_equal(got.why, "in use \"there\"");
	assert_true(got.again);
	there_and_back(&unlisten);
	listen.client[0] = '\0';
	assert_string_equal(there_and_back(&listen).client, "");
}

static void bad_words(void **state)
{
	static const char *const bad[] = {
	    "",
	    "[]",
	    "{}",
	    "{\"Do\":\"dance\",\"Id\":1}",
	    "{\"Do\":\"unlisten\"}",
	    "{\"Do\":\"unlisten\",\"Id\":0}",
	    "{\"Do\":\"unlisten\",\"Id\":65536}",
	    "{\"Do\":\"unlisten\",\"Id\":-1}",
	    "{\"Do\":\"unlisten\",\"Id\":\"1\"}",
	    "{\"Do\":\"listen\",\"Id\":1,\"Most\":1,\"Client\":\"\"}",
	    "{\"Do\":\"listen\",\"Id\":1,\"Bind\":\"\",\"Most\":1,\"Client\":\"\"}",
	    "{\"Do\":\"listen\",\"Id\":1,\"Bind\":\"a b\",\"Most\":1,\"Client\":\"\"}",
	    "{\"Do\":\"listen\",\"Id\":1,\"Bind\":\"a\\n\",\"Most\":1,\"Client\":\"\"}",
	    "{\"Do\":\"listen\",\"Id\":1,\"Bind\":\"1:1\",\"Most\":0,\"Client\":\"\"}",
	    "{\"Do\":\"listen\",\"Id\":1,\"Bind\":\"1:1\",\"Most\":65536,\"Client\":\"\"}",
	    "{\"Do\":\"listen\",\"Id\":1,\"Bind\":\"1:1\",\"Most\":1}",
	    "{\"Do\":\"listen\",\"Id\":1,\"Bind\":\"1:1\",\"Most\":1,\"Client\":"
	    "\"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff0\"}",
	    "{\"Do\":\"listening\",\"Id\":1}",
	};
	char large[TNL_REVERSE_JSON + 100];
	struct tnl_reverse r;

	(void)state;
	for (size_t i = 0; i < TNL_COUNT(bad); i++)
		if (tnl_reverse_parse(bad[i], strlen(bad[i]), &r) == 0)
			fail_msg("taken: %s", bad[i]);
	memset(large, ' ', sizeof(large));
	memcpy(large, "{\"Do\":\"unlisten\",\"Id\":1}", 24);
	assert_int_equal(tnl_reverse_parse(large, TNL_REVERSE_JSON, &r), 0);
	assert_int_equal(tnl_reverse_parse(large, TNL_REVERSE_JSON + 1, &r), TNL_ESYNTAX);
	assert_int_equal(tnl_alloc_live(), 0);
}

static void heads(void **state)
{
	uint8_t p[TNL_SMUX_WORDS + 1];
	char from[TNL_SMUX_WORDS], longer[200];
	uint16_t id = 0;
	size_t n = tnl_reverse_head_write(p, 300, "192.0.2.7:50000");

	(void)state;
	assert_true(tnl_reverse_head_parse(p, n, &id, from));
	assert_int_equal(id, 300);
	assert_string_equal(from, "192.0.2.7:50000");
	n = tnl_reverse_head_write(p, 1, "");
	assert_true(tnl_reverse_head_parse(p, n, &id, from));
	assert_string_equal(from, "");
	assert_false(tnl_reverse_head_parse(p, n - 1, &id, from));
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	n = tnl_reverse_head_write(p, 1, longer);
	assert_int_equal(n, TNL_SMUX_WORDS);
	assert_true(tnl_reverse_head_parse(p, n, &id, from));
	assert_false(tnl_reverse_head_parse(p, n + 1, &id, from));
	n = tnl_reverse_head_write(p, 0, "192.0.2.7:50000");
	assert_false(tnl_reverse_head_parse(p, n, &id, from));
	n = tnl_reverse_head_write(p, 1, "unix:/a b");
	assert_true(tnl_reverse_head_parse(p, n, &id, from));
	assert_string_equal(from, "unix:/a?b");
	p[5] = ' ';
	assert_false(tnl_reverse_head_parse(p, n, &id, from));
}

/* A SYN with words: whole at any cut, only where they were agreed on, and bounded. */
static void words_of_a_syn(void **state)
{
	uint8_t in[TNL_SMUX_HDR + TNL_SMUX_WORDS + 1] = {0};
	struct tnl_smux_parser p;
	struct tnl_smux_event e;

	(void)state;
	static const size_t lengths[] = {0, 1, TNL_SMUX_WORDS / 2, TNL_SMUX_WORDS, TNL_SMUX_WORDS + 1};
	for (size_t i = 0; i < TNL_COUNT(lengths); i++) {
		size_t words = lengths[i];
		const struct tnl_smux_frame f = {2, TNL_SMUX_SYN, (uint16_t)words, 2};
		size_t n = TNL_SMUX_HDR + words;
		tnl_smux_write(in, &f);
		memset(in + TNL_SMUX_HDR, 'w', words);
		for (size_t cut = 0; cut < n; cut++) {
			const uint8_t *at = in;
			size_t left = cut, rest = n - cut;
			tnl_smux_parser_init(&p, 2, true);
			p.syn_words = true;
			int rc = tnl_smux_next(&p, &at, &left, &e);
			if (rc == 0)
				rc = tnl_smux_next(&p, &at, &rest, &e);
			assert_int_equal(rc, words <= TNL_SMUX_WORDS ? 1 : TNL_EPROTO);
			if (rc != 1)
				continue;
			assert_true(e.cmd == TNL_SMUX_SYN && e.id == 2 && e.len == words);
			assert_memory_equal(e.data, in + TNL_SMUX_HDR, words);
		}
		const uint8_t *at = in;
		tnl_smux_parser_init(&p, 2, true);
		assert_int_equal(tnl_smux_next(&p, &at, &n, &e), words ? TNL_EPROTO : 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(words),
	    cmocka_unit_test(bad_words),
	    cmocka_unit_test(heads),
	    cmocka_unit_test(words_of_a_syn),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
