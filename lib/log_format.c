/* Log lines are words and key=value pairs, so a value must not be able to look like another pair: what stands in for %s
 * inside quotation marks has its quotation marks and backslashes escaped, and what stands behind a bare = is put into
 * quotation marks when it holds anything but plain characters.  All else is printf's, and the marks before pairs. */
#include "lib/log.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

struct line {
	char *out;
	size_t cap, n; /* n: what there would be without an end of room */
	bool marked;   /* pairs are */
};

struct spec {
	char text[64]; /* as printf wants it, with * replaced by numbers */
	int precision; /* -1: none */
	char length;   /* 'l', 'L' (ll), 'z', 'j', or 0 */
	char conv;
	bool pair; /* %-s: one of our own */
};

static void put(struct line *l, char c)
{
	if (l->n + 1 < l->cap)
		l->out[l->n] = c;
	l->n++;
}

/* A byte of an argument: it must not be a mark. */
static void put_byte(struct line *l, char c)
{
	static const char digits[] = "0123456789abcdef";
	if (!l->marked || (c != TNL_LOG_FIELD && c != TNL_LOG_NUMBER)) {
		put(l, c);
		return;
	}
	put(l, '\\');
	put(l, 'x');
	put(l, digits[(uint8_t)c >> 4]);
	put(l, digits[c & 15]);
}

static void put_text(struct line *l, const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		put_byte(l, s[i]);
}

static void put_escaped(struct line *l, const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (s[i] == '"' || s[i] == '\\')
			put(l, '\\');
		put_byte(l, s[i]);
	}
}

static bool is_plain(const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if ((uint8_t)s[i] <= ' ' || s[i] == 127 || strchr("\"\\=", s[i]))
			return false;
	return n > 0;
}

static void put_string(struct line *l, const struct spec *s, const char *v, char before, bool quoted)
{
	v = v ? v : "(null)";
	size_t n = s->precision >= 0 ? strnlen(v, (size_t)s->precision) : strlen(v);
	bool wrap = !quoted && before == '=' && !is_plain(v, n);
	if (s->pair && l->marked)
		put(l, TNL_LOG_FIELD);
	if (wrap)
		put(l, '"');
	if (wrap || quoted)
		put_escaped(l, v, n);
	else
		put_text(l, v, n);
	if (wrap)
		put(l, '"');
}

/* The specification at fmt, which is behind its %; what follows it. */
static const char *read_spec(const char *fmt, struct spec *s, va_list *ap)
{
	size_t n = 0;
	*s = (struct spec){.precision = -1, .pair = *fmt == '-' && fmt[1] == 's'};
	s->text[n++] = '%';
	bool dot = false;
	for (; *fmt && strchr("-+ #0123456789.*", *fmt); fmt++) {
		if (*fmt == '*') {
			int v = va_arg(*ap, int);
			n += (size_t)snprintf(s->text + n, 12, "%d", v);
			s->precision = dot ? v : s->precision;
		} else if (n < 16) {
			s->text[n++] = *fmt;
		}
		if (*fmt == '.')
			s->precision = 0;
		else if (dot && *fmt != '*')
			s->precision = s->precision * 10 + (*fmt - '0');
		dot |= *fmt == '.';
	}
	for (; *fmt && strchr("hlzjt", *fmt); fmt++) {
		s->length = *fmt == 'l' && s->length == 'l' ? 'L' : *fmt;
		s->text[n++] = *fmt;
	}
	s->conv = *fmt;
	s->text[n++] = *fmt;
	s->text[n] = '\0';
	return *fmt ? fmt + 1 : fmt;
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
static void put_number(struct line *l, const struct spec *s, va_list *ap)
{
	char text[64];
	int n;
	if (strchr("fgeFGE", s->conv))
		n = snprintf(text, sizeof(text), s->text, va_arg(*ap, double));
	else if (s->conv == 'p')
		n = snprintf(text, sizeof(text), s->text, va_arg(*ap, void *));
	else if (s->length == 'L' || s->length == 'j')
		n = snprintf(text, sizeof(text), s->text, va_arg(*ap, long long));
	else if (s->length == 'l' || s->length == 'z' || s->length == 't')
		n = snprintf(text, sizeof(text), s->text, va_arg(*ap, long));
	else
		n = snprintf(text, sizeof(text), s->text, va_arg(*ap, int));
	if (n > 0)
		put_text(l, text, (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1);
}
#pragma GCC diagnostic pop

static bool is_key_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
}

/* Where a word begins: is it the key of a pair? A key may also be an argument by itself: %s=%s. */
static bool is_key(const char *fmt)
{
	const char *p = fmt;
	if (strncmp(p, "%s=", 3) == 0)
		return true;
	while (is_key_char(*p))
		p++;
	return p > fmt && *p == '=';
}

/* Is the value a number and nothing else? */
static bool is_number(const char *fmt)
{
	const char *p = strchr(fmt, '=') + 1;
	if (*p++ != '%')
		return false;
	p += strspn(p, "lzhj");
	return *p && strchr("dui", *p) && (!p[1] || strchr(" :,;)", p[1]));
}

static void mark(struct line *l, const char *fmt, char before, bool quoted)
{
	if (l->marked && !quoted && (!before || before == ' ' || before == '(') && is_key(fmt))
		put(l, is_number(fmt) ? TNL_LOG_NUMBER : TNL_LOG_FIELD);
}

static int format(struct line *l, const char *fmt, va_list args)
{
	bool quoted = false;
	char before = 0; /* of fmt: a literal character, 0 at its beginning, 1 behind an argument */
	va_list ap;

	va_copy(ap, args);
	while (*fmt) {
		mark(l, fmt, before, quoted);
		if (*fmt != '%') {
			quoted ^= *fmt == '"';
			before = *fmt;
			put(l, *fmt++);
			continue;
		}
		struct spec s;
		fmt = read_spec(fmt + 1, &s, &ap);
		if (s.conv == '%')
			put(l, '%');
		else if (s.conv == 's')
			put_string(l, &s, va_arg(ap, const char *), before, quoted);
		else if (s.conv)
			put_number(l, &s, &ap);
		before = 1;
	}
	va_end(ap);
	if (l->cap)
		l->out[l->n < l->cap ? l->n : l->cap - 1] = '\0';
	return (int)l->n;
}

int tnl_log_format(char *out, size_t cap, const char *fmt, va_list ap)
{
	return format(&(struct line){.out = out, .cap = cap}, fmt, ap);
}

int tnl_log_format_marked(char *out, size_t cap, const char *fmt, va_list ap)
{
	return format(&(struct line){.out = out, .cap = cap, .marked = true}, fmt, ap);
}

void tnl_log_unmark(char *text)
{
	char *to = text;
	for (; *text; text++)
		if (*text != TNL_LOG_FIELD && *text != TNL_LOG_NUMBER)
			*to++ = *text;
	*to = '\0';
}
