/* What a configuration lacks, and what its sections owe each other: keys that belong together, addresses and names that
 * are taken already, sections that a role needs. */
#include "lib/direct.h"
#include "tunneld/config/internal.h"
#include "lib/num.h"
#include "lib/target.h"

#include <fnmatch.h>
#include <string.h>

enum { WHERE_MAX = 4200 };

static int line_or_section(const struct td_section_read *s, const char *key)
{
	int line = td_opt_line(s, key);
	return line ? line : s->line;
}

/* --- one section ------------------------------------------------------------------- */

/* What a tunnel's type has no use for. */
static bool is_needless(struct td_cfg_parse *p, const struct td_section_read *s, const char *key)
{
	if (s->kind != TD_SECTION_TUNNEL || p->c->fwd.tunnels[s->index].type != TD_TUNNEL_REVERSE)
		return false;
	return strcmp(key, "listen") == 0 || strcmp(key, "port") == 0;
}

static void check_required(struct td_cfg_parse *p, const struct td_section_read *s)
{
	const char *word = td_sections[s->kind].word;
	for (const struct td_opt *o = NULL; (o = td_opt_next(s->kind, o)) != NULL;)
		if ((o->flags & TD_F_REQUIRED) && !s->key_line[o - td_opts] &&
		    !(o->instead && td_opt_line(s, o->instead)) && !is_needless(p, s, o->key))
			td_cfg_error(p, s->line, "[%s%s%s] requires %s", word, *s->name ? " " : "", s->name, o->key);
}

/* Of two that belong together one is missing.  One whose value was refused is not. */
static bool is_half(const struct td_section_read *s, const char *one, const char *other)
{
	return !td_opt_line(s, one) != !td_opt_line(s, other);
}

static void check_aws(struct td_cfg_parse *p, const struct td_section_read *s, const struct td_aws_config *a)
{
	if (a->access_key_id && !a->secret_access_key && !td_opt_line(s, "secret_access_key"))
		td_cfg_error(p, line_or_section(s, "access_key_id"), "access_key_id is set without secret_access_key");
	if (!a->access_key_id && a->secret_access_key && !td_opt_line(s, "access_key_id"))
		td_cfg_error(p, line_or_section(s, "secret_access_key"),
			     "secret_access_key is set without access_key_id");
	if (a->session_token && !td_opt_line(s, "access_key_id"))
		td_cfg_error(p, line_or_section(s, "session_token"), "session_token is set without access_key_id");
	if (!a->client_certificate != !a->client_key && is_half(s, "client_certificate", "client_key"))
		td_cfg_error(p, line_or_section(s, a->client_key ? "client_key" : "client_certificate"),
			     "client_certificate and client_key belong together");
}

static void check_backoff(struct td_cfg_parse *p, const struct td_section_read *s, uint64_t min_ns, uint64_t max_ns)
{
	if (min_ns > max_ns)
		td_cfg_error(p, line_or_section(s, "reconnect_min"), "reconnect_min is longer than reconnect_max");
}

static bool is_instance(const struct td_config *c, const char *pattern)
{
	for (int i = 0; i < c->gw.ninstances; i++)
		if (fnmatch(pattern, c->gw.instances[i].id, 0) == 0)
			return true;
	return false;
}

static bool is_alias(const struct td_config *c, const char *name)
{
	for (int i = 0; i < c->fwd.naliases; i++)
		if (strcmp(c->fwd.aliases[i].name, name) == 0)
			return true;
	return false;
}

/* Allowed, since a gateway of one's own may call its instances anything, but most likely a mistake. */
static void check_target(struct td_cfg_parse *p, const struct td_section_read *s, const char *key, const char *target)
{
	static const char *const ids[] = {"i-", "mi-", "ecs:"};
	for (size_t i = 0; i < TNL_COUNT(ids); i++)
		if (strncmp(target, ids[i], strlen(ids[i])) == 0)
			return;
	if (!is_alias(p->c, target) && !is_instance(p->c, target))
		td_cfg_warn(p, td_opt_line(s, key),
			    "%s = %s: neither an instance id (i-…, mi-…, ecs:…) nor an [instance] of this file", key,
			    target);
}

static void check_targets(struct td_cfg_parse *p, const struct td_section_read *s, const struct td_tunnel_config *t)
{
	int one = td_opt_line(s, "target"), several = td_opt_line(s, "targets");
	const char *rest = t->target, *at;
	struct tnl_target got;
	size_t n;
	if (one && several)
		td_cfg_error(p, TNL_MAX(one, several), "target and targets exclude each other");
	while ((at = tnl_target_next(&rest, &n)) != NULL)
		if (tnl_target_parse(at, n, &got, NULL) == 0 && got.kind == TNL_TARGET_ID)
			check_target(p, s, several ? "targets" : "target", got.text);
}

static void check_user(struct td_cfg_parse *p, const struct td_section_read *s)
{
	const struct td_user_config *u = &p->c->gw.users[s->index];
	for (int i = 0; i < u->targets.n && p->c->gw.ninstances; i++)
		if (!is_instance(p->c, u->targets.v[i]))
			td_cfg_warn(p, td_opt_line(s, "targets"), "targets: %s matches no [instance] of this file",
				    u->targets.v[i]);
}

/* Its session is its own and there from the start. What StartSession is told as the port is the one that is bound. */
static void check_reverse(struct td_cfg_parse *p, const struct td_section_read *s, struct td_tunnel_config *t)
{
	static const char *const own[] = {"bind", "connect"}, *const others[] = {"listen", "host", "send_proxy", "open",
										 "probe"};
	bool reverse = t->type == TD_TUNNEL_REVERSE;
	struct td_addr a[4];
	const char *fault;

	for (size_t i = 0; i < TNL_COUNT(own); i++)
		if (reverse == !td_opt_line(s, own[i]))
			td_cfg_error(p, line_or_section(s, own[i]),
				     reverse ? "type = reverse requires %s" : "%s requires type = reverse", own[i]);
	for (size_t i = 0; reverse && i < TNL_COUNT(others); i++)
		if (td_opt_line(s, others[i]))
			td_cfg_error(p, td_opt_line(s, others[i]), "type = reverse has no %s", others[i]);
	if (reverse && t->session != TD_SESSION_SHARED)
		td_cfg_error(p, line_or_section(s, "session"), "type = reverse has one session, its own");
	t->open_at_start = t->open_at_start || reverse;
	if (!reverse || !t->bind || t->port)
		return;
	t->port = td_addr_parse(t->bind, a, (int)TNL_COUNT(a), &fault) > 0 ? td_addr_port(&a[0]) : 0;
	if (!t->port)
		t->port = 1;
}

/* Datagrams have no connections, and no way to wait. */
static void check_udp(struct td_cfg_parse *p, const struct td_section_read *s, const struct td_tunnel_config *t)
{
	const struct {
		const char *key;
		bool set;
	} not_for_udp[] = {{"send_proxy", t->send_proxy != TD_SEND_PROXY_NO},
			   {"session", t->session == TD_SESSION_PER_CONNECTION},
			   {"port", t->path != NULL}};
	for (size_t i = 0; i < TNL_COUNT(not_for_udp); i++)
		if (not_for_udp[i].set)
			td_cfg_error(p, line_or_section(s, not_for_udp[i].key), "type = udp: %s%s is for connections",
				     not_for_udp[i].key,
				     i == 1   ? " = per-connection"
				     : i == 2 ? " = unix:PATH"
					      : "");
	for (int i = 0; i < t->naddrs; i++)
		if (t->addrs[i].sa.sa_family != AF_INET && t->addrs[i].sa.sa_family != AF_INET6)
			td_cfg_error(p, td_opt_line(s, "listen"), "type = udp: listen takes addresses with ports only");
}

/* Keys that stand in the section and have no sense there. */
static void refuse_keys(struct td_cfg_parse *p, const struct td_section_read *s, const char *const *keys,
			const char *why)
{
	for (; *keys; keys++)
		if (td_opt_find(s->kind, *keys) && td_opt_line(s, *keys))
			td_cfg_error(p, td_opt_line(s, *keys), "%s: %s", *keys, why);
}

/* Anybody who reaches a proxy reaches what the agent reaches. */
static void check_proxy_auth(struct td_cfg_parse *p, const struct td_section_read *s, const struct td_tunnel_config *t)
{
	for (int i = 0; i < t->naddrs && !td_opt_line(s, "proxy_auth"); i++) {
		char text[TD_ADDR_STR];
		if (t->addrs[i].sa.sa_family != AF_UNIX && !td_addr_is_loopback(&t->addrs[i]))
			td_cfg_error(p, line_or_section(s, "listen"),
				     "listen: a proxy on %s, which others can reach, requires proxy_auth",
				     td_addr_str(&t->addrs[i], text));
	}
}

static void check_place(struct td_cfg_parse *p, const struct td_section_read *s, const struct td_tunnel_config *t)
{
	static const char *const not_a_proxys[] = {"port", "host", "document", "probe", "send_proxy", NULL};
	static const char *const a_proxys[] = {"allow", "proxy_auth", "max_destinations", NULL};
	static const char *const not_a_paths[] = {"host", "document", NULL};
	if (t->type == TD_TUNNEL_PROXY) {
		refuse_keys(p, s, not_a_proxys, "a proxy is told where to go by those who use it");
		if (t->session != TD_SESSION_SHARED)
			td_cfg_error(p, td_opt_line(s, "session"), "session: a proxy has shared sessions");
		check_proxy_auth(p, s, t);
		return;
	}
	refuse_keys(p, s, a_proxys, "only with type = proxy");
	if (t->path)
		refuse_keys(p, s, not_a_paths, "not beside port = unix:PATH");
	if (t->type != TD_TUNNEL_REVERSE && !t->path && !t->port && !td_opt_line(s, "port"))
		td_cfg_error(p, s->line, "[%s %s] requires port", td_sections[s->kind].word, s->name);
}

static void check_tunnel(struct td_cfg_parse *p, const struct td_section_read *s)
{
	struct td_tunnel_config *t = td_section_place(p->c, s->kind, s->index).own;
	check_aws(p, s, &t->aws);
	check_backoff(p, s, t->reconnect_min_ns, t->reconnect_max_ns);
	check_targets(p, s, t);
	if (s->kind == TD_SECTION_TUNNEL && TNL_MAX(t->ports, 1u) != TNL_MAX(t->listen_ports, 1u))
		td_cfg_error(p, line_or_section(s, "port"),
			     "listen has %u ports in an entry, port has %u: they have to be as many",
			     TNL_MAX(t->listen_ports, 1u), TNL_MAX(t->ports, 1u));
	if (t->type == TD_TUNNEL_UDP)
		check_udp(p, s, t);
	check_place(p, s, t);
	if (s->kind == TD_SECTION_TUNNEL && !(t->socket_mode & 0222))
		td_cfg_error(p, td_opt_line(s, "socket_mode"),
			     "socket_mode = %04o: who connects has to have the right to write, and nobody has it",
			     t->socket_mode);
	if (t->probe_ns && t->probe_ns < 1000000000u)
		td_cfg_error(p, td_opt_line(s, "probe"), "probe: must be 0 or at least 1s");
	if (s->kind == TD_SECTION_TUNNEL)
		check_reverse(p, s, t);
}

static void check_direct(struct td_cfg_parse *p, const struct td_section_read *s, const struct td_agent_config *a)
{
	int line = line_or_section(s, "direct_addresses");
	char host[TNL_DIRECT_ADDRESS];
	uint16_t port;
	if (a->direct_addresses.n && !a->direct_listen)
		td_cfg_error(p, line, "direct_addresses requires direct_listen");
	if (a->direct_addresses.n > TNL_DIRECT_ADDRESSES)
		td_cfg_error(p, line, "direct_addresses: at most %d", TNL_DIRECT_ADDRESSES);
	for (int i = 0; i < a->direct_addresses.n; i++)
		if (!tnl_direct_address_split(a->direct_addresses.v[i], host, &port))
			td_cfg_error(p, line, "direct_addresses: %s is no HOST:PORT", a->direct_addresses.v[i]);
}

static void check_agent(struct td_cfg_parse *p, const struct td_section_read *s)
{
	const struct td_agent_config *a = &p->c->agent;
	check_aws(p, s, &a->aws);
	check_backoff(p, s, a->reconnect_min_ns, a->reconnect_max_ns);
	if (a->shell && !a->shell_user)
		td_cfg_error(p, line_or_section(s, "shell"), "shell = yes requires shell_user");
	check_direct(p, s, a);
	for (int i = 0; i < a->reverse.n; i++)
		if (a->reverse.v[i].udp)
			td_cfg_error(p, td_opt_line(s, "reverse"), "reverse: listeners are TCP's or Unix sockets");
}

static void check_gateway(struct td_cfg_parse *p, const struct td_section_read *s)
{
	const struct td_gateway_config *g = &p->c->gw;
	if (!g->ninstances)
		td_cfg_warn(p, s->line, "there is no [instance ID] section: no agent can connect");
	if (!g->nusers)
		td_cfg_warn(p, s->line, "there is no [user NAME] section: nobody can start a session");
	if (is_half(s, "peer_listen", "peer_ca"))
		td_cfg_error(p, line_or_section(s, g->peer_ca ? "peer_ca" : "peer_listen"),
			     "peer_listen and peer_ca belong together: one of them is missing");
	if ((g->encrypt_shells || g->encrypt_ports) && !g->kms_key_id)
		td_cfg_error(p, line_or_section(s, g->encrypt_shells ? "encrypt_shells" : "encrypt_ports"),
			     "encryption requires kms_key_id");
}

enum { SECRET_MIN = 8 };

/* Secrets that this gateway itself asks for: signatures made with a short one are soon guessed. */
static void check_own_secrets(struct td_cfg_parse *p, const struct td_section_read *s)
{
	struct td_place at = td_section_place(p->c, s->kind, s->index);
	for (const struct td_opt *o = NULL; (o = td_opt_next(s->kind, o)) != NULL;) {
		char *base = td_opt_base(o, at);
		const char *secret = o->type == &td_types[TD_T_SECRET] ? *(char **)(void *)(base + o->off) : NULL;
		if (secret && strlen(secret) < SECRET_MIN)
			td_cfg_error(p, s->key_line[o - td_opts],
				     "%s: less than %d characters are soon guessed: take what openssl rand -base64 30 "
				     "prints",
				     o->key, SECRET_MIN);
	}
}

static void check_needs_gateway(struct td_cfg_parse *p, const struct td_section_read *s)
{
	if (!p->c->has_gateway)
		td_cfg_error(p, s->line, "[%s %s] requires a [gateway] in the same file", td_sections[s->kind].word,
			     s->name);
}

static void check_certificate_name(struct td_cfg_parse *p, const struct td_section_read *s)
{
	int line = td_opt_line(s, "certificate_name");
	if (line && p->c->has_gateway && !p->c->gw.client_ca)
		td_cfg_error(p, line, "certificate_name requires client_ca in [gateway]");
}

static void check_second_key(struct td_cfg_parse *p, const struct td_section_read *s)
{
	int id = td_opt_line(s, "access_key_id_2"), secret = td_opt_line(s, "secret_access_key_2");
	if (id && !secret)
		td_cfg_error(p, id, "access_key_id_2 is set without secret_access_key_2");
	if (secret && !id)
		td_cfg_error(p, secret, "secret_access_key_2 is set without access_key_id_2");
}

static void check_own(struct td_cfg_parse *p, const struct td_section_read *s)
{
	switch (s->kind) {
	case TD_SECTION_AWS:
		check_aws(p, s, &p->c->aws);
		break;
	case TD_SECTION_TUNNEL:
	case TD_SECTION_ALIAS:
		check_tunnel(p, s);
		break;
	case TD_SECTION_AGENT:
		check_agent(p, s);
		break;
	case TD_SECTION_GATEWAY:
		check_gateway(p, s);
		break;
	case TD_SECTION_USER:
		check_needs_gateway(p, s);
		check_own_secrets(p, s);
		check_second_key(p, s);
		check_certificate_name(p, s);
		check_user(p, s);
		break;
	case TD_SECTION_INSTANCE:
		check_needs_gateway(p, s);
		check_own_secrets(p, s);
		check_second_key(p, s);
		check_certificate_name(p, s);
		break;
	default:
		break;
	}
}

/* --- a section against those before it --------------------------------------------------- */

static bool overlap(const struct td_addr *a, const struct td_addr *b)
{
	if (a->sa.sa_family != b->sa.sa_family)
		return false;
	switch (a->sa.sa_family) {
	case AF_INET:
		return a->in.sin_port && a->in.sin_port == b->in.sin_port &&
		       (a->in.sin_addr.s_addr == b->in.sin_addr.s_addr || !a->in.sin_addr.s_addr ||
			!b->in.sin_addr.s_addr);
	case AF_INET6:
		return a->in6.sin6_port && a->in6.sin6_port == b->in6.sin6_port &&
		       a->in6.sin6_scope_id == b->in6.sin6_scope_id &&
		       (memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, 16) == 0 ||
			IN6_IS_ADDR_UNSPECIFIED(&a->in6.sin6_addr) || IN6_IS_ADDR_UNSPECIFIED(&b->in6.sin6_addr));
	default:
		return strcmp(a->un.sun_path, b->un.sun_path) == 0 && td_addr_given(a) == td_addr_given(b);
	}
}

static int addrs_of(struct td_cfg_parse *p, const struct td_section_read *s, const struct td_addr **out)
{
	if (s->kind == TD_SECTION_TUNNEL) {
		*out = p->c->fwd.tunnels[s->index].addrs;
		return p->c->fwd.tunnels[s->index].naddrs;
	}
	if (s->kind == TD_SECTION_TUNNELD) {
		*out = p->c->http;
		return p->c->nhttp;
	}
	*out = p->c->gw.addrs;
	return s->kind == TD_SECTION_GATEWAY ? p->c->gw.naddrs : 0;
}

/* Its ports are not those of the others. */
static bool is_udp(const struct td_cfg_parse *p, const struct td_section_read *s)
{
	return s->kind == TD_SECTION_TUNNEL && p->c->fwd.tunnels[s->index].type == TD_TUNNEL_UDP;
}

/* The section that has this address already, of those up to k, of k itself only the first n addresses; NULL: none. */
static const struct td_section_read *holder_of(struct td_cfg_parse *p, const struct td_addr *a, int k, int n)
{
	const struct td_addr *theirs;
	for (int j = 0; j <= k; j++) {
		int m = addrs_of(p, &p->secs[j], &theirs);
		if (is_udp(p, &p->secs[j]) != is_udp(p, &p->secs[k]))
			continue;
		for (int i = 0; i < (j == k ? n : m); i++)
			if (overlap(a, &theirs[i]))
				return &p->secs[j];
	}
	return NULL;
}

static const char *listen_key(const struct td_section_read *s)
{
	return s->kind == TD_SECTION_TUNNELD ? "http" : "listen";
}

static void check_listen(struct td_cfg_parse *p, int k)
{
	const struct td_addr *mine;
	int n = addrs_of(p, &p->secs[k], &mine);
	for (int i = 0; i < n; i++) {
		const struct td_section_read *other = holder_of(p, &mine[i], k, i);
		char text[TD_ADDR_STR], where[WHERE_MAX];
		if (other)
			td_cfg_error(p, td_opt_line(&p->secs[k], listen_key(&p->secs[k])),
				     "%s: %s is taken already, on %s", listen_key(&p->secs[k]),
				     td_addr_str(&mine[i], text),
				     td_cfg_where(p, td_opt_line(other, listen_key(other)), p->secs[k].line, where,
						  sizeof(where)));
	}
}

static bool is_one_of(const struct td_section_read *s, enum td_section a, enum td_section b)
{
	return s->kind == a || s->kind == b;
}

static const struct td_access_key *keys_of(const struct td_config *c, const struct td_section_read *s)
{
	return s->kind == TD_SECTION_USER ? c->gw.users[s->index].keys : c->gw.instances[s->index].keys;
}

static int line_of_key(const struct td_section_read *s, int i)
{
	return td_opt_line(s, i ? "access_key_id_2" : "access_key_id");
}

static void report_key_ids(struct td_cfg_parse *p, const struct td_section_read *s, const struct td_section_read *o)
{
	const struct td_access_key *mine = keys_of(p->c, s), *theirs = keys_of(p->c, o);
	char where[WHERE_MAX];
	for (int i = 0; i < TD_KEYS_MAX; i++)
		for (int j = 0; j < (s == o ? i : TD_KEYS_MAX); j++)
			if (mine[i].id && theirs[j].id && strcmp(mine[i].id, theirs[j].id) == 0)
				td_cfg_error(p, line_of_key(s, i), "access_key_id %s is taken already, on %s",
					     mine[i].id,
					     td_cfg_where(p, line_of_key(o, j), line_of_key(s, i), where,
							  sizeof(where)));
}

/* One key id stands for one signer: it must not be there twice, in this section or another. There may be many sections:
 * only when there is something to report are they looked at one by one. */
static void check_key_ids(struct td_cfg_parse *p, const struct td_section_read *s)
{
	const struct td_access_key *keys = keys_of(p->c, s);
	bool taken = false;
	for (int i = 0; i < TD_KEYS_MAX; i++)
		taken |= keys[i].id && td_cfg_take(p, "", keys[i].id, line_of_key(s, i));
	for (const struct td_section_read *o = p->secs; taken && o <= s; o++)
		if (is_one_of(o, TD_SECTION_USER, TD_SECTION_INSTANCE))
			report_key_ids(p, s, o);
}

/* Two names for one thing: tunnels and aliases share a name space (two of a kind were seen when they were read), users
 * and instances one of keys. */
static void check_twins(struct td_cfg_parse *p, const struct td_section_read *s)
{
	if (is_one_of(s, TD_SECTION_TUNNEL, TD_SECTION_ALIAS)) {
		enum td_section other = s->kind == TD_SECTION_TUNNEL ? TD_SECTION_ALIAS : TD_SECTION_TUNNEL;
		int taken = td_cfg_taken(p, td_sections[other].word, s->name);
		char where[WHERE_MAX];
		if (taken && taken < s->line)
			td_cfg_error(p, s->line, "the name %s is taken already, on %s", s->name,
				     td_cfg_where(p, taken, s->line, where, sizeof(where)));
	}
	if (is_one_of(s, TD_SECTION_USER, TD_SECTION_INSTANCE))
		check_key_ids(p, s);
}

/* --- all ------------------------------------------------------------------------------------ */

/* Of the sections that are missing only those are worth a word that nothing else explains. */
static void check_missing(struct td_cfg_parse *p, unsigned roles)
{
	const struct td_config *c = p->c;
	if ((roles & TD_ROLE_FORWARDER) && !c->has_forwarder)
		td_cfg_error(p, 0, "there is no [tunnel NAME] section");
	if ((roles & TD_ROLE_AGENT) && !c->has_agent)
		td_cfg_error(p, 0, "there is no [agent] section");
	if ((roles & TD_ROLE_GATEWAY) && !c->has_gateway)
		td_cfg_error(p, 0, "there is no [gateway] section");
	if ((roles & TD_ROLE_ANY) && !c->has_forwarder && !c->has_agent && !c->has_gateway && !c->fwd.naliases &&
	    !p->nerrors)
		td_cfg_error(p, 0, "there is no [tunnel NAME], [alias NAME], [agent] or [gateway] section");
}

void td_cfg_check(struct td_cfg_parse *p, unsigned roles)
{
	for (int k = 0; k < p->nsecs; k++) {
		td_cfg_load_secrets(p, &p->secs[k]);
		check_required(p, &p->secs[k]);
		td_cfg_check_files(p, &p->secs[k]);
		check_listen(p, k);
		check_twins(p, &p->secs[k]);
		check_own(p, &p->secs[k]);
		if (roles && p->secs[k].kind == TD_SECTION_TUNNEL) /* who does not listen needs no group */
			td_cfg_check_group(p, &p->secs[k]);
	}
	check_missing(p, roles);
}
