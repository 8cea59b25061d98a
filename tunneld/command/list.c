/* tunneld list [FILTER]: the instances that a target could name, as a table or as JSON. */
#include "lib/alloc.h"
#include "lib/buf.h"
#include "lib/enc.h"
#include "lib/json.h"
#include "lib/num.h"
#include "tunneld/aws/instances.h"
#include "tunneld/command/foreground.h"
#include "tunneld/command/known.h"
#include "tunneld/command/term.h"

#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

enum { COLUMNS = 6, CELL = 1100, JSON_MAX = 64 << 20 };

struct list {
	struct td_foreground fg;
	const char *rest;	 /* targets that are still to be searched; NULL: none */
	const char *word;	 /* what a name, an id or a tag is to hold; NULL: anything */
	struct td_instances all; /* so far */
	struct td_instances_search *search;
	bool json, everything;
};

static void next_search(struct list *k);

/* --- what is shown ---------------------------------------------------------------------------------- */

static bool holds(const char *text, const char *pattern)
{
	return *text && fnmatch(pattern, text, FNM_CASEFOLD) == 0;
}

static bool is_wanted(const struct list *k, const struct td_instance *i)
{
	char pattern[300];
	if (!k->word)
		return true;
	bool glob = strpbrk(k->word, "*?[") != NULL;
	snprintf(pattern, sizeof(pattern), glob ? "%s" : "*%s*", k->word);
	return holds(i->id, pattern) || holds(i->name, pattern) || holds(i->computer, pattern);
}

/* The tags lie one a line. */
static void put_tags(struct tnl_jw *w, const char *tags)
{
	tnl_jw_key(w, "tags");
	tnl_jw_obj(w);
	for (const char *p = tags; *p; p += strspn(p, "\n")) {
		char key[TNL_TARGET_KEY + 1];
		size_t n = strcspn(p, "\n"), eq = strcspn(p, "=\n");
		snprintf(key, sizeof(key), "%.*s", (int)eq, p);
		tnl_jw_key(w, key);
		tnl_jw_strn(w, p + TNL_MIN(eq + 1, n), n - TNL_MIN(eq + 1, n));
		p += n;
	}
	tnl_jw_end_obj(w);
}

static bool print_json(const struct list *k)
{
	struct tnl_buf b;
	struct tnl_jw w;
	tnl_buf_init(&b, JSON_MAX);
	tnl_jw_init(&w, &b);
	tnl_jw_arr(&w);
	for (size_t i = 0; i < k->all.n; i++) {
		const struct td_instance *x = &k->all.v[i];
		if (!is_wanted(k, x))
			continue;
		tnl_jw_obj(&w);
		tnl_jw_kv(&w, "id", x->id);
		tnl_jw_kv(&w, "name", x->name);
		tnl_jw_kv(&w, "computer_name", x->computer);
		put_tags(&w, x->tags);
		tnl_jw_kv(&w, "platform", x->platform);
		tnl_jw_kv(&w, "agent_version", x->version);
		tnl_jw_kv(&w, "status", x->status);
		tnl_jw_end_obj(&w);
	}
	tnl_jw_end_arr(&w);
	const char *text = tnl_buf_str(&b);
	if (text)
		puts(text);
	tnl_buf_fini(&b);
	return text != NULL;
}

/* As it may stand on a terminal, in one line. */
static char *cell(const char *text, char out[CELL])
{
	struct tnl_buf b;
	size_t n = 0;
	char flat[CELL];
	for (; *text && n < sizeof(flat) - 2; text++) {
		if (*text == '\n')
			flat[n++] = ',';
		flat[n++] = *text == '\n' ? ' ' : *text;
	}
	tnl_buf_init(&b, CELL);
	tnl_escape(&b, flat, n, false);
	const char *s = tnl_buf_str(&b);
	snprintf(out, CELL, "%s", s && *s ? s : "-");
	tnl_buf_fini(&b);
	return out;
}

/* Characters, not bytes. */
static size_t width_of(const char *s)
{
	size_t n = 0;
	for (; *s; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

static void fill_row(const struct td_instance *x, const char *row[COLUMNS])
{
	row[0] = x->id;
	row[1] = x->name;
	row[2] = x->status;
	row[3] = x->version;
	row[4] = x->platform;
	row[5] = x->tags;
}

static void print_row(const char *const row[COLUMNS], const size_t *width)
{
	char text[CELL];
	for (int c = 0; c < COLUMNS; c++) {
		cell(row[c], text);
		size_t pad = c + 1 < COLUMNS ? width[c] - width_of(text) + 2 : 0;
		printf("%s%*s", text, (int)pad, "");
	}
	putchar('\n');
}

static void print_table(const struct list *k)
{
	static const char *const heads[COLUMNS] = {"ID", "NAME", "STATUS", "AGENT", "PLATFORM", "TAGS"};
	size_t width[COLUMNS], shown = 0;
	const char *row[COLUMNS];
	char text[CELL];
	for (int c = 0; c < COLUMNS; c++)
		width[c] = strlen(heads[c]);
	for (size_t i = 0; i < k->all.n; i++) {
		if (!is_wanted(k, &k->all.v[i]))
			continue;
		shown++;
		fill_row(&k->all.v[i], row);
		for (int c = 0; c < COLUMNS; c++)
			width[c] = TNL_MAX(width[c], width_of(cell(row[c], text)));
	}
	if (!shown) {
		fprintf(stderr, "no instance is there%s\n",
			k->everything ? "" : " that matches; without a filter all are listed");
		return;
	}
	print_row(heads, width);
	for (size_t i = 0; i < k->all.n; i++)
		if (is_wanted(k, &k->all.v[i])) {
			fill_row(&k->all.v[i], row);
			print_row(row, width);
		}
}

/* --- the searches ----------------------------------------------------------------------------------- */

static void finish(struct list *k)
{
	if (k->everything)
		td_known_save(&k->all);
	if (k->all.more)
		td_foreground_say(&k->fg, "there are more instances than the %zu that were looked at", k->all.n);
	bool ok = !k->json || print_json(k);
	if (!ok)
		td_foreground_say(&k->fg, "the list is longer than it may be: name what you look for");
	if (!k->json)
		print_table(k);
	td_foreground_stop(&k->fg, ok ? TD_EXIT_OK : TD_EXIT_RUNTIME);
}

static bool take_all(struct list *k, struct td_instances *more)
{
	struct td_instance *v = tnl_realloc(k->all.v, (k->all.n + more->n + 1) * sizeof(*v));
	if (!v)
		return false;
	if (more->n)
		memcpy(v + k->all.n, more->v, more->n * sizeof(*v));
	k->all.v = v;
	k->all.n += more->n;
	k->all.more |= more->more;
	tnl_free(more->v);
	*more = (struct td_instances){0};
	return true;
}

static void on_found(void *ctx, const char *call, const struct td_aws_reply *r, struct td_instances *list)
{
	struct list *k = ctx;
	k->search = NULL;
	if (r->err || !take_all(k, list)) {
		td_foreground_say(&k->fg, "%s: %s%s%s", call, r->type[0] ? r->type : tnl_err_text(r->err),
				  r->text ? ": " : "", r->text ? r->text : "");
		td_foreground_stop(&k->fg, td_foreground_code(r->err, r->type));
		return;
	}
	next_search(k);
}

static void search(struct list *k, const struct tnl_target *t)
{
	k->search = td_instances_search(k->fg.aws, t, false, on_found, k);
	if (!k->search)
		td_foreground_stop(&k->fg, TD_EXIT_RUNTIME);
}

static void next_search(struct list *k)
{
	struct tnl_target t;
	size_t n;
	const char *at = tnl_target_next(&k->rest, &n);
	if (at && tnl_target_parse(at, n, &t, NULL) == 0)
		search(k, &t);
	else
		finish(k);
}

static void cleanup(void *arg)
{
	struct list *k = arg;
	td_instances_cancel(k->search);
	td_instances_fini(&k->all);
}

/* --- the command ------------------------------------------------------------------------------------ */

static bool is_section(const struct td_forwarder_config *c, const char *name)
{
	for (int i = 0; i < c->ntunnels; i++)
		if (strcmp(c->tunnels[i].name, name) == 0)
			return true;
	for (int i = 0; i < c->naliases; i++)
		if (strcmp(c->aliases[i].name, name) == 0)
			return true;
	return false;
}

/* What filter asks for; 0, or an exit code after a line on stderr. */
static int choose(struct list *k, const char *filter)
{
	static const char *const begins[] = {"tag:", "name:", "ecs:"};
	bool finds = filter && is_section(&k->fg.cfg->fwd, filter);
	char why[400];
	for (size_t i = 0; filter && i < TNL_COUNT(begins); i++)
		finds |= strncmp(filter, begins[i], strlen(begins[i])) == 0;
	if (finds) {
		int r = td_foreground_target(&k->fg, filter);
		k->rest = r ? NULL : k->fg.t->target;
		return r;
	}
	k->word = filter;
	k->everything = !filter;
	k->fg.aws = td_aws_new(k->fg.loop, &k->fg.cfg->aws, why, sizeof(why));
	if (k->fg.aws)
		return 0;
	td_foreground_say(&k->fg, "%s", why);
	return TD_EXIT_USAGE;
}

static int run(const struct td_command *cmd, int argc, char **argv)
{
	static struct list k;
	const char *file = NULL;
	bool verbose = false;
	const struct td_arg args[] = {
	    {'c', "config", .value = &file},
	    {'v', "verbose", .flag = &verbose},
	    {'j', "json", .flag = &k.json},
	};
	int n = td_args(cmd, argc, argv, args, TNL_COUNT(args), 1);
	if (n < 0)
		return -1 - n;
	int r = td_foreground_open(&k.fg, "list", file, verbose);
	if (r == 0)
		r = choose(&k, n ? argv[1] : NULL);
	if (r != 0)
		return r;
	k.fg.cleanup = cleanup;
	k.fg.cleanup_arg = &k;
	if (k.rest)
		next_search(&k);
	else
		search(&k, NULL);
	return td_foreground_run(&k.fg);
}

const struct td_command td_command_list = {
    "list",
    "the instances that targets can name",
    "usage: tunneld list [-c FILE] [-v] [--json] [FILTER]\n"
    "\n"
    "FILTER is how a target finds instances (tag:KEY=VALUE, name:HOST,\n"
    "ecs:CLUSTER/SERVICE), a [tunnel] or [alias] of the configuration, whose target is\n"
    "then looked up, or a part of an id or a name (* and ? match).\n"
    "\n"
    "  -j, --json         a JSON list\n"
    "  -c, --config FILE  configuration (default: $TUNNELD_CONFIG, ~/.config/tunneld/tunneld.ini,\n"
    "                     /etc/tunneld/tunneld.ini; none is fine)\n"
    "  -v, --verbose      say on stderr what happens\n"
    "\n" TD_EXIT_HELP,
    run,
};
