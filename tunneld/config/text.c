/* Text of the configuration that has a shape: URLs, hosts, names. */
#include "tunneld/config/internal.h"
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

static bool all_in(const char *s, const char *extra)
{
	for (; *s; s++)
		if (!isalnum((unsigned char)*s) && !strchr(extra, *s))
			return false;
	return true;
}

/* HOST[:PORT] behind a scheme; NULL when fine, else what is wrong. */
static const char *check_authority(const char *s, bool port_wanted)
{
	size_t n;
	if (*s == '[') {
		n = strspn(s + 1, "0123456789abcdefABCDEF:.");
		if (!n || s[n + 1] != ']')
			return "the IPv6 address is malformed";
		s += n + 2;
	} else {
		n = strcspn(s, ":");
		if (!n)
			return "the host is missing";
		for (size_t i = 0; i < n; i++)
			if (!isalnum((unsigned char)s[i]) && !strchr("-._", s[i]))
				return "the host has a character that no host name has";
		s += n;
	}
	if (!*s)
		return port_wanted ? "the port is missing" : NULL;
	uint64_t port;
	if (*s++ != ':' || !td_cfg_digits(&s, &port) || *s || port < 1 || port > 65535)
		return "the port is not a number from 1 to 65535";
	return NULL;
}

static bool is_loopback(const char *authority)
{
	struct in_addr v4;
	size_t n = strcspn(authority, ":");
	char host[64];
	snprintf(host, sizeof(host), "%.*s", (int)n, authority);
	return strcmp(host, "localhost") == 0 || strncmp(authority, "[::1]", 5) == 0 ||
	       (inet_pton(AF_INET, host, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127);
}

static const char *check_url(const char *value, size_t *len)
{
	size_t n = strlen(value);
	while (n && value[n - 1] == '/')
		n--;
	*len = n;
	bool https = strncmp(value, "https://", 8) == 0;
	if (!https && strncmp(value, "http://", 7) != 0)
		return "wants https://HOST[:PORT]";
	const char *host = value + (https ? 8 : 7);
	if (host > value + n)
		return "the host is missing";
	char copy[512];
	if (n - (size_t)(host - value) >= sizeof(copy))
		return "is too long";
	memcpy(copy, host, n - (size_t)(host - value));
	copy[n - (size_t)(host - value)] = '\0';
	if (strpbrk(copy, "/?#"))
		return "a path or query does not belong here";
	if (strchr(copy, '@'))
		return "a user or password does not belong here";
	if (!https && !is_loopback(copy))
		return "http:// is for loopback addresses only; use https://";
	return check_authority(copy, false);
}

static const char *check_proxy(const char *value)
{
	if (strcmp(value, "none") == 0)
		return NULL;
	const char *s = strncmp(value, "http://", 7) == 0    ? value + 7
			: strncmp(value, "https://", 8) == 0 ? value + 8
							     : NULL;
	if (!s)
		return "wants http://[USER:PASSWORD@]HOST:PORT or none";
	const char *at = strrchr(s, '@');
	char copy[512];
	snprintf(copy, sizeof(copy), "%s", at ? at + 1 : s);
	size_t n = strlen(copy);
	if (n && copy[n - 1] == '/')
		copy[n - 1] = '\0';
	if (strpbrk(copy, "/?#"))
		return "a path or query does not belong here";
	return check_authority(copy, true);
}

const char *td_cfg_check_text(enum td_opt_type type, const char *v, size_t *len)
{
	switch (type) {
	case TD_T_URL:
		return check_url(v, len);
	case TD_T_ID:
		return strpbrk(v, " \t") ? "white space does not belong here" : NULL;
	case TD_T_KEYID:
		return strpbrk(v, " \t/,") ? "white space, slash or comma does not belong here" : NULL;
	case TD_T_REGION:
		return all_in(v, "-") && strlen(v) <= 40 ? NULL : "is no region name (like eu-west-1)";
	case TD_T_TARGET:
		return all_in(v, "-_.:@") && strlen(v) <= 400
			   ? NULL
			   : "is no instance or target id (like i-0123456789abcdef0)";
	case TD_T_HOST:
		return all_in(v, "-_.:") && strlen(v) <= 253 ? NULL : "is no host name or address";
	case TD_T_PROXY:
		return check_proxy(v);
	case TD_T_STORE:
		return strncmp(v, "sqlite:", 7) == 0 && v[7] ? NULL : "wants sqlite:PATH";
	default:
		return NULL;
	}
}
