/* tunneld init: what asks is in init_tunnel.c.
 * tunneld init gateway: an authority, a certificate, keys and the three configurations that fit together.
 * tunneld init ssh: the block for ~/.ssh/config.  Nothing that is there already is touched. */
#include "lib/alloc.h"
#include "lib/buf.h"
#include "lib/crypto.h"
#include "lib/num.h"
#include "lib/tls.h"
#include "tunneld/base/file.h"
#include "tunneld/command/command.h"
#include "tunneld/command/init_tunnel.h"
#include "tunneld/command/new_keys.h"
#include "tunneld/config/config.h"
#include "tunneld/net/addr.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { DAY = 86400, CA_DAYS = 3650, CERT_DAYS = 825, NAMES_MAX = 32 };

struct made {
	const char *dir;
	const char *names[NAMES_MAX];
	int nnames;
	char port[8], instance[64];
	char user_id[TD_NEW_KEY_ID + 1], user_secret[TD_NEW_SECRET + 1];
	char agent_id[TD_NEW_KEY_ID + 1], agent_secret[TD_NEW_SECRET + 1];
};

/* What is made, in the order in which it is written. */
enum { F_CA, F_CA_KEY, F_CERT, F_KEY, F_GATEWAY, F_AGENT, F_FORWARDER, FILES };
static const char *const file_names[FILES] = {"ca.pem",	     "ca.key",	  "gateway.pem",  "gateway.key",
					      "gateway.ini", "agent.ini", "forwarder.ini"};

static const char *path_of(const struct made *m, int file, char out[512])
{
	snprintf(out, 512, "%s/%s", m->dir, file_names[file]);
	return out;
}

/* --- the configurations ---------------------------------------------------------------------- */

static bool is_address(const char *name)
{
	struct td_addr a;
	return td_addr_literal(name, 1, &a);
}

static void put_host(struct tnl_buf *b, const char *name)
{
	tnl_buf_printf(b, strchr(name, ':') ? "[%s]" : "%s", name);
}

static void put_url(struct tnl_buf *b, const struct made *m)
{
	tnl_buf_puts(b, "https://");
	put_host(b, m->names[0]);
	tnl_buf_printf(b, ":%s", m->port);
}

/* On loopback alone when nothing else was named. */
static void put_listen(struct tnl_buf *b, const struct made *m)
{
	bool only_here = true;
	for (int i = 0; i < m->nnames; i++)
		only_here = only_here && td_addr_host_is_loopback(m->names[i]);
	tnl_buf_printf(b, only_here ? "listen = 127.0.0.1:%s, [::1]:%s\n" : "listen = 0.0.0.0:%s, [::]:%s\n", m->port,
		       m->port);
}

static void write_gateway(struct tnl_buf *b, const struct made *m)
{
	tnl_buf_puts(
	    b, "; tunneld's gateway:  tunneld gateway -c gateway.ini\n"
	       "; It needs gateway.pem and gateway.key beside it; ca.key signs further certificates and stays away.\n\n"
	       "[gateway]\n");
	put_listen(b, m);
	tnl_buf_puts(b, "public_url = ");
	put_url(b, m);
	tnl_buf_puts(b, "\ncertificate = gateway.pem\nprivate_key = gateway.key\n\n"
			"; Who may start sessions, and to which instances.\n[user ops]\n");
	tnl_buf_printf(b, "access_key_id = %s\nsecret_access_key = %s\ntargets = *\n\n", m->user_id, m->user_secret);
	tnl_buf_printf(b,
		       "; The agents that are known here: a section and a key for each.\n[instance %s]\n"
		       "access_key_id = %s\nsecret_access_key = %s\n",
		       m->instance, m->agent_id, m->agent_secret);
}

static void write_agent(struct tnl_buf *b, const struct made *m)
{
	tnl_buf_puts(b, "; tunneld's agent, on or beside the target:  tunneld agent -c agent.ini\n"
			"; It needs ca.pem beside it.\n\n");
	tnl_buf_printf(b, "[agent]\ninstance_id = %s\nregion = eu-west-1\nssmmessages_endpoint = ", m->instance);
	put_url(b, m);
	tnl_buf_printf(b,
		       "\nca_file = ca.pem\naccess_key_id = %s\nsecret_access_key = %s\n"
		       "; What may be dialed; without it loopback only.\n;allow = 127.0.0.1:*, db.internal:5432\n",
		       m->agent_id, m->agent_secret);
}

static void write_forwarder(struct tnl_buf *b, const struct made *m)
{
	tnl_buf_puts(b, "; tunneld's forwarder:  tunneld -c forwarder.ini\n; It needs ca.pem beside it.\n\n"
			"[aws]\nregion = eu-west-1\nssm_endpoint = ");
	put_url(b, m);
	tnl_buf_printf(b, "\nca_file = ca.pem\naccess_key_id = %s\nsecret_access_key = %s\n\n", m->user_id,
		       m->user_secret);
	tnl_buf_printf(b,
		       "; ssh -p 2222 127.0.0.1\n[tunnel ssh]\nlisten = 127.0.0.1:2222\ntarget = %s\nport = 22\n\n"
		       ";[tunnel postgres]\n;listen = 127.0.0.1:15432\n;target = %s\n"
		       ";host = db.internal          ; the agent's allow must name it\n;port = 5432\n",
		       m->instance, m->instance);
}

/* --- the files ------------------------------------------------------------------------------- */

static int refuse_what_is_there(const struct made *m)
{
	char path[512];
	for (int i = 0; i < FILES; i++) {
		if (access(path_of(m, i, path), F_OK) != 0 && errno == ENOENT)
			continue;
		fprintf(stderr, "tunneld init: %s is there already; nothing was written (see --dir)\n", path);
		return TD_EXIT_RUNTIME;
	}
	return 0;
}

/* After a failure: what was written of a set goes. */
static void remove_written(const struct made *m, int n)
{
	char path[512];
	for (int i = 0; i < n; i++)
		unlink(path_of(m, i, path));
}

static int write_files(const struct made *m, const char *const text[FILES])
{
	char path[512];
	for (int i = 0; i < FILES; i++) {
		if (td_file_write(path_of(m, i, path), text[i], strlen(text[i]), TD_FILE_SYNC) == 0)
			continue;
		fprintf(stderr, "tunneld init: cannot write %s: %s\n", path, strerror(errno));
		remove_written(m, i);
		return TD_EXIT_RUNTIME;
	}
	return 0;
}

static char *names_list(const struct made *m)
{
	struct tnl_buf b;
	tnl_buf_init(&b, 16 * 1024);
	for (int i = 0; i < m->nnames; i++)
		tnl_buf_printf(&b, "%s%s", i ? "," : "", m->names[i]);
	char *list = tnl_buf_steal_str(&b);
	tnl_buf_fini(&b);
	return list;
}

static void free_secret(char *text)
{
	tnl_free_wiped(text, text ? strlen(text) : 0);
}

/* 0 or TNL_E…; all five for free_secret. */
static int make_certificates(const struct made *m, char *out[4])
{
	uint64_t now = (uint64_t)time(NULL);
	char *list = names_list(m);
	int r = list ? tnl_x509_make("tunneld authority", NULL, NULL, NULL, now - DAY, now + (uint64_t)CA_DAYS * DAY,
				     &out[F_CA], &out[F_CA_KEY])
		     : TNL_ENOMEM;
	if (!r)
		r = tnl_x509_make("tunneld gateway", list, out[F_CA], out[F_CA_KEY], now - DAY,
				  now + (uint64_t)CERT_DAYS * DAY, &out[F_CERT], &out[F_KEY]);
	tnl_free(list);
	return r;
}

/* They are what the commands will read: a mistake here is one of this program. */
static int check_files(const struct made *m)
{
	static const unsigned roles[] = {TD_ROLE_GATEWAY, TD_ROLE_AGENT, TD_ROLE_FORWARDER};
	char path[512];
	for (int i = 0; i < 3; i++) {
		struct td_config *c = td_config_load(path_of(m, F_GATEWAY + i, path), roles[i] | TD_ROLE_FILES, stderr);
		if (!c)
			return TD_EXIT_RUNTIME;
		td_config_free(c);
	}
	return 0;
}

static void tell_what_next(const struct made *m)
{
	printf("Made in %s: an authority (ca.pem, ca.key), a certificate for %s", m->dir, m->names[0]);
	for (int i = 1; i < m->nnames; i++)
		printf(", %s", m->names[i]);
	fputs(", keys, and three configurations.\n\n"
	      "  on the gateway    gateway.ini gateway.pem gateway.key    tunneld gateway -c gateway.ini\n"
	      "  on the target     agent.ini ca.pem                       tunneld agent -c agent.ini\n"
	      "  on your machine   forwarder.ini ca.pem                   tunneld -c forwarder.ini\n"
	      "\n"
	      "Then: ssh -p 2222 127.0.0.1 reaches the ssh server of the target.\n"
	      "Keep ca.key where none of them runs: it signs the next certificate.\n",
	      stdout);
}

static int make_all(struct made *m)
{
	char *certs[4] = {NULL};
	struct tnl_buf conf[3];
	void (*const writers[])(struct tnl_buf *, const struct made *) = {write_gateway, write_agent, write_forwarder};
	td_new_key_id(m->user_id);
	td_new_key_id(m->agent_id);
	td_new_secret(m->user_secret);
	td_new_secret(m->agent_secret);
	int r = make_certificates(m, certs) ? TD_EXIT_RUNTIME : 0;
	if (r)
		fputs("tunneld init: cannot make certificates\n", stderr);
	for (int i = 0; i < 3; i++) {
		tnl_buf_init(&conf[i], 64 * 1024);
		writers[i](&conf[i], m);
	}
	const char *const text[FILES] = {certs[0],
					 certs[1],
					 certs[2],
					 certs[3],
					 tnl_buf_str(&conf[0]),
					 tnl_buf_str(&conf[1]),
					 tnl_buf_str(&conf[2])};
	if (!r)
		r = text[4] && text[5] && text[6] ? write_files(m, text) : TD_EXIT_RUNTIME;
	if (!r && (r = check_files(m)) != 0)
		remove_written(m, FILES);
	for (int i = 0; i < 4; i++)
		free_secret(certs[i]);
	for (int i = 0; i < 3; i++)
		tnl_buf_fini_wiped(&conf[i]);
	tnl_wipe(m->user_secret, sizeof(m->user_secret));
	tnl_wipe(m->agent_secret, sizeof(m->agent_secret));
	return r;
}

/* A name or address that can stand in a certificate and a URL. */
static bool name_is_fit(const char *name)
{
	size_t n = strlen(name);
	return n > 0 && n < 254 &&
	       (is_address(name) || name[strspn(name, "abcdefghijklmnopqrstuvwxyz"
						      "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-")] == 0);
}

static int run_gateway(const struct td_command *cmd, struct made *m, char **names, int n)
{
	uint8_t id[9];
	if (n < 1)
		return td_args_usage(cmd, "NAME is missing: what clients and agents call the gateway");
	for (int i = 0; i < n; i++) {
		if (!name_is_fit(names[i]) || i == NAMES_MAX)
			return td_args_usage(cmd, "%s: is no host name or address", names[i]);
		m->names[m->nnames++] = names[i];
	}
	tnl_random(id, sizeof(id));
	if (!*m->instance)
		snprintf(m->instance, sizeof(m->instance), "mi-%02x%02x%02x%02x%02x%02x%02x%02x%x", id[0], id[1], id[2],
			 id[3], id[4], id[5], id[6], id[7], id[8] & 15);
	if (mkdir(m->dir, 0700) != 0 && errno != EEXIST) {
		fprintf(stderr, "tunneld init: cannot make %s: %s\n", m->dir, strerror(errno));
		return TD_EXIT_RUNTIME;
	}
	int r = refuse_what_is_there(m);
	if (!r)
		r = make_all(m);
	if (!r)
		tell_what_next(m);
	return r;
}

/* --- ssh ------------------------------------------------------------------------------------- */

static int run_ssh(void)
{
	fputs(
	    "# OpenSSH through tunneld: ssh admin@i-0123456789abcdef0, or a [tunnel] or [alias] name in place of i-*.\n"
	    "Host i-* mi-*\n"
	    "    ProxyCommand tunneld connect %h %p\n"
	    "    # Instances come and go: keep their keys apart from those of other hosts.\n"
	    "    UserKnownHostsFile ~/.ssh/known_hosts_tunneld\n"
	    "    StrictHostKeyChecking accept-new\n",
	    stdout);
	return TD_EXIT_OK;
}

static int start_gateway(const struct td_command *cmd, const char *dir, const char *port, const char *instance,
			 char **names, int n)
{
	struct made m = {.dir = "."};
	char *end;
	long number = port ? strtol(port, &end, 10) : 8443;
	if (port && (*end || number < 1 || number > 65535))
		return td_args_usage(cmd, "--port %s: must be a number from 1 to 65535", port);
	if (instance && (!*instance || strlen(instance) >= sizeof(m.instance) || strpbrk(instance, " \t\r\n];#")))
		return td_args_usage(cmd, "--instance %s: is no instance id", instance);
	snprintf(m.port, sizeof(m.port), "%ld", number);
	snprintf(m.instance, sizeof(m.instance), "%s", instance ? instance : "");
	m.dir = dir ? dir : ".";
	return run_gateway(cmd, &m, names, n);
}

static int run_init(const struct td_command *cmd, int argc, char **argv)
{
	struct td_init_flags f = {NULL};
	const char *dir = NULL, *instance = NULL;
	const struct td_arg args[] = {{'d', "dir", .value = &dir},	     {'p', "port", .value = &f.port},
				      {'i', "instance", .value = &instance}, {0, "profile", .value = &f.profile},
				      {0, "region", .value = &f.region},     {0, "endpoint", .value = &f.endpoint},
				      {0, "ca-file", .value = &f.ca_file},   {0, "target", .value = &f.target},
				      {0, "host", .value = &f.host},	     {'l', "listen", .value = &f.listen},
				      {0, "name", .value = &f.name},	     {'o', "output", .value = &f.output},
				      {0, "force", .flag = &f.force},	     {0, "no-test", .flag = &f.no_test}};
	int n = td_args(cmd, argc, argv, args, TNL_COUNT(args), NAMES_MAX + 1);
	umask(077);
	if (n < 0)
		return -1 - n;
	if (n == 0)
		return td_init_tunnel(cmd, &f);
	if (n == 1 && strcmp(argv[1], "ssh") == 0)
		return run_ssh();
	if (strcmp(argv[1], "gateway") != 0)
		return td_args_usage(cmd, "%s: say what to make: init, init gateway NAME…, or init ssh", argv[1]);
	return start_gateway(cmd, dir, f.port, instance, argv + 2, n - 1);
}

const struct td_command td_command_init = {
    "init", "make a configuration, a gateway of one's own, or the block for ssh",
    "usage: tunneld init [--profile NAME] [--region REGION] [--target ID] [--host HOST]\n"
    "           [--port PORT] [--listen ADDRESS] [--name NAME] [--endpoint URL] [--ca-file FILE]\n"
    "           [--output FILE] [--force] [--no-test]\n"
    "       tunneld init gateway NAME… [-d DIR] [-p PORT] [-i INSTANCE]\n"
    "       tunneld init ssh\n"
    "\n"
    "Without a word: asks at the terminal for what no option says (profile, region, which of\n"
    "the instances that are online, host and port), tests it as tunneld doctor does, and\n"
    "writes a configuration with one tunnel, mode 0600.  Without a terminal --target and\n"
    "--port are needed, and a region; what does not pass the test is not written.\n"
    "\n"
    "gateway: an authority, a certificate with each NAME (host names and addresses by which\n"
    "clients and agents reach the gateway; the first is the one that they use), keys, and\n"
    "gateway.ini, agent.ini and forwarder.ini that fit together, each mode 0600.  Nothing\n"
    "that is there already is touched.\n"
    "ssh: prints the block for ~/.ssh/config.\n"
    "\n"
    "  -o, --output FILE   where to; default: ~/.config/tunneld/tunneld.ini\n"
    "      --force         also when the file is there already\n"
    "      --no-test       write it without testing it\n"
    "      --profile NAME  of ~/.aws/config; default: what the environment says\n"
    "      --region REGION default: that of the profile or the environment\n"
    "      --endpoint URL  of a gateway of one's own, with --ca-file FILE for its authority\n"
    "      --target ID     the instance; or tag:KEY=VALUE and the like (tunneld list)\n"
    "      --host HOST     behind it; default: the instance itself\n"
    "  -p, --port PORT     there; of a gateway: its own, default 8443\n"
    "  -l, --listen ADDRESS  here; default: a free port of 127.0.0.1\n"
    "      --name NAME     of the tunnel; default: by the port\n"
    "  -d, --dir DIR       gateway: where to; default: the current directory\n"
    "  -i, --instance ID   gateway: what the agent is called; default: a new mi-…\n"
    "  -h, --help          this text\n"
    "  -V, --version       the version\n"
    "\n" TD_EXIT_HELP,
    run_init};
