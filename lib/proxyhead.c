/* The two forms of the PROXY head.  Version 1 is a line of at most 107 bytes; version 2 is a signature of 12 bytes,
 * command, family, a length, addresses of the family's size and typed fields, of which only a checksum is looked at. */
#include "lib/proxyhead.h"

#include "lib/crc32c.h"
#include "lib/num.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#define V1_MAX 107u
#define V2_HEAD 16u
#define V2_CHECKSUM 3 /* PP2_TYPE_CRC32C */

static const uint8_t v1_start[6] = "PROXY ";
static const uint8_t v2_start[12] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};

/* What each family's addresses take in version 2, of both ends together. */
static const size_t v2_sizes[] = {0, 12, 36, 216};

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static void put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

/* --- writing ---------------------------------------------------------------------------------- */

static bool is_inet(const struct tnl_proxyhead *h)
{
	return !h->local && (h->family == TNL_PROXYHEAD_INET || h->family == TNL_PROXYHEAD_INET6);
}

static size_t write_v1(const struct tnl_proxyhead *h, uint8_t *out)
{
	bool six = h->family == TNL_PROXYHEAD_INET6;
	char from[INET6_ADDRSTRLEN], to[INET6_ADDRSTRLEN], line[V1_MAX + 1];
	int n;

	if (is_inet(h) && inet_ntop(six ? AF_INET6 : AF_INET, h->source.ip, from, sizeof(from)) &&
	    inet_ntop(six ? AF_INET6 : AF_INET, h->destination.ip, to, sizeof(to)))
		n = snprintf(line, sizeof(line), "PROXY TCP%c %s %s %u %u\r\n", six ? '6' : '4', from, to,
			     h->source.port, h->destination.port);
	else
		n = snprintf(line, sizeof(line), "PROXY UNKNOWN\r\n");
	memcpy(out, line, (size_t)n);
	return (size_t)n;
}

static size_t write_v2(const struct tnl_proxyhead *h, uint8_t *out)
{
	bool inet = is_inet(h);
	size_t ip = h->family == TNL_PROXYHEAD_INET6 ? 16 : 4, n = inet ? v2_sizes[h->family] : 0;

	memcpy(out, v2_start, sizeof(v2_start));
	out[12] = (uint8_t)(0x20 | inet);
	out[13] = (uint8_t)(inet ? (unsigned)h->family << 4 | (h->dgram ? 2u : 1u) : 0);
	put16(out + 14, (uint16_t)n);
	if (inet) {
		memcpy(out + V2_HEAD, h->source.ip, ip);
		memcpy(out + V2_HEAD + ip, h->destination.ip, ip);
		put16(out + V2_HEAD + 2 * ip, h->source.port);
		put16(out + V2_HEAD + 2 * ip + 2, h->destination.port);
	}
	return V2_HEAD + n;
}

size_t tnl_proxyhead_write(const struct tnl_proxyhead *h, uint8_t out[TNL_PROXYHEAD_LONGEST])
{
	return h->version == 1 ? write_v1(h, out) : write_v2(h, out);
}

/* --- version 1 ---------------------------------------------------------------------------------- */

/* A decimal port without a leading zero. */
static bool read_port(const char *s, uint16_t *port)
{
	unsigned v = 0;
	size_t n = strspn(s, "0123456789");

	if (n == 0 || n > 5 || s[n] || (s[0] == '0' && n > 1))
		return false;
	for (size_t i = 0; i < n; i++)
		v = v * 10 + (unsigned)(s[i] - '0');
	*port = (uint16_t)v;
	return v <= 65535;
}

/* Takes the next word off *s; one space stands between two. */
static char *next_word(char **s)
{
	char *word = *s, *space = strchr(word, ' ');

	*s = space ? space + 1 : word + strlen(word);
	if (space)
		*space = '\0';
	return word;
}

/* line: behind "PROXY TCP4 ", without its end. */
static int read_addresses(char *line, struct tnl_proxyhead *h)
{
	int af = h->family == TNL_PROXYHEAD_INET ? AF_INET : AF_INET6;
	const char *from = next_word(&line), *to = next_word(&line);
	const char *from_port = next_word(&line);

	if (inet_pton(af, from, h->source.ip) != 1 || inet_pton(af, to, h->destination.ip) != 1 ||
	    !read_port(from_port, &h->source.port) || !read_port(line, &h->destination.port))
		return TNL_ESYNTAX;
	return 0;
}

/* line: behind "PROXY ", without its end. */
static int read_line(char *line, struct tnl_proxyhead *h)
{
	if (strcmp(line, "UNKNOWN") == 0 || strncmp(line, "UNKNOWN ", 8) == 0)
		return 0; /* the rest of it is to be ignored */
	if (strncmp(line, "TCP4 ", 5) == 0)
		h->family = TNL_PROXYHEAD_INET;
	else if (strncmp(line, "TCP6 ", 5) == 0)
		h->family = TNL_PROXYHEAD_INET6;
	else
		return TNL_ESYNTAX;
	return read_addresses(line + 5, h);
}

/* Only what a line of text has before its end: whatever comes later does not make it right again. */
static size_t text_length(const uint8_t *p, size_t n)
{
	size_t i = 0;
	while (i < n && p[i] >= ' ' && p[i] <= '~')
		i++;
	return i;
}

static int parse_v1(const uint8_t *p, size_t n, struct tnl_proxyhead *h)
{
	char line[V1_MAX + 1];
	size_t most = TNL_MIN(n, (size_t)V1_MAX), text = text_length(p, most);

	if (text + 2 > V1_MAX)
		return TNL_ETOOBIG;
	if (text < most && p[text] != '\r')
		return TNL_ESYNTAX;
	if (text + 1 >= most)
		return TNL_EAGAIN;
	if (p[text + 1] != '\n')
		return TNL_ESYNTAX;
	memcpy(line, p, text);
	line[text] = '\0';
	h->version = 1;
	int r = read_line(line + sizeof(v1_start), h);
	return r < 0 ? r : (int)text + 2;
}

/* --- version 2 ---------------------------------------------------------------------------------- */

static void read_paths(const uint8_t *p, struct tnl_proxyhead *h)
{
	memcpy(h->source.path, p, TNL_PROXYHEAD_PATH);
	memcpy(h->destination.path, p + TNL_PROXYHEAD_PATH, TNL_PROXYHEAD_PATH);
}

static void read_ends(const uint8_t *p, struct tnl_proxyhead *h)
{
	size_t ip = h->family == TNL_PROXYHEAD_INET6 ? 16 : 4;

	if (h->family == TNL_PROXYHEAD_NONE)
		return;
	if (h->family == TNL_PROXYHEAD_UNIX) {
		read_paths(p, h);
		return;
	}
	memcpy(h->source.ip, p, ip);
	memcpy(h->destination.ip, p + ip, ip);
	h->source.port = get16(p + 2 * ip);
	h->destination.port = get16(p + 2 * ip + 2);
}

/* The checksum is that of the whole head with four zeros in its own place. */
static bool checksum_fits(const uint8_t *p, size_t n, size_t at)
{
	uint8_t copy[TNL_PROXYHEAD_MAX];
	uint32_t said = (uint32_t)get16(p + at) << 16 | get16(p + at + 2);

	memcpy(copy, p, n);
	memset(copy + at, 0, 4);
	return tnl_crc32c(copy, n) == said;
}

/* p: the whole head of n bytes; the fields begin at `at`. */
static int check_fields(const uint8_t *p, size_t n, size_t at)
{
	while (at < n) {
		if (n - at < 3 || n - at - 3 < get16(p + at + 1))
			return TNL_ESYNTAX;
		size_t len = get16(p + at + 1);
		if (p[at] == V2_CHECKSUM && (len != 4 || !checksum_fits(p, n, at + 3)))
			return TNL_ESYNTAX;
		at += 3 + len;
	}
	return 0;
}

size_t tnl_proxyhead_add(uint8_t *head, size_t n, size_t cap, uint8_t type, const void *p, size_t len)
{
	size_t all = n + 3 + len;

	if (len > UINT16_MAX || all > cap || all > TNL_PROXYHEAD_MAX)
		return 0;
	head[n] = type;
	put16(head + n + 1, (uint16_t)len);
	memcpy(head + n + 3, p, len);
	put16(head + 14, (uint16_t)(all - V2_HEAD));
	return all;
}

bool tnl_proxyhead_next(const uint8_t *head, size_t n, size_t *at, uint8_t *type, const uint8_t **p, size_t *len)
{
	if (n < V2_HEAD || memcmp(head, v2_start, sizeof(v2_start)) != 0 || (head[12] & 0x0f) == 0 ||
	    head[13] >> 4 == 0)
		return false;
	size_t from = *at ? *at : V2_HEAD + v2_sizes[head[13] >> 4];
	if (n < from + 3 || n - from - 3 < get16(head + from + 1))
		return false;
	*type = head[from];
	*len = get16(head + from + 1);
	*p = head + from + 3;
	*at = from + 3 + *len;
	return true;
}

/* Command, family and protocol: of those only that the specification has. */
static int read_kind(uint8_t command, uint8_t family, struct tnl_proxyhead *h)
{
	if ((command & 0xf0) != 0x20 || (command & 0x0f) > 1)
		return TNL_ESYNTAX;
	h->local = (command & 0x0f) == 0;
	if (h->local)
		return 0; /* the family is to be ignored */
	if (family != 0 && ((family >> 4) < 1 || (family >> 4) > 3 || (family & 0x0f) < 1 || (family & 0x0f) > 2))
		return TNL_ESYNTAX;
	h->family = (enum tnl_proxyhead_family)(family >> 4);
	h->dgram = (family & 0x0f) == 2;
	return 0;
}

static int parse_v2(const uint8_t *p, size_t n, struct tnl_proxyhead *h)
{
	if (n < V2_HEAD)
		return TNL_EAGAIN;
	size_t whole = V2_HEAD + get16(p + 14);
	if (read_kind(p[12], p[13], h) < 0)
		return TNL_ESYNTAX;
	if (whole < V2_HEAD + v2_sizes[h->family])
		return TNL_ESYNTAX;
	if (whole > TNL_PROXYHEAD_MAX)
		return TNL_ETOOBIG;
	if (n < whole)
		return TNL_EAGAIN;
	h->version = 2;
	if (h->local || h->family == TNL_PROXYHEAD_NONE)
		return (int)whole; /* what is in it is to be skipped */
	read_ends(p + V2_HEAD, h);
	int r = check_fields(p, whole, V2_HEAD + v2_sizes[h->family]);
	return r < 0 ? r : (int)whole;
}

/* --- either ------------------------------------------------------------------------------------- */

static bool begins(const uint8_t *p, size_t n, const uint8_t *start, size_t len)
{
	return memcmp(p, start, TNL_MIN(n, len)) == 0;
}

int tnl_proxyhead_parse(const void *from, size_t n, struct tnl_proxyhead *h)
{
	const uint8_t *p = from;

	memset(h, 0, sizeof(*h));
	if (n == 0)
		return TNL_EAGAIN;
	if (begins(p, n, v1_start, sizeof(v1_start)))
		return n < sizeof(v1_start) ? TNL_EAGAIN : parse_v1(p, n, h);
	if (begins(p, n, v2_start, sizeof(v2_start)))
		return n < sizeof(v2_start) ? TNL_EAGAIN : parse_v2(p, n, h);
	return TNL_ESYNTAX;
}

bool tnl_proxyhead_looks(const void *p, size_t n)
{
	return (n >= sizeof(v1_start) && begins(p, n, v1_start, sizeof(v1_start))) ||
	       (n >= sizeof(v2_start) && begins(p, n, v2_start, sizeof(v2_start)));
}
