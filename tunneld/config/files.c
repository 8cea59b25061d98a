/* Files that the configuration names: are they there, private, and what they should be? */
#include "lib/alloc.h"
#include "lib/tls.h"
#include "tunneld/base/file.h"
#include "tunneld/base/group.h"
#include "tunneld/config/internal.h"
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Others: everybody, and the group too unless root gave the file to it on purpose. */
bool td_cfg_others_can_read(const struct stat *st)
{
	return (st->st_mode & S_IROTH) || ((st->st_mode & S_IRGRP) && st->st_uid != 0);
}

/* Everybody; of a group nobody knows who belongs to it. */
bool td_cfg_others_can_write(const struct stat *st)
{
	return S_ISREG(st->st_mode) && (st->st_mode & S_IWOTH);
}

char *td_cfg_slurp(const char *path, size_t max, unsigned flags, size_t *len, struct stat *st, const char **why)
{
	char *text = td_file_read(path, max, flags, len, st);
	*why = text ? NULL : td_file_trouble(errno);
	return text;
}

/* A file of a section, by key: its text, or NULL when it is not set or was complained about. */
struct pem {
	char *text;
	size_t len;
	int line;
	const char *path;
};

static void take_file(struct td_cfg_parse *p, const struct td_section_read *s, const char *key, struct pem *out)
{
	const struct td_opt *o = td_opt_find(s->kind, key);
	const char *why;
	struct stat st;
	*out = (struct pem){.line = td_opt_line(s, key)};
	if (!out->line)
		return;
	char *base = td_opt_base(o, td_section_place(p->c, s->kind, s->index));
	out->path = *(char **)(void *)(base + o->off);
	if (!out->path)
		return;
	out->text = td_cfg_slurp(out->path, TD_FILE_SMALL, 0, &out->len, &st, &why);
	if (!out->text) {
		(p->files_are_errors ? td_cfg_error : td_cfg_warn)(p, out->line, "%s: cannot read %s: %s", key,
								   out->path, why);
	} else if (td_cfg_others_can_write(&st)) {
		td_cfg_error(p, out->line, "%s: everybody can change %s (mode %04o); do: chmod o-w %s", key, out->path,
			     (unsigned)(st.st_mode & 07777), out->path);
	} else if (o->type->is_private && td_cfg_others_can_read(&st)) {
		td_cfg_error(p, out->line, "%s: others can read %s (mode %04o); do: chmod 600 %s", key, out->path,
			     (unsigned)(st.st_mode & 07777), out->path);
	}
}

static void drop_file(struct pem *f)
{
	if (f->text)
		tnl_free_wiped(f->text, f->len);
}

static uint64_t unix_time(void *ctx)
{
	return (uint64_t)time(NULL);
}

/* Would TLS take them? Tells what is wrong at the line of `blame`. */
static void try_tls(struct td_cfg_parse *p, struct tnl_tls_config *t, const struct pem *blame, const char *key)
{
	char text[256] = "";
	t->unix_time = unix_time;
	struct tnl_tls_ctx *ctx = tnl_tls_ctx_new(t, text, sizeof(text));
	if (!ctx)
		td_cfg_error(p, blame->line, "%s: %s: %s", key, blame->path, text);
	tnl_tls_ctx_free(ctx);
}

enum { DAY_S = 86400, ENDS_SOON_DAYS = 14 };

static void write_day(uint64_t unix_s, char out[static 16])
{
	time_t t = (time_t)unix_s;
	struct tm tm;
	gmtime_r(&t, &tm);
	strftime(out, 16, "%Y-%m-%d", &tm);
}

/* Warnings only: who starts with it is better served than who does not start at all. */
static void check_dates(struct td_cfg_parse *p, const struct pem *f, const char *key)
{
	uint64_t from, to, now = unix_time(NULL);
	char day[16];
	if (!f->text || tnl_tls_cert_dates(f->text, f->len, &from, &to) != 0)
		return;
	write_day(now < from ? from : to, day);
	if (now < from)
		td_cfg_warn(p, f->line, "%s: %s is not valid before %s", key, f->path, day);
	else if (now >= to)
		td_cfg_warn(p, f->line, "%s: %s has expired on %s", key, f->path, day);
	else if (to - now < ENDS_SOON_DAYS * DAY_S)
		td_cfg_warn(p, f->line, "%s: %s expires on %s, in %d days", key, f->path, day,
			    (int)((to - now) / DAY_S));
}

/* The host of URL, without brackets. */
static void host_of(const char *url, char *out, size_t cap)
{
	const char *s = strstr(url, "://");
	s = s ? s + 3 : url;
	bool bracketed = *s == '[';
	s += bracketed;
	snprintf(out, cap, "%.*s", (int)strcspn(s, bracketed ? "]" : ":/"), s);
}

static void check_names(struct td_cfg_parse *p, const struct pem *f, const char *url)
{
	char host[256];
	if (!f->text || !url || strncmp(url, "https", 5) != 0)
		return;
	host_of(url, host, sizeof(host));
	if (!tnl_tls_cert_names(f->text, f->len, host))
		td_cfg_warn(p, f->line,
			    "certificate: %s is not for %s, the host of public_url (no such subjectAltName): "
			    "clients and agents will refuse it",
			    f->path, host);
}

static void check_aws_files(struct td_cfg_parse *p, const struct td_section_read *s)
{
	struct pem ca, cert, key;
	take_file(p, s, "ca_file", &ca);
	take_file(p, s, "client_certificate", &cert);
	take_file(p, s, "client_key", &key);
	if (ca.text) {
		struct tnl_tls_config t = {.ca_pem = ca.text, .ca_pem_len = ca.len};
		try_tls(p, &t, &ca, "ca_file");
	}
	if (cert.text && key.text) {
		struct tnl_tls_config t = {.cert_pem = cert.text,
					   .cert_pem_len = cert.len,
					   .key_pem = key.text,
					   .key_pem_len = key.len,
					   .ca_pem = cert.text,
					   .ca_pem_len = cert.len};
		try_tls(p, &t, &cert, "client_certificate");
	}
	check_dates(p, &ca, "ca_file");
	check_dates(p, &cert, "client_certificate");
	drop_file(&ca);
	drop_file(&cert);
	drop_file(&key);
}

static void check_peer_files(struct td_cfg_parse *p, const struct td_section_read *s, const struct pem *cert)
{
	const struct td_gateway_config *g = &p->c->gw;
	char node[TD_NODE_MAX + 1];
	struct pem ca;
	take_file(p, s, "peer_ca", &ca);
	if (ca.text) {
		struct tnl_tls_config t = {.ca_pem = ca.text, .ca_pem_len = ca.len};
		try_tls(p, &t, &ca, "peer_ca");
	}
	check_dates(p, &ca, "peer_ca");
	td_gateway_node(g, node);
	bool refused = td_opt_line(s, "node") && !g->node;
	if (g->peer_listen && !refused && *node && cert->text && !tnl_tls_cert_names(cert->text, cert->len, node))
		td_cfg_warn(p, cert->line,
			    "certificate: %s has no subjectAltName %s, the name of this node: unless it is the common "
			    "name, other nodes will refuse it",
			    cert->path, node);
	drop_file(&ca);
}

static void check_gateway_files(struct td_cfg_parse *p, const struct td_section_read *s)
{
	struct pem cert, key, ca, kms;
	take_file(p, s, "certificate", &cert);
	take_file(p, s, "private_key", &key);
	take_file(p, s, "client_ca", &ca);
	take_file(p, s, "kms_key_file", &kms);
	struct tnl_tls_config t = {.server = true,
				   .cert_pem = cert.text,
				   .cert_pem_len = cert.len,
				   .key_pem = key.text,
				   .key_pem_len = key.len};
	if (cert.text && key.text)
		try_tls(p, &t, &cert, "certificate");
	if (ca.text) {
		struct tnl_tls_config u = {.ca_pem = ca.text, .ca_pem_len = ca.len};
		try_tls(p, &u, &ca, "client_ca");
	}
	check_dates(p, &cert, "certificate");
	check_dates(p, &ca, "client_ca");
	check_names(p, &cert, p->c->gw.public_url);
	check_peer_files(p, s, &cert);
	drop_file(&cert);
	drop_file(&key);
	drop_file(&ca);
	drop_file(&kms);
}

/* Warnings only: the user may be made or changed later, and ports work without. */
static void check_shell_user(struct td_cfg_parse *p, const struct td_section_read *s)
{
	const struct td_agent_config *a = &p->c->agent;
	if (!a->shell || !a->shell_user)
		return;
	const struct passwd *u = getpwnam(a->shell_user);
	const char *slash = u ? strrchr(u->pw_shell, '/') : NULL, *shell = slash ? slash + 1 : "";
	if (!u)
		td_cfg_warn(p, td_opt_line(s, "shell_user"), "shell_user: there is no user %s on this machine",
			    a->shell_user);
	else if (strcmp(shell, "nologin") == 0 || strcmp(shell, "false") == 0)
		td_cfg_warn(p, td_opt_line(s, "shell_user"),
			    "shell_user: the account of %s is closed (its shell is %s): there will be no shells",
			    a->shell_user, u->pw_shell);
}

void td_cfg_check_group(struct td_cfg_parse *p, const struct td_section_read *s)
{
	const struct td_tunnel_config *t = &p->c->fwd.tunnels[s->index];
	int line = td_opt_line(s, "socket_group");
	gid_t gid;
	if (!t->socket_group)
		return;
	int err = td_group_find(t->socket_group, &gid);
	if (err)
		td_cfg_error(p, line, "socket_group = %s: %s", t->socket_group,
			     err == ENOENT ? "there is no such group on this machine" : strerror(err));
	else if (!td_group_may_give(gid, p->c->user))
		td_cfg_warn(p, line,
			    "socket_group = %s: %s%s does not belong to it, and only who does can give it a socket",
			    t->socket_group, p->c->user ? "user " : "this process", p->c->user ? p->c->user : "");
}

void td_cfg_check_files(struct td_cfg_parse *p, const struct td_section_read *s)
{
	if (s->kind == TD_SECTION_GATEWAY)
		check_gateway_files(p, s);
	else if (TD_IN_AWS_KEYS >> s->kind & 1)
		check_aws_files(p, s);
	if (s->kind == TD_SECTION_AGENT)
		check_shell_user(p, s);
}

/* --- the configuration itself ---------------------------------------------------- */

/* Who may write it may have everything that the process may. */
static void check_writers(struct td_cfg_parse *p, int line, const char *file, const struct stat *st)
{
	if (td_cfg_others_can_write(st))
		td_cfg_error(p, line, "everybody can change this file (mode %04o); do: chmod o-w %s",
			     (unsigned)(st->st_mode & 07777), file);
	else if ((st->st_mode & S_IWGRP) && st->st_gid != 0 && st->st_gid != getegid())
		td_cfg_warn(p, line, "group %u can change this file (mode %04o); do: chmod g-w %s",
			    (unsigned)st->st_gid, (unsigned)(st->st_mode & 07777), file);
	else if (geteuid() == 0 && st->st_uid != 0)
		td_cfg_warn(p, line, "root runs on what user %u can change; do: chown root %s", (unsigned)st->st_uid,
			    file);
}

void td_cfg_check_mode(struct td_cfg_parse *p, int file, const struct stat *st)
{
	const char *name = p->files[file].name;
	if (p->has_secret && td_cfg_others_can_read(st))
		td_cfg_warn(p, -file, "others can read the secrets in this file (mode %04o); do: chmod 600 %s",
			    (unsigned)(st->st_mode & 07777), name);
	check_writers(p, -file, name, st);
}
