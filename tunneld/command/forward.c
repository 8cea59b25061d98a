/* tunneld forward -L … TARGET: the forwarder without a file.  Each -L and -D becomes a [tunnel] section with the
 * settings of the target's, so that one reader checks both. */
#include "tunneld/command/foreground.h"
#include "tunneld/command/forward_served.h"
#include "tunneld/command/reverse_spec.h"

#include "lib/alloc.h"
#include "lib/num.h"
#include "tunneld/forwarder/forwarder.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_L 64

struct forward {
	struct td_foreground fg;
	const char *spec[MAX_L], *reverse[MAX_L];
	bool dynamic[MAX_L]; /* the spec is of a -D: a proxy */
	int nspec, nreverse;
	bool draining;
	bool was_up;			  /* a session has come up: from then on failures are waited out */
	struct td_forwarder *f;		  /* NULL: a daemon serves it */
	struct td_forward_served *served; /* NULL: none does */
};

static bool add_spec(void *ctx, const char *value)
{
	struct forward *k = ctx;
	if (k->nspec == MAX_L) {
		fprintf(stderr, "tunneld forward: -L and -D may be given %d times at most\n", MAX_L);
		return false;
	}
	k->spec[k->nspec++] = value;
	return true;
}

static bool add_dynamic(void *ctx, const char *value)
{
	struct forward *k = ctx;
	bool added = add_spec(ctx, value);
	if (added)
		k->dynamic[k->nspec - 1] = true;
	return added;
}

static bool add_reverse(void *ctx, const char *value)
{
	struct forward *k = ctx;
	if (k->nreverse == MAX_L) {
		fprintf(stderr, "tunneld forward: -R may be given %d times at most\n", MAX_L);
		return false;
	}
	k->reverse[k->nreverse++] = value;
	return true;
}

/* One field up to the next colon; [..] keeps colons. Returns what follows the colon, NULL at the end. */
static char *field(char *s, char **out)
{
	char *end;
	if (*s == '[') {
		*out = s + 1;
		end = strchr(s, ']');
		if (!end)
			return NULL;
		*end++ = '\0';
	} else {
		*out = s;
		end = strchr(s, ':');
		if (!end)
			return NULL;
	}
	if (*end != ':')
		return NULL;
	*end = '\0';
	return end + 1;
}

static bool is_number(const char *s)
{
	return *s && s[strspn(s, "0123456789")] == '\0';
}

/* PORT, or a range LOW-HIGH: how many ports that are; 0: neither. */
static unsigned ports_of(const char *s)
{
	unsigned low, high;
	char more;
	if (is_number(s))
		return 1;
	if (!isdigit((unsigned char)*s) || sscanf(s, "%5u-%5u%c", &low, &high, &more) != 2 || high < low)
		return 0;
	return high - low + 1;
}

static void put_listen(struct tnl_buf *out, const char *bind, const char *listen)
{
	if (listen[0] == '/')
		tnl_buf_printf(out, "listen = unix:%s\n", listen);
	else if (!*bind || strcmp(bind, "*") == 0)
		tnl_buf_printf(out, "listen = *:%s\n", listen);
	else
		tnl_buf_printf(out, strchr(bind, ':') ? "listen = [%s]:%s\n" : "listen = %s:%s\n", bind, listen);
}

/* Its fields, four at most; 0: it has more, or bytes that would be something else in a section. */
static int split(const char *spec, char copy[1024], char *f[4])
{
	char *p = copy;
	int n = 0;
	for (const char *c = spec; *c; c++)
		if ((unsigned char)*c < ' ' || *c == ';' || *c == '#')
			return 0;
	if (snprintf(copy, 1024, "%s", spec) >= 1024)
		return 0;
	while (p && n < 4) {
		char *next = field(p, &f[n]);
		n++;
		p = next;
	}
	return p ? 0 : n;
}

/* Where it goes: host:hostport, or the path of a socket, the last of n fields.  How many there are before; -1: neither.
 */
static int put_place(struct tnl_buf *out, char *const *f, int n)
{
	const char *last = f[n - 1];
	if (last[0] == '/') {
		tnl_buf_printf(out, "port = unix:%s\n", last);
		return n - 1;
	}
	if (n < 2 || !ports_of(last) || !*f[n - 2])
		return -1;
	const char *host = f[n - 2];
	tnl_buf_printf(out, "port = %s\n", last);
	if (strcmp(host, "localhost") != 0 && strcmp(host, "127.0.0.1") != 0 && strcmp(host, "::1") != 0)
		tnl_buf_printf(out, "host = %s\n", host);
	return n - 2;
}

/* Each port of a range leads to one. */
static bool as_many(const char *listen, const char *far)
{
	return (listen[0] == '/' ? 1 : ports_of(listen)) == (far[0] == '/' ? 1 : ports_of(far));
}

/* [bind:]port:host:hostport, socket:host:hostport, and with the path of a socket for host and hostport, as ssh spells
 * it, into a [tunnel] section; of -D only what stands before.  What is wrong with it; NULL: nothing. */
static const char *section(const struct forward *k, int i, const char *select, struct tnl_buf *out)
{
	const char *not_that =
	    k->dynamic[i] ? "not [bind:]port, with a number for the port"
			  : "not [bind:]port:host:hostport or [bind:]port:/path, with numbers or LOW-HIGH for ports";
	char copy[1024], *f[4];
	int n = split(k->spec[i], copy, f);

	if (!n)
		return not_that;
	tnl_buf_printf(out, "[tunnel forward-%d]\ntargets = %s\nselect = %s\nopen = start\nrequired = yes\n", i + 1,
		       k->fg.t->target, select);
	const char *far = f[n - 1];
	if (k->dynamic[i])
		tnl_buf_puts(out, "type = proxy\n");
	else
		n = put_place(out, f, n);
	if (n < 1 || n > 2)
		return not_that;
	const char *listen = f[n - 1];
	if (listen[0] == '/' ? n == 2 : k->dynamic[i] ? !is_number(listen) : !ports_of(listen))
		return not_that;
	if (!k->dynamic[i] && !as_many(listen, far))
		return "there are not as many ports here as there";
	put_listen(out, n == 2 ? f[0] : "127.0.0.1", listen);
	return NULL;
}

static void drained(void *ctx)
{
	struct forward *k = ctx;
	td_foreground_finish(&k->fg, TD_EXIT_OK);
}

/* As ssh does it: who cannot get there at all is told so, and not with the first connection. */
static void on_started(void *ctx, int err, const char *type, const char *why)
{
	struct forward *k = ctx;
	if (!err)
		k->was_up = true;
	else if (strcmp(type, TD_FORWARDER_TAKEN_OVER) == 0 && k->nreverse == 1 && !k->nspec && !k->draining)
		td_foreground_lost(&k->fg, err, why);
	else if (!k->was_up && !k->draining)
		td_foreground_failed(&k->fg, err, type, why);
}

static void on_signal(struct td_foreground *fg, int signum)
{
	struct forward *k = fg->user;
	if (k->draining) { /* the second one */
		td_foreground_stop(fg, TD_EXIT_OK);
		return;
	}
	k->draining = true;
	if (k->served)
		td_forward_served_finish(k->served, k->fg.cfg->fwd.drain_timeout_ns);
	else
		td_forwarder_drain(k->f, k->fg.cfg->fwd.drain_timeout_ns, drained, k);
}

static void cleanup(void *arg)
{
	struct forward *k = arg;
	td_forward_served_free(k->served);
	td_forwarder_free(k->f);
}

/* What is wrong with the last part of the text is said with the option that it was made from. */
static bool check_part(struct forward *k, char option, const char *spec, struct tnl_buf *b, size_t at)
{
	char *said = NULL, *save = NULL;
	size_t n = 0;
	const char *text = tnl_buf_str(b);
	FILE *errors = text ? open_memstream(&said, &n) : NULL;
	struct td_config *alone = errors ? td_config_parse(text + at, "", ".", TD_ROLE_FORWARDER, errors) : NULL;
	bool ok = alone != NULL;

	td_config_free(alone);
	if (errors)
		fclose(errors);
	else
		td_foreground_say(&k->fg, "out of memory");
	for (char *line = ok || !said ? NULL : strtok_r(said, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		const char *what = strstr(line, ": "); /* behind the number of a line that nobody wrote */
		td_foreground_say(&k->fg, "-%c %s: %s", option, spec, what ? what + 2 : line);
	}
	free(said);
	return ok;
}

/* -L and -D.  false: one is wrong, which was said. */
static bool put_sections(struct forward *k, const char *select, struct tnl_buf *b)
{
	for (int i = 0; i < k->nspec; i++) {
		char option = k->dynamic[i] ? 'D' : 'L';
		size_t at = tnl_buf_len(b);
		const char *fault = section(k, i, select, b);
		if (fault)
			td_foreground_say(&k->fg, "-%c %s: %s", option, k->spec[i], fault);
		if (fault || !check_part(k, option, k->spec[i], b, at))
			return false;
	}
	return true;
}

static bool put_reverse_sections(struct forward *k, const char *select, struct tnl_buf *b)
{
	for (int i = 0; i < k->nreverse; i++) {
		size_t at = tnl_buf_len(b);
		bool formed = td_reverse_section(k->reverse[i], i + 1, k->fg.t->target, select, b);
		if (!formed)
			td_foreground_say(&k->fg,
					  "-R %s: not [bind:]port:host:hostport, with numbers for ports, nor with "
					  "paths of sockets",
					  k->reverse[i]);
		if (!formed || !check_part(k, 'R', k->reverse[i], b, at))
			return false;
	}
	return true;
}

/* The tunnels of the command line, with everything else from the target's section or the file. */
static struct td_config *make_config(struct forward *k)
{
	struct tnl_buf b;
	struct td_config *made = NULL;
	static const char *const words[] = {"only", "newest", "any"};
	const char *select = words[k->fg.select_given ? k->fg.select : k->fg.t->select];

	tnl_buf_init(&b, 256 * 1024);
	bool ok = put_sections(k, select, &b) && put_reverse_sections(k, select, &b);
	const char *text = ok ? tnl_buf_str(&b) : NULL;
	if (text)
		made = td_config_parse(text, "command line", ".", TD_ROLE_FORWARDER, stderr);
	tnl_buf_fini(&b);
	return made;
}

static void served_ended(void *ctx, int code)
{
	struct forward *k = ctx;
	td_foreground_finish(&k->fg, code);
}

/* Without a daemon that does it. */
static int start_forwarder(struct forward *k, struct td_config *made)
{
	char why[400];
	int r = td_foreground_account(&k->fg);
	if (r)
		return r;
	const struct td_aws_config *aws = k->fg.made ? &k->fg.cfg->aws : &k->fg.t->aws;
	for (int i = 0; i < made->fwd.ntunnels; i++)
		td_aws_config_inherit(&made->fwd.tunnels[i].aws, aws);
	k->f = td_forwarder_new(k->fg.loop, made, why, sizeof(why));
	if (!k->f) {
		td_foreground_say(&k->fg, "%s", why);
		return TD_EXIT_RUNTIME;
	}
	td_forwarder_on_started(k->f, on_started, k);
	return 0;
}

static int run(const struct td_command *cmd, int argc, char **argv)
{
	static struct forward k;
	const char *file = NULL, *select = NULL;
	bool verbose = false;
	const struct td_arg args[] = {
	    {'c', "config", .value = &file},
	    {'v', "verbose", .flag = &verbose},
	    {0, "select", .value = &select},
	    {'L', "local", .each = add_spec, .ctx = &k},
	    {'D', "dynamic", .each = add_dynamic, .ctx = &k},
	    {'R', "remote", .each = add_reverse, .ctx = &k},
	};
	int n = td_args(cmd, argc, argv, args, TNL_COUNT(args), 1);

	if (n < 0)
		return -1 - n;
	if (n < 1)
		return td_args_usage(cmd, "TARGET is missing");
	if (!k.nspec && !k.nreverse)
		return td_args_usage(cmd, "-L, -D or -R is missing");
	int r = td_foreground_open(&k.fg, "forward", file, verbose);
	if (r == 0)
		r = td_foreground_select(&k.fg, select);
	if (r == 0)
		r = td_foreground_find(&k.fg, argv[1]);
	if (r != 0)
		return r;
	struct td_config *made = make_config(&k);
	if (!made)
		return TD_EXIT_USAGE;
	td_log_setup(verbose ? TNL_LOG_DEBUG : TNL_LOG_INFO, k.fg.cfg->log_format);
	k.served = td_forward_served_start(&k.fg, made, served_ended, &k);
	r = k.served ? 0 : start_forwarder(&k, made);
	if (r != 0)
		return r;
	k.fg.user = &k;
	k.fg.on_signal = on_signal;
	k.fg.cleanup = cleanup;
	k.fg.cleanup_arg = &k;
	r = td_foreground_run(&k.fg);
	td_config_free(made);
	return r;
}

const struct td_command td_command_forward = {
    "forward",
    "tunnels from the command line, spelled as for ssh -L and -R",
    "usage: tunneld forward [-c FILE] [-v] -L [BIND:]PORT:HOST:HOSTPORT [-L …] [-D …] [-R …] TARGET\n"
    "\n"
    "TARGET is an instance id (i-…, mi-…, ecs:…), how to find one (tag:KEY=VALUE, name:HOST,\n"
    "ecs:CLUSTER/SERVICE[/CONTAINER]), or the name of a [tunnel] or [alias]\n"
    "of the configuration, whose AWS settings it then takes.  HOST is resolved at the\n"
    "target; localhost is the target itself.  PORT may be 0 (the log shows the one chosen)\n"
    "or a path for a Unix socket; BIND defaults to 127.0.0.1, * is every address.\n"
    "A path in place of HOST:HOSTPORT is that of a socket at the target.  PORT and HOSTPORT\n"
    "may be ranges of as many ports (8000-8010:HOST:9000-9010), 256 at most.\n"
    "\n"
    "With -R it is the target that listens, and HOST is looked up here: BIND, PORT and\n"
    "paths are the agent's, which has to allow them ([agent] reverse).\n"
    "\n"
    "  -L, --local SPEC   a tunnel; may be given several times\n"
    "  -D, --dynamic SPEC [BIND:]PORT of a proxy: SOCKS5, SOCKS4a, HTTP CONNECT; may be given several times\n"
    "  -R, --remote SPEC  a reverse tunnel; may be given several times\n"
    "  -c, --config FILE  configuration (default: $TUNNELD_CONFIG, ~/.config/tunneld/tunneld.ini,\n"
    "                     /etc/tunneld/tunneld.ini; none is fine)\n"
    "      --select WORD  which of several matches: only (the default: that is an error), newest, any\n"
    "  -v, --verbose      say more\n"
    "\n" TD_EXIT_HELP,
    run,
};
