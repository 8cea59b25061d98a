/* One message's way: session and channel of a client, WebSocket, TLS, a relay that looks at it and sends it on as the
 * gateway does, TLS, WebSocket, channel and session of an agent; and its ack's way back.  In memory, virtual time,
 * seeded random bytes: a run is always the same, so its instructions can be counted (instructions.py).
 *   bench_message PAYLOAD COUNT    COUNT messages after the first ones, which are always there */
#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/message.h"
#include "lib/session.h"
#include "lib/tls.h"
#include "lib/ws.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { AT_ONCE = 16, FIRST_BYTES = 2000000, MS = 1000000, HOP = MS / 4 };
#define WALL_S 1800000000ull

/* An end of a link: forwarder, the gateway's two, agent. */
struct end {
	struct tnl_tls *tls;
	struct tnl_ws *ws;
};

static struct end forwarder, near, far, agent;
static struct tnl_session *client, *server;
static uint64_t now = 1000000000u, arrived, seed = 1;

/* The linker leads lib/'s copies through here (bench.mk). */
static uint64_t copied;
void *__real_memcpy(void *to, const void *from, size_t n);
void *__real_memmove(void *to, const void *from, size_t n);
void *__wrap_memcpy(void *to, const void *from, size_t n);
void *__wrap_memmove(void *to, const void *from, size_t n);
void *__wrap___memcpy_chk(void *to, const void *from, size_t n, size_t room);
void *__wrap___memmove_chk(void *to, const void *from, size_t n, size_t room);

void *__wrap_memcpy(void *to, const void *from, size_t n)
{
	copied += n;
	return __real_memcpy(to, from, n);
}

void *__wrap_memmove(void *to, const void *from, size_t n)
{
	copied += n;
	return __real_memmove(to, from, n);
}

void *__wrap___memcpy_chk(void *to, const void *from, size_t n, size_t room)
{
	return __wrap_memcpy(to, from, n);
}

void *__wrap___memmove_chk(void *to, const void *from, size_t n, size_t room)
{
	return __wrap_memmove(to, from, n);
}

static void check(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "bench_message: %s\n", what);
	exit(1);
}

static void random_bytes(void *ctx, uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		p[i] = (uint8_t)(seed >> 56);
	}
}

static uint64_t wall_ms(void *ctx)
{
	return WALL_S * 1000 + now / MS;
}

static uint64_t wall_s(void *ctx)
{
	return WALL_S;
}

static void on_open(void *ctx, struct tnl_stream *st)
{
	tnl_stream_connected(st, now);
}

static size_t on_data(void *ctx, struct tnl_stream *st, uint32_t ptype, const uint8_t *p, size_t n)
{
	arrived += n;
	return n;
}

static void on_closed(void *ctx, int err, const char *text)
{
	check(false, text ? text : "a session ended");
}

/* --- links ------------------------------------------------------------------------------------------- */

static void move_records(struct tnl_tls *from, struct tnl_tls *to)
{
	const uint8_t *p;
	size_t n, cap;

	while (p = tnl_tls_out_peek(from, &n), n) {
		uint8_t *q = tnl_tls_in_reserve(to, &cap);

		if (!cap)
			return;
		n = n < cap ? n : cap;
		__real_memcpy(q, p, n); /* stands for the kernel */
		tnl_tls_in_commit(to, n);
		tnl_tls_out_consume(from, n);
	}
}

static void open_link(struct end *c, struct end *s, struct tnl_tls_ctx *cc, struct tnl_tls_ctx *sc)
{
	struct tnl_ws_config wc = {.server = false}, ws = {.server = true};
	int a = TNL_EAGAIN, b = TNL_EAGAIN;

	c->tls = tnl_tls_new(cc, "127.0.0.1");
	s->tls = tnl_tls_new(sc, NULL);
	check(c->tls && s->tls, "TLS");
	for (int i = 0; i < 10 && (a || b); i++) {
		a = tnl_tls_handshake(c->tls);
		move_records(c->tls, s->tls);
		b = tnl_tls_handshake(s->tls);
		move_records(s->tls, c->tls);
	}
	check(a == 0 && b == 0, "TLS handshake");
	c->ws = tnl_ws_new(&wc, now);
	s->ws = tnl_ws_new(&ws, now);
	check(c->ws && s->ws, "WebSocket");
	tnl_ws_set_clear(s->ws, TNL_MSG_HDR); /* as the gateway */
}

/* What waits in a WebSocket's output, through TLS, into that of the other end. */
static void carry(struct end *from, struct end *to)
{
	const uint8_t *p;
	size_t n, cap;
	uint8_t *q;
	int k;

	while (p = tnl_ws_out_peek(from->ws, &n), n) {
		k = tnl_tls_write(from->tls, p, n);
		check(k > 0, "TLS write");
		tnl_ws_out_consume(from->ws, (size_t)k);
	}
	move_records(from->tls, to->tls);
	while (q = tnl_ws_in_reserve(to->ws, &cap), (k = tnl_tls_read(to->tls, q, cap)) > 0)
		tnl_ws_in_commit(to->ws, (size_t)k, now);
	check(k == TNL_EAGAIN, "TLS read");
}

/* The gateway: looks at what came from one end and sends it to the other. */
static void relay(struct end *in, struct end *out)
{
	struct tnl_ws_event ev;
	struct tnl_msg m;

	while (tnl_ws_next(in->ws, &ev, now, NULL) == 1) {
		check(ev.op == TNL_WS_BINARY && tnl_msg_peek(ev.data, ev.len, &m, NULL) == 0, "relay");
		check(tnl_ws_send_on(out->ws, &ev) == 0, "relay's output");
	}
}

/* At most as many as the rate of the link lets through at a time. -> how many messages went all the way */
static unsigned cross(struct tnl_session *from, struct end *a, struct end *b, struct end *c, struct end *d,
		      struct tnl_session *to)
{
	struct tnl_ws_event ev;
	const uint8_t *p;
	unsigned count = 0;
	size_t n;

	while (count < AT_ONCE && tnl_session_pull(from, now, &p, &n) == 1) {
		check(tnl_ws_send(a->ws, TNL_WS_BINARY, p, n) == 0, "output");
		carry(a, b);
		relay(b, c);
		carry(c, d);
		while (tnl_ws_next(d->ws, &ev, now, NULL) == 1) {
			check(tnl_session_feed(to, ev.data, ev.len, now) == 0, "feed");
			count++;
		}
	}
	return count;
}

static void run_until_quiet(void)
{
	unsigned moved;

	do {
		now += HOP;
		moved = cross(client, &forwarder, &near, &far, &agent, server);
		now += HOP;
		moved += cross(server, &agent, &far, &near, &forwarder, client);
	} while (moved);
}

/* --- sessions ---------------------------------------------------------------------------------------- */

static void open_all(size_t payload)
{
	static struct tnl_session_cb cb[2] = {{.on_data = on_data, .on_closed = on_closed},
					      {.on_open = on_open, .on_data = on_data, .on_closed = on_closed}};
	char *cert, *key, err[200];
	struct tnl_tls_config c = {.unix_time = wall_s}, s = {.server = true, .unix_time = wall_s};
	struct tnl_tls_ctx *cc, *sc;

	check(tnl_x509_make("bench", "127.0.0.1", NULL, NULL, WALL_S - 100, WALL_S + 1000, &cert, &key) == 0, "x509");
	c.ca_pem = s.cert_pem = cert;
	c.ca_pem_len = s.cert_pem_len = strlen(cert);
	s.key_pem = key;
	s.key_pem_len = strlen(key);
	cc = tnl_tls_ctx_new(&c, err, sizeof(err));
	sc = tnl_tls_ctx_new(&s, err, sizeof(err));
	check(cc && sc, "TLS context");
	tnl_free(cert);
	tnl_free(key);
	open_link(&forwarder, &near, cc, sc);
	open_link(&agent, &far, cc, sc);
	for (int i = 0; i < 2; i++) {
		struct tnl_session_config k = {.agent = i == 1,
					       .session_id = "bench",
					       .memory_max = 16u << 20,
					       .stream_window = 1u << 20,
					       .max_payload = payload < 32768 ? 32768 : payload,
					       .offer_capabilities = true,
					       .session_type = "Port",
					       .properties_json = "{\"type\":\"LocalPortForwarding\"}",
					       .wall_ms = wall_ms,
					       .cb = &cb[i]};
		*(i ? &server : &client) = tnl_session_new(&k, now);
	}
	check(client && server, "session");
	tnl_session_link_up(client, now);
	tnl_session_link_up(server, now);
}

/* One message of `payload` bytes, and whatever follows from it until its ack is there. */
static void send_one(struct tnl_stream *st, size_t payload)
{
	uint64_t before = arrived;
	size_t cap;
	uint8_t *p;

	tnl_stream_want_send(st, true);
	check(tnl_session_next(client, now) == st, "not its turn");
	p = tnl_stream_reserve(st, &cap, now);
	check(p != NULL, "no room");
	cap = cap < payload ? cap : payload;
	memset(p, (int)(before & 0xff), cap);
	check(tnl_stream_commit(st, cap, TNL_PT_OUTPUT, now) == 0, "commit");
	tnl_stream_want_send(st, false);
	run_until_quiet();
	for (int i = 0; i < 10 && !(tnl_session_drained(client) && tnl_session_drained(server)); i++) {
		now += MS; /* an ack that waited for company */
		tnl_session_expire(client, now);
		tnl_session_expire(server, now);
		run_until_quiet();
	}
	check(arrived == before + cap && tnl_session_drained(client), "it did not arrive");
}

/* As much as may be on its way, until so many bytes have arrived: the size of messages follows rate and window. */
static void find_rate(struct tnl_stream *st, uint64_t bytes)
{
	uint64_t end = arrived + bytes;
	size_t cap;
	uint8_t *p;

	while (arrived < end) {
		tnl_stream_want_send(st, true);
		while (tnl_session_next(client, now) && (p = tnl_stream_reserve(st, &cap, now)) != NULL) {
			memset(p, 1, cap);
			check(tnl_stream_commit(st, cap, TNL_PT_OUTPUT, now) == 0, "commit");
		}
		tnl_stream_want_send(st, false);
		run_until_quiet();
		tnl_session_expire(client, now);
		tnl_session_expire(server, now);
	}
	now += 2 * MS;
	tnl_session_expire(server, now);
	run_until_quiet();
}

int main(int argc, char **argv)
{
	size_t payload = argc > 1 ? strtoul(argv[1], NULL, 10) : 32768;
	unsigned count = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 100;
	struct tnl_stream *st;
	uint64_t before;

	tnl_random_source(random_bytes, NULL);
	open_all(payload);
	st = tnl_stream_open(client, NULL, now, NULL);
	check(st != NULL, "stream");
	run_until_quiet();
	for (uint64_t sent = 0;
	     sent < FIRST_BYTES || tnl_channel_can_send(tnl_session_channel(client), now) < payload + 8;
	     sent += FIRST_BYTES / 8) {
		check(sent < 20 * FIRST_BYTES, "messages stay shorter than that");
		find_rate(st, FIRST_BYTES / 8);
	}
	before = arrived;
	for (unsigned i = 0; i < count; i++)
		send_one(st, payload);
	check(arrived == before + count * payload, "messages became shorter");
	printf("%u messages of %zu bytes, %llu bytes copied\n", count, payload, (unsigned long long)copied);
	return 0;
}
