#include "tests/unit/check.h"
#include "lib/alloc.h"
#include "lib/num.h"
#include "lib/enc.h"

static void hex_both_ways(void **state)
{
	uint8_t all[256], back[256];
	char text[513];

	for (int i = 0; i < 256; i++)
		all[i] = (uint8_t)i;
	tnl_hex(all, 256, text);
	assert_int_equal(strlen(text), 512);
	assert_memory_equal(text, "000102", 6);
	assert_string_equal(text + 506, "fdfeff");
	assert_int_equal(tnl_unhex(text, 512, back), 0);
	assert_memory_equal(all, back, 256);
	assert_int_equal(tnl_unhex("Af", 2, back), 0);
	assert_int_equal(back[0], 0xaf);
	assert_int_equal(tnl_unhex("abc", 3, back), TNL_ESYNTAX);
	assert_int_equal(tnl_unhex("0g", 2, back), TNL_ESYNTAX);
}

/* RFC 4648 section 10 */
static void base64_vectors(void **state)
{
	static const char *const v[][2] = {{"", ""},
					   {"f", "Zg=="},
					   {"fo", "Zm8="},
					   {"foo", "Zm9v"},
					   {"foob", "Zm9vYg=="},
					   {"fooba", "Zm9vYmE="},
					   {"foobar", "Zm9vYmFy"}};
	char text[16];
	uint8_t back[16];

	for (size_t i = 0; i < TNL_COUNT(v); i++) {
		size_t n = strlen(v[i][0]);
		tnl_b64((const uint8_t *)v[i][0], n, text);
		assert_string_equal(text, v[i][1]);
		assert_int_equal(tnl_unb64(text, strlen(text), back, n), n);
		assert_memory_equal(back, v[i][0], n);
		if (n)
			assert_int_equal(tnl_unb64(text, strlen(text), back, n - 1), TNL_ESYNTAX);
	}
}

static void base64_refuses_sloppy_text(void **state)
{
	static const char *const bad[] = {"Zg=",    "Zg",   "Z===", "====",	"Zh==", "Zm9=", "Zm 9",
					  "Zm9v\n", "Zm=v", "=m9v", "Zg==Zg==", "Zm-v", "Zm_v", "\x80m9v"};
	uint8_t out[32];

	for (size_t i = 0; i < TNL_COUNT(bad); i++)
		assert_int_equal(tnl_unb64(bad[i], strlen(bad[i]), out, sizeof(out)), TNL_ESYNTAX);
}

static void uri_encoding(void **state)
{
	struct tnl_buf b;

	tnl_buf_init(&b, 1000);
	assert_int_equal(tnl_uri_encode(&b, "aZ09-_.~ /@:\xe1\x88\xb4%", 16, false), 0);
	assert_string_equal(tnl_buf_str(&b), "aZ09-_.~%20%2F%40%3A%E1%88%B4%25");
	tnl_buf_reset(&b);
	tnl_uri_encode(&b, "/a b/", 5, true);
	assert_string_equal(tnl_buf_str(&b), "/a%20b/");
	tnl_buf_reset(&b);
	assert_int_equal(tnl_uri_decode(&b, "a%20%2f+b", 9), 0);
	assert_string_equal(tnl_buf_str(&b), "a /+b");
	assert_int_equal(tnl_uri_decode(&b, "a%2", 3), TNL_ESYNTAX);
	assert_int_equal(tnl_uri_decode(&b, "%", 1), TNL_ESYNTAX);
	assert_int_equal(tnl_uri_decode(&b, "%zz", 3), TNL_ESYNTAX);
	tnl_buf_fini(&b);
}

static void uuids(void **state)
{
	static const char text[] = "00112233-4455-6677-8899-aabbccddeeff";
	uint8_t u[16], rnd[16];
	char back[TNL_UUID_STR];

	assert_int_equal(tnl_uuid_parse(text, 36, u), 0);
	for (int i = 0; i < 16; i++)
		assert_int_equal(u[i], i * 0x11);
	tnl_uuid_str(u, back);
	assert_string_equal(back, text);
	for (size_t n = 0; n < 36; n++)
		assert_int_equal(tnl_uuid_parse(text, n, u), TNL_ESYNTAX);
	for (size_t i = 0; i < 36; i++) {
		char bad[37];
		strcpy(bad, text);
		bad[i] = bad[i] == '-' ? '0' : '-';
		assert_int_equal(tnl_uuid_parse(bad, 36, u), TNL_ESYNTAX);
	}
	memset(rnd, 0xff, 16);
	tnl_uuid_v4(u, rnd);
	tnl_uuid_str(u, back);
	assert_string_equal(back, "ffffffff-ffff-4fff-bfff-ffffffffffff");
}

static void dates(void **state)
{
	static const struct {
		uint64_t s;
		const char *amz, *iso;
	} v[] = {{0, "19700101T000000Z", "1970-01-01T00:00:00.007Z"},
		 {951782400, "20000229T000000Z", "2000-02-29T00:00:00.007Z"},
		 {1440938160, "20150830T123600Z", "2015-08-30T12:36:00.007Z"},
		 {1795338608, "20261122T091008Z", "2026-11-22T09:10:08.007Z"},
		 {4107542399, "21000228T235959Z", "2100-02-28T23:59:59.007Z"},
		 {4107542400, "21000301T000000Z", "2100-03-01T00:00:00.007Z"}};
	char amz[TNL_AMZDATE_STR], iso[TNL_ISO_STR];
	uint64_t t;

	for (size_t i = 0; i < TNL_COUNT(v); i++) {
		tnl_amz_date(v[i].s, amz);
		assert_string_equal(amz, v[i].amz);
		assert_int_equal(tnl_amz_date_parse(amz, 16, &t), 0);
		assert_int_equal(t, v[i].s);
		tnl_iso_date(v[i].s * 1000 + 7, iso);
		assert_string_equal(iso, v[i].iso);
		assert_int_equal(tnl_iso_date_parse(iso, 24, &t), 0);
		assert_int_equal(t, v[i].s * 1000 + 7);
	}
	for (uint64_t s = 12345; s < 8000000000u; s += 86400 * 13 + 977) {
		tnl_amz_date(s, amz);
		assert_int_equal(tnl_amz_date_parse(amz, 16, &t), 0);
		assert_int_equal(t, s);
	}
}

static void date_spellings(void **state)
{
	static const struct {
		const char *text;
		uint64_t ms;
	} good[] = {{"2015-08-30T12:36:00Z", 1440938160000},
		    {"2015-08-30T14:36:00+02:00", 1440938160000},
		    {"2015-08-30T07:06:00.25-0530", 1440938160250},
		    {"2015-08-30t12:36:00.123456789z", 1440938160123}};
	static const char *const bad[] = {"",
					  "2015-08-30",
					  "2015-02-29T00:00:00Z",
					  "2015-13-01T00:00:00Z",
					  "2015-08-30T24:00:00Z",
					  "2015-08-30T12:36:00",
					  "2015-08-30T12:36:00.Z",
					  "2015-08-30T12:36:00Zx",
					  "1969-08-30T12:36:00Z",
					  "1970-01-01T00:00:00+01:00"};
	static const char *const bad_amz[] = {"20150830T123600",  "20150832T123600Z", "20150830t123600Z",
					      "2015083OT123600Z", "20150830T126000Z", "20151301T000000Z"};
	uint64_t t;

	for (size_t i = 0; i < TNL_COUNT(good); i++) {
		assert_int_equal(tnl_iso_date_parse(good[i].text, strlen(good[i].text), &t), 0);
		assert_int_equal(t, good[i].ms);
	}
	for (size_t i = 0; i < TNL_COUNT(bad); i++)
		assert_int_equal(tnl_iso_date_parse(bad[i], strlen(bad[i]), &t), TNL_ESYNTAX);
	for (size_t i = 0; i < TNL_COUNT(bad_amz); i++)
		assert_int_equal(tnl_amz_date_parse(bad_amz[i], strlen(bad_amz[i]), &t), TNL_ESYNTAX);
}

static void utf8(void **state)
{
	static const char *const good[] = {"",
					   "a\n",
					   "\xc2\x80",
					   "\xdf\xbf",
					   "\xe0\xa0\x80",
					   "\xed\x9f\xbf",
					   "\xef\xbf\xbf",
					   "\xf0\x90\x80\x80",
					   "\xf4\x8f\xbf\xbf"};
	static const char *const bad[] = {"\x80",
					  "\xc0\x80",
					  "\xc1\xbf",
					  "\xc2",
					  "\xe0\x9f\xbf",
					  "\xed\xa0\x80",
					  "\xe1\x80",
					  "\xf0\x8f\xbf\xbf",
					  "\xf4\x90\x80\x80",
					  "\xf5\x80\x80\x80",
					  "a\xff"};

	for (size_t i = 0; i < TNL_COUNT(good); i++)
		assert_true(tnl_utf8_valid((const uint8_t *)good[i], strlen(good[i])));
	for (size_t i = 0; i < TNL_COUNT(bad); i++) {
		uint8_t *p = exact_copy(bad[i], strlen(bad[i]));
		assert_false(tnl_utf8_valid(p, strlen(bad[i])));
		free(p);
	}
}

/* What a peer sends must not drive the terminal that shows it. */
static void escaping(void **state)
{
	struct tnl_buf b;
	static const char in[] =
	    "a\x1b[31m\r\n\x7f\xc2\x9b\xc3\xa4\xff\"\\\xe2\x80\xae\xe2\x80\xaf\xe2\x81\xa6\xe2\x80\xa8";

	tnl_buf_init(&b, 200);
	assert_int_equal(tnl_escape(&b, in, sizeof(in) - 1, false), 0);
	assert_string_equal(
	    tnl_buf_str(&b),
	    "a\\x1b[31m\\x0d\\x0a\\x7f\\xc2\\x9b\xc3\xa4\\xff\"\\\\xe2\\x80\\xae\xe2\x80\xaf\\xe2\\x81\\xa6\\xe2\\x80\\xa8");
	tnl_buf_reset(&b);
	tnl_escape(&b, "\"\\\0x", 4, true);
	assert_string_equal(tnl_buf_str(&b), "\\\"\\\\\\x00x");
	tnl_buf_fini(&b);
}

static void case_ignored(void **state)
{
	assert_true(tnl_ieq("Content-Length", "cONTENT-lENGTH"));
	assert_false(tnl_ieq("abc", "abcd"));
	assert_false(tnl_ieq("abcd", "abc"));
	assert_false(tnl_ieq("[", "{"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(hex_both_ways),
	    cmocka_unit_test(base64_vectors),
	    cmocka_unit_test(base64_refuses_sloppy_text),
	    cmocka_unit_test(uri_encoding),
	    cmocka_unit_test(uuids),
	    cmocka_unit_test(dates),
	    cmocka_unit_test(date_spellings),
	    cmocka_unit_test(utf8),
	    cmocka_unit_test(escaping),
	    cmocka_unit_test(case_ignored),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
