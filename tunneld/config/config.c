/* Loading a configuration: file → sections → what they owe each other. */
#include "tunneld/config/config.h"
#include "lib/alloc.h"
#include "tunneld/config/internal.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

__attribute__((format(printf, 4, 0))) static void note(struct td_cfg_parse *p, int line, bool warning, const char *fmt,
						       va_list ap)
{
	char text[1024];
	vsnprintf(text, sizeof(text), fmt, ap);
	p->notes = td_cfg_grow(p->notes, (size_t)(p->nnotes + 1) * sizeof(*p->notes));
	p->notes[p->nnotes] = (struct td_note){line, p->nnotes, warning, td_cfg_dup(text, strlen(text))};
	p->nnotes++;
	p->nerrors += !warning;
}

void td_cfg_error(struct td_cfg_parse *p, int line, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	note(p, line, false, fmt, ap);
	va_end(ap);
}

void td_cfg_warn(struct td_cfg_parse *p, int line, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	note(p, line, true, fmt, ap);
	va_end(ap);
}

static int by_line(const void *a, const void *b)
{
	const struct td_note *x = a, *y = b;
	return x->line != y->line ? (x->line > y->line) - (x->line < y->line) : x->order - y->order;
}

static void print_notes(struct td_cfg_parse *p, FILE *errors)
{
	if (p->nnotes)
		qsort(p->notes, (size_t)p->nnotes, sizeof(*p->notes), by_line);
	for (int i = 0; i < p->nnotes; i++) {
		const struct td_note *n = &p->notes[i];
		if (errors && n->line)
			fprintf(errors, "%s%s:%d: %s\n", n->warning ? "warning: " : "", p->file, n->line, n->text);
		else if (errors)
			fprintf(errors, "%s%s: %s\n", n->warning ? "warning: " : "", p->file, n->text);
		tnl_free(n->text);
	}
	tnl_free(p->notes);
}

void *td_sec_base(struct td_config *c, enum td_section kind, int index, bool aws)
{
	switch (kind) {
	case TD_SEC_AWS:
		return &c->aws;
	case TD_SEC_TUNNEL:
		return aws ? (void *)&c->fwd.tunnels[index].aws : (void *)&c->fwd.tunnels[index];
	case TD_SEC_ALIAS:
		return aws ? (void *)&c->fwd.aliases[index].aws : (void *)&c->fwd.aliases[index];
	case TD_SEC_AGENT:
		return aws ? (void *)&c->agent.aws : (void *)&c->agent;
	case TD_SEC_GATEWAY:
		return &c->gw;
	case TD_SEC_USER:
		return &c->gw.users[index];
	case TD_SEC_INSTANCE:
		return &c->gw.instances[index];
	default:
		return c;
	}
}

/* --- what sections owe each other --------------------------------------------- */

int td_sec_line(const struct td_sec_rec *s, const char *key)
{
	for (int i = 0; i < td_nopts; i++)
		if (td_opt_in(&td_opts[i], s->kind) && strcmp(td_opts[i].key, key) == 0)
			return s->key_line[i];
	return 0;
}

static int line_or_section(const struct td_sec_rec *s, const char *key)
{
	int line = td_sec_line(s, key);
	return line ? line : s->line;
}

static void check_required(struct td_cfg_parse *p, const struct td_sec_rec *s)
{
	const char *word = td_sections[s->kind].word;
	for (int i = 0; i < td_nopts; i++)
		if (td_opt_in(&td_opts[i], s->kind) && (td_opts[i].flags & TD_F_REQUIRED) && !s->key_line[i])
			td_cfg_error(p, s->line, "[%s%s%s] wants %s", word, *s->name ? " " : "", s->name,
				     td_opts[i].key);
}

static void check_aws(struct td_cfg_parse *p, const struct td_sec_rec *s, const struct td_aws_config *a)
{
	if (a->access_key_id && !a->secret_access_key && !td_sec_line(s, "secret_access_key"))
		td_cfg_error(p, line_or_section(s, "access_key_id"), "access_key_id stands without secret_access_key");
	if (!a->access_key_id && a->secret_access_key && !td_sec_line(s, "access_key_id"))
		td_cfg_error(p, line_or_section(s, "secret_access_key"),
			     "secret_access_key stands without access_key_id");
	if (a->session_token && !td_sec_line(s, "access_key_id"))
		td_cfg_error(p, line_or_section(s, "session_token"), "session_token stands without access_key_id");
	if (!a->client_certificate != !a->client_key)
		td_cfg_error(p, line_or_section(s, a->client_key ? "client_key" : "client_certificate"),
			     "client_certificate and client_key belong together");
}

static void inherit_text(char **dst, const char *src)
{
	if (!*dst && src)
		*dst = td_cfg_dup(src, strlen(src));
}

/* Fills what the section left open from [aws]. Credentials and client certificates go as a whole:
 * half of one and half of another would be neither. */
void td_aws_config_inherit(struct td_aws_config *a, const struct td_aws_config *from)
{
	bool own_keys = a->access_key_id || a->profile, own_cert = a->client_certificate || a->client_key;
	inherit_text(&a->region, from->region);
	inherit_text(&a->ssm_endpoint, from->ssm_endpoint);
	inherit_text(&a->ssmmessages_endpoint, from->ssmmessages_endpoint);
	inherit_text(&a->kms_endpoint, from->kms_endpoint);
	inherit_text(&a->sts_endpoint, from->sts_endpoint);
	inherit_text(&a->ca_file, from->ca_file);
	inherit_text(&a->proxy, from->proxy);
	if (!own_keys) {
		inherit_text(&a->profile, from->profile);
		inherit_text(&a->access_key_id, from->access_key_id);
		inherit_text(&a->secret_access_key, from->secret_access_key);
		inherit_text(&a->session_token, from->session_token);
	}
	if (!own_cert) {
		inherit_text(&a->client_certificate, from->client_certificate);
		inherit_text(&a->client_key, from->client_key);
	}
	if (!a->stream_hosts.n)
		for (int i = 0; i < from->stream_hosts.n; i++) {
			a->stream_hosts.v = td_cfg_grow(a->stream_hosts.v, (size_t)(i + 1) * sizeof(char *));
			a->stream_hosts.v[a->stream_hosts.n++] =
			    td_cfg_dup(from->stream_hosts.v[i], strlen(from->stream_hosts.v[i]));
		}
	if (a->use_fips < 0)
		a->use_fips = from->use_fips;
	if (a->use_dualstack < 0)
		a->use_dualstack = from->use_dualstack;
}

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
		return strcmp(a->un.sun_path, b->un.sun_path) == 0;
	}
}

static int addrs_of(struct td_cfg_parse *p, const struct td_sec_rec *s, const struct td_addr **out)
{
	if (s->kind == TD_SEC_TUNNEL) {
		*out = p->c->fwd.tunnels[s->index].addrs;
		return p->c->fwd.tunnels[s->index].naddrs;
	}
	*out = p->c->gw.addrs;
	return s->kind == TD_SEC_GATEWAY ? p->c->gw.naddrs : 0;
}

/* Addresses of section k against those of all sections up to it, itself included. */
static void check_listen(struct td_cfg_parse *p, int k)
{
	const struct td_addr *mine, *theirs;
	const struct td_sec_rec *s = &p->secs[k];
	int n = addrs_of(p, s, &mine);
	for (int i = 0; i < n; i++)
		for (int j = 0; j <= k; j++) {
			int m = addrs_of(p, &p->secs[j], &theirs);
			for (int q = 0; q < (j == k ? i : m); q++) {
				char text[TD_ADDR_STR];
				if (!overlap(&mine[i], &theirs[q]))
					continue;
				td_cfg_error(p, td_sec_line(s, "listen"), "listen: %s is taken already, on line %d",
					     td_addr_str(&mine[i], text), td_sec_line(&p->secs[j], "listen"));
				j = k;
				break;
			}
		}
}

/* Two names for one thing: tunnels and aliases share a name space, users and instances one of keys. */
static void check_twins(struct td_cfg_parse *p, int k)
{
	const struct td_sec_rec *s = &p->secs[k];
	for (int j = 0; j < k; j++) {
		const struct td_sec_rec *o = &p->secs[j];
		if ((s->kind == TD_SEC_TUNNEL && o->kind == TD_SEC_ALIAS) ||
		    (s->kind == TD_SEC_ALIAS && o->kind == TD_SEC_TUNNEL)) {
			if (strcmp(s->name, o->name) == 0)
				td_cfg_error(p, s->line, "the name %s is taken already, on line %d", s->name, o->line);
		}
		if ((s->kind != TD_SEC_USER && s->kind != TD_SEC_INSTANCE) ||
		    (o->kind != TD_SEC_USER && o->kind != TD_SEC_INSTANCE))
			continue;
		const char *a = s->kind == TD_SEC_USER ? p->c->gw.users[s->index].access_key_id
						       : p->c->gw.instances[s->index].access_key_id;
		const char *b = o->kind == TD_SEC_USER ? p->c->gw.users[o->index].access_key_id
						       : p->c->gw.instances[o->index].access_key_id;
		if (a && b && strcmp(a, b) == 0)
			td_cfg_error(p, td_sec_line(s, "access_key_id"),
				     "access_key_id %s is taken already, on line %d", a,
				     td_sec_line(o, "access_key_id"));
	}
}

static void check_section(struct td_cfg_parse *p, int k)
{
	struct td_config *c = p->c;
	const struct td_sec_rec *s = &p->secs[k];
	check_required(p, s);
	td_cfg_check_files(p, s);
	check_listen(p, k);
	check_twins(p, k);
	switch (s->kind) {
	case TD_SEC_AWS:
		check_aws(p, s, &c->aws);
		break;
	case TD_SEC_TUNNEL:
	case TD_SEC_ALIAS: {
		const struct td_tunnel_config *t =
		    s->kind == TD_SEC_TUNNEL ? &c->fwd.tunnels[s->index] : &c->fwd.aliases[s->index];
		check_aws(p, s, &t->aws);
		if (t->reconnect_min_ns > t->reconnect_max_ns)
			td_cfg_error(p, line_or_section(s, "reconnect_min"),
				     "reconnect_min is longer than reconnect_max");
		break;
	}
	case TD_SEC_AGENT:
		check_aws(p, s, &c->agent.aws);
		if (c->agent.reconnect_min_ns > c->agent.reconnect_max_ns)
			td_cfg_error(p, line_or_section(s, "reconnect_min"),
				     "reconnect_min is longer than reconnect_max");
		if (c->agent.shell && !c->agent.shell_user)
			td_cfg_error(p, line_or_section(s, "shell"), "shell = yes wants shell_user");
		break;
	case TD_SEC_GATEWAY:
		if ((c->gw.encrypt_shells || c->gw.encrypt_ports) && !c->gw.kms_key_id)
			td_cfg_error(p, line_or_section(s, c->gw.encrypt_shells ? "encrypt_shells" : "encrypt_ports"),
				     "encryption wants kms_key_id");
		break;
	case TD_SEC_USER:
	case TD_SEC_INSTANCE:
		if (!c->has_gateway)
			td_cfg_error(p, s->line, "[%s %s] wants a [gateway] in the same file",
				     td_sections[s->kind].word, s->name);
		break;
	default:
		break;
	}
}

static void finish(struct td_cfg_parse *p, unsigned roles)
{
	struct td_config *c = p->c;
	bool agent_drain = false, gateway_drain = false;
	for (int k = 0; k < p->nsecs; k++) {
		check_section(p, k);
		agent_drain |= p->secs[k].kind == TD_SEC_AGENT && td_sec_line(&p->secs[k], "drain_timeout");
		gateway_drain |= p->secs[k].kind == TD_SEC_GATEWAY && td_sec_line(&p->secs[k], "drain_timeout");
	}
	for (int i = 0; i < c->fwd.ntunnels; i++)
		td_aws_config_inherit(&c->fwd.tunnels[i].aws, &c->aws);
	for (int i = 0; i < c->fwd.naliases; i++)
		td_aws_config_inherit(&c->fwd.aliases[i].aws, &c->aws);
	td_aws_config_inherit(&c->agent.aws, &c->aws);
	if (!agent_drain)
		c->agent.drain_timeout_ns = c->fwd.drain_timeout_ns;
	if (!gateway_drain)
		c->gw.drain_timeout_ns = c->fwd.drain_timeout_ns;
	/* Of the sections that are missing only those are worth a word that nothing else explains. */
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

/* --- from text and from a file -------------------------------------------------- */

static void defaults(struct td_cfg_parse *p)
{
	static const enum td_section single[] = {TD_SEC_TUNNELD, TD_SEC_AGENT, TD_SEC_GATEWAY};
	p->c->aws.use_fips = p->c->aws.use_dualstack = p->c->agent.aws.use_fips = p->c->agent.aws.use_dualstack = -1;
	for (size_t i = 0; i < sizeof(single) / sizeof(*single); i++)
		for (int k = 0; k < td_nopts; k++)
			if (td_opt_in(&td_opts[k], single[i]) && td_opts[k].dflt)
				td_value_set(p, 0, &td_opts[k], td_sec_base(p->c, single[i], 0, false),
					     td_opts[k].dflt);
}

static struct td_config *parse(const char *text, size_t len, const char *name, const char *dir, unsigned roles,
			       const struct stat *st, FILE *errors)
{
	struct td_cfg_parse p = {.c = td_cfg_alloc(sizeof(*p.c)),
				 .file = name,
				 .dir = dir,
				 .files_are_errors = roles & TD_ROLE_FILES};
	defaults(&p);
	td_cfg_read(&p, text, len);
	finish(&p, roles);
	if (st && p.has_secret && td_cfg_others_can_read(st))
		td_cfg_warn(&p, 0, "others can read the secrets in this file (mode %04o); do: chmod 600 %s",
			    (unsigned)(st->st_mode & 07777), name);
	for (int i = 0; i < p.nsecs; i++) {
		tnl_free(p.secs[i].name);
		tnl_free(p.secs[i].key_line);
	}
	tnl_free(p.secs);
	print_notes(&p, errors);
	if (!p.nerrors)
		return p.c;
	td_config_free(p.c);
	return NULL;
}

struct td_config *td_config_parse(const char *text, const char *name, const char *dir, unsigned roles, FILE *errors)
{
	return parse(text, strlen(text), name, dir, roles, NULL, errors);
}

struct td_config *td_config_load(const char *path, unsigned roles, FILE *errors)
{
	struct stat st;
	size_t len = 0;
	const char *why;
	char *text = td_cfg_slurp(path, &len, &st, &why), *full = realpath(path, NULL);
	if (!text) {
		if (errors)
			fprintf(errors, "%s: cannot read the configuration: %s\n", path, why);
		free(full);
		return NULL;
	}
	char *dir = td_cfg_dup(full ? full : path, strlen(full ? full : path)), *slash = strrchr(dir, '/');
	if (slash)
		slash[slash == dir ? 1 : 0] = '\0';
	struct td_config *c = parse(text, len, path, dir, roles, &st, errors);
	if (c)
		c->path = td_cfg_dup(full ? full : path, strlen(full ? full : path));
	tnl_free_wiped(text, len);
	tnl_free(dir);
	free(full);
	return c;
}
