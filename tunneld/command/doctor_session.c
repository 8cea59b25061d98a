/* A session as the tunnel would have it, from StartSession to bytes that come back; it is ended afterwards. */
#include "tunneld/command/doctor.h"

#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/handshake.h"
#include "lib/head.h"
#include "lib/http.h"
#include "lib/num.h"
#include "lib/target.h"
#include "tunneld/aws/target.h"
#include "tunneld/client/client.h"
#include "tunneld/client/terminate.h"
#include "tunneld/command/foreground.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define QUIET (4 * TD_SEC) /* a stock agent that has not refused by then has connected, as far as can be known */
#define PINGS 5
#define BULK (1u << 20)

struct testing {
	struct td_doctor *d;
	struct td_aws *aws;
	const struct td_tunnel_config *t;
	bool done, good;
	int err;
	char type[96], text[400], id[TNL_TARGET_TEXT];
	/* the session */
	struct td_session_grant grant;
	struct td_client *client;
	bool ready, over, terminated;
	/* the stream at hand: ours is the other end of a socket pair */
	struct td_pipe *pipe;
	int fd;
	ev_io io;
	bool connected, closed;
	uint32_t reason;
	size_t sent, got, want;
	uint64_t began;
};

/* --- StartSession and the target -------------------------------------------------------------------- */

static void on_target(void *ctx, const struct td_target_answer *r)
{
	struct testing *x = ctx;
	x->err = r->err;
	snprintf(x->type, sizeof(x->type), "%s", r->type ? r->type : "");
	snprintf(x->text, sizeof(x->text), "%s", r->text ? r->text : "");
	if (!r->err)
		snprintf(x->id, sizeof(x->id), "%s", r->id);
	td_doctor_done(x->d, &x->done);
}

static void look_up(struct testing *x, const char *text)
{
	struct td_target_query q = {.target = text, .select = x->t->select};
	x->done = false;
	struct td_target_request *r = td_target_ask(x->aws, &q, on_target, x);
	if (r && !td_doctor_wait(x->d, &x->done, TD_DOCTOR_PROBE_NS, "the target")) {
		td_target_cancel(r);
		x->err = TNL_ETIMEOUT;
		snprintf(x->text, sizeof(x->text), "no answer within 5 s");
	}
}

/* The first of the targets that says of one instance which it is. */
static bool find_target(struct testing *x)
{
	const char *rest = x->t->target, *one, *fault;
	size_t n;
	struct tnl_target t;
	while (!x->id[0] && (one = tnl_target_next(&rest, &n)) != NULL) {
		if (tnl_target_parse(one, n, &t, &fault) != 0)
			continue;
		if (t.kind == TNL_TARGET_ID)
			snprintf(x->id, sizeof(x->id), "%s", t.text);
		else
			look_up(x, t.text);
	}
	return x->id[0];
}

static void on_started(void *ctx, const struct td_aws_reply *r)
{
	struct testing *x = ctx;
	x->err = r->err ? r->err : td_session_grant_parse(r->json, &x->grant);
	snprintf(x->type, sizeof(x->type), "%s", r->type);
	snprintf(x->text, sizeof(x->text), "%s",
		 x->err && !r->err ? "the answer has no session"
		 : r->text	   ? r->text
				   : "");
	td_doctor_secret(x->d, x->grant.token);
	td_doctor_done(x->d, &x->done);
}

static const char *advice_for(const struct testing *x)
{
	if (strcmp(x->type, "TargetNotConnected") == 0)
		return "Start the agent of the target; it must reach the same region or gateway (tunneld doctor -c agent.ini).";
	if (strncmp(x->type, "AccessDenied", 12) == 0)
		return "Have ssm:StartSession permitted for this target and document; at a gateway of your own: targets, documents, ports and hosts of the [user].";
	if (td_foreground_code(x->err, x->type) == TD_EXIT_CREDENTIALS)
		return "Renew the credentials, or check which keys these are.";
	if (x->err == TNL_ETIMEOUT || x->err == TNL_EUNREACH)
		return "Try again; when it stays so something on the way holds these calls back.";
	return "See what the service says; man 5 tunneld.ini has the keys of a tunnel.";
}

/* Its streams say where they go, as the forwarder's do. */
static bool dials(const struct td_tunnel_config *t)
{
	return t->path || t->type == TD_TUNNEL_PROXY;
}

static bool start_session(struct testing *x)
{
	struct tnl_buf b;
	const struct td_tunnel_config *t = x->t;
	bool found = find_target(x);
	x->done = false;
	tnl_buf_init(&b, 65536);
	if (found && td_start_session_body(&b, x->id, t->document, dials(t) ? "localhost" : t->host,
					   dials(t) ? 1 : t->port, 0, t->reason, NULL) == 0) {
		struct td_aws_call *c = td_aws_json(x->aws, "ssm", "AmazonSSM.StartSession", tnl_buf_str(&b),
						    tnl_buf_len(&b), 1, on_started, x);
		if (c && !td_doctor_wait(x->d, &x->done, TD_DOCTOR_PROBE_NS, "StartSession")) {
			td_aws_call_cancel(c);
			x->err = TNL_ETIMEOUT;
			snprintf(x->text, sizeof(x->text), "no answer within 5 s");
		}
	}
	tnl_buf_fini(&b);
	if (x->grant.session_id) {
		td_doctor_row(x->d, "start-session", TD_DOCTOR_OK, 0, NULL, "%s for %s", x->grant.session_id, x->id);
		return true;
	}
	int code = td_foreground_code(x->err, x->type);
	td_doctor_row(x->d, "start-session", TD_DOCTOR_FAIL, code == TD_EXIT_RUNTIME ? TD_EXIT_REFUSED : code,
		      advice_for(x), "%s%s%s", x->type, x->type[0] ? ": " : "",
		      x->text[0] ? x->text : tnl_err_text(x->err));
	return false;
}

static void tell_instance(struct testing *x, const struct tnl_json *i)
{
	const char *ping = tnl_json_get_str(i, "PingStatus"), *version = tnl_json_get_str(i, "AgentVersion");
	const char *platform = tnl_json_get_str(i, "PlatformName");
	bool online = ping && strcmp(ping, "Online") == 0, mux = version && tnl_agent_version_mux(version);
	td_doctor_row(x->d, "target",
		      !online ? TD_DOCTOR_FAIL
		      : mux   ? TD_DOCTOR_OK
			      : TD_DOCTOR_WARN,
		      TD_EXIT_NOT_CONNECTED,
		      !online ? "Start the agent there, or the machine."
		      : mux   ? NULL
			      : "Update the agent: this one carries one connection at a time.",
		      "%s is %s, agent %s%s%s%s", x->id, ping ? ping : "?", version ? version : "?",
		      platform ? " on " : "", platform ? platform : "",
		      mux ? ", carries many connections at once" : "");
}

static void on_described(void *ctx, const struct td_aws_reply *r)
{
	struct testing *x = ctx;
	const struct tnl_json *i = tnl_json_at(tnl_json_get(r->json, "InstanceInformationList"), 0);
	x->good = true;
	if (r->err)
		td_doctor_row(x->d, "target", TD_DOCTOR_SKIPPED, 0, NULL, "DescribeInstanceInformation: %s: %s",
			      r->type, r->text ? r->text : tnl_err_text(r->err));
	else if (i)
		tell_instance(x, i);
	else
		td_doctor_row(x->d, "target", TD_DOCTOR_FAIL, TD_EXIT_NOT_CONNECTED,
			      "Check the id, the account and the region; its agent has never been here.",
			      "%s is not known to the service", x->id);
	td_doctor_done(x->d, &x->done);
}

static void write_filter(struct tnl_jw *w, const char *id)
{
	tnl_jw_obj(w);
	tnl_jw_key(w, "Filters");
	tnl_jw_arr(w);
	tnl_jw_obj(w);
	tnl_jw_kv(w, "Key", "InstanceIds");
	tnl_jw_key(w, "Values");
	tnl_jw_arr(w);
	tnl_jw_str(w, id);
	tnl_jw_end_arr(w);
	tnl_jw_end_obj(w);
	tnl_jw_end_arr(w);
	tnl_jw_end_obj(w);
}

static void describe_target(struct testing *x)
{
	struct tnl_buf b;
	struct tnl_jw w;
	if (!x->id[0] || strncmp(x->id, "ecs:", 4) == 0) {
		td_doctor_row(x->d, "target", TD_DOCTOR_SKIPPED, 0, NULL,
			      x->id[0] ? "%s is a container: it is not listed" : "%s: no instance was found",
			      x->id[0] ? x->id : x->t->target);
		return;
	}
	x->done = x->good = false;
	tnl_buf_init(&b, 4096);
	tnl_jw_init(&w, &b);
	write_filter(&w, x->id);
	struct td_aws_call *c = td_aws_json(x->aws, "ssm", "AmazonSSM.DescribeInstanceInformation", tnl_buf_str(&b),
					    tnl_buf_len(&b), 1, on_described, x);
	if (c && !td_doctor_wait(x->d, &x->done, TD_DOCTOR_PROBE_NS, "the target's state"))
		td_aws_call_cancel(c);
	tnl_buf_fini(&b);
	if (!x->good)
		td_doctor_row(x->d, "target", TD_DOCTOR_SKIPPED, 0, NULL, "%s: no answer within 5 s", x->id);
}

/* --- the data channel ------------------------------------------------------------------------------------- */

/* Its host alone: what stands behind it may be signed. */
static bool check_stream_url(struct testing *x)
{
	struct tnl_url u;
	const char *fault = "";
	const char *url = x->grant.stream_url ? x->grant.stream_url : "";
	bool parsed = tnl_url_parse(url, &u, &fault) == 0, good = parsed && td_aws_stream_url_ok(x->aws, url, &fault);
	td_doctor_row(x->d, "stream-url", good ? TD_DOCTOR_OK : TD_DOCTOR_FAIL, TD_EXIT_REFUSED,
		      good ? NULL : "Name its host in stream_hosts, if it is one that may have the session's token.",
		      good ? "%s://%s:%u%s" : "%s://%s:%u is not taken: %s", parsed ? u.scheme : "?",
		      parsed ? u.host : "?", parsed ? u.port : 0, good ? "" : fault);
	return good;
}

static void on_ready(void *ctx, const struct tnl_session_info *info)
{
	struct testing *x = ctx;
	x->ready = true;
	td_doctor_done(x->d, &x->done);
}

static void on_failed(void *ctx, int err, const char *type, const char *why)
{
	struct testing *x = ctx;
	x->over = true;
	x->err = err;
	snprintf(x->type, sizeof(x->type), "%s", type);
	snprintf(x->text, sizeof(x->text), "%s", why);
	td_doctor_done(x->d, &x->done);
}

static void on_over(void *ctx, int err, const char *text)
{
	on_failed(ctx, err, "", text && *text ? text : tnl_err_text(err));
}

static void on_connected(void *ctx, struct td_pipe *p, void *user)
{
	struct testing *x = ctx;
	if (p != x->pipe)
		return;
	x->connected = true;
	td_doctor_done(x->d, &x->done);
}

static void on_pipe_closed(void *ctx, struct td_pipe *p, void *user, uint32_t reason, uint64_t in, uint64_t out)
{
	struct testing *x = ctx;
	if (p != x->pipe) /* one that was let go */
		return;
	x->closed = true;
	x->pipe = NULL;
	x->reason = reason;
	td_pipe_end_text(p, reason, x->text, sizeof(x->text));
	td_doctor_done(x->d, &x->done);
}

static void on_ended(void *ctx)
{
	struct testing *x = ctx;
	x->over = true;
	td_doctor_done(x->d, &x->done);
}

static const struct td_client_cb client_cb = {.ready = on_ready,
					      .failed = on_failed,
					      .over = on_over,
					      .ended = on_ended,
					      .connected = on_connected,
					      .pipe_closed = on_pipe_closed};

static bool open_channel(struct testing *x)
{
	const struct td_tunnel_config *t = x->t;
	struct td_client_config cc = {.aws = x->aws,
				      .label = "doctor",
				      .target = x->id,
				      .host = t->host,
				      .port = t->port,
				      .grant = &x->grant,
				      .links_auto = true,
				      .reconnect_min_ns = t->reconnect_min_ns,
				      .reconnect_max_ns = t->reconnect_max_ns,
				      .ping_ns = t->ping_interval_ns,
				      .pong_ns = t->pong_timeout_ns};
	td_tunnel_session(t, td_aws_is_amazon(x->aws), &cc.session);
	cc.session.expected_type = "Port";
	cc.session.dial = dials(t) ? TNL_DIAL_VERSION : 0;
	cc.session.reverse = t->type == TD_TUNNEL_REVERSE;
	x->done = false;
	x->began = x->d->loop->now;
	x->client = td_client_new(x->d->loop, &cc, &client_cb, x);
	snprintf(x->text, sizeof(x->text), "the handshake did not end within 5 s");
	if (x->client)
		td_doctor_wait(x->d, &x->done, TD_DOCTOR_PROBE_NS, "the handshake");
	if (!x->ready) {
		td_doctor_row(x->d, "websocket", TD_DOCTOR_FAIL, TD_EXIT_LOST,
			      "Permit WebSockets (wss) to this host; proxies that look into TLS often cut them.", "%s",
			      x->text);
		return false;
	}
	const struct tnl_session_info *i = tnl_session_info(td_pump_session(td_client_pump(x->client)));
	td_doctor_row(x->d, "websocket", TD_DOCTOR_OK, 0, NULL, "ready in %llu ms: agent %s%s%s, %s%s",
		      (unsigned long long)((x->d->loop->now - x->began) / TD_MS), i->peer_version,
		      i->own_peer ? ", tunneld " : " (not tunneld)", i->peer_program, tnl_session_mode_name(i->mode),
		      i->encrypted ? ", encrypted" : "");
	return true;
}

/* --- streams --------------------------------------------------------------------------------------------------- */

static void on_readable(EV_P_ ev_io *w, int revents)
{
	struct testing *x = w->data;
	char b[65536];
	ssize_t n = read(x->fd, b, sizeof(b));
	if (n > 0)
		x->got += (size_t)n;
	if (n == 0 || (n < 0 && errno != EAGAIN))
		ev_io_stop(EV_A_ w);
	if (n > 0 && x->got >= x->want)
		td_doctor_done(x->d, &x->done);
}

static void on_io(EV_P_ ev_io *w, int revents)
{
	static const char zeros[65536];
	struct testing *x = w->data;
	if (revents & EV_READ)
		on_readable(EV_A_ w, revents);
	if (!(revents & EV_WRITE) || !ev_is_active(w))
		return;
	ssize_t n = write(x->fd, zeros, TNL_MIN(sizeof(zeros), x->want - x->sent));
	x->sent += n > 0 ? (size_t)n : 0;
	if (x->sent >= x->want) {
		ev_io_stop(EV_A_ w);
		ev_io_set(w, x->fd, EV_READ);
		ev_io_start(EV_A_ w);
	}
}

/* A stream of that kind; *asked: the far end knows of kinds. */
static bool open_stream(struct testing *x, enum tnl_stream_kind kind, bool *asked)
{
	int pair[2], err = 0;
	struct tnl_head head;
	x->connected = x->closed = x->done = false;
	x->got = x->sent = 0;
	x->want = 1;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0)
		return false;
	bool to = dials(x->t) && tnl_head_set(&head, x->t->path ? TNL_HEAD_UNIX : TNL_HEAD_TCP,
					      x->t->path ? x->t->path : "localhost", x->t->path ? 0 : 1) == 0;
	x->pipe = td_pipe_client_to(td_client_pump(x->client), pair[0], to ? &head : NULL, NULL, NULL, &err);
	if (!x->pipe) {
		snprintf(x->text, sizeof(x->text), "%s", tnl_err_text(err));
		close(pair[0]);
		close(pair[1]);
		return false;
	}
	*asked = td_pipe_ask(x->pipe, kind);
	x->fd = pair[1];
	ev_io_init(&x->io, on_io, x->fd, EV_READ);
	x->io.data = x;
	ev_io_start(x->d->loop->ev, &x->io);
	return true;
}

static void close_stream(struct testing *x)
{
	ev_io_stop(x->d->loop->ev, &x->io);
	if (x->fd >= 0)
		close(x->fd);
	x->fd = -1;
	if (x->pipe && !x->over)
		td_pipe_abort(x->pipe, TNL_RESET_SHUTDOWN);
	x->pipe = NULL;
}

/* Nothing is bound: a daemon that runs may have the listener, and this would take it over. */
static bool listens(struct testing *x)
{
	const struct tnl_session_info *i = tnl_session_info(td_pump_session(td_client_pump(x->client)));
	td_doctor_row(x->d, "dial", i->reverse ? TD_DOCTOR_OK : TD_DOCTOR_FAIL, TD_EXIT_REFUSED,
		      i->reverse
			  ? NULL
			  : "The agent has to be tunneld's, with reverse in [agent]; the gateway has to allow it to "
			    "this user (reverse in [user]).",
		      i->reverse ? "the agent listens for clients; whether at %s shows when the tunnel is open"
				 : "the agent does not listen for this client, at %s or elsewhere",
		      x->t->bind);
	return true;
}

static bool dial(struct testing *x)
{
	if (x->t->type == TD_TUNNEL_REVERSE)
		return listens(x);
	if (x->t->type != TD_TUNNEL_TCP) {
		td_doctor_row(x->d, "dial", TD_DOCTOR_SKIPPED, 0, NULL,
			      x->t->type == TD_TUNNEL_PROXY ? "a proxy goes where programs ask it to"
							    : "a datagram is not answered by the agent");
		return true;
	}
	const char *host = x->t->path ? x->t->path : x->t->host ? x->t->host : "localhost";
	bool asked = false, open = open_stream(x, TNL_KIND_TOLD, &asked);
	uint64_t began = x->d->loop->now;
	if (open)
		td_doctor_wait(x->d, &x->done, asked ? TD_DOCTOR_PROBE_NS : QUIET, "the service behind the target");
	/* A service that has spoken, or closed in order, is there. */
	bool there = open && (x->connected || x->got || (x->closed && x->reason == UINT32_MAX));
	bool refused = !open || x->closed || asked;
	unsigned ms = (unsigned)((x->d->loop->now - began) / TD_MS);
	if (there)
		td_doctor_row(x->d, "dial", TD_DOCTOR_OK, 0, NULL, "%s port %u: connected in %u ms", host, x->t->port,
			      ms);
	else if (!refused)
		td_doctor_row(x->d, "dial", TD_DOCTOR_OK, 0, NULL,
			      "%s port %u: not refused within %u ms; a stock agent does not say more", host, x->t->port,
			      ms);
	else
		td_doctor_row(x->d, "dial", TD_DOCTOR_FAIL, TD_EXIT_REFUSED,
			      "Start the service, or check host and port; the agent's allow and deny decide as well.",
			      "%s port %u: %s", host, x->t->port,
			      x->closed || !open ? x->text : "the agent has not connected within 5 s");
	bool passed = there || !refused;
	close_stream(x);
	return passed && !x->over;
}

static void one_ping(struct testing *x, uint64_t *best)
{
	x->done = false;
	x->got = x->sent = 0;
	x->want = 1;
	td_loop_update(x->d->loop);
	uint64_t began = x->d->loop->now;
	if (write(x->fd, "?", 1) != 1 || !td_doctor_wait(x->d, &x->done, TD_DOCTOR_PROBE_NS, "an echo") || x->closed)
		return;
	*best = TNL_MIN(*best, x->d->loop->now - began);
	x->good = true;
}

/* What the acknowledgements of the session tell, where there is no echo. */
static void tell_smoothed(struct testing *x)
{
	struct tnl_channel_stats st = {0};
	if (!x->over)
		tnl_channel_stats(tnl_session_channel(td_pump_session(td_client_pump(x->client))), &st);
	td_doctor_row(x->d, "round-trip", st.srtt_ns ? TD_DOCTOR_OK : TD_DOCTOR_SKIPPED, 0, NULL,
		      st.srtt_ns ? "%.1f ms, by acknowledgements" : "not known (%.0f messages were timed)",
		      (double)st.srtt_ns / 1e6);
	td_doctor_row(x->d, "transfer", TD_DOCTOR_SKIPPED, 0, NULL, "this agent has no echo: tunneld's own has");
}

static void transfer(struct testing *x)
{
	x->done = false;
	x->got = x->sent = 0;
	x->want = BULK;
	td_loop_update(x->d->loop);
	uint64_t began = x->d->loop->now;
	ev_io_stop(x->d->loop->ev, &x->io);
	ev_io_set(&x->io, x->fd, EV_READ | EV_WRITE);
	ev_io_start(x->d->loop->ev, &x->io);
	td_doctor_wait(x->d, &x->done, TD_DOCTOR_PROBE_NS, "1 MiB each way");
	double s = (double)(x->d->loop->now - began) / 1e9;
	if (x->got >= BULK)
		td_doctor_row(x->d, "transfer", TD_DOCTOR_OK, 0, NULL, "1 MiB each way in %.2f s, %.1f MiB/s", s,
			      s > 0 ? 1 / s : 0);
	else
		td_doctor_row(x->d, "transfer", x->closed || x->over ? TD_DOCTOR_FAIL : TD_DOCTOR_WARN, TD_EXIT_LOST,
			      x->closed || x->over
				  ? "See the logs of both ends and of the gateway."
				  : "The way is slow: see who else uses it, and bandwidth at the gateway.",
			      "%zu KiB of 1,024 came back within %.1f s%s%s", x->got >> 10, s,
			      x->closed || x->over ? ": " : "", x->closed || x->over ? x->text : "");
}

static void echo(struct testing *x)
{
	bool asked = false;
	uint64_t best = UINT64_MAX;
	if (x->over || !tnl_session_info(td_pump_session(td_client_pump(x->client)))->opens) {
		tell_smoothed(x);
		return;
	}
	x->good = false;
	if (open_stream(x, TNL_KIND_ECHO, &asked))
		td_doctor_wait(x->d, &x->done, TD_DOCTOR_PROBE_NS, "an echo");
	for (int i = 0; i < PINGS && x->connected && !x->closed; i++)
		one_ping(x, &best);
	if (x->good)
		td_doctor_row(x->d, "round-trip", TD_DOCTOR_OK, 0, NULL, "%.1f ms, the best of %d", (double)best / 1e6,
			      PINGS);
	else
		td_doctor_row(x->d, "round-trip", TD_DOCTOR_FAIL, TD_EXIT_LOST,
			      "See the logs of both ends and of the gateway.", "no echo: %s",
			      x->closed ? x->text : "no answer within 5 s");
	if (x->good)
		transfer(x);
	else
		td_doctor_row(x->d, "transfer", TD_DOCTOR_SKIPPED, 0, NULL, "there is no echo");
	close_stream(x);
}

/* --- its end --------------------------------------------------------------------------------------------------------
 */

static void on_terminated(void *ctx, const char *session_id, bool ok)
{
	struct testing *x = ctx;
	td_doctor_done(x->d, &x->terminated);
}

static void end_session(struct testing *x)
{
	bool interrupted = x->d->interrupted;
	x->d->interrupted = false; /* the end is told in any case, unless there is a second signal */
	if (x->grant.session_id) {
		struct td_terminate *t = td_terminate_start(x->aws, x->grant.session_id, on_terminated, x);
		if (t && !td_doctor_wait(x->d, &x->terminated, 1500 * TD_MS, "the end of the session"))
			td_terminate_cancel(t);
	}
	td_client_free(x->client);
	td_session_grant_fini(&x->grant);
	x->d->interrupted = x->d->interrupted || interrupted;
}

static void skip_rest(struct td_doctor *d, const char *first, const char *why)
{
	static const char *const checks[] = {"start-session", "target",	    "stream-url", "websocket",
					     "dial",	      "round-trip", "transfer"};
	bool on = false;
	for (size_t i = 0; i < TNL_COUNT(checks); i++) {
		on = on || strcmp(checks[i], first) == 0;
		if (on)
			td_doctor_row(d, checks[i], TD_DOCTOR_SKIPPED, 0, NULL, "%s", why);
	}
}

static void test_session(struct testing *x)
{
	struct td_doctor *d = x->d;
	bool started = start_session(x);
	describe_target(x);
	if (!started)
		skip_rest(d, "stream-url", "there is no session");
	else if (!check_stream_url(x))
		skip_rest(d, "websocket", "there is no StreamUrl that may be used");
	else if (!open_channel(x))
		skip_rest(d, "dial", "the session did not come up");
	else if (!dial(x))
		skip_rest(d, "round-trip", "the connection did not come up");
	else
		echo(x);
	end_session(x);
}

void td_doctor_session(struct td_doctor *d, struct td_aws *aws, const struct td_tunnel_config *t, bool reachable)
{
	struct testing x = {.d = d, .aws = aws, .t = t, .fd = -1};
	if (!reachable) {
		td_doctor_row(d, "credentials", TD_DOCTOR_SKIPPED, 0, NULL, "the endpoint cannot be reached");
		skip_rest(d, "start-session", "the endpoint cannot be reached");
	} else if (!td_doctor_credentials(d, aws, td_aws_is_amazon(aws) || t->aws.sts_endpoint)) {
		skip_rest(d, "start-session", "there are no credentials");
	} else {
		test_session(&x);
	}
}
