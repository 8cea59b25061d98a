/* tunneld connect HOST [PORT]: stdin and stdout joined to a port of the target, for
 * OpenSSH's ProxyCommand.  stdout carries only bytes; everything else goes to stderr. */
#include "tunneld/command/foreground.h"
#include "tunneld/command/one_shot.h"

#include "lib/num.h"
#include "lib/proxyhead.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct connect {
	bool to_socket; /* port = unix:PATH */
	struct td_foreground fg;
	uint16_t port;
	int flags[2]; /* of stdin and stdout, as they were */
	struct td_one_shot *served;
};

static void restore(struct connect *k)
{
	for (int fd = 0; fd < 2; fd++)
		if (k->flags[fd] >= 0)
			fcntl(fd, F_SETFL, k->flags[fd]);
}

/* send_proxy of the section, for the service that is behind it: nobody has connected here. */
static void say_who(const struct connect *k, struct td_pipe *p)
{
	const struct td_tunnel_config *t = k->fg.t;
	struct tnl_proxyhead h = {.version = (int)t->send_proxy};
	uint8_t head[TNL_PROXYHEAD_LONGEST];
	if (!h.version || (!k->to_socket && k->port != t->port))
		return;
	if (td_pipe_lead(p, head, tnl_proxyhead_write(&h, head)) < 0)
		td_pipe_abort(p, TNL_RESET_LIMIT);
}

static void on_ready(void *ctx, const struct tnl_session_info *info)
{
	struct connect *k = ctx;
	struct td_pipe *p = td_foreground_stream(&k->fg, STDIN_FILENO, -1, k);
	if (!p)
		return;
	say_who(k, p);
	td_pipe_end_sink(p, k->flags[1]); /* or ssh would wait for ever for a server that hung up */
}

static void on_failed(void *ctx, int err, const char *type, const char *why)
{
	struct connect *k = ctx;
	td_foreground_failed(&k->fg, err, type, why);
}

static void on_over(void *ctx, int err, const char *text)
{
	struct connect *k = ctx;
	/* A single stream ends with its session: closed without a word means that the target hung up. */
	if (err == TNL_ECLOSED && !text[0])
		td_foreground_finish(&k->fg, TD_EXIT_OK);
	else
		td_foreground_lost(&k->fg, err, text);
}

static void on_ended(void *ctx)
{
	struct connect *k = ctx;
	td_foreground_finish(&k->fg, TD_EXIT_OK);
}

static void on_pipe_closed(void *ctx, struct td_pipe *p, void *user, uint32_t reason, uint64_t in, uint64_t out)
{
	struct connect *k = ctx;
	char text[300];
	if (td_foreground_sink_failed(&k->fg, p)) {
		return;
	} else if (reason == UINT32_MAX &&
		   tnl_session_state(td_pump_session(td_client_pump(k->fg.client))) == TNL_SS_CLOSED) {
		return; /* over() comes next and knows why */
	} else if (reason == UINT32_MAX) {
		td_foreground_finish(&k->fg, TD_EXIT_OK);
	} else if (reason == TNL_RESET_CONNECT || reason == TNL_RESET_DENIED) {
		td_foreground_say(&k->fg, "%s: connection to port %u refused: %s", k->fg.t->target, k->port,
				  td_pipe_end_text(p, reason, text, sizeof(text)));
		td_foreground_finish(&k->fg, TD_EXIT_REFUSED);
	} else if (reason != TNL_RESET_SESSION) { /* over() has the reason of that one */
		td_foreground_say(&k->fg, "%s", td_pipe_end_text(p, reason, text, sizeof(text)));
		td_foreground_finish(&k->fg, TD_EXIT_RUNTIME);
	}
}

static const struct td_client_cb client_cb = {
    .ready = on_ready,
    .failed = on_failed,
    .over = on_over,
    .ended = on_ended,
    .pipe_closed = on_pipe_closed,
};

static void take_flags(struct connect *k)
{
	for (int fd = 0; fd < 2; fd++) /* of both first: they may be one terminal */
		k->flags[fd] = fcntl(fd, F_GETFL);
	for (int fd = 0; fd < 2; fd++)
		if (k->flags[fd] >= 0)
			fcntl(fd, F_SETFL, k->flags[fd] | O_NONBLOCK);
}

/* --- by a daemon ------------------------------------------------------------------- */

/* What stands for an end that somebody waits for is the daemon's alone from now on. */
static void let_go(void)
{
	struct stat st;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = 0; fd < 2 && null >= 0; fd++)
		if (fstat(fd, &st) == 0 && (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode)))
			dup2(null, fd);
	if (null >= 0)
		close(null);
}

static void on_served(void *ctx, int code, bool gone)
{
	struct connect *k = ctx;
	td_foreground_finish(&k->fg, code);
}

static void end_served(void *arg)
{
	struct connect *k = arg;
	td_one_shot_free(k->served);
}

/* false: there is none that does. */
static bool ask_daemon(struct connect *k)
{
	static const struct td_one_shot_cb cb = {.ended = on_served};
	const struct td_one_shot_wish w = {.kind = "connect",
					   .host = k->fg.t->host,
					   .port = k->port,
					   .fds = (const int[]){STDIN_FILENO, STDOUT_FILENO},
					   .nfds = 2,
					   .flags = {k->flags[0], k->flags[1]}};
	if (k->to_socket || k->flags[0] < 0 || k->flags[1] < 0 || !(k->served = td_one_shot_start(&k->fg, &w, &cb, k)))
		return false;
	let_go();
	k->fg.cleanup = end_served;
	k->fg.cleanup_arg = k;
	return true;
}

/* --- by ourselves ------------------------------------------------------------------- */

/* To port = unix:PATH: the stream says so, and the session goes nowhere else. */
static void go_to_socket(struct td_client_config *cc)
{
	cc->host = "localhost";
	cc->port = 1;
	cc->document = NULL;
	cc->session.dial = TNL_DIAL_VERSION;
	cc->session.require_dial = true;
}

static int start_client(struct connect *k)
{
	int r = td_foreground_account(&k->fg);
	if (r)
		return r;
	struct td_client_config cc = {.label = "command=connect", .port = k->port};
	td_foreground_settings(&k->fg, &cc);
	cc.host = k->fg.t->host;
	cc.document = k->fg.t->document ? k->fg.t->document : cc.host ? NULL : "AWS-StartSSHSession";
	cc.session.expected_type = "Port";
	if (k->to_socket)
		go_to_socket(&cc);
	k->fg.client = td_client_new(k->fg.loop, &cc, &client_cb, k);
	return k->fg.client ? 0 : TD_EXIT_RUNTIME;
}

/* 0, or said and a code. */
static int find_port(struct td_foreground *fg, uint16_t port)
{
	td_foreground_choose_port(fg, port);
	int r = td_foreground_port(fg);
	if (r || fg->t->type != TD_TUNNEL_UDP)
		return r;
	td_foreground_say(fg,
			  "%s is a tunnel of datagrams (type = udp), and connect makes connections: send to its "
			  "address, or name the target",
			  fg->t->name);
	return TD_EXIT_USAGE;
}

static int run(const struct td_command *cmd, int argc, char **argv)
{
	static struct connect k;
	const char *file = NULL, *select = NULL;
	bool verbose = false;
	const struct td_arg args[] = {
	    {'c', "config", .value = &file},
	    {'v', "verbose", .flag = &verbose},
	    {0, "select", .value = &select},
	};
	int n = td_args(cmd, argc, argv, args, TNL_COUNT(args), 2);
	char *end = NULL;

	if (n < 0)
		return -1 - n;
	if (n < 1)
		return td_args_usage(cmd, "HOST is missing");
	long port = n > 1 ? strtol(argv[2], &end, 10) : 0;
	if (n > 1 && (!*argv[2] || *end || port < 1 || port > 65535))
		return td_args_usage(cmd, "port %s is not a number from 1 to 65535", argv[2]);
	int r = td_foreground_open(&k.fg, "connect", file, verbose);
	if (r == 0)
		r = td_foreground_select(&k.fg, select);
	if (r == 0)
		r = td_foreground_find(&k.fg, argv[1]);
	if (r == 0)
		r = find_port(&k.fg, (uint16_t)port);
	if (r != 0)
		return r;
	k.port = port ? (uint16_t)port : k.fg.t->port ? k.fg.t->port : 22;
	k.to_socket = !port && k.fg.t->path;
	take_flags(&k);
	r = ask_daemon(&k) ? 0 : start_client(&k);
	r = r ? r : td_foreground_run(&k.fg);
	restore(&k);
	return r;
}

const struct td_command td_command_connect = {
    "connect",
    "join stdin and stdout to a port of a target (for OpenSSH's ProxyCommand)",
    "usage: tunneld connect [-c FILE] [-v] HOST [PORT]\n"
    "\n"
    "HOST is an instance id (i-…, mi-…, ecs:…), how to find one (tag:KEY=VALUE, name:HOST,\n"
    "ecs:CLUSTER/SERVICE[/CONTAINER]), or the name of a [tunnel] or [alias]\n"
    "of the configuration; PORT defaults to that section's, else 22, and says which of a\n"
    "range of ports.  In ssh_config:\n"
    "\n"
    "  Host i-* mi-*\n"
    "      ProxyCommand tunneld connect %h %p\n"
    "\n"
    "  -c, --config FILE  configuration (default: $TUNNELD_CONFIG, ~/.config/tunneld/tunneld.ini,\n"
    "                     /etc/tunneld/tunneld.ini; none is fine)\n"
    "      --select WORD  which of several matches: only (the default: that is an error), newest, any\n"
    "  -v, --verbose      say on stderr what happens\n"
    "\n" TD_EXIT_HELP,
    run,
};
