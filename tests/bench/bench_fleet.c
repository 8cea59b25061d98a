/* Many agents and their sessions, as one process that holds their connections: what a gateway costs for each.
 *
 *   bench_fleet FLEET_URL[,FLEET_URL…] API_URL CA_FILE FIRST COUNT [SPREAD_MS]
 *
 * Agent number k is instance i-%017u with the key AKIAFLEET%011u and the secret fleet-secret-of-%011u; the user's key
 * is AKIAFLEETUSER with the secret fleet-secret-of-the-user.  It dials the control channels of COUNT agents from number
 * FIRST on, within SPREAD_MS, and for ever again with an agent's back-off (100 ms to 5 s, full jitter).  Of several
 * URLs agent k begins with number k modulo their count, and takes the next one whenever one fails.  Commands come on
 * standard input, a line each; answers are lines of JSON:
 *
 *   again               what follows is measured from here
 *   wait SECONDS        until all are up, or so long: how many are, in what time, how often they were refused meanwhile
 *   hold N              N sessions, both of whose data channels are opened and held
 *   start N CALLERS     N calls of StartSession, each ended by TerminateSession, by so many callers beside each other
 *   quit
 *
 * Nothing here has a second way of speaking to a gateway: HTTP, SigV4, WebSockets and frames are the program's own. */
#include "lib/alloc.h"
#include "lib/json.h"
#include "lib/message.h"
#include "lib/num.h"
#include "lib/wire.h"
#include "tunneld/base/file.h"
#include "tunneld/base/loop.h"
#include "tunneld/net/http_client.h"
#include "tunneld/net/wslink.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define REGION "eu-west-1"
#define CLIENT_ID "5d0b1d0a-0000-4000-8000-000000000001"

/* One WebSocket: a call that gives its token, if it is an agent's, then the upgrade, then the token frame. */
struct channel {
	char path[200];
	const char *url;
	const struct tnl_sigv4_keys *keys; /* of the upgrade and the call; NULL: a client's, with the token there is */
	struct td_http_kept *kept;
	char *token;
	struct td_http_client *call;
	struct td_wslink *w;
	void (*ended)(struct channel *c, bool was_up);
	void (*got)(struct channel *c, const uint8_t *p, size_t n);
	void (*is_up)(struct channel *c);
	bool up;
};

struct agent {
	unsigned number;
	char id[24], key_id[32], secret[40];
	struct tnl_sigv4_keys keys;
	struct td_http_kept kept; /* as an agent has it: the connection of a call becomes its channel's */
	struct channel control;
	struct td_backoff backoff;
	struct td_timer timer;
	unsigned refused, node;
	uint64_t up_at;
};

struct held {
	struct channel client, agent;
};

struct caller {
	struct td_http_client *call;
	char session[200];
};

static struct {
	struct td_loop *l;
	struct tnl_tls_ctx *tls;
	struct td_http_kept kept; /* the user's */
	char *nodes[8];
	unsigned nnodes;
	const char *api; /* a balancer brings both ends of a session to the node that it was started by */
	struct agent *agents;
	unsigned count, up, calls_refused, most_refused;
	uint64_t began;
	struct td_timer timer;
	char line[200];
	size_t len;
	enum { IDLE, WAITING, HOLDING, STARTING } busy;
	/* hold */
	struct held *held;
	unsigned nheld, want, both_up, next;
	/* start */
	struct caller callers[64];
	unsigned ncallers, started, todo, failed;
} F;

static const struct tnl_sigv4_keys user_keys = {"AKIAFLEETUSER", "fleet-secret-of-the-user", NULL};

static void fail(const char *what, const char *why)
{
	fprintf(stderr, "bench_fleet: %s: %s\n", what, why);
	exit(1);
}

static double seconds_since(uint64_t t)
{
	td_loop_update(F.l);
	return (double)(F.l->now - t) / (double)TD_SEC;
}

/* --- a channel ----------------------------------------------------------------------- */
static void channel_ended(struct channel *c)
{
	bool was_up = c->up;
	c->up = false;
	td_wslink_free(c->w);
	c->w = NULL;
	c->ended(c, was_up);
}

static void on_open(void *ctx)
{
	struct channel *c = ctx;
	const struct tnl_open o = {.request_id = (char *)(uintptr_t) "5d0b1d0a-0000-4000-8000-000000000000",
				   .token = c->token,
				   .client_id = (char *)(uintptr_t) "5d0b1d0a-0000-4000-8000-000000000001",
				   .client_version = (char *)(uintptr_t) "1.2.764.0"};
	struct tnl_buf b;
	tnl_buf_init(&b, 4096);
	if (tnl_open_write(&b, &o) != 0 || td_wslink_send(c->w, TNL_WS_TEXT, tnl_buf_data(&b), tnl_buf_len(&b)) != 0)
		fail("token frame", "it cannot be sent");
	tnl_buf_fini(&b);
	c->up = true;
	c->is_up(c);
}

static void on_message(void *ctx, enum tnl_ws_op op, uint8_t *p, size_t n)
{
	struct channel *c = ctx;
	if (op == TNL_WS_BINARY && c->got)
		c->got(c, p, n);
}

static void on_closed(void *ctx, int err, uint16_t code, int http_status, const char *why)
{
	channel_ended(ctx);
}

static void channel_upgrade(struct channel *c)
{
	static const struct td_wslink_cb cb = {.open = on_open, .message = on_message, .closed = on_closed};
	const struct td_wslink_opts o = {.tls = F.tls,
					 .keys = c->keys,
					 .kept = c->kept,
					 .region = REGION,
					 .ping_ns = 300 * TD_SEC,
					 .pong_ns = 60 * TD_SEC};
	char url[400];
	snprintf(url, sizeof(url), "ws%s/v1/%s", c->url + 4, c->path);
	c->w = td_wslink_dial(F.l, url, &o, &cb, c);
	if (!c->w)
		fail(url, "it cannot be dialed");
}

static void on_created(void *ctx, const struct td_http_client_response *r)
{
	struct channel *c = ctx;
	c->call = NULL;
	free(c->token);
	c->token = NULL;
	char *token = NULL;
	if (r->err || r->status != 201 || tnl_create_reply_parse(r->body, r->body_len, &token) != 0) {
		c->ended(c, false);
		return;
	}
	c->token = strdup(token);
	tnl_free(token);
	channel_upgrade(c);
}

static void channel_open(struct channel *c)
{
	static const char *const no_headers[1][2];
	const struct td_http_client_opts o = {.tls = F.tls, .timeout_ns = 15 * TD_SEC, .kept = c->kept};
	struct tnl_buf b;
	char url[400];
	if (!c->keys) {
		channel_upgrade(c);
		return;
	}
	size_t n = strcspn(c->path, "?");
	snprintf(url, sizeof(url), "%s/v1/%.*s", c->url, (int)n, c->path);
	tnl_buf_init(&b, 1000);
	if (tnl_create_write(&b, "5d0b1d0a-0000-4000-8000-000000000002",
			     strncmp(c->path, "data", 4) == 0 ? CLIENT_ID : NULL, 0) != 0)
		fail("channel creation", "no memory");
	c->call = td_http_client_signed(F.l, "POST", url, no_headers, 0, tnl_buf_data(&b), tnl_buf_len(&b), c->keys,
					REGION, "ssmmessages", &o, on_created, c);
	tnl_buf_fini(&b);
	if (!c->call)
		fail(url, "it cannot be called");
}

/* --- agents -------------------------------------------------------------------------- */
static void answer_wait(void)
{
	printf("{\"up\": %u, \"seconds\": %.3f, \"refused\": %u, \"most_refused\": %u}\n", F.up, seconds_since(F.began),
	       F.calls_refused, F.most_refused);
	fflush(stdout);
	F.busy = IDLE;
	td_timer_stop(&F.timer);
}

static void agent_is_up(struct channel *c)
{
	struct agent *a = tnl_container_of(c, struct agent, control);
	F.up++;
	a->refused = 0;
	a->up_at = F.l->now;
	if (F.up == F.count && F.busy == WAITING)
		answer_wait();
}

static void agent_ended(struct channel *c, bool was_up)
{
	struct agent *a = tnl_container_of(c, struct agent, control);
	F.up -= was_up;
	if (was_up) {
		td_backoff_up(&a->backoff, F.l->now - a->up_at);
	} else {
		F.calls_refused++;
		F.most_refused = TNL_MAX(F.most_refused, ++a->refused);
		a->node = (a->node + 1) % F.nnodes;
		a->control.url = F.nodes[a->node];
	}
	td_timer_in(&a->timer, td_backoff_next(&a->backoff));
}

/* Of the session's two ends either may be the first to hear of it. NULL: more than are to be held. */
static struct held *held_of(const char *session)
{
	char path[sizeof(F.held->client.path)];
	snprintf(path, sizeof(path), "data-channel/%s?role=publish_subscribe", session);
	for (unsigned i = 0; i < F.nheld; i++)
		if (strcmp(F.held[i].client.path, path) == 0)
			return &F.held[i];
	if (F.nheld == F.want)
		return NULL;
	struct held *h = &F.held[F.nheld++];
	snprintf(h->client.path, sizeof(h->client.path), "%s", path);
	snprintf(h->agent.path, sizeof(h->agent.path), "%s", path);
	h->client.url = h->agent.url = F.api;
	return h;
}

static void held_up(struct channel *c)
{
	c->up = false; /* until the gateway says something: the token was taken, and the other end is there */
}

static void held_got(struct channel *c, const uint8_t *p, size_t n)
{
	F.both_up += !c->up;
	c->up = true;
	if (F.both_up == 2 * F.want && F.busy == HOLDING) {
		printf("{\"channels\": %u, \"seconds\": %.3f}\n", F.both_up, seconds_since(F.began));
		fflush(stdout);
		F.busy = IDLE;
	}
}

static void held_ended(struct channel *c, bool was_up)
{
	F.both_up -= was_up;
}

/* A session is to start here: its data channel is opened, if it is one that is to be held. */
static void agent_got(struct channel *c, const uint8_t *p, size_t n)
{
	struct agent *a = tnl_container_of(c, struct agent, control);
	struct tnl_start start;
	struct tnl_msg m;
	const char *fault;
	if (tnl_msg_decode(p, n, &m, NULL) != 0 || m.type != TNL_MT_INTERACTIVE_SHELL || F.busy != HOLDING ||
	    tnl_start_parse(m.payload, m.plen, &start, &fault) != 0)
		return;
	struct held *h = held_of(start.session_id);
	if (h) {
		h->agent.keys = &a->keys;
		h->agent.kept = &a->kept;
		h->agent.is_up = held_up;
		h->agent.got = held_got;
		h->agent.ended = held_ended;
		channel_open(&h->agent);
	}
	tnl_start_fini(&start);
}

static void agent_dial(void *arg)
{
	struct agent *a = arg;
	channel_open(&a->control);
}

static void agents_start(unsigned first, unsigned count, unsigned spread_ms)
{
	F.agents = calloc(count, sizeof(*F.agents));
	F.count = count;
	for (unsigned i = 0; i < count; i++) {
		struct agent *a = &F.agents[i];
		a->number = first + i;
		snprintf(a->id, sizeof(a->id), "i-%017u", a->number);
		snprintf(a->key_id, sizeof(a->key_id), "AKIAFLEET%011u", a->number);
		snprintf(a->secret, sizeof(a->secret), "fleet-secret-of-%011u", a->number);
		a->keys = (struct tnl_sigv4_keys){a->key_id, a->secret, NULL};
		a->node = a->number % F.nnodes;
		td_http_kept_init(&a->kept, F.l);
		a->control = (struct channel){.keys = &a->keys,
					      .kept = &a->kept,
					      .url = F.nodes[a->node],
					      .is_up = agent_is_up,
					      .ended = agent_ended,
					      .got = agent_got};
		snprintf(a->control.path, sizeof(a->control.path), "control-channel/%s?role=subscribe&stream=input",
			 a->id);
		td_backoff_init(&a->backoff, 100 * TD_MS, 5 * TD_SEC);
		td_timer_init(&a->timer, F.l, agent_dial, a);
		td_timer_in(&a->timer, spread_ms * TD_MS * i / count);
	}
}

/* --- the user ------------------------------------------------------------------------ */
static struct td_http_client *call_api(const char *op, const char *body, td_http_client_fn *fn, void *ctx)
{
	char target[80];
	const char *const h[][2] = {{"Content-Type", "application/x-amz-json-1.1"}, {"X-Amz-Target", target}};
	const struct td_http_client_opts o = {.tls = F.tls, .timeout_ns = 15 * TD_SEC, .kept = &F.kept};
	snprintf(target, sizeof(target), "AmazonSSM.%s", op);
	return td_http_client_signed(F.l, "POST", F.api, h, 2, body, strlen(body), &user_keys, REGION, "ssm", &o, fn,
				     ctx);
}

static const char *start_body(char *out, size_t cap)
{
	snprintf(out, cap,
		 "{\"Target\":\"%s\",\"DocumentName\":\"AWS-StartPortForwardingSession\",\"Parameters\":{"
		 "\"portNumber\":[\"80\"]}}",
		 F.agents[F.next++ % F.count].id);
	return out;
}

static void on_held_start(void *ctx, const struct td_http_client_response *r)
{
	struct tnl_json *j = r->err ? NULL : tnl_json_parse(r->body, r->body_len);
	const char *id = tnl_json_get_str(j, "SessionId"), *token = tnl_json_get_str(j, "TokenValue");
	struct held *h = id ? held_of(id) : NULL;
	if (!h || !token)
		fail("StartSession", r->err ? r->why : "refused");
	h->client.token = strdup(token);
	h->client.kept = &F.kept;
	h->client.is_up = held_up;
	h->client.got = held_got;
	h->client.ended = held_ended;
	channel_open(&h->client);
	tnl_json_free(j);
	char body[300];
	if (F.todo > 0 && F.todo--)
		(void)call_api("StartSession", start_body(body, sizeof(body)), on_held_start, NULL);
}

static void hold(unsigned n)
{
	char body[300];
	F.held = calloc(n, sizeof(*F.held));
	F.want = n;
	F.busy = HOLDING;
	F.began = F.l->now;
	F.todo = n;
	for (unsigned i = 0; i < 8 && F.todo; i++, F.todo--)
		(void)call_api("StartSession", start_body(body, sizeof(body)), on_held_start, NULL);
}

static void next_start(struct caller *c);

static void on_terminated(void *ctx, const struct td_http_client_response *r)
{
	F.failed += r->err || r->status != 200;
	next_start(ctx);
}

static void on_started(void *ctx, const struct td_http_client_response *r)
{
	struct caller *c = ctx;
	struct tnl_json *j = r->err ? NULL : tnl_json_parse(r->body, r->body_len);
	const char *id = tnl_json_get_str(j, "SessionId");
	char body[300];
	F.started++;
	if (!id)
		fail("StartSession", r->err ? r->why : "refused");
	snprintf(body, sizeof(body), "{\"SessionId\":\"%s\"}", id);
	tnl_json_free(j);
	c->call = call_api("TerminateSession", body, on_terminated, c);
}

static void next_start(struct caller *c)
{
	char body[300];
	if (F.todo == 0) {
		if (--F.ncallers == 0) {
			printf("{\"started\": %u, \"failed\": %u, \"seconds\": %.3f}\n", F.started, F.failed,
			       seconds_since(F.began));
			fflush(stdout);
			F.busy = IDLE;
		}
		return;
	}
	F.todo--;
	c->call = call_api("StartSession", start_body(body, sizeof(body)), on_started, c);
}

static void start(unsigned n, unsigned callers)
{
	F.ncallers = TNL_MIN(callers, (unsigned)TNL_COUNT(F.callers));
	F.todo = n;
	F.started = F.failed = 0;
	F.busy = STARTING;
	F.began = F.l->now;
	for (unsigned i = 0, k = F.ncallers; i < k; i++)
		next_start(&F.callers[i]);
}

/* --- commands ------------------------------------------------------------------------ */
static void waited(void *arg)
{
	answer_wait();
}

static void command(char *line)
{
	unsigned a = 0, b = 1;
	char word[16] = "";
	if (sscanf(line, "%15s %u %u", word, &a, &b) < 1 || F.busy != IDLE)
		fail("not a command now", line);
	F.began = strcmp(word, "wait") == 0 && F.began ? F.began : F.l->now;
	if (strcmp(word, "wait") == 0) {
		F.busy = WAITING;
		td_timer_in(&F.timer, a * TD_SEC);
		if (F.up == F.count)
			answer_wait();
	} else if (strcmp(word, "again") == 0) { /* the time counts from here, and so do refusals */
		F.began = F.l->now;
		F.calls_refused = F.most_refused = 0;
	} else if (strcmp(word, "hold") == 0) {
		hold(a);
	} else if (strcmp(word, "start") == 0) {
		start(a, b);
	} else if (strcmp(word, "quit") == 0) {
		_exit(0);
	} else {
		fail("not a command", line);
	}
}

static void on_input(struct ev_loop *ev, ev_io *w, int events)
{
	ssize_t n = read(0, F.line + F.len, sizeof(F.line) - 1 - F.len);
	if (n <= 0)
		_exit(0);
	F.len += (size_t)n;
	F.line[F.len] = 0;
	td_loop_update(F.l);
	for (char *end; (end = strchr(F.line, '\n')) != NULL;) {
		*end++ = 0;
		command(F.line);
		F.len = strlen(end);
		memmove(F.line, end, F.len + 1);
	}
}

static uint64_t unix_time(void *ctx)
{
	return F.l->wall_ms / 1000;
}

static void open_tls(const char *ca_file)
{
	char why[300] = "";
	struct tnl_tls_config c = {.unix_time = unix_time};
	char *pem = td_file_read(ca_file, 1 << 20, 0, &c.ca_pem_len, NULL);
	if (!pem)
		fail(ca_file, strerror(errno));
	c.ca_pem = pem;
	F.tls = tnl_tls_ctx_new(&c, why, sizeof(why));
	if (!F.tls)
		fail(ca_file, why);
}

int main(int argc, char **argv)
{
	struct rlimit r;
	ev_io in;
	if (argc < 6)
		fail("usage", "bench_fleet FLEET_URL[,FLEET_URL…] API_URL CA_FILE FIRST COUNT [SPREAD_MS]");
	if (getrlimit(RLIMIT_NOFILE, &r) == 0) {
		r.rlim_cur = r.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &r);
	}
	F.l = td_loop_new();
	for (char *save, *u = strtok_r(argv[1], ",", &save); u && F.nnodes < TNL_COUNT(F.nodes);
	     u = strtok_r(NULL, ",", &save))
		F.nodes[F.nnodes++] = u;
	F.api = argv[2];
	td_http_kept_init(&F.kept, F.l);
	open_tls(argv[3]);
	td_timer_init(&F.timer, F.l, waited, NULL);
	F.began = F.l->now;
	agents_start((unsigned)atoi(argv[4]), (unsigned)atoi(argv[5]), argc > 6 ? (unsigned)atoi(argv[6]) : 0);
	ev_io_init(&in, on_input, 0, EV_READ);
	ev_io_start(F.l->ev, &in);
	td_loop_run(F.l);
	return 0;
}
