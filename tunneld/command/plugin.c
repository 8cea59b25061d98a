/* In place of session-manager-plugin: called under that name, by `aws ssm start-session`
 * or by scripts, with its argument list:
 *
 *   RESPONSE-JSON | AWS_SSM_START_SESSION_RESPONSE… (a variable that holds it)
 *   REGION StartSession [PROFILE [PARAMETERS-JSON [ENDPOINT]]]
 *
 * `aws ecs execute-command` calls it the same way, with members in lower camel case and the endpoint of ECS.
 *
 * The session type follows from the handshake; what scripts look for on stdout is there.
 * A session that came about ends with 0 whatever ran in it, like the stock program: the
 * aws command takes any other code for a crash.  Only a session that fails or is lost
 * ends with a code that says so. */
#include "tunneld/command/foreground.h"
#include "tunneld/command/term.h"
#include "tunneld/command/wish.h"

#include "lib/alloc.h"
#include "lib/enc.h"
#include "tunneld/base/fd.h"
#include "tunneld/net/listen.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_WAITING 128
#define LOCAL_KEEPALIVE (120 * TD_SEC) /* as tcp_keepalive is by default */

struct plugin {
	struct td_foreground fg;
	char *id;		     /* of the session, fit for a terminal */
	struct tnl_json *properties; /* what the far end says that was asked for */
	struct td_wish wish;	     /* what was */
	struct td_listener *listeners[2];
	int nlisteners;
	int waiting[MAX_WAITING]; /* accepted while another has the one stream (Basic) */
	int nwaiting;
	bool accepted, stdio, quiet; /* quiet: stdout belongs to the stream */
	struct td_term term;
	uint64_t failure_told; /* when "Connection to destination port failed" was last shown */
	bool command;	       /* output, errors and exit code apart */
	bool ecs;	       /* the response is that of `aws ecs execute-command`, and so is the endpoint */
};

/* Lines for scripts go out at once: they read through a pipe. */
static __attribute__((format(printf, 1, 2))) void line(const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	fflush(stdout);
}

/* Peers' text, without what would drive a terminal. */
static void say_output(struct plugin *k, const char *text)
{
	if (k->quiet) {
		if (text[0])
			td_foreground_say(&k->fg, "%s", text);
		return;
	}
	if (!text[0]) {
		line("\n\nExiting session with sessionId: %s.\n\n", k->id);
		return;
	}
	printf("\n\nSessionId: %s : ", k->id);
	td_term_put(stdout, text);
	line("\n\n");
}

static void cannot_start(const char *why)
{
	fputs("Cannot perform start session: ", stdout);
	td_term_put(stdout, why);
	line("\n");
}

/* ---- port sessions ---------------------------------------------------------------- */

static void serve_waiting(struct plugin *k)
{
	while (k->nwaiting > 0) {
		int err = 0;
		if (!td_pipe_client(td_client_pump(k->fg.client), k->waiting[0], k, &err)) {
			if (err == TNL_EBUSY)
				return;
			td_fd_rst_close(k->waiting[0]);
		}
		memmove(k->waiting, k->waiting + 1, (size_t)--k->nwaiting * sizeof(k->waiting[0]));
	}
	for (int i = 0; i < k->nlisteners; i++)
		td_listener_pause(k->listeners[i], false);
}

static void on_accept(void *ctx, int fd, const struct td_addr *peer)
{
	struct plugin *k = ctx;
	if (!k->accepted)
		line("\nConnection accepted for session [%s]\n", k->id);
	k->accepted = true;
	td_fd_keepalive(fd, LOCAL_KEEPALIVE);
	k->waiting[k->nwaiting++] = fd;
	if (k->nwaiting == MAX_WAITING)
		for (int i = 0; i < k->nlisteners; i++)
			td_listener_pause(k->listeners[i], true);
	serve_waiting(k);
}

static int listen_on(struct plugin *k, const char *text, bool must)
{
	struct td_addr a;
	char why[200];
	const char *fault;

	if (td_addr_parse(text, &a, 1, &fault) < 1) {
		td_foreground_say(&k->fg, "cannot listen on %s: %s", text, fault);
		return -1;
	}
	struct td_listener *l = td_listen(k->fg.loop, &a, on_accept, k, why, sizeof(why));
	if (!l) {
		if (must)
			cannot_start(why);
		return -1;
	}
	k->listeners[k->nlisteners++] = l;
	return 0;
}

static void start_port(struct plugin *k)
{
	char text[300], chosen[8], why[200];
	struct td_addr a;

	if (td_wish_listen(&k->wish, k->properties, text, sizeof(text), why, sizeof(why)) < 0) {
		cannot_start(why);
		td_foreground_finish(&k->fg, TD_EXIT_REFUSED);
		return;
	}
	if (listen_on(k, text, true) < 0) {
		td_foreground_finish(&k->fg, TD_EXIT_RUNTIME);
		return;
	}
	td_listener_addr(k->listeners[0], &a);
	if (a.sa.sa_family == AF_UNIX) {
		fputs("Unix socket ", stdout);
		td_term_put(stdout, k->wish.socket);
		printf(" opened for sessionId %s.\n", k->id);
	} else {
		snprintf(chosen, sizeof(chosen), "%u", ntohs(a.in.sin_port));
		snprintf(text, sizeof(text), "[::1]:%s", chosen); /* localhost is both */
		listen_on(k, text, false);
		printf("Port %s opened for sessionId %s.\n", chosen, k->id);
	}
	line("Waiting for connections...\n");
}

/* ---- stdin and stdout ---------------------------------------------------------------- */

static void start_stdio(struct plugin *k, enum tnl_session_mode mode)
{
	k->quiet = mode == TNL_MODE_SINGLE;
	k->command = mode == TNL_MODE_COMMAND;
	struct td_pipe *p = k->quiet || k->command
				? td_foreground_stream(&k->fg, STDIN_FILENO, k->quiet ? -1 : STDERR_FILENO, k)
				: td_term_open(&k->term, &k->fg, k);
	k->stdio = p != NULL;
	if (p && k->quiet)
		td_pipe_end_sink(p, -1);
}

/* ---- the session ------------------------------------------------------------------------ */

static void on_ready(void *ctx, const struct tnl_session_info *info)
{
	struct plugin *k = ctx;

	if (!td_wish_allows(&k->wish, info->mode)) {
		cannot_start("the far end offers another kind of session than the document is for");
		td_foreground_finish(&k->fg, TD_EXIT_REFUSED);
		return;
	}
	if (info->customer_message && info->customer_message[0]) {
		FILE *f = info->mode == TNL_MODE_SINGLE ? stderr : stdout;
		td_term_put(f, info->customer_message);
		fputc('\n', f);
	}
	fflush(stdout);
	k->properties =
	    info->properties_json ? tnl_json_parse(info->properties_json, strlen(info->properties_json)) : NULL;
	if (info->mode == TNL_MODE_MUX || info->mode == TNL_MODE_BASIC)
		start_port(k);
	else
		start_stdio(k, info->mode);
}

static void on_failed(void *ctx, int err, const char *type, const char *why)
{
	struct plugin *k = ctx;
	cannot_start(why);
	td_foreground_finish(&k->fg, td_foreground_code(err, type));
}

static void on_over(void *ctx, int err, const char *text)
{
	struct plugin *k = ctx;
	td_term_restore();
	if (err == TNL_ECLOSED && strstr(text, "timed out")) {
		line("Session: %s timed out.\n", k->id);
		td_foreground_finish(&k->fg, TD_EXIT_LOST);
	} else if (err == TNL_ECLOSED) {
		say_output(k, text);
		td_foreground_finish(&k->fg, TD_EXIT_OK);
	} else {
		td_foreground_lost(&k->fg, err, text);
	}
}

static void on_ended(void *ctx)
{
	struct plugin *k = ctx;
	td_foreground_finish(&k->fg, TD_EXIT_OK);
}

/* Stock agents say it with a flag, ours by resetting the stream; of both only one line comes out. */
static void connect_failed(struct plugin *k)
{
	uint64_t now = k->fg.loop->now;
	if (!k->quiet && (!k->failure_told || now - k->failure_told > 100 * TD_MS))
		line("\nConnection to destination port failed, check SSM Agent logs.\n");
	k->failure_told = now;
}

static void on_pipe_closed(void *ctx, struct td_pipe *p, void *user, uint32_t reason, uint64_t in, uint64_t out)
{
	struct plugin *k = ctx;
	char text[300];
	if (reason == TNL_RESET_CONNECT || reason == TNL_RESET_DENIED)
		connect_failed(k);
	if (k->stdio) {
		td_term_detach(&k->term);
		if (td_pipe_sink_errno(p))
			td_term_restore();
		if (td_foreground_sink_failed(&k->fg, p))
			return;
		/* over() tells of the end of a session; a single stream can end without it. */
		bool over =
		    !k->quiet || tnl_session_state(td_pump_session(td_client_pump(k->fg.client))) == TNL_SS_CLOSED;
		if (k->quiet && reason != UINT32_MAX && reason != TNL_RESET_SESSION) {
			td_foreground_say(&k->fg, "%s", td_pipe_end_text(p, reason, text, sizeof(text)));
			td_foreground_finish(&k->fg, reason == TNL_RESET_CONNECT || reason == TNL_RESET_DENIED
							 ? TD_EXIT_REFUSED
							 : TD_EXIT_RUNTIME);
		} else if (reason != TNL_RESET_SESSION && !(reason == UINT32_MAX && over)) {
			td_foreground_finish(&k->fg, TD_EXIT_OK);
		}
	} else if (k->nwaiting > 0) {
		serve_waiting(k);
	}
}

static void on_flag(void *ctx, uint32_t flag)
{
	struct plugin *k = ctx;
	if (flag == TNL_FLAG_CONNECT_ERROR)
		connect_failed(k);
}

static void on_exit_code(void *ctx, int code)
{
	struct plugin *k = ctx;
	if (k->command)
		line("EXIT_CODE: %d\n", code); /* as the stock client shows it */
}

static const struct td_client_cb client_cb = {
    .ready = on_ready,
    .failed = on_failed,
    .over = on_over,
    .ended = on_ended,
    .pipe_closed = on_pipe_closed,
    .flag = on_flag,
    .exit_code = on_exit_code,
};

static void on_signal(struct td_foreground *fg, int signum)
{
	struct plugin *k = fg->user;
	td_term_restore();
	if (!k->quiet) {
		line("Terminate signal received, exiting.\n");
		line("\n\nExiting session with sessionId: %s.\n\n", k->id);
	}
	td_foreground_finish(fg, TD_EXIT_OK);
}

static void cleanup(void *arg)
{
	struct plugin *k = arg;
	td_term_detach(&k->term);
	for (int i = 0; i < k->nlisteners; i++)
		td_listener_free(k->listeners[i]);
	while (k->nwaiting > 0)
		td_fd_rst_close(k->waiting[--k->nwaiting]);
	tnl_json_free(k->properties);
	td_wish_fini(&k->wish);
	tnl_free(k->id);
}

/* The StartSession answer: from the variable that argv[1] names, which is removed at once, or argv[1] itself. */
static int take_grant(const char *arg, struct td_session_grant *g, bool *lower_case)
{
	char *env = strncmp(arg, "AWS_SSM_START_SESSION_RESPONSE", 30) == 0 ? getenv(arg) : NULL;
	const char *text = env ? env : arg;
	struct tnl_json *j = tnl_json_parse(text, strlen(text));
	int r = j ? td_session_grant_parse(j, g) : TNL_ESYNTAX;
	*lower_case = !tnl_json_get(j, "SessionId");

	tnl_json_free(j);
	if (env) {
		tnl_wipe(env, strlen(env)); /* also out of /proc/PID/environ */
		unsetenv(arg);
	}
	if (r == 0 && (!g->session_id || !g->token || !g->stream_url))
		r = TNL_ESYNTAX;
	return r;
}

static char *escaped(const char *text)
{
	struct tnl_buf b;
	tnl_buf_init(&b, 4096);
	tnl_escape(&b, text, strlen(text), false);
	char *s = tnl_buf_steal_str(&b);
	tnl_buf_fini(&b);
	return s;
}

/* For callers that have keys of their own and no configuration for others: the stock program then looks for none. */
static bool without_client(void)
{
	const char *v = getenv("SSM_PLUGIN_SKIP_CLIENT_CONFIGURE");
	return v && strcmp(v, "true") == 0;
}

/* A profile that no file has is one of the caller's own making: what the environment has serves then, and where that is
 * nothing the first call that has to be signed says so. */
static void take_profile(struct plugin *k, struct td_aws_config *a, char *name)
{
	if (td_aws_has_profile(name)) {
		a->profile = name;
		return;
	}
	td_foreground_say(&k->fg, "profile %s is in neither ~/.aws/config nor ~/.aws/credentials; %s", name,
			  getenv("AWS_ACCESS_KEY_ID") ? "the keys of the environment are used"
						      : "a call that must be signed will fail");
	setenv("AWS_PROFILE", name, 1);
}

/* ECS's own endpoint does not answer ResumeSession and TerminateSession, but what it names is trusted as its answer is.
 */
static bool trust_endpoint(struct td_aws_config *a, const char *endpoint, char ***hosts)
{
	struct tnl_url u;
	const char *fault;
	int n = a->stream_hosts.n;

	if (tnl_url_parse(endpoint, &u, &fault) != 0)
		return true;
	*hosts = tnl_calloc((size_t)n + 1, sizeof(**hosts));
	char *host = *hosts ? tnl_strdup(u.host) : NULL;
	if (!host)
		return false;
	for (int i = 0; i < n; i++)
		(*hosts)[i] = a->stream_hosts.v[i];
	(*hosts)[n] = host;
	a->stream_hosts.v = *hosts;
	a->stream_hosts.n = n + 1;
	return true;
}

/* Settings of an alias on the command line's region, profile and endpoint. */
static int open_aws(struct plugin *k, int argc, char **argv)
{
	struct td_aws_config a = k->fg.cfg->aws;
	char why[400] = "out of memory", **hosts = NULL;

	if (argv[2][0])
		a.region = argv[2];
	if (argc > 4 && argv[4][0] && !without_client())
		take_profile(k, &a, argv[4]);
	bool endpoint = argc > 6 && argv[6][0];
	if (endpoint && !k->ecs)
		a.ssm_endpoint = argv[6];
	if (!endpoint || !k->ecs || trust_endpoint(&a, argv[6], &hosts))
		k->fg.aws = td_aws_new(k->fg.loop, &a, why, sizeof(why));
	if (hosts)
		tnl_free(hosts[a.stream_hosts.n - 1]);
	tnl_free(hosts);
	if (!k->fg.aws) {
		cannot_start(why);
		return TD_EXIT_USAGE;
	}
	return 0;
}

/* What is answered without a session: the exit code, or -1: there is one to be had. */
static int answer_without_session(int argc, char **argv)
{
	if (argc < 2) {
		puts("\nThe Session Manager plugin was installed successfully. Use the AWS CLI to start a session.\n");
		return TD_EXIT_OK;
	}
	if (argc == 2 && strcmp(argv[1], "--version") == 0) {
		puts(TNL_CLIENT_VERSION);
		return TD_EXIT_OK;
	}
	if (argc < 4) {
		printf("\nUnknown operation %s. \nUse session-manager-plugin --version to check the version.\n\n",
		       argv[1]);
		return TD_EXIT_USAGE;
	}
	if (strcmp(argv[3], "StartSession") != 0) {
		fputs("Invalid Operation", stdout);
		return TD_EXIT_USAGE;
	}
	return -1;
}

static int run_session(struct plugin *k, const struct td_session_grant *grant, int argc, char **argv)
{
	int r = td_foreground_open(&k->fg, "session-manager-plugin", NULL, getenv("TUNNELD_VERBOSE") != NULL);
	if (r == 0)
		r = open_aws(k, argc, argv);
	if (r != 0)
		return r;
	td_wish_init(&k->wish, argc > 5 ? argv[5] : NULL);
	k->fg.t = td_foreground_defaults(&k->fg, k->wish.target ? k->wish.target : "i-0");
	k->id = escaped(grant->session_id);
	if (k->fg.t && k->id) {
		line("\nStarting session with SessionId: %s\n", k->id);
		struct td_client_config cc = {.label = "command=session-manager-plugin", .grant = grant};
		td_foreground_settings(&k->fg, &cc);
		cc.target = k->wish.target;
		cc.never_sign = without_client();
		k->fg.client = td_client_new(k->fg.loop, &cc, &client_cb, k);
	}
	k->fg.user = k;
	k->fg.on_signal = on_signal;
	k->fg.cleanup = cleanup;
	k->fg.cleanup_arg = k;
	if (!k->fg.t) {
		td_foreground_say(&k->fg, "Target is not an instance id");
		return TD_EXIT_USAGE;
	}
	if (!k->fg.client)
		return TD_EXIT_RUNTIME;
	r = td_foreground_run(&k->fg);
	td_term_restore();
	return r;
}

int td_plugin_main(int argc, char **argv)
{
	static struct plugin k;
	struct td_session_grant grant = {0};
	int r = answer_without_session(argc, argv);
	if (r >= 0)
		return r;
	if (take_grant(argv[1], &grant, &k.ecs) < 0) {
		puts("Cannot perform start session: the response holds no SessionId, TokenValue and StreamUrl");
		r = TD_EXIT_USAGE;
	} else {
		r = run_session(&k, &grant, argc, argv);
	}
	td_session_grant_fini(&grant);
	return r;
}
