/* Read-only HTTP for machines and people.  The Host header is checked, so that no web page can have a browser read it
 * by a name that it makes point here. */
#include "tunneld/process/http.h"
#include "lib/alloc.h"
#include "lib/num.h"
#include "tunneld/base/log.h"
#include "tunneld/net/http_server.h"
#include "tunneld/process/page.h"
#include "tunneld/process/recent.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { ANSWER_MAX = 15 << 20 /* an HTTP connection keeps 16 MiB at most */ };

/* An answer grows with the sessions that there are, and who may ask may ask at any rate: a long one is made once a
 * second. */
enum { LONG = 64 << 10 };
#define KEPT_FOR (1 * TD_SEC)
enum answer { STATUS, METRICS, OPEN_METRICS, ANSWERS };

struct kept {
	struct tnl_buf text; /* empty: none */
	struct td_timer forget;
};

struct td_http {
	struct kept kept[ANSWERS];
	struct td_http_server *server;
	struct td_http_source source;
	const struct td_strlist *hosts;
	struct td_recent *recent;
};

/* --- who asks, and by what name --------------------------------------------------------------- */

/* HOST without its port and brackets. */
static bool host_name(const struct tnl_http_head *head, char *out, size_t cap)
{
	size_t n = 0;
	const char *h = tnl_http_get(head, "host", &n);
	if (!h || !n)
		return false;
	bool bracketed = *h == '[';
	const char *end = bracketed ? memchr(h, ']', n) : memchr(h, ':', n);
	size_t len = end ? (size_t)(end - h) : n;
	if (bracketed && !end)
		return false;
	h += bracketed;
	len -= bracketed;
	if (len >= cap)
		return false;
	memcpy(out, h, len);
	out[len] = '\0';
	return true;
}

/* An address cannot be made to point elsewhere; a name must be one of ours. */
static bool host_is_ours(const struct td_http *h, const struct tnl_http_head *head)
{
	char host[256];
	struct td_addr a;
	if (!host_name(head, host, sizeof(host)))
		return false;
	if (strcasecmp(host, "localhost") == 0 || td_addr_literal(host, 1, &a))
		return true;
	for (int i = 0; h->hosts && i < h->hosts->n; i++)
		if (strcasecmp(host, h->hosts->v[i]) == 0)
			return true;
	return false;
}

/* --- answers -------------------------------------------------------------------------------- */

static void reply(struct td_request *r, int status, const char *type, const struct tnl_buf *b)
{
	const char *const headers[][2] = {{"Cache-Control", "no-store"},
					  {"X-Content-Type-Options", "nosniff"},
					  {"Referrer-Policy", "no-referrer"},
					  {"Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"}};
	td_request_reply(r, status, type, headers, TNL_COUNT(headers), tnl_buf_data(b), tnl_buf_len(b));
}

static void reply_text(struct td_request *r, int status, const char *text)
{
	struct tnl_buf b;
	tnl_buf_init(&b, 4096);
	tnl_buf_printf(&b, "%s\n", text);
	reply(r, status, "text/plain; charset=utf-8", &b);
	tnl_buf_fini(&b);
}

static void reply_or_fail(struct td_request *r, int status, const char *type, struct tnl_buf *b)
{
	if (b->failed)
		reply_text(r, 503, "the answer is too long, or memory is short");
	else
		reply(r, status, type, b);
	tnl_buf_fini(b);
}

static void forget(void *arg)
{
	struct kept *k = arg;
	td_timer_stop(&k->forget);
	tnl_buf_fini(&k->text);
	tnl_buf_init(&k->text, ANSWER_MAX);
}

static void make_answer(struct td_http *h, enum answer what, struct tnl_buf *b)
{
	struct tnl_metrics m;
	if (what == STATUS) {
		h->source.status(h->source.ctx, b);
		return;
	}
	tnl_metrics_init(&m, b, what == OPEN_METRICS);
	h->source.metrics(h->source.ctx, &m);
	tnl_metrics_end(&m);
}

static void serve_kept(struct td_http *h, struct td_request *r, enum answer what, const char *type)
{
	struct kept *k = &h->kept[what];
	bool fresh = !tnl_buf_len(&k->text);
	if (fresh)
		make_answer(h, what, &k->text);
	bool keep = !k->text.failed && tnl_buf_len(&k->text) >= LONG;
	if (keep && fresh)
		td_timer_in(&k->forget, KEPT_FOR);
	if (k->text.failed)
		reply_text(r, 503, "the answer is too long, or memory is short");
	else
		reply(r, 200, type, &k->text);
	if (!keep)
		forget(k);
}

static void serve_metrics(struct td_http *h, struct td_request *r)
{
	size_t n = 0;
	const char *accept = tnl_http_get(td_request_head(r), "accept", &n);
	bool open_metrics = accept && memmem(accept, n, "application/openmetrics-text", 28) != NULL;
	serve_kept(h, r, open_metrics ? OPEN_METRICS : METRICS,
		   open_metrics ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
				: "text/plain; version=0.0.4; charset=utf-8");
}

static void serve_ready(struct td_http *h, struct td_request *r, const char *tunnel)
{
	struct tnl_buf b;
	tnl_buf_init(&b, 1 << 20);
	int ready = h->source.ready(h->source.ctx, tunnel, &b);
	if (ready > 0)
		tnl_buf_puts(&b, "ready\n");
	else if (ready < 0)
		tnl_buf_puts(&b, "there is no such tunnel\n");
	reply_or_fail(r, ready > 0 ? 200 : ready < 0 ? 404 : 503, "text/plain; charset=utf-8", &b);
}

static void serve_page(struct td_request *r)
{
	const char *const headers[][2] = {{"Cache-Control", "no-store"},
					  {"X-Content-Type-Options", "nosniff"},
					  {"Referrer-Policy", "no-referrer"},
					  {"Content-Security-Policy", td_page_policy()}};
	size_t n;
	const char *page = td_page(&n);
	td_request_reply(r, 200, "text/html; charset=utf-8", headers, TNL_COUNT(headers), page, n);
}

static void serve_json(struct td_http *h, struct td_request *r, const char *path)
{
	struct tnl_buf b;
	tnl_buf_init(&b, ANSWER_MAX);
	if (strcmp(path, "/history.json") == 0)
		td_recent_history(h->recent, &b);
	else
		td_recent_events(h->recent, &b);
	reply_or_fail(r, 200, "application/json", &b);
}

static void serve_path(struct td_http *h, struct td_request *r, const char *path)
{
	if (strcmp(path, "/metrics") == 0)
		serve_metrics(h, r);
	else if (strcmp(path, "/healthz") == 0)
		reply_text(r, 200, "ok");
	else if (strcmp(path, "/readyz") == 0)
		serve_ready(h, r, NULL);
	else if (strncmp(path, "/readyz/", 8) == 0 && path[8])
		serve_ready(h, r, path + 8);
	else if (strcmp(path, "/") == 0)
		serve_page(r);
	else if (strcmp(path, "/status.json") == 0)
		serve_kept(h, r, STATUS, "application/json");
	else if (strcmp(path, "/history.json") == 0 || strcmp(path, "/events.json") == 0)
		serve_json(h, r, path);
	else
		reply_text(r, 404, "not found");
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

/* The path without its query, its %XX undone; false: none that could be meant. */
static bool take_path(const struct tnl_http_head *head, char *out, size_t cap)
{
	size_t k = 0;
	for (size_t i = 0; i < head->target_len && head->target[i] != '?'; i++) {
		char c = head->target[i];
		if (k + 1 >= cap)
			return false;
		if (c == '%') {
			int hi = i + 2 < head->target_len ? hex_digit(head->target[i + 1]) : -1;
			int lo = hi >= 0 ? hex_digit(head->target[i + 2]) : -1;
			if (lo < 0 || (hi | lo) == 0)
				return false;
			c = (char)(hi << 4 | lo);
			i += 2;
		}
		out[k++] = c;
	}
	out[k] = '\0';
	return true;
}

static bool method_is(const struct tnl_http_head *head, const char *word)
{
	return head->method_len == strlen(word) && memcmp(head->method, word, head->method_len) == 0;
}

static void on_request(void *ctx, struct td_request *r)
{
	struct td_http *h = ctx;
	const struct tnl_http_head *head = td_request_head(r);
	char path[512];
	if (!host_is_ours(h, head)) {
		reply_text(r, 403, "this Host is not served (see http_hosts)");
	} else if (!method_is(head, "GET") && !method_is(head, "HEAD")) {
		const char *const allow[][2] = {{"Allow", "GET, HEAD"}};
		td_request_reply(r, 405, NULL, allow, 1, NULL, 0);
	} else if (!take_path(head, path, sizeof(path))) {
		reply_text(r, 404, "not found");
	} else {
		serve_path(h, r, path);
	}
}

static void on_refused(void *ctx, const char *peer, int status, const char *field)
{
	td_warn("http", NULL, "request refused peer=%s status=%d field=\"%s\"", peer, status, field);
}

/* --- the object ------------------------------------------------------------------------------ */

struct td_http *td_http_new(struct td_loop *l, const struct td_config *cfg, const struct td_http_source *s,
			    struct td_recent *recent, char *why, size_t cap)
{
	struct td_http *h = tnl_calloc(1, sizeof(*h));
	struct td_http_server_config c = {.addrs = cfg->http,
					  .naddrs = cfg->nhttp,
					  .body_max = 1024,
					  .per_peer_max = 32,
					  .request = on_request,
					  .refused = on_refused,
					  .ctx = h};
	if (!h) {
		snprintf(why, cap, "out of memory");
		return NULL;
	}
	h->source = *s;
	h->hosts = &cfg->http_hosts;
	for (int i = 0; i < ANSWERS; i++) {
		tnl_buf_init(&h->kept[i].text, ANSWER_MAX);
		td_timer_init(&h->kept[i].forget, l, forget, &h->kept[i]);
	}
	h->server = td_http_server_new(l, &c, why, cap);
	if (!h->server) {
		tnl_free(h);
		return NULL;
	}
	h->recent = recent;
	char text[TD_ADDR_STR];
	struct td_addr a;
	for (int i = 0; td_http_addr(h, i, &a) == 0; i++)
		td_info("http", NULL, "listening address=%s", td_addr_str(&a, text));
	return h;
}

void td_http_set_hosts(struct td_http *h, const struct td_strlist *hosts)
{
	h->hosts = hosts;
}

int td_http_addr(const struct td_http *h, int i, struct td_addr *out)
{
	return td_http_server_addr(h->server, i, out);
}

void td_http_free(struct td_http *h)
{
	if (!h)
		return;
	td_http_server_free(h->server);
	for (int i = 0; i < ANSWERS; i++)
		forget(&h->kept[i]);
	tnl_free(h);
}
