/* A whole agent in this process, with a gateway, a client and a target that are the fuzzer's: sessions that it has
 * really been told to start, with their handshake done or not, its control channel, and dials that succeed.  The input
 * is a script: an op byte, an argument byte, a length byte and so many bytes of text.
 *
 * What must hold: nothing but the target is dialed and nothing is run, what the agent takes of the heap stays under a
 * bound and is given back, and the steps that a script costs are in proportion to its bytes. */
#include "lib/alloc.h"
#include "lib/message.h"
#include "lib/num.h"
#include "lib/smux.h"
#include "lib/spare.h"
#include "lib/steps.h"
#include "lib/wire.h"
#include "tests/fuzz/session_words.h"
#include "tunneld/agent/internal.h"
#include "tunneld/base/log.h"
#include "tunneld/net/http_server.h"
#include "tunneld/net/listen.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SLOTS 2
#define OPS_MAX 160
#define HEAP_MAX (32u << 20)
#define HEAP_AFTER (128u << 10)
#define STEPS_FIXED 12000u
#define STEPS_A_OP 250u
#define STEPS_A_BYTE 40u

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

struct slot {
	char id[32];
	struct td_wslink *data;
	int64_t seq;
};

static struct {
	struct td_loop *l;
	struct td_config *cfg;
	struct td_agent *a;
	struct td_http_server *h;
	struct td_listener *target;
	uint16_t port;
	int fd[8]; /* dialed connections, the oldest is closed for another one */
	unsigned accepted, inputs;
	char dir[64];
	struct td_wslink *control;
	bool control_up;
	struct slot slot[SLOTS];
} F;

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "agent fuzz: %s\n", what);
	abort();
}

static void turns(int n)
{
	for (int i = 0; i < n; i++)
		ev_run(F.l->ev, EVRUN_NOWAIT);
}

static void nothing(void *arg) {}

static void wait_for(bool (*what)(void), const char *name)
{
	struct td_timer t;
	td_timer_init(&t, F.l, nothing, NULL);
	for (int i = 0; i < 2000 && !what(); i++) {
		td_timer_in(&t, 5 * TD_MS);
		ev_run(F.l->ev, EVRUN_ONCE);
		td_timer_stop(&t);
	}
	must(what(), name);
}

/* --- the gateway --------------------------------------------------------------------- */
static void send_frame(struct td_wslink *w, enum tnl_mtype type, int64_t seq, uint32_t ptype, const void *p, size_t n)
{
	uint8_t out[TNL_MSG_HDR + 4096];
	struct tnl_msg m = {.type = type,
			    .schema = 1,
			    .created_ms = 1764000000000,
			    .seq = seq,
			    .ptype = ptype,
			    .payload = p,
			    .plen = (uint32_t)n};
	if (w && n <= sizeof(out) - TNL_MSG_HDR)
		(void)td_wslink_send(w, TNL_WS_BINARY, out, tnl_msg_encode(out, &m));
}

static void on_control(void *ctx, enum tnl_ws_op op, uint8_t *p, size_t n)
{
	struct tnl_msg m;
	struct tnl_task t;
	char id[TNL_UUID_STR];
	F.control_up = true;
	if (op == TNL_WS_TEXT)
		return;
	must(tnl_msg_decode(p, n, &m, NULL) == 0, "the agent's own frame is malformed");
	if (m.type != TNL_MT_TASK_COMPLETE || tnl_task_parse(m.payload, m.plen, &t) != 0)
		return;
	struct tnl_buf b;
	tnl_buf_init(&b, 4000);
	tnl_uuid_str(m.id, id);
	(void)tnl_task_ack_write(&b, id, t.task_id, "agent_task_complete");
	send_frame(F.control, TNL_MT_TASK_ACK, 0, 0, tnl_buf_data(&b), tnl_buf_len(&b));
	tnl_buf_fini(&b);
	tnl_task_fini(&t);
}

static void control_closed(void *ctx, int err, uint16_t code, int status, const char *why)
{
	td_wslink_free(F.control);
	F.control = NULL;
	F.control_up = false;
}

static void on_data(void *ctx, enum tnl_ws_op op, uint8_t *p, size_t n) {}

static void data_closed(void *ctx, int err, uint16_t code, int status, const char *why)
{
	struct slot *s = ctx;
	td_wslink_free(s->data);
	s->data = NULL;
}

static bool path_is(const struct tnl_http_head *h, const char *s)
{
	return h->target_len >= strlen(s) && memcmp(h->target, s, strlen(s)) == 0;
}

static struct slot *slot_of(const struct tnl_http_head *h)
{
	char path[64];
	for (size_t i = 0; i < SLOTS; i++) {
		snprintf(path, sizeof(path), "/v1/data-channel/%s", F.slot[i].id);
		if (F.slot[i].id[0] && path_is(h, path))
			return &F.slot[i];
	}
	return NULL;
}

static void on_request(void *ctx, struct td_request *r)
{
	static const char xml[] =
	    "<r><MessageSchemaVersion>1.0</MessageSchemaVersion><TokenValue>token</TokenValue></r>";
	static const struct td_wslink_cb control = {.message = on_control, .closed = control_closed},
					 data = {.message = on_data, .closed = data_closed};
	const struct td_wslink_opts o = {.ping_ns = 30 * TD_SEC, .pong_ns = 10 * TD_SEC, .max_message = 262144};
	const struct tnl_http_head *h = td_request_head(r);
	struct slot *s = slot_of(h);
	if (!td_request_is_upgrade(r)) {
		bool api = h->target_len == 1;
		td_request_reply(r, api ? 200 : 201, "application/xml", NULL, 0, api ? "{}" : xml,
				 api ? 2 : sizeof(xml) - 1);
	} else if (path_is(h, "/v1/control-channel/i-0123456789abcdef0")) {
		must(!F.control, "two control channels");
		F.control = td_request_upgrade(r, &o, &control, NULL);
	} else if (s && !s->data) {
		s->data = td_request_upgrade(r, &o, &data, s);
	} else {
		td_request_reply(r, 403, "text/plain", NULL, 0, "", 0);
	}
}

static void on_accept(void *ctx, int fd, const struct td_addr *peer)
{
	int *at = &F.fd[F.accepted++ % TNL_COUNT(F.fd)];
	if (*at >= 0)
		close(*at);
	*at = fd;
}

/* --- set-up -------------------------------------------------------------------------- */
static void remove_files(void)
{
	char path[100];
	snprintf(path, sizeof(path), "%s/agent-sessions", F.dir);
	unlink(path);
	rmdir(F.dir);
}

static void open_ends(char *url, size_t cap)
{
	char why[200] = "", name[TD_ADDR_STR];
	struct td_addr a;
	must(td_addr_parse("127.0.0.1:0", &a, 1, NULL) == 1, "address");
	const struct td_http_server_config c = {.addrs = &a, .naddrs = 1, .request = on_request};
	F.h = td_http_server_new(F.l, &c, why, sizeof(why));
	F.target = td_listen(F.l, &a, on_accept, NULL, why, sizeof(why));
	must(F.h && F.target, why);
	td_listener_addr(F.target, &a);
	F.port = td_addr_port(&a);
	td_http_server_addr(F.h, 0, &a);
	snprintf(url, cap, "http://%s", td_addr_str(&a, name));
	memset(F.fd, -1, sizeof(F.fd));
}

static bool control_is_up(void)
{
	return F.control_up;
}

static void set_up(void)
{
	char text[1000], url[80], why[300] = "";
	td_log_setup(TNL_LOG_ERROR, TD_LOG_TEXT);
	F.l = td_loop_new();
	must(F.l != NULL, "loop");
	open_ends(url, sizeof(url));
	snprintf(F.dir, sizeof(F.dir), "/tmp/tunneld-fuzz-XXXXXX");
	must(mkdtemp(F.dir) != NULL, "directory");
	atexit(remove_files);
	snprintf(text, sizeof(text),
		 "[agent]\ninstance_id = i-0123456789abcdef0\nregion = eu-west-1\nssmmessages_endpoint = %s\n"
		 "access_key_id = AKIDTESTTESTTEST\nsecret_access_key = secret-long-enough\nreconnect_min = 1ms\n"
		 "reconnect_max = 2ms\nallow = 127.0.0.1:%u, udp:127.0.0.1:%u, unix:%s/*\n"
		 "reverse = unix:%s/*\ndirect_listen = 127.0.0.1:0\n",
		 url, F.port, F.port, F.dir, F.dir);
	F.cfg = td_config_parse(text, "fuzz.ini", F.dir, TD_ROLE_AGENT, stderr);
	must(F.cfg != NULL, "configuration");
	F.cfg->state_dir = tnl_strdup(F.dir);
	F.a = td_agent_new(F.l, F.cfg, why, sizeof(why));
	must(F.a != NULL, why);
	wait_for(control_is_up, "no control channel within ten seconds");
}

/* --- ops ----------------------------------------------------------------------------- */
static bool has_data(const struct slot *s)
{
	return s->data != NULL;
}

/* A session as a gateway starts it; with text of the input it stands where the properties do. */
static void start_op(struct slot *s, uint8_t arg, const uint8_t *p, size_t n)
{
	static const char *const types[] = {"Port", "Port", "Standard_Stream", "NonInteractiveCommands"};
	static const char *const properties[] = {
	    "{\"portNumber\":\"{{ portNumber }}\",\"type\":\"LocalPortForwarding\"}",
	    "{\"portNumber\":\"{{ portNumber }}\"}",
	    "{\"portNumber\":\"{{ portNumber }}\",\"host\":\"127.0.0.1\",\"type\":\"LocalPortForwarding\"}",
	    "{\"commands\":\"true\"}"};
	const struct tnl_start_grants grants = {.reverse = arg & 64, .dial = arg & 128};
	char content[600], parameters[64];
	struct tnl_buf b;
	if (!s->id[0])
		snprintf(s->id, sizeof(s->id), "s-%zu-%u", s - F.slot, F.inputs);
	snprintf(parameters, sizeof(parameters), "{\"portNumber\":\"%u\"}", F.port);
	int k = n ? snprintf(content, sizeof(content),
			     "{\"schemaVersion\":\"1.0\",\"sessionType\":\"%s\",\"properties\":%.*s}",
			     types[arg >> 2 & 3], (int)n, (const char *)p)
		  : snprintf(content, sizeof(content),
			     "{\"schemaVersion\":\"1.0\",\"sessionType\":\"%s\",\"properties\":%s}",
			     types[arg >> 2 & 3], properties[arg >> 4 & 3]);
	tnl_buf_init(&b, 8000);
	if (k > 0 && tnl_start_write(&b, s->id, "Doc", content, parameters, "arn:o", "", &grants) == 0)
		send_frame(F.control, TNL_MT_INTERACTIVE_SHELL, 0, 0, tnl_buf_data(&b), tnl_buf_len(&b));
	tnl_buf_fini(&b);
	for (int i = 0; i < 60 && !has_data(s); i++)
		turns(1);
	turns(4);
}

static void ack(struct slot *s, int64_t seq)
{
	char text[TNL_ACK_MAX];
	const struct tnl_ack a = {.type = TNL_MT_OUTPUT, .seq = seq};
	send_frame(s->data, TNL_MT_ACK, 0, 0, text, tnl_ack_write(text, &a));
}

static void stream(struct slot *s, uint32_t ptype, const void *p, size_t n)
{
	if (s->data)
		send_frame(s->data, TNL_MT_INPUT, s->seq++, ptype, p, n);
}

static void handshake_op(struct slot *s, unsigned kind)
{
	const char *words = session_words[SESSION_WORDS_CLIENT + TNL_MIN(kind, 2u)];
	ack(s, 0);
	stream(s, TNL_PT_HANDSHAKE_RESPONSE, words, strlen(words));
	turns(4);
	ack(s, 1);
}

static void smux_op(struct slot *s, uint8_t arg, const uint8_t *p, size_t n)
{
	uint8_t out[TNL_SMUX_HDR + 255];
	const struct tnl_smux_frame f = {.version = arg & 2 ? 2 : 1,
					 .cmd = arg >> 2 & 7,
					 .len = (uint16_t)n,
					 .id = 3 + 2 * (uint32_t)(arg >> 5)};
	tnl_smux_write(out, &f);
	memcpy(out + TNL_SMUX_HDR, p, n);
	stream(s, TNL_PT_OUTPUT, out, TNL_SMUX_HDR + n);
}

static void publication_op(struct slot *s, bool pause)
{
	struct tnl_buf b;
	tnl_buf_init(&b, 1000);
	if (tnl_publication_write(&b, s->id) == 0)
		send_frame(s->data, pause ? TNL_MT_PAUSE_PUBLICATION : TNL_MT_START_PUBLICATION, 0, 0, tnl_buf_data(&b),
			   tnl_buf_len(&b));
	tnl_buf_fini(&b);
}

static void close_op(struct slot *s, const char *output)
{
	const struct tnl_channel_closed c = {.session_id = s->id, .output = (char *)(uintptr_t)output};
	struct tnl_buf b;
	tnl_buf_init(&b, 4000);
	if (tnl_channel_closed_write(&b, &c) == 0)
		send_frame(F.control, TNL_MT_CHANNEL_CLOSED, 0, 0, tnl_buf_data(&b), tnl_buf_len(&b));
	tnl_buf_fini(&b);
}

static void drop(struct slot *s)
{
	if (s->data)
		td_wslink_free(s->data);
	s->data = NULL;
}

static void step(uint8_t op, uint8_t arg, const uint8_t *p, size_t n)
{
	struct slot *s = &F.slot[arg & 1];
	switch (op % 12) {
	case 0:
		start_op(s, arg, p, n);
		break;
	case 1:
		handshake_op(s, arg >> 1 & 3);
		break;
	case 2:
	case 3:
		smux_op(s, arg, p, n);
		break;
	case 4:
		stream(s, arg >> 1, p, n);
		break;
	case 5:
		ack(s, n ? p[0] : arg >> 1);
		break;
	case 6:
		if (s->data)
			(void)td_wslink_send(s->data, arg & 2 ? TNL_WS_TEXT : TNL_WS_BINARY, p, n);
		break;
	case 7: /* any type, with or without a number */
		send_frame(s->data, (enum tnl_mtype)(arg >> 1 & 31), n ? p[0] : 0, arg >> 6, p, n);
		break;
	case 8:
		send_frame(F.control, (enum tnl_mtype)(arg & 31), n ? p[0] : 0, 0, p, n);
		break;
	case 9:
		publication_op(s, arg & 2);
		break;
	case 10:
		close_op(s, "over");
		break;
	default:
		drop(s);
	}
	turns(2);
}

/* --- an input ------------------------------------------------------------------------ */
static bool all_over(void)
{
	return tnl_list_empty(&F.a->sessions) && tnl_list_empty(&F.a->tasks.list);
}

static void end_input(void)
{
	wait_for(control_is_up, "the control channel does not come back");
	tnl_list_foreach_safe(it, &F.a->sessions)
		ag_session_closed_by_gateway(tnl_container_of(it, struct ag_session, node), "");
	wait_for(all_over, "a session does not end");
	for (size_t i = 0; i < SLOTS; i++)
		drop(&F.slot[i]);
	for (size_t i = 0; i < TNL_COUNT(F.fd); i++)
		if (F.fd[i] >= 0) {
			close(F.fd[i]);
			F.fd[i] = -1;
		}
	turns(8);
	memset(F.slot, 0, sizeof(F.slot));
	F.inputs++;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static size_t heap;
	if (!F.l) {
		set_up();
		heap = tnl_alloc_bytes();
	}
	uint64_t steps = tnl_steps_made;
	size_t at = 0;
	unsigned ops = 0;
	for (; at + 3 <= n && ops < OPS_MAX; ops++) {
		size_t len = TNL_MIN((size_t)p[at + 2], n - at - 3);
		step(p[at], p[at + 1], p + at + 3, len);
		at += 3 + len;
		must(tnl_alloc_bytes() < heap + HEAP_MAX, "more memory than an agent of this size may take");
	}
	must(tnl_steps_made - steps < STEPS_FIXED + (uint64_t)ops * STEPS_A_OP + at * STEPS_A_BYTE,
	     "more steps than the input has bytes for");
	end_input();
	tnl_spare_drop(); /* nobody's, and bounded by themselves */
	must(tnl_alloc_bytes() < heap + HEAP_AFTER, "memory is not given back");
	return 0;
}
