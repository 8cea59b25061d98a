/* A gateway in this process, and clients of it: signed calls and links.
 * Everything runs on one loop; wait_for() turns it until something is so. */
#ifndef GW_UTIL_H
#define GW_UTIL_H
#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/direct.h"
#include "lib/enc.h"
#include "lib/json.h"
#include "lib/message.h"
#include "lib/num.h"
#include "lib/steps.h"
#include "lib/tls.h"
#include "lib/wire.h"
#include "tunneld/net/http_client.h"
#include "tunneld/base/memory.h"
#include "tunneld/gateway/internal.h"
#include "tunneld/net/wslink.h"
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include <openssl/sha.h>

#ifndef GIVE_UP_NS
#define GIVE_UP_NS (20 * TD_SEC)
#endif

struct gwt {
	struct td_loop *l;
	struct td_config *cfg;
	struct td_gateway *g;
	struct tnl_tls_ctx *tls; /* of the clients */
	char dir[64], base[64], extra[1024];
	int port, descriptors;
	bool young; /* calls wait for instances, as after a start; else that time is over */
};
static struct gwt T;

static const struct tnl_sigv4_keys OPS = {"AKIDOPS", "ops-secret", NULL}, DEV = {"AKIDDEV", "dev-secret", NULL},
				   I1 = {"AKIDI1", "i1-secret", NULL}, I2 = {"AKIDI2", "i2-secret", NULL};

/* --- the loop ---------------------------------------------------------------- */
#define wait_for(cond)                                                                                                 \
	do {                                                                                                           \
		td_loop_update(T.l);                                                                                   \
		uint64_t give_up_ = T.l->now + GIVE_UP_NS;                                                             \
		while (!(cond)) {                                                                                      \
			turn();                                                                                        \
			if (T.l->now > give_up_)                                                                       \
				fail_msg("waited in vain for: %s", #cond);                                             \
		}                                                                                                      \
	} while (0)

static void nothing(void *arg) {}

static void turn(void)
{
	static struct td_timer t; /* so that a turn always ends */
	td_timer_init(&t, T.l, nothing, NULL);
	td_timer_in(&t, 100 * TD_MS);
	ev_run(T.l->ev, EVRUN_ONCE);
	td_timer_stop(&t);
	td_loop_update(T.l);
}

/* A moment in which something must not happen. */
static inline void turns_for(uint64_t ns)
{
	td_loop_update(T.l);
	for (uint64_t until = T.l->now + ns; T.l->now < until;)
		turn();
}

/* --- the gateway ------------------------------------------------------------------ */
static void write_file(const char *name, const char *text)
{
	char path[128];
	snprintf(path, sizeof(path), "%s/%s", T.dir, name);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	chmod(path, 0600);
}

static struct td_config *config(const char *sections)
{
	char text[4096];
	snprintf(
	    text, sizeof(text),
	    "[tunneld]\nlog_level = warn\n[gateway]\nworkers = 1\nlisten = 127.0.0.1:%d\ncertificate = gw.pem\nprivate_key = gw.key\n"
	    "store = sqlite:sessions.db\n%s\n%s",
	    T.port, T.extra,
	    sections
		? sections
		: "[user ops]\naccess_key_id = AKIDOPS\nsecret_access_key = ops-secret\ntargets = i-*\n"
		  "[user dev]\naccess_key_id = AKIDDEV\nsecret_access_key = dev-secret\ntargets = i-2*\n"
		  "[instance i-1]\naccess_key_id = AKIDI1\nsecret_access_key = i1-secret\ntags = secret=yes\n"
		  "[instance i-2]\naccess_key_id = AKIDI2\nsecret_access_key = i2-secret\ntags = Name = the db, env=prod\n");
	struct td_config *c = td_config_parse(text, "test.ini", T.dir, TD_ROLE_GATEWAY | TD_ROLE_FILES, stderr);
	assert_non_null(c);
	return c;
}

static void gateway_start(void)
{
	char why[400] = "";
	T.cfg = config(NULL);
	T.g = td_gateway_new(T.l, T.cfg, why, sizeof(why));
	if (!T.g)
		fail_msg("%s", why);
	if (!T.young)
		T.g->arrival.unknown_until = T.g->arrival.known_until = 0;
	struct td_addr a;
	assert_int_equal(td_gateway_addr(T.g, 0, &a), 0);
	T.port = td_addr_port(&a);
	snprintf(T.base, sizeof(T.base), "https://127.0.0.1:%d", T.port);
}

static void gateway_stop(void)
{
	td_gateway_free(T.g);
	td_config_free(T.cfg);
	T.g = NULL;
	T.cfg = NULL;
}

static uint64_t test_time(void *ctx)
{
	return T.l->wall_ms / 1000;
}

static int open_descriptors(void)
{
	int n = 0;
	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void test_begin(const char *extra)
{
	int before = open_descriptors();
	char *ca, *ca_key, *cert, *key, why[200];
	memset(&T, 0, sizeof(T));
	T.descriptors = before;
	snprintf(T.dir, sizeof(T.dir), "/tmp/tunneld-gw-XXXXXX");
	assert_non_null(mkdtemp(T.dir));
	T.l = td_loop_new();
	td_memory_limit(96u << 20);
	uint64_t now = T.l->wall_ms / 1000;
	assert_int_equal(tnl_x509_make("CA", NULL, NULL, NULL, now - 3600, now + 86400, &ca, &ca_key), 0);
	assert_int_equal(tnl_x509_make("gw", "127.0.0.1", ca, ca_key, now - 3600, now + 86400, &cert, &key), 0);
	write_file("gw.pem", cert);
	write_file("gw.key", key);
	const struct tnl_tls_config tc = {.ca_pem = ca, .ca_pem_len = strlen(ca), .unix_time = test_time};
	T.tls = tnl_tls_ctx_new(&tc, why, sizeof(why));
	assert_non_null(T.tls);
	tnl_free(ca);
	tnl_free(ca_key);
	tnl_free(cert);
	tnl_free(key);
	snprintf(T.extra, sizeof(T.extra), "%s", extra ? extra : "");
	gateway_start();
}

static int test_end(void **state)
{
	char cmd[128];
	if (T.g)
		gateway_stop();
	assert_true(td_memory_told() == 0); /* nothing that was relayed is still held */
	tnl_tls_ctx_free(T.tls);
	td_loop_free(T.l);
	assert_int_equal(open_descriptors(), T.descriptors);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", T.dir);
	return system(cmd);
}

/* A number of the status: "sessions_active", "counters/idle_timeouts". */
static long status_of(const char *path)
{
	struct tnl_buf b;
	char part[64];
	tnl_buf_init(&b, 1u << 20);
	td_gateway_status(T.g, &b);
	struct tnl_json *root = tnl_json_parse(tnl_buf_data(&b), tnl_buf_len(&b));
	assert_non_null(root);
	const struct tnl_json *j = root;
	for (const char *p = path; *p; p += p[0] == '/') {
		size_t n = strcspn(p, "/");
		snprintf(part, sizeof(part), "%.*s", (int)n, p);
		j = part[0] >= '0' && part[0] <= '9' ? tnl_json_at(j, atoi(part)) : tnl_json_get(j, part);
		p += n;
	}
	int64_t v = -1;
	if (!tnl_json_int(j, &v))
		v = tnl_json_bool(j, false);
	tnl_json_free(root);
	tnl_buf_fini(&b);
	return (long)v;
}

/* --- calls -------------------------------------------------------------------------- */
struct reply {
	bool done;
	int err, status;
	char body[8192], type[96], request_id[64];
	struct tnl_json *json;
};
static struct reply R; /* the last one */

static void on_reply(void *ctx, const struct td_http_client_response *r)
{
	struct reply *o = ctx;
	o->done = true;
	o->err = r->err;
	o->status = r->status;
	if (r->err)
		return;
	size_t n = 0;
	const char *id = tnl_http_get(r->head, "x-amzn-RequestId", &n);
	snprintf(o->request_id, sizeof(o->request_id), "%.*s", (int)n, id ? id : "");
	snprintf(o->body, sizeof(o->body), "%.*s", (int)r->body_len, (const char *)r->body);
	o->json = tnl_json_parse(r->body, r->body_len);
	const char *t = tnl_json_get_str(o->json, "__type");
	snprintf(o->type, sizeof(o->type), "%s", t ? t : "");
}

static void reply_clear(struct reply *r)
{
	tnl_json_free(r->json);
	memset(r, 0, sizeof(*r));
}

static void call_begin(struct reply *r, const struct tnl_sigv4_keys *k, const char *service, const char *target,
		       const char *body)
{
	const char *const h[][2] = {{"Content-Type", "application/x-amz-json-1.1"}, {"X-Amz-Target", target}};
	const struct td_http_client_opts o = {.tls = T.tls};
	char url[80];
	snprintf(url, sizeof(url), "%s/", T.base);
	reply_clear(r);
	assert_non_null(td_http_client_signed(T.l, "POST", url, h, 2, body, strlen(body), k, "eu-west-1", service, &o,
					      on_reply, r));
}

static int call(const struct tnl_sigv4_keys *k, const char *service, const char *target, const char *body)
{
	call_begin(&R, k, service, target, body);
	wait_for(R.done);
	assert_int_equal(R.err, 0);
	assert_true(R.request_id[0] != 0);
	return R.status;
}

static int ssm(const struct tnl_sigv4_keys *k, const char *op, const char *body)
{
	char target[80];
	snprintf(target, sizeof(target), "AmazonSSM.%s", op);
	return call(k, "ssm", target, body);
}

#define refused_as(k, op, body, error)                                                                                 \
	do {                                                                                                           \
		assert_int_equal(ssm(k, op, body), 400);                                                               \
		assert_string_equal(R.type, error);                                                                    \
	} while (0)

/* POST of a channel: status, and the token or "". */
static int post_channel(const struct tnl_sigv4_keys *k, const char *path, const char *body, char token[64])
{
	const char *const h[][2] = {{"Content-Type", "application/json"}};
	const struct td_http_client_opts o = {.tls = T.tls};
	char url[400], *t = NULL;
	snprintf(url, sizeof(url), "%s%s", T.base, path);
	reply_clear(&R);
	if (k)
		assert_non_null(td_http_client_signed(T.l, "POST", url, h, 1, body, strlen(body), k, "eu-west-1",
						      "ssmmessages", &o, on_reply, &R));
	else
		assert_non_null(td_http_client_request(T.l, "POST", url, h, 1, body, strlen(body), &o, on_reply, &R));
	wait_for(R.done);
	assert_int_equal(R.err, 0);
	token[0] = 0;
	if (R.status == 201) {
		assert_int_equal(tnl_create_reply_parse(R.body, strlen(R.body), &t), 0);
		snprintf(token, 64, "%s", t);
		tnl_free(t);
	}
	return R.status;
}

/* --- links ----------------------------------------------------------------------------- */
struct frame {
	enum tnl_mtype type;
	uint32_t ptype;
	int64_t seq;
	uint64_t flags;
	size_t n;
	uint64_t at;
	char text[2048];
};
struct end {
	struct td_wslink *w;
	bool open, closed;
	int http_status;
	uint16_t code;
	int n; /* frames that came; the first 64 are kept */
	uint64_t bytes;
	struct frame f[64];
	int words;		/* about direct links: not among the frames */
	struct tnl_direct word; /* the last of them */
	SHA256_CTX sum;		/* over the payloads of stream messages */
};

static void end_open(void *ctx)
{
	((struct end *)ctx)->open = true;
}
static void end_message(void *ctx, enum tnl_ws_op op, uint8_t *p, size_t n)
{
	struct end *e = ctx;
	struct tnl_msg m;
	int rc = tnl_msg_decode(p, n, &m, NULL);
	assert_int_equal(op, TNL_WS_BINARY);
	assert_int_equal(rc, 0); /* digest and all: the relay changes nothing */
	if (m.type == TNL_MT_DIRECT) {
		assert_int_equal(tnl_direct_parse(m.payload, m.plen, &e->word), 0);
		e->words++;
		return;
	}
	if (e->n < 64) {
		struct frame *f = &e->f[e->n];
		*f = (struct frame){
		    .type = m.type, .ptype = m.ptype, .seq = m.seq, .flags = m.flags, .n = m.plen, .at = T.l->now};
		snprintf(f->text, sizeof(f->text), "%.*s", (int)m.plen, (const char *)m.payload);
	}
	e->n++;
	if (m.type == TNL_MT_INPUT || m.type == TNL_MT_OUTPUT) {
		e->bytes += m.plen;
		SHA256_Update(&e->sum, m.payload, m.plen);
	}
}
static void end_writable(void *ctx) {}
static void end_closed(void *ctx, int err, uint16_t code, int http_status, const char *why)
{
	struct end *e = ctx;
	e->closed = true;
	e->code = code;
	e->http_status = http_status;
	td_wslink_free(e->w);
	e->w = NULL;
}
static const struct td_wslink_cb end_cb = {.open = end_open,
					   .message = end_message,
					   .writable = end_writable,
					   .closed = end_closed};

static void end_reset(struct end *e)
{
	if (e->w)
		td_wslink_free(e->w);
	memset(e, 0, sizeof(*e));
	SHA256_Init(&e->sum);
}

static void dial(struct end *e, const struct tnl_sigv4_keys *k, const char *path)
{
	char url[400];
	const struct td_wslink_opts o = {.tls = T.tls, .keys = k, .region = "eu-west-1", .service = "ssmmessages"};
	snprintf(url, sizeof(url), "wss%.50s%.300s", T.base + 5, path);
	end_reset(e);
	e->w = td_wslink_dial(T.l, url, &o, &end_cb, e);
	assert_non_null(e->w);
	wait_for(e->open || e->closed);
}

static void send_open(struct end *e, const struct tnl_open *o)
{
	struct tnl_buf b;
	tnl_buf_init(&b, 4096);
	assert_int_equal(tnl_open_write(&b, o), 0);
	assert_int_equal(td_wslink_send(e->w, TNL_WS_TEXT, tnl_buf_data(&b), tnl_buf_len(&b)), 0);
	tnl_buf_fini(&b);
}

#define RID (char *)"c979c0ac-5106-4849-998a-ffa5f56fcbba"
static void open_client(struct end *e, const char *session, const char *token, const char *client_id)
{
	char path[200];
	snprintf(path, sizeof(path), "/v1/data-channel/%s?role=publish_subscribe", session);
	dial(e, NULL, path);
	assert_true(e->open);
	const struct tnl_open o = {.request_id = RID,
				   .token = (char *)token,
				   .client_id = (char *)client_id,
				   .client_version = (char *)"1.2.764.0"};
	send_open(e, &o);
}

static void open_agent_token(struct end *e, const struct tnl_sigv4_keys *k, const char *session, const char *token,
			     const char *client_id)
{
	char path[200];
	snprintf(path, sizeof(path), "/v1/data-channel/%s?role=publish_subscribe", session);
	dial(e, k, path);
	assert_true(e->open);
	const struct tnl_open o = {.request_id = RID,
				   .token = (char *)token,
				   .client_id = (char *)client_id,
				   .client_instance_id =
				       (char *)"i-1"}; /* whoever signs: the claim alone must not do */
	send_open(e, &o);
}

static const char create_body[] =
    "{\"MessageSchemaVersion\":\"1.0\",\"RequestId\":\"200604f7-a5e3-4600-940f-7e56e8b1d6e1\",\"ClientId\":\"\"}";

static void open_agent(struct end *e, const struct tnl_sigv4_keys *k, const char *session)
{
	char path[200], token[64];
	snprintf(path, sizeof(path), "/v1/data-channel/%s", session);
	assert_int_equal(post_channel(k, path, create_body, token), 201);
	open_agent_token(e, k, session, token, "");
}

static void open_control(struct end *e, const struct tnl_sigv4_keys *k, const char *id)
{
	char path[220], token[64];
	long before = status_of("counters/tokens_used");
	snprintf(path, sizeof(path), "/v1/control-channel/%s", id);
	assert_int_equal(post_channel(k, path, create_body, token), 201);
	strcat(path, "?role=subscribe&stream=input");
	dial(e, k, path);
	assert_true(e->open);
	const struct tnl_open o = {.request_id = RID,
				   .token = token,
				   .agent_version = (char *)"3.3.0.0",
				   .platform_type = (char *)"linux"};
	send_open(e, &o);
	wait_for(status_of("counters/tokens_used") == before + 1);
}

/* --- sessions --------------------------------------------------------------------------- */
struct ses {
	char id[150], token[64];
	struct end client, agent;
};

static void grant(struct ses *s)
{
	assert_int_equal(R.status, 200);
	snprintf(s->id, sizeof(s->id), "%s", tnl_json_get_str(R.json, "SessionId"));
	snprintf(s->token, sizeof(s->token), "%s", tnl_json_get_str(R.json, "TokenValue"));
}

static inline void session_start(struct ses *s, const char *target)
{
	char body[200];
	snprintf(body, sizeof(body),
		 "{\"Target\":\"%s\",\"DocumentName\":\"AWS-StartPortForwardingSession\","
		 "\"Parameters\":{\"portNumber\":[\"5432\"],\"localPortNumber\":[\"0\"]}}",
		 target);
	memset(s, 0, sizeof(*s));
	ssm(&OPS, "StartSession", body);
	grant(s);
}

static inline void session_resume(struct ses *s)
{
	char body[200];
	snprintf(body, sizeof(body), "{\"SessionId\":\"%s\"}", s->id);
	assert_int_equal(ssm(&OPS, "ResumeSession", body), 200);
	grant(s);
}

/* Started, and both ends there. */
static inline void session_up(struct ses *s)
{
	session_start(s, "i-1");
	open_client(&s->client, s->id, s->token, "client-1");
	open_agent(&s->agent, &I1, s->id);
	wait_for(s->client.n == 1 && s->agent.n == 1);
	assert_int_equal(s->client.f[0].type, TNL_MT_START_PUBLICATION);
	assert_int_equal(s->agent.f[0].type, TNL_MT_START_PUBLICATION);
	s->client.n = s->agent.n = 0;
}

static inline void session_done(struct ses *s)
{
	end_reset(&s->client);
	end_reset(&s->agent);
}

static inline int send_msg(struct end *e, enum tnl_mtype t, uint32_t ptype, int64_t seq, const void *p, size_t n)
{
	uint8_t *out = malloc(TNL_MSG_HDR + n);
	struct tnl_msg m = {.type = t,
			    .schema = 1,
			    .created_ms = 1795338608809ull,
			    .seq = seq,
			    .ptype = ptype,
			    .payload = p,
			    .plen = (uint32_t)n};
	tnl_uuid_new(m.id);
	size_t len = tnl_msg_encode(out, &m);
	int rc = td_wslink_send(e->w, TNL_WS_BINARY, out, len);
	free(out);
	return rc;
}

#endif
