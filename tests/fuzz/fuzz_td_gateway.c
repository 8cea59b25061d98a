/* A whole gateway in this process, behind its door: two users and two instances, whose calls are signed, whose links
 * are upgraded with tokens that were learned from answers, and whose frames are relayed.  The input is a script: an op
 * byte, an argument byte, a length byte and so many bytes of text.
 *
 * What must hold: nobody sees a session of another user, no user gets a token for one, what the gateway takes of the
 * heap stays under a bound and is given back, and the steps that a script costs are in proportion to its bytes: some
 * thousand for a call, which has heads and an answer, and next to none for a frame. */
#include "lib/alloc.h"
#include "lib/json.h"
#include "lib/message.h"
#include "lib/num.h"
#include "lib/spare.h"
#include "lib/steps.h"
#include "lib/wire.h"
#include "tunneld/base/log.h"
#include "tunneld/gateway/internal.h"
#include "tunneld/net/http_client.h"
#include "tunneld/net/wslink.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINKS 6
#define SESSIONS 4
#define OPS_MAX 160
#define HEAP_MAX (48u << 20)
#define HEAP_AFTER (128u << 10)
#define STEPS_FIXED 20000u
#define STEPS_A_OP 2500u
#define STEPS_A_BYTE 40u
#define STEPS_OF_FRAMES 400u
#define STEPS_A_FRAME 10u

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);

static const struct tnl_sigv4_keys keys[] = {{"AKIDOPS", "ops-secret-long-enough", NULL},
					     {"AKIDDEV", "dev-secret-long-enough", NULL},
					     {"AKIDI1", "i1-secret-long-enough", NULL},
					     {"AKIDI2", "i2-secret-long-enough", NULL}};
static const char *const users[] = {"ops", "dev"}, *const instances[] = {"i-1", "i-2"};

static struct {
	struct td_loop *l;
	struct td_config *cfg;
	struct td_gateway *g;
	char dir[64], base[64], ws[64];
	/* of one input */
	char sid[SESSIONS][300], token[SESSIONS][80], agent_token[SESSIONS][80], control_token[2][80];
	unsigned nsid;
	struct td_wslink *w[LINKS];
	bool open[LINKS];
	/* of the call at hand */
	bool done;
	int who;
	unsigned slot;
	char *learn;
} F;

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "gateway fuzz: %s\n", what);
	abort();
}

/* --- the gateway --------------------------------------------------------------------- */
static void remove_files(void)
{
	char path[100];
	static const char *const names[] = {"sessions.db", "sessions.db-wal", "sessions.db-shm"};
	for (size_t i = 0; i < TNL_COUNT(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", F.dir, names[i]);
		unlink(path);
	}
	rmdir(F.dir);
}

static void set_up(void)
{
	char why[400] = "";
	struct td_addr a;
	static const char text[] =
	    "[gateway]\nworkers = 1\nlisten = 127.0.0.1:0\ncertificate = x\nprivate_key = x\nstore = sqlite:sessions.db\nmax_sessions = 64\n"
	    "per_peer_connections = 1000\n"
	    "[user ops]\naccess_key_id = AKIDOPS\nsecret_access_key = ops-secret-long-enough\ntargets = i-*\n"
	    "[user dev]\naccess_key_id = AKIDDEV\nsecret_access_key = dev-secret-long-enough\ntargets = i-2*\n"
	    "[instance i-1]\naccess_key_id = AKIDI1\nsecret_access_key = i1-secret-long-enough\n"
	    "[instance i-2]\naccess_key_id = AKIDI2\nsecret_access_key = i2-secret-long-enough\n";
	snprintf(F.dir, sizeof(F.dir), "/tmp/tunneld-fuzz-XXXXXX");
	must(mkdtemp(F.dir) != NULL, "directory");
	atexit(remove_files);
	F.l = td_loop_new();
	F.cfg = td_config_parse(text, "fuzz.ini", F.dir, TD_ROLE_GATEWAY, stderr);
	must(F.l && F.cfg, "configuration");
	tnl_free(F.cfg->gw.certificate); /* without TLS, which has a fuzzer of its own */
	tnl_free(F.cfg->gw.private_key);
	F.cfg->gw.certificate = F.cfg->gw.private_key = NULL;
	F.g = td_gateway_new(F.l, F.cfg, why, sizeof(why));
	must(F.g && td_gateway_addr(F.g, 0, &a) == 0, why);
	F.g->arrival.unknown_until = F.g->arrival.known_until = 0;
	snprintf(F.base, sizeof(F.base), "http://127.0.0.1:%d", td_addr_port(&a));
	snprintf(F.ws, sizeof(F.ws), "ws://127.0.0.1:%d", td_addr_port(&a));
}

static void nothing(void *arg) {}

static void turns(int n)
{
	for (int i = 0; i < n; i++)
		ev_run(F.l->ev, EVRUN_NOWAIT);
}

/* Until the call is answered; the store has a thread of its own. */
static void wait_for(const bool *flag)
{
	struct td_timer t;
	td_timer_init(&t, F.l, nothing, NULL);
	for (int i = 0; i < 2000 && !*flag; i++) {
		td_timer_in(&t, 5 * TD_MS);
		ev_run(F.l->ev, EVRUN_ONCE);
		td_timer_stop(&t);
	}
	must(*flag, "no answer within ten seconds");
}

/* --- calls --------------------------------------------------------------------------- */
static void check_owner(const struct tnl_json *j)
{
	char mine[16];
	snprintf(mine, sizeof(mine), "%s-", F.who < 2 ? users[F.who] : "nobody");
	tnl_json_each(s, tnl_json_get(j, "Sessions")) {
		const char *id = tnl_json_get_str(s, "SessionId");
		must(id && strncmp(id, mine, strlen(mine)) == 0, "a session of another user is listed");
	}
	const char *id = tnl_json_get_str(j, "SessionId"), *token = tnl_json_get_str(j, "TokenValue");
	if (id && token) {
		must(strncmp(id, mine, strlen(mine)) == 0, "a token for a session of another user");
		snprintf(F.sid[F.slot], sizeof(F.sid[0]), "%s", id);
		snprintf(F.token[F.slot], sizeof(F.token[0]), "%s", token);
		F.nsid = TNL_MAX(F.nsid, F.slot + 1);
	}
}

static void on_reply(void *ctx, const struct td_http_client_response *r)
{
	F.done = true;
	if (r->err)
		return;
	if (F.learn) {
		char *t = NULL;
		if (tnl_create_reply_parse(r->body, r->body_len, &t) == 0 && strlen(t) < 80)
			snprintf(F.learn, 80, "%s", t);
		tnl_free(t);
		return;
	}
	struct tnl_json *j = tnl_json_parse(r->body, r->body_len);
	check_owner(j);
	tnl_json_free(j);
}

static void post(int who, const char *path, const char *service, const char *target, const void *body, size_t n)
{
	const char *const h[][2] = {{"Content-Type", "application/x-amz-json-1.1"}, {"X-Amz-Target", target}};
	const struct td_http_client_opts o = {.timeout_ns = 5 * TD_SEC};
	char url[400];
	snprintf(url, sizeof(url), "%s%s", F.base, path);
	F.done = false;
	F.who = who;
	if (!td_http_client_signed(F.l, "POST", url, h, target ? 2 : 1, body, n, &keys[who], "eu-west-1", service, &o,
				   on_reply, NULL))
		return;
	wait_for(&F.done);
	F.learn = NULL;
}

static void api(int who, const char *op, const void *body, size_t n)
{
	char target[80];
	snprintf(target, sizeof(target), "%s.%s", strcmp(op, "GetMessages") ? "AmazonSSM" : "TrentService", op);
	post(who, "/", strcmp(op, "GetMessages") ? "ssm" : "kms", target, body, n);
}

/* A JSON call whose one interesting member comes from the input, as JSON. */
static void api_with(int who, const char *op, const char *head, const uint8_t *p, size_t n)
{
	char body[400];
	int k = snprintf(body, sizeof(body), "{%s%.*s}", head, (int)TNL_MIN(n, (size_t)256), (const char *)p);
	api(who, op, body, (size_t)TNL_MIN(k, (int)sizeof(body) - 1));
}

static void call_op(uint8_t arg, const uint8_t *p, size_t n)
{
	static const char *const ops[] = {"StartSession",
					  "ResumeSession",
					  "TerminateSession",
					  "DescribeSessions",
					  "UpdateInstanceInformation",
					  "DescribeInstanceInformation",
					  "GetMessages",
					  "ListInstanceAssociations"};
	api(arg >> 6, ops[arg & 7], p, n);
}

static void start_op(uint8_t arg, const uint8_t *p, size_t n)
{
	char head[200];
	static const char *const docs[] = {"AWS-StartPortForwardingSession", "AWS-StartSSHSession",
					   "SSM-SessionManagerRunShell", "AWS-StartInteractiveCommand"};
	F.slot = arg >> 1 & (SESSIONS - 1);
	snprintf(head, sizeof(head), "\"Target\":\"%s\",\"DocumentName\":\"%s\"%s", instances[arg >> 3 & 1],
		 docs[arg >> 4 & 3], n ? "," : "");
	api_with(arg & 1, "StartSession", head, p, n);
}

static void session_op(uint8_t arg, const char *op)
{
	char body[400];
	F.slot = arg >> 1 & (SESSIONS - 1);
	int k = snprintf(body, sizeof(body), "{\"SessionId\":\"%s\"}", F.sid[F.slot]);
	api(arg & 1, op, body, (size_t)k);
}

static void create_op(uint8_t arg, bool data)
{
	static const char body[] = "{\"MessageSchemaVersion\":\"1.0\",\"RequestId\":\"r\",\"ClientId\":\"\"}";
	char path[400];
	unsigned s = arg >> 2 & (SESSIONS - 1);
	snprintf(path, sizeof(path), "/v1/%s/%s", data ? "data-channel" : "control-channel",
		 data ? F.sid[s] : instances[arg >> 1 & 1]);
	F.learn = data ? F.agent_token[s] : F.control_token[arg >> 1 & 1];
	post(2 + (arg & 1), path, "ssmmessages", NULL, body, sizeof(body) - 1);
	F.learn = NULL;
}

/* --- links --------------------------------------------------------------------------- */
static void on_message(void *ctx, enum tnl_ws_op op, uint8_t *p, size_t n) {}
static void on_open(void *ctx)
{
	F.open[(uintptr_t)ctx] = true;
}
static void on_closed(void *ctx, int err, uint16_t code, int http_status, const char *why)
{
	uintptr_t i = (uintptr_t)ctx;
	td_wslink_free(F.w[i]);
	F.w[i] = NULL;
	F.open[i] = false;
}

static void drop_link(unsigned i)
{
	if (F.w[i])
		td_wslink_free(F.w[i]);
	F.w[i] = NULL;
	F.open[i] = false;
}

/* kind: 0 a client's, 1 an agent's, 2 a control channel. */
static void link_op(uint8_t arg, bool unsigned_too)
{
	static const struct td_wslink_cb cb = {.open = on_open, .message = on_message, .closed = on_closed};
	unsigned i = arg % LINKS, kind = arg >> 3 & 3, s = arg >> 5 & (SESSIONS - 1);
	char url[400];
	struct td_wslink_opts o = {.timeout_ns = 5 * TD_SEC, .region = "eu-west-1"};
	drop_link(i);
	if (!(unsigned_too && kind == 0))
		o.keys = &keys[kind == 0 ? arg >> 7 : 2 + (arg >> 7)];
	snprintf(url, sizeof(url), "%s/v1/%s/%s?role=publish_subscribe", F.ws,
		 kind == 2 ? "control-channel" : "data-channel", kind == 2 ? instances[arg >> 7] : F.sid[s]);
	F.w[i] = td_wslink_dial(F.l, url, &o, &cb, (void *)(uintptr_t)i);
	for (int k = 0; k < 200 && F.w[i] && !F.open[i]; k++)
		turns(1);
}

static void token_op(uint8_t arg, const uint8_t *p, size_t n)
{
	unsigned i = arg % LINKS, s = arg >> 5 & (SESSIONS - 1);
	const char *tokens[] = {F.token[s], F.agent_token[s], F.control_token[s & 1], "wrong"};
	const struct tnl_open o = {.request_id = (char *)"r",
				   .token = (char *)(uintptr_t)tokens[arg >> 3 & 3],
				   .client_id = (arg >> 3 & 3) == 1 ? (char *)"" : (char *)"c", /* as create_op says */
				   .client_version = (char *)"1.2.0.0"};
	struct tnl_buf b;
	if (!F.w[i] || !F.open[i])
		return;
	tnl_buf_init(&b, 8192);
	if (n)
		tnl_buf_put(&b, p, n);
	else
		(void)tnl_open_write(&b, &o);
	(void)td_wslink_send(F.w[i], TNL_WS_TEXT, tnl_buf_data(&b), tnl_buf_len(&b));
	tnl_buf_fini(&b);
	turns(4);
}

static void frame_op(uint8_t arg, const uint8_t *p, size_t n, bool raw)
{
	uint8_t out[TNL_MSG_HDR + 256];
	unsigned i = arg % LINKS;
	struct tnl_msg m = {.type = (enum tnl_mtype)(arg >> 3 & 15),
			    .schema = 1,
			    .created_ms = 1,
			    .seq = n ? p[0] : 0,
			    .ptype = n > 1 ? p[1] & 15 : 1,
			    .payload = p,
			    .plen = (uint32_t)TNL_MIN(n, (size_t)256)};
	if (!F.w[i] || !F.open[i])
		return;
	if (raw)
		(void)td_wslink_send(F.w[i], TNL_WS_BINARY, p, n);
	else
		(void)td_wslink_send(F.w[i], TNL_WS_BINARY, out, tnl_msg_encode(out, &m));
	turns(4);
}

/* --- a script ------------------------------------------------------------------------- */
static void step(uint8_t op, uint8_t arg, const uint8_t *p, size_t n)
{
	switch (op % 12) {
	case 0:
		start_op(arg, p, n);
		break;
	case 1:
		session_op(arg, "ResumeSession");
		break;
	case 2:
		session_op(arg, "TerminateSession");
		break;
	case 3:
		api_with(arg & 1, "DescribeSessions",
			 n	   ? "\"State\":\"Active\","
			 : arg & 2 ? "\"State\":\"Active\""
				   : "\"State\":\"History\"",
			 p, n);
		break;
	case 4:
		api_with(arg & 1, "DescribeInstanceInformation", "", p, n);
		break;
	case 5:
		create_op(arg, arg & 2);
		break;
	case 6:
		create_op(arg, false);
		break;
	case 7:
		link_op(arg, op & 16);
		break;
	case 8:
		token_op(arg, p, n);
		break;
	case 9:
		frame_op(arg, p, n, false);
		break;
	case 10:
		if (arg & 128)
			drop_link(arg % LINKS);
		else
			frame_op(arg, p, n, true);
		break;
	default:
		call_op(arg, p, n);
	}
}

static void end_input(void)
{
	for (unsigned i = 0; i < LINKS; i++)
		drop_link(i);
	tnl_list_foreach_safe(it, &F.g->active)
		gw_session_end(tnl_container_of(it, struct gw_session, by_age), "Terminated", "");
	turns(8);
	tnl_list_foreach_safe(it, &F.g->history) /* of those that ended it keeps some */
		gw_session_free(tnl_container_of(it, struct gw_session, by_age));
	memset(F.sid, 0, sizeof(F.sid));
	memset(F.token, 0, sizeof(F.token));
	memset(F.agent_token, 0, sizeof(F.agent_token));
	F.nsid = 0;
}

static bool is_frame(uint8_t op, uint8_t arg)
{
	return op % 12 == 9 || (op % 12 == 10 && !(arg & 128));
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static size_t heap;
	if (!F.l) {
		set_up();
		heap = tnl_alloc_bytes();
	}
	uint64_t steps = tnl_steps_made, before, of_frames = 0;
	size_t at = 0;
	int ops = 0, frames = 0;
	for (; at + 3 <= n && ops < OPS_MAX; ops++) {
		size_t len = TNL_MIN((size_t)p[at + 2], n - at - 3);
		before = tnl_steps_made;
		step(p[at], p[at + 1], p + at + 3, len);
		if (is_frame(p[at], p[at + 1])) {
			frames++;
			of_frames += tnl_steps_made - before;
		}
		at += 3 + len;
		must(tnl_alloc_bytes() - heap < HEAP_MAX, "more memory than a gateway of this size may take");
	}
	must(of_frames < STEPS_OF_FRAMES + (uint64_t)frames * STEPS_A_FRAME, "more steps than frames are worth");
	must(tnl_steps_made - steps < STEPS_FIXED + (uint64_t)ops * STEPS_A_OP + at * STEPS_A_BYTE,
	     "more steps than the input has bytes for");
	end_input();
	tnl_spare_drop(); /* nobody's, and bounded by themselves */
	must(tnl_alloc_bytes() < heap + HEAP_AFTER, "memory is not given back");
	return 0;
}
