/* Allow and deny, by name and by address.  An address is tested in every form in which a packet to it may arrive: as it
 * is, and as the IPv4 address that a translator or a tunnel on the way would take out of it.  Deny wins over allow, and
 * addresses that lead to the machine's own metadata or to nobody in particular are denied to all, unless `deny` is
 * there and empty. */
#include "tunneld/agent/access.h"

#include "lib/num.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* An address in its one true form: IPv4 in the first four bytes. */
struct canon {
	bool v6;
	uint8_t a[16];
};

#define V4(a, b, c, d, prefix)                                                                                         \
	{                                                                                                              \
		.v6 = false, .addr = {a, b, c, d}, .bits = (prefix)                                                    \
	}

static const struct td_cidr loopback4 = V4(127, 0, 0, 0, 8);

static bool in_cidr(const struct td_cidr *c, const struct canon *a)
{
	return td_cidr_has(c, a->v6, a->a);
}

static bool is_nobody(const struct canon *c)
{
	struct td_addr a = {.len = 0};
	a.sa.sa_family = c->v6 ? AF_INET6 : AF_INET;
	memcpy(c->v6 ? (void *)&a.in6.sin6_addr : (void *)&a.in.sin_addr, c->a, c->v6 ? 16 : 4);
	return td_addr_is_nobody(&a);
}

static struct canon v4(const uint8_t *p)
{
	struct canon c = {.v6 = false};
	memcpy(c.a, p, 4);
	return c;
}

/* The address itself; v4-mapped is the same thing as IPv4 to every system call. */
static bool canonicalize(const struct td_addr *addr, struct canon *c)
{
	if (addr->sa.sa_family == AF_INET) {
		*c = v4((const uint8_t *)&addr->in.sin_addr);
		return true;
	}
	if (addr->sa.sa_family != AF_INET6)
		return false;
	if (IN6_IS_ADDR_V4MAPPED(&addr->in6.sin6_addr)) {
		*c = v4(addr->in6.sin6_addr.s6_addr + 12);
		return true;
	}
	c->v6 = true;
	memcpy(c->a, addr->in6.sin6_addr.s6_addr, 16);
	return true;
}

/* The IPv4 address to which translators and tunnels on the way would carry the packet. */
static bool embedded_ipv4(const struct canon *c, struct canon *in)
{
	static const uint8_t nat64[12] = {0x00, 0x64, 0xff, 0x9b};
	static const uint8_t nat64_local[6] = {0x00, 0x64, 0xff, 0x9b, 0x00, 0x01};
	static const uint8_t siit[12] = {[8] = 0xff, 0xff};
	static const uint8_t compat[12] = {0};
	const uint8_t *a = c->a;

	if (!c->v6)
		return false;
	if (a[0] == 0x20 && a[1] == 0x02) { /* 6to4 */
		*in = v4(a + 2);
	} else if (memcmp(a, nat64, 12) == 0 || memcmp(a, siit, 12) == 0) {
		*in = v4(a + 12);
	} else if (memcmp(a, compat, 12) == 0 && (a[12] || a[13] || a[14])) {
		*in = v4(a + 12);
	} else if (memcmp(a, nat64_local, 6) == 0) { /* RFC 6052 with a prefix of 48 bits, RFC 8215 */
		const uint8_t p[4] = {a[6], a[7], a[9], a[10]};
		*in = v4(p);
	} else {
		return false;
	}
	return true;
}

static char lower(char c)
{
	return (char)tolower((unsigned char)c);
}

/* Case ignored; * matches any run, ? one character. */
static bool glob_matches(const char *pattern, const char *s, size_t n)
{
	const char *star = NULL, *end = s + n, *retry = NULL;

	while (s < end) {
		if (*pattern == '*') {
			star = pattern++;
			retry = s;
		} else if (*pattern == '?' || (*pattern && lower(*pattern) == lower(*s))) {
			pattern++;
			s++;
		} else if (star) {
			pattern = star + 1;
			s = ++retry;
		} else {
			return false;
		}
	}
	while (*pattern == '*')
		pattern++;
	return !*pattern;
}

static bool name_matches(const struct td_rule *r, const char *host)
{
	size_t n = host ? strlen(host) : 0;

	if (n && host[n - 1] == '.') /* the root label changes nothing */
		n--;
	return r->host && n && glob_matches(r->host, host, n);
}

/* 10.0.* is about addresses: a name that begins so, and leads anywhere, is none. */
static bool host_fits(const struct td_rule *r, const char *host, const struct canon *forms, int n)
{
	char text[INET_ADDRSTRLEN];

	if (!r->host || !td_pattern_means_address(r->host))
		return name_matches(r, host);
	for (int k = 0; k < n; k++)
		if (!forms[k].v6 && inet_ntop(AF_INET, forms[k].a, text, sizeof(text)) &&
		    glob_matches(r->host, text, strlen(text)))
			return true;
	return false;
}

static bool port_matches(const struct td_rule *r, uint16_t port)
{
	return port >= r->port_lo && port <= r->port_hi;
}

static bool is_denied(const struct td_rules *deny, bool udp, const char *host, const struct canon *forms, int n,
		      uint16_t port)
{
	if (!deny->set || deny->n)
		for (int k = 0; k < n; k++)
			if (is_nobody(&forms[k]))
				return true;
	for (int i = 0; i < deny->n; i++) {
		const struct td_rule *r = &deny->v[i];
		if (!port_matches(r, port) || (r->udp && !udp))
			continue;
		if (!r->is_cidr && host_fits(r, host, forms, n))
			return true;
		for (int k = 0; r->is_cidr && k < n; k++)
			if (in_cidr(&r->cidr, &forms[k]))
				return true;
	}
	return false;
}

enum ag_access ag_access_check(const struct td_rules *allow, const struct td_rules *deny, bool udp, const char *host,
			       const struct td_addr *addr)
{
	struct canon forms[2] = {{.v6 = false}};
	int n = 1;
	uint16_t port = td_addr_port(addr);

	if (!canonicalize(addr, &forms[0]))
		return AG_ACCESS_DENIED;
	n += embedded_ipv4(&forms[0], &forms[1]);
	if (is_denied(deny, udp, host, forms, n, port))
		return AG_ACCESS_DENIED;
	if (!allow->set && !udp)
		return td_addr_is_loopback(addr) ? AG_ACCESS_OK : AG_ACCESS_NOT_ALLOWED;
	/* 127.0.0.1 inside a 6to4 address is not this machine: leave to send there was not given. */
	if (n == 2 && in_cidr(&loopback4, &forms[1]))
		n = 1;
	for (int i = 0; i < allow->n; i++) {
		const struct td_rule *r = &allow->v[i];
		if (!port_matches(r, port) || r->udp != udp)
			continue;
		if (!r->is_cidr && host_fits(r, host, forms, n))
			return AG_ACCESS_OK;
		for (int k = 0; r->is_cidr && k < n; k++)
			if (in_cidr(&r->cidr, &forms[k]))
				return AG_ACCESS_OK;
	}
	return AG_ACCESS_NOT_ALLOWED;
}

int ag_access_filter(const struct td_rules *allow, const struct td_rules *deny, bool udp, const char *host,
		     struct td_addr *addrs, int n, enum ag_access *first)
{
	int kept = 0;

	*first = AG_ACCESS_OK;
	for (int i = 0; i < n; i++) {
		enum ag_access got = ag_access_check(allow, deny, udp, host, &addrs[i]);
		if (got == AG_ACCESS_OK)
			addrs[kept++] = addrs[i];
		else if (*first == AG_ACCESS_OK)
			*first = got;
	}
	return kept;
}

/* /run/x/../y is not under /run/x, and /run//y not in a folder of /run, whatever a pattern makes of it. */
static bool is_tidy_path(const char *path)
{
	for (const char *s = strstr(path, "/."); s; s = strstr(s + 1, "/.")) {
		const char *end = s + 2 + (s[2] == '.');
		if (*end == '/' || !*end)
			return false;
	}
	return path[0] == '/' && !strstr(path, "//");
}

static bool has_path(const struct td_rules *rules, const char *path)
{
	for (int i = 0; i < rules->n; i++)
		if (rules->v[i].path && fnmatch(rules->v[i].path, path, FNM_PATHNAME) == 0)
			return true;
	return false;
}

/* Also by another name: through links on the way, or at its end. */
static bool is_denied_path(const struct td_rules *deny, const char *path)
{
	struct stat there, denied;
	char *real = NULL;
	bool hit = has_path(deny, path);

	for (int i = 0; !hit && i < deny->n; i++) {
		if (!deny->v[i].path)
			continue;
		real = real ? real : realpath(path, NULL);
		if (!real)
			return false; /* nothing is there */
		hit = has_path(deny, real) || (stat(real, &there) == 0 && stat(deny->v[i].path, &denied) == 0 &&
					       there.st_dev == denied.st_dev && there.st_ino == denied.st_ino);
	}
	free(real);
	return hit;
}

enum ag_access ag_access_path(const struct td_rules *allow, const struct td_rules *deny, const char *path)
{
	if (!is_tidy_path(path) || is_denied_path(deny, path))
		return AG_ACCESS_DENIED;
	return has_path(allow, path) ? AG_ACCESS_OK : AG_ACCESS_NOT_ALLOWED;
}

/* --- what may be bound ---------------------------------------------------------------------- */

static bool host_matches(const struct td_rule *r, const struct td_addr *a)
{
	const uint8_t *p = a->sa.sa_family == AF_INET ? (const uint8_t *)&a->in.sin_addr : a->in6.sin6_addr.s6_addr;
	char text[TD_ADDR_STR], *host = text, *end;

	if (r->is_cidr)
		return td_cidr_has(&r->cidr, a->sa.sa_family == AF_INET6, p);
	if (strcmp(r->host, "localhost") == 0)
		return td_addr_is_loopback(a);
	td_addr_str(a, text);
	end = strrchr(text, ':');
	if (text[0] == '[') {
		host++;
		end--;
	}
	*end = '\0';
	return fnmatch(r->host, host, 0) == 0;
}

bool ag_access_rule_binds(const struct td_rule *r, const struct td_addr *a)
{
	if (a->sa.sa_family == AF_UNIX)
		return r->path && is_tidy_path(a->un.sun_path) && fnmatch(r->path, a->un.sun_path, FNM_PATHNAME) == 0;
	uint16_t port = td_addr_port(a);
	return !r->path && !r->udp && port >= r->port_lo && port <= r->port_hi && host_matches(r, a);
}

bool ag_access_may_bind(const struct td_rules *rules, const struct td_addr *a)
{
	for (int i = 0; i < rules->n; i++)
		if (ag_access_rule_binds(&rules->v[i], a))
			return true;
	return false;
}
