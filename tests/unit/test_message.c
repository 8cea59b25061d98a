#include "tests/unit/check.h"
#include "lib/alloc.h"
#include "lib/num.h"
#include "lib/crypto.h"
#include "lib/enc.h"
#include "lib/message.h"
#include <inttypes.h>

static const char *const traces[] = {"port", "ssh", "shell", "kms-shell"};

struct line {
	char type[40], id[40];
	uint32_t schema, ptype, plen;
	uint64_t created, flags;
	int64_t seq;
	uint8_t *frame;
	size_t n;
};

static int read_line(FILE *f, struct line *l)
{
	static char text[64 * 1024];
	char dir[32];
	int at = 0;

	do
		if (!fgets(text, sizeof(text), f))
			return 0;
	while (text[0] != 'F');
	int got =
	    sscanf(text,
		   "F %31s %39s %" SCNu32 " %" SCNu64 " %" SCNd64 " %" SCNu64 " %39s %" SCNu32 " %" SCNu32 " : %n", dir,
		   l->type, &l->schema, &l->created, &l->seq, &l->flags, l->id, &l->ptype, &l->plen, &at);
	assert_int_equal(got, 9);
	size_t digits = strcspn(text + at, "\n");
	l->n = digits / 2;
	l->frame = malloc(l->n);
	assert_int_equal(tnl_unhex(text + at, digits, l->frame), 0);
	return 1;
}

/* The name that a message of this type is sent with. */
static void expect_type_name(enum tnl_mtype t, const char *name)
{
	uint8_t head[TNL_MSG_HDR];
	struct tnl_msg m = {.type = t};
	char padded[33];
	tnl_msg_seal(head, &m);
	snprintf(padded, sizeof(padded), "%-32.32s", name);
	assert_memory_equal(head + 4, padded, 32);
}

static void check_frame(const struct line *l, int *acks)
{
	struct tnl_msg m;
	uint8_t u[16];

	assert_int_equal(tnl_msg_decode(l->frame, l->n, &m, NULL), 0);
	expect_type_name(m.type, l->type);
	int publication = m.type == TNL_MT_START_PUBLICATION || m.type == TNL_MT_PAUSE_PUBLICATION;
	assert_int_equal(tnl_uuid_parse(l->id, 36, u), 0);
	assert_memory_equal(m.id, u, 16);
	assert_int_equal(m.created_ms, l->created);
	if (publication) {
		assert_int_equal(m.plen, 0);
		return;
	}
	assert_int_equal(m.schema, l->schema);
	assert_int_equal(m.seq, l->seq);
	assert_int_equal(m.flags, l->flags);
	assert_int_equal(m.ptype, l->ptype);
	assert_int_equal(m.plen, l->plen);
	uint8_t *again = malloc(l->n);
	assert_int_equal(tnl_msg_encode(again, &m), l->n);
	assert_memory_equal(again, l->frame, l->n);
	free(again);
	if (m.type == TNL_MT_ACK) {
		struct tnl_ack a;
		char text[TNL_ACK_MAX];
		assert_int_equal(tnl_ack_parse(m.payload, m.plen, &a), 0);
		assert_int_equal(tnl_ack_write(text, &a), m.plen);
		assert_memory_equal(text, m.payload, m.plen);
		++*acks;
	}
}

/* Every captured frame: decoded fields, and the same bytes when written again. */
static void captured_frames(void **state)
{
	int frames = 0, acks = 0;

	for (size_t i = 0; i < TNL_COUNT(traces); i++) {
		char path[128];
		struct line l;
		snprintf(path, sizeof(path), "tests/vectors/frames/%s.txt", traces[i]);
		FILE *f = fopen(path, "r");
		assert_non_null(f);
		for (; read_line(f, &l); frames++) {
			check_frame(&l, &acks);
			free(l.frame);
		}
		fclose(f);
	}
	assert_int_equal(frames, 129);
	assert_int_equal(acks, 51);
}

static size_t sample(uint8_t *out, const char *payload)
{
	struct tnl_msg m = {.type = TNL_MT_OUTPUT,
			    .schema = 1,
			    .created_ms = 1795338608884,
			    .seq = 3,
			    .ptype = TNL_PT_OUTPUT,
			    .payload = (const uint8_t *)payload,
			    .plen = (uint32_t)strlen(payload)};
	for (int i = 0; i < 16; i++)
		m.id[i] = (uint8_t)i;
	return tnl_msg_encode(out, &m);
}

/* Offsets as the protocol has them, the halves of the id swapped. */
static void layout(void **state)
{
	uint8_t p[200], digest[32];
	size_t n = sample(p, "hello");

	assert_int_equal(n, 125);
	assert_int_equal(tnl_get_be32(p), 116);
	assert_memory_equal(p + 4, "output_stream_data              ", 32);
	assert_int_equal(tnl_get_be32(p + 36), 1);
	assert_int_equal(tnl_get_be64(p + 48), 3);
	assert_int_equal(p[64], 8);
	assert_int_equal(p[71], 15);
	assert_int_equal(p[72], 0);
	tnl_sha256("hello", 5, digest);
	assert_memory_equal(p + 80, digest, 32);
	assert_int_equal(tnl_get_be32(p + 112), 1);
	assert_int_equal(tnl_get_be32(p + 116), 5);
}

static void refuse(const uint8_t *p, size_t n, int want, const char *field)
{
	struct tnl_msg m;
	struct tnl_msg_fault fault;
	uint8_t *q = exact_copy(p, n);

	assert_int_equal(tnl_msg_decode(q, n, &m, &fault), want);
	assert_string_equal(fault.field, field);
	free(q);
}

static void wrong_messages_are_refused_by_field(void **state)
{
	uint8_t p[200];
	size_t n = sample(p, "hello");

	for (size_t k = 0; k < n; k++)
		refuse(p, k, TNL_ESYNTAX, k < 120 ? "length" : "PayloadLength");
	p[n] = 'x';
	refuse(p, n + 1, TNL_ESYNTAX, "PayloadLength");
	static const uint32_t wild[] = {0, 115, 117, 120, 0x7fffffff, 0x80000000, 0xffffffff};
	for (size_t i = 0; i < TNL_COUNT(wild); i++) {
		tnl_put_be32(p, wild[i]);
		refuse(p, n, TNL_ESYNTAX, "HeaderLength");
	}
	n = sample(p, "hello");
	tnl_put_be32(p + 36, 2);
	refuse(p, n, TNL_ESYNTAX, "SchemaVersion");
	n = sample(p, "hello");
	tnl_put_be64(p + 40, 0);
	refuse(p, n, TNL_ESYNTAX, "CreatedDate");
	n = sample(p, "hello");
	p[n - 1] ^= 1;
	refuse(p, n, TNL_EDIGEST, "PayloadDigest");
	n = sample(p, "hello");
	p[80] ^= 1;
	refuse(p, n, TNL_EDIGEST, "PayloadDigest");
	n = sample(p, "");
	p[80] ^= 1; /* nothing to digest: not looked at */
	struct tnl_msg m;
	assert_int_equal(tnl_msg_decode(p, n, &m, NULL), 0);
}

/* Four bytes behind a mark; who has not agreed refuses it, who has takes a SHA-256 as well, and no bit of either may
 * change. */
static void crc_as_digest(void **state)
{
	static const char payload[] = "123456789";
	uint8_t p[200];
	struct tnl_msg m;
	struct tnl_msg_fault fault;

	for (int sha = 0; sha < 2; sha++) {
		size_t n = sample(p, payload);
		assert_int_equal(tnl_msg_decode(p, n, &m, NULL), 0);
		m.digest = sha ? TNL_DIGEST_SHA256 : TNL_DIGEST_CRC32C;
		tnl_msg_seal(p, &m);
		assert_int_equal(tnl_msg_decode_agreed(p, n, TNL_DIGEST_CRC32C, &m, NULL), 0);
		assert_int_equal(tnl_msg_decode_agreed(p, n, TNL_DIGEST_SHA256, &m, NULL), sha ? 0 : TNL_EDIGEST);
		if (!sha) {
			assert_memory_equal(p + 80, "CRC32C\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 28);
			assert_int_equal(tnl_get_be32(p + 108), 0xe3069283);
		}
		for (size_t at = 80; at < n; at = at == 111 ? 120 : at + 1)
			for (int bit = 0; bit < 8; bit++) {
				p[at] ^= (uint8_t)(1 << bit);
				assert_int_equal(tnl_msg_decode_agreed(p, n, TNL_DIGEST_CRC32C, &m, &fault),
						 TNL_EDIGEST);
				assert_string_equal(fault.field, "PayloadDigest");
				p[at] ^= (uint8_t)(1 << bit);
			}
	}
}

static void unknown_type_is_told_apart(void **state)
{
	uint8_t p[200];
	size_t n = sample(p, "hello");
	struct tnl_msg m;

	memcpy(p + 4, "output_stream_dat\0", 18);
	assert_int_equal(tnl_msg_decode(p, n, &m, NULL), TNL_ETYPE);
	assert_int_equal(m.plen, 5);
	memset(p + 4, ' ', 32);
	assert_int_equal(tnl_msg_decode(p, n, &m, NULL), TNL_ETYPE);
	n = sample(p, "hello");
	memset(p + 22, 0, 14); /* padded with NULs instead of spaces */
	assert_int_equal(tnl_msg_decode(p, n, &m, NULL), 0);
	assert_int_equal(m.type, TNL_MT_OUTPUT);
	p[120] ^= 1;
	assert_int_equal(tnl_msg_peek(p, n, &m, NULL), 0); /* a relay does not hash */
}

/* Stock ends cut NULs and white space off both sides; some clients fill the name up from the front. */
static void a_type_may_be_padded_on_either_side(void **state)
{
	static const char good[][33] = {
	    "\0\0\0\0\0\0\0\0\0\0\0\0\0\0output_stream_data",
	    "\0\0\0\0output_stream_data\0\0\0\0\0\0\0\0\0\0",
	    "              output_stream_data",
	    "  output_stream_data            ",
	    "\0\0 \t output_stream_data  \r\n\0\0\0\0\0",
	};
	static const char bad[][33] = {
	    "output_stream_data \0 x          ",
	    "output_\0stream_data             ",
	};
	uint8_t p[200];
	size_t n = sample(p, "hello");
	struct tnl_msg m;
	(void)state;

	for (size_t i = 0; i < TNL_COUNT(good); i++) {
		memcpy(p + 4, good[i], 32);
		assert_int_equal(tnl_msg_decode(p, n, &m, NULL), 0);
		assert_int_equal(m.type, TNL_MT_OUTPUT);
	}
	for (size_t i = 0; i < TNL_COUNT(bad); i++) {
		memcpy(p + 4, bad[i], 32);
		assert_int_equal(tnl_msg_decode(p, n, &m, NULL), TNL_ETYPE);
	}
	memset(p + 4, 0, 32);
	memcpy(p + 4 + 15, "pause_publication", 17);
	assert_int_equal(tnl_msg_decode(p, 36, &m, NULL), 0);
	assert_int_equal(m.type, TNL_MT_PAUSE_PUBLICATION);
}

/* What a stock end does not look at is noted and no more; what could harm one is refused all the same. */
static void a_lax_reader_notes_what_is_odd(void **state)
{
	static const struct {
		size_t at;
		unsigned odd;
		const char *field;
	} odd[] = {{36, TNL_ODD_SCHEMA, "SchemaVersion"},
		   {90, TNL_ODD_DIGEST, "PayloadDigest"},
		   {119, TNL_ODD_LENGTH, "PayloadLength"}};
	uint8_t p[200];
	struct tnl_msg m;
	struct tnl_msg_fault fault;
	(void)state;

	for (size_t i = 0; i < TNL_COUNT(odd); i++) {
		size_t n = sample(p, "hello");
		p[odd[i].at] ^= 1;
		assert_int_equal(tnl_msg_decode_lax(p, n, TNL_DIGEST_SHA256, &m, &fault), 0);
		assert_int_equal(m.odd, odd[i].odd);
		assert_string_equal(fault.field, odd[i].field);
		assert_int_equal(m.plen, 5);
		assert_memory_equal(m.payload, "hello", 5);
		assert_int_not_equal(tnl_msg_decode(p, n, &m, &fault), 0);
		assert_string_equal(fault.field, odd[i].field);
	}
	size_t n = sample(p, "hello");
	assert_int_equal(tnl_msg_decode_lax(p, n, TNL_DIGEST_SHA256, &m, &fault), 0);
	assert_int_equal(m.odd, 0);
	assert_null(fault.field);
	p[3] = 117;
	assert_int_equal(tnl_msg_decode_lax(p, n, TNL_DIGEST_SHA256, &m, &fault), TNL_ESYNTAX);
	assert_string_equal(fault.field, "HeaderLength");
}

static void publication_is_known_by_its_type_alone(void **state)
{
	uint8_t p[200];
	struct tnl_msg m;

	sample(p, "hello");
	memcpy(p + 4, "start_publication               ", 32);
	for (size_t n = 36; n <= 125; n++) {
		uint8_t *q = exact_copy(p, n);
		assert_int_equal(tnl_msg_decode(q, n, &m, NULL), 0);
		assert_int_equal(m.type, TNL_MT_START_PUBLICATION);
		assert_int_equal(m.plen, 0);
		free(q);
	}
	memcpy(p + 4, "pause_publication\0", 18);
	tnl_put_be32(p, 0xffffffff);
	assert_int_equal(tnl_msg_decode(p, 125, &m, NULL), 0);
	assert_int_equal(m.type, TNL_MT_PAUSE_PUBLICATION);
	assert_int_equal(tnl_msg_decode(p, 35, &m, NULL), TNL_ESYNTAX);
}

static void ack_numbers(void **state)
{
	static const int64_t seqs[] = {0, 9, 10, 99999, 9007199254740992};
	struct tnl_ack a = {.type = TNL_MT_INPUT}, b;
	char text[TNL_ACK_MAX];

	for (size_t i = 0; i < TNL_COUNT(seqs); i++) {
		a.seq = seqs[i];
		size_t n = tnl_ack_write(text, &a);
		assert_int_equal(tnl_ack_parse((const uint8_t *)text, n, &b), 0);
		assert_int_equal(b.seq, seqs[i]);
		assert_int_equal(b.type, TNL_MT_INPUT);
		for (size_t k = 0; k < n; k++) { /* cut at every byte */
			uint8_t *q = exact_copy(text, k);
			assert_int_equal(tnl_ack_parse(q, k, &b), TNL_ESYNTAX);
			free(q);
		}
	}
	a.type = TNL_MT_TASK_ACK;
	a.seq = INT64_MIN;
	assert_true(tnl_ack_write(text, &a) <= TNL_ACK_MAX);
}

static void ack_in_other_layouts(void **state)
{
	static const char good[] = " { \"IsSequentialMessage\" : true, \"AcknowledgedMessageSequenceNumber\": 12,\n"
				   "\"AcknowledgedMessageId\":\"D8A97F71-d4ed-469c-810c-fd8916f2425d\",\"Extra\":[],"
				   "\"AcknowledgedMessageType\":\"output_stream_data\"}";
	static const char *const bad[] = {
	    "",
	    "{}",
	    "[]",
	    "null",
	    "{\"AcknowledgedMessageType\":\"output_stream_data\",\"AcknowledgedMessageId\":\"x\","
	    "\"AcknowledgedMessageSequenceNumber\":0,\"IsSequentialMessage\":true}",
	    "{\"AcknowledgedMessageType\":\"output_stream_data\",\"AcknowledgedMessageId\":\"d8a97f71-d4ed-469c-810c-"
	    "fd8916f2425d\",\"AcknowledgedMessageSequenceNumber\":-1,\"IsSequentialMessage\":true}",
	    "{\"AcknowledgedMessageType\":\"output_stream_data\",\"AcknowledgedMessageId\":\"d8a97f71-d4ed-469c-810c-"
	    "fd8916f2425d\",\"AcknowledgedMessageSequenceNumber\":\"1\",\"IsSequentialMessage\":true}",
	    "{\"AcknowledgedMessageType\":\"output_stream_data\",\"AcknowledgedMessageId\":\"d8a97f71-d4ed-469c-810c-"
	    "fd8916f2425d\",\"AcknowledgedMessageSequenceNumber\":01,\"IsSequentialMessage\":true}",
	    "{\"AcknowledgedMessageType\":\"output_stream_data\",\"AcknowledgedMessageId\":\"d8a97f71-d4ed-469c-810c-"
	    "fd8916f2425d\",\"AcknowledgedMessageSequenceNumber\":99999999999999999999,\"IsSequentialMessage\":true}",
	};
	/* Stock ends match by the number, and names of members without regard to case. */
	static const char least[] = "{\"acknowledgedmessagesequencenumber\":7}";
	struct tnl_ack a;
	long live = tnl_alloc_live();

	assert_int_equal(tnl_ack_parse((const uint8_t *)least, sizeof(least) - 1, &a), 0);
	assert_int_equal(a.seq, 7);
	assert_int_equal(tnl_ack_parse((const uint8_t *)good, sizeof(good) - 1, &a), 0);
	assert_int_equal(a.seq, 12);
	assert_int_equal(a.type, TNL_MT_OUTPUT);
	assert_int_equal(a.id[0], 0xd8);
	for (size_t i = 0; i < TNL_COUNT(bad); i++)
		assert_int_equal(tnl_ack_parse((const uint8_t *)bad[i], strlen(bad[i]), &a), TNL_ESYNTAX);
	assert_int_equal(tnl_alloc_live(), live);
}

/* The ack as its receiver has it. */
static struct tnl_msg told(int64_t asked, struct tnl_hop h, bool answered)
{
	uint8_t out[TNL_MSG_HDR + 2], before[TNL_MSG_HDR + 2];
	struct tnl_msg m = {.type = TNL_MT_ACK,
			    .schema = 1,
			    .created_ms = 1,
			    .seq = asked,
			    .flags = TNL_MF_SYN | TNL_MF_FIN,
			    .payload = (const uint8_t *)"{}",
			    .plen = 2};
	size_t n = tnl_msg_encode(out, &m);
	memcpy(before, out, n);
	assert_int_equal(tnl_ack_tell_hop(out, &h), answered);
	memcpy(before + 48, out + 48, 8);
	before[63] |= answered && h.full ? TNL_MF_FULL : 0;
	assert_memory_equal(out, before, n); /* nothing but the number, and one flag */
	assert_int_equal(tnl_msg_decode(out, n, &m, NULL), 0);
	return m;
}

static bool tells(int64_t seq, struct tnl_hop *h)
{
	return tnl_ack_hop(&(struct tnl_msg){.type = TNL_MT_ACK, .seq = seq, .flags = UINT64_MAX}, h);
}

static void an_ack_tells_of_the_next_hop(void **state)
{
	static const struct tnl_hop hops[] = {{0, false, false},
					      {0, true, false},
					      {3000000, false, true},
					      {UINT32_MAX * UINT64_C(1000), true, true}};
	struct tnl_hop h;
	struct tnl_msg m;
	(void)state;
	for (size_t i = 0; i < TNL_COUNT(hops); i++) {
		m = told(TNL_HOP_ASKED, hops[i], true);
		assert_true(tnl_ack_hop(&m, &h));
		assert_int_equal(h.queue, hops[i].queue);
		assert_int_equal(h.repairs, hops[i].repairs);
		assert_int_equal(h.full, hops[i].full);
		/* Older ends take no number with other bits than these. */
		assert_true((m.seq & ~((INT64_C(1) << 60) | (int64_t)UINT32_MAX)) == INT64_C(1) << 61);
	}
	m = told(TNL_HOP_ASKED, (struct tnl_hop){UINT64_MAX, false, false}, true);
	assert_true(tnl_ack_hop(&m, &h));
	assert_int_equal(h.queue, UINT32_MAX * UINT64_C(1000));
	/* Who did not ask is told nothing, and nobody is told twice. */
	int64_t once = told(TNL_HOP_ASKED, hops[2], true).seq;
	const int64_t others[] = {0, 1, -1, TNL_HOP_ASKED | 1, INT64_MIN, once};
	for (size_t i = 0; i < TNL_COUNT(others); i++)
		assert_int_equal(told(others[i], hops[3], false).seq, others[i]);
	/* What no gateway of ours writes says nothing. */
	const int64_t odd[] = {
	    0, 1, -1, INT64_MIN, INT64_MAX, TNL_HOP_ASKED, TNL_HOP_ASKED | once, once | ((int64_t)1 << 40)};
	for (size_t i = 0; i < TNL_COUNT(odd); i++)
		assert_false(tells(odd[i], &h));
}

/* An ack that is not as stock ends write it goes to the JSON parser, but a long one is none. */
static void a_long_ack_is_none(void **state)
{
	char text[2000];
	struct tnl_ack a;
	for (int pad = 1; pad < 1500; pad += 700) {
		int n = sprintf(
		    text,
		    "{\"AcknowledgedMessageSequenceNumber\":7,\"AcknowledgedMessageType\":\"output_stream_data\","
		    "\"AcknowledgedMessageId\":\"dd01e56b-ff48-483e-a508-b5f073f31b16\",\"x\":\"%0*d\"}",
		    pad, 0);
		assert_int_equal(tnl_ack_parse((const uint8_t *)text, (size_t)n, &a), n <= 1024 ? 0 : TNL_ESYNTAX);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_long_ack_is_none),
	    cmocka_unit_test(captured_frames),
	    cmocka_unit_test(layout),
	    cmocka_unit_test(wrong_messages_are_refused_by_field),
	    cmocka_unit_test(crc_as_digest),
	    cmocka_unit_test(unknown_type_is_told_apart),
	    cmocka_unit_test(a_type_may_be_padded_on_either_side),
	    cmocka_unit_test(a_lax_reader_notes_what_is_odd),
	    cmocka_unit_test(publication_is_known_by_its_type_alone),
	    cmocka_unit_test(ack_numbers),
	    cmocka_unit_test(ack_in_other_layouts),
	    cmocka_unit_test(an_ack_tells_of_the_next_hop),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
