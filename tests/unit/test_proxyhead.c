/* PROXY heads of both versions: what is written, what is read at every split, what is refused. */
#include "tests/unit/check.h"
#include "lib/crc32c.h"
#include "lib/num.h"
#include "lib/proxyhead.h"
#include <arpa/inet.h>

static struct tnl_proxyhead four(int version)
{
	struct tnl_proxyhead h = {.version = version, .family = TNL_PROXYHEAD_INET};

	inet_pton(AF_INET, "192.0.2.7", h.source.ip);
	inet_pton(AF_INET, "127.0.0.1", h.destination.ip);
	h.source.port = 51000;
	h.destination.port = 80;
	return h;
}

static struct tnl_proxyhead six(int version)
{
	struct tnl_proxyhead h = {.version = version, .family = TNL_PROXYHEAD_INET6};

	inet_pton(AF_INET6, "2001:db8::1", h.source.ip);
	inet_pton(AF_INET6, "::1", h.destination.ip);
	h.source.port = 65535;
	h.destination.port = 1;
	return h;
}

static void writes(const struct tnl_proxyhead *h, const void *wanted, size_t n)
{
	uint8_t out[TNL_PROXYHEAD_LONGEST];

	assert_int_equal(tnl_proxyhead_write(h, out), n);
	assert_memory_equal(out, wanted, n);
}

/* Bytes as the specification draws them. */
static void written(void **state)
{
	static const char v2[] = "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\2\7\x7f\0\0\1\xc7\x38\0\x50";
	static const char local[] = "\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
	struct tnl_proxyhead h = four(1), s = six(1), none = {.version = 1}, far = {.version = 1};

	writes(&h, "PROXY TCP4 192.0.2.7 127.0.0.1 51000 80\r\n", 41);
	writes(&s, "PROXY TCP6 2001:db8::1 ::1 65535 1\r\n", 36);
	writes(&none, "PROXY UNKNOWN\r\n", 15);
	none.family = TNL_PROXYHEAD_UNIX;
	writes(&none, "PROXY UNKNOWN\r\n", 15);
	h.version = none.version = 2;
	writes(&h, v2, sizeof(v2) - 1);
	writes(&none, local, sizeof(local) - 1);
	far.family = TNL_PROXYHEAD_INET6;
	memset(far.source.ip, 0xff, 16);
	memset(far.destination.ip, 0xff, 16);
	far.source.port = far.destination.port = 65535;
	writes(&far,
	       "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 "
	       "65535\r\n",
	       104);
}

/* Whole only with its last byte, the same with bytes of the connection behind it, and never beyond its end. */
static void reads(const void *bytes, size_t n, struct tnl_proxyhead *h)
{
	uint8_t *more = malloc(n + 10);

	for (size_t k = 0; k < n; k++) {
		uint8_t *part = exact_copy(bytes, k);
		assert_int_equal(tnl_proxyhead_parse(part, k, h), TNL_EAGAIN);
		free(part);
	}
	memcpy(more, bytes, n);
	memset(more + n, 0x16, 10);
	assert_int_equal(tnl_proxyhead_parse(more, n + 10, h), n);
	assert_int_equal(tnl_proxyhead_parse(more, n, h), n);
	free(more);
}

static void there_and_back(const struct tnl_proxyhead *h)
{
	uint8_t out[TNL_PROXYHEAD_LONGEST];
	struct tnl_proxyhead got;

	reads(out, tnl_proxyhead_write(h, out), &got);
	assert_int_equal(got.version, h->version);
	assert_int_equal(got.family, h->family);
	assert_false(got.local);
	assert_memory_equal(got.source.ip, h->source.ip, 16);
	assert_memory_equal(got.destination.ip, h->destination.ip, 16);
	assert_int_equal(got.source.port, h->source.port);
	assert_int_equal(got.destination.port, h->destination.port);
}

static void read_back(void **state)
{
	for (int version = 1; version <= 2; version++) {
		struct tnl_proxyhead h = four(version), s = six(version);
		there_and_back(&h);
		there_and_back(&s);
	}
}

static void read_others(void **state)
{
	static const char unknown[] = "PROXY UNKNOWN ffff::1 whatever stands here\r\n";
	static const char local[] = "\r\n\r\n\0\r\nQUIT\n\x20\x11\0\x0c\xc0\0\2\7\x7f\0\0\1\xc7\x38\0\x50";
	static const char udp[] = "\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c\xc0\0\2\7\x7f\0\0\1\xc7\x38\0\x50";
	static const char none[] = "\r\n\r\n\0\r\nQUIT\n\x21\0\0\3abc";
	struct tnl_proxyhead h;
	uint8_t paths[16 + 216] = "\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8/run/a.sock";

	reads(unknown, sizeof(unknown) - 1, &h);
	assert_int_equal(h.family, TNL_PROXYHEAD_NONE);
	assert_false(h.local);
	reads(local, sizeof(local) - 1, &h);
	assert_true(h.local);
	assert_int_equal(h.family, TNL_PROXYHEAD_NONE);
	reads(udp, sizeof(udp) - 1, &h);
	assert_true(h.dgram);
	reads(none, sizeof(none) - 1, &h);
	assert_int_equal(h.family, TNL_PROXYHEAD_NONE);
	memset(paths + 16 + 108, 'x', 108);
	reads(paths, sizeof(paths), &h);
	assert_int_equal(h.family, TNL_PROXYHEAD_UNIX);
	assert_string_equal(h.source.path, "/run/a.sock");
	assert_int_equal(strlen(h.destination.path), 108);
}

/* A head of version 2 with fields behind the addresses. */
static size_t with_fields(uint8_t *out, const void *fields, size_t n)
{
	struct tnl_proxyhead h = four(2);
	size_t len = tnl_proxyhead_write(&h, out);

	memcpy(out + len, fields, n);
	out[14] = (uint8_t)((12 + n) >> 8);
	out[15] = (uint8_t)(12 + n);
	return len + n;
}

static void put_checksum(uint8_t *b, size_t n, size_t at)
{
	uint32_t sum = tnl_crc32c(b, n);

	for (int i = 0; i < 4; i++)
		b[at + (size_t)i] = (uint8_t)(sum >> (24 - 8 * i));
}

static void fields(void **state)
{
	uint8_t b[TNL_PROXYHEAD_MAX + 100], big[TNL_PROXYHEAD_MAX] = {0x04, 0, 0};
	struct tnl_proxyhead h;
	size_t n = with_fields(b, "\4\0\2ab\3\0\4\0\0\0\0", 12);

	assert_int_equal(tnl_proxyhead_parse(b, n, &h), TNL_ESYNTAX); /* the checksum is not that */
	put_checksum(b, n, n - 4);
	reads(b, n, &h);
	assert_int_equal(h.source.port, 51000);
	b[16]++;
	assert_int_equal(tnl_proxyhead_parse(b, n, &h), TNL_ESYNTAX);
	n = with_fields(b, "\3\0\3\0\0\0", 6);
	assert_int_equal(tnl_proxyhead_parse(b, n, &h), TNL_ESYNTAX);
	n = with_fields(b, "\4\0\3ab", 5); /* longer than what is there */
	assert_int_equal(tnl_proxyhead_parse(b, n, &h), TNL_ESYNTAX);
	n = with_fields(b, "\4\0", 2);
	assert_int_equal(tnl_proxyhead_parse(b, n, &h), TNL_ESYNTAX);
	size_t most = TNL_PROXYHEAD_MAX - 28;
	big[1] = (uint8_t)((most - 3) >> 8);
	big[2] = (uint8_t)(most - 3);
	n = with_fields(b, big, most);
	assert_int_equal(n, TNL_PROXYHEAD_MAX);
	assert_int_equal(tnl_proxyhead_parse(b, n, &h), n);
	with_fields(b, big, most + 1);
	assert_int_equal(tnl_proxyhead_parse(b, 16, &h), TNL_ETOOBIG);
}

static void refused(void **state)
{
	static const struct {
		const char *bytes;
		size_t n;
	} bad[] = {
#define BAD(s) {s, sizeof(s) - 1}
	    BAD("G"),
	    BAD("\x16\x03\x01"),
	    BAD("PROXX"),
	    BAD("PROXY TCP4 192.0.2.7 127.0.0.1 51000 80\n"),
	    BAD("PROXY TCP4 192.0.2.7 127.0.0.1 51000 80\rx"),
	    BAD("PROXY TCP4 192.0.2.7 127.0.0.1 51000 80 \r\n"),
	    BAD("PROXY TCP4 192.0.2.7 127.0.0.1 51000\r\n"),
	    BAD("PROXY TCP4 192.0.2.7  127.0.0.1 51000 80\r\n"),
	    BAD("PROXY TCP4 192.0.2.7 127.0.0.1 051 80\r\n"),
	    BAD("PROXY TCP4 192.0.2.7 127.0.0.1 65536 80\r\n"),
	    BAD("PROXY TCP4 192.0.2.7 127.0.0.1 -1 80\r\n"),
	    BAD("PROXY TCP4 192.0.2 127.0.0.1 1 80\r\n"),
	    BAD("PROXY TCP4 192.0.2.07 127.0.0.1 1 80\r\n"),
	    BAD("PROXY TCP4 ::1 127.0.0.1 1 80\r\n"),
	    BAD("PROXY TCP6 192.0.2.7 ::1 1 80\r\n"),
	    BAD("PROXY UDP4 192.0.2.7 127.0.0.1 1 80\r\n"),
	    BAD("PROXY UNKNOWNS\r\n"),
	    BAD("PROXY \r\n"),
	    BAD("PROXY TCP4 192.0.2.7\0 127.0.0.1 1 80\r\n"),
	    BAD("\r\n\r\n\0\r\nQUIT\r"),
	    BAD("\r\n\r\n\0\r\nQUIT\n\x11\x11\0\x0c"),
	    BAD("\r\n\r\n\0\r\nQUIT\n\x22\x11\0\x0c"),
	    BAD("\r\n\r\n\0\r\nQUIT\n\x21\x10\0\x0c"),
	    BAD("\r\n\r\n\0\r\nQUIT\n\x21\x13\0\x0c"),
	    BAD("\r\n\r\n\0\r\nQUIT\n\x21\x41\0\x0c"),
	    BAD("\r\n\r\n\0\r\nQUIT\n\x21\x01\0\x0c"),
	    BAD("\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0b"),
	    BAD("\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd7"),
#undef BAD
	};
	struct tnl_proxyhead h;

	for (size_t i = 0; i < TNL_COUNT(bad); i++) {
		uint8_t *b = exact_copy(bad[i].bytes, bad[i].n);
		if (tnl_proxyhead_parse(b, bad[i].n, &h) != TNL_ESYNTAX)
			fail_msg("taken: %s", bad[i].bytes);
		free(b);
	}
}

/* The longest line is known to be too long at once, whatever else comes. */
static void long_line(void **state)
{
	char b[200] = "PROXY UNKNOWN ";
	struct tnl_proxyhead h;

	memset(b + 14, 'x', sizeof(b) - 14);
	memcpy(b + 105, "\r\n", 2);
	assert_int_equal(tnl_proxyhead_parse(b, 107, &h), 107);
	memcpy(b + 105, "x\r\n", 3);
	assert_int_equal(tnl_proxyhead_parse(b, 105, &h), TNL_EAGAIN);
	assert_int_equal(tnl_proxyhead_parse(b, 106, &h), TNL_ETOOBIG);
	assert_int_equal(tnl_proxyhead_parse(b, 108, &h), TNL_ETOOBIG);
}

/* Fields that are added are found again, as long as they fit. */
static void added(void **state)
{
	struct tnl_proxyhead h = {.version = 2, .family = TNL_PROXYHEAD_INET}, got;
	uint8_t b[TNL_PROXYHEAD_MAX], type, big[1500] = {0};
	const uint8_t *p;
	size_t n = tnl_proxyhead_write(&h, b), at = 0, len, first = n;

	assert_false(tnl_proxyhead_next(b, n, &at, &type, &p, &len));
	n = tnl_proxyhead_add(b, n, sizeof(b), 0xe0, "a.example", 9);
	assert_int_equal(n, first + 12);
	n = tnl_proxyhead_add(b, n, sizeof(b), 0xe1, "", 0);
	n = tnl_proxyhead_add(b, n, sizeof(b), 0xe1, big, sizeof(big));
	assert_int_equal(tnl_proxyhead_add(b, n, sizeof(b), 0xe1, big, sizeof(big)), 0);
	assert_int_equal(tnl_proxyhead_add(b, n, n + 3, 0xe1, "x", 1), 0);
	assert_int_equal(tnl_proxyhead_parse(b, n, &got), n);
	assert_true(tnl_proxyhead_next(b, n, &at, &type, &p, &len));
	assert_int_equal(type, 0xe0);
	assert_int_equal(len, 9);
	assert_memory_equal(p, "a.example", 9);
	assert_true(tnl_proxyhead_next(b, n, &at, &type, &p, &len) && type == 0xe1 && len == 0);
	assert_true(tnl_proxyhead_next(b, n, &at, &type, &p, &len) && len == sizeof(big));
	assert_false(tnl_proxyhead_next(b, n, &at, &type, &p, &len));
	h.local = true; /* what is in it is to be skipped */
	n = tnl_proxyhead_add(b, tnl_proxyhead_write(&h, b), sizeof(b), 0xe0, "a", 1);
	at = 0;
	assert_false(tnl_proxyhead_next(b, n, &at, &type, &p, &len));
	at = 0;
	assert_false(tnl_proxyhead_next((const uint8_t *)"PROXY UNKNOWN\r\n", 15, &at, &type, &p, &len));
}

static void looks(void **state)
{
	assert_true(tnl_proxyhead_looks("PROXY nonsense", 14));
	assert_true(tnl_proxyhead_looks("\r\n\r\n\0\r\nQUIT\n", 12));
	assert_false(tnl_proxyhead_looks("PROXY", 5));
	assert_false(tnl_proxyhead_looks("\r\n\r\n\0\r\nQUIT", 11));
	assert_false(tnl_proxyhead_looks("GET / HTTP/1.1\r\n", 16));
	assert_false(tnl_proxyhead_looks("", 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(written), cmocka_unit_test(read_back), cmocka_unit_test(read_others),
	    cmocka_unit_test(fields),  cmocka_unit_test(refused),   cmocka_unit_test(long_line),
	    cmocka_unit_test(looks),   cmocka_unit_test(added),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
