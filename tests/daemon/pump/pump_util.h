/* Two pumps, client and agent, on one loop with a plain WebSocket between them; local programs and targets are
 * loopback connections of the test. */
#ifndef PUMP_UTIL_H
#define PUMP_UTIL_H
#include "tests/daemon/base/td_test.h"
#include "tunneld/net/http_server.h"
#include "tunneld/base/memory.h"
#include "tunneld/pump/pump.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

struct side {
	struct td_pump *pump;
	struct td_wslink *dialed; /* until it is the pump's */
	int ready, closed, pipes_closed, lost, cancelled, drained;
	uint32_t reason;
	uint64_t in, out;
	char text[64];
	bool free_in_open, free_in_pipe_closed, free_in_closed;
};

static struct world {
	struct td_http_server *h;
	char url[80];
	struct side c, a;
	struct tnl_stream *held; /* hold: open() keeps it */
	bool hold, tiny, reconnect, udp;
	int opened, target, links, exit_code;
	int sink;	   /* what is looked at when a size is told */
	int sizes, unread; /* how many were told; bytes in the sink by then */
	const char *type;
	size_t memory;
	int fds;
} W;

/* A connection over loopback: what the pump gets, and the program's end. */
static void tcp_pair(int *ours, int *theirs, bool tiny)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof(a);
	int size = 2048, l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (tiny) {
		setsockopt(l, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
		setsockopt(l, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	}
	assert_int_equal(bind(l, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(l, 1), 0);
	assert_int_equal(getsockname(l, (struct sockaddr *)&a, &n), 0);
	*theirs = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (tiny) {
		setsockopt(*theirs, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
		setsockopt(*theirs, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	}
	assert_int_equal(connect(*theirs, (struct sockaddr *)&a, n), 0);
	*ours = accept4(l, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	assert_true(*ours >= 0);
	fcntl(*theirs, F_SETFL, O_NONBLOCK);
	close(l);
}

static void give_up(struct side *s)
{
	td_pump_free(s->pump);
	s->pump = NULL;
}

static void on_ready(void *ctx, const struct tnl_session_info *info)
{
	((struct side *)ctx)->ready++;
}
static void on_cancelled(void *ctx, struct tnl_stream *st)
{
	((struct side *)ctx)->cancelled++;
	W.held = NULL;
}
static void on_drained(void *ctx, struct td_pipe *p, void *user)
{
	((struct side *)ctx)->drained++;
}
static void on_exit_code(void *ctx, int code)
{
	W.exit_code = code;
}

static void on_size(void *ctx, unsigned cols, unsigned rows)
{
	W.sizes++;
	assert_int_equal(ioctl(W.sink, FIONREAD, &W.unread), 0);
}

static void on_pipe_closed(void *ctx, struct td_pipe *p, void *user, uint32_t reason, uint64_t in, uint64_t out)
{
	struct side *s = ctx;
	s->pipes_closed++;
	s->reason = reason;
	s->in += in;
	s->out += out;
	if (s->free_in_pipe_closed)
		give_up(s);
}

static void on_closed(void *ctx, int err, const char *text)
{
	struct side *s = ctx;
	s->closed++;
	snprintf(s->text, sizeof(s->text), "%s", text);
	if (s->free_in_closed)
		give_up(s);
}

static void on_open(void *ctx, struct tnl_stream *st)
{
	struct side *s = ctx;
	int fd;
	W.opened++;
	if (s->free_in_open) {
		give_up(s);
	} else if (W.hold) {
		W.held = st;
	} else {
		tcp_pair(&fd, &W.target, W.tiny);
		assert_non_null(td_pipe_agent(s->pump, st, fd, NULL));
	}
}

static void link_up(void);
static void on_lost(void *ctx, int err, uint16_t code, const char *why)
{
	struct side *s = ctx;
	s->lost++;
	if (W.reconnect && s == &W.c)
		link_up();
}

static const struct td_pump_cb pump_cb = {
    .ready = on_ready,
    .open = on_open,
    .cancelled = on_cancelled,
    .closed = on_closed,
    .drained = on_drained,
    .pipe_closed = on_pipe_closed,
    .lost = on_lost,
    .exit_code = on_exit_code,
    .size = on_size,
};

/* --- the link ------------------------------------------------------------------ */

static void dial_open(void *ctx)
{
	td_pump_attach(W.c.pump, W.c.dialed);
	W.c.dialed = NULL;
	W.links++;
}

static void dial_closed(void *ctx, int err, uint16_t code, int status, const char *why)
{
	fail_msg("dial: %s", why);
}

static const struct td_wslink_cb dial_cb = {.open = dial_open, .closed = dial_closed}, no_cb = {.open = NULL};

static void link_up(void)
{
	const struct td_wslink_opts o = {.timeout_ns = 5 * TD_SEC};
	W.c.dialed = td_wslink_dial(T, W.url, &o, &dial_cb, NULL);
	assert_non_null(W.c.dialed);
}

static void on_request(void *ctx, struct td_request *r)
{
	struct td_wslink_opts o = {0};
	td_pump_attach(W.a.pump, td_request_upgrade(r, &o, &no_cb, NULL));
}

static void session_cfg(struct tnl_session_config *c, bool agent)
{
	*c = (struct tnl_session_config){.agent = agent,
					 .session_id = "s-1",
					 .memory_max = W.memory ? W.memory : 2 << 20,
					 .stream_window = 256 << 10,
					 .max_payload = 16384,
					 .offer_capabilities = true,
					 .fin_quiet_ns = 50 * TD_MS,
					 .resend_max = 3000};
	if (agent) {
		c->session_type = W.type;
		c->properties_json = "{\"portNumber\":\"1\",\"type\":\"LocalPortForwarding\"}";
	}
}

static void pumps_up(void)
{
	struct tnl_session_config c;
	session_cfg(&c, false);
	c.udp = W.udp;
	W.c.pump = td_pump_new(T, &c, &pump_cb, &W.c);
	session_cfg(&c, true);
	c.udp = W.udp;
	W.a.pump = td_pump_new(T, &c, &pump_cb, &W.a);
	link_up();
	assert_true(t_until(&W.c.ready, 5000));
}

/* A program's end of a new stream. */
static inline int open_stream(void)
{
	int ours, theirs, err = 0, before = W.opened;
	tcp_pair(&ours, &theirs, W.tiny);
	assert_non_null(td_pipe_client(W.c.pump, ours, NULL, &err));
	for (int i = 0; W.opened == before && i < 2000; i++)
		t_turns(1), usleep(100);
	assert_int_equal(W.opened, before + 1);
	return theirs;
}

static int set_up(void **state)
{
	struct td_addr a;
	char why[128], name[TD_ADDR_STR];
	t_open();
	memset(&W, 0, sizeof(W));
	W.target = -1;
	W.exit_code = -1;
	W.type = "Port";
	W.fds = t_open_fds();
	td_memory_limit(96u << 20);
	a = t_addr("127.0.0.1:0");
	struct td_http_server_config c = {.addrs = &a, .naddrs = 1, .request = on_request};
	W.h = td_http_server_new(T, &c, why, sizeof(why));
	assert_non_null(W.h);
	td_http_server_addr(W.h, 0, &a);
	snprintf(W.url, sizeof(W.url), "ws://%s/x", td_addr_str(&a, name));
	return 0;
}

static int tear_down(void **state)
{
	td_pump_free(W.c.pump);
	td_pump_free(W.a.pump);
	td_wslink_free(W.c.dialed);
	td_http_server_free(W.h);
	if (W.target >= 0)
		close(W.target);
	t_turns(5);
	assert_int_equal(td_memory_told(), 0);
	assert_int_equal(t_open_fds(), W.fds);
	t_close();
	return 0;
}

/* --- moving bytes ----------------------------------------------------------------- */

static uint8_t pattern(uint64_t at)
{
	return (uint8_t)(at * 31 + (at >> 8) * 7 + (at >> 16));
}

struct flow {
	int from, to;
	uint64_t total, sent, got;
	bool ended;
};

/* Both steps without blocking; true: something moved. */
static bool flow_step(struct flow *f)
{
	uint8_t b[8192];
	bool moved = false;
	if (f->from >= 0 && f->sent < f->total) {
		size_t n = f->total - f->sent < sizeof(b) ? (size_t)(f->total - f->sent) : sizeof(b);
		for (size_t i = 0; i < n; i++)
			b[i] = pattern(f->sent + i);
		ssize_t w = write(f->from, b, n);
		moved = w > 0;
		f->sent += w > 0 ? (uint64_t)w : 0;
	}
	ssize_t r = f->to >= 0 ? read(f->to, b, sizeof(b)) : -1;
	for (ssize_t i = 0; i < r; i++)
		if (b[i] != pattern(f->got + (uint64_t)i))
			fail_msg("byte %llu is wrong", (unsigned long long)(f->got + (uint64_t)i));
	if (r > 0)
		f->got += (uint64_t)r;
	f->ended = f->ended || r == 0;
	return moved || r > 0;
}

static void step(struct flow *f, int n)
{
	bool moved = false;
	for (int i = 0; i < n; i++)
		moved |= flow_step(&f[i]);
	t_turns(1);
	if (!moved)
		usleep(200);
}

static inline void flow_all(struct flow *f, int n)
{
	for (int i = 0; i < n; i++)
		while (f[i].got < f[i].total)
			step(f, n);
}

/* 0 orderly end, errno otherwise; fails after 5 s. */
static inline int end_of(int fd)
{
	char b[4096];
	for (int i = 0; i < 25000; i++) {
		ssize_t n = read(fd, b, sizeof(b));
		if (n == 0 || (n < 0 && errno != EAGAIN))
			return n ? errno : 0;
		t_turns(1);
		usleep(200);
	}
	fail_msg("no end within 5 s");
	return -1;
}

#define until_(cond)                                                                                                   \
	do {                                                                                                           \
		for (int i_ = 0; !(cond) && i_ < 25000; i_++) {                                                        \
			t_turns(1);                                                                                    \
			usleep(200);                                                                                   \
		}                                                                                                      \
		if (!(cond))                                                                                           \
			fail_msg("waited in vain for: %s", #cond);                                                     \
	} while (0)

#endif
