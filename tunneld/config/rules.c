/* allow and deny: HOST:PORT, HOST:LOW-HIGH, HOST:*, CIDR:PORT, [IPV6/BITS]:PORT, each with udp: before it, unix:PATH;
 * and lists of CIDR alone. */
#include "lib/alloc.h"
#include "lib/head.h"
#include "tunneld/config/internal.h"
#include <arpa/inet.h>
#include <ctype.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Digits only, at most `max`; -1 otherwise. */
static long parse_digits(const char *s, size_t n, long max)
{
	long v = 0;
	if (!n || n > 5)
		return -1;
	for (size_t i = 0; i < n; i++) {
		if (!isdigit((unsigned char)s[i]))
			return -1;
		v = v * 10 + (s[i] - '0');
	}
	return v <= max ? v : -1;
}

static const char *parse_ports(const char *s, struct td_rule *r)
{
	size_t n = strlen(s), lo_len = strcspn(s, "-");
	if (strcmp(s, "*") == 0) {
		r->port_lo = 1;
		r->port_hi = 65535;
		return NULL;
	}
	long lo = parse_digits(s, lo_len, 65535),
	     hi = s[lo_len] ? parse_digits(s + lo_len + 1, n - lo_len - 1, 65535) : lo;
	if (lo < 1 || hi < 1)
		return "the port is neither a number from 1 to 65535, nor LOW-HIGH, nor *";
	if (lo > hi)
		return "the range of ports is upside down";
	r->port_lo = (uint16_t)lo;
	r->port_hi = (uint16_t)hi;
	return NULL;
}

bool td_config_port_in(const char *entry, uint16_t port, bool *valid)
{
	struct td_rule r = {.port_lo = 0};
	char text[8];
	*valid = parse_ports(entry, &r) == NULL;
	if (*valid)
		return port >= r.port_lo && port <= r.port_hi;
	*valid = *entry && strspn(entry, "0123456789*?") == strlen(entry) && strpbrk(entry, "*?");
	snprintf(text, sizeof(text), "%u", port);
	return *valid && fnmatch(entry, text, 0) == 0;
}

/* An address with or without /BITS. NULL: done or no address at all (r->is_cidr tells). */
static const char *parse_cidr(char *s, bool brackets, struct td_rule *r)
{
	char *slash = strchr(s, '/');
	if (slash)
		*slash = '\0';
	bool v6 = inet_pton(AF_INET6, s, r->cidr.addr) == 1, v4 = !v6 && inet_pton(AF_INET, s, r->cidr.addr) == 1;
	if (!v4 && !v6)
		return brackets ? "the IPv6 address is malformed"
		       : slash	? "the address before the / is malformed"
				: NULL;
	if (v4 && brackets)
		return "only IPv6 addresses stand in brackets";
	long max = v6 ? 128 : 32, bits = slash ? parse_digits(slash + 1, strlen(slash + 1), max) : max;
	if (bits < 0)
		return v6 ? "the prefix length is not a number from 0 to 128"
			  : "the prefix length is not a number from 0 to 32";
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
	if (v6 && bits >= 96 && memcmp(r->cidr.addr, mapped, 12) == 0) {
		memmove(r->cidr.addr, r->cidr.addr + 12, 4);
		memset(r->cidr.addr + 4, 0, 12);
		v6 = false;
		bits -= 96;
	}
	/* 10.1.2.3/8 is a slip: the bits behind the prefix would be ignored without a word. */
	for (long i = bits; i < (v6 ? 128 : 32); i++)
		if (r->cidr.addr[i / 8] >> (7 - i % 8) & 1)
			return "the address has bits set behind its prefix length";
	r->cidr.v6 = v6;
	r->cidr.bits = (int)bits;
	r->is_cidr = true;
	return NULL;
}

static const char *parse_path(const char *s, struct td_rule *r)
{
	if (*s != '/')
		return "the path of a Unix socket begins with a slash";
	if (strlen(s) > TNL_HEAD_PATH)
		return "no Unix socket has so long a path";
	r->port_lo = 1; /* no port */
	r->path = td_cfg_dup(s, strlen(s));
	return NULL;
}

/* s is one entry, writable. */
static const char *parse_rule(char *s, struct td_rule *r)
{
	if (strncmp(s, "unix:", 5) == 0)
		return parse_path(s + 5, r);
	r->udp = strncmp(s, "udp:", 4) == 0;
	s += r->udp ? 4 : 0;
	bool brackets = *s == '[';
	char *colon;
	if (brackets) {
		char *end = strchr(++s, ']');
		if (!end)
			return "the ] is missing";
		*end = '\0';
		colon = end + 1;
		/* [fd00::]/8:443 reads as well as [fd00::/8]:443 */
		if (*colon == '/' && !strchr(s, '/')) {
			size_t n = strcspn(colon, ":");
			memmove(end, colon, n);
			end[n] = '\0';
			colon += n;
		}
		if (*colon != ':')
			return "the port is missing (* is any)";
	} else {
		colon = strrchr(s, ':');
		if (!colon)
			return "the port is missing (* is any)";
		if (memchr(s, ':', (size_t)(colon - s)))
			return "IPv6 addresses stand in brackets";
	}
	char *ports = colon + 1;
	if (!brackets)
		*colon = '\0';
	if (!*s)
		return "the host is missing";
	const char *fault = parse_ports(ports, r);
	if (!fault)
		fault = parse_cidr(s, brackets, r);
	if (fault || r->is_cidr)
		return fault;
	for (const char *c = s; *c; c++)
		if (!isalnum((unsigned char)*c) && !strchr("-_.*?", *c))
			return "the host has a character that no host name has";
	r->host = td_cfg_dup(s, strlen(s));
	return NULL;
}

/* What one entry, writable, adds to `out`; NULL, or what is wrong with it. */
static const char *add_rule(char *entry, void *out)
{
	struct td_rules *rules = out;
	struct td_rule r = {0};
	const char *fault = parse_rule(entry, &r);
	if (fault)
		return fault;
	rules->v = td_cfg_grow(rules->v, (size_t)(rules->n + 1) * sizeof(*rules->v));
	rules->v[rules->n++] = r;
	return NULL;
}

static const char *add_cidr(char *entry, void *out)
{
	struct td_cidrs *l = out;
	struct td_rule r = {0};
	const char *fault = parse_cidr(entry, false, &r);
	if (fault || !r.is_cidr)
		return fault ? fault : "must be an address or ADDRESS/BITS";
	l->v = td_cfg_grow(l->v, (size_t)(l->n + 1) * sizeof(*l->v));
	l->v[l->n++] = r.cidr;
	return NULL;
}

static bool add_entries(struct td_cfg_parse *p, int line, const char *key, const char *value,
			const char *(*add)(char *entry, void *out), void *out)
{
	bool ok = true;
	for (const char *s = value;;) {
		s += strspn(s, " \t");
		size_t n = strcspn(s, ","), len = n;
		while (len && (s[len - 1] == ' ' || s[len - 1] == '\t'))
			len--;
		char *entry = td_cfg_dup(s, len);
		const char *fault = len ? add(entry, out) : "an entry of the list is empty";
		tnl_free(entry);
		if (fault) {
			td_cfg_error(p, line, "%s = %.*s: %s", key, (int)len, s, fault);
			ok = false;
		}
		if (!s[n])
			return ok;
		s += n + 1;
	}
}

bool td_rules_set(struct td_cfg_parse *p, int line, const struct td_opt *o, void *base, const char *value)
{
	struct td_rules *out = (void *)((char *)base + o->off);
	out->set = true;
	return !*value || strcmp(value, "none") == 0 || add_entries(p, line, o->key, value, add_rule, out);
}

void td_rules_clear(const struct td_opt *o, void *base)
{
	struct td_rules *r = (void *)((char *)base + o->off);
	for (int i = 0; i < r->n; i++) {
		tnl_free(r->v[i].host);
		tnl_free(r->v[i].path);
	}
	tnl_free(r->v);
	*r = (struct td_rules){0};
}

void td_rules_inherit(const struct td_opt *o, void *base, const void *from)
{
	struct td_rules *to = (void *)((char *)base + o->off);
	const struct td_rules *r = (const void *)((const char *)from + o->off);
	if (to->set)
		return;
	*to = (struct td_rules){.n = r->n, .set = r->set};
	if (r->n)
		to->v = td_cfg_alloc((size_t)r->n * sizeof(*to->v));
	for (int i = 0; i < r->n; i++) {
		to->v[i] = r->v[i];
		to->v[i].host = r->v[i].host ? td_cfg_dup(r->v[i].host, strlen(r->v[i].host)) : NULL;
		to->v[i].path = r->v[i].path ? td_cfg_dup(r->v[i].path, strlen(r->v[i].path)) : NULL;
	}
}

static bool same_rule(const struct td_rule *x, const struct td_rule *y)
{
	if (x->is_cidr != y->is_cidr || x->udp != y->udp || x->port_lo != y->port_lo || x->port_hi != y->port_hi ||
	    !x->path != !y->path)
		return false;
	if (x->path)
		return strcmp(x->path, y->path) == 0;
	if (!x->is_cidr)
		return strcmp(x->host, y->host) == 0;
	return x->cidr.v6 == y->cidr.v6 && x->cidr.bits == y->cidr.bits &&
	       memcmp(x->cidr.addr, y->cidr.addr, sizeof(x->cidr.addr)) == 0;
}

bool td_rules_same(const struct td_opt *o, const void *base_a, const void *base_b)
{
	const struct td_rules *a = (const void *)((const char *)base_a + o->off);
	const struct td_rules *b = (const void *)((const char *)base_b + o->off);
	if (a->set != b->set || a->n != b->n)
		return false;
	for (int i = 0; i < a->n; i++)
		if (!same_rule(&a->v[i], &b->v[i]))
			return false;
	return true;
}

/* --- lists of networks ------------------------------------------------------------------------- */

bool td_cidrs_set(struct td_cfg_parse *p, int line, const struct td_opt *o, void *base, const char *value)
{
	return add_entries(p, line, o->key, value, add_cidr, (char *)base + o->off);
}

void td_cidrs_clear(const struct td_opt *o, void *base)
{
	struct td_cidrs *l = (void *)((char *)base + o->off);
	tnl_free(l->v);
	*l = (struct td_cidrs){0};
}

bool td_cidrs_same(const struct td_opt *o, const void *base_a, const void *base_b)
{
	const struct td_cidrs *a = (const void *)((const char *)base_a + o->off);
	const struct td_cidrs *b = (const void *)((const char *)base_b + o->off);
	if (a->n != b->n)
		return false;
	for (int i = 0; i < a->n; i++)
		if (a->v[i].v6 != b->v[i].v6 || a->v[i].bits != b->v[i].bits ||
		    memcmp(a->v[i].addr, b->v[i].addr, sizeof(a->v[i].addr)) != 0)
			return false;
	return true;
}

bool td_cidr_has(const struct td_cidr *c, bool v6, const uint8_t *addr)
{
	int whole = c->bits / 8, rest = c->bits % 8;
	if (c->v6 != v6 || memcmp(c->addr, addr, (size_t)whole) != 0)
		return false;
	return !rest || ((c->addr[whole] ^ addr[whole]) & (0xff00 >> rest) & 0xff) == 0;
}

bool td_cidrs_have(const struct td_cidrs *l, const struct td_addr *a)
{
	bool v6 = a->sa.sa_family == AF_INET6;
	if (!a->len || (!v6 && a->sa.sa_family != AF_INET))
		return false;
	const uint8_t *p = v6 ? a->in6.sin6_addr.s6_addr : (const uint8_t *)&a->in.sin_addr;
	if (v6 && IN6_IS_ADDR_V4MAPPED(&a->in6.sin6_addr)) {
		v6 = false;
		p += 12;
	}
	for (int i = 0; i < l->n; i++)
		if (td_cidr_has(&l->v[i], v6, p))
			return true;
	return false;
}

/* --- where a proxy may go --- */

static bool in_network(const struct td_cidr *c, const struct td_addr *a)
{
	const uint8_t *p = a->sa.sa_family == AF_INET ? (const uint8_t *)&a->in.sin_addr : a->in6.sin6_addr.s6_addr;
	bool v6 = a->sa.sa_family == AF_INET6;
	if (v6 && IN6_IS_ADDR_V4MAPPED(&a->in6.sin6_addr)) {
		p += 12;
		v6 = false;
	}
	int whole = c->bits / 8, rest = c->bits % 8;
	if (c->v6 != v6 || memcmp(c->addr, p, (size_t)whole) != 0)
		return false;
	return !rest || ((c->addr[whole] ^ p[whole]) & (0xff00 >> rest) & 0xff) == 0;
}

bool td_pattern_means_address(const char *pattern)
{
	return strpbrk(pattern, "0123456789") && strpbrk(pattern, "*?") && !pattern[strspn(pattern, "0123456789.*?")];
}

static bool name_fits(const char *pattern, const char *name, bool literal)
{
	return (literal || !td_pattern_means_address(pattern)) && fnmatch(pattern, name, FNM_CASEFOLD) == 0;
}

bool td_rules_have(const struct td_rules *rules, const char *host, uint16_t port)
{
	char name[TNL_HEAD_NAME + 1];
	struct td_addr a;
	bool literal = td_addr_literal(host, port, &a);
	int n = snprintf(name, sizeof(name), "%s", host);
	if (n > 0 && name[n - 1] == '.') /* the root label changes nothing */
		name[n - 1] = '\0';
	for (int i = 0; i < rules->n; i++) {
		const struct td_rule *r = &rules->v[i];
		if (r->udp || port < r->port_lo || port > r->port_hi)
			continue;
		if (r->is_cidr ? literal && in_network(&r->cidr, &a) : r->host && name_fits(r->host, name, literal))
			return true;
	}
	return false;
}
