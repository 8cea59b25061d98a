/* The Redis client: dialing in turn, the greeting (AUTH, SELECT, ROLE, PING), commands in a pipeline, a subscriber's
 * channels.  Two lists: `waiting` has what is not wholly written, `sent` what waits for its answer, in the order of the
 * answers.  Every command has the same time, so the first of each list is the next to expire. */
#include "tunneld/net/redis.h"
#include "lib/alloc.h"
#include "lib/err.h"
#include "lib/num.h"
#include "tunneld/base/log.h"
#include "tunneld/net/conn.h"
#include <stdio.h>
#include <string.h>

#define TIMEOUT (2 * TD_SEC)
#define CONNECT_TIMEOUT (3 * TD_SEC)
#define QUEUE_MAX (16u * 1024 * 1024)
#define COMMAND_MAX (8u * 1024 * 1024)
#define PING_EVERY (5 * TD_SEC) /* of a subscriber, which hears nothing else for long */
#define READ_STEP 16384u

enum state { R_WAIT, R_DIAL, R_ASK, R_GREET, R_UP };
static const char *const state_names[] = {"wait", "dial", "ask", "greet", "up"};

struct command {
	struct tnl_list node;
	td_redis_fn *fn;
	void *ctx;
	uint64_t deadline;
	size_t size;
	struct tnl_buf wire; /* what is not written yet */
	bool begun;
};

struct td_redis {
	struct td_loop *l;
	struct td_redis_cb cb;
	void *ctx;
	struct tnl_redis_url url;
	struct tnl_tls_ctx *tls;
	const char *const *channels;
	size_t nchannels, subscribed;
	uint64_t timeout;
	size_t queue_max, bytes, count;
	enum state state;
	bool gone, asked; /* asked: the next dial is to the server that the Sentinel named */
	bool in_up;	  /* what is sent now goes before what waits */
	bool renew;	  /* the connection is to be made anew */
	unsigned host;
	char at[300], name[256]; /* where; the host of it */
	uint16_t port;
	struct td_conn *conn;
	struct tnl_redis_reader *reader;
	struct tnl_list greeting, waiting, sent;
	struct td_timer timer;
	struct td_backoff backoff;
	uint64_t retry_at, up_since, ping_at;
};

static void set_state(struct td_redis *c, enum state s)
{
	td_debug("redis", NULL, "state=%s before=%s server=%s", state_names[s], state_names[c->state], c->at);
	c->state = s;
}

/* --- commands ----------------------------------------------------------------- */
static struct command *first_of(struct tnl_list *l)
{
	return tnl_list_empty(l) ? NULL : tnl_container_of(l->next, struct command, node);
}

static void free_command(struct td_redis *c, struct command *k)
{
	tnl_list_remove(&k->node);
	c->bytes -= k->size;
	c->count--;
	tnl_buf_fini_wiped(&k->wire);
	tnl_free(k);
}

static void finish_command(struct td_redis *c, struct command *k, int err, const struct tnl_redis_reply *r)
{
	td_redis_fn *fn = k->fn;
	void *ctx = k->ctx;
	free_command(c, k);
	if (fn)
		fn(ctx, err, r);
}

static int add_command(struct td_redis *c, struct tnl_list *to, const struct tnl_redis_arg *v, size_t n,
		       td_redis_fn *fn, void *ctx)
{
	struct command *k = tnl_calloc(1, sizeof(*k));
	if (!k)
		return TNL_ENOMEM;
	tnl_buf_init(&k->wire, COMMAND_MAX);
	int rc = tnl_redis_command(&k->wire, v, n);
	k->size = tnl_buf_len(&k->wire) + sizeof(*k);
	if (rc != 0 || k->size > c->queue_max - TNL_MIN(c->bytes, c->queue_max)) {
		tnl_buf_fini_wiped(&k->wire);
		tnl_free(k);
		return rc == TNL_ENOMEM ? rc : TNL_ELIMIT;
	}
	k->fn = fn;
	k->ctx = ctx;
	k->deadline = c->l->now + c->timeout;
	c->bytes += k->size;
	c->count++;
	tnl_list_push_back(to, &k->node);
	return 0;
}

static void rearm(struct td_redis *c)
{
	struct command *w = first_of(&c->waiting), *s = first_of(&c->sent);
	uint64_t at = c->state == R_WAIT ? c->retry_at : c->renew ? 0 : UINT64_MAX;
	if (w)
		at = TNL_MIN(at, w->deadline);
	if (s)
		at = TNL_MIN(at, s->deadline);
	if (c->state == R_UP && c->nchannels)
		at = TNL_MIN(at, c->ping_at);
	td_timer_at(&c->timer, at);
}

/* As much of a list as the connection takes; false: it is full. */
static bool write_list(struct td_redis *c, struct tnl_list *l)
{
	for (struct command *k; (k = first_of(l)) != NULL;) {
		size_t n = tnl_buf_len(&k->wire), took = td_conn_write(c->conn, tnl_buf_data(&k->wire), n);
		if (took > 0 && !k->begun) {
			k->begun = true;
			k->deadline = c->l->now + c->timeout; /* the answer's time is its own */
		}
		tnl_buf_consume(&k->wire, took);
		if (took < n)
			return false;
		tnl_buf_trim(&k->wire);
		tnl_list_remove(&k->node);
		tnl_list_push_back(&c->sent, &k->node);
	}
	return true;
}

static void write_out(struct td_redis *c)
{
	if (c->conn && c->state >= R_ASK && write_list(c, &c->greeting) && c->state == R_UP)
		write_list(c, &c->waiting);
	rearm(c);
}

int td_redis_send(struct td_redis *c, const struct tnl_redis_arg *v, size_t n, td_redis_fn *fn, void *ctx)
{
	int rc = add_command(c, c->in_up ? &c->greeting : &c->waiting, v, n, fn, ctx);
	if (rc == 0 && !c->in_up)
		write_out(c);
	return rc;
}

static void forget_in(struct tnl_list *l, const void *ctx)
{
	tnl_list_foreach(it, l) {
		struct command *k = tnl_container_of(it, struct command, node);
		if (k->ctx == ctx)
			k->fn = NULL;
	}
}

void td_redis_forget(struct td_redis *c, const void *ctx)
{
	forget_in(&c->greeting, ctx);
	forget_in(&c->waiting, ctx);
	forget_in(&c->sent, ctx);
}

/* --- it is lost ------------------------------------------------------------------ */
static void move_all(struct tnl_list *from, struct tnl_list *to)
{
	for (struct command *k; (k = first_of(from)) != NULL;) {
		tnl_list_remove(&k->node);
		tnl_list_push_back(to, &k->node);
	}
}

/* What may have reached the server fails, and what was for this connection only. */
static void fail_sent(struct td_redis *c)
{
	struct tnl_list lost;
	tnl_list_init(&lost);
	move_all(&c->sent, &lost);
	move_all(&c->greeting, &lost);
	struct command *w = first_of(&c->waiting);
	if (w && w->begun) {
		tnl_list_remove(&w->node);
		tnl_list_push_back(&lost, &w->node);
	}
	for (struct command *k; !c->gone && (k = first_of(&lost)) != NULL;)
		finish_command(c, k, TNL_EIO, NULL);
	for (struct command *k; (k = first_of(&lost)) != NULL;)
		free_command(c, k);
}

static void drop_conn(struct td_redis *c)
{
	td_conn_free(c->conn);
	c->conn = NULL;
	tnl_redis_reader_free(c->reader);
	c->reader = NULL;
}

static void lose(struct td_redis *c, int err, const char *why)
{
	char text[640];
	if (c->state == R_WAIT)
		return;
	snprintf(text, sizeof(text), "%s", why); /* it may be the connection's */
	if (c->state == R_UP)
		td_backoff_up(&c->backoff, c->l->now - c->up_since);
	drop_conn(c);
	set_state(c, R_WAIT);
	c->asked = c->renew = false;
	c->host = (c->host + 1) % c->url.nhosts;
	c->retry_at = c->l->now + td_backoff_next(&c->backoff);
	fail_sent(c);
	if (c->gone)
		return;
	rearm(c);
	c->cb.down(c->ctx, err, text);
}

void td_redis_reconnect(struct td_redis *c, const char *why)
{
	if (c->state != R_UP)
		return;
	td_info("redis", NULL, "connection is made anew server=%s reason=\"%s\"", c->at, why);
	c->renew = true;
	td_timer_at(&c->timer, 0); /* from the loop */
}

/* --- the greeting ------------------------------------------------------------------ */
static void go_up(struct td_redis *c)
{
	set_state(c, R_UP);
	c->up_since = c->l->now;
	c->ping_at = c->l->now + PING_EVERY;
	c->in_up = true;
	c->cb.up(c->ctx);
	c->in_up = false;
	if (!c->gone)
		write_out(c);
}

static void refuse(struct td_redis *c, const char *text)
{
	char why[640];
	if (strncmp(text, "WRONGPASS", 9) == 0 || strncmp(text, "NOAUTH", 6) == 0 ||
	    strncmp(text, "ERR invalid password", 20) == 0)
		snprintf(why, sizeof(why), "%s: user or password is wrong (%.100s)", c->at, text);
	else
		snprintf(why, sizeof(why), "%s: %.200s", c->at, text);
	lose(c, strstr(why, "is wrong") ? TNL_EAUTH : TNL_EREFUSED, why);
}

static void on_greeted(void *ctx, int err, const struct tnl_redis_reply *r)
{
	struct td_redis *c = ctx;
	if (err != 0)
		return; /* lost meanwhile */
	if (r->type == TNL_REDIS_ERROR)
		refuse(c, r->str);
}

static void on_role(void *ctx, int err, const struct tnl_redis_reply *r)
{
	struct td_redis *c = ctx;
	const char *role = err == 0 ? tnl_redis_str_at(r, 0) : "master";
	if (err == 0 && r->type == TNL_REDIS_ERROR)
		refuse(c, r->str);
	else if (!role || strcmp(role, "master") != 0)
		refuse(c, "is no master");
}

static void on_last_greeted(void *ctx, int err, const struct tnl_redis_reply *r)
{
	struct td_redis *c = ctx;
	on_greeted(c, err, r);
	if (err == 0 && !c->gone && c->state == R_GREET && !c->nchannels)
		go_up(c);
}

static int greet_with(struct td_redis *c, td_redis_fn *fn, const char *a, const char *b, const char *d)
{
	const char *const text[] = {a, b, d};
	struct tnl_redis_arg v[3];
	size_t n = 0;
	for (size_t i = 0; i < TNL_COUNT(text); i++)
		if (text[i])
			v[n++] = (struct tnl_redis_arg){text[i], strlen(text[i])};
	return add_command(c, &c->greeting, v, n, fn, c);
}

static int greet_subscribe(struct td_redis *c)
{
	struct tnl_redis_arg v[1 + 8] = {{"SUBSCRIBE", 9}};
	struct tnl_buf b;
	size_t n = TNL_MIN(c->nchannels, TNL_COUNT(v) - 1);
	for (size_t i = 0; i < n; i++)
		v[i + 1] = (struct tnl_redis_arg){c->channels[i], strlen(c->channels[i])};
	tnl_buf_init(&b, 4096);
	int rc = tnl_redis_command(&b, v, n + 1);
	if (rc == 0 && td_conn_write(c->conn, tnl_buf_data(&b), tnl_buf_len(&b)) != tnl_buf_len(&b))
		rc = TNL_ELIMIT;
	tnl_buf_fini(&b);
	return rc;
}

static void greet(struct td_redis *c)
{
	char db[16];
	const struct tnl_redis_url *u = &c->url;
	int rc = 0;
	set_state(c, R_GREET);
	c->subscribed = 0;
	snprintf(db, sizeof(db), "%u", u->db);
	if (u->password[0] && u->user[0])
		rc |= greet_with(c, on_greeted, "AUTH", u->user, u->password);
	else if (u->password[0])
		rc |= greet_with(c, on_greeted, "AUTH", u->password, NULL);
	if (u->db)
		rc |= greet_with(c, on_greeted, "SELECT", db, NULL);
	if (u->sentinel[0] || u->nhosts > 1)
		rc |= greet_with(c, on_role, "ROLE", NULL, NULL);
	rc |= greet_with(c, on_last_greeted, "PING", NULL, NULL);
	if (rc == 0) {
		write_out(c);
		if (c->nchannels)
			rc = greet_subscribe(c);
	}
	if (rc != 0)
		lose(c, TNL_ENOMEM, "out of memory");
}

/* --- Sentinel ------------------------------------------------------------------------ */
static void dial(struct td_redis *c);

static void on_master(void *ctx, int err, const struct tnl_redis_reply *r)
{
	struct td_redis *c = ctx;
	const char *host = tnl_redis_str_at(r, 0);
	int64_t port = tnl_redis_int_at(r, 1, 0);
	char why[640];
	if (err != 0)
		return;
	if (!host || strlen(host) >= sizeof(c->name) || port < 1 || port > 65535) {
		snprintf(why, sizeof(why), "the Sentinel %s knows no server of the name %.100s%s%.100s", c->at,
			 c->url.sentinel, r->type == TNL_REDIS_ERROR ? ": " : "",
			 r->type == TNL_REDIS_ERROR ? r->str : "");
		lose(c, TNL_ENOTFOUND, why);
		return;
	}
	snprintf(c->name, sizeof(c->name), "%s", host);
	c->port = (uint16_t)port;
	c->asked = true;
	drop_conn(c);
	dial(c);
}

static void ask_sentinel(struct td_redis *c)
{
	set_state(c, R_ASK);
	if (greet_with(c, on_master, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", c->url.sentinel) != 0)
		lose(c, TNL_ENOMEM, "out of memory");
	else
		write_out(c);
}

/* --- replies ---------------------------------------------------------------------------- */
/* Of a subscriber: what is no answer to a command of ours. */
static bool take_push(struct td_redis *c, const struct tnl_redis_reply *r)
{
	const char *kind = c->nchannels && c->state >= R_GREET ? tnl_redis_str_at(r, 0) : NULL;
	const struct tnl_redis_reply *text = tnl_redis_at(r, 2);
	if (kind && strcmp(kind, "subscribe") == 0) {
		if (++c->subscribed == c->nchannels && c->state == R_GREET)
			go_up(c);
		return true;
	}
	if (!kind || strcmp(kind, "message") != 0)
		return false;
	if (text && text->str && tnl_redis_str_at(r, 1))
		c->cb.message(c->ctx, tnl_redis_str_at(r, 1), text->str, text->len);
	return true;
}

static void take_reply(struct td_redis *c, const struct tnl_redis_reply *r)
{
	struct command *k = first_of(&c->sent);
	if (take_push(c, r))
		return;
	if (!k && r->type == TNL_REDIS_ERROR) { /* to SUBSCRIBE */
		refuse(c, r->str);
		return;
	}
	if (!k) {
		lose(c, TNL_EPROTO, "the server sent an answer to no question");
		return;
	}
	finish_command(c, k, 0, r);
	if (!c->gone)
		rearm(c);
}

static void take_replies(struct td_redis *c)
{
	struct tnl_redis_reply *r;
	int rc = TNL_EAGAIN;
	while (c->reader && (rc = tnl_redis_reader_next(c->reader, &r)) == 0) {
		take_reply(c, r);
		tnl_redis_reply_free(r);
		if (c->gone)
			return;
	}
	if (c->reader && rc != TNL_EAGAIN)
		lose(c, rc,
		     rc == TNL_ETOOBIG ? "an answer of the server is larger than it may be"
				       : "what the server sends is no answer of a Redis server");
}

static void on_readable(void *ctx)
{
	struct td_redis *c = ctx;
	uint8_t in[READ_STEP];
	ssize_t n;
	while (c->conn && (n = td_conn_read(c->conn, in, sizeof(in))) > 0) {
		int rc = tnl_redis_reader_feed(c->reader, in, (size_t)n);
		if (rc != 0)
			lose(c, rc, "an answer of the server is larger than it may be");
		else
			take_replies(c);
		if (c->gone)
			return;
	}
}

static void on_writable(void *ctx)
{
	write_out(ctx);
}

static void on_ready(void *ctx)
{
	struct td_redis *c = ctx;
	if (c->url.sentinel[0] && !c->asked)
		ask_sentinel(c);
	else
		greet(c);
}

static void on_closed(void *ctx, int err, const char *why)
{
	lose(ctx, err == TNL_EEOF ? TNL_EUNREACH : err, why);
}

/* --- dialing ------------------------------------------------------------------------------- */
static void dial(struct td_redis *c)
{
	static const struct td_conn_cb cb = {.ready = on_ready,
					     .readable = on_readable,
					     .writable = on_writable,
					     .closed = on_closed};
	if (!c->asked) {
		snprintf(c->name, sizeof(c->name), "%s", c->url.hosts[c->host].host);
		c->port = c->url.hosts[c->host].port;
	}
	snprintf(c->at, sizeof(c->at), strchr(c->name, ':') ? "[%s]:%u" : "%s:%u", c->name, c->port);
	const struct td_conn_opts o = {.host = c->name, .port = c->port, .tls = c->tls, .timeout_ns = CONNECT_TIMEOUT};
	set_state(c, R_DIAL);
	c->reader = tnl_redis_reader_new();
	c->conn = c->reader ? td_conn_dial(c->l, &o, &cb, c) : NULL;
	if (!c->conn)
		lose(c, TNL_ENOMEM, "out of memory");
	else
		rearm(c);
}

static void on_pong(void *ctx, int err, const struct tnl_redis_reply *r) {}

static void ping(struct td_redis *c)
{
	const struct tnl_redis_arg v = {"PING", 4};
	c->ping_at = c->l->now + PING_EVERY;
	if (add_command(c, &c->waiting, &v, 1, on_pong, c) == 0)
		write_out(c);
}

static void expire_waiting(struct td_redis *c)
{
	struct command *k;
	while (!c->gone && (k = first_of(&c->waiting)) != NULL && !k->begun && k->deadline <= c->l->now)
		finish_command(c, k, TNL_ETIMEOUT, NULL);
}

static void on_timer(void *arg)
{
	struct td_redis *c = arg;
	uint64_t now = c->l->now;
	struct command *s = first_of(&c->sent), *w = first_of(&c->waiting);
	bool late = (s && s->deadline <= now) || (w && w->begun && w->deadline <= now);
	if (c->conn && (late || c->renew)) {
		lose(c, TNL_ETIMEOUT, late ? "the server does not answer" : "another server is wanted");
		return;
	}
	expire_waiting(c);
	if (c->gone)
		return;
	if (c->state == R_WAIT && c->retry_at <= now)
		dial(c);
	else if (c->state == R_UP && c->nchannels && c->ping_at <= now)
		ping(c);
	else
		rearm(c);
}

/* --- the object ------------------------------------------------------------------------------- */
struct td_redis *td_redis_new(struct td_loop *l, const struct td_redis_opts *o, const struct td_redis_cb *cb, void *ctx)
{
	struct td_redis *c = tnl_calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	c->l = l;
	c->cb = *cb;
	c->ctx = ctx;
	c->url = *o->url;
	c->tls = o->tls ? tnl_tls_ctx_ref(o->tls) : NULL;
	c->channels = o->channels;
	c->nchannels = o->nchannels;
	c->timeout = o->timeout_ns ? o->timeout_ns : TIMEOUT;
	c->queue_max = o->queue_max ? o->queue_max : QUEUE_MAX;
	tnl_list_init(&c->greeting);
	tnl_list_init(&c->waiting);
	tnl_list_init(&c->sent);
	td_backoff_init(&c->backoff, 50 * TD_MS, 2 * TD_SEC);
	td_timer_init(&c->timer, l, on_timer, c);
	td_timer_at(&c->timer, 0); /* the first dial, from the loop */
	return c;
}

bool td_redis_is_up(const struct td_redis *c)
{
	return c->state == R_UP;
}

size_t td_redis_queued(const struct td_redis *c)
{
	return c->count;
}

const char *td_redis_peer(const struct td_redis *c)
{
	return c->at;
}

static void free_list(struct td_redis *c, struct tnl_list *l)
{
	for (struct command *k; (k = first_of(l)) != NULL;)
		free_command(c, k);
}

void td_redis_free(struct td_redis *c)
{
	if (!c || c->gone)
		return;
	c->gone = true;
	td_timer_stop(&c->timer);
	drop_conn(c);
	free_list(c, &c->greeting);
	free_list(c, &c->waiting);
	free_list(c, &c->sent);
	tnl_tls_ctx_free(c->tls);
	tnl_wipe(&c->url, sizeof(c->url));
	td_loop_free_later(c->l, c);
}
