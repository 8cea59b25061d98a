/* A channel with several links, by hand: what goes on which of them, what is acknowledged where. */
#ifndef LINKS_UTIL_H
#define LINKS_UTIL_H
#include "tests/unit/chan_util.h"

#define ALL UINT32_MAX /* links have room */

static inline void add(struct end *e, unsigned link, unsigned rank, uint64_t now)
{
	assert_int_equal(tnl_channel_link_add(e->ch, link, rank, now), 0);
}

/* Number of the next message for a link; -1: none. */
static inline int64_t pull_on(struct end *e, unsigned link, uint64_t now)
{
	const uint8_t *p;
	size_t n;
	struct tnl_msg m;
	if (tnl_channel_pull_on(e->ch, link, now, &p, &n) != 1)
		return -1;
	assert_int_equal(tnl_msg_decode(p, n, &m, NULL), 0);
	assert_int_equal(m.type, TNL_MT_OUTPUT);
	return m.seq;
}

static inline bool ack_on(struct end *e, unsigned link, uint64_t now)
{
	const uint8_t *p;
	size_t n;
	return tnl_channel_pull_on(e->ch, link, now, &p, &n) == 1;
}

static inline void ack_from(struct end *e, unsigned link, int64_t seq, uint64_t now)
{
	char text[TNL_ACK_MAX];
	struct tnl_ack a = {.type = TNL_MT_OUTPUT, .seq = seq};
	size_t n = tnl_ack_write(text, &a);
	struct tnl_msg m = {.type = TNL_MT_ACK, .schema = 1, .created_ms = 1, .flags = 3, .plen = (uint32_t)n};
	m.payload = (const uint8_t *)text;
	assert_int_equal(tnl_channel_feed_on(e->ch, link, &m, now), 0);
}

static inline void take_on(struct end *e, unsigned link, int64_t seq, uint64_t now)
{
	struct tnl_msg m = {.type = TNL_MT_INPUT, .schema = 1, .created_ms = 1, .seq = seq, .ptype = TNL_PT_OUTPUT};
	m.payload = (const uint8_t *)"x";
	m.plen = 1;
	assert_int_equal(tnl_channel_feed_on(e->ch, link, &m, now), 0);
}

static inline struct tnl_link_stats link_of(struct end *e, unsigned link)
{
	struct tnl_link_stats st;
	tnl_channel_link_stats(e->ch, link, &st);
	return st;
}

#endif
