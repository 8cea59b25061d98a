/* Which proxy leads to a host: the configuration's, else HTTPS_PROXY and HTTP_PROXY with the exceptions of NO_PROXY. */
#include "lib/alloc.h"
#include "lib/enc.h"
#include "tunneld/aws/internal.h"
#include "tunneld/net/addr.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int parse_proxy(const char *s, const char *what, struct td_proxy *p, char *why, size_t cap)
{
	const char *fault = NULL;
	char url[1024];
	struct tnl_url u;

	snprintf(url, sizeof(url), "%s%s", strstr(s, "://") ? "" : "http://", s);
	if (tnl_url_parse(url, &u, &fault) != 0 || strncmp(u.scheme, "http", 4) != 0) {
		/* the value may hold a password: it is not shown */
		snprintf(why, cap, "%s is no proxy URL (%s): it must be http://[USER:PASSWORD@]HOST:PORT", what,
			 fault ? fault : "scheme");
		tnl_wipe(url, sizeof(url));
		return TNL_ECONF;
	}
	memset(p, 0, sizeof(*p));
	snprintf(p->host, sizeof(p->host), "%s", u.host);
	p->tls = strcmp(u.scheme, "https") == 0;
	p->port = u.port;
	memcpy(p->user, u.user, sizeof(p->user));
	memcpy(p->password, u.password, sizeof(p->password));
	tnl_wipe(&u, sizeof(u));
	tnl_wipe(url, sizeof(url));
	return 0;
}

static int env_proxy(const char *lower, const char *upper, struct td_proxy *p, bool *has, char *why, size_t cap)
{
	const char *v = td_env_get(lower), *what = lower;

	if (!v) {
		v = td_env_get(upper);
		what = upper;
	}
	*has = v != NULL;
	return v ? parse_proxy(v, what, p, why, cap) : 0;
}

int td_aws_proxy_init(struct td_aws *a, char *why, size_t cap)
{
	const char *none = td_env_get("no_proxy");
	int rc;

	if (!none)
		none = td_env_get("NO_PROXY");
	if (none && (a->no_proxy = tnl_strdup(none)) == NULL)
		return TNL_ENOMEM;
	if (a->conf.proxy && strcmp(a->conf.proxy, "none") == 0)
		return 0;
	if (a->conf.proxy) {
		a->has_proxy = a->has_http_proxy = a->proxy_explicit = true;
		rc = parse_proxy(a->conf.proxy, "proxy", &a->proxy, why, cap);
		a->http_proxy = a->proxy;
		return rc;
	}
	rc = env_proxy("https_proxy", "HTTPS_PROXY", &a->proxy, &a->has_proxy, why, cap);
	return rc ? rc : env_proxy("http_proxy", "HTTP_PROXY", &a->http_proxy, &a->has_http_proxy, why, cap);
}

/* "10.0.0.0/8" against an address literal. */
static bool cidr_match(const char *entry, const char *host)
{
	const char *slash = strchr(entry, '/');
	uint8_t net[16], addr[16];
	char text[64];
	int family, bits;

	if (!slash || slash - entry >= (ptrdiff_t)sizeof(text))
		return false;
	snprintf(text, sizeof(text), "%.*s", (int)(slash - entry), entry);
	family = strchr(text, ':') ? AF_INET6 : AF_INET;
	bits = atoi(slash + 1);
	if (inet_pton(family, text, net) != 1 || inet_pton(family, host, addr) != 1 || bits < 0 ||
	    bits > (family == AF_INET ? 32 : 128))
		return false;
	for (int i = 0; i < bits; i++)
		if ((net[i / 8] ^ addr[i / 8]) & (0x80 >> (i % 8)))
			return false;
	return true;
}

/* ":PORT" behind a name, an IPv4 address or [an IPv6 address] is cut off; false: it is another's port. */
static bool cut_port(char *entry, uint16_t port)
{
	char *colon = strrchr(entry, ':'), *end;
	bool bracketed = entry[0] == '[', has = colon && (bracketed ? colon[-1] == ']' : strchr(entry, ':') == colon);

	if (has) {
		unsigned long v = strtoul(colon + 1, &end, 10);

		if (!colon[1] || *end || v != port)
			return false;
		*colon = 0;
	}
	size_t n = strlen(entry);
	if (bracketed && entry[n - 1] == ']') {
		memmove(entry, entry + 1, n - 2);
		entry[n - 2] = 0;
	}
	return true;
}

static bool no_proxy_match(char *entry, const char *host, uint16_t port)
{
	if (!cut_port(entry, port))
		return false;
	if (strcmp(entry, "*") == 0 || cidr_match(entry, host))
		return true;
	if (entry[0] == '*' && entry[1] == '.')
		return td_host_under(host, entry + 2);
	if (entry[0] == '.') /* as curl and Go read it: the host itself as well */
		entry++;
	return tnl_ieq(entry, host) || td_host_under(host, entry);
}

static bool excepted(const struct td_aws *a, const char *host, uint16_t port)
{
	const char *s = a->no_proxy;

	while (s && *s) {
		char entry[256];
		size_t skip = strspn(s, ", \t"), n = strcspn(s + skip, ", \t");

		s += skip;
		if (n && n < sizeof(entry)) {
			memcpy(entry, s, n);
			entry[n] = 0;
			if (no_proxy_match(entry, host, port))
				return true;
		}
		s += n;
	}
	return false;
}

const struct td_proxy *td_aws_proxy_for(struct td_aws *a, bool https, const char *host, uint16_t port)
{
	if (!(https ? a->has_proxy : a->has_http_proxy) || excepted(a, host, port) ||
	    (!a->proxy_explicit && td_addr_host_is_loopback(host)))
		return NULL;
	return https ? &a->proxy : &a->http_proxy;
}

const struct td_proxy *td_aws_proxy(struct td_aws *a, const char *host)
{
	return td_aws_proxy_for(a, true, host, 443);
}
