#include "tunneld/command/reverse_spec.h"

#include <stdio.h>
#include <string.h>

#define FIELDS 4

/* Fields between colons; [..] keeps colons, and its brackets. How many, or -1. */
static int split(char *s, char *f[FIELDS])
{
	int n = 0;

	for (;;) {
		if (n == FIELDS)
			return -1;
		f[n++] = s;
		char *end = *s == '[' ? strchr(s, ']') : s;
		if (!end)
			return -1;
		end = strchr(end, ':');
		if (!end)
			return n;
		*end = '\0';
		s = end + 1;
	}
}

static bool is_number(const char *s)
{
	return *s && s[strspn(s, "0123456789")] == '\0';
}

/* In a file these would end the value. */
static bool is_plain(const char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s <= ' ' || *s == ';' || *s == '#')
			return false;
	return true;
}

/* What stands behind the last fields: a path, or host and port. How many fields that are; 0: neither. */
static int put_connect(char *f[FIELDS], int n, struct tnl_buf *out)
{
	if (n >= 2 && f[n - 1][0] == '/') {
		tnl_buf_printf(out, "connect = unix:%s\n", f[n - 1]);
		return 1;
	}
	if (n < 3 || !is_number(f[n - 1]) || !*f[n - 2])
		return 0;
	tnl_buf_printf(out, "connect = %s:%s\n", f[n - 2], f[n - 1]);
	return 2;
}

static bool put_bind(char *f[FIELDS], int n, struct tnl_buf *out)
{
	if (n == 1 && f[0][0] == '/') {
		tnl_buf_printf(out, "bind = unix:%s\n", f[0]);
		return true;
	}
	if (n < 1 || n > 2 || !is_number(f[n - 1]))
		return false;
	const char *address = n == 1 ? "127.0.0.1" : *f[0] ? f[0] : "*";
	tnl_buf_printf(out, "bind = %s:%s\n", address, f[n - 1]);
	return true;
}

bool td_reverse_section(const char *spec, int number, const char *target, const char *select, struct tnl_buf *out)
{
	char copy[1024], *f[FIELDS];

	if (!is_plain(spec) || snprintf(copy, sizeof(copy), "%s", spec) >= (int)sizeof(copy))
		return false;
	int n = split(copy, f);
	tnl_buf_printf(out, "[tunnel reverse-%d]\ntype = reverse\ntargets = %s\nselect = %s\n", number, target, select);
	int taken = n < 0 ? 0 : put_connect(f, n, out);
	return taken && put_bind(f, n - taken, out);
}
