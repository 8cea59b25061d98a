/* One request on one connection: over TCP or TLS, through a proxy, or on a unix socket.  The connection may be one that
 * the answer before left open; when that proves to be closed the request goes out once more on a new one. */
#include "tunneld/net/http_client.h"

#include "lib/alloc.h"
#include "lib/num.h"
#include "tunneld/net/dial.h"
#include "tunneld/net/http_sign.h"

#include <stdio.h>
#include <string.h>

#define DEFAULT_TIMEOUT (30 * TD_SEC)
#define READ_STEP ((size_t)4096)
#define DEFAULT_BODY (1024u * 1024)
#define INTERIM_MAX 16u /* heads of 100 Continue and kin before an answer */

struct td_http_client {
	struct td_loop *l;
	struct td_conn *conn;
	struct td_dial *dial; /* unix socket */
	struct td_timer timer;
	struct td_soon deliver; /* it failed before it began */
	struct tnl_buf req;	/* whole, of it `sent` bytes are with the connection */
	size_t sent;
	struct tnl_buf raw; /* the answer's head, kept for the slices in `head` */
	struct tnl_buf body;
	struct tnl_http_head head;
	struct tnl_http_wait wait;
	struct tnl_http_body dec;
	unsigned interim;
	bool have_head, head_request;
	bool over;   /* answered or cancelled */
	bool excess; /* the connection has ended, or has said more than the answer */
	struct td_http_kept *kept;
	bool reused;	/* the connection is not its first */
	uint64_t began; /* then: when it was written to */
	char host[256], place[TD_HTTP_PLACE];
	struct td_proxy proxy;
	struct td_conn_opts to; /* for dialing; what it points to is above, or its owner's who waits for the answer */
	int err;
	char why[384], name[300];
	td_http_client_fn *fn;
	void *ctx;
};

static void free_memory(void *arg)
{
	struct td_http_client *h = arg;
	tnl_buf_fini_wiped(&h->req);
	tnl_buf_fini_wiped(&h->raw);
	tnl_buf_fini_wiped(&h->body);
	tnl_free_wiped(h, sizeof(*h)); /* a proxy's password is in it */
}

static void retire_request(struct td_http_client *h)
{
	h->over = true;
	td_timer_stop(&h->timer);
	td_soon_cancel(&h->deliver);
	td_conn_free(h->conn);
	td_dial_cancel(h->dial);
	td_loop_defer(h->l, free_memory, h);
}

void td_http_client_cancel(struct td_http_client *h)
{
	if (h && !h->over)
		retire_request(h);
}

static bool may_be_kept(const struct td_http_client *h)
{
	return h->kept && h->conn && !h->err && !h->excess && h->dec.done && h->sent == tnl_buf_len(&h->req) &&
	       h->head.keep_alive && h->head.status >= 200 && tnl_http_has_token(&h->head, "connection", "keep-alive");
}

static void deliver_response(void *arg)
{
	struct td_http_client *h = arg;
	struct td_http_client_response r = {.err = h->err, .why = h->why};
	if (may_be_kept(h)) {
		td_http_kept_put(h->kept, h->place, h->conn);
		h->conn = NULL;
	}
	retire_request(h);
	if (h->err == 0) {
		r.head = &h->head;
		r.status = h->head.status;
		r.body = tnl_buf_data(&h->body);
		r.body_len = tnl_buf_len(&h->body);
	}
	h->fn(h->ctx, &r);
}

static void fail_request(struct td_http_client *h, int err, const char *why)
{
	h->err = err;
	snprintf(h->why, sizeof(h->why), "%s", why);
	deliver_response(h);
}

static void on_timeout(void *arg)
{
	struct td_http_client *h = arg;
	char why[384];
	snprintf(why, sizeof(why), "%s did not answer in time", h->name);
	fail_request(h, TNL_ETIMEOUT, why);
}

static void send_more(void *ctx)
{
	struct td_http_client *h = ctx;
	h->sent += td_conn_write(h->conn, tnl_buf_data(&h->req) + h->sent, tnl_buf_len(&h->req) - h->sent);
}

static void feed_body(struct td_http_client *h, const uint8_t *p, size_t n)
{
	int r = tnl_http_body_feed(&h->dec, p, n, &h->body);
	if (r < 0) {
		char why[384];
		snprintf(why, sizeof(why), "answer of %s: %s", h->name,
			 r == TNL_ETOOBIG ? "body is too long" : tnl_err_text(r));
		fail_request(h, r, why);
	} else if (h->dec.done) {
		h->excess = (size_t)r < n;
		deliver_response(h);
	}
}

/* A TLS alert, or what servers of TLS tell who speaks HTTP to them. */
static bool answer_is_tls(const struct td_http_client *h)
{
	const uint8_t *p = tnl_buf_data(&h->raw);
	return tnl_buf_len(&h->raw) >= 2 && p[0] == 0x15 && p[1] == 0x03;
}

static const char *tls_hint(const struct td_http_client *h, char *why, size_t cap)
{
	snprintf(why, cap, "%s speaks TLS: say https:// in place of http://", h->name);
	return why;
}

/* Takes a head off h->raw; true when it is the final one. */
static bool take_head(struct td_http_client *h)
{
	for (;;) {
		if (!tnl_http_worth_parsing(&h->wait, tnl_buf_data(&h->raw), tnl_buf_len(&h->raw)))
			return false;
		int n = tnl_http_parse(false, tnl_buf_data(&h->raw), tnl_buf_len(&h->raw), &h->head);
		if (n == TNL_EAGAIN)
			return false;
		h->wait = (struct tnl_http_wait){0};
		if (n < 0) {
			char why[384];
			snprintf(why, sizeof(why), "answer of %s is not proper HTTP: %s", h->name,
				 h->head.fault ? h->head.fault : tnl_err_text(n));
			fail_request(h, n, answer_is_tls(h) ? tls_hint(h, why, sizeof(why)) : why);
			return false;
		}
		if (h->head.status >= 200 || h->head.status == 101) {
			size_t rest = tnl_buf_len(&h->raw) - (size_t)n;
			h->have_head = true;
			tnl_http_body_init(&h->dec, &h->head, h->head_request);
			h->excess = h->dec.done && rest;
			if (h->dec.done)
				deliver_response(h);
			else
				feed_body(h, tnl_buf_data(&h->raw) + n, rest);
			return true;
		}
		tnl_buf_consume(&h->raw, (size_t)n);
		if (++h->interim > INTERIM_MAX) {
			fail_request(h, TNL_EPROTO, "the server begins its answer again and again");
			return false;
		}
	}
}

static void on_readable(void *ctx)
{
	struct td_http_client *h = ctx;
	while (!h->over && !h->have_head) {
		size_t room = TNL_MIN(tnl_buf_room(&h->raw), READ_STEP);
		uint8_t *p = room ? tnl_buf_reserve(&h->raw, room) : NULL;
		if (!p) {
			fail_request(h, TNL_ETOOBIG, "the head of the answer is too long");
			return;
		}
		ssize_t n = td_conn_read(h->conn, p, room);
		if (n <= 0)
			return;
		tnl_buf_commit(&h->raw, (size_t)n);
		take_head(h);
	}
	while (!h->over) {
		uint8_t chunk[16384];
		ssize_t n = td_conn_read(h->conn, chunk, sizeof(chunk));
		if (n <= 0)
			return;
		feed_body(h, chunk, (size_t)n);
		tnl_wipe(chunk, (size_t)n); /* may hold credentials */
	}
}

static bool dial_again(struct td_http_client *h);

static void on_closed(void *ctx, int err, const char *why)
{
	struct td_http_client *h = ctx;
	char text[384];
	h->excess = true;
	bool at_once = h->l->now - h->began < TD_SEC; /* later the server may have been at work on it */
	if (h->reused && at_once && !h->have_head && !tnl_buf_len(&h->raw) && dial_again(h))
		return;
	if (err == TNL_EEOF && h->have_head && tnl_http_body_eof(&h->dec) == 0) {
		deliver_response(h);
		return;
	}
	if (!h->have_head && answer_is_tls(h))
		tls_hint(h, text, sizeof(text));
	else if (err == TNL_EEOF && (h->to.plain || !h->to.tls) && !h->have_head && !tnl_buf_len(&h->raw))
		snprintf(text, sizeof(text),
			 "%s closed the connection without an answer; if it speaks TLS: say https://", h->name);
	else if (err == TNL_EEOF)
		snprintf(text, sizeof(text), "%s closed the connection before the answer was complete", h->name);
	else
		snprintf(text, sizeof(text), "%s", why);
	fail_request(h, err == TNL_EEOF ? TNL_ETRUNC : err, text);
}

static const struct td_conn_cb conn_cb = {
    .ready = send_more,
    .readable = on_readable,
    .writable = send_more,
    .closed = on_closed,
};

/* The server closed a kept connection while the request was on its way to it. */
static bool dial_again(struct td_http_client *h)
{
	td_conn_free(h->conn);
	h->reused = h->excess = false;
	h->sent = 0;
	h->conn = td_conn_dial(h->l, &h->to, &conn_cb, h);
	return h->conn != NULL;
}

static void on_unix_dialed(void *ctx, int fd, const struct td_addr *peer, int err, const char *why)
{
	struct td_http_client *h = ctx;
	h->dial = NULL;
	if (fd >= 0)
		h->conn = td_conn_accepted(h->l, fd, NULL, 0, &conn_cb, h);
	if (!h->conn)
		fail_request(h, err ? err : TNL_ENOMEM, err ? why : "out of memory");
}

static int dial_unix(struct td_http_client *h, const char *path, uint64_t timeout)
{
	struct td_addr a;
	char spec[160];
	const char *fault = "";
	snprintf(spec, sizeof(spec), "unix:%s", path);
	if (strlen(path) > 150 || td_addr_parse(spec, &a, 1, &fault) != 1) {
		snprintf(h->why, sizeof(h->why), "socket %.200s: %s", path, fault);
		return TNL_EINVAL;
	}
	h->dial = td_dial_start(h->l, &a, 1, timeout, on_unix_dialed, h);
	return h->dial ? 0 : TNL_ENOMEM;
}

static int build_request(struct td_http_client *h, const char *method, const struct tnl_url *u,
			 const char *const (*headers)[2], size_t n, const void *body, size_t len)
{
	char host[300];
	struct tnl_buf *b = &h->req;
	tnl_url_authority(u, host, sizeof(host));
	tnl_buf_printf(b, "%s %.*s%s%.*s HTTP/1.1\r\nHost: %s\r\nUser-Agent: tunneld/%s\r\nConnection: %s\r\n", method,
		       (int)u->path_len, u->path, u->query_len ? "?" : "", (int)u->query_len, u->query, host,
		       TUNNELD_VERSION, h->kept ? "keep-alive" : "close");
	if (len || (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0))
		tnl_buf_printf(b, "Content-Length: %zu\r\n", len);
	for (size_t i = 0; i < n; i++) {
		if (strpbrk(headers[i][0], "\r\n:") || strpbrk(headers[i][1], "\r\n")) {
			snprintf(h->why, sizeof(h->why), "%.60s would have a line break in it: look at the keys",
				 headers[i][0]);
			return TNL_EINVAL;
		}
		tnl_buf_printf(b, "%s: %s\r\n", headers[i][0], headers[i][1]);
	}
	tnl_buf_puts(b, "\r\n");
	if (len)
		tnl_buf_put(b, body, len);
	return b->failed ? TNL_ENOMEM : 0;
}

static int connect_to(struct td_http_client *h, const struct tnl_url *u, bool tls, const struct td_http_client_opts *o,
		      uint64_t timeout)
{
	snprintf(h->host, sizeof(h->host), "%s", u->host);
	h->to = (struct td_conn_opts){
	    .host = h->host, .port = u->port, .tls = o->tls, .plain = !tls, .timeout_ns = timeout};
	if (o->proxy) {
		h->proxy = *o->proxy;
		h->to.proxy = &h->proxy;
	}
	td_http_kept_place(h->place, tls, u->host, u->port, o->proxy);
	h->conn = h->kept ? td_http_kept_take(h->kept, h->place) : NULL;
	if (h->conn) {
		h->reused = true;
		h->began = h->l->now;
		td_conn_set_cb(h->conn, &conn_cb, h);
		send_more(h);
		return 0;
	}
	h->conn = td_conn_dial(h->l, &h->to, &conn_cb, h);
	return h->conn ? 0 : TNL_ENOMEM;
}

static int start_request(struct td_http_client *h, const char *method, const char *url, const char *const (*headers)[2],
			 size_t n, const void *body, size_t len, const struct td_http_client_opts *o)
{
	struct tnl_url u;
	const char *fault = "";
	int rc = tnl_url_parse(url, &u, &fault);
	if (rc || strncmp(u.scheme, "http", 4) != 0) {
		snprintf(h->why, sizeof(h->why), "not an http or https URL: %s", rc ? fault : "scheme");
		return TNL_EINVAL;
	}
	uint64_t timeout = o->timeout_ns ? o->timeout_ns : DEFAULT_TIMEOUT;
	tnl_url_authority(&u, h->name, sizeof(h->name));
	h->head_request = strcmp(method, "HEAD") == 0;
	h->kept = o->unix_path ? NULL : o->kept;
	rc = build_request(h, method, &u, headers, n, body, len);
	if (rc)
		return rc;
	td_timer_in(&h->timer, timeout);
	if (o->unix_path)
		return dial_unix(h, o->unix_path, timeout);
	bool tls = strcmp(u.scheme, "https") == 0;
	if (tls && !o->tls) {
		snprintf(h->why, sizeof(h->why), "no TLS settings for %s", h->name);
		return TNL_EINVAL;
	}
	return connect_to(h, &u, tls, o, timeout);
}

struct td_http_client *td_http_client_request(struct td_loop *l, const char *method, const char *url,
					      const char *const (*headers)[2], size_t n, const void *body, size_t len,
					      const struct td_http_client_opts *o, td_http_client_fn *fn, void *ctx)
{
	struct td_http_client *h = tnl_calloc(1, sizeof(*h));
	if (!h)
		return NULL;
	h->l = l;
	h->fn = fn;
	h->ctx = ctx;
	tnl_buf_init(&h->req, len + 64 * 1024);
	tnl_buf_init(&h->raw, TNL_HTTP_HEAD_MAX + 4096);
	tnl_buf_init(&h->body, o->body_max ? o->body_max : DEFAULT_BODY);
	td_timer_init(&h->timer, l, on_timeout, h);
	td_soon_init(&h->deliver, l, deliver_response, h);
	int rc = start_request(h, method, url, headers, n, body, len, o);
	if (rc) {
		h->err = rc;
		if (!h->why[0])
			snprintf(h->why, sizeof(h->why), "%s", tnl_err_text(rc));
		td_soon_do(&h->deliver);
	}
	return h;
}

struct td_http_client *td_http_client_signed(struct td_loop *l, const char *method, const char *url,
					     const char *const (*headers)[2], size_t n, const void *body, size_t len,
					     const struct tnl_sigv4_keys *k, const char *region, const char *service,
					     const struct td_http_client_opts *o, td_http_client_fn *fn, void *ctx)
{
	const char *all[32][2];
	struct tnl_url u;
	struct td_http_signature s;
	const char *fault;
	struct td_http_client *h = NULL;
	size_t m = 0;
	if (n > 28)
		return NULL;
	if (tnl_url_parse(url, &u, &fault) != 0)
		return td_http_client_request(l, method, url, headers, n, body, len, o, fn, ctx); /* which reports it */
	if (td_http_sign(&s, method, &u, headers, n, body, len, k, region, service, l->wall_ms / 1000) == 0) {
		for (; m < n; m++) {
			all[m][0] = headers[m][0];
			all[m][1] = headers[m][1];
		}
		all[m][0] = "X-Amz-Date";
		all[m++][1] = s.date;
		if (k->session_token && k->session_token[0]) {
			all[m][0] = "X-Amz-Security-Token";
			all[m++][1] = k->session_token;
		}
		all[m][0] = "Authorization";
		all[m++][1] = tnl_buf_str(&s.authorization);
		h = td_http_client_request(l, method, url, (const char *const(*)[2])all, m, body, len, o, fn, ctx);
	}
	td_http_signature_fini(&s);
	return h;
}
