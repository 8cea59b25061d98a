#include "lib/alloc.h"
#include "lib/log.h"
#include "lib/mux.h"
#include "lib/session_internal.h"
#include <string.h>

static int in_syn(struct tnl_session *s, uint32_t id, uint64_t now)
{
	struct tnl_mux *m = &s->mux;
	if (!s->cfg.agent || id == 0 || tnl_map_get_u64(m->by_id, id)) {
		/* A known id is ignored; 0 stands for the session; towards a client nobody opens streams. */
		s->stats.unknown_frames++;
		return 0;
	}
	struct tnl_stream *st = tnl_stream_new_(s, now);
	if (!st)
		return TNL_ENOMEM;
	st->id = id;
	if (tnl_map_set_u64(m->by_id, id, st)) {
		st->id = 0;
		tnl_stream_destroy_(st);
		return TNL_ENOMEM;
	}
	if (m->nstreams > TNL_STREAMS_MAX) {
		tnl_log(TNL_LOG_WARN, "mux", "session=%s stream=%u refused=too-many-streams", s->cfg.session_id, id);
		tnl_stream_reset_(st, TNL_RESET_LIMIT);
		tnl_stream_free(st);
		return 0;
	}
	tnl_mux_first_grant(st);
	if (s->cb.on_open) {
		tnl_cb_enter(s);
		s->cb.on_open(s->cfg.ctx, st);
		tnl_cb_leave(s);
	}
	return 0;
}

static void in_fin(struct tnl_session *s, struct tnl_stream *st)
{
	if (st->fin_recv)
		return;
	if (!s->cfg.agent && s->mux.connect_errors && st->received == 0) {
		s->mux.connect_errors--;
		st->fin_recv = true;
		tnl_stream_reset_(st, TNL_RESET_CONNECT); /* answers with our FIN */
		tnl_stream_peer_reset_(st, TNL_RESET_CONNECT);
		return;
	}
	tnl_stream_eof_(st);
}

static int in_upd(struct tnl_session *s, struct tnl_stream *st, const uint8_t *p)
{
	uint32_t consumed = tnl_get_le32(p), window = tnl_get_le32(p + 4);
	/* Nobody can have consumed what was not sent, nor less than before. */
	if ((int32_t)(st->sent - consumed) < 0 || (int32_t)(consumed - st->peer_consumed) < 0)
		return TNL_EPROTO;
	st->peer_consumed = consumed;
	st->peer_window = window;
	if (st->q == TNL_Q_NONE && st->want && tnl_mux_sendable(st)) {
		/* Back from a full window, not new: no place before the others. */
		st->q = TNL_Q_OLD;
		if (st->deficit <= 0)
			st->deficit += TNL_MUX_QUANTUM;
		tnl_list_push_back(&s->mux.old_q, &st->sched);
	}
	return 0;
}

static int bad(struct tnl_session *s, const char *field, unsigned value)
{
	tnl_log(TNL_LOG_WARN, "mux", "session=%s bad smux frame: field=%s value=%u", s->cfg.session_id, field, value);
	return TNL_EPROTO;
}

/* A whole header: what follows, or what to do. */
static int in_header(struct tnl_session *s, uint64_t now)
{
	struct tnl_mux *m = &s->mux;
	tnl_smux_read(m->head, &m->cur);
	struct tnl_smux_frame *f = &m->cur;
	if (f->version != m->version)
		return bad(s, "version", f->version);
	switch (f->cmd) {
	case TNL_SMUX_PSH:
		m->left = f->len;
		return 0;
	case TNL_SMUX_UPD:
		if (m->version < 2 || f->len != 8)
			return bad(s, m->version < 2 ? "cmd" : "length", m->version < 2 ? f->cmd : f->len);
		m->need = TNL_SMUX_HDR + 8;
		return 0;
	case TNL_SMUX_RST:
		if (!s->info.half_close || f->len != 4)
			return bad(s, s->info.half_close ? "length" : "cmd", s->info.half_close ? f->len : f->cmd);
		m->need = TNL_SMUX_HDR + 4;
		return 0;
	case TNL_SMUX_SYN:
	case TNL_SMUX_FIN:
	case TNL_SMUX_NOP:
		break;
	default:
		return bad(s, "cmd", f->cmd);
	}
	if (f->len != 0)
		return bad(s, "length", f->len);
	if (f->cmd == TNL_SMUX_SYN)
		return in_syn(s, f->id, now);
	if (f->cmd == TNL_SMUX_FIN) {
		struct tnl_stream *st = tnl_mux_find(m, f->id);
		if (st)
			in_fin(s, st);
		else
			s->stats.unknown_frames++;
	}
	return 0;
}

static int in_body(struct tnl_session *s)
{
	struct tnl_mux *m = &s->mux;
	struct tnl_stream *st = tnl_mux_find(m, m->cur.id);
	m->need = TNL_SMUX_HDR;
	if (!st) {
		s->stats.unknown_frames++;
		return 0;
	}
	if (m->cur.cmd == TNL_SMUX_UPD)
		return in_upd(s, st, m->head + TNL_SMUX_HDR) ? bad(s, "consumed", tnl_get_le32(m->head + 8)) : 0;
	tnl_stream_peer_reset_(st, tnl_get_le32(m->head + TNL_SMUX_HDR));
	return 0;
}

static int in_psh(struct tnl_session *s, const uint8_t *p, size_t n, uint64_t now)
{
	struct tnl_stream *st = tnl_mux_find(&s->mux, s->mux.cur.id);
	if (!st || st->fin_recv) {
		s->stats.unknown_frames++;
		return 0;
	}
	if (s->mux.version >= 2 && (uint64_t)(st->received - st->consumed) + n > st->window)
		return bad(s, "window", st->window);
	st->received += (uint32_t)n;
	return tnl_stream_data_(st, TNL_PT_OUTPUT, p, n, now);
}

int tnl_mux_feed(struct tnl_session *s, const uint8_t *p, size_t n, uint64_t now)
{
	struct tnl_mux *m = &s->mux;
	int rc = 0;
	while (n && rc == 0) {
		if (tnl_session_over(s))
			return TNL_ECLOSED; /* a callback ended it */
		size_t take;
		if (m->left) {
			take = n < m->left ? n : m->left;
			m->left -= (uint32_t)take;
			rc = in_psh(s, p, take, now);
		} else {
			take = n < m->need - m->have ? n : m->need - m->have;
			memcpy(m->head + m->have, p, take);
			m->have += (unsigned)take;
			if (m->have == TNL_SMUX_HDR && m->need == TNL_SMUX_HDR) {
				rc = in_header(s, now);
				if (m->need == TNL_SMUX_HDR)
					m->have = 0;
			} else if (m->have == m->need) {
				m->have = 0;
				rc = in_body(s);
			}
		}
		p += take;
		n -= take;
	}
	return rc;
}
