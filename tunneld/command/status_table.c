/* Status documents as tables: what is wrong first, then a line for each tunnel, agent, instance and session.  Texts may
 * come from peers: they are escaped, and cut to their column. */
#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/num.h"
#include "tunneld/command/status.h"

#include <string.h>

enum { COLUMNS_MAX = 9, CELL_MAX = 96, SESSIONS_SHOWN = 20 };

/* --- rates ------------------------------------------------------------------------------------ */

void td_status_rates_fini(struct td_status_rates *r)
{
	tnl_free(r->v);
	*r = (struct td_status_rates){0};
}

static struct td_status_rate *find_rate(const struct td_status_rates *r, const char *key)
{
	for (size_t i = 0; i < r->n; i++)
		if (strcmp(r->v[i].key, key) == 0)
			return &r->v[i];
	return NULL;
}

static int64_t number_of(const struct tnl_json *o, const char *key)
{
	int64_t n = 0;
	(void)tnl_json_int(tnl_json_get(o, key), &n);
	return n;
}

static const char *text_of(const struct tnl_json *o, const char *key)
{
	const char *s = tnl_json_get_str(o, key);
	return s ? s : "";
}

static void rate_key(const struct tnl_json *doc, const struct tnl_json *tunnel, char *out, size_t cap)
{
	snprintf(out, cap, "%lld%s %s", (long long)number_of(doc, "pid"),
		 tnl_json_get(tunnel, "one_shot") ? " one-shot" : "", text_of(tunnel, "name"));
}

static void take_rate(struct td_status_rates *r, const char *key, int64_t in, int64_t out, uint64_t now_ms)
{
	struct td_status_rate *t = find_rate(r, key);
	if (!t) {
		struct td_status_rate *v = tnl_realloc(r->v, (r->n + 1) * sizeof(*v));
		if (!v)
			return;
		r->v = v;
		t = &v[r->n++];
		*t = (struct td_status_rate){.in = in, .out = out, .at_ms = now_ms, .in_rate = -1, .out_rate = -1};
		snprintf(t->key, sizeof(t->key), "%s", key);
		return;
	}
	if (now_ms <= t->at_ms)
		return;
	t->in_rate = (double)TNL_MAX(in - t->in, 0) * 1000 / (double)(now_ms - t->at_ms);
	t->out_rate = (double)TNL_MAX(out - t->out, 0) * 1000 / (double)(now_ms - t->at_ms);
	t->most = TNL_MAX(t->most, t->in_rate + t->out_rate);
	t->in = in;
	t->out = out;
	t->at_ms = now_ms;
}

static const struct tnl_json *tunnels_of(const struct tnl_json *doc)
{
	return tnl_json_get(tnl_json_get(doc, "forwarder"), "tunnels");
}

void td_status_rates_take(struct td_status_rates *r, const struct tnl_json *doc, uint64_t now_ms)
{
	char key[160];
	tnl_json_each(t, tunnels_of(doc)) {
		rate_key(doc, t, key, sizeof(key));
		take_rate(r, key, number_of(t, "bytes_in"), number_of(t, "bytes_out"), now_ms);
	}
}

/* --- cells -------------------------------------------------------------------------------------- */

struct table {
	int columns, rows;
	struct row {
		char cell[COLUMNS_MAX][CELL_MAX];
		const char *colour; /* of the state; NULL: none */
	} * row;
	const char *const *heads;
	int coloured; /* which column */
};

static size_t width_of(const char *s)
{
	size_t n = 0;
	for (; *s; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80; /* a character of UTF-8, at its first byte */
	return n;
}

static struct row *add_row(struct table *t)
{
	struct row *r = tnl_realloc(t->row, (size_t)(t->rows + 1) * sizeof(*r));
	if (!r)
		return NULL;
	t->row = r;
	memset(&r[t->rows], 0, sizeof(*r));
	return &r[t->rows++];
}

static void set_cell(struct row *r, int column, const char *text)
{
	struct tnl_buf b;
	tnl_buf_init(&b, 64 * 1024);
	tnl_escape(&b, text, strlen(text), false);
	const char *s = tnl_buf_str(&b);
	if (s && strlen(s) >= CELL_MAX) {
		size_t n = CELL_MAX - 4;
		while (n && ((unsigned char)s[n] & 0xc0) == 0x80)
			n--;
		snprintf(r->cell[column], CELL_MAX, "%.*s…", (int)n, s);
	} else {
		snprintf(r->cell[column], CELL_MAX, "%s", s && *s ? s : "-");
	}
	tnl_buf_fini(&b);
}

static void set_number(struct row *r, int column, int64_t n)
{
	char text[32];
	snprintf(text, sizeof(text), "%lld", (long long)n);
	set_cell(r, column, text);
}

static void write_span(char *out, size_t cap, int64_t seconds)
{
	long long s = seconds;
	if (s < 60)
		snprintf(out, cap, "%llds", s);
	else if (s < 3600)
		snprintf(out, cap, "%lldm", s / 60);
	else if (s < 86400)
		snprintf(out, cap, "%lldh%02lldm", s / 3600, s / 60 % 60);
	else
		snprintf(out, cap, "%lldd%02lldh", s / 86400, s / 3600 % 24);
}

static void set_span(struct row *r, int column, int64_t seconds)
{
	char text[32];
	write_span(text, sizeof(text), seconds);
	set_cell(r, column, text);
}

static void write_rate(char *out, size_t cap, double rate)
{
	static const char *const units[] = {"B/s", "kB/s", "MB/s", "GB/s"};
	size_t u = 0;
	while (rate >= 1000 && u + 1 < TNL_COUNT(units)) {
		rate /= 1000;
		u++;
	}
	snprintf(out, cap, rate < 10 && u ? "%.1f %s" : "%.0f %s", rate, units[u]);
}

/* Eight steps, of the most that this tunnel was seen to carry. */
static void set_rate(struct row *r, int column, const struct td_status_rate *rate, const struct td_status_view *v)
{
	static const char *const bars[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
	char in[24], out[24], text[80];
	if (!rate || rate->in_rate < 0) {
		set_cell(r, column, "");
		return;
	}
	double now = rate->in_rate + rate->out_rate;
	int step = rate->most > 0 ? (int)(now / rate->most * 7.99) : 0;
	write_rate(in, sizeof(in), rate->in_rate);
	write_rate(out, sizeof(out), rate->out_rate);
	snprintf(text, sizeof(text), "%s%s%s up, %s down", v->bars ? bars[TNL_MIN(step, 7)] : "", v->bars ? " " : "",
		 in, out);
	set_cell(r, column, now > 0 || v->bars ? text : "0");
}

static void print_row(const struct table *t, const char *const *cells, const size_t *width, const char *colour, FILE *f)
{
	for (int c = 0; c < t->columns; c++) {
		bool last = c == t->columns - 1, tinted = colour && c == t->coloured;
		fprintf(f, "%s%s%s", tinted ? colour : "", cells[c], tinted ? "\033[0m" : "");
		if (!last)
			fprintf(f, "%*s", (int)(width[c] - width_of(cells[c]) + 2), "");
	}
	fputc('\n', f);
}

static void print_table(struct table *t, const struct td_status_view *v, FILE *f)
{
	size_t width[COLUMNS_MAX];
	const char *cells[COLUMNS_MAX];
	for (int c = 0; c < t->columns; c++) {
		width[c] = width_of(t->heads[c]);
		for (int i = 0; i < t->rows; i++)
			width[c] = TNL_MAX(width[c], width_of(t->row[i].cell[c]));
	}
	print_row(t, t->heads, width, NULL, f);
	for (int i = 0; i < t->rows; i++) {
		for (int c = 0; c < t->columns; c++)
			cells[c] = t->row[i].cell[c];
		print_row(t, cells, width, v->colour ? t->row[i].colour : NULL, f);
	}
	tnl_free(t->row);
	t->row = NULL;
}

/* --- is it well? ---------------------------------------------------------------------------------- */

static bool probe_failed(const struct tnl_json *tunnel)
{
	const char *result = text_of(tnl_json_get(tunnel, "probe"), "result");
	return *result && strcmp(result, "ok") != 0 && strcmp(result, "none") != 0;
}

static bool is_one_of(const char *state, const char *const *states)
{
	for (; *states; states++)
		if (strcmp(state, *states) == 0)
			return true;
	return false;
}

/* On its way up is well, unless that has failed before and is tried again. */
static bool state_is_well(const struct tnl_json *tunnel)
{
	static const char *const well[] = {"up", "idle", "closed", "closing", NULL};
	static const char *const soon[] = {"starting", "connecting", "handshake", NULL};
	const char *state = text_of(tunnel, "state");
	return is_one_of(state, well) || (is_one_of(state, soon) && !*text_of(tunnel, "last_error"));
}

bool td_status_tunnel_is_well(const struct tnl_json *tunnel)
{
	return state_is_well(tunnel) && !probe_failed(tunnel);
}

static const char *colour_of(const struct tnl_json *tunnel)
{
	const char *state = text_of(tunnel, "state");
	if (!td_status_tunnel_is_well(tunnel))
		return strcmp(state, "resuming") == 0 ? "\033[33m" : "\033[31m";
	return strcmp(state, "up") == 0 ? "\033[32m" : NULL;
}

static void print_trouble(FILE *f, const struct td_status_view *v, const char *kind, const char *name, const char *what,
			  const char *why)
{
	struct row r = {0};
	if (!f)
		return;
	set_cell(&r, 0, name);
	fprintf(f, "%s! %s %s: %s%s", v->colour ? "\033[31m" : "", kind, r.cell[0], what, *why ? ": " : "");
	struct tnl_buf b;
	tnl_buf_init(&b, 64 * 1024);
	tnl_escape(&b, why, strlen(why), false);
	fprintf(f, "%s%s\n", tnl_buf_str(&b) ? tnl_buf_str(&b) : "", v->colour ? "\033[0m" : "");
	tnl_buf_fini(&b);
}

static bool check_store(const struct tnl_json *gateway, const struct td_status_view *v, FILE *f)
{
	const struct tnl_json *store = tnl_json_get(gateway, "store");
	if (!store || tnl_json_bool(tnl_json_get(store, "up"), true))
		return true;
	print_trouble(f, v, "store", text_of(store, "server"), "away, no session can start", "");
	return false;
}

static bool check_peers(const struct tnl_json *gateway, const struct td_status_view *v, FILE *f)
{
	bool well = true;
	tnl_json_each(p, tnl_json_get(gateway, "peers")) {
		if (strcmp(text_of(p, "state"), "up") == 0)
			continue;
		print_trouble(f, v, "node", text_of(p, "node"), "no link to it, its log and this one's say why", "");
		well = false;
	}
	return well;
}

bool td_status_check(const struct tnl_json *doc, const struct td_status_view *v, FILE *f)
{
	const struct tnl_json *agent = tnl_json_get(doc, "agent");
	bool well = true;
	tnl_json_each(t, tunnels_of(doc)) {
		if (td_status_tunnel_is_well(t))
			continue;
		print_trouble(f, v, "tunnel", text_of(t, "name"),
			      state_is_well(t) ? "the probe failed" : text_of(t, "state"), text_of(t, "last_error"));
		well = false;
	}
	if (agent && !tnl_json_bool(tnl_json_get(agent, "connected"), false)) {
		print_trouble(f, v, "agent", text_of(agent, "instance_id"), "not connected to its gateway",
			      text_of(agent, "last_error"));
		well = false;
	}
	well = check_store(tnl_json_get(doc, "gateway"), v, f) && well;
	return check_peers(tnl_json_get(doc, "gateway"), v, f) && well;
}

bool td_status_is_called(const struct tnl_json *tunnel, const char *name)
{
	if (strncmp(name, "group:", 6) != 0)
		return strcmp(text_of(tunnel, "name"), name) == 0 ||
		       (*name && strcmp(text_of(tunnel, "range"), name) == 0);
	tnl_json_each(g, tnl_json_get(tunnel, "groups"))
		if (strcmp(tnl_json_str(g) ? tnl_json_str(g) : "", name + 6) == 0)
			return true;
	return false;
}

const struct tnl_json *td_status_tunnel(const struct tnl_json *doc, const char *name)
{
	tnl_json_each(t, tunnels_of(doc))
		if (td_status_is_called(t, name))
			return t;
	return NULL;
}

/* --- the tables ------------------------------------------------------------------------------------- */

static const struct tnl_json *session_up(const struct tnl_json *tunnel)
{
	tnl_json_each(s, tnl_json_get(tunnel, "sessions"))
		if (strcmp(text_of(s, "state"), "up") == 0)
			return s;
	return NULL;
}

static void set_round_trip(struct row *r, int column, const struct tnl_json *tunnel)
{
	const struct tnl_json *s = session_up(tunnel);
	double ms = (double)number_of(s, "srtt_us") / 1000;
	char text[32] = "";
	if (s && ms > 0)
		snprintf(text, sizeof(text), ms < 10 ? "%.1f ms" : "%.0f ms", ms);
	set_cell(r, column, text);
}

static void set_listens(struct row *r, int column, const struct tnl_json *tunnel)
{
	char text[400] = "";
	size_t n = 0;
	tnl_json_each(a, tnl_json_get(tunnel, "listen"))
		if (n < sizeof(text) && tnl_json_str(a))
			n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s", n ? ", " : "", tnl_json_str(a));
	if (text_of(tunnel, "bound")[0])
		snprintf(text, sizeof(text), "agent: %s", text_of(tunnel, "bound"));
	else if (!n && tnl_json_get(tunnel, "one_shot"))
		snprintf(text, sizeof(text), "for commands");
	set_cell(r, column, text);
}

static void tunnel_table(const struct tnl_json *doc, const struct td_status_view *v, FILE *f)
{
	static const char *const heads[] = {"TUNNEL", "LISTENS", "TARGET", "STATE",	   "CONN",
					    "RATE",   "RTT",	 "SINCE",  "WHAT IS WRONG"};
	struct table t = {.columns = TNL_COUNT(heads), .heads = heads, .coloured = 3};
	char key[160];
	tnl_json_each(x, tunnels_of(doc)) {
		struct row *r = add_row(&t);
		if (!r)
			break;
		rate_key(doc, x, key, sizeof(key));
		r->colour = colour_of(x);
		set_cell(r, 0, text_of(x, "name"));
		set_listens(r, 1, x);
		set_cell(r, 2, text_of(x, "target"));
		set_cell(r, 3, text_of(x, "state"));
		set_number(r, 4, number_of(x, "connections"));
		set_rate(r, 5, v->rates ? find_rate(v->rates, key) : NULL, v);
		set_round_trip(r, 6, x);
		set_span(r, 7, number_of(x, "since_s"));
		set_cell(r, 8, td_status_tunnel_is_well(x) ? "" : text_of(x, "last_error"));
	}
	print_table(&t, v, f);
}

static void agent_table(const struct tnl_json *agent, const struct td_status_view *v, FILE *f)
{
	static const char *const heads[] = {"AGENT", "CONNECTED", "SESSIONS", "CONN", "DIALED", "NOT DIALED"};
	struct table t = {.columns = TNL_COUNT(heads), .heads = heads, .coloured = 1};
	const struct tnl_json *counters = tnl_json_get(agent, "counters");
	bool connected = tnl_json_bool(tnl_json_get(agent, "connected"), false);
	struct row *r = add_row(&t);
	if (!r)
		return;
	r->colour = connected ? "\033[32m" : "\033[31m";
	set_cell(r, 0, text_of(agent, "instance_id"));
	set_cell(r, 1, connected ? "yes" : "no");
	int64_t open = 0;
	tnl_json_each(s, tnl_json_get(agent, "sessions"))
		open += number_of(s, "streams");
	set_number(r, 2, tnl_json_len(tnl_json_get(agent, "sessions")));
	set_number(r, 3, open);
	set_number(r, 4, number_of(counters, "connections"));
	set_number(r, 5, number_of(counters, "dial_failures") + number_of(counters, "denied"));
	print_table(&t, v, f);
}

static void instance_table(const struct tnl_json *gateway, const struct td_status_view *v, FILE *f)
{
	static const char *const heads[] = {"INSTANCE", "CONNECTED", "AGENT VERSION", "PEER"};
	struct table t = {.columns = TNL_COUNT(heads), .heads = heads, .coloured = 1};
	tnl_json_each(i, tnl_json_get(gateway, "instances")) {
		struct row *r = add_row(&t);
		if (!r)
			break;
		bool on = tnl_json_bool(tnl_json_get(i, "connected"), false);
		r->colour = on ? "\033[32m" : "\033[33m";
		set_cell(r, 0, text_of(i, "id"));
		set_cell(r, 1, on ? "yes" : "no");
		set_cell(r, 2, text_of(i, "agent_version"));
		set_cell(r, 3, text_of(i, "peer"));
	}
	print_table(&t, v, f);
}

/* Of the link to another node: "up" or "down"; "" where there is none. */
static const char *peer_state(const struct tnl_json *gateway, const char *node)
{
	tnl_json_each(p, tnl_json_get(gateway, "peers"))
		if (strcmp(text_of(p, "node"), node) == 0)
			return text_of(p, "state");
	return "";
}

/* Where the records are, when others share them, and who these are. */
static void node_table(const struct tnl_json *gateway, const struct td_status_view *v, FILE *f)
{
	static const char *const heads[] = {"NODE", "ADDRESS", "LINK"};
	struct table t = {.columns = TNL_COUNT(heads), .heads = heads, .coloured = 2};
	const struct tnl_json *store = tnl_json_get(gateway, "store");
	struct row r = {.colour = NULL};
	set_cell(&r, 0, text_of(gateway, "node"));
	set_cell(&r, 1, text_of(store, "server"));
	fprintf(f, "\nnode %s, store %s %s, %lld records queued, %lld failed\n", r.cell[0], r.cell[1],
		tnl_json_bool(tnl_json_get(store, "up"), true) ? "up" : "AWAY", (long long)number_of(store, "queued"),
		(long long)number_of(store, "failed"));
	tnl_json_each(n, tnl_json_get(gateway, "nodes")) {
		struct row *to = add_row(&t);
		if (!to)
			break;
		const char *link = peer_state(gateway, text_of(n, "name"));
		to->colour = strcmp(link, "up") == 0 ? "\033[32m" : "\033[31m";
		set_cell(to, 0, text_of(n, "name"));
		set_cell(to, 1, text_of(n, "peer"));
		set_cell(to, 2, link);
	}
	print_table(&t, v, f);
}

static void session_table(const struct tnl_json *gateway, const struct td_status_view *v, FILE *f)
{
	static const char *const heads[] = {"SESSION", "OWNER", "TARGET", "STATE", "AGE"};
	struct table t = {.columns = TNL_COUNT(heads), .heads = heads, .coloured = -1};
	int64_t all = number_of(gateway, "sessions_active");
	tnl_json_each(s, tnl_json_get(gateway, "sessions")) {
		struct row *r = t.rows < SESSIONS_SHOWN ? add_row(&t) : NULL;
		if (!r)
			break;
		set_cell(r, 0, text_of(s, "id"));
		set_cell(r, 1, text_of(s, "owner"));
		set_cell(r, 2, text_of(s, "target"));
		set_cell(r, 3, text_of(s, "state"));
		set_span(r, 4, number_of(s, "age_s"));
	}
	int shown = t.rows;
	if (shown)
		print_table(&t, v, f);
	if (all > shown)
		fprintf(f, "… and %lld more (--json has them)\n", (long long)(all - shown));
}

static void process_line(const struct tnl_json *doc, FILE *f)
{
	const struct tnl_json *memory = tnl_json_get(doc, "memory");
	const char *conf = text_of(doc, "configuration");
	char up[32];
	struct row r = {0};
	write_span(up, sizeof(up), number_of(doc, "uptime_s"));
	set_cell(&r, 0, conf);
	fprintf(f, "%s%s%s%s  process %lld, %s, up %s, memory %lld of %lld MiB\n", text_of(doc, "role"),
		*conf ? " (" : "", *conf ? r.cell[0] : "", *conf ? ")" : "", (long long)number_of(doc, "pid"),
		text_of(doc, "state"), up, (long long)(number_of(memory, "used") >> 20),
		(long long)(number_of(memory, "limit") >> 20));
}

void td_status_tables(const struct tnl_json *doc, const struct td_status_view *v, FILE *f)
{
	const struct tnl_json *gateway = tnl_json_get(doc, "gateway"), *agent = tnl_json_get(doc, "agent");
	process_line(doc, f);
	if (tnl_json_first(tunnels_of(doc)))
		tunnel_table(doc, v, f);
	if (agent)
		agent_table(agent, v, f);
	if (tnl_json_first(tnl_json_get(gateway, "instances")))
		instance_table(gateway, v, f);
	if (tnl_json_get(gateway, "nodes"))
		node_table(gateway, v, f);
	if (gateway)
		session_table(gateway, v, f);
}
