/* Two ends of a connection that fill it with numbered bytes and count what comes, and a server for one of them. */
#ifndef CONN_TEST_H
#define CONN_TEST_H
#include "tests/daemon/net/tls_test.h"
#include "tunneld/net/conn.h"
#include "tunneld/net/listen.h"
#include <sys/socket.h>

struct end {
	struct td_conn *c;
	int ready, closed, done, err, reads, writables;
	char why[400];
	uint64_t sent, total, got, want;
	uint32_t sum_out, sum_in;
	int pause_every; /* reads */
	bool echo_end;	 /* shuts down when everything has come */
	size_t max_queued;
	struct td_timer resume;
	bool has_timer;
};

static void fill(uint8_t *p, size_t n, uint64_t at)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)((at + i) * 2654435761u >> 13);
}

static uint32_t sum(uint32_t s, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		s = (s << 1 | s >> 31) ^ p[i];
	return s;
}

static void produce(struct end *e)
{
	uint8_t buf[50000];
	while (e->c && e->sent < e->total) {
		static const size_t sizes[] = {1, 100, 17000, 50000, 1200};
		size_t n = sizes[e->sent % 5];
		if (n > e->total - e->sent)
			n = (size_t)(e->total - e->sent);
		fill(buf, n, e->sent);
		size_t k = td_conn_write(e->c, buf, n);
		e->sum_out = sum(e->sum_out, buf, k);
		e->sent += k;
		if (td_conn_queued(e->c) > e->max_queued)
			e->max_queued = td_conn_queued(e->c);
		if (k < n)
			return;
	}
}

static void on_ready(void *ctx)
{
	struct end *e = ctx;
	e->ready++;
	produce(e);
}

static void on_resume(void *arg)
{
	struct end *e = arg;
	td_conn_pause(e->c, false);
}

static void on_readable(void *ctx)
{
	struct end *e = ctx;
	uint8_t buf[20000];
	ssize_t n;
	while ((n = td_conn_read(e->c, buf, sizeof(buf))) > 0) {
		e->sum_in = sum(e->sum_in, buf, (size_t)n);
		e->got += (uint64_t)n;
		if (e->pause_every && ++e->reads % e->pause_every == 0) {
			td_conn_pause(e->c, true);
			td_timer_in(&e->resume, e->reads % 7 ? 1 : TD_MS);
			break;
		}
	}
	if (e->want && e->got >= e->want)
		e->done = 1;
}

static void on_writable(void *ctx)
{
	struct end *e = ctx;
	e->writables++;
	assert_true(td_conn_room(e->c) >= 128 * 1024);
	produce(e);
}

static void on_closed(void *ctx, int err, const char *why)
{
	struct end *e = ctx;
	e->closed++;
	e->err = err;
	snprintf(e->why, sizeof(e->why), "%s", why);
	td_conn_free(e->c);
	e->c = NULL;
}

static const struct td_conn_cb cb = {.ready = on_ready,
				     .readable = on_readable,
				     .writable = on_writable,
				     .closed = on_closed};

struct server {
	struct td_listener *l;
	struct td_addr addr;
	struct tnl_tls_ctx *tls;
	struct end e;
	int sndbuf, accepted;
	uint64_t timeout;
};

static void on_accept(void *ctx, int fd, const struct td_addr *peer)
{
	struct server *s = ctx;
	if (s->sndbuf)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &s->sndbuf, sizeof(s->sndbuf));
	s->accepted++;
	td_timer_init(&s->e.resume, T, on_resume, &s->e);
	s->e.c = td_conn_accepted(T, fd, s->tls, s->timeout, &cb, &s->e);
	assert_non_null(s->e.c);
}

T_UNUSED static void serve(struct server *s, bool tls)
{
	struct td_addr a = t_addr("127.0.0.1:0");
	char why[200];
	memset(s, 0, sizeof(*s));
	s->tls = tls ? server_tls : NULL;
	s->l = td_listen(T, &a, on_accept, s, why, sizeof(why));
	assert_non_null(s->l);
	td_listener_addr(s->l, &s->addr);
}

T_UNUSED static void dial(struct end *e, const struct server *s, bool tls, const struct td_proxy *proxy,
			  uint64_t timeout)
{
	struct td_conn_opts o = {.host = "127.0.0.1",
				 .port = td_addr_port(&s->addr),
				 .tls = tls ? client_tls : NULL,
				 .proxy = proxy,
				 .timeout_ns = timeout};
	td_timer_init(&e->resume, T, on_resume, e);
	e->c = td_conn_dial(T, &o, &cb, e);
	assert_non_null(e->c);
	assert_int_equal(e->ready + e->closed, 0);
}

T_UNUSED static void finish(struct server *s, struct end *e)
{
	td_timer_stop(&e->resume);
	td_timer_stop(&s->e.resume);
	td_conn_free(e->c);
	td_conn_free(s->e.c);
	td_listener_free(s->l);
	t_close();
}

#endif
