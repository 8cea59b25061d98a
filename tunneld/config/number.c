/* Numbers of the configuration: plain, durations, sizes; text → bounded value, and a bound for people. */
#include "lib/err.h"
#include "lib/num.h"
#include "tunneld/base/loop.h"
#include "tunneld/config/internal.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RANGE_MAX = 256 }; /* ports of a range */

bool td_number_digits(const char **s, uint64_t *v)
{
	const char *p = *s;
	uint64_t n = 0;
	if (!isdigit((unsigned char)*p))
		return false;
	for (; isdigit((unsigned char)*p); p++)
		if (__builtin_mul_overflow(n, 10u, &n) || __builtin_add_overflow(n, (uint64_t)(*p - '0'), &n))
			return false;
	*s = p;
	*v = n;
	return true;
}

int td_number_plain(const char *s, uint64_t *v)
{
	return td_number_digits(&s, v) && !*s ? 0 : TNL_ESYNTAX;
}

/* The unit at *s, which is moved behind it; 0: none. */
static uint64_t take_unit(const char **s)
{
	static const struct {
		const char *word;
		uint64_t ns;
	} units[] = {{"ms", TD_MS}, {"s", TD_SEC}, {"m", 60 * TD_SEC}, {"h", 3600 * TD_SEC}};
	for (size_t i = 0; i < TNL_COUNT(units); i++) {
		size_t n = strlen(units[i].word);
		if (strncmp(*s, units[i].word, n) == 0 && !isalpha((unsigned char)(*s)[n])) {
			*s += n;
			return units[i].ns;
		}
	}
	return 0;
}

int td_number_duration(const char *s, uint64_t *ns)
{
	uint64_t sum = 0, last = UINT64_MAX;
	if (strcmp(s, "0") == 0) {
		*ns = 0;
		return 0;
	}
	do {
		uint64_t v, unit;
		if (!td_number_digits(&s, &v))
			return TNL_ESYNTAX;
		unit = take_unit(&s);
		/* 1h30m, but neither 30m1h nor 5m5m: those are slips. */
		if (!unit || unit >= last)
			return TNL_ESYNTAX;
		last = unit;
		if (__builtin_mul_overflow(v, unit, &v) || __builtin_add_overflow(sum, v, &sum))
			return TNL_ELIMIT;
	} while (*s);
	*ns = sum;
	return 0;
}

int td_number_size(const char *s, uint64_t *bytes)
{
	uint64_t v, unit = 1;
	if (!td_number_digits(&s, &v))
		return TNL_ESYNTAX;
	if (*s) {
		if (!strchr("KMG", *s) || s[1])
			return TNL_ESYNTAX;
		unit = *s == 'K' ? 1ull << 10 : *s == 'M' ? 1ull << 20 : 1ull << 30;
	}
	if (__builtin_mul_overflow(v, unit, bytes))
		return TNL_ELIMIT;
	return 0;
}

int td_number_octal(const char *s, uint64_t *v)
{
	size_t n = strlen(s);
	if (n == 0 || n > 5 || strspn(s, "01234567") != n)
		return TNL_ESYNTAX;
	*v = strtoul(s, NULL, 8);
	return 0;
}

void td_number_show_octal(uint64_t v, char out[TD_NUMBER_STR])
{
	snprintf(out, TD_NUMBER_STR, "%04o", (unsigned)v);
}

void td_number_show_plain(uint64_t v, char out[TD_NUMBER_STR])
{
	snprintf(out, TD_NUMBER_STR, "%llu", (unsigned long long)v);
}

void td_number_show_duration(uint64_t ns, char out[TD_NUMBER_STR])
{
	const uint64_t ms = ns / TD_MS;
	if (ms % 3600000 == 0 && ms)
		snprintf(out, TD_NUMBER_STR, "%lluh", (unsigned long long)(ms / 3600000));
	else if (ms % 1000 == 0)
		snprintf(out, TD_NUMBER_STR, "%llus", (unsigned long long)(ms / 1000));
	else
		snprintf(out, TD_NUMBER_STR, "%llums", (unsigned long long)ms);
}

void td_number_show_size(uint64_t bytes, char out[TD_NUMBER_STR])
{
	static const char *const units[] = {"", "K", "M", "G"};
	int unit = bytes >> 10 ? 1 : 0;
	if (bytes >> 20 && !(bytes & 0xfffff))
		unit = bytes >> 30 && !(bytes & 0x3fffffff) ? 3 : 2;
	snprintf(out, TD_NUMBER_STR, "%llu%s", (unsigned long long)(bytes >> 10 * unit), units[unit]);
}

static void store(void *at, size_t size, uint64_t v)
{
	unsigned u = (unsigned)v;
	uint16_t h = (uint16_t)v;
	memcpy(at, size == sizeof(v) ? (const void *)&v : size == sizeof(u) ? (const void *)&u : &h, size);
}

bool td_number_set(struct td_cfg_parse *p, int line, const struct td_opt *o, void *base, const char *value)
{
	char lo[TD_NUMBER_STR], hi[TD_NUMBER_STR];
	uint64_t v = 0;
	int err = o->type->number(value, &v);
	if (err == TNL_ESYNTAX) {
		td_cfg_error(p, line, "%s = %s: %s", o->key, value, o->type->needs);
		return false;
	}
	if (err || v < o->lo || v > o->hi) {
		o->type->show(o->lo, lo);
		o->type->show(o->hi, hi);
		td_cfg_error(p, line, "%s = %s: out of range, %s to %s", o->key, value, lo, hi);
		return false;
	}
	store((char *)base + o->off, o->type->size, v);
	return true;
}

const char *td_number_ports(const char *text, char *first, size_t cap, unsigned *n)
{
	const char *colon = strrchr(text, ':'), *low = colon ? colon + 1 : text, *dash = strchr(low, '-'), *end = low;
	uint64_t lo, hi;
	*n = 1;
	snprintf(first, cap, "%s", text);
	if (!dash || strncmp(text, "unix:", 5) == 0 || strncmp(text, "fd:", 3) == 0)
		return NULL;
	if (!td_number_digits(&end, &lo) || end != dash)
		return NULL; /* no address: that is said by who reads it as one */
	end++;
	if (!td_number_digits(&end, &hi) || *end || lo < 1 || hi > 65535 || hi < lo)
		return "LOW-HIGH must be two ports from 1 to 65535, the lower one first";
	if (hi - lo >= RANGE_MAX)
		return "a range has at most 256 ports";
	*n = (unsigned)(hi - lo + 1);
	first[TNL_MIN((size_t)(dash - text), cap - 1)] = '\0';
	return NULL;
}
