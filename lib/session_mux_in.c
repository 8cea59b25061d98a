/* smux, what frames of the peer mean for their streams. */
#include "lib/alloc.h"
#include "lib/log.h"
#include "lib/session_internal.h"
#include "lib/steps.h"
#include <string.h>

#define REFUSED_LOG_NS (60000 * TNL_MS)

static int bad_frame(struct tnl_session *s, const char *field, unsigned value)
{
	tnl_log(TNL_LOG_WARN, "mux", "session=%s bad smux frame: field=%s value=%u", s->cfg.session_id, field, value);
	return TNL_EPROTO;
}

/* Beyond the limit: no stream of the user's, only the frame that says so. */
static int refuse_open(struct tnl_session *s, struct tnl_stream *st, uint64_t now)
{
	struct tnl_mux *m = &s->mux;
	m->refused++;
	if (!m->refused_logged_at || now - m->refused_logged_at >= REFUSED_LOG_NS) {
		m->refused_logged_at = now;
		tnl_log(
		    TNL_LOG_WARN, "mux",
		    "session=%s connections refused stream=%u refused=%zu reason=\"as many as are allowed are open: %zu\"",
		    s->cfg.session_id, st->id, m->refused, m->streams_max);
		m->refused = 0;
	}
	tnl_stream_send_reset(st, TNL_RESET_LIMIT);
	tnl_stream_free(st);
	return m->nzombies > 2 * TNL_OPENS_REFUSED_MAX ? TNL_EPROTO : 0;
}

/* The client has the odd ids and, where the agent opens streams, that the even ones; a stock client may take any. */
static bool may_open(const struct tnl_session *s, uint32_t id)
{
	if (id == 0 || tnl_map_get_u64(s->mux.by_id, id))
		return false;
	return s->info.reverse ? (id % 2 == 0) != s->cfg.agent : s->cfg.agent;
}

static bool take_head(struct tnl_stream *st, const struct tnl_smux_event *e)
{
	char from[TNL_SMUX_WORDS];
	if (st->s->cfg.agent)
		return true;
	if (!tnl_reverse_head_parse(e->data, e->len, &st->listener, from))
		return false;
	st->from = tnl_strdup(from); /* none for want of memory: not told */
	return true;
}

static int in_syn(struct tnl_session *s, const struct tnl_smux_event *e, enum tnl_stream_kind kind, uint64_t now)
{
	struct tnl_mux *m = &s->mux;
	uint32_t id = e->id;
	if (!may_open(s, id)) {
		/* A known id is ignored; 0 stands for the session; towards a client only the agent of Reverse opens. */
		s->stats.unknown_frames++;
		return 0;
	}
	struct tnl_stream *st = tnl_stream_create(s, false, now);
	if (!st)
		return TNL_ENOMEM;
	if (!take_head(st, e)) {
		tnl_stream_destroy(st);
		return bad_frame(s, "words", (unsigned)e->len);
	}
	st->id = id;
	st->asked = kind;
	if (tnl_map_set_u64(m->by_id, id, st)) {
		st->id = 0;
		tnl_stream_destroy(st);
		return TNL_ENOMEM;
	}
	if (m->nstreams > m->streams_max)
		return refuse_open(s, st, now);
	tnl_mux_first_grant(st);
	st->head_wanted = s->info.dial != 0;
	if (st->head_wanted)
		tnl_stream_arm_timer(st);
	else
		tnl_stream_call_open(st);
	return 0;
}

static void in_fin(struct tnl_session *s, struct tnl_stream *st)
{
	if (st->fin_recv)
		return;
	if (!s->cfg.agent && s->mux.connect_errors && st->received == 0) {
		s->mux.connect_errors--;
		st->fin_recv = true;
		tnl_stream_send_reset(st, TNL_RESET_CONNECT); /* answers with our FIN */
		tnl_stream_report_reset(st, TNL_RESET_CONNECT);
		return;
	}
	tnl_stream_peer_ended(st);
}

/* Of a stream that is reset or freed here: Flag 3 names none, and the one that came before this is not another's. */
static void in_fin_unseen(struct tnl_session *s, uint32_t id)
{
	const struct tnl_stream *st = tnl_map_get_u64(s->mux.by_id, id);
	if (!s->cfg.agent && s->mux.connect_errors && (!st || st->received == 0))
		s->mux.connect_errors--;
}

/* A stream of some kind, or the news that the connection of one stands. */
static int in_open(struct tnl_session *s, const struct tnl_smux_event *e, uint64_t now)
{
	if (e->kind != TNL_KIND_TOLD && e->kind != TNL_KIND_ECHO && !(e->kind == TNL_KIND_UDP && s->info.udp))
		return bad_frame(s, "kind", e->kind);
	if (s->cfg.agent)
		return in_syn(s, e, (enum tnl_stream_kind)e->kind, now);
	struct tnl_stream *st = tnl_mux_find(&s->mux, e->id);
	if (!st || st->asked != e->kind || st->stands) {
		s->stats.unknown_frames++;
		return 0;
	}
	st->stands = true;
	if (!s->cb.on_connected)
		return 0;
	tnl_session_cb_enter(s);
	s->cb.on_connected(s->cfg.ctx, st);
	tnl_session_cb_leave(s);
	return 0;
}

static int in_upd(struct tnl_session *s, struct tnl_stream *st, const struct tnl_smux_event *e)
{
	/* Nobody can have consumed what was not sent, nor less than before. */
	if ((int32_t)(st->sent - e->consumed) < 0 || (int32_t)(e->consumed - st->peer_consumed) < 0)
		return bad_frame(s, "consumed", e->consumed);
	st->peer_consumed = e->consumed;
	st->peer_window = e->window;
	if (st->want && tnl_mux_sendable(st))
		tnl_turns_return(&s->mux.turns, &st->turn); /* from a full window: no place before the others */
	return 0;
}

static int in_psh(struct tnl_session *s, struct tnl_stream *st, const struct tnl_smux_event *e, uint64_t now)
{
	if (st->fin_recv) {
		s->stats.unknown_frames++;
		return 0;
	}
	if (s->mux.version >= 2 && (uint64_t)(st->received - st->consumed) + e->len > st->window)
		return bad_frame(s, "window", st->window);
	st->received += (uint32_t)e->len;
	const uint8_t *p = e->data;
	size_t n = e->len;
	if (st->head_wanted) {
		int rc = tnl_stream_take_head(st, &p, &n);
		if (rc || !n)
			return rc;
	}
	return tnl_stream_take_data(st, TNL_PT_OUTPUT, p, n, now);
}

static int in_event(struct tnl_session *s, const struct tnl_smux_event *e, uint64_t now)
{
	if (e->cmd == TNL_SMUX_SYN)
		return in_syn(s, e, TNL_KIND_PLAIN, now);
	if (e->cmd == TNL_SMUX_OPEN)
		return in_open(s, e, now);
	if (e->cmd == TNL_SMUX_NOP)
		return 0;
	struct tnl_stream *st = tnl_mux_find(&s->mux, e->id);
	if (!st) {
		s->stats.unknown_frames++;
		if (e->cmd == TNL_SMUX_FIN)
			in_fin_unseen(s, e->id);
		return 0;
	}
	switch (e->cmd) {
	case TNL_SMUX_PSH:
		return in_psh(s, st, e, now);
	case TNL_SMUX_UPD:
		return in_upd(s, st, e);
	case TNL_SMUX_RST:
		if (e->len && !st->was_reset)
			tnl_stream_keep_words(st, (const char *)e->data, strnlen((const char *)e->data, e->len));
		tnl_stream_report_reset(st, e->reason);
		return 0;
	default:
		in_fin(s, st);
		return 0;
	}
}

int tnl_mux_feed(struct tnl_session *s, const uint8_t *p, size_t n, uint64_t now)
{
	struct tnl_smux_parser *in = &s->mux.in;
	struct tnl_smux_event e;
	int rc;
	while ((rc = tnl_smux_next(in, &p, &n, &e)) > 0) {
		tnl_step();
		rc = in_event(s, &e, now);
		if (rc)
			return rc;
		if (n && tnl_session_over(s))
			return TNL_ECLOSED; /* a callback ended it */
	}
	return rc ? bad_frame(s, in->bad_field, in->bad_value) : 0;
}
