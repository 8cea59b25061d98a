/* A session with a hostile peer, for the fuzzers: users' callbacks, hand-made messages, what must always hold. */
#ifndef SESSION_RIG_H
#define SESSION_RIG_H
#include "lib/alloc.h"
#include "lib/num.h"
#include "lib/message.h"
#include "lib/session_internal.h"
#include "lib/steps.h"
#include "tests/fuzz/session_words.h"
#include <stdlib.h>
#include <string.h>

#define RIG_MEMORY (512u * 1024)
#define RIG_MESSAGE (64u * 1024)
#define RIG_SEC UINT64_C(1000000000)

struct rig {
	struct tnl_session *s;
	uint64_t now;
	int64_t seq, data_seen;
	bool agent, closed, kms_due;
	size_t take;
	unsigned opens, own_opens; /* the peer's, the user's */
	size_t fed;
	uint64_t steps;
	uint8_t buf[TNL_MSG_HDR + RIG_MESSAGE];
};

static void rig_open(void *ctx, struct tnl_stream *st)
{
	struct rig *r = ctx;
	if (r->closed)
		abort();
	switch (r->opens++ % 4) {
	case 0:
	case 1:
		tnl_stream_connected(st, r->now);
		break;
	case 2: /* still dialing */
		break;
	default:
		tnl_stream_reset(st, TNL_RESET_CONNECT, r->now);
		tnl_stream_free(st);
	}
}

static size_t rig_data(void *ctx, struct tnl_stream *st, uint32_t ptype, const uint8_t *p, size_t n)
{
	struct rig *r = ctx;
	uint8_t sum = 0;
	(void)st;
	(void)ptype;
	if (r->closed)
		abort();
	for (size_t i = 0; i < n; i++) /* all of it can be read */
		sum ^= p[i];
	r->data_seen += sum;
	return TNL_MIN(n, r->take);
}

static void rig_eof(void *ctx, struct tnl_stream *st, bool half)
{
	struct rig *r = ctx;
	if (r->closed)
		abort();
	if (!half && tnl_stream_done(st))
		tnl_stream_free(st);
}

static void rig_reset(void *ctx, struct tnl_stream *st, uint32_t reason)
{
	struct rig *r = ctx;
	(void)reason;
	if (r->closed)
		abort();
	tnl_stream_free(st);
}

static void rig_kms(void *ctx, const struct tnl_kms_request *k)
{
	static const uint8_t key[64] = "fuzz";
	struct rig *r = ctx;
	tnl_session_kms_result(r->s, 0, key, 64, (const uint8_t *)"c", k->generate ? 1 : 0, NULL, r->now);
}

/* Who asks for a listener gets an answer. */
static void rig_reverse(void *ctx, const struct tnl_reverse *w)
{
	struct rig *r = ctx;
	const struct tnl_reverse no = {.kind = TNL_REVERSE_REFUSED, .id = w->id, .why = "no"};
	if (r->closed || !w->id || r->agent != (w->kind == TNL_REVERSE_LISTEN || w->kind == TNL_REVERSE_UNLISTEN))
		abort();
	if (r->agent)
		tnl_session_send_reverse(r->s, &no, r->now);
}

static void rig_closed(void *ctx, int err, const char *text)
{
	struct rig *r = ctx;
	if (r->closed || err >= 0 || strlen(text) > 4096)
		abort();
	r->closed = true;
}

static const struct tnl_session_cb rig_cb = {.on_open = rig_open,
					     .on_data = rig_data,
					     .on_eof = rig_eof,
					     .on_reset = rig_reset,
					     .on_kms = rig_kms,
					     .on_reverse = rig_reverse,
					     .on_closed = rig_closed};

static void rig_drain(struct rig *r)
{
	const uint8_t *p;
	size_t n;
	struct tnl_msg m;
	while (tnl_session_pull(r->s, r->now, &p, &n) == 1)
		if (tnl_msg_decode_agreed(p, n, TNL_DIGEST_CRC32C, &m, NULL)) /* what we send is always well formed */
			abort();
	if (tnl_session_memory(r->s) > RIG_MEMORY + 64 * 1024)
		abort();
}

static void rig_message(struct rig *r, enum tnl_mtype type, int64_t seq, uint32_t ptype, const void *p, size_t n)
{
	struct tnl_msg m = {.type = type,
			    .schema = 1,
			    .created_ms = 1764000000000,
			    .seq = seq,
			    .ptype = ptype,
			    .payload = p,
			    .plen = (uint32_t)n};
	if (n > RIG_MESSAGE)
		return;
	size_t len = tnl_msg_encode(r->buf, &m);
	r->fed += len;
	(void)!tnl_session_feed(r->s, r->buf, len, r->now);
}

/* The next stream message of the peer. */
static void rig_stream(struct rig *r, uint32_t ptype, const void *p, size_t n)
{
	rig_message(r, r->agent ? TNL_MT_INPUT : TNL_MT_OUTPUT, r->seq++, ptype, p, n);
}

static void rig_ack(struct rig *r, int64_t seq)
{
	char text[TNL_ACK_MAX];
	struct tnl_ack a = {.type = r->agent ? TNL_MT_OUTPUT : TNL_MT_INPUT, .seq = seq};
	size_t n = tnl_ack_write(text, &a);
	rig_message(r, TNL_MT_ACK, 0, 0, text, n);
}

static void rig_handshake(struct rig *r, bool own)
{
	rig_drain(r);
	if (r->agent) {
		rig_ack(r, 0);
		rig_stream(r, TNL_PT_HANDSHAKE_RESPONSE, session_words[SESSION_WORDS_CLIENT + own],
			   strlen(session_words[SESSION_WORDS_CLIENT + own]));
		rig_drain(r);
		rig_ack(r, 1);
	} else {
		static const char done[] = "{\"HandshakeTimeToComplete\":1,\"CustomerMessage\":\"\"}";
		rig_stream(r, TNL_PT_HANDSHAKE_REQUEST, session_words[own], strlen(session_words[own]));
		rig_drain(r);
		rig_ack(r, 0);
		rig_stream(r, TNL_PT_HANDSHAKE_COMPLETE, done, strlen(done));
	}
	r->now += RIG_SEC / 10;
	tnl_session_expire(r->s, r->now);
	rig_drain(r);
}

static void rig_init(struct rig *r, bool agent, const char *type, const char *props, bool kms, bool skip)
{
	struct tnl_session_config c = {.agent = agent,
				       .session_id = "fuzz",
				       .memory_max = RIG_MEMORY,
				       .stream_window = 1u << 20,
				       .max_payload = 32768,
				       .half_close_timeout_ns = 600 * RIG_SEC,
				       .fin_quiet_ns = 2 * RIG_SEC,
				       .keepalive_ns = 60 * RIG_SEC,
				       .offer_capabilities = true,
				       .reverse = true,
				       .session_type = type,
				       .properties_json = props,
				       .kms_key_id = kms ? "key" : NULL,
				       .skip_handshake = skip,
				       .cb = &rig_cb,
				       .ctx = r};
	memset(r, 0, sizeof(*r));
	r->now = 1000 * RIG_SEC;
	r->steps = tnl_steps_made;
	tnl_alloc_most();
	r->agent = agent;
	r->take = SIZE_MAX;
	r->s = tnl_session_new(&c, r->now);
	if (!r->s)
		abort();
	tnl_session_link_up(r->s, r->now);
	rig_drain(r);
}

static void rig_fini(struct rig *r)
{
	/* A loop inside a loop over what the peer sized shows (corpus/smux/syn-flood): honest work is a step for a
	 * byte that was fed, at most, and a stream some 400 bytes for the 8 of its SYN.  One that the user opens, with
	 * the SYN that waits to be acknowledged, is the user's doing. */
	size_t may_have = RIG_MEMORY / 2 + 50 * r->fed + 1024u * r->own_opens;
	if (tnl_steps_made - r->steps > 8000 + 8 * r->fed || tnl_alloc_most() > may_have)
		abort();
	tnl_session_free(r->s);
	if (tnl_alloc_live() != 0)
		abort();
}

/* All streams that the user has not freed: the one after prev, the first for NULL. */
static struct tnl_stream *next_stream(struct tnl_session *s, struct tnl_stream *prev)
{
	struct tnl_list *it = prev ? prev->all.next : s->mux.streams.next;
	for (; it != &s->mux.streams; it = it->next) {
		struct tnl_stream *st = tnl_container_of(it, struct tnl_stream, all);
		if (!st->zombie)
			return st;
	}
	return NULL;
}

static void rig_read(struct rig *r)
{
	const uint8_t *p;
	size_t n;
	for (struct tnl_stream *st = NULL, *next = next_stream(r->s, NULL); next;) {
		st = next;
		next = next_stream(r->s, st);
		while (r->take && (n = tnl_stream_peek(st, &p)) > 0)
			tnl_stream_consume(st, TNL_MIN(n, r->take), r->now);
		if (tnl_stream_done(st))
			tnl_stream_free(st);
	}
}

static void rig_write(struct rig *r, size_t most)
{
	struct tnl_stream *st;
	size_t cap;
	while (most && (st = tnl_session_next(r->s, r->now))) {
		uint8_t *p = tnl_stream_reserve(st, &cap, r->now);
		if (!p)
			break;
		cap = TNL_MIN(cap, most);
		memset(p, 'w', cap);
		if (tnl_stream_commit(st, cap, TNL_PT_OUTPUT, r->now))
			break;
		most -= cap;
	}
}

#endif
