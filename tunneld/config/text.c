/* Texts of the configuration: those that have a shape (URLs, hosts, names), paths, and what is done with all of them.
 */
#include "lib/alloc.h"
#include "lib/direct.h"
#include "lib/num.h"
#include "lib/redis.h"
#include "lib/target.h"
#include "tunneld/config/internal.h"
#include "tunneld/net/addr.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- what is wrong with one ----------------------------------------------------- */

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
	if (*s++ != ':' || !td_number_digits(&s, &port) || *s || port < 1 || port > 65535)
		return "the port is not a number from 1 to 65535";
	return NULL;
}

static bool is_loopback(const char *authority)
{
	bool bracketed = *authority == '[';
	char host[64];
	authority += bracketed;
	snprintf(host, sizeof(host), "%.*s", (int)strcspn(authority, bracketed ? "]" : ":"), authority);
	return td_addr_host_is_loopback(host);
}

const char *td_text_url_fault(const char *value, size_t *len)
{
	size_t n = strlen(value);
	while (n && value[n - 1] == '/')
		n--;
	*len = n;
	bool https = strncmp(value, "https://", 8) == 0;
	if (!https && strncmp(value, "http://", 7) != 0)
		return "must be https://HOST[:PORT]";
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

const char *td_text_proxy_fault(const char *value, size_t *len)
{
	if (strcmp(value, "none") == 0)
		return NULL;
	const char *s = strncmp(value, "http://", 7) == 0    ? value + 7
			: strncmp(value, "https://", 8) == 0 ? value + 8
							     : NULL;
	if (!s)
		return "must be http://[USER:PASSWORD@]HOST:PORT or none";
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

const char *td_text_id_fault(const char *value, size_t *len)
{
	return strpbrk(value, " \t") ? "white space does not belong here" : NULL;
}

const char *td_text_secret_fault(const char *value, size_t *len)
{
	if (strncmp(value, "put-the-secret-of-", 18) == 0)
		return "is the sample's: put a secret of your own there (openssl rand -base64 30)";
	return td_text_id_fault(value, len);
}

const char *td_text_keyid_fault(const char *value, size_t *len)
{
	return strpbrk(value, " \t/,") ? "white space, slash or comma does not belong here" : NULL;
}

const char *td_text_region_fault(const char *value, size_t *len)
{
	return all_in(value, "-") && *len <= 40 ? NULL : "is no region name (like eu-west-1)";
}

const char *td_text_target_fault(const char *value, size_t *len)
{
	return all_in(value, "-_.:@") && *len <= 400 ? NULL : "is no instance or target id (like i-0123456789abcdef0)";
}

const char *td_text_find_fault(const char *value, size_t *len)
{
	struct tnl_target t;
	const char *fault = NULL, *rest = value;
	size_t n;
	(void)tnl_target_next(&rest, &n);
	if (rest)
		return "is a list: use targets for several";
	return tnl_target_parse(value, *len, &t, &fault) == 0 ? NULL : fault;
}

const char *td_text_finds_fault(const char *value, size_t *len)
{
	struct tnl_target t;
	const char *fault = NULL, *at;
	size_t n;
	int k = 0;
	for (const char *rest = value; !fault && (at = tnl_target_next(&rest, &n)) != NULL; k++)
		if (!n)
			fault = "an entry of the list is empty";
		else if (tnl_target_parse(at, n, &t, &fault) == 0)
			fault = NULL;
	return !fault && k > TNL_TARGET_LIST ? "at most 8 targets" : fault;
}

const char *td_text_direct_fault(const char *value, size_t *len)
{
	struct td_addr a[4];
	const char *fault = NULL;
	if (td_addr_parse(value, a, (int)TNL_COUNT(a), &fault) < 1 || a[0].sa.sa_family == AF_UNIX)
		return "is no ADDRESS:PORT";
	return NULL;
}

/* A Unix socket's path, in full and without what would end a word. */
static bool is_socket(const char *value)
{
	struct td_addr a;
	const char *fault = NULL;
	return strncmp(value, "unix:/", 6) == 0 && !value[strcspn(value, " \t")] &&
	       td_addr_parse(value, &a, 1, &fault) == 1;
}

const char *td_text_bind_fault(const char *value, size_t *len)
{
	struct td_addr a[4];
	const char *fault = NULL;
	int n = td_addr_parse(value, a, (int)TNL_COUNT(a), &fault);
	if (is_socket(value) || (n >= 1 && a[0].sa.sa_family != AF_UNIX && !td_addr_given(&a[0])))
		return NULL;
	return "is neither ADDRESS:PORT nor unix:/PATH";
}

const char *td_text_connect_fault(const char *value, size_t *len)
{
	char host[TNL_DIRECT_ADDRESS];
	uint16_t port;
	if (is_socket(value) || (tnl_direct_address_split(value, host, &port) && all_in(host, "-_.:")))
		return NULL;
	return "is neither HOST:PORT nor unix:/PATH";
}

const char *td_text_host_fault(const char *value, size_t *len)
{
	return all_in(value, "-_.:") && *len <= 253 ? NULL : "is no host name or address";
}

const char *td_text_store_fault(const char *value, size_t *len)
{
	struct tnl_redis_url u;
	const char *fault = "must be sqlite:PATH or redis://[USER:PASSWORD@]HOST:PORT/DB";
	if (tnl_redis_url_is(value) ? tnl_redis_url_parse(value, &u, &fault) == 0
				    : strncmp(value, "sqlite:", 7) == 0 && value[7])
		fault = NULL;
	tnl_wipe(&u, sizeof(u));
	return fault;
}

/* The other nodes are told it as it stands. */
const char *td_text_peer_fault(const char *value, size_t *len)
{
	struct td_addr a[4];
	const char *fault = NULL;
	if (td_addr_parse(value, a, (int)TNL_COUNT(a), &fault) != 1 || a[0].sa.sa_family == AF_UNIX ||
	    td_addr_given(&a[0]) || td_addr_port(&a[0]) == 0)
		return "is no ADDRESS:PORT, with one address, by which other nodes reach this one";
	if (strncmp(value, "0.0.0.0:", 8) == 0 || strncmp(value, "[::]:", 5) == 0)
		return "is no address that other nodes could connect to";
	return NULL;
}

const char *td_text_node_fault(const char *value, size_t *len)
{
	return all_in(value, "_") && *len <= TD_NODE_MAX ? NULL
							 : "is no node name: letters, digits and _, 32 of them at most";
}

/* --- what is kept of one ----------------------------------------------------------- */

char *td_text_path(const char *dir, const char *path)
{
	if (path[0] == '/' || !dir || !dir[0])
		return td_cfg_dup(path, strlen(path));
	while (path[0] == '.' && path[1] == '/')
		path += 2;
	size_t n = strlen(dir) + strlen(path) + 2;
	char *p = td_cfg_alloc(n);
	snprintf(p, n, "%s%s%s", dir, dir[strlen(dir) - 1] == '/' ? "" : "/", path);
	return p;
}

char *td_text_keep_path(const struct td_cfg_parse *p, const char *value)
{
	return td_text_path(p->dir, value);
}

/* A plain name is one of systemd's credentials (LoadCredential=) where the unit has one. */
char *td_text_keep_credential(const struct td_cfg_parse *p, const char *value)
{
	const char *dir = getenv("CREDENTIALS_DIRECTORY");
	if (value[0] != '/' && dir && dir[0] == '/') {
		char *path = td_text_path(dir, value);
		if (access(path, F_OK) == 0)
			return path;
		tnl_free(path);
	}
	return td_text_path(p->dir, value);
}

/* Without the blanks around its parts. */
char *td_text_keep_finds(const struct td_cfg_parse *p, const char *value)
{
	struct tnl_target t;
	const char *rest = value, *at;
	char *out = td_cfg_alloc(strlen(value) + 1), *end = out;
	size_t n;
	*out = '\0';
	while ((at = tnl_target_next(&rest, &n)) != NULL)
		if (tnl_target_parse(at, n, &t, NULL) == 0)
			end = stpcpy(stpcpy(end, end == out ? "" : ","), t.text);
	return out;
}

char *td_text_keep_audit(const struct td_cfg_parse *p, const char *value)
{
	return strcmp(value, "syslog") == 0 ? td_cfg_dup(value, strlen(value)) : td_text_path(p->dir, value);
}

char *td_text_keep_store(const struct td_cfg_parse *p, const char *value)
{
	if (strcmp(value, "sqlite::memory:") == 0 || tnl_redis_url_is(value))
		return td_cfg_dup(value, strlen(value));
	char *path = td_text_path(p->dir, value + 7);
	size_t n = strlen(path) + 8;
	char *kept = td_cfg_alloc(n);
	snprintf(kept, n, "sqlite:%s", path);
	tnl_free(path);
	return kept;
}

/* --- the verbs ------------------------------------------------------------------------ */

static char **field(const struct td_opt *o, const void *base)
{
	return (char **)(uintptr_t)((const char *)base + o->off);
}

bool td_text_set(struct td_cfg_parse *p, int line, const struct td_opt *o, void *base, const char *value)
{
	size_t len = strlen(value);
	const char *fault = o->type->fault ? o->type->fault(value, &len) : NULL;
	if (fault) {
		/* A secret is never shown, not even a malformed one. */
		if (!len || (o->flags & TD_F_SECRET))
			td_cfg_error(p, line, "%s: %s", o->key, fault);
		else
			td_cfg_error(p, line, "%s = %s: %s", o->key, value, fault);
		return false;
	}
	tnl_free(*field(o, base)); /* target and targets have one place */
	*field(o, base) = o->type->keep ? o->type->keep(p, value) : td_cfg_dup(value, len);
	if ((o->flags & TD_F_SECRET) && (!(o->flags & TD_F_IF_USER) || strchr(value, '@')))
		p->has_secret = true;
	return true;
}

void td_text_clear(const struct td_opt *o, void *base)
{
	char **s = field(o, base);
	if (*s && (o->flags & TD_F_SECRET))
		tnl_wipe(*s, strlen(*s));
	tnl_free(*s);
	*s = NULL;
}

bool td_text_same(const struct td_opt *o, const void *a, const void *b)
{
	const char *s = *field(o, a), *t = *field(o, b);
	return s == t || (s && t && strcmp(s, t) == 0);
}

void td_text_inherit(const struct td_opt *o, void *base, const void *from)
{
	char **s = field(o, base);
	const char *theirs = *field(o, from);
	if (!*s && theirs && *theirs)
		*s = td_cfg_dup(theirs, strlen(theirs));
}
