/* Encodings, each with a strict reader: what is not exactly right is TNL_ESYNTAX. */
#include "lib/enc.h"
#include "lib/num.h"
#include <stdio.h>
#include <string.h>

static const char hexdigits[] = "0123456789abcdef";

void tnl_hex(const uint8_t *p, size_t n, char *out)
{
	for (size_t i = 0; i < n; i++) {
		out[2 * i] = hexdigits[p[i] >> 4];
		out[2 * i + 1] = hexdigits[p[i] & 15];
	}
	out[2 * n] = '\0';
}

/* Value of a hex digit plus one; 0: none. A table, since branches on random digits are guessed wrong. */
static const uint8_t hex_value[256] = {
    ['0'] = 1,	['1'] = 2,  ['2'] = 3,	['3'] = 4,  ['4'] = 5,	['5'] = 6,  ['6'] = 7,	['7'] = 8,
    ['8'] = 9,	['9'] = 10, ['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16,
    ['A'] = 11, ['B'] = 12, ['C'] = 13, ['D'] = 14, ['E'] = 15, ['F'] = 16,
};

static int nibble(char c)
{
	return hex_value[(uint8_t)c] - 1;
}

int tnl_unhex(const char *s, size_t n, uint8_t *out)
{
	if (n % 2)
		return TNL_ESYNTAX;
	for (size_t i = 0; i < n / 2; i++) {
		int hi = nibble(s[2 * i]), lo = nibble(s[2 * i + 1]);
		if (hi < 0 || lo < 0)
			return TNL_ESYNTAX;
		out[i] = (uint8_t)(hi << 4 | lo);
	}
	return 0;
}

void tnl_b64(const uint8_t *p, size_t n, char *out)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

	for (; n >= 3; n -= 3, p += 3) {
		*out++ = digits[p[0] >> 2];
		*out++ = digits[(p[0] & 3) << 4 | p[1] >> 4];
		*out++ = digits[(p[1] & 15) << 2 | p[2] >> 6];
		*out++ = digits[p[2] & 63];
	}
	if (n) {
		*out++ = digits[p[0] >> 2];
		*out++ = digits[(p[0] & 3) << 4 | (n == 2 ? p[1] >> 4 : 0)];
		*out++ = n == 2 ? digits[(p[1] & 15) << 2] : '=';
		*out++ = '=';
	}
	*out = '\0';
}

static int b64_value(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

int tnl_unb64(const char *s, size_t n, uint8_t *out, size_t cap)
{
	size_t pad = 0, len = 0;

	if (n % 4 || n / 4 * 3 > INT32_MAX)
		return TNL_ESYNTAX;
	while (pad < 2 && pad < n && s[n - 1 - pad] == '=')
		pad++;
	if (n / 4 * 3 - pad > cap)
		return TNL_ESYNTAX;
	for (size_t i = 0; i < n; i += 4) {
		int digits = i + 4 == n ? 4 - (int)pad : 4;
		uint32_t v = 0;
		for (int j = 0; j < 4; j++) {
			int d = j < digits ? b64_value(s[i + (size_t)j]) : 0;
			if (d < 0)
				return TNL_ESYNTAX;
			v = v << 6 | (uint32_t)d;
		}
		/* Bits that no byte uses must be zero: one text for one value. */
		if ((digits == 2 && v & 0xffff) || (digits == 3 && v & 0xff))
			return TNL_ESYNTAX;
		for (int j = 0; j < digits - 1; j++)
			out[len++] = (uint8_t)(v >> (16 - 8 * j));
	}
	return (int)len;
}

int tnl_uri_encode(struct tnl_buf *b, const char *s, size_t n, bool keep_slash)
{
	for (size_t i = 0; i < n; i++) {
		uint8_t c = (uint8_t)s[i];
		bool plain = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
			     c == '_' || c == '.' || c == '~' || (c == '/' && keep_slash);
		int rc = plain ? tnl_buf_putc(b, c) : tnl_buf_printf(b, "%%%02X", c);
		if (rc)
			return rc;
	}
	return 0;
}

int tnl_uri_decode(struct tnl_buf *b, const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int c = (uint8_t)s[i];
		if (c == '%') {
			int hi = i + 2 < n ? nibble(s[i + 1]) : -1, lo = i + 2 < n ? nibble(s[i + 2]) : -1;
			if (hi < 0 || lo < 0)
				return TNL_ESYNTAX;
			c = hi << 4 | lo;
			i += 2;
		}
		int rc = tnl_buf_putc(b, c);
		if (rc)
			return rc;
	}
	return 0;
}

void tnl_uuid_str(const uint8_t u[16], char out[TNL_UUID_STR])
{
	for (int i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*out++ = '-';
		*out++ = hexdigits[u[i] >> 4];
		*out++ = hexdigits[u[i] & 15];
	}
	*out = '\0';
}

int tnl_uuid_parse(const char *s, size_t n, uint8_t u[16])
{
	uint8_t id[16];

	if (n != 36)
		return TNL_ESYNTAX;
	for (int i = 0; i < 16; i++) {
		if ((i == 4 || i == 6 || i == 8 || i == 10) && *s++ != '-')
			return TNL_ESYNTAX;
		int hi = nibble(s[0]), lo = nibble(s[1]);
		if (hi < 0 || lo < 0)
			return TNL_ESYNTAX;
		id[i] = (uint8_t)(hi << 4 | lo);
		s += 2;
	}
	memcpy(u, id, 16);
	return 0;
}

void tnl_uuid_v4(uint8_t u[16], const uint8_t rnd[16])
{
	memcpy(u, rnd, 16);
	u[6] = (uint8_t)((u[6] & 0x0f) | 0x40);
	u[8] = (uint8_t)((u[8] & 0x3f) | 0x80);
}

/* Proleptic Gregorian calendar, days since 1970-01-01 (y >= 1970). */
static int64_t days_from_civil(int64_t y, int m, int d)
{
	y -= m <= 2;
	int64_t era = y / 400, yoe = y - era * 400;
	int64_t doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
	return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

struct civil {
	int year, mon, day, hour, min, sec;
};

static struct civil civil_from_unix(uint64_t s)
{
	/* The texts have room for four digits of year. */
	const uint64_t last = 253402300799u;
	s = TNL_MIN(s, last);
	int64_t z = (int64_t)(s / 86400) + 719468, era = z / 146097, doe = z - era * 146097;
	int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
	int mon = (int)(mp < 10 ? mp + 3 : mp - 9), rest = (int)(s % 86400);

	return (struct civil){.year = (int)(yoe + era * 400 + (mon <= 2)),
			      .mon = mon,
			      .day = (int)(doy - (153 * mp + 2) / 5 + 1),
			      .hour = rest / 3600,
			      .min = rest / 60 % 60,
			      .sec = rest % 60};
}

static bool civil_valid(const struct civil *c)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

	if (c->year < 1970 || c->mon < 1 || c->mon > 12 || c->day < 1 || c->hour > 23 || c->min > 59 || c->sec > 60)
		return false;
	bool leap = (c->year % 4 == 0 && c->year % 100 != 0) || c->year % 400 == 0;
	return c->day <= days[c->mon - 1] + (leap && c->mon == 2);
}

static uint64_t civil_to_unix(const struct civil *c)
{
	return (uint64_t)(days_from_civil(c->year, c->mon, c->day) * 86400 + c->hour * 3600 + c->min * 60 + c->sec);
}

/* Reads exactly `width` digits; -1 if something else stands there. */
static int digits(const char **s, const char *end, int width)
{
	int v = 0;

	if (end - *s < width)
		return -1;
	for (int i = 0; i < width; i++) {
		char c = *(*s)++;
		if (c < '0' || c > '9')
			return -1;
		v = v * 10 + (c - '0');
	}
	return v;
}

static bool literal(const char **s, const char *end, char c)
{
	if (*s == end || **s != c)
		return false;
	++*s;
	return true;
}

void tnl_amz_date(uint64_t unix_s, char out[TNL_AMZDATE_STR])
{
	struct civil c = civil_from_unix(unix_s);
	char tmp[64];
	snprintf(tmp, sizeof(tmp), "%04d%02d%02dT%02d%02d%02dZ", c.year, c.mon, c.day, c.hour, c.min, c.sec);
	memcpy(out, tmp, TNL_AMZDATE_STR - 1);
	out[TNL_AMZDATE_STR - 1] = '\0';
}

int tnl_amz_date_parse(const char *s, size_t n, uint64_t *unix_s)
{
	const char *end = s + n;
	struct civil c;

	if (n != TNL_AMZDATE_STR - 1)
		return TNL_ESYNTAX;
	c.year = digits(&s, end, 4);
	c.mon = digits(&s, end, 2);
	c.day = digits(&s, end, 2);
	if (!literal(&s, end, 'T'))
		return TNL_ESYNTAX;
	c.hour = digits(&s, end, 2);
	c.min = digits(&s, end, 2);
	c.sec = digits(&s, end, 2);
	if (!literal(&s, end, 'Z') || c.hour < 0 || c.min < 0 || c.sec < 0 || !civil_valid(&c))
		return TNL_ESYNTAX;
	*unix_s = civil_to_unix(&c);
	return 0;
}

void tnl_iso_date(uint64_t unix_ms, char out[TNL_ISO_STR])
{
	struct civil c = civil_from_unix(unix_ms / 1000);
	char tmp[80];
	snprintf(tmp, sizeof(tmp), "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", c.year, c.mon, c.day, c.hour, c.min, c.sec,
		 (int)(unix_ms % 1000));
	memcpy(out, tmp, TNL_ISO_STR - 1);
	out[TNL_ISO_STR - 1] = '\0';
}

/* The zone's offset from UTC in seconds. */
static int zone(const char **s, const char *end, int64_t *offset)
{
	*offset = 0;
	if (literal(s, end, 'Z') || literal(s, end, 'z'))
		return 0;
	const char *name = *s + (*s < end && **s == ' ');
	if (end - name == 3 && (memcmp(name, "UTC", 3) == 0 || memcmp(name, "GMT", 3) == 0)) {
		*s = end;
		return 0;
	}
	int sign = literal(s, end, '+') ? 1 : literal(s, end, '-') ? -1 : 0;
	if (!sign)
		return TNL_ESYNTAX;
	int h = digits(s, end, 2);
	literal(s, end, ':');
	int m = digits(s, end, 2);
	if (h < 0 || h > 23 || m < 0 || m > 59)
		return TNL_ESYNTAX;
	*offset = sign * (h * 3600 + m * 60);
	return 0;
}

int tnl_iso_date_parse(const char *s, size_t n, uint64_t *unix_ms)
{
	const char *end = s + n;
	struct civil c;
	uint64_t ms = 0;
	int64_t offset;

	c.year = digits(&s, end, 4);
	bool basic = !literal(&s, end, '-'); /* 20261126T010426Z */
	if (c.year < 0)
		return TNL_ESYNTAX;
	c.mon = digits(&s, end, 2);
	if (c.mon < 0 || !(basic || literal(&s, end, '-')))
		return TNL_ESYNTAX;
	c.day = digits(&s, end, 2);
	if (c.day < 0 || (!literal(&s, end, 'T') && !literal(&s, end, 't') && !literal(&s, end, ' ')))
		return TNL_ESYNTAX;
	c.hour = digits(&s, end, 2);
	if (c.hour < 0 || !(basic || literal(&s, end, ':')))
		return TNL_ESYNTAX;
	c.min = digits(&s, end, 2);
	if (c.min < 0 || !(basic || literal(&s, end, ':')))
		return TNL_ESYNTAX;
	c.sec = digits(&s, end, 2);
	if (c.sec < 0 || !civil_valid(&c))
		return TNL_ESYNTAX;
	if (literal(&s, end, '.')) {
		uint64_t unit = 100;
		const char *from = s;
		for (; s < end && *s >= '0' && *s <= '9'; s++, unit /= 10)
			ms += (uint64_t)(*s - '0') * unit;
		if (s == from)
			return TNL_ESYNTAX;
	}
	if (zone(&s, end, &offset) || s != end)
		return TNL_ESYNTAX;
	int64_t t = (int64_t)civil_to_unix(&c) - offset;
	if (t < 0)
		return TNL_ESYNTAX;
	*unix_ms = (uint64_t)t * 1000 + ms;
	return 0;
}

size_t tnl_utf8_len(const uint8_t *p, size_t n)
{
	uint8_t c = p[0];

	if (c < 0x80)
		return 1;
	if (c >= 0xc2 && c <= 0xdf)
		return n >= 2 && (p[1] & 0xc0) == 0x80 ? 2 : 0;
	if (c >= 0xe0 && c <= 0xef) {
		if (n < 3 || (p[1] & 0xc0) != 0x80 || (p[2] & 0xc0) != 0x80)
			return 0;
		bool overlong = c == 0xe0 && p[1] < 0xa0, surrogate = c == 0xed && p[1] > 0x9f;
		return overlong || surrogate ? 0 : 3;
	}
	if (c >= 0xf0 && c <= 0xf4) {
		if (n < 4 || (p[1] & 0xc0) != 0x80 || (p[2] & 0xc0) != 0x80 || (p[3] & 0xc0) != 0x80)
			return 0;
		return (c == 0xf0 && p[1] < 0x90) || (c == 0xf4 && p[1] > 0x8f) ? 0 : 4;
	}
	return 0;
}

bool tnl_utf8_valid(const uint8_t *p, size_t n)
{
	while (n) {
		size_t k = tnl_utf8_len(p, n);
		if (!k)
			return false;
		p += k;
		n -= k;
	}
	return true;
}

size_t tnl_utf8_cut(const char *s, size_t n, size_t most)
{
	if (n <= most)
		return n;
	while (most && ((uint8_t)s[most] & 0xc0) == 0x80)
		most--;
	return most;
}

/* The characters that turn the direction of writing, or end a line. */
static bool is_format(const uint8_t *p)
{
	if (p[0] != 0xe2)
		return false;
	return (p[1] == 0x80 && p[2] >= 0xa8 && p[2] <= 0xae) || (p[1] == 0x81 && p[2] >= 0xa6 && p[2] <= 0xa9);
}

size_t tnl_utf8_printable(const uint8_t *p, size_t n)
{
	size_t k = tnl_utf8_len(p, n);
	/* C1 controls are U+0080 to U+009F: two bytes in UTF-8, and they too drive terminals. */
	bool control =
	    k && (*p < 0x20 || *p == 0x7f || (k == 2 && *p == 0xc2 && p[1] < 0xa0) || (k == 3 && is_format(p)));
	return control ? 0 : k;
}

int tnl_escape(struct tnl_buf *b, const char *s, size_t n, bool quote)
{
	const uint8_t *p = (const uint8_t *)s;
	int rc = 0;

	while (n && !rc) {
		size_t k = tnl_utf8_printable(p, n);
		bool control = k == 0;
		k = k ? k : 1;
		if (control)
			rc = tnl_buf_printf(b, "\\x%02x", *p);
		else if (quote && (*p == '"' || *p == '\\'))
			rc = tnl_buf_printf(b, "\\%c", *p);
		else
			rc = tnl_buf_put(b, p, k);
		p += k;
		n -= k;
	}
	return rc;
}

bool tnl_ieq(const char *a, const char *b)
{
	for (;; a++, b++) {
		char x = *a >= 'A' && *a <= 'Z' ? (char)(*a + 32) : *a;
		char y = *b >= 'A' && *b <= 'Z' ? (char)(*b + 32) : *b;
		if (x != y)
			return false;
		if (!x)
			return true;
	}
}
