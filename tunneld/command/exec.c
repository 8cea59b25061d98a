/* tunneld exec TUNNEL -- CMD …: a tunnel for as long as a program runs.
 *
 * open the tunnel, or ask a daemon that runs for it → wait until its session is up → put its address into the arguments
 * → run → drain → the program's exit code.  The program is not started when the tunnel does not come up; once it runs,
 * failures are waited out. */
#include "tunneld/command/foreground.h"

#include "lib/alloc.h"
#include "lib/num.h"
#include "tunneld/command/one_shot.h"
#include "tunneld/command/program.h"
#include "tunneld/forwarder/forwarder.h"
#include "tunneld/net/listen.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EXIT_CANNOT_RUN = 126, EXIT_NOT_FOUND = 127 }; /* as shells have it */

struct exec {
	struct td_foreground fg;
	bool private_port; /* -P */
	char **words;	   /* the program and its arguments, ending in NULL */
	int nwords;
	struct td_config *made;
	struct td_forwarder *f;	    /* NULL: a daemon serves it */
	struct td_one_shot *served; /* NULL: none does, or it has ended */
	bool listens;		    /* on a socket of ours that the daemon has got */
	struct td_timer patience;
	struct td_program *program;
	bool draining;
	int code; /* of the program */
	struct td_soon start;
};

/* --- {host} and {port} ---------------------------------------------------------------- */

struct where {
	char host[TD_ADDR_STR], port[8];
	bool six;
};

static void where_it_is(const struct td_addr *a, struct where *w)
{
	char text[TD_ADDR_STR];
	*w = (struct where){.six = a->sa.sa_family == AF_INET6};
	snprintf(w->port, sizeof(w->port), "%u", td_addr_port(a));
	if (a->sa.sa_family == AF_UNIX) {
		snprintf(w->host, sizeof(w->host), "%s", a->un.sun_path);
		return;
	}
	if (a->sa.sa_family == AF_INET && !a->in.sin_addr.s_addr) {
		snprintf(w->host, sizeof(w->host), "127.0.0.1");
	} else if (w->six && IN6_IS_ADDR_UNSPECIFIED(&a->in6.sin6_addr)) {
		snprintf(w->host, sizeof(w->host), "::1");
	} else {
		td_addr_str(a, text);
		*strrchr(text, ':') = '\0';
		text[strcspn(text, "]")] = '\0';
		snprintf(w->host, sizeof(w->host), "%s", text + w->six);
	}
}

/* An IPv6 address before a colon is put into brackets, as in URLs. */
static void put_word(struct tnl_buf *b, const char *s, const struct where *w)
{
	while (*s) {
		if (strncmp(s, "{host}", 6) == 0) {
			bool brackets = w->six && s[6] == ':';
			tnl_buf_printf(b, brackets ? "[%s]" : "%s", w->host);
			s += 6;
		} else if (strncmp(s, "{port}", 6) == 0) {
			tnl_buf_puts(b, w->port);
			s += 6;
		} else {
			tnl_buf_putc(b, *s++);
		}
	}
}

static char *filled_in(const char *s, const struct where *w)
{
	struct tnl_buf b;
	tnl_buf_init(&b, 1 << 20);
	put_word(&b, s, w);
	char *out = b.failed ? NULL : tnl_buf_steal_str(&b);
	tnl_buf_fini(&b);
	return out;
}

/* Only Unix sockets, and an argument that asks for {port}? */
static bool lacks_port(const struct exec *k)
{
	bool asked = false;
	for (int i = 0; i < k->nwords; i++)
		asked = asked || strstr(k->words[i], "{port}");
	for (int i = 0; i < k->fg.t->naddrs; i++)
		asked = asked && k->fg.t->addrs[i].sa.sa_family == AF_UNIX;
	return asked && k->fg.t->naddrs && !k->private_port;
}

/* --- the program ---------------------------------------------------------------------- */

static void drained(void *ctx)
{
	struct exec *k = ctx;
	td_foreground_finish(&k->fg, k->code);
}

static void drain_over(void *arg)
{
	drained(arg);
}

/* What the program sent last may be on its way still. */
static void end_with(struct exec *k, int code)
{
	k->code = code;
	k->draining = true;
	if (!k->f && (!k->served || !k->listens)) {
		drained(k);
		return;
	}
	if (!k->f) {
		td_one_shot_finish(k->served);
		td_timer_in(&k->patience, k->fg.cfg->fwd.drain_timeout_ns);
		return;
	}
	td_forwarder_drain(k->f, k->made->fwd.drain_timeout_ns, drained, k);
}

static void on_exited(void *ctx, int code)
{
	end_with(ctx, code);
}

static void on_signal_late(void *ctx, int sig)
{
	struct exec *k = ctx;
	td_foreground_stop(&k->fg, k->code);
}

/* 0, or what is to be the exit code. */
static int fill_in_all(struct exec *k, const struct where *w, char **argv)
{
	for (int i = 0; i < k->nwords; i++) {
		argv[i] = filled_in(k->words[i], w);
		if (argv[i])
			continue;
		td_foreground_say(&k->fg, "the command is too long");
		return EXIT_CANNOT_RUN;
	}
	return 0;
}

static void run_program(struct exec *k, const struct where *w)
{
	static const struct td_program_cb cb = {on_exited, on_signal_late};
	char **argv = tnl_calloc((size_t)k->nwords + 1, sizeof(char *));
	int code = argv ? fill_in_all(k, w, argv) : EXIT_CANNOT_RUN;
	if (!code && !(k->program = td_program_start(k->fg.loop, argv, &cb, k))) {
		code = errno == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN;
		td_foreground_say(&k->fg, "cannot run %s: %s", argv[0], strerror(errno));
	}
	for (int i = 0; argv && i < k->nwords; i++)
		tnl_free(argv[i]);
	tnl_free(argv);
	if (code)
		end_with(k, code);
}

static int address_at(const struct exec *k, int i, struct td_addr *out)
{
	return k->f ? td_forwarder_addr(k->f, 0, i, out) : k->served ? td_one_shot_addr(k->served, i, out) : -1;
}

/* The first address that is TCP, else the first; false: it has none. */
static bool find_address(const struct exec *k, struct where *w)
{
	struct td_addr a, best;
	bool found = false;
	for (int i = 0; address_at(k, i, &a) == 0; i++) {
		bool tcp = a.sa.sa_family != AF_UNIX;
		if (!found || (tcp && best.sa.sa_family == AF_UNIX))
			best = a;
		found = true;
	}
	if (found)
		where_it_is(&best, w);
	return found;
}

static void on_up(void *arg)
{
	struct exec *k = arg;
	struct where w;
	if (!k->program && !k->draining && find_address(k, &w))
		run_program(k, &w);
}

/* --- the tunnel ------------------------------------------------------------------------ */

static void on_started(void *ctx, int err, const char *type, const char *why)
{
	struct exec *k = ctx;
	if (!err)
		td_soon_do(&k->start);
	else if (!k->program && !k->draining)
		td_foreground_failed(&k->fg, err, type, why);
}

/* Before the program runs. */
static void on_signal(struct td_foreground *fg, int signum)
{
	struct exec *k = fg->user;
	if (k->draining)
		td_foreground_stop(fg, 128 + signum);
	else
		end_with(k, 128 + signum);
}

static void cleanup(void *arg)
{
	struct exec *k = arg;
	td_soon_cancel(&k->start);
	td_timer_stop(&k->patience);
	td_one_shot_free(k->served);
	td_program_free(k->program);
	td_forwarder_free(k->f);
}

static void make_config(struct exec *k)
{
	static const char any_port[] = "127.0.0.1:0";
	const struct td_tunnel_config *t = k->fg.t;
	struct td_addr any;
	const char *fault;
	bool own = t->naddrs && !k->private_port;
	if (!own)
		td_addr_parse(any_port, &any, 1, &fault);
	k->made = td_config_single(k->fg.cfg, t, own ? t->addrs : &any, own ? t->naddrs : 1);
	struct td_tunnel_config *made = &k->made->fwd.tunnels[0];
	made->open_at_start = made->required = true;
	made->select = k->fg.select_given ? k->fg.select : t->select;
	if (k->fg.made) /* an id: what is for all holds for it */
		td_aws_config_inherit(&made->aws, &k->fg.cfg->aws);
}

/* --- by a daemon --------------------------------------------------------------------------- */

static void served_up(void *ctx)
{
	struct exec *k = ctx;
	td_soon_do(&k->start);
}

static void served_ended(void *ctx, int code, bool gone)
{
	struct exec *k = ctx;
	td_one_shot_free(k->served);
	k->served = NULL;
	if (k->draining)
		drained(k);
	else if (!k->program) /* else the program finds out by itself, and its exit code tells more */
		td_foreground_finish(&k->fg, code);
}

/* false: there is none that does. */
static bool ask_daemon(struct exec *k)
{
	static const struct td_one_shot_cb cb = {.up = served_up, .ended = served_ended};
	struct td_addr any;
	const char *fault;
	char why[300];
	int fd = -1;
	k->listens = !k->fg.t->naddrs || k->private_port;
	if (k->listens && td_addr_parse("127.0.0.1:0", &any, 1, &fault) == 1)
		fd = td_listen_socket(&any, why, sizeof(why));
	const struct td_one_shot_wish w = {.kind = k->listens ? "listen" : "use",
					   .host = k->fg.t->host,
					   .port = k->fg.t->port,
					   .fds = &fd,
					   .nfds = fd >= 0,
					   .flags = {-1, -1}};
	if (fd >= 0 || !k->listens)
		k->served = td_one_shot_start(&k->fg, &w, &cb, k);
	if (fd >= 0)
		close(fd);
	return k->served;
}

/* --- from start to end ----------------------------------------------------------------------- */

static int start_forwarder(struct exec *k)
{
	char why[400];
	int r = td_foreground_account(&k->fg);
	if (r)
		return r;
	make_config(k);
	k->f = td_forwarder_new(k->fg.loop, k->made, why, sizeof(why));
	if (!k->f) {
		td_foreground_say(&k->fg, "%s%s", why, k->private_port ? "" : "; -P takes a free port");
		return TD_EXIT_RUNTIME;
	}
	td_forwarder_on_started(k->f, on_started, k);
	if (k->made->fwd.tunnels[0].session == TD_SESSION_PER_CONNECTION) /* there is nothing to wait for */
		td_soon_do(&k->start);
	return 0;
}

static int run_in(struct exec *k)
{
	td_soon_init(&k->start, k->fg.loop, on_up, k);
	td_timer_init(&k->patience, k->fg.loop, drain_over, k);
	int r = ask_daemon(k) ? 0 : start_forwarder(k);
	if (r)
		return r;
	k->fg.user = k;
	k->fg.on_signal = on_signal;
	k->fg.cleanup = cleanup;
	k->fg.cleanup_arg = k;
	return td_foreground_run(&k->fg);
}

static int run(const struct td_command *cmd, int argc, char **argv)
{
	static struct exec k;
	const char *file = NULL, *select = NULL;
	bool verbose = false, private_port = false;
	const struct td_arg args[] = {
	    {'c', "config", .value = &file},
	    {'v', "verbose", .flag = &verbose},
	    {'P', "port", .flag = &private_port},
	    {0, "select", .value = &select},
	};
	td_program_remember();
	int r = td_args_command(cmd, argc, argv, args, TNL_COUNT(args));
	if (r)
		return r;
	int n = td_args(cmd, argc, argv, args, TNL_COUNT(args), argc);
	if (n < 0)
		return -1 - n;
	if (n < 2)
		return td_args_usage(cmd, n ? "the command is missing: … TUNNEL -- COMMAND" : "TUNNEL is missing");
	r = td_foreground_open(&k.fg, "exec", file, verbose);
	if (r == 0)
		r = td_foreground_select(&k.fg, select);
	if (r == 0)
		r = td_foreground_find(&k.fg, argv[1]);
	if (r == 0)
		r = td_foreground_port(&k.fg);
	if (r != 0)
		return r;
	k.private_port = private_port;
	k.words = argv + 2;
	k.nwords = n - 1;
	if (lacks_port(&k)) {
		td_foreground_say(&k.fg, "%s listens on a Unix socket, which has no {port}; -P takes a port",
				  k.fg.t->name);
		return TD_EXIT_USAGE;
	}
	r = run_in(&k);
	td_config_free(k.made);
	return r;
}

const struct td_command td_command_exec = {
    "exec",
    "run a program with a tunnel that is open as long as it runs",
    "usage: tunneld exec [-c FILE] [-Pv] [--select WORD] TUNNEL -- COMMAND [ARGUMENT]…\n"
    "\n"
    "TUNNEL is the name of a [tunnel] or [alias] of the configuration, an instance id\n"
    "(i-…, mi-…, ecs:…), or how to find one (tag:KEY=VALUE, name:HOST,\n"
    "ecs:CLUSTER/SERVICE[/CONTAINER]).  When it is up, {host} and {port} in the arguments become its\n"
    "address, and COMMAND runs; its exit code is passed on:\n"
    "\n"
    "  tunneld exec db -- psql -h {host} -p {port} shop\n"
    "  tunneld exec db -- pg_dump postgres://app@{host}:{port}/shop\n"
    "\n"
    "  -P, --port         listen on a free port of 127.0.0.1, not where the tunnel says;\n"
    "                     an alias and an id have no other\n"
    "      --select WORD  which of several matches: only (the default: that is an error), newest, any\n"
    "  -c, --config FILE  configuration (default: $TUNNELD_CONFIG, ~/.config/tunneld/tunneld.ini,\n"
    "                     /etc/tunneld/tunneld.ini)\n"
    "  -v, --verbose      say on stderr what happens\n"
    "\n"
    "When the tunnel does not come up, COMMAND does not run.  " TD_EXIT_HELP
    "126: COMMAND cannot be run, 127: it is not there, 128 + N: it was killed by signal N.\n",
    run,
};
