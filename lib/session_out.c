/* Messages out: those of the session itself (handshake, flags, size, exit code) wait in a queue
 * until they may leave; encryption; then the control frames of streams. */
#include "lib/alloc.h"
#include "lib/session_internal.h"
#include "lib/wire.h"
#include <stdio.h>
#include <string.h>

static int queue_message(struct tnl_session *s, uint32_t ptype, const void *p, size_t n, bool wait_ack, bool wait_ready)
{
	struct tnl_outmsg *m = tnl_malloc(sizeof(*m) + n);
	if (!m)
		return TNL_ENOMEM;
	m->ptype = ptype;
	m->wait_ack = wait_ack;
	m->wait_ready = wait_ready;
	m->n = n;
	memcpy(m->data, p, n);
	tnl_list_push_back(&s->outq, &m->l);
	return 0;
}

int tnl_session_out_buf(struct tnl_session *s, uint32_t ptype, struct tnl_buf *b, bool wait_ack)
{
	if (b->failed)
		return TNL_ENOMEM;
	return queue_message(s, ptype, tnl_buf_data(b), tnl_buf_len(b), wait_ack, false);
}

int tnl_session_out_flag(struct tnl_session *s, uint32_t flag)
{
	uint8_t p[4];
	tnl_put_be32(p, flag);
	return queue_message(s, TNL_PT_FLAG, p, sizeof(p), false, true);
}

void tnl_session_out_clear(struct tnl_session *s)
{
	while (!tnl_list_empty(&s->outq)) {
		struct tnl_outmsg *m = tnl_container_of(s->outq.next, struct tnl_outmsg, l);
		tnl_list_remove(&m->l);
		tnl_free_wiped(m, sizeof(*m) + m->n);
	}
}

/* Both peers count on these types being encrypted, and on no others: flags and sizes between our own ends only, where
 * some flags are ends of streams. */
static bool sealed_type(const struct tnl_session *s, uint32_t ptype)
{
	if (!s->seal_data)
		return false;
	if (ptype == TNL_PT_FLAG || ptype == TNL_PT_SIZE || ptype == TNL_PT_REVERSE)
		return tnl_seal_is_bound(s->seal);
	return ptype == TNL_PT_OUTPUT || (s->cfg.agent && (ptype == TNL_PT_STDERR || ptype == TNL_PT_EXIT_CODE));
}

int tnl_session_commit(struct tnl_session *s, uint8_t *p, size_t n, uint32_t ptype, uint64_t now)
{
	if (sealed_type(s, ptype)) {
		const struct tnl_seal_about about = {.seq = tnl_channel_next(s->ch), .ptype = ptype};
		int rc = tnl_seal_seal(s->seal, &about, p, n);
		if (rc) {
			tnl_channel_abandon(s->ch);
			return rc;
		}
		n += TNL_SEAL_OVERHEAD;
	}
	s->last_tx = now;
	return tnl_channel_commit(s->ch, ptype, n, 0, now);
}

static bool flush_one(struct tnl_session *s, struct tnl_outmsg *m, uint64_t now)
{
	bool sealed = sealed_type(s, m->ptype);
	uint8_t *p = tnl_channel_reserve(s->ch, m->n + (sealed ? TNL_SEAL_OVERHEAD : 0));
	if (!p)
		return false;
	memcpy(p + (sealed ? TNL_SEAL_NONCE : 0), m->data, m->n);
	/* The agent's first message carries SYN, as the stock agent's does. */
	uint64_t flags = m->ptype == TNL_PT_HANDSHAKE_REQUEST ? TNL_MF_SYN : 0;
	s->last_tx = now;
	int rc = flags ? tnl_channel_commit(s->ch, m->ptype, m->n, flags, now)
		       : tnl_session_commit(s, p, m->n, m->ptype, now);
	if (rc) {
		s->failed = rc;
		return false;
	}
	uint32_t ptype = m->ptype;
	s->words -= ptype == TNL_PT_REVERSE;
	tnl_list_remove(&m->l);
	tnl_free_wiped(m, sizeof(*m) + m->n);
	tnl_session_hs_sent(s, ptype, now);
	return true;
}

/* The first that may leave now: what waits for the handshake's end must not hold up the handshake. */
static struct tnl_outmsg *next_out(struct tnl_session *s, uint64_t now)
{
	bool ready = tnl_session_may_send(s, now);
	tnl_list_foreach(it, &s->outq) {
		struct tnl_outmsg *m = tnl_container_of(it, struct tnl_outmsg, l);
		if (m->wait_ready && !ready)
			continue;
		return m->wait_ack && !tnl_channel_idle(s->ch) ? NULL : m;
	}
	return NULL;
}

static bool flush_queue(struct tnl_session *s, uint64_t now)
{
	struct tnl_outmsg *m;
	while ((m = next_out(s, now)))
		if (!flush_one(s, m, now))
			return false;
	return true;
}

void tnl_session_out_flush(struct tnl_session *s, uint64_t now)
{
	if (s->reserved || s->failed || tnl_session_over(s))
		return;
	bool ok = true;
	if (!tnl_list_empty(&s->outq))
		ok = flush_queue(s, now);
	if (ok && (s->mux.nop_due || !tnl_list_empty(&s->mux.ctl)) && tnl_session_may_send(s, now))
		ok = tnl_mux_flush(s, now);
	/* An ack makes room and is an event of its own; without any to come (no memory) try again by time. */
	s->retry_at = !ok && tnl_channel_idle(s->ch) ? now + 20 * TNL_MS : TNL_NEVER;
}

void tnl_session_send_flag(struct tnl_session *s, uint32_t flag, uint64_t now)
{
	uint8_t p[4];
	(void)now;
	if (tnl_session_over(s))
		return;
	if (flag == TNL_FLAG_TERMINATE && s->peer_version && !s->cfg.agent &&
	    !tnl_agent_version_terminate(s->peer_version))
		return; /* the API call has to do */
	tnl_put_be32(p, flag);
	/* An end must get through also while the handshake hangs. */
	int rc = queue_message(s, TNL_PT_FLAG, p, sizeof(p), false, s->state == TNL_SS_READY);
	if (rc)
		s->failed = rc;
}

void tnl_session_send_reverse(struct tnl_session *s, const struct tnl_reverse *r, uint64_t now)
{
	struct tnl_buf b;
	(void)now;
	if (tnl_session_over(s) || !s->info.reverse)
		return;
	if (s->words >= TNL_REVERSE_QUEUE) {
		snprintf(s->why, sizeof(s->why), "the other end asks for listeners and does not read the answers");
		s->failed = TNL_EPROTO;
		return;
	}
	tnl_buf_init(&b, TNL_REVERSE_JSON);
	int rc = tnl_reverse_write(&b, r);
	if (rc == 0)
		rc = queue_message(s, TNL_PT_REVERSE, tnl_buf_data(&b), tnl_buf_len(&b), false, true);
	tnl_buf_fini(&b);
	if (rc)
		s->failed = rc;
	else
		s->words++;
}

void tnl_session_send_size(struct tnl_session *s, unsigned cols, unsigned rows, uint64_t now)
{
	char text[64];
	(void)now;
	if (tnl_session_over(s) || s->cfg.agent)
		return;
	/* Only the last size counts. */
	tnl_list_foreach_safe(it, &s->outq) {
		struct tnl_outmsg *m = tnl_container_of(it, struct tnl_outmsg, l);
		if (m->ptype == TNL_PT_SIZE) {
			tnl_list_remove(it);
			tnl_free(m);
		}
	}
	int n = snprintf(text, sizeof(text), "{\"cols\":%u,\"rows\":%u}", cols, rows);
	if (queue_message(s, TNL_PT_SIZE, text, (size_t)n, false, true))
		s->failed = TNL_ENOMEM;
}

void tnl_session_send_exit_code(struct tnl_session *s, int code, uint64_t now)
{
	char text[32];
	(void)now;
	if (tnl_session_over(s) || !s->cfg.agent)
		return;
	int n = snprintf(text, sizeof(text), "EXIT_CODE: %d", code);
	if (queue_message(s, TNL_PT_EXIT_CODE, text, (size_t)n, false, true))
		s->failed = TNL_ENOMEM;
}

void tnl_session_send_state(struct tnl_session *s, const char *state, uint64_t now)
{
	struct tnl_buf b;
	if (tnl_session_over(s) || !s->cfg.agent)
		return;
	tnl_buf_init(&b, 4096);
	int rc = tnl_state_write(&b, state, s->cfg.session_id);
	if (rc == 0)
		rc = tnl_channel_send_unnumbered(s->ch, TNL_MT_SESSION_STATE, tnl_buf_data(&b), tnl_buf_len(&b), now);
	tnl_buf_fini(&b);
	if (rc)
		s->failed = rc;
}
