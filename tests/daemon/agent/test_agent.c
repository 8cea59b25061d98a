/* The agent against a gateway made for the test: control channel, start, end, resume, refusals, drain, restart. */
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
	struct td_httpd *h;
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
	int ready, closed, pipes_closed;
	uint32_t reason;
	const char *version;
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

static const struct td_pump_cb client_cb = {
    .ready = c_ready,
    .closed = c_closed,
    .lost = c_lost,
    .pipe_closed = c_pipe_closed,
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
	assert_true(control || target_is(h, "/v1/data-channel/s-1") || target_is(h, "/v1/data-channel/s-2"));
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

static void agent_up(const char *more)
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
	struct td_httpd_config c = {.addrs = &a, .naddrs = 1, .request = on_request};
	G.h = td_httpd_new(T, &c, why, sizeof(why));
	assert_non_null(G.h);
	td_httpd_addr(G.h, 0, &G.addr);
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
	td_httpd_free(G.h);
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

static void start_session(const char *id, const char *type, const char *properties)
{
	struct tnl_buf b;
	char content[512], parameters[64];

	tnl_buf_init(&b, 8000);
	snprintf(content, sizeof(content), "{\"schemaVersion\":\"1.0\",\"sessionType\":\"%s\",\"properties\":%s}", type,
		 properties);
	snprintf(parameters, sizeof(parameters), "{\"portNumber\":\"%u\"}", S.port);
	assert_int_equal(tnl_start_write(&b, id, "Doc", content, parameters, "arn:o", ""), 0);
	send_frame(G.control, TNL_MT_INTERACTIVE_SHELL, tnl_buf_data(&b), tnl_buf_len(&b));
	tnl_buf_fini(&b);
}

#define MUX "{\"portNumber\":\"{{ portNumber }}\",\"type\":\"LocalPortForwarding\"}"
#define SINGLE "{\"portNumber\":\"{{ portNumber }}\"}"

static void session_up(const char *properties)
{
	start_session("s-1", "Port", properties);
	assert_true(t_until(&C.ready, 5000));
}

/* A local program's end of a new stream. */
static int open_stream(void)
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
static ssize_t read_some(int fd, char *out, size_t cap)
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

static void echo_through(int fd, const char *text)
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

static void wait_task(int n, const char *id, const char *status)
{
	int64_t until = (int64_t)(T->now + 6 * TD_SEC);
	int never = 0;

	while (G.tasks < n && (int64_t)T->now < until)
		t_until(&never, 20);
	assert_int_equal(G.tasks, n);
	assert_string_equal(G.task_id[n - 1], id);
	assert_string_equal(G.task_status[n - 1], status);
}

static int64_t counter(const char *key)
{
	struct tnl_buf b;
	int64_t v = -1;

	tnl_buf_init(&b, 65536);
	td_agent_status(A, &b);
	struct tnl_json *j = tnl_json_parse(tnl_buf_data(&b), tnl_buf_len(&b));
	assert_non_null(j);
	tnl_json_int(tnl_json_get(tnl_json_get(j, "counters"), key), &v);
	tnl_json_free(j);
	tnl_buf_fini(&b);
	return v;
}

static void for_ms(unsigned ms)
{
	int never = 0;
	t_until(&never, ms);
}

/* --- tests -------------------------------------------------------------------------------------- */

static void comes_up_without_information_service(void **state)
{
	struct tnl_open o;
	const char *fault;

	G.info_status = 400;
	agent_up("");
	assert_true(td_agent_connected(A));
	assert_int_equal(tnl_open_parse(G.token_frame, strlen(G.token_frame), &o, &fault), 0);
	assert_string_equal(o.token, "tok&en");
	assert_string_equal(o.agent_version, TNL_AGENT_VERSION);
	assert_string_equal(o.platform_type, "linux");
	assert_null(o.client_id);
	tnl_open_fini(&o);
	assert_int_equal(G.unsigned_calls, 0);
}

static void introduces_itself_in_short_then_in_full(void **state)
{
	agent_up("");
	while (G.infos < 2)
		for_ms(5);
	assert_int_equal(G.short_infos, 1);
}

static void a_session_from_start_to_confirmed_end(void **state)
{
	struct tnl_open o;
	const char *fault;

	agent_up("");
	session_up(MUX);
	assert_int_equal(C.info.mode, TNL_MODE_MUX);
	assert_true(C.info.own_peer);
	assert_int_equal(tnl_open_parse(G.token_frame, strlen(G.token_frame), &o, &fault), 0);
	assert_string_equal(o.client_instance_id, ID);
	assert_string_equal(o.client_id, "");
	tnl_open_fini(&o);
	int fd = open_stream();
	echo_through(fd, "hello");
	start_session("s-1", "Port", MUX); /* said twice */
	echo_through(fd, "again");
	assert_int_equal(G.creates, 1);
	tnl_session_send_flag(td_pump_session(C.pump), TNL_FLAG_TERMINATE, T->now);
	td_pump_kick(C.pump);
	wait_task(1, "s-1", "Success");
	for_ms(1300); /* confirmed: not said again */
	assert_int_equal(G.tasks, 1);
	assert_int_equal(G.unsigned_calls, 0);
	close(fd);
}

static void an_end_is_told_three_times(void **state)
{
	G.ack_tasks = false;
	agent_up("");
	start_session("s-2", "Nonsense", "{}");
	while (G.tasks < 3)
		for_ms(20);
	for_ms(1300);
	assert_int_equal(G.tasks, 3);
	for (int i = 0; i < 3; i++) {
		assert_memory_equal(G.task_message_id[i], G.task_message_id[0], 16);
		assert_string_equal(G.task_status[i], "Failed");
		assert_non_null(strstr(G.task_output[i], "Nonsense"));
	}
	assert_true(G.task_at[1] - G.task_at[0] > 900 * TD_MS && G.task_at[2] - G.task_at[1] > 900 * TD_MS);
	assert_int_equal(counter("tasks_unconfirmed"), 1);
}

static void what_cannot_be_served_is_refused(void **state)
{
	agent_up("max_sessions = 1\n");
	start_session("s-2", "Port", "{\"portNumber\":\"0\"}");
	wait_task(1, "s-2", "Failed");
	assert_non_null(strstr(G.task_output[0], "portNumber"));
	session_up(MUX);
	start_session("s-2", "Port", MUX);
	wait_task(2, "s-2", "Failed");
	assert_non_null(strstr(G.task_output[1], "max_sessions"));
}

static void channel_closed_on_the_control_channel(void **state)
{
	struct tnl_channel_closed c = {.session_id = (char *)"s-1", .output = (char *)"Your session timed out"};
	struct tnl_buf b;

	agent_up("");
	session_up(MUX);
	int fd = open_stream();
	echo_through(fd, "x");
	tnl_buf_init(&b, 2000);
	tnl_channel_closed_write(&b, &c);
	send_frame(G.control, TNL_MT_CHANNEL_CLOSED, tnl_buf_data(&b), tnl_buf_len(&b));
	tnl_buf_fini(&b);
	wait_task(1, "s-1", "Success");
	assert_string_equal(G.task_output[0], "Your session timed out");
	char c1[8];
	assert_true(read_some(S.fd, c1, sizeof(c1)) <= 0); /* the target's connection has gone with it */
	close(fd);
}

static void the_data_channel_is_resumed(void **state)
{
	agent_up("");
	session_up(MUX);
	int fd = open_stream();
	echo_through(fd, "one");
	for (int i = 1; i <= 3; i++) {
		G.data_up = 0;
		td_pump_detach(C.pump);
		G.data = NULL;
		assert_int_equal(write(fd, "lost?", 5), 5);
		assert_true(t_until(&G.data_up, 5000));
		char got[16];
		assert_int_equal(read_some(S.fd, got, sizeof(got)), 5);
		echo_through(fd, "two");
	}
	assert_int_equal(G.creates, 4);
	assert_int_equal(counter("resumes"), 3);
	/* Errors on the way are tried again, the gateway's word that it is over is final. */
	G.create_status = 500;
	G.create_body = "<e>busy</e>";
	td_pump_detach(C.pump);
	G.data = NULL;
	while (G.creates < 7)
		for_ms(5);
	assert_int_equal(G.tasks, 0);
	G.create_status = 400;
	G.create_body = "<e><Message>Session is already terminated</Message></e>";
	wait_task(1, "s-1", "Success");
	int creates = G.creates;
	for_ms(200);
	assert_int_equal(G.creates, creates);
	close(fd);
}

static void the_control_channel_comes_back(void **state)
{
	agent_up("");
	session_up(MUX);
	int fd = open_stream();
	echo_through(fd, "one");
	for (int i = 0; i < 3; i++) {
		G.control_up = 0;
		td_wslink_free(G.control);
		G.control = NULL;
		assert_true(t_until(&G.control_up, 5000));
	}
	echo_through(fd, "two");
	assert_int_equal(G.controls, 4);
	/* An end without a control channel waits for it. */
	G.control_up = 0;
	td_wslink_free(G.control);
	G.control = NULL;
	tnl_session_send_flag(td_pump_session(C.pump), TNL_FLAG_TERMINATE, T->now);
	td_pump_kick(C.pump);
	wait_task(1, "s-1", "Success");
	close(fd);
}

static void bad_messages_are_dropped(void **state)
{
	uint8_t junk[300];

	agent_up("");
	for (size_t i = 0; i < sizeof(junk); i++)
		junk[i] = (uint8_t)(i * 37);
	for (size_t n = 0; n < sizeof(junk); n += 23)
		td_wslink_send(G.control, TNL_WS_BINARY, junk, n);
	td_wslink_send(G.control, TNL_WS_TEXT, "text", 4);
	send_frame(G.control, TNL_MT_INTERACTIVE_SHELL, "{}", 2);
	send_frame(G.control, TNL_MT_INTERACTIVE_SHELL, "\xff", 1);
	send_frame(G.control, TNL_MT_CHANNEL_CLOSED, "[", 1);
	send_frame(G.control, TNL_MT_TASK_ACK, "{", 1);
	send_frame(G.control, TNL_MT_AGENT_JOB, "{}", 2);
	session_up(MUX);
	assert_int_equal(counter("bad_messages"), 14 + 4);
	assert_int_equal(counter("ignored_messages"), 2);
	assert_int_equal(G.control_lost, 0);
}

static void denied_and_unreachable_targets(void **state)
{
	char got[8];

	agent_up("allow = 127.0.0.1:*, 169.254.0.0/16:*\nmax_streams = 2\n");
	session_up("{\"portNumber\":\"80\",\"host\":\"169.254.169.254\",\"type\":\"LocalPortForwarding\"}");
	int fd = open_stream();
	assert_true(t_until(&C.pipes_closed, 5000));
	assert_int_equal(C.reason, TNL_RESET_DENIED);
	assert_true(read_some(fd, got, sizeof(got)) <= 0);
	assert_int_equal(counter("denied"), 1);
	assert_int_equal(counter("connections"), 0);
	assert_int_equal(G.tasks, 0); /* the session goes on */
	close(fd);
}

static void a_refused_connection_resets_its_stream_only(void **state)
{
	agent_up("max_streams = 2\n");
	session_up(MUX);
	int good = open_stream();
	echo_through(good, "one");
	struct td_addr a;
	td_listener_addr(S.l, &a);
	td_listener_free(S.l);
	int bad = open_stream();
	assert_true(t_until(&C.pipes_closed, 5000));
	assert_int_equal(C.reason, TNL_RESET_CONNECT);
	echo_through(good, "two");
	char why[128];
	S.l = td_listen(T, &a, on_accept, NULL, why, sizeof(why));
	assert_non_null(S.l);
	C.pipes_closed = 0;
	int kept = S.fd;
	S.fd = -1;
	S.accepted = 0;
	int second = open_stream();
	echo_through(second, "x");
	int third = open_stream();
	assert_true(t_until(&C.pipes_closed, 5000));
	assert_int_equal(C.reason, TNL_RESET_LIMIT);
	close(kept);
	close(good);
	close(bad);
	close(second);
	close(third);
}

static void single_stream_ends_with_its_connection(void **state)
{
	agent_up("");
	session_up(SINGLE);
	assert_int_equal(C.info.mode, TNL_MODE_SINGLE);
	int fd = open_stream();
	echo_through(fd, "SSH-2.0");
	shutdown(fd, SHUT_WR);
	char got[8];
	assert_int_equal(read_some(S.fd, got, sizeof(got)), 0);
	close(S.fd);
	S.fd = -1;
	wait_task(1, "s-1", "Success");
	close(fd);
}

static void single_stream_that_cannot_connect_fails(void **state)
{
	agent_up("");
	td_listener_pause(S.l, true);
	struct td_addr a = t_addr("127.0.0.1:0");
	char why[128];
	td_listener_free(S.l);
	start_session("s-1", "Port", SINGLE);
	wait_task(1, "s-1", "Failed");
	assert_non_null(strstr(G.task_output[0], "cannot connect to localhost port"));
	S.l = td_listen(T, &a, on_accept, NULL, why, sizeof(why));
	assert_non_null(S.l);
}

/* Its version decides alone: what it sends is raw, so the target sees the very bytes that our client's mux makes. */
static void an_old_client_gets_basic_mode(void **state)
{
	static const uint8_t smux_syn[8] = {1, 0, 0, 0, 3, 0, 0, 0};
	char got[64];

	C.version = "1.1.23.0";
	agent_up("");
	session_up(MUX);
	int fd = open_stream();
	assert_true(t_until(&S.accepted, 5000));
	assert_true(read_some(S.fd, got, sizeof(got)) >= 8);
	assert_memory_equal(got, smux_syn, 8);
	close(fd);
	/* A failed dial ends it: there is no stream id to answer on. */
	struct td_addr a;
	td_listener_addr(S.l, &a);
	td_listener_free(S.l);
	close(S.fd);
	S.fd = -1;
	tnl_session_send_flag(td_pump_session(C.pump), TNL_FLAG_DISCONNECT, T->now);
	fd = open_stream();
	wait_task(1, "s-1", "Failed");
	assert_non_null(strstr(G.task_output[0], "cannot connect"));
	close(fd);
	char why[128];
	S.l = td_listen(T, &a, on_accept, NULL, why, sizeof(why));
	assert_non_null(S.l);
}

static void is_done(void *ctx)
{
	++*(int *)ctx;
}

static void drain_with_nothing_to_do(void **state)
{
	int done = 0;

	agent_up("");
	session_up(MUX);
	uint64_t t0 = T->now;
	td_agent_drain(A, 10 * TD_SEC, is_done, &done);
	assert_true(t_until(&done, 3000));
	assert_true(T->now - t0 < 2 * TD_SEC);
	wait_task(1, "s-1", "Success");
	assert_int_equal(done, 1);
}

static void drain_without_a_gateway(void **state)
{
	int done = 0;

	agent_up("");
	session_up(MUX);
	td_httpd_stop_listening(G.h);
	td_wslink_free(G.control);
	G.control = NULL;
	td_pump_detach(C.pump);
	G.data = NULL;
	for_ms(30);
	uint64_t t0 = T->now;
	td_agent_drain(A, 10 * TD_SEC, is_done, &done);
	assert_true(t_until(&done, 3000));
	assert_true(T->now - t0 < 2 * TD_SEC);
}

static void drain_waits_for_connections(void **state)
{
	int done = 0;

	agent_up("");
	session_up(MUX);
	int fd = open_stream();
	echo_through(fd, "one");
	td_agent_drain(A, 20 * TD_SEC, is_done, &done);
	for_ms(100);
	start_session("s-2", "Port", MUX);
	wait_task(1, "s-2", "Failed");
	assert_non_null(strstr(G.task_output[0], "stopping"));
	echo_through(fd, "two");
	assert_int_equal(done, 0);
	close(fd);
	close(S.fd);
	S.fd = -1;
	assert_true(t_until(&done, 4000));
	wait_task(2, "s-1", "Success");
}

static void drain_is_cut_at_the_deadline_or_by_a_second_call(void **state)
{
	for (int twice = 0; twice < 2; twice++) {
		int done = 0;
		C.ready = S.accepted = 0;
		if (S.fd >= 0)
			close(S.fd);
		S.fd = -1;
		agent_up("");
		session_up(MUX);
		int fd = open_stream();
		echo_through(fd, "one");
		uint64_t t0 = T->now;
		td_agent_drain(A, twice ? 20 * TD_SEC : 300 * TD_MS, is_done, &done);
		if (twice)
			td_agent_drain(A, 0, is_done, &done);
		assert_true(t_until(&done, 4000));
		assert_true(T->now - t0 < (twice ? 200 * TD_MS : 3 * TD_SEC));
		agent_gone();
		t_turns(5);
		td_pump_free(C.pump);
		C.pump = NULL;
		G.data = NULL;
		close(fd);
		char path[128];
		snprintf(path, sizeof(path), "%s/agent-sessions", dir);
		unlink(path);
	}
}

static void sessions_of_a_crash_are_reported_by_the_next_start(void **state)
{
	agent_up("");
	session_up(MUX);
	agent_gone(); /* without a word, as a crash does */
	t_turns(5);
	int creates = G.creates;
	G.ack_tasks = false;
	agent_up("");
	wait_task(1, "s-1", "Failed");
	assert_string_equal(G.task_output[0], "the agent was restarted");
	start_session("s-1", "Port", MUX); /* a gateway that has not understood yet */
	for_ms(50);
	assert_int_equal(G.creates, creates);
	G.ack_tasks = true;
	wait_task(2, "s-1", "Failed");
	for_ms(20);
	agent_gone();
	G.tasks = 0;
	agent_up("");
	for_ms(50);
	assert_int_equal(G.tasks, 0); /* confirmed once is enough */
}

static void reload_changes_the_rules_and_keeps_the_session(void **state)
{
	char text[1024], why[256];

	agent_up("");
	session_up(MUX);
	int fd = open_stream();
	echo_through(fd, "one");
	snprintf(text, sizeof(text),
		 "[agent]\ninstance_id = " ID
		 "\nregion = eu-west-1\nssmmessages_endpoint = %s\naccess_key_id = AKIDTESTTESTTEST\n"
		 "secret_access_key = secret\nreconnect_min = 5ms\nreconnect_max = 40ms\nallow = 192.0.2.1:*\n",
		 G.url);
	struct td_config *next = td_config_parse(text, "test.ini", dir, TD_ROLE_AGENT, stderr);
	assert_non_null(next);
	next->state_dir = tnl_strdup(dir);
	assert_int_equal(td_agent_reload(A, next, why, sizeof(why)), 0);
	td_config_free(cfg);
	cfg = next;
	echo_through(fd, "two");
	int second = open_stream();
	assert_true(t_until(&C.pipes_closed, 5000));
	assert_int_equal(C.reason, TNL_RESET_DENIED);
	close(second);
	close(fd);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(comes_up_without_information_service),
	    TEST(introduces_itself_in_short_then_in_full),
	    TEST(a_session_from_start_to_confirmed_end),
	    TEST(an_end_is_told_three_times),
	    TEST(what_cannot_be_served_is_refused),
	    TEST(channel_closed_on_the_control_channel),
	    TEST(the_data_channel_is_resumed),
	    TEST(the_control_channel_comes_back),
	    TEST(bad_messages_are_dropped),
	    TEST(denied_and_unreachable_targets),
	    TEST(a_refused_connection_resets_its_stream_only),
	    TEST(single_stream_ends_with_its_connection),
	    TEST(single_stream_that_cannot_connect_fails),
	    TEST(an_old_client_gets_basic_mode),
	    TEST(drain_with_nothing_to_do),
	    TEST(drain_without_a_gateway),
	    TEST(drain_waits_for_connections),
	    TEST(drain_is_cut_at_the_deadline_or_by_a_second_call),
	    TEST(sessions_of_a_crash_are_reported_by_the_next_start),
	    TEST(reload_changes_the_rules_and_keeps_the_session),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
