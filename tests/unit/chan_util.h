/* Two channels over a virtual link, for the tests of the channel. */
#ifndef CHAN_UTIL_H
#define CHAN_UTIL_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "lib/alloc.h"
#include "lib/channel_internal.h"
#include "lib/crypto.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define MS 1000000ull
#define SEC 1000000000ull

struct end {
	struct tnl_channel *ch;
	int verdict;  /* what deliver answers */
	unsigned got; /* messages delivered */
	int64_t last; /* number of the last one */
	uint64_t bytes;
	uint32_t last_len;
	uint8_t first_byte;
	unsigned room; /* messages that may still be taken; UINT_MAX: any */
	void (*tap)(struct end *e, const struct tnl_msg *m, uint64_t now);
	void *user;
	long live; /* blocks on the heap before it was opened */
};

static uint64_t cu_wall(void *ctx)
{
	(void)ctx;
	return 1700000000000ull;
}

static int cu_deliver(void *ctx, const struct tnl_msg *m, uint64_t now)
{
	struct end *e = ctx;
	if (e->verdict)
		return e->verdict;
	if (!e->room)
		return TNL_EAGAIN;
	if (e->room != UINT_MAX)
		e->room--;
	e->got++;
	e->last = m->seq;
	e->bytes += m->plen;
	e->last_len = m->plen;
	e->first_byte = m->plen ? m->payload[0] : 0;
	if (e->tap)
		e->tap(e, m, now);
	return 0;
}

/* agent: sends output; else client: sends input */
static void cu_open(struct end *e, bool agent, size_t memory_max, unsigned rate, unsigned resend_max, bool stock)
{
	memset(e, 0, sizeof(*e));
	e->live = tnl_alloc_live();
	e->room = UINT_MAX;
	e->last = -1;
	struct tnl_channel_config c = {.send_type = agent ? TNL_MT_OUTPUT : TNL_MT_INPUT,
				       .recv_type = agent ? TNL_MT_INPUT : TNL_MT_OUTPUT,
				       .memory_max = memory_max,
				       .message_rate = rate,
				       .resend_max = resend_max,
				       .stock_peer_payload = stock,
				       .wall_ms = cu_wall,
				       .deliver = cu_deliver,
				       .ctx = e};
	e->ch = tnl_channel_new(&c, 0);
	assert_non_null(e->ch);
}

static inline void cu_send(struct end *e, const void *p, size_t n, uint64_t now)
{
	uint8_t *b = tnl_channel_reserve(e->ch, n);
	assert_non_null(b);
	if (p)
		memcpy(b, p, n);
	else
		memset(b, 'x', n);
	assert_int_equal(tnl_channel_commit(e->ch, TNL_PT_OUTPUT, n, 0, now), 0);
}

/* Pulls one message and decodes it; 0 when there is none. */
static inline int cu_pull(struct end *e, uint64_t now, struct tnl_msg *m)
{
	const uint8_t *p;
	size_t n;
	int r = tnl_channel_pull(e->ch, now, &p, &n);
	if (r == TNL_EAGAIN)
		return 0;
	assert_int_equal(r, 1);
	assert_int_equal(tnl_msg_decode(p, n, m, NULL), 0);
	return 1;
}

static inline int cu_stream(struct end *to, int64_t seq, const char *text, uint64_t now)
{
	struct tnl_channel_stats st;
	(void)st;
	struct tnl_msg m = {.type = TNL_MT_INPUT,
			    .schema = 1,
			    .created_ms = 1,
			    .seq = seq,
			    .ptype = TNL_PT_OUTPUT,
			    .payload = (const uint8_t *)text,
			    .plen = (uint32_t)strlen(text)};
	m.id[0] = (uint8_t)seq;
	return tnl_channel_feed(to->ch, &m, now);
}

static inline int cu_ack_type(struct end *to, int64_t seq, enum tnl_mtype t, uint64_t now)
{
	char text[TNL_ACK_MAX];
	struct tnl_ack a = {.type = t, .seq = seq};
	size_t n = tnl_ack_write(text, &a);
	struct tnl_msg m = {.type = TNL_MT_ACK,
			    .schema = 1,
			    .created_ms = 1,
			    .flags = 3,
			    .payload = (const uint8_t *)text,
			    .plen = (uint32_t)n};
	return tnl_channel_feed(to->ch, &m, now);
}

static inline int cu_control(struct end *to, enum tnl_mtype t, uint64_t now)
{
	struct tnl_msg m = {.type = t};
	return tnl_channel_feed(to->ch, &m, now);
}

static inline struct tnl_channel_stats stats(struct end *e)
{
	struct tnl_channel_stats st;
	tnl_channel_stats(e->ch, &st);
	return st;
}

/* The agent end: sends output, receives input. */
static inline void open_agent(struct end *e)
{
	cu_open(e, true, 0, 0, 0, false);
	tnl_channel_link_up(e->ch, 0);
}

static inline void done(struct end *e)
{
	tnl_channel_free(e->ch);
	assert_int_equal(tnl_alloc_live(), e->live);
}

/* Pulls one stream message and says its number; -1: nothing to pull. */
static inline int64_t pull_seq(struct end *e, uint64_t now)
{
	struct tnl_msg m;
	if (!cu_pull(e, now, &m))
		return -1;
	assert_int_equal(m.type, TNL_MT_OUTPUT);
	return m.seq;
}

/* Pulls one ack and says what it acknowledges; -1: nothing. */
static inline int64_t pull_ack(struct end *e, uint64_t now)
{
	struct tnl_msg m;
	struct tnl_ack a;
	if (!cu_pull(e, now, &m))
		return -1;
	assert_int_equal(m.type, TNL_MT_ACK);
	assert_int_equal(m.seq, 0);
	assert_int_equal(m.flags, 3);
	assert_int_equal(m.ptype, 0);
	assert_int_equal(tnl_ack_parse(m.payload, m.plen, &a), 0);
	assert_int_equal(a.type, TNL_MT_INPUT);
	return a.seq;
}

static inline void send_small(struct end *e, unsigned n, uint64_t now)
{
	for (unsigned i = 0; i < n; i++)
		cu_send(e, NULL, 100, now);
}

/* Sends n messages and pulls them all. */
static inline void fly(struct end *e, unsigned n, uint64_t now)
{
	send_small(e, n, now);
	for (unsigned i = 0; i < n; i++)
		assert_true(pull_seq(e, now) >= 0);
}

static inline int ack(struct end *e, int64_t seq, uint64_t now)
{
	return cu_ack_type(e, seq, TNL_MT_OUTPUT, now);
}

/* A round trip of 100 ms, well known. */
static inline uint64_t settle(struct end *e, unsigned rounds)
{
	uint64_t now = 0;
	for (unsigned i = 0; i < rounds; i++) {
		fly(e, 1, now);
		now += 100 * MS;
		ack(e, (int64_t)i, now);
	}
	return now;
}

#endif
