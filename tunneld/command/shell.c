/* tunneld shell TARGET [COMMAND…]: a terminal, or a command, on the target.  Of a command, output, errors and exit
 * code come back apart when there is no terminal here; on one the protocol has no room for the code. */
#include "tunneld/command/foreground.h"
#include "tunneld/command/term.h"

#include "lib/alloc.h"
#include "lib/num.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { COMMAND_MAX = 64 << 10 };

struct shell {
	struct td_foreground fg;
	struct td_term term;
	int remote_code; /* -1: none came */
};

static void on_ready(void *ctx, const struct tnl_session_info *info)
{
	struct shell *k = ctx;
	if (info->mode == TNL_MODE_COMMAND)
		td_foreground_stream(&k->fg, STDIN_FILENO, STDERR_FILENO, k);
	else
		td_term_open(&k->term, &k->fg, k);
}

static int outcome(const struct shell *k)
{
	return k->remote_code >= 0 ? k->remote_code : TD_EXIT_OK;
}

static void on_exit_code(void *ctx, int code)
{
	struct shell *k = ctx;
	k->remote_code = code & 0xff;
}

static void on_failed(void *ctx, int err, const char *type, const char *why)
{
	struct shell *k = ctx;
	td_foreground_failed(&k->fg, err, type, why);
}

static void on_over(void *ctx, int err, const char *text)
{
	struct shell *k = ctx;
	td_term_restore();
	if (err == TNL_ECLOSED) { /* the shell or the command has ended, or the gateway says why not */
		if (text[0])
			td_foreground_say(&k->fg, "%s", text);
		/* A reason without an exit code: somebody or something else ended it. */
		td_foreground_finish(&k->fg, text[0] && k->remote_code < 0 ? TD_EXIT_LOST : outcome(k));
		return;
	}
	td_foreground_lost(&k->fg, err, text);
}

static void on_ended(void *ctx)
{
	struct shell *k = ctx;
	td_foreground_finish(&k->fg, outcome(k));
}

static void on_pipe_closed(void *ctx, struct td_pipe *p, void *user, uint32_t reason, uint64_t in, uint64_t out)
{
	struct shell *k = ctx;
	td_term_detach(&k->term);
	if (td_pipe_sink_errno(p))
		td_term_restore();
	if (td_foreground_sink_failed(&k->fg, p))
		return;
	/* All output is there: the exit code may still come, then the session ends.  over() also has the
	 * reason of a session that broke. */
	if (reason != TNL_RESET_SESSION && reason != UINT32_MAX)
		td_foreground_finish(&k->fg, outcome(k));
}

static const struct td_client_cb client_cb = {
    .ready = on_ready,
    .failed = on_failed,
    .over = on_over,
    .ended = on_ended,
    .pipe_closed = on_pipe_closed,
    .exit_code = on_exit_code,
};

/* A command that was cut short did not succeed: what a shell says of one that a signal ended. */
static void on_signal(struct td_foreground *fg, int signum)
{
	td_foreground_finish(fg, 128 + signum);
}

static void cleanup(void *arg)
{
	struct shell *k = arg;
	td_term_detach(&k->term);
}

/* The words of the command as one line, as ssh does it; NULL: too long. */
static char *join_words(char **words, int n)
{
	struct tnl_buf b;
	tnl_buf_init(&b, COMMAND_MAX);
	for (int i = 0; i < n; i++) {
		if (i)
			tnl_buf_putc(&b, ' ');
		tnl_buf_puts(&b, words[i]);
	}
	char *s = b.failed ? NULL : tnl_buf_steal_str(&b);
	tnl_buf_fini(&b);
	return s;
}

static void drop_input(void)
{
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (null < 0)
		return;
	dup2(null, STDIN_FILENO);
	close(null);
}

static int run(const struct td_command *cmd, int argc, char **argv)
{
	static struct shell k;
	const char *file = NULL, *select = NULL, *document = NULL;
	bool verbose = false, force = false;
	const struct td_arg args[] = {
	    {'c', "config", .value = &file},   {'v', "verbose", .flag = &verbose},  {0, "select", .value = &select},
	    {'t', "terminal", .flag = &force}, {0, "document", .value = &document},
	};
	int n = td_args_and_command(cmd, argc, argv, args, TNL_COUNT(args));

	if (n < 0)
		return -1 - n;
	if (n < 1)
		return td_args_usage(cmd, "TARGET is missing");
	int r = td_foreground_open(&k.fg, "shell", file, verbose);
	if (r == 0)
		r = td_foreground_select(&k.fg, select);
	if (r == 0)
		r = td_foreground_target(&k.fg, argv[1]);
	if (r != 0)
		return r;
	k.remote_code = -1;
	char *line = n > 1 ? join_words(argv + 2, n - 1) : NULL;
	if (n > 1 && !line) { /* without it there would be a shell in its place */
		td_foreground_say(&k.fg, "the command is longer than %d KiB", COMMAND_MAX >> 10);
		return TD_EXIT_USAGE;
	}
	/* From the background of a terminal nothing can be read: no input, and no terminal for the command. */
	bool terminal = force || td_term_is_ours();
	if (line && !terminal && isatty(STDIN_FILENO))
		drop_input();
	const char *command[] = {line, NULL};
	struct td_client_config cc = {.label = "command=shell"};
	td_foreground_settings(&k.fg, &cc);
	cc.document = document	 ? document
		      : !line	 ? NULL
		      : terminal ? "AWS-StartInteractiveCommand"
				 : "AWS-StartNonInteractiveCommand";
	cc.command = line ? command : NULL;
	if (line)
		k.fg.on_signal = on_signal;
	k.fg.client = td_client_new(k.fg.loop, &cc, &client_cb, &k);
	tnl_free(line);
	if (!k.fg.client)
		return TD_EXIT_RUNTIME;
	k.fg.cleanup = cleanup;
	k.fg.cleanup_arg = &k;
	r = td_foreground_run(&k.fg);
	td_term_restore();
	return r;
}

const struct td_command td_command_shell = {
    "shell",
    "a terminal, or a command, on a target",
    "usage: tunneld shell [-c FILE] [-v] [-t] [--document NAME] TARGET [COMMAND…]\n"
    "\n"
    "TARGET is an instance id (i-…, mi-…, ecs:…), how to find one (tag:KEY=VALUE, name:HOST,\n"
    "ecs:CLUSTER/SERVICE[/CONTAINER]), or the name of a [tunnel] or [alias]\n"
    "of the configuration.  Without COMMAND: a login shell on a terminal.  With it: the\n"
    "command on a terminal when there is one here (or with -t), else with its output,\n"
    "its errors and its exit code passed on.  Options stand before COMMAND: what begins\n"
    "there is the target's, as with ssh.\n"
    "\n"
    "  -t, --terminal     run COMMAND on a terminal in any case\n"
    "      --document NAME  another session document\n"
    "  -c, --config FILE  configuration (default: $TUNNELD_CONFIG, ~/.config/tunneld/tunneld.ini,\n"
    "                     /etc/tunneld/tunneld.ini; none is fine)\n"
    "      --select WORD  which of several matches: only (the default: that is an error), newest, any\n"
    "  -v, --verbose      say on stderr what happens\n"
    "\n"
    "A command's own exit code is passed on (on a terminal 0: the protocol has no room for\n"
    "it); else\n" TD_EXIT_HELP,
    run,
};
