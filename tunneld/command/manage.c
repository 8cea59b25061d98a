/* tunneld reload, drain, open, close and log-level: one request to the daemons that run, answered when it is done. */
#include "lib/json.h"
#include "lib/num.h"
#include "tunneld/command/command.h"
#include "tunneld/command/daemons.h"
#include "tunneld/command/status.h"
#include "tunneld/command/term.h"
#include "tunneld/process/control.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { STEP_MS = 100, OPEN_MS = 60000 };

struct answers {
	int ok, failed;
	char last[512];
};

/* Each escaped by itself: they are lines of the configuration's reader. */
static void print_lines(const char *text)
{
	char line[1200];
	while (*text) {
		size_t n = strcspn(text, "\n");
		snprintf(line, sizeof(line), "%.*s", (int)TNL_MIN(n, sizeof(line) - 1), text);
		td_term_put(stderr, line);
		fputc('\n', stderr);
		text += n + (text[n] == '\n');
	}
}

static void take_answer(void *ctx, char *reply)
{
	struct answers *a = ctx;
	struct tnl_json *j = tnl_json_parse(reply, strlen(reply));
	const char *error = tnl_json_get_str(j, "error"), *details = tnl_json_get_str(j, "details");
	if (j && tnl_json_bool(tnl_json_get(j, "ok"), false)) {
		a->ok++;
	} else {
		a->failed++;
		if (!*a->last || !error || strcmp(error, TD_CONTROL_NO_TUNNELS) != 0) /* the others know more */
			snprintf(a->last, sizeof(a->last), "%s", error ? error : "no answer");
		if (details && *details)
			print_lines(details);
	}
	tnl_json_free(j);
}

/* Of all that answered one was enough (any), or each had to. */
static int conclude(const struct td_command *cmd, const struct td_daemons_query *q, const struct answers *a, int asked,
		    bool any)
{
	if (asked < 0)
		return TD_EXIT_USAGE;
	if (asked == 0)
		return td_daemons_none(q);
	if (any ? a->ok > 0 : a->failed == 0)
		return TD_EXIT_OK;
	fprintf(stderr, "tunneld %s: ", cmd->name);
	td_term_put(stderr, a->last);
	fputc('\n', stderr);
	return TD_EXIT_RUNTIME;
}

static int ask(const struct td_command *cmd, const struct td_daemons_query *q, const char *request, bool any)
{
	struct answers a = {0};
	int asked = td_daemons_ask(q, request, take_answer, &a);
	return conclude(cmd, q, &a, asked, any);
}

/* One step of a wait that has lasted ms.  On a terminal it says from the second second on that it goes on. */
static void pause_step(bool *shown, int ms, const char *what)
{
	if (ms >= 1000 && ms % 1000 == 0 && isatty(STDERR_FILENO)) {
		fprintf(stderr, "\r%s, %d s \033[K", what, ms / 1000);
		*shown = true;
	}
	nanosleep(&(struct timespec){0, STEP_MS * 1000000}, NULL);
}

static void pause_end(bool shown)
{
	if (shown)
		fputc('\n', stderr);
}

/* --- what has an end that is waited for --------------------------------------------------- */

static void count_connections(void *ctx, char *reply)
{
	struct tnl_json *j = tnl_json_parse(reply, strlen(reply));
	int64_t n;
	tnl_json_each(t, tnl_json_get(tnl_json_get(j, "forwarder"), "tunnels"))
		if (tnl_json_int(tnl_json_get(t, "connections"), &n))
			*(int64_t *)ctx += n;
	tnl_json_free(j);
}

static int wait_gone(const struct td_daemons_query *q)
{
	bool shown = false;
	for (int ms = 0;; ms += STEP_MS) {
		int64_t connections = 0;
		if (td_daemons_ask(q, "status", count_connections, &connections) <= 0)
			break;
		char what[80];
		snprintf(what, sizeof(what), "draining, %lld connection%s left", (long long)connections,
			 connections == 1 ? "" : "s");
		pause_step(&shown, ms, what);
	}
	pause_end(shown);
	return TD_EXIT_OK;
}

struct opening {
	const char *tunnel;
	int seen, up, failed, listens;
	char why[512]; /* of the first that has failed, or that is tried again */
};

static void look_at_tunnel(void *ctx, char *reply)
{
	struct opening *o = ctx;
	struct tnl_json *j = tnl_json_parse(reply, strlen(reply));
	tnl_json_each(t, tnl_json_get(tnl_json_get(j, "forwarder"), "tunnels")) {
		const char *state = tnl_json_get_str(t, "state"), *why = tnl_json_get_str(t, "last_error");
		if (!state || tnl_json_get(t, "one_shot") || !td_status_is_called(t, o->tunnel))
			continue;
		bool idle = strcmp(state, "idle") == 0, quiet = !why || !*why;
		bool failed = idle || strcmp(state, "failed") == 0 || strcmp(state, "needs-login") == 0;
		o->seen++;
		/* One with a session for each connection has nothing to open: it listens, and that is all. */
		o->up += strcmp(state, "up") == 0 || (failed && quiet);
		o->listens += failed && quiet;
		o->failed += failed && !quiet;
		if (!quiet && !*o->why)
			snprintf(o->why, sizeof(o->why), "%s", why);
	}
	tnl_json_free(j);
}

/* What was not tried is said: that it listens does not mean that a session will come up. */
static int tell_listening(const struct td_command *cmd, const struct opening *o)
{
	if (!o->listens)
		return TD_EXIT_OK;
	printf("tunneld %s: ", cmd->name);
	td_term_put(stdout, o->tunnel);
	printf(": %s; a session starts with each connection, none was tried (tunneld doctor does)\n",
	       o->seen == 1	       ? "it listens"
	       : o->listens == o->seen ? "all listen"
				       : "some only listen");
	return TD_EXIT_OK;
}

/* Until each has a session or has failed. */
static int wait_open(const struct td_command *cmd, const struct td_daemons_query *q, const char *tunnel)
{
	struct opening o = {.tunnel = tunnel};
	bool shown = false;
	for (int ms = 0; ms < OPEN_MS; ms += STEP_MS) {
		o = (struct opening){.tunnel = tunnel};
		if (td_daemons_ask(q, "status", look_at_tunnel, &o) < 0)
			return TD_EXIT_USAGE;
		if (o.up + o.failed == o.seen)
			break;
		pause_step(&shown, ms, "opening");
	}
	pause_end(shown);
	if (o.up == o.seen)
		return tell_listening(cmd, &o);
	fprintf(stderr, "tunneld %s: %s: ", cmd->name, tunnel);
	td_term_put(stderr, *o.why ? o.why : "no session came up within 60 seconds");
	fputc('\n', stderr);
	return TD_EXIT_RUNTIME;
}

/* --- the commands --------------------------------------------------------------------------- */

/* Operands of the command: `word` is required when it has a name; then a role may follow. */
static int read_args(const struct td_command *cmd, int argc, char **argv, const char *word, struct td_daemons_query *q)
{
	const struct td_arg args[] = {{'c', "config", .value = &q->file}};
	int n = td_args(cmd, argc, argv, args, TNL_COUNT(args), word ? 2 : 1);
	if (n < 0)
		return n;
	if (word && n < 1)
		return -1 - td_args_usage(cmd, "%s is missing", word);
	int at = word ? 2 : 1;
	if (n >= at && !td_daemons_is_role(argv[at]))
		return -1 -
		       td_args_usage(cmd, "unknown role %s: it must be forwarder, agent, gateway or local", argv[at]);
	q->role = n >= at ? argv[at] : NULL;
	return 0;
}

static int run_plain(const struct td_command *cmd, int argc, char **argv)
{
	struct td_daemons_query q = {0};
	int n = read_args(cmd, argc, argv, NULL, &q);
	if (n < 0)
		return -1 - n;
	int code = ask(cmd, &q, cmd->name, false);
	return code == TD_EXIT_OK && strcmp(cmd->name, "drain") == 0 ? wait_gone(&q) : code;
}

static bool is_level(const char *word)
{
	static const char *const levels[] = {"error", "warn", "info", "debug"};
	for (size_t i = 0; i < TNL_COUNT(levels); i++)
		if (strcmp(word, levels[i]) == 0)
			return true;
	return false;
}

static int run_word(const struct td_command *cmd, int argc, char **argv)
{
	struct td_daemons_query q = {0};
	bool level = strcmp(cmd->name, "log-level") == 0;
	char request[300];
	int n = read_args(cmd, argc, argv, level ? "LEVEL" : "TUNNEL", &q);
	if (n < 0)
		return -1 - n;
	if (snprintf(request, sizeof(request), "%s %s", cmd->name, argv[1]) >= (int)sizeof(request))
		return td_args_usage(cmd, "%.40s… is too long", argv[1]);
	if (level && !is_level(argv[1]))
		return td_args_usage(cmd, "%.40s: the level must be error, warn, info or debug", argv[1]);
	int code = ask(cmd, &q, request, !level);
	return code == TD_EXIT_OK && strcmp(cmd->name, "open") == 0 ? wait_open(cmd, &q, argv[1]) : code;
}

#define HELP_REST                                                                                                      \
	"\n"                                                                                                           \
	"  -c, --config FILE   only what runs with this configuration; else all of this user,\n"                       \
	"                      or of ROLE: forwarder, agent, gateway or local\n"                                       \
	"  -h, --help          this text\n"                                                                            \
	"  -V, --version       the version\n"                                                                          \
	"\n"                                                                                                           \
	"Exit codes: 0 done, 1 not done, for the reason that is told, 2 usage or configuration,\n"                     \
	"7 nothing runs.\n"

const struct td_command td_command_reload = {
    "reload", "make running daemons read their configuration again",
    "usage: tunneld reload [-c FILE] [ROLE]\n"
    "\n"
    "What changed is taken, what did not is not touched.  A file with mistakes changes\n"
    "nothing: they are printed.\n" HELP_REST,
    run_plain};
const struct td_command td_command_drain = {"drain", "end running daemons once their connections have ended",
					    "usage: tunneld drain [-c FILE] [ROLE]\n"
					    "\n"
					    "As SIGTERM does it, and waits until they are gone.\n" HELP_REST,
					    run_plain};
const struct td_command td_command_open = {
    "open", "open a tunnel of a running daemon",
    "usage: tunneld open [-c FILE] TUNNEL | group:NAME [ROLE]\n"
    "\n"
    "Starts its session without waiting for a connection; one that was closed listens again.\n"
    "Waits until the session is up, or tells why it is not.  One with a session for each\n"
    "connection has none to start: it listens, and the command says so.\n" HELP_REST,
    run_word};
const struct td_command td_command_close = {
    "close", "close a tunnel of a running daemon",
    "usage: tunneld close [-c FILE] TUNNEL | group:NAME [ROLE]\n"
    "\n"
    "It listens no more until it is opened again or the daemon starts anew; connections that\n"
    "are open may finish, then its session ends.\n" HELP_REST,
    run_word};
const struct td_command td_command_log_level = {
    "log-level", "change how much running daemons log",
    "usage: tunneld log-level [-c FILE] LEVEL [ROLE]\n"
    "\n"
    "LEVEL is error, warn, info or debug, and holds until the next reload or start.\n" HELP_REST,
    run_word};
