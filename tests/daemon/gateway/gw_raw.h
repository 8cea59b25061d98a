/* A peer of bytes: TLS and nothing else, for what our own WebSocket client would not send. */
#ifndef GW_RAW_H
#define GW_RAW_H
#include "tests/daemon/gateway/gw_util.h"
#include "tunneld/net/http_sign.h"

struct raw {
	struct td_conn *c;
	bool ready, closed;
	size_t n;
	uint8_t in[65536];
	uint64_t frame_at[16];
	int frames;
	size_t parsed;
};

static void raw_ready(void *ctx)
{
	((struct raw *)ctx)->ready = true;
}
static void raw_frames(struct raw *r)
{
	for (;;) { /* server frames, after the head: not masked */
		const uint8_t *p = r->in + r->parsed;
		size_t left = r->n - r->parsed, h = 2, len;
		if (left < 2)
			return;
		len = p[1] & 127;
		if (len == 126) {
			h = 4;
			if (left < 4)
				return;
			len = tnl_get_be16(p + 2);
		}
		if (left < h + len)
			return;
		r->parsed += h + len;
		if (r->frames < 16)
			r->frame_at[r->frames] = T.l->now;
		r->frames++;
	}
}
static void raw_readable(void *ctx)
{
	struct raw *r = ctx;
	ssize_t n;
	while (r->n < sizeof(r->in) && (n = td_conn_read(r->c, r->in + r->n, sizeof(r->in) - r->n)) > 0)
		r->n += (size_t)n;
	if (!r->parsed) {
		uint8_t *end = memmem(r->in, r->n, "\r\n\r\n", 4);
		if (!end)
			return;
		r->parsed = (size_t)(end - r->in) + 4;
	}
	raw_frames(r);
}
static void raw_writable(void *ctx) {}
static void raw_closed(void *ctx, int err, const char *why)
{
	struct raw *r = ctx;
	r->closed = true;
	td_conn_free(r->c);
	r->c = NULL;
}
static const struct td_conn_cb raw_cb = {.ready = raw_ready,
					 .readable = raw_readable,
					 .writable = raw_writable,
					 .closed = raw_closed};

static void raw_send(struct raw *r, const void *p, size_t n)
{
	assert_int_equal(td_conn_write(r->c, p, n), n);
}

/* A masked client frame (mask 0, as good as any). */
static void raw_frame(struct raw *r, int op, const void *p, size_t n)
{
	uint8_t h[8] = {(uint8_t)(0x80 | op), (uint8_t)(0x80 | (n < 126 ? n : 126))};
	size_t hn = 2;
	if (n >= 126) {
		tnl_put_be16(h + 2, (uint16_t)n);
		hn = 4;
	}
	memset(h + hn, 0, 4);
	raw_send(r, h, hn + 4);
	raw_send(r, p, n);
}

/* Signed when there are keys. */
static void raw_upgrade(struct raw *r, const struct tnl_sigv4_keys *k, const char *path, const char *agent)
{
	char head[1600], url[300], date[40] = "", *auth = (char *)"";
	const char *fault;
	struct tnl_url u = {0};
	struct td_http_signature sig = {0};
	if (k) {
		snprintf(url, sizeof(url), "wss://127.0.0.1:%d%s", T.port, path);
		assert_int_equal(tnl_url_parse(url, &u, &fault), 0);
		assert_int_equal(td_http_sign(&sig, "GET", &u, NULL, 0, NULL, 0, k, "eu-west-1", "ssmmessages",
					      T.l->wall_ms / 1000),
				 0);
		snprintf(date, sizeof(date), "X-Amz-Date: %s\r\n", sig.date);
		auth = (char *)tnl_buf_str(&sig.authorization);
	}
	const struct td_conn_opts o = {.host = "127.0.0.1", .port = (uint16_t)T.port, .tls = T.tls};
	memset(r, 0, sizeof(*r));
	r->c = td_conn_dial(T.l, &o, &raw_cb, r);
	wait_for(r->ready);
	int n = snprintf(
	    head, sizeof(head),
	    "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: %s\r\nConnection: Upgrade\r\n"
	    "%s%s%s%s"
	    "Sec-WebSocket-Key: QC6h4bVPtNXSWPHeGScLvA==\r\nSec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n\r\n",
	    path, T.port, agent, date, k ? "Authorization: " : "", auth, k ? "\r\n" : "");
	if (k)
		td_http_signature_fini(&sig);
	raw_send(r, head, (size_t)n);
	wait_for(r->parsed);
	assert_memory_equal(r->in, "HTTP/1.1 101", 12);
}

static void raw_free(struct raw *r)
{
	if (r->c)
		td_conn_free(r->c);
	r->c = NULL;
}

#endif
