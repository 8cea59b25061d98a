/* The smux frame parser: frames cut anywhere, and what is no frame. */
#include "tests/unit/check.h"
#include "lib/num.h"
#include "lib/smux.h"

/* What a parser said of an input, as text: parts of a PSH are joined. */
struct story {
	char text[4096];
	size_t n;
	uint32_t psh_id; /* the PSH at the end of the text goes on */
};

static void tell(struct story *s, const struct tnl_smux_event *e)
{
	size_t room = sizeof(s->text) - s->n;
	if (e->cmd == TNL_SMUX_PSH) {
		assert_true(e->len > 0 && e->len < room);
		if (s->psh_id != e->id)
			s->n += (size_t)snprintf(s->text + s->n, room, "psh %u ", e->id);
		memcpy(s->text + s->n, e->data, e->len);
		s->n += e->len;
		s->psh_id = e->id;
	} else {
		static const char *const name[] = {"syn", "fin", "", "nop", "upd", "rst"};
		s->n += (size_t)snprintf(s->text + s->n, room, "%s%s %u %u %u %u;", s->psh_id ? ";" : "", name[e->cmd],
					 e->id, e->consumed, e->window, e->reason);
		s->psh_id = 0;
	}
	assert_true(s->n < sizeof(s->text));
	s->text[s->n] = '\0';
}

static int feed(struct tnl_smux_parser *p, struct story *s, const uint8_t *in, size_t n)
{
	struct tnl_smux_event e;
	int rc;
	while ((rc = tnl_smux_next(p, &in, &n, &e)) > 0)
		tell(s, &e);
	assert_true(rc < 0 || n == 0);
	return rc;
}

static size_t put(uint8_t *p, int version, int cmd, uint32_t id, const void *body, size_t n)
{
	struct tnl_smux_frame f = {(uint8_t)version, (uint8_t)cmd, (uint16_t)n, id};
	tnl_smux_write(p, &f);
	memcpy(p + TNL_SMUX_HDR, body, n);
	return TNL_SMUX_HDR + n;
}

static size_t all_frames(uint8_t *p)
{
	size_t n = put(p, 2, TNL_SMUX_SYN, 3, "", 0);
	n += put(p + n, 2, TNL_SMUX_PSH, 3, "hello", 5);
	n += put(p + n, 2, TNL_SMUX_NOP, 0, "", 0);
	n += put(p + n, 2, TNL_SMUX_PSH, 5, "", 0); /* no event */
	n += put(p + n, 2, TNL_SMUX_UPD, 3, "\1\0\0\0\0\0\1\0", 8);
	n += put(p + n, 2, TNL_SMUX_PSH, 7, "x", 1);
	n += put(p + n, 2, TNL_SMUX_RST, 7, "\2\0\0\0", 4);
	n += put(p + n, 2, TNL_SMUX_FIN, 3, "", 0);
	return n;
}
static const char all_told[] = "syn 3 0 0 0;psh 3 hello;nop 0 0 0 0;upd 3 1 65536 0;psh 7 x;rst 7 0 0 2;fin 3 0 0 0;";

static void every_split(void **state)
{
	uint8_t in[256];
	size_t n = all_frames(in);
	(void)state;
	for (size_t cut = 0; cut <= n; cut++)
		for (size_t again = cut; again <= n; again++) {
			struct tnl_smux_parser p;
			struct story s = {.n = 0};
			tnl_smux_parser_init(&p, 2, true);
			assert_int_equal(feed(&p, &s, in, cut), 0);
			assert_int_equal(feed(&p, &s, in + cut, again - cut), 0);
			assert_int_equal(feed(&p, &s, in + again, n - again), 0);
			assert_string_equal(s.text, all_told);
		}
}

static void byte_by_byte(void **state)
{
	uint8_t in[256];
	size_t n = all_frames(in);
	struct tnl_smux_parser p;
	struct story s = {.n = 0};
	(void)state;
	tnl_smux_parser_init(&p, 2, true);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(feed(&p, &s, in + i, 1), 0);
	assert_string_equal(s.text, all_told);
}

/* Words behind an RST's reason: whole at any cut, only where they were agreed on, and bounded. */
static void words_of_a_reset(void **state)
{
	uint8_t in[256], body[4 + TNL_SMUX_WORDS + 1] = {2};
	struct tnl_smux_parser p;
	struct tnl_smux_event e;
	(void)state;
	memset(body + 4, 'w', sizeof(body) - 4);
	for (size_t words = 0; words <= TNL_SMUX_WORDS; words += TNL_SMUX_WORDS / 3) {
		size_t n = put(in, 2, TNL_SMUX_RST, 7, body, 4 + words);
		for (size_t cut = 0; cut < n; cut++) {
			const uint8_t *at = in;
			size_t left = cut, rest;
			tnl_smux_parser_init(&p, 2, true);
			p.rst_words = true;
			assert_int_equal(tnl_smux_next(&p, &at, &left, &e), 0);
			rest = n - cut;
			assert_int_equal(tnl_smux_next(&p, &at, &rest, &e), 1);
			assert_true(e.cmd == TNL_SMUX_RST && e.reason == 2 && e.len == words);
			assert_memory_equal(e.data, body + 4, words);
		}
	}
	for (int agreed = 0; agreed <= 1; agreed++) {
		size_t n = put(in, 2, TNL_SMUX_RST, 7, body, agreed ? sizeof(body) : 5);
		const uint8_t *at = in;
		tnl_smux_parser_init(&p, 2, true);
		p.rst_words = agreed;
		assert_int_equal(tnl_smux_next(&p, &at, &n, &e), TNL_EPROTO);
		assert_string_equal(p.bad_field, "length");
	}
}

static void kinds_of_opening(void **state)
{
	uint8_t in[16];
	size_t n = put(in, 2, TNL_SMUX_OPEN, 9, "\2\1\0\0", 4);
	struct tnl_smux_parser p;
	struct tnl_smux_event e;
	for (size_t cut = 0; cut < n; cut++) {
		const uint8_t *at = in;
		size_t left = cut, rest = n - cut;
		tnl_smux_parser_init(&p, 2, true);
		p.open = true;
		assert_int_equal(tnl_smux_next(&p, &at, &left, &e), 0);
		assert_int_equal(tnl_smux_next(&p, &at, &rest, &e), 1);
		assert_true(e.cmd == TNL_SMUX_OPEN && e.id == 9 && e.kind == 0x102);
	}
	for (int agreed = 0; agreed <= 1; agreed++) {
		size_t left = put(in, 2, TNL_SMUX_OPEN, 9, "\2\0\0\0", agreed ? 3 : 4);
		const uint8_t *at = in;
		tnl_smux_parser_init(&p, 2, true);
		p.open = agreed;
		assert_int_equal(tnl_smux_next(&p, &at, &left, &e), TNL_EPROTO);
		assert_string_equal(p.bad_field, agreed ? "length" : "cmd");
	}
}

/* Bytes of a stream are handed on where they stand, as soon as they are there. */
static void data_is_not_copied(void **state)
{
	uint8_t in[64];
	size_t n = put(in, 1, TNL_SMUX_PSH, 9, "abcdef", 6);
	struct tnl_smux_parser p;
	struct tnl_smux_event e;
	const uint8_t *at = in;
	size_t left = n - 2;
	(void)state;
	tnl_smux_parser_init(&p, 1, false);
	assert_int_equal(tnl_smux_next(&p, &at, &left, &e), 1);
	assert_ptr_equal(e.data, in + TNL_SMUX_HDR);
	assert_int_equal(e.len, 4);
	assert_int_equal(tnl_smux_next(&p, &at, &left, &e), 0);
	left = 2;
	assert_int_equal(tnl_smux_next(&p, &at, &left, &e), 1);
	assert_ptr_equal(e.data, in + TNL_SMUX_HDR + 4);
	assert_int_equal(e.len, 2);
	assert_int_equal(left, 0);
}

static void what_is_no_frame(void **state)
{
	static const struct {
		int version;
		bool rst;
		struct tnl_smux_frame f;
		const char *field;
		unsigned value;
	} cases[] = {
	    {1, true, {2, TNL_SMUX_NOP, 0, 0}, "version", 2},
	    {2, true, {1, TNL_SMUX_PSH, 1, 3}, "version", 1},
	    {2, true, {0, 0, 0, 0}, "version", 0},
	    {1, true, {1, TNL_SMUX_UPD, 8, 3}, "cmd", TNL_SMUX_UPD},
	    {2, true, {2, TNL_SMUX_UPD, 7, 3}, "length", 7},
	    {2, true, {2, TNL_SMUX_UPD, 0, 3}, "length", 0},
	    {2, false, {2, TNL_SMUX_RST, 4, 3}, "cmd", 5},
	    {2, true, {2, TNL_SMUX_RST, 5, 3}, "length", 5},
	    {2, true, {2, TNL_SMUX_RST, 65535, 3}, "length", 65535},
	    {2, true, {2, 6, 0, 3}, "cmd", 6},
	    {2, true, {2, 255, 0, 3}, "cmd", 255},
	    {1, true, {1, TNL_SMUX_SYN, 1, 3}, "length", 1},
	    {1, true, {1, TNL_SMUX_FIN, 2, 3}, "length", 2},
	    {1, true, {1, TNL_SMUX_NOP, 3, 3}, "length", 3},
	};
	(void)state;
	for (size_t i = 0; i < TNL_COUNT(cases); i++)
		for (size_t step = 1; step <= TNL_SMUX_HDR; step++) {
			uint8_t in[TNL_SMUX_HDR];
			struct tnl_smux_parser p;
			struct story s = {.n = 0};
			int rc = 0;
			tnl_smux_write(in, &cases[i].f);
			tnl_smux_parser_init(&p, cases[i].version, cases[i].rst);
			for (size_t at = 0; at < sizeof(in); at += step) {
				assert_int_equal(rc, 0);
				rc = feed(&p, &s, in + at, TNL_MIN(step, sizeof(in) - at));
			}
			assert_int_equal(rc, TNL_EPROTO);
			assert_string_equal(p.bad_field, cases[i].field);
			assert_int_equal(p.bad_value, cases[i].value);
			assert_int_equal(s.n, 0);
		}
}

/* The longest frames, in pieces of all sizes. */
static void long_frames_in_pieces(void **state)
{
	size_t size = 4 * (TNL_SMUX_HDR + TNL_SMUX_MAX_DATA), n = 0, seen = 0;
	uint8_t *in = malloc(size), *body = malloc(TNL_SMUX_MAX_DATA);
	struct tnl_smux_parser p;
	(void)state;
	memset(body, 'a', TNL_SMUX_MAX_DATA);
	for (unsigned i = 0; i < 4; i++)
		n += put(in + n, 1, TNL_SMUX_PSH, 3 + i, body, TNL_SMUX_MAX_DATA);
	tnl_smux_parser_init(&p, 1, false);
	for (size_t at = 0, step = 1; at < n; at += step, step = step * 3 % 20011) {
		const uint8_t *from = in + at;
		size_t left = TNL_MIN(step, n - at);
		struct tnl_smux_event e;
		while (tnl_smux_next(&p, &from, &left, &e) == 1) {
			assert_int_equal(e.id, 3 + seen / TNL_SMUX_MAX_DATA);
			assert_memory_equal(e.data, body, e.len);
			seen += e.len;
		}
	}
	assert_int_equal(seen, 4 * TNL_SMUX_MAX_DATA);
	free(in);
	free(body);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_split),	     cmocka_unit_test(byte_by_byte),
	    cmocka_unit_test(words_of_a_reset),	     cmocka_unit_test(kinds_of_opening),
	    cmocka_unit_test(data_is_not_copied),    cmocka_unit_test(what_is_no_frame),
	    cmocka_unit_test(long_frames_in_pieces),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
