/* tunneld status: asks the daemons, shows what is wrong, then tables; once, again and again in place, or until all is
 * well. */
#include "tunneld/command/status.h"
#include "lib/alloc.h"
#include "lib/num.h"
#include "tunneld/command/command.h"
#include "tunneld/command/daemons.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { SAMPLE_MS = 400, WAIT_STEP_MS = 200, DOCS_MAX = 64 };

struct status {
	struct td_daemons_query q;
	const char *tunnel; /* only this one; NULL: all */
	struct td_status_view view;
	struct td_status_rates rates;
	struct tnl_json *doc[DOCS_MAX];
	char *text[DOCS_MAX];
	int n;
};

static uint64_t now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void pause_ms(long ms)
{
	nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static void drop_docs(struct status *s)
{
	for (int i = 0; i < s->n; i++) {
		tnl_json_free(s->doc[i]);
		tnl_free(s->text[i]);
	}
	s->n = 0;
}

static void take_doc(void *ctx, char *reply)
{
	struct status *s = ctx;
	struct tnl_json *j = tnl_json_parse(reply, strlen(reply));
	if (!j) {
		fputs("tunneld: the answer of a daemon is not JSON\n", stderr);
		return;
	}
	if (s->n == DOCS_MAX || (s->tunnel && !td_status_tunnel(j, s->tunnel))) {
		tnl_json_free(j);
		return;
	}
	td_status_rates_take(&s->rates, j, now_ms());
	s->doc[s->n] = j;
	s->text[s->n++] = tnl_strdup(reply);
}

/* -1: the configuration is wrong. */
static int gather(struct status *s)
{
	drop_docs(s);
	return td_daemons_ask(&s->q, "status", take_doc, s);
}

static const struct tnl_json *tunnels_of(const struct tnl_json *doc)
{
	return tnl_json_get(tnl_json_get(doc, "forwarder"), "tunnels");
}

static bool carries(const struct status *s)
{
	for (int i = 0; i < s->n; i++)
		tnl_json_each(t, tnl_json_get(tnl_json_get(s->doc[i], "forwarder"), "tunnels")) {
			int64_t n = 0;
			if (tnl_json_int(tnl_json_get(t, "connections"), &n) && n > 0)
				return true;
		}
	return false;
}

static bool is_well(const struct status *s, FILE *f)
{
	bool well = true;
	for (int i = 0; i < s->n; i++) {
		if (!s->tunnel)
			well = td_status_check(s->doc[i], &s->view, f) && well;
		tnl_json_each(t, tunnels_of(s->doc[i]))
			if (s->tunnel && td_status_is_called(t, s->tunnel))
				well = td_status_tunnel_is_well(t) && well;
	}
	return well;
}

/* The exit code for what was gathered. */
static int verdict(const struct status *s)
{
	if (s->n)
		return is_well(s, NULL) ? TD_EXIT_OK : TD_EXIT_RUNTIME;
	if (!s->tunnel)
		return td_daemons_none(&s->q);
	fprintf(stderr, "tunneld: no daemon that runs has a tunnel %s\n", s->tunnel);
	return TD_EXIT_NOT_RUNNING;
}

static void show_tables(const struct status *s, FILE *f)
{
	if (!is_well(s, s->tunnel ? NULL : f) && !s->tunnel)
		fputc('\n', f);
	bool first = true;
	for (int i = 0; i < s->n; i++) {
		if (s->tunnel) {
			tnl_json_each(t, tunnels_of(s->doc[i]))
				if (td_status_is_called(t, s->tunnel)) {
					fputs(first ? "" : "\n", f);
					td_status_tree(t, 0, f);
					first = false;
				}
			continue;
		}
		fputs(i ? "\n" : "", f);
		td_status_tables(s->doc[i], &s->view, f);
	}
}

static void show_json(const struct status *s)
{
	putchar('[');
	for (int i = 0; i < s->n; i++)
		printf("%s%s", i ? ",\n" : "", s->text[i]);
	puts("]");
}

static int show_once(struct status *s, bool json)
{
	if (gather(s) < 0)
		return TD_EXIT_USAGE;
	if (!json && !s->tunnel && carries(s)) { /* a rate takes two looks */
		pause_ms(SAMPLE_MS);
		gather(s);
	}
	if (json)
		show_json(s);
	else
		show_tables(s, stdout);
	return verdict(s);
}

/* In place: each picture over the one before. */
static int watch(struct status *s)
{
	for (;;) {
		char *text = NULL;
		size_t n = 0;
		FILE *f = open_memstream(&text, &n);
		if (!f || gather(s) < 0)
			return f ? TD_EXIT_USAGE : TD_EXIT_RUNTIME;
		show_tables(s, f);
		fclose(f);
		if (isatty(STDOUT_FILENO))
			fputs("\033[H\033[J", stdout);
		fwrite(text, 1, n, stdout);
		free(text);
		if (!s->n)
			puts("nothing is running");
		if (fflush(stdout) != 0)
			return TD_EXIT_RUNTIME;
		pause_ms(1000);
	}
}

/* A tunnel that comes up or opens on demand; starting is neither. */
static bool all_up(const struct status *s)
{
	for (int i = 0; i < s->n; i++)
		tnl_json_each(t, tunnels_of(s->doc[i])) {
			const char *state = tnl_json_get_str(t, "state");
			if (s->tunnel && !td_status_is_called(t, s->tunnel))
				continue;
			if (!state || (strcmp(state, "up") != 0 && strcmp(state, "idle") != 0))
				return false;
		}
	return s->n && is_well(s, NULL);
}

static int wait_up(struct status *s, const char *spec)
{
	unsigned limit = 60;
	char more;
	if (strcmp(spec, "up") != 0 && sscanf(spec, "up=%6u%c", &limit, &more) != 1)
		return -1;
	for (uint64_t end = now_ms() + limit * UINT64_C(1000);;) {
		if (gather(s) < 0)
			return TD_EXIT_USAGE;
		if (all_up(s))
			return TD_EXIT_OK;
		if (now_ms() >= end)
			break;
		pause_ms(WAIT_STEP_MS);
	}
	fprintf(stderr, "tunneld: not up within %u seconds\n", limit);
	is_well(s, stderr);
	return s->n ? TD_EXIT_RUNTIME : verdict(s);
}

static int run_status(const struct td_command *cmd, int argc, char **argv)
{
	struct status s = {0};
	bool json = false, watching = false;
	const char *wait = NULL;
	const struct td_arg args[] = {{'c', "config", .value = &s.q.file},
				      {'j', "json", .flag = &json},
				      {'w', "watch", .flag = &watching},
				      {0, "wait", .value = &wait}};
	int n = td_args(cmd, argc, argv, args, TNL_COUNT(args), 1);
	if (n < 0)
		return -1 - n;
	if (n && td_daemons_is_role(argv[1]))
		s.q.role = argv[1];
	else if (n)
		s.tunnel = argv[1];
	if (json + watching + (wait != NULL) > 1)
		return td_args_usage(cmd, "--json, --watch and --wait exclude each other");
	s.view =
	    (struct td_status_view){.colour = isatty(STDOUT_FILENO) && !(getenv("NO_COLOR") && *getenv("NO_COLOR")),
				    .bars = watching,
				    .rates = &s.rates};
	int code = wait ? wait_up(&s, wait) : watching ? watch(&s) : show_once(&s, json);
	if (code < 0)
		code = td_args_usage(cmd, "--wait takes up or up=SECONDS");
	drop_docs(&s);
	td_status_rates_fini(&s.rates);
	return code;
}

const struct td_command td_command_status = {
    "status", "what the running daemons of this user are doing",
    "usage: tunneld status [-c FILE] [--json | --watch | --wait up[=SECONDS]] [ROLE | TUNNEL | group:NAME]\n"
    "\n"
    "What is wrong, then a table for each daemon: tunnels with their state, connections,\n"
    "rate and round trip; an agent; a gateway with its instances and sessions.  ROLE is\n"
    "forwarder, agent, gateway or local; TUNNEL shows one in detail.\n"
    "\n"
    "  -c, --config FILE   only what runs with this configuration\n"
    "  -j, --json          a JSON list, one object per process (status.schema.json)\n"
    "  -w, --watch         again each second, in place, until it is interrupted\n"
    "      --wait up[=N]   ends as soon as all, or TUNNEL, is up or opens on demand; at\n"
    "                      most N seconds (60)\n"
    "  -h, --help          this text\n"
    "  -V, --version       the version\n"
    "\n"
    "Exit codes: 0 all is well, 1 something is not (a tunnel that is resuming, has failed,\n"
    "also when it tries again, or needs a login, an agent without its gateway, a node without\n"
    "its store or a link to another), 2 usage or configuration, 7 nothing runs, or nothing\n"
    "with that TUNNEL.\n",
    run_status};
