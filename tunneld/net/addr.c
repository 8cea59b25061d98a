/* Texts of socket addresses, and what they say: families, ports, loopback. */

#include "tunneld/net/addr.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

const char *td_addr_str(const struct td_addr *a, char out[TD_ADDR_STR])
{
	char ip[INET6_ADDRSTRLEN] = "?", scope[IF_NAMESIZE + 1] = "";
	switch (a->len ? a->sa.sa_family : AF_UNSPEC) {
	case AF_INET:
		inet_ntop(AF_INET, &a->in.sin_addr, ip, sizeof(ip));
		snprintf(out, TD_ADDR_STR, "%s:%u", ip, ntohs(a->in.sin_port));
		break;
	case AF_INET6:
		inet_ntop(AF_INET6, &a->in6.sin6_addr, ip, sizeof(ip));
		if (a->in6.sin6_scope_id && if_indextoname(a->in6.sin6_scope_id, scope + 1))
			scope[0] = '%';
		snprintf(out, TD_ADDR_STR, "[%s%s]:%u", ip, scope, ntohs(a->in6.sin6_port));
		break;
	case AF_UNIX:
		snprintf(out, TD_ADDR_STR, "unix:%.108s",
			 a->len > offsetof(struct sockaddr_un, sun_path) ? a->un.sun_path : "");
		break;
	case TD_AF_GIVEN:
		snprintf(out, TD_ADDR_STR, "fd:%.100s:%d", a->un.sun_path, td_addr_given(a));
		break;
	default:
		snprintf(out, TD_ADDR_STR, "-");
	}
	return out;
}

bool td_addr_literal(const char *host, uint16_t port, struct td_addr *out)
{
	memset(out, 0, sizeof(*out));
	if (inet_pton(AF_INET, host, &out->in.sin_addr) == 1) {
		out->in.sin_family = AF_INET;
		out->in.sin_port = htons(port);
		out->len = sizeof(out->in);
		return true;
	}
	char ip[INET6_ADDRSTRLEN];
	const char *pc = strchr(host, '%');
	size_t n = pc ? (size_t)(pc - host) : strlen(host);
	if (n >= sizeof(ip))
		return false;
	memcpy(ip, host, n);
	ip[n] = '\0';
	if (inet_pton(AF_INET6, ip, &out->in6.sin6_addr) != 1)
		return false;
	if (pc) {
		out->in6.sin6_scope_id = if_nametoindex(pc + 1);
		if (out->in6.sin6_scope_id == 0)
			return false;
	}
	out->in6.sin6_family = AF_INET6;
	out->in6.sin6_port = htons(port);
	out->len = sizeof(out->in6);
	return true;
}

void td_addr_set_port(struct td_addr *a, uint16_t port)
{
	if (a->sa.sa_family == AF_INET)
		a->in.sin_port = htons(port);
	else if (a->sa.sa_family == AF_INET6)
		a->in6.sin6_port = htons(port);
}

uint16_t td_addr_port(const struct td_addr *a)
{
	if (a->sa.sa_family == AF_INET)
		return ntohs(a->in.sin_port);
	return a->sa.sa_family == AF_INET6 ? ntohs(a->in6.sin6_port) : 0;
}

bool td_addr_have_ipv6(void)
{
	static int have = -1;
	if (have < 0) {
		struct sockaddr_in6 lo = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
		int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
		have = fd >= 0 && bind(fd, (struct sockaddr *)&lo, sizeof(lo)) == 0;
		if (fd >= 0)
			close(fd);
	}
	return have;
}

void td_addr_unmap(struct td_addr *a)
{
	struct td_addr four = {.in = {.sin_family = AF_INET}, .len = sizeof(four.in)};
	if (!a->len || a->sa.sa_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&a->in6.sin6_addr))
		return;
	memcpy(&four.in.sin_addr, a->in6.sin6_addr.s6_addr + 12, 4);
	td_addr_set_port(&four, td_addr_port(a));
	*a = four;
}

static bool is_nobody4(const uint8_t *p)
{
	return p[0] == 0 || (p[0] == 169 && p[1] == 254) || p[0] >> 4 == 0xe || (p[0] & p[1] & p[2] & p[3]) == 0xff;
}

bool td_addr_is_nobody(const struct td_addr *a)
{
	static const uint8_t metadata[4] = {0xfd, 0x00, 0x0e, 0xc2};
	const uint8_t *six = a->in6.sin6_addr.s6_addr;
	if (a->sa.sa_family == AF_INET)
		return is_nobody4((const uint8_t *)&a->in.sin_addr);
	if (a->sa.sa_family != AF_INET6)
		return false;
	if (IN6_IS_ADDR_V4MAPPED(&a->in6.sin6_addr))
		return is_nobody4(six + 12);
	return IN6_IS_ADDR_UNSPECIFIED(&a->in6.sin6_addr) || IN6_IS_ADDR_LINKLOCAL(&a->in6.sin6_addr) ||
	       IN6_IS_ADDR_MULTICAST(&a->in6.sin6_addr) || memcmp(six, metadata, sizeof(metadata)) == 0;
}

bool td_addr_is_loopback(const struct td_addr *a)
{
	const uint8_t *six = a->in6.sin6_addr.s6_addr;
	if (a->sa.sa_family == AF_INET)
		return ntohl(a->in.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
	return a->sa.sa_family == AF_INET6 && (IN6_IS_ADDR_LOOPBACK(&a->in6.sin6_addr) ||
					       (IN6_IS_ADDR_V4MAPPED(&a->in6.sin6_addr) && six[12] == IN_LOOPBACKNET));
}

bool td_addr_host_is_localhost(const char *host)
{
	static const char name[] = ".localhost";
	size_t n = strlen(host), len = sizeof(name) - 1;
	if (n && host[n - 1] == '.')
		n--;
	return (n == len - 1 && strncasecmp(host, name + 1, n) == 0) ||
	       (n > len && strncasecmp(host + n - len, name, len) == 0);
}

bool td_addr_host_is_loopback(const char *host)
{
	struct td_addr a;
	return td_addr_host_is_localhost(host) || (td_addr_literal(host, 0, &a) && td_addr_is_loopback(&a));
}

static int parse_port(const char *s, uint16_t *port, const char **fault)
{
	unsigned long v = 0;
	size_t n = strspn(s, "0123456789");
	if (n == 0 || n > 5 || s[n] != '\0' || (v = strtoul(s, NULL, 10)) > 65535) {
		*fault = "port must be a number from 0 to 65535";
		return -1;
	}
	*port = (uint16_t)v;
	return 0;
}

static int parse_unix(const char *path, struct td_addr *out, const char **fault)
{
	size_t n = strlen(path);
	if (n == 0) {
		*fault = "path of the unix socket is empty";
		return -1;
	}
	if (n >= sizeof(out->un.sun_path)) {
		*fault = "path of the unix socket is longer than 107 bytes";
		return -1;
	}
	memset(out, 0, sizeof(*out));
	out->un.sun_family = AF_UNIX;
	memcpy(out->un.sun_path, path, n + 1);
	out->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + 1);
	return 1;
}

/* A name, and perhaps the number of those that have it. */
static int parse_given(const char *s, struct td_addr *out, const char **fault)
{
	size_t n = strcspn(s, ":");
	unsigned long i = s[n] ? strtoul(s + n + 1, NULL, 10) : 1;
	if (n == 0 || n > 63 || i < 1 || i > 64 || (s[n] && s[n + 1 + strspn(s + n + 1, "0123456789")])) {
		*fault = "must be fd:NAME or fd:NAME:NUMBER, as the socket unit names it";
		return -1;
	}
	memset(out, 0, sizeof(*out));
	out->un.sun_family = TD_AF_GIVEN;
	memcpy(out->un.sun_path, s, n);
	out->un.sun_path[n + 1] = (char)i;
	out->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + 2);
	return 1;
}

int td_addr_given(const struct td_addr *a)
{
	return a->sa.sa_family == TD_AF_GIVEN ? a->un.sun_path[strlen(a->un.sun_path) + 1] : 0;
}

static int both_families(const char *v4, const char *v6, uint16_t port, struct td_addr *out, int max)
{
	int n = 0;
	if (n < max && td_addr_literal(v4, port, &out[n]))
		n++;
	if (n < max && td_addr_have_ipv6() && td_addr_literal(v6, port, &out[n]))
		n++;
	return n;
}

int td_addr_parse(const char *s, struct td_addr *out, int max, const char **fault)
{
	uint16_t port;
	if (max < 1) {
		*fault = "too many addresses";
		return -1;
	}
	if (strncmp(s, "unix:", 5) == 0)
		return parse_unix(s + 5, out, fault);
	if (strncmp(s, "fd:", 3) == 0)
		return parse_given(s + 3, out, fault);
	const char *colon = strrchr(s, ':');
	if (!colon)
		return parse_port(s, &port, fault) == 0 ? both_families("127.0.0.1", "::1", port, out, max) : -1;
	if (parse_port(colon + 1, &port, fault) != 0)
		return -1;

	char host[INET6_ADDRSTRLEN + IF_NAMESIZE + 2];
	size_t n = (size_t)(colon - s);
	bool bracketed = s[0] == '[';
	if (bracketed) {
		if (n < 2 || s[n - 1] != ']') {
			*fault = "'[' without ']' before the port";
			return -1;
		}
		s++;
		n -= 2;
	}
	if (n >= sizeof(host)) {
		*fault = "address must be numeric, localhost or *";
		return -1;
	}
	memcpy(host, s, n);
	host[n] = '\0';
	if (!bracketed && strcmp(host, "*") == 0)
		return both_families("0.0.0.0", "::", port, out, max);
	if (!bracketed && strcasecmp(host, "localhost") == 0)
		return both_families("127.0.0.1", "::1", port, out, max);
	if (!td_addr_literal(host, port, out)) {
		*fault = "address must be numeric, localhost or *";
		return -1;
	}
	if (bracketed != (out->sa.sa_family == AF_INET6)) {
		*fault = "an IPv6 address, and only that, stands in brackets: [::1]:8080";
		return -1;
	}
	return 1;
}
