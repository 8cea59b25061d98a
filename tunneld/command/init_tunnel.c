/* tunneld init: from a few answers, or flags, to a configuration that works.
 *
 *   profile → region → which instance → host and port → local port → tested as by tunneld doctor → written
 *
 * Somebody who sits at a terminal is asked for what no flag says; else what is missing is an error.  Nothing is written
 * before the test, and nothing that is there is touched without --force. */
#include "tunneld/command/init_tunnel.h"
#include "tunneld/command/doctor.h"
#include "tunneld/command/term.h"

#include "lib/alloc.h"
#include "lib/num.h"
#include "tunneld/aws/instances.h"
#include "tunneld/base/file.h"
#include "tunneld/net/listen.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ANSWER = 1024, SHOWN = 50, PORTS_TRIED = 50, UP = 10000, SEARCH_S = 20 };

struct asking {
	struct td_doctor d;
	const struct td_init_flags *f;
	bool asks;
	char profile[ANSWER], region[ANSWER], endpoint[ANSWER], ca[ANSWER], target[ANSWER], host[ANSWER], port[ANSWER],
	    listen[ANSWER], name[ANSWER], file[ANSWER];
	struct td_instances found;
	bool searched;
	char trouble[400];
	const char *missing; /* the first flag that was wanted and nobody could be asked for */
};

/* --- questions -------------------------------------------------------------------------------- */

/* What can stand behind a key and comes back as it was. */
static bool is_fit(const char *text)
{
	size_t n = strlen(text);
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)text[i] < ' ' || text[i] == 127 || text[i] == ';' || text[i] == '#')
			return false;
	return !n || (!isspace((unsigned char)text[0]) && !isspace((unsigned char)text[n - 1]));
}

/* A line of the terminal, without blanks around it.  false: it has ended. */
static bool read_answer(char *out, size_t cap)
{
	char line[ANSWER];
	if (!fgets(line, sizeof(line), stdin))
		return false;
	size_t from = strspn(line, " \t"), n = strcspn(line + from, "\r\n");
	while (n && isspace((unsigned char)line[from + n - 1]))
		n--;
	snprintf(out, cap, "%.*s", (int)n, line + from);
	return true;
}

/* Into out, unless a flag has filled it.  dflt NULL: an answer is needed; "": none is fine too. */
static bool ask(struct asking *k, const char *flag, const char *question, const char *dflt, char out[ANSWER])
{
	while (!out[0]) {
		if (!k->asks && !dflt) {
			k->missing = k->missing ? k->missing : flag;
			return false;
		}
		char answer[ANSWER] = "";
		if (k->asks) {
			printf("%s%s%s%s: ", question, dflt && *dflt ? " [" : "", dflt ? dflt : "",
			       dflt && *dflt ? "]" : "");
			fflush(stdout);
			if (!read_answer(answer, sizeof(answer)))
				return false;
		}
		if (!is_fit(answer)) {
			puts("It may hold no ; and no #.");
			continue;
		}
		snprintf(out, ANSWER, "%s", answer[0] ? answer : dflt ? dflt : "");
		if (dflt && !*dflt)
			break;
	}
	return true;
}

static void print_profile(void *ctx, const char *name)
{
	int *n = ctx;
	fputs((*n)++ ? ", " : "Profiles: ", stdout);
	td_term_put(stdout, name);
}

static bool ask_profile(struct asking *k)
{
	int n = 0;
	if (k->profile[0] || !k->asks)
		return true;
	td_aws_each_profile(print_profile, &n);
	if (!n)
		return true; /* keys of the environment, of the machine, or none */
	putchar('\n');
	return ask(k, "--profile", "Profile, or empty for that of the environment", "", k->profile);
}

/* --- [aws] ------------------------------------------------------------------------------------ */

static void put_pair(struct tnl_buf *b, const char *key, const char *value)
{
	if (value[0])
		tnl_buf_printf(b, "%s = %s\n", key, value);
}

static void write_aws(const struct asking *k, struct tnl_buf *b)
{
	tnl_buf_puts(b, "[aws]\n");
	put_pair(b, "region", k->region);
	put_pair(b, "profile", k->profile);
	put_pair(b, "ssm_endpoint", k->endpoint);
	put_pair(b, "ca_file", k->ca);
}

static struct td_config *parse(const struct asking *k, const char *text, unsigned roles)
{
	return td_config_parse(text, "answers", ".", roles, stderr);
}

/* As far as is known; NULL: *k->trouble, or lines on stderr. */
static struct td_aws *open_aws(struct asking *k)
{
	struct tnl_buf b;
	tnl_buf_init(&b, 65536);
	write_aws(k, &b);
	struct td_config *c = parse(k, tnl_buf_str(&b), 0);
	snprintf(k->trouble, sizeof(k->trouble), "the answers do not make a configuration");
	struct td_aws *aws = c ? td_aws_new(k->d.loop, &c->aws, k->trouble, sizeof(k->trouble)) : NULL;
	td_config_free(c);
	tnl_buf_fini(&b);
	return aws;
}

static bool ask_region(struct asking *k)
{
	char known[ANSWER] = "";
	if (k->region[0])
		return true;
	struct td_aws *aws = open_aws(k);
	if (aws)
		snprintf(known, sizeof(known), "%s", td_aws_region(aws));
	td_aws_free(aws);
	return ask(k, "--region", "Region", known[0] && is_fit(known) ? known : NULL, k->region);
}

/* --- which instance ------------------------------------------------------------------------------ */

static void on_found(void *ctx, const char *call, const struct td_aws_reply *r, struct td_instances *list)
{
	struct asking *k = ctx;
	if (r->err)
		snprintf(k->trouble, sizeof(k->trouble), "%s: %s%s%s", call, r->type, r->type[0] ? ": " : "",
			 r->text ? r->text : tnl_err_text(r->err));
	else
		k->trouble[0] = '\0';
	k->found = *list;
	memset(list, 0, sizeof(*list));
	td_doctor_done(&k->d, &k->searched);
}

static bool find_instances(struct asking *k)
{
	struct td_aws *aws = open_aws(k);
	if (!aws)
		return false;
	snprintf(k->trouble, sizeof(k->trouble), "no answer within %d s", SEARCH_S);
	struct td_instances_search *s = td_instances_search(aws, NULL, true, on_found, k);
	if (s && !td_doctor_wait(&k->d, &k->searched, SEARCH_S * TD_SEC, "which instances there are"))
		td_instances_cancel(s);
	td_aws_free(aws);
	return !k->trouble[0];
}

static void show_instances(const struct asking *k)
{
	size_t n = TNL_MIN(k->found.n, (size_t)SHOWN);
	for (size_t i = 0; i < n; i++) {
		const struct td_instance *x = &k->found.v[i];
		printf("  %2zu  ", i + 1);
		td_term_put(stdout, x->id);
		fputs("  ", stdout);
		td_term_put(stdout, x->name[0] ? x->name : x->computer);
		fputs("  ", stdout);
		td_term_put(stdout, x->platform);
		putchar('\n');
	}
	if (k->found.n > n || k->found.more)
		puts("  and others: tunneld list");
}

/* What the service calls an instance becomes a line of the file: it is an id, or nothing. */
static bool take_found(struct asking *k, const char *id)
{
	struct tnl_target t;
	if (tnl_target_parse(id, strlen(id), &t, NULL) != 0 || t.kind != TNL_TARGET_ID) {
		fputs("tunneld init: the service calls it what no instance is called: ", stderr);
		td_term_put(stderr, id);
		fputc('\n', stderr);
		return false;
	}
	snprintf(k->target, sizeof(k->target), "%s", t.text);
	return true;
}

static bool ask_target(struct asking *k)
{
	char *end;
	if (k->target[0] || !k->asks)
		return ask(k, "--target", "", NULL, k->target);
	if (find_instances(k)) {
		puts(k->found.n ? "Instances that are online:" : "No instance is online.");
		show_instances(k);
	} else {
		fputs("They cannot be listed: ", stdout);
		td_term_put(stdout, k->trouble);
		putchar('\n');
	}
	if (!ask(k, "--target", k->found.n ? "Instance, its number or id" : "Instance", k->found.n == 1 ? "1" : NULL,
		 k->target))
		return false;
	unsigned long i = strtoul(k->target, &end, 10);
	return *end || i < 1 || i > TNL_MIN(k->found.n, (size_t)SHOWN) || take_found(k, k->found.v[i - 1].id);
}

/* --- where to ---------------------------------------------------------------------------------------- */

static void name_service(unsigned port, char out[ANSWER])
{
	static const struct {
		unsigned port;
		const char *name;
	} known[] = {{22, "ssh"},   {80, "http"},	{443, "https"},	 {1433, "mssql"}, {3306, "mysql"},
		     {3389, "rdp"}, {5432, "postgres"}, {6379, "redis"}, {8080, "http"},  {27017, "mongodb"}};
	snprintf(out, ANSWER, "port-%u", port);
	for (size_t i = 0; i < TNL_COUNT(known); i++)
		if (known[i].port == port)
			snprintf(out, ANSWER, "%s", known[i].name);
}

static void no_connection(void *ctx, int fd, const struct td_addr *peer)
{
	close(fd);
}

/* A free port of loopback, at best the same number with a 1 before it. */
static void suggest_listen(struct asking *k, unsigned port, char out[ANSWER])
{
	char why[200];
	unsigned from = port + UP <= 65000 ? port + UP : 15000;
	for (unsigned p = from; p < from + PORTS_TRIED; p++) {
		struct td_addr a[2];
		const char *fault;
		snprintf(out, ANSWER, "127.0.0.1:%u", p);
		struct td_listener *l = td_addr_parse(out, a, 2, &fault) > 0
					    ? td_listen(k->d.loop, &a[0], no_connection, NULL, why, sizeof(why))
					    : NULL;
		td_listener_free(l);
		if (l)
			return;
	}
}

static bool ask_port(struct asking *k)
{
	char *end, local[ANSWER] = "", name[ANSWER];
	if (!ask(k, "--host", "Host behind it, or empty for the instance itself", "", k->host) ||
	    !ask(k, "--port", "Port there", NULL, k->port))
		return false;
	unsigned long port = strtoul(k->port, &end, 10);
	if (*end || port < 1 || port > 65535) {
		fputs("tunneld init: the port must be a number from 1 to 65535\n", stderr);
		return false;
	}
	suggest_listen(k, (unsigned)port, local);
	name_service((unsigned)port, name);
	return ask(k, "--listen", "Local address", local, k->listen) &&
	       ask(k, "--name", "Name of the tunnel", name, k->name);
}

static bool ask_all(struct asking *k)
{
	return ask_profile(k) && ask_region(k) && ask_target(k) && ask_port(k);
}

/* --- the file ------------------------------------------------------------------------------------------ */

static void write_all(const struct asking *k, struct tnl_buf *b)
{
	tnl_buf_puts(b,
		     "; tunneld, made by tunneld init.  Start it: tunneld -c FILE.  Every key: man 5 tunneld.ini.\n\n"
		     "; Whom to ask for sessions, and as whom: the profile's credentials, else those of the\n"
		     "; environment or of this machine.\n");
	write_aws(k, b);
	tnl_buf_printf(b,
		       "\n; Programs connect to listen, and reach port of %s.\n[tunnel %s]\nlisten = %s\ntarget = %s\n",
		       k->host[0] ? "host, behind the target" : "the target", k->name, k->listen, k->target);
	put_pair(b, "host", k->host);
	put_pair(b, "port", k->port);
	tnl_buf_puts(b, ";open = start                ; its session is there before somebody connects\n"
			";probe = 60s                 ; test the whole way every minute: tunneld status shows it\n");
}

static bool make_folder(const char *file)
{
	char path[ANSWER];
	snprintf(path, sizeof(path), "%s", file);
	for (char *p = strchr(path + 1, '/'); p; p = strchr(p + 1, '/')) {
		*p = '\0';
		if (mkdir(path, 0700) != 0 && errno != EEXIST)
			return false;
		*p = '/';
	}
	return true;
}

static bool is_there(const struct asking *k)
{
	struct stat st;
	if (k->f->force || lstat(k->file, &st) != 0)
		return false;
	fprintf(stderr, "tunneld init: %s is there already; nothing was written (see --output and --force)\n", k->file);
	return true;
}

static int write_file(const struct asking *k, const char *text)
{
	if (is_there(k))
		return TD_EXIT_RUNTIME;
	if (!make_folder(k->file) || td_file_write(k->file, text, strlen(text), TD_FILE_SYNC) != 0) {
		fprintf(stderr, "tunneld init: cannot write %s: %s\n", k->file, strerror(errno));
		return TD_EXIT_RUNTIME;
	}
	printf("\nWrote %s.  Start it:\n\n  tunneld -c %s\n\nThen %s leads to port %s of %s.\n", k->file, k->file,
	       k->listen, k->port, k->host[0] ? k->host : k->target);
	return TD_EXIT_OK;
}

/* --- the test -------------------------------------------------------------------------------------------- */

/* The exit code of the first row that failed; 0: none did. */
static int test(struct asking *k, const struct td_config *c)
{
	static const char *const services[] = {"ssm", "ssmmessages"};
	const struct td_tunnel_config *t = &c->fwd.tunnels[0];
	char why[400];
	struct td_aws *aws = td_aws_new(k->d.loop, &t->aws, why, sizeof(why));
	if (!aws) {
		fprintf(stderr, "tunneld init: %s\n", why);
		return TD_EXIT_USAGE;
	}
	puts("\nTesting it:");
	bool reachable = td_doctor_net(&k->d, aws, services, td_aws_is_amazon(aws) ? 2 : 1);
	if (!k->d.interrupted)
		td_doctor_session(&k->d, aws, t, reachable);
	if (!k->d.interrupted)
		td_doctor_listen(&k->d, t->addrs, t->naddrs);
	td_aws_free(aws);
	return k->d.interrupted ? TD_EXIT_RUNTIME : k->d.code;
}

static bool write_it_all_the_same(struct asking *k)
{
	char answer[ANSWER] = "";
	return k->asks && !k->d.interrupted &&
	       ask(k, "", "\nIt does not work yet.  Write it all the same? y or n", "n", answer) &&
	       tolower((unsigned char)answer[0]) == 'y';
}

static int finish(struct asking *k)
{
	struct tnl_buf b;
	tnl_buf_init(&b, 65536);
	write_all(k, &b);
	struct td_config *c = parse(k, tnl_buf_str(&b), TD_ROLE_FORWARDER | TD_ROLE_FILES);
	int r = !c ? TD_EXIT_USAGE : k->f->no_test ? 0 : test(k, c);
	if (r && c && write_it_all_the_same(k))
		r = 0;
	if (!r)
		r = write_file(k, tnl_buf_str(&b));
	else
		fputs("tunneld init: nothing was written\n", stderr);
	td_config_free(c);
	tnl_buf_fini(&b);
	return r;
}

/* --- all of it ---------------------------------------------------------------------------------------------- */

static bool take(const struct td_command *cmd, const char *flag, const char *value, char out[ANSWER])
{
	if (!value)
		return true;
	if (!*value || strlen(value) >= ANSWER || !is_fit(value)) {
		td_args_usage(cmd, "%s: it is empty, too long, or has a character that it may not have", flag);
		return false;
	}
	snprintf(out, ANSWER, "%s", value);
	return true;
}

static bool take_flags(const struct td_command *cmd, struct asking *k)
{
	const struct td_init_flags *f = k->f;
	char ca[4096], *full = f->ca_file ? realpath(f->ca_file, ca) : NULL;
	if (f->ca_file && !full) {
		fprintf(stderr, "tunneld init: %s: %s\n", f->ca_file, strerror(errno));
		return false;
	}
	return take(cmd, "--profile", f->profile, k->profile) && take(cmd, "--region", f->region, k->region) &&
	       take(cmd, "--endpoint", f->endpoint, k->endpoint) && take(cmd, "--ca-file", full, k->ca) &&
	       take(cmd, "--target", f->target, k->target) && take(cmd, "--host", f->host, k->host) &&
	       take(cmd, "--port", f->port, k->port) && take(cmd, "--listen", f->listen, k->listen) &&
	       take(cmd, "--name", f->name, k->name) && take(cmd, "--output", f->output, k->file);
}

/* Where the configuration is looked for first. */
static void choose_file(struct asking *k)
{
	const char *home = getenv("HOME"), *xdg = getenv("XDG_CONFIG_HOME");
	if (k->file[0])
		return;
	if (xdg && *xdg == '/')
		snprintf(k->file, sizeof(k->file), "%s/tunneld/tunneld.ini", xdg);
	else
		snprintf(k->file, sizeof(k->file), "%s/.config/tunneld/tunneld.ini", home ? home : ".");
}

static int run(const struct td_command *cmd, struct asking *k)
{
	choose_file(k);
	if (is_there(k))
		return TD_EXIT_RUNTIME;
	if (ask_all(k))
		return finish(k);
	if (k->missing)
		return td_args_usage(cmd,
				     "%s is missing, and there is no terminal to ask at; or say what to make: init "
				     "gateway NAME…, or init ssh",
				     k->missing);
	fputs("\ntunneld init: nothing was written\n", stderr);
	return TD_EXIT_RUNTIME;
}

int td_init_tunnel(const struct td_command *cmd, const struct td_init_flags *f)
{
	struct asking *k = tnl_calloc(1, sizeof(*k));
	int r = TD_EXIT_USAGE;
	if (!k)
		return TD_EXIT_RUNTIME;
	k->f = f;
	k->asks = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
	if (!td_doctor_open(&k->d)) {
		tnl_free(k);
		return TD_EXIT_RUNTIME;
	}
	k->d.live = true;
	if (take_flags(cmd, k))
		r = run(cmd, k);
	td_instances_fini(&k->found);
	td_doctor_close(&k->d);
	tnl_free(k);
	return r;
}
