/* Messages in: from the link to the channel, from the channel to what they carry: handshake,
 * flags, sizes, exit codes, and data for smux or for the one stream. */
#include "lib/alloc.h"
#include "lib/json.h"
#include "lib/log.h"
#include "lib/num.h"
#include "lib/session_internal.h"
#include "lib/wire.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void in_size(struct tnl_session *s, const uint8_t *p, size_t n)
{
	int64_t cols, rows;
	struct tnl_json *j = n <= 4096 ? tnl_json_parse(p, n) : NULL;
	bool ok = s->cfg.agent && j && tnl_json_int(tnl_json_iget(j, "cols"), &cols) && cols > 0 &&
		  cols <= UINT16_MAX && tnl_json_int(tnl_json_iget(j, "rows"), &rows) && rows > 0 && rows <= UINT16_MAX;
	tnl_json_free(j);
	if (!ok) {
		s->stats.bad_payloads++;
		return;
	}
	if (s->cb.on_size) {
		tnl_session_cb_enter(s);
		s->cb.on_size(s->cfg.ctx, (unsigned)cols, (unsigned)rows);
		tnl_session_cb_leave(s);
	}
}

static void in_flag(struct tnl_session *s, uint32_t flag)
{
	struct tnl_stream *st = s->mux.single;
	if (flag == TNL_FLAG_KEEPALIVE)
		return;
	if (flag == TNL_FLAG_DISCONNECT) {
		if (s->cfg.agent && s->info.mode == TNL_MODE_BASIC && st)
			tnl_stream_end_single(st);
		return;
	}
	if (s->info.mode == TNL_MODE_SINGLE && s->info.half_close && flag == TNL_FLAG_STREAM_FIN) {
		if (st)
			tnl_stream_peer_ended(st);
		return;
	}
	if (s->info.mode == TNL_MODE_SINGLE && s->info.half_close && (flag & ~0xffu) == TNL_FLAG_STREAM_RST) {
		if (st)
			tnl_stream_report_reset(st, flag & 0xff);
		return;
	}
	if (flag == TNL_FLAG_CONNECT_ERROR && !s->cfg.agent && s->info.mode == TNL_MODE_MUX &&
	    s->mux.connect_errors < s->mux.nstreams)
		s->mux.connect_errors++;
	if ((flag & ~0xffu) == TNL_FLAG_LINKS) {
		unsigned n = flag & 0xff;
		if (!s->cfg.agent || s->info.links < 2)
			return;
		flag = TNL_FLAG_LINKS | TNL_MIN(TNL_MAX(n, 1u), s->info.links);
	}
	if (s->cb.on_flag) {
		tnl_session_cb_enter(s);
		s->cb.on_flag(s->cfg.ctx, flag);
		tnl_session_cb_leave(s);
	}
}

static void in_exit_code(struct tnl_session *s, const uint8_t *p, size_t n)
{
	static const char lead[] = "EXIT_CODE: ";
	char text[32];
	char *end;
	if (s->cfg.agent || n <= sizeof(lead) - 1 || n >= sizeof(text) || memcmp(p, lead, sizeof(lead) - 1) != 0) {
		s->stats.bad_payloads++;
		return;
	}
	memcpy(text, p, n);
	text[n] = '\0';
	long code = strtol(text + sizeof(lead) - 1, &end, 10);
	if (end == text + sizeof(lead) - 1 || code < INT32_MIN || code > INT32_MAX) {
		s->stats.bad_payloads++;
		return;
	}
	if (s->cb.on_exit_code) {
		tnl_session_cb_enter(s);
		s->cb.on_exit_code(s->cfg.ctx, (int)code);
		tnl_session_cb_leave(s);
	}
}

/* The one stream of a session that is not multiplexed; NULL with *rc 0: drop, TNL_EAGAIN: later. */
static struct tnl_stream *raw_stream(struct tnl_session *s, uint32_t ptype, uint64_t now, int *rc)
{
	struct tnl_stream *st = s->mux.single;
	*rc = 0;
	if (!st && s->cfg.agent && s->info.mode == TNL_MODE_BASIC) {
		/* The next data after DisconnectToPort makes it dial again. */
		st = tnl_stream_create(s, false, now);
		if (!st) {
			*rc = TNL_ENOMEM;
			return NULL;
		}
		s->mux.single = st;
		tnl_stream_call_open(st);
		return s->mux.single; /* the callback may have refused it */
	}
	if (!st)
		*rc = s->mux.had_single ? 0 : TNL_EAGAIN;
	else if (st->kept.len && st->kept_ptype != ptype)
		*rc = TNL_EAGAIN; /* output and errors stay in order */
	return *rc ? NULL : st;
}

static int in_data(struct tnl_session *s, const struct tnl_msg *m, uint64_t now)
{
	struct tnl_stream *st = NULL;
	const uint8_t *p = m->payload;
	size_t n = m->plen;
	bool raw = m->ptype != TNL_PT_EXIT_CODE && s->info.mode != TNL_MODE_MUX;
	int rc = 0;
	if (s->cfg.agent && m->ptype != TNL_PT_OUTPUT) {
		s->stats.bad_payloads++;
		return 0;
	}
	if (!tnl_session_room(s, n))
		rc = TNL_EAGAIN;
	else if (raw)
		st = raw_stream(s, m->ptype, now, &rc);
	if (rc == TNL_EAGAIN) {
		s->blocked = true;
		s->blocked_len = n;
	}
	if (rc)
		return rc;
	if (s->seal_data) {
		rc = tnl_session_open_payload(s, m, &p, &n);
		if (rc)
			return rc;
	}
	if (m->ptype == TNL_PT_EXIT_CODE)
		in_exit_code(s, p, n);
	else if (!raw)
		rc = m->ptype == TNL_PT_OUTPUT ? tnl_mux_feed(s, p, n, now) : 0;
	else if (st && !st->fin_recv && n)
		rc = tnl_stream_take_data(st, m->ptype, p, n, now);
	if (rc == TNL_EPROTO && !s->why[0])
		snprintf(s->why, sizeof(s->why), "the peer broke the smux protocol");
	return rc;
}

/* The first Output of a session without handshake tells a client what it has. */
static int shell_without_handshake(struct tnl_session *s, uint64_t now)
{
	const char *want = s->cfg.expected_type;
	if (want && strcmp(want, "Standard_Stream") != 0 && strcmp(want, "InteractiveCommands") != 0) {
		snprintf(s->why, sizeof(s->why), "the agent sent output without a handshake, which a %.40s session has",
			 want);
		return TNL_EREFUSED;
	}
	if (s->cfg.require_encryption) {
		snprintf(s->why, sizeof(s->why),
			 "the session is not encrypted (no handshake) and require_encryption is set");
		return TNL_EREFUSED;
	}
	s->info.mode = TNL_MODE_SHELL;
	tnl_session_hs_ready(s, now);
	return tnl_session_over(s) ? TNL_ECLOSED : 0;
}

/* The end of a stream that the client has not opened yet waits for it, as its data does. */
static bool single_too_early(const struct tnl_session *s)
{
	return s->state == TNL_SS_READY && s->info.mode == TNL_MODE_SINGLE && !s->mux.single && !s->mux.had_single;
}

static void in_reverse(struct tnl_session *s, const uint8_t *p, size_t n)
{
	struct tnl_reverse r;
	bool for_agent;
	if (tnl_reverse_parse(p, n, &r)) {
		s->stats.bad_payloads++;
		return;
	}
	for_agent = r.kind == TNL_REVERSE_LISTEN || r.kind == TNL_REVERSE_UNLISTEN;
	if (for_agent != s->cfg.agent || !s->cb.on_reverse)
		return;
	tnl_session_cb_enter(s);
	s->cb.on_reverse(s->cfg.ctx, &r);
	tnl_session_cb_leave(s);
}

/* Flags, sizes and words about listeners: encrypted between our own ends once the session is ready. An end that is
 * asked for before that comes in the clear, and whoever carries it could end the session anyway. */
static int in_control(struct tnl_session *s, const struct tnl_msg *m)
{
	const uint8_t *p = m->payload;
	size_t n = m->plen;
	bool sealed = s->seal_data && tnl_seal_is_bound(s->seal);
	if (sealed && !(m->ptype == TNL_PT_FLAG && n == 4 && tnl_get_be32(p) == TNL_FLAG_TERMINATE)) {
		int rc = tnl_session_open_payload(s, m, &p, &n);
		if (rc)
			return rc;
	}
	if (m->ptype == TNL_PT_REVERSE)
		in_reverse(s, p, n);
	else if (m->ptype == TNL_PT_SIZE)
		in_size(s, p, n);
	else if (n == 4)
		in_flag(s, tnl_get_be32(p));
	else
		s->stats.bad_payloads++;
	return 0;
}

int tnl_session_deliver(void *ctx, const struct tnl_msg *m, uint64_t now)
{
	struct tnl_session *s = ctx;
	s->blocked = false;
	if (tnl_session_over(s))
		return TNL_ECLOSED;
	switch (m->ptype) {
	case TNL_PT_HANDSHAKE_REQUEST:
	case TNL_PT_HANDSHAKE_RESPONSE:
	case TNL_PT_HANDSHAKE_COMPLETE:
	case TNL_PT_ENC_CHALLENGE_REQUEST:
	case TNL_PT_ENC_CHALLENGE_RESPONSE:
		return tnl_session_hs_message(s, m, now);
	case TNL_PT_FLAG:
		if (single_too_early(s)) {
			s->blocked = true;
			s->blocked_len = 0;
			return TNL_EAGAIN;
		}
		s->hold_until = s->cfg.agent ? 0 : s->hold_until;
		return in_control(s, m);
	case TNL_PT_SIZE:
		return in_control(s, m);
	case TNL_PT_OUTPUT:
	case TNL_PT_STDERR:
	case TNL_PT_EXIT_CODE:
		break;
	case TNL_PT_REVERSE:
		if (s->info.reverse)
			return in_control(s, m);
		/* fall through */
	default:
		s->stats.unknown_payloads++;
		return 0;
	}
	if (!s->cfg.agent && s->step == TNL_HS_WAIT_REQUEST) {
		int rc = shell_without_handshake(s, now);
		if (rc)
			return rc;
	}
	if (s->state != TNL_SS_READY) {
		s->stats.early_data++; /* as a stock agent: acknowledged and dropped */
		return 0;
	}
	if (s->cfg.agent)
		s->hold_until = 0; /* who sends is listening */
	return in_data(s, m, now);
}

/* --- whole messages ------------------------------------------------------------- */

static void in_channel_closed(struct tnl_session *s, const struct tnl_msg *m)
{
	struct tnl_channel_closed c = {0};
	if (tnl_channel_closed_parse(m->payload, m->plen, &c)) {
		s->stats.bad_payloads++;
		memset(&c, 0, sizeof(c));
	}
	s->closing = true;
	snprintf(s->why, sizeof(s->why), "%s", c.output ? c.output : "");
	tnl_channel_closed_fini(&c);
}

/* A stock agent that cannot write an ack, because its link has just broken, takes the resend for a new message and
 * writes the bytes a second time. Nothing tells which they are: what was under way to it is given up with a reset,
 * which the program at this end can see, instead of bytes that are wrong without a sign. */
static bool in_doubt(const struct tnl_session *s, const struct tnl_stream *st)
{
	/* An agent that has not been there on this link was lost with an older one: what was written since then has not
	 * been taken by anybody. */
	bool older = s->cfg.link_queue && !s->peer_seen; /* AWS's gateway need not say when the agent is there */
	return (!older ? st->last_number : st->old_number) >= tnl_channel_oldest(s->ch);
}

static void stock_agent_gone(struct tnl_session *s)
{
	if (s->cfg.agent || s->caps.present || s->state != TNL_SS_READY)
		return;
	if (s->info.mode == TNL_MODE_BASIC || s->info.mode == TNL_MODE_SINGLE) {
		/* Nothing marks where one connection ends and the next begins: the session goes with it. */
		if (s->mux.single && in_doubt(s, s->mux.single)) {
			snprintf(s->why, sizeof(s->why), "%s", tnl_reset_text(TNL_RESET_DOUBT));
			s->failed = TNL_ETRUNC;
		}
		return;
	}
	if (s->info.mode != TNL_MODE_MUX)
		return;
	tnl_list_foreach_safe(it, &s->mux.streams) {
		struct tnl_stream *st = tnl_container_of(it, struct tnl_stream, all);
		if (st->zombie || st->was_reset || !in_doubt(s, st))
			continue;
		tnl_stream_send_reset(st, TNL_RESET_DOUBT);
		tnl_stream_report_reset(st, TNL_RESET_DOUBT);
	}
}

static void in_publication(struct tnl_session *s, bool started)
{
	if (!started)
		stock_agent_gone(s);
	s->peer_seen = started;
	if (!s->cb.on_publication)
		return;
	tnl_session_cb_enter(s);
	s->cb.on_publication(s->cfg.ctx, started);
	tnl_session_cb_leave(s);
}

/* A response that says that its sender is one of our own: such a one writes digests. */
static bool comes_from_own(const struct tnl_msg *m)
{
	struct tnl_hs_response a;

	if (m->ptype != TNL_PT_HANDSHAKE_RESPONSE)
		return false;
	if (tnl_hs_response_parse(m->payload, m->plen, &a, NULL))
		return true; /* not to be read: a digest that is wrong for a reason */
	bool own = a.caps.present;
	tnl_hs_response_fini(&a);
	return own;
}

/* A stock client compares digests, a stock agent does not, and neither looks at SchemaVersion and PayloadLength. Who
 * the client is shows in its response; before it, and where there is none, a client that has written one right digest
 * is held to it. */
static bool may_be_odd(const struct tnl_session *s, const struct tnl_msg *m)
{
	if (s->caps.present)
		return false;
	if (!s->cfg.agent)
		return !(m->odd & TNL_ODD_DIGEST);
	if (s->lax)
		return true;
	if (s->state == TNL_SS_READY && !s->cfg.skip_handshake)
		return true;
	return !s->digest_seen && !comes_from_own(m);
}

static void note_digest(struct tnl_session *s, const struct tnl_msg *m)
{
	if (m->plen && !(m->odd & TNL_ODD_DIGEST) && (m->type == TNL_MT_INPUT || m->type == TNL_MT_ACK))
		s->digest_seen = true;
}

/* Once is enough for the log: a peer could send as many as it likes. */
static void count_bad(struct tnl_session *s, const char *what, const char *field)
{
	if (s->stats.bad_messages++ == 0)
		tnl_log(TNL_LOG_WARN, "session", "session=%s %s field=%s", s->cfg.session_id, what,
			field ? field : "?");
}

/* 0: m is to be taken. */
static int read_message(struct tnl_session *s, const uint8_t *p, size_t n, struct tnl_msg *m)
{
	struct tnl_msg_fault fault = {NULL};
	bool hash = !s->lax || s->caps.present;
	int rc = hash ? tnl_msg_decode_lax(p, n, tnl_session_digest(s), m, &fault) : tnl_msg_peek(p, n, m, &fault);

	if (rc == TNL_ETYPE) {
		s->stats.unknown_messages++;
		return rc;
	}
	if (rc || (m->odd && !may_be_odd(s, m))) {
		count_bad(s, "bad message, dropped:", fault.field);
		return rc ? rc : TNL_ESYNTAX;
	}
	if (m->odd && !s->lax) {
		count_bad(s, "the peer is not tunneld's and breaks a rule that stock ends do not keep, taken:",
			  fault.field);
		s->lax = s->cfg.agent;
	} else if (s->cfg.agent && hash) {
		note_digest(s, m);
	}
	return 0;
}

int tnl_session_feed_on(struct tnl_session *s, unsigned link, const uint8_t *p, size_t n, uint64_t now)
{
	struct tnl_msg m;
	if (tnl_session_over(s))
		return TNL_ECLOSED;
	int rc = read_message(s, p, n, &m);
	if (rc)
		return 0;
	switch (m.type) {
	case TNL_MT_CHANNEL_CLOSED:
		in_channel_closed(s, &m);
		break;
	case TNL_MT_INPUT:
	case TNL_MT_OUTPUT:
	case TNL_MT_ACK:
	case TNL_MT_START_PUBLICATION:
	case TNL_MT_PAUSE_PUBLICATION:
		if (m.type != TNL_MT_START_PUBLICATION && m.type != TNL_MT_PAUSE_PUBLICATION)
			s->peer_seen = true;
		rc = tnl_channel_feed_on(s->ch, link, &m, now);
		if (rc == 0 && (m.type == TNL_MT_START_PUBLICATION || m.type == TNL_MT_PAUSE_PUBLICATION))
			in_publication(s, m.type == TNL_MT_START_PUBLICATION);
		break;
	default:
		s->stats.unknown_messages++;
	}
	if (rc < 0 && !s->failed)
		s->failed = rc;
	tnl_session_settle(s);
	return tnl_session_over(s) ? s->close_err : 0;
}
