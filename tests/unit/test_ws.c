/* WebSocket framing: wslay as the oracle in both directions, every split point, and each
 * refusal with its close code. */
#include "tests/unit/ws_util.h"
#include "lib/num.h"
#include "lib/ws_internal.h"

static void test_mask_is_the_naive_xor(void **state)
{
	uint8_t src[200], want[200], got[200 + 8], key[4] = {1, 0x80, 0xff, 0x5a};

	for (size_t i = 0; i < sizeof(src); i++)
		src[i] = (uint8_t)(i * 7);
	for (size_t n = 0; n <= 130; n++)
		for (size_t off = 0; off < 8; off++) {
			for (size_t i = 0; i < n; i++)
				want[i] = src[off + i] ^ key[i & 3];
			got[off + n] = 0xee;
			tnl_ws_mask(got + off, src + off, n, key);
			assert_memory_equal(got + off, want, n);
			assert_int_equal(got[off + n], 0xee);
			tnl_ws_mask(got + off, got + off, n, key);
			assert_memory_equal(got + off, src + off, n);
		}
}

/* --- refusals -------------------------------------------------------------------- */

static void test_refusals(void **state)
{
	uint8_t b[1024], data[300] = {0};
	size_t n;

	for (int server = 0; server < 2; server++) {
		bool m = server; /* the mask that is right */

		n = frame(b, 0x82, !m, "x", 1, 0);
		expect_refused(server, b, n, TNL_EPROTO, 1002, "mask bit");
		for (int bit = 0x10; bit <= 0x40; bit <<= 1) {
			n = frame(b, (uint8_t)(0x82 | bit), m, "x", 1, 0);
			expect_refused(server, b, n, TNL_EPROTO, 1002, "reserved bits");
		}
		for (int op = 0; op < 16; op++) {
			if (op <= 2 || (op >= 8 && op <= 10))
				continue;
			n = frame(b, (uint8_t)(0x80 | op), m, "x", 1, 0);
			expect_refused(server, b, n, TNL_EPROTO, 1002, "opcode");
		}
		for (int op = 8; op <= 10; op++) {
			n = frame(b, (uint8_t)(0x80 | op), m, data, 126, 0);
			expect_refused(server, b, n, TNL_EPROTO, 1002, "control frame length");
			n = frame(b, (uint8_t)op, m, data, 2, 0);
			expect_refused(server, b, n, TNL_EPROTO, 1002, "fragmented control frame");
		}
		n = frame(b, 0x82, m, data, 125, 126);
		expect_refused(server, b, n, TNL_EPROTO, 1002, "length");
		n = frame(b, 0x82, m, data, 300, 127);
		expect_refused(server, b, n, TNL_EPROTO, 1002, "length");
		n = frame(b, 0x82, m, data, 0, 127);
		b[2] = 0x80;
		b[9] = 1;
		expect_refused(server, b, n, TNL_EPROTO, 1002, "length");
		n = frame(b, 0x80, m, "x", 1, 0);
		expect_refused(server, b, n, TNL_EPROTO, 1002, "continuation");
		n = frame(b, 0x02, m, "x", 1, 0);
		n += frame(b + n, 0x82, m, "x", 1, 0);
		expect_refused(server, b, n, TNL_EPROTO, 1002, "fragment");
		/* text that is not UTF-8: whole, and in fragments */
		n = frame(b, 0x81, m, "a\xff", 2, 0);
		expect_refused(server, b, n, TNL_ESYNTAX, 1007, "utf-8");
		n = frame(b, 0x81, m, "a\xc3", 2, 0);
		expect_refused(server, b, n, TNL_ESYNTAX, 1007, "utf-8");
		n = frame(b, 0x01, m, "a\xc3", 2, 0);
		n += frame(b + n, 0x80, m, "a", 1, 0);
		expect_refused(server, b, n, TNL_ESYNTAX, 1007, "utf-8");
		/* close frames */
		n = frame(b, 0x88, m, "\x03", 1, 0);
		expect_refused(server, b, n, TNL_EPROTO, 1002, "close code");
		n = frame(b, 0x88, m, "\x03\xed", 2, 0); /* 1005 may not be sent */
		expect_refused(server, b, n, TNL_EPROTO, 1002, "close code");
		n = frame(b, 0x88, m, "\x03\xe8\xff", 3, 0);
		expect_refused(server, b, n, TNL_ESYNTAX, 1007, "utf-8");
	}
}

/* A message in pieces of one byte takes the memory of one that comes whole. */
static void test_fragments_cost_their_bytes(void **state)
{
	const size_t total = 200u * 1024;
	struct tnl_ws *w = ws_new(true);
	struct tnl_ws_event ev;
	uint8_t b[64], c = 'a';
	size_t held = tnl_alloc_bytes();
	long made = tnl_alloc_count();

	tnl_alloc_most();
	for (size_t i = 0; i < total; i++) {
		size_t n = frame(b, (uint8_t)((i ? 0 : 2) | (i + 1 == total ? 0x80 : 0)), true, &c, 1, 0);
		if (i % 1000 == 500) /* a ping may come between */
			n += frame(b + n, 0x89, true, "p", 1, 0);
		feed(w, b, n);
		while (tnl_ws_next(w, &ev, 0, NULL) == 1)
			if (ev.op != TNL_WS_PING)
				assert_int_equal(i + 1, total);
		if (i % 100 == 0)
			tnl_ws_settle(w); /* an idle moment loses nothing */
	}
	assert_int_equal(ev.op, TNL_WS_BINARY);
	assert_int_equal(ev.len, total);
	for (size_t i = 0; i < total; i++)
		assert_int_equal(ev.data[i], 'a');
	assert_in_range(tnl_alloc_most() - held, total, 4 * total);
	assert_in_range(tnl_alloc_count() - made, 1, (long)total / 50);
	tnl_ws_free(w);
}

/* Before it is trusted a peer gets neither fragments nor long messages nor a large buffer. */
static void test_whole_messages_only(void **state)
{
	const struct tnl_ws_config conf = {.server = true, .max_message = 4096, .whole_only = true};
	struct tnl_ws_event ev;
	uint8_t b[9000], big[8192] = {0};
	const char *fault = NULL;
	size_t held = tnl_alloc_bytes(), cap;

	struct tnl_ws *w = tnl_ws_new(&conf, 0);
	assert_non_null(tnl_ws_in_reserve(w, &cap));
	assert_in_range(cap, 4096, 16384);
	assert_in_range(tnl_alloc_bytes() - held, 1, 12 * 1024);
	feed(w, b, frame(b, 0x01, true, "x", 1, 0));
	assert_int_equal(tnl_ws_next(w, &ev, 0, &fault), TNL_EPROTO);
	assert_string_equal(fault, "fragment");
	assert_int_equal(queued_close(w), 1002);
	tnl_ws_free(w);

	w = tnl_ws_new(&conf, 0);
	size_t n = frame(b, 0x81, true, big, 4097, 0);
	feed(w, b, 8); /* by the header alone */
	assert_int_equal(tnl_ws_next(w, &ev, 0, &fault), TNL_ETOOBIG);
	assert_int_equal(queued_close(w), 1009);
	tnl_ws_free(w);

	w = tnl_ws_new(&conf, 0);
	n = frame(b, 0x81, true, big, 1000, 0);
	feed(w, b, n);
	assert_int_equal(tnl_ws_next(w, &ev, 0, NULL), 1);
	tnl_ws_set_input(w, TNL_WS_MAX_MESSAGE, false); /* the token was right */
	assert_int_equal(tnl_ws_next(w, &ev, 0, NULL), TNL_EAGAIN);
	feed(w, b, frame(b, 0x02, true, big, 4000, 0));
	assert_int_equal(tnl_ws_next(w, &ev, 0, NULL), TNL_EAGAIN);
	feed(w, b, frame(b, 0x80, true, big, 4000, 0));
	assert_int_equal(tnl_ws_next(w, &ev, 0, NULL), 1);
	assert_int_equal(ev.len, 8000);
	tnl_ws_free(w);
}

static void test_too_big(void **state)
{
	uint8_t b[64], *big = test_calloc(1, TNL_WS_MAX_MESSAGE + 100);
	struct tnl_ws_event ev;
	size_t n;

	/* refused by the header alone, before any of the payload came */
	frame(b, 0x82, true, "", 0, 127);
	tnl_put_be64(b + 2, TNL_WS_MAX_MESSAGE + 1);
	expect_refused(true, b, 10, TNL_ETOOBIG, 1009, "size");
	tnl_put_be64(b + 2, INT64_MAX);
	expect_refused(true, b, 10, TNL_ETOOBIG, 1009, "size");
	/* the sum of fragments counts */
	struct tnl_ws_config c = {.server = true, .max_message = 20};
	struct tnl_ws *w = tnl_ws_new(&c, 0);
	n = frame(b, 0x02, true, big, 12, 0);
	feed(w, b, n);
	assert_int_equal(tnl_ws_next(w, &ev, 0, NULL), TNL_EAGAIN);
	n = frame(b, 0x80, true, big, 9, 0);
	feed(w, b, n);
	assert_int_equal(tnl_ws_next(w, &ev, 0, NULL), TNL_ETOOBIG);
	assert_int_equal(queued_close(w), 1009);
	tnl_ws_free(w);
	/* the largest that fits passes */
	w = ws_new(true);
	uint8_t *f = test_malloc(TNL_WS_MAX_MESSAGE + 100);
	n = frame(f, 0x82, true, big, TNL_WS_MAX_MESSAGE, 0);
	for (size_t at = 0; at < n;) {
		size_t k = TNL_MIN(n - at, 16384u);

		assert_int_equal(tnl_ws_next(w, &ev, 0, NULL), TNL_EAGAIN);
		feed(w, f + at, k); /* 16 KiB of room after each EAGAIN */
		at += k;
	}
	assert_int_equal(tnl_ws_next(w, &ev, 0, NULL), 1);
	assert_int_equal(ev.len, TNL_WS_MAX_MESSAGE);
	tnl_ws_free(w);
	test_free(f);
	test_free(big);
}

/* --- every split point ------------------------------------------------------------- */

static size_t sample_stream(uint8_t *b, bool mask)
{
	uint8_t data[300];
	size_t n = 0;

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)i;
	n += frame(b + n, 0x81, mask, "token", 5, 0);
	n += frame(b + n, 0x82, mask, data, 0, 0);
	n += frame(b + n, 0x82, mask, data, 120, 0);
	n += frame(b + n, 0x82, mask, data, 126, 0);
	n += frame(b + n, 0x02, mask, data, 100, 0);
	n += frame(b + n, 0x89, mask, "keepalive", 9, 0);
	n += frame(b + n, 0x00, mask, data + 100, 100, 0);
	n += frame(b + n, 0x80, mask, data + 200, 100, 0);
	n += frame(b + n, 0x01, mask, "gr\xc3", 3, 0);
	n += frame(b + n, 0x80, mask, "\xbc\xc3\x9f", 3, 0);
	n += frame(b + n, 0x8a, mask, "pong", 4, 0);
	n += frame(b + n, 0x82, mask, data, 300, 0);
	n += frame(b + n, 0x88, mask,
		   "\x03\xe8"
		   "Bye",
		   5, 0);
	return n;
}

/* Collects events as text: what is compared. */
static void collect(struct tnl_ws *w, struct tnl_buf *log)
{
	struct tnl_ws_event ev;
	uint8_t sum[32];
	char hex[65];
	int rc;

	while ((rc = tnl_ws_next(w, &ev, 0, NULL)) == 1) {
		tnl_sha256(ev.data, ev.len, sum);
		tnl_hex(sum, 4, hex);
		tnl_buf_printf(log, "%d:%zu:%s:%d ", (int)ev.op, ev.len, hex,
			       ev.op == TNL_WS_CLOSE ? ev.close_code : 0);
	}
	assert_int_equal(rc, TNL_EAGAIN);
}

static void test_every_split(void **state)
{
	uint8_t b[4096];
	struct tnl_buf want, got;

	tnl_buf_init(&want, 100000);
	tnl_buf_init(&got, 100000);
	for (int server = 0; server < 2; server++) {
		size_t n = sample_stream(b, server);
		struct tnl_ws *w = ws_new(server);

		tnl_buf_reset(&want);
		feed(w, b, n);
		collect(w, &want);
		assert_true(no_more_sending(w));
		tnl_ws_free(w);
		assert_non_null(strstr(tnl_buf_str(&want), "1:5:"));
		assert_non_null(strstr(tnl_buf_str(&want), "9:9:"));
		assert_non_null(strstr(tnl_buf_str(&want), "8:3:"));
		assert_non_null(strstr(tnl_buf_str(&want), ":1000 "));
		for (size_t cut = 0; cut <= n; cut++) {
			w = ws_new(server);
			tnl_buf_reset(&got);
			feed(w, b, cut);
			collect(w, &got);
			if (cut < n)
				feed(w, b + cut, n - cut);
			collect(w, &got);
			assert_string_equal(tnl_buf_str(&got), tnl_buf_str(&want));
			tnl_ws_free(w);
		}
		w = ws_new(server);
		tnl_buf_reset(&got);
		for (size_t i = 0; i < n; i++) {
			feed(w, b + i, 1);
			collect(w, &got);
			if (i == n / 2)
				tnl_ws_settle(w);
		}
		assert_string_equal(tnl_buf_str(&got), tnl_buf_str(&want));
		tnl_ws_free(w);
	}
	tnl_buf_fini(&want);
	tnl_buf_fini(&got);
}

/* Only the front of a binary frame is unmasked; sent on it becomes a right frame of the other end, whichever that is.
 */
static void test_sending_on(void **state)
{
	static uint8_t data[70000], wire[70100];
	static const size_t lengths[] = {0, 5, 119, 120, 121, 125, 126, 300, 65535, 65536, 70000};

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7 + (i >> 8));
	for (size_t i = 0; i < 4 * TNL_COUNT(lengths); i++) {
		size_t n = lengths[i / 4];
		bool to_server = i & 1, unmask = i & 2;
		struct tnl_ws *in = ws_new(true), *out = ws_new(!to_server), *end = ws_new(to_server);
		struct tnl_ws_event ev;

		tnl_ws_set_clear(in, 120);
		size_t len = frame(wire, 0x82, true, data, n, 0);
		feed(in, wire, TNL_MIN(len, (size_t)60000));
		if (len > 60000) {
			assert_int_equal(tnl_ws_next(in, &ev, 0, NULL), TNL_EAGAIN);
			feed(in, wire + 60000, len - 60000);
		}
		assert_int_equal(tnl_ws_next(in, &ev, 0, NULL), 1);
		assert_int_equal(ev.len, n);
		assert_int_equal(ev.clear, TNL_MIN(n, (size_t)120));
		assert_memory_equal(ev.data, data, ev.clear);
		assert_true(n <= 120 || memcmp(ev.data, data, n) != 0);
		if (unmask) {
			tnl_ws_unmask(&ev);
			assert_memory_equal(ev.data, data, n);
		}
		assert_int_equal(tnl_ws_send_on(out, &ev), 0);
		const uint8_t *p = tnl_ws_out_peek(out, &len);
		for (size_t k; len; len -= k, p += k) {
			k = TNL_MIN(len, (size_t)50000);
			feed(end, p, k);
			if (len > k)
				assert_int_equal(tnl_ws_next(end, &ev, 0, NULL), TNL_EAGAIN);
		}
		assert_int_equal(tnl_ws_next(end, &ev, 0, NULL), 1);
		assert_int_equal(ev.len, n);
		assert_memory_equal(ev.data, data, n);
		tnl_ws_free(in);
		tnl_ws_free(out);
		tnl_ws_free(end);
	}
}

/* Text is read as a whole, and so is what comes in parts. */
static void test_text_and_parts_are_unmasked(void **state)
{
	struct tnl_ws *w = ws_new(true);
	struct tnl_ws_event ev;
	uint8_t wire[64];

	tnl_ws_set_clear(w, 4);
	feed(w, wire, frame(wire, 0x81, true, "a longer text", 13, 0));
	assert_int_equal(tnl_ws_next(w, &ev, 0, NULL), 1);
	assert_memory_equal(ev.data, "a longer text", ev.clear);
	assert_int_equal(ev.clear, 13);
	feed(w, wire, frame(wire, 0x02, true, "in two", 6, 0));
	feed(w, wire, frame(wire, 0x80, true, " parts", 6, 0));
	assert_int_equal(tnl_ws_next(w, &ev, 0, NULL), 1);
	assert_memory_equal(ev.data, "in two parts", 12);
	assert_int_equal(ev.clear, 12);
	tnl_ws_free(w);
}

static void test_output_limit(void **state)
{
	struct tnl_ws_config c = {.out_max = 1000};
	struct tnl_ws *w = tnl_ws_new(&c, 0);
	uint8_t data[1000] = {0};
	size_t n;

	assert_int_equal(tnl_ws_out_room(w), 1000 - TNL_WS_MAX_OVERHEAD);
	assert_int_equal(tnl_ws_send(w, TNL_WS_BINARY, data, 1000), TNL_EAGAIN);
	assert_int_equal(tnl_ws_send(w, TNL_WS_BINARY, data, 700), 0);
	assert_int_equal(tnl_ws_send(w, TNL_WS_BINARY, data, 700), TNL_EAGAIN);
	n = tnl_ws_out_room(w);
	assert_int_equal(tnl_ws_send(w, TNL_WS_BINARY, data, n), 0);
	assert_int_equal(tnl_ws_send(w, TNL_WS_PING, "p", 1), 0); /* control frames have room of their own */
	tnl_ws_out_peek(w, &n);
	tnl_ws_out_consume(w, n);
	assert_int_equal(tnl_ws_out_room(w), 1000 - TNL_WS_MAX_OVERHEAD);
	tnl_ws_free(w);
}

static void test_ping_flood_is_bounded(void **state)
{
	struct tnl_ws *w = ws_new(true);
	struct tnl_ws_event ev;
	uint8_t b[200], data[125] = {0};
	size_t n = frame(b, 0x89, true, data, 125, 0), out;

	for (int i = 0; i < 20000; i++) {
		feed(w, b, n);
		assert_int_equal(tnl_ws_next(w, &ev, 0, NULL), 1);
		assert_int_equal(ev.op, TNL_WS_PING);
	}
	tnl_ws_out_peek(w, &out);
	assert_true(out <= 512 * 1024 + TNL_WS_MAX_MESSAGE + 16 * 1024);
	/* a close frame still finds its place */
	assert_int_equal(tnl_ws_close(w, 1001, NULL), 0);
	n = out;
	tnl_ws_out_peek(w, &out);
	assert_int_equal(out, n + 4);
	tnl_ws_free(w);
}

static void test_pings_and_timeouts(void **state)
{
	struct tnl_ws_config c = {.ping_ns = 30 * SEC, .pong_ns = 20 * SEC};
	struct tnl_ws *w = tnl_ws_new(&c, 100 * SEC);
	struct tnl_ws_event ev;
	uint8_t b[64];
	size_t n, cap;

	assert_int_equal(tnl_ws_deadline(w), 130 * SEC);
	assert_int_equal(tnl_ws_expire(w, 129 * SEC), 0);
	tnl_ws_out_peek(w, &n);
	assert_int_equal(n, 0);
	assert_int_equal(tnl_ws_expire(w, 130 * SEC), 0);
	const uint8_t *p = tnl_ws_out_peek(w, &n);
	assert_int_equal(n, 2 + 4 + 9);
	assert_int_equal(p[0], 0x89);
	tnl_ws_out_consume(w, n);
	assert_int_equal(tnl_ws_deadline(w), 150 * SEC);
	/* the pong comes */
	n = frame(b, 0x8a, false, "keepalive", 9, 0);
	memcpy(tnl_ws_in_reserve(w, &cap), b, n);
	tnl_ws_in_commit(w, n, 140 * SEC);
	assert_int_equal(tnl_ws_next(w, &ev, 140 * SEC, NULL), 1);
	assert_int_equal(ev.op, TNL_WS_PONG);
	assert_int_equal(tnl_ws_deadline(w), 160 * SEC);
	assert_int_equal(tnl_ws_expire(w, 150 * SEC), 0);
	assert_int_equal(tnl_ws_expire(w, 160 * SEC), 0);
	/* any data is a sign of life */
	n = frame(b, 0x82, false, "x", 1, 0);
	memcpy(tnl_ws_in_reserve(w, &cap), b, n);
	tnl_ws_in_commit(w, n, 175 * SEC);
	assert_int_equal(tnl_ws_expire(w, 180 * SEC), 0);
	/* silence is not */
	assert_int_equal(tnl_ws_expire(w, 190 * SEC), 0);
	assert_int_equal(tnl_ws_expire(w, 199 * SEC), 0);
	assert_int_equal(tnl_ws_expire(w, 200 * SEC), 0);
	tnl_ws_free(w);
	w = tnl_ws_new(&c, 0);
	assert_int_equal(tnl_ws_expire(w, 30 * SEC), 0);
	assert_int_equal(tnl_ws_expire(w, 50 * SEC - 1), 0);
	assert_int_equal(tnl_ws_expire(w, 50 * SEC), TNL_ETIMEOUT);
	tnl_ws_free(w);
	/* no pings asked for: no deadline */
	w = ws_new(true);
	assert_true(tnl_ws_deadline(w) == UINT64_MAX);
	tnl_ws_free(w);
}

/* Whatever allocation fails: an error, no crash, no leak, no wrong event. */
static void test_without_memory(void **state)
{
	uint8_t b[4096];
	size_t n = sample_stream(b, true);
	bool passed = false;

	for (long k = 0; k < 200 && !passed; k++) {
		struct tnl_ws_config c = {.server = true};
		struct tnl_ws_event ev;
		struct tnl_ws *w;
		size_t cap = 0;
		int rc = TNL_ENOMEM, events = 0;

		tnl_alloc_fail_after(k, 0);
		w = tnl_ws_new(&c, 0);
		uint8_t *q = w ? tnl_ws_in_reserve(w, &cap) : NULL;
		if (q) {
			memcpy(q, b, n);
			tnl_ws_in_commit(w, n, 0);
			while ((rc = tnl_ws_next(w, &ev, 0, NULL)) == 1)
				events++;
			if (tnl_ws_send(w, TNL_WS_BINARY, b, 1000) != TNL_ECLOSED)
				rc = TNL_ENOMEM;
		}
		passed = rc == TNL_EAGAIN && events == 10 && no_more_sending(w);
		tnl_alloc_fail_after(-1, 0);
		tnl_ws_free(w);
		assert_int_equal(tnl_alloc_live(), 0);
	}
	assert_true(passed);
}

static int no_leaks(void **state)
{
	return tnl_alloc_live() == 0 ? 0 : -1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_mask_is_the_naive_xor),
	    cmocka_unit_test(test_refusals),
	    cmocka_unit_test(test_fragments_cost_their_bytes),
	    cmocka_unit_test(test_whole_messages_only),
	    cmocka_unit_test(test_too_big),
	    cmocka_unit_test(test_every_split),
	    cmocka_unit_test(test_sending_on),
	    cmocka_unit_test(test_text_and_parts_are_unmasked),
	    cmocka_unit_test(test_output_limit),
	    cmocka_unit_test(test_ping_flood_is_bounded),
	    cmocka_unit_test(test_pings_and_timeouts),
	    cmocka_unit_test(test_without_memory),
	};
	return cmocka_run_group_tests(tests, NULL, no_leaks);
}
