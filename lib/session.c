/* A session from new to closed: its channel, its links, what is due and when. What comes in is in
 * session_in.c, what goes out in session_out.c, streams in session_stream*.c and session_mux*.c. */
#include "lib/session.h"
#include "lib/alloc.h"
#include "lib/log.h"
#include "lib/num.h"
#include "lib/session_internal.h"
#include <stdio.h>
#include <string.h>

#define MEMORY_MIN (256u * 1024)

const char *tnl_reset_text(uint32_t reason)
{
	static const char *const text[] = {"no reason given",
					   "connection reset at the other end",
					   "could not connect",
					   "not allowed",
					   "timed out",
					   "session over",
					   "too many streams",
					   "shutting down",
					   "the agent lost its link and may take again what it has",
					   "could not connect",
					   "could not connect",
					   "could not connect"};
	return reason < TNL_COUNT(text) ? text[reason] : "unknown reason";
}

const char *tnl_session_mode_name(enum tnl_session_mode mode)
{
	static const char *const name[] = {
	    [TNL_MODE_UNKNOWN] = "unknown", [TNL_MODE_MUX] = "mux",	[TNL_MODE_BASIC] = "basic",
	    [TNL_MODE_SINGLE] = "single",   [TNL_MODE_SHELL] = "shell", [TNL_MODE_COMMAND] = "command"};
	return (unsigned)mode < TNL_COUNT(name) ? name[mode] : "unknown";
}

static int dup_opt(const char **p)
{
	if (!*p)
		return 0;
	*p = tnl_strdup(*p);
	return *p ? 0 : TNL_ENOMEM;
}

/* All pointers are looked at, so that after a failure each is NULL or ours. */
static int copy_strings(struct tnl_session *s)
{
	struct tnl_session_config *c = &s->cfg;
	int rc = dup_opt(&c->session_id);
	rc |= dup_opt(&c->version);
	rc |= dup_opt(&c->expected_type);
	rc |= dup_opt(&c->session_type);
	rc |= dup_opt(&c->properties_json);
	rc |= dup_opt(&c->kms_key_id);
	rc |= dup_opt(&c->kms_key_pin);
	rc |= dup_opt(&c->customer_message);
	s->version_text = rc ? NULL : tnl_strdup(c->version);
	return s->version_text ? 0 : TNL_ENOMEM;
}

static uint64_t channel_wall(void *ctx)
{
	struct tnl_session *s = ctx;
	return s->cfg.wall_ms ? s->cfg.wall_ms(s->cfg.ctx) : 1; /* 0 is no date */
}

static bool channel_may_keep(void *ctx)
{
	struct tnl_session *s = ctx;
	return !s->cfg.may_keep || s->cfg.may_keep(s->cfg.ctx);
}

static struct tnl_channel *make_channel(struct tnl_session *s, uint64_t now)
{
	struct tnl_channel_config c = {
	    .send_type = s->cfg.agent ? TNL_MT_OUTPUT : TNL_MT_INPUT,
	    .recv_type = s->cfg.agent ? TNL_MT_INPUT : TNL_MT_OUTPUT,
	    /* Half for what is sent and reordered, three eighths for what readers leave, the rest for the
	     * books that are kept about it: nothing can starve the other. */
	    .memory_max = s->cfg.memory_max / 2,
	    .message_rate = s->cfg.message_rate,
	    .resend_max = s->cfg.resend_max,
	    .stock_peer_payload = true,
	    .wall_ms = channel_wall,
	    .deliver = tnl_session_deliver,
	    .may_keep = channel_may_keep,
	    .ctx = s,
	};
	return tnl_channel_new(&c, now);
}

struct tnl_session *tnl_session_new(const struct tnl_session_config *c, uint64_t now)
{
	static const struct tnl_session_cb none;
	struct tnl_session *s = tnl_calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	s->cfg = *c;
	s->cb = c->cb ? *c->cb : none;
	if (!s->cfg.session_id)
		s->cfg.session_id = "";
	if (!s->cfg.version)
		s->cfg.version = c->agent ? TNL_AGENT_VERSION : TNL_CLIENT_VERSION;
	if (!s->cfg.session_type)
		s->cfg.session_type = "Standard_Stream";
	s->cfg.memory_max = TNL_MAX(s->cfg.memory_max, MEMORY_MIN);
	if (!s->cfg.hold_after_complete_ns)
		s->cfg.hold_after_complete_ns = 5 * TNL_MS;
	s->kept_max = s->cfg.memory_max / 8 * 3;
	s->hs_deadline = s->keepalive_at = s->retry_at = TNL_NEVER;
	s->info.peer_version = s->info.session_type = s->info.customer_message = "";
	tnl_list_init(&s->outq);
	int rc = copy_strings(s);
	rc |= tnl_mux_init(&s->mux);
	s->ch = rc ? NULL : make_channel(s, now);
	if (!s->ch) {
		tnl_session_free(s);
		return NULL;
	}
	return s;
}

void tnl_session_free(struct tnl_session *s)
{
	if (!s)
		return;
	s->state = TNL_SS_CLOSED;
	while (!tnl_list_empty(&s->mux.streams))
		tnl_stream_destroy(tnl_container_of(s->mux.streams.next, struct tnl_stream, all));
	tnl_session_out_clear(s);
	tnl_mux_fini(&s->mux);
	tnl_session_hs_fini(s);
	tnl_seal_free(s->seal);
	tnl_free_wiped(s->scratch, s->scratch_cap);
	tnl_channel_free(s->ch);
	const char *strings[] = {s->cfg.session_id,   s->cfg.version,	       s->cfg.expected_type,
				 s->cfg.session_type, s->cfg.properties_json,  s->cfg.kms_key_id,
				 s->cfg.kms_key_pin,  s->cfg.customer_message, s->version_text};
	for (size_t i = 0; i < TNL_COUNT(strings); i++)
		tnl_free((void *)(uintptr_t)strings[i]);
	tnl_free_wiped(s, sizeof(*s));
}

const char *tnl_session_id(const struct tnl_session *s)
{
	return s->cfg.session_id;
}
enum tnl_session_state tnl_session_state(const struct tnl_session *s)
{
	return s->state;
}
const struct tnl_session_info *tnl_session_info(const struct tnl_session *s)
{
	return &s->info;
}
struct tnl_channel *tnl_session_channel(struct tnl_session *s)
{
	return s->ch;
}
const struct tnl_session_stats *tnl_session_stats(const struct tnl_session *s)
{
	return &s->stats;
}
void tnl_session_stats_each(const struct tnl_session_stats *st, void (*fn)(void *ctx, const char *name, uint64_t value),
			    void *ctx)
{
	fn(ctx, "bad_messages", st->bad_messages);
	fn(ctx, "unknown_messages", st->unknown_messages);
	fn(ctx, "bad_payloads", st->bad_payloads);
	fn(ctx, "unknown_payloads", st->unknown_payloads);
	fn(ctx, "unknown_frames", st->unknown_frames);
	fn(ctx, "early_data", st->early_data);
}
size_t tnl_session_streams(const struct tnl_session *s)
{
	return s->mux.nstreams;
}
void tnl_session_limit_streams(struct tnl_session *s, size_t most)
{
	s->mux.streams_max = TNL_MIN(most, (size_t)TNL_STREAMS_MAX);
}
size_t tnl_session_memory(const struct tnl_session *s)
{
	return tnl_channel_memory(s->ch) + s->kept_memory;
}

bool tnl_session_may_send(const struct tnl_session *s, uint64_t now)
{
	return s->state == TNL_SS_READY && !s->held && now >= s->hold_until && !s->closing;
}

bool tnl_session_drained(const struct tnl_session *s)
{
	return tnl_list_empty(&s->outq) && tnl_list_empty(&s->mux.ctl) && tnl_channel_idle(s->ch);
}

/* --- the end ------------------------------------------------------------------------ */

static void end_stream(struct tnl_session *s, struct tnl_stream *st, bool orderly)
{
	bool raw = s->info.mode != TNL_MODE_MUX && s->info.mode != TNL_MODE_UNKNOWN && s->mux.single == st;
	if (st->was_reset || st->zombie)
		return;
	st->upd_due = false;
	if (st->fin_recv && (st->shut || !s->info.half_close)) {
		st->fin_sent = st->shut = true; /* all that was to come has come: what is kept may still be read */
	} else if (raw && orderly) {
		tnl_stream_end_single(st); /* the end of the session is how such a stream ends */
	} else {
		tnl_stream_report_reset(st, TNL_RESET_SESSION);
	}
}

static void close_session(struct tnl_session *s, int err, bool orderly)
{
	if (tnl_session_over(s))
		return;
	const char *text = s->why[0] || orderly ? s->why : tnl_err_text(err);
	tnl_log(err == TNL_ECLOSED ? TNL_LOG_DEBUG : TNL_LOG_INFO, "session", "session=%s closed error=\"%s\"",
		s->cfg.session_id, tnl_err_text(err));
	s->state = TNL_SS_CLOSED;
	s->close_err = err;
	if (s->reserved) {
		tnl_channel_abandon(s->ch);
		s->reserved = NULL;
	}
	tnl_session_out_clear(s);
	tnl_list_foreach(it, &s->mux.streams)
		end_stream(s, tnl_container_of(it, struct tnl_stream, all), orderly);
	tnl_list_foreach(it, &s->mux.streams)
		tnl_stream_leave_control(tnl_container_of(it, struct tnl_stream, all));
	tnl_seal_free(s->seal);
	s->seal = NULL;
	if (s->cb.on_closed) {
		tnl_session_cb_enter(s);
		s->cb.on_closed(s->cfg.ctx, err, text);
		tnl_session_cb_leave(s);
	}
	tnl_session_streams_reap(s);
}

void tnl_session_settle(struct tnl_session *s)
{
	if (s->depth || tnl_session_over(s))
		return;
	if (s->failed)
		close_session(s, s->failed, false);
	else if (s->closing && !s->blocked) /* else: what was acknowledged is still owed to the reader */
		close_session(s, TNL_ECLOSED, true);
}

void tnl_session_retry(struct tnl_session *s)
{
	s->ready_due = s->ready_due || s->blocked;
}

void tnl_session_abort(struct tnl_session *s, int err, const char *text, uint64_t now)
{
	(void)now;
	if (tnl_session_over(s))
		return;
	snprintf(s->why, sizeof(s->why), "%s", text ? text : "");
	s->failed = err ? err : TNL_ECLOSED;
	tnl_session_settle(s);
}

/* --- link --------------------------------------------------------------------------- */

int tnl_session_link_add(struct tnl_session *s, unsigned link, unsigned rank, uint64_t now)
{
	if (tnl_session_over(s))
		return 0;
	bool first = !s->linked;
	int err = tnl_channel_link_add(s->ch, link, rank, now);
	s->linked = tnl_channel_links(s->ch) != 0;
	if (err)
		return err;
	if (first)
		s->peer_seen = false;
	if (!s->ever_linked) {
		s->ever_linked = true;
		tnl_session_send_state(s, "Connected", now);
		int rc = tnl_session_hs_start(s, now);
		if (rc && !s->failed)
			s->failed = rc;
	}
	tnl_session_settle(s);
	return 0;
}

void tnl_session_link_up(struct tnl_session *s, uint64_t now)
{
	(void)!tnl_session_link_add(s, 0, 0, now); /* link 0 needs no memory */
}

void tnl_session_link_gone(struct tnl_session *s, unsigned link, uint64_t now)
{
	if (tnl_session_over(s) || !s->linked)
		return;
	tnl_channel_link_gone(s->ch, link, now);
	s->linked = tnl_channel_links(s->ch) != 0;
	if (s->linked)
		return;
	tnl_list_foreach(it, &s->mux.streams) {
		struct tnl_stream *st = tnl_container_of(it, struct tnl_stream, all);
		st->old_number = st->last_number;
	}
}

void tnl_session_keep(struct tnl_session *s, bool on)
{
	s->keep = on;
}

void tnl_session_release(struct tnl_session *s)
{
	s->held = false;
}

/* What calls from outside and callbacks left to be done. */
static void do_what_is_due(struct tnl_session *s, uint64_t now)
{
	if (s->hold_until && now >= s->hold_until)
		s->hold_until = 0;
	if (!tnl_list_empty(&s->mux.work))
		tnl_session_streams_work(s, now);
	if (s->ready_due && !s->failed) {
		s->ready_due = s->blocked = false; /* deliver says it again if it must */
		int rc = tnl_channel_ready(s->ch, now);
		if (rc < 0 && rc != TNL_EAGAIN && !s->failed)
			s->failed = rc;
	}
	if (!tnl_list_empty(&s->mux.dead))
		tnl_session_streams_reap(s);
	if (s->failed || s->closing)
		tnl_session_settle(s);
}

int tnl_session_pull_on(struct tnl_session *s, unsigned link, uint64_t now, const uint8_t **p, size_t *n)
{
	if (tnl_session_over(s) || s->reserved)
		return TNL_EAGAIN;
	do_what_is_due(s, now);
	tnl_session_out_flush(s, now);
	if (s->failed)
		tnl_session_settle(s);
	if (tnl_session_over(s))
		return TNL_EAGAIN;
	int rc = tnl_channel_pull_on(s->ch, link, now, p, n);
	if (rc < 0 && rc != TNL_EAGAIN) {
		s->failed = rc;
		tnl_session_settle(s);
		return TNL_EAGAIN;
	}
	return rc;
}

/* --- time --------------------------------------------------------------------------- */

uint64_t tnl_session_deadline(const struct tnl_session *s)
{
	if (tnl_session_over(s))
		return TNL_NEVER;
	if (s->failed || s->ready_due || !tnl_list_empty(&s->mux.work) || (s->closing && !s->blocked))
		return 0;
	uint64_t t = tnl_channel_deadline(s->ch);
	t = TNL_MIN(t, TNL_MIN(s->hs_deadline, s->keepalive_at));
	t = TNL_MIN(t, TNL_MIN(s->mux.timer_at, s->retry_at));
	return s->hold_until ? TNL_MIN(t, s->hold_until) : t;
}

static void plan_keepalive(struct tnl_session *s, uint64_t now)
{
	uint64_t due = s->last_tx + s->keepalive_ns;
	if (now < s->keepalive_at)
		return;
	if (due > now) { /* what was sent meanwhile did the same */
		s->keepalive_at = due;
		return;
	}
	if ((s->mux.nstreams || s->peer_keepalive || s->keep) && s->linked) {
		if (s->info.mode == TNL_MODE_MUX)
			s->mux.nop_due = true;
		else if (tnl_session_out_flag(s, TNL_FLAG_KEEPALIVE))
			s->failed = TNL_ENOMEM;
	}
	s->keepalive_at = now + s->keepalive_ns;
}

void tnl_session_expire(struct tnl_session *s, uint64_t now)
{
	if (tnl_session_over(s))
		return;
	int rc = tnl_channel_expire(s->ch, now);
	if (rc < 0 && rc != TNL_EAGAIN && !s->failed) {
		snprintf(s->why, sizeof(s->why), "the other end stopped answering");
		s->failed = rc;
	}
	if (now >= s->hs_deadline && !s->failed) {
		s->hs_deadline = TNL_NEVER;
		snprintf(s->why, sizeof(s->why), "the handshake was not finished in time: is the %s there?",
			 s->cfg.agent ? "client" : "agent");
		s->failed = TNL_ETIMEOUT;
	}
	if (s->state == TNL_SS_READY) {
		tnl_session_streams_expire(s, now);
		plan_keepalive(s, now);
	}
	if (now >= s->retry_at)
		s->retry_at = TNL_NEVER;
	do_what_is_due(s, now);
	if (!tnl_session_over(s) && !s->reserved)
		tnl_session_out_flush(s, now);
	tnl_session_settle(s);
}
