/* The agent against a gateway, a client and a target that are the test's, all on one loop. */
#ifndef AGENT_UTIL_H
#define AGENT_UTIL_H
#include "tests/daemon/base/td_test.h"
#include "lib/enc.h"
#include "lib/wire.h"
#include "tunneld/net/http_server.h"
#include "tunneld/pump/pump.h"
#include "tunneld/agent/agent.h"
#include "tunneld/net/listen.h"

#include <dirent.h>
#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define ID "i-0123456789abcdef0"

/* --- the gateway ----------------------------------------------------------------------- */

static struct gateway {
	struct td_http_server *h;
	struct td_addr addr;
	char url[64];
	/* what is answered */
	int info_status, create_status;
	const char *create_body;
	bool ack_tasks;
	/* what came */
	int infos, short_infos, creates, controls, datas, unsigned_calls;
	struct td_wslink *control, *data;
	int control_up, data_up, control_lost;
	char token_frame[512];
	int tasks;
	uint64_t task_at[8];
	uint8_t task_message_id[8][16];
	char task_id[8][64], task_status[8][32], task_output[8][256];
	int pings;
} G;

/* --- the client, on the gateway's end of the data channel ---------------------------------- */

static struct client {
	struct td_pump *pump;
	struct tnl_session_info info;
	int connected, ready, closed, pipes_closed, exited, exit_code;
	uint32_t reason;
	const char *version;
	bool may_dial, may_reverse; /* says the gateway */
	int refused;		    /* listeners */
} C;

static void c_ready(void *ctx, const struct tnl_session_info *i)
{
	C.info = *i;
	C.ready++;
}

static void c_closed(void *ctx, int err, const char *text)
{
	C.closed++;
}
static void c_lost(void *ctx, int err, uint16_t code, const char *why)
{
	G.data = NULL;
}

static void c_pipe_closed(void *ctx, struct td_pipe *p, void *user, uint32_t reason, uint64_t in, uint64_t out)
{
	C.pipes_closed++;
	C.reason = reason;
}

static void c_connected(void *ctx, struct td_pipe *p, void *user)
{
	C.connected++;
}

static void c_exit_code(void *ctx, int code)
{
	C.exit_code = code;
	C.exited++;
}

static void c_reverse(void *ctx, const struct tnl_reverse *word)
{
	C.refused += word->kind == TNL_REVERSE_REFUSED;
}

static const struct td_pump_cb client_cb = {
    .reverse = c_reverse,
    .connected = c_connected,
    .ready = c_ready,
    .closed = c_closed,
    .lost = c_lost,
    .pipe_closed = c_pipe_closed,
    .exit_code = c_exit_code,
};

static void send_frame(struct td_wslink *w, enum tnl_mtype t, const void *p, size_t n)
{
	uint8_t out[8192];
	struct tnl_msg m = {.type = t, .schema = 1, .created_ms = T->wall_ms, .payload = p, .plen = (uint32_t)n};

	memset(m.id, 7, sizeof(m.id));
	assert_true(n + TNL_MSG_HDR <= sizeof(out));
	assert_int_equal(td_wslink_send(w, TNL_WS_BINARY, out, tnl_msg_encode(out, &m)), 0);
}

static void on_task(const struct tnl_msg *m)
{
	struct tnl_task t;
	struct tnl_buf b;
	char id[TNL_UUID_STR];

	assert_int_equal(tnl_task_parse(m->payload, m->plen, &t), 0);
	assert_string_equal(t.topic, "agent_task_complete");
	assert_string_equal(t.instance_id, ID);
	assert_true(G.tasks < 8);
	memcpy(G.task_message_id[G.tasks], m->id, 16);
	snprintf(G.task_id[G.tasks], 64, "%s", t.task_id);
	snprintf(G.task_status[G.tasks], 32, "%s", t.final_status);
	snprintf(G.task_output[G.tasks], 256, "%s", t.output);
	G.task_at[G.tasks++] = T->now;
	if (G.ack_tasks) {
		tnl_buf_init(&b, 1000);
		tnl_uuid_str(m->id, id);
		tnl_task_ack_write(&b, id, t.task_id, "agent_task_complete");
		send_frame(G.control, TNL_MT_TASK_ACK, tnl_buf_data(&b), tnl_buf_len(&b));
		tnl_buf_fini(&b);
	}
	tnl_task_fini(&t);
}

static void control_message(void *ctx, enum tnl_ws_op op, uint8_t *p, size_t n)
{
	struct tnl_msg m;

	if (op == TNL_WS_TEXT) {
		snprintf(G.token_frame, sizeof(G.token_frame), "%.*s", (int)n, (char *)p);
		G.control_up++;
		return;
	}
	assert_int_equal(tnl_msg_decode(p, n, &m, NULL), 0);
	if (m.type == TNL_MT_TASK_COMPLETE)
		on_task(&m);
}

static void control_closed(void *ctx, int err, uint16_t code, int status, const char *why)
{
	td_wslink_free(G.control);
	G.control = NULL;
	G.control_lost++;
}

static const struct td_wslink_cb control_cb = {.message = control_message, .closed = control_closed};

static void data_message(void *ctx, enum tnl_ws_op op, uint8_t *p, size_t n)
{
	assert_int_equal(op, TNL_WS_TEXT);
	snprintf(G.token_frame, sizeof(G.token_frame), "%.*s", (int)n, (char *)p);
	if (!C.pump) {
		struct tnl_session_config sc = {.session_id = "s-1",
						.version = C.version,
						.memory_max = 4 << 20,
						.stream_window = 1 << 20,
						.max_payload = 32768,
						.offer_capabilities = !C.version,
						.dial = TNL_DIAL_VERSION,
						.reverse = C.may_reverse,
						.fin_quiet_ns = 50 * TD_MS};
		C.pump = td_pump_new(T, &sc, &client_cb, NULL);
		assert_non_null(C.pump);
	}
	td_pump_attach(C.pump, G.data);
	G.data_up++;
}

static void data_closed(void *ctx, int err, uint16_t code, int status, const char *why)
{
	td_wslink_free(G.data);
	G.data = NULL;
}

static const struct td_wslink_cb data_cb = {.message = data_message, .closed = data_closed};

static bool target_is(const struct tnl_http_head *h, const char *s)
{
	return h->target_len == strlen(s) && memcmp(h->target, s, h->target_len) == 0;
}

static void on_post(struct td_request *r, const struct tnl_http_head *h)
{
	static const char xml[] =
	    "<r><MessageSchemaVersion>1.0</MessageSchemaVersion><TokenValue>tok&amp;en</TokenValue></r>";
	size_t n;
	const uint8_t *body = td_request_body(r, &n);

	G.unsigned_calls += !tnl_http_get(h, "authorization", NULL);
	if (target_is(h, "/")) {
		struct tnl_json *j = tnl_json_parse(body, n);
		assert_string_equal(tnl_json_get_str(j, "InstanceId"), ID);
		G.short_infos += !tnl_json_get(j, "AgentStatus");
		G.infos++;
		tnl_json_free(j);
		td_request_reply(r, G.info_status, "application/x-amz-json-1.1", NULL, 0, "{}", 2);
		return;
	}
	bool control = target_is(h, "/v1/control-channel/" ID);
	assert_true(control || memcmp(h->target, "/v1/data-channel/s-", 19) == 0);
	struct tnl_json *j = tnl_json_parse(body, n);
	assert_string_equal(tnl_json_get_str(j, "MessageSchemaVersion"), "1.0");
	assert_int_equal(strlen(tnl_json_get_str(j, "RequestId")), 36);
	assert_int_equal(tnl_json_get(j, "ClientId") == NULL, control);
	tnl_json_free(j);
	G.creates += !control;
	if (!control && G.create_status != 201)
		td_request_reply(r, G.create_status, "application/xml", NULL, 0, G.create_body, strlen(G.create_body));
	else
		td_request_reply(r, 201, "application/xml", NULL, 0, xml, sizeof(xml) - 1);
}

static void on_request(void *ctx, struct td_request *r)
{
	const struct tnl_http_head *h = td_request_head(r);
	struct td_wslink_opts o = {.ping_ns = 30 * TD_SEC, .pong_ns = 10 * TD_SEC, .max_message = 262144};

	if (!td_request_is_upgrade(r)) {
		on_post(r, h);
		return;
	}
	G.unsigned_calls += !tnl_http_get(h, "authorization", NULL);
	if (target_is(h, "/v1/control-channel/" ID "?role=subscribe&stream=input")) {
		G.controls++;
		G.control = td_request_upgrade(r, &o, &control_cb, NULL);
		assert_non_null(G.control);
	} else {
		assert_true(target_is(h, "/v1/data-channel/s-1?role=publish_subscribe"));
		G.datas++;
		G.data = td_request_upgrade(r, &o, &data_cb, NULL);
		assert_non_null(G.data);
	}
}

/* --- the target ------------------------------------------------------------------------------ */

static struct target {
	struct td_listener *l;
	uint16_t port;
	int fd, accepted;
} S;

static void on_accept(void *ctx, int fd, const struct td_addr *peer)
{
	if (S.fd >= 0)
		close(S.fd);
	S.fd = fd;
	S.accepted++;
}

/* --- set-up ------------------------------------------------------------------------------------ */

static struct td_config *cfg;
static struct td_agent *A;
static char dir[64];

T_UNUSED static void agent_up(const char *more)
{
	char text[1024], why[256] = "";

	snprintf(text, sizeof(text),
		 "[agent]\ninstance_id = " ID
		 "\nregion = eu-west-1\nssmmessages_endpoint = %s\naccess_key_id = AKIDTESTTESTTEST\n"
		 "secret_access_key = secret\nreconnect_min = 5ms\nreconnect_max = 40ms\n%s",
		 G.url, more);
	cfg = td_config_parse(text, "test.ini", dir, TD_ROLE_AGENT, stderr);
	assert_non_null(cfg);
	cfg->state_dir = tnl_strdup(dir);
	A = td_agent_new(T, cfg, why, sizeof(why));
	if (!A)
		fail_msg("%s", why);
	G.control_up = 0;
	assert_true(t_until(&G.control_up, 5000));
}

static void agent_gone(void)
{
	td_agent_free(A);
	t_turns(3);
	td_config_free(cfg);
	A = NULL;
	cfg = NULL;
}

static int set_up(void **state)
{
	struct td_addr a;
	char why[256] = "", name[TD_ADDR_STR];

	t_open();
	memset(&G, 0, sizeof(G));
	memset(&C, 0, sizeof(C));
	G.info_status = 200;
	G.create_status = 201;
	G.ack_tasks = true;
	strcpy(dir, "/tmp/tunneld-test-agent-XXXXXX");
	assert_non_null(mkdtemp(dir));
	a = t_addr("127.0.0.1:0");
	struct td_http_server_config c = {.addrs = &a, .naddrs = 1, .request = on_request};
	G.h = td_http_server_new(T, &c, why, sizeof(why));
	assert_non_null(G.h);
	td_http_server_addr(G.h, 0, &G.addr);
	snprintf(G.url, sizeof(G.url), "http://%s", td_addr_str(&G.addr, name));
	S = (struct target){.fd = -1};
	S.l = td_listen(T, &a, on_accept, NULL, why, sizeof(why));
	assert_non_null(S.l);
	td_listener_addr(S.l, &a);
	S.port = td_addr_port(&a);
	return 0;
}

static int tear_down(void **state)
{
	char path[128];

	if (A)
		agent_gone();
	if (C.pump)
		td_pump_free(C.pump);
	else if (G.data)
		td_wslink_free(G.data);
	if (G.control)
		td_wslink_free(G.control);
	td_http_server_free(G.h);
	td_listener_free(S.l);
	if (S.fd >= 0)
		close(S.fd);
	t_turns(3);
	t_close();
	snprintf(path, sizeof(path), "%s/agent-sessions", dir);
	unlink(path);
	assert_int_equal(rmdir(dir), 0);
	return 0;
}

T_UNUSED static void start_session(const char *id, const char *type, const char *properties)
{
	struct tnl_buf b;
	char content[512], parameters[64];
	const struct tnl_start_grants grants = {.dial = C.may_dial, .reverse = C.may_reverse};

	tnl_buf_init(&b, 8000);
	snprintf(content, sizeof(content), "{\"schemaVersion\":\"1.0\",\"sessionType\":\"%s\",\"properties\":%s}", type,
		 properties);
	snprintf(parameters, sizeof(parameters), "{\"portNumber\":\"%u\"}", S.port);
	assert_int_equal(tnl_start_write(&b, id, "Doc", content, parameters, "arn:o", "", &grants), 0);
	send_frame(G.control, TNL_MT_INTERACTIVE_SHELL, tnl_buf_data(&b), tnl_buf_len(&b));
	tnl_buf_fini(&b);
}

#define MUX "{\"portNumber\":\"{{ portNumber }}\",\"type\":\"LocalPortForwarding\"}"
#define SINGLE "{\"portNumber\":\"{{ portNumber }}\"}"

T_UNUSED static void session_up(const char *properties)
{
	start_session("s-1", "Port", properties);
	assert_true(t_until(&C.ready, 5000));
}

/* A local program's end of a new stream. */
T_UNUSED static int open_kind(enum tnl_stream_kind kind)
{
	int pair[2], err = 0;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	struct td_pipe *p = td_pipe_client(C.pump, pair[0], NULL, &err);
	assert_non_null(p);
	assert_true(td_pipe_ask(p, kind));
	return pair[1];
}

T_UNUSED static int open_stream(void)
{
	int pair[2], err = 0;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	assert_non_null(td_pipe_client(C.pump, pair[0], NULL, &err));
	return pair[1];
}

static void raise_flag(struct ev_loop *ev, ev_io *w, int events)
{
	*(int *)w->data = 1;
}

/* Bytes, 0 at the end, -1 on an error; fails when nothing comes. */
T_UNUSED static ssize_t read_some(int fd, char *out, size_t cap)
{
	int flag = 0;
	ev_io io;

	ev_io_init(&io, raise_flag, fd, EV_READ);
	io.data = &flag;
	ev_io_start(T->ev, &io);
	bool came = t_until(&flag, 5000);
	ev_io_stop(T->ev, &io);
	assert_true(came);
	return read(fd, out, cap);
}

T_UNUSED static void echo_through(int fd, const char *text)
{
	char got[64];
	size_t n = strlen(text);

	assert_int_equal(write(fd, text, n), n);
	if (S.fd < 0)
		assert_true(t_until(&S.accepted, 5000));
	assert_int_equal(read_some(S.fd, got, sizeof(got)), n);
	assert_memory_equal(got, text, n);
	assert_int_equal(write(S.fd, "back", 4), 4);
	assert_int_equal(read_some(fd, got, sizeof(got)), 4);
}

T_UNUSED static void wait_task(int n, const char *id, const char *status)
{
	int64_t until = (int64_t)(T->now + 6 * TD_SEC);
	int never = 0;

	while (G.tasks < n && (int64_t)T->now < until)
		t_until(&never, 20);
	assert_int_equal(G.tasks, n);
	assert_string_equal(G.task_id[n - 1], id);
	assert_string_equal(G.task_status[n - 1], status);
}

static struct tnl_json *agent_status(void)
{
	struct tnl_buf b;

	tnl_buf_init(&b, 65536);
	td_agent_status(A, &b);
	struct tnl_json *j = tnl_json_parse(tnl_buf_data(&b), tnl_buf_len(&b));
	assert_non_null(j);
	tnl_buf_fini(&b);
	return j;
}

T_UNUSED static int64_t counter(const char *key)
{
	struct tnl_json *j = agent_status();
	int64_t v = -1;

	tnl_json_int(tnl_json_get(tnl_json_get(j, "counters"), key), &v);
	tnl_json_free(j);
	return v;
}

T_UNUSED static void close_session(const char *id, const char *output)
{
	struct tnl_channel_closed c = {.session_id = (char *)(uintptr_t)id, .output = (char *)(uintptr_t)output};
	struct tnl_buf b;

	tnl_buf_init(&b, 2000);
	tnl_channel_closed_write(&b, &c);
	send_frame(G.control, TNL_MT_CHANNEL_CLOSED, tnl_buf_data(&b), tnl_buf_len(&b));
	tnl_buf_fini(&b);
}

T_UNUSED static void for_ms(unsigned ms)
{
	int never = 0;
	t_until(&never, ms);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

#endif
