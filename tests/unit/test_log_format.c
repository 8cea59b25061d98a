/* Lines of the log: as printf writes them, but that a value stays one value. */
#include "tests/unit/check.h"
#include "lib/log.h"
#include <stdint.h>

static char got[400];

__attribute__((format(printf, 1, 2))) static int format(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int n = tnl_log_format(got, sizeof(got), fmt, ap);
	va_end(ap);
	return n;
}

#define SAME(...)                                                                                                      \
	do {                                                                                                           \
		char want_[400];                                                                                       \
		int n_ = snprintf(want_, sizeof(want_), __VA_ARGS__);                                                  \
		assert_int_equal(format(__VA_ARGS__), n_);                                                             \
		assert_string_equal(got, want_);                                                                       \
	} while (0)

static void as_printf_does(void **state)
{
	SAME("nothing");
	SAME("a=%d b=%u c=%ld d=%llu e=%zu f=%x g=%c h=%%", -3, 4u, -5l, 6ull, (size_t)7, 255, 'c');
	SAME("n=%02x%02X w=%5d|%-5d|%05d p=%.2f", 1, 171, 42, 42, 42, 3.14159);
	SAME("s=%s t=\"%s\" u=%.3s v=%.*s", "abc", "d e", "abcdef", 2, "xyz");
	SAME("%s at the start, %s in the middle: %s", "words may", "have \"marks\"", "as they like a=b");
	SAME("big=%lld small=%lld j=%jd", (long long)INT64_MAX, (long long)INT64_MIN, (intmax_t)-1);
	SAME("cut %.*s|", 0, "gone");
	SAME("100%%");
}

static void values_stay_values(void **state)
{
	format("text=\"%s\" peer=%s", "x\" peer=\"1.2.3.4", "127.0.0.1:1");
	assert_string_equal(got, "text=\"x\\\" peer=\\\"1.2.3.4\" peer=127.0.0.1:1");
	format("text=\"%s\"", "ends with \\");
	assert_string_equal(got, "text=\"ends with \\\\\"");
	format("type=%s document=%s", "Port owner=root", "d");
	assert_string_equal(got, "type=\"Port owner=root\" document=d");
	format("type=%s", "a\"b");
	assert_string_equal(got, "type=\"a\\\"b\"");
	format("type=%s next=%d", "", 1);
	assert_string_equal(got, "type=\"\" next=1");
	format("a=%.6s b=%.*s", "x y=zzzzz", 3, "u v w");
	assert_string_equal(got, "a=\"x y=zz\" b=\"u v\"");
	format("reason=\"%s: %s\" tail", "one \"two\"", "\\");
	assert_string_equal(got, "reason=\"one \\\"two\\\": \\\\\" tail");
	const char *volatile none = NULL;
	format("a=%s", none);
	assert_string_equal(got, "a=(null)");
}

__attribute__((format(printf, 1, 2))) static const char *marked(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	tnl_log_format_marked(got, sizeof(got), fmt, ap);
	va_end(ap);
	for (char *p = got; *p; p++)
		*p = *p == TNL_LOG_FIELD ? '@' : *p == TNL_LOG_NUMBER ? '#' : *p;
	return got;
}

/* A mark stands before what the program wrote, and before nothing else. */
static void pairs_are_marked(void **state)
{
	assert_string_equal(marked("done a=%s b=%d c=\"%s: x=%s\" d=no: %s", "1", 2, "t=1", "y", "e=5"),
			    "done @a=1 #b=2 @c=\"t=1: x=y\" @d=no: e=5");
	assert_string_equal(marked("%s", "peer=1.2.3.4 owner=root"), "peer=1.2.3.4 owner=root");
	assert_string_equal(marked("%s up %-s n=%llu, m=%zu f=%02x g=%us h=%.1f", "a=b", "tunnel=t", 1ull, (size_t)2, 3,
				   4u, .5),
			    "a=b up @tunnel=t #n=1, #m=2 @f=03 @g=4s @h=0.5");
	assert_string_equal(marked("x %s=%s (y=%d)", "user", "ops", 1), "x @user=ops (#y=1)");
	assert_string_equal(marked("key=%s", "v"), "@key=v");
	assert_string_equal(marked("Key=1 a-b=2 c =3 \" d=4\""), "Key=1 a-b=2 c =3 \" d=4\"");
	assert_string_equal(marked("k=%s t=\"%s\" %s", "a\x1eowner=root", "\x1f", "\x1euser=root"),
			    "@k=\"a\\x1eowner=root\" @t=\"\\x1f\" \\x1euser=root");
	char text[] = "a \x1e"
		      "b=1 \x1f"
		      "c=2";
	tnl_log_unmark(text);
	assert_string_equal(text, "a b=1 c=2");
}

static void room_ends(void **state)
{
	char small[8];
	va_list none;
	memset(&none, 0, sizeof(none));
	memset(small, 'z', sizeof(small));
	assert_int_equal(tnl_log_format(small, sizeof(small), "0123456789", none), 10);
	assert_string_equal(small, "0123456");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(as_printf_does),
	    cmocka_unit_test(values_stay_values),
	    cmocka_unit_test(pairs_are_marked),
	    cmocka_unit_test(room_ends),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
